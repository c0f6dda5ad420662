// Keys: two letters go to a view, a slash to the search.

import { h } from "./dom.js";

const PLACES = { m: ["#/map", "map"], d: ["#/devices", "devices"], r: ["#/rules", "rules"], e: ["#/events", "events"], p: ["#/plant", "plant"] };
// The second letter comes within this time.
const TOGETHER_MS = 1500;

let first = 0;

export function listen({ toggleTheme }) {
  const dialog = document.getElementById("keys");
  dialog.append(...help(() => dialog.close()));
  document.getElementById("help").addEventListener("click", () => dialog.showModal());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest?.("input, select, textarea, dialog");
    if (event.key === "Escape" && typing && typing.nodeName !== "DIALOG") return event.target.blur();
    if (typing) return;
    const together = performance.now() - first < TOGETHER_MS;
    first = 0;
    if (together && PLACES[event.key]) location.hash = PLACES[event.key][0];
    else if (event.key === "g") first = performance.now();
    else if (event.key === "/") toSearch(event);
    else if (event.key === "t") toggleTheme();
    else if (event.key === "?") dialog.showModal();
  });
}

function toSearch(event) {
  event.preventDefault();
  if (!location.hash.startsWith("#/devices")) location.hash = "#/devices";
  setTimeout(() => document.getElementById("search")?.focus());
}

function help(close) {
  const row = (keys, what) => h("tr", {}, h("td", {}, keys.split(" ").map((key) => [h("kbd", {}, key), " "])), h("td", {}, what));
  return [
    h("h2", { id: "keys-title" }, "Keys"),
    h("table", {}, h("tbody", {},
      row("/", "search devices"),
      Object.entries(PLACES).map(([key, [, name]]) => row(`g ${key}`, `go to ${name}`)),
      row("t", "light, dark, or as the system has it"),
      row("Tab", "next; Enter opens what has the focus"),
      row("Esc", "leave a field"),
      row("?", "this"),
    )),
    h("button", { type: "button", click: close }, "Close"),
  ];
}
