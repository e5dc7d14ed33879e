"""Trajectories of a camera: motions chained to poses, and poses laid over others.

A motion T_{t->t+1} maps points of camera t into camera t + 1; a pose maps its camera's points into
the world. All arithmetic, and what is returned, is float64: small errors add up along a drive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_cam.geometry import invert

Alignment = Literal["scale", "6dof", "7dof"]


class Similarity(NamedTuple):
    """y = scale * rotation @ x + translation: a scalar, `(3, 3)` and `(3,)`."""

    scale: Tensor
    rotation: Tensor
    translation: Tensor


def chain(motions: Tensor) -> Tensor:
    """Camera poses `(..., n + 1, 4, 4)` from motions T_{t->t+1} `(..., n, 4, 4)`.

    G_0 = I and G_{t+1} = G_t T_{t->t+1}^-1: camera to world, the world is the first camera.
    """
    check_poses(motions)
    steps = invert(motions.double())
    pose = torch.eye(4, dtype=steps.dtype, device=steps.device).expand(*steps.shape[:-3], 4, 4)
    poses = [pose]
    for step in steps.unbind(-3):
        pose = pose @ step
        poses.append(pose)
    return torch.stack(poses, -3)


def constant_velocity(motions: Tensor) -> Tensor:
    """The mean motion `(4, 4)` of motions `(n, 4, 4)`: a baseline that does not look.

    The mean of the translations and the chordal mean of the rotations, which is the rotation
    nearest to their matrices' mean. Motions that are not finite are left out; NaN of none.

    Example:
        >>> motion = constant_velocity(training_motions)  # T_{t->t+1} of the true poses
        >>> metric.update(chain(motion.expand(4, 4, 4)).expand_as(truth), truth)  # 5 frames
    """
    check_poses(motions)
    motions = motions.double()
    motions = motions[motions.isfinite().flatten(1).all(1)]
    if not len(motions):
        return motions.new_full((4, 4), torch.nan)
    mean = motions.mean(0)
    mean[:3, :3] = _nearest_rotation(mean[:3, :3])[0]
    return mean


def rotation_angle(rotation: Tensor) -> Tensor:
    """Angle `(...)` in radians of rotations `(..., 3, 3)`, also exact for small ones."""
    axis = torch.stack(
        [rotation[..., i, j] - rotation[..., j, i] for i, j in ((0, 1), (1, 2), (0, 2))], -1
    )
    trace = rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.atan2(torch.linalg.vector_norm(axis, dim=-1), trace - 1)


def relative_to_first(poses: Tensor) -> Tensor:
    """Poses `(..., N, 4, 4)` of any world, as seen from the first camera; float64."""
    poses = poses.double()
    return invert(poses[..., :1, :, :]) @ poses


def best_scale(prediction: Tensor, truth: Tensor) -> Tensor:
    """The scale `(...)` that brings points `(..., N, 3)` nearest to others, about the origin.

    It is negative for a prediction that goes the other way, as in the published evaluation; 0 where
    the prediction does not move, which no scale can mend.
    """
    power = prediction.square().sum((-2, -1))
    return (truth * prediction).sum((-2, -1)) / power.clamp(min=torch.finfo(power.dtype).tiny)


def umeyama(x: Tensor, y: Tensor, scale: bool = True) -> Similarity:
    """The similarity that brings points x nearest to points y, least squares.

    Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two Point Patterns",
    PAMI 1991. Points on a line leave the rotation about it open.

    Args:
        x, y: `(n, 3)`, finite, n > 0.
        scale: False: keep the scale 1.

    Raises:
        ValueError: the points are not n each.
    """
    if x.shape != y.shape or x.ndim != 2 or x.shape[1] != 3 or not len(x):
        raise ValueError(
            f"expected points (n, 3) and as many, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    x, y = x.double(), y.double()
    centre_x, centre_y = x.mean(0), y.mean(0)
    x, y = x - centre_x, y - centre_y
    rotation, singular = _nearest_rotation(y.T @ x / len(x))
    factor = x.new_ones(())
    if scale:
        variance = x.square().sum() / len(x)
        factor = singular.sum() / variance.clamp(min=torch.finfo(x.dtype).tiny)
    return Similarity(factor, rotation, centre_y - factor * rotation @ centre_x)


def align_trajectories(prediction: Tensor, truth: Tensor, mode: Alignment = "7dof") -> Tensor:
    """Lay a predicted trajectory over the true one.

    Args:
        prediction: `(n, 4, 4)`, poses of the camera in any world.
        truth: `(n, 4, 4)`.
        mode: `"scale"`: both start from the same pose, and one scale is fitted; `"6dof"`: rotation
            and translation are fitted to all positions; `"7dof"`: and the scale.

    Returns:
        `(n, 4, 4)` float64, the prediction in the world of the truth.

    Raises:
        ValueError: the mode is unknown, or the poses are not n each.
    """
    check_poses(prediction, truth)
    truth = truth.double()
    if mode == "scale":
        moved = relative_to_first(prediction)
        moved[:, :3, 3] *= best_scale(moved[:, :3, 3], relative_to_first(truth)[:, :3, 3])
        return truth[:1] @ moved
    if mode not in ("6dof", "7dof"):
        raise ValueError(f'mode must be "scale", "6dof" or "7dof", got {mode!r}')
    moved = prediction.double()
    fit = umeyama(moved[:, :3, 3], truth[:, :3, 3], scale=mode == "7dof")
    top = torch.cat(
        [
            fit.rotation @ moved[:, :3, :3],
            fit.scale * fit.rotation @ moved[:, :3, 3:] + fit.translation[:, None],
        ],
        -1,
    )
    return torch.cat([top, moved[:, 3:]], -2)


def kitti_errors(
    prediction: Tensor,
    truth: Tensor,
    lengths: Sequence[float] = (100, 200, 300, 400, 500, 600, 700, 800),
    step: int = 10,
) -> tuple[Tensor, Tensor]:
    """Drift over stretches of the true path, as KITTI's odometry benchmark measures it.

    Geiger et al., "Are we ready for autonomous driving?", CVPR 2012. A stretch begins at every
    `step`-th frame and ends at the first one that is farther than its length along the path. What
    is left of its motion, inv(predicted) true, is divided by the length. Nothing is aligned here:
    the worlds need not agree, but the scales must.

    Args:
        prediction, truth: `(n, 4, 4)`, poses of the camera.
        lengths: metres.
        step: frames between two beginnings.

    Returns:
        t_rel in per cent and r_rel in degrees per 100 m: means over all stretches, NaN where the
        path is too short for any.
    """
    check_poses(prediction, truth)
    prediction, truth = prediction.double(), truth.double()
    hops = torch.linalg.vector_norm(truth[:, :3, 3].diff(dim=0), dim=-1)
    path = torch.cat([hops.new_zeros(1), hops.cumsum(0)])[: len(truth)]  # (n,) metres from start
    first = torch.arange(0, len(path), step, device=path.device)
    length = path.new_tensor(lengths)
    ends = path[first, None] + length
    last = torch.searchsorted(path, ends, right=True)  # (starts, lengths)
    whole = last < len(path)
    first, last = first[:, None].expand_as(last)[whole], last[whole]
    length = length.expand_as(whole)[whole]
    left = invert(_moved(prediction, first, last)) @ _moved(truth, first, last)
    t_rel = torch.linalg.vector_norm(left[:, :3, 3], dim=-1) / length
    r_rel = rotation_angle(left[:, :3, :3]) / length
    return 100 * t_rel.mean(), 100 * r_rel.mean().rad2deg()


def check_poses(poses: Tensor, others: Tensor | None = None) -> None:
    """Complain about what is not `(..., n, 4, 4)`, and about two shapes that should be one."""
    if poses.ndim < 3 or poses.shape[-2:] != (4, 4):
        raise ValueError(f"expected poses or motions (..., n, 4, 4), got {tuple(poses.shape)}")
    if others is not None and others.shape != poses.shape:
        raise ValueError(
            f"expected as many true as predicted poses, got {tuple(others.shape)} and "
            f"{tuple(poses.shape)}"
        )


def _moved(poses: Tensor, first: Tensor, last: Tensor) -> Tensor:
    return invert(poses[first]) @ poses[last]


def _nearest_rotation(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The rotation R with the greatest tr(R^T matrix), and the signed singular values `(3,)`."""
    u, singular, vh = torch.linalg.svd(matrix)
    sign = torch.ones_like(singular)
    sign[2] = torch.det(u @ vh).sign()
    return u * sign @ vh, singular * sign
