"""Conservative propagation and AttnLRP: gradient x input of a transformer, made to add up.

Gradient x input adds up to the column y only where every layer is linear in what it gets or at
least of degree 1 (ReLU). Attention and layer norm are neither, and the parts that they get are far
from y. So in the backward pass, and there alone,

    layer norm     the standard deviation is a constant:             y = g (x - mean(x)) / s + b
    GELU, SiLU     the factor behind x is a constant:                y = x f(x), f constant
    attention      "still": the weights softmax(q k^T) are constants:    y_i = sum_j w_ij v_j
                   "shared": of each product w v and q k^T both factors get half

Then R = x dy/dx of a voxel, summed over its channels, is LRP with these rules. RMS norm is as layer
norm. `"still"` is Ali et al., "XAI for Transformers: Better Explanations through Conservative
Propagation", ICML 2022 (who have attention and layer norm; activations are of the same kind):
every layer becomes linear, and without biases, positions and class token the sum of R is y.
`"shared"` is AttnLRP, Achtibat et al., ICML 2024, which also passes relevance to where a network
looks: the softmax is taken for its tangent (their Proposition 3.1), and products that depend on the
clip by both factors share by halves (3.2), gates such as those of squeeze and excitation among
them. A tangent has a constant part, which takes relevance with it, so that R need not add up to y.

Functions are caught where PyTorch is called, so that the network is not touched. Norms and
activations written by hand are not caught: they pass the plain gradient. Scripted parts are
refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from lightning_cam.attribution.cuts import no_checkpoints, no_scripts
from lightning_cam.attribution.explainable import Explainable, Forward
from lightning_cam.attribution.fields import Cells
from lightning_cam.attribution.gradient import input_gradient, recorded
from lightning_cam.attribution.method import Attribution, Cost
from lightning_cam.attribution.transformer_rules import SHARED, STILL, Ruled
from lightning_cam.errors import UserError


@dataclass(frozen=True)
class ConservativePropagation(Attribution):
    """How much of the column each place makes up, with norms and, by default, attention held still.

    Works at the clip, so it needs no target layer and no layout. Networks without attention, layer
    norm, GELU and SiLU get gradient x input, which of ReLUs alone is conservative as it is; the
    caption says how many were met. A voxel that is 0 in model space gets 0, so relevance is shared
    evenly within blocks of the clip, as large as a transformer's tubelets. The map is signed.
    One forward and one backward.

    Args:
        patch: frames, height and width of a block, smaller at the end of the clip where it does
            not fit; None: each voxel for itself.
        attention: `"still"`, conservative propagation, or `"shared"`, AttnLRP.

    Raises:
        UserError: the outputs themselves are a softmax, which stands still.

    Example:
        >>> explain(model, ConservativePropagation(patch=(2, 8, 8)), clip).heatmap
    """

    patch: Cells | None = (2, 8, 8)
    attention: Literal["still", "shared"] = "still"

    @classmethod
    def achtibat2024(cls, patch: Cells | None = (2, 8, 8)) -> ConservativePropagation:
        """AttnLRP."""
        return cls(patch, "shared")

    @property
    def title(self) -> str:
        return "AttnLRP" if self.attention == "shared" else "Conservative propagation"

    @property
    def grainy(self) -> bool:
        return self.patch is None

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(1, 1)

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        rules = SHARED if self.attention == "shared" else STILL
        no_scripts(self.title, model.module)
        with no_checkpoints(self.title, model.module), Ruled(rules) as mode:
            forward = recorded(model, clip)
        if not forward.outputs.requires_grad:
            raise UserError(
                "conservative propagation holds every softmax still, and the outputs of "
                f"{type(model.module).__name__} are one, or do not depend on the clip; explain "
                "the logits: Explainable.of(model, forward=...), or take explain=gradient_x_input"
            )
        met = ", ".join(f"{n} {name}" for name, n in mode.met.items())
        model.notes.update(rules=f"rules for {met}" if met else "no rule was needed")
        return forward

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        gradient = input_gradient(model, self.first(model, clip), target)
        heat = (gradient * clip).sum(1)  # (B, T, H, W)
        return heat if self.patch is None else _in_blocks(heat, self.patch)


def _in_blocks(heat: Tensor, patch: Sequence[int]) -> Tensor:
    """(B, T, H, W) of which each block holds its mean, so that the sum stays."""
    sizes = heat.shape[1:]
    patch = [min(n, size) for n, size in zip(patch, sizes, strict=True)]
    mean = F.avg_pool3d(heat[:, None], patch, ceil_mode=True)[:, 0]
    for axis, (n, size) in enumerate(zip(patch, sizes, strict=True), start=1):
        mean = mean.repeat_interleave(n, axis).narrow(axis, 0, size)
    return mean
