"""Something-Something versions 1 and 2.

    <root>/20bn-something-something-v1/<id>/00001.jpg ...   12 images a second
    <root>/something-something-v1-{labels,train,validation,test}.csv

    <root>/20bn-something-something-v2/<id>.webm
    <root>/something-something-v2-{labels,train,validation,test}.json

The lists may also lie in `<root>/annotations` or `<root>/labels`, and be called `train.csv` or
`train.json` and so on, as in newer packages. What a clip shows is a *template* such as "Pushing
something from left to right"; a class is one template or a group of them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from lightning_cam.data.clips.caption_templates import (
    find_templates,
    load_groups,
    mirror_by_template,
)
from lightning_cam.data.clips.something_lists import (
    FORMATS,
    Layout,
    find_layout,
    match,
    read_labels,
    read_parts,
)
from lightning_cam.data.core.listing import Listing, hash_order
from lightning_cam.data.core.module import VideoDataModule
from lightning_cam.data.core.rows import Texts
from lightning_cam.data.core.seen_folders import SeenFolders
from lightning_cam.data.core.selection import select_classes
from lightning_cam.errors import ConfigError, UnknownNameError

SPLITS = ("8:1:1", "official")


def split_ids(
    train: Iterable[str],
    validation: Iterable[str],
    split: str = "8:1:1",
    chosen: Container[str] | None = None,
) -> tuple[list[str], list[str], list[str]]:
    """Clips for training, validation and testing; see `SomethingSomething` for the recipe.

    Args:
        train: ids of the official training part.
        validation: ids of the official validation part.
        split: one of `SPLITS`.
        chosen: those of the ids that count; None for all.
    """
    held = hash_order(validation)
    half = len(held) // 2  # of all, so that clips keep their part whichever are chosen
    rest, val, test = (
        [clip_id for clip_id in part if chosen is None or clip_id in chosen]
        for part in (hash_order(train), held[:half], held[half:])
    )
    return rest[: 8 * len(val)] if split == "8:1:1" else rest, val, test


class SomethingSomething(VideoDataModule, listed_by=("version", "class_groups", "split")):
    """Something-Something version 1 (folders of images) or 2 (webm).

    The labels of the official test part are not in its list, so the official validation part
    serves for both: in the order of a hash of their ids, the first half of its clips is for
    validation and the second for testing, whatever the classes; of both, clips of the classes are
    taken. For training, `split="8:1:1"` takes 8 times as many clips of the classes as validation
    has, the first of the official training part in the same order (all, where there are fewer),
    and `split="official"` all of them. So each clip's part depends on the lists alone, not on what
    is on disk; choosing classes moves no clip between parts, it only changes how many are taken
    for training; adding clips hardly moves any; and a crowd
    worker, whom the official split keeps on one side, never is in training and evaluation both
    (validation and testing may share some: who they are was not published).

    Clips are mirrored by their templates: left and right change places in the label too, and where
    the mirrored clip is of no class it is not mirrored.

    Args:
        root: the folder that holds the clips' folder and the lists. Ground truth is used in
            validation and testing where `ground_truth/<id>.npz` lies in it.
        version: 1 or 2; None for the one in `root`.
        class_groups: None for one class per template, in the order of the labels; or which
            templates make a class, see `load_groups`.
        split: "8:1:1" or "official".
        **options: settings of `VideoDataModule`; `classes` may name some of the classes, and
            `hflip_pairs` replace the mirroring by templates.
    """

    def __init__(
        self,
        root: str = "data/something-something",
        *,
        version: int | None = None,
        class_groups: str | dict[str, list[str]] | None = None,
        split: str = "8:1:1",
        **options: Any,
    ) -> None:
        super().__init__(root, **{"fps": 4.0, "rate": 12.0, **options})
        if version not in (None, *FORMATS):
            raise ConfigError(f"data.version={version!r} must be 1, 2 or null")
        if split not in SPLITS:
            raise UnknownNameError("data.split", split, SPLITS)
        self.version = version
        self.class_groups = class_groups
        self.split = split
        self.by_template = options.get("hflip_pairs") is None

    @cached_property
    def layout(self) -> Layout:
        """Where the data lie."""
        return find_layout(self.root, self.version)

    @cached_property
    def labels(self) -> list[str]:
        """All templates of the data set, in the order of their numbers."""
        return read_labels(self.layout.lists["labels"])

    @cached_property
    def templates(self) -> dict[str, list[str]]:
        """Class name -> its templates."""
        return find_templates(self.labels, load_groups(self.class_groups))[0]

    def mirror(self) -> list[int | None]:
        if self.by_template:
            return mirror_by_template(self.listing.classes, self.templates)
        return super().mirror()

    def list_clips(self) -> Listing:
        layout, look = self.layout, self._survey()
        labels = read_labels(layout.lists["labels"])  # as they are now
        templates, problems = find_templates(labels, load_groups(self.class_groups))
        classes = select_classes(list(templates), self.given_classes)
        label_of = {text: n for n, name in enumerate(classes) for text in templates[name]}
        parts, wrong = read_parts(layout, set(labels))
        matched = match(layout, parts, label_of, classes, look)
        truths = self._truths(look)
        problems += [*look.problems, *wrong, *matched.problems]
        labelled = parts["train"], parts["validation"]
        chosen = None  # all
        if not label_of.keys() >= {*chain(*(part.values() for part in labelled))}:
            chosen = {key for part in labelled for key, text in part.items() if text in label_of}
        found = []
        for part in self.split_clips([*parts["train"]], [*parts["validation"]], chosen):
            places = [matched.places[clip_id] for clip_id in part if clip_id in matched.places]
            clips = matched.clips.take(np.array(places, np.int64))
            if truths:
                clips = clips.with_truths(Texts.of([truths.get(name, "") for name in clips.ids]))
            found.append(clips)
        train, val, test = found
        return Listing(classes, train, val, test, problems, sources=look.sources)

    def _truths(self, look: SeenFolders) -> dict[str, str]:
        """The paths of the ground truth of clips by their ids."""
        folder = look.root / "ground_truth"
        files = look.entries(folder, ordered=False) if look.is_dir(folder) else ()
        return {file.name[:-4]: file.path for file in files if file.name.endswith(".npz")}

    def _survey(self) -> SeenFolders:
        """Of the root and the lists, none of which was read yet."""
        look = SeenFolders(self.root)
        for name in ("annotations", "labels"):
            look.saw(look.root / name)
        for path in self.layout.lists.values():
            look.saw(path)
        if isinstance(self.class_groups, str):
            look.saw(self.class_groups)
        return look

    def split_clips(
        self, train: Sequence[str], validation: Sequence[str], chosen: Container[str] | None
    ) -> tuple[list[str], list[str], list[str]]:
        """Ids for training, validation and testing; see `split_ids`."""
        return split_ids(train, validation, self.split, chosen)
