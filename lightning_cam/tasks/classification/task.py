"""Video classification: loss, metrics, optimiser, and how to look into the network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric

from lightning_cam.attribution.columns import Probability
from lightning_cam.attribution.explainable import Explainable, layouts_of
from lightning_cam.attribution.families import called
from lightning_cam.attribution.guard import unwrap
from lightning_cam.attribution.inputs import taken
from lightning_cam.attribution.tensors import fold_frames
from lightning_cam.errors import ConfigError
from lightning_cam.interfaces import (
    Batch,
    ExplainsLayers,
    FoldsActivations,
    HasSteps,
    LogsImages,
    NamesAttention,
    NamesFrames,
    check_network,
    is_offered,
)
from lightning_cam.own_folder import own_folder
from lightning_cam.tasks.classification.calling import (
    Outputs,
    class_columns,
    heads_of,
    inputs_of,
)
from lightning_cam.tasks.classification.confusion import save_confusion
from lightning_cam.tasks.classification.per_class import log_per_class
from lightning_cam.tasks.classification.scores import IGNORED, Accuracy, PerClass, Scores
from lightning_cam.tasks.colours import colours_of
from lightning_cam.tasks.epoch_images import draws_images, never_fatal
from lightning_cam.tasks.schedules import scheduled, trainable


class VideoClassification(L.LightningModule):
    """Trains a network clip (B, C, T, H, W) -> logits (B, K) on batches of a video data module.

    The loss is `(1 - w) CE(clip logits) + w CE(step logits)` with w = `step_loss`. The second
    term is the mean over all valid steps of the batch; a `FrameCNN` is trained frame by frame with
    w = 1. Rows with label -1 count nowhere.

    Args:
        model: any network. It may take `valid` (B, T) as second argument, and have
            `forward_steps(clip, valid) -> (logits, step logits (B, T, K))`, like `LRCN`.
        classes: the K names, in the order of the columns.
        optimizer: called with parameter groups (`_partial_: true` in Hydra); None is
            AdamW(lr=1e-3, weight_decay=1e-2).
        scheduler: called with the optimiser and, where it takes `total_steps`, `T_max` or
            `total_iters`, the number of optimiser steps of the whole training; stepped after every
            optimiser step. None keeps the lr.
        label_smoothing: of both terms.
        class_weights: K positive weights of the clips of each class in both terms, which are then
            weighted means, as PyTorch's; None: all alike.
        step_loss: w, from 0 to 1; None is 0.3 where the network has step logits, else 0.
        trunk_lr_factor: the lr of `model.trunk` (a pretrained backbone) relative to the rest.
        channels_last: hold the weights of 3D convolutions and the clips in memory as
            `torch.channels_last_3d`, which GPUs' tensor cores and oneDNN prefer.
        layers: dotted names of target layers under `model`, the first is the default. None takes
            the network's own `explain_layers`.
        layout: how these layers are laid out, such as `"b (1 + t h w) d"`, see `Explainable.of`;
            one for all, or one for each by its name.
        grid: t, h, w of layers in which these axes are joined.
        inputs: what the network's forward takes beside the clip: argument -> a key of the batch
            ("lengths" are counted from "valid"), or what is the same for all clips.
        outputs: of a network that returns several tensors the key or number of that of the classes,
            or names of the columns of its heads, `{"verb": [...], "noun": [...]}`, which begin with
            the classes: further ones are explained, and not trained.

    Raises:
        ConfigError: settings the network cannot follow.
        UserError: the layout cannot be read, or is for a layer that the network has not.
    """

    monitor = "val/acc", "max"  # by which the best checkpoint is chosen
    probability: Probability = "softmax"  # what makes probabilities of the columns

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        label_smoothing: float = 0.0,
        step_loss: float | None = 0.0,
        trunk_lr_factor: float = 1.0,
        layers: Sequence[str] | None = None,
        channels_last: bool = False,
        class_weights: Sequence[float] | None = None,
        layout: str | Mapping[str, str] | None = None,
        grid: Sequence[int] | None = None,
        inputs: Mapping[str, Any] | None = None,
        outputs: Outputs | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.classes = list(classes)
        self.optimizer = optimizer or partial(AdamW, lr=1e-3, weight_decay=1e-2)
        self.scheduler = scheduler
        self.label_smoothing = label_smoothing
        self.trunk_lr_factor = trunk_lr_factor
        self.channels_last = channels_last
        net = self.net
        check_network(net)
        own_layers = net.explain_layers if is_offered(net, ExplainsLayers) else ()
        self.layers = tuple(map(str, layers or own_layers))
        self.layout, self.grid = layout, grid
        layouts_of(net, layout, grid)  # raises now rather than after an epoch
        self.inputs, self.outputs = taken(inputs or {}, net.forward), outputs
        self.heads = heads_of(outputs, self.classes)
        self.has_steps = is_offered(net, HasSteps)
        if step_loss is None:
            step_loss = 0.3 if self.has_steps else 0.0
        self.step_loss = step_loss
        self.takes_valid = "valid" in inspect.signature(net.forward).parameters
        self._check_settings()
        if channels_last:
            _to_channels_last(model)
        self.class_weights: Tensor | None
        weights = None if class_weights is None else _checked_weights(class_weights, self.classes)
        self.register_buffer("class_weights", weights, persistent=False)
        self.train_loss = MeanMetric(nan_strategy=float("nan"))  # one that is not a number is kept
        self._add_metrics(len(self.classes))
        self.explainable()  # a wrong layer name shows here, not after the first epoch

    def _add_metrics(self, num_classes: int) -> None:
        self.train_acc = Accuracy(num_classes)
        self.val_scores: nn.Module = Scores(num_classes)
        self.test_scores: nn.Module = Scores(num_classes)

    def _check_settings(self) -> None:
        """Raise a ConfigError for what the network cannot follow."""
        network = type(self.model).__name__
        for name, share in (
            ("step_loss", self.step_loss),
            ("label_smoothing", self.label_smoothing),
        ):
            if not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ConfigError(f"{name}={share} must lie between 0 and 1")
        if self.step_loss and not self.has_steps:
            raise ConfigError(
                f"step_loss={self.step_loss} needs step logits, which {network} does not have (no "
                "forward_steps); set task.step_loss=0"
            )
        if self.trunk_lr_factor != 1 and "trunk" not in dict(self.net.named_children()):
            raise ConfigError(
                f"trunk_lr_factor={self.trunk_lr_factor} needs a part named 'trunk', which "
                f"{network} does not have; set task.trunk_lr_factor=1"
            )

    @property
    def net(self) -> nn.Module:
        """The network, unwrapped."""
        return unwrap(self.model)

    @property
    def metric_names(self) -> list[str]:
        """What training and validation may log."""
        train = ["train/loss", "train/loss_epoch", "train/acc"]
        return [*train, "val/loss", "val/acc", "val/top5", "val/macro_acc", *self.optional_metrics]

    @property
    def optional_metrics(self) -> list[str]:
        """What needs validation clips of a class."""
        return [f"val/acc/{name}" for name in self.classes]

    def _laid_out(self, clip: Tensor) -> Tensor:
        """The clip in the memory layout of the network."""
        return clip.to(memory_format=torch.channels_last_3d) if self.channels_last else clip

    def forward(self, clip: Tensor, valid: Tensor | None = None, **inputs: Any) -> Tensor:
        """Logits (B, K)."""
        clip, call = self._laid_out(clip), called(self.net)
        network = self.model if call is self.net else call  # itself with its wrappers
        given = (clip, valid) if self.takes_valid else (clip,)
        return self._class_columns(network(*given, **inputs))

    def _class_columns(self, returned: Any) -> Tensor:
        name = type(self.net).__name__
        return class_columns(returned, self.outputs, self.heads, len(self.classes), name)

    def loss(
        self, logits: Tensor, steps: Tensor | None, label: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """The training loss.

        Args:
            logits: (B, K).
            steps: (B, T, K), not needed where `step_loss` is 0.
            label: (B,), -1 for rows to ignore. If all are, the loss is 0 and so are its gradients.
            valid: (B, T), False on padded steps.
        """
        clip_loss = self._cross_entropy(logits, label)
        if not self.step_loss or steps is None:
            return clip_loss
        step_label = label.unsqueeze(1).expand(*steps.shape[:2], *label.shape[1:])  # (B, T, ...)
        if valid is not None:
            padded = ~valid.view(*valid.shape, *[1] * (label.ndim - 1))
            step_label = step_label.masked_fill(padded, IGNORED)
        step_loss = self._cross_entropy(steps.flatten(0, 1), step_label.flatten(0, 1))
        return (1 - self.step_loss) * clip_loss + self.step_loss * step_loss

    def _cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        total = F.cross_entropy(
            logits.float(),
            label,
            ignore_index=IGNORED,
            weight=self.class_weights,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        counted = label != IGNORED
        if self.class_weights is None:
            return total / counted.sum().clamp(min=1)  # its own mean would be 0/0
        weight = (self.class_weights[label.clamp(min=0)] * counted).sum()
        return total / weight.clamp(min=torch.finfo(weight.dtype).tiny)

    def _shared_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        clip, label, valid = batch["video"], batch["label"], batch.get("valid")
        steps = None
        net = self.net
        if is_offered(net, HasSteps) and not self.inputs:
            logits, steps = net.forward_steps(self._laid_out(clip), valid)
            logits = self._class_columns(logits)
        else:
            logits = self(clip, valid, **inputs_of(self.inputs, batch))
        if logits.ndim != 2 or logits.shape[1] != len(self.classes):
            raise ConfigError(
                f"the network's outputs have shape {tuple(logits.shape)}, expected (B, "
                f"{len(self.classes)}) for {len(self.classes)} classes; set its number of outputs"
            )
        self._check_labels(label, logits)
        return self.loss(logits, steps, label, valid), logits.detach().float()

    def _check_labels(self, label: Tensor, logits: Tensor) -> None:
        """Raise a ConfigError for labels of another kind of task."""
        if label.ndim != 1:
            raise ConfigError(
                f"the labels have shape {tuple(label.shape)}, expected one a clip, ({len(label)},);"
                " of several a clip take task=multilabel"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss, logits = self._shared_step(batch)
        self.train_acc.update(logits, batch["label"])
        rows = len(logits)
        self._log_loss(loss, rows)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, batch_size=rows)
        return loss

    def _log_loss(self, loss: Tensor, rows: int) -> None:
        """The batch's, of the first process; the epoch's, of all, comes at its end."""
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=rows)
        self.train_loss.update(loss.detach().clone(), rows)

    def on_train_epoch_end(self) -> None:
        self.log("train/loss_epoch", self.train_loss.compute())
        self.train_loss.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step("val", self.val_scores, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step("test", self.test_scores, batch)

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val", self.val_scores)

    def on_test_epoch_end(self) -> None:
        self._log_epoch("test", self.test_scores)

    def _evaluation_step(self, stage: str, scores: Any, batch: Batch) -> None:
        loss, logits = self._shared_step(batch)
        label = batch["label"]
        scores.update(logits, label)
        rows = int((label != IGNORED).sum())
        self.log(f"{stage}/loss", loss, prog_bar=True, batch_size=rows, sync_dist=True)
        self.log(f"{stage}/acc", scores.acc, prog_bar=True, batch_size=len(label))
        self.log(f"{stage}/top5", scores.top5, batch_size=len(label))

    def _log_epoch(self, stage: str, scores: Any) -> None:
        found = scores.per_class()
        clips = dict(zip(self.classes, found.clips.tolist(), strict=True))
        rights = zip(clips.items(), found.matrix.diag().tolist(), strict=True)
        known = {name: right / count for (name, count), right in rights if count}
        log_per_class(self, stage, ("acc", "accuracy"), known, clips)
        if known:
            self.log(f"{stage}/macro_acc", sum(known.values()) / len(known))
        if draws_images(self.trainer) and known:
            with never_fatal(f"{stage} confusion matrix"):
                self._draw_confusion(stage, found)

    def _draw_confusion(self, stage: str, found: PerClass) -> None:
        right, clips = int(found.matrix.diag().sum()), int(found.clips.sum())
        title = f"{stage}, epoch {self.current_epoch}: {right} of {clips}"
        if lost := int(found.lost.sum()):
            title += f", {lost} without finite outputs"
        path = save_confusion(
            own_folder(self.trainer, "confusion") / f"{stage}_epoch_{self.current_epoch:03d}.png",
            found.matrix,
            self.classes,
            title=title,
        )
        for logger in self.trainer.loggers:
            if isinstance(logger, LogsImages):
                logger.log_image(f"{stage}/confusion", [str(path)], step=self.trainer.global_step)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        everything = trainable(list(self.model.parameters()))
        trunk: list[nn.Parameter] = []
        if self.trunk_lr_factor != 1:
            trunk = [p for p in self.net.get_submodule("trunk").parameters() if p.requires_grad]
        own = {id(p) for p in trunk}
        rest = [p for p in everything if id(p) not in own]
        optimizer = self.optimizer([{"params": group} for group in (rest, trunk) if group])
        if trunk:
            optimizer.param_groups[-1]["lr"] *= self.trunk_lr_factor
        return scheduled(self, optimizer, self.scheduler)

    def explainable(self, batch: Batch | None = None) -> Explainable:
        """How to look into the network.

        Args:
            batch: the batch the clips come from. Its "valid" is bound, so that padded frames take
                no part, its "black", a baseline, and its "mask", the ground truth. Without it all
                frames are valid, black is 0, and no truth is known.

        Raises:
            UserError: a name in `layers` or `layout` is not a module of the network.
        """
        net, call = self.net, called(self.net)
        valid = None if batch is None or not self.takes_valid else batch.get("valid")

        def forward(clip: Tensor, **inputs: Any) -> Any:
            given = [self._laid_out(clip)]
            if valid is not None:
                given.append(valid.to(clip.device).repeat(clip.shape[0] // valid.shape[0], 1))
            returned = call(*given, **inputs)
            return returned if self.heads else self._class_columns(returned)

        described = Explainable.of(
            net,
            layers=self.layers,
            outputs=self.outputs if isinstance(self.outputs, Mapping) else self.classes,
            probability=self.probability,
            inputs=None if batch is None else inputs_of(self.inputs, batch),
            attention=net.explain_attention if is_offered(net, NamesAttention) else (),
            steps="head" if self.has_steps else None,
            forward=forward,
            fold=net.explain_fold if is_offered(net, FoldsActivations) else fold_frames,
            frames=net.explain_frames if is_offered(net, NamesFrames) else None,
            layout=self.layout,
            grid=self.grid,
        )
        described = replace(described, to_frames=colours_of(self))
        if batch is None:
            return described
        black, truth = batch.get("black"), batch.get("mask")
        return replace(described, valid=valid, black=black, truth=truth)


def _to_channels_last(model: nn.Module) -> None:
    """Hold 3D convolutions as `channels_last` says; raise a ConfigError where there are none."""
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv3d)]
    if not convolutions:
        raise ConfigError(
            "task.channels_last=true is for 3D convolutions, which "
            f"{type(model).__name__} does not have; set task.channels_last=false"
        )
    for convolution in convolutions:
        convolution.to(memory_format=torch.channels_last_3d)


def _checked_weights(weights: Sequence[float], classes: Sequence[str]) -> Tensor:
    numbers = [w for w in weights if isinstance(w, int | float) and 0 < w < float("inf")]
    if isinstance(weights, str) or len(numbers) != len(weights) or len(weights) != len(classes):
        raise ConfigError(
            f"task.class_weights={weights} must be {len(classes)} numbers above 0, one for each "
            "class; or set task.class_weights=balanced"
        )
    return torch.tensor(numbers, dtype=torch.float32)
