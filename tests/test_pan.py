"""PAN: counts and shapes of the specification, what its parts compute, and its explanations."""

from __future__ import annotations

import math
import urllib.error

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
from lightning_cam.models import PAN
from lightning_cam.models.pan_parts import (
    Appearance,
    ShiftedConv2d,
    TimescalePooling,
    shift_segments,
)
from lightning_cam.models.stems import alike_weights, stem_weights
from lightning_cam.tasks import VideoClassification

SINGLE = ("lite", "rgb", "pa")
VARIANTS = (*SINGLE, "full")
S, M = 4, 3  # segments and frames of the tests; 12 frames


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clip_of(batch: int = 2, size: int = 24, seed: int = 0, channels: int = 3) -> Tensor:
    return noise(batch, channels, S * M, size, size, seed=seed)


def small(variant: str = "lite", **given: object) -> PAN:
    """With other statistics than the initial ones, in eval mode."""
    torch.manual_seed(0)
    net = PAN(5, variant, "small", S, M, **{"dropout": 0.0, **given}).train()  # type: ignore[arg-type]
    with torch.no_grad():
        for seed in range(2):
            net(clip_of(seed=seed, channels=given.get("in_channels", 3)))  # type: ignore[arg-type]
    return net.eval()


def streams_of(net: PAN) -> list[PAN]:
    return [net.rgb, net.pa] if net.variant == "full" else [net]


# Counts and shapes --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "counts", "gmacs"),
    [
        ("rgb", (23_518_544, 23_524_816, 23_527_952), (None, 32.70, None)),
        ("pa", (23_525_216, 23_526_000, 23_526_392), (None, 34.59, None)),
        ("lite", (23_528_352, 23_535_408, 23_538_936), (33.64, 35.53, 36.47)),
        ("full", (47_043_760, 47_050_816, 47_054_344), (65.40, 67.29, 68.22)),
    ],
)
def test_pan_is_that_of_the_specification(variant, counts, gmacs):
    shapes = {}
    with torch.device("meta"):
        for channels, expected, gmac in zip((1, 3, 4), counts, gmacs, strict=True):
            net = PAN(8, variant, in_channels=channels)
            assert count(net) == expected
            for stream in streams_of(net):
                for name in ("conv1", "layer1", "layer4"):
                    stream.trunk.get_submodule(name).register_forward_hook(
                        lambda _m, i, out, name=name: shapes.update({name: (i[0].shape, out.shape)})
                    )
            with FlopCounterMode(display=False) as counter:
                assert net(torch.empty(2, channels, 32, 224, 224)).shape == (2, 8)
            if gmac is not None:
                assert counter.get_total_flops() / 4e9 == pytest.approx(gmac, abs=0.011)
            inputs = {"rgb": channels, "lite": channels + 3}.get(variant, 3)
            assert shapes["conv1"][0] == (16, inputs, 224, 224)
            assert shapes["layer1"][1] == (16, 256, 56, 56)
            assert shapes["layer4"][1] == (16, 2048, 7, 7)


@pytest.mark.parametrize(
    ("variant", "expected"), [("lite", 79_852), ("rgb", 78_068), ("pa", 79_252), ("full", 157_320)]
)
def test_small_pan_is_that_of_the_specification(variant, expected):
    with torch.device("meta"):
        net = PAN(4, variant, "small", 4, 4)
        assert count(net) == expected
        maps = []
        for stream in streams_of(net):
            stream.trunk.register_forward_hook(lambda _m, _i, output: maps.append(output.shape))
        assert net(torch.empty(8, 3, 16, 64, 64)).shape == (8, 4)
        assert set(maps) == {(8 * 4, 64, 8, 8)}


@pytest.mark.parametrize(("channels", "expected"), [(3, 1184), (1, 400), (4, 1576)])
def test_motion_maps_cost_as_much_as_the_specification_says(channels, expected):
    part = Appearance(channels, 1e-3)
    assert count(part) == expected
    assert part.conv.bias.eq(0).all()
    assert part.conv.weight.detach().std() == pytest.approx(1e-3, rel=0.2)


@pytest.mark.parametrize(("classes", "expected"), [(8, 16_784), (174, 356_918)])
def test_pooling_and_head_cost_as_much_as_the_specification_says(classes, expected):
    with torch.device("meta"):
        net = PAN(classes)
        assert count(net.pool) + count(net.head) == expected


