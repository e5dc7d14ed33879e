"""Jobs of several nodes explain: one folder, each clip once."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from test_faults import COMMON, make_checkpoint, make_video

from slurm.cluster import Cluster

pytestmark = [pytest.mark.attack, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


def test_each_clip_is_explained_once(slurm: Cluster, tmp_path: Path) -> None:
    shutil.copy(ROOT / "explain.py", tmp_path)
    make_checkpoint(tmp_path / "net.ckpt")
    (tmp_path / "videos").mkdir()
    for n in range(2):
        make_video(tmp_path / "videos" / f"clip_{n}.mp4", n)
    job = slurm.submit(
        ROOT / "scripts" / "slurm" / "explain.sbatch", *COMMON, "video=videos", "explain=gradcam",
        cwd=tmp_path, options=["--nodes=3"],
    )  # fmt: skip
    assert job.end() == "COMPLETED", job.log()
    (folder,) = tmp_path.glob("explain_*")
    rows = {path.name: path.read_bytes().count(b"\n") for path in folder.glob("rows.*")}
    assert rows == {"rows.rank0.jsonl": 1, "rows.rank1.jsonl": 1}
    with (folder / "scores.csv").open() as file:
        assert [row["clip_id"] for row in csv.DictReader(file)] == ["clip_0", "clip_1"]
    assert job.log().count("process 3 of 3: no clip is left for it\n") == 1
    assert job.log().count("open explain_1/index.html") >= 1


def test_a_data_set_is_surveyed_by_two_nodes(slurm: Cluster, tmp_path: Path) -> None:
    shutil.copy(ROOT / "explain.py", tmp_path)
    make_checkpoint(tmp_path / "net.ckpt")
    make_video(tmp_path / "clip.mp4")
    for n in range(70):  # a file of 64 clips, and one of 6
        video = tmp_path / "videos" / "val" / ("walk", "run")[n % 2] / f"clip_{n}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "clip.mp4", video)
    for n, name in enumerate(("walk", "run"), 1):
        (tmp_path / "videos" / "train" / name).mkdir(parents=True)
        make_video(tmp_path / "videos" / "train" / name / "other.mp4", n)
    job = slurm.submit(
        ROOT / "scripts" / "slurm" / "explain.sbatch", *COMMON, "survey=all", "data.root=videos",
        "explain=gradcam", "out=found", cwd=tmp_path, options=["--nodes=2"],
    )  # fmt: skip
    assert job.end() == "COMPLETED", job.log()
    shards = sorted(path.name for path in (tmp_path / "found" / "maps").glob("*.npz"))
    assert shards == ["shard_0000.npz", "shard_0001.npz"], job.log()
    with (tmp_path / "found" / "clips.csv").open() as file:
        clips = [row["clip"].split("_")[1] for row in csv.DictReader(file)]
    assert sorted(map(int, clips)) == list(range(70))
    assert "open found/index.html" in job.log()  # of both where they end in one moment
    assert (tmp_path / "found" / "index.html").exists()
