"""Rendering a frame: one ray a pixel against the ground, the boxes and the sky."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np

from lightning_cam.data.core.arrays import Array
from lightning_cam.synthetic.odometry.course import CAMERA_HEIGHT
from lightning_cam.synthetic.odometry.textures import (
    CLOUDS,
    ROAD,
    look_up,
)
from lightning_cam.synthetic.odometry.world import FLAT, Boxes, World

FRAME_SIZE = (64, 208)  # height, width at scale 1
FARTHEST = 80.0  # metres: what lies beyond has no known depth
GROUND, SKY = -1, -2  # in place of the number of a box
_TILE_GROUND, _TILE_BOX = 6.0, 4.0  # metres
_TILES_SKY = 6  # around the horizon
_BLUR = 1.9  # of textures, in pixels: finer ones would not survive a warp
# Camera 2 of KITTI's sequence 00: fx, fy, cx, cy, and the size of its images.
_KITTI, _KITTI_SIZE = (718.856, 718.856, 607.1928, 185.2157), (376, 1241)


class RenderedFrame(NamedTuple):
    """A frame with its ground truth.

    Attributes:
        frame: (H, W, 3) uint8 RGB.
        depth: (H, W) z in metres, 0 where it is unknown (the sky, or beyond FARTHEST).
        surface: (H, W) number of the box, GROUND, or SKY.
    """

    frame: Array
    depth: Array
    surface: Array


def intrinsics(scale: int = 1) -> Array:
    """The camera matrix (3, 3) for images of `scale` times SIZE; pixel centres are whole."""
    down, right = (scale * side / full for side, full in zip(FRAME_SIZE, _KITTI_SIZE, strict=True))
    fx, fy, cx, cy = _KITTI
    return np.array([
        [fx * right, 0, (cx + 0.5) * right - 0.5], [0, fy * down, (cy + 0.5) * down - 0.5],
        [0, 0, 1],
    ])  # fmt: skip


def render_frame(world: World, frame: int, scale: int = 1) -> RenderedFrame:
    """Render a frame of a world."""
    height, width = (scale * side for side in FRAME_SIZE)
    matrix, pose, boxes = intrinsics(scale), world.course.poses[frame], world.at(frame)
    v, u = np.mgrid[:height, :width].reshape(2, -1)
    pixels = np.stack([u, v, np.ones_like(u)], -1)
    # Of length 1 along the optical axis: distances along a ray are z.
    rays = pixels @ (pose[:3, :3] @ np.linalg.inv(matrix)).T  # (n, 3)
    eye = pose[:3, 3]
    with np.errstate(divide="ignore"):
        plane = (CAMERA_HEIGHT - eye[1]) / rays[:, 1]
    below = plane > 0
    depth = np.where(below, plane, np.inf).reshape(height, width)
    surface = np.where(below, GROUND, SKY).reshape(height, width)
    side = np.ones((height, width), np.intp)  # axis of the normal of the surface that is hit
    for number, rows, columns in _candidates(boxes, pose, matrix, (height, width)):
        part = np.s_[rows, columns]
        _hit(boxes, number, eye, rays.reshape(height, width, 3)[part], depth[part],
             surface[part], side[part])  # fmt: skip
    colours = _shade(world, boxes, eye, rays, depth.ravel(), surface.ravel(), side.ravel(), matrix)
    rgb = np.rint(255 * np.clip(colours, 0, 1)).astype(np.uint8).reshape(height, width, 3)
    return RenderedFrame(rgb, np.where(depth <= FARTHEST, depth, 0), surface)


def _candidates(
    boxes: Boxes, pose: Array, matrix: Array, size: tuple[int, int]
) -> list[tuple[int, slice, slice]]:
    """The boxes that may be seen, and in which rows and columns."""
    height, width = size
    signs = np.stack(np.meshgrid(*[(-1, 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    across, along = _axes(boxes.heading)
    local = signs * boxes.half[:, None]  # (n, 8, 3)
    corners = (
        boxes.centre[:, None] + local[..., :1] * across[:, None] + local[..., 2:] * along[:, None]
    )
    corners[..., 1] += local[..., 1]
    seen = (corners - pose[:3, 3]) @ pose[:3, :3] @ matrix.T  # (n, 8, 3)
    z = seen[..., 2]
    found = []
    for number in np.flatnonzero((z.max(1) > 0.2) & (z.min(1) < 3 * FARTHEST)):
        if z[number].min() < 0.2:  # it reaches behind the camera: no rectangle holds it
            found.append((int(number), slice(0, height), slice(0, width)))
            continue
        u, v = (seen[number, :, :2] / z[number, :, None]).T
        left, right = max(0, int(np.ceil(u.min()))), min(width, int(u.max()) + 1)
        top, bottom = max(0, int(np.ceil(v.min()))), min(height, int(v.max()) + 1)
        if left < right and top < bottom:
            found.append((int(number), slice(top, bottom), slice(left, right)))
    return found


def _axes(heading: Array) -> tuple[Array, Array]:
    """Directions of width and length. (n, 3) each"""
    cos, sin, zero = np.cos(heading), np.sin(heading), np.zeros_like(heading)
    return np.stack([cos, zero, -sin], -1), np.stack([sin, zero, cos], -1)


def _inside(boxes: Boxes, number: Array, vectors: Array) -> Array:
    """Directions of the world in the axes of the boxes. (..., 3)"""
    return np.stack(_turned(boxes, number, vectors), -1)


def _turned(boxes: Boxes, number: Array, vectors: Array) -> tuple[Array, Array, Array]:
    """The same, each axis by itself: NumPy is slow along an axis of three. (...) each"""
    cos, sin = np.cos(boxes.heading[number]), np.sin(boxes.heading[number])
    x, y, z = np.moveaxis(vectors, -1, 0)
    return cos * x - sin * z, y, sin * x + cos * z


def _hit(boxes: Boxes, number: int, eye: Array, rays: Array, depth: Array, surface: Array,
         side: Array) -> None:  # fmt: skip
    """Enter the box wherever a ray meets it before what it met so far (slab test)."""
    start = _inside(boxes, np.array(number), eye - boxes.centre[number])
    slabs = zip(boxes.half[number], start, _turned(boxes, np.array(number), rays), strict=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = [((-half - at) / way, (half - at) / way) for half, at, way in slabs]
    near = [np.minimum(*pair) for pair in ends]
    enter = reduce(np.maximum, near)
    far = reduce(np.minimum, [np.maximum(*pair) for pair in ends])
    hit = (enter < far) & (enter > 0.1) & (enter < depth)
    axis = np.argmax([each[hit] for each in near], 0)
    depth[hit], surface[hit], side[hit] = enter[hit], number, axis


def _shade(world: World, boxes: Boxes, eye: Array, rays: Array, depth: Array, surface: Array,
           side: Array, matrix: Array) -> Array:  # fmt: skip
    """Colours of what the rays meet. (n, 3), 1 = white"""
    index, place = np.empty(len(rays), np.intp), np.empty((len(rays), 2))
    footprint, light = np.empty(len(rays)), np.ones((len(rays), 3))
    length, slope = np.linalg.norm(rays, axis=-1), 1 / matrix[0, 0]

    sky = np.flatnonzero(surface == SKY)
    x, y, z = rays[sky].T
    turn = _TILES_SKY / (2 * np.pi)
    place[sky] = turn * np.stack([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))], -1)
    index[sky], footprint[sky], light[sky] = CLOUDS, _BLUR * turn * slope, (0.95, 1.15, 1.35)

    ground = np.flatnonzero(surface == GROUND)
    hits = eye + depth[ground, None] * rays[ground]
    place[ground], index[ground] = hits[:, [0, 2]] / _TILE_GROUND, ROAD
    cosine = np.abs(rays[ground, 1]) / length[ground]
    footprint[ground] = _footprint(depth[ground] * slope, cosine) / _TILE_GROUND

    box = np.flatnonzero(surface >= 0)
    number, axis = surface[box], side[box]
    hits = _inside(boxes, number, eye + depth[box, None] * rays[box] - boxes.centre[number])
    way = _inside(boxes, number, rays[box])
    across = hits[np.arange(len(box)), np.where(axis == 0, 2, 0)]
    up = hits[np.arange(len(box)), np.where(axis == 1, 2, 1)]
    place[box] = np.stack([across, up], -1) / _TILE_BOX + boxes.shift[number] + 0.37 * axis[:, None]
    into = way[np.arange(len(box)), axis]
    footprint[box] = _footprint(depth[box] * slope, np.abs(into) / length[box]) / _TILE_BOX
    sun = _inside(boxes, number, np.broadcast_to(world.sun, (len(box), 3)))
    facing = -np.sign(into) * sun[np.arange(len(box)), axis]
    light[box] = (0.8 + 0.4 * np.maximum(facing, 0))[:, None] * boxes.tint[number]
    flat = boxes.texture[number] == FLAT
    index[box] = np.where(flat, 0, boxes.texture[number])

    colours = light * look_up(world.seed, index, place, footprint)
    colours[box[flat]] = boxes.tint[number[flat]]
    return colours


def _footprint(width: Array, cosine: Array) -> Array:
    """What a pixel sees of a slanted surface: between its width and its length."""
    return _BLUR * width / np.sqrt(np.maximum(cosine, 0.08))
