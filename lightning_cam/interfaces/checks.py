"""Somebody's own class against what is offered: misspelt names, wrong kinds, wrong signatures.

Only classes that are not installed libraries are looked at, and no property is called.
"""

from __future__ import annotations

import difflib
import inspect
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin, get_type_hints

from lightning_cam.errors import ConfigError
from lightning_cam.interfaces import offers

if TYPE_CHECKING:
    from torch import nn

_IN_WORDS = {
    str: "a name",
    int: "a whole number",
    bool: "true or false",
    Sequence[str]: "a list or tuple of names",
    tuple[str, str]: "a pair of names",
}


class Member(NamedTuple):
    """A name that can be offered.

    Attributes:
        kind: the type of a value; None for a method, and where anything will do.
        counts: with how many arguments a method is called; None for a value.
        arguments: their names.
    """

    kind: Any = None
    counts: tuple[int, ...] | None = None
    arguments: str = ""


def check_task(task: object, offered: Sequence[type] = offers.TASK) -> None:
    """Raise a ConfigError for a task that misspells what it offers.

    Args:
        task: a LightningModule.
        offered: the part of `offers.TASK` that will be asked for.
    """
    _check(task, offered, offers.TASK)


def as_explained(task: object) -> offers.Explains:
    """A task that can be explained with a batch.

    Raises:
        ConfigError: it cannot, and how it could.
    """
    if not isinstance(task, offers.Explains):
        raise ConfigError(
            f"{type(task).__name__} cannot be explained: give it a method "
            "explainable(batch) that returns lightning_cam.Explainable.of(...)"
        )
    return task


def as_task(task: object) -> offers.Task:
    """A task that can be explained with a batch and without.

    Raises:
        ConfigError: it is none; see `check_task` and `as_explained`.
    """
    check_task(task)
    as_explained(task)
    _check(task, (offers.Task,), offers.TASK)
    if not isinstance(task, offers.Task):
        raise ConfigError(f"{type(task).__name__} does not say on which `device` it is")
    return task


def check_data(data: object, offered: Sequence[type] = offers.DATA) -> None:
    """Raise a ConfigError for a data module or its reader that misspells what it offers.

    Args:
        data: a LightningDataModule.
        offered: the part of `offers.DATA` that will be asked for.
    """
    _check(data, offered, offers.DATA)
    if offers.HasReader in offered and isinstance(data, offers.HasReader):
        _check(data.reader, offers.READER)


def check_network(network: object) -> None:
    """Raise a ConfigError for a network that misspells what it offers."""
    _check(network, offers.NETWORK)


def check_part(network: object) -> None:
    """The same for a network for depth or motion."""
    _check(network, offers.PART)


def network_of(task: nn.Module) -> nn.Module:
    """The network inside a task: its part `model`; a task without is a network itself."""
    return dict(task.named_children()).get("model", task)


def _check(thing: object, offered: Sequence[type], others: Sequence[type] = ()) -> None:
    """Hold somebody's own class to what is offered; names of the others are not misspelt."""
    if not _is_own(type(thing)):  # type: ignore[arg-type]
        return
    known = members(tuple(offered))
    where = f"{type(thing).__module__}.{type(thing).__qualname__}"
    for name, member in known.items():
        value = _value(thing, name)
        if value is not None and (wrong := _wrong(value, member)):
            raise ConfigError(f"{where}.{name} {wrong}")
    for name in set(_own_names(thing)) - known.keys() - members(tuple(others)).keys():
        if meant := misspelt(name, _value(thing, name), known):
            raise ConfigError(
                f"{where} has {name!r}, which nothing reads; nearest: {meant} (a name that is "
                f"meant can begin with an underscore, '_{name}')"
            )


def _value(thing: object, name: str) -> Any:
    """What an object has under a name, without calling a property; None for nothing."""
    value = inspect.getattr_static(thing, name, None)
    if inspect.isfunction(value) or isinstance(value, staticmethod | classmethod):
        return getattr(thing, name)  # bound
    return value


