"""Does a network read the order of frames? Accuracy on clips as they are, reversed and shuffled.

    python benchmarks/order.py CKPT [CKPT ...] [--split test] [--shuffles 5]

For the synthetic object interactions, whose classes are time reversals of others: accuracy on the
clips, on the same clips with their frames shuffled (mean over shuffles), and on the clips played
backwards, judged by their own class and by the class that the reversal shows. Only the frames
that are not padding are reordered.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_cam.data.core.loading import collate
from lightning_cam.synthetic.something import REVERSED
from lightning_cam.training.checkpoint import rebuild

COLUMNS = ("network", "clips", "as they are", "shuffled", "reversed", "reversed, partner class")


def reorder(batch: dict[str, Any], order: Callable[[int], Tensor]) -> Tensor:
    """The clips with the valid frames in another order."""
    clip = batch["video"].clone()
    for row, valid in zip(clip, batch["valid"], strict=True):
        length = int(valid.sum())
        row[:, :length] = row[:, order(length)]
    return clip


def evaluate(ckpt: str, split: str, shuffles: int) -> tuple[int, list[float]]:
    """Number of clips, and the four accuracies of one network."""
    task, data, _ = rebuild(ckpt)
    data.prepare_data()
    dataset = data.evaluation(split)
    partner = torch.tensor([task.classes.index(REVERSED[name]) for name in task.classes])
    generator = torch.Generator().manual_seed(0)
    orders = [lambda n: torch.randperm(n, generator=generator)] * shuffles
    right = torch.zeros(4)
    with torch.inference_mode():
        for start in range(0, len(dataset), 16):
            chosen = range(start, min(start + 16, len(dataset)))
            batch = collate([dataset[index] for index in chosen])
            label = batch["label"]

            def guess(clip: Tensor, batch: dict[str, Any] = batch) -> Tensor:
                return task(clip, batch["valid"]).argmax(1)

            right[0] += (guess(batch["video"]) == label).sum()
            for order in orders:
                right[1] += (guess(reorder(batch, order)) == label).sum() / shuffles
            backwards = guess(reorder(batch, lambda n: torch.arange(n - 1, -1, -1)))
            right[2] += (backwards == label).sum()
            right[3] += (backwards == partner[label]).sum()
    return len(dataset), (right / len(dataset)).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("checkpoints", nargs="+", metavar="[NAME=]CKPT")
    parser.add_argument("--split", default="test", choices=["train", "val", "test"])
    parser.add_argument("--shuffles", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    torch.set_num_threads(2)
    rows = []
    for entry in args.checkpoints:
        name, _, ckpt = entry.rpartition("=")
        clips, found = evaluate(ckpt, args.split, args.shuffles)
        rows.append([name or Path(ckpt).parents[2].name, clips, *(f"{x:.3f}" for x in found)])
        print(" | ".join(map(str, rows[-1])), flush=True)
    with args.out.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()
