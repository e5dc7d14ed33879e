"""Two processes train over gloo and share the clips to explain."""

from __future__ import annotations

import csv
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from commands import run, run_python
from lightning.pytorch.strategies import DDPStrategy

import lightning_cam as lc
from lightning_cam.explaining.callback import ExplainCallback
from lightning_cam.explaining.fixed_clips import Turn, _place
from lightning_cam.explaining.shared_methods import ClipMaps, with_others
from lightning_cam.training.meeting import Meeting, speaks_gloo


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


def in_a_process(function: Callable[[Path], None], place: Path) -> CompletedProcess[str]:
    """Call a function of this file, which forks, in a process of its own."""
    call = f"import sys, pathlib; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
    call += f"import test_ddp; test_ddp.{function.__name__}(pathlib.Path({str(place)!r}))"
    done = run_python("-c", call, cwd=place)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


SHORT = 3  # seconds, the time-out of the process group


class Slow(lc.GradCAM):
    """Takes longer than a collective waits, on the first rank: at its first clip, then its last."""

    calls = 0

    def __call__(self, *args: Any, **more: Any) -> Any:
        self.calls += 1
        if dist.get_rank() == 0 and self.calls in (1, 4):
            time.sleep(SHORT + 1)
        return super().__call__(*args, **more)


def with_a_slow_method(place: Path) -> None:
    """Two trainings on two ranks, the second with explanations of three clips."""
    from test_callbacks import Data, task_of

    for name, callbacks in (
        ("without", []),
        ("with", [ExplainCallback({"slow": Slow()}, clips=[0, 1, 2], folder=place / "explain")]),
    ):
        strategy = DDPStrategy(
            start_method="fork", process_group_backend="gloo", timeout=timedelta(seconds=SHORT)
        )
        pl.seed_everything(3)
        trainer = pl.Trainer(
            max_epochs=2, accelerator="cpu", devices=2, strategy=strategy, logger=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=place,
            enable_checkpointing=False, callbacks=callbacks,
        )  # fmt: skip
        task = task_of()
        trainer.fit(task, Data())
        torch.save([task.state_dict(), trainer.callback_metrics["val/loss"]], place / f"{name}.pt")


@pytest.mark.slow
def test_a_method_slower_than_the_time_out_of_the_ranks(tmp_path: Path) -> None:
    """The other rank waits, at its next clip or at one that it has not; weights are the same."""
    done = in_a_process(with_a_slow_method, tmp_path)
    assert "not explained" not in done.stderr
    for epoch in (0, 1):
        files = sorted(path.name for path in (tmp_path / f"explain/epoch_{epoch:03d}").iterdir())
        assert [f for f in files if f.endswith(".mp4")] == [f"clip_{n}.mp4" for n in range(3)]
        assert len(files) == 3 * 4
    (one, loss), (other, same) = (torch.load(tmp_path / f"{n}.pt") for n in ("without", "with"))
    assert loss.equal(same) and all(one[name].equal(other[name]) for name in one)


def broken(model: Any, clip: Any, target: Any) -> Any:
    raise RuntimeError("no map")


def plain(model: Any, clip: Any, target: Any) -> Any:
    print("plain by", dist.get_rank() if dist.is_initialized() else "itself", file=sys.stderr)
    return clip.abs().mean(1)


METHODS = {
    "first": lc.GradCAM(),
    "plain": lambda *given: plain(*given),  # cannot be pickled
    "broken": broken,
    "last": lc.GradCAM(relu=False),
}


def with_methods_shared(place: Path) -> None:
    """Explain three clips after a pass over the validation set, by one process and by two."""
    from test_callbacks import Data, task_of

    for ranks in (1, 2):
        explain = ExplainCallback(
            METHODS, clips=[0, 1, 4], folder=place / str(ranks), target="a", contrast="b"
        )
        strategy = DDPStrategy(start_method="fork", process_group_backend="gloo")
        trainer = pl.Trainer(
            accelerator="cpu", devices=ranks, strategy=strategy if ranks > 1 else "auto",
            logger=False, enable_progress_bar=False, default_root_dir=place, callbacks=[explain],
        )  # fmt: skip
        trainer.validate(task_of(), Data(), verbose=False)


@pytest.mark.slow
def test_a_rank_without_a_clip_takes_methods_of_another(tmp_path: Path) -> None:
    """Of three clips the last has two ranks: all files are those of one process."""
    done = in_a_process(with_methods_shared, tmp_path)
    assert "method 'broken', first on clip 0 (RuntimeError: no map)" in done.stderr
    assert [done.stderr.count(f"plain by {n}") for n in (0, 1)] == [1 * 2, 2 * 2]  # both classes
    assert "another class" not in done.stderr
    names = sorted(path.name for path in (tmp_path / "1/validate").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "2/validate").iterdir())
    for name in names:
        one, two = (tmp_path / ranks / "validate" / name for ranks in "12")
        if name.endswith(".npz"):
            with np.load(one) as a, np.load(two) as b:
                assert a.files == b.files and {"heatmap/first", "heatmap/plain"} <= {*a.files}
                for key in a.files:
                    np.testing.assert_array_equal(a[key], b[key])
        else:
            assert one.read_bytes() == two.read_bytes(), name


