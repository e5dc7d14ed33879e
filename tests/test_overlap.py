"""Average precision, IoU and pointing in space-time, in closed form and on judged frames alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from planted import CHANCE, Planted
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision

import lightning_cam as lc
from lightning_cam.metrics import (
    AveragePrecision,
    EnergyShare,
    Explained,
    MaskIoU,
    Measure,
    PointingGame,
    PointingHit,
    average_precision,
    energy_inside,
    iou,
    measure,
    pointing_hits,
    rank_accuracy,
    temporal_iou,
)

Score = Callable[..., Tensor]
SCORES: dict[str, Score] = {
    "ap": average_precision,
    "rank": rank_accuracy,
    "iou": iou,
    "iou_half": partial(iou, threshold=0.5),
    "iou_frame": partial(iou, per="frame"),
    "pointing": pointing_hits,
    "pointing_frame": partial(pointing_hits, per="frame"),
    "pointing_near": partial(pointing_hits, tolerance=2, tolerance_t=1, shape="disc"),
    "energy": energy_inside,
}
every = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)


def box(*sides: tuple[int, int], size: tuple[int, int, int] = (4, 8, 10)) -> Tensor:
    """A mask `(1, T, H, W)` that is True within the sides."""
    mask = torch.zeros(1, *size, dtype=torch.bool)
    mask[(0, *(slice(*side) for side in sides))] = True
    return mask


BOX = box((1, 3), (2, 5), (4, 9))  # 30 of 320 voxels
SHARE = 30 / 320


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@every
def test_the_mask_itself_is_perfect(score: Score) -> None:
    assert score(BOX.float(), BOX).tolist() == [1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ap", SHARE), ("rank", SHARE), ("iou", SHARE / (2 - SHARE)), ("iou_half", SHARE),
     ("energy", SHARE), ("iou_frame", 15 / 80 / (2 - 15 / 80)), ("pointing", SHARE)],
)  # fmt: skip
def test_the_same_heat_everywhere_is_chance(name: str, expected: float) -> None:
    assert SCORES[name](torch.ones(1, 4, 8, 10), BOX).item() == pytest.approx(expected)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_shift_in_time_in_closed_form(d: int) -> None:
    """By d of k = 4 frames: (k - d) / (k + d), whatever the size of the box in space."""
    mask, moved = (box((a, a + 4), (1, 4), (2, 9), size=(9, 6, 11)) for a in (1, 1 + d))
    heat = moved.float()
    expected = pytest.approx((4 - d) / (4 + d))
    assert temporal_iou(heat, mask.any(-1).any(-1)).item() == expected
    assert iou(heat, mask).item() == expected == iou(heat, mask, 0.9).item()
    assert rank_accuracy(heat, mask).item() == pytest.approx((4 - d) / 4)
    # Hot voxels have precision (k - d) / k, the rest is found among all others.
    share, rest = (4 - d) / 4, mask.float().mean().item()
    assert average_precision(heat, mask).item() == pytest.approx(share * share + (1 - share) * rest)


def test_average_precision_is_that_of_torchmetrics_ties_and_signs_included() -> None:
    mask = noise(4, 3, 6, 5) < 0.2
    heat = noise(4, 3, 6, 5, seed=1)
    for values in (heat, (8 * heat).round() / 8, heat.where(heat > 0.6, 0)):
        found = average_precision(values, mask)
        for row, truth, each in zip(values, mask, found, strict=True):
            assert each.item() == pytest.approx(binary_average_precision(row, truth).item())
        order = values - 0.5  # of either sign, which torchmetrics would take for logits
        torch.testing.assert_close(average_precision(order, mask), found)


def test_the_order_alone_counts_for_what_has_no_threshold_of_heat() -> None:
    mask, heat = noise(3, 4, 5, 6) < 0.3, noise(3, 4, 5, 6, seed=1)
    for score in (average_precision, rank_accuracy, iou):
        assert torch.equal(score(heat, mask), score(heat.exp() * 7, mask))


@pytest.mark.parametrize("n", [3, 17, 60])
def test_equal_heat_is_what_a_random_choice_would_have(n: int) -> None:
    """n tied voxels, then all others; as many are drawn as the mask has."""
    mask = box((0, 1), (0, 2), (0, 5))  # 10 voxels
    heat = torch.zeros(320)
    heat[5 : 5 + n] = 1  # beginning within the mask
    heat = heat.view(1, 4, 8, 10)
    hits, size = int((heat.bool() & mask).sum()), 10
    above = hits * min(1, size / n)
    left = max(0, size - n) * (size - hits) / (320 - n)
    expected = above + left
    assert rank_accuracy(heat, mask).item() == pytest.approx(expected / size)
    assert iou(heat, mask).item() == pytest.approx(expected / (2 * size - expected))


@every
def test_frames_that_are_not_judged_are_left_out(score: Score) -> None:
    """What lies in them changes nothing, and the value is that of the clip without them."""
    mask, heat = noise(3, 6, 9, 8) < 0.03, noise(3, 6, 9, 8, seed=1)
    judged = torch.tensor([True, True, False, False, True, True]).expand(3, 6)
    found = score(heat, mask, judged=judged)
    if score is not SCORES["pointing_near"]:  # there, neighbours in time are others
        kept = [0, 1, 4, 5]
        torch.testing.assert_close(found, score(heat[:, kept], mask[:, kept]))
    other = heat.clone()
    other[:, 2:4] = 9
    assert torch.equal(found, score(other, mask, judged=judged))
    assert not torch.equal(found, score(other, mask))
    assert torch.equal(score(heat, mask), score(heat, mask, judged=torch.ones(3, 6)))
    assert score(heat, mask, judged=torch.zeros(3, 6)).isnan().all()


def test_an_interval_is_judged_by_its_frames_alone() -> None:
    heat = torch.tensor([1, 0, 9, 1, 0, 0.0])[None, :, None, None].expand(1, 6, 2, 2)
    action = torch.tensor([[True, True, False, False, False, False]])
    judged = torch.tensor([[True, True, False, True, True, True]])
    assert temporal_iou(heat, action).item() == 0  # of frames 0, 1 with 2
    assert temporal_iou(heat, action, judged=judged).item() == pytest.approx(1 / 3)
    assert energy_inside(heat, action, judged).item() == pytest.approx(1 / 2)
    assert average_precision(heat, action, judged).item() == pytest.approx((1 / 2 + 2 / 5) / 2)


@pytest.mark.parametrize(
    "each", [AveragePrecision(), MaskIoU(), PointingHit(), EnergyShare()], ids=lambda m: m.title
)
def test_a_batch_says_which_frames_are_judged(each: Measure) -> None:
    heat, mask = noise(2, 6, 5, 4), noise(2, 6, 5, 4, seed=3) < 0.3
    heat[:, 3] += 5  # an action that is not annotated
    e = lc.explain(
        lc.Explainable.of(torch.nn.Flatten(), []), lambda *_: heat, torch.zeros(2, 1, 6, 5, 4)
    )
    model = lc.Explainable.of(torch.nn.Flatten(), [])
    judged = torch.arange(6).expand(2, 6) != 3

    def value(batch: dict[str, Tensor]) -> Tensor:
        return measure({"it": each}, Explained(model, torch.zeros(2), e, batch)).values["it"]

    plain = value({"mask": mask})
    assert torch.equal(value({"mask": mask, "judged": torch.ones(2, 6).bool()}), plain)
    assert not torch.equal(value({"mask": mask, "judged": judged}), plain)
    # Padding and frames that are not judged are left out alike.
    assert torch.equal(
        value({"mask": mask, "judged": judged}), value({"mask": mask, "valid": judged})
    )


@pytest.mark.parametrize(
    ("away", "square", "disc"),
    [
        ((0, 2), 1, 1),
        ((2, 2), 1, 1),
        ((0, 3), 1, 0),
        ((3, 3), 1, 0),
        ((2, 3), 1, 0),
        ((0, 4), 0, 0),
    ],
)
def test_a_square_is_closed_and_a_disc_is_open(
    away: tuple[int, int], square: float, disc: float
) -> None:
    mask, heat = box((0, 1), (9, 10), (9, 10), size=(1, 20, 20)), torch.zeros(1, 1, 20, 20)
    heat[0, 0, 9 + away[0], 9 - away[1]] = 1
    assert pointing_hits(heat, mask, 3).item() == square
    assert pointing_hits(heat, mask, 3, shape="disc").item() == disc
    for shape in ("square", "disc"):
        assert pointing_hits(heat, mask, 0, shape=shape).item() == 0


@pytest.mark.parametrize(("frames", "hit"), [(0, 0), (1, 0), (2, 1), (3, 1)])
def test_pointing_may_be_off_in_time(frames: int, hit: float) -> None:
    mask = box((4, 5), (2, 5), (4, 9), size=(8, 8, 10))
    heat = box((6, 7), (2, 5), (4, 9), size=(8, 8, 10)).float()
    assert pointing_hits(heat, mask, tolerance_t=frames).item() == hit
    metric = PointingGame(tolerance_t=frames)
    metric.update(heat, mask)
    assert metric.compute().item() == hit


@every
def test_what_cannot_be_scored_is_nan(score: Score) -> None:
    assert score(torch.zeros(1, 4, 8, 10), BOX).isnan().all()
    assert score(BOX.float(), torch.zeros_like(BOX)).isnan().all()
    with pytest.raises(ValueError, match="expected"):
        score(BOX.float()[:, :3], BOX)
    with pytest.raises(ValueError, match="expected judged"):
        score(BOX.float(), BOX, judged=torch.ones(1, 3))


@pytest.mark.parametrize("threshold", [0, -1, 1.5, True, "half"])
def test_thresholds_are_checked(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold must be"):
        iou(BOX.float(), BOX, threshold)


def test_maps_find_what_was_planted(planted: Planted) -> None:
    """At least thrice chance, and random maps within three standard errors of it."""
    methods = {"gradcam": lc.GradCAM(), "layer2": lc.GradCAM(layer="layer2"),
               "gradient x input": lc.GradientXInput(), "random": lc.RandomMap()}  # fmt: skip
    found = {}
    for name, method in methods.items():
        e = lc.explain(planted.model, method, planted.clips, planted.labels)
        made = Explained(planted.model, planted.clips, e, planted.batch)
        measured = measure({"ap": AveragePrecision()}, made)
        assert measured.beside["ap_chance"].tolist() == pytest.approx([CHANCE] * 8)
        found[name] = measured.values["ap"]
        print(f"{name}: AP {found[name].mean():.3f}, chance {CHANCE:.3f}")
    error = found["random"].std() / 8**0.5
    assert (found.pop("random").mean() - CHANCE).abs() < 3 * error
    assert all(ap.mean() > 3 * CHANCE for ap in found.values())
    assert found["layer2"].mean() > found["gradcam"].mean()  # of cells of a half the size


@pytest.mark.slow
def test_perturbations_find_what_was_planted(planted: Planted) -> None:
    clips, labels, mask = planted.clips[::4], planted.labels[::4], planted.mask[::4]
    step = lc.ExtremalPerturbation(variant="step", areas=(0.1,), iterations=40)
    for name, method in {"RISE": lc.RISE(masks=200), "STEP": step}.items():
        found = average_precision(lc.explain(planted.model, method, clips, labels).heatmap, mask)
        print(f"{name}: AP {found.mean():.3f}, chance {CHANCE:.3f}")
        assert (found > 3 * CHANCE).all(), name
