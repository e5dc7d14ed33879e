"""Explanations as images: one, or several of one clip beside each other."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lightning_cam.attribution.contrast import Contrast
from lightning_cam.attribution.drawn_maps import drawn_maps
from lightning_cam.attribution.explanation import Explanation
from lightning_cam.attribution.fields import Count, Rate, ZeroToOne, fitted
from lightning_cam.attribution.outputs import kind_of
from lightning_cam.attribution.shown import Shown
from lightning_cam.errors import ArgumentError, UserError
from lightning_cam.viz.clip_figure import ClipFigure
from lightning_cam.viz.clip_video import draw_video
from lightning_cam.viz.contact_sheet import sheet_parts
from lightning_cam.viz.drawing import Canvas, jpeg, save_png
from lightning_cam.viz.overlay import COLORMAP, OPACITY
from lightning_cam.viz.vector import save_pdf, save_svg
from lightning_cam.viz.video_file import write_gif, write_video

_FIRST = 4  # clips of a batch that a notebook shows


def write_figure(
    comparison: Comparison,
    path: str | Path,
    *,
    clip: int | None = None,
    frames: Sequence[int] | None = None,
    columns: int = 8,
    fps: float = 8.0,
    **settings: Any,
) -> Path:
    """Draw a clip with its maps into a file; what kind of file, its ending says.

    Args:
        path: `.pdf` or `.svg`, in which text stays text, `.png`: frames from left to right, a
            row for each map; `.mp4` or `.gif`: the clip and its maps beside each other. All
            frames of a clip have one colour scale.
        clip: which one of the batch; None where there is one.
        frames: which frames to show, by number; None: `columns` of them, evenly chosen (of a
            video all).
        columns: how many frames at most.
        fps: frames a second of a video.
        **settings: of `figure`: `titles`, `colormap`, `opacity`.

    Raises:
        ArgumentError: another ending, or no such clip, frame or setting.

    Example:
        >>> both = compare([gradcam, rise])
        >>> both.save("figure.pdf", frames=[0, 4, 8], titles=["Grad-CAM", "RISE"])
    """
    columns, fps = fitted("columns", columns, Count), fitted("fps", fps, Rate)
    path = Path(path)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise ArgumentError(
            f"{path}: figures end in {', '.join(_WRITERS)}; which kind a file is, its name says"
        )
    figure = comparison.figure(clip, **settings)
    return write(path, figure, _frames(figure, frames), columns, fps)


@dataclass(frozen=True, repr=False)
class Comparison:
    """One or several explanations of the same clips, to be looked at.

    Attributes:
        explanations: by the names that tell them apart.
        called: what images call them, by the same names: the method, and the choices it made.
    """

    explanations: Mapping[str, Explanation]
    called: Mapping[str, Sequence[str]]

    def figure(
        self,
        clip: int | None = None,
        *,
        titles: Sequence[str] | None = None,
        colormap: str = COLORMAP,
        opacity: float = OPACITY,
    ) -> ClipFigure:
        """What is known about a clip, ready to be drawn by the functions of `viz`.

        Args:
            clip: which one of the batch; None where there is one.
            titles: what stands beside the maps, in place of the methods and their choices.
            colormap: "inferno", "magma", "plasma", "viridis" or "cividis", which are even to every
                kind of colour vision, or "turbo". Maps with negative values are blue and red.
            opacity: of the hot half of a map, 0 to 1.

        Raises:
            ArgumentError: of a batch no clip is chosen, or there is no such clip; titles of other
                than as many explanations.
        """
        opacity = fitted("opacity", opacity, ZeroToOne)
        first, shown = self._first
        row = self._row(clip)
        frames, said = shown.frames(row)
        maps = drawn_maps(self.explanations, frames.shape[:3], row, self._called(titles))
        outputs, attention = (
            first.outputs[row : row + 1],
            next(iter(first.attention.values()), None),
        )
        column = int(first.target[row])
        of_class = shown.columns.kinds()[column] is not None
        return ClipFigure(
            frames=frames,
            frames_note=said,
            **vars(maps),
            target=self._target(row),
            value=None if of_class or not self._alike else float(outputs[0, column]),
            probabilities=[
                (shown.columns.name(k), p) for k, p in shown.columns.classes(outputs).items()
            ],
            attention=None if attention is None else attention[row].cpu().numpy(),
            valid=None if shown.valid is None else shown.valid[row].cpu().numpy(),
            title="" if len(first.target) == 1 else f"clip {row}",
            against=_name(first.against, row) if isinstance(first, Contrast) else None,
            colormap=colormap,
            opacity=opacity,
        )

    save = write_figure

    def show(self, **settings: Any) -> None:
        """Show a clip with its maps: in a notebook below the cell, else in a window.

        Args:
            **settings: of `save`, those of still images.

        Raises:
            UserError: there is no notebook and no screen.
        """
        frames = settings.pop("frames", None)
        columns = fitted("columns", settings.pop("columns", 8), Count)
        figure = self.figure(settings.pop("clip", None), **settings)
        pixels = _sheet(figure, _frames(figure, frames), columns).pixels()
        if _in_a_notebook():
            from IPython.display import HTML, display

            display(HTML(_inline(pixels)))
        elif sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
            raise UserError('there is no screen here; write a file: explanation.save("figure.png")')
        else:
            Image.fromarray(pixels).show()

    def _repr_html_(self) -> str:
        count = len(self._first[0].target)
        shown = [_sheet(self.figure(row), None, 8).pixels() for row in range(min(count, _FIRST))]
        more = f"<p>and {count - _FIRST} more clips</p>" if count > _FIRST else ""
        return "".join(map(_inline, shown)) + more

    def __repr__(self) -> str:
        return f"Comparison({', '.join(map(repr, self.explanations.values()))})"

    def _called(self, titles: Sequence[str] | None) -> Mapping[str, Sequence[str]]:
        if titles is None:
            return self.called
        if isinstance(titles, str) or len(titles) != len(self.explanations):
            raise ArgumentError(
                f"titles={titles!r} are to be a list of {len(self.explanations)}, "
                "one for each explanation"
            )
        return {name: (str(title),) for name, title in zip(self.explanations, titles, strict=True)}

    @property
    def _first(self) -> tuple[Explanation, Shown]:
        first = next(iter(self.explanations.values()))
        assert first.shown is not None  # `compare` sees to it
        return first, first.shown

    @property
    def _alike(self) -> bool:
        """Whether all explain the same columns."""
        first, *others = self.explanations.values()
        return all(torch.equal(first.target.cpu(), e.target.cpu()) for e in others)

    def _target(self, row: int) -> str:
        """What is explained, in words; "" where that differs and captions say it."""
        return _name(self._first[0], row) if self._alike else ""

    def _row(self, clip: int | None) -> int:
        count = len(self._first[0].target)
        if clip is None and count > 1:
            raise ArgumentError(f"these are {count} clips; choose one: save(PATH, clip=0)")
        row: int = fitted("clip", 0 if clip is None else clip, int)
        if not -count <= row < count:
            raise ArgumentError(f"no clip {clip}: there are {count}, numbered from 0 on")
        return row % count


def compare(explanations: Sequence[Explanation] | Mapping[str, Explanation]) -> Comparison:
    """Several explanations of the same clips beside each other: other methods, or other columns.

    Args:
        explanations: of `explain`; in a mapping under the names that images are to call them.

    Raises:
        ArgumentError: there are none, or they are of different clips, or not made by `explain`.

    Example:
        >>> methods = GradCAM(), RISE()
        >>> compare([explain(model, method, clip) for method in methods]).save("figure.pdf")
    """
    if isinstance(explanations, Mapping):
        named = {str(name): e for name, e in explanations.items()}
    elif isinstance(explanations, Iterable) and not isinstance(explanations, str):
        named = {str(n): e for n, e in enumerate(explanations, 1)}
    else:
        raise ArgumentError(
            f"expected several explanations, got {kind_of(explanations)}; put them into a list: "
            "compare([a, b])"
        )
    for name, e in named.items():
        if not isinstance(e, Explanation):
            raise ArgumentError(f"expected explanations, as explain returns them, got {kind_of(e)}")
        if e.shown is None:
            raise ArgumentError(
                f"{name}: an explanation that explain did not return has no clip to show; "
                "give it one: dataclasses.replace(explanation, shown=other.shown)"
            )
    if not named:
        raise ArgumentError("no explanations to compare; give at least one, as explain returns it")
    _check_clips([e.shown for e in named.values() if e.shown is not None])
    made = Comparison(named, {})
    before = (lambda e: "") if made._alike else (lambda e: f"{_asked(e)}: ")
    called = {
        name: (f"{before(e)}{e.method.title}", *e.notes.values()) for name, e in named.items()
    }
    if isinstance(explanations, Mapping):
        called = {name: (name,) for name in named}
    return replace(made, called=called)


def _check_clips(shown: Sequence[Shown]) -> None:
    first, *others = (each.clip for each in shown)
    for n, clip in enumerate(others, 2):
        if clip is not first and not (clip.shape == first.shape and bool((clip == first).all())):
            raise ArgumentError(
                f"explanation {n} is of another clip than the first; compare those of one clip"
            )


def _asked(e: Explanation) -> str:
    """What it was asked about, in words."""
    return ", ".join(dict.fromkeys(_name(e, row) for row in range(len(e.target))))


def _name(e: Explanation, row: int) -> str:
    assert e.shown is not None
    return e.shown.question.replace("{}", e.shown.columns.name(int(e.target[row])), 1)


def _frames(figure: ClipFigure, frames: Sequence[int] | None) -> list[int] | None:
    """Numbers of frames, negative ones counted from the end."""
    if frames is None:
        return None
    count = len(figure.frames)
    try:
        numbers = list(map(index, frames))
    except TypeError:
        raise ArgumentError(
            f"frames={frames!r} must be numbers of frames, such as [0, 4, 8]"
        ) from None
    for t in numbers:
        if not -count <= t < count:
            raise ArgumentError(f"no frame {t}: the clip has {count}, numbered from 0 on")
    if not numbers:
        raise ArgumentError("no frames to show; leave them out to have some chosen evenly")
    return [t % count for t in numbers]


def _sheet(figure: ClipFigure, frames: list[int] | None, columns: int) -> Canvas:
    return Canvas.stacked(sheet_parts(figure, columns, frames))


def _moving(figure: ClipFigure, frames: list[int] | None) -> np.ndarray:
    video = draw_video(figure)
    return video if frames is None else video[frames]


Writer = Callable[[Path, ClipFigure, list[int] | None, int, float], Path]
_WRITERS: dict[str, Writer] = {
    ".pdf": lambda path, figure, frames, columns, _: save_pdf(
        path, _sheet(figure, frames, columns)
    ),
    ".svg": lambda path, figure, frames, columns, _: save_svg(
        path, _sheet(figure, frames, columns)
    ),
    ".png": lambda path, figure, frames, columns, _: save_png(
        path, _sheet(figure, frames, columns).pixels()
    ),
    ".mp4": lambda path, figure, frames, _, fps: write_video(path, _moving(figure, frames), fps),
    ".gif": lambda path, figure, frames, _, fps: write_gif(path, _moving(figure, frames), fps),
}


def _in_a_notebook() -> bool:
    """Whether what is displayed appears below a cell, not as words in a terminal."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and type(shell).__name__ != "TerminalInteractiveShell"


def _inline(pixels: np.ndarray) -> str:
    """An image in HTML, without a file; JPEG, as notebooks are stored with it."""
    data = base64.b64encode(jpeg(pixels)).decode()
    return f'<img src="data:image/jpeg;base64,{data}" style="max-width: 100%">'
