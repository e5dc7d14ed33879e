"""The loss of a depth and a motion network that have no labels: one frame seen from another.

Zhou et al., "Unsupervised Learning of Depth and Ego-Motion from Video", CVPR 2017, with what later
work changed as options: SSIM, minimum reprojection, auto-masking, full resolution and edge-aware
smoothness (Godard et al., "Digging Into Self-Supervised Monocular Depth Estimation", ICCV 2019),
and geometry consistency (Bian et al., NeurIPS 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cam.errors import ConfigError
from lightning_cam.geometry import (
    Rotation,
    Warped,
    edge_smoothness,
    inverse_warp,
    pose_matrix,
    resize_intrinsics,
    smoothness,
    ssim,
)
from lightning_cam.models.sfm import Views

_TIE = 1e-5  # errors that differ by less are the same
_SMOOTH_STEP = {"depth": 2.3, "disparity": 2.0, "edges": 2.0}  # by which coarser scales count less


class Snippets(NamedTuple):
    """The images by which views are judged.

    Attributes:
        target: `(R, 3, H, W)` in [-1, 1].
        sources: `(R, N, 3, H, W)` in [-1, 1].
        intrinsics: `(R, 3, 3)` of both.
    """

    target: Tensor
    sources: Tensor
    intrinsics: Tensor


class Losses(NamedTuple):
    """The terms for each target, `(R,)`; `photometric` is that of each source, `(R, N)`.

    With minimum reprojection each pixel's error counts for the source that explains it best, so
    here as well, the sum over sources is `view_synthesis`.
    """

    total: Tensor
    view_synthesis: Tensor
    photometric: Tensor
    mask: Tensor
    smooth: Tensor
    geometry: Tensor


@dataclass(frozen=True)
class ViewSynthesis:
    """The loss and its options. Called with what the network makes of targets, and their snippets.

        total = view_synthesis + mask_weight * mask + smooth_weight * smooth
                + geometry_weight * geometry

    `view_synthesis` is the sum over scales and sources of the mean error |I_t - I_s(warped)|, in
    units of images in [-1, 1], of pixels that the source shows (others count as 0), times the
    explainability mask where there is one. `mask` is the cross entropy of the masks with 1, without
    which they would be 0. `smooth` is the sum over scales of second differences, see `smooth`.

    Args:
        mask_weight: 0.2 with masks in the authors' paper; where the network has no masks it is 0.
        smooth_weight: 0.1 of depth in the PyTorch port, 0.5 of disparity in the authors' code.
        smooth: "depth" or "disparity": second differences, weighted by 2.3^-s or 2^-s at scale s;
            "edges": first differences of the disparity, cheap across edges, by 2^-s.
        rotation: of pose vectors, "euler" or "quat".
        ssim: share of the SSIM term in the error, 0.85 in monodepth2, which has images in [0, 1].
        min_reprojection: each pixel's error is that of the source that explains it best, instead of
            the sum over sources.
        auto_mask: a pixel that the unwarped source explains at least as well counts with that
            error, and so has no gradient.
        full_resolution: coarse disparities are judged at full size.
        geometry_weight: of the disagreement of target and source depth, 0.5 in SC-SfMLearner, where
            1 minus it also weighs the errors. 0: the sources' depth is not computed.
        padding: what is seen outside of a source, "zeros" or "border"; it never counts, but SSIM's
            windows reach one pixel into it.

    Raises:
        ConfigError: options that contradict each other or make no sense.
    """

    mask_weight: float = 0.2
    smooth_weight: float = 0.1
    smooth: Literal["depth", "disparity", "edges"] = "depth"
    rotation: Rotation = "euler"
    ssim: float = 0.0
    min_reprojection: bool = False
    auto_mask: bool = False
    full_resolution: bool = False
    geometry_weight: float = 0.0
    padding: Literal["zeros", "border"] = "zeros"

    def __post_init__(self) -> None:
        for name, known in (
            ("smooth", tuple(_SMOOTH_STEP)),
            ("rotation", ("euler", "quat")),
            ("padding", ("zeros", "border")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}={getattr(self, name)} must be one of {', '.join(known)}")
        for name in ("mask_weight", "smooth_weight", "geometry_weight"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be 0 or more")
        if not 0 <= self.ssim <= 1:
            raise ConfigError(f"ssim={self.ssim} must lie between 0 and 1")

    def __call__(self, views: Views, snippets: Snippets) -> Losses:
        """The terms for each of R targets.

        Raises:
            ConfigError: explainability masks with minimum reprojection: a mask of 0 would explain
                every pixel; or a weight of the geometry without the sources' disparities.
        """
        if views.masks is not None and self.min_reprojection:
            raise ConfigError(
                "task.loss.min_reprojection=true cannot go with a network that has masks"
            )
        if self.geometry_weight and views.source_disparities is None:
            raise ConfigError(
                f"geometry_weight={self.geometry_weight} needs the sources' depth: call "
                "network(clip, source_depth=True)"
            )
        motions = pose_matrix(views.poses, self.rotation)  # (R, N, 4, 4)
        zero = views.poses.new_zeros(len(views.poses))
        photometric, mask, smooth, geometry = [], [zero], [], [zero]
        for s, disparity in enumerate(views.disparities):
            judged = disparity
            if self.full_resolution:
                size = snippets.target.shape[-2:]
                judged = F.interpolate(disparity, size, mode="bilinear", align_corners=False)
            near = resize_snippets(snippets, judged.shape[-2:])
            error, valid, apart = self._errors(views, near, judged, motions, s)
            error, counted = self._counted(error, valid, near)
            if views.masks is not None:
                explained = views.masks[s]
                if self.full_resolution:
                    explained = F.interpolate(explained, near.target.shape[-2:], mode="bilinear")
                error = error * explained
                mask.append(_binary(views.masks[s]))
            if apart is not None:
                error = error * (1 - apart.detach())  # no reward for depths that disagree
                geometry.append(_share(apart, valid))
            photometric.append(error.masked_fill(~counted, 0).mean((2, 3)))
            smooth.append(self._smooth(disparity, near, s))
        each = torch.stack(photometric).sum(0)  # (R, N)
        terms = (
            each.sum(1),
            each,
            torch.stack(mask).sum(0),
            torch.stack(smooth).sum(0),
            torch.stack(geometry).sum(0),
        )
        total = (
            terms[0]
            + self.mask_weight * terms[2]
            + self.smooth_weight * terms[3]
            + self.geometry_weight * terms[4]
        )
        return Losses(total, *terms)

    def _errors(
        self, views: Views, snippets: Snippets, disparity: Tensor, motions: Tensor, scale: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Errors and validity (R, N, h, w), and where asked for how far the depths are apart."""
        depth = 1 / disparity[:, 0]
        warps = warp_sources(snippets, depth, motions, self.padding)
        valid = torch.stack([warp.valid for warp in warps], 1)
        errors = [self.error(snippets.target, warp.image) for warp in warps]
        if not self.geometry_weight or views.source_disparities is None:
            return torch.stack(errors, 1), valid, None
        apart = []
        for n, warp in enumerate(warps):
            other = views.source_disparities[scale][:, n]
            if other.shape[-2:] != disparity.shape[-2:]:
                other = F.interpolate(other, disparity.shape[-2:], mode="bilinear")
            seen = F.grid_sample(1 / other, warp.grid, padding_mode="border", align_corners=True)
            expected = warp.depth.clamp(min=1e-3)
            apart.append((expected - seen[:, 0]).abs() / (expected + seen[:, 0]))
        return torch.stack(errors, 1), valid, torch.stack(apart, 1)

    def error(self, target: Tensor, other: Tensor) -> Tensor:
        """How much two images (R, 3, h, w) in [-1, 1] differ at each pixel, (R, h, w)."""
        if not self.ssim:
            return (target - other).abs().mean(1)
        target, other = (target + 1) / 2, (other + 1) / 2
        apart = ((1 - ssim(target, other)) / 2).clamp(0, 1)
        return (self.ssim * apart + (1 - self.ssim) * (target - other).abs()).mean(1)

    def _counted(self, error: Tensor, valid: Tensor, snippets: Snippets) -> tuple[Tensor, Tensor]:
        """Errors (R, N, h, w) as they count, and where they do.

        Before any weight: a weight near 0 is not a reason to prefer a source.
        """
        still = None
        if self.auto_mask:
            plain = [self.error(snippets.target, source) for source in snippets.sources.unbind(1)]
            still = torch.stack(plain, 1).detach()
        if self.min_reprojection:
            seen = error.detach().masked_fill(~valid, torch.inf)
            best = seen.argmin(1, keepdim=True)
            valid = valid & torch.zeros_like(valid).scatter_(1, best, value=True)
            if still is not None:
                still = still.amin(1, keepdim=True).expand_as(error)
        if still is not None:
            # Out of the gradient, but not out of the loss: else the worst motion, which leaves out
            # everything, had the lowest. A warp as good as none is none, whatever the rounding.
            error = torch.where(error.detach() + _TIE < still, error, still)
        return error, valid

    def _smooth(self, disparity: Tensor, snippets: Snippets, scale: int) -> Tensor:
        if self.smooth == "edges":
            image = (F.interpolate(snippets.target, disparity.shape[-2:], mode="area") + 1) / 2
            term = edge_smoothness(disparity[:, 0], image)
        else:
            term = smoothness(1 / disparity[:, 0] if self.smooth == "depth" else disparity[:, 0])
        return term / _SMOOTH_STEP[self.smooth] ** scale


