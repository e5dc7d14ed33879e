"""The loss without labels: the paper's equations in plain loops, and every option on paper."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import batch_of, drive, motions, network
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cam.errors import ConfigError
from lightning_cam.geometry import pose_matrix, pose_vector
from lightning_cam.models import SfMLearner
from lightning_cam.models.sfm import Views
from lightning_cam.tasks import ViewSynthesis
from lightning_cam.tasks.sfm.view_synthesis import Losses, Snippets, resize_snippets, warp_sources

SIZE = (32, 48)
SLOPE = 0.02
PLAIN = ViewSynthesis(mask_weight=0, smooth_weight=0)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def camera(height: int, width: int) -> Tensor:
    matrix = [[0.8 * width, 0, 0.45 * width], [0, 1.1 * height, 0.55 * height], [0, 0, 1]]
    return torch.tensor(matrix, dtype=torch.float64)


def random_case(
    rows: int = 2, sources: int = 2, size: tuple[int, int] = SIZE, masks: bool = True, seed: int = 0
) -> tuple[Views, Snippets]:
    """Noise seen from cameras that move so much that some of it leaves the image."""
    height, width = size
    shapes = [(height // 2**s, width // 2**s) for s in range(4)]
    views = Views(
        [0.2 + 0.4 * noise(rows, 1, *shape, seed=seed + 1) for shape in shapes],
        0.5 * noise(rows, sources, 6, seed=seed + 2) - 0.25,
        [0.1 + 0.8 * noise(rows, sources, *shape, seed=seed + 3) for shape in shapes]
        if masks
        else None,
        [0.2 + 0.4 * noise(rows, sources, 1, *shape, seed=seed + 4) for shape in shapes],
    )
    snippets = Snippets(
        2 * noise(rows, 3, *size, seed=seed + 5) - 1,
        2 * noise(rows, sources, 3, *size, seed=seed + 6) - 1,
        camera(*size).repeat(rows, 1, 1),
    )
    return views, snippets


def still(disparity: float, rows: int = 1, sources: int = 2, scales: int = 4) -> Views:
    """Cameras that do not move, before a wall."""
    maps = [torch.full((rows, 1, SIZE[0] // 2**s, SIZE[1] // 2**s), disparity) for s in range(4)]
    return Views(
        [d.double() for d in maps[:scales]],
        torch.zeros(rows, sources, 6, dtype=torch.float64),
        None,
    )


def flat(*levels: Any) -> Tensor:
    """Images of two halves `(1, 3, H, W)`: (left, right), or one level."""
    pairs = [level if isinstance(level, tuple) else (level, level) for level in levels]
    half = torch.ones(3, SIZE[0], SIZE[1] // 2, dtype=torch.float64)
    return torch.stack([torch.cat([a * half, b * half], -1) for a, b in pairs])


def ramp(shift: float) -> Tensor:
    """An image `(1, 3, H, W)` that grows to the right, `shift` pixels further on."""
    return SLOPE * (torch.arange(SIZE[1]).double() + shift).expand(1, 3, *SIZE)


def snippets_of(target: Tensor, *sources: Tensor) -> Snippets:
    return Snippets(target, torch.stack(sources, 1), camera(*SIZE).repeat(len(target), 1, 1))


# The paper's equations ----------------------------------------------------------------------------


def loop_euler(angles: Any) -> np.ndarray:
    x, y, z = (float(a) for a in angles)
    rx = [[1, 0, 0], [0, math.cos(x), -math.sin(x)], [0, math.sin(x), math.cos(x)]]
    ry = [[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]]
    rz = [[math.cos(z), -math.sin(z), 0], [math.sin(z), math.cos(z), 0], [0, 0, 1]]
    return np.array(rx) @ np.array(ry) @ np.array(rz)


def loop_mean(image: np.ndarray, n: int) -> np.ndarray:
    """(C, H, W) in blocks of n x n."""
    c, h, w = image.shape
    return image.reshape(c, h // n, n, w // n, n).mean((2, 4))


def loop_photometric(
    target: np.ndarray, source: np.ndarray, depth: np.ndarray, pose: Any, k: np.ndarray, e: Any
) -> float:
    """Mean over pixels and channels of E V |I_t - I_s(warped)|, pixel by pixel."""
    _, h, w = target.shape
    rotation, translation = loop_euler(pose[3:]), np.asarray(pose[:3])
    total, inverse = 0.0, np.linalg.inv(k)
    for v in range(h):
        for u in range(w):
            point = depth[v, u] * inverse @ np.array([u, v, 1.0])
            x, y, z = k @ (rotation @ point + translation)
            if z < 1e-3:
                continue
            x, y = x / z, y / z
            if not (0 <= x <= w - 1 and 0 <= y <= h - 1):
                continue
            i, j = min(int(y), h - 2), min(int(x), w - 2)
            a, b = y - i, x - j
            seen = (1 - a) * ((1 - b) * source[:, i, j] + b * source[:, i, j + 1]) + a * (
                (1 - b) * source[:, i + 1, j] + b * source[:, i + 1, j + 1]
            )
            total += float(e[v, u]) * float(np.abs(target[:, v, u] - seen).sum())
    return total / target.size


def loop_smooth(field: np.ndarray) -> float:
    h, w = field.shape
    f = field
    xx = [f[v, u] - 2 * f[v, u + 1] + f[v, u + 2] for v in range(h) for u in range(w - 2)]
    yy = [f[v, u] - 2 * f[v + 1, u] + f[v + 2, u] for v in range(h - 2) for u in range(w)]
    xy = [
        f[v, u] - f[v, u + 1] - f[v + 1, u] + f[v + 1, u + 1]
        for v in range(h - 1)
        for u in range(w - 1)
    ]
    return float(sum(np.abs(terms).mean() for terms in (xx, xy, xy, yy)))


@pytest.mark.parametrize(("smooth", "base"), [("depth", 2.3), ("disparity", 2.0)])
def test_the_loss_is_that_of_the_paper_in_plain_loops(smooth: Any, base: float) -> None:
    views, snippets = random_case(rows=2, sources=2, size=(24, 32), seed=10)
    found = ViewSynthesis(mask_weight=0.3, smooth_weight=0.7, smooth=smooth)(views, snippets)
    for r in range(2):
        photometric, mask, smoothness = np.zeros(2), 0.0, 0.0
        for s in range(4):
            n = 2**s
            k = snippets.intrinsics[r].numpy().copy()
            k[:2] /= n
            k[:2, 2] += 0.5 / n - 0.5  # the same pixel centres
            disparity = views.disparities[s][r, 0].numpy()
            e = views.masks[s][r].numpy()
            target = loop_mean(snippets.target[r].numpy(), n)
            for i in range(2):
                source = loop_mean(snippets.sources[r, i].numpy(), n)
                pose = views.poses[r, i].numpy()
                photometric[i] += loop_photometric(target, source, 1 / disparity, pose, k, e[i])
            mask += -np.log(e).mean()
            smoothness += loop_smooth(1 / disparity if smooth == "depth" else disparity) / base**s
        assert found.photometric[r].numpy() == pytest.approx(photometric, rel=1e-10)
        assert float(found.view_synthesis[r]) == pytest.approx(photometric.sum(), rel=1e-10)
        assert float(found.mask[r]) == pytest.approx(mask, rel=1e-10)
        assert float(found.smooth[r]) == pytest.approx(smoothness, rel=1e-10)
        assert float(found.geometry[r]) == 0
        total = photometric.sum() + 0.3 * mask + 0.7 * smoothness
        assert float(found.total[r]) == pytest.approx(total, rel=1e-10)


def true_views(snippet: int = 3, rotation: str = "euler") -> tuple[Views, Snippets]:
    """What a perfect network would say of a drive past a plane."""
    film = drive(frames=5, height=64, width=96)
    m = snippet // 2
    steps = motions(film.poses, snippet)  # (S, N, 4, 4)
    depth = film.depth[m : 5 - m, None]
    views = Views(
        [1 / F.avg_pool2d(depth, 2**s) for s in range(4)],
        pose_vector(steps, rotation),  # type: ignore[arg-type]
        None,
    )
    target, sources = SfMLearner(nn.Identity(), nn.Identity(), snippet).snippets(film.images[None])
    return views, Snippets(target, sources, film.intrinsics.repeat(len(target), 1, 1))


@pytest.mark.parametrize("snippet", [3, 5])
@pytest.mark.parametrize("rotation", ["euler", "quat"])
def test_true_depth_and_motion_explain_the_images(snippet: int, rotation: Any) -> None:
    views, snippets = true_views(snippet, rotation)
    loss = replace(PLAIN, rotation=rotation)
    finest = views._replace(disparities=views.disparities[:1])
    motionless = torch.zeros_like(views.poses)
    warped, unmoved = (
        loss(v, snippets).view_synthesis for v in (finest, finest._replace(poses=motionless))
    )
    assert (warped < unmoved / 10).all()
    everywhere = loss(views, snippets).view_synthesis  # coarse images are poorer in detail
    assert (everywhere < loss(views._replace(poses=motionless), snippets).view_synthesis / 4).all()
    for factor in (0.7, 1.4):  # depth alone of another scale
        wrong = finest._replace(disparities=[factor * views.disparities[0]])
        assert (loss(wrong, snippets).view_synthesis > 3 * warped).all()
    for factor in (0.5, 3.0):  # both together: the scale of a scene cannot be seen
        far = [d / factor for d in finest.disparities]
        moved = torch.cat([views.poses[..., :3] * factor, views.poses[..., 3:]], -1)
        other = loss(Views(far, moved, None), snippets).view_synthesis
        torch.testing.assert_close(other, warped, rtol=1e-6, atol=1e-9)
    inverted = finest._replace(poses=-views.poses)  # roughly source -> target
    assert (loss(inverted, snippets).view_synthesis > unmoved).all()


def test_sources_keep_their_order() -> None:
    views, snippets = true_views()
    swapped = views._replace(poses=views.poses.flip(1))
    assert (
        PLAIN(swapped, snippets).photometric > 3 * PLAIN(views, snippets).photometric[:, :1]
    ).all()


# Masks and smoothness -----------------------------------------------------------------------------


@given(level=st.floats(0.01, 1))
@settings(max_examples=20, deadline=None)
def test_even_masks(level: float) -> None:
    views, snippets = random_case(masks=False)
    masks = [
        torch.full((2, 2, *d.shape[2:]), level, dtype=torch.float64) for d in views.disparities
    ]
    plain, masked = (
        ViewSynthesis(mask_weight=0.2)(v, snippets) for v in (views, views._replace(masks=masks))
    )
    assert plain.mask.eq(0).all()
    for value in masked.mask:
        assert float(value) == pytest.approx(-4 * math.log(level), abs=1e-12)
    torch.testing.assert_close(masked.photometric, level * plain.photometric)
    torch.testing.assert_close(
        masked.total, plain.total - (1 - level) * plain.view_synthesis + 0.2 * masked.mask
    )


def test_masks_learn_from_the_error() -> None:
    """View synthesis is linear in the masks: the sum of mask times gradient is the loss itself."""
    views, snippets = random_case()
    masks = [m.requires_grad_() for m in views.masks or ()]
    loss = PLAIN(views, snippets).view_synthesis
    gradients = torch.autograd.grad(loss.sum(), masks)
    again = sum((m * g).sum((1, 2, 3)) for m, g in zip(masks, gradients, strict=True))
    torch.testing.assert_close(again, loss)


def test_masks_of_one_half_cost_four_times_ln_2() -> None:
    views, snippets = random_case()
    halves = [torch.full_like(m, 0.5) for m in views.masks]
    found = ViewSynthesis()(views._replace(masks=halves), snippets).mask
    torch.testing.assert_close(found, torch.full_like(found, 4 * math.log(2)))


def fields(of: Any) -> list[Tensor]:
    """A function of (u, v) on the grids of the four scales, (1, 1, h, w)."""
    maps = []
    for s in range(4):
        v, u = torch.meshgrid(
            torch.arange(SIZE[0] // 2**s).double(),
            torch.arange(SIZE[1] // 2**s).double(),
            indexing="ij",
        )
        maps.append(of(u, v).expand_as(u)[None, None])
    return maps


def smooth_of(disparities: list[Tensor], target: Tensor, smooth: Any) -> float:
    views = still(0.3, sources=1)._replace(disparities=disparities)
    loss = ViewSynthesis(smooth=smooth, smooth_weight=2)(views, snippets_of(target, target))
    torch.testing.assert_close(loss.total, loss.view_synthesis + 2 * loss.smooth)
    return float(loss.smooth)


def test_planes_are_smooth() -> None:
    target = flat(0.2)
    planes = fields(lambda u, v: 0.5 + 0.01 * u + 0.02 * v)
    inverse = [1 / d for d in planes]
    assert smooth_of(planes, target, "disparity") == pytest.approx(0, abs=1e-13)
    assert smooth_of(inverse, target, "depth") == pytest.approx(0, abs=1e-13)
    assert smooth_of(planes, target, "depth") > 1e-3
    assert smooth_of(inverse, target, "disparity") > 1e-3
    wall = fields(lambda u, v: torch.full_like(u, 0.4))
    for smooth in ("depth", "disparity", "edges"):
        assert smooth_of(wall, target, smooth) == pytest.approx(0, abs=1e-13)


def test_curvature_counts_by_scale() -> None:
    """A paraboloid a u^2 + b v^2 + c u v has |2 a| + |2 b| + 2 |c| everywhere."""
    bowl = fields(lambda u, v: 3 + 0.01 * u**2 - 0.02 * v**2 + 0.005 * u * v)
    expected = 0.02 + 0.04 + 0.01
    target = flat(0.2)
    for smooth, base, maps in (
        ("depth", 2.3, [1 / d for d in bowl]),
        ("disparity", 2, bowl),
    ):
        by_scale = expected * sum(base**-s for s in range(4))
        assert smooth_of(maps, target, smooth) == pytest.approx(by_scale, rel=1e-10)


def test_edges_let_depth_jump() -> None:
    """|d d*| exp(-|dI|) of a step of the disparity, on and off a step of the image by 0.3."""
    w = SIZE[1]
    step = fields(lambda u, v: 0.2 + 0.4 * (u >= u.shape[1] // 2).to(u))
    for target, fall in ((flat(0.4), 1.0), (flat((0.1, 0.7)), math.exp(-0.3))):
        # d* jumps from 0.5 to 1.5, in one of w - 1 differences of each row
        expected = sum(fall / (w // 2**s - 1) / 2**s for s in range(4))
        assert smooth_of(step, target, "edges") == pytest.approx(expected, rel=1e-10)
    scaled = [7 * d for d in step]
    expected = smooth_of(step, flat(0.4), "edges")
    assert smooth_of(scaled, flat(0.4), "edges") == pytest.approx(expected, rel=1e-10)


# Options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.85, 1.0])
def test_ssim_of_even_images(share: float) -> None:
    """Even images a and b in [0, 1] have SSIM (2 a b + c1) / (a^2 + b^2 + c1)."""
    snippets = snippets_of(flat(0.2), flat(-0.6), flat(0.9))
    found = replace(PLAIN, ssim=share)(still(0.3), snippets).photometric[0]
    for value, (a, b) in zip(found, ((0.6, 0.2), (0.6, 0.95)), strict=True):
        alike = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
        unit = 1 if share else 2  # errors of SSIM are of images in [0, 1]
        expected = share * (1 - alike) / 2 + (1 - share) * unit * abs(a - b)
        assert float(value) == pytest.approx(4 * expected, rel=1e-10)


def test_ssim_of_the_true_view_is_small() -> None:
    views, snippets = true_views()
    loss = replace(PLAIN, ssim=1.0)
    motionless = views._replace(poses=torch.zeros_like(views.poses))
    finest = [v._replace(disparities=v.disparities[:1]) for v in (views, motionless)]
    warped, unmoved = (loss(v, snippets).view_synthesis for v in finest)
    assert (warped < unmoved / 10).all()


def test_the_better_source_counts() -> None:
    snippets = snippets_of(flat(0.0), flat((0.1, 0.4)), flat((0.3, -0.2)))
    both = PLAIN(still(0.3), snippets)
    torch.testing.assert_close(both.photometric[0], both.total.new_tensor([4 * 0.25, 4 * 0.25]))
    best = replace(PLAIN, min_reprojection=True)(still(0.3), snippets)
    torch.testing.assert_close(best.photometric[0], both.total.new_tensor([4 * 0.05, 4 * 0.1]))
    torch.testing.assert_close(best.view_synthesis[0], both.total.new_tensor(4 * 0.15))


def test_a_source_out_of_view_is_not_the_better_one() -> None:
    views, snippets = random_case(masks=False)
    away = views.poses.clone()
    away[:, 1] = torch.tensor([1e3, 0, 0, 0, 0, 0])
    loss = replace(PLAIN, min_reprojection=True)
    alone = Views(views.disparities, away[:, :1], None)
    first = loss(alone, snippets._replace(sources=snippets.sources[:, :1])).photometric
    found = loss(views._replace(poses=away), snippets).photometric
    torch.testing.assert_close(found[:, :1], first)
    assert found[:, 1].eq(0).all()


def test_minimum_is_below_each_source_and_no_pixel_counts_twice() -> None:
    views, snippets = random_case(masks=False)
    finest = views._replace(disparities=views.disparities[:1])
    sums, best = (
        replace(PLAIN, min_reprojection=flag)(finest, snippets).photometric
        for flag in (False, True)
    )
    assert (best <= sums).all()
    assert (best.sum(1) < sums.sum(1)).all()


@pytest.mark.parametrize("ssim", [0.0, 0.85])
@pytest.mark.parametrize(
    ("min_reprojection", "masks"), [(False, False), (True, False), (False, True)]
)
def test_a_scene_that_stands_still_is_left_out(
    ssim: float, min_reprojection: bool, masks: bool
) -> None:
    views, snippets = random_case(masks=masks)
    snippets = snippets._replace(sources=snippets.target[:, None].repeat(1, 2, 1, 1, 1))
    views.poses.requires_grad_()
    options: dict[str, Any] = {"ssim": ssim, "min_reprojection": min_reprojection}
    loss = replace(PLAIN, **options)
    assert (loss(views, snippets).view_synthesis > 0.1).all()
    left = replace(loss, auto_mask=True)(views, snippets).view_synthesis
    assert left.eq(0).all()
    (gradient,) = torch.autograd.grad(left.sum(), views.poses)
    assert gradient.eq(0).all()


def test_auto_mask_keeps_what_the_warp_explains_better() -> None:
    """Of two halves of a ramp the camera's motion explains one better, the other worse."""
    snippets = snippets_of(ramp(0), torch.cat([ramp(3)[..., :24], ramp(-3)[..., 24:]], -1))
    views = still(1.0, sources=1, scales=1)
    focal = float(snippets.intrinsics[0, 0, 0])
    views.poses[..., 0] = -3 / focal  # at distance 1 the source is sampled 3 pixels to the left
    plain, masked = (
        replace(PLAIN, auto_mask=flag)(views, snippets).view_synthesis for flag in (False, True)
    )
    # Of 48 columns 3 are out of view and 24 exact. 21 are off by 6 columns, by 3 without a warp.
    torch.testing.assert_close(plain, plain.new_tensor([21 * 6 * SLOPE / 48]))
    torch.testing.assert_close(masked, plain.new_tensor([21 * 3 * SLOPE / 48]))
    moved, images = true_views()
    finest = moved._replace(disparities=moved.disparities[:1])
    plain, masked = (
        replace(PLAIN, auto_mask=flag)(finest, images).photometric for flag in (False, True)
    )
    assert ((0.3 * plain < masked) & (masked <= plain + 1e-5)).all()  # nearly all of it is better


