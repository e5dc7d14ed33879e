"""Depth of images from a laser scanner's points, as evaluations on KITTI have it.

    velodyne_points/data/0000000000.bin      float32 rows x, y, z, reflectance

The scanner's axes point forward, left and up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_cam.errors import DataError

AXES = ("camera", "velodyne")


def read_points(path: Path) -> NDArray[np.float32]:
    """Points of a scan. (n, 4)

    Raises:
        DataError: it cannot be read, or is not such a file.
    """
    try:
        values = np.fromfile(path, "<f4")
    except OSError as error:
        raise DataError(f"cannot read points {str(path)!r}: {error.strerror}") from error
    if values.size % 4 or path.stat().st_size % 16 or not values.size:
        raise DataError(f"points {str(path)!r} are cut short: copy the file again or remove it")
    return values.reshape(-1, 4)


def project(
    points: NDArray[np.float32],
    projection: NDArray[np.float64],
    size: tuple[int, int],
    axis: str = "camera",
) -> NDArray[np.float32]:
    """Depth of the pixels that points fall on; the nearest point counts.

    As in the evaluation of Eigen et al., points behind the scanner do not count, and pixels are
    rounded image coordinates less one (KITTI's own count from one).

    Args:
        points: (n, 4) as scanned.
        projection: (3, 4) from the scanner to homogeneous pixels.
        size: (height, width) of the image.
        axis: what depth is: "camera": z of the camera; "velodyne": x of the scanner, which
            published evaluations take for it (in KITTI about 0.27 m more).

    Returns:
        (height, width) metres, 0 where there is no point.
    """
    points = points[points[:, 0] >= 0].astype(np.float64)
    x, y, z = projection[:, :3] @ points[:, :3].T + projection[:, 3:]  # (n,) each
    front = z > 0
    x, y, z, forward = x[front], y[front], z[front], points[front, 0]
    height, width = size
    column, row = np.rint(x / z) - 1, np.rint(y / z) - 1
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    depth = (z if axis == "camera" else forward)[inside]
    pixel = (row * width + column)[inside].astype(np.int64)
    far_first = np.argsort(-depth, kind="stable")  # so that the nearest is written last
    flat = np.zeros(height * width, np.float32)
    flat[pixel[far_first]] = depth[far_first]
    return flat.reshape(height, width)


@dataclass(frozen=True, eq=False)
class VelodyneDepth:
    """True depth of a drive's images.

    Attributes:
        files: of the images; where there is none, no depth is known.
        projection: see `project`.
        size: as there.
        axis: as there.
    """

    files: tuple[Path | None, ...]
    projection: NDArray[np.float64]
    size: tuple[int, int]
    axis: str = "camera"

    def __call__(self, position: int) -> NDArray[np.float32]:
        """Depth of the image at a position. (height, width)

        Raises:
            DataError: the scan is damaged.
        """
        path = self.files[position]
        if path is None:
            return np.zeros(self.size, np.float32)
        return project(read_points(path), self.projection, self.size, self.axis)

    def only(self, position: int) -> VelodyneDepth:
        """That of the image at one position alone."""
        kept = (file if at == position else None for at, file in enumerate(self.files))
        return replace(self, files=tuple(kept))
