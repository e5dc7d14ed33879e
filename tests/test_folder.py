"""Videos in class folders: what is held out, parts as folders, groups, and what is not a video."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_cam.data.clips.folder import VideoFolder
from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.selection import hold_out
from lightning_cam.errors import ConfigError, DataError, UnknownNameError


def touch(root: Path, name: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def module(root: Path, **options: Any) -> VideoFolder:
    return VideoFolder(str(root), num_workers=0, **options)


def ids(data: VideoFolder) -> dict[str, set[str]]:
    listing = data.listing
    return {part: {c.clip_id for c in getattr(listing, part)} for part in ("train", "val", "test")}


def kinds(data: VideoFolder) -> set[tuple[str, str]]:
    return {(problem.kind, problem.what) for problem in data.listing.problems}


def persons(root: Path, classes: str = "run walk", count: int = 5) -> Path:
    for name in classes.split():
        for person in range(10):
            for n in range(count):
                touch(root, f"{name}/day{n % 2}/person{person:02d}_{n}.mp4")
    return root


# --- hold_out -----------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=60),
    st.floats(0.05, 0.45),
    st.sampled_from([1, 2]),
)
def test_held_out_units_stay_whole(rows: list[tuple[int, int]], share: float, leave: int) -> None:
    labels, units = [label for label, _ in rows], [f"u{unit}" for _, unit in rows]
    held = hold_out(labels, units, share, leave=leave)
    taken = {unit for unit, out in zip(units, held, strict=True) if out}
    assert all((unit in taken) == out for unit, out in zip(units, held, strict=True))
    total = Counter(labels)
    lost = Counter(label for label, out in zip(labels, held, strict=True) if out)
    for label, count in lost.items():
        assert total[label] - count >= leave
        assert count <= max(1, total[label] // 2, round(share * total[label]))


@given(st.sets(st.tuples(st.integers(0, 2), st.integers(0, 99)), max_size=80), st.randoms())
def test_held_out_clips_depend_on_names_alone(rows: set[tuple[int, int]], random: Any) -> None:
    def chosen(rows: list[tuple[int, int]]) -> set[tuple[int, int]]:
        held = hold_out([label for label, _ in rows], [f"{k}/{n}" for k, n in rows], 0.2)
        return {row for row, out in zip(rows, held, strict=True) if out}

    mixed = sorted(rows)
    random.shuffle(mixed)
    assert chosen(mixed) == chosen(sorted(rows))
    for label in range(3):
        count = sum(row[0] == label for row in rows)
        want = max(1, round(0.2 * count)) if count > 1 else 0
        assert sum(row[0] == label for row in chosen(mixed)) == want


def test_large_units_are_taken_only_where_nothing_else_is() -> None:
    # Of ten clips one is wanted: the single one, whichever order; else half of them.
    units = ["big"] * 9 + ["single"]
    assert hold_out([0] * 10, units, 0.1) == [False] * 9 + [True]
    assert sum(hold_out([0] * 10, ["a"] * 5 + ["b"] * 5, 0.1)) == 5
    assert sum(hold_out([0] * 10, ["a"] * 10, 0.1)) == 0


# --- layout -------------------------------------------------------------------------------------


def test_class_folders(tmp_path: Path) -> None:
    data = module(persons(tmp_path))
    assert data.classes == ["run", "walk"]
    parts = ids(data)
    assert [len(part) for part in parts.values()] == [80, 10, 10]
    assert len(set.union(*parts.values())) == 100
    assert "run/day0/person00_0" in set.union(*parts.values())
    for part in ("val", "test"):
        assert Counter(name[:3] for name in parts[part]) == {"run": 5, "wal": 5}
    assert not data.listing.problems
    touch(tmp_path, "run/new.avi")
    more = ids(module(tmp_path))
    moved = {name for part in ("val", "test") for name in parts[part] ^ more[part]}
    assert len(moved) <= 4


@pytest.mark.parametrize("count", range(1, 8))
def test_small_classes_have_one_clip_for_each(tmp_path: Path, count: int) -> None:
    for n in range(count):
        touch(tmp_path, f"run/{n}.mp4")
    listing = module(tmp_path).listing
    sizes = [len(part) for part in (listing.train, listing.val, listing.test)]
    assert sizes == [max(count - 2, 1), int(count > 1), int(count > 2)]
    assert kinds(module(tmp_path)) == ({("few", "run")} if count < 3 else set())


def test_parts_as_folders(tmp_path: Path) -> None:
    persons(tmp_path / "train")
    touch(tmp_path, "validation/walk/a.mp4")
    touch(tmp_path, "validation/jump/b.mp4")
    data = module(tmp_path)
    parts = ids(data)
    assert data.classes == ["run", "walk"]
    assert parts["val"] == {"walk/a"}
    assert [len(parts[name]) for name in ("train", "test")] == [90, 10]
    assert kinds(data) == {("label", "validation/jump")}
    touch(tmp_path, "test/run/c.mp4")
    parts = ids(module(tmp_path))
    assert (len(parts["train"]), parts["test"]) == (100, {"run/c"})


def test_train_may_be_a_class(tmp_path: Path) -> None:
    for name in ("train", "tram"):
        for n in range(3):
            touch(tmp_path, f"{name}/{n}.mp4")
    assert module(tmp_path).classes == ["train", "tram"]


def test_groups_stay_together(tmp_path: Path) -> None:
    data = module(persons(tmp_path), group_pattern="(person[0-9]+)_")
    people = [{name.split("/")[-1][:8] for name in part} for part in ids(data).values()]
    assert [len(part) for part in people] == [8, 1, 1]
    assert len(set.union(*people)) == 10
    touch(tmp_path, "run/nobody.mp4")
    assert kinds(module(tmp_path, group_pattern="(person[0-9]+)_")) == {("group", "run/nobody.mp4")}
    # A class in which one person is all there is.
    for n in range(6):
        touch(tmp_path, f"sit/person03_{n}.mp4")
    found = kinds(module(tmp_path, group_pattern="(person[0-9]+)_"))
    assert ("few", "sit") in found


def test_some_classes_in_another_order(tmp_path: Path) -> None:
    whole = ids(module(persons(tmp_path, "run sit walk")))
    some = module(tmp_path, classes=["walk", "run"])
    for part, names in ids(some).items():
        assert names == {name for name in whole[part] if not name.startswith("sit")}
    labels: set[tuple[str, int]] = {(c.path.parts[-3], c.label) for c in some.listing.train}
    assert labels == {("walk", 0), ("run", 1)}
    with pytest.raises(UnknownNameError, match="no class 'runs'; nearest: run"):
        _ = module(tmp_path, classes=["runs"]).listing


def test_images_and_strays(tmp_path: Path) -> None:
    for n in range(1, 4):
        touch(tmp_path, f"run/a{n}/{n:05d}.jpg")
        touch(tmp_path, f"run/deep/v.{n}/frame_{n}.png")
        touch(tmp_path, f"walk/{n}.MP4")
    touch(tmp_path, "run/notes.txt")
    touch(tmp_path, "run/.DS_Store")
    touch(tmp_path, "run/Thumbs.db")
    touch(tmp_path, "lost.mp4")
    touch(tmp_path, "labels.csv")
    touch(tmp_path, ".cache/x.mp4")
    (tmp_path / "empty").mkdir()
    data = module(tmp_path)
    assert data.classes == ["run", "walk"]
    names = set.union(*ids(data).values())
    assert {"run/a1", "run/deep/v.1", "walk/1"} <= names
    assert len(names) == 9
    assert kinds(data) == {("stray", "run/notes.txt"), ("stray", "lost.mp4"), ("few", "empty")}


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*absent.*data\.root="):
        _ = module(tmp_path / "absent").listing
    touch(tmp_path, "a.mp4")
    with pytest.raises(DataError, match=r"no videos in class folders of .*expected <root>/<class>"):
        _ = module(tmp_path).listing


@pytest.mark.parametrize(
    "wrong",
    [
        {"val_share": 0}, {"test_share": 0.6}, {"val_share": "much"},
        {"group_pattern": "person("}, {"group_pattern": "person"},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"data.{next(iter(wrong))}="):
        module(tmp_path, **wrong)


def test_a_folder_of_images_is_read_at_its_rate(tmp_path: Path) -> None:
    from layouts import encode, frames

    path = encode(tmp_path / "blink" / "one", frames("blink", 0, 24))
    data = module(tmp_path, classes=["blink"], fps=4, resize=40, crop=32)
    sample = data.read(path)
    assert sample["frame_idx"][:8].tolist() == list(range(0, 24, 3))
    assert int(sample["valid"].sum()) == 8
    assert isinstance(data.listing.train[0], Clip)


def test_empty_parts_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.mp4")
    touch(tmp_path, "walk/a.mp4")
    words = r"no clips for validation in .*2 problems, the first is run: its 1 videos"
    with pytest.raises(DataError, match=words):
        module(tmp_path).setup("fit")
    for name in ("run", "walk"):
        touch(tmp_path, f"{name}/b.mp4")
    data = module(tmp_path)
    with pytest.warns(UserWarning) as caught:  # enough to train on
        data.setup("fit")
    assert [str(w.message).partition(" in ")[0] for w in caught] == [
        "2 problems with the data",
        "no test clips of: run, walk",
    ]
    with pytest.raises(DataError, match=r"no clips for testing in .*too few to hold any out"):
        data.test_dataloader()


def test_one_class_is_not_enough_to_train(tmp_path: Path) -> None:
    for n in range(5):
        touch(tmp_path, f"run/{n}.mp4")
    with pytest.raises(DataError, match=r"one class only \(run\): at least two classes"):
        module(tmp_path).setup("fit")
    data = module(tmp_path)
    data.setup("test")
    assert len(data.test_dataloader()) == 1


# --- one video is in one part ---------------------------------------------------------------------


@pytest.mark.attack
@pytest.mark.parametrize("where", ["run/self", "run/day0/up", "run/day0/root", "walk/runs", "jog"])
def test_links_to_folders_add_no_video(tmp_path: Path, where: str) -> None:
    """A class folder with a link to itself, to one above, or to another class."""
    plain = ids(module(persons(tmp_path / "plain")))
    root = persons(tmp_path / "linked")
    (root / where).symlink_to(root if where.endswith("root") else root / "run")
    data = module(root)
    assert ids(data) == plain
    assert ("copy", where) in kinds(data)


@pytest.mark.attack
@pytest.mark.parametrize("how", ["symlink", "hardlink", "copy", "folder"])
@pytest.mark.parametrize("part", ["val", "test"])
def test_no_video_is_trained_on_and_evaluated(tmp_path: Path, how: str, part: str) -> None:
    """A training video that is linked or copied into the part for validation or testing."""
    persons(tmp_path / "train")
    for other in ("val", "test"):
        touch(tmp_path, f"{other}/walk/own.mp4")
    source = tmp_path / "train/walk/day0/person03_2.mp4"
    source.write_bytes(b"video")
    target = tmp_path / part / "walk" / ("day0" if how == "folder" else source.name)
    if how == "copy":
        target.write_bytes(b"video")
    elif how == "hardlink":
        target.hardlink_to(source)
    else:
        target.symlink_to(source.parent if how == "folder" else source)
    data = module(tmp_path)
    shared = 30 if how == "folder" else 1  # all of the day's videos of this class
    assert len(data.listing.train) == 100 - shared
    assert len(data.listing.part(part)) == 1 + shared
    assert {p.kind for p in data.listing.problems} == {"leak"}
    assert len(data.listing.problems) == shared
    assert f"of the {part} part, where it stays; remove" in data.listing.problems[0].why


@pytest.mark.attack
def test_other_videos_of_the_same_name_are_kept(tmp_path: Path) -> None:
    """Numbered videos, whose names and sizes are alike in all folders."""
    for part in ("train", "val"):
        for name in ("run", "walk"):
            for n in range(3):
                touch(tmp_path, f"{part}/{name}/{n}.mp4").write_text(f"{part[0]}{name[0]}{n}")
    data = module(tmp_path)
    assert len(data.listing.val) == 6
    assert not [p for p in data.listing.problems if p.kind in ("leak", "copy")]


@pytest.mark.attack
@pytest.mark.parametrize("other", ["Run", "RUN", "\N{FULLWIDTH LATIN SMALL LETTER R}un"])
def test_classes_that_differ_by_case_are_said(tmp_path: Path, other: str) -> None:
    """Two class folders whose names differ by case or form only."""
    problems = module(persons(tmp_path, f"run walk {other}")).listing.problems
    assert [p.kind for p in problems] == ["label"]
    assert "by case or form only" in problems[0].why


@pytest.mark.attack
def test_names_that_are_not_utf8_are_listed_and_held_out(tmp_path: Path) -> None:
    """File and class names in Latin-1 on a system of UTF-8."""
    persons(tmp_path)
    for n in range(5):
        touch(tmp_path, os.fsdecode(b"caf\xe9/\xff%d.mp4" % n))
    data = module(tmp_path)
    assert len(data.classes) == 3
    assert not data.listing.problems
