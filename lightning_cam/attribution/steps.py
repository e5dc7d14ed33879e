"""Outputs at every step of a clip, as one output: that of a step, or of all together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cam.errors import ArgumentError

Together = Literal["mean", "sum"]
Step = int | Together


def check_step(step: object) -> None:
    """Raises ArgumentError unless it is a `Step`."""
    if step in get_args(Together) or (isinstance(step, int) and not isinstance(step, bool)):
        return
    raise ArgumentError(
        f'a step is a number (-1 is the last that is not padding), "mean" or "sum", got {step!r}'
    )


def step_text(step: Step) -> str:
    """A step in words."""
    together = {"mean": "mean of output steps", "sum": "sum over output steps"}
    return f"output step {step}" if isinstance(step, int) else together[step]


def every_step(calls: Sequence[Tensor]) -> Tensor:
    """Outputs `(B, T', K)`, made at once or, `(B, K)`, by a call for each step."""
    return calls[0] if calls[0].ndim == 3 else torch.stack(list(calls), dim=1)


def of_step(outputs: Tensor, step: Step, valid: Tensor | None) -> Tensor:
    """Outputs `(B, ...)` of a step, or of all that are not padding together.

    Args:
        outputs: `(B, T', ...)`.
        step: negative counts from each clip's last step that is not padding.
        valid: which of T frames are not padding, `(B, T)` bool; None: all.

    Raises:
        ArgumentError: there is no such step.
    """
    there = outputs.new_ones(outputs.shape[:2], dtype=torch.bool)
    if valid is not None:
        there = valid if valid.shape == there.shape else steps_of(valid, there.shape[1])
    length = there.sum(1)
    if not isinstance(step, int):
        total = (outputs * there.view(*there.shape, *[1] * (outputs.ndim - 2))).sum(1)
        if step == "sum":
            return total
        return total / length.clamp(min=1).view(-1, *[1] * (outputs.ndim - 2))
    index = length + step if step < 0 else torch.full_like(length, step)
    if not 0 <= int(index.min()) <= int(index.max()) < outputs.shape[1]:
        steps = int(length.min())
        raise ArgumentError(f"step must lie in -{steps}..{steps - 1}, got {step}")
    return outputs[torch.arange(len(outputs), device=outputs.device), index.to(outputs.device)]


def steps_of(valid: Tensor, steps: int) -> Tensor:
    """Which of a layer's steps hold a valid frame, `(B, t)` bool, of frames `(B, T)`."""
    return F.adaptive_avg_pool1d(valid.float(), steps) > 0
