"""What a measure is, and what it looks at: explained clips.

A measure is an object with a direction and a value per clip; its name is the key under which a
configuration or a mapping holds it. `scores.csv`, the training callback's curves and a study's
tables, plots and claims take any number of them, in the order of the mapping. To add one, write a
frozen dataclass like this one and a YAML file that names it, `configs/measure/peak.yaml`:

    @dataclass(frozen=True)
    class Peak(Measure):
        title = "Peak heat"
        better = "higher"
        needs = frozenset({"map"})

        def __call__(self, explained: Explained) -> Tensor:
            return explained.heat.amax((1, 2, 3))
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.explanation import Explanation
from lightning_cam.attribution.fields import check_fields
from lightning_cam.attribution.guard import explaining
from lightning_cam.attribution.tensors import finite_rows
from lightning_cam.metrics.deletion_insertion import Curve

Direction = Literal["higher", "lower"]
Need = Literal["model", "clip", "map", "truth", "other", "method"]
_PART = "mask/"  # begins the batch's keys of the parts of the ground truth
T = TypeVar("T")


@dataclass(frozen=True)
class Explained:
    """Clips and the explanation of one column of each, as measures see them.

    Attributes:
        model: bound to these clips' batch.
        clip: `(B, C, T, H, W)` in model space.
        explanation: of these clips.
        batch: what the data say: "valid" `(B, T)` marks frames that are not padding, "mask"
            `(B, T, H, W)`, "action" `(B, T)` and "mask/PART" `(B, T, H, W)` are ground truth,
            "judged" `(B, T)` the frames where it is known.
        other: `(B, C, T, H, W)`, another clip of the same data for each, for measures that ask what
            any two clips have in common; None where there is none.
        shared: what measures computed once for these clips, whatever the method; the same mapping
            for all explanations of them. See `once`.
        numbers: takes what the measure found out beside its value, name -> `(B,)`. Tables have it
            as MEASURE_NAME, see `number_column`.
    """

    model: Explainable
    clip: Tensor
    explanation: Explanation
    batch: Mapping[str, Any] = field(default_factory=dict)
    other: Tensor | None = field(default=None, kw_only=True)
    shared: dict[Hashable, Any] = field(default_factory=dict)
    numbers: dict[str, Tensor] = field(default_factory=dict)

    @property
    def valid(self) -> Tensor:
        """`(B, T)` bool on the CPU: frames that are not padding."""
        valid = self.batch.get("valid", self.model.valid)
        if valid is None:
            return torch.ones(self.explanation.heatmap.shape[:2], dtype=torch.bool)
        return valid.cpu().bool()

    @property
    def judged(self) -> Tensor:
        """`(B, T)` bool on the CPU: frames whose ground truth is known; all, where none says so."""
        judged = self.batch.get("judged")
        return self.valid if judged is None else self.valid & judged.cpu().bool()

    @property
    def heat(self) -> Tensor:
        """`(B, T, H, W)` on the CPU: the map's evidence, 0 in the padding."""
        return self.explanation.evidence.cpu() * self.valid[:, :, None, None]

    @property
    def parts(self) -> list[str]:
        """Names of the parts of the ground truth."""
        return [key.removeprefix(_PART) for key in self.batch if key.startswith(_PART)]

    @property
    def has_truth(self) -> bool:
        """Whether any of these clips has ground truth."""
        return any(bool(self.truth(region).any()) for region in ("actor", *self.parts))

    def truth(self, region: str) -> Tensor:
        """Ground truth on the CPU, False throughout for clips without any.

        Args:
            region: "actor" `(B, T, H, W)`; "action", its interval `(B, T)`; or one of `parts`.
        """
        shape = self.explanation.heatmap.shape
        nothing = torch.zeros(shape[:2] if region == "action" else shape, dtype=torch.bool)
        key = {"actor": "mask", "action": "action"}.get(region, f"{_PART}{region}")
        if key not in self.batch:
            return nothing
        found = self.batch[key].cpu().bool()
        if key.startswith(_PART):
            return found
        if "mask" not in self.batch:
            return nothing
        known = self.batch["mask"].cpu().bool().flatten(1).any(1)  # who acts is seen somewhere
        return torch.where(_like(known, found), found, nothing)

    def once(self, key: Hashable, work: Callable[[], T]) -> T:
        """What `work` returns, computed for the first explanation of these clips alone."""
        if key not in self.shared:
            self.shared[key] = work()
        return self.shared[key]


