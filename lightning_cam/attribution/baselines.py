"""Maps that know nothing of the network. Every table of methods must include them.

A map is worth what it adds to them: noise of its own grain (`RandomMap(cells=explanation.grain)`),
the centre, motion and edges, which the clip shows without any network. `TruthMap`, the ground truth
itself, is what a measure can find at all.

**Why of its own grain.** Hiding scattered voxels destroys a clip for most networks, whatever they
look at: in the published curves of Li et al. (TCSVT 2021; R(2+1)D, 910 clips of UCF101-24) random
noise has a deletion area of .204 and Grad-CAM one of .280, though lower is better, while by
insertion noise has .206 and Grad-CAM .756.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.fields import Cells, Positive, Seed, ZeroOrMore
from lightning_cam.attribution.method import Attribution, Cost, at_most
from lightning_cam.attribution.perturbation import blurred
from lightning_cam.attribution.tensors import at_least_float32
from lightning_cam.errors import UserError

Mode = Literal["smooth", "block"]


class Baseline(Attribution):
    """A map that knows nothing of the network, which runs only to tell the column."""

    baseline = True

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(1)


@dataclass(frozen=True)
class RandomMap(Baseline):
    """Uniform noise in [0, 1) for every voxel or cell; clips of one batch get different noise.

    Args:
        seed: of the method's own generator.
        cells: of the grid that is drawn, (time, height, width), at most the clip's voxels; None:
            every voxel by itself.
        mode: how the grid becomes a map: `"smooth"`, trilinear as other methods' maps are resized,
            or `"block"`, each cell of one value.

    Example:
        >>> e = explain(model, GradCAM(), clip)
        >>> explain(model, RandomMap(cells=e.grain), clip).heatmap  # what to compare it with
    """

    title = "Random"

    seed: Seed = 0
    cells: Cells | None = None
    mode: Mode = "smooth"

    def grain(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        return size if self.cells is None else at_most(self.cells, size)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        t, h, w = clip.shape[2:]
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.rand((len(clip), *self.grain((t, h, w))), generator=generator)
        noise = noise.to(clip.device)
        if self.cells is None:
            return noise
        model.notes.update(cells="x".join(map(str, noise.shape[1:])) + " cells")
        if self.mode == "smooth":
            return model.resized(noise, clip)
        return F.interpolate(noise[:, None], size=(t, h, w), mode="nearest-exact")[:, 0]


@dataclass(frozen=True)
class CentreMap(Baseline):
    """A Gaussian at the centre of every frame, constant in time: the photographer's bias.

    Args:
        sigma: standard deviation in units of the frame's height and width.
    """

    title = "Centre"

    sigma: Positive = 0.25

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        batch, _, frames, height, width = clip.shape

        def profile(n: int) -> Tensor:
            offset = torch.arange(n, device=clip.device) - (n - 1) / 2
            return torch.exp(-0.5 * (offset / (self.sigma * n)) ** 2)

        frame = profile(height)[:, None] * profile(width)
        return frame.expand(batch, frames, height, width).clone()


@dataclass(frozen=True)
class BlurredMap(Baseline):
    """A map of the clip's own pixels, blurred where asked for.

    Args:
        blur: standard deviation of a Gaussian on each frame, as a share of the shorter side (1/28:
            4 pixels of 112); 0: none.
    """

    blur: ZeroOrMore = 0

    @property
    def grainy(self) -> bool:
        """Whether single voxels stand out of the map."""
        return not self.blur

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        return _soft(self.sharp(at_least_float32(clip)), self.blur)

    @abstractmethod
    def sharp(self, clip: Tensor) -> Tensor:
        """The map `(B, T, H, W)` of clips `(B, C, T, H, W)` before it is blurred."""


@dataclass(frozen=True)
class MotionMap(BlurredMap):
    """How much each voxel changes from one frame to the next: sum_c |x_t - x_{t-1}|.

    In model space, as the network sees it. The first frame has the map of the second; a clip of one
    frame has 0.

    Args:
        blur: as of `BlurredMap`.
    """

    title = "Motion"

    def sharp(self, clip: Tensor) -> Tensor:
        change = clip.diff(dim=2).abs().sum(1)  # (B, T-1, H, W)
        first = change[:, :1] if change.shape[1] else torch.zeros_like(clip[:, 0])
        return torch.cat([first, change], 1)


@dataclass(frozen=True)
class EdgeMap(BlurredMap):
    """How strong the edges of each frame are: sum_c |gradient of x_c| by Sobel's filter.

    What guided backpropagation is suspected of showing (Adebayo et al., NeurIPS 2018).

    Args:
        blur: as of `BlurredMap`.
    """

    title = "Edges"

    def sharp(self, clip: Tensor) -> Tensor:
        x = F.pad(clip, (1, 1, 1, 1, 0, 0), mode="replicate")
        rows = (x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]) / 4
        columns = (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 4
        across = (rows[..., 2:] - rows[..., :-2]) / 2
        down = (columns[..., 2:, :] - columns[..., :-2, :]) / 2
        return torch.hypot(across, down).sum(1)


@dataclass(frozen=True)
class TruthMap(Baseline):
    """The ground truth as a map: above 1/2 within its mask, falling from 1/2 to 0 around it.

    The mean of the mask and of the blurred mask: the middle of the evidence comes first, and no
    voxel outside before one inside. Clips without ground truth have 0.

    Args:
        blur: standard deviation of the Gaussian on each frame, as a share of the shorter side; 0:
            the mask itself.

    Example:
        >>> model = replace(model, truth=mask)  # (B, T, H, W) bool; of a task's batch it is bound
        >>> explain(model, TruthMap(), clip).heatmap
    """

    title = "Ground truth"

    blur: ZeroOrMore = 1 / 16

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        if model.truth is None or not bool(model.truth.any()):
            raise UserError(
                "the ground truth of these clips is not known, so there is no map of it; take "
                "data with masks, such as data=synthetic, or leave out explain=truth (in Python: "
                "Explainable.truth is a mask (B, T, H, W))"
            )
        mask = model.truth.to(clip.device, at_least_float32(clip).dtype)
        return (mask + _soft(mask, self.blur)) / 2


def _soft(heat: Tensor, blur: float) -> Tensor:
    """A map `(B, T, H, W)` under a Gaussian, of a share of the shorter side."""
    return blurred(heat, blur * min(heat.shape[2:])) if blur else heat
