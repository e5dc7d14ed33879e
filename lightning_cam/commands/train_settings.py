"""What must be right before a training starts, and what only the data know."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lightning_cam.attribution import Attribution
from lightning_cam.attribution.families import layers_to_offer
from lightning_cam.attribution.guard import unwrap
from lightning_cam.attribution.method import without_layer
from lightning_cam.commands.common import was_typed
from lightning_cam.commands.strategies import check_strategy, started_anew
from lightning_cam.errors import ConfigError
from lightning_cam.explaining.explain_settings import TRAINED_METHODS, check_clips, check_fps
from lightning_cam.explaining.question import TRUE, Question
from lightning_cam.interfaces import HasClassCounts, HasClasses, is_offered
from lightning_cam.tasks import VideoClassification
from lightning_cam.tasks.schedules import build_schedule
from lightning_cam.training.build import TARGET, build
from lightning_cam.training.loggers import SETTINGS, check_logger
from lightning_cam.training.preemption import Within


def check_settings(config: dict[str, Any]) -> None:
    """What must be right before there is a folder."""
    config["explain"] = config.get("explain") or {}
    config["measure"] = config.get("measure") or {}
    for key in ("task", "data", "trainer", "logger", "explain", "measure", "videos", "checkpoint"):
        if not isinstance(config.get(key), dict):
            raise ConfigError(f"{key}={config.get(key)} must be one of the choices or a mapping")
    for key, node in (
        ("task", config["task"]),
        ("task.model", config["task"].get("model")),
        ("data", config["data"]),
    ):
        if isinstance(node, dict) and TARGET not in node:
            raise ConfigError(
                f"{key} names no class; add {TARGET}: package.module.Class to its file"
            )
    for key in ("name", "runs"):
        if config[key] in (None, ""):
            raise ConfigError(f"{key} is missing; add {key}=VALUE")
        config[key] = str(config[key])
    if config["resume"] is not None:
        config["resume"] = str(config["resume"])
    seed = config["seed"]
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ConfigError(f"seed={seed} must be a whole number from 0 to {2**32 - 1}")
    if TRAINED_METHODS in config["explain"]:
        raise ConfigError(
            "explain=as_trained is for the command explain; name the methods, for example "
            "explain=[gradcam]"
        )
    if config["measure"] and not config["explain"]:
        raise ConfigError(
            f"measure={','.join(config['measure'])} measures maps, and explain=none makes none; "
            "leave it out, or choose methods, for example explain=[gradcam]"
        )
    check_strategy(config["trainer"])
    config["trainer"] = started_anew(config["trainer"])
    config["logger"] = _of_its_kind(config["logger"])
    check_logger(config["logger"])
    check_clips(config["videos"].get("clips"), "videos.clips")
    check_fps(config["videos"].get("fps"), "videos.fps")
    within = {TARGET: f"{Within.__module__}.{Within.__name__}", **config["checkpoint"]}
    build(within, where="checkpoint")


def _of_its_kind(logger: dict[str, Any]) -> dict[str, Any]:
    """A logger's settings without those that an experiment's file has for another kind.

    What was typed stays, so that it is told that it says nothing.
    """
    others = {key for keys in SETTINGS.values() for key in keys}
    others -= {*SETTINGS.get(str(logger.get("kind")), others)}
    return {k: v for k, v in logger.items() if k not in others or was_typed(f"logger.{k}")}


def try_optimizer(task: Mapping[str, Any]) -> None:
    """Lightning asks for these two late; a mistake in them is said before anything starts."""
    weights = [torch.nn.Parameter(torch.zeros(1))]
    key, optimizer = "optimizer", torch.optim.SGD(weights)
    try:
        if task.get("optimizer") is not None:
            optimizer = build(task["optimizer"], where="task.optimizer")(weights)
            _check_finite(optimizer.defaults)
        key = "scheduler"
        if task.get("scheduler") is not None:
            build_schedule(build(task["scheduler"], where="task.scheduler"), optimizer, 100)
    except (TypeError, ValueError) as error:
        given = task[key] if isinstance(task[key], Mapping) else {}
        texts = [f"{k}={v}" for k, v in given.items() if k[0] != "_" and isinstance(v, str)]
        odd = f" ({', '.join(texts)} is text)" if texts and isinstance(error, TypeError) else ""
        raise ConfigError(f"task.{key}: {error}{odd}") from error


def _check_finite(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"task.optimizer.{name}={value} must be finite; choose a number")


def check_layers(task: Any, methods: Mapping[str, Attribution]) -> None:
    """Methods need a target layer; without one every epoch would pass unexplained."""
    if not isinstance(task, VideoClassification) or task.explainable().layers:
        return
    lacking = without_layer(methods)
    if lacking:
        network = unwrap(task.model)
        names = layers_to_offer(network)
        offered = f" (it has {', '.join(names)})" if names else ""
        raise ConfigError(
            f"{type(network).__name__} names no target layer for {', '.join(lacking)}: add "
            f"task.layers=[{names[-1] if names else 'NAME'}]{offered}, or explain=none"
        )


def check_question(task: object, videos: Mapping[str, Any]) -> None:
    """A class that there is not is found before training.

    Raises:
        UserError: `videos.target` or `videos.contrast` is such a one, or makes no sense.
    """
    question = Question(videos.get("target", TRUE), videos.get("contrast"))
    if question.names_columns and isinstance(task, VideoClassification):
        question.check(task.explainable())


def classes_of(data: object) -> Sequence[str]:
    """The class names of a data module that is set up.

    Raises:
        ConfigError: it has nothing to say about them.
    """
    if not is_offered(data, HasClasses):
        raise ConfigError(
            f"{type(data).__name__} has no `classes`: give it the names in the order of the "
            "labels, or an empty list where clips have none"
        )
    return list(data.classes)


def filled(
    config: dict[str, Any], classes: Sequence[str], channels: int, source: object = None
) -> dict[str, Any]:
    """The configuration with what only the data know filled in.

    Args:
        config: the settings.
        classes: names of the classes.
        channels: of a clip.
        source: the data module, which is asked how many clips each class has where weights shall
            balance them.

    Raises:
        ConfigError: it does not say.
    """
    task, data = dict(config["task"]), dict(config["data"])
    if "classes" in task:
        task["classes"] = task["classes"] or list(classes)
    if task.get("class_weights") == "balanced":
        task["class_weights"] = _balancing(source)
    model = task.get("model")
    if isinstance(model, dict):
        outputs = len(classes)  # three names: ours, torchvision's, Hugging Face's
        known = dict.fromkeys(("num_outputs", "num_classes", "num_labels"), outputs)
        task["model"] = _with_sizes(model, known | {"in_channels": channels})
    if "classes" in data:  # a rebuilt model then needs no data to know its classes
        data["classes"] = list(classes)
    return {**config, "task": task, "data": data}


def _with_sizes(model: dict[str, Any], known: Mapping[str, int]) -> dict[str, Any]:
    """A network's settings, and those of its parts, with what the data say where they are null."""
    return {
        key: known[key]
        if value is None and key in known
        else _with_sizes(value, known)
        if isinstance(value, dict)
        else value
        for key, value in model.items()
    }


def _balancing(data: object) -> list[float]:
    """Weights by which all classes have the same share of the loss: N / (K n_k), as scikit-learn's.

    Raises:
        ConfigError: the data do not count their clips, or a class has none.
    """
    counts = list(data.class_counts) if is_offered(data, HasClassCounts) else []
    if not counts or not all(counts):
        reason = "a class has no training clips" if counts else "the data have no `class_counts`"
        raise ConfigError(f"task.class_weights=balanced: {reason}; set task.class_weights=null")
    return [sum(counts) / (len(counts) * count) for count in counts]
