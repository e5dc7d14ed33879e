"""Depth and motion of trained networks beside what needs no network, and where their evidence lies.

    python benchmarks/sfm.py CKPT [CKPT ...]    # writes sfm.csv, sfm_evidence.csv

*Evaluation*, on the test sequence: the mean difference of a frame to its warped sources, beside
that to the sources as they are, over the same pixels; depth (median-scaled abs rel) beside a
constant depth, each image's own true median; ATE over five frames beside a camera that stands
still and one that moves as the training sequences do on average.

*Evidence*, on the probe sequence, in which a box moves by itself and a wall has no texture: the
share of the heat of regression Grad-CAM (of -view_synthesis_loss, its positive and its negative
part) on parallax-rich texture, on the box and on the wall, beside the area's share, a random and a
centre map; and the share of targets whose positive part is blank; for some maps the areas under
deletion and insertion of the column itself (black, 10 steps, 3 clips). Mean and standard
deviation over checkpoints (seeds) of the means over clips.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import torch
from torch import Tensor

import lightning_cam as lc
from lightning_cam.data.core.clips import finished
from lightning_cam.data.core.loading import collate
from lightning_cam.geometry import invert, pose_matrix
from lightning_cam.metrics import SnippetErrors, chain, constant_velocity, energy_inside
from lightning_cam.tasks.sfm.evaluation import OdometryScores
from lightning_cam.training.checkpoint import rebuild

LAYERS = ("depth.iconv1", "depth.iconv4", "depth.conv5", "pose.conv4", "pose.conv5")
PARTS = ("rich", "moving", "flat")
MEASURED = ("depth.iconv4", "depth.iconv4, not pooled", "pose.conv4", "pose.conv4, not pooled")
STEPS, CLIPS = 10, 3  # of deletion and insertion
FIVE = 5


def films(data: Any, part: str) -> Iterator[dict[str, Any]]:
    """The clips of a part or sequence, one by one, as networks take them."""
    dataset = data.evaluation(part)
    for index in range(len(dataset)):
        yield finished(collate([dataset[index]]))


def evaluate(task: Any, data: Any) -> dict[str, float]:
    """The network on the test part, and what needs no network."""
    scores = OdometryScores(task.net.snippet, 80.0, None)
    errors: dict[str, list[float]] = defaultdict(list)
    for batch in films(data, "test"):
        with torch.no_grad():
            views = task(batch["video"])
            motions = pose_matrix(views.poses, task.view_synthesis.rotation)
            counted = task.targets(batch) & task.inner(batch["target"])
            scores.update(batch, counted, views.disparities[0], motions)
            both = task.against_identity(views, task.snippets(batch), motions)
        for name, values in zip(("warp error", "identity error"), both, strict=True):
            errors[name] += values[counted.flatten()].tolist()
    found = scores.compute()
    steady = SnippetErrors()
    motion = constant_velocity(torch.cat([true_motions(data, d) for d in data.listing.train]))
    for drive in data.listing.test:
        poses = torch.from_numpy(drive.poses).double()
        guess = chain(motion.expand(len(poses) - 1, 4, 4))
        steady.update(windows(guess), windows(poses))
    return {name: mean(values) for name, values in errors.items()} | {
        "abs rel": float(found["depth/abs_rel"]),
        "a1": float(found["depth/a1"]),
        "abs rel, constant depth": float(found["depth/constant/abs_rel"]),
        "ATE": float(found["pose/ate"]),
        "ATE, constant velocity": float(steady.compute()["ate"]),
        "ATE, standing still": float(found["pose/zero/ate"]),
        "rotation error": float(found["pose/re"]),
        "rotation error, constant velocity": float(steady.compute()["re"]),
    }


def true_motions(data: Any, drive: Any) -> Tensor:
    """T_{t->t+1} of a drive, (n - 1, 4, 4)."""
    poses = torch.from_numpy(drive.poses).double()
    return invert(poses[1:]) @ poses[:-1]


def windows(poses: Tensor) -> Tensor:
    """All stretches of five poses, (n - 4, 5, 4, 4)."""
    return poses.unfold(0, FIVE, 1).movedim(-1, 1)


def evidence(task: Any, data: Any) -> dict[tuple[str, str], dict[str, float]]:
    """(map, part of it) -> measures, means over the clips of the probe sequence."""
    rows: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number, batch in enumerate(films(data, "11")):
        model = task.explainable(batch)
        margin = task.net.margin
        target = torch.zeros_like(batch["valid"])
        target[:, margin : target.shape[1] - margin] = True
        masks = {part: batch[f"mask/{part}"] for part in PARTS}
        maps: dict[str, tuple[Tensor, Mapping[str, Tensor]]] = {}
        for layer in LAYERS:
            for pool in (None, "none"):
                method = lc.RegressionGradCAM(layer, pool)
                found = lc.explain(model, method, batch["video"], "-view_synthesis_loss")
                name = layer if pool is None else f"{layer}, not pooled"
                maps[name] = found.heatmap, found.numbers
        for name, method in (("random", lc.RandomMap()), ("centre", lc.CentreMap())):
            maps[name] = lc.explain(model, method, batch["video"], 0).heatmap, {}
        maps["area"] = torch.ones_like(maps["random"][0]), {}
        if number < CLIPS:
            target_column = torch.zeros(1, dtype=torch.int64)
            ends = lc.Ends.of(model, batch["video"], target_column)
            for name in (*MEASURED, "random", "centre"):
                for how in (lc.deletion, lc.insertion):
                    options = {"ends": ends, "steps": STEPS}
                    curve = how(model, batch["video"], maps[name][0], target_column, **options)
                    rows[name, "positive"][how.__name__].append(float(curve.auc[0]))
        for name, (heat, numbers) in maps.items():
            heat = heat * target[..., None, None]
            signs = {"positive": heat.clamp(min=0)}
            if numbers:
                signs["negative"] = (-heat).clamp(min=0)
            for sign, part_of_heat in signs.items():
                row = rows[name, sign]
                for part, mask in masks.items():
                    share = float(energy_inside(part_of_heat, mask)[0])
                    if share == share:  # a blank map has no shares
                        row[part].append(share)
                if sign == "positive" and numbers:
                    row["blank"].append(float(numbers["blank"][0]))
                    row["low gradient"].append(float(numbers["low_gradient"][0]))
    return {
        key: {name: mean(values) for name, values in row.items() if values}
        for key, row in rows.items()
    }


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """A CSV file, and the same as a Markdown table."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row.get(name, "")) for name in columns) + " |")


def spread(values: list[float]) -> str:
    """Mean and standard deviation in words."""
    return f"{mean(values):.3f} ± {pstdev(values):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ckpt", nargs="+")
    parser.add_argument("--root", help="of the data, where the checkpoint's is not there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    evaluations, found = [], defaultdict(lambda: defaultdict(list))  # type: ignore[var-annotated]
    for n, ckpt in enumerate(args.ckpt):
        task, data, _ = rebuild(ckpt, data={"root": args.root} if args.root else None)
        data.prepare_data()
        row = evaluate(task, data)
        evaluations.append({"checkpoint": n} | {k: f"{v:.4f}" for k, v in row.items()})
        for key, measures in evidence(task, data).items():
            for name, value in measures.items():
                found[key][name].append(value)
    here = Path(__file__)
    write(here.with_suffix(".csv"), evaluations)
    write(
        here.with_name("sfm_evidence.csv"),
        [
            {"map": name, "part": sign} | {k: spread(v) for k, v in measures.items()}
            for (name, sign), measures in found.items()
        ],
    )


if __name__ == "__main__":
    main()
