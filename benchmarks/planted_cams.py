"""Draws maps of a network whose evidence is known, for the clip's class and for another one.

    PYTHONPATH=tests python benchmarks/planted_cams.py docs/figures/planted_cams.jpg
    PYTHONPATH=tests python benchmarks/planted_cams.py docs/figures/planted_relevance.jpg

Trains the network first, for about twelve seconds. `pytest -m slow -s tests/test_planted_cams.py
tests/test_relevance.py` has the numbers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import planted
import torch
from PIL import Image

import lightning_cam as lc
from lightning_cam.viz import ClipFigure, draw_sheet

METHODS: dict[str, lc.Attribution] = {
    "Grad-CAM": lc.GradCAM(),
    "Grad-CAM, layer2": lc.GradCAM("layer2"),
    "HiResCAM, layer2": lc.HiResCAM("layer2"),
    "Layer-CAM": lc.LayerCAM(),
    "Score-CAM": lc.ScoreCAM(),
    "guided Grad-CAM": lc.GuidedGradCAM(),
    "motion": lc.MotionMap(),
}
RELEVANCE: dict[str, lc.Attribution] = {
    "excitation backprop": lc.ExcitationBackprop(),
    "contrastive": lc.ExcitationBackprop(contrastive=True),
    "LRP": lc.LRP(),
    "LRP, alpha2 beta1": lc.LRP("epsilon_alpha2_beta1"),
    "LRP, epsilon": lc.LRP("epsilon"),
}


def main(path: Path) -> None:
    net = planted.PlantedNet()
    net.load_state_dict(planted._trained())
    model = lc.Explainable.of(net.eval(), layers=["layer3", "layer2"], outputs=planted.CLASSES)
    clips, labels, mask = planted.planted_clips(8, 1)
    clip, label = clips[1:2], int(labels[1])
    frames = (255 * (clip[0] / 4 + 0.5).clamp(0, 1)).byte().permute(1, 2, 3, 0).numpy()
    with torch.no_grad():
        shares = net(clip)[0].softmax(0).tolist()
    maps = {"evidence": mask[1].float()}
    for name, method in (RELEVANCE if "relevance" in path.stem else METHODS).items():
        for column in (label, (label + 1) % 4):
            said = "" if column == label else f" of {planted.CLASSES[column]}"
            if said and name in ("motion", "HiResCAM, layer2", "Grad-CAM, layer2"):
                continue
            maps[name + said] = lc.explain(model, method, clip, column).heatmap[0]
    large = 3  # pixels of the image for one of the clip
    figure = ClipFigure(
        frames=frames.repeat(large, 1).repeat(large, 2),
        heatmaps={k: np.kron(m.numpy(), np.ones((1, large, large))) for k, m in maps.items()},
        target=planted.CLASSES[label],
        label=planted.CLASSES[label],
        probabilities=list(zip(planted.CLASSES, shares, strict=True)),
        grainy=[
            name
            for name in maps
            if "guided" in name or ("relevance" in path.stem and name != "evidence")
        ],
        title="stripes that move in one patch, and still ones beside it",
    )
    Image.fromarray(draw_sheet(figure, columns=6)).save(path, quality=75)  # noise: a PNG of 2 MB


if __name__ == "__main__":
    main(Path(sys.argv[1]))
