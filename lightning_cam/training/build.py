"""Build objects from plain nodes `{"_target_": "package.module.Name", **arguments}`.

The same function builds from the user's own configuration and from what a checkpoint remembers. A
checkpoint may come from a stranger, so there the name must lie in what is trusted before anything
is imported, and the class must be of a kind that settings are made of before anything is called: a
network, a data module, a method, a loss, a transform. Of torchvision the functions that make its
networks will do as well; other functions are not meant for strangers' arguments. No Hydra, no
OmegaConf: interpolations and resolvers are code as well.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import FunctionType
from typing import Any

from lightning.pytorch import LightningDataModule
from torch import nn

from lightning_cam.attribution import Attribution
from lightning_cam.errors import (
    ArgumentError,
    CheckpointError,
    ConfigError,
    UnknownNameError,
    UserError,
)

TARGET, PARTIAL = "_target_", "_partial_"
LOADS = ".from_pretrained"  # of a class: see `pretrained_nodes`
_OWN = ("lightning_cam",)
_TORCHVISION = "torchvision.models"
_HUGGING_FACE = "transformers.configuration_utils"
_NETWORKS = ("lightning_cam.models", _TORCHVISION)
_WEIGHTS = ("weights", "weights_backbone")
_KINDS = (nn.Module, LightningDataModule, Attribution)  # what a checkpoint may name


def build(
    node: Any, trust: Sequence[str] | None = None, where: str = "", kind: type = object
) -> Any:
    """Turn every node of a plain tree that has a `_target_` into the object it describes.

    Args:
        node: dicts, lists, strings, numbers, booleans and None.
        trust: packages, or dotted names of single classes, that may be called, see `locate`;
            None for the user's own configuration, where anything importable may be.
        where: path of this node, for messages.
        kind: what the class of the node itself must be, or be derived from.

    Raises:
        ConfigError: (`trust` None) an unknown name or arguments that do not fit.
        CheckpointError: (`trust` given) the same, or a name that is not trusted.
    """
    error = ConfigError if trust is None else CheckpointError
    if isinstance(node, Mapping):
        target = None
        if TARGET in node:  # before any of its parts is built
            name = node[TARGET]
            target = locate(name, trust, where)
            if kind is not object and not (isinstance(target, type) and issubclass(target, kind)):
                raise error(f"{where or name}: {name} must be derived from {kind.__name__}")
            if inspect.isabstract(target):
                missing = ", ".join(_signatures(target))
                raise error(f"{where or name}: {name} does not define {missing}")
        items = {
            key: build(value, trust, f"{where}.{key}" if where else str(key))
            for key, value in node.items()
            if key not in (TARGET, PARTIAL)
        }
        if target is None:
            return items
        if trust is not None and _is_network(target):
            # They come with the checkpoint: no path it names is opened, nothing is downloaded.
            named = {*items, *inspect.signature(target).parameters}
            items.update((key, None) for key in _WEIGHTS if key in named)
        if trust is not None and is_config(target) and names_a_download(items):
            raise error(
                f"{where}: settings of {name} name what would be downloaded and run, such as "
                "'owner/kernel'; refused in a checkpoint"
            )
        return _called(target, items, node.get(PARTIAL, False), name, where or name, error)
    if isinstance(node, (list, tuple)):
        return [build(value, trust, f"{where}[{i}]") for i, value in enumerate(node)]
    return node


def _called(
    target: Any, items: dict[str, Any], lazy: bool, name: str, where: str, error: type[UserError]
) -> Any:
    """What a class or function makes of settings, or (`lazy`) it with them, to be called later.

    Raises:
        UserError: `error`, where they do not fit; what the call raises for the user stays.
    """
    try:
        signature = inspect.signature(target)
        if lazy or not is_config(target):  # whose signature hides that they take more
            (signature.bind_partial if lazy else signature.bind)(**items)
    except TypeError as e:
        raise error(f"{where}: {name} does not take these settings: {e}") from e
    except ValueError:  # it has no signature, as datetime.timedelta: the call itself will tell
        pass
    if lazy:
        return partial(target, **items)
    try:
        return target(**items)
    except UserError as e:
        if not isinstance(e, ArgumentError):  # which names no setting
            raise
        raise error(f"{where}: {e}") from e
    except (ValueError, TypeError, RuntimeError) as e:
        raise error(f"{where}: {name}: {' '.join(str(e).split())[:300]}") from e


def _signatures(cls: type) -> Iterator[str]:
    """What an abstract class leaves open, such as `__call__(self, model, clip, target)`."""
    for name in sorted(cls.__abstractmethods__):  # type: ignore[attr-defined]
        member = getattr(cls, name)
        parameters = inspect.signature(member).parameters if callable(member) else None
        yield name if parameters is None else f"{name}({', '.join(parameters)})"


def locate(name: Any, trust: Sequence[str] | None = None, where: str = "") -> Any:
    """The object `module.Name`; with `trust`, a class that a checkpoint may name.

    That is a public class of networks, data modules, methods, losses or transforms, a function of
    torchvision that makes a network, or settings of one of Hugging Face; a trusted package defines
    it, or its own name is trusted.

    Raises:
        ConfigError, CheckpointError: as in `build`.
    """
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        raise _refusal(trust, f"{where}: {name!r} is not a dotted name")
    if trust is not None and name.endswith(LOADS):
        raise _refusal(
            trust,
            f"{where}: refused to call {name!r}: it opens or downloads files that its settings "
            "name, and a checkpoint has weights of its own",
        )
    if trust is not None and not _inside(name, trust):
        asked = ",".join([*(known for known in trust if known not in _OWN), name])
        raise _refusal(
            trust,
            f"{where}: refused to import {name!r}: it is not in a trusted package "
            f"({', '.join(trust)}); if you trust the file and this class, add trust=[{asked}]",
        )
    if trust is not None and name not in trust and re.search(r"(^|\.)_", name):
        raise _refusal(trust, f"{where}: refused to import {name!r}: the name is private")
    module, _, attribute = name.rpartition(".")
    try:
        # The part before the last dot must be a module: no attributes of attributes.
        home = importlib.import_module(module)
    except (ImportError, ValueError) as e:  # ValueError: a name without a dot
        raise _refusal(trust, f"{where}: cannot find {name!r}: {_why_not(module, e)}") from e
    try:
        found = getattr(home, attribute)
    except (AttributeError, ImportError) as e:  # ImportError: of a module that loads its parts late
        have = [known for known in dir(home) if not known.startswith("_")]
        near = UnknownNameError("class or function", attribute, have)
        raise _refusal(trust, f"{where}: cannot find {name!r}: {module} has {near}") from e
    if trust is not None and not _may_call(found, name, trust):
        raise _refusal(
            trust,
            f"{where}: refused to call {name!r}: not a class of that package that "
            "makes networks, data modules, methods, losses or transforms",
        )
    return found


def _may_call(found: Any, name: str, trust: Sequence[str]) -> bool:
    """Whether a checkpoint may call what its name, which is trusted, has led to."""
    if not (_is_kind(found) or _makes_network(found) or is_config(found)):
        return False
    return name in trust or _inside(found.__module__, trust)


def _is_kind(found: Any) -> bool:
    """A class of what settings are made of: networks, data modules, methods, losses, transforms.

    The latter two are called by others; what opens files or starts processes seldom is.
    """
    return isinstance(found, type) and (
        issubclass(found, _KINDS) or any("__call__" in vars(base) for base in found.__mro__)
    )


def _why_not(module: str, error: Exception) -> str:
    """Why a module cannot be imported, in words."""
    if not module:
        return "write it as MODULE.NAME"
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and _inside(module, (missing,)):
        return f"no module {missing!r}; is it installed, or in the folder where the command starts?"
    return f"{module} cannot be imported: {error}"


def rebuildable(node: Any, where: str = "") -> None:
    """Whether a checkpoint that remembers this tree can be rebuilt by those who trust its packages.

    Raises:
        ConfigError: it names something that no checkpoint may call.
    """
    trust = (*_OWN, *strangers(node))
    if isinstance(node, Mapping) and not node.get(PARTIAL):
        if TARGET in node:
            locate(node[TARGET], where=where)  # a name that is not there is not a matter of trust
            try:
                locate(node[TARGET], trust, where)
            except CheckpointError as e:
                raise ConfigError(
                    f"{where}: explain.py could not rebuild {node[TARGET]!r}: checkpoints may name "
                    "classes of networks, data modules, methods, losses and transforms, and "
                    "torchvision's networks by their own functions; name a class"
                ) from e
        for key, value in node.items():
            rebuildable(value, f"{where}.{key}" if where else str(key))
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            rebuildable(value, f"{where}[{i}]")


def strangers(node: Any) -> set[str]:
    """Classes of other packages that a checkpoint of this tree would ask to be trusted."""
    if isinstance(node, Mapping):
        if node.get(PARTIAL):  # optimiser and schedule are not remembered
            return set()
        name = str(node.get(TARGET, _OWN[0]))
        own = set() if _inside(name, _OWN) else {name}
        return own.union(*map(strangers, node.values()))
    if isinstance(node, (list, tuple)):
        return set().union(*map(strangers, node))
    return set()


def _is_network(target: Any) -> bool:
    """One of this package's or torchvision's networks, or a class derived from one."""
    bases = inspect.getmro(target) if isinstance(target, type) else (target,)
    return any(_inside(base.__module__, _NETWORKS) for base in bases)


def _makes_network(found: Any) -> bool:
    """A function of torchvision that makes one network (not `get_model`, which hands on any)."""
    return (
        isinstance(found, FunctionType)
        and _inside(found.__module__, (_TORCHVISION,))
        and "weights" in inspect.signature(found).parameters
    )


def is_config(found: Any) -> bool:
    """Settings of a network of Hugging Face, a class that holds them and does nothing."""
    return isinstance(found, type) and any(
        base.__module__ == _HUGGING_FACE and base.__name__.endswith("TrainedConfig")
        for base in found.__mro__
    )


def names_a_download(value: Any) -> bool:
    """Whether settings hold a text such as "owner/kernel", which Hugging Face would download."""
    if isinstance(value, Mapping):
        return any(map(names_a_download, value.values()))
    if isinstance(value, list | tuple):
        return any(map(names_a_download, value))
    return isinstance(value, str) and "/" in value


def _inside(name: str, packages: Sequence[str]) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def _refusal(trust: Sequence[str] | None, message: str) -> UserError:
    return (ConfigError if trust is None else CheckpointError)(message.removeprefix(": "))
