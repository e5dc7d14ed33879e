"""A table of a study: as Markdown, HTML and in the terminal."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan

from rich.markup import escape
from rich.table import Table as RichTable

from lightning_cam.errors import printable
from lightning_cam.metrics import Statistics, format_number

# What Markdown on GitHub takes for markup, where it does: signs in words and numbers stay.
_MARKUP = re.compile(
    r"([\\`*|<&$@~]"  # code, bold, cells, HTML, entities, formulas, addresses, struck out
    r"|(?<![^\W_])_|_(?![^\W_])"
    r"|\](?=[(\[:])|\[(?=\^)"  # links, footnotes
    r"|:(?=//)|(?<=www)\."
    r"|^[#>=]|^[+-](?=[ +-])|(?<= )#(?=#*$))"  # headings, quotes, lists, lines
)
_NUMBERED = re.compile(r"^(\d+)([.)])(?= )")


@dataclass(frozen=True)
class Table:
    """Texts in rows and columns; the best ones are marked.

    Texts may hold names of anybody: they are plain text wherever the table is shown.

    Attributes:
        title: the heading.
        head: of the columns; "\n" begins a line.
        rows: texts.
        best: (row, column) of those to be set in bold.
        notes: what stands below.
        baselines: rows of maps that know nothing of the network: in italics, below a rule.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()
    notes: tuple[str, ...] = ()
    baselines: frozenset[int] = frozenset()

    @property
    def rule(self) -> int | None:
        """The row above which a rule stands: the first of the baselines below others."""
        first = min(self.baselines, default=0)
        return first or None

    def markdown(self) -> str:
        """GitHub's Markdown."""
        lines = [f"## {markdown_text(self.title)}", ""]
        if self.head:
            head = ["<br>".join(map(markdown_text, _lines(heading))) for heading in self.head]
            lines += [_piped(head), "|---" * len(self.head) + "|"]
        for r, row in enumerate(self.rows):
            if r == self.rule:
                lines.append(_piped("" for _ in self.head))
            lines.append(_piped(self._marked(markdown_text(t), r, c) for c, t in enumerate(row)))
        return "\n".join([*lines, "", *(f"{markdown_text(note)}  " for note in self.notes), ""])

    def html(self) -> str:
        """A section of the page."""
        return f'<section class="wide"><h2>{html.escape(self.title)}</h2>\n{self.body()}</section>'

    def body(self) -> str:
        """The table and its notes, without the heading."""
        head = "".join(f"<th>{'<br>'.join(map(html.escape, _lines(h)))}</th>" for h in self.head)
        body = "\n".join(
            f"<tr{' class=baseline' * (r in self.baselines)}>"
            + "".join(
                f"<td>{'<b>' * bold}{html.escape(text)}{'</b>' * bold}</td>"
                for text, bold in ((t, (r, c) in self.best) for c, t in enumerate(row))
            )
            + "</tr>"
            for r, row in enumerate(self.rows)
        )
        notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in self.notes)
        shown = (
            f'<table class="numbers"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'
        )
        return f"{shown * bool(self.head)}{notes}"

    def _marked(self, text: str, r: int, c: int) -> str:
        if text and r in self.baselines:
            return f"*{text}*"
        return f"**{text}**" if (r, c) in self.best else text

    def rich(self) -> RichTable:
        """For the terminal."""
        table = RichTable(title=escape(printable(self.title)))
        for n, heading in enumerate(self.head):
            lines = map(escape, _lines(heading))
            table.add_column("\n".join(lines), justify="right" if n else "left")
        for r, row in enumerate(self.rows):
            texts = [escape(printable(text)) for text in row]
            if r == self.rule:
                table.add_section()
            table.add_row(
                *(f"[bold]{t}[/]" if (r, c) in self.best else t for c, t in enumerate(texts)),
                style="italic" if r in self.baselines else None,
            )
        return table


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, in one line: neither markup nor the end of a cell."""
    return _NUMBERED.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", printable(text).strip()))


def _lines(heading: str) -> list[str]:
    return [printable(line) for line in heading.split("\n")]


def _piped(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def interval_text(s: Statistics) -> str:
    """A mean difference with its interval: "+0.12 [+0.08, +0.16]"."""
    if isnan(s.mean):
        return "-"
    size = s.mean if isnan(s.low) else max(abs(s.low), abs(s.high))
    mean, low, high = (format_number(x, 4, size, "+") for x in (s.mean, s.low, s.high))
    return mean if isnan(s.low) else f"{mean} [{low}, {high}]"
