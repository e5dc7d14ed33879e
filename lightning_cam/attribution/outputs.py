"""One run of a network: what it is given beside the clips, and columns of what it returns."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from lightning_cam.attribution.columns import Head
from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.function_mode import FunctionMode
from lightning_cam.attribution.guard import capture
from lightning_cam.attribution.inputs import repeated
from lightning_cam.attribution.steps import every_step, of_step
from lightning_cam.errors import ArgumentError

_SIGMOIDS = (
    torch.sigmoid,
    torch.sigmoid_,
    torch.special.expit,
    Tensor.sigmoid,
    Tensor.sigmoid_,
)


def outputs_of(model: Explainable, rows: Tensor, batch: int | None = None) -> Tensor:
    """Outputs `(n*B, K)` of clips; a number a clip is one column.

    Where the network has taken the softmax or the sigmoid already, it is undone by the logarithm or
    the logit, so that the probability is the network's, and its map as well. `model.notes` says so.

    Args:
        model: what to run.
        rows: n copies of the batch one after another, `(n*B, C, T, H, W)`.
        batch: B; None: all rows.

    Raises:
        ArgumentError: `model.inputs` are not of this batch, or the network returns other things.
    """
    batch = len(rows) if batch is None else batch
    with _Sigmoids() if _any_sigmoid(model) else nullcontext(_Sigmoids()) as mode:
        parts = _run(model, rows, repeated(model.inputs, len(rows), batch))
    taken = [isinstance(part, Tensor) and mode.made(part) for part in parts]
    outputs = torch.cat(parts, -1) if len(parts) > 1 else parts[0]
    if model.step is not None:
        _check_steps(model, outputs, rows)
        outputs = of_step(outputs, model.step, model.valid_for(rows))
    if isinstance(outputs, Tensor) and tuple(outputs.shape) == (len(rows),):
        outputs = outputs[:, None]  # a number a clip
    check_outputs(model, outputs, len(rows))
    heads = model.heads_of(outputs)
    columns = outputs.split([head.size for head in heads], 1)
    taken = taken if len(taken) == len(heads) else taken * len(heads)
    found = [
        _undone(model, part, head, done)
        for part, head, done in zip(columns, heads, taken, strict=True)
    ]
    changed = any(a is not b for a, b in zip(found, columns, strict=True))
    return torch.cat(found, 1) if changed else outputs


def _undone(model: Explainable, outputs: Tensor, head: Head, sigmoid: bool) -> Tensor:
    """The logarithm or the logit of a head's outputs that are probabilities; else as they are."""
    info = torch.finfo(outputs.dtype)
    if head.probability == "softmax" and _are_shares(outputs):
        model.notes.update(outputs="logarithm of probabilities")
        return outputs.clamp(min=info.tiny).log()
    if head.probability == "sigmoid" and sigmoid:
        model.notes.update(outputs="logit of probabilities")
        return outputs.clamp(info.tiny, 1 - info.eps).logit()
    return outputs


def _any_sigmoid(model: Explainable) -> bool:
    heads = [head.probability for head in model.heads.values()] or [model.probability]
    return "sigmoid" in heads