class Noted(lc.GradCAM):
    """Says something that cannot be pickled."""

    def __call__(self, model: Any, *given: Any) -> Any:
        model.notes["more"] = Words("said")
        return super().__call__(model, *given)


class Words(str):
    def __reduce__(self) -> Any:
        raise TypeError("stays here")


class Told(Meeting):
    """A meeting of one that is said what was brought along."""

    def share(self, own: Any) -> list[Any]:
        self.brought = own
        return [own]


def test_a_map_that_cannot_travel_stays_and_no_rank_is_held_up() -> None:
    from test_callbacks import task_of

    model, clip = task_of().eval().explainable({}), torch.rand(1, 3, 4, 32, 32)
    methods = {"noted": Noted(), "fine": lc.GradCAM()}
    maps = {name: lc.explain(model, method, clip, 0) for name, method in methods.items()}
    own, meeting, failed = ClipMaps(model, {"video": clip}, maps), Told(), []
    turn = Turn("clip", own.batch, slice(None), home=0)
    on_error = lambda name, error: failed.append((name, str(error)))  # noqa: E731
    assert with_others(meeting, 1, turn, own, methods, on_error) is own
    home, packed = meeting.brought
    assert home == 0 and [*packed] == ["fine"] and failed == [("noted", "stays here")]
    left = replace(own, maps={"noted": maps["noted"]})  # of the rank that draws the clip
    found = with_others(meeting, 0, turn._replace(home=None), left, methods, on_error)
    assert found is not None and [*found.maps] == ["noted"]


def test_every_clip_and_method_is_one_rank_s() -> None:
    for ranks in range(1, 9):
        for clips in range(1, ranks + 1):
            for methods in range(1, 6):
                done = []
                for rank in range(ranks):
                    home, part = _place(rank, ranks, clips, methods)
                    assert rank >= clips or (home == rank and part is not None)
                    done += [(home, m) for m in range(methods)[part]] if part else []
                assert sorted(done) == [(c, m) for c in range(clips) for m in range(methods)]


def out_of_reach(rank: int, place: Path) -> None:
    """Two ranks whose own group works, and whose machines have no address for another."""
    dist.init_process_group("gloo", init_method=f"file://{place}/store", rank=rank, world_size=2)
    trainer = TwoRanks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "get_backend", lambda: "nccl")
        assert speaks_gloo(trainer)  # type: ignore[arg-type]
        patch.setenv("GLOO_SOCKET_IFNAME", "none0")
        meeting = Meeting()
        with pytest.warns(UserWarning, match="GLOO_SOCKET_IFNAME=eth0"):
            meeting.join(trainer)  # type: ignore[arg-type]
    meeting.wait()
    assert not meeting.patient and meeting.share(rank) == [rank] and trainer.waited == 3
    (place / str(rank)).touch()


def test_ranks_that_gloo_does_not_connect_go_on(tmp_path: Path) -> None:
    assert of_two_ranks(out_of_reach, tmp_path) == [0, 0]
    assert (tmp_path / "0").exists() and (tmp_path / "1").exists()


class TwoRanks:
    """A trainer, as far as ranks that meet know it."""

    world_size = 2

    def __init__(self) -> None:
        self.strategy, self.waited = self, 0

    def barrier(self) -> None:
        self.waited += 1
        dist.barrier()

    def reduce_boolean_decision(self, decision: bool) -> bool:
        found = torch.tensor(float(decision))
        dist.all_reduce(found, dist.ReduceOp.MIN)
        return bool(found)


def of_two_ranks(function: Any, place: Path) -> list[int | None]:
    """The exit codes of two processes that each call a function with their rank and a folder."""
    context = mp.get_context("fork")
    ranks = [context.Process(target=function, args=(n, place)) for n in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(30)
    return [process.exitcode for process in ranks]


def wait_for_one_that_dies(rank: int, place: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{place}/store", rank=rank, world_size=2)
    meeting = Meeting()
    meeting.join(TwoRanks())  # type: ignore[arg-type]
    meeting.wait()
    if rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"closed by peer|reset by peer"):
        meeting.wait()
    (place / "heard").touch()


def test_who_waits_hears_that_another_rank_is_dead(tmp_path: Path) -> None:
    """It waits for a day, but for nobody who is not there any more."""
    of_two_ranks(wait_for_one_that_dies, tmp_path)
    assert (tmp_path / "heard").exists()
