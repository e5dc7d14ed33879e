"""Networks for depth from a single image.

They return disparities at four scales, the finest first, `(B, 1, H/2^s, W/2^s)` (sizes rounded up);
depth is 1 / disparity.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

from lightning_cam.errors import ConfigError
from lightning_cam.models.pretrained import load_weights

SCALES = 4


class DispNet(nn.Module):
    """DispNet of SfMLearner (Zhou et al., CVPR 2017, after Mayer et al., CVPR 2016).

    Seven pairs of convolutions, each of half the size, and seven steps back up with skip
    connections. disparity = 10 sigmoid + 0.01, so depth lies between 0.1 and 100.

    Args:
        width: channels of the first convolution; 32 is the published network (31.6 M parameters),
            8 a small one for CPUs (2.0 M).
    """

    explain_layers: ClassVar[tuple[str, ...]] = ("iconv4", "iconv1", "conv5", "conv7")

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        if type(width) is not int or width < 2 or width % 2:
            raise ConfigError(f"width={width!r} must be an even number of channels, 2 or more")
        down = [width * n for n in (1, 2, 4, 8, 16, 16, 16)]
        up = [width // 2, *(width * n for n in (1, 2, 4, 8, 16, 16))]  # of upconv1 .. upconv7
        kernels = (7, 5, 3, 3, 3, 3, 3)
        before = 3
        for n, (channels, kernel) in enumerate(zip(down, kernels, strict=True), 1):
            self.add_module(f"conv{n}", _halve(before, channels, kernel))
            before = channels
        for n in range(7, 0, -1):
            channels = up[n - 1]
            skip = down[n - 2] if n > 1 else 0
            self.add_module(f"upconv{n}", _double(before, channels))
            inputs = channels + skip + (n <= 3)  # the coarser disparity
            self.add_module(
                f"iconv{n}", nn.Sequential(nn.Conv2d(inputs, channels, 3, 1, 1), nn.ReLU())
            )
            if n <= SCALES:
                self.add_module(
                    f"disp{n}", nn.Sequential(nn.Conv2d(channels, 1, 3, 1, 1), nn.Sigmoid())
                )
            before = channels
        _xavier(self)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Disparities of images (B, 3, H, W), the finest first."""
        part = self.get_submodule
        features = [image]
        for n in range(1, 8):
            features.append(part(f"conv{n}")(features[-1]))
        x, disparities = features[-1], list[Tensor]()
        for n in range(7, 0, -1):
            like = features[n - 1]  # the image itself for n = 1
            parts = [_crop(part(f"upconv{n}")(x), like)]
            if n > 1:
                parts.append(like)
            if n <= 3:
                finer = F.interpolate(
                    disparities[-1], scale_factor=2, mode="bilinear", align_corners=False
                )
                parts.append(_crop(finer, like))
            x = part(f"iconv{n}")(torch.cat(parts, 1))
            if n <= SCALES:
                disparities.append(10 * part(f"disp{n}")(x) + 0.01)
        return disparities[::-1]


class ResNetDepth(nn.Module):
    """A ResNet-18 with a decoder as in monodepth2 (Godard et al., ICCV 2019).

    disparity = 1/100 + (1/0.1 - 1/100) sigmoid.

    Args:
        weights: of the encoder: "DEFAULT", the path of a state dict, or None. ImageNet weights
            expect images with ImageNet's mean and standard deviation.

    Raises:
        ConfigError, UserError: the weights do not fit, or cannot be downloaded.
    """

    explain_layers: ClassVar[tuple[str, ...]] = (
        "encoder.layer4", "encoder.layer3", "iconv3", "iconv0",
    )  # fmt: skip

    def __init__(self, weights: str | None = "DEFAULT") -> None:
        super().__init__()
        self.encoder = resnet18()
        del self.encoder.fc
        if weights is not None:
            load_weights(self.encoder, "resnet18", weights)
        skips = (64, 64, 128, 256, 512)
        widths = (16, 32, 64, 128, 256)
        before = skips[-1]
        for n in range(4, -1, -1):
            self.add_module(f"upconv{n}", _reflecting(before, widths[n]))
            skip = skips[n - 1] if n else 0
            self.add_module(f"iconv{n}", _reflecting(widths[n] + skip, widths[n]))
            if n < SCALES:
                head = nn.Conv2d(widths[n], 1, 3, padding=1, padding_mode="reflect")
                self.add_module(f"disp{n}", nn.Sequential(head, nn.Sigmoid()))
            before = widths[n]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Disparities of images (B, 3, H, W), the finest first; H and W from 33 pixels on."""
        encoder, part = self.encoder, self.get_submodule
        features = [encoder.relu(encoder.bn1(encoder.conv1(image)))]
        x = encoder.maxpool(features[0])
        for n in range(1, 5):
            x = part(f"encoder.layer{n}")(x)
            features.append(x)
        disparities = []
        for n in range(4, -1, -1):
            like = features[n - 1] if n else image
            x = _crop(F.interpolate(part(f"upconv{n}")(x), scale_factor=2), like)
            x = part(f"iconv{n}")(torch.cat([x, like], 1) if n else x)
            if n < SCALES:
                disparities.append(0.01 + (10 - 0.01) * part(f"disp{n}")(x))
        return disparities[::-1]


def _halve(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    pad = kernel // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, 2, pad),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, kernel, 1, pad),
        nn.ReLU(),
    )


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=1), nn.ReLU())


def _reflecting(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect"), nn.ELU())


def _crop(x: Tensor, like: Tensor) -> Tensor:
    """The upper left part of the size of another image: sizes need not be powers of two."""
    return x[..., : like.shape[-2], : like.shape[-1]]


def _xavier(module: nn.Module) -> None:
    for m in module.modules():
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(m.weight)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
