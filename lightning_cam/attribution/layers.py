"""What target layers a network has to offer."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cam.attribution.calls import joined_by, runs_of, shape_of, told_apart
from lightning_cam.attribution.checks import ready
from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.guard import first_tensor
from lightning_cam.attribution.threads import is_mine


@dataclass(frozen=True)
class LayerInfo:
    """A module whose output is a map.

    Attributes:
        name: dotted module name.
        shape: activation as `(B, D, t, h, w)`, of several calls as `runs` has it.
        stride: input frames and pixels per activation step, `(t, h, w)`.
        calls: how often one forward runs it.
        runs: which of several calls are explained, in words; "" where there is one.
    """

    name: str
    shape: tuple[int, ...]
    stride: tuple[float, float, float]
    calls: int
    runs: str


def list_layers(model: Explainable, clip: Tensor) -> list[LayerInfo]:
    """All modules one can choose as target layer, in the order in which they run.

    Args:
        model: what to look into.
        clip: any clip `(B, C, T, H, W)` of the size the model is used with.

    The cost is one forward; once for a network that runs layers several times, 3 to T + 1 more.
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
        model = replace(model, runs={})
        maps = {name: calls for name, calls in seen.items() if _is_map(model, name, calls, clip)}
        several = {name: len(calls) for name, calls in maps.items() if len(calls) > 1}
        runs = runs_of(model, clip, several)
    found = []
    for name, calls in maps.items():
        try:
            kept = told_apart(model, name, calls, clip, runs.get(name))
        except ValueError:  # maps that do not fit together
            continue
        shape, by = shape_of(model, name, kept, clip), joined_by(model, name)
        if shape[3] * shape[4] > 1:
            t, h, w = (round(a / b, 2) for a, b in zip(clip.shape[2:], shape[2:], strict=True))
            said = "" if by is None else by.text
            found.append(LayerInfo(name, shape, (t, h, w), len(calls), said))
    return found


def _is_map(model: Explainable, name: str, calls: list[Tensor], clip: Tensor) -> bool:
    """Whether a layer returns maps of this batch, rather than weights or tokens."""
    try:
        model.folded(calls[-1], len(clip), name)
    except ValueError:
        return False
    return True
