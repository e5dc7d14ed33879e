"""The tables of a study, laid out as in Bayer et al. (2022), and its numbers as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from rich.table import Table as RichTable

from lightning_cam.faithful import protocol_name
from lightning_cam.metrics import Protocol
from lightning_cam.study.journal import Row
from lightning_cam.study.results import METRICS, Group, Results, spectrum_name, statistics

CELLS = (
    "network", "trained", "input", "clip_id", "index", "cell", "label", "prediction", "p_target",
    "deletion", "insertion", "tied", "flat", "seconds", "metric_seconds", "device", "masks",
    "map_error", "notes", "warning", "error",
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Texts in rows and columns; the best ones are marked.

    Attributes:
        title: the heading.
        head: of the columns.
        rows: texts.
        best: (row, column) of those to be set in bold.
        notes: what stands below.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """GitHub's Markdown."""
        lines = [f"## {self.title}", "", _piped(self.head)]
        lines.append("|---" * len(self.head) + "|")
        for r, row in enumerate(self.rows):
            lines.append(
                _piped(f"**{text}**" if (r, c) in self.best else text for c, text in enumerate(row))
            )
        return "\n".join([*lines, "", *(f"{note}  " for note in self.notes), ""])

    def rich(self) -> RichTable:
        """For the terminal."""
        table = RichTable(title=self.title)
        for n, heading in enumerate(self.head):
            table.add_column(heading.replace("<br>", "\n"), justify="right" if n else "left")
        for r, row in enumerate(self.rows):
            table.add_row(
                *(f"[bold]{t}[/]" if (r, c) in self.best else t for c, t in enumerate(row))
            )
        return table


def _piped(texts: Any) -> str:
    return f"| {' | '.join(text.replace('|', '&#124;') for text in texts)} |"


def main_tables(results: Results) -> list[Table]:
    """One table an input spectrum: methods and trained spectra by networks."""
    tables = []
    for name in results.inputs:
        groups = [group for group in results.groups if group.input == name]
        trained = list(dict.fromkeys(group.trained for group in groups))
        rows = [
            (f"{results.design.cells[key].title} {spectrum_name(of)}".strip(), of, key)
            for of in trained
            for key in results.design.methods
        ]
        title = f"{spectrum_name(name)} input data" if name else "Methods"
        head = "Method and trained spectrum" if any(trained) else "Method"
        tables.append(
            _table(
                results,
                title,
                (head,),
                [((label,), _at(groups, of), key) for label, of, key in rows],
                swept=False,
                apart=lambda row: 0,
            )
        )
    return tables


def sweep_tables(results: Results) -> list[Table]:
    """One table a sweep: spectra and values by networks; the best of each spectrum is marked."""
    tables = []
    kinds = list(dict.fromkeys((group.input, group.trained) for group in results.groups))
    kinds.sort(key=lambda kind: results.inputs.index(kind[0]))
    several = len({trained for _, trained in kinds}) > 1
    for sweep in results.design.sweeps:
        rows = []
        for name, trained in kinds:
            label = spectrum_name(name)
            if several:
                on = f"trained on {spectrum_name(trained)}" if trained else ""
                label = ", ".join(filter(None, (label, on)))
            groups = [group for group in results.groups if group.input == name]
            rows += [
                ((label, value) if any(kinds[0]) else (value,), _at(groups, trained), key)
                for value, key in sweep.cells.items()
            ]
        head = ("Image spectrum", sweep.setting) if any(kinds[0]) else (sweep.setting,)
        size = len(sweep.cells)
        tables.append(
            _table(
                results, sweep.title, head, rows, swept=True,
                apart=lambda row, size=size: row // size,
            )
        )  # fmt: skip
    return tables


def _at(groups: Sequence[Group], trained: str) -> dict[str, Group]:
    """Network's name -> its group, of those trained on this."""
    return {group.network: group for group in groups if group.trained == trained}


