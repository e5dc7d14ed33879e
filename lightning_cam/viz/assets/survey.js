"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
function make(tag, parent, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  parent.append(element);
  return element;
}
const share = (x) => x === null ? "" : x.toFixed(2).replace(/^0/, "");

// --- pictures: a file of a shard is loaded when one of its clips comes into view ----------------
const shards = new Map(), waiting = new Map(), KEPT = 40;
globalThis.survey = (shard, pictures) => waiting.get(shard)(pictures);
function pictures(shard) {
  if (!shards.has(shard)) {
    shards.set(shard, new Promise((done) => {
      waiting.set(shard, done);
      const script = make("script", document.head, { src: `media/shard_${String(shard).padStart(4, "0")}.js` });
      script.onload = () => script.remove();
      script.onerror = () => { script.remove(); done([]); };
    }));
    if (shards.size > KEPT) shards.delete(shards.keys().next().value);
  }
  return shards.get(shard);
}
const near = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    const [, shard, place] = data.clips[target.dataset.clip];
    pictures(shard).then((all) => {
      const own = (all[place] || [])[target.dataset.picture];
      if (own) target.src = `data:image/jpeg;base64,${own}`; else target.remove();
    });
  }
}, { rootMargin: "200px" });
function picture(parent, clip) {  // its frames, and below them the map of this method
  if (data.clips[clip][3]) return;
  const box = make("div", parent, { className: "shots", title: data.clips[clip][0] });
  for (const row of [0, method.picture]) {
    const image = make("img", box, { alt: "" });
    Object.assign(image.dataset, { clip, picture: row });
    image.style.aspectRatio = data.aspect;
    near.observe(image);
  }
}

// --- mean maps: levels, coloured here -------------------------------------------------------------
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)), colours = bytes(data.colours);
function map(parent, text, name) {
  const canvas = make("canvas", parent, { className: "map", width: data.side, height: data.side });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `mean map of ${name}`);
  const context = canvas.getContext("2d"), image = context.createImageData(data.side, data.side);
  bytes(text).forEach((level, n) => image.data.set([...colours.subarray(3 * level, 3 * level + 3), 255], 4 * n));
  context.putImageData(image, 0, 0);
}

// --- classes and clusters -------------------------------------------------------------------------
let method;
const PAGE = { clusters: 6, classes: 12 }, shown = { clusters: 0, classes: 0 };
function facts(group) {
  if (group.border === null) return "its maps are even in each frame: they tell times, not places" + (group.note ? ` · ${group.note}` : "");
  const parts = [`border ${share(group.border)} (even ${share(group.border_even)})`, `centre ${share(group.centre)} (${share(group.centre_even)})`];
  if (group.inside !== null) parts.push(`inside the truth ${share(group.inside)} (${share(group.inside_even)})`);
  if (group.elsewhere !== null) parts.push(`elsewhere than others ${share(group.elsewhere)}`);
  if (group.cluster) parts.unshift(`apart ${share(group.apart)}`);
  return parts.join(" · ") + (group.note ? ` · ${group.note}` : "");
}
function card(parent, group, wide) {
  const box = make("article", parent, { className: "group-card" });
  const name = data.names[group.class] + (group.cluster ? `, cluster ${group.cluster}` : "");
  const head = make("button", box, { type: "button", className: "name", textContent: `${name} (${group.clips} clips)`, title: "show these clips in the table" });
  head.addEventListener("click", () => choose(group));
  if (group.map) map(box, group.map, name); else box.classList.add("flat");
  const bars = make("div", box, { className: "bars", title: "heat over time" }), top = Math.max(...group.time);
  for (const part of group.time) make("i", bars).style.height = `${100 * part / top}%`;
  make("p", box, { className: "note", textContent: facts(group) });
  if (wide) { const row = make("div", box, { className: "typical" }); for (const clip of group.typical) picture(row, clip); }
}
function more(kind) {
  const groups = method[kind], from = shown[kind];
  for (const group of groups.slice(from, from + PAGE[kind])) card(at(kind), group, kind === "clusters");
  shown[kind] = Math.min(groups.length, from + PAGE[kind]);
  document.querySelector(`[data-of=${kind}]`).hidden = shown[kind] >= groups.length;
  if (!groups.length) at(kind).textContent = method.classes.length ? "none: the maps of each kind are alike, or of too few clips" : "none: no map has any heat";
}
for (const button of document.querySelectorAll(".more")) button.addEventListener("click", () => more(button.dataset.of));
function choose(group) {
  at("class").value = group.class;
  fillClusters();
  at("cluster").value = group.cluster || "";
  begin();
  at("clips").scrollIntoView();
}

