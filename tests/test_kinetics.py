"""Kinetics: the lists as they come, folders as copies name them, and never renumbered classes."""

from __future__ import annotations

import csv
import shlex
import warnings
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lightning_cam.commands.search import PACKAGE
from lightning_cam.data.clips.kinetics import MEAN, Kinetics, label_key
from lightning_cam.errors import DataError, UnknownNameError
from lightning_cam.training.build import locate

DATA = PACKAGE / "data"
LABELS = ["abseiling", "blowing out candles", 'playing "bass", loud', "zumba"]
HEADER = ["label", "youtube_id", "time_start", "time_end", "split"]


def touch(root: Path, name: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def write(path: Path, rows: list[list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8-sig") as file:  # some have the mark
        csv.writer(file).writerows(rows)


def rows_of(part: str, count: int, labels: list[str] = LABELS) -> list[list[Any]]:
    return [HEADER] + [
        [label, f"--{part[0] if part != 'test' else 'e'}{k}_{n}", 84 + n, 94 + n, part]
        for k, label in enumerate(labels)
        for n in range(count)
    ]


def lay(root: Path, folder: str, rows: list[list[Any]], form: str = "{label}/{stem}.mp4") -> None:
    for label, name, start, end, _ in rows[1:]:
        stem = f"{name}_{start:06d}_{end:06d}"
        touch(root, f"{folder}/" + form.format(label=label, stem=stem, id=name))


def official(root: Path) -> Path:
    for part, count in (("train", 3), ("validate", 2)):
        rows = rows_of(part, count)
        write(root / f"{part}.csv", rows)
        lay(root, part, rows)
    write(root / "test.csv", [HEADER[1:], ["zzz", 1, 11, "test"]])
    return root


def module(root: Path, **options: Any) -> Kinetics:
    return Kinetics(str(root), num_workers=0, **options)


def counts(data: Kinetics) -> list[int]:
    listing = data.listing
    return [len(part) for part in (listing.train, listing.val, listing.test)]


IGNORE = pytest.mark.filterwarnings("ignore:the test part has no labels")


def test_lists_and_folders(tmp_path: Path) -> None:
    data = module(official(tmp_path))
    with pytest.warns(UserWarning, match="validation part serves for testing") as caught:
        assert data.classes == LABELS
        assert counts(data) == [12, 8, 8]
    assert len(caught) == 1
    assert not data.listing.problems
    clip = data.listing.train[0]
    assert clip.clip_id == "--t0_0_000084_000094"
    assert (data.reader.num_frames, data.reader.fps) == (16, 15)
    assert (data.reader.transform.resize, data.reader.transform.crop) == (128, 112)
    assert data.mean == MEAN


def test_a_labelled_test_part_is_used(tmp_path: Path) -> None:
    rows = rows_of("test", 1)
    write(official(tmp_path) / "test.csv", rows)
    lay(tmp_path, "test", rows[:4])
    assert counts(module(tmp_path)) == [12, 8, 3]
    (problem,) = module(tmp_path).listing.problems
    assert (problem.kind, problem.what) == ("missing", "test/zumba/--e3_0_000084_000094.mp4")
    write(tmp_path / "test.csv", [*rows[:4], ["", "abc", 1, 11, "test"]])
    (problem,) = module(tmp_path).listing.problems
    assert (problem.kind, problem.what) == ("row", "test.csv:5")


@IGNORE
@pytest.mark.parametrize(
    ("folder", "form"),
    [
        ("val", "{label}/{stem}.mp4"),
        ("videos_val", "{label}/{id}.mkv"),
        ("validation", "{stem}.mp4"),
        ("val", "{id}.webm"),
    ],
)
def test_copies_have_their_own_habits(tmp_path: Path, folder: str, form: str) -> None:
    for part, name in (("train", "train"), ("val", folder)):
        rows = rows_of(part, 2)
        more = [[*row, "is_cc" if n == 0 else 0] for n, row in enumerate(rows)]
        write(tmp_path / "annotations" / f"{part}.csv", more)
        lay(tmp_path, name, rows, form)
    data = module(tmp_path)
    assert counts(data) == [8, 8, 8]
    assert not data.listing.problems
    assert module(tmp_path, lists=str(tmp_path / "annotations")).classes == LABELS


def test_key_of_labels_and_folders() -> None:
    assert label_key("Shooting_goal_(soccer)") == label_key('"shooting goal (soccer)"')
    assert label_key("yoga") != label_key("yoga2")


@IGNORE
def test_folders_with_underscores(tmp_path: Path) -> None:
    official(tmp_path)
    (tmp_path / "train" / LABELS[1]).rename(tmp_path / "train" / "Blowing_out_candles")
    data = module(tmp_path)
    assert counts(data) == [12, 8, 8]
    assert not data.listing.problems


@IGNORE
def test_an_absent_class_is_not_renumbered(tmp_path: Path) -> None:
    official(tmp_path)
    for part in ("train", "validate"):
        for path in (tmp_path / part / "abseiling").iterdir():
            path.unlink()
    data = module(tmp_path)
    assert data.classes == LABELS
    assert {data.classes[clip.label] for clip in data.listing.val} == set(LABELS[1:])
    assert [p.kind for p in data.listing.problems] == ["missing"] * 5
    _ = data.train_set, data.val_set  # say nothing: `setup` does, once
    words = "no train clips of: abseiling; no val clips of: abseiling; no test clips of: abseiling"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.setup("fit")
        data.setup("test")
    said = [str(warning.message) for warning in caught]
    assert len(said) == 2
    assert said[0].startswith("5 problems with the data") and said[1] == words
    assert all(warning.filename.endswith("data/core/module.py") for warning in caught)
    some = module(tmp_path, classes=["zumba", "blowing out candles"])
    assert some.classes == ["zumba", "blowing out candles"]
    assert counts(some) == [6, 4, 4]
    assert not some.listing.problems
    assert {clip.path.parent.name: clip.label for clip in some.listing.train} == {
        "zumba": 0,
        "blowing out candles": 1,
    }
    with pytest.raises(UnknownNameError, match="no class 'zumbaa'; nearest: zumba"):
        _ = module(tmp_path, classes=["zumbaa"]).listing


@IGNORE
def test_problems_are_named(tmp_path: Path) -> None:
    official(tmp_path)
    with (tmp_path / "train.csv").open("a") as file:
        file.write("zumba,,1,11,train\nzumba,abc,one,11,train\n,abc,1,11,train\n")
        file.write("zumba,--t3_0,84,94,train\n")
    with (tmp_path / "validate.csv").open("a") as file:
        file.write("juggling fire,abc,1,11,validate\n")
    touch(tmp_path, "validate/juggling fire/abc_000001_000011.mp4")
    moved = tmp_path / "train/zumba/--t3_1_000085_000095.mp4"
    moved.rename(tmp_path / "train/abseiling" / moved.name)
    copied = touch(tmp_path, "train/zumba/--t0_0_000084_000094.mp4")
    touch(tmp_path, "train/zumba/other.mp4")
    touch(tmp_path, "train/zumba/other.txt")
    (tmp_path / "validate/zumba/--v3_1_000085_000095.mp4").unlink()
    data = module(tmp_path)
    found = {(problem.kind, problem.what) for problem in data.listing.problems}
    assert found == {
        ("row", "train.csv:14"),
        ("row", "train.csv:15"),
        ("row", "train.csv:16"),
        ("row", "train.csv:17"),
        ("label", "validate.csv:10"),
        ("label", f"train/abseiling/{moved.name}"),
        ("unlisted", f"train/zumba/{copied.name}"),
        ("unlisted", "train/zumba/other.mp4"),
        ("missing", "validate/zumba/--v3_1_000085_000095.mp4"),
    }
    assert counts(data) == [11, 7, 7]
    assert data.classes == LABELS


@IGNORE
def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no Kinetics data at .*absent.*data\.root="):
        _ = module(tmp_path / "absent").listing
    with pytest.raises(DataError, match=r"no train.csv in .*kinetics400.tar.gz"):
        _ = module(tmp_path).listing
    write(tmp_path / "train.csv", [["path", "label"], ["a.mp4", 3]])
    with pytest.raises(DataError, match=r"no column time_end, time_start, youtube_id"):
        _ = module(tmp_path).listing
    write(tmp_path / "train.csv", [HEADER[1:], ["abc", 1, 11, "train"]])
    with pytest.raises(DataError, match=r"train.csv' has no labels"):
        _ = module(tmp_path).listing
    write(tmp_path / "train.csv", rows_of("train", 1))
    with pytest.raises(DataError, match=r"none of the clips that .*train.csv' names is at"):
        _ = module(tmp_path).listing


def test_weights_of_kinetics_on_ones_own_videos() -> None:
    """The command in data/README.md sets what data=kinetics has and data=folder has not."""
    root = Path(__file__).parents[1]
    text = (root / "data" / "README.md").read_text().replace("\\\n", " ")
    (line,) = (line for line in text.splitlines() if "kinetics_r3d18 data=folder" in line)
    with initialize_config_dir(str(PACKAGE), version_base="1.3"):
        ours = compose("train", shlex.split(line)[2:]).data
        theirs = compose("train", ["experiment=kinetics_r3d18"]).data
    assert ours._target_.endswith("VideoFolder")
    for key in ("fps", "resize", "crop", "mean", "std"):
        assert ours[key] == theirs[key], key
    for path in (PACKAGE / "experiment").glob("kinetics_*.yaml"):
        assert "data=folder" not in path.read_text()


@pytest.mark.parametrize("name", sorted(p.stem for p in DATA.glob("[!_]*.yaml")))
def test_colours_can_be_set_and_are_the_classes_own(name: str) -> None:
    with initialize_config_dir(str(PACKAGE), version_base="1.3"):
        settings: Any = OmegaConf.to_container(
            compose("train", [f"data={name}", "data.root=x"]).data, resolve=True
        )
    data = locate(settings["_target_"])("x")
    assert (settings["mean"], settings["std"]) == (data.mean, data.std)


@pytest.mark.attack
@IGNORE
@pytest.mark.parametrize(("start", "end", "leaks"), [(84, 94, 1), (90, 100, 1), (94, 104, 0)])
def test_seconds_that_are_evaluated_are_not_trained_on(
    tmp_path: Path, start: int, end: int, leaks: int
) -> None:
    """The same seconds of a video in train.csv and validate.csv."""
    rows = [*rows_of("train", 3), [LABELS[0], rows_of("validate", 2)[1][1], start, end, "train"]]
    write(official(tmp_path) / "train.csv", rows)
    lay(tmp_path, "train", rows)
    data = module(tmp_path)
    assert counts(data)[:2] == [13 - leaks, 8]
    found = [(p.kind, p.what) for p in data.listing.problems]
    assert found == [("leak", "train.csv:14")] * leaks
