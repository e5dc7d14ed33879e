"""Layer-wise relevance propagation and excitation backprop: a score, shared out down to the clip.

Both pass a number down through the network, from layer to layer, so that what a unit gets is shared
among the units below it: relevance R in LRP (Bach et al., PLOS ONE 2015), probability P in
excitation backprop (Zhang et al., ECCV 2016; for recurrent networks Bargal et al., CVPR 2018). Of a
layer with inputs a and weights w, z = sum_i a_i w_i + b,

    LRP-epsilon     R_i = a_i w_i / (z + epsilon sign z) R
    z-plus          R_i = (a_i w_i)+ / sum_j (a_j w_j)+ R,    what is above 0; b+ in the sum
    alpha-2-beta-1  R_i = [2 (a_i w_i)+ / sum_j (a_j w_j)+  -  (a_i w_i)- / sum_j (a_j w_j)-] R
    excitation      P_i = (a_i w_i)+ / sum_j (a_j w_j)+ P,    b left out

summed over the units above. Their sums are those of the score, as far as biases, and units without
anything above 0 below them, do not take a part. These rules are zennit's.

**Everything else needs a rule as well**, see `functions` and `rules`: a plain `+`, where the
branches of a residual block meet, would hand everything to both, so that from block to block it
doubles: 8 times on a small 3-D network, 256 times in published code on R(2+1)D-18. Sums, means and
pooling are shared among what they sum; maxima give to their place; attention weights and gates are
constants; an LSTM is unrolled, see `recurrent`. A batch norm is taken into the layer before it.
What has no rule is named and refused.

**Where it starts.** The score is a linear function of the inputs a of its last layer (averages over
frames, attention weights and differences of columns included), so its parts are a dy/da: LRP passes
these down, excitation backprop what is above 0 of them, scaled to the sum 1. Contrastive excitation
backprop subtracts what the same score with the opposite sign passes down. That is the published
one, whose classifier has negated weights in the second pass; as every rule is linear in what it
passes down, one pass serves both.

The cost is one forward and one backward, of which each layer runs two to five times: zennit's rules
compute the layer with weights above and below 0 apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_cam.attribution.calls import in_time, on_frames
from lightning_cam.attribution.doubt import Doubt
from lightning_cam.attribution.explainable import Explainable, Forward
from lightning_cam.attribution.method import Attribution, Cost
from lightning_cam.attribution.relevance.network import relevance, run_with_rules
from lightning_cam.attribution.relevance.rules import Rules, not_0
from lightning_cam.attribution.tensors import at_least_float32
from lightning_cam.errors import UserError

Composite = Literal[
    "epsilon", "epsilon_plus", "epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1"
]


@dataclass(frozen=True)
class ExcitationBackprop(Attribution):
    """Excitation backprop, and with `contrastive` what speaks for this column rather than against.

    A map of probabilities: how likely a walk from the column down to the clip, in proportion to
    what excites each unit, ends at a place. Padded frames have none.

    Args:
        layer: where it ends: a name in `model.layers` or any dotted module name; None: at the clip.
        contrastive: subtract what excites the column's opposite.

    Example:
        >>> explain(model, ExcitationBackprop(contrastive=True), clip).heatmap
    """

    layer: str | None = None
    contrastive: bool = False

    @property
    def title(self) -> str:
        return "Contrastive excitation backprop" if self.contrastive else "Excitation backprop"

    @property
    def finds(self) -> tuple[str, ...]:
        return () if self.contrastive else ("lost",)

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        lost = Doubt("lost", "{lost:.0%} of what was passed down got lost on the way")
        return () if self.contrastive else (lost,)  # a difference adds up to nothing known

    @property
    def grainy(self) -> bool:
        return self.layer is None

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(1, 1)

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        zennit = _zennit("Excitation backprop")

        def rule(module: nn.Module, x: Tensor, pixels: bool) -> Any:
            return zennit.ZPlus(stabilizer=not_0, zero_params=["bias"])

        rules = Rules("excitation backprop", signed=False, layer=rule)
        return run_with_rules(model, rules, clip, self.layer)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        def start(parts: list[Tensor]) -> list[Tensor]:
            found = _probabilities(parts, len(clip))
            if not self.contrastive:
                return found
            against = _probabilities([-part for part in parts], len(clip))
            return [p - q for p, q in zip(found, against, strict=True)]

        forward = self.first(model, clip)
        found = relevance(model, forward, model.score(forward.outputs, target), start)
        if not self.contrastive:
            model.numbers["lost"] = 1 - _total(found, len(clip))
        return _at_size(
            model, _summed(model, forward, found, len(clip), self.layer).relu(), clip, self.layer
        )


@dataclass(frozen=True)
class LRP(Attribution):
    """Layer-wise relevance propagation, by one of zennit's composites of rules.

    Args:
        composite: `"epsilon_plus"`: epsilon for linear layers, z-plus for convolutions;
            `"epsilon_alpha2_beta1"`: alpha-2-beta-1 for these, sharper, whose relevance may grow
            from layer to layer; `"epsilon_gamma_box"`: the gamma rule, gamma = 1/4, and z-box where
            a layer sees the clip, whose own range it takes; `"epsilon_plus_flat"`: there, all
            voxels alike; `"epsilon"`: epsilon for all, which is noisy.
        layer: where it ends: a name in `model.layers` or any dotted module name; None: at the clip.
        relu: keep the positive part; False returns the signed map.

    Example:
        >>> explain(model, LRP(composite="epsilon_alpha2_beta1", relu=False), clip).heatmap
    """

    title = "LRP"
    finds = ("relevance",)

    composite: Composite = "epsilon_plus"
    layer: str | None = None
    relu: bool = True

    @property
    def grainy(self) -> bool:
        return self.layer is None

    @property
    def both_signs(self) -> LRP:
        return LRP(self.composite, self.layer, relu=False)

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(1, 1)

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        rules = Rules("LRP", signed=True, layer=_composite(self.composite))
        return run_with_rules(model, rules, clip, self.layer)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        forward = self.first(model, clip)
        found = relevance(model, forward, model.score(forward.outputs, target), lambda parts: parts)
        heat = _summed(model, forward, found, len(clip), self.layer)
        model.notes.update(composite=self.composite.replace("_", " "))
        model.numbers["relevance"] = _total(found, len(clip))
        return _at_size(model, heat.relu() if self.relu else heat, clip, self.layer)


def _composite(name: Composite) -> Callable[[nn.Module, Tensor, bool], Any]:
    """The rules of layers with weights."""
    zennit = _zennit("LRP")
    convolution = {
        "epsilon": zennit.Epsilon,
        "epsilon_gamma_box": zennit.Gamma,
        "epsilon_alpha2_beta1": zennit.AlphaBeta,
    }.get(name, zennit.ZPlus)

    def rule(module: nn.Module, x: Tensor, pixels: bool) -> Any:
        if pixels and name == "epsilon_plus_flat":
            return zennit.Flat()
        linear = isinstance(module, nn.Linear)
        if pixels and name == "epsilon_gamma_box" and not linear:
            inside = tuple(range(2, x.ndim))  # each channel of a clip, or of a frame, by itself
            return zennit.ZBox(x.amin(inside, keepdim=True), x.amax(inside, keepdim=True))
        return zennit.Epsilon() if linear else convolution()

    return rule


def _zennit(method: str) -> Any:
    """zennit's rules, which come as an extra."""
    try:
        from zennit import rules
    except ImportError as error:
        raise UserError(f"{method} takes its rules from zennit: pip install zennit") from error
    return rules


