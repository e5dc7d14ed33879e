"""A checkpoint of somebody's own LightningModule, in whose training this program had no part.

What a checkpoint of `train.py` remembers is said in settings: the class, how to look into it, and
how clips are made. Nothing of it is guessed, for a wrong guess would give a wrong map.
"""

from __future__ import annotations

import inspect
import shlex
import warnings
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor

from lightning_cam.attribution import Attribution, Explainable
from lightning_cam.attribution.checks import OF_NETWORKS
from lightning_cam.attribution.columns import Probability, names_of
from lightning_cam.attribution.families import called, layers_to_offer
from lightning_cam.attribution.guard import find_module
from lightning_cam.attribution.method import without_layer
from lightning_cam.errors import (
    ArgumentError,
    CheckpointError,
    ConfigError,
    NetworkError,
    PickledCodeError,
    UnknownNameError,
    UserError,
    say,
    why,
)
from lightning_cam.interfaces import Explains
from lightning_cam.training.build import TARGET, build, locate
from lightning_cam.training.checkpoint import KEY, load_lightning

VIDEOS = "lightning_cam.data.clips.VideoFolder"
_AXES = ("bcthw", "btchw")
# What clips are, with an example of each.
_OF_CLIPS = {
    "num_frames": "16", "crop": "112", "mean": "[0.485,0.456,0.406]", "std": "[0.229,0.224,0.225]",
}  # fmt: skip


@dataclass(frozen=True)
class OwnModule:
    """How a LightningModule is made and looked into: the settings below `model`.

    Args:
        name: of its class, "my_package.MyModule".
        arguments: of its `__init__`, in place of hyper-parameters that the checkpoint has.
        part: dotted name of the network in it, where its own forward takes no clip.
        classes: names of the columns; None: their numbers, or what its `explainable` names.
        probability: of the columns, see `Explainable.of`.
        axes: of a clip as the network takes it, "bcthw" or "btchw".
        layout: of its layers, see `Explainable.of`.
        grid: t, h, w of layers in which these are joined.

    Raises:
        ConfigError: a setting makes no sense.
    """

    name: str
    arguments: Mapping[str, Any] | None = None
    part: str | None = None
    classes: Sequence[str] | None = None
    probability: Probability | None = "softmax"
    axes: str = "bcthw"
    layout: str | Mapping[str, str] | None = None
    grid: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for key, kinds, words in (
            ("name", (str,), "the name of a class, my_package.MyModule"),
            ("arguments", (dict, type(None)), "a mapping such as {width: 6}"),
            ("part", (str, type(None)), "the name of a module, or null"),
            ("classes", (list, type(None)), "a list of names, or null"),
        ):
            if type(getattr(self, key)) not in kinds:
                raise ConfigError(f"model.{key}={getattr(self, key)} must be {words}")
        if self.axes not in _AXES:
            raise UnknownNameError("model.axes", self.axes, _AXES)

    @classmethod
    def of(cls, settings: Mapping[str, Any] | None) -> OwnModule | None:
        """What is set; None where no class is named.

        Raises:
            ConfigError: something is set of a class that is not named, or makes no sense.
        """
        given = dict(settings or {})
        if given.get("name") is not None:
            return cls(**given)
        own = {f.name: f.default for f in fields(cls) if f.name != "name"}
        for key, value in given.items():
            if key in own and value != own[key]:
                raise ConfigError(f"model.{key}={value} needs a class; add model=CLASS")
        return None


