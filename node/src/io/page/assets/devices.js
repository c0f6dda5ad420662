// Devices with what is desired and reported: a page of those that a search finds, however many there are.

import { h, heads } from "./dom.js";
import { state } from "./stream.js";
import { ageCell, deviceStatus, mark, reportedCell, wishCell } from "./status.js";

const PAGE = 100;
const STATES = [["", "all"], ["is:online", "online"], ["is:offline", "not online"], ["is:pending", "wish pending"], ["is:failed", "wish failed"]];
// After the last key of a search.
const TYPED_MS = 250;

let typing = null;

export function query(_, words) {
  return `q=${encodeURIComponent([words.get("q") ?? "", words.get("is") ?? ""].join(" ").trim())}&from=${from(words)}`;
}

function from(words) {
  return Math.max(0, Math.floor(Number(words.get("from") ?? 0)) || 0);
}

export function view(_, words) {
  return h("section", {}, h("h1", {}, "Devices"), search(words), pager(words), table());
}

function search(words) {
  const is = words.get("is") ?? "";
  const field = h("input", {
    id: "search", type: "search", placeholder: "part of a name, or a node ( / )", "aria-label": "Search devices", value: words.get("q") ?? "",
    input: (event) => {
      clearTimeout(typing);
      typing = setTimeout(() => go({ q: event.target.value, is: new URLSearchParams(location.hash.split("?")[1]).get("is") }), TYPED_MS);
    },
  });
  return h("div", { class: "bar" },
    h("span", { "data-keep": "search" }, field),
    h("span", { class: "chips", role: "group", "aria-label": "State" }, STATES.map(([word, name]) =>
      h("a", { class: "chip", href: link({ q: words.get("q"), is: word }), "aria-current": is === word ? "true" : null }, name))));
}

function link({ q, is, from }) {
  const words = new URLSearchParams();
  if (q) words.set("q", q);
  if (is) words.set("is", is);
  if (from) words.set("from", from);
  return `#/devices${words.size ? `?${words}` : ""}`;
}

function go(words) {
  location.replace(link(words));
}

function pager(words) {
  const { found = 0, total = 0, looked_into: looked } = state.beside;
  const start = from(words);
  const at = (to) => link({ q: words.get("q"), is: words.get("is"), from: to });
  const shown = `${found ? start + 1 : 0}–${Math.min(found, start + PAGE)} of ${found.toLocaleString()}${found === total ? "" : ` found among ${looked ? `the first ${looked.toLocaleString()} whose names fit: narrow the search by name` : total.toLocaleString()}`}`;
  return h("div", { class: "bar" }, h("span", { class: "muted", role: "status" }, shown),
    start > 0 ? h("a", { class: "chip", href: at(Math.max(0, start - PAGE)) }, "← before") : null,
    start + PAGE < found ? h("a", { class: "chip", href: at(start + PAGE) }, "after →") : null);
}

export function table() {
  if (!state.devices.size) return h("p", { class: "muted" }, "No device is here.");
  const head = ["Device", "Property", ">Reported", ">Age", "Desired"];
  const of = new Map();
  for (const [key, twin] of state.twins) {
    const device = key.slice(0, key.lastIndexOf("/"));
    of.set(device, [...(of.get(device) ?? []), [key, twin]]);
  }
  return h("div", { class: "scroll" }, h("table", { class: "grid twins", id: "twins" },
    heads(head),
    [...state.devices].map(([id, device]) => body(id, device, of.get(id) ?? []))));
}

function body(id, device, twins) {
  const { level, text, why } = deviceStatus(device);
  const name = h("th", { scope: "rowgroup", rowspan: Math.max(1, twins.length) },
    h("a", { href: `#/device/${id}` }, id), h("div", { class: "small" }, mark(level, text, why)), device.node ? h("div", { class: "small muted" }, device.node) : null);
  if (!twins.length) return h("tbody", { "data-key": id }, h("tr", {}, name, h("td", { colspan: 4, class: "muted" }, why || "its model has no properties")));
  return h("tbody", { "data-key": id }, twins.map(([key, twin], i) =>
    h("tr", { "data-key": key, "data-twin": key }, i === 0 ? name : null,
      h("td", {}, twin.property), h("td", { class: "num" }, reportedCell(twin, key)), h("td", { class: "num" }, ageCell(twin)), h("td", {}, wishCell(twin)))));
}
