// A value over time: what the node recorded, and what this page saw since it was opened. Gaps are gaps, and where many
// readings share a pixel the least and the greatest of them are drawn.

import { h } from "./dom.js";
import { ask, nodeTime, state } from "./stream.js";
import { clock, exact, number, value } from "./words.js";
import { doubts } from "./status.js";

const [W, H, LEFT, BOTTOM, TOP, RIGHT] = [640, 170, 54, 22, 8, 8];
const RANGES = [[300000, "5 min"], [3600000, "1 h"], [21600000, "6 h"], [86400000, "1 d"], [604800000, "7 d"]];
// Rows of one answer, and answers for one plot: 20,000 readings are more than its pixels tell apart.
const ROWS = 1000;
const PAGES = 20;
// What does not change is reported seldom: longer apart than this, two readings have a dashed line between them.
const QUIET_MS = 10000;
// Between two looks at what was recorded.
const AGAIN_MS = 15000;

// Plots that are remembered though no page shows them any more.
const PLOTS = 64;
const UNSEEN_MS = 60000;

const plots = new Map();
let made = 0;

export function panel(key, twin, redraw) {
  if (twin.type !== "float" && twin.type !== "int" && twin.type !== "bool") return null;
  const plot = plots.get(key) ?? { range: RANGES[0][0], zoom: null, rows: [], gaps: [], asked: 0, recorded: null, id: `clip${made++}` };
  remember(key, plot);
  const until = plot.zoom ? plot.zoom[1] : nodeTime();
  const from = plot.zoom ? plot.zoom[0] : until - plot.range;
  look(key, plot, from, until, redraw);
  const points = merge(plot.rows, state.trail.get(key) ?? []).filter(({ t }) => t >= from - plot.range && t <= until + 1000);
  return h("figure", { class: "plot" },
    h("figcaption", { class: "bar" },
      h("span", { class: "chips", role: "group", "aria-label": "Range" }, RANGES.map(([ms, name]) =>
        h("button", { type: "button", class: "chip", "data-range": ms, "data-of": key, "aria-pressed": String(!plot.zoom && plot.range === ms) }, name)),
        plot.zoom ? h("button", { type: "button", class: "chip", "data-range": plot.range, "data-of": key }, "live again") : null),
      h("span", { class: "muted small" }, source(plot))),
    points.length ? draw(key, twin, plot, points, from, until) : h("p", { class: "muted small" }, "No reading in this time."));
}

function remember(key, plot) {
  plot.drawn = Date.now();
  plots.delete(key);
  plots.set(key, plot);
  const [oldest, { drawn }] = plots.entries().next().value;
  if (plots.size > PLOTS && plot.drawn - drawn > UNSEEN_MS) plots.delete(oldest);
}

// A cloud keeps no history.
function keeps() {
  return state.beside.me?.startsWith("edge/");
}

function source(plot) {
  if (!keeps()) return "as this page saw it: the history is at the device's edge";
  if (plot.recorded === null) return "";
  return plot.recorded ? "recorded here; drag to zoom" : "as this page saw it: nothing was recorded here in this time";
}

// Buttons and drags are heard here once, for plots come and go.
export function listen(root, redraw) {
  root.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-range]");
    const plot = button && plots.get(button.dataset.of);
    if (!plot) return;
    Object.assign(plot, { range: Number(button.dataset.range), zoom: null, asked: 0, rows: [] });
    redraw();
  });
  let began = null;
  root.addEventListener("pointerdown", (event) => {
    const svg = event.target.closest?.("svg[data-plot]");
    began = svg ? { svg, x: event.clientX } : null;
  });
  root.addEventListener("pointerup", (event) => {
    const drag = began;
    began = null;
    if (!drag || Math.abs(event.clientX - drag.x) < 8) return;
    const plot = plots.get(drag.svg.dataset.plot);
    const [from, until] = [Number(drag.svg.dataset.from), Number(drag.svg.dataset.until)];
    const box = drag.svg.getBoundingClientRect();
    const at = (x) => from + (((x - box.left) / box.width) * W - LEFT) / (W - LEFT - RIGHT) * (until - from);
    const zoom = [drag.x, event.clientX].map(at).sort((a, b) => a - b).map((t) => Math.min(Math.max(t, from), until));
    if (!plot || zoom[1] - zoom[0] < 1000) return;
    Object.assign(plot, { zoom, asked: 0, rows: [] });
    redraw();
  });
}

