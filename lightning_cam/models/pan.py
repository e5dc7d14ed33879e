"""PAN, the persistent appearance network (Zhang et al., "PAN: Towards Fast Action Recognition via
Learning Persistence of Appearance", 2020).

A clip is S segments of m adjacent frames. A 2D ResNet sees every segment once, as its first frame,
as maps of what moved in it, or both; its blocks see the neighbouring segments.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from lightning_cam.errors import ConfigError
from lightning_cam.models.pan_parts import Appearance, ShiftedConv2d, TimescalePooling
from lightning_cam.models.pretrained import fill, read_weights
from lightning_cam.models.stems import (
    alike_weights,
    check_channels,
    check_stem,
    set_channels,
    stem_weights,
)
from lightning_cam.models.trunks import without_head

VARIANTS = ("lite", "full", "rgb", "pa")
# Channels of the last map, and the std of the initial linear layers and of the motion features.
# The authors' 1e-3 suits a pretrained network; a small one from scratch would stay on a plateau.
_BACKBONES = {"resnet50": (2048, 1e-3, 1e-3), "small": (64, 0.02, 0.05)}


class PAN(nn.Module):
    """A 2D ResNet over segments of a clip, with temporal shifts and timescale pooling.

    Variants, by what the ResNet sees of a segment:

    - `rgb`: its first frame;
    - `pa`: m-1 maps of how much its frames differ (`Appearance`), which show where things move;
    - `lite`: both, as channels of one image;
    - `full`: two networks, `rgb` and `pa`, whose logits are averaged. They are trained together.
      The authors train them apart: train `rgb`, train `pa`, then pass both checkpoints as
      `weights={"rgb": PATH, "pa": PATH}`, and train on or not.

    Frames come in the order of time: segment s is frames m s to m s + m-1. Padding is not known
    here (there is no `valid`): a repeated last frame is a still one, and its heatmap is not blank.

    Submodules to hook: `trunk` (target layer, (B*S, D, h, w); in `full` `rgb.trunk` and
    `pa.trunk`) and `pool.weights` (output: the weights of the S-1 timescales, (B, S-1)). Heatmaps
    of the frames of a segment are the same. Segments do not have gradients alike, for each channel
    passes one to where its maxima are: Grad-CAM pools per segment (`pool="space"`).

    Batch norms are trained, also with pretrained weights: motion maps are not as images are.

    Args:
        num_outputs: K.
        variant: lite, full, rgb or pa.
        backbone: resnet50, or small for CPUs (lite has 79,852 parameters with 4 segments of 4
            frames and 4 outputs; 64 x 64 frames give maps of 64 x 8 x 8).
        segments: S, a power of two from 2 on.
        frames: m, of a segment.
        in_channels: C; more than 3 are R, G, B and what else there is.
        weights: of the 2D network: None, `"DEFAULT"` (torchvision's ImageNet weights) or the path
            of a state dict, also of a PAN. Those for RGB are taken over to C channels (see
            `stems.stem_weights`); where there are motion maps, their mean goes to every input, as
            the authors have it, but three maps alone take them as they are. In `full` both
            networks start from them, or see above.
        dropout: of the pooled features.

    Raises:
        UserError: unknown choice, or weights that cannot be had.

    Example:
        >>> net = PAN(8)
        >>> net(torch.zeros(2, 3, 32, 224, 224)).shape
        torch.Size([2, 8])
    """

    explain_layers: tuple[str, ...] = ("trunk",)
    explain_attention: tuple[str, ...] = ()

    def __init__(
        self,
        num_outputs: int,
        variant: str = "lite",
        backbone: str = "resnet50",
        segments: int = 8,
        frames: int = 4,
        in_channels: int = 3,
        weights: str | Mapping[str, str] | None = None,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        _check(variant, backbone, segments, frames, in_channels, weights)
        self.variant, self.segments, self.frames = variant, segments, frames
        self.in_channels = in_channels
        if variant == "full":
            apart = weights if isinstance(weights, Mapping) else {}
            shared = (backbone, segments, frames, in_channels, None if apart else weights, dropout)
            self.rgb, self.pa = (PAN(num_outputs, name, *shared) for name in ("rgb", "pa"))
            self.explain_layers = ("rgb.trunk", "pa.trunk")
            for name, path in apart.items():
                state = read_weights(backbone, path)
                fill(self.get_submodule(name), state, f"{backbone} of PAN's {name}", path)
            return
        features, std, motion_std = _BACKBONES[backbone]
        inputs = 0 if variant == "pa" else in_channels
        if variant != "rgb":
            self.motion = Appearance(in_channels, motion_std)
            inputs += frames - 1
        self.trunk = _trunk(backbone, segments, inputs)
        self.pool = TimescalePooling(segments, std)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, num_outputs)
        nn.init.normal_(self.head.weight, std=std)
        nn.init.zeros_(self.head.bias)
        if weights is not None and not isinstance(weights, Mapping):
            state = read_weights(backbone, weights)
            adapt = partial(stem_weights if variant == "rgb" else alike_weights, channels=inputs)
            fill(self.trunk, state, backbone, weights, {"conv1.weight": adapt})
            if variant != "rgb" and any(key.endswith("motion.conv.weight") for key in state):
                adapt = partial(stem_weights, channels=in_channels)
                fill(self.motion, state, backbone, weights, {"conv.weight": adapt})

    def forward(self, clip: Tensor) -> Tensor:
        """Logits (B, K) of a clip (B, C, T, H, W) with T = S m.

        Raises:
            ConfigError: another T or C.
        """
        if self.variant == "full":
            return (self.rgb(clip) + self.pa(clip)) / 2
        frames = self._segments(clip)  # (B*S, m, C, H, W)
        seen = []
        if self.variant != "pa":
            seen.append(frames[:, 0])
        if self.variant != "rgb":
            seen.append(self.motion(frames))
        maps = self.trunk(torch.cat(seen, 1))  # (B*S, D, h, w)
        vectors = maps.mean((2, 3)).unflatten(0, (-1, self.segments))  # (B, S, D)
        return self.head(self.dropout(self.pool(vectors)))

    def _segments(self, clip: Tensor) -> Tensor:
        check_channels(clip, self.in_channels)
        steps = self.segments * self.frames
        if clip.shape[2] != steps:
            raise ConfigError(
                f"{self.segments} segments of {self.frames} frames are {steps}, but the clip has "
                f"{clip.shape[2]}; set data.num_frames={steps}, or model.segments and model.frames"
            )
        return clip.transpose(1, 2).unflatten(1, (self.segments, self.frames)).flatten(0, 1)

    def explain_fold(self, activation: Tensor, batch: int) -> Tensor:
        """Reads maps (B*S, D, h, w) as (B, D, T, h, w), each repeated over its segment's frames.

        Maps of single frames, (B*T, D, h, w), inside `motion`, are not repeated.
        """
        if activation.ndim != 4 or activation.shape[0] % (batch * self.segments):
            raise ValueError(
                f"expected an activation (B*S, D, h, w) with B={batch} and S={self.segments}, got "
                f"{tuple(activation.shape)}; choose a layer that still has height and width"
            )
        maps = activation.unflatten(0, (batch, -1)).transpose(1, 2)  # (B, D, S or T, h, w)
        return maps.repeat_interleave(self.segments * self.frames // maps.shape[2], 2)


def _check(
    variant: str,
    backbone: str,
    segments: int,
    frames: int,
    in_channels: int,
    weights: str | Mapping[str, str] | None,
) -> None:
    check_stem(in_channels)
    for key, value, known in (
        ("variant", variant, VARIANTS),
        ("backbone", backbone, tuple(_BACKBONES)),
    ):
        if value not in known:
            raise ConfigError(f"{key}={value!r} is unknown; choose one of {', '.join(known)}")
    if segments < 2 or segments & (segments - 1):
        raise ConfigError(f"segments={segments} must be a power of two: 2, 4, 8, ...")
    if frames < (1 if variant == "rgb" else 2):
        raise ConfigError(f"frames={frames} to a segment show no motion; take 2 or more")
    if isinstance(weights, Mapping) and (variant != "full" or set(weights) != {"rgb", "pa"}):
        raise ConfigError(
            f"weights={dict(weights)}: model.variant=full takes one path, or one for rgb "
            "and one for pa; the other variants take one path"
        )


def _trunk(backbone: str, segments: int, channels: int) -> nn.Sequential:
    """A ResNet up to its last map; every block's residual branch begins with a shift."""
    if backbone == "small":
        layers = _small()
    else:
        layers = without_head(torchvision.models.get_model(backbone, weights=None))
    set_channels(layers["conv1"], channels)  # type: ignore[arg-type]
    trunk = nn.Sequential(layers)
    for block in trunk.modules():
        if isinstance(block, BasicBlock | Bottleneck):
            block.conv1 = ShiftedConv2d(block.conv1, segments)
    return trunk


def _small() -> OrderedDict[str, nn.Module]:
    """An eighth of a ResNet-18 that keeps 8 x 8 cells of a 64 x 64 frame."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, 8, 5, 2, 2, bias=False),
        bn1=nn.BatchNorm2d(8),
        relu=nn.ReLU(inplace=True),
    )
    inputs = 8
    for i, (outputs, stride) in enumerate(((8, 1), (16, 2), (32, 2), (64, 1)), start=1):
        shortcut = None
        if outputs != inputs:
            pointwise = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            shortcut = nn.Sequential(pointwise, nn.BatchNorm2d(outputs))
        layers[f"layer{i}"] = nn.Sequential(BasicBlock(inputs, outputs, stride, shortcut))
        inputs = outputs
    return layers
