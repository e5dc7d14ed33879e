"""Inflation: shapes and counts of the specification, and what a constant clip must give."""

from __future__ import annotations

import copy
import urllib.error

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lightning_cam.errors import ConfigError, UserError
from lightning_cam.models import InflatedResNet, InflatedResNet50, inflate
from lightning_cam.models.inflate import ReplicateConv3d

LAYERS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms with statistics and affine parameters as after a training; eval mode."""
    generator = torch.manual_seed(seed)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.running_mean, -0.2, 0.2),
                (norm.running_var, 0.5, 2.0),
                (norm.weight, 0.5, 1.5),
                (norm.bias, -0.3, 0.3),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return net.eval()


def resnet(name: str, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    return randomised(torchvision.models.get_model(name, weights=None, **settings))


def trunk_of(net: nn.Module) -> nn.Sequential:
    return nn.Sequential(*(getattr(net, name) for name in LAYERS))


def boring(frames: int, size: int, batch: int = 1) -> Tensor:
    """Clips that repeat one image."""
    return noise(batch, 3, 1, size, size).expand(-1, -1, frames, -1, -1).contiguous()


@torch.no_grad()
def error_per_frame(net3: nn.Module, net2: nn.Module, clip: Tensor) -> Tensor:
    """Largest difference between 3D map and 2D map of every frame, relative to the 2D map."""
    volume = net3(clip)  # (B, D, T, h, w)
    frames = torch.stack([net2(frame) for frame in clip.unbind(2)], 2)
    assert volume.shape == frames.shape
    return (volume - frames).abs().amax((0, 1, 3, 4)) / frames.abs().amax((0, 1, 3, 4))


# Shapes and counts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "temporal", "expected", "gmac"),
    [
        ("uniform", 53, 70_499_816, 196.2),
        ("uniform_no_downsample", 49, 64_962_024, 184.7),
        ("333", 17, 46_243_304, 128.4),
        (311, 17, 32_267_752, 99.2),  # a number, as YAML reads it
        ("none", 0, 23_589_992, 65.4),
    ],
)
def test_inflated_resnet50_is_that_of_the_specification(mode, temporal, expected, gmac):
    shapes = {}
    with torch.device("meta"):
        net = InflatedResNet50(40, weights=None, mode=mode)
        for name in ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            net.trunk.get_submodule(name).register_forward_hook(
                lambda _m, _i, output, name=name: shapes.update({name: tuple(output.shape[1:])})
            )
        with FlopCounterMode(display=False) as counter:
            assert net(torch.empty(1, 3, 16, 224, 224)).shape == (1, 40)
    assert shapes == {
        "conv1": (64, 16, 112, 112),
        "maxpool": (64, 16, 56, 56),
        "layer1": (256, 16, 56, 56),
        "layer2": (512, 16, 28, 28),
        "layer3": (1024, 16, 14, 14),
        "layer4": (2048, 16, 7, 7),
    }
    assert (count(net), count(net.trunk)) == (expected, expected - 40 * 2049)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, abs=0.06)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv3d)]
    assert sum(c.kernel_size[0] == 3 for c in convolutions) == temporal
    for c in convolutions:
        assert type(c) is nn.Conv3d
        assert c.stride[0] == 1
        assert c.padding[0] == c.kernel_size[0] // 2


@pytest.mark.parametrize(
    ("name", "features", "blocks"),
    [
        ("resnet18", 512, 8),
        ("resnet34", 512, 16),
        ("resnet101", 2048, 33),
        ("resnet152", 2048, 50),
        ("resnext50_32x4d", 2048, 16),
        ("resnext101_32x8d", 2048, 33),
        ("resnext101_64x4d", 2048, 33),
        ("wide_resnet50_2", 2048, 16),
        ("wide_resnet101_2", 2048, 33),
    ],
)
def test_every_torchvision_resnet_inflates(name, features, blocks):
    with torch.device("meta"):
        net = InflatedResNet(7, backbone=name)
        flat = torchvision.models.get_model(name)
        assert net.trunk(torch.empty(2, 3, 5, 64, 64)).shape == (2, features, 5, 2, 2)
        assert net(torch.empty(2, 3, 5, 64, 64)).shape == (2, 7)
    for layer, conv in flat.named_modules():
        if isinstance(conv, nn.Conv2d):
            deep = net.trunk.get_submodule(layer)
            assert deep.weight.shape == (*conv.weight.shape[:2], 3, *conv.weight.shape[2:])
            assert deep.groups == conv.groups
    with torch.device("meta"):
        by_name = InflatedResNet(7, backbone=name, mode="311")
    temporal = [m for m in by_name.modules() if isinstance(m, nn.Conv3d) and m.kernel_size[0] == 3]
    assert len(temporal) == 1 + blocks


def test_the_small_network():
    net = InflatedResNet(4, backbone="small")
    assert count(net.trunk) == 401_128
    assert net.trunk(torch.zeros(2, 3, 16, 64, 64)).shape == (2, 96, 16, 8, 8)


# The boring clip ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("from_file", [False, True])
@pytest.mark.parametrize(("name", "size"), [("resnet18", 64), ("resnet50", 64)])
def test_replicate_padding_gives_the_2d_network_in_every_frame(tmp_path, name, size, from_file):
    flat = resnet(name)
    if from_file:  # an ImageNet-format state dict, 1000-way head and all
        torch.save(flat.state_dict(), tmp_path / "imagenet.pth")
        weights = str(tmp_path / "imagenet.pth")
        deep = InflatedResNet(5, name, weights, temporal_padding="replicate").eval().trunk
    else:
        deep = trunk_of(inflate(flat, temporal_padding="replicate"))
    for frames in (1, 2, 5):
        assert (error_per_frame(deep, trunk_of(flat), boring(frames, size)) < 1e-4).all()


@pytest.mark.slow
def test_replicate_padding_on_the_papers_number_of_frames():
    flat = resnet("resnet50")
    deep = inflate(flat, temporal_padding="replicate")
    clip = boring(16, 96)
    assert (error_per_frame(trunk_of(deep), trunk_of(flat), clip) < 1e-4).all()
    with torch.no_grad():  # through the pooling and the 1000-way head
        logits, expected = deep(clip), flat(clip[:, :, 0])
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize(
    "name",
    [
        "resnet34",
        "resnext50_32x4d",
        pytest.param("resnet101", marks=pytest.mark.slow),
        pytest.param("wide_resnet50_2", marks=pytest.mark.slow),
    ],
)
def test_other_resnets_keep_the_2d_response_and_run(name):
    flat = resnet(name, num_classes=10)
    deep = inflate(flat, temporal_padding="replicate")
    assert (error_per_frame(trunk_of(deep), trunk_of(flat), boring(3, 32)) < 1e-4).all()
    assert deep(noise(2, 3, 2, 32, 32)).isfinite().all()


@pytest.mark.slow
def test_zero_padding_reaches_49_frames_into_a_uniform_resnet50():
    flat = resnet("resnet50")
    deep = inflate(flat)
    long = error_per_frame(trunk_of(deep), trunk_of(flat), boring(49, 32))
    assert long[24] < 1e-4
    assert long[[0, -1]].min() > 0.5
    assert error_per_frame(trunk_of(deep), trunk_of(flat), boring(16, 32)).min() > 1e-2


@pytest.mark.parametrize("temporal_padding", ["zeros", "replicate"])
def test_center_initialisation_gives_the_2d_network_on_any_clip(temporal_padding):
    flat = resnet("resnet18")
    deep = inflate(flat, init="center", temporal_padding=temporal_padding)
    clip = noise(2, 3, 5, 64, 64)
    assert (error_per_frame(trunk_of(deep), trunk_of(flat), clip) < 1e-5).all()


def test_without_temporal_kernels_frames_do_not_meet():
    flat = resnet("resnet18")
    deep = inflate(flat, mode="none")
    clip = noise(2, 3, 4, 64, 64)
    assert (error_per_frame(trunk_of(deep), trunk_of(flat), clip) < 1e-5).all()


@pytest.mark.parametrize("mode", ["uniform_no_downsample", "333", "311"])
def test_every_mode_keeps_the_2d_response(mode):
    flat = resnet("resnet50")
    deep = inflate(flat, mode=mode, temporal_padding="replicate")
    assert (error_per_frame(trunk_of(deep), trunk_of(flat), boring(2, 32)) < 1e-4).all()


@settings(max_examples=25, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    frames=st.integers(3, 6),
)
def test_one_convolution(kernel, stride, padding, dilation, groups, frames):
    conv = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups, bias=False)
    clip = noise(2, 4, 1, 7, 6).expand(-1, -1, frames, -1, -1)
    flat = conv(clip[:, :, 0])
    same = flat.unsqueeze(2).expand(-1, -1, frames, -1, -1)
    torch.testing.assert_close(inflate(conv, temporal_padding="replicate")(clip), same)
    zeros = inflate(conv)(clip)
    torch.testing.assert_close(zeros[:, :, 1:-1], same[:, :, 1:-1])
    for end in (0, -1):
        torch.testing.assert_close(zeros[:, :, end], flat * 2 / 3)


@settings(max_examples=15, deadline=None)
@given(depth=st.integers(1, 3), frames=st.integers(7, 9))
def test_zero_padding_contaminates_one_frame_per_convolution(depth, frames):
    torch.manual_seed(depth)
    stack = nn.Sequential(
        *[nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid()) for _ in range(depth)]
    ).double()
    error = error_per_frame(inflate(stack), stack, boring(frames, 6).double())
    assert (error[depth : frames - depth] < 1e-12).all()
    assert (error[:depth] > 1e-9).all()
    assert (error[frames - depth :] > 1e-9).all()


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d((2, 3), (1, 2), dilation=2, ceil_mode=True),
        nn.MaxPool2d(2),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d(2, divisor_override=3),
    ],
)
def test_pooling_stays_within_the_frame(pool):
    clip = noise(2, 3, 4, 9, 9)
    net = nn.Sequential(pool, nn.Conv2d(3, 1, 1))
    assert (error_per_frame(inflate(net, "none"), net, clip) < 1e-6).all()


@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1"])
def test_networks_without_shortcuts_inflate_too(name):
    flat = randomised(torchvision.models.get_model(name, weights=None, num_classes=6))
    deep = inflate(flat, temporal_padding="replicate")
    clip = boring(3, 64)
    with torch.no_grad():
        torch.testing.assert_close(deep(clip), flat(clip[:, :, 0]), rtol=1e-4, atol=1e-5)


def test_padding_in_space_stays_zero():
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.constant_(conv.weight, 3.0)  # each of 3 x 3 x 3 taps is 1
    ours = inflate(conv, temporal_padding="replicate")
    assert type(ours) is ReplicateConv3d
    ones = torch.ones(1, 1, 4, 5, 5)
    assert ours(ones)[0, 0, :, 0, 0].tolist() == [12] * 4  # a corner: 2 x 2 x 3 taps
    theirs = nn.Conv3d(1, 1, 3, padding=1, padding_mode="replicate", bias=False)
    nn.init.ones_(theirs.weight)
    assert theirs(ones)[0, 0, 0, 0, 0] == 27  # why it is not used


def test_replicate_padding_is_that_of_pytorch():
    conv = inflate(nn.Conv2d(3, 4, 3, padding=1), temporal_padding="replicate")
    clip = noise(2, 3, 4, 5, 5)
    padded = F.pad(clip, (0, 0, 0, 0, 1, 1), mode="replicate")
    expected = F.conv3d(padded, conv.weight, conv.bias, padding=(0, 1, 1))
    assert torch.equal(conv(clip), expected)
    laid_out = conv(clip.contiguous(memory_format=torch.channels_last_3d))
    assert laid_out.is_contiguous(memory_format=torch.channels_last_3d)


# The copy -----------------------------------------------------------------------------------------


def test_the_original_and_the_random_numbers_are_left_alone():
    flat = resnet("resnet18")
    before = copy.deepcopy(flat)
    state = torch.get_rng_state()
    deep = inflate(flat)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in flat.state_dict().items():
        assert torch.equal(value, before.state_dict()[name])
    assert isinstance(flat.conv1, nn.Conv2d)
    assert {p.data_ptr() for p in flat.parameters()}.isdisjoint(
        p.data_ptr() for p in deep.parameters()
    )
    assert set(deep.state_dict()) == set(flat.state_dict())


def test_modes_flags_and_shared_layers_survive():
    shared = nn.Conv2d(3, 3, 3, padding=1)
    norm = nn.BatchNorm2d(3, eps=1e-3, momentum=0.2, affine=False)
    net = nn.Sequential(shared, norm, shared, nn.BatchNorm2d(3, track_running_stats=False))
    shared.weight.requires_grad_(False)
    norm.eval()
    deep = inflate(net)
    assert deep[0] is deep[2]
    assert (deep[0].weight.requires_grad, deep[0].bias.requires_grad) == (False, True)
    assert (deep[1].training, deep[3].training) == (False, True)
    assert (deep[1].eps, deep[1].momentum, deep[1].weight) == (1e-3, 0.2, None)
    assert deep[3].running_mean is None
    assert inflate(net.double())[0].weight.dtype == torch.float64


# Weights ------------------------------------------------------------------------------------------


def test_an_inflated_checkpoint_starts_another(tmp_path):
    source = InflatedResNet(3, "small", mode="333")
    state = {f"model.{name}": value for name, value in source.state_dict().items()}
    path = tmp_path / "last.ckpt"
    torch.save({"epoch": 3, "state_dict": state}, path)
    settings = {"mode": "333", "temporal_padding": "replicate", "checkpointing": True}
    net = InflatedResNet(9, "small", str(path), **settings)
    for name, value in net.trunk.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, source.trunk.state_dict()[name])
    with pytest.raises(ConfigError, match=r"last.ckpt.*mode=uniform: .*\(8, 8, 1, 1, 1\), exp"):
        InflatedResNet(9, "small", str(path))


def test_weights_of_another_network_are_named(tmp_path):
    torch.save(resnet("resnet18").state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"w\.pth.*do not fit the backbone resnet34.* missing"):
        InflatedResNet(3, "resnet34", str(tmp_path / "w.pth"))
    with pytest.raises(ConfigError, match=r"DEFAULT.*none for this backbone"):
        InflatedResNet(3, "small", "DEFAULT")


def test_imagenet_weights_are_asked_for_by_default(monkeypatch, tmp_path):
    def refuse(*_args, **_kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(UserError, match=r"resnet50-11ad3fa6\.pth.*no route.*weights=PATH"):
        InflatedResNet50(40)


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (nn.Conv2d(3, 3, 3), {"mode": "121"}, r"mode='121' is unknown.*uniform_no_downsample"),
        (nn.Conv2d(3, 3, 3), {"init": "mean"}, r"init='mean' is unknown.*average, center"),
        (nn.Conv2d(3, 3, 3), {"temporal_padding": "reflect"}, r"padding='reflect'.*zeros, repl"),
        (nn.Sequential(nn.Conv2d(3, 3, 1)), {"mode": "311"}, r"mode='311' finds no convolution"),
        (nn.Sequential(nn.ConvTranspose2d(3, 3, 3)), {}, r"layer '0': ConvTranspose2d has no rule"),
        (nn.Sequential(nn.Conv2d(3, 3, 3, padding="same")), {}, r"layer '0': only zero padding"),
        (nn.Conv2d(3, 3, 3, padding_mode="reflect"), {}, r"only zero padding"),
    ],
)
def test_what_cannot_be_inflated_is_named(module, settings, message):
    with pytest.raises(ConfigError, match=message):
        inflate(module, **settings)


def test_unknown_backbones_are_named():
    with pytest.raises(ConfigError, match=r"backbone='vgg16' is unknown.*resnext50_32x4d"):
        InflatedResNet(3, "vgg16")
