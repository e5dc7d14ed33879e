"""Maps that know nothing of the network. Every table of methods must include them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.method import Attribution


@dataclass(frozen=True)
class RandomMap(Attribution):
    """Uniform noise in [0, 1) for every voxel; clips of one batch get different noise.

    Args:
        seed: of the method's own generator.
    """

    title = "Random"
    baseline = True

    seed: int = 0

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.rand((clip.shape[0], *clip.shape[2:]), generator=generator)
        return noise.to(clip.device)


@dataclass(frozen=True)
class CentreMap(Attribution):
    """A Gaussian at the centre of every frame, constant in time: the photographer's bias.

    Args:
        sigma: standard deviation in units of the frame's height and width.
    """

    title = "Centre"
    baseline = True

    sigma: float = 0.25

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        batch, _, frames, height, width = clip.shape

        def profile(n: int) -> Tensor:
            offset = torch.arange(n, device=clip.device) - (n - 1) / 2
            return torch.exp(-0.5 * (offset / (self.sigma * n)) ** 2)

        frame = profile(height)[:, None] * profile(width)
        return frame.expand(batch, frames, height, width).clone()
