"""What the live callback hands to loggers: numbers, videos, sheets, attention weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def log_media(
    logger: Logger,
    records: Sequence[Mapping[str, Any]],
    strips: Sequence[Path],
    table: list[list[Any]],
    step: int,
) -> None:
    """What a logger takes of videos, sheets, attention strips and the attention table."""
    captions = [record["caption"] for record in records]
    if isinstance(logger, LogsVideos):
        videos = [record["video"] for record in records]
        kinds = ["mp4"] * len(videos)
        logger.log_video("explain/video", videos, step, caption=captions, format=kinds)
    if isinstance(logger, LogsImages):
        sheets = [record["sheet"] for record in records]
        logger.log_image("explain/sheet", sheets, step, caption=captions)
        if strips:
            logger.log_image("explain/attention_epochs", list(strips), step)
    if isinstance(logger, LogsTables) and table:
        columns = ["epoch", "clip", "frame", "attention"]
        logger.log_table("explain/attention", columns, table, step=step)
