"""The page of explanations: safe, complete, offline, and it plays."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from lightning_cam.explaining.clip_files import write_page_images
from lightning_cam.viz import (
    ClipFigure,
    ReportEntry,
    draw_sheet,
    draw_video,
    drawn_video,
    save_png,
    write_report,
    write_video,
)
from lightning_cam.viz.time_bars import Strip

EVIL = '"><script>alert("x")</script>$title{0}&'


class Page(HTMLParser):
    """Collects tags, references and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def references(self) -> list[str]:
        return [a[k] or "" for _, a in self.tags for k in ("src", "href", "poster") if k in a]


def clip(title: str = "v_spin_01", **changes: object) -> ClipFigure:
    heat = np.linspace(0, 1, 6 * 16 * 16, dtype=np.float32).reshape(6, 16, 16)
    base = ClipFigure(
        frames=np.random.default_rng(0).integers(0, 255, (6, 16, 16, 3), dtype=np.uint8),
        heatmaps={"Grad-CAM, layer trunk": heat, "Flat": np.zeros_like(heat)},
        target="spin",
        label="spin",
        probabilities=[(f"class {n}", 0.01) for n in range(20)] + [("spin", 0.8)],
        attention=np.arange(6) / 15,
        valid=np.arange(6) < 5,
        title=title,
    )
    return dataclasses.replace(base, **changes)


def entry(folder: Path, figure: ClipFigure, stem: str, real_files: bool = False) -> ReportEntry:
    names = [folder / f"{stem}.{kind}" for kind in ("mp4", "png", "npz")]
    for name in names:
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_bytes(b"")
    if real_files:
        write_video(names[0], draw_video(figure), fps=4)
        save_png(names[1], draw_sheet(figure))
    video = drawn_video(figure)
    images = write_page_images(folder, figure, video.middle, video.shape) if real_files else None
    return ReportEntry.of(figure, *names, fps=4, scores={"deletion": "0.12"}, images=images)


def test_every_reference_is_relative_and_exists(tmp_path):
    stems = ["a", "with space", "100% #1 ?x=1&y", "sub/b", "a:b", "spaß"]
    entries = [entry(tmp_path, clip(stem), stem) for stem in stems]
    (tmp_path / "scores.csv").write_text("clip\n")
    path = write_report(tmp_path, entries, downloads=["scores.csv"])
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert path == tmp_path / "index.html"
    assert len(page.references) == 6 * len(stems) + 1
    for reference in page.references:
        assert reference.startswith("./") and "?" not in reference and "#" not in reference
        assert (tmp_path / unquote(reference)).is_file()
    assert not re.search(r"https?:|//cdn|@import|url\(", text)
    assert not [a for a in page.all("script") if "src" in a] and not page.all("link")


def test_names_cannot_become_markup(tmp_path):
    figure = clip(
        EVIL,
        target=EVIL,
        label=EVIL,
        probabilities=[(EVIL, 0.9), ("b", 0.1)],
        heatmaps={EVIL: clip().heatmaps["Flat"]},
    )
    evil = dataclasses.replace(entry(tmp_path, figure, "a"), scores={EVIL: EVIL})
    text = write_report(
        tmp_path, [evil], title=EVIL, summary={EVIL: EVIL, "command": EVIL}, skipped={EVIL: EVIL}
    ).read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.all("script")) == 1 and "alert(" not in re.sub("&quot;", "", _script(text))
    assert "<script>alert" not in text
    assert "".join(page.text).count(EVIL) >= 10  # shown as it is


def _script(text: str) -> str:
    return text[text.index("<script>") : text.index("</script>")]


