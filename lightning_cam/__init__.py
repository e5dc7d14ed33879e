"""Train video networks and see why they decide as they do.

Names load when first used: `import lightning_cam` costs little more than `import torch`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers know of the names below
    from lightning_cam.attribution import *  # noqa: F403
    from lightning_cam.explaining import ExplainCallback as ExplainCallback
    from lightning_cam.metrics import Curve as Curve
    from lightning_cam.metrics import Ends as Ends
    from lightning_cam.metrics import Protocol as Protocol
    from lightning_cam.metrics import deletion as deletion
    from lightning_cam.metrics import insertion as insertion

__version__ = "0.1.0"

_HOMES = {
    "attribution": (
        "RISE", "SIDU", "Attribution", "CentreMap", "Contrast", "Explainable", "Explanation",
        "ExtremalPerturbation", "Forward", "GradCAM", "Gradient", "GradientXInput",
        "GuidedBackprop", "IntegratedGradients", "IntegratedRecurrentGradCAM", "LayerAttribution",
        "LayerInfo", "Occlusion", "RandomMap", "RecurrentGradCAM", "RegressionGradCAM",
        "SmoothGrad", "SpectrumRelevance", "explain", "explain_contrast", "list_layers",
        "spectrum_relevance", "step_energy", "step_maps",
    ),
    "explaining": ("ExplainCallback",),
    "metrics": ("Curve", "Ends", "Protocol", "deletion", "insertion"),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = {module.name for module in pkgutil.iter_modules(__path__)} - {"__main__"}  # noqa: F405

__all__ = list(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"lightning_cam.{_HOME_OF[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"lightning_cam.{name}")
    raise AttributeError(f"module 'lightning_cam' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES, "__version__"])