@pytest.mark.parametrize(("backbone", "std"), [("resnet50", 1e-3), ("small", 0.02)])
def test_linear_layers_start_small(backbone, std):
    net = PAN(50, backbone=backbone)
    for linear in (net.pool.score[0], net.pool.score[2], net.head):
        assert linear.weight.detach().std() == pytest.approx(std, rel=0.2)
    assert net.head.bias.eq(0).all()


# Persistence of appearance ------------------------------------------------------------------------


def test_a_still_scene_has_the_least_motion_and_a_finite_gradient():
    torch.manual_seed(0)
    part = Appearance(3, 0.05).double()
    frames = noise(2, 1, 3, 9, 9).double().repeat(1, 4, 1, 1, 1).requires_grad_()
    maps = part(frames)
    assert maps.shape == (2, 3, 9, 9)
    torch.testing.assert_close(maps, torch.full_like(maps, math.sqrt(8) * 1e-6), rtol=1e-9, atol=0)
    maps.sum().backward()
    for gradient in (frames.grad, part.conv.weight.grad, part.conv.bias.grad):
        assert gradient.isfinite().all()
    assert frames.grad.any()


def test_motion_maps_are_an_explicit_loop():
    torch.manual_seed(0)
    part = Appearance(2, 0.3).double()
    nn.init.normal_(part.conv.bias)
    frames = noise(3, 4, 2, 8, 7).double()
    expected = torch.zeros(3, 3, 8, 7, dtype=torch.float64)
    for n in range(3):
        features = [part.conv(frames[n, j][None])[0] for j in range(4)]
        for j in range(3):
            for channel in range(8):
                change = features[j][channel] - features[j + 1][channel] + 1e-6
                expected[n, j] += change**2
    torch.testing.assert_close(part(frames), expected.sqrt())


def test_motion_maps_survive_half_precision():
    torch.manual_seed(0)
    part = Appearance(3, 0.05).half()
    maps = part(noise(1, 1, 3, 8, 8).repeat(1, 3, 1, 1, 1).half())
    maps.sum().backward()
    assert maps.dtype == torch.float16
    assert part.conv.weight.grad.isfinite().all()


# Shifts -------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3), segments=st.sampled_from([2, 4, 8]), channels=st.sampled_from([8, 20])
)
def test_shifts_are_an_explicit_loop(batch, segments, channels):
    maps = noise(batch * segments, channels, 2, 3)
    eighth = channels // 8
    found = shift_segments(maps, segments)
    assert found.shape == maps.shape
    for b in range(batch):
        for s in range(segments):
            row, here = b * segments + s, maps[b * segments + s]
            after = maps[row + 1, :eighth] if s + 1 < segments else torch.zeros(eighth, 2, 3)
            before = maps[row - 1, eighth : 2 * eighth] if s else torch.zeros(eighth, 2, 3)
            assert torch.equal(found[row], torch.cat([after, before, here[2 * eighth :]]))


def test_every_block_begins_with_a_shift_and_names_are_torchvisions():
    with torch.device("meta"):
        net, theirs = PAN(8, "rgb"), torchvision.models.resnet50(weights=None)
    shifts = [name for name, m in net.trunk.named_modules() if isinstance(m, ShiftedConv2d)]
    assert len(shifts) == 16
    assert all(name.endswith(".conv1") for name in shifts)
    assert {n: v.shape for n, v in net.trunk.state_dict().items()} == {
        n: v.shape for n, v in theirs.state_dict().items() if not n.startswith("fc.")
    }


def test_only_the_residual_branch_is_shifted():
    net = small("rgb")
    block, maps = net.trunk.layer1[0], noise(2 * S, 8, 6, 6)
    nn.init.zeros_(block.bn2.weight)
    nn.init.zeros_(block.bn2.bias)
    assert torch.equal(block(maps), maps.relu())


def test_segments_see_their_neighbours_and_clips_do_not_see_each_other():
    net = small("rgb").double()
    clip = clip_of().double()
    changed = clip.clone()
    changed[0, :, 0] += 1
    maps = []
    net.trunk.register_forward_hook(lambda _m, _i, output: maps.append(output))
    first, second = net(clip), net(changed)
    differs = (maps[0] - maps[1]).unflatten(0, (2, S)).flatten(2).abs().amax(2) > 0  # (B, S)
    assert differs.tolist() == [[True] * S, [False] * S]
    assert torch.equal(first[1], second[1])
    torch.testing.assert_close(first[1:], net(clip[1:]))


# Pooling over timescales --------------------------------------------------------------------------


