"""Drives past a textured plane, whose depth, motion and images are known exactly."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cam.geometry import invert, pixel_grid, pose_matrix
from lightning_cam.models import DispNet, PoseNet, SfMLearner

# From frame to frame, more or less of it: ahead, sideways, a little of a turn.
STEP = (0.25, -0.12, 0.2, 0.004, 0.01, -0.006)


class Drive(NamedTuple):
    """T frames of one drive, float64.

    Attributes:
        images: `(3, T, H, W)` in [-1, 1].
        depth: `(T, H, W)`.
        poses: `(T, 4, 4)`, camera to world, the first is the identity.
        intrinsics: `(3, 3)`.
    """

    images: Tensor
    depth: Tensor
    poses: Tensor
    intrinsics: Tensor


def drive(frames: int = 5, height: int = 32, width: int = 64, tilt: float = 0.1) -> Drive:
    """Past the plane z + tilt (x + 2 y) = 6, with waves of some ten pixels on it."""
    camera = torch.tensor(
        [[0.8 * width, 0, (width - 1) / 2], [0, 0.9 * width, (height - 1) / 2], [0, 0, 1]],
        dtype=torch.float64,
    )
    poses = [torch.eye(4, dtype=torch.float64)]
    for t in range(frames - 1):
        step = torch.tensor(STEP, dtype=torch.float64) * (1 + 0.3 * math.cos(2 * t))
        poses.append(poses[-1] @ pose_matrix(step))
    stack = torch.stack(poses)
    rays = torch.linalg.inv(camera) @ pixel_grid(height, width, camera)  # (3, H*W)
    normal = torch.tensor([tilt, 2 * tilt, 1.0], dtype=torch.float64)
    at, turned = stack[:, :3, 3], stack[:, :3, :3] @ rays  # (T, 3), (T, 3, H*W)
    depth = (6 - at @ normal)[:, None] / (normal @ turned)  # (T, H*W)
    x, y, _ = (at[:, :, None] + depth[:, None] * turned).unbind(1)
    waves = [(3 * x + y).sin(), (3 * y - x).cos(), (2 * x).sin() * (2 * y + 1).sin()]
    images = torch.stack(waves).unflatten(-1, (height, width))
    return Drive(0.9 * images, depth.unflatten(-1, (height, width)), stack, camera)


def motions(poses: Tensor, snippet: int = 3) -> Tensor:
    """T_{target->source} of all targets of poses `(T, 4, 4)`, `(S, N, 4, 4)`."""
    m = snippet // 2
    return torch.stack(
        [
            torch.stack([invert(poses[s]) @ poses[t] for s in range(t - m, t + m + 1) if s != t])
            for t in range(m, len(poses) - m)
        ]
    )


def batch_of(*drives: Drive, **more: Any) -> dict[str, Any]:
    """Drives of one size as the batch of a data module whose mean and std are 0.5."""
    count, frames = len(drives), len(drives[0].poses)
    relative = [invert(d.poses[:1]) @ d.poses for d in drives]
    return {
        "video": torch.stack([d.images for d in drives]).float(),
        "valid": torch.ones(count, frames, dtype=torch.bool),
        "intrinsics": torch.stack([d.intrinsics for d in drives]).float(),
        "poses": torch.stack(relative).float(),
        "depth": [d.depth.float().numpy() for d in drives],
        "frame_idx": torch.arange(frames).repeat(count, 1),
        "time_s": torch.arange(frames).repeat(count, 1) / 10,
        "black": torch.full((count, 3), -1.0),
        "sequence": [f"{n:02d}" for n in range(count)],
        "clip_id": [f"clip {n}" for n in range(count)],
        "path": [f"{n:02d}" for n in range(count)],
        "error": [""] * count,
        **more,
    }


def network(
    snippet: int = 3, masks: bool = False, depth: int = 8, pose: int = 4, seed: int = 0
) -> SfMLearner:
    """The published networks with few channels, whose motions one can see and tell apart."""
    torch.manual_seed(seed)
    net = SfMLearner(DispNet(depth), PoseNet(snippet, pose, masks), snippet)
    with torch.no_grad():
        net.pose.pose.bias.uniform_(-3, 3)  # of which a hundredth is the pose
        net.pose.pose.weight.mul_(50)
    return net


class KnownDepth(nn.Module):
    """Answers with disparities of given depths `(R, H, W)`, the coarser ones averaged."""

    def __init__(self, depth: Tensor, factor: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.disparity = 1 / (factor * depth.float())[:, None]

    def forward(self, _: Tensor) -> list[Tensor]:
        scales = [F.avg_pool2d(self.disparity, 2**s) if s else self.disparity for s in range(4)]
        return [self.weight * d for d in scales]


class KnownPose(nn.Module):
    """Answers with given pose vectors `(R, N, 6)`."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.sources = vectors.shape[1]
        self.vectors = vectors.float()

    def forward(self, *_: Tensor) -> tuple[Tensor, None]:
        return self.vectors, None
