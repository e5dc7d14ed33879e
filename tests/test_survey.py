"""A whole data set explained: shards, findings, page; and a watermark that is found unasked."""

from __future__ import annotations

import csv
import functools
import importlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from test_report import EVIL, Page, chromium, loads
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.attribution.columns import Columns, Head
from lightning_cam.commands import run_explain
from lightning_cam.commands.search import composed
from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.dataset import SampleDataset
from lightning_cam.errors import ConfigError, UserError, VideoReadError
from lightning_cam.explaining.kept_map import KeptMap
from lightning_cam.explaining.question import Question
from lightning_cam.explaining.sharing import ALONE
from lightning_cam.metrics import energy_inside
from lightning_cam.survey import findings, run, shards
from lightning_cam.survey.batches import BatchExplainer, _truth
from lightning_cam.survey.findings import Findings, Row, Seen
from lightning_cam.survey.page import page_data, write_media, write_survey_page
from lightning_cam.survey.run import SurveyRun, check_survey, spread_order, survey_data_set
from lightning_cam.survey.shards import ClipRecord, read_shard, shard_files

NAMES = ["walk", "jump", "wave"]
CAM = {"gradcam": lc.GradCAM(), "noise": lc.RandomMap()}
BROKEN, INFINITE = 5, 6


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv3d(3, 6, 3, (1, 2, 2), 1), nn.Linear(6, 3)

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.conv(clip).relu().mean((2, 3, 4)))


class Task:
    """A network as `explain.py` gets it."""

    def __init__(self, net: nn.Module, layer: str = "conv", names: Sequence[str] = NAMES) -> None:
        self.net, self.layer, self.names = net.eval(), layer, list(names)
        self.device = torch.device("cpu")

    def explainable(self, batch: Any = None) -> lc.Explainable:
        return lc.Explainable.of(self.net, [self.layer], self.names)


class Rows(SampleDataset[Clip]):
    """Clips of noise with a truth; one cannot be read, one is not finite."""

    def __init__(self, count: int, name: str = "clip") -> None:
        super().__init__([Clip(Path(f"{n}.mp4"), f"{name} {n}", n % 3) for n in range(count)])
        self.stop_at = -1

    def _sample(self, index: int, seed: Any) -> dict[str, Any]:
        if index == self.stop_at:
            raise KeyboardInterrupt
        if index == BROKEN:
            raise VideoReadError("5.mp4", "cut off")
        return self._blank(index, "", index)

    def _missing(self, index: int, error: str) -> dict[str, Any]:
        return self._blank(index, error, -1)

    def _blank(self, index: int, error: str, label: int) -> dict[str, Any]:
        video = torch.rand(3, 4, 20, 16, generator=torch.Generator().manual_seed(index))
        mask = torch.zeros(4, 20, 16, dtype=torch.bool)
        mask[1:3, 5:10, 4:9] = True
        return {
            "video": video * (torch.inf if index == INFINITE else 1), "mask": mask,
            "label": torch.tensor(-1 if label < 0 else label % 3), "time_s": torch.arange(4) / 4.0,
            "valid": torch.ones(4, dtype=torch.bool), "clip_id": f"clip {index}", "error": error,
        }  # fmt: skip


def surveyed(folder: Path, data: Rows, methods: Any = CAM, **more: Any) -> Path | None:
    order = spread_order(data, range(len(data)))
    titles = [clip.clip_id for clip in data.clips]
    question = more.pop("question", Question())
    explainer = BatchExplainer(Task(Net()), object(), data, titles, methods, question)  # type: ignore[arg-type]
    return SurveyRun(folder, explainer, order, {"date": "now"}, "explain", **more).go()


def files_in(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "CLIPS", 16)
        patch.setattr(findings, "FEWEST", 12)
        folder = tmp_path_factory.mktemp("whole")
        surveyed(folder, Rows(44))
    return folder


