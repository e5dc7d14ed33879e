"""Synthetic odometry: what the files say of camera, poses and depth holds for the images."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_synthetic import files

from lightning_cam.data.core.arrays import Array
from lightning_cam.errors import DataError
from lightning_cam.synthetic.odometry import (
    EVIDENCE_MASKS,
    EVIDENCE_SEQUENCE,
    TEST,
    TRAIN,
    VAL,
    evidence_masks,
    intrinsics,
    render_frame,
    render_odometry,
    trajectory,
    world_of,
)
from lightning_cam.synthetic.odometry.course import CAMERA_HEIGHT, SPEED, course
from lightning_cam.synthetic.odometry.evidence import response
from lightning_cam.synthetic.odometry.ray_casting import (
    FARTHEST,
    FRAME_SIZE,
    GROUND,
    SKY,
    RenderedFrame,
)
from lightning_cam.synthetic.odometry.textures import (
    atlas,
    look_up,
)
from lightning_cam.synthetic.odometry.world import FLAT

STILL = (*TRAIN, VAL, TEST)
SMALL = {"train": 4, "val": 3, "test": 3, "evidence": 5}
PAIRS = [(3, 4), (38, 37), (77, 78)]  # target, source


def warp(source: Array, depth: Array, matrix: Array, motion: Array) -> tuple[Array, Array, Array]:
    """Inverse warp in plain NumPy: image, z in the source, whether it can be known.

    `motion` maps points of the target camera into the source camera.
    """
    height, width = depth.shape
    out, far = np.zeros((height, width, 3)), np.zeros((height, width))
    known = np.zeros((height, width), bool)
    inverse = np.linalg.inv(matrix)
    for v in range(height):
        columns = np.arange(width)
        points = inverse @ np.stack([columns, np.full(width, v), np.ones(width)]) * depth[v]
        x, y, z = matrix @ (motion[:3, :3] @ points + motion[:3, 3:])
        with np.errstate(divide="ignore", invalid="ignore"):
            x, y = x / z, y / z
            good = (
                (depth[v] > 0) & (z > 0) & (x >= 0) & (x < width - 1) & (y >= 0) & (y < height - 1)
            )
        x, y, at = x[good], y[good], columns[good]
        i, j = y.astype(int), x.astype(int)
        a, b = (y - i)[:, None], (x - j)[:, None]
        out[v, at] = (1 - a) * ((1 - b) * source[i, j] + b * source[i, j + 1]) + a * (
            (1 - b) * source[i + 1, j] + b * source[i + 1, j + 1]
        )
        far[v, at], known[v, at] = z[good], True
    return out, far, known


def error(target: Array, source: Array, depth: Array, matrix: Array, motion: Array) -> float:
    """Mean absolute difference, 1 = white."""
    image, _, known = warp(source / 255, depth, matrix, motion)
    return float(np.abs(image - target / 255)[known].mean())


def motion(poses: Array, target: int, source: int) -> Array:
    return np.linalg.inv(poses[source]) @ poses[target]


def read_poses(path: Path) -> Array:
    rows = np.loadtxt(path, ndmin=2).reshape(-1, 3, 4)
    return np.concatenate([rows, np.tile([[[0, 0, 0, 1.0]]], (len(rows), 1, 1))], 1)


def read_calib(path: Path) -> dict[str, Array]:
    rows = (line.split(": ") for line in path.read_text().splitlines())
    return {key: np.array(numbers.split(), float).reshape(3, 4) for key, numbers in rows}


def image(path: Path) -> Array:
    pixels: Array | None = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return pixels[..., ::-1] if pixels.ndim == 3 else pixels


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_odometry(tmp_path_factory.mktemp("small") / "set", **SMALL)


@pytest.fixture(scope="module")
def evidence() -> tuple[list[RenderedFrame], dict[str, Array]]:
    world = world_of(EVIDENCE_SEQUENCE)
    shots = [render_frame(world, frame) for frame in range(24)]
    return shots, evidence_masks(world, shots)


# --- files ----------------------------------------------------------------------------------------


def test_layout(small: Path) -> None:
    names = {"synth.json"}
    lengths = {"00": 4, "01": 4, "02": 4, "09": 3, "10": 3, "11": 5}
    for name, count in lengths.items():
        names |= {f"sequences/{name}/calib.txt", f"sequences/{name}/times.txt", f"poses/{name}.txt"}
        folders = [f"sequences/{name}/image_2", f"ground_truth/{name}/depth"]
        folders += [f"ground_truth/{name}/{part}" for part in EVIDENCE_MASKS if name == "11"]
        names |= {f"{folder}/{i:06d}.png" for folder in folders for i in range(count)}
    assert files(small).keys() == names
    assert json.loads((small / "synth.json").read_text())["frames"] == lengths
    for name, count in lengths.items():
        lines = (small / "poses" / f"{name}.txt").read_text().splitlines()
        assert len(lines) == count
        assert [float(x) for x in lines[0].split()] == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]
        assert all(re.fullmatch(r"(-?\d\.\d{6}e[+-]\d\d ?){12}", line) for line in lines)
        times = np.loadtxt(small / "sequences" / name / "times.txt")
        np.testing.assert_allclose(times, 0.1 * np.arange(count), atol=1e-9)


def test_files_hold_what_is_drawn(small: Path) -> None:
    for name in (TRAIN[1], EVIDENCE_SEQUENCE):
        world, sequence = world_of(name), small / "sequences" / name
        poses = read_poses(small / "poses" / f"{name}.txt")
        np.testing.assert_allclose(poses, trajectory(world, len(poses)), atol=1e-6)
        calib = read_calib(sequence / "calib.txt")
        assert list(calib) == ["P0", "P1", "P2", "P3", "Tr"]
        for key in ("P0", "P1", "P2", "P3"):
            np.testing.assert_allclose(calib[key][:, :3], intrinsics(), rtol=1e-12)
            assert not calib[key][:, 3].any()
        laser = calib["Tr"][:, :3]
        assert np.linalg.det(laser) == pytest.approx(1)
        assert (laser @ (1, 0, 0) == (0, 0, 1)).all()  # its forward axis is the camera's
        for frame in (0, 2):
            shot = render_frame(world, frame)
            assert (image(sequence / "image_2" / f"{frame:06d}.png") == shot.frame).all()
            depth = image(small / "ground_truth" / name / "depth" / f"{frame:06d}.png")
            assert depth.dtype == np.uint16
            np.testing.assert_allclose(depth / 256, shot.depth, atol=1 / 512)
    shots = [render_frame(world_of(EVIDENCE_SEQUENCE), frame) for frame in range(5)]
    for part, of in evidence_masks(world_of(EVIDENCE_SEQUENCE), shots).items():
        for frame in range(5):
            pixels = image(small / "ground_truth" / EVIDENCE_SEQUENCE / part / f"{frame:06d}.png")
            assert pixels.dtype == np.uint8
            assert (pixels == 255 * of[frame]).all()


def test_files_alone_explain_the_images(small: Path) -> None:
    """Another program that reads camera, poses and depth can rebuild one frame from another."""
    for name in STILL:
        matrix = read_calib(small / "sequences" / name / "calib.txt")["P2"][:, :3]
        poses = read_poses(small / "poses" / f"{name}.txt")
        target, source = (
            image(small / "sequences" / name / "image_2" / f"{frame:06d}.png") for frame in (1, 2)
        )
        depth = image(small / "ground_truth" / name / "depth" / "000001.png") / 256
        assert error(target, source, depth, matrix, motion(poses, 1, 2)) < 0.025


def test_rendering_does_not_depend_on_processes_or_on_the_length(
    small: Path, tmp_path: Path
) -> None:
    whole = files(small)
    assert files(render_odometry(tmp_path / "alone", **SMALL, processes=1)) == whole
    shorter = files(render_odometry(tmp_path / "short", **(SMALL | {"train": 3, "evidence": 4})))
    same = [name for name in shorter if name.endswith(".png") and "rich" not in name]
    assert len(same) == 2 * (3 * 3 + 3 + 3) + 4 * 4
    assert {name: whole[name] for name in same} == {name: shorter[name] for name in same}


@pytest.mark.slow
def test_rendered_again_only_where_something_differs(tmp_path: Path) -> None:
    least = dict.fromkeys(("train", "val", "test", "evidence"), 3)
    root = render_odometry(tmp_path / "set", **least)
    first, times = files(root), {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    render_odometry(root, **least)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == times
    (root / "poses" / "09.txt").unlink()
    assert files(render_odometry(root, **least)) == first  # it was whole again
    other = files(render_odometry(root, **least, seed=1))
    images = [name for name in first if "image_2" in name]
    assert len(images) == 18
    assert all(other[name] != first[name] for name in images)
    assert len({other[name] for name in images}) == 18
    assert [path.name for path in tmp_path.iterdir()] == ["set"]  # nothing is left beside it
    (root / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"notes\.txt"):
        render_odometry(root, **least)
    assert (root / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": 2}, "train=2 .* must be from 3 to 200"),
        ({"val": 0}, "val=0"),
        ({"test": 201}, "test=201"),
        ({"evidence": 1}, "evidence=1"),
        ({"scale": 0}, "scale=0 .* from 1 to 6"),
    ],
)
def test_errors_name_the_remedy(tmp_path: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        render_odometry(tmp_path / "set", **(SMALL | arguments))
    assert not list(tmp_path.iterdir())


# --- geometry -------------------------------------------------------------------------------------


def photometric(name: str) -> dict[str, float]:
    """Mean errors of warps with right and wrong geometry."""
    world, matrix, poses = world_of(name), intrinsics(), world_of(name).course.poses
    shots = {frame: render_frame(world, frame) for pair in PAIRS for frame in pair}
    found: dict[str, list[float]] = {}
    for target, source in PAIRS:
        one, other = shots[target], shots[source]
        right = motion(poses, target, source)
        longer, turned = right.copy(), right.copy()
        longer[:3, 3] *= 1.5
        turned[:3, 3] = 0
        for of, depth, by in (
            ("true", one.depth, right), ("inverse", one.depth, np.linalg.inv(right)),
            ("longer", one.depth, longer), ("rotation", one.depth, turned),
            ("deeper", 1.3 * one.depth, right),
        ):  # fmt: skip
            value = error(one.frame, other.frame, depth, matrix, by)
            found.setdefault(of, []).append(value)
        known = warp(other.frame, one.depth, matrix, right)[2]
        identity = np.abs(one.frame / 255 - other.frame / 255)[known].mean()
        found.setdefault("identity", []).append(float(identity))
    return {of: float(np.mean(values)) for of, values in found.items()}


@pytest.mark.parametrize("name", STILL)
def test_true_depth_and_pose_explain_the_next_frame(name: str) -> None:
    mean = photometric(name)
    assert mean["true"] < 0.025
    assert mean["identity"] > 5 * mean["true"]
    assert mean["inverse"] > 5 * mean["true"]  # poses are from the camera to the world
    assert mean["rotation"] > 3 * mean["true"]
    assert mean["longer"] > 2 * mean["true"]
    assert mean["deeper"] > 1.8 * mean["true"]


@pytest.mark.parametrize("name", STILL)
def test_depth_is_consistent_between_frames(name: str) -> None:
    world = world_of(name)
    for target, source in PAIRS:
        one, other = render_frame(world, target), render_frame(world, source)
        by = motion(world.course.poses, target, source)
        there, z, known = warp(np.repeat(other.depth[..., None], 3, 2), one.depth, intrinsics(), by)
        apart = np.abs(there[..., 0] - z)[known] / z[known]
        assert np.median(apart) < 0.01
        assert (apart < 0.05).mean() > 0.9  # the others are hidden, or at an edge


def test_depth_is_where_things_are() -> None:
    """Closed form: every pixel lies on the ground, or on the surface of its box."""
    for name, frame in ((TRAIN[0], 60), (EVIDENCE_SEQUENCE, 20)):
        world = world_of(name)
        boxes, pose = world.at(frame), world.course.poses[frame]
        shot = render_frame(world, frame)
        v, u = np.indices(FRAME_SIZE)
        rays = np.stack([u, v, np.ones(FRAME_SIZE)], -1) @ np.linalg.inv(intrinsics()).T
        points = (shot.depth[..., None] * rays) @ pose[:3, :3].T + pose[:3, 3]
        known = shot.depth > 0
        assert (shot.depth[known] <= FARTHEST).all()
        assert not known[shot.surface == SKY].any()
        ground = known & (shot.surface == GROUND)
        assert ground.sum() > 2000
        np.testing.assert_allclose(points[ground][:, 1], CAMERA_HEIGHT, atol=1e-9)
        box = known & (shot.surface >= 0)
        assert box.sum() > 2000
        number = shot.surface[box]
        away = points[box] - boxes.centre[number]
        cos, sin = np.cos(boxes.heading[number]), np.sin(boxes.heading[number])
        local = np.stack(
            [cos * away[:, 0] - sin * away[:, 2], away[:, 1], sin * away[:, 0] + cos * away[:, 2]],
            1,
        )
        np.testing.assert_allclose(np.abs(local / boxes.half[number]).max(1), 1, atol=1e-6)


def test_what_is_tracked_lies_before_the_camera() -> None:
    """Convention: points found by optical flow alone are before both cameras."""
    before: dict[bool, list[bool]] = {True: [], False: []}
    for name in STILL:
        world, matrix = world_of(name), intrinsics(2)
        # Where it goes straight: the inverse of a turn explains no flow at all, before or behind.
        target = int(np.abs(np.diff(world.course.heading[:80])).argmin())
        one, other = (render_frame(world, at, 2) for at in (target, target + 1))
        grey = [cv2.cvtColor(of.frame, cv2.COLOR_RGB2GRAY) for of in (one, other)]
        corners = cv2.goodFeaturesToTrack(grey[0], 300, 0.02, 5)
        u, v = np.rint(corners[:, 0].T).astype(int)
        corners = corners[(one.depth[v, u] > 0) & (one.depth[v, u] < 20)]
        moved, found, _ = cv2.calcOpticalFlowPyrLK(
            grey[0], grey[1], corners, np.zeros_like(corners), winSize=(9, 9)
        )
        pair = [of[found.ravel() == 1, 0].T.astype(float) for of in (corners, moved)]
        right = motion(world.course.poses, target, target + 1)
        for inverse in (False, True):
            by = np.linalg.inv(right) if inverse else right
            points = cv2.triangulatePoints(matrix @ np.eye(3, 4), matrix @ by[:3], *pair)
            points = points[:3] / points[3]
            there = by[:3, :3] @ points + by[:3, 3:]
            before[inverse] += list((points[2] > 0) & (there[2] > 0))
    assert len(before[True]) > 300
    assert np.mean(before[False]) > 0.9
    assert np.mean(before[True]) < 0.2


def test_intrinsics_are_those_of_kitti_resized() -> None:
    fx, _, cx, _, fy, cy = intrinsics()[:2].ravel()
    assert fx == pytest.approx(718.856 * 208 / 1241)
    assert fy == pytest.approx(718.856 * 64 / 376)
    assert (cx + 0.5) / 208 == pytest.approx((607.1928 + 0.5) / 1241)
    assert (cy + 0.5) / 64 == pytest.approx((185.2157 + 0.5) / 376)
    # A larger image, shrunk, is the small one: pixel centres are where they are said to be.
    world = world_of(VAL)
    one, larger = render_frame(world, 9), render_frame(world, 9, 3)
    assert larger.frame.shape == (192, 624, 3)
    centres = larger.depth[1::3, 1::3]
    np.testing.assert_allclose(centres, one.depth, rtol=1e-9)
    shrunk = cv2.resize(larger.frame, FRAME_SIZE[::-1], interpolation=cv2.INTER_AREA).astype(float)
    apart = np.abs(shrunk - one.frame).mean()
    assert apart < 12
    for axis in (0, 1):
        assert np.abs(np.roll(shrunk, 1, axis) - one.frame).mean() > 1.5 * apart


# --- the drive ------------------------------------------------------------------------------------


def test_poses_are_rigid_and_smooth() -> None:
    for name in (*STILL, EVIDENCE_SEQUENCE):
        poses = trajectory(world_of(name), 150)
        assert (poses[0] == np.eye(4)).all()
        rotations = poses[:, :3, :3]
        products = rotations @ rotations.transpose(0, 2, 1)
        np.testing.assert_allclose(products, np.tile(np.eye(3), (150, 1, 1)), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(rotations), 1)
        steps = np.linalg.inv(poses[:-1]) @ poses[1:]
        assert (np.abs(steps[:, 2, 3] / SPEED - 1) < 0.3).all()  # forwards
        angles = np.arccos(np.clip((np.trace(steps[:, :3, :3], axis1=1, axis2=2) - 1) / 2, -1, 1))
        assert angles.max() < 0.04
        assert np.abs(np.diff(steps, axis=0)).max() < 0.04


def test_a_constant_motion_does_not_predict_the_drive() -> None:
    """Over five frames, the mean motion of training misses by several times what is asked for."""
    steps = np.concatenate(
        [
            np.linalg.inv(poses[:-1]) @ poses[1:]
            for poses in (trajectory(world_of(name), 150) for name in TRAIN)
        ]
    )
    yaw = np.arctan2(steps[:, 0, 2], steps[:, 2, 2])
    assert np.abs(yaw).mean() > 0.012
    assert min((yaw > 0.005).mean(), (yaw < -0.005).mean()) > 0.25  # both ways
    mean = np.eye(4)
    mean[:3, 3] = steps[:, :3, 3].mean(0)
    mean[:3, :3] = cv2.Rodrigues(np.array((0, yaw.mean(), 0)))[0]
    line = np.array([np.linalg.matrix_power(mean, k)[:3, 3] for k in range(5)])
    for name in (VAL, TEST):
        poses = trajectory(world_of(name), 80)
        missed = []
        for start in range(76):
            truth = (np.linalg.inv(poses[start]) @ poses[start : start + 5])[:, :3, 3]
            scale = (truth * line).sum() / (line**2).sum()
            missed.append(np.sqrt(((scale * line - truth) ** 2).sum(1).mean()))
        assert np.mean(missed) > 0.05 * 4 * SPEED  # of the way


def test_the_road_is_free() -> None:
    for name in STILL:
        world = world_of(name)
        boxes, eyes = world.boxes, world.course.poses[:, :3, 3]
        away = eyes[:, None] - boxes.centre
        cos, sin = np.cos(boxes.heading), np.sin(boxes.heading)
        x, z = cos * away[..., 0] - sin * away[..., 2], sin * away[..., 0] + cos * away[..., 2]
        outside = np.maximum(np.abs([x, z]) - boxes.half.T[[0, 2], None], 0)
        assert np.hypot(*outside).min() > 2


def test_courses_start_anywhere_and_do_not_depend_on_each_other() -> None:
    courses = [course(np.random.default_rng(n)) for n in range(20)]
    assert len({round(of.heading[0], 6) for of in courses}) == 20
    assert np.abs(np.mean([np.sin(of.heading[0]) for of in courses])) < 0.5
    first = render_frame(world_of("01"), 7).frame
    (
        render_frame(world_of("00"), 3),
        render_frame(world_of("11"), 3),
        render_frame(world_of("01", seed=5), 7),
    )
    assert (render_frame(world_of("01"), 7).frame == first).all()
    assert (render_frame(world_of("01", seed=5), 7).frame != first).any()


# --- the evidence sequence ------------------------------------------------------------------------


def test_parts_are_apart_and_large(evidence: tuple[list[RenderedFrame], dict[str, Array]]) -> None:
    shots, parts = evidence
    assert tuple(parts) == EVIDENCE_MASKS
    assert np.sum(list(parts.values()), axis=0).max() == 1
    for name, least in (("moving", 0.03), ("flat", 0.05), ("rich", 0.05)):
        assert (parts[name].mean((1, 2)) > least).mean() > 0.9, name
    depth = np.stack([shot.depth for shot in shots])
    assert (depth[parts["rich"]] > 0).all()
    candidates = (depth > 0) & ~parts["moving"]
    assert parts["rich"].sum() / candidates.sum() == pytest.approx(0.25, abs=0.01)


def test_the_moving_box_breaks_the_warp(
    evidence: tuple[list[RenderedFrame], dict[str, Array]],
) -> None:
    shots, parts = evidence
    poses = world_of(EVIDENCE_SEQUENCE).course.poses
    wrong, right = [], []
    for target in range(0, 22, 3):
        one, other = shots[target], shots[target + 1]
        seen, _, known = warp(
            other.frame / 255, one.depth, intrinsics(), motion(poses, target, target + 1)
        )
        off = np.abs(seen - one.frame / 255).mean(-1)
        moving = parts["moving"][target]
        wrong.append(off[known & moving].mean())
        right.append(off[known & ~moving].mean())
    assert np.mean(right) < 0.025
    assert np.mean(wrong) > 3 * np.mean(right)


def test_the_wall_shows_nothing(evidence: tuple[list[RenderedFrame], dict[str, Array]]) -> None:
    shots, parts = evidence
    assert (world_of(EVIDENCE_SEQUENCE).boxes.texture == FLAT).sum() > 1
    colours = np.concatenate(
        [shot.frame[flat] for shot, flat in zip(shots, parts["flat"], strict=True)]
    )
    assert (colours == colours[0]).all()


def test_a_wrong_depth_is_seen_where_it_is_rich(
    evidence: tuple[list[RenderedFrame], dict[str, Array]],
) -> None:
    shots, parts = evidence
    poses = world_of(EVIDENCE_SEQUENCE).course.poses
    changes: dict[str, list[float]] = {"rich": [], "poor": [], "flat": []}
    for target in range(1, 22, 3):
        one, other = shots[target], shots[target + 1]
        by = motion(poses, target, target + 1)
        right, _, known = warp(other.frame / 255, one.depth, intrinsics(), by)
        wrong, _, also = warp(other.frame / 255, 1.1 * one.depth, intrinsics(), by)
        change = np.abs(wrong - right).mean(-1)
        inside = np.zeros(FRAME_SIZE, bool)
        inside[2:-2, 2:-2] = True
        flat = cv2.erode(parts["flat"][target].astype(np.uint8), np.ones((9, 9))).astype(bool)
        still = ~parts["moving"][target] & ~parts["flat"][target]
        for name, of in (
            ("rich", parts["rich"][target]), ("poor", still & ~parts["rich"][target]),
            ("flat", flat),
        ):  # fmt: skip
            changes[name] += list(change[known & also & inside & of])
    assert np.mean(changes["rich"]) > 2 * np.mean(changes["poor"])
    assert np.mean(changes["flat"]) < 0.05 * np.mean(changes["rich"])


def test_response_in_closed_form() -> None:
    matrix = np.array([[20.0, 0, 9], [0, 30, 5], [0, 0, 1]])
    frames = np.tile(np.arange(0, 80, 4, dtype=np.uint8)[:, None], (3, 12, 1, 3))  # 4 a pixel
    depth = np.full((3, 12, 20), 5.0)
    depth[:, 0] = 0
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, 0, 3] = 0.5, 0, -0.5  # sideways: 20 * 0.5 / 5 = 2 pixels a frame
    seen = response(frames, depth, poses, matrix)
    assert not seen[:, 0].any()  # unknown
    np.testing.assert_allclose(seen[1, 1:], 2 * 4 / 255)
    poses[:, :3, 3] = 0
    poses[:, 1, 3] = 0.5, 0, -0.5  # along the lines of the ramp
    np.testing.assert_allclose(response(frames, depth, poses, matrix), 0, atol=1e-12)
    turn = cv2.Rodrigues(np.array((0, 0.05, 0)))[0]
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[0, :3, :3], poses[2, :3, :3] = turn, turn.T  # a turn shows no depth
    np.testing.assert_allclose(response(frames, depth, poses, matrix), 0, atol=1e-12)


# --- textures -------------------------------------------------------------------------------------


def test_textures_are_periodic_and_fade_to_their_mean() -> None:
    rng = np.random.default_rng(0)
    place, index = rng.uniform(-2, 2, (200, 2)), rng.integers(0, 8, 200)
    sharp, blurred = np.full(200, 1 / 512), np.full(200, 2.0)
    one = look_up(0, index, place, sharp)
    np.testing.assert_allclose(look_up(0, index, place + np.array((3, -1)), sharp), one, atol=1e-4)
    assert one.std() > 0.1
    mean = atlas(0).reshape(8, -1, 3)[:, : 512**2].mean(1)
    np.testing.assert_allclose(look_up(0, index, place, blurred), mean[index], atol=1e-3)
    # at its own size, the centre of a texel is the texel
    texel = rng.integers(0, 512, (200, 2))
    full = atlas(0).reshape(8, -1, 3)[:, : 512**2].reshape(8, 512, 512, 3)
    exact = look_up(0, index, (texel + 0.5) / 512, sharp)
    np.testing.assert_allclose(exact, full[index, texel[:, 1], texel[:, 0]], atol=1e-5)


@pytest.mark.slow
def test_a_sixth_of_the_set(tmp_path: Path) -> None:
    root = render_odometry(tmp_path / "set", train=25, val=14, test=14, evidence=12)
    images = [name for name in files(root) if "image_2" in name]
    assert len(images) == 3 * 25 + 2 * 14 + 12
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    assert size < 50e6 / 6
    ratios, true = [], []
    for name in STILL:
        matrix = read_calib(root / "sequences" / name / "calib.txt")["P2"][:, :3]
        poses = read_poses(root / "poses" / f"{name}.txt")
        for target in range(0, len(poses) - 1, 4):
            one, other = (
                image(root / "sequences" / name / "image_2" / f"{frame:06d}.png")
                for frame in (target, target + 1)
            )
            depth = image(root / "ground_truth" / name / "depth" / f"{target:06d}.png") / 256
            by = motion(poses, target, target + 1)
            _, _, known = warp(other, depth, matrix, by)
            true.append(error(one, other, depth, matrix, by))
            ratios.append(np.abs(one / 255 - other / 255)[known].mean() / true[-1])
    assert np.mean(true) < 0.02
    assert np.mean(ratios) > 6
    assert min(ratios) > 2.5
