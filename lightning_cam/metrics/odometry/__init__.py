"""Errors of a predicted ego-motion, and trajectories."""

from lightning_cam.metrics.odometry.errors import SnippetErrors, TrajectoryErrors, snippet_errors
from lightning_cam.metrics.odometry.trajectories import (
    Similarity,
    align_trajectories,
    chain,
    constant_velocity,
    kitti_errors,
    umeyama,
)

__all__ = [
    "Similarity",
    "SnippetErrors",
    "TrajectoryErrors",
    "align_trajectories",
    "chain",
    "constant_velocity",
    "kitti_errors",
    "snippet_errors",
    "umeyama",
]
