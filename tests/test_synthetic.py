"""Synthetic actions: determinism, ground truth, fairness between classes, atomic rendering."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kills import MOMENTS, moments
from torch import nn

from lightning_cam.data.core.ground_truth import Truth
from lightning_cam.data.video.reading import probe, read_clip
from lightning_cam.errors import DataError, UserError
from lightning_cam.synthetic import rendering
from lightning_cam.synthetic.actions import files as actions
from lightning_cam.synthetic.actions.data_module import SyntheticActions
from lightning_cam.synthetic.actions.files import (
    CLASSES,
    FPS,
    FRAMES,
    TIMES,
    ActionKey,
    draw_action,
    draw_action_from,
    render_actions,
)

PAIR = ["move_left", "move_right"]
SMALL: dict[str, Any] = {"groups": 2, "clips": 1, "classes": PAIR}


def key(name: str, group: int = 1, clip: int = 1) -> ActionKey:
    return ActionKey(CLASSES.index(name), group, clip)


def files(root: Path) -> dict[str, str]:
    """Relative path to SHA-256 of every file."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_actions(tmp_path_factory.mktemp("small") / "set", **SMALL)


def test_a_clip_depends_on_its_key_only() -> None:
    first = draw_action(key("circle", 3, 2))[0]
    (
        draw_action(key("blink", 1, 1)),
        draw_action(key("expand", 9, 4)),
    )  # other looks pass through the cache
    assert (draw_action(key("circle", 3, 2))[0] == first).all()
    for other in (key("circle", 3, 1), key("circle", 2, 2), key("shrink", 3, 2)):
        assert not np.array_equal(draw_action(other)[0], first)
    assert not np.array_equal(draw_action(key("circle", 3, 2), seed=1)[0], first)


def test_layout_is_that_of_ucf11(small: Path) -> None:
    names = {name for name in files(small) if "_left" in name}
    assert names == {
        "UCF11_updated_mpg/move_left/v_move_left_01/v_move_left_01_01.mpg",
        "UCF11_updated_mpg/move_left/v_move_left_02/v_move_left_02_01.mpg",
        "ground_truth/move_left/v_move_left_01_01.npz",
        "ground_truth/move_left/v_move_left_02_01.npz",
    }
    manifest = json.loads((small / "synth.json").read_text())
    assert manifest["files"] == len(files(small)) - 1
    raw = draw_action(key("move_left"))[0]
    want = hashlib.sha256(raw.tobytes()).hexdigest()
    assert manifest["sha256"]["v_move_left_01_01"] == want


def test_files_are_the_drawing(small: Path) -> None:
    path = small / "UCF11_updated_mpg/move_right/v_move_right_02/v_move_right_02_01.mpg"
    info = probe(path)
    assert (info.num_frames, info.height, info.width) == (FRAMES, 96, 96)
    assert info.fps == pytest.approx(30)
    assert info.container == "mpeg"
    np.testing.assert_allclose(info.times, TIMES, atol=1e-3)
    frames, mask, track = draw_action(key("move_right", 2))
    error = np.abs(read_clip(path).astype(int) - frames).mean(axis=(1, 2, 3))
    assert error.max() < 6  # codec only: a frame out of place would not pass, see below
    assert np.abs(frames[4:].astype(int) - frames[:-4])[mask[4:]].mean() > 6
    truth = Truth.read(small / "ground_truth/move_right/v_move_right_02_01.npz")
    assert (truth.mask == mask).all()
    assert (truth.onset, truth.offset) == (track.onset, track.offset)
    np.testing.assert_allclose(truth.state, track.state, rtol=1e-6)


def test_rendering_does_not_depend_on_processes_or_on_the_subset(
    small: Path, tmp_path: Path
) -> None:
    alone = render_actions(tmp_path / "alone", **SMALL, processes=1)
    assert files(alone) == files(small)
    subset = render_actions(
        tmp_path / "subset", groups=1, clips=1, classes=["move_right"], processes=3
    )
    for name, digest in files(subset).items():
        assert name == "synth.json" or files(small)[name] == digest


