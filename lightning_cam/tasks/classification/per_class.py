"""What an evaluation says of each class, as one table and one chart.

A panel a class, of which there may be 400, would bury all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L

from lightning_cam.files import whole_file
from lightning_cam.interfaces import LogsImages, LogsTables
from lightning_cam.own_folder import own_folder
from lightning_cam.tasks.epoch_images import draws_images, never_fatal
from lightning_cam.viz.fonts import drawable, matplotlib_fonts


def log_per_class(
    task: L.LightningModule,
    stage: str,
    what: tuple[str, str],
    values: Mapping[str, float],
    clips: Mapping[str, int],
) -> None:
    """Log a number of each class.

    Each is known to the trainer as `STAGE/SHORT/CLASS`, so that it can choose the best epoch.
    Loggers that take tables get one, `STAGE/per_class`, and a chart; others get the numbers.

    Args:
        task: that is evaluated.
        stage: "val" or "test".
        what: its short name in keys and its name for people, ("acc", "accuracy").
        values: class -> number, of the classes that have clips.
        clips: class -> how many it has.
    """
    short, name = what
    tabled = any(isinstance(logger, LogsTables) for logger in task.trainer.loggers)
    for label, value in values.items():
        task.log(f"{stage}/{short}/{label}", value, logger=False if tabled else None)
    if not tabled or not values or not draws_images(task.trainer):
        return
    rows = [[label, value, clips[label]] for label, value in values.items()]
    step = task.trainer.global_step
    with never_fatal(f"{stage} {name} of each class"):
        for logger in task.trainer.loggers:
            if isinstance(logger, LogsTables):
                logger.log_table(f"{stage}/per_class", ["class", name, "clips"], rows, step=step)
            if isinstance(logger, LogsImages):
                file = f"{stage}_epoch_{task.current_epoch:03d}.png"
                path = own_folder(task.trainer, "per_class") / file
                save_bars(path, rows, f"{stage} {name}, epoch {task.current_epoch}")
                logger.log_image(f"{stage}/per_class_chart", [str(path)], step=step)


def save_bars(path: Path, rows: Sequence[Sequence[Any]], title: str) -> Path:
    """Draw bars into a PNG file, the lowest first; numbers of clips stand beside them.

    Args:
        path: the file; its folder is made.
        rows: class, share from 0 to 1, number of clips.
        title: one line above the image.
    """
    ordered = sorted(rows, key=lambda row: row[1])
    names = [drawable(f"{label} ({clips})") for label, _, clips in ordered]
    with matplotlib_fonts(names), whole_file(path) as file:
        _figure(names, [row[1] for row in ordered], title).savefig(file, format="png")
    return path


def _figure(names: Sequence[str], values: Sequence[float], title: str) -> Any:
    # pyplot would keep global state and choose a window system; the Figure alone does neither.
    from matplotlib.figure import Figure

    height = min(1.2 + 0.2 * len(names), 40.0)
    figure = Figure(figsize=(7, height), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.barh(range(len(names)), values, color="#2171b5")
    axes.set_yticks(range(len(names)), names, fontsize=8 if len(names) <= 200 else 5)
    axes.set(xlim=(0, 1), title=title)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    return figure
