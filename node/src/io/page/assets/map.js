// The map: cloud, sites and the links between, drawn from the fleet; below it the same as a table.

import { h, heads } from "./dom.js";
import { ageOf, state } from "./stream.js";
import { age, count, rate } from "./words.js";
import { mark, nodeStatus, shape } from "./status.js";

const BOX = { w: 190, h: 74 };
const NARROW = { w: 158, h: 74 };
// Beyond so many sites lines would cross more than they tell: tiles, the worst first.
const MOST_DRAWN = 12;
const ORDER = ["bad", "warn", "off", "ok", "wait"];

export function query() {
  return "";
}

export function view() {
  const nodes = [...state.fleet.values()];
  if (!nodes.length) return h("section", {}, h("h1", {}, "Map"), h("p", { class: "muted" }, "The node has not said yet who is there."));
  const cut = nodes.filter((node) => nodeStatus(node).level === "bad");
  return h("section", {},
    h("h1", {}, "Map ", h("span", { class: "muted small" }, summary(nodes, cut))),
    nodes.length <= MOST_DRAWN + 1 ? drawing(nodes) : tiles(nodes),
    table(nodes));
}

function summary(nodes, cut) {
  const edges = nodes.filter((node) => node.node.startsWith("edge/"));
  const { total, nodes_total: all, nodes_connected: connected, nodes_unwell: unwell } = state.beside;
  const devices = count(total ?? 0, "device", "devices");
  if (all > nodes.length) {
    return `${count(all, "node", "nodes")}, ${count(all - connected, "cut off", "cut off")}, ${unwell.toLocaleString()} not well; shown are ${nodes.length}, those that are not well first; ${devices}`;
  }
  return `${count(edges.length, "site node", "site nodes")}, ${count(cut.length, "cut off", "cut off")}, ${devices}`;
}

