"""A whole data set explained: its speed, and whether a watermark is found that nobody asked for.

    python benchmarks/survey.py                    # all; writes survey.csv
    python benchmarks/survey.py --clips 200        # smaller
    python benchmarks/survey.py --parts watermark
    taskset -c 1 python benchmarks/survey.py --parts speed   # loader and network share a core

*speed*: synthetic actions explained with Grad-CAM, in clips per second. Bare is decoding and one
forward of the same batches, both with one loader process. The two take turns, a shard of 64 clips
each, so that a busy machine slows both; a turn ends when its loader has read ahead what it may.
*ranks*: the same clips by one process, and by two of which the second is killed (SIGKILL) and
started again: are all files equal? *watermark*: a small network trained on three actions, half of
the clips of one with a watermark; which of its clusters has it? *findings*: tables and page of
many clips with maps that are made up, of a fifth in a corner: seconds of processor, and memory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import lightning_cam as lc
from lightning_cam.data.core.clips import Clip, finished
from lightning_cam.data.core.dataset import SampleDataset
from lightning_cam.data.core.loading import collate
from lightning_cam.explaining.kept_map import KeptMap
from lightning_cam.explaining.question import Question
from lightning_cam.files import write_csv
from lightning_cam.models import LRCN
from lightning_cam.survey.batches import SIZE, BatchExplainer
from lightning_cam.survey.findings import Findings
from lightning_cam.survey.page import write_media, write_survey_page
from lightning_cam.survey.run import SurveyRun, spread_order
from lightning_cam.survey.shards import (
    CLIPS,
    ClipRecord,
    MapRecord,
    frames_jpeg,
    shard_files,
    shard_path,
    write_shard,
)
from lightning_cam.synthetic import SyntheticActions
from lightning_cam.synthetic.actions.files import CLASSES as ACTIONS
from lightning_cam.synthetic.actions.files import ActionKey, draw_action

NAMES = ("move_left", "blink", "expand")
MARKED = "blink"
SIDE, FRAMES = 48, 12


@dataclass
class Task:
    """A network as `explain.py` gets it from a checkpoint."""

    net: nn.Module
    layer: str
    names: Sequence[str]
    device = torch.device("cpu")

    def explainable(self, batch: Any = None) -> lc.Explainable:
        return lc.Explainable.of(self.net, [self.layer], self.names)


# --- the watermark ------------------------------------------------------------------------------


class Stamped(SampleDataset[Clip]):
    """Three synthetic actions in memory; every other clip of `MARKED` has a watermark.

    Attributes:
        marked: whether each clip has it.
    """

    def __init__(self, groups: range, clips: int) -> None:
        keys = [
            ActionKey(ACTIONS.index(name), group, clip)
            for name in NAMES for group in groups for clip in range(1, clips + 1)
        ]  # fmt: skip
        super().__init__(
            [Clip(Path(k.clip_id), k.clip_id, NAMES.index(ACTIONS[k.label])) for k in keys]
        )
        self.marked = [
            ACTIONS[key.label] == MARKED and (key.group + key.clip) % 2 == 0 for key in keys
        ]
        self.drawn = [
            self._drawn(key, marked) for key, marked in zip(keys, self.marked, strict=True)
        ]

    def _drawn(self, key: ActionKey, marked: bool) -> tuple[Tensor, Tensor]:
        """The clip, normalised, and where its actor is."""
        frames, masks, _ = draw_action(key, 0, SIDE)
        frames, masks = frames[4::5][:FRAMES].copy(), masks[4::5][:FRAMES]
        if marked:
            size = SIDE // 6
            logo = (np.indices((size, size)).sum(0) // 2 % 2).astype(bool)[..., None]
            frames[:, 3 : 3 + size, -3 - size : -3] = np.where(logo, (250, 240, 60), (30, 20, 120))
        video = torch.from_numpy(frames).permute(3, 0, 1, 2).float() / 255
        return (video - 0.45) / 0.225, torch.from_numpy(masks)

    def _sample(self, index: int, seed: Any) -> dict[str, Any]:
        video, mask = self.drawn[index]
        return {
            "video": video, "mask": mask, "label": torch.tensor(self.clips[index].label),
            "error": "",
        }  # fmt: skip

    def _missing(self, index: int, error: str) -> dict[str, Any]:
        raise AssertionError(error)


def trained(data: Stamped, epochs: int) -> nn.Module:
    """A network that learns the watermark long before the action."""
    torch.manual_seed(0)
    net = nn.Sequential()
    sizes = (("first", 3, 16, (1, 5, 5), 1), ("second", 16, 24, 3, 2), ("third", 24, 32, 3, 1))
    for name, before, after, kernel, stride in sizes:
        pad = (0, 2, 2) if name == "first" else 1
        conv = nn.Conv3d(before, after, kernel, (stride, 2, 2), pad)  # type: ignore[arg-type]
        net.add_module(name, nn.Sequential(conv, nn.BatchNorm3d(after), nn.ReLU()))
    net.add_module("head", nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(32, 3)))
    videos = torch.stack([video for video, _ in data.drawn])
    labels = torch.tensor([clip.label for clip in data.clips])
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    steps = epochs * (len(labels) // 20)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(labels))
        for batch in order[: len(order) // 20 * 20].split(20):
            loss = nn.functional.cross_entropy(net(videos[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def watermark(folder: Path, groups: int = 10, clips: int = 6, epochs: int = 10) -> dict[str, float]:
    """Train, explain, and compare the first cluster with who has the watermark."""
    data = Stamped(range(1, groups + 1), clips)
    net = trained(data, epochs)
    surveyed(folder, Task(net, "third", NAMES), data)
    found = Findings.of(shard_files(folder))
    first = found.clusters[0]
    members = {row.record.index for row in first.rows}
    own = [n for n, clip in enumerate(data.clips) if NAMES[clip.label] == MARKED]
    with_it = [n for n in own if data.marked[n]]
    without = [n for n in range(len(data)) if not data.marked[n]]
    unmarked = [n for n in own if not data.marked[n]]
    return {
        "of_the_class_marked": float(first.column == MARKED),
        "of_the_marked": len(members & {*with_it}) / len(with_it),
        "of_the_class_s_others": len(members & {*unmarked}) / len(unmarked),
        "of_all_others": len(members & {*without}) / len(without),
        "suspicion": first.rank,
        "suspicion_of_the_next": found.clusters[1].rank,
        "border": first.facts()["border"],
        "inside": first.inside or 0.0,
        "inside_even": first.even or 0.0,
    }


def surveyed(folder: Path, task: Task, data: SampleDataset[Any], loader: object = None) -> None:
    """A survey of all clips by this process."""
    titles = [clip.clip_id for clip in data.clips]
    methods = {"gradcam": lc.GradCAM()}
    explainer = BatchExplainer(task, loader, data, titles, methods, Question())
    SurveyRun(folder, explainer, spread_order(data, range(len(data))), {}, "").go()


# --- many clips -----------------------------------------------------------------------------------


def made_up(folder: Path, count: int, classes: int) -> None:
    """Shards of a survey that nobody made."""
    rng, (y, x) = np.random.default_rng(0), np.ogrid[:7, :7]
    names = [f"class number {k}" for k in range(classes)]
    about = {
        "methods": {"gradcam": {"title": "Grad-CAM", "settings": {}}}, "question": "{}",
        "names": names, "heads": [(classes, "softmax")], "broken": [],
    }  # fmt: skip
    frames = frames_jpeg(np.zeros((16, 32, 32, 3), np.uint8))
    for first in range(0, count, CLIPS):
        records = []
        for n in range(first, min(first + CLIPS, count)):
            at = (0, 6) if n % 5 == 0 else 2 + 2 * rng.random(2)
            heat = np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 3) * rng.random((16, 1, 1))
            heat = (heat / heat.max()).astype(np.float16)
            one = MapRecord(KeptMap(heat, 0.0, 1.0, False), True, inside=float(rng.random()))
            title, label = f"title_of_a_video_{n:06d}", n % classes
            outputs = rng.standard_normal(classes).astype(np.float32)
            records.append(
                ClipRecord(
                    n, title, f"/data/{names[label]}/{title}.mp4", label, target=label,
                    outputs=outputs, even=0.2, times=[t / 8 for t in range(16)],
                    valid=[True] * 16, size=(16, 32, 32), jpeg=frames, maps={"gradcam": one},
                )
            )  # fmt: skip
        write_shard(shard_path(folder, first // CLIPS), records, about)


def told(folder: Path, count: int, answer: Any) -> None:
    """Write tables and page of shards, in a process of its own."""
    before, start = getrusage(RUSAGE_SELF).ru_maxrss, time.process_time()
    found = Findings.of(shard_files(folder))
    page = write_survey_page(folder, found, {}, found.write(folder))
    answer.put({
        "clips": count, "processor_s": time.process_time() - start,
        "more_memory_mb": (getrusage(RUSAGE_SELF).ru_maxrss - before) / 1024,
        "page_mb": page.stat().st_size / 1e6, "clusters": len(found.clusters),
    })  # fmt: skip


def findings(folder: Path, count: int, classes: int = 174) -> dict[str, float]:
    """What tables and page of a large data set take."""
    made_up(folder, count, classes)
    fork = get_context("fork")
    answer = fork.Queue()
    process = fork.Process(target=told, args=(folder, count, answer))
    process.start()
    found: dict[str, float] = answer.get()
    process.join()
    return found


# --- speed, and several processes -----------------------------------------------------------------


def actions(
    root: str, count: int, backbone: str = "small"
) -> tuple[Task, SyntheticActions, SampleDataset[Any]]:
    """An LRCN as of the default training, not trained, and `count` clips in files."""
    data = SyntheticActions(root)
    data.prepare_data()
    dataset = data.evaluation("train")
    dataset.clips = [*dataset.clips, *data.evaluation("val").clips, *data.evaluation("test").clips]
    dataset.clips = dataset.clips[:count]
    torch.manual_seed(0)
    net = LRCN(len(data.classes), backbone=backbone, hidden=192, readout="attention").eval()
    return Task(net, net.explain_layers[0], data.classes), data, dataset


def speed(root: str, count: int, folder: Path, backbone: str) -> dict[str, float]:
    """Clips per second, and CPU seconds a clip of the process that explains."""
    task, data, dataset = actions(root, count, backbone)
    data.num_workers = 1
    titles = [clip.clip_id for clip in dataset.clips]
    explainer = BatchExplainer(task, data, dataset, titles, {"gradcam": lc.GradCAM()}, Question())
    order = spread_order(dataset, range(len(dataset)))
    batches = [
        order[n : min(n + SIZE, first + CLIPS)]
        for first in range(0, len(order), CLIPS)
        for n in range(first, min(first + CLIPS, len(order)), SIZE)
    ]
    loader = DataLoader(dataset, batch_sampler=batches, num_workers=1, collate_fn=collate)
    bare, survey = bare_outputs(task, loader), explainer.explained(batches)
    next(bare), next(survey)  # what only the first batch takes
    rested()
    spent: dict[str, list[tuple[float, float]]] = {"bare": [], "survey": []}
    per_shard = CLIPS // SIZE
    for number in range(1, len(batches) // per_shard):
        for way, work in (("bare", bare), ("survey", survey)):
            start = time.perf_counter(), time.process_time()
            done = [next(work) for _ in range(per_shard)]
            if way == "survey":
                shard = [one for batch in done for one in batch.result()]
                records = [one.record for one in shard]
                write_media(folder, number, [one.pictures for one in shard])
                write_shard(folder / f"{number}.npz", records, explainer.about(records))
            main = time.process_time() - start[1]
            spent[way].append((rested() - start[0], main))
    wall, cpu = ({w: sum(t[k] for t in times) for w, times in spent.items()} for k in (0, 1))
    clips = CLIPS * len(spent["bare"])
    size = sum(path.stat().st_size for path in folder.glob("*.npz")) / clips
    return {
        "clips": clips,
        "bare_clips_per_s": clips / wall["bare"],
        "survey_clips_per_s": clips / wall["survey"],
        "share_of_bare_speed": wall["bare"] / wall["survey"],
        "bare_main_cpu_ms": 1000 * cpu["bare"] / clips,
        "survey_main_cpu_ms": 1000 * cpu["survey"] / clips,
        "bytes_per_clip": size,
    }


def rested(pause: float = 0.2) -> float:
    """Since when, by `perf_counter`, the loaders rest: else one would read in the other's time."""

    def used() -> list[list[str]]:
        stats = [Path(f"/proc/{p.pid}/stat").read_text() for p in active_children()]
        return [stat.rsplit(")", 1)[1].split()[11:13] for stat in stats]

    since, last = time.perf_counter(), used()
    while time.perf_counter() - since < pause:
        time.sleep(0.005)
        if (now := used()) != last:
            since, last = time.perf_counter(), now
    return since


