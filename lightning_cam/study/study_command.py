"""The work of `explain.py study=NAME`: measure what is missing, then write what is known."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

import lightning_cam
from lightning_cam.errors import ConfigError, DataError, WriteError, say
from lightning_cam.explaining.explain_settings import check_study, given_data, trusted
from lightning_cam.explaining.journal import Journal
from lightning_cam.explaining.sharing import Share
from lightning_cam.stops import exit_code
from lightning_cam.study.cell_runs import StudyProblems, measure_cells
from lightning_cam.study.cost import expected_cost
from lightning_cam.study.design import Design
from lightning_cam.study.journal import read_journal, same_study
from lightning_cam.study.method_tables import main_tables
from lightning_cam.study.networks import Network, open_networks
from lightning_cam.study.results import Results
from lightning_cam.study.study_files import write_study
from lightning_cam.study.tables import written_width
from lightning_cam.study.work_items import WorkItem, missing_work, shared_out, work_items
from lightning_cam.training.runs import run_folder, writable


def run_study(config: Mapping[str, Any], command: str = "") -> Path | None:
    """Run a study, or go on with it.

    Args:
        config: plain, as in `configs/explain.yaml`.
        command: what was typed, for the report.

    Returns:
        `index.html`; None where other processes have not finished.

    Raises:
        UserError: what the user can mend; also if nothing could be measured.
    """
    check_study(config)
    compose = config["compose"]
    design = Design.of(_explained(config), config["measure"])
    for what, about in design.left_out.items():
        say(f"left out, without {what} in the study: {', '.join(about)}")
    device = config["device"]
    paths = config["ckpt"] if isinstance(config["ckpt"], list) else [config["ckpt"]]
    trust = trusted(config)
    given = given_data(config)
    split = config["data"]["split"]
    networks = open_networks(
        paths, design, split=split, trust=trust, data=given, compose=compose, device=device
    )
    out = config["out"]
    name = "_".join(filter(None, ("study", design.name, compose)))
    folder = writable(Path(out) if out else run_folder(paths[0]) / name)
    facts = _facts(design, networks, {**given, "split": split})
    if compose:
        facts["compose"] = compose
    same_study(folder, {**facts, "about": {"version": lightning_cam.__version__, "paths": paths}})
    share = Share.of_command()
    units = work_items(networks, design)
    mine = share.of(shared_out(units, share.count))
    journal = Journal(folder, share.rank)
    done = read_journal(folder)
    _print_remaining(design, mine, done, share)
    try:
        measure_cells(design, mine, done, journal, device)
        done = read_journal(folder)
        if left := sum(len(missing_work(unit, done, design)) for unit in units):
            last = "the last writes the tables"
            say(f"this process is done; {left} cells are left to others, {last}")
            return None
        return _finish(folder, Results.of(design, networks, units, done), networks, command)
    except KeyboardInterrupt as stop:
        say("", f"stopped; the same command goes on: {command}")
        sys.exit(exit_code(stop))
    except WriteError as error:
        raise WriteError(f"{error}; the same command goes on: {command}") from error
    finally:
        journal.close()


def _explained(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The study's settings; of composed clips the class of the explained part is the target.

    Raises:
        ConfigError: they name columns, which are no classes.
    """
    study, compose = config["study"], config["compose"]
    if compose is None:
        return study
    if study.get("columns"):
        raise ConfigError(
            f"compose={compose} explains classes; leave out study.columns= or compose="
        )
    return {**study, "target": "true"}


def _finish(folder: Path, results: Results, networks: Sequence[Network], command: str) -> Path:
    """Say what went wrong, write and show what is known; the page.

    Raises:
        DataError: nothing could be measured.
    """
    _print_problems(StudyProblems.of([*results.rows, *results.skipped]))
    values = [value for row in results.rows for value in row.get("values", {}).values()]
    if all(value is None for value in values):
        errors = chain.from_iterable(
            (row["error"], *row.get("unmeasured", {}).values())
            for row in (*results.skipped, *results.rows)
        )
        names = ", ".join(results.design.measures)
        none = f"no clip has a value of {names}; choose other measures, measure=[deletion]"
        raise DataError(f"nothing could be measured: {next(filter(None, errors), none)}")
    page = write_study(folder, results, networks, command)
    width = Console().width
    for part in (part for table in main_tables(results) for part in table.fitting(width)):
        # Numbers are there to be read: rather wider than the terminal than cut.
        Console(width=max(width, written_width(part))).print(part)
    here = os.path.relpath(folder)
    say(f"tables       {here}/tables.md, summary.csv, cells.csv")
    say(f"conclusions  {here}/conclusions.md")
    return page


def _facts(design: Design, networks: Sequence[Network], data: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a study the same one, wherever the data lie."""
    return {
        **design.settings,
        "data": {k: v for k, v in data.items() if k not in ("root", "rate")},
        "ckpt": [
            {
                "network": network.name,
                "trained": network.trained,
                "sha256": network.digest,
                "clips": {
                    name: [network.dataset.clips[i].clip_id for i in indices]
                    for name, indices in network.inputs.items()
                },
            }
            for network in networks
        ],
    }


def _print_remaining(
    design: Design, units: Sequence[WorkItem], done: Mapping[Any, Any], share: Share
) -> None:
    cells = sum(len(unit.cells) for unit in units)
    left = sum(len(missing_work(unit, done, design, retry=design.retry)) for unit in units)
    before = f", {cells - left} of them are there" if left < cells else ""
    say(f"{share}{len(units)} clips, {cells} cells{before}")
    if cost := expected_cost(design, units, done):
        say(cost)


def _print_problems(tally: StudyProblems) -> None:
    if tally.unreadable:
        say(f"{len(tally.unreadable)} clips could not be read: {', '.join(tally.unreadable)}")
    for problem, count in tally.failed.items():
        say(f"failed {count}x: {problem}")
    for cell, said in tally.warned.items():
        say(f"warned {len(said)}x: {cell}: {said[0]}")