class OwnTask(LightningModule):
    """A LightningModule of somebody, as `explain.py` explains it.

    Args:
        model: the module.
        own: how to look into it.

    Raises:
        ConfigError: it says itself how it is to be looked into, and settings say it as well.
    """

    def __init__(self, model: LightningModule, own: OwnModule) -> None:
        super().__init__()
        self.model, self.own = model, own
        if not isinstance(model, Explains):
            return
        for key in ("part", "layout", "grid", "probability", "axes"):
            default = next(f.default for f in fields(OwnModule) if f.name == key)
            if getattr(own, key) != default:
                raise ConfigError(
                    f"model.{key}={getattr(own, key)} says nothing where {own.name}.explainable "
                    "says how to look into it; leave it out"
                )

    def explainable(self, batch: Any = None) -> Explainable:
        """How to look into the network, bound to the clips of a batch."""
        model, own = self.model, self.own
        if isinstance(model, Explains):
            described = model.explainable(batch)
            if own.classes is not None:
                described = replace(described, outputs=names_of("model.classes", own.classes))
            return described
        network = model if own.part is None else find_module(model, own.part)
        call = called(network)

        def forward(clip: Tensor) -> Any:
            try:
                return call(clip if own.axes == _AXES[0] else clip.transpose(1, 2))
            except (UserError, MemoryError, torch.OutOfMemoryError):
                raise
            except OF_NETWORKS as error:
                other = next(axes for axes in _AXES if axes != own.axes)
                raise NetworkError(
                    f"{type(network).__name__} fails on clips {own.axes} = {tuple(clip.shape)}: "
                    f"{why(error)}; if it takes {other}, add model.axes={other}, and if a network "
                    "in it takes the clip, model.part=NAME"
                ) from error

        described = Explainable.of(
            network, outputs=own.classes, probability=own.probability, layout=own.layout,
            grid=own.grid, forward=forward,
        )  # fmt: skip
        if batch is None:
            return described
        return replace(described, black=batch.get("black"), truth=batch.get("mask"))


def rebuild_own(
    path: str | Path, own: OwnModule, trust: Sequence[str], data: Mapping[str, Any], listed: bool
) -> tuple[OwnTask, LightningDataModule, dict[str, Any]]:
    """Task (with weights, in eval mode) and data of a checkpoint that remembers neither.

    Args:
        path: written by Lightning; nothing pickled in it is run.
        own: its class, and how to look into it.
        trust: packages and single classes that may be called, see `build.locate`.
        data: settings of the data, of `VideoFolder` where they name no other class.
        listed: whether clips come from a folder of classes, whose names must be known then.

    Returns:
        As `rebuild`.

    Raises:
        CheckpointError: see `load`; the class is not trusted, or the file is not of it.
        ConfigError: something has to be said; all that is missing is named.
    """
    cls = locate(own.name, (KEY, *trust), "model.name")
    if not (isinstance(cls, type) and issubclass(cls, LightningModule)):
        raise ConfigError(f"model.name: {own.name} is no LightningModule; name the class of one")
    checkpoint = _read(path)
    if KEY in checkpoint:
        raise ConfigError(f"{path} remembers its model and data; leave out model= and its settings")
    _check_described(path, data)
    task = OwnTask(_loaded(path, cls, own, checkpoint), own).eval()
    _check_forward(task)
    classes = own.classes or list(task.explainable().outputs) or None
    if listed and classes is None:
        raise ConfigError(
            f"{path} does not know what its columns are called: add 'model.classes=[NAME,...]', "
            "in their order"
        )
    epoch, step = (checkpoint.get(key, -1) for key in ("epoch", "global_step"))
    info = {"version": None, "classes": classes, "run": {}, "epoch": epoch, "global_step": step}
    return task, _data(data, classes), info


def _check_forward(task: OwnTask) -> None:
    """Whether there is a network that takes a clip.

    Raises:
        ConfigError: the module has no forward of its own; what it has is proposed.
    """
    model, own = task.model, task.own
    if own.part or isinstance(model, Explains):
        return
    if type(model).forward is LightningModule.forward:
        parts = [name for name, _ in model.named_children()]
        raise ConfigError(
            f"{own.name} has no forward; say which network in it takes a clip: add "
            f"model.part={parts[0] if parts else 'NAME'} (it has {', '.join(parts) or 'none'})"
        )


