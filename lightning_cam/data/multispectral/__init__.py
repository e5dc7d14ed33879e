"""The Multispectral Action Dataset: infrared and visible sequences, alone, together or fused."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_cam.data.multispectral.module import Multispectral
    from lightning_cam.data.multispectral.reader import SpectralReader, load_registration

# Names load when first used: importing one module must not import every data set.
_HOME_OF = {
    "Multispectral": "lightning_cam.data.multispectral.module",
    "SpectralReader": "lightning_cam.data.multispectral.reader",
    "load_registration": "lightning_cam.data.multispectral.reader",
}

__all__ = [
    "Multispectral",
    "SpectralReader",
    "load_registration",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
