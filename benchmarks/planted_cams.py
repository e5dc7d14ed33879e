"""Draws maps of a network whose evidence is known, for the clip's class and for another one.

    PYTHONPATH=tests python benchmarks/planted_cams.py        # all into docs/figures
    PYTHONPATH=tests python benchmarks/planted_cams.py docs/figures/planted_cams.jpg
    PYTHONPATH=tests python benchmarks/planted_cams.py --csv       # numbers, into planted_cams.csv

What is drawn follows from the file's name, `planted_FAMILY.jpg`. Trains the network first, for
about twelve seconds; perturbations take some minutes more. The numbers are each method's average
precision against the evidence, on a clip of each class. `pytest -m slow -s
tests/test_planted_cams.py tests/test_relevance.py` has more of some families.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import planted
import torch
from PIL import Image

import lightning_cam as lc
from lightning_cam.attribution.method import as_attribution
from lightning_cam.metrics import average_precision
from lightning_cam.viz import ClipFigure, draw_sheet

FOLDER = Path(__file__).parents[1] / "docs" / "figures"


@dataclass(frozen=True)
class Family:
    """What an image shows.

    Attributes:
        methods: the rows, name -> method.
        other: names of those whose map of another class is drawn as well.
    """

    methods: Mapping[str, lc.Attribution]
    other: frozenset[str] = frozenset()


FAMILIES = {
    "cams": Family(
        {
            "Grad-CAM": lc.GradCAM(),
            "Grad-CAM, layer2": lc.GradCAM("layer2"),
            "HiResCAM, layer2": lc.HiResCAM("layer2"),
            "XGrad-CAM, layer2": lc.XGradCAM("layer2"),
            "Grad-CAM++": lc.GradCAMPlusPlus(),
            "Layer-CAM": lc.LayerCAM(),
            "CAM": lc.CAM(),
            "Score-CAM": lc.ScoreCAM(),
            "guided Grad-CAM": lc.GuidedGradCAM(),
            "Grad-CAM, Bayer et al.": lc.GradCAM.bayer2022(),
        },
        frozenset({"Grad-CAM", "Layer-CAM", "Score-CAM", "guided Grad-CAM"}),
    ),
    "relevance": Family(
        relevance := {
            "excitation backprop": lc.ExcitationBackprop(),
            "contrastive": lc.ExcitationBackprop(contrastive=True),
            "LRP": lc.LRP(),
            "LRP, alpha2 beta1": lc.LRP("epsilon_alpha2_beta1"),
            "LRP, epsilon": lc.LRP("epsilon"),
        },
        frozenset(relevance),
    ),
    "gradients": Family(
        {
            "gradient": lc.Gradient(),
            "gradient x input": lc.GradientXInput(),
            "SmoothGrad": lc.SmoothGrad(),
            "integrated gradients": lc.IntegratedGradients(),
            "guided backpropagation": lc.GuidedBackprop(),
        },
        frozenset({"gradient", "guided backpropagation"}),
    ),
    "perturbation": Family(
        {
            "RISE": lc.RISE(),
            "SIDU": lc.SIDU(),
            "occlusion": lc.Occlusion(),
            "LIME": lc.Supervoxels("lime", ridge=1),
            "KernelSHAP": lc.Supervoxels(),
            "KernelSHAP of logits": lc.Supervoxels(raw=True),
            "Banzhaf": lc.Supervoxels("banzhaf"),
            "temporal mask": lc.TemporalMask(),
        }
    ),
    "extremal": Family(
        {
            "2D-EP": lc.ExtremalPerturbation("2d", (0.05,)),
            "3D-EP": lc.ExtremalPerturbation("3d", (0.05,)),
            "STEP": lc.ExtremalPerturbation("step", (0.05,)),
        }
    ),
    "baselines": Family(
        {
            "random voxels": lc.RandomMap(),
            "random cells": lc.RandomMap(cells=(6, 5, 5)),
            "centre": lc.CentreMap(),
            "motion": lc.MotionMap(),
            "edges": lc.EdgeMap(),
            "truth": lc.TruthMap(),
        }
    ),
}


def figure(net: planted.PlantedNet, family: Family) -> ClipFigure:
    """One clip, where its evidence is, and the maps of a family."""
    clips, labels, mask = planted.planted_clips(8, 1)
    clip, label = clips[1:2], int(labels[1])
    model = lc.Explainable.of(net, layers=["layer3", "layer2"], outputs=planted.CLASSES)
    model = replace(model, truth=mask[1:2])
    with torch.no_grad():
        shares = net(clip)[0].softmax(0).tolist()
    maps, grainy = {"evidence": mask[1].float()}, []
    for name, method in family.methods.items():
        for column in (label, (label + 1) % 4)[: 1 + (name in family.other)]:
            row = name if column == label else f"{name} of {planted.CLASSES[column]}"
            maps[row] = lc.explain(model, method, clip, column).evidence[0]
            grainy += [row] * as_attribution(method).grainy
    frames = (255 * (clip[0] / 4 + 0.5).clamp(0, 1)).byte().permute(1, 2, 3, 0).numpy()
    large = 3  # pixels of the image for one of the clip
    return ClipFigure(
        frames=frames.repeat(large, 1).repeat(large, 2),
        heatmaps={k: np.kron(m.numpy(), np.ones((1, large, large))) for k, m in maps.items()},
        target=planted.CLASSES[label],
        label=planted.CLASSES[label],
        probabilities=list(zip(planted.CLASSES, shares, strict=True)),
        grainy=grainy,
        title="stripes that move in one patch, and still ones beside it",
    )


def numbers(net: planted.PlantedNet, path: Path) -> None:
    """Each method's average precision on four clips, mean and standard error, as they come."""
    clips, labels, mask = planted.planted_clips(4, 1)
    model = lc.Explainable.of(net, layers=["layer3", "layer2"], outputs=planted.CLASSES)
    model = replace(model, truth=mask)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["family", "method", "average precision", "s.e."])
        for family, each in FAMILIES.items():
            for name, method in each.methods.items():
                found = average_precision(lc.explain(model, method, clips, labels).heatmap, mask)
                error = float(found.std()) / len(found) ** 0.5
                row = [family, name, f"{float(found.mean()):.3f}", f"{error:.3f}"]
                writer.writerow(row)
                print(*row, sep=", ", flush=True)
        writer.writerow([f"# chance {planted.CHANCE:.3f}, {len(clips)} clips"])


def main(paths: list[Path]) -> None:
    net = planted.PlantedNet()
    net.load_state_dict(planted._trained())
    net.eval()
    if paths == [Path("--csv")]:
        numbers(net, Path(__file__).with_suffix(".csv"))
        return
    for path in paths or [FOLDER / f"planted_{family}.jpg" for family in FAMILIES]:
        family = FAMILIES[path.stem.removeprefix("planted_")]
        sheet = draw_sheet(figure(net, family), columns=6)
        Image.fromarray(sheet).save(path, quality=75)  # noise: a PNG of 2 MB


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