@pytest.mark.parametrize("name", CLASSES)
def test_ground_truth(name: str) -> None:
    areas = []
    for group, clip in itertools.product((1, 7), (1, 2)):
        frames, mask, track = draw_action(key(name, group, clip))
        assert frames.dtype == np.uint8
        assert mask.shape == frames.shape[:3]
        assert mask.any(axis=(1, 2)).all()
        assert 0.10 <= track.onset < track.offset <= FRAMES / 30 - 0.10 + 1e-9
        start, stop = track.cuts
        inside = (track.onset <= TIMES) & (track.offset > TIMES)
        assert (np.flatnonzero(inside) == np.arange(start, stop)).all()
        moving = (np.abs(np.diff(track.state, axis=0)) > 1e-9).any(axis=1)
        assert moving[[start - 1, stop - 1]].all()  # the cuts
        moving[[start - 1, stop - 1]] = False
        assert not moving[~inside[1:]].any()
        if name == "blink":
            assert moving.sum() >= 4
        else:
            assert moving[inside[1:]].mean() > 0.8
        areas.append(mask.mean())
    assert 0.03 < np.mean(areas) < 0.2


def test_directions() -> None:
    def travel(name: str, column: int) -> float:
        track = draw_action(key(name, 2, 1))[2]
        state = track.state[slice(*track.cuts), column]
        return float(np.diff(state).mean()) * (track.offset - track.onset) * FPS

    assert travel("move_left", 0) == pytest.approx(-0.36 * 96)
    assert travel("move_right", 0) == pytest.approx(0.36 * 96)
    assert travel("move_up", 1) == pytest.approx(-0.36 * 96)
    assert travel("move_down", 1) == pytest.approx(0.36 * 96)
    assert travel("rotate_cw", 3) == pytest.approx(np.pi, rel=0.11)
    assert travel("rotate_ccw", 3) == pytest.approx(-np.pi, rel=0.11)
    assert travel("expand", 2) > 5
    assert travel("shrink", 2) < -5


def test_clockwise_is_clockwise_on_the_screen() -> None:
    # The ear is outside the disc: over the whole swing it goes from left to right over the top.
    _, mask, track = draw_action(key("rotate_cw", 4, 3))
    y, x = np.mgrid[:96, :96]
    start, stop = track.cuts
    middle, ears = (start + stop) // 2, []
    for t in (start, middle, stop - 1):
        distance = np.hypot(x - track.cx[t], y - track.cy[t])
        ear = mask[t] & (distance > 1.1 * track.radius[t])
        ears.append((x[ear].mean() - track.cx[t], y[ear].mean() - track.cy[t]))
    assert ears[0][0] < -5
    assert ears[2][0] > 5
    angle = track.angle[middle]
    assert ears[1] == pytest.approx(
        (1.25 * track.radius[middle] * np.sin(angle),
         -1.25 * track.radius[middle] * np.cos(angle)), abs=2.5,
    )  # fmt: skip


def kolmogorov_smirnov(one: np.ndarray, other: np.ndarray) -> float:
    """Asymptotic p-value of the two-sample test."""
    grid = np.sort(np.concatenate([one, other]))
    distance = np.abs(
        np.searchsorted(np.sort(one), grid, "right") / len(one)
        - np.searchsorted(np.sort(other), grid, "right") / len(other)
    ).max()
    scaled = distance * np.sqrt(len(one) * len(other) / (len(one) + len(other)))
    k = np.arange(1, 101)
    if scaled < 0.2:  # the series does not converge there; p is 1
        return 1.0
    return float(min(1, max(0, 2 * ((-1.0) ** (k - 1) * np.exp(-2 * (k * scaled) ** 2)).sum())))


