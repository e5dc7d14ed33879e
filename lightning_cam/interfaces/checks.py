"""Somebody's own class against what is offered: misspelt names, wrong kinds, wrong signatures.

Only classes that are not installed libraries are looked at, and no property is called. A name that
can hardly mean anything else is an error; an everyday word (`offers.EVERYDAY`) that does not fit
means something else there: it is not offered (`is_offered`), and a warning says so.
"""

from __future__ import annotations

import inspect
import numbers
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    NamedTuple,
    TypeGuard,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

from lightning_cam.errors import ConfigError
from lightning_cam.interfaces import offers

if TYPE_CHECKING:
    from torch import nn

_P = TypeVar("_P")
_ABSENT = object()
_IN_WORDS = {
    str: "a name",
    str | None: "a name or None",
    str | Path: "a path",
    int: "a whole number",
    bool: "true or false",
    Sequence[str]: "a list or tuple of names",
    Sequence[int]: "a list or tuple of whole numbers",
    Sequence[Any]: "a list or tuple",
    Mapping[str, Sequence[int]]: "a mapping from names to lists of numbers",
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


def is_offered(thing: object, protocol: type[_P]) -> TypeGuard[_P]:
    """Whether something offers what a protocol says.

    This is `isinstance`, but where somebody's own class uses an everyday word in another sense.
    """
    if not isinstance(thing, protocol):
        return False
    if not _is_own(type(thing)):  # type: ignore[arg-type]
        return True
    return not any(
        value is None or _wrong(value, member)
        for name, member in members((protocol,)).items()
        if name in offers.EVERYDAY
        for value in [_value(thing, name)]
    )


def network_of(task: nn.Module) -> nn.Module:
    """The network inside a task: its part `model`; a task without is a network itself."""
    return dict(task.named_children()).get("model", task)


def _check(thing: object, offered: Sequence[type], others: Sequence[type] = ()) -> None:
    """Hold somebody's own class to what is offered; names of the others are not misspelt."""
    if not _is_own(type(thing)):  # type: ignore[arg-type]
        return
    whole = [one for one in offered if all(_has(thing, name) for name in members((one,)))]
    where = f"{type(thing).__module__}.{type(thing).__qualname__}"
    for name, member in members(tuple(whole)).items():
        value = _value(thing, name)
        if value is None or not (wrong := _wrong(value, member)):
            continue
        if name not in offers.EVERYDAY:
            raise ConfigError(f"{where}.{name} {wrong}")
        _warn(f"{where}.{name} is ignored: for lightning_cam it {wrong}", name)
    known = members(tuple(offered))
    names = set(_own_names(thing)) - known.keys() - members(tuple(others)).keys()
    for name in sorted(names):
        if not (meant := misspelt(name, _value(thing, name), _candidates(thing, offered))):
            continue
        found = f"{where} has {name!r}, which lightning_cam does not read; nearest: {meant}"
        if meant in offers.EVERYDAY or _has(thing, meant):
            _warn(found, name)
        else:
            raise ConfigError(
                f"{found} (a name that is meant can begin with an underscore, '_{name}')"
            )


def _warn(line: str, name: str) -> None:
    warnings.warn(
        f"{line} (no warning if the name is meant and begins with an underscore, '_{name}')",
        stacklevel=1,  # one place, so that Python says the same line once
    )


def _candidates(thing: object, offered: Sequence[type]) -> dict[str, Member]:
    """What a name of somebody's own class can be meant to be.

    Not what that class has under the right name, and no everyday word that would not do alone,
    for the others of its protocol are absent.
    """
    own = set(_own_names(thing, but_inherited=False))
    found: dict[str, Member] = {}
    for protocol in offered:
        these = members((protocol,))
        absent = {name for name in these if not _has(thing, name)}
        alone = {name for name in these if name in offers.EVERYDAY and absent - {name}}
        found |= {name: these[name] for name in these.keys() - own - alone}
    return found


def _has(thing: object, name: str) -> bool:
    return inspect.getattr_static(thing, name, _ABSENT) is not _ABSENT


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

    What has that name must fit as well: its kind, or the arguments of a method; one name will do
    for a list of names. An everyday word with several arguments must have one of theirs by name.
    """
    for other, member in known.items():
        if member.kind is object or not is_near(name, other) or value is None:
            continue
        if member.kind == Sequence[str] and isinstance(value, str) and "_" in other:
            return other
        fits = callable(value) == (member.counts is not None) and not _wrong(value, member)
        if fits and (other not in offers.EVERYDAY or _shares_arguments(value, member)):
            return other
    return None


def _shares_arguments(value: Any, member: Member) -> bool:
    wanted = member.arguments.split(", ")
    if member.counts is None or len(wanted) < 2:
        return True
    try:
        return not set(wanted).isdisjoint(inspect.signature(value).parameters)
    except (TypeError, ValueError):  # it has none
        return False


def is_near(name: str, other: str) -> bool:
    """Whether a name is one slip away from another in each of its words.

    The first letter of a word stays, and short words stay whole: `num_words`, `glasses` and `rows`
    are not slips of `num_workers`, `classes` and `root`.
    """
    words, others = (text.lower().strip("_").split("_") for text in (name, other))
    if "".join(words) == "".join(others):
        return True
    return len(words) == len(others) and all(map(_one_slip, words, others))


def _one_slip(word: str, other: str) -> bool:
    """At most one letter is wrong, missing, added, or swapped with the next."""
    if word == other or word.removesuffix("ums") + "a" == other:  # "spectrums"
        return True
    shorter = min(len(word), len(other))
    if word[:1] != other[:1] or shorter < (5 if len(word) == len(other) else 4):
        return False
    same = next((i for i in range(shorter) if word[i] != other[i]), shorter)
    a, b = word[same:], other[same:]
    swapped = a[:2] == b[:2][::-1] and a[2:] == b[2:]
    return swapped or a[1:] == b[1:] or a[1:] == b or a == b[1:]


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
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if isinstance(kind, type):
        return isinstance(value, kind)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_fits(item, inside[1]) for item in value.values())
    if origin in (Sequence, tuple):
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        listed = listed or (isinstance(value, np.ndarray) and value.ndim == 1)
        kinds = [inside[0]] * len(value) if listed and origin is Sequence else inside
        return listed and len(value) == len(kinds) and all(map(_fits, value, kinds))
    return any(_fits(value, one) for one in inside)  # a union


def _own_names(thing: object, but_inherited: bool = True) -> Iterator[str]:
    """Public names that somebody's own class adds to the libraries' it derives from.

    Args:
        thing: an object of that class.
        but_inherited: leave out those that the libraries have as well.
    """
    own: set[str] = set(getattr(thing, "__dict__", {}))
    theirs: set[str] = set()
    for base in type(thing).__mro__:
        if _is_own(base):
            own |= vars(base).keys()
        elif but_inherited:
            theirs |= set(dir(base))
    yield from (name for name in own - theirs if not name.startswith("_"))


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
