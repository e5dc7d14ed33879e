"""Networks: counts and shapes of the specification, read-outs, padding, freezing, weights."""

from __future__ import annotations

import urllib.error

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_cam.errors import ConfigError, UserError
from lightning_cam.models import LRCN, FrameCNN
from lightning_cam.models.trunks import CHANNELS, PositionNeck, build_neck, build_trunk

TRUNKS = {
    "small": 14_028,
    "alexnet": 2_469_696,
    "vgg16": 14_714_688,
    "squeezenet1_1": 722_496,
    "resnet18": 11_176_512,
    "resnet50": 23_508_032,
}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def clip_of(batch: int = 2, frames: int = 5, size: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, frames, size, size, generator=torch.manual_seed(seed))


def settled(net: nn.Module) -> nn.Module:
    """Moves the batch norms off their initial statistics and goes to eval mode."""
    net.train()
    with torch.no_grad():
        for seed in range(3):
            net(clip_of(seed=seed))
    return net.eval()


class Hooked:
    """What a module returned."""

    def __init__(self, module: nn.Module) -> None:
        module.register_forward_hook(lambda _m, _i, output: setattr(self, "output", output))


# Counts and shapes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "at_224", "at_64"),
    [
        ("small", (48, 28, 28), (48, 8, 8)),
        ("alexnet", (256, 13, 13), (256, 3, 3)),
        ("vgg16", (512, 14, 14), (512, 4, 4)),
        ("squeezenet1_1", (512, 13, 13), (512, 3, 3)),
        ("resnet18", (512, 7, 7), (512, 2, 2)),
        ("resnet50", (2048, 7, 7), (2048, 2, 2)),
    ],
)
def test_trunk_has_the_parameters_and_maps_of_the_specification(backbone, at_224, at_64):
    with torch.device("meta"):
        trunk = build_trunk(backbone)
        neck, features = build_neck(backbone)
        assert count(trunk) == TRUNKS[backbone]
        for size, shape in ((224, at_224), (64, at_64)):
            maps = trunk(torch.empty(2, 3, 3, size, size))
            assert maps.shape == (6, *shape)
            assert neck(maps).shape == (6, features)
    assert shape[0] == CHANNELS[backbone]


@pytest.mark.parametrize(
    ("backbone", "hidden", "expected"),
    [
        ("small", 192, 282_264),
        ("resnet18", 256, 11_967_819),
        ("resnet18", 512, 13_283_403),
        ("resnet50", 256, 25_872_203),
        ("resnet50", 512, 28_760_651),
        ("alexnet", 256, 2_998_859),
        ("vgg16", 256, 15_505_995),
        ("squeezenet1_1", 256, 1_513_803),
    ],
)
def test_lrcn_has_the_parameters_of_the_specification(backbone, hidden, expected):
    with torch.device("meta"):
        assert count(LRCN(11, backbone=backbone, hidden=hidden)) == expected


@pytest.mark.parametrize(
    ("features", "hidden", "expected"),
    [
        (512, 256, 788_480),
        (512, 512, 2_101_248),
        (512, 1024, 6_299_648),
        (2048, 256, 2_361_344),
        (2048, 512, 5_246_976),
        (2048, 1024, 12_591_104),
    ],
)
def test_lstm_has_the_parameters_of_the_specification(features, hidden, expected):
    backbone = {512: "resnet18", 2048: "resnet50"}[features]
    with torch.device("meta"):
        assert count(LRCN(4, backbone=backbone, hidden=hidden).lstm) == expected


@pytest.mark.parametrize(("hidden", "expected"), [(256, 33_024), (512, 65_792)])
def test_attention_adds_the_parameters_of_the_specification(hidden, expected):
    with torch.device("meta"):
        plain, attended = (LRCN(11, hidden=hidden, readout=r) for r in ("mean", "attention"))
        assert count(attended) - count(plain) == expected


def test_dotted_names_of_torchvision_exist():
    with torch.device("meta"):
        assert "trunk.layer3.1.conv2" in dict(FrameCNN(3, backbone="resnet18").named_modules())
        assert "trunk.features.8" in dict(FrameCNN(3, backbone="alexnet").named_modules())


def test_squeezenet_logits_are_not_cut_at_zero():
    torch.manual_seed(0)
    net = FrameCNN(50, backbone="squeezenet1_1").eval()
    logits = net(clip_of(size=64))
    assert (logits < 0).float().mean() > 0.2
    assert not (logits == 0).any()


