"""Which checkpoints of a run are kept: the best epoch and the last, both of a finite network.

What they remember of each other in a checkpoint are names of files beside it: a run may be moved,
and a file from a stranger names nothing that lies elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_cam.errors import ConfigError, UnknownNameError
from lightning_cam.training.finite import outputs_not_finite, weights_not_finite

LAST = "last.ckpt"
_BEST = re.compile(r"epoch_\d+\.ckpt", re.ASCII)


class MetricError(ConfigError):
    """The metric that shall choose the best checkpoint is none that is logged."""


def has_best(saved: Mapping[str, Any]) -> bool:
    """Whether a checkpoint knows a best one, which only the same metric can go on from."""
    states = saved.get("callbacks")
    return isinstance(states, Mapping) and any(
        str(name).startswith(BestCheckpoint.__qualname__) and state
        for name, state in states.items()
    )


class BestCheckpoint(ModelCheckpoint):
    """Saves `epoch_007.ckpt` where the monitored metric is better than in every epoch before.

    An epoch in which weights, outputs or the metric are not finite is never the best.

    Args:
        folder: where checkpoints lie.
        metric: the name of a logged metric.
        mode: which is better, "max" or "min".

    Raises:
        MetricError: (while training) nothing of this name was logged: by a pass over all validation
            clips before training, of a metric of validation; else when the epoch is saved.
    """

    def __init__(self, folder: Path, metric: str, mode: str) -> None:
        self._absent = ""  # what to say of the metric once the epoch is saved
        self._of_training = metric.startswith("train/")  # known when the epoch ends, not before
        super().__init__(
            dirpath=folder,
            # A name without "=", so that it can be passed to ckpt=.
            filename="epoch_{epoch:03d}",
            auto_insert_metric_name=False,
            monitor=metric,
            mode=mode,
            enable_version_counter=False,
            save_on_train_epoch_end=self._of_training or None,
        )

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        whole = list(trainer.num_sanity_val_batches) == list(trainer.num_val_batches)
        if whole and str(self.monitor).startswith("val/") and not self._logged(trainer):
            raise MetricError(self._absent)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        due = trainer.state.fn == "fit" and not trainer.sanity_checking
        if self._of_training or not due or self._logged(trainer):
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._logged(trainer) if self._of_training else not self._absent:
            super().on_train_epoch_end(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._absent:
            raise MetricError(self._absent)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._absent:
            raise MetricError(self._absent)
        super().on_train_end(trainer, pl_module)

    def _logged(self, trainer: Trainer) -> bool:
        """Whether there is the metric; if not, this is said when the epoch is saved."""
        known = trainer.callback_metrics
        if self.monitor not in known:
            self._absent = str(UnknownNameError("logged metric", self.monitor, known))
        return not self._absent

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        sound = current is not None and bool(torch.as_tensor(current).isfinite().all())
        sound = trainer.strategy.reduce_boolean_decision(sound)
        if not sound or outputs_not_finite(trainer) or weights_not_finite(trainer):
            return False
        return super().check_monitor_top_k(trainer, current)

    def state_dict(self) -> dict[str, Any]:
        if not self.best_model_path:
            return {}
        return {"best": Path(self.best_model_path).name, "score": self.best_model_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what lies in this run's folder; what a checkpoint says otherwise is ignored."""
        name, score = state_dict.get("best"), state_dict.get("score")
        if not isinstance(name, str) or not _BEST.fullmatch(name):
            return
        if not isinstance(score, Tensor) or score.ndim or not bool(score.isfinite()):
            return
        file = Path(str(self.dirpath)) / name
        if file.is_file() and not file.is_symlink():
            self.best_model_path = self.kth_best_model_path = str(file)
            self.best_model_score = self.kth_value = score
            self.best_k_models = {str(file): score}


class LastCheckpoint(ModelCheckpoint):
    """Saves `last.ckpt` after every epoch, as long as the network is finite.

    Weights that are not finite are never saved. Outputs that are not (of a broken validation clip,
    for example) do not replace a checkpoint whose outputs were.

    Attributes:
        refused: why the newest epoch was not saved, in words; "" if it was.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder,
            filename=Path(LAST).stem,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )
        self.refused = ""
        self._finite = False  # whether the outputs of what is saved were

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        outputs = outputs_not_finite(trainer)
        self.refused = weights_not_finite(trainer) or (outputs if self._finite else "")
        if not self.refused:
            self._finite = not outputs
            super().on_train_epoch_end(trainer, pl_module)

    def save_within(self, trainer: Trainer) -> bool:
        """Save within an epoch, on all ranks together; whether the weights are finite."""
        if trainer.fast_dev_run or weights_not_finite(trainer):  # type: ignore[attr-defined]
            return False
        self._save_checkpoint(trainer, str(Path(str(self.dirpath)) / LAST))
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"finite": self._finite}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._finite = state_dict.get("finite") is True
