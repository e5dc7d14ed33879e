"""A layer's features as masks: what SIDU and Score-CAM share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lightning_cam.attribution.calls import in_time, on_frames
from lightning_cam.attribution.checks import ready
from lightning_cam.attribution.explainable import Explainable, Forward
from lightning_cam.attribution.gradcam import map_calls
from lightning_cam.attribution.guard import capture
from lightning_cam.attribution.method import Cost, LayerAttribution
from lightning_cam.attribution.perturbation import PerturbationAttribution, black
from lightning_cam.attribution.tensors import at_least_float32, resize_heatmap
from lightning_cam.progress import progress


class FeatureMaskAttribution(LayerAttribution, PerturbationAttribution):
    """A method that shows the network what a layer's features leave of the clip."""

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        with ready(replace(model, notes={}, first_run=None), clip) as (quiet, shown):
            masks = [self.masks_of(of_clip) for of_clip in self.features(quiet, shown)]
        return Cost(1 + max(map(len, masks)))

    @abstractmethod
    def masks_of(self, features: Tensor) -> Tensor:
        """The different masks `(M, t, h, w)` of one clip's features `(D, t, h, w)`."""

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        name, layer = model.layer(self.layer)
        with capture(layer) as calls:
            outputs = self.runner(model, clip).forward(clip)
        model.notes.update(layer=name)
        return Forward(outputs, {"layer": map_calls(model, name, calls, clip)})

    def features(self, model: Explainable, clip: Tensor) -> Tensor:
        """The layer's features of the clip, `(B, D, t, h, w)`."""
        calls = self.first(model, clip).captured["layer"]
        return on_frames(model, in_time(model, calls, len(clip), self.layer), self.layer)

    def under(
        self, model: Explainable, clip: Tensor, masks: Sequence[Tensor], *, stretched: bool
    ) -> Tensor:
        """Outputs `(M, B, K)` of the clips under masks; what they hide is black.

        Args:
            model: what to ask.
            clip: `(B, C, T, H, W)`.
            masks: of each clip `(m, t, h, w)`, from 1 on; they are resized to the clip. M is the
                most that a clip has: others' last masks are repeated.
            stretched: let each mask, resized, go from 0 to 1.
        """
        hidden, most = black(model, clip), max(map(len, masks))
        seen = clip - hidden
        with progress(self.title, most) as advance:

            def fill(rows: Tensor, start: int) -> None:
                for i, row in enumerate(rows, start):
                    cells = torch.stack([m[min(i, len(m) - 1)] for m in masks])
                    mask = resize_heatmap(cells.to(at_least_float32(clip).dtype), clip.shape[2:])
                    mask = from_0_to_1(mask) if stretched else mask
                    torch.addcmul(hidden, seen, mask.to(clip)[:, None], out=row)
                advance(len(rows))

            return self.runner(model, clip)(most, fill)


def from_0_to_1(maps: Tensor) -> Tensor:
    """Maps `(n, t, h, w)` that go from 0 to 1 each; 0 where a map is the same everywhere."""
    low, high = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 0, (maps - low) / torch.where(span > 0, span, 1), 0)
