"""What the fields of a method may hold: their types say it, and they are checked when it is made.

    @dataclass(frozen=True)
    class Mine(Attribution):
        masks: Count = 2000
        sigma: Positive = 0.15
        kind: Literal["mean", "square"] = "mean"
        cells: Cells | None = None

`Mine(masks=2.5)` raises "masks must be a whole number from 1 on, got 2.5". Measures and protocols
are checked in the same way. Other types than those below, and `int`, `float`, `bool`, `str`,
`Literal`, tuples and unions of them, are not checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from lightning_cam.errors import ArgumentError


@dataclass(frozen=True)
class Rule:
    """What more than its type a value has to satisfy.

    Attributes:
        words: what it must be, as in "masks must be WORDS".
        holds: whether a value of the type is that.
    """

    words: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Rule("a whole number from 1 on", lambda n: n >= 1)]
CountOrZero = Annotated[int, Rule("a whole number from 0 on", lambda n: n >= 0)]
Seed = Annotated[int, Rule("a whole number below 2**63", lambda n: -(2**63) <= n < 2**63)]
Finite = Annotated[float, Rule("a finite number", math.isfinite)]
Positive = Annotated[float, Rule("a finite number above 0", lambda x: 0 < x < math.inf)]
ZeroOrMore = Annotated[float, Rule("a finite number, 0 or more", lambda x: 0 <= x < math.inf)]
Share = Annotated[float, Rule("a number above 0, at most 1", lambda x: 0 < x <= 1)]
Fraction = Annotated[float, Rule("a number between 0 and 1, both excluded", lambda x: 0 < x < 1)]
ZeroToOne = Annotated[float, Rule("a number from 0 to 1", lambda x: 0 <= x <= 1)]
Rate = Annotated[float, Rule("a number from 0.1 to 240", lambda x: 0.1 <= x <= 240)]  # of frames
Cells = Annotated[
    tuple[int, int, int], Rule("three whole numbers from 1 on", lambda cells: min(cells) >= 1)
]

Names = Annotated[
    tuple[str, ...], Rule("different names", lambda names: 0 < len(names) == len(set(names)))
]


class _MisfitError(Exception):
    """A value is not what its type asks for."""


def check_fields(made: Any) -> None:
    """Check the fields of a frozen dataclass by their types; lists become tuples where asked for.

    Raises:
        ArgumentError: one of them holds something else; which, and what it must be.
    """
    for name, hint in _hints(made.__class__).items():
        given = getattr(made, name)
        value = fitted(name, given, hint)
        if value is not given:
            object.__setattr__(made, name, value)


def fitted(name: str, given: Any, hint: Any) -> Any:
    """An argument as its type wants it.

    Raises:
        ArgumentError: it is something else; which, and what it must be.
    """
    try:
        return _fitted(given, hint)
    except _MisfitError:
        raise ArgumentError(f"{name} must be {_words(hint)}, got {given!r}") from None


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    try:
        hints = get_type_hints(kind, include_extras=True)
    except NameError:  # a class of the user's that imports its types for the type checker alone
        return {}
    return {field.name: hints[field.name] for field in fields(kind)}


def _fitted(value: Any, hint: Any) -> Any:
    """The value as the type wants it."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        value = _fitted(value, args[0])
        return _if(all(rule.holds(value) for rule in args[1:] if isinstance(rule, Rule)), value)
    if origin in (Union, UnionType):
        return _first_that_fits(value, args)
    if origin is Literal:
        return _if(any(type(value) is type(arg) and value == arg for arg in args), value)
    if origin is tuple:
        return _fitted_tuple(value, args)
    if hint is bool:
        return _if(isinstance(value, bool), value)
    if hint is int:
        return _if(isinstance(value, Integral) and not isinstance(value, bool), value)
    if hint is float:
        return _if(isinstance(value, Real) and not isinstance(value, bool), value)
    if hint is str:  # a layer of an nn.Sequential is called by its number
        return str(_fitted(value, int)) if isinstance(value, Integral) else _if(
            isinstance(value, str), value)  # fmt: skip
    if hint in (None, NoneType):
        return _if(value is None, value)
    return value


def _if(fits: bool, value: Any) -> Any:
    if not fits:
        raise _MisfitError
    return value


def _first_that_fits(value: Any, hints: tuple[Any, ...]) -> Any:
    for hint in hints:
        try:
            return _fitted(value, hint)
        except _MisfitError:
            continue
    raise _MisfitError


def _fitted_tuple(value: Any, hints: tuple[Any, ...]) -> Any:
    _if(isinstance(value, Sequence) and not isinstance(value, str), value)
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(value)
    _if(len(value) == len(hints), value)
    fitted = tuple(_fitted(v, hint) for v, hint in zip(value, hints, strict=True))
    same = isinstance(value, tuple) and fitted == value
    return value if same else fitted  # the same object where nothing was to be changed


def _words(hint: Any) -> str:
    """What a value of the type is, for a message."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return next((r.words for r in args[1:] if isinstance(r, Rule)), _words(args[0]))
    if origin in (Union, UnionType):
        return _words_of_union(args)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin is tuple:
        inner = _words(args[0])
        return f"several of: {inner}" if args[-1] is Ellipsis else f"{len(args)} of: {inner}"
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return plain.get(hint) or str(hint)


def _words_of_union(hints: tuple[Any, ...]) -> str:
    choices = [str(arg) for hint in hints if get_origin(hint) is Literal for arg in get_args(hint)]
    others = [_words(h) for h in hints if get_origin(h) is not Literal and h is not NoneType]
    if NoneType in hints:
        (choices or others).append("None")
    return " or ".join([f"one of {', '.join(choices)}"] * bool(choices) + others)
