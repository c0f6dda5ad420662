// One node: what it says of itself, its links, and the devices on it.

import { h, heads } from "./dom.js";
import { ageOf, state } from "./stream.js";
import { age, bytes, clock, rate } from "./words.js";
import { mark, nodeStatus } from "./status.js";
import * as devices from "./devices.js";

export function query([kind, name]) {
  return `q=${encodeURIComponent(`${kind}/${name}`)}`;
}

export function view([kind, name]) {
  const id = `${kind}/${name}`;
  const node = state.fleet.get(id);
  if (!node) return h("section", {}, h("h1", {}, id), h("p", { class: "muted" }, "This node knows nothing of it: see the map for who is there."));
  const { level, text, advice } = nodeStatus(node);
  return h("section", {},
    h("p", { class: "crumbs" }, h("a", { href: "#/map" }, "Map"), " / ", node.site ?? ""),
    h("h1", {}, id, " ", mark(level, text)),
    advice ? h("p", { class: `note ${level}` }, advice) : null,
    node.state === "connected" ? (node.problems ?? []).slice(1).map((problem) => h("p", { class: "note warn" }, h("b", {}, problem.text), ` ${problem.advice}`)) : null,
    node.last_error && node.problems?.length ? h("p", { class: "note warn" }, h("b", {}, "Last error "), `${clock(node.last_error.time)}: ${node.last_error.text}. `, node.last_error.advice ?? "") : null,
    h("dl", { class: "facts" }, facts(node).map(([term, text]) => h("div", {}, h("dt", {}, term), h("dd", {}, text)))),
    h("h2", {}, "Links"), links(node.links ?? [], node.state !== "connected"),
    kind === "edge" ? [h("h2", {}, "Devices"), devices.table()] : null);
}

function facts(node) {
  const { sync, twins } = node;
  const told = (v) => (v === null || v === undefined ? "–" : v);
  return [
    ["Heard", node.heard_ms_ago === null || node.heard_ms_ago === undefined ? "–" : `${age(ageOf(node))} ago`],
    ["Version", told(node.version)], ["Started", clock(node.started)], ["Disk", told(node.disk)],
    ["Clock", node.clock_offset_ms === null || node.clock_offset_ms === undefined ? "–" : `${node.clock_offset_ms} ms off`],
    ["Behind", sync ? `${told(sync.behind)} changes` : "–"],
    ["Outbox", sync ? `${told(sync.outbox)} waiting${sync.outbox_oldest_ms ? `, the oldest ${age(sync.outbox_oldest_ms)}` : ""}` : "–"],
    ["Devices", twins ? `${told(twins.devices)}, ${told(twins.offline)} offline` : "–"],
    ["Rules", twins ? `${told(twins.rules)}, ${told(twins.rules_tripped)} tripped` : "–"],
  ];
}

// Those of a node that is away are as they were heard last.
function links(all, isOld) {
  if (!all.length) return h("p", { class: "muted" }, "None is up.");
  const head = ["Peer", "Lane", "Way", "Remote", ">RTT", ">Lost", ">MTU", "Offload", ">Queue", ">Sent", ">Received"];
  const num = (v, say) => h("td", { class: "num" }, v === null || v === undefined ? "–" : say(v));
  return h("div", { class: "scroll" }, h("table", { class: isOld ? "grid stale" : "grid" },
    heads(head),
    h("tbody", {}, all.map((link) => h("tr", {},
      h("td", {}, link.peer ? h("a", { href: `#/node/${link.peer}` }, link.peer) : "–"), h("td", {}, link.lane ?? "–"), h("td", {}, link.path ?? "–"),
      h("td", {}, link.remote ?? "–"), num(link.rtt_ms, (v) => `${v.toFixed(1)} ms`), num(link.loss_percent, (v) => `${v.toFixed(1)} %`),
      num(link.mtu, String), h("td", {}, link.offload ?? "–"), num(link.queue_bytes, bytes),
      h("td", { class: "num", title: bytes(link.sent_bytes) }, rate(link.sent_bytes_per_s)), h("td", { class: "num", title: bytes(link.received_bytes) }, rate(link.received_bytes_per_s)))))));
}
