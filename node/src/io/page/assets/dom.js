// Elements, made and brought up to date. Whatever is shown goes in as text; nothing is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "path", "rect", "circle", "line", "text", "polyline", "title", "clipPath", "defs"]);

// `h("td", {class: "num"}, "4.2")`. An attribute that is null or false is left out; children are texts, elements, lists.
export function h(tag, attributes, ...children) {
  const drawn = SVG_TAGS.has(tag) || tag === "svg:a";
  const element = drawn ? document.createElementNS(SVG, tag.replace("svg:", "")) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name === "href" && !/^[#/]/.test(value)) continue; // links lead into this page only
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) add(element, child);
    else element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

// Makes `from` like `to` and changes no more than differs, so that focus, selection and what is typed stay. An element
// with `data-keep` is its maker's: what is in it is left alone as long as one of that name stands there.
export function morph(from, to) {
  if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName) {
    from.replaceWith(to);
    return to;
  }
  if (from.nodeType === Node.TEXT_NODE) {
    if (from.data !== to.data) from.data = to.data;
    return from;
  }
  const keep = to.getAttribute("data-keep");
  if (keep !== from.getAttribute("data-keep")) {
    from.replaceWith(to);
    return to;
  }
  if (keep !== null) return from;
  attributes(from, to);
  children(from, to);
  return from;
}

function attributes(from, to) {
  for (const { name } of [...from.attributes]) {
    if (!to.hasAttribute(name) && !(name === "open" && from.nodeName === "DETAILS")) from.removeAttribute(name);
  }
  for (const { name, value } of to.attributes) {
    if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
}

function children(from, to) {
  const keyed = new Map();
  for (const child of from.children) {
    const key = keyOf(child);
    if (key !== null) keyed.set(key, child);
  }
  let at = from.firstChild;
  for (const wanted of [...to.childNodes]) {
    const key = keyOf(wanted);
    const old = key !== null ? keyed.get(key) : at && keyOf(at) === null ? at : null;
    if (!old) {
      from.insertBefore(wanted, at);
      continue;
    }
    if (old === at) at = at.nextSibling;
    else from.insertBefore(old, at);
    morph(old, wanted);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

// The head of a table; a title that begins with `>` stands over numbers.
export function heads(titles) {
  const head = (title) => h("th", { scope: "col", class: title.startsWith(">") ? "num" : null }, title.replace(/^>/, ""));
  return h("thead", {}, h("tr", {}, titles.map(head)));
}

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null;
}
