"""What `wandb sync` sends of a training that was stopped, as the training says to type it."""

from __future__ import annotations

import itertools
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from wandb_server import serving

from slurm.trainings import Place


@dataclass(frozen=True)
class Uploaded:
    """What the server has of a run.

    Attributes:
        code: with which the upload ended.
        runs: how many runs it made.
        rows: (step of training, key, value) of all numbers that are the same in every run.
        rising: whether W&B's own numbers of rows rise strictly.
    """

    code: int
    runs: int
    rows: list[tuple[int, str, float]]
    rising: bool

    def unlike(self, other: Uploaded) -> list[str]:
        """What is not as in the upload of the training that nothing stopped."""
        lost, more = (
            (Counter(a.rows) - Counter(b.rows)) for a, b in ((other, self), (self, other))
        )
        found = {
            f"exit code {self.code}": self.code != 0,
            f"{self.runs} runs": self.runs != 1,
            "numbers of rows do not rise": not self.rising,
            f"lost {sorted(lost.elements())}": bool(lost),
            f"besides {sorted(more.elements())}": bool(more),
        }
        return [said for said, wrong in found.items() if wrong]


def uploaded(training: Place, environment: Mapping[str, str]) -> Uploaded:
    """Upload a run by the command that it has printed last.

    Args:
        training: what it has left.
        environment: in which the command is typed.
    """
    lines = [line for line in training.log().splitlines() if line.startswith("upload ")]
    if not lines:
        return Uploaded(1, 0, [], True)
    with serving() as server:
        done = subprocess.run(
            ["bash", "-c", lines[-1].removeprefix("upload").strip()], cwd=training.path,
            env={**environment, **server.environment}, check=False, capture_output=True,
        )  # fmt: skip
        rows = [row for run in server.runs.values() for row in run.rows]
    numbers = [row["_step"] for row in rows]
    # Times differ; so do the sums of what was measured of a machine.
    kept = [
        (int(row["trainer/global_step"]), key, value)
        for row in rows
        for key, value in row.items()
        if key.startswith(("train/", "val/", "lr-", "epoch")) and isinstance(value, float | int)
    ]
    rising = all(a < b for a, b in itertools.pairwise(numbers))
    return Uploaded(done.returncode, len(server.runs), sorted(kept), rising)
