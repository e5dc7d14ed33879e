"""Attention of transformers as maps: rollout, and Chefer's, which weighs it by its gradient.

Both follow how tokens are mixed from block to block. With A_l the attention weights of block l,
softmax(q k^T), of H heads, and I for the residual connection:

    rollout    R <- normalised(mean_h A_l + I) R                 Abnar and Zuidema, ACL 2020
    Chefer     R <- R + mean_h (dy/dA_l * A_l)^+ R               Chefer et al., ICCV 2021

from R = I on, first block first. A row of R tells how much of each token of the clip is in a token
at the end. The map is the mean of the rows that the column reads: those of the last attention whose
weights have a gradient, of a class token its own. **Rollout is the same for every column** that
reads the same tokens: it shows where the network looks, and not for what.

**Joint attention only**: every token attends to every other, in all blocks. In divided, windowed
and pooled attention (TimeSformer, Swin, MViT) tokens are mixed in other places as well, and R says
nothing of these. Values, norms and perceptrons are passed over.

Weights are taken where PyTorch is called (softmax, `scaled_dot_product_attention`,
`nn.MultiheadAttention`): the outputs are those of the network, to the bit.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cam.attribution.cuts import no_checkpoints
from lightning_cam.attribution.explainable import Explainable, Forward
from lightning_cam.attribution.function_mode import FunctionMode
from lightning_cam.attribution.gradient import recorded
from lightning_cam.attribution.method import Cost, LayerAttribution
from lightning_cam.attribution.tensors import NoGradientError
from lightning_cam.attribution.transformer_rules import Swap, of_multihead
from lightning_cam.errors import UserError


@dataclass(frozen=True)
class _AttentionMap(LayerAttribution):
    """What the two have in common; they differ in one block's matrix."""

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(1, 1)

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        with no_checkpoints(self.title, model.module), _Weights() as mode:
            forward = recorded(model, clip)
        return Forward(forward.outputs, {"clip": forward.captured["clip"], "weights": mode.found})

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        outputs, captured = self.first(model, clip)
        weights = captured["weights"]
        _check_joint(self.title, model, weights)
        score = model.score(outputs, target)
        if not score.requires_grad:
            raise NoGradientError
        slopes = torch.autograd.grad(score.sum(), weights, allow_unused=True)
        if slopes[-1] is None:
            raise NoGradientError
        size = weights[0].shape[-1]
        rows = torch.eye(size, device=clip.device).to(weights[0])
        for weight, slope in zip(weights, slopes, strict=True):
            step = self.step(weight.detach(), torch.zeros_like(weight) if slope is None else slope)
            rows = step @ rows
        read = slopes[-1].abs().sum((1, 3)) > 0  # (N, n), the tokens that the column reads
        share = read / read.sum(1, keepdim=True).clamp(min=1)
        tokens = torch.einsum("bi,bij->bj", share.to(rows), self.heat(rows))  # (N, n)
        name, _ = model.layer(self.layer)
        heat = _folded(self.title, model, tokens, clip, self.layer)
        model.notes.update(layer=f"tokens as in {name}", blocks=f"{len(weights)} attentions")
        return model.resized(heat, clip)

    @abstractmethod
    def step(self, weight: Tensor, slope: Tensor) -> Tensor:
        """What one block does `(N, n, n)`, of its weights and their gradient `(N, H, n, n)`."""

    def heat(self, rows: Tensor) -> Tensor:
        return rows


@dataclass(frozen=True)
class AttentionRollout(_AttentionMap):
    """Where the tokens that are read out come from, by attention alone; the same for all columns.

    Args:
        layer: a target layer by whose layout the tokens are laid out; None: the first.

    Raises:
        UserError: the network has no joint attention.

    Example:
        >>> explain(model, AttentionRollout(), clip).heatmap
    """

    title = "Attention rollout"

    def step(self, weight: Tensor, slope: Tensor) -> Tensor:
        mean = weight.mean(1)
        mixed = mean + torch.eye(mean.shape[-1], device=mean.device)
        return mixed / mixed.sum(-1, keepdim=True)


@dataclass(frozen=True)
class AttentionRelevance(_AttentionMap):
    """Where the tokens that are read out come from, by attention that raises the column (Chefer).

    Args:
        layer: a target layer by whose layout the tokens are laid out; None: the first.

    Raises:
        UserError: the network has no joint attention.

    Example:
        >>> explain(model, AttentionRelevance(), clip).heatmap
    """

    title = "Attention relevance"

    def step(self, weight: Tensor, slope: Tensor) -> Tensor:
        raised = (slope * weight).clamp(min=0).mean(1)
        return raised + torch.eye(raised.shape[-1], device=raised.device)

    def heat(self, rows: Tensor) -> Tensor:
        """Without the tokens that were there before any attention."""
        return rows - torch.eye(rows.shape[-1], device=rows.device)


def _check_joint(title: str, model: Explainable, weights: Sequence[Tensor]) -> None:
    network = type(model.module).__name__
    shapes = {tuple(w.shape) for w in weights}
    if not shapes:
        reason = "has no attention that PyTorch's own functions compute"
    elif len(weights[0].shape) != 4:
        reason = "has no heads"
    elif len(shapes) > 1:
        reason = f"attends in more than one way, {' and '.join(map(str, sorted(shapes)))}"
    elif (shape := shapes.pop())[-1] != shape[-2]:
        reason = f"attends from {shape[-2]} tokens to {shape[-1]}"
    else:
        return
    raise UserError(
        f"{title} is for joint attention, from all tokens to all in each block, and {network} "
        f"{reason}; take explain=conservative_propagation"
    )


def _folded(
    title: str, model: Explainable, tokens: Tensor, clip: Tensor, layer: str | None
) -> Tensor:
    """Heat of tokens `(N, n)` as `(B, t, h, w)`, by the layer's layout."""
    try:
        heat = model.folded(tokens[..., None], len(clip), layer)[:, 0]
    except (UserError, ValueError) as error:
        raise UserError(
            f"{title} is for joint attention, and {tuple(tokens.shape)} tokens are not those of "
            f"the target layer ({error}); take explain=conservative_propagation"
        ) from error
    layout = model.laid_out(layer)
    if layout is not None and layout.single and heat.shape[1] == 1 < clip.shape[2]:
        raise UserError(
            f"{title} takes all attentions of a forward for blocks, and "
            f"{type(model.module).__name__} runs them once a frame; take "
            "explain=conservative_propagation"
        )
    return heat


class _Weights(FunctionMode):
    """Keeps attention weights `(N, H, n, m)` on the graph, in the order of the blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def called(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return self._fused(func, *args, **kwargs)
        if func is F.multi_head_attention_forward:
            out, weights = of_multihead(func, args, kwargs)
            self.found.append(weights)
            return out
        out = func(*args, **kwargs)
        if func in _SOFTMAX and isinstance(out, Tensor) and out.ndim == 4 and out.requires_grad:
            self.found.append(out)
        return out

    def _fused(
        self,
        func: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **named: Any,
    ) -> Tensor:
        with torch.no_grad():
            out = func(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **named)
        scores = query @ key.transpose(-2, -1) * (scale or 1 / math.sqrt(query.shape[-1]))
        if is_causal:
            attn_mask = torch.ones_like(scores, dtype=torch.bool).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        weights = scores.softmax(-1)
        self.found.append(weights)
        return Swap.apply(out, weights @ value)


_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)
