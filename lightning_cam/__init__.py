"""Train video networks and see why they decide as they do.

Names load when first used: `import lightning_cam` costs little more than `import torch`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_cam.attribution import (
        RISE,
        SIDU,
        Attribution,
        CentreMap,
        Contrast,
        Explainable,
        Explanation,
        ExtremalPerturbation,
        Forward,
        GradCAM,
        Gradient,
        GradientXInput,
        GuidedBackprop,
        IntegratedGradients,
        IntegratedRecurrentGradCAM,
        LayerAttribution,
        Occlusion,
        RandomMap,
        RecurrentGradCAM,
        RegressionGradCAM,
        SmoothGrad,
        SpectrumRelevance,
        explain,
        explain_contrast,
        list_layers,
        spectrum_relevance,
        step_energy,
        step_maps,
    )
    from lightning_cam.explaining import ExplainCallback
    from lightning_cam.metrics import Curve, Ends, Protocol, deletion, insertion

__version__ = "0.1.0"

_HOMES = {
    "lightning_cam.attribution": (
        "RISE",
        "SIDU",
        "Attribution",
        "CentreMap",
        "Contrast",
        "Explainable",
        "Explanation",
        "ExtremalPerturbation",
        "Forward",
        "GradCAM",
        "Gradient",
        "GradientXInput",
        "GuidedBackprop",
        "IntegratedGradients",
        "IntegratedRecurrentGradCAM",
        "LayerAttribution",
        "Occlusion",
        "RandomMap",
        "RecurrentGradCAM",
        "RegressionGradCAM",
        "SmoothGrad",
        "SpectrumRelevance",
        "explain",
        "explain_contrast",
        "list_layers",
        "spectrum_relevance",
        "step_energy",
        "step_maps",
    ),
    "lightning_cam.explaining": ("ExplainCallback",),
    "lightning_cam.metrics": ("Curve", "Ends", "Protocol", "deletion", "insertion"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_SUBPACKAGES = (
    "attribution", "data", "errors", "explaining", "geometry", "metrics", "models", "study",
    "synthetic", "tasks", "training", "viz",
)  # fmt: skip

__all__ = [
    "RISE",
    "SIDU",
    "Attribution",
    "CentreMap",
    "Contrast",
    "Curve",
    "Ends",
    "ExplainCallback",
    "Explainable",
    "Explanation",
    "ExtremalPerturbation",
    "Forward",
    "GradCAM",
    "Gradient",
    "GradientXInput",
    "GuidedBackprop",
    "IntegratedGradients",
    "IntegratedRecurrentGradCAM",
    "LayerAttribution",
    "Occlusion",
    "Protocol",
    "RandomMap",
    "RecurrentGradCAM",
    "RegressionGradCAM",
    "SmoothGrad",
    "SpectrumRelevance",
    "deletion",
    "explain",
    "explain_contrast",
    "insertion",
    "list_layers",
    "spectrum_relevance",
    "step_energy",
    "step_maps",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"lightning_cam.{name}")
    raise AttributeError(f"module 'lightning_cam' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBPACKAGES, "__version__"])
