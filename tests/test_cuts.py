"""A graph that is cut is an error that names the cut, and never a map of zeros."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import lightning_cam as lc
from lightning_cam.attribution import Attribution
from lightning_cam.errors import UserError


class Cut(nn.Module):
    """A trunk and a head; what goes from one to the other is cut in some way."""

    def __init__(
        self,
        trunk: Callable[[], AbstractContextManager[object]] = nullcontext,
        between: Callable[[Tensor], Tensor] = lambda x: x,
        head: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU())
        self.neck, self.head = nn.Conv3d(4, 4, 1), nn.Linear(4, 3)
        self.how = trunk, between, head

    def forward(self, clip: Tensor) -> Tensor:
        trunk, between, head = self.how
        with trunk():
            x = self.trunk(clip)
        x = between(x).clone()
        with head():
            return self.head(self.neck(x).mean((2, 3, 4)))


CUTS = {
    "head under no_grad": (Cut(head=torch.no_grad), "trunk", "in 'neck'"),
    "detached in the forward": (
        Cut(between=Tensor.detach), "trunk", "between 'trunk' and 'neck'"),
    "head in inference mode": (
        Cut(head=torch.inference_mode), "trunk", r"in 'neck' \(inference_mode\)"),
    "rounded": (Cut(between=lambda x: x.long().float()), "trunk", "between 'trunk' and 'neck'"),
}  # fmt: skip
_CLIP = torch.randn(2, 3, 4, 6, 6)


@pytest.mark.attack
@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize(
    "method",
    [lc.GradCAM(), lc.LayerCAM(), lc.Gradient(), lc.IntegratedGradients(2), lc.GuidedGradCAM()],
    ids=lambda method: method.title,
)  # fmt: skip
def test_a_cut_behind_the_layer_is_named(name: str, method: Attribution) -> None:
    """A graph cut by no_grad, detach, inference_mode or rounding: an error, no map of zeros."""
    net, layer, says = CUTS[name]
    model = lc.Explainable.of(net, [layer])
    with pytest.raises(UserError, match=rf"{method.title} needs gradients.*end {says}"):
        lc.explain(model, method, _CLIP)
    assert lc.explain(model, lc.Occlusion(), _CLIP).heatmap.any()


@pytest.mark.attack
@pytest.mark.parametrize("how", [torch.no_grad, torch.inference_mode])
def test_a_frozen_trunk_hides_the_clip_and_not_the_layers_behind_it(how: type) -> None:
    """A trunk frozen by no_grad: gradients to the clip are refused, layers behind explained."""
    net = Cut(trunk=how)
    model = lc.Explainable.of(net, ["neck"])
    with pytest.raises(UserError, match=r"Gradient needs gradients.*end in 'trunk\.0'"):
        lc.explain(model, lc.Gradient(), _CLIP)
    assert lc.explain(model, lc.GradCAM(relu=False), _CLIP).heatmap.any()
    found = lc.explain(model, lc.GradCAM("trunk", relu=False), _CLIP).heatmap
    wanted = lc.explain(lc.Explainable.of(Cut(), ["trunk"]), lc.GradCAM(relu=False), _CLIP).heatmap
    assert torch.equal(found, wanted)  # the layer itself is where the graph starts


@pytest.mark.attack
def test_masks_that_are_learned_through_a_cut() -> None:
    """Methods that learn a mask by gradients, on a network whose outputs have none."""
    model = lc.Explainable.of(Cut(head=torch.no_grad), ["trunk"])
    for method in (lc.TemporalMask(iterations=1), lc.ExtremalPerturbation(iterations=1)):
        with pytest.raises(UserError, match=r"needs gradients.*end in 'neck'"):
            lc.explain(model, method, _CLIP)


@pytest.mark.attack
def test_a_reentrant_checkpoint_is_named() -> None:
    """A layer within an old, re-entrant activation checkpoint."""

    class Net(Cut):
        def forward(self, clip: Tensor) -> Tensor:
            x = checkpoint(lambda x: self.neck(self.trunk(x)), clip, use_reentrant=True)
            return self.head(x.mean((2, 3, 4)))

    with (
        pytest.warns(UserWarning, match="None of the inputs have requires_grad"),
        pytest.raises(UserError, match=r"end in 'neck'.*re-entrant"),
    ):
        lc.explain(lc.Explainable.of(Net(), ["trunk"]), lc.GradCAM(), _CLIP)


@pytest.mark.attack
@pytest.mark.filterwarnings("ignore:quantized")
def test_a_quantised_head_is_named() -> None:
    """A head that was quantised: its integers have no gradient."""
    net = Cut()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.head = torch.ao.quantization.quantize_dynamic(nn.Sequential(net.head), {nn.Linear})
    with pytest.raises(UserError, match=r"end in 'head\.0' \(it is quantised\)"):
        lc.explain(lc.Explainable.of(net, ["trunk"]), lc.GradCAM(), _CLIP)


class ClassToken(nn.Module):
    """Tokens of which the first, a mean of all, is read out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.after, self.head = nn.Identity(), nn.LayerNorm(3), nn.Linear(3, 4)

    def forward(self, clip: Tensor) -> Tensor:
        x = self.before(clip.flatten(2).transpose(1, 2))
        x = torch.cat([x.mean(1, keepdim=True), x], 1)
        return self.head(self.after(x)[:, 0])


