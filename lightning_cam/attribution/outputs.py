"""One run of a network: what it is given beside the clips, and columns of what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.guard import capture
from lightning_cam.attribution.steps import every_step, of_step
from lightning_cam.errors import ArgumentError


def outputs_of(model: Explainable, rows: Tensor, batch: int | None = None) -> Tensor:
    """Outputs `(n*B, K)` of clips; a number a clip is one column.

    Args:
        model: what to run.
        rows: n copies of the batch one after another, `(n*B, C, T, H, W)`.
        batch: B; None: all rows.

    Raises:
        ArgumentError: `model.inputs` are not of this batch, or the network returns other things.
    """
    batch = len(rows) if batch is None else batch
    outputs = _run(model, rows, _repeated(model.inputs, len(rows), batch))
    if model.step is not None:
        if not isinstance(outputs, Tensor) or outputs.ndim != 3:
            raise ArgumentError(
                f"at({model.step!r}) needs outputs at every step, (B, T, K), which "
                f"{type(model.module).__name__} does not return; name the module that makes them: "
                "Explainable.of(network, layers, steps=NAME)"
            )
        outputs = of_step(outputs, model.step, model.valid_for(rows))
    if isinstance(outputs, Tensor) and tuple(outputs.shape) == (len(rows),):
        outputs = outputs[:, None]  # a number a clip
    check_outputs(model, outputs, len(rows))
    return outputs


def _run(model: Explainable, rows: Tensor, inputs: Mapping[str, Any]) -> Any:
    """What the network returns, or its steps where one of them is asked for."""
    if model.step is None or model.steps is None:
        outputs = model.forward(rows, **inputs)
        return _joined(model, outputs) if model.heads else unwrapped(outputs)
    with capture(model.steps) as calls:
        model.forward(rows, **inputs)
    if not calls:
        raise ArgumentError(
            f"{type(model.steps).__name__}, whose outputs are the steps, is not run by the model's "
            "forward; name another: Explainable.of(network, layers, steps=NAME)"
        )
    return every_step(calls)


def _repeated(inputs: Mapping[str, Any], rows: int, batch: int) -> dict[str, Any]:
    """Further inputs for n*B rows; what the network changes in place are copies."""
    found = dict(inputs)
    for name, given in inputs.items():
        if not isinstance(given, Tensor) or not given.ndim:
            continue
        if len(given) != batch:
            raise ArgumentError(
                f"input {name!r} is of {len(given)} clips {tuple(given.shape)}, the batch of "
                f"{batch}; give a row for each clip, and what is the same for all of them within "
                "Explainable.of(network, layers, forward=...)"
            )
        found[name] = given.detach().repeat(rows // batch, *[1] * (given.ndim - 1))
    return found


def _joined(model: Explainable, outputs: Any) -> Any:
    """The columns of all heads side by side, as `model.heads` names and orders them.

    Raises:
        ArgumentError: the network returns other heads.
    """
    if isinstance(outputs, Tensor):
        return outputs
    heads, network = list(model.heads), type(model.module).__name__
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
        if part.ndim < 2 or part.shape[-1] != model.heads[head]:
            raise ArgumentError(
                f"the head {head!r} has outputs {tuple(part.shape)}, and {model.heads[head]} "
                "columns are named; name each"
            )
    return torch.cat(parts, -1)


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
        keys = f" with {_keys(outputs)}" if isinstance(outputs, Mapping) else ""
        pick = f"[{next(iter(outputs), 'logits')!r}]" if isinstance(outputs, Mapping) else "[0]"
        raise ArgumentError(
            f"{expected}, got {kind_of(outputs)}{keys} from {type(model.module).__name__}; unpack "
            f"it: Explainable.of(network, layers, forward=lambda clip: network(clip){pick})"
        )
    if outputs.ndim == 3 and len(outputs) == rows:
        raise ArgumentError(
            f"{expected}, got {tuple(outputs.shape)}; of outputs at every step, (B, T, K), explain "
            "one: model.at(3), model.at(-1) for each clip's last, or model.at('mean')"
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
