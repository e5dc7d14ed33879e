"""Positions and speeds of KITTI raw, from its GPS and IMU ("oxts"), and frames that stand still.

    oxts/data/0000000000.txt      lat lon alt roll pitch yaw vn ve vf vl vu ...
    oxts/timestamps.txt           2011-09-26 13:02:25.594360375, one a line

Degrees for latitude and longitude, radians for angles, metres and seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_cam.data.core.arrays import FloatArray
from lightning_cam.data.core.text_files import text_of
from lightning_cam.errors import DataError

EARTH = 6378137.0  # radius in metres, as in KITTI's development kit
PERIOD = 0.1  # seconds between frames, where no clock tells them
_USED = 11  # of the 30 numbers of a packet


def read_packets(folder: Path, numbers: Sequence[int]) -> FloatArray:
    """The first numbers of the packets of frames; NaN where there is no readable one. (n, 11)

    Args:
        folder: `oxts/data`.
        numbers: of the frames: files are found by number, for some may be missing.
    """
    packets = np.full((len(numbers), _USED), np.nan)
    for packet, number in zip(packets, numbers, strict=True):
        try:
            values = np.array(text_of(folder / f"{number:010d}.txt").split(), np.float64)
        except (OSError, ValueError):
            continue
        if len(values) >= _USED and np.isfinite(values[:_USED]).all():
            packet[:] = values[:_USED]
    return packets


def read_times(path: Path) -> FloatArray:
    """Seconds since the first of the timestamps in a file. (n,)

    Raises:
        DataError: it is not such a file.
    """
    try:
        lines = [line.strip() for line in text_of(path).splitlines() if line.strip()]
        times = np.array(lines, "datetime64[ns]")
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{str(path)!r} holds other than timestamps: copy it again") from error
    return (times - times[:1]).astype(np.int64) * 1e-9


def imu_poses(packets: FloatArray) -> FloatArray:
    """Where the IMU is, from packets: Mercator's projection as in KITTI's development kit.

    Args:
        packets: (n, 11) of one drive, NaN where unknown.

    Returns:
        (n, 4, 4) IMU -> world (east, north, up; the first known place is its origin), NaN where
        unknown.
    """
    latitude, longitude, altitude, roll, pitch, yaw = packets[:, :6].T
    poses = np.full((len(packets), 4, 4), np.nan)
    known = np.flatnonzero(np.isfinite(latitude))
    if not known.size:
        return poses
    scale = np.cos(np.radians(latitude[known[0]]))  # of the map at the first place
    place = np.stack(
        [
            scale * EARTH * np.radians(longitude),
            scale * EARTH * np.log(np.tan(np.radians(90 + latitude) / 2)),
            altitude,
        ],
        axis=-1,
    )
    poses[:] = np.eye(4)
    poses[:, :3, :3] = _turn(yaw, 0, 1) @ _turn(pitch, 2, 0) @ _turn(roll, 1, 2)
    poses[:, :3, 3] = place - place[known[0]]
    poses[np.isnan(latitude)] = np.nan
    return poses


def camera_poses(packets: FloatArray, from_imu: FloatArray) -> FloatArray:
    """Camera -> world from packets and the place of the IMU, NaN where unknown. (n, 4, 4)

    World is the camera at the first known packet: x right, y down, z forward.

    Args:
        packets: (n, 11) of one drive.
        from_imu: (4, 4), maps points of the IMU into the camera.
    """
    poses = imu_poses(packets) @ np.linalg.inv(from_imu)
    known = np.flatnonzero(np.isfinite(poses[:, 0, 0]))
    return np.linalg.inv(poses[known[0]]) @ poses if known.size else poses


def moving_frames(packets: FloatArray, times: FloatArray, distance: float) -> NDArray[np.bool_]:
    """Which frames to keep so that the camera moves from each to the next: the first, and then
    each that is `distance` or more on the way from the last one kept.

    The way is the integral of the speed: metres per second times seconds.

    Args:
        packets: (n, 11); gaps are bridged. Without any packet all frames are kept.
        times: (n,) seconds, increasing.
        distance: metres.
    """
    speed = np.linalg.norm(packets[:, 8:11], axis=1)  # vf, vl, vu: in the car's own axes
    known = np.isfinite(speed)
    if not known.any():
        return np.ones(len(packets), bool)
    speed = np.interp(times, times[known], speed[known])
    steps = (speed[1:] + speed[:-1]) / 2 * np.diff(times)
    keep = np.zeros(len(packets), bool)
    way = np.inf
    for position, step in enumerate([0.0, *steps]):
        way += step
        if way >= distance:
            keep[position] = True
            way = 0.0
    return keep


def _turn(angle: FloatArray, first: int, second: int) -> FloatArray:
    """Rotations by angles from one axis towards another. (n, 3, 3)"""
    turns = np.zeros((len(angle), 3, 3))
    turns[:] = np.eye(3)
    turns[:, first, first] = turns[:, second, second] = np.cos(angle)
    turns[:, second, first] = np.sin(angle)
    turns[:, first, second] = -np.sin(angle)
    return turns
