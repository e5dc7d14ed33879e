"""Stops from outside: Ctrl-C, and SIGTERM, which clusters, containers and `timeout` send."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

CTRL_C, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM  # exit codes


class TerminatedError(KeyboardInterrupt):
    """SIGTERM has come; whatever Ctrl-C ends in order, it ends as well."""


def exit_code(stop: KeyboardInterrupt) -> int:
    """That of a program which was stopped so."""
    return TERMINATED if isinstance(stop, TerminatedError) else CTRL_C


@contextmanager
def orderly() -> Iterator[None]:
    """Within, SIGTERM raises like Ctrl-C instead of ending the process where it stands.

    In the main thread alone: others get no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def left_to_others() -> None:
    """End `orderly` early, for who handles SIGTERM in a way of their own, as Lightning does."""
    if signal.getsignal(signal.SIGTERM) is _terminate:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def left_to_parent() -> None:
    """In a worker process: Ctrl-C is for the parent, and SIGTERM is how the parent ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(*_: object) -> NoReturn:
    raise TerminatedError
