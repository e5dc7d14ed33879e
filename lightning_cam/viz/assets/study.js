"use strict";
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// --- one network at a time -------------------------------------------------------------------
const chooser = document.getElementById("group");
function choose() {
  for (const part of all(".network")) part.hidden = part.id !== chooser.value;
}
if (chooser) { chooser.addEventListener("change", choose); choose(); }

// --- tables that sort ------------------------------------------------------------------------
function numberOf(cell, kind) {
  const found = cell.querySelector(`[data-kind="${kind}"]`) || cell;
  return found.dataset.number === undefined ? NaN : Number(found.dataset.number);
}
function sort(table, column, direction) {
  const body = table.tBodies[0];
  const rows = all("tr", body).map((row) => [row, row.cells[column]]);
  rows.sort(([, a], [, b]) => {
    if (column === 0) return direction * a.textContent.localeCompare(b.textContent);
    const [x, y] = [a, b].map((cell) => numberOf(cell, table.dataset.shown));
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);  // what is missing comes last
    return direction * (x - y);
  });
  body.append(...rows.map(([row]) => row));
  table.classList.add("sorted");
  for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
  table.tHead.rows[0].cells[column].setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
}
for (const table of all("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const first = column === 1 ? "descending" : "ascending";
      const again = head.getAttribute("aria-sort") === first;
      sort(table, column, (first === "ascending") === again ? -1 : 1);
    });
  });
  for (const choice of all("input[type=radio]", table.closest(".part"))) {
    choice.addEventListener("change", () => {
      table.dataset.shown = choice.value;
      const head = table.querySelector("[aria-sort]");
      if (head && head.cellIndex > 1) sort(table, head.cellIndex, head.getAttribute("aria-sort") === "ascending" ? 1 : -1);
    });
  }
}

