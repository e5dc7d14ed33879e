"""Interrupt trainings in the ways that a cluster has, and say what was lost.

    python benchmarks/failures.py                    # 20 minutes
    python benchmarks/failures.py --only torchrun    # those whose name has this in it, again

Starts a SLURM of its own (munged, slurmctld, three slurmd on this machine: apt-get install
slurm-wlm munge). All trainings have two processes, one on each of two nodes, or both under one
torchrun. Held up against one that nothing stopped: the weights and the states of optimiser and
schedule, bit for bit; the names of the checkpoints; the rows that `wandb sync` uploads; how many
folders and ids of W&B there are; and how many batches were trained on again. Writes failures.csv.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from slurm import cluster  # noqa: E402
from slurm.trainings import Place, Training, differences, settings  # noqa: E402
from slurm.uploads import Uploaded, uploaded  # noqa: E402

HEADINGS = (
    "failure", "ended", "folders", "wandb_ids", "weights_equal", "checkpoints_equal", "rows_equal",
    "batches_again", "what_differs",
)  # fmt: skip
WANDB = "logger=wandb"
SLOW = "--export=ALL,PAUSE=3"  # SLURM looks for jobs whose time is up every 30 s


@dataclass(frozen=True)
class World:
    """Where trainings are tried.

    Attributes:
        slurm: the cluster.
        data: where clips are rendered.
        place: a folder for the training to come.
    """

    slurm: cluster.Cluster
    data: Path
    place: Path

    def train(self, *more: str, options: Sequence[str] = ()) -> Training:
        """Submit a job."""
        return Training(self.slurm, self.place, self.data, (WANDB, *more), options)

    def run(
        self, words: Sequence[str], *more: str, until: str = "", after: int = 1, **env: str
    ) -> int:
        """Run `python train.py` in the foreground behind these words.

        Args:
            words: of the launcher.
            more: settings.
            until: a phase in which it gets SIGTERM; "" for none.
            after: how often the phase is let pass before.
            env: more of the environment.
        """
        place = Place(self.place)
        line = [*words, *settings(self.data, WANDB, *more)]
        begun = len(place.marks())
        with (self.place / f"{time.time()}.log").open("wb") as log:
            process = subprocess.Popen(
                line, cwd=self.place, env={**self.slurm.environment, **env}, stdout=log, stderr=log
            )
            while until and process.poll() is None:
                if [mark for mark, _ in place.marks()[begun:]].count(until) > after:
                    self._stop(process)
                    break
                time.sleep(0.1)
            return ended(process)

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        """Send SIGTERM to torchrun, or to all tasks of the only job."""
        if job := self.slurm.ask("squeue", "-h", "-t", "running", "-o", "%A"):
            self.slurm.ask("scancel", "--signal=TERM", job)
        else:
            process.send_signal(signal.SIGTERM)


def ended(process: subprocess.Popen[bytes]) -> int:
    """The exit code of a command, which is killed where it hangs."""
    try:
        return process.wait(150)
    except subprocess.TimeoutExpired:
        for child in subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
        ).stdout.split():
            os.kill(int(child), signal.SIGKILL)
        process.kill()
        return process.wait()


def reached(training: Training, phase: str, after: int = 0) -> None:
    """Wait until a phase has come once more, or more often."""
    begun = [mark for mark, _ in training.marks()].count(phase)
    training.job.until(
        lambda: [mark for mark, _ in training.marks()].count(phase) > begun + after, 300
    )


def restarted(training: Training, times: int) -> None:
    """Wait until a job has been started anew so often."""
    training.job.until(lambda: training.job.restarts >= times or training.ended, 300)


# --- what happens -------------------------------------------------------------------------------


def nothing(world: World) -> str:
    return world.train().job.end(600)


def time_limit(world: World, sent: str) -> str:
    training = world.train(options=["--time=9", f"--signal={sent}", SLOW])
    job = f"JobId={training.job.number}"
    for times in (1, 2):
        reached(training, "training", 1)
        world.slurm.ask("scontrol", "update", job, "EndTime=now+1")  # seen within 30 s
        restarted(training, times)
    world.slurm.ask("scontrol", "update", job, "TimeLimit=60")
    return training.job.end(600)


def requeued(world: World, phase: str) -> str:
    training = world.train()
    reached(training, phase, 2)
    world.slurm.ask("scontrol", "requeue", training.job.number)
    return training.job.end(600)


def node_dies(world: World, node: str) -> str:
    training = world.train("checkpoint.every_steps=2")
    reached(training, "training", 7)  # in the second epoch
    world.slurm.fail(node)
    try:
        return training.job.end(600)
    finally:
        world.slurm.repair(node)


def rank_killed(world: World) -> str:
    training = world.train("checkpoint.every_steps=2")
    reached(training, "training", 7)
    os.kill(training.marks(1)[-1][1], signal.SIGKILL)
    first = training.job.end(600)
    again = world.train(f"resume={training.folder}")
    return f"{first}, then {again.job.end(600)}"


def resumed_and_requeued(world: World, alone: bool) -> str:
    """A job is cancelled; another goes on from its checkpoint, and is requeued in turn."""
    training = world.train()
    reached(training, "training", 6)
    world.slurm.ask("scancel", training.job.number)
    first = training.job.end(600)
    training.job.until(lambda: "to go on: " in training.job.log(), 60)
    file = training.last
    if alone:
        file = file.rename(world.place / "alone.ckpt")
        shutil.rmtree(training.folder)
    again = world.train(f"resume={file}")
    reached(again, "training", 2)
    again.job.signal("USR1")
    return f"{first}, then {again.job.end(600)}"


def with_salloc(world: World) -> str:
    words = ["salloc", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "srun"]
    words += ["python", "train.py", "trainer=slurm"]
    first = world.run(words, until="training", after=6)
    folder = Place(world.place).folder
    return f"{first}, then {world.run(words, f'resume={folder}')}"


TORCHRUN = ("torchrun", "--standalone", "--nproc-per-node=2")
DDP = ("train.py", "trainer=ddp", "trainer.devices=2")


def with_torchrun(world: World, named: bool) -> str:
    folder = world.place / "runs" / "a" / "mine"
    told = {"LIGHTNING_CAM_RUN": str(folder)} if named else {}
    first = world.run([*TORCHRUN, *DDP], until="training", after=6, **told)
    folder = Place(world.place).folder
    codes = [first]
    if named:
        codes.append(world.run([*TORCHRUN, *DDP], **told))  # refused
    codes.append(world.run([*TORCHRUN, *DDP], f"resume={folder}", **told))
    return ", then ".join(map(str, codes))


def torchrun_restarts(world: World) -> str:
    """One of its processes is killed, and torchrun starts all anew."""
    place = Place(world.place)
    words = [*TORCHRUN, "--max-restarts=1", *DDP, *settings(world.data, WANDB)]
    words += ["checkpoint.every_steps=2"]
    with (world.place / "torchrun.log").open("wb") as log:
        process = subprocess.Popen(
            words, cwd=world.place, env=world.slurm.environment, stdout=log, stderr=log
        )
        while [mark for mark, _ in place.marks()].count("training") < 8:
            time.sleep(0.1)
        os.kill(place.marks(1)[-1][1], signal.SIGKILL)
        return str(ended(process))


FAILURES: dict[str, Callable[[World], str]] = {
    "time limit twice, SIGUSR1 before": lambda w: time_limit(w, "USR1@5"),
    "time limit twice, SIGTERM alone": lambda w: time_limit(w, "URG@1"),
    "scontrol requeue in training": lambda w: requeued(w, "training"),
    "scontrol requeue in validation": lambda w: requeued(w, "validation"),
    "node of the batch script dies": lambda w: node_dies(w, "n1"),
    "other node dies": lambda w: node_dies(w, "n2"),
    "SIGKILL of one rank, then resume=RUN": rank_killed,
    "resume=FILE of a run, requeued": lambda w: resumed_and_requeued(w, alone=False),
    "resume=FILE that lies alone, requeued": lambda w: resumed_and_requeued(w, alone=True),
    "salloc: SIGTERM, then resume=RUN": with_salloc,
    "torchrun: SIGTERM, then resume=RUN": lambda w: with_torchrun(w, named=False),
    "torchrun, LIGHTNING_CAM_RUN: SIGTERM, refused, resume=RUN": (
        lambda w: with_torchrun(w, named=True)
    ),
    "torchrun --max-restarts: SIGKILL of one rank": torchrun_restarts,
}


# --- what came of it ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Left:
    """What a training has left.

    Attributes:
        place: where.
        rows: that W&B has of it.
    """

    place: Place
    rows: Uploaded

    @property
    def batches(self) -> int:
        return [mark for mark, _ in self.place.marks()].count("training")

    @property
    def checkpoints(self) -> set[str]:
        return {file.name for folder in self.place.folders for file in folder.rglob("*.ckpt")}

    @property
    def ids(self) -> set[str]:
        segments = self.place.path.glob("runs/a/*/wandb/offline-run-*")
        return {re.sub(r".*-", "", segment.name) for segment in segments}


def row(name: str, how: str, left: Left, straight: Left) -> tuple[object, ...]:
    """What a training has that was interrupted, and what it has not."""
    there = left.place.last.exists()
    changed = differences(straight.place.last, left.place.last) if there else ["nothing saved"]
    unlike = left.rows.unlike(straight.rows)
    return (
        name, how, len(left.place.folders), len(left.ids), not changed,
        left.checkpoints == straight.checkpoints, not unlike, left.batches - straight.batches,
        "; ".join([*changed[:3], *unlike])[:600],
    )  # fmt: skip


def keep(found: Sequence[object]) -> None:
    """Write a row into failures.csv, in place of that of the same failure."""
    table = Path(__file__).parent / "failures.csv"
    known: dict[str, Sequence[object]] = {}
    if table.exists():
        with table.open(newline="") as file:
            known = {row[0]: row for row in [*csv.reader(file)][1:]}
    known[str(found[0])] = found
    ordered = [known[name] for name in ("nothing", *FAILURES) if name in known]
    with table.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADINGS, *ordered])


def try_all(slurm: cluster.Cluster, home: Path, only: Sequence[str]) -> None:
    """A row for each failure."""
    straight: Left | None = None
    for n, (name, happen) in enumerate({"nothing": nothing, **FAILURES}.items()):
        if straight is not None and not any(part in name for part in only):
            continue
        world = World(slurm, home / "data", home / str(n))
        place = Place(world.place)
        try:
            how = happen(world)
        except (TimeoutError, RuntimeError, ValueError) as error:
            how = f"{type(error).__name__}: {str(error)[:300]}"
        left = Left(place, uploaded(place, slurm.environment))
        straight = straight or left
        found = row(name, how, left, straight)
        print(*found, sep="  ", flush=True)
        keep(found)
        if found[-1] or len(place.folders) != 1:
            print(place.log()[-6000:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[""], help="failures with this in their name")
    args = parser.parse_args()
    if reason := cluster.absent():
        sys.exit(reason)
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "slurm").mkdir()
        daemons = cluster.started(home / "slurm")
        try:
            try_all(next(daemons), home, args.only)
        finally:
            daemons.close()


if __name__ == "__main__":
    main()
