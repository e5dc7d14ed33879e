"""A network that sees one frame at a time: the baseline that cannot use motion."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_cam.models.trunks import (
    build_neck,
    build_trunk,
    encode,
    mean_weights,
    read_out,
    valid_frames,
)


class FrameCNN(nn.Module):
    """Classifies every frame on its own; the clip's logits are the mean over its valid frames.

    Train it frame by frame (`VideoClassification(step_loss=1)`). As the read-out is linear, the
    gradient of a clip's logit is the sum of the frames' gradients over T, and one backward pass
    gives the Grad-CAM of every frame.

    Args:
        num_outputs: K.
        backbone: small, resnet18, resnet50, squeezenet1_1, alexnet, vgg16 or efficientnet_lite0 (of
            the extra `demo`).
        dropout: of the frame's features, per frame.
        weights: None, `"DEFAULT"` (torchvision's, or the extra's) or the path of a state dict.
        frozen: do not train the trunk.
    """

    explain_layers: tuple[str, ...] = ("trunk",)
    explain_attention: tuple[str, ...] = ()
    explain_frames: str = "trunk"

    def __init__(
        self,
        num_outputs: int,
        backbone: str = "small",
        dropout: float = 0.3,
        weights: str | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.trunk = build_trunk(backbone, weights, frozen)
        self.neck, features = build_neck(backbone)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, num_outputs)

    def forward(self, clip: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits (B, K) of a clip (B, C, T, H, W); `valid` (B, T) is False on padded frames."""
        return self.forward_steps(clip, valid)[0]

    def forward_steps(self, clip: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and the frames' logits (B, T, K)."""
        valid = valid_frames(clip, valid)
        frames = encode(self.trunk, self.neck, clip, valid)  # (B, T, F)
        steps = self.head(self.dropout(frames))  # (B, T, K)
        valid = valid.repeat(steps.shape[0] // valid.shape[0], 1)
        return read_out(steps, mean_weights(valid)), steps
