"""Drives in the format into which SfMLearner brings KITTI raw (and others bring other data).

    <root>/train.txt  val.txt                     a scene's folder a line
    <root>/<scene>/cam.txt                        3 x 3 intrinsics of the images
    <root>/<scene>/0000000000.jpg ...
    <root>/<scene>/poses.txt                      optional: 12 numbers an image, camera to world
    <root>/<scene>/0000000000.npy ...             optional: depth in metres, 0 where unknown

`prepare_train_data.py` of ClementPinard/SfmLearner-Pytorch writes it; a scene is a drive and a
camera, as in 2011_09_26_drive_0001_sync_02.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_cam.data.core.array_files import load_array
from lightning_cam.data.core.listing import Problem
from lightning_cam.data.core.text_files import text_of
from lightning_cam.data.drives import cameras
from lightning_cam.data.drives.drive import Drive, drive_of
from lightning_cam.data.drives.module import DriveListing, SnippetDataModule
from lightning_cam.data.video import frame_folders as images
from lightning_cam.errors import DataError

CALIBRATION_FILE = "cam.txt"
SCENE_LISTS = {"train": "train.txt", "val": "val.txt", "test": "test.txt"}


@dataclass(frozen=True)
class DepthArrays:
    """Depth in NumPy's files, some of which may not be there.

    Attributes:
        paths: of the images' files.
        size: (height, width) of depth that is not known.
    """

    paths: tuple[Path, ...]
    size: tuple[int, int]

    def __call__(self, position: int) -> NDArray[np.float32]:
        path = self.paths[position]
        if not path.is_file():
            return np.zeros(self.size, np.float32)
        return _load(path)


class KittiFormatted(SnippetDataModule):
    """Scenes of images in SfMLearner's format.

    Neighbours in a scene are neighbours in time if their numbers say so (`max_gap`), for frames
    at which the car stood were left out. Without `test.txt` the validation part serves for testing
    as well, with a warning.

    Args:
        root: the folder of the lists.
        max_gap: see `SnippetDataModule`.
        **options: settings of `SnippetDataModule`.
    """

    def __init__(
        self, root: str = "data/kitti_formatted", *, max_gap: int = 3, **options: Any
    ) -> None:
        super().__init__(root, max_gap=max_gap, **{"rate": 10.0, **options})

    def list_drives(self) -> DriveListing:
        problems: list[Problem] = []
        parts = {part: self._part(part, problems) for part in SCENE_LISTS}
        if not parts["train"] and not parts["val"] and not problems:
            raise DataError(
                f"the lists of scenes in {self.root!r} are empty: write them again with "
                "SfMLearner's prepare_train_data.py"
            )
        if not parts["test"]:
            warnings.warn(
                "there is no test part: the validation part serves for testing", stacklevel=2
            )
            parts["test"] = parts["val"]
        return DriveListing(**parts, problems=problems)

    def _part(self, part: str, problems: list[Problem]) -> list[Drive]:
        path = Path(self.root, SCENE_LISTS[part])
        if not path.is_file():
            if part == "test":
                return []
            raise DataError(
                f"no {SCENE_LISTS[part]} in {self.root!r}: expected train.txt, val.txt and"
                " <scene>/{cam.txt,0000000000.jpg,...}, which SfMLearner's "
                "prepare_train_data.py writes; set data.root=FOLDER"
            )
        try:
            names = text_of(path).split("\n")
        except OSError as error:
            raise DataError(
                f"cannot read {str(path)!r} ({error.strerror}): write the scenes again"
            ) from error
        drives = []
        for name in dict.fromkeys(filter(None, map(str.strip, names))):
            try:
                drives.append(self._scene(name, problems))
            except DataError as error:
                problems.append(Problem("calib", str(Path(self.root, name)), str(error), name))
        return [drive for drive in drives if drive is not None]

    def _scene(self, name: str, problems: list[Problem]) -> Drive | None:
        """A scene; None where it has no images.

        Raises:
            DataError: it has no intrinsics.
        """
        folder = Path(self.root, name)
        found = images.numbered(folder)
        if not found:
            why = "listed, but there are no images; write the scene again or remove its row"
            problems.append(Problem("missing", str(folder), why, name))
            return None
        drive = drive_of(name, folder, found, self.camera_of(folder))
        arrays = tuple(path.with_suffix(".npy") for path in drive.images)
        known = next(filter(Path.is_file, arrays), None)
        try:
            if known is not None:
                height, width = _load(known).shape
                drive = replace(drive, depth=DepthArrays(arrays, (height, width)))
        except DataError as error:
            problems.append(Problem("truth", str(known), str(error), name))
        poses = folder / "poses.txt"
        try:
            if poses.is_file():
                drive = replace(drive, poses=_poses(poses, len(found)))
        except DataError as error:
            problems.append(Problem("poses", str(poses), str(error), name))
        return drive

    def camera_of(self, folder: Path) -> NDArray[np.float64]:
        if self.given is not None:
            return self.given
        for place in (folder, folder.absolute().parent):
            if (place / CALIBRATION_FILE).is_file():
                return _table(place / CALIBRATION_FILE, 3, "rows of 3 numbers")[:3]
        return super().camera_of(folder)


def _poses(path: Path, count: int) -> NDArray[np.float64]:
    rows = _table(path, 12, "rows of 12 numbers")
    if len(rows) != count:
        raise DataError(f"it has {len(rows)} poses for {count} images: none are used")
    try:
        return cameras.rigid_poses(rows.reshape(-1, 3, 4))
    except ValueError as error:
        raise DataError(f"its poses cannot be used: {error}") from error


def _table(path: Path, columns: int, what: str) -> NDArray[np.float64]:
    try:
        lines = text_of(path).splitlines()
        rows = np.array([line.split() for line in lines if line.strip()], np.float64)
    except (OSError, ValueError):
        rows = np.empty(0)
    if rows.ndim != 2 or rows.shape[1] != columns or not np.isfinite(rows).all():
        raise DataError(f"{str(path)!r} is not {what}: write the scene again")
    return rows


def _load(path: Path) -> NDArray[np.float32]:
    """Depth of an image. (h, w)

    Raises:
        DataError: it is damaged.
    """
    try:
        depth = load_array(path)
    except ValueError as error:
        raise DataError(
            f"depth {str(path)!r} is damaged ({error}): write the scene again"
        ) from error
    if depth.ndim != 2 or depth.dtype.kind != "f":
        raise DataError(f"depth {str(path)!r} is not an image of metres: write the scene again")
    return depth.astype(np.float32)
