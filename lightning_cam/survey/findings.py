"""What only a whole data set tells: where the evidence of each class lies, and in which ways.

Maps count as shares: all heat of a clip is 1, of a map with negative values by its amount, so that
a clip of high scores counts as much as another. The maps of a class are grouped by spectral
relevance analysis (Lapuschkin et al., Nature Communications 2019): a graph of nearest neighbours,
its normalised Laplacian, whose eigenvalues have a gap behind the number of clusters, and these in
the space of its first eigenvectors. A cluster of clips whose heat lies apart, such as on a
watermark, is one that a network has learned besides its class.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from lightning_cam.attribution.columns import Columns, Head
from lightning_cam.attribution.tensors import resize_heatmap
from lightning_cam.errors import UserError
from lightning_cam.files import write_csv
from lightning_cam.survey.shards import ClipRecord, MapRecord, read_shard

SPACE = (32, 32)  # of mean maps
TIMES = 16  # bins of a clip's time
FEWEST = 20  # clips of a class that is clustered
_GRID = (4, 16, 16)  # of the maps that are compared
_NEIGHBOURS = 10
_MOST_CLUSTERS = 8
_MOST_AT_ONCE = 1500  # clips of a class whose graph is taken apart
_EDGE = SPACE[0] // 8  # width of the border
_TYPICAL = 6  # clips that stand for a cluster

Array = NDArray[np.float32]


def check_clusters() -> None:
    """Raise a UserError where the library is missing that finds clusters."""
    if find_spec("sklearn") is None:
        raise UserError("a survey finds clusters with scikit-learn: pip install scikit-learn")


@dataclass(frozen=True, slots=True)
class Seen:
    """The map of a clip as all of them are compared, in 16 bits: there may be 200,000 of them.

    Attributes:
        space: `SPACE`, over all frames; of an even map 1 everywhere.
        time: (`TIMES`,) shares of the heat.
        roots: `_GRID`, of shares: their differences are Hellinger's distances.
    """

    space: NDArray[np.float16]
    time: Array
    roots: NDArray[np.float16]

    @classmethod
    def of(cls, one: MapRecord, frames: int) -> Seen | None:
        """None of a map without heat."""
        kept = one.kept
        heat = kept.values.astype(np.float32)
        heat = np.maximum(heat, 0) if kept.floating else np.abs(heat)
        if not heat.any():
            return None
        whole = resize_heatmap(torch.from_numpy(heat)[None], (max(frames, 1), *SPACE))[None]
        whole = (whole / whole.sum()).clamp(min=0)
        coarse = F.adaptive_avg_pool3d(whole, _GRID)[0, 0].numpy()
        time = F.interpolate(whole.sum((3, 4)), TIMES, mode="linear", align_corners=False)[0, 0]
        return cls.given(whole[0, 0].sum(0).numpy(), (time / time.sum()).numpy(), coarse)

    @classmethod
    def given(cls, space: Array, time: Array, coarse: Array) -> Seen:
        """Of heat in space and time, and on `_GRID`, of any sum."""
        even = space * (space.size / space.sum())
        roots = np.sqrt(coarse / coarse.sum())
        return cls(even.astype(np.float16), np.array(time), roots.astype(np.float16))


def border_share(space: Array) -> float:
    """The share of a map that is in the outer eighth at each side."""
    inner = space[_EDGE:-_EDGE, _EDGE:-_EDGE]
    return float(1 - inner.sum() / space.sum())


def centre_share(space: Array) -> float:
    """The share of a map that is in the middle half of both sides."""
    rows, columns = (n // 4 for n in SPACE)
    return float(space[rows:-rows, columns:-columns].sum() / space.sum())


EVEN_BORDER, EVEN_CENTRE = (f(np.ones(SPACE, np.float32)) for f in (border_share, centre_share))


@dataclass(frozen=True, slots=True)
class Row:
    """A clip by one method.

    Attributes:
        record: of the clip.
        column: what was explained.
        predicted: the likeliest class among its like; None of columns that are no classes.
        probability: of the explained class.
        right: whether the prediction is the true class, or where each class is true or not by
            itself, whether it is right about the explained one; None: nobody knows.
        inside: the heat's share inside the ground truth; None: nobody knows.
        border: the heat's share at the borders; None: the map has no heat, or tells no places.
        centre: the heat's share in the centre; None likewise.
        doubt: why the map is not to be trusted; "" where nothing speaks against it.
        true: the true class; None: nobody knows, or there may be several.
    """

    record: ClipRecord
    column: str
    predicted: str | None
    probability: float | None
    right: bool | None
    inside: float | None
    border: float | None
    centre: float | None
    doubt: str = ""
    true: str | None = None

    @property
    def wrong_reason(self) -> bool | None:
        """Whether it is right with less heat inside the truth than an even map has there.

        None where that is not known, or another class was explained than is true of the clip.
        """
        even = self.record.even
        if self.right is None or not self.record.truth or self.inside is None or even is None:
            return None
        return self.right and self.inside < even


@dataclass
class Group:
    """Clips of one class, or of a cluster of it, by one method.

    Attributes:
        method: its name.
        column: the explained class.
        rows: the clips whose maps have heat.
        space: the mean map, `SPACE`, of sum 1.
        time: the mean share of each stretch of time, (`TIMES`,).
        typical: clips whose maps are most like the mean map.
        number: of the cluster, from 1 on; 0: the whole class.
        separation: how far it lies apart from the class's other clusters, -1 to 1 (silhouette).
        elsewhere: the share of its mean map that would have to move to become that of all other
            clips (total variation); None: there are no others.
        note: why it has no clusters.
        clusters: of a class, at least two or none.
    """

    method: str
    column: str
    rows: list[Row]
    space: Array
    time: Array
    typical: list[Row]
    number: int = 0
    separation: float = 0.0
    elsewhere: float | None = None
    note: str = ""
    clusters: list[Group] = field(default_factory=list)

    @classmethod
    def of(cls, method: str, column: str, members: Sequence[_Member], **more: Any) -> Group:
        """Of clips and their maps."""
        total = sum((seen.space for _, seen in members), np.zeros(SPACE))
        space = (total / total.sum()).astype(np.float32)
        even = space * space.size
        near = heapq.nsmallest(
            _TYPICAL, range(len(members)), key=lambda n: _apart(members[n][1].space, even)
        )
        return cls(
            method,
            column,
            [row for row, _ in members],
            space,
            np.mean([seen.time for _, seen in members], 0),
            [members[n][0] for n in near],
            **more,
        )

    @property
    def inside(self) -> float | None:
        return _mean(row.inside for row in self.rows)

    @property
    def even(self) -> float | None:
        return _mean(row.record.even for row in self.rows if row.inside is not None)

    @property
    def off(self) -> float:
        """How far the heat keeps off the truth, of an even map 0, without any inside 1."""
        return 0.0 if not self.even or self.inside is None else max(1 - self.inside / self.even, 0)

    @property
    def places(self) -> bool:
        """Whether its maps tell places, and not times alone."""
        return any(row.border is not None for row in self.rows)

    @property
    def at_border(self) -> float:
        """How much more heat is at the borders than an even map has, of 1 at most."""
        return max((border_share(self.space) - EVEN_BORDER) / (1 - EVEN_BORDER), 0)

    @property
    def odd(self) -> float:
        """How odd a place its heat has: off the truth, at the borders, or elsewhere than others."""
        return max(self.off, self.at_border, self.elsewhere or 0)

    @property
    def rank(self) -> float:
        """By which clusters are sorted: set apart, and at an odd place."""
        return max(self.separation, 0) * self.odd

    def facts(self) -> dict[str, Any]:
        """Where its heat lies, beside what an even map has there; None: it tells no places."""
        known = {
            "border": border_share(self.space), "border_even": EVEN_BORDER,
            "centre": centre_share(self.space), "centre_even": EVEN_CENTRE,
            "inside": self.inside, "inside_even": self.even, "elsewhere": self.elsewhere,
        }  # fmt: skip
        return known if self.places else dict.fromkeys(known)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _apart(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Total variation of two maps of sum 1."""
    return float(np.abs(one - other).sum() / 2)


