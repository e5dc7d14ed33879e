"""How long until a data set of 200,000 clips is listed, by the first process and by the others?

    python benchmarks/index.py                 # makes trees of empty files; writes index.csv
    python benchmarks/index.py --share 0.1     # trees of a tenth of the size

Three layouts: Something-Something (one folder, lists in JSON), Kinetics (400 class folders, lists
in CSV) and UCF11's (folders of groups, no list). A process walks the tree with bare `os.scandir`
(nothing kept), then asks a new data module for its listing. *first*: there is no index; *others*:
there is one. Both in CPU seconds of the process, which other programs on the machine leave alone
(`wall_s` is by the clock), and as multiples of the walk's; the folders are in the system's cache,
so that nothing waits for a disk. *stats* counts `os.stat`. *worker*: a forked process that takes
every clip of the training part once in a random order and then collects garbage, as a loader
process does, but opens no video; how much its resident memory, and what it has for itself alone,
grow. *objects*: the same with the clips in a list of objects, as before there were arrays. What
both have for themselves is mostly what the collector touches of everything that was imported.
"""

from __future__ import annotations

import argparse
import csv
import gc
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

from lightning_cam.data.clips.kinetics import Kinetics
from lightning_cam.data.clips.something import SomethingSomething
from lightning_cam.data.clips.ucf11 import UCF11
from lightning_cam.data.core.index import _code as code_of_listing

LABELS = 174
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


def module(name: str, root: Path) -> Any:
    """The data module of a tree."""
    if name == "something":
        return SomethingSomething(str(root), split="official")
    return Kinetics(str(root)) if name == "kinetics" else UCF11(str(root / "videos"))


def listed(name: str, root: Path) -> Figures:
    """A walk and a listing, and what they took."""
    code_of_listing.cache_clear()
    data = module(name, root)
    walk(str(root))
    begin = time.process_time()
    files = walk(str(root))
    walked = time.process_time() - begin
    asked, stat, most = [], os.stat, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    os.stat = lambda *args, **options: asked.append(1) or stat(*args, **options)  # type: ignore[assignment,func-returns-value]
    begin, clock = time.process_time(), time.perf_counter()
    _ = data.listing
    took, waited = time.process_time() - begin, time.perf_counter() - clock
    os.stat = stat
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most
    return {"files": files, "walk_s": walked, "listing_s": took, "wall_s": waited,
            "ratio": took / walked, "stats": len(asked), "memory_mb": more / 1024}  # fmt: skip


def memory() -> tuple[float, float]:
    """Resident memory of this process, and that which it shares with no other, in MB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    return found["Rss"], found["Private_Dirty"]


def grown(dataset: Any) -> Figures:
    """How much a worker grows over an epoch."""
    order = random.Random(0).sample(range(len(dataset)), len(dataset))
    reading, writing = os.pipe()
    if not os.fork():
        before = memory()
        for index in order:
            clip = dataset.clips[index]
            _ = str(clip.path), clip.label, clip.clip_id
        gc.collect()
        after = memory()
        os.write(writing, json.dumps([b - a for a, b in zip(before, after, strict=True)]).encode())
        os._exit(0)
    os.wait()
    rss, own = json.loads(os.read(reading, 1000))
    return {"rss_mb": rss, "own_mb": own}


def measured(name: str, root: Path) -> dict[str, Figures]:
    """What one process finds: with no index, with one, and in a worker that it forks."""
    warnings.simplefilter("ignore")
    for index in [*root.glob(".lightning_cam"), *root.glob("*/.lightning_cam")]:
        shutil.rmtree(index)
    found = {"first": listed(name, root), "others": listed(name, root)}
    dataset = module(name, root).train_set
    found["worker"] = grown(dataset)
    dataset.clips = list(dataset.clips)
    return {**found, "objects": grown(dataset)}


def in_a_process(*arguments: str) -> Figures:
    """What a process of this file tells."""
    command = [sys.executable, __file__, *arguments]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(told.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", help="folder of the trees, which are kept")
    parser.add_argument("--out", default=str(Path(__file__).with_suffix(".csv")))
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measured(options.only[0], Path(options.only[1]))))
        return
    rows: list[Figures] = []
    work = Path(options.work or tempfile.mkdtemp())
    for name, make in SETS.items():
        root = work / name
        if not root.exists():
            make(root, options.share)
            time.sleep(2.5)  # what changed just now is not indexed
        found = [in_a_process("--only", name, str(root)) for _ in range(options.repeats)]
        for what in found[0]:
            every = [each[what] for each in found]
            middle = {key: round(median(each[key] for each in every), 3) for key in every[0]}
            rows.append({"data": name, "what": what, **middle})
        print(*rows[-len(found[0]) :], sep="\n", flush=True)
    with Path(options.out).open("w", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(key for row in rows for key in row))
        writer.writeheader()
        writer.writerows(rows)
    if not options.work:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
