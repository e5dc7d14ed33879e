"""The colours of the clips that a task is given."""

from __future__ import annotations

import lightning as L

from lightning_cam.attribution.shown import ToFrames
from lightning_cam.interfaces import ShowsFrames, is_offered


def colours_of(task: L.LightningModule) -> ToFrames | None:
    """How the data of a task's trainer undo their normalisation; None: nobody knows."""
    data = None if task._trainer is None else task._trainer.datamodule  # type: ignore[attr-defined]
    return data.to_frames if is_offered(data, ShowsFrames) else None
