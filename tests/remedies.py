"""Finds what messages suggest to type: the same rules read the source and what is printed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import lightning_cam as lc

PACKAGE = Path(lc.__file__).parent
HOLE = "{}"  # what the program fills in when it prints
_SAYS = re.compile(r"(Error|Problem|Warning|\bwarn|\bprint|\bsay|\.write)$")
_CALL = re.compile(r"[\w.]*\w\((?:[^()]|\([^()]*\))*\)")  # Python, not a command line
_WORD = re.compile(
    r"(?<![\w.{}=/~-])(?P<key>[A-Za-z_{][\w.{}]*)=(?!=)"
    r"(?P<value>\[[^\]]*\]|'[^']*'|\"[^\"]*\"|[^\s;,()'\"]*)"
)
_LEAVE = re.compile(r"\b(leave out|without|drop|leave it out|or|another)\s*$")
_VERB = re.compile(
    r"\b(add|choose|did you mean|example|give|leave out|name|say|set|take|try|type|use)\b"
)
COMMAND = re.compile(
    r"(?:python )?\b(train|explain)\.py\b|lightning-cam-(\w+)|-m lightning_cam (\w+)"
)
PIP = re.compile(r"\bpip install ([\w.\[\]-]+)")
DOTTED = re.compile(r"\blightning_cam(?:\.[A-Za-z_]\w*)+")


class Word(NamedTuple):
    """A setting in a message, `key=value`."""

    key: str
    value: str
    asked: bool  # the message says to type it, and not only how it is
    left_out: bool  # it says to leave it out


def words(text: str) -> list[Word]:
    """The settings that a message names."""
    text = _CALL.sub(lambda call: "." * len(call[0]), text)
    found = []
    for match in _WORD.finditer(text):
        clause = re.split(r"[;:]\s", text[: match.start()])[-1]
        value = match["value"].rstrip(".:?")
        left_out = not value and _LEAVE.search(clause) is not None
        found.append(Word(match["key"], value, _VERB.search(clause) is not None, left_out))
    return found


def messages() -> Iterator[tuple[str, str]]:
    """Where, and what is said: every string in what the package raises, warns of or prints."""
    for file in sorted(PACKAGE.rglob("*.py")):
        seen: set[int] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            said = isinstance(node, ast.Raise) or (
                isinstance(node, ast.Call) and _SAYS.search(ast.unparse(node.func))
            )
            for line, text in _strings(node, seen) if said else ():
                yield f"{file.relative_to(PACKAGE.parent)}:{line}", text


def _strings(node: ast.AST, seen: set[int]) -> Iterator[tuple[int, str]]:
    """Strings below a node, each once and whole."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.lineno, node.value
    elif isinstance(node, ast.JoinedStr):
        yield node.lineno, _text(node)
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                yield from _strings(part.value, seen)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _strings(child, seen)


def _text(node: ast.AST) -> str:
    """A string with `HOLE` for what is filled in; words that `errors.py` makes are written out."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value) if isinstance(node.value, ast.Call) else HOLE
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        name = ast.unparse(node.func).rpartition(".")[2]
        if name == "quoted":
            return f"{node.args[0].value}={HOLE}"
        if name == "command_line":
            rest = [_text(argument) for argument in node.args[1:]]
            return " ".join([f"python -m lightning_cam {node.args[0].value}", *rest])
    return HOLE
