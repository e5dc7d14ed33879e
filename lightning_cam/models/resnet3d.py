"""3D ResNets of 18 layers (Tran et al., "A Closer Look at Spatiotemporal Convolutions", CVPR 2018).

torchvision's networks and, with its names, its Kinetics-400 weights: trained at 16 x 3 x 112 x 112,
normalised with mean (0.43216, 0.394666, 0.37645) and std (0.22803, 0.22145, 0.216989).
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import ClassVar

import torchvision
from torch import nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, Conv3DNoTemporal, Conv3DSimple

from lightning_cam.errors import ConfigError
from lightning_cam.models.clip_net import ClipNet
from lightning_cam.models.pretrained import load_weights
from lightning_cam.models.stems import check_stem, set_channels, stem_weights
from lightning_cam.models.trunks import without_head

_FULL = ("r3d_18", "mc3_18", "r2plus1d_18")
_CONVOLUTIONS = {
    "r3d_small": (Conv3DSimple,) * 4,
    "mc3_small": (Conv3DSimple, *(Conv3DNoTemporal,) * 3),
    "r2plus1d_small": (Conv2Plus1D,) * 4,
}


class ResNet3D(ClipNet):
    """A 3D ResNet with a new head.

    Time is strided together with space at layers 2 to 4 (r3d, r2plus1d), or never (mc3): 32 frames
    of 224 x 224 give a last map of 512 x 4 x 14 x 14, or 512 x 32 x 14 x 14. For finer heatmaps
    take `trunk.layer3` as target layer.

    Args:
        num_outputs: K.
        backbone: r3d_18, mc3_18, r2plus1d_18, or for CPUs r3d_small, mc3_small, r2plus1d_small
            (widths 8 to 64, one block a stage, half as many strides).
        weights: None, `"DEFAULT"` (torchvision's, Kinetics-400) or the path of a state dict.
        dropout: of the pooled features.
        checkpointing: recompute the residual blocks in the backward pass to save memory.
        in_channels: C; more than 3 are R, G, B and what else there is. `weights` for RGB are taken
            over to C channels, those for C as they are, see `stems.stem_weights`.
        stem: how: `scaled`, or for C > 3 `zero_ir`.

    Raises:
        UserError: unknown choice, or weights that cannot be had.
    """

    def __init__(
        self,
        num_outputs: int,
        backbone: str = "r3d_18",
        weights: str | None = None,
        dropout: float = 0.5,
        checkpointing: bool = False,
        in_channels: int = 3,
        stem: str = "scaled",
    ) -> None:
        check_stem(in_channels, stem)
        if backbone in _FULL:
            net = torchvision.models.get_model(backbone, weights=None)
            layers, features = without_head(net), net.fc.in_features
        elif backbone in _CONVOLUTIONS:
            layers, features = _small(backbone), 64
        else:
            names = ", ".join((*_FULL, *_CONVOLUTIONS))
            raise ConfigError(f"backbone={backbone!r} is unknown; choose one of {names}")
        set_channels(layers["stem"][0], in_channels)  # type: ignore[index]
        super().__init__(layers, features, num_outputs, dropout, checkpointing)
        self.in_channels = in_channels
        if weights is not None:
            adapt = partial(stem_weights, channels=in_channels, stem=stem)
            load_weights(self.trunk, backbone, weights, {"stem.0.weight": adapt})


class _Full(ResNet3D):
    """A `ResNet3D` of 18 layers that goes by its own name. Arguments as there."""

    named: ClassVar[str]

    def __init__(
        self,
        num_outputs: int,
        weights: str | None = None,
        dropout: float = 0.5,
        checkpointing: bool = False,
        in_channels: int = 3,
        stem: str = "scaled",
    ) -> None:
        super().__init__(
            num_outputs, self.named, weights, dropout, checkpointing, in_channels, stem
        )


class R3D18(_Full):
    """3D convolutions throughout; 33.2 M parameters. Arguments as for `ResNet3D`."""

    named = "r3d_18"


class MC3_18(_Full):  # noqa: N801
    """3D convolutions in the stem and layer 1, 2D ones behind; 11.5 M parameters.

    Arguments as for `ResNet3D`.
    """

    named = "mc3_18"


class R2Plus1D18(_Full):
    """Every 3D convolution is one in space, ReLU, one in time; 31.3 M parameters.

    Arguments as for `ResNet3D`.
    """

    named = "r2plus1d_18"


def _small(backbone: str) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=_small_stem(factored=backbone.startswith("r2plus1d"))
    )
    inputs, stages = 8, zip(_CONVOLUTIONS[backbone], (8, 16, 32, 64), (1, 2, 2, 1), strict=True)
    for i, (conv, outputs, stride) in enumerate(stages, start=1):
        shortcut = None
        if outputs != inputs:
            strides = conv.get_downsample_stride(stride)
            pointwise = nn.Conv3d(inputs, outputs, 1, strides, bias=False)
            shortcut = nn.Sequential(pointwise, nn.BatchNorm3d(outputs))
        block = BasicBlock(inputs, outputs, conv, stride, shortcut)
        layers[f"layer{i}"] = nn.Sequential(block)
        inputs = outputs
    return layers


def _small_stem(factored: bool) -> nn.Sequential:
    """3 -> 8 channels; the channels between, 5, are to 8 as torchvision's 45 are to 64."""
    convs = [nn.Conv3d(3, 8, (3, 5, 5), (1, 2, 2), (1, 2, 2), bias=False)]
    if factored:
        space = nn.Conv3d(3, 5, (1, 5, 5), (1, 2, 2), (0, 2, 2), bias=False)
        convs = [space, nn.Conv3d(5, 8, (3, 1, 1), 1, (1, 0, 0), bias=False)]
    layers: list[nn.Module] = []
    for conv in convs:
        layers += [conv, nn.BatchNorm3d(conv.out_channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
