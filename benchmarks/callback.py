"""What the live explanations add to a training run.

    python benchmarks/callback.py [--pairs 2] [KEY=VALUE ...]    # settings go to train.py

Trains the default run (synthetic data, W&B offline) with and without explanations, in turns, in
processes of their own, and prints wall and CPU time of the epochs and of the whole process. The
data are rendered before the clock starts. Weights at the end are compared bit for bit.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

ROOT = Path(__file__).parents[1]


def train(folder: Path, settings: list[str]) -> tuple[float, float, float, dict[str, torch.Tensor]]:
    """Seconds of the process and of its epochs after the first, CPU seconds, and the weights."""
    command = [sys.executable, str(ROOT / "train.py"), f"runs={folder}", *settings]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "WANDB_MODE": "offline"},
        check=True,
        capture_output=True,
        text=True,
    )
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    epochs = [float(s) for s in re.findall(r"([\d.]+) s$", done.stdout, re.MULTILINE)]
    (ckpt,) = folder.rglob("last.ckpt")
    return wall, sum(epochs[1:]), cpu, torch.load(ckpt, weights_only=True)["state_dict"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_args()
    from lightning_cam.synthetic.actions.data_module import SyntheticActions

    SyntheticActions(str(ROOT / "data/synthetic_actions")).prepare_data()
    added: dict[str, list[float]] = {"wall": [], "epochs": [], "cpu": []}
    for pair in range(args.pairs):
        found = {}
        for name in ("with", "without") if pair % 2 else ("without", "with"):
            extra = ["explain=none"] if name == "without" else []
            with tempfile.TemporaryDirectory() as folder:
                found[name] = train(Path(folder), [*args.settings, *extra])
            wall, epochs, cpu, _ = found[name]
            print(f"{name:8} wall {wall:6.1f} s, epochs 2.. {epochs:6.1f} s, cpu {cpu:6.1f} s")
        for n, key in enumerate(added):
            added[key].append(float(found["with"][n]) / float(found["without"][n]) - 1)  # type: ignore[arg-type]
        one, two = found["with"][3], found["without"][3]
        same = one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
        print(f"weights {'equal bit for bit' if same else 'DIFFER'}")
    print("added: " + ", ".join(f"{key} {median(v):+.1%}" for key, v in added.items()))


if __name__ == "__main__":
    main()
