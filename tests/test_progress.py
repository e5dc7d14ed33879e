"""One progress bar: it nests, vanishes, keeps out of results, and needs no thread."""

from __future__ import annotations

import ast
import os
import pty
import subprocess
import sys
import threading
from io import StringIO
from pathlib import Path

import pytest
from nets import Gap3d, clip_of, describe
from rich.console import Console

import lightning_cam as lc
from lightning_cam import progress as bars

PACKAGE = Path(lc.__file__).parent


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """What a terminal gets."""
    terminal = StringIO()
    monkeypatch.setattr(bars, "Console", lambda **_: Console(file=terminal, force_terminal=True))
    monkeypatch.setattr(bars, "_PAUSE", 0)
    return terminal


def tasks() -> list[str]:
    live = bars._live.get()
    return [] if live is None else [task.description for task in live.tasks]


def test_bars_nest_and_vanish(written: StringIO) -> None:
    with bars.progress("clips", 2) as advance:
        with bars.progress("masks", 3) as inner:
            inner(2)
            assert tasks() == ["clips", "masks"]
        assert tasks() == ["clips"]
        advance(1, "clips: 1 found")
        assert tasks() == ["clips: 1 found"]
    assert tasks() == []
    for words in ("clips ", "masks ", "2/3", "clips: 1 found", "1/2"):
        assert words in written.getvalue()
    with pytest.raises(RuntimeError), bars.progress("clips", 2):
        raise RuntimeError
    assert tasks() == []


def test_methods_show_theirs_below_and_leave_nothing(written: StringIO) -> None:
    def explain() -> None:
        model = describe(Gap3d())
        lc.explain(model, lc.RISE(20), clip_of(1, 3, 4, 8, 8))

    with bars.progress("clips", 2):
        explain()
        assert tasks() == ["clips"]
    assert "RISE" in written.getvalue()
    length = len(written.getvalue())
    with bars.no_progress():
        explain()
    assert len(written.getvalue()) == length


def test_it_is_drawn_now_and_then(written: StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "_PAUSE", 3600)
    with bars.progress("masks", 10_000) as advance:
        advance(1)
        length = len(written.getvalue())
        for _ in range(1000):
            advance(1)
        assert len(written.getvalue()) == length


def test_no_thread_holds_locks_while_workers_are_forked(written: StringIO) -> None:
    before = threading.active_count()
    with bars.progress("clips", 2) as advance:
        advance(1)
        assert threading.active_count() == before


CODE = """
from lightning_cam.progress import progress
with progress("clips", 2) as advance:
    advance(1)
    print("result")
"""


@pytest.mark.parametrize("stdout", ["file", "terminal"])
def test_results_go_where_they_are_sent(stdout: str) -> None:
    ours, terminal = pty.openpty()
    to = subprocess.PIPE if stdout == "file" else terminal
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, stdout=to, stderr=terminal, timeout=60, check=True)
    shown = os.read(ours, 100_000).decode()
    os.close(terminal)
    os.close(ours)
    assert "clips" in shown and "1/2" in shown
    assert done.stdout == (b"result\n" if stdout == "file" else None)
    assert ("result" in shown) is (stdout == "terminal")


def test_where_there_is_no_terminal_it_is_quiet() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (b"result\n", b"")


def test_there_is_no_other_bar() -> None:
    found = [
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and node.module in ("rich.progress", "tqdm"))
        or (isinstance(node, ast.Import) and {a.name for a in node.names} & {"rich.progress"})
    ]
    assert found == ["progress.py"]
