"""Grad-CAM: answers known on paper (GC1-GC4) and agreement with captum and pytorch-grad-cam."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from captum.attr import LayerGradCam
from nets import FoldedLSTM, Gap3d, LoopedLSTM, clip_of, describe
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.video import r3d_18

import lightning_cam as lc
from lightning_cam.attribution.tensors import resize_heatmap
from lightning_cam.models import LRCN, InflatedResNet, ResNet3D
from lightning_cam.models.clip_net import ClipNet
from lightning_cam.models.inflate import inflate
from lightning_cam.tasks import VideoClassification


@pytest.fixture
def gap() -> Gap3d:
    torch.manual_seed(0)
    return Gap3d().double().eval()


def test_gc1_is_cam_for_a_linear_head_behind_average_pooling(gap: Gap3d) -> None:
    clip = clip_of(2, 3, 4, 8, 6, dtype=torch.float64)
    target = torch.tensor([1, 3])
    heat = lc.explain(describe(gap), lc.GradCAM(), clip, target).heatmap
    activation = gap.relu(gap.norm(gap.conv(clip)))  # (B, D, t, h, w)
    cam = torch.einsum("bd,bdthw->bthw", gap.fc.weight[target], activation).relu()
    expected = resize_heatmap(cam, (4, 8, 6)) / activation[0, 0].numel()
    torch.testing.assert_close(heat, expected.detach(), rtol=1e-12, atol=1e-14)


def test_gc2_poolings_agree_behind_average_pooling_and_differ_behind_a_flatten_head() -> None:
    clip = clip_of(2, 3, 4, 8, 6, dtype=torch.float64)
    for flatten, same in ((0, True), (6 * 4 * 4 * 3, False)):
        torch.manual_seed(0)
        model = describe(Gap3d(flatten=flatten).double().eval())
        space, both = (
            lc.explain(model, lc.GradCAM(pool=pool), clip, 0).heatmap
            for pool in ("space", "spacetime")
        )
        assert torch.allclose(space, both, rtol=1e-10) is same


def test_gc3_peak_follows_a_planted_square() -> None:
    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(1, 2, (1, 3, 3), padding=(0, 1, 1), bias=False)
            self.fc = nn.Linear(2, 2, bias=False)
            with torch.no_grad():
                self.conv.weight[0] = 1 / 9
                self.conv.weight[1] = -1 / 9
                self.fc.weight.copy_(torch.eye(2))

        def forward(self, clip: torch.Tensor) -> torch.Tensor:
            return self.fc(self.conv(clip).relu().mean((2, 3, 4)))

    clip = torch.zeros(1, 1, 6, 16, 16)
    path = [(2 + 2 * t, 13 - 2 * t) for t in range(6)]
    for t, (y, x) in enumerate(path):
        clip[0, 0, t, y - 1 : y + 2, x - 1 : x + 2] = 1
    heat = lc.explain(lc.Explainable.of(Square(), ["conv"]), lc.GradCAM(), clip, 0).heatmap
    found = [divmod(int(frame.argmax()), 16) for frame in heat[0]]
    assert found == path


def test_gc4_a_layer_that_is_not_used_is_an_error_and_no_map_of_zeros() -> None:
    class Deaf(Gap3d):
        def forward(self, clip: torch.Tensor) -> torch.Tensor:
            super().forward(clip)
            return self.fc(clip.mean((2, 3, 4)).repeat(1, 2))

    with pytest.raises(lc.errors.UserError, match=r"needs gradients.*what nothing uses"):
        lc.explain(describe(Deaf().eval()), lc.GradCAM(), clip_of(1, 3, 2, 8, 8))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["layer2", "layer3", "layer4"])
def test_equals_captum_on_r3d_18(name: str) -> None:
    torch.manual_seed(0)
    net = r3d_18(weights=None).eval()
    clip = clip_of(2, 3, 8, 64, 64)
    target = torch.tensor([7, 390])
    model = lc.Explainable.of(net, [name])
    heat = lc.explain(model, lc.GradCAM(relu=False), clip, target).heatmap
    captum = LayerGradCam(net, getattr(net, name)).attribute(clip, target)
    expected = resize_heatmap(captum[:, 0], clip.shape[2:]).detach()
    assert (heat - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("layer", ["trunk", "trunk.conv"])
def test_equals_captum_on_folded_frames_also_before_an_inplace_relu(layer: str) -> None:
    torch.manual_seed(0)
    net = FoldedLSTM().eval()
    clip = clip_of(3, 3, 5, 12, 12)
    target = torch.tensor([0, 2, 3])
    heat = lc.explain(describe(net, layer), lc.GradCAM(relu=False), clip, target).heatmap
    # captum divides targets over rows of the batch, not of the folded frames: one clip at a time.
    for row in range(3):
        captum = LayerGradCam(net, net.get_submodule(layer))
        maps = captum.attribute(clip[row : row + 1], int(target[row]))  # (T, 1, h, w)
        expected = resize_heatmap(maps.transpose(0, 1), clip.shape[2:])[0].detach()
        assert (heat[row] - expected).norm() <= 1e-5 * expected.norm()


def test_inplace_relu_behind_the_layer_changes_nothing() -> None:
    torch.manual_seed(0)
    inplace = Gap3d().eval()
    plain = Gap3d().eval()
    plain.load_state_dict(inplace.state_dict())
    plain.relu.inplace = False
    clip = clip_of(2, 3, 4, 8, 8)
    maps = [
        lc.explain(describe(net, layer), lc.GradCAM(relu=False), clip, 1).heatmap
        for net in (inplace, plain)
        for layer in ("conv", "norm")
    ]
    assert torch.equal(maps[0], maps[2])
    assert torch.equal(maps[1], maps[3])
    assert not torch.allclose(maps[0], maps[1])


def test_a_layer_called_once_a_frame_gives_all_frames() -> None:
    torch.manual_seed(0)
    folded = FoldedLSTM().double().eval()
    looped = LoopedLSTM(folded).double().eval()
    clip = clip_of(2, 3, 5, 12, 10, dtype=torch.float64)
    expected = lc.explain(describe(folded, "trunk.conv"), lc.GradCAM(relu=False), clip, 1).heatmap
    heat = lc.explain(describe(looped, "conv"), lc.GradCAM(relu=False), clip, 1).heatmap
    assert heat.shape == (2, 5, 12, 10)
    torch.testing.assert_close(heat, expected, rtol=1e-10, atol=1e-14)


def test_a_layer_whose_calls_depend_on_each_other_keeps_its_whole_gradient() -> None:
    """A convolutional recurrence: the map at time t includes what flows through later calls."""

    class ConvRNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 1, 3, padding=1)

        def forward(self, clip: torch.Tensor) -> torch.Tensor:
            state = torch.zeros_like(clip[:, :, 0])
            for frame in clip.unbind(2):
                state = self.conv(torch.cat([frame, state], 1)).tanh()
            return state.mean((2, 3))

    torch.manual_seed(0)
    net = ConvRNN().double()
    clip = clip_of(1, 1, 4, 6, 6, dtype=torch.float64)
    heat = lc.explain(lc.Explainable.of(net, ["conv"]), lc.GradCAM(relu=False), clip, 0).heatmap
    state, kept = torch.zeros(1, 1, 6, 6, dtype=torch.float64), []
    for frame in clip.unbind(2):
        kept.append(net.conv(torch.cat([frame, state], 1)))
        state = kept[-1].tanh()
    grads = torch.autograd.grad(state.mean(), kept)
    expected = torch.stack([g.mean() * a[0, 0] for g, a in zip(grads, kept, strict=True)])
    torch.testing.assert_close(heat[0], expected.detach(), rtol=1e-10, atol=1e-14)


def small_3d(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "inflated":
        return InflatedResNet(3, "small").double().eval()
    if name == "bottleneck":
        shortcut = nn.Conv2d(3, 16, 1, bias=False)
        layers = nn.Sequential(Bottleneck(3, 4, downsample=shortcut), Bottleneck(16, 4))
        return ClipNet(OrderedDict(layer4=inflate(layers)), 16, 3, 0.5, False).double().eval()
    return ResNet3D(3, name).double().eval()


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["inflated", "bottleneck"])
def test_a_relu_shared_within_a_block_is_the_output_of_the_block(name: str, frames: int) -> None:
    """Also where it runs as often as the clip has frames, or a multiple of that."""
    net = small_3d(name)
    clip = clip_of(2, 3, frames, 32, 32, dtype=torch.float64)
    last = len(net.trunk.layer4) - 1
    block, relu = f"trunk.layer4.{last}", f"trunk.layer4.{last}.relu"
    model = lc.Explainable.of(net, [relu])
    for method in (lc.GradCAM, lc.IntegratedRecurrentGradCAM):
        heat, expected = (
            lc.explain(model, method(layer, relu=False), clip, 1).heatmap for layer in (relu, block)
        )
        torch.testing.assert_close(heat, expected)
        assert heat.any()
    found = {layer.name: layer for layer in lc.list_layers(model, clip)}
    assert found[relu].shape == found[block].shape
    assert found[relu].stride == found[block].stride
    assert found[relu].calls > 1


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_relu_shared_within_a_block_of_single_frames(frames: int) -> None:
    """Frames folded into the batch, or one by one: the block's output for every frame."""

    class Net(nn.Module):
        def __init__(self, loop: bool) -> None:
            super().__init__()
            self.loop = loop
            self.block = BasicBlock(3, 3)
            self.fc = nn.Linear(3, 2)

        def forward(self, clip: torch.Tensor) -> torch.Tensor:
            rows = clip.unbind(2) if self.loop else [clip.transpose(1, 2).flatten(0, 1)]
            maps = torch.stack([self.block(row).mean((2, 3)) for row in rows], 1)
            return self.fc(maps.unflatten(0, (len(clip), -1)).flatten(1, 2).cumsum(1).mean(1))

    torch.manual_seed(0)
    folded, looped = Net(False).double().eval(), Net(True).double().eval()
    looped.load_state_dict(folded.state_dict())
    clip = clip_of(2, 3, frames, 8, 8, dtype=torch.float64)
    method = lc.GradCAM(relu=False)
    expected = lc.explain(lc.Explainable.of(folded, ["block"]), method, clip, 1).heatmap
    for net in (folded, looped):
        model = lc.Explainable.of(net, ["block.relu"])
        torch.testing.assert_close(lc.explain(model, method, clip, 1).heatmap, expected)
        (relu,) = (layer for layer in lc.list_layers(model, clip) if layer.name == "block.relu")
        assert relu.shape == (2, 3, frames, 8, 8)