def test_eight_segments_have_these_seven_timescales():
    pool = TimescalePooling(8, 0.02)
    found = pool.maxima(torch.eye(8)[None])  # segment s is 1 in channel s
    groups = [maximum.nonzero().flatten().tolist() for maximum in found[0]]
    everything, even, odd = [*range(8)], [0, 2, 4, 6], [1, 3, 5, 7]
    assert groups == [everything, even, odd, [0, 4], [1, 5], [2, 6], [3, 7]]


@settings(max_examples=15, deadline=None)
@given(segments=st.sampled_from([2, 4, 8, 16]), seed=st.integers(0, 99))
def test_timescales_are_dilated_max_pooling(segments, seed):
    vectors = noise(2, segments, 5, seed=seed)
    pool = TimescalePooling(segments, 0.02)
    levels = [2**i for i in range(int(math.log2(segments)))]
    expected = [
        F.max_pool1d(vectors.transpose(1, 2), segments // d, 1, dilation=d).transpose(1, 2)
        for d in levels
    ]
    found = pool.maxima(vectors)
    assert found.shape == (2, segments - 1, 5)
    assert torch.equal(found, torch.cat(expected, 1))


def test_timescales_are_weighted_by_a_softmax_of_their_means():
    torch.manual_seed(0)
    pool = TimescalePooling(8, 1.0)
    vectors, seen = noise(3, 8, 16), []
    pool.weights.register_forward_hook(lambda _m, _i, output: seen.append(output))
    found = pool(vectors)
    maxima = pool.maxima(vectors)
    first, _, second = pool.score
    scores = (maxima.mean(2) @ first.weight.T).relu() @ second.weight.T
    weights = scores.exp() / scores.exp().sum(1, keepdim=True)
    assert seen[0].shape == (3, 7)
    torch.testing.assert_close(seen[0], weights)
    torch.testing.assert_close(found, torch.einsum("bn,bnd->bd", weights, maxima))
    nn.init.zeros_(second.weight)
    torch.testing.assert_close(pool(vectors), maxima.mean(1))
    assert torch.equal(seen[1], torch.full((3, 7), 1 / 7))


# The network --------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", SINGLE)
def test_what_the_backbone_sees_of_a_segment(variant):
    net, clip, seen = small(variant), clip_of(), []
    net.trunk.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    net(clip)
    assert len(seen[0]) == 2 * S
    for row, image in enumerate(seen[0]):
        b, s = divmod(row, S)
        frames = clip[b, :, s * M : (s + 1) * M].transpose(0, 1)  # (m, C, H, W)
        if variant != "pa":
            assert torch.equal(image[:3], frames[0])
        if variant != "rgb":
            torch.testing.assert_close(image[-(M - 1) :], net.motion(frames[None])[0])


def test_full_is_the_mean_of_its_streams_and_trains_both():
    net, clip = small("full"), clip_of()
    logits = net.train()(clip)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert net.pa.motion.conv.weight.grad.any()
    net.eval()
    torch.testing.assert_close(net(clip), (net.rgb(clip) + net.pa(clip)) / 2)
    assert (net.rgb.variant, net.pa.variant) == ("rgb", "pa")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_still_clip_trains(variant):
    net = small(variant).train()
    still = clip_of()[:, :, :1].repeat(1, 1, S * M, 1, 1)
    F.cross_entropy(net(still), torch.tensor([0, 1])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("variant", SINGLE)
def test_the_trunks_output_may_be_replaced_by_copies_of_the_batch(variant):
    net, clip = small(variant), clip_of()
    expected = net(clip)
    handle = net.trunk.register_forward_hook(lambda _m, _i, out: torch.cat([out, 0 * out, out]))
    logits = net(clip)
    handle.remove()
    torch.testing.assert_close(logits[:2], expected)
    torch.testing.assert_close(logits[4:], expected)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("channels", [1, 4])
def test_other_spectra(variant, channels):
    net = small(variant, in_channels=channels)
    assert net(clip_of(channels=channels)).shape == (2, 5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_bfloat16(variant):
    net, clip = small(variant), clip_of()
    reference = net(clip).detach()
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(net.train()(clip), torch.tensor([0, 1]))
    loss.backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in net.parameters())
    net = small(variant).bfloat16()
    logits = net(clip.bfloat16())
    assert logits.dtype == torch.bfloat16
    assert (logits - reference).abs().max() < 0.1 * reference.abs().max()


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"variant": "tiny"}, r"variant='tiny' is unknown.*lite, full, rgb, pa"),
        ({"backbone": "resnet18"}, r"backbone='resnet18' is unknown.*resnet50, small"),
        ({"segments": 6}, r"segments=6 must be a power of two"),
        ({"segments": 1}, r"segments=1 must be a power of two"),
        ({"frames": 1}, r"frames=1 to a segment show no motion"),
        ({"in_channels": 0}, r"in_channels=0 must be"),
        (
            {"weights": {"rgb": "a", "pa": "b"}},
            r"weights=.*variant=full takes one path, or one for rgb",
        ),
        ({"variant": "full", "weights": {"rgb": "a"}}, r"one for rgb and one for pa"),
        ({"weights": "DEFAULT"}, r"DEFAULT.*none for this backbone"),
    ],
)
def test_settings_that_do_not_fit_are_named(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        PAN(3, **{"backbone": "small", **given})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("variant", VARIANTS)
def test_clips_of_another_length_are_refused(variant):
    message = r"4 segments of 3 frames are 12, but the clip has 16; set data.num_frames=12"
    with pytest.raises(ConfigError, match=message):
        small(variant)(noise(1, 3, 16, 24, 24))


# Weights ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_imagenet_weights(tmp_path):
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None).state_dict()
    path = tmp_path / "resnet50-11ad3fa6.pth"
    torch.save(theirs, path)
    first = theirs["conv1.weight"]
    for variant, channels, expected in (
        ("rgb", 1, stem_weights(first, 1)),
        ("rgb", 4, stem_weights(first, 4)),
        ("pa", 1, first),  # three maps
        ("lite", 3, alike_weights(first, 6)),
    ):
        net = PAN(8, variant, in_channels=channels, weights=str(path))
        assert torch.equal(net.trunk.conv1.weight, expected)
        assert torch.equal(net.trunk.layer4[2].conv1.weight, theirs["layer4.2.conv1.weight"])
        assert all(m.training for m in net.modules())
    assert torch.equal(PAN(8, "pa", frames=6, weights=str(path)).trunk.conv1.weight[:, :1],
                       first.mean(1, keepdim=True))  # fmt: skip


