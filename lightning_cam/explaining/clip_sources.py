"""Where the clips of `explain.py` come from: video files, or a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule

from lightning_cam.data.core.composed import ARRANGEMENTS, ComposedDataset
from lightning_cam.data.core.dataset import SampleDataset
from lightning_cam.data.core.loading import collate
from lightning_cam.data.video.identity import everything_below
from lightning_cam.data.video.reading import VIDEO_SUFFIXES, is_frame_folder
from lightning_cam.errors import (
    ConfigError,
    DataError,
    UnknownNameError,
    VideoReadError,
    readable,
    say,
)
from lightning_cam.explaining.clip_files import file_name
from lightning_cam.explaining.clip_keys import key_of_file, key_of_row
from lightning_cam.explaining.clips_by_outcome import Selection, select_clips, shuffled
from lightning_cam.explaining.composed_clips import compose_clips
from lightning_cam.explaining.explain_settings import CHOSEN_CLIPS, asked_outcomes
from lightning_cam.explaining.looks import SharedLooks
from lightning_cam.explaining.video_part import VideoPart, check_readable, part_of
from lightning_cam.files import is_address
from lightning_cam.interfaces import (
    Batch,
    HasRoot,
    HasWorkers,
    OpensParts,
    ReadsFiles,
    Task,
    is_offered,
)
from lightning_cam.metrics import Measure

ALL = "all"  # clips of a part


@dataclass(frozen=True)
class ClipSource:
    """One clip to explain.

    Attributes:
        title: its name, which can be shown.
        read: makes its batch of one.
        key: says which clip it is; that of a changed file is another.
        composed: it was put together from several clips: what is explained of it is its label, the
            class of one part, and there is no file that shows it larger.
        place: where it is in its data set, in words: by this `clips=[...]` finds it again.
        part: what is asked of a video file; None: it is a clip of a data set.
    """

    title: str
    read: Callable[[], Batch]
    key: str
    composed: bool = False
    place: str = ""
    part: VideoPart | None = None


def find_clips(
    config: Mapping[str, Any],
    data: LightningDataModule,
    task: Task,
    without: int | None,
    measures: Mapping[str, Measure] = MappingProxyType({}),
    looks: SharedLooks | None = None,
) -> tuple[list[ClipSource], Selection | None]:
    """The clips to explain, and how they were selected where `select` asks for that.

    Args:
        config: see `configs/explain.yaml`.
        data: data module of the checkpoint.
        task: the network.
        without: a class whose clips are left out, unless they are asked for by index.
        measures: what is measured, which may need single clips.
        looks: what other processes know of clips that are chosen by what the network says of them.

    Raises:
        UserError: there are none.
    """
    if config["video"] is not None:
        check_readable(config, data)
        if config["clips"] != CHOSEN_CLIPS:
            say(f"clips={config['clips']} is of the data set; all of video= is explained")
        return clips_of_files(Path(config["video"]), data, partial(part_of, config, measures)), None
    split, clips, kinds = config["data"]["split"], config["clips"], asked_outcomes(config["select"])
    dataset = open_split(data, split, config["data"]["root"] is not None)
    workers = data.num_workers if is_offered(data, HasWorkers) else 0
    if config["compose"] is not None:
        named = not isinstance(clips, int)
        order = choose_indices(dataset, clips, split) if named else shuffled(range(len(dataset)))
        places = len(ARRANGEMENTS[config["compose"]].places)
        count = len(order) if named else -(-clips // places)
        made = compose_clips(
            task, dataset, order, config["compose"], count, workers=workers, shared=looks
        )
        most = len(made.dataset) if named else clips
        return clips_of_split(made.dataset, range(len(made.dataset))[:most], split), None
    if not kinds:
        return clips_of_split(dataset, choose_indices(dataset, clips, split, without), split), None
    named = not isinstance(clips, int)
    selection = select_clips(
        task,
        dataset,
        choose_indices(dataset, clips, split)
        if named
        else shuffled(eligible(dataset, split, without)),
        kinds,
        count=None if named else clips,
        workers=workers,
        shared=looks,
    )
    return clips_of_split(dataset, selection.indices, split), selection


def clips_of_files(
    path: Path, data: object, part: Callable[[Path, bool], VideoPart] | None = None
) -> list[ClipSource]:
    """A video, or all videos below a folder; a folder of images is one video.

    Args:
        path: file or folder.
        data: its `read(path)` makes a sample of a video.
        part: makes what is asked of a file, which is the only one or not.

    Raises:
        DataError: there is no video.
        ConfigError: the data module cannot read one.
    """
    if not is_offered(data, ReadsFiles):
        raise ConfigError(
            f"{type(data).__name__} cannot read a file: give it a method read(path) that returns "
            "a sample, or explain clips of the data set without video="
        )
    closed: dict[Path, OSError] = {}
    if path.is_dir() and not is_frame_folder(path):
        found = everything_below([path])
        closed = dict(found.closed)  # skipped by their names
        if path in closed:
            raise closed[path]
        files = sorted([*(f for _, f in found.files if _is_video(f)), *closed])
        if not files:
            raise DataError(
                f"no videos in {path} (looked for {' '.join(VIDEO_SUFFIXES)} and folders of images)"
            )
        titles = [readable(str(file.relative_to(path))) for file in files]
    elif path.exists():
        files, titles = [path], [readable(path.absolute().name)]
    elif is_address(path):
        raise DataError(f"no video at {path}: it is an address; download the video, give its path")
    else:
        raise DataError(f"no video at {path}; is the path right?")
    short = [
        title if file.is_dir() else str(Path(title).with_suffix(""))
        for title, file in zip(titles, files, strict=True)
    ]
    names = [file_name(title) for title in short]
    if len(set(names)) == len(names):  # else the whole names tell them apart
        titles = short
    alone = len(files) == 1
    parts = [part(f, alone) if part else VideoPart(f, alone=alone) for f in files]
    return [
        ClipSource(
            title,
            lambda part=part: _batch_of(part, data, closed.get(part.path)),  # type: ignore[misc]
            key_of_file(title, part.path.absolute(), part.path),
            part=None if part.path in closed else part,
        )
        for title, part in zip(unique_titles(titles), parts, strict=True)
    ]


def _batch_of(part: VideoPart, data: ReadsFiles, closed: OSError | None) -> Batch:
    if closed is not None:
        raise VideoReadError(part.path, f"{closed.strerror}; see that the folder can be read")
    return collate([part.read(data)])


def _is_video(path: Path) -> bool:
    if path.is_dir():
        return is_frame_folder(path)
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def open_split(data: LightningDataModule, split: str, root_given: bool) -> SampleDataset[Any]:
    """The clips of one part of a data set, without augmentation, training clips included.

    Args:
        data: the data module of the checkpoint.
        split: "train", "val" or "test", or what else the data module's `evaluation` knows.
        root_given: the user named the data set's folder, so that data may be made there.

    Raises:
        UserError: there is no such part, or there are no data.
    """
    if not is_offered(data, OpensParts):
        raise ConfigError(
            f"{type(data).__name__} cannot open clips to be explained: give it a method "
            "evaluation(part) that returns a SampleDataset, or explain a file with video=PATH"
        )
    root = _root(data)
    if root is None or (root_given and not Path(root).is_dir()):
        data.prepare_data()  # type: ignore[attr-defined]
    elif not Path(root).is_dir():
        # Nothing is made at a root that only the checkpoint names: it may be a stranger's.
        raise DataError(f"no data at {root}, which the checkpoint remembers; add data.root=FOLDER")
    return data.evaluation(str(split))


def choose_indices(
    dataset: SampleDataset[Any],
    clips: int | str | Sequence[int | str],
    split: str,
    without: int | None = None,
) -> list[int]:
    """Indices of the clips that are meant: so many, spread evenly, or these.

    Args:
        dataset: to choose from.
        clips: how many, "all", or which: their indices or names; `*`, `?` and `[abc]` stand for
            letters.
        split: the data set's name.
        without: of so many clips, none of this class.

    Raises:
        UserError: an index is outside, a name is of no clip, or there is no clip.
    """
    if isinstance(clips, int) or clips == ALL:
        found = eligible(dataset, split, without)
        return found if isinstance(clips, str) else spread_evenly(found, clips)
    found = []
    for clip in [clips] if isinstance(clips, str) else clips:
        if isinstance(clip, str):
            found += [n for n in _named(dataset, clip, split) if n not in found]
        elif 0 <= clip < len(dataset):
            found.append(clip)
        else:
            raise ConfigError(
                f"clips={clips}: the {split} split has the clips 0 to {len(dataset) - 1}"
            )
    return found


def _named(dataset: SampleDataset[Any], name: str, split: str) -> list[int]:
    """Indices of the clips of this name, or of all whose names are like it."""
    names = [readable(clip.clip_id) for clip in dataset.clips]
    found = [n for n, each in enumerate(names) if each == name]
    found = found or [n for n, each in enumerate(names) if fnmatchcase(each, name)]
    if not found:
        raise UnknownNameError(f"clip of the {split} split", name, names)
    return found


def spread_evenly(candidates: Sequence[int], count: int) -> list[int]:
    """So many of the candidates, spread evenly, or all there are."""
    places = np.linspace(0, len(candidates) - 1, min(count, len(candidates)))
    return [candidates[i] for i in places.round().astype(int)]


def eligible(dataset: SampleDataset[Any], split: str, without: int | None = None) -> list[int]:
    """Indices of the clips that are not of the class `without`.

    Raises:
        DataError: there is none.
    """
    found = [i for i, clip in enumerate(dataset.clips) if without is None or clip.label != without]
    if not found:
        others = "" if without is None else " of another class than contrast="
        raise DataError(f"the {split} split has no clips{others}; choose another data.split=")
    return found


def clips_of_split(
    dataset: SampleDataset[Any], indices: Iterable[int], split: str
) -> list[ClipSource]:
    """Clips of a data set by their indices."""
    composed = isinstance(dataset, ComposedDataset)
    indices = [int(i) for i in indices]
    titles = unique_titles(readable(dataset.clips[i].clip_id) for i in indices)
    return [
        ClipSource(
            title,
            lambda i=i: collate([dataset[i]]),  # type: ignore[misc]
            key_of_row(title, i, dataset),
            composed,
            "" if composed else f"{i} of {split}",
        )
        for title, i in zip(titles, indices, strict=True)
    ]


def unique_titles(titles: Iterable[str]) -> Iterator[str]:
    """Titles whose file names differ, also where large and small letters are the same."""
    seen: set[str] = set()
    for title in titles:
        name, n = title, 1
        while file_name(name).casefold() in seen:
            n += 1
            name = f"{title}_{n}"
        seen.add(file_name(name).casefold())
        yield name


def _root(data: object) -> str | Path | None:
    return data.root if is_offered(data, HasRoot) else None
