"""LIME, KernelSHAP and Banzhaf values of supervoxels: how much of the score does each cell add?

The clip is cut into M cells. A subset z of them, M numbers 0 or 1, is a clip whose other cells are
those of a reference; f(z) is its score. A function that only adds is fitted to N of these scores,

    min over phi_0, phi of  sum_z w(z) (f(z) - phi_0 - sum_i z_i phi_i)^2 + ridge |phi|^2,

and every voxel gets the phi_i of its cell, signed. The kinds differ in which subsets count:

    shap      Lundberg and Lee, NeurIPS 2017 (KernelSHAP): w = (M-1) / (C(M,|z|) |z| (M-|z|)), and
              two conditions hold exactly: phi_0 = f(reference) and sum_i phi_i = f(clip) -
              f(reference). With all subsets these are the Shapley values.
    lime      Ribeiro et al., KDD 2016: every subset is as likely, w = exp(-d^2 / 0.25^2) with the
              cosine distance d = 1 - sqrt(|z|/M) to the whole clip: subsets near it count more.
    banzhaf   every subset is as likely and counts as much. With all subsets phi_i is the mean
              score with the cell less the mean score without it (Hammer and Holzman, 1992).

Subsets are drawn by these weights (of "lime": alike, then weighted); all of them are run, with
their exact weights, where there are no more than `masks`. A score that only adds is found exactly
by all three as soon as the subsets tell the cells apart, two for each cell or so.

The cost is N + 2 forwards ("shap") or N + 1, and a regression of M unknowns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_cam.attribution.doubt import Doubt
from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.fields import Cells, Count, Seed, ZeroOrMore
from lightning_cam.attribution.method import Cost, at_most
from lightning_cam.attribution.perturbation import (
    PerturbationAttribution,
    Reference,
    answers,
    reference,
)
from lightning_cam.progress import progress

Kind = Literal["shap", "lime", "banzhaf"]

_TITLES = {"shap": "KernelSHAP", "lime": "LIME", "banzhaf": "Banzhaf values"}
_WIDTH = 0.25  # of LIME's kernel
_MOST = 20  # cells of which all subsets may be listed


@dataclass(frozen=True)
class Supervoxels(PerturbationAttribution):
    """LIME, KernelSHAP or Banzhaf values of a grid of cells.

    Adds to `Explanation.numbers`, each `(B,)`:

    - "r2": the share of the scores' variance that the sum tells of subsets it was not fitted to
      (each left out in turn, exactly; where all subsets were run, of these). It is small where
      cells work together, and where there were too few masks;
    - "unexplained": 1 less that share, at most 1. Maps with r2 below 0.3 are doubtful.

    Args:
        kind: `"shap"`, `"lime"` or `"banzhaf"`, see above.
        cells: of the grid, (time, height, width), at most one a voxel.
        masks: N, subsets that are run; a few for each cell at least.
        seed: of the method's own generator.
        reference: the baseline, a kind of `perturbation.reference`.
        ridge: pulls phi towards an even map; LIME's own program has 1.
        batch: rows that go through the network together; None: as many as fill the device.
        raw: the columns of a classifier rather than its probabilities.
        bf16: run the network under bfloat16 autocast.

    Example:
        >>> e = explain(model, Supervoxels("shap", cells=(4, 5, 5)), clip)
        >>> e.caption, e.numbers["r2"]
    """

    doubts = (
        Doubt(
            "unexplained",
            "a sum over cells tells only {r2:.0%} of how the score varies; take more masks or "
            "other cells",
            limit=0.7,
        ),
    )

    kind: Kind = "shap"
    cells: Cells = (4, 5, 5)
    masks: Count = 1000
    seed: Seed = 0
    reference: Reference = "black"
    ridge: ZeroOrMore = 0.0
    batch: Count | None = None
    raw: bool = False
    bf16: bool = False

    @property
    def title(self) -> str:
        """For captions."""
        return _TITLES[self.kind]

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        runner, outputs = self.runner(model, clip), self.first(model, clip).outputs
        cells = self.grain(_size(clip))
        drawn = _subsets(self.kind, math.prod(cells), self.masks, self.seed)
        ends = torch.zeros(int(self.kind == "shap"), drawn.kept.shape[1], dtype=torch.bool)
        rows = torch.cat([ends, drawn.kept]).unflatten(1, cells).to(clip.device)
        hidden = reference(model, clip, self.reference)
        places = [
            torch.arange(n, device=clip.device) * c // n
            for n, c in zip(_size(clip), cells, strict=True)
        ]
        with progress(self.title, len(rows)) as advance:

            def fill(into: Tensor, start: int) -> None:
                for row, kept in zip(into, rows[start : start + len(into)], strict=True):
                    torch.where(_spread(kept, places), clip, hidden, out=row)
                advance(len(into))

            found = runner(len(rows), fill)  # (N, B, K)
        scores = model.score(
            answers(model, found.flatten(0, 1), raw=self.raw), target.repeat(len(rows))
        ).unflatten(0, (len(rows), -1))
        whole = model.score(answers(model, outputs, raw=self.raw), target)
        if self.kind == "shap":
            fit = _fit_between(drawn, scores[0], scores[1:], whole, self.ridge)
        else:
            fit = _fit(drawn, scores, whole, self.ridge)
        self._report(model, drawn, fit, cells)
        values = fit.values.T.unflatten(1, cells).to(clip.device)  # (B, a, b, c)
        return _spread(values, places).to(torch.promote_types(clip.dtype, torch.float32))

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        cells = math.prod(self.grain(_size(clip)))
        inner = self.kind == "shap"  # its two ends are no subsets that are drawn
        most = 2**cells - 2 * inner if cells <= _MOST else self.masks
        return Cost(1 + inner + min(self.masks, most))

    def grain(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        return at_most(self.cells, size)

    def _report(
        self, model: Explainable, drawn: _Subsets, fit: _Surrogate, cells: tuple[int, int, int]
    ) -> None:
        """Numbers, and a caption."""
        model.numbers.update(r2=fit.r2, unexplained=1 - fit.r2)
        grid, count = "x".join(map(str, cells)), len(drawn.kept)
        every = "all " if drawn.complete else ""
        model.notes.update(
            masks=f"{every}{count} subsets of {grid} cells", reference=self.reference
        )
        model.notes.update(r2=f"R2 {float(fit.r2.min()):.2f}")


class _Subsets(NamedTuple):
    """Which cells are seen, `kept (N, M)` bool, how much each counts `weight (N,)` float64, and
    whether these are all there are."""

    kept: Tensor
    weight: Tensor
    complete: bool


class _Surrogate(NamedTuple):
    """The values of the cells `(M, B)` float64, and the share of the variance they tell `(B,)`."""

    values: Tensor
    r2: Tensor


def _subsets(kind: Kind, cells: int, masks: int, seed: int) -> _Subsets:
    """The subsets to run: all where there are at most `masks`, else drawn."""
    inner, sizes = kind == "shap", torch.arange(1, cells).double()
    if cells <= _MOST and 2**cells - 2 * inner <= masks:
        codes = torch.arange(int(inner), 2**cells - int(inner))
        kept = (codes[:, None] >> torch.arange(cells) & 1).bool()
        size = kept.sum(1).double()
        weight = torch.ones_like(size)
        if inner:
            of_a_size = torch.tensor([math.comb(cells, k) for k in range(cells + 1)]).double()
            weight = (cells - 1) / (of_a_size[kept.sum(1)] * size * (cells - size))
    else:
        generator = torch.Generator().manual_seed(seed)
        order = torch.rand(masks, cells, generator=generator)
        if inner:  # the size first, then any subset of it
            likely = 1 / (sizes * (cells - sizes))
            size = 1 + torch.multinomial(likely, masks, replacement=True, generator=generator)
            kept = order.argsort(1).argsort(1) < size[:, None]
        else:
            kept = order < 0.5
        weight = torch.ones(masks, dtype=torch.float64)
    if kind == "lime":
        distance = 1 - (kept.sum(1).double() / cells).sqrt()
        weight = torch.exp(-((distance / _WIDTH) ** 2))
    return _Subsets(kept, weight, cells <= _MOST and len(kept) == 2**cells - 2 * inner)


def _fit(drawn: _Subsets, scores: Tensor, whole: Tensor, ridge: float) -> _Surrogate:
    """Least squares with an intercept; scores `(N, B)`, of the whole clip `(B,)`."""
    scores, whole, weight = scores.double().cpu(), whole.double().cpu(), drawn.weight[:, None]
    kept, over = drawn.kept.double(), scores - whole  # a constant score is exact
    total = weight.sum()
    kept, over = (x - (weight * x).sum(0) / total for x in (kept, over))
    values, lever = _regression(kept, weight, over, ridge)
    left = over - kept @ values
    return _Surrogate(values, _told(drawn, scores, left, lever + weight[:, 0] / total))


def _fit_between(
    drawn: _Subsets, hidden: Tensor, scores: Tensor, whole: Tensor, ridge: float
) -> _Surrogate:
    """Least squares of values that sum to the whole `(B,)` less the hidden clip's score `(B,)`.

    What is over an even share of it is fitted, in the space of values that sum to 0.
    """
    hidden, scores, whole = (x.double().cpu() for x in (hidden, scores, whole))
    kept = drawn.kept.double()
    even = (whole - hidden) / kept.shape[1]
    over = scores - hidden - kept.sum(1, keepdim=True) * even
    values, lever = _regression(
        kept - kept.mean(1, keepdim=True), drawn.weight[:, None], over, ridge
    )
    return _Surrogate(values + even, _told(drawn, scores, over - kept @ values, lever))


def _regression(
    rows: Tensor, weight: Tensor, wanted: Tensor, ridge: float
) -> tuple[Tensor, Tensor]:
    """Values `(M, B)` of the smallest size by the normal equations, and each row's leverage `(N,)`.

    Rows `(N, M)`, their weights `(N, 1)` and what they should give `(N, B)`.
    """
    normal = rows.T @ (weight * rows) + ridge * torch.eye(rows.shape[1], dtype=rows.dtype)
    inverse = torch.linalg.pinv(normal, rtol=1e-10, hermitian=True)
    values = inverse @ (rows.T @ (weight * wanted))
    return values, ((weight * rows) @ inverse * rows).sum(1)


def _told(drawn: _Subsets, scores: Tensor, left: Tensor, lever: Tensor) -> Tensor:
    """R2 `(B,)` of residuals `(N, B)`; of a sample, of each row when it was not fitted.

    A row that alone decides a value says nothing of the others: the sum has no answer for it but
    the mean. Scores that vary by rounding are told.
    """
    weight = drawn.weight[:, None]
    around = scores - (weight * scores).sum(0) / weight.sum()
    if not drawn.complete:
        free = (1 - lever)[:, None]
        left = torch.where(free > 1e-6, left / free, around)
    varies = (weight * around.square()).sum(0)
    share = 1 - (weight * left.square()).sum(0) / varies
    noise = weight.sum() * (1e-6 * scores.abs().amax(0)).square() if len(scores) else varies
    return torch.where(varies > noise, share.clamp(min=0), 1).where(varies.isfinite(), torch.nan)


def _size(clip: Tensor) -> tuple[int, int, int]:
    t, h, w = clip.shape[2:]
    return t, h, w


def _spread(cells: Tensor, places: list[Tensor]) -> Tensor:
    """What cells `(..., a, b, c)` say, at the voxels `(..., T, H, W)` that lie in them."""
    time, height, width = places
    return cells[..., time[:, None, None], height[:, None], width]
