"""The page of a survey: it opens from the disk, and stays quick with ten thousand clips.

The table is data that a script shows 50 rows of; pictures are in a file for each shard, which the
browser loads when one of them comes into view.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_cam.files import write_text
from lightning_cam.survey.batches import frames_shown
from lightning_cam.survey.findings import SPACE, Array, Findings, Group
from lightning_cam.viz import write_page
from lightning_cam.viz.overlay import lut

_BODY = """
<p class="which"><label>Method <select id="method"></select></label></p>
<section><h2>Clusters of maps, the oddest first</h2>
<p class="note">A cluster is odd that lies apart from the other maps of its kind, and whose heat is
where one does not expect it: off the ground truth, at the borders, or elsewhere than that of other
clips. Such is a watermark that a network has learned.</p>
<div id="clusters" class="groups"></div><button type="button" class="more" data-of="clusters">more</button></section>
<section><h2 id="kinds">Classes</h2>
<p class="note">Mean maps over all frames, and the heat over time from the first frame to the last. Beside each share
stands what an even map has there.</p>
<div id="classes" class="groups"></div><button type="button" class="more" data-of="classes">more</button></section>
<section><h2 id="clips">Clips</h2>
<form class="filters"><input type="search" id="search" placeholder="name of a clip" aria-label="name of a clip">
<select id="class" aria-label="class"></select>
<select id="cluster" aria-label="cluster"></select>
<select id="verdict" aria-label="right or wrong"></select>
<output id="found" role="status"></output>
<span class="turn"><button type="button" id="back">back</button><button type="button" id="next">next</button></span></form>
<table class="numbers survey"><thead></thead><tbody></tbody></table>
<noscript>The table needs JavaScript; clips.csv has it all.</noscript></section>
"""  # noqa: E501


def write_media(folder: Path, shard: int, pictures: Sequence[Sequence[bytes]]) -> Path:
    """Write the pictures of each of a shard's clips as a script that hands them to the page.

    Raises:
        WriteError: they cannot be written.
    """
    texts = json.dumps([[base64.b64encode(image).decode() for image in of] for of in pictures])
    return write_text(folder / "media" / f"shard_{shard:04d}.js", f"survey({shard}, {texts});\n")


def read_media(folder: Path, shard: int) -> list[tuple[bytes, ...]]:
    """The pictures that `write_media` wrote; none where they are gone or damaged."""
    try:
        text = (folder / "media" / f"shard_{shard:04d}.js").read_text(encoding="utf-8")
        texts = json.loads(text[text.index("[") : text.rindex("]") + 1])
        return [tuple(base64.b64decode(each) for each in of_clip) for of_clip in texts]
    except (OSError, TypeError, ValueError):
        return []


def write_survey_page(
    folder: Path, found: Findings, summary: Mapping[str, str], downloads: Sequence[Path]
) -> Path:
    """Write `folder/index.html`.

    Args:
        folder: of the survey.
        found: what it shows.
        summary: what was done, name -> text.
        downloads: files inside the folder.

    Returns:
        The page's path.
    """
    data = json.dumps(page_data(found), separators=(",", ":")).replace("<", "\\u003c")
    failed = sum(bool(record.error) for record in found.records)
    counts = f"{len(found.records)} clips" + (f" · {failed} not explained" if failed else "")
    rows = max(found.rows.values(), key=len)
    judged = [row.right for row in rows if row.right is not None]
    if judged:
        counts += f" · {sum(judged)} of {len(judged)} predicted right"
    return write_page(
        folder,
        f'{_BODY}<script type="application/json" id="data">{data}</script>',
        title="A data set explained",
        counts=counts,
        summary=summary,
        downloads=downloads,
        kind="survey",
    )


def page_data(found: Findings) -> dict[str, Any]:
    """What the page's script shows: clips, and for each method their numbers, classes, clusters."""
    places = {record.index: n for n, record in enumerate(found.records)}
    every = [row for rows in found.rows.values() for row in rows]
    names = sorted({n for row in every for n in (row.column, row.true, row.predicted) if n})
    others = any(row.true not in (None, row.column) for row in every)
    number: dict[str | None, int] = {name: n for n, name in enumerate(names)}
    clips: list[list[Any]] = [
        [record.title, *found.shards[record.index], record.error] for record in found.records
    ]
    sizes = [record.size for record in found.records if record.size[0]]
    frames, height, width = sizes[0] if sizes else (1, 1, 1)
    methods = []
    for at_picture, (name, title) in enumerate(found.methods.items(), 1):
        clusters = found.cluster_of(name)
        rows: list[Any] = [None] * len(clips)
        for row in found.rows[name]:
            at = row.record.index
            rows[places[at]] = [
                number[row.column], number.get(row.predicted, -1), _short(row.probability),
                _flag(row.right), _flag(row.wrong_reason), clusters.get(at, 0), _short(row.inside),
                _short(row.record.even), _short(row.border),
                row.doubt, number.get(row.true, -1) if others else -1,
            ]  # fmt: skip
        groups = found.groups.get(name, [])
        methods.append({
            "title": title, "picture": at_picture, "rows": rows,
            "missing": {
                n: r.missing[name] for n, r in enumerate(found.records) if name in r.missing
            },
            "classes": [_group(group, places, number) for group in groups],
            "clusters": [_group(c, places, number) for c in found.clusters if c.method == name],
        })  # fmt: skip
    aspect = round(frames_shown(frames, height, width) * width / height, 4)
    return {"clips": clips, "names": names, "methods": methods, "aspect": aspect,
            "classes": found.classes, "others": others, "several": found.several,
            "side": SPACE[0], "colours": _bytes(lut())}  # fmt: skip


def _group(
    group: Group, places: Mapping[int, int], number: Mapping[str | None, int]
) -> dict[str, Any]:
    return {
        "class": number[group.column], "cluster": group.number, "clips": len(group.rows),
        "map": _levels(group.space) if group.places else "",
        "time": [round(float(x), 4) for x in group.time],
        "odd": round(group.rank, 3), "apart": round(group.separation, 3), "note": group.note,
        **{k: _short(v) for k, v in group.facts().items()},
        "typical": [places[row.record.index] for row in group.typical],
    }  # fmt: skip


def _levels(space: Array) -> str:
    """A mean map as bytes, which the page's script colours: an image of it is ten times as long."""
    return _bytes((255 * space / max(float(space.max()), 1e-12)).round())


def _bytes(levels: NDArray[Any]) -> str:
    return base64.b64encode(levels.astype(np.uint8).tobytes()).decode()


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _flag(value: bool | None) -> int:
    return -1 if value is None else int(value)