def test_auto_mask_and_minimum_look_at_errors_before_weights() -> None:
    """A mask near 0, or depths that disagree, make no source explain a pixel."""
    snippets = snippets_of(flat(0.0), flat(0.2), flat(0.3))
    disparities = still(0.3).disparities
    near, far = ([torch.full_like(d, v) for d in disparities] for v in (0.3, 0.03))
    apart = (1 / 0.03 - 1 / 0.3) / (1 / 0.03 + 1 / 0.3)
    assert 0.3 * (1 - apart) < 0.2  # weighted, the second were the better one
    around = [torch.stack([a, b], 1) for a, b in zip(near, far, strict=True)]
    views = still(0.3)._replace(source_disparities=around)
    loss = replace(PLAIN, min_reprojection=True, geometry_weight=1.0)
    found = loss(views, snippets).photometric
    torch.testing.assert_close(found, found.new_tensor([[4 * 0.2, 0]]))

    brighter = snippets_of(ramp(0), ramp(2))  # by 2 slopes; sampled 3 pixels to the right, by 5
    views = still(1.0, sources=1, scales=1)
    views.poses[..., 0] = 3 / float(brighter.intrinsics[0, 0, 0])
    mask = torch.full((1, 1, *SIZE), 0.3, dtype=torch.float64)
    plain, auto = (
        replace(PLAIN, auto_mask=flag)(views._replace(masks=[mask]), brighter).view_synthesis
        for flag in (False, True)
    )
    torch.testing.assert_close(plain, plain.new_tensor([0.3 * 5 * SLOPE * 45 / 48]))
    # with the unwarped error, which is the lower one
    torch.testing.assert_close(auto, plain.new_tensor([0.3 * 2 * SLOPE * 45 / 48]))


