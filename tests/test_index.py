"""The index of a data set: made by one process, read by the others, never out of date."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_cam.data.clips.folder import VideoFolder
from lightning_cam.data.clips.hmdb51 import HMDB51
from lightning_cam.data.clips.kinetics import Kinetics
from lightning_cam.data.clips.something import SomethingSomething
from lightning_cam.data.clips.ucf11 import UCF11
from lightning_cam.data.core import index, seen_folders
from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.listing import Listing, Problem, without_leaks
from lightning_cam.data.core.module import VideoDataModule
from lightning_cam.data.core.rows import Clips, Texts, count_classes, packed
from lightning_cam.data.video.info import VIDEO_SUFFIXES

MARK = b"\0" * 8


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Small data sets are indexed too, and what was just written is settled."""
    monkeypatch.setattr(index, "LEAST", 1)
    monkeypatch.setattr(seen_folders, "_SETTLED", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


def touch(root: Path, name: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def ucf11(root: Path) -> UCF11:
    for name in ("dive", "jump"):
        for group in range(1, 6):
            touch(root, f"{name}/v_{name}_{group:02d}/v_{name}_{group:02d}_01.mpg")
    return UCF11(str(root))


def kinetics(root: Path) -> Kinetics:
    for part in ("train", "val"):
        rows = [f"{name},{part}{name}{n},0,10,{part}" for name in "ab" for n in range(3)]
        text = "\n".join(["label,youtube_id,time_start,time_end,split", *rows])
        touch(root, f"{part}.csv").write_text(text)
        for name in "ab":
            for n in range(3):
                touch(root, f"{part}/{name}/{part}{name}{n}_000000_000010.mp4")
    return Kinetics(str(root))


def something(root: Path) -> SomethingSomething:
    touch(root, "labels.json").write_text('{"Moving": "0", "Lifting": "1"}')
    for part, ids in (("train", range(16)), ("validation", range(16, 24))):
        rows = [f'{{"id": "{n}", "template": "{("Moving", "Lifting")[n % 2]}"}}' for n in ids]
        touch(root, f"{part}.json").write_text(f"[{','.join(rows)}]")
        for n in ids:
            touch(root, f"20bn-something-something-v2/{n}.webm")
    return SomethingSomething(str(root))


def folder(root: Path) -> VideoFolder:
    for name in ("run", "walk"):
        for n in range(5):
            touch(root, f"{name}/day/{name}{n}.mp4")
    return VideoFolder(str(root))


def hmdb51(root: Path) -> HMDB51:
    for name in ("run", "walk"):
        files = [touch(root, f"{name}/film{n}_{name}_u_nm_np1_ba_goo_{n}.avi") for n in range(6)]
        rows = [f"{file.name} {1 + n % 2}" for n, file in enumerate(files)]
        touch(root, f"testTrainMulti_7030_splits/{name}_test_split1.txt").write_text(
            "\n".join(rows)
        )
    return HMDB51(str(root))


SETS: list[Callable[[Path], VideoDataModule]] = [ucf11, kinetics, something, folder, hmdb51]
pytestmark = pytest.mark.filterwarnings("ignore:the test part has no labels")


@pytest.fixture(params=SETS, ids=lambda make: make.__name__)
def data(request: pytest.FixtureRequest, tmp_path: Path) -> VideoDataModule:
    made: VideoDataModule = request.param(tmp_path / "set")
    return made


def again(data: VideoDataModule, **settings: Any) -> VideoDataModule:
    return type(data)(data.root, **settings)


def indices(data: VideoDataModule) -> list[Path]:
    return sorted(Path(data.root, ".lightning_cam/index").glob("*"))


def no_listing(monkeypatch: pytest.MonkeyPatch, data: VideoDataModule) -> None:
    def refused(self: object) -> Listing:
        raise AssertionError("listed anew")

    monkeypatch.setattr(type(data), "list_clips", refused)


def test_others_read_what_the_first_process_listed(
    data: VideoDataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same listing, and nobody asks for a single clip."""
    data.prepare_data()
    first = data.listing
    assert len(indices(data)) == 1
    asked: list[str] = []
    stat = os.stat

    def counted(path: Any, *args: Any, **options: Any) -> os.stat_result:
        asked.append(str(path))
        return stat(path, *args, **options)

    no_listing(monkeypatch, data)
    monkeypatch.setattr(os, "stat", counted)
    read = again(data).listing
    assert not [path for path in asked if path.endswith(VIDEO_SUFFIXES)]
    assert (read.classes, read.problems, read.notes) == (
        first.classes, [*first.problems], first.notes,
    )  # fmt: skip
    for part in ("train", "val", "test"):
        assert isinstance(read.part(part), Clips)
        assert list(read.part(part)) == list(first.part(part))
        assert [repr(clip) for clip in read.part(part)] == [*map(repr, first.part(part))]


def changes(root: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """What changes a data set, and how."""
    clip = sorted(path for path in root.rglob("*.*") if path.suffix in VIDEO_SUFFIXES)[0]
    yield "a clip comes", lambda: clip.with_stem(f"{clip.stem[:-1]}77").touch()
    yield "a clip goes", clip.unlink
    yield "a folder comes", lambda: (clip.parent / "empty").mkdir()
    yield "something comes at the top", lambda: (root / "ground_truth").mkdir()
    for path in sorted(path for kind in ("csv", "json", "txt") for path in root.rglob(f"*.{kind}")):
        yield f"{path.name} changes", lambda path=path: path.write_text(path.read_text() + "\n")


def test_whatever_changes_is_listed_anew(data: VideoDataModule) -> None:
    root = Path(data.root)
    _ = data.listing
    for what, change in changes(root):
        (file,) = indices(data)
        before = file.stat().st_ino
        _ = again(data).listing
        assert file.stat().st_ino == before, "nothing changed"
        change()
        listed, fresh = again(data).listing, without_leaks(again(data).list_clips())
        assert indices(data)[0].stat().st_ino != before, what
        for part in ("train", "val", "test"):
            assert list(listed.part(part)) == list(fresh.part(part)), what


def test_what_comes_into_an_empty_folder_is_found(tmp_path: Path) -> None:
    data = folder(tmp_path / "set")
    (tmp_path / "set/run/night").mkdir()
    before = len(data.listing.train)
    clip = touch(tmp_path, "set/run/night/new.mp4")
    found = again(data).listing
    assert clip in [row.path for part in (found.train, found.val, found.test) for row in part]
    assert len(found.train) + len(found.val) + len(found.test) == 11 and before


def test_ground_truth_that_comes_is_found(tmp_path: Path) -> None:
    data = ucf11(tmp_path / "set")
    clip = data.listing.test[0]
    assert clip.truth is None
    truth = touch(tmp_path, f"ground_truth/{clip.path.parents[1].name}/{clip.clip_id}.npz")
    assert again(data).listing.test[0].truth == truth


@pytest.mark.parametrize("where", [0, 0.5, 0.9, None])
def test_a_damaged_index_is_made_anew(tmp_path: Path, where: float | None) -> None:
    data = kinetics(tmp_path / "set")
    first = data.listing
    (file,) = indices(data)
    whole = file.read_bytes()
    cut = len(whole) // 2 if where is None else int(where * len(whole))
    file.write_bytes(whole[:cut] + (b"" if where is None else MARK + whole[cut + 8 :]))
    assert list(again(data).listing.train) == list(first.train)
    assert len(file.read_bytes()) == len(whole)


def test_other_settings_and_other_code_have_another_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder(tmp_path / "set")
    held = len(data.listing.val)
    assert len(again(data, val_share=0.45, batch_size=3).listing.val) > held
    assert len(indices(data)) == 2
    assert again(data, classes=["walk", "run"]).listing.classes == ["walk", "run"]
    monkeypatch.setattr(index, "_code", lambda cls: "other")
    no_listing(monkeypatch, data)
    with pytest.raises(AssertionError, match="listed anew"):
        _ = again(data).listing


def test_a_subclass_lists_by_more_and_is_listed_each_time(tmp_path: Path) -> None:
    class Few(UCF11):
        def list_clips(self) -> Listing:
            found = super().list_clips()
            return replace(found, train=found.train[:2])

    data = ucf11(tmp_path / "set")
    assert len(Few(data.root).listing.train) == 2 < len(data.listing.train)
    assert len(indices(data)) == 1 and len(Few(data.root).listing.train) == 2


def test_every_setting_of_a_data_set_is_part_of_its_key() -> None:
    """What its constructor takes besides the settings of all sets, under whatever name it keeps."""
    kept = {
        UCF11: {"groups": {"train_groups", "val_groups", "test_groups"}, "folders": set()},
        Kinetics: {},
        SomethingSomething: {},
        VideoFolder: {},
        HMDB51: {},
    }
    for cls, names in kept.items():
        settings = set(cls.__init__.__kwdefaults__ or ())
        told: set[str] = set().union(*(names.get(name, {name}) for name in cls.listed_by or ()))  # type: ignore[arg-type,attr-defined]
        assert told == settings, cls


def test_the_users_cache_takes_it_where_the_data_are_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = kinetics(tmp_path / "set")
    touch(Path(data.root), ".lightning_cam")  # no folder can be made, not even by root
    first = data.listing
    (file,) = (tmp_path / "caches").rglob("*.npz")
    with monkeypatch.context() as patch:
        no_listing(patch, data)
        assert list(again(data).listing.train) == list(first.train)
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))  # nor there
    assert list(again(data).listing.train) == list(first.train)


def test_what_changed_just_now_may_change_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the same tick of a file system's clock: no index yet."""
    monkeypatch.setattr(seen_folders, "_SETTLED", 2_000_000_000)
    data = kinetics(tmp_path / "set")
    assert data.listing.train and not indices(data)
    (tmp_path / "set/train/a").chmod(0o755)  # its time of change is now
    monkeypatch.setattr(time, "time_ns", lambda: time.time() * 1e9 + 3e9)
    assert again(data).listing.train and indices(data)


def test_few_clips_are_not_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "LEAST", 1000)
    data = ucf11(tmp_path / "set")
    assert data.listing.train and not Path(data.root, ".lightning_cam").exists()


def test_notes_are_said_each_time(tmp_path: Path) -> None:
    data = kinetics(tmp_path / "set")
    for _ in range(2):
        with pytest.warns(UserWarning, match="the validation part serves for testing"):
            read = again(data).listing
        assert read.test is read.val


def test_texts_keep_any_text() -> None:
    texts = ["", "data/é", "data/\udce9", "data/\ud800", "data/\0", "data/日本"]
    for some in ([], texts, texts[1:], texts[1:2]):
        kept = Texts.of(some)
        read = Texts.from_arrays(kept.arrays("x"), "x")
        assert list(read) == [read[n] for n in range(len(some))] == some
    assert kept[-1] == texts[1] and texts[1:] == Texts.of(texts)[1:]
    with pytest.raises(IndexError):
        _ = kept[1]


def test_texts_in_another_order() -> None:
    for texts in (["a/b", "", "c", "é/日本"], ["x"], []):
        kept = Texts.of(texts, "data/", ".mp4")
        whole = [f"data/{text}.mp4" for text in texts]
        assert list(kept) == whole == [kept[n] for n in range(len(texts))]
        assert kept.names() == [text.rpartition("/")[2] for text in whole]
        assert kept == Texts.of(whole) and kept != Texts.of([*whole, "y"])
        read = Texts.from_arrays(kept.arrays("x"), "x")
        assert read == kept and read.tail == ".mp4"
        for order in ([*reversed(range(len(texts)))], [0, 0][: len(texts)], []):
            assert list(kept.take(np.array(order, np.int64))) == [whole[n] for n in order]
        some = np.arange(len(texts)) % 2 == 0
        assert list(kept.take(some)) == whole[::2]


def test_rows_that_arrays_cannot_tell_stay_objects() -> None:
    class Mine(Clip):
        """Has more."""

    rows = [Clip(Path("a"), "a", 1, 2, Path("t")), Clip(Path("b"), "b")]
    assert isinstance(packed(rows), Clips) and packed(rows) == rows
    several = [replace(row, label=-1, labels=(1, 0, -1)) for row in rows]
    assert isinstance(packed(several), Clips) and packed(several) == several
    assert count_classes(packed(several), 3).tolist() == [2, 0, 0]
    assert count_classes(packed(rows), 3).tolist() == count_classes(rows, 3).tolist() == [0, 1, 0]
    odd = [Mine(Path("a"), "a"), replace(rows[0], labels=(2, 0)), replace(rows[0], labels=(1,))]
    for row in odd:
        assert not isinstance(packed([*rows, row]), Clips)


def test_file_numbers_that_folders_make_up_mean_nothing(tmp_path: Path) -> None:
    """As FUSE does: the same for all, or others than the files have."""
    names = [f"{n}.mp4" for n in range(4)]
    clips = packed([Clip(touch(tmp_path, name), name, 0) for name in names])
    assert isinstance(clips, Clips)
    os.link(tmp_path / names[0], tmp_path / "again.mp4")
    train = packed([*clips, Clip(tmp_path / "again.mp4", "again", 0)])
    assert isinstance(train, Clips)
    for numbers in ([7] * 5, [1, 2, 3, 4, 5], [0] * 5):
        train.inodes = np.array(numbers, np.uint64)
        left = without_leaks(Listing(["a"], train, [], []))
        assert [clip.clip_id for clip in left.train] == names
        (problem,) = left.problems
        assert isinstance(problem, Problem) and problem.kind == "copy"


def started(
    data: VideoDataModule, count: int, log: Path, does: Callable[[int], object]
) -> list[int]:
    """Processes that list a data set at once; each that lists adds its number to a file."""
    list_clips, gate = type(data).list_clips, os.pipe()

    def logged(self: VideoDataModule) -> Listing:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        does(len(log.read_text().split()))
        return list_clips(self)

    pids = []
    for _ in range(count):
        pid = os.fork()
        if not pid:
            os.close(gate[1])
            os.read(gate[0], 1)  # until the test has made all
            type(data).list_clips = logged  # type: ignore[method-assign]
            os._exit(len(again(data).listing.train) != 6)
        pids.append(pid)
    os.close(gate[1])
    os.close(gate[0])
    return pids


def ended(pids: list[int]) -> None:
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)


def test_of_processes_that_begin_at_once_one_lists(tmp_path: Path) -> None:
    data, log = kinetics(tmp_path / "set"), tmp_path / "log"
    ended(started(data, 3, log, lambda _: time.sleep(0.3)))
    assert len(log.read_text().split()) == len(indices(data)) == 1
    assert not [*(tmp_path / "caches").rglob("*.lock")]


def test_if_it_is_killed_one_of_the_others_lists(tmp_path: Path) -> None:
    data, log = kinetics(tmp_path / "set"), tmp_path / "log"
    pids = started(data, 3, log, lambda turn: time.sleep(60 if turn == 1 else 0.3))
    while not log.exists() or not log.read_text():
        time.sleep(0.01)
    os.kill(first := int(log.read_text()), signal.SIGKILL)
    pids.remove(first)
    os.waitpid(first, 0)
    ended(pids)
    assert len(log.read_text().split()) == 2 and len(indices(data)) == 1
    assert not [*(tmp_path / "caches").rglob("*.lock")]


def test_where_no_index_can_be_the_others_list_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one after the other."""
    monkeypatch.setattr(index, "LEAST", 1000)
    data, log = kinetics(tmp_path / "set"), tmp_path / "log"

    def meet(turn: int) -> None:
        """The first lets the others wait for it; they wait for each other."""
        time.sleep(0.3)
        while turn > 1 and len(log.read_text().split()) < 3:
            time.sleep(0.01)

    ended(started(data, 3, log, meet))
    assert len(log.read_text().split()) == 3


def test_nobody_waits_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(index, "PATIENCE", 0.2)
    data, log = kinetics(tmp_path / "set"), tmp_path / "log"
    (pid,) = started(data, 1, log, lambda _: time.sleep(60))
    while not log.exists():
        time.sleep(0.01)
    assert len(data.listing.train) == 6 and len(indices(data)) == 1
    (lock,) = (tmp_path / "caches").rglob("*.lock")
    assert capsys.readouterr().out == (
        f"waited 0.2 s for the process that holds {lock}; going on without it\n"
    )
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_without_locks_each_lists_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", absent)
    data = ucf11(tmp_path / "set")
    assert data.listing.train
