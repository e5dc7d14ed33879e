"""Does a map stay as it is where the clip hardly changes? Max-sensitivity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.fields import Count, Positive, Seed
from lightning_cam.attribution.method import Attribution
from lightning_cam.metrics.explained import Direction, Explained, Measure
from lightning_cam.metrics.explaining_again import TooManyForwardsError, map_again, say_left_out


def max_sensitivity(
    model: Explainable,
    method: Attribution,
    clip: Tensor,
    target: Tensor,
    heatmap: Tensor | None = None,
    *,
    samples: int = 5,
    radius: float = 0.02,
    seed: int = 0,
    limit: int | None = None,
) -> Tensor:
    """Max-sensitivity (Yeh et al., NeurIPS 2019): max over d of |h(x + d) - h(x)| / |h(x)|.

    The noise d is uniform within `radius` of a clip's range in each voxel of a valid frame, the
    same for all clips; norms are Euclidean. A method that draws its own numbers draws the same each
    time, by its seed. Costs `samples` maps, and one more without `heatmap`.

    Args:
        model: see `explain`.
        method: makes the maps.
        clip: `(B, C, T, H, W)` in model space.
        target: `(B,)`, the columns, the same for all maps.
        heatmap: `(B, T, H, W)`, the method's map of the clip; None: it is made.
        samples: how many d.
        radius: of the noise, a share of the clip's range.
        seed: of the noise.
        limit: forwards a map may take; None: any number.

    Returns:
        `(B,)`, 0 is best; NaN for maps without heat or that are not finite.

    Raises:
        TooManyForwardsError: the method takes more.
    """
    if heatmap is None:
        heatmap = map_again(model, method, clip, target, limit)
    valid = model.without_padding(torch.ones_like(clip[:, 0]))[:, None] > 0
    dims = (1, 2, 3, 4)
    high = clip.masked_fill(~valid, -torch.inf).amax(dims, keepdim=True)
    reach = radius * (high - clip.masked_fill(~valid, torch.inf).amin(dims, keepdim=True))
    generator = torch.Generator().manual_seed(seed)
    norm = torch.linalg.vector_norm(heatmap.flatten(1).double(), dim=1)
    most = torch.zeros_like(norm)
    for _ in range(samples):
        noise = 2 * torch.rand(clip.shape[1:], generator=generator) - 1
        near = clip + reach * noise.to(clip) * valid
        change = (map_again(model, method, near, target, limit) - heatmap).flatten(1).double()
        most = torch.maximum(most, torch.linalg.vector_norm(change, dim=1))
    found = most / torch.where(norm > 0, norm, torch.nan)
    return found.where(found.isfinite(), torch.nan).float()


@dataclass(frozen=True)
class MaxSensitivity(Measure):
    """How much a map changes at most with a little noise, see `max_sensitivity`. Lower is better.

    Args:
        samples: how many noisy clips, each explained again.
        radius: of the noise, a share of the clip's range.
        seed: of the noise.
        limit: forwards a map may take: a method that takes more has no value, and a warning says
            so. None: any number.
    """

    samples: Count = 5
    radius: Positive = 0.02
    seed: Seed = 0
    limit: Count | None = 50

    title = "Max-sensitivity"
    better: ClassVar[Direction] = "lower"
    needs = frozenset({"model", "clip", "map"})

    @property
    def settings(self) -> str:
        return f"{self.samples} samples, radius {self.radius:g}"

    def __call__(self, explained: Explained) -> Tensor:
        e = explained.explanation
        try:
            return max_sensitivity(
                explained.model,
                e.method,
                explained.clip,
                e.target,
                e.heatmap,
                samples=self.samples,
                radius=self.radius,
                seed=self.seed,
                limit=self.limit,
            )
        except TooManyForwardsError:
            say_left_out(e.method, self.limit, "max_sensitivity")
            return torch.full((len(explained.clip),), torch.nan)
