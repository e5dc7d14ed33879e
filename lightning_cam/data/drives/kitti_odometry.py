"""KITTI odometry.

    <root>/sequences/00/image_2/000000.png ...    image_0, image_1: grey; image_2, image_3: colour
    <root>/sequences/00/calib.txt                 P0: 12 numbers ... P3, Tr
    <root>/sequences/00/times.txt                 seconds, one per line
    <root>/poses/00.txt                           12 numbers per line: camera 0 to world
    <root>/ground_truth/00/depth/000000.png ...   not KITTI's: metres * 256, 16 bits, 0 = unknown
    <root>/ground_truth/00/<part>/000000.png ...  masks, 0 or 255

Geiger et al., "Are we ready for autonomous driving? The KITTI vision benchmark suite", CVPR 2012.
`dataset`, into which KITTI's archives unpack, may be the root itself.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_cam.data.core.base import PARTS
from lightning_cam.data.core.listing import Problem
from lightning_cam.data.drives.drive import Drive
from lightning_cam.data.drives.kitti_sequence import (
    CALIBRATION_FILE,
    CAMERA_FOLDERS,
    TRUTH,
    read_odometry_camera,
    read_sequence,
    with_truth,
)
from lightning_cam.data.drives.module import DriveListing, SnippetDataModule
from lightning_cam.errors import ConfigError, DataError, UnknownNameError

_SHARE = 0.1  # of each training sequence, for validation where no sequence is named


class KittiOdometry(SnippetDataModule):
    """Sequences of the KITTI odometry benchmark.

    Args:
        root: the folder `dataset`, or the one that holds it.
        camera: folder of the images. Poses are those of this camera, not of camera 0.
        train: numbers of the sequences for training.
        val: for validation; None for the last tenth of each training sequence, which is then not
            trained on.
        test: for testing.
        **options: settings of `SnippetDataModule`.
    """

    def __init__(
        self,
        root: str = "data/kitti_odometry",
        *,
        camera: str = "image_2",
        train: Sequence[int] = tuple(range(9)),
        val: Sequence[int] | None = None,
        test: Sequence[int] = (9, 10),
        **options: Any,
    ) -> None:
        if camera not in CAMERA_FOLDERS:
            raise UnknownNameError("data.camera", camera, CAMERA_FOLDERS)
        # KITTI's cameras take ten images a second.
        super().__init__(root, **{"rate": 10.0, **options})
        self.camera = camera
        self.numbers = {
            part: None if given is None else _sequences(part, given)
            for part, given in (("train", train), ("val", val), ("test", test))
        }

    @property
    def top(self) -> Path:
        """The folder of `sequences`.

        Raises:
            DataError: there is none.
        """
        for folder in (Path(self.root), Path(self.root) / "dataset"):
            if (folder / "sequences").is_dir():
                return folder
        raise DataError(
            f"no KITTI odometry in {self.root!r}: it needs sequences/00/{self.camera}/000000.png "
            "... and sequences/00/calib.txt (see data/README.md); set data.root=FOLDER, or try "
            "data=synthetic_odometry"
        )

    def list_drives(self) -> DriveListing:
        numbers = self.numbers
        problems: list[Problem] = []
        drives: dict[int, Drive] = {}
        measured = set(numbers["test"] or ()).union(
            (numbers["train"] if numbers["val"] is None else numbers["val"]) or ()
        )
        for number in sorted({n for given in numbers.values() for n in given or ()}):
            drive, found = self.drive(number, measured=number in measured)
            problems += found
            if drive is not None:
                drives[number] = drive
        parts = {part: [drives[n] for n in numbers[part] or () if n in drives] for part in PARTS}
        if numbers["val"] is None:
            parts["train"], parts["val"] = self._held_out(parts["train"])
        self._warn_of_shared()
        return DriveListing(**parts, problems=problems)

    def _held_out(self, drives: Sequence[Drive]) -> tuple[list[Drive], list[Drive]]:
        """Beginnings for training and ends for validation; too short ones are only trained on."""
        train, val = [], []
        for drive in drives:
            if len(drive.images) < 2 * self.snippet:
                train.append(drive)
                continue
            start, end = drive.hold_out(_SHARE, self.snippet)
            train.append(start)
            val.append(end)
        return train, val

    def asked_twice(self) -> Collection[str]:
        times = Counter(n for given in self.numbers.values() for n in given or ())
        return [f"{n:02d}" for n, many in times.items() if many > 1]

    def _warn_of_shared(self) -> None:
        held = {*(self.numbers["val"] or ()), *(self.numbers["test"] or ())}
        if both := sorted(held.intersection(self.numbers["train"] or ())):
            warnings.warn(
                f"sequences {both} are for training and for validation or testing: what is "
                "measured on them says nothing about new scenes",
                stacklevel=2,
            )

    def drive(self, number: int, *, measured: bool = True) -> tuple[Drive | None, list[Problem]]:
        """One sequence, None where it cannot be used, and what is wrong with it.

        Args:
            number: of the sequence.
            measured: whether poses are needed.
        """
        drive, problems = read_sequence(
            self.top, number, self.camera, self.given, measured=measured
        )
        if drive is not None:
            places = [folder / TRUTH / drive.name for folder in (Path(self.root), self.top)]
            drive = with_truth(drive, next(filter(Path.is_dir, places), places[0]))
        return drive, problems

    def named(self, name: str) -> Drive:
        if not re.fullmatch("[0-9]{1,2}", name):
            raise UnknownNameError("split", name, [*PARTS, "00 (or another sequence)"])
        there = sorted(path.name for path in (self.top / "sequences").iterdir() if path.is_dir())
        if f"{int(name):02d}" not in there:
            raise UnknownNameError("split or sequence", name, [*PARTS, *there])
        drive, problems = self.drive(int(name))
        if drive is None:
            raise DataError(str(problems[-1]))
        return drive

    def camera_of(self, folder: Path) -> NDArray[np.float64]:
        folder = folder.absolute()
        camera = folder.name if folder.name in CAMERA_FOLDERS else self.camera
        for place in (folder, folder.parent):
            if (place / CALIBRATION_FILE).is_file():
                return read_odometry_camera(place / CALIBRATION_FILE, camera)[0]
        raise DataError(
            f"no {CALIBRATION_FILE} in {str(folder)!r} or above it: copy it there, or set "
            "data.intrinsics=[FX,FY,CX,CY] of these images"
        )


def _sequences(part: str, given: Sequence[int]) -> list[int]:
    numbers = list(given)
    if not all(type(n) is int and 0 <= n < 100 for n in numbers):
        raise ConfigError(
            f"data.{part}={numbers} must be a list of sequence numbers, such as [0,1]"
        )
    return list(dict.fromkeys(numbers))