def test_maps_come_back_from_a_folder(whole: Path) -> None:
    maps = lc.load(whole)
    assert len(maps) == 42 and "clip 5" not in maps and set(maps["clip 7"]) == set(CAM)
    clip = Rows(44)[7]["video"][None]
    for name, method in CAM.items():
        kept = maps["clip 7"][name]
        e = lc.explain(Task(Net()).explainable(), method, clip, 1)
        close = float(e.heatmap.abs().max()) * (2**-10)
        if name == "gradcam":  # noise is drawn for a batch
            torch.testing.assert_close(kept.heatmap, e.heatmap, rtol=0, atol=close)
            assert kept.method == method and kept.native == e.native and kept.caption == e.caption
            assert kept.doubts == e.doubts
        torch.testing.assert_close(kept.outputs, e.outputs, rtol=1e-5, atol=1e-6)
        assert int(kept.target) == 1 and kept.shown is not None
        assert kept.shown.frames(0)[0].shape == (4, 20, 16, 3)
    assert max(path.stat().st_size for path in (whole / "maps").iterdir()) < 16 * 20_000


def test_a_clip_that_fails_costs_itself_and_is_named(whole: Path) -> None:
    told = (whole / "clips.csv").read_text()
    assert re.search(r"clip 5,.*cut off", told) and re.search(r"clip 6,.*not finite", told)
    assert told.count("\n") == 1 + 2 * 42 + 2
    rows = {row["clip"]: row for row in csv.DictReader(told.splitlines())}
    assert all(row["shard"] in "012" for row in rows.values()) and rows["clip 5"]["error"]
    records = [r for path in shard_files(whole).values() for r in read_shard(path)[1]]
    of = {record.index: record for record in records}
    assert sorted(of) == list(range(44)) and of[5].error and not of[5].maps
    sample = Rows(44)[9]
    inside = energy_inside(lc.load(whole)["clip 9"]["gradcam"].heatmap, sample["mask"][None])
    assert of[9].maps["gradcam"].inside == pytest.approx(float(inside), abs=0.01)
    assert of[9].even == pytest.approx(2 * 25 / (4 * 320), abs=1e-4)


@pytest.mark.parametrize("count", [2, 3])
def test_any_number_of_processes_writes_the_same_files(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(run, "CLIPS", 16)
    monkeypatch.setattr(findings, "FEWEST", 12)
    monkeypatch.setenv("WORLD_SIZE", str(count))
    pages = []
    for rank in reversed(range(count)):
        monkeypatch.setenv("RANK", str(rank))
        pages.append(surveyed(tmp_path, Rows(44)))
    assert pages[:-1] == [None] * (count - 1) and pages[-1] == tmp_path / "index.html"
    assert files_in(tmp_path) == files_in(whole)


def test_a_stop_keeps_what_is_done_and_the_same_command_goes_on(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "CLIPS", 16)
    monkeypatch.setattr(findings, "FEWEST", 12)
    data = Rows(44)
    data.stop_at = spread_order(data, range(44))[28]
    with pytest.raises(SystemExit):
        surveyed(tmp_path, data)
    assert "24 of 44 clips are explained" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "maps").iterdir()} == {
        "shard_0000.npz", "shard_0001.begun.npz"}  # fmt: skip
    assert len(lc.load(tmp_path)) in (22, 23, 24)
    surveyed(tmp_path, Rows(44), end=0.0)  # no minute is left
    assert "the time is up: 24 of 44" in capsys.readouterr().out
    surveyed(tmp_path, Rows(44))
    assert files_in(tmp_path) == files_in(whole)


