"""First convolutions for clips that are not RGB, and how the number of channels reaches them."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_cam.commands.train_settings import filled
from lightning_cam.errors import ConfigError
from lightning_cam.models import (
    LRCN,
    MC3_18,
    PAN,
    R3D18,
    FrameCNN,
    InflatedResNet,
    R2Plus1D18,
    ResNet3D,
)
from lightning_cam.models.stems import alike_weights, set_channels, stem_weights
from lightning_cam.synthetic.multispectral.data_module import SyntheticMultispectral
from lightning_cam.training.build import build
from lightning_cam.training.checkpoint import KEY, Remember, rebuild

SMALL = ("r3d_small", "mc3_small", "r2plus1d_small")
R3D = {"_target_": "lightning_cam.models.ResNet3D", "num_outputs": None, "backbone": "r3d_small"}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def settled(net: nn.Module, channels: int = 3) -> nn.Module:
    """Moves the batch norms off their initial statistics and goes to eval mode."""
    net.train()
    with torch.no_grad():
        for seed in range(2):
            net(noise(2, channels, 8, 32, 32, seed=seed))
    return net.eval()


def with_head_of(net: nn.Module, source: nn.Module) -> nn.Module:
    net.head.load_state_dict(source.head.state_dict())
    return net.eval()


@pytest.fixture(params=SMALL)
def rgb(request, tmp_path) -> tuple[nn.Module, partial]:
    """A network for RGB, and what makes one that starts from its weights."""
    torch.manual_seed(0)
    net = settled(ResNet3D(3, request.param))
    torch.save(net.state_dict(), tmp_path / "rgb.pth")
    return net, partial(ResNet3D, 3, request.param, str(tmp_path / "rgb.pth"))


# Counts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "counts"),
    [
        (R3D18, (33_151_560, 33_170_376, 33_179_784)),
        (MC3_18, (11_475_528, 11_494_344, 11_503_752)),
        (R2Plus1D18, (31_299_819, 31_304_229, 31_306_434)),
    ],
)
def test_parameters_are_those_of_the_specification(make, counts):
    with torch.device("meta"):
        for channels, expected in zip((1, 3, 4), counts, strict=True):
            net = make(8, in_channels=channels).eval()
            assert count(net) == expected
            assert net(torch.empty(1, channels, 4, 16, 16)).shape == (1, 8)


@pytest.mark.parametrize("backbone", SMALL)
def test_only_the_first_convolution_knows_the_channels(backbone):
    one, three = (ResNet3D(4, backbone, in_channels=channels) for channels in (1, 3))
    shapes = [
        {name: value.shape for name, value in net.state_dict().items()} for net in (one, three)
    ]
    assert [name for name in shapes[0] if shapes[0][name] != shapes[1][name]] == [
        "trunk.stem.0.weight"
    ]
    assert one(noise(2, 1, 8, 32, 32)).shape == (2, 4)


# Identities ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(64, 3, 3, 7, 7), (45, 3, 1, 7, 7), (64, 3, 7, 7)])
def test_one_channel_is_the_sum_and_four_are_three_quarters(shape):
    weight = noise(*shape)
    red, green, blue = weight.unbind(1)
    one, four, deaf = (stem_weights(weight, *c) for c in ((1,), (4,), (4, "zero_ir")))
    torch.testing.assert_close(one, (red + green + blue).unsqueeze(1))
    expected = 0.75 * torch.stack([red, green, blue, (red + green + blue) / 3], 1)
    torch.testing.assert_close(four, expected)
    torch.testing.assert_close(deaf, torch.stack([red, green, blue, 0 * red], 1))
    torch.testing.assert_close(
        alike_weights(weight, 6), expected[:, 3:].repeat_interleave(6, 1) / 0.75
    )


def test_infrared_alone_is_the_network_on_grey_images(rgb):
    net, start = rgb
    grey = noise(2, 1, 8, 32, 32, seed=3)
    one = with_head_of(start(in_channels=1), net)
    expected = net(grey.repeat(1, 3, 1, 1, 1))
    torch.testing.assert_close(one(grey), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # what the mean over RGB would do
        one.trunk.stem[0].weight /= 3
    assert not torch.allclose(one(grey), expected, rtol=0.05)


def test_zero_ir_ignores_the_infrared(rgb):
    net, start = rgb
    clip = noise(2, 4, 8, 32, 32, seed=3)
    four = with_head_of(start(in_channels=4, stem="zero_ir"), net)
    expected = net(clip[:, :3])
    torch.testing.assert_close(four(clip), expected, rtol=1e-4, atol=1e-5)
    clip[:, 3] *= 50
    torch.testing.assert_close(four(clip), expected, rtol=1e-4, atol=1e-5)
    four(clip).sum().backward()
    assert four.trunk.stem[0].weight.grad[:, 3].any()  # but learns from it


@torch.no_grad()
def test_channels_that_agree_have_the_response_of_rgb(rgb):
    net, start = rgb
    grey = noise(2, 1, 8, 32, 32, seed=3)
    first = start(in_channels=4).trunk.stem[0]
    expected = net.trunk.stem[0](grey.repeat(1, 3, 1, 1, 1)).std()
    assert first(grey.repeat(1, 4, 1, 1, 1)).std() / expected == pytest.approx(1, abs=1e-5)
    first.weight *= 4 / 3  # what it would be without the three quarters
    assert first(grey.repeat(1, 4, 1, 1, 1)).std() / expected == pytest.approx(4 / 3, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(channels=st.sampled_from([1, 3, 4, 5, 7]), seed=st.integers(0, 99))
def test_any_number_of_channels_that_agree(channels, seed):
    weight, grey = noise(4, 3, 5, 5, seed=seed).double(), noise(2, 1, 9, 9, seed=seed + 1).double()
    expected = nn.functional.conv2d(grey.repeat(1, 3, 1, 1), weight)
    found = nn.functional.conv2d(grey.repeat(1, channels, 1, 1), stem_weights(weight, channels))
    torch.testing.assert_close(found, expected)


# Weights from files -------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 4])
def test_torchvisions_file_goes_into_other_channels(channels, tmp_path):
    torch.manual_seed(0)
    theirs = torchvision.models.video.mc3_18(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "mc3_18-a90a0ba3.pth")
    ours = MC3_18(8, str(tmp_path / "mc3_18-a90a0ba3.pth"), in_channels=channels)
    for name, value in ours.trunk.state_dict().items():
        expected = theirs.state_dict()[name]
        if name == "stem.0.weight":
            expected = stem_weights(expected, channels)
        assert torch.equal(value, expected), name


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_weights_with_as_many_channels_are_taken_as_they_are(channels, tmp_path):
    source = ResNet3D(3, "r3d_small", in_channels=channels)
    state = {f"model.{name}": value for name, value in source.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    net = ResNet3D(9, "r3d_small", str(tmp_path / "last.ckpt"), in_channels=channels)
    assert torch.equal(net.trunk.stem[0].weight, source.trunk.stem[0].weight)
    with pytest.raises(ConfigError, match=rf"'stem.0.weight' is \(8, {channels}, .* \(8, 5, "):
        ResNet3D(9, "r3d_small", str(tmp_path / "last.ckpt"), in_channels=5)


def test_a_file_that_holds_a_network_twice_is_refused(tmp_path):
    state = ResNet3D(3, "r3d_small").trunk.state_dict()
    twice = {f"{prefix}.{name}": value for prefix in ("a", "bb") for name, value in state.items()}
    torch.save(twice, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"w\.pth.*they hold several \(a\., bb\.\)"):
        ResNet3D(3, "r3d_small", str(tmp_path / "w.pth"))


def test_fresh_weights_are_drawn_as_torchvisions():
    torch.manual_seed(0)
    net = R3D18(2, in_channels=4)
    theirs = torchvision.models.video.r3d_18(weights=None)
    found, expected = net.trunk.stem[0].weight.detach(), theirs.stem[0].weight
    assert found.shape == (64, 4, 3, 7, 7)
    assert found.std() == pytest.approx(expected.detach().std().item(), rel=0.03)
    state = torch.get_rng_state()
    set_channels(theirs.stem[0], 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert theirs.stem[0].weight is expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"in_channels": 0}, r"in_channels=0 must be a whole number, 1 or more"),
        ({"in_channels": None}, r"in_channels=None must be"),
        ({"in_channels": 4, "stem": "mean"}, r"stem='mean' is unknown.*scaled, zero_ir"),
        ({"in_channels": 1, "stem": "zero_ir"}, r"stem=zero_ir is for RGB and more.*scaled"),
    ],
)
def test_settings_that_do_not_fit_are_named(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        ResNet3D(3, "r3d_small", **given)
    assert "\n" not in str(caught.value)


def test_two_channels_are_no_colours(tmp_path):
    torch.save(ResNet3D(3, "r3d_small").state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"in_channels=2 cannot start.*weights=null"):
        ResNet3D(3, "r3d_small", str(tmp_path / "w.pth"), in_channels=2)
    assert ResNet3D(3, "r3d_small", in_channels=2)(noise(1, 2, 4, 16, 16)).shape == (1, 3)


@pytest.mark.parametrize(
    "make", [partial(ResNet3D, 3, "r3d_small"), partial(PAN, 3, "lite", "small", 2, 2)]
)
def test_clips_of_other_channels_are_refused(make):
    with pytest.raises(
        ConfigError, match=r"takes clips of 4 channels, these have 3: take the data it was trained"
    ):
        make(in_channels=4)(noise(1, 3, 4, 16, 16))


@pytest.mark.parametrize("make", [FrameCNN, LRCN, partial(InflatedResNet, backbone="small")])
@pytest.mark.parametrize("channels", [1, 4])
def test_networks_for_rgb_alone_say_so(make, channels):
    with pytest.raises(
        ConfigError, match=rf"clips of 3 channels, these have {channels}: .*model.in_channels"
    ) as caught:
        make(2)(noise(1, channels, 4, 16, 16))
    assert "\n" not in str(caught.value)


# The number of channels ---------------------------------------------------------------------------


def config_of(**model: Any) -> dict[str, Any]:
    task = {"_target_": "lightning_cam.tasks.VideoClassification", "classes": None, "model": model}
    return {
        "task": task,
        "data": {"_target_": "lightning_cam.synthetic.actions.data_module.SyntheticActions"},
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"num_outputs": None, "in_channels": None}, {"num_outputs": 3, "in_channels": 1}),
        ({"num_outputs": 5, "in_channels": 4}, {"num_outputs": 5, "in_channels": 4}),
        ({"num_classes": None}, {"num_classes": 3}),
        ({"num_outputs": 0, "in_channels": 0}, {"num_outputs": 0, "in_channels": 0}),
        ({"hidden": None}, {"hidden": None}),
    ],
)
def test_null_is_what_the_data_have(given, expected):
    config = config_of(**given)
    found = filled(config, ["a", "b", "c"], channels=1)
    assert found["task"]["model"] == expected
    assert config["task"]["model"] == given  # a copy


def test_a_checkpoint_remembers_the_number_of_channels(tmp_path):
    config = config_of(**R3D, in_channels=None, weights=None)
    config["data"]["root"] = str(tmp_path)
    config = filled(config, ["a", "b", "c"], channels=1)
    task = build(config["task"])
    memory = Remember(config["task"], config["data"], ["a", "b", "c"]).memory
    checkpoint = {"state_dict": task.state_dict(), KEY: memory, "epoch": 0, "global_step": 1}
    torch.save(checkpoint, tmp_path / "last.ckpt")
    again, _, _ = rebuild(tmp_path / "last.ckpt")
    assert again.model.trunk.stem[0].in_channels == 1
    clip = noise(1, 1, 4, 16, 16)
    torch.testing.assert_close(again(clip), task.eval()(clip))


@pytest.mark.parametrize(
    ("settings", "channels"),
    [
        ({"spectrum": "ir"}, 1),
        ({"spectrum": "tv"}, 3),
        ({"spectrum": "irtv", "fusion": "union"}, 3),
        ({"spectrum": "irtv", "fusion": "early"}, 4),
    ],
)
def test_multispectral_data_say_how_many_channels_their_clips_have(tmp_path, settings, channels):
    data = SyntheticMultispectral(str(tmp_path), **settings)
    assert data.channels == channels == len(data.reader.transform.mean)


def test_networks_without_this_setting_keep_theirs():
    config = config_of(_target_="lightning_cam.models.FrameCNN", num_outputs=None)
    config = filled(config, ["a", "b", "c"], channels=1)
    assert isinstance(build(config["task"]).model, FrameCNN)
