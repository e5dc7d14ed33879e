"""What `--help` prints: the settings of a command, as their files say them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lightning_cam.commands.search import PACKAGE, choices, composed, find, groups
from lightning_cam.errors import command_line

_TYPED = re.compile(r"python (train|explain)\.py|python -m lightning_cam (check)")
_WIDTH = 100  # of a line, where nothing is to be typed
# Settings that users do not set.
_HIDDEN = ("defaults", "hydra", "_target_", "_partial_")

Block = tuple[list[str], "Blocks"]  # the lines of a key itself, and the keys below it
Blocks = dict[str, Block]


def help_text(name: str, arguments: Sequence[str] = ()) -> str:
    """The head of a command's configuration, its groups, and every key with its comment.

    Args:
        name: of the command.
        arguments: as typed; `GROUP=CHOICE` among them are the choices whose keys are shown.

    Raises:
        HydraException, OmegaConfBaseException, ConfigError: there is no such choice.
    """
    lines = (PACKAGE / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    head = [line[2:] for line in lines[: _first(lines)]]
    default = _defaults(lines)
    chosen = default | _asked(name, [a for a in arguments if a.split("=")[0] in default])
    text = [*head, "", "Groups (GROUP=CHOICE; * is the default; add --help to see its settings):"]
    for group in sorted(default):
        text += _row(group, default[group])
    text += ["", "Settings (KEY=VALUE, nested ones with dots) and their defaults:", ""]
    text += _listed(_blocks(lines), "  ")
    for group in sorted(chosen):
        for choice in chosen[group]:
            if file := find(group, choice):
                package = _package(file) or group
                below = "" if package == "_global_" else "  "
                title = f"# {group}={choice}" if not below else f"{package}:  # {group}={choice}"
                text += ["", f"  {title}", f"  {below}# {_description(file)}"]
                text += _listed(_with_parts(file, group), f"  {below}")
    return "\n".join(part for line in text for part in _wrapped(_as_started(line))) + "\n"


def _description(file: Path) -> str:
    """The first sentence of a file of settings."""
    lines = file.read_text(encoding="utf-8").splitlines()
    said = (line for line in lines if line.startswith("# ") and not line.startswith("# @package"))
    return next(said, "# ")[2:]


def _wrapped(line: str) -> list[str]:
    """A line of settings whose comment, if it is long, goes on below itself."""
    before, mark, comment = line.partition("# ")
    if len(line) <= _WIDTH or not mark:
        return [line]
    first, *more = textwrap.wrap(comment, max(_WIDTH - len(before) - 2, 30)) or [""]
    return [f"{before}# {first}", *(f"{'':{len(before)}}# {part}" for part in more)]


def _as_started(line: str) -> str:
    """With the command as it was typed; without the program's folders, to keep lines short."""

    def typed(found: re.Match[str]) -> str:
        program, *rest = command_line(found[1] or found[2]).split(" ")
        return " ".join([Path(program).name, *rest])

    return _TYPED.sub(typed, line)


def _row(group: str, default: Sequence[str]) -> Iterator[str]:
    """The choices of a group; those of each of the user's folders in a row of their own."""
    places: dict[Path, list[str]] = {PACKAGE / group: []}
    for choice, file in choices(group).items():
        places.setdefault(file.parent, []).append(f"{choice}{'*' if choice in default else ''}")
    for folder, names in places.items():
        label = group if folder.parent == PACKAGE else ""
        words = "  ".join(sorted(names))
        if not label:
            words = f"yours, in {_short(folder)}:  {words}"
        rows = textwrap.wrap(words, _WIDTH - 14, break_on_hyphens=False) or [""]
        yield f"  {label:<11} " + f"\n{'':14}".join(rows)


def _short(folder: Path) -> Path:
    here = Path.cwd().resolve()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _defaults(lines: Sequence[str]) -> dict[str, list[str]]:
    """Group -> default choices, in the order of the defaults list."""
    found: Any = OmegaConf.to_container(OmegaConf.create("\n".join(lines)))
    pairs = [
        pair for entry in found["defaults"] if isinstance(entry, dict) for pair in entry.items()
    ]
    return {group: _several(value) for group, value in pairs if group in groups()}


def _asked(name: str, arguments: Sequence[str]) -> dict[str, list[str]]:
    """Group -> choices, where these arguments (an experiment, say) lead to others."""
    if not arguments:
        return {}
    made: Any = composed(name, arguments, internals=True).hydra.runtime.choices
    return {group: _several(value) for group, value in made.items() if group in groups()}


def _several(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _package(file: Path) -> str | None:
    lines = file.read_text(encoding="utf-8").splitlines()
    return next((line.split()[-1] for line in lines if line.startswith("# @package")), None)


def _with_parts(file: Path, group: str) -> Blocks:
    """The keys of a file, and below them those it takes from other files of its group."""
    lines = file.read_text(encoding="utf-8").splitlines()
    blocks = _blocks(lines)
    content: Any = OmegaConf.to_container(OmegaConf.create("\n".join(lines)))
    for entry in reversed((content or {}).get("defaults", [])):
        part = find(group, entry) if isinstance(entry, str) else None
        if part is not None and part != file:
            blocks = _merged(blocks, _with_parts(part, group))
    return blocks


def _merged(over: Blocks, under: Blocks) -> Blocks:
    found = dict(over)
    for key, (own, below) in under.items():
        lines, more = over.get(key, (own, {}))
        found[key] = (lines, _merged(more, below) if more or key not in over else {})
    return found


def _first(lines: Sequence[str]) -> int:
    """The line after the head."""
    return next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))


def _blocks(lines: Sequence[str]) -> Blocks:
    """The keys of a file with their lines; a line that is all comment belongs to the key above."""
    found: Blocks = {}
    key = ""
    inside: list[str] = []
    for line in [*textwrap.dedent("\n".join(lines[_first(lines) :])).splitlines(), "end:"]:
        if not line.strip() or line.strip() == "{}":
            continue
        if line[0] in " #-":
            inside.append(line)
            continue
        if key and key not in _HIDDEN:
            found[key] = _block(inside)
        key, inside = line.split(":")[0], [line]
    return found


def _block(lines: list[str]) -> Block:
    """A key's own lines, with comments and lists that follow it, and the keys below it."""
    nested = len(lines) > 1 and re.match(r" +\w+:", lines[1])
    return (lines[:1], _blocks(lines[1:])) if nested else (lines, {})


def _listed(blocks: Blocks, indent: str) -> Iterator[str]:
    for lines, below in blocks.values():
        yield from (f"{indent}{line}" for line in lines)
        yield from _listed(below, f"{indent}  ")
