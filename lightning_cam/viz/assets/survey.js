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
    pictures(shard).then((all) => { if (all[place]) target.src = `data:image/jpeg;base64,${all[place]}`; });
  }
}, { rootMargin: "200px" });
function picture(parent, clip) {
  const image = make("img", parent, { alt: "", title: data.clips[clip][0] });
  image.dataset.clip = clip;
  image.style.aspectRatio = data.aspect;
  if (!data.clips[clip][3]) near.observe(image);
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
  const parts = [`border ${share(group.border)} (even ${share(group.border_even)})`, `centre ${share(group.centre)} (${share(group.centre_even)})`];
  if (group.inside !== null) parts.push(`inside the truth ${share(group.inside)} (${share(group.inside_even)})`);
  parts.push(`elsewhere than others ${share(group.elsewhere)}`);
  if (group.cluster) parts.unshift(`apart ${share(group.apart)}`);
  return parts.join(" · ") + (group.note ? ` · ${group.note}` : "");
}
function card(parent, group, wide) {
  const box = make("article", parent, { className: "group-card" });
  const name = data.names[group.class] + (group.cluster ? `, cluster ${group.cluster}` : "");
  const head = make("button", box, { type: "button", className: "name", textContent: `${name} (${group.clips} clips)`, title: "show these clips in the table" });
  head.addEventListener("click", () => choose(group));
  map(box, group.map, name);
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
  if (!groups.length) at(kind).textContent = "none: the maps of each class are alike, or of too few clips";
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
const ROWS = 50, COLUMNS = ["clip", "class", "predicted", "probability", "cluster", "inside truth", "border"];
let order = [], first = 0, sorting = [0, 1];
const values = [
  (n) => data.clips[n][0], (n, r) => r && data.names[r[0]], (n, r) => r && r[1] >= 0 ? data.names[r[1]] : null,
  (n, r) => r && r[2], (n, r) => r && (r[5] || null), (n, r) => r && r[6], (n, r) => r && r[8],
];
const { compare: words } = new Intl.Collator(undefined, { numeric: true });  // ten times as fast as localeCompare
function compare(a, b) {
  const value = values[sorting[0]], x = value(a, method.rows[a]), y = value(b, method.rows[b]);
  if (x === null || y === null) return (x === null) - (y === null);  // what is missing comes last
  return sorting[1] * (typeof x === "string" ? words(x, y) : x - y);
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
    if (verdict === "error" ? row : verdict === "reason" ? row[4] !== 1 : verdict && row[3] !== Number(verdict)) return;
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
    const cell = (text, kind = "") => make("td", line, { textContent: text, className: kind });
    cell(data.clips[n][0]);
    if (!row) { const why = cell(data.clips[n][3] || "no map by this method", "wrong"); why.colSpan = 6; continue; }
    cell(data.names[row[0]]);
    cell(row[1] < 0 ? "" : (row[3] === 1 ? "✓ " : row[3] === 0 ? "✗ " : "") + data.names[row[1]], row[3] === 0 ? "wrong" : "");
    cell(share(row[2]));
    cell(row[5] || "");
    cell(row[6] === null ? "" : `${share(row[6])} (even ${share(row[7])})` + (row[4] === 1 ? " wrong reason" : ""), row[4] === 1 ? "wrong" : "");
    cell((row[8] === null ? "no heat" : share(row[8])) + (row[9] ? ` doubtful: ${row[9]}` : ""), row[9] ? "wrong" : "");
  }
  const last = Math.min(first + ROWS, order.length);
  at("found").textContent = order.length ? `${first + 1}-${last} of ${order.length}` : "no clip is like this";
  at("back").disabled = first === 0;
  at("next").disabled = last >= order.length;
}
function fillClusters() {
  const column = at("class").value, select = at("cluster");
  select.length = 1;
  const own = method.clusters.filter((c) => column && c.class === Number(column)).map((c) => c.cluster).sort((a, b) => a - b);
  for (const number of own) select.add(new Option(`cluster ${number}`, number));
  select.disabled = !own.length;
}
const head = make("tr", document.querySelector(".survey thead"));
make("th", head, { textContent: "frames, and the heat on them" });
COLUMNS.forEach((text, n) => {
  const button = make("button", make("th", head), { type: "button", textContent: text });
  button.addEventListener("click", () => {
    sorting = [n, sorting[0] === n ? -sorting[1] : 1];
    for (const each of head.querySelectorAll("th")) each.removeAttribute("aria-sort");
    button.parentElement.setAttribute("aria-sort", sorting[1] > 0 ? "ascending" : "descending");
    begin();
  });
});
data.names.forEach((name, n) => { if (name) at("class").add(new Option(name, n)); });
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
  fillClusters();
  begin();
}
at("method").addEventListener("input", start);
start();
