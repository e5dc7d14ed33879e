"""What a method is: `Attribution`, the interface that `explain` asks.

The smallest method is a function `(model, clip, target) -> heatmap`. A method that has settings, a
name for images or a wish about the first run is a frozen dataclass derived from `Attribution`:

    @dataclass(frozen=True)
    class Saliency(Attribution):
        title = "Saliency"

        def run(self, model, clip):
            leaf = clip.detach().requires_grad_()
            return Forward(model.forward(leaf), {"clip": [leaf]})

        def __call__(self, model, clip, target):
            outputs, captured = self.first(model, clip)
            return gradients(model.score(outputs, target), captured["clip"])[0].abs().amax(1)

`explain` runs the clip once before it can know the columns to explain. `run` says how, so that the
same run serves the method: this one costs one forward and one backward. Without `run`, the method
may call `model.forward(clip)` itself, which costs a forward more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from lightning_cam.attribution.doubt import Doubt
from lightning_cam.attribution.explainable import Explainable, Forward
from lightning_cam.attribution.fields import check_fields
from lightning_cam.errors import ArgumentError

MapFunction = Callable[[Explainable, Tensor, Tensor], Tensor]  # (model, clip, target) -> heatmap
_SMOOTH = (4, 8, 8)  # cells of a smooth map of which nothing more is known
T = TypeVar("T", bound="LayerAttribution")


class Cost(NamedTuple):
    """What a method runs to explain one clip, the run that tells the column included.

    Not counted is what is measured once for a network whose layer runs several times, see `calls`.

    Attributes:
        forwards: runs of the network; of a part of it, behind a layer, as well.
        backwards: likewise, to a layer or to the clip.
    """

    forwards: int
    backwards: int = 0


class Attribution(ABC):
    """A method; its fields are its hyper-parameters.

    A class that derives from it may replace `title`, `floating`, `grainy`, `baseline`, `finds` and
    `doubts` by class attributes, and `both_signs` where its maps keep the positive part alone. A
    class that replaces `__post_init__` calls the one here first: it checks the fields, see
    `fields`.
    """

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def title(self) -> str:
        """The method's name in images."""
        return type(self).__name__

    @property
    def baseline(self) -> bool:
        """Whether its maps ignore the network: what others are compared with, drawn thin."""
        return False

    @property
    def floating(self) -> bool:
        """Whether 0 means nothing in its maps, see `Explanation.evidence`."""
        return False

    @property
    def grainy(self) -> bool:
        """Whether single voxels stand out of its maps, so that they are not smooth."""
        return False

    def grain(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """Of how many cells (t, h, w) a map of the size (T, H, W) is made.

        Of maps that were resized from a grid `explain` knows it, see `Explanation.grain`. Others:
        single voxels if they are `grainy`, else 4 x 8 x 8 cells unless a method knows better.
        """
        return size if self.grainy else at_most(_SMOOTH, size)

    @property
    def finds(self) -> tuple[str, ...]:
        """Names of all that it may write into `model.numbers`."""
        return ()

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """By which of its numbers a map is doubtful, see `doubt`."""
        return ()

    @property
    def both_signs(self) -> Attribution:
        """The same method with what speaks against the column, where its maps leave that out."""
        return self

    @abstractmethod
    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        """The heatmap `(B, T, H, W)`, higher is more important, not normalised.

        `explain` calls it inside the guard, and blanks padded frames. Choices the method made go
        into `model.notes`, what it found out of each clip into `model.numbers`.

        Args:
            model: what to explain.
            clip: `(B, C, T, H, W)` in model space.
            target: `(B,)` int64, the columns.

        Raises:
            UserError: the network has not what the method needs.
        """

    def cost(self, model: Explainable, clip: Tensor) -> Cost | None:
        """What it will run for each clip of a batch, at most where that depends on what comes out.

        None: it cannot say. A method whose cost depends on the network's features runs the batch
        once to know them.

        Args:
            model: what is to be explained.
            clip: `(B, C, T, H, W)`.
        """
        return None

    def run(self, model: Explainable, clip: Tensor) -> Forward:
        """Run the clip itself, and capture what the method needs of this run.

        To be replaced by methods that need more than the outputs.
        """
        with torch.no_grad():
            return Forward(model.forward(clip))

    def first(self, model: Explainable, clip: Tensor) -> Forward:
        """What `run` gives: the run that `explain` has made, where it is of this clip."""
        made = model.first_run
        if made is not None and made.method is self and made.clip is clip:
            return made.forward
        return self.run(model, clip)


@dataclass(frozen=True)
class LayerAttribution(Attribution):
    """A method that looks at a target layer.

    Args:
        layer: a name in `model.layers` or any dotted module name; None: the first.
    """

    layer: str | None = None

    @property
    def target_layers(self) -> tuple[str | None, ...]:
        """The layers it looks at, one for most methods; None: the network's first."""
        return (self.layer,)

    def at(self: T, layer: str | None) -> T:
        """The same method at another layer."""
        return replace(self, layer=layer)


@dataclass(frozen=True)
class _OfFunction(Attribution):
    """A plain function as a method."""

    function: MapFunction

    @property
    def title(self) -> str:
        function = self.function.func if isinstance(self.function, partial) else self.function
        return getattr(function, "__name__", type(function).__name__)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        return self.function(model, clip, target)


def at_most(cells: tuple[int, int, int], size: tuple[int, int, int]) -> tuple[int, int, int]:
    """A number of cells along each axis, at most that of the voxels."""
    t, h, w = map(min, cells, size)
    return t, h, w


def as_attribution(method: Attribution | MapFunction) -> Attribution:
    """The method itself, or a function as one.

    Raises:
        ArgumentError: if it cannot be called with `(model, clip, target)`.
    """
    if isinstance(method, Attribution):
        return method
    if isinstance(method, type):
        raise ArgumentError(
            f"a method is an object; pass {method.__name__}() in place of the class"
        )
    if not callable(method) or isinstance(method, torch.nn.Module):
        what = f"the text {method!r}" if isinstance(method, str) else type(method).__name__
        raise ArgumentError(
            f"expected a method such as GradCAM(), got {what}; the order is explain(model, method, "
            "clip, target)"
        )
    return _OfFunction(method)


def without_layer(methods: Mapping[str, Attribution]) -> list[str]:
    """Names of the methods that look into the network's default layer."""
    return [
        name
        for name, method in methods.items()
        if isinstance(method, LayerAttribution) and None in method.target_layers
    ]
