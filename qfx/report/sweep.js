"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const trials = data.trials.filter((t) => t.state === "complete");
const metrics = new Map(data.metrics.map((m) => [m.name, m]));
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const KNOWN = ["integer", "minifloat", "khot", "mx"];
const families = [...new Set([...KNOWN, ...trials.map((t) => t.family)])].filter((f) => trials.some((t) => t.family === f));
const cssOf = (family) => "family-" + (KNOWN.includes(family) ? family : "other");

// ---- small tools
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function drawn(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}
function shown(value) {
  if (typeof value !== "number") return value === undefined || value === null ? "–" : String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  return Math.abs(value) >= 1e-3 ? String(Number(value.toPrecision(5))) : value.toExponential(2);
}
function markPath(family, x, y, r) {
  switch (family) {
    case "minifloat": { const s = r * 0.9; return `M${x - s} ${y - s}h${2 * s}v${2 * s}h${-2 * s}Z`; }
    case "khot": return `M${x} ${y - 1.15 * r}L${x + 1.1 * r} ${y + 0.85 * r}H${x - 1.1 * r}Z`;
    case "mx": { const d = r * 1.25; return `M${x} ${y - d}L${x + d} ${y}L${x} ${y + d}L${x - d} ${y}Z`; }
    default: return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
  }
}
function ticks(low, high, count) {
  const raw = (high - low) / count;
  if (!(raw > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i <= high / step + 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}
function logTicks(low, high) {
  const found = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
    for (const m of [1, 2, 5]) if (m * 10 ** e >= low * 0.999 && m * 10 ** e <= high * 1.001) found.push(m * 10 ** e);
  return found;
}

// ---- what is chosen
const axes = data.metrics.filter((m) => m.axis);
for (const id of ["x-axis", "y-axis"])
  $(id).append(...axes.map((m) => element("option", { value: m.name }, m.title)));
const has = (name) => axes.some((m) => m.name === name);
$("y-axis").value = axes.find((m) => m.maximize)?.name ?? axes[0]?.name;
$("x-axis").value = ["lut", "lut_estimate", "ebops", "memory_bits"].find(has)
  ?? axes.find((m) => !m.maximize)?.name ?? axes[0]?.name;
for (const family of families) {
  const icon = drawn("svg", { width: 14, height: 14, "aria-hidden": "true" });
  icon.append(drawn("path", { d: markPath(family, 7, 7, 5), class: cssOf(family) }));
  const box = element("input", { type: "checkbox", value: family, checked: "" });
  $("families").append(element("label", {}, box, icon, family));
}
let visible = [];
let front = new Set();
let chosen = null;
let current = 0;

function beats(a, b, x, y) {
  const better = (name, p, q) => (metrics.get(name).maximize ? p > q : p < q);
  const [ax, ay, bx, by] = [a.metrics[x], a.metrics[y], b.metrics[x], b.metrics[y]];
  return !better(x, bx, ax) && !better(y, by, ay) && (better(x, ax, bx) || better(y, ay, by));
}

// ---- the drawing
const WIDTH = 900, HEIGHT = 470, LEFT = 66, RIGHT = 20, TOP = 14, BOTTOM = 52;
function draw() {
  const x = $("x-axis").value, y = $("y-axis").value;
  if (!x || !y) return;
  const picked = new Set([...$("families").querySelectorAll("input:checked")].map((box) => box.value));
  const having = trials.filter((t) => picked.has(t.family) && t.metrics[x] !== undefined && t.metrics[y] !== undefined);
  front = new Set(having.filter((t) => !having.some((other) => beats(other, t, x, y))));
  visible = (($("only-front").checked) ? having.filter((t) => front.has(t)) : having)
    .sort((a, b) => a.metrics[x] - b.metrics[x] || a.metrics[y] - b.metrics[y]);
  current = Math.min(current, Math.max(0, visible.length - 1));
  const missing = trials.filter((t) => picked.has(t.family)).length - having.length;
  $("status").textContent = `${visible.length} of ${trials.length} configurations shown, ${front.size} on the front`
    + (missing ? `; ${missing} have no value for these axes.` : ".");
  for (const row of document.querySelectorAll("#table tbody tr")) {
    const trial = data.trials.find((t) => String(t.slot) === row.cells[0].dataset.sort);
    row.classList.toggle("away", trial.state === "complete" && !picked.has(trial.family));
  }
  const svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group",
    "aria-label": `${metrics.get(y).title} against ${metrics.get(x).title}, ${visible.length} configurations` });
  const xs = visible.map((t) => t.metrics[x]), ys = visible.map((t) => t.metrics[y]);
  const log = $("log").checked && xs.length > 0 && Math.min(...xs) > 0;
  const flat = (v) => (log ? Math.log10(v) : v);
  const span = (values) => {
    const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    return [low - room, high + room];
  };
  const [x0, x1] = span(xs.map(flat)), [y0, y1] = span(ys);
  const px = (v) => LEFT + (flat(v) - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
  const py = (v) => HEIGHT - BOTTOM - (v - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM);
  for (const tick of log ? logTicks(10 ** x0, 10 ** x1) : ticks(x0, x1, 7)) {
    svg.append(drawn("line", { x1: px(tick), x2: px(tick), y1: TOP, y2: HEIGHT - BOTTOM, class: "grid" }));
    svg.append(drawn("text", { x: px(tick), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, shown(tick)));
  }
  for (const tick of ticks(y0, y1, 6)) {
    svg.append(drawn("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: py(tick), y2: py(tick), class: "grid" }));
    svg.append(drawn("text", { x: LEFT - 8, y: py(tick) + 4, "text-anchor": "end" }, shown(tick)));
  }
  svg.append(drawn("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 10, "text-anchor": "middle", class: "axis-title" }, metrics.get(x).title));
  svg.append(drawn("text", { x: 16, y: (TOP + HEIGHT - BOTTOM) / 2, "text-anchor": "middle", class: "axis-title",
    transform: `rotate(-90 16 ${(TOP + HEIGHT - BOTTOM) / 2})` }, metrics.get(y).title));
  const line = visible.filter((t) => front.has(t)).map((t) => [px(t.metrics[x]), py(t.metrics[y])]);
  // A step: what a front point promises holds until the next one, not in between.
  if (line.length > 1) svg.append(drawn("path", { class: "front-line",
    d: "M" + line[0].join(" ") + line.slice(1).map(([at, up]) => `H${at}V${up}`).join("") }));
  visible.forEach((trial, index) => {
    const mark = drawn("path", { d: markPath(trial.family, px(trial.metrics[x]), py(trial.metrics[y]), 6.5),
      class: `mark ${cssOf(trial.family)}${front.has(trial) ? " on-front" : ""}${trial === chosen ? " chosen" : ""}`,
      tabindex: index === current ? 0 : -1, role: "button", "data-slot": trial.slot,
      "aria-label": `${trial.label}, ${trial.family}: ${metrics.get(y).title} ${shown(trial.metrics[y])}, `
        + `${metrics.get(x).title} ${shown(trial.metrics[x])}${front.has(trial) ? ", on the front" : ""}` });
    mark.addEventListener("pointerenter", () => tip(trial, mark));
    mark.addEventListener("pointerleave", hideTip);
    mark.addEventListener("focus", () => { current = index; tip(trial, mark); });
    mark.addEventListener("blur", hideTip);
    mark.addEventListener("click", () => open(trial));
    mark.addEventListener("keydown", (event) => key(event, index, trial));
    svg.append(mark);
  });
  $("plot").replaceChildren(svg);
}
function key(event, index, trial) {
  const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
  const target = event.key === "Home" ? 0 : event.key === "End" ? visible.length - 1 : step ? index + step : null;
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(trial); }
  if (event.key === "Escape") hideTip();
  if (target === null || target < 0 || target >= visible.length) return;
  event.preventDefault();
  const marks = [...$("plot").querySelectorAll(".mark")];
  marks[index].setAttribute("tabindex", -1);
  marks[target].setAttribute("tabindex", 0);
  marks[target].focus();
  current = target;
  tip(visible[target], marks[target]);
}
function tip(trial, mark) {
  const x = $("x-axis").value, y = $("y-axis").value, body = $("tip");
  const lines = [y, x].map((name) => element("div", {}, `${metrics.get(name).title}: ${shown(trial.metrics[name])}`));
  body.replaceChildren(element("b", {}, trial.label), ` ${trial.family}`, ...lines, element("code", {}, trial.command));
  body.hidden = false;
  const at = mark.getBoundingClientRect(), own = body.getBoundingClientRect();
  const left = Math.max(8, Math.min(at.left + 14, document.documentElement.clientWidth - own.width - 8));
  const above = at.top - own.height - 10;
  body.style.left = `${left + scrollX}px`;
  body.style.top = `${(above > 4 ? above : at.bottom + 10) + scrollY}px`;
}
function hideTip() { $("tip").hidden = true; }

// ---- one configuration
const COLUMNS = [["path", "module path"], ["op", "operator"], ["shape", "shape"], ["format", "format"],
  ["weight_format", "weights"], ["weights", "number of weights"], ["macs", "MACs"], ["accumulator", "accumulator bits"],
  ["pe", "PE"], ["simd", "SIMD"], ["cycles", "cycles"], ["lut", "LUT"], ["ff", "FF"], ["dsp", "DSP"], ["bram", "BRAM"]];
function table(rows) {
  const body = element("tbody");
  for (const [name, value] of rows) body.append(element("tr", {}, element("td", {}, name), element("td", { class: "n" }, shown(value))));
  return element("table", {}, body);
}
function layerTable(layers) {
  const known = COLUMNS.filter(([name]) => layers.some((layer) => layer[name] !== undefined));
  const named = new Set(["name", "detail", ...COLUMNS.map(([name]) => name)]);
  const more = [...new Set(layers.flatMap((layer) => Object.keys(layer)))].filter((name) => !named.has(name)).map((name) => [name, name]);
  const columns = [["name", "layer"], ...known, ...more];
  const numeric = new Set(columns.map(([name]) => name).filter((name) => layers.every((l) => l[name] === undefined || l[name] === null || typeof l[name] === "number")));
  const head = element("tr", {}, ...columns.map(([name, title]) => element("th", numeric.has(name) ? { class: "n" } : {}, title)));
  const body = element("tbody", {}, ...layers.map((layer) => element("tr", {},
    ...columns.map(([name]) => element("td", numeric.has(name) ? { class: "n" } : {},
      layer[name] === undefined || layer[name] === null ? "" : shown(layer[name]))))));
  return element("div", { class: "scroll" }, element("table", { id: "layers" }, element("thead", {}, head), body));
}
function open(trial) {
  chosen = trial;
  hideTip();
  draw();
  $("details-title").textContent = `${trial.label} (${trial.family})`;
  const copy = element("button", { type: "button", class: "copy" }, "Copy");
  copy.addEventListener("click", () => {
    const done = () => { copy.textContent = "Copied"; setTimeout(() => { copy.textContent = "Copy"; }, 1500); };
    navigator.clipboard?.writeText(trial.command).then(done, () => {});
  });
  const facts = element("div", { class: "facts" });
  const split = (measured) => Object.entries(trial.metrics).filter(([name]) => trial.measured.includes(name) === measured)
    .map(([name, value]) => [metrics.get(name)?.title ?? name, value]);
  facts.append(element("div", {}, element("h3", {}, "Result"), table(split(false))));
  if (trial.measured.length) facts.append(element("div", {}, element("h3", {}, "Hardware"), table(split(true))));
  facts.append(element("div", {}, element("h3", {}, "Parameters"), table(Object.entries(trial.parameters))));
  if (Object.keys(trial.notes).length) facts.append(element("div", {}, element("h3", {}, "Notes"), table(Object.entries(trial.notes))));
  $("details-body").replaceChildren(
    element("p", { class: "muted" }, "This command runs the configuration again: ", copy),
    element("pre", { class: "command" }, trial.command), facts,
    ...(trial.error ? [element("p", { class: "verdict bad" }, trial.error)] : []),
    element("h3", {}, "Layers"),
    trial.layers.length ? layerTable(trial.layers) : element("p", { class: "muted" }, "This configuration recorded no layers."));
  $("details").hidden = false;
  $("details").focus();
  $("details").scrollIntoView({ block: "start" });
}

// ---- files
function save(name, type, content) {
  const link = element("a", { href: URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
function csv() {
  const names = data.metrics.map((m) => m.name);
  const parameters = [...new Set(data.trials.flatMap((t) => Object.keys(t.parameters)))];
  const quote = (value) => (value === undefined || value === null ? "" : /[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  const rows = visible.map((t) => [t.slot, t.label, t.family, front.has(t) ? 1 : 0,
    ...parameters.map((p) => t.parameters[p]), ...names.map((n) => t.metrics[n]), t.command]);
  return [["slot", "configuration", "family", "front", ...parameters, ...names, "command"], ...rows].map((r) => r.map(quote).join(",") + "\n").join("");
}
const KEPT = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "font-family", "font-size", "font-weight", "text-anchor"];
function picture() {
  const source = $("plot").firstChild, copy = source.cloneNode(true);
  const [from, to] = [source, copy].map((root) => [root, ...root.querySelectorAll("*")]);
  from.forEach((node, i) => {
    const style = getComputedStyle(node);
    for (const name of KEPT) to[i].setAttribute(name, style.getPropertyValue(name));
    for (const name of ["class", "tabindex", "role", "data-slot"]) to[i].removeAttribute(name);
  });
  const paper = getComputedStyle(document.querySelector("section")).backgroundColor;
  copy.prepend(drawn("rect", { width: WIDTH, height: HEIGHT, fill: paper }));
  copy.setAttribute("xmlns", SVG);
  copy.setAttribute("width", WIDTH);
  copy.setAttribute("height", HEIGHT);
  return new XMLSerializer().serializeToString(copy);
}
function png() {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => {
      const canvas = element("canvas", { width: 3 * WIDTH, height: 3 * HEIGHT });
      canvas.getContext("2d").drawImage(image, 0, 0, 3 * WIDTH, 3 * HEIGHT);
      canvas.toBlob(resolve, "image/png");
    };
    image.onerror = reject;
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(picture());
  });
}
$("save-svg").addEventListener("click", () => save(`${data.name}.svg`, "image/svg+xml", picture()));
$("save-png").addEventListener("click", async () => save(`${data.name}.png`, "image/png", await png()));
$("save-csv").addEventListener("click", () => save(`${data.name}.csv`, "text/csv", csv()));
$("save-json").addEventListener("click", () => save(`${data.name}.json`, "application/json", JSON.stringify(data, null, 1)));

// ---- the table
for (const link of document.querySelectorAll("#table a[data-slot]"))
  link.addEventListener("click", (event) => {
    event.preventDefault();
    open(data.trials.find((t) => String(t.slot) === link.dataset.slot));
  });
for (const sorted of document.querySelectorAll("table[data-sortable]")) {
  const body = sorted.tBodies[0], original = [...body.rows], heads = [...sorted.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = element("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numeric = head.classList.contains("n");
      const orders = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
      const order = orders[orders.indexOf(head.getAttribute("aria-sort")) + 1];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (!order) { body.append(...original); return; }
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
      body.append(...[...original].sort((a, b) => {
        const [p, q] = [value(a), value(b)];
        if (p === "" || q === "") return (p === "") - (q === "");
        return sign * (numeric ? Number(p) - Number(q) : p.localeCompare(q, "en", { numeric: true }));
      }));
    });
  });
}
$("controls").addEventListener("change", draw);
$("controls").addEventListener("submit", (event) => event.preventDefault());
draw();
document.documentElement.dataset.ready = "yes";
