"""`make attack`: run what attacks the program, and write what held to docs/reliability.md.

An attack is a test marked `attack`; the first line of its docstring says what was tried, which
`tests/conftest.py` notes in whichever process the test runs. Each case counts, as does each moment
of a test that kills. What skips (for want of rights, a library, real videos) was not tried.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
MOMENTS = "20"  # at which a test that kills does so
START, END = "<!-- attacks -->", "<!-- end of attacks -->"


class Tally:
    """Counts, for each attack, how many cases were tried and how many held."""

    def __init__(self) -> None:
        self.found: dict[str, Counter[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a case once, when it has run, was skipped, or could not be set up."""
        if report.when != "call" and report.passed:
            return
        noted: dict[str, Any] = dict(report.user_properties)
        counts = self.found.setdefault(noted.get("attack", report.nodeid), Counter())
        counts[report.outcome] += noted.get("tried", 1)


def table(found: dict[str, Counter[str]]) -> Iterator[str]:
    """Rows of Markdown: what was tried, how often, and how often it held."""
    yield "| tried | cases | held | not tried |"
    yield "|---|---|---|---|"
    total: Counter[str] = Counter()
    for said, counts in sorted(found.items()):
        total.update(counts)
        yield _row(said.replace("|", "\\|"), counts)
    yield _row("**all**", total)


def _row(said: str, counts: Counter[str]) -> str:
    tried = counts["passed"] + counts["failed"]
    return f"| {said} | {tried} | {counts['passed']} | {counts['skipped'] or ''} |"


def main() -> int:
    """Run the attacks; the exit code is pytest's."""
    os.environ.setdefault("ATTACKS", MOMENTS)
    tally = Tally()
    code = pytest.main(["-m", "attack", "-q", str(ROOT / "tests"), *sys.argv[1:]], plugins=[tally])
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    tail = rest.partition(END)[2]
    text = "\n".join([START, "", *table(tally.found), "", END])
    PAGE.write_text(head + text + tail, encoding="utf-8")
    print(f"written to {PAGE.relative_to(ROOT)}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
