"""Confusion matrices as images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_cam.files import whole_file
from lightning_cam.viz.fonts import drawable, matplotlib_fonts


def save_confusion(path: str | Path, matrix: Tensor, classes: Sequence[str], title: str) -> Path:
    """Draws a confusion matrix into a PNG file.

    Colours are shares of the row (the true class), numbers are counts of clips.

    Args:
        path: the file; its folder is made.
        matrix: (K, K) counts, row = true class, column = predicted class.
        classes: the K names.
        title: one line above the image.
    """
    names = [drawable(name) for name in classes]
    with matplotlib_fonts(names), whole_file(path) as file:
        _figure(matrix, names, title).savefig(file, format="png")
    return Path(path)


def _figure(matrix: Tensor, classes: Sequence[str], title: str) -> Any:
    # pyplot would keep global state and choose a window system; the Figure alone does neither.
    from matplotlib.figure import Figure

    counts = matrix.detach().cpu()
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    size = min(2.5 + 0.45 * len(classes), 24.0)
    figure = Figure(figsize=(size + 1, size), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    ticks, small = range(len(classes)), 8 if len(classes) <= 40 else 4
    axes.set_xticks(ticks, classes, rotation=90, fontsize=small)
    axes.set_yticks(ticks, classes, fontsize=small)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    if len(classes) <= 40:
        for row, column in counts.nonzero().tolist():
            colour = "white" if share[row, column] > 0.5 else "black"
            text = str(int(counts[row, column]))
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    figure.colorbar(image, ax=axes, label="share of the true class")
    return figure