def test_the_page_says_what_was_done_and_found(tmp_path):
    entries = [
        entry(tmp_path, clip("one"), "one"),
        entry(tmp_path, clip("two", label="class 3"), "two"),
        entry(tmp_path, clip("three", label=None, probabilities=()), "three"),
    ]
    summary = {"checkpoint": "runs/last.ckpt", "command": "python explain.py ckpt=runs/last.ckpt"}
    path = write_report(
        tmp_path, entries, summary=summary, skipped={"bad.avi": "cannot read video: truncated"}
    )
    page = Page(path.read_text(encoding="utf-8"))
    text = " ".join(" ".join(page.text).split())
    for words in (
        "3 clips · 1 of 2 predicted right · 1 skipped",
        "runs/last.ckpt",
        "bad.avi cannot read video: truncated",
        "Grad-CAM, layer trunk",
        "no evidence: map is zero everywhere",
        "✓ right",
        "✗ wrong",
        "deletion 0.12",
        "class 3",  # the true class, though not among the five likeliest
        "more classes",
    ):
        assert words in text, words
    cards = [a["class"] for a in page.all("article")]
    assert cards == ["card right", "card wrong", "card unknown"]
    for video in page.all("video"):
        assert {"controls", "loop", "muted", "playsinline"} <= set(video)
        assert video["data-fps"] == "4" and video["preload"] == "metadata"
    assert all(image["loading"] == "lazy" for image in page.all("img"))


def outcomes(folder: Path) -> list[ReportEntry]:
    """Two clips that are right, one nearly right, two wrong, one that nobody knows."""
    ranked = [("spin", 0.6), ("jump", 0.3), ("wave", 0.1)]
    labels = ["wave", "spin", "jump", None, "spin", "elsewhere"]
    return [
        entry(folder, clip(f"clip {n}", label=label, probabilities=ranked), str(n))
        for n, label in enumerate(labels)
    ]


def test_groups_have_headings_in_the_order_asked_for(tmp_path):
    groups = ["wrong", "correct", "confused"]
    text = write_report(tmp_path, outcomes(tmp_path), groups=groups).read_text(encoding="utf-8")
    sections = re.findall(r'<section class="group"><h2>(.*?)</h2>(.*?)</section>', text, re.S)
    assert [heading for heading, _ in sections] == [
        "Wrong: the true class is not among the first two (2)", "Correct (2)",
        "Confused: the true class comes second (1)", "True class unknown (1)",
    ]  # fmt: skip
    titles = [re.findall(r"<span>(clip \d)</span>", body) for _, body in sections]
    assert titles == [["clip 0", "clip 5"], ["clip 1", "clip 4"], ["clip 2"], ["clip 3"]]
    videos = Page(text).all("video")
    assert [v["preload"] for v in videos] == ["metadata"] * 4 + ["none"] * 2  # across groups


def test_a_group_without_clips_says_so(tmp_path):
    entries = [e for e in outcomes(tmp_path) if e.outcome == "correct"]
    path = write_report(tmp_path, entries, groups=["correct", "wrong"])
    text = " ".join(Page(path.read_text(encoding="utf-8")).text)
    assert "Correct (2)" in text and "first two (0)" in text and "none found" in text
    assert "unknown" not in text


def test_without_groups_each_clip_has_its_outcome(tmp_path):
    page = Page(write_report(tmp_path, outcomes(tmp_path)).read_text(encoding="utf-8"))
    assert not [a for a in page.all("section") if a.get("class") == "group"]
    text = " ".join(page.text)
    assert text.count("✓ right") == 2 and text.count("✗ wrong") == 3
    assert text.count("✗ wrong, the true class comes second") == 1
    assert "2 of 5 predicted right" in text
    assert [a["class"].split()[1] for a in page.all("article")] == [  # type: ignore[union-attr]
        "wrong", "right", "wrong", "unknown", "right", "wrong",
    ]  # fmt: skip


def test_a_contrast_names_its_classes_and_colours_their_bars(tmp_path):
    heat = clip().heatmaps["Grad-CAM, layer trunk"]
    names = ("Grad-CAM for A, x", "Grad-CAM for B, x", "Grad-CAM for A - B, x")
    figure = clip(
        heatmaps=dict(zip(names, (heat, heat[::-1], heat - heat[::-1]), strict=True)),
        contrasts=[names],
        signed=names[2:],
        against="class 17",
    )
    text = write_report(tmp_path, [entry(tmp_path, figure, "a")]).read_text(encoding="utf-8")
    assert "<dt>A</dt><dd>spin</dd>" in text and "<dt>B</dt><dd>class 17</dd>" in text
    assert "<dt>explaining</dt>" not in text
    assert re.findall(r'<svg class="(\w+)"', text) == ["attention", "first", "second", "both"]
    assert "<th>class 17</th>" in text  # though it is not among the likeliest


