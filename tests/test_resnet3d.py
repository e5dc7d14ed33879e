"""3D ResNets, and what all 3D networks share: padding, checkpointing, hooks, precision."""

from __future__ import annotations

import copy
import urllib.error
from functools import partial

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import lightning_cam as lc
from lightning_cam.errors import ConfigError, UserError
from lightning_cam.models import MC3_18, R3D18, InflatedResNet, R2Plus1D18, ResNet3D

FULL = {"r3d_18": R3D18, "mc3_18": MC3_18, "r2plus1d_18": R2Plus1D18}
SMALL = {
    "inflated": partial(InflatedResNet, backbone="small"),
    "inflated_replicate": partial(InflatedResNet, backbone="small", temporal_padding="replicate"),
    **{name: partial(ResNet3D, backbone=name) for name in ("r3d_small", "r2plus1d_small")},
}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def clip_of(batch: int = 2, frames: int = 8, size: int = 32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, frames, size, size, generator=generator)


def settled(net: nn.Module) -> nn.Module:
    """Moves the batch norms off their initial statistics and goes to eval mode."""
    net.train()
    with torch.no_grad():
        for seed in range(2):
            net(clip_of(seed=seed))
    return net.eval()


def small(name: str, outputs: int = 4, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    return SMALL[name](outputs, **settings)


# Shapes and counts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "at_400", "gmac", "times"),
    [
        ("r3d_18", 33_170_376, 33_371_472, 325.6, (32, 16, 8, 4)),
        ("mc3_18", 11_494_344, 11_695_440, 346.7, (32, 32, 32, 32)),
        ("r2plus1d_18", 31_304_229, 31_505_325, 324.2, (32, 16, 8, 4)),
    ],
)
def test_full_networks_are_those_of_the_specification(name, parameters, at_400, gmac, times):
    shapes = {}
    with torch.device("meta"):
        net = FULL[name](8)
        for stage in ("stem", "layer1", "layer2", "layer3", "layer4"):
            net.trunk.get_submodule(stage).register_forward_hook(
                lambda _m, _i, output, stage=stage: shapes.update({stage: tuple(output.shape[1:])})
            )
        with FlopCounterMode(display=False) as counter:
            assert net(torch.empty(1, 3, 32, 224, 224)).shape == (1, 8)
        assert (count(net), count(FULL[name](400))) == (parameters, at_400)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, abs=0.06)
    assert shapes == {
        "stem": (64, 32, 112, 112),
        "layer1": (64, times[0], 112, 112),
        "layer2": (128, times[1], 56, 56),
        "layer3": (256, times[2], 28, 28),
        "layer4": (512, times[3], 14, 14),
    }


@pytest.mark.parametrize(
    ("name", "parameters", "time"),
    [("r3d_small", 226_652, 4), ("mc3_small", 81_500, 16), ("r2plus1d_small", 196_325, 4)],
)
def test_small_networks_are_those_of_the_specification(name, parameters, time):
    net = ResNet3D(4, name)
    assert count(net) == parameters
    assert net.trunk(torch.zeros(8, 3, 16, 64, 64)).shape == (8, 64, time, 8, 8)


@pytest.mark.parametrize("name", FULL)
def test_kinetics_weights_give_torchvisions_own_network(name, tmp_path):
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None, num_classes=5)
    theirs = settled(theirs)
    path = tmp_path / "kinetics.pth"
    torch.save(theirs.state_dict(), path)
    ours = FULL[name](5, str(path))
    ours.head.load_state_dict(theirs.fc.state_dict())
    assert set(ours.trunk.state_dict()) == {
        key for key in theirs.state_dict() if not key.startswith("fc.")
    }
    clip = clip_of(frames=9)
    torch.testing.assert_close(ours.eval()(clip), theirs(clip), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("r3d_18", "r3d_18-b3b3357e.pth"),
        ("mc3_18", "mc3_18-a90a0ba3.pth"),
        ("r2plus1d_18", "r2plus1d_18-91a641e6.pth"),
    ],
)
@pytest.mark.parametrize("weights", ["DEFAULT", "KINETICS400_V1"])
def test_weights_are_found_by_name(monkeypatch, tmp_path, name, file, weights):
    def refuse(url, *_args, **_kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with torch.device("meta"), pytest.raises(UserError, match=rf"{file}.*weights=PATH") as caught:
        FULL[name](4, weights)
    assert "\n" not in str(caught.value)


def test_settings_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"backbone='r3d_19' is unknown.*r2plus1d_small"):
        ResNet3D(3, "r3d_19")
    torch.save(ResNet3D(3, "mc3_small").state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"w\.pth.*do not fit the backbone r3d_small: 'layer2"):
        ResNet3D(3, "r3d_small", str(tmp_path / "w.pth"))
    with torch.device("meta"), pytest.raises(ConfigError, match=r"IMAGENET1K_V1.*KINETICS400_V1"):
        R3D18(3, "IMAGENET1K_V1")