async function look(key, plot, from, until, redraw) {
  const now = Date.now();
  if (!keeps()) return;
  if (now - plot.asked < (plot.zoom ? AGAIN_MS * 20 : AGAIN_MS)) return;
  plot.asked = now;
  const [rows, gaps] = [[], []];
  let next = null;
  try {
    for (let page = 0; page < PAGES; page++) {
      const more = next ? `&next=${encodeURIComponent(next).replaceAll("%2F", "/").replaceAll("%2C", ",")}` : "";
      const answer = await ask(`/kubebus/v1/history/${key}?since=${Math.floor(from)}&until=${Math.ceil(until)}&limit=${ROWS}${more}`);
      rows.push(...answer.rows.map((row) => ({ t: row.time, v: Number(row.value), bad: row.quality === "bad" })));
      gaps.push(...(page === 0 ? answer.gaps : []));
      next = answer.next;
      if (!next) break;
    }
  } catch {
    return; // A node that keeps none, or is away; what the page saw is drawn.
  }
  if (plot.asked !== now) return;
  rows.sort((a, b) => a.t - b.t);
  Object.assign(plot, { rows: rows.filter(({ v }) => Number.isFinite(v)), gaps, recorded: rows.length > 0 });
  redraw();
}

function merge(recorded, seen) {
  const last = recorded.length ? recorded[recorded.length - 1].t : 0;
  return [...recorded, ...seen.filter(({ t }) => t > last)];
}

function draw(key, twin, plot, points, from, until) {
  const values = points.filter(({ bad }) => !bad).map(({ v }) => v);
  if (typeof twin.desired === "number") values.push(twin.desired);
  let [low, high] = [values.reduce((a, b) => Math.min(a, b), Infinity), values.reduce((a, b) => Math.max(a, b), -Infinity)];
  if (!(high >= low)) [low, high] = [0, 1];
  const room = (high - low) * 0.08 || Math.abs(high) * 0.05 || 0.5;
  [low, high] = [low - room, high + room];
  const x = (t) => LEFT + ((t - from) / (until - from)) * (W - LEFT - RIGHT);
  const y = (v) => H - BOTTOM - ((v - low) / (high - low)) * (H - BOTTOM - TOP);
  const held = plot.zoom || doubts(twin, key) ? null : { x: x(until), t: until };
  const { line, band, quiet } = trace(points, { x, y, gaps: plot.gaps, isStep: twin.type !== "float", held });
  const [first, last] = [points[0], points[points.length - 1]];
  const said = `${twin.property}, ${points.length} readings from ${clock(first.t)} to ${clock(last.t)}, between ${number(low + room)} and ${number(high - room)}${twin.unit ? ` ${twin.unit}` : ""}, last ${value(last.v)}`;
  return h("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": said, "data-plot": key, "data-from": from, "data-until": until },
    ticks(low, high, 4).map((v) => [h("line", { class: "gridline", x1: LEFT, x2: W - RIGHT, y1: y(v), y2: y(v) }), h("text", { x: LEFT - 6, y: y(v) + 4, "text-anchor": "end" }, exact(v))]),
    times(from, until).map((t) => [h("line", { class: "gridline", x1: x(t), x2: x(t), y1: TOP, y2: H - BOTTOM }), h("text", { x: x(t), y: H - 6, "text-anchor": x(t) > W - RIGHT - 26 ? "end" : "middle" }, moment(t, until - from))]),
    plot.gaps.map(({ since, until: end }) => h("rect", { class: "gap", x: Math.max(LEFT, x(since)), y: TOP, width: Math.max(1, Math.min(W - RIGHT, x(end)) - Math.max(LEFT, x(since))), height: H - BOTTOM - TOP })),
    h("defs", {}, h("clipPath", { id: plot.id }, h("rect", { x: LEFT, y: 0, width: W - LEFT - RIGHT, height: H }))),
    band ? h("path", { class: "band", d: band, "clip-path": `url(#${plot.id})` }) : null,
    quiet ? h("path", { class: "quiet", d: quiet, "clip-path": `url(#${plot.id})` }) : null,
    h("path", { class: "line", d: line, "clip-path": `url(#${plot.id})` }),
    typeof twin.desired === "number" && !plot.zoom ? h("line", { class: "desired", x1: LEFT, x2: W - RIGHT, y1: y(twin.desired), y2: y(twin.desired) }) : null);
}

