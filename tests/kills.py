"""Programs that are stopped: how often, at which moments, and under which limits."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

from commands import ENVIRONMENT, ROOT
from preloaded import Process

# How many moments a test of kills tries: the one number that `make attack` raises.
MOMENTS = int(os.environ.get("ATTACKS", "2"))

LIMITED = """
import resource, runpy, sys
sys.argv[:] = sys.argv[1:]

def used():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

def limit(kind, most):
    resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))

{prelude}
runpy.run_path(sys.argv[0], run_name="__main__")
"""

AT_EPOCH = """
from lightning_cam.training.reproducible import ReseedBatches
begin = ReseedBatches.on_train_epoch_start

def limited(self, trainer, module):
    if trainer.current_epoch == {epoch}:
        {what}
    begin(self, trainer, module)

ReseedBatches.on_train_epoch_start = limited
"""


def moments() -> random.Random:
    """Random numbers that are others every time; KILL_SEED=N repeats those of a failure."""
    seed = int(os.environ.get("KILL_SEED", random.randrange(10**6)))
    print(f"KILL_SEED={seed}")
    return random.Random(seed)


def start_limited(
    prelude: str, script: str, arguments: Sequence[object], *, cwd: Path, **more: str
) -> Process:
    """A command as in `commands.start`, after some lines that limit or change its process.

    Args:
        prelude: the lines; they may use `used()`, the bytes of address space, and
            `limit(resource.RLIMIT_..., most)`.
        script: "train" or "explain".
        arguments: settings.
        cwd: working folder.
        more: environment variables.
    """
    code = LIMITED.format(prelude=prelude)
    words = ["-c", code, str(ROOT / f"{script}.py"), *map(str, arguments)]
    return Process(words, cwd, {**ENVIRONMENT, **more})
