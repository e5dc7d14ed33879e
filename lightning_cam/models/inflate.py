"""Inflation: a network for images becomes one for clips (Carreira & Zisserman, CVPR 2017).

Every 2D convolution gets a temporal kernel of 3, stride 1, padding 1 (I3D; the ResNet-50 of the
Something-Something post has "uniform kernel size of 3 in the time domain"). Time is never strided,
so the last map has as many steps as the clip has frames.

**The boring clip.** Let a clip repeat one image, and the batch norms be in eval mode.

- `temporal_padding="replicate"`: every layer gives the 2D activation in every frame.
- `temporal_padding="zeros"` (the original): each temporal convolution contaminates one more frame
  at both ends. After n of them on the longest path, frames n <= t <= T-1-n are the 2D ones, the
  others are off. One convolution without bias leaves exactly 2/3 of its response at the ends. A
  uniform ResNet-50 has n = 49: no frame of a 16-frame clip is exact, it takes T >= 99. So the ends
  look less active than the middle, in heatmaps as well.
- `init="center"`: every frame of *any* clip gives the 2D activations, whatever the padding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cam.errors import ConfigError

# Which convolutions, by dotted name and layer, see their neighbours in time.
_MODES: dict[str, Callable[[str, nn.Conv2d], bool]] = {
    "uniform": lambda name, conv: True,
    "uniform_no_downsample": lambda name, conv: "downsample" not in name.split("."),
    "333": lambda name, conv: conv.kernel_size != (1, 1),
    "311": lambda name, conv: name.split(".")[-1] == "conv1",
    "none": lambda name, conv: False,
}
_INITS = ("average", "center")
_PADDINGS = ("zeros", "replicate")


def inflate(
    module: nn.Module,
    mode: str | int = "uniform",
    init: str = "average",
    temporal_padding: str = "zeros",
) -> nn.Module:
    """A 3D copy of a 2D network: (B, C, T, H, W) where the original takes (B, C, H, W).

    See the top of this file for what a temporally constant clip gives. Convolutions become
    `nn.Conv3d` with (3, k, k) or (1, k, k); batch norms keep parameters and statistics; pooling
    stays within the frame, except that adaptive average pooling averages all of time.

    Args:
        module: layers of Conv2d, BatchNorm2d, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d and what
            does not care about dimensions; any torchvision ResNet. It is left alone.
        mode: which convolutions get a temporal kernel of 3: `uniform` (all),
            `uniform_no_downsample` (not those of the shortcuts), `333` (larger than 1x1), `311`
            (named `conv1`: the stem and the first of every residual block) or `none`.
        init: `average` spreads a kernel over the three taps, a third each; `center` puts it on the
            middle one.
        temporal_padding: `zeros` or `replicate` (the first and last step once more).

    Raises:
        ConfigError: unknown choice, a layer that cannot be inflated, or nothing to inflate.

    Example:
        >>> net = inflate(torchvision.models.resnet18())
        >>> net(torch.zeros(1, 3, 16, 112, 112)).shape
        torch.Size([1, 1000])
    """
    mode = str(mode)  # YAML takes 333 for a number
    for key, value, known in (
        ("mode", mode, tuple(_MODES)),
        ("init", init, _INITS),
        ("temporal_padding", temporal_padding, _PADDINGS),
    ):
        if value not in known:
            raise ConfigError(f"{key}={value!r} is unknown; choose one of {', '.join(known)}")
    inflated: dict[int, nn.Module] = {}
    temporal = mode == "none"
    for name, layer in module.named_modules():
        if type(layer) is nn.Conv2d:  # a subclass may compute something else
            taps = 3 if _MODES[mode](name, layer) else 1
            temporal |= taps > 1
            inflated[id(layer)] = _convolution(name, layer, taps, init, temporal_padding)
        elif (new := _without_time(layer)) is not None:
            inflated[id(layer)] = new
        elif type(layer).__name__.endswith("2d") and not any(layer.children()):
            raise ConfigError(f"cannot inflate layer {name!r}: {type(layer).__name__} has no rule")
    if not temporal:
        raise ConfigError(f"mode={mode!r} finds no convolution to inflate; try model.mode=uniform")
    # The copy finds these layers already "copied", wherever the network refers to them.
    return copy.deepcopy(module, inflated)


class ReplicateConv3d(nn.Conv3d):
    """Repeats the first and last step before it convolves; padding in space is zeros as usual.

    `padding_mode="replicate"` of Conv3d would replicate the borders of the frames as well.
    """

    def forward(self, input: Tensor) -> Tensor:
        # Not F.pad: its backward is not deterministic on GPUs.
        return super().forward(torch.cat([input[:, :, :1], input, input[:, :, -1:]], 2))


def _convolution(name: str, conv: nn.Conv2d, taps: int, init: str, padding: str) -> nn.Module:
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        raise ConfigError(f"cannot inflate layer {name!r}: only zero padding by numbers has a rule")
    replicate = taps > 1 and padding == "replicate"
    new = (ReplicateConv3d if replicate else nn.Conv3d)(
        conv.in_channels,
        conv.out_channels,
        _triple(taps, conv.kernel_size),
        _triple(1, conv.stride),
        _triple(0 if replicate else taps // 2, conv.padding),
        _triple(1, conv.dilation),
        conv.groups,
        conv.bias is not None,
        device="meta",  # no numbers are drawn
    )
    weight = conv.weight.detach().unsqueeze(2).repeat(1, 1, taps, 1, 1)  # (O, I, taps, k, k)
    if init == "average":
        weight /= taps
    elif taps > 1:
        weight[:, :, [0, 2]] = 0
    return _take_over(new, conv, weight)


def _without_time(layer: nn.Module) -> nn.Module | None:
    """The 3D layer that works within single frames."""
    if isinstance(layer, nn.BatchNorm2d):
        settings = layer.eps, layer.momentum, layer.affine, layer.track_running_stats
        return _take_over(nn.BatchNorm3d(layer.num_features, *settings, device="meta"), layer)
    if isinstance(layer, nn.MaxPool2d):
        return nn.MaxPool3d(
            _triple(1, layer.kernel_size),
            _triple(1, layer.stride),
            _triple(0, layer.padding),
            _triple(1, layer.dilation),
            layer.return_indices,
            layer.ceil_mode,
        )
    if isinstance(layer, nn.AvgPool2d):
        return nn.AvgPool3d(
            _triple(1, layer.kernel_size),
            _triple(1, layer.stride),
            _triple(0, layer.padding),
            layer.ceil_mode,
            layer.count_include_pad,
            layer.divisor_override,
        )
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return nn.AdaptiveAvgPool3d(_triple(1, layer.output_size))
    return None


def _triple(time: int, space: Any) -> tuple[int, int, int]:
    height, width = space if isinstance(space, (tuple, list)) else (space, space)
    return time, height, width


def _take_over(new: nn.Module, old: nn.Module, weight: Tensor | None = None) -> nn.Module:
    """Gives `new` the parameters, buffers and mode of `old`, with another `weight`."""
    for name, parameter in old.named_parameters(recurse=False):
        value = weight if weight is not None and name == "weight" else parameter.detach().clone()
        new.register_parameter(name, nn.Parameter(value, parameter.requires_grad))
    for name, buffer in old.named_buffers(recurse=False):
        new.register_buffer(name, buffer.clone())
    return new.train(old.training)
