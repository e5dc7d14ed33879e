"""The check command: every kind of damage is named, whatever decoders do; the exit code says."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import layouts
import numpy as np
import pytest
from commands import ENVIRONMENT, ROOT

from lightning_cam.commands import run_check as command
from lightning_cam.commands.check import main
from lightning_cam.data.check import inspection
from lightning_cam.data.check.inspection import Finding, inspect_all, inspect_video
from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.listing import Problem
from lightning_cam.data.video.completeness import bytes_missing
from lightning_cam.data.video.reading import read_clip, read_frames
from lightning_cam.synthetic.actions.data_module import SyntheticActions

FORMATS = (".mpg", ".avi", ".mp4", ".mov", ".mkv", ".webm")


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of every format."""
    root = tmp_path_factory.mktemp("videos")
    for suffix in FORMATS:
        layouts.encode(root / f"whole{suffix}", layouts.frames("blink", 0, 72))
    return root


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.folder(tmp_path_factory.mktemp("data") / "folder")


@pytest.fixture
def check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., CompletedProcess[str]]:
    """Runs the command in this process, which has loaded torch already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def call(*arguments: object) -> CompletedProcess[str]:
        words = ["lightning-cam-check", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        capfd.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main()
        out, err = capfd.readouterr()
        return CompletedProcess(words, leaving.value.code, out, err)

    return call


def reader(**options: Any) -> Any:
    return SyntheticActions("unused", **options).reader


# --- whole files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_whole_files_lack_nothing(videos: Path, suffix: str) -> None:
    path = videos / f"whole{suffix}"
    assert bytes_missing(path) == 0
    assert inspect_video(Clip(path, "x"), reader()) == Finding(18)


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("suffix", FORMATS)
def test_what_a_cut_file_lacks(videos: Path, tmp_path: Path, suffix: str, share: float) -> None:
    data = (videos / f"whole{suffix}").read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(share * len(data))])
    finding = inspect_video(Clip(path, "x"), reader())
    assert finding.kind in ("unreadable", "damaged"), finding
    assert finding.why.count("\n") == 0
    if suffix in (".avi", ".mkv", ".webm"):
        assert bytes_missing(path) == len(data) - int(share * len(data))


@pytest.mark.parametrize("suffix", [".mpg", ".m1v"])
@pytest.mark.parametrize("left", [3, 4, 8])
def test_images_that_end_in_the_next_ones_head(
    videos: Path, tmp_path: Path, suffix: str, left: int
) -> None:
    """Packets whole to the byte, the last of which holds the beginning of another image."""
    data = (videos / "whole.mpg").read_bytes()
    packet = data.index(b"\0\0\1\xe0")
    end = data.rindex(b"\0\0\1\0", packet, 1900) + left
    size = (end - packet - 6).to_bytes(2, "big")
    program = data[: packet + 4] + size + data[packet + 6 : end]
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(program if suffix == ".mpg" else program[program.index(b"\0\0\1\xb3") :])
    assert bytes_missing(path) == (left == 3)
    assert inspect_video(Clip(path, "x"), reader()).kind == "damaged"
    assert len(read_clip(path)) > 16  # what is left can be used


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        b"RIFF" + bytes(40),
        b"\x1a\x45\xdf\xa3" + bytes(20),
        b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01" + b"\xff" * 7 + bytes(20),  # a live stream
        b"\0\0\0\x10ftypisom" + bytes(20),
        b"\0\0\1\xba" + bytes(20),
        bytes(100),
    ],
)
def test_headers_that_make_no_sense_say_nothing(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    assert bytes_missing(path) == 0


def test_real_files_are_whole(real: Path) -> None:
    files = [path for path in real.rglob("*") if path.suffix in FORMATS]
    assert len(files) > 50
    assert not [path for path in files if bytes_missing(path)]
    damaged = inspect_video(Clip(real / "odd" / "corrupted.mp4", "x"), reader())
    assert damaged.kind == "unreadable"
    assert inspect_video(Clip(real / "arm_wrestling.mp4", "x"), reader()).kind == ""


def test_ground_truth_is_checked_too(videos: Path, tmp_path: Path) -> None:
    from lightning_cam.data.core.ground_truth import Truth

    truth = tmp_path / "truth.npz"
    clip = Clip(videos / "whole.mp4", "x", truth=truth)
    assert inspect_video(clip, reader()).kind == "truth"
    for count, kind in ((71, "truth"), (72, "")):
        Truth(np.ones((count, 4, 4), bool), 0, 1, np.zeros((count, 1))).write(truth)
        assert inspect_video(clip, reader()).kind == kind


def test_all_steps_are_decoded_as_far_as_memory_allows(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []

    def spy(*args: Any, **options: Any) -> Any:
        read = read_frames(*args, **options)
        kept.append(len(read.frames))
        return read

    monkeypatch.setattr("lightning_cam.data.core.clips.read_frames", spy)
    clip = Clip(videos / "whole.mp4", "x")
    assert inspect_video(clip, reader(fps=30.0, num_frames=4)).steps == 72
    monkeypatch.setattr(inspection, "_MEMORY", 6 * 64 * 64 * 3)
    assert inspect_video(clip, reader(fps=30.0, num_frames=4)).steps == 72
    assert kept[0] == 72
    assert kept[1] <= 6 + 4


@pytest.mark.parametrize("padding", [0, 1])
def test_a_last_chunk_may_lack_its_padding(videos: Path, tmp_path: Path, padding: int) -> None:
    data = bytearray((videos / "whole.avi").read_bytes())
    size = len(data) - 8
    path = tmp_path / "x.avi"
    for lack, lost in ((padding, 0), (2, 2)):
        data[4:8] = (size + lack).to_bytes(4, "little")
        path.write_bytes(data)
        assert bytes_missing(path) == lost


@pytest.mark.parametrize(
    ("numbers", "lost"),
    [
        ([*range(1, 3), *range(26, 59)], 23),
        (list(range(1, 59)), 0),
        (list(range(58)), 0),
        (list(range(4, 40)), 3),
        ([1, 3], 1),
        (list(range(5, 60, 5)), 0),  # every fifth frame
        ([5, 10, 20, 25], 1),
        ([7], 0),  # it is short
    ],
)
def test_lost_images_show_in_the_numbers(tmp_path: Path, numbers: list[int], lost: int) -> None:
    image = layouts.encode(tmp_path / "one", layouts.frames("blink", 0, 1)) / "00001.jpg"
    clip = tmp_path / "clip"
    clip.mkdir()
    for number in numbers:
        shutil.copy(image, clip / f"{number:05d}.jpg")
    found = inspect_video(Clip(clip, "x"), reader(rate=12, fps=None))
    is_are = "number is" if lost == 1 else "numbers are"
    why = f"{lost} {is_are} missing among its images; replace it"
    assert found == Finding(len(numbers), *(("damaged", why) if lost else ()))


# --- workers --------------------------------------------------------------------------------------


def test_a_decoder_may_hang_crash_or_raise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def read(path: Path, *args: Any, **options: Any) -> None:
        os.write(2, b"decoders print\n")
        if "hang" in path.name:
            time.sleep(60)
        if "crash" in path.name:
            os.kill(os.getpid(), 9)
        if "leave" in path.name:
            os._exit(3)
        if "raise" in path.name:
            raise RuntimeError("two\nlines")
        raise inspection.VideoReadError(path, "fine")

    monkeypatch.setattr("lightning_cam.data.core.clips.read_frames", read)
    names = ["ok1", "hang", "ok2", "crash", "leave", "raise", "ok3", "crash2", "ok4"]
    clips = [Clip(tmp_path / name, name) for name in names]
    start = time.monotonic()
    found = {
        clip.clip_id: finding.why
        for clip, finding in inspect_all(clips, reader(), processes=2, timeout=1.0)
    }
    assert time.monotonic() - start < 10
    assert list(map(found.pop, ["ok1", "ok2", "ok3", "ok4"])) == ["fine"] * 4
    assert found == {
        "hang": "decoding took more than 1 s; remove it, or set timeout=10",
        "crash": "the decoder crashed (SIGKILL); re-encode it or remove it",
        "crash2": "the decoder crashed (SIGKILL); re-encode it or remove it",
        "leave": "the decoder crashed (exit code 3); re-encode it or remove it",
        "raise": "RuntimeError: two lines",
    }
    assert capfd.readouterr().err == ""


def test_scanning_can_be_given_up(videos: Path) -> None:
    import multiprocessing

    clips = [Clip(videos / "whole.mp4", str(n)) for n in range(5)]
    found = inspect_all(clips, reader(), processes=3)
    next(found)
    found.close()
    assert not multiprocessing.active_children()
    assert list(inspect_all([], reader())) == []


# --- the command ----------------------------------------------------------------------------------


def test_all_is_well(check: Any, folder: Path, tmp_path: Path) -> None:
    done = check("data=folder", f"data.root={folder}", "data.num_frames=8")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines() if line.strip()]
    assert ["class", "train", "val", "test", "short"] in lines
    assert ["move_left", "4", "1", "1", "-"] in lines
    assert ["all", "8", "2", "2", "0"] in lines
    assert done.stdout.splitlines()[-1] == f"{folder}: all is well"
    assert not list(tmp_path.iterdir())  # no list of no problems


def test_problems_are_counted_named_and_written(check: Any, folder: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(folder, tmp_path / "my [set]"))
    layouts.cut(root / "blink" / "b [1].webm")
    (root / "move_left" / "a.mp4").write_bytes(b"not a video" * 10)
    (root / "move_left" / "f" / "00007.jpg").write_bytes(b"\xff\xd8\xff")
    for n in range(12):
        (root / "blink" / f"{n}.txt").touch()
    done = check("data=folder", f"data.root='{root}'", "out=all.csv")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert "12 stray (files that do not belong there)" in lines
    assert "  blink/0.txt: no video by its suffix; convert it or remove it" in lines
    assert "  and 2 more, see all.csv" in lines
    (cut,) = (line for line in lines if line.startswith("  blink/b [1].webm: cut short, at least "))
    assert cut.endswith(" bytes are lost; replace it")
    assert lines[-1] == f"{root}: 12 stray, 1 damaged, 2 unreadable"
    heads = [line.split() for line in lines if line.strip()]
    assert ["class", "train", "val", "test", "stray", "damaged", "unreadable", "short"] in heads
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15
    assert {row["what"] for row in rows if row["kind"] == "unreadable"} == {
        "move_left/a.mp4",
        "move_left/f",
    }
    (row,) = (row for row in rows if row["what"] == "move_left/f")
    assert "its image 00007.jpg is damaged" in row["why"]
    # Without opening videos only lists and folders count.
    done = check("data=folder", f"data.root='{root}'", "decode=false", "out=null")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == f"{root}: 12 stray; no video was opened"
    assert "  and 2 more" in done.stdout.splitlines()
    assert not (tmp_path / "problems.csv").exists()


def test_what_is_printed_does_not_depend_on_which_worker_is_first(
    check: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(folder, tmp_path / "set"))
    layouts.cut(root / "blink" / "b [1].webm")
    (root / "move_left" / "a.mp4").write_bytes(b"not a video" * 10)
    printed = []
    for order in (1, -1):

        def arriving(*args: Any, order: int = order, **kwargs: Any) -> Any:
            return sorted(inspect_all(*args, **kwargs), key=lambda found: found[1].kind)[::order]

        monkeypatch.setattr("lightning_cam.data.check.inspection.inspect_all", arriving)
        printed.append(check("data=folder", f"data.root={root}", "out=null").stdout)
    assert printed[0] == printed[1]
    assert ["class", "train", "val", "test", "damaged", "unreadable", "short"] in [
        line.split() for line in printed[0].splitlines()
    ]


def test_coverage_of_classes(check: Any, tmp_path: Path) -> None:
    root = layouts.kinetics(tmp_path / "k")
    for path in sorted((root / "train" / "drop_kicking").iterdir())[:2]:
        path.unlink()
    done = check("data=kinetics", f"data.root={root}", "decode=false")
    assert done.returncode == 1
    lines = [line.split() for line in done.stdout.splitlines() if line.strip()]
    assert ["class", "train", "val", "test", "missing", "there"] in lines
    assert ["drop", "kicking", "2", "2", "2", "2", "66%"] in lines
    assert ["all", "6", "4", "4", "2", "83%"] in lines
    assert (
        "note: the test part has no labels or no clips: the validation part serves for testing"
        in done.stdout.splitlines()
    )


def test_coverage_of_classes_whose_files_do_not_name_them(check: Any, tmp_path: Path) -> None:
    root = layouts.something(tmp_path / "s", 2)
    media = {path.stem: path for path in root.rglob("*.webm")}
    rows = json.loads((root / "something-something-v2-train.json").read_text())
    of_class = [row["id"] for row in rows if row["template"].startswith("[Closing]")]
    of_class += [row["id"] for row in rows if row["template"].startswith("Closing")]
    media[of_class[0]].unlink()
    done = check("data=something_v2", f"data.root={root}", "data.split=official", "decode=false")
    assert done.returncode == 1
    lines = [line.split() for line in done.stdout.splitlines() if line.strip()]
    (row,) = (line for line in lines if line[:2] == ["Closing", "something"])
    assert row[-2] == "1" and row[-1].endswith("%") and row[-1] != "100%"


def test_no_name_or_number_is_cut(
    check: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = tmp_path / "set"
    for name in ("shoot_ball_at_a_basket_from_very_far_away", "clap"):
        for n in range(3):
            layouts.encode(root / name / f"{n}.mp4", layouts.frames("blink", n + len(name), 24))
    (root / "clap" / "0.mp4").write_bytes(b"no video")
    (root / "clap" / "x.txt").touch()
    monkeypatch.setenv("COLUMNS", "30")
    lines = check("data=folder", f"data.root={root}").stdout.splitlines()
    words = [line.split() for line in lines]
    assert ["class", "train", "val", "test", "stray", "unreadable", "short"] in words
    assert any(w[:1] == ["shoot_ball_at_a_basket_from_very_far_away"] for w in words)


def test_problems_of_an_earlier_run_do_not_stay(check: Any, folder: Path, tmp_path: Path) -> None:
    arguments = ["data=folder", f"data.root={folder}", "decode=false"]
    path = tmp_path / "problems.csv"
    path.write_text("kind,what,why\r\nstray,x,y\r\n")
    assert check(*arguments).returncode == 0
    assert not path.exists()
    path.write_text("my,own,notes\n")  # no file of ours
    assert check(*arguments).returncode == 0
    assert path.read_text() == "my,own,notes\n"


def write(root: Path, files: dict[str, str]) -> None:
    for file, text in files.items():
        (path := root / file).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


LISTED = "label,youtube_id,time_start,time_end,split\n"
KINETICS = {  # two clips, and no more
    "train.csv": f"{LISTED}a,aaaaaaaaaaa,0,10,train\nb,bbbbbbbbbbb,0,10,train\n",
    "validate.csv": LISTED,
    **{f"train/{c}/{11 * c}_000000_000010.mp4": c for c in "ab"},
}
HMDB51 = {  # all of whose rows are for testing
    **{f"testTrainMulti_7030_splits/{c}_test_split1.txt": f"x_{c}.avi 2\n" for c in "ab"},
    **{f"{c}/x_{c}.avi": c for c in "ab"},
}
FOLDER = {f"{part}/{c}/x.mp4": part + c for part in ("train", "val") for c in "ab"}
NOTHING = {"train.txt": "", "val.txt": ""}
LACKS_VAL = "  val: it holds nothing, and training needs it; fill its list or folder"
LACKS_TRAIN = LACKS_VAL.replace("val", "train")


@pytest.mark.attack
@pytest.mark.parametrize(
    ("name", "files", "code", "said"),
    [
        ("kinetics", KINETICS, 1, [LACKS_VAL, "set: 1 part; no video was opened"]),
        ("hmdb51", HMDB51, 1, [LACKS_TRAIN, LACKS_VAL, "set: 2 part; no video was opened"]),
        ("folder", FOLDER | {"test/a/.x": ""}, 1, ["note: the test part holds nothing"]),
        ("kinetics", dict.fromkeys(KINETICS, ""), 2, []),
        ("kinetics", dict.fromkeys(KINETICS, LISTED), 2, []),
        ("hmdb51", dict.fromkeys(HMDB51, ""), 2, []),
        ("kitti_formatted", NOTHING, 2, []),
    ],
)
def test_no_part_may_be_empty(
    check: Any, tmp_path: Path, name: str, files: dict[str, str], code: int, said: list[str]
) -> None:
    """A data set whose lists, or some of its parts, are empty."""
    write(tmp_path / "set", files)
    done = check(f"data={name}", "data.root=set", "decode=false")
    assert done.returncode == code
    assert set(said) <= set(done.stdout.splitlines())
    assert "all is well" not in done.stdout
    if code == 2:
        (line,) = done.stderr.splitlines()
        if not any(files.values()):
            assert re.search(r" (is|are) empty: ", line), line


def test_a_data_set_without_clips_for_testing_is_well(check: Any, tmp_path: Path) -> None:
    write(tmp_path / "set", FOLDER)
    (tmp_path / "set" / "test").mkdir()
    done = check("data=folder", "data.root=set", "decode=false")
    assert done.returncode == 0, done.stdout
    assert "note: the test part holds nothing" in done.stdout.splitlines()


@pytest.mark.parametrize("name", ["ucf11", "synthetic"])
def test_other_data_sets(check: Any, tmp_path: Path, name: str) -> None:
    options: list[object] = [f"data.root={tmp_path / 'set'}"]
    if name == "ucf11":
        layouts.cut(next(layouts.ucf11(tmp_path / "set").rglob("v_walk_dog_01_01.mpg")))
    else:  # rendered on first use
        options += ["data.groups=3", "data.clips=1", "data.actions=[blink,shrink]"]
    done = check(f"data={name}", *options)
    assert done.returncode == (name == "ucf11")
    assert done.stdout.splitlines()[-1].endswith(
        "all is well" if name == "synthetic" else "1 damaged"
    )


@pytest.mark.slow
def test_multispectral(check: Any, tmp_path: Path) -> None:
    root = layouts.multispectral(tmp_path / "set")
    options = ["data=multispectral", f"data.root={root}", "processes=1"]
    done = check(*options, "decode=false")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = [line.split() for line in done.stdout.splitlines() if line.strip()]
    assert ["swing_cw", "12", "4", "4"] in lines
    top = root / "SOIB"
    layouts.cut(top / "IR" / "swing_cw" / "a02_c1_r1" / "0011.png")  # within the fused clip as well
    (top / "TV" / "swing_cw" / "a02_c1_r1" / "0039.png").unlink()
    shutil.rmtree(top / "IR" / "swing_ccw" / "a01_c1_r1")
    ir, tv = (top / "file_lists" / f"{name}_train.txt" for name in ("IR", "TV"))
    for path in (ir, tv):
        path.write_text(path.read_text().replace("swing_ccw/a03_c1_r1 40 0", "swing_ccw/a03_c1_r1"))
    tests = top / "file_lists" / "TV_test.txt"
    row = "swing_cw/a03_c2_r1 40 1\n"
    tv.write_text(tv.read_text().replace(row, ""))
    tests.write_text(tests.read_text() + row)
    for fusion in ("union", "early"):
        done = check(*options, f"data.fusion={fusion}")
        assert done.returncode == 1
        assert done.stdout.splitlines()[-1] == (
            f"{root}: 2 row, 2 unlisted, 1 leak, 1 pair, 1 missing, 1 count, 1 unreadable"
        )
        for words in (
            "  IR/swing_ccw/a01_c1_r1: not there, though listed in IR_train.txt:1; copy it again",
            "  TV/swing_cw/a02_c1_r1: 39 images are there, 40 listed in TV_train.txt:",
            "  actor 3: in training (IR_train.txt:",
            "  TV/swing_cw/a03_c2_r1: IR_train.txt:",
            "its image 0011.png is damaged or cut short",
        ):
            assert words in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "data is missing; add data=NAME, one of folder, hmdb51, "),
        (["data=kinetic"], "nearest: kinetics"),
        (["data=folder"], "data.root is missing"),
        (["data=folder", "data.root=nowhere"], "no folder 'nowhere'"),
        (["data=folder", "data.rot=x"], "no setting 'data.rot'"),
        (["data=ucf11", "timeout=0"], "timeout=0 must be"),
        (["data=ucf11", "decode=flase"], "decode=flase must be true or false"),
        (["data=ucf11", "processes=0"], "processes=0 must be"),
        (["data=ucf11", "data._target_=argparse.Namespace"], "not a VideoDataModule"),
        (["data=ucf11", "+more=1"], "no setting 'more'"),
        (["--decode"], "unknown switch"),
    ],
)
def test_errors_of_usage(check: Any, arguments: list[str], words: str) -> None:
    done = check(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_problems_that_cannot_be_written(check: Any, folder: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(folder, tmp_path / "set"))
    (root / "blink" / "x.txt").touch()
    out = root / "blink" / "x.txt" / "where.csv"
    done = check("data=folder", f"data.root={root}", "decode=false", f"out={out}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot write {out}: Not a directory")
    assert done.stderr.endswith("; or choose out=FILE\n")
    assert "1 stray" in done.stdout  # the report is not lost


def test_every_kind_has_a_heading_and_one_line() -> None:
    lines = list(command._lines([Problem("new", "a\nb", "why")], None))
    assert lines == ["1 new", "  a b: why", ""]


def test_help_loads_neither_torch_nor_lightning() -> None:
    code = (
        "import runpy, sys; sys.argv = ['', 'check', '--help']\n"
        "runpy.run_module('lightning_cam', run_name='__main__')\n"
        "print(sorted({'torch', 'lightning', 'numpy', 'wandb'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    for word in ("data=NAME", "hmdb51", "kinetics", "folder", "decode: true", "Exit code 0"):
        assert word in done.stdout
    assert all("#" in line for line in done.stdout.splitlines() if line.startswith("  out:"))


@pytest.mark.attack
def test_names_that_are_not_utf8_are_said(check: Any, tmp_path: Path) -> None:
    """A file name that is not UTF-8 among videos and strays; the check says and writes it."""
    root = tmp_path / "set"
    for name in ("clap", "wave"):
        (root / name).mkdir(parents=True)
        for n in range(3):
            (root / name / os.fsdecode(b"\xe9%d.mp4" % n)).write_bytes(b"no video")
    done = check("data=folder", f"data.root={root}", "out=problems.csv")
    assert done.returncode == 1, done.stderr
    assert "udce90.mp4" in done.stdout
    assert b"\\xe90.mp4" in Path("problems.csv").read_bytes()