def clustered(roots: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Clusters of maps by spectral relevance analysis.

    Args:
        roots: (n, d), square roots of maps of sum 1: Euclid's distance is then Hellinger's.

    Returns:
        (n,) the cluster of each, from 0 on, and (n,) how far it is apart from the others: its
        silhouette in the space of the eigenvectors. One cluster, of silhouette 0, where the
        eigenvalues have their widest gap behind the first. At most `_MOST_AT_ONCE` make the graph,
        whose matrix grows with their square; all others are like the nearest of these.
    """
    from scipy.linalg import eigh
    from scipy.sparse.csgraph import laplacian
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_samples
    from sklearn.neighbors import NearestNeighbors, kneighbors_graph

    some = roots[:_MOST_AT_ONCE].astype(np.float32)
    near = kneighbors_graph(some, min(_NEIGHBOURS, len(some) - 1))
    graph = laplacian((near + near.T) / 2, normed=True)
    most = min(_MOST_CLUSTERS, len(some) // 5)
    values, vectors = eigh(graph.toarray(), subset_by_index=[0, most])
    found = 1 + int(np.diff(values).argmax())
    space = vectors[:, :found]
    space = space / np.maximum(np.linalg.norm(space, axis=1, keepdims=True), 1e-12)
    labels = KMeans(found, n_init=10, random_state=0).fit_predict(space).astype(np.int64)
    if len(np.unique(labels)) == 1:
        return np.zeros(len(roots), np.int64), np.zeros(len(roots))
    apart = silhouette_samples(space, labels)
    nearest = NearestNeighbors(n_neighbors=1).fit(some)
    alike = np.arange(len(roots))
    for first in range(len(some), len(roots), _MOST_AT_ONCE):  # a part at a time, as wide numbers
        part = roots[first : first + _MOST_AT_ONCE].astype(np.float32)
        alike[first : first + len(part)] = nearest.kneighbors(part, return_distance=False)[:, 0]
    return labels[alike], apart[alike]


@dataclass
class Findings:
    """What a survey has found.

    Attributes:
        records: all clips that are done, in their order.
        shards: index of a clip -> its shard, and its place there.
        methods: method -> title.
        groups: method -> its classes, that of most clips first.
        rows: method -> its clips.
    """

    records: list[ClipRecord]
    shards: dict[int, tuple[int, int]]
    methods: dict[str, str]
    rows: dict[str, list[Row]]
    groups: dict[str, list[Group]]

    @classmethod
    def of(cls, files: Mapping[int, Path]) -> Findings:
        """Of the shards that are there, by their numbers.

        Raises:
            UserError: one cannot be read.
        """
        found = cls([], {}, {}, {}, {})
        for number, path in files.items():
            about, records = read_shard(path, methods=())
            for place, record in enumerate(records):
                found.shards[record.index] = number, place
            for name, method in about["methods"].items():
                found.methods.setdefault(name, method["title"])
            found.records += map(_light, records)
        for name in [*found.methods]:  # one after the other: a data set's maps take memory
            members = _members(files, name, {r.index: r for r in found.records})
            found.rows[name] = [row for row, _ in members]
            found.groups[name] = _groups(name, members)
        return found

    @property
    def clusters(self) -> list[Group]:
        """Of all classes and methods, the most suspicious first."""
        every = (c for groups in self.groups.values() for group in groups for c in group.clusters)
        return sorted(every, key=lambda c: (-c.rank, -c.separation, c.column, c.number))

    @property
    def columns(self) -> set[str]:
        """What was explained."""
        return {row.column for rows in self.rows.values() for row in rows}

    @property
    def classes(self) -> bool:
        """Whether that are classes."""
        return any(row.predicted is not None for rows in self.rows.values() for row in rows)

    @property
    def several(self) -> bool:
        """Whether each of these is true of a clip or not by itself."""
        return any(record.label < 0 and record.truth is not None for record in self.records)

    def told(self) -> list[str]:
        """What is worth a line on the terminal."""
        lines = []
        for name, rows in self.rows.items():
            lacking = Counter(r.missing[name] for r in self.records if name in r.missing)
            doubts = Counter(row.doubt for row in rows if row.doubt)
            for what, reasons in (("clips have no map", lacking), ("maps are doubtful", doubts)):
                if reasons:
                    [(reason, _)] = reasons.most_common(1)
                    count = f"{reasons.total()} of {len(rows) + lacking.total()}"
                    lines.append(f"{name}: {count} {what}, most often for this reason: {reason}")
            if known := [row for row in rows if row.wrong_reason is not None]:
                wrong = sum(bool(row.wrong_reason) for row in known)
                right = sum(bool(row.right) for row in known)
                if right:
                    lines.append(
                        f"{name}: {wrong} of {right} right clips have less heat inside the truth "
                        "than an even map"
                    )
                elif not any(row.right for row in rows):
                    lines.append(f"{name}: no clip is predicted right")
        if self.clusters and (first := self.clusters[0]).rank > 0:
            lines.append(
                f"oddest cluster: {len(first.rows)} clips of {first.column} ({first.method}), see "
                "clusters.csv"
            )
        return lines

    def write(self, folder: Path) -> list[Path]:
        """Write the tables; their paths."""
        classes = [self._of_class(g) for groups in self.groups.values() for g in groups]
        clusters = [self._of_cluster(n, c) for n, c in enumerate(self.clusters, 1)]
        return [
            write_csv(folder / "clips.csv", list(self._of_clips()), ("clip",)),
            write_csv(folder / "classes.csv", classes, ("class", "method", "clips")),
            write_csv(folder / "clusters.csv", clusters, ("rank", "class", "method", "cluster")),
        ]

    def cluster_of(self, method: str) -> dict[int, int]:
        """Index of a clip -> number of its cluster."""
        return {
            row.record.index: cluster.number
            for group in self.groups.get(method, ())
            for cluster in group.clusters
            for row in cluster.rows
        }

    def _of_clips(self) -> Iterable[dict[str, Any]]:
        for name in self.methods:
            number = self.cluster_of(name)
            for row in self.rows[name]:
                record = row.record
                yield _rounded({
                    "clip": record.title, "index": record.index, "class": row.column,
                    "true_class": row.true, "predicted": row.predicted,
                    "probability": row.probability, "right": row.right,
                    "method": name, "border": row.border,
                    "centre": row.centre, "inside": row.inside,
                    "inside_even": record.even, "wrong_reason": row.wrong_reason,
                    "cluster": number.get(record.index), "doubt": row.doubt,
                    "shard": self.shards[record.index][0], "path": record.path,
                })  # fmt: skip
        for record in self.records:
            failed = {"": record.error} if record.error else record.missing
            for name, reason in failed.items():
                yield {"clip": record.title, "index": record.index, "method": name,
                       "shard": self.shards[record.index][0], "path": record.path,
                       "error": reason}  # fmt: skip

    def _of_class(self, group: Group) -> dict[str, Any]:
        known = [row.right for row in group.rows if row.right is not None]
        wrong = [row.wrong_reason for row in group.rows if row.wrong_reason is not None]
        return _rounded({
            "class": group.column, "method": group.method, "clips": len(group.rows),
            "right": sum(known) if known else None,
            "right_for_the_wrong_reason": sum(wrong) if wrong else None, **group.facts(),
            "doubtful": sum(bool(row.doubt) for row in group.rows),
            "clusters": len(group.clusters) or None, "note": group.note,
        })  # fmt: skip

    def _of_cluster(self, rank: int, cluster: Group) -> dict[str, Any]:
        typical = ", ".join(row.record.title for row in cluster.typical)
        return _rounded({
            "rank": rank, "class": cluster.column, "method": cluster.method,
            "cluster": cluster.number, "clips": len(cluster.rows), "suspicion": cluster.rank,
            "separation": cluster.separation, **cluster.facts(), "typical": typical,
        })  # fmt: skip


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table: nothing for what nobody knows."""
    return {
        key: "" if value is None else round(value, 4) if isinstance(value, float) else value
        for key, value in row.items()
    }


def _light(record: ClipRecord) -> ClipRecord:
    """A record without what takes memory."""
    return replace(record, outputs=None, times=(), valid=())


_Member = tuple[Row, Seen]


def _members(
    files: Mapping[int, Path], method: str, records: Mapping[int, ClipRecord]
) -> list[tuple[Row, Seen | None]]:
    """The clips that a method has maps of, and these."""
    members: list[tuple[Row, Seen | None]] = []
    for path in files.values():
        about, of_shard = read_shard(path, methods=(method,))
        columns = Columns(
            tuple(about["names"]), tuple(Head(n, kind or None) for n, kind in about["heads"])
        )
        for record in of_shard:
            if one := record.maps.get(method):
                seen = Seen.of(one, record.size[0])
                members.append((_row(record, one, seen, columns, records[record.index]), seen))
    return members


def _row(
    record: ClipRecord, one: MapRecord, seen: Seen | None, columns: Columns, light: ClipRecord
) -> Row:
    outputs = torch.from_numpy(np.asarray(record.outputs, np.float32))[None]
    known = columns.classes(outputs)
    first = 0
    for head in columns.heads:  # the one that was asked about
        if record.target < first + head.size:
            break
        first += head.size
    own = {k: p for k, p in known.items() if first <= k < first + head.size}
    best = max(own, key=own.__getitem__) if own else None
    right = true = None
    if head.probability == "sigmoid" and record.truth is not None:
        right = (own[record.target] >= 0.5) == record.truth
    elif head.probability == "softmax" and record.label >= 0 and len(columns.heads) == 1:
        right, true = best == record.label, columns.name(record.label)
    space = seen.space.astype(np.float32) if seen is not None and one.kept.places else None
    return Row(
        light,
        columns.name(record.target),
        None if best is None else columns.name(best),
        own.get(record.target),
        right,
        one.inside,
        None if space is None else border_share(space),
        None if space is None else centre_share(space),
        one.doubt,
        true,
    )


def _groups(method: str, clips: Sequence[tuple[Row, Seen | None]]) -> list[Group]:
    """The classes by a method, each with its clusters."""
    classes: dict[str, list[_Member]] = {}
    for row, seen in clips:
        if seen is not None:
            classes.setdefault(row.column, []).append((row, seen))
    groups = []
    for column, own in sorted(classes.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        group = Group.of(method, column, own)
        if len(own) < FEWEST:
            group.note = f"not clustered: fewer than {FEWEST} clips"
        else:
            labels, apart = clustered(np.stack([seen.roots.ravel() for _, seen in own]))
            found = np.unique(labels)
            if len(found) == 1:
                group.note = "one cluster: its maps are alike"
            for number in found if len(found) > 1 else ():
                at = np.flatnonzero(labels == number)
                part = Group.of(method, column, [own[n] for n in at], number=int(number) + 1)
                part.separation = float(apart[at].mean())
                group.clusters.append(part)
        groups.append(group)
    total = sum((group.space * len(group.rows) for group in groups), np.zeros(SPACE))
    count = sum(len(group.rows) for group in groups)
    for part in (p for group in groups for p in (group, *group.clusters)):
        if others := count - len(part.rows):
            part.elsewhere = _apart(part.space, (total - part.space * len(part.rows)) / others)
    return groups