// --- the table --------------------------------------------------------------------------------------
// A row: explained class, predicted, probability, right, for the wrong reason, cluster, inside the truth, share of an even
// map there, border, doubt, the true one where others are explained. What no clip has is no column.
const ROWS = 50, mark = (r) => r[3] < 0 ? "" : r[3] ? "✓ " : "✗ ", bad = (r) => r[3] === 0;
const ALL = [
  { name: "clip", value: (r, n) => data.clips[n][0] },
  { name: data.classes && !data.others ? "class" : "explained", value: (r) => data.names[r[0]] },
  { name: "true", value: (r) => r[10] < 0 ? null : data.names[r[10]] },
  { name: "predicted", value: (r) => r[1] < 0 ? null : data.names[r[1]], text: (r) => (data.several ? "" : mark(r)) + data.names[r[1]], bad: (r) => !data.several && bad(r) },
  { name: "probability", value: (r) => r[2], text: (r) => (data.several ? mark(r) : "") + share(r[2]), bad: (r) => data.several && bad(r) },
  { name: "cluster", value: (r) => r[5] || null },
  { name: "inside truth", value: (r) => r[6], text: (r) => `${share(r[6])} (even ${share(r[7])})` + (r[4] === 1 ? " wrong reason" : ""), bad: (r) => r[4] === 1 },
  { name: "border", value: (r) => r[8], text: (r) => share(r[8]) },
];
let columns = ALL, order = [], first = 0, sorting = [ALL[0], 1];
const valued = (column, n) => column === ALL[0] || method.rows[n] ? column.value(method.rows[n], n) : null;
const { compare: words } = new Intl.Collator(undefined, { numeric: true });  // ten times as fast as localeCompare
function compare(a, b) {
  const [column, sign] = sorting, x = valued(column, a), y = valued(column, b);
  if (x === null || y === null) return (x === null) - (y === null);  // what is missing comes last
  return sign * (typeof x === "string" ? words(x, y) : x - y);
}
function begin() {
  const word = at("search").value.trim().toLowerCase(), verdict = at("verdict").value;
  const column = at("class").value, cluster = at("cluster").value;
  order = [];
  data.clips.forEach((clip, n) => {
    const row = method.rows[n];
    if (word && !clip[0].toLowerCase().includes(word)) return;
    if ((column || cluster || verdict) && !row && verdict !== "error") return;
    if (column && (!row || row[0] !== Number(column))) return;
    if (cluster && row[5] !== Number(cluster)) return;
    if (verdict === "error" ? row : verdict === "reason" ? row[4] !== 1 : verdict === "doubt" ? !row[9] : verdict && row[3] !== Number(verdict)) return;
    order.push(n);
  });
  order.sort(compare);
  first = 0;
  show();
}
function show() {
  const body = document.querySelector(".survey tbody");
  for (const image of body.querySelectorAll("img")) near.unobserve(image);
  body.replaceChildren();
  for (const n of order.slice(first, first + ROWS)) {
    const row = method.rows[n], line = make("tr", body);
    picture(make("td", line, { className: "seen" }), n);
    for (const column of row ? columns : columns.slice(0, 1)) {
      const known = valued(column, n) !== null;
      const cell = make("td", line, { textContent: known ? (column.text ? column.text(row) : column.value(row, n)) : "" });
      if (known && column.bad && column.bad(row)) cell.className = "wrong";
      if (column === ALL[0] && row && row[9]) make("p", cell, { className: "wrong", textContent: `doubtful: ${row[9]}` });
    }
    if (!row) make("td", line, { textContent: data.clips[n][3] || method.missing[n], className: "wrong", colSpan: columns.length - 1 });
  }
  const last = Math.min(first + ROWS, order.length);
  at("found").textContent = order.length ? `${first + 1}-${last} of ${order.length}` : "no clip is like this";
  at("back").disabled = first === 0;
  at("next").disabled = last >= order.length;
}
function options(id, all, choices) {  // hidden where there is nothing to choose
  at(id).replaceChildren(new Option(all, ""), ...choices.map(([text, value]) => new Option(text, value)));
  at(id).hidden = !choices.length;
}
function fillClusters() {
  const column = at("class").value;
  const own = method.clusters.filter((c) => column && c.class === Number(column)).map((c) => c.cluster).sort((a, b) => a - b);
  options("cluster", "all clusters", own.map((number) => [`cluster ${number}`, number]));
}
function fillFilters() {
  const named = [...new Set(method.rows.filter(Boolean).map((row) => row[0]))].sort((a, b) => words(data.names[a], data.names[b]));
  options("class", data.classes ? "all classes" : "all outputs", named.length > 1 ? named.map((n) => [data.names[n], n]) : []);
  const some = (test) => method.rows.some((row) => row && test(row)), judged = some((row) => row[3] >= 0);
  options("verdict", judged ? "right and wrong" : "all clips", [
    ...(judged ? [["right", 1], ["wrong", 0]] : []), ...(some((row) => row[4] === 1) ? [["right for the wrong reason", "reason"]] : []),
    ...(some((row) => row[9]) ? [["doubtful", "doubt"]] : []), ...(method.rows.some((row) => !row) ? [["not explained", "error"]] : []),
  ]);
  fillClusters();
}
function fillHead() {
  columns = ALL.filter((column) => method.rows.some((row, n) => row && column.value(row, n) !== null));
  if (!columns.includes(ALL[0])) columns.unshift(ALL[0]);
  if (!columns.includes(sorting[0])) sorting = [ALL[0], 1];
  const head = document.querySelector(".survey thead");
  head.replaceChildren();
  const line = make("tr", head);
  make("th", line, { textContent: "frames, and the heat on them" });
  for (const column of columns) {
    const cell = make("th", line), button = make("button", cell, { type: "button", textContent: column.name });
    if (column === sorting[0]) cell.setAttribute("aria-sort", sorting[1] > 0 ? "ascending" : "descending");
    button.addEventListener("click", () => {
      sorting = [column, sorting[0] === column ? -sorting[1] : 1];
      fillHead();
      begin();
    });
  }
}
for (const id of ["search", "verdict", "cluster"]) at(id).addEventListener("input", begin);
at("class").addEventListener("input", () => { fillClusters(); begin(); });
const turn = (by) => { first += by; show(); at("clips").scrollIntoView(); };
at("back").addEventListener("click", () => turn(-ROWS));
at("next").addEventListener("click", () => turn(ROWS));
document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());

data.methods.forEach((each, n) => at("method").add(new Option(each.title, n)));
at("method").closest("p").hidden = data.methods.length < 2;
function start() {
  method = data.methods[at("method").value];
  for (const kind of ["clusters", "classes"]) { at(kind).replaceChildren(); shown[kind] = 0; more(kind); }
  fillFilters();
  fillHead();
  begin();
}
if (!data.classes) at("kinds").textContent = "Mean maps";
at("method").addEventListener("input", start);
start();
