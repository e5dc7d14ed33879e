"""Grad-CAM for regression: which features hold a loss down, or move an output.

A regressor has no class to ask for. After the project "Grad-CAM for Video and Regression Tasks" the
column is a negative loss -L (or any output: a pose component, the mean depth of a box), and

    alpha_k = mean over h, w of d(-L)/dA^k,    M = sum_k alpha_k A^k.

**What the sign means.** M > 0: these features lower the loss; strengthening them would lower it
further. They are evidence that supports the present answer. M < 0: they raise the loss. It is not a
map of where the error is. Both parts are kept (`sign="both"`), because A >= 0 behind a ReLU and all
alpha_k may be negative: the positive part of a negative loss is often blank. How often is told by
the number "blank".

**Low gradients.** At an optimum of a smooth loss the gradient vanishes and the map, scaled by its
maximum, would show noise in full colours. The number "pull" compares what the layer could change,
sum |g A|, with what there is to change: the difference between the column and that of a black clip,
or a hundredth of the column if that is more. Below `low` the clip is flagged "low_gradient" and its
image says so. (The gradient of an L1 loss is the sign of the error: it does not shrink.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_cam.attribution.calls import on_frames
from lightning_cam.attribution.doubt import Doubt
from lightning_cam.attribution.explainable import Explainable, Forward
from lightning_cam.attribution.fields import ZeroOrMore
from lightning_cam.attribution.gradcam import Pool, layer_map, recorded_from, signed_map
from lightning_cam.attribution.method import Cost, LayerAttribution
from lightning_cam.attribution.perturbation import black

Sign = Literal["pos", "neg", "both"]

_STEADY = 0.01  # a column that black changes by less than this share hardly depends on the clip


@dataclass(frozen=True)
class RegressionGradCAM(LayerAttribution):
    """Signed Grad-CAM of a column that is not a class, which says how far it can be trusted.

    Adds to `Explanation.numbers`, each `(B,)`:

    - "blank": share of the frames whose positive map is zero throughout, of those that the layer
      responds to and the column depends on;
    - "gradient_norm": Euclidean norm of the gradient at the layer;
    - "pull" and "low_gradient", see the top of this file; not with `low=0`.

    Costs one forward, the tail's backward, and a second forward for the black clip.

    Args:
        layer: target layer, a name in `model.layers` or any dotted module name; None: the first.
        pool: `"space"`, `"spacetime"`, None as for `GradCAM`, or `"none"` for gradients not pooled
            (HiResCAM): of a loss over pixels, pooling discards most at fine layers.
        sign: `"pos"` or `"neg"`: that part of the map, as heat from 0; `"both"`: the signed map.
        low: pull below which a clip is flagged; 0 flags none.

    Example:
        >>> e = explain(model, RegressionGradCAM("depth.iconv4"), clip, "-view_synthesis_loss")
        >>> e.numbers["blank"], e.numbers["low_gradient"]
    """

    title = "Regression Grad-CAM"
    finds = ("blank", "gradient_norm", "pull", "low_gradient")
    doubts = (
        Doubt(
            "low_gradient",
            "low gradient: the layer moves the column by {pull:.1g} of what the clip does",
        ),
    )

    pool: Pool | Literal["none"] | None = None
    sign: Sign = "both"
    low: ZeroOrMore = 0.01

    @property
    def grainy(self) -> bool:
        """Whether single voxels stand out of the map."""
        return self.pool == "none"

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(2 if self.low else 1, 1)

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        return recorded_from(model, clip, self.layer)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        found = layer_map(model, self.first(model, clip), clip, target, self.layer)
        signed, gradient = signed_map(model, found, self.pool), found.gradient
        seen, driven = (x.flatten(3).any(-1).any(1) for x in (found.activation, gradient))  # (B, t)
        seen &= driven | ~driven.any(1, keepdim=True)  # padding and its neighbours drive no output
        blank = seen & ~(signed > 0).flatten(2).any(-1)
        model.numbers["blank"] = blank.sum(1) / seen.sum(1).clamp(min=1)
        model.numbers["gradient_norm"] = gradient.flatten(1).norm(dim=1)
        if self.low:
            with torch.no_grad():
                outputs = model.forward(black(model, clip).expand_as(clip).contiguous())
            hidden = model.score(outputs, target)
            reach = (gradient * found.activation).abs().flatten(1).sum(1)
            scale = torch.maximum((found.score - hidden).abs(), _STEADY * found.score.abs())
            pull = reach / scale.clamp(min=torch.finfo(reach.dtype).tiny)
            model.numbers.update(pull=pull, low_gradient=pull < self.low)
        signed = on_frames(model, signed, self.layer)
        if self.sign != "both":
            signed = signed.relu() if self.sign == "pos" else (-signed).relu()
            model.notes.update(sign=f"{'positive' if self.sign == 'pos' else 'negative'} part")
        return model.resized(signed, clip)
