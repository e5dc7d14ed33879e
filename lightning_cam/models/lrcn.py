"""LRCN: a CNN looks at every frame, an LSTM reads the sequence (Donahue et al., CVPR 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cam.errors import ConfigError
from lightning_cam.models.trunks import (
    build_neck,
    build_trunk,
    encode,
    mean_weights,
    read_out,
    valid_frames,
)

READOUTS = ("mean", "last", "attention")


class LRCN(nn.Module):
    """CNN + LSTM with one linear head shared by all steps, y_t = W h_t + b.

    The clip's logits are always a weighted sum of the steps' logits, sum_t a_t y_t:

    - `mean`: a_t = 1/T over the valid steps;
    - `last`: the last valid step alone;
    - `attention`: soft attention, a = softmax(e) over the valid steps with
      e_t = v^T tanh(W_a h_t + b_a) / sqrt(rows of W_a). As sum_t a_t = 1 and the head is shared,
      this is the head applied to the attended state sum_t a_t h_t, and a_t y_t is the share of
      step t in the score.

    Nothing is kept between batches: every clip starts from the zero state. Step t depends on the
    frames up to t only, so the attention ranks "having seen the clip up to here".

    Submodules to hook: `trunk` (target layer), `head` (output: step logits (B, T, K)) and, with
    attention, `attention` (output: a, (B, T)).

    Args:
        num_outputs: K.
        backbone: small, resnet18, resnet50, squeezenet1_1, alexnet, vgg16 or efficientnet_lite0 (of
            the extra `demo`).
        hidden: units of the LSTM.
        readout: mean, last or attention.
        dropout: of the LSTM's output, one mask for all steps of a clip.
        weights: None, `"DEFAULT"` (torchvision's, or the extra's) or the path of a state dict.
        frozen: do not train the trunk.
        attention_size: rows of W_a.

    Raises:
        UserError: unknown backbone or readout, or weights that cannot be had.
    """

    explain_layers: tuple[str, ...] = ("trunk",)
    explain_attention: tuple[str, ...] = ()
    explain_frames: str = "trunk"

    def __init__(
        self,
        num_outputs: int,
        backbone: str = "small",
        hidden: int = 192,
        readout: str = "mean",
        dropout: float = 0.3,
        weights: str | None = None,
        frozen: bool = False,
        attention_size: int = 128,
    ) -> None:
        super().__init__()
        if readout not in READOUTS:
            raise ConfigError(
                f"readout={readout!r} is unknown; choose one of {', '.join(READOUTS)}"
            )
        self.readout = readout
        self.trunk = build_trunk(backbone, weights, frozen)
        self.neck, features = build_neck(backbone)
        self.lstm = nn.LSTM(features, hidden, batch_first=True)
        # Dropping whole channels of (B, hidden, T) is one mask for all steps: the same as dropout
        # of the pooled state, and the logits stay the weighted sum of the step logits in training.
        self.dropout = nn.Dropout1d(dropout)
        self.head = nn.Linear(hidden, num_outputs)
        _init_lstm(self.lstm)
        if readout == "attention":
            self.explain_attention = ("attention",)
            inner = nn.Linear(hidden, attention_size)
            outer = nn.Linear(attention_size, 1, bias=False)
            nn.init.xavier_uniform_(inner.weight)
            nn.init.zeros_(inner.bias)
            nn.init.xavier_uniform_(outer.weight)
            self.score = nn.Sequential(inner, nn.Tanh(), outer)
            self.score_scale = attention_size**-0.5
            self.attention = nn.Softmax(dim=1)

    def forward(self, clip: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits (B, K) of a clip (B, C, T, H, W); `valid` (B, T) is False on padded frames."""
        return self.forward_steps(clip, valid)[0]

    def forward_steps(self, clip: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and the steps' logits (B, T, K); those of padded steps mean nothing."""
        valid = valid_frames(clip, valid)
        return self.read_frames(encode(self.trunk, self.neck, clip, valid), valid)

    def read_frames(self, frames: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward_steps`, from the frames' vectors (B, T, F) on: a frozen trunk runs once."""
        # Padding comes last and the LSTM is causal, so no packing: valid steps never see it.
        state, _ = self.lstm(frames)  # (B, T, hidden)
        steps = self.head(self.dropout(state.transpose(1, 2)).transpose(1, 2))  # (B, T, K)
        valid = valid.repeat(steps.shape[0] // valid.shape[0], 1)
        return read_out(steps, self._weights(state, valid)), steps

    def _weights(self, state: Tensor, valid: Tensor) -> Tensor:
        if self.readout == "attention":
            # Adam moves all of v at once: unscaled, a few steps at a high learning rate put the
            # whole attention on one step, from where it never returns.
            score = self.score_scale * self.score(state).squeeze(-1).float()
            return self.attention(score.masked_fill(~valid, -torch.inf))  # (B, T)
        if self.readout == "last":
            rank = valid * torch.arange(1, valid.shape[1] + 1, device=valid.device)
            return F.one_hot(rank.argmax(1), valid.shape[1]).float()
        return mean_weights(valid)


@torch.no_grad()
def _init_lstm(lstm: nn.LSTM) -> None:
    for name, parameter in lstm.named_parameters():
        gates = parameter.chunk(4)  # in, forget, cell, out
        if name.startswith("weight"):
            init = nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_
            for gate in gates:
                init(gate)
        else:
            nn.init.zeros_(parameter)
        if name.startswith("bias_ih"):  # the two biases add up: a forget bias of 1 goes into one
            nn.init.ones_(gates[1])
