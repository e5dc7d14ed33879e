"""Attribution methods: each maps a model, a clip and a target column to a heatmap."""

from lightning_cam.attribution.baselines import CentreMap, RandomMap
from lightning_cam.attribution.cam import GradCAM
from lightning_cam.attribution.contrast import Contrast, explain_contrast
from lightning_cam.attribution.explainable import (
    Attribution,
    Explainable,
    Explanation,
    explain,
)
from lightning_cam.attribution.layers import LayerInfo, list_layers
from lightning_cam.attribution.recurrent import (
    IntegratedRecurrentGradCAM,
    RecurrentGradCAM,
    step_energy,
    step_maps,
)

__all__ = [
    "Attribution",
    "CentreMap",
    "Contrast",
    "Explainable",
    "Explanation",
    "GradCAM",
    "IntegratedRecurrentGradCAM",
    "LayerInfo",
    "RandomMap",
    "RecurrentGradCAM",
    "explain",
    "explain_contrast",
    "list_layers",
    "step_energy",
    "step_maps",
]
