"""The two commands end to end, as typed: `train.py`, `explain.py`, and how they say no."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import av
import numpy as np
import pytest
import torch
from commands import ROOT, run, run_here, start, tiny

from lightning_cam.data.core.clips import ClipReader
from lightning_cam.data.video import read_clip
from lightning_cam.errors import VideoReadError
from lightning_cam.interfaces import ShowsFiles
from lightning_cam.training.checkpoint import KEY
from lightning_cam.viz.video_file import video_writer

pytestmark = pytest.mark.slow

MODEL = {"_target_": "lightning_cam.models.LRCN", "num_outputs": 3}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def trained(place: Path) -> CompletedProcess[str]:
    """A run of two epochs, in a working directory that is not the repository."""
    options = ["trainer.max_epochs=2", "videos.clips=2", "name=tiny"]
    return run("train", *tiny(place / "data"), *options, cwd=place)


@pytest.fixture(scope="module")
def folder(place: Path, trained: CompletedProcess[str]) -> Path:
    assert trained.returncode == 0, trained.stderr
    (found,) = (place / "runs" / "tiny").iterdir()
    return found


@pytest.fixture(scope="module")
def ckpt(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def refuses(done: CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0], lines[0]


@pytest.fixture
def here(place: Path, monkeypatch, capfd) -> Callable[..., CompletedProcess[str]]:
    """Runs a script in this process, which has loaded torch already."""
    monkeypatch.chdir(place)

    def call(script: str, *arguments: object) -> CompletedProcess[str]:
        words = [str(ROOT / f"{script}.py"), *map(str, arguments)]
        return run_here(words, monkeypatch, capfd)

    return call


def together(cwd: Path, *commands: tuple[Any, ...]) -> Iterator[CompletedProcess[str]]:
    """Run commands side by side: most of each is loading torch."""
    started = [start(*command, cwd=cwd) for command in commands]
    for process in started:
        out, err = process.communicate(timeout=300)
        yield CompletedProcess(process.args, process.returncode, out, err)


def playable(path: Path) -> int:
    """Number of frames of an H.264 mp4 in yuv420p."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        return sum(1 for _ in container.decode(stream))


# --- train.py -----------------------------------------------------------------------------------


def test_training_says_where_things_are(trained, folder: Path, place: Path) -> None:
    assert trained.stderr == ""
    before = trained.stdout.partition("epoch_000 (1 of 2)")[0]
    assert before.count("network checked by 5 forwards: nothing wrong") == 1
    last = trained.stdout.splitlines()[-4:]
    assert last[0].startswith("best val/acc 0.") or last[0].startswith("best val/acc 1.")
    checkpoint = Path(last[1].split()[1])
    assert (place / checkpoint).is_file()
    assert (place / last[2].split()[1]).is_dir()
    python = shlex.quote(str(Path(sys.executable).with_name("python")))
    script = shlex.quote(str(ROOT / "explain.py"))  # as it was typed
    assert last[3].split(maxsplit=1)[1] == f"{python} {script} ckpt={checkpoint}"
    assert "=" not in str(checkpoint)
    assert trained.stdout.count("max_epochs: 2") == 1  # the configuration, printed once
    assert "epoch_001 (2 of 2)  train/loss" in trained.stdout


def test_run_folder_holds_everything(folder: Path, place: Path) -> None:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert "config.yaml" in names
    assert "checkpoints/last.ckpt" in names
    assert len([n for n in names if n.startswith("checkpoints/epoch_")]) == 1
    for epoch in (0, 1):
        for end in (".mp4", ".png", ".npz"):
            found = sorted((folder / "explain" / f"epoch_{epoch:03d}").glob(f"v_*[0-9]{end}"))
            assert len(found) == 2, (epoch, end)
    assert not [name for name in names if "hydra" in name or name.endswith(".part")]
    assert {path.name for path in place.iterdir()} <= {"runs", "data"}  # nothing strewn about


def test_checkpoint_remembers(ckpt: Path) -> None:
    memory = torch.load(ckpt, weights_only=True)[KEY]
    assert memory["classes"] == ["blink", "expand", "move_left"]
    assert memory["task"]["model"]["num_outputs"] == 3
    assert "optimizer" not in memory["task"] and "scheduler" not in memory["task"]
    assert set(memory["run"]["explain"]) == {"recurrent_gradcam", "integrated_recurrent_gradcam"}


