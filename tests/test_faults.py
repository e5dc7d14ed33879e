"""`explain.py` meets broken methods, full disks, odd names, Ctrl-C and kills: one clip is lost."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from commands import ROOT, end, node_of, run_here
from kills import MOMENTS, moments, start_limited
from preloaded import Process

from lightning_cam import files
from lightning_cam.explaining.clip_results import result_of_row, result_row
from lightning_cam.explaining.clip_sources import clips_of_files
from lightning_cam.explaining.journal import Journal, journal_rows
from lightning_cam.training.build import build
from lightning_cam.training.checkpoint import Remember
from lightning_cam.viz import write_video

pytestmark = pytest.mark.attack

METHOD = '''
"""A random map that fails or is stopped at some of its calls, as BREAKS says: {"3": "NAME"}."""
import json, os, shutil, signal, sys, time
from dataclasses import dataclass
from pathlib import Path
import torch
import lightning_cam as lc

def memory(): raise MemoryError
def cuda(): raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
def cpu(): torch.empty(10**15)
def depth(): depth()
def odd(): raise Exception("two\\nlines <b>")
def user(): raise lc.errors.UserError("no such layer; choose another")
def ctrl_c(): os.kill(os.getpid(), signal.SIGINT); time.sleep(5)
def term(): os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)
def slow(): time.sleep(0.3)
def removes(): shutil.rmtree("out")
def takes(): Path("out/clip_0.png").unlink()
def brief(): time.sleep(0.03)

@dataclass(frozen=True)
class Breaks(lc.RandomMap):
    title = "Breaks"

    def __call__(self, model, clip, target):
        calls = Path("calls.txt")
        with calls.open("a") as file:
            file.write(".")
        breaks = json.loads(os.environ.get("BREAKS", "{}"))
        what = breaks.get(str(calls.stat().st_size), breaks.get("each"))
        if what:
            globals()[what]()
        return super().__call__(model, clip, target)
'''


def make_checkpoint(path: Path) -> Path:
    """A network with random weights, which two numbers of its memory could rebuild."""
    model = {**node_of("model", "frame_cnn"), "num_outputs": 2}
    task: dict[str, Any] = {
        "_target_": "lightning_cam.tasks.VideoClassification",
        "model": model,
        "classes": ["walk", "run"],
    }
    data = {**node_of("data", "folder"), "root": "nowhere", "num_frames": 4}
    data |= {"resize": 32, "crop": 32}
    torch.manual_seed(0)
    weights = build(task, where="task").state_dict()
    memory = Remember(task, data, ["walk", "run"]).memory
    state = {"state_dict": weights, "epoch": 0, "global_step": 1, "lightning_cam": memory}
    torch.save(state, path)
    return path


def make_video(path: Path, seed: int = 0) -> Path:
    """Six frames of noise; written under a plain name first, for what FFmpeg may not take."""
    noise = np.random.default_rng(seed).integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    plain = write_video(path.parent / "plain.mp4", noise)
    plain.rename(path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    (folder / "my_breaks.py").write_text(METHOD)
    (folder / "configs" / "explain").mkdir(parents=True)
    (folder / "configs" / "explain" / "breaks.yaml").write_text(
        "# @package explain.breaks\n_target_: my_breaks.Breaks\n"
    )
    make_checkpoint(folder / "net.ckpt")
    (folder / "videos").mkdir()
    for n in range(8):
        make_video(folder / "videos" / f"clip_{n}.mp4", n)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a checkpoint, eight clips, and a method that breaks."""
    shutil.copytree(made, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


Here = Callable[..., CompletedProcess[str]]
COMMON = ("ckpt=net.ckpt", "measure=none", "device=cpu")


@pytest.fixture
def here(place: Path, monkeypatch, capfd) -> Iterator[Here]:
    """Runs explain.py in this process, which has loaded torch already."""

    def call(*arguments: str, breaks: dict[str, str] | None = None) -> CompletedProcess[str]:
        words = [str(ROOT / "explain.py"), *COMMON, *arguments]
        monkeypatch.setenv("BREAKS", json.dumps(breaks or {}))
        (place / "calls.txt").unlink(missing_ok=True)
        return run_here(words, monkeypatch, capfd)

    yield call
    sys.modules.pop("my_breaks", None)


def clips_of(out: Path, behind: int = 0) -> list[str]:
    """Clips in scores.csv, all of which have to be on the page with files that are there.

    A kill between the two leaves the page `behind`: it is written after the table.
    """
    with (out / "scores.csv").open(encoding="utf-8") as file:
        titles = list(dict.fromkeys(row["clip_id"] for row in csv.DictReader(file)))
    page = (out / "index.html").read_text(encoding="utf-8")
    assert 0 <= len(titles) - len(re.findall(r"<h2><span>.*?</span>", page)) <= behind
    for name in re.findall(r'(?:src|href)="\./([^"]+)"', page):
        assert (out / unquote(name)).is_file()
    return titles


def done_once(out: Path) -> bool:
    """Whether no clip has two lines in the journal."""
    keys = [row["key"] for row in journal_rows(out)]
    return len(keys) == len(set(keys))


def one_line(text: str) -> str:
    """The only line, but for what the check of the network cost."""
    assert "Traceback" not in text
    lines = [line for line in text.splitlines() if line]
    (line,) = [line for line in lines if not line.startswith("network checked by ")]
    return line


# --- a method that raises -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("memory", "MemoryError"),
        ("cuda", "OutOfMemoryError: CUDA out of memory"),
        ("cpu", "can't allocate memory"),
        ("depth", "RecursionError"),
        ("odd", "Exception: two lines <b>"),
        ("user", "no such layer; choose another"),
    ],
)
def test_a_method_that_raises_costs_one_clip(
    here: Here, place: Path, fault: str, said: str
) -> None:
    """A method raises out of memory, endless recursion or anything else on one clip of three."""
    options = ("video=videos", "explain=breaks", "out=out")
    for n in range(3, 8):
        (place / "videos" / f"clip_{n}.mp4").unlink()
    done = here(*options, breaks={"2": fault})
    assert done.returncode == 0, done.stderr
    assert clips_of(place / "out") == ["clip_0", "clip_2"]
    assert f"skipped clip_1: breaks: {said}" in done.stdout or said in done.stdout
    assert "1 of 3 clips failed; the same command tries them again" in done.stdout
    page = (place / "out" / "index.html").read_text()
    assert "2 clips · 1 skipped" in page and "<b>clip_1</b>" in page and "lines <b>" not in page
    done = here(*options)  # the same command, now that there is memory
    assert done.returncode == 0, done.stderr
    assert "2 of 3 clips are done in out" in done.stdout
    assert clips_of(place / "out") == ["clip_0", "clip_1", "clip_2"]
    assert (place / "calls.txt").read_text() == "." and done_once(place / "out")


