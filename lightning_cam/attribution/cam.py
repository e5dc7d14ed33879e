"""CAM: the classifier's own weights, put on the features before they are averaged.

Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016; for 3-D networks
Stergiou et al., "Saliency Tubes: Visual Explanations for Spatio-Temporal Convolutions", ICIP 2019.
Where the outputs are y = W mean(A) + b, the mean over all places of a layer's features A,

    heatmap = ReLU(sum_k W_ck A^k)

and the mean of the sum before the ReLU is y_c - b_c: each place has what it adds. Saliency Tubes
are this without the ReLU, stretched to 0..1 in each clip, which changes no order and no image.

Only networks with this head have it: global average pooling, then one linear layer or one 1 x 1 x 1
convolution. Whether it is so is measured, not read off the names of modules: W and b must give the
outputs of these very clips. For all others Grad-CAM is the generalisation.

The cost is one forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cam.attribution.calls import in_time, on_frames
from lightning_cam.attribution.explainable import Explainable, Forward
from lightning_cam.attribution.gradcam import recorded_from
from lightning_cam.attribution.method import Cost, LayerAttribution
from lightning_cam.attribution.tensors import at_least_float32
from lightning_cam.errors import UserError

_EXACT = 1e-4  # of the largest y - b: by what W mean(A) may differ from it
_ROUNDED = 2  # steps of rounding by which outputs may be off besides: in bfloat16 that is more


@dataclass(frozen=True)
class CAM(LayerAttribution):
    """CAM, of networks that end in average pooling and one linear layer.

    Args:
        layer: the layer that is averaged, a name in `model.layers` or any dotted module name; None:
            the first.
        relu: keep the positive part; False, the signed map, is Saliency Tubes.

    Example:
        >>> explain(model, CAM(relu=False), clip).heatmap
    """

    title = "CAM"

    relu: bool = True

    @property
    def both_signs(self) -> CAM:
        return replace(self, relu=False)

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(1)

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        with torch.no_grad():
            return recorded_from(model, clip, self.layer)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        outputs, captured = self.first(model, clip)
        features = in_time(model, captured["layer"], len(clip), self.layer).detach()
        weight = _head(model, features, outputs, clip)  # (K, D)
        columns = torch.einsum("kd,bdthw->bthwk", weight, features)
        # The score is linear in the columns, and so are its maps: y_a - y_b has that of W_a - W_b.
        cam = model.score(columns.flatten(1, 3), target).unflatten(1, columns.shape[1:4])
        cam = on_frames(model, cam, self.layer)
        return model.resized(cam.relu() if self.relu else cam, clip)


def _head(model: Explainable, features: Tensor, outputs: Tensor, clip: Tensor) -> Tensor:
    """The weights `(K, D)` that make the outputs `(B, K)` of the mean features.

    Raises:
        UserError: no layer of the network does.
    """
    steps = features.mean((3, 4))  # (B, D, t)
    means = [steps.mean(2)]
    if (valid := model.valid_for(clip)) is not None:  # a step counts by its share of valid frames
        share = F.adaptive_avg_pool1d(valid.to(steps), steps.shape[2])[:, None]
        means.append((steps * share).sum(2) / share.sum(2).clamp(min=1e-12))
    rounded = _ROUNDED * torch.finfo(outputs.dtype).eps * _largest(outputs)
    outputs = at_least_float32(outputs)
    for weight, bias in _linear(model.module):
        if weight.shape != (outputs.shape[1], steps.shape[1]):
            continue
        weight = weight.to(steps)
        wanted = outputs if bias is None else outputs - bias.to(steps)
        apart = _EXACT * _largest(wanted) + rounded  # less the bias, or a large one would hide all
        # Weights of NaN make outputs of NaN: that network is explained as others are.
        if any(
            torch.allclose(mean @ weight.T, wanted, rtol=0, atol=apart, equal_nan=True)
            for mean in means
        ):
            return weight
    raise UserError(
        f"CAM is for networks that average layer {model.notes['layer']!r} and put one linear layer "
        f"on it: none of {type(model.module).__name__} makes the outputs of these means; choose "
        "the last layer before the pooling, or take explain=hirescam, which is CAM in such "
        "networks and works in all"
    )


def _largest(outputs: Tensor) -> float:
    """The largest size of a finite number among outputs."""
    return float(outputs.abs().nan_to_num(0, 0).max())


def _linear(module: nn.Module) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Weights `(K, D)` and biases `(K,)` of linear layers and 1 x 1 x 1 convolutions."""
    for part in module.modules():
        if isinstance(part, nn.Linear) or (
            isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d)
            and part.weight[0, 0].numel() == part.groups == 1
        ):
            bias = None if part.bias is None else part.bias.detach()
            yield part.weight.detach().flatten(1), bias
