"""KITTI raw: calibration, positions, laser depth, static frames, lists, parts and damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_cam.data.core.listing import Problem
from lightning_cam.data.drives import kitti_lists, kitti_oxts, velodyne
from lightning_cam.data.drives.drive import Drive
from lightning_cam.data.drives.kitti_calibration import read_raw_camera
from lightning_cam.data.drives.kitti_formatted import KittiFormatted
from lightning_cam.data.drives.kitti_raw import KittiRaw
from lightning_cam.data.drives.module import SnippetDataModule
from lightning_cam.errors import DataError, UserError

HEIGHT, WIDTH, FOCAL = 24, 80, 40.0
K = np.array([[FOCAL, 0, 39.7], [0, FOCAL, 11.3], [0, 0, 1]])
# Scanner: x forward, y left, z up. Camera: x right, y down, z forward.
AXES = np.array([[0, -1.0, 0], [0, 0, -1], [1, 0, 0]])
SCANNER = np.array([0.0, -0.08, -0.27])  # where its origin is, seen by camera 0
IMU = np.array([-0.81, 0.32, -0.80])  # seen by the scanner
BASE = {"00": 0.0, "02": 0.06, "03": -0.47}  # metres from camera 0, leftwards


def row(name: str, values: object) -> str:
    return f"{name}: {' '.join(f'{value:.12e}' for value in np.ravel(values))}\n"


def calibrate(date: Path, tilt: float = 0.0) -> Path:
    """Write the three files; `tilt` is the rectifying turn about the camera's x."""
    date.mkdir(parents=True, exist_ok=True)
    c, s = np.cos(tilt), np.sin(tilt)
    text = "calib_time: 09-Jan-2012 13:57:47\n" + row("corner_dist", 0.0995)
    for number, left in BASE.items():
        text += row(f"S_rect_{number}", [WIDTH, HEIGHT])
        text += row(f"R_rect_{number}", [1, 0, 0, 0, c, -s, 0, s, c])
        text += row(f"P_rect_{number}", np.c_[K, K @ [left, 0.0, 0.003 * bool(left)]])
    (date / "calib_cam_to_cam.txt").write_text(text)
    for name, turn, shift in (("velo_to_cam", AXES, SCANNER), ("imu_to_velo", np.eye(3), IMU)):
        (date / f"calib_{name}.txt").write_text(row("R", turn) + row("T", shift))
    return date


def packets(poses: np.ndarray, speed: float = 0.0, latitude: float = 49.0) -> np.ndarray:
    """What an IMU at these places (-> east, north, up) reports. (n, 11)"""
    scale = np.cos(np.radians(latitude))
    origin = np.log(np.tan(np.radians(90 + latitude) / 2)) * scale * kitti_oxts.EARTH
    east, north, up = poses[:, :3, 3].T
    found = np.zeros((len(poses), 11))
    mercator = (north + origin) / (scale * kitti_oxts.EARTH)
    found[:, 0] = np.degrees(2 * np.arctan(np.exp(mercator))) - 90
    found[:, 1] = 8.4 + np.degrees(east / (scale * kitti_oxts.EARTH))
    found[:, 2] = 110 + up
    turn = poses[:, :3, :3]
    found[:, 3] = np.arctan2(turn[:, 2, 1], turn[:, 2, 2])
    found[:, 4] = -np.arcsin(turn[:, 2, 0])
    found[:, 5] = np.arctan2(turn[:, 1, 0], turn[:, 0, 0])
    found[:, 8] = speed
    return found


def heading(yaw: float, places: np.ndarray) -> np.ndarray:
    """Poses of an IMU on level ground that looks into one direction. (n, 4, 4)"""
    poses = np.tile(np.eye(4), (len(places), 1, 1))
    c, s = np.cos(yaw), np.sin(yaw)
    poses[:, :2, :2] = [[c, -s], [s, c]]
    poses[:, :2, 3] = places
    return poses


# --- calibration ----------------------------------------------------------------------------------


