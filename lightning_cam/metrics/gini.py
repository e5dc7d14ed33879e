"""Is the heat in few places or everywhere? The Gini index of a map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_cam.metrics.explained import Explained, Measure


@dataclass(frozen=True)
class GiniIndex(Measure):
    """How sparse a map is: 0 for heat that is the same everywhere, towards 1 for a single voxel.

    Hurley and Rickard, "Comparing measures of sparsity", IEEE Trans. Information Theory 2009;
    for attributions Chalasani et al., ICML 2020. Of the amounts of heat of N voxels in rising order

        1 - 2 sum_k c_k / sum(c) (N - k + 1/2) / N,     k = 1 ... N

    It does not change with the map's scale, and says nothing about whether the heat is in the right
    place. A map of uniform noise has 1/3. Padded frames do not count; NaN for a map without heat.
    """

    title = "Gini index"
    better = "higher"
    needs = frozenset({"map"})

    def __call__(self, explained: Explained) -> Tensor:
        pairs = zip(explained.heat, explained.valid, strict=True)
        return torch.stack([gini_index(heat[valid]) for heat, valid in pairs])


def gini_index(heat: Tensor) -> Tensor:
    """The Gini index of the amounts of any number of values, a float32 scalar."""
    amounts = heat.detach().double().abs().flatten().sort().values
    n = len(amounts)
    weights = (n - torch.arange(1, n + 1, dtype=amounts.dtype) + 0.5) / n
    total = amounts.sum()
    index = 1 - 2 * (amounts * weights).sum() / total
    return torch.where((total > 0) & total.isfinite(), index, torch.nan).float()
