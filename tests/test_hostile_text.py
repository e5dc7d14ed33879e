"""Text from files and folders is text: on the terminal and in tables."""

from __future__ import annotations

import ast
import csv
import os
import pty
import re
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from commands import CONFIGS
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from test_faults import make_checkpoint

import lightning_cam
from lightning_cam.commands.entry import one_line_errors
from lightning_cam.commands.run_check import check
from lightning_cam.commands.run_explain import explain_clips
from lightning_cam.commands.run_train import train
from lightning_cam.errors import ConfigError, printable, readable, say
from lightning_cam.files import read_csv, write_csv
from lightning_cam.progress import progress
from lightning_cam.study.tables import Table, markdown_text
from lightning_cam.training.checkpoint import KEY, load
from lightning_cam.training.quiet import quiet

pytestmark = pytest.mark.attack
PACKAGE = Path(lightning_cam.__file__).parent

CONTROLS = {
    "a title": "\x1b]0;owned\x07walk",
    "a cleared screen": "\x1b[2J\x1b[Hwalk",
    "a line written over": "walk\x1b[1A\x1b[2Kall is well",
    "a link": "\x1b]8;;http://evil\x1b\\walk\x1b]8;;\x1b\\",
    "the clipboard": "\x1b]52;c;cm0gLXJmIH4=\x07",
    "one byte for two": "\x9b2Jwalk",
    "steps back": "walk\b\b\b\bfall",
    "the line's beginning": "walk\rfall",
    "another line": "walk\nerror: all lost",
    "a line of Unicode": "walk\u2028error: all lost",
    "the other way round": "walk\u202egpj.exe",
    "half a character": "walk\udce9",
}


