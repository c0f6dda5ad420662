// Rules and interlocks: what each does, and why.

import { h } from "./dom.js";
import { state } from "./stream.js";
import { age, clock, value } from "./words.js";
import { isCut, mark } from "./status.js";

export function query() {
  return "";
}

export function view() {
  const rules = [...state.rules.values()];
  const { rules_total: total = 0 } = state.beside;
  const level = (rule) => ["bad", "warn", "ok", "off"].indexOf(judged(rule).level);
  rules.sort((a, b) => level(a) - level(b) || (a.rule < b.rule ? -1 : 1));
  return h("section", {}, h("h1", {}, "Rules ", h("span", { class: "muted small" }, rules.length < total ? `the ${rules.length} that matter most of ${total}` : "")),
    rules.length ? h("div", { class: "cards" }, rules.map(card)) : h("p", { class: "muted" }, "No rule runs here. 'kubebus apply -f' takes them; an example is in docs/rules.md."));
}

function judged(rule) {
  if (rule.node && isCut(state.fleet.get(rule.node))) return { level: "off", text: "as of before the cut" };
  if (rule.tripped) return { level: "bad", text: "tripped" };
  if (rule.unknown.length) return { level: "warn", text: "input unknown" };
  if (!rule.decision) return { level: "off", text: "not evaluated yet" };
  return { level: "ok", text: "in force" };
}

export function card(rule) {
  const { level, text } = judged(rule);
  const output = rule.output.split("/");
  return h("article", { class: "card", "data-key": rule.rule, "data-rule": rule.rule },
    h("h2", {}, rule.rule, " ", mark(level, text)),
    h("p", {}, says(rule)),
    rule.unknown.length ? h("p", { class: "note warn" }, `Not known: ${rule.unknown.join(", ")}. Bad, too old or absent; look after where it comes from.`) : null,
    rule.tripped ? tripped(rule) : null,
    h("p", { class: "muted small" }, "sets ", h("a", { href: `#/device/${output.slice(0, 2).join("/")}` }, rule.output), ` in slot ${rule.slot}`,
      rule.node ? [", runs at ", h("a", { href: `#/node/${rule.node}` }, rule.node)] : null, rule.since ? `, so since ${clock(rule.since)}` : ""));
}

// The decision as a sentence. A cloud is told which case decides, and not each value that it computes: only the node at
// which the rule runs knows that one.
function says({ decision, output, node }) {
  if (!decision) return "It has not been evaluated yet.";
  const does = { set: decision.value === null || decision.value === undefined || node !== state.beside.me ? "sets it" : `sets ${value(decision.value)}`, failSafe: "sets the fail-safe value", hold: "holds what is", relinquish: "leaves it to others" }[decision.does] ?? decision.does;
  const named = decision.case ? `“${decision.case}”` : "no case";
  const why = { nothing: "no case is true", true: `${named} is true`, latched: `${named} is latched`, unknown: `${named} cannot be told`, waiting: `${named} waits for its inputs` }[decision.because] ?? decision.because;
  return [h("b", {}, does), ` because ${why}`, h("span", { class: "sr" }, ` for ${output}`)];
}

function tripped({ tripped: trip, latched }) {
  const reading = ({ input, value: v, quality, age_ms: old }) => `${input} ${v === null || v === undefined ? "not known" : value(v)}${quality && quality !== "good" ? ` (${quality})` : ""}${old ? `, ${age(old)} old` : ""}`;
  return h("div", { class: "note bad" },
    h("p", {}, h("b", {}, `Tripped at ${clock(trip.at)} by “${trip.case}”`), trip.unknown ? ", which could not be told" : "", trip.readings.length ? `: ${trip.readings.map(reading).join("; ")}.` : "."),
    latched.length > 1 ? h("p", {}, `Latched too: ${latched.slice(1).join(", ")}.`) : null,
    h("p", {}, "It stays so until somebody at the site resets it, once the cause is gone."));
}
