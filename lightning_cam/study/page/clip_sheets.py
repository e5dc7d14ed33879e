"""Clips of a study as all methods see them: one video each, made from the kept maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_cam.data.core.loading import collate
from lightning_cam.errors import DataError, UserError, WriteError
from lightning_cam.explaining.clip_drawing import clip_frames
from lightning_cam.explaining.clip_explanations import clip_array
from lightning_cam.explaining.clip_files import file_name
from lightning_cam.explaining.clip_sources import spread_evenly
from lightning_cam.explaining.kept_map import KeptMap
from lightning_cam.study.journal import StudyRow
from lightning_cam.study.kept_maps import map_path
from lightning_cam.study.map_rows import error_text
from lightning_cam.study.networks import Network
from lightning_cam.study.results import Group, Results
from lightning_cam.viz import frame_shares, save_png, write_video
from lightning_cam.viz.drawing import resize
from lightning_cam.viz.method_sheet import MapTile, SheetLayout, draw_methods

FPS = 8


@dataclass(frozen=True)
class ClipSheet:
    """One clip of the page.

    Attributes:
        title: the clip's name.
        video: of all methods.
        poster: its middle frame.
        frames: how many.
        layout: of the tiles: the clip, then the methods.
        names: method -> title, in the order of the tiles.
        shares: method -> share of the heat in each frame `(T,)`; None of a map that says nothing.
        lost: methods whose maps are no longer there.
        action: `(T,)` bool, frames where the ground truth is; None where nobody knows.
        rows: method -> its row.
    """

    title: str
    video: Path
    poster: Path
    frames: int
    layout: SheetLayout
    names: Mapping[str, str]
    shares: Mapping[str, np.ndarray | None]
    lost: frozenset[str]
    action: np.ndarray | None
    rows: Mapping[str, StudyRow]


def clip_sheets(
    folder: Path, results: Results, group: Group, networks: Sequence[Network]
) -> tuple[list[ClipSheet], dict[str, str]]:
    """Write the videos of a group's clips, as many as the study shows, spread evenly.

    Returns:
        The clips; and those that are missing -> why.

    Raises:
        WriteError: a video cannot be written.
    """
    network = next((n for n in networks if n.key == (group.network, group.trained)), None)
    rows: dict[int, dict[str, StudyRow]] = {}
    for key in results.design.methods:
        for row in results.worked(group, key):
            rows.setdefault(row["index"], {})[key] = row
    if network is None or not results.design.shown:
        return [], {}
    found, missing = [], {}
    for index in spread_evenly(sorted(rows), results.design.shown):
        keys = [key for key in results.design.methods if key in rows[index]]
        place = (group.network, group.trained, group.input, index)
        maps = {key: KeptMap.read(map_path(folder, (*place, key))) for key in keys}
        title = rows[index][keys[0]]["clip_id"]
        if not any(maps.values()):
            missing[title] = "its maps are no longer there"
            continue
        words = "_".join(filter(None, (group.network, group.trained, group.input)))
        stem = folder / "media" / f"{file_name(f'{words}_{index}_{title}')}"
        try:
            batch = collate([network.dataset[index]])
            if reason := batch["error"][0]:
                raise DataError(str(reason))
            found.append(_write(stem, results, network, batch, maps, rows[index]))
        except WriteError:
            raise
        except UserError as error:
            missing[title] = str(error)
        except Exception as error:  # the numbers are worth a page without this clip
            missing[title] = error_text(error)
    return found, missing


def _write(
    stem: Path,
    results: Results,
    network: Network,
    batch: Mapping[str, Any],
    maps: Mapping[str, KeptMap | None],
    rows: Mapping[str, StudyRow],
) -> ClipSheet:
    frames = clip_frames(network.data, batch["video"])
    kept, mask = clip_array(batch, "valid"), clip_array(batch, "mask")
    kept = np.ones(len(frames), bool) if kept is None else kept.astype(bool)
    tiles: dict[str, MapTile | None] = {}
    for key, each in maps.items():
        heat = None if each is None else each.evidence(frames.shape[:3])
        grainy = results.design.cells[key].method.grainy
        tiles[key] = None if heat is None else MapTile(heat, grainy)
    truth = None
    if mask is not None and mask.any():
        truth = np.stack([resize(m.astype(np.float32), *frames.shape[1:3]) > 0.5 for m in mask])
    sheet = draw_methods(frames, list(tiles.values()), kept=kept, truth=truth)
    first = next(iter(rows.values()))
    action = clip_array(batch, "action")
    return ClipSheet(
        title=first["clip_id"],
        video=write_video(stem.with_name(f"{stem.name}.mp4"), sheet, FPS),
        poster=save_png(stem.with_name(f"{stem.name}.png"), sheet[len(sheet) // 2]),
        frames=len(frames),
        layout=SheetLayout.of(1 + len(tiles), *frames.shape[1:3]),
        names={key: results.design.cells[key].title for key in tiles},
        shares={
            key: None if t is None else frame_shares(t.heat, kept, signed=t.signed)
            for key, t in tiles.items()
        },
        lost=frozenset(key for key, tile in tiles.items() if tile is None),
        action=action.astype(bool) if truth is not None and action is not None else None,
        rows=rows,
    )
