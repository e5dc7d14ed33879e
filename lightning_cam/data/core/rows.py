"""The clips and the problems of a data set in arrays: 200,000 rows in a few objects.

An object in memory is written to by whoever looks at it, for its count of references, and Python's
collector of garbage looks at all of them. Loader processes that inherit objects come to copy them,
page by page; arrays they share.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from lightning_cam.data.core.arrays import Array
from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.ground_truth import VideoTruth

T = TypeVar("T")
Arrays = Mapping[str, Array]
_CODE = "utf-8", "surrogatepass"  # any text there is


class Row(NamedTuple):
    """A `Clip` as a data set with many of them lists it, and what one look at its folder told."""

    path: str
    clip_id: str
    label: int = -1
    group: int = 0
    truth: str = ""  # path of a file
    labels: tuple[int, ...] = ()
    inode: int = 0  # the number of its file; 0 where it has to be asked for, as behind a link


class Packed(Sequence[T]):
    """A sequence whose elements are made when they are asked for."""

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[T]: ...
    def __getitem__(self, at: int | slice) -> T | Sequence[T]:
        if isinstance(at, slice):
            return [self._at(n) for n in range(*at.indices(len(self)))]
        number = at + len(self) if at < 0 else at
        if not 0 <= number < len(self):
            raise IndexError(at)
        return self._at(number)

    @abstractmethod
    def _at(self, at: int) -> T:
        """The element at a place that is there."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


class Texts(Packed[str]):
    """Texts.

    Args:
        head: what all of them begin with.
        data: (bytes,) uint8, the rest of all of them, in UTF-8.
        ends: (n,) int64, where in `data` each ends.
    """

    def __init__(self, head: str, data: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.head, self.data, self.ends = head, data, ends

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Texts that are there as objects."""
        if isinstance(texts, Texts):
            return texts
        head = _common(min(texts), max(texts)) if texts else ""
        cut = len(head)
        rest = [text[cut:] for text in texts] if cut else texts
        whole = "".join(rest).encode(*_CODE)
        sizes = [*map(len, rest)]
        if sum(sizes) < len(whole):  # not letters of one byte alone
            sizes = [len(text.encode(*_CODE)) for text in rest]
        return cls(head, np.frombuffer(whole, np.uint8), np.cumsum(sizes, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def _at(self, at: int) -> str:
        begin = int(self.ends[at - 1]) if at else 0
        return self.head + self.data[begin : self.ends[at]].tobytes().decode(*_CODE)

    def __iter__(self) -> Iterator[str]:
        data, begin, head = self.data.tobytes(), 0, self.head
        for end in self.ends.tolist():
            yield head + data[begin:end].decode(*_CODE)
            begin = end

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Texts) and self.head == other.head:
            return np.array_equal(self.ends, other.ends) and np.array_equal(self.data, other.data)
        return super().__eq__(other)

    __hash__ = None

    def arrays(self, name: str) -> Arrays:
        """Arrays of numbers that tell them, by names that begin with this."""
        head = np.frombuffer(self.head.encode(*_CODE), np.uint8)
        return {f"{name}.head": head, f"{name}.data": self.data, f"{name}.ends": self.ends}

    @classmethod
    def from_arrays(cls, arrays: Arrays, name: str) -> Texts:
        """What `arrays` told.

        Raises:
            KeyError: they are not there.
            ValueError: they do not fit together.
        """
        head, data, ends = (arrays[f"{name}.{part}"] for part in ("head", "data", "ends"))
        if not (head.dtype == data.dtype == np.uint8 and ends.dtype == np.int64 and ends.ndim == 1):
            raise ValueError(f"{name} is no texts")
        if len(ends) and (ends[-1] != len(data) or (np.diff(ends, prepend=0) < 0).any()):
            raise ValueError(f"the ends of {name} are not within it")
        return cls(head.tobytes().decode(*_CODE), data, ends)


def _common(one: str, other: str) -> str:
    """What two texts begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return one[: next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))]


