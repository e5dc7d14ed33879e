"""The clips and the problems of a data set in arrays: 200,000 rows in a few objects.

An object in memory is written to by whoever looks at it, for its count of references, and Python's
collector of garbage looks at all of them. Loader processes that inherit objects come to copy them,
page by page; arrays they share.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_cam.data.core.arrays import Array
from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.ground_truth import VideoTruth

T = TypeVar("T")
Number = TypeVar("Number", bound=np.generic)
Arrays = Mapping[str, Array]
_CODE = "utf-8", "surrogatepass"  # any text there is
_TEXTS = ("data", "ends", "head", "tail")  # what tells texts


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
        data: (bytes,) uint8, all of them in UTF-8, without what they have in common.
        ends: (n,) int64, where in `data` each ends.
        head: what all of them begin with.
        tail: what all of them end with.
    """

    def __init__(
        self, data: NDArray[np.uint8], ends: NDArray[np.int64], head: str = "", tail: str = ""
    ) -> None:
        self.data, self.ends, self.head, self.tail = data, ends, head, tail

    @classmethod
    def of(cls, texts: Sequence[str], head: str = "", tail: str = "") -> Texts:
        """Texts that are there as objects, each with this head and tail around it."""
        if isinstance(texts, Texts):
            return texts
        text = "".join(texts)
        sizes = [*map(len, texts)]
        if not text.isascii():  # letters of several bytes
            sizes = [len(each.encode(*_CODE)) for each in texts]
        whole = np.frombuffer(text.encode(*_CODE), np.uint8)
        return cls(whole, np.cumsum(sizes, dtype=np.int64), head, tail)

    @classmethod
    def empty(cls, count: int) -> Texts:
        """Texts without a letter."""
        return cls(np.zeros(0, np.uint8), np.zeros(count, np.int64))

    def framed(self, head: str, tail: str) -> Texts:
        """The same texts with more around them; they share memory."""
        return Texts(self.data, self.ends, head + self.head, self.tail + tail)

    def __len__(self) -> int:
        return len(self.ends)

    def _at(self, at: int) -> str:
        begin = int(self.ends[at - 1]) if at else 0
        return self.head + self.data[begin : self.ends[at]].tobytes().decode(*_CODE) + self.tail

    def __iter__(self) -> Iterator[str]:
        data, head, tail = self.data.tobytes(), self.head, self.tail
        ends = self.ends.tolist()
        places = zip([0, *ends], ends, strict=False)
        if data.isascii():
            text = data.decode()
            rest = [text[begin:end] for begin, end in places]
        else:
            rest = [data[begin:end].decode(*_CODE) for begin, end in places]
        return iter([f"{head}{text}{tail}" for text in rest] if head or tail else rest)

    def names(self) -> list[str]:
        """What follows the last slash in each."""
        if "/" in self.tail or self.data.tobytes().find(b"/") >= 0:
            return [text[text.rfind("/") + 1 :] for text in self]
        return [*Texts(self.data, self.ends, self.head[self.head.rfind("/") + 1 :], self.tail)]

    def take(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Texts:
        """Some of them: (n,) which, or their numbers in another order."""
        sizes = np.diff(self.ends, prepend=0)
        ends = np.cumsum(sizes[which])
        if which.dtype == bool:
            data = self.data[np.repeat(which, sizes)]
        else:
            shifts = np.repeat(self.ends[which] - ends, sizes[which])  # of every byte
            data = self.data[np.arange(len(shifts)) + shifts]
        return Texts(data, ends, self.head, self.tail)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Texts):
            return super().__eq__(other)
        if len(self) != len(other):
            return False
        if (self.head, self.tail) != (other.head, other.tail):
            return all(a == b for a, b in zip(self, other, strict=True))
        return np.array_equal(self.ends, other.ends) and np.array_equal(self.data, other.data)

    __hash__ = None

    def arrays(self, name: str) -> Arrays:
        """Arrays of numbers that tell them, by names that begin with this."""
        head, tail = (np.frombuffer(t.encode(*_CODE), np.uint8) for t in (self.head, self.tail))
        return {
            f"{name}.data": self.data,
            f"{name}.ends": self.ends,
            f"{name}.head": head,
            f"{name}.tail": tail,
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays, name: str) -> Texts:
        """What `arrays` told.

        Raises:
            KeyError: they are not there.
            ValueError: they do not fit together.
        """
        data, ends, head, tail = (arrays[f"{name}.{part}"] for part in _TEXTS)
        if any(each.dtype != np.uint8 for each in (data, head, tail)) or (
            ends.dtype != np.int64 or ends.ndim != 1
        ):
            raise ValueError(f"{name} is no texts")
        if len(ends) and (ends[-1] != len(data) or (np.diff(ends, prepend=0) < 0).any()):
            raise ValueError(f"the ends of {name} are not within it")
        return cls(data, ends, *(each.tobytes().decode(*_CODE) for each in (head, tail)))


