"""Guided Grad-CAM: the fine image of guided backpropagation, where Grad-CAM sees evidence.

Selvaraju et al., "Grad-CAM", ICCV 2017, section 3.3: guided backpropagation times the heatmap of
Grad-CAM, resized to the clip. It looks as sharp as the former and is as coarse as the latter: the
edges it shows within a cell say nothing of the column, see `guided_backprop`.

The cost is that of both: two forwards, the tail's backward and the backward to the clip.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_cam.attribution.calls import on_frames
from lightning_cam.attribution.explainable import Explainable, Forward
from lightning_cam.attribution.gradcam import (
    Pool,
    layer_map,
    recorded_from,
    signed_map,
)
from lightning_cam.attribution.gradient import Reduce, input_gradient, reduced
from lightning_cam.attribution.guided_backprop import guided
from lightning_cam.attribution.method import Cost, LayerAttribution
from lightning_cam.attribution.tensors import resize_heatmap


@dataclass(frozen=True)
class GuidedGradCAM(LayerAttribution):
    """Guided backpropagation times Grad-CAM.

    Args:
        layer: Grad-CAM's target layer, a name in `model.layers` or any dotted module name; None:
            the first.
        pool: of Grad-CAM, see there.
        reduce: channels to one number, see `Gradient`.
    """

    title = "Guided Grad-CAM"
    grainy = True

    pool: Pool | None = None
    reduce: Reduce = "abs_max"

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(2, 2)

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        return recorded_from(model, clip, self.layer)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        found = layer_map(model, self.first(model, clip), clip, target, self.layer)
        signed = on_frames(model, signed_map(model, found, self.pool), self.layer)
        cam = resize_heatmap(signed.relu(), clip.shape[2:])
        gradient = input_gradient(model, guided(self.title, model, clip), target)
        return reduced(model, gradient * cam[:, None], self.reduce)
