"""Finds what messages suggest to type: the same rules read the source and what is printed."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import lightning_cam as lc

PACKAGE = Path(lc.__file__).parent
HOLE = "{}"  # what the program fills in when it prints
_NO_TEXT = re.compile(r"<[a-z]+\d? [a-z-]+=|</[a-z]|^ class=|\.\*")  # markup, regular expressions
_CALL = re.compile(r"[\w.]*\w\((?:[^()]|\([^()]*\))*\)")  # Python, not a command line
_WORD = re.compile(
    r"(?<![\w.{}=/~-])(?P<new>\+?)(?P<key>[A-Za-z_{][\w.{}]*)=(?!=)"
    r"(?P<value>\[[^\]]*\]|'[^']*'|\"[^\"]*\"|[^\s;,()'\"]*)"
)
_LEAVE = re.compile(r"\b(leave out|without|drop|leave it out|or|another)\s*$")
_VERB = re.compile(
    r"\b(add|allow|begin|choose|did you mean|example|give|leave out|name|say|set|take|train|try|"
    r"type|use)\b"
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
    new: bool = False  # it is added, with a + before it


def words(text: str) -> list[Word]:
    """The settings that a message names."""
    text = _CALL.sub(lambda call: "." * len(call[0]), text)
    found = []
    for match in _WORD.finditer(text):
        clause = re.split(r"[;:]\s", text[: match.start()])[-1]
        value = match["value"].rstrip(".:?")
        left_out = not value and _LEAVE.search(clause) is not None
        asked = _VERB.search(clause) is not None
        found.append(Word(match["key"], value, asked, left_out, bool(match["new"])))
    return found


@functools.cache
def messages() -> tuple[tuple[str, str], ...]:
    """Where, and what may be said: every string of the package but docstrings."""
    return tuple(_read())


def _read() -> Iterator[tuple[str, str]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(file.read_text())
        with_docs = (ast.Module, ast.ClassDef, ast.FunctionDef)
        seen = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, with_docs) and node.body and isinstance(node.body[0], ast.Expr)
        }
        for line, text in _strings(tree, seen):
            if not _NO_TEXT.search(text):
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
