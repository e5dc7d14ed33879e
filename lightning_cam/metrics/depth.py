"""Errors of a predicted depth against measured depth, as on KITTI's Eigen split.

Eigen et al., NIPS 2014; Zhou et al., CVPR 2017. Per image, over pixels whose true depth is known:
mean |g - p| / g, mean (g - p)^2 / g, the root mean square of g - p and of ln g - ln p, and the
shares of pixels with max(g / p, p / g) below 1.25, 1.25^2 and 1.25^3. Then the mean over images.
A single camera does not know its scale: the prediction is multiplied by the ratio of the medians.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

DEPTH_ERRORS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")

Crop = Literal["garg"] | None
Scaling = Literal["median"] | None
Resize = Literal["depth", "disparity"]


def depth_errors(
    prediction: Tensor,
    truth: Tensor,
    *,
    floor: float = 1e-3,
    cap: float = 80.0,
    crop: Crop = "garg",
    scaling: Scaling = "median",
    resize: Resize = "depth",
) -> dict[str, Tensor]:
    """Errors of the depth of one image.

    Args:
        prediction: `(h', w')` depth, in the truth's unit where it is not scaled; it is resized to
            the truth's size.
        truth: `(h, w)` metres; pixels with floor < depth < cap count (0: unknown).
        floor, cap: metres; the scaled prediction is also clipped to them. 80 and 50 are usual.
        crop: `"garg"`: only the part of the image that Garg et al. (ECCV 2016) look at, without
            sky and bonnet.
        scaling: `"median"`: multiply the prediction by median(truth) / median(prediction), each
            over the pixels that count.
        resize: interpolate `"depth"` (Zhou et al.) or `"disparity"`, 1 / depth (monodepth2).

    Returns:
        scalars (float64): `abs_rel`, `sq_rel`, `rmse`, `rmse_log`, `a1`, `a2`, `a3`. All are NaN
        where no pixel counts, and where the prediction is not positive and finite everywhere: that
        is not a depth, and to judge the rest of it would reward a network for failing.

    Raises:
        ValueError: a shape or an option is not one of these.
    """
    predicted, true = _compared(prediction, truth, floor, cap, crop, scaling, resize)
    return _errors(predicted, true[: len(predicted)])


class DepthErrors(Metric):
    """Mean of `depth_errors` over images and ranks; takes its options and torchmetrics' own.

    `compute` returns float32 scalars: each error, `constant/abs_rel` (of a prediction that knows
    each image's median true depth and nothing more: a network that does not beat it has learnt no
    shape), `images`, how many were scored, and `unscored`, how many have no errors because of their
    prediction. Images whose depth is not known at any pixel that counts are not counted.

    Example:
        >>> metric = DepthErrors(cap=50)
        >>> metric.update(1 / disparity, truth)  # one image: (h', w'), (h, w)
        >>> metric.compute()["abs_rel"]
    """

    full_state_update = False
    total: Tensor
    images: Tensor
    unscored: Tensor

    def __init__(
        self,
        *,
        floor: float = 1e-3,
        cap: float = 80.0,
        crop: Crop = "garg",
        scaling: Scaling = "median",
        resize: Resize = "depth",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.options = (floor, cap, crop, scaling, resize)
        zeros = torch.zeros(len(DEPTH_ERRORS) + 1, dtype=torch.float64)
        self.add_state("total", zeros, dist_reduce_fx="sum")
        for name in ("images", "unscored"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, truth: Tensor) -> None:
        """Add one image, see `depth_errors`."""
        predicted, true = _compared(prediction, truth, *self.options)
        if not len(predicted):
            self.unscored += len(true) > 0
            return
        constant = _errors(_median(true).expand_as(true), true)["abs_rel"]
        errors = [*_errors(predicted, true).values(), constant]
        self.total += torch.stack(errors).to(self.total.device)
        self.images += 1

    def compute(self) -> dict[str, Tensor]:
        """Means over the scored images, NaN before the first, and their numbers."""
        names = (*DEPTH_ERRORS, "constant/abs_rel")
        means = dict(zip(names, (self.total / self.images).float(), strict=True))
        return means | {"images": self.images.float(), "unscored": self.unscored.float()}


def _compared(
    prediction: Tensor,
    truth: Tensor,
    floor: float,
    cap: float,
    crop: Crop,
    scaling: Scaling,
    resize: Resize,
) -> tuple[Tensor, Tensor]:
    """Predicted and true depth of the pixels that count `(n,)`, float64.

    There are none of the first where the prediction is not a depth.
    """
    if prediction.ndim != 2 or truth.ndim != 2:
        raise ValueError(
            "expected the depth of one image (h, w) each, got "
            f"{tuple(prediction.shape)} and {tuple(truth.shape)}"
        )
    for name, value, known in (
        ("crop", crop, ("garg", None)),
        ("scaling", scaling, ("median", None)),
        ("resize", resize, ("depth", "disparity")),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {known}, got {value!r}")
    predicted, true = prediction.double(), truth.to(prediction.device).double()
    counts = (true > floor) & (true < cap)
    if crop == "garg":
        counts &= _garg(true)
    if not counts.any() or not (predicted.isfinite() & (predicted > 0)).all():
        return true.new_zeros(0), true[counts]
    if resize == "disparity":
        predicted = 1 / predicted
    predicted = F.interpolate(
        predicted[None, None], tuple(truth.shape), mode="bilinear", align_corners=False
    )[0, 0]
    if resize == "disparity":
        predicted = 1 / predicted
    predicted, true = predicted[counts], true[counts]
    if scaling == "median":
        predicted = predicted * (_median(true) / _median(predicted))
    return predicted.clamp(floor, cap), true


def _errors(predicted: Tensor, true: Tensor) -> dict[str, Tensor]:
    """The errors of n pixels; NaN of none."""
    difference = true - predicted
    ratio = torch.maximum(true / predicted, predicted / true)
    values = (
        (difference.abs() / true).mean(),
        (difference.square() / true).mean(),
        difference.square().mean().sqrt(),
        (true.log() - predicted.log()).square().mean().sqrt(),
        *((ratio < 1.25**n).double().mean() for n in (1, 2, 3)),
    )
    return dict(zip(DEPTH_ERRORS, values, strict=True))


def _garg(image: Tensor) -> Tensor:
    """`(h, w)` bool, the rows and columns of an image that Garg et al. look at."""
    height, width = image.shape
    inside = torch.zeros_like(image, dtype=torch.bool)
    top, bottom = math.floor(0.40810811 * height), math.floor(0.99189189 * height)
    left, right = math.floor(0.03594771 * width), math.floor(0.96405229 * width)
    inside[top:bottom, left:right] = True
    return inside


def _median(values: Tensor) -> Tensor:
    """The mean of the two in the middle where n is even, as NumPy has it and torch has not."""
    ordered, n = values.sort().values, len(values)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
