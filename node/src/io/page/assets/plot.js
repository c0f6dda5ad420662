// A value over time: what the node recorded, and what this page saw since it was opened. Gaps are gaps, and where many
// readings share a pixel the least and the greatest of them are drawn.

import { h } from "./dom.js";
import { ask, nodeTime, state } from "./stream.js";
import { clock, exact, number, value } from "./words.js";
import { doubts, isCut, mark, nodeOf } from "./status.js";

const [W, H, LEFT, BOTTOM, TOP, RIGHT] = [640, 170, 54, 22, 8, 8];
const RANGES = [[300000, "5 min"], [3600000, "1 h"], [21600000, "6 h"], [86400000, "1 d"], [604800000, "7 d"]];
// Of what was recorded so many points are asked for, two pixels each: the node tells the peaks of what is between.
const POINTS = 290;
// What does not change is reported seldom: longer apart than this, two readings have a dashed line between them.
const QUIET_MS = 10000;
// Between two looks at what was recorded: here, at a cloud, whose edge may have a thin line, and where there was no answer.
const AGAIN_MS = 15000;
const AGAIN_FAR_MS = 60000;
const AGAIN_FAILED_MS = 8000;

// Plots that are remembered though no page shows them any more.
const PLOTS = 64;
const UNSEEN_MS = 60000;

const plots = new Map();
let made = 0;

// One question at a time, whatever the number of plots.
let asking = Promise.resolve();

export function panel(key, twin, redraw) {
  if (twin.type !== "float" && twin.type !== "int" && twin.type !== "bool") return null;
  const plot = plots.get(key) ?? { range: RANGES[0][0], zoom: null, points: [], gaps: [], due: 0, recorded: null, why: "", id: `clip${made++}` };
  remember(key, plot);
  const until = plot.zoom ? plot.zoom[1] : nodeTime();
  const from = plot.zoom ? plot.zoom[0] : until - plot.range;
  look(key, plot, redraw);
  const points = merge(plot.points, state.trail.get(key) ?? []).filter((point) => point.until >= from - plot.range && point.since <= until + 1000);
  const shown = points.filter((point) => point.until >= from);
  return h("figure", { class: "plot", "data-source": plot.recorded === null ? "page" : "record" },
    h("figcaption", { class: "bar" },
      h("span", { class: "chips", role: "group", "aria-label": "Range" }, RANGES.map(([ms, name]) =>
        h("button", { type: "button", class: "chip", "data-range": ms, "data-of": key, "aria-pressed": String(!plot.zoom && plot.range === ms) }, name)),
        plot.zoom ? h("button", { type: "button", class: "chip", "data-range": plot.range, "data-of": key }, "live again") : null),
      h("span", { class: "muted small" }, source(plot, key)),
      legend("bad", shown), legend("uncertain", shown)),
    points.length ? draw(key, twin, plot, points, from, until) : h("p", { class: "muted small" }, "No reading in this time."));
}

function legend(quality, points) {
  return points.some((point) => point.quality === quality) ? mark(quality === "bad" ? "bad" : "warn", `quality ${quality}`, "the line at the foot of the plot says when") : null;
}

function remember(key, plot) {
  plot.drawn = Date.now();
  plots.delete(key);
  plots.set(key, plot);
  const [oldest, { drawn }] = plots.entries().next().value;
  if (plots.size > PLOTS && plot.drawn - drawn > UNSEEN_MS) plots.delete(oldest);
}

// A cloud keeps no history: it asks the device's edge.
function isFar() {
  return !state.beside.me?.startsWith("edge/");
}

function source(plot, key) {
  if (plot.why) return `${plot.why}. Shown is what this page saw.`;
  if (plot.recorded === null) return "";
  const where = isFar() ? `at ${state.devices.get(key.slice(0, key.lastIndexOf("/")))?.node ?? "its edge"}` : "here";
  return plot.recorded ? `recorded ${where}; drag to zoom` : `as this page saw it: nothing was recorded ${where} in this time`;
}

// Buttons and drags are heard here once, for plots come and go.
export function listen(root, redraw) {
  root.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-range]");
    const plot = button && plots.get(button.dataset.of);
    if (!plot) return;
    Object.assign(plot, { range: Number(button.dataset.range), zoom: null, due: 0, points: [] });
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
    Object.assign(plot, { zoom, due: 0, points: [] });
    redraw();
  });
}

// When it is time, what was recorded; what the page saw itself goes on from there.
function look(key, plot, redraw) {
  const { node } = nodeOf(null, key);
  const cut = isFar() && isCut(node);
  // Its edge went or came back.
  if (cut !== plot.cut) Object.assign(plot, { cut, due: plot.due === Infinity ? Infinity : 0 });
  if (!state.beside.me || Date.now() < plot.due) return;
  const { range, zoom } = plot;
  plot.due = Infinity;
  asking = asking.then(async () => {
    const isWanted = () => plot.range === range && plot.zoom === zoom;
    // Nobody looks at it any more.
    if (Date.now() - plot.drawn > 3000) return void (plot.due = 0);
    const [from, until] = zoom ?? [nodeTime() - range, nodeTime()];
    try {
      const answer = await ask(`/kubebus/v1/history/${key}?since=${Math.floor(from)}&until=${Math.ceil(until)}&points=${POINTS}`);
      if (!isWanted()) return;
      const recorded = answer.points.length > 0;
      Object.assign(plot, { points: answer.points, gaps: answer.gaps, recorded, why: "", due: Date.now() + (isFar() ? AGAIN_FAR_MS : AGAIN_MS) * (zoom ? 20 : 1) });
    } catch (error) {
      // What was recorded before is drawn still.
      if (isWanted()) Object.assign(plot, { why: error.message, due: Date.now() + AGAIN_FAILED_MS });
    }
    redraw();
  }).catch(console.error);
}

