"""The work of `explain.py`: which clips, which methods, and the folder they become."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lightning_cam.attribution import Attribution, Explainable, list_layers
from lightning_cam.attribution.guard import find_module
from lightning_cam.build import build
from lightning_cam.checkpoint import KEY, rebuild
from lightning_cam.data.clips import Clip, ClipDataset
from lightning_cam.data.loading import collate
from lightning_cam.data.video import SUFFIXES
from lightning_cam.errors import (
    ConfigError,
    DataError,
    UnknownNameError,
    UserError,
    VideoReadError,
)
from lightning_cam.gallery import draw_clip, explain_clip, file_name, to_frames, write_clip
from lightning_cam.scores import score_rows, shown_scores, write_csv
from lightning_cam.viz import ReportEntry, write_report

AS_TRAINED = "as_trained"  # marks `explain` where the checkpoint's own methods are meant
_SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Source:
    """One clip to explain: its title, and how to get its batch of one."""

    title: str
    read: Callable[[], dict[str, Any]]


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
    _check(config)
    trust = [config["trust"]] if isinstance(config["trust"], str) else config["trust"]
    root = config["data"]["root"]
    task: Any
    data: Any
    task, data, info = rebuild(config["ckpt"], trust, data=None if root is None else {"root": root})
    task = _on_device(task, config["device"])
    if config["layers"] is not None:
        _print_layers(task, data, config["layers"])
        return None
    methods = _methods(config, task, info, trust)
    model = _asked(task.explainable(), config)  # wrong names show before anything is read
    target = None if config["target"] is None else model.column(config["target"])
    if config["contrast"] is not None and model.column(config["contrast"]) == target:
        raise ConfigError(f"contrast={config['contrast']} is the target itself; choose two classes")
    sources = _sources(config, data)
    folder = _folder(config)
    rows: list[dict[str, Any]] = []
    entries: list[ReportEntry] = []
    skipped: dict[str, str] = {}
    console = Console()
    for source in track(sources, "explaining", console=console, disable=not console.is_terminal):
        try:
            batch = source.read()
            if batch["error"][0]:
                skipped[source.title] = batch["error"][0]
                continue
            frames = _frames(data, batch)
        except VideoReadError as error:
            skipped[source.title] = str(error)
            continue
        model = _asked(task.explainable(batch), config)
        clip = batch["video"].to(task.device)
        try:
            explanations = explain_clip(model, methods, clip, target)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        picture = draw_clip(model, explanations, frames, batch, source.title)
        files = write_clip(folder, picture, explanations, batch, config["fps"])
        scored = list(score_rows(model, explanations, batch))
        rows += scored
        numbers = shown_scores(scored)
        paths = (files.video, files.sheet, files.arrays)
        entries.append(ReportEntry.of(picture, *paths, fps=config["fps"], scores=numbers))
    for title, reason in skipped.items():
        print(f"skipped {title}: {reason}")
    if not entries:
        raise DataError(f"none of the {len(sources)} clips could be explained: {reason}")
    if skipped:
        print(f"{len(skipped)} of {len(sources)} clips could not be read")
    summary = {
        "checkpoint": str(config["ckpt"]),
        "trained": f"{info['epoch'] + 1} epochs, {info['global_step']} steps",
        "network": type(getattr(task, "model", task)).__name__,
        "methods": ", ".join(methods),
        "command": command,
        "date": f"{datetime.now():%Y-%m-%d %H:%M}",
    }
    table = write_csv(folder / "scores.csv", rows)
    return write_report(folder, entries, summary=summary, skipped=skipped, downloads=[table])


def check_clips(clips: Any, key: str) -> None:
    """Whether `clips` says which clips: a number of them, or their indices.

    Raises:
        ConfigError: it does not.
    """
    indices = clips if isinstance(clips, list) else [clips]
    whole = bool(indices) and all(type(index) is int for index in indices)
    if not whole or (indices is not clips and clips < 1):
        raise ConfigError(
            f"{key}={clips} must be at least 1 (so many clips), or indices such as [0,7,12]"
        )


def check_fps(fps: Any, key: str) -> None:
    """Whether a video can be written with `fps` frames per second.

    Raises:
        ConfigError: it cannot.
    """
    if type(fps) not in (int, float) or not 0.1 <= fps <= 240:
        raise ConfigError(f"{key}={fps} must be a number from 0.1 to 240")


def _check(config: Mapping[str, Any]) -> None:
    for keys, kinds, words in (
        (("ckpt", "device"), (str,), "text"),
        (("video", "layer", "layers", "out"), (str, type(None)), "text or null"),
        (("target", "contrast"), (str, int, type(None)), "a class by name or number"),
        (("trust",), (str, list), "packages such as [my_package]"),
        (("data",), (dict,), "a mapping"),
    ):
        for key in keys:
            if type(config[key]) not in kinds:
                raise ConfigError(f"{key}={config[key]} must be {words}")
    if not isinstance(config["data"]["root"], (str, type(None))):
        raise ConfigError(f"data.root={config['data']['root']} must be text or null")
    check_clips(config["clips"], "clips")
    check_fps(config["fps"], "fps")
    if config["contrast"] is not None and config["target"] is None:
        raise ConfigError(
            f"contrast={config['contrast']} needs target=CLASS, the class to explain rather than it"
        )


def _on_device(task: Any, device: str) -> Any:
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
    blank = data.reader.missing(Clip(Path(), ""), "")  # a clip of the size the network is used with
    model = task.explainable()
    table = Table("layer", "activation (D, t, h, w)", "stride (t, h, w)", "", title="target layers")
    for layer in list_layers(model, blank["video"][None].to(task.device)):
        default = "default" if layer.name == next(iter(model.layers), None) else ""
        stride = ", ".join(f"{s:g}" for s in layer.stride)
        table.add_row(layer.name, " x ".join(map(str, layer.shape[1:])), stride, default)
    Console(width=None).print(table)


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


def _asked(model: Explainable, config: Mapping[str, Any]) -> Explainable:
    return model if config["contrast"] is None else model.contrast(model.column(config["contrast"]))


def _sources(config: Mapping[str, Any], data: Any) -> list[Source]:
    if config["video"] is not None:
        return _from_files(Path(config["video"]), data)
    split = config["data"]["split"]
    if split not in _SPLITS:
        raise UnknownNameError("split", split, _SPLITS)
    if config["data"]["root"] is not None or not hasattr(data, "root"):
        data.prepare_data()
    elif not Path(str(data.root)).is_dir():
        # Nothing is made at a root that only the checkpoint names: it may be a stranger's.
        raise DataError(
            f"no data at {data.root}, which the checkpoint remembers; add data.root=FOLDER"
        )
    # Without augmentation, training clips included.
    dataset = ClipDataset(getattr(data, f"{split}_set").clips, data.reader)
    wanted = config["clips"]
    if isinstance(wanted, int):
        wanted = np.linspace(0, len(dataset) - 1, min(wanted, len(dataset))).round().astype(int)
    outside = [i for i in wanted if not 0 <= i < len(dataset)]
    if outside:
        raise ConfigError(
            f"clips={list(wanted)}: the {split} split has the clips 0 to {len(dataset) - 1}"
        )
    titles = _unique(dataset.clips[i].clip_id for i in wanted)
    return [
        Source(title, lambda i=i: collate([dataset[i]]))  # type: ignore[misc]
        for title, i in zip(titles, map(int, wanted), strict=True)
    ]


def _frames(data: Any, batch: Mapping[str, Any]) -> np.ndarray:
    """Pictures (T, H, W, 3) of a clip: from its file, larger than the network's, where possible."""
    display = getattr(getattr(data, "reader", None), "display", None)
    if display is not None:
        return display(batch["path"][0], batch["frame_idx"][0].tolist())
    undo = getattr(data, "to_frames", None)
    return undo(batch["video"])[0] if undo else to_frames(batch["video"][0])


