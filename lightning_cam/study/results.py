"""The rows of a study, sorted, and the questions that tables, plots and claims ask them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from lightning_cam.metrics import Statistics, Telling, mean_interval, number_column, telling
from lightning_cam.study.design import Design
from lightning_cam.study.journal import CellKey, StudyRow, cell_key, named
from lightning_cam.study.networks import Network
from lightning_cam.study.references import Reference
from lightning_cam.study.work_items import WorkItem, references_of


class Group(NamedTuple):
    """One network on one input: what has rows of its own in every table."""

    network: str
    kind: str
    trained: str
    input: str


@dataclass(frozen=True)
class Results:
    """Rows of a study and how to ask for them.

    Attributes:
        design: the study.
        groups: networks and inputs, in the order of the checkpoints.
        clips: group -> its clips' indices; these of the main tables.
        swept: group -> those of them that the sweeps see.
        rows: of finished cells, in the order of tables.
        skipped: rows of clips that could not be read.
        references: network, trained on, input, clip, key -> row of a map beside the methods.
    """

    design: Design
    groups: tuple[Group, ...]
    clips: Mapping[Group, frozenset[int]]
    swept: Mapping[Group, frozenset[int]]
    rows: Sequence[StudyRow]
    skipped: Sequence[StudyRow]
    references: Mapping[CellKey, StudyRow]

    @classmethod
    def of(
        cls,
        design: Design,
        networks: Sequence[Network],
        units: Sequence[WorkItem],
        rows: Mapping[Any, StudyRow],
    ) -> Results:
        """Sort the rows that belong to the study's units."""
        kept, skipped, references = [], [], {}
        order = list(design.cells)
        place = {network.key: n for n, network in enumerate(networks)}
        for unit in units:
            found = [
                named(rows[unit.key(cell)], design.digests)
                for cell in unit.cells
                if unit.key(cell) in rows
            ]
            kept += found
            for key in map(unit.key, references_of(unit, rows, design)):
                if key in rows:
                    references[key] = named(rows[key], design.digests)
            if not found and unit.key("") in rows:
                skipped.append(rows[unit.key("")])

        def position(row: StudyRow) -> tuple[int, int, int]:
            network = networks[place[row["network"], row["trained"]]]
            return (
                place[network.key],
                list(network.inputs).index(row["input"]),
                row["index"],
            )

        clips, swept = {}, {}
        for network in networks:
            for name, indices in network.inputs.items():
                group = Group(network.name, network.kind, network.trained, name)
                clips[group], swept[group] = frozenset(indices), network.swept[name]
        return cls(
            design=design,
            groups=tuple(clips),
            clips=clips,
            swept=swept,
            rows=sorted(kept, key=lambda row: (*position(row), order.index(row["cell"]))),
            skipped=sorted(skipped, key=position),
            references=references,
        )

    @property
    def inputs(self) -> list[str]:
        """Input spectra, in order."""
        return list(dict.fromkeys(group.input for group in self.groups))

    @property
    def columns(self) -> list[str]:
        """Networks' names, in order."""
        return list(dict.fromkeys(group.network for group in self.groups))

    @property
    def devices(self) -> str:
        """Where the seconds were taken."""
        return " and ".join(dict.fromkeys(row["device"] for row in self.rows))

    @cached_property
    def _found(self) -> dict[tuple[str, str, str, str], list[StudyRow]]:
        found: dict[tuple[str, str, str, str], list[StudyRow]] = {}
        for row in self.rows:
            key = row["network"], row["trained"], row["input"], row["cell"]
            found.setdefault(key, []).append(row)
        return found

    def of_cell(self, group: Group, cell: str, *, swept: bool = False) -> list[StudyRow]:
        """Rows of a cell, failed ones included; with `swept` of the sweeps' clips only."""
        rows = self._found.get((group.network, group.trained, group.input, cell), [])
        chosen = self.swept[group] if swept else self.clips[group]
        return [row for row in rows if row["index"] in chosen]

    def worked(self, group: Group, cell: str, *, swept: bool = False) -> list[StudyRow]:
        """Rows of a cell on clips where the method did not fail."""
        return [row for row in self.of_cell(group, cell, swept=swept) if not row["error"]]

    def values(self, group: Group, cell: str, measure: str, number: str = "") -> dict[str, float]:
        """Sequence -> value of a measure, or a number it found beside that, where it has one."""
        found = {}
        for row in self.worked(group, cell):
            values = row["beside"] if number else row["values"]
            value = values.get(number_column(measure, number) if number else measure)
            if value is not None:
                found[row["sequence"]] = value
        return found

    def gains(self, group: Group, cell: str, measure: str) -> dict[str, float]:
        """Sequence -> how much better a map is than the mean of random maps of its own grain."""
        rows = self.worked(group, cell)
        return self._over_random([row for row in rows if "grain" in row], measure)

    def telling(self, group: Group, measure: str) -> Telling | None:
        """Whether a measure tells the ground truth from random maps; None without any truth."""
        gains = list(self.truth_gains(group, measure).values())
        return telling(gains, [0.0] * len(gains), "higher") if gains else None

    def truth_gains(self, group: Group, measure: str) -> dict[str, float]:
        """Sequence -> how much better the ground truth is than random maps, the most there is."""
        place = group.network, group.trained, group.input
        keys = ((*place, index, Reference().key) for index in sorted(self.clips[group]))
        truth = (self.references[key] for key in keys if key in self.references)
        return self._over_random([row for row in truth if "grain" in row], measure)

    def _over_random(self, rows: Sequence[StudyRow], measure: str) -> dict[str, float]:
        found = {}
        for row in rows:
            seeds, place = range(self.design.random_seeds), cell_key(row)[:4]
            keys = ((*place, Reference(tuple(row["grain"]), seed).key) for seed in seeds)
            beside = [self.references[key] for key in keys if key in self.references]
            noise = [each["values"][measure] for each in beside if not each["error"]]
            value = row["values"][measure]
            if value is not None and noise and None not in noise:
                mean = sum(noise) / len(noise)
                found[row["sequence"]] = self.design.signs[measure] * (value - mean)
        return found

    def explained(self, group: Group) -> str:
        """What is explained in a group, in words."""
        return group.input if self.design.columns else f"the {self.design.target} class"

    def are_classes(self, group: Group) -> bool:
        """Whether the columns of a group's network are classes."""
        here = group.network, group.trained
        rows = (row for row in self.rows if (row["network"], row["trained"]) == here)
        return any(row.get("p_target") is not None for row in rows)

    def tables(self) -> Iterator[tuple[str, Mapping[str, str], bool]]:
        """(table, row's name -> cell, whether its clips are the sweeps')."""
        yield "main", {self.design.cells[key].title: key for key in self.design.methods}, False
        for sweep in self.design.sweeps:
            yield sweep.name, sweep.cells, True


def of_measure(rows: Sequence[StudyRow], measure: str) -> Statistics:
    """A measure's values in rows of cells that worked."""
    return mean_interval(row["values"][measure] for row in rows)


def spectrum_name(name: str) -> str:
    """ "ir" as people write it: IR; other inputs as they are."""
    first, _, rest = name.partition(" ")
    return f"{first.upper()} {rest}".strip() if first in ("ir", "tv", "irtv") else name


def title_of(group: Group) -> str:
    """A network and its input, in words."""
    trained = f", trained on {spectrum_name(group.trained)}" if group.trained else ""
    return f"{group.network}{trained}" + (
        f", {spectrum_name(group.input)} input" if group.input else ""
    )