def test_a_camera_is_what_its_projection_says(tmp_path: Path) -> None:
    camera = read_raw_camera(calibrate(tmp_path / "2011_09_26", tilt=0.02), "image_02")
    assert camera.size == (HEIGHT, WIDTH)
    np.testing.assert_allclose(camera.intrinsics, K)
    c, s = np.cos(0.02), np.sin(0.02)
    point = np.array([10.0, 1.0, 0.5])  # of the scanner
    rectified = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ (AXES @ point + SCANNER)
    assert camera.from_velodyne is not None
    np.testing.assert_allclose(
        (camera.from_velodyne @ [*point, 1])[:3] - rectified, [0.06, 0, 0.003], atol=1e-9
    )
    assert camera.from_imu is not None
    seen = camera.from_imu @ [*(point - IMU), 1]
    np.testing.assert_allclose(seen, camera.from_velodyne @ [*point, 1], atol=1e-9)


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("cam_to_cam", "P_rect_02", "P_rect_09", "P_rect_02 of 12 numbers"),
        ("cam_to_cam", "S_rect_02: 8", "S_rect_02: 1 8", "S_rect_02 of 2 numbers"),
        ("cam_to_cam", "R_rect_00: 1", "R_rect_00: one", "R_rect_00 of 9 numbers"),
        ("velo_to_cam", "T: ", "T: nan ", "T of 3 numbers"),
        ("imu_to_velo", "R: 1", "R: nan 0", "R of 9 numbers"),
    ],
)
def test_damaged_calibration_is_named(
    tmp_path: Path, name: str, old: str, new: str, said: str
) -> None:
    path = calibrate(tmp_path / "date") / f"calib_{name}.txt"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=said) as error:
        read_raw_camera(tmp_path / "date", "image_02")
    assert path.name in str(error.value)
    assert "\n" not in str(error.value)


def test_without_scanner_or_imu_only_these_are_unknown(tmp_path: Path) -> None:
    date = calibrate(tmp_path / "2011_09_26")
    (date / "calib_imu_to_velo.txt").unlink()
    camera = read_raw_camera(date, "image_03")
    assert camera.from_velodyne is not None
    assert camera.from_imu is None
    (date / "calib_velo_to_cam.txt").unlink()
    assert read_raw_camera(date, "image_03").from_velodyne is None
    (date / "calib_cam_to_cam.txt").unlink()
    with pytest.raises(DataError, match=r"2011_09_26_calib\.zip"):
        read_raw_camera(date, "image_03")


# --- laser depth ----------------------------------------------------------------------------------


def points(*rows: tuple[float, float, float]) -> np.ndarray:
    return np.array([[*each, 0.5] for each in rows], np.float32)


STRAIGHT = K @ np.c_[AXES, np.zeros(3)]  # scanner and camera at one place


def test_a_point_falls_on_its_rounded_pixel_less_one() -> None:
    # u = 39.7 + 40 * 2.0 / 10 = 47.7, v = 11.3 - 40 * 1.0 / 10 = 7.3
    depth = velodyne.project(points((10, -2.0, 1.0)), STRAIGHT, (HEIGHT, WIDTH))
    assert depth.dtype == np.float32
    assert np.argwhere(depth).tolist() == [[7 - 1, 48 - 1]]
    assert depth[6, 47] == 10


def test_the_nearest_of_points_on_a_pixel_counts_whatever_their_order() -> None:
    far, near = (20, -4.0, 2.0), (10, -2.0, 1.0)
    for rows in ((far, near), (near, far)):
        depth = velodyne.project(points(*rows), STRAIGHT, (HEIGHT, WIDTH))
        assert depth[6, 47] == 10
        assert np.count_nonzero(depth) == 1


def test_the_end_of_a_row_and_the_start_of_the_next_do_not_collide() -> None:
    """Row * (W - 1) + column, as published code has it, is one number for these two."""
    ends = [(5, WIDTH - 1, 10.0), (6, 0, 20.0)]
    rows = [
        (z, -(column + 1 - 39.7) * z / FOCAL, -(line + 1 - 11.3) * z / FOCAL)
        for line, column, z in ends
    ]
    depth = velodyne.project(points(*rows), STRAIGHT, (HEIGHT, WIDTH))
    for line, column, z in ends:
        assert depth[line, column] == z


def test_points_behind_or_outside_do_not_count() -> None:
    behind, beside, above = (-10, 2.0, -1.0), (10, -11.0, 0.0), (10, 0.0, 4.0)
    assert not velodyne.project(points(behind, beside, above), STRAIGHT, (24, 80)).any()
    # Before the scanner, but behind the camera: mirrored onto the image by division.
    backward = STRAIGHT - [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1.0]]
    assert not velodyne.project(points((0.5, 0.0, 0.0)), backward, (24, 80)).any()
    # Behind the scanner, but before a camera that is behind it as well.
    behind_it = K @ np.c_[AXES, [0.0, 0.0, 1.0]]
    assert velodyne.project(points((0.5, 0.0, 0.0)), behind_it, (24, 80)).any()
    assert not velodyne.project(points((-0.5, 0.0, 0.0)), behind_it, (24, 80)).any()


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.floats(-5, 60), st.floats(-30, 30), st.floats(-3, 3)), min_size=1, max_size=60
    )
)
def test_depth_is_the_least_of_each_pixel(rows: list[tuple[float, float, float]]) -> None:
    scan = points(*rows)
    expected: dict[tuple[int, int], float] = {}
    for x, y, z, _ in scan.astype(np.float64):
        if x <= 0:
            continue
        u, v = 39.7 - FOCAL * y / x, 11.3 - FOCAL * z / x
        column, line = np.rint(u) - 1, np.rint(v) - 1
        if 0 <= column < WIDTH and 0 <= line < HEIGHT:
            place = int(line), int(column)
            expected[place] = min(x, expected.get(place, np.inf))
    depth = velodyne.project(scan, STRAIGHT, (HEIGHT, WIDTH))
    assert {tuple(place): depth[tuple(place)] for place in np.argwhere(depth).tolist()} == {
        place: np.float32(x) for place, x in expected.items()
    }