def test_imagenet_weights_are_found_by_name(monkeypatch, tmp_path):
    def refuse(*_args, **_kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with (
        torch.device("meta"),
        pytest.raises(UserError, match=r"resnet50-11ad3fa6\.pth.*no route.*weights=PATH"),
    ):
        PAN(8, weights="DEFAULT")


def saved(net: nn.Module, path) -> str:
    state = {f"model.{name}": value for name, value in net.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, path)
    return str(path)


def test_infrared_alone_is_rgb_on_grey_images(tmp_path):
    for variant in ("rgb", "pa"):
        net = small(variant)
        one = PAN(5, variant, "small", S, M, 1, saved(net, tmp_path / "last.ckpt")).eval()
        for part in ("pool", "head"):
            one.get_submodule(part).load_state_dict(net.get_submodule(part).state_dict())
        grey = clip_of(channels=1)
        expected = net(grey.repeat(1, 3, 1, 1, 1))
        torch.testing.assert_close(one(grey), expected, rtol=1e-4, atol=1e-5)


def test_a_pan_of_other_classes_starts_another(tmp_path):
    source = small("lite")
    net = PAN(9, "lite", "small", S, M, weights=saved(source, tmp_path / "last.ckpt"))
    for part in ("trunk", "motion"):
        for name, value in net.get_submodule(part).state_dict().items():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(value, source.get_submodule(part).state_dict()[name])


def test_full_is_put_together_from_streams_trained_apart(tmp_path):
    rgb, pa, clip = small("rgb"), small("pa"), clip_of()
    with torch.no_grad():
        pa.head.weight += 1
    weights = {"rgb": saved(rgb, tmp_path / "a.ckpt"), "pa": saved(pa, tmp_path / "b.ckpt")}
    net = PAN(5, "full", "small", S, M, weights=weights).eval()
    torch.testing.assert_close(net(clip), (rgb(clip) + pa(clip)) / 2)
    with pytest.raises(
        ConfigError, match=r"a\.ckpt.*PAN's pa: .* missing, first 'motion.conv.weight'"
    ):
        PAN(5, "full", "small", S, M, weights={**weights, "pa": weights["rgb"]})
    whole = saved(net, tmp_path / "full.ckpt")
    with pytest.raises(ConfigError, match=r"hold several \(model.pa.trunk., model.rgb.trunk.\)"):
        PAN(5, "full", "small", S, M, weights=whole)


# Explaining ---------------------------------------------------------------------------------------


def task_of(variant: str) -> VideoClassification:
    return VideoClassification(small(variant).double(), list("abcde")).eval()


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("variant", VARIANTS)
def test_grad_cam_is_an_explicit_computation_per_segment(variant, index):
    task, clip = task_of(variant), clip_of().double()
    layers = list(task.explainable().layers)
    assert layers == (["rgb.trunk", "pa.trunk"] if variant == "full" else ["trunk"])
    layer = layers[min(index, len(layers) - 1)]
    found = lc.explain(task.explainable(), lc.GradCAM(layer, relu=False), clip, 2)
    assert "pooled over space" in found.caption and "spacetime" not in found.caption

    seen = {}

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        seen["maps"] = output.detach().requires_grad_()
        return seen["maps"].clone()

    handle = task.model.get_submodule(layer).register_forward_hook(keep)
    score = task(clip)[:, 2].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, seen["maps"])
    size = clip.shape[-2:]
    for b in range(2):
        for s in range(S):
            row = b * S + s
            weights = gradient[row].mean((1, 2))  # (D,)
            cam = torch.einsum("d,dhw->hw", weights, seen["maps"][row].detach())
            cam = F.interpolate(cam[None, None], size, mode="bilinear", align_corners=False)[0, 0]
            for frame in range(s * M, (s + 1) * M):
                torch.testing.assert_close(found.heatmap[b, frame], cam, rtol=1e-9, atol=1e-15)
    # Segments differ, and so do their channel weights: the maxima route the gradient.
    assert not torch.allclose(found.heatmap[:, 0], found.heatmap[:, M])
    assert (gradient.mean((2, 3)).unflatten(0, (2, S)).var(1) > 0).any()


