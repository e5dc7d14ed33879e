"""The networks for depth and motion: the specification's tables, and what is known on paper."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from math import ceil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import network
from torch import Tensor, nn
from torchvision.models import resnet18

from lightning_cam.attribution.guard import capture
from lightning_cam.errors import ConfigError
from lightning_cam.geometry import pose_matrix
from lightning_cam.models import DispNet, PoseNet, ResNetDepth, ResNetPose, SfMLearner

SIZES = [(128, 416), (70, 90), (127, 415)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def scales(height: int, width: int) -> list[tuple[int, int]]:
    return [(ceil(height / 2**s), ceil(width / 2**s)) for s in range(4)]


def shapes_of(module: nn.Module, *inputs: Tensor, names: list[str]) -> dict[str, tuple[int, ...]]:
    """What layers return, (D, h, w)."""
    found: dict[str, tuple[int, ...]] = {}
    for name in names:
        module.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: found.update({name: tuple(out.shape[1:])})
        )
    module(*inputs)
    return found


# Tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (DispNet, 31_596_900),
        (partial(DispNet, 8), 1_977_612),
        (partial(PoseNet, 3, masks=True), 3_340_388),
        (PoseNet, 1_590_668),
        (partial(PoseNet, 5, masks=True), 3_352_504),
        (partial(PoseNet, 5), 1_598_456),
        (partial(PoseNet, 3, 4, masks=True), 211_784),
        (partial(PoseNet, 3, 4), 101_516),
        # ResNet-18 without its head, and monodepth2's decoder
        (partial(ResNetDepth, None), 11_176_512 + 3_152_724),
        # 6 more channels of 64 filters 7 x 7; 512 -> 256, 2 x 3 x 3, 256 -> 12
        (
            partial(ResNetPose, 3, None),
            11_176_512 + 6 * 64 * 49 + 131_328 + 2 * 590_080 + 3_084,
        ),
    ],
)
def test_parameters_are_those_of_the_specification(
    make: Callable[[], nn.Module], expected: int
) -> None:
    with torch.device("meta"):
        assert count(make()) == expected


def test_layers_of_dispnet_are_those_of_the_table() -> None:
    rows = {
        "conv1": (32, 64, 208), "conv2": (64, 32, 104), "conv3": (128, 16, 52),
        "conv4": (256, 8, 26), "conv5": (512, 4, 13), "conv6": (512, 2, 7), "conv7": (512, 1, 4),
        "iconv7": (512, 2, 7), "iconv6": (512, 4, 13), "iconv5": (256, 8, 26),
        "iconv4": (128, 16, 52), "iconv3": (64, 32, 104), "iconv2": (32, 64, 208),
        "iconv1": (16, 128, 416),
    }  # fmt: skip
    with torch.device("meta"):
        assert shapes_of(DispNet(), torch.empty(1, 3, 128, 416), names=list(rows)) == rows


def test_layers_of_posenet_are_those_of_the_table() -> None:
    rows = {
        "conv1": (16, 64, 208), "conv2": (32, 32, 104), "conv3": (64, 16, 52),
        "conv4": (128, 8, 26), "conv5": (256, 4, 13), "conv6": (256, 2, 7), "conv7": (256, 1, 4),
        "pose": (12, 1, 4), "mask1": (2, 128, 416), "mask4": (2, 16, 52),
    }  # fmt: skip
    with torch.device("meta"):
        target, sources = torch.empty(1, 3, 128, 416), torch.empty(1, 2, 3, 128, 416)
        assert shapes_of(PoseNet(masks=True), target, sources, names=list(rows)) == rows


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [DispNet, partial(ResNetDepth, None)])
def test_four_disparities_of_any_size(make: Callable[[], nn.Module], size: tuple[int, int]) -> None:
    with torch.device("meta"):
        found = make()(torch.empty(2, 3, *size))
    assert [tuple(d.shape) for d in found] == [(2, 1, *s) for s in scales(*size)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("snippet", [3, 5])
def test_poses_and_masks_of_any_size(snippet: int, size: tuple[int, int]) -> None:
    n = snippet - 1
    with torch.device("meta"):
        target, sources = torch.empty(2, 3, *size), torch.empty(2, n, 3, *size)
        pose, masks = PoseNet(snippet, masks=True)(target, sources)
        assert PoseNet(snippet)(target, sources)[1] is None
        other, none = ResNetPose(snippet, None)(target, sources)
    assert tuple(pose.shape) == tuple(other.shape) == (2, n, 6)
    assert none is None
    assert [tuple(m.shape) for m in masks] == [(2, n, *s) for s in scales(*size)]


# Values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "low", "high"),
    [(partial(DispNet, 2), 0.01, 10.01), (partial(ResNetDepth, None), 0.01, 10.0)],
)
def test_disparity_ends_where_the_paper_says(
    make: Callable[[], nn.Module], low: float, high: float
) -> None:
    net = make().eval()
    image = 100 * noise(1, 3, 64, 64)
    with torch.no_grad():
        for d in net(image):
            assert low <= d.min() <= d.max() <= high + 1e-6
        for bias, end in ((-1e6, low), (1e6, high)):
            for name, module in net.named_modules():
                if name.startswith("disp") and isinstance(module, nn.Conv2d):
                    module.bias.fill_(bias)
            for d in net(image):
                torch.testing.assert_close(d, torch.full_like(d, end))


@pytest.mark.parametrize("make", [partial(PoseNet, 3, 2, True), partial(ResNetPose, 3, None)])
def test_zero_weights_stand_still_and_a_bias_counts_a_hundredth(
    make: Callable[[], nn.Module],
) -> None:
    net = make().eval()
    inputs = noise(2, 3, 40, 56), noise(2, 2, 3, 40, 56, seed=1)
    with torch.no_grad():
        net.pose.weight.zero_()
        net.pose.bias.zero_()
        pose, masks = net(*inputs)
        assert pose.eq(0).all()
        for rotation in ("euler", "quat"):
            assert torch.equal(pose_matrix(pose, rotation), torch.eye(4).expand(2, 2, 4, 4))
        net.pose.bias.copy_(torch.arange(12))
        expected = torch.arange(12.0).view(2, 6) / 100  # source, component
        torch.testing.assert_close(net(*inputs)[0], expected.expand(2, 2, 6))
        if masks is not None:
            for n in range(1, 5):
                net.get_submodule(f"mask{n}")[0].weight.zero_()
            assert all(m.eq(0.5).all() for m in net(*inputs)[1])


@pytest.mark.parametrize(
    ("make", "layer"),
    [(partial(PoseNet, 5, 2), "conv7"), (partial(ResNetPose, 5, None), "read")],
)
def test_the_pose_is_a_mean_over_places(make: Callable[[], nn.Module], layer: str) -> None:
    """pose_d = 0.01 mean_xy (sum_k W_dk A_k(x, y) + b_d), so its gradient is W / 100 Z anywhere."""
    net = make().double().eval()
    nn.init.normal_(net.pose.bias)
    inputs = noise(2, 3, 70, 300).double(), noise(2, 4, 3, 70, 300, seed=1).double()
    with capture(net.get_submodule(layer), leaf=True) as calls:
        pose, _ = net(*inputs)
    (a,) = calls
    places = a.shape[2] * a.shape[3]
    assert places > 2
    weight, bias = net.pose.weight[:, :, 0, 0], net.pose.bias
    each = torch.einsum("ok,bkhw->bohw", weight, a) + bias[:, None, None]
    expected = 0.01 * each.mean((2, 3)).unflatten(1, (4, 6))
    torch.testing.assert_close(pose, expected, rtol=1e-12, atol=1e-15)
    for s, d in ((0, 0), (3, 5)):
        (gradient,) = torch.autograd.grad(pose[0, s, d], a, retain_graph=True)
        at = (0.01 / places * weight[6 * s + d]).view(-1, 1, 1).expand_as(gradient[0])
        torch.testing.assert_close(gradient[0], at, rtol=1e-12, atol=0)
        assert gradient[1].eq(0).all()


def test_which_disparities_hang_on_a_layer() -> None:
    """The choice of target layers: iconv1 is on the way to the finest disparity only."""
    torch.manual_seed(0)
    net = DispNet(4)
    for layer, reached in (
        ("iconv1", [True, False, False, False]),
        ("iconv2", [True, True, False, False]),
        ("iconv4", [True] * 4),
        ("conv5", [True] * 4),
        ("conv7", [True] * 4),
    ):
        with capture(net.get_submodule(layer), leaf=True) as calls:
            disparities = net(noise(1, 3, 64, 96))
        gradients = [
            torch.autograd.grad(d.sum(), calls[0], retain_graph=True, allow_unused=True)[0]
            for d in disparities
        ]
        assert [g is not None and bool(g.any()) for g in gradients] == reached, layer


def test_rows_do_not_mix() -> None:
    net = network(masks=True).eval()
    clip = noise(2, 3, 4, 32, 48)
    with torch.no_grad():
        whole = net(clip)
        for b in range(2):
            alone = net(clip[b : b + 1])
            rows = slice(2 * b, 2 * b + 2)
            torch.testing.assert_close(whole.poses[rows], alone.poses)
            for name in ("disparities", "masks"):
                for both, one in zip(getattr(whole, name), getattr(alone, name), strict=True):
                    torch.testing.assert_close(both[rows], one)


# SfMLearner ---------------------------------------------------------------------------------------


def numbered(clips: int, frames: int) -> Tensor:
    """Frame t of clip b is 10 b + t throughout."""
    level = 10 * torch.arange(clips)[:, None] + torch.arange(frames)
    return level[:, None, :, None, None].expand(clips, 3, frames, 4, 6).float()


@settings(max_examples=20, deadline=None)
@given(snippet=st.sampled_from([3, 5, 7]), more=st.integers(0, 5), clips=st.integers(1, 3))
def test_targets_and_sources_in_the_order_of_time(snippet: int, more: int, clips: int) -> None:
    m, frames = snippet // 2, snippet + more
    net = SfMLearner(nn.Identity(), nn.Identity(), snippet)
    target, sources = net.snippets(numbered(clips, frames))
    expected = [(10 * b + t, b, t) for b in range(clips) for t in range(m, frames - m)]
    assert target.shape == (len(expected), 3, 4, 6)
    assert sources.shape == (len(expected), snippet - 1, 3, 4, 6)
    assert target[:, 0, 0, 0].tolist() == [level for level, *_ in expected]
    for row, (level, *_) in zip(sources, expected, strict=True):
        around = [level + step for step in range(-m, m + 1) if step]
        assert row[:, 2, 3, 5].tolist() == around
        assert row.flatten(1).std(1).eq(0).all()


@pytest.mark.parametrize("snippet", [3, 5])
@pytest.mark.parametrize("more", [0, 2])
def test_source_depth_is_that_of_each_frame(snippet: int, more: int) -> None:
    m, frames = snippet // 2, snippet + more
    net = network(snippet).double().eval()
    clip = noise(2, 3, frames, 32, 48).double()
    with torch.no_grad():
        plain, views = net(clip), net(clip, source_depth=True)
        each = [net.depth(clip[:, :, t]) for t in range(frames)]  # frame -> scale -> (B, 1, h, w)
    assert plain.source_disparities is None
    torch.testing.assert_close(views.poses, plain.poses)
    for s in range(4):
        torch.testing.assert_close(views.disparities[s], plain.disparities[s])
        expected = [
            torch.stack([each[i][s][b] for i in range(t - m, t + m + 1) if i != t])
            for b in range(2)
            for t in range(m, frames - m)
        ]
        torch.testing.assert_close(views.source_disparities[s], torch.stack(expected))


@pytest.mark.parametrize("snippet", [3, 5])
def test_an_activation_lies_on_its_targets(snippet: int) -> None:
    net, m, frames = network(snippet), snippet // 2, snippet + 2
    rows = noise(2 * 3, 4, 2, 5)  # two clips of three targets
    folded = net.explain_fold(rows, 2)
    assert folded.shape == (2, 4, frames, 2, 5)
    for b in range(2):
        for t in range(frames):
            inside = m <= t < frames - m
            expected = rows[3 * b + t - m] if inside else torch.zeros(4, 2, 5)
            assert torch.equal(folded[b, :, t], expected)
    for wrong in (rows[:, :, 0, 0], rows[:5], rows[None]):
        with pytest.raises(ValueError, match=r"activation \(R, D, h, w\) of B=2 clips.*height"):
            net.explain_fold(wrong, 2)


def test_layers_are_named_by_their_network() -> None:
    names = network(masks=True).explain_layers
    assert names[0] == "depth.iconv4"
    assert {"depth.iconv1", "depth.conv7", "pose.conv4", "pose.conv5", "pose.conv7"} <= {*names}
    with torch.device("meta"):
        resnet = SfMLearner(ResNetDepth(None), ResNetPose(3, None))
    for net in (network(), resnet):
        assert all(net.get_submodule(name) for name in net.explain_layers)


def test_snippets_that_do_not_fit_are_named() -> None:
    with pytest.raises(ConfigError, match=r"snippet=5, but the network for motion takes 3 frames"):
        SfMLearner(DispNet(2), PoseNet(3, 2), 5)
    for wrong in (1, 2, 4, 3.0, True):
        with pytest.raises(ConfigError, match=rf"snippet={wrong!r} must be an odd number"):
            PoseNet(wrong, 2)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="must be an odd number"):
            SfMLearner(nn.Identity(), nn.Identity(), wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"clip of 4 frames is shorter than a snippet of 5"):
        network(5)(noise(1, 3, 4, 32, 32))
    with pytest.raises(ConfigError, match=r"takes snippets of 3 frames, these have 5; set data"):
        PoseNet(3, 2)(noise(1, 3, 32, 32), noise(1, 4, 3, 32, 32))
    for make in (DispNet, partial(PoseNet, 3)):
        with pytest.raises(ConfigError, match="width=0 must be"):
            make(0)
    with pytest.raises(ConfigError, match="width=5 must be an even number"):
        DispNet(5)


# ImageNet weights ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A ResNet-18 whose batch norms have seen something, and its file as torchvision's are."""
    torch.manual_seed(0)
    net = resnet18()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    path = tmp_path_factory.mktemp("weights") / "resnet18-f37072fd.pth"
    torch.save(net.state_dict(), path)
    return net.eval(), path