def test_depth_is_that_of_the_camera_or_of_the_scanner(tmp_path: Path) -> None:
    camera = read_raw_camera(calibrate(tmp_path / "2011_09_26"), "image_02")
    assert camera.from_velodyne is not None
    projection = camera.intrinsics @ camera.from_velodyne[:3]
    wall = points(*((10.0, y, z) for y in np.arange(-8, 8, 0.2) for z in (-1.0, 0.0, 1.0)))
    of_camera = velodyne.project(wall, projection, camera.size)
    of_scanner = velodyne.project(wall, projection, camera.size, "velodyne")
    assert np.count_nonzero(of_camera) > 100
    np.testing.assert_allclose(of_camera[of_camera > 0], 10 - 0.27 + 0.003, rtol=1e-6)
    assert (of_scanner[of_camera > 0] == 10).all()


def test_damaged_points_are_named(tmp_path: Path) -> None:
    path = tmp_path / "0000000000.bin"
    path.write_bytes(points((10, 0.0, 0.0)).tobytes()[:-2])
    with pytest.raises(DataError, match="cut short"):
        velodyne.read_points(path)
    depth = velodyne.VelodyneDepth((path, None), STRAIGHT, (HEIGHT, WIDTH))
    assert depth(1).shape == (HEIGHT, WIDTH)
    assert not depth(1).any()


# --- positions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("yaw", [np.pi / 2, 0.0, -2.0])  # north, east, somewhere
def test_metres_driven_straight_are_metres_ahead(tmp_path: Path, yaw: float) -> None:
    way = np.arange(30) * 1.3
    poses = heading(yaw, way[:, None] * [np.cos(yaw), np.sin(yaw)])
    camera = read_raw_camera(calibrate(tmp_path / "2011_09_26"), "image_02")
    assert camera.from_imu is not None
    found = kitti_oxts.camera_poses(packets(poses), camera.from_imu)
    expected = np.tile(np.eye(4), (30, 1, 1))
    expected[:, 2, 3] = way
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_mercator_is_metric_going_north() -> None:
    """Without our own inverse: degrees of latitude are the radius times their radians."""
    rows = np.zeros((11, 11))
    rows[:, 0] = 49 + np.degrees(np.arange(11) * 2.0 / kitti_oxts.EARTH)
    north = kitti_oxts.imu_poses(rows)[:, 1, 3]
    np.testing.assert_allclose(north, np.arange(11) * 2.0, rtol=1e-5)


@given(st.integers(0, 2**32 - 1))
def test_what_stands_still_stays_where_it_is(seed: int) -> None:
    """A world point scanned at two times is one point by the cameras' poses, however the car
    turns between: positions, lever arms and the rectifying turn all agree."""
    rng = np.random.default_rng(seed)
    angles = rng.uniform(-0.4, 0.4, (5, 3))
    angles[:, 2] += rng.uniform(-3, 3)
    poses = np.tile(np.eye(4), (5, 1, 1))
    for pose, (roll, pitch, yaw) in zip(poses, angles, strict=True):
        for angle, i, j in ((yaw, 0, 1), (pitch, 2, 0), (roll, 1, 2)):
            turn = np.eye(3)
            turn[[i, j], [i, j]], turn[j, i], turn[i, j] = (
                np.cos(angle),
                np.sin(angle),
                -np.sin(angle),
            )
            pose[:3, :3] = pose[:3, :3] @ turn
    poses[:, :3, 3] = rng.uniform(-20, 20, (5, 3))
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(0.02), -np.sin(0.02)], [np.sin(0.02), np.cos(0.02)]]
    from_imu = tilt.copy()
    from_imu[:3] = tilt[:3] @ np.vstack([np.c_[AXES, AXES @ IMU + SCANNER], [0, 0, 0, 1]])
    found = kitti_oxts.camera_poses(packets(poses), from_imu)
    point = np.array([*rng.uniform(-30, 30, 3), 1])  # of the world
    seen = from_imu @ np.linalg.inv(poses) @ point  # (5, 4) by each camera
    back = np.einsum("nij,nj->ni", found, seen)
    np.testing.assert_allclose(back, np.tile(back[0], (5, 1)), atol=1e-3)


