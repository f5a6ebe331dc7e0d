/* Builds elements. All text goes in as text nodes: what callers send is never read as HTML. */

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...wanted(children));
  return element;
}

const wanted = (children) => children.flat(2).filter((child) => child != null && child !== false);

/** Puts other children into an element; lists are laid flat, what is absent is left out. */
export const replace = (element, ...children) => element.replaceChildren(...wanted(children));

/** An HTML element: attributes by name, `onclick` and the like as listeners. */
export const h = (name, attributes = {}, ...children) =>
  fill(document.createElement(name), attributes, children);

/** An SVG element. */
export const s = (name, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);

/** A duration for people: 840 ms, 12.4 s, 3:05. */
export function span(ms) {
  if (ms == null) return "–";
  if (ms < 1000) return `${ms} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  return clock(ms);
}

/** An offset in a call: 1:02.3 */
export function clock(ms, tenths = false) {
  const total = tenths ? Math.floor(ms / 100) / 10 : Math.floor(ms / 1000);
  const hours = Math.floor(total / 3600);
  const minutes = Math.floor((total % 3600) / 60);
  const seconds = (total % 60).toFixed(tenths ? 1 : 0).padStart(tenths ? 4 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${seconds}` : `${minutes}:${seconds}`;
}

/** US dollars for people: $2.50, $0.0037, less than $0.0001. */
export function money(usd) {
  if (usd == null) return "–";
  if (usd > 0 && usd < 0.0001) return "less than $0.0001";
  return `$${usd.toFixed(usd === 0 || usd >= 0.1 ? 2 : 4)}`;
}

const dateTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** A point in time in the reader's own zone; the exact one on hover. */
export const time = (iso) =>
  iso ? h("time", { datetime: iso, title: iso }, dateTime.format(new Date(iso))) : "–";

/** How long a call has taken, or takes so far. */
export function callDuration(call) {
  if (call.duration_ms != null) return span(call.duration_ms);
  return call.answered_at ? span(Math.max(0, Date.now() - Date.parse(call.answered_at))) : "–";
}

const STATES = { ringing: "ringing", active: "in call", ended: "ended" };

/** The state of a call, said in a word and not by colour alone. */
export const state = (call) =>
  h("span", { class: `state ${call.state}` }, STATES[call.state] ?? call.state);
