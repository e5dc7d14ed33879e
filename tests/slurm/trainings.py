"""Trainings on two nodes of a SLURM that are preempted in a phase of choice."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from slurm.cluster import Cluster, Job

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCRIPT = ROOT / "scripts" / "slurm" / "train.sbatch"
# As `probed_train.py` names them. Those of training come many times: the first number is how often
# one may come before the signal.
PHASES = {
    "starting": 0, "preparing": 0, "training": 11, "validation": 4, "explanation": 3, "saving": 2,
}  # fmt: skip
EPOCHS = 3


def settings(data: Path, *more: str) -> list[str]:
    """Nine clips for two ranks: five batches of one clip each in an epoch; three to validate."""
    return [
        f"data.root={data}", "data.groups=5", "data.clips=1", "data.size=32", "data.resize=32",
        "data.crop=32", "data.num_frames=4", "data.actions=[blink,expand,move_left]",
        "data.train_groups=[1,2,3]", "data.val_groups=[4]", "data.test_groups=[5]",
        "data.batch_size=1", "model.hidden=4", "trainer.accelerator=cpu",
        "trainer.precision=32-true", f"trainer.max_epochs={EPOCHS}", "logger=csv", "name=a",
        "explain=gradcam", "videos.clips=3", *more,
    ]  # fmt: skip


@dataclass
class Preempted:
    """One preemption of a training.

    Attributes:
        phase: in which the signal was sent.
        signal: its name.
        seconds: from the signal until the job was requeued; None where it was not.
        said: the line that the training prints.
        counters: the checkpoint that it left: its step, and those that BatchNorm counts.
    """

    phase: str
    signal: str
    seconds: float | None = None
    said: str = ""
    counters: set[int] = field(default_factory=set)
    step: int | None = None


@dataclass
class Place:
    """Where commands `python train.py` are started, and what they leave there.

    Attributes:
        path: a folder, of their own.
    """

    path: Path

    def __post_init__(self) -> None:
        self.path.mkdir(exist_ok=True)
        shutil.copy(HERE / "probed_train.py", self.path / "train.py")

    def marks(self, rank: int = 0) -> list[tuple[str, int]]:
        """(phase, pid) of all phases of a rank so far, of all starts."""
        file = self.path / f"marks-{rank}"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(phase, int(pid)) for phase, _, pid in (line.partition(" ") for line in lines)]

    def log(self) -> str:
        """What all commands have printed, the newest last."""
        files = sorted(self.path.glob("*.log"), key=lambda file: file.stat().st_mtime)
        return "".join(file.read_text(errors="replace") for file in files)

    @property
    def folders(self) -> list[Path]:
        """Those of runs."""
        return sorted((self.path / "runs" / "a").glob("[!.]*"))

    @property
    def folder(self) -> Path:
        """The run's folder, of which there is one."""
        (folder,) = self.folders
        return folder

    @property
    def last(self) -> Path:
        found = [folder / "checkpoints" / "last.ckpt" for folder in self.folders]
        return next((file for file in found if file.exists()), self.path / "none")


class Training(Place):
    """One job of two nodes.

    Args:
        cluster: where it runs.
        place: a folder, of its own.
        data: where clips are rendered.
        more: settings.
        options: of sbatch.
    """

    def __init__(
        self,
        cluster: Cluster,
        place: Path,
        data: Path,
        more: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> None:
        super().__init__(place)
        self.job: Job = cluster.submit(SCRIPT, *settings(data, *more), cwd=place, options=options)

    def preempt(
        self,
        phase: str,
        name: str,
        pause: float = 0.0,
        after: int = 0,
        to: str = "all",
        seconds: float = 120,
    ) -> Preempted:
        """Send a signal in a phase that has yet to come, and wait until the job is requeued.

        Args:
            phase: one of `PHASES`.
            name: of the signal, "USR1" or "TERM".
            pause: seconds after the phase has begun.
            after: how often the phase is let pass before.
            to: "all" tasks, the "script", or rank "0" or "1" alone.
            seconds: to wait at most.
        """
        rank = int(to) if to in ("0", "1") else 0
        begun = len(self.marks(rank))
        found = Preempted(phase, name)

        def reached() -> bool:
            new = [mark for mark, _ in self.marks(rank)[begun:]]
            return new.count(phase) > after or self.ended or "ended" in new

        restarts = self.job.restarts
        self.job.until(reached, seconds)
        time.sleep(pause)
        sent = time.monotonic()
        with suppress(RuntimeError, ProcessLookupError):  # it has ended in this moment
            if to in ("0", "1"):
                os.kill(self.marks(rank)[-1][1], getattr(signal, f"SIG{name}"))
            else:
                self.job.signal(name, *(["--batch"] if to == "script" else []))
        self.job.until(lambda: self.job.restarts > restarts or self.ended, seconds)
        if self.job.restarts > restarts:
            found.seconds = time.monotonic() - sent
        self.job.until(lambda: self.job.state not in ("RUNNING", "COMPLETING"), seconds)
        lines = [line for line in self.job.log().splitlines() if line.startswith("preempted")]
        found.said = lines[-1] if lines else ""
        if self.last.exists():
            found.step, found.counters = counters(self.last)
        return found

    @property
    def ended(self) -> bool:
        return self.job.state in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


def counters(checkpoint: Path) -> tuple[int, set[int]]:
    """(batches that are done, the numbers that the BatchNorm layers have counted)."""
    found = torch.load(checkpoint, weights_only=True)
    batches = found["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"]
    state = found["state_dict"]
    return batches, {int(n) for key, n in state.items() if key.endswith("num_batches_tracked")}


def differences(one: Path, two: Path) -> list[str]:
    """What two checkpoints do not have bit for bit alike."""
    a, b = (torch.load(file, weights_only=True) for file in (one, two))
    parts = ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step")
    return [name for part in parts for name in _differing(a[part], b[part], part)]


def _differing(a: Any, b: Any, name: str) -> Iterator[str]:
    if isinstance(a, Mapping) and isinstance(b, Mapping) and a.keys() == b.keys():
        for key in a:
            yield from _differing(a[key], b[key], f"{name}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for n, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _differing(x, y, f"{name}[{n}]")
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if not torch.equal(a, b):
            yield name
    elif a != b:
        yield name


def moment(random: random.Random) -> tuple[str, float, int]:
    """(phase, seconds into it, how often it is let pass before), at random."""
    # What happens once in a start is the same each time; the rest is met in many places.
    phase = random.choices(list(PHASES), [1, 1, 3, 2, 3, 2])[0]
    return phase, random.uniform(0, 0.15), random.randint(0, PHASES[phase])