def test_an_absent_packet_is_an_unknown_pose(tmp_path: Path) -> None:
    rows = packets(heading(0.0, np.arange(6)[:, None] * [1.0, 0]))
    for number, values in enumerate(rows):
        text = " ".join(f"{value:.17g}" for value in [*values, *np.zeros(19)])
        (tmp_path / f"{number:010d}.txt").write_text(text)
    (tmp_path / f"{0:010d}.txt").unlink()
    (tmp_path / f"{3:010d}.txt").write_text("49.0 8.4 nonsense")
    (tmp_path / f"{4:010d}.txt").write_text("49.0 8.4 110.0")
    found = kitti_oxts.read_packets(tmp_path, [0, 1, 2, 3, 4, 5])
    assert np.isnan(found).all(axis=1).tolist() == [True, False, False, True, True, False]
    np.testing.assert_array_equal(found[[1, 2, 5]], rows[[1, 2, 5]])
    poses = kitti_oxts.camera_poses(found, np.eye(4))
    assert np.isnan(poses[[0, 3, 4]]).all()
    np.testing.assert_allclose(poses[5, :3, 3], [4, 0, 0], atol=1e-5)  # of IMU's own x
    assert np.isnan(kitti_oxts.camera_poses(found[[0, 3]], np.eye(4))).all()


def test_timestamps_keep_their_nanoseconds(tmp_path: Path) -> None:
    path = tmp_path / "timestamps.txt"
    path.write_text("2011-09-26 23:59:59.964389445\n2011-09-27 00:00:00.068389446\n\n")
    assert kitti_oxts.read_times(path).tolist() == [0.0, pytest.approx(0.104000001, abs=1e-12)]
    path.write_text("2011-09-26 23:59:59.964389445\nyesterday\n")
    with pytest.raises(DataError, match="other than timestamps"):
        kitti_oxts.read_times(path)


# --- static frames --------------------------------------------------------------------------------


def at_speed(speeds: object) -> np.ndarray:
    rows = np.zeros((np.size(speeds), 11))
    rows[:, 8] = speeds
    return rows


@pytest.mark.parametrize(
    ("speeds", "kept"),
    [
        ([1.0] * 7, [0, 2, 4, 6]),  # 0.1 m a frame
        ([5.0] * 4, [0, 1, 2, 3]),
        ([0.0] * 9, [0]),
        ([0.05] * 9, [0]),  # 4 cm in all: creeping is standing
        ([3.0, 3.0, 0.0, 0.0, 0.0, 3.0, 3.0, 3.0], [0, 1, 5, 6, 7]),  # waits at a light
        ([3.0, 3.0, np.nan, 3.0, 3.0], [0, 1, 2, 3, 4]),  # a packet is missing
        ([np.nan] * 3, [0, 1, 2]),  # nothing is known
    ],
)
def test_frames_are_kept_by_metres_on_the_way(speeds: list[float], kept: list[int]) -> None:
    times = np.arange(len(speeds)) * 0.1
    found = kitti_oxts.moving_frames(at_speed(speeds), times, 0.2 - 1e-9)
    assert np.flatnonzero(found).tolist() == kept


@given(st.lists(st.floats(0, 20), min_size=2, max_size=40), st.floats(0.05, 2))
def test_no_two_kept_frames_are_nearer_than_asked(speeds: list[float], distance: float) -> None:
    times = np.cumsum(np.linspace(0.08, 0.12, len(speeds)))
    rows = at_speed(0.0 * np.array(speeds))
    rows[:, 9] = speeds  # sideways counts as well
    way = np.r_[0, np.cumsum((np.array(speeds)[1:] + speeds[:-1]) / 2 * np.diff(times))]
    keep = np.flatnonzero(kitti_oxts.moving_frames(rows, times, distance))
    assert keep[0] == 0
    assert (np.diff(way[keep]) >= distance - 1e-9).all()
    gaps = np.split(way, keep[1:])
    assert all(gap[-1] - gap[0] < distance + 1e-9 for gap in gaps)  # none more was left out


def test_a_list_of_static_frames_is_read_to_its_last_row(tmp_path: Path) -> None:
    path = tmp_path / "static_frames.txt"
    path.write_text(
        "2011_09_26 2011_09_26_drive_0009_sync 0000000386\r\n\n"
        "2011_09_26 2011_09_26_drive_0009_sync 0000000387\n"
        "2011_09_28 2011_09_28_drive_0001_sync 0000000012"
    )
    assert kitti_lists.read_static(path) == {
        "2011_09_26_drive_0009": {386, 387},
        "2011_09_28_drive_0001": {12},
    }
    path.write_text("2011_09_26 2011_09_26_drive_0009_sync\n")
    with pytest.raises(DataError, match=r"static_frames\.txt:1: .*mend the row"):
        kitti_lists.read_static(path)
    with pytest.raises(DataError, match=r"data\.min_disp"):
        kitti_lists.read_static(tmp_path / "absent.txt")


# --- lists ----------------------------------------------------------------------------------------


