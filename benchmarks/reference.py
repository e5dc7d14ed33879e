"""Numbers that a restructuring must not change: written down before it, compared after it.

    python benchmarks/reference.py OUT.json [--against OLD.json] [--tasks NAME [NAME ...]]

Small networks of every task are trained for two steps on small synthetic data and explained by
every method that `configs/explain` offers; some of them go through a small study. What the commands
write is recorded: losses with all their digits, checksums of the weights and of every array, the
columns of tables. A method that cannot explain a network is recorded by its error.

`--against` lists the differences from an earlier file; the exit code is 1 if there is any that is
not foreseen. What was added, errors that were reworded and what EXPECTED names are foreseen.

The numbers hold for one machine with one set of libraries: compare files that were made there, and
commit none. The program uses only the commands, the files that they write and what reads those, so
that it runs before and after modules move.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import re
import runpy
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[1]

SMALL = ["data.resize=52", "data.crop=48"]
SHORT = [*SMALL, "data.num_frames=8"]
ACTIONS = [
    *SHORT, "data.groups=5", "data.clips=2", "data.size=64", "data.train_groups=[1,2,3]",
    "data.val_groups=[4]", "data.test_groups=[5]", "data.actions=[blink,expand,move_left]",
]  # fmt: skip
SPECTRA = [
    "data=synthetic_multispectral", "explain=[gradcam]", "data.spectrum=irtv", "data.actors=4",
    "data.repetitions=1", "data.actions=[swing_cw,swing_ccw]",
]  # fmt: skip
# Task -> settings of train.py.
TASKS = {
    "lrcn_attention": ["data=synthetic", "model=lrcn_attention", "model.hidden=16", *ACTIONS],
    "lrcn": ["experiment=synthetic_lrcn", "model.hidden=16", *ACTIONS],
    "frame_cnn": ["experiment=synthetic_frame_cnn", *ACTIONS],
    "something": [
        "experiment=something_tiny", *SHORT, "data.clips=4", "data.workers=4", "data.height=56",
        "data.templates=[Opening something,Closing something]",
    ],
    "r3d_fused": ["model=r3d_small", *SPECTRA, *SHORT, "data.fusion=early"],
    "pan": ["model=pan_small", *SPECTRA, *SMALL, "data.fusion=union"],
    "sfm": [
        "experiment=sfm_tiny", "data.frames=12", "data.eval_length=8", "data.eval_frames=5",
        "data.train=[0]", "data.batch_size=4", "data.height=32", "data.width=96",
    ],
}  # fmt: skip
TWO_STEPS = [
    "trainer=cpu", "trainer.max_epochs=2", "trainer.limit_train_batches=1", "logger=csv", "runs=.",
    "name=run", "data.root=data", "videos.clips=1",
    "measure=[deletion,insertion]", "measure.deletion.steps=4",
]  # fmt: skip
# Task -> columns that every method explains, beside the one that it chooses itself.
TARGETS = {"sfm": ["depth/mean"]}
MEASURES = "measure=[pointing_actor,energy_actor,energy_action,iou_action,deletion,insertion]"
# Further commands for every task: name -> methods (none: those of the training), and settings.
MORE: dict[str, tuple[list[str], list[str]]] = {
    "as_trained": ([], [MEASURES]),
    "side_by_side": (
        ["gradient", "rise"],
        [MEASURES, "measure.deletion.protocol=rise", "measure.deletion.steps=8"],
    ),
    "contrast": (["gradient", "occlusion"], ["target=1", "contrast=0"]),
}
# Settings of methods, where a method has them: it then takes a second, and its map is not blank.
METHODS: dict[str, Any] = {"masks": 24, "iterations": 3, "samples": 3, "steps": 4}
METHODS |= {"window": [4, 24, 24], "stride": [4, 24, 24], "threshold": "quantile:0.8"}
STUDIED = ["r3d_fused", "pan"]
STUDY = [
    "study=multispectral_tiny", "study.clips=2", "study.sweep_clips=1", "measure.deletion.steps=6",
    "study.methods.rise.masks=12", "study.sweeps.rise_masks.values=[6,12,24]",
    "study.claims.more_masks.better=24", "study.claims.more_masks.worse=6",
]  # fmt: skip

# Old words of names and values -> new ones.
RENAMED = {"seed003": "bayer2022", "fall_": "drop_", "spectrum_fall": "spectrum_drop"}
RENAMED |= {'"tied"': '"deletion_tied"'}  # and insertion_tied
PARTS = "hand", "object", "flat", "moving", "rich", "body", "arm", "paddle"  # of actors
RENAMED |= {f'"energy_{part}"': f'"energy_actor_{part}"' for part in PARTS}
# Differences that are meant: where -> why.
EXPECTED = {
    r"sfm/explain/(extremal_2d|extremal_3d|step)/": "explained depth/mean, now the loss",
    r"/faithfulness\.csv/": "now measures.csv",
    r"/curves\.csv/": "now a row for each measure",
    r"/scores\.csv/protocol": "now on the page, among the measures' settings",
    r"study/cells\.csv/map_error": "now unrounded",
}
PLACES = {"path", "seconds", "metric_seconds", "device"}  # columns and arrays that are not recorded
WORDS = {"error", "notes", "warning"}  # texts for the reader, which may be reworded


def methods() -> dict[str, Path]:
    """Name -> file of every method in `configs/explain`, wherever that folder lies."""
    folders = [ROOT / "configs" / "explain", *ROOT.glob("lightning_cam/**/configs/explain")]
    files = [file for folder in folders for file in folder.glob("*.yaml")]
    return {file.stem: file for file in sorted(files) if "_target_" in file.read_text()}


def chosen(names: list[str]) -> list[str]:
    """The setting `explain=[...]`, and those of METHODS that apply."""
    if not names:
        return []
    known = methods()
    keys = [(name, key) for name in names for key in yaml.safe_load(known[name].read_text())]
    more = [f"explain.{name}.{key}={METHODS[key]}" for name, key in keys if key in METHODS]
    return [f"explain=[{','.join(names)}]", *more]


def run(script: str, folder: Path, *settings: str) -> str:
    """Run a command in `folder` in a process of its own; return its last line if it failed.

    The process is a copy of this one, which has loaded the libraries, rather than a new
    interpreter: loading them would take most of the time.
    """
    process = multiprocessing.get_context("fork").Process(
        target=command, args=(ROOT / f"{script}.py", folder, settings)
    )
    process.start()
    process.join()
    said = (folder / "stderr.txt").read_text().strip() or f"exit code {process.exitcode}"
    return said.splitlines()[-1] if process.exitcode else ""


def command(script: Path, folder: Path, settings: Iterable[str]) -> None:
    os.chdir(folder)
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = [str(script), *settings]
    runpy.run_path(str(script), run_name="__main__")


def checksum(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).data)
    return digest.hexdigest()[:20]


def written(folder: Path) -> dict[str, Any]:
    """File -> what it holds: checksums of arrays, or the columns of a table."""
    from lightning_cam.files import read_csv  # undoes what write_csv does to names such as "-loss"

    found: dict[str, Any] = {}
    for file in sorted(folder.rglob("*.npz")):
        with np.load(file) as arrays:
            sums = {name: checksum(arrays[name]) for name in arrays if name not in PLACES}
        found[str(file.relative_to(folder))] = sums
    for file in sorted(folder.rglob("*.csv")):
        rows = read_csv(file)
        logged = file.name == "metrics.csv"  # which numbers share a row there says nothing
        skipped = {*PLACES, "epoch", "step"} if logged else PLACES
        found[str(file.relative_to(folder))] = {
            name: [row[name] for row in rows if row[name] or not logged]
            for name in (rows[0] if rows else {})
            if name not in skipped
        }
    return found


def trained(folder: Path, settings: Iterable[str]) -> tuple[dict[str, Any], Path]:
    """What a training leaves behind, and its checkpoint."""
    import torch

    if error := run("train", folder, *settings, *TWO_STEPS):
        raise SystemExit(f"{folder.name}: {error}")
    (last,) = folder.glob("run/*/checkpoints/last.ckpt")
    weights = torch.load(last, map_location="cpu", weights_only=True)["state_dict"]
    sums = checksum(*(weight.numpy() for weight in weights.values()))
    return {"weights": sums, **written(last.parents[1])}, last


def explained(folder: Path, ckpt: Path, name: str, *settings: str) -> dict[str, Any]:
    """What explaining one clip writes, or the error."""
    out = folder / "explained" / name
    where = [f"ckpt={ckpt.relative_to(folder)}", f"out={out.relative_to(folder)}", "clips=1"]
    error = run("explain", folder, *where, "device=cpu", *settings)
    return {"error": error} if error else written(out)


def reference(place: Path, tasks: Iterable[str]) -> dict[str, Any]:
    """All numbers; `place` is an empty folder to work in."""
    found: dict[str, Any] = {}
    checkpoints: dict[str, Path] = {}
    for task in tasks:
        start = time.monotonic()
        folder = place / task
        folder.mkdir()
        numbers, ckpt = trained(folder, TASKS[task])
        checkpoints[task] = ckpt
        found[task] = {"training": numbers, "explain": {}}
        for name in methods():
            found[task]["explain"][name] = explained(folder, ckpt, name, *chosen([name]))
            for target in TARGETS.get(task, []):
                key = f"{name} of {target}".replace("/", " ")
                numbers = explained(folder, ckpt, key, *chosen([name]), f"target={target}")
                found[task]["explain"][key] = numbers
        for key, (names, settings) in MORE.items():
            found[task][key] = explained(folder, ckpt, key, *chosen(names), *settings)
        print(f"{task}: {time.monotonic() - start:.0f} s", flush=True)
    if set(STUDIED) <= set(checkpoints):
        ckpts = ",".join(str(checkpoints[task].relative_to(place)) for task in STUDIED)
        roots = f"ckpt=[{ckpts}]", "out=study", f"data.root={STUDIED[0]}/data", "device=cpu"
        error = run("explain", place, *roots, *STUDY)
        found["study"] = {"error": error} if error else written(place / "study")
    return found


def flat(node: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """(where, value) of all values that are not mappings."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from flat(value, f"{at}/{key}" if at else key)
    else:
        yield at, node


