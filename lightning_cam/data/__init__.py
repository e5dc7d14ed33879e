"""Video files, data sets and their loaders; `read_clip` reads any video.

A data set is a subclass of `VideoDataModule` (labelled clips) or of `SnippetDataModule` (images of
a moving camera). Those that come with the package are in `clips`, `multispectral` and `drives`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_cam.data.core.base import ClipDataModule
    from lightning_cam.data.core.clips import Clip, ClipReader
    from lightning_cam.data.core.ground_truth import Truth
    from lightning_cam.data.core.listing import Listing, Problem
    from lightning_cam.data.core.module import VideoDataModule
    from lightning_cam.data.core.transforms import ClipTransform, ColourJitter
    from lightning_cam.data.drives.drive import Drive
    from lightning_cam.data.drives.module import DriveListing, SnippetDataModule
    from lightning_cam.data.video.info import VideoInfo
    from lightning_cam.data.video.reading import probe, read_clip, read_frames

# Names load when first used: importing one module must not import every data set.
_HOME_OF = {
    "ClipDataModule": "lightning_cam.data.core.base",
    "Clip": "lightning_cam.data.core.clips",
    "ClipReader": "lightning_cam.data.core.clips",
    "Truth": "lightning_cam.data.core.ground_truth",
    "Listing": "lightning_cam.data.core.listing",
    "Problem": "lightning_cam.data.core.listing",
    "VideoDataModule": "lightning_cam.data.core.module",
    "ClipTransform": "lightning_cam.data.core.transforms",
    "ColourJitter": "lightning_cam.data.core.transforms",
    "Drive": "lightning_cam.data.drives.drive",
    "DriveListing": "lightning_cam.data.drives.module",
    "SnippetDataModule": "lightning_cam.data.drives.module",
    "VideoInfo": "lightning_cam.data.video.info",
    "probe": "lightning_cam.data.video.reading",
    "read_clip": "lightning_cam.data.video.reading",
    "read_frames": "lightning_cam.data.video.reading",
}

__all__ = [
    "Clip",
    "ClipDataModule",
    "ClipReader",
    "ClipTransform",
    "ColourJitter",
    "Drive",
    "DriveListing",
    "Listing",
    "Problem",
    "SnippetDataModule",
    "Truth",
    "VideoDataModule",
    "VideoInfo",
    "probe",
    "read_clip",
    "read_frames",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
