"use strict";
const cards = [...document.querySelectorAll(".card")];
const play = document.getElementById("play");
const inView = new Set();

function follow(card) {
  const video = card.querySelector("video");
  const fps = Number(video.dataset.fps);
  const marks = card.querySelectorAll("rect.now");
  const count = Math.max(0, ...[...card.querySelectorAll("rect.hit")].map((r) => Number(r.dataset.t))) + 1;
  const show = () => {
    const t = Math.min(count - 1, Math.floor(video.currentTime * fps + 1e-3));
    marks.forEach((mark) => mark.setAttribute("x", t));
  };
  const run = () => { show(); if (!video.paused) requestAnimationFrame(run); };
  // Bars and plots stand below the video, where they can be clicked; its own controls would hide much.
  const shape = (width, height) => {
    const shown = Number(video.dataset.share) * height;
    video.style.aspectRatio = `${width} / ${shown}`;
    video.style.maxWidth = `calc(var(--tall) * ${width / shown})`;
  };
  const button = card.querySelector(".play");
  const turn = () => { video.paused ? video.play().catch(() => {}) : video.pause(); };
  const say = () => {
    button.textContent = video.paused ? "▶" : "❚❚";
    button.setAttribute("aria-label", video.paused ? "Play" : "Pause");
  };
  video.controls = false;
  button.hidden = false;
  button.addEventListener("click", turn);
  video.addEventListener("click", turn);
  video.addEventListener("play", say);
  video.addEventListener("pause", say);
  video.addEventListener("loadedmetadata", () => shape(video.videoWidth, video.videoHeight));
  if (video.poster) {
    const poster = new Image();
    poster.onload = () => shape(poster.naturalWidth, poster.naturalHeight);
    poster.src = video.poster;
  }
  video.addEventListener("play", run);
  video.addEventListener("seeked", show);
  card.querySelector(".strip").addEventListener("click", (event) => {
    const bar = event.target.closest("rect.hit");
    if (!bar) return;
    const seek = () => { video.currentTime = (Number(bar.dataset.t) + 0.5) / fps; };
    video.pause();
    if (video.readyState > 0) return seek();
    video.addEventListener("loadedmetadata", seek, { once: true });
    video.preload = "auto";
    video.load();
  });
}
cards.forEach(follow);

const observer = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    if (isIntersecting) {
      inView.add(target);
      target.preload = "metadata";
      if (play.checked) target.play().catch(() => {});
    } else {
      inView.delete(target);
      target.pause();
    }
  }
}, { rootMargin: "300px" });
cards.forEach((card) => observer.observe(card.querySelector("video")));

play.addEventListener("change", () => {
  for (const video of inView) play.checked ? video.play().catch(() => {}) : video.pause();
});

const judged = document.querySelector(".card.right, .card.wrong");
const filter = document.getElementById("filter");
const mistakes = document.getElementById("mistakes");
mistakes.parentElement.hidden = !judged;  // nothing to be mistaken about
function choose() {
  const wanted = filter.value.trim().toLowerCase();
  let count = 0;
  for (const card of cards) {
    const text = card.querySelector("h2").textContent + " " + card.querySelector(".facts").textContent;
    const keep = text.toLowerCase().includes(wanted) && (!mistakes.checked || card.classList.contains("wrong"));
    card.hidden = !keep;
    count += keep;
  }
  for (const group of document.querySelectorAll(".group")) {
    const own = [...group.querySelectorAll(".card")];
    group.hidden = own.length > 0 && own.every((card) => card.hidden);
  }
  document.getElementById("shown").textContent = count < cards.length ? `${count} of ${cards.length} shown` : "";
}
filter.addEventListener("input", choose);
mistakes.addEventListener("change", choose);
document.querySelector(".tools").addEventListener("submit", (event) => event.preventDefault());
choose();
