// What happened: events of the cluster, and at a site the decisions about its actuators.

import { h, heads } from "./dom.js";
import { ask } from "./stream.js";
import { clock, value } from "./words.js";
import { mark } from "./status.js";

const AGAIN_MS = 5000;
const MOST = 200;

let known = { asked: 0, rows: [], missing: [] };

export function query() {
  return "";
}

export function view(_, __, redraw) {
  look(redraw);
  const row = (event) => h("tr", { "data-key": event.key }, h("td", { class: "num" }, clock(event.time)), h("td", {}, mark(event.level, event.kind)), h("td", {}, event.about), h("td", {}, event.text));
  return h("section", {}, h("h1", {}, "Events"),
    known.missing.length ? h("p", { class: "muted" }, known.missing.join("; ")) : null,
    known.rows.length ? h("div", { class: "scroll" }, h("table", { class: "grid", id: "events" },
      heads([">When", "What", "About", "Said"]),
      h("tbody", {}, known.rows.map(row)))) : h("p", { class: "muted" }, "Nothing is on record yet."));
}

async function look(redraw) {
  if (Date.now() - known.asked < AGAIN_MS) return;
  known.asked = Date.now();
  const [events, audit] = await Promise.all([told("/api/v1/events?limit=200", "events", fromEvents), told("/kubebus/v1/audit?limit=1000", "decisions", fromAudit)]);
  const rows = folded([...events.rows, ...audit.rows].sort((a, b) => b.time - a.time)).slice(0, MOST);
  known = { asked: Date.now(), rows, missing: [events, audit].map(({ missing }) => missing).filter(Boolean) };
  redraw();
}

// A rule that decides twice a second would leave room for nothing else: as long as it goes on alike it is one row.
function folded(rows) {
  const shown = [];
  for (const row of rows) {
    const last = shown[shown.length - 1];
    if (last && row.kind === "rule" && last.alike === row.alike) Object.assign(last, { more: (last.more ?? 0) + 1, first: row.time });
    else shown.push(row);
  }
  for (const row of shown) if (row.more) row.text += ` (and ${row.more} like it since ${clock(row.first)})`;
  return shown;
}

async function told(path, what, read) {
  try {
    return { rows: read(await ask(path)) };
  } catch (error) {
    return { rows: [], missing: `${what}: ${error.message}` };
  }
}

function fromEvents({ items = [] }) {
  return items.map((event) => ({
    key: `event ${event.metadata?.namespace}/${event.metadata?.name}`,
    time: Date.parse(event.lastTimestamp ?? event.eventTime ?? event.firstTimestamp ?? event.metadata?.creationTimestamp) || 0,
    level: event.type === "Warning" ? "warn" : "ok", kind: event.reason ?? "",
    about: [event.involvedObject?.kind, event.involvedObject?.name].filter(Boolean).join(" "),
    text: `${event.message ?? ""}${event.count > 1 ? ` (${event.count} times)` : ""}`,
  }));
}

function fromAudit(answer) {
  return answer.decisions.map((entry, i) => ({
    key: `decision ${entry.at} ${entry.id ?? i}`, time: entry.at, level: !entry.end && entry.id ? "wait" : entry.end && entry.end.outcome !== "succeeded" ? "warn" : "ok", kind: entry.event,
    alike: `${entry.device}/${entry.property} ${entry.by} ${entry.end?.outcome}`,
    about: [entry.device, entry.property].filter(Boolean).join("/"),
    text: [entry.value === undefined || entry.value === null ? null : value(entry.value), entry.by ? `by ${entry.by}` : null, entry.detail, entry.end?.outcome, entry.end?.detail].filter(Boolean).join(", "),
  }));
}
