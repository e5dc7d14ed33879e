"""Calibration files of KITTI raw: what a rectified camera sees, and where scanner and IMU sit.

    <date>/calib_cam_to_cam.txt      S_rect_02, R_rect_00, P_rect_02 ... one "KEY: numbers" a line
    <date>/calib_velo_to_cam.txt     R, T from the laser scanner to camera 0
    <date>/calib_imu_to_velo.txt     R, T from the IMU to the scanner

Geiger et al., "Vision meets Robotics: The KITTI Dataset", IJRR 2013, section III.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_cam.data.core.arrays import FloatArray
from lightning_cam.data.core.text_files import text_of
from lightning_cam.errors import DataError

CAMERAS_FILE, SCANNER_FILE, IMU_FILE = (
    "calib_cam_to_cam.txt",
    "calib_velo_to_cam.txt",
    "calib_imu_to_velo.txt",
)


@dataclass(frozen=True, eq=False)
class Camera:
    """A rectified camera of one date.

    Attributes:
        intrinsics: (3, 3) of its images.
        size: (height, width) of its images. None, here and below: not known.
        from_velodyne: (4, 4), maps points of the laser scanner into the camera.
        from_imu: (4, 4), maps points of the IMU into the camera.
    """

    intrinsics: FloatArray
    size: tuple[int, int] | None = None
    from_velodyne: FloatArray | None = None
    from_imu: FloatArray | None = None

    @property
    def to_pixels(self) -> FloatArray | None:
        """(3, 4), projects points of the laser scanner to homogeneous pixels."""
        if self.from_velodyne is None:
            return None
        return self.intrinsics @ self.from_velodyne[:3]


def read_calib(path: Path) -> dict[str, FloatArray]:
    """Numbers of a calibration file by their names; lines of words (dates) are left out.

    Raises:
        DataError: it cannot be read.
    """
    try:
        lines = text_of(path).splitlines()
    except OSError as error:
        raise DataError(
            f"cannot read calibration {str(path)!r} ({error.strerror}): unpack "
            f"{path.parent.name}_calib.zip there"
        ) from error
    found = {}
    for line in lines:
        name, _, text = line.partition(":")
        try:
            found[name.strip()] = np.array(text.split(), np.float64)
        except ValueError:
            continue
    return found


def read_raw_camera(date: Path, name: str) -> Camera:
    """One camera of a date.

    Args:
        date: the folder of the calibration files.
        name: of the images' folder, "image_02".

    Raises:
        DataError: a file is damaged, or that of the cameras is not there.
    """
    number = name.removeprefix("image_")
    path = date / CAMERAS_FILE
    cameras = read_calib(path)
    projection = _numbers(cameras, f"P_rect_{number}", (3, 4), path)
    width, height = _numbers(cameras, f"S_rect_{number}", (2,), path)
    intrinsics = projection[:, :3]
    if not (np.linalg.det(intrinsics) > 0 and width >= 1 and height >= 1):
        raise DataError(f"{str(path)!r} has no usable camera {number}: copy it again")
    # Everything is rectified to camera 0; the last column shifts from there to the camera.
    rectify, shift = np.eye(4), np.eye(4)
    rectify[:3, :3] = _numbers(cameras, "R_rect_00", (3, 3), path)
    shift[:3, 3] = np.linalg.solve(intrinsics, projection[:, 3])
    from_velodyne = from_imu = None
    if (date / SCANNER_FILE).exists():
        from_velodyne = shift @ rectify @ _motion(date / SCANNER_FILE)
        if (date / IMU_FILE).exists():
            from_imu = from_velodyne @ _motion(date / IMU_FILE)
    return Camera(intrinsics, (round(height), round(width)), from_velodyne, from_imu)


def _motion(path: Path) -> FloatArray:
    values = read_calib(path)
    motion = np.eye(4)
    motion[:3, :3] = _numbers(values, "R", (3, 3), path)
    motion[:3, 3] = _numbers(values, "T", (3,), path)
    return motion


def _numbers(
    values: dict[str, FloatArray], name: str, shape: tuple[int, ...], path: Path
) -> FloatArray:
    found = values.get(name)
    if found is None or found.size != np.prod(shape) or not np.isfinite(found).all():
        raise DataError(
            f"{str(path)!r} has no row {name} of {np.prod(shape)} numbers: copy it again"
        )
    return found.reshape(shape)
