"""Lists of KITTI raw: the test part of Eigen et al., and frames at which the car stands."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from lightning_cam.data.core.text_files import text_of
from lightning_cam.errors import DataError

EIGEN = Path(__file__).with_name("lists") / "kitti_eigen_test.txt"
TEST_CAMERA = "image_02"


def eigen_test() -> dict[str, tuple[int, ...]]:
    """Drives that are for testing -> the images of `TEST_CAMERA` that are tested.

    697 images in 28 drives, named as in "2011_09_26_drive_0002".
    """
    rows = [line.partition(":") for line in EIGEN.read_text().splitlines() if line[0] != "#"]
    return {drive: tuple(map(int, numbers.split())) for drive, _, numbers in rows}


def read_static(path: str | Path) -> dict[str, frozenset[int]]:
    """Frames at which the car stands, by drive, from a list such as SfMLearner's.

    Args:
        path: a text file of rows `2011_09_26 2011_09_26_drive_0009_sync 0000000386`.

    Raises:
        DataError: there is no such file, or a row makes no sense.
    """
    try:
        lines = text_of(Path(path)).splitlines()
    except OSError as error:
        raise DataError(
            f"cannot read data.static_frames={str(path)!r} ({error.strerror}): give SfMLearner's "
            "data/kitti/static_frames.txt, or null to leave out frames by data.min_disp"
        ) from error
    found = defaultdict(set)
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 3 or not words[2].isdecimal():
            raise DataError(
                f"{path}:{number}: {line.strip()!r} is not '<date> <drive> <frame>'; mend the row"
            )
        found[drive_name(words[1])].add(int(words[2]))
    return {drive: frozenset(frames) for drive, frames in found.items()}


def drive_name(folder: str) -> str:
    """Name of a drive from that of its folder: without "_sync"."""
    return folder.removesuffix("_sync")
