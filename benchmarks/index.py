"""How long until a data set of 200,000 clips is listed, by the first process and by the others?

    python benchmarks/index.py                 # makes trees of empty files; writes index.csv
    python benchmarks/index.py --share 0.1     # trees of a tenth of the size

Three layouts: Something-Something (one folder, lists in JSON), Kinetics (400 class folders, lists
in CSV) and UCF11's (folders of groups, no list). Processes take turns with them, so that whatever
else the machine does comes to all alike; the figures are medians over the repeats.

- *walk_s*: bare `os.scandir`, counting files. *paths_s*: the same, keeping path and number of each
  file, the least that a listing has to do. *floor_s*: besides, what of the listing is one call of C
  for a list or a clip: the lists as `json` and `csv` parse them, and for Something-Something the
  hashes that say each clip's part.
- *first*: a new data module's listing where there is no index; *others*: where there is one.
  `listing_s` is CPU time of the process, which other programs leave alone; `wall_s` is by the
  clock; `ratio` is to walk_s, `ratio_paths` to paths_s. Folders and lists are in the system's
  cache, so that nothing waits for a disk; where it does, walk and listing wait for the same.
  `stats` counts `os.stat`.
- *worker*: an epoch of the training loader with two workers and 64 clips a batch, where all is as
  it is in training but decoding, in whose place nothing is done. Memory of the worker that grows
  more, behind its first batch and at the end: resident (`rss_mb`), and what it has for itself
  alone (`own_mb`: what is private in `/proc/PID/smaps_rollup`). *no rows*: the same loader of the
  same clip again and again, for what all workers come to. *objects*: with clips in a list of
  objects, as before there were arrays.
"""

from __future__ import annotations

import argparse
import csv
import gc
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lightning_cam.data.clips.kinetics import Kinetics
from lightning_cam.data.clips.something import SomethingSomething
from lightning_cam.data.clips.ucf11 import UCF11
from lightning_cam.data.core.clips import Clip, ClipReader
from lightning_cam.data.core.index import _code as code_of_listing
from lightning_cam.data.core.rows import Packed

LABELS = 174
WHAT = ("first", "others", "worker", "no rows", "objects")
Figures = dict[str, Any]


def something(root: Path, share: float) -> None:
    """Something-Something v2: 220,847 videos in one folder."""
    media = root / "20bn-something-something-v2"
    media.mkdir(parents=True)
    ids = [str(n + 1) for n in range(int(220_847 * share))]
    random.Random(0).shuffle(ids)
    for clip_id in ids:
        (media / f"{clip_id}.webm").touch()
    names = [f"Pushing something number {n} from left to right" for n in range(LABELS)]
    lists = {"labels": {name: str(n) for n, name in enumerate(names)}}
    train, val = int(168_913 * share), int(193_690 * share)
    parts = {"train": ids[:train], "validation": ids[train:val], "test": ids[val:]}
    for part, some in parts.items():
        lists[part] = [_row(clip_id, names, part) for clip_id in some]  # type: ignore[assignment]
    for part, content in lists.items():
        (root / f"something-something-v2-{part}.json").write_text(json.dumps(content))


def _row(clip_id: str, names: list[str], part: str) -> dict[str, Any]:
    if part == "test":
        return {"id": clip_id}
    name = names[int(clip_id) % LABELS]
    cup = "a small red cup"
    template, label = name.replace("something", "[something]"), name.replace("something", cup)
    return {"id": clip_id, "label": label, "template": template, "placeholders": [cup]}


def kinetics(root: Path, share: float) -> None:
    """Kinetics-400: 260,000 videos in 400 folders of each part."""
    draw = random.Random(0)
    for part, count in (("train", 240_000), ("validate", 20_000)):
        rows = ["label,youtube_id,time_start,time_end,split"]
        for n in range(int(count * share)):
            label, start = f"doing thing {n % 400}", draw.randrange(300)
            name = f"{draw.getrandbits(44):011x}"
            folder = root / part / label
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}_{start:06d}_{start + 10:06d}.mp4").touch()
            rows.append(f"{label},{name},{start},{start + 10},{part}")
        (root / f"{part}.csv").write_text("\n".join(rows))


def ucf11(root: Path, share: float) -> None:
    """UCF11's layout: 100,100 videos in 275 folders of groups."""
    for name in (f"class{n}" for n in range(11)):
        for group in range(1, 26):
            folder = root / "videos" / name / f"v_{name}_{group:02d}"
            folder.mkdir(parents=True)
            for n in range(int(364 * share)):
                (folder / f"{folder.name}_{n:03d}.mpg").touch()


SETS: dict[str, Callable[[Path, float], None]] = {
    "something": something,
    "kinetics": kinetics,
    "ucf11": ucf11,
}


def walk(folder: str) -> int:
    """How many files are below a folder."""
    with os.scandir(folder) as entries:
        return sum(walk(entry.path) if entry.is_dir() else 1 for entry in entries)