class Measure(ABC):
    """How good a map is: a callable, usually a frozen dataclass whose fields are its settings.

    The properties below are plain class attributes of most measures. A class that replaces
    `__post_init__` calls the one here first: it checks the fields, see `attribution.fields`.
    """

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    @abstractmethod
    def title(self) -> str:
        """What tables and pages call it."""

    @property
    @abstractmethod
    def better(self) -> Direction | None:
        """Whether higher or lower values are good.

        None where neither is: such a measure is shown, but nothing is set in bold and no claim is
        decided by it.
        """

    @property
    @abstractmethod
    def needs(self) -> frozenset[Need]:
        """What it looks at.

        "map", "clip"; "model": the network is run, and maps that know nothing of it are measured
        as well; "truth": it is not called where no clip has ground truth; "other": another clip
        of the same data, where there is one; "method": that makes maps again, of changed clips or
        networks. What is asked is then about the method, and no other map is compared with it.
        """

    @property
    def settings(self) -> str:
        """How it was set, in words, where that changes the numbers: "rise, steps=20"."""
        return ""

    @property
    def number_titles(self) -> Mapping[str, str]:
        """What pages call the numbers it finds beside its value: name -> words, else the name."""
        return {}

    @abstractmethod
    def __call__(self, explained: Explained) -> Tensor:
        """`(B,)`: a number per clip, NaN where it has none. A clip's does not depend on others."""


class CurveMeasure(Measure):
    """A measure that is the area under a curve, which is drawn beside the number."""

    @property
    @abstractmethod
    def axis(self) -> str:
        """What stands below the curve: "share of the clip hidden, hottest first"."""

    @abstractmethod
    def curve(self, explained: Explained) -> Curve:
        """The curve of each clip."""

    def area(self, curve: Curve) -> Tensor:
        """`(B,)`, the value that stands for a curve."""
        return curve.auc

    def scored(self, classes: bool, column: str) -> str:
        """What the curve shows of a column, in words.

        Args:
            classes: whether the columns are classes.
            column: its name, or "the explained class".
        """
        return f"probability of {column}" if classes else column

    def __call__(self, explained: Explained) -> Tensor:
        return self.area(self.curve(explained))


@dataclass(frozen=True)
class Measured:
    """What measures found of explained clips; everything on the CPU.

    Attributes:
        values: measure -> `(B,)`, NaN where there is none.
        numbers: measure -> what it found out beside its value, name -> `(B,)`.
        curves: measure -> curves, of those that have any.
        failed: measure -> what it raised.
    """

    values: Mapping[str, Tensor]
    numbers: Mapping[str, Mapping[str, Tensor]]
    curves: Mapping[str, Curve]
    failed: Mapping[str, Exception]

    @property
    def beside(self) -> dict[str, Tensor]:
        """Column of tables -> `(B,)`, of all that was found beside the values."""
        return {
            number_column(name, number): value
            for name, numbers in self.numbers.items()
            for number, value in numbers.items()
        }

    def texts(self) -> dict[str, str]:
        """The values and numbers of one clip (B = 1) as they stand in tables, "" where none is."""
        found = {name: float(value[0]) for name, value in {**self.values, **self.beside}.items()}
        return {name: "" if math.isnan(n) else format_number(n, 4) for name, n in found.items()}


def number_column(measure: str, number: str) -> str:
    """The column of what a measure found beside its value: "deletion_tied"."""
    return f"{measure}_{number}"


