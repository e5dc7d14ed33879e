"""Networks as people write them, and how each is read by hand; those of libraries stand in
test_families.py. `benchmarks/networks.py` runs all, test_networks_of_users.py the small ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from nets import FoldedLSTM, LoopedLSTM
from test_families import REAL, Real, frames, logits, two_paths
from torch import Tensor, nn
from torchvision.models.video import mc3_18, r2plus1d_18, s3d

import lightning_cam as lc
from lightning_cam.models import LRCN, VideoViT

B = 2


def first(calls: list[Tensor]) -> Tensor:
    return calls[0]


def grid_of(tokens: Tensor) -> Tensor:
    return tokens.unflatten(1, (2, 4, 4)).permute(0, 4, 1, 2, 3)


@dataclass(frozen=True)
class Case:
    """A network, and what is known of it without this package.

    Attributes:
        net: makes it, with random weights.
        clip: T, H, W.
        layer: the target layer.
        join: what the layer returned, call by call, as (B, D, t, h, w).
        call: its columns (B, K) of a clip.
        model: how it is described.
        seen: the clip that it was given, of its arguments.
        outputs: K.
        probability: by which perturbations are scored.
    """

    net: Callable[[], nn.Module]
    clip: tuple[int, int, int]
    layer: str
    join: Callable[[list[Tensor]], Tensor] = first
    call: Callable[[nn.Module, Tensor], Tensor] = lambda net, clip: net(clip)
    model: Callable[[nn.Module], lc.Explainable] = lc.Explainable.of
    seen: Callable[[tuple[Any, ...], Mapping[str, Any]], Tensor] = lambda args, kwargs: args[0]
    outputs: int = 4
    probability: str | None = "softmax"


def _case(real: Real) -> Case:
    def seen(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        given = args[0] if args else next(iter(kwargs.values()))
        if real.call is two_paths:
            return given[1]
        return given.transpose(1, 2) if real.call is logits else given

    return Case(
        real.net, real.clip, real.layer, lambda calls: real.fold(calls[0]), real.call, seen=seen
    )


def at(layer: str, **more: Any) -> Callable[[nn.Module], lc.Explainable]:
    return lambda net: lc.Explainable.of(net, [layer], **more)


class Conv(nn.Sequential):
    """A small 3-D CNN."""

    def __init__(self, channels: int = 3, features: int = 6) -> None:
        super().__init__(nn.Conv3d(channels, features, 3, (1, 2, 2), 1), nn.ReLU(inplace=True))


class Recurrent(nn.Module):
    """A CNN by frames, then a recurrent network, read out at its last step."""

    def __init__(self, kind: str, **more: Any) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(inplace=True))
        self.rnn = getattr(nn, kind)(6, 8, batch_first=True, **more)
        self.head = nn.Linear(16 if more else 8, 4)

    def forward(self, clip: Tensor) -> Tensor:
        features = self.trunk(clip.transpose(1, 2).flatten(0, 1)).mean((2, 3))
        return self.head(self.rnn(features.unflatten(0, (len(clip), -1)))[0][:, -1])


class FrameEncoder(nn.Module):
    """A CNN by frames, then a transformer over the frames."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 4)

    def forward(self, clip: Tensor) -> Tensor:
        features = self.trunk(clip.transpose(1, 2).flatten(0, 1)).mean((2, 3))
        return self.head(self.encoder(features.unflatten(0, (len(clip), -1))).mean(1))


