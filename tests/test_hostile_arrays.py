"""Small files of weights, arrays and settings with large bills: refused in one line."""

from __future__ import annotations

import io
import pickle
import pickletools
import tracemalloc
import zipfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_hostile_media import png
from test_small_files import FILES

from lightning_cam.data.clips.caption_templates import load_groups
from lightning_cam.data.core import array_files
from lightning_cam.data.core.ground_truth import Truth
from lightning_cam.data.drives.drive import drive_of, image_size
from lightning_cam.data.drives.kitti_formatted import _load
from lightning_cam.data.multispectral.reader import load_registration
from lightning_cam.errors import ConfigError, DataError
from lightning_cam.explaining.journal import other_work
from lightning_cam.models.pretrained import read_weights
from lightning_cam.synthetic.rendering import is_rendered
from lightning_cam.training.runs import _written

pytestmark = pytest.mark.attack
_MB = 2**20


def old(path: Path, change: Callable[[bytes], bytes] = lambda data: data) -> None:
    """Weights in the format of before PyTorch 1.6, as torchvision's files have it."""
    buffer = io.BytesIO()
    weights = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}
    torch.save(weights, buffer, _use_new_zipfile_serialization=False)
    path.write_bytes(change(buffer.getvalue()))


def old_with(item: bytes) -> Callable[[Path], None]:
    """The old format with one more entry in its object, the fourth of its pickles."""

    def change(data: bytes) -> bytes:
        file = io.BytesIO(data)
        for _ in range(4):
            deque(pickletools.genops(file), maxlen=0)
        end = file.tell() - 1
        return data[:end] + pickle.SHORT_BINSTRING + b"\x01x" + item + b"s" + data[end:]

    return lambda path: old(path, change)


