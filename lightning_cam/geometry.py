"""Geometry of a moving camera: poses, inverse warping, and how images and depths are compared.

Pure functions of tensors, in the precision of their arguments. The camera looks along z, x points
right and y down. Pixel centres are whole numbers: u = 0 is the middle of the first column. A motion
T (target -> source) maps points of the target camera into the source camera.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Rotation = Literal["euler", "quat"]

_NEAR = 1e-3  # metres: points nearer than that to the source's image plane have no projection
_RIM = 1e-6  # the identity warp's rounding does not count as outside


def pose_matrix(vector: Tensor, rotation: Rotation = "euler") -> Tensor:
    """Motion `(..., 4, 4)` of a pose vector `(..., 6)` = (tx, ty, tz, rx, ry, rz).

    `"euler"`: R = Rx(rx) Ry(ry) Rz(rz), radians. `"quat"`: the quaternion (1, rx, ry, rz) made
    unit. Zeros are the identity in both (Zhou et al., "Unsupervised Learning of Depth and
    Ego-Motion from Video", CVPR 2017).

    Raises:
        ValueError: the last axis is not 6, or the rotation is unknown.
    """
    if vector.shape[-1] != 6:
        raise ValueError(f"expected pose vectors (..., 6), got {tuple(vector.shape)}")
    rotate = {"euler": euler_matrix, "quat": quaternion_matrix}.get(rotation)
    if rotate is None:
        raise ValueError(f'rotation must be "euler" or "quat", got {rotation!r}')
    top = torch.cat([rotate(vector[..., 3:]), vector[..., :3, None]], -1)  # (..., 3, 4)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 3] = 1
    return torch.cat([top, bottom], -2)


def pose_vector(matrix: Tensor, rotation: Rotation = "euler") -> Tensor:
    """Pose vector `(..., 6)` of a motion `(..., 4, 4)`, the inverse of `pose_matrix`.

    Euler angles with |ry| < pi/2; a rotation by pi has no quaternion with real part 1.

    Raises:
        ValueError: the rotation is unknown.
    """
    r = matrix[..., :3, :3]
    if rotation == "euler":
        angles = [
            torch.atan2(-r[..., 1, 2], r[..., 2, 2]),
            torch.asin(r[..., 0, 2].clamp(-1, 1)),
            torch.atan2(-r[..., 0, 1], r[..., 0, 0]),
        ]
    elif rotation == "quat":
        real = 1 + r.diagonal(dim1=-2, dim2=-1).sum(-1)  # 4 w^2
        angles = [(r[..., i, j] - r[..., j, i]) / real for i, j in ((2, 1), (0, 2), (1, 0))]
    else:
        raise ValueError(f'rotation must be "euler" or "quat", got {rotation!r}')
    return torch.cat([matrix[..., :3, 3], torch.stack(angles, -1)], -1)


def euler_matrix(angles: Tensor) -> Tensor:
    """Rotation `(..., 3, 3)` = Rx Ry Rz of angles `(..., 3)` in radians."""
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rows = [
        (cy * cz, -cy * sz, sy),
        (cx * sz + sx * sy * cz, cx * cz - sx * sy * sz, -sx * cy),
        (sx * sz - cx * sy * cz, sx * cz + cx * sy * sz, cx * cy),
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def quaternion_matrix(imaginary: Tensor) -> Tensor:
    """Rotation `(..., 3, 3)` of the quaternion (1, x, y, z) made unit, given `(..., 3)`."""
    quaternion = torch.cat([torch.ones_like(imaginary[..., :1]), imaginary], -1)
    w, x, y, z = F.normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def invert(motion: Tensor) -> Tensor:
    """The inverse of rigid motions `(..., 4, 4)`: exact in the rotation, no solver."""
    rotation = motion[..., :3, :3].transpose(-1, -2)
    top = torch.cat([rotation, -rotation @ motion[..., :3, 3:]], -1)
    return torch.cat([top, motion[..., 3:, :]], -2)


def resize_intrinsics(intrinsics: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Intrinsics `(..., 3, 3)` of images resized from `old` to `new` (height, width).

    With the pixel centre form c' = (c + 0.5) s - 0.5: it is exact where pixels are averaged.
    """
    scaled = intrinsics.clone()
    for row, (before, after) in enumerate(((old[1], new[1]), (old[0], new[0]))):
        scale = after / before
        scaled[..., row, :] *= scale
        scaled[..., row, 2] += 0.5 * scale - 0.5
    return scaled


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Homogeneous pixels `(3, H*W)`: u, v, 1."""
    v, u = torch.meshgrid(
        torch.arange(height, dtype=like.dtype, device=like.device),
        torch.arange(width, dtype=like.dtype, device=like.device),
        indexing="ij",
    )
    return torch.stack([u, v, torch.ones_like(u)]).flatten(1)


class Warped(NamedTuple):
    """What `inverse_warp` returns.

    Attributes:
        image: `(B, C, H, W)`, the source as seen from the target.
        valid: `(B, H, W)` bool, pixels that lie in the source's image and before its camera.
        depth: `(B, H, W)`, distance along z in the source camera.
        grid: `(B, H, W, 2)`, where it was sampled, as `grid_sample` counts.
    """

    image: Tensor
    valid: Tensor
    depth: Tensor
    grid: Tensor


def inverse_warp(
    source: Tensor,
    depth: Tensor,
    motion: Tensor,
    intrinsics: Tensor,
    padding: Literal["zeros", "border"] = "zeros",
) -> Warped:
    """See a source image from the target camera.

    A target pixel p with depth D lies at X = D K^-1 p, seen by the source at q = K (R X + t); the
    source is sampled there, bilinearly.

    Args:
        source: `(B, C, H, W)`.
        depth: `(B, H, W)` of the target, > 0.
        motion: `(B, 4, 4)` (or `(B, 3, 4)`), target -> source.
        intrinsics: `(B, 3, 3)` of both images.
        padding: what is seen outside of the source.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    batch, _, height, width = source.shape
    if depth.shape != (batch, height, width):
        raise ValueError(
            f"expected depth {(batch, height, width)} as the source, got {tuple(depth.shape)}"
        )
    rays = torch.linalg.solve_triangular(  # K is upper triangular
        intrinsics, pixel_grid(height, width, depth), upper=True
    )  # (B, 3, H*W)
    points = motion[:, :3, :3] @ (rays * depth.flatten(1)[:, None]) + motion[:, :3, 3:]
    seen = intrinsics @ points  # (B, 3, H*W)
    behind = seen[:, 2] < _NEAR
    z = seen[:, 2].clamp(min=_NEAR)
    span = seen.new_tensor([max(width - 1, 1), max(height - 1, 1)])[:, None]
    grid = 2 * (seen[:, :2] / z[:, None]) / span - 1  # (B, 2, H*W)
    inside = (grid.abs() <= 1 + _RIM).all(1) & ~behind
    grid = grid.transpose(1, 2).unflatten(1, (height, width))
    image = F.grid_sample(source, grid, mode="bilinear", padding_mode=padding, align_corners=True)
    size = (batch, height, width)
    return Warped(image, inside.view(size), seen[:, 2].view(size), grid)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity `(B, C, H, W)` of images in [0, 1], in windows of 3 x 3.

    Wang et al., "Image Quality Assessment", 2004, with mean filters and reflected borders as in
    view synthesis since Godard et al., CVPR 2017. 1 where the images agree.
    """
    c1, c2 = 0.01**2, 0.03**2

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)

    mu_a, mu_b = mean(a), mean(b)
    var_a = (mean(a * a) - mu_a * mu_a).clamp(min=0)
    var_b = (mean(b * b) - mu_b * mu_b).clamp(min=0)
    covariance = mean(a * b) - mu_a * mu_b
    numerator = (2 * mu_a * mu_b + c1) * (2 * covariance + c2)
    return numerator / ((mu_a * mu_a + mu_b * mu_b + c1) * (var_a + var_b + c2))


def smoothness(field: Tensor) -> Tensor:
    """Mean second differences of a field, `(B, H, W)` -> `(B,)`: 0 for a plane.

    |d2/dx2| + |d2/dxdy| + |d2/dydx| + |d2/dy2|, each a mean (Zhou et al., 2017).
    """
    dy, dx = field.diff(dim=-2), field.diff(dim=-1)
    terms = (dx.diff(dim=-1), dx.diff(dim=-2), dy.diff(dim=-1), dy.diff(dim=-2))
    return torch.stack([_mean(term.abs()) for term in terms]).sum(0)


def edge_smoothness(disparity: Tensor, image: Tensor) -> Tensor:
    """First differences of a disparity, cheap across edges of the image, `(B,)`.

    |d d*| exp(-|dI|) with d* = d / mean(d) (Godard et al., "Digging Into Self-Supervised Monocular
    Depth Estimation", ICCV 2019).

    Args:
        disparity: `(B, H, W)`.
        image: `(B, C, H, W)` in [0, 1].
    """
    relative = disparity / disparity.mean((-2, -1), keepdim=True)
    terms = [
        _mean(relative.diff(dim=axis).abs() * (-image.diff(dim=axis).abs().mean(1)).exp())
        for axis in (-1, -2)
    ]
    return torch.stack(terms).sum(0)


def _mean(field: Tensor) -> Tensor:
    """Mean over the image, 0 where a small image leaves no differences."""
    return field.flatten(1).sum(1) / max(field[0].numel(), 1)
