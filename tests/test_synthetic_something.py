"""Synthetic something: determinism, layouts, reversal in time, mirroring, ground truth."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from test_synthetic import files, kolmogorov_smirnov

from lightning_cam.data.core.arrays import Array
from lightning_cam.data.core.ground_truth import Truth
from lightning_cam.data.video.reading import probe, read_clip
from lightning_cam.errors import DataError, UserError
from lightning_cam.synthetic.something import (
    CLASSES,
    FLIP,
    PAIRS,
    REVERSED,
    InteractionKey,
    clips,
    draw_interaction,
    render_something,
)
from lightning_cam.synthetic.something import files as writing
from lightning_cam.synthetic.something.keyframes import FPS, FRAME_RANGE, STATE_COLUMNS, ClipPlan
from lightning_cam.synthetic.something.tabletop import ASPECT, workplace_of

OPENING = ["Opening something", "Closing something"]
SMALL = {"clips": 2, "workers": 3, "templates": OPENING, "height": 60}
CAMERA = [name for name in CLASSES if "camera" in name]


def key(name: str, number: int = 1, worker: int = 1) -> InteractionKey:
    return InteractionKey(CLASSES.index(name), number, worker)


def column(scene: ClipPlan, name: str) -> Array:
    return scene.state[:, STATE_COLUMNS.index(name)]


def scene_of(name: str, number: int = 1) -> ClipPlan:
    """The script of a clip, not painted."""
    label = CLASSES.index(name)
    scene = clips.forwards(key(name, number).rng(0), label)
    return scene.reversed() if label % 2 else scene


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_something(tmp_path_factory.mktemp("small") / "set", **SMALL)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_something(tmp_path_factory.mktemp("second") / "set", **SMALL, version=2)


def rows(path: Path) -> list[list[str]]:
    return [line.split(";", 1) for line in path.read_text().splitlines()]


def test_classes_are_pairs_of_official_templates() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == 16
    assert CLASSES[0] == "Pushing something from left to right"
    assert REVERSED["Pushing something from left to right"] == (
        "Pulling something from right to left"
    )
    assert FLIP["Pushing something from left to right"] == "Pushing something from right to left"
    assert FLIP["Opening something"] == "Opening something"
    for name in CLASSES:
        assert REVERSED[name] != name
        assert REVERSED[REVERSED[name]] == FLIP[FLIP[name]] == name
        assert REVERSED[FLIP[name]] == FLIP[REVERSED[name]]
        assert FLIP[name] == re.sub(
            "left|right", lambda side: {"left": "right", "right": "left"}[side[0]], name
        )


def test_a_clip_depends_on_its_key_only() -> None:
    one = key("Covering something with something", 3, 2)
    first = draw_interaction(one)[0]
    (
        draw_interaction(key("Opening something", 1, 1)),
        draw_interaction(key("Moving something up", 9, 4)),
    )
    assert (draw_interaction(one)[0] == first).all()
    for other in (one._replace(number=4), one._replace(worker=3), one._replace(label=9)):
        assert not np.array_equal(draw_interaction(other)[0], first)
    assert not np.array_equal(draw_interaction(one, seed=1)[0], first)
    assert draw_interaction(one, height=64)[0].shape[1:] == (64, 84, 3)


def test_first_layout(small: Path) -> None:
    names = files(small)
    csv = {part: rows(small / f"something-something-v1-{part}.csv")
           for part in ("labels", "train", "validation", "test")}  # fmt: skip
    assert [name for (name,) in csv["labels"]] == OPENING
    assert Counter(name for _, name in csv["train"]) == {OPENING[0]: 1, OPENING[1]: 1}
    assert Counter(name for _, name in csv["validation"]) == {OPENING[0]: 1, OPENING[1]: 1}
    assert [len(row) for row in csv["test"]] == [1, 1]
    ids = [row[0] for part in ("train", "validation", "test") for row in csv[part]]
    assert all(re.fullmatch(r"[1-9][0-9]{0,5}", clip_id) for clip_id in ids)
    workers = dict(rows(small / "ground_truth/workers.csv"))
    assert workers.keys() == set(ids)
    of = {part: {workers[row[0]] for row in csv[part]} for part in ("train", "validation")}
    assert (of["train"], of["validation"]) == ({"1"}, {"3"})
    images = {
        f"20bn-something-something-v1/{clip_id}/{i + 1:05d}.jpg"
        for clip_id in ids
        for i in range(len(Truth.read(small / f"ground_truth/{clip_id}.npz").mask))
    }
    lists = {f"something-something-v1-{part}.csv" for part in csv}
    truths = {f"ground_truth/{clip_id}.npz" for clip_id in ids}
    assert names.keys() == images | lists | truths | {"synth.json", "ground_truth/workers.csv"}
    manifest = json.loads((small / "synth.json").read_text())
    assert manifest["name"] == "synthetic_something"
    assert len(manifest["sha256"]) == 3


def test_images_and_truth_are_the_drawing(small: Path) -> None:
    one = key("Closing something", 2, 3)
    frames, parts, scene = draw_interaction(one, height=60)
    folder = small / "20bn-something-something-v1" / one.clip_id(0)
    seen = np.stack([cv2.imread(str(path))[..., ::-1] for path in sorted(folder.iterdir())])
    assert seen.shape == frames.shape == (len(frames), 60, 80, 3)
    assert np.abs(seen.astype(int) - frames).mean(axis=(1, 2, 3)).max() < 4
    truth = Truth.read(small / "ground_truth" / f"{one.clip_id(0)}.npz")
    assert truth.parts.keys() == {"hand", "object"}
    for name, part in truth.parts.items():
        assert (part == parts[name]).all()
    assert (truth.mask == parts["hand"] | parts["object"]).all()
    assert (truth.onset, truth.offset) == (scene.onset, scene.offset)
    np.testing.assert_allclose(truth.state, scene.state, rtol=1e-5)


def test_second_layout(second: Path) -> None:
    def load(part: str) -> list[dict[str, object]]:
        return json.loads((second / f"something-something-v2-{part}.json").read_text())

    assert load("labels") == {"Closing something": "0", "Opening something": "1"}
    entries = load("train") + load("validation")
    assert sorted(entry["template"] for entry in entries) == [
        "Closing [something]", "Closing [something]", "Opening [something]", "Opening [something]"
    ]  # fmt: skip
    for entry in entries:
        assert entry["label"] == str(entry["template"]).lower().replace(
            "[something]", entry["placeholders"][0]
        )
    assert [list(entry) for entry in load("test")] == [["id"], ["id"]]
    videos = {path.stem for path in (second / "20bn-something-something-v2").iterdir()}
    assert videos == {entry["id"] for entry in entries + load("test")}
    one = key("Opening something", 2, 3)
    path = second / "20bn-something-something-v2" / f"{one.clip_id(0)}.webm"
    frames = draw_interaction(one, height=60)[0]
    info = probe(path)
    assert (info.num_frames, info.height, info.width) == frames.shape[:3]
    assert info.fps == pytest.approx(FPS)
    assert np.abs(read_clip(path).astype(int) - frames).mean(axis=(1, 2, 3)).max() < 8


def test_captions_name_what_is_seen() -> None:
    def caption(name: str) -> tuple[str, list[str]]:
        entry = writing._caption(key(name), 0)
        return entry["label"], entry["placeholders"]

    label, (thing, bowl) = caption("Putting something into something")
    assert label == f"putting {thing} into {bowl}"
    assert bowl.endswith(" bowl")
    label, (thing, cloth) = caption("Covering something with something")
    assert label == f"covering {thing} with {cloth}"
    assert cloth.endswith(" cloth")
    label, (thing,) = caption("Uncovering something")
    assert label == f"uncovering {thing}"
    assert not thing.endswith(" cloth")


@pytest.mark.parametrize("version", [1, 2])
def test_rendering_does_not_depend_on_processes_or_on_the_subset(
    small: Path, second: Path, tmp_path: Path, version: int
) -> None:
    whole = files(small if version == 1 else second)
    alone = render_something(tmp_path / "alone", **SMALL, version=version, processes=1)
    assert files(alone) == whole
    part = SMALL | {"clips": 1, "templates": OPENING[1:]}
    subset = files(render_something(tmp_path / "subset", **part, version=version, processes=2))
    same = [name for name in subset if name.endswith((".jpg", ".npz", ".webm"))]
    assert len(same) > 2
    assert {name: whole[name] for name in same} == {name: subset[name] for name in same}


@pytest.mark.parametrize("pair", range(len(PAIRS)))
def test_partners_are_each_other_backwards(pair: int) -> None:
    room = workplace_of(0, 3, 50)
    frames, parts, scene = clips.draw_interaction_from(np.random.default_rng(pair), 2 * pair, room)
    back, back_parts, back_scene = clips.draw_interaction_from(
        np.random.default_rng(pair), 2 * pair + 1, room
    )
    assert (back == frames[::-1]).all()
    assert (back_scene.state == scene.state[::-1]).all()
    for name, part in parts.items():
        assert (back_parts[name] == part[::-1]).all()
    t = np.arange(len(frames)) / FPS
    inside = (scene.onset <= t) & (t < scene.offset)
    assert (((back_scene.onset <= t) & (t < back_scene.offset)) == inside[::-1]).all()


def test_single_frames_do_not_tell_partners_apart() -> None:
    # One random frame per clip, so that the sample is independent; numbers as in a data set.
    rng = np.random.default_rng(0)
    scenes = {name: [scene_of(name, n) for n in range(1, 151)] for name in CLASSES}
    p = []
    for one, other in PAIRS:
        a, b = (
            np.stack([s.state[rng.integers(len(s.state))] for s in scenes[name]])
            for name in (one, other)
        )
        p += [
            kolmogorov_smirnov(a[:, c], b[:, c])
            for c in range(len(STATE_COLUMNS))
            if np.ptp(a[:, c])
        ]
        lengths = [np.array([len(s.state) for s in scenes[name]]) for name in (one, other)]
        p.append(kolmogorov_smirnov(*lengths))
        onsets, rests = ([s.onset for s in scenes[one]],
                         [(len(s.state) - 1) / FPS - s.offset for s in scenes[other]])  # fmt: skip
        p.append(kolmogorov_smirnov(np.array(onsets), np.array(rests)))
    assert len(p) > 50
    assert min(p) > 1e-3
    assert np.mean(p) > 0.3
    # The test can fail: where the thing is at first tells pushing from pulling.
    first = [np.array([s.state[0, 4] for s in scenes[name]]) for name in PAIRS[0]]
    assert kolmogorov_smirnov(*first) < 1e-6


@pytest.mark.parametrize("name", ["Pushing something from left to right",
                                  "Pulling something from right to left"])  # fmt: skip
def test_mirroring_gives_the_class_of_the_other_side(name: str) -> None:
    room = workplace_of(0, 3, 100)
    one = clips.draw_interaction_from(np.random.default_rng(5), CLASSES.index(name), room)
    other = clips.draw_interaction_from(np.random.default_rng(5), CLASSES.index(FLIP[name]), room)
    np.testing.assert_allclose(column(other[2], "hand x"), ASPECT - column(one[2], "hand x"))
    np.testing.assert_allclose(column(other[2], "object x"), ASPECT - column(one[2], "object x"))
    for part in ("hand", "object"):
        mirrored, seen = one[1][part][..., ::-1], other[1][part]
        assert (mirrored & seen).sum() > 0.93 * (mirrored | seen).sum()


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_what_happens(number: int) -> None:
    def course(name: str, *columns: str) -> list[Array]:
        return [column(scene_of(name, number), c) for c in columns]

    for name in CLASSES[:4]:
        x, hand, grip = course(name, "object x", "hand x", "grip")
        to_the_right = name.endswith("to right")
        assert 0.26 <= (x[-1] - x[0]) * (1 if to_the_right else -1) / ASPECT <= 0.45
        from_the_left = name.startswith("Pushing") == to_the_right
        assert ((hand < x) == from_the_left)[grip > 0].all()
    (turn,) = course("Opening something", "amount")
    assert turn[0] == 0
    assert np.degrees(turn[-1]) > 90
    (stage,) = course("Uncovering something", "amount")
    assert (stage[0], stage[-1]) == (2, 0)
    y, hand = course("Moving something up", "object y", "hand y")
    assert y[0] - y[-1] > 0.35
    np.testing.assert_allclose(np.ptp(y - hand), 0, atol=1e-9)
    grip, x, y = course("Pretending to pick something up", "grip", "object x", "object y")
    assert (grip[0], grip[-1]) == (0, 1)
    assert np.ptp(x) == np.ptp(y) == 0
    (zoom,) = course("Moving away from something with your camera", "zoom")
    assert zoom[0] > 1.6
    assert zoom[-1] == 1

    def ends(name: str) -> Array:
        """What is acted upon, at first and at last. (2, H, W)"""
        _, parts, scene = draw_interaction(key(name, number))
        return parts["object"][scene.shown][[0, -1]]

    # The cloth is beside the thing at first and hides it at last.
    covered = ends("Covering something with something")
    widths = covered.any(axis=1).sum(axis=1)
    spans = [np.ptp(np.flatnonzero(frame.any(axis=0))) for frame in covered]
    assert spans[1] == widths[1] - 1 < 0.7 * spans[0]
    # All but the top of the thing is hidden in the bowl.
    there = ends("Taking something out of something").sum(axis=(1, 2))
    assert there[-1] > 1.1 * there[0]


@pytest.mark.parametrize("name", CLASSES)
def test_ground_truth(name: str) -> None:
    for number, worker in ((1, 1), (2, 20)):
        frames, parts, scene = draw_interaction(key(name, number, worker))
        n = len(frames)
        assert FRAME_RANGE[0] <= n <= FRAME_RANGE[1]
        assert frames.shape == (n, 100, 132, 3)
        assert frames.dtype == np.uint8
        hand, thing = parts["hand"], parts["object"]
        assert hand.shape == thing.shape == frames.shape[:3]
        assert not (hand & thing).any()
        assert not (hand | thing)[~scene.shown].any()
        assert 0 < scene.onset < scene.offset < (n - 1) / FPS
        t = np.arange(n) / FPS
        inside = (scene.onset <= t) & (t < scene.offset)
        assert (inside == scene.shown).all()
        assert 0.55 < inside.mean() < 0.85
        assert 0.02 < thing[inside].mean() < 0.35
        comes = hand.any(axis=(1, 2))
        if name in CAMERA:
            assert not hand.any()
        else:
            assert 0.02 < hand[inside].mean() < 0.25
            assert (np.diff(np.flatnonzero(comes)) == 1).all()  # it comes once and goes once
            assert not comes[np.flatnonzero(inside)[[0, -1]]].any()
        if not name.startswith("Moving something"):  # where the hand brings it
            assert thing[inside].any(axis=(1, 2)).all()


@pytest.mark.parametrize("seed", range(2))
def test_outside_of_the_interval_all_classes_are_equal(seed: int, tmp_path: Path) -> None:
    """As drawn and as read from the file; second classes of pairs are the first ones backwards."""
    room = workplace_of(0, 3, 48)
    drawn = [
        clips.draw_interaction_from(np.random.default_rng(seed), label, room)
        for label in range(len(CLASSES))
    ]
    rest = ~drawn[0][2].shown
    assert 0.15 < rest.mean() < 0.45
    read = []
    for label, (frames, parts, scene) in enumerate(drawn):
        forwards = slice(None, None, -1 if label % 2 else 1)
        assert (frames[forwards][rest] == drawn[0][0][rest]).all()
        assert not any(mask[forwards][rest].any() for mask in parts.values())
        assert (scene.shown[forwards] == ~rest).all()
        writing.write_webm(tmp_path / "clip.webm", frames, scene)
        read.append(read_clip(tmp_path / "clip.webm")[~scene.shown])
        assert (read[-1] == read[label % 2]).all()
        if label > 1:
            assert (frames[forwards] != drawn[0][0])[~rest].any()


def test_workers_take_the_same_turns_in_all_classes() -> None:
    keys = writing._keys(CLASSES, 60, 24)
    assert len(keys) == 16 * 61
    for label in range(16):
        turns = [k.worker for k in keys if k.label == label]
        assert set(turns[:24]) == set(range(1, 25))
        assert turns == [k.worker for k in keys if k.label == 0]
        assert sum(worker > 19 for worker in turns[:6]) in (1, 2)
    for workers in (2, 3, 5, 24):
        train = writing._train_workers(workers)
        assert 1 <= train < workers
    assert writing._train_workers(24) == 19


def test_ids_are_unique_and_tell_nothing() -> None:
    keys = writing._keys(CLASSES, 60, 24)
    ids = np.array([int(k.clip_id(0)) for k in keys])
    assert len(set(ids)) == len(ids)
    assert abs(np.corrcoef(ids, [k.label for k in keys])[0, 1]) < 0.1
    assert abs(np.corrcoef(ids, [k.number for k in keys])[0, 1]) < 0.1
    assert keys[0].clip_id(0) != keys[0].clip_id(1)


def test_rendering_is_done_once_and_again_when_it_differs(tmp_path: Path) -> None:
    root, part = tmp_path / "set", SMALL | {"clips": 1, "templates": OPENING[:1]}

    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in root.rglob("*.jpg")}

    render_something(root, **part)
    before = times()
    render_something(root, **part)
    assert times() == before
    next(iter(before)).unlink()
    render_something(root, **part)
    assert times().keys() == before.keys()
    render_something(root, **part, version=2)
    assert not times()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_rendering_that_broke_off_is_redone(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images = writing.write_images

    def dies(folder: Path, frames: Array, *args: Any, **options: Any) -> None:
        write_images(folder, frames[:20], *args, **options)
        os._exit(9)

    monkeypatch.setattr(writing, "write_images", dies)
    with pytest.raises(DataError, match="worker process died"):
        render_something(tmp_path / "set", **SMALL, processes=2)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["set.partial"]
    assert files(render_something(tmp_path / "set", **SMALL)) == files(small)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"templates": ["Opening"]}, "no template 'Opening'; nearest: Opening something"),
        ({"templates": []}, "no template is chosen"),
        ({"version": 3}, "version=3 .* from 1 to 2"),
        ({"clips": 0}, "clips=0"),
        ({"workers": 1}, "workers=1"),
        ({"height": 99}, "height=99 .* from 48 to 480 in steps of 2"),
    ],
)
def test_errors_name_the_remedy(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        render_something(tmp_path / "set", **(SMALL | arguments))
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match=r"thesis\.txt.*nothing was touched"):
        render_something(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
