"""Pinhole cameras and their poses: pure functions of numpy arrays.

Centres of pixels have whole coordinates, u to the right and v down. A pose (4, 4) maps points of
the camera into the world, x right, y down and z forward.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lightning_cam.data.core.arrays import FloatArray

_SKEW = 0.01  # by which rows of a rotation may fail to be orthonormal: text has few digits


def pinhole(fx: float, fy: float, cx: float, cy: float) -> FloatArray:
    """Intrinsics (3, 3)."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64)


def resized_intrinsics(intrinsics: ArrayLike, sx: float, sy: float) -> FloatArray:
    """Intrinsics of images whose sides were multiplied by these factors."""
    scale = np.array([[sx, 0, sx / 2 - 0.5], [0, sy, sy / 2 - 0.5], [0, 0, 1]])
    return scale @ np.asarray(intrinsics, np.float64)


def cropped_intrinsics(intrinsics: ArrayLike, left: int, top: int) -> FloatArray:
    """Intrinsics of images that lost so many columns on the left and rows at the top."""
    k = np.array(intrinsics, np.float64)
    k[:2, 2] -= left, top
    return k


def mirrored_intrinsics(intrinsics: ArrayLike, width: int) -> FloatArray:
    """Intrinsics of images of this width whose left and right were exchanged."""
    k = np.array(intrinsics, np.float64)
    k[0, 2] = width - 1 - k[0, 2]
    return k


def misfit(intrinsics: ArrayLike, height: int, width: int) -> str:
    """Why intrinsics cannot be of images of this size, in words; "" if they can.

    The principal point of a camera is near the middle. Outside of the middle half of a side it
    tells that the images were resized, or that the calibration is of another camera.
    """
    k = np.asarray(intrinsics, np.float64)
    if k.shape != (3, 3) or not np.isfinite(k).all() or min(k[0, 0], k[1, 1]) <= 0:
        return "they are not a matrix of 3 x 3 numbers with focal lengths above 0"
    (cx, cy), size = k[:2, 2], f"{width}x{height}"
    if abs(cx - (width - 1) / 2) > width / 4 or abs(cy - (height - 1) / 2) > height / 4:
        return f"the principal point ({cx:.1f}, {cy:.1f}) is far from the middle of {size} images"
    return ""


def rigid_poses(matrices: ArrayLike) -> FloatArray:
    """Poses (n, 4, 4) of matrices (n, 3, 4) with rotations made exact (by SVD).

    Raises:
        ValueError: what should be a rotation is none.
    """
    given = np.asarray(matrices, np.float64)
    rotation = given[:, :, :3]
    if not np.isfinite(given).all():
        raise ValueError("they are not all finite")
    error = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(initial=0, axis=(1, 2))
    wrong = np.flatnonzero((error > _SKEW) | (np.linalg.det(rotation) < 0))
    if wrong.size:
        raise ValueError(f"that of line {wrong[0] + 1} is not a rotation with a translation")
    u, _, v = np.linalg.svd(rotation)
    poses = np.tile(np.eye(4), (len(given), 1, 1))
    poses[:, :3, :3] = u @ v
    poses[:, :3, 3] = given[:, :, 3]
    return poses


def shifted_poses(poses: ArrayLike, offset: Sequence[float] | FloatArray) -> FloatArray:
    """Poses of a camera whose points are those of the given one plus an offset, X' = X + offset.

    Both worlds are the frame of their camera's first image, so that T' = A T inv(A).
    """
    there, back = np.eye(4), np.eye(4)
    there[:3, 3], back[:3, 3] = offset, -np.asarray(offset, np.float64)
    return there @ np.asarray(poses, np.float64) @ back


def relative_to_first(poses: ArrayLike) -> FloatArray:
    """Poses (n, 4, 4) in the frame of the first camera, inv(P_0) P_t."""
    p = np.asarray(poses, np.float64)
    return np.linalg.inv(p[0]) @ p
