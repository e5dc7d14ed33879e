"""What the documentation tells a reader to type: commands, Python, and links, as printed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_cam.errors import COMMANDS

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^([ \t]*)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"^    \S.*$", re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SHELL = {"bash", "sh", "shell"}


@dataclass(frozen=True)
class Typed:
    """A command of this package as a page prints it, without what follows a `#`."""

    page: str
    line: str
    command: str  # train, explain or check
    settings: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {self.line}"


def pages() -> dict[str, str]:
    """Name -> Markdown of every page, the text cells of the notebooks included."""
    files = {*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *(ROOT / "docs").rglob("*.md")}
    found = {f.relative_to(ROOT).as_posix(): f.read_text() for f in sorted(files)}
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(file.read_text())["cells"]
        text = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        found[file.relative_to(ROOT).as_posix()] = "\n\n".join(text)
    return found


def lines() -> Iterator[tuple[str, str]]:
    """Every command line of every page: in shell blocks, indented blocks, and sentences."""
    for page, text in pages().items():
        plain = _FENCE.sub("", text)
        blocks = [body for _, kind, body in _FENCE.findall(text) if kind in _SHELL]
        indented = re.sub(r"\\\n\s+", " ", plain)
        blocks += [m[0] for m in _INDENTED.finditer(indented)]
        blocks += [m[1] for m in _INLINE.finditer(plain)]
        for block in blocks:
            for line in block.replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|;", line):
                    if part.strip():
                        yield page, part.strip()


def typed() -> list[Typed]:
    """Every command of this package. Settings alone (`experiment=sfm_tiny seed=0`) go to train."""
    found = {}
    for page, line in lines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # an apostrophe: prose or a piece of code
            continue
        command = _command(words)
        if command:
            at = command[1]
            one = Typed(page, shlex.join(words), command[0], tuple(words[at:]))
            found[str(one)] = one
    return list(found.values())


def python() -> list[tuple[str, str]]:
    """Page and source of every Python block."""
    return blocks("python")


def blocks(language: str) -> list[tuple[str, str]]:
    """Page and text of every fenced block of a language."""
    return [
        (page, re.sub(rf"^{indent}", "", body, flags=re.MULTILINE))
        for page, text in pages().items()
        for indent, kind, body in _FENCE.findall(text)
        if kind == language
    ]


def links() -> list[tuple[str, str]]:
    """Page and target of every link or image that is not on another host."""
    return [
        (page, link.partition("#")[0])
        for page, text in pages().items()
        for link in _LINK.findall(_INLINE.sub("", _FENCE.sub("", text)))
        if "://" not in link and not link.startswith("#")
    ]


_SCRIPTS = {
    "train.py": "train", "train.sbatch": "train",
    "explain.py": "explain", "explain.sbatch": "explain", "study.sbatch": "explain",
}  # fmt: skip


def _command(words: list[str]) -> tuple[str, int] | None:
    """Which command the words start, and the index of its first setting."""
    if words and words[0].startswith("experiment=") and "NAME" not in words[0]:
        return "train", 0
    for i, word in enumerate(words):
        name = Path(word).name
        if name in _SCRIPTS:
            named = i == 0 and len(words) == 1  # a file's name in a sentence
            return None if named else (_SCRIPTS[name], i + 1)
        if name.startswith("lightning-cam-") and name.removeprefix("lightning-cam-") in COMMANDS:
            return name.removeprefix("lightning-cam-"), i + 1
        if words[max(i - 1, 0)] == "-m" and word == "lightning_cam" and "..." not in words[i + 1 :]:
            return words[i + 1].partition("|")[0], i + 2
    return None
