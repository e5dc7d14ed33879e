"""What looks at single frames: a convolutional trunk and the neck that makes a vector of its map.

A trunk takes a clip, folds time into the batch and returns the last convolutional map of every
frame, which is the natural target layer of Grad-CAM. Its children keep torchvision's names, so that
`trunk.layer3` or `trunk.features.8` can be asked for as well.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cam.errors import ConfigError
from lightning_cam.models import efficientnet_lite
from lightning_cam.models.pretrained import load_weights
from lightning_cam.models.stems import check_channels

# Channels of the last map. AlexNet and VGG end before their last pooling: the map is twice as fine.
CHANNELS = {
    "small": 48,
    "resnet18": 512,
    "resnet50": 2048,
    "squeezenet1_1": 512,
    "alexnet": 256,
    "vgg16": 512,
    efficientnet_lite.NAME: efficientnet_lite.CHANNELS,
}
_FEATURES = {"squeezenet1_1": 13, "alexnet": 12, "vgg16": 30}  # children of `features` kept


class Trunk(nn.Sequential):
    """Layers applied to every frame of a clip: (B, C, T, H, W) -> (B*T, D, h, w), batch-major.

    Args:
        layers: named layers.
        frozen: no parameter is trained, and the trunk stays in eval mode when `train()` is called.
        fixed_norm: batch norms stay in eval mode; their parameters are trained.
    """

    def __init__(
        self, layers: OrderedDict[str, nn.Module], frozen: bool = False, fixed_norm: bool = False
    ) -> None:
        super().__init__(layers)
        self.frozen = frozen
        self.fixed_norm = fixed_norm
        if frozen:
            self.requires_grad_(False)
        self.train()

    def forward(self, clip: Tensor) -> Tensor:
        return super().forward(clip.transpose(1, 2).flatten(0, 1))  # (B*T, C, H, W) goes in

    def train(self, mode: bool = True) -> Trunk:
        # Frozen parameters alone do not freeze a network: running statistics move in train mode.
        super().train(mode and not self.frozen)
        if self.fixed_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


class _VectorNorm(nn.BatchNorm1d):
    """Batch norm that takes the running statistics for a vector that is alone in its batch.

    One vector has no variance, and so may be the last batch of an epoch.
    """

    def forward(self, input: Tensor) -> Tensor:
        if len(input) > 1:
            return super().forward(input)
        statistics = self.running_mean, self.running_var
        return F.batch_norm(input, *statistics, self.weight, self.bias, eps=self.eps)


class PositionNeck(nn.Module):
    """What is in a map and where: (N, D, h, w) -> (N, features).

    Per channel the maximum and the soft-argmax (the mean position under a softmax over the cells,
    whose sharpness is learned), then a linear layer, batch norm and ReLU. Positions make motion a
    linear matter for the LSTM behind; global average pooling would drop them.
    """

    def __init__(self, channels: int, features: int = 128) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(2.0))
        self.project = nn.Linear(3 * channels, features)
        self.norm = _VectorNorm(features)
        self.relu = nn.ReLU()  # without it the LSTM reaches 85 %, even on the true positions

    def forward(self, maps: Tensor) -> Tensor:
        height, width = maps.shape[-2:]
        cells = maps.float().flatten(2)  # (N, D, h*w)
        share = (self.sharpness * cells).softmax(-1).unflatten(-1, (height, width))
        x, y = (
            torch.linspace(-1, 1, n, device=maps.device, dtype=cells.dtype) for n in (width, height)
        )
        where = torch.cat([share.sum(2) @ x, share.sum(3) @ y], 1)  # (N, 2D)
        # Positions vary far less than activations; 3 brings both to one scale.
        vector = torch.cat([cells.amax(-1), 3 * where], 1)
        return self.relu(self.norm(self.project(vector.to(self.project.weight.dtype))))


def build_trunk(backbone: str, weights: str | None = None, frozen: bool = False) -> Trunk:
    """The trunk of a backbone.

    With `weights` the batch norms keep the statistics that came with them: a training batch holds
    few clips of near-identical frames, whose statistics are poor.

    Args:
        backbone: a key of `CHANNELS`.
        weights: see `lightning_cam.models.pretrained.load_weights`; None is random weights.
        frozen: see `Trunk`.

    Raises:
        UserError: no such backbone, or its weights cannot be had.
    """
    if backbone not in CHANNELS:
        raise ConfigError(f"backbone={backbone!r} is unknown; choose one of {', '.join(CHANNELS)}")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if backbone == "small":
        layers = _small()
    elif backbone in _FEATURES:
        features = torchvision.models.get_model(backbone, weights=None).features
        layers["features"] = features[: _FEATURES[backbone]]
    elif backbone == efficientnet_lite.NAME:
        layers = efficientnet_lite.layers()
    else:
        layers = without_head(torchvision.models.get_model(backbone, weights=None))
    trunk = Trunk(layers, frozen=frozen, fixed_norm=weights is not None)
    if weights is not None:
        load_weights(trunk, backbone, weights)
    return trunk


def without_head(resnet: nn.Module) -> OrderedDict[str, nn.Module]:
    """The layers of a torchvision ResNet up to its last map, under their own names."""
    children = resnet.named_children()
    return OrderedDict((name, child) for name, child in children if name not in ("avgpool", "fc"))


def _small() -> OrderedDict[str, nn.Module]:
    """A trunk for CPUs, 14,028 parameters: a 64 x 64 frame gives a map of 48 x 8 x 8."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (inputs, outputs, kernel, stride) in enumerate(
        [(3, 12, 5, 2), (12, 24, 3, 1), (24, 48, 3, 1)], start=1
    ):
        if i > 1:
            layers[f"pool{i - 1}"] = nn.MaxPool2d(2)
        layers[f"conv{i}"] = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        layers[f"bn{i}"] = nn.BatchNorm2d(outputs)
        layers[f"relu{i}"] = nn.ReLU()
    return layers