def test_trunk_folds_frames_batch_major():
    trunk = build_trunk("small").eval()
    clip = clip_of(batch=2, frames=3)
    maps = trunk(clip)
    torch.testing.assert_close(maps[1 * 3 + 2], trunk(clip[1:, :, 2:])[0])


# The position neck --------------------------------------------------------------------------------


def test_position_neck_finds_a_peak():
    neck = PositionNeck(2).eval()
    maps = torch.zeros(1, 2, 5, 9)
    maps[0, 0, 1, 6] = 40.0  # row 1 of 5 is y=-0.5, column 6 of 9 is x=+0.5
    maps[0, 1, 4, 0] = 20.0  # y=+1, x=-1
    seen = Hooked(neck.project)
    neck.project.register_forward_pre_hook(lambda _m, inputs: setattr(seen, "input", inputs[0]))
    neck(maps)
    expected = torch.tensor([[40.0, 20.0, 1.5, -3.0, -1.5, 3.0]])  # maxima, 3x, 3y
    torch.testing.assert_close(seen.input, expected, atol=1e-4, rtol=0)


def test_position_neck_of_a_constant_map_is_central_and_finite():
    neck = PositionNeck(3).eval()
    maps = torch.full((2, 3, 4, 4), 0.7, requires_grad=True)
    neck(maps).sum().backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


# LRCN ---------------------------------------------------------------------------------------------


def test_forget_bias_is_one_in_total():
    lstm = LRCN(3, hidden=7).lstm
    total = lstm.bias_ih_l0 + lstm.bias_hh_l0
    assert total[7:14].eq(1).all()
    assert total[:7].eq(0).all()
    assert total[14:].eq(0).all()
    for gate in lstm.weight_hh_l0.chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(7))


@pytest.mark.parametrize("readout", ["mean", "last", "attention"])
def test_steps_depend_on_no_later_frame(readout):
    net = settled(LRCN(4, hidden=8, readout=readout))
    maps = Hooked(net.trunk)
    _, steps = net.forward_steps(clip_of(frames=5))
    for step in range(5):
        (gradient,) = torch.autograd.grad(
            steps[:, step].pow(2).sum(), maps.output, retain_graph=True
        )
        energy = gradient.unflatten(0, (2, 5)).abs().sum((2, 3, 4))  # (B, T)
        assert energy[:, step + 1 :].eq(0).all()
        assert energy[:, : step + 1].gt(0).all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("readout", ["mean", "last", "attention"])
def test_logits_are_the_weighted_sum_of_the_step_logits(readout, training):
    net = settled(LRCN(4, hidden=16, readout=readout, dropout=0.5)).train(training)
    weights = Hooked(net.attention) if readout == "attention" else None
    head = Hooked(net.head)
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    logits, steps = net.forward_steps(clip_of(), valid)
    assert head.output is steps
    expected = {
        "mean": torch.tensor([[0.2] * 5, [1 / 3] * 3 + [0.0] * 2]),
        "last": torch.tensor([[0.0, 0, 0, 0, 1], [0, 0, 1, 0, 0]]),
        "attention": weights.output if weights else None,
    }[readout]
    torch.testing.assert_close(logits, torch.einsum("bt,btk->bk", expected, steps))
    if weights:
        assert weights.output[1, 3:].eq(0).all()
        torch.testing.assert_close(weights.output.sum(1), torch.ones(2))


def test_dropout_is_one_mask_for_all_steps():
    net = settled(LRCN(4, hidden=64, readout="attention", dropout=0.5)).train()
    state, dropped, weights = Hooked(net.lstm), {}, Hooked(net.attention)
    net.head.register_forward_pre_hook(lambda _m, inputs: dropped.update(state=inputs[0]))
    logits = net(clip_of())  # the head applied to the attended state, after dropout
    kept = dropped["state"].ne(0)  # (B, T, hidden)
    assert (kept == kept[:, :1]).all()
    assert 0.2 < kept.float().mean() < 0.8
    pooled = torch.einsum("bt,bth->bh", weights.output, state.output[0]) * kept[:, 0] * 2
    torch.testing.assert_close(logits, net.head(pooled))


def test_attention_formula():
    net = settled(LRCN(4, hidden=8, readout="attention", attention_size=6))
    weights, state = Hooked(net.attention), Hooked(net.lstm)
    net(clip_of())
    inner, _, outer = net.score
    energy = torch.tanh(state.output[0] @ inner.weight.T + inner.bias) @ outer.weight[0]
    energy = energy / 6**0.5
    torch.testing.assert_close(weights.output, energy.exp() / energy.exp().sum(1, keepdim=True))


