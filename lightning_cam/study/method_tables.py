"""The main tables and those of sweeps, laid out as in Bayer et al. (2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import NamedTuple

from lightning_cam.errors import printable
from lightning_cam.metrics import format_number, settings_of
from lightning_cam.study.journal import StudyRow
from lightning_cam.study.results import Group, Results, of_measure, spectrum_name
from lightning_cam.study.tables import Table


class _Line(NamedTuple):
    """A row of a table before it is filled.

    Attributes:
        labels: what stands in front.
        at: network's name -> the group of it that is meant.
        cell: the key of the cell.
        block: rows of one number are compared with each other.
    """

    labels: tuple[str, ...]
    at: Mapping[str, Group]
    cell: str
    block: int = 0


def main_tables(results: Results) -> list[Table]:
    """One table an input spectrum: methods and trained spectra by networks."""
    tables = []
    for name in results.inputs:
        groups = [group for group in results.groups if group.input == name]
        trained = list(dict.fromkeys(group.trained for group in groups))
        lines = [
            _Line(
                (f"{results.design.cells[key].title} {spectrum_name(of)}".strip(),),
                _at(groups, of),
                key,
            )
            for keys in results.design.parted
            for of in trained
            for key in keys
        ]
        title = f"{spectrum_name(name)} input data" if name else "Methods"
        if results.design.columns:
            title = name
        head = "Method and trained spectrum" if any(trained) else "Method"
        tables.append(_Filling(results, swept=False).table(title, (head,), lines))
    return tables


def sweep_tables(results: Results) -> list[Table]:
    """One table a sweep: spectra and values by networks; the best of each spectrum is marked."""
    tables = []
    kinds = list(dict.fromkeys((group.input, group.trained) for group in results.groups))
    kinds.sort(key=lambda kind: results.inputs.index(kind[0]))
    several = len({trained for _, trained in kinds}) > 1
    for sweep in results.design.sweeps:
        lines = []
        for block, (name, trained) in enumerate(kinds):
            label = spectrum_name(name)
            if several:
                on = f"trained on {spectrum_name(trained)}" if trained else ""
                label = ", ".join(filter(None, (label, on)))
            at = _at([group for group in results.groups if group.input == name], trained)
            lines += [
                _Line((label, value) if any(kinds[0]) else (value,), at, key, block)
                for value, key in sweep.cells.items()
            ]
        head = ("Image spectrum", sweep.setting) if any(kinds[0]) else (sweep.setting,)
        tables.append(_Filling(results, swept=True).table(sweep.title, head, lines))
    return tables


def _at(groups: Sequence[Group], trained: str) -> dict[str, Group]:
    """Network's name -> its group, of those trained on this."""
    return {group.network: group for group in groups if group.trained == trained}