def build_neck(backbone: str) -> tuple[nn.Module, int]:
    """The neck that belongs to a backbone, and the number of its features."""
    channels = CHANNELS[backbone]
    if backbone == "small":
        return PositionNeck(channels), 128
    # Grad-CAM behind average pooling and a linear head is CAM, whatever the backbone.
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), channels


def valid_frames(clip: Tensor, valid: Tensor | None) -> Tensor:
    """(B, T) bool. A clip without any valid frame counts as all valid, so that nothing is NaN."""
    if valid is None:
        return torch.ones(clip.shape[0], clip.shape[2], dtype=torch.bool, device=clip.device)
    return valid | ~valid.any(1, keepdim=True)


def encode(trunk: Trunk, neck: nn.Module, clip: Tensor, valid: Tensor) -> Tensor:
    """The vectors of all frames, (B, T, F).

    In training, padding is kept away from the batch norms: it would shift their statistics.
    A hook may have replaced the trunk's output by several copies of the batch, so the number of
    rows comes from the features.
    """
    check_channels(clip, 3)
    if trunk.training and not bool(valid.all()):
        frames = clip.transpose(1, 2)[valid]  # (n, C, H, W)
        vectors = neck(trunk(frames.unsqueeze(2)))  # (n, F)
        padded = vectors.new_zeros(*valid.shape, vectors.shape[-1])
        return padded.index_put((valid,), vectors)
    return neck(trunk(clip)).unflatten(0, (-1, clip.shape[2]))


def read_out(steps: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum over time: (B, T, K), (B, T) -> (B, K)."""
    return (weights.unsqueeze(-1) * steps).sum(1)


def mean_weights(valid: Tensor) -> Tensor:
    """Weights (B, T) of the mean over the valid steps."""
    return valid.float() / valid.sum(1, keepdim=True)
