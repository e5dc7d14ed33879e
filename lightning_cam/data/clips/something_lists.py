"""The lists and folders of Something-Something as they come; see `something`."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lightning_cam.data.clips.caption_templates import template_of
from lightning_cam.data.core.listing import Problem
from lightning_cam.data.core.rows import Clips, Packed, Texts
from lightning_cam.data.core.seen_folders import SeenFolders
from lightning_cam.data.core.seen_folders import inodes as inodes_of
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

    where: str  # the list and the number of the row in it
    clip_id: str  # "" if the row makes no sense
    template: str


class ClipList(Packed[ListedClip]):
    """The rows of a list.

    Args:
        name: of the file.
        numbers: of the rows in it.
        ids: of the clips; "" if the row makes no sense.
        templates: of the clips.
    """

    def __init__(
        self, name: str, numbers: Sequence[int], ids: Sequence[str], templates: Sequence[str]
    ) -> None:
        self.name, self.numbers, self.ids, self.templates = name, numbers, ids, templates

    def __len__(self) -> int:
        return len(self.ids)

    def _at(self, at: int) -> ListedClip:
        between = ":" if self.name.endswith(".csv") else ", row "
        where = f"{self.name}{between}{self.numbers[at]}"
        return ListedClip(where, self.ids[at], self.templates[at])


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


def read_clip_list(path: Path, *, labelled: bool = True) -> ClipList:
    """The rows of a list of clips, also those that make no sense.

    CSV rows are `id;template`, split at the first semicolon and never quoted.

    Args:
        path: of the list.
        labelled: whether its rows have a template; those for testing do not.

    Raises:
        DataError: the file cannot be read.
    """
    if path.suffix == ".csv":
        lines = [(n, line) for n, line in enumerate(_text(path).split("\n"), 1) if line.strip()]
        numbers: Sequence[int] = [number for number, _ in lines]
        rows = [_cells(*line.partition(";")[::2]) for _, line in lines]
    else:
        found = _json(path, list, lambda row: _cells(row.get("id"), row.get("template", "")))
        numbers = range(1, len(found) + 1)
        rows = [row if isinstance(row, tuple) else ("", "") for row in found]
    ids, templates = [row[0] for row in rows], [row[1] for row in rows]
    if labelled and "" in templates:
        ids = [clip_id if text else "" for clip_id, text in rows]
    return ClipList(path.name, numbers, ids, templates)


def _cells(clip_id: object, template: object) -> tuple[str, str]:
    if isinstance(clip_id, str) and isinstance(template, str):
        return clip_id.strip(), template_of(template)
    return "", ""


def _text(path: Path) -> str:
    try:
        return text_of(path)
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}") from error


def _json(path: Path, kind: type, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """What a file holds, of which each mapping may become another thing as soon as it is read."""
    try:
        content = json.loads(_text(path), object_hook=hook)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{str(path)!r} is not JSON ({error}): copy it again") from error
    if not isinstance(content, kind):
        raise DataError(f"{str(path)!r} holds no JSON {kind.__name__}: copy it again")
    return content


def read_parts(layout: Layout, labels: set[str]) -> tuple[dict[str, dict[str, str]], list[Problem]]:
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
    problems: list[Problem] = []
    lists: list[ClipList] = []
    for part, path in layout.lists.items():
        if part == "labels":
            continue
        listed = read_clip_list(path, labelled=part != "test")
        known = labels if part != "test" else set(listed.templates)
        held = dict(zip(listed.ids, listed.templates, strict=True))
        if (
            len(held) < len(listed)
            or "" in held
            or not all(held.keys().isdisjoint(other) for other in parts.values())
            or not known.issuperset(listed.templates)
        ):
            held, wrong = _one_by_one(listed, lists, known, layout.lists["labels"].name)
            problems += wrong
        parts[part] = held
        lists.append(listed)
    if not parts["train"] and not problems:
        raise DataError(f"{str(layout.lists['train'])!r} is empty: copy it again")
    return parts, problems


def _one_by_one(
    listed: ClipList, earlier: Iterable[ClipList], known: Collection[str], where_known: str
) -> tuple[dict[str, str], list[Problem]]:
    """The template of each id of a list in which something is wrong, and what.

    Args:
        listed: the list.
        earlier: lists whose ids it must not have.
        known: all templates that there may be.
        where_known: the name of their list.
    """
    seen: dict[str, tuple[ClipList, int]] = {}
    for other in earlier:
        for n, clip_id in enumerate(other.ids):
            seen.setdefault(clip_id, (other, n))
    held: dict[str, str] = {}
    problems = []
    for n, (where, clip_id, template) in enumerate(listed):
        if not clip_id:
            why = "it lacks an id or a template; copy the list again or remove the row"
            problems.append(Problem("row", where, why))
        elif clip_id in seen:
            other, m = seen[clip_id]
            why = f"clip {clip_id} is in {other[m].where} already; remove one of the rows"
            problems.append(Problem("row", where, why))
        else:
            seen[clip_id] = listed, n
            held[clip_id] = template
            if template not in known:
                why = f"{template!r} is not in {where_known}; correct the row"
                problems.append(Problem("label", where, why))
    return held, problems


class Matched(NamedTuple):
    """The clips that are of use and on disk, in the order of the lists, and what does not match."""

    places: dict[str, int]  # of their ids
    clips: Clips
    problems: list[Problem]  # what is on disk only, or is needed and in a list only


def match(
    layout: Layout,
    parts: Mapping[str, Mapping[str, str]],
    label_of: Mapping[str, int],
    classes: Sequence[str],
    look: SeenFolders,
) -> Matched:
    """Find the clips of the lists on disk.

    Args:
        layout: where they lie.
        parts: the template of each id of each list.
        label_of: of the templates that are of use.
        classes: names of the labels.
        look: of the root.
    """
    suffix = CLIP_SUFFIXES[layout.version]
    name = f"{layout.media.name}/{{}}{suffix}".format
    places: dict[str, int] = {}
    labels, inodes, problems = [], [], []
    on_disk = _find_media(layout, look)
    for part, held in parts.items():
        for clip_id, template in held.items():
            inode = on_disk.pop(clip_id, None)
            label = label_of.get(template) if part != "test" else None
            if label is None:
                continue
            if inode is not None:
                places[clip_id] = len(places)
                labels.append(label)
                inodes.append(inode)
                continue
            why = f"listed in {layout.lists[part].name}, but not there; unpack again"
            problems.append(Problem("missing", name(clip_id), why, classes[label]))
    problems += [
        Problem("unlisted", name(clip_id), "in no list; it is not used")
        for clip_id in sorted(on_disk)
    ]
    ids = Texts.of([*places])
    paths = ids.framed(f"{layout.media}/", suffix)
    return Matched(places, Clips(paths, ids, labels, inodes=inodes), problems)


def _find_media(layout: Layout, look: SeenFolders) -> dict[str, int]:
    """The ids of the clips that are on disk and the numbers of their files, by one look."""
    suffix = CLIP_SUFFIXES[layout.version]
    clips = [
        entry
        for entry in look.entries(layout.media, ordered=False)
        if not entry.name.startswith(".")
        and (entry.name.endswith(suffix) if suffix else entry.is_dir())
    ]
    return dict(
        zip([clip.name.removesuffix(suffix) for clip in clips], inodes_of(clips), strict=True)
    )