def plain(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("name", CONTROLS.values(), ids=CONTROLS.keys())
def test_names_do_not_control_the_terminal(name: str, capsys) -> None:
    """A class or clip has a name that sets titles, clears the screen, or writes over lines."""
    say(f"skipped {name}: damaged")
    out = capsys.readouterr().out
    assert plain(out) and out.count("\n") == 1
    with pytest.raises(SystemExit), one_line_errors():
        raise ConfigError(f"no class {name!r} {name}")
    err = capsys.readouterr().err
    with quiet():
        warned = warnings.formatwarning(UserWarning(f"no clips of {name}"), UserWarning, name, 1)
    for said in (err, warned):
        assert plain(said) and said.count("\n") == 1


def test_names_that_are_names_stay_as_they_are() -> None:
    """Names in any script are shown as they are written."""
    for name in ("gehen", "идти", "歩く", "🚶", "می‌روم", "क्‍ष", "a-b_c (1)", "\u00e9", "e\u0301"):
        assert printable(name) == name


def test_everything_is_said_in_one_way() -> None:
    """No part of the program prints past the one place where text is made harmless."""
    found = [
        f"{file.name}:{node.lineno}"
        for file in PACKAGE.rglob("*.py")
        if file.name not in ("errors.py", "__main__.py")  # say itself; the help of the commands
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]
    assert not found


def test_tables_on_the_terminal_hold_text(capsys) -> None:
    """A network's name in a study's table is neither markup nor control."""
    from rich.console import Console

    table = Table("means", ("\x1b[2Ja[/red]", "b\nc"), (("[bold]x[/]", "\x1b]0;t\x07"),))
    Console(width=80).print(table.rich())
    out = capsys.readouterr().out
    assert plain(out) and "a[/red]" in out and "[bold]x[/]" in out


MARKUP = {
    "a cell": "a|b", "a cell escaped already": "a\\|b", "code": "`rm -rf`", "bold": "**a** __b__",
    "emphasis": "*a* _b_", "a link": "[a](http://evil)", "a reference": "[a]: http://evil",
    "an image": "![a](http://evil/a.png)", "an address": "www.evil.com http://evil a@evil.com",
    "a tag": "<img src=x onerror=alert(1)>", "an entity": "&lt;b&gt; &#124;", "a heading": "# a",
    "a heading's end": "a ##", "a list": "- a", "a numbered list": "1. a", "a quote": "> a",
    "a line": "---", "a table's line": "|---|", "a fence": "~~~", "struck out": "~~a~~",
    "a formula": "$a$", "a footnote": "[^1]", "a paragraph": "a\n\n# b", "a line's end": "a\r# b",
    "a break": "a<br>b", "code by its margin": "     a",
}  # fmt: skip


def test_methods_that_a_checkpoint_remembers(tmp_path: Path) -> None:
    """A checkpoint remembers methods whose names are controls: they are written out everywhere."""
    path = make_checkpoint(tmp_path / "net.ckpt")
    saved = torch.load(path, weights_only=True)
    saved[KEY]["run"]["explain"] = {name: {} for name in (*CONTROLS.values(), "plain")}
    torch.save(saved, path)
    names = list(load(path)[KEY]["run"]["explain"])
    assert names == [*map(printable, CONTROLS.values()), "plain"]


@pytest.mark.parametrize("name", [*MARKUP.values(), *CONTROLS.values()])
def test_names_are_no_markup(name: str) -> None:
    """A network, class or method of a study is named in Markdown, HTML or controls."""
    table = Table(
        name, (printable(name), "b\nc"), ((name, "1"), ("2", name)), frozenset({(1, 1)}), (name,)
    )
    title, _, head, line, *rows, _, note, end = table.markdown().split("\n")
    assert end == "" and line == "|---|---|" and len(rows) == 2
    for row in (head, *rows):
        cells = re.split(r"(?<!\\)(?:\\\\)*\|", row)
        assert len(cells) == 4 and cells[0] == cells[-1] == ""
    shown = printable(name).strip()
    for text in (title.removeprefix("## "), note.removesuffix("  ")):
        assert re.sub(r"\\([^\sa-zA-Z0-9])", r"\1", text) == shown  # as CommonMark reads it
        assert not re.search(r"(?<!\\)(\\\\)*([`*<&$@~|]|\]\()|^([#>=+-]|\d+[.)] )", text)
    page = table.html()
    assert "<img" not in page and page.count("<br>") == 1


def test_numbers_of_a_study_stay_as_they_are() -> None:
    for text in ("-", "+0.1 [-0.2, +0.3]", "0.50 ± 0.10", "Deletion ↓", "grad_cam, r = 3", "12.5"):
        assert markdown_text(text) == text


def video(path: Path, level: int) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=8, width=32, height=32, pix_fmt="yuv420p")
        for n in range(8):
            pixels = np.full((32, 32, 3), level + 5 * n, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        file.mux(stream.encode())


@pytest.mark.slow
def test_a_data_set_of_hostile_names(tmp_path: Path, monkeypatch, capfd) -> None:
    """A data set of names in controls and in Latin-1 is checked, trained on and explained."""
    names = (CONTROLS["a title"], CONTROLS["a line written over"], "=1+1", "caf\udce9")
    for n, name in enumerate(names):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for k in range(6):
            video(folder / "plain.mp4", 20 + 60 * n)
            (folder / "plain.mp4").rename(folder / f"\x1b[2J{n}_{k}\udce8.mp4")
        (folder / f"\x1b[31m{n}\udce8.mp4").write_bytes(b"nothing")
    data = [
        f"data.root={tmp_path / 'data'}", "data.resize=16", "data.crop=16", "data.num_frames=4",
        "data.fps=null",
    ]  # fmt: skip
    small = [
        "data.num_workers=0", "data.batch_size=4", "model=lrcn", "model.hidden=4", "trainer=cpu",
        "logger=none", "trainer.max_epochs=1", "explain=gradcam",
    ]  # fmt: skip

    def call(name: str, function: Callable[[Any], Any], *words: str) -> Any:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return function(compose(name, list(words)))

    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each is a line of its own, see above
        assert call(
            "check",
            lambda cfg: check(OmegaConf.to_container(cfg, resolve=True)),
            "data=folder",
            *data,
        )
        run = call("train", train, "data=folder", *data, *small)
        page = call("explain", explain_clips, f"ckpt={run / 'checkpoints' / 'last.ckpt'}")
    out = "".join(capfd.readouterr())
    assert "walk" in out and "=1+1" in out and r"caf\xe9" in out
    assert "\x1b" not in out and "\x07" not in out
    scores = page.with_name("scores.csv")
    with scores.open(newline="") as file:
        cells = {cell for row in csv.reader(file) for cell in row}
    assert "=1+1" not in cells and "'=1+1" in cells
    assert {row["label"] for row in read_csv(scores)} <= set(map(readable, names))


class Terminal:
    """A pseudo-terminal in place of stdout and stderr."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.master, slave = pty.openpty()
        self.file = os.fdopen(slave, "w", encoding="utf-8")
        self.said = bytearray()
        self.thread = threading.Thread(target=self._read)
        self.thread.start()
        for name in ("stdout", "stderr"):
            patch.setattr(sys, name, self.file)
        patch.setenv("TERM", "xterm-256color")

    def _read(self) -> None:
        with suppress(OSError):  # the other end is closed
            while block := os.read(self.master, 4096):
                self.said += block

    def close(self) -> str:
        self.file.close()
        self.thread.join()
        os.close(self.master)
        return self.said.decode()


def test_names_on_a_terminal(tmp_path: Path) -> None:
    """A data set of hostile names is checked, and clips are skipped, on a real terminal."""
    names = [CONTROLS[n] for n in ("a title", "a cleared screen", "a link", "one byte for two")]
    for n, name in enumerate(names):
        folder = tmp_path / "data" / name.replace("/", "_")
        folder.mkdir(parents=True)
        for k in range(3):
            video(folder / f"\x1b]0;clip\x07{n}_{k}.mp4", 20 + 60 * n + 9 * k)
        (folder / f"\x1b]0;broken\x07{n}.mp4").write_bytes(b"nothing")
    words = [
        "data=folder", f"data.root={tmp_path / 'data'}", "data.fps=null", "data.num_frames=4",
        f"out={tmp_path / 'problems.csv'}", "processes=1",
    ]  # fmt: skip
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = OmegaConf.to_container(compose("check", words), resolve=True)
    with pytest.MonkeyPatch.context() as patch:
        terminal = Terminal(patch)
        assert terminal.file.isatty()
        try:
            assert check(config) == 1
            with progress("explaining", 2) as advance:
                for name in names:
                    say(f"skipped {name}: [bold]damaged[/]")
                advance(1)
        finally:
            out = terminal.close()
    assert "\x1b[" in out  # of the table and the bar
    assert "owned" in out and "walk" in out and "broken" in out and "[bold]damaged[/]" in out
    for code in ("\x1b]", "\x07", "\x1b[2J", "\x1b[H", "\x9b"):
        assert code not in out


# --- tables -------------------------------------------------------------------------------------


FORMULAS = [
    "=1+1", "+1+1", "-2+3", "@SUM(A1)", '=HYPERLINK("http://evil")', "\t=1", "\r=1", "\n=1", "-",
    "--1", "-x", "'=1", "''=1", "=cmd|' /C calc'!A0", "-1-1", "+", "-0.5e",
]  # fmt: skip
NUMBERS = ["-0.5", "+3", "-1e-5", "-.5", "0.25", "-inf", "nan", "1.", "-12"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_calculated(tmp_path: Path, text: str) -> None:
    """A class, a clip or a column is named like a formula."""
    path = write_csv(tmp_path / "a.csv", [{"label": text, text: "x"}], ["label"])
    with path.open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in cells)
    assert read_csv(path) == [{"label": text, text: "x"}]


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers_stay_numbers(tmp_path: Path, text: str) -> None:
    """A number below zero is not a formula."""
    path = write_csv(tmp_path / "a.csv", [{"a": text, "b": -0.5, "c": None}], ["a", "b"])
    assert path.read_text().splitlines()[1] == f"{text},-0.5,"


@pytest.mark.slow
@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=2))
def test_every_text_is_read_back(tmp_path_factory, texts: list[str]) -> None:
    """Whatever is written is read back as it was."""
    path = tmp_path_factory.getbasetemp() / "any.csv"
    row = dict(zip("ab", texts, strict=True))
    assert read_csv(write_csv(path, [row], ["a", "b"])) == [row]
