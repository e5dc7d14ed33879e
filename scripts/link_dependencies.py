"""Link what a distribution needs into its environment, from the environment this runs in.

    python scripts/link_dependencies.py lightning-cam ENVIRONMENT

Only what the installed metadata declares is linked, and what that declares in turn: importing
anything else fails as in an environment into which pip has just installed the distribution.
"""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement


def needed(start: Distribution) -> dict[str, Distribution]:
    """Name -> distribution of everything that `start` requires here, itself left out."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    todo = [(start, "")]
    while todo:
        dist, extra = todo.pop()
        for line in dist.requires or []:
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            for wanted in ("", *requirement.extras):
                if (requirement.name, wanted) not in seen:
                    seen.add((requirement.name, wanted))
                    found[requirement.name] = distribution(requirement.name)
                    todo.append((found[requirement.name], wanted))
    return found


def main(name: str, environment: str) -> None:
    (site,) = Path(environment).glob("lib/python*/site-packages")
    (start,) = distributions(name=name, path=[str(site)])
    for dist in needed(start).values():
        for top in {file.parts[0] for file in dist.files or []} - {"..", "__pycache__"}:
            place = site / top
            if not top.endswith(".pth") and not place.is_symlink():
                place.symlink_to(Path(str(dist.locate_file(top))))


if __name__ == "__main__":
    main(*sys.argv[1:])
