"""KITTI raw: drives by date, with the test part of Eigen et al.

    <root>/<date>/calib_{cam_to_cam,velo_to_cam,imu_to_velo}.txt
    <root>/<date>/<date>_drive_0001_sync/{image_02,image_03,oxts,velodyne_points}/...

Geiger et al., "Vision meets Robotics: The KITTI Dataset", IJRR 2013. What lies in the folder of a
drive is in `lightning_cam.data.drives.kitti_recordings`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_cam.data.core.listing import Problem, hash_order
from lightning_cam.data.core.selection import check_share
from lightning_cam.data.drives.drive import Drive, DriveClip, snippets
from lightning_cam.data.drives.kitti_calibration import Camera, read_raw_camera
from lightning_cam.data.drives.kitti_lists import TEST_CAMERA, drive_name, eigen_test, read_static
from lightning_cam.data.drives.kitti_recordings import Recording, read_recordings
from lightning_cam.data.drives.module import DriveListing, SnippetDataModule, SnippetDataset
from lightning_cam.data.drives.velodyne import AXES
from lightning_cam.errors import ConfigError, DataError, UnknownNameError

LAYOUT = (
    "<root>/2011_09_26/calib_cam_to_cam.txt and "
    "<root>/2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000000.png"
)
CAMERA_FOLDERS = ("image_00", "image_01", "image_02", "image_03")
_DRIVE = re.compile(r"\d{4}_\d\d_\d\d_drive_\d{4}_sync")
_Known = dict[tuple[Path, str], Camera | None]


class KittiRaw(SnippetDataModule):
    """KITTI raw, tested on the 697 images of Eigen et al.

    None of the 28 drives of these images is for training or validation. Of the others a share is
    for validation, in an order that depends on their names alone; all cameras of a drive are on
    one side. Both parts leave out the frames at which the car stands.

    A test clip is the snippet around one of the 697 images, with depth for that one. Where it
    has no neighbour (some are the first of their drive), the nearest image takes its place; no
    pose of such a clip is known, so that it counts in no error of motion.

    Poses are those of GPS and IMU, depth is that of the laser scanner.

    Args:
        root: the folder of the dates.
        cameras: whose images to train and validate on, each as a sequence of its own.
        val_share: of the drives that are not for testing, above 0 and below 0.5.
        min_disp: metres between neighbours in training and validation at least; 0 for all frames.
        static_frames: path of a list of the frames to leave out instead, such as SfMLearner's
            `static_frames.txt`.
        depth_axis: what true depth is: "camera": z of the camera; "velodyne": x of the scanner,
            about 0.27 m more, which published figures are of.
        max_gap: see `SnippetDataModule`; above 1, for frames are left out.
        **options: settings of `SnippetDataModule`.
    """

    def __init__(
        self,
        root: str = "data/kitti_raw",
        *,
        cameras: Sequence[str] = ("image_02", "image_03"),
        val_share: float = 0.1,
        min_disp: float = 0.2,
        static_frames: str | None = None,
        depth_axis: str = "camera",
        max_gap: int = 3,
        **options: Any,
    ) -> None:
        super().__init__(root, max_gap=max_gap, **{"rate": 10.0, **options})
        for name in cameras:
            if name not in CAMERA_FOLDERS:
                raise UnknownNameError("data.cameras", name, CAMERA_FOLDERS)
        if not cameras or len(set(cameras)) < len(cameras):
            raise ConfigError(f"data.cameras={list(cameras)} must name each camera once")
        if depth_axis not in AXES:
            raise UnknownNameError("data.depth_axis", depth_axis, AXES)
        if type(min_disp) not in (int, float) or not 0 <= min_disp < np.inf:
            raise ConfigError(f"data.min_disp={min_disp!r} must be metres, 0 or more")
        check_share(val_share=val_share)
        self.cameras = tuple(cameras)
        self.val_share = val_share
        self.min_disp = min_disp
        self.static_frames = static_frames
        self.depth_axis = depth_axis

    def list_drives(self) -> DriveListing:
        folders = _drive_folders(self.root)
        static = None if self.static_frames is None else read_static(self.static_frames)
        tested = eigen_test()
        held = _held(folders.keys() - tested, self.val_share)
        problems: list[Problem] = []
        parts: dict[str, list[Drive]] = {"train": [], "val": [], "test": []}
        known: _Known = {}
        for name, folder in folders.items():
            wanted = [TEST_CAMERA] if name in tested else self.cameras
            cameras = self._calibrated(folder.parent, wanted, known, problems)
            for recording in read_recordings(folder, cameras, problems):
                if name in tested:
                    parts["test"] += self._tested(recording, tested[name], problems)
                else:
                    standing = None if static is None else static.get(name, frozenset())
                    parts["val" if name in held else "train"] += self._moving(recording, standing)
        problems += [
            Problem("missing", f"{name}_sync", f"{len(numbers)} of the test images are of this "
                    "drive; unpack it, or do without them", f"{name}_sync_{TEST_CAMERA[-2:]}")
            for name, numbers in tested.items() if name not in folders
        ]  # fmt: skip
        return DriveListing(**parts, problems=problems)

    def _calibrated(
        self, date: Path, names: Iterable[str], known: _Known, problems: list[Problem]
    ) -> dict[str, Camera]:
        """The cameras of a date that can be used; what is wrong is added to the problems once."""
        for name in names:
            if (date, name) in known:
                continue
            known[date, name] = None if self.given is None else Camera(self.given)
            try:
                known[date, name] = camera = read_raw_camera(date, name)
            except DataError as error:
                problems.append(Problem("calib", str(date), str(error)))
                continue
            for what, which in (("depth", camera.to_pixels), ("poses", camera.from_imu)):
                if which is None:
                    why = (
                        f"a calibration file is not there: no {what}; unpack {date.name}_calib.zip"
                    )
                    problems.append(Problem("calib", str(date), why, name))
        found = {name: known[date, name] for name in names}
        return {name: camera for name, camera in found.items() if camera is not None}

    def _moving(self, recording: Recording, standing: Collection[int] | None) -> Iterator[Drive]:
        """A recording without the frames at which the car stands; none if it hardly moves."""
        if standing is None:
            keep = recording.moving(self.min_disp)
        else:
            keep = ~np.isin(recording.numbers, list(standing))
        whole, kept = self._drive(recording), self._drive(recording, np.flatnonzero(keep))
        if self._fits(kept):
            yield kept
        elif not self._fits(whole):
            yield whole  # too short by itself, which is said of it where it is checked

    def _tested(
        self, recording: Recording, numbers: Sequence[int], problems: list[Problem]
    ) -> Iterator[Drive]:
        """The snippets around the images that are tested."""
        place = {number: at for at, number in enumerate(recording.numbers.tolist())}
        blind = []
        for number in numbers:
            at = place.get(number)
            if at is None:
                path = recording.images[0].with_name(f"{number:010d}.png")
                why = "a test image that is not there; unpack the drive again"
                problems.append(Problem("missing", str(path), why, recording.name))
                continue
            if recording.scans[at] is None:
                blind.append(number)
            around = recording.snippet(at, self.snippet, self.max_gap, self.depth_axis)
            yield self._with_given(around)
        if blind:
            folder = recording.images[0].parents[2]
            path = folder / "velodyne_points" / "data" / f"{blind[0]:010d}.bin"
            why = (
                f"{len(blind)} of the drive's {len(numbers)} test images, this one first, have "
                "no scan and count in no error of depth; unpack the drive's velodyne_points"
            )
            problems.append(Problem("missing", str(path), why, recording.name))

    def _drive(self, recording: Recording, positions: NDArray[np.int64] | None = None) -> Drive:
        """Some images of a recording, or all of them."""
        if positions is None:
            positions = np.arange(len(recording.numbers))
        return self._with_given(recording.drive(positions, self.depth_axis))

    def _with_given(self, drive: Drive) -> Drive:
        return drive if self.given is None else replace(drive, intrinsics=self.given, size=None)

    def _fits(self, drive: Drive) -> bool:
        return any(True for _ in snippets(drive, self.snippet, self.max_gap))

    def _dataset(self, part: str, *, train: bool = False) -> SnippetDataset:
        """As everywhere, but test clips are the snippets of the images that are tested."""
        if part != "test" or train:
            return super()._dataset(part, train=train)
        n = self.snippet
        clips = [_Tested(drive, 0, n, n, (n // 2, n // 2 + 1)) for drive in self.listing.test]
        return SnippetDataset(clips, replace(self.reader, num_frames=n), cache=self.cache is True)

    def named(self, name: str) -> Drive:
        """As everywhere, but a drive that is tested comes whole."""
        tested = next((drive for drive in self.listing.test if drive.name == name), None)
        if tested is None:
            return super().named(name)
        folder = tested.folder.parents[1]
        cameras = self._calibrated(folder.parent, [TEST_CAMERA], {}, [])
        (recording,) = read_recordings(folder, cameras, [])
        return self._drive(recording)

    def camera_of(self, folder: Path) -> NDArray[np.float64]:
        folder = folder.absolute()
        for place in (folder, folder.parent):
            if place.name in CAMERA_FOLDERS:
                return read_raw_camera(place.parents[1], place.name).intrinsics
        return super().camera_of(folder)


class _Tested(DriveClip):
    """A test clip, named for the image in its middle: at the start of a drive two are alike."""

    @property
    def clip_id(self) -> str:
        return f"{self.drive.name}_{self.drive.images[self.targets[0]].stem}"


def _drive_folders(root: str) -> dict[str, Path]:
    """Names of the drives that are there -> their folders."""
    found = {
        drive_name(path.name): path
        for path in sorted(Path(root).glob("*/*_drive_*"))
        if _DRIVE.fullmatch(path.name) and path.is_dir()
    }
    if not found:
        raise DataError(
            f"no KITTI raw data at {root!r}: expected {LAYOUT}; unpack the drives "
            "([synced+rectified data]) and calibrations there and set data.root=FOLDER (see "
            "data/README.md), or try data=synthetic_odometry"
        )
    return found


def _held(names: Collection[str], share: float) -> set[str]:
    """The drives for validation: at least one, but not all."""
    count = min(max(1, round(share * len(names))), len(names) - 1)
    return set(hash_order(names)[: max(count, 0)])
