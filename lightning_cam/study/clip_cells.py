"""The cells of one clip: each method's map is made once and kept, and measured as it is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_cam.data.core.loading import collate
from lightning_cam.errors import UserError
from lightning_cam.explaining.kept_map import KeptMap
from lightning_cam.progress import progress
from lightning_cam.study.design import Design
from lightning_cam.study.journal import CellKey, StudyRow, together
from lightning_cam.study.kept_maps import map_path
from lightning_cam.study.map_rows import error_text, make_map, measure_map, one_line
from lightning_cam.study.references import Reference
from lightning_cam.study.seen_clip import SeenClip, class_facts, identity, see_clip
from lightning_cam.study.work_items import Missing, WorkItem, missing_work, references_of


def clip_rows(
    design: Design,
    unit: WorkItem,
    missing: Missing,
    done: Mapping[CellKey, StudyRow],
    folder: Path,
) -> Iterator[StudyRow]:
    """The rows of one clip, as they are finished.

    Args:
        design: the study.
        unit: the clip.
        missing: what its cells lack.
        done: rows that there are; what they have a kept map of is measured from that.
        folder: of the study.

    Raises:
        WriteError: a map cannot be kept.
    """
    row = identity(unit)
    try:
        batch = collate([unit.network.dataset[unit.clip]])
        reason = batch["error"][0]
    except UserError as error:
        reason = str(error)
    if reason:
        yield {**row, "error": one_line(reason)}
        return
    try:
        seen = see_clip(design, unit, batch)
    except Exception as error:
        yield from ({**row, "cell": cell, "error": error_text(error)} for cell in missing)
        return
    row |= class_facts(seen)
    known = dict(done)
    tried: set[str] = set()
    with progress(row["clip_id"], len(missing)) as advance:
        while missing:
            for key, names in missing.items():
                path = map_path(folder, unit.key(key))
                found = _cell(design, unit, seen, (key, names), known, path)
                new, before = {**row, "cell": key, **found}, known.get(unit.key(key))
                known[unit.key(key)] = new if before is None else together(before, new)
                yield new
                advance(key in design.cells)
            tried |= missing.keys()
            left = missing_work(unit, known, design)  # by now the grain of the maps is known
            missing = {key: names for key, names in left.items() if key not in tried}


def _cell(
    design: Design,
    unit: WorkItem,
    seen: SeenClip,
    asked: tuple[str, tuple[str, ...]],
    known: Mapping[CellKey, StudyRow],
    path: Path,
) -> StudyRow:
    """What a cell's row says beside its clip: from the kept map, if there is one, else anew."""
    key, names = asked
    if key not in design.cells:
        return _reference(design, references_of(unit, known, design)[key], unit.clip, seen)
    before, method = known.get(unit.key(key)), design.cells[key].method
    kept = None if before is None or before["error"] else KeptMap.read(path)
    found: StudyRow = {"error": ""}
    if kept is None:
        names = tuple(design.measures)  # the map may be another one
        kept, found = make_map(design, method, seen)
        if kept is not None:
            kept.write(path)
    return found if kept is None else found | measure_map(design, method, seen, kept, names)


def _reference(design: Design, reference: Reference, index: int, seen: SeenClip) -> StudyRow:
    """What measures say of a map that is no method's; it is quickly made again, and not kept."""
    method = reference.method(index, seen.model)
    if method is None:
        nothing: dict[str, Any] = {"value": None, "numbers": {}, "error": ""}
        return {
            "error": "",
            "measured": {design.digests[name]: nothing for name in design.compared},
        }
    kept, found = make_map(design, method, seen)
    return (
        found if kept is None else found | measure_map(design, method, seen, kept, design.compared)
    )