def test_single_frames_do_not_tell_the_class() -> None:
    # One random frame per clip, so that the sample is independent; 11 classes, 600 clips each.
    rng = np.random.default_rng(0)
    states = np.stack([
        [
            actions._track(np.random.default_rng([label, n]), name, 96).state[rng.integers(FRAMES)]
            for n in range(600)
        ]
        for label, name in enumerate(CLASSES)
    ])  # fmt: skip  # (11, 600, 5)
    p = [
        kolmogorov_smirnov(states[i, :, column], states[j, :, column])
        for column in range(5)
        for i, j in itertools.combinations(range(11), 2)
    ]
    assert min(p) > 1e-4  # 275 comparisons
    assert np.mean(p) > 0.3
    # The test can fail: the action's first frames of opposite classes are easily told apart.
    tracks = (
        [actions._track(np.random.default_rng([9, n]), name, 96) for n in range(600)]
        for name in PAIR
    )
    left, right = (np.array([track.cx[track.cuts[0]] for track in of]) for of in tracks)
    assert kolmogorov_smirnov(left, right) < 1e-6


@pytest.mark.parametrize("seed", range(2))
def test_outside_of_the_interval_all_classes_are_equal(seed: int, tmp_path: Path) -> None:
    """As drawn and as read from the file: no bit of other frames depends on the class."""
    drawn = {
        name: draw_action_from(np.random.default_rng(seed), key(name, 1 + seed)) for name in CLASSES
    }
    outside, seen, frames, masks, intervals = np.ones(FRAMES, bool), [], [], [], set()
    for clip, mask, track in drawn.values():
        outside[slice(*track.cuts)] = False
        actions.write_mpeg(tmp_path / "clip.mpg", clip, track.cuts)
        seen.append(read_clip(tmp_path / "clip.mpg"))
        frames.append(clip)
        masks.append(mask)
        intervals.add((track.onset, track.offset))
    assert len(intervals) == 1
    assert 20 <= outside.sum() <= 40
    for n in range(1, len(CLASSES)):
        for of in (frames, masks, seen):
            assert (of[n][outside] == of[0][outside]).all()
        assert (frames[n] != frames[0])[~outside].any((1, 2, 3)).mean() > 0.4


POSES = ["move_left", "move_right", "expand", "shrink"]  # that a still pose would tell apart


