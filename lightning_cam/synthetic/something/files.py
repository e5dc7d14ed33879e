"""Writing the clips into a folder, in the layout of Something-Something."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lightning_cam.data.core.arrays import Array
from lightning_cam.data.core.ground_truth import Truth
from lightning_cam.files import write_text
from lightning_cam.synthetic.images import write_frames, write_images
from lightning_cam.synthetic.manifest import (
    check_ranges,
    chosen_names,
    ends_and_middle,
    manifest_of,
)
from lightning_cam.synthetic.rendering import render_once
from lightning_cam.synthetic.something.clips import (
    CLASSES,
    MAX_CLIPS,
    InteractionKey,
    draw_interaction,
    forwards,
)
from lightning_cam.synthetic.something.keyframes import FPS, ClipPlan, length

REVISION = 2
WORKERS = "ground_truth/workers.csv"
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 90)
_VP9 = {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b:v": "0"}
_WEBM = {"fflags": "+bitexact"}  # without it the muxer draws random identifiers


def render_something(
    root: str | Path,
    *,
    clips: int = 60,
    workers: int = 24,
    version: int = 1,
    templates: Sequence[str] | None = None,
    seed: int = 0,
    height: int = 100,
    processes: int | None = None,
) -> Path:
    """Render the data set into `root` unless it is there already.

    Version 1 writes `20bn-something-something-v1/<id>/00001.jpg ...` (12 fps) and
    `something-something-v1-{labels,train,validation,test}.csv`; version 2 writes
    `20bn-something-something-v2/<id>.webm` and `something-something-v2-*.json`. Both write
    `ground_truth/<id>.npz` and `ground_truth/workers.csv`. The official training part has 19 of
    24 workers, the validation part the others; the test part is one clip per class without label.
    Each clip depends on (seed, class, number) only, so a subset is rendered as in the whole set.

    Args:
        root: folder of the data set.
        clips: labelled clips per class.
        workers: whose hands and rooms are seen; they take turns, in the same order in all classes.
        version: 1 or 2, of the layout.
        templates: some of `CLASSES`; None for all.
        seed: of all randomness.
        height: of the frames in pixels.
        processes: worker processes; None for one per CPU.

    Raises:
        DataError: an argument is out of its range, or `root` cannot be used.
    """
    names = chosen_names("template", templates, CLASSES)
    check_ranges(
        version=(version, range(1, 3)),
        clips=(clips, range(1, MAX_CLIPS)),
        workers=(workers, range(2, 1001)),
        height=(height, range(48, 481, 2)),
    )
    keys = _keys(names, clips, workers)
    settings = {
        "layout": version,
        "seed": seed,
        "height": height,
        "clips": clips,
        "workers": workers,
        "templates": names,
        "fps": FPS,
    }
    drawn = {
        key.clip_id(seed): [draw_interaction(key, seed, height)[0]] for key in ends_and_middle(keys)
    }
    manifest = manifest_of("synthetic_something", REVISION, settings, drawn)
    write = partial(_write, manifest=manifest)
    return render_once(root, manifest, [None, *keys], write, _files, processes=processes)


def _keys(names: Sequence[str], clips: int, workers: int) -> list[InteractionKey]:
    """All clips: number by number, those of the test part last."""
    order = _turns(workers)
    return [
        InteractionKey(CLASSES.index(name), number, order[(number - 1) % workers])
        for number in range(1, clips + 2)
        for name in names
    ]


def _turns(workers: int) -> list[int]:
    """Workers 1.. so that those of the validation part, the last, come in at regular intervals."""
    train = _train_workers(workers)
    return sorted(
        range(1, workers + 1),
        key=lambda w: (w - 0.5) / train if w <= train else (w - train - 0.5) / (workers - train),
    )


def _train_workers(workers: int) -> int:
    return min(workers - 1, round(workers * 19 / 24))


def _clip(version: int, clip_id: str) -> Path:
    return Path(f"20bn-something-something-v{version}", clip_id)


def _list(version: int, part: str) -> str:
    return f"something-something-v{version}-{part}.{'csv' if version == 1 else 'json'}"


def _write_lists(root: Path, manifest: dict[str, Any]) -> None:
    """Write the files that name all clips and their labels."""
    version, seed, names = manifest["layout"], manifest["seed"], manifest["templates"]
    keys = _keys(names, manifest["clips"], manifest["workers"])
    keys.sort(key=lambda key: int(key.clip_id(seed)))
    train = _train_workers(manifest["workers"])
    labelled = [key for key in keys if key.number <= manifest["clips"]]
    parts = {
        "train": [key for key in labelled if key.worker <= train],
        "validation": [key for key in labelled if key.worker > train],
    }
    test = [key.clip_id(seed) for key in keys if key.number > manifest["clips"]]
    rows: dict[str, Any] = {}
    if version == 1:
        rows["labels"] = names
        rows["test"] = test
        for part, members in parts.items():
            rows[part] = [f"{key.clip_id(seed)};{CLASSES[key.label]}" for key in members]
        texts = {part: "".join(f"{row}\n" for row in lines) for part, lines in rows.items()}
    else:
        rows["labels"] = {name: str(index) for index, name in enumerate(sorted(names))}
        rows["test"] = [{"id": clip_id} for clip_id in test]
        for part, members in parts.items():
            rows[part] = [{"id": key.clip_id(seed)} | _caption(key, seed) for key in members]
        texts = {part: json.dumps(content, indent=0) for part, content in rows.items()}
    for part, text in texts.items():
        write_text(root / _list(version, part), text)
    workers = "".join(f"{key.clip_id(seed)};{key.worker}\n" for key in keys)
    write_text(root / WORKERS, workers)


def _caption(key: InteractionKey, seed: int) -> dict[str, Any]:
    """Label, template and placeholders as version 2 has them."""
    template = CLASSES[key.label].replace("something", "[something]")
    names = forwards(key.rng(seed), key.label).names[: template.count("[something]")]
    label = template[0].lower() + template[1:]
    for name in names:
        label = label.replace("[something]", name, 1)
    return {"label": label, "template": template, "placeholders": list(names)}


def _files(manifest: dict[str, Any]) -> Iterator[str]:
    """Relative paths of all files of a rendering."""
    version, seed = manifest["layout"], manifest["seed"]
    yield WORKERS
    for part in ("labels", "train", "validation", "test"):
        yield _list(version, part)
    for key in _keys(manifest["templates"], manifest["clips"], manifest["workers"]):
        clip_id = key.clip_id(seed)
        yield f"ground_truth/{clip_id}.npz"
        clip = _clip(version, clip_id).as_posix()
        if version == 2:
            yield f"{clip}.webm"
        else:
            yield from (f"{clip}/{i + 1:05d}.jpg" for i in range(length(key.rng(seed))))


def _write(root: Path, key: InteractionKey | None, *, manifest: dict[str, Any]) -> None:
    """Render a clip and its ground truth; or, for None, write the lists."""
    if key is None:
        _write_lists(root, manifest)
        return
    version, seed = manifest["layout"], manifest["seed"]
    clip_id = key.clip_id(seed)
    frames, parts, scene = draw_interaction(key, seed, manifest["height"])
    clip = root / _clip(version, clip_id)
    if version == 1:
        write_images(clip, frames, "{:05d}.jpg", first=1, options=_JPEG)
    else:
        write_webm(clip.with_name(f"{clip_id}.webm"), frames, scene)
    mask = parts["hand"] | parts["object"]
    truth = Truth(mask, scene.onset, scene.offset, scene.state, parts)
    truth.write(root / "ground_truth" / f"{clip_id}.npz")


def write_webm(path: Path, frames: Array, scene: ClipPlan) -> None:
    """Write the video of a clip, as version 2 has them."""
    cuts = (1 + np.flatnonzero(np.diff(scene.shown))).tolist()
    write_frames(
        path, frames, FPS, "libvpx-vp9", "webm", cuts=cuts, codec_options=_VP9,
        container_options=_WEBM,
    )  # fmt: skip