@pytest.mark.parametrize("ssim", [0.0, 0.85])
def test_a_warp_as_good_as_none_teaches_nothing(ssim: float) -> None:
    """Cameras that stand still, whatever the rounding of the identity."""
    _, snippets = random_case(rows=1)
    views = still(0.3)
    views.poses.requires_grad_()
    plain, auto = (
        replace(PLAIN, ssim=ssim, auto_mask=flag)(views, snippets).view_synthesis
        for flag in (False, True)
    )
    torch.testing.assert_close(auto, plain)  # and no motion gains by leaving pixels out
    gradients = [torch.autograd.grad(loss.sum(), views.poses)[0] for loss in (plain, auto)]
    assert gradients[0].any()
    assert gradients[1].eq(0).all()


def test_auto_mask_compares_the_best_of_both() -> None:
    snippets = snippets_of(ramp(0), ramp(2), ramp(0.2))
    views = still(1.0, scales=1)
    views.poses[..., 0] = -1 / float(snippets.intrinsics[0, 0, 0])
    loss = replace(PLAIN, min_reprojection=True)
    shown = 47 / SIZE[1]  # sampled a pixel to the left: 1 and 0.8 slopes
    found = loss(views, snippets).photometric
    torch.testing.assert_close(found, found.new_tensor([[0, 0.8 * SLOPE * shown]]))
    auto = replace(loss, auto_mask=True)(views, snippets).photometric  # 2 and 0.2 unwarped
    torch.testing.assert_close(auto, found.new_tensor([[0, 0.2 * SLOPE * shown]]))