def check_own_layers(model: Explainable, methods: Mapping[str, Attribution]) -> None:
    """Whether methods have a layer to look into.

    Raises:
        ConfigError: they have none; some are proposed.
    """
    lacking = [] if model.layers else without_layer(methods)
    if lacking:
        names = layers_to_offer(model.module)
        offered = f" (it has {', '.join(names)})" if names else ""
        raise ConfigError(
            f"{type(model.module).__name__} names no target layer for {', '.join(lacking)}: add "
            f"layer={names[-1] if names else 'NAME'}{offered}; layers=list prints them all"
        )


def _read(path: str | Path) -> dict[str, Any]:
    """The checkpoint; of one with objects in it, such as a hyper-parameter, how to leave them out.

    Raises:
        CheckpointError: see `load_lightning`.
    """
    try:
        return load_lightning(path)
    except PickledCodeError as error:
        kept = "('state_dict', 'epoch', 'global_step', 'pytorch-lightning_version')"
        code = (
            f"import torch; c = torch.load({str(path)!r}, 'cpu', weights_only=False); "
            f"torch.save({{k: c[k] for k in {kept}}}, 'plain.ckpt')"
        )
        raise CheckpointError(
            f"{error}; if you trust the file, save what is plain of it: python -c "
            f"{shlex.quote(code)}, and explain that: ckpt=plain.ckpt"
        ) from error


def _check_described(path: str | Path, data: Mapping[str, Any]) -> None:
    """Whether it is said what clips are; data of the user's own know it."""
    missing = [key for key in _OF_CLIPS if key not in data]
    if TARGET in data or not missing:
        return
    example = " ".join(f"data.{key}={_OF_CLIPS[key]}" for key in missing)
    raise ConfigError(
        f"{path} was written without lightning_cam, so say what its clips are: add, for example, "
        f"{example} (frames, side in pixels, and by what colours from 0 to 1 were normalised)"
    )


def _loaded(
    path: str | Path, cls: type[LightningModule], own: OwnModule, checkpoint: Mapping[str, Any]
) -> LightningModule:
    """The module with its weights, as its own `load_from_checkpoint` makes it."""
    arguments = build(dict(own.arguments or {}), where="model.arguments")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of versions of Lightning
            return cls.load_from_checkpoint(
                path, map_location="cpu", weights_only=True, **arguments
            )
    except UserError:
        raise
    except Exception as error:  # its own code
        said = " ".join(str(error).split())[:300]
        known = {*arguments, *(checkpoint.get("hyper_parameters") or {})}
        first, *more = _lacking(cls, known) or [""]
        if isinstance(error, TypeError) and first:
            rest = "".join(f",{name}:VALUE" for name in more)
            raise CheckpointError(
                f"{path}: {own.name} is made with more than the checkpoint remembers, for it was "
                f"trained without save_hyperparameters(); add 'model.arguments={{{first}:VALUE"
                f"{rest}}}'"
            ) from error
        what = "its weights do not fit" if isinstance(error, RuntimeError) else "it cannot make"
        raise CheckpointError(
            f"{path}: {what} {own.name} ({type(error).__name__}: {said}); give what it was made "
            "with in training: 'model.arguments={NAME:VALUE}'"
        ) from error


def _lacking(cls: type[LightningModule], known: Set[str]) -> list[str]:
    """Arguments without a default of which nobody has said anything."""
    named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    return [
        name
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind in named
        and name not in known
    ]


def _data(given: Mapping[str, Any], classes: Sequence[str] | None) -> LightningDataModule:
    """Data by settings; of videos in folders what is not said is said here."""
    if TARGET in given:
        return build(given, where="data", kind=LightningDataModule)
    node = {TARGET: VIDEOS, "root": ".", "fps": None, "resize": given["crop"], "num_workers": 0}
    node |= {"classes": None if classes is None else list(classes), **given}
    every = f"{node['fps']:g} frames a second" if node["fps"] else "every frame (data.fps=)"
    say(
        f"clips: {node['num_frames']} frames, {every}, the short side resized to {node['resize']} "
        f"(data.resize=), of it the middle {node['crop']} x {node['crop']}"
    )
    try:
        return build(node, where="data", kind=LightningDataModule)
    except ArgumentError as error:
        raise ConfigError(f"data: {error}") from error
