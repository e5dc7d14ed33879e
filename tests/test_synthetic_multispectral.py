"""Synthetic multispectral: what each spectrum shows by construction, layout, registration."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_synthetic import files, kolmogorov_smirnov

from lightning_cam.data.core.arrays import Array
from lightning_cam.data.core.ground_truth import Truth
from lightning_cam.data.video.reading import read_clip
from lightning_cam.errors import UserError
from lightning_cam.synthetic.multispectral import (
    ACTIONS,
    FLIP_PAIRS,
    SequenceKey,
    draw_sequence,
    draw_sequence_from,
    evidence,
    registration,
    render_multispectral,
)
from lightning_cam.synthetic.multispectral.appearance import (
    AMBIENT,
    CAMERA_NUMBERS,
    IR_SIZE,
    TV_SIZE,
    finer,
    view,
)
from lightning_cam.synthetic.multispectral.files import DrawnSequence
from lightning_cam.synthetic.multispectral.motions import (
    FPS,
    FRAMES,
    STATE_COLUMNS,
    Performance,
    perform,
)

SMALL = {"actors": 3, "repetitions": 1, "actions": ["swing_cw", "paddle_up"]}
PAIRS = [ACTIONS[n : n + 2] for n in range(0, 8, 2)]


def key(action: str, actor: int = 1, camera: int = 1, repetition: int = 1) -> SequenceKey:
    return SequenceKey(ACTIONS.index(action), actor, camera, repetition)


def pair_of(kind: str, seed: int = 0) -> tuple[DrawnSequence, DrawnSequence]:
    """Both actions of a pair from the same random numbers."""
    one, other = (name for name in ACTIONS if name.startswith(kind))
    return tuple(
        draw_sequence_from(np.random.default_rng(seed), key(name)) for name in (one, other)
    )  # type: ignore[return-value]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_multispectral(tmp_path_factory.mktemp("small") / "set", **SMALL)


def test_actions_are_pairs_in_alphabetical_order() -> None:
    assert list(ACTIONS) == sorted(ACTIONS)
    assert len(ACTIONS) == 8
    for one, other in PAIRS:
        assert one.partition("_")[0] == other.partition("_")[0]
    assert {name for pair in FLIP_PAIRS for name in pair} == {
        name for name in ACTIONS if re.search("left|right|cw", name)
    }


def test_a_sequence_depends_on_its_key_only() -> None:
    one = key("wave_together", 3, 2)
    first = draw_sequence(one)
    draw_sequence(key("swing_cw", 1, 1))
    again = draw_sequence(one)
    assert (again.ir.frames == first.ir.frames).all()
    assert (again.tv.frames == first.tv.frames).all()
    for other in (one._replace(actor=4), one._replace(repetition=2), one._replace(action=2)):
        assert not np.array_equal(draw_sequence(other).tv.frames, first.tv.frames)
    assert first.ir.frames.shape == (FRAMES, *IR_SIZE)
    assert first.tv.frames.shape == (FRAMES, *TV_SIZE, 3)
    assert draw_sequence(one, scale=2).tv.frames.shape == (
        FRAMES,
        2 * TV_SIZE[0],
        2 * TV_SIZE[1],
        3,
    )


# --- what can be told from what, by construction --------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_infrared_does_not_see_the_paddle(seed: int) -> None:
    down, up = pair_of("paddle", seed)
    assert (down.ir.frames == up.ir.frames).all()
    assert (down.tv.frames != up.tv.frames).any()


@pytest.mark.parametrize("seed", range(3))
def test_the_visible_camera_does_not_see_the_arm(seed: int) -> None:
    ccw, cw = pair_of("swing", seed)
    assert (ccw.tv.frames == cw.tv.frames).all()
    assert (ccw.ir.frames != cw.ir.frames).any()


@pytest.mark.parametrize("seed", range(3))
def test_infrared_sees_no_difference_in_waving(seed: int) -> None:
    in_turn, together = pair_of("wave", seed)
    assert (in_turn.ir.frames == together.ir.frames).all()
    assert (in_turn.tv.frames != together.tv.frames).any()


@cache
def states(action: str) -> Array:
    """Of 500 performances of an action. (500, FRAMES, 5)"""
    rngs = (np.random.default_rng([ACTIONS.index(action), n]) for n in range(500))
    return np.array([perform(rng, action).state for rng in rngs])


def column(action: str, name: str) -> Array:
    """One number in every frame. (500, FRAMES)"""
    return states(action)[..., STATE_COLUMNS.index(name)]


def test_the_visible_camera_sees_no_difference_in_waving() -> None:
    # The paddle's course as a whole: where it is, and by how much and when it moves.
    courses = [column(name, "paddle y") for name in ("wave_in_turn", "wave_together")]
    for of in (lambda c: c[:, 10], lambda c: c[:, 36], lambda c: c[:, 14] - c[:, 10],
               lambda c: c[:, 25] - c[:, 12], lambda c: np.ptp(c, axis=1)):  # fmt: skip
        assert kolmogorov_smirnov(*map(of, courses)) > 1e-3


@pytest.mark.parametrize("name", STATE_COLUMNS)
def test_single_frames_do_not_tell_actions(name: str) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(FRAMES, size=500)
    values = [column(action, name)[np.arange(500), frames] for action in ACTIONS]
    for one in values[1:]:
        assert kolmogorov_smirnov(values[0], one) > 1e-3


def test_a_single_frame_of_both_spectra_does_not_tell_how_is_waved() -> None:
    frame = np.random.default_rng(1).integers(FRAMES, size=500)
    at = np.arange(500), frame
    apart, sums = [], []
    for action in ("wave_in_turn", "wave_together", "step_left"):
        arm, paddle = column(action, "arm y")[at], column(action, "paddle y")[at]
        apart.append(arm - paddle)
        sums.append(arm + paddle)
    for values in (apart, sums):
        assert kolmogorov_smirnov(values[0], values[1]) > 1e-3
        assert kolmogorov_smirnov(values[0], values[2]) > 1e-3


@pytest.mark.parametrize("spectrum", ["ir", "tv"])
def test_one_spectrum_tells_three_quarters_at_most(spectrum: str) -> None:
    """The best that can be: half of those pairs that look alike, and all of the others."""
    told = [0.5]  # of the waving, see above
    for kind in ("paddle", "step", "swing"):
        one, other = (getattr(drawn, spectrum).frames for drawn in pair_of(kind))
        told.append(1.0 if (one != other).any() else 0.5)
    assert np.mean(told) == 0.75


def test_directions_are_as_the_camera_sees_them() -> None:
    for camera in CAMERA_NUMBERS:
        left, right = (
            draw_sequence_from(np.random.default_rng(4), key(name, camera=camera))
            for name in ("step_left", "step_right")
        )
        inside = ~outside(left.scene)
        for drawn, sign in ((left, -1), (right, 1)):
            for of in (drawn.ir, drawn.tv):
                bodies = of.parts["body"][inside][[0, -1]]
                x = [np.nonzero(mask.any(0))[0].mean() for mask in bodies]
                assert sign * (x[1] - x[0]) > 5
        cw = draw_sequence_from(np.random.default_rng(4), key("swing_cw", camera=camera))
        arm = [np.argwhere(mask).mean(0) for mask in cw.ir.parts["arm"][inside]]
        assert arm[-1][1] > arm[0][1] + 3  # over the top to the right
        middle = min(point[0] for point in arm)
        assert middle < min(arm[0][0], arm[-1][0]) - 1


# --- images and ground truth --------------------------------------------------------------------


def test_the_paddle_is_as_warm_as_the_room() -> None:
    drawn = draw_sequence(key("paddle_up", 2))
    level = drawn.ir.frames / 255.0
    paddle = drawn.ir.parts["paddle"]
    first, last = np.flatnonzero(~outside(drawn.scene))[[0, -1]]
    moved = paddle[first] & ~paddle[last]  # where it was and is no more
    assert moved.sum() > 20
    assert abs(level[first][moved].mean() - level[last][moved].mean()) < 0.01
    assert level[:, 5:10, 60:].mean() == pytest.approx(AMBIENT, abs=0.05)
    warm = {name: level[drawn.ir.parts[name]].mean() for name in ("body", "arm", "paddle")}
    assert warm["paddle"] < 0.4 < 0.5 < warm["body"] < warm["arm"]


def test_ground_truth_is_what_carries_evidence() -> None:
    drawn = draw_sequence(key("wave_in_turn", 2))
    parts = {"ir": ("arm",), "tv": ("paddle",), "irtv": ("arm", "paddle")}
    for spectrum, names in parts.items():
        truth = drawn.truth("wave_in_turn", spectrum)
        assert evidence("wave_in_turn", spectrum) == names
        of = (drawn.ir if spectrum == "ir" else drawn.tv).parts
        assert (truth.mask == np.logical_or.reduce([of[name] for name in names])).all()
        assert truth.parts.keys() == {"body", "arm", "paddle"}
        assert sum(part.astype(int) for part in truth.parts.values()).max() == 1
        assert all(part.any((1, 2)).all() for part in truth.parts.values())
        assert 0 < truth.onset < truth.offset < FRAMES / FPS
    assert not drawn.truth("paddle_up", "ir").mask.any()
    assert not drawn.truth("swing_cw", "tv").mask.any()


def outside(scene: Performance) -> Array:
    """Frames before and after the action. (FRAMES,)"""
    t = np.arange(FRAMES) / FPS
    return (t < scene.onset) | (t >= scene.offset)


def test_nothing_moves_outside_of_the_interval() -> None:
    for action in ACTIONS:
        scene = perform(np.random.default_rng(5), action)
        moving = np.abs(np.diff(scene.state, axis=0)).sum(1) > 1e-9
        rest = outside(scene)
        assert moving[rest[1:] != rest[:-1]].all()  # the cuts
        assert not moving[rest[1:] & rest[:-1]].any()
        assert moving.sum() > 10


@pytest.mark.parametrize("seed", range(2))
def test_outside_of_the_interval_all_actions_are_equal(seed: int) -> None:
    drawn = {name: draw_sequence_from(np.random.default_rng(seed), key(name)) for name in ACTIONS}
    first = drawn[ACTIONS[0]]
    rest = outside(first.scene)
    assert 8 <= rest.sum() <= 17
    for name, other in drawn.items():
        assert (other.scene.onset, other.scene.offset) == (first.scene.onset, first.scene.offset)
        for one, of in ((first.ir, other.ir), (first.tv, other.tv)):
            assert (one.frames[rest] == of.frames[rest]).all()
            assert all(
                (mask[rest] == of.parts[part][rest]).all() for part, mask in one.parts.items()
            )
        if not name.startswith("paddle"):  # each spectrum sees all but two pairs
            assert (first.ir.frames[~rest] != other.ir.frames[~rest]).any()


def test_both_cameras_always_see_the_person() -> None:
    for action in ACTIONS:
        for camera in CAMERA_NUMBERS:
            drawn = draw_sequence(key(action, 3, camera))
            for of in (drawn.ir, drawn.tv):
                for name in ("body", "arm", "paddle"):
                    mask = of.parts[name]
                    assert not mask[:, 0].any(), (action, camera, name)
                    assert not mask[:, :, [0, -1]].any(), (action, camera, name)


# --- registration ---------------------------------------------------------------------------------


def test_views_and_registration_agree() -> None:
    point = np.array([0.1, -0.2, 1.0])
    for camera in CAMERA_NUMBERS:
        for scale in (1, 3):
            ir, tv = (view(name, camera, scale) @ point for name in ("ir", "tv"))
            np.testing.assert_allclose(registration(camera, scale) @ ir, tv, atol=1e-9)
    # the centre of a pixel is the centre of the finer pixels that it is made of
    fine = finer(np.eye(3), 4) @ (2, 3, 1)
    np.testing.assert_allclose(fine, (9.5, 13.5, 1))


@pytest.mark.parametrize("camera", CAMERA_NUMBERS)
def test_registration_maps_the_body(camera: int) -> None:
    drawn = draw_sequence(key("step_left", 4, camera))
    matrix = registration(camera)
    plain = []
    for ir, tv in zip(drawn.ir.parts["body"], drawn.tv.parts["body"], strict=True):
        size = TV_SIZE[::-1]
        mapped = cv2.warpPerspective(ir.astype(np.float32), matrix, size) >= 0.5
        assert (mapped & tv).sum() / (mapped | tv).sum() > 0.8
        scaled = cv2.resize(ir.astype(np.float32), (91, 68))  # same height, same middle
        naive = np.pad(scaled, ((0, 0), (14, 15))) >= 0.5
        plain.append((naive & tv).sum() / (naive | tv).sum())
    assert np.mean(plain) < 0.75  # the cameras are not aligned


# --- files ----------------------------------------------------------------------------------------


def test_layout(small: Path) -> None:
    names = files(small)
    rows = {}
    for spectrum in ("IR", "TV"):
        for part in ("train", "test"):
            path = small / "SOIB" / "file_lists" / f"{spectrum}_{part}.txt"
            rows[spectrum, part] = path.read_text().splitlines()
    assert rows["IR", "train"] == rows["TV", "train"]
    assert rows["IR", "test"] == rows["TV", "test"] == [
        "paddle_up/a03_c1_r1 40 0", "paddle_up/a03_c2_r1 40 0",
        "swing_cw/a03_c1_r1 40 1", "swing_cw/a03_c2_r1 40 1",
    ]  # fmt: skip
    assert len(rows["IR", "train"]) == 8
    keys = [row.split()[0] for part in ("train", "test") for row in rows["IR", part]]
    images = {
        f"SOIB/{spectrum}/{name}/{n:04d}.png"
        for spectrum in ("IR", "TV")
        for name in keys
        for n in range(40)
    }
    truths = {f"ground_truth/{of}/{name}.npz" for of in ("IR", "TV", "IRTV") for name in keys}
    lists = {f"SOIB/file_lists/{of}_{part}.txt" for of, part in rows}
    assert names.keys() == images | truths | lists | {"synth.json", "registration.json"}
    assert json.loads((small / "synth.json").read_text())["name"] == "synthetic_multispectral"
    matrices = json.loads((small / "registration.json").read_text())
    assert matrices.keys() == {"c1", "c2"}
    np.testing.assert_allclose(matrices["c2"], registration(2), atol=1e-6)


def test_images_and_truth_are_the_drawing(small: Path) -> None:
    one = key("swing_cw", 2, 2)
    drawn = draw_sequence(one)
    ir = cv2.imread(str(small / "SOIB" / "IR" / one.name / "0013.png"), cv2.IMREAD_UNCHANGED)
    assert (ir == drawn.ir.frames[13]).all()  # one channel
    assert (read_clip(small / "SOIB" / "TV" / one.name) == drawn.tv.frames).all()
    for spectrum in ("ir", "tv", "irtv"):
        truth = Truth.read(small / "ground_truth" / spectrum.upper() / f"{one.name}.npz")
        expected = drawn.truth("swing_cw", spectrum)
        assert (truth.mask == expected.mask).all()
        assert (truth.parts["paddle"] == expected.parts["paddle"]).all()
        assert truth.onset == expected.onset


@pytest.mark.slow
def test_rendering_does_not_depend_on_processes_or_on_the_subset(
    small: Path, tmp_path: Path
) -> None:
    whole = files(small)
    assert files(render_multispectral(tmp_path / "alone", **SMALL, processes=1)) == whole
    subset = files(render_multispectral(tmp_path / "subset", **(SMALL | {"actions": ["swing_cw"]})))
    same = [name for name in subset if name.endswith((".png", ".npz"))]
    assert len(same) == 6 * 83
    assert {name: whole[name] for name in same} == {name: subset[name] for name in same}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"actors": 2}, "actors=2 .* must be from 3 to 99"),
        ({"repetitions": 0}, "repetitions=0"),
        ({"scale": 9}, "scale=9"),
        ({"actions": ["jump"]}, "no action 'jump'"),
        ({"actions": []}, "no action is chosen"),
    ],
)
def test_errors_name_the_remedy(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        render_multispectral(tmp_path / "set", **(SMALL | arguments))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_size_of_the_whole_set(tmp_path: Path) -> None:
    """Of its 320 sequences the 20 of half the actors, two of eight actions, once."""
    root = render_multispectral(tmp_path / "set", actors=5, repetitions=1, actions=ACTIONS[::4])
    assert sum(name.endswith(".png") for name in files(root)) == 20 * 2 * 40
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    assert size < 150e6 / 16
    for part, count in (("train", 16), ("test", 4)):
        for of in ("IR", "TV"):
            rows = (root / "SOIB" / "file_lists" / f"{of}_{part}.txt").read_text().splitlines()
            assert len(rows) == count