def test_full_resolution_judges_all_scales_alike() -> None:
    views, snippets = random_case(masks=False)
    wall = views._replace(disparities=[torch.full_like(d, 0.3) for d in views.disparities])
    finest = PLAIN(wall._replace(disparities=wall.disparities[:1]), snippets).photometric
    full = replace(PLAIN, full_resolution=True)(wall, snippets).photometric
    torch.testing.assert_close(full, 4 * finest)
    assert not torch.allclose(PLAIN(wall, snippets).photometric, 4 * finest, rtol=1e-2)
    masks = [torch.full((2, 2, *d.shape[2:]), 0.5).double() for d in wall.disparities]
    masked = ViewSynthesis(full_resolution=True)(wall._replace(masks=masks), snippets)
    torch.testing.assert_close(masked.photometric, 2 * finest)
    torch.testing.assert_close(masked.mask, torch.full_like(masked.mask, 4 * math.log(2)))
    # the smoothness is that of each scale's own map
    for smooth in ("depth", "disparity", "edges"):
        one, two = (
            ViewSynthesis(smooth=smooth, full_resolution=flag)(views, snippets).smooth  # type: ignore[arg-type]
            for flag in (False, True)
        )
        torch.testing.assert_close(one, two)


def approach(factor: float = 1.0, weight: float = 0.5) -> tuple[Losses, Losses]:
    """Towards a wall at 4 by 1: it is at 3 then, of which the second depth is `factor` times."""
    snippets = random_case(rows=1, sources=1)[1]
    pose = torch.tensor([[[0, 0, -1.0, 0, 0, 0]]], dtype=torch.float64)
    disparities = still(1 / 4, sources=1).disparities
    around = [torch.full_like(d, 1 / (3 * factor))[:, None] for d in disparities]
    views = Views(disparities, pose, None, around)
    loss = replace(PLAIN, geometry_weight=weight)
    return loss(views, snippets), PLAIN(views, snippets)


