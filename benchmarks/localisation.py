"""Where, and when, do the maps of trained networks look? Measured against ground truth.

    python benchmarks/localisation.py CKPT [CKPT ...] [--split test] [--figure FILE.png]

For every checkpoint and its methods, on all clips of a split that has ground truth: accuracy,
pointing-game hit rate (hottest voxel in the mask of what acts or is acted upon), share of the heat
in that mask, in each of its parts (hand, object) and within the action interval, pointing in time
(hottest frame in the interval), and temporal IoU, as mean and standard deviation over clips. Beside
them random, centre and even maps, and for each network the frames' drops themselves, see below, as
a map that is even over each frame. Explained is the true class. Without ground truth (`--root` of
real videos) only what needs none is printed: the share of the heat in the last quarter of the
frames (recency; 0.25 is even), and the agreement of frame energies with what happens when a frame
is blanked. Several checkpoints of one kind (seeds) given as `NAME=CKPT` are averaged under their
name.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lightning_cam as lc
from lightning_cam.attribution.tensors import resize_heatmap
from lightning_cam.data.core.loading import collate
from lightning_cam.metrics import energy_inside, pointing_hits, temporal_iou
from lightning_cam.models import FrameCNN
from lightning_cam.training.checkpoint import rebuild
from lightning_cam.viz import ClipFigure, draw_sheet, save_png

IN_TIME = ("in action", "hottest frame", "temporal IoU", "last quarter", "blanking")
MEASURES = ("pointing", "in mask", *IN_TIME)


def methods_for(task: Any) -> dict[str, lc.Attribution]:
    """The maps to compare on one network."""
    if isinstance(task.model, FrameCNN):
        return {"Grad-CAM": lc.GradCAM()}
    if not task.has_steps:  # 3-D networks
        return {"Grad-CAM": lc.GradCAM(), "Grad-CAM of layer3": lc.GradCAM("trunk.layer3")}
    return {
        "recurrent Grad-CAM": lc.RecurrentGradCAM(),
        "integrated recurrent Grad-CAM": lc.IntegratedRecurrentGradCAM(),
    }


def batches(data: Any, split: str, size: int = 12) -> Iterator[dict[str, Any]]:
    """The split's clips in order, as at validation."""
    dataset = data.evaluation(split)
    for start in range(0, len(dataset), size):
        chosen = range(start, min(start + size, len(dataset)))
        yield collate([dataset[index] for index in chosen])


