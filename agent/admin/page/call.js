/* One call: its facts, its timeline, and what was said and done in it. */

import { callDuration, clock, h, money, replace, span, state, time } from "./dom.js";
import { timeline } from "./timeline.js";

/* Around the drawing in its box; see .timeline-box in style.css. */
const MARGINS_PX = 20;

export function callView(id, read) {
  const element = h("section");
  let call = null;
  let shown = "";

  new ResizeObserver(() => drawTimeline()).observe(element);
  return { element, refresh, onchange: () => {} };

  async function refresh() {
    call = await read(`/api/v1/calls/${encodeURIComponent(id)}`);
    call.tool_calls.forEach((tool, index) => (tool.index = index));
    const isLive = call.state !== "ended";
    const now = JSON.stringify(call);
    if (now !== shown) draw();
    else if (isLive) drawTimeline();
    shown = now;
    return isLive;
  }

  function draw() {
    document.title = `${call.caller_number || "unknown"} · Trunkline`;
    replace(
      element,
      h("p", {}, h("a", { href: "/" }, "← All calls")),
      h("h1", {}, h("bdi", {}, call.caller_number || "unknown"), " → ", h("bdi", {}, call.did), " ", state(call)),
      facts(call),
      h("h2", {}, "Timeline"),
      h("div", { class: "scroll timeline-box", tabindex: 0 }),
      h("h2", {}, "Transcript"),
      transcript(call),
      call.events.length > 0 && [h("h2", {}, "Events"), events(call)],
      call.charges.length > 0 && charges(call),
      ["quality", "usage"].map((name) => call[name] && figures(name, call[name])),
    );
    drawTimeline();
  }

  function drawTimeline() {
    const box = element.querySelector(".timeline-box");
    if (!box || !call) return;
    if (!call.answered_at) box.replaceChildren(h("p", { class: "quiet" }, "Not answered."));
    else if (!box.contains(document.activeElement)) box.replaceChildren(timeline(call, box.clientWidth - MARGINS_PX));
  }
}

function facts(call) {
  const latency = call.turn_latency;
  const pairs = [
    ["Agent", call.agent],
    ["Trunk", call.trunk],
    ["Started", time(call.started_at)],
    ["Answered after", span(call.answer_delay_ms)],
    ["Duration", callDuration(call)],
    ["Ending", call.ending ? `${call.ending.by}: ${call.ending.reason}` : "–"],
    ["Turn latency", latency ? `${span(latency.p50_ms)} median, ${span(latency.p95_ms)} p95` : "–"],
    ["Cost", money(call.cost_usd)],
    ["Call", h("code", {}, call.id)],
    ["SIP Call-ID", h("code", {}, call.sip_call_id)],
    ["Realtime call", call.realtime_call_id ? h("code", {}, call.realtime_call_id) : "–"],
  ];
  return h("dl", { class: "facts" }, pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function transcript(call) {
  const entries = [
    ...call.turns.map((turn, index) => ({ order: index, element: turnEntry(turn) })),
    ...call.tool_calls.map((tool) => ({ order: placeOf(tool, call.turns), element: toolEntry(tool) })),
  ];
  entries.sort((a, b) => a.order - b.order);
  if (!entries.length) return h("p", { class: "quiet" }, "Nothing was said.");
  return h("ol", { class: "transcript" }, entries.map((entry) => entry.element));
}

/** A tool call stands behind the last turn that began before it. */
function placeOf(tool, turns) {
  let place = -0.5;
  turns.forEach((turn, index) => {
    if (turn.started_ms <= tool.started_ms) place = index + 0.5;
  });
  return place;
}

function turnEntry(turn) {
  const isCut = turn.interrupted && turn.text.startsWith(turn.heard_text);
  return h(
    "li",
    { id: `turn-${turn.position}`, class: `entry ${turn.speaker}` },
    h(
      "p",
      { class: "entry-head" },
      h("b", {}, turn.speaker),
      h("span", {}, clock(turn.started_ms, true)),
      turn.latency_ms != null && h("span", { title: waitTitle(turn) }, `after ${span(turn.latency_ms)}`),
      turn.interrupted && h("span", { class: "cut" }, "interrupted"),
    ),
    h(
      "p",
      { class: "said", dir: "auto" },
      isCut ? [turn.heard_text, h("del", { title: "not heard" }, turn.text.slice(turn.heard_text.length))] : turn.text || h("i", { class: "quiet" }, turn.ended_ms == null ? "speaking…" : "nothing understood"),
    ),
  );
}

/** Says from when to when the caller waited, and for whom. */
function waitTitle(turn) {
  const parts = ["endpointing", "model", "tool", "network", "buffer"]
    .filter((name) => turn[`${name}_ms`])
    .map((name) => `${name} ${span(turn[`${name}_ms`])}`);
  return ["from the caller's last sound to the agent's first", ...parts].join("\n");
}

/** Says what its time was made of. */
function toolTitle(tool) {
  const parts = [];
  if (tool.silence_ms != null) parts.push(`the caller heard nothing for ${span(tool.silence_ms)}`);
  if (tool.attempts > 1) parts.push(`tried ${tool.attempts} times`);
  if (tool.repeats != null) parts.push("asked for again: the earlier result was given");
  return parts.join("\n");
}

function toolEntry(tool) {
  return h(
    "li",
    { id: `tool-${tool.index}`, class: `entry tool ${tool.status}` },
    h("p", { class: "entry-head" }, h("b", {}, tool.name), h("span", {}, clock(tool.started_ms, true)), h("span", {}, tool.status), h("span", { title: toolTitle(tool) }, span(tool.duration_ms))),
    h("pre", { "aria-label": "arguments" }, pretty(tool.arguments)),
    tool.output != null && h("pre", { "aria-label": "output" }, pretty(tool.output)),
    tool.error != null && h("p", { class: "problem" }, tool.error),
  );
}

function events(call) {
  return h(
    "ul",
    { class: "events" },
    call.events.map((event) =>
      h("li", {}, h("span", {}, clock(event.offset_ms, true)), h("b", {}, event.kind), Object.keys(event.detail).length > 0 && h("code", {}, JSON.stringify(event.detail))),
    ),
  );
}

function charges(call) {
  const row = (charge) => [
    clock(charge.offset_ms, true),
    charge.purpose,
    charge.model,
    Object.entries(charge.usage).map(([kind, amount]) => `${kind} ${amount}`).join(", "),
    charge.remark ? `${money(charge.cost_usd)} (${charge.remark})` : money(charge.cost_usd),
  ];
  return h(
    "details",
    {},
    h("summary", {}, "charges"),
    h(
      "div",
      { class: "scroll" },
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, ["At", "For", "Model", "Used", "Cost"].map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, call.charges.map((charge) => h("tr", {}, row(charge).map((text) => h("td", {}, text))))),
      ),
    ),
  );
}

function figures(name, values) {
  return h("details", {}, h("summary", {}, name), h("pre", {}, JSON.stringify(values, null, 2)));
}

/** JSON laid out to be read; anything else as it is. */
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 1);
  } catch {
    return text;
  }
}
