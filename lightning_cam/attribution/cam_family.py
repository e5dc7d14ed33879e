"""Grad-CAM's relatives: other ways to make a map of a layer's features A and their gradients g.

Each is a sum over the D channels, of which the positive part is kept; q runs over the positions
that are pooled (t, h, w, or h, w of each step):

    HiResCAM    sum_k g^k A^k                 every position by its own gradient
    Layer-CAM   sum_k relu(g^k) A^k           only what raises the column
    XGrad-CAM   sum_k alpha_k A^k,            alpha_k = sum_q g_q A_q / sum_q A_q
    Grad-CAM++  sum_k w_k A^k,                w_k = sum_q a_q relu(g_q),
                                              a_q = g_q^2 / (2 g_q^2 + S_k g_q^3), S_k = sum_q A_q

HiResCAM: Draelos and Carin, arXiv:2011.08891 (2020). Layer-CAM: Jiang et al., IEEE TIP 2021.
XGrad-CAM: Fu et al., BMVC 2020. Grad-CAM++: Chattopadhay et al., WACV 2018; its factor exp(y), the
same for all channels of a clip, is left out.

**Where they differ.** Behind global average pooling and one linear layer with weights W the
gradient is W / Z everywhere, Z positions: then HiResCAM, XGrad-CAM and Grad-CAM are the same map,
Layer-CAM has relu(W_k) / Z, and Grad-CAM++ relu(W_k) / (2 + W_k mean A^k). At earlier layers, with
flattened or recurrent heads, and for losses over pixels they differ.

**Signs.** Layer-CAM and Grad-CAM++ keep positive gradients alone, so that y and -y have different
maps. Of a column that is not a class ask for both: `model` and `model.counterfactual()`. Nor do
they tell classes apart as the others do: features that speak for one class a little, and for
another a lot, are shown for both.

The cost is that of Grad-CAM: one forward and the tail's backward.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.gradcam import (
    GradientCAM,
    LayerMap,
    Pool,
    pool_of,
    pooled,
    positions,
    signed_map,
    weighted_sum,
)


@dataclass(frozen=True)
class HiResCAM(GradientCAM):
    """Features times their own gradient, not pooled: sum_k g^k A^k.

    Of a network whose layer is followed by linear layers alone (average pooling or a flatten, and a
    head) the signed map at the layer sums to the column less its bias: each position gets what it
    adds to the column. Through other tails it is that to first order.

    Args:
        layer: target layer, or several, see `GradCAM`; None: the first.
        relu: keep the positive part; False returns the signed map.
    """

    title = "HiResCAM"
    grainy = True

    relu: bool = True

    def signed(self, model: Explainable, found: LayerMap) -> Tensor:
        return signed_map(model, found, "none")


@dataclass(frozen=True)
class LayerCAM(GradientCAM):
    """Features times the positive part of their own gradient: sum_k relu(g^k) A^k.

    Made for early layers, whose gradients change from place to place: pooled, they say little.

    Args:
        layer: target layer, or several, see `GradCAM`; None: the first.
        relu: keep the positive part; differs only where features are negative.
    """

    title = "Layer-CAM"
    grainy = True

    relu: bool = True

    def signed(self, model: Explainable, found: LayerMap) -> Tensor:
        model.notes.update(pool="positive gradients, not pooled")
        return (found.gradient.relu() * found.activation).sum(1)


@dataclass(frozen=True)
class XGradCAM(GradientCAM):
    """Channel weights that are the mean gradient where the channel is active.

    alpha_k = sum_q g_q A_q / sum_q A_q: a channel's part in the map sums to its part in sum g A, as
    it does in HiResCAM. A channel that is 0, or whose values cancel out, gets 0.

    Args:
        layer: target layer, or several, see `GradCAM`; None: the first.
        pool: what q runs over, see `GradCAM`.
        relu: keep the positive part; False returns the signed map.
    """

    title = "XGrad-CAM"

    pool: Pool | None = None
    relu: bool = True

    def signed(self, model: Explainable, found: LayerMap) -> Tensor:
        pool, features = pool_of(model, found, self.pool), found.activation
        total, size, spoken = (
            pooled(x, pool, found.valid)
            for x in (features, features.abs(), found.gradient * features)
        )
        some = total.abs() > torch.finfo(total.dtype).eps * size  # else rounding is all there is
        weights = torch.where(some, spoken / torch.where(some, total, 1), 0)
        return weighted_sum(features, weights)


@dataclass(frozen=True)
class GradCAMPlusPlus(GradientCAM):
    """Channel weights that sum positive gradients, each by a weight of its own.

    a_q = 1 / (2 + S_k g_q): where a channel already says much, S_k large, its gradient counts less,
    so that several small things show beside a large one. Features below 0 can bring 2 + S_k g_q to
    0 or below, where the formula means nothing: such positions get 0.

    Args:
        layer: target layer, or several, see `GradCAM`; None: the first.
        pool: what q runs over, see `GradCAM`.
        relu: keep the positive part; False returns the signed map.
    """

    title = "Grad-CAM++"

    pool: Pool | None = None
    relu: bool = True

    def signed(self, model: Explainable, found: LayerMap) -> Tensor:
        pool, gradient = pool_of(model, found, self.pool), found.gradient
        count = positions(found, pool)  # (B, 1, 1)
        sums = count * pooled(found.activation, pool, found.valid)  # S, (B, D, t)
        below = 2 + sums[..., None, None] * gradient
        some = below > 1e-6
        weighed = torch.where(some, gradient.relu() / torch.where(some, below, 1), 0)
        return weighted_sum(found.activation, count * pooled(weighed, pool, found.valid))
