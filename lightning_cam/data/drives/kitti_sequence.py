"""Files of one sequence of KITTI odometry: calibration, poses, times, ground truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_cam.data.core.arrays import FloatArray
from lightning_cam.data.core.listing import Problem
from lightning_cam.data.core.text_files import text_of
from lightning_cam.data.drives import cameras
from lightning_cam.data.drives.drive import DepthFolder, Drive, drive_of
from lightning_cam.data.drives.kitti_calibration import read_calib
from lightning_cam.data.video import frame_folders as images
from lightning_cam.errors import DataError

CAMERA_FOLDERS = ("image_0", "image_1", "image_2", "image_3")
CALIBRATION_FILE = "calib.txt"
TRUTH = "ground_truth"
_WITH_POSES = 11  # sequences 00 to 10 have public ones


def read_sequence(
    top: Path,
    number: int,
    camera: str,
    given: FloatArray | None = None,
    *,
    measured: bool = True,
) -> tuple[Drive | None, list[Problem]]:
    """One sequence, None where it cannot be used, and what is wrong with it.

    Args:
        top: the folder of `sequences` and `poses`.
        number: of the sequence.
        camera: one of `CAMERA_FOLDERS`.
        given: intrinsics (3, 3) in place of the calibration's.
        measured: whether poses are needed.
    """
    name = f"{number:02d}"
    place = top / "sequences" / name
    folder, calibration = place / camera, place / CALIBRATION_FILE
    found, problems = _distinct(folder, name)
    if not found:
        return None, [*problems, Problem("missing", str(folder), _why_no_images(place), name)]
    try:
        intrinsics = given if given is not None else read_odometry_camera(calibration, camera)[0]
    except DataError as error:
        return None, [*problems, Problem("calib", str(place), str(error), name)]
    drive = drive_of(name, folder, found, intrinsics)
    count = drive.numbers[-1] + 1  # of the lines of each file
    if lost := count - len(found):
        why = f"{lost} of its images up to number {drive.numbers[-1]} are missing; copy it again"
        problems.append(Problem("gap", str(folder), why, name))
    poses, times = top / "poses" / f"{name}.txt", place / "times.txt"
    try:
        known = _camera_poses(poses, count, calibration, camera)
        if known is not None:
            drive = replace(drive, poses=known[list(drive.numbers)])
        elif measured and number < _WITH_POSES:
            why = "not there, so nothing can be measured on this sequence"
            raise DataError(f"{why}; unpack data_odometry_poses.zip")
    except DataError as error:
        problems.append(Problem("poses", str(poses), str(error), name))
    try:
        if times.is_file():
            seconds = _lines(times, count, "times", _times)
            drive = replace(drive, times=seconds[list(drive.numbers)])
    except DataError as error:
        problems.append(Problem("times", str(times), str(error), name))
    return drive, problems


def _camera_poses(path: Path, count: int, calibration: Path, camera: str) -> FloatArray | None:
    """Poses (count, 4, 4) of a camera, from those of camera 0 in a file; None where it is absent.

    Raises:
        DataError: a file makes no sense.
    """
    if not path.is_file():
        return None
    known = calibration.is_file()
    offset = read_odometry_camera(calibration, camera)[1] if known else np.zeros(3)
    return cameras.shifted_poses(_lines(path, count, "poses", _poses), offset)


def _why_no_images(place: Path) -> str:
    there = [camera for camera in CAMERA_FOLDERS if images.numbered(place / camera)]
    if there:
        return f"no images; there are some in {', '.join(there)}: set data.camera"
    return "not there, though data.train, val or test name it; copy it, or leave it out"


def with_truth(drive: Drive, place: Path) -> Drive:
    """The drive with the depth and the masks in its folder of ground truth, where there are some.

    Args:
        drive: a sequence.
        place: folder of `depth` and of a folder for each mask.
    """
    if not place.is_dir():
        return drive
    folders = {folder.name: folder for folder in sorted(place.iterdir()) if folder.is_dir()}
    if (depth := folders.pop("depth", None)) is not None:
        names = tuple(f"{path.stem}.png" for path in drive.images)
        drive = replace(drive, depth=DepthFolder(depth, names))
    return replace(drive, masks=folders)


def read_odometry_camera(path: Path, camera: str) -> tuple[FloatArray, FloatArray]:
    """Intrinsics (3, 3) of a rectified camera, and what is added to points of camera 0, (3,).

    Args:
        path: `calib.txt`.
        camera: "image_2" is P2.

    Raises:
        DataError: it is absent or has no such camera.
    """
    if not path.is_file():
        raise DataError(
            f"there is no {str(path)!r}: unpack data_odometry_calib.zip, or set "
            "data.intrinsics=[FX,FY,CX,CY] of the images"
        )
    name = f"P{camera.removeprefix('image_')}"
    row = read_calib(path).get(name)
    if row is None or row.size != 12 or not np.isfinite(row).all():
        raise DataError(
            f"{str(path)!r} has no row {name} of 12 numbers: copy it again, or set "
            "data.intrinsics=[FX,FY,CX,CY]"
        )
    projection = row.reshape(3, 4)
    intrinsics = projection[:, :3]
    if np.linalg.det(intrinsics) <= 0:
        raise DataError(f"row {name} of {str(path)!r} is not a camera: copy it again")
    return intrinsics, np.linalg.inv(intrinsics) @ projection[:, 3]


def _distinct(folder: Path, name: str) -> tuple[list[tuple[int, str]], list[Problem]]:
    """Images by number, and those that repeat one."""
    found, problems = [], []
    for number, group in groupby(images.numbered(folder), lambda pair: pair[0]):
        (_, first), *others = group
        found.append((number, first))
        problems += [
            Problem("stray", str(folder / file), f"{first} has its number; keep one", name)
            for _, file in others
        ]
    return found, problems


def _lines(
    path: Path, count: int, what: str, parse: Callable[[list[list[str]]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """A text file of so many lines.

    Raises:
        DataError: it has other than that; the message does not name it.
    """
    try:
        text = text_of(path)
        rows = [line.split() for line in text.splitlines() if line.strip()]
        if len(rows) != count:
            raise DataError(
                f"it has {len(rows)} {what}, the images count {count}: none are used; copy both "
                "again"
            )
        return parse(rows)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror}): check its rights") from error
    except ValueError as error:
        raise DataError(f"its {what} are not used: {error}; copy it again") from error


def _poses(rows: list[list[str]]) -> NDArray[np.float64]:
    _same(rows, 12)
    return cameras.rigid_poses(np.array(rows, np.float64).reshape(-1, 3, 4))


def _times(rows: list[list[str]]) -> NDArray[np.float64]:
    _same(rows, 1)
    times = np.array(rows, np.float64)[:, 0]
    if not all(sooner < later for sooner, later in pairwise(times)):
        raise ValueError("they do not increase")
    return times


def _same(rows: list[list[str]], columns: int) -> None:
    wrong = next((n for n, row in enumerate(rows, 1) if len(row) != columns), None)
    if wrong is not None:
        raise ValueError(f"line {wrong} has other than {columns} numbers")
