"""Two processes train over gloo and share the clips to explain."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from commands import run


@pytest.mark.slow
def test_two_ranks_share_the_clips_and_one_run_folder(tmp_path: Path) -> None:
    settings = [
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "trainer.max_epochs=2",
        f"data.root={tmp_path / 'data'}",
        "data.actions=[move_left,move_right,blink]",
        "data.groups=5",
        "data.clips=3",
        "data.val_groups=[4]",
        "data.test_groups=[5]",
        "data.batch_size=4",
        "data.size=32",
        "data.resize=32",
        "data.crop=32",
        "model.hidden=16",
        "logger=csv",
        "videos.clips=5",
        "measure=[deletion,insertion]",
        "measure.deletion.steps=3",
        "explain=recurrent_gradcam",
        f"runs={tmp_path / 'runs'}",
    ]
    done = run("train", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (tmp_path / "runs/default").iterdir()
    for epoch in ("epoch_000", "epoch_001"):
        assert len(list((folder / "explain" / epoch).glob("*.mp4"))) == 5
        # attention strips are drawn by rank 0 from what it gathered of both
        assert len(list((folder / "explain" / epoch).glob("*.attention.png"))) == 5
    # and each clip's maps over the epochs by the rank that has it; the checkpoint knows all
    assert len(list((folder / "explain/epochs").glob("*.recurrent_gradcam.png"))) == 5
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    kept = last["callbacks"]["ExplainCallback"]["over_epochs"]
    assert [[*of_clip["recurrent_gradcam"]] for of_clip in kept.values()] == [[0, 1]] * 5
    (log,) = folder.rglob("metrics.csv")
    with log.open() as file:
        scores = [row["val/acc"] for row in csv.DictReader(file) if row["val/acc"]]
    with log.open() as file:
        areas = [r for r in csv.DictReader(file) if r["explain/recurrent_gradcam/deletion"]]
    for epoch, logged in zip(("epoch_000", "epoch_001"), areas, strict=True):
        with (folder / "explain" / epoch / "measures.csv").open() as file:
            rows = [r for r in csv.DictReader(file) if r["method"] == "recurrent_gradcam"]
        assert len(rows) == 5  # of both ranks
        for kind in ("deletion", "insertion"):
            mean = sum(float(row[kind]) for row in rows) / 5
            assert abs(float(logged[f"explain/recurrent_gradcam/{kind}"]) - mean) < 1e-4
    # 3 classes x 1 group x 3 clips = 9 clips, 5 + 4 and 2 + 1 batches, each counted once
    assert len(scores) == 2
    assert all(abs(float(s) * 9 - round(float(s) * 9)) < 1e-4 for s in scores)
    assert "explain.py ckpt=" in done.stdout