def features(net: nn.Module, image: Tensor) -> Tensor:
    """The last map (B, 512, h, w) of a ResNet."""
    x = net.maxpool(net.relu(net.bn1(net.conv1(image))))
    for n in range(1, 5):
        x = net.get_submodule(f"layer{n}")(x)
    return x


def test_the_encoder_for_depth_is_the_file_s(imagenet: tuple[nn.Module, Path]) -> None:
    net, path = imagenet
    depth = ResNetDepth(str(path)).eval()
    image = noise(1, 3, 64, 96)
    with torch.no_grad(), capture(depth.encoder.layer4) as calls:
        depth(image)
        torch.testing.assert_close(calls[0], features(net, image))
    own = {f"encoder.{name}" for name in net.state_dict() if not name.startswith("fc.")}
    assert own == {name for name in depth.state_dict() if name.startswith("encoder.")}


@pytest.mark.parametrize("snippet", [3, 5])
def test_a_target_repeated_gives_the_response_of_the_image(
    imagenet: tuple[nn.Module, Path], snippet: int
) -> None:
    net, path = imagenet
    net, pose = copy.deepcopy(net).double(), ResNetPose(snippet, str(path)).double().eval()
    assert pose.encoder.conv1.weight.shape == (64, 3 * snippet, 7, 7)
    for n in range(snippet):
        part = pose.encoder.conv1.weight[:, 3 * n : 3 * n + 3]
        torch.testing.assert_close(snippet * part, net.conv1.weight, rtol=1e-6, atol=0)
    image = noise(1, 3, 64, 96).double()
    again = image[:, None].repeat(1, snippet - 1, 1, 1, 1)
    with torch.no_grad(), capture(pose.encoder.layer4) as calls:
        pose(image, again)
        expected = features(net, image)
    torch.testing.assert_close(calls[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [ResNetDepth, partial(ResNetPose, 3)])
def test_weights_that_are_none_are_named(
    imagenet: tuple[nn.Module, Path], tmp_path: Path, make: Callable[..., nn.Module]
) -> None:
    state = torch.load(imagenet[1], weights_only=True)
    files = {
        "half.pth": {k: v for k, v in state.items() if not k.startswith("layer4")},
        "wide.pth": {**state, "layer1.0.conv1.weight": torch.zeros(64, 64, 5, 5)},
        "list.pth": [1, 2],
    }
    for name, content in files.items():
        torch.save(content, tmp_path / name)
    (tmp_path / "text.pth").write_text("not a file of weights")
    for name, said in (
        ("half.pth", r"do not fit the backbone resnet18: \d+ of \d+ missing, first 'layer4"),
        ("wide.pth", r"'layer1.0.conv1.weight' is \(64, 64, 5, 5\), expected \(64, 64, 3, 3\)"),
        ("list.pth", "holds a list, not a state dict"),
        ("text.pth", "is not a state dict"),
        ("absent.pth", "is neither a file nor known for resnet18"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            make(str(tmp_path / name))
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
