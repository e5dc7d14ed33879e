"""What was found of the windows of a video, kept until the video is done: a kill costs one batch.

<clip>.windows/<first step>.npz    a file for each batch of windows

The video is read again by who goes on; the network is not run again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_cam.data.core.array_files import load_arrays
from lightning_cam.data.core.windows import Window
from lightning_cam.explaining.video_explanation import ExplainedWindow
from lightning_cam.explaining.video_maps import Array
from lightning_cam.files import whole_file


@dataclass(frozen=True)
class FoundWindows:
    """What was found of B windows that were explained together.

    Attributes:
        windows: themselves.
        maps: method -> each of its maps, of a contrast three: (B, T, h, w) coarse, and whether it
            has negative values.
        attention: (B, T), where there is attention.
        missing: method -> why it has no map of the video, so far.
    """

    windows: Sequence[ExplainedWindow]
    maps: Mapping[str, Sequence[tuple[Array, bool]]]
    attention: Array | None
    missing: Mapping[str, str]


class KeptWindows:
    """The windows of one video that a process before has explained.

    Args:
        folder: where they are, or will be.
        key: says which video this is; those of another are not read.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key

    @property
    def begun(self) -> bool:
        """Whether there are any."""
        return any(self._read(path) is not None for path in self.folder.glob("*.npz"))

    def read(self, windows: Sequence[Window]) -> FoundWindows | None:
        """What was found of these windows; None where nothing was, or of others."""
        path = self._path(windows[0].first)
        if not path.is_file() or (found := self._read(path)) is None:
            return None
        there = [(w.first, w.steps) for w in found.windows]
        return found if there == [(w.first, w.steps) for w in windows] else None

    def _read(self, path: Path) -> FoundWindows | None:
        """What a file holds of this video; None where that is nothing."""
        try:
            arrays = load_arrays(path)
            about = json.loads(arrays["about"].tobytes())
            rows = zip(about["windows"], arrays["outputs"], arrays["chances"], strict=True)
            found = FoundWindows(
                [ExplainedWindow(**row, outputs=o, probabilities=p) for row, o, p in rows],
                {
                    name: [(arrays[f"{name}/{k}"], signed) for k, signed in enumerate(each)]
                    for name, each in about["signed"].items()
                },
                arrays.get("attention"),
                about["missing"],
            )
        except (KeyError, TypeError, ValueError):
            return None
        return found if about["key"] == self.key else None

    def add(self, found: FoundWindows) -> None:
        """Keep what was found.

        Raises:
            WriteError: it cannot be written.
        """
        about = {
            "key": self.key,
            "windows": [_small(window) for window in found.windows],
            "signed": {name: [signed for _, signed in each] for name, each in found.maps.items()},
            "missing": found.missing,
        }
        arrays: dict[str, np.ndarray] = {
            "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
            "outputs": np.stack([window.outputs for window in found.windows]),
            "chances": np.stack([window.probabilities for window in found.windows]),
        }
        for name, each in found.maps.items():
            arrays |= {f"{name}/{k}": maps for k, (maps, _) in enumerate(each)}
        if found.attention is not None:
            arrays["attention"] = found.attention
        with whole_file(self._path(found.windows[0].first)) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def remove(self) -> None:
        """Remove them: the video is done, or cannot be."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, first: int) -> Path:
        return self.folder / f"{first}.npz"


def _small(window: ExplainedWindow) -> dict[str, Any]:
    """A window without its arrays."""
    row = asdict(window)
    del row["outputs"], row["probabilities"]
    return row