def test_the_list_of_eigen_is_whole() -> None:
    """By what is known of it: 25 images of each of 28 drives, but 22 of the one that has no
    more, picked at a step that is each drive's own."""
    found = kitti_lists.eigen_test()
    assert len(found) == 28
    assert sum(map(len, found.values())) == 697
    assert {drive: len(n) for drive, n in found.items() if len(n) != 25} == {
        "2011_09_26_drive_0048": 22
    }
    for numbers in found.values():
        assert list(numbers) == sorted(set(numbers))
    dates = [drive[:10] for drive in found]
    assert {date: dates.count(date) for date in dates} == {
        "2011_09_26": 21, "2011_09_28": 1, "2011_09_29": 1, "2011_09_30": 3, "2011_10_03": 2
    }  # fmt: skip
    assert found["2011_09_26_drive_0002"][:4] == (0, 3, 6, 9)
    assert found["2011_09_30_drive_0018"][-1] == 2740
    assert found["2011_10_03_drive_0027"][-1] == 4535


# --- the data set in miniature --------------------------------------------------------------------

DATE = "2011_09_26"
FRAMES, SPEED = 8, 5.0  # images of a drive, metres per second: half a metre each
TRAINED = ("0001", "0005", "0011", "0014")
TESTED = "0048"  # of Eigen's list: its images 0 to 21, which are all it has


def film(drive: Path, speeds: Sequence[float], yaw: float = 0.7) -> Path:
    """A drive straight on towards a wall that keeps 12 m ahead of the scanner."""
    rng = np.random.default_rng(len(speeds))
    places = np.cumsum([0.0, *speeds[1:]])[:, None] * 0.1 * [np.cos(yaw), np.sin(yaw)]
    rows = packets(heading(yaw, places))
    rows[:, 8] = speeds
    wall = points(*((12.0, y, z) for y in np.arange(-9, 9, 0.5) for z in (-1.5, -0.5, 0.5)))
    for folder in ("image_02/data", "image_03/data", "oxts/data", "velodyne_points/data"):
        (drive / folder).mkdir(parents=True)
    clock = "".join(f"2011-09-26 13:02:{n / 10:012.9f}\n" for n in range(len(speeds)))
    for folder in ("image_02", "image_03", "oxts"):
        (drive / folder / "timestamps.txt").write_text(clock)
    for number, row in enumerate(rows):
        stem = f"{number:010d}"
        for camera in ("image_02", "image_03"):
            image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            cv2.imwrite(str(drive / camera / "data" / f"{stem}.png"), image)
        text = " ".join(f"{value:.17g}" for value in [*row, *np.zeros(19)])
        (drive / "oxts" / "data" / f"{stem}.txt").write_text(text + "\n")
        (drive / "velodyne_points" / "data" / f"{stem}.bin").write_bytes(wall.tobytes())
    return drive


def drive_folder(root: Path, number: str) -> Path:
    return root / DATE / f"{DATE}_drive_{number}_sync"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kitti_raw")
    calibrate(root / DATE)
    for number in TRAINED:
        film(drive_folder(root, number), [SPEED] * FRAMES)
    film(drive_folder(root, TESTED), [SPEED] * 22)
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "set"))


def module(root: Path, **options: Any) -> KittiRaw:
    small = {"height": 12, "width": 40, "eval_frames": 5, "batch_size": 2, "num_workers": 0}
    return KittiRaw(str(root), **{**small, "val_share": 0.25, **options})


def names(drives: Iterable[Drive]) -> list[str]:
    return [drive.name for drive in drives]


def problems(data: SnippetDataModule) -> list[Problem]:
    """What is wrong but that the other drives of Eigen's list are not there."""
    return [p for p in data.listing.problems if not p.why.startswith("25 of the test images")]


def test_the_parts_share_no_drive(whole: Path) -> None:
    listing = module(whole).listing
    train, val = names(listing.train), names(listing.val)
    assert len(train) == 6
    assert len(val) == 2
    drives = {name.rpartition("_")[0] for name in train}
    assert {name.rpartition("_")[0] for name in val} == {val[0].rpartition("_")[0]}
    assert val[0].rpartition("_")[0] not in drives
    assert sorted(val) == [f"{val[0][:-3]}_{camera}" for camera in ("02", "03")]
    assert all(TESTED in name for name in names(listing.test))
    assert len(listing.test) == 22
    only = module(whole, cameras=["image_03"]).listing
    assert names(only.val) == [val[1]]
    assert names(only.train) == [name for name in train if name.endswith("03")]


def test_what_is_missing_of_eigens_list_is_counted(whole: Path) -> None:
    data = module(whole)
    missing = [p for p in data.listing.problems if p.kind == "missing"]
    assert len(missing) == 27
    assert problems(data) == []
    with pytest.warns(UserWarning, match="27 problems with the data"):
        data.setup()
    data.setup()


