"""Data sets of labelled clips: UCF11, HMDB51, Kinetics, Something-Something, your folders."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_cam.data.clips.folder import VideoFolder
    from lightning_cam.data.clips.hmdb51 import HMDB51
    from lightning_cam.data.clips.kinetics import Kinetics
    from lightning_cam.data.clips.something import SomethingSomething
    from lightning_cam.data.clips.ucf11 import UCF11

# Names load when first used: importing one module must not import every data set.
_HOME_OF = {
    "VideoFolder": "lightning_cam.data.clips.folder",
    "HMDB51": "lightning_cam.data.clips.hmdb51",
    "Kinetics": "lightning_cam.data.clips.kinetics",
    "SomethingSomething": "lightning_cam.data.clips.something",
    "UCF11": "lightning_cam.data.clips.ucf11",
}

__all__ = [
    "HMDB51",
    "UCF11",
    "Kinetics",
    "SomethingSomething",
    "VideoFolder",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
