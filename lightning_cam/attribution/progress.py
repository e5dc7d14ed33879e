"""Progress bars that nest: a method's bar appears below that of the command that runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_live: ContextVar[Progress | None] = ContextVar("live", default=None)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal, gone at the end; nothing where there is no terminal.

    Yields:
        A function that takes by how much the work has advanced.
    """
    outer = _live.get()
    if outer is not None:
        task = outer.add_task(what, total=total)
        try:
            yield lambda n: outer.advance(task, n)
        finally:
            outer.remove_task(task)
        return
    console = Console()
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    token = _live.set(bars)
    try:
        with bars:
            task = bars.add_task(what, total=total)
            yield lambda n: bars.advance(task, n)
    finally:
        _live.reset(token)


@contextmanager
def no_progress() -> Iterator[None]:
    """No bars inside, where another program (Lightning's bar) has the terminal."""
    token = _live.set(Progress(disable=True))
    try:
        yield
    finally:
        _live.reset(token)
