"""One run of `explain.py` over its clips: a clip that fails costs itself, a stop costs one clip.

<folder>/explain.json        the settings; others do not go on here
<folder>/rows.rank0.jsonl    a line for each finished clip, see `clip_results`
<folder>/index.html, *.csv   of the clips so far, rewritten as clips finish
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lightning_cam.errors import ConfigError, DataError, WriteError, say, why
from lightning_cam.explaining.clip_files import files_of, remove_clip, windows_folder
from lightning_cam.explaining.clip_results import ClipResult, result_of_row, result_row
from lightning_cam.explaining.clip_sources import ClipSource
from lightning_cam.explaining.journal import Journal, journal_rows, other_work, same_work
from lightning_cam.explaining.measured_files import failed_measures, nothing_measured
from lightning_cam.explaining.score_tables import RELEVANCE_COLUMNS
from lightning_cam.explaining.single_clip import ClipRequest, Skip, process_clip
from lightning_cam.explaining.video_files import TRACK_COLUMNS
from lightning_cam.explaining.video_part import shorter_than
from lightning_cam.files import make_folder, write_csv
from lightning_cam.progress import progress
from lightning_cam.stops import exit_code
from lightning_cam.training.runs import run_folder, writable
from lightning_cam.viz import write_report

_SETTINGS = "explain.json"
_TABLES = ("index.html", "scores.csv", "relevance.csv", "track.csv")
_SHARE = 0.1  # of the time that rewriting tables and page may take while clips are explained


def open_folder(
    out: str | None, ckpt: str, facts: Mapping[str, Any], sources: Sequence[ClipSource]
) -> tuple[Path, dict[str, ClipResult]]:
    """Where to write, and the clips that are done there: key -> result.

    Without `out` it is explain_1, explain_2, ... in the run folder: one where the same command was
    stopped or lacks something, else a new one.

    Raises:
        ConfigError: `out` holds explanations with other settings, or files of the same names that
            are none.
        WriteError: it cannot be written.
    """
    own = [path.name for source in sources for path in files_of(Path(), source.title)]

    def lacks_some(folder: Path) -> bool:
        done = finished_clips(folder)
        return not all(_complete(done.get(source.key)) for source in sources)

    folder = work_folder(
        out, run_folder(ckpt) / "explain", _SETTINGS, facts, [*_TABLES, *own], lacks_some
    )
    return folder, finished_clips(folder)


def work_folder(
    out: str | None,
    stem: Path,
    settings: str,
    facts: Mapping[str, Any],
    names: Sequence[str],
    goes_on: Callable[[Path], bool] = lambda folder: True,
) -> Path:
    """A folder to write explanations into, with its settings: `out`, else STEM_1, STEM_2, ...

    Args:
        out: is asked for.
        stem: of the others, of which one with the same settings is taken up again.
        settings: name of the file of settings.
        facts: the settings.
        names: of the files that will be written.
        goes_on: whether a folder with these settings is taken up again.

    Raises:
        ConfigError: `out` holds other work, or files of these names.
        WriteError: it cannot be written.
    """
    if out is not None:
        folder = writable(Path(out))
        overwrites_nothing(folder, settings, names)
        same_work(folder, settings, facts, "explanations")
        return folder
    n = 0
    while True:
        n += 1
        folder = writable(stem.with_name(f"{stem.name}_{n}"))
        if not folder.exists():
            with suppress(FileExistsError):  # another command was faster
                make_folder(folder, "out=DIR", new=True)
                same_work(folder, settings, facts, "explanations")
                return folder
        with suppress(ConfigError):  # cannot be read
            if other_work(folder / settings, facts) == "" and goes_on(folder):
                return folder


def overwrites_nothing(folder: Path, settings: str, names: Sequence[str]) -> None:
    """Raise a ConfigError where files would be lost, such as videos among which to write.

    Args:
        folder: to write into.
        settings: name of the file that says that it is the program's own.
        names: of the files that will be written.
    """
    if (folder / settings).exists():
        return
    for path in (folder / name for name in names):
        if os.path.lexists(path):
            raise ConfigError(
                f"{path} is there already and not of an earlier explanation; choose out=DIR"
            )


def finished_clips(folder: Path) -> dict[str, ClipResult]:
    """The clips that are done in a folder: key -> result."""
    found = {row.get("key"): result_of_row(row, folder) for row in journal_rows(folder)}
    return {key: result for key, result in found.items() if isinstance(key, str) and result}


def _complete(result: ClipResult | None) -> bool:
    """Whether nothing of a clip is left to be done."""
    return result is not None and not result.missing


@dataclass
class ExplainRun:
    """The clips of one command.

    Attributes:
        request: what is done with each.
        sources: the clips, in the order of the page.
        results: key -> result, of those that are done, here or before.
        summary: of the page, name -> text.
        groups: of the page, see `write_report`.
        command: what was typed.
        skipped: title -> why it is not on the page.
    """

    request: ClipRequest
    sources: Sequence[ClipSource]
    results: dict[str, ClipResult]
    summary: Mapping[str, str]
    groups: Sequence[str]
    command: str
    skipped: dict[str, Skip] = field(default_factory=dict)
    _written: float = 0  # when tables and page were
    _cost: float = 0  # seconds that took

    @property
    def folder(self) -> Path:
        return self.request.folder

    @property
    def done(self) -> list[tuple[ClipSource, ClipResult]]:
        """The clips that are on the page, in its order."""
        return [(s, self.results[s.key]) for s in self.sources if s.key in self.results]

    @property
    def missing(self) -> dict[tuple[str, str], str]:
        """(method, title) -> why it has no map of a clip that is on the page."""
        return {
            (method, source.title): reason
            for source, result in self.done
            for method, reason in result.missing.items()
        }

    def explain(self) -> Path | None:
        """Explain what is left and write tables and page; the page, None without a single clip.

        Raises:
            WriteError: the disk is full or refuses; what is done is on the page all the same.
            DataError: somebody removed files of finished clips meanwhile.
        """
        journal = Journal(self.folder)
        left = [source for source in self.sources if not _complete(self.results.get(source.key))]
        before = len(self.sources) - len(left)
        if before:
            again = "" if left else "; to explain them again, remove the folder or choose out=DIR"
            say(f"{before} of {len(self.sources)} clips are done in {self._shown}{again}")
        try:
            self._explain(left, journal)
            journal.check()
            return self._write() if self.done else None
        except KeyboardInterrupt as stop:
            say("", f"stopped; {self._rest()}")
            sys.exit(exit_code(stop))
        except WriteError as error:
            raise WriteError(f"{error}; {self._rest()}") from error
        except FileNotFoundError as error:  # of a clip that is done
            raise DataError(f"{error}; the same command makes it again: {self.command}") from error
        finally:
            journal.close()
            if not self.results and not self._begun:
                self._discard(journal)

    def _explain(self, left: Sequence[ClipSource], journal: Journal) -> None:
        self._written = time.monotonic()
        with progress("explaining", len(left)) as advance:
            for n, source in enumerate(left):
                advance(int(n > 0))  # of the clip before, whatever became of it
                try:
                    result = process_clip(self.request, source)
                    if not isinstance(result, Skip):
                        journal.add(result_row(source.key, result))
                except (WriteError, DataError):
                    if source.key not in self.results:
                        remove_clip(self.folder, source.title)  # room for the page
                    raise
                if isinstance(result, Skip):
                    if source.key not in self.results:  # of before, with a map that is missing
                        self.skipped[source.title] = result
                else:
                    self.results[source.key] = result
                if isinstance(result, Skip) or result.missing:
                    _free_memory()
                self._write_now_and_then()

    def _write_now_and_then(self) -> None:
        """Tables and page of what is done, should this process be killed."""
        if time.monotonic() - self._written < self._cost / _SHARE:
            return
        if not self.done:
            return
        start = time.monotonic()
        try:
            self._write(unfinished=True)
        except WriteError:
            raise
        except Exception as error:  # short of memory, for example: the end tries again
            say(f"the page was not written yet: {why(error)}")
        self._written = time.monotonic()
        self._cost = self._written - start

    def _write(self, *, unfinished: bool = False) -> Path:
        """Write the tables, and the page."""
        folder, measurements = self.folder, self.request.measurements
        results = [result for _, result in self.done]
        scores = [row for result in results for row in result.scores]
        relevance = [row for result in results for row in result.relevance]
        track = [row for result in results for row in result.track]
        numbers = [result.numbers for result in results]
        tables = [
            write_csv(folder / "scores.csv", scores, measurements.columns),
            write_csv(folder / "relevance.csv", relevance, RELEVANCE_COLUMNS),
            *([write_csv(folder / "track.csv", track, TRACK_COLUMNS)] if track else []),
            *measurements.write_points(folder, numbers),
        ]
        left = f"{len(results)} of {len(self.sources)} clips so far; the same command goes on"
        return write_report(
            folder,
            [result.entry for result in results],
            summary={**self.summary, **({"unfinished": left} if unfinished else {})},
            skipped={title: skip.reason for title, skip in self.skipped.items()},
            missing={
                f"{method} of {title}": said for (method, title), said in self.missing.items()
            },
            downloads=tables,
            groups=self.groups,
            figure=None if unfinished else self._mean_curves(),
        )

    def _mean_curves(self) -> Path | None:
        """The image of all clips' curves; a page without it is better than none."""
        numbers = [result.numbers for _, result in self.done]
        try:
            return self.request.measurements.draw(self.folder, numbers)
        except WriteError:
            raise
        except Exception as error:
            say(f"the mean curves could not be drawn: {why(error)}")
            return None

    def _rest(self) -> str:
        """After a stop: write a page of what is there, and say how to go on."""
        if not self.done:
            how = "goes on" if self._begun else "begins again"
            return f"no clip is done; the same command {how}: {self.command}"
        with suppress(WriteError):  # then it is the one of before the last clip
            self._write(unfinished=True)
        return (
            f"{len(self.done)} of {len(self.sources)} clips are done, see "
            f"{self._shown}/index.html; the same command goes on: {self.command}"
        )

    @property
    def _begun(self) -> bool:
        """Whether there are windows of a video that is not done."""
        return any(windows_folder(self.folder, s.title).is_dir() for s in self.sources)

    @property
    def _shown(self) -> str:
        near = os.path.relpath(self.folder)
        return str(self.folder) if near.startswith("..") else near

    def _discard(self, journal: Journal) -> None:
        """Leave nothing behind where nothing was done, of the clip that was begun either."""
        for source in self.sources:
            remove_clip(self.folder, source.title)
        with suppress(OSError):
            journal.path.unlink()
            # Otherwise it says whose the rest is.
            if list(self.folder.iterdir()) == [self.folder / _SETTINGS]:
                (self.folder / _SETTINGS).unlink()
                self.folder.rmdir()


