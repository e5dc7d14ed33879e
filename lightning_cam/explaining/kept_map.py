"""A clip's map as it is kept: small, and whatever is drawn or measured later is of it.

A map is kept on the grid from which its method resized it, else at most at a given size, in 16 bits
a number. It can differ from the method's own map by this rounding (2**-11 of a value) and, of maps
finer than that size, by the averaging.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lightning_cam.attribution import Explanation
from lightning_cam.attribution.tensors import all_finite, before_resizing, resize_heatmap
from lightning_cam.data.core.array_files import load_arrays
from lightning_cam.files import whole_file

MAP_SIZE = (16, 56, 56)  # frames, height, width: at most


@dataclass(frozen=True)
class KeptMap:
    """A clip's map in 16 bits: heat = base + scale * values.

    Attributes:
        values: `(t, h, w)` float16, of which the largest amount is 1.
        base: what 0 stands for: the level of maps in which 0 means nothing, else 0.
        scale: 0 of a map that is `base` everywhere.
        floating: whether `base` is such a level.
    """

    values: NDArray[np.float16]
    base: float
    scale: float
    floating: bool

    @classmethod
    def of(cls, e: Explanation, size: Sequence[int] = MAP_SIZE) -> KeptMap:
        """Keep the map of one clip (B = 1).

        Raises:
            ValueError: the map has numbers that are not finite.
        """
        heat = e.heatmap[0].detach().cpu()
        if not all_finite(heat):
            raise ValueError(f"the map of {e.method.title} has numbers that are not finite")
        grid = None if e.native is None else before_resizing(heat, e.native)
        frames, height, width = map(min, heat.shape, size)
        heat = heat.double() if grid is None else grid
        if grid is None and heat.shape != (frames, height, width):
            heat = F.adaptive_avg_pool3d(heat[None, None], (frames, height, width))[0, 0]
        base = 0.0 if e.level is None else float(e.level[0])
        heat = heat - base
        scale = float(heat.abs().max())
        shares = (heat / scale if scale else heat).to(torch.float16)
        return cls(shares.numpy(), base, scale, e.level is not None)

    def heatmap(self, size: Sequence[int]) -> Tensor:
        """The map `(1, *size)` float32 on the CPU: T, H, W."""
        heat = torch.from_numpy(self.values.astype(np.float64)) * self.scale + self.base
        return resize_heatmap(heat[None].float(), size)

    def evidence(self, size: Sequence[int]) -> NDArray[np.float32]:
        """The map `size` (T, H, W) as images need it, counted from its level."""
        heat = self.heatmap(size)[0].numpy()
        return np.maximum(heat - np.float32(self.base), 0) if self.floating else heat

    @property
    def places(self) -> bool:
        """Whether it tells places: a map that is even in each frame tells times alone."""
        return bool((np.ptp(self.values, (1, 2)) > 1e-3).any())

    @property
    def level(self) -> Tensor | None:
        """As in `Explanation`."""
        return torch.tensor([self.base]) if self.floating else None

    def write(self, path: Path) -> None:
        """Write it whole; when this returns, it is on the disk."""
        facts = np.array([self.base, self.scale, self.floating], np.float64)
        with whole_file(path, sync=True) as file:
            np.savez_compressed(file, values=self.values, facts=facts)

    @classmethod
    def read(cls, path: Path) -> KeptMap | None:
        """The map of a file; None where there is none, or none that can be read."""
        try:
            arrays = load_arrays(path)
            values, facts = arrays["values"], arrays["facts"]
            base, scale, floating = map(float, facts)
        except (KeyError, TypeError, ValueError):
            return None
        finite = np.isfinite(values).all() and math.isfinite(base) and math.isfinite(scale)
        if values.dtype != np.float16 or values.ndim != 3 or not values.size or not finite:
            return None
        return cls(values, base, scale, bool(floating))
