"""The folder of a training run, and how a run is found again.

    runs/<name>/<date-time>/  config.yaml  checkpoints/{last,epoch_007}.ckpt  explain/  wandb/

The first process of a command looks, and tells the others, see `agreeing`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import AliasToken, YAMLError

from lightning_cam.errors import (
    CheckpointError,
    ConfigError,
    UnknownNameError,
    UserError,
    quoted,
)
from lightning_cam.files import is_too_deep, make_folder
from lightning_cam.training import checkpoint, owner
from lightning_cam.training.agreeing import Command, Run, agreed
from lightning_cam.training.build import LOADS, TARGET
from lightning_cam.training.finite import lost_weight
from lightning_cam.training.furthest import UNKNOWN, Length, Progress, furthest_first
from lightning_cam.training.ranks import by_torchrun
from lightning_cam.training.saving import has_best

FOLDER = "LIGHTNING_CAM_RUN"  # the run's folder, for those who start torchrun

_LONGEST = 2**22  # bytes of the settings of a run

# What may differ between a run and its continuation.
_FREE = ("data.root", "data.num_workers", "data.cache", "data.cache_folder", "data.cache_gb")
_CHOOSES = ("monitor", "monitor_mode")  # the best checkpoint: free as long as there is none
_FIXED = ("model", "task", "data", "seed", *_CHOOSES)
_ENDLESS = Length()
_PLACE = "runs=DIR or name=NAME"


def open_run(
    root: str | Path, name: str, resume: str | None = None, length: Length = _ENDLESS
) -> Run:
    """Make or find the folder of a run, the same in all processes of a command.

    A command that SLURM or torchrun starts anew goes on in its own folder from the furthest
    checkpoint there, whatever it is asked to resume.

    Args:
        root: where runs are kept.
        name: of the experiment.
        resume: None, a checkpoint (or run folder), or `"last"`: the run of this name that is
            furthest, by its checkpoints, of those that are not finished.
        length: when a run is finished.

    Raises:
        CheckpointError, ConfigError: nothing to resume, or checkpoints that would be lost.
        WriteError: the folder cannot be made.
    """
    runs = Path(root) / name

    def decide(command: Command) -> Run:
        if command.before is not None:
            run = _again(command.before)
        elif by_torchrun() and (told := os.environ.get(FOLDER)):
            run = _in_told(Path(told), resume)
        elif resume == "last":
            run = _furthest(runs, length)
        elif resume is not None:
            run = _named(Path(resume), runs, command.name)
        else:
            run = Run(_fresh(runs, command.name))
        return replace(run, restart=command.restart)

    return agreed(runs, decide)


def _again(before: Run) -> Run:
    """A run that was started before goes on from what it has saved, or begins as it did then."""
    newest = _newest_in(make_folder(before.folder, _PLACE))
    return replace(newest, resume=newest.resume or before.resume)


def _in_told(folder: Path, resume: str | None) -> Run:
    """A run in a folder that its user has named."""
    make_folder(folder, f"{FOLDER}=DIR")
    inside = any(folder.rglob("*.ckpt"))
    if resume is None and not inside:
        return Run(folder)
    if resume is None:
        raise ConfigError(
            f"{FOLDER}={folder} has checkpoints, which a new run would write over: to go on add "
            f"{quoted('resume', folder)}, or name another folder"
        )
    file, note = _checkpoint_at(folder if resume == "last" else Path(resume))
    if inside and run_folder(file).resolve() != folder.resolve():
        raise ConfigError(
            f"{FOLDER}={folder} has checkpoints of its own, which a run that goes on from {file} "
            "would write over: name another folder"
        )
    return Run(folder, file, note)


def run_folder(ckpt: str | Path) -> Path:
    """The folder of the run that a checkpoint belongs to; without a run the one it lies in."""
    home = Path(ckpt).parent
    return home.parent if home.name == "checkpoints" else home


def network_names(paths: Sequence[Path]) -> list[str]:
    """What to call checkpoints: by the first part of their paths in which all of them differ.

    `runs/lrcn/DATE/checkpoints/last.ckpt` beside that of another run is "lrcn".
    """
    whole = [[*path.parts[:-1], path.stem] for path in paths]
    if len({*map(len, whole)}) > 1:
        whole = [[path.stem] for path in paths]
    columns = [column for column in zip(*whole, strict=True) if len({*column}) > 1]
    for column in columns:
        if len({*column}) == len(paths):
            return list(column)
    joined = [" ".join(parts) for parts in zip(*columns, strict=True)]
    return joined if len({*joined}) == len(paths) else [str(path) for path in paths]


def writable(folder: Path) -> Path:
    """The absolute path of a folder that can be made, which is not made yet.

    Raises:
        UserError: it cannot.
    """
    folder = folder.absolute()
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        fits = there.is_dir() and os.access(there, os.W_OK)
    except OSError:  # a name that is too long, for example
        fits = False
    if not fits:
        raise UserError(f"cannot write to {folder}; choose out=DIR")
    return folder


def _fresh(runs: Path, name: str = "") -> Path:
    """A new folder, of this name or of the time; one that has checkpoints is never begun anew."""
    stem = name or datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for n in range(1, 1000):
        folder = runs / (stem if n == 1 else f"{stem}-anew-{n}" if name else f"{stem}-{n}")
        try:
            return make_folder(folder, _PLACE, new=True)
        except FileExistsError:  # another run began in this second, or an older job had this number
            if name and not any(folder.rglob("*.ckpt")):
                return folder
    raise ConfigError(f"cannot make a new folder in {runs}")


def _furthest(runs: Path, length: Length) -> Run:
    folders: list[Path] = []
    with suppress(OSError):  # none of this name, or no name for a folder
        folders = _folders_in(runs)
    if not folders:
        names = [f.name for f in _folders_in(runs.parent)] if runs.parent.is_dir() else []
        if names:
            raise UnknownNameError("run", runs.name, sorted(names))
        raise ConfigError(f"no run to resume in {runs.parent}; leave resume out")
    notes = []
    for folder in _furthest_runs(folders, length):
        run = _newest_in(folder)
        notes += [run.note] if run.note else []
        if run.resume is not None:
            if len(folders) > 1:
                notes.append(f"{folder} is the furthest of {len(folders)} runs")
                begun = [str(f) for f in folders if not any(f.rglob("*.ckpt"))]
                notes += [f"{', '.join(begun)} has no checkpoint"] if begun else []
            return Run(folder, run.resume, "; ".join(notes))
        notes.append(f"{folder} has no checkpoint")
    newest = max(folders, key=lambda folder: folder.name)  # its date and time, or job
    return Run(newest, None, "; ".join([*notes, f"starting from the beginning in {newest}"]))


def _folders_in(folder: Path) -> list[Path]:
    """Those of runs, or of their names; what begins with a dot is by whom a job's ranks agree."""
    return [f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")]


def _furthest_runs(folders: Sequence[Path], length: Length) -> list[Path]:
    """The furthest first, finished ones last."""

    def order(folder: Path) -> tuple[bool, Progress, str]:
        checkpoints = furthest_first(folder)
        done = checkpoints[0][0] if checkpoints else Progress(-2, -2)
        return not length.reached(done), done, folder.name

    return sorted(folders, key=order, reverse=True)


def _newest_in(folder: Path) -> Run:
    """The furthest checkpoint of a run that can be read; the note names those that cannot."""
    skipped: list[str] = []
    sound: list[Path] = []
    for done, file in sorted(furthest_first(folder), key=lambda found: found[0] != UNKNOWN):
        if done != UNKNOWN and sound:  # one is enough, and all that are broken are named
            continue
        try:
            _check_sound(file)
        except CheckpointError as error:
            skipped.append(f"skipped {error}")
        else:
            sound.insert(0, file) if done != UNKNOWN else sound.append(file)
    return Run(folder, sound[0] if sound else None, "; ".join(skipped))


def _check_sound(file: Path) -> None:
    """Raise a CheckpointError for a checkpoint that no training can go on from."""
    if lost := lost_weight(checkpoint.load(file)["state_dict"]):
        raise CheckpointError(f"{file}: {lost}; take another checkpoint")


def _checkpoint_at(path: Path) -> tuple[Path, str]:
    """A checkpoint, or the furthest in a folder, and what the user is told of the choice."""
    if not path.is_dir():
        _check_sound(path)
        return path, ""
    newest = _newest_in(path)  # of a run, of its checkpoints, or of several runs
    if newest.resume is None:
        raise CheckpointError(f"no readable checkpoint in {path}")
    return newest.resume, newest.note


def _named(path: Path, runs: Path, name: str) -> Run:
    file, note = _checkpoint_at(path)
    folder = run_folder(file)
    if (folder / "config.yaml").exists():
        return Run(folder, file, note)
    alone = f"{file} lies in no run folder: going on in a new one"
    return Run(_fresh(runs, name), file, "; ".join(filter(None, (note, alone))))


def discard(run: Run) -> None:
    """Remove the folder of a run that failed before it began, unless there is anything in it."""
    with suppress(OSError):
        begun = {"config.yaml", owner.FILE}
        if {file.name for file in run.folder.iterdir()} <= begun:
            for name in begun:
                (run.folder / name).unlink(missing_ok=True)
            run.folder.rmdir()
            run.folder.parent.rmdir()  # if this was the first run of its name


def same_as_before(run: Run, config: Mapping[str, Any]) -> None:
    """A checkpoint goes on with the settings it was made with, or not at all."""
    new = dict(leaves(config))
    old = dict(leaves(_written(run.folder / "config.yaml")))
    if not old and run.resume is not None:
        # Optimiser and schedule are not remembered; what is null in the settings, the data fill in.
        memory = checkpoint.load(run.resume)[checkpoint.KEY]
        built = {**memory["run"], "task": memory["task"], "data": memory["data"]}
        # What came of a `from_pretrained` is compared once it is loaded, by `built_as_before`.
        loaded = tuple(key.removesuffix(TARGET) for key, v in new.items() if str(v).endswith(LOADS))
        old = new | {
            key: v
            for key, v in leaves(built)
            if new.get(key) is not None and not key.startswith(loaded)
        }
    for key in sorted(old.keys() | new.keys()):
        fixed = key.split(".")[0] in _FIXED and key not in _FREE
        if fixed and old.get(key) != new.get(key) and not (key in _CHOOSES and _has_no_best(run)):
            raise ConfigError(
                f"{run.resume or run.folder} was trained with {key}={old.get(key)}, not "
                f"{new.get(key)}; resume with the same settings or leave resume out for a new run"
            )


def _has_no_best(run: Run) -> bool:
    return run.resume is not None and not has_best(checkpoint.load(run.resume))


def built_as_before(run: Run, config: Mapping[str, Any], classes: Sequence[str]) -> None:
    """The same for what the data fill in: their classes, their channels, how many clips they have.

    Args:
        run: with the checkpoint it goes on from.
        config: the settings, filled in.
        classes: of the data as they are now.

    Raises:
        ConfigError: the network would be another.
    """
    assert run.resume is not None
    memory = checkpoint.load(run.resume)[checkpoint.KEY]
    weights = quoted("model.weights", run.resume)
    remedy = (
        "put the data back as they were, or leave resume out for a new run, whose weights may come "
        f"from there (fine-tuning, {weights})"
    )
    known = memory.get("classes")
    if isinstance(known, list) and known != list(classes):
        more = [name for name in classes if name not in known]
        less = [name for name in known if name not in classes]
        parts = [f"have {', '.join(more)} besides"] if more else []
        parts += [f"lack {', '.join(map(str, less))}"] if less else []
        raise ConfigError(
            f"the data are not those that {run.resume} was trained on: they "
            f"{' and '.join(parts) or 'have their classes in another order'}; {remedy}"
        )
    was = dict(leaves(checkpoint.plain_copy({key: memory[key] for key in ("task", "data")})))
    now = dict(leaves(checkpoint.plain_copy({key: config[key] for key in ("task", "data")})))
    for key in sorted(was.keys() & now.keys()):
        if key not in _FREE and was[key] != now[key]:
            raise ConfigError(
                f"{run.resume} was trained with {key}={was[key]}, not {now[key]}; {remedy}"
            )


def _written(file: Path) -> Any:
    """The settings in a run's folder; empty where there is no such file or it is not whole.

    The folder may be a stranger's: `${...}` is not resolved, or it would tell what is in the
    environment, and text that names its own parts, or is long, is not unfolded.
    """
    try:
        text = file.read_text() if file.is_file() and file.stat().st_size < _LONGEST else ""
        if is_too_deep(text) or any(isinstance(token, AliasToken) for token in yaml.scan(text)):
            return {}
        settings = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (OSError, RecursionError, ValueError, YAMLError, OmegaConfBaseException):
        return {}
    whole = isinstance(settings, dict) and {"task", "data", "seed"} <= settings.keys()
    return settings if whole else {}


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in nested mappings."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node