def test_a_run_that_is_done_resumes_to_nothing(folder: Path, place: Path) -> None:
    options = ["trainer.max_epochs=2", "name=tiny", "explain=none"]
    done = run("train", *tiny(place / "data"), *options, f"resume={folder}", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "epoch_000 (1" not in done.stdout
    assert "checkpoint " in done.stdout


# --- explain.py ---------------------------------------------------------------------------------


def test_explain_clips_videos_and_folders(ckpt: Path, folder: Path, place: Path) -> None:
    source = sorted((place / "data").rglob("v_*_05_01.m*"))
    assert len(source) == 3
    videos = place / "videos"
    (videos / "more").mkdir(parents=True)
    shutil.copy(source[0], videos / "one.mpg")
    shutil.copy(source[1], videos / "more" / "one.mpg")
    (videos / "broken.mp4").write_bytes(source[2].read_bytes()[:200])
    (videos / "notes.txt").write_text("no video")

    split, single, several, contrast = together(
        place,
        ("explain", f"ckpt={ckpt}", "clips=3"),
        ("explain", f"ckpt={ckpt}", f"video={source[2]}", "out=single", "explain=gradcam"),
        ("explain", f"ckpt={ckpt}", "video=videos", "out=several"),
        (
            "explain", f"ckpt={ckpt}", "data.split=test", "clips=[1,4]", "out=contrast",
            "explain=[gradcam,recurrent_gradcam]", "target=blink", "contrast=expand",
            "layer=trunk.conv2",
        ),
    )  # fmt: skip
    for done, name in ((split, None), (single, "single"), (several, "several"), (contrast, None)):
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        page = place / done.stdout.splitlines()[-1].removeprefix("open ")
        assert page.name == "index.html" and page.is_file()
        assert name is None or page.parent == place / name

    assert split.stdout.count("network checked by 5 forwards: nothing wrong") == 1
    out = folder / "explain_1"
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert len(rows) == 3 * 2  # as trained: two methods
    assert {row["method"] for row in rows} == {"recurrent_gradcam", "integrated_recurrent_gradcam"}
    assert all(row["target"] == row["prediction"] for row in rows)
    assert all(0 < float(row["p_target"]) <= 1 for row in rows)
    assert {row["label"] for row in rows} == {"blink", "expand", "move_left"}
    measured = [row for row in rows if row["energy_actor"]]
    assert measured and all(0 <= float(row["energy_actor"]) <= 1 for row in measured)
    for row in rows:
        stem = row["clip_id"]
        assert playable(out / f"{stem}.mp4") == 16
        assert (out / f"{stem}.png").is_file()
        with np.load(out / f"{stem}.npz") as arrays:
            assert arrays[f"heatmap/{row['method']}"].shape == (16, 32, 32)
            assert arrays["attention"].shape == arrays["frame_idx"].shape == (16,)
            assert abs(arrays["attention"].sum() - 1) < 1e-4
    page = (out / "index.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page

    (row,) = csv.DictReader((place / "single" / "scores.csv").open())
    assert row["label"] == "" and row["energy_actor"] == ""
    assert row["path"] == str(source[2])

    assert "skipped broken" in several.stdout and "broken.mp4" in several.stdout
    assert "1 of 3 clips could not be read" in several.stdout
    assert "broken.mp4" in (place / "several" / "index.html").read_text()
    rows = list(csv.DictReader((place / "several" / "scores.csv").open()))
    assert len({row["path"] for row in rows}) == 2
    assert len(list((place / "several").glob("*.mp4"))) == 2  # two files named one.mpg

    rows = table(place / "contrast" / "scores.csv")
    assert len(rows) == 2 * 2 * 2
    assert [row["target"] for row in rows] == ["blink", "expand"] * 4
    for stem in {row["clip_id"] for row in rows}:
        with np.load(place / "contrast" / f"{stem}.npz") as arrays:
            assert (int(arrays["target"]), int(arrays["against"])) == (0, 1)
            maps = [arrays[f"{what}/gradcam"] for what in ("heatmap", "heatmap_against")]
            assert maps[0].shape == maps[1].shape == (16, 32, 32) and (maps[0] != maps[1]).any()
        with av.open(str(place / "contrast" / f"{stem}.mp4")) as container:
            assert container.streams.video[0].width == 4 * (256 + 16) + 16  # A, B and A - B
    assert "Grad-CAM for A - B, trunk.conv2" in (place / "contrast" / "index.html").read_text()


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_relevance_is_written_as_numbers(ckpt: Path, place: Path, here) -> None:
    chosen = "explain=[gradcam,gradcam_space,recurrent_gradcam]"
    done = here("explain", f"ckpt={ckpt}", chosen, "out=curves", "clips=2")
    assert done.returncode == 0, done.stderr
    rows = table(place / "curves" / "relevance.csv")
    page = (place / "curves" / "index.html").read_text()
    assert 'href="./relevance.csv"' in page and 'href="./scores.csv"' in page
    for stem in {row["clip_id"] for row in rows}:
        with np.load(place / "curves" / f"{stem}.npz") as arrays:
            valid = arrays["valid"]
            for method in ("gradcam", "gradcam_space", "recurrent_gradcam"):
                own = [r for r in rows if r["clip_id"] == stem and r["method"] == method]
                assert [int(row["frame"]) for row in own] == np.flatnonzero(valid).tolist()
                shares = arrays[f"relevance/{method}"]
                assert shares.shape == (16,) and shares.sum() == pytest.approx(1)
                np.testing.assert_allclose(
                    [float(r["share"]) for r in own], shares[valid], atol=1e-6
                )
                weights = [float(row["attention"]) for row in own]
                np.testing.assert_allclose(weights, arrays["attention"][valid], atol=1e-6)
                np.testing.assert_array_equal(
                    [int(row["frame_idx"]) for row in own], arrays["frame_idx"][valid]
                )


def test_maps_are_measured_beside_baselines(ckpt: Path, place: Path, here) -> None:
    chosen = ("explain=[gradcam,recurrent_gradcam]", "clips=2")
    measures = ("measure=[deletion,insertion,gini]", "measure.deletion.steps=6")
    done = here("explain", f"ckpt={ckpt}", *chosen, *measures, "out=measured")
    assert done.returncode == 0, done.stderr
    out = place / "measured"
    rows = table(out / "scores.csv")
    assert [r["method"] for r in rows] == ["gradcam", "recurrent_gradcam", "random", "centre"] * 2
    names = ("deletion", "insertion", "gini")
    assert all(0 < float(row[kind]) < 1 for row in rows for kind in names)
    points = table(out / "curves.csv")
    assert len(points) == len(rows) * 2 * 7
    for row in rows:
        for kind in names[:2]:
            own = [
                float(p["score"])
                for p in points
                if p["measure"] == kind and all(p[key] == row[key] for key in ("clip_id", "method"))
            ]
            area = np.trapezoid(own, dx=1 / 6)
            assert float(row[kind]) == pytest.approx(area, abs=1e-4)
            assert own[-(kind == "insertion")] == pytest.approx(float(row["p_target"]), abs=1e-5)
        # maps nobody asked for are compared, not shown
        assert {r["method"] for r in table(out / "relevance.csv")} == {
            "gradcam",
            "recurrent_gradcam",
        }
    page = (out / "index.html").read_text()
    for stem in {row["clip_id"] for row in rows}:
        assert (out / f"{stem}.curves.png").is_file() and f'src="./{stem}.curves.png"' in page
    assert 'src="./curves.png"' in page and 'href="./curves.csv"' in page
    assert "<dt>random</dt>" not in page
    assert "<dd>deletion, insertion (default, steps=6); gini</dd>" in page
    assert "<th>Deletion</th><th>Insertion</th><th>Gini index</th>" in page
    for row in rows:
        shown = "</td><td>".join([row["method"], *(row[kind] for kind in names)])
        assert f"<td>{shown}</td>" in page

    refuses(here("explain", f"ckpt={ckpt}", "measure=deletion", "measure.deletion.protocol=best"),
            "best", "default")  # fmt: skip
    fails = ("measure=deletion", "measure.deletion.unit=frame", "out=unmeasured")
    done = here("explain", f"ckpt={ckpt}", *chosen, *fails)
    assert done.returncode == 0, done.stderr
    assert "deletion: steps=100 is more than the clip's 16 units" in done.stdout
    assert "no measure has a value of any clip" in done.stdout
    assert (place / "unmeasured/index.html").is_file()
    assert {row["deletion"] for row in table(place / "unmeasured/scores.csv")} == {""}


def test_a_contrast_without_target_explains_the_true_class(ckpt: Path, place: Path, here) -> None:
    options = ("explain=gradcam", "contrast=blink")
    done = here("explain", f"ckpt={ckpt}", *options, "out=truth", "clips=6")
    assert done.returncode == 0, done.stderr
    rows = table(place / "truth" / "scores.csv")
    assert len(rows) == 4 * 2  # of six clips two are blink themselves: they were never chosen
    assert [row["target"] for row in rows[::2]] == [row["label"] for row in rows[::2]]
    assert {row["target"] for row in rows[1::2]} == {"blink"}
    assert "skipped" not in done.stdout

    done = here("explain", f"ckpt={ckpt}", *options, "out=named", "clips=[0,1,2]")
    assert done.returncode == 0, done.stderr  # two blink clips, asked for by index
    assert done.stdout.count("blink cannot be set against itself") == 2
    assert "could not be read" not in done.stdout
    assert len(table(place / "named" / "scores.csv")) == 2
    assert "blink cannot be set against itself" in (place / "named" / "index.html").read_text()
    refuses(
        here("explain", f"ckpt={ckpt}", *options, "clips=[0,1]"),
        "none of the 2 clips", "blink cannot be set against itself",
    )  # fmt: skip

    video = next((place / "data").rglob("v_expand_05_01.m*"))  # nobody knows its class
    predicted = table(explained(here, place, f"ckpt={ckpt}", f"video={video}", "explain=gradcam"))
    other = next(c for c in ("blink", "expand") if c != predicted[0]["prediction"])
    rows = table(
        explained(here, place, f"ckpt={ckpt}", f"video={video}", options[0], f"contrast={other}")
    )
    assert [row["target"] for row in rows] == [predicted[0]["prediction"], other]


def explained(here: Any, place: Path, *arguments: str) -> Path:
    """The scores.csv that a command writes."""
    done = here("explain", *arguments)
    assert done.returncode == 0, done.stderr
    return (place / done.stdout.splitlines()[-1].removeprefix("open ")).parent / "scores.csv"


def test_select_picks_clips_by_what_the_network_says(ckpt: Path, place: Path, here) -> None:
    options = (f"ckpt={ckpt}", "explain=gradcam")
    everything = table(explained(here, place, *options, "clips=99", "out=everything"))
    kinds: dict[str, list[str]] = {"correct": [], "confused": [], "wrong": []}
    for row in everything:
        with np.load(place / "everything" / f"{row['clip_id']}.npz") as arrays:
            logits, label = arrays["outputs"], int(arrays["label"])
        rank = int((logits > logits[label]).sum())
        kinds[("correct", "confused", "wrong")[min(rank, 2)]].append(row["clip_id"])
    assert len(everything) == 6 and sum(len(names) > 0 for names in kinds.values()) >= 2

    done = here(
        "explain", *options, "select=[wrong,correct,confused]", "clips=99", "out=selected"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts = {kind: len(names) for kind, names in kinds.items()}
    said = ", ".join(f"{counts[kind]} of 99 {kind}" for kind in ("wrong", "correct", "confused"))
    assert f"found {said} clips; looked at all 6 of them" in done.stdout
    page = (place / "selected" / "index.html").read_text()
    sections = re.findall(r'<section class="group"><h2>(\w+).*?</h2>(.*?)</section>', page, re.S)
    assert [name.lower() for name, _ in sections] == ["wrong", "correct", "confused"]
    for name, body in sections:
        assert sorted(re.findall(r"<h2><span>(.*?)</span>", body)) == sorted(kinds[name.lower()])

    most = max(counts, key=counts.__getitem__)
    done = here("explain", *options, f"select={most}", "clips=1", "out=one")
    assert done.returncode == 0, done.stderr
    (row,) = table(place / "one" / "scores.csv")
    assert row["clip_id"] in kinds[most] and "looked" not in done.stdout
    done = here("explain", *options, f"select={most}", "clips=[0,1,2]", "out=these")
    names = [row["clip_id"] for row in everything[:3] if row["clip_id"] in kinds[most]]
    if names:
        assert done.returncode == 0, done.stderr
        assert [row["clip_id"] for row in table(place / "these" / "scores.csv")] == names
        assert f"found {len(names)} {most} among the 3 clips asked for" in done.stdout
    else:
        refuses(done, f"found 0 {most} among the 3 clips asked for")


def test_select_counts_clips_that_cannot_be_read(ckpt: Path, place: Path, here) -> None:
    damaged = place / "damaged"
    shutil.copytree(place / "data", damaged)
    videos = sorted(p for p in damaged.rglob("v_blink_01_*.m*"))
    assert len(videos) == 2
    for video in videos:
        video.write_bytes(b"rubbish")
    done = here(
        "explain", f"ckpt={ckpt}", "explain=gradcam", f"data.root={damaged}", "data.split=train",
        "select=[correct,confused,wrong]", "clips=99", "out=damage",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 of 18 clips could not be read" in done.stdout
    assert done.stdout.count("skipped v_blink_01_") == 2
    assert len(table(place / "damage" / "scores.csv")) == 16


def test_a_folder_of_images_is_explained_as_one_clip(ckpt: Path, place: Path, here) -> None:
    source = next((place / "data").rglob("v_expand_05_01.m*"))
    for name in ("one", "two"):
        (place / "images" / name).mkdir(parents=True)
    with av.open(str(source)) as container:
        for n, frame in enumerate(container.decode(video=0)):
            for name in ("one", "two"):
                frame.to_image().save(place / "images" / name / f"{n + 1:05}.jpg")
    options = (f"ckpt={ckpt}", "explain=gradcam")
    refuses(here("explain", *options, "video=images"), "images/", "rate")  # nobody knows theirs
    options = (*options, "data.rate=30")
    done = here("explain", *options, "video=images", "out=folders")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (place / "folders").glob("*.mp4")} == {"one.mp4", "two.mp4"}
    done = here("explain", *options, "video=images/one", "out=folder")
    assert done.returncode == 0, done.stderr
    (row,) = table(place / "folder" / "scores.csv")
    assert Path(row["path"]).name == "one"
    assert playable(place / "folder" / "one.mp4") == 16


def test_a_long_video_is_explained_as_a_whole(ckpt: Path, place: Path, here) -> None:
    """And a folder of them by their middles, unless all is asked for; nothing is done twice."""
    pieces = sorted((place / "data").rglob("v_*_05_01.m*"))
    (place / "films").mkdir()
    with video_writer(place / "films" / "one.mp4", 30) as write:
        for frame in np.concatenate([read_clip(piece) for piece in pieces]):  # 7.2 s
            write(frame)
    shutil.copy(place / "films" / "one.mp4", place / "films" / "two.mp4")
    options = (f"ckpt={ckpt}", "explain=[gradcam,rise]", "explain.rise.masks=4")
    done = here("explain", *options, "video=films/one.mp4", "out=film", "size=original")
    assert done.returncode == 0, done.stderr
    assert "one: 0.0-7.1 s of 7.2 s in 6 windows of 2 s, one every 1.1 s" in done.stdout
    rows, out = table(place / "film" / "scores.csv"), place / "film"
    assert [row["method"] for row in rows] == ["gradcam", "rise"] * 6
    assert (rows[0]["start_s"], rows[0]["end_s"], rows[0]["duration_s"]) == (
        "0.000", "2.000", "7.200",
    )  # fmt: skip
    assert playable(out / "one.mp4") == playable(out / "one.original.mp4") == 216
    stretches = table(out / "track.csv")
    assert float(stretches[0]["start_s"]) == 0 and float(stretches[-1]["end_s"]) > 7
    assert len(table(out / "relevance.csv")) == 2 * 54
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "0.0-7.1 s of 7.2 s" in page and 'class="track"' in page
    assert (
        'poster="./one.jpg"' in page and 'src="./one.svg"' in page
    )  # curves and bars are the page's

    before = (out / "one.mp4").stat().st_mtime_ns
    again = here("explain", *options, "video=films/one.mp4", "out=film", "size=original")
    assert "1 of 1 clips are done in film" in again.stdout
    assert (out / "one.mp4").stat().st_mtime_ns == before
    assert table(out / "scores.csv") == rows and table(out / "track.csv") == stretches

    options = ("explain=gradcam", "video=films", "out=middles", "clips=1")
    done = here("explain", f"ckpt={ckpt}", *options)
    assert "clips=1 is of the data set; all of video= is explained" in done.stdout
    assert "of 2 longer videos the middle was explained; windows=all explains all" in done.stdout
    row, _ = table(place / "middles" / "scores.csv")
    assert (row["start_s"], row["end_s"]) == ("2.533", "4.533")
    arrays = np.load(place / "middles" / "one.npz", allow_pickle=False)
    assert str(arrays["extent"]) == "2.5-4.5 s of 7.2 s"


def test_layers_list(ckpt: Path, place: Path) -> None:
    done = run("explain", f"ckpt={ckpt}", "layers=list", "data.root=/nowhere", cwd=place)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "trunk" in line]
    (default,) = [line for line in lines if "default" in line]
    assert "48 x 16 x 4 x 4" in default and "1, 8, 8" in default
    assert any("trunk.conv2" in line and "24 x 16 x 8 x 8" in line for line in lines)


# --- saying no ----------------------------------------------------------------------------------


def test_mistakes_in_explain(ckpt: Path, place: Path, here) -> None:
    evil = torch.load(ckpt, weights_only=True)
    evil[KEY]["task"]["model"] = {"_target_": "os.system", "command": "touch pwned"}
    torch.save(evil, place / "evil.ckpt")
    evil[KEY]["schema"] = 9
    torch.save(evil, place / "schema.ckpt")
    for name, change in {
        "run": {"run": "x"},
        "network": {"run": {"explain": {"a": MODEL}}},
        "no_method": {"run": {"explain": {"a": 3}}},
        "root": {
            "data": {
                **torch.load(ckpt, weights_only=True)[KEY]["data"],
                "root": str(place / "strange"),
            }
        },
    }.items():
        crafted = torch.load(ckpt, weights_only=True)
        crafted[KEY] |= change
        torch.save(crafted, place / f"{name}.ckpt")
    del crafted["epoch"]
    torch.save(crafted, place / "epoch.ckpt")
    (place / "half.ckpt").write_bytes(ckpt.read_bytes()[:1000])
    (place / "empty.ckpt").touch()
    (place / "junk").mkdir()
    (place / "junk" / "a.mp4").write_text("junk")
    cases = [
        ([], "ckpt is missing", "ckpt="),
        ([ckpt], "did you mean ckpt="),
        (["ckpt=runs/epoch=3-step=1.ckpt"], "no checkpoint at runs/epoch=3-step=1.ckpt"),
        (["ckpt=nothing.ckpt"], "no checkpoint at nothing.ckpt"),
        (["ckpt=half.ckpt"], "truncated"),
        (["ckpt=empty.ckpt"], "empty"),
        (["ckpt=schema.ckpt"], "schema 9", "schema 1"),
        (["ckpt=evil.ckpt"], "refused to import 'os.system'", "trust=[os.system]"),
        (["ckpt=https://example.org/a.ckpt"], "download"),
        ([f"ckpt={ckpt}", "target=blnik"], "no target 'blnik'", "blink"),
        ([f"ckpt={ckpt}", "target=0", "contrast=7"], "no target '7'", "0..2"),
        ([f"ckpt={ckpt}", "contrast=blnik"], "no target 'blnik'", "blink"),
        ([f"ckpt={ckpt}", "select=right"], "no select 'right'", "correct"),
        ([f"ckpt={ckpt}", "select=[wrong,1]"], "no select '1'", "correct"),
        ([f"ckpt={ckpt}", "select=[]"], "select=[] must be one of correct, confused, wrong"),
        ([f"ckpt={ckpt}", "select=3"], "select=3 must be one of correct, confused, wrong"),
        ([f"ckpt={ckpt}", "select=wrong", "video=a.mp4"], "select=wrong needs true", "video="),
        ([f"ckpt={ckpt}", "target=0", "contrast=blink"], "contrast=blink is the target itself"),
        ([f"ckpt={ckpt}", "target=[1.5]"], "target=1.5 must be a class"),
        ([f"ckpt={ckpt}", "target=1.9"], "target=1.9 must be a class"),
        ([f"ckpt={ckpt}", "target=0", "contrast=1.0"], "contrast=1.0 must be a class"),
        ([f"ckpt={ckpt}", "trust=null"], "trust=None must be packages"),
        ([f"ckpt={ckpt}", "fps=0"], "fps=0 must be"),
        ([f"ckpt={ckpt}", "fps=inf"], "fps=inf must be"),
        ([f"ckpt={ckpt}", "fps=fast"], "fps=fast must be"),
        ([f"ckpt={ckpt}", "out=3"], "out=3 must be text"),
        ([f"ckpt={ckpt}", "data.rate=0"], "data.rate=0 must be"),
        ([f"ckpt={ckpt}", "data.rate=fast"], "data.rate=fast must be"),
        ([f"ckpt={ckpt}", "data=null"], "must be a string or a list"),
        *(
            ([f"ckpt={ckpt}", f"clips={clips}"], f"clips={shown} must be at least 1")
            for clips, shown in (
                ("null", "None"),
                ("0.5", "0.5"),
                ("0", "0"),
                ("[]", "[]"),
                ("true", "True"),
            )
        ),
        ([f"ckpt={ckpt}", "clips=[a]"], "no clip of the val split 'a'"),
        ([f"ckpt={ckpt}", "explain=none"], "none chosen", "explain=[gradcam]"),
        ([f"ckpt={ckpt}", "~explain"], "none chosen", "explain=[gradcam]"),
        ([f"ckpt={ckpt}", "explain=null"], "must be a string or a list"),
        (["ckpt=run.ckpt"], "does not remember its run"),
        (
            ["ckpt=network.ckpt"],
            "explain.a: lightning_cam.models.LRCN must be derived from Attribution",
        ),
        (["ckpt=no_method.ckpt"], "explain.a is not a method"),
        (["ckpt=epoch.ckpt"], "not a Lightning checkpoint (no epoch)"),
        (["ckpt=root.ckpt"], "strange", "add data.root=FOLDER"),
        ([f"ckpt={ckpt}", "layer=trunk.conv9"], "no layer 'trunk.conv9'", "trunk.conv3"),
        ([f"ckpt={ckpt}", "explain=gradcamm"], "no explain 'gradcamm'", "gradcam"),
        ([f"ckpt={ckpt}", "vidoe=a.mp4"], "no setting 'vidoe'", "video"),
        ([f"ckpt={ckpt}", "video=none.mp4"], "no video at none.mp4"),
        ([f"ckpt={ckpt}", "video=junk"], "cannot read video 'junk/a.mp4'"),
        ([f"ckpt={ckpt}", "scale=mine"], "no scale 'mine'"),
        ([f"ckpt={ckpt}", "data.split=tset"], "no split 'tset'", "test"),
        ([f"ckpt={ckpt}", "clips=[99]"], "0 to 5"),
        ([f"ckpt={ckpt}", "device=cuda:7"], "device=cuda:7", "device=cpu"),
    ]
    for arguments, *words in cases:
        refuses(here("explain", *arguments), *words)
    assert not (place / "pwned").exists()
    assert not (place / "strange").exists()  # a root that only the file names


def test_a_clip_that_cannot_be_shown_is_skipped(ckpt: Path, place: Path, here, monkeypatch) -> None:
    real = ClipReader.display

    def display(self: ClipReader, path: str, *rest: Any) -> np.ndarray:
        if "blink" in path:
            raise VideoReadError(path, "gone")
        return real(self, path, *rest)

    monkeypatch.setattr(ClipReader, "display", display)
    done = here("explain", f"ckpt={ckpt}", "explain=gradcam", "out=partly", "clips=6")
    assert done.returncode == 0, done.stderr
    assert "2 of 6 clips could not be read" in done.stdout

    monkeypatch.delattr(ClipReader, "display")  # a reader of data that are not videos
    ShowsFiles._abc_caches_clear()  # Python remembers that the class had it
    done = here("explain", f"ckpt={ckpt}", "explain=gradcam", "out=small", "clips=1")
    assert done.returncode == 0, done.stderr
    (image,) = (place / "small").glob("*.mp4")
    assert playable(image) == 16


def test_as_trained_and_more(ckpt: Path, place: Path, here) -> None:
    chosen = "explain=[as_trained,gradcam]"
    done = here("explain", f"ckpt={ckpt}", chosen, "out=more", "clips=1")
    assert done.returncode == 0, done.stderr
    rows = csv.DictReader((place / "more" / "scores.csv").open())
    trained = ["integrated_recurrent_gradcam", "recurrent_gradcam"]
    assert sorted(row["method"] for row in rows) == ["gradcam", *trained]


def test_mistakes_in_train(place: Path, folder: Path, here) -> None:
    small = tiny(place / "data")
    cases = [
        (["model.hiden=3"], "no setting 'model.hiden'", "model.hidden"),
        (["+foo=3"], "no setting 'foo'"),
        (["+model.foo=3", *small], "LRCN does not take", "'foo'"),
        (["+trainer.foo=3", *small], "Trainer does not take", "'foo'"),
        (["model=lrnc"], "no model 'lrnc'", "lrcn"),
        (["experiment=ucf11"], "no experiment 'ucf11'", "ucf11_lrcn"),
        (["data=ucf11", "data.root=/nowhere"], "/nowhere", "data.root=FOLDER"),
        ([*small, "model.backbone=resnet19"], "resnet19", "resnet18"),
        ([*small, "task.optimizer.lr=-1"], "Invalid learning rate"),
        ([*small, "task.optimizer=1"], "task.optimizer"),
        ([*small, "trainer.precision=17"], "precision"),
        (["resume=last", "name=tyni"], "no run 'tyni'", "tiny"),
        (["resume=nothing.ckpt"], "no checkpoint at nothing.ckpt"),
        (["--epochs", "3"], "--epochs", "KEY=VALUE"),
        (["name=a=b"], """'name="a=b"'"""),
        (["trainer.max_epochs=${nothing}"], "nothing"),
        ([*small, "model.hidden=abc"], "model: lightning_cam.models.LRCN: "),
        ([*small, "model.hidden=-1"], "model: lightning_cam.models.LRCN: "),
        ([*small, "data.num_frames=abc"], "data.num_frames", "abc"),
        ([*small, "seed=-1"], "seed=-1 must be"),
        ([*small, "seed=abc"], "seed=abc must be"),
        ([*small, "task.optimizer.lr=abc"], "task.optimizer"),
        ([*small, "task.scheduler.pct_start=abc"], "task.scheduler"),
        ([*small, "trainer.limit_train_batches=abc"], "trainer: "),
        ([*small, "trainer=auto", "trainer.accelerator=tpu"], "try trainer=cpu"),
        ([*small, "logger.kind=tensorboard"], "no logger.kind 'tensorboard'", "csv"),
        ([*small, "explain=as_trained"], "explain=as_trained is for the command explain"),
        ([*small, "videos.clips=null"], "videos.clips=None must be"),
        ([*small, "videos.fps=0"], "videos.fps=0 must be"),
        ([*small, "videos.every_n_epochs=0"], "videos: ", "at least 1"),
        ([*small, "name=null"], "name is missing"),
        ([*small, "~trainer"], "trainer=None must be"),
        (["trainer=null"], "must be a string or a list", "--help"),
    ]
    before = set((place / "runs").rglob("*"))
    for arguments, *words in cases:
        done = here("train", *arguments)
        refuses(done, *words)
        assert ("try trainer=cpu" in done.stderr) == ("trainer.accelerator=tpu" in arguments)
        assert set((place / "runs").rglob("*")) == before, arguments


def test_a_trial_run_saves_nothing(place: Path, here) -> None:
    trial = ["trainer.fast_dev_run=true", "logger=csv", "name=2024"]
    done = here("train", *tiny(place / "data"), *trial)
    assert done.returncode == 0, done.stderr
    assert "nothing was saved" in done.stdout
    (folder,) = (place / "runs" / "2024").iterdir()
    names = {path.name for path in folder.iterdir()}
    assert names == {".owner", "config.yaml", "explain"}


def test_mistakes_and_bugs_in_processes_of_their_own(ckpt: Path, place: Path) -> None:
    script = place / "train.py"
    bug = (
        "from lightning_cam.commands import run_train as run; run.train = lambda cfg: 1 / 0; main()"
    )
    script.write_text((ROOT / "train.py").read_text().replace("main()", bug))
    layer, network, bug = together(
        place,
        ("explain", f"ckpt={ckpt}", "layer=trunk.conv9"),
        ("train", *tiny(place / "data"), "model.backbone=resnet19"),
        (script.with_suffix(""),),
    )
    refuses(layer, "no layer 'trunk.conv9'", "trunk.conv3")
    refuses(network, "resnet19", "resnet18")
    assert bug.returncode == 1
    assert "Traceback" in bug.stderr and "ZeroDivisionError" in bug.stderr
