"""What it takes to explain a long video, and whether its timeline finds what was put into it.

    python benchmarks/long_video.py CKPT --out benchmarks/long_video.csv

Three questions, a row each:

- `events`: a file of three minutes, most of it stills of other test clips, with twelve test clips
  of synthetic actions at known times. Of the windows
  whose middle lies in an action's interval, how many have its class there by the timeline?
- `cost`: explaining that file beside the bare forwards of the same windows, in the same batches,
  and decoding it once, in seconds of a processor. Parts take turns, the best of each is taken.
- `memory`: the peak of a process that explains 30 minutes of 1080p by `explain.py`, files written.
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import torch
from torchvision.models.video import r3d_18

import lightning_cam as lc
from lightning_cam.data.core.clips import ClipReader, finished
from lightning_cam.data.core.ground_truth import Truth
from lightning_cam.data.core.loading import collate
from lightning_cam.data.core.transforms import ClipTransform
from lightning_cam.data.core.windows import WindowedVideo
from lightning_cam.data.video import read_clip
from lightning_cam.data.video.streams import open_stream
from lightning_cam.explaining.video_windows import _batches, explain_windows
from lightning_cam.synthetic import SyntheticActions
from lightning_cam.training.checkpoint import rebuild
from lightning_cam.viz.video_file import video_writer

SECONDS, EVENTS, FPS = 180, 12, 30


def planted(path: Path, data: SyntheticActions, seed: int = 0) -> list[tuple[str, float, float]]:
    """Write the file of three minutes; its events as (class, start, end).

    Between the events, frames of other test clips are shown still, one a second and a half.
    """
    random = np.random.default_rng(seed)
    dataset = data.evaluation("test")
    labels = random.permutation([*range(len(data.classes))] * 2)[:EVENTS]
    gap = SECONDS / EVENTS
    chosen = [int(random.choice([i for i, c in enumerate(dataset.clips) if c.label == label]))
              for label in labels]  # fmt: skip
    others = iter(random.permutation(len(dataset.clips)).tolist() * 4)
    events = []
    with video_writer(path, FPS) as write:
        count = 0
        for n, (label, index) in enumerate(zip(labels, chosen, strict=True)):
            clip = read_clip(dataset.clips[index].path)
            start = n * gap + float(random.uniform(2, gap - 5))
            while count < round(start * FPS):
                still = read_clip(
                    dataset.clips[next(others)].path, frames=[int(random.integers(72))]
                )
                for _ in range(min(45, round(start * FPS) - count)):
                    write(still[0])
                    count += 1
            truth = Truth.read(dataset.clips[index].truth)
            at = count / FPS
            events.append((data.classes[label], at + truth.onset, at + truth.offset))
            for frame in clip:
                write(frame)
                count += 1
        while count < SECONDS * FPS:
            write(frame)
            count += 1
    return events


def found(e: lc.VideoExplanation, events: list[tuple[str, float, float]]) -> tuple[int, int, int]:
    """Windows with their middle in an event: right by the timeline, all; and events found."""
    right = total = seen = 0
    track = e.track
    for name, start, end in events:
        hits = []
        for window in e.windows:
            middle = e.times[window.first : window.first + window.steps].mean()
            if not start <= middle < end:
                continue
            said = next(s.name for s in track if s.start_s <= middle < s.end_s)
            hits.append(said == name)
        right, total, seen = right + sum(hits), total + len(hits), seen + any(hits)
    return right, total, seen


def costs(task: object, video: WindowedVideo, turns: int) -> dict[str, float]:
    """Seconds of a processor, the best of turns, of

    - decoding: all frames once, as RGB; "steps": those alone that the network sees
    - reading: the windows, as the network takes them
    - forwards: of the same windows in the same batches, and nothing else
    - explaining: all of it, by Grad-CAM
    """
    raw = [collate([w.sample for w in ws]) for ws in _batches(iter(video), None)]
    batches = [finished(batch) for batch in raw]

    def again() -> WindowedVideo:
        return WindowedVideo(video.reader, video.path, between=video.between)

    def forwards() -> None:
        for batch in batches:
            with torch.no_grad():
                task.explainable(batch).forward(batch["video"])  # type: ignore[attr-defined]

    def explaining() -> None:
        explain_windows(again(), task.explainable, {"gradcam": lc.GradCAM()}).close()  # type: ignore[attr-defined]

    parts = {
        "decoding": lambda: [None for _ in open_stream(video.path).frames(video.frames)],
        "steps": lambda: [None for _ in open_stream(video.path).frames(video.steps)],
        "reading": lambda: [None for _ in again()],
        "forwards": forwards,
        "explaining": explaining,
    }
    best = dict.fromkeys(parts, np.inf)
    for _ in range(turns):
        for name, part in parts.items():
            start = time.process_time()
            part()
            best[name] = min(best[name], time.process_time() - start)
    return best


def long_file(path: Path, minutes: float, height: int = 1080, width: int = 1920) -> Path:
    """Write a long file of moving texture at 30 fps: 20 s, whose packets are repeated."""
    random = np.random.default_rng(0)
    ground = random.integers(0, 256, (height // 8, width // 4, 3)).astype(np.uint8)
    ground = ground.repeat(8, 0).repeat(8, 1)  # twice as wide as the image
    piece, count = path.with_suffix(".piece.mp4"), 20 * FPS
    with video_writer(piece, FPS) as write:
        for t in range(count):
            x = 4 * t % width
            write(np.ascontiguousarray(ground[:, x : x + width]))
    with av.open(str(piece)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        length = round(count / FPS / stream.time_base)
        for k in range(round(minutes * 3)):
            source.seek(0)
            for packet in source.demux(stream):
                if packet.dts is None:
                    continue
                packet.pts, packet.dts = packet.pts + k * length, packet.dts + k * length
                packet.stream = copy
                target.mux(packet)
    piece.unlink()
    return path


def peak(ckpt: str, file: Path, out: Path, *more: str) -> tuple[float, float]:
    """Peak memory in GB and seconds of `explain.py`."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "explain.py", f"ckpt={ckpt}", f"video={file}", f"out={out}", *more],
        check=True,
    )
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ckpt")
    parser.add_argument("--work", type=Path, default=Path("runs/long_video"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--minutes", type=float, default=30, help="of the 1080p file; 0: none")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=10, help="files with events")
    settings = parser.parse_args()
    settings.work.mkdir(parents=True, exist_ok=True)
    module, data, _ = rebuild(settings.ckpt, [])
    task = module.eval()
    rows = []
    right = total = seen = 0
    for seed in range(settings.seeds):
        path = settings.work / f"planted_{seed}.mp4"
        events = planted(path, data, seed)
        e = explain_windows(
            WindowedVideo(data.reader, path), task.explainable, {"gradcam": lc.GradCAM()}
        )
        counts = found(e, events)
        right, total, seen = (a + b for a, b in zip((right, total, seen), counts, strict=True))
        e.close()
        print(counts, flush=True)
    note = f"{right} of {total} windows, {seen} of {EVENTS * settings.seeds} events"
    case = f"{settings.seeds} files of 3 minutes"
    rows.append({"what": "events", "case": case, "value": right / total, "note": note})
    print(rows[-1], flush=True)
    path = settings.work / "planted_0.mp4"
    wide = lc.Explainable.of(
        r3d_18().eval(), ["layer4"],
        mean=[0.43, 0.39, 0.38], std=[0.23, 0.22, 0.22],
    )  # fmt: skip
    for name, what, reader, between in (
        ("default network", task, data.reader, (None, None)),
        ("R3D-18, 112 pixels, 6 s", Plain(wide), reader_of(112), (0, 6)),
    ):
        took = costs(what, WindowedVideo(reader, path, between=between), settings.turns)
        ratio = took["explaining"] / (took["forwards"] + took["decoding"])
        note = ", ".join(f"{part} {seconds:.2f} s" for part, seconds in took.items())
        rows.append({"what": "cost", "case": name, "value": ratio, "note": note})
        print(rows[-1], flush=True)
    if settings.minutes:
        file = settings.work / "long.mp4"
        if not file.exists():
            long_file(file, settings.minutes)
        gigabytes, seconds = peak(settings.ckpt, file, settings.work / "long", "explain=[gradcam]")
        rows.append({"what": "memory", "case": f"{settings.minutes:g} minutes of 1080p",
                     "value": gigabytes, "note": f"GB, in {seconds:.0f} s"})  # fmt: skip
        print(rows[-1], flush=True)
    if settings.out:
        with settings.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["what", "case", "value", "note"])
            writer.writeheader()
            writer.writerows({**row, "value": f"{row['value']:.3f}"} for row in rows)


class Plain:
    """A described network as a task."""

    def __init__(self, model: lc.Explainable) -> None:
        self.model = model

    def explainable(self, batch: object = None) -> lc.Explainable:
        return self.model


def reader_of(crop: int) -> ClipReader:
    return ClipReader(16, 7.5, ClipTransform(resize=crop, crop=crop))


if __name__ == "__main__":
    main()
