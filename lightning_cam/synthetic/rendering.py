"""Rendering a data set into a folder once: deterministic, in parallel, and never half done."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

import cv2

from lightning_cam.errors import DataError, why
from lightning_cam.files import destination, write_text
from lightning_cam.locks import alone
from lightning_cam.progress import progress
from lightning_cam.stops import left_to_parent

MANIFEST = "synth.json"
UNFINISHED = MANIFEST + ".partial"  # what the manifest is called while rendering goes on
Job = TypeVar("Job")
Files = Callable[[dict[str, Any]], Iterable[str]]


def render_once(
    root: str | Path,
    manifest: dict[str, Any],
    jobs: Sequence[Job],
    write: Callable[[Path, Job], None],
    files: Files,
    *,
    processes: int | None = None,
) -> Path:
    """Render a data set unless `root` already holds exactly this one.

    Everything is written into the sibling folder `<root>.partial`, which is renamed when it is
    complete, so `root` is either absent, or whole. A second process waits for the first one and
    then finds the work done. An interrupted rendering leaves only the partial folder and its lock
    (`<root>.partial.lock`), which the next rendering clears. Files that no rendering wrote are
    never deleted: beside a complete rendering they do not matter, but nothing is rendered over
    them.

    Args:
        root: the folder of the data set.
        manifest: JSON description of the rendering; `manifest["name"]` names the data set. Stored
            as `synth.json`, which marks the folder as ours.
        jobs: what to render; split over the processes.
        write: `write(folder, job)` renders one job below `folder`. Must be picklable.
        files: from a manifest, this or an older one, to the relative paths of what its jobs write.
        processes: number of worker processes; None for one per CPU.

    Returns:
        The root.

    Raises:
        DataError: the folder holds something else, or cannot be written.
    """
    root = Path(root)
    target = root.resolve()
    if is_rendered(target, manifest, files):
        return root
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _partial_alone(target, manifest, files) as partial:
            if partial is None:
                return root
            write_text(partial / UNFINISHED, json.dumps(manifest, indent=2) + "\n")
            _run(partial, jobs, write, f"rendering {manifest['name']}", processes)
            _refuse_strangers(target, manifest["name"], files)  # that came while we rendered
            (partial / UNFINISHED).rename(partial / MANIFEST)
            if target.exists():
                target.rename(_outgoing(target))
            partial.rename(target)
            with suppress(OSError):  # the next rendering tries again
                _remove(_outgoing(target))
    except OSError as error:
        raise DataError(
            f"cannot render {manifest['name']} into {str(root)!r} ({error}): "
            "name a writable folder with data.root=FOLDER"
        ) from error
    return root


def is_rendered(root: Path, manifest: dict[str, Any], files: Files) -> bool:
    """Whether `root` holds a complete rendering with exactly this manifest."""
    try:
        found = json.loads((root / MANIFEST).read_text())
    except (OSError, RecursionError, ValueError):
        return False
    same = found == json.loads(json.dumps(manifest))
    return same and all((root / name).is_file() for name in files(manifest))


def _refuse_strangers(folder: Path, name: str, files: Files) -> None:
    """Raise a DataError if a folder, where it exists, holds a file that no rendering wrote."""
    remedy = "nothing was touched, move it away or name another folder (data.root=FOLDER)"
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{str(folder)!r} exists and is not a folder: {remedy}")
    ours = {UNFINISHED}  # by its name alone: it may have been cut off
    for marker in (MANIFEST, UNFINISHED):
        try:
            found = json.loads((folder / marker).read_text())
            if found["name"] == name:
                ours |= {marker, *files(found)}
        except (OSError, RecursionError, ValueError, TypeError, KeyError):
            continue
    for parent, _, names in os.walk(folder):
        for file in sorted(names):
            path = Path(parent, file)
            if destination(path).relative_to(folder).as_posix() not in ours:
                raise DataError(f"{str(path)!r} is not part of a rendering of {name}: {remedy}")


@contextmanager
def _partial_alone(target: Path, manifest: dict[str, Any], files: Files) -> Iterator[Path | None]:
    """An empty folder beside `target` that this process alone writes; None if work is done.

    Forked workers that outlive a killed parent keep others out until they have stopped writing.
    """
    partial, name = _partial(target), manifest["name"]
    with alone(partial.with_name(f"{partial.name}.lock")):
        _refuse_strangers(partial, name, files)
        if is_rendered(target, manifest, files):  # while we waited
            _remove(partial)
            yield None
            return
        for folder in (target, _outgoing(target)):
            _refuse_strangers(folder, name, files)
        partial.mkdir(exist_ok=True)
        _clear(partial)
        _remove(_outgoing(target))
        yield partial


def _partial(target: Path) -> Path:
    return target.with_name(target.name + ".partial")


def _outgoing(target: Path) -> Path:
    return target.with_name(target.name + ".partial-old")


def _clear(folder: Path) -> None:
    """Empty a folder, its markers last: cut off midway it is still known as ours."""
    for entry in sorted(folder.iterdir(), key=lambda path: path.name in (MANIFEST, UNFINISHED)):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _remove(folder: Path) -> None:
    if folder.exists():
        _clear(folder)
        folder.rmdir()


def _run(
    folder: Path,
    jobs: Sequence[Job],
    write: Callable[[Path, Job], None],
    title: str,
    processes: int | None,
) -> None:
    """Run all jobs in worker processes and show a progress bar."""
    count = min(processes or os.cpu_count() or 1, len(jobs))
    # Fork needs no importable __main__; the workers use numpy, OpenCV and PyAV only.
    context: Any = mp.get_context("fork" if "fork" in mp.get_all_start_methods() else "spawn")
    workers: dict[Connection, mp.process.BaseProcess] = {}
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # ends OpenCV's thread pool, which does not survive a fork
    try:
        for share in range(count):
            receive, send = context.Pipe(duplex=False)
            worker = context.Process(
                target=_work, args=(folder, jobs[share::count], write, send), daemon=True
            )
            worker.start()
            send.close()  # so that the end of the worker reads as the end of the pipe
            workers[receive] = worker
        with progress(title, len(jobs)) as advance:
            done = 0
            for _ in _finished(workers):
                done += 1
                advance(1)
        if done != len(jobs):
            raise OSError(f"a worker process died after {done} of {len(jobs)} files")
    finally:
        cv2.setNumThreads(threads)
        for receive, worker in workers.items():
            worker.terminate()
            worker.join()
            receive.close()


def _finished(ends: Iterable[Connection]) -> Iterator[None]:
    """One item a job, as the workers finish them, until all workers have ended.

    Raises:
        OSError: a job failed; says why.
    """
    ends = set(ends)
    while ends:
        for end in wait(list(ends)):
            if not isinstance(end, Connection):
                continue
            try:
                reason = end.recv()
            except EOFError:
                ends.discard(end)
                continue
            if reason:
                raise OSError(reason)
            yield


def _work(
    folder: Path, jobs: Sequence[Job], write: Callable[[Path, Job], None], send: Connection
) -> None:
    left_to_parent()
    parent = mp.parent_process()
    try:
        for job in jobs:
            if parent is not None and not parent.is_alive():
                return
            write(folder, job)
            send.send("")
    except Exception as error:
        send.send(why(error))