def blanking(model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
    """`(B, T)`: how much the target's logit drops when one frame becomes the mean colour."""
    drops = []
    with torch.inference_mode():
        whole = model.forward(clip).gather(1, target[:, None])[:, 0]
        for frame in range(clip.shape[2]):
            blank = clip.clone()
            blank[:, :, frame] = 0
            drops.append(whole - model.forward(blank).gather(1, target[:, None])[:, 0])
    return torch.stack(drops, 1)


def rank_correlation(a: Tensor, b: Tensor, valid: Tensor) -> float:
    """Spearman correlation of two profiles `(T,)`; NaN for a constant one."""
    a, b = a[valid], b[valid]
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    ranks = torch.stack([a.argsort().argsort().float(), b.argsort().argsort().float()])
    return float(torch.corrcoef(ranks)[0, 1])


def measure(heat: Tensor, batch: Mapping[str, Any], drops: Tensor) -> dict[str, list[float]]:
    """Measure -> one value a clip; measures that need ground truth only where it is."""
    valid = batch["valid"]
    heat = heat * valid[:, :, None, None]
    found: dict[str, Tensor] = {}
    energy = heat.clamp(min=0).sum((2, 3))
    if "mask" in batch:
        mask, action = batch["mask"], batch["action"]
        found["pointing"] = pointing_hits(heat, mask)
        found["in mask"] = energy_inside(heat, mask)
        for key in batch:
            if key.startswith("mask/"):
                found[f"on {key.removeprefix('mask/')}"] = energy_inside(heat, batch[key])
        found["in action"] = energy_inside(heat, action)
        peak = energy == energy.amax(1, keepdim=True)  # an even map has many
        found["hottest frame"] = (peak & action).sum(1) / peak.sum(1)
        found["temporal IoU"] = temporal_iou(heat, action)
    length = valid.sum(1, keepdim=True)
    late = (torch.arange(valid.shape[1]) >= length * 3 / 4) & valid
    found["last quarter"] = (energy * late).sum(1) / energy.sum(1)
    rows = [rank_correlation(e, d, v) for e, d, v in zip(energy, drops, valid, strict=True)]
    found["blanking"] = torch.tensor(rows)
    return {name: values.tolist() for name, values in found.items()}


def measure_frames(weights: Tensor, batch: Mapping[str, Any], drops: Tensor) -> Any:
    """One weight a frame `(B, T)`, as a map that is even over each frame."""
    heat = weights[:, :, None, None].expand(*weights.shape, *batch["video"].shape[3:])
    return {k: v for k, v in measure(heat, batch, drops).items() if k in IN_TIME}


def evaluate(ckpt: str, split: str, root: str | None) -> tuple[dict[str, Any], float, int]:
    """Method -> measure -> values of one network, its accuracy, and how many clips."""
    task, data, _ = rebuild(ckpt, data={"root": root} if root else None)
    data.prepare_data()
    found: dict[str, Any] = defaultdict(lambda: defaultdict(list))
    right = total = 0
    for batch in batches(data, split):
        clip, label = batch["video"], batch["label"]
        model = task.explainable(batch)
        drops = blanking(model, clip, label)
        for name, method in methods_for(task).items():
            e = lc.explain(model, method, clip, label)
            for key, values in measure(e.heatmap, batch, drops).items():
                found[name][key] += values
        frames = {"drops of blanked frames": drops.clamp(min=0)}
        for weights in list(e.attention.values())[:1]:
            frames["attention weights"] = weights
        for name, weights in frames.items():
            for key, values in measure_frames(weights, batch, drops).items():
                found[name][key] += values
        baselines = {"random": lc.RandomMap(), "centre": lc.CentreMap()}
        maps = {n: lc.explain(model, of, clip, label).heatmap for n, of in baselines.items()}
        for name, heat in (maps | {"even": torch.ones_like(clip[:, 0])}).items():
            for key, values in measure(heat, batch, drops).items():
                found[f"({name})"][key] += values
        right += int((e.outputs.argmax(1) == label).sum())
        total += len(label)
    return found, right / total, total


def figure(named: list[tuple[str, str]], split: str, path: Path, clip: int) -> None:
    """One clip as the networks see it: a row for each, as in Fig. 3 of the paper."""
    heatmaps, frames, batch, attention = {}, None, None, None
    for name, ckpt in named:
        task, data, _ = rebuild(ckpt)
        data.prepare_data()
        dataset = data.evaluation(split)
        batch = collate([dataset[clip]])
        frames = data.reader.display(batch["path"][0], batch["frame_idx"][0].tolist())
        for title, method in list(methods_for(task).items())[:1]:
            e = lc.explain(task.explainable(batch), method, batch["video"], batch["label"])
            heatmaps[f"{name}: {title}"] = resize_heatmap(e.heatmap, frames.shape[:3])[0].numpy()
            for weights in e.attention.values():
                attention = weights[0].numpy()
    assert frames is not None and batch is not None
    label = task.classes[int(batch["label"][0])]
    chances = list(zip(task.classes, e.outputs[0].softmax(0).tolist(), strict=True))
    image = ClipFigure(
        frames=frames,
        heatmaps=heatmaps,
        target=label,
        label=label,
        probabilities=chances,
        attention=attention,
        times=batch["time_s"][0].numpy(),
        valid=batch["valid"][0].numpy(),
        title=batch["clip_id"][0],
    )
    save_png(path, draw_sheet(image, columns=8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("checkpoints", nargs="+", metavar="[NAME=]CKPT")
    parser.add_argument("--split", default="val", choices=["train", "val", "test"])
    parser.add_argument("--root", help="data root, if not the remembered one")
    parser.add_argument("--out", type=Path, help="CSV to write")
    parser.add_argument("--figure", type=Path, help="image of one clip to write")
    parser.add_argument("--clip", type=int, default=0, help="index of that clip")
    args = parser.parse_args()
    torch.set_num_threads(2)
    named = []
    for entry in args.checkpoints:
        name, _, ckpt = entry.rpartition("=")
        named.append((name or Path(ckpt).parents[2].name, ckpt))
    if args.figure:
        figure(named, args.split, args.figure, args.clip)
        return
    pooled: dict[str, Any] = defaultdict(lambda: defaultdict(list))
    accuracy: dict[str, list[float]] = defaultdict(list)
    for name, ckpt in named:
        found, correct, clips = evaluate(ckpt, args.split, args.root)
        accuracy[name].append(correct)
        for method, measures in found.items():
            row = method if method.startswith("(") else f"{name}, {method}"
            accuracy[row] = [] if method.startswith("(") else accuracy[name]
            for key, values in measures.items():
                pooled[row][key] += values
    parts = sorted({key for row in pooled.values() for key in row if key not in MEASURES})
    columns = [*MEASURES[:2], *parts, *MEASURES[2:]]
    print(f"{clips} clips of the {args.split} split, {len(named)} networks\n")
    print("| map | accuracy | " + " | ".join(columns) + " |")
    print("|---|---|" + "---|" * len(columns))
    rows = []
    for row, measures in sorted(pooled.items(), key=lambda item: item[0].startswith("(")):
        cells = []
        for key in columns:
            values = np.array(measures.get(key, []), float)
            known = values[~np.isnan(values)]
            cells.append(f"{known.mean():.2f} ± {known.std():.2f}" if len(known) else "")
        shown = " / ".join(f"{a:.3f}" for a in accuracy[row])
        print(f"| {row} | {shown} | " + " | ".join(cells) + " |")
        rows.append([row, shown, *cells])
    if args.out:
        with args.out.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["map", "accuracy", *columns])
            writer.writerows(rows)


if __name__ == "__main__":
    main()