def test_depths_that_agree_cost_nothing() -> None:
    found, plain = approach()
    torch.testing.assert_close(found.geometry, torch.zeros_like(found.geometry), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.total, plain.total)
    assert plain.geometry.eq(0).all()


@pytest.mark.parametrize("factor", [0.5, 1.5, 4.0])
def test_depths_that_disagree_cost_their_share_and_weigh_the_error(factor: float) -> None:
    found, plain = approach(factor, weight=0.5)
    apart = abs(factor - 1) / (factor + 1)  # |3 - 3 f| / (3 + 3 f)
    assert float(found.geometry) == pytest.approx(4 * apart, rel=1e-10)
    torch.testing.assert_close(found.view_synthesis, (1 - apart) * plain.view_synthesis)
    torch.testing.assert_close(found.total, found.view_synthesis + 0.5 * found.geometry)


def test_depths_out_of_view_are_not_compared() -> None:
    """Ten pixels to the right: what the right edge would be at is open."""
    snippets = random_case(rows=1, sources=1)[1]
    views = still(1.0, sources=1, scales=1)
    views.poses[..., 0] = 10 / float(snippets.intrinsics[0, 0, 0])
    around = [torch.full((1, 1, 1, *SIZE), 0.5, dtype=torch.float64)]
    views = views._replace(source_disparities=around)
    loss = replace(PLAIN, geometry_weight=1.0)
    expected = loss(views, snippets).geometry
    torch.testing.assert_close(expected, expected.new_tensor([1 / 3]))  # |1 - 2| / (1 + 2)
    views.disparities[0][..., 38:] = 3
    torch.testing.assert_close(loss(views, snippets).geometry, expected)