@pytest.mark.attack
@pytest.mark.parametrize("by_hand", [False, True])
def test_tokens_behind_the_last_attention(by_hand: bool) -> None:
    """A layer behind the last attention, of which the class token alone is read out."""
    layouts = {"before": "b (t h w) d", "after": "b (1 + t h w) d"}
    if by_hand:
        fold = lambda x, b: x[:, -144:].transpose(1, 2).unflatten(2, (4, 6, 6))  # noqa: E731
        model = lc.Explainable.of(ClassToken(), ["before", "after"], fold=fold)
    else:
        model = lc.Explainable.of(ClassToken(), ["before"], layout=layouts, grid=(4, 6, 6))
    assert lc.explain(model, lc.GradCAM(relu=False), _CLIP).heatmap.any()
    with pytest.raises(UserError, match="of layer 'after' only the class token reaches"):
        lc.explain(model, lc.GradCAM("after"), _CLIP)


def test_a_dead_head_is_a_finding_and_no_error() -> None:
    """A gradient that is there and is 0 stays what it is: a map of zeros."""
    net = Cut()
    nn.init.zeros_(net.head.weight)
    assert not lc.explain(lc.Explainable.of(net, ["trunk"]), lc.GradCAM(), _CLIP).heatmap.any()


@pytest.mark.attack
@pytest.mark.parametrize("made", [torch.jit.script, lambda m: torch.jit.trace(m, _CLIP)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_layer_is_said_to_be_one(made: Callable[[nn.Module], nn.Module]) -> None:
    """A layer that was scripted or traced, into which no hook can see."""
    net = Cut()
    net.trunk[0] = made(net.trunk[0])
    net.trunk = made(net.trunk)
    with pytest.raises(UserError, match="the layer was scripted or traced"):
        lc.explain(lc.Explainable.of(net, ["trunk.0"]), lc.GradCAM(), _CLIP)
    assert lc.explain(lc.Explainable.of(net), lc.Occlusion(), _CLIP).heatmap.any()


@pytest.mark.attack
@pytest.mark.parametrize("made", [torch.jit.script, lambda m: torch.jit.trace(m, _CLIP)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_rules_do_not_reach_into_scripted_parts(made: Callable[[nn.Module], nn.Module]) -> None:
    """A part that was scripted or traced, whose ReLUs would pass the plain gradient."""
    net = Cut()
    plain = lc.explain(lc.Explainable.of(net, ["trunk"]), lc.Gradient(), _CLIP, 0)
    net.trunk[0] = made(net.trunk[0])
    model = lc.Explainable.of(net, ["trunk"])
    for method in (lc.GuidedBackprop(), lc.GuidedGradCAM(), lc.ConservativePropagation(), lc.LRP()):
        with pytest.raises(UserError, match=f"{method.title} has no rule for what torch.jit"):
            lc.explain(model, method, _CLIP, 0)
    assert torch.allclose(lc.explain(model, lc.Gradient(), _CLIP, 0).heatmap, plain.heatmap)


@pytest.mark.attack
def test_attention_that_is_not_a_weight_for_each_frame() -> None:
    """A module named as attention whose output is something else."""
    model = lc.Explainable.of(Cut(), ["trunk"], attention=["neck"])
    with pytest.raises(UserError, match=r"attention 'neck' returns \(2, 4, 2, 4, 4\), expected"):
        lc.explain(model, lc.GradCAM(), _CLIP)


@pytest.mark.attack
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_re_entrant_checkpoints_are_named() -> None:
    """torch.utils.checkpoint with use_reentrant=True, and methods of gradients to the clip."""
    net = Cut(between=lambda x: checkpoint(torch.tanh, x, use_reentrant=True))
    for method in (lc.Gradient(), lc.IntegratedGradients(2), lc.ConservativePropagation()):
        with pytest.raises(
            UserError, match=r"re-entrant checkpoints of Cut; .*use_reentrant=False"
        ):
            lc.explain(lc.Explainable.of(net, ["trunk"]), method, _CLIP)