def shots(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clips of `POSES` at 16 px, grey: 8 frames of the action, 8 of the others, and labels."""
    inside, others, labels = [], [], []
    for n in range(count):
        label = n % len(POSES)
        frames, _, track = draw_action(key(POSES[label], 1 + n // 80, n), size=32)
        grey = frames.reshape(FRAMES, 16, 2, 16, 2, 3).mean((2, 4, 5), dtype=np.float32) / 255
        start, stop = track.cuts
        rest = np.r_[0:start, stop:FRAMES]
        for of, where in ((inside, np.arange(start, stop)), (others, rest)):
            chosen = grey[where[np.linspace(0, len(where) - 1, 8).round().astype(int)]]
            of.append(chosen - chosen.mean())
        labels.append(label)
    clips = (torch.from_numpy(np.stack(of))[:, None] for of in (inside, others))
    return (*clips, torch.tensor(labels))  # type: ignore[return-value]


def network_accuracy(clips: torch.Tensor, labels: torch.Tensor, train: int) -> float:
    """Of a small 3-D network, on the clips behind the first `train`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv3d(1, 16, 3, (1, 2, 2), 1), nn.ReLU(), nn.Conv3d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.Conv3d(32, 32, 3, (2, 1, 1), 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(32 * 2 * 4 * 4, len(POSES)),
        )  # fmt: skip
        optimiser = torch.optim.Adam(network.parameters(), 2e-3)
        for _ in range(15):
            for some in torch.randperm(train).split(32):
                optimiser.zero_grad()
                nn.functional.cross_entropy(network(clips[some]), labels[some]).backward()
                optimiser.step()
        with torch.no_grad():
            return float((network(clips[train:]).argmax(1) == labels[train:]).float().mean())


def neighbour_accuracy(clips: torch.Tensor, labels: torch.Tensor, train: int) -> float:
    """Of the nearest of the first `train` clips, on the others."""
    flat = clips.flatten(1)
    nearest = torch.cdist(flat[train:], flat[:train]).argmin(1)
    return float((labels[nearest] == labels[train:]).float().mean())


@pytest.mark.slow
def test_networks_find_the_class_in_the_interval_and_nowhere_else() -> None:
    train, test = 480, 160
    inside, outside, labels = shots(train + test)
    assert network_accuracy(inside, labels, train) >= 0.9
    chance = 1 / len(POSES)
    for accuracy in (network_accuracy, neighbour_accuracy):
        apart = accuracy(outside, labels, train) - chance
        assert abs(apart) < 3 * (chance * (1 - chance) / test) ** 0.5, accuracy


def test_poses_outside_of_the_interval_do_not_tell_the_class() -> None:
    """The nearest of 1100 other clips, by the poses before and after the action, of 1100 clips."""
    poses, during = [], []
    for n in range(2200):
        track = actions._track(np.random.default_rng([5, n]), CLASSES[n % 11], 96)
        state = track.state * (1 / 96, 1 / 96, 6 / 96, 0.3, 0.3)
        start, stop = track.cuts
        poses.append(np.concatenate([state[0], state[-1]]))
        during.append(state[np.linspace(start, stop - 1, 12).round().astype(int)].ravel())
    labels, chance = torch.arange(2200) % 11, 1 / 11

    def accuracy(features: list[np.ndarray]) -> float:
        return neighbour_accuracy(torch.tensor(np.array(features)), labels, 1100)

    assert abs(accuracy(poses) - chance) < 3 * (chance * (1 - chance) / 1100) ** 0.5
    assert accuracy(during) > 5 * chance  # the test can fail


def test_rendering_is_done_once_and_again_when_it_differs(tmp_path: Path) -> None:
    root = tmp_path / "set"
    render_actions(root, **SMALL)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.mpg")}
    render_actions(root, **SMALL)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.mpg")} == before
    render_actions(root, **{**SMALL, "seed": 1})
    assert json.loads((root / "synth.json").read_text())["seed"] == 1
    assert all(path.stat().st_mtime_ns > before[path] for path in root.rglob("*.mpg"))
    marker = root / "synth.json"
    manifest = json.loads(marker.read_text())
    marker.write_text(json.dumps(manifest | {"version": actions.REVISION - 1}))
    (root / "ground_truth/move_left/v_move_left_01_01.npz").write_bytes(b"older")
    render_actions(root, **{**SMALL, "seed": 1})
    assert json.loads(marker.read_text()) == manifest
    Truth.read(root / "ground_truth/move_left/v_move_left_01_01.npz")
    lost = next(iter(before))
    lost.unlink()
    render_actions(root, **{**SMALL, "seed": 1})
    assert lost.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("content", ["thesis.txt", "synth.json"])
def test_a_folder_with_something_else_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / content).write_text('{"name": "other"}')
    with pytest.raises(DataError, match=f"{content}.*nothing was touched.*data.root="):
        render_actions(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == [content]
    assert not tmp_path.with_name(tmp_path.name + ".partial").exists()


def test_files_of_others_are_never_deleted(small: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(small, tmp_path / "set"))
    strangers = [
        root / "note.txt",
        root / "UCF11_updated_mpg/.DS_Store",
        root / "UCF11_updated_mpg/move_left/v_move_left_03/v_move_left_03_01.mpg",
    ]
    strangers[-1].parent.mkdir()
    for path in strangers:
        path.write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    render_actions(root, **SMALL)  # complete all the same
    for path in strangers:
        with pytest.raises(DataError, match=r"is not part of .*nothing was touched.*data.root="):
            render_actions(root, **{**SMALL, "seed": 1})
        assert {path: path.stat().st_mtime_ns for path in before} == before
        assert [path.name for path in tmp_path.iterdir()] == ["set"]
        del before[path]
        path.unlink()
        before = {path: path.stat().st_mtime_ns for path in before}  # folders changed
    render_actions(root, **{**SMALL, "seed": 1})
    assert json.loads((root / "synth.json").read_text())["seed"] == 1


def test_files_that_come_while_it_renders_stay(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(small, tmp_path / "set"))
    run = rendering._run
    monkeypatch.setattr(
        rendering, "_run", lambda *args: (run(*args), (root / "note.txt").write_text("mine"))
    )
    with pytest.raises(DataError, match=r"note\.txt"):
        render_actions(root, **{**SMALL, "seed": 1})
    assert (root / "note.txt").exists()
    assert json.loads((root / "synth.json").read_text())["seed"] == 0


@pytest.mark.parametrize("neighbour", ["set.partial", "set.partial-old"])
def test_a_neighbour_of_that_name_is_left_alone(tmp_path: Path, neighbour: str) -> None:
    thesis = tmp_path / neighbour / "UCF11_updated_mpg" / "thesis.mpg"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("mine")
    with pytest.raises(DataError, match=rf"{neighbour}/.*thesis.mpg' is not part of .*data.root="):
        render_actions(tmp_path / "set", **SMALL)
    assert files(tmp_path).keys() == {f"{neighbour}/UCF11_updated_mpg/thesis.mpg"}


def test_leftovers_of_a_kill_at_any_moment_are_cleared(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small, tmp_path / "set.partial-old")  # between the two renames
    partial = tmp_path / "set.partial"
    shutil.copytree(small, partial)
    (partial / "synth.json").rename(partial / "synth.json.partial")
    video = next(partial.rglob("*.mpg"))
    # while it was being written
    video.rename(video.with_name(f".{video.name}.host-1-0123abcd.part"))
    with monkeypatch.context() as patch:  # while the leftovers are being cleared
        patch.setattr(rendering.shutil, "rmtree", lambda path: (path / "x").unlink())
        with pytest.raises(DataError):
            render_actions(tmp_path / "set", **SMALL)
    assert (partial / "synth.json.partial").exists()
    render_actions(tmp_path / "set", **SMALL)
    partial.mkdir()
    (partial / "synth.json.partial").write_text("{")  # while the marker was being written
    render_actions(tmp_path / "set", **{**SMALL, "seed": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_errors_name_the_remedy(tmp_path: Path) -> None:
    for arguments, message in (
        ({"classes": ["move_lef"]}, "no action 'move_lef'; nearest: move_left"),
        ({"classes": []}, "no action is chosen.*move_left"),
        ({"groups": 0}, "groups=0 .* from 1 to 999"),
        ({"clips": 100}, "clips=100 .* from 1 to 99"),  # names have room for two digits
        ({"size": 90}, "size=90 .* from 32 to 4080 in steps of 16"),
    ):
        with pytest.raises(UserError, match=message):
            render_actions(tmp_path / "a", **(SMALL | arguments))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="name a"):
        render_actions(tmp_path / "file" / "set", **SMALL)


def test_a_failing_worker_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(actions, "write_mpeg", full)
    with pytest.raises(DataError, match="No space left"):
        render_actions(tmp_path / "set", **SMALL, processes=2)
    monkeypatch.setattr(actions, "write_mpeg", lambda *_: os._exit(9))
    with pytest.raises(DataError, match="worker process died after 0 of 4"):
        render_actions(tmp_path / "set", **SMALL, processes=2)
    monkeypatch.undo()
    assert len(files(render_actions(tmp_path / "set", **SMALL))) == 9


def start(root: Path, **settings: Any) -> int:
    """Render in a process group of its own; returns its number."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            render_actions(root, **settings)
            os._exit(0)
        finally:
            os._exit(1)
    os.setpgid(pid, pid)  # whichever of the two is first
    return pid


def _written(partial: Path) -> int:
    """How many files are there; none while a rendering removes what the one before has left."""
    with suppress(FileNotFoundError):
        return len(list(partial.rglob("*_0?_01.*")))
    return 0


@pytest.mark.attack
def test_a_killed_rendering_is_redone(small: Path, tmp_path: Path, record_property: Any) -> None:
    """SIGKILL at random moments of rendering, workers included or not: the same data at last."""
    record_property("tried", MOMENTS)
    root, partial, chosen = tmp_path / "set", tmp_path / "set.partial", moments()
    for attempt in range(MOMENTS):
        pid = start(root, **SMALL)
        wanted = chosen.randint(0, 8)  # of the eight files, those that are there
        deadline = time.monotonic() + 30
        while not root.exists() and _written(partial) < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        # Alone: its workers finish the clip in hand, and the next rendering waits for them.
        (os.kill if attempt % 2 else os.killpg)(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if root.exists():  # it was faster
            assert files(root) == files(small)
            shutil.rmtree(root)
    render_actions(root, **SMALL)
    assert files(root) == files(small)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_two_processes_at_once(tmp_path: Path) -> None:
    processes = [start(tmp_path / "set", groups=4, clips=4, classes=PAIR) for _ in range(3)]
    assert [os.waitpid(pid, 0)[1] for pid in processes] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert json.loads((tmp_path / "set/synth.json").read_text())["files"] == 64
    assert len(files(tmp_path / "set")) == 65


def test_datamodule_defaults(small: Path) -> None:
    data = SyntheticActions(str(small / "absent"))
    assert data.classes == sorted(CLASSES)  # known before anything is rendered
    assert (data.default_val, data.default_test) == ((21, 22, 23), (24, 25))


def test_datamodule_renders_and_serves_ground_truth(tmp_path: Path) -> None:
    data = SyntheticActions(str(tmp_path / "set"), groups=3, clips=1, actions=PAIR, batch_size=2)
    data.prepare_data()
    data.setup()
    assert [len(part) for part in (data.train_set, data.val_set, data.test_set)] == [2, 2, 2]
    assert "mask" not in data.train_set[0]
    (batch,) = data.val_dataloader()
    assert batch["clip_id"] == ["v_move_left_02_01", "v_move_right_02_01"]
    assert batch["label"].tolist() == [0, 1]
    assert batch["mask"].shape == (2, 16, 64, 64)
    _, masks, track = draw_action(key("move_left", 2))
    seconds = batch["time_s"][0].numpy()
    np.testing.assert_allclose(seconds, batch["frame_idx"][0].numpy() / 30, atol=1e-3)
    inside = (seconds >= track.onset) & (seconds < track.offset)
    assert (batch["action"][0].numpy() == inside).all()
    areas = batch["mask"][0].float().mean((1, 2)).numpy()
    np.testing.assert_allclose(areas, masks[batch["frame_idx"][0]].mean((1, 2)), rtol=0.1)
    columns = batch["mask"][0].float().mean(1)  # (T, W)
    centres = ((columns * np.arange(64)).sum(1) / columns.sum(1))[batch["action"][0]]
    part = np.ptp(seconds[inside]) / (track.offset - track.onset)
    assert centres[-1] - centres[0] == pytest.approx(-0.36 * 64 * part, abs=2)


def test_flipped_training_clips_have_the_flipped_label(tmp_path: Path) -> None:
    data = SyntheticActions(str(tmp_path / "set"), groups=3, clips=1, actions=PAIR)
    data.prepare_data()
    clip = data.listing.part("train")[0]
    assert isinstance(clip.truth, Path)
    steps, valid = data.reader.window(clip.path)
    truth, seen = Truth.read(clip.truth), set()
    for epoch in range(12):
        sample = data.reader.sample(clip, steps, valid, truth, (0, epoch, 0), image=1)
        columns = sample["mask"].float().mean(1)
        centres = ((columns * np.arange(64)).sum(1) / columns.sum(1))[sample["action"]]
        direction = "move_left" if centres[-1] < centres[0] else "move_right"
        assert data.classes[sample["label"]] == direction
        seen.add(direction)
    assert len(seen) == 2
    labels = {int(data.train_set[epoch, 0]["label"]) for epoch in range(12)}
    assert labels == {0, 1}
