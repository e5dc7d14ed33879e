"""How a layer's output is laid out, as one string, such as `"b (1 + t h w) d"`.

The axes are b (batch), t, h, w (steps, rows, columns), d (channels) and p (pieces of the clip, in
order). Axes in parentheses are one axis of the tensor, the last one varying fastest, as in einops;
`N +` says that N leading tokens (class tokens) come before them, `+ N` that they come behind.
Examples:

    b d t h w              a 3-D CNN
    (b t) d h w            frames folded into the batch
    (t b) d h w            the same, time-major
    b t h w d              Swin3D
    b (1 + t h w) d        ViViT, MViT: tokens behind a class token
    b (1 + h w t) d        TimeSformer
    (b p) d t h w          a 3-D CNN on pieces of the clip
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from torch import Tensor

from lightning_cam.errors import ArgumentError

Grid = tuple[int | None, int | None, int | None]  # t, h, w; None follows from the tensor

_NEEDED = "bdhw"
_EXAMPLE = 'write for example "b (1 + t h w) d"'
_PART = re.compile(r"\(\s*(?:(\d+)\s*\+)?((?:\s*[a-z])+)\s*(?:\+\s*(\d+)\s*)?\)|([a-z])(?![a-z])")


class Part(NamedTuple):
    """One axis of the tensor: the axes joined in it, and how many tokens stand around these."""

    lead: int
    joined: str
    trail: int


@dataclass(frozen=True)
class Layout:
    """What the axes of an activation are.

    Attributes:
        text: as it was written.
        parts: the axes of the tensor.
        grid: where axes that are joined have to be told apart.
    """

    text: str
    parts: tuple[Part, ...]
    grid: Grid | None = None

    @classmethod
    def of(cls, text: str, grid: Sequence[int] | None = None) -> Layout:
        """Read a string.

        Raises:
            ArgumentError: it is not a layout, or the grid is not three positive numbers.
        """
        if not isinstance(text, str):
            raise ArgumentError(
                f"a layout is a text, got {type(text).__name__} {text!r}; {_EXAMPLE}"
            )
        parts, rest = [], text.strip()
        while rest:
            if not (found := _PART.match(rest)):
                raise ArgumentError(f"layout {text!r} cannot be read from {rest!r} on; {_EXAMPLE}")
            lead, joined, trail, alone = found.groups()
            parts.append(Part(int(lead or 0), alone or "".join(joined.split()), int(trail or 0)))
            rest = rest[found.end() :].lstrip()
        axes = "".join(part.joined for part in parts)
        if unknown := sorted(set(axes) - set("btdhwp")):
            raise ArgumentError(
                f"layout {text!r} has the axis {unknown[0]!r}; axes are b t h w d, and p for "
                f"pieces of a clip: {_EXAMPLE}"
            )
        if twice := [axis for axis in dict.fromkeys(axes) if axes.count(axis) > 1]:
            raise ArgumentError(
                f"layout {text!r} has the axis {twice[0]!r} twice; name each once: {_EXAMPLE}"
            )
        if missing := [axis for axis in _NEEDED if axis not in axes]:
            raise ArgumentError(f"layout {text!r} lacks the axis {missing[0]!r}; {_EXAMPLE}")
        if any(part.lead + part.trail and "b" in part.joined for part in parts):
            raise ArgumentError(
                f"layout {text!r} has tokens among the clips of the batch; {_EXAMPLE}"
            )
        return cls(text, tuple(parts), _checked_grid(grid))

    @property
    def single(self) -> bool:
        """Whether the layer sees single frames: t is joined to b, or there is none."""
        axes = "".join(part.joined for part in self.parts)
        return "t" not in axes or any({"b", "t"} <= set(part.joined) for part in self.parts)

    def fold(self, activation: Tensor, batch: int, layer: str) -> Tensor:
        """An activation as `(B, D, t, h, w)`; a view where memory allows, through which gradients
        flow.

        Args:
            activation: laid out as `text` says.
            batch: B.
            layer: its name, for the error.

        Raises:
            ArgumentError: its shape does not fit.
        """
        shape = tuple(activation.shape)
        if len(shape) != len(self.parts):
            raise self._unfit(layer, shape, f"it has {len(shape)} axes, not {len(self.parts)}")
        known = {"b": batch}
        if self.grid is not None:
            known.update({a: n for a, n in zip("thw", self.grid, strict=True) if n is not None})
        sizes: dict[str, int] = {}
        for axis, (lead, joined, trail) in enumerate(self.parts):
            length = shape[axis] - lead - trail
            sizes.update(self._sizes(joined, length, known, layer, shape))
            if lead or trail:
                activation = activation.narrow(axis, lead, length)
        names = "".join(part.joined for part in self.parts)
        apart = activation.reshape([sizes[name] for name in names])
        order = [name for name in "bdpthw" if name in names]
        ordered = apart.permute([names.index(name) for name in order])
        steps = sizes.get("p", 1) * sizes.get("t", 1)
        return ordered.reshape(batch, sizes["d"], steps, sizes["h"], sizes["w"])

    def _sizes(
        self, joined: str, length: int, known: dict[str, int], layer: str, shape: tuple[int, ...]
    ) -> dict[str, int]:
        """The sizes of the axes joined in one of the given length."""
        sizes = {axis: known[axis] for axis in joined if axis in known}
        free = [axis for axis in joined if axis not in known]
        if len(free) > 1:
            raise self._unfit(
                layer, shape, f"the sizes of {' and '.join(free)} joined in one axis are not known"
            )
        size = prod(sizes.values())
        if length < 1 or length % size or (not free and length != size):
            told = " x ".join(f"{axis}={n}" for axis, n in sizes.items()) or "one or more"
            raise self._unfit(layer, shape, f"({' '.join(joined)}) = {length}, expected {told}")
        return sizes | dict.fromkeys(free, length // size)

    def _unfit(self, layer: str, shape: tuple[int, ...], why: str) -> ArgumentError:
        return ArgumentError(
            f"layer {layer!r} returns {shape}, which does not fit layout {self.text!r} with grid "
            f"{self.grid}: {why}; give the layout of this layer and its grid (t, h, w)"
        )


def _checked_grid(grid: Sequence[int] | None) -> Grid | None:
    if grid is None:
        return None
    sizes = () if isinstance(grid, str | int) else tuple(grid)
    if len(sizes) != 3 or not all(type(n) is int and n > 0 for n in sizes):
        raise ArgumentError(
            f"grid is {grid!r}; it is three positive numbers, for example (8, 14, 14) for 8 "
            "steps of 14 x 14"
        )
    t, h, w = sizes
    return t, h, w