def compare(old: dict[str, Any], new: dict[str, Any]) -> int:
    """Print the differences; return how many are not foreseen."""
    texts = [json.dumps(found) for found in (old, new)]
    for word, instead in RENAMED.items():
        texts = [text.replace(word, instead) for text in texts]
    before, after = (dict(flat(json.loads(text))) for text in texts)
    wrong = 0
    for at in [*before, *(at for at in after if at not in before)]:
        a, b = before.get(at), after.get(at)
        if a == b:
            continue
        reason = next((why for where, why in EXPECTED.items() if re.search(where, at)), None)
        if a is None:
            print(f"added      {at}")
        elif reason is not None:
            print(f"expected   {at}: {reason}")
        elif at.rpartition("/")[2] in WORDS and a and b:
            print(f"reworded   {at}: {a} -> {b}")
        else:
            wrong += 1
            if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
                a, b = next(pair for pair in zip(a, b, strict=True) if pair[0] != pair[1])
            print(f"DIFFERENT  {at}: {a} -> {'missing' if b is None else b}")
    print(f"{len(before)} numbers, checksums and columns compared, {wrong} differ")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))  # this tree, not another one that is installed
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", WANDB_MODE="offline")
    import hydra  # noqa: F401

    from lightning_cam import ExplainCallback  # noqa: F401  # with it what the commands need

    with tempfile.TemporaryDirectory() as place:
        found = reference(Path(place), args.tasks)
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    if args.against:
        old = json.loads(args.against.read_text())
        if compare({part: old[part] for part in found if part in old}, found):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
