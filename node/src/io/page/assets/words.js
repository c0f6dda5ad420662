// How things are said: values, ages, times, rates.

export function value(v) {
  if (v === null || v === undefined) return "–";
  if (typeof v === "number") return number(v);
  if (typeof v === "string") return v.length > 200 ? v.slice(0, 200) + "…" : v;
  if (typeof v === "boolean") return v ? "true" : "false";
  const text = JSON.stringify(v);
  return text.length > 200 ? text.slice(0, 200) + "…" : text;
}

// Four digits that mean something; whole numbers as they are.
export function number(v) {
  if (Number.isInteger(v)) return String(v);
  const size = Math.abs(v);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return v.toExponential(3);
  return v.toFixed(size >= 1000 ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : 3);
}

// A bound or a mark on an axis: as it was written.
export function exact(v) {
  return typeof v === "number" ? String(Number(v.toPrecision(6))) : value(v);
}

export function age(ms) {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return "unknown";
  const s = Math.max(0, ms) / 1000;
  if (s < 10) return `${s.toFixed(s < 1 ? 1 : 0)} s`;
  if (s < 100) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.round((s % 3600) / 60)} min`;
  return `${Math.round(s / 86400)} d`;
}

export function clock(ms) {
  if (!ms) return "–";
  const date = new Date(ms);
  const time = date.toLocaleTimeString([], { hour12: false });
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString()} ${time}`;
}

export function rate(bytesPerS) {
  if (bytesPerS === null || bytesPerS === undefined) return "–";
  const bits = bytesPerS * 8;
  if (bits < 1000) return `${Math.round(bits)} bit/s`;
  if (bits < 1e6) return `${(bits / 1e3).toFixed(bits < 1e4 ? 1 : 0)} kbit/s`;
  return `${(bits / 1e6).toFixed(bits < 1e7 ? 1 : 0)} Mbit/s`;
}

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  if (n < 1000) return `${n} B`;
  if (n < 1e6) return `${(n / 1e3).toFixed(1)} kB`;
  return n < 1e9 ? `${(n / 1e6).toFixed(1)} MB` : `${(n / 1e9).toFixed(1)} GB`;
}

export function count(n, one, many) {
  return `${Number(n).toLocaleString()} ${n === 1 ? one : many}`;
}

// A version of a wish is `<epoch>.<number>`: the higher epoch wins, then the higher number.
export function isNewer(version, than) {
  const [a, b] = [version, than].map((v) => String(v ?? "0.0").split(".").map(Number));
  return a[0] !== b[0] ? a[0] > b[0] : a[1] > b[1];
}
