"""Fields of methods, measures and protocols: their types say what they may hold."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
from omegaconf import OmegaConf

import lightning_cam as lc
from lightning_cam.attribution.fields import (
    Cells,
    Count,
    CountOrZero,
    Finite,
    Fraction,
    Positive,
    Seed,
    Share,
    ZeroOrMore,
    check_fields,
)
from lightning_cam.errors import ArgumentError
from tests import enumerated


@dataclass(frozen=True)
class Everything:
    count: Count = 1
    count_or_zero: CountOrZero = 0
    seed: Seed = 0
    positive: Positive = 1.0
    zero_or_more: ZeroOrMore = 0.0
    share: Share = 1.0
    fraction: Fraction = 0.5
    cells: Cells | None = None
    fractions: tuple[Fraction, ...] = ()
    kind: Literal["a", "b"] | None = "a"
    choice: Literal["area"] | Finite = "area"
    name: str | None = None
    flag: bool = False
    whole: int = 0
    number: float = 0.0
    other: Any = None

    def __post_init__(self) -> None:
        check_fields(self)


NAN, INF = float("nan"), float("inf")
WRONG: dict[str, list[Any]] = {
    "count": [0, -1, 2.5, 2.0, True, "3", NAN, None, [1], np.float32(2)],
    "count_or_zero": [-1, 0.0, False],
    "seed": [2**63, -(2**63) - 1, 2**70, 0.5, None],
    "positive": [0, -1, NAN, INF, "1", True, 1j, None],
    "zero_or_more": [-1e-9, NAN, -INF, INF],
    "share": [0, 1.01, NAN],
    "fraction": [0, 1, NAN, True],
    "cells": [(1, 2), (1, 2, 0), (1, 2, 3.0), (1, 2, True), "123", 5, (1, 2, 3, 4), {1, 2, 3}],
    "fractions": [0.1, (0.1, 1.0), ("0.1",), None],
    "kind": ["c", "A", 0, ["a"]],
    "choice": ["areas", NAN, INF, True, None],
    "name": [2.5, True, ["x"]],
    "flag": [1, 0, "yes", None],
    "whole": [2.5, True, "1"],
    "number": ["x", True, None],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_what_a_field_cannot_hold_is_refused(name: str, value: Any) -> None:
    """Wrong types, numbers that are not finite or out of bounds, `True` for 1."""
    with pytest.raises(ArgumentError, match=f"^{name} must be [^\n]+, got [^\n]+$"):
        Everything(**{name: value})


def test_what_a_field_can_hold_is_taken_as_it_is() -> None:
    given = {
        "count": np.int64(3), "seed": -5, "positive": np.float32(0.5), "share": 1, "choice": 0.3,
        "cells": (1, 2, 3), "fractions": (0.1, 0.9), "kind": None, "name": "conv", "flag": True,
        "number": INF, "other": object(),
    }  # fmt: skip
    made = Everything(**given)
    for name, value in given.items():
        assert getattr(made, name) is value


def test_lists_become_tuples_and_numbers_of_layers_names() -> None:
    """As configurations give them."""
    listed = OmegaConf.create([1, 2, 3])
    made = Everything(cells=listed, fractions=[0.5], name=2)  # type: ignore[arg-type]
    assert (made.cells, made.fractions, made.name) == ((1, 2, 3), (0.5,), "2")


def settings() -> list[tuple[type, str]]:
    """Every field of every method, measure and protocol."""
    kinds: list[Any] = [
        *enumerated.method_classes(), *enumerated.measure_classes(), lc.Protocol,
    ]  # fmt: skip
    return [(kind, f.name) for kind in kinds for f in dataclasses.fields(kind) if f.init]


@pytest.mark.attack
@pytest.mark.parametrize("wrong", [NAN, object()], ids=["NaN", "an object"])
def test_every_setting_is_checked(wrong: object) -> None:
    """Every setting of every method, measure and protocol, given NaN and an object."""
    for kind, name in settings():
        with pytest.raises(ValueError, match=rf"^({name} must be|protocol=)"):
            kind(**{name: wrong})
