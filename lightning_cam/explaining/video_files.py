"""The files of a whole video: its npz, which NumPy reads, and rows of the tables.

K columns, n steps of the network's rate, W windows, and for each map, whose caption is
percent-encoded in keys (a contrast has three):

| key | holds |
|---|---|
| `format` | `FORMAT`; another number behind it is another format |
| `time_s`, `frame_idx` | (n,) of the steps: seconds and frames of the video |
| `explained` | (n,) whether a window holds the step |
| `heatmap/CAPTION` | (n, h, w) float32, blended, in the cells of the network's crop |
| `share/CAPTION` | (n,) each step's share of the video's heat |
| `attention` | (n,) mean attention weight of the step within its windows, where there is attention |
| `window_first`, `window_steps` | (W,) the first step of each window, and how many it has |
| `target`, `outputs`, `probabilities` | of each window: (W,) explained column, (W, K), (W, K) |
| `doubt/CAPTION` | (W,) why that window's map is not to be trusted, "" where nothing speaks against it |
| `names`, `classes` | (K,) names of the columns; those that the track is about |
| `track_name`, `track_s`, `track_p` | the likeliest class over time: names, (S, 2) start and end, (S,) |
| `extent`, `duration_s`, `shortfall`, `path` | seconds in words, of the video, what is missing, the file |
| `settings/METHOD` | class and settings of each method (JSON) |
"""  # noqa: E501

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np

from lightning_cam.attribution import Contrast
from lightning_cam.explaining.clip_arrays import settings_of_method
from lightning_cam.explaining.score_tables import one_row
from lightning_cam.explaining.video_explanation import ExplainedWindow, VideoExplanation
from lightning_cam.explaining.video_maps import StepMaps
from lightning_cam.files import whole_file
from lightning_cam.viz.layout import percent

FORMAT = "lightning_cam video 1"
TRACK_COLUMNS = ("clip_id", "path", "class", "start_s", "end_s", "p")
_AT_ONCE = 256  # maps that are read at once


def write_video_arrays(path: Path, e: VideoExplanation) -> Path:
    """Write the npz of a video; maps go from file to file, few at a time."""
    with whole_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in _small_arrays(e).items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, np.asanyarray(value), allow_pickle=False)
        for caption, each in e.maps.items():
            name = f"heatmap/{quote(caption, safe='')}.npy"
            with archive.open(name, "w", force_zip64=True) as entry:
                _write_maps(entry, each.maps, len(e.times))  # type: ignore[arg-type]
    return path


def _write_maps(entry: BinaryIO, maps: StepMaps, count: int) -> None:
    head = {"descr": "<f4", "fortran_order": False, "shape": (count, *maps.grid)}
    np.lib.format.write_array_header_1_0(entry, head)
    for first in range(0, count, _AT_ONCE):
        entry.write(maps.read(first, min(first + _AT_ONCE, count)).astype("<f4").tobytes())


def _small_arrays(e: VideoExplanation) -> dict[str, Any]:
    track = e.track
    arrays: dict[str, Any] = {
        "format": FORMAT,
        "time_s": e.times,
        "frame_idx": e.steps,
        "explained": e.explained,
        "window_first": np.array([w.first for w in e.windows]),
        "window_steps": np.array([w.steps for w in e.windows]),
        "target": np.array([w.target for w in e.windows]),
        "outputs": np.stack([w.outputs for w in e.windows]),
        "probabilities": np.stack([w.probabilities for w in e.windows]),
        "names": np.array(e.names, dtype=str),
        "classes": np.array(e.classes, dtype=np.int64),
        "track_name": np.array([each.name for each in track], dtype=str),
        "track_s": np.array([(s.start_s, s.end_s) for s in track]).reshape(-1, 2),
        "track_p": np.array([each.probability for each in track]),
        "extent": e.extent,
        "duration_s": e.video.info.duration,
        "shortfall": e.shortfall,
        "path": str(e.path),
    }
    if e.attention is not None:
        arrays["attention"] = e.attention
    for caption, each in e.maps.items():
        key = quote(caption, safe="")
        arrays[f"share/{key}"] = each.energy
        arrays[f"doubt/{key}"] = np.array([w.doubts.get(caption, "") for w in e.windows])
    for name, one in e.first.items():
        arrays[f"settings/{quote(name, safe='')}"] = json.dumps(settings_of_method(one.method))
    return arrays


