"""What is given to `explain` and its kin, checked: one sentence says what is wrong and what to do.

Costs one reduction over the clip (and on a GPU one wait for it): whether its numbers are finite.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.guard import explaining, model_input
from lightning_cam.attribution.identity import identity
from lightning_cam.attribution.outputs import kind_of, outputs_of
from lightning_cam.attribution.tensors import all_finite
from lightning_cam.errors import ArgumentError, NetworkError, UserError, why

# What networks raise of clips that they were not made for.
OF_NETWORKS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@contextmanager
def ready(model: Explainable, clip: Tensor) -> Iterator[tuple[Explainable, Tensor]]:
    """The guard around a model and clips that were checked.

    Yields:
        The model, whose forward works on a copy of what it is given and gives `(B, K)`, and into
        which nothing is written down yet; a copy of the clips as the network can take them.

    Raises:
        ArgumentError: the model, the clips or what the network returns is of a wrong kind.
    """
    check_model(model)
    check_clip(model, clip)
    way = identity((model.forward, model.inputs))
    model = replace(model, notes={}, numbers={}, native=[], runs={}, first_run=None, way=way)

    def checked(rows: Tensor) -> Tensor:
        try:
            return outputs_of(model, rows.clone(), len(clip))  # it may work in place on them
        except (UserError, MemoryError, torch.OutOfMemoryError):
            raise
        except OF_NETWORKS as error:
            raise _failed(model, rows, error) from error

    with explaining(model.module):
        steps = model.steps if model.step is None else None  # one is chosen already
        bare = replace(model, forward=checked, inputs={}, step=None, steps=steps)
        yield bare, model_input(model.module, clip)


def _failed(model: Explainable, rows: Tensor, error: Exception) -> NetworkError:
    """What the network said of clips, and how it may want to be called."""
    takes = list(inspect.signature(model.module.forward).parameters.values())
    needed = [p.name for p in takes[1:] if p.default is p.empty and p.kind not in _ANY]
    call = "clip.transpose(1, 2)"  # frames before channels, as Hugging Face has them
    if takes and takes[0].kind is takes[0].KEYWORD_ONLY:
        call = f"{takes[0].name}=clip"
    how = f"Explainable.of(network, layers, forward=lambda clip: network({call}))"
    if isinstance(error, TypeError) and (absent := sorted(set(needed) - set(model.inputs))):
        rest = "{" + ", ".join(f"{name!r}: {name}" for name in absent) + "}"
        how = f"Explainable.of(network, layers, inputs={rest})"
    return NetworkError(
        f"{type(model.module).__name__} fails on clips {tuple(rows.shape)}: {why(error)}; if it is "
        f"to be called in another way, say so: {how}"
    )


def check_model(model: object) -> None:
    """Raises ArgumentError unless it is an `Explainable`."""
    if isinstance(model, Explainable):
        return
    if isinstance(model, nn.Module):
        raise ArgumentError(
            f"{type(model).__name__} is a network; say how to look into it: "
            "Explainable.of(network, layers=[NAME]), of a task here task.explainable(batch)"
        )
    raise ArgumentError(
        f"expected an Explainable first, got {kind_of(model)}; the order is explain(model, method, "
        "clip, target) with a model such as Explainable.of(network, layers=[NAME])"
    )


def check_clip(model: Explainable, clip: object) -> None:
    """Whether a network can be shown these clips.

    Raises:
        ArgumentError: they are not a tensor `(B, C, T, H, W)` of finite floating-point numbers on
            the network's device; where the first number is that is not finite.
    """
    if not isinstance(clip, Tensor):
        raise ArgumentError(
            f"expected a clip as a tensor (B, C, T, H, W), got {kind_of(clip)}; torch.from_numpy "
            "makes one of an array"
        )
    if clip.is_nested:
        raise ArgumentError(
            "the clip is a nested tensor; pad its clips to one length, see Explainable.valid"
        )
    shape = tuple(clip.shape)
    if clip.ndim != 5:
        hint = "; one clip is clip[None], a batch of one" if clip.ndim == 4 else ""
        raise ArgumentError(f"expected a clip (B, C, T, H, W), got shape {shape}{hint}")
    if not clip.numel():
        axes = [name for name, n in zip("BCTHW", shape, strict=True) if not n]
        raise ArgumentError(f"the clip {shape} is empty: {', '.join(axes)} = 0")
    if not clip.is_floating_point():
        raise ArgumentError(
            f"the clip is of {clip.dtype}; a network sees floating-point numbers, normalised as in "
            "training: (clip.float() / 255 - mean) / std with a mean and std per channel"
        )
    if clip.layout != torch.strided:
        raise ArgumentError(f"the clip is of {clip.layout}; pass clip.to_dense()")
    _check_network(model.module, clip)
    if not all_finite(clip):
        raise ArgumentError(_where_not_finite(clip))


def _check_network(module: nn.Module, clip: Tensor) -> None:
    if isinstance(module, torch.jit.RecursiveScriptModule):  # which takes no hooks
        raise ArgumentError(
            "the network was made by torch.jit.script or torch.jit.load, into which nothing can "
            "see; explain the network as it was before"
        )
    devices = {p.device for p in module.parameters()}
    if torch.device("meta") in devices:
        raise ArgumentError(
            f"{type(module).__name__} has weights on the meta device, which hold no numbers; load "
            "them first"
        )
    if devices and clip.device not in devices:
        device = next(module.parameters()).device
        raise ArgumentError(
            f"the clip is on {clip.device}, {type(module).__name__} on {device}; pass "
            f"clip.to({str(device)!r})"
        )


def _where_not_finite(clip: Tensor) -> str:
    bad = (~clip.isfinite()).nonzero()
    b, c, t, y, x = bad[0].tolist()
    value = float(clip[b, c, t, y, x])
    some = f"{value:g}" if value == value else "NaN"
    return (
        f"clip {b} of the batch has {some} at frame {t}, y {y}, x {x}, channel {c} ({len(bad)} of "
        f"{clip.numel()} numbers are not finite), which the network would spread over the map; "
        "mend the clip, or its reader's normalisation (a std of 0?)"
    )