// By pixel column. Between two readings is a line, unless something is missing there: a gap that the recorder names, or a
// reading of bad quality. Where it was quiet for long nothing changed, or nothing was read: a dashed step says just that.
// The last reading holds until now if nothing speaks against it.
function trace(points, { x, y, gaps, isStep, held }) {
  const columns = [];
  for (const { t, v, bad } of points) {
    const at = Math.round(x(t));
    const column = columns[columns.length - 1];
    if (column && column.at === at && column.bad === bad) Object.assign(column, { low: Math.min(column.low, v), high: Math.max(column.high, v), last: v, until: t });
    else columns.push({ at, low: v, high: v, first: v, last: v, since: t, until: t, bad });
  }
  let [line, band, quiet, pen] = ["", "", "", false];
  const h = (v) => y(v).toFixed(1);
  columns.forEach((column, i) => {
    const before = columns[i - 1];
    if (column.bad) return void (pen = false);
    const missing = before && gaps.some((gap) => gap.since < column.since && gap.until > before.until);
    const isQuiet = before && column.since - before.until > QUIET_MS;
    if (pen && !missing && isQuiet) quiet += `M${before.at} ${h(before.last)}H${column.at}`;
    if (pen && !missing && !isQuiet) line += isStep ? `H${column.at}V${h(column.first)}` : `L${column.at} ${h(column.first)}`;
    else line += `M${column.at} ${h(column.first)}h0.5`;
    if (column.last !== column.first) line += `L${column.at} ${h(column.last)}`;
    if (column.high > column.low) band += `M${column.at} ${h(column.low)}V${h(column.high)}`;
    pen = true;
  });
  const last = columns[columns.length - 1];
  if (pen && held && held.x > last.at) {
    if (held.t - last.until > QUIET_MS) quiet += `M${last.at} ${h(last.last)}H${held.x.toFixed(1)}`;
    else line += `H${held.x.toFixed(1)}`;
  }
  return { line, band, quiet };
}

function ticks(low, high, wanted) {
  const raw = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find((s) => s * power >= raw) ?? 10);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high && found.length < 12; v += step) found.push(Math.abs(v) < step / 1e6 ? 0 : v);
  return found;
}

const STEPS = [1, 2, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400, 172800].map((s) => s * 1000);

function times(from, until) {
  const step = STEPS.find((s) => (until - from) / s <= 7) ?? STEPS[STEPS.length - 1];
  const zone = new Date(from).getTimezoneOffset() * 60000;
  const found = [];
  for (let t = Math.ceil((from - zone) / step) * step + zone; t <= until && found.length < 12; t += step) found.push(t);
  return found;
}

function moment(t, span) {
  const date = new Date(t);
  if (span > 2 * 86400000) return date.toLocaleDateString([], { month: "short", day: "numeric" });
  return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: span < 600000 ? "2-digit" : undefined, hour12: false });
}