// --- diagrams of two numbers -----------------------------------------------------------------
const LEFT = 62, RIGHT = 622, TOP = 14, BOTTOM = 388;
function make(parent, tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}
const short = (x) => x === 0 ? "0" : Math.abs(x) >= 1e4 || Math.abs(x) < 1e-3 ? x.toExponential(0) : String(Number(x.toPrecision(3)));
function scale(axis, ends, from, to) {
  const through = axis.log ? (v) => Math.log10(Math.max(v, 1e-9)) : (v) => v;
  let low = Math.min(...ends.map(through)), high = Math.max(...ends.map(through));
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  low -= room; high += room;
  const ticks = [];
  let text = short;
  if (axis.log) {
    const many = high - low > 2.5 ? [1] : [1, 2, 5];
    for (let d = Math.floor(low); d <= high; d++) for (const m of many) ticks.push(m * 10 ** d);
  } else {
    const rough = (high - low) / 5, unit = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= rough);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    text = (v) => Math.abs(high) >= 1e5 ? short(v) : v.toFixed(digits);
    for (let n = Math.ceil(low / step); n * step <= high; n++) ticks.push(n * step);
  }
  const at = (v) => from + (to - from) * (through(v) - low) / (high - low);
  return { at, text, ticks: ticks.filter((v) => through(v) >= low && through(v) <= high) };
}
function words(axis) {
  return axis.label + (axis.better > 0 ? ", higher is better" : axis.better < 0 ? ", lower is better" : "");
}
function beaten(point, points, axes) {
  const is = (p, q) => axes.every(([a, name]) => (q.at[name][0] - p.at[name][0]) * a.better >= 0)
    && axes.some(([a, name]) => (q.at[name][0] - p.at[name][0]) * a.better > 0);
  return points.some((other) => !other.baseline && is(point, other));
}
function place(boxes, x, y, width) {
  const spots = [[9, 4, 0], [-9, 4, 1], [0, -10, .5], [0, 18, .5], [8, -8, 0], [8, 16, 0], [-8, -8, 1], [-8, 16, 1]];
  for (const [dx, dy, part] of spots) {
    const box = [x + dx - part * width, y + dy - 11, x + dx + (1 - part) * width, y + dy + 3];
    const free = box[0] >= LEFT && box[2] <= RIGHT + 14 && box[1] >= 2 && box[3] <= BOTTOM
      && boxes.every((b) => box[2] < b[0] || box[0] > b[2] || box[3] < b[1] || box[1] > b[3]);
    if (free) { boxes.push(box); return [box[0], y + dy]; }
  }
  return null;  // the name is in the caption, when it is pointed at
}
function draw(figure, data) {
  const svg = figure.querySelector("svg");
  const [xAxis, yAxis] = ["x", "y"].map((k) => data.axes.find((a) => a.id === figure.querySelector(`select.${k}`).value));
  const known = data.methods.filter((m) => [xAxis, yAxis].every((a) => m.at[a.id] && m.at[a.id][0] !== null));
  svg.replaceChildren();
  svg.setAttribute("aria-label", `${words(yAxis)}, against ${words(xAxis)}`);
  if (!known.length) { make(svg, "text", { x: 320, y: 220, "text-anchor": "middle" }, "no method has both numbers"); return; }
  const ends = (a) => known.flatMap((m) => m.at[a.id].filter((v) => v !== null && v !== undefined));
  const x = scale(xAxis, ends(xAxis), LEFT, RIGHT), y = scale(yAxis, ends(yAxis), BOTTOM, TOP);
  for (const v of x.ticks) {
    make(svg, "line", { x1: x.at(v), x2: x.at(v), y1: TOP, y2: BOTTOM });
    make(svg, "text", { class: "tick", x: x.at(v), y: BOTTOM + 16, "text-anchor": "middle" }, x.text(v));
  }
  for (const v of y.ticks) {
    make(svg, "line", { x1: LEFT, x2: RIGHT, y1: y.at(v), y2: y.at(v) });
    make(svg, "text", { class: "tick", x: LEFT - 6, y: y.at(v) + 4, "text-anchor": "end" }, y.text(v));
  }
  const arrow = (a, more, less) => (a.better ? (a.better > 0 ? ` ${more}` : ` ${less}`) : "");
  make(svg, "text", { x: (LEFT + RIGHT) / 2, y: 428, "text-anchor": "middle" }, words(xAxis) + arrow(xAxis, "→", "←"));
  make(svg, "text", { transform: `translate(15 ${(TOP + BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle" }, words(yAxis) + arrow(yAxis, "→", "←"));
  const judged = xAxis.better && yAxis.better && xAxis !== yAxis;
  const axes = [[xAxis, xAxis.id], [yAxis, yAxis.id]];
  const best = judged ? known.filter((m) => !m.baseline && !beaten(m, known, axes)) : [];
  const line = best.map((m) => [x.at(m.at[xAxis.id][0]), y.at(m.at[yAxis.id][0])]).sort((a, b) => a[0] - b[0]);
  if (line.length > 1) make(svg, "polyline", { class: "front", points: line.map((p) => p.join()).join(" ") });
  const dots = known.map((m) => [m, x.at(m.at[xAxis.id][0]), y.at(m.at[yAxis.id][0])]);
  const boxes = dots.map(([, a, b]) => [a - 5, b - 5, a + 5, b + 5]);
  for (const [m, a, b] of [...dots].sort((p, q) => best.includes(q[0]) - best.includes(p[0]) || p[0].baseline - q[0].baseline)) {
    const [mx, lx, hx] = m.at[xAxis.id], [my, ly, hy] = m.at[yAxis.id];
    const said = (axis, [v, l, h]) => `${axis.label} ${short(v)}` + (l == null ? "" : ` [${short(l)}, ${short(h)}]`);
    const label = `${m.title}: ${said(yAxis, m.at[yAxis.id])}; ${said(xAxis, m.at[xAxis.id])}` + (best.includes(m) ? "; no other is as good in both" : "");
    const group = make(svg, "g", { class: "method" + (m.baseline ? " baseline" : "") + (best.includes(m) ? " best" : ""), tabindex: 0, role: "img", "aria-label": label });
    group.dataset.method = m.key;
    if (lx != null) make(group, "line", { class: "cross", x1: x.at(lx), x2: x.at(hx), y1: b, y2: b });
    if (ly != null) make(group, "line", { class: "cross", x1: a, x2: a, y1: y.at(ly), y2: y.at(hy) });
    if (m.baseline) make(group, "rect", { class: "dot", x: a - 4.5, y: b - 4.5, width: 9, height: 9 });
    else if (best.includes(m)) make(group, "path", { class: "dot", d: `M${a} ${b - 8}L${a + 8} ${b}L${a} ${b + 8}L${a - 8} ${b}Z` });
    else make(group, "circle", { class: "dot", cx: a, cy: b, r: 5.5 });
    const text = make(group, "text", {}, m.title);
    const spot = place(boxes, a, b, text.getComputedTextLength() || 6.5 * m.title.length);
    if (spot) { text.setAttribute("x", spot[0]); text.setAttribute("y", spot[1]); } else text.remove();
    const light = (on) => {
      for (const each of all("[data-method]", figure.closest(".network"))) each.classList.toggle("lit", on && each.dataset.method === m.key);
      if (on) figure.querySelector("figcaption").textContent = label;
    };
    for (const [event, on] of [["mouseenter", true], ["focus", true], ["mouseleave", false], ["blur", false]]) group.addEventListener(event, () => light(on));
  }
}
for (const network of all(".network")) {
  const data = JSON.parse(network.querySelector("script.data").textContent);
  for (const figure of all(".chart", network)) {
    const cost = figure.dataset.kind === "cost";
    const judged = data.axes.filter((a) => a.better && !a.log && !a.id.startsWith("gain "));
    const apart = (a) => new Set(data.methods.map((m) => m.at[a.id][0])).size;  // points that differ
    const most = (axes) => axes.reduce((best, a) => (best && apart(best) >= apart(a) ? best : a), undefined);
    const faithful = most(judged.filter((a) => a.need === "model")) || judged[0] || data.axes[0];
    const other = most(judged.filter((a) => a.need === "truth")) || judged.find((a) => a !== faithful) || faithful;
    const chosen = cost ? { x: "seconds", y: other.id } : { x: faithful.id, y: other.id };
    for (const [kind, id] of Object.entries(chosen)) {
      const select = figure.querySelector(`select.${kind}`);
      for (const axis of data.axes) if (!(cost && kind === "x") || axis.log) select.add(new Option(axis.label, axis.id));
      select.value = id;
      select.addEventListener("change", () => draw(figure, data));
    }
    new IntersectionObserver((seen, watch) => {  // text has no length while it is not shown
      if (seen.some((each) => each.isIntersecting)) { draw(figure, data); watch.disconnect(); }
    }, { rootMargin: "400px" }).observe(figure);
    addEventListener("beforeprint", () => draw(figure, data));
  }
}

// --- clips -----------------------------------------------------------------------------------
function follow(card) {
  const video = card.querySelector("video"), fps = Number(video.dataset.fps);
  const player = card.querySelector(".player"), [button, slider, said] = ["button", "input", "output"].map((n) => player.querySelector(n));
  const count = Number(slider.max) + 1, now = card.querySelector("rect.now");
  video.removeAttribute("controls");
  player.hidden = false;
  const show = (t) => {
    slider.value = t;
    said.textContent = `frame ${t} of ${count}`;
    now.setAttribute("x", Number(now.dataset.left) + t * Number(now.dataset.step));
  };
  const frame = () => Math.min(count - 1, Math.floor(video.currentTime * fps + 1e-3));
  const run = () => { show(frame()); if (!video.paused) requestAnimationFrame(run); };
  const seek = () => { video.currentTime = (Number(slider.value) + 0.5) / fps; };
  const loaded = (then) => {
    if (video.readyState > 0) return then();
    video.addEventListener("loadedmetadata", then, { once: true });
    video.preload = "auto";
    video.load();
  };
  const toggle = () => (video.paused ? loaded(() => { if (!video.currentTime) seek(); video.play().catch(() => {}); }) : video.pause());
  button.addEventListener("click", toggle);
  video.addEventListener("click", toggle);
  slider.addEventListener("input", () => { video.pause(); show(Number(slider.value)); loaded(seek); });
  slider.addEventListener("keydown", (event) => { if (event.key === " ") { event.preventDefault(); toggle(); } });
  video.addEventListener("play", () => { button.textContent = "❚❚ pause"; run(); });
  video.addEventListener("pause", () => { button.textContent = "▶ play"; });
  video.addEventListener("seeked", () => show(frame()));
  show(Number(slider.value));
}
const near = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    const video = target.querySelector("video");
    if (!isIntersecting) video.pause();
    else if (!video.poster) video.poster = video.dataset.poster;
  }
}, { rootMargin: "300px" });
for (const card of all(".clip")) { follow(card); near.observe(card); }
