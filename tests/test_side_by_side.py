"""`explain.py ckpt=[A,B]` and `target=[a,b]`: the same clips and questions on one page."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT, node_of, run_here
from torch import nn

import lightning_cam as lc
from lightning_cam.errors import ConfigError
from lightning_cam.explaining.question import Question, questions
from lightning_cam.explaining.side_clips import _nearest, _overlap
from lightning_cam.training.build import build
from lightning_cam.training.checkpoint import Remember
from lightning_cam.training.runs import network_names
from lightning_cam.viz import ClipFigure, write_video

CLASSES = ("walk", "run", "jump")
Here = Callable[..., CompletedProcess[str]]


def checkpoint(path: Path, seed: int, classes: Sequence[str], root: str, frames: int = 4) -> None:
    """A network with random weights on a folder of classes."""
    task: dict[str, Any] = {
        "_target_": "lightning_cam.tasks.VideoClassification",
        "model": {**node_of("model", "frame_cnn"), "num_outputs": len(classes)},
        "classes": list(classes),
    }
    data = {**node_of("data", "folder"), "root": root, "num_frames": frames}
    data |= {"resize": 32, "crop": 32, "num_workers": 0, "val_share": 0.34}
    torch.manual_seed(seed)
    state = {"state_dict": build(task, where="task").state_dict(), "epoch": 0, "global_step": 1}
    torch.save({**state, "lightning_cam": Remember(task, data, list(classes)).memory}, path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sides")
    random = np.random.default_rng(0)
    for name in CLASSES:
        (folder / "clips" / name).mkdir(parents=True)
        for n in range(6):
            noise = random.integers(0, 255, (8, 32, 32, 3), dtype=np.uint8)
            write_video(folder / "clips" / name / f"{name}_{n}.mp4", noise)
    for run, seed, frames in (("first", 0, 4), ("second", 1, 6)):
        (folder / "runs" / run / "day" / "checkpoints").mkdir(parents=True)
        path = folder / "runs" / run / "day" / "checkpoints" / "last.ckpt"
        checkpoint(path, seed, sorted(CLASSES), str(folder / "clips"), frames)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch, capfd) -> Here:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> CompletedProcess[str]:
        common = ["measure=[gini]", "device=cpu", "out=out"]
        return run_here([str(ROOT / "explain.py"), *common, *arguments], monkeypatch, capfd)

    return call


def ckpts(made: Path) -> str:
    return ",".join(f"{made}/runs/{run}/day/checkpoints/last.ckpt" for run in ("first", "second"))


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_two_networks_explain_the_true_class_of_the_same_clips(made: Path, here: Here) -> None:
    words = (f"ckpt=[{ckpts(made)}]", "clips=[walk*,0]", "explain=[gradcam,hirescam]")
    done = here(*words)
    assert done.returncode == 0, done.stderr
    scores = rows("out/scores.csv")
    assert {row["case"] for row in scores} == {"first", "second"}
    assert all(row["target"] == row["label"] for row in scores)
    clips = {row["clip_id"] for row in scores}
    assert len(clips) == 3 and sum("walk" in clip for clip in clips) == 2
    assert len(scores) == 2 * 2 * len(clips)
    page = Path("out/index.html").read_text()
    assert page.count("<article") == len(clips) and "first/index.html" in page
    agreements = rows("out/agreement.csv")
    assert len(agreements) == 2 * len(clips)
    for row in agreements:  # what the files of both say, brought to the frames of the first
        first, second = (
            lc.load(f"out/{case}/{row['clip_id'].replace('/', '_')}.npz")[row["method"]].heatmap
            for case in ("first", "second")
        )
        assert first.shape[1:] != second.shape[1:]
        assert -1 <= float(row["rank_correlation"] or 0) <= 1
    shown = [page.index(f"<span>{row['clip_id']}</span>") for row in agreements]
    means = [
        np.nanmean([float(r["rank_correlation"] or "nan") for r in agreements
                    if r["clip_id"] == row["clip_id"]]) for row in agreements
    ]  # fmt: skip
    order = np.argsort(shown, kind="stable")
    assert np.all(np.diff(np.asarray(means)[order]) >= 0)  # those that differ most come first
    before = {path: path.stat().st_mtime_ns for path in Path("out").glob("*/*.npz")}
    again = here(*words)  # goes on: nothing is explained twice
    assert again.returncode == 0 and again.stdout.count("3 of 3 clips are done") == 2
    assert before == {path: path.stat().st_mtime_ns for path in Path("out").glob("*/*.npz")}


def test_three_questions_to_one_network(made: Path, here: Here) -> None:
    one = ckpts(made).split(",")[0]
    done = here(f"ckpt={one}", "target=top3", "clips=2", "explain=[gradcam]", "scale=all")
    assert done.returncode == 0, done.stderr
    for clip in {row["clip_id"] for row in rows("out/scores.csv")}:
        own = [row for row in rows("out/scores.csv") if row["clip_id"] == clip]
        assert [row["case"] for row in own] == ["predicted class", "top 2", "top 3"]
        assert {row["target"] for row in own} == {*CLASSES}
        chances = [float(row["p_target"]) for row in own]
        assert chances == sorted(chances, reverse=True)
    assert {(row["a"], row["b"]) for row in rows("out/agreement.csv")} == {
        ("predicted class", "top 2"), ("predicted class", "top 3"), ("top 2", "top 3"),
    }  # fmt: skip


def test_of_a_video_all_explain_what_the_first_predicts(made: Path, here: Here) -> None:
    video = made / "clips" / "run" / "run_0.mp4"
    done = here(f"ckpt=[{ckpts(made)}]", f"video={video}", "explain=[gradcam]")
    assert done.returncode == 0, done.stderr
    first, second = rows("out/scores.csv")
    assert first["target"] == second["target"] == first["prediction"]


def test_so_they_do_where_another_question_comes_first(made: Path, here: Here) -> None:
    video = made / "clips" / "run" / "run_0.mp4"
    asked = ("target=[top2,true]", "explain=[gradcam]")
    done = here(f"ckpt=[{ckpts(made)}]", f"video={video}", *asked)
    assert done.returncode == 0, done.stderr
    found = {row["case"]: row for row in rows("out/scores.csv")}
    first, second = (found[f"{name}, true class"] for name in ("first", "second"))
    assert first["target"] == second["target"] == first["prediction"]


def test_a_network_that_cannot_be_compared_costs_itself(made: Path, here: Here) -> None:
    names = "{'one': A, two: B}".replace("A", ckpts(made).split(",")[0])
    Path("bad.ckpt").write_bytes(b"no checkpoint")
    refused = here(f"ckpt={names.replace('B', 'bad.ckpt')}", "clips=1", "explain=[gradcam]")
    assert refused.returncode == 2 and "bad.ckpt" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["target=[]"], "asks for nothing"),
        (["target=[1.5]"], "true, predicted or top3"),
        (["target=[walk,fly]"], "no target 'fly'"),
        (["target=[predicted,top4]"], "the network has 3 classes"),
        (["target=[walk,run]", "contrast=walk"], "the target itself"),
        (["target=[walk,run]", "scale=mine"], "no scale 'mine'"),
        (["target=[walk,run]", "select=wrong"], "leave it out, or name one network"),
        (["target=[walk,run]", "layers=list"], "leave it out, or name one network"),
        (["target=[walk,run]", "compose=joined"], "leave out target= or compose="),
        (["target=[walk,run]", "clips=[swim_*]"], "no clip of the val split 'swim_*'"),
        (["target=[walk,run]", "clips=[1.5]"], "or names such as"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    settings: list[str], said: str, made: Path, here: Here
) -> None:
    done = here(f"ckpt={ckpts(made).split(',')[0]}", "explain=[gradcam]", "clips=1", *settings)
    assert done.returncode == 2, done.stdout
    assert said in done.stderr + done.stdout and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a/d/checkpoints/x.ckpt", "runs/b/d/checkpoints/x.ckpt"], ["a", "b"]),
        (["runs/a/d/checkpoints/x.ckpt", "runs/a/d/checkpoints/y.ckpt"], ["x", "y"]),
        (["runs/a/1/checkpoints/x.ckpt", "runs/a/2/checkpoints/x.ckpt"], ["1", "2"]),
        (["a/1/c/x.ckpt", "b/1/c/x.ckpt", "b/2/c/y.ckpt"], ["a 1 x", "b 1 x", "b 2 y"]),
        (["x.ckpt", "elsewhere/y.ckpt"], ["x", "y"]),
        (["x.ckpt", "elsewhere/x.ckpt"], ["x.ckpt", "elsewhere/x.ckpt"]),
    ],
)  # fmt: skip
def test_networks_are_called_by_what_tells_their_paths_apart(
    paths: list[str], names: list[str]
) -> None:
    assert network_names(list(map(Path, paths))) == names


def test_what_a_target_asks() -> None:
    assert [str(q) for q in questions("top3")] == ["predicted class", "top 2", "top 3"]
    assert questions(["top2", "predicted", "walk", 0]) == [
        Question("predicted"), Question("top2"), Question("walk"), Question(0),
    ]  # fmt: skip
    assert questions(True) == questions("true") == [Question("true")]
    assert questions(None) == [Question(None)]
    assert questions(None, several=True) == [Question("true")]
    assert questions(None, "walk") == [Question("true", "walk")]
    assert questions("run", "walk") == [Question("run", "walk")]


def test_a_class_called_as_a_word_is_chosen_by_its_number() -> None:
    model = lc.Explainable.of(torch.nn.Linear(2, 2), outputs=["true", "false"])
    clip, batch = torch.ones(1, 2), {"label": torch.tensor([1])}
    assert Question("true").about(model, batch, clip).target == 1
    assert Question(0).about(model, batch, clip).target == 0


def test_maps_that_share_a_scale_end_at_the_same_heat() -> None:
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    ramp = np.linspace(0, 1, 32).reshape(2, 4, 4)
    figure = ClipFigure(frames, {"a": ramp, "b": 3 * ramp, "c": 7 * ramp}, "x", alike=[["a", "b"]])
    assert [figure.scale(caption) for caption in "abc"] == [3, 3, 7]


def test_frames_are_paired_by_their_times() -> None:
    seconds = np.array([0.0, 1.0, 2.0])
    own = np.array([0.1, 0.6, 1.1, 1.9, 9.0])
    kept = np.array([True, True, True, True, False])
    at = _nearest(seconds, own, 3, kept)
    assert at is not None and at.tolist() == [0, 2, 3]
    assert _nearest(None, None, 3, kept) is None  # other frames, nobody knows which


def test_the_overlap_of_the_hottest_tenth() -> None:
    a = torch.arange(100.0)
    assert _overlap(a, a) == 1 and _overlap(a, -a) == 0
    assert np.isnan(_overlap(a, torch.zeros(100)))
    assert _overlap(a, torch.cat([a[:95], -a[95:]])) == 0.5


def test_what_one_network_predicts_another_may_not_know() -> None:
    model = lc.Explainable.of(nn.Conv3d(3, 2, 1), outputs=["run", "jump"])
    told = Question("true", instead={"known": "jump", "unknown": "walk"})
    assert told.of_video(model, "known") == (1, None) and told.of_video(model, "else") == (
        None,
        None,
    )
    with pytest.raises(ConfigError, match=r"predicts 'walk', .*; target=predicted explains what"):
        told.of_video(model, "unknown")
    with pytest.raises(ConfigError, match=r"are classes; name a column: target=0"):
        Question("top2").check(replace(model, outputs=(), probability=None))
