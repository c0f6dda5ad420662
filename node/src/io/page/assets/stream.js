// What this page knows, as its node tells it. Tables of rows; each row remembers when it came, and its age counts on.

export const state = {
  hello: null,
  // "connecting", "live" or "lost"; a page that is lost shows what it has as old.
  link: "connecting",
  why: "",
  heard: null,
  // The node's clock less ours, to tell how long ago something was.
  offset: 0,
  devices: new Map(),
  twins: new Map(),
  rules: new Map(),
  fleet: new Map(),
  beside: {},
  trail: new Map(),
};

// The node says something at least every 3 s.
const SILENT_MS = 8000;
const AGAIN_MS = 3000;
// A page that nobody sees asks its node for nothing.
const HIDDEN_MS = 60000;
// Of each plotted value the page keeps this many readings, and of no more values than that: some MB.
const TRAIL = 2000;
const TRAILS = 64;
const TABLES = ["devices", "twins", "rules", "fleet"];

let source = null;
// Of one connection: the most that the node's clock was ever ahead of our steady one, when something came. What comes with
// less was on its way for longer, and is that much older than it says.
let line = { lead: -Infinity, late: 0 };
let asked = null;
let again = null;
let hidden = null;
let changed = () => {};

export function onChange(call) {
  changed = call;
}

// Shows what `query` asks for from here on; nothing happens if that is what it shows.
export function show(query) {
  if (query === asked && source) return;
  asked = query;
  for (const name of ["devices", "twins"]) state[name] = new Map();
  open();
}

function open() {
  close();
  line = { lead: -Infinity, late: 0 };
  source = new EventSource(`/page/stream${asked ? `?${asked}` : ""}`);
  const mine = source;
  const on = (name, call) =>
    source.addEventListener(name, (event) => {
      if (mine === source) heard(call, JSON.parse(event.data));
    });
  on("hello", (data) => {
    state.hello = data;
    interrupt();
  });
  on("tick", (data) => time(data));
  for (const name of TABLES) on(name, (data) => table(name, data));
  source.onerror = () => {
    if (mine === source && source.readyState === EventSource.CLOSED) refused();
  };
}

function close() {
  clearTimeout(again);
  if (source) source.close();
  source = null;
}

function heard(call, data) {
  call(data);
  state.heard = stamp();
  state.link = "live";
  state.why = "";
  changed();
}

// A browser does not say why a stream was refused, so the same is asked once more, to be read.
async function refused() {
  const aborted = new AbortController();
  try {
    const answer = await fetch(`/page/stream${asked ? `?${asked}` : ""}`, { signal: aborted.signal });
    if (!answer.ok) state.why = (await answer.json().catch(() => ({}))).error ?? `the node answers ${answer.status}`;
  } catch {
    state.why = "";
  }
  aborted.abort();
  clearTimeout(again);
  again = setTimeout(open, AGAIN_MS);
  changed();
}

function time(data) {
  if (!data.time) return;
  const lead = data.time - performance.now();
  line.lead = Math.max(line.lead, lead);
  line.late = line.lead - lead;
  state.offset = data.time + line.late - Date.now();
}

// How long the last word of the node was on its way, above the least that the connection needs.
export function late() {
  return line.late;
}

function table(name, data) {
  time(data);
  const rows = data.whole ? new Map() : state[name];
  for (const key of data.gone) rows.delete(key);
  for (const [key, row] of Object.entries(data.rows)) {
    rows.set(key, { ...row, at: stamp(), line, lead: data.time - performance.now() });
    if (name === "twins") keep(key, row);
  }
  state[name] = new Map([...rows].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)));
  const { time: _t, whole: _w, rows: _r, gone: _g, ...beside } = data;
  Object.assign(state.beside, beside);
}

// The readings that this page saw itself.
function keep(key, { reported }) {
  const v = Number(reported?.value);
  if (!reported || typeof reported.value === "string" || !Number.isFinite(v)) return;
  const known = state.trail.get(key) ?? [];
  state.trail.delete(key);
  if (known.length && known[known.length - 1].t >= reported.time) return void state.trail.set(key, known);
  known.push({ t: reported.time, v, quality: reported.quality });
  if (known.length > TRAIL) known.shift();
  state.trail.set(key, known);
  if (state.trail.size > TRAILS) state.trail.delete(state.trail.keys().next().value);
}

// What happened while nobody listened is not known: the plots have a gap there.
function interrupt() {
  for (const known of state.trail.values()) {
    const last = known[known.length - 1];
    if (last.quality !== "bad" && !last.missing) known.push({ t: last.t + 1, v: last.v, missing: true });
  }
}

// Two clocks: the steady one may stand still while a computer sleeps, the other may be set back.
function stamp() {
  return { steady: performance.now(), wall: Date.now() };
}

export function since(at) {
  return at ? Math.max(performance.now() - at.steady, Date.now() - at.wall, 0) : Infinity;
}

// How old a row's value is by now; null if its node never knew.
export function ageOf(row) {
  const known = row.age_ms ?? row.heard_ms_ago;
  const late = row.line ? row.line.lead - row.lead : 0;
  return known === null || known === undefined ? null : known + late + since(row.at);
}

// The node's time by now, in ms since 1970.
export function nodeTime() {
  return Date.now() + state.offset;
}

// Once a second: what was not heard of in time is lost.
export function check() {
  if (state.heard && since(state.heard) > SILENT_MS) state.link = "lost";
  else if (!state.heard && performance.now() > SILENT_MS) state.link = "lost";
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(hidden);
  if (document.hidden) hidden = setTimeout(close, HIDDEN_MS);
  else if (!source && asked !== null) open();
});

// Asks the node for something else; an error says what the node said.
export async function ask(path, options) {
  const answer = await fetch(path, { cache: "no-store", ...options });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error ?? body.message ?? `the node answers ${answer.status}`);
  return body;
}
