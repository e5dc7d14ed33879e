"""The Multispectral Action Dataset of Fraunhofer IOSB.

    <root>/SOIB/{IR,TV}/<folders>/0000.png ...
    <root>/SOIB/file_lists/{IR,TV}_{train,test}.txt        <folder> <images> <label>

Hilsenbeck et al., "Action recognition in the longwave infrared and the visible spectrum using
Hough forests", ISM 2016. `SOIB` may be the root itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.listing import Listing
from lightning_cam.data.core.module import VideoDataModule, check_whole
from lightning_cam.data.core.selection import select_classes
from lightning_cam.data.core.transforms import denormalised_frames
from lightning_cam.data.multispectral.checks import (
    held_out,
    leaks,
    on_disk,
    pairs,
    unpaired,
    wrong_labels,
)
from lightning_cam.data.multispectral.lists import (
    LISTS_FOLDER,
    find_top,
    name_classes,
    read_sequences,
)
from lightning_cam.data.multispectral.names import FOLDERS, ListedSequence, actor_of
from lightning_cam.data.multispectral.reader import SpectralReader, infrared_range
from lightning_cam.errors import ConfigError, UnknownNameError

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and std
SPECTRUM_CHOICES = ("ir", "tv", "irtv")
FUSIONS = ("union", "early")
_SIDES = {"left": "right", "cw": "ccw", "clockwise": "counterclockwise"}
_SIDES |= {other: one for one, other in _SIDES.items()}
_SIDE = re.compile(rf"(?<![a-z])({'|'.join(_SIDES)})(?![a-z])", re.I)


class Multispectral(VideoDataModule):
    """Sequences of an infrared and a visible camera.

    Training and test part are those of the lists; without lists the last fifth of the actors is
    for testing. Validation is the last actors of the training part, so that no actor is on both
    sides. Where the folders' names do not tell actors (see `names`), a tenth of the
    sequences is held out instead, with a warning.

    Classes are named by `file_lists/classes.txt` (a name a line, in the order of the labels), else
    by the folders if each label has one of its own, else "0" to "7". In mirrored clips left and
    right, cw and ccw change places in the label; classes without names are not mirrored.

    Args:
        root: the folder `SOIB`, or the one that holds it. Ground truth is used in validation and
            testing where `ground_truth/{IR,TV,IRTV}/<sequence>.npz` lies beside `SOIB`.
        spectrum: "ir" (one channel), "tv" (R, G, B), or "irtv".
        fusion: of "irtv": "union": every sequence counts twice, as infrared and as visible clip of
            three channels; "early": both in one clip of the channels R, G, B, IR.
        ir_mean: of the infrared channel, in [0, 1].
        ir_std: of the infrared channel. (Of a union, all clips have `mean` and `std`.)
        ir_range: [low, high], what is black and what is white in infrared images of 16 bits.
        registration: path of the cameras' matrices, see `reader.load_registration`; None: the
            file `registration.json` in `root`, if it is there. Without any, both images are
            brought to the same height and middle.
        val_actors: actors of the training part who are for validation.
        crop_shift: pixels by which crops are off the centre at most in training; None: any.
        **options: settings of `VideoDataModule`; `mean` and `std` are those of R, G, B.
    """

    def __init__(
        self,
        root: str = "data/multispectral",
        *,
        spectrum: str = "irtv",
        fusion: str = "union",
        ir_mean: float = 0.5,
        ir_std: float = 0.25,
        ir_range: Sequence[float] | None = None,
        registration: str | None = None,
        val_actors: int = 1,
        crop_shift: int | None = 32,
        **options: Any,
    ) -> None:
        if spectrum not in SPECTRUM_CHOICES:
            raise UnknownNameError("data.spectrum", spectrum, SPECTRUM_CHOICES)
        if fusion not in FUSIONS:
            raise UnknownNameError("data.fusion", fusion, FUSIONS)
        check_whole(1, val_actors=val_actors)
        if crop_shift is not None:
            check_whole(0, crop_shift=crop_shift)
        if ir_range is not None and not (len(ir_range) == 2 and ir_range[0] < ir_range[1]):
            raise ConfigError(f"data.ir_range={list(ir_range)} must be [low, high], low < high")
        fused = spectrum == "irtv" and fusion == "early"
        settings: dict[str, Any] = {"num_frames": 32, "fps": None, **options}
        for name, value, rgb in (("mean", ir_mean, IMAGENET[0]), ("std", ir_std, IMAGENET[1])):
            colours = [] if spectrum == "ir" else options.get(name, rgb)
            settings[name] = [*colours, value] if fused or spectrum == "ir" else colours
        super().__init__(root, **settings)
        self.spectrum = spectrum
        self.fusion = fusion
        self.registration = registration
        self.val_actors = val_actors
        self.by_name = options.get("hflip_pairs") is None
        base = self.reader
        self.reader: SpectralReader = SpectralReader(
            base.num_frames,
            base.fps,
            replace(base.transform, shift=crop_shift),
            base.reader,
            base.rate,
            spectrum,
            fused,
            None if ir_range is None else (float(ir_range[0]), float(ir_range[1])),
            registration,
        )

    @property
    def spectra(self) -> dict[str, tuple[int, ...]]:
        """The channels of each spectrum in a fused clip; empty where clips are of one."""
        return {"tv": (0, 1, 2), "ir": (3,)} if self.reader.fused else {}

    def views(self, clip: Tensor) -> dict[str, NDArray[np.uint8]]:
        """Images of a normalised batch in each spectrum of a fused clip, the visible one first.

        Args:
            clip: `(B, C, T, H, W)`.

        Returns:
            Name of the spectrum -> uint8 RGB `(B, T, H, W, 3)`; empty where clips are of one.
        """
        return {
            name: denormalised_frames(
                clip[:, list(channels)],
                [self.mean[c] for c in channels],
                [self.std[c] for c in channels],
            )
            for name, channels in self.spectra.items()
        }

    @property
    def inputs(self) -> tuple[str, ...]:
        """As which spectra the clips come."""
        if self.spectrum == "irtv" and not self.reader.fused:
            return ("ir", "tv")
        return (self.spectrum,)

    def indices(self, split: str, spectrum: str) -> list[int]:
        """Indices of the clips of a part ("train", "val" or "test") that come as a spectrum."""
        if spectrum not in self.inputs:
            raise UnknownNameError("spectrum", spectrum, self.inputs)
        clips = self.listing.part(split)
        return [n for n, clip in enumerate(clips) if self.reader.shows(clip.path) == spectrum]

    def mirror(self) -> list[int | None]:
        if not self.by_name:
            return super().mirror()
        images = [_SIDE.sub(_other_side, name) for name in self.classes]
        return [
            self.classes.index(image) if image in self.classes and not image.isdecimal() else None
            for image in images
        ]

    def prepare_data(self) -> None:
        """Make sure that infrared images of 16 bits have a scale.

        Raises:
            ConfigError: they have none; it says which would fit.
        """
        if "ir" not in self.spectrum or self.reader.ir_range is not None:
            return
        rows = read_sequences(find_top(self.root, ["ir"]), ["ir"])[0]
        folders = [find_top(self.root, ["ir"]) / row.below for row in rows if row.part == "train"]
        limits = infrared_range(folders)
        if limits is not None:
            raise ConfigError(
                f"the infrared images in {self.root!r} have 16 bits: say what is black and what "
                f"is white, by the training part data.ir_range=[{limits[0]},{limits[1]}]"
            )

    def list_clips(self) -> Listing:
        needed = [name for name in FOLDERS if name in self.spectrum]
        top = find_top(self.root, needed)
        rows, problems = read_sequences(top, needed)
        names = name_classes(rows, top / LISTS_FOLDER / "classes.txt")
        classes = select_classes(names, self.given_classes)
        wrong = wrong_labels(rows, names)
        problems += wrong + leaks(rows)
        unusable = {problem.what for problem in wrong}
        known = {row.pair for row in rows if row.where in unusable}  # to be wrong
        if self.spectrum == "irtv":
            problems += unpaired([row for row in rows if row.pair not in known])
        rows = [row for row in rows if row.where not in unusable]
        val = held_out(rows, self.val_actors)
        chosen = [row for row in rows if names[row.label] in classes]
        there, missing = on_disk(top, chosen, names)
        if self.reader.fused:
            there = pairs(there)
        parts: dict[str, list[Clip]] = {"train": [], "val": [], "test": []}
        for row in there:
            part = "val" if row.part == "train" and row.pair in val else row.part
            label = classes.index(names[row.label])
            parts[part].append(self._clip(top, row, label))
        problems += missing
        return Listing(classes, parts["train"], parts["val"], parts["test"], problems)

    def _clip(self, top: Path, row: ListedSequence, label: int) -> Clip:
        spectrum = self.spectrum if len(self.inputs) == 1 else row.spectrum
        clip_id = row.key.replace("/", "_")
        truths = (
            folder / "ground_truth" / spectrum.upper() / f"{row.key}.npz"
            for folder in (Path(self.root), top.parent)
        )
        return Clip(
            path=top / row.below,
            clip_id=clip_id if len(self.inputs) == 1 else f"{clip_id}_{spectrum}",
            label=label,
            group=actor_of(row.key) or 0,
            truth=next(filter(Path.is_file, truths), None),
        )


def _other_side(word: re.Match[str]) -> str:
    return _SIDES[word[0].lower()]
