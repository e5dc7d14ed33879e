"""What target layers a network has to offer."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cam.attribution.checks import ready
from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.gradcam import in_time, last_calls
from lightning_cam.attribution.guard import first_tensor
from lightning_cam.attribution.threads import is_mine


@dataclass(frozen=True)
class LayerInfo:
    """A module whose output is a map.

    Attributes:
        name: dotted module name.
        shape: activation as `(B, D, t, h, w)`, of several calls as `last_calls` has it.
        stride: input frames and pixels per activation step, `(t, h, w)`.
        calls: how often one forward runs it.
    """

    name: str
    shape: tuple[int, ...]
    stride: tuple[float, float, float]
    calls: int


def list_layers(model: Explainable, clip: Tensor) -> list[LayerInfo]:
    """All modules one can choose as target layer, in the order in which they run.

    Args:
        model: what to look into.
        clip: any clip `(B, C, T, H, W)` of the size the model is used with.
    """
    seen: dict[str, list[Tensor]] = {}
    handles = []

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            output = first_tensor(output)
            if is_mine(thread) and output is not None and (output.ndim in (4, 5) or model.layouts):
                # A meta tensor keeps the shape and none of the memory.
                seen.setdefault(name, []).append(torch.empty_like(output, device="meta"))

        return hook

    thread = threading.get_ident()
    with ready(model, clip) as (model, clip), torch.no_grad():
        try:
            for name, module in model.module.named_modules():
                if name:
                    hook = watch(name.replace("_orig_mod.", ""))
                    handles.append(module.register_forward_hook(hook))
            model.forward(clip)
        finally:
            for handle in handles:
                handle.remove()
    found = []
    for name, calls in seen.items():
        try:
            shape = in_time(model, last_calls(model, name, calls, clip), len(clip), name).shape
        except ValueError:  # not a map of this batch (weights, tokens)
            continue
        if shape[3] * shape[4] > 1:
            t, h, w = (round(a / b, 2) for a, b in zip(clip.shape[2:], shape[2:], strict=True))
            found.append(LayerInfo(name, tuple(shape), (t, h, w), len(calls)))
    return found
