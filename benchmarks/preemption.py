"""Preempt trainings on two SLURM nodes at random moments, and say what was lost.

    python benchmarks/preemption.py                    # 40 SIGUSR1 and 20 SIGTERM, 40 minutes
    python benchmarks/preemption.py --usr1 6 --term 3  # fewer; --jobs 4 where there are 8 cores

Starts a SLURM of its own (munged, slurmctld, three slurmd on this machine: apt-get install
slurm-wlm munge). Each training is preempted four times: while it starts, trains, validates,
explains or saves, in the same epoch twice as well. Settings take turns: without and with loader
workers, and with three batches an optimiser step. Held up against the training that nothing
stopped: the weights, the states of optimiser and schedule, bit for bit; BatchNorm's counts in every
checkpoint; and the rows that `wandb sync`, as the training prints it, uploads to a stand-in for
W&B's server. Writes preemption.csv.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from slurm import cluster  # noqa: E402
from slurm.trainings import Preempted, Training, differences, moment  # noqa: E402
from slurm.uploads import uploaded  # noqa: E402

TIMES = 4  # preemptions of one training
SETTINGS = {
    "0 workers": ("logger=wandb",),
    "2 workers": ("logger=wandb", "data.num_workers=2"),
    "2 workers, 3 batches a step": (
        "logger=wandb", "data.num_workers=2", "trainer.accumulate_grad_batches=3",
    ),
}  # fmt: skip
HEADINGS = (
    "training", "settings", "signal", "phase", "requeued_after_s", "step", "counters_right",
    "said", "weights_equal", "rows_equal",
)  # fmt: skip


def attacked(
    slurm: cluster.Cluster,
    place: Path,
    data: Path,
    signals: Sequence[str],
    more: Sequence[str],
    seed: int,
) -> tuple[Training, list[Preempted]]:
    """A training that gets these signals, one after the other, at random moments."""
    chosen, found = random.Random(seed), list[Preempted]()
    training = Training(slurm, place, data, more)
    for n, name in enumerate(signals):
        phase, pause, after = moment(chosen)
        # What is left of a training gets less: later signals come sooner after the start.
        found.append(training.preempt(phase, name, pause, after // (n + 1), seconds=400))
        if found[-1].seconds is None:
            break
    training.job.end(600)
    return training, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--usr1", type=int, default=40, help="SIGUSR1 to send")
    parser.add_argument("--term", type=int, default=20, help="SIGTERM to send")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at the same time")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    if reason := cluster.absent():
        sys.exit(reason)
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    signals = ["USR1"] * args.usr1 + ["TERM"] * args.term
    random.Random(args.seed).shuffle(signals)
    shares = [signals[n : n + TIMES] for n in range(0, len(signals), TIMES)]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.jobs) as pool:
        place = Path(folder)
        (place / "slurm").mkdir()
        daemons = cluster.started(place / "slurm")
        try:
            rows = tried(next(daemons), place, shares, args.seed, pool)
        finally:
            daemons.close()
    summary(rows)


def tried(
    slurm: cluster.Cluster,
    place: Path,
    shares: Sequence[Sequence[str]],
    seed: int,
    pool: ThreadPoolExecutor,
) -> list[tuple[object, ...]]:
    """A row for each signal."""
    data, straight = place / "data", {}
    for name, more in SETTINGS.items():  # one by one: the first of them renders the clips
        training, _ = attacked(slurm, place / f"straight-{len(straight)}", data, (), more, 0)
        straight[name] = training, uploaded(training, slurm.environment)
        print(f"straight     {name}: {training.job.state}, {len(straight[name][1].rows)} numbers")
    names = [list(SETTINGS)[n % len(SETTINGS)] for n in range(len(shares))]
    running = [
        pool.submit(attacked, slurm, place / f"{n}", data, share, SETTINGS[name], seed + n)
        for n, (share, name) in enumerate(zip(shares, names, strict=True))
    ]
    rows: list[tuple[object, ...]] = []
    for n, (name, run) in enumerate(zip(names, running, strict=True)):
        training, found = run.result()
        like, numbers = straight[name]
        ended = training.job.state == "COMPLETED"
        equal = ended and not differences(like.last, training.last)
        unlike = uploaded(training, slurm.environment).unlike(numbers)
        same = ended and not unlike
        for one in found:
            right = one.counters <= {one.step}
            after = None if one.seconds is None else round(one.seconds, 1)
            row = (n, name, one.signal, one.phase, after, one.step, right, one.said, equal, same)
            rows.append(row)
            print(*row, sep="  ", flush=True)
        with (Path(__file__).parent / "preemption.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([HEADINGS, *rows])
        if not equal or not same:
            print(*unlike, training.job.log()[-4000:], sep="\n")
    return rows


def summary(rows: Sequence[tuple[object, ...]]) -> None:
    """How many of the signals came before the end of a training, and what came of them."""
    for name in ("USR1", "TERM"):
        sent = [dict(zip(HEADINGS, row, strict=True)) for row in rows if row[2] == name]
        # One that is not requeued though its training goes wrong has not come too late.
        met = [row for row in sent if row["requeued_after_s"] or not row["weights_equal"]]
        for what in ("counters_right", "weights_equal", "rows_equal"):
            print(f"SIG{name}  {what}: {sum(bool(row[what]) for row in met)} of {len(met)}")
        slowest = max((float(str(row["requeued_after_s"] or "inf")) for row in met), default=0)
        late = len(sent) - len(met)
        print(f"SIG{name}  requeued after at most {slowest} s; {late} came after the training")


if __name__ == "__main__":
    main()