# Padded frames ------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(length=st.integers(1, 7), seed=st.integers(0, 99))
def test_where_frames_do_not_meet_a_padded_clip_is_the_truncated_clip(length, seed):
    net = settled(small("inflated", mode="none"))
    clip = clip_of(seed=seed)
    valid = torch.arange(8) < torch.tensor([[8], [length]])
    logits = net(clip, valid)
    torch.testing.assert_close(logits[1:], net(clip[1:, :, :length]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits[:1], net(clip[:1]), atol=1e-5, rtol=1e-4)
    clip[1, :, length:] += 50
    torch.testing.assert_close(net(clip, valid), logits)


def test_a_step_counts_by_its_valid_frames():
    net = settled(small("r3d_small"))
    seen = {}
    net.trunk.register_forward_hook(lambda _m, _i, output: seen.update(maps=output))
    net.head.register_forward_pre_hook(lambda _m, inputs: seen.update(vector=inputs[0]))
    clip = clip_of()  # 8 frames, 2 steps of 4
    net(clip, torch.arange(8) < torch.tensor([[8], [6]]))
    steps = seen["maps"].mean((3, 4))  # (B, D, 2)
    torch.testing.assert_close(seen["vector"][0], steps[0].mean(1))
    torch.testing.assert_close(seen["vector"][1], (4 * steps[1, :, 0] + 2 * steps[1, :, 1]) / 6)


@pytest.mark.parametrize("name", SMALL)
def test_without_padding_it_is_global_average_pooling(name):
    net = settled(small(name))
    clip = clip_of(frames=7)
    expected = net.head(net.trunk(clip).mean((2, 3, 4)))
    torch.testing.assert_close(net(clip), expected)
    torch.testing.assert_close(net(clip, torch.ones(2, 7, dtype=torch.bool)), expected)


@pytest.mark.parametrize("name", SMALL)
def test_a_clip_without_valid_frames_is_finite(name):
    net = settled(small(name))
    logits = net(clip_of(), torch.arange(8) < torch.tensor([[8], [0]]))
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_the_trunks_output_may_be_replaced_by_copies_of_the_batch(name):
    net = settled(small(name))
    clip, valid = clip_of(), torch.arange(8) < torch.tensor([[8], [3]])
    expected = net(clip, valid)
    handle = net.trunk.register_forward_hook(lambda _m, _i, out: torch.cat([out, 0 * out, out]))
    logits = net(clip, valid)
    handle.remove()
    torch.testing.assert_close(logits[:2], expected)
    torch.testing.assert_close(logits[4:], expected)


@pytest.mark.parametrize("name", SMALL)
def test_one_frame_is_a_clip(name):
    assert small(name).eval()(clip_of(frames=1)).isfinite().all()


# Activation checkpointing -------------------------------------------------------------------------


def trained(net: nn.Module, steps: int = 3) -> tuple[list[Tensor], dict[str, Tensor], Tensor]:
    """Gradients of the last step, state and random state after a few optimiser steps."""
    torch.manual_seed(5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        valid = torch.arange(8) < torch.tensor([[8], [5]])
        F.cross_entropy(net(clip_of(seed=step), valid), torch.tensor([0, 2])).backward()
        optimizer.step()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    return gradients, net.state_dict(), torch.get_rng_state()


@pytest.mark.parametrize("change", ["", "frozen", "fixed_norm", "cumulative", "stochastic"])
@pytest.mark.parametrize("name", SMALL)
def test_checkpointing_trains_bit_for_bit_the_same(name, change):
    results = []
    for checkpointing in (False, True):
        net = small(name, dropout=0.5, checkpointing=checkpointing).train()
        for norm in net.trunk.layer3.modules():
            if isinstance(norm, nn.BatchNorm3d):
                if change == "fixed_norm":
                    norm.eval()
                elif change == "cumulative":
                    norm.momentum = None
                elif change == "stochastic":  # random numbers inside a block
                    norm.register_forward_hook(lambda _m, _i, output: F.dropout(output, 0.2))
        if change == "frozen":
            net.trunk.layer2.requires_grad_(False)
        results.append(trained(net))
    (gradients, state, rng), (gradients2, state2, rng2) = results
    assert len(gradients) == len(gradients2) > 10
    assert all(torch.equal(a, b) for a, b in zip(gradients, gradients2, strict=True))
    assert list(state) == list(state2)
    assert all(torch.equal(state[key], state2[key]) for key in state)
    assert torch.equal(rng, rng2)
    batches = [int(value) for key, value in state.items() if key.endswith("batches_tracked")]
    assert set(batches) == ({0, 3} if change == "fixed_norm" else {3})


def test_checkpointing_keeps_less_in_memory():
    def saved(net: nn.Module, clip: Tensor) -> int:
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = net(clip)
        assert output.requires_grad
        return sum(kept.values())

    clip = clip_of(size=64)
    plain, thrifty = (small("inflated", checkpointing=flag) for flag in (False, True))
    assert saved(thrifty.train(), clip) < 0.4 * saved(plain.train(), clip)


def test_checkpointing_recomputes_in_training_only():
    calls = []
    net = small("r3d_small", checkpointing=True)
    net.trunk.layer2[0].conv1.register_forward_hook(lambda *_: calls.append(1))
    net.train()(clip_of()).sum().backward()
    assert len(calls) == 2
    with torch.no_grad():
        net(clip_of())
    net.eval()(clip_of()).sum().backward()
    assert len(calls) == 4


def test_a_graph_may_be_walked_twice_and_a_failure_leaves_the_statistics():
    net = small("inflated", checkpointing=True).train()
    loss = net(clip_of()).sum()
    loss.backward(retain_graph=True)
    first = [p.grad.clone() for p in net.parameters()]
    loss.backward()
    for gradient, parameter in zip(first, net.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, 2 * gradient)
    loss = net(clip_of()).sum()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}

    def fail(*_: object) -> None:
        raise OSError("out of memory")

    net.trunk.layer4[0].relu.register_forward_hook(fail)
    with pytest.raises(OSError, match="out of memory"):
        loss.backward()
    for name, buffer in net.named_buffers():
        assert torch.equal(buffer, before[name])


def test_a_checkpointed_network_can_be_copied():
    net = small("r3d_small", checkpointing=True, dropout=0)
    twin = copy.deepcopy(net)
    twin(clip_of()).sum().backward()
    assert all(p.grad is not None for p in twin.parameters())
    assert all(p.grad is None for p in net.parameters())


# Explaining ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_grad_cam_of_the_trunk_is_cam(name, checkpointing):
    net = settled(small(name, checkpointing=checkpointing)).train()
    clip = clip_of(frames=8, size=64)
    model = lc.Explainable.of(net, net.explain_layers)
    found = lc.explain(model, lc.GradCAM(relu=False), clip, target=1)
    assert net.training
    net.eval()
    with torch.no_grad():
        maps = net.trunk(clip)
        cam = torch.einsum("bdthw,d->bthw", maps, net.head.weight[1]) / maps[0, 0].numel()
    expected = F.interpolate(cam[:, None], (8, 64, 64), mode="trilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(found.heatmap, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("inflated", "trunk.layer4.0.conv2"),  # overwritten by += and ReLU behind it
        ("inflated", "trunk.layer3.0.bn2"),
        ("inflated", "trunk.bn1"),
        ("r3d_small", "trunk.layer4.0.conv2"),
        ("r3d_small", "trunk.stem.1"),
    ],
)
def test_in_place_operations_do_not_reach_what_was_captured(name, layer):
    net = settled(small(name))
    clip = clip_of()
    found = lc.explain(lc.Explainable.of(net, [layer]), lc.GradCAM(), clip, target=2)
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    module = net.get_submodule(layer)
    seen = {}

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        seen["maps"] = output.detach().requires_grad_()
        return seen["maps"].clone()

    handle = module.register_forward_hook(keep)
    (gradient,) = torch.autograd.grad(net(clip)[:, 2].sum(), seen["maps"])
    handle.remove()
    cam = torch.einsum("bdthw,bd->bthw", seen["maps"].detach(), gradient.mean((2, 3, 4))).relu()
    expected = F.interpolate(cam[:, None], clip.shape[2:], mode="trilinear", align_corners=False)
    torch.testing.assert_close(found.heatmap, expected[:, 0], rtol=1e-4, atol=1e-7)
    assert found.heatmap.any()


