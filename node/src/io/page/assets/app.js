// The page: what stands in the address decides what is shown and what is asked of the node.

import { h, morph } from "./dom.js";
import * as stream from "./stream.js";
import { state } from "./stream.js";
import { age, clock } from "./words.js";
import { nodeStatus } from "./status.js";
import * as keys from "./keys.js";
import * as plot from "./plot.js";
import * as map from "./map.js";
import * as node from "./node.js";
import * as devices from "./devices.js";
import * as device from "./device.js";
import * as rules from "./rules.js";
import * as events from "./events.js";
import * as plant from "./plant.js";

const VIEWS = { map, node, devices, device, rules, events, plant };
const MENU = [["map", "Map"], ["devices", "Devices"], ["rules", "Rules"], ["events", "Events"], ["plant", "Plant"]];
// A line that holds words back for longer is told of.
const LATE_MS = 3000;
const THEMES = ["auto", "light", "dark"];

const byId = (id) => document.getElementById(id);

let drawing = false;

function place() {
  const [path, words] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  const known = Object.hasOwn(VIEWS, name) ? name : "map";
  return { name: known, view: VIEWS[known], rest, words: new URLSearchParams(words) };
}

// Many changes within one frame are drawn once.
function redraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  stream.check();
  const { name, view, rest, words } = place();
  stream.show(view.query(rest, words));
  const main = byId("main");
  const shown = h("div", { "data-key": `${name} ${rest.join("/")}` }, view.view(rest, words, redraw));
  if (main.children.length === 1 && main.firstElementChild.dataset.key === shown.dataset.key) morph(main.firstElementChild, shown);
  else main.replaceChildren(shown);
  frame(name);
}

function frame(name) {
  document.body.classList.toggle("lost", state.link !== "live");
  const pill = byId("link");
  const heard = state.heard ? age(stream.since(state.heard)) : "";
  const [word, level] = { live: ["● live", "ok"], connecting: ["◔ connecting", "wait"], lost: [`✖ no word for ${heard || "long"}`, "bad"] }[state.link];
  set(pill, word);
  pill.className = `pill ${level}`;
  set(byId("who"), state.hello ? `${state.hello.who}, ${state.hello.role}${state.hello.may_set ? "" : " (read only)"}` : "");
  set(byId("cluster"), state.beside.cluster ? `KubeBus ${state.beside.cluster}` : "KubeBus");
  const cut = [...state.fleet.values()].filter((each) => nodeStatus(each).level === "bad");
  document.title = `${state.link === "lost" ? "✖ lost – " : cut.length ? `✖ ${cut.length} – ` : ""}KubeBus`;
  banner(cut);
  menu(name);
}

function banner(cut) {
  const place = byId("banner");
  const lost = state.link === "lost";
  const late = stream.late() > LATE_MS;
  const slow = late ? "What stands here comes late: the line to this node is slow, or its clock was set back. Ages count that in. " : "";
  const text = lost
    ? `This page has lost its node${state.why ? `: ${state.why}` : ""}. What stands here is as of ${state.heard ? clock(state.heard.wall) : "never"}. It tries again by itself.`
    : `${slow}${cut.map(broken).slice(0, 3).join("; ")}${cut.length > 3 ? ` and ${cut.length - 3} more` : ""}`;
  place.hidden = !text;
  place.className = lost || late ? "lost" : "cut";
  set(place, text ? `✖ ${text}` : "");
}

// Without how long it has been so, which would be read out again each second.
function broken(each) {
  const what = each.state === "lost" ? `${each.node.startsWith("edge/") ? "cut off" : "not connected"} since ${clock(each.since)}` : nodeStatus(each).text;
  return `${each.site ?? ""} ${each.node} is ${what}`.trim();
}

function menu(name) {
  const shown = MENU.filter(([id]) => id !== "plant" || state.beside.plants?.length || name === "plant");
  const owner = { node: "map", device: "devices" }[name] ?? name;
  const bar = h("nav", { "aria-label": "Views", id: "nav" }, shown.map(([id, text]) =>
    h("a", { href: `#/${id}`, "data-key": id, "aria-current": id === owner ? "page" : null }, text)));
  morph(byId("nav"), bar);
}

// An alert that says the same again would be read out again.
function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function theme(next) {
  const root = document.documentElement;
  if (next === "auto") delete root.dataset.theme;
  else root.dataset.theme = next;
  byId("theme").textContent = { auto: "◐ auto", light: "☀ light", dark: "☾ dark" }[next];
  try {
    localStorage.setItem("theme", next);
  } catch {
    // Without storage it lasts until the page is closed.
  }
}

function themeNow() {
  try {
    const kept = localStorage.getItem("theme");
    return THEMES.includes(kept) ? kept : "auto";
  } catch {
    return document.documentElement.dataset.theme ?? "auto";
  }
}

const toggleTheme = () => theme(THEMES[(THEMES.indexOf(themeNow()) + 1) % THEMES.length]);

theme(themeNow());
byId("theme").addEventListener("click", toggleTheme);
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
keys.listen({ toggleTheme });
plot.listen(byId("main"), redraw);
stream.onChange(redraw);
window.addEventListener("hashchange", () => {
  draw();
  scrollTo(0, 0);
});
setInterval(redraw, 1000);
draw();