class Picky(lc.GradCAM):
    """Fails with some clips."""

    def __call__(self, model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
        if bool((clip[:, 0, 0, 0, 0] > 0.5).any()):
            raise RuntimeError("too bright")
        return super().__call__(model, clip, target)


def test_a_method_that_fails_with_a_clip_has_the_others(tmp_path: Path) -> None:
    data = Rows(5)
    surveyed(tmp_path, data, {"picky": Picky(), "gradcam": lc.GradCAM()})
    bright = {f"clip {n}" for n in range(5) if data[n]["video"][0, 0, 0, 0] > 0.5}
    maps = lc.load(tmp_path)
    assert bright and {t for t in maps if "picky" not in maps[t]} == bright and len(maps) == 5
    assert (tmp_path / "clips.csv").read_text().count("too bright") == len(bright)


class Never(lc.GradCAM):
    def __call__(self, model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
        raise RuntimeError("not for this network")


def test_a_method_that_fails_with_all_clips_is_told_of_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    surveyed(tmp_path, Rows(3), {"never": Never(), "gradcam": lc.GradCAM()})
    told = capsys.readouterr().out.splitlines()
    assert "never: no map of the first 3 clips: RuntimeError: not for this network" in told
    assert any(line.startswith("never: 3 of 3 clips have no map") for line in told)
    never, gradcam = page_data(Findings.of(shard_files(tmp_path)))["methods"]
    assert never["rows"] == [None] * 3 and never["missing"] == dict.fromkeys(
        range(3), "RuntimeError: not for this network"
    )
    assert all(gradcam["rows"]) and (never["picture"], gradcam["picture"]) == (1, 2)


class Cinema:
    """Data that cannot show one clip."""

    def to_frames(self, clip: Tensor) -> np.ndarray:
        if bool((clip[:, 0, 0, 0, 0] > 0.5).any()):
            raise RuntimeError("too bright to see")
        return np.zeros((len(clip), *clip.shape[2:], 3), np.uint8)


def test_what_fails_while_the_next_batch_is_explained_costs_its_clip(tmp_path: Path) -> None:
    data = Rows(5)
    titles = [clip.clip_id for clip in data.clips]
    explainer = BatchExplainer(Task(Net()), Cinema(), data, titles, CAM, Question())  # type: ignore[arg-type]
    done = [one for batch in explainer.explained([[0, 1], [2, 3, 4]]) for one in batch.result()]
    bright = [n for n in range(5) if data[n]["video"][0, 0, 0, 0] > 0.5]
    assert [one.record.index for one in done] == list(range(5)) and 0 < len(bright) < 5
    assert [n for n in range(5) if "too bright to see" in done[n].record.error] == bright
    assert all(bool(one.pictures) != bool(one.record.error) for one in done)


@pytest.mark.parametrize("target", ["true", "predicted", "top2", "jump", None])
def test_a_batch_is_asked_what_each_clip_would_be(target: str | None) -> None:
    model, question = Task(Net()).explainable(), Question(target)
    batch = {"video": torch.rand(4, 3, 4, 8, 8), "label": torch.tensor([2, -1, 0, 1])}
    asked, columns = question.about_all(model, batch, batch["video"])
    found = lc.explain(asked, lc.GradCAM(), batch["video"], columns).target
    for n in range(4):
        row = {key: value[n : n + 1] for key, value in batch.items()}
        one = question.about(model, row, row["video"])
        alone = lc.explain(one.model, lc.GradCAM(), row["video"], one.target).target
        assert found[n] == alone[0]


def test_every_stretch_of_the_order_has_all_classes() -> None:
    data = Rows(300)
    data.clips = [replace(clip, label=int(n >= 200)) for n, clip in enumerate(data.clips)]
    order = spread_order(data, range(300))
    assert sorted(order) == list(range(300))
    for first in range(0, 300, 30):
        assert sum(data.clips[i].label for i in order[first : first + 30]) == pytest.approx(
            10, abs=1
        )


# --- findings ---------------------------------------------------------------------------------


def made_row(index: int, column: str, at: tuple[int, int], **more: Any) -> tuple[Row, Seen]:
    """A clip whose heat is a spot, and its map."""
    rng = np.random.default_rng(index)
    y, x = np.ogrid[:32, :32]
    spot = np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 20) + 0.1 * rng.random((32, 32))
    spot = (spot / spot.sum()).astype(np.float32)
    coarse = np.broadcast_to(spot.reshape(16, 2, 16, 2).sum((1, 3)) / 4, (4, 16, 16))
    time = np.full(16, 1 / 16, np.float32)
    record = ClipRecord(
        index, f"clip {index}", "", label=0, target=0, truth=True, even=0.1, size=(6, 30, 40)
    )
    facts: dict[str, Any] = {
        "predicted": column, "probability": 0.9, "right": True, "inside": 0.3,
        "border": findings.border_share(spot), "centre": findings.centre_share(spot), **more,
    }  # fmt: skip
    return Row(record, column, **facts), Seen.given(spot, time, coarse)


def made_findings(count: int, clips_of: int = 64, name: str = "") -> Findings:
    """Of two classes: in one of them a third of the clips has its heat in a corner."""
    rng, members = np.random.default_rng(0), []
    for n in range(count):
        place = tuple(rng.integers(10, 22, 2).tolist())
        marked = n % 6 == 0
        inside = 0.02 if marked else 0.3
        column = name + ("jump", "walk")[n % 2]
        members.append(made_row(n, column, (3, 28) if marked else place, inside=inside))
    rows = [row for row, _ in members]
    places = {n: divmod(n, clips_of) for n in range(count)}
    found = Findings(
        [r.record for r in rows], places, {"gradcam": "GradCAM"}, {"gradcam": rows}, {}
    )
    found.groups["gradcam"] = findings._groups("gradcam", members)
    return found


def test_maps_in_a_corner_are_a_cluster_that_stands_first(tmp_path: Path) -> None:
    found = made_findings(240)
    first = found.clusters[0]
    assert {row.record.index for row in first.rows} == set(range(0, 240, 6))
    assert (
        first.column == "jump"
        and first.separation > 0.8
        and first.rank > 2 * found.clusters[1].rank
    )
    facts = first.facts()
    assert (
        facts["border"] > 0.5 > facts["border_even"]
        and facts["inside"] < 0.05 < facts["inside_even"]
    )
    assert sum(bool(row.wrong_reason) for row in found.rows["gradcam"]) == 40
    found.write(tmp_path)
    assert (tmp_path / "clusters.csv").read_text().splitlines()[1].startswith("1,jump,gradcam,")
    assert (tmp_path / "clips.csv").read_text().count("True,True") == 0


def test_only_the_class_of_the_clip_can_be_right_for_the_wrong_reason() -> None:
    """Of another one, as by target=CLASS, heat outside of the truth says nothing."""
    found = made_findings(12)
    rows = [replace(r, record=replace(r.record, truth=False)) for r in found.rows["gradcam"]]
    assert {row.wrong_reason for row in rows} == {None}
    others = replace(found, rows={"gradcam": rows})
    assert "2 of 12 right clips" in found.told()[0] and not others.told()


def test_alike_maps_are_one_cluster_and_few_are_none() -> None:
    alike = [made_row(n, "walk", (16, 16)) for n in range(60)]
    few = [made_row(n, "jump", (16, 16)) for n in range(60, 79)]
    walk, jump = findings._groups("gradcam", [*alike, *few])
    assert not walk.clusters and "alike" in walk.note
    assert not jump.clusters and "fewer than 20" in jump.note


class Times(lc.GradCAM):
    """Tells when, not where."""

    title = "Times"

    def __call__(self, model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
        heat = super().__call__(model, clip, target)
        return heat.mean((2, 3), keepdim=True).expand_as(heat)


def test_maps_that_tell_no_places_are_not_said_to_be_beside_the_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    surveyed(tmp_path, Rows(4), {"times": Times()})
    found = Findings.of(shard_files(tmp_path))
    assert all(row.inside is None and row.border is None for row in found.rows["times"])
    assert "truth" not in capsys.readouterr().out
    assert all(group.facts()["border"] is None for group in found.groups["times"])
    data = page_data(found)["methods"][0]
    assert all(not group["map"] and len(group["time"]) == 16 for group in data["classes"])


def test_what_was_explained_may_be_no_class(tmp_path: Path) -> None:
    order = list(range(4))
    model = Task(Net())
    model.explainable = lambda batch=None: replace(  # type: ignore[method-assign]
        lc.Explainable.of(model.net, ["conv"], ["depth", "pose", "loss"]), probability=None
    )
    titles = [f"clip {n}" for n in order]
    explainer = BatchExplainer(model, object(), Rows(4), titles, CAM, Question())  # type: ignore[arg-type]
    page = SurveyRun(tmp_path, explainer, order, {"target": "true class"}, "explain").go()
    found = Findings.of(shard_files(tmp_path))
    assert not found.classes and not found.several and page is not None
    assert "true class" not in page.read_text() and next(iter(found.columns)) in page.read_text()
    assert all(row[1] == row[3] == -1 for row in page_data(found)["methods"][0]["rows"])


@pytest.mark.parametrize(
    ("label", "truth"), [([1, 0, 1], True), ([0, 1, 0], False), ([-1] * 3, None)]
)
def test_classes_that_are_true_by_themselves_are_right_or_wrong(
    label: list[int], truth: bool | None
) -> None:
    assert _truth({"label": torch.tensor([label])}, 0, 3) is truth
    outputs = np.array([-2.0, 3, 0], np.float32)
    one = shards.MapRecord(KeptMap(np.ones((4, 8, 8), np.float16), 0, 1, False), False)
    record = ClipRecord(0, "clip", "", target=0, truth=truth, outputs=outputs)
    columns = Columns(tuple(NAMES), (Head(3, "sigmoid"),))
    row = findings._row(record, one, None, columns, record)
    assert row.right is (None if truth is None else not truth) and row.predicted == "jump"


def test_shares_of_a_map_that_is_even_everywhere() -> None:
    e = lc.Explanation(
        torch.ones(1, 4, 8, 8), torch.tensor([0]), torch.zeros(1, 2), {}, lc.GradCAM()
    )
    one = shards.MapRecord(KeptMap.of(e), False)
    seen = Seen.of(one, 4)
    assert seen is not None
    space = seen.space.astype(np.float32)
    assert findings.border_share(space) == pytest.approx(findings.EVEN_BORDER) == 0.4375
    assert findings.centre_share(space) == pytest.approx(0.25)
    np.testing.assert_allclose(seen.time, 1 / 16, rtol=1e-5)
    nothing = replace(e, heatmap=torch.zeros(1, 4, 8, 8))
    assert Seen.of(shards.MapRecord(KeptMap.of(nothing), False), 4) is None


# --- settings and files -------------------------------------------------------------------------


@functools.cache
def plain() -> Any:
    return OmegaConf.to_container(composed("explain", ["ckpt=a.ckpt", "survey=all"]))


def settings(**more: Any) -> dict[str, Any]:
    return {**plain(), **more}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("clips", 9, "survey= says which"),
        ("video", "a.mp4", "says nothing in a survey"),
        ("start", 3, "says nothing in a survey"),
        ("fps", 3, "says nothing in a survey"),
        ("ckpt", ["a", "b"], "of one network"),
        ("ckpt", {"x": "a"}, "of one network"),
        ("target", "top3", "one question"),
        ("target", ["a", "b"], "one question"),
        ("survey", 0, "survey=0 must be"),
        ("minutes", -1, "minutes=-1 must be"),
    ],
)
def test_settings_that_make_no_sense(key: str, value: Any, said: str) -> None:
    check_survey(settings())
    with pytest.raises(ConfigError, match=said):
        check_survey(settings(**{key: value}))


