"""Networks for the camera's motion between the frames of a snippet.

They see the target and its sources stacked by channels, and return pose vectors of the motions
target -> source, `(B, N, 6)` (see `geometry.pose_matrix`), with masks at four scales or None.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from lightning_cam.errors import ConfigError
from lightning_cam.models.depth_nets import SCALES, _crop, _xavier
from lightning_cam.models.pretrained import load_weights
from lightning_cam.models.stems import set_channels

_STEP = 0.01  # pose vectors begin small


class PoseNet(nn.Module):
    """PoseExpNet of SfMLearner (Zhou et al., CVPR 2017).

    Seven convolutions of stride 2 and a linear read-out of their mean, pose = 0.01 mean(W A + b).
    From the fifth, explainability masks E in (0, 1) can be decoded, which tell where the static
    scene does not explain a source.

    Args:
        snippet: frames of a snippet, the target and its sources.
        width: channels of the first convolution; 16 is the published network, 4 a small one.
        masks: with explainability masks.
    """

    explain_layers: ClassVar[tuple[str, ...]] = ("conv5", "conv4", "conv7")

    def __init__(self, snippet: int = 3, width: int = 16, masks: bool = False) -> None:
        super().__init__()
        self.sources = check_snippet(snippet) - 1
        if type(width) is not int or width < 1:
            raise ConfigError(f"width={width!r} must be a number of channels, 1 or more")
        channels = [width * n for n in (1, 2, 4, 8, 16, 16, 16)]
        kernels = (7, 5, 3, 3, 3, 3, 3)
        before = 3 * snippet
        for n, (after, kernel) in enumerate(zip(channels, kernels, strict=True), 1):
            conv = nn.Conv2d(before, after, kernel, 2, kernel // 2)
            self.add_module(f"conv{n}", nn.Sequential(conv, nn.ReLU()))
            before = after
        self.pose = nn.Conv2d(before, 6 * self.sources, 1)
        self.masks = masks
        if masks:
            before = channels[4]
            for n in range(5, 0, -1):
                after = width * 2 ** (n - 1)
                up = nn.Sequential(nn.ConvTranspose2d(before, after, 4, 2, 1), nn.ReLU())
                self.add_module(f"upconv{n}", up)
                if n <= SCALES:
                    head = nn.Conv2d(after, self.sources, 3, 1, 1)
                    self.add_module(f"mask{n}", nn.Sequential(head, nn.Sigmoid()))
                before = after
        _xavier(self)

    def forward(self, target: Tensor, sources: Tensor) -> tuple[Tensor, list[Tensor] | None]:
        """Pose vectors (B, N, 6), and masks (B, N, H/2^s, W/2^s), the finest first, or None.

        Args:
            target: (B, 3, H, W).
            sources: (B, N, 3, H, W), in the order of time.
        """
        features = [stacked(target, sources, self.sources)]
        for n in range(1, 8):
            features.append(self.get_submodule(f"conv{n}")(features[-1]))
        pose = _STEP * self.pose(features[-1]).mean((2, 3)).unflatten(1, (self.sources, 6))
        if not self.masks:
            return pose, None
        x, masks = features[5], []
        for n in range(5, 0, -1):
            x = _crop(self.get_submodule(f"upconv{n}")(x), features[n - 1])
            if n <= SCALES:
                masks.append(self.get_submodule(f"mask{n}")(x))
        return pose, masks[::-1]


class ResNetPose(nn.Module):
    """A ResNet-18 with a small decoder, as in monodepth2 (Godard et al., ICCV 2019).

    Unlike there, it sees the target with all its sources at once, as `PoseNet` does.

    Args:
        snippet: frames of a snippet, the target and its sources.
        weights: of the encoder: "DEFAULT", the path of a state dict, or None. The first
            convolution is repeated for each image and divided by their number.

    Raises:
        ConfigError, UserError: the weights do not fit, or cannot be downloaded.
    """

    explain_layers: ClassVar[tuple[str, ...]] = ("encoder.layer4", "encoder.layer3", "read")

    def __init__(self, snippet: int = 3, weights: str | None = "DEFAULT") -> None:
        super().__init__()
        self.sources = check_snippet(snippet) - 1
        self.encoder = resnet18()
        del self.encoder.fc
        set_channels(self.encoder.conv1, 3 * snippet)
        if weights is not None:
            first = {"conv1.weight": lambda w: w.repeat(1, snippet, 1, 1) / snippet}
            load_weights(self.encoder, "resnet18", weights, first)
        self.squeeze = nn.Sequential(nn.Conv2d(512, 256, 1), nn.ReLU())
        self.read = nn.Sequential(
            nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(), nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU()
        )
        self.pose = nn.Conv2d(256, 6 * self.sources, 1)

    def forward(self, target: Tensor, sources: Tensor) -> tuple[Tensor, None]:
        """Pose vectors (B, N, 6); see `PoseNet.forward`."""
        encoder = self.encoder
        x = encoder.conv1(stacked(target, sources, self.sources))
        x = encoder.maxpool(encoder.relu(encoder.bn1(x)))
        for n in range(1, 5):
            x = encoder.get_submodule(f"layer{n}")(x)
        pose = self.pose(self.read(self.squeeze(x))).mean((2, 3))
        return _STEP * pose.unflatten(1, (self.sources, 6)), None


def check_snippet(snippet: int) -> int:
    """Raise a ConfigError for a snippet that has no frame in its middle."""
    if type(snippet) is not int or snippet < 3 or snippet % 2 == 0:
        raise ConfigError(f"snippet={snippet!r} must be an odd number of frames, 3 or more")
    return snippet


def stacked(target: Tensor, sources: Tensor, count: int) -> Tensor:
    """Target and sources by channels, (B, 3 (1 + N), H, W).

    Raises:
        ConfigError: there are not as many sources as the network takes.
    """
    if sources.shape[1] != count:
        raise ConfigError(
            f"the network takes snippets of {count + 1} frames, these have {sources.shape[1] + 1}; "
            "set data.snippet and the network's snippet to the same number"
        )
    return torch.cat([target, sources.flatten(1, 2)], 1)
