"""Errors of a predicted camera motion: over snippets of a few frames, and over whole sequences.

Poses are camera to world. Zhou et al. (CVPR 2017) measure monocular odometry over snippets of five
frames, each with a scale of its own; KITTI measures drift over whole drives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_cam.metrics.odometry.trajectories import (
    Alignment,
    align_trajectories,
    best_scale,
    chain,
    check_poses,
    kitti_errors,
    relative_to_first,
    rotation_angle,
)


def snippet_errors(prediction: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Absolute trajectory error and rotation error of snippets, as Zhou et al. publish them.

    Both snippets are first seen from their own first camera, where one scale is fitted to the
    predicted positions. ATE is the root of the *sum* of squared distances, divided by N: sqrt(N)
    times smaller than the root mean square, and not to be compared between values of N.

    Args:
        prediction, truth: `(..., N, 4, 4)`, poses of the camera, each in any world.

    Returns:
        ATE in metres and the mean angle between the rotations in radians, `(...)` float64; the
        first frame counts among the N, with no error. NaN where a pose is not finite.
    """
    check_poses(prediction, truth)
    p, g = relative_to_first(prediction), relative_to_first(truth)
    at, true = p[..., :3, 3], g[..., :3, 3]  # (..., N, 3)
    scale = best_scale(at, true)[..., None, None]
    frames = prediction.shape[-3]
    ate = torch.linalg.vector_norm(true - scale * at, dim=(-2, -1)) / frames
    return ate, rotation_angle(g[..., :3, :3] @ p[..., :3, :3].mT).mean(-1)


