"""How many clips a classifier gets right; one whose outputs are not finite is never right."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

IGNORED = -1  # the label of a clip that could not be read


class Accuracy(MulticlassAccuracy):
    """The share of clips whose label is among the `top_k` highest outputs.

    Rows with label -1 do not count. Rows with an output that is not finite count as wrong: the
    highest of [nan, nan] would be class 0.

    Args:
        num_classes: K.
        top_k: how many of the highest outputs may name the label.
    """

    fn: Tensor  # of each class, or of all where only the highest output counts

    def __init__(self, num_classes: int, top_k: int = 1) -> None:
        super().__init__(num_classes, top_k=top_k, average="micro", ignore_index=IGNORED)
        self.classes = num_classes

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add logits (B, K) and labels (B,)."""
        super().update(preds, _of_finite(preds, target))
        lost = _lost(preds, target, self.classes)
        self.fn = self.fn + (lost if self.top_k > 1 else lost.sum())


class LostClips(Metric):
    """Counts the clips of each class whose outputs are not finite."""

    count: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.add_state("count", torch.zeros(num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Add logits (B, K) and labels (B,)."""
        self.count = self.count + _lost(logits, label, len(self.count))

    def compute(self) -> Tensor:
        """(K,) counts."""
        return self.count


class PerClass(NamedTuple):
    """What an evaluation says of each class.

    Attributes:
        matrix: (K, K) counts, row = true class, column = predicted class.
        lost: (K,) counts of clips of each class that have no prediction.
        clips: (K,) counts of all clips of each class.
    """

    matrix: Tensor
    lost: Tensor
    clips: Tensor


class Scores(nn.Module):
    """The metrics of one evaluation stage; rows with label -1 do not count.

    No MetricCollection: it merges metrics whose states agree after the first batch, which top-1 and
    top-5 do when that batch is all right.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.acc = Accuracy(num_classes)
        self.top5 = Accuracy(num_classes, top_k=min(5, num_classes))
        self.confusion = MulticlassConfusionMatrix(num_classes, ignore_index=IGNORED)
        self.lost = LostClips(num_classes)

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Add logits (B, K) and labels (B,)."""
        self.acc.update(logits, label)
        self.top5.update(logits, label)
        self.confusion.update(logits, _of_finite(logits, label))
        self.lost.update(logits, label)

    def per_class(self) -> PerClass:
        """The counts of all ranks, which every rank has to ask for; begins anew."""
        matrix, lost = self.confusion.compute(), self.lost.compute()
        self.confusion.reset()
        self.lost.reset()
        return PerClass(matrix, lost, matrix.sum(1) + lost)


def _of_finite(logits: Tensor, label: Tensor) -> Tensor:
    """The labels, those of rows that are not finite ignored."""
    return label.where(logits.isfinite().all(1), torch.full_like(label, IGNORED))


def _lost(logits: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """How many rows of each class are not finite, (K,)."""
    each = label[:, None] == torch.arange(num_classes, device=label.device)
    return (each & ~logits.isfinite().all(1)[:, None]).sum(0)