def test_bars_are_the_shares(tmp_path):
    text = write_report(tmp_path, [entry(tmp_path, clip(), "a")]).read_text(encoding="utf-8")
    (attention,) = re.findall(r'<svg class="attention".*?</svg>', text, flags=re.S)
    heights = [float(h) for h in re.findall(r'width=".88" height="([\d.]+)"', attention)]
    np.testing.assert_allclose(heights, 38 * np.arange(6) / 5, atol=0.06)
    assert attention.count('class="pad"') == 1
    assert "frame 3: 20%" in attention and "frame 5 · padded" in attention


def regressor(title: str = "sequence 09", **changes: object) -> ClipFigure:
    """A clip of a network without classes, with all that is drawn of one."""
    depth = np.full((6, 8, 8, 3), 90, np.uint8)
    values = {"tx": np.array([np.nan, 1, 2, np.nan, -2, 5]), "ty": np.zeros(6)}
    fields = {
        "label": None,
        "probabilities": (),
        "attention": None,
        "target": "-view_synthesis_loss",
        "value": -0.2134,
        "panels": {"depth": depth},
        "lines": {"translation (m)": values, "nothing": {"a": np.full(6, np.nan)}},
        "doubts": {"Grad-CAM, layer trunk": "low gradient", "Flat": "low gradient"},
    }
    return clip(title, **{**fields, **changes})


def test_a_regressor_has_a_value_and_no_classes(tmp_path):
    text = write_report(tmp_path, [entry(tmp_path, regressor(), "a")]).read_text(encoding="utf-8")
    page = Page(text)
    words = " ".join(" ".join(page.text).split())
    assert "explaining -view_synthesis_loss = -0.213 deletion 0.12" in words
    assert "predicted right" not in words and "true class" not in words.split("Methods")[0]
    assert not page.all("table")
    assert [a["class"] for a in page.all("article")] == ["card unknown broad"]
    assert "faint: low gradient no evidence" not in words  # one doubt a map
    assert "Grad-CAM, layer trunk faint: low gradient" in words
    assert "Flat no evidence: map is zero everywhere" in words
    assert re.findall(r'<svg class="(\w+)"', text) == ["plot", "faint"]


def test_plots_have_their_values_and_gaps(tmp_path):
    text = write_report(tmp_path, [entry(tmp_path, regressor(), "a")]).read_text(encoding="utf-8")
    (plot,) = re.findall(r'<svg class="plot".*?</svg>', text, flags=re.S)
    lines = re.findall(r'<polyline class="(\w+)" points="([^"]*)"', plot)
    assert [kind for kind, _ in lines] == ["line1", "line0", "line0"]  # the first series on top
    zero, first, alone = ([tuple(map(float, p.split(","))) for p in points.split()]
                          for _, points in lines)  # fmt: skip
    assert [x for x, _ in zero] == [0.5, 1.5, 2.5, 3.5, 4.5]  # the sixth frame is padding
    assert len({y for _, y in zero}) == 1 and [x for x, _ in first] == [1.5, 2.5]
    assert [round(x, 1) for x, _ in alone] == [4.3, 4.7]
    level = zero[0][1]
    for got, value in ((first[0], 1), (first[1], 2), (alone[0], -2)):
        assert got[1] - level == pytest.approx(-38 * value / 4, abs=0.02)  # from -2 to 2
    assert f'y1="{level:.1f}"' in plot  # the dashed line is at zero
    assert "frame 1: tx 1, ty 0" in plot and "frame 3: ty 0" in plot and "padded" in plot
    assert "<em>no values</em>" in text and "in plots zero" in text


def test_names_of_plots_and_reasons_cannot_become_markup(tmp_path):
    figure = regressor(
        lines={EVIL: {EVIL: np.arange(6.0)}}, doubts={"Grad-CAM, layer trunk": EVIL}, target=EVIL
    )
    text = write_report(tmp_path, [entry(tmp_path, figure, "a")]).read_text(encoding="utf-8")
    assert "<script>alert" not in text and len(Page(text).all("script")) == 1
    assert "".join(Page(text).text).count(EVIL) >= 3 + 6  # in the plot's titles of frames as well


