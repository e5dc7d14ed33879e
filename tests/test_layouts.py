"""Every layout in miniature through the commands: one epoch, explanations, and damage."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import layouts
import pytest
import torch
from commands import ENVIRONMENT, ROOT

from lightning_cam.commands.check import main as check

pytestmark = pytest.mark.slow

TINY = [
    "data.num_frames=6",
    "data.resize=32",
    "data.crop=32",
    "data.batch_size=4",
    "data.num_workers=0",
    "model.hidden=8",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "logger=none",
    "videos.clips=1",
    "explain=recurrent_gradcam",
    "name=mini",
]


class Done(NamedTuple):
    """What a command left behind."""

    code: Any
    out: str
    err: str
    warnings: str


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Runs a command in this process, which has loaded torch already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(name: str, *arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", [str(ROOT / f"{name}.py"), *map(str, arguments)])
        capfd.readouterr()
        code: Any = 0
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                if name == "check":
                    check()
                else:
                    runpy.run_path(sys.argv[0], run_name="__main__")
            except SystemExit as leaving:
                code = leaving.code
        out, err = capfd.readouterr()
        return Done(code, out, err, "\n".join(str(warning.message) for warning in said))

    return call


class Harm(NamedTuple):
    """What was done to a data set."""

    found: set[tuple[str, str]]  # (kind, what) that the check must name
    skipped: set[str]  # parts of names that training must say it skipped


def garble(path: Path) -> str:
    path.write_bytes(b"not a video" * 100)
    return path.name


# Each takes a fresh miniature and damages files that training reads.


def harm_ucf11(root: Path) -> Harm:
    data = root / "UCF11_updated_mpg"
    cut = layouts.cut(data / "blink" / "v_blink_01" / "v_blink_01_01.mpg")
    bad = data / "move_left" / "v_walk_dog_01" / "v_walk_dog_01_02.mpg"
    garble(bad)
    below = [path.relative_to(root).as_posix() for path in (cut, bad)]
    return Harm({("damaged", below[0]), ("unreadable", below[1])}, {bad.name})


def harm_hmdb51(root: Path) -> Harm:
    clap = [root / "clap" / file.format("clap") for file in layouts.HMDB51_FILES]
    ball = [root / "shoot_ball" / file.format("shoot_ball") for file in layouts.HMDB51_FILES]
    clap[0].unlink()
    layouts.cut(ball[1])
    ball[2].rename(root / "clap" / ball[2].name)
    garble(clap[1])
    with (root / "testTrainMulti_7030_splits" / "clap_test_split1.txt").open("a") as file:
        file.write("what [is] this 7 \n")
    return Harm(
        {
            ("missing", f"clap/{clap[0].name}"),
            ("label", f"clap/{ball[2].name}"),
            ("row", "clap_test_split1.txt:7"),
            ("unreadable", f"clap/{clap[1].name}"),
            ("unreadable", f"shoot_ball/{ball[1].name}"),
        },
        {clap[1].name, ball[1].name},
    )


def harm_kinetics(root: Path) -> Harm:
    train = {path.name: path for path in (root / "train").rglob("*.mp4")}
    gone = train["--bQUuC4vJ0_000084_000094.mp4"]
    gone.unlink()
    cut = layouts.cut(train["--bQUuC4vJ1_000085_000095.mp4"])
    moved = train["--mQUuC4vJ0_000084_000094.mp4"]
    moved.rename(gone.parent / moved.name)
    with (root / "validate.csv").open("a") as file:
        file.write("juggling fire,abc,1,11,validate,0\n")
    candles = layouts.KINETICS_NAMES["blink"]
    return Harm(
        {
            ("missing", f"train/{candles}/{gone.name}"),
            ("unreadable", f"train/{candles}/{cut.name}"),
            ("label", f"train/{candles}/{moved.name}"),
            ("label", "validate.csv:6"),
        },
        {cut.name},
    )


def harm_folder(root: Path) -> Harm:
    cut = layouts.cut(root / "blink" / "b [1].webm")
    garble(root / "move_left" / "a.mp4")
    (root / "move_left" / "f" / "00007.jpg").write_bytes(b"\xff\xd8\xff\xda")
    (root / "move_left" / "notes.txt").touch()
    return Harm(
        {
            ("damaged", f"blink/{cut.name}"),
            ("unreadable", "move_left/a.mp4"),
            ("unreadable", "move_left/f"),
            ("stray", "move_left/notes.txt"),
        },
        {"a.mp4"},
    )


def harm_something(root: Path) -> Harm:
    """A clip is absent, one is garbled, one is half there, one has a label of no class."""
    version = 1 if list(root.glob("*.csv")) else 2
    media = root / f"20bn-something-something-v{version}"
    lists = root / f"something-something-v{version}-train{'.csv' if version == 1 else '.json'}"
    clips = sorted(media.iterdir())
    listed = [clip for clip in clips if clip.stem in lists.read_text()][:4]
    gone, bad, half, wrong = listed
    if version == 1:
        for image in gone.iterdir():
            image.unlink()
        gone.rmdir()
        for image in bad.iterdir():
            layouts.cut(image)
        for image in sorted(half.iterdir())[10:]:  # which nothing tells: it is a short clip
            image.unlink()
        rows = dict(row.split(";") for row in lists.read_text().splitlines())
        rows = {**rows, wrong.stem: "Juggling something", "999999": layouts.SOMETHING_NAMES[0]}
        lists.write_text("".join(f"{clip_id};{text}\n" for clip_id, text in rows.items()))
    else:
        gone.unlink()
        garble(bad)
        layouts.cut(half)
        entries = json.loads(lists.read_text())
        for entry in entries:
            if entry["id"] == wrong.stem:
                entry["template"] = "Juggling [something]"
        lists.write_text(json.dumps([*entries, {**entries[-1], "id": "999999"}]))
    return Harm(
        {
            ("missing", gone.name),
            ("missing", "999999"),
            ("unreadable", bad.name),
            ("label", lists.name),
        }
        | ({("damaged", half.name)} if version == 2 else set()),
        {bad.name},
    )


def harm_multispectral(root: Path) -> Harm:
    """Sequences are absent, cut short, garbled, listed once or with a label of no class."""
    top = root / "SOIB"
    swings = top / "IR" / "swing_cw", top / "TV" / "swing_ccw"
    shutil.rmtree(swings[0] / "a01_c1_r1")
    for image in (swings[1] / "a01_c2_r1").iterdir():
        garble(image)
    for image in sorted((swings[0] / "a02_c2_r1").iterdir())[30:]:
        image.unlink()
    ir, tv = (top / "file_lists" / f"{name}_train.txt" for name in ("IR", "TV"))
    ir.write_text(ir.read_text().replace("swing_ccw/a03_c2_r1 40 0\n", ""))
    tv.write_text(tv.read_text().replace("swing_cw/a03_c1_r1 40 1", "swing_cw/a03_c1_r1 40 9"))
    line = 1 + [row.endswith(" 9") for row in tv.read_text().splitlines()].index(True)
    return Harm(
        {
            ("missing", "IR/swing_cw/a01_c1_r1"),
            ("unreadable", "SOIB/TV/swing_ccw/a01_c2_r1"),
            ("count", "IR/swing_cw/a02_c2_r1"),
            ("pair", "TV/swing_ccw/a03_c2_r1"),
            ("unlisted", "IR/swing_ccw/a03_c2_r1"),
            ("label", f"TV_train.txt:{line}"),
        },
        {"TV/swing_ccw/a01_c2_r1"},
    )


def something_v1(root: Path) -> Path:
    return layouts.something(root, 1)


def something_v2(root: Path) -> Path:
    return layouts.something(root, 2)


CASES: list[Any] = [
    pytest.param("ucf11", layouts.ucf11, harm_ucf11, id="ucf11"),
    pytest.param("hmdb51", layouts.hmdb51, harm_hmdb51, id="hmdb51"),
    pytest.param("kinetics", layouts.kinetics, harm_kinetics, id="kinetics"),
    pytest.param("folder", layouts.folder, harm_folder, id="folder"),
    pytest.param("something", something_v1, harm_something, id="something_v1"),
    pytest.param("something_v2", something_v2, harm_something, id="something_v2"),
    pytest.param("multispectral", layouts.multispectral, harm_multispectral, id="multispectral"),
]


@pytest.mark.parametrize(("name", "write", "harm"), CASES)
def test_train_explain_and_check(
    name: str,
    write: Callable[[Path], Path],
    harm: Callable[[Path], Harm],
    here: Any,
    tmp_path: Path,
) -> None:
    root = write(tmp_path / "my data")
    where = [f"data={name}", f"data.root='{root}'"]
    whole = here("check", *where, "decode=false")
    assert (whole.code, whole.err) == (0, ""), whole.out
    done = harm(root)

    checked = here("check", *where)
    assert (checked.code, checked.err) == (1, "")
    problems = (tmp_path / "problems.csv").read_text()
    for kind, what in done.found:
        line = next((line for line in checked.out.splitlines() if f"{what}" in line), "")
        assert line.startswith("  "), (kind, what, checked.out)
        assert any(row.startswith(kind) and what in row for row in problems.splitlines()), problems
    counted = {row.partition(",")[0] for row in problems.splitlines()[1:]}
    assert counted == {kind for kind, _ in done.found}

    trained = here("train", *where, *TINY)
    assert (trained.code, trained.err) == (0, ""), trained.err
    for part in done.skipped:
        assert any(
            line.startswith("skipped ") and part in line for line in trained.out.splitlines()
        ), trained.out
    if any(kind in ("missing", "label") for kind, _ in done.found):
        assert "problems with the data" in trained.warnings
        assert "problems with the data, the first is " in trained.out.partition("skipped")[2]
    (folder,) = (tmp_path / "runs" / "mini").iterdir()
    assert len(list((folder / "explain").glob("epoch_*/*.mp4"))) == 1

    checkpoint = folder / "checkpoints" / "last.ckpt"
    explained = here("explain", f"ckpt={checkpoint}", "data.split=test", "clips=1")
    assert (explained.code, explained.err) == (0, ""), explained.err
    assert (folder / "explain_1" / "index.html").is_file()
    assert len(list((folder / "explain_1").rglob("*.mp4"))) == 1


@pytest.mark.parametrize(("spectrum", "channels"), [("ir", 1), ("irtv", 4)])
def test_networks_take_the_channels_that_the_data_have(
    spectrum: str, channels: int, here: Any, tmp_path: Path
) -> None:
    root = layouts.multispectral(tmp_path / "my data")
    where = ["data=multispectral", f"data.root='{root}'", f"data.spectrum={spectrum}"]
    tiny = [option for option in TINY if not option.startswith(("model", "explain"))]
    network = ["data.fusion=early", "model=r3d_small", "explain=gradcam"]
    trained = here("train", *where, *tiny, *network)
    assert (trained.code, trained.err) == (0, ""), trained.err
    (checkpoint,) = (tmp_path / "runs").rglob("last.ckpt")
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert weights["model.trunk.stem.0.weight"].shape[1] == channels
    explained = here("explain", f"ckpt={checkpoint}", "data.split=test", "clips=1")
    assert (explained.code, explained.err) == (0, ""), explained.err


@pytest.mark.slow
def test_as_typed(tmp_path: Path) -> None:
    """One of them in processes that start from nothing."""
    root = layouts.folder(tmp_path / "videos")

    def typed(script: str, *words: str) -> None:
        done = subprocess.run(
            [sys.executable, ROOT / script, *words],
            cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")

    typed("train.py", "data=folder", f"data.root={root}", *TINY)
    (checkpoint,) = (tmp_path / "runs").rglob("last.ckpt")
    typed("explain.py", f"ckpt={checkpoint}", "clips=1")
