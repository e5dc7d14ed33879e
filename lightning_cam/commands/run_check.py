"""Say whether a data set is complete: the work of the command `check`."""

from __future__ import annotations

import csv
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_cam.errors import ConfigError, WriteError, printable
from lightning_cam.files import write_csv

if TYPE_CHECKING:  # torch loads in `check`, not for --help
    from rich.table import Table

    from lightning_cam.data.check.inventory import Inventory
    from lightning_cam.data.core.listing import Problem

SHOWN = 10  # problems of a kind
COLUMNS = ["kind", "what", "why"]
_WIDE = 10_000  # columns of text, more than any table has
HEADINGS = {
    "missing": "listed, but not there",
    "unlisted": "there, but in no list",
    "label": "label and class do not fit",
    "row": "rows of lists that make no sense",
    "unreadable": "videos that cannot be decoded",
    "damaged": "videos that lost a part",
    "order": "folders of images whose order is open",
    "truth": "ground truth that cannot be used",
    "few": "classes with too few videos",
    "stray": "files that do not belong there",
    "group": "videos of no group",
    "part": "parts that hold nothing",
    "count": "sequences with fewer images than listed",
    "pair": "sequences that are not alike in both spectra",
    "leak": "people or videos in more than one part",
    "copy": "videos that are there already",
    "calib": "sequences without usable intrinsics",
    "poses": "poses that cannot be used",
    "times": "times that cannot be used",
    "gap": "sequences that lack images",
}

ClassCounts = dict[str, Counter[str]]  # title of a column -> how many of each class


KEYS = ("data", "decode", "out", "processes", "timeout", "seed")


def check(config: Any) -> int:
    """Check a data set and print what was found.

    Args:
        config: as composed from `configs/check.yaml`, in plain containers.

    Returns:
        0 if all is well, 1 if there are problems.

    Raises:
        UserError: nothing can be checked.
    """
    from rich.console import Console

    from lightning_cam.data.check.inventory import inventory
    from lightning_cam.data.core.module import VideoDataModule
    from lightning_cam.data.drives.module import SnippetDataModule
    from lightning_cam.training.build import build

    _check_settings(config)
    data = build(config["data"], where="data")
    if not isinstance(data, VideoDataModule | SnippetDataModule):
        raise ConfigError(
            "data._target_ is not a VideoDataModule or SnippetDataModule: there is nothing to check"
        )
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        data.prepare_data()
        held = inventory(data)
    start = f"{Path(data.root)}/"
    problems = [replace(p, what=p.what.removeprefix(start)) for p in held.problems]
    short: Counter[str] = Counter()
    if config["decode"]:
        found, short = _decode(held, data, config["processes"], config["timeout"])
        problems += found
    tally = _tally(held, problems)
    if config["decode"] and held.steps:
        tally["short"] = short
    console = Console(highlight=False, markup=False, soft_wrap=True)
    totals = Counter(problem.kind for problem in problems) + Counter(held.sizes)
    table = _table(held, totals, tally)
    # Rather than names or numbers cut in two: a line that is too long, which terminals wrap.
    needed = console.measure(table, options=console.options.update(width=_WIDE)).maximum
    console.width = max(console.width, needed)
    console.print(table)
    for note in dict.fromkeys(str(note.message) for note in notes):
        console.print(printable(f"note: {note}"))
    for line in _lines(problems, config["out"]):
        console.print(printable(line))
    if config["out"] is not None:
        out = Path(str(config["out"]))
        _write(out, problems) if problems else _clear(out)
    unopened = "" if config["decode"] else "; no video was opened"
    counts = ", ".join(f"{n} {kind}" for kind, n in Counter(p.kind for p in problems).items())
    console.print(printable(f"{data.root}: {counts or 'all is well'}{unopened}"))
    return 1 if problems else 0


