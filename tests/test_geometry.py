"""Poses, warps and comparisons of images against closed forms, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lightning_cam.geometry import (
    Rotation,
    Warped,
    edge_smoothness,
    euler_matrix,
    inverse_warp,
    invert,
    pixel_grid,
    pose_matrix,
    pose_vector,
    quaternion_matrix,
    resize_intrinsics,
    smoothness,
    ssim,
)

ROTATIONS: list[Rotation] = ["euler", "quat"]
SEEDS = st.integers(0, 1000)
EYE = torch.eye(4, dtype=torch.float64)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def camera(focal: float, height: int, width: int) -> Tensor:
    """Intrinsics `(1, 3, 3)` that look through the middle of the image."""
    k = torch.tensor([[focal, 0, (width - 1) / 2], [0, 1.5 * focal, (height - 1) / 2], [0, 0, 1]])
    return k.double()[None]


def motion(*vector: float) -> Tensor:
    return pose_matrix(torch.tensor([vector], dtype=torch.float64))


def smooth(u: Tensor, v: Tensor) -> Tensor:
    """An image `(1, 2, h, w)` that is known at all positions `(h, w)`, not at whole ones alone."""
    return torch.stack([(0.3 * u).sin() + 0.1 * v, (0.2 * v + 0.1 * u).cos()])[None]


def positions(height: int, width: int) -> tuple[Tensor, Tensor]:
    u, v, _ = pixel_grid(height, width, EYE).unflatten(1, (height, width))
    return u, v


def ramps(u: Tensor, v: Tensor) -> Tensor:
    """An image `(1, 2, h, w)` that bilinear interpolation repeats exactly: its own positions."""
    return torch.stack([u, v])[None]


# Poses


@pytest.mark.parametrize("rotation", ROTATIONS)
@settings(max_examples=40, deadline=None)
@given(
    vector=st.lists(st.floats(-1.5, 1.5), min_size=6, max_size=6),
)
def test_vector_to_matrix_and_back(rotation: Rotation, vector: list[float]) -> None:
    pose = torch.tensor(vector, dtype=torch.float64)
    matrix = pose_matrix(pose, rotation)
    torch.testing.assert_close(pose_vector(matrix, rotation), pose, rtol=0, atol=1e-12)
    torch.testing.assert_close(matrix @ invert(matrix), EYE, rtol=0, atol=1e-12)
    assert torch.det(matrix).item() == pytest.approx(1)
    assert matrix[3].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_zeros_are_the_identity_with_a_gradient(rotation: Rotation) -> None:
    pose = torch.zeros(2, 5, 6, dtype=torch.float64, requires_grad=True)
    matrix = pose_matrix(pose, rotation)
    assert torch.equal(matrix.detach(), EYE.expand(2, 5, 4, 4))
    grad = torch.autograd.functional.jacobian(lambda p: pose_matrix(p, rotation), pose[0, 0])
    rate = 1 if rotation == "euler" else 2  # the angle is twice that of the quaternion
    assert grad[2, 1, 3] == rate and grad[0, 2, 4] == rate and grad[1, 0, 5] == rate
    assert grad[0, 3, 0] == grad[1, 3, 1] == grad[2, 3, 2] == 1


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("angle", [0.3, -1.2])
def test_turns_about_one_axis(axis: int, angle: float) -> None:
    """Counter-clockwise as seen against the axis: x turns y into z, y turns z into x, ..."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    expected = torch.eye(3, dtype=torch.float64)
    expected[a, a] = expected[b, b] = math.cos(angle)
    expected[b, a], expected[a, b] = math.sin(angle), -math.sin(angle)
    vector = torch.zeros(3, dtype=torch.float64)
    vector[axis] = angle
    torch.testing.assert_close(euler_matrix(vector), expected)
    vector[axis] = math.tan(angle / 2)
    torch.testing.assert_close(quaternion_matrix(vector), expected)


