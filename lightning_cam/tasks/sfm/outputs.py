"""What of depth and motion can be explained: named numbers of each target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cam.models.sfm import Views
from lightning_cam.tasks.sfm.view_synthesis import Losses

POSE = ("tx", "ty", "tz", "rx", "ry", "rz")


def column_names(sources: int) -> tuple[str, ...]:
    """The names of the columns, for targets of so many sources.

    Negative losses (to be explained as what holds them down), the pose vector of the motion from
    the target to the next frame, and mean depths: of the picture, and of a box.
    """
    return (
        "-view_synthesis_loss",
        *(f"-photometric/source_{n}" for n in range(sources)),
        "-loss",
        *(f"pose/{name}" for name in POSE),
        "depth/mean",
        "depth/box",
    )


def column_values(views: Views, losses: Losses, box: Sequence[float]) -> Tensor:
    """The columns of R targets, `(R, K)` float32.

    Args:
        views: of the targets.
        losses: of them.
        box: [top, left, bottom, right] in shares of the picture.
    """
    depth = 1 / views.disparities[0][:, 0].float()  # (R, H, W)
    height, width = depth.shape[1:]
    top, left, bottom, right = (
        round(share * size) for share, size in zip(box, (height, width) * 2, strict=True)
    )
    inside = depth[:, top : max(bottom, top + 1), left : max(right, left + 1)]
    poses = views.poses.float()
    pose = poses[:, poses.shape[1] // 2]  # the first source after the target
    parts = [
        -losses.view_synthesis[:, None],
        -losses.photometric,
        -losses.total[:, None],
        pose,
        depth.mean((1, 2))[:, None],
        inside.mean((1, 2))[:, None],
    ]
    return torch.cat(parts, 1)
