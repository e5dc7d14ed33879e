"""Where the evidence of depth and motion lies in a sequence, by geometry."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from lightning_cam.data.core.arrays import Array
from lightning_cam.synthetic.odometry.ray_casting import RenderedFrame, intrinsics
from lightning_cam.synthetic.odometry.world import FLAT, World

EVIDENCE_MASKS = ("moving", "flat", "rich")
_RICH = 0.25  # share of the pixels that could be rich


def evidence_masks(
    world: World, shots: Sequence[RenderedFrame], scale: int = 1
) -> dict[str, Array]:
    """Masks (n, H, W) of `EVIDENCE_MASKS` in the first n frames of the evidence sequence.

    - moving: the box that moves by itself, which no motion of the camera explains.
    - flat: the wall of one colour, where any depth gives the same image.
    - rich: texture with parallax, where a wrong depth is seen. Of all pixels that stand still and
      have a known depth, the quarter with the highest `response` over the whole sequence, smoothed
      over a few pixels (Gaussian, 2 pixels times the scale); never on or next to the other two.
    """
    surface = np.stack([shot.surface for shot in shots])
    moving = surface == len(world.boxes) - 1
    flat = np.isin(surface, np.flatnonzero(world.boxes.texture == FLAT))
    depth = np.stack([shot.depth for shot in shots])
    candidates = (depth > 0) & ~moving
    frames = np.stack([shot.frame for shot in shots])
    seen = response(frames, depth, world.course.poses[: len(shots)], intrinsics(scale))
    # Gradients at their outlines are those of what lies behind or before.
    border = np.array([cv2.dilate(one.astype(np.uint8), np.ones((3, 3))) for one in moving | flat])
    textured = candidates & ~border.astype(bool)
    smooth = np.stack(
        [_smooth(one, where, 2.0 * scale) for one, where in zip(seen, textured, strict=True)]
    )
    rich = textured & (smooth >= np.quantile(smooth[candidates], 1 - _RICH))
    return {"moving": moving, "flat": flat, "rich": rich}


def response(frames: Array, depth: Array, poses: Array, matrix: Array) -> Array:
    """How much the image changes with the depth: |gradient of the image . parallax|.

    The parallax is the derivative of the place where a pixel is found in a neighbouring frame by
    the logarithm of its inverse depth; for small motions that is the flow that the translation of
    the camera causes there. Averaged over the previous and the next frame, as far as the pixel
    falls inside them; 0 where the depth is unknown.

    Args:
        frames: (n, H, W, 3) uint8.
        depth: (n, H, W), 0 = unknown.
        poses: (n, 4, 4) camera to world.
        matrix: (3, 3) intrinsics.

    Returns:
        (n, H, W), change of grey (1 = from black to white) for depth wrong by a factor e.
    """
    grey = frames.mean(-1) / 255
    dy, dx = np.gradient(grey, axis=(1, 2))
    height, width = depth.shape[1:]
    v, u = np.mgrid[:height, :width]
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(matrix).T
    out = np.zeros_like(grey)
    for frame in range(len(frames)):
        inverse = np.divide(1, depth[frame], where=depth[frame] > 0, out=np.zeros_like(grey[0]))
        total, count = np.zeros_like(inverse), np.zeros_like(inverse)
        for source in {frame - 1, frame + 1} & set(range(len(frames))):
            motion = np.linalg.inv(poses[source]) @ poses[frame]
            start, way = rays @ (matrix @ motion[:3, :3]).T, matrix @ motion[:3, 3]
            x, y, z = np.moveaxis(start + inverse[..., None] * way, -1, 0)
            z = np.where(z > 1e-3, z, np.nan)  # compares as outside
            x, y = x / z, y / z
            inside = (inverse > 0) & (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
            parallax = (way[0] - x * way[2]) * dx[frame] + (way[1] - y * way[2]) * dy[frame]
            total += np.where(inside, np.abs(inverse / z * parallax), 0)
            count += inside
        out[frame] = total / np.maximum(count, 1)
    return out


def _smooth(values: Array, where: Array, sigma: float) -> Array:
    """Gaussian mean over the pixels of a mask; 0 outside of it."""
    weight = cv2.GaussianBlur(where.astype(float), (0, 0), sigma)
    total = cv2.GaussianBlur(np.where(where, values, 0.0), (0, 0), sigma)
    return np.where(where, total / np.maximum(weight, 1e-9), 0)