class SnippetErrors(Metric):
    """Mean of `snippet_errors` over snippets and ranks.

    `compute` returns float32 scalars: `ate`, `re` with their standard deviations over all snippets
    `ate_std`, `re_std` (dividing by their number, as published), `zero/ate` of a camera that stands
    still, `snippets`, how many were scored, and `unscored`, how many were predicted as NaN or
    infinite. Snippets whose true poses are not known do not count.

    Any other baseline is a prediction like the network's, see `constant_velocity`.

    Example:
        >>> metric = SnippetErrors()
        >>> metric.update(prediction, truth)  # (S, 5, 4, 4) each
        >>> metric.compute()["ate"]
    """

    full_state_update = False
    higher_is_better = False
    total: Tensor
    squares: Tensor
    snippets: Tensor
    unscored: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("total", "squares"):
            self.add_state(name, torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("snippets", "unscored"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, truth: Tensor) -> None:
        """Add S snippets `(S, N, 4, 4)`."""
        truth = truth.to(prediction.device)
        ate, re = snippet_errors(prediction, truth)
        still = torch.eye(4, device=truth.device).expand_as(truth)
        rows = torch.stack([ate, re, snippet_errors(still, truth)[0]], 1)  # (S, 3)
        known, scored = rows[:, 2].isfinite(), rows.isfinite().all(1)
        rows = rows[scored].to(self.total.device)
        self.total += rows.sum(0)
        self.squares += rows.square().sum(0)
        self.snippets += len(rows)
        self.unscored += (known & ~scored).sum().to(self.unscored.device)

    def compute(self) -> dict[str, Tensor]:
        """Means over the scored snippets, NaN before the first, and their numbers."""
        mean = self.total / self.snippets
        std = (self.squares / self.snippets - mean.square()).clamp(min=0).sqrt()
        return {
            "ate": mean[0].float(),
            "ate_std": std[0].float(),
            "re": mean[1].float(),
            "re_std": std[1].float(),
            "zero/ate": mean[2].float(),
            "snippets": self.snippets.float(),
            "unscored": self.unscored.float(),
        }


class TrajectoryErrors(Metric):
    """Whole sequences, put together from motions of consecutive frames that come in any order.

    A motion that comes twice counts once. Motions whose truth is unknown do not count; without
    those that are predicted as NaN or infinite, or are missing, a sequence falls into stretches,
    of which the longest is measured.

    `compute` returns float32 scalars, means over sequences after alignment: `rmse` of the positions
    in metres, `t_rel` in per cent and `r_rel` in degrees per 100 m (`kitti_errors`; NaN where all
    sequences are too short); and in all sequences together `frames`, how many were measured,
    `left_out`, how many motions were not, and `broken`, how many of these were not finite.

    Args:
        mode: how predictions are laid over the truth, see `align_trajectories`.
        lengths, step: see `kitti_errors`.
        **kwargs: torchmetrics' own.

    Example:
        >>> metric = TrajectoryErrors()
        >>> metric.update(sequence, frame, motion, truth)  # (N,), (N,), (N, 4, 4), (N, 4, 4)
        >>> metric.compute()["t_rel"]
    """

    full_state_update = False
    higher_is_better = False
    rows: list[Tensor] | Tensor
    broken: Tensor

    def __init__(
        self,
        mode: Alignment = "7dof",
        *,
        lengths: Sequence[float] = (100, 200, 300, 400, 500, 600, 700, 800),
        step: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mode, self.lengths, self.step = mode, tuple(lengths), step
        # (N, 34): sequence, frame, motion, true motion; one state, so one gathering of the ranks
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("broken", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, sequence: Tensor, frame: Tensor, motion: Tensor, truth: Tensor) -> None:
        """Add N motions.

        Args:
            sequence: `(N,)` whole numbers.
            frame: `(N,)` whole numbers; frame + 1 is the next image of the sequence.
            motion: `(N, 4, 4)`, predicted T_{t->t+1}.
            truth: `(N, 4, 4)`, NaN where unknown.
        """
        check_poses(motion, truth)
        columns = (sequence[:, None], frame[:, None], motion.flatten(1), truth.flatten(1))
        rows = torch.cat([c.detach().to(self.broken.device).double() for c in columns], 1)
        rows = rows[rows[:, 18:].isfinite().all(1)]
        finite = rows.isfinite().all(1)
        self.broken += (~finite).sum()
        if finite.any():
            self._listed().append(rows[finite])

    def compute(self) -> dict[str, Tensor]:
        """Means over sequences, NaN of none, and how many frames they are."""
        measured, left_out = self._sequences()
        values = []
        for prediction, truth in measured.values():
            apart = (prediction - truth)[:, :3, 3].square().sum(1).mean().sqrt()
            drift = kitti_errors(prediction, truth, self.lengths, self.step)
            values.append(torch.stack([apart, *drift]))
        table = torch.stack(values) if values else self._empty()[:, :3]
        rmse, t_rel, r_rel = table.nanmean(0).float()
        frames = sum(len(truth) for _, truth in measured.values())
        counts = {"frames": frames, "left_out": left_out, "broken": int(self.broken)}
        return {"rmse": rmse, "t_rel": t_rel, "r_rel": r_rel} | {
            name: rmse.new_tensor(float(count)) for name, count in counts.items()
        }

    def trajectories(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Sequence -> aligned and true poses `(n + 1, 4, 4)`; every rank must call it.

        The world is the first measured camera.
        """
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            return self._sequences()[0]

    def motions(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Sequence -> predicted and true motions `(n, 4, 4)` in order; every rank must call it."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            return self._stretches()[0]

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the ranks; see torchmetrics."""
        if not len(self.rows):  # a rank without motions must gather what has the others' shape
            self._listed().append(self._empty())
        super().sync(*args, **kwargs)

    def _listed(self) -> list[Tensor]:
        if isinstance(self.rows, Tensor):  # gathered
            raise RuntimeError("the metric is synchronised; call unsync() first")
        return self.rows

    def _empty(self) -> Tensor:
        return torch.zeros(0, 34, dtype=torch.float64, device=self.broken.device)

    def _sequences(self) -> tuple[dict[int, tuple[Tensor, Tensor]], int]:
        """Aligned and true poses of each sequence, and how many motions are in none."""
        measured, left_out = self._stretches()
        found = {}
        for number, (motion, true) in measured.items():
            truth = chain(true)
            found[number] = (align_trajectories(chain(motion), truth, self.mode), truth)
        return found, left_out

    def _stretches(self) -> tuple[dict[int, tuple[Tensor, Tensor]], int]:
        """Motions of the longest stretch of each sequence, and how many are in none."""
        left_out, found = int(self.broken), {}
        rows = dim_zero_cat(self.rows) if len(self.rows) else self._empty()
        for number in rows[:, 0].unique().tolist():
            mine = rows[rows[:, 0] == number]
            # Of two values for one motion the same counts in whatever order the ranks come.
            mine = mine[mine[:, 5].argsort(stable=True)]
            mine = mine[mine[:, 1].argsort(stable=True)]
            new = mine[:, 1].diff(prepend=mine[:1, 1] - 1) > 0
            mine = mine[new]
            stretch = (mine[:, 1].diff(prepend=mine[:1, 1] - 1) != 1).cumsum(0)
            longest = mine[stretch == stretch.bincount().argmax()]
            left_out += len(mine) - len(longest)
            prediction, truth = longest[:, 2:].view(-1, 2, 4, 4).unbind(1)
            found[int(number)] = (prediction, truth)
        return found, left_out
