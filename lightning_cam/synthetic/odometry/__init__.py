"""Synthetic odometry: drives through a textured world, in the layout of KITTI odometry.

Boxes of a few materials stand beside a road that takes turns. Pose, depth and camera matrix of
every frame are exact. In one more sequence something moves by itself, and a wall shows nothing at
all: evidence masks mark both, and where a wrong depth would be seen best.
"""

from __future__ import annotations

from lightning_cam.synthetic.odometry.evidence import EVIDENCE_MASKS, evidence_masks
from lightning_cam.synthetic.odometry.files import (
    EVIDENCE_SEQUENCE,
    TEST,
    TRAIN,
    VAL,
    render_odometry,
    trajectory,
    world_of,
)
from lightning_cam.synthetic.odometry.ray_casting import intrinsics, render_frame

__all__ = [
    "EVIDENCE_MASKS",
    "EVIDENCE_SEQUENCE",
    "TEST",
    "TRAIN",
    "VAL",
    "evidence_masks",
    "intrinsics",
    "render_frame",
    "render_odometry",
    "trajectory",
    "world_of",
]
