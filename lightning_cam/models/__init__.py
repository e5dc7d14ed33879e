"""Networks: plain `torch.nn` modules that know nothing of Lightning."""

from lightning_cam.models.depth_nets import DispNet, ResNetDepth
from lightning_cam.models.frame_cnn import FrameCNN
from lightning_cam.models.inflate import inflate
from lightning_cam.models.inflated_resnet import InflatedResNet, InflatedResNet50
from lightning_cam.models.lrcn import LRCN
from lightning_cam.models.pan import PAN
from lightning_cam.models.pose_nets import PoseNet, ResNetPose
from lightning_cam.models.resnet3d import MC3_18, R3D18, R2Plus1D18, ResNet3D
from lightning_cam.models.sfm import SfMLearner
from lightning_cam.models.video_transformers import MViTV2S, Swin3DT
from lightning_cam.models.video_vit import VideoViT

__all__ = [
    "LRCN",
    "MC3_18",
    "PAN",
    "R3D18",
    "DispNet",
    "FrameCNN",
    "InflatedResNet",
    "InflatedResNet50",
    "MViTV2S",
    "PoseNet",
    "R2Plus1D18",
    "ResNet3D",
    "ResNetDepth",
    "ResNetPose",
    "SfMLearner",
    "Swin3DT",
    "VideoViT",
    "inflate",
]
