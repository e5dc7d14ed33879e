"""Which classes to take, and which clips to hold out: by name, not by chance."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from lightning_cam.data.core.listing import hash_order
from lightning_cam.errors import ConfigError, UnknownNameError


def select_classes(known: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """The class names in the order of their labels: all of them, or those that are wanted.

    Raises:
        UnknownNameError: a wanted one is not known.
        ConfigError: a wanted one is there twice.
    """
    if wanted is None:
        return list(known)
    for name in wanted:
        if name not in known:
            raise UnknownNameError("class", name, known)
    if len(set(wanted)) < len(wanted):
        raise ConfigError(f"data.classes={list(wanted)} names a class twice")
    return list(wanted)


def check_separator(separator: str | None) -> str | None:
    """Raise a ConfigError for what cannot stand between labels."""
    if separator is None or (isinstance(separator, str) and separator.strip()):
        return separator
    raise ConfigError(
        f"data.separator={separator!r} must be a text that stands between the labels of a clip, "
        "such as data.separator=+, or null for one label a clip"
    )


def labels_in(text: str, separator: str | None) -> list[str]:
    """The labels in a text: itself, or those with the separator between them, each once.

    Example:
        >>> labels_in("waving + walking", "+")
        ['waving', 'walking']
    """
    if separator is None:
        return [text]
    return [label for label in dict.fromkeys(map(str.strip, text.split(separator))) if label]


def label_of(
    labels: Sequence[str], classes: Sequence[str], separator: str | None
) -> dict[str, Any] | None:
    """A clip's `label`, or with a separator its `labels`; None where it is of no class."""
    true = [name in labels for name in classes]
    if not any(true):
        return None
    return {"label": true.index(True)} if separator is None else {"labels": tuple(map(int, true))}


def hold_out(
    labels: Sequence[int], units: Sequence[str], share: float, *, leave: int = 1
) -> list[bool]:
    """Choose about a share of every class's clips, never dividing a unit.

    Each class takes whole units in `hash_order` until it has its share, at least one clip. Units
    that would take more than one and a half times that from any class are passed over, unless a
    class would get nothing without them; more than half of a class is never taken, nor so many
    that fewer than `leave` remain. So the choice depends on names alone, and a class that is one
    single unit gives none.

    Args:
        labels: of the clips.
        units: of the clips: what must not be on both sides, for instance the source movie. A unit
            may have clips of several classes.
        share: of each class's clips, above 0 and below 1.
        leave: clips that must remain of each class.

    Returns:
        For each clip, whether it is held out.
    """
    sizes: dict[str, Counter[int]] = defaultdict(Counter)
    for label, unit in zip(labels, units, strict=True):
        sizes[unit][label] += 1
    totals = Counter(labels)
    want = {k: min(max(1, round(share * n)), n - leave) for k, n in totals.items()}
    order: dict[int, list[str]] = defaultdict(list)
    for unit in hash_order(sizes):
        for label in sizes[unit]:
            order[label].append(unit)
    held: Counter[int] = Counter()
    taken: set[str] = set()
    half = {k: max(want[k], n // 2) for k, n in totals.items()}
    for strict in (True, False):
        limit = {
            k: min(half[k], n - leave, math.ceil(1.5 * want[k]) if strict else n)
            for k, n in totals.items()
        }
        for label in sorted(totals):
            for unit in order[label]:
                if held[label] >= (want[label] if strict else min(want[label], 1)):
                    break
                fits = all(held[k] + n <= limit[k] for k, n in sizes[unit].items())
                if unit not in taken and fits:
                    taken.add(unit)
                    held.update(sizes[unit])
    return [unit in taken for unit in units]


def check_share(**shares: float) -> None:
    """Raise a ConfigError for a share that is not a number above 0 and below 0.5."""
    for name, share in shares.items():
        if not (isinstance(share, (int, float)) and 0 < share < 0.5):
            raise ConfigError(f"data.{name}={share!r} must be a number above 0 and below 0.5")