def _free_memory() -> None:
    """What a clip that failed has left, which the next one may need."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def print_failures(run: ExplainRun, looked: int, shortfall: str) -> None:
    """Say what did not work.

    Args:
        run: that has come to its end.
        looked: how many clips were looked at.
        shortfall: a line on what was not found.

    Raises:
        DataError: nothing worked.
    """
    if not run.done and looked == 1:
        raise DataError(shortfall or next(iter(run.skipped.values())).reason)
    failed = {title: skip.reason for title, skip in run.skipped.items() if skip.kind == "failed"}
    for title, skip in run.skipped.items():
        if skip.kind != "failed":
            say(f"skipped {title}: {skip.reason}")
    for reason, title in _grouped(failed):
        say(f"skipped {title}: {reason}")
    if not run.done:
        why_not = shortfall or next(reversed(run.skipped.values())).reason
        raise DataError(f"none of the {looked} clips could be explained: {why_not}")
    for source, result in run.done:
        if lost := result.entry.shortfall:
            say(f"{source.title}: {lost}")
    methods = dict.fromkeys(method for method, _ in run.missing)
    for name in methods:
        of_method = {title: said for (method, title), said in run.missing.items() if method == name}
        for reason, title in _grouped(of_method):
            say(f"no map by {name} of {title}: {reason}")
    numbers = [result.numbers for _, result in run.done]
    for reason, where in failed_measures(numbers).items():
        say(f"not measured: {where}: {reason}")
    if nothing_measured(numbers):
        say("no measure has a value of any clip: tables and page show the maps alone")
    if shortfall:
        say(shortfall)
    if any(source.part and not source.part.windows for source in run.sources[1:]):
        rows = [row for _, result in run.done for row in result.scores]
        if cut := shorter_than(rows):
            say(
                f"of {cut} longer video{'s' * (cut > 1)} the middle was explained; windows=all "
                "explains all of them"
            )
    unreadable = sum(skip.kind == "unreadable" for skip in run.skipped.values())
    if unreadable:
        say(f"{unreadable} of {looked} clips could not be read")
    if failed or run.missing:
        parts = [f"{len(failed)} of {looked} clips failed"] if failed else []
        parts += [f"{len(run.missing)} maps are missing"] if run.missing else []
        say(f"{', '.join(parts)}; the same command tries them again")


def _grouped(reasons: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(reason, which clips) of clips that may all have failed for the same reason."""
    titles: dict[str, list[str]] = {}
    for title, reason in reasons.items():
        titles.setdefault(reason, []).append(title)
    for reason, (first, *more) in titles.items():
        yield reason, f"{first} and {len(more)} more" if more else first