@pytest.mark.slow
def test_hundreds_of_clips_do_not_load_at_once(tmp_path):
    entries = [entry(tmp_path, clip(str(n)), str(n)) for n in range(300)]
    path = write_report(tmp_path, entries)
    page = Page(path.read_text(encoding="utf-8"))
    assert [v["preload"] for v in page.all("video")].count("metadata") <= 4
    assert len(page.all("video")) == 300 and path.stat().st_size < 3_000_000


def test_files_that_are_missing_or_elsewhere_are_refused(tmp_path):
    made = entry(tmp_path, clip(), "a")
    with pytest.raises(FileNotFoundError, match="missing"):
        write_report(tmp_path, [dataclasses.replace(made, video=Path("no.mp4"))])
    with pytest.raises(ValueError, match="outside"):
        write_report(tmp_path / "inner", [made])
    with pytest.raises(ValueError, match="outside"):
        write_report(tmp_path, [dataclasses.replace(made, data=Path("../x.npz"))])
    assert not list(tmp_path.glob("*index*"))


def test_an_empty_report_is_a_page(tmp_path):
    text = write_report(tmp_path, [], skipped={"a": "b"}).read_text(encoding="utf-8")
    assert "0 clips · 1 skipped" in text


PROBE = """
<script>
addEventListener("load", () => {
  const video = document.querySelector("video");
  const tell = (what) => console.log("FOUND" + btoa(JSON.stringify(what)) + "END");
  const go = () => {
    const box = video.getBoundingClientRect();
    const button = document.querySelector(".play");
    const bars = document.querySelectorAll("svg.attention rect.hit");
    video.addEventListener("seeked", () => setTimeout(() => tell({
      ready: video.readyState, duration: video.duration,
      size: [video.videoWidth, video.videoHeight],
      ratio: box.width / box.height, controls: video.controls, button: button.hidden,
      time: video.currentTime, now: document.querySelector("rect.now").getAttribute("x"),
      sheets: [...document.images].every((i) => i.complete && i.naturalWidth > 0),
    }), 200), { once: true });
    bars[3].dispatchEvent(new MouseEvent("click", { bubbles: true }));
  };
  video.addEventListener("error", () => tell({ error: video.error.message }));
  if (video.readyState >= 2) go(); else video.addEventListener("loadeddata", go, { once: true });
});
</script>
"""


