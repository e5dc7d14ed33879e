"""Several processes of one `explain.py`: each clip once, one folder, nobody waits for another."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT, end, run_here
from kills import start_limited
from preloaded import Process
from test_clip_sources import Clips, Task, random_clips
from test_faults import COMMON, METHOD, make_checkpoint, make_video
from test_resume import of_job, torchrun

from lightning_cam.errors import ConfigError, DataError
from lightning_cam.explaining import explain_run, side_by_side
from lightning_cam.explaining.clip_results import ClipResult
from lightning_cam.explaining.clip_sources import ClipSource
from lightning_cam.explaining.clips_by_outcome import Selection, select_clips, shuffled
from lightning_cam.explaining.explain_command import Outcome, on_device
from lightning_cam.explaining.journal import Journal, OthersRows, journal_rows
from lightning_cam.explaining.looks import SharedLooks
from lightning_cam.explaining.question import Question
from lightning_cam.explaining.sharing import Share
from lightning_cam.explaining.single_clip import ClipRequest, Skip
from lightning_cam.explaining.work_folder import work_folder
from lightning_cam.training.agreeing import command_name
from lightning_cam.viz import OUTCOMES

LAUNCHERS = ("SLURM_", "TORCHELASTIC_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_")


def step(rank: int, count: int, number: int = 0) -> dict[str, str]:
    """What srun tells a process."""
    return of_job(number, rank) | {"SLURM_NTASKS": str(count)}


@pytest.fixture(autouse=True)
def _started_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith(LAUNCHERS)]:
        monkeypatch.delenv(name)


# --- which process does what --------------------------------------------------------------------


def test_each_piece_is_of_one_process() -> None:
    work = list(range(7))
    for count in (1, 2, 3, 9):
        shares = [Share(rank, count) for rank in range(count)]
        assert sorted(piece for share in shares for piece in share.of(work)) == work
    assert str(Share(1, 3)) == "process 2 of 3: " and str(Share()) == ""


def test_processes_know_their_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a step or of one torchrun agree on a name, those of an unknown launcher cannot."""
    agent, later = torchrun(), torchrun()  # their stores live as long as they do
    for launched, other in ((of_job(0, 1), of_job(1, 1)), (agent(1), later(2))):
        with monkeypatch.context() as patch:
            names = []
            for more in ({}, {"SLURM_PROCID": "2", "RANK": "2"}, other):
                for name, value in {**launched, **more}.items():
                    patch.setenv(name, value)
                names.append(command_name())
            assert names[0] == names[1] != names[2]
    with pytest.raises(ConfigError, match=r"started by a launcher that is not known: .*out=DIR"):
        command_name()


def test_each_process_of_a_machine_has_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Moved:
        to = staticmethod(str)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = [on_device(Moved, "auto")]
    for name, value in (("SLURM_LOCALID", "1"), ("LOCAL_RANK", "2"), ("LOCAL_RANK", "3")):
        monkeypatch.setenv(name, value)
        found.append(on_device(Moved, "auto"))
    assert found == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert on_device(Moved, "cuda:0") == "cuda:0"
    monkeypatch.setenv("LOCAL_RANK", "x")
    with pytest.raises(ConfigError, match="LOCAL_RANK=x must be a number"):
        on_device(Moved, "auto")


# --- the folder ---------------------------------------------------------------------------------

FACTS = {"fps": 8}


def folder_of(place: Path, by: str = "", facts: Mapping[str, Any] = FACTS) -> str:
    """Where a process finds itself; what is finished has a file `done`."""
    lacks = lambda folder: not (folder / "done").exists()  # noqa: E731
    return work_folder(None, place / "explain", "explain.json", facts, [], lacks, by).name


def test_processes_find_one_folder_also_when_it_is_finished(tmp_path: Path) -> None:
    assert [folder_of(tmp_path, "a") for _ in range(3)] == ["explain_1"] * 3
    (tmp_path / "explain_1" / "done").touch()
    assert folder_of(tmp_path, "a") == "explain_1"  # one that comes late
    assert folder_of(tmp_path, "b") == folder_of(tmp_path, "b") == "explain_2"  # a second command
    assert folder_of(tmp_path, "a", {"fps": 9}) == "explain_3"
    assert folder_of(tmp_path) == "explain_2"  # one process goes on where something is lacking
    (tmp_path / "explain_2" / "done").touch()
    assert folder_of(tmp_path) == "explain_4"
    assert not list(tmp_path.glob(".*"))


