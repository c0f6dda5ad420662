// How things are, in a shape, a colour and a word: no one of them is needed to tell.

import { h } from "./dom.js";
import { age, clock, value } from "./words.js";
import { ageOf, nodeTime, state } from "./stream.js";

const SHAPES = { ok: "●", warn: "▲", bad: "✖", off: "○", wait: "◔" };

export function mark(level, text, why) {
  return h("span", { class: `mark ${level}`, title: why }, h("span", { "aria-hidden": "true" }, SHAPES[level]), " ", text);
}

export function shape(level) {
  return SHAPES[level];
}

// The node that serves this page is there, whatever it is cut off from.
export function isCut(node) {
  return node?.state === "lost" && node.node !== state.beside.me;
}

// Of a node: what is wrong with it first, and what to do about it.
export function nodeStatus(node) {
  const lasting = node.since ? ` since ${clock(node.since)} (${age(nodeTime() - node.since)})` : "";
  const isHub = !node.node.startsWith("edge/");
  if (isHub && (node.state === "never" || isCut(node))) {
    return {
      level: "bad", text: `not connected${lasting}`, brief: "not connected",
      advice: "This site goes on without it. 'kubebus debug diagnose' here says what stands in the way.",
    };
  }
  if (node.state === "never") {
    return { level: "off", text: "never connected", advice: "Run 'kubebus edge' there; 'kubebus status' at the site says what it waits for." };
  }
  if (isCut(node)) {
    return {
      level: "bad", text: `cut off${lasting}`, brief: `cut off ${node.since ? age(nodeTime() - node.since) : ""}`,
      advice: "Its rules go on without the cloud. Look after the site's power and uplink; there 'kubebus status' says what fails.",
    };
  }
  const [worst, ...others] = node.problems ?? [];
  if (worst) {
    const more = others.length ? ` and ${others.length} more` : "";
    return { level: node.disk && node.disk !== "ok" ? "bad" : "warn", text: worst.text + more, advice: worst.advice };
  }
  return { level: "ok", text: "connected", advice: "" };
}

export function nodeOf(twin, key) {
  const device = state.devices.get(key.slice(0, key.lastIndexOf("/")));
  return { device, node: device?.node ? state.fleet.get(device.node) : null };
}

// Why a value is not to be taken for what is; empty if it may be.
export function doubts(twin, key) {
  const { device, node } = nodeOf(twin, key);
  const old = ageOf(twin);
  const quality = twin.reported?.quality;
  if (!twin.reported) return "nothing was reported yet";
  if (state.link !== "live") return "this page has lost its node";
  if (isCut(node)) return `${device.node} is cut off`;
  if (device?.state?.state === "unknown") return device.state.reason || "its node is not heard of";
  if (device?.state?.state === "offline") return `the device is offline${device.state.reason ? `: ${device.state.reason}` : ""}`;
  if (quality && quality !== "good") return `its quality is ${quality}`;
  if (old === null) return "its age is not known";
  if (twin.max_age_ms && old > twin.max_age_ms) return `it is older than ${age(twin.max_age_ms)}`;
  return "";
}

export function ageCell(twin) {
  const old = ageOf(twin);
  if (!twin.reported) return h("span", { class: "muted" }, "–");
  // What does not change is not reported again: how long a value is good for is its policy's to say.
  const late = old === null || (twin.max_age_ms && old > twin.max_age_ms);
  return h("span", { class: late ? "old" : null, title: `read at ${clock(twin.reported.time)}` }, age(old));
}

export function reportedCell(twin, key, big) {
  const why = doubts(twin, key);
  const bad = twin.reported && why;
  return h("span", { class: `reading${big ? " big" : ""}${why ? " stale" : ""}`, title: why || null },
    value(twin.reported?.value), twin.unit && twin.reported ? h("span", { class: "unit" }, ` ${twin.unit}`) : null,
    bad ? h("span", { class: "doubt" }, " ", h("span", { class: "sr" }, why)) : null);
}

// What became of the wish that holds.
export function wishOf(twin) {
  if (twin.desired === null || twin.desired === undefined) return null;
  const { ack, version } = twin;
  if (twin.converged) return { level: "ok", text: "acknowledged", detail: ack?.detail ?? "" };
  if (ack && ack.version === version) {
    const level = ack.outcome === "superseded" || ack.outcome === "expired" ? "warn" : "bad";
    return { level, text: ack.outcome, detail: ack.detail ?? "" };
  }
  return { level: "wait", text: "pending", detail: "its edge has not answered yet" };
}

export function wishCell(twin) {
  const wish = wishOf(twin);
  if (!wish) return h("span", { class: "muted" }, "–");
  return h("span", {}, value(twin.desired), " ", mark(wish.level, wish.text, wish.detail || null));
}

export function deviceStatus(device) {
  if (!device) return { level: "off", text: "unknown", why: "" };
  if (device.waits) return { level: "off", text: "waits", why: device.waits };
  const { state: is, reason } = device.state ?? { state: "unknown", reason: "nothing was heard of it yet" };
  const node = device.node ? state.fleet.get(device.node) : null;
  if (isCut(node)) return { level: "bad", text: "site cut off", why: `${device.node} is cut off` };
  const level = { online: "ok", degraded: "warn", offline: "bad", unknown: "off" }[is] ?? "off";
  return { level, text: is, why: reason ?? "" };
}
