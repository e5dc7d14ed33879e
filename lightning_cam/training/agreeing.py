"""One process of a command decides where it works, and tells the others.

Clocks, the times of files and what a file system shows at this moment differ between machines: were
each process to look by itself, one command would have several folders. Who tells whom, how:

- Lightning starts the others (`trainer=ddp`): in a variable of their environment.
- torchrun: in the store that torchrun keeps for its processes.
- srun: in a file by job, step, restart and turn, in `runs/NAME/.slurm-77/`.

A turn is the n-th command of a step, be it of a sweep (-m) or of a shell. Each rank takes its turns
by making files that must not be there yet. What was decided is kept: a job that is requeued goes on
in the same folder, whatever it was asked to resume.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning_cam.errors import ConfigError, UserError
from lightning_cam.files import claimed, make_folder, write_text
from lightning_cam.training.ranks import Job, by_torchrun, processes, slurm_job

TOLD = "LIGHTNING_CAM_TOLD"  # what Lightning's own child processes find in their environment
PATIENCE = 600.0  # seconds to wait for the first process, which may read large checkpoints
_PLACE = "runs=DIR or name=NAME"


@dataclass(frozen=True)
class Run:
    """Where a run works, and the checkpoint it goes on from.

    Attributes:
        folder: the run's own.
        resume: the checkpoint; None at the beginning.
        note: what the user is told of the choice.
        restart: how often the command has been started anew by SLURM or torchrun.
    """

    folder: Path
    resume: Path | None = None
    note: str = ""
    restart: int = 0

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def to_json(self) -> str:
        """One line of JSON."""
        resume = None if self.resume is None else str(self.resume.absolute())
        return json.dumps(
            {
                "folder": str(self.folder.absolute()),
                "resume": resume,
                "note": self.note,
                "restart": self.restart,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Run:
        """What `to_json` gave.

        Raises:
            ConfigError: the process that decided has failed, with its words.
        """
        found = json.loads(text)
        if "error" in found:
            raise ConfigError(found["error"])
        resume = found["resume"] and Path(found["resume"])
        return cls(Path(found["folder"]), resume, found["note"], found["restart"])


@dataclass(frozen=True)
class Command:
    """What the deciding process knows of its command.

    Attributes:
        name: of a new folder; "" where the time shall name it.
        restart: how often it was started anew.
        before: what was decided the last time; None the first time.
    """

    name: str = ""
    restart: int = 0
    before: Run | None = None


def command_name() -> str:
    """A name that all processes of this command know, and no command of another time has.

    Nobody waits for it: of torchrun's processes the first to ask makes it. A step of a SLURM job
    that is requeued has the name of before.

    Raises:
        ConfigError: started by a launcher that is not known.
    """
    if by_torchrun():
        made = _torchrun_store().compare_set("lightning_cam/command", "", secrets.token_hex(8))
        return f"torchrun-{made.decode()}"
    job = slurm_job()
    if job is None or job.step is None:
        raise ConfigError(
            "started by a launcher that is not known: use torchrun or srun, or name the folder in "
            "which all processes work, out=DIR"
        )
    return f"{job.name}-{job.step}"


def agreed(runs: Path, decide: Callable[[Command], Run]) -> Run:
    """What the first process of this command decides, in all of them.

    Args:
        runs: folder of the runs of this name, which all processes see.
        decide: called in the first process alone.

    Raises:
        UserError: as `decide` has raised, in all processes.
        ConfigError: the others cannot be told, or were not.
    """
    if "LOCAL_RANK" in os.environ and (told := os.environ.get(TOLD)):
        return Run.from_json(told)
    job = slurm_job()
    if by_torchrun():
        return _by_store(runs, job, decide)
    rank, count = processes()
    if job is not None:
        board = _Board(runs / f".{job.name}", job, rank)
        return board.told() if rank else board.tell(decide)
    if count > 1 or "LOCAL_RANK" in os.environ:
        raise ConfigError(
            "started by a launcher that is not known: use torchrun or srun, or trainer=ddp, which "
            "starts the other processes itself"
        )
    return decide(Command())


def _said_to_all(
    decide: Callable[[Command], Run], given: Command, tell: Callable[[str], object]
) -> Run:
    """What is decided, which the others are told, an error as well."""
    try:
        run = decide(given)
    except UserError as error:
        tell(json.dumps({"error": str(error)}))
        raise
    tell(run.to_json())
    return run


class _Board:
    """The files by which the tasks of a SLURM step agree.

    Args:
        folder: where they lie.
        job: the step.
        rank: of this process; it takes the step's next turn.
    """

    def __init__(self, folder: Path, job: Job, rank: int) -> None:
        self.folder, self.job = folder, job
        self.step = "batch" if job.step is None else str(job.step)
        make_folder(folder, _PLACE)
        self.turn = next(n for n in range(1, 1_000_000) if self._take(n, rank))

    def _take(self, turn: int, rank: int) -> bool:
        """Whether this process is the first of its rank to take a turn."""
        return claimed(self.folder / f"{self._key(self.job.restart, turn)}-rank-{rank}")

    def _key(self, restart: int, turn: int) -> str:
        return f"step-{self.step}-restart-{restart}-turn-{turn}"

    def _said(self, restart: int) -> Path:
        return self.folder / f"{self._key(restart, self.turn)}.json"

    def before(self) -> Run | None:
        """What was decided the last time; None the first time."""
        return _last_run([_text_of(self._said(restart)) for restart in range(self.job.restart)])

    def tell(self, decide: Callable[[Command], Run]) -> Run:
        given = Command(self.job.folder(self.turn), self.job.restart, self.before())
        said = self._said(self.job.restart)
        return _said_to_all(decide, given, lambda text: write_text(said, text, sync=True))

    def told(self) -> Run:
        said, until = self._said(self.job.restart), time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if text := _text_of(said):
                return Run.from_json(text)
            time.sleep(0.1)
        raise ConfigError(
            f"the first process of {self.job.name} has not said within {PATIENCE:.0f} s where to "
            f"work: {said} is not there; see that all machines see the folder, or set runs=DIR to "
            "one that they see"
        )


def _text_of(file: Path) -> str:
    """What stands in a file, which appears whole; "" where there is none."""
    try:
        # To list a folder asks its server; whether one file is there may be remembered.
        return file.read_text() if file in file.parent.iterdir() else ""
    except OSError:
        return ""


def _by_store(runs: Path, job: Job | None, decide: Callable[[Command], Run]) -> Run:
    """The same under torchrun. The job's turns are the first process's alone."""
    rank, _ = processes()
    restart = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    keys = [f"lightning_cam/run/{n}" for n in range(restart + 1)]
    store = _torchrun_store()
    if restart:
        _meet_anew(store, restart, rank)
    if rank:
        return Run.from_json(store.get(keys[-1]).decode())

    def decided(given: Command) -> Run:
        return _said_to_all(decide, given, lambda text: store.set(keys[-1], text))

    told = [store.get(key).decode() for key in keys[:-1] if store.check([key])]
    if before := _last_run(told):
        return decided(Command("", before.restart + 1, before))
    if job is not None:
        return _Board(runs / f".{job.name}", job, rank).tell(decided)
    return decided(Command())


_MEETING: list[Any] = []  # stores that the first process serves, as long as it lives


def _meet_anew(store: Any, restart: int, rank: int) -> None:
    """Let the processes that torchrun has started anew find each other in a store of their own.

    In torchrun's they would find addresses of processes that have ended, and wait for these
    (pytorch/pytorch#135712).
    """
    key = f"lightning_cam/port/{restart}"
    if not rank:
        from torch.distributed import TCPStore

        served = TCPStore(os.environ["MASTER_ADDR"], 0, is_master=True, wait_for_workers=False)
        _MEETING.append(served)
        store.set(key, str(served.port))
    os.environ["MASTER_PORT"] = store.get(key).decode()


def _last_run(told: Sequence[str]) -> Run | None:
    """The newest decision of these, the oldest first, that was not an error."""
    found = [Run.from_json(text) for text in told if text and "error" not in json.loads(text)]
    return found[-1] if found else None


def _torchrun_store() -> Any:
    """The store of torchrun's agent, which outlives its processes when it starts them anew."""
    from torch.distributed import TCPStore

    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise ConfigError(
            "this torchrun keeps no store for its processes: start it with --standalone, or with "
            "--rdzv-backend=c10d on several machines"
        )
    return TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        timeout=timedelta(seconds=PATIENCE),
    )


@contextmanager
def shared(run: Run) -> Iterator[None]:
    """Tell processes that are started meanwhile about the run."""
    if "LOCAL_RANK" in os.environ:  # this is one of those processes
        yield
        return
    os.environ[TOLD] = run.to_json()
    try:
        yield
    finally:
        os.environ.pop(TOLD, None)
