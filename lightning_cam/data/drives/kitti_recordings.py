"""Drives of KITTI raw as they were recorded: images, clock, positions and laser scans.

    <root>/<date>/<date>_drive_0001_sync/image_02/{timestamps.txt, data/0000000000.png ...}
                                         oxts/data/0000000000.txt ...
                                         velodyne_points/data/0000000000.bin ...

Any of these may lack files: what belongs together has the same number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_cam.data.core.listing import Problem
from lightning_cam.data.drives import kitti_oxts
from lightning_cam.data.drives.drive import Drive
from lightning_cam.data.drives.kitti_calibration import Camera
from lightning_cam.data.drives.velodyne import VelodyneDepth
from lightning_cam.data.video import frame_folders as images
from lightning_cam.errors import DataError


@dataclass(frozen=True, eq=False)
class Recording:
    """What one camera saw of a drive, n images, and what else is known of these.

    Attributes:
        name: of the drive's folder and of the camera, as in "2011_09_26_drive_0001_sync_02".
        images: in order.
        numbers: (n,) of the images.
        camera: its calibration.
        packets: (n, 11), see `kitti_oxts.read_packets`.
        times: (n,) seconds.
        scans: of the images, None where there is none.
    """

    name: str
    images: tuple[Path, ...]
    numbers: NDArray[np.int64]
    camera: Camera
    packets: NDArray[np.float64]
    times: NDArray[np.float64]
    scans: tuple[Path | None, ...]

    def moving(self, distance: float) -> NDArray[np.bool_]:
        """Which images to keep so that there are metres between them, see `kitti_oxts`."""
        return kitti_oxts.moving_frames(self.packets, self.times, distance)

    def drive(self, positions: NDArray[np.int64], axis: str) -> Drive:
        """Some of the images as a sequence.

        Args:
            positions: which, in order.
            axis: of true depth, see `velodyne.project`.
        """
        depth = poses = None
        scans, matrix = tuple(self.scans[position] for position in positions), self.camera.to_pixels
        if any(scans) and matrix is not None and self.camera.size is not None:
            depth = VelodyneDepth(scans, matrix, self.camera.size, axis)
        if self.camera.from_imu is not None:
            poses = kitti_oxts.camera_poses(self.packets, self.camera.from_imu)[positions]
        return Drive(
            name=self.name,
            images=tuple(self.images[position] for position in positions),
            numbers=tuple(self.numbers[positions].tolist()),
            intrinsics=self.camera.intrinsics,
            poses=poses,
            times=self.times[positions],
            depth=depth,
            size=self.camera.size,
        )

    def snippet(self, position: int, size: int, max_gap: int, axis: str) -> Drive:
        """The image at a position and its neighbours, with depth for that one alone.

        Where there is no neighbour, the nearest image takes its place and no pose is known.

        Args:
            position: of the image in the middle.
            size: of the snippet, odd.
            max_gap: by which the numbers of neighbours may differ.
            axis: see `drive`.
        """
        cuts = np.flatnonzero(np.diff(self.numbers) > max_gap) + 1
        start = cuts[cuts <= position].max(initial=0)
        stop = cuts[cuts > position].min(initial=len(self.numbers))
        wanted = position + np.arange(size) - size // 2
        taken = wanted.clip(start, stop - 1)
        drive = self.drive(taken, axis)
        depth = drive.depth if self.scans[position] is not None else None
        return replace(
            drive,
            poses=drive.poses if (taken == wanted).all() else None,
            depth=depth.only(size // 2) if isinstance(depth, VelodyneDepth) else None,
        )


def read_recordings(
    folder: Path, cameras: Mapping[str, Camera], problems: list[Problem]
) -> list[Recording]:
    """What cameras recorded on a drive.

    Args:
        folder: of the drive.
        cameras: name of the images' folder -> calibration.
        problems: what is missing or damaged is added here.
    """
    found = {name: dict(images.numbered(folder / name / "data")) for name in cameras}
    for name in (name for name, rows in found.items() if not rows):
        why = "it has no images; unpack the drive again, or choose others with data.cameras=[NAME]"
        problems.append(Problem("missing", str(folder / name / "data"), why, folder.name))
    everything = sorted(set().union(*found.values()))
    packets = kitti_oxts.read_packets(folder / "oxts" / "data", everything)
    if np.isnan(packets).any():
        problems.append(_lost(folder, everything, np.isnan(packets[:, 0])))
    scans = _scans(folder / "velodyne_points" / "data")
    return [
        Recording(
            name=f"{folder.name}_{name.removeprefix('image_')}",
            images=tuple(folder / name / "data" / rows[number] for number in rows),
            numbers=np.array(list(rows), np.int64),
            camera=cameras[name],
            packets=packets[np.searchsorted(everything, list(rows))],
            times=_times(folder / name / "timestamps.txt", list(rows), problems),
            scans=tuple(scans.get(f"{number:010d}.bin") for number in rows),
        )
        for name, rows in found.items()
        if rows
    ]


def _scans(folder: Path) -> dict[str, Path]:
    """File name -> path; one look at the folder instead of one at each file."""
    return {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}


def _lost(folder: Path, numbers: Sequence[int], lost: NDArray[np.bool_]) -> Problem:
    """The positions that a drive lacks, as one problem."""
    where = folder / "oxts" / "data"
    if lost.all():
        why = (
            "no positions: neither its poses nor the frames at which it stands are known; unpack "
            "the drive again"
        )
        return Problem("poses", str(where), why, folder.name)
    first = where / f"{numbers[int(lost.argmax())]:010d}.txt"
    why = (
        f"{lost.sum()} of the drive's {len(lost)} positions, this one first, are missing or "
        "damaged, and so are the poses of these frames; unpack the drive again"
    )
    return Problem("poses", str(first), why, folder.name)


def _times(path: Path, numbers: Sequence[int], problems: list[Problem]) -> NDArray[np.float64]:
    """Seconds of images by their clock, or by their numbers where that cannot be used."""
    try:
        times = kitti_oxts.read_times(path)
        why = "it has fewer times than there are images, or they do not increase"
        if len(times) > max(numbers) and (np.diff(times) > 0).all():
            return times[list(numbers)]
    except DataError as error:
        why = str(error)
    rate = f"{1 / kitti_oxts.PERIOD:g} images a second are assumed; unpack the drive again"
    problems.append(Problem("times", str(path), f"{why}: {rate}", path.parents[1].name))
    return np.array(numbers) * kitti_oxts.PERIOD
