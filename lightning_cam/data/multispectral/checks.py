"""What is wrong with listed sequences of the Multispectral Action Dataset, and its parts."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from lightning_cam.data.core.listing import Problem
from lightning_cam.data.core.selection import hold_out
from lightning_cam.data.multispectral.names import FOLDERS, ListedSequence, actor_of
from lightning_cam.data.video import frame_folders as images
from lightning_cam.errors import ConfigError


def wrong_labels(rows: Sequence[ListedSequence], names: Sequence[str]) -> list[Problem]:
    """Rows whose label is of no class, or not that of their folder."""
    problems = []
    for row in rows:
        folder = row.key.partition("/")[0]
        if not 0 <= row.label < len(names):
            why = f"label {row.label} is of none of the {len(names)} classes; mend the row"
            problems.append(Problem("label", row.where, why))
        elif folder in names and names.index(folder) != row.label:
            why = f"{row.key!r} has label {row.label}, {folder} has {names.index(folder)}"
            problems.append(Problem("label", row.where, f"{why}; mend the row"))
    return problems


def _agree(one: ListedSequence, other: ListedSequence | None) -> bool:
    """Whether two rows are of one sequence in both spectra."""
    return other is not None and (one.part, one.label) == (other.part, other.label)


def _by_pair(
    rows: Sequence[ListedSequence],
) -> tuple[dict[str, ListedSequence], dict[str, ListedSequence]]:
    ir, tv = (
        {row.pair: row for row in rows if row.spectrum == spectrum} for spectrum in ("ir", "tv")
    )
    return ir, tv


def pairs(rows: Sequence[ListedSequence]) -> list[ListedSequence]:
    """The visible rows that have an infrared one of the same part and label."""
    ir, tv = _by_pair(rows)
    return [row for pair, row in tv.items() if _agree(row, ir.get(pair))]


def unpaired(rows: Sequence[ListedSequence]) -> list[Problem]:
    """Rows of one spectrum without one of the other, and those that do not agree."""
    ir, tv = _by_pair(rows)
    problems = []
    for here, there in ((ir, tv), (tv, ir)):
        for pair, row in here.items():
            if pair not in there:
                other = FOLDERS["tv" if row.spectrum == "ir" else "ir"]
                why = f"it is not listed in {other}; add it there, or remove it"
                problems.append(Problem("pair", row.below, why))
    for pair, row in tv.items():
        other_row = ir.get(pair)
        if other_row is not None and not _agree(row, other_row):
            why = f"{other_row.where} and {row.where} give it different parts or labels; mend one"
            problems.append(Problem("pair", row.below, why))
    return problems


def leaks(rows: Sequence[ListedSequence]) -> list[Problem]:
    """Actors who are in the training part and in the test part."""
    parts: dict[int, dict[str, ListedSequence]] = defaultdict(dict)
    for row in rows:
        actor = actor_of(row.key)
        if actor is not None:
            parts[actor].setdefault(row.part, row)
    return [
        Problem(
            "leak",
            f"actor {actor}",
            f"in training ({of['train'].where}) and in test ({of['test'].where}); remove one",
        )
        for actor, of in sorted(parts.items())
        if len(of) == 2
    ]


def on_disk(
    top: Path, rows: Sequence[ListedSequence], names: Sequence[str]
) -> tuple[list[ListedSequence], list[Problem]]:
    """The rows whose images are there, and what is missing.

    Args:
        top: the folder of the spectra's folders.
        rows: of sequences.
        names: of the labels.
    """
    there, problems = [], []
    for row in rows:
        count = len(images.names(top / row.below))
        if count:
            there.append(row)
        if count < max(row.count, 1):
            kind = "count" if count else "missing"
            lack = f"{count} images are there, {row.count}" if count else "not there, though"
            why = f"{lack} listed in {row.where}; copy it again"
            problems.append(Problem(kind, row.below, why, names[row.label]))
    return there, problems


def held_out(rows: Sequence[ListedSequence], actors: int) -> set[str]:
    """Keys that both spectra have in common, see `Row.pair`, of the sequences for validation.

    Those of the last actors of the training part or, with a warning, where the keys do not tell
    the actor, a tenth of each class.

    Args:
        rows: all that are listed, so that what is missing moves nothing between parts.
        actors: how many.

    Raises:
        ConfigError: there are no more in the training part.
    """
    train = [row for row in rows if row.part == "train"]
    who = {row.pair: actor_of(row.key) for row in train}
    unknown = next((pair for pair, actor in who.items() if actor is None), None)
    if unknown is None:
        known = sorted({actor for actor in who.values() if actor is not None})
        if actors >= len(known):
            raise ConfigError(
                f"data.val_actors={actors} must be less than the {len(known)} actors of the "
                "training part"
            )
        return {pair for pair, actor in who.items() if actor in known[-actors:]}
    warnings.warn(
        f"the name {unknown!r} does not tell the actor (such as a01): sequences are held out for "
        "validation one by one, so their actors are in training as well",
        stacklevel=2,
    )
    labels = {row.pair: row.label for row in train}
    chosen = hold_out(list(labels.values()), list(labels), 0.1)
    return {pair for pair, yes in zip(labels, chosen, strict=True) if yes}
