"""The work of `explain.py`: from a checkpoint and settings to a folder with a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import lightning_cam
from lightning_cam.attribution import Attribution, LayerAttribution, check, list_layers
from lightning_cam.attribution.guard import find_module
from lightning_cam.data.core.clips import Clip, finished
from lightning_cam.data.core.loading import collate
from lightning_cam.errors import ConfigError, printable, say
from lightning_cam.explaining.clip_sources import find_clips
from lightning_cam.explaining.explain_run import ExplainRun, open_folder, print_failures
from lightning_cam.explaining.explain_settings import (
    TRAINED_METHODS,
    check_explain,
    given_data,
    trusted,
)
from lightning_cam.explaining.looks import SharedLooks
from lightning_cam.explaining.measured_files import RunMeasurements
from lightning_cam.explaining.question import Question, questions
from lightning_cam.explaining.sharing import ALONE, Share
from lightning_cam.explaining.single_clip import ClipRequest
from lightning_cam.explaining.video_part import check_part
from lightning_cam.files import digest
from lightning_cam.interfaces import (
    HasReader,
    MakesBlanks,
    Task,
    as_task,
    check_data,
    is_offered,
    network_of,
)
from lightning_cam.metrics import settings_of
from lightning_cam.training.build import build
from lightning_cam.training.checkpoint import rebuild, trained_methods
from lightning_cam.training.own_module import OwnModule, check_own_layers, rebuild_own
from lightning_cam.training.ranks import local_rank
from lightning_cam.training.runs import run_folder, writable


def explain_checkpoint(
    config: Mapping[str, Any],
    command: str = "",
    question: Question | None = None,
    share: Share = ALONE,
) -> Path | None:
    """Explain what the configuration asks for, of one network and one question.

    Args:
        config: plain, as in `configs/explain.yaml`.
        command: what was typed, for the report.
        question: which column of each clip, in place of `target`.
        share: which clips are this process's.

    Returns:
        `index.html`; None where layers were listed, or clips are left to other processes.

    Raises:
        UserError: what the user can mend; also if not a single clip could be explained.
    """
    return explain_case(config, command, question, share).page


class Outcome(NamedTuple):
    """What came of a command.

    Attributes:
        page: see `explain_checkpoint`.
        keys: of all clips, in their order, see `explain_run.finished_clips`.
    """

    page: Path | None
    keys: Sequence[str] = ()


def explain_case(
    config: Mapping[str, Any],
    command: str = "",
    question: Question | None = None,
    share: Share = ALONE,
) -> Outcome:
    """The same, with what the page is of."""
    check_explain(config)
    measurements = RunMeasurements(config["measure"])
    check_part(config, measurements.measures)
    module, data, info = open_checkpoint(config)
    check_data(data)
    task = as_task(on_device(module, config["device"]))
    if config["layers"] is not None:
        _print_layers(task, data, config["layers"])
        return Outcome(None)
    methods = chosen_methods(config, task, info, trusted(config))
    if config["model"]["name"] is not None:
        check_own_layers(task.explainable(), methods)
    if question is None:
        (question,) = questions(config["target"], config["contrast"])
    question.check(task.explainable())  # before anything is read
    without = question.left_out(task.explainable())
    known = _facts(config, info)
    looks = _shared_looks(config, known, share)
    sources, selection = find_clips(config, data, task, without, measurements.measures, looks)
    facts = {**known, "target": str(question)}
    folder, results = open_folder(config["out"], config["ckpt"], facts, sources, share)
    run = ExplainRun(
        ClipRequest(task, data, measurements, methods, question, folder, config["fps"]),
        sources,
        results,
        _summary(config, info, network_of(module), methods, measurements, command),
        [] if selection is None else list(selection.found),
        command,
        share,
    )
    page, keys = run.explain(), [source.key for source in sources]
    if run.left or not run.own:
        return Outcome(None, keys)
    shortfall = "" if selection is None else selection.shortfall(config["clips"])
    print_failures(run, len(sources) if selection is None else selection.looked, shortfall)
    if looks is not None:
        looks.discard()
    return Outcome(page, keys)


def _summary(
    config: Mapping[str, Any],
    info: Mapping[str, Any],
    network: torch.nn.Module,
    methods: Mapping[str, Attribution],
    measurements: RunMeasurements,
    command: str,
) -> dict[str, str]:
    """What the page says above all clips."""
    return {
        "checkpoint": str(config["ckpt"]),
        "trained": _trained(info),
        "network": type(network).__name__,
        "methods": ", ".join(methods),
        "measures": settings_of(measurements.measures) or "none",
        "command": command,
        "date": f"{datetime.now():%Y-%m-%d %H:%M}",
    }


def open_checkpoint(
    config: Mapping[str, Any],
) -> tuple[LightningModule, LightningDataModule, dict[str, Any]]:
    """The network of a checkpoint, its data module and what is known of its training.

    Raises:
        UserError: it cannot be read, trusted or rebuilt.
    """
    trust, own = trusted(config), OwnModule.of(config["model"])
    if own is None:
        return rebuild(config["ckpt"], trust, data=given_data(config))
    listed = config["video"] is None and config["layers"] is None
    return rebuild_own(config["ckpt"], own, trust, given_data(config), listed)


def _trained(info: Mapping[str, Any]) -> str:
    """How the network came to its weights: of those of others what the checkpoint says."""
    said = info["run"].get("trained")
    if isinstance(said, str):
        return printable(said)
    return f"{info['epoch'] + 1} epochs, {info['global_step']} steps"


def _facts(config: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with which a stopped command can go on: the same ones."""
    trained, chosen = _nodes(config, info)
    left_out = ("ckpt", "out", "device", "trust", "layers", "study", "explain")
    return {
        **{key: value for key, value in config.items() if key not in left_out},
        "ckpt": {"sha256": digest(config["ckpt"])},
        "explain": {**trained, **chosen},
        "about": {"version": lightning_cam.__version__, "ckpt": str(config["ckpt"])},
    }


