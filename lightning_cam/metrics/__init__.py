"""Objective measures of heatmaps, and of depth and camera motion."""

from lightning_cam.metrics.depth import DepthErrors, depth_errors
from lightning_cam.metrics.faithfulness import Curve, Ends, deletion, insertion
from lightning_cam.metrics.localisation import (
    EnergyPointingGame,
    PointingGame,
    TemporalIoU,
    energy_inside,
    pointing_hits,
    temporal_iou,
)
from lightning_cam.metrics.mean_curves import (
    Deletion,
    Insertion,
    MeanCurve,
    Statistics,
    summarise,
)
from lightning_cam.metrics.odometry import SnippetErrors, TrajectoryErrors, snippet_errors
from lightning_cam.metrics.protocol import PROTOCOLS, Protocol
from lightning_cam.metrics.trajectories import (
    Similarity,
    align,
    chain,
    constant_velocity,
    kitti_errors,
    umeyama,
)

__all__ = [
    "PROTOCOLS",
    "Curve",
    "Deletion",
    "DepthErrors",
    "Ends",
    "EnergyPointingGame",
    "Insertion",
    "MeanCurve",
    "PointingGame",
    "Protocol",
    "Similarity",
    "SnippetErrors",
    "Statistics",
    "TemporalIoU",
    "TrajectoryErrors",
    "align",
    "chain",
    "constant_velocity",
    "deletion",
    "depth_errors",
    "energy_inside",
    "insertion",
    "kitti_errors",
    "pointing_hits",
    "snippet_errors",
    "summarise",
    "temporal_iou",
    "umeyama",
]