@pytest.mark.slow
def test_a_method_that_raises_leaves_the_others(here: Here, place: Path) -> None:
    """One of two methods raises on two clips: their other maps are there, the gaps are named."""
    options = ("video=videos", "explain=[gradcam,breaks]", "out=out")
    done = here(*options, breaks={"2": "memory", "5": "memory"})
    assert done.returncode == 0, done.stderr
    assert "no map by breaks of clip_1 and 1 more: MemoryError" in done.stdout
    assert "2 maps are missing; the same command tries them again" in done.stdout
    page = (place / "out" / "index.html").read_text()
    assert "8 clips · 2 maps missing" in page and "<b>breaks of clip_4</b> MemoryError" in page
    done = here(*options)
    assert "6 of 8 clips are done in out" in done.stdout and "missing" not in done.stdout
    assert len(clips_of(place / "out")) == 8 and (place / "calls.txt").read_text() == ".."


@pytest.mark.slow
def test_a_method_that_always_raises_says_why_and_leaves_nothing(here: Here, place: Path) -> None:
    """The only method raises on every clip: one line with its words, exit code 2, no folder."""
    done = here("video=videos", "explain=breaks", "out=out", breaks={"each": "user"})
    assert done.returncode == 2
    assert "none of the 8 clips could be explained: breaks: no such layer" in one_line(done.stderr)
    assert "skipped clip_0 and 7 more" in done.stdout
    assert not (place / "out").exists()


