"""Fill the disk under each part of a training's folder, and say what the training makes of it.

    python benchmarks/full_disks.py    # as root on Linux, 5 minutes

Each training is begun for an epoch. Then a tmpfs that is as good as full is mounted on one of its
folders, and it is asked to go on for two more. Its exit code, what it says, and whether the last
good checkpoint loads and the training goes on when there is space again. Writes full_disks.csv.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from commands import tiny  # noqa: E402

HEADINGS = (
    "full", "exit_code", "lines", "said", "step_of_last_checkpoint", "goes_on_with_exit_code",
)  # fmt: skip
# What is written -> the folder of the run under which the disk is full.
PARTS = {
    "checkpoint": "checkpoints",
    "video and sheet": "explain",
    "confusion matrix": "confusion",
    "bars of the classes": "per_class",
    "W&B": "wandb",
    "everything": ".",
}
FREE = 20_000  # bytes


def train(place: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run `train.py` in a folder."""
    words = [*tiny(place / "data"), "logger=wandb", "name=a", "explain=gradcam", "videos.clips=2"]
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words, *more],
        cwd=place, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """A disk on a folder, with what was in it, that has little space left."""
    kept = Path(shutil.move(folder, f"{folder}.kept")) if folder.exists() else None
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=True)
    try:
        if kept:
            shutil.copytree(kept, folder, dirs_exist_ok=True)
        state = os.statvfs(folder)
        with (folder / "ballast").open("wb") as file:
            file.write(bytes(state.f_bavail * state.f_frsize - FREE))
        yield
        (folder / "ballast").unlink()
        left = folder.with_name(f"{folder.name}.left")
        shutil.copytree(folder, left)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
    shutil.rmtree(folder)
    left.rename(folder)


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines that are not those of a training on a disk with space."""
    words = ("cannot", "space", "W&B", "Error", "error", "Traceback", "left out", "Warning")
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    return [line for line in lines if any(word in line for word in words)]


def tried(place: Path, part: str) -> tuple[object, ...]:
    place.mkdir()
    first = train(place, "trainer.max_epochs=1")
    assert first.returncode == 0, first.stderr
    (folder,) = (place / "runs" / "a").iterdir()
    again = (f"resume={folder}", "trainer.max_epochs=3")
    with full(folder / PARTS[part]):
        done = train(place, *again)
    step = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    print(done.stdout[-1500:], done.stderr[-3000:], sep="\n--\n")
    after = train(place, *again[:1], "trainer.max_epochs=4")
    lines = said(done)
    return part, done.returncode, len(lines), " | ".join(lines), step, after.returncode


def main() -> None:
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    rows = []
    with tempfile.TemporaryDirectory() as home:
        for n, part in enumerate(PARTS):
            if sys.argv[1:] and part not in sys.argv[1:]:
                continue
            rows.append(tried(Path(home) / str(n), part))
            print(*rows[-1], sep="  ", flush=True)


if __name__ == "__main__":
    main()