def resize_snippets(snippets: Snippets, size: torch.Size | tuple[int, int]) -> Snippets:
    """The snippets in images of another size, by averaging, with its intrinsics."""
    old = snippets.target.shape[-2:]
    if tuple(size) == tuple(old):
        return snippets
    sources = snippets.sources.flatten(0, 1)
    return Snippets(
        F.interpolate(snippets.target, size, mode="area"),
        F.interpolate(sources, size, mode="area").unflatten(0, snippets.sources.shape[:2]),
        resize_intrinsics(snippets.intrinsics, (old[0], old[1]), (size[0], size[1])),
    )


def warp_sources(
    snippets: Snippets,
    depth: Tensor,
    motions: Tensor,
    padding: Literal["zeros", "border"] = "zeros",
) -> list[Warped]:
    """Each source as seen from the target.

    Args:
        snippets: of R targets with N sources.
        depth: `(R, h, w)` of the targets, in the size of the snippets.
        motions: `(R, N, 4, 4)`, target -> source.
        padding: see `inverse_warp`.
    """
    return [
        inverse_warp(source, depth, motion, snippets.intrinsics, padding)
        for source, motion in zip(snippets.sources.unbind(1), motions.unbind(1), strict=True)
    ]


def _binary(mask: Tensor) -> Tensor:
    """Cross entropy of masks (R, N, h, w) with 1, (R,)."""
    ones = torch.ones_like(mask)
    return F.binary_cross_entropy(mask, ones, reduction="none").mean((1, 2, 3))


def _share(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of what is valid of (R, N, h, w), (R,)."""
    return (values * valid).sum((1, 2, 3)) / valid.sum((1, 2, 3)).clamp(min=1)
