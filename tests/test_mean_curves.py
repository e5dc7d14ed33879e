"""Deletion and insertion as metrics: closed forms, intervals, the same numbers on every rank."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from nets import clip_of
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.errors import UnknownNameError
from lightning_cam.metrics import Deletion, Insertion, Statistics, deletion, summarise
from lightning_cam.metrics.statistics import student

SIZE = (4, 5, 5)  # 100 voxels
SAME = {"deleted": "black", "inserted": "black"}


class Visible(nn.Module):
    """The probability of class 0 is the weight of the voxels that are not black."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, clip: Tensor) -> Tensor:
        share = (self.weights * clip[:, 0]).sum((1, 2, 3)).clamp(1e-12, 1 - 1e-12)
        return torch.stack([share.log(), (1 - share).log()], 1)


def of_weights(weights: Tensor) -> tuple[lc.Explainable, Tensor]:
    """A model, and one clip of which all is visible."""
    weights = weights.double() / weights.sum()
    return lc.Explainable.of(Visible(weights), []), torch.ones(1, 1, *SIZE, dtype=torch.float64)


def ramp() -> Tensor:
    return torch.arange(1.0, 101).view(SIZE)


@pytest.mark.parametrize("steps", [4, 10, 100])
def test_closed_forms_through_update(steps: int) -> None:
    one = torch.zeros(SIZE)
    one[1, 2, 3] = 1
    # D2: one voxel carries everything; D1: all the same, whatever the order
    for weights, heat, expected in (
        (one, one, 1 / (2 * steps)),
        (one, -one, 1 - 1 / (2 * steps)),
        (torch.ones(SIZE), ramp(), 0.5),
    ):
        model, clip = of_weights(weights)
        for metric, area in (
            (Deletion(steps=steps, **SAME), expected),
            (Insertion(steps=steps, **SAME), 1 - expected),
        ):
            metric.update(model, clip, heat[None].double(), 0)
            assert metric.compute().item() == pytest.approx(area, abs=1e-6)
            assert metric.statistics().clips == 1 and math.isnan(metric.statistics().std)


def test_a_ramp_and_its_curve() -> None:
    model, clip = of_weights(ramp())
    metric = Deletion(steps=100, **SAME)
    metric.update(model, clip, ramp()[None].double(), 0)
    assert metric.compute().item() == pytest.approx(1 / 3, abs=2e-3)  # D3, up to the steps
    fraction, mean, low, high = metric.curve()
    # after s of 100 voxels the s heaviest are gone
    gone = torch.cat([torch.zeros(1), ramp().flatten().flip(0).cumsum(0) / 5050])
    torch.testing.assert_close(mean, 1 - gone, rtol=0, atol=1e-6)
    torch.testing.assert_close(fraction, torch.linspace(0, 1, 101))
    assert low.isnan().all() and high.isnan().all()  # one clip has no interval


def network() -> lc.Explainable:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 2 * 6 * 6, 3))
    return lc.Explainable.of(net.eval(), ["0"])


def test_statistics_are_those_of_the_clips_one_by_one() -> None:
    model, clip = network(), clip_of(7, 3, 4, 8, 8)
    heat = clip_of(7, 4, 8, 8, seed=1)
    metric = Insertion(steps=5)
    for rows in (slice(0, 3), slice(3, 4), slice(4, 7)):
        metric.update(model, clip[rows], heat[rows], 1)
    curve = lc.insertion(model, clip, heat, 1, 5)
    areas = curve.auc.double().numpy()
    found = metric.statistics()
    assert (found.clips, found.unscored) == (7, 0)
    assert found.mean == pytest.approx(areas.mean(), abs=1e-7)
    assert found.std == pytest.approx(areas.std(ddof=1), abs=1e-7)
    half = 2.4469118 * areas.std(ddof=1) / math.sqrt(7)
    assert (found.high - found.mean, found.mean - found.low) == pytest.approx(
        (half, half), abs=1e-7
    )
    points = curve.score.double().numpy()
    _, mean, low, high = metric.curve()
    np.testing.assert_allclose(mean, points.mean(0), atol=1e-6)
    half = 2.4469118 * points.std(0, ddof=1) / math.sqrt(7)
    np.testing.assert_allclose(high - mean, half, atol=1e-6)
    np.testing.assert_allclose(mean - low, half, atol=1e-6)
    single = [lc.insertion(model, clip[i : i + 1], heat[i : i + 1], 1, 5) for i in range(7)]
    assert summarise(single)[0].mean == pytest.approx(found.mean, abs=1e-6)
    metric.reset()
    metric.update(model, clip[:1], heat[:1], 1)
    assert metric.compute().item() == pytest.approx(areas[0], abs=1e-6)


def test_shared_ends_save_forwards_and_change_nothing() -> None:
    model, clip, heat = network(), clip_of(2, 3, 4, 8, 8), clip_of(2, 4, 8, 8, seed=1)
    alone = Deletion(steps=5), Insertion(steps=5)
    shared = Deletion(steps=5), Insertion(steps=5)
    ends = lc.Ends.of(model, clip, 2, protocol=shared[0].protocol)
    runs = 0

    def count(_module: nn.Module, args: tuple[Tensor]) -> None:
        nonlocal runs
        runs += len(args[0]) // 2

    handle = model.module.register_forward_pre_hook(count)
    for metric in shared:
        metric.update(model, clip, heat, 2, ends)
    handle.remove()
    assert runs == 2 * 4
    for a, b in zip(alone, shared, strict=True):
        a.update(model, clip, heat, 2)
        assert torch.equal(a.compute(), b.compute())