def _from_files(path: Path, data: Any) -> list[Source]:
    if path.is_dir():
        files = [f for f in sorted(path.rglob("*")) if f.suffix.lower() in SUFFIXES and f.is_file()]
        if not files:
            raise DataError(f"no videos in {path} (looked for {' '.join(SUFFIXES)})")
        titles = [str(file.relative_to(path)) for file in files]
    elif path.is_file():
        files, titles = [path], [path.name]
    else:
        raise DataError(f"no video at {path}; is the path right?")
    short = [str(Path(title).with_suffix("")) for title in titles]
    names = [file_name(title) for title in short]
    if len(set(names)) == len(names):  # else the whole names tell them apart
        titles = short
    return [
        Source(title, lambda file=file: collate([data.read(file)]))  # type: ignore[misc]
        for title, file in zip(_unique(titles), files, strict=True)
    ]


def _unique(titles: Iterable[str]) -> Iterator[str]:
    """Titles whose file names differ."""
    seen: set[str] = set()
    for title in titles:
        name, n = title, 1
        while file_name(name) in seen:
            n += 1
            name = f"{title}_{n}"
        seen.add(file_name(name))
        yield name


def _folder(config: Mapping[str, Any]) -> Path:
    if config["out"] is not None:
        folder = Path(config["out"])
    else:
        home = Path(config["ckpt"]).parent
        home = home.parent if home.name == "checkpoints" else home
        n = 1
        while (home / f"explain_{n}").exists():
            n += 1
        folder = home / f"explain_{n}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}); choose out=DIR") from error
    return folder.absolute()
