"""The attention weights of the live callback's clips over the epochs of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_cam.explaining.clip_files import file_name
from lightning_cam.viz import draw_attention, save_png


class AttentionHistory:
    """The weights of all clips, and a strip of each.

    Attributes:
        weights: clip -> epoch -> its weights; plain containers, for they travel in checkpoints.
    """

    def __init__(self) -> None:
        self.weights: dict[str, dict[int, list[float]]] = {}

    def restore(self, remembered: Any) -> None:
        """Take the weights that a checkpoint remembers; left out in another form."""
        self.weights = {}
        for title, epochs in remembered.items() if isinstance(remembered, Mapping) else ():
            if isinstance(title, str) and isinstance(epochs, Mapping):
                self.weights[title] = {
                    epoch: weights
                    for epoch, weights in epochs.items()
                    if type(epoch) is int
                    and isinstance(weights, list)
                    and all(isinstance(weight, float) for weight in weights)
                }

    def draw(self, epoch: int, records: Sequence[dict[str, Any]], folder: Path) -> None:
        """Remember an epoch's weights, and draw each clip's over all epochs: its "strip"."""
        for record in records:
            title = record["clip"]
            for weights in record["attention"].values():
                self.weights.setdefault(title, {})[epoch] = weights
                rows = self.weights[title]
                strip = draw_attention(np.array(list(rows.values())), list(rows), title)
                file = folder / f"{file_name(title)}.attention.png"
                record["strip"] = str(save_png(file, strip))