def measure(measures: Mapping[str, Measure], explained: Explained) -> Measured:
    """Measure explained clips; a measure that raises has no value, and the others go on.

    A map that is not finite has no value by any measure.

    The network is guarded as in `explain`: measures leave it as it was. Each measure gets copies
    of the clip, the explanation and the batch, so that none can change what the next one sees.
    """
    none = torch.full((len(explained.clip),), torch.nan)
    broken = ~finite_rows(explained.explanation.heatmap).cpu()
    values: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Tensor]] = {}
    curves: dict[str, Curve] = {}
    failed: dict[str, Exception] = {}
    taken = set(measures)  # columns
    with explaining(explained.model.module):
        for name, each in measures.items():
            values[name] = none
            if "truth" in each.needs and not explained.has_truth:
                continue
            own = replace(
                explained,
                clip=_copied(explained.clip),
                other=_copied(explained.other),
                explanation=_copied(explained.explanation),
                batch=_copied(explained.batch),
                numbers={},
            )
            try:
                curve = None
                if isinstance(each, CurveMeasure):
                    curve = each.curve(own)
                    found = each.area(curve)
                else:
                    found = each(own)
                value = _per_clip(found, len(none), f"measure {name} returned")
                beside = {
                    number: _per_clip(n, len(none), f"measure {name} found as {number!r}")
                    for number, n in own.numbers.items()
                }
                for number in beside:
                    if (column := number_column(name, number)) in taken:
                        raise ValueError(
                            f"measure {name} finds {number!r}, but the column {column} is that of "
                            "another measure; rename one of them"
                        )
            except Exception as error:
                failed[name] = error
                continue
            values[name] = torch.where(broken, torch.nan, value)
            numbers[name] = {k: torch.where(broken, torch.nan, n) for k, n in beside.items()}
            taken.update(number_column(name, number) for number in beside)
            if curve is not None:
                curves[name] = curve.cpu()
    return Measured(values, numbers, curves, failed)


def _per_clip(found: Any, clips: int, whose: str) -> Tensor:
    """`(B,)` on the CPU, if it is such a tensor."""
    if isinstance(found, Tensor) and found.shape == (clips,):
        return found.detach().cpu()
    kind = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
    raise TypeError(f"{whose} {kind}, expected a tensor (B,), here ({clips},)")


def _copied(found: Any) -> Any:
    """The same with tensors of its own."""
    if isinstance(found, Tensor):
        return found.clone()
    if isinstance(found, Explanation):
        own = {field.name: _copied(getattr(found, field.name)) for field in fields(found)}
        return replace(found, **own)
    if isinstance(found, Mapping):
        return {name: _copied(value) for name, value in found.items()}
    return found


def format_number(value: float, decimals: int, like: float | None = None, sign: str = "") -> str:
    """A number as tables show it; one that would round to 0 with two significant digits.

    Args:
        value: the number.
        decimals: after the point.
        like: the number whose size decides, for an interval beside its mean; None: the value's.
        sign: "+" shows that of positive numbers as well.
    """
    size = value if like is None else like
    small = size != 0 and round(size, decimals) == 0
    return format(value, f"{sign}.2g" if small else f"{sign}.{decimals}f")


def titles(measures: Mapping[str, Measure]) -> dict[str, str]:
    """What tables call measures: by their titles, two of one title by their names."""
    own = [each.title for each in measures.values()]
    return {
        name: each.title if own.count(each.title) == 1 else name for name, each in measures.items()
    }


def settings_of(measures: Mapping[str, Measure]) -> str:
    """How measures were set, in words: "deletion, insertion (default, steps=20)"."""
    alike: dict[str, list[str]] = {}
    for name, each in measures.items():
        alike.setdefault(each.settings, []).append(name)
    return "; ".join(
        ", ".join(names) + (f" ({words})" if words else "") for words, names in alike.items()
    )


def _like(known: Tensor, found: Tensor) -> Tensor:
    return known.view(-1, *(1 for _ in found.shape[1:])).expand_as(found)
