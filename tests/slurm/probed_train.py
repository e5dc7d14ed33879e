"""`train.py` as a job of the tests runs it: it notes where it is, and lingers there.

Each rank appends `PHASE PID` to `marks-RANK` in the working folder when a phase begins. The pauses
make phases long enough to be hit by a signal; they change no number.
"""

import os
import time
from contextlib import contextmanager
from pathlib import Path

PAUSE = 0.15  # seconds
SLOW = {phase: float(os.environ.get("PAUSE", PAUSE)) for phase in ("training", "validation")}
_MARKS = Path(f"marks-{os.environ.get('SLURM_PROCID') or os.environ.get('RANK', '0')}")


def mark(phase):
    with _MARKS.open("a") as file:
        file.write(f"{phase} {os.getpid()}\n")
    time.sleep(SLOW.get(phase, PAUSE))


mark("starting")  # Python can answer no signal yet

from lightning_cam.commands import train  # noqa: E402


def probed(owner, name, phase):
    plain = getattr(owner, name)

    def function(*given, **named):
        mark(phase)
        return plain(*given, **named)

    setattr(owner, name, function)


def probe():
    from lightning_cam.commands import run_train
    from lightning_cam.explaining import ExplainCallback
    from lightning_cam.tasks import VideoClassification
    from lightning_cam.training.checkpoint_io import AtomicCheckpointIO

    probed(run_train, "_prepare", "preparing")
    probed(VideoClassification, "training_step", "training")
    probed(VideoClassification, "validation_step", "validation")
    probed(ExplainCallback, "_made", "explanation")
    probed(AtomicCheckpointIO, "save_checkpoint", "saving")
    probed(run_train, "_print_summary", "ended")


@contextmanager
def orderly():
    with plain():
        probe()  # loads torch
        yield


plain, train.orderly = train.orderly, orderly

if __name__ == "__main__":
    train.main()
