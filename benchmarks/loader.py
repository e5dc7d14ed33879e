"""Does the loader keep up? Clips per second against bare decoding of the same frames.

    python benchmarks/loader.py               # renders its own files; writes loader.csv
    python benchmarks/loader.py --kinds mpg webm --repeats 9

Six ways to the same 16 frames of random windows, with 0 and 2 workers:

- *usual* is PyAV seeking to the key frame before the window (in `.mpg`, where seeking is not to be
  trusted, decoding from the start) and converting the wanted frames by `to_ndarray("rgb24")`, or
  `cv2.imread` of the wanted images, checking nothing and told beforehand where the frames are;
- *bare* is the same as fast as we know: one converter without threads for all frames (`to_ndarray`
  has one for each, which starts threads), and of Motion JPEG (`mjpeg`) no other frame decoded;
- *reader* is `read_frames`, which indexes the file and checks what it decodes;
- *raw* is the training loader of a data module, and what its workers ship: reader, resizing to 256
  (`--resize`), crop of 7/8 of that, flip, collation, in uint8;
- *loader* adds what the data module then does to each batch in the main process, on the CPU:
  float32, normalising, colours. Where a GPU does that, *raw* is what counts;
- *cached* is *loader* with `data.cache=disk`, filled before, and in memory as files are that were
  just used.

They take turns, and the figures are medians over repeats; one thread per process. Shares of the
speed of bare and of usual decoding are of CPU seconds with 0 workers, of wall time with more. On a
core of their own (`chrt -r 1 taskset -c 1 python ...`) that is the CPU time of all processes.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.listing import Listing
from lightning_cam.data.core.module import VideoDataModule
from lightning_cam.data.video.reading import probe, read_frames

import cv2  # isort: skip  (after the module that settles its order with decord)

HEIGHT, WIDTH, FRAMES, STEPS, BATCH = 240, 320, 300, 16, 8
WAYS = ("usual", "bare", "reader", "raw", "loader", "cached")


@dataclass(frozen=True)
class Kind:
    """A kind of video: how it is written, at which rate, and how many steps per second are read."""

    name: str
    codec: str
    rate: int = 30
    fps: float = 7.5
    seekable: bool = True
    pixels: str = "yuv420p"
    bits: int = 1_500_000  # per second


KINDS = {
    "mp4": Kind("clip.mp4", "libx264"),
    "mpg": Kind("clip.mpg", "mpeg1video", seekable=False),
    "webm": Kind("clip.webm", "libvpx-vp9", rate=12, fps=4),
    "avi": Kind("clip.avi", "mpeg4"),
    "mjpeg": Kind("mjpeg.avi", "mjpeg", pixels="yuvj420p", bits=12_000_000),
    "jpg": Kind("images", "", rate=12, fps=4),
}


def scene() -> np.ndarray:
    """A textured wall that a camera pans over, something moving, and sensor noise."""
    rng = np.random.default_rng(0)
    wall = np.full((2 * HEIGHT, 2 * WIDTH, 3), 110.0, np.float32)
    for cells, strength in ((8, 50), (40, 25), (200, 12)):
        grid = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        wall += cv2.resize(grid, wall.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    frames = np.empty((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    for k in range(FRAMES):
        y, x = k * HEIGHT // FRAMES, int(WIDTH / 2 * (1 + np.sin(k / 40)))
        frame = wall[y : y + HEIGHT, x : x + WIDTH].copy()
        centre = (int(160 + 120 * np.sin(k / 9)), int(120 + 70 * np.cos(k / 13)))
        cv2.circle(frame, centre, 30, (40, 60, 200), -1, cv2.LINE_AA)
        frame += rng.normal(0, 2, frame.shape).astype(np.float32)
        frames[k] = frame.clip(0, 255)
    return frames


def render(path: Path, kind: Kind, frames: np.ndarray) -> Path:
    """Write the frames as this kind of video."""
    if not kind.codec:
        path.mkdir()
        for k, frame in enumerate(frames, 1):
            cv2.imwrite(str(path / f"{k:05d}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, 90])
        return path
    speed = {"cpu-used": "8", "deadline": "realtime"} if "vpx" in kind.codec else {}
    with av.open(str(path), "w") as out:
        stream = out.add_stream(kind.codec, rate=Fraction(kind.rate), options=speed)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, kind.pixels
        stream.bit_rate = kind.bits
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        out.mux(stream.encode(None))
    return path


class Rendered(VideoDataModule):
    """So many clips of one video, each with a random window of its own."""

    def __init__(
        self, path: Path, kind: Kind, clips: int, workers: int, resize: int, **options: Any
    ) -> None:
        super().__init__(
            str(path), num_frames=STEPS, fps=kind.fps, rate=kind.rate, batch_size=BATCH,
            num_workers=workers, classes=["any"], resize=resize, crop=resize * 7 // 8,
            **options,
        )  # fmt: skip
        self.path, self.count = path, clips

    def list_clips(self) -> Listing:
        return Listing(["any"], [Clip(self.path, str(k), 0) for k in range(self.count)], [], [])

    @cached_property
    def listing(self) -> Listing:
        """As listed: a data set proper would keep one of these clips, which are one video."""
        return self.list_clips()


class Decoding(Dataset[int]):
    """Calls `decode(indices)` on each window, and hands back next to nothing."""

    def __init__(self, windows: list[list[int]], decode: Callable[[list[int]], Any]) -> None:
        self.windows, self.decode = windows, decode

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> int:
        return len(self.decode(self.windows[index]))


def bare(path: Path, kind: Kind, *, usual: bool = False) -> Callable[[list[int]], Any]:
    """The least that yields the frames, or nearly: as it is usually done."""
    if not kind.codec:
        return lambda indices: [cv2.imread(str(path / f"{k + 1:05d}.jpg")) for k in indices]
    with av.open(str(path)) as container:
        stamps = sorted(p.pts for p in container.demux(video=0) if p.pts is not None)

    def decode(indices: list[int]) -> list[np.ndarray]:
        wanted = {stamps[k] for k in indices}
        last, frames, colours = max(wanted), [], VideoReformatter()
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            if kind.seekable:
                container.seek(min(wanted), stream=stream)
            for packet in container.demux(stream):
                if kind.codec == "mjpeg" and packet.pts not in wanted and not usual:
                    continue
                for frame in packet.decode():
                    if frame.pts in wanted:
                        if usual:
                            frames.append(frame.to_ndarray(format="rgb24"))
                        else:
                            rgb = colours.reformat(frame, format="rgb24", threads=1)
                            frames.append(rgb.to_ndarray())
                    if frame.pts >= last:
                        return frames
        raise RuntimeError(f"{path} has no frame at {last}")

    return decode


def seconds(loader: Iterable[Any]) -> tuple[float, float]:
    """Wall and CPU seconds of one pass; CPU seconds of this process alone."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in loader:
        pass
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(path: Path, kind: Kind, args: argparse.Namespace, workers: int) -> list[Any]:
    """Clips per second each way, and the speed as a share of bare and of usual decoding's."""
    data = Rendered(path, kind, args.clips, workers, args.resize)
    loader = data.train_dataloader()
    windows = [row.tolist() for batch in loader for row in batch["frame_idx"]]  # warms it as well
    assert len(windows) == args.clips

    def plain(decode: Callable[[list[int]], Any]) -> DataLoader[int]:
        dataset = Decoding(windows, decode)
        options = {"num_workers": workers, "persistent_workers": workers > 0}
        return DataLoader(dataset, BATCH, generator=torch.Generator(), **options)  # type: ignore[arg-type]

    def read(indices: list[int]) -> np.ndarray:
        return read_frames(path, lambda _: indices, rate=kind.rate).frames

    ways: dict[str, Iterable[Any]] = {
        "usual": plain(bare(path, kind, usual=True)),
        "bare": plain(bare(path, kind)),
        "reader": plain(read),
    }
    options = {"cache": "disk", "cache_folder": str(path.with_name("cache"))}
    cached = Rendered(path, kind, args.clips, workers, args.resize, **options).train_dataloader()
    for way in (*ways.values(), cached):
        seconds(way)

    def run(name: str) -> tuple[float, float]:
        if name in ways:
            return seconds(ways[name])
        batches = cached if name == "cached" else loader
        return seconds(batches if name == "raw" else map(data.on_after_batch_transfer, batches))

    runs = [{name: run(name) for name in WAYS} for _ in range(args.repeats)]
    speeds = [args.clips / median(run[name][0] for run in runs) for name in WAYS]
    clock = 0 if workers else 1  # CPU seconds are steadier, but see one process only
    shares = [
        median(run[than][clock] / run[name][clock] for run in runs)
        for than in ("bare", "usual")
        for name in WAYS[2:]
    ]
    return [*(round(speed, 1) for speed in speeds), *(round(share, 3) for share in shares)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--clips", type=int, default=32, help="per pass")
    parser.add_argument("--resize", type=int, default=256, help="short side, frames have 240")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    columns = [
        *(f"{way}_clips_per_s" for way in WAYS),
        *(f"{way}_share" for way in WAYS[2:]),
        *(f"{way}_share_of_usual" for way in WAYS[2:]),
    ]
    rows, frames = [], scene()
    with tempfile.TemporaryDirectory() as folder:
        for name in args.kinds:
            path = render(Path(folder) / KINDS[name].name, KINDS[name], frames)
            assert probe(path).num_frames == FRAMES
            for workers in args.workers:
                found = measure(path, KINDS[name], args, workers)
                rows.append([name, workers, *found])
    table = Table(*("video", "workers", *(column.replace("_", " ") for column in columns)))
    for row in rows:
        table.add_row(*map(str, row))
    Console().print(table)
    versions = " ".join(f"{p}=={importlib.metadata.version(p)}" for p in ("torch", "av"))
    with args.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "workers", *columns])
        writer.writerows(rows)
        how = f"{args.clips} clips, {args.repeats} repeats, resize {args.resize}"
        writer.writerow([f"# {how}, {versions}"])


if __name__ == "__main__":
    main()
