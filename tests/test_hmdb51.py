"""HMDB51: the official lists, awkward names, validation by source movie, what is wrong on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_cam.data.clips.hmdb51 import HMDB51, SPLITS_FOLDER, source_movie
from lightning_cam.data.core.clips import Clip
from lightning_cam.errors import ConfigError, DataError, UnknownNameError

CLASSES = ["clap", "shoot_ball", "wave"]
MOVIES = [f"Movie_{n} [{n}] & (b)!;#" for n in range(12)]


def official(root: Path) -> Path:
    """Empty files with real names: three classes of 12 movies, 7 of 10 clips each for training."""
    for name in CLASSES:
        for split in (1, 2, 3):
            lines = []
            for m, movie in enumerate(MOVIES):
                for n in range(2):
                    file = f"{movie}_{name}_u_nm_np1_fr_goo_{n}.avi"
                    touch(root, f"{name}/{file}")
                    flag = 0 if m == 11 else 2 if (m + split) % 4 == 0 else 1
                    lines.append(f"{file} {flag} \n")
            touch(root, f"{SPLITS_FOLDER}/{name}_test_split{split}.txt").write_text("".join(lines))
    return root


def touch(root: Path, name: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def module(root: Path, **options: Any) -> HMDB51:
    return HMDB51(str(root), num_workers=0, **options)


def ids(clips: list[Clip]) -> set[str]:
    return {clip.clip_id for clip in clips}


def kinds(data: HMDB51) -> list[tuple[str, str]]:
    return [(problem.kind, problem.what) for problem in data.listing.problems]


def test_lists_and_folders(tmp_path: Path) -> None:
    data = module(official(tmp_path))
    assert data.classes == CLASSES
    listing = data.listing
    assert not listing.problems
    for split in (1, 2, 3):
        listing = module(tmp_path, split=split).listing
        test = {m for m in range(11) if (m + split) % 4 == 0}
        assert {MOVIES.index(clip.clip_id.split("_clap")[0]) for clip in listing.test[:4]} <= test
        assert len(listing.test) == 3 * 2 * len(test)
        assert len(listing.train) + len(listing.val) == 3 * 2 * (11 - len(test))
    clip = module(tmp_path).listing.train[0]
    assert clip.path.is_file() and clip.path.parent.name == "clap"


def test_no_movie_is_on_both_sides(tmp_path: Path) -> None:
    listing = module(official(tmp_path), val_share=0.2).listing
    groups = [{clip.group for clip in part} for part in (listing.train, listing.val)]
    assert not groups[0] & groups[1]
    per_class = [sum(clip.label == label for clip in listing.val) for label in range(3)]
    assert all(2 <= count <= 4 for count in per_class)  # of 16 each


def test_parts_do_not_depend_on_what_is_there_or_wanted(tmp_path: Path) -> None:
    whole = module(official(tmp_path)).listing
    some = module(tmp_path, classes=["wave", "clap"]).listing
    assert some.classes == ["wave", "clap"]
    for part in ("train", "val", "test"):
        want = {
            c.clip_id: c.label for c in getattr(whole, part) if CLASSES[c.label] != "shoot_ball"
        }
        got = {clip.clip_id: clip.label for clip in getattr(some, part)}
        assert {name: {0: 1, 2: 0}[label] for name, label in want.items()} == got
    gone = sorted(whole.val, key=lambda clip: clip.clip_id)[0]
    gone.path.unlink()
    less = module(tmp_path).listing
    assert ids(less.val) == ids(whole.val) - {gone.clip_id}
    assert (ids(less.train), ids(less.test)) == (ids(whole.train), ids(whole.test))


@pytest.mark.parametrize(
    ("file", "name", "movie"),
    [
        ("April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "brush_hair", "April_09"),
        ("Wave_to_me_wave_h_cm_np1_fr_bad_12.avi", "wave", "Wave_to_me"),
        ("50_FIRST_DATES_kick_f_cm_np1_ba_med_19.avi", "kick", "50_FIRST_DATES"),
        ("#122_Cleaning_[x]_(1)_clap_f_nm_np2_le_med_0.avi", "clap", "#122_Cleaning_[x]_(1)"),
        ("no_such_tail.avi", "clap", "no_such_tail"),
    ],
)
def test_source_movie(file: str, name: str, movie: str) -> None:
    assert source_movie(file, name) == movie


def test_problems_are_named(tmp_path: Path) -> None:
    root = official(tmp_path)
    first = sorted((root / "clap").iterdir())[2]  # not of the unused movie
    first.unlink()
    moved = sorted((root / "shoot_ball").iterdir())[2]
    moved.rename(root / "wave" / moved.name)
    touch(root, "wave/new (1).avi")
    touch(root, "wave/Thumbs.db")
    touch(root, "extra/x.avi")
    with (root / SPLITS_FOLDER / "clap_test_split1.txt").open("a") as file:
        file.write(
            "a file 3\nflagless.avi\n\n" + f"{sorted((root / 'clap').iterdir())[4].name} 1\n"
        )
    data = module(root)
    assert sorted(kinds(data)) == [
        ("label", f"wave/{moved.name}"),
        ("missing", f"clap/{first.name}"),
        ("row", "clap_test_split1.txt:25"),
        ("row", "clap_test_split1.txt:26"),
        ("row", "clap_test_split1.txt:28"),
        ("unlisted", "extra"),
        ("unlisted", "wave/new (1).avi"),
    ]
    (wrong,) = (p for p in data.listing.problems if p.kind == "label")
    assert wrong.why == "listed as shoot_ball, but in the folder of wave; move it"
    assert not {moved.stem, first.stem, "new (1)"} & ids([*data.listing.train, *data.listing.test])
    with pytest.warns(UserWarning, match="7 problems with the data"):
        data.setup()
    # Of classes that are not wanted, nothing is said but of the lists.
    few = kinds(module(root, classes=["clap"]))
    assert {kind for kind, _ in few} == {"missing", "row", "unlisted"}
    assert ("unlisted", "wave/new (1).avi") not in few


def test_converted_copies_are_found(tmp_path: Path) -> None:
    root = official(tmp_path)
    for path in (root / "wave").iterdir():
        path.rename(path.with_suffix(".mp4"))
    data = module(root)
    assert not data.listing.problems
    assert {clip.path.suffix for clip in data.listing.test if clip.label == 2} == {".mp4"}


def test_packed_archives_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no HMDB51 data at .*absent.*data\.root="):
        _ = module(tmp_path / "absent").listing
    touch(tmp_path, "hmdb51_org/clap.rar")
    touch(tmp_path, "hmdb51_org/wave.rar")
    with pytest.raises(DataError, match=r"2 packed files \(clap.rar, .*unrar"):
        _ = module(tmp_path).listing
    touch(tmp_path, "hmdb51_org/clap/a_clap_u_nm_np1_fr_goo_0.avi")
    with pytest.raises(DataError, match=r"no split lists at .*test_train_splits.rar"):
        _ = module(tmp_path).listing
    lists = tmp_path / SPLITS_FOLDER  # beside the class folders
    touch(lists, "clap_test_split1.txt").write_text("a_clap_u_nm_np1_fr_goo_0.avi 1 \n")
    touch(lists, "wave_test_split1.txt").write_text("a_wave_u_nm_np1_fr_goo_0.avi 1 \n")
    data = module(tmp_path)
    assert data.classes == ["clap", "wave"]
    (problem,) = data.listing.problems
    assert (problem.kind, problem.why) == ("missing", "still packed; unpack wave.rar")
    with pytest.raises(DataError, match=r"no lists <class>_test_split2\.txt"):
        _ = module(tmp_path, split=2).listing
    assert module(tmp_path, splits_folder=str(lists)).classes == ["clap", "wave"]
    for text, said in (("", "are empty"), ("\n \n", "are empty"), ("a b c\n", "make no sense")):
        for name in ("clap", "wave"):
            (lists / f"{name}_test_split1.txt").write_text(text)
        with pytest.raises(DataError, match=rf"the lists <class>_test_split1\.txt in .* {said}"):
            _ = module(tmp_path).listing


@pytest.mark.parametrize(
    "wrong", [{"split": 4}, {"split": "1"}, {"val_share": 0}, {"val_share": 0.5}]
)
def test_impossible_settings_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"data.{next(iter(wrong))}="):
        module(tmp_path, **wrong)


def test_unknown_and_repeated_classes_are_refused(tmp_path: Path) -> None:
    official(tmp_path)
    with pytest.raises(UnknownNameError, match="no class 'waves'; nearest: wave"):
        _ = module(tmp_path, classes=["waves"]).listing
    with pytest.raises(ConfigError, match="twice"):
        _ = module(tmp_path, classes=["wave", "wave"]).listing
