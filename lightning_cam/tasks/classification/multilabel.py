"""Several labels a clip: each class is true or not by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_average_precision
from torchmetrics.utilities import dim_zero_cat

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.errors import ConfigError
from lightning_cam.interfaces import Batch
from lightning_cam.tasks.classification.per_class import log_per_class
from lightning_cam.tasks.classification.scores import IGNORED
from lightning_cam.tasks.classification.task import VideoClassification


class AveragePrecision(Metric):
    """Average precision of each class; NaN of one that no clip has.

    Rows whose outputs are not finite are ranked as wrongly as can be.

    Attributes:
        clips: how many clips of all ranks have each class, when it is computed.
    """

    scores: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.clips: list[int] = []
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Add logits (B, K) and labels (B, K) of 1, 0, and -1 where it is not known."""
        finite = logits.isfinite().all(1, keepdim=True)
        worst = 1.0 - label.clamp(min=0).double()
        self.scores.append(torch.where(finite, logits.double().sigmoid(), worst))
        self.labels.append(label.long())

    def compute(self) -> Tensor:
        """(K,)"""
        scores, labels = dim_zero_cat(self.scores), dim_zero_cat(self.labels)
        self.clips = (labels > 0).sum(0).tolist()
        found = scores.new_full(scores.shape[1:], torch.nan)
        for k in range(len(found)):
            known = labels[:, k] != IGNORED
            if bool((labels[known, k] > 0).any()):
                found[k] = binary_average_precision(scores[known, k], labels[known, k])
        return found


class MultiLabelScores(nn.Module):
    """The metrics of one evaluation stage."""

    def __init__(self) -> None:
        super().__init__()
        self.precision = AveragePrecision()

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Add logits (B, K) and labels (B, K)."""
        self.precision.update(logits, label)


class MultiLabelClassification(VideoClassification):
    """Trains a network clip (B, C, T, H, W) -> logits (B, K), each column a class by itself.

    "label" of a batch is (B, K): 1 where a class is true of the clip, 0 where it is not, -1 where
    nobody knows, which counts nowhere. The loss is the binary cross entropy, the mean over classes
    and clips; it is also that of steps (`step_loss`), of which each has the labels of its clip.
    `label_smoothing` s makes targets of s/2 and 1 - s/2, `class_weights` weigh the columns.

    Logged are the mean average precision "val/map", over the classes that some clip has, and
    "val/ap/CLASS". Where no class is asked for, each clip's highest true one is explained.
    """

    monitor = "val/map", "max"
    probability = "sigmoid"

    @property
    def metric_names(self) -> list[str]:
        return ["train/loss", "train/loss_epoch", "val/loss", "val/map", *self.optional_metrics]

    @property
    def optional_metrics(self) -> list[str]:
        return [f"val/ap/{name}" for name in self.classes]

    def _add_metrics(self, num_classes: int) -> None:
        self.val_scores = MultiLabelScores()
        self.test_scores = MultiLabelScores()

    def _check_labels(self, label: Tensor, logits: Tensor) -> None:
        if label.shape != logits.shape or bool(((label < IGNORED) | (label > 1)).any()):
            raise ConfigError(
                f"task=multilabel needs labels of 0 and 1 (B, K) = {tuple(logits.shape)}, got "
                f"{tuple(label.shape)} from {int(label.min())} to {int(label.max())}; of one class "
                "a clip take task=classification"
            )

    def _cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        counted = (label != IGNORED).float()
        if self.class_weights is not None:
            counted = counted * self.class_weights
        smooth = self.label_smoothing
        wanted = label.clamp(min=0).float() * (1 - smooth) + smooth / 2
        each = F.binary_cross_entropy_with_logits(logits.float(), wanted, reduction="none")
        # Not each * counted: a loss of inf where nothing counts would be NaN.
        total = torch.where(counted > 0, each * counted, 0).sum()
        return total / counted.sum().clamp(min=torch.finfo(counted.dtype).tiny)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss, logits = self._shared_step(batch)
        self._log_loss(loss, len(logits))
        return loss

    def _evaluation_step(self, stage: str, scores: Any, batch: Batch) -> None:
        loss, logits = self._shared_step(batch)
        label = batch["label"]
        scores.update(logits, label)
        rows = int((label != IGNORED).any(1).sum())
        self.log(f"{stage}/loss", loss, prog_bar=True, batch_size=rows, sync_dist=True)

    def _log_epoch(self, stage: str, scores: Any) -> None:
        found: Sequence[float] = scores.precision.compute().tolist()
        clips = dict(zip(self.classes, scores.precision.clips, strict=True))
        scores.precision.reset()
        known = {n: p for n, p in zip(self.classes, found, strict=True) if p == p}
        log_per_class(self, stage, ("ap", "average precision"), known, clips)
        if known:
            self.log(f"{stage}/map", sum(known.values()) / len(known), prog_bar=True)

    def explainable(self, batch: Batch | None = None) -> Explainable:
        model = super().explainable(batch)
        label = None if batch is None else batch.get("label")
        if label is None or label.ndim != 2:  # of a video that is not of the data
            return model
        more = len(model.outputs) - len(self.classes)  # columns that are explained alone
        return replace(model, positives=F.pad(label > 0, (0, more)))