# What a checkpoint is refused for before its memory is read, and the same in the old format.
WEIGHTS = {
    name: FILES[name][0]
    for name in (
        "records in lzma", "records that overlap", "5 MB of empty mappings",
        "a call for a million zeros", "a call for an empty tensor",
        "weights that are one number", "views of the same bytes", "a sparse tensor",
    )
} | {
    "old: 5 MB of empty mappings": old_with(b"(" + b"}" * 4_800_000 + b"t"),
    "old: a call for a million zeros": old_with(b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R"),
    "old: a call of the system": old_with(b"cposix\nsystem\nX\x02\0\0\0ls\x85R"),
    "old: cut short": lambda path: old(path, lambda data: data[:-20]),
    "old: more numbers than there are": lambda path: old(
        path, lambda data: data.replace(b"K\x06Nt", b"J\xff\xff\xff\x7fNt")
    ),
    "a folder packed by tar": lambda path: path.write_bytes(b"storages".ljust(1024, b"\0")),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", WEIGHTS)
def test_small_files_of_weights_are_refused(name: str, tmp_path: Path) -> None:
    """`weights=FILE` of below 5 MB asks for gigabytes, or for what is no part of a network."""
    path = tmp_path / "a.pth"
    WEIGHTS[name](path)
    assert path.stat().st_size < 5_000_000
    with pytest.raises(ConfigError, match="is not a state dict that loads without") as caught:
        read_weights("resnet18", path)
    assert "\n" not in str(caught.value) and "a.pth" in str(caught.value)


def test_weights_in_the_old_format_are_read(tmp_path: Path) -> None:
    old(tmp_path / "a.pth")
    found = read_weights("resnet18", tmp_path / "a.pth")
    assert found["a.weight"].tolist() == [[0, 1, 2], [3, 4, 5]] and found["a.bias"].tolist() == [
        1,
        1,
    ]
    torch.save({1: torch.zeros(1), "a": torch.ones(1)}, tmp_path / "b.pth")
    assert [*read_weights("resnet18", tmp_path / "b.pth")] == ["a"]


# --- arrays -------------------------------------------------------------------------------------


def npy(shape: tuple[int, ...], data: bytes, descr: str = "|u1") -> bytes:
    """An array whose head may say what it likes."""
    file = io.BytesIO()
    head = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, head)
    return file.getvalue() + data


def npz(path: Path, arrays: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in arrays.items():
            archive.writestr(f"{name}.npy", data)


def truth(**changed: bytes) -> dict[str, bytes]:
    """The arrays of a ground truth of two frames of 8 x 8 pixels."""
    whole = {
        "width": npy((), np.int64(8).tobytes(), "<i8"), "onset": npy((), bytes(8), "<f8"),
        "offset": npy((), bytes(8), "<f8"), "state": npy((2, 1), bytes(8), "<f4"),
        "mask": npy((2, 8, 1), bytes(range(16))),
    }  # fmt: skip
    return whole | changed


def bomb(path: Path) -> None:
    size = array_files.MOST_BYTES + 1
    npz(path, truth(mask=npy((size, 1, 1), bytes(size))))


def pickled(path: Path) -> None:
    np.savez(path, mask=np.array([{}], object))


def lying(path: Path) -> None:
    """The directory of the archive says less than there is."""
    bomb(path)
    data = path.read_bytes()
    at = data.rfind(b"mask.npy") - 46
    path.write_bytes(data[: at + 24] + (200).to_bytes(4, "little") + data[at + 28 :])


TRUTHS = {
    "zeros that unfold": bomb,
    "a directory that lies": lying,
    "many masks": lambda path: npz(
        path, truth() | {f"mask/{n}": npy((2**18, 8, 1), bytes(2**21)) for n in range(2)}
    ),
    "many arrays": lambda path: npz(path, truth() | {f"mask/{n}": b"" for n in range(1001)}),
    "a head of a terabyte": lambda path: npz(path, truth(mask=npy((2**20, 2**20, 1), b"\0"))),
    "a head below nothing": lambda path: npz(path, truth(mask=npy((-1, -1, 16), bytes(16)))),
    "a width of a billion": lambda path: npz(
        path, truth(width=npy((), np.int64(10**9).tobytes(), "<i8"))
    ),
    "pickled objects": pickled,
    "one array, not several": lambda path: path.write_bytes(npy((2, 8, 1), bytes(16))),
    "without a mask": lambda path: npz(path, {"width": truth()["width"]}),
    "a head of brackets": lambda path: npz(
        path, truth(mask=b"\x93NUMPY\x01\x00" + (9000).to_bytes(2, "little") + b"(" * 9000)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRUTHS)
def test_a_small_ground_truth_is_refused_before_it_costs(
    name: str, tmp_path: Path, monkeypatch
) -> None:
    """A ground truth of below 1 MB unfolds to gigabytes, or says so."""
    monkeypatch.setattr(array_files, "MOST_BYTES", 4 * _MB)
    path = tmp_path / "a.npz"
    TRUTHS[name](path)
    assert path.stat().st_size < _MB
    refused(path, 12)


def refused(path: Path, most: float) -> None:
    """In one line, within so many MB."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="cannot read ground truth") as caught:
            Truth.read(path)
        assert tracemalloc.get_traced_memory()[1] < most * _MB
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_ground_truth_of_half_a_megabyte_that_unfolds(tmp_path: Path) -> None:
    """A ground truth of half a megabyte unfolds to hundreds, and to a gigabyte of pixels."""
    bomb(tmp_path / "a.npz")
    assert (tmp_path / "a.npz").stat().st_size < _MB / 2
    refused(tmp_path / "a.npz", 1)


def test_a_ground_truth_is_read_as_it_is(tmp_path: Path) -> None:
    npz(tmp_path / "a.npz", truth())
    found = Truth.read(tmp_path / "a.npz")
    assert found.mask.shape == (2, 8, 8) and found.mask.dtype == bool
    assert found.mask[0, 3].tolist() == [0, 0, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    "data",
    [
        npy((10**6, 10**6), b"\0" * 64, "<f4"),
        npy((4, 4), b"\0" * 60, "<f4"),
        npy((2,), pickle.dumps([1, 2]), "|O"),
        b"PK\x03\x04" + bytes(60),
        b"",
    ],
    ids=["a terabyte", "cut short", "objects", "an archive", "nothing"],
)
def test_depth_that_is_no_image(data: bytes, tmp_path: Path) -> None:
    """A `.npy` of depth says that it is a terabyte, or is something else."""
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        _load(path)
    path.write_bytes(npy((2, 3), np.arange(6, dtype="<f4").tobytes(), "<f4"))
    assert _load(path).tolist() == [[0, 1, 2], [3, 4, 5]]


# --- settings and images ------------------------------------------------------------------------


def test_text_that_is_nested_without_end(tmp_path: Path) -> None:
    """JSON and YAML of a data set or a folder nest a hundred thousand lists."""
    for name in ("registration.json", "groups.yaml", "explain.json", "synth.json", "config.yaml"):
        (tmp_path / name).write_text("[" * 100_000)
    with pytest.raises(DataError, match="does not map each camera"):
        load_registration(str(tmp_path / "registration.json"))
    with pytest.raises(ConfigError, match="no YAML"):
        load_groups(str(tmp_path / "groups.yaml"))
    with pytest.raises(ConfigError, match="cannot read"):
        other_work(tmp_path / "explain.json", {})
    assert not is_rendered(tmp_path, {}, lambda _: [])
    assert _written(tmp_path / "config.yaml") == {}


def test_a_huge_image_of_a_drive_tells_no_size(tmp_path: Path) -> None:
    """An image of a drive says that it has a gigapixel."""
    (tmp_path / "0.png").write_bytes(png(20_000, 20_000))
    (tmp_path / "1.png").write_bytes(png(30, 20))
    drive = drive_of("a", tmp_path, [(0, "0.png"), (1, "1.png")], np.eye(3))
    assert image_size(drive) == (20, 30)