def test_a_training_snippet_and_its_intrinsics(whole: Path) -> None:
    data = module(whole, hflip=0.0, zoom=1.0)
    sample = data.train_set[0, 0]
    assert sample["video"].shape == (3, 3, 12, 40)
    assert sample["error"] == ""
    halved = [[FOCAL / 2, 0, 19.6], [0, FOCAL / 2, 5.4], [0, 0, 1]]  # (c + 1/2) / 2 - 1/2
    np.testing.assert_allclose(sample["intrinsics"], halved, rtol=1e-6)
    assert len(data.train_set) == 6 * (FRAMES - 2)
    assert "poses" not in sample


def test_a_validation_film_has_metres(whole: Path) -> None:
    data = module(whole)
    batch = next(iter(data.val_dataloader()))
    assert batch["video"].shape == (2, 3, 5, 12, 40)
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 2, 3] = np.arange(5) * SPEED * 0.1
    np.testing.assert_allclose(batch["poses"][0], poses, atol=1e-4)
    assert batch["depth"][0].shape == (5, HEIGHT, WIDTH)
    known = batch["depth"][0][batch["depth"][0] > 0]
    assert len(known) > 200
    np.testing.assert_allclose(known, 12 - 0.27 + 0.003, rtol=1e-5)
    np.testing.assert_allclose(np.diff(batch["time_s"][0]), 0.1, atol=1e-6)


def test_the_depth_of_published_figures(whole: Path) -> None:
    depth = module(whole, depth_axis="velodyne").val_set[0]["depth"]
    assert np.unique(depth).tolist() == [0.0, 12.0]


def test_a_test_clip_is_the_snippet_of_one_listed_image(whole: Path) -> None:
    data = module(whole)
    samples = [data.test_set[n] for n in range(22)]
    assert [sample["frame_idx"].tolist() for sample in samples[:3]] == [
        [0, 0, 1],
        [0, 1, 2],
        [1, 2, 3],
    ]
    assert samples[21]["frame_idx"].tolist() == [20, 21, 21]
    assert all(sample["target"].tolist() == [False, True, False] for sample in samples)
    assert [s["frame_idx"][1].item() for s in samples] == list(range(22))
    assert len({sample["clip_id"] for sample in samples}) == 22
    name = f"{DATE}_drive_{TESTED}_sync_02"
    assert {sample["sequence"] for sample in samples} == {name}
    assert data.evaluation(name)[0]["frame_idx"].tolist() == [0, 1, 2, 3, 4]  # the whole drive
    assert data.evaluation("test")[3]["clip_id"] == f"{name}_0000000003"
    for sample in samples[1:21]:
        assert sample["depth"].shape == (3, HEIGHT, WIDTH)
        assert sample["depth"].any(axis=(1, 2)).tolist() == [False, True, False]
        np.testing.assert_allclose(sample["poses"][:, 2, 3], [0, 0.5, 1.0], atol=1e-4)
    for sample in (samples[0], samples[21]):  # one neighbour is only a copy
        assert sample["poses"].isnan().all()
        assert sample["depth"].any(axis=(1, 2)).tolist() == [False, True, False]
    five = module(whole, snippet=5).test_set
    assert five[0]["frame_idx"].tolist() == [0, 0, 0, 1, 2]
    assert five[9]["frame_idx"].tolist() == [7, 8, 9, 10, 11]


def test_frames_at_which_the_car_stands_are_left_out(root: Path) -> None:
    speeds = [5.0, 5.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 5.0, 5.0]
    for number in TRAINED:
        shutil.rmtree(drive_folder(root, number))
        film(drive_folder(root, number), speeds)
    moving = [0, 1, 2, 3, 9, 10, 11]  # into the halt at half the speed, and out of it
    data = module(root)
    assert list(data.listing.train[0].numbers) == moving
    assert len(data.train_set) == 6 * (2 + 1)  # no snippet across a gap of six
    assert len(module(root, max_gap=6).train_set) == 6 * 5
    assert len(module(root, min_disp=0).train_set) == 6 * 10
    # Nearly always standing is not damage: such a drive is left out without a word.
    shutil.rmtree(drive_folder(root, "0001"))
    film(drive_folder(root, "0001"), [0.1] * FRAMES)
    data = module(root)
    assert not any("0001" in name for name in names([*data.listing.train, *data.listing.val]))
    assert problems(data) == []


