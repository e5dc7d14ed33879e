"""Decoded clips on a disk: samples as without it, bit for bit, whatever happens to the files."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from layouts import encode, frames
from test_dataset import Videos, equal

from lightning_cam.data.core import disk_cache
from lightning_cam.data.core.clips import Clip, SampleDict
from lightning_cam.data.core.listing import Listing
from lightning_cam.errors import ConfigError


class Two(Videos):
    """Two videos, one of them shorter than a clip, or as a folder of images."""

    names = ("0.mp4", "1.mp4")

    def list_clips(self) -> Listing:
        clips = [Clip(Path(self.root) / name, name, k) for k, name in enumerate(self.names)]
        return Listing(["a", "b"], clips, clips, clips)


class Folders(Two):
    names = ("0", "1")


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """No disk here is too full."""
    monkeypatch.setattr(disk_cache, "_FREE", 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for suffix in (".mp4", ""):
        for k, count in enumerate((40, 9)):
            encode(tmp_path / f"{k}{suffix}", frames(("blink", "move_left")[k], k, count))
    return tmp_path


def module(root: Path, kind: type[Videos] = Two, **options: Any) -> Videos:
    return kind(root, **{"rate": 30, "cache_folder": str(root / "kept"), **options})


def samples(data: Videos) -> list[SampleDict]:
    keys = [(epoch, index) for epoch in range(4) for index in range(2)]
    return [*map(data.train_set.__getitem__, keys), *map(data.val_set.__getitem__, range(2))]


def entries(root: Path) -> list[Path]:
    return sorted((root / "kept").rglob("*.clip"))


def same(one: list[SampleDict], other: list[SampleDict]) -> bool:
    return all(equal(*pair) for pair in zip(one, other, strict=True))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The videos that were decoded."""
    asked: list[Path] = []
    read = disk_cache.ClipReader.read

    def counting(self: Any, path: Any, *args: Any) -> Any:
        asked.append(path)
        return read(self, path, *args)

    monkeypatch.setattr(disk_cache.ClipReader, "read", counting)
    return asked  # type: ignore[return-value]


@pytest.mark.parametrize("kind", [Two, Folders])
@pytest.mark.parametrize("options", [{}, {"fps": 30.0, "resize": 40}, {"fps": None}])
def test_samples_are_the_same_and_each_video_is_decoded_once(
    root: Path, kind: type[Videos], options: dict[str, Any], decoded: list[Path]
) -> None:
    want = samples(module(root, kind, **options))
    decoded.clear()
    assert same(samples(module(root, kind, cache="disk", **options)), want)
    assert len(decoded) == len(entries(root)) == 2
    # Another process, with another crop and other colours: of the same steps.
    other = {**options, "crop": 30, "num_frames": 7, "contrast": 0.4}
    found = samples(module(root, kind, cache="disk", **other))
    assert len(decoded) == len(entries(root)) == 2
    assert same(found, samples(module(root, kind, **other)))
    assert same(samples(module(root, kind, cache=True, **options)), want)


def test_what_changes_makes_other_entries(root: Path, decoded: list[Path]) -> None:
    for number, options in enumerate(({}, {"resize": 33}, {"fps": 5.0}, {"reader": "pyav"}), 1):
        assert same(
            samples(module(root, cache="disk", **options)), samples(module(root, **options))
        )
        assert len(entries(root)) == 2 * number
    encode(root / "0.mp4", frames("blink", 5, 40))
    assert same(samples(module(root, cache="disk")), samples(module(root)))
    assert len(entries(root)) == 9
    samples(module(root, Folders, cache="disk"))
    (image,) = (root / "0").glob("00007.jpg")
    image.write_bytes(image.with_name("00033.jpg").read_bytes())  # in place: no folder tells
    os.utime(image, (1, 1))
    assert same(samples(module(root, Folders, cache="disk")), samples(module(root, Folders)))
    assert len(entries(root)) == 12