class Clips(Packed[Clip]):
    """Clips.

    Args:
        paths: of the videos.
        ids: their names.
        labels: (n,) int64.
        groups: (n,) int64.
        several: (n, K) int8, where each may have several labels; else K is 0.
        truths: of each, a path ("" without any) or the ground truth itself.
        inodes: (n,) uint64, see `Row`.
    """

    def __init__(
        self,
        paths: Texts,
        ids: Texts,
        labels: NDArray[np.int64],
        groups: NDArray[np.int64],
        several: NDArray[np.int8],
        truths: Sequence[str | VideoTruth | None],
        inodes: NDArray[np.uint64],
    ) -> None:
        self.paths, self.ids = paths, ids
        self.labels, self.groups, self.several = labels, groups, several
        self.truths, self.inodes = truths, inodes

    @classmethod
    def of_rows(cls, rows: Iterable[Row]) -> Clips:
        """Clips that are told by text and numbers."""
        columns = [*zip(*rows, strict=True)] or [()] * len(Row._fields)
        paths, ids, labels, groups, truths, several, inodes = columns
        return cls(
            Texts.of(paths),
            Texts.of(ids),
            np.array(labels, np.int64),
            np.array(groups, np.int64),
            np.array(several, np.int8) if any(several) else np.zeros((len(paths), 0), np.int8),
            Texts.of(truths),
            np.array(inodes, np.uint64),
        )

    def __len__(self) -> int:
        return len(self.paths)

    def _at(self, at: int) -> Clip:
        truth = self.truths[at]
        return Clip(
            Path(self.paths[at]),
            self.ids[at],
            int(self.labels[at]),
            int(self.groups[at]),
            (Path(truth) if truth else None) if isinstance(truth, str) else truth,
            tuple(self.several[at].tolist()),
        )

    def with_truths(self, truths: Sequence[str | VideoTruth | None]) -> Clips:
        """The same clips with other ground truth."""
        return Clips(
            self.paths, self.ids, self.labels, self.groups, self.several, truths, self.inodes
        )

    def select(self, which: NDArray[np.bool_]) -> Clips:
        """Some of them: (n,) which."""
        if which.all():
            return self

        def some(column: Sequence[T]) -> list[T]:
            return [each for each, kept in zip(column, which.tolist(), strict=True) if kept]

        return Clips(
            Texts.of(some(self.paths)),
            Texts.of(some(self.ids)),
            self.labels[which],
            self.groups[which],
            self.several[which],
            _truths(some(self.truths)),
            self.inodes[which],
        )

    def arrays(self, name: str) -> Arrays:
        """Arrays of numbers that tell them, without what only a look at the disk tells."""
        if not isinstance(self.truths, Texts):
            raise TypeError("ground truth that is there already cannot be told by numbers")
        arrays: dict[str, Array] = {
            f"{name}.labels": self.labels,
            f"{name}.groups": self.groups,
            f"{name}.several": self.several,
        }
        for key, texts in (("paths", self.paths), ("ids", self.ids), ("truths", self.truths)):
            arrays |= texts.arrays(f"{name}.{key}")
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Arrays, name: str) -> Clips:
        """What `arrays` told. Errors as of `Texts.from_arrays`."""
        paths, ids, truths = (
            Texts.from_arrays(arrays, f"{name}.{key}") for key in ("paths", "ids", "truths")
        )
        labels, groups, several = (arrays[f"{name}.{k}"] for k in ("labels", "groups", "several"))
        if {len(ids), len(truths), len(labels), len(groups), len(several)} != {len(paths)}:
            raise ValueError(f"the columns of {name} are of several lengths")
        if not (labels.ndim == groups.ndim == 1 and several.ndim == 2):
            raise ValueError(f"the columns of {name} are none")
        inodes = np.zeros(len(paths), np.uint64)
        return cls(paths, ids, labels, groups, several, truths, inodes)


def count_classes(clips: Sequence[Clip], classes: int) -> NDArray[np.int64]:
    """How many clips are of each class, (classes,); one with several labels counts for each."""
    if not isinstance(clips, Clips):
        labels = np.array([k for clip in clips for k in clip.classes], np.int64)
    elif clips.several.shape[1]:
        labels = np.nonzero(clips.several > 0)[1]
    else:
        labels = clips.labels
    return np.bincount(labels[labels >= 0], minlength=classes)[:classes]


def one_label(clips: Sequence[Clip]) -> NDArray[np.int64] | None:
    """The label of each clip, (n,); None where clips may have several."""
    if isinstance(clips, Clips):
        return None if clips.several.shape[1] else clips.labels
    several = any(clip.labels for clip in clips)
    return None if several else np.array([clip.label for clip in clips], np.int64)


def truths_of(clips: Sequence[Clip]) -> list[Path | VideoTruth]:
    """The ground truth of those clips that have some."""
    if not isinstance(clips, Clips):
        return [clip.truth for clip in clips if clip.truth]
    return [Path(truth) if isinstance(truth, str) else truth for truth in clips.truths if truth]


def without_truths(clips: Sequence[Clip]) -> Sequence[Clip]:
    """The same clips without any ground truth."""
    if not isinstance(clips, Clips):
        return [replace(clip, truth=None) for clip in clips]
    return clips.with_truths(Texts.of([""] * len(clips)))


def packed(clips: Sequence[Clip]) -> Sequence[Clip]:
    """Clips in arrays; as they are, where arrays would not tell all that they hold."""
    if isinstance(clips, Clips):
        return clips
    if (
        any(type(clip) is not Clip for clip in clips)
        or len({len(clip.labels) for clip in clips}) > 1
        or any(type(n) is not int for clip in clips for n in (clip.label, clip.group))
        or any(n not in (-1, 0, 1) for clip in clips for n in clip.labels)
    ):
        return list(clips)
    rows = Clips.of_rows(
        Row(str(clip.path), clip.clip_id, clip.label, clip.group, "", clip.labels) for clip in clips
    )
    truths = [str(t) if isinstance(t := clip.truth, Path) else t or "" for clip in clips]
    return rows.with_truths(_truths(truths))


def _truths(truths: Sequence[str | VideoTruth | None]) -> Sequence[str | VideoTruth | None]:
    """Ground truth of clips, in arrays where all of it is in files."""
    texts = [truth for truth in truths if isinstance(truth, str)]
    return Texts.of(texts) if len(texts) == len(truths) else truths
