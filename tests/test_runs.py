"""Layers that one forward runs several times: the runs are told apart by what they have seen."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from nets import assert_same, clip_of, state
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_cam as lc
from lightning_cam.attribution.identity import identity
from lightning_cam.attribution.runs import Runs
from lightning_cam.errors import UserError

T, SIZE = 8, 12


class Planted(nn.Module):
    """Rectified brightness is the evidence: the layer that is explained has it and its opposite.

    `joined` runs `self.trunk` on parts of the clip as it likes, and gives features `(B, D)`.
    """

    def __init__(self, joined: Callable[[Planted, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 2, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.seen = nn.Identity()
        self.head, self.joined = nn.Linear(2, 2, bias=False), joined
        torch.manual_seed(0)
        nn.init.constant_(self.conv.weight, 1 / 9)
        self.conv.weight.data[1] *= -1
        self.head.weight.data = torch.eye(2)
        self.double()

    def trunk(self, part: Tensor) -> Tensor:
        """Features `(B, 2)` of frames `(B, 1, t, h, w)`, of `(B, 1, h, w)` as well."""
        part = part[:, :, None] if part.ndim == 4 else part
        return self.seen(self.conv(part)).mean((2, 3, 4)).relu()

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.joined(self, clip))


def mean(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).mean(0)


def memory(parts: list[Tensor]) -> Tensor:
    """The last state of a memory of pieces."""
    state = parts[0]
    for part in parts[1:]:
        state = (0.9 * state + part).tanh()
    return state


def pairs(net: Planted, clip: Tensor) -> Tensor:
    """What two frames have in common, of each pair of neighbours."""
    frames = clip.unbind(2)
    return mean([net.trunk((a + b) / 2) for a, b in pairwise(frames)])


def depth(net: Planted, clip: Tensor) -> Tensor:
    """A block that is run four times on its own output."""
    x = net.conv(clip)
    for _ in range(4):
        x = net.seen(x).clamp(min=-1) * 1.5
    return x.mean((2, 3, 4))


def recurrent(net: Planted, clip: Tensor, backwards: bool = False) -> Tensor:
    """A convolutional memory, which is what is explained."""
    h = clip.new_zeros(len(clip), 2, *clip.shape[3:])
    frames = clip.unbind(2)
    for frame in frames[::-1] if backwards else frames:
        h = net.seen(net.conv(frame[:, :, None])[:, :, 0] + 0.9 * h)
    return h.mean((2, 3)).relu()


def read_out(net: Planted, clip: Tensor) -> Tensor:
    """A layer behind a memory that is not the layer itself: it has seen all frames so far."""
    h, out = 0, []
    for frame in clip.unbind(2):
        h = 0.5 * h + net.conv(frame[:, :, None])[:, :, 0]
        out.append(net.seen(h).mean((2, 3)).relu())
    return mean(out)


def blurred(net: Planted, clip: Tensor, steps: int = T) -> Tensor:
    """A convolution in time, and then each step by itself."""
    x = F.avg_pool3d(clip, (3, 1, 1), stride=1, padding=(1, 0, 0), count_include_pad=False)
    return mean([net.trunk(part) for part in x[:, :, :: T // steps].unbind(2)])


def normalised(net: Planted, clip: Tensor) -> Tensor:
    """Numbers of the whole clip at work in each of its pieces."""
    x = (clip - clip.mean((2, 3, 4), keepdim=True)) / clip.std((2, 3, 4), keepdim=True)
    gate = 1 + net.conv(x).relu().mean((2, 3, 4), keepdim=True)[:, :1].tanh()
    return mean([net.trunk(part) for part in (gate * x).split(2, 2)])


def attended(net: Planted, clip: Tensor, recur: bool) -> Tensor:
    """Frames that have seen each other; then one by one, with or without a memory."""
    x = clip + 0.2 * clip.mean(2, keepdim=True)
    h, out = torch.zeros(()).to(x), []
    for frame in x.split(1, 2):
        h = net.seen(net.conv(frame) + 0.5 * h if recur else net.conv(frame))
        out.append(h.mean((2, 3, 4)).relu())
    return mean(out)


class Case(NamedTuple):
    joined: Callable[[Planted, Tensor], Tensor]
    text: str
    share: float = 0.6


# What runs several times, and what the caption says of it.
CASES = {
    "pieces, mean": Case(
        lambda net, clip: mean([net.trunk(part) for part in clip.split(2, 2)]),
        "4 pieces of 2 frames"),
    "pieces, memory": Case(
        lambda net, clip: memory([net.trunk(part) for part in clip.split(4, 2)]),
        "2 pieces of 4 frames"),
    "pieces from the last on": Case(
        lambda net, clip: mean([net.trunk(part) for part in clip.split(2, 2)[::-1]]),
        "4 pieces of 2 frames"),
    "a shorter last piece": Case(
        lambda net, clip: mean([net.trunk(part) for part in clip.split(3, 2)]),
        "3 pieces of 2 to 3 frames"),
    "every second frame": Case(
        lambda net, clip: mean([net.trunk(part) for part in clip.unbind(2)[1::2]]),
        "4 single frames, 4 frames seen by none"),
    "slow and fast": Case(
        lambda net, clip: net.trunk(clip) + net.trunk(clip[:, :, ::2]),
        "2 windows of 7 to 8 frames, overlaps averaged"),
    "interleaved": Case(
        lambda net, clip: mean([net.trunk(clip[:, :, k::2]) for k in range(2)]),
        "2 pieces of 4 frames"),
    "windows": Case(
        lambda net, clip: mean([net.trunk(clip[:, :, k : k + 4]) for k in (0, 2, 4)]),
        "3 windows of 4 frames, overlaps averaged", 0.4),
    "frame by frame, time-major": Case(
        lambda net, clip: mean([net.trunk(frame) for frame in clip.movedim(2, 0)]),
        "8 single frames"),
    "siamese": Case(
        lambda net, clip: net.trunk(clip) + net.trunk(clip.flip(1) * 0.5),
        "2 runs on the same frames summed"),
    "a clip and its mirror image": Case(
        lambda net, clip: net.trunk(clip) + net.trunk(clip.flip(4)),
        "2 runs on the same frames summed, 1 of them mirrored back"),
    "forwards and backwards, upside down": Case(
        lambda net, clip: net.trunk(clip.flip(2)) + net.trunk(clip) + net.trunk(clip.flip(2, 3)),
        "3 runs on the same frames summed, 2 of them mirrored back"),
    "two crops": Case(
        lambda net, clip: net.trunk(clip[..., :8]) + net.trunk(clip[..., -8:]),
        "2 runs on the same frames summed, not all of the whole image", 0.2),
    "siamese, by pieces": Case(
        lambda net, clip: mean([net.trunk(x * k) for x in clip.split(4, 2) for k in (1, 0.5)]),
        "2 pieces of 4 frames, 2 runs on the same frames summed"),
    "frame pairs": Case(pairs, "7 windows of 2 frames, overlaps averaged", 0.4),
    "weight-tied depth": Case(depth, "last of 4 runs in depth"),
    "ConvLSTM": Case(recurrent, "8 single frames", 0.1),
    "ConvLSTM, backwards": Case(
        lambda net, clip: recurrent(net, clip, backwards=True), "8 single frames", 0.1),
    "convolution in time, then frames": Case(blurred, "8 single frames"),
    "convolution in time, then steps": Case(
        lambda net, clip: blurred(net, clip, 4), "4 pieces of 2 frames", 0.4),
    "normalised clips, pieces": Case(normalised, "4 pieces of 2 frames"),
    "mixed frames, one by one": Case(
        lambda net, clip: attended(net, clip, recur=False), "8 single frames"),
    "mixed frames, with a memory": Case(
        lambda net, clip: attended(net, clip, recur=True), "8 single frames", 0.3),
    "means of frames": Case(
        lambda net, clip: mean([net.trunk(x.mean((2, 3), keepdim=True)) for x in clip.unbind(2)]),
        "8 single frames", 0.1),
    "read out of a memory": Case(read_out, "8 single frames", 0.3),
}  # fmt: skip
EVENT = (slice(0, 2), slice(2, 7), slice(3, 8))  # frames, rows, columns
LATE = (slice(T - 2, T), *EVENT[1:])


def planted(name: str) -> tuple[lc.Explainable, Tensor]:
    """A network and clips with something bright in the first two frames of one, the last of one."""
    clip = 0.02 * clip_of(2, 1, T, SIZE, SIZE, dtype=torch.float64)
    clip[0, 0][EVENT] += 1
    clip[1, 0][LATE] += 1
    return lc.Explainable.of(Planted(CASES[name].joined), ["seen"]), clip


def shares(heat: Tensor) -> list[float]:
    """Of each clip, the share of the heat where something is."""
    inside = [heat[0][EVENT].sum(), heat[1][LATE].sum()]
    return [float(part / whole.sum()) for part, whole in zip(inside, heat, strict=True)]


@pytest.mark.attack
@pytest.mark.parametrize("name", CASES)
def test_evidence_in_any_run_is_found(name: str) -> None:
    """Layers run on pieces, windows, twins, again and again: evidence in the first run is found."""
    model, clip = planted(name)
    found = lc.explain(model, lc.GradCAM(), clip, 0)
    assert found.notes["runs"] == CASES[name].text
    assert min(shares(found.heatmap)) > CASES[name].share


class Conv(nn.Module):
    """A convolution without bias, and the sum of what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 2, 1, bias=False)

    def forward(self, clip: Tensor) -> Tensor:
        return self.conv(clip).sum((3, 4)).flatten(1)


