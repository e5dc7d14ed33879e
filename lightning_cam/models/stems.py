"""First convolutions for clips that are not RGB, from weights that are.

Only the first convolution of a network knows how many channels a clip has. With W of shape
(O, 3, ...) from a network for RGB,

- infrared alone (C = 1) gets the sum over R, G and B: a grey clip then has the response that it has
  as RGB, exactly. (Their mean would give a third of it, which batch norms in eval mode do not
  forgive.)
- RGB and more (C > 3, the first three are R, G and B) get 3/C [W_R, W_G, W_B, mean, ...]: channels
  that agree have the response of RGB. So 3/4 with one infrared channel.
- `zero_ir` is [W_R, W_G, W_B, 0, ...] instead: the network starts as that for RGB and learns the
  rest from nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_cam.errors import ConfigError

STEMS = ("scaled", "zero_ir")


def check_stem(channels: int, stem: str = "scaled") -> None:
    """Raise a ConfigError for settings that no first convolution can follow."""
    if type(channels) is not int or channels < 1:
        raise ConfigError(f"in_channels={channels!r} must be a whole number, 1 or more")
    if stem not in STEMS:
        raise ConfigError(f"stem={stem!r} is unknown; choose one of {', '.join(STEMS)}")
    if stem == "zero_ir" and channels < 4:
        raise ConfigError(
            "model.stem=zero_ir is for RGB and more, model.in_channels=4 or above; with "
            f"{channels} channels set model.stem=scaled"
        )


def check_channels(clip: Tensor, channels: int) -> None:
    """Raise a ConfigError for a clip (B, C, T, H, W) with another C than the network's."""
    if clip.shape[1] != channels:
        raise ConfigError(
            f"the network takes clips of {channels} channels, these have {clip.shape[1]}: take the "
            "data it was trained on, or train a network that has model.in_channels with null there"
        )


def stem_weights(weight: Tensor, channels: int, stem: str = "scaled") -> Tensor:
    """The weights (O, C, ...) of a first convolution, from those for RGB (O, 3, ...).

    Weights that have `channels` inputs already, or that are not for RGB, are returned as they are.

    Args:
        weight: of a 2D or 3D convolution.
        channels: C, see the top of this file.
        stem: `scaled` or `zero_ir`.

    Raises:
        ConfigError: two channels, of which none is known to be red, green or blue; or see
            `check_stem`.
    """
    check_stem(channels, stem)
    if channels == weight.shape[1] or weight.shape[1] != 3:
        return weight
    if channels == 1:
        return weight.sum(1, keepdim=True)
    if channels == 2:
        raise ConfigError(
            "model.in_channels=2 cannot start from weights for RGB: they go to 1 channel, or to "
            "R, G, B and more; set model.weights=null"
        )
    more = weight.mean(1, keepdim=True).repeat_interleave(channels - 3, 1)
    if stem == "zero_ir":
        return torch.cat([weight, torch.zeros_like(more)], 1)
    return 3 / channels * torch.cat([weight, more], 1)


def alike_weights(weight: Tensor, channels: int) -> Tensor:
    """The mean over RGB for each of `channels` inputs, for those that are not colours (PAN).

    Weights that have `channels` inputs already, or that are not for RGB, are returned as they are.
    """
    if channels == weight.shape[1] or weight.shape[1] != 3:
        return weight
    return weight.mean(1, keepdim=True).repeat_interleave(channels, 1)


def set_channels(conv: nn.Conv2d | nn.Conv3d, channels: int) -> None:
    """Gives a convolution `channels` inputs, in place, with fresh weights drawn as torchvision's.

    Nothing is drawn where it has as many already.
    """
    if conv.in_channels != channels:
        conv.in_channels = channels
        conv.weight = nn.Parameter(
            conv.weight.new_empty(conv.out_channels, channels, *conv.kernel_size)
        )
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