# --- stops --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_after_three_of_eight_clips(here: Here, place: Path) -> None:
    """Ctrl-C after the 3rd of 8 clips: page of three, exit code 130, the same command goes on."""
    options = ("video=videos", "explain=[gradcam,breaks]")
    whole = here(*options, "out=whole")
    assert whole.returncode == 0, whole.stderr
    done = here(*options, breaks={"4": "ctrl_c"})
    assert done.returncode == 130 and done.stderr == ""
    assert one_line(done.stdout).startswith(
        "stopped; 3 of 8 clips are done, see explain_1/index.html; the same "
    )
    assert clips_of(place / "explain_1") == ["clip_0", "clip_1", "clip_2"]
    assert "3 of 8 clips so far" in (place / "explain_1" / "index.html").read_text()
    kept = (place / "explain_1" / "clip_0.npz").stat()

    done = here(*options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "3 of 8 clips are done in explain_1"
    assert (place / "calls.txt").read_text() == "." * 5 and done_once(place / "explain_1")
    assert (place / "explain_1" / "clip_0.npz").stat().st_mtime_ns == kept.st_mtime_ns
    for name in ("scores.csv", "relevance.csv"):  # to the byte as without the stop
        assert (place / "explain_1" / name).read_bytes() == (place / "whole" / name).read_bytes()
    pages = [(place / folder / "index.html").read_text() for folder in ("whole", "explain_1")]
    bodies = [page[page.index("<article") : page.index("</main>")] for page in pages]
    assert bodies[0] == bodies[1]

    done = here(*options)  # done: again, and elsewhere
    assert (place / "calls.txt").read_text() == "." * 8 and (place / "explain_2").is_dir()
    done = here(*options, "out=explain_1")
    assert "8 of 8 clips are done in explain_1; to explain them again, remove" in done.stdout
    assert not (place / "calls.txt").exists() and done.returncode == 0
    done = here(*options, "out=explain_1", "fps=9")
    assert done.returncode == 2
    assert "holds explanations with fps=8, not 9; " in one_line(done.stderr)


@pytest.mark.parametrize(("stop", "code"), [("ctrl_c", 130), ("term", 143)])
def test_a_stop_before_the_first_clip(here: Here, place: Path, stop: str, code: int) -> None:
    """Ctrl-C and SIGTERM in the first clip: one line, exit code 130 or 143, no folder is left."""
    done = here("video=videos", "explain=breaks", "out=out", breaks={"1": stop})
    assert done.returncode == code and not (place / "out").exists() and done.stderr == ""
    assert "stopped; no clip is done; the same command begins again: " in done.stdout


def test_a_stop_between_the_files_of_the_first_clip(
    here: Here, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between the files of the first clip, of a new folder and of one with old results."""
    options = ("video=videos", "explain=breaks", "out=out")
    for n in range(2, 8):
        (place / "videos" / f"clip_{n}.mp4").unlink()

    def stop(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    for old in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr("lightning_cam.explaining.clip_files.write_video", stop)
            done = here(*options)
        assert done.returncode == 130 and (place / "out").exists() == old
        assert here(*options).returncode == 0
        assert clips_of(place / "out") == ["clip_0", "clip_1"]
        for n in range(2):  # all clips are changed
            os.utime(place / "videos" / f"clip_{n}.mp4", (n, n))


@pytest.mark.slow
def test_ctrl_c_within_a_whole_video(here: Here, place: Path) -> None:
    """The same command goes on, and runs the network for what is left only."""
    noise = np.random.default_rng(0).integers(0, 255, (60, 32, 32, 3), dtype=np.uint8)
    write_video(place / "film.mp4", noise, fps=8)
    options = ("video=film.mp4", "explain=breaks")
    whole = here(*options, "out=whole")
    assert whole.returncode == 0, whole.stderr
    assert (place / "calls.txt").read_text() == "." * 4
    done = here(*options, breaks={"4": "ctrl_c"})
    assert done.returncode == 130 and done.stderr == ""
    assert "stopped; no clip is done; the same command goes on: " in done.stdout
    assert (place / "explain_1" / "film.windows").is_dir()

    done = here(*options)
    assert done.returncode == 0, done.stderr
    assert "film: goes on where it was stopped; only its frames are read again" in done.stdout
    assert (place / "calls.txt").read_text() == "." * 2  # the first are explained anyway
    assert not (place / "explain_1" / "film.windows").exists()
    for name in ("scores.csv", "relevance.csv", "track.csv", "film.png", "film.mp4"):
        assert (place / "explain_1" / name).read_bytes() == (place / "whole" / name).read_bytes()
    one, other = (np.load(place / folder / "film.npz") for folder in ("whole", "explain_1"))
    assert one.files == other.files and all((one[k] == other[k]).all() for k in one.files)


def test_sigterm_is_an_orderly_stop(here: Here, place: Path) -> None:
    """SIGTERM (SLURM, `timeout`, a container) in the third clip: page, and the same goes on."""
    before = signal.getsignal(signal.SIGTERM)
    options = ("video=videos", "explain=breaks", "out=out")
    done = here(*options, breaks={"3": "term"})
    assert done.returncode == 143 and done.stderr == ""
    assert one_line(done.stdout.strip()).startswith("stopped; 2 of 8 clips are done")
    assert clips_of(place / "out") == ["clip_0", "clip_1"]
    assert signal.getsignal(signal.SIGTERM) == before
    assert here(*options).returncode == 0
    assert len(clips_of(place / "out")) == 8 and done_once(place / "out")


@pytest.mark.slow
def test_two_in_one_folder_take_turns(here: Here, place: Path) -> None:
    """Two `explain.py` at once in one folder, named or found: the second is told, none is lost."""
    for out in (("out=out",), ()):
        options = ("video=videos", "explain=breaks", *out)
        assert here(*options, breaks={"3": "ctrl_c"}).returncode == 130
        folder = place / ("out" if out else "explain_1")
        rows, page = list(journal_rows(folder)), (folder / "index.html").read_bytes()
        first = Journal(folder)  # of a process that explains
        done = here(*options)
        said = one_line(done.stderr)
        assert done.returncode == 2 and not (place / "calls.txt").exists()
        assert re.search(r"another process is writing .*; wait for it, or choose out=DIR", said)
        assert (list(journal_rows(folder)), (folder / "index.html").read_bytes()) == (rows, page)
        first.close()
        assert here(*options).returncode == 0
        assert len(clips_of(folder)) == 8 and done_once(folder)


def test_a_changed_clip_is_done_again(here: Here, place: Path) -> None:
    """One clip is replaced by another of its name, one is lost from the folder: both are redone."""
    options = ("video=videos", "explain=breaks", "out=out")
    assert here(*options).returncode == 0
    make_video(place / "videos" / "clip_3.mp4", seed=99)
    (place / "out" / "clip_5.png").unlink()
    journal = next((place / "out").glob("rows*"))
    journal.write_bytes(b"\xff\n[1]\n{}\n" + journal.read_bytes() + b'{"key": "clip_')  # torn
    done = here(*options)
    assert done.returncode == 0, done.stderr
    assert "6 of 8 clips are done" in done.stdout and (place / "calls.txt").read_text() == ".."
    assert len(clips_of(place / "out")) == 8


def test_a_result_is_the_same_after_the_disk(here: Here, place: Path) -> None:
    """What the journal keeps of a clip is exact, and a line that names other files is refused."""
    assert here("video=videos/clip_0.mp4", "explain=gradcam", "out=out").returncode == 0
    (row,) = journal_rows(place / "out")
    result = result_of_row(row, place / "out")
    assert result is not None and result_row(row["key"], result) == row
    for change in ({"video": "../../net.ckpt"}, {"sheet": 3}, {"kept": {"array:": ["O", [1], ""]}}):
        assert result_of_row({**row, "entry": {**row["entry"], **change}}, place / "out") is None


# --- places and names ---------------------------------------------------------------------------


@pytest.mark.slow
def test_names_that_are_too_long_or_not_utf8(here: Here, place: Path) -> None:
    """Names of 250 bytes, two alike but for the end, and bytes that are not UTF-8, in all files."""
    videos = place / "odd"
    videos.mkdir()
    long = "ü" * 122
    names = [f"{long}a.mp4", f"{long}b.mp4", "caf\udce9.mp4", "caf\udce8.mp4", "A.mp4", "a.mp4"]
    for n, name in enumerate(names):
        make_video(videos / name, n)
    assert max(len(os.fsencode(name)) for name in names) == 249
    measures = ("measure=deletion", "measure.deletion.steps=3")
    done = here("video=odd", "explain=breaks", "out=out", *measures, breaks={"1": "memory"})
    assert done.returncode == 0, done.stderr
    done = here("video=odd", "explain=breaks", "out=out", *measures)
    assert done.returncode == 0 and "5 of 6 clips are done" in done.stdout, done.stderr
    titles = clips_of(place / "out")
    assert len(titles) == 6 and len(list((place / "out").glob("*.mp4"))) == 6
    assert r"caf\xe9" in titles and r"caf\xe9" in (place / "out" / "index.html").read_text("utf-8")
    done = here('video="odd/caf\udce9.mp4"', "explain=breaks", "out=one")
    assert done.returncode == 0, done.stderr
    with np.load(next((place / "one").glob("*.npz"))) as arrays:
        assert str(arrays["path"]).endswith("caf\udce9.mp4")
    done = here('video="odd/caf\udce9.mp4"', "explain=breaks", "out=two", breaks={"1": "ctrl_c"})
    assert done.returncode == 130 and r"$'video=" in done.stdout and r"caf\xe9" in done.stdout


@pytest.mark.parametrize("out", ["/proc/x", "/proc/self/x/y", "videos/clip_0.mp4/x", "n" * 300])
def test_a_folder_that_cannot_be_made(here: Here, out: str) -> None:
    """`out=` below /proc, below a file, or too long: one line that says what to do, exit code 2."""
    done = here("video=videos", "explain=breaks", f"out={out}")
    assert done.returncode == 2
    line = one_line(done.stderr)
    assert line.startswith("error: cannot ") and "out=DIR" in line


@pytest.mark.parametrize(
    ("fault", "said"),
    [("removes", "out was removed while it was written"), ("takes", "clip_0.png is missing")],
)
def test_results_removed_meanwhile(here: Here, place: Path, fault: str, said: str) -> None:
    """The folder, or a picture of a finished clip, is removed while others are explained."""
    options = ("video=videos", "explain=breaks", "out=out")
    for n in range(3, 8):
        (place / "videos" / f"clip_{n}.mp4").unlink()
    done = here(*options, breaks={"2": fault})
    assert done.returncode == 2
    line = one_line(done.stderr)
    assert said in line and "; the same command " in line
    done = here(*options)
    assert done.returncode == 0, done.stderr
    assert clips_of(place / "out") == ["clip_0", "clip_1", "clip_2"]


@pytest.mark.parametrize(
    ("video", "out"), [("videos", "videos"), ("videos/clip_0.mp4", "videos"), ("videos", "site")]
)
def test_nothing_of_others_is_written_over(here: Here, place: Path, video: str, out: str) -> None:
    """`out=` is the folder of the videos themselves, of one of them, or has an index.html."""
    (place / "site").mkdir()
    (place / "site" / "index.html").write_text("mine")
    before = {path: path.read_bytes() for path in place.glob("[vs]i*/*")}
    done = here(f"video={video}", "explain=breaks", f"out={out}")
    assert done.returncode == 2
    assert "is there already and not of an earlier explanation" in one_line(done.stderr)
    assert {path: path.read_bytes() for path in place.glob("[vs]i*/*")} == before


@pytest.mark.slow
def test_a_write_that_fails(
    here: Here, place: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    """The disk is full or broken when any one file is begun: one line, and to the byte after."""
    record_property("tried", MOMENTS)
    options = ("video=videos", "explain=breaks")
    for n in range(2, 8):
        (place / "videos" / f"clip_{n}.mp4").unlink()
    begun, fails, code = 0, 0, errno.ENOSPC
    begin_file = files._new_part

    def failing(path: Path) -> Any:
        nonlocal begun
        begun += 1
        if begun == fails:
            raise OSError(code, os.strerror(code))
        return begin_file(path)

    monkeypatch.setattr(files, "_new_part", failing)
    assert here(*options, "out=whole").returncode == 0
    count, chosen = begun, moments()
    assert count > 10
    for attempt in range(MOMENTS):
        begun, fails = 0, chosen.randint(1, count)
        code = (errno.ENOSPC, errno.EIO, errno.EROFS)[attempt % 3]
        print(f"file {fails} of {count}: {os.strerror(code)}")
        done = here(*options, f"out=out_{attempt}")
        assert done.returncode == 2 and os.strerror(code) in one_line(done.stderr)
        fails = 0
        done = here(*options, f"out=out_{attempt}")
        assert done.returncode == 0, done.stderr
        for name in ("scores.csv", "relevance.csv"):
            made = place / f"out_{attempt}" / name
            assert made.read_bytes() == (place / "whole" / name).read_bytes()
        assert len(clips_of(place / f"out_{attempt}")) == 2


# --- in processes of their own ------------------------------------------------------------------

FILES_OF_30_KB = "limit(resource.RLIMIT_FSIZE, 30_000)"
LITTLE_MEMORY = """
import lightning_cam.explaining.explain_run as run
real = run.process_clip

def limited(*given):
    limit(resource.RLIMIT_AS, used() + 60_000_000)
    return real(*given)

run.process_clip = limited
"""


def begin(place: Path, *options: str, prelude: str = "", breaks: str = "{}") -> Process:
    """explain.py in a process that can be sent signals and given limits."""
    return start_limited(prelude, "explain", [*COMMON, *options], cwd=place, BREAKS=breaks)


def wait_for_calls(place: Path, count: int) -> None:
    """Until the method has been called so often, or for twenty seconds."""
    calls = place / "calls.txt"
    last = time.monotonic() + 20
    while time.monotonic() < last and not (calls.exists() and calls.stat().st_size >= count):
        time.sleep(0.005)


@pytest.mark.slow
def test_kills_at_random_moments(place: Path, record_property: Any) -> None:
    """SIGKILL at random moments of explain.py: a page of what is done, no clip is done twice."""
    record_property("tried", MOMENTS)
    options = ("video=videos", "explain=[gradcam,breaks]", "out=out")
    clips, chosen, out = 8 + 2 * max(MOMENTS - 3, 0), moments(), place / "out"
    for n in range(8, clips):
        make_video(place / "videos" / f"clip_{n}.mp4", n)
    before = 0
    for attempt in range(MOMENTS):
        (place / "calls.txt").unlink(missing_ok=True)
        process = begin(place, *options, breaks='{"each": "brief"}')
        wait_for_calls(place, 1 + attempt % 2)  # in the first clip, or the second
        time.sleep(chosen.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate()
        assert process.returncode == -signal.SIGKILL and err == ""
        done = len(list(journal_rows(out)))
        assert before + attempt % 2 <= done < clips
        if done > 1:
            assert done - 1 <= len(clips_of(out, behind=1)) <= done
        before = done
    last = end(begin(place, *options))
    assert last.returncode == 0, last.stderr
    assert f"{before} of {clips} clips are done in out" in last.stdout
    assert len(clips_of(out)) == clips and done_once(out)
    assert not list(out.glob(".*.part"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk(place: Path, here: Here) -> None:
    """The disk (a small tmpfs) is full before the last clip: one line, page, then goes on."""
    disk = place / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1800k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this system does not let root mount a tmpfs")
    try:
        options = ("video=videos", "explain=breaks", "out=disk/out")
        done = here(*options)
        assert done.returncode == 2
        line = one_line(done.stderr)
        assert "No space left on device; free some space there; " in line
        found = re.search(r"(\d) of 8 clips are done, see disk/out/index.html; the same", line)
        assert found, line
        finished = len(list(journal_rows(disk / "out")))
        assert finished == int(found[1]) and 1 <= finished < 8
        assert finished - 1 <= len(clips_of(disk / "out")) <= finished
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        done = here(*options)
        assert done.returncode == 0, done.stderr
        assert len(clips_of(disk / "out")) == 8 and done_once(disk / "out")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_files_that_may_not_grow(place: Path) -> None:
    """No file may exceed 30 kB (RLIMIT_FSIZE), as on a full disk: one line and exit code 2."""
    options = ("video=videos", "explain=breaks", "out=out")
    done = end(begin(place, *options, prelude=FILES_OF_30_KB))
    assert done.returncode == 2
    assert "File too large; free some space there" in one_line(done.stderr)


@pytest.mark.slow
def test_little_memory(place: Path) -> None:
    """RLIMIT_AS: a clip too large for the memory is skipped, the others are explained."""
    write_video(place / "videos" / "clip_3a.mp4", np.zeros((3, 2160, 3840, 3), np.uint8))
    options = ("video=videos", "explain=breaks", "out=out")
    done = end(begin(place, *options, prelude=LITTLE_MEMORY))
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert clips_of(place / "out") == [f"clip_{n}" for n in range(8)]
    assert "skipped clip_3a" in done.stdout


@pytest.mark.slow
def test_a_signal_from_the_terminal(place: Path) -> None:
    """SIGINT from outside, in the middle of a clip: one line, page, exit code 130."""
    options = ("video=videos", "explain=breaks", "out=out")
    process = begin(place, *options, breaks='{"each": "slow"}')
    wait_for_calls(place, 4)
    process.send_signal(signal.SIGINT)
    done = end(process)
    assert done.returncode == 130 and done.stderr == ""
    said = one_line(done.stdout.strip())
    assert said.startswith("stopped; 3 of 8 clips are done, see out/index.html")
    assert len(clips_of(place / "out")) == 3


def test_ctrl_c_before_there_are_clips(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the checkpoint is read: one line, exit code 130."""

    def stop(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_cam.commands.run_explain.explain_checkpoint", stop)
    done = here("video=videos")
    assert done.returncode == 130 and one_line(done.stderr) == "stopped"


def test_no_clip_is_taken_for_another(place: Path) -> None:
    """A copy, a link and a changed file: each source has a key of its own, a link has none."""

    class Reads:
        def read(self, path: Path) -> dict[str, Any]:
            raise NotImplementedError

    shutil.copy(place / "videos" / "clip_0.mp4", place / "videos" / "copy.mp4")
    (place / "videos" / "link.mp4").symlink_to("clip_0.mp4")
    before = [source.key for source in clips_of_files(place / "videos", Reads())]
    assert len(before) == len(set(before)) == 9
    os.utime(place / "videos" / "clip_0.mp4", (1, 1))
    after = [source.key for source in clips_of_files(place / "videos", Reads())]
    changed = [n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert changed == [0]