def _table(
    results: Results,
    title: str,
    head: tuple[str, ...],
    lines: Sequence[tuple[tuple[str, ...], dict[str, Group], str]],
    *,
    swept: bool,
    apart: Any,
) -> Table:
    """A table of means; the best ones are looked for among rows that `apart` numbers alike."""
    columns = [name for name in results.columns if any(name in at for _, at, _ in lines)]
    arrows = [f"{metric.title()} {'↓↑'[sign > 0]}" for metric, sign in results.signs.items()]
    heads = [f"{name}<br>{text}" for name in columns for text in (*arrows, "s/clip")]
    rows: list[tuple[str, ...]] = []
    means: dict[tuple[int, int], float] = {}
    short: list[str] = []
    flat: list[str] = []
    counts: set[int] = set()
    for r, (labels, at, key) in enumerate(lines):
        texts = list(labels)
        for name in columns:
            found = results.of_cell(at[name], key, swept=swept) if name in at else []
            worked = [row for row in found if not row["error"]]
            if name in at:
                counts.add(len(worked))
                if len(worked) < _readable(results, at[name], swept):
                    failed = len(found) - len(worked)
                    why = f"{failed} failed" if failed else "the rest is missing"
                    short.append(f"{' '.join(labels)}, {name}: {len(worked)} clips, {why}.")
            if even := sum(row["flat"] for row in worked):
                flat.append(f"{' '.join(labels)}, {name} ({even} of {len(worked)})")
            for metric, sign in results.signs.items():
                s = statistics(row[metric] for row in worked)
                if not isnan(s.mean):
                    means[r, len(texts)] = sign * round(s.mean, 2)
                texts.append(_text(s.mean, s.std))
            texts.append(_seconds([row["seconds"] for row in worked]))
        rows.append(tuple(texts))
    best = {
        place
        for place, mean in means.items()
        if mean
        == max(m for p, m in means.items() if p[1] == place[1] and apart(p[0]) == apart(place[0]))
    }
    number = f"{min(counts, default=0)}" + (f" to {max(counts)}" if len(counts) > 1 else "")
    notes = [
        f"Mean ± standard deviation over {number} clips; the best of "
        f"{'each spectrum' if swept and len(head) > 1 else 'a column'} in bold. "
        f"Protocol: {describe(results.design.protocol)}. "
        f"s/clip: seconds of the map, with one forward of the clip, on {results.devices}.",
        *_unreadable(results, [group for _, at, _ in lines for group in at.values()], swept),
        *(
            [f"Maps that are the same everywhere, ranked at random: {'; '.join(flat)}."]
            if flat
            else []
        ),
        *short,
    ]
    return Table(title, (*head, *heads), tuple(rows), frozenset(best), tuple(notes))


def _readable(results: Results, group: Group, swept: bool) -> int:
    chosen = results.swept[group] if swept else results.clips[group]
    return len(chosen) - len(_skipped(results, group, swept))


def _skipped(results: Results, group: Group, swept: bool) -> list[Row]:
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
    return f"{mean:.2f} ± {std:.2f}" if not isnan(std) else f"{mean:.2f}"


def _seconds(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.3g}" if values else "-"


def describe(protocol: Protocol) -> str:
    """A protocol in words."""
    unit = protocol.unit if isinstance(protocol.unit, str) else "x".join(map(str, protocol.unit))
    steps = "" if protocol.voxels else f"{protocol.steps} steps, "
    return (
        f"{protocol_name(protocol)} ({steps}unit {unit}, deleted to {protocol.deleted}, inserted "
        f"into {protocol.inserted})"
    )


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
    note = "Maps and curves are those of the predicted class, right or not."
    return Table("Predictions", head, tuple(rows), notes=(note,))


def cell_rows(results: Results) -> Iterator[Row]:
    """Rows of cells.csv: one a network, input, clip and cell."""
    for row in (*results.rows, *results.skipped):
        yield {key: "" if row.get(key) is None else row[key] for key in CELLS}


def summary_rows(results: Results) -> Iterator[Row]:
    """Rows of summary.csv: what the tables show, unrounded, with 95% intervals of the means."""
    for table, cells, swept in results.tables():
        for group in results.groups:
            for shown, key in cells.items():
                found = results.of_cell(group, key, swept=swept)
                worked = [row for row in found if not row["error"]]
                line: Row = {
                    "table": table, "network": group.network, "trained": group.trained,
                    "input": group.input, "row": shown, "cell": key, "clips": len(worked),
                    "failed": len(found) - len(worked),
                }  # fmt: skip
                for metric in METRICS:
                    s = statistics(row[metric] for row in worked)
                    named = {"mean": s.mean, "std": s.std, "low": s.low, "high": s.high}
                    line |= {
                        f"{metric}_{k}": "" if isnan(v) else f"{v:.6f}" for k, v in named.items()
                    }
                for name in ("seconds", "metric_seconds"):
                    s = statistics(row[name] for row in worked)
                    line[name] = "" if isnan(s.mean) else f"{s.mean:.4f}"
                yield line