@pytest.mark.parametrize("name", FULL)
def test_torchvisions_own_networks_are_explained_without_code(name):
    torch.manual_seed(0)
    net = settled(torchvision.models.get_model(name, weights=None, num_classes=5))
    clip = clip_of(frames=8, size=48)
    found = lc.explain(lc.Explainable.of(net, layers=["layer4"]), lc.GradCAM(relu=False), clip)
    assert found.heatmap.shape == (2, 8, 48, 48)
    assert found.heatmap.isfinite().all()
    assert found.heatmap.flatten(1).any(1).all()


# Precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_bfloat16(name, checkpointing):
    # 16 frames: of maps with exactly two steps, oneDNN's bfloat16 weight gradient on CPUs reads
    # memory it never wrote (torch 2.15), now and then NaN.
    clip = clip_of(frames=16)
    net = small(name, checkpointing=checkpointing).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(net(clip), torch.tensor([0, 1]))
    loss.backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in net.parameters())
    net = settled(small(name))
    reference = net(clip).detach()
    logits = net.bfloat16()(clip.bfloat16(), torch.ones(2, 16, dtype=torch.bool))
    assert logits.dtype == torch.bfloat16
    assert (logits - reference).abs().max() < 0.05 * reference.abs().max()
    found = lc.explain(lc.Explainable.of(net, ["trunk"]), lc.GradCAM(relu=False), clip)
    assert found.heatmap.dtype == torch.float32
    assert found.heatmap.isfinite().all()
    assert found.heatmap.flatten(1).any(1).all()
