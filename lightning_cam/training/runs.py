"""The folder of a training run, and how a run is found again.

    runs/<name>/<date-time>/  config.yaml  checkpoints/{last,epoch_007}.ckpt  explain/  wandb/

Hydra's clock is not used: every process of a distributed run, and a requeued SLURM job, must come
to the same folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import AliasToken, YAMLError

from lightning_cam.errors import CheckpointError, ConfigError, UnknownNameError, UserError
from lightning_cam.files import is_too_deep, make_folder
from lightning_cam.training import checkpoint, owner
from lightning_cam.training.finite import lost_weight
from lightning_cam.training.furthest import UNKNOWN, Length, Progress, furthest_first
from lightning_cam.training.saving import has_best

# How the first process tells the others of a DDP run where it works.
FOLDER_VARIABLE, RESUME_VARIABLE = "LIGHTNING_CAM_RUN", "LIGHTNING_CAM_RESUME"

# SLURM gives its own steps, such as the batch script, numbers from here on.
_NO_STEP = 2**31

_LONGEST = 2**22  # bytes of the settings of a run

# What may differ between a run and its continuation.
_FREE = ("data.root", "data.num_workers", "data.cache")
_CHOOSES = ("monitor", "monitor_mode")  # the best checkpoint: free as long as there is none
_FIXED = ("model", "task", "data", "seed", *_CHOOSES)
_ENDLESS = Length()
_PLACE = "runs=DIR or name=NAME"


@dataclass(frozen=True)
class Run:
    """Where a run works, and the checkpoint it goes on from."""

    folder: Path
    resume: Path | None = None
    note: str = ""

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"


def open_run(
    root: str | Path, name: str, resume: str | None = None, length: Length = _ENDLESS
) -> Run:
    """Make or find the folder of a run.

    Args:
        root: where runs are kept.
        name: of the experiment.
        resume: None, a checkpoint (or run folder), or `"last"`: the run of this name that is
            furthest, by its checkpoints, of those that are not finished.
        length: when a run is finished.

    Raises:
        CheckpointError, ConfigError: nothing to resume.
        WriteError: the folder cannot be made.
    """
    told = os.environ.get(FOLDER_VARIABLE)
    if told and "LOCAL_RANK" in os.environ:
        path = os.environ.get(RESUME_VARIABLE)
        return Run(Path(told), Path(path) if path else None)
    runs = Path(root) / name
    if resume == "last":
        return _furthest(runs, length)
    if resume is not None:
        return _named(Path(resume), runs)
    step = int(os.environ.get("SLURM_STEP_ID", _NO_STEP))
    in_step = _in_slurm() and step < _NO_STEP
    if "LOCAL_RANK" in os.environ and not in_step:
        raise ConfigError(
            f"started by torchrun: set {FOLDER_VARIABLE}=runs/NAME for all processes, or use "
            "trainer=ddp, which starts them itself, or srun"
        )
    return _in_job(runs, step if in_step else None) if _in_slurm() else Run(_fresh(runs))


def _in_slurm() -> bool:
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    return "SLURM_JOB_ID" in os.environ and "SLURM_NTASKS" in os.environ and not interactive


def _in_job(runs: Path, step: int | None) -> Run:
    """The run of this command of a SLURM job; a requeued job goes on where it was stopped.

    A command started by srun is a step of the job, and all its ranks know its number: slurm-77,
    slurm-77-1, ... Commands of the batch script itself have none. They are single processes, which
    take the job's folders in turn, the same after a requeue: slurm-77-batch-1, ...
    """
    job = runs / f"slurm-{os.environ['SLURM_JOB_ID']}"
    restart = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    if step is None:
        folder = _next_in_turn(job, restart)
    else:
        folder = job.with_name(f"{job.name}-{step}") if step else job
        make_folder(folder, _PLACE)
    return _newest_in(folder) if restart else Run(folder)


def _next_in_turn(job: Path, restart: int) -> Path:
    for n in range(1, 1000):
        folder = job.with_name(f"{job.name}-batch-{n}")
        make_folder(folder, _PLACE)
        with suppress(FileExistsError):  # taken by an earlier command since the (re)start
            (folder / f".restart-{restart}").touch(exist_ok=False)
            return folder
    raise ConfigError(f"cannot make a new folder beside {job}")


def run_folder(ckpt: str | Path) -> Path:
    """The folder of the run that a checkpoint belongs to; without a run the one it lies in."""
    home = Path(ckpt).parent
    return home.parent if home.name == "checkpoints" else home


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


def processes() -> tuple[int, int]:
    """(rank, how many) of the processes that torchrun or srun has started for this command."""
    if {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return _rank("RANK", "WORLD_SIZE")
    # The batch script itself has a rank as well, but no other processes beside it.
    if _in_slurm() and int(os.environ.get("SLURM_STEP_ID", _NO_STEP)) < _NO_STEP:
        return _rank("SLURM_PROCID", "SLURM_NTASKS")
    return 0, 1


def _rank(*names: str) -> tuple[int, int]:
    try:
        rank, count = (int(os.environ[name]) for name in names)
    except (KeyError, ValueError):
        rank, count = -1, 0
    if not 0 <= rank < count:
        raise ConfigError(f"{' and '.join(names)} must say which of how many processes this is")
    return rank, count


def _fresh(runs: Path) -> Path:
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for n in range(1, 1000):
        folder = runs / (stamp if n == 1 else f"{stamp}-{n}")
        try:
            return make_folder(folder, _PLACE, new=True)
        except FileExistsError:
            continue  # another run began in this second
    raise ConfigError(f"cannot make a new folder in {runs}")


def _furthest(runs: Path, length: Length) -> Run:
    folders: list[Path] = []
    with suppress(OSError):  # none of this name, or no name for a folder
        folders = [f for f in runs.iterdir() if f.is_dir()]
    if not folders:
        names = (
            [f.name for f in runs.parent.iterdir() if f.is_dir()] if runs.parent.is_dir() else []
        )
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


def _named(path: Path, runs: Path) -> Run:
    note = ""
    if path.is_dir():  # a run's, the one of its checkpoints, or one of several runs
        newest = _newest_in(path)
        if newest.resume is None:
            raise CheckpointError(f"no readable checkpoint in {path}")
        path, note = newest.resume, newest.note
    else:
        _check_sound(path)
    folder = run_folder(path)
    if (folder / "config.yaml").exists():
        return Run(folder, path, note)
    alone = f"{path} lies in no run folder: going on in a new one"
    return Run(_fresh(runs), path, "; ".join(filter(None, (note, alone))))


def discard(run: Run) -> None:
    """Remove the folder of a run that failed before it began, unless there is anything in it."""
    with suppress(OSError):
        begun = {"config.yaml", owner.FILE}
        if {file.name for file in run.folder.iterdir()} <= begun:
            for name in begun:
                (run.folder / name).unlink(missing_ok=True)
            run.folder.rmdir()
            run.folder.parent.rmdir()  # if this was the first run of its name


@contextmanager
def shared(run: Run) -> Iterator[None]:
    """Tell processes that are started meanwhile about the run."""
    values = {FOLDER_VARIABLE: str(run.folder.absolute())}
    if run.resume is not None:
        values[RESUME_VARIABLE] = str(run.resume.absolute())
    if "LOCAL_RANK" in os.environ:  # this is one of those processes
        values = {}
    os.environ.update(values)
    try:
        yield
    finally:
        for key in values:
            os.environ.pop(key, None)


def same_as_before(run: Run, config: Mapping[str, Any]) -> None:
    """A checkpoint goes on with the settings it was made with, or not at all."""
    new = dict(leaves(config))
    old = dict(leaves(_written(run.folder / "config.yaml")))
    if not old and run.resume is not None:
        # Optimiser and schedule are not remembered; what is null in the settings, the data fill in.
        memory = checkpoint.load(run.resume)[checkpoint.KEY]
        built = {**memory["run"], "task": memory["task"], "data": memory["data"]}
        old = new | {key: v for key, v in leaves(built) if new.get(key) is not None}
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
    remedy = "put the data back as they were, or leave resume out for a new run"
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
