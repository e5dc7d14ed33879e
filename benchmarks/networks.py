"""Is any network explained rightly? Networks x methods against definitions written by hand.

    PYTHONPATH=tests python benchmarks/networks.py               # writes networks.csv
    PYTHONPATH=tests python benchmarks/networks.py --only Swin   # networks of this in their names

Every cell is the relative error |found - wanted| / |wanted| in float32, "refused" with what was
said below the table, or "not installed". What is wanted is computed in `tests/definitions.py`, from
the network alone. Nothing is said about a network but what its case names: layers and layouts of
known families are found.
Small networks with random weights, a batch of two clips. Errors are rounding: 1e-5 is the most that
is let pass. Where it is larger, as where a ReLU's input is within rounding of 0 or a map nearly
cancels out, float64 decides, and the cell has that error, marked "float64"; the command fails where
it is larger in both.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from pathlib import Path

import pytest
import torch
from definitions import METHODS, MOST, cell
from networks_of_users import CASES, Case

from lightning_cam.errors import UserError

warnings.filterwarnings("ignore")


def row_of(name: str, case: Case) -> tuple[dict[str, str], list[str], int]:
    """A row of the table, what was said, and how many cells are wrong."""
    row, said, wrong = {"network": name, "layer": case.layer}, [], 0
    for method in METHODS:
        try:
            error = cell(case, method, torch.float32)
            row[method] = f"{error:.1e}"
            if not error <= MOST:
                error = cell(case, method, torch.float64)
                row[method] = f"{error:.1e} float64"
                wrong += not error <= MOST
        except UserError as refused:
            row[method] = "refused"
            said.append(f"{name}, {method}: {refused}")
        except pytest.skip.Exception as absent:
            row[method] = str(absent)
    return row, said, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="a part of the networks' names")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("networks.csv"))
    args = parser.parse_args()
    table, said, wrong = [], [], 0
    for name, case in CASES.items():
        if args.only.lower() in name.lower():
            row, words, bad = row_of(name, case)
            print(*row.values(), sep="  ", flush=True)
            table, said, wrong = [*table, row], said + words, wrong + bad
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["network", "layer", *METHODS], lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    print("\n".join(["", *said, f"{len(table)} networks, {wrong} cells above {MOST}"]))
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
