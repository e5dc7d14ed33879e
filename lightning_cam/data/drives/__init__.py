"""Data sets of a moving camera, for depth and ego-motion: KITTI and other data in its formats."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_cam.data.drives.kitti_formatted import KittiFormatted
    from lightning_cam.data.drives.kitti_odometry import KittiOdometry
    from lightning_cam.data.drives.kitti_raw import KittiRaw

# Names load when first used: importing one module must not import every data set.
_HOME_OF = {
    "KittiFormatted": "lightning_cam.data.drives.kitti_formatted",
    "KittiOdometry": "lightning_cam.data.drives.kitti_odometry",
    "KittiRaw": "lightning_cam.data.drives.kitti_raw",
}

__all__ = [
    "KittiFormatted",
    "KittiOdometry",
    "KittiRaw",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
