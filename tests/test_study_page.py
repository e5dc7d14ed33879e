"""The page of a study: complete, safe, quick with many clips and methods, and it works."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from test_report import EVIL, Page, chromium, loads
from test_study import MEASURES, STUDY, Clips, made_up, network

from lightning_cam.data.core.clips import Clip
from lightning_cam.errors import VideoReadError
from lightning_cam.explaining.kept_map import KeptMap
from lightning_cam.study.design import Design
from lightning_cam.study.kept_maps import map_path
from lightning_cam.study.networks import Network
from lightning_cam.study.page import clip_sheets
from lightning_cam.study.page.agreement_matrix import verdict_of
from lightning_cam.study.page.clip_sheets import ClipSheet
from lightning_cam.study.rankings import Estimate
from lightning_cam.study.results import Results
from lightning_cam.study.study_files import write_study
from lightning_cam.viz.method_sheet import MapTile, SheetLayout, draw_methods

_TITLES = (
    "GradCAM", "GradCAMPlusPlus", "HiResCAM", "LayerCAM", "XGradCAM", "ScoreCAM", "Gradient",
    "GradientXInput", "SmoothGrad", "IntegratedGradients", "GuidedBackprop", "GuidedGradCAM",
    "RandomMap", "CentreMap", "MotionMap",
)  # fmt: skip
METHODS: dict[str, Any] = {name.lower(): {"_target_": f"lightning_cam.{name}"} for name in _TITLES}
_METRICS = "lightning_cam.metrics"
MANY: dict[str, Any] = MEASURES | {
    "pointing_actor": {"_target_": f"{_METRICS}.PointingHit"},
    "ap_actor": {"_target_": f"{_METRICS}.AveragePrecision"},
    "gini": {"_target_": f"{_METRICS}.GiniIndex"},
    "random_weights": {"_target_": f"{_METRICS}.WeightRandomisation"},
}
_SPANS = (-0.3, 0.4, 0.5, 0.2, -0.1, -0.2)  # best less worst method, by each measure
CLAIMS: dict[str, Any] = {
    "agree": {"says": "Deletion and insertion agree", "agree": ["deletion", "insertion"]},
    "best": {"says": "Grad-CAM localises best", "best": "gradcam", "measures": ["ap_actor"]},
    "over": {"says": "Grad-CAM beats noise", "better": "gradcam", "worse": "randommap"},
    "low": {"says": "Gini is low", "value": "gradcam", "measures": ["gini"], "below": 0.2},
}


class Moving(Clips):
    """Clips of a bright square that moves over noise, with its mask."""

    def __init__(self, count: int, frames: int, size: int, name: str = "clip") -> None:
        self.clips = [Clip(Path(f"{name} {n}"), f"{name} {n}") for n in range(count)]
        self.frames, self.size = frames, size

    def mask(self, n: int) -> np.ndarray:
        """(T, H, W) of a clip."""
        mask = np.zeros((self.frames, self.size, self.size), bool)
        for t in range(self.frames // 4, 3 * self.frames // 4):
            x = (3 * n + 2 * t) % (self.size - self.size // 4)
            mask[t, self.size // 3 : 2 * self.size // 3, x : x + self.size // 4] = True
        return mask

    def __getitem__(self, n: int) -> dict[str, Any]:
        mask = torch.from_numpy(self.mask(n))
        video = torch.rand(3, *mask.shape, generator=torch.Generator().manual_seed(n)) * 0.4
        return {
            "video": video + 0.6 * mask, "label": torch.tensor(1), "clip_id": self.clips[n].clip_id,
            "valid": torch.arange(self.frames) < self.frames - 1, "mask": mask,
            "action": mask.flatten(1).any(1), "error": "",
        }  # fmt: skip


def made_study(
    folder: Path, clips: int, *, frames: int = 4, size: int = 16, name: str = "clip", **more: Any
) -> tuple[Results, list[Network]]:
    """Rows and kept maps of a study that nobody ran: the further down a method, the noisier."""
    rng = np.random.default_rng(0)
    settings = {**STUDY, "methods": METHODS, "sweeps": None, "clips": clips, "sweep_clips": None}
    design = Design.of({**settings, "claims": CLAIMS, **more}, MANY)
    data, names = Moving(clips, frames, size, name), list(METHODS)
    net = network(design, dataset=data)

    def score(net: Any, name: str, n: int, cell: str) -> tuple[float, ...]:
        good = 1 - names.index(cell) / len(names)
        return tuple(0.4 + s * good + rng.normal(0, 0.05) + 0.05 * (n % 3) for s in _SPANS)

    results = made_up(design, [net], score)
    for row in results.rows:
        place = names.index(row["cell"])
        row |= {"seconds": 0.01 * 1.6**place, "forwards": 1 + place**2, "target": "a"}
        row["p_target"] = 0.9
        row["beside"] |= {
            "random_weights_between": 0.3 + rng.normal(0, 0.05),
            "random_weights_excess_early": 0.02 * place + rng.normal(0, 0.02),
            "random_weights_excess_last": 0.0,
        }
        for k in range(1, 5):
            stage = 0.9 - 0.15 * k + 0.02 * place + rng.normal(0, 0.1)
            row["beside"][f"random_weights_stage_{k}"] = stage
        noise = rng.random((frames, size // 2, size // 2)) * place / 8
        heat = data.mask(row["index"])[:, ::2, ::2] + noise
        key = (row["network"], row["trained"], row["input"], row["index"], row["cell"])
        kept = KeptMap((heat / heat.max()).astype(np.float16), 0.0, 1.0, False)
        kept.write(map_path(folder, key))
    return results, [net]


def test_the_page_has_it_all_and_every_reference_is_there(tmp_path: Path) -> None:
    results, networks = made_study(tmp_path, 4, shown=2)
    place = ("Net", "", "", 0)
    KeptMap(np.zeros((4, 8, 8), np.float16), 0.0, 0.0, False).write(
        map_path(tmp_path, (*place, "hirescam"))
    )
    map_path(tmp_path, (*place, "gradient")).unlink()
    text = write_study(tmp_path, results, networks, "explain").read_text()
    assert text.count(">HiResCAM: no evidence<") == text.count(">Gradient: no map<") == 1
    page = Page(text)
    for reference in page.references:
        assert reference.startswith("./") and (tmp_path / unquote(reference)).is_file(), reference
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|//cdn|@import", text)
    assert len(page.all("video")) == 2 and len(list((tmp_path / "media").glob("*.mp4"))) == 2
    assert {v["preload"] for v in page.all("video")} == {"none"}  # 30 of them load nothing
    words = " ".join(" ".join(page.text).split())
    for said in (
        "Verdicts", "Deletion and insertion agree", "Two measures against each other",
        "Do measures agree?", "Cost against quality", "Do maps depend on the weights?",
        "Grad-CAM", "clips alike 0.", "★ Front", "Heat over time",
    ):  # fmt: skip
        assert said in words, said
    rows = re.findall(r'<tr( class="baseline")? data-method="(\w+)">', text)
    assert [key for _, key in rows] == list(METHODS) and sum(bool(b) for b, _ in rows) == 3
    (found,) = re.findall(r'class="data">(.*?)</script>', text, re.S)
    data = json.loads(found)
    assert len(data["methods"]) == 15 and data["axes"][-2]["id"] == "seconds"
    assert data["methods"][0]["at"]["seconds"] == [0.01]
    assert text.count("<polygon") == 12  # a sanity curve for each method that is no baseline
    curves = re.findall(r'<polyline class="line(\d)" points="([^"]*)"', text)
    assert len(curves) == 2 * 15 * 2 and {kind for kind, _ in curves} == {"0", "1"}
    assert all(len(points.split()) == 3 for _, points in curves)


def test_names_cannot_become_markup_on_a_study_page(tmp_path: Path) -> None:
    results, networks = made_study(tmp_path, 2, name=EVIL)
    object.__setattr__(results.design.cells["gradcam"], "title", EVIL)
    text = write_study(tmp_path, results, networks, EVIL).read_text()
    assert len(Page(text).all("script")) == 2 and "<script>alert" not in text
    assert "".join(Page(text).text).count(EVIL) >= 8


def test_no_clips_where_maps_are_gone_and_where_none_is_asked_for(tmp_path: Path) -> None:
    results, networks = made_study(tmp_path, 2)
    for path in sorted((tmp_path / "maps").rglob("*.npz")):
        path.unlink()
    text = write_study(tmp_path, results, networks, "").read_text()
    assert "<video" not in text and text.count("its maps are no longer there") == 2
    results, networks = made_study(tmp_path / "b", 2, shown=0)
    assert "<article" not in write_study(tmp_path / "b", results, networks, "").read_text()


class Failing(Moving):
    """The first clip is gone, the second is damaged."""

    def __getitem__(self, n: int) -> dict[str, Any]:
        if n == 0:
            raise VideoReadError("clip 0", "gone")
        return {**super().__getitem__(n), "error": "cut off" if n == 1 else ""}


def test_a_clip_that_cannot_be_shown_costs_no_page_and_is_named(tmp_path: Path) -> None:
    results, (net,) = made_study(tmp_path, 4)
    broken = replace(net, dataset=Failing(4, 4, 16), data=Unseen())  # type: ignore[arg-type]
    text = write_study(tmp_path, results, [broken], "").read_text()
    for name, why in (("0", "gone"), ("1", "cut off"), ("2", "RuntimeError: no look")):
        assert re.search(f"<li><b>clip {name}</b> [^<]*{why}", text), name
    assert "<video" not in text and 'data-method="gradcam"' in text


class Unseen:
    """Data that cannot say how they look."""

    def to_frames(self, clip: Any) -> Any:
        raise RuntimeError("no look")


def test_what_agrees_what_opposes_and_what_nobody_knows() -> None:
    assert verdict_of(Estimate(0.5, 0.1, 0.8)) == "agree"
    assert verdict_of(Estimate(-0.5, -0.8, -0.1)) == "oppose"
    assert verdict_of(Estimate(0.5, -0.1, 0.8)) == "unsure"
    assert verdict_of(Estimate(0.5, np.nan, np.nan)) == "unsure"


@pytest.mark.parametrize(
    ("count", "height", "width"),
    [(2, 8, 8), (16, 112, 112), (28, 90, 160), (16, 128, 416), (5, 300, 100)],
)
def test_tiles_of_a_sheet_do_not_overlap_and_fit_a_screen(
    count: int, height: int, width: int
) -> None:
    layout = SheetLayout.of(count, height, width)
    high, wide = layout.size
    assert wide <= 1202 and high <= 800 and layout.columns * layout.rows >= count
    frames = np.full((2, height, width, 3), 40, np.uint8)
    sheet = draw_methods(frames, [None] * (count - 1), kept=np.ones(2, bool))
    assert sheet.shape == (2, high, wide, 3)
    covered = (sheet[0] != 255).all(-1).sum()
    assert covered == count * layout.height * layout.width


def test_heat_and_the_truth_are_drawn_where_they_are() -> None:
    frames = np.full((2, 40, 40, 3), 90, np.uint8)
    heat, mask = np.zeros((2, 40, 40), np.float32), np.zeros((2, 40, 40), bool)
    heat[1, 10:20, 10:20], mask[0, 25:35, 25:35] = 1, True
    layout = SheetLayout.of(2, 40, 40)
    sheet = draw_methods(frames, [MapTile(heat)], kept=np.array([True, True]), truth=mask)
    top, left = layout.corner(1)
    top += layout.band
    tile = sheet[:, top : top + layout.height, left : left + layout.width]
    middle = int(15 * layout.height / 40)
    assert (tile[1, middle, middle] != 90).any()  # hot in the second frame only
    assert (tile[0, middle, middle] == 90).all()
    assert (tile[0] == 255).all(-1).any() and not (tile[1] == 255).all(-1).any()


PROBE = """
<script>
addEventListener("load", () => setTimeout(async () => {
  const wait = (time) => new Promise((done) => setTimeout(done, time));
  const { loadEventEnd, navigationStart } = performance.timing;
  const wide = document.documentElement.scrollWidth - innerWidth;
  const heads = document.querySelectorAll("table.sortable thead button");
  const first = () => document.querySelector("table.sortable tbody tr").dataset.method;
  heads[2].click(); const lowest = first(); heads[2].click(); const highest = first();
  const charts = [...document.querySelectorAll(".chart")];
  dispatchEvent(new Event("beforeprint"));  // diagrams that nobody has scrolled to are printed too
  const printed = charts.map((c) => c.querySelectorAll("g.method").length);
  for (const chart of charts) { chart.scrollIntoView(); await wait(300); }
  const dots = charts.map((c) => c.querySelectorAll("g.method").length);
  document.querySelector("g.method").focus();
  const said = charts[0].querySelector("figcaption").textContent;
  const lit = document.querySelectorAll("tr.lit").length;
  const video = document.querySelector("video");
  const button = document.querySelector(".player button");
  video.scrollIntoView();
  await wait(300);
  button.click();
  for (let n = 0; n < 50 && (video.paused || !video.currentTime); n++) await wait(100);
  const playing = button.textContent.includes("pause"), start = video.currentTime;
  for (let n = 0; n < 50 && video.currentTime === start; n++) await wait(100);
  const moved = video.currentTime !== start;
  button.click();
  const posters = [...document.querySelectorAll("video")].filter((v) => v.poster).length;
  console.log("FOUND" + btoa(JSON.stringify({ loaded: loadEventEnd - navigationStart, wide, lowest,
    highest, dots, printed, lit, said: encodeURIComponent(said), playing, moved, posters,
    size: [video.videoWidth, video.videoHeight] })) + "END");
}, 300));
</script>
"""


def first_again(write: Callable[..., ClipSheet]) -> Callable[..., ClipSheet]:
    """Draws the first clip; a browser reads as much where the others are copies of its files."""
    drawn: list[ClipSheet] = []

    def sheet(stem: Path, *rest: Any) -> ClipSheet:
        if not drawn:
            drawn.append(write(stem, *rest))
        video, poster = (stem.with_name(f"{stem.name}.{end}") for end in ("mp4", "png"))
        for mine, first in ((video, drawn[0].video), (poster, drawn[0].poster)):
            if mine != first:
                shutil.copy(first, mine)
        *_, rows = rest
        title = next(iter(rows.values()))["clip_id"]
        return replace(drawn[0], title=title, video=video, poster=poster, rows=rows)

    return sheet


@pytest.mark.slow
def test_thirty_clips_of_fifteen_methods_load_quickly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chromium()  # or it is skipped
    monkeypatch.setattr(clip_sheets, "_write", first_again(clip_sheets._write))
    results, networks = made_study(tmp_path, 30, frames=16, size=112, shown=30)
    page = write_study(tmp_path, results, networks, "explain")
    assert len(list((tmp_path / "media").glob("*.mp4"))) == 30
    for told in loads(page, PROBE, tmp_path):
        check_what_a_browser_says(told)


def check_what_a_browser_says(told: dict[str, Any]) -> None:
    log = told.pop("log")
    print(told)
    assert not re.search(r"CONSOLE.*(Uncaught|[Ee]rror)", log), log
    assert told["loaded"] < 2000 and 0 < told["megabytes"] < 300, told
    assert told["wide"] <= 0, told  # nothing to scroll sideways
    assert (told["lowest"], told["highest"]) == ("gradcam", "motionmap")
    assert told["dots"] == told["printed"] == [15, 15] and told["lit"] == 1
    assert "Deletion" in unquote(told["said"])
    assert told["posters"] < 30 and told["playing"] and told["moved"], told
    assert told["size"] == [*reversed(SheetLayout.of(16, 112, 112).size)]
