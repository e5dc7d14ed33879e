"""A clip's maps at several epochs of a training: one picture and one video of how they form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from lightning_cam.attribution import Attribution
from lightning_cam.attribution.drawn_maps import drawn_maps
from lightning_cam.errors import ArgumentError
from lightning_cam.explaining.clip_files import file_name
from lightning_cam.explaining.epoch_map import EpochMap
from lightning_cam.files import make_folder
from lightning_cam.viz import ClipFigure, draw_sheet, draw_video, save_png, write_video

FOLDER = "epochs"  # below that of the run's explanations, beside those of single epochs
_LEAST = 3  # epochs: the first, the last, and one between

Epochs = dict[int, EpochMap]  # epoch -> map
Images = dict[str, tuple[Path, Path]]  # method -> picture, video


class Newest(NamedTuple):
    """A clip after the newest epoch: its title, what is said of it, and how it looks."""

    clip: str
    caption: str
    figure: ClipFigure


def thinned(epochs: Sequence[int], most: int) -> list[int]:
    """At most so many epochs, evenly spaced, of those that were kept so far and a new one.

    The first one stays, and of the others every n-th, n doubling when they become too many; the
    newest is there until the next one comes, unless it is one of these.

    Args:
        epochs: ascending, the new one last.
        most: at least 3.
    """
    first, last = epochs[0], epochs[-1]
    step = epochs[1] - first if len(epochs) > 1 else 1
    while True:
        kept = [epoch for epoch in epochs if (epoch - first) % step == 0 or epoch == last]
        if len(kept) <= most:
            return kept
        step *= 2


def is_even(epochs: Sequence[int]) -> bool:
    """Whether the last of them is not merely the newest: it stays when others come."""
    return len(epochs) < 3 or (epochs[-1] - epochs[0]) % (epochs[1] - epochs[0]) == 0


def check_overview(overview: Any, every_n_epochs: int) -> int | list[int]:
    """How many epochs are shown beside each other, or which.

    Raises:
        ArgumentError: it makes no sense.
    """
    if isinstance(overview, Sequence) and not isinstance(overview, str) and overview:
        for epoch in overview:
            if type(epoch) is not int or epoch < 0:
                raise ArgumentError(f"overview has {epoch!r}; epochs are numbers from 0 on")
            if (epoch + 1) % every_n_epochs:
                raise ArgumentError(
                    f"overview has epoch {epoch}, which is not explained: with every_n_epochs="
                    f"{every_n_epochs} the first one is {every_n_epochs - 1}"
                )
        return sorted(set(overview))
    if type(overview) is not int or (overview != 0 and overview < _LEAST):
        raise ArgumentError(
            f"overview must be a number of epochs, at least {_LEAST}, 0 for none, or a list of "
            f"epochs such as [0, 4, 19], got {overview!r}"
        )
    return overview


class OverEpochs:
    """The maps of all clips at chosen epochs, and their images.

    Args:
        chosen: how many epochs at most, evenly spaced; or which; 0: none.
        methods: by name.
        fps: of the videos.
        on_error: is told what could not be drawn, and why.
    """

    def __init__(
        self,
        chosen: int | Sequence[int],
        methods: Mapping[str, Attribution],
        fps: float,
        on_error: Callable[[str, Exception], None],
    ) -> None:
        self.chosen, self.methods, self.fps, self.on_error = chosen, methods, fps, on_error
        self.maps: dict[str, dict[str, Epochs]] = {}  # clip -> method -> epoch -> map
        self._left: dict[str, Newest] = {}  # clip -> what is to be drawn yet, of this rank

    def later_than(self, epochs: int | None) -> list[int]:
        """The chosen epochs that a training of so many does not come to; None: it has no end."""
        if isinstance(self.chosen, int) or epochs is None or epochs < 0:
            return []
        return [epoch for epoch in self.chosen if epoch >= epochs]

    def state(self) -> dict[str, Any]:
        """All maps in plain containers."""
        return {
            clip: {
                method: {epoch: kept.plain() for epoch, kept in epochs.items()}
                for method, epochs in methods.items()
            }
            for clip, methods in self.maps.items()
        }

    def restore(self, state: Any) -> None:
        """Take over what a checkpoint remembers; what has another form is left out."""
        self.maps = {}
        for clip, methods in _items(state, str):
            for method, epochs in _items(methods, str):
                read = {epoch: EpochMap.read(kept) for epoch, kept in _items(epochs, int)}
                sound = {epoch: kept for epoch, kept in sorted(read.items()) if kept is not None}
                if sound:
                    self.maps.setdefault(clip, {})[method] = sound

    def add(self, clip: str, epoch: int, maps: Mapping[str, EpochMap]) -> None:
        """Keep the maps of a clip, method -> map, if this is a chosen epoch."""
        if isinstance(self.chosen, Sequence) and epoch not in self.chosen:
            return
        for method, kept in maps.items() if self.chosen else ():
            of_clip = self.maps.setdefault(clip, {})
            epochs = of_clip.get(method, {}) | {epoch: kept}
            shown = sorted(epochs)
            if isinstance(self.chosen, int):
                shown = thinned(shown, self.chosen)
            of_clip[method] = {n: epochs[n] for n in shown}

    def images(self, folder: Path, epoch: int, newest: Newest, due: bool) -> Images:
        """Draw a clip after an epoch, unless it can wait for a later one: see `rest`.

        Args:
            folder: of all overviews.
            epoch: whose maps were added.
            newest: the clip.
            due: whether images of this epoch are wanted at all.
        """
        of_clip = self.maps.get(newest.clip, {})
        shown = [method for method, epochs in of_clip.items() if epoch in epochs]
        stays = not isinstance(self.chosen, int) or all(is_even([*of_clip[m]]) for m in shown)
        self._left.pop(newest.clip, None)
        if shown and not (due and stays):
            self._left[newest.clip] = newest
            return {}
        return self._draw(folder, newest, shown)

    def rest(self, folder: Path) -> list[tuple[Newest, Images]]:
        """Draw what has waited, at the end of a training."""
        left, self._left = [*self._left.values()], {}
        return [(newest, self._draw(folder, newest, self.maps[newest.clip])) for newest in left]

    def _draw(self, folder: Path, newest: Newest, methods: Iterable[str]) -> Images:
        """Write `<clip>.<method>.png` and `.mp4`, a row or panel an epoch."""
        files: Images = {}
        for method in methods:
            if method not in self.methods:  # a checkpoint knows it, and this training does not
                continue
            try:
                epochs = self.maps[newest.clip][method]
                shown = figure_over_epochs(newest.figure, epochs, method, self.methods[method])
                make_folder(folder)
                name = file_name(f"{newest.clip}.{method}")
                picture, video = folder / f"{name}.png", folder / f"{name}.mp4"
                save_png(picture, draw_sheet(shown, 8))
                write_video(video, draw_video(shown), fps=self.fps)
                files[method] = picture, video
            except Exception as error:
                self.on_error(f"the overview of {method!r}", error)
        return files


def figure_over_epochs(
    figure: ClipFigure, epochs: Mapping[int, EpochMap], name: str, method: Attribution
) -> ClipFigure:
    """A figure of a clip with the maps of several epochs in place of those of several methods."""
    size = figure.frames.shape[:3]
    explanations = {f"epoch {n}": kept.explanation(method, size) for n, kept in epochs.items()}
    called = {f"epoch {n}": (f"epoch {n}", kept.said) for n, kept in epochs.items()}
    drawn = drawn_maps(explanations, size, 0, called)
    # Else captions say it: what was predicted then.
    alike = len({kept.column for kept in epochs.values()}) == 1
    return replace(
        figure,
        target=figure.target if alike else "predicted class" if figure.against else "",
        value=None,
        probabilities=(),  # which captions say of each epoch
        **vars(drawn),
        title=f"{figure.title}: {name} over {len(epochs)} epochs",
        attention=None,
        stacks={},
        panels={},
        scales={},
        lines={},
    )


def overview_record(newest: Newest, files: Images) -> dict[str, Any]:
    """What loggers need of a clip's images, in plain containers."""
    named = {method: [str(picture), str(video)] for method, (picture, video) in files.items()}
    return {"clip": newest.clip, "caption": newest.caption, "overviews": named}


def _items(given: Any, kind: type) -> list[tuple[Any, Any]]:
    if not isinstance(given, Mapping):
        return []
    return [(key, value) for key, value in given.items() if type(key) is kind]