@settings(max_examples=20, deadline=None)
@given(angles=st.lists(st.floats(-1.5, 1.5), min_size=3, max_size=3))
def test_euler_angles_are_rx_ry_rz(angles: list[float]) -> None:
    rx, ry, rz = torch.diag(torch.tensor(angles, dtype=torch.float64))
    product = euler_matrix(rx) @ euler_matrix(ry) @ euler_matrix(rz)
    torch.testing.assert_close(euler_matrix(rx + ry + rz), product)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_both_kinds_of_vector_say_the_same(seed: int) -> None:
    matrix = pose_matrix(noise(6, seed=seed) - 0.5)
    again = pose_matrix(pose_vector(matrix, "quat"), "quat")
    torch.testing.assert_close(again, matrix, rtol=0, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_the_inverse_of_a_product(seed: int) -> None:
    a, b = pose_matrix(noise(2, 3, 6, seed=seed))
    torch.testing.assert_close(invert(a @ b), invert(b) @ invert(a))
    torch.testing.assert_close(invert(a), torch.linalg.inv(a))


def test_vectors_are_checked() -> None:
    with pytest.raises(ValueError, match=r"pose vectors \(\.\.\., 6\), got \(2, 7\)"):
        pose_matrix(torch.zeros(2, 7))
    for function, argument in ((pose_matrix, torch.zeros(6)), (pose_vector, EYE)):
        with pytest.raises(ValueError, match='"euler" or "quat", got \'axis\''):
            function(argument, "axis")  # type: ignore[arg-type]


# Intrinsics


def test_intrinsics_follow_the_size() -> None:
    """Half the image: its first pixel lies between the first two."""
    k = camera(20, 16, 32)
    half = resize_intrinsics(k, (16, 32), (8, 8))
    assert half[0].tolist() == [[5, 0, (15.5 + 0.5) / 4 - 0.5], [0, 15, 3.5], [0, 0, 1]]
    assert k[0, 0, 0] == 20  # not in place
    torch.testing.assert_close(resize_intrinsics(half, (8, 8), (16, 32)), k)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, height=st.integers(1, 40), width=st.integers(1, 40))
def test_a_point_stays_at_its_place_in_the_image(seed: int, height: int, width: int) -> None:
    k, point = camera(20, 16, 32), noise(3, 1, seed=seed) + 0.5
    new = resize_intrinsics(k, (16, 32), (height, width))
    old_pixel, new_pixel = (matrix[0] @ point / point[2] for matrix in (k, new))
    for i, (before, after) in enumerate(((32, width), (16, height))):
        # as a share of the image from rim to rim
        share = (old_pixel[i] + 0.5) / before
        assert (new_pixel[i] + 0.5).item() / after == pytest.approx(share.item())


def test_averaged_images_show_the_same_scene() -> None:
    u, v = positions(16, 32)
    small = F.avg_pool2d(ramps(u, v), 4)  # (1, 2, 4, 8), positions in the large image
    new = resize_intrinsics(camera(20, 16, 32), (16, 32), (4, 8))
    rays = torch.linalg.inv(new[0]) @ pixel_grid(4, 8, EYE)
    there = camera(20, 16, 32)[0] @ rays
    torch.testing.assert_close(there[:2].view(1, 2, 4, 8), small)


def test_pixels_are_whole_numbers() -> None:
    grid = pixel_grid(2, 3, EYE)
    assert grid.tolist() == [[0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 1, 1], [1] * 6]
    assert grid.dtype == torch.float64


# Inverse warp


@pytest.mark.parametrize("size", [(16, 32), (7, 9), (2, 2)])
def test_standing_still_changes_nothing(size: tuple[int, int]) -> None:
    source, depth = noise(2, 3, *size), 1 + 50 * noise(2, *size, seed=1)
    k = camera(20, *size).expand(2, 3, 3)
    seen = inverse_warp(source, depth, EYE.expand(2, 4, 4), k)
    torch.testing.assert_close(seen.image, source, rtol=0, atol=1e-11)
    torch.testing.assert_close(seen.depth, depth)
    assert seen.valid.all()
    single = inverse_warp(source.float(), depth.float(), EYE.float().expand(2, 4, 4), k.float())
    assert single.valid.all()  # rounding at the rim does not count as outside
    torch.testing.assert_close(single.image, source.float(), rtol=0, atol=1e-4)


