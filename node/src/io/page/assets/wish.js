// Wishing for a value by hand, and seeing what becomes of it. The node refuses who may not, whatever stands here.

import { h } from "./dom.js";
import { ask, state } from "./stream.js";
import { age, exact, isNewer, value } from "./words.js";

// What was wished for from this page, by property.
const wishes = new Map();

export function form(key, twin, redraw) {
  if (!twin.writable || !state.hello?.may_set) return null;
  return h("div", { class: "set" }, h("span", { "data-keep": `set ${key}` }, fields(key, twin, redraw)), outcome(key, twin));
}

function fields(key, twin, redraw) {
  const input = field(key, twin);
  const button = h("button", { type: "submit" }, "Set");
  const armed = h("span", { class: "armed", hidden: true });
  const disarm = () => {
    armed.hidden = true;
    button.textContent = "Set";
  };
  input.addEventListener("input", disarm);
  return h("form", {
    "aria-label": `Set ${key}`, novalidate: true,
    submit: (event) => {
      event.preventDefault();
      const read = parse(input, twin);
      if (read.error) return void note(key, { error: read.error }, redraw);
      // What moves something is asked twice.
      if (twin.actuator && armed.hidden) {
        armed.hidden = false;
        armed.textContent = `Moves ${key} to ${value(read.value)}${twin.unit ? ` ${twin.unit}` : ""}.`;
        button.textContent = "Confirm";
        return;
      }
      disarm();
      send(key, read.value, redraw);
    },
  }, input, twin.unit ? h("span", { class: "unit" }, twin.unit) : null, button, h("span", { class: "muted small" }, range(twin)), armed);
}

function field(key, twin) {
  const name = { name: "value", "aria-label": `New value of ${twin.property}` };
  const choice = (options) => h("select", name, options.map((option) => h("option", { value: JSON.stringify(option) }, value(option))));
  if (twin.values) return choice(twin.values);
  if (twin.type === "bool") return choice([true, false]);
  if (twin.type === "struct") return h("textarea", { ...name, rows: 2, placeholder: "{\"field\": value}" });
  if (twin.type !== "int" && twin.type !== "float") return h("input", { ...name, type: "text", autocomplete: "off" });
  return h("input", { ...name, type: "number", step: twin.type === "int" ? 1 : "any", min: twin.minimum, max: twin.maximum, inputmode: "decimal", autocomplete: "off" });
}

function range({ minimum, maximum, type }) {
  const low = minimum === undefined ? null : exact(minimum);
  const high = maximum === undefined ? null : exact(maximum);
  if (low === null && high === null) return type ?? "";
  return low === null ? `at most ${high}` : high === null ? `at least ${low}` : `${low} to ${high}`;
}

function parse(input, twin) {
  const text = input.value;
  if (twin.values || twin.type === "bool" || twin.type === "struct") {
    try {
      return { value: JSON.parse(text) };
    } catch {
      return { error: "this is no JSON: write {\"field\": value}" };
    }
  }
  if (twin.type !== "int" && twin.type !== "float") return { value: text };
  const number = Number(text);
  if (text.trim() === "" || !Number.isFinite(number)) return { error: "write a number" };
  if (twin.type === "int" && !Number.isInteger(number)) return { error: "write a whole number" };
  if (twin.minimum !== undefined && number < twin.minimum) return { error: `the least is ${exact(twin.minimum)}` };
  if (twin.maximum !== undefined && number > twin.maximum) return { error: `the most is ${exact(twin.maximum)}` };
  return { value: number };
}

async function send(key, wanted, redraw) {
  const [namespace, device, property] = [...key.split("/").slice(0, 2), key.split("/").slice(2).join("/")];
  const mine = { wanted, at: performance.now() };
  note(key, mine, redraw);
  try {
    const answer = await ask(`/kubebus/v1/twins/${namespace}/${device}/desired/${encodeURIComponent(property)}`, {
      method: "PUT", headers: { "content-type": "application/json" }, body: JSON.stringify(wanted),
    });
    mine.version = answer.version ?? null;
  } catch (error) {
    mine.error = error.message;
  }
  redraw();
}

function note(key, what, redraw) {
  wishes.set(key, what);
  redraw();
}

// pending, acknowledged, refused, expired, superseded: whatever the edge said of the version that was given.
function outcome(key, twin) {
  const mine = wishes.get(key);
  if (!mine) return null;
  const [word, text] = became(mine, twin);
  return h("p", { class: `outcome ${word}`, role: "status", "data-outcome": word }, text);
}

function became(mine, twin) {
  if (mine.done) return mine.done;
  const end = (word, text) => (mine.done = [word, text]);
  const what = value(mine.wanted);
  if (mine.error) return ["refused", mine.wanted === undefined ? mine.error : `${what} was refused: ${mine.error}`];
  if (mine.version === undefined) return ["sending", `sending ${what} …`];
  const took = () => `after ${age(performance.now() - mine.at)}`;
  if (twin.ack && twin.ack.version === mine.version) {
    const detail = twin.ack.detail ? `: ${twin.ack.detail}` : "";
    if (twin.ack.outcome === "succeeded") return end("acknowledged", `${what} was acknowledged ${took()}`);
    return end(twin.ack.outcome, `${what} came to nothing, ${twin.ack.outcome}${detail}`);
  }
  if (mine.version === null) return held(mine, twin, what, took());
  if (mine.version && twin.version && isNewer(twin.version, mine.version)) {
    return end("superseded", `${what} was superseded by ${value(twin.desired)}${twin.by ? ` of ${twin.by}` : ""}`);
  }
  return ["pending", `${what} is on its way to its edge: ${age(performance.now() - mine.at)}`];
}

// At a site whose devices are the cloud's to wish for, what is set is the local operator's: it stands above wishes and
// most rules for a while, and no version says what becomes of it. The device does.
function held(mine, twin, what, took) {
  const words = `${what} is held here, above wishes and most rules, for 10 min`;
  const reported = twin.reported?.value;
  const is = typeof mine.wanted === "number" ? Math.abs(reported - mine.wanted) < 1e-6 * Math.max(1, Math.abs(mine.wanted)) : JSON.stringify(reported) === JSON.stringify(mine.wanted);
  return is ? ["acknowledged", `${words}; the device reports it`] : ["pending", `${words}; the device does not report it yet, ${took}`];
}