def test_processes_that_begin_at_once_find_one_folder(tmp_path: Path) -> None:
    """Of two commands of three processes each; a finished folder of before makes all look twice."""
    folder_of(tmp_path)
    (tmp_path / "explain_1" / "done").touch()
    go, writing = os.pipe()
    started = []
    for n in range(6):
        if not (child := os.fork()):
            os.close(writing)
            os.read(go, 1)
            name = folder_of(tmp_path, "ab"[n % 2], {"fps": n % 2})
            (tmp_path / f"{'ab'[n % 2]}-{n}-{name}").touch()
            os._exit(0)
        started.append(child)
    os.close(writing)
    for child in started:
        assert os.waitpid(child, 0)[1] == 0
    found = {tuple(path.name.split("-")[::2]) for path in tmp_path.glob("?-*")}
    assert len(found) == 2 == len({folder for _, folder in found})
    assert sorted(path.name for path in tmp_path.glob("*explain_?")) == sorted(
        ["explain_1", *{folder for _, folder in found}, *(p.name for p in tmp_path.glob("?-*"))]
    )


def test_rows_of_others_come_once_and_whole(tmp_path: Path) -> None:
    own, other = Journal(tmp_path, 0), Journal(tmp_path, 1)
    rows = OthersRows(own)
    own.add({"key": "mine"})
    other.add({"key": "a"})
    with other.path.open("ab") as file:
        file.write(b'{"key": "b"')
    assert list(rows.new()) == [{"key": "a"}] and list(rows.new()) == []
    with other.path.open("ab") as file:
        file.write(b"}\n")
    assert list(rows.new()) == [{"key": "b"}]
    other.path.unlink()
    assert list(rows.new()) == []


# --- looking at clips, to choose among them -----------------------------------------------------


def selected(clips: Clips, count: int | None, looks: SharedLooks | None) -> Selection:
    return select_clips(Task(), clips, shuffled(range(40)), OUTCOMES, count, shared=looks)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [2, None])
def test_processes_choose_as_one_does(tmp_path: Path, count: int | None) -> None:
    """Each looks at its share alone when all go on together, and at all when the others died."""
    whole = random_clips()
    want = selected(whole, count, None)
    read: list[list[int]] = []
    for rank in (2, 0, 1):  # one after the other: the first is alone
        clips = random_clips()
        assert selected(clips, count, SharedLooks(tmp_path, Share(rank, 3))) == want
        read.append(clips.read)
    assert {*read[0]} >= {*whole.read} and len(read[0]) == len({*read[0]})
    assert len(read[1]) + len(read[2]) <= 2 * 4 * 4  # what their loaders had read ahead
    SharedLooks(tmp_path, Share()).discard()
    assert not tmp_path.exists()


def test_what_is_known_of_a_clip_ends_with_its_file(tmp_path: Path) -> None:
    clips = random_clips()
    looks = SharedLooks(tmp_path / "looks", Share(0, 2))
    selected(clips, None, looks)
    for file in looks.folder.iterdir():
        file.write_text("[[")  # torn
    again = random_clips()
    assert selected(again, None, looks) == selected(clips, None, None)
    assert {*again.read} == {*range(40)}


