"""Checks of what the live callback is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import Any

from lightning_cam.attribution import Attribution
from lightning_cam.attribution.method import as_attribution
from lightning_cam.errors import ArgumentError, ConfigError
from lightning_cam.explaining.measuring import compares
from lightning_cam.metrics import Measure


def chosen_clips(clips: int | Sequence[int]) -> int | list[int]:
    """A number of clips, or their indices.

    Raises:
        ArgumentError: it is neither.
    """
    indices: list[Any] = list(clips) if isinstance(clips, Iterable) else [clips]
    if not indices or not all(type(i) is int for i in indices) or min(indices) < 0:
        raise ArgumentError(f"clips must be a number of clips or a list of indices, got {clips!r}")
    if isinstance(clips, int) and clips < 1:
        raise ArgumentError(f"clips must be at least 1, got {clips}")
    return clips if isinstance(clips, int) else indices


def check_numbers(fps: Any, **epochs: Any) -> None:
    """Whether the callback's numbers make sense.

    Args:
        fps: of the videos.
        epochs: settings that are numbers of epochs, by their names.

    Raises:
        ArgumentError: one does not.
    """
    for name, number in epochs.items():
        if type(number) is not int or number < 1:
            raise ArgumentError(f"{name} must be at least 1, a whole number, got {number!r}")
    if type(fps) not in (int, float) or not 0 < fps < float("inf"):
        raise ArgumentError(f"fps must be above 0, got {fps!r}")


def are_measures(measures: Mapping[str, Measure] | None) -> Mapping[str, Measure]:
    """The measures, if they are any; nothing for None.

    Raises:
        ConfigError: something else is among them.
    """
    example = 'pass a mapping such as {"gini": GiniIndex()}'
    if not isinstance(measures, Mapping | NoneType):
        raise ConfigError(f"measures is a {type(measures).__name__}, not a mapping; {example}")
    for name, each in (measures or {}).items():
        if not isinstance(each, Measure):
            what = f"measures[{name!r}] is a {type(each).__name__}"
            raise ConfigError(f"{what}, not a Measure; {example}")
    return measures or {}


def named_methods(
    methods: Mapping[str, Attribution] | Sequence[Attribution] | Attribution,
) -> dict[str, Attribution]:
    """Name -> method; methods without names go by their types.

    Raises:
        ArgumentError: there is none, or a name is not text.
    """
    if isinstance(methods, Mapping | Sequence) and not methods:
        raise ArgumentError("methods is empty; pass for example {'gradcam': GradCAM()}")
    if isinstance(methods, Mapping):
        for name in methods:
            if not isinstance(name, str) or not name.isprintable() or not name:
                raise ArgumentError(f"methods has the name {name!r}; a name is text: 'gradcam'")
        return {name: as_attribution(method) for name, method in methods.items()}
    named: dict[str, Attribution] = {}
    listed = isinstance(methods, Sequence) and not isinstance(methods, str)
    given: Any = methods if listed else [methods]
    for method in map(as_attribution, given):
        name = type(method).__name__.lower()
        named[name if name not in named else f"{name}_{len(named) + 1}"] = method
    return named


def logged_names(methods: Mapping[str, Attribution], measures: Mapping[str, Measure]) -> list[str]:
    """All that the callback may log with these: "explain/METHOD/NUMBER"."""
    found = {name: as_attribution(method).finds for name, method in methods.items()}
    return [
        *(f"explain/{of}/{what}" for of, finds in found.items() for what in finds),
        *(f"explain/{of}/{what}" for of in methods for what in measures),
        *(f"explain/random/{what}" for what in measures if compares(measures)),
    ]