@cache
def members(protocols: tuple[type, ...]) -> Mapping[str, Member]:
    """The names in these protocols."""
    found = {}
    for protocol in protocols:
        for name, value in vars(protocol).items():
            if name.startswith("_"):
                continue
            if isinstance(value, property):
                found[name] = Member(_kind(value))
            elif inspect.isfunction(value):
                taken = list(inspect.signature(value).parameters.values())[1:]
                needed = sum(p.default is p.empty for p in taken)
                names = ", ".join(p.name for p in taken)
                found[name] = Member(None, (needed, len(taken)), names)
    return found


def _kind(value: property) -> Any:
    try:
        return get_type_hints(value.fget)["return"]
    except NameError:  # of a library that is not loaded here
        return None


def misspelt(name: str, value: Any, known: Mapping[str, Member]) -> str | None:
    """The known name that somebody's own name is meant to be, if it is near one.

    A method is not a misspelt value, nor the reverse. A name of one word ("views") is a word of
    other people as well: there kind or signature must also fit.
    """
    near = []
    for other, member in known.items():
        word = "_" not in other
        if callable(value) == (member.counts is None) or (word and member.kind is object):
            continue
        likeness = _likeness(name, other)
        if likeness and not (word and _wrong(value, member)):
            near.append((likeness, other))
    return max(near)[1] if near else None


def _likeness(name: str, other: str) -> float:
    """How alike two names are, at most 1; 0 where a word of one is not near that of the other."""
    words, others = (text.lower().strip("_").split("_") for text in (name, other))
    cutoff = 0.8 if len(others) > 1 else 0.75 if len(other) > 4 else 0.85
    if "".join(words) == "".join(others):
        return 1.0
    if len(words) != len(others):
        return 0.0
    pairs = zip(words, others, strict=True)
    ratio = min(difflib.SequenceMatcher(None, a, b).ratio() for a, b in pairs)
    return ratio if ratio >= cutoff else 0.0


def _wrong(value: Any, member: Member) -> str:
    """What is wrong with something under a known name; "" if nothing is."""
    if isinstance(value, property | cached_property) or inspect.ismemberdescriptor(value):
        return ""  # what it gives shows when it is asked for
    if member.counts is None:
        if _fits(value, member.kind):
            return ""
        return f"must be {_IN_WORDS.get(member.kind, member.kind)}, got {value!r}"
    if not callable(value):
        return f"must be a method that takes ({member.arguments}), got {value!r}"
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # it has none
        return ""
    for count in member.counts:
        try:
            signature.bind(*[None] * count)
        except TypeError:
            takes = f"({member.arguments})" if count else "no argument as well"
            return f"must take {takes}, not {signature}"
    return ""


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind; a list will do for a tuple."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind is None or kind is Any:
        return True
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(kind, type):
        return isinstance(value, kind)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_fits(item, inside[1]) for item in value.values())
    if origin in (Sequence, tuple):
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        kinds = [inside[0]] * len(value) if listed and origin is Sequence else inside
        return listed and len(value) == len(kinds) and all(map(_fits, value, kinds))
    return any(_fits(value, one) for one in inside)  # a union


def _own_names(thing: object) -> Iterator[str]:
    """Public names that somebody's own class adds to the libraries' it derives from."""
    libraries = [base for base in type(thing).__mro__ if not _is_own(base)]
    theirs = {name for base in libraries for name in dir(base)}
    yield from (name for name in dir(thing) if not name.startswith("_") and name not in theirs)


@cache
def _is_own(cls: type) -> bool:
    """A class of the user's: neither Python's, nor this package's, nor of an installed one."""
    package = cls.__module__.split(".")[0]
    if package == "lightning_cam" or package in sys.stdlib_module_names:
        return False
    try:
        path = Path(inspect.getfile(cls))
    except (OSError, TypeError):  # typed in, as in a notebook
        return True
    installed = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return not any(path.is_relative_to(folder) for folder in installed)
