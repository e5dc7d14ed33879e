"""Whether a training is still one: losses, outputs and weights that are numbers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lightning_cam.training.skipped_clips import gather

_OUTPUTS = "val/loss"  # what tasks log of the outputs of all validation clips


class Lost(NamedTuple):
    """The steps whose loss was not finite.

    Attributes:
        step: the first, in optimiser steps from 1.
        epoch: its epoch, from 1.
        batches: how many there were.
    """

    step: int
    epoch: int
    batches: int


class FiniteLoss(Callback):
    """Says once, at its step, that the training loss is not finite any more, and what to try.

    It stops nothing: with `trainer.precision=16-mixed` such steps are left out, and the training
    recovers. `Trainer(detect_anomaly=True)` stops at the operation.

    Args:
        to_try: the remedy, to follow "try".
    """

    def __init__(self, to_try: str = "a smaller learning rate") -> None:
        self.to_try = to_try
        self.lost: Lost | None = None  # after the training of all ranks

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor) or bool(loss.isfinite().all()):
            return
        if self.lost is None:
            self.lost = Lost(trainer.global_step, trainer.current_epoch + 1, 0)
            warnings.warn(
                f"the training loss is {float(loss.mean())} at step {self.lost.step} (epoch "
                f"{self.lost.epoch}); try {self.to_try}",
                stacklevel=2,
            )
        self.lost = self.lost._replace(batches=self.lost.batches + 1)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        own = [] if self.lost is None else [self.lost._asdict()]
        found = [Lost(**of_rank) for of_rank in gather(trainer, own)]
        if found:
            self.lost = min(found)._replace(batches=sum(of_rank.batches for of_rank in found))


def weights_not_finite(trainer: Trainer) -> str:
    """The first weight of the network that is not finite on any rank, in words; "" if all are.

    Parameters have to be finite; buffers may be infinite (a mask), but not NaN.
    """
    said = _name_of_lost(trainer.lightning_module)
    sound = trainer.strategy.reduce_boolean_decision(not said)
    return "" if sound else said or "its weights are not finite on another rank"


def _name_of_lost(module: nn.Module) -> str:
    for name, weight in module.named_parameters():
        if not bool(weight.detach().isfinite().all()):
            return f"its weights are not finite ({name})"
    return lost_weight(dict(module.named_buffers()))


def lost_weight(state: Mapping[str, Any]) -> str:
    """Which tensor of a state holds NaN, in words; "" if none does."""
    for name, value in state.items():
        if isinstance(value, Tensor) and bool(torch.isnan(value).any()):
            return f"its weights are not finite ({name})"
    return ""


def outputs_not_finite(trainer: Trainer) -> str:
    """What the last validation says of the outputs, in words; "" if they are finite."""
    value = trainer.callback_metrics.get(_OUTPUTS)
    sound = value is None or bool(torch.as_tensor(value).isfinite().all())
    sound = trainer.strategy.reduce_boolean_decision(sound)
    return "" if sound else f"its outputs are not finite ({_OUTPUTS})"
