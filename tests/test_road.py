"""ROAD: voxels filled in from those around them, against the equations' exact solution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from nets import FoldedLSTM, clip_of, describe
from planted import Planted
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import spsolve
from torch import Tensor

import lightning_cam as lc
from lightning_cam.metrics import DeletionArea, Explained, InsertionArea, Protocol, measure
from lightning_cam.metrics.deletion_insertion import Ends
from lightning_cam.metrics.road import imputed

T, H, W = 3, 20, 27


def ramp(*slopes: float, size: tuple[int, int, int] = (T, H, W)) -> Tensor:
    """`(1, 1, T, H, W)`, linear in t, y and x."""
    axes = torch.meshgrid(*map(torch.arange, size), indexing="ij")
    return sum(s * a.float() for s, a in zip(slopes, axes, strict=True))[None, None]  # type: ignore[index]


def within(t: slice, y: slice, x: slice) -> Tensor:
    away = torch.zeros(1, T, H, W, dtype=torch.bool)
    away[0, t, y, x] = True
    return away


def random_holes(share: float, seed: int = 0) -> Tensor:
    return torch.rand(1, T, H, W, generator=torch.Generator().manual_seed(seed)) < share


HOLES = {
    "box": within(slice(None), slice(5, 14), slice(6, 22)),
    "one pixel": within(slice(1, 2), slice(9, 10), slice(9, 10)),
    "corner": within(slice(None), slice(0, 7), slice(0, 9)),
    "all but one": ~within(slice(None), slice(3, 4), slice(20, 21)),
    "half": random_holes(0.5),
    "most": random_holes(0.95),
}
holes = pytest.mark.parametrize("away", HOLES.values(), ids=HOLES)


def exact(clip: Tensor, away: Tensor, time: bool) -> Tensor:
    """One channel of one clip by a sparse solver, from the definition."""
    values, hidden = clip[0, 0].double().numpy(), away[0].numpy()
    places = {tuple(p): i for i, p in enumerate(np.argwhere(hidden))}
    rows, columns, entries, right = [], [], [], np.zeros(len(places))
    offsets = [(0, y, x, 1 / 6 if y * x == 0 else 1 / 12)
               for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]  # fmt: skip
    offsets += [(t, 0, 0, 1 / 6) for t in (-1, 1)] if time else []
    for place, i in places.items():
        total = 0.0
        for *offset, weight in offsets:
            other = tuple(np.add(place, offset))
            if not all(0 <= p < n for p, n in zip(other, hidden.shape, strict=True)):
                continue
            total += weight
            if other in places:
                rows, columns, entries = [*rows, i], [*columns, places[other]], [*entries, -weight]
            else:
                right[i] += weight * values[other]
        rows, columns, entries = [*rows, i], [*columns, i], [*entries, total]
    found = values.copy()
    found[hidden] = spsolve(csr_matrix((entries, (rows, columns))), right)
    return torch.from_numpy(found)[None, None].float()


@pytest.mark.parametrize("time", [False, True])
@pytest.mark.parametrize("name", ["box", "corner", "half", "most"])
def test_it_solves_the_paper_s_equations(name: str, time: bool) -> None:
    clip = clip_of(1, 1, T, H, W)
    found = imputed(clip, HOLES[name], time=time, noise=0)
    torch.testing.assert_close(found, exact(clip, HOLES[name], time), rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", ["box", "one pixel"])
@pytest.mark.parametrize("slopes", [(0, 1, 0), (0, -0.3, 0.7), (5, 1, 2)])
def test_a_ramp_is_filled_in_as_it_was(name: str, slopes: tuple[float, ...]) -> None:
    clip = ramp(*slopes)
    found = imputed(clip, HOLES[name], noise=0)
    assert (found - clip).abs().max() < 1e-3 * (clip.max() - clip.min())


def test_a_large_hole_in_a_large_frame_is_filled_in_as_well() -> None:
    clip = ramp(0, 1, 0.5, size=(1, 112, 112))
    y, x = torch.meshgrid(torch.arange(112), torch.arange(112), indexing="ij")
    away = ((y - 50) ** 2 + (x - 60) ** 2 < 40**2)[None, None]
    found = imputed(clip, away, noise=0)
    assert (found - clip).abs().max() < 1e-3 * (clip.max() - clip.min())


@holes
@pytest.mark.parametrize("time", [False, True])
def test_a_constant_frame_stays_exactly_what_it_was(away: Tensor, time: bool) -> None:
    clip = torch.tensor([0.1, -7.3])[None, :, None, None, None].expand(1, 2, T, H, W)
    assert torch.equal(imputed(clip, away, time=time, noise=0), clip)
    assert torch.equal(imputed(clip[:, :1], away, time=time), clip[:, :1])  # no range, no noise
    moving = torch.arange(3.0)[None, None, :, None, None].expand(1, 1, T, H, W)
    if not away.flatten(2).all(2).any():  # each frame shows its colour somewhere
        found = imputed(moving, away, noise=0)
        torch.testing.assert_close(found, moving, rtol=0, atol=1e-3)


@holes
def test_what_is_seen_stays_and_what_is_hidden_does_not_matter(away: Tensor) -> None:
    clip = clip_of(2, 3, T, H, W)
    both = away.expand(2, -1, -1, -1)
    found = imputed(clip, both)
    seen = (~both)[:, None].expand_as(clip)
    assert torch.equal(found[seen], clip[seen]) and found.isfinite().all()
    other = torch.where(seen, clip, clip.flip(1))
    assert torch.allclose(imputed(other, both, noise=0), imputed(clip, both, noise=0), atol=1e-5)
    for n in range(2):  # of a batch as alone
        alone = imputed(clip[n : n + 1], away)
        torch.testing.assert_close(alone, found[n : n + 1], rtol=0, atol=1e-5)


def test_noise_is_a_share_of_the_range_and_the_same_each_time() -> None:
    clip, away = 10 * clip_of(1, 1, T, H, W), HOLES["most"]
    found, plain = imputed(clip, away), imputed(clip, away, noise=0)
    grain = (found - plain)[away[:, None]]
    assert grain.std() == pytest.approx(0.01 * float(clip.max() - clip.min()), rel=0.1)
    assert torch.equal(found, imputed(clip, away))
    assert not torch.equal(found, imputed(clip, away, seed=1))


def test_whole_frames_and_whole_clips() -> None:
    clip = ramp(1, 0, 0)
    middle = within(slice(1, 2), slice(None), slice(None))
    flat = imputed(clip, middle, noise=0)
    torch.testing.assert_close(flat[0, 0, 1], torch.full((H, W), 1.0))  # the mean of 0 and 2
    first = within(slice(0, 1), slice(None), slice(None))
    assert torch.allclose(imputed(clip, first, noise=0)[0, 0, 0], torch.tensor(1.5))
    blended = imputed(clip, first, time=True, noise=0)[0, 0, 0]
    torch.testing.assert_close(blended, torch.full((H, W), 1.0))  # its only neighbour in time
    every = torch.ones_like(first)
    torch.testing.assert_close(imputed(clip, every, noise=0), torch.ones_like(clip))


def test_both_curves_take_it_and_end_as_they_should(planted: Planted) -> None:
    """What is planted is told from random maps, and no hole has an outline."""
    clips, labels = planted.clips[::4], planted.labels[::4]
    model = planted.model
    measures = {"deletion": DeletionArea(steps=6, reference="road"),
                "insertion": InsertionArea(steps=6, reference="road_time")}  # fmt: skip
    found = {}
    e = lc.explain(model, lambda *_: planted.mask[::4].float(), clips, labels)
    for name, heat in (("truth", e.heatmap), ("opposite", -e.heatmap)):
        explained = Explained(model, clips, replace(e, heatmap=heat))
        found[name] = measure(measures, explained)
        assert not found[name].failed
    assert (found["truth"].values["deletion"] + 0.2 < found["opposite"].values["deletion"]).all()
    assert (found["truth"].values["insertion"] > found["opposite"].values["insertion"] + 0.2).all()
    for curve in found["truth"].curves.values():
        whole, hidden = (0, -1) if curve.clip_first else (-1, 0)
        assert (curve.score[:, whole] > 0.9).all() and (curve.score[:, hidden] < 0.9).all()


def test_the_first_step_hides_the_hottest_tenth() -> None:
    seen: list[Tensor] = []

    class Sees(torch.nn.Module):
        def forward(self, clip: Tensor) -> Tensor:
            seen.append(clip.clone())
            return clip.mean((2, 3, 4))

    clip, heat = clip_of(1, 2, T, 8, 10), clip_of(1, T, 8, 10, seed=1)
    model = lc.Explainable.of(Sees(), [])
    lc.deletion(model, clip, heat, 0, 10, deleted="road", batch=1)
    hottest = heat >= heat.flatten().topk(24).values[-1]
    assert any(torch.equal(each, imputed(clip, hottest)) for each in seen)
    lc.insertion(model, clip, heat, 0, 10, inserted="road_time", batch=1)
    assert any(torch.equal(each, imputed(clip, ~hottest, time=True)) for each in seen)


def test_whole_frames_of_a_frame_network_are_filled_in_too() -> None:
    """Their features may not be reused: what a frame becomes depends on the others."""
    torch.manual_seed(0)
    model, clip = describe(FoldedLSTM().eval(), frames="trunk"), clip_of(1, 3, 4, 8, 8)
    protocol = Protocol(steps=4, unit="frame", deleted="road", inserted="road_time")
    assert not protocol.frame_wise and Protocol(unit="frame").frame_wise
    ends = Ends.of(model, clip, 1, protocol=protocol)
    assert not ends.features
    heat = torch.arange(4.0)[None, :, None, None].expand(1, 4, 8, 8)
    curve = lc.deletion(model, clip, heat, 1, protocol=protocol, ends=ends)
    with torch.no_grad():
        away = torch.arange(4)[None, :, None, None].expand(1, 4, 8, 8) >= 2
        expected = model.module(imputed(clip, away)).softmax(1)[:, 1]
    torch.testing.assert_close(curve.score[:, 2], expected)


def test_it_is_named_with_the_others() -> None:
    with pytest.raises(ValueError, match="zoom, road, road_time, got 'roads'"):
        Protocol(deleted="roads")  # type: ignore[arg-type]
    assert Protocol(deleted="road").words == "default, deleted=road"