function merge(recorded, seen) {
  const last = recorded.length ? recorded[recorded.length - 1].until : 0;
  const reading = ({ t, v, quality, missing }) => ({ since: t, until: t, quality: missing ? "missing" : quality, first: v, last: v, least: v, greatest: v });
  return [...recorded, ...seen.filter(({ t }) => t > last).map(reading)];
}

function draw(key, twin, plot, points, from, until) {
  const values = points.filter(isUsable).flatMap(({ least, greatest }) => [least, greatest]);
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
  const said = `${twin.property}, ${points.length} points from ${clock(first.since)} to ${clock(last.until)}, between ${number(low + room)} and ${number(high - room)}${twin.unit ? ` ${twin.unit}` : ""}, last ${value(last.last ?? null)}`;
  return h("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": said, "data-plot": key, "data-from": from, "data-until": until },
    ticks(low, high, 4).map((v) => [h("line", { class: "gridline", x1: LEFT, x2: W - RIGHT, y1: y(v), y2: y(v) }), h("text", { x: LEFT - 6, y: y(v) + 4, "text-anchor": "end" }, exact(v))]),
    times(from, until).map((t) => [h("line", { class: "gridline", x1: x(t), x2: x(t), y1: TOP, y2: H - BOTTOM }), h("text", { x: x(t), y: H - 6, "text-anchor": x(t) > W - RIGHT - 26 ? "end" : "middle" }, moment(t, until - from))]),
    plot.gaps.map(({ since, until: end }) => h("rect", { class: "gap", x: Math.max(LEFT, x(since)), y: TOP, width: Math.max(1, Math.min(W - RIGHT, x(end)) - Math.max(LEFT, x(since))), height: H - BOTTOM - TOP })),
    h("defs", {}, h("clipPath", { id: plot.id }, h("rect", { x: LEFT, y: 0, width: W - LEFT - RIGHT, height: H }))),
    band ? h("path", { class: "band", d: band, "clip-path": `url(#${plot.id})` }) : null,
    quiet ? h("path", { class: "quiet", d: quiet, "clip-path": `url(#${plot.id})` }) : null,
    h("path", { class: "line", d: line, "clip-path": `url(#${plot.id})` }),
    ["bad", "uncertain"].map((quality) => doubted(points, quality, x, plot)),
    typeof twin.desired === "number" && !plot.zoom ? h("line", { class: "desired", x1: LEFT, x2: W - RIGHT, y1: y(twin.desired), y2: y(twin.desired) }) : null);
}

function isUsable({ quality }) {
  return quality !== "bad" && quality !== "missing";
}

// When readings were of this quality: a line at the foot of the plot.
function doubted(points, quality, x, plot) {
  const d = points.filter((point) => point.quality === quality).map(({ since, until }) => `M${x(since).toFixed(1)} ${H - BOTTOM - 2}H${Math.max(x(until), x(since) + 2).toFixed(1)}`).join("");
  return d ? h("path", { class: `foot ${quality}`, d, "clip-path": `url(#${plot.id})` }, h("title", {}, `quality ${quality}`)) : null;
}

// By pixel column. Between two readings is a line, unless something is missing there: a gap that the recorder names, or a
// reading of bad quality. Where it was quiet for long nothing changed, or nothing was read: a dashed step says just that.
// The last reading holds until now if nothing speaks against it.
function trace(points, { x, y, gaps, isStep, held }) {
  const columns = [];
  for (const point of points) {
    const [at, bad] = [Math.round(x(point.since)), !isUsable(point)];
    const column = columns[columns.length - 1];
    if (column && column.at === at && column.bad === bad) Object.assign(column, { low: Math.min(column.low, point.least), high: Math.max(column.high, point.greatest), last: point.last, until: point.until });
    else columns.push({ at, low: point.least, high: point.greatest, first: point.first, last: point.last, since: point.since, until: point.until, bad });
  }
  let [line, band, quiet, pen] = ["", "", "", false];
  const h = (v) => y(v).toFixed(1);
  columns.forEach((column, i) => {
    const before = columns[i - 1];
    if (column.bad) return void (pen = false);
    const missing = before && gaps.some((gap) => gap.since < column.since && gap.until > before.until);
    const isQuiet = before && column.since - before.until > QUIET_MS;
    if (pen && !missing && isQuiet) quiet += `M${before.end} ${h(before.last)}H${column.at}`;
    if (pen && !missing && !isQuiet) line += isStep ? `H${column.at}V${h(column.first)}` : `L${column.at} ${h(column.first)}`;
    else line += `M${column.at} ${h(column.first)}h0.5`;
    const end = Math.max(column.at, Math.round(x(column.until)));
    if (column.last !== column.first || end > column.at) line += isStep ? `H${end}V${h(column.last)}` : `L${end} ${h(column.last)}`;
    column.end = end;
    if (column.high > column.low) band += `M${column.at} ${h(column.low)}V${h(column.high)}`;
    pen = true;
  });
  const last = columns[columns.length - 1];
  if (pen && held && held.x > last.end) {
    if (held.t - last.until > QUIET_MS) quiet += `M${last.end} ${h(last.last)}H${held.x.toFixed(1)}`;
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