def test_one_column_or_row_alone() -> None:
    for size in ((1, 5), (5, 1), (1, 1)):
        source = noise(1, 3, *size)
        seen = inverse_warp(source, torch.ones(1, *size).double(), EYE[None], camera(20, *size))
        torch.testing.assert_close(seen.image, source)


def shifted(vector: tuple[float, ...], depth: float, size: tuple[int, int] = (20, 60)) -> Warped:
    u, v = positions(*size)
    plane = torch.full((1, *size), depth, dtype=torch.float64)
    return inverse_warp(ramps(u, v), plane, motion(*vector), camera(240, *size))


def test_a_plane_moves_by_focal_length_times_way_over_depth() -> None:
    u, v = positions(20, 60)
    seen = shifted((0.1, 0, 0, 0, 0, 0), 5.0)
    expected = u + 240 * 0.1 / 5  # 4.8 pixels to the right
    inside = expected <= 59
    assert torch.equal(seen.valid[0], inside)
    torch.testing.assert_close(seen.image[0, 0][inside], expected[inside])
    torch.testing.assert_close(seen.image[0, 1][inside], v[inside])
    down = shifted((0, -0.02, 0, 0, 0, 0), 5.0)
    inside = v - 360 * 0.02 / 5 >= 0
    assert torch.equal(down.valid[0], inside)
    torch.testing.assert_close(down.image[0, 1][inside], (v - 1.44)[inside])
    torch.testing.assert_close(down.depth, torch.full_like(down.depth, 5.0))


def test_what_comes_nearer_grows() -> None:
    u, v = positions(20, 60)
    seen = shifted((0, 0, 1, 0, 0, 0), 4.0)  # at 4 m, the source sees it at 5 m
    assert seen.valid.all()
    torch.testing.assert_close(seen.image[0, 0], 29.5 + (u - 29.5) * 4 / 5)
    torch.testing.assert_close(seen.image[0, 1], 9.5 + (v - 9.5) * 4 / 5)
    torch.testing.assert_close(seen.depth, torch.full_like(seen.depth, 5.0))


def test_a_turn_does_not_depend_on_the_depth() -> None:
    near, far = (shifted((0, 0, 0, 0.01, -0.02, 0.1), depth) for depth in (1.0, 70.0))
    torch.testing.assert_close(near.grid, far.grid)
    u, _ = positions(1, 60)
    panned = shifted((0, 0, 0, 0, 0.05, 0), 7.0, (1, 60))  # the axis' row: u' = f tan(a + 0.05)
    angle = ((u - 29.5) / 240).atan() + 0.05
    expected = 29.5 + 240 * angle.tan()
    inside = expected <= 59
    torch.testing.assert_close(panned.image[0, 0][inside], expected[inside])


def test_padding_beyond_the_rim() -> None:
    size = (4, 10)
    source, depth = torch.ones(1, 1, *size).double(), torch.ones(1, *size).double()
    right = motion(3 / 20, 0, 0, 0, 0, 0)  # three pixels
    zeros = inverse_warp(source, depth, right, camera(20, *size))
    border = inverse_warp(source, depth, right, camera(20, *size), padding="border")
    assert zeros.image[0, 0, 0].tolist() == pytest.approx([1] * 7 + [0] * 3)
    torch.testing.assert_close(border.image, source)
    assert torch.equal(zeros.valid, border.valid) and zeros.valid.sum() == 4 * 7


def test_nothing_is_seen_behind_the_camera() -> None:
    seen = shifted((0, 0, -6, 0, 0, 0), 5.0)
    assert not seen.valid.any()
    assert seen.image.isfinite().all()
    torch.testing.assert_close(seen.depth, torch.full_like(seen.depth, -1.0))
    # 1 m behind the source, and on the ray to which its first pixel belongs
    corner = shifted((32 / 240, 12 / 360, -6, 0, 0, 0), 5.0)
    assert corner.grid[0, 9, 29].tolist() == pytest.approx([-1, -1], abs=1e-9)
    assert not corner.valid.any()