def _shared_looks(
    config: Mapping[str, Any], facts: Mapping[str, Any], share: Share
) -> SharedLooks | None:
    """What several processes tell each other of the clips they have looked at, to choose."""
    if share.alone or (config["select"] is None and config["compose"] is None):
        return None
    which = {key: facts[key] for key in ("ckpt", "data", "model", "about")}
    place = Path(config["out"]) if config["out"] else run_folder(config["ckpt"])
    return SharedLooks.of(writable(place), which, share)


def _nodes(
    config: Mapping[str, Any], info: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The settings of methods: those that the checkpoint remembers, and those chosen beside."""
    chosen = dict(config.get("explain") or {})
    as_trained = chosen.pop(TRAINED_METHODS, False)
    return info["run"].get("explain", {}) if as_trained else {}, chosen


def on_device(task: Any, device: str) -> Any:
    """The network on `device`: "cpu", "cuda", ...; "auto" gives each process a GPU of its own.

    Raises:
        ConfigError: it cannot be used.
    """
    if device == "auto":
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        device = f"cuda:{local_rank() % gpus}" if gpus else "cpu"
    try:
        return task.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device={device} cannot be used ({reason}); try device=cpu") from error


def _print_layers(task: Task, data: object, asked: str) -> None:
    if asked != "list":
        raise ConfigError(
            f"layers={asked} is unknown; use layers=list to print them, or layer=NAME to choose one"
        )
    reader = data.reader if is_offered(data, HasReader) else None
    if not is_offered(reader, MakesBlanks):
        raise ConfigError(
            f"layers=list needs the size of a clip, which {type(data).__name__} does not know: "
            "give it a reader with a method missing(clip, error)"
        )
    # A clip of the size the network is used with.
    blank = finished(collate([reader.missing(Clip(Path(), ""), "")]))
    model = task.explainable(blank)
    table = Table(title="target layers")
    found = list_layers(model, blank["video"].to(task.device))
    several = ("runs",) if any(layer.runs for layer in found) else ()
    told = ("layout",) if model.layouts else ()
    for heading in ("layer", "activation (D, t, h, w)", "stride (t, h, w)", "", *several, *told):
        table.add_column(heading, no_wrap=True)
    for layer in found:
        default = "default" if layer.name == next(iter(model.layers), None) else ""
        stride = ", ".join(f"{s:g}" for s in layer.stride)
        layout = model.laid_out(layer.name)
        table.add_row(
            escape(printable(layer.name)),
            " x ".join(map(str, layer.shape[1:])),
            stride,
            default,
            *[layer.runs for _ in several],
            *["" if layout is None else layout.text for _ in told],
        )
    # Names are there to be copied: rather wider than the terminal than cut.
    width = Console(width=1000).measure(table).maximum
    Console(width=max(Console().width, width)).print(table)
    if model.layers:
        noise = torch.randn(blank["video"].shape, generator=torch.Generator().manual_seed(0))
        say(*str(check(model, noise.to(task.device))).splitlines())


def chosen_methods(
    config: Mapping[str, Any], task: Task, info: Mapping[str, Any], trust: Sequence[str]
) -> dict[str, Attribution]:
    """The methods that the settings choose, by their names.

    Raises:
        ConfigError: one is none, or there are none.
    """
    trained, chosen = _nodes(config, info)
    methods = trained_methods(trained, trust) | build(chosen, where="explain")
    for name, method in methods.items():
        if not callable(method) or isinstance(method, torch.nn.Module):
            raise ConfigError(f"explain.{name} is not a method; choose some with explain=[gradcam]")
    if not methods:
        as_trained = TRAINED_METHODS in (config.get("explain") or {})
        why = "this checkpoint was trained without explanations" if as_trained else "none chosen"
        raise ConfigError(f"{why}: choose methods, for example explain=[gradcam]")
    layer = config["layer"]
    if layer is None:
        return methods
    layer = str(layer)
    find_module(task.explainable().module, layer)
    return {
        name: method.at(layer) if isinstance(method, LayerAttribution) else method
        for name, method in methods.items()
    }
