"""The clips that a training explains after every epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import lightning.pytorch as pl
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor

from lightning_cam.explaining.clip_sources import spread_evenly
from lightning_cam.training.skipped_clips import batch_as_mapping


class Turn(NamedTuple):
    """One rank's work on a clip.

    Attributes:
        title: of the clip.
        batch: the clip, a batch of one.
        part: which of the methods are this rank's.
        home: the rank to which its maps go, that draws and measures them; None: this one.
    """

    title: str
    batch: Any
    part: slice
    home: int | None


class FixedClips(NamedTuple):
    """One rank's clips of a split, a round after the other.

    Each rank has a clip of its own in a round. In the last one there may be fewer clips than ranks:
    those that have none take methods from those that have one.

    Attributes:
        turns: of each round; None: nothing to do.
        shared: whether methods of the last round's clips are shared out.
    """

    turns: list[Turn | None]
    shared: bool

    @classmethod
    def of(
        cls,
        trainer: pl.Trainer,
        split: str,
        wanted: int | Sequence[int],
        methods: int,
        on_error: Callable[[str, Exception], None],
    ) -> FixedClips:
        """Read the clips of this rank.

        Args:
            trainer: with the loaders of the split.
            split: "val" or "test".
            wanted: how many of the first loader's, spread evenly, or their indices.
            methods: how many methods each clip has that ranks may share; 1: they share none.
            on_error: is told which could not be read, and why.
        """
        loaders = trainer.val_dataloaders if split == "val" else trainer.test_dataloaders
        loader = CombinedLoader(loaders).flattened[0]
        if isinstance(wanted, int):
            wanted = spread_evenly(range(len(loader.dataset)), wanted)
        rank, ranks, turns = trainer.global_rank, trainer.world_size, list[Turn | None]()
        for first in range(0, len(wanted), ranks):
            home, part = _place(rank, ranks, min(len(wanted) - first, ranks), methods)
            turns.append(None)
            if part is None:
                continue
            index = wanted[first + home]
            try:
                batch = batch_as_mapping(loader.collate_fn([loader.dataset[index]]))
                if any(batch.get("error", ())):
                    raise RuntimeError(batch["error"][0])
            except Exception as error:
                on_error(f"clip {index} of the {split} set", error)
                continue
            title = str(batch.get("clip_id", [f"clip_{index}"])[0])
            taken = any(turn is not None and turn.title == title for turn in turns)
            title = f"{title}_{index}" if taken else title
            turns[-1] = Turn(title, batch, part, None if home == rank else home)
        return cls(turns, methods > 1 and bool(len(wanted) % ranks))

    def other(self, n: int) -> Tensor | None:
        """The video of another clip of this rank than that of round n; None without one."""
        own = [turn for turn in self.turns[n + 1 :] + self.turns[:n] if turn and turn.home is None]
        return own[0].batch["video"] if own else None


def _place(rank: int, ranks: int, clips: int, methods: int) -> tuple[int, slice | None]:
    """Whose clip a rank works on in a round of so many clips, and by which methods; None: none."""
    home, place = rank % clips, rank // clips
    team = min(len(range(home, ranks, clips)), methods)
    return home, slice(place, None, team) if place < team else None
