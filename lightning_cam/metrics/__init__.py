"""Objective measures of heatmaps."""

from lightning_cam.metrics.localisation import (
    EnergyPointingGame,
    PointingGame,
    TemporalIoU,
    energy_inside,
    pointing_hits,
    temporal_iou,
)

__all__ = [
    "EnergyPointingGame",
    "PointingGame",
    "TemporalIoU",
    "energy_inside",
    "pointing_hits",
    "temporal_iou",
]
