"""Data sets of all kinds and odd checkpoints, for the commands of `situations.py`."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import layouts
import numpy as np
import pytest
import torch
from test_annotations import ucf_annotations, ucf_node
from test_kitti import lay as odometry
from test_kitti_raw import DATE, K, calibrate, drive_folder, film
from test_multispectral import lay as spectra
from test_something import PAIR, write_lists

import lightning_cam as lc
from lightning_cam.training.checkpoint import KEY


def lay_out(place: Path) -> None:
    """Data sets of all kinds, and what else the commands of `situations.py` are given."""
    lay_out_lists(place)
    shutil.copytree(place / "multispectral" / "SOIB" / "IR", place / "ir" / "IR")
    deep = shutil.copytree(place / "multispectral", place / "deep")
    for image in (deep / "SOIB" / "IR").rglob("*.png"):
        cv2.imwrite(str(image), np.arange(1200, dtype=np.uint16).reshape(30, 40) + 1000)
    for number in (0, 1, 9):
        odometry(place / "kitti", number, 9)
    for number in ("0001", "0005", "0011"):
        film(drive_folder(place / "raw", number), [5.0] * 8)
    calibrate(place / "raw" / DATE)
    shutil.copytree(place / "kitti_formatted", place / "formatted")
    bare = shutil.copytree(place / "kitti", place / "bare")
    (bare / "sequences" / "01" / "calib.txt").unlink()
    torn = shutil.copytree(place / "kitti", place / "torn")
    (torn / "sequences" / "01" / "calib.txt").write_text("P0: 1\n")
    for part, name in (("train", "a"), ("val", "a"), ("val", "b")):
        _name(place / "lopsided" / part / name / f"{part}.mp4")
    csvless = shutil.copytree(place / "kinetics", place / "csvless")
    for each in csvless.glob("*.csv"):
        each.unlink()
    for name in ("Biking", "Diving"):
        for clip in (1, 2, 3):
            _name(place / "acts" / name / f"v_{name}_g01_c{clip:02}.avi")
    ucf_annotations(place / "pyannot.pkl")
    (place / "others.pkl").write_bytes(pickle.dumps({"Surfing/v_x": ucf_node(0)}))
    (place / "torn.pkl").write_bytes(b"\x80\x04}torn")
    (place / "boxes.json").write_text("{")
    for table in ("action", "object"):
        (place / "epic").mkdir(exist_ok=True)
        (place / "epic" / f"EPIC_train_{table}_labels.csv").write_text("uid,video_id\n1,a\n")
    for name in ("empty", "out", "rows", "other", "torn_out", "busy"):
        (place / name).mkdir()
    (place / "out" / "index.html").touch()
    (place / "clip.mp4").touch()
    (place / "rows" / "rows.rank0.jsonl").touch()
    (place / "other" / "explain.json").write_text('{"fps": 3}')
    (place / "torn_out" / "explain.json").write_text("{")
    _change(place, "moved", lambda memory: memory["data"].update(root="gone"))
    _change(place, "twin", lambda memory: memory["run"].update(name="twin"))
    _change(place, "fast", lambda memory: memory["data"].update(fps=20000.0))
    _change(place, "absurd", lambda memory: memory["run"].update(explain={"a": RISES}))
    _change(place, "strange", lambda memory: memory["run"].update(explain={"a": STRANGER}))


def lay_out_lists(place: Path) -> None:
    """Data sets with lists, with files that are none where only their names are read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "encode", _name)
        patch.setattr(layouts, "frames", lambda *_: None)
        for name in ("ucf11", "folder", "hmdb51", "kinetics"):
            getattr(layouts, name)(place / name)
    for version, suffix in ((1, ""), (2, ".webm")):
        rows = {
            part: [(str(n + 10 * k), text) for n, text in enumerate(2 * PAIR)]
            for k, part in enumerate(("train", "validation", "test"))
        }
        write_lists(place / "something", rows, PAIR, version)
        media = place / "something" / f"20bn-something-something-v{version}"
        for part in rows.values():
            for number, _ in part:
                _name(media / f"{number}{suffix}")
    spectra(place / "multispectral", 3)
    _formatted(place / "kitti_formatted")


RISES = {"_target_": "lightning_cam.RISE", "masks": 10**9}
STRANGER = {"_target_": "data_sets.Stranger"}


class Stranger(lc.GradCAM):
    """A method of a package that nobody trusts."""


def _change(place: Path, name: str, change: Callable[[Any], object]) -> None:
    """A checkpoint that remembers something else."""
    saved = torch.load(place / "net.ckpt", weights_only=True)
    change(saved[KEY])
    torch.save(saved, place / f"{name}.ckpt")


def _formatted(root: Path) -> None:
    for scene in ("a_02", "b_02"):
        (root / scene).mkdir(parents=True)
        np.savetxt(root / scene / "cam.txt", K)
        for number in range(5):
            image = np.full((24, 80, 3), number, np.uint8)
            cv2.imwrite(str(root / scene / f"{number:010d}.jpg"), image)
    (root / "train.txt").write_text("a_02\n")
    (root / "val.txt").write_text("b_02\n")


def _name(path: Path, *_: object) -> Path:
    """A file that holds its own name, or a folder of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.suffix:
        path.mkdir()
        path /= "00001.jpg"
    path.write_text(str(path))
    return path if path.suffix != ".jpg" else path.parent
