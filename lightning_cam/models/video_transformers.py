"""torchvision's video transformers, with its Kinetics-400 weights and a new head.

Swin3D-T (Liu et al., "Video Swin Transformer", CVPR 2022) and MViTv2-S (Li et al., CVPR 2022).
"""

from __future__ import annotations

import torchvision
from torch import Tensor, nn

from lightning_cam.errors import ConfigError
from lightning_cam.models.pretrained import load_weights
from lightning_cam.models.stems import check_channels


class Swin3DT(nn.Module):
    """Attention within shifted windows of 8 x 7 x 7 tokens; 28 M parameters.

    Tokens of 2 x 4 x 4 voxels, merged 2 x 2 in space three times: 32 frames of 224 x 224 give a
    last map of 768 x 16 x 7 x 7. Any length and size. Trained at 32 x 224 x 224, normalised with
    ImageNet's mean and std.

    Activations within `trunk` are channels-last, (B, t, h, w, D).

    Args:
        num_outputs: K.
        weights: None, `"DEFAULT"` (torchvision's, Kinetics-400) or the path of a state dict.
        dropout: of the pooled features.

    Raises:
        UserError: weights that cannot be had.
    """

    explain_layers: tuple[str, ...] = ("trunk.norm",)

    def __init__(self, num_outputs: int, weights: str | None = None, dropout: float = 0.5) -> None:
        super().__init__()
        self.trunk = torchvision.models.get_model("swin3d_t", weights=None)
        features = self.trunk.head.in_features
        self.trunk.head = nn.Identity()
        if weights is not None:
            load_weights(self.trunk, "swin3d_t", weights)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, num_outputs)

    def forward(self, clip: Tensor) -> Tensor:
        """Logits (B, K) of a clip (B, 3, T, H, W)."""
        check_channels(clip, 3)
        return self.head(self.dropout(self.trunk(clip)))


class MViTV2S(nn.Module):
    """Attention to pooled tokens, a class token; 34 M parameters.

    Tokens of 2 x 4 x 4 voxels, pooled 2 x 2 in space three times: 16 frames of 224 x 224 give last
    maps of 8 x 7 x 7. A network takes clips of one length and size; the weights, trained at
    16 x 224 x 224 (mean 0.45, std 0.225), are interpolated to it.

    The target layer, (B, 1 + t*h*w, D), is the norm before the last attention: behind it, other
    tokens than the class token have no gradient.

    Args:
        num_outputs: K.
        num_frames: T of the clips.
        size: H and W of the clips.
        weights: None, `"DEFAULT"` (torchvision's, Kinetics-400) or the path of a state dict.
        dropout: of the read-out.

    Raises:
        UserError: sizes that do not divide, or weights that cannot be had.
    """

    explain_layers: tuple[str, ...] = ("trunk.blocks.15.norm1",)

    def __init__(
        self,
        num_outputs: int,
        num_frames: int = 16,
        size: int = 224,
        weights: str | None = None,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if num_frames % 2 or size % 32 or min(num_frames, size) < 1:
            raise ConfigError(
                f"model.num_frames={num_frames} must be even and model.size={size} a multiple of 32"
            )
        self.clip = (3, num_frames, size, size)
        self.trunk = torchvision.models.get_model("mvit_v2_s", weights=None)
        # The only positions are relative ones, which torchvision interpolates to what is here.
        self.trunk.pos_encoding.temporal_size = num_frames // 2
        self.trunk.pos_encoding.spatial_size = (size // 4, size // 4)
        features = self.trunk.head[1].in_features
        self.trunk.head = nn.Identity()
        if weights is not None:
            load_weights(self.trunk, "mvit_v2_s", weights)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, num_outputs)

    def forward(self, clip: Tensor) -> Tensor:
        """Logits (B, K) of a clip (B, 3, T, H, W)."""
        check_channels(clip, 3)
        if tuple(clip.shape[1:]) != self.clip:
            raise ConfigError(
                f"the network takes clips {self.clip} (channels, frames, height, width), these are "
                f"{tuple(clip.shape[1:])}: take the data it was trained on, or train one with "
                "model.num_frames and model.size as the data have them"
            )
        return self.head(self.dropout(self.trunk(clip)))
