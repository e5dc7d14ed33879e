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
  // Bars and plots stand below the video, where they can be clicked, and its own controls would hide
  // much; a video that is shown with its bars, such as a long one, keeps them.
  const cut = Number(video.dataset.shape);
  const shape = (ratio) => {
    video.style.objectFit = cut ? "cover" : "contain";
    video.style.aspectRatio = ratio;
    video.style.maxWidth = `calc(var(--tall) * ${ratio})`;
  };
  const button = card.querySelector(".play");
  const turn = () => { video.paused ? video.play().catch(() => {}) : video.pause(); };
  const say = () => {
    button.textContent = video.paused ? "▶" : "❚❚";
    button.setAttribute("aria-label", video.paused ? "Play" : "Pause");
  };
  if (cut) {
    video.controls = false;
    button.hidden = false;
    button.addEventListener("click", turn);
    video.addEventListener("click", turn);
    video.addEventListener("play", say);
    video.addEventListener("pause", say);
  }
  if (cut) shape(cut);
  else video.addEventListener("loadedmetadata", () => {  // room for the controls below the video
    shape(video.videoWidth / (video.videoHeight + 0.12 * video.videoWidth));
  });
  video.addEventListener("play", run);
  video.addEventListener("seeked", show);
  card.addEventListener("click", (event) => {
    const place = event.target.closest("rect.hit, [data-s]");
    if (!place) return;
    const second = "s" in place.dataset ? Number(place.dataset.s) + 1e-3 : (Number(place.dataset.t) + 0.5) / fps;
    const seek = () => { video.currentTime = second; };
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
      if (target.dataset.poster) target.poster = target.dataset.poster;
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
