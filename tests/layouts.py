"""Miniature data sets in the layouts of the real ones: real encoded files, and ways to harm them.

Each writer makes `CLASSES` (or names of its own for them) of `COUNT` clips or more from the
frames of the synthetic actions, and returns the root. Names are as awkward as the real ones.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from lightning_cam.synthetic import multispectral as spectra
from lightning_cam.synthetic import something as interactions
from lightning_cam.synthetic.actions import files as actions

CLASSES = ("blink", "move_left")
COUNT = 6  # clips of a class
_CODECS = {".mpg": "mpeg1video", ".avi": "mpeg4", ".mp4": "libx264", ".webm": "libvpx"}
_CODECS |= {".mkv": "libx264", ".mov": "libx264"}
_CODEC_OPTIONS = {"libx264": {"preset": "ultrafast"}, "libvpx": {"deadline": "realtime"}}


def frames(name: str, number: int, count: int = 48) -> np.ndarray:
    """Frames of a synthetic action in 64x64. (count, 64, 64, 3) uint8"""
    key = actions.ActionKey(actions.CLASSES.index(name), 1 + number, 1)
    return actions.draw_action(key, size=64)[0][:count]


def encode(path: Path, images: np.ndarray, fps: int = 30) -> Path:
    """Write a video of the kind that its suffix says; a name without one becomes images."""
    if path.suffix not in _CODECS:
        path.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images, 1):
            cv2.imwrite(str(path / f"{number:05d}.jpg"), image[..., ::-1])
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = _CODECS[path.suffix]
    with av.open(str(path), "w") as container:
        options = _CODEC_OPTIONS.get(codec, {})
        stream = container.add_stream(codec, rate=Fraction(fps), options=options)
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def cut(path: Path) -> Path:
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _clips() -> Iterator[tuple[str, int, np.ndarray]]:
    for name in CLASSES:
        for number in range(COUNT):
            yield name, number, frames(name, number)


def ucf11(root: Path) -> Path:
    """`<class>/v_<prefix>_<group>/v_<prefix>_<group>_<clip>.mpg`, three groups of two clips."""
    prefixes = {"blink": "blink", "move_left": "walk_dog"}
    for name, number, images in _clips():
        stem = f"v_{prefixes[name]}_{1 + number // 2:02d}"
        path = root / "UCF11_updated_mpg" / name / stem / f"{stem}_{1 + number % 2:02d}.mpg"
        encode(path, images)
    return root


HMDB51_NAMES = {"blink": "clap", "move_left": "shoot_ball"}
HMDB51_FILES = (
    "April_09_{}_u_nm_np1_fr_goo_0.avi",
    "April_09_{}_u_nm_np1_fr_goo_1.avi",
    "#20_Rhythm_&_Clap!_{}_u_cm_np1_fr_med_3.avi",
    "Kids;_[HD]_(part_2)_{}_f_nm_np2_le_bad_1.avi",
    "It's a wonderful life_{}_h_nm_np1_ri_goo_7.avi",
    "veoh_harold_and_kumar_{}_u_cm_np3_ba_med_12.avi",
)


def hmdb51(root: Path) -> Path:
    """`<class>/<video>.avi` and the lists of split 1: the first four train, the last two test."""
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    rows: dict[str, list[str]] = {name: [] for name in HMDB51_NAMES.values()}
    for name, number, images in _clips():
        label = HMDB51_NAMES[name]
        file = HMDB51_FILES[number].format(label)
        encode(root / label / file, images)
        rows[label].append(f"{file} {1 if number < 4 else 2} \n")
    for label, lines in rows.items():
        (lists / f"{label}_test_split1.txt").write_text("".join(lines))
    return root


KINETICS_NAMES = {"blink": "blowing out candles, slowly", "move_left": "drop kicking"}


def kinetics(root: Path) -> Path:
    """CSV lists and `<part>/<label>/<id>_<start>_<end>.mp4`; the test list has no labels."""
    root.mkdir(parents=True, exist_ok=True)
    header = ["label", "youtube_id", "time_start", "time_end", "split", "is_cc"]
    lists: dict[str, list[list[object]]] = {"train": [header], "validate": [header]}
    for name, number, images in _clips():
        part = "train" if number < 4 else "validate"
        label = KINETICS_NAMES[name]
        youtube_id, start = f"--{name[0]}QUuC4vJ{number}", 84 + number
        lists[part].append([label, youtube_id, start, start + 10, part, 0])
        folder = label if name == "blink" else label.replace(" ", "_")
        file = f"{youtube_id}_{start:06d}_{start + 10:06d}.mp4"
        encode(root / part / folder / file, images)
    lists["test"] = [header[1:5], ["zzzzzzzzzzz", 1, 11, "test"]]
    for part, rows in lists.items():
        with (root / f"{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return root


def folder(root: Path) -> Path:
    """Class folders with every kind of file, subfolders, and a folder of images."""
    names = ("a.mp4", "b [1].webm", "sub/c.mkv", "sub/deep/d.MOV", "e.avi", "f")
    for name, number, images in _clips():
        file = root / name / names[number]
        written = encode(file.with_suffix(file.suffix.lower()), images)
        written.rename(file)
    return root


SOMETHING_NAMES = ("Opening something", "Closing something")


def something(root: Path, version: int) -> Path:
    """Version 1 (folders of images, CSV) or 2 (webm, JSON), and the workers' ground truth."""
    return interactions.render_something(
        root, clips=10, workers=5, version=version, templates=SOMETHING_NAMES, height=48
    )


MULTISPECTRAL_NAMES = ("swing_ccw", "swing_cw")


def multispectral(root: Path) -> Path:
    """`SOIB/{IR,TV}` and its lists, for actors 1-3, 4 and 5 for training, validation and test."""
    return spectra.render_multispectral(root, actors=5, repetitions=1, actions=MULTISPECTRAL_NAMES)
