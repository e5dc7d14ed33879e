"""SfMLearner: depth and the camera's motion from video alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cam.errors import ConfigError
from lightning_cam.interfaces import CountsSources, ExplainsLayers, check_part, is_offered
from lightning_cam.models.pose_nets import check_snippet


class Views(NamedTuple):
    """What `SfMLearner` makes of R targets and their N sources.

    Attributes:
        disparities: four of `(R, 1, h, w)`, the finest first.
        poses: `(R, N, 6)`, pose vectors of the motions target -> source.
        masks: four of `(R, N, h, w)`, or None.
        source_disparities: four of `(R, N, 1, h, w)`, where they were asked for.
    """

    disparities: list[Tensor]
    poses: Tensor
    masks: list[Tensor] | None
    source_disparities: list[Tensor] | None = None


class SfMLearner(nn.Module):
    """A network for depth and one for motion, side by side (Zhou et al., CVPR 2017).

    A clip of T frames holds S = T - 2m targets, the frames with m neighbours on both sides, where
    n = 2m + 1 is the length of a snippet. Both networks see all of them folded into the batch,
    batch-major: R = B*S rows.

    Args:
        depth: image -> disparities, see `depth_nets`.
        pose: (target, sources) -> poses and masks, see `pose_nets`.
        snippet: n, frames of a snippet.
    """

    def __init__(self, depth: nn.Module, pose: nn.Module, snippet: int = 3) -> None:
        super().__init__()
        self.margin = check_snippet(snippet) // 2
        parts = {"depth": depth, "pose": pose}
        for part in parts.values():
            check_part(part)
        if is_offered(pose, CountsSources) and pose.sources != snippet - 1:
            raise ConfigError(
                f"snippet={snippet}, but the network for motion takes {pose.sources + 1} frames"
            )
        self.depth = depth
        self.pose = pose
        self.snippet = snippet
        self.explain_layers = tuple(
            f"{name}.{layer}"
            for name, part in parts.items()
            if is_offered(part, ExplainsLayers)
            for layer in part.explain_layers
        )

    def forward(self, clip: Tensor, source_depth: bool = False) -> Views:
        """Depth and motion of all targets of clips (B, 3, T, H, W).

        Args:
            clip: in model space.
            source_depth: also the sources' disparities. All frames then pass the network for depth,
                the targets last.

        Raises:
            ConfigError: the clips are shorter than a snippet.
        """
        target, sources = self.snippets(clip)
        poses, masks = self.pose(target, sources)
        if not source_depth:
            return Views(self.depth(target), poses, masks)
        m, steps = self.margin, clip.shape[2]
        ends = torch.cat([clip[:, :, :m], clip[:, :, steps - m :]], 2)  # (B, 3, 2m, H, W)
        outer = self.depth(ends.transpose(1, 2).flatten(0, 1))
        inner = self.depth(target)
        around = []
        for coarse, fine in zip(outer, inner, strict=True):
            rim, middle = (d.unflatten(0, (len(clip), -1)) for d in (coarse, fine))
            frames = torch.cat([rim[:, :m], middle, rim[:, m:]], 1)  # (B, T, 1, h, w)
            windows = frames.unfold(1, self.snippet, 1).movedim(-1, 2)  # (B, S, n, 1, h, w)
            around.append(self._sources(windows.flatten(0, 1)))
        return Views(inner, poses, masks, around)

    def snippets(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """The targets (R, 3, H, W) of clips (B, 3, T, H, W), and their sources (R, N, 3, H, W)."""
        if clip.shape[2] < self.snippet:
            raise ConfigError(
                f"a clip of {clip.shape[2]} frames is shorter than a snippet of {self.snippet}; "
                "set data.eval_frames higher"
            )
        windows = clip.unfold(2, self.snippet, 1)  # (B, 3, S, H, W, n)
        windows = windows.permute(0, 2, 5, 1, 3, 4).flatten(0, 1)  # (R, n, 3, H, W)
        return windows[:, self.margin], self._sources(windows)

    def _sources(self, windows: Tensor) -> Tensor:
        """All of (R, n, ...) but the one in the middle."""
        m = self.margin
        return torch.cat([windows[:, :m], windows[:, m + 1 :]], 1)

    def explain_fold(self, activation: Tensor, batch: int) -> Tensor:
        """An activation (R, D, h, w) on the frames it belongs to, (B, D, T, h, w).

        Both networks' maps lie on the target: 0 on the first and last m frames, which are none.
        (What the network for motion sees of the sources comes from the same places.)
        """
        if activation.ndim != 4 or activation.shape[0] % batch:
            raise ValueError(
                f"expected an activation (R, D, h, w) of B={batch} clips, got "
                f"{tuple(activation.shape)}; choose a layer that still has height and width"
            )
        folded = activation.unflatten(0, (batch, -1)).transpose(1, 2)  # (B, D, S, h, w)
        return F.pad(folded, (0, 0, 0, 0, self.margin, self.margin))
