"""Noise that gives synthetic surfaces their texture."""

from __future__ import annotations

import cv2
import numpy as np

from lightning_cam.data.core.arrays import Array


def smooth_noise(rng: np.random.Generator, cells: tuple[int, ...], size: tuple[int, int]) -> Array:
    """Smooth noise (height, width, channels) float32 of about -0.5 to 0.5, between coarse cells.

    Args:
        rng: gives the values of the cells.
        cells: rows, columns and, where there are several, channels.
        size: height, width.
    """
    coarse = rng.uniform(-0.5, 0.5, cells).astype(np.float32)
    fine = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return fine.reshape(*size, -1)  # OpenCV drops a single channel