class Shifted(nn.Module):
    """TSM (Lin et al., ICCV 2019): a 2-D CNN whose channels are shifted along time."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(8, 4)

    def forward(self, clip: Tensor) -> Tensor:
        x = self.one(clip.transpose(1, 2).flatten(0, 1)).relu().unflatten(0, (len(clip), -1))
        shifted = torch.cat([x[:, :, :2].roll(1, 1), x[:, :, 2:4].roll(-1, 1), x[:, :, 4:]], 2)
        x = self.relu(self.two(shifted.flatten(0, 1)))
        return self.head(x.mean((2, 3)).unflatten(0, (len(clip), -1)).mean(1))


class ConvLSTM(nn.Module):
    """Convolutional LSTM (Shi et al., NeurIPS 2015) over frames, the last state read out."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 6, 3, 2, 1)
        self.gates = nn.Conv2d(6 + 6, 4 * 6, 3, 1, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, clip: Tensor) -> Tensor:
        x = self.trunk(clip.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(clip), -1))
        h = c = torch.zeros_like(x[:, 0])
        for frame in x.unbind(1):
            i, f, o, g = self.gates(torch.cat([frame, h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.head(h.mean((2, 3)))


class TwoStream(nn.Module):
    """Two streams of equal size as channels of one clip: frames, and their differences."""

    def __init__(self) -> None:
        super().__init__()
        self.rgb, self.flow = Conv(2), Conv(1)
        self.head = nn.Linear(12, 4)

    def forward(self, clip: Tensor) -> Tensor:
        streams = [self.rgb(clip[:, :2]), self.flow(clip[:, 2:])]
        return self.head(torch.cat([x.mean((2, 3, 4)) for x in streams], 1))


class Dictionary(nn.Module):
    """Outputs in a dictionary, of two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.verb, self.noun = Conv(), nn.Linear(6, 4), nn.Linear(6, 3)

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        x = self.trunk(clip).mean((2, 3, 4))
        return {"verb": self.verb(x), "noun": self.noun(x)}


class Dense(nn.Module):
    """Outputs at each frame, (B, T, K)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = Conv(), nn.Linear(6, 4)

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.trunk(clip).mean((3, 4)).transpose(1, 2))


class Packed(nn.Module):
    """A packed LSTM, which takes the lengths of the clips."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv3d(3, 6, 3, padding=1), nn.ReLU())
        self.lstm, self.head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, clip: Tensor, lengths: Tensor) -> Tensor:
        features = self.trunk(clip).mean((3, 4)).transpose(1, 2)
        packed = nn.utils.rnn.pack_padded_sequence(
            features, lengths, batch_first=True, enforce_sorted=False
        )
        return self.head(self.lstm(packed)[1][0][-1])


class Pieces(nn.Module):
    """A 3-D CNN on pieces of the clip, then an LSTM."""

    def __init__(self, stride: int = 2) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv3d(3, 6, 3, padding=1), nn.ReLU())
        self.lstm, self.head, self.stride = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 4), stride

    def forward(self, clip: Tensor) -> Tensor:
        starts = range(0, clip.shape[2] - 1, self.stride)
        seen = [self.trunk(clip[:, :, i : i + 2]).mean((2, 3, 4)) for i in starts]
        return self.head(self.lstm(torch.stack(seen, 1))[0][:, -1])


class Siamese(nn.Module):
    """One trunk on the clip and on its mirror image in colour."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv3d(3, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(12, 4)

    def forward(self, clip: Tensor) -> Tensor:
        seen = [self.trunk(x).mean((2, 3, 4)) for x in (clip, clip.flip(1))]
        return self.head(torch.cat(seen, 1))


class Tied(nn.Module):
    """One block, run as often in depth as there are frames."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv3d(3, 6, 1), nn.Conv3d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, clip: Tensor) -> Tensor:
        x = self.stem(clip)
        for _ in range(clip.shape[2]):
            x = self.block(x.relu())
        return self.head(x.mean((2, 3, 4)))


class Gap(nn.Module):
    """A 3-D CNN whose features are averaged, with K outputs, or one number a clip."""

    def __init__(self, outputs: int = 4) -> None:
        super().__init__()
        self.trunk, self.head = Conv(), nn.Linear(6, outputs)

    def forward(self, clip: Tensor) -> Tensor:
        outputs = self.head(self.trunk(clip).mean((2, 3, 4)))
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs


class InPlace(nn.Module):
    """A network that normalises its input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = Conv(), nn.Linear(6, 4)

    def forward(self, clip: Tensor) -> Tensor:
        clip.sub_(0.3).div_(1.7)
        return self.head(self.trunk(clip).mean((2, 3, 4)))


class ChannelsLast(nn.Module):
    """Tokens behind a permute, (B, T, H, W, D), of which the program is told."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.tokens, self.head = Conv(), nn.Identity(), nn.Linear(6, 4)

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.tokens(self.trunk(clip).permute(0, 2, 3, 4, 1)).mean((1, 2, 3)))


class Last(nn.Module):
    """A transformer over tubelets whose class token stands behind the others."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv3d(3, 8, (2, 8, 8), (2, 8, 8)), nn.Parameter(torch.randn(8))
        self.place, self.norm = nn.Parameter(torch.randn(9, 8)), nn.LayerNorm(8)
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 4)

    def forward(self, clip: Tensor) -> Tensor:
        tokens = self.patch(clip).flatten(2).transpose(1, 2)
        x = torch.cat([tokens, self.token.expand(len(clip), 1, 8)], 1) + self.place
        y = self.norm(x)
        return self.head((x + self.attention(y, y, y, need_weights=False)[0])[:, -1])


class TimeMajor(Recurrent):
    """Frames folded into the batch time-major, then an LSTM."""

    def __init__(self) -> None:
        super().__init__("LSTM")
        self.rnn.batch_first = False

    def forward(self, clip: Tensor) -> Tensor:
        features = self.trunk(clip.permute(2, 0, 1, 3, 4).flatten(0, 1)).mean((2, 3))
        return self.head(self.rnn(features.unflatten(0, (-1, len(clip))))[0][-1])


class Scan(nn.Module):
    """A selective scan over tokens, as in Mamba (Gu and Dao, 2023)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.decay = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        value, step, gate = self.inner(x).chunk(3, -1)
        step, state, states = nn.functional.softplus(step), torch.zeros_like(x[:, 0]), []
        for i in range(x.shape[1]):
            state = (-step[:, i] * self.decay.exp()).exp() * state + step[:, i] * value[:, i]
            states.append(state)
        return self.outer(torch.stack(states, 1) * nn.functional.silu(gate))


class BothWays(nn.Module):
    """VideoMamba (Li et al., ECCV 2024): one scan over the tokens, and over them backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv3d(3, 8, (2, 4, 4), (2, 4, 4)), nn.LayerNorm(8)
        self.scan, self.head = Scan(8), nn.Linear(8, 4)

    def forward(self, clip: Tensor) -> Tensor:
        x = self.norm(self.patch(clip).flatten(2).transpose(1, 2))
        return self.head((x + self.scan(x) + self.scan(x.flip(1)).flip(1)).mean(1))


class Queries(nn.Module):
    """A detector's queries (DETR, Carion et al., ECCV 2020), with outputs in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.queries = Conv(features=8), nn.Parameter(torch.randn(5, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.kind, self.box = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        tokens = self.trunk(clip).flatten(2).transpose(1, 2)
        found = self.attention(self.queries.expand(len(clip), -1, -1), tokens, tokens)[0]
        return {"pred_logits": self.kind(found), "pred_boxes": self.box(found).sigmoid()}


class UNet(nn.Module):
    """A video U-Net whose last features are averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.down = nn.Conv3d(3, 6, 3, 1, 1), nn.Conv3d(6, 8, 3, 2, 1)
        self.up, self.last = nn.ConvTranspose3d(8, 6, 2, 2), nn.Conv3d(12, 6, 3, 1, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, clip: Tensor) -> Tensor:
        inner = self.inner(clip).relu()
        up = self.up(self.down(inner).relu()).relu()
        return self.head(self.last(torch.cat([up, inner], 1)).relu().mean((2, 3, 4)))


class Padded(Gap):
    """Pads its clip to eight frames."""

    def forward(self, clip: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(clip, (0, 0, 0, 0, 0, 8 - clip.shape[2])))


class ByName(Gap):
    """Takes its clip by name alone."""

    def forward(self, *, pixel_values: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(pixel_values)


_SMALL = (4, 16, 16)
_LENGTHS = torch.tensor([3, 4])
_LARGE = {
    "torchvision MC3-18": Case(lambda: mc3_18(num_classes=4), (8, 32, 32), "layer4"),
    "torchvision R(2+1)D-18": Case(lambda: r2plus1d_18(num_classes=4), (8, 32, 32), "layer4"),
    "torchvision S3D": Case(lambda: s3d(num_classes=4), (16, 224, 224), "features"),
}
_VIT = {"num_frames": 4, "size": 16, "tubelet": (2, 4, 4), "width": 16, "depth": 2, "heads": 2}
_OURS = {
    "VideoViT, divided": Case(
        lambda: VideoViT(4, **_VIT),
        _SMALL,
        "blocks.1.norm1",
        lambda calls: grid_of(calls[0]),
        model=lambda net: at("blocks.1.norm1", fold=net.explain_fold)(net),
    ),
    "VideoViT, joint, class token": Case(
        lambda: VideoViT(4, **_VIT, space_time="joint", readout="class"),
        _SMALL,
        "blocks.1.norm1",
        lambda calls: grid_of(calls[0][:, 1:]),
        model=lambda net: at("blocks.1.norm1", fold=net.explain_fold)(net),
    ),
    "LRCN, temporal attention": Case(
        lambda: LRCN(4, readout="attention"),
        (4, 32, 32),
        "trunk",
        lambda calls: frames(calls[0]),
        model=at("trunk"),
    ),
}
OWN = {
    "CNN + LSTM, frames folded": Case(
        FoldedLSTM, _SMALL, "trunk", lambda calls: frames(calls[0]), model=at("trunk")),
    "CNN + LSTM, a loop over frames": Case(
        lambda: LoopedLSTM(FoldedLSTM()), _SMALL, "conv", lambda calls: torch.stack(calls, 2),
        model=at("conv")),
    "CNN + GRU": Case(
        lambda: Recurrent("GRU"), _SMALL, "trunk", lambda calls: frames(calls[0]),
        model=at("trunk")),
    "CNN + bidirectional LSTM": Case(
        lambda: Recurrent("LSTM", bidirectional=True), _SMALL, "trunk",
        lambda calls: frames(calls[0]), model=at("trunk")),
    "CNN + TransformerEncoder": Case(
        FrameEncoder, _SMALL, "trunk", lambda calls: frames(calls[0]), model=at("trunk")),
    "TSM": Case(Shifted, _SMALL, "relu", lambda calls: frames(calls[0]), model=at("relu")),
    "ConvLSTM": Case(
        ConvLSTM, _SMALL, "gates", lambda calls: torch.stack(calls, 2), model=at("gates")),
    "two streams as channels": Case(TwoStream, _SMALL, "rgb", model=at("rgb")),
    "packed LSTM": Case(
        Packed, _SMALL, "trunk", call=lambda net, clip: net(clip, _LENGTHS.repeat(len(clip) // B)),
        model=at("trunk", inputs={"lengths": _LENGTHS})),
    "3-D CNN on pieces + LSTM": Case(
        Pieces, _SMALL, "trunk", lambda calls: torch.cat(calls, 2), model=at("trunk")),
    "siamese trunk": Case(
        Siamese, _SMALL, "trunk", lambda calls: torch.cat(calls, 1), model=at("trunk")),
    "block tied in depth": Case(
        Tied, _SMALL, "block", lambda calls: calls[-1], model=at("block")),
    "two heads in a dictionary": Case(
        Dictionary, _SMALL, "trunk", call=lambda net, clip: net(clip)["verb"],
        model=at("trunk", outputs={"verb": list("abcd"), "noun": list("xyz")})),
    "outputs at each frame": Case(
        Dense, _SMALL, "trunk", call=lambda net, clip: net(clip)[:, 2],
        model=lambda net: at("trunk")(net).at(2)),
    "several labels a clip": Case(
        Gap, _SMALL, "trunk", model=at("trunk", probability="sigmoid"), probability="sigmoid"),
    "one number a clip": Case(
        lambda: Gap(1), _SMALL, "trunk", call=lambda net, clip: net(clip)[:, None], outputs=1,
        model=at("trunk", probability=None), probability=None),
    "input normalised in place": Case(
        InPlace, _SMALL, "trunk", call=lambda net, clip: net(clip.clone()), model=at("trunk")),
    "channels last, told by a layout": Case(
        ChannelsLast, _SMALL, "tokens", lambda calls: calls[0].permute(0, 4, 1, 2, 3),
        model=at("tokens", layout="b t h w d")),
    "class token behind the others": Case(
        Last, _SMALL, "norm",
        lambda calls: calls[0][:, :-1].transpose(1, 2).unflatten(2, (2, 2, 2)),
        model=at("norm", layout="b (t h w + 1) d", grid=(2, 2, 2))),
    "Mamba-like, one scan both ways": Case(
        BothWays, _SMALL, "scan",
        lambda calls: torch.cat([grid_of(calls[0]), grid_of(calls[1].flip(1))], 1),
        model=at("scan", layout="b (t h w) d", grid=(2, 4, 4))),
    "highest query of a detector": Case(
        Queries, _SMALL, "trunk", call=lambda net, clip: net(clip)["pred_logits"].amax(1),
        model=lambda net: at("trunk", forward=lambda clip: net(clip)["pred_logits"].amax(1))(net)),
    "U-Net": Case(UNet, _SMALL, "last", model=at("last")),
    "clip padded within": Case(
        Padded, _SMALL, "trunk", lambda calls: calls[0][:, :, :4],
        model=at("trunk", fold=lambda x, _batch: x[:, :, :4])),
    "clip by name": Case(
        ByName, _SMALL, "trunk", call=lambda net, clip: net(pixel_values=clip),
        model=lambda net: at("trunk", forward=lambda clip: net(pixel_values=clip))(net),
        seen=lambda args, kwargs: kwargs["pixel_values"]),
    "CNN + LSTM, time-major": Case(
        TimeMajor, _SMALL, "trunk",
        lambda calls: calls[0].unflatten(0, (-1, B)).permute(1, 2, 0, 3, 4),
        model=at("trunk", layout="(t b) d h w")),
}  # fmt: skip

CASES: dict[str, Case] = {name: _case(real) for name, real in REAL.items()} | _LARGE | _OURS | OWN