def paths(folder: str) -> list[tuple[str, int]]:
    """Path and number of all files below a folder."""
    found: list[tuple[str, int]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            found += paths(entry.path) if entry.is_dir() else [(entry.path, entry.inode())]
    return found


def floor(root: str) -> object:
    """What no listing of a tree can go without: its files and its lists."""
    lists = []
    for path in (path for path, _ in paths(root) if path.endswith((".json", ".csv"))):
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            lists.append(json.load(file) if path.endswith(".json") else [*csv.reader(file)])
    hashed = [row["id"] for rows in lists for row in rows if isinstance(row, dict)]
    return lists, [hashlib.sha256(each.encode()).digest() for each in hashed]


def seconds(work: Callable[[str], object], root: Path) -> float:
    """CPU time of it, once the system has the folders in its cache."""
    gc.disable()
    begin = time.process_time()
    work(str(root))
    took = time.process_time() - begin
    gc.enable()
    return took


def module(name: str, root: Path) -> Any:
    """The data module of a tree."""
    if name == "something":
        return SomethingSomething(str(root), split="official")
    return Kinetics(str(root)) if name == "kinetics" else UCF11(str(root / "videos"))


def listed(name: str, root: Path) -> Figures:
    """Walks and a listing, and what they took."""
    code_of_listing.cache_clear()
    data, files = module(name, root), walk(str(root))
    bare = {"walk_s": seconds(walk, root), "paths_s": seconds(paths, root)}
    asked, stat, most = [], os.stat, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    os.stat = lambda *args, **options: asked.append(1) or stat(*args, **options)  # type: ignore[assignment,func-returns-value]
    begin, clock = time.process_time(), time.perf_counter()
    _ = data.listing
    took, waited = time.process_time() - begin, time.perf_counter() - clock
    os.stat = stat
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most
    bare["floor_s"] = seconds(floor, root)
    return {"files": files, **bare, "listing_s": took, "wall_s": waited,
            "ratio": took / bare["walk_s"], "ratio_paths": took / bare["paths_s"],
            "stats": len(asked), "memory_mb": more / 1024}  # fmt: skip


class Undecoded(ClipReader):
    """A reader of videos that reads none."""

    def window(self, path: Path, *_: Any, **__: Any) -> Any:
        return None, None

    def sample(self, clip: Clip, *_: Any) -> dict[str, Any]:
        return {"label": torch.tensor(clip.label), "clip_id": clip.clip_id,
                "path": str(clip.path), "error": ""}  # fmt: skip


class Again(Packed[Clip]):
    """The same clip any number of times."""

    def __init__(self, clip: Clip, count: int) -> None:
        self.clip, self.count = clip, count

    def __len__(self) -> int:
        return self.count

    def _at(self, at: int) -> Clip:
        return self.clip


def memory(process: int) -> tuple[float, float]:
    """Resident memory of a process, and that which it shares with no other, in MB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    return found["Rss"], found["Private_Dirty"] + found["Private_Clean"]


def grown(data: Any) -> Figures:
    """How much a worker grows from its first batch to the end of an epoch."""
    loader = data.train_dataloader()
    held: list[list[tuple[float, float]]] = []  # at one batch after another
    for number, _ in enumerate(loader):
        workers = [worker.pid for worker in loader._iterator._workers]
        if number in (len(workers) - 1, len(loader) - 1):  # each has made one, and all
            held.append([memory(worker) for worker in workers])
    pairs = [*zip(held[0], held[-1], strict=True)]
    rss, own = (max(now[n] - then[n] for then, now in pairs) for n in (0, 1))
    return {"rss_mb": rss, "own_mb": own}


def measured(name: str, root: Path, what: str) -> Figures:
    """What one process finds, see above."""
    warnings.simplefilter("ignore")
    if what == "first":
        for index in [*root.glob(".lightning_cam"), *root.glob("*/.lightning_cam")]:
            shutil.rmtree(index)
    if what in ("first", "others"):
        return listed(name, root)
    data = module(name, root)
    data.num_workers, data.batch_size = 2, 64
    read = data.reader
    data.reader = Undecoded(read.num_frames, read.fps, read.transform)
    if what == "objects":
        data.train_set.clips = [*data.train_set.clips]
    if what == "no rows":
        data.train_set.clips = Again(data.train_set.clips[0], len(data.train_set))
    return grown(data)


def in_a_process(*arguments: str) -> Figures:
    """What a process of this file tells."""
    command = [sys.executable, __file__, *arguments]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(told.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--work", help="folder of the trees, which are kept")
    parser.add_argument("--out", default=str(Path(__file__).with_suffix(".csv")))
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        name, folder, what = options.only
        print(json.dumps(measured(name, Path(folder), what)))
        return
    work = Path(options.work or tempfile.mkdtemp())
    for name, make in SETS.items():
        if not (work / name).exists():
            make(work / name, options.share)
    time.sleep(2.5)  # what changed just now is not indexed
    found: dict[tuple[str, str], list[Figures]] = {}
    for _ in range(options.repeats):
        for name in SETS:
            for what in WHAT:
                figures = in_a_process("--only", name, str(work / name), what)
                found.setdefault((name, what), []).append(figures)
                print(name, what, figures, flush=True)
    rows: list[Figures] = []
    for (name, what), every in sorted(found.items(), key=lambda item: [*SETS].index(item[0][0])):
        middle = {key: round(median(each[key] for each in every), 3) for key in every[0]}
        rows.append({"data": name, "what": what, **middle})
    with Path(options.out).open("w", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(key for row in rows for key in row))
        writer.writeheader()
        writer.writerows(rows)
    if not options.work:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
