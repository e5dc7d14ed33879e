"""Small networks whose explanations are known on paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import lightning_cam as lc


class Frames(nn.Module):
    """Per-frame convolutions on a clip, folded batch-major: (B, C, T, H, W) -> (B*T, D, h, w)."""

    def __init__(self, channels: int = 3, features: int = 6, stride: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, features, 3, stride, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, clip: Tensor) -> Tensor:
        return self.relu(self.conv(clip.transpose(1, 2).flatten(0, 1)))


class FoldedLSTM(nn.Module):
    """CNN (frames folded) + mean pooling + LSTM + linear head at every step; last step read out."""

    def __init__(self, channels: int = 3, outputs: int = 4, bidirectional: bool = False) -> None:
        super().__init__()
        self.trunk = Frames(channels)
        self.lstm = nn.LSTM(6, 8, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(16 if bidirectional else 8, outputs)

    def forward(self, clip: Tensor) -> Tensor:
        features = self.trunk(clip).mean((2, 3)).unflatten(0, (len(clip), -1))  # (B, T, D)
        return self.head(self.lstm(features)[0])[:, -1]


class LoopedLSTM(nn.Module):
    """The same network with the CNN and head called once a frame in a Python loop."""

    def __init__(self, folded: FoldedLSTM) -> None:
        super().__init__()
        self.conv, self.head = folded.trunk.conv, folded.head
        self.cell = nn.LSTMCell(6, 8)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            setattr(self.cell, name, getattr(folded.lstm, f"{name}_l0"))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, clip: Tensor) -> Tensor:
        state = None
        for frame in clip.unbind(2):
            state = self.cell(self.relu(self.conv(frame)).mean((2, 3)), state)
            out = self.head(state[0])
        return out


class LinearRNN(nn.Module):
    """h_t = decay h_{t-1} + u . GAP(A_t), y_t = v h_t: gradients are powers of the decay."""

    def __init__(self, decay: float = 0.7, outputs: int = 2) -> None:
        super().__init__()
        self.trunk = Frames()
        self.u = nn.Parameter(torch.randn(6))
        self.head = nn.Linear(1, outputs, bias=False)
        self.decay = decay

    def forward(self, clip: Tensor) -> Tensor:
        z = self.trunk(clip).mean((2, 3)) @ self.u  # (B*T,)
        h, states = torch.zeros(len(clip), dtype=z.dtype), []
        for z_t in z.unflatten(0, (len(clip), -1)).unbind(1):
            h = self.decay * h + z_t
            states.append(h)
        return self.head(torch.stack(states, 1)[..., None])[:, -1]  # (B, K)


class Gap3d(nn.Module):
    """3-D convolution, batch norm, in-place ReLU, global average pooling, linear head."""

    def __init__(self, channels: int = 3, outputs: int = 4, flatten: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, 6, 3, stride=(1, 2, 2), padding=1)
        self.norm = nn.BatchNorm3d(6)
        nn.init.uniform_(self.norm.weight, 0.5, 2)
        nn.init.uniform_(self.norm.bias, -0.5, 0.5)
        self.relu = nn.ReLU(inplace=True)
        self.layer = nn.Identity()
        self.drop = nn.Dropout(0.5)
        self.flatten = bool(flatten)
        self.fc = nn.Linear(flatten or 6, outputs)

    def forward(self, clip: Tensor) -> Tensor:
        a = self.layer(self.relu(self.norm(self.conv(clip))))
        return self.fc(self.drop(a.flatten(1) if self.flatten else a.mean((2, 3, 4))))


class Heads(Gap3d):
    """Two heads of the same features, of `first` columns and of the rest of five, put together as
    asked for."""

    explain_layers = ("conv",)

    def __init__(self, together: Callable[[Tensor, Tensor], Any], first: int = 2) -> None:
        torch.manual_seed(0)
        super().__init__(outputs=5)
        self.together, self.first = together, first

    def forward(self, clip: Tensor) -> Any:
        both = super().forward(clip)
        return self.together(both[:, : self.first], both[:, self.first :])


class Attends(nn.Module):
    """Tokens of a convolution that all attend to all, twice; the mean of all is read out."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, 8, 3, padding=1)
        self.qkv = nn.ModuleList(nn.Linear(8, 24) for _ in range(2))
        self.layer, self.drop, self.fc = nn.Identity(), nn.Dropout(0.5), nn.Linear(8, 4)

    def forward(self, clip: Tensor) -> Tensor:
        x = self.layer(self.conv(clip).flatten(2).transpose(1, 2))  # (B, t*h*w, 8)
        for qkv in self.qkv:
            q, k, v = qkv(x).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)  # (B, 2, N, 4)
            mixed = nn.functional.scaled_dot_product_attention(q, k, v)
            x = (x + mixed.transpose(1, 2).flatten(2)).tanh()
        return self.fc(self.drop(x.mean(1)))


class Touchy(Gap3d):
    """Draws random numbers and writes a buffer whenever it runs; raises on request."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(3))
        self.register_buffer("runs", torch.zeros(()))
        self.lstm = nn.LSTM(4, 4, num_layers=2, dropout=0.5, batch_first=True)
        self.fail = False

    def forward(self, clip: Tensor) -> Tensor:
        self.count += torch.rand(3)
        self.runs = self.runs + 1  # another tensor takes the buffer's place
        y = super().forward(clip)
        if self.fail:
            raise RuntimeError("as asked")
        return self.lstm(y[:, None])[0][:, 0]


def state(net: nn.Module) -> dict[str, Any]:
    """All that explaining must not change."""
    return {
        "tensors": {k: v.clone() for k, v in net.state_dict().items()},
        "grad": {k: None if p.grad is None else p.grad.clone() for k, p in net.named_parameters()},
        "requires_grad": {k: p.requires_grad for k, p in net.named_parameters()},
        "training": {k: m.training for k, m in net.named_modules()},
        "hooks": {
            k: (len(m._forward_hooks), len(m._backward_hooks)) for k, m in net.named_modules()
        },
        "own": {k: "forward" in m.__dict__ for k, m in net.named_modules()},
        "dropout": [m.dropout for m in net.modules() if isinstance(m, nn.RNNBase)],
        "rng": torch.get_rng_state(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for key, value in before.items():
        if key in ("tensors", "grad"):
            for name, tensor in value.items():
                same = after[key][name]
                assert (tensor is None) == (same is None), (key, name)
                assert tensor is None or torch.equal(tensor, same), (key, name)
        elif key == "rng":
            assert torch.equal(value, after[key])
        else:
            assert value == after[key], key


def describe(net: nn.Module, *layers: str, **kwargs: object) -> lc.Explainable:
    """`Explainable.of` with the first map of each toy network as the target layer."""
    default = "layer" if isinstance(net, Gap3d | Attends) else "trunk"
    return lc.Explainable.of(net, layers or (default,), **kwargs)  # type: ignore[arg-type]


def clip_of(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """A clip of noise from its own generator."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def batch_of(clip: Tensor, padded: int = 0) -> dict[str, Any]:
    """The batch that one clip would come in; its last `padded` frames are padding."""
    steps = clip.shape[2]
    return {
        "video": clip,
        "label": torch.tensor([0]),
        "valid": torch.arange(steps)[None] < steps - padded,
        "frame_idx": 3 * torch.arange(steps)[None],
        "time_s": torch.arange(steps)[None] / 4,
        "clip_id": ["clip"],
        "path": ["clip.mp4"],
        "error": [""],
    }