HARM: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda data: data[: len(data) // 2],
    "a byte less": lambda data: data[:-1],
    "a byte more": lambda data: data + b"0",
    "no pixels written": lambda data: data[:-30_000] + bytes(30_000),
    "a bit in the head": lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
    "no head": lambda data: bytes(2000) + data[2000:],
    "another file": lambda data: os.urandom(len(data)),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_broken_entry_is_not_used_and_made_anew(root: Path, harm: str) -> None:
    want = samples(module(root))
    samples(module(root, cache="disk"))
    whole = {path: path.read_bytes() for path in entries(root)}
    for path, data in whole.items():
        path.write_bytes(HARM[harm](data))
    assert same(samples(module(root, cache="disk")), want)
    assert {path: path.read_bytes() for path in entries(root)} == whole


def test_a_process_that_is_killed_leaves_no_entry(root: Path, monkeypatch: Any) -> None:
    data = module(root, cache="disk")
    _ = data.train_set
    process = os.fork()
    if not process:
        sums = disk_cache._sums

        def half(pixels: np.ndarray) -> Any:
            os.kill(os.getpid(), signal.SIGKILL) if entries(root) else None
            return sums(pixels)

        disk_cache._sums = half
        samples(data)
        os._exit(0)
    assert os.waitpid(process, 0)[1] == signal.SIGKILL
    (only,) = entries(root)
    part = only.with_name(f".{only.name}.x-1-0123abcd.part")
    part.write_bytes(only.read_bytes()[:1000])
    assert same(samples(data), samples(module(root)))
    assert len(entries(root)) == 2


def test_loader_processes_share_it(root: Path, decoded: list[Path]) -> None:
    data = [
        module(root, batch_size=1, num_workers=n, cache=c) for n, c in ((2, "disk"), (0, False))
    ]
    for epoch in range(3):
        loaders = [each.train_dataloader() for each in data]
        for loader in loaders:
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        assert same(*map(list, loaders))
    assert len(entries(root)) == 2


def caught(call: Callable[[], Any]) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = call()
    return found, [str(each.message) for each in said]


def test_a_full_cache_takes_no_more_and_says_so_once(root: Path) -> None:
    want = samples(module(root))
    found, said = caught(lambda: samples(module(root, cache="disk", cache_gb=5e-5)))
    assert same(found, want)
    (line,) = said
    assert "has the 5e-05 GB that data.cache_gb allows: the other clips are decoded" in line
    assert "data.cache_folder=DIR" in line
    assert len(entries(root)) == 1
    # What is there is used, by the next as well, and counts.
    assert same(samples(module(root, cache="disk", cache_gb=1.0)), want)
    assert len(entries(root)) == 2
    total = sum(path.stat().st_size for path in entries(root))
    assert np.fromfile(root / "kept" / "sizes", np.int64).sum() == total


def test_a_full_disk_is_left_a_tenth(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_cache, "_FREE", 0.1)
    usage = SimpleNamespace(total=10**9, free=10**8)
    monkeypatch.setattr(disk_cache.shutil, "disk_usage", lambda _: usage)
    found, (line,) = caught(lambda: samples(module(root, cache="disk")))
    assert "has filled its disk up to the last tenth" in line
    assert same(found, samples(module(root)))
    assert not entries(root)


@pytest.mark.parametrize("when", ["file", "full", "gone"])
def test_a_folder_that_refuses_is_one_line(root: Path, monkeypatch: Any, when: str) -> None:
    want = samples(module(root))
    if when == "file":
        (root / "kept").write_text("a file")
    data, made = caught(lambda: module(root, cache="disk"))
    _, opened = caught(lambda: data.train_set)
    if when == "full":

        def full(_: Path) -> Any:
            raise disk_cache.cannot_write(root, OSError(errno.ENOSPC, "No space left on device"))

        monkeypatch.setattr(disk_cache, "whole_file", full)
    if when == "gone":
        (root / "kept" / "sizes").unlink()
        (root / "kept").rmdir()
        (root / "kept").write_text("a file")
    found, said = caught(lambda: samples(data))
    (line,) = [*made, *opened, *said]
    assert line.startswith("clips are decoded in every epoch, data.cache=disk has no place: cannot")
    assert "data.cache_folder=DIR" in line
    assert same(found, want)


def test_the_default_is_a_folder_of_ones_own(root: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(root / "tmp"))
    (root / "tmp").mkdir()
    want = samples(module(root))
    assert same(samples(module(root, cache="disk", cache_folder=None)), want)
    (own,) = (root / "tmp").iterdir()
    assert own.stat().st_mode & 0o777 == 0o700
    assert len([*own.rglob("*.clip")]) == 2
    own.chmod(0o777)  # as one that somebody else made
    found, (line,) = caught(lambda: samples(module(root, cache="disk", cache_folder=None)))
    assert f"{own} may be somebody else's" in line
    assert same(found, want)


def test_it_may_be_removed_at_any_time(root: Path) -> None:
    data, want = module(root, cache="disk"), samples(module(root))
    for _ in range(2):
        found, said = caught(lambda: samples(data))
        assert same(found, want)
        assert not said
        assert len(entries(root)) == 2
        total = sum(path.stat().st_size for path in entries(root))
        assert np.fromfile(root / "kept" / "sizes", np.int64).sum() == total
        shutil.rmtree(root / "kept")


def test_a_video_too_long_to_keep_is_read_as_ever(root: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(disk_cache, "_LONGEST", 20_000)
    found, said = caught(lambda: samples(module(root, cache="disk")))
    assert same(found, samples(module(root)))
    assert not said
    assert len(entries(root)) == 1


def test_what_cannot_be_read_is_said_as_ever(root: Path) -> None:
    (root / "0" / "00003.jpg").unlink()
    (root / "0" / "00003.jpg").symlink_to(root / "nowhere")
    (root / "1").rename(root / "elsewhere")
    data = [module(root, Folders, cache=cache) for cache in ("disk", False)]
    kept, plain = ([each.val_set[index] for index in range(2)] for each in data)
    assert same(kept, plain)
    assert all(sample["error"] for sample in kept[1:])


def test_damage_outside_of_a_window_is_no_damage_of_it(root: Path) -> None:
    (root / "0" / "00039.jpg").write_bytes(b"not an image")
    want = samples(module(root, Folders))
    assert same(samples(module(root, Folders, cache="disk")), want)
    assert any(not sample["error"] and sample["clip_id"] == "0" for sample in want)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cache": "ram"}, "data.cache=ram must be true, false or disk"),
        ({"cache_gb": 0}, "data.cache_gb=0 must be a number above 0"),
        ({"cache_gb": "ten"}, "data.cache_gb=ten must be a number above 0"),
        ({"cache_folder": 3}, "data.cache_folder=3 must be a path or null"),
    ],
)
def test_settings_are_checked(root: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        module(root, **options)