def chromium() -> str:
    """The browser of this machine; a test that asks for it skips where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    return browser


def ask_chromium(browser: str, address: str, folder: Path, *flags: str) -> dict[str, Any]:
    """What a probe writes to the console; real time, as virtual time outruns the video decoder.

    Besides "log", all that Chromium said, and "megabytes", the memory of what renders the page.
    """
    command = [
        browser,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
    ]
    command += ["--enable-logging=stderr", "--remote-debugging-port=0"]  # the port keeps it open
    command += [*flags, f"--user-data-dir={folder / 'profile'}", address]
    log = folder / "chromium.log"
    with log.open("wb") as sink, subprocess.Popen(command, stdout=sink, stderr=sink) as process:
        try:
            for _ in range(600):
                if found := re.search(rb"FOUND([A-Za-z0-9+/=]*)END", log.read_bytes()):
                    told = json.loads(base64.b64decode(found[1]))
                    said = log.read_text(errors="replace")
                    return told | {"log": said, "megabytes": _renderer(folder)}
                time.sleep(0.1)
        finally:
            process.terminate()
    raise AssertionError(f"told nothing in 60 s\n{log.read_text(errors='replace')[-2000:]}")


def loads(page: Path, probe_text: str, folder: Path) -> Iterator[dict[str, Any]]:
    """What a probe says of a page at two widths, of the first of three loads below 2 s, if any."""
    browser, probe = chromium(), page.with_name("probe.html")
    probe.write_text(page.read_text().replace("</body>", probe_text + "</body>"))
    for width in (1280, 1920):
        profile = folder / str(width)
        profile.mkdir()
        for _ in range(3):  # tests share the machine: one of three loads has it for itself
            told = ask_chromium(browser, probe.as_uri(), profile, f"--window-size={width},900")
            if told["loaded"] < 2000:
                break
        yield told


def _renderer(folder: Path) -> float:
    """Megabytes of the largest process that renders pages for the profile in a folder (Pss)."""
    found = [0.0]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
            lines = path.with_name("smaps_rollup").read_text()
        except OSError:
            continue
        if b"--type=renderer" in words and str(folder).encode() in words:
            found += [int(kb) / 1024 for kb in re.findall(r"^Pss:\s+(\d+)", lines, re.M)]
    return max(found)


def test_chromium_plays_the_video_and_a_bar_seeks(tmp_path):
    browser = chromium()
    figure = clip()
    path = write_report(tmp_path, [entry(tmp_path, figure, "a b#1%", real_files=True)])
    probe = tmp_path / "probe.html"
    probe.write_text(path.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"))
    told = ask_chromium(browser, probe.as_uri(), tmp_path)
    video = drawn_video(figure)
    height, width = video.frames.shape[1:3]
    assert told["ready"] >= 2 and told["size"] == [width, height] and told["sheets"]
    assert told["duration"] == pytest.approx(6 / 4, abs=0.01)
    assert told["now"] == "3" and told["time"] == pytest.approx(3.5 / 4, abs=0.01)
    # the page draws the bars itself and shows of the video what is above them
    assert 1.1 < video.shape / (width / height) < 3 and not told["controls"] and not told["button"]
    assert told["ratio"] == pytest.approx(video.shape, rel=0.01)


def whole(folder: Path, real_files: bool = False) -> ReportEntry:
    """A video of 6 bins at 4 a second, from its second 10 on, with a track of two stretches."""
    figure = dataclasses.replace(
        clip(),
        whole=True,
        times=10 + np.arange(6) / 4,
        lines={"probability": {EVIL: np.arange(6) / 6}},
        extent="10-11 s of 99 s",
    )
    return dataclasses.replace(
        entry(folder, figure, "a", real_files),
        track=[(EVIL, 10.0, 10.75, 0.5), ("rest", 10.75, 11.5, 0.912)], offset=10.0,
        shortfall="only 11.5 s of 99 s could be read",
    )  # fmt: skip


def test_seconds_of_a_short_stretch_are_told_apart() -> None:
    figure = dataclasses.replace(clip(), whole=True, times=10 + np.arange(6) / 4)
    step, texts = Strip(figure, 900, 100, 700)._ticks()
    assert texts[::step] == ["0:10.0", "0:10.3", "0:10.5", "0:10.8", "0:11.0", "0:11.3"]


def test_a_whole_video_has_its_classes_over_time(tmp_path):
    text = write_report(tmp_path, [whole(tmp_path)]).read_text(encoding="utf-8")
    page = Page(text)
    assert "<script>alert" not in text and len(page.all("script")) == 1
    places = [button["data-s"] for button in page.all("button") if "data-s" in button]
    assert places == ["0.000", "0.750"] * 2  # in the row and in the list
    said = "".join(page.text)
    assert "rest 0:11-0:12 .91" in said and "10-11 s of 99 s" in said
    assert "Share of the video in each 0.25 s" in said and "only 11.5 s of 99 s" in said
    assert "frame 3" not in said


def test_chromium_seeks_to_a_stretch(tmp_path):
    browser = chromium()
    path = write_report(tmp_path, [whole(tmp_path, real_files=True)])
    probe, row = tmp_path / "probe.html", "svg.attention rect.hit"
    clicked = PROBE.replace(f'"{row}"', '".stretches button"').replace("bars[3]", "bars[1]")
    probe.write_text(path.read_text(encoding="utf-8").replace("</body>", clicked + "</body>"))
    told = ask_chromium(browser, probe.as_uri(), tmp_path)
    assert told["now"] == "3" and told["time"] == pytest.approx(0.751, abs=0.01)
