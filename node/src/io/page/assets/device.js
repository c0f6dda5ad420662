// One device: each property with its value, its wish and its history; who decides; its commands.

import { h, heads } from "./dom.js";
import { ask, state } from "./stream.js";
import { age, clock, value } from "./words.js";
import { ageCell, deviceStatus, mark, reportedCell, wishOf } from "./status.js";
import * as plot from "./plot.js";
import * as wish from "./wish.js";

// Between two looks at its commands.
const COMMANDS_MS = 5000;

let commands = { device: null, list: [], asked: 0 };

export function query([namespace, name]) {
  return `device=${namespace}/${name}`;
}

export function view([namespace, name], _, redraw) {
  const id = `${namespace}/${name}`;
  const device = state.devices.get(id);
  if (!device) return h("section", {}, h("h1", {}, id), h("p", { class: "muted" }, "Waiting for what the node knows of it."));
  lookAtCommands(id, redraw);
  const { level, text, why } = deviceStatus(device);
  const twins = [...state.twins].filter(([key]) => key.startsWith(`${id}/`));
  return h("section", {},
    h("p", { class: "crumbs" }, h("a", { href: "#/devices" }, "Devices"), " / ", device.node ? h("a", { href: `#/node/${device.node}` }, device.node) : "no node"),
    h("h1", {}, id, " ", mark(level, text, why)),
    why ? h("p", { class: `note ${level}` }, why) : null,
    authority(device),
    h("div", { class: "cards" }, twins.map(([key, twin]) => card(key, twin, redraw))),
    listed());
}

function authority({ holder, authority: held }) {
  if (!held || holder === "cloud" && !held.by) return null;
  const until = held.until ? `, until ${clock(held.until)}` : "";
  return h("p", { class: "note" }, `Wishes are the ${holder}'s to decide${until}`, held.by ? ` (${held.by}${held.reason ? `: ${held.reason}` : ""})` : "", ".");
}

function card(key, twin, redraw) {
  const held = wishOf(twin);
  return h("article", { class: "card", "data-key": key, "data-twin": key, "aria-label": twin.property },
    h("h2", {}, twin.property, twin.actuator ? h("span", { class: "tag" }, "actuator") : null, twin.writable ? null : h("span", { class: "muted small" }, " read only")),
    h("p", { class: "now" }, reportedCell(twin, key, true), h("span", { class: "muted" }, " ", ageCell(twin), " old"), quality(twin)),
    held ? h("p", { class: "wish", "data-wish": held.text }, "desired ", h("b", {}, value(twin.desired)), twin.unit ? ` ${twin.unit} ` : " ", mark(held.level, held.text),
      held.detail ? h("span", { class: "muted" }, ` ${held.detail}`) : null, twin.by ? h("span", { class: "muted" }, ` by ${twin.by}`) : null) : null,
    wish.form(key, twin, redraw),
    plot.panel(key, twin, redraw));
}

function quality({ reported }) {
  return reported && reported.quality !== "good" ? h("span", {}, " ", mark(reported.quality === "bad" ? "bad" : "warn", `quality ${reported.quality}`)) : null;
}

function lookAtCommands(device, redraw) {
  if (commands.device !== device) commands = { device, list: [], asked: 0 };
  if (Date.now() - commands.asked < COMMANDS_MS) return;
  const mine = commands;
  mine.asked = Date.now();
  ask(`/kubebus/v1/commands/${device}`).then((list) => {
    mine.list = Array.isArray(list) ? list : [];
    redraw();
  }, () => {});
}

function listed() {
  if (!commands.list.length) return null;
  const level = (command) => ({ succeeded: "ok", expired: "warn", superseded: "warn" })[command.outcome] ?? (command.outcome ? "bad" : "wait");
  const row = (command) => h("tr", {}, h("td", {}, command.name ?? ""), h("td", {}, value(command.args)),
    h("td", {}, mark(level(command), command.outcome ?? command.state)), h("td", {}, command.detail ?? ""), h("td", { class: "num" }, command.ttl_ms ? age(command.ttl_ms) : ""), h("td", {}, command.id));
  return [h("h2", {}, "Commands"), h("div", { class: "scroll" }, h("table", { class: "grid" },
    heads(["Command", "Arguments", "End", "Why", ">Good for", "Id"]),
    h("tbody", {}, [...commands.list].reverse().map(row))))];
}