def test_each_row_of_the_batch_has_its_own_camera() -> None:
    size = (6, 20)
    u, v = positions(*size)
    source, depth = ramps(u, v).expand(2, 2, *size), torch.full((2, *size), 2.0).double()
    k = torch.cat([camera(20, *size), camera(40, *size)])
    way = torch.cat([motion(0.1, 0, 0, 0, 0, 0), motion(-0.1, 0, 0, 0, 0, 0)])
    both = inverse_warp(source, depth, way, k)
    for i, shift in enumerate((1, -2)):
        alone = inverse_warp(source[:1], depth[:1], way[i : i + 1, :3], k[i : i + 1])  # (1, 3, 4)
        torch.testing.assert_close(alone.image, both.image[i : i + 1])
        expected = (u + shift)[both.valid[i]]
        torch.testing.assert_close(both.image[i, 0][both.valid[i]], expected)


def test_the_warp_of_a_smooth_image_is_that_image_elsewhere() -> None:
    """What is interpolated is within its second derivative of the truth."""
    size = (20, 40)
    depth = 4 + noise(1, *size)
    seen = inverse_warp(
        smooth(*positions(*size)),
        depth,
        motion(0.1, -0.03, 0.2, 0.01, 0.02, -0.01),
        camera(20, *size),
    )
    half = (torch.tensor([39, 19]) / 2).double()
    u, v = ((seen.grid[0] + 1) * half).unbind(-1)
    expected = smooth(u, v)[0][:, seen.valid[0]]
    assert seen.valid.double().mean() > 0.9
    apart = (seen.image[0][:, seen.valid[0]] - expected).abs().max()
    assert apart < 0.3**2 / 8 + 0.2**2 / 8


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_gradients_of_the_warp(rotation: Rotation) -> None:
    """Bilinear interpolation has a kink at whole positions: none is near one here."""
    size = (4, 5)
    source = smooth(*positions(*size))
    depth = (3 + noise(1, *size)).requires_grad_()
    pose = torch.tensor([[0.05, 0.04, -0.03, 0.01, -0.02, 0.015]]).double().requires_grad_()
    k = camera(6, *size)

    def warped(depth: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
        seen = inverse_warp(source, depth, pose_matrix(pose, rotation), k)
        return seen.image[seen.valid[:, None].expand_as(seen.image)], seen.depth

    with torch.no_grad():
        seen = inverse_warp(source, depth, pose_matrix(pose, rotation), k)
        u, v = ((seen.grid + 1) * torch.tensor([4, 3]) / 2)[seen.valid].unbind(-1)
    assert min((x - x.round()).abs().min() for x in (u, v)) > 1e-4
    assert 10 <= seen.valid.sum() <= 20
    assert torch.autograd.gradcheck(warped, (depth, pose), eps=1e-7)


def test_gradients_stay_finite_behind_the_camera() -> None:
    depth = torch.full((1, 4, 6), 1.0, dtype=torch.float64, requires_grad=True)
    pose = torch.tensor([[0.1, 0, -1.0, 0, 0.01, 0]], dtype=torch.float64, requires_grad=True)
    seen = inverse_warp(noise(1, 3, 4, 6), depth, pose_matrix(pose), camera(6, 4, 6))
    seen.image.sum().backward()
    assert depth.grad is not None and depth.grad.isfinite().all()
    assert pose.grad is not None and pose.grad.isfinite().all()


def test_shapes_of_the_warp_are_checked() -> None:
    with pytest.raises(
        ValueError, match=r"expected depth \(1, 4, 6\) as the source, got \(1, 4, 5\)"
    ):
        inverse_warp(noise(1, 3, 4, 6), noise(1, 4, 5), EYE[None], camera(6, 4, 6))


# SSIM


def test_a_image_is_like_itself() -> None:
    image = noise(2, 3, 8, 9)
    torch.testing.assert_close(ssim(image, image), torch.ones_like(image))


def test_constant_images_by_hand() -> None:
    a, b = torch.full((1, 1, 4, 4), 0.2).double(), torch.full((1, 1, 4, 4), 0.6).double()
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.04 + 0.36 + 1e-4)
    torch.testing.assert_close(ssim(a, b), torch.full_like(a, expected))


