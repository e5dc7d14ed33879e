"""Joined clips and mosaics: what they show, what is known of them, and which are made."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
import torch
from planted import CLASSES, FRAMES, SIZE, Planted, planted_clips
from test_config import composed
from test_study import design_of, network

import lightning_cam as lc
from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.composed import (
    ARRANGEMENTS,
    ComposedClip,
    ComposedDataset,
    Joined,
    Mosaic,
)
from lightning_cam.data.core.dataset import SampleDataset
from lightning_cam.data.core.loading import collate
from lightning_cam.errors import ConfigError, DataError, UnknownNameError, VideoReadError
from lightning_cam.explaining.clip_sources import clips_of_split, find_clips
from lightning_cam.explaining.composed_clips import compose_clips
from lightning_cam.explaining.explain_command import explain_checkpoint
from lightning_cam.explaining.explain_settings import check_explain, check_study
from lightning_cam.explaining.journal import Journal
from lightning_cam.explaining.measured_files import RunMeasurements
from lightning_cam.explaining.question import Question
from lightning_cam.explaining.single_clip import ClipRequest, process_clip
from lightning_cam.metrics import energy_inside
from lightning_cam.study import run_study
from lightning_cam.study.cell_runs import measure_cells
from lightning_cam.study.journal import read_journal
from lightning_cam.study.networks import _composed, _with_clips
from lightning_cam.study.study_command import _explained
from lightning_cam.study.work_items import work_items
from lightning_cam.training.build import build
from lightning_cam.training.checkpoint import KEY, Remember


def sample(n: int, frames: int = 6, valid: int | None = None, size: int = 4) -> dict[str, Any]:
    """Clip n, whose frame t has the value 100 n + t everywhere."""
    shown = torch.arange(frames)
    return {
        "video": (100.0 * n + shown).view(1, -1, 1, 1).expand(1, frames, size, size).clone(),
        "valid": shown < (frames if valid is None else valid),
        "frame_idx": 10 * shown,
        "time_s": 0.5 * shown,
        "black": torch.tensor([-1.0]),
        "label": torch.tensor(n),
        "clip_id": f"c{n}",
        "path": f"c{n}.mp4",
        "error": "",
    }


@pytest.mark.parametrize(
    ("frames", "valid", "shown", "known"),
    [
        (6, (6, 6), [1, 2, 3, 101, 102, 103], 6),
        (5, (5, 5), [1, 2, 101, 102, 103], 5),
        (6, (2, 6), [0, 1, 101, 102, 103, 103], 5),
        (6, (6, 1), [1, 2, 3, 100, 100, 100], 4),
    ],
)
def test_half_a_clip_and_then_half_of_another(
    frames: int, valid: tuple[int, int], shown: list[int], known: int
) -> None:
    parts = [sample(n, frames, count) for n, count in enumerate(valid)]
    both = [Joined()(parts, place) for place in (0, 1)]
    for place, made in enumerate(both):
        assert made["video"][0, :, 0, 0].tolist() == shown
        assert made["valid"].tolist() == [t < known for t in range(frames)]
        of_part = [t < known and step // 100 == place for t, step in enumerate(shown)]
        assert made["action"].tolist() == of_part
        assert torch.equal(made["mask"], made["action"][:, None, None].expand(frames, 4, 4))
        times = made["time_s"][:known].tolist()
        assert all(b - a == 0.5 for a, b in pairwise(times))
        assert made["frame_idx"].tolist() == [10 * (step % 100) for step in shown]
    assert not bool((both[0]["mask"] & both[1]["mask"]).any())
    assert torch.equal(both[0]["action"] | both[1]["action"], both[0]["valid"])


@pytest.mark.parametrize("size", [4, 5])
@pytest.mark.parametrize("full", [False, True])
def test_four_clips_at_a_time(size: int, full: bool) -> None:
    parts = [sample(n, 6, valid, size) for n, valid in enumerate([6, 4, 6, 5])]
    high = 2 * size if full else size
    whole = torch.zeros(6, high, high, dtype=torch.int64)
    for place in range(4):
        made = Mosaic(full)(parts, place)
        assert made["video"].shape == (1, 6, high, high)
        assert made["valid"].tolist() == [True] * 4 + [False] * 2  # as long as the shortest
        seen = made["video"][0][:, made["mask"][0]]
        first = 100 * place + [1, 0, 1, 0][place]  # the middle steps of each
        assert seen[:, 0].tolist() == [first + t for t in (0, 1, 2, 3, 3, 3)]
        assert bool((seen == seen[:, :1]).all())
        assert "action" not in made  # all of the time, which would say nothing
        whole += made["mask"]
    assert bool((whole[:4] == 1).all()) and not whole[4:].any()


def test_a_mosaic_keeps_pixels_or_their_means() -> None:
    parts = [sample(n) for n in range(4)]
    parts[1]["video"] = torch.arange(96.0).view(1, 6, 4, 4)
    large, small = (Mosaic(full)(parts, 1)["video"] for full in (True, False))
    assert torch.equal(large[..., :4, 4:], parts[1]["video"])
    means = parts[1]["video"].view(1, 6, 2, 2, 2, 2).mean((3, 5))
    torch.testing.assert_close(small[..., :2, 2:], means)


# --- which are made -------------------------------------------------------------------------------


class Clips(SampleDataset[Clip]):
    """Planted clips that nobody has trained on, some of which cannot be read."""

    def __init__(self, count: int, seed: int = 7, broken: tuple[int, ...] = ()) -> None:
        self.video, self.labels, _ = planted_clips(count, seed)
        self.read: list[int] = []
        self.broken = broken
        super().__init__(
            [Clip(Path(f"c{n}.mp4"), f"c{n}", int(label)) for n, label in enumerate(self.labels)]
        )

    def _sample(self, index: int, seed: object) -> dict[str, Any]:
        self.read.append(index)
        if index in self.broken:
            raise VideoReadError(f"c{index}.mp4", "broken")
        video, label = self.video[index], self.labels[index]
        return {**sample(index, FRAMES), "video": video, "label": label}

    def _missing(self, index: int, error: str) -> dict[str, Any]:
        return {**sample(index, FRAMES), "label": torch.tensor(-1), "error": error}


class Task:
    """The planted network."""

    device = torch.device("cpu")

    def __init__(self, planted: Planted, **changes: Any) -> None:
        self.planted, self.changes = planted, changes

    def explainable(self, batch: Any = None) -> lc.Explainable:
        bound = {} if batch is None else {"valid": batch["valid"], "truth": batch.get("mask")}
        return replace(self.planted.model, **{**bound, **self.changes})

    def to(self, device: object) -> Task:
        return self

    def cpu(self) -> Task:
        return self


def made(planted: Planted, kind: str, count: int = 6, **more: Any) -> ComposedDataset:
    clips, order = more.pop("clips", None) or Clips(48), more.pop("order", range(48))
    return compose_clips(Task(planted, **more), clips, order, kind, count).dataset  # type: ignore[arg-type]


@pytest.mark.slow
def test_parts_are_recognised_and_of_different_classes(
    planted: Planted, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = Clips(48, broken=(0, 5))
    for kind, how in ARRANGEMENTS.items():
        found, again = (
            compose_clips(Task(planted), clips, range(48), kind, 3)  # type: ignore[arg-type]
            for _ in range(2)
        )
        assert found.dataset.clips == again.dataset.clips
        assert sorted(chain.from_iterable(found.groups.values())) == list(range(len(found.dataset)))
        for group, indices in found.groups.items():
            assert len({found.dataset.clips[i].clip_id for i in indices}) == len(indices) <= 3
            for i in indices:
                row = found.dataset.clips[i]
                assert row.place in how.places[group]
                labels = [clips.clips[part].label for part in row.parts]
                assert len(set(labels)) == len(labels) == how.parts
                assert row.label == labels[row.place]
                assert not {0, 5} & set(row.parts)
                batch = collate([found.dataset[i]])
                assert batch["error"] == [""] and int(batch["label"]) == row.label
                p = planted.net(batch["video"]).softmax(1)[0, row.label]
                assert p >= 0.1
        assert "left out" in capsys.readouterr().out


def test_joined_clips_come_in_both_orders(planted: Planted) -> None:
    found = compose_clips(Task(planted), Clips(48), range(48), "joined", 6)  # type: ignore[arg-type]
    rows = {group: [found.dataset.clips[i] for i in of] for group, of in found.groups.items()}
    first, second = ({row.clip_id.rsplit("_", 1)[0]: row for row in of} for of in rows.values())
    assert len(first.keys() & second.keys()) >= 4  # of a few one order is not recognised
    for name in first.keys() & second.keys():
        assert first[name].parts == second[name].parts[::-1]
        assert first[name].label == second[name].label
        assert (first[name].place, second[name].place) == (0, 1)


def test_spectra_are_composed_apart(planted: Planted) -> None:
    clips = Clips(24)
    clips.clips = [
        replace(clip, clip_id=f"{clip.clip_id}_{'ir' if n < 12 else 'tv'}")
        for n, clip in enumerate(clips.clips)
    ]
    of = design_of(clips=2, sweep_clips=None)
    net = network(of, task=Task(planted), dataset=clips, inputs=("ir", "tv"))
    net = replace(net, inputs={"ir": range(12), "tv": range(12, 24)})
    net = _with_clips(_composed(net, of, "joined", "cpu"), of)
    halves = [f"{name} {half} half" for name in ("ir", "tv") for half in ("first", "second")]
    assert list(net.inputs) == halves
    for name, indices in net.inputs.items():
        for i in indices:
            row = net.dataset.clips[i]
            assert all((part < 12) == name.startswith("ir") for part in row.parts)
            assert row.clip_id.endswith(f"_{name}")
            assert net.sequence(name, i) == row.clip_id.removesuffix(f"_{name}")
            assert net.sequence(name, i).startswith(f"c{row.parts[row.place]}+c")


def test_no_more_clips_are_read_than_are_needed(planted: Planted) -> None:
    clips = Clips(48)
    made(planted, "joined", count=2, clips=clips)
    assert len(set(clips.read)) <= 12


def test_what_the_network_does_not_see_is_left_out(
    planted: Planted, capsys: pytest.CaptureFixture[str]
) -> None:
    def unsure(clip: torch.Tensor) -> torch.Tensor:
        return planted.net(clip) / 100  # right, with a probability near a quarter

    with pytest.raises(DataError, match=r"classes of which .* sure .* there are 0"):
        made(planted, "joined", order=range(8), forward=unsure)

    def narrow(clip: torch.Tensor) -> torch.Tensor:
        """Sees the first class alone in composed clips, which come one by one."""
        answer = planted.net(clip)
        return answer if len(clip) > 1 else 0 * answer + torch.tensor([9.0, 0, 0, 0])

    dataset = made(planted, "mosaic_full", count=16, order=range(16), forward=narrow)
    assert {row.label for row in dataset.clips} == {0}
    count, said = len(dataset), capsys.readouterr().out
    assert f"{count} mosaic_full clips from 16 of 16" in said
    assert f"{16 - count} more left out" in said
    with pytest.raises(DataError, match="no joined clip is recognised"):
        made(planted, "joined", order=[1, 2, 3, 5, 6, 7, 9, 10], forward=narrow)


@pytest.mark.attack
@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (
            "joined",
            {"probability": None},
            "compose=joined needs a network whose outputs are classes",
        ),
        ("mosaic_full", {"forward": None}, "takes no mosaic_full clips.*choose compose=joined"),
    ],
)
def test_networks_that_take_none(
    planted: Planted, kind: str, changes: dict[str, Any], words: str
) -> None:
    """`compose=` with a network without classes, or of one fixed size: one line says so."""

    def fixed(clip: torch.Tensor) -> torch.Tensor:
        return planted.net(clip.view(-1, 3, FRAMES, SIZE, SIZE)[:1] if clip.shape[-1] == SIZE
                           else clip.view(1, 3, FRAMES, SIZE, SIZE))  # fmt: skip

    changes = {name: fixed if value is None else value for name, value in changes.items()}
    with pytest.raises(ConfigError, match=words):
        made(planted, kind, **changes)


def test_samples_of_video_and_label_alone_can_be_joined() -> None:
    class Bare(Clips):
        def _sample(self, index: int, seed: object) -> dict[str, Any]:
            found = super()._sample(index, seed)
            return {key: found[key] for key in ("video", "label", "error")}

    dataset = ComposedDataset([ComposedClip("a", 1, (1, 2), 0)], Bare(4), Joined())
    one = dataset[0]
    assert one["error"] == "" and bool(one["valid"].all())
    assert one["frame_idx"].tolist() == 2 * list(range(3, 9))
    assert one["time_s"].tolist() == list(range(3, 15))


@pytest.mark.attack
def test_clips_without_classes_are_refused(planted: Planted) -> None:
    """`compose=joined` on data without labels, of one class, of one frame: refused in words."""
    clips = Clips(48)
    clips.clips = [replace(clip, label=-1) for clip in clips.clips]
    with pytest.raises(ConfigError, match="compose=joined needs true classes"):
        made(planted, "joined", clips=clips)
    alone = Clips(48)
    of_one = [n for n, clip in enumerate(alone.clips) if clip.label == 2]
    with pytest.raises(DataError, match=r"needs clips of 2 classes .* there are 1"):
        compose_clips(Task(planted), alone, of_one, "joined", 2)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="two frames and more"):
        Joined()([sample(0, 1), sample(1, 1)], 0)


@pytest.mark.attack
def test_a_part_that_cannot_be_read_costs_its_clip() -> None:
    """A part of a joined clip is damaged after it was chosen: the other clips are explained."""
    clips = Clips(8, broken=(3,))
    rows = [ComposedClip("a", 1, (1, 3), 0), ComposedClip("b", 1, (1, 2), 0)]
    lost, kept = ComposedDataset(rows, clips, Joined())
    assert "broken" in lost["error"] and lost["clip_id"] == "a" and int(lost["label"]) == -1
    assert kept["error"] == "" and kept["path"] == "c1.mp4 + c2.mp4"


# --- whether maps find it -------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "chance"), [("joined", 0.5), ("mosaic_full", 0.25)])
def test_gradcam_finds_the_part_and_random_maps_do_not(
    planted: Planted, kind: str, chance: float
) -> None:
    dataset = made(planted, kind, count=4)
    shares: dict[str, list[float]] = {"gradcam": [], "random": []}
    for n in range(len(dataset)):
        batch: Any = collate([dataset[n]])
        model = Task(planted).explainable(batch)
        for name, method in (("gradcam", lc.GradCAM()), ("random", lc.RandomMap(seed=n))):
            e = lc.explain(model, method, batch["video"], int(batch["label"]))
            shares[name].append(float(energy_inside(e.heatmap, batch["mask"])))
    found = {name: torch.tensor(of) for name, of in shares.items()}
    assert float(found["gradcam"].mean()) > chance + 0.25
    assert float(found["random"].mean()) == pytest.approx(chance, abs=0.02)


# --- the commands ---------------------------------------------------------------------------------


def test_explaining_composed_clips(planted: Planted, tmp_path: Path) -> None:
    data = SimpleNamespace(root=str(tmp_path), evaluation=lambda part: Clips(48))
    config = composed("explain", "ckpt=x", "compose=joined", "clips=3")
    check_explain(config)
    task: Any = Task(planted)
    sources, selection = find_clips(config, data, task, None)  # type: ignore[arg-type]
    assert len(sources) == 3 and selection is None and all(source.composed for source in sources)
    measurements = RunMeasurements(config["measure"])
    request = ClipRequest(
        task, data, measurements, {"gradcam": lc.GradCAM()}, Question(None), tmp_path / "out", 8
    )
    for source in sources:
        result: Any = process_clip(request, source)
        (row,) = result.scores
        label = int(source.read()["label"])
        assert row["target"] == row["label"] == CLASSES[label]
        assert float(row["energy_action"]) == float(row["energy_actor"]) > 0.3
        assert source.title.endswith("half")


def test_a_changed_part_is_another_clip(tmp_path: Path) -> None:
    clips = Clips(4)
    clips.clips = [replace(clip, path=tmp_path / clip.path) for clip in clips.clips]
    for clip in clips.clips:
        clip.path.write_bytes(b"1")
    rows = [ComposedClip("a", 1, (1, 2), 0), ComposedClip("a", 2, (1, 2), 1)]
    dataset = ComposedDataset(rows, clips, Joined())
    before = [source.key for source in clips_of_split(dataset, [0, 1], "val")]
    os.utime(clips.clips[3].path, (1, 1))
    assert [source.key for source in clips_of_split(dataset, [0, 1], "val")] == before
    os.utime(clips.clips[2].path, (1, 1))
    after = [source.key for source in clips_of_split(dataset, [0, 1], "val")]
    assert not {*before} & {*after} and len({*before, *after}) == 4


def test_a_study_reports_each_half(planted: Planted, tmp_path: Path) -> None:
    nodes = {name: {"_target_": f"lightning_cam.{name}"} for name in ("GradCAM", "RandomMap")}
    config = composed("explain", "ckpt=x", "study=methods_tiny", "compose=joined")
    check_study(config)
    assert _explained(config)["target"] == "true"
    measures = {"energy": {"_target_": "lightning_cam.metrics.EnergyShare", "region": "action"}}
    of = design_of(measures, methods=nodes, sweeps=None, clips=3, sweep_clips=None, target="true")
    task: Any = Task(planted)
    net = network(of, task=task, dataset=Clips(48), inputs=("",))
    net = _with_clips(_composed(replace(net, inputs={"": range(48)}), of, "joined", "cpu"), of)
    assert list(net.inputs) == ["first half", "second half"]
    assert [len(indices) for indices in net.inputs.values()] == [3, 3]
    units = work_items([net], of)
    journal = Journal(tmp_path)
    measure_cells(of, units, {}, journal, "cpu", say=lambda _: None)
    journal.close()
    rows = [row for row in read_journal(tmp_path).values() if row["cell"] == "GradCAM"]
    assert len(rows) == 6 and not any(row["error"] for row in rows)
    assert all(row["target"] == row["label"] and row["p_target"] >= 0.1 for row in rows)
    halves = {name: {r["sequence"] for r in rows if r["input"] == name} for name in net.inputs}
    assert len(halves["first half"] & halves["second half"]) >= 2  # paired


def test_settings_that_contradict_composed_clips() -> None:
    config = composed("explain", "ckpt=x", "compose=mosaic")
    check_explain(config)
    for key, value in {"video": "a.mp4", "select": "wrong", "target": 1, "contrast": 2}.items():
        with pytest.raises(ConfigError, match=f"compose=mosaic .*leave out {key}= or compose="):
            check_explain({**config, key: value})
    with pytest.raises(UnknownNameError, match="nearest: mosaic"):
        check_explain({**config, "compose": "mosaics"})
    study = composed("explain", "ckpt=x", "study=methods_sfm", "compose=joined")
    with pytest.raises(ConfigError, match=r"leave out study.columns= or compose="):
        _explained(study)


@pytest.fixture(scope="module")
def place(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the planted network's checkpoint, and planted clips as images."""
    folder = tmp_path_factory.mktemp("planted")
    clips, labels, _ = planted_clips(24, 7)
    pixels = (clips * 25.5 + 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 4, 1).numpy()
    for n, (frames, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        for t, frame in enumerate(frames):
            path = folder / "data" / CLASSES[label] / f"c{n:02}" / f"{t:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), frame[..., ::-1])
    task = {
        "_target_": "lightning_cam.tasks.VideoClassification",
        "model": {"_target_": "planted.PlantedNet"},
        "classes": CLASSES,
        "layers": ["layer3"],
    }
    data = {
        "_target_": "lightning_cam.data.clips.VideoFolder", "root": str(folder / "data"),
        "classes": CLASSES, "num_frames": FRAMES, "fps": None, "resize": SIZE, "crop": SIZE,
        "mean": [0.5] * 3, "std": [0.1] * 3, "num_workers": 0,
    }  # fmt: skip
    memory = Remember(task, data, CLASSES, {"name": "planted", "explain": {}}).memory  # type: ignore[arg-type]
    built = build(task)
    built.model.load_state_dict(planted.net.state_dict())
    held = {"state_dict": built.state_dict(), "epoch": 0, "global_step": 1, KEY: memory}
    torch.save(held, folder / "a.ckpt")
    return folder


@pytest.mark.slow
def test_the_commands_make_the_same_clips_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    plain = ["ckpt=a.ckpt", "trust=[planted]", "compose=joined", "data.split=train"]
    words = [*plain, "explain=[gradcam]", "clips=4", "out=page"]
    page = explain_checkpoint(composed("explain", *words))
    assert page is not None and len(list(page.parent.glob("*.mp4"))) == 4
    before = (page.parent / "scores.csv").read_text()
    assert before.count("half") == 4
    capsys.readouterr()
    explain_checkpoint(composed("explain", *words))
    assert "4 of 4 clips are done" in capsys.readouterr().out
    assert (page.parent / "scores.csv").read_text() == before
    with pytest.raises(ConfigError, match='compose="joined", not "mosaic_full"'):
        explain_checkpoint(composed("explain", *words, "compose=mosaic_full"))
    methods = composed("explain", "ckpt=x", "study=methods_tiny")["study"]["methods"]
    fewer = [f"study.methods.{name}=null" for name in methods if name != "gradcam"]
    words = [*plain, "study=methods_tiny", "study.clips=2", "study.claims=null", *fewer]
    words += ["measure=[energy_actor]", "measure.deletion=null"]
    words += ["measure.random_weights=null", "study.random_seeds=0"]
    report = run_study(composed("explain", *words))
    assert report == place / "study_methods_tiny_joined" / "index.html"
    with (report.parent / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["input"] for row in rows} == {"first half", "second half"}
    assert len(rows) == 4 and all(row["target"] == row["label"] for row in rows)
    assert all(float(row["energy_actor"]) > 0.5 for row in rows)
    capsys.readouterr()
    run_study(composed("explain", *words))
    assert "4 of them are there" in capsys.readouterr().out
