"""Clips by what a network says of them, and which clips a command means."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lightning_cam as lc
from lightning_cam.data.core.clips import Clip, ClipReader, finished
from lightning_cam.data.core.transforms import ClipTransform
from lightning_cam.errors import ConfigError, DataError
from lightning_cam.explaining.clip_sources import choose_indices, clips_of_files, find_clips
from lightning_cam.explaining.clips_by_outcome import Selection, select_clips, shuffled
from lightning_cam.viz import OUTCOMES

NAMES = ["a", "b", "c", "d"]


class Task:
    """Says of each clip what its pixels are: `(B, 1, 1, 1, 4)` logits."""

    device = torch.device("cpu")

    def __init__(self, probability: str | None = "softmax") -> None:
        self.probability = probability

    def explainable(self, batch: object = None) -> lc.Explainable:
        net = torch.nn.Flatten()
        return lc.Explainable.of(net, [], NAMES, probability=self.probability)


class Clips(torch.utils.data.Dataset):
    """Clip i has the label and logits of row i; counts what is read."""

    def __init__(self, labels: Sequence[int], logits: np.ndarray, broken: Sequence[int] = ()):
        self.clips = [Clip(Path(f"{i}.mp4"), str(i), label) for i, label in enumerate(labels)]
        self.logits, self.broken, self.read = logits, set(broken), []

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.read.append(index)
        bad = index in self.broken
        return {
            "video": torch.tensor(self.logits[index]).float().view(1, 1, 1, 4),
            "label": torch.tensor(-1 if bad else self.clips[index].label),
            "error": "broken" if bad else "",
        }


class Raising(Clips):
    """Clip 5 raises what no reader foresees."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == 5:
            raise MemoryError
        return super().__getitem__(index)


def random_clips(count: int = 40, seed: int = 0) -> Clips:
    rng = np.random.default_rng(seed)
    logits = rng.permuted(np.tile(np.arange(4.0), (count, 1)), axis=1)
    return Clips(rng.integers(0, 4, count).tolist(), logits, broken=range(0, count, 13))


def kind_of(clips: Clips, index: int) -> str:
    place = int((clips.logits[index] > clips.logits[index][clips.clips[index].label]).sum())
    return OUTCOMES[min(place, 2)]


@given(seed=st.integers(0, 99), count=st.integers(1, 12) | st.none())
def test_the_first_of_each_kind_are_found_and_no_others(seed, count):
    clips = random_clips(seed=seed)
    order = shuffled(range(40))
    found = select_clips(Task(), clips, order, OUTCOMES, count)
    readable = [i for i in order if i not in clips.broken]
    for kind in OUTCOMES:
        of_kind = [i for i in readable if kind_of(clips, i) == kind]
        assert found.found[kind] == of_kind[:count]
    seen = order[: found.looked]
    assert set(found.unreadable) == clips.broken & set(seen)
    enough = count is not None and all(len(of) == count for of in found.found.values())
    if enough:  # the last one looked at was the one that was lacking
        assert any(of[-1] == seen[-1] for of in found.found.values())
    else:
        assert found.looked == 40


def test_looking_stops_when_there_are_enough():
    clips = Clips([0] * 1000, np.tile([3.0, 2, 1, 0], (1000, 1)))
    found = select_clips(Task(), clips, shuffled(range(1000)), ["correct"], 3)
    assert found.looked == 3 and len(clips.read) <= 8
    assert found.found == {"correct": shuffled(range(1000))[:3]}
    assert found.shortfall(3) == ""


