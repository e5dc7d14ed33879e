"""Lists and folders of data sets that are pipes, links to nowhere, closed, or no text at all."""

from __future__ import annotations

import os
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT, node_of
from data_sets import lay_out_lists

from lightning_cam.data.check.inventory import Inventory, inventory
from lightning_cam.data.core.text_files import text_of
from lightning_cam.errors import DataError
from lightning_cam.explaining.clip_sources import clips_of_files
from lightning_cam.training.build import build

pytestmark = [pytest.mark.attack, pytest.mark.filterwarnings("ignore::UserWarning")]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sets")
    lay_out_lists(place)
    return place


def listed(name: str, root: Path) -> Inventory:
    return inventory(build({**node_of("data", name), "root": str(root)}))


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device", "circle", "nowhere"])
def test_a_list_that_is_no_file(tmp_path: Path, kind: str) -> None:
    """A list of a data set is a pipe, a socket, a folder, a device, a link to itself or nowhere."""
    path = tmp_path / "list"
    make = {
        "pipe": lambda: os.mkfifo(path),
        "socket": lambda: socket.socket(socket.AF_UNIX).bind(str(path)),
        "folder": path.mkdir,
        "device": lambda: path.symlink_to("/dev/zero"),
        "circle": lambda: path.symlink_to("list"),
        "nowhere": lambda: path.symlink_to("gone"),
    }
    make[kind]()
    with pytest.raises(OSError, match=r"not a file|No such file|Too many levels"):
        text_of(path)


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    """A list of a data set has zeros, another encoding, or a mark of the order of bytes."""
    path = tmp_path / "list"
    path.write_bytes(b"\xef\xbb\xbfa\0b\xe9\r\n")
    assert text_of(path) == "a\ufffdb\ufffd\n"


def test_text_is_read_in_one_place() -> None:
    """No reader of data sets opens text of others by itself."""
    package = ROOT / "lightning_cam" / "data"
    checked = {"text_files.py", "caption_templates.py", "something_else.py", "kitti_lists.py"}
    found = {p.name for p in package.rglob("*.py") if re.search(r"\.read_text\(", p.read_text())}
    assert found == checked


LISTS = {
    "hmdb51": "testTrainMulti_7030_splits/clap_test_split1.txt",
    "kinetics": "train.csv",
    "something": "something-something-v1-train.csv",
    "multispectral": "SOIB/file_lists/IR_train.txt",
    "kitti_formatted": "train.txt",
}


@pytest.mark.parametrize("spoil", ["folder", "zeros"])
@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_a_set_is_spoilt(sets: Path, tmp_path: Path, name: str, spoil: str) -> None:
    """A list of each data set becomes a folder, or holds zeros: problems, or one line."""
    root = shutil.copytree(sets / name, tmp_path / name)
    path = root / LISTS[name]
    if spoil == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(path.read_bytes().translate(bytes.maketrans(b"ae", b"\0\0")))
    try:
        assert listed(name, root).problems
    except DataError as error:
        assert "set data.root=" in str(error) or path.name in str(error)


@pytest.mark.parametrize("mode", [0o000, 0o644])
@pytest.mark.parametrize("name", ["folder", "ucf11", "hmdb51", "kinetics"])
def test_a_folder_that_is_closed(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mode: int
) -> None:
    """One folder of a data set must not be read, or not be entered (`chmod 644`): a problem."""
    root = shutil.copytree(sets / name, tmp_path / name)
    closed = max(path.parent for path in root.rglob("*") if path.suffix in (".mp4", ".mpg", ".avi"))
    access = os.access  # root may read everything

    def refusing(look: Any) -> Any:
        def refused(path: Any = ".") -> Any:
            if path in (closed, str(closed)) and not mode:
                raise PermissionError(13, "Permission denied", str(path))
            return look(path)

        return refused

    monkeypatch.setattr(Path, "iterdir", refusing(Path.iterdir))
    monkeypatch.setattr(os, "scandir", refusing(os.scandir))
    monkeypatch.setattr(os, "access", lambda path, how: Path(path) != closed and access(path, how))
    found = [p for p in listed(name, root).problems if p.kind == "unreadable"]
    assert [str(p) for p in found] == [
        f"{closed.relative_to(root)}: Permission denied; see that the folder can be read"
    ]
    if name == "folder":  # explain.py video=FOLDER
        data = build({**node_of("data", name), "root": str(root)})
        sources = {source.title: source for source in clips_of_files(root, data)}
        assert len(sources) > 1
        with pytest.raises(Exception, match="Permission denied; see that the folder can be read"):
            sources[str(closed.relative_to(root))].read()
