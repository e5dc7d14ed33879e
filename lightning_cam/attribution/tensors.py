"""Small tensor functions that the attribution methods share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cam.errors import ArgumentError, UserError


def fold_frames(activation: Tensor, batch: int) -> Tensor:
    """Read one activation as `(B, D, t, h, w)`.

    Args:
        activation: `(B, D, t, h, w)` of a 3-D network, or `(B*t, D, h, w)` where frames are folded
            into the batch, batch-major.
        batch: B, the number of clips.

    Raises:
        ArgumentError: if the activation is not a map or its first axis is not a multiple of B.
    """
    shape = tuple(activation.shape)
    if activation.ndim == 5 and shape[0] == batch:
        return activation
    if activation.ndim == 4 and shape[0] % batch == 0:
        return activation.unflatten(0, (batch, -1)).transpose(1, 2)  # (B, D, t, h, w)
    if activation.ndim == 5 and shape[0] % batch == 0:
        raise ArgumentError(
            f"expected an activation (B, D, t, h, w) with B={batch}, got {shape}: "
            f"{shape[0] // batch} rows for each clip; if these are pieces of the clip in time, say "
            'so: the layout "(b p) d t h w"; of crops or mirror images explain one, by '
            "Explainable.of(network, layers, forward=...), or choose a layer in front of them"
        )
    raise ArgumentError(
        f"expected an activation (B, D, t, h, w) or (B*t, D, h, w) with B={batch}, got {shape}; "
        "choose a layer that still has height and width, or say how this one is laid out: the "
        f"layout {_example(shape, batch)}, for example"
    )


def _example(shape: tuple[int, ...], batch: int) -> str:
    """A layout, and its grid, that would fit tokens of frames; else one to be changed."""
    frames, rest = divmod(shape[0], batch)
    if len(shape) == 3 and frames > 1 and not rest:
        for first in range(3):  # class token, and one of distillation
            side = isqrt(max(0, shape[1] - first))
            if side > 1 and side * side + first == shape[1]:
                tokens = f"({first} + h w)" if first else "(h w)"
                return f'"(b t) {tokens} d" with the grid {(frames, side, side)}'
    return '"b (1 + t h w) d" with the grid (8, 14, 14)'


def resize_heatmap(heatmap: Tensor, size: Sequence[int]) -> Tensor:
    """Trilinear `(B, t, h, w)` -> `(B, T, H, W)` for `size=(T, H, W)`, `align_corners=False`.

    With t < T the first and last frames form a plateau: the outermost samples of the map lie
    inside the clip and are held towards its ends.
    """
    if heatmap.shape[1] == size[0]:  # each frame on its own: the same numbers, five times faster
        return F.interpolate(heatmap, size=tuple(size[1:]), mode="bilinear", align_corners=False)
    return F.interpolate(heatmap[:, None], size=tuple(size), mode="trilinear", align_corners=False)[
        :, 0
    ]


def pick(outputs: Tensor, target: Tensor) -> Tensor:
    """Column `target` of the outputs: `(B, K)` -> `(B,)`, or `(B, T, K)` -> `(B, T)`.

    Raises:
        ArgumentError: if a target is not one of the K columns.
    """
    columns = outputs.shape[-1]
    if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < columns:
        raise ArgumentError(f"target must lie in 0..{columns - 1}, got {target.tolist()}")
    index = target.view(-1, *[1] * (outputs.ndim - 1)).expand(*outputs.shape[:-1], 1)
    return outputs.gather(-1, index).squeeze(-1)


class NoGradientError(UserError):
    """A score has no gradient to what is explained; `explain` says where it is lost."""

    def __init__(self) -> None:
        super().__init__(
            "what is explained has no gradient: no_grad, detach or the like cuts the network; take "
            "a layer behind that, or explain=occlusion, which needs none"
        )


def gradients(score: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Gradient of `score.sum()` to each input, zeros at those that the score does not depend on.

    Raises:
        NoGradientError: it depends on none of them.

    `torch.autograd.grad` leaves every `.grad` field alone. Rows of a batch do not mix in a network
    in eval mode, so one backward gives all rows' gradients.
    """
    [found] = gradients_of_groups(score, [inputs])
    return found or []


def gradients_of_groups(
    score: Tensor, groups: Sequence[Sequence[Tensor]]
) -> list[list[Tensor] | None]:
    """`gradients` to groups of inputs, by one backward; None of groups without influence.

    Raises:
        NoGradientError: the score depends on none of them.
    """
    if not score.requires_grad:
        raise NoGradientError
    inputs = [x for group in groups for x in group]
    found = iter(torch.autograd.grad(score.sum(), inputs, allow_unused=True))
    of_groups: list[list[Tensor] | None] = []
    for group in groups:
        pairs = [(x, next(found)) for x in group]
        none = all(g is None for _, g in pairs)
        each = [torch.zeros_like(x) if g is None else g for x, g in pairs]
        of_groups.append(None if none else each)
    if all(each is None for each in of_groups):
        raise NoGradientError
    return of_groups


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision becomes float32: sums over channels and pixels lose too much in 8-11 bits.

    So do whole numbers and truth values, in which there is no NaN.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def all_finite(values: Tensor) -> bool:
    """Whether all numbers are finite.

    A finite sum has finite terms: one pass, thirty times as fast as looking at each of them. Where
    it is not finite it may just be too large.
    """
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def finite_rows(values: Tensor) -> Tensor:
    """`(B,)` bool: in which rows of `(B, ...)` all numbers are finite; see `all_finite`."""
    rows = values.flatten(1)
    sound = rows.sum(1).isfinite()
    return sound if bool(sound.all()) else rows.isfinite().all(1)


def before_resizing(heat: Tensor, grid: Sequence[int]) -> Tensor | None:
    """The map `(t, h, w)` float64 that `resize_heatmap` made to this one `(T, H, W)`.

    Resizing is linear, and along each side by itself, so that it can be undone. None where the
    result is not this map again: padded frames were blanked since.
    """
    found = heat.double()
    sides = ("thw,xw->thx", "thw,xh->txw", "thw,xt->xhw")  # the side that shrinks most first
    for equation, n, size in zip(sides, reversed(grid), reversed(heat.shape), strict=True):
        if n != size:
            found = torch.einsum(equation, found, _smaller(n, size, found.dtype))
    again = resize_heatmap(found[None].to(heat.dtype), heat.shape)[0]
    close = again.sub_(heat).abs_().max() <= 1e-5 * heat.abs().max()
    return found if bool(close) else None


@lru_cache(maxsize=64)
def _smaller(n: int, size: int, dtype: torch.dtype) -> Tensor:
    """What makes n values again of the `size` that they were resized to, `(n, size)`."""
    unit = torch.eye(n, dtype=dtype)[:, None]
    resized = F.interpolate(unit, size=size, mode="linear", align_corners=False)
    return torch.linalg.pinv(resized[:, 0].T)