@pytest.mark.parametrize("full", [False, True])
def test_true_depths_agree(full: bool) -> None:
    """Depth seen from the target and depth of the source are those of one plane."""
    views, snippets = true_views()
    film = drive(frames=5, height=64, width=96)
    inverse = [1 / F.avg_pool2d(film.depth[:, None], 2**s) for s in range(4)]  # (T, 1, h, w)
    around = [torch.stack([d[[t - 1, t + 1]] for t in range(1, 4)]) for d in inverse]
    loss = replace(PLAIN, geometry_weight=1.0, full_resolution=full)
    found = loss(views._replace(source_disparities=around), snippets).geometry
    assert (found < 4 * 0.004).all()
    wrong = [d.flip(1) for d in around]  # those of the other source
    assert (loss(views._replace(source_disparities=wrong), snippets).geometry > 3 * found).all()


# What must not matter -----------------------------------------------------------------------------

OPTIONS = {
    "plain": ViewSynthesis(),
    "edges": ViewSynthesis(smooth="edges"),
    "ssim": ViewSynthesis(ssim=0.85),
    "minimum": ViewSynthesis(min_reprojection=True, auto_mask=True),
    "full": ViewSynthesis(full_resolution=True, ssim=0.85, padding="border"),
    "geometry": ViewSynthesis(geometry_weight=0.5, smooth="disparity"),
}
each_option = pytest.mark.parametrize("loss", OPTIONS.values(), ids=OPTIONS)


