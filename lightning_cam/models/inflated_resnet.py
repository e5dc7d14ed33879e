"""ResNets for images, inflated to see clips."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

from lightning_cam.errors import ConfigError
from lightning_cam.models.clip_net import ClipNet
from lightning_cam.models.inflate import inflate
from lightning_cam.models.pretrained import fill, read_weights
from lightning_cam.models.trunks import without_head

_RESNETS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    *("wide_resnet50_2", "wide_resnet101_2"),
)
_SMALL = 96  # channels of the small network's last map


class InflatedResNet(ClipNet):
    """A torchvision ResNet, inflated, with a new head.

    16 x 3 x 224 x 224 gives a last map of 2048 x 16 x 7 x 7 with ResNet-50, one step a frame. With
    `mode="uniform"` each step sees all frames of such a clip.

    Args:
        num_outputs: K.
        backbone: resnet18 ... resnet152, resnext..., wide_resnet..., or small (for CPUs, 401,128
            parameters when uniform; 16 x 3 x 64 x 64 gives 96 x 16 x 8 x 8).
        weights: of the 2D network: None, `"DEFAULT"` (torchvision's ImageNet weights) or the path
            of a state dict, which may also be of an inflated network.
        mode: see `inflate`.
        init: see `inflate`.
        temporal_padding: see `inflate`.
        dropout: of the pooled features.
        checkpointing: recompute the residual blocks in the backward pass to save memory.

    Raises:
        UserError: unknown choice, or weights that cannot be had.
    """

    def __init__(
        self,
        num_outputs: int,
        backbone: str = "resnet50",
        weights: str | None = None,
        mode: str | int = "uniform",
        init: str = "average",
        temporal_padding: str = "zeros",
        dropout: float = 0.5,
        checkpointing: bool = False,
    ) -> None:
        layers, features = _frame_layers(backbone)
        trunk: nn.Module = nn.Sequential(layers)
        deepen = partial(inflate, mode=mode, init=init, temporal_padding=temporal_padding)
        if weights is None:
            trunk = deepen(trunk)
        else:
            state = read_weights(backbone, weights)
            if any(value.ndim == 5 for value in state.values()):  # of an inflated network
                trunk = deepen(trunk)
                fill(trunk, state, f"{backbone} with mode={mode}", weights)
            else:
                fill(trunk, state, backbone, weights)
                trunk = deepen(trunk)
        children = OrderedDict(trunk.named_children())
        super().__init__(children, features, num_outputs, dropout, checkpointing)


class InflatedResNet50(InflatedResNet):
    """The inflated ResNet-50 of the Something-Something post, from ImageNet weights.

    70,499,816 parameters and 196 GMAC for 16 x 3 x 224 x 224 when uniform. The arguments are those
    of `InflatedResNet`; `weights=None` starts from random weights.
    """

    def __init__(
        self,
        num_outputs: int,
        weights: str | None = "DEFAULT",
        mode: str | int = "uniform",
        init: str = "average",
        temporal_padding: str = "zeros",
        dropout: float = 0.5,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(
            num_outputs, "resnet50", weights, mode, init, temporal_padding, dropout, checkpointing
        )


def _frame_layers(backbone: str) -> tuple[OrderedDict[str, nn.Module], int]:
    """The 2D layers before the head, and the channels of their last map."""
    if backbone == "small":
        return _small(), _SMALL
    if backbone not in _RESNETS:
        names = ", ".join(("small", *_RESNETS))
        raise ConfigError(f"backbone={backbone!r} is unknown; choose one of {names}")
    net = torchvision.models.get_model(backbone, weights=None)
    return without_head(net), net.fc.in_features


def _small() -> OrderedDict[str, nn.Module]:
    """A quarter of a ResNet-18 that keeps 8 x 8 cells of a 64 x 64 frame, for legible heatmaps."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, 8, 5, 2, 2, bias=False),
        bn1=nn.BatchNorm2d(8),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(3, 2, 1),
    )
    inputs = 8
    for i, (outputs, stride) in enumerate(((8, 1), (16, 2), (32, 1), (_SMALL, 1)), start=1):
        conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))
        layers[f"layer{i}"] = nn.Sequential(BasicBlock(inputs, outputs, stride, shortcut))
        inputs = outputs
    return layers