@pytest.mark.parametrize("make", [FrameCNN, LRCN])
@pytest.mark.parametrize("readout", ["mean", "last", "attention"])
@settings(max_examples=4, deadline=None)
@given(length=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_padded_clip_is_the_truncated_clip(make, readout, length, seed):
    extra = {} if make is FrameCNN else {"readout": readout, "hidden": 8}
    net = settled(make(4, **extra))
    clip = clip_of(frames=5, seed=seed)
    valid = torch.arange(5) < torch.tensor([[5], [length]])
    logits = net(clip, valid)
    torch.testing.assert_close(logits[1:], net(clip[1:, :, :length]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(logits[:1], net(clip[:1]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("net", [FrameCNN(4, dropout=0), LRCN(4, readout="attention", dropout=0)])
def test_padding_leaves_no_trace_in_training(net):
    valid = torch.arange(5) < torch.tensor([[5], [3]])
    start = {name: value.clone() for name, value in net.state_dict().items()}
    seen = []
    for garbage in (0.0, 50.0):
        net.load_state_dict(start)
        net.train().zero_grad()
        clip = clip_of()
        clip[1, :, 3:] += garbage
        net(clip, valid).pow(2).sum().backward()
        seen.append([p.grad for p in net.parameters()] + [b.clone() for b in net.buffers()])
    for a, b in zip(*seen, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("valid", [None, torch.tensor([[True, False]])])
@pytest.mark.parametrize("make", [FrameCNN, LRCN])
def test_a_last_batch_of_one_frame_is_trained_on(make, valid):
    net = settled(make(4)).train()
    before = {name: value.clone() for name, value in net.neck.named_buffers()}
    net(clip_of(batch=1, frames=1 if valid is None else 2), valid).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert net.neck.project.weight.grad.any()
    # one vector has no variance, so it leaves the statistics alone
    assert all(torch.equal(value, before[name]) for name, value in net.neck.named_buffers())


@pytest.mark.parametrize("readout", ["mean", "last", "attention"])
def test_a_clip_without_valid_frames_is_finite(readout):
    net = settled(LRCN(4, hidden=8, readout=readout))
    logits = net(clip_of(), torch.tensor([[True] * 5, [False] * 5]))
    logits[0].sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("net", [FrameCNN(4), LRCN(4, readout="attention")])
def test_nothing_is_kept_between_batches(net):
    net = settled(net)
    first = net(clip_of())
    net(clip_of(batch=3, seed=1))
    assert torch.equal(net(clip_of()), first)


@pytest.mark.parametrize("net", [FrameCNN(4), LRCN(4, readout="attention")])
def test_the_trunks_output_may_be_replaced_by_copies_of_the_batch(net):
    net = settled(net)
    clip, valid = clip_of(), torch.arange(5) < torch.tensor([[5], [3]])
    expected = net(clip, valid)
    handle = net.trunk.register_forward_hook(lambda _m, _i, out: torch.cat([out, 0 * out, out]))
    logits = net(clip, valid)
    handle.remove()
    torch.testing.assert_close(logits[:2], expected)
    torch.testing.assert_close(logits[4:], expected)


@pytest.mark.parametrize("net", [FrameCNN(4), LRCN(4, readout="attention")])
def test_the_trunk_sees_every_frame_alone_and_the_rest_sees_the_trunk_alone(net):
    net = settled(net)
    part = net.get_submodule(net.explain_frames)
    clip, maps = clip_of(), Hooked(part)
    expected = net(clip)
    whole = maps.output
    for frame in range(5):
        torch.testing.assert_close(part(clip[:, :, [frame]]), whole.unflatten(0, (2, 5))[:, frame])
    handle = part.register_forward_hook(lambda *_: whole)
    assert torch.equal(net(clip_of(seed=9)), expected)
    handle.remove()


def test_frame_cnns_gradient_splits_per_frame():
    net = settled(FrameCNN(4))
    maps = Hooked(net.trunk)
    logits, steps = net.forward_steps(clip_of())
    (whole,) = torch.autograd.grad(logits[:, 1].sum(), maps.output, retain_graph=True)
    (frame,) = torch.autograd.grad(steps[:, 2, 1].sum(), maps.output)
    whole, frame = whole.unflatten(0, (2, 5)), frame.unflatten(0, (2, 5))
    assert frame[:, [0, 1, 3, 4]].eq(0).all()
    torch.testing.assert_close(whole[:, 2], frame[:, 2] / 5)


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match=r"backbone='resnet19'.*resnet18"):
        LRCN(4, backbone="resnet19")
    with pytest.raises(ConfigError, match=r"readout='max'.*attention"):
        LRCN(4, readout="max")


# Freezing and weights -----------------------------------------------------------------------------


def test_a_frozen_trunk_does_not_move():
    net = LRCN(4, frozen=True)
    before = {name: value.clone() for name, value in net.trunk.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    for mode in (True, False, True):
        net.train(mode)
        net(clip_of()).pow(2).sum().backward()
        optimizer.step()
    assert not any(module.training for module in net.trunk.modules())
    assert net.neck.training
    assert all(torch.equal(before[name], v) for name, v in net.trunk.state_dict().items())
    assert not any(p.requires_grad for p in net.trunk.parameters())


def test_weights_from_a_torchvision_file(tmp_path):
    torch.manual_seed(1)
    source = torchvision.models.squeezenet1_1(weights=None)
    path = tmp_path / "squeezenet1_1-b8a52dc0.pth"
    torch.save(source.state_dict(), path)
    net = FrameCNN(4, backbone="squeezenet1_1", weights=str(path))
    frames = clip_of(size=64)
    expected = source.features(frames.transpose(1, 2).flatten(0, 1))
    torch.testing.assert_close(net.trunk(frames), expected)


def test_lrcn_starts_from_a_frame_cnns_checkpoint(tmp_path):
    source = settled(FrameCNN(4))
    state = {f"model.{name}": value for name, value in source.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "last.ckpt")
    net = LRCN(4, weights=str(tmp_path / "last.ckpt"))
    for name, value in net.trunk.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, source.trunk.state_dict()[name])
    # The statistics that came with the weights stay; the parameters are trained.
    mean = net.trunk.bn1.running_mean.clone()
    net.train()(clip_of()).sum().backward()
    assert torch.equal(net.trunk.bn1.running_mean, mean)
    assert net.trunk.bn1.weight.grad is not None


class Exploding:
    def __reduce__(self):
        return exec, ("raise SystemError('code ran')",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"conv1.weight": torch.zeros(12, 3, 5, 5)}, r"missing, first 'bn1.weight'"),
        ({"a": torch.zeros(1)}, r"do not fit the backbone small: .* first 'conv1.weight'"),
        (torch.zeros(3), r"holds a Tensor, not a state dict"),
        (Exploding(), r"without running code"),
        (b"", r"without running code"),
        (b"PK\x03\x04 cut", r"without running code"),
        (b"hi\n", r"without running code"),
        (b"a,b\n1,2\n", r"without running code"),
    ],
)
def test_a_wrong_weights_file_is_named(tmp_path, content, message):
    path = tmp_path / "w.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ConfigError, match=message) as caught:
        LRCN(4, weights=str(path))
    assert "w.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_width_are_named(tmp_path):
    state = build_trunk("small").state_dict()
    state["conv2.weight"] = torch.zeros(24, 12, 5, 5)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"'conv2.weight' is \(24, 12, 5, 5\), expected"):
        LRCN(4, weights=str(tmp_path / "w.pth"))


def test_weights_that_do_not_exist_are_named():
    with pytest.raises(ConfigError, match=r"'no/such.pth'.*DEFAULT"):
        build_trunk("squeezenet1_1", "no/such.pth")
    with pytest.raises(ConfigError, match=r"'DEFAULT'.*none for this backbone"):
        build_trunk("small", "DEFAULT")


def test_a_failed_download_names_the_address_and_the_remedy(monkeypatch, tmp_path):
    def refuse(*_args, **_kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(UserError, match=r"squeezenet1_1-b8a52dc0\.pth.*no route.*weights=PATH"):
        build_trunk("squeezenet1_1", "DEFAULT")


@pytest.mark.parametrize("readout", ["mean", "last", "attention"])
def test_bfloat16_autocast_gives_float32_logits_and_attention(readout):
    net = LRCN(4, readout=readout)
    weights = Hooked(net.attention) if readout == "attention" else None
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(clip_of())
    logits.sum().backward()
    assert logits.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    if weights:
        torch.testing.assert_close(weights.output.sum(1), torch.ones(2), atol=1e-6, rtol=0)