def _check_settings(config: Mapping[str, Any]) -> None:
    processes, timeout = config["processes"], config["timeout"]
    if type(config["decode"]) is not bool:
        raise ConfigError(f"decode={config['decode']} must be true or false")
    if processes is not None and (type(processes) is not int or processes < 1):
        raise ConfigError(f"processes={processes} must be a whole number from 1 on, or null")
    if type(timeout) not in (int, float) or not timeout > 0:
        raise ConfigError(f"timeout={timeout} must be a number of seconds above 0")


def _tally(held: Inventory, problems: Sequence[Problem]) -> ClassCounts:
    """Clips of each part, and problems of each kind that name a class, by path if not by label."""
    tally: ClassCounts = {part: Counter(counts) for part, counts in held.parts.items()}
    classes = set(held.names)
    for problem in problems:
        names = (problem.label, *Path(problem.what).parts)
        name = next((name for name in names if name in classes), None)
        if name is not None:
            tally.setdefault(problem.kind, Counter())[name] += 1
    return tally


def _decode(
    held: Inventory, data: Any, processes: int | None, timeout: float
) -> tuple[list[Problem], Counter[str]]:
    """Open everything once: what is wrong, in the order of the items, and short videos of each."""
    from lightning_cam.data.check.inspection import inspect_all
    from lightning_cam.data.core.listing import Problem
    from lightning_cam.progress import progress

    clips = [item.clip for item in held.items]
    order = {id(clip): number for number, clip in enumerate(clips)}
    problems: dict[int, Problem] = {}
    short: Counter[str] = Counter()
    with progress("decoding", len(clips)) as advance:
        found_in = inspect_all(
            clips, data.reader, processes=processes, timeout=timeout, inspect=held.inspect
        )
        for clip, found in found_in:
            advance(1)
            number = order[id(clip)]
            _, name, path = held.items[number]
            if found.kind:
                what = _below(path, data.root)
                problems[number] = Problem(found.kind, what, found.why, name)
            short[name] += 0 < found.steps < held.steps
    return [problems[number] for number in sorted(problems)], short


def _below(path: Path, root: str) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _table(held: Inventory, totals: Counter[str], tally: ClassCounts) -> Table:
    """One row per class: clips of each part, problems, and the share of its clips that is there.

    Args:
        held: the data set.
        totals: of each part, and of each kind of problem, those of no class included.
        tally: the columns.
    """
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, show_footer=True)
    table.add_column(held.heading, "all", no_wrap=True)
    for title, counts in tally.items():
        table.add_column(title, str(totals[title] or sum(counts.values())), justify="right")
    absent = tally.get("missing", Counter()) if held.share else Counter()
    there = Counter(item.name for item in held.items)
    if absent:
        table.add_column("there", _percent(sum(there.values()), totals["missing"]), justify="right")
    for name in held.names:
        cells = [str(counts[name] or "-") for counts in tally.values()]
        cells += [_percent(there[name], absent[name])] * bool(absent)
        table.add_row(Text(printable(name)), *cells)
    return table


def _percent(there: int, absent: int) -> str:
    return f"{100 * there // max(there + absent, 1)}%"


def _lines(problems: Sequence[Problem], out: str | None) -> Iterator[str]:
    """The first problems of each kind, one line each."""
    kinds: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        kinds[problem.kind].append(problem)
    for kind, found in kinds.items():
        heading = f" ({HEADINGS[kind]})" if kind in HEADINGS else ""
        yield f"{len(found)} {kind}{heading}"
        for problem in found[:SHOWN]:
            yield f"  {' '.join(str(problem).split())}"
        if len(found) > SHOWN:
            yield f"  and {len(found) - SHOWN} more" + (f", see {out}" if out else "")
        yield ""


def _write(path: Path, problems: Sequence[Problem]) -> None:
    try:
        rows = [{"kind": p.kind, "what": p.what, "why": p.why} for p in problems]
        write_csv(path, rows, COLUMNS)
    except WriteError as error:
        raise ConfigError(f"{error}; or choose out=FILE") from error


def _clear(path: Path) -> None:
    """Remove the problems of an earlier run, and no file that is something else."""
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            ours = next(csv.reader(file), None) == COLUMNS
        if ours:
            path.unlink()
    except (OSError, csv.Error):  # absent, or no file of ours
        return
