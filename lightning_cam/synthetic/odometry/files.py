"""Writing the sequences into a folder, in the layout of KITTI odometry."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lightning_cam.data.core.arrays import Array
from lightning_cam.data.drives.cameras import relative_to_first
from lightning_cam.files import write_text
from lightning_cam.synthetic.images import write_images
from lightning_cam.synthetic.manifest import check_ranges, manifest_of
from lightning_cam.synthetic.odometry.course import INTERVAL, MAX_FRAMES
from lightning_cam.synthetic.odometry.evidence import EVIDENCE_MASKS, evidence_masks
from lightning_cam.synthetic.odometry.ray_casting import RenderedFrame, intrinsics, render_frame
from lightning_cam.synthetic.odometry.world import World, world
from lightning_cam.synthetic.rendering import render_once

REVISION = 1
TRAIN, VAL, TEST, EVIDENCE_SEQUENCE = ("00", "01", "02"), "09", "10", "11"
DEPTH_UNIT = 256  # of the depth images, to the metre
_NAME = "{:06d}.png"  # of images
_PIECE = 20  # frames that one job renders
# Axes of KITTI's laser (x forwards, y to the left, z up) in the camera, at the same place.
_LASER = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0]])


class _Piece(NamedTuple):
    sequence: str
    start: int
    stop: int


def world_of(sequence: str, seed: int = 0) -> World:
    """The world of a sequence, named as its folder is."""
    return world(seed, int(sequence), sequence == EVIDENCE_SEQUENCE)


def render_odometry(
    root: str | Path,
    *,
    train: int = 150,
    val: int = 80,
    test: int = 80,
    evidence: int = 80,
    scale: int = 1,
    seed: int = 0,
    processes: int | None = None,
) -> Path:
    """Render the data set into `root` unless it is there already.

    Writes `sequences/<XX>/image_2/%06d.png` (208x64 times `scale`), `sequences/<XX>/calib.txt`
    (P0 to P3, all equal, and Tr), `sequences/<XX>/times.txt` (0.1 s a frame) and `poses/<XX>.txt`
    (camera to world, the first one the identity), as KITTI odometry has them; and, with the same
    names as the images, `ground_truth/<XX>/depth/%06d.png` (16 bits, metres * 256, 0 = unknown:
    the sky, and beyond 80 m). Sequences 00, 01 and 02 are for training, 09 for validation, 10 for
    testing. Sequence 11 is the evidence sequence: a box moves by itself in it, and a wall has one
    colour; its masks are in `ground_truth/11/{moving,flat,rich}/%06d.png` (0 or 255), see
    `evidence_masks`.
    A sequence depends on the seed and its name only: fewer frames are the first ones of more (but
    `rich` compares within the sequence, so that mask depends on its length).

    Args:
        root: folder of the data set.
        train: frames of each training sequence.
        val: frames of the validation sequence.
        test: frames of the test sequence.
        evidence: frames of the evidence sequence.
        scale: factor of the image size 208x64.
        seed: of all randomness.
        processes: worker processes; None for one per CPU.

    Raises:
        DataError: an argument is out of its range, or `root` cannot be used.
    """
    frames = range(3, MAX_FRAMES + 1)
    check_ranges(
        train=(train, frames),
        val=(val, frames),
        test=(test, frames),
        evidence=(evidence, frames),
        scale=(scale, range(1, 7)),
    )
    lengths = {EVIDENCE_SEQUENCE: evidence} | dict.fromkeys(TRAIN, train) | {VAL: val, TEST: test}
    settings = {"seed": seed, "scale": scale, "frames": lengths, "interval": INTERVAL}
    drawn = {
        name: [render_frame(world_of(name, seed), 0, scale).frame]
        for name in (TRAIN[0], TEST, EVIDENCE_SEQUENCE)
    }
    manifest = manifest_of("synthetic_odometry", REVISION, settings, drawn)
    write = partial(_write, manifest=manifest)
    return render_once(root, manifest, _pieces(lengths), write, _files, processes=processes)


def _pieces(lengths: dict[str, int]) -> list[_Piece]:
    """The jobs, those of the evidence sequence first: its frames are compared, so it is one."""
    return [
        _Piece(name, start, min(start + step, count))
        for name, count in lengths.items()
        for step in (count if name == EVIDENCE_SEQUENCE else _PIECE,)
        for start in range(0, count, step)
    ]


def _files(manifest: dict[str, Any]) -> Iterator[str]:
    """Relative paths of all files of a rendering."""
    for name, count in manifest["frames"].items():
        yield f"poses/{name}.txt"
        yield from (f"sequences/{name}/{of}.txt" for of in ("calib", "times"))
        folders = [f"sequences/{name}/image_2", f"ground_truth/{name}/depth"]
        if name == EVIDENCE_SEQUENCE:
            folders += [f"ground_truth/{name}/{part}" for part in EVIDENCE_MASKS]
        yield from (f"{folder}/{i:06d}.png" for folder in folders for i in range(count))


def _write(root: Path, piece: _Piece, *, manifest: dict[str, Any]) -> None:
    """Render some frames of a sequence and, with the first of them, what is known of them all."""
    name, scale = piece.sequence, manifest["scale"]
    of = world_of(name, manifest["seed"])
    if piece.start == 0:
        _write_texts(root, name, of, manifest["frames"][name], scale)
    shots = [render_frame(of, frame, scale) for frame in range(piece.start, piece.stop)]
    truth = root / "ground_truth" / name
    for folder, images in {
        root / "sequences" / name / "image_2": [shot.frame for shot in shots],
        truth / "depth": [_depth(shot) for shot in shots],
    }.items():
        write_images(folder, images, _NAME, first=piece.start)
    if name == EVIDENCE_SEQUENCE:
        for part, mask in evidence_masks(of, shots, scale).items():
            write_images(truth / part, mask * np.uint8(255), _NAME)


def _write_texts(root: Path, name: str, of: World, count: int, scale: int) -> None:
    folder = root / "sequences" / name
    camera = np.hstack([intrinsics(scale), np.zeros((3, 1))])
    rows = {f"P{number}": camera for number in range(4)} | {"Tr": _LASER}
    calib = "".join(f"{key}: {_numbers(row, 12)}\n" for key, row in rows.items())
    write_text(folder / "calib.txt", calib)
    times = "".join(f"{frame * INTERVAL:.6e}\n" for frame in range(count))
    write_text(folder / "times.txt", times)
    poses = "".join(f"{_numbers(pose[:3], 6)}\n" for pose in trajectory(of, count))
    write_text(root / "poses" / f"{name}.txt", poses)


def trajectory(of: World, count: int) -> Array:
    """Poses (count, 4, 4) from the camera to the first camera."""
    moved = relative_to_first(of.course.poses[:count])
    moved[0] = np.eye(4)
    return moved


def _numbers(values: Array, digits: int) -> str:
    return " ".join(f"{value:.{digits}e}" for value in values.ravel() + 0.0)  # no -0


def _depth(shot: RenderedFrame) -> Array:
    return np.rint(shot.depth * DEPTH_UNIT).astype(np.uint16)