def test_maps_of_segments_and_of_frames_are_read():
    net = small("lite")
    assert net.explain_layers == ("trunk",)
    assert net.explain_attention == ()
    maps = noise(2 * S, 6, 2, 3)
    folded = net.explain_fold(maps, 2)
    assert folded.shape == (2, 6, S * M, 2, 3)
    for t in range(S * M):
        assert torch.equal(folded[:, :, t], maps.unflatten(0, (2, S))[:, t // M])
    frames = noise(2 * S * M, 8, 2, 3)
    assert torch.equal(net.explain_fold(frames, 2)[1, :, 5], frames[S * M + 5])
    for wrong in (noise(2, 6, S, 2, 3), noise(2 * S + 1, 6, 2, 3), noise(2, 7)):
        with pytest.raises(ValueError, match="still has height and width"):
            net.explain_fold(wrong, 2)


@pytest.mark.parametrize("layer", ["trunk.layer2", "trunk.layer4.0.relu", "motion", "motion.conv"])
@pytest.mark.parametrize("method", [lc.GradCAM, lc.IntegratedRecurrentGradCAM])
def test_any_layer_can_be_explained(layer, method):
    task = task_of("lite")
    clip = clip_of().double()
    before = [p.clone() for p in task.parameters()]
    task.train()
    found = lc.explain(task.explainable(), method(layer, relu=False), clip, 1)
    assert task.model.training
    assert found.heatmap.shape == (2, S * M, 24, 24)
    assert found.heatmap.isfinite().all() and found.heatmap.flatten(1).any(1).all()
    assert all(torch.equal(a, b) for a, b in zip(before, task.parameters(), strict=True))
    if layer != "motion.conv":
        segments = found.heatmap.unflatten(1, (S, M))
        first = segments[:, :, :1].expand_as(segments)
        torch.testing.assert_close(segments, first, rtol=1e-9, atol=1e-15)


def test_grad_cam_at_the_clips_of_a_batch_is_that_of_the_clips_alone():
    model, clip = task_of("full").explainable({"valid": torch.ones(2, S * M).bool()}), clip_of()
    both = lc.explain(model, lc.GradCAM(), clip, torch.tensor([0, 3])).heatmap
    alone = lc.explain(task_of("full").explainable(), lc.GradCAM(), clip[1:], 3).heatmap
    torch.testing.assert_close(both[1:], alone)


def test_padding_is_not_known():
    task = task_of("lite")
    assert not task.takes_valid
    valid = torch.arange(S * M).expand(2, -1) < 7
    heat = lc.explain(task.explainable({"valid": valid}), lc.GradCAM(relu=False), clip_of()).heatmap
    assert heat[:, 7:].flatten(2).any(2).all()


def test_layers_are_listed():
    found = {
        layer.name: layer for layer in lc.list_layers(task_of("full").explainable(), clip_of())
    }
    assert found["rgb.trunk"].shape == (2, 64, S * M, 3, 3)
    assert {"rgb.trunk.layer4", "pa.trunk.layer4", "pa.motion"} <= set(found)
