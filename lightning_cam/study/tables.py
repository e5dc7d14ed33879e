"""A table of a study: as Markdown, HTML and in the terminal."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan

from rich.console import Console
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

    def rich(self, columns: Sequence[int] | None = None) -> RichTable:
        """For the terminal; all columns, or these."""
        columns = range(len(self.head)) if columns is None else columns
        table = RichTable(title=escape(printable(self.title)))
        for c in columns:
            lines = map(escape, _lines(self.head[c]))
            table.add_column("\n".join(lines), justify="right" if c else "left")
        for r, row in enumerate(self.rows):
            texts = {c: escape(printable(row[c])) for c in columns}
            if r == self.rule:
                table.add_section()
            table.add_row(
                *(f"[bold]{t}[/]" if (r, c) in self.best else t for c, t in texts.items()),
                style="italic" if r in self.baselines else None,
            )
        return table

    def fitting(self, width: int) -> Iterator[RichTable]:
        """For a terminal of so many letters: as many columns beside the first as fit, and so on.

        What is wider with one column beside the first is wider than the terminal.
        """
        columns = [0]
        for c in range(1, len(self.head)):
            if len(columns) > 1 and written_width(self.rich([*columns, c])) > width:
                yield self.rich(columns)
                columns = [0]
            columns.append(c)
        yield self.rich(columns)


def written_width(table: RichTable) -> int:
    """How many letters wide a table is that is not cut."""
    return Console(width=1000).measure(table).maximum


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