class Trunk(nn.Module):
    """A small 3-D network with strides on parts of a clip, read out by a memory or by a mean."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv3d(2, 5, 3, stride=(2, 1, 2), padding=1)
        self.lstm, self.head, self.how = nn.LSTM(5, 6, batch_first=True), nn.Linear(6, 3), how
        self.plain = nn.Linear(5, 3)
        self.double()

    def forward(self, clip: Tensor) -> Tensor:
        if self.how == "folded":
            pieces = clip.unflatten(2, (2, 4)).transpose(1, 2).flatten(0, 1)  # (B*p, C, 4, H, W)
            return self.read(list(self.conv(pieces).unflatten(0, (-1, 2)).unbind(1)))
        if self.how == "pieces":
            return self.read([self.conv(piece) for piece in clip.split(4, 2)])
        if self.how == "windows":
            return self.read([self.conv(clip[:, :, k : k + 4]) for k in (0, 2, 4)])
        one, other = (self.conv(x).mean((2, 3, 4)) for x in (clip, clip.flip(4)))
        return self.plain((one - 2 * other).tanh())

    def read(self, maps: list[Tensor]) -> Tensor:
        means = torch.stack([x.relu().mean((2, 3, 4)) for x in maps], 1)
        return self.head(self.lstm(means)[0][:, -1])


def by_hand(net: Trunk, clip: Tensor, pool: str) -> tuple[Tensor, list[Tensor]]:
    """All activations and weights of the runs, by autograd alone."""
    kept: list[Tensor] = []
    handle = net.conv.register_forward_hook(lambda _m, _i, out: kept.append(out))
    score = net(clip)[:, 1].sum()
    handle.remove()
    found = torch.autograd.grad(score, kept)
    if net.how == "twins":
        return kept, [g.mean((2, 3, 4), keepdim=True) for g in found]
    if pool == "space":
        return kept, [g.mean((3, 4), keepdim=True) for g in found]
    return kept, [torch.cat(found, 2).mean((2, 3, 4), keepdim=True)] * len(found)


@pytest.mark.parametrize("pool", ["space", "spacetime"])
@pytest.mark.parametrize("how", ["pieces", "windows", "twins"])
def test_it_is_grad_cam_of_each_run_by_hand(how: str, pool: str) -> None:
    """Pieces are joined, windows averaged where they overlap, twins summed with own weights."""
    net, clip = Trunk(how), clip_of(2, 2, T, 6, 8, dtype=torch.float64)
    if (how, pool) == ("twins", "space"):
        pool = "spacetime"
    method = lc.GradCAM("conv", pool, relu=False)
    heat = lc.explain(lc.Explainable.of(net, ["conv"]), method, clip, 1).heatmap
    kept, weights = by_hand(net, clip, pool)
    maps = [(w * a).sum(1).detach() for w, a in zip(weights, kept, strict=True)]
    if how == "pieces":
        expected = F.interpolate(torch.cat(maps, 1)[:, None], clip.shape[2:], mode="trilinear")
    elif how == "windows":
        rows = [F.interpolate(m[:, None], (4, 6, 4), mode="trilinear")[:, 0] for m in maps]
        a, b, c = rows
        joined = [a[:, :2], (a[:, 2:] + b[:, :2]) / 2, (b[:, 2:] + c[:, :2]) / 2, c[:, 2:]]
        expected = F.interpolate(torch.cat(joined, 1)[:, None], clip.shape[2:], mode="trilinear")
    else:
        summed = maps[0] + maps[1].flip(3)  # what the second has seen is mirrored
        expected = F.interpolate(summed[:, None], clip.shape[2:], mode="trilinear")
    torch.testing.assert_close(heat, expected[:, 0], rtol=1e-9, atol=1e-12)
    assert heat.any()


@pytest.mark.parametrize(
    "method",
    [lc.GradCAM(), lc.SIDU(threshold="quantile:0.5"), lc.LRP(layer="conv"),
     lc.ExcitationBackprop(layer="conv")],
    ids=lambda method: type(method).__name__,
)  # fmt: skip
def test_pieces_are_the_same_folded_into_the_batch(method: lc.Attribution) -> None:
    clip = clip_of(2, 2, T, 6, 8, dtype=torch.float64)
    pieces = lc.Explainable.of(Trunk("pieces"), ["conv"])
    folded = lc.Explainable.of(Trunk("folded"), ["conv"], layout="(b p) d t h w")
    one, other = (lc.explain(model, method, clip, 1).heatmap for model in (pieces, folded))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


METHODS = [
    lc.HiResCAM(), lc.XGradCAM(), lc.GradCAMPlusPlus(), lc.GradCAM.bayer2022(), lc.LayerCAM(),
    lc.RecurrentGradCAM(), lc.IntegratedRecurrentGradCAM(), lc.RegressionGradCAM(sign="pos"),
    lc.GuidedGradCAM(), lc.ScoreCAM(),
]  # fmt: skip


@pytest.mark.attack
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("name", ["pieces from the last on", "a shorter last piece", "siamese"])
def test_every_method_at_a_layer_sees_all_runs(name: str, method: lc.Attribution) -> None:
    """Each method that looks at a layer: the evidence in the first and in the last run is found."""
    model, clip = planted(name)
    found = lc.explain(model, method, clip, 0)
    assert found.notes["runs"] == CASES[name].text
    assert min(shares(found.heatmap)) > 0.5


def ran(model: lc.Explainable, method: lc.Attribution, clip: Tensor) -> int:
    """How many forwards it takes to explain a clip."""
    sizes: list[int] = []

    def forward(rows: Tensor) -> Tensor:
        sizes.append(len(rows))
        return model.forward(rows)

    lc.explain(replace(model, forward=forward), method, clip, 0)
    assert set(sizes) == {len(clip)}
    return len(sizes)


def test_what_runs_have_seen_is_measured_once_for_a_network() -> None:
    """A layer that runs once costs nothing; one that runs on the whole clip three forwards."""
    for name, once in (("pieces, mean", 2 + T), ("weight-tied depth", 4)):
        model, clip = planted(name)
        assert ran(model, lc.GradCAM(), clip) == once
        assert ran(model, lc.GradCAM(), clip.flip(2)) == 1
        assert ran(model, lc.HiResCAM(), clip[:1]) == 1
        assert lc.check(model, clip).once > 0  # by another forward, which is not counted
        assert lc.check(model, clip).once == 0
        assert lc.check(model, clip[:, :, :6]).once == (1 + 6 if "pieces" in name else 3)
    assert (
        ran(
            lc.Explainable.of(Trunk("folded"), ["head"]),
            lc.Gradient(),
            clip_of(1, 2, 8, 6, 8).double(),
        )
        == 1
    )


@pytest.mark.attack
def test_forwards_of_one_network_are_measured_each_by_itself() -> None:
    """One network called in two ways, whose runs see other frames, by functions made alike."""
    net = Conv()
    clip = torch.zeros(1, 3, 4, 8, 8)
    clip[:, :, 1] = 1  # the event

    def model(order: list[int], start: int | None) -> lc.Explainable:
        def forward(clip: Tensor, starts: Tensor | None = None) -> Tensor:
            first = 0 if starts is None else int(starts[0])
            frames = [clip[:, :, first + i] for i in order]
            return torch.stack([net(frame[:, :, None]) for frame in frames]).sum(0)

        inputs = None if start is None else {"starts": torch.tensor([start])}
        return lc.Explainable.of(net, ["conv"], forward=forward, inputs=inputs)

    asked = (([0, 1, 2, 3], None), ([1, 0, 3, 2], None), ([3, 2, 1, 0], None), ([0, 1], 0),
             ([0, 1], 1), ([0, 1], 0))  # fmt: skip
    for each in asked:
        heat = lc.explain(model(*each), lc.GradCAM(relu=False), clip).heatmap[0]
        assert int(heat.abs().sum((1, 2)).argmax()) == 1, each


@pytest.mark.attack
@pytest.mark.parametrize("made", [np.int64, lambda k: range(k, k + 1), lambda k: slice(k, k + 1)])
def test_what_a_forward_holds_is_never_taken_for_what_lay_there_before(
    made: Callable[[int], Any],
) -> None:
    """Functions made for each clip, with numbers of numpy, ranges and slices in them."""

    def way(k: int) -> Hashable:
        held = made(300 + k)
        return identity((lambda clip: clip[held],))

    ways = [way(k) for k in range(100)]  # each number lies where the last one lay
    assert len(set(ways)) == 100 and ways == [way(k) for k in range(100)]
    arrays = [identity(np.arange(k, k + 3)) for k in (0, 1, 0)]
    assert arrays[0] == arrays[2] != arrays[1]
    for tensor in (torch.eye(2).to_sparse(), torch.zeros(2, device="meta")):
        assert identity(tensor) == identity(tensor) != identity(tensor.clone())
    odd = [identity(bytearray(b"1")) for _ in range(9)]
    assert len(set(odd)) == 9


def test_measuring_disturbs_nothing() -> None:
    net = Planted(lambda net, clip: mean([net.trunk(F.dropout(x)) for x in clip.split(2, 2)]))
    net.train()
    _, clip = planted("pieces, mean")
    kept, before = clip.clone(), state(net)
    found = lc.explain(lc.Explainable.of(net, ["seen"]), lc.GradCAM(), clip, 0)
    assert found.notes["runs"] == "4 pieces of 2 frames"  # noise is the same in all runs
    assert_same(before, state(net))
    assert torch.equal(clip, kept)


def test_layers_and_check_say_what_runs_are() -> None:
    model, clip = planted("windows")
    layers = {layer.name: layer for layer in lc.list_layers(model, clip)}
    said = "3 windows of 4 frames, overlaps averaged"
    assert (layers["seen"].calls, layers["seen"].runs) == (3, said)
    assert layers["seen"].shape == (2, 2, T, SIZE, SIZE) and layers["seen"].stride == (1, 1, 1)
    found = lc.check(model, clip)
    assert not found.findings and found.layers[0].told
    assert found.layers[0].runs == said and f"3 runs ({said})" in str(found)
    assert found.forwards == 5  # the runs are known


def test_maps_of_different_sizes_are_refused() -> None:
    """One trunk at two scales of the same frames: refused in a sentence."""
    net = Planted(lambda net, clip: net.trunk(clip) + net.trunk(clip[..., ::2, ::2]))
    model = lc.Explainable.of(net, ["seen"])
    _, clip = planted("siamese")
    with pytest.raises(UserError, match="'seen' runs 2 times with maps of different sizes"):
        lc.explain(model, lc.GradCAM(), clip)
    assert "conv" not in {layer.name for layer in lc.list_layers(model, clip)}
    assert "different sizes" in lc.check(model, clip).findings[0]


@pytest.mark.attack
@pytest.mark.parametrize(
    ("before", "said"),
    [
        (lambda x: torch.fft.fftn(x, dim=(2, 3, 4)), "'1' returns complex numbers"),
        (lambda x: torch.cat([x, x.flip(4), x.flip(3)]), "3 rows for each clip"),
    ],
    ids=["Fourier", "views"],
)
def test_numbers_and_rows_that_are_no_map_are_refused(
    before: Callable[[Tensor], Tensor], said: str
) -> None:
    """Layers of complex numbers, and of crops and mirror images in the batch."""
    net = nn.Sequential(nn.Conv3d(3, 4, 3), nn.Identity(), nn.AdaptiveAvgPool3d(1), nn.Flatten())

    def forward(clip: Tensor) -> Tensor:
        seen = net[1](before(net[0](clip)))
        return net[2:](seen.abs().unflatten(0, (-1, len(clip))).mean(0))

    model, clip = lc.Explainable.of(net, ["1"], forward=forward), torch.randn(2, 3, 4, 8, 8)
    with pytest.raises(UserError, match=said):
        lc.explain(model, lc.GradCAM(), clip)
    assert said.strip("'1 ") in str(lc.check(model, clip).findings)


def test_padding_within_windows_and_shorter_pieces() -> None:
    valid = torch.arange(T) < torch.tensor([[5], [T]])
    for name in ("windows", "a shorter last piece", "pieces, mean"):
        model, clip = planted(name)
        plain = lc.explain(model, lc.GradCAM(relu=False), clip, 0).heatmap
        for some in (valid, torch.ones_like(valid)):
            heat = lc.explain(replace(model, valid=some), lc.GradCAM(relu=False), clip, 0).heatmap
            assert (heat[~some] == 0).all() and heat[some].any()
        assert torch.equal(heat, plain)


def test_frames_that_are_masked_are_padding_in_every_map() -> None:
    valid = torch.arange(T)[None] < 5

    def masked(net: Planted, clip: Tensor) -> Tensor:
        frames = (clip * valid[:, None, :, None, None]).unbind(2)
        return mean([net.trunk(frame) for frame in frames])

    _, clip = planted("siamese")
    model = replace(lc.Explainable.of(Planted(masked), ["seen"]), valid=valid)
    assert ran(model, lc.GradCAM(), clip[:1]) == 2 + T
    assert ran(model, lc.GradCAM(), clip[:1]) == 1
    found = lc.explain(model, lc.GradCAM(), clip[:1], 0)
    assert found.notes["runs"] == "5 single frames, 3 frames seen by none"
    assert found.heatmap[0][EVENT].sum() > 0.6 * found.heatmap.sum() > 0


def of(seen: str, direct: str = "") -> Runs:
    """Runs by the frames that each has seen, and by the runs that each is computed from."""
    sets = [frozenset(map(int, frames.strip("-"))) for frames in seen.split()]
    below = [frozenset(map(int, runs.strip("-"))) for runs in direct.split()] or [
        frozenset()
    ] * len(sets)
    return Runs.of(sets, below, 4)


@pytest.mark.parametrize(
    ("seen", "direct", "kept", "frames"),
    [
        ("0123 0123 0123", "- 0 01", "2", "0123"),  # a ReLU shared in a block with a shortcut
        ("0 0 1 1 2 2 3 3", "- 0 - 2 - 4 - 6", "1 3 5 7", "0 1 2 3"),  # the same, frame by frame
        ("0 01 012 0123", "- 0 1 2", "0 1 2 3", "0 1 2 3"),  # a recurrent cell
        ("0 0 01 01 012 012", "- 0 1 12 3 34", "1 3 5", "0 1 2"),  # one with two runs a frame
        ("0 01 012 123", "- 0 1 2", "0 1 2 3", "0 1 2 3"),  # whose memory fades
        ("0 01 012 0123", "", "0 1 2 3", "0 1 2 3"),  # a layer behind a memory
        ("3 23 123 0123", "", "3 2 1 0", "0 1 2 3"),  # from the last frame on
        ("0 01 012 0123 3 23 123 0123", "", "07 16 25 34", "0 1 2 3"),  # both ways
        ("01 012 0123 0123", "- 0 1 2", "0 1 2 3", "0 1 2 3"),  # a memory that sees ahead
        ("01 012 0123 0123 23 123 0123 0123", "- 0 1 2 - 4 5 6", "07 16 25 34", "0 1 2 3"),
        ("01 01 012 012 0123 0123 0123 0123", "- 0 1 2 3 4 5 6", "1 3 5 7", "0 1 2 3"),
        ("0123 02", "", "1 0", "012 0123"),  # a slow view beside a fast one
        ("01 23 0123", "- - 01", "2", "0123"),  # pieces, then what was made of them
        ("01 23 0123 0123", "- - 01 2", "3", "0123"),  # and once more
        ("01 23 0123", "- - -", "0 2 1", "01 0123 23"),  # pieces, and a view of all
        ("01 - 23", "", "0 2", "01 23"),  # a run that no frame changes
        ("- - -", "- 0 1", "2", "0123"),  # nor any other: a branch that begins at zero
        ("- -", "", "01", "0123"),
        ("0123 0123 0123 0123", "- 0 - 2", "13", "0123"),  # twins, each of two runs in depth
        ("0123 0123 0123", "- 0 0", "12", "0123"),  # two heads on one
    ],
)
def test_which_runs_count(seen: str, direct: str, kept: str, frames: str) -> None:
    runs = of(seen, direct)
    assert " ".join("".join(map(str, group)) for group in runs.groups) == kept
    assert " ".join("".join(map(str, each)) for each in runs.frames) == frames


def test_runs_that_come_and_go_are_not_told_apart() -> None:
    """A network that looks again where it has seen something: the last run is explained."""

    def joined(net: Planted, clip: Tensor) -> Tensor:
        again = 1 + int(bool(clip[:, :, 0].abs().max() > 2))
        return mean([net.trunk(part) for part in clip.split(4, 2) for _ in range(again)])

    _, clip = planted("siamese")
    found = lc.explain(lc.Explainable.of(Planted(joined), ["seen"]), lc.GradCAM(), clip, 0)
    assert "last of 2 runs, which frames each has seen cannot be told" in found.caption
