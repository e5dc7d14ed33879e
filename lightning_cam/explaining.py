"""The work of `explain.py`: from a checkpoint and settings to a folder with a page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from lightning_cam.attribution import Attribution, Explainable, list_layers
from lightning_cam.attribution.guard import find_module
from lightning_cam.attribution.progress import progress
from lightning_cam.build import build
from lightning_cam.checkpoint import KEY, rebuild
from lightning_cam.clip_files import write_clip
from lightning_cam.data.clips import Clip, finished
from lightning_cam.data.loading import collate
from lightning_cam.errors import ConfigError, DataError, VideoReadError
from lightning_cam.gallery import (
    clip_seen,
    clip_views,
    draw_clip,
    explain_clip,
    explain_spectra,
    to_frames,
    true_label,
)
from lightning_cam.measurements import Measurements, shown_measures
from lightning_cam.metrics import settings_of
from lightning_cam.runs import run_folder, writable
from lightning_cam.scores import (
    RELEVANCE,
    relevance_rows,
    score_rows,
    shown_scores,
    write_csv,
)
from lightning_cam.selecting import outputs
from lightning_cam.settings import check_explain
from lightning_cam.sources import find_sources
from lightning_cam.viz import ReportEntry, write_report

AS_TRAINED = "as_trained"  # marks `explain` where the checkpoint's own methods are meant


def explain_with(config: Mapping[str, Any], command: str = "") -> Path | None:
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
    measurements = Measurements(config["measure"])
    trust = [config["trust"]] if isinstance(config["trust"], str) else config["trust"]
    task: Any
    data: Any
    settings = ("root", "rate", "intrinsics")
    given = {key: config["data"][key] for key in settings if config["data"][key] is not None}
    task, data, info = rebuild(config["ckpt"], trust, data=given)
    task = on_device(task, config["device"])
    if config["layers"] is not None:
        _print_layers(task, data, config["layers"])
        return None
    methods = _methods(config, task, info, trust)
    model = task.explainable()  # wrong names show before anything is read
    target, against = (
        None if config[key] is None else model.column(config[key]) for key in ("target", "contrast")
    )
    if against is not None and against == target:
        raise ConfigError(f"contrast={config['contrast']} is the target itself; choose two classes")
    sources, selection = find_sources(config, data, task, against if target is None else None)
    folder = _folder(config)
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    entries: list[ReportEntry] = []
    unreadable: dict[str, str] = {}
    same: dict[str, str] = {}
    with progress("explaining", len(sources)) as advance:
        for n, source in enumerate(sources):
            advance(int(n > 0))  # of the clip before, whatever became of it
            try:
                batch = source.read()
                if batch["error"][0]:
                    unreadable[source.title] = batch["error"][0]
                    continue
                frames = _frames(data, batch)
            except VideoReadError as error:
                unreadable[source.title] = str(error)
                continue
            model = task.explainable(batch)
            clip = batch["video"].to(task.device)
            shown = target if against is None else _contrasted(model, clip, batch, target)
            if against is not None and shown == against:
                same[source.title] = f"{model.name(against)} cannot be set against itself"
                continue
            try:
                explanations = explain_clip(model, methods, clip, shown, against=against)
            except ValueError as error:
                raise ConfigError(str(error)) from error
            explained = next(iter(explanations.values())).target
            spectra = explain_spectra(model, clip, data, explained)
            views = clip_views(data, batch["video"])
            picture = draw_clip(
                model,
                explanations,
                frames,
                batch,
                source.title,
                spectra=spectra,
                views=views,
                seen=clip_seen(task, batch),
            )
            files = write_clip(folder, picture, explanations, batch, config["fps"], spectra=spectra)
            plot = folder / f"{files.sheet.stem}.curves.png"
            measured = measurements.clip(model, explanations, clip, batch, plot)
            scored = list(score_rows(model, measured.explanations, batch, spectra, measured.found))
            rows += scored
            curves += relevance_rows(model, explanations, batch, spectra)
            own = [row for row in scored if row["method"] in explanations]
            numbers = shown_scores(own)
            numbers |= shown_measures(scored, measurements.measures, measured.found)
            paths = (files.video, files.sheet, files.arrays)
            entries.append(
                ReportEntry.of(
                    picture, *paths, fps=config["fps"], scores=numbers, curves=measured.picture
                )
            )
    skipped = unreadable | same
    for title, reason in skipped.items():
        print(f"skipped {title}: {reason}")
    looked = len(sources) if selection is None else selection.looked
    found = "" if selection is None else selection.shortfall(config["clips"])
    if not entries:
        why = found or next(reversed(skipped.values()))
        raise DataError(f"none of the {looked} clips could be explained: {why}")
    for reason, where in measurements.failed.items():
        print(f"not measured: {where}: {reason}")
    if found:
        print(found)
    if unreadable:
        print(f"{len(unreadable)} of {looked} clips could not be read")
    summary = {
        "checkpoint": str(config["ckpt"]),
        "trained": f"{info['epoch'] + 1} epochs, {info['global_step']} steps",
        "network": type(getattr(task, "model", task)).__name__,
        "methods": ", ".join(methods),
        "measures": settings_of(measurements.measures),
        "command": command,
        "date": f"{datetime.now():%Y-%m-%d %H:%M}",
    }
    tables = [
        write_csv(folder / "scores.csv", rows, measurements.columns),
        write_csv(folder / "relevance.csv", curves, RELEVANCE),
    ]
    curve_tables, figure = measurements.write(folder)
    groups = [] if selection is None else list(selection.found)
    return write_report(
        folder,
        entries,
        summary=summary,
        skipped=skipped,
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


def _print_layers(task: Any, data: Any, asked: str) -> None:
    if asked != "list":
        raise ConfigError(f"layers={asked} is unknown; layers=list prints them, layer=NAME chooses")
    # A clip of the size the network is used with.
    blank = finished(collate([data.reader.missing(Clip(Path(), ""), "")]))
    model = task.explainable(blank)
    table = Table(title="target layers")
    for heading in ("layer", "activation (D, t, h, w)", "stride (t, h, w)", ""):
        table.add_column(heading, no_wrap=True)
    for layer in list_layers(model, blank["video"].to(task.device)):
        default = "default" if layer.name == next(iter(model.layers), None) else ""
        stride = ", ".join(f"{s:g}" for s in layer.stride)
        table.add_row(layer.name, " x ".join(map(str, layer.shape[1:])), stride, default)
    # Names are there to be copied: rather wider than the terminal than cut.
    width = Console(width=1000).measure(table).maximum
    Console(width=max(Console().width, width)).print(table)


def _methods(
    config: Mapping[str, Any], task: Any, info: Mapping[str, Any], trust: Sequence[str]
) -> dict[str, Attribution]:
    chosen = dict(config.get("explain") or {})
    as_trained = chosen.pop(AS_TRAINED, False)
    trained = info["run"].get("explain", {}) if as_trained else {}
    methods = build(trained, (KEY, *trust), "explain") | build(chosen, where="explain")
    for name, method in methods.items():
        if not callable(method) or isinstance(method, torch.nn.Module):
            raise ConfigError(f"explain.{name} is no method; choose some with explain=[gradcam]")
    if not methods:
        why = "this checkpoint was trained without explanations" if as_trained else "none chosen"
        raise ConfigError(f"{why}: choose methods, for example explain=[gradcam]")
    layer = config["layer"]
    if layer is None:
        return methods
    find_module(task.explainable().module, layer)
    return {
        name: dataclasses.replace(method, layer=layer) if hasattr(method, "layer") else method
        for name, method in methods.items()
    }


def _contrasted(
    model: Explainable, clip: torch.Tensor, batch: Mapping[str, Any], target: int | None
) -> int:
    """The class to set against another: the one asked for, else the true, else the predicted."""
    label = true_label(batch)
    if target is not None or label >= 0:
        return label if target is None else target
    return int(model.unasked(outputs(model, clip))[0])


def _frames(data: Any, batch: Mapping[str, Any]) -> np.ndarray:
    """Pictures (T, H, W, 3) of a clip: from its file, larger than the network's, where possible."""
    display = getattr(getattr(data, "reader", None), "display", None)
    if display is not None:
        return display(batch["path"][0], batch["frame_idx"][0].tolist())
    undo = getattr(data, "to_frames", None)
    return undo(batch["video"])[0] if undo else to_frames(batch["video"][0])


def _folder(config: Mapping[str, Any]) -> Path:
    """Where to write; made with the first clip, so that a failing command leaves nothing."""
    if config["out"] is not None:
        return writable(Path(config["out"]))
    home, n = run_folder(config["ckpt"]), 1
    while (home / f"explain_{n}").exists():
        n += 1
    return writable(home / f"explain_{n}")