class _Filling:
    """A table while its cells are filled: texts, the means behind them, and what is to be said."""

    def __init__(self, results: Results, *, swept: bool) -> None:
        self.results, self.swept = results, swept
        self.means: dict[tuple[int, int], float] = {}  # (row, column) -> larger is better
        self.counts: set[int] = set()  # of clips behind the numbers
        self.short: list[str] = []  # where clips are missing
        self.flat: list[str] = []  # where maps are the same everywhere

    def table(self, title: str, head: tuple[str, ...], lines: Sequence[_Line]) -> Table:
        """The table of means; the best ones of each block are marked."""
        results = self.results
        networks = [name for name in results.columns if any(name in line.at for line in lines)]
        heads = [
            f"{printable(name)}\n{text}"
            for name in networks
            for text in (*self._arrows(), "s/clip")
        ]
        rows = []
        for r, line in enumerate(lines):
            texts = list(line.labels)
            for name in networks:
                texts += self._texts(line, name, (r, len(texts)))
            rows.append(tuple(texts))
        best: dict[tuple[int, int], float] = {}
        for (r, c), mean in self.means.items():
            block = lines[r].block, c
            best[block] = max(mean, best.get(block, mean))
        below = {r for r, line in enumerate(lines) if line.cell in results.design.baselines}
        marked = {p for p, mean in self.means.items() if mean == best[lines[p[0]].block, p[1]]}
        notes = self._notes(lines, by_block=self.swept and len(head) > 1)
        marks = frozenset(marked), tuple(notes), frozenset(below)
        return Table(title, (*head, *heads), tuple(rows), *marks)

    def _arrows(self) -> list[str]:
        arrow = {1: " ↑", -1: " ↓", 0: ""}
        signs = self.results.design.signs
        return [f"{title}{arrow[signs[n]]}" for n, title in self.results.design.titles.items()]

    def _texts(self, line: _Line, network: str, place: tuple[int, int]) -> list[str]:
        """What stands in a line below one network, from `place` on."""
        found: list[StudyRow] = []
        if group := line.at.get(network):
            found = self.results.of_cell(group, line.cell, swept=self.swept)
        worked = [row for row in found if not row["error"]]
        if group:
            self._remember(f"{' '.join(line.labels)}, {network}", group, found, worked)
        texts = []
        row, column = place
        for n, (name, sign) in enumerate(self.results.design.signs.items()):
            s = of_measure(worked, name)
            if sign and not isnan(s.mean) and line.cell not in self.results.design.baselines:
                self.means[row, column + n] = sign * float(format_number(s.mean, 2))
            texts.append(_text(s.mean, s.std))
        return [*texts, _seconds([row["seconds"] for row in worked])]

    def _remember(
        self, where: str, group: Group, found: Sequence[StudyRow], worked: Sequence[StudyRow]
    ) -> None:
        """What the notes have to say of a cell."""
        self.counts.add(len(worked))
        if len(worked) < _readable(self.results, group, self.swept):
            lost = len(found) - len(worked)
            why = f"{lost} failed" if lost else "the rest is missing"
            self.short.append(f"{where}: {len(worked)} clips, {why}.")
        for name, title in self.results.design.titles.items():
            unscored = of_measure(worked, name).unscored
            if unscored:
                self.short.append(f"{where}: no {title} on {unscored} of {len(worked)} clips.")
        if even := sum(row["flat"] for row in worked):
            self.flat.append(f"{where} ({even} of {len(worked)})")

    def _notes(self, lines: Sequence[_Line], *, by_block: bool) -> list[str]:
        results = self.results
        number = f"{min(self.counts, default=0)}"
        if len(self.counts) > 1:
            number += f" to {max(self.counts)}"
        where = "each spectrum" if by_block else "a column"
        best = f"; the best of {where} in bold" if any(results.design.signs.values()) else ""
        how = describe(results)
        flat = f"Maps that are the same everywhere, ranked at random: {'; '.join(self.flat)}."
        return [
            f"Mean ± standard deviation over {number} clips{best}. {how}"
            f"s/clip: seconds of the map, with one forward of the clip, on {results.devices}.",
            *_unreadable(results, [g for line in lines for g in line.at.values()], self.swept),
            *([flat] if self.flat else []),
            *self.short,
        ]


def _readable(results: Results, group: Group, swept: bool) -> int:
    chosen = results.swept[group] if swept else results.clips[group]
    return len(chosen) - len(_skipped(results, group, swept))


def _skipped(results: Results, group: Group, swept: bool) -> list[StudyRow]:
    chosen = results.swept[group] if swept else results.clips[group]
    here = group.network, group.trained, group.input
    return [
        row
        for row in results.skipped
        if (row["network"], row["trained"], row["input"]) == here and row["index"] in chosen
    ]


def _unreadable(results: Results, groups: Sequence[Group], swept: bool) -> list[str]:
    names = {row["clip_id"] for group in groups for row in _skipped(results, group, swept)}
    count = len(names)
    return [f"{count} more clip{'s' * (count > 1)} could not be read."] if names else []


def _text(mean: float, std: float) -> str:
    if isnan(mean):
        return "-"
    text = format_number(mean, 2)
    return text if isnan(std) else f"{text} ± {format_number(std, 2, like=mean)}"


def _seconds(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.3g}" if values else "-"


def describe(results: Results) -> str:
    """How the measures were set, a sentence with a space behind; "" where nothing can be said."""
    words = settings_of(results.design.measures)
    return f"Measures: {words}. " if words else ""


def right_table(results: Results) -> Table:
    """How many of the clips each network predicts right."""
    rows = []
    for group in results.groups:
        of_clip = {
            row["index"]: row["label"] == row["prediction"]
            for row in results.rows
            if (row["network"], row["trained"], row["input"])
            == (group.network, group.trained, group.input)
            and row.get("label")
        }
        right = f"{sum(of_clip.values())} of {len(of_clip)}" if of_clip else "-"
        name, trained = spectrum_name(group.input) or "-", spectrum_name(group.trained) or "-"
        rows.append((group.network, trained, name, right))
    head = ("Network", "Trained on", "Input", "Predicted right")
    explained = {
        "predicted": "the predicted class, right or not",
        "true": "the true class, predicted or not",
    }[results.design.target]
    if results.design.columns:
        explained = "the columns that the study names"
    note = f"Maps and curves are those of {explained}."
    return Table("Predictions", head, tuple(rows), notes=(note,))
