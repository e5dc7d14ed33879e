"""Pretrained weights: from torchvision's server or a local file, never running its code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.models import get_model_weights, list_models

from lightning_cam.archive import load_tensors
from lightning_cam.errors import CheckpointError, ConfigError, UserError
from lightning_cam.models import efficientnet_lite

# What becomes of a stored tensor on its way into the parameter of this name.
Changes = Mapping[str, Callable[[Tensor], Tensor]]


def load_weights(
    module: nn.Module, backbone: str, weights: str | Path, changes: Changes | None = None
) -> None:
    """Fills `module`, a part of a torchvision network with the original names, in place.

    Args:
        module: the part; names in the state dict that it does not have (the 1000-way head) are
            left aside.
        backbone: torchvision's name of the whole network, or one of ours (`"small"`).
        weights: `"DEFAULT"` or another name of torchvision's weights enum (`"IMAGENET1K_V1"`), or
            the path of a state dict: torchvision's file, or a checkpoint of ours (so that an LRCN
            can start from a frame CNN, as its authors did). `"DEFAULT"` of `"efficientnet_lite0"`
            is the file of an installed package.
        changes: see `fill`.

    Raises:
        ConfigError: no such weights or file, or they belong to another network.
        UserError: the download failed.
    """
    fill(module, read_weights(backbone, weights), backbone, weights, changes)


def read_weights(backbone: str, weights: str | Path) -> dict[str, Tensor]:
    """The state dict that `load_weights` would fill a module with."""
    path = Path(weights).expanduser()
    if backbone == efficientnet_lite.NAME and weights == "DEFAULT":
        path = efficientnet_lite.weights_file()
    known = get_model_weights(backbone).__members__ if backbone in list_models() else {}
    if weights in known:
        return _download(backbone, known[str(weights)])
    if path.is_file():
        return _read(path)
    names = ", ".join(known) or "none for this backbone"
    raise ConfigError(
        f"weights={str(weights)!r} is neither a file nor known for {backbone} ({names}); "
        "give the path of a state dict, or null to start from random weights"
    )


def _download(backbone: str, entry: Any) -> dict[str, Tensor]:
    try:
        return entry.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a bad hash a RuntimeError
        raise UserError(
            f"cannot download the weights of {backbone} from {entry.url} ({error}); fetch that "
            "file where there is a network and set model.weights=PATH to it, or model.weights=null "
            "(of two networks: model.depth.weights=PATH, model.pose.weights=PATH)"
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    try:
        state = load_tensors(path, old=True)
    except CheckpointError as error:
        reason = str(error).removeprefix(f"{path}: ").partition(";")[0]
        raise ConfigError(
            f"weights={str(path)!r} is not a state dict that loads without running code "
            f"({reason}); save one with torch.save(module.state_dict(), path)"
        ) from error
    for key in ("state_dict", "model"):  # checkpoints wrap the state dict
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise ConfigError(f"weights={str(path)!r} holds a {type(state).__name__}, not a state dict")
    return {
        name: value
        for name, value in state.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }


def fill(
    module: nn.Module,
    state: dict[str, Tensor],
    backbone: str,
    weights: str | Path,
    changes: Changes | None = None,
) -> None:
    """Copies the tensors of a state dict that belong to `module`, whatever prefix they carry.

    Those named in `changes` are changed first, for example to another number of channels.

    Raises:
        ConfigError: some are missing, have another shape or are there more than once; names
            `weights` and `backbone`.
    """
    problem = f"weights={str(weights)!r} do not fit the backbone {backbone}"
    # Files older than PyTorch 0.4.1 have no batch counters.
    names = [n for n in module.state_dict() if not n.endswith("num_batches_tracked")]
    prefixes = {key[: -len(names[0])] for key in state if key.endswith(names[0])} | {""}

    def missing(prefix: str) -> list[str]:
        return [name for name in names if prefix + name not in state]

    whole = sorted(prefix for prefix in prefixes if not missing(prefix))
    if len(whole) > 1:
        raise ConfigError(
            f"{problem}: they hold several ({', '.join(whole)}); give the state dict of one"
        )
    prefix = min(sorted(prefixes, key=len), key=lambda p: len(missing(p)))
    if absent := missing(prefix):
        raise ConfigError(f"{problem}: {len(absent)} of {len(names)} missing, first {absent[0]!r}")
    values = {name: state[prefix + name] for name in names}
    values.update((name, change(values[name])) for name, change in (changes or {}).items())
    own = module.state_dict()
    for name, value in values.items():
        if own[name].shape != value.shape:
            sizes = f"{tuple(value.shape)}, expected {tuple(own[name].shape)}"
            raise ConfigError(f"{problem}: {name!r} is {sizes}")
    module.load_state_dict(values, strict=False)
