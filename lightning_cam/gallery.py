"""One explained clip: how it is drawn, and the files it becomes.

The training callback and `explain.py` show the same things, so both come here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cam.attribution import Attribution, Explainable, Explanation, explain
from lightning_cam.attribution.ops import resize_heatmap
from lightning_cam.viz import ClipPicture, draw_sheet, draw_video, save_png, write_video

OnError = Callable[[str, Exception], None]


@dataclass(frozen=True)
class ClipFiles:
    """The files of one explained clip."""

    video: Path
    sheet: Path
    arrays: Path


def explain_clip(
    model: Explainable,
    methods: Mapping[str, Attribution],
    clip: Tensor,
    target: int | str | None = None,
    on_error: OnError | None = None,
) -> dict[str, Explanation]:
    """Explain one clip `(1, C, T, H, W)` with several methods: method name -> explanation.

    Args:
        model: bound to this clip's batch (`task.explainable(batch)`).
        methods: name -> method.
        clip: in model space.
        target: as in `explain`.
        on_error: gets the name of a method that failed and its exception, and the method is left
            out; without it the exception is raised.
    """
    explanations = {}
    for name, method in methods.items():
        try:
            explanations[name] = explain(model, method, clip, target)
        except Exception as error:
            if on_error is None:
                raise
            on_error(name, error)
    return explanations


def draw_clip(
    model: Explainable,
    explanations: Mapping[str, Explanation],
    frames: np.ndarray,
    batch: Mapping[str, Any],
    title: str,
) -> ClipPicture:
    """What is known about one clip, ready to be drawn.

    Args:
        model: names the columns.
        explanations: of this clip alone (B = 1), at least one.
        frames: `(T, H, W, 3)` uint8 RGB, of any size: heatmaps are resized to it.
        batch: the clip's batch (B = 1): "label", "valid", "time_s" where it has them.
        title: the clip's name.
    """
    first = next(iter(explanations.values()))
    label = int(batch["label"][0]) if "label" in batch else -1
    attention = next(iter(first.attention.values()), None)
    captions = [e.caption for e in explanations.values()]
    named = {  # two settings of one method may read the same
        e.caption if captions.count(e.caption) == 1 else f"{name}: {e.caption}": e
        for name, e in explanations.items()
    }
    return ClipPicture(
        frames=frames,
        heatmaps={
            caption: resize_heatmap(e.heatmap, frames.shape[:3])[0].cpu().numpy()
            for caption, e in named.items()
        },
        target=model.asked(model.name(int(first.target[0]))),
        label=model.name(label) if label >= 0 else None,
        probabilities=probabilities(model, first),
        attention=None if attention is None else attention[0].cpu().numpy(),
        valid=_array(batch, "valid"),
        times=_array(batch, "time_s"),
        title=title,
        signed=[caption for caption, e in named.items() if bool((e.heatmap < 0).any())],
    )


def probabilities(model: Explainable, explanation: Explanation) -> list[tuple[str, float]]:
    """(class, probability) of one clip, in column order; empty where columns are no classes."""
    if not model.softmax:
        return []
    values = explanation.outputs[0].softmax(0).tolist()
    return [(model.name(column), value) for column, value in enumerate(values)]


def write_clip(
    folder: Path,
    picture: ClipPicture,
    explanations: Mapping[str, Explanation],
    batch: Mapping[str, Any],
    fps: float,
    columns: int = 16,
) -> ClipFiles:
    """Write `<clip>.mp4`, `<clip>.png` (a sheet of at most `columns` frames) and `<clip>.npz`.

    The npz holds `heatmap/<method>` (T, H, W) float32 raw, `attention` (T,), `outputs` (K,),
    `target`, `label`, and where the clip comes from: `frame_idx`, `time_s`, `valid`, `path`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = file_name(picture.title)
    first = next(iter(explanations.values()))
    arrays: dict[str, Any] = {
        f"heatmap/{name}": e.heatmap[0].cpu().numpy() for name, e in explanations.items()
    }
    arrays |= {name: weights[0].cpu().numpy() for name, weights in first.attention.items()}
    arrays |= {"outputs": first.outputs[0].cpu().numpy(), "target": int(first.target[0])}
    for key in ("label", "frame_idx", "time_s", "valid", "path"):
        if key in batch:
            value = batch[key][0]
            arrays[key] = value.cpu().numpy() if isinstance(value, Tensor) else value
    files = ClipFiles(*(folder / f"{stem}{end}" for end in (".mp4", ".png", ".npz")))
    np.savez_compressed(files.arrays, **arrays)
    save_png(files.sheet, draw_sheet(picture, columns))
    write_video(files.video, draw_video(picture), fps=fps)
    return files


def file_name(title: str) -> str:
    """A title as a file name: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^\w.-]+", "_", title).strip("._") or "clip"


def to_frames(clip: Tensor) -> np.ndarray:
    """`(T, H, W, 3)` uint8 of one clip `(C, T, H, W)` whose normalisation nobody knows.

    Stretched over the clip's own range; one channel becomes grey, more than three show the first.
    """
    clip = clip.detach().float().cpu()[:3]
    low, high = clip.min(), clip.max()
    clip = (clip - low) / (high - low).clamp(min=1e-12)
    if len(clip) < 3:
        clip = clip[:1].expand(3, -1, -1, -1)
    return (clip * 255).round().to(torch.uint8).permute(1, 2, 3, 0).contiguous().numpy()


def _array(batch: Mapping[str, Any], key: str) -> np.ndarray | None:
    return batch[key][0].cpu().numpy() if key in batch else None
