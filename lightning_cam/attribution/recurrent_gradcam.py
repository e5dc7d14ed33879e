"""Recurrent Grad-CAM: which frames, and where in them, made a CNN+LSTM decide.

Yamashita et al., "Visually Explaining Videos using Recurrent Neural Networks with Gradient-Based
Localization". For input time t, output time t', features A_t (D, h, w) of the frame CNN:

    beta_{k,t,t'} = mean_{ij} dy_{t'} / dA^k_{t,ij}              (Eq. 1)
    heatmap_t     = ReLU(sum_k beta_{k,t,t'} A^k_t)              (Eq. 2)

One backward from y_{t'} gives every t. In a causal LSTM the frames after t' get exactly 0.

**Recency.** Through a saturated LSTM the gradient to early frames vanishes, so the plain map can
miss an event that decided the outcome. `IntegratedRecurrentGradCAM` averages the gradient of the
part behind the layer over scaled copies of the features, s·A with s in (0, 1), as Integrated
Grad-CAM (Sattarzadeh et al., ICASSP 2021, arXiv:2102.07805) does for images; used on the recurrent
head alone it costs one forward and one batched pass of the tail.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lightning_cam.attribution.calls import in_time, on_frames
from lightning_cam.attribution.checks import ready
from lightning_cam.attribution.explainable import Explainable, Forward, Target
from lightning_cam.attribution.fields import Count
from lightning_cam.attribution.gradcam import map_calls, pooled, weighted_sum
from lightning_cam.attribution.guard import capture, replaced
from lightning_cam.attribution.method import Cost, LayerAttribution
from lightning_cam.attribution.steps import Step, every_step, of_step, step_text
from lightning_cam.attribution.tensors import NoGradientError, gradients
from lightning_cam.errors import UserError


@dataclass(frozen=True)
class RecurrentGradCAM(LayerAttribution):
    """Recurrent Grad-CAM (Eqs. 1-2) for any output step.

    Args:
        layer: the frame CNN's target layer, see `GradCAM`.
        step: the output step t' (negative counts from each clip's last step that is not padding,
            the paper's t'=T is -1), `"sum"` or `"mean"` over all of these, or None for the clip's
            own column: what the network's read-out makes of its steps (for a last-step read-out
            the same as -1). `model.at(step)` asks the same of every method.
        relu: keep the positive part.
    """

    title = "Recurrent Grad-CAM"

    step: Step | None = None
    relu: bool = True

    @property
    def both_signs(self) -> RecurrentGradCAM:
        return replace(self, relu=False)

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(1, 1)

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        return _run(model, clip, self.layer, self.step, leaf=True)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        forward = self.first(model, clip)
        calls = forward.captured["layer"]
        score = _score(model, forward, target, self.step)
        model.notes.update(_notes(self.step))
        gradient = in_time(model, gradients(score, calls), len(clip), self.layer)
        cam = weighted_sum(in_time(model, calls, len(clip), self.layer), pooled(gradient, "space"))
        cam = on_frames(model, cam, self.layer)
        return model.resized(cam.relu() if self.relu else cam, clip)


@dataclass(frozen=True)
class IntegratedRecurrentGradCAM(LayerAttribution):
    """Recurrent Grad-CAM with the gradient averaged over scaled features.

        beta_{k,t} = mean_{ij} int_0^1 dy(s·A) / dA^k_{t,ij} ds

    by Gauss-Legendre quadrature. Where the layer is followed by average pooling the signed map
    sums to y(A) - y(0): the frames' energies add up to the decision.

    Args:
        layer: the frame CNN's target layer. Choose the last one: what lies behind it is run once
            more, on `nodes` copies.
        step: see `RecurrentGradCAM`.
        nodes: quadrature nodes; 5 integrate polynomials up to degree 9 exactly.
        relu: keep the positive part.
    """

    title = "Integrated recurrent Grad-CAM"

    step: Step | None = None
    nodes: Count = 5
    relu: bool = True

    @property
    def both_signs(self) -> IntegratedRecurrentGradCAM:
        return replace(self, relu=False)

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(1 + self.nodes, self.nodes)

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        with torch.no_grad():
            return _run(model, clip, self.layer, self.step, leaf=False)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        captured = self.first(model, clip).captured
        calls, last = captured["all calls"], captured["layer"]
        nodes, weights = np.polynomial.legendre.leggauss(self.nodes)  # on (-1, 1)
        scales = (nodes / 2 + 0.5).tolist()
        for call in last:
            call.requires_grad_()
        # n copies of the batch one after another, so that any batch-major folding still holds.
        copies = [
            torch.cat([s * call if call.requires_grad else call for s in scales]) for call in calls
        ]
        one = len(clip) == 1  # copied for free
        clips = (
            clip.expand(self.nodes, -1, -1, -1, -1) if one else clip.repeat(self.nodes, 1, 1, 1, 1)
        )
        _, layer = model.layer(self.layer)
        with replaced(layer, copies):
            forward = _run_steps(model, clips, self.step)
        score = _score(model, forward, target.repeat(self.nodes), self.step)
        # The gradient to A of y(s·A) is s times the one wanted.
        mean = score.new_tensor(weights / (nodes + 1))
        gradient = gradients(mean @ score.unflatten(0, (self.nodes, -1)), last)
        beta = pooled(in_time(model, gradient, len(clip), self.layer), "space")
        model.notes.update(_notes(self.step), nodes=f"{self.nodes} nodes")
        cam = weighted_sum(in_time(model, last, len(clip), self.layer), beta)
        cam = on_frames(model, cam, self.layer)
        return model.resized(cam.relu() if self.relu else cam, clip)


def step_maps(
    model: Explainable,
    clip: Tensor,
    target: Target | None = None,
    layer: str | None = None,
) -> Tensor:
    """Signed recurrent Grad-CAM maps of every output step, at layer resolution.

    Args:
        model: must have output steps.
        clip: `(B, C, T, H, W)`.
        target: as in `explain`.
        layer: as in `GradCAM`.

    Returns:
        `(B, T', t, h, w)`: row t' explains output step t'. One forward and T' tail backwards.

    Raises:
        UserError: if the model names no output steps.
    """
    with ready(model, clip) as (model, clip):
        forward = _run(replace(model, notes={}), clip, layer, "sum", leaf=True)
        calls = forward.captured["layer"]
        columns = model.resolve(target, forward.outputs)
        scores = _step_scores(model, forward, columns)  # (B, T')
        if not scores.requires_grad:
            raise NoGradientError
        activation = in_time(model, calls, len(clip), layer)
        rows = []
        for step in range(scores.shape[1]):
            found = torch.autograd.grad(
                scores[:, step].sum(), calls, allow_unused=True, retain_graph=True
            )
            gradient = [
                torch.zeros_like(c) if g is None else g for c, g in zip(calls, found, strict=True)
            ]
            beta = pooled(in_time(model, gradient, len(clip), layer), "space")
            rows.append(on_frames(model, weighted_sum(activation, beta), layer))
        return torch.stack(rows, dim=1).detach()


def step_energy(
    model: Explainable,
    clip: Tensor,
    target: Target | None = None,
    layer: str | None = None,
) -> Tensor:
    """Energy matrix `(B, T', T)`: how much of output step t' rests on input frame t.

    `E[t', t] = sum_ij ReLU(sum_k beta_{k,t,t'} A^k_t)`; zero above the diagonal in a causal
    network. Arguments as in `step_maps`.
    """
    return step_maps(model, clip, target, layer).relu().sum((3, 4))


def _run(
    model: Explainable, clip: Tensor, layer: str | None, step: Step | None, *, leaf: bool
) -> Forward:
    """A run of which the layer's calls are captured, and the output steps where one is asked for.

    Captured are "all calls" of the layer, its `map_calls` as "layer", and "steps".
    """
    name, module = model.layer(layer)
    with capture(module, leaf=leaf, alone=not leaf) as calls:
        outputs, captured = _run_steps(model, clip, step)
    model.notes.update(layer=name)
    last = map_calls(model, name, calls, clip)
    return Forward(outputs, {**captured, "all calls": calls, "layer": last})


def _run_steps(model: Explainable, clip: Tensor, step: Step | None) -> Forward:
    """A run of which the output steps are captured as "steps", where one is asked for."""
    if step is None:
        return Forward(model.forward(clip))
    if model.steps is None:
        raise UserError(
            "this model has no output steps, or one was chosen by `at`; set explain.NAME.step=null "
            "(the clip's own output)"
        )
    with capture(model.steps) as calls:
        return Forward(model.forward(clip), {"steps": calls})


def _score(model: Explainable, forward: Forward, target: Tensor, step: Step | None) -> Tensor:
    """Score `(B,)` of an output step, or of the clip."""
    if step is None:
        return model.score(forward.outputs, target)
    scores = _step_scores(model, forward, target)
    return of_step(scores, step, model.valid_for(scores))


def _step_scores(model: Explainable, forward: Forward, target: Tensor) -> Tensor:
    """Scores `(B, T')` of all output steps."""
    return model.score(every_step(forward.captured["steps"]), target)


def _notes(step: Step | None) -> dict[str, str]:
    said = {"pool": "gradient pooled over space"}
    if step is not None:
        said["step"] = step_text(step)
    return said
