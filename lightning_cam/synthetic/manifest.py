"""What a synthetic data set is rendered from: its settings, checked, and its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from lightning_cam.data.core.arrays import Array
from lightning_cam.errors import DataError, UnknownNameError

Key = TypeVar("Key")


def chosen_names(what: str, names: Iterable[str] | None, known: Sequence[str]) -> list[str]:
    """Some of the known names, each once and in the order given; None for all.

    Args:
        what: one of them: "action".
        names: that are chosen.
        known: those there are.

    Raises:
        UserError: one is unknown, or none is chosen.
    """
    chosen = list(dict.fromkeys(known if names is None else names))
    for name in chosen:
        if name not in known:
            raise UnknownNameError(what, name, known)
    if not chosen:
        raise DataError(f"no {what} is chosen; take some of {', '.join(known[:4])}, ...")
    return chosen


def check_ranges(**settings: tuple[int, range]) -> None:
    """Raise a DataError for a setting, (its value, what it may be), outside of its range."""
    for name, (value, allowed) in settings.items():
        if value not in allowed:
            steps = f" in steps of {allowed.step}" if allowed.step > 1 else ""
            ends = f"from {allowed[0]} to {allowed[-1]}{steps}"
            raise DataError(f"{name}={value} of synthetic data must be {ends}")


def ends_and_middle(keys: Sequence[Key]) -> list[Key]:
    """Three of the clips, whose frames stand for all."""
    return [keys[0], keys[len(keys) // 2], keys[-1]]


def manifest_of(
    name: str, revision: int, settings: Mapping[str, Any], drawn: Mapping[str, Iterable[Array]]
) -> dict[str, Any]:
    """What a rendering depends on, by which `render_once` knows it again.

    Args:
        name: of the data set.
        revision: of its renderer.
        settings: all that the frames depend on.
        drawn: raw frames of some clips by their names. Their checksums tell of other versions of
            the libraries; those of files would differ between builds of codecs as well.
    """
    digests = {}
    for clip, parts in drawn.items():
        digest = hashlib.sha256()
        for frames in parts:
            digest.update(frames.tobytes())
        digests[clip] = digest.hexdigest()
    return {"name": name, "version": revision, **settings, "sha256": digests}