def test_clips_without_a_score_are_counted() -> None:
    model, clip, heat = network(), clip_of(3, 3, 4, 8, 8), clip_of(3, 4, 8, 8, seed=1)
    whole = deletion(model, clip, heat, 0, 5).auc
    heat[1, 2, 3, 4] = torch.nan
    metric = Deletion(steps=5)
    metric.update(model, clip, heat, 0)
    found = metric.statistics()
    assert (found.clips, found.unscored) == (2, 1)
    assert found.mean == pytest.approx(float((whole[0] + whole[2]) / 2), abs=1e-6)
    assert heat[1, 2, 3, 4].isnan()  # the caller's map is as it was

    model, clip = of_weights(torch.ones(SIZE))
    flat = Deletion(steps=5, deleted="black", normalised=True)
    flat.update(model, torch.zeros_like(clip), ramp()[None].double(), 0)
    assert flat.statistics().unscored == 1 and flat.compute().isnan()
    flat.update(model, clip, ramp()[None].double(), 0)
    assert flat.statistics().clips == 1 and flat.compute().item() == pytest.approx(0.5)


def test_no_clips_have_no_mean() -> None:
    metric = Deletion()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert metric.compute().isnan()
    assert metric.statistics().clips == 0 and metric.curve().mean.isnan().all()
    with pytest.raises(ValueError, match="no curves"):
        summarise([])


def test_least_relevant_first_turns_round_what_is_better() -> None:
    assert (Deletion.higher_is_better, Insertion.higher_is_better) == (False, True)
    assert Deletion(order="least").higher_is_better is True
    assert Insertion("rise", order="least").higher_is_better is False
    assert Deletion().higher_is_better is False


def test_settings_are_the_protocol_s_or_torchmetrics_own() -> None:
    metric = Deletion("bayer2022", unit="frame", steps=4, sync_on_compute=False)
    assert (metric.protocol.inserted, metric.protocol.unit) == ("zoom", "frame")
    assert metric.sync_on_compute is False
    with pytest.raises(UnknownNameError, match="protocol 'rice'"):
        Deletion("rice")
    with pytest.raises(ValueError, match="stps"):
        Deletion(stps=3)


def test_clips_of_different_sizes_share_a_curve() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(3, 3, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    model = lc.Explainable.of(net.eval(), ["0"])
    metric = Deletion(voxels=16, deleted="mean")  # as many steps as it takes
    areas = []
    for size in (8, 10):
        clip, heat = clip_of(1, 3, 4, size, size), clip_of(1, 4, size, size, seed=1)
        metric.update(model, clip, heat, 0)
        areas.append(float(deletion(model, clip, heat, 0, voxels=16, deleted="mean").auc))
    assert metric.compute().item() == pytest.approx(np.mean(areas), abs=1e-6)
    assert metric.curve().mean.shape == (101,) and metric.curve().low.isfinite().all()


@pytest.mark.parametrize(
    ("dof", "expected"),  # printed tables
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (9, 2.2622), (30, 2.0423), (120, 1.9799)],
)
def test_student_s_t(dof: int, expected: float) -> None:
    assert student(dof) == pytest.approx(expected, abs=6e-5)


def test_student_s_t_falls_to_the_normal_s() -> None:
    values = [student(n) for n in (198, 199, 200, 201, 202, 10**7)]
    assert values == sorted(values, reverse=True)
    steps = -np.diff(values[:5])
    assert steps.max() / steps.min() < 1.05  # no jump where the formula changes
    assert values[-1] == pytest.approx(1.959964, abs=1e-6)


def shared_clips() -> tuple[lc.Explainable, Tensor, Tensor]:
    return network(), clip_of(3, 3, 4, 8, 8), clip_of(3, 4, 8, 8, seed=1)


def one_rank(rank: int, folder: Path, clips: tuple[int, ...]) -> None:
    """Rank 0 has the first clips, rank 1 the rest, which may be none."""
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    model, clip, heat = shared_clips()
    heat[0, 0, 0, 0] = torch.inf
    first, count = sum(clips[:rank]), clips[rank]
    metric = Deletion(steps=5)
    for i in range(first, first + count):
        metric.update(model, clip[i : i + 1], heat[i : i + 1], 0)
    found = metric.statistics(), metric.curve(), metric.statistics()
    torch.save(
        (vars(found[0]), tuple(found[1]), vars(found[2]), int(metric.clips)), folder / f"{rank}.pt"
    )
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("clips", [(2, 1), (3, 0)])
def test_two_ranks_know_what_one_would(tmp_path: Path, clips: tuple[int, int]) -> None:
    mp.start_processes(one_rank, (tmp_path, clips), nprocs=2, start_method="fork")
    model, clip, heat = shared_clips()
    heat[0, 0, 0, 0] = torch.inf
    alone = Deletion(steps=5)
    alone.update(model, clip, heat, 0)
    for rank in (0, 1):
        numbers, curve, again, own = torch.load(tmp_path / f"{rank}.pt")
        assert numbers == again  # what was synchronised is given back
        assert own == max(clips[rank] - (rank == 0), 0)
        for key, value in vars(alone.statistics()).items():
            assert numbers[key] == pytest.approx(value, abs=1e-6), key
        for a, b in zip(curve, alone.curve(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert isinstance(alone.statistics(), Statistics)
