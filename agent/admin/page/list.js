/* The list of calls, newest first, with filters that live in the address. */

import { callDuration, h, money, span, state, time } from "./dom.js";

const FIELDS = [
  ["q", "Words said", "search"],
  ["caller", "Caller", "text"],
  ["did", "Number dialled", "text"],
  ["agent", "Agent", "text"],
  ["trunk", "Trunk", "text"],
];

export function listView(read) {
  const wanted = new URLSearchParams(location.search);
  const rows = h("tbody");
  const empty = h("p", { class: "quiet", hidden: true });
  const more = h("button", { type: "button", hidden: true, onclick: showOlder }, "Older calls");
  let older = [];
  let cursor = null;
  let shown = "";
  let typing;

  const form = h(
    "form",
    { class: "filters", role: "search", "aria-label": "Filter calls", onsubmit: (event) => event.preventDefault(), oninput: filter },
    FIELDS.map(([name, label, type]) =>
      h("label", {}, label, h("input", { name, type, value: wanted.get(name) })),
    ),
    h(
      "label",
      {},
      "State",
      h(
        "select",
        { name: "state" },
        [["", "any"], ["ringing", "ringing"], ["active", "in call"], ["ended", "ended"]].map(([value, label]) =>
          h("option", { value, selected: wanted.get("state") === value }, label),
        ),
      ),
    ),
    ["since", "until"].map((name) =>
      h(
        "label",
        {},
        name === "since" ? "From" : "Before",
        h("input", { name, type: "datetime-local", value: local(wanted.get(name)) }),
      ),
    ),
  );

  const view = {
    element: h(
      "section",
      {},
      h("h1", {}, "Calls"),
      form,
      h(
        "div",
        { class: "scroll" },
        h(
          "table",
          { class: "calls" },
          h("thead", {}, h("tr", {}, ["Started", "Caller", "Dialled", "Agent", "State", "Duration", "Turns", "Latency", "Cost", "Ending"].map((name) => h("th", { scope: "col" }, name)))),
          rows,
        ),
      ),
      empty,
      more,
    ),
    onchange: () => {},
    refresh,
  };
  return view;

  async function refresh() {
    const query = wanted.toString();
    const page = await read(`/api/v1/calls?${query}`);
    if (query !== wanted.toString()) return true;
    if (!older.length) cursor = page.next_cursor;
    const known = new Set(page.items.map((call) => call.id));
    const calls = [...page.items, ...older.filter((call) => !known.has(call.id))];
    const isLive = calls.some((call) => call.state !== "ended");
    // Rows are replaced only when something changed: a focused link stays focused.
    const now = JSON.stringify(calls) + (isLive ? Math.floor(Date.now() / 1000) : "");
    if (now !== shown) draw(calls);
    shown = now;
    return isLive;
  }

  function draw(calls) {
    const focused = rows.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    rows.replaceChildren(...calls.map(row));
    if (focused) [...rows.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
    empty.hidden = calls.length > 0;
    empty.textContent = wanted.size ? "No call matches." : "No calls yet.";
    more.hidden = cursor === null;
  }

  async function showOlder() {
    more.disabled = true;
    try {
      const query = new URLSearchParams(wanted);
      query.set("cursor", cursor);
      const page = await read(`/api/v1/calls?${query}`);
      older.push(...page.items);
      cursor = page.next_cursor;
      shown = "";
    } finally {
      more.disabled = false;
    }
    view.onchange();
  }

  function filter() {
    clearTimeout(typing);
    typing = setTimeout(() => {
      for (const [name, value] of new FormData(form)) {
        if (!value) wanted.delete(name);
        else wanted.set(name, name === "since" || name === "until" ? new Date(value).toISOString() : value);
      }
      history.replaceState(null, "", wanted.size ? `?${wanted}` : location.pathname);
      older = [];
      shown = "";
      view.onchange();
    }, 250);
  }
}

function row(call) {
  return h(
    "tr",
    {},
    h("td", { "data-label": "Started" }, h("a", { href: `/calls/${encodeURIComponent(call.id)}` }, time(call.started_at))),
    h("td", { "data-label": "Caller" }, h("bdi", {}, call.caller_number || "unknown")),
    h("td", { "data-label": "Dialled" }, h("bdi", {}, call.did)),
    h("td", { "data-label": "Agent" }, call.agent),
    h("td", { "data-label": "State" }, state(call)),
    h("td", { "data-label": "Duration", class: "number" }, callDuration(call)),
    h("td", { "data-label": "Turns", class: "number" }, String(call.turn_count)),
    h("td", { "data-label": "Latency", class: "number" }, span(call.turn_latency?.p50_ms)),
    h("td", { "data-label": "Cost", class: "number" }, money(call.cost_usd)),
    h("td", { "data-label": "Ending" }, call.ending ? `${call.ending.by}: ${call.ending.reason}` : "–"),
  );
}

/** An ISO time as `datetime-local` wants it. */
function local(iso) {
  const at = iso ? new Date(iso) : null;
  if (!at || Number.isNaN(at.getTime())) return "";
  return new Date(at.getTime() - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}
