// The water works: tank, pipe, pump and valve, moved by nothing but the twins' values. A namespace has a drawing when a
// `tank` with `level` and a `valve` with `position` are in it.

import { h } from "./dom.js";
import { ageOf, state } from "./stream.js";
import { age, value } from "./words.js";
import { doubts } from "./status.js";
import * as rules from "./rules.js";

const TANK = { x: 560, y: 60, w: 200, h: 230 };
const FULL_M = 6;

export function query([namespace]) {
  const ns = namespace ?? state.beside.plants?.[0];
  return ns ? `device=${ns}/tank&device=${ns}/valve&device=${ns}/meter` : "";
}

export function view([namespace]) {
  const ns = namespace ?? state.beside.plants?.[0];
  if (!ns) return h("section", {}, h("h1", {}, "Plant"), h("p", { class: "muted" }, "No namespace has a tank with a level and a valve with a position."));
  const twin = (device, property) => {
    const key = `${ns}/${device}/${property}`;
    const row = state.twins.get(key);
    return { key, row, v: typeof row?.reported?.value === "number" ? row.reported.value : null, why: row ? doubts(row, key) : "not known" };
  };
  const moved = [...state.rules.values()].filter((rule) => rule.output === `${ns}/valve/position`);
  return h("section", {}, h("h1", {}, `Plant ${ns}`), h("div", { class: "scroll" }, picture(twin)), moved.length ? [h("h2", {}, "What moves the valve"), h("div", { class: "cards" }, moved.map(rules.card))] : null);
}

function picture(twin) {
  const [level, position, inflow, outflow] = [twin("tank", "level"), twin("valve", "position"), twin("valve", "inflow"), twin("tank", "outflow")];
  const [pressure, mixer, setpoint] = [twin("valve", "pressure"), twin("tank", "mixer"), twin("valve", "setpoint")];
  const full = level.row?.maximum ?? FULL_M;
  const said = [["level", level], ["valve", position], ["inflow", inflow], ["outflow", outflow], ["pressure", pressure]].map(([name, { row, v, why }]) => `${name} ${value(v)} ${row?.unit ?? ""}${why ? ` (${why})` : ""}`).join(", ");
  return h("svg", { class: "plant", viewBox: "0 0 900 400", role: "img", "aria-label": `Drawing: ${said}` },
    pipe("M40 120H270", inflow, "in-a"), pipe("M350 120H660V150", inflow, "in-b"), pipe("M660 290V330H860", outflow, "out"),
    pump(100, 120, inflow), gauge(200, 70, pressure), valve(310, 120, position), tank(level, setpoint, mixer, full),
    label(310, 186, "valve", position), label(310, 240, "inflow", inflow), label(110, 28, "pressure", pressure),
    label(830, 110, "level", level), label(830, 164, "set point", setpoint), label(830, 218, "mixer", mixer), label(800, 362, "to the town", outflow),
    h("text", { class: "caption", x: 100, y: 178, "text-anchor": "middle" }, "pump"));
}

function tank({ v, why }, setpoint, mixer, full) {
  const part = v === null ? 0 : Math.min(1, Math.max(0, v / full));
  const height = part * TANK.h;
  const at = (m) => TANK.y + TANK.h * (1 - Math.min(1, Math.max(0, m / full)));
  return h("g", { class: `tank${why ? " stale" : ""}`, "data-level": v },
    v === null ? null : h("rect", { class: "water", "data-key": "water", x: TANK.x, y: TANK.y + TANK.h - height, width: TANK.w, height }),
    h("rect", { class: "wall", x: TANK.x, y: TANK.y, width: TANK.w, height: TANK.h, rx: 4 }),
    [1, 2, 3, 4, 5].map((m) => m < full ? h("line", { class: "scale", x1: TANK.x, x2: TANK.x + 10, y1: at(m), y2: at(m) }) : null),
    setpoint.v === null ? null : h("path", { class: "set", d: `M${TANK.x - 12} ${at(setpoint.v) - 6}l12 6l-12 6zM${TANK.x} ${at(setpoint.v)}H${TANK.x + TANK.w}` }),
    h("g", { class: `mixer ${mixer.v > 0 && !mixer.why ? mixer.v > 50 ? "fast" : "slow" : ""}` },
      h("line", { x1: TANK.x + 100, y1: TANK.y - 14, x2: TANK.x + 100, y2: TANK.y + 190 }), h("path", { class: "blade", d: `M${TANK.x + 100} ${TANK.y + 190}c-14 -14 -34 -14 -34 0s20 14 34 0c14 -14 34 -14 34 0s-20 14 -34 0` })));
}

function valve(x, y, { v, why }) {
  const open = v === null ? 0 : Math.min(100, Math.max(0, v));
  const turn = (open * 0.9 * Math.PI) / 180;
  const [dx, dy] = [30 * Math.sin(turn), 30 * Math.cos(turn)];
  return h("g", { class: `valve${why ? " stale" : ""}`, "data-position": v },
    h("path", { class: "body", d: `M${x - 40} ${y - 26}L${x + 40} ${y + 26}V${y - 26}L${x - 40} ${y + 26}Z` }),
    h("path", { class: "open", d: `M${x - 40} ${y + 44}h${(80 * open) / 100}` }), h("path", { class: "rail", d: `M${x - 40} ${y + 44}h80` }),
    h("line", { class: "stem", x1: x, y1: y, x2: x, y2: y - 40 }), h("line", { class: "wheel", x1: x - dx, y1: y - 40 - dy / 3, x2: x + dx, y2: y - 40 + dy / 3 }));
}

function pump(x, y, flow) {
  return h("g", { class: `pump ${speed(flow)}${flow.why ? " stale" : ""}` }, h("circle", { cx: x, cy: y, r: 32 }), h("path", { class: "rotor", d: `M${x - 14} ${y - 24}L${x + 30} ${y}L${x - 14} ${y + 24}Z` }));
}

function gauge(x, y, { v, why, row }) {
  const part = v === null ? 0 : Math.min(1, v / 8);
  const turn = Math.PI * (0.75 + 1.5 * part);
  return h("g", { class: `gauge${why ? " stale" : ""}` }, h("title", {}, `${value(v)} ${row?.unit ?? ""}`), h("line", { class: "stem", x1: x, y1: y + 22, x2: x, y2: y + 44 }), h("circle", { cx: x, cy: y, r: 22 }), h("line", { class: "needle", x1: x, y1: y, x2: x + 16 * Math.cos(turn), y2: y + 16 * Math.sin(turn) }));
}

function pipe(d, flow, key) {
  return h("g", { class: `pipe ${speed(flow)}${flow.why ? " stale" : ""}`, "data-key": key }, h("path", { class: "wall", d }), h("path", { class: "flow", d }));
}

// A value that is doubtful moves nothing in the drawing either.
function speed({ v, why }) {
  if (v === null || why || v <= 0.5) return "still";
  return v > 120 ? "fast" : v > 50 ? "brisk" : "slow";
}

function label(x, y, name, { row, v, why, key }) {
  const old = row ? ageOf(row) : null;
  const reading = `${value(v)}${row?.unit && v !== null ? ` ${row.unit}` : ""}`;
  return h("g", { class: `label${why ? " stale" : ""}`, "data-label": key }, why ? h("title", {}, why) : null,
    h("text", { class: "caption", x, y, "text-anchor": "middle" }, name),
    h("text", { class: "reading", x, y: y + 20, "text-anchor": "middle" }, reading),
    why ? h("text", { class: "caption", x, y: y + 34, "text-anchor": "middle" }, row?.reported ? `? ${age(old)} old` : "") : null);
}