@pytest.mark.parametrize(
    ("pixel", "rows", "columns"),
    [((1, 1), [0, 1, 2], [0, 1, 2]), ((0, 2), [1, 0, 1], [1, 2, 1])],  # reflected at the rim
)
def test_a_window_by_hand(pixel: tuple[int, int], rows: list[int], columns: list[int]) -> None:
    images = noise(2, 3, 3)
    a, b = images[:, rows][:, :, columns]
    mu_a, mu_b = a.mean(), b.mean()
    covariance = ((a - mu_a) * (b - mu_b)).mean()
    variances = a.var(correction=0) + b.var(correction=0)
    expected = (2 * mu_a * mu_b + 1e-4) * (2 * covariance + 9e-4)
    expected /= (mu_a**2 + mu_b**2 + 1e-4) * (variances + 9e-4)
    found = ssim(images[:1, None], images[1:, None])
    assert found.shape == (1, 1, 3, 3)
    torch.testing.assert_close(found[0, 0][pixel], expected)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_ssim_is_symmetric_and_at_most_one(seed: int) -> None:
    a, b = noise(1, 2, 6, 7, seed=seed), noise(1, 2, 6, 7, seed=seed + 1)
    torch.testing.assert_close(ssim(a, b), ssim(b, a))
    assert ssim(a, b).max() <= 1 and ssim(a, b).min() >= -1
    negative = ssim(a, 1 - a)
    assert negative.mean() < 0  # structure turned over


# Smoothness


def test_planes_are_smooth() -> None:
    u, v = positions(6, 9)
    planes = torch.stack([0 * u + 3, 2 * u - 5 * v + 1])
    torch.testing.assert_close(smoothness(planes), torch.zeros(2).double(), rtol=0, atol=1e-12)


def test_second_differences_by_hand() -> None:
    u, v = positions(6, 9)
    fields = torch.stack([u**2, v**2, u * v, -3 * u * v])
    # d2/dx2 = 2; d2/dy2 = 2; the mixed one, counted from both sides
    assert smoothness(fields).tolist() == pytest.approx([2, 2, 2, 6])


def test_a_step_is_averaged_over_its_differences() -> None:
    field = torch.zeros(1, 3, 5, dtype=torch.float64)
    field[..., 3:] = 1
    # each row: differences 0 0 1 0, second ones 0 1 -1
    assert smoothness(field).item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 2)])
def test_small_fields_have_few_differences(size: tuple[int, int]) -> None:
    field = noise(2, *size)
    assert smoothness(field).isfinite().all()
    assert edge_smoothness(field, noise(2, 3, *size)).isfinite().all()


def test_edges_make_steps_cheap() -> None:
    disparity = torch.ones(1, 2, 4, dtype=torch.float64)
    disparity[..., 2:] = 3  # mean 2: relative 0.5 and 1.5
    plain, edge = torch.zeros(2, 1, 3, 2, 4, dtype=torch.float64)
    edge[..., 2:] = 0.7
    assert edge_smoothness(disparity, plain).item() == pytest.approx(1 / 3)
    assert edge_smoothness(disparity, edge).item() == pytest.approx(math.exp(-0.7) / 3)
    one = plain.clone()
    one[:, 0, :, 2:] = 0.6  # in one channel of three
    assert edge_smoothness(disparity, one).item() == pytest.approx(math.exp(-0.2) / 3)
    torch.testing.assert_close(  # of the scale of the disparity nothing is left
        edge_smoothness(7 * disparity, edge), edge_smoothness(disparity, edge)
    )
    upright = edge_smoothness(disparity.mT, edge.mT)
    torch.testing.assert_close(upright, edge_smoothness(disparity, edge))
