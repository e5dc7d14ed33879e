"""One run of `explain.py` over its clips: a clip that fails costs itself, a stop costs one clip.

<folder>/explain.json        the settings; others do not go on here
<folder>/rows.rank0.jsonl    a line for each finished clip, see `clip_results`
<folder>/rows.rank1.jsonl    of the second process of a command that several share, see `sharing`
<folder>/index.html, *.csv   of the clips so far, rewritten as clips finish
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lightning_cam.errors import DataError, WriteError, say, why
from lightning_cam.explaining.clip_files import files_of, remove_clip, windows_folder
from lightning_cam.explaining.clip_results import ClipResult, result_of_row, result_row
from lightning_cam.explaining.clip_sources import ClipSource
from lightning_cam.explaining.journal import (
    Journal,
    OthersRows,
    journal_files,
    journal_rows,
)
from lightning_cam.explaining.measured_files import failed_measures, nothing_measured
from lightning_cam.explaining.score_tables import RELEVANCE_COLUMNS
from lightning_cam.explaining.sharing import ALONE, Share
from lightning_cam.explaining.single_clip import ClipRequest, Skip, process_clip
from lightning_cam.explaining.video_files import TRACK_COLUMNS
from lightning_cam.explaining.video_part import shorter_than
from lightning_cam.explaining.work_folder import remove_unused, work_folder
from lightning_cam.files import write_csv
from lightning_cam.progress import progress
from lightning_cam.stops import exit_code
from lightning_cam.training.agreeing import command_name
from lightning_cam.training.runs import run_folder
from lightning_cam.viz import write_report

_SETTINGS = "explain.json"
_TABLES = ("index.html", "scores.csv", "relevance.csv", "track.csv")
_SKIPPED = "skipped"  # in a row: why a clip could not be explained, for other processes
_SKIP_FIELDS = {"kind", "reason"}
_LAST = "the last writes tables and page"
_SHARE = 0.1  # of the time that rewriting tables and page may take while clips are explained


def open_folder(
    out: str | None,
    ckpt: str,
    facts: Mapping[str, Any],
    sources: Sequence[ClipSource],
    share: Share,
) -> tuple[Path, dict[str, ClipResult]]:
    """Where to write, and the clips that are done there: key -> result.

    Without `out` it is explain_1, explain_2, ... in the run folder: one where the same command was
    stopped or lacks something, else a new one; the same for all processes of a command.

    Raises:
        ConfigError: `out` holds explanations with other settings, or files of the same names that
            are none; or processes without `out` cannot know that they belong together.
        WriteError: it cannot be written.
    """
    own = [path.name for source in sources for path in files_of(Path(), source.title)]

    def lacks_some(folder: Path) -> bool:
        done = finished_clips(folder)
        whole = all(_complete(done.get(source.key)) for source in sources)
        return not whole or not _shows_all(folder)

    stem, by = run_folder(ckpt) / "explain", ""
    if out is None and not share.alone:
        by = command_name()
    names = [*_TABLES, *own]
    folder = work_folder(out, stem, _SETTINGS, facts, names, lacks_some, by)
    return folder, finished_clips(folder)


def _shows_all(folder: Path) -> bool:
    """Whether the page is newer than every row: one that is killed may have written none since."""
    try:
        page = (folder / "index.html").stat().st_mtime_ns
        return all(path.stat().st_mtime_ns <= page for path in journal_files(folder))
    except FileNotFoundError:
        return False


def finished_clips(folder: Path) -> dict[str, ClipResult]:
    """The clips that are done in a folder: key -> result."""
    found: dict[str, ClipResult] = {}
    for row in journal_rows(folder):
        _take(row, folder, found)
    return found


def left_in(folder: Path, keys: Sequence[str]) -> int:
    """Of how many of these clips none of several processes has written that it is done with it.

    For one that has written of its own: where no journal is left, all clips have failed, and who
    found it out has removed what was there.
    """
    if not journal_files(folder):
        return 0
    there = {row.get("key") for row in journal_rows(folder)}
    return sum(key not in there for key in keys)


def _take(row: Mapping[str, Any], folder: Path, results: dict[str, ClipResult]) -> None:
    """Add the result in a row to those that are known: of two of a clip the one that lacks less."""
    key, result = row.get("key"), result_of_row(row, folder)
    if not isinstance(key, str) or result is None:
        return
    known = results.get(key)
    if known is None or len(result.missing) <= len(known.missing):
        results[key] = result


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
        share: which of the clips this process explains; the page shows all.
        skips: key -> why a clip could not be explained.
    """

    request: ClipRequest
    sources: Sequence[ClipSource]
    results: dict[str, ClipResult]
    summary: Mapping[str, str]
    groups: Sequence[str]
    command: str
    share: Share = ALONE
    skips: dict[str, Skip] = field(default_factory=dict)
    _others: OthersRows | None = None
    _others_go_on: bool = False
    _written: float = 0  # when tables and page were
    _cost: float = 0  # seconds that took

    @property
    def folder(self) -> Path:
        return self.request.folder

    @property
    def own(self) -> Sequence[ClipSource]:
        """The clips that this process explains."""
        return self.share.of(self.sources)

    @property
    def done(self) -> list[tuple[ClipSource, ClipResult]]:
        """The clips that are on the page, in its order."""
        return [(s, self.results[s.key]) for s in self.sources if s.key in self.results]

    @property
    def skipped(self) -> dict[str, Skip]:
        """Title -> why a clip is not on the page."""
        keys = self.skips.keys() - self.results.keys()  # some are there, with a map that is missing
        return {s.title: self.skips[s.key] for s in self.sources if s.key in keys}

    @property
    def missing(self) -> dict[tuple[str, str], str]:
        """(method, title) -> why it has no map of a clip that is on the page."""
        return {
            (method, source.title): reason
            for source, result in self.done
            for method, reason in result.missing.items()
        }

    @property
    def left(self) -> int:
        """How many clips nobody has finished."""
        return sum(s.key not in self.results and s.key not in self.skips for s in self.sources)

    def explain(self) -> Path | None:
        """Explain what is left of this process's clips, and write tables and page.

        Returns:
            The page; None where there is not a single clip, or clips are `left` to others.

        Raises:
            WriteError: the disk is full or refuses; what is done is on the page all the same.
            DataError: somebody removed files of finished clips meanwhile.
        """
        if not self.own:
            say(f"{self.share}no clip is left for it")
            return None
        journal = Journal(self.folder, self.share.rank)
        self._others = None if self.share.alone else OthersRows(journal)
        left = [source for source in self.own if not _complete(self.results.get(source.key))]
        self._say_before(left)
        try:
            self._explain(left, journal)
            journal.check()
            return self._finish()
        except KeyboardInterrupt as stop:
            say("", f"stopped; {self._rest()}")
            sys.exit(exit_code(stop))
        except WriteError as error:
            raise WriteError(f"{error}; {self._rest()}") from error
        except FileNotFoundError as error:  # of a clip that is done
            raise DataError(f"{error}; the same command makes it again: {self.command}") from error
        finally:
            journal.close()
            if not self.results and not self._begun and not self._others_go_on:
                self._discard(journal)

    def _say_before(self, left: Sequence[ClipSource]) -> None:
        """How much of this process's work is done already."""
        before = len(self.own) - len(left)
        whole = all(_complete(self.results.get(source.key)) for source in self.sources)
        again = "; to explain them again, remove the folder or choose out=DIR" if whole else ""
        if not self.share.alone:
            there = f", {before} of them are done in {self._shown}{again}" if before else ""
            say(f"{self.share}{len(self.own)} of {len(self.sources)} clips{there}")
        elif before:
            say(f"{before} of {len(self.sources)} clips are done in {self._shown}{again}")

    def _explain(self, left: Sequence[ClipSource], journal: Journal) -> None:
        self._written = time.monotonic()
        with progress("explaining", len(left)) as advance:
            for n, source in enumerate(left):
                advance(int(n > 0))  # of the clip before, whatever became of it
                try:
                    result = process_clip(self.request, source)
                    if not isinstance(result, Skip):
                        journal.add(result_row(source.key, result))
                    elif not self.share.alone:  # or the others would not know that it was tried
                        journal.add({"key": source.key, _SKIPPED: vars(result)})
                except (WriteError, DataError):
                    if source.key not in self.results:
                        remove_clip(self.folder, source.title)  # room for the page
                    raise
                if isinstance(result, Skip):
                    self.skips[source.key] = result
                else:
                    self.results[source.key] = result
                if isinstance(result, Skip) or result.missing:
                    _free_memory()
                self._write_now_and_then()

    def _look_around(self) -> None:
        """Learn what other processes have finished."""
        if self._others is None:
            return
        own = {source.key for source in self.own}
        for row in self._others.new():
            key, skip = row.get("key"), row.get(_SKIPPED)
            if key in own:  # of an earlier command
                continue
            if isinstance(key, str) and isinstance(skip, dict) and skip.keys() == _SKIP_FIELDS:
                self.skips[key] = Skip(**skip)
            else:
                _take(row, self.folder, self.results)

    def _finish(self) -> Path | None:
        """Write tables and page; where clips are left to others, the last writes those of all.

        Who has not seen all may be the last to write: it looks again.
        """
        while True:
            self._look_around()
            left = self.left
            page = self._write(unfinished=left > 0) if self.done else None
            if not left:
                return page
            self._look_around()
            if self.left:
                self._others_go_on = True
                count = "1 clip is" if self.left == 1 else f"{self.left} clips are"
                say(f"{self.share}done; {count} left to others, {_LAST}")
                return None

    def _write_now_and_then(self) -> None:
        """Tables and page of what is done, should this process be killed; by the first of all."""
        if self.share.rank or time.monotonic() - self._written < self._cost / _SHARE:
            return
        start = time.monotonic()
        self._look_around()
        if not self.done:
            return
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
        self._look_around()
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
        others_too = not self.left  # all has failed
        for source in self.sources if others_too else self.own:
            remove_clip(self.folder, source.title)
        with suppress(OSError):
            for path in journal_files(self.folder) if others_too else [journal.path]:
                path.unlink()
            remove_unused(self.folder, _SETTINGS)


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