@pytest.mark.parametrize("ssim", [0.0, 0.85])
@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("min_reprojection", [False, True])
def test_pixels_that_a_source_does_not_show_never_count(
    ssim: float, padding: Any, min_reprojection: bool
) -> None:
    views, snippets = random_case(rows=1, sources=1)
    finest = Views(views.disparities[:1], 2 * views.poses, None)
    loss = replace(PLAIN, ssim=ssim, padding=padding, min_reprojection=min_reprojection)
    depth = 1 / finest.disparities[0][:, 0]
    (warp,) = warp_sources(snippets, depth, pose_matrix(finest.poses))
    shown = warp.valid.double()[:, None]
    reach = F.max_pool2d(shown, 3, 1, 1) if ssim else shown  # SSIM's windows
    hidden = reach[0, 0] == 0
    assert 0.05 < hidden.double().mean() < 0.95
    other = snippets.target.clone()
    other[:, :, hidden] = -other[:, :, hidden].sign()
    expected = loss(finest, snippets).view_synthesis
    torch.testing.assert_close(
        loss(finest, snippets._replace(target=other)).view_synthesis, expected
    )
    seen = snippets.target.clone()
    seen[:, :, warp.valid[0]] = -seen[:, :, warp.valid[0]].sign()
    changed = loss(finest, snippets._replace(target=seen)).view_synthesis
    assert (changed - expected).abs().min() > 1e-2
    if not ssim:
        error = (snippets.target - warp.image).abs().mean(1)
        torch.testing.assert_close(expected, (error * warp.valid).mean((1, 2)))


@each_option
def test_what_lies_behind_the_camera_is_no_view(loss: ViewSynthesis) -> None:
    views, snippets = random_case(masks=False)
    away = torch.zeros_like(views.poses)
    away[..., 2] = -1e3
    views = views._replace(poses=away.requires_grad_())
    for d in views.disparities:
        d.requires_grad_()
    found = loss(views, snippets)
    assert found.view_synthesis.eq(0).all()
    gradients = torch.autograd.grad(found.total.sum(), [away, *views.disparities])
    assert all(g.isfinite().all() for g in gradients)


