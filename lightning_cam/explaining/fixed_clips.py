"""The clips that a training explains after every epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import lightning.pytorch as pl
from lightning.pytorch.utilities.combined_loader import CombinedLoader

from lightning_cam.explaining.clip_sources import spread_evenly
from lightning_cam.training.skipped_clips import batch_as_mapping


class FixedClips(NamedTuple):
    """One rank's clips of a split.

    Attributes:
        clips: (title, batch of one).
        rounds: how many the rank has that has most.
    """

    clips: list[tuple[str, Any]]
    rounds: int

    @classmethod
    def of(
        cls,
        trainer: pl.Trainer,
        split: str,
        wanted: int | Sequence[int],
        on_error: Callable[[str, Exception], None],
    ) -> FixedClips:
        """Read the clips of this rank.

        Args:
            trainer: with the loaders of the split.
            split: "val" or "test".
            wanted: how many of the first loader's, spread evenly, or their indices.
            on_error: is told which could not be read, and why.
        """
        kept: list[tuple[str, Any]] = []
        loaders = trainer.val_dataloaders if split == "val" else trainer.test_dataloaders
        loader = CombinedLoader(loaders).flattened[0]
        if isinstance(wanted, int):
            wanted = spread_evenly(range(len(loader.dataset)), wanted)
        for index in wanted[trainer.global_rank :: trainer.world_size]:
            try:
                batch = batch_as_mapping(loader.collate_fn([loader.dataset[index]]))
                if any(batch.get("error", ())):
                    raise RuntimeError(batch["error"][0])
            except Exception as error:
                on_error(f"clip {index} of the {split} set", error)
                continue
            title = str(batch.get("clip_id", [f"clip_{index}"])[0])
            taken = any(title == other for other, _ in kept)
            kept.append((f"{title}_{index}" if taken else title, batch))
        return cls(kept, len(wanted[:: trainer.world_size]))