function drawing(nodes) {
  const hubs = nodes.filter((node) => !node.node.startsWith("edge/"));
  const edges = nodes.filter((node) => node.node.startsWith("edge/"));
  const narrow = document.documentElement.clientWidth < 600;
  const box = narrow ? NARROW : BOX;
  const columns = Math.max(1, Math.min(edges.length, narrow ? 2 : edges.length > 8 ? 6 : 4));
  const rows = Math.ceil(edges.length / columns);
  const width = narrow ? 340 : Math.max(columns * (box.w + 46), 620);
  const height = 30 + box.h + rows * (box.h + 76) + 10;
  const places = new Map();
  hubs.forEach((node, i) => places.set(node.node, { x: ((i + 1) * width) / (hubs.length + 1), y: 16 + box.h / 2 }));
  edges.forEach((node, i) => {
    const inRow = Math.min(columns, edges.length - Math.floor(i / columns) * columns);
    const x = (((i % columns) + 1) * width) / (inRow + 1);
    places.set(node.node, { x: spread(x, i % columns, inRow, width, box), y: 16 + box.h + 76 + box.h / 2 + Math.floor(i / columns) * (box.h + 76) });
  });
  return h("svg", { class: "map", viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Nodes and links", "data-max": width > 700 ? "wide" : null },
    links(nodes, places).map((link) => drawLink(link)),
    nodes.filter((node) => places.has(node.node)).map((node) => drawNode(node, places.get(node.node), box)));
}

function spread(x, i, inRow, width, { w }) {
  return inRow === 1 ? x : w / 2 + 8 + (i * (width - w - 16)) / (inRow - 1);
}

// One line for each pair: of what both ends say the packets lane first, since it tells how they reach each other.
function links(nodes, places) {
  const pairs = new Map();
  for (const node of nodes) {
    for (const link of node.links ?? []) {
      if (!link.peer || !places.has(link.peer) || !places.has(node.node)) continue;
      const [a, b] = [node.node, link.peer].sort();
      const pair = pairs.get(`${a} ${b}`) ?? { a, b, lanes: [] };
      pair.lanes.push(link);
      pairs.set(`${a} ${b}`, pair);
    }
  }
  const hub = nodes.find((node) => !node.node.startsWith("edge/"));
  for (const node of nodes) {
    if (!hub || node === hub) continue;
    const [a, b] = [node.node, hub.node].sort();
    if (!pairs.has(`${a} ${b}`)) pairs.set(`${a} ${b}`, { a, b, lanes: [] });
  }
  return [...pairs.values()].map((pair) => ({ ...pair, from: places.get(pair.a), to: places.get(pair.b), ...told(pair, nodes) }));
}

function told({ a, b, lanes }, nodes) {
  const ends = nodes.filter((node) => node.node === a || node.node === b);
  const cut = ends.some((node) => node.state === "lost" || node.state === "never");
  const best = (field, pick) => {
    const known = lanes.map((lane) => lane[field]).filter((v) => v !== null && v !== undefined);
    return known.length ? pick(...known) : null;
  };
  const moved = lanes.map((lane) => (lane.sent_bytes_per_s ?? 0) + (lane.received_bytes_per_s ?? 0));
  const knows = lanes.some((lane) => lane.sent_bytes_per_s !== null && lane.sent_bytes_per_s !== undefined);
  return {
    cut, rtt: best("rtt_ms", Math.min), loss: best("loss_percent", Math.max),
    rate: knows ? Math.max(0, ...moved) : null,
    path: lanes.some((lane) => lane.path === "direct") ? "direct" : (lanes[0]?.path ?? null),
  };
}

function drawLink({ a, b, from, to, cut, rtt, loss, rate: bytesPerS, path }) {
  const lossy = (loss ?? 0) >= 2;
  const level = cut ? "bad" : rtt === null && bytesPerS === null ? "off" : lossy ? "warn" : "ok";
  const width = 1.5 + Math.min(5, Math.log10(1 + (bytesPerS ?? 0) / 100));
  const [x, y] = [(from.x + to.x) / 2, (from.y + to.y) / 2];
  const words = cut ? ["✖ cut"] : [
    [rtt === null ? null : `${rtt.toFixed(rtt < 10 ? 1 : 0)} ms`, loss ? `${loss.toFixed(1)} % lost` : null].filter(Boolean).join(", "),
    bytesPerS === null ? path ?? "" : rate(bytesPerS),
  ].filter(Boolean);
  return h("g", { class: `wire ${level}`, "data-key": `${a} ${b}`, "data-link": `${a} ${b}` },
    h("title", {}, `${a} – ${b}: ${cut ? "cut" : `${path ?? ""} ${words.join(", ")}`}`),
    h("path", { d: `M${from.x} ${from.y}L${to.x} ${to.y}`, "stroke-width": width, "stroke-dasharray": path === "relayed" || cut ? "7 6" : null }),
    words.length ? h("rect", { class: "label", x: x - 48, y: y - 10 - 7 * (words.length - 1), width: 96, height: 6 + 15 * words.length, rx: 4 }) : null,
    words.map((word, i) => h("text", { x, y: y + 5 - 7 * (words.length - 1) + 15 * i, "text-anchor": "middle" }, word)));
}

function drawNode(node, { x, y }, box) {
  const { level, text, brief = text } = nodeStatus(node);
  const [left, top, room] = [x - box.w / 2, y - box.h / 2, Math.floor((box.w - 30) / 6.8)];
  const short = brief.length > room ? `${brief.slice(0, room - 1)}…` : brief;
  return h("svg:a", { href: `#/node/${node.node}`, "data-key": node.node, "aria-label": `${node.node}, ${text}`, class: "svg" },
    h("g", { class: `node ${level}`, "data-node": node.node, "data-level": level }, h("title", {}, `${node.node}: ${text}`),
      h("rect", { x: left, y: top, width: box.w, height: box.h, rx: 8 }),
      h("rect", { class: "bar", x: left, y: top, width: 6, height: box.h, rx: 3 }),
      h("text", { class: "name", x: left + 16, y: top + 22 }, node.node),
      h("text", { class: "site", x: left + box.w - 10, y: top + 22, "text-anchor": "end" }, node.site ?? ""),
      h("text", { class: "state", x: left + 16, y: top + 43 }, `${shape(level)} ${short}`),
      h("text", { class: "more", x: left + 16, y: top + 62 }, more(node))));
}

function more(node) {
  const { twins } = node;
  const parts = [twins?.devices ? count(twins.devices, "device", "devices") : null, twins?.rules ? count(twins.rules, "rule", "rules") : null];
  if (node.sync?.outbox) parts.push(`${node.sync.outbox} waiting`);
  return parts.filter(Boolean).join(", ");
}

function tiles(nodes) {
  const sorted = nodes.map((node) => [ORDER.indexOf(nodeStatus(node).level), node]).sort(([a, x], [b, y]) => a - b || (x.node < y.node ? -1 : 1));
  // Of many that are well the table says enough.
  const ill = sorted.filter(([, node]) => nodeStatus(node).level !== "ok");
  if (!ill.length) return h("p", {}, mark("ok", "all are well"));
  return h("div", { class: "tiles" }, ill.map(([, node]) => {
    const { level, text } = nodeStatus(node);
    return h("a", { class: `tile ${level}`, href: `#/node/${node.node}`, "data-key": node.node }, h("b", {}, node.node), h("span", { class: "muted" }, node.site ?? ""), mark(level, text));
  }));
}

function table(nodes) {
  const head = ["Node", "Site", "State", ">Heard", "Way", ">RTT", ">Lost", ">Sent", ">Received", ">Devices", "What to do"];
  return h("div", { class: "scroll" }, h("table", { class: "grid", id: "nodes" },
    heads(head),
    h("tbody", {}, nodes.map(row))));
}

function row(node) {
  const { level, text, advice } = nodeStatus(node);
  const link = (node.links ?? []).find((l) => l.peer?.startsWith("cloud/")) ?? node.links?.[0] ?? {};
  // Of a node that is away this is as it was heard last.
  const isOld = node.state !== "connected";
  const cell = (text) => h("td", { class: isOld ? "num stale" : "num" }, text);
  return h("tr", { "data-key": node.node, "data-node": node.node, class: level === "bad" ? "bad" : null },
    h("th", { scope: "row" }, h("a", { href: `#/node/${node.node}` }, node.node)), h("td", {}, node.site ?? ""),
    h("td", {}, mark(level, text)), cell(node.heard_ms_ago === null || node.heard_ms_ago === undefined ? "–" : age(ageOf(node))), h("td", { class: isOld ? "stale" : null }, link.path ?? "–"),
    cell(link.rtt_ms === null || link.rtt_ms === undefined ? "–" : `${link.rtt_ms.toFixed(1)} ms`),
    cell(link.loss_percent === null || link.loss_percent === undefined ? "–" : `${link.loss_percent.toFixed(1)} %`),
    cell(rate(link.sent_bytes_per_s)), cell(rate(link.received_bytes_per_s)), cell(node.twins?.devices ?? "–"),
    h("td", { class: "advice" }, advice));
}
