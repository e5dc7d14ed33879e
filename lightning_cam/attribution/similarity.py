"""Embeddings have no columns to ask for; how similar a clip is to a known one is such a column."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cam.attribution.checks import ready
from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.outputs import outputs_of


def similarity_to(module: nn.Module, clips: Tensor) -> Callable[[Tensor], Tensor]:
    """A `forward` whose columns are cosine similarities to reference clips.

    The references are embedded now, by the weights of now.

    Args:
        module: a network whose output is an embedding `(B, D)` a clip.
        clips: R reference clips `(R, C, T, H, W)` in model space.

    Returns:
        Clips `(B, C, T, H, W)` -> similarities `(B, R)` from -1 to 1.

    Raises:
        ArgumentError: the clips, or what the network returns of them, are of a wrong kind.

    Example:
        >>> forward = similarity_to(net, reference)
        >>> model = Explainable.of(net, ["layer4"], forward=forward, probability=None)
        >>> heatmap = explain(model, GradCAM(), clip).heatmap  # what speaks for their likeness
    """
    model = Explainable.of(module)
    with ready(model, clips) as (bare, shown), torch.no_grad():
        known = bare.forward(shown)

    def similarities(rows: Tensor) -> Tensor:
        return F.cosine_similarity(outputs_of(model, rows)[:, None], known.to(rows)[None], dim=2)

    return similarities