# --- the command --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, five clips of two classes, and a method that can be slow."""
    folder = tmp_path_factory.mktemp("sharing")
    (folder / "my_breaks.py").write_text(METHOD)
    (folder / "configs" / "explain").mkdir(parents=True)
    (folder / "configs" / "explain" / "breaks.yaml").write_text(
        "# @package explain.breaks\n_target_: my_breaks.Breaks\n"
    )
    state = torch.load(make_checkpoint(folder / "net.ckpt"), weights_only=True)
    state["lightning_cam"]["data"]["num_workers"] = 0
    torch.save(state, folder / "net.ckpt")
    for n, name in enumerate(("walk", "run", "walk", "run", "walk")):
        (folder / "videos" / name).mkdir(parents=True, exist_ok=True)
        make_video(folder / "videos" / name / f"clip_{n}.mp4", n)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shutil.copytree(made, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    yield tmp_path / "place"
    sys.modules.pop("my_breaks", None)


Ranks = Callable[..., list[CompletedProcess[str]]]


@pytest.fixture
def ranks(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Ranks:
    """Runs processes of a step one after the other, in this one: none waits for another."""

    def call(order: Sequence[int], count: int, *options: str) -> list[CompletedProcess[str]]:
        done = []
        for rank in order:
            with monkeypatch.context() as patch:
                for name, value in (step(rank, count) if count > 1 else {}).items():
                    patch.setenv(name, value)
                done.append(run_here([str(ROOT / "explain.py"), *COMMON, *options], patch, capfd))
        assert all(one.returncode == 0 for one in done), done
        return done

    return call


def assert_equal(folder: Path, whole: Path) -> None:
    """Files, tables and page of processes are those of one, but for when they were made."""
    names = {path.name for path in whole.iterdir()}
    own = {path.name for path in folder.iterdir()}
    assert {n for n in own if not n.startswith(("rows.", "."))} == {
        n for n in names if not n.startswith("rows.")
    }
    for name in names:
        one, two = folder / name, whole / name
        if name.endswith(".npz"):
            a, b = np.load(one), np.load(two)
            assert all(np.array_equal(a[k], b[k]) for k in {*a, *b} if "seconds" not in k), name
        elif name.endswith((".csv", ".png", ".svg", ".jpg", ".mp4")):
            assert one.read_bytes() == two.read_bytes(), name
    pages = [(each / "index.html").read_text() for each in (folder, whole)]
    bodies = [page[page.index("<article") : page.index("</main>")] for page in pages]
    assert bodies[0] == bodies[1] and "clips so far" not in pages[0]


def test_three_processes_with_two_clips(ranks: Ranks, place: Path) -> None:
    options = ("video=videos/run", "explain=gradcam")
    last, second, first = ranks([2, 1, 0], 3, *options)
    assert last.stdout == "process 3 of 3: no clip is left for it\n"
    assert "process 2 of 3: 1 of 2 clips\n" in second.stdout
    assert "process 2 of 3: done; 1 clip is left to others, the last writes" in second.stdout
    assert "open explain_1/index.html" in first.stdout
    ranks([0], 1, *options, "out=whole")
    assert_equal(place / "explain_1", place / "whole")
    (late,) = ranks([1], 3, *options)  # it is the same command, and finds its clip done
    assert "1 of 2 clips, 1 of them are done in explain_1" in late.stdout
    before = (place / "explain_1" / "index.html").stat()
    os.utime(place / "explain_1" / "index.html", ns=(0, before.st_mtime_ns - 10**9))
    (page,) = ranks([0], 1, *options)  # killed after the last clip: its page is made
    assert "open explain_1/index.html" in page.stdout
    assert (place / "explain_1" / "index.html").stat().st_mtime_ns > before.st_mtime_ns
    assert not (place / "explain_2").exists()


@pytest.mark.slow
def test_clips_that_are_selected_or_fail(ranks: Ranks, place: Path) -> None:
    """`select=` looks at every clip once for all; a clip that one cannot read is on all's page."""
    shutil.copytree(place / "videos", place / "set" / "val")
    for n, name in enumerate(("walk", "run"), 5):
        (place / "set" / "train" / name).mkdir(parents=True)
        make_video(place / "set" / "train" / name / f"clip_{n}.mp4", n)
    (place / "set" / "val" / "run" / "clip_1.mp4").write_bytes(b"torn")
    options = ("data.root=set", "clips=all", "explain=gradcam")
    options += ("select=[correct,wrong,confused]",)
    said = ranks([0, 1], 2, *options)
    ranks([0], 1, *options, "out=whole")
    assert "left to others" in said[0].stdout and "skipped run/clip_1: " in said[1].stdout
    assert "1 of 5 clips could not be read" in said[1].stdout
    assert_equal(place / "explain_1", place / "whole")
    assert not list(place.glob(".looks-*"))


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["ckpt={a: net.ckpt, b: other.ckpt}", "target=[walk,run]"])
def test_networks_and_questions_side_by_side(ranks: Ranks, place: Path, asked: str) -> None:
    """Each process explains its clips for all of them, the last shows all together."""
    state = torch.load(place / "net.ckpt", weights_only=True)
    state["state_dict"] = {name: value.flip(0) for name, value in state["state_dict"].items()}
    torch.save(state, place / "other.ckpt")
    (place / "videos" / "walk" / "clip_2.mp4").write_bytes(b"torn")
    options = ("video=videos", "explain=gradcam", asked)
    last, second, _ = ranks([5, 1, 0], 6, *options)
    assert last.stdout.count("\n") == 2 and "no clip is left for it" in last.stdout
    assert "process 2 of 6: done; 8 explanations are left to others" in second.stdout
    assert not (place / "compare_1" / "index.html").exists()
    said = ranks([4, 3, 2], 6, *options)
    assert "open compare_1/index.html" in said[-1].stdout and not (place / "compare_2").exists()
    ranks([0], 1, *options, "out=whole")
    assert_equal(place / "compare_1", place / "whole")
    folders = [path.name for path in (place / "whole").iterdir() if path.is_dir()]
    assert len(folders) == 2
    for name in folders:
        assert_equal(place / "compare_1" / name, place / "whole" / name)


def test_a_question_that_fails_with_all_clips_holds_nobody_up(
    ranks: Ranks, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process, the last at it, has removed what was there; the page shows the rest."""
    case, clip = side_by_side.explain_case, explain_run.process_clip

    def and_the_other(config: Any, command: str, question: Question, share: Share) -> Outcome:
        outcome = case(config, command, question, share)
        with suppress(DataError):
            case(config, command, question, Share(1, 2))
        return outcome

    def failing(request: ClipRequest, source: ClipSource) -> ClipResult | Skip:
        walk = request.question.target == "walk"
        return Skip("failed", "no reason") if walk else clip(request, source)

    monkeypatch.setattr(side_by_side, "explain_case", and_the_other)
    monkeypatch.setattr(explain_run, "process_clip", failing)
    (first,) = ranks([0], 2, "video=videos/run", "explain=gradcam", "target=[walk,run]", "out=both")
    assert "open both/index.html" in first.stdout, first
    assert {path.name for path in (place / "both").iterdir() if path.is_dir()} == {"run"}


def test_layers_are_listed_by_the_first(ranks: Ranks) -> None:
    (one,) = ranks([1], 2, "video=videos", "explain=gradcam", "layers=list")
    assert one.stdout == "process 2 of 2: nothing to do, layers= is the work of the first\n"


def begin(place: Path, rank: int, *options: str, breaks: str = "{}") -> Process:
    words = [*COMMON, "video=videos", "explain=[gradcam,breaks]", *options]
    return start_limited("", "explain", words, cwd=place, BREAKS=breaks, **step(rank, 2))


def rows_of(place: Path, rank: int) -> int:
    file = place / "explain_1" / f"rows.rank{rank}.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.attack
@pytest.mark.slow
def test_a_process_is_killed_and_then_all(place: Path, ranks: Ranks) -> None:
    """SIGKILL to one: the other ends by itself. To all: the same command goes on."""
    slow = '{"each": "slow"}'
    first, second = begin(place, 0), begin(place, 1, breaks=slow)
    until = time.monotonic() + 200
    while not rows_of(place, 1) and time.monotonic() < until:
        time.sleep(0.005)
    second.send_signal(signal.SIGKILL)
    done = end(first)
    assert end(second).returncode == -signal.SIGKILL
    assert done.returncode == 0
    # It may have been faster than the other with one clip.
    left = re.search(r"process 1 of 2: done; ([12]) clips? (?:is|are) left to others", done.stdout)
    assert left is not None, done.stdout
    with (place / "explain_1" / "scores.csv").open() as file:
        assert len({row["clip_id"] for row in csv.DictReader(file)}) == 5 - int(left[1])

    again = begin(place, 1, breaks=slow)
    time.sleep(0.5)
    again.send_signal(signal.SIGKILL)
    end(again)
    options = ("video=videos", "explain=[gradcam,breaks]")
    said = ranks([0, 1], 2, *options)[1].stdout
    assert "2 of 2 clips" in said or "1 of them are done" in said
    ranks([0], 1, *options, "out=whole")
    assert_equal(place / "explain_1", place / "whole")
    keys = [row["key"] for row in journal_rows(place / "explain_1")]
    assert len(keys) == len({*keys}) == 5
    assert not (place / "explain_2").exists()
