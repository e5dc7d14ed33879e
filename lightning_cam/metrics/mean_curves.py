"""Deletion and insertion over many clips: means with their uncertainty, over all ranks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from lightning_cam.attribution.explainable import Explainable, Target
from lightning_cam.attribution.tensors import finite_rows
from lightning_cam.metrics.deletion_insertion import Curve, Ends, Protocol, deletion, insertion
from lightning_cam.metrics.statistics import Statistics, interval

_GRID = 100  # steps of a mean curve where the clips' own steps may differ


class MeanCurve(NamedTuple):
    """The mean of n clips' curves, and its 95% confidence interval (NaN of fewer than two).

    All `(S + 1,)`: the share of the units that have changed, and the scores there.
    """

    fraction: Tensor
    mean: Tensor
    low: Tensor
    high: Tensor


def summarise(curves: Iterable[Curve], *, normalised: bool = False) -> tuple[Statistics, MeanCurve]:
    """The areas under curves in numbers, and their mean curve.

    Args:
        curves: of one clip or a batch each; all from one protocol.
        normalised: take `Curve.normalised_auc`; clips where it is NaN are unscored.

    Raises:
        ValueError: there are no curves.
    """
    curves = list(curves)
    if not curves:
        raise ValueError("there are no curves to summarise")
    sizes = {curve.score.shape[1] - 1 for curve in curves}
    steps = sizes.pop() if len(sizes) == 1 else _GRID
    rows = torch.cat([_rows(curve, steps, normalised) for curve in curves])
    return _summary(*_sums(rows))


class _MeanCurve(Metric):
    """Mean area under the curves of clips; takes the protocol's settings and torchmetrics' own."""

    full_state_update = False
    total: Tensor
    squares: Tensor
    clips: Tensor
    unscored: Tensor

    def __init__(
        self, protocol: Protocol | str = "default", *, normalised: bool = False, **settings: Any
    ) -> None:
        known = {field.name for field in fields(Protocol)}
        super().__init__(**{key: v for key, v in settings.items() if key not in known})
        changes = {key: v for key, v in settings.items() if key in known}
        self.protocol = Protocol.of(protocol, **changes)
        self.normalised = normalised
        if self.protocol.order == "least":  # torchmetrics lets nobody set it the usual way
            self.__dict__["higher_is_better"] = not type(self).higher_is_better
        # Numbers per clip (curves that grow in a list) would travel between ranks; sums do not
        # grow. First the area, then the points of the curve.
        self.steps = self.protocol.steps if self.protocol.voxels is None else _GRID
        for name in ("total", "squares"):
            zeros = torch.zeros(self.steps + 2, dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx="sum")
        for name in ("clips", "unscored"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    @abstractmethod
    def _measured(self, *args: Any, **kwargs: Any) -> Curve:
        """The curve of one batch, `deletion` or `insertion`."""

    def update(
        self,
        model: Explainable,
        clip: Tensor,
        heatmap: Tensor,
        target: Target | None = None,
        ends: Ends | None = None,
    ) -> None:
        """Measure a batch of clips, arguments as for `deletion`.

        A clip whose heatmap is not finite is counted as unscored.
        """
        finite = finite_rows(heatmap)
        heatmap = heatmap.clone()
        heatmap[~finite] = 0
        curve = self._measured(model, clip, heatmap, target, protocol=self.protocol, ends=ends)
        rows = _rows(curve, self.steps, self.normalised)
        rows[~finite.to(rows.device)] = torch.nan
        clips, total, squares, unscored = _sums(rows)
        self.clips += clips.to(self.clips.device)
        self.total += total.to(self.total.device)
        self.squares += squares.to(self.squares.device)
        self.unscored += unscored.to(self.unscored.device)

    def compute(self) -> Tensor:
        """Mean area under the curve of all scored clips; NaN before the first."""
        return (self.total[0] / self.clips).float()

    def statistics(self) -> Statistics:
        """The areas of the clips of all ranks in numbers; every rank must call it."""
        return self._synchronised()[0]

    def curve(self) -> MeanCurve:
        """The mean curve of the clips of all ranks; every rank must call it."""
        return self._synchronised()[1]

    def _synchronised(self) -> tuple[Statistics, MeanCurve]:
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            return _summary(self.clips, self.total, self.squares, self.unscored)


class Deletion(_MeanCurve):
    """Mean `deletion` of clips: smaller is better (greater for `order="least"`).

    Args:
        protocol: a `Protocol` or the name of one.
        normalised: of `Curve.normalised_auc`; clips where it is NaN are unscored.
        **settings: of the protocol, to be changed (`steps=20`, `unit="frame"`, ...), and
            torchmetrics' own.

    Example:
        >>> metric = Deletion(steps=20)
        >>> metric.update(model, clip, explain(model, GradCAM(), clip).heatmap)
        >>> metric.compute(), metric.statistics().low, metric.curve().mean
    """

    higher_is_better = False

    def _measured(self, *args: Any, **kwargs: Any) -> Curve:
        return deletion(*args, **kwargs)


class Insertion(_MeanCurve):
    """Mean `insertion` of clips: greater is better; see `Deletion`."""

    higher_is_better = True

    def _measured(self, *args: Any, **kwargs: Any) -> Curve:
        return insertion(*args, **kwargs)


def _rows(curve: Curve, steps: int, normalised: bool) -> Tensor:
    """Area and points `(B, 1 + steps + 1)` of each clip."""
    score = curve.score.double()
    if score.shape[1] != steps + 1:
        score = F.interpolate(score[:, None], steps + 1, mode="linear", align_corners=True)[:, 0]
    area = curve.normalised_auc if normalised else curve.auc
    return torch.cat([area[:, None].double(), score], 1)


def _sums(rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Number, sum and sum of squares of the rows that have an area, and how many have none."""
    known = ~rows[:, 0].isnan()
    kept = rows[known]
    return known.sum(), kept.sum(0), kept.square().sum(0), (~known).sum()


def _summary(
    clips: Tensor, total: Tensor, squares: Tensor, unscored: Tensor
) -> tuple[Statistics, MeanCurve]:
    n = int(clips)
    mean = total / n if n else torch.full_like(total, torch.nan)
    std = torch.full_like(total, torch.nan)
    if n > 1:
        std = ((squares - n * mean.square()) / (n - 1)).clamp(min=0).sqrt()
    columns = torch.stack([mean, std, *interval(mean, std, n)], 1)
    area = dict(zip(("mean", "std", "low", "high"), columns[0].tolist(), strict=True))
    numbers = Statistics(**area, clips=n, unscored=int(unscored))
    fraction = torch.linspace(0, 1, len(total) - 1, device=total.device)
    mean, _, low, high = columns[1:].float().unbind(1)
    return numbers, MeanCurve(fraction, mean, low, high)
