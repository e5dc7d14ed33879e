"""Links, pipes and devices in folders from elsewhere: nothing is written through, nothing hangs."""

from __future__ import annotations

import io
import os
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lightning_cam.archive import check_archive
from lightning_cam.data.annotations.formats import annotated
from lightning_cam.data.core.array_files import load_array
from lightning_cam.data.core.ground_truth import Truth
from lightning_cam.data.video import read_clip
from lightning_cam.errors import UserError, WriteError
from lightning_cam.explaining.journal import Journal, journal_rows, other_work
from lightning_cam.explaining.kept_map import KeptMap
from lightning_cam.training.furthest import UNKNOWN, furthest_first
from lightning_cam.training.owner import FILE, owned
from lightning_cam.training.runs import _written

pytestmark = pytest.mark.attack


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """What waits for a pipe fails instead."""

    def hangs(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _own(folder: Path) -> None:
    with owned(folder):
        pass


def _link(path: Path, precious: Path) -> None:
    path.symlink_to(precious)


PLACES: dict[str, Callable[[Path, Path], object]] = {
    "a link": _link,
    "a link through a link": lambda path, precious: (
        _link(path.with_name("between"), precious),
        _link(path, path.with_name("between")),
    ),
    "a link to what is not there": lambda path, precious: _link(path, precious.with_name("new")),
    "a link to a device": lambda path, _: _link(path, Path(os.devnull)),
    "a pipe": lambda path, _: os.mkfifo(path),
    "a folder": lambda path, _: path.mkdir(),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("name", "use"), [(FILE, _own), ("rows.rank0.jsonl", Journal)])
def test_what_grows_is_no_link(place: str, name: str, use: Any, tmp_path: Path) -> None:
    """A run's lock or a study's journal is a link to someone's file, a pipe, a device."""
    precious = tmp_path / "precious.txt"
    precious.write_text("irreplaceable, without an end of the line")
    folder = tmp_path / "downloaded"
    folder.mkdir()
    PLACES[place](folder / name, precious)
    with pytest.raises(WriteError, match=f"cannot write .*{name}: .*not a file; choose"):
        use(folder)
    assert precious.read_text() == "irreplaceable, without an end of the line"
    assert not (tmp_path / "new").exists()


def _images(folder: Path, name: str) -> Path:
    for number in range(4):
        cv2.imwrite(str(folder / f"{number:04d}.png"), np.full((20, 20, 3), number, np.uint8))
    (folder / "0002.png").unlink()
    return folder / name


READ: dict[str, tuple[str, Callable[[Path], object]]] = {  # name in a folder -> how it is read
    "a checkpoint": ("a.ckpt", lambda path: furthest_first(path.parent)[0][0] != UNKNOWN),
    "weights": ("a.pt", lambda path: check_archive(path, old=True)),
    "settings": ("config.yaml", lambda path: _written(path)),
    "the facts of a study": ("study.json", lambda path: other_work(path, {})),
    "a journal": ("rows.rank0.jsonl", lambda path: list(journal_rows(path.parent))),
    "a kept map": ("a.npz", KeptMap.read),
    "ground truth": ("a.npz", Truth.read),
    "an array": ("a.npy", lambda path: _said(load_array, path)),
    "a video": ("a.mp4", read_clip),
    "an image of a clip": ("0002.png", lambda path: read_clip(path.parent)),
    "a pickle of boxes": ("pyannot.pkl", lambda path: annotated([], path)),
    "boxes": ("bounding_box_smthsmth_part1.json", lambda path: annotated([], path.parent)),
}


def _said(function: Callable[[Path], object], path: Path) -> object:
    try:
        return function(path)
    except ValueError as error:
        raise UserError(str(error)) from error


@pytest.mark.parametrize("kind", ["pipe", "endless"])
@pytest.mark.parametrize("what", READ)
def test_what_is_read_has_an_end(what: str, kind: str, tmp_path: Path) -> None:
    """Pipes and links to /dev/zero in place of checkpoints, settings, maps, images, annotations."""
    name, read = READ[what]
    path = _images(tmp_path, name) if name.endswith(".png") else tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    try:
        found = read(path)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert not found


def _bomb(size: int) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, shape in (("values", f"({size}, 1, 1)"), ("facts", "(3,)")):
            head = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                head, {"descr": "<f2", "fortran_order": False, "shape": eval(shape)}
            )
            archive.writestr(f"{name}.npy", head.getvalue() + bytes(2 * eval(shape)[0]))
    return whole.getvalue()


def _saved(**arrays: Any) -> bytes:
    whole = io.BytesIO()
    np.savez(whole, **arrays)
    return whole.getvalue()


HALF, FACTS = np.ones((2, 3, 4), np.float16), np.array([0.0, 1.0, 0.0])
KEPT = {
    "unfolds to 400 MB": None,  # made where it is asked for, in seconds
    "not finite": _saved(values=np.where(HALF == 1, np.nan, HALF).astype(np.float16), facts=FACTS),
    "an infinite scale": _saved(values=HALF, facts=np.array([0.0, np.inf, 0.0])),
    "empty": _saved(values=HALF[:0], facts=FACTS),
    "of two sides": _saved(values=HALF[0], facts=FACTS),
    "other numbers": _saved(values=HALF.astype(np.float32), facts=FACTS),
    "two facts": _saved(values=HALF, facts=FACTS[:2]),
    "a matrix of facts": _saved(values=HALF, facts=np.eye(3)),
    "words": _saved(values=HALF, facts=np.array(["a", "b", "c"])),
    "objects": _saved(values=np.array([print], object), facts=FACTS),
    "nothing": b"",
    "half": _saved(values=HALF, facts=FACTS)[:200],
}


@pytest.mark.parametrize("what", KEPT)
def test_a_kept_map_that_is_none_is_made_again(what: str, tmp_path: Path) -> None:
    """Maps of a downloaded study: bombs, NaN, other shapes, pickled objects, half files."""
    path = tmp_path / "a.npz"
    path.write_bytes(_bomb(2 * 10**8) if KEPT[what] is None else KEPT[what])
    assert KeptMap.read(path) is None
