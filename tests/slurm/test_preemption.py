"""Jobs of two nodes are preempted: nothing is lost, nothing hangs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kills import MOMENTS, moments

from slurm.cluster import Cluster
from slurm.trainings import Training, differences, moment

pytestmark = [pytest.mark.attack, pytest.mark.slow]


def places(folder: Path, *names: str) -> list[Path]:
    made = [folder / name for name in names]
    for place in made:
        place.mkdir()
    return made


def ended_alike(straight: Training, preempted: Training, times: int) -> None:
    """Both have ended, in one folder each, bit for bit alike."""
    assert straight.job.end() == preempted.job.end() == "COMPLETED", preempted.job.log()
    assert preempted.job.restarts == times
    assert differences(straight.last, preempted.last) == []
    log = preempted.job.log()
    assert "Traceback" not in log and "core dumped" not in log, log
    assert preempted.folder.is_dir()  # there is one
    assert {file.name for file in preempted.last.parent.glob("*.ckpt")} == {
        file.name for file in straight.last.parent.glob("*.ckpt")
    }


def test_it_ends_as_if_nothing_had_happened(
    slurm: Cluster, data: Path, tmp_path: Path, record_property: Any
) -> None:
    """SIGUSR1 and SIGTERM to all processes of a job of two nodes, at random moments.

    With loader workers and accumulation; below without, and benchmarks/preemption.py has both.
    """
    record_property("tried", MOMENTS)
    more = "data.num_workers=2", "trainer.accumulate_grad_batches=3"
    one, two = places(tmp_path, "straight", "preempted")
    straight = Training(slurm, one, data, more)
    straight.job.until(lambda: "training" in dict(straight.marks()), 120)  # clips are rendered
    chosen, preempted = moments(), Training(slurm, two, data, more)
    for n in range(MOMENTS):
        phase, pause, after = moment(chosen)
        # What comes once in a start only is met if it is the first.
        found = preempted.preempt(phase, ("USR1", "TERM")[n % 2], pause, after % (n + 2))
        if found.seconds is None:  # it had ended before the phase came again
            break
        assert found.seconds < 30
        assert found.said.endswith(f"requeued as {preempted.job.number}"), found
        assert found.counters <= {found.step}, found
    ended_alike(straight, preempted, preempted.job.restarts)
    assert preempted.job.restarts >= 1


def test_who_gets_the_signal_and_when(slurm: Cluster, data: Path, tmp_path: Path) -> None:
    """A signal to one rank before Python answers, one to the script; then somebody cancels it."""
    training = Training(slurm, tmp_path, data)
    job = training.job
    early = training.preempt("starting", "USR1", to="1")
    assert early.seconds is not None and early.seconds < 30
    assert early.said == f"preempted outside of training, requeued as {job.number}"
    assert early.step is None
    later = training.preempt("training", "TERM", after=2, to="script")
    assert later.seconds is not None and later.seconds < 30
    assert later.said == f"preempted in epoch 1, step 3: saved, requeued as {job.number}"
    assert later.counters == {later.step} == {3}
    begun = len(training.marks())
    job.until(lambda: "training" in [mark for mark, _ in training.marks()[begun:]], 120)
    slurm.ask("scancel", job.number)
    assert job.end() == "CANCELLED" and job.restarts == 2
    job.until(lambda: "to go on: " in job.log(), 20)
    assert f": saved, not requeued: job {job.number} was cancelled\n" in job.log()
    assert "Traceback" not in job.log()