def window_rows(e: VideoExplanation, title: str) -> Iterator[dict[str, Any]]:
    """A row of scores.csv for each window and method, of a contrast one for each class."""
    for window in e.windows:
        best = max(e.classes, key=lambda k: window.probabilities[k], default=None)
        for name, titles, columns in _asked(e, window):
            for caption, column in zip(titles, columns, strict=False):
                yield one_row(
                    ("scores.csv", _window_row(e, window, title, best, name, caption, column)),
                    (
                        "the network",
                        {} if e.classes else {"value": f"{window.outputs[column]:.6g}"},
                    ),
                    (
                        f"method {name!r}",
                        {w: f"{n:.4g}" for w, n in window.numbers.get(name, {}).items()},
                    ),
                )


def _asked(
    e: VideoExplanation, window: ExplainedWindow
) -> Iterator[tuple[str, list[str], list[int]]]:
    """Method, captions of its maps, and the column that each is for (of a contrast A and B)."""
    for name, one in e.first.items():
        titles = [caption for caption, each in e.maps.items() if each.method == name]
        against = [int(one.against.target[0])] if isinstance(one, Contrast) else []
        yield name, titles, [window.target, *against]


def _window_row(
    e: VideoExplanation,
    window: ExplainedWindow,
    title: str,
    best: int | None,
    method: str,
    caption: str,
    column: int,
) -> dict[str, Any]:
    chances, peak = window.probabilities, window.peaks.get(caption)
    last = window.first + window.steps - 1
    return {
        "clip_id": title,
        "path": str(e.path),
        "label": "",
        "prediction": "" if best is None else e.names[best],
        "p_prediction": "" if best is None else f"{chances[best]:.6f}",
        "target": e.names[column],
        "p_target": f"{chances[column]:.6f}" if column in e.classes else "",
        "method": method,
        "peak_frame": "" if peak is None else int(e.steps[peak]),
        "peak_time_s": "" if peak is None else f"{e.times[peak]:.3f}",
        "start_s": f"{e.times[window.first]:.3f}",
        "end_s": f"{e.times[last]:.3f}",
        "duration_s": f"{e.video.info.duration:.3f}",
    }


def step_rows(e: VideoExplanation, title: str) -> Iterator[dict[str, Any]]:
    """A row of relevance.csv for each method and step, of a contrast one for each class."""
    nearest = e.window_at()
    for n, (name, titles, _) in enumerate(_asked(e, e.windows[0])):
        for k, caption in enumerate(titles[:2]):
            shares = e.maps[caption].energy
            for step in np.flatnonzero(e.explained).tolist():
                window = e.windows[int(nearest[step])]
                column = [*_asked(e, window)][n][2][k]
                yield {
                    "clip_id": title,
                    "path": str(e.path),
                    "method": name,
                    "target": e.names[column],
                    "frame": step,
                    "frame_idx": int(e.steps[step]),
                    "time_s": f"{e.times[step]:.3f}",
                    "share": f"{shares[step]:.6g}" if shares.any() else "",
                    "attention": "" if e.attention is None else f"{e.attention[step]:.6f}",
                }


def track_rows(e: VideoExplanation, title: str) -> list[Mapping[str, Any]]:
    """Rows of track.csv: the likeliest class over time."""
    return [
        {
            "clip_id": title,
            "path": str(e.path),
            "class": each.name,
            "start_s": f"{each.start_s:.3f}",
            "end_s": f"{each.end_s:.3f}",
            "p": f"{each.probability:.6f}",
        }
        for each in e.track
    ]


def doubtful_windows(e: VideoExplanation) -> dict[str, str]:
    """What the page says of windows whose maps are not to be trusted: caption -> how many."""
    found = {}
    for caption in e.maps:
        count, reason = e.doubtful(caption)
        if count:
            share = percent(count / len(e.windows))
            found[caption] = f"{count} of {len(e.windows)} windows ({share}): {reason}"
    return found
