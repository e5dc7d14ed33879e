"""Trajectories of known error: what the published measures make of them."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_cam.geometry import invert, pose_matrix
from lightning_cam.metrics import (
    SnippetErrors,
    TrajectoryErrors,
    align_trajectories,
    chain,
    constant_velocity,
    kitti_errors,
    snippet_errors,
    umeyama,
)

SEEDS = st.integers(0, 1000)
RMSE = {"rmse", "t_rel", "r_rel"}


def motions(*shape: int, seed: int = 0, size: float = 0.3) -> Tensor:
    """Random motions `(*shape, 4, 4)`."""
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(*shape, 6, generator=generator, dtype=torch.float64)
    return pose_matrix(size * vector)


def moved(z: float = 1.0, yaw: float = 0.0) -> Tensor:
    """The motion T_{t->t+1} of a camera that goes z forward, then turns by yaw."""
    step = torch.tensor([0, 0, z, 0, 0, 0], dtype=torch.float64)
    turn = torch.tensor([0, 0, 0, 0, yaw, 0], dtype=torch.float64)
    return invert(pose_matrix(step) @ pose_matrix(turn))


def scaled(poses: Tensor, factor: float) -> Tensor:
    poses = poses.clone()
    poses[..., :3, 3] *= factor
    return poses


def floats(found: dict[str, Tensor]) -> dict[str, float]:
    assert {value.dtype for value in found.values()} == {torch.float32}
    return {name: value.item() for name, value in found.items()}


# Poses


def test_a_chain_of_motions_is_the_trajectory() -> None:
    poses = chain(motions(9, seed=1))  # any trajectory from the identity
    between = invert(poses[1:]) @ poses[:-1]  # T_{t->t+1} = inv(P_{t+1}) P_t
    torch.testing.assert_close(chain(between), poses, rtol=0, atol=1e-13)
    assert chain(between[:0]).tolist() == torch.eye(4)[None].tolist()
    batch = torch.stack([between, between.flip(0)])
    torch.testing.assert_close(chain(batch)[1], chain(between.flip(0)))


def test_a_chain_goes_where_the_camera_goes() -> None:
    quarter = chain(moved(2.0, math.pi / 2).expand(4, 4, 4))
    places = quarter[:, :3, 3]  # a square: forward, right, back, left
    expected = torch.tensor([[0, 0, 0], [0, 0, 2], [2, 0, 2], [2, 0, 0], [0, 0, 0]]).double()
    torch.testing.assert_close(places, expected, rtol=0, atol=1e-14)


def test_a_snippet_from_its_middle_frame() -> None:
    """P_i = T_{c->0} T_{c->i}^-1, what a network that sees the middle frame predicts."""
    world = chain(motions(4, seed=2)) @ motions(seed=3)
    to_sources = invert(world) @ world[2]  # T_{c->i}
    prediction = to_sources[0] @ invert(to_sources)
    torch.testing.assert_close(prediction, invert(world[0]) @ world, rtol=0, atol=1e-14)
    ate, re = snippet_errors(prediction, world)
    assert ate < 1e-14 and re < 1e-14


def test_constant_velocity_is_the_mean_motion() -> None:
    steady = moved(0.7, 0.02)
    torch.testing.assert_close(constant_velocity(steady.expand(5, 4, 4)), steady)
    apart = torch.stack([moved(1.0), moved(2.0)])
    assert constant_velocity(apart)[:3, 3].tolist() == pytest.approx([0, 0, -1.5])
    turns = torch.tensor([[0, 0, 0, 0, 0.1, 0], [0, 0, 0, 0, 0.3, 0]], dtype=torch.float64)
    between = torch.tensor([0, 0, 0, 0, 0.2, 0], dtype=torch.float64)
    torch.testing.assert_close(constant_velocity(pose_matrix(turns)), pose_matrix(between))


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_the_mean_motion_is_rigid_and_turns_with_the_axes(seed: int) -> None:
    some, frame = motions(7, seed=seed), motions(seed=seed + 1)
    mean = constant_velocity(some)
    torch.testing.assert_close(mean @ invert(mean), torch.eye(4).double(), rtol=0, atol=1e-12)
    assert torch.det(mean[:3, :3]).item() == pytest.approx(1)
    frame[:3, 3] = 0
    torch.testing.assert_close(
        constant_velocity(frame @ some @ invert(frame)), frame @ mean @ invert(frame)
    )


def test_broken_motions_are_left_out_of_the_mean() -> None:
    some = motions(4)
    some[2, 0, 3] = torch.nan
    torch.testing.assert_close(constant_velocity(some), constant_velocity(some[[0, 1, 3]]))
    assert constant_velocity(some[2:3]).isnan().all()
    assert constant_velocity(some[:0]).shape == (4, 4)


# Snippets


def test_a_snippet_by_hand() -> None:
    truth = torch.eye(4).repeat(3, 1, 1)
    truth[1, :3, 3] = torch.tensor([0.0, 0.0, 1.0])
    truth[2, :3, 3] = torch.tensor([0.0, 0.0, 2.0])
    prediction = truth.clone()
    prediction[1, :3, 3] = torch.tensor([1.0, 0.0, 0.0])
    prediction[2, :3, 3] = torch.tensor([0.0, 0.0, 1.0])
    prediction[2] @= pose_matrix(torch.tensor([0, 0, 0, 0, 0.3, 0]))
    # scale <g, p> / <p, p> = 2 / 2: (1, 0, 0) - (0, 0, 1) and (0, 0, 1) - (0, 0, 2) are left
    ate, re = snippet_errors(prediction, truth)
    assert ate.item() == pytest.approx(math.sqrt(3) / 3, abs=1e-7)
    assert re.item() == pytest.approx(0.3 / 3, abs=1e-7)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, factor=st.floats(1e-3, 1e3), frames=st.sampled_from([3, 5]))
def test_neither_the_world_nor_the_scale_matters(seed: int, factor: float, frames: int) -> None:
    truth, prediction = (chain(motions(2, frames - 1, seed=seed + i)) for i in (0, 1))
    ate, re = snippet_errors(prediction, truth)
    here, there = motions(seed=seed + 2), motions(2, 1, seed=seed + 3)
    for p, g in ((scaled(prediction, factor), truth), (here @ prediction, there @ truth)):
        again = snippet_errors(p, g)
        torch.testing.assert_close(again[0], ate, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(again[1], re, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(snippet_errors(prediction, scaled(truth, 3))[0], 3 * ate)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, scale=st.floats(0.01, 10))
def test_no_other_scale_is_better_and_ate_is_rmse_by_root_n(seed: int, scale: float) -> None:
    truth, prediction = (chain(motions(4, seed=seed + i)) for i in (0, 1))
    ate = snippet_errors(prediction, truth)[0]
    apart = truth[:, :3, 3] - scale * prediction[:, :3, 3]
    rmse = apart.square().sum(1).mean().sqrt()
    assert ate * math.sqrt(5) <= rmse + 1e-12
    mended = align_trajectories(prediction, truth, "scale")[:, :3, 3] - truth[:, :3, 3]
    torch.testing.assert_close(ate * math.sqrt(5), mended.square().sum(1).mean().sqrt())


def test_rotation_errors_are_angles_whatever_the_axis() -> None:
    truth = chain(motions(4, seed=4))
    for axis in range(3):
        for angle in (1e-9, 0.2, 3.0):
            vector = torch.zeros(6, dtype=torch.float64)
            vector[3 + axis] = angle
            prediction = torch.cat([truth[:1], truth[1:] @ pose_matrix(vector)])
            re = snippet_errors(prediction, truth)[1].item()
            assert re == pytest.approx(angle * 4 / 5, rel=1e-6)


def test_a_camera_predicted_to_stand_has_the_whole_error() -> None:
    truth = chain(moved(0.5).expand(4, 4, 4))
    still = torch.eye(4).expand_as(truth)
    by_hand = 0.5 * math.sqrt(1 + 4 + 9 + 16) / 5
    assert snippet_errors(still, truth)[0].item() == pytest.approx(by_hand)
    metric = SnippetErrors()
    metric.update(chain(moved(0.1).expand(2, 4, 4, 4)), truth.expand(2, 5, 4, 4))
    found = floats(metric.compute())
    assert found == pytest.approx(
        {"ate": 0, "ate_std": 0, "re": 0, "re_std": 0, "snippets": 2, "unscored": 0}
        | {"zero/ate": by_hand},
        abs=1e-6,
    )


def test_baselines_are_predictions() -> None:
    drive = chain(torch.stack([moved(1.0, 0.05), moved(1.2, -0.05)]).repeat(20, 1, 1))
    true_motions = invert(drive[1:]) @ drive[:-1]
    truth = torch.stack([drive[i : i + 5] for i in range(len(drive) - 4)])
    steady, metric = constant_velocity(true_motions), SnippetErrors()
    metric.update(chain(steady.expand(4, 4, 4)).expand_as(truth), truth)
    found = floats(metric.compute())
    assert 0 < found["ate"] < found["zero/ate"] / 10
    assert found["snippets"] == 37


def test_mean_and_spread_of_snippets() -> None:
    truth = chain(motions(6, 4, seed=5))
    prediction = chain(motions(6, 4, seed=6))
    ate, re = snippet_errors(prediction, truth)
    metric = SnippetErrors()
    for i in (3, 0, 5, 1, 4, 2):  # any order, any batches
        metric.update(prediction[i : i + 1].float(), truth[i : i + 1].float())
    found = floats(metric.compute())
    assert found["ate"] == pytest.approx(ate.mean().item(), rel=1e-5)
    assert found["ate_std"] == pytest.approx(ate.std(correction=0).item(), rel=1e-5)
    assert found["re"] == pytest.approx(re.mean().item(), rel=1e-5)
    assert found["re_std"] == pytest.approx(re.std(correction=0).item(), rel=1e-5)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_snippets_without_truth_and_without_prediction(wrong: float) -> None:
    truth, prediction = chain(motions(4, 4, seed=7)), chain(motions(4, 4, seed=8))
    truth[0, 3], prediction[0, 2] = torch.nan, wrong  # neither
    truth[1, 0] = torch.nan
    prediction[2, 4, 1, 3] = wrong
    metric, alone = SnippetErrors(), SnippetErrors()
    metric.update(prediction, truth)
    alone.update(prediction[3:], truth[3:])
    assert floats(metric.compute()) == floats(alone.compute()) | {"unscored": 1}
    assert snippet_errors(prediction, truth)[0].isnan().tolist() == [True, True, True, False]


def test_no_snippets() -> None:
    metric = SnippetErrors()
    metric.update(torch.zeros(0, 5, 4, 4), torch.zeros(0, 5, 4, 4))
    found = floats(metric.compute())
    assert (found.pop("snippets"), found.pop("unscored")) == (0, 0)
    assert all(map(math.isnan, found.values()))


# Alignment


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, scale=st.floats(0.01, 100))
def test_umeyama_finds_the_similarity(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    motion = motions(seed=seed, size=2.0)
    rotation, translation = motion[:3, :3], motion[:3, 3]
    found = umeyama(x, scale * x @ rotation.T + translation)
    assert found.scale.item() == pytest.approx(scale, rel=1e-12)
    torch.testing.assert_close(found.rotation, rotation, rtol=0, atol=1e-11)
    torch.testing.assert_close(found.translation, translation, rtol=0, atol=1e-11 * max(scale, 1))
    rigid = umeyama(x, x @ rotation.T + translation, scale=False)
    assert rigid.scale == 1
    torch.testing.assert_close(rigid.rotation, rotation, rtol=0, atol=1e-11)


def test_umeyama_never_mirrors() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    x *= torch.tensor([3.0, 2.0, 1.0])
    found = umeyama(x, x * torch.tensor([1.0, 1.0, -1.0]))
    assert torch.det(found.rotation).item() == pytest.approx(1)
    x = torch.eye(3).double()
    x = torch.cat([x, -x]) * torch.tensor([3.0, 2.0, 1.0])
    # a box and its mirror image: best not turned at all, and smaller: (9 + 4 - 1) / (9 + 4 + 1)
    found = umeyama(x, x * torch.tensor([1.0, 1.0, -1.0]))
    torch.testing.assert_close(found.rotation, torch.eye(3).double(), rtol=0, atol=1e-12)
    assert found.scale.item() == pytest.approx(12 / 14)


def test_points_that_do_not_move() -> None:
    y = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = umeyama(torch.ones(5, 3), y)
    assert all(part.isfinite().all() for part in found)
    torch.testing.assert_close(found.scale * found.rotation.sum(1) + found.translation, y.mean(0))


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, factor=st.floats(0.05, 20))
def test_what_each_alignment_forgives(seed: int, factor: float) -> None:
    truth = motions(seed=seed + 1) @ chain(motions(15, seed=seed))
    world = motions(seed=seed + 2)
    for mode, prediction in (
        ("scale", scaled(chain(invert(truth[1:]) @ truth[:-1]), factor)),
        ("6dof", world @ truth),
        ("7dof", scaled(world @ truth, factor)),
    ):
        torch.testing.assert_close(
            align_trajectories(prediction, truth, mode), truth, rtol=0, atol=1e-9
        )
    grown = align_trajectories(scaled(world @ truth, 2), truth, "6dof")  # a scale is an error there
    assert (grown - truth)[:, :3, 3].abs().max() > 0.01


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_seven_numbers_fit_at_least_as_well_as_six(seed: int) -> None:
    truth, prediction = (chain(motions(15, seed=seed + i)) for i in (0, 1))
    apart = {
        mode: (align_trajectories(prediction, truth, mode) - truth)[:, :3, 3].square().sum().item()
        for mode in ("scale", "6dof", "7dof")
    }
    assert apart["7dof"] <= min(apart["scale"], apart["6dof"]) + 1e-9


def test_alignment_is_checked() -> None:
    truth = chain(motions(3))
    with pytest.raises(ValueError, match="\"7dof\", got 'sim3'"):
        align_trajectories(truth, truth, "sim3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"as many true as predicted poses, got \(3, 4, 4\)"):
        align_trajectories(truth, truth[:3])
    with pytest.raises(ValueError, match=r"motions \(\.\.\., n, 4, 4\), got \(3, 3, 4\)"):
        chain(torch.zeros(3, 3, 4))
    with pytest.raises(ValueError, match=r"expected points \(n, 3\)"):
        umeyama(torch.zeros(3, 3), torch.zeros(4, 3))


# Drift


def test_a_scale_error_is_the_translation_error() -> None:
    truth = chain(moved(0.5).expand(2000, 4, 4))
    t_rel, r_rel = kitti_errors(scaled(truth, 1.01), truth)
    # a stretch ends with the first frame beyond its length: half a metre farther
    first = range(0, 2001, 10)
    lengths = [100 * k for k in range(1, 9) for i in first if i + 200 * k + 1 <= 2000]
    by_hand = sum((n + 0.5) / n for n in lengths) / len(lengths)
    assert t_rel.item() == pytest.approx(by_hand, rel=1e-9)
    assert t_rel.item() == pytest.approx(1, abs=0.005)
    assert r_rel.item() == 0
    assert kitti_errors(truth, truth)[0].item() == 0


def test_a_steady_turn_is_the_rotation_error() -> None:
    truth = chain(moved(1.0).expand(400, 4, 4))
    degrees = 0.02  # a metre
    prediction = chain(moved(1.0, math.radians(degrees)).expand(400, 4, 4))
    _, r_rel = kitti_errors(prediction, truth, lengths=(100,))
    assert r_rel.item() == pytest.approx(101 * degrees, rel=1e-9)  # per 100 m


def test_lengths_are_along_the_path() -> None:
    """On a circle one never gets far from the start."""
    circle = chain(moved(1.0, 2 * math.pi / 60).expand(240, 4, 4))
    t_rel, r_rel = kitti_errors(scaled(circle, 1.5), circle, lengths=(59.5,), step=60)
    assert t_rel.item() == pytest.approx(0, abs=1e-9)  # back after 60 m, whatever the scale
    assert r_rel.item() == pytest.approx(0, abs=1e-9)
    t_rel, _ = kitti_errors(scaled(circle, 1.5), circle, lengths=(29.5,), step=60)
    across = 1 / math.sin(math.pi / 60)  # a chord of 60 corners
    assert t_rel.item() == pytest.approx(100 * 0.5 * across / 29.5)


@pytest.mark.parametrize(("step", "stretches"), [(10, 1), (1, 10), (4, 3)])
def test_stretches_begin_at_every_step(step: int, stretches: int) -> None:
    """Of 111 frames, a metre apart, ten have more than 100 m to go."""
    truth = moved(1.0).expand(110, 4, 4)
    prediction = truth.clone()
    prediction[0, 2, 3] *= 2  # a metre too many, for the first stretch alone
    t_rel, _ = kitti_errors(chain(prediction), chain(truth), lengths=(100,), step=step)
    assert t_rel.item() == pytest.approx(1 / stretches)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_drift_does_not_depend_on_the_worlds(seed: int) -> None:
    truth, prediction = (chain(motions(60, seed=seed + i)) for i in (0, 1))
    drift = kitti_errors(prediction, truth, lengths=(2, 5), step=3)
    here, there = motions(seed=seed + 2), motions(seed=seed + 3)
    again = kitti_errors(here @ prediction, there @ truth, lengths=(2, 5), step=3)
    assert torch.stack(drift).isfinite().all()
    torch.testing.assert_close(torch.stack(again), torch.stack(drift), rtol=1e-7, atol=1e-9)


def test_too_short_a_path_has_no_drift() -> None:
    truth = chain(moved(1.0).expand(100, 4, 4))
    assert all(value.isnan() for value in kitti_errors(truth, truth))  # just 100 m, not beyond
    assert kitti_errors(truth, truth, lengths=(99,))[0] == 0
    assert all(value.isnan() for value in kitti_errors(truth[:0], truth[:0]))


# Sequences


def steps_of(seed: int, n: int = 12) -> tuple[Tensor, Tensor]:
    return motions(n, seed=seed), motions(n, seed=seed + 100)


def whole(metric: TrajectoryErrors, sequence: int, prediction: Tensor, truth: Tensor) -> None:
    n = len(prediction)
    metric.update(torch.full((n,), sequence), torch.arange(n), prediction, truth)


def test_sequences_are_put_together() -> None:
    metric = TrajectoryErrors(lengths=(1, 2))
    expected = []
    for sequence in (3, 9):
        prediction, truth = steps_of(sequence)
        whole(metric, sequence, prediction, truth)
        poses, true = chain(prediction), chain(truth)
        aligned = align_trajectories(poses, true)
        rmse = (aligned - true)[:, :3, 3].square().sum(1).mean().sqrt()
        expected.append(torch.stack([rmse, *kitti_errors(aligned, true, (1, 2))]))
        torch.testing.assert_close(metric.trajectories()[sequence], (aligned, true))
    found = floats(metric.compute())
    mean = torch.stack(expected).mean(0).tolist()
    assert [found[name] for name in ("rmse", "t_rel", "r_rel")] == pytest.approx(mean, rel=1e-6)
    assert (found["frames"], found["left_out"]) == (26, 0)


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(12)), again=st.lists(st.integers(0, 11), max_size=4))
def test_order_and_repetition_do_not_matter(order: list[int], again: list[int]) -> None:
    prediction, truth = steps_of(0)
    metric, alone = TrajectoryErrors(), TrajectoryErrors()
    whole(alone, 7, prediction, truth)
    rows = torch.tensor(order + again)
    for some in rows.split(5):
        metric.update(torch.full_like(some, 7), some, prediction[some], truth[some])
    torch.testing.assert_close(metric.trajectories()[7], alone.trajectories()[7])
    assert str(floats(metric.compute())) == str(floats(alone.compute()))


def test_a_perfect_prediction_of_another_scale() -> None:
    truth = moved(1.0, 0.01).expand(300, 4, 4)
    metric = TrajectoryErrors()
    whole(metric, 0, scaled(truth, 0.03).float(), truth.float())
    found = floats(metric.compute())
    assert found["rmse"] < 1e-2 and found["t_rel"] < 1e-3 and found["r_rel"] < 1e-3
    rigid = TrajectoryErrors("6dof")
    straight = moved(1.0).expand(300, 4, 4)
    whole(rigid, 0, scaled(straight, 0.5), straight)
    assert floats(rigid.compute())["t_rel"] == pytest.approx(50, abs=0.5)


def test_a_hole_leaves_the_longest_stretch() -> None:
    prediction, truth = steps_of(1)
    prediction[4] = torch.nan  # frames 0 to 3, and 5 to 11
    metric, alone = TrajectoryErrors(), TrajectoryErrors()
    whole(metric, 2, prediction, truth)
    whole(alone, 2, prediction[5:], truth[5:])
    torch.testing.assert_close(metric.trajectories()[2], alone.trajectories()[2])
    found, expected = floats(metric.compute()), floats(alone.compute())
    assert str(found) == str(expected | {"left_out": 5.0})
    assert found["frames"] == 8


def test_sequences_without_truth_do_not_count() -> None:
    prediction, truth = steps_of(1)
    metric, alone = TrajectoryErrors(), TrajectoryErrors()
    whole(metric, 11, prediction, torch.full_like(truth, torch.nan))
    for each in (metric, alone):
        whole(each, 10, prediction, truth)
    assert str(floats(metric.compute())) == str(floats(alone.compute()))
    assert set(metric.trajectories()) == {10}


def test_drift_is_of_the_sequences_that_are_long_enough() -> None:
    metric = TrajectoryErrors("6dof", lengths=(10,))
    for sequence, n in ((0, 30), (1, 5)):
        whole(metric, sequence, scaled(moved(1.0), 1.1).expand(n, 4, 4), moved(1.0).expand(n, 4, 4))
    found = floats(metric.compute())
    assert found["t_rel"] == pytest.approx(11)
    assert found["frames"] == 37


def test_no_sequences() -> None:
    metric = TrajectoryErrors()
    none = torch.zeros(0)
    metric.update(none, none, torch.zeros(0, 4, 4), torch.zeros(0, 4, 4))
    found = floats(metric.compute())
    assert all(math.isnan(found[name]) for name in RMSE)
    assert (found["frames"], found["left_out"]) == (0, 0)
    assert metric.trajectories() == {}


def test_a_reset_metric_begins_again() -> None:
    metric = TrajectoryErrors()
    whole(metric, 0, *steps_of(0))
    assert set(metric.trajectories()) == {0}
    metric.reset()
    whole(metric, 1, *steps_of(1))
    assert set(metric.trajectories()) == {1}


# Frames of each rank: in turn, one of them on both as a sampler pads; or all on one rank.
SHARES = (((*range(0, 12, 2), 1), tuple(range(1, 12, 2))), (tuple(range(12)), ()))


def one_rank(rank: int, folder: Path) -> None:
    warnings.filterwarnings("ignore", "The ``compute`` method")  # of a rank without clips
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    prediction, truth = steps_of(0)
    prediction[11] = torch.nan
    found = []
    for shares in SHARES:
        snippets, drives = SnippetErrors(), TrajectoryErrors(lengths=(1,))
        for i in shares[rank]:
            rows = slice(i, i + 1)
            drives.update(torch.tensor([4]), torch.tensor([i]), prediction[rows], truth[rows])
            snippets.update(chain(prediction[rows])[None], chain(truth[rows])[None])
        before = drives.trajectories()
        found.append((drives.compute(), snippets.compute(), before, drives.trajectories()))
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_know_what_one_would(tmp_path: Path) -> None:
    mp.start_processes(one_rank, (tmp_path,), nprocs=2, start_method="fork")
    prediction, truth = steps_of(0)
    alone = TrajectoryErrors(lengths=(1,))
    whole(alone, 4, prediction[:11], truth[:11])
    for rank in (0, 1):
        for shares, known in zip(SHARES, torch.load(tmp_path / f"{rank}.pt"), strict=True):
            drives, snippets, before, after = known
            expected = floats(alone.compute()) | {"left_out": 1}
            assert floats(drives) == pytest.approx(expected, rel=1e-6)
            for trajectories in (before, after):
                torch.testing.assert_close(trajectories, alone.trajectories())
            metric = SnippetErrors()
            for i in (*shares[0], *shares[1]):  # without a number, one on both ranks counts twice
                if i != 11:
                    metric.update(chain(prediction[i : i + 1])[None], chain(truth[i : i + 1])[None])
            expected = floats(metric.compute()) | {"unscored": 1}
            assert floats(snippets) == pytest.approx(expected, rel=1e-6, abs=1e-7)
