"""Ground truth of a clip for judging heatmaps: where the actor is and when the action happens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_cam.errors import DataError


@dataclass(frozen=True)
class Truth:
    """Ground truth of one video.

    Attributes:
        mask: (n, H, W) bool, the actor's pixels in every source frame; W a multiple of 8.
        onset: start of the action in seconds.
        offset: its end.
        state: (n, S) what else the renderer knows of each frame.
    """

    mask: NDArray[np.bool_]
    onset: float
    offset: float
    state: NDArray[Any]

    def write(self, path: Path) -> None:
        """Write a compressed `.npz` with a bit-packed mask."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            path,
            mask=np.packbits(self.mask, axis=-1),
            onset=self.onset,
            offset=self.offset,
            state=self.state.astype(np.float32),
        )

    @classmethod
    def read(cls, path: Path) -> Truth:
        """Read what `write` wrote.

        Raises:
            DataError: the file is absent or damaged.
        """
        try:
            with np.load(path) as file:
                return cls(
                    mask=np.unpackbits(file["mask"], axis=-1).astype(bool),
                    onset=float(file["onset"]),
                    offset=float(file["offset"]),
                    state=file["state"],
                )
        except Exception as error:  # zip, zlib, NumPy and the system all have their own
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise DataError(
                f"cannot read ground truth {str(path)!r} ({reason}): replace or remove it"
            ) from error


def truth_path(folder: Path, class_name: str, clip_id: str) -> Path:
    """Where the ground truth of a clip lies: `<folder>/<class>/<clip>.npz`."""
    return folder / class_name / f"{clip_id}.npz"
