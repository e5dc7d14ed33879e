"""How many iterations STEP needs, and what its settings are worth, where the evidence is known.

    PYTHONPATH=tests python benchmarks/step.py                 # 24 clips; writes step.csv
    PYTHONPATH=tests python benchmarks/step.py --ckpt CKPT --out step_lrcn.csv

On clips of a trained network (`tests/planted.py`) whose evidence is known voxel by voxel, or on
test clips of a checkpoint's data, which have masks, that it gets right. Masks
that come out larger than asked for score too well, so settings are compared by the exact score: the
probability of the class when the hottest 5% of the voxels alone are shown, in front of the blurred
clip. Beside it: the iterations that were made, the mask's size, the score of what the mask itself
shows, and the average precision of the map. Figures are means over clips, the exact score with its
standard error, and with that of its paired difference to the default settings.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import math
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import planted
import torch
from torch import Tensor

import lightning_cam as lc
from lightning_cam.data.core.loading import collate
from lightning_cam.metrics import average_precision
from lightning_cam.training.checkpoint import rebuild

AREA = 0.05
SETTINGS: dict[str, dict[str, Any]] = {
    "200 iterations (default)": {},
    "25 iterations": {"iterations": 25},
    "50 iterations": {"iterations": 50},
    "100 iterations": {"iterations": 100},
    "tol=0.05": {"tol": 0.05},
    "tol=0.1": {"tol": 0.1},
    "tol=0.2": {"tol": 0.2},
    "growth=1": {"growth": 1},
    "growth=2": {"growth": 2},
    "growth=4": {"growth": 4},
    "area_on=canvas": {"area_on": "canvas"},
    "growth=1, area_on=canvas": {"growth": 1, "area_on": "canvas"},
    "3D-EP": {"variant": "3d"},
}
HEADINGS = (
    "setting", "iterations", "size", "score", "exact", "exact_se", "difference", "difference_se",
    "average_precision", "seconds",
)  # fmt: skip


def subject(count: int) -> tuple[lc.Explainable, Tensor, Tensor, Tensor]:
    """The network, and clips that it recognises with their classes and evidence."""
    net = planted.PlantedNet()
    net.load_state_dict(planted._trained())
    model = lc.Explainable.of(net.eval(), layers=["layer3"], outputs=planted.CLASSES)
    clips, labels, mask = planted.planted_clips(2 * count, 1)
    with torch.no_grad():
        right = (net(clips).argmax(1) == labels).nonzero()[:count, 0]
    return model, clips[right], labels[right], mask[right]


def checkpoint(path: str, count: int) -> tuple[lc.Explainable, Tensor, Tensor, Tensor]:
    """The same of a checkpoint, clips spread evenly over those of the test split."""
    task, data, _ = rebuild(path)
    data.prepare_data()
    test = data.evaluation("test")
    found: list[dict[str, Any]] = []
    for n in range(0, len(test), max(1, len(test) // (2 * count))):
        batch = data.on_after_batch_transfer(collate([test[n]]))
        with torch.no_grad():
            right = task.explainable(batch).forward(batch["video"]).argmax(1) == batch["label"]
        found += [test[n]] * (bool(right) and len(found) < count)
    batch = data.on_after_batch_transfer(collate(found))
    return task.explainable(batch), batch["video"], batch["label"], batch["mask"]


def spread(values: Tensor) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--ckpt", help="in place of the planted network")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    found = checkpoint(args.ckpt, args.clips) if args.ckpt else subject(args.clips)
    model, clips, labels, mask = found
    step = lc.ExtremalPerturbation("step", areas=(AREA,))
    rows: list[list[object]] = []
    default = torch.zeros(len(clips))
    for name, changes in SETTINGS.items():
        method, begun = replace(step, **changes), time.process_time()
        e = lc.explain(model, method, clips, labels)
        seconds = time.process_time() - begun
        exact = e.numbers[f"exact_{AREA:g}"]
        default = exact if not changes else default
        used = e.numbers.get("iterations", torch.full_like(exact, method.iterations))
        figures = [
            float(used.float().mean()), float(e.numbers[f"area_{AREA:g}"].mean()),
            float(e.numbers[f"score_{AREA:g}"].mean()), *spread(exact), *spread(exact - default),
            float(average_precision(e.heatmap, mask).mean()), seconds / len(clips),
        ]  # fmt: skip
        rows.append([name, *(round(x, 4) for x in figures)])
        print(*rows[-1], sep=", ", flush=True)
    with args.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([HEADINGS, *rows])
        version = importlib.metadata.version("torch")
        writer.writerow([f"# area {AREA:g}, {len(clips)} clips, torch=={version}"])


if __name__ == "__main__":
    main()