@pytest.mark.parametrize(("value", "asked"), [("all", True), (5, True), (0, True), (None, False)])
def test_what_asks_for_a_survey(value: Any, asked: bool) -> None:
    work = run_explain._work(settings(survey=value), ALONE)
    assert (work is survey_data_set) == asked


def test_a_missing_package_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        check_survey(settings())


def test_a_shard_that_is_damaged_is_named(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "maps" / "shard_0000.npz"
    path.parent.mkdir()
    good = (whole / "maps" / "shard_0000.npz").read_bytes()
    for bad in (b"", good[: len(good) // 2]):
        path.write_bytes(bad)
        with pytest.raises(UserError, match=r"shard_0000.npz cannot be read"):
            read_shard(path)
    with pytest.raises(UserError, match="no maps of a survey"):
        lc.load(tmp_path / "maps")


# --- the page -----------------------------------------------------------------------------------

PROBE = """
<script>
addEventListener("load", () => setTimeout(async () => {
  const wait = (time) => new Promise((done) => setTimeout(done, time));
  const { loadEventEnd, navigationStart } = performance.timing;
  const wide = document.documentElement.scrollWidth - innerWidth;
  const rows = () => document.querySelectorAll(".survey tbody tr").length;
  const found = () => document.getElementById("found").textContent;
  const set = (id, value) => {
    const e = document.getElementById(id);
    e.value = value;
    e.dispatchEvent(new Event("input"));
  };
  const begun = [rows(), found()];
  document.getElementById("next").click(); const second = found();
  set("search", "clip 9998"); const searched = [rows(), found()]; set("search", "");
  set("verdict", "reason"); const reason = found(); set("verdict", "");
  document.querySelector(".group-card .name").click(); const cluster = found();
  const seen = document.querySelector(".survey tbody img");
  seen.scrollIntoView();
  for (let n = 0; n < 60 && !seen.naturalWidth; n++) await wait(100);
  const loaded = [...document.querySelectorAll("img")].filter((i) => i.naturalWidth).length;
  console.log("FOUND" + btoa(JSON.stringify({ loaded: loadEventEnd - navigationStart, wide, begun,
    second, searched, reason, cluster, picture: seen.naturalWidth, images: loaded })) + "END");
}, 300));
</script>
"""


def test_names_cannot_become_markup_on_a_survey_page(tmp_path: Path) -> None:
    found = made_findings(48, name=EVIL)
    found.records = [replace(record, title=f"{record.title} {EVIL}") for record in found.records]
    text = write_survey_page(tmp_path, found, {EVIL: EVIL}, []).read_text()
    assert len(Page(text).all("script")) == 2 and "<script>alert" not in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|//cdn|@import|type=.module", text)
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text, re.S)[0])
    assert len(data["clips"]) == 48 and EVIL in data["clips"][0][0]


@pytest.mark.slow
def test_ten_thousand_clips_open_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chromium()  # or it is skipped
    monkeypatch.setattr(findings, "_MOST_AT_ONCE", 300)
    found = made_findings(10_000)
    frames = np.random.default_rng(0).integers(0, 256, (6, 30, 40, 3), dtype=np.uint8)
    picture = shards.jpeg(np.concatenate([*frames], 1))
    for shard in range(157):
        write_media(tmp_path, shard, [(picture, picture)] * 64)
    page = write_survey_page(tmp_path, found, {"command": "explain"}, [])
    for told in loads(page, PROBE, tmp_path):
        log = told.pop("log")
        print(told)
        assert not re.search(r"CONSOLE.*(Uncaught|[Ee]rror)", log), log
        assert told["loaded"] < 2000 and told["wide"] <= 0, told
        assert told["begun"] == [50, "1-50 of 10000"] and told["second"] == "51-100 of 10000"
        assert told["searched"] == [1, "1-1 of 1"] and told["reason"].endswith("of 1667")
        assert told["cluster"].endswith("of 1667") and told["picture"] == 240, told
        assert told["images"] < 160 and told["megabytes"] < 300, told


@pytest.mark.slow
def test_a_watermark_is_found_that_nobody_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    survey = importlib.import_module("survey")
    found = survey.watermark(tmp_path)
    print(found)
    assert found["of_the_class_marked"] and found["of_the_marked"] >= 0.9
    assert found["of_the_class_s_others"] <= 0.1 and found["of_all_others"] <= 0.1
    assert found["inside"] < found["inside_even"]