def _probabilities(parts: list[Tensor], batch: int) -> list[Tensor]:
    """What is above 0 of parts, scaled so that those of each clip sum to 1; 0 where none is."""
    found = [part.clamp(min=0) for part in parts]
    total = _total(found, batch)
    total = torch.where(total > 0, total, 1)
    for part in found:
        rows = _of_clips(part, batch)
        rows /= total.view(-1, *[1] * (rows.ndim - 1)).to(part)
    return found


def _total(parts: list[Tensor], batch: int) -> Tensor:
    """The sum of all parts of each clip, `(B,)`."""
    sums = [at_least_float32(_of_clips(part, batch)).flatten(1).sum(1) for part in parts]
    return torch.stack(sums).sum(0)


def _of_clips(part: Tensor, batch: int) -> Tensor:
    """A view whose first axis is the batch's, of `(B, ...)`, `(T, B, D)` or `(B*t, ...)`."""
    if len(part) == batch:
        return part
    if part.ndim == 3 and part.shape[1] == batch:
        return part.transpose(0, 1)
    if len(part) % batch:
        raise UserError(
            f"the last layer sees {tuple(part.shape)}, in which {batch} clips cannot be told "
            "apart; explain them one by one"
        )
    return part.unflatten(0, (batch, -1))


def _summed(
    model: Explainable, forward: Forward, found: list[Tensor], batch: int, layer: str | None
) -> Tensor:
    """The sum over channels, `(B, t, h, w)`."""
    if "clip" in forward.captured:
        return at_least_float32(found[0]).sum(1)
    return on_frames(model, in_time(model, found, batch, layer).sum(1), layer)


def _at_size(model: Explainable, heat: Tensor, clip: Tensor, layer: str | None) -> Tensor:
    return heat if layer is None else model.resized(heat, clip)