class _Sigmoids(FunctionMode):
    """Knows what a sigmoid returned; numbers between 0 and 1 may be logits by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.returned: list[weakref.ref[Tensor]] = []

    def called(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        found = func(*args, **kwargs)
        if func in _SIGMOIDS:
            self.returned.append(weakref.ref(found))
        return found

    def made(self, outputs: Tensor) -> bool:
        """Whether these are what a sigmoid returned, or a view of it."""
        there = [ref() for ref in self.returned]
        return any(x is outputs or (x is not None and x is outputs._base) for x in there)


def _check_steps(model: Explainable, outputs: object, rows: Tensor) -> None:
    """Raises ArgumentError unless these are outputs `(B, T, K)` of a network of several steps."""
    name, frames = type(model.module).__name__, rows.shape[2]
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else ()
    if len(shape) == 2 and shape[0] == len(rows) * frames and frames > 1:
        remedy = "network(clip).unflatten(0, (len(clip), -1))"
    elif len(shape) == 3 and shape[0] != len(rows) == shape[1]:
        remedy = "network(clip).transpose(0, 1)"
    elif len(shape) == 3 and shape[1] != frames == shape[2] and not model.outputs:
        remedy = "network(clip).transpose(1, 2)"
    elif len(shape) == 3:
        return
    else:
        raise ArgumentError(
            f"at({model.step!r}) needs outputs at every step, (B, T, K), which {name} does not "
            "return; name the module that makes them: Explainable.of(network, layers, steps=NAME)"
        )
    raise ArgumentError(
        f"at({model.step!r}) needs outputs at every step, (B, T, K), and {name} returns {shape} of "
        f"B={len(rows)} clips of T={frames} frames; put its axes in order: Explainable.of(network, "
        f"layers, forward=lambda clip: {remedy}), or name its columns, if these are right: "
        "Explainable.of(network, layers, outputs=[NAME, ...])"
    )


def _are_shares(outputs: Tensor) -> bool:
    """Whether rows are probabilities that sum to 1, of several classes."""
    if outputs.shape[1] < 2:
        return False
    apart = (outputs.detach().double().sum(1) - 1).abs()
    rounding = max(1e-4, 4 * torch.finfo(outputs.dtype).eps)
    return bool((outputs >= 0).all() & (apart < rounding).all())


def _run(model: Explainable, rows: Tensor, inputs: Mapping[str, Any]) -> list[Any]:
    """What the network returns by head, or its steps where one of them is asked for."""
    if model.step is None or model.steps is None:
        outputs = model.forward(rows, **inputs)
        if model.heads:
            return _of_heads(model.heads, outputs, type(model.module).__name__)
        return [unwrapped(outputs)]
    with capture(model.steps) as calls:
        model.forward(rows, **inputs)
    if not calls:
        raise ArgumentError(
            f"{type(model.steps).__name__}, whose outputs are the steps, is not run by the model's "
            "forward; name another: Explainable.of(network, layers, steps=NAME)"
        )
    return [every_step(calls)]


def joined(heads: Mapping[str, Head], outputs: Any, network: str) -> Tensor:
    """The columns of all heads side by side, as they are named and ordered.

    Args:
        heads: by name.
        outputs: what the network returned.
        network: its name, for the error.

    Raises:
        ArgumentError: the network returns other heads.
    """
    parts = _of_heads(heads, outputs, network)
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _of_heads(named: Mapping[str, Head], outputs: Any, network: str) -> list[Tensor]:
    """The tensors of all heads, as they are named and ordered; one that holds all.

    Raises:
        ArgumentError: the network returns other heads.
    """
    if isinstance(outputs, Tensor):
        return [outputs]
    heads = list(named)
    if isinstance(outputs, Mapping):
        for head in heads:
            if not isinstance(outputs.get(head), Tensor):
                raise ArgumentError(
                    f"{network} returns no tensor under {head!r}, but {_keys(outputs)}; name its "
                    "heads as it does: Explainable.of(network, layers, outputs={HEAD: [NAME, ...]})"
                )
        parts = [outputs[head] for head in heads]
    else:
        some = outputs if isinstance(outputs, tuple | list) else ()
        parts = [part for part in some if isinstance(part, Tensor)]
        if len(parts) != len(heads):
            raise ArgumentError(
                f"{network} returns {kind_of(outputs)} of {len(parts)} tensors, and {len(heads)} "
                f"heads are named ({', '.join(heads)}); name each, in this order"
            )
    for head, part in zip(heads, parts, strict=True):
        if part.ndim < 2 or part.shape[-1] != named[head].size:
            raise ArgumentError(
                f"the head {head!r} has outputs {tuple(part.shape)}, and {named[head].size} "
                "columns are named; name each"
            )
    return parts


def inside(outputs: object) -> str:
    """What is in a dict, tuple or list, for a message."""
    if isinstance(outputs, Mapping):
        sizes = [f" {tuple(v.shape)}" if isinstance(v, Tensor) else "" for v in outputs.values()]
        return " with " + ", ".join(f"{k!r}{size}" for k, size in zip(outputs, sizes, strict=True))
    if not isinstance(outputs, tuple | list):
        return ""
    sizes = [str(tuple(part.shape)) for part in outputs if isinstance(part, Tensor)]
    return f" of tensors {', '.join(sizes)}" if sizes else ""


def _columns_of(outputs: object) -> Any:
    """The key of what may be columns, for an example: logits by name, or the last of two axes."""
    parts = dict(enumerate(outputs)) if isinstance(outputs, tuple | list) else outputs
    if not isinstance(parts, Mapping):
        return 0
    named = [k for k, part in parts.items() if isinstance(part, Tensor) and "logit" in str(k)]
    fitting = [k for k, part in parts.items() if isinstance(part, Tensor) and part.ndim == 2]
    fitting = named or fitting
    return (fitting or list(parts) or ["logits"])[-1 if isinstance(outputs, Mapping) else 0]


def _keys(outputs: Mapping[Any, Any]) -> str:
    return ", ".join(map(repr, outputs))


def unwrapped(outputs: Any) -> Any:
    """`.logits` of an output with names, or the one tensor of a dict, tuple or list; else itself.

    Of several tensors none is chosen: which one is meant is for the user to say.
    """
    if isinstance(outputs, Mapping):
        if isinstance(outputs.get("logits"), Tensor):
            return outputs["logits"]
        parts = list(outputs.values())
    elif isinstance(outputs, tuple | list):
        parts = list(outputs)
    else:
        return outputs
    tensors = [part for part in parts if isinstance(part, Tensor)]
    return tensors[0] if len(tensors) == 1 else outputs


def check_outputs(model: Explainable, outputs: object, rows: int) -> None:
    """Raises ArgumentError unless a network returned columns `(B, K)`, named or not."""
    expected = f"expected outputs (B, K) with B={rows}"
    if not isinstance(outputs, Tensor):
        pick = f"[{_columns_of(outputs)!r}]"
        raise ArgumentError(
            f"{expected}, got {kind_of(outputs)}{inside(outputs)} from "
            f"{type(model.module).__name__}; unpack it: Explainable.of(network, layers, "
            f"forward=lambda clip: network(clip){pick}), or name the columns of each head: "
            "Explainable.of(network, layers, outputs={HEAD: [NAME, ...]})"
        )
    if outputs.ndim == 3 and len(outputs) == rows:
        raise ArgumentError(
            f"{expected}, got {tuple(outputs.shape)}; of outputs at every step, (B, T, K), explain "
            "one: model.at(3), model.at(-1) for each clip's last, or model.at('mean'); of others, "
            "such as the queries of a detector, the highest: Explainable.of(network, layers, "
            "forward=lambda clip: network(clip).amax(1))"
        )
    if outputs.ndim != 2 or len(outputs) != rows:
        raise ArgumentError(
            f"{expected}, got {tuple(outputs.shape)}; unpack what the module returns with "
            "Explainable.of(network, layers, forward=...)"
        )
    if not outputs.is_floating_point():
        raise ArgumentError(
            f"{expected} of floating-point numbers, got {outputs.dtype}; explain logits or losses "
            "rather than decisions"
        )
    if model.outputs and len(model.outputs) != outputs.shape[1]:
        raise ArgumentError(
            f"the model names {len(model.outputs)} outputs, the network has {outputs.shape[1]}; "
            "name each or none"
        )


def kind_of(given: object) -> str:
    """What something is, for a message."""
    if isinstance(given, type):
        return f"the class {given.__name__}"
    return f"the text {given!r}" if isinstance(given, str) else type(given).__name__