def test_a_map_without_time_is_no_single_frame() -> None:
    """Its ReLU runs twice, as often as the clip has frames."""
    torch.manual_seed(0)
    layers = OrderedDict(time=nn.AdaptiveAvgPool3d((1, 8, 8)), block=inflate(BasicBlock(3, 3)))
    net = ClipNet(layers, 3, 4, 0.5, False).double().eval()
    clip = clip_of(2, 3, 2, 8, 8, dtype=torch.float64)
    model = lc.Explainable.of(net, ["trunk.block", "trunk.block.relu"])
    heat, expected = (lc.explain(model, lc.GradCAM(x), clip, 1).heatmap for x in model.layers)
    assert torch.equal(heat, expected)


VALID = torch.arange(8) < torch.tensor([[5], [8], [0]])  # the last could not be read


@pytest.mark.parametrize("layer", ["trunk", "trunk.layer2"])
@pytest.mark.parametrize("name", ["inflated", "r3d_small"])
def test_padded_frames_get_exactly_zero(name: str, layer: str) -> None:
    task = VideoClassification(small_3d(name), ["a", "b", "c"]).eval()
    clip = clip_of(3, 3, 8, 32, 32, dtype=torch.float64)
    for method in (
        *(lc.GradCAM(layer, pool, relu=False) for pool in ("space", "spacetime", None)),
        lc.RecurrentGradCAM(layer, relu=False),
        lc.IntegratedRecurrentGradCAM(layer, relu=False),
    ):
        heat = lc.explain(task.explainable({"valid": VALID}), method, clip, 1).heatmap
        assert (heat[~VALID] == 0).all()
        assert heat[VALID].flatten(1).any(1).all()
        # Nothing is padding: the same, bit for bit, as without being told so.
        said, plain = (
            lc.explain(task.explainable(batch), method, clip, 1).heatmap
            for batch in ({"valid": torch.ones_like(VALID)}, None)
        )
        assert torch.equal(said, plain)


