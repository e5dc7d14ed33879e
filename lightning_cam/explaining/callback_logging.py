"""What the live callback hands to loggers: numbers, videos, sheets, attention weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger

from lightning_cam.interfaces import LogsImages, LogsTables, LogsVideos


def mean_numbers(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each number's mean over the clips that have it."""
    names = dict.fromkeys(name for numbers in found for name in numbers)
    return {n: float(np.mean([each[n] for each in found if n in each])) for n in names}


def attention_table(epoch: int, records: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Rows of epoch, clip, frame and weight."""
    return [
        [epoch, record["clip"], frame, weight]
        for record in records
        for weights in record["attention"].values()
        for frame, weight in enumerate(weights)
    ]


def takes_media(logger: Logger) -> bool:
    """Whether a logger takes anything of explained clips but numbers."""
    return isinstance(logger, LogsVideos | LogsImages | LogsTables)


def log_media(
    logger: Logger,
    records: Sequence[Mapping[str, Any]],
    methods: Iterable[str],
    table: list[list[Any]],
    step: int,
) -> None:
    """What a logger takes of videos, sheets, attention strips and the attention table.

    Each clip has keys of its own, `explain/video/CLIP/METHOD+METHOD`, so that it can be followed
    through the epochs: W&B has a slider for the values of one key.
    """
    drawn = "+".join(methods)
    for record in records:
        clip, caption = _in_key(record["clip"]), [record["caption"]]
        if isinstance(logger, LogsVideos):
            key, more = f"explain/video/{clip}/{drawn}", {"caption": caption, "format": ["mp4"]}
            logger.log_video(key, [record["video"]], step, **more)
        if isinstance(logger, LogsImages):
            key = f"explain/sheet/{clip}/{drawn}"
            logger.log_image(key, [record["sheet"]], step, caption=caption)
            if "strip" in record:
                logger.log_image(f"explain/attention_epochs/{clip}", [record["strip"]], step)
        log_overviews(logger, record, step)
    if isinstance(logger, LogsTables) and table:
        columns = ["epoch", "clip", "frame", "attention"]
        logger.log_table("explain/attention", columns, table, step=step)


def log_overviews(logger: Logger, record: Mapping[str, Any], step: int) -> None:
    """A clip's maps over the epochs, if there are new images of them, a key for each method."""
    clip, caption = _in_key(record["clip"]), [record["caption"]]
    for method, (picture, video) in record.get("overviews", {}).items():
        if isinstance(logger, LogsImages):
            key = f"explain/epochs/{clip}/{method}"
            logger.log_image(key, [picture], step, caption=caption)
        if isinstance(logger, LogsVideos):
            key, more = f"explain/epochs_video/{clip}/{method}", {"format": ["mp4"]}
            logger.log_video(key, [video], step, caption=caption, **more)


def _in_key(title: str) -> str:
    """A clip's title as a part of a key: a dot would begin a mapping, a slash another part."""
    return re.sub(r"[./\\\s]+", "_", title) or "clip"


def media_size(records: Sequence[Mapping[str, Any]]) -> int:
    """How many bytes of videos and images are logged of these clips."""
    kinds = ("video", "sheet", "strip")
    names = [record[kind] for record in records for kind in kinds if kind in record]
    return sum(Path(name).stat().st_size for name in names)
