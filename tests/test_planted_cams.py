"""CAMs and baselines where the evidence is known: average precision by voxels, printed with -s."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from planted import CHANCE, Planted
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision

import lightning_cam as lc

pytestmark = pytest.mark.slow

CAMS = {
    "Grad-CAM": lc.GradCAM(),
    "HiResCAM": lc.HiResCAM(),
    "Layer-CAM": lc.LayerCAM(),
    "XGrad-CAM": lc.XGradCAM(),
    "Grad-CAM++": lc.GradCAMPlusPlus(),
    "Grad-CAM, Bayer et al.": lc.GradCAM.bayer2022(),
    "CAM": lc.CAM(),
    "Score-CAM": lc.ScoreCAM(),
    "Score-CAM of probabilities": lc.ScoreCAM(raw=False),
    "Score-CAM, weights=score": lc.ScoreCAM(weights="score"),
    "guided Grad-CAM": lc.GuidedGradCAM(),
    "guided backpropagation": lc.GuidedBackprop(),
    "motion": lc.MotionMap(),
    "edges": lc.EdgeMap(),
    "centre": lc.CentreMap(),
    "truth": lc.TruthMap(),
}
EARLY = {k: CAMS[k] for k in ("Grad-CAM", "HiResCAM", "Layer-CAM", "XGrad-CAM", "Grad-CAM++")}


def precision(planted: Planted, method: lc.Attribution, shift: int = 0) -> Tensor:
    """Average precision of the clips' maps of their class, or of another one.

    Of Score-CAM, which takes a forward a channel, of every other clip: one of each class.
    """
    part = slice(None, None, 2 if isinstance(method, lc.ScoreCAM) else 1)
    clips, labels, mask = planted.clips[part], planted.labels[part], planted.mask[part]
    heat = lc.explain(
        replace(planted.model, truth=mask), method, clips, (labels + shift) % 4
    ).heatmap
    low, high = heat.amin((1, 2, 3), keepdim=True), heat.amax((1, 2, 3), keepdim=True)
    heat = (heat - low) / (high - low).clamp(min=1e-30)  # else torchmetrics takes a sigmoid
    pairs = zip(heat.flatten(1), mask.flatten(1).long(), strict=True)
    return torch.stack([binary_average_precision(*pair) for pair in pairs])


def test_cams_find_the_evidence_and_some_find_it_for_any_class(planted: Planted) -> None:
    """What keeps positive gradients or scores alone shows the evidence of whichever class."""
    own = {name: precision(planted, method) for name, method in CAMS.items()}
    other = {name: float(precision(planted, method, 1).mean()) for name, method in CAMS.items()}
    print(f"\n| method | average precision | of another class |\nchance {CHANCE:.3f}")
    for name, found in own.items():
        error = float(found.std() / len(found) ** 0.5)
        print(f"| {name} | {float(found.mean()):.2f} ± {error:.2f} | {other[name]:.2f} |")
    mean = {name: float(found.mean()) for name, found in own.items()}
    assert mean.pop("truth") == pytest.approx(1)
    assert mean.pop("centre") < 5 * CHANCE
    assert min(mean.values()) > 3 * CHANCE
    # A map of a class that is not there should not show it. Of these it does not ...
    for name in ("Grad-CAM", "HiResCAM", "XGrad-CAM", "CAM", "guided Grad-CAM"):
        assert mean[name] > 10 * CHANCE and other[name] < 1.5 * CHANCE, name
    # ... and of these it does, nearly as well, or exactly so where scores are probabilities.
    for name in ("Layer-CAM", "Grad-CAM++", "Grad-CAM, Bayer et al.", "Score-CAM of probabilities"):
        assert other[name] > 0.8 * mean[name], name


def test_earlier_layers_are_sharper_and_the_same_methods_tell_classes_apart(
    planted: Planted,
) -> None:
    print(f"\n| method | layer2 | of another class | layer1 | of another class |\n{CHANCE:.3f}")
    for name, method in EARLY.items():
        found = {}
        for layer in ("layer2", "layer1"):
            at = method.at(layer)  # type: ignore[attr-defined]
            found[layer] = [float(precision(planted, at, shift).mean()) for shift in (0, 1)]
        print(
            f"| {name} | " + " | ".join(f"{x:.2f}" for pair in found.values() for x in pair) + " |"
        )
        for own, other in found.values():
            assert own > 0.75
            positive_alone = name in ("Layer-CAM", "Grad-CAM++")
            assert other > 3 * CHANCE if positive_alone else other < 1.5 * CHANCE


def expected_by_chance(voxels: int, evidence: int) -> float:
    """The mean average precision of all orders of the voxels: a little above their share."""
    harmonic = float((1 / torch.arange(1, voxels + 1, dtype=torch.float64)).sum())
    return 1 / voxels * (harmonic + (evidence - 1) / (voxels - 1) * (voxels - harmonic))


@pytest.mark.parametrize("cells", [None, (6, 5, 5), (12, 20, 20)])
def test_random_maps_of_any_grain_find_what_is_found_by_chance(
    planted: Planted, cells: tuple[int, int, int] | None
) -> None:
    assert expected_by_chance(3, 1) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    chance = expected_by_chance(planted.mask[0].numel(), int(planted.mask[0].sum()))
    found = torch.stack([precision(planted, lc.RandomMap(seed, cells)) for seed in range(8)])
    error = float(found.std() / found.numel() ** 0.5)
    print(f"\nrandom, {cells}: {float(found.mean()):.4f} ± {error:.4f}, chance {chance:.4f}")
    assert abs(float(found.mean()) - chance) < 3 * error