@pytest.mark.parametrize("name", ["inflated", "r3d_small"])
def test_with_padding_it_is_cam_over_the_valid_steps(name: str) -> None:
    net = small_3d(name)
    clip = clip_of(2, 3, 8, 32, 32, dtype=torch.float64)
    valid = VALID[:2].clone()
    valid[0, 4] = False  # so that no step of r3d_small is padded in part
    model = VideoClassification(net, ["a", "b", "c"]).eval().explainable({"valid": valid})
    maps = net.trunk(clip).detach()
    steps = maps.shape[2]
    counts = valid.unflatten(1, (steps, -1)).all(2)  # (B, t)
    constant = 1 / (counts.sum(1) * maps[0, 0, 0].numel())
    cam = torch.einsum("bdthw,d,b->bthw", maps, net.head.weight[1], constant.double())
    both = lc.explain(model, lc.GradCAM(pool="spacetime"), clip, 1).heatmap
    expected = resize_heatmap(cam.relu(), (8, 32, 32))
    torch.testing.assert_close(both[valid], expected[valid].detach())
    space = lc.explain(model, lc.GradCAM(pool="space"), clip, 1).heatmap
    expected = resize_heatmap(cam.relu() * counts[..., None, None], (8, 32, 32))
    torch.testing.assert_close(space[valid], expected[valid].detach())


