/* A call, drawn: who spoke when, which tools ran, where it was interrupted, who waited how long. */

import { clock, s, span } from "./dom.js";

const LANES = { caller: 30, agent: 74, tools: 118 };
const BAR = 24;
const AXIS = 158;
const LEFT = 62;
const LEAST_PX_PER_S = 9;
const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800];

/** The SVG for a call, at least as wide as `width` pixels. */
export function timeline(call, width) {
  const end = Math.max(1000, length(call));
  const scale = Math.max((width - LEFT - 12) / end, LEAST_PX_PER_S / 1000);
  const x = (ms) => LEFT + ms * scale;
  const right = x(end);
  const parts = [
    hatch(),
    ...Object.entries(LANES).map(([name, y]) => [
      s("line", { class: "lane", x1: LEFT, x2: right, y1: y + BAR / 2, y2: y + BAR / 2 }),
      s("text", { class: "name", x: 0, y: y + BAR / 2 + 4 }, name),
    ]),
    ...axis(end, scale, x),
    ...call.turns.map((turn) => turnBar(turn, end, x)),
    ...call.tool_calls.map((tool) => toolBar(tool, end, x)),
  ];
  return s(
    "svg",
    {
      class: "timeline",
      width: right + 12,
      height: AXIS + 22,
      role: "group",
      "aria-label": `Timeline of ${span(end)}: ${call.turns.length} turns, ${call.tool_calls.length} tool calls. The transcript below says the same.`,
    },
    parts.flat(),
  );
}

function length(call) {
  const ends = [call.duration_ms ?? 0];
  if (call.duration_ms == null && call.answered_at) ends.push(Date.now() - Date.parse(call.answered_at));
  for (const turn of call.turns) ends.push(turn.ended_ms ?? turn.started_ms);
  for (const tool of call.tool_calls) ends.push(tool.started_ms + (tool.duration_ms ?? 0));
  return Math.max(...ends);
}

function hatch() {
  return s(
    "defs",
    {},
    s(
      "pattern",
      { id: "waiting", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      s("line", { class: "hatch", x1: 0, x2: 0, y1: 0, y2: 6 }),
    ),
  );
}

function axis(end, scale, x) {
  const step = (STEPS_S.find((seconds) => seconds * 1000 * scale >= 56) ?? 3600) * 1000;
  const marks = [];
  for (let ms = 0; ms <= end; ms += step) {
    marks.push(
      s("line", { class: "tick", x1: x(ms), x2: x(ms), y1: 20, y2: AXIS }),
      s("text", { class: "tick-label", x: x(ms), y: AXIS + 15 }, clock(ms)),
    );
  }
  return marks;
}

function turnBar(turn, end, x) {
  const y = LANES[turn.speaker];
  const from = x(turn.started_ms);
  const to = x(turn.ended_ms ?? end);
  const said = `${turn.speaker} at ${clock(turn.started_ms, true)}${turn.interrupted ? ", interrupted" : ""}: ${turn.text}`;
  const parts = [
    s(
      "a",
      { href: `#turn-${turn.position}`, "aria-label": said },
      s("title", {}, said),
      s("rect", { class: `turn ${turn.speaker}${turn.ended_ms == null ? " open" : ""}`, x: from, y, width: Math.max(3, to - from), height: BAR, rx: 4 }),
    ),
  ];
  if (turn.latency_ms != null) {
    const waited = x(Math.max(0, turn.started_ms - turn.latency_ms));
    parts.push(
      s("rect", { class: "wait", x: waited, y, width: Math.max(1, from - waited), height: BAR }, s("title", {}, `waited ${span(turn.latency_ms)}`)),
    );
    if (from - waited > 40) {
      parts.push(s("text", { class: "wait-label", x: (waited + from) / 2, y: y - 4 }, span(turn.latency_ms)));
    }
  }
  if (turn.interrupted) {
    parts.push(
      s("path", { class: "interruption", d: `M${to} ${LANES.caller} V${y + BAR + 6} m-4 -8 l8 8 m0 -8 l-8 8` }, s("title", {}, "interrupted here")),
    );
  }
  return parts;
}

function toolBar(tool, end, x) {
  const from = x(tool.started_ms);
  const to = x(tool.duration_ms == null ? end : tool.started_ms + tool.duration_ms);
  const said = `${tool.name} ${tool.status}, ${span(tool.duration_ms)}`;
  return s(
    "a",
    { href: `#tool-${tool.index}`, "aria-label": said },
    s("title", {}, said),
    s("rect", { class: `tool ${tool.status}`, x: from, y: LANES.tools, width: Math.max(4, to - from), height: BAR, rx: 4 }),
    s("text", { class: "tool-label", x: Math.max(from, LEFT), y: LANES.tools + BAR + 12 }, tool.name),
  );
}
