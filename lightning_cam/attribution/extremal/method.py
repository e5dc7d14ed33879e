"""Extremal perturbation: the part of a clip, of a given size, that the answer rests on most.

Fong et al., "Understanding Deep Networks via Extremal Perturbations and Smooth Masks", ICCV 2019;
for video Li et al., "Towards Visually Explaining Video Understanding Networks with Perturbation",
WACV 2021, and "Spatio-Temporal Perturbations for Video Attribution", TCSVT 2021. A mask m, 1 where
the clip can be seen, is found by gradient descent: of all smooth masks of a share `a` of the clip,
the one under which the network answers as strongly as possible. It minimises

    data_weight D(m) + area_weight R_a(m) [+ core_weight S_a(m)].

- R_a, the size: the mean square difference of the sorted mask to a step from 0 to 1. `"2d"` sorts
  each frame (the same share of every frame), `"3d"` all voxels (frames may have nothing), `"step"`
  as `"3d"`, and adds
- S_a, the core: the mask should consist of filled ellipsoids of `core` frames and pixels, so that
  what can be seen lasts.
- D, the answer: -log of where the score lies between its lowest and its highest value. Of a class
  that is -log p, the softmax probability; of p_a - p_b (`model.contrast`) -log((1 + p_a - p_b)/2);
  of -p (`model.counterfactual`) -log(1 - p).

**Columns that are not classes** have a unit, and no lowest value. They become the probability of a
class, p = sigmoid(10 (r - 1/2)) with r = (score - score of the hidden clip) / range. The range is
that of the scores as the whole clip appears in eight steps. A hidden clip has p = 0.007; where the
score rises steadily, the clip itself has p = 0.993. So the weights mean what they mean for classes,
whatever the unit, and no column is driven beyond all bounds. The mask moves the column up: where a
clip lowers its column, as a motion to the left lowers "pose/tx", ask `model.counterfactual()`.

The masks of a clip depend on no other clip of the batch, and on no random number: voxels of equal
value share the area that there is for them, which is the mean over the published code's shuffles.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_cam.attribution.doubt import Doubt, is_too_much
from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.extremal.answer import APPEARANCES, Answer, Game
from lightning_cam.attribution.extremal.settling import BACK, Settling, sizes
from lightning_cam.attribution.extremal.soft_masks import (
    Appearing,
    SmoothMasks,
    core_loss,
    hottest,
    ranking_loss,
)
from lightning_cam.attribution.fields import Cells, Count, Fraction, Positive, ZeroOrMore
from lightning_cam.attribution.method import Cost
from lightning_cam.attribution.perturbation import PerturbationAttribution, blurred
from lightning_cam.attribution.tensors import at_least_float32
from lightning_cam.errors import ArgumentError
from lightning_cam.progress import progress

Variant = Literal["step", "3d", "2d"]
Hidden = Literal["blur", "black", "mean"]

_TITLES = {"step": "STEP", "3d": "3D extremal perturbation", "2d": "2D extremal perturbation"}
_POINTS = 4096  # of the grids of 16 frames of 112 x 112, for which the published rate was chosen
_CORE_FROM = 1 / 8  # of the schedule: before, nothing is where it will be
_SCHEDULE = 1 / 4  # of the iterations with `tol`: masks can only rest once the weights do


@dataclass(frozen=True)
class ExtremalPerturbation(PerturbationAttribution):
    """2D-EP, 3D-EP and STEP. The map is the mean of the masks of all areas, from 0 to 1.

    Adds to `Explanation.numbers`, each `(B,)`, for an area of 0.1: "area_0.1", the mask's size (a
    weak answer can lose to the weights: below half or above twice the area there is a warning), and
    "score_0.1", the score of what it shows (of what is left where `game="delete"`), and
    "exact_0.1", that of its hottest tenth of the voxels alone (of equal ones a fixed draw): masks
    that came out too large score too well, so compare methods by "exact_0.1"; "off_area", the
    difference of the worst mask's size from its area, as a share of the larger one; and with `tol`
    "iterations", how many the clip needed.

    Costs, for each area, a forward and a backward to the input an iteration (two with
    `game="dual"`), and 1 + 8 (only columns that are not classes) + 2 areas forwards. Memory: what
    the network keeps for a backward of `batch` rows, eight blurred clips, and up to 0.3 GB for
    masks.

    Args:
        variant: `"step"`, `"3d"` or `"2d"`, see above.
        areas: shares of the clip's valid frames, one mask each.
        iterations: of gradient descent (momentum 0.9 and dampening 0.9); with `tol` the most.
        lr: its rate for 16 frames of 112 x 112; it grows with the number of a mask's parameters,
            over which the losses are means.
        data_weight: of the answer.
        area_weight: of the size, at first.
        growth: how many times larger the weight of the size is at the end; with `tol` after a
            quarter of the iterations.
        core_weight: of the core, after an eighth of the time in which the area's weight grows;
            `"step"` only.
        core: frames, height and width in pixels of an ellipsoid; None: half of the clip's frames, 7
            at most (with all of them, twice the area would have to be filled), and `sigma`.
        sigma: pixels that a parameter of the mask reaches; None: a tenth of the shorter side.
        step: pixels between parameters; None: two thirds of `sigma`, 7 at most.
        game: `"preserve"`: what is seen should suffice; `"delete"`: its absence should hurt;
            `"dual"`: both.
        reference: the baseline, `"blur"`, `"black"` or `"mean"` (0 in model space).
        blur: standard deviation in pixels of the blurred baseline.
        area_on: count the size on the frame (`"crop"`), or as published on a `"canvas"` that
            reaches beyond it, by which masks become larger than they should.
        smooth: Gaussian on each frame of the map, as a share of the shorter side; 0: none.
        batch: rows that go through the network together; None: as many as fill the device.
        bf16: run the network under bfloat16 autocast.
        tol: stop when neither the size of a clip's masks nor the log-odds of the answer have moved
            by more than this share within 20 iterations, 0.2 say; None: run them all.

    Example:
        >>> e = explain(model, ExtremalPerturbation("3d", areas=(0.05, 0.1, 0.2)), clip)
        >>> e.numbers["area_0.1"], e.numbers["score_0.1"]
    """

    doubts = (Doubt("off_area", "a mask's size differs from the area asked for by {off_area:.0%}"),)

    variant: Variant = "step"
    areas: tuple[Fraction, ...] = (0.1,)
    iterations: Count = 200
    lr: Positive = 0.4
    data_weight: ZeroOrMore = 100
    area_weight: Positive = 300
    growth: Positive = 16
    core_weight: ZeroOrMore = 300
    core: Cells | None = None
    sigma: Count | None = None
    step: Count | None = None
    game: Game = "preserve"
    reference: Hidden = "blur"
    blur: Positive = 20
    area_on: Literal["crop", "canvas"] = "crop"
    smooth: ZeroOrMore = 0.09
    batch: Count | None = None
    bf16: bool = False
    tol: Positive | None = None

    @property
    def finds(self) -> tuple[str, ...]:
        of_each = (f"{n}_{area:g}" for area in self.areas for n in ("area", "score", "exact"))
        return ("iterations", "off_area", *of_each)

    @property
    def title(self) -> str:
        """For captions."""
        return _TITLES[self.variant]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.areas:
            raise ArgumentError("areas must be one share of the clip or more, got ()")
        if len(set(self.areas)) < len(self.areas):
            raise ArgumentError(f"areas must differ, got {self.areas}")

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        descent = self.iterations * len(self.areas) * (2 if self.game == "dual" else 1)
        appearing = APPEARANCES if model.probability is None else 0
        return Cost(1 + appearing + descent + 2 * len(self.areas), descent)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        runner, outputs = self.runner(model, clip), self.first(model, clip).outputs
        valid = model.valid_for(clip)
        if valid is None:
            valid = torch.ones(len(clip), clip.shape[2], dtype=torch.bool, device=clip.device)
        appearing = Appearing(model, clip, self.reference, self.blur)
        answer = Answer(model, runner, outputs, target, appearing, valid, self.game)
        masks = self._masks(model, clip, valid, answer)  # (A, B, T, H, W)
        exact = self._hottest(masks, valid)
        self._report(model, masks, valid, answer.scores(masks), answer.scores(exact))
        heat = masks.mean(0)
        if self.smooth:
            heat = blurred(heat, self.smooth * min(clip.shape[3:]), cut=4)
        return heat

    def _masks(self, model: Explainable, clip: Tensor, valid: Tensor, answer: Answer) -> Tensor:
        """The masks after the last iteration, 0 on padded frames."""
        size = (clip.shape[3], clip.shape[4])
        sigma = self.sigma or max(2, round(min(size) / 10))
        step = self.step or max(1, min(7, round(sigma * 2 / 3)))
        if step > sigma:
            raise ValueError(f"step must be at most sigma={sigma}, got {step}: masks have holes")
        like = at_least_float32(clip)
        smooth = SmoothMasks(size, step, sigma, like)
        shape = (len(self.areas), *valid.shape)  # (A, B, T)
        grids, speed = like.new_ones(*shape, *smooth.grid), torch.zeros(0)
        rate = self.lr * valid.sum(1) * math.prod(smooth.grid) / _POINTS
        rate = rate.to(like)[:, None, None, None]
        settling = Settling(self.tol, self._schedule - BACK, len(clip), self.iterations)
        with progress(self.title, self.iterations) as advance:
            for n in range(self.iterations):
                grids.requires_grad_()
                canvas = smooth(grids.flatten(0, 2)).unflatten(0, shape)
                masks = smooth.crop(canvas)
                cost, slope = answer.gradient(masks.detach())
                shown = masks.detach() * valid[..., None, None]
                if settling.look(n, shown, sizes(shown, valid), cost):
                    break
                pull = self.data_weight * slope
                counted = masks if self.area_on == "crop" else canvas
                size_loss = self._size(counted, valid, min(1.0, n / self._schedule), sigma)
                (slope,) = torch.autograd.grad([size_loss, masks], grids, [None, pull])
                speed = 0.9 * speed + 0.1 * slope if n else slope
                # A network that is not finite has no gradient to follow: everything stays seen.
                grids = (grids.detach() - rate * speed).clamp_(0, 1).nan_to_num_(nan=1)
                advance(1)
        with torch.no_grad():
            masks = smooth.crop(smooth(grids.flatten(0, 2))).unflatten(0, shape)
        if self.tol is not None:
            model.numbers["iterations"] = settling.iterations.to(clip.device)
        return settling.kept(masks * valid[..., None, None])

    @property
    def _schedule(self) -> int:
        """Iterations over which the weight of the area grows and the core joins."""
        return self.iterations if self.tol is None else math.ceil(self.iterations * _SCHEDULE)

    def _hottest(self, masks: Tensor, valid: Tensor) -> Tensor:
        """Of each mask `(A, B, T, H, W)` exactly its area's share of the valid voxels, 1 or 0."""
        counted = valid.sum(1) * masks[0, 0, 0].numel()
        counts = [(counted * area + 1e-9).floor() for area in self.areas]
        hot = masks.masked_fill(~valid[..., None, None], -1).flatten(2)
        return hottest(hot, torch.stack(counts)).view_as(masks)

    def _size(self, masks: Tensor, valid: Tensor, time: float, sigma: int) -> Tensor:
        """The weighted losses of sizes and cores, all masks' sum; `time` goes from 0 to 1."""
        total = 0 * masks.sum()
        for b, frames in enumerate(valid):
            if not frames.any():
                continue
            for a, area in enumerate(self.areas):
                mask = masks[a, b, frames]  # (T', H, W)
                ranked = mask.flatten(1) if self.variant == "2d" else mask.flatten()[None]
                weight = self.area_weight * self.growth**time
                total = total + weight * ranking_loss(ranked, area).mean()
                if self.variant == "step" and self.core_weight and time >= _CORE_FROM:
                    core = self.core or (min(7, -(-len(mask) // 2)), sigma | 1, sigma | 1)
                    total = total + self.core_weight * core_loss(mask, area, core)
        return total

    def _report(
        self, model: Explainable, masks: Tensor, valid: Tensor, scores: Tensor, exact: Tensor
    ) -> None:
        """What came out: numbers, a caption, and a warning where the area was not kept."""
        found_sizes, some = sizes(masks, valid), valid.any(1)
        wanted = found_sizes.new_tensor(self.areas)[:, None]
        off = (found_sizes - wanted).abs() / torch.maximum(found_sizes, wanted)  # (A, B)
        off = off.where(some, 0)
        model.numbers["off_area"] = off.amax(0)
        for row, (area, size, misses) in enumerate(zip(self.areas, found_sizes, off, strict=True)):
            model.numbers[f"area_{area:g}"], model.numbers[f"score_{area:g}"] = size, scores[row]
            model.numbers[f"exact_{area:g}"] = exact[row]
            found = size[some]
            if is_too_much(float(misses.amax())):
                low, high = (float(x) for x in found.aminmax())
                warnings.warn(
                    f"{self.title}: of area {area:g} masks of {low:.2g} to {high:.2g} came out; "
                    "a weak answer needs a larger data_weight, a small mask a smaller sigma",
                    stacklevel=2,
                )
        areas = "/".join(f"{area:g}" for area in self.areas)
        got = "/".join(f"{float(size.mean()):.2g}" for size in found_sizes)
        model.notes.update(area=f"area {areas} (found {got})", game=f"{self.game} {self.reference}")
        if self.tol is not None:
            low, high = (int(x) for x in model.numbers["iterations"].aminmax())
            model.notes.update(
                iterations=f"{low} iterations" if low == high else f"{low} to {high} iterations"
            )