@pytest.mark.parametrize(("length", "filled"), [(1, 1), (3, 1), (4, 1), (5, 2), (7, 2)])
def test_a_step_of_four_frames_counts_where_one_is_valid(length: int, filled: int) -> None:
    """The score is a mean over steps by their valid frames; its gradient, over steps, is even."""
    net = small_3d("r3d_small")
    valid = torch.arange(8)[None] < length
    clip = clip_of(1, 3, 8, 32, 32, dtype=torch.float64)
    model = VideoClassification(net, ["a", "b", "c"]).eval().explainable({"valid": valid})
    maps = net.trunk(clip).detach()
    assert maps.shape[2] == 2
    cam = torch.einsum("bdthw,d->bthw", maps, net.head.weight[1]) / maps[0, 0, 0].numel() / filled
    heat = lc.explain(model, lc.GradCAM(relu=False), clip, 1).heatmap
    expected = resize_heatmap(cam, (8, 32, 32)).detach()
    torch.testing.assert_close(heat[valid], expected[valid])
    assert (heat[~valid] == 0).all()


def test_padding_of_folded_frames_leaves_the_valid_ones_as_they_were() -> None:
    torch.manual_seed(0)
    task = VideoClassification(LRCN(3, hidden=8), ["a", "b", "c"]).double().eval()
    clip = clip_of(1, 3, 8, 16, 16, dtype=torch.float64)
    model = task.explainable({"valid": VALID[:1]})
    for pool in ("space", "spacetime"):
        method = lc.GradCAM(pool=pool, relu=False)
        heat = lc.explain(model, method, clip, 1).heatmap
        alone = lc.explain(task.explainable(), method, clip[:, :, :5], 1).heatmap
        torch.testing.assert_close(heat[:, :5], alone)
        assert (heat[:, 5:] == 0).all()


def test_contrast_and_counterfactual_read_the_same_outputs_differently(gap: Gap3d) -> None:
    model = describe(gap, outputs=["a", "b", "c", "d"])
    clip = clip_of(2, 3, 4, 8, 6, dtype=torch.float64)
    method = lc.GradCAM(relu=False)
    a, b = (lc.explain(model, method, clip, name).heatmap for name in "ab")
    torch.testing.assert_close(lc.explain(model.contrast("b"), method, clip, "a").heatmap, a - b)
    against = lc.explain(model.counterfactual(), method, clip, "a")
    torch.testing.assert_close(against.heatmap, -a)
    assert against.caption.endswith("against")
    assert torch.equal(against.outputs, gap(clip))


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="pool must be"):
        lc.GradCAM(pool="time")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no layer 'trunk\.konv'; nearest: trunk\.conv"):
        lc.Explainable.of(FoldedLSTM(), ["trunk.konv"])
    model = lc.Explainable.of(FoldedLSTM(), ["head"], outputs=["walking", "jumping", "x", "y"])
    clip = clip_of(1, 3, 2, 8, 8)
    with pytest.raises(ValueError, match="still has height and width"):
        lc.explain(model, lc.GradCAM(), clip)
    with pytest.raises(ValueError, match="no target 'walkin'; nearest: walking"):
        lc.explain(model, lc.GradCAM(), clip, "walkin")
    with pytest.raises(ValueError, match=r"target must lie in 0\.\.3"):
        lc.explain(model, lc.GradCAM("trunk"), clip, torch.tensor([4]))
    with pytest.raises(ValueError, match=r"expected a clip \(B, C, T, H, W\)"):
        lc.explain(model, lc.GradCAM(), clip[0])
    with pytest.raises(lc.errors.UserError, match=r"got \(1, 2, 8\); .* or say how this one is"):
        lc.explain(model, lc.GradCAM("lstm"), clip)
