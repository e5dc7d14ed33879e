"""Maps of overlapping windows as one map over time, kept on the disk."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lightning_cam.attribution.tensors import before_resizing
from lightning_cam.files import cannot_write, nameless_file

Array = NDArray[np.float32]
FINEST = 56  # cells of a kept map along a side at most; finer ones are averaged


class Blend:
    """Means of what overlapping windows say of each step, weighted.

    A step counts most in the window in whose middle it is: at its ends a network knows least of
    what comes before or after.

    Args:
        length: T, steps of a window.
    """

    def __init__(self, length: int) -> None:
        rising = np.arange(1, length + 1)
        self.weights = np.minimum(rising, rising[::-1]).astype(np.float32)
        self.first = 0
        self._sum: Array | None = None
        self._weight: Array = np.zeros(0, np.float32)

    def add(self, first: int, values: Array) -> tuple[int, Array] | None:
        """Add a window; its values (t, ...) begin at the step `first`, not before the last one's.

        Returns:
            What no later window can change: its first step, and the means (m, ...).
        """
        done = self._release(first)
        weights = self.weights[: len(values)]
        end = first + len(values)
        if self._sum is None or not len(self._sum):
            self._sum = np.zeros((0, *values.shape[1:]), np.float32)
            self.first = first
        more = end - self.first - len(self._sum)
        self._sum = np.concatenate([self._sum, np.zeros((more, *values.shape[1:]), np.float32)])
        self._weight = np.concatenate([self._weight, np.zeros(more, np.float32)])
        at = slice(first - self.first, end - self.first)
        self._sum[at] += values * weights.reshape(-1, *[1] * (values.ndim - 1))
        self._weight[at] += weights
        return done

    def finish(self) -> tuple[int, Array] | None:
        """What is left when no window comes any more."""
        return self._release(self.first + len(self._weight))

    def _release(self, until: int) -> tuple[int, Array] | None:
        count = min(until - self.first, len(self._weight))
        if self._sum is None or count <= 0:
            return None
        means = self._sum[:count] / self._weight[:count].reshape(-1, *[1] * (self._sum.ndim - 1))
        first, self.first = self.first, self.first + count
        self._sum, self._weight = self._sum[count:], self._weight[count:]
        return first, means


class StepMaps:
    """Maps (n, h, w) float32 of the steps of a video, in a file without a name.

    Args:
        grid: h, w.
        folder: on whose disk the file is; None: that of temporary files.
    """

    def __init__(self, grid: tuple[int, int], folder: Path | None = None) -> None:
        self.grid = grid
        self.count = 0
        self._stack = ExitStack()
        self._file = self._stack.enter_context(nameless_file(folder))

    def append(self, first: int, maps: Array) -> None:
        """Add maps; steps before them that have none get zeros.

        Raises:
            WriteError: they cannot be written.
        """
        gap = np.zeros((first - self.count, *self.grid), np.float32)
        try:
            for part in (gap, maps):
                self._file.write(np.ascontiguousarray(part, np.float32).tobytes())
        except OSError as error:
            raise cannot_write(Path("the maps of a video"), error) from error
        self.count = first + len(maps)

    def read(self, first: int, end: int) -> Array:
        """Those of the steps from `first` to before `end`, zeros where there are none."""
        size = self.grid[0] * self.grid[1] * 4
        known = max(min(end, self.count) - first, 0)
        self._file.seek(first * size)
        found = np.frombuffer(self._file.read(known * size), np.float32)
        maps = np.zeros((end - first, *self.grid), np.float32)
        maps[:known] = found.reshape(-1, *self.grid)
        return maps

    def close(self) -> None:
        """Let go of the file."""
        self._stack.close()


class Coarse:
    """Makes maps small enough to be kept: the cells they were resized from, or means of pixels.

    Args:
        heat: `(T, H, W)`, the first map of its kind.
        native: the grid (t, h, w) from which it was resized, where it was.
    """

    def __init__(self, heat: Tensor, native: tuple[int, int, int] | None) -> None:
        height, width = heat.shape[1:]
        # Of the steps each is one: a network may have fewer of them, which are blended as they are.
        spatial = None if native is None else (len(heat), *native[1:])
        exact = spatial is not None and bool(heat.isfinite().all())
        if exact and before_resizing(heat.detach().cpu().double(), spatial) is not None:  # type: ignore[arg-type]
            assert spatial is not None
            self.grid = spatial[1], spatial[2]
            self._undo: tuple[Tensor, Tensor] | None = (
                _undone(height, self.grid[0]),
                _undone(width, self.grid[1]),
            )
        else:
            self.grid = min(height, FINEST), min(width, FINEST)
            self._undo = None

    def __call__(self, heat: Tensor) -> Array:
        """`(B, T, H, W)` as (B, T, h, w)."""
        if self._undo is None:
            return F.adaptive_avg_pool2d(heat, self.grid).float().cpu().numpy()
        rows, columns = (undo.to(heat) for undo in self._undo)
        return (rows @ heat @ columns.T).float().cpu().numpy()


def _undone(side: int, cells: int) -> Tensor:
    """(cells, side), what takes back a linear resizing from `cells` to `side`."""
    unit = torch.eye(cells, dtype=torch.float64)[:, None]
    resized = F.interpolate(unit, size=side, mode="linear", align_corners=False)[:, 0].T
    return torch.linalg.pinv(resized)
