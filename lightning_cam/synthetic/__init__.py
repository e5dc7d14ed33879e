"""Synthetic data sets: their renderers and data modules, with ground truth of the evidence."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_cam.synthetic.actions.data_module import SyntheticActions
    from lightning_cam.synthetic.multispectral.data_module import SyntheticMultispectral
    from lightning_cam.synthetic.odometry.data_module import SyntheticOdometry
    from lightning_cam.synthetic.something.data_module import SyntheticSomething

# Names load when first used: importing one module must not import every data set.
_HOME_OF = {
    "SyntheticActions": "lightning_cam.synthetic.actions.data_module",
    "SyntheticMultispectral": "lightning_cam.synthetic.multispectral.data_module",
    "SyntheticOdometry": "lightning_cam.synthetic.odometry.data_module",
    "SyntheticSomething": "lightning_cam.synthetic.something.data_module",
}

__all__ = [
    "SyntheticActions",
    "SyntheticMultispectral",
    "SyntheticOdometry",
    "SyntheticSomething",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