@each_option
def test_rows_do_not_mix(loss: ViewSynthesis) -> None:
    views, snippets = random_case(rows=3, masks=False)
    views.poses[1] *= 4  # much of it out of view: another number of valid pixels
    whole = loss(views, snippets)
    for r in range(3):
        row = slice(r, r + 1)
        alone = loss(
            Views(
                [d[row] for d in views.disparities],
                views.poses[row],
                None,
                [d[row] for d in views.source_disparities],
            ),
            Snippets(*(part[row] for part in snippets)),
        )
        for name, value in alone._asdict().items():
            torch.testing.assert_close(getattr(whole, name)[row], value, rtol=1e-9, atol=1e-12)


@each_option
def test_terms_add_up_and_are_finite(loss: ViewSynthesis) -> None:
    found = loss(*random_case(rows=2, masks=not loss.min_reprojection))
    torch.testing.assert_close(found.photometric.sum(1), found.view_synthesis)
    total = (
        found.view_synthesis
        + loss.mask_weight * found.mask
        + loss.smooth_weight * found.smooth
        + loss.geometry_weight * found.geometry
    )
    torch.testing.assert_close(found.total, total)
    for name, value in found._asdict().items():
        assert value.shape == ((2, 2) if name == "photometric" else (2,)), name
        assert value.isfinite().all(), name
        assert (value >= 0).all(), name


def test_float32_agrees() -> None:
    views, snippets = random_case()
    single = Views(
        [d.float() for d in views.disparities],
        views.poses.float(),
        [m.float() for m in views.masks],
    )
    one, two = (
        ViewSynthesis()(views, snippets),
        ViewSynthesis()(single, Snippets(*(p.float() for p in snippets))),
    )
    for a, b in zip(one, two, strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(a.float(), b, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("geometry_weight", [0.0, 0.5])
def test_gradients_reach_both_networks(geometry_weight: float) -> None:
    net = network(masks=True)
    film = batch_of(drive(frames=4))
    clip = film["video"]
    target, sources = net.snippets(clip)
    snippets = Snippets(target, sources, film["intrinsics"].repeat(2, 1, 1))
    loss = ViewSynthesis(geometry_weight=geometry_weight)
    total = loss(net(clip, source_depth=geometry_weight > 0), snippets).total
    total.mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if name.endswith("weight"):
            assert parameter.grad.any(), name


def test_images_of_another_size_keep_their_rays() -> None:
    """A pixel of the small image is the mean of n x n, and looks where their middle looks."""
    _, snippets = random_case(rows=1)
    for n in (2, 4):
        small = resize_snippets(snippets, (SIZE[0] // n, SIZE[1] // n))
        np.testing.assert_allclose(
            small.target[0].numpy(), loop_mean(snippets.target[0].numpy(), n), atol=1e-12
        )
        for u, v in ((0, 0), (3, 2)):
            middle = torch.tensor([n * u + (n - 1) / 2, n * v + (n - 1) / 2, 1]).double()
            pixel = torch.tensor([u, v, 1]).double()
            torch.testing.assert_close(
                torch.linalg.solve(small.intrinsics[0], pixel),
                torch.linalg.solve(snippets.intrinsics[0], middle),
            )
    assert resize_snippets(snippets, SIZE) is snippets


# Settings -----------------------------------------------------------------------------------------


def test_masks_and_the_minimum_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match=r"min_reprojection=true cannot go with .* masks"):
        ViewSynthesis(min_reprojection=True)(*random_case())


def test_geometry_needs_the_sources_depth() -> None:
    views, snippets = random_case(masks=False)
    with pytest.raises(ConfigError, match=r"geometry_weight=0.5 needs .* source_depth=True"):
        ViewSynthesis(geometry_weight=0.5)(views._replace(source_disparities=None), snippets)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"smooth": "depths"}, "smooth=depths must be one of depth, disparity, edges"),
        ({"rotation": "axis"}, "rotation=axis must be one of euler, quat"),
        ({"padding": "mirror"}, "padding=mirror must be one of zeros, border"),
        ({"mask_weight": -0.1}, "mask_weight=-0.1 must be 0 or more"),
        ({"smooth_weight": -1}, "smooth_weight=-1 must be 0 or more"),
        ({"geometry_weight": float("nan")}, "geometry_weight=nan must be 0 or more"),
        ({"ssim": 1.1}, "ssim=1.1 must lie between 0 and 1"),
        ({"ssim": -0.1}, "ssim=-0.1 must lie between 0 and 1"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ViewSynthesis(**settings)
    assert str(caught.value) == said
