"""The lists and folders of Something-Something as they come; see `something`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lightning_cam.data.clips.caption_templates import template_of
from lightning_cam.data.core.listing import Problem
from lightning_cam.data.core.seen_folders import SeenFolders, inode
from lightning_cam.data.core.text_files import text_of
from lightning_cam.errors import DataError, command_line

FORMATS = {1: ".csv", 2: ".json"}  # of the lists
CLIP_SUFFIXES = {1: "", 2: ".webm"}  # of the clips
OFFICIAL_PARTS = ("train", "validation", "test")

_LAYOUTS = {
    1: "20bn-something-something-v1/<id>/00001.jpg beside "
    "something-something-v1-{labels,train,validation,test}.csv",
    2: "20bn-something-something-v2/<id>.webm beside "
    "something-something-v2-{labels,train,validation,test}.json",
}
_ASK = (
    "ask for the data at the Qualcomm developer site (developer.qualcomm.com, Something-Something; "
    "research licence, no redistribution), unpack it and set data.root=FOLDER, or train on "
    f"synthetic data: {command_line('train', 'data=synthetic_something')}"
)


@dataclass(frozen=True)
class Layout:
    """Where the parts of a data set lie.

    Attributes:
        version: 1 or 2.
        media: the folder of the clips.
        lists: "labels", "train", "validation", and "test" where it is there.
    """

    version: int
    media: Path
    lists: Mapping[str, Path]


def find_layout(root: str | Path, version: int | None = None) -> Layout:
    """Find the clips and lists below `root`.

    Args:
        root: the folder that holds both.
        version: 1 or 2; None for the one that is there.

    Raises:
        DataError: a part is absent, or (without `version`) both versions are there.
    """
    root = Path(root)
    layouts, absent = [], {}
    for number in FORMATS if version is None else [version]:
        media = root / f"20bn-something-something-v{number}"
        lists = _find_lists(root, number)
        absent[number] = [] if media.is_dir() else [media.name]
        for part in ("labels", "train", "validation"):
            if part not in lists:
                absent[number].append(_list_name(number, part))
        if not absent[number]:
            layouts.append(Layout(number, media, lists))
    if len(layouts) > 1:
        raise DataError(f"both versions are in {str(root)!r}: set data.version=1 or data.version=2")
    if layouts:
        return layouts[0]
    for number, names in absent.items():
        if len(names) < 4:
            raise DataError(
                f"Something-Something at {str(root)!r} is not complete, it lacks "
                f"{', '.join(names)}: expected {_LAYOUTS[number]}; {_ASK}"
            )
    expected = " or ".join(_LAYOUTS[number] for number in absent)
    raise DataError(f"no Something-Something data at {str(root)!r}: expected {expected}; {_ASK}")


def _list_name(version: int, part: str) -> str:
    return f"something-something-v{version}-{part}{FORMATS[version]}"


def _find_lists(root: Path, version: int) -> dict[str, Path]:
    """The lists of a version by what they list; the first place that has one wins."""
    lists = {}
    for part in ("labels", *OFFICIAL_PARTS):
        for folder in (root, root / "annotations", root / "labels"):
            for name in (_list_name(version, part), part + FORMATS[version]):
                if part not in lists and (folder / name).is_file():
                    lists[part] = folder / name
    return lists


class ListedClip(NamedTuple):
    """One row of a list."""

    list: str  # name of the file
    number: int
    clip_id: str  # "" if the row makes no sense
    template: str

    @property
    def where(self) -> str:
        """The list and the number of the row in it."""
        return f"{self.list}{':' if self.list.endswith('.csv') else ', row '}{self.number}"


def read_labels(path: Path) -> list[str]:
    """The templates in the order of their numbers.

    Raises:
        DataError: it cannot be read, or holds none.
    """
    if path.suffix == ".csv":
        names: Iterable[str] = _text(path).split("\n")
    else:
        numbers = _json(path, dict)
        try:
            names = sorted(numbers, key=lambda name: int(numbers[name]))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{str(path)!r} does not map each template to its number: copy it again"
            ) from error
    labels = list(dict.fromkeys(filter(None, map(template_of, names))))
    if not labels:
        raise DataError(f"{str(path)!r} holds no labels: copy it again")
    return labels


def read_clip_list(path: Path, *, labelled: bool = True) -> Iterator[ListedClip]:
    """The rows of a list of clips, also those that make no sense.

    CSV rows are `id;template`, split at the first semicolon and never quoted.

    Args:
        path: of the list.
        labelled: whether its rows have a template; those for testing do not.

    Raises:
        DataError: the file cannot be read.
    """
    name = path.name
    if path.suffix == ".csv":
        for number, line in enumerate(_text(path).split("\n"), start=1):
            clip_id, _, template = line.partition(";")
            if line.strip():
                yield _row(name, number, clip_id, template, labelled)
        return
    for number, row in enumerate(_json(path, list), start=1):
        cells = row if isinstance(row, dict) else {}
        yield _row(name, number, cells.get("id"), cells.get("template", ""), labelled)


def _row(name: str, number: int, clip_id: Any, template: Any, labelled: bool) -> ListedClip:
    if not isinstance(clip_id, str) or not isinstance(template, str):
        return ListedClip(name, number, "", "")
    template = template_of(template)
    known = clip_id.strip() if template or not labelled else ""
    return ListedClip(name, number, known, template)


def _text(path: Path) -> str:
    try:
        return text_of(path)
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}") from error


def _json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{str(path)!r} is not JSON ({error}): copy it again") from error
    if not isinstance(content, kind):
        raise DataError(f"{str(path)!r} holds no JSON {kind.__name__}: copy it again")
    return content


def read_parts(
    layout: Layout, labels: Collection[str]
) -> tuple[dict[str, dict[str, str]], list[Problem]]:
    """What each list holds, and what is wrong in the lists.

    Args:
        layout: where the lists lie.
        labels: all templates that there are.

    Returns:
        For each of `OFFICIAL_PARTS` the template of each id ("" in the test part), in the order
        of the list.

    Raises:
        DataError: a list cannot be read, or lists nothing to train on.
    """
    parts: dict[str, dict[str, str]] = {part: {} for part in OFFICIAL_PARTS}
    problems = []
    seen: dict[str, ListedClip] = {}
    for part, path in layout.lists.items():
        if part == "labels":
            continue
        for row in read_clip_list(path, labelled=part != "test"):
            clip_id, template = row.clip_id, row.template
            if not clip_id:
                why = "it lacks an id or a template; copy the list again or remove the row"
                problems.append(Problem("row", row.where, why))
            elif clip_id in seen:
                why = f"clip {clip_id} is in {seen[clip_id].where} already; remove one of the rows"
                problems.append(Problem("row", row.where, why))
            else:
                seen[clip_id] = row
                parts[part][clip_id] = template
                if part != "test" and template not in labels:
                    why = f"{template!r} is not in {layout.lists['labels'].name}; correct the row"
                    problems.append(Problem("label", row.where, why))
    if not parts["train"] and not problems:
        raise DataError(f"{str(layout.lists['train'])!r} is empty: copy it again")
    return parts, problems


def find_media(layout: Layout, look: SeenFolders) -> dict[str, int]:
    """The ids of the clips that are on disk and the numbers of their files, by one look."""
    suffix = CLIP_SUFFIXES[layout.version]
    return {
        entry.name.removesuffix(suffix): inode(entry)
        for entry in look.entries(layout.media)
        if not entry.name.startswith(".")
        and (entry.name.endswith(suffix) if suffix else entry.is_dir())
    }


def compare(
    layout: Layout,
    parts: Mapping[str, Collection[str]],
    needed: Mapping[str, Mapping[str, str]],
    on_disk: Collection[str],
) -> list[Problem]:
    """What is needed, but not on disk, and what is on disk, but in no list.

    Args:
        layout: where the clips lie.
        parts: all ids of each list.
        needed: those that are of use, and their classes.
        on_disk: those that are there.
    """
    name = f"{layout.media.name}/{{}}{CLIP_SUFFIXES[layout.version]}".format
    missing = [
        Problem(
            "missing",
            name(clip_id),
            f"listed in {layout.lists[part].name}, but not there; unpack again",
            label,
        )
        for part, ids in needed.items()
        for clip_id, label in ids.items()
        if clip_id not in on_disk
    ]
    return missing + [
        Problem("unlisted", name(clip_id), "in no list; it is not used")
        for clip_id in sorted(set(on_disk).difference(*parts.values()))
    ]
