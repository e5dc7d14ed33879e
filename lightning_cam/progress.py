"""The progress bar of all commands: one look, one below the other where work nests."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_live: ContextVar[_Bars | None] = ContextVar("live", default=None)
_PAUSE = 0.1  # seconds between two drawings


class Advance(Protocol):
    """Tells a bar by how much the work has advanced, and what it is called from now on."""

    def __call__(self, n: int, what: str | None = None) -> None: ...


class _Bars(Progress):
    """Bars drawn by whoever advances them.

    rich would draw them from a thread, which can hold a lock at the moment when a loader worker or
    a renderer is forked.
    """

    drawn = 0.0

    def advanced(self) -> None:
        now = time.monotonic()
        if now - self.drawn >= _PAUSE:
            self.drawn = now
            self.refresh()


@contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """A bar on the terminal, gone at the end; nothing without a terminal or in a thread.

    It is drawn on stderr, so that it stays out of results that are sent to a file.

    Args:
        what: is done, in a word or two.
        total: the steps.

    Yields:
        A function that takes by how many steps the work has advanced.
    """
    bars = _live.get()
    if bars is not None:
        with _bar(bars, what, total) as advance:
            yield advance
        return
    console = Console(stderr=True)
    main = threading.current_thread() is threading.main_thread()  # bars of two would mix
    shown = console.is_terminal and main
    bars = _Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        auto_refresh=False,
        redirect_stdout=sys.stdout.isatty(),  # lines printed meanwhile appear above the bar
        disable=not shown,
    )
    token = _live.set(bars)
    try:
        # Before rich 15, bars that are disabled print an empty line when they end.
        with bars if shown else nullcontext(), _bar(bars, what, total) as advance:
            yield advance
    finally:
        _live.reset(token)


@contextmanager
def no_progress() -> Iterator[None]:
    """No bars inside, where another program (Lightning's bar) has the terminal."""
    token = _live.set(_Bars(disable=True))
    try:
        yield
    finally:
        _live.reset(token)


@contextmanager
def _bar(bars: _Bars, what: str, total: int) -> Iterator[Advance]:
    task = bars.add_task(what, total=total)

    def advance(n: int, what: str | None = None) -> None:
        bars.update(task, advance=n, description=what)
        bars.advanced()

    try:
        yield advance
    finally:
        bars.remove_task(task)
        bars.refresh()
