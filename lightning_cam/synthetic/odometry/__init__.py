"""Synthetic odometry: drives through a textured world, in the layout of KITTI odometry.

Boxes of a few materials stand beside a road that takes turns. Pose, depth and camera matrix of
every frame are exact. In one more sequence, the probe, something moves by itself, and a wall shows
nothing at all: there is a mask of each, and of where a wrong depth would be seen best.
"""

from __future__ import annotations

from lightning_cam.synthetic.odometry.evidence import PARTS, masks
from lightning_cam.synthetic.odometry.files import (
    PROBE,
    TEST,
    TRAIN,
    VAL,
    draw,
    render,
    trajectory,
)
from lightning_cam.synthetic.odometry.ray_casting import intrinsics, shoot

__all__ = [
    "PARTS",
    "PROBE",
    "TEST",
    "TRAIN",
    "VAL",
    "draw",
    "intrinsics",
    "masks",
    "render",
    "shoot",
    "trajectory",
]
