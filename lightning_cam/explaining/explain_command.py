"""The work of `explain.py`: from a checkpoint and settings to a folder with a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lightning_cam.attribution import Attribution, Explainable, LayerAttribution, list_layers
from lightning_cam.attribution.guard import find_module
from lightning_cam.data.core.clips import Clip, finished
from lightning_cam.data.core.loading import collate
from lightning_cam.errors import ConfigError, DataError, printable, say
from lightning_cam.explaining.clip_sources import find_clips
from lightning_cam.explaining.explain_settings import TRAINED_METHODS, check_explain, given_data
from lightning_cam.explaining.measured_files import RunMeasurements
from lightning_cam.explaining.score_tables import RELEVANCE_COLUMNS
from lightning_cam.explaining.single_clip import ClipRequest, Collected, process_clip
from lightning_cam.files import write_csv
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
from lightning_cam.progress import progress
from lightning_cam.training.build import build
from lightning_cam.training.checkpoint import rebuild, trained_methods
from lightning_cam.training.runs import run_folder, writable
from lightning_cam.viz import write_report


def explain_checkpoint(config: Mapping[str, Any], command: str = "") -> Path | None:
    """Explain what the configuration asks for.

    Args:
        config: plain, as in `configs/explain.yaml`.
        command: what was typed, for the report.

    Returns:
        `index.html`; None where layers were listed.

    Raises:
        UserError: what the user can mend; also if not a single clip could be explained.
    """
    check_explain(config)
    collected = Collected(RunMeasurements(config["measure"]))
    trust = [config["trust"]] if isinstance(config["trust"], str) else config["trust"]
    module, data, info = rebuild(config["ckpt"], trust, data=given_data(config))
    check_data(data)
    task = as_task(on_device(module, config["device"]))
    if config["layers"] is not None:
        _print_layers(task, data, config["layers"])
        return None
    methods = _methods(config, task, info, trust)
    target, against = _columns(config, task.explainable())  # before anything is read
    without = against if target is None else None
    sources, selection = find_clips(config, data, task, without)
    request = ClipRequest(task, data, methods, target, against, _folder(config), config["fps"])
    with progress("explaining", len(sources)) as advance:
        for n, source in enumerate(sources):
            advance(int(n > 0))  # of the clip before, whatever became of it
            process_clip(request, source, collected)
    shortfall = "" if selection is None else selection.shortfall(config["clips"])
    _print_failures(collected, len(sources) if selection is None else selection.looked, shortfall)
    summary = {
        "checkpoint": str(config["ckpt"]),
        "trained": f"{info['epoch'] + 1} epochs, {info['global_step']} steps",
        "network": type(network_of(module)).__name__,
        "methods": ", ".join(methods),
        "measures": settings_of(collected.measurements.measures),
        "command": command,
        "date": f"{datetime.now():%Y-%m-%d %H:%M}",
    }
    return _write(
        request.folder, collected, summary, [] if selection is None else list(selection.found)
    )


def _columns(config: Mapping[str, Any], model: Explainable) -> tuple[int | None, int | None]:
    """The columns of `target` and `contrast`."""
    target, against = (
        None if config[key] is None else model.column(config[key]) for key in ("target", "contrast")
    )
    if against is not None and against == target:
        raise ConfigError(f"contrast={config['contrast']} is the target itself; choose two classes")
    return target, against


def _print_failures(collected: Collected, looked: int, shortfall: str) -> None:
    """Print what did not work.

    Raises:
        DataError: nothing did.
    """
    for title, reason in collected.skipped.items():
        say(f"skipped {title}: {reason}")
    if not collected.entries:
        why = shortfall or next(reversed(collected.skipped.values()))
        raise DataError(f"none of the {looked} clips could be explained: {why}")
    for reason, where in collected.measurements.failed.items():
        say(f"not measured: {where}: {reason}")
    if collected.measurements.nothing:
        say("no measure has a value of any clip: tables and page show the maps alone")
    if shortfall:
        say(shortfall)
    if collected.unreadable:
        say(f"{len(collected.unreadable)} of {looked} clips could not be read")


def _write(
    folder: Path, collected: Collected, summary: Mapping[str, str], groups: Sequence[str]
) -> Path:
    """The tables, and the page."""
    tables = [
        write_csv(folder / "scores.csv", collected.rows, collected.measurements.columns),
        write_csv(folder / "relevance.csv", collected.curves, RELEVANCE_COLUMNS),
    ]
    curve_tables, figure = collected.measurements.write(folder)
    return write_report(
        folder,
        collected.entries,
        summary=summary,
        skipped=collected.skipped,
        downloads=tables + curve_tables,
        groups=groups,
        figure=figure,
    )


def on_device(task: Any, device: str) -> Any:
    """The network on `device`: "auto", "cpu", "cuda", ...

    Raises:
        ConfigError: it cannot be used.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
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
    for heading in ("layer", "activation (D, t, h, w)", "stride (t, h, w)", ""):
        table.add_column(heading, no_wrap=True)
    for layer in list_layers(model, blank["video"].to(task.device)):
        default = "default" if layer.name == next(iter(model.layers), None) else ""
        stride = ", ".join(f"{s:g}" for s in layer.stride)
        table.add_row(
            escape(printable(layer.name)), " x ".join(map(str, layer.shape[1:])), stride, default
        )
    # Names are there to be copied: rather wider than the terminal than cut.
    width = Console(width=1000).measure(table).maximum
    Console(width=max(Console().width, width)).print(table)


def _methods(
    config: Mapping[str, Any], task: Task, info: Mapping[str, Any], trust: Sequence[str]
) -> dict[str, Attribution]:
    chosen = dict(config.get("explain") or {})
    as_trained = chosen.pop(TRAINED_METHODS, False)
    trained = info["run"].get("explain", {}) if as_trained else {}
    methods = trained_methods(trained, trust) | build(chosen, where="explain")
    for name, method in methods.items():
        if not callable(method) or isinstance(method, torch.nn.Module):
            raise ConfigError(f"explain.{name} is not a method; choose some with explain=[gradcam]")
    if not methods:
        why = "this checkpoint was trained without explanations" if as_trained else "none chosen"
        raise ConfigError(f"{why}: choose methods, for example explain=[gradcam]")
    layer = config["layer"]
    if layer is None:
        return methods
    find_module(task.explainable().module, layer)
    return {
        name: method.at(layer) if isinstance(method, LayerAttribution) else method
        for name, method in methods.items()
    }


def _folder(config: Mapping[str, Any]) -> Path:
    """Where to write; made with the first clip, so that a failing command leaves nothing."""
    if config["out"] is not None:
        return writable(Path(config["out"]))
    home, n = run_folder(config["ckpt"]), 1
    while (home / f"explain_{n}").exists():
        n += 1
    return writable(home / f"explain_{n}")