def test_the_order_is_fixed_and_mixes_the_classes():
    order = shuffled(range(100))
    assert order == shuffled(range(100)) and sorted(order) == list(range(100))
    assert len({i // 25 for i in order[:12]}) == 4
    assert shuffled([5, 7]) in ([5, 7], [7, 5])


def test_loader_processes_change_nothing():
    clips = random_clips()
    alone, helped = (
        select_clips(Task(), clips, shuffled(range(40)), OUTCOMES, 4, workers=n) for n in (0, 2)
    )
    assert alone == helped


@pytest.mark.attack
def test_a_clip_that_raises_while_looking_costs_itself() -> None:
    """`select=` meets a clip that raises in the loader: the clips beside it are selected."""
    plain = random_clips()
    marked = Clips([clip.label for clip in plain.clips], plain.logits, broken=[5])
    raising = Raising([clip.label for clip in plain.clips], plain.logits)
    for count in (None, 4):
        want = select_clips(Task(), marked, range(40), OUTCOMES, count)
        assert select_clips(Task(), raising, range(40), OUTCOMES, count) == want
        assert want.unreadable == [5]


def test_what_was_found_is_said_in_one_line():
    some = Selection({"correct": [3, 1], "wrong": []}, [7], looked=132)
    assert some.indices == [3, 1, 7]
    said = "found 2 of 3 correct, 0 of 3 wrong clips; looked at all 132 of them"
    assert some.shortfall(3) == said
    assert some.shortfall([3, 1, 7]) == "found 2 correct, 0 wrong among the 132 clips asked for"


def test_without_true_classes_there_is_nothing_to_select():
    with pytest.raises(ConfigError, match="select=wrong needs true classes"):
        select_clips(Task(), Clips([-1], np.zeros((1, 4))), [0], ["wrong"], 1)
    with pytest.raises(ConfigError, match="outputs are classes"):
        select_clips(Task(probability=None), random_clips(), [0], ["wrong"], 1)


# --- which clips are meant -------------------------------------------------------------------


def test_so_many_clips_are_spread_evenly_over_those_that_count():
    clips = Clips([0, 0, 1, 1, 2, 2, 3, 3], np.zeros((8, 4)))
    assert choose_indices(clips, 3, "val") == [0, 4, 7]  # type: ignore[arg-type]
    assert choose_indices(clips, 99, "val") == list(range(8))  # type: ignore[arg-type]
    assert choose_indices(clips, 99, "val", without=1) == [0, 1, 4, 5, 6, 7]  # type: ignore[arg-type]
    assert choose_indices(clips, [2, 2, 0], "val", without=1) == [2, 2, 0]  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the val split has the clips 0 to 7"):
        choose_indices(clips, [8], "val")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no clips of another class than contrast="):
        choose_indices(Clips([1, 1], np.zeros((2, 4))), 1, "val", without=1)  # type: ignore[arg-type]


def test_clips_of_one_name_get_files_of_their_own(tmp_path: Path) -> None:
    clips = [Clip(tmp_path / f"{n}.mpg", "same") for n in range(3)]
    data = SimpleNamespace(
        root=str(tmp_path),
        evaluation=lambda part: SimpleNamespace(clips=clips if part == "val" else []),
    )
    config = {
        "video": None, "data": {"split": "val", "root": None}, "clips": 3, "select": None,
        "compose": None,
    }  # fmt: skip
    sources, selection = find_clips(config, data, None, None)
    assert [source.title for source in sources] == ["same", "same_2", "same_3"]
    assert selection is None


def images(folder: Path, count: int = 4, color: int = 0) -> Path:
    folder.mkdir(parents=True)
    for n in range(count):
        image = np.full((24, 32, 3), (color, 40 * n, 0), np.uint8)
        assert cv2.imwrite(str(folder / f"{n + 1:05}.png"), image)
    return folder


def test_a_folder_of_images_is_one_clip_and_a_folder_of_such_folders_several(
    tmp_path: Path,
) -> None:
    reader = ClipReader(4, None, ClipTransform(16, 16, [0.5] * 3, [0.5] * 3, 0.0))

    def read(path: Path) -> dict[str, Any]:
        steps, valid = reader.window(path)
        return finished(reader.sample(Clip(path, path.stem), steps, valid))

    data = SimpleNamespace(read=read)
    images(tmp_path / "all" / "1.5")
    images(tmp_path / "all" / "deep" / "7", color=200)
    (one,) = clips_of_files(tmp_path / "all" / "1.5", data)
    assert one.title == "1.5"  # no suffix of a folder is dropped
    assert one.read()["video"].shape == (1, 3, 4, 16, 16)
    (tmp_path / "all" / "notes.txt").write_text("no video")
    two = clips_of_files(tmp_path / "all", data)
    assert [source.title for source in two] == ["1.5", "deep/7"]
    blue = [source.read()["video"][0, 2].mean() for source in two]
    assert blue[0] < -0.9 and blue[1] > 0.5
    shutil.rmtree(tmp_path / "all" / "deep" / "7")
    shutil.rmtree(tmp_path / "all" / "1.5")
    with pytest.raises(DataError, match="folders of images"):
        clips_of_files(tmp_path / "all", data)


@pytest.mark.attack
def test_linked_folders_are_explained_and_loops_are_not_followed(tmp_path: Path) -> None:
    """explain.py video=FOLDER where classes are links, with links in a circle."""
    store, top = tmp_path / "store", tmp_path / "top"
    for name in "abc":
        (store / name).mkdir(parents=True)
        for n in range(2):
            (store / name / f"{name}{n}.mp4").touch()
    top.mkdir()
    for name in "abc":
        (top / name).symlink_to(store / name)
    (store / "a" / "round").symlink_to(top)
    (store / "b" / "again").symlink_to(store / "c")
    data = SimpleNamespace(read=lambda path: {})
    assert len(clips_of_files(top, data)) == 6
    assert len(clips_of_files(tmp_path / "top" / "a", data)) == 6
