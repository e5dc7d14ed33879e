"""Stops from outside: Ctrl-C, and the signals of whoever needs the machine.

Clusters, containers and `timeout` send SIGTERM, SLURM also SIGUSR1 before a job's time is up
(`--signal=USR1@300`). It sends them to every process of a job, those that ours has started as well.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

CTRL_C, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM  # exit codes
ASKING = (signal.SIGTERM, signal.SIGUSR1)  # what asks a program to end


class TerminatedError(KeyboardInterrupt):
    """SIGTERM or SIGUSR1 has come; whatever Ctrl-C ends in order, it ends as well."""


def exit_code(stop: KeyboardInterrupt) -> int:
    """That of a program which was stopped so."""
    return TERMINATED if isinstance(stop, TerminatedError) else CTRL_C


@contextmanager
def orderly() -> Iterator[None]:
    """Within, SIGTERM and SIGUSR1 raise like Ctrl-C instead of ending the process where it stands.

    In the main thread alone: others get no signals.
    """
    with answered(_terminate):
        yield


@contextmanager
def answered(answer: Callable[[], object]) -> Iterator[None]:
    """Within, SIGTERM and SIGUSR1 call a function, between two lines of whatever runs then.

    They come through even where the process was started with them held back, as batch scripts do
    until Python can answer. In the main thread alone: others get no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(*_: object) -> None:
        answer()

    before = {number: signal.signal(number, handle) for number in ASKING}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)  # one may have come already
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Within, SIGTERM and SIGUSR1 wait; for a program that is started meanwhile they always do."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def ignore() -> None:
    """From now on SIGTERM and SIGUSR1 do nothing, nor to programs that are started from now on.

    For the end of a program: what it does last is done, however often it is told to stop.
    """
    if threading.current_thread() is threading.main_thread():
        for number in ASKING:
            signal.signal(number, signal.SIG_IGN)


def left_to_parent(*_worker: object) -> None:
    """In a worker process: its parent alone ends it, by SIGTERM; other stops are for the parent.

    Only who waits for a signal learns who has sent it; so a thread waits.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_obey, daemon=True).start()


def _obey() -> NoReturn:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)  # nothing has failed


def _terminate() -> NoReturn:
    raise TerminatedError
