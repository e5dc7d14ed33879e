"""Objective measures of heatmaps."""

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
from lightning_cam.metrics.protocol import PROTOCOLS, Protocol

__all__ = [
    "PROTOCOLS",
    "Curve",
    "Deletion",
    "Ends",
    "EnergyPointingGame",
    "Insertion",
    "MeanCurve",
    "PointingGame",
    "Protocol",
    "Statistics",
    "TemporalIoU",
    "deletion",
    "energy_inside",
    "insertion",
    "pointing_hits",
    "summarise",
    "temporal_iou",
]
