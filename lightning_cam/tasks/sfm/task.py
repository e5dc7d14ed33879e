"""Depth and the camera's motion from unlabelled video: training, evaluation, explanation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.guard import unwrap
from lightning_cam.errors import ConfigError, UserError
from lightning_cam.geometry import pose_matrix
from lightning_cam.interfaces import Batch, HasMasks, is_offered
from lightning_cam.metrics.depth import Crop
from lightning_cam.models.sfm import SfMLearner, Views
from lightning_cam.tasks.colours import colours_of
from lightning_cam.tasks.epoch_images import draws_images, never_fatal
from lightning_cam.tasks.schedules import scheduled, trainable
from lightning_cam.tasks.sfm.evaluation import MEASURED, OdometryScores
from lightning_cam.tasks.sfm.images import Extras, draw_extras, save_images
from lightning_cam.tasks.sfm.outputs import column_names, column_values
from lightning_cam.tasks.sfm.view_synthesis import Losses, Snippets, ViewSynthesis, warp_sources


class StructureFromMotion(L.LightningModule):
    """Trains an `SfMLearner` on snippets of video, and measures depth and motion where known.

    A batch has "video" (B, 3, T, H, W) and "intrinsics" (B, 3, 3), and may have "valid" (B, T),
    "poses" (B, T, 4, 4), "depth" and, in evaluation, "target" (B, T), see `SnippetDataModule`.
    Each frame with enough neighbours is a target; the loss is the mean over all targets whose
    snippet is valid.

    Args:
        model: the two networks.
        loss: how views are judged; None: `ViewSynthesis()`.
        mean: of the data's normalisation, in [0, 1], by which images become comparable again.
        std: of it.
        optimizer: called with the parameters (`_partial_: true` in Hydra); None is Adam(lr=2e-4).
        scheduler: see `VideoClassification`.
        box: [top, left, bottom, right] of the column "depth/box", in shares of the image; by
            default what lies ahead.
        layers: dotted names of target layers under `model`, the first is the default. None takes
            the network's own.
        depth_cap: metres beyond which true depth does not count, 80 or 50.
        depth_crop: "garg": only the part of the image that is usual for KITTI; None: all of it.

    Raises:
        ConfigError: settings that make no sense.
    """

    monitor = "val/loss", "min"  # by which the best checkpoint is chosen
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: SfMLearner,
        loss: ViewSynthesis | None = None,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        box: Sequence[float] = (0.4, 0.35, 0.75, 0.65),
        layers: Sequence[str] | None = None,
        depth_cap: float = 80.0,
        depth_crop: Crop = "garg",
    ) -> None:
        super().__init__()
        self.model = model
        self.view_synthesis = loss or ViewSynthesis()
        masked = is_offered(model.pose, HasMasks) and model.pose.masks
        if self.view_synthesis.min_reprojection and masked:
            raise ConfigError(
                "task.loss.min_reprojection=true cannot go with explainability masks, which "
                "would explain every pixel: set model.pose.masks=false"
            )
        if len(box) != 4 or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            raise ConfigError(
                f"box={list(box)} must be [top, left, bottom, right] in shares of the image"
            )
        self.box = tuple(box)
        self.optimizer = optimizer or partial(Adam, lr=2e-4)
        self.scheduler = scheduler
        self.layers = tuple(map(str, layers or model.explain_layers))
        for name, of in (("mean", mean), ("std", std)):  # (3, 1, 1, 1), to be where images are
            self.register_buffer(name, torch.tensor(list(of)).view(-1, 1, 1, 1), persistent=False)
        self.columns = column_names(model.snippet - 1)
        self.train_loss = MeanMetric(nan_strategy=float("nan"))  # one that is not a number is kept
        self.val_scores = OdometryScores(model.snippet, depth_cap, depth_crop)
        self.test_scores = OdometryScores(model.snippet, depth_cap, depth_crop)
        self.explainable()  # a wrong layer name shows here, not after the first epoch

    @property
    def net(self) -> SfMLearner:
        """The two networks, unwrapped."""
        return cast(SfMLearner, unwrap(self.model))

    @property
    def metric_names(self) -> list[str]:
        """What training and validation may log."""
        losses = ["loss", "view_synthesis"]
        return [
            "train/loss_epoch",
            *(f"train/{name}" for name in (*losses, "mask", "smooth", "geometry")),
            *(f"val/{name}" for name in (*losses, "warp_error", "identity_error")),
            *self.optional_metrics,
        ]

    @property
    def optional_metrics(self) -> list[str]:
        """Errors of depth and motion, where they are known."""
        return [f"val/{name}" for name in MEASURED]

    def forward(self, clip: Tensor) -> Views:
        """Depth and motion of all targets of clips (B, 3, T, H, W)."""
        return self.model(clip, self.view_synthesis.geometry_weight > 0)

    def snippets(self, batch: Batch) -> Snippets:
        """The images by which the views of a batch are judged, of R = B*S targets."""
        clip = (2 * (batch["video"].float() * self.std + self.mean) - 1).clamp(-1, 1)
        target, sources = self.net.snippets(clip)
        targets = len(target) // len(clip)
        return Snippets(target, sources, batch["intrinsics"].float().repeat_interleave(targets, 0))

    def targets(self, batch: Batch) -> Tensor:
        """Which targets have a whole snippet, (B, S) bool."""
        video = batch["video"]
        valid = batch.get("valid")
        if valid is None:
            valid = torch.ones(len(video), video.shape[2], dtype=torch.bool, device=video.device)
        return valid.unfold(1, self.net.snippet, 1).all(-1)

    def inner(self, frames: Tensor) -> Tensor:
        """What is known of frames (B, T) of those that can be targets, (B, S)."""
        margin = self.net.margin
        return frames[:, margin : frames.shape[1] - margin]

    def losses(self, views: Views, snippets: Snippets) -> Losses:
        """The terms of the loss for each target; in float32, whatever the networks run in.

        They are NaN for a target whose depth or motion is not finite: it sees no pixel of its
        sources, and of nothing every synthesis is perfect.
        """
        with torch.autocast(snippets.target.device.type, enabled=False):
            losses = self.view_synthesis(_in_float32(views), snippets)
        finite = _finite(views)
        return losses._replace(
            total=losses.total.masked_fill(~finite, torch.nan),
            view_synthesis=losses.view_synthesis.masked_fill(~finite, torch.nan),
        )

    def on_fit_start(self) -> None:
        if str(self.trainer.precision).endswith("-true") and "32" not in str(
            self.trainer.precision
        ):
            raise ConfigError(
                f"trainer.precision={self.trainer.precision} cannot hold a camera's geometry; use "
                "bf16-mixed or 16-mixed, which keep it in 32 bits"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = self.losses(self(batch["video"]), self.snippets(batch))
        counted = self.targets(batch).flatten()
        loss = _mean(losses.total, counted)
        rows = int(counted.sum())
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=rows)
        self.train_loss.update(loss.detach().clone(), rows)
        terms = losses._asdict()
        for name in ("view_synthesis", "mask", "smooth", "geometry"):
            value = _mean(terms[name].detach(), counted)
            self.log(f"train/{name}", value, on_step=False, on_epoch=True, batch_size=rows)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("train/loss_epoch", self.train_loss.compute())  # of all processes
        self.train_loss.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step("val", self.val_scores, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step("test", self.test_scores, batch)

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val", self.val_scores)

    def on_test_epoch_end(self) -> None:
        self._log_scores("test", self.test_scores)

    def _evaluation_step(self, stage: str, scores: OdometryScores, batch: Batch) -> None:
        views, snippets = _in_float32(self(batch["video"])), self.snippets(batch)
        losses, counted = self.losses(views, snippets), self.targets(batch)
        if "target" in batch:  # films overlap: each target counts once
            counted = counted & self.inner(batch["target"])
        motions = pose_matrix(views.poses, self.view_synthesis.rotation)
        scores.update(batch, counted, views.disparities[0], motions)
        counted = counted.flatten()
        rows = int(counted.sum())
        warp, identity = self.against_identity(views, snippets, motions)
        for name, value in {
            "loss": losses.total,
            "view_synthesis": losses.view_synthesis,
            "warp_error": warp,
            "identity_error": identity,
        }.items():
            self.log(
                f"{stage}/{name}",
                _mean(value, counted),
                prog_bar=name == "loss",
                batch_size=rows,
                sync_dist=True,
            )

    def against_identity(
        self, views: Views, snippets: Snippets, motions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean |difference| of images in [0, 1] to the warped and to the plain sources, (R,).

        Over the same pixels, those that the warped sources show: pixels out of view count in
        neither, so that warping out of view gains nothing.
        """
        with torch.autocast(snippets.target.device.type, enabled=False):  # half a pixel matters
            warps = warp_sources(snippets, 1 / views.disparities[0][:, 0], motions)
        valid = torch.stack([warp.valid for warp in warps], 1)  # (R, N, H, W)
        pixels = valid.sum((1, 2, 3)).clamp(min=1)

        def error(images: Tensor) -> Tensor:
            apart = (snippets.target[:, None] - images).abs().mean(2) / 2
            return (apart * valid).sum((1, 2, 3)) / pixels

        return error(torch.stack([warp.image for warp in warps], 1)), error(snippets.sources)

    def _log_scores(self, stage: str, scores: OdometryScores) -> None:
        found = scores.compute()  # over all ranks
        if scores.lost and not self.trainer.sanity_checking:
            warnings.warn(f"{stage}: {scores.lost}", stacklevel=2)
        trajectories, examples = scores.trajectories(), scores.examples
        scores.reset()
        for name, value in found.items():
            self.log(f"{stage}/{name}", value)
        if draws_images(self.trainer):
            with never_fatal(f"{stage} depth and motion"):
                save_images(self, stage, trajectories, examples)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(trainable(list(self.model.parameters())))
        return scheduled(self, optimizer, self.scheduler)

    def explainable(self, batch: Batch | None = None) -> Explainable:
        """How to look into both networks.

        The columns are `self.columns`: negative losses, the pose vector of the motion from the
        target to the next frame, and the mean depth (of the image, of `box`); each is the mean
        over the clip's targets. A clip of the target alone with its sources (T = snippet) has one.

        What is perturbed is what the networks see. Views are judged by the images of the batch,
        whatever is put in: else hiding everything would be a perfect synthesis of nothing.

        Args:
            batch: the batch the clips come from; without it there are names only.

        Raises:
            UserError: a name in `layers` is not a module of the network.
        """

        def columns(clip: Tensor) -> Tensor:
            if batch is None:
                raise UserError(
                    "views are judged by the batch's images and intrinsics: pass it to "
                    "task.explainable(batch)"
                )
            return self._columns(clip, batch)

        described = Explainable.of(
            self.net,
            layers=self.layers,
            outputs=self.columns,
            forward=columns,
            probability=None,
            fold=self.net.explain_fold,
        )
        described = replace(described, default=0, to_frames=colours_of(self))
        if batch is None:
            return described
        valid, black = batch.get("valid"), batch.get("black")
        return replace(described, valid=valid, black=black, truth=batch.get("mask"))

    def _columns(self, clip: Tensor, batch: Batch) -> Tensor:
        """(n*B, K) of n copies of the batch's clips, one after another."""
        copies = len(clip) // len(batch["video"])
        batch = _tensors(batch, clip.device)
        views = self(clip)
        snippets = Snippets(
            *(part.repeat(copies, *[1] * (part.ndim - 1)) for part in self.snippets(batch))
        )
        losses = self.losses(views, snippets)
        found = column_values(views, losses, self.box).unflatten(0, (len(clip), -1))  # (n*B, S, K)
        counted = self.targets(batch).repeat(copies, 1)[..., None]
        return (found * counted).sum(1) / counted.sum(1).clamp(min=1)

    def image(self, frame: Tensor) -> np.ndarray:
        """(H, W, 3) uint8 RGB of a normalised frame (3, H, W)."""
        level = frame.cpu()[:, None] * self.std.cpu() + self.mean.cpu()  # (3, 1, H, W)
        return (255 * level[:, 0]).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()

    def extras(self, batch: Batch) -> Extras:
        """What there is to see beside the heat: depth, warped source, error, and the motion.

        Args:
            batch: of one clip.
        """
        batch = _tensors(batch, self.device)
        with torch.no_grad():
            views = _in_float32(self(batch["video"]))
        counted = self.targets(batch)[0]
        return draw_extras(
            views, self.snippets(batch), counted, self.net.margin, self.view_synthesis
        )


def _tensors(batch: Batch, device: torch.device) -> Batch:
    """The tensors of a batch, on a device."""
    found = {key: of.to(device) for key, of in batch.items() if isinstance(of, Tensor)}
    return cast(Batch, found)


def _in_float32(views: Views) -> Views:
    def of(maps: list[Tensor] | None) -> list[Tensor] | None:
        return None if maps is None else [m.float() for m in maps]

    return Views(
        [m.float() for m in views.disparities],
        views.poses.float(),
        of(views.masks),
        of(views.source_disparities),
    )


def _finite(views: Views) -> Tensor:
    """Whether depth and motion of each target are finite, (R,) bool."""
    outputs = [views.poses, *views.disparities]
    return torch.stack([of.isfinite().flatten(1).all(1) for of in outputs]).all(0)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of those that count, (R,) -> (); 0 where none does."""
    return torch.where(counted, values, 0).sum() / counted.sum().clamp(min=1)
