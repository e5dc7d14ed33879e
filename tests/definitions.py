"""What maps are by definition, computed from a network alone, and how far off those of methods are.

Grad-CAM comes of a hook, autograd and a fold written by hand, the others of the sums of their
definitions, clip by clip and window by window. The masks of RISE are read off what the network was
given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from networks_of_users import Case
from torch import Tensor, nn

import lightning_cam as lc

MOST = 1e-5
NODES, MASKS = 8, 24


@dataclass(frozen=True)
class Told:
    """What is known of a network without this package.

    Attributes:
        case: the network's case.
        net: the network.
        clip: (B, 3, T, H, W).
        target: (B,), the columns.
    """

    case: Case
    net: nn.Module
    clip: Tensor
    target: Tensor

    def columns(self, clip: Tensor) -> Tensor:
        return self.case.call(self.net, clip).gather(1, self.target[:, None])[:, 0]

    def scores(self, clip: Tensor) -> Tensor:
        with torch.no_grad():
            outputs = self.case.call(self.net, clip)
        if self.case.probability is not None:
            outputs = (
                outputs.softmax(1) if self.case.probability == "softmax" else outputs.sigmoid()
            )
        return outputs.gather(1, self.target[:, None])[:, 0]


def gradcam(told: Told, pool: str) -> Tensor:
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        kept.append(output if isinstance(output, Tensor) else output[0])
        return output.clone() if isinstance(output, Tensor) else output  # a ReLU may overwrite it

    handle = told.net.get_submodule(told.case.layer).register_forward_hook(keep)
    score = told.columns(told.clip.clone()).sum()
    handle.remove()
    joined = told.case.join(kept)
    grads = told.case.join(list(torch.autograd.grad(score, kept)))
    axes = (3, 4) if pool == "space" else (2, 3, 4)
    small = (grads.mean(axes, keepdim=True) * joined).sum(1, keepdim=True).detach()
    return nn.functional.interpolate(small, size=told.clip.shape[2:], mode="trilinear")[:, 0]


def gradient(told: Told) -> Tensor:
    leaf = told.clip.clone().requires_grad_()
    [found] = torch.autograd.grad(told.columns(leaf).sum(), leaf)
    return found.abs().amax(1)


def integrated(told: Told) -> Tensor:
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    total = torch.zeros_like(told.clip)
    for node, weight in zip(nodes, weights, strict=True):
        leaf = torch.lerp(
            torch.zeros_like(told.clip), told.clip, float(node + 1) / 2
        )  # rounded alike
        leaf.requires_grad_()
        [found] = torch.autograd.grad(told.columns(leaf).sum(), leaf)
        total += found * float(weight) / 2
    return (total * told.clip).sum(1)


def windows(told: Told) -> tuple[int, int, int]:
    t, h, w = told.clip.shape[2:]
    return max(1, t // 2), h // 2, w // 2


def occlusion(told: Told) -> Tensor:
    """Halves of each axis, one after the other; each voxel lies in one window."""
    before, heat = told.scores(told.clip), torch.zeros_like(told.clip[:, 0])
    sizes = windows(told)
    corners = [range(0, n, size) for n, size in zip(told.clip.shape[2:], sizes, strict=True)]
    for t in corners[0]:
        for h in corners[1]:
            for w in corners[2]:
                at = tuple(slice(a, a + n) for a, n in zip((t, h, w), sizes, strict=True))
                hidden = told.clip.clone()
                hidden[(..., *at)] = 0
                heat[(..., *at)] = (before - told.scores(hidden))[:, None, None, None]
    return heat


def rise(told: Told, seen: list[Tensor]) -> Tensor:
    """By the masks M that the network was given: sum_i f(x M_i) M_i / sum_i M_i or a covariance."""
    rows = torch.cat(seen)[len(told.clip) :]  # behind the clip itself
    total = torch.zeros_like(told.clip[:, 0])
    weight, found = torch.zeros_like(total), []
    for row in rows.split(len(told.clip)):
        mask = (row / told.clip).mean(1)
        found.append((told.scores(row), mask))
        weight += mask
    mean = (
        torch.stack([score for score, _ in found]).mean(0) if told.case.probability is None else 0
    )
    for score, mask in found:
        total += (score - mean)[:, None, None, None] * mask
    return total / (len(found) * 0.25) if told.case.probability is None else total / weight


METHODS: Mapping[str, tuple[Callable[[Told], lc.Attribution], Callable[..., Tensor]]] = {
    "gradcam_space": (
        lambda told: lc.GradCAM(pool="space", relu=False), lambda told, _: gradcam(told, "space")),
    "gradcam_spacetime": (
        lambda told: lc.GradCAM(pool="spacetime", relu=False),
        lambda told, _: gradcam(told, "spacetime")),
    "occlusion": (
        lambda told: lc.Occlusion(windows(told), windows(told)), lambda told, _: occlusion(told)),
    "gradient": (lambda told: lc.Gradient(), lambda told, _: gradient(told)),
    "integrated_gradients": (
        lambda told: lc.IntegratedGradients(NODES), lambda told, _: integrated(told)),
    "rise": (lambda told: lc.RISE(MASKS, (2, 2, 2), batch=2, relu=False), rise),
}  # fmt: skip


def cell(case: Case, name: str, dtype: torch.dtype) -> float:
    """The error of a method on a network.

    Raises:
        UserError: it was refused.
    """
    torch.manual_seed(0)
    net = case.net().eval()
    noise = torch.randn(2, 3, *case.clip)
    clip = noise + noise.sign() / 2  # away from 0, so that masks can be read off
    told = Told(case, net.to(dtype), clip.to(dtype), torch.tensor([1, 2]) % case.outputs)
    seen: list[Tensor] = []

    def watch(_module: nn.Module, args: Any, kwargs: Any) -> None:
        seen.append(case.seen(args, kwargs).detach().clone())

    handle = net.register_forward_pre_hook(watch, with_kwargs=True)
    method, oracle = METHODS[name]
    try:
        found = lc.explain(case.model(net), method(told), told.clip, told.target).heatmap
    finally:
        handle.remove()
    wanted = oracle(told, seen)
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-30))
