"""Fill the disk under each part of a training's folder, and say what the training makes of it.

    python benchmarks/full_disks.py    # as root on Linux, 5 minutes

Each training is begun for an epoch. Then a tmpfs that is as good as full is mounted on one of its
folders, and it is asked to go on for two more. Its exit code, what it says, and whether the last
good checkpoint loads and the training goes on when there is space again. Writes full_disks.csv.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from commands import tiny  # noqa: E402
from wandb_server import serving  # noqa: E402

from lightning_cam.training.wandb_logger import sync_command  # noqa: E402

HEADINGS = (
    "full", "free_bytes", "exit_code", "lines", "first_line", "step_of_last_checkpoint",
    "goes_on_with_exit_code", "steps_that_wandb_lacks",
)  # fmt: skip
# What is written -> the folder of the run under which the disk is full, and the bytes left there.
PARTS = {
    "checkpoint": ("checkpoints", 20_000),
    "video and sheet": ("explain", 20_000),
    "confusion matrix": ("confusion", 0),
    "bars of the classes": ("per_class", 0),
    "W&B's file": ("wandb", 20_000),
    "W&B's file and its journal": ("wandb", 0),
    "everything, in the second epoch": (".", 20_000),
    "everything, from the start": (".", 0),
}


def train(place: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run `train.py` in a folder."""
    words = [*tiny(place / "data"), "logger=wandb", "name=a", "explain=gradcam", "videos.clips=2"]
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words, *more],
        cwd=place, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@contextmanager
def full(folder: Path, free: int) -> Iterator[None]:
    """A disk on a folder, with what was in it, that has so many bytes left."""
    kept = Path(shutil.move(folder, f"{folder}.kept")) if folder.exists() else None
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=True)
    try:
        if kept:
            shutil.copytree(kept, folder, dirs_exist_ok=True)
        state = os.statvfs(folder)
        with (folder / "ballast").open("wb") as file:
            file.write(bytes(state.f_bavail * state.f_frsize - free))
        yield
        (folder / "ballast").unlink()
        left = folder.with_name(f"{folder.name}.left")
        shutil.copytree(folder, left)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
    shutil.rmtree(folder)
    left.rename(folder)


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What stderr has, without the folders of files."""
    return [re.sub(r"/[^ ':]*/", "", line) for line in done.stderr.splitlines()]


def lacking(folder: Path, steps: int) -> int:
    """How many steps of a run W&B has no loss of, after an upload as it is documented."""
    with serving() as server:
        subprocess.run(
            ["bash", "-c", sync_command(folder / "wandb")], capture_output=True, check=False,
            env={**os.environ, **server.environment},
        )  # fmt: skip
        rows = [row for run in server.runs.values() for row in run.rows]
    return len({*range(steps)} - {r["trainer/global_step"] for r in rows if "train/loss" in r})


def tried(place: Path, part: str) -> tuple[object, ...]:
    """A row of the table."""
    place.mkdir()
    first = train(place, "trainer.max_epochs=1")
    assert first.returncode == 0, first.stderr
    (folder,) = (place / "runs" / "a").iterdir()
    name, free = PARTS[part]
    with full(folder / name, free):
        done = train(place, f"resume={folder}", "trainer.max_epochs=3")
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    after = train(place, f"resume={folder}", "trainer.max_epochs=3")
    lines = said(done)
    return (
        part, free, done.returncode, len(lines), lines[0][:200] if lines else "", last,
        after.returncode, lacking(folder, 9),
    )  # fmt: skip


def main() -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    os.environ["PATH"] = path
    rows = []
    with tempfile.TemporaryDirectory() as home:
        for n, part in enumerate(PARTS):
            rows.append(tried(Path(home) / str(n), part))
            print(*rows[-1], sep="  ", flush=True)
    with (Path(__file__).parent / "full_disks.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADINGS, *rows])


if __name__ == "__main__":
    main()
