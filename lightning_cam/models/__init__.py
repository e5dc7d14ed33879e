"""Networks: plain `torch.nn` modules that know nothing of Lightning."""

from lightning_cam.models.frame_cnn import FrameCNN
from lightning_cam.models.lrcn import LRCN

__all__ = ["LRCN", "FrameCNN"]