def test_a_list_replaces_the_speeds(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "static_frames.txt"
    rows = [f"{DATE} {DATE}_drive_{n}_sync {f:010d}" for n in TRAINED for f in (0, 1)]
    file.write_text("\n".join(rows))
    data = module(root, static_frames=str(file))
    assert all(drive.numbers == tuple(range(2, FRAMES)) for drive in data.listing.train)
    assert len(data.listing.test) == 22


def test_one_position_missing_is_one_unknown_pose(root: Path) -> None:
    name = module(root).listing.val[0].name
    folder = root / DATE / name[:-3] / "oxts" / "data"
    (folder / "0000000002.txt").unlink()
    data = module(root)
    (problem,) = problems(data)
    assert problem.kind == "poses"
    assert problem.what == str(folder / "0000000002.txt")
    assert "1 of the drive's 8 positions" in problem.why
    poses = data.val_set[0]["poses"]
    assert poses.isnan().all(dim=(1, 2)).tolist() == [False, False, True, False, False]
    np.testing.assert_allclose(poses[4, 2, 3], 2.0, atol=1e-4)
    shutil.rmtree(folder)
    data = module(root)
    assert [p.kind for p in problems(data)] == ["poses"]
    assert data.val_set[0]["poses"].isnan().all()
    assert len(data.val_set[0]["depth"]) == 5


def test_a_date_without_calibration_is_left_out(root: Path) -> None:
    other = root / "2011_09_28" / "2011_09_28_drive_0001_sync"
    film(other, [SPEED] * FRAMES)
    data = module(root)
    assert [p.kind for p in problems(data)] == ["calib"] * 2  # once for each camera
    assert "2011_09_28_calib.zip" in problems(data)[0].why
    assert len(data.listing.train) == 6
    for file in (root / DATE).glob("calib*"):
        file.unlink()
    with pytest.raises(DataError, match=r"no clips for training .*calib\.zip"):
        module(root).setup()


@pytest.mark.parametrize(
    ("file", "lost"), [("calib_imu_to_velo", "poses"), ("calib_velo_to_cam", "depth")]
)
def test_without_a_calibration_of_sensors_images_remain(root: Path, file: str, lost: str) -> None:
    (root / DATE / f"{file}.txt").unlink()
    data = module(root)
    assert all(p.kind == "calib" for p in problems(data))
    assert any(f"no {lost}" in p.why for p in problems(data))
    sample = data.val_set[0]
    assert sample["poses"].isnan().all()
    assert (sample["depth"].size == 0) == (lost == "depth")
    assert len(data.train_set) == 36


def test_a_damaged_image_is_one_clip_less(root: Path) -> None:
    data = module(root)
    image = data.listing.val[0].images[2]
    image.write_bytes(image.read_bytes()[:100])
    sample = data.val_set[0]
    assert image.name in sample["error"]
    assert sample["valid"].tolist() == [n != 2 for n in range(len(sample["valid"]))]
    assert data.val_set[2]["error"] == ""


def test_damaged_scans_are_one_clip_less(root: Path) -> None:
    path = drive_folder(root, TESTED) / "velodyne_points" / "data"
    (path / "0000000003.bin").write_bytes(b"123")
    (path / "0000000005.bin").unlink()
    data = module(root)
    (problem,) = problems(data)
    assert problem.what == str(path / "0000000005.bin")
    assert "1 of the drive's 22 test images" in problem.why
    assert "cut short" in data.test_set[3]["error"]
    assert data.test_set[3]["video"].shape == data.test_set[4]["video"].shape
    assert data.test_set[5]["depth"].shape == (0, 0, 0)
    assert data.test_set[5]["error"] == ""


def test_test_images_that_are_not_there_are_named(root: Path) -> None:
    images = drive_folder(root, TESTED) / "image_02" / "data"
    for number in (7, 8):
        (images / f"{number:010d}.png").unlink()
    data = module(root)
    assert [p.what for p in problems(data)] == [str(images / f"{n:010d}.png") for n in (7, 8)]
    assert data.test_set[6]["frame_idx"].tolist() == [5, 6, 9]  # within data.max_gap
    assert module(root, max_gap=1).test_set[6]["frame_idx"].tolist() == [5, 6, 6]


def test_images_of_another_size_than_calibrated(root: Path) -> None:
    for number in (*TRAINED, TESTED):
        for path in drive_folder(root, number).glob("image_02/data/*.png"):
            cv2.imwrite(str(path), np.zeros((HEIGHT // 2, WIDTH // 2, 3), np.uint8))
    data = module(root)
    found = problems(data)
    assert [p.kind for p in found] == ["calib"] * 5  # one for each recording, the tested one too
    assert "they are of 80x24, its images 40x12" in found[0].why
    assert not data.listing.test
    assert len(data.listing.train) == 3
    resized = module(root, intrinsics=[20, 20, 19.6, 5.4], cameras=["image_02"])
    assert problems(resized) == []
    assert resized.test_set[4]["depth"].shape == (3, HEIGHT, WIDTH)  # as the scanner was calibrated


def test_a_short_drive_is_named(root: Path) -> None:
    film(drive_folder(root, "0017"), [SPEED] * 2)
    found = problems(module(root))
    assert [(p.kind, p.label) for p in found] == [
        ("short", f"{DATE}_drive_0017_sync_{camera}") for camera in ("02", "03")
    ]
    assert "2 images, a snippet takes 3" in found[0].why


def test_without_a_clock_ten_images_a_second_are_assumed(root: Path) -> None:
    data = module(root, cameras=["image_02"])
    clock = data.listing.val[0].folder.parent / "timestamps.txt"
    clock.write_text(clock.read_text()[:61])
    data = module(root, cameras=["image_02"])
    (problem,) = problems(data)
    assert (problem.kind, problem.what) == ("times", str(clock))
    np.testing.assert_allclose(data.listing.val[0].times, np.arange(FRAMES) / 10)


def test_a_folder_of_a_drive_knows_its_intrinsics(whole: Path) -> None:
    folder = drive_folder(whole, "0001") / "image_02"
    data = module(whole)
    np.testing.assert_allclose(data.camera_of(folder / "data"), K)
    sample = data.read(folder / "data")
    assert sample["video"].shape == (3, 5, 12, 40)
    with pytest.raises(DataError, match=r"data\.intrinsics"):
        data.camera_of(whole)


def test_no_data_and_wrong_settings(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no KITTI raw data at .*calib_cam_to_cam.*data\.root=FOLDER"
    ):
        module(tmp_path).setup()
    for options, said in (
        ({"cameras": ["image_2"]}, "image_02"),
        ({"cameras": []}, "once"),
        ({"cameras": ["image_02", "image_02"]}, "once"),
        ({"min_disp": -1}, "min_disp"),
        ({"depth_axis": "z"}, "depth_axis"),
        ({"val_share": 0.7}, "val_share"),
    ):
        with pytest.raises(UserError, match=said):
            module(tmp_path, **options)


# --- SfMLearner's format --------------------------------------------------------------------------


@pytest.fixture
def formatted(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for scene in ("a_02", "a_03", "b_02"):
        (tmp_path / scene).mkdir()
        rows = [" ".join(f"{value:.6e}" for value in line) for line in K]
        (tmp_path / scene / "cam.txt").write_text("\n".join(rows))
        lines = []
        for number in (3, 4, 6, 7, 20):
            stem = tmp_path / scene / f"{number:010d}"
            image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            cv2.imwrite(f"{stem}.jpg", image)
            np.save(f"{stem}.npy", np.full((HEIGHT, WIDTH), number, np.float32))
            pose = np.c_[np.eye(3), [0, 0, number]]
            lines.append(" ".join(f"{value:.6e}" for value in pose.ravel()))
        (tmp_path / scene / "poses.txt").write_text("\n".join(lines))
    (tmp_path / "train.txt").write_text("a_02\r\na_03\r\n")
    (tmp_path / "val.txt").write_text("b_02")  # without a newline: nothing may be lost of it
    return tmp_path


def sfm(root: Path, **options: Any) -> KittiFormatted:
    small = {"height": 12, "width": 40, "eval_frames": 4, "batch_size": 2, "num_workers": 0}
    return KittiFormatted(str(root), **{**small, **options})


VAL_TESTS = pytest.mark.filterwarnings("ignore:there is no test part")


def test_scenes_are_read_as_listed(formatted: Path) -> None:
    data = sfm(formatted)
    with pytest.warns(UserWarning, match="validation part serves for testing"):
        listing = data.listing
    assert (names(listing.train), names(listing.val)) == (["a_02", "a_03"], ["b_02"])
    assert names(listing.test) == ["b_02"]
    assert not listing.problems
    assert len(data.train_set) == 2 * 2  # not across the gap before 20
    sample = data.val_set[0]
    assert sample["frame_idx"].tolist() == [3, 4, 6, 7]
    np.testing.assert_allclose(sample["poses"][:, 2, 3], [0, 1, 3, 4])
    assert sample["depth"][:, 0, 0].tolist() == [3, 4, 6, 7]
    (formatted / "test.txt").write_text("a_03\n")
    assert names(sfm(formatted).listing.test) == ["a_03"]


@VAL_TESTS
@pytest.mark.parametrize(
    ("harm", "kind", "said"),
    [
        (lambda scene: (scene / "cam.txt").unlink(), "calib", "nothing tells the intrinsics"),
        (lambda scene: (scene / "cam.txt").write_text("1 0 0\n0 1"), "calib", "rows of 3 numbers"),
        (lambda scene: shutil.rmtree(scene), "missing", "no images"),
        (lambda scene: (scene / "poses.txt").write_text("1 " * 12), "poses", "1 poses for 5"),
        (lambda scene: (scene / "0000000003.npy").write_bytes(b"x"), "truth", "damaged"),
    ],
)
def test_damaged_scenes_are_named(
    formatted: Path, harm: Callable[[Path], object], kind: str, said: str
) -> None:
    harm(formatted / "a_03")
    data = sfm(formatted)
    (problem,) = data.listing.problems
    assert problem.kind == kind
    assert said in problem.why
    kept = kind in ("poses", "truth")
    assert names(data.listing.train) == ["a_02", "a_03"][: 1 + kept]


def test_without_lists_it_is_no_such_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no train\.txt .*prepare_train_data\.py"):
        sfm(tmp_path).setup()
