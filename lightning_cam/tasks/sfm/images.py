"""What people see of depth and motion: trajectories, depth, warped views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cam.geometry import pose_matrix, pose_vector
from lightning_cam.interfaces import LogsImages
from lightning_cam.models.sfm import Views
from lightning_cam.own_folder import own_folder
from lightning_cam.tasks.sfm.evaluation import Example
from lightning_cam.tasks.sfm.view_synthesis import Snippets, ViewSynthesis, warp_sources
from lightning_cam.viz import (
    UNKNOWN,
    PanelScale,
    colour_depth,
    colour_error,
    depth_range,
    depth_scale,
    draw_depths,
    draw_trajectory,
    error_range,
    error_scale,
    save_png,
)


class Extras(NamedTuple):
    """What there is to see of a clip beside its frames and the heat on them.

    Attributes:
        panels: name -> `(T, H, W, 3)` uint8 RGB.
        scales: name of a panel -> what its colours mean.
        lines: title -> series -> `(T,)`, NaN where there is none.
    """

    panels: dict[str, np.ndarray]
    scales: dict[str, PanelScale]
    lines: dict[str, dict[str, np.ndarray]]


def draw_extras(
    views: Views, snippets: Snippets, counted: Tensor, margin: int, loss: ViewSynthesis
) -> Extras:
    """Depth, the next frame as seen from each target, what differs, and the motion to it.

    Args:
        views: of the S targets of one clip.
        snippets: of them.
        counted: `(S,)` bool, False for targets that are padding; these are grey.
        margin: frames before the first and after the last target, grey as well.
        loss: knows how rotations are written, and what an error is.
    """
    depth = 1 / views.disparities[0][:, 0]  # (S, H, W)
    motions = pose_matrix(views.poses, loss.rotation)[:, margin]  # to the next frame
    ahead = snippets._replace(sources=snippets.sources[:, margin : margin + 1])
    warp = warp_sources(ahead, depth, motions[:, None])[0]
    view = ((warp.image + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
    view = torch.where(warp.valid[..., None], view, view.new_tensor(UNKNOWN))
    view[~counted] = view.new_tensor(UNKNOWN)
    far = _padded(depth.masked_fill(~counted[:, None, None], torch.nan), margin)
    error = _padded(
        loss.error(snippets.target, warp.image).masked_fill(
            ~(warp.valid & counted[:, None, None]), torch.nan
        ),
        margin,
    )
    images = view.to(torch.uint8).cpu().numpy()
    rim = ((margin, margin), (0, 0), (0, 0), (0, 0))
    panels = {
        "depth": colour_depth(far),
        "next frame, warped": np.pad(images, rim, constant_values=UNKNOWN[0]),
        "error": colour_error(error),
    }
    scales = {
        "depth": depth_scale(*depth_range(far), unit=""),
        "error": error_scale(error_range(error)),
    }
    motions = motions.masked_fill(~counted[:, None, None], torch.nan)
    angles = pose_vector(motions)[:, 3:].rad2deg()
    lines = {
        "motion to the next frame (depth's unit)": _series("xyz", motions[:, :3, 3], margin, "t"),
        "rotation to the next frame (degrees)": _series("xyz", angles, margin, "r"),
    }
    return Extras(panels, scales, lines)


def _series(axes: str, values: Tensor, margin: int, kind: str) -> dict[str, np.ndarray]:
    """Names -> (T,) of values (S, 3)."""
    columns = np.pad(
        values.cpu().double().numpy(), ((margin, margin), (0, 0)), constant_values=np.nan
    )
    return {f"{kind}{axis}": columns[:, n] for n, axis in enumerate(axes)}


def _padded(maps: Tensor, margin: int) -> np.ndarray:
    """(T, H, W) of maps (S, H, W); NaN, which is unknown, on frames that are not targets."""
    rim = ((margin, margin), (0, 0), (0, 0))
    return np.pad(maps.cpu().numpy(), rim, constant_values=np.nan)


def save_images(
    task: Any,
    stage: str,
    trajectories: Mapping[str, tuple[Tensor, Tensor]],
    examples: Sequence[Example],
) -> list[Path]:
    """Write `<run>/odometry/<stage>_epoch_003_depth.png` and `..._<sequence>.png`, and log them.

    Args:
        task: in its trainer; the data module undoes the normalisation.
        stage: "val" or "test".
        trajectories: sequence -> predicted and true poses `(n, 4, 4)`.
        examples: targets whose depth is shown.
    """
    trainer = task.trainer
    stem = own_folder(trainer, "odometry") / f"{stage}_epoch_{task.current_epoch:03d}"
    named: dict[str, list[Path]] = {"trajectory": [], "depth": []}
    for name, (predicted, true) in sorted(trajectories.items()):
        drawn = draw_trajectory(
            {"truth": _positions(true), "prediction": _positions(predicted)},
            title=f"sequence {name}, {stage}, epoch {task.current_epoch}",
        )
        named["trajectory"].append(save_png(stem.with_name(f"{stem.name}_{name}.png"), drawn))
    if examples:
        factors = [_median_factor(e) for e in examples]
        known = [factor for factor in factors if factor]
        rows = [
            (
                task.image(e.frame),
                e.depth.numpy() * (factor or (np.median(known) if known else 1)),
                None if e.truth is None else e.truth.numpy(),
            )
            for e, factor in zip(examples, factors, strict=True)
        ]
        scaled = ", predictions scaled by their medians" if known else ""
        drawn = draw_depths(
            rows,
            title=f"depth, {stage}, epoch {task.current_epoch}{scaled}",
            unit="m" if known else "",
        )
        named["depth"].append(save_png(stem.with_name(f"{stem.name}_depth.png"), drawn))
    for logger in trainer.loggers:
        for kind, paths in named.items():
            if paths and isinstance(logger, LogsImages):
                logger.log_image(f"{stage}/{kind}", [str(p) for p in paths], trainer.global_step)
    return [path for paths in named.values() for path in paths]


def _median_factor(example: Example) -> float | None:
    """What makes the predicted depth's median that of the true one; None where that is unknown."""
    if example.truth is None or not bool((example.truth > 0).any()):
        return None
    size = example.truth.shape
    predicted = F.interpolate(example.depth[None, None], size, mode="bilinear")[0, 0]
    there = example.truth > 0
    return float(example.truth[there].median() / predicted[there].median())


def _positions(poses: Tensor) -> np.ndarray:
    return poses[:, :3, 3].cpu().double().numpy()