class Clips(Packed[Clip]):
    """Clips.

    Args:
        paths: of the videos.
        ids: their names.
        labels: (n,) int64; or one for all.
        groups: (n,) int64; or one for all.
        several: (n, K) int8, where each may have several labels; None: one, K is 0.
        truths: of each, a path ("" without any) or the ground truth itself; None: none of any.
        inodes: (n,) uint64, the numbers of their files, 0 where one has to be asked for, as behind
            a link; or 0 for all.
    """

    def __init__(
        self,
        paths: Texts,
        ids: Texts,
        labels: ArrayLike = -1,
        groups: ArrayLike = 0,
        several: NDArray[np.int8] | None = None,
        truths: Sequence[str | VideoTruth | None] | None = None,
        inodes: ArrayLike = 0,
    ) -> None:
        count = len(paths)
        self.paths, self.ids = paths, ids
        self.labels = _column(labels, np.int64, count)
        self.groups = _column(groups, np.int64, count)
        self.several = np.zeros((count, 0), np.int8) if several is None else several
        self.truths = Texts.empty(count) if truths is None else truths
        self.inodes = _column(inodes, np.uint64, count)

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

    def with_truths(self, truths: Sequence[str | VideoTruth | None] | None) -> Clips:
        """The same clips with other ground truth."""
        return Clips(
            self.paths, self.ids, self.labels, self.groups, self.several, truths, self.inodes
        )

    def take(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Clips:
        """Some of them: (n,) which, or their numbers in another order."""
        if which.dtype == bool and which.all():
            return self
        truths = self.truths
        if isinstance(truths, Texts):
            truths = truths.take(which)
        else:
            truths = _truths([truths[n] for n in np.arange(len(self))[which]])
        return Clips(
            self.paths.take(which),
            self.ids.take(which),
            self.labels[which],
            self.groups[which],
            self.several[which],
            truths,
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
        return cls(paths, ids, labels, groups, several, truths)


def _column(values: ArrayLike, kind: type[Number], count: int) -> NDArray[Number]:
    """One number for each of so many rows."""
    return np.array(np.broadcast_to(np.asarray(values, kind), count))


def _common(one: str, other: str) -> str:
    """What two texts begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return one[: next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))]


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
    return clips.with_truths(None)


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
    paths = [str(clip.path) for clip in clips]
    head = _common(min(paths), max(paths)) if paths else ""
    return Clips(
        Texts.of([path[len(head) :] for path in paths], head),
        Texts.of([clip.clip_id for clip in clips]),
        [clip.label for clip in clips],
        [clip.group for clip in clips],
        np.array([clip.labels for clip in clips], np.int8) if clips else None,
        _truths([str(t) if isinstance(t := clip.truth, Path) else t or "" for clip in clips]),
    )


def _truths(truths: Sequence[str | VideoTruth | None]) -> Sequence[str | VideoTruth | None]:
    """Ground truth of clips, in arrays where all of it is in files."""
    texts = [truth for truth in truths if isinstance(truth, str)]
    return Texts.of(texts) if len(texts) == len(truths) else truths
