"""Spearman's correlation of many pairs at once, on any device."""

from __future__ import annotations

import torch
from torch import Tensor


def spearman(a: Tensor, b: Tensor, kept: Tensor | None = None) -> Tensor:
    """Spearman's rank correlation of each pair of rows.

    Args:
        a, b: `(B, N)`.
        kept: `(B, N)` bool, the values that count; None: all.

    Returns:
        `(B,)` float64; equal values have their mean rank. NaN where either row is constant or not
        finite.
    """
    kept = torch.ones_like(a, dtype=torch.bool) if kept is None else kept
    return pearson(ranks(a, kept), ranks(b, kept), kept)


def pearson(a: Tensor, b: Tensor, kept: Tensor | None = None) -> Tensor:
    """Pearson's correlation of each pair of rows, see `spearman`."""
    kept = torch.ones_like(a, dtype=torch.bool) if kept is None else kept
    n = kept.sum(1, keepdim=True).double()
    a, b = (_centred(each, kept, n) for each in (a, b))
    product = (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()
    return product.where(product.isfinite(), torch.nan)


def _centred(values: Tensor, kept: Tensor, n: Tensor) -> Tensor:
    """Each row minus its mean; of a constant one exactly 0."""
    values = values.double()
    low = values.masked_fill(~kept, torch.inf).amin(1, keepdim=True)
    values = (values - low).masked_fill(~kept, 0)
    return (values - values.sum(1, keepdim=True) / n).masked_fill(~kept, 0)


def ranks(values: Tensor, kept: Tensor) -> Tensor:
    """`(B, N)` float64, the place of each kept value among those of its row, from 0.

    Rows that are not finite are NaN.
    """
    finite = (values.isfinite() | ~kept).all(1, keepdim=True)
    ordered, order = values.masked_fill(~kept, torch.inf).sort(1)
    fresh = torch.zeros_like(order)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    group = fresh.cumsum(1)
    places = torch.arange(values.shape[1], device=values.device).double().expand_as(group)
    empty = torch.zeros(values.shape, dtype=torch.float64, device=values.device)
    sums = empty.scatter_add(1, group, places)
    sizes = empty.scatter_add(1, group, torch.ones_like(empty))
    mean = (sums / sizes).gather(1, group)
    return empty.scatter(1, order, mean).where(finite, torch.nan)