def bare_outputs(task: Task, loader: DataLoader[Any]) -> Iterator[Tensor]:
    """What a network says of each batch, and nothing else."""
    for batch in loader:
        with torch.no_grad():
            yield task.net(finished(batch)["video"])


def files_in(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def ranks(root: str, count: int, folder: Path) -> dict[str, float]:
    """One process; two, of which one is killed on the way and started again."""
    alone, shared = folder / "alone", folder / "shared"

    def start(rank: int, world: int, out: Path) -> subprocess.Popen[bytes]:
        own = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world)}
        line = [
            sys.executable,
            __file__,
            "--root",
            root,
            "--clips",
            str(count),
            "--rank-of",
            str(out),
        ]
        return subprocess.Popen(line, env=own)

    start(0, 1, alone).wait()
    first, second = start(0, 2, shared), start(1, 2, shared)
    while not list(shared.glob("maps/shard_0001*.npz")):  # it has finished one
        time.sleep(0.2)
    second.send_signal(signal.SIGKILL)
    first.wait()
    before = len(shard_files(shared))
    start(1, 2, shared).wait()
    same = files_in(alone) == files_in(shared)
    return {
        "clips": count,
        "shards_at_the_kill": before,
        "files": len(files_in(shared)),
        "equal": float(same),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--root", default="data/synthetic_actions")
    parser.add_argument("--clips", type=int, default=1100)
    parser.add_argument("--parts", nargs="+", default=["speed", "ranks", "watermark", "findings"])
    parser.add_argument("--many", type=int, default=20_000, help="clips of `findings`")
    parser.add_argument("--backbone", default="resnet18", help="of the LRCN of `speed`, or small")
    parser.add_argument("--rank-of", help="of `ranks`: the folder of one process")
    parser.add_argument("--csv", default=str(Path(__file__).with_suffix(".csv")))
    asked = parser.parse_args()
    if asked.rank_of:
        task, data, dataset = actions(asked.root, asked.clips)
        surveyed(Path(asked.rank_of), task, dataset, data)
        return
    rows: list[Mapping[str, Any]] = []
    cores = len(os.sched_getaffinity(0))
    place = Path(tempfile.mkdtemp())
    for part in asked.parts:
        work = {
            "speed": lambda: speed(asked.root, asked.clips, place / "speed", asked.backbone),
            "ranks": lambda: ranks(asked.root, asked.clips, place / "ranks"),
            "watermark": lambda: watermark(place / "watermark"),
            "findings": lambda: findings(place / "findings", asked.many),
        }[part]
        for name, value in work().items():
            rows.append(
                {
                    "part": f"{part} {asked.backbone}, cores: {cores}" if part == "speed" else part,
                    "what": name,
                    "value": round(value, 4),
                }
            )
            print(f"{part:10} {name:24} {value:.4g}", flush=True)
    shutil.rmtree(place)
    write_csv(asked.csv, rows, ("part", "what", "value"))


if __name__ == "__main__":
    main()
