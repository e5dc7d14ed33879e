"""Opening every video of a data set once, in processes that may hang or die."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import cv2
import numpy as np

from lightning_cam.data.core.clips import Clip, ClipReader
from lightning_cam.data.core.ground_truth import open_truth
from lightning_cam.data.drives.drive import DriveClip
from lightning_cam.data.drives.reader import SnippetReader
from lightning_cam.data.video.completeness import bytes_missing
from lightning_cam.data.video.frame_folders import numbers_missing, order_in_doubt
from lightning_cam.data.video.info import VideoInfo
from lightning_cam.data.video.sampling import Indices
from lightning_cam.errors import DataError, VideoReadError
from lightning_cam.stops import left_to_parent

ClipT = TypeVar("ClipT")
_MEMORY = 2**27  # bytes of images held at a time, by each process


class Finding(NamedTuple):
    """What opening a video showed."""

    steps: int  # at the reader's rate; 0 where it cannot be read
    kind: str = ""  # of the problem: "unreadable", "damaged", "truth", "order", or none
    why: str = ""


def inspect_video(clip: Clip, reader: ClipReader) -> Finding:
    """Decode what clips need of a video: all of its steps, for a training clip may be anywhere.

    Of a video that would fill the memory, its centred clip and steps from the first to the last
    frame. A file that lost its end and a folder that lost images are "damaged" even where what
    is left can be read; the order of a folder's images may be open.
    """
    counts, steps, last = [], np.empty(0, np.int64), None

    def select(video: VideoInfo) -> Indices:  # once more if frames turn out to be absent
        nonlocal steps, last
        last = video
        counts.append(video.num_frames)
        steps = np.arange(video.num_frames) if reader.fps is None else video.steps(reader.fps)
        fit = max(_MEMORY // (3 * video.height * video.width), reader.num_frames)
        spread = np.linspace(0, len(steps) - 1, min(fit, len(steps))).round().astype(np.int64)
        centre, _ = reader.positions(len(steps))
        return np.unique([*steps[spread], *steps[centre], video.num_frames - 1])

    try:
        reader.read(clip.path, select)
    except VideoReadError as error:
        return Finding(0, "unreadable", error.reason)
    if clip.truth is not None and last is not None:
        try:
            misfit = open_truth(clip.truth).misfit(last)
        except DataError as error:
            return Finding(len(steps), "truth", str(error))
        if misfit:
            why = f"its ground truth {misfit}; replace one of them"
            return Finding(len(steps), "truth", why)
    if counts[-1] < counts[0]:
        why = f"only {counts[-1]} of its {counts[0]} frames can be decoded; replace it"
        return Finding(len(steps), "damaged", why)
    why = _lost(clip.path)
    if why:
        return Finding(len(steps), "damaged", f"{why}; replace it")
    if clip.path.is_dir() and (why := order_in_doubt(clip.path)):
        why = f"the order of its images is open: {why}; if it is another, rename them"
        return Finding(len(steps), "order", why)
    return Finding(len(steps))


def _lost(path: Path) -> str:
    """What a video lacks, in words; "" if nothing."""
    if not path.is_dir():
        lost = bytes_missing(path)
        return f"cut short, at least {lost:,} bytes are lost" if lost else ""
    lost = numbers_missing(path)
    numbers = "number is" if lost == 1 else "numbers are"
    return f"{lost:,} {numbers} missing among its images" if lost else ""


def inspect_image(clip: DriveClip, reader: SnippetReader) -> Finding:
    """Decode a clip of one image and its ground truth."""
    try:
        frame = reader.frame(clip.drive, clip.start)
    except VideoReadError as error:
        return Finding(0, "unreadable", error.reason)
    try:
        reader.sample(clip, [frame], truth=True)
    except (DataError, VideoReadError) as error:
        return Finding(1, "truth", str(error))
    return Finding(1)


def inspect_all(
    clips: Sequence[ClipT],
    reader: Any,
    *,
    processes: int | None = None,
    timeout: float = 30.0,
    inspect: Callable[[Any, Any], Finding] = inspect_video,
) -> Iterator[tuple[ClipT, Finding]]:
    """Inspect clips in worker processes, in no particular order.

    A decoder that hangs is ended after `timeout` seconds, and one that takes its process with it
    loses no more than that file: both files are unreadable.

    Args:
        clips: of a data set.
        reader: how the data set reads them.
        processes: at most so many; None for one per CPU.
        timeout: seconds for a file.
        inspect: looks at one clip with the reader.
    """
    queue = deque(clips)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # ends OpenCV's thread pool, which does not survive a fork
    busy: list[_Worker[ClipT]] = []
    try:
        while queue and len(busy) < (processes or os.cpu_count() or 1):
            busy.append(_Worker(reader, inspect, timeout, queue.popleft()))
        while busy:
            patience = min(worker.deadline for worker in busy) - time.monotonic()
            wait([worker.pipe for worker in busy], max(patience, 0))
            for worker in list(busy):
                finding = worker.finding()
                if finding is None:
                    continue
                clip = worker.clip
                if queue and worker.process.is_alive():
                    worker.give(queue.popleft())
                else:
                    worker.stop()
                    busy.remove(worker)
                    if queue:
                        busy.append(_Worker(reader, inspect, timeout, queue.popleft()))
                yield clip, finding
    finally:
        cv2.setNumThreads(threads)
        for worker in busy:
            worker.stop()


class _Worker(Generic[ClipT]):
    """A process that inspects one clip after the other, and the clip it is busy with."""

    def __init__(
        self, reader: Any, inspect: Callable[[Any, Any], Finding], timeout: float, clip: ClipT
    ) -> None:
        # Fork needs no importable __main__; the workers use numpy, OpenCV and PyAV only.
        context: Any = mp.get_context("fork" if "fork" in mp.get_all_start_methods() else "spawn")
        self.timeout = timeout
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=_work, args=(reader, inspect, end), daemon=True)
        self.process.start()
        end.close()  # so that the end of the process reads as the end of the pipe
        self.give(clip)

    def give(self, clip: ClipT) -> None:
        self.clip = clip
        self.deadline = time.monotonic() + self.timeout
        with suppress(OSError):  # it died: `finding` says so
            self.pipe.send(clip)

    def finding(self) -> Finding | None:
        """What it found, or how it failed; None while it has time left."""
        if self.pipe.poll():
            try:
                return self.pipe.recv()
            except (EOFError, OSError):
                self.process.join()
                ending = _ending(self.process.exitcode)
                why = f"the decoder crashed ({ending}); re-encode it or remove it"
        elif time.monotonic() < self.deadline:
            return None
        else:
            self.stop()
            why = (
                f"decoding took more than {self.timeout:g} s; remove it, or set "
                f"timeout={10 * self.timeout:g}"
            )
        return Finding(0, "unreadable", why)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _ending(exitcode: int) -> str:
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"exit code {exitcode}"


def _work(reader: Any, inspect: Callable[[Any, Any], Finding], pipe: Connection) -> None:
    left_to_parent()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # what decoders print
        os.dup2(nowhere, stream)
    parent = mp.parent_process()
    warnings.simplefilter("ignore")
    while True:
        while not pipe.poll(5):
            if parent is not None and not parent.is_alive():
                return
        clip = pipe.recv()
        try:
            finding = inspect(clip, reader)
        except Exception as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            finding = Finding(0, "unreadable", why)
        pipe.send(finding)
