"""A training goes on in the middle of an epoch as if it had never stopped."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from commands import run_python, tiny
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from kills import MOMENTS
from lightning.pytorch.callbacks import OnExceptionCheckpoint
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassRecall

from lightning_cam.commands.run_train import train
from lightning_cam.commands.search import PACKAGE
from lightning_cam.data.core.base import ClipDataModule
from lightning_cam.data.core.clips import SampleDict, Seed
from lightning_cam.data.core.dataset import SampleDataset
from lightning_cam.errors import CheckpointError
from lightning_cam.training.mid_epoch import KEY, MidEpoch
from lightning_cam.training.preemption import Preemption
from lightning_cam.training.reproducible import ReseedBatches
from lightning_cam.training.resuming import CheckedResume
from lightning_cam.training.saving import LAST, LastCheckpoint

pytestmark = pytest.mark.filterwarnings(
    "ignore:No (positive|negative) samples",  # of a class, in a batch of two
    "ignore:The ``compute`` method of metric",  # whose state is lost
    "ignore:The 'train_dataloader' does not have many workers",
    "ignore:The 'val_dataloader' does not have many workers",
)

CLIPS, BATCH = 21, 2  # 11 batches, the last of one clip
BATCHES, EPOCHS = 11, 2


class Noise(SampleDataset[int]):
    """Clips of noise, which an augmentation changes from epoch to epoch."""

    careless = False

    def _sample(self, index: int, seed: Seed | None) -> SampleDict:
        if self.careless:
            torch.rand(1)  # of the process that trains, or of a worker
        clip = np.random.default_rng(index).standard_normal((3, 2, 2, 2), np.float32)
        if seed is not None:
            clip += np.random.default_rng(seed).standard_normal((3, 1, 1, 1), np.float32)
        return {
            "video": torch.from_numpy(clip), "label": torch.tensor(index % 3), "index": index,
            "error": "",
        }  # fmt: skip

    def _missing(self, index: int, error: str) -> SampleDict:
        raise AssertionError(error)


class Data(ClipDataModule):
    def __init__(
        self, *, clips: int = CLIPS, balanced: bool = False, careless: bool = False, **options: Any
    ) -> None:
        options = {"batch_size": BATCH, "num_workers": 0, "seed": 3, **options}
        super().__init__("", mean=[0] * 3, std=[1] * 3, cache=False, **options)
        self.clips, self.balanced, self.careless = clips, balanced, careless

    @cached_property
    def listing(self) -> Any:
        raise AssertionError

    def _dataset(self, part: str, *, train: bool = False) -> Noise:
        noise = Noise(range(self.clips if train else 5), train=train, seed=self.seed)
        noise.careless = self.careless
        return noise

    def _require(self, part: str) -> None: ...

    def _balanced_labels(self) -> Sequence[int] | None:
        return [min(n % 5, 2) for n in range(self.clips)] if self.balanced else None

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        if (
            self.trainer is not None and self.trainer.training and not self.careless
        ):  # as people augment on the GPU
            batch["video"] = batch["video"] + 0.1 * torch.randn(3, 1, 1, 1)
        return batch


class Task(pl.LightningModule):
    """Dropout, batch norm, a schedule, and metrics logged in every way there is."""

    def __init__(self, scheduled: bool = False) -> None:
        super().__init__()
        self.scheduled = scheduled
        self.model = nn.Sequential(
            nn.Conv3d(3, 8, 1), nn.BatchNorm3d(8), nn.ReLU(), nn.AdaptiveAvgPool3d(1),
            nn.Flatten(), nn.Dropout(), nn.Linear(8, 3),
        )  # fmt: skip
        self.acc = MulticlassAccuracy(3)
        self.curve = MulticlassAUROC(3, thresholds=None)  # keeps all it has seen
        self.by_hand = MeanMetric()
        self.grouped = MetricCollection(
            [MulticlassAccuracy(3), MulticlassRecall(3)], prefix="by_hand/"
        )
        self.val_acc, self.val_by_hand = MulticlassAccuracy(3), MeanMetric()
        self.seen: list[int] = []
        self.hooks = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.hooks += 1

    def training_step(self, batch: SampleDict, batch_idx: int) -> Tensor:
        self.seen += batch["index"]
        logits, label = self.model(batch["video"]), batch["label"]
        loss = nn.functional.cross_entropy(logits, label)
        self.by_hand.update(loss.detach())
        self.grouped.update(logits, label)
        self.acc(logits, label)
        self.log("train/acc", self.acc, on_step=False, on_epoch=True)
        self.curve(logits.softmax(1), label)
        self.log("train/auroc", self.curve, on_step=False, on_epoch=True)
        for how in ("mean", "sum", "min", "max"):
            self.log(f"train/{how}", loss.detach(), on_step=True, on_epoch=True, reduce_fx=how,
                     batch_size=len(label))  # fmt: skip
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("train/by_hand", self.by_hand.compute())
        self.by_hand.reset()
        self.log_dict(self.grouped.compute())
        self.grouped.reset()

    def validation_step(self, batch: SampleDict, batch_idx: int) -> None:
        torch.rand(1)  # as careless code does
        logits = self.model(batch["video"])
        self.val_acc(logits, batch["label"])
        self.log("val/acc", self.val_acc)
        self.val_by_hand.update(logits.mean())
        self.log("val/loss", nn.functional.cross_entropy(logits, batch["label"]), batch_size=1)

    def on_validation_epoch_end(self) -> None:
        self.log("val/by_hand", self.val_by_hand.compute())
        self.val_by_hand.reset()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        if self.scheduled:  # over all steps, as the tasks do
            steps = self.trainer.estimated_stepping_batches
            linear = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=int(steps))
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": linear, "interval": "step"},
            }
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.9)
        schedule = {"scheduler": plateau, "monitor": "val/loss", "strict": False}
        return {"optimizer": optimizer, "lr_scheduler": schedule}


class Rows(Logger):
    """Everything that is logged, in order."""

    name, version = "rows", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))


class StoppedHereError(Exception):
    pass


class Stop(pl.Callback):
    """Saves and stops: behind the n-th batch of training, or at a moment of the n-th validation."""

    def __init__(self, where: str, number: int, file: Path) -> None:
        self.where, self.number, self.file, self.count = where, number, file, 0

    def _at(self, where: str, trainer: pl.Trainer) -> None:
        if where != self.where or trainer.sanity_checking:
            return
        self.count += 1
        if self.count == self.number:
            trainer.save_checkpoint(self.file)
            raise StoppedHereError

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self._at("batch", trainer)

    def on_validation_start(self, trainer: Any, *_: Any) -> None:
        self._at("validation begins", trainer)

    def on_validation_batch_end(self, trainer: Any, *_: Any) -> None:
        self._at("validation", trainer)

    def on_validation_epoch_end(self, trainer: Any, *_: Any) -> None:
        self._at("explanation", trainer)

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        self._at("validated", trainer)

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        self._at("epoch", trainer)


class Ask(Preemption):
    """Is asked to end within the n-th batch of training or of validation, and ends in order."""

    def __init__(self, where: str, number: int, file: Path) -> None:
        super().__init__(LastCheckpoint(file.parent))
        self.where, self.number = where, number

    def on_train_batch_start(self, *_: Any) -> None:
        self._count("asked in training")

    def on_validation_batch_start(self, trainer: Any, *_: Any) -> None:
        if not trainer.sanity_checking:
            self._count("asked in validation")
        super().on_validation_batch_start(trainer)

    def _count(self, where: str) -> None:
        self.number -= where == self.where
        if not self.number:
            self.ask()


class Result:
    """What a training, in one go or in several, leaves."""

    def __init__(
        self,
        stops: Sequence[tuple[str, int]],
        place: Path,
        data: dict[str, Any] | None = None,
        scheduled: bool = False,
        **options: Any,
    ) -> None:
        self.seen: list[int] = []
        self.hooks = 0
        self.rows: list[tuple[int | None, dict[str, float]]] = []
        resume = None
        for n, stop in enumerate([*stops, None]):
            torch.manual_seed(0)
            task, logger = Task(scheduled), Rows()
            file = place / f"{n}.ckpt"
            if stop and stop[0].startswith("asked"):
                file = place / LAST  # as it is where nothing new was trained
            # Others save before these callbacks are called, and behind them.
            callbacks = [ReseedBatches(5), MidEpoch()]
            if stop and file.name == LAST:
                callbacks.append(Ask(*stop, file))
            elif stop:
                callbacks.insert(2 if stop[0] == "validated" else 0, Stop(*stop, file))
            trainer = pl.Trainer(
                **{
                    "max_epochs": EPOCHS, "accelerator": "cpu", "logger": logger,
                    "log_every_n_steps": 1, "enable_progress_bar": False,
                    "enable_model_summary": False, "enable_checkpointing": False,
                    "default_root_dir": place, "num_sanity_val_steps": 0,
                    "callbacks": callbacks, **options,
                }
            )  # fmt: skip
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.filterwarnings("error", ".*not resumable.*")
                warnings.filterwarnings("error", ".*its value is lost.*")
                try:
                    trainer.fit(task, Data(**data or {}), ckpt_path=resume)
                except (StoppedHereError, SystemExit):
                    resume = file
                    belongs_together(torch.load(file, weights_only=True))
            self.hooks += task.hooks
            self.seen += task.seen
            self.rows += logger.rows
        self.weights = task.state_dict()
        self.optimizer = trainer.optimizers[0].state_dict()
        self.step = trainer.global_step


def belongs_together(checkpoint: dict[str, Any]) -> None:
    """Nothing in a checkpoint is of another step: it was not written in the middle of one."""
    done = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"]
    weights = checkpoint["state_dict"]
    counts = {int(v) for name, v in weights.items() if name.endswith("num_batches_tracked")}
    assert counts == {done}
    moments = checkpoint["optimizer_states"][0]["state"].values()
    assert {int(moment["step"]) for moment in moments} <= {checkpoint["global_step"]}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


def ends_alike(straight: Result, stopped: Result) -> None:
    assert stopped.seen == straight.seen
    assert stopped.step == straight.step
    assert same(straight.weights, stopped.weights)
    assert same(straight.optimizer, stopped.optimizer)
    assert _epoch_rows(stopped) == _epoch_rows(straight)
    # A stop behind a batch comes before its row is logged.
    assert [row for row in stopped.rows if row not in straight.rows] == []


def _epoch_rows(result: Result) -> list[Any]:
    return [row for row in result.rows if "train/mean_step" not in row[1]]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory):
    """The training that nothing stopped, with some settings; each is done once."""
    kept: dict[str, Result] = {}

    def of(**options: Any) -> Result:
        key = repr(sorted(options.items()))
        if key not in kept:
            kept[key] = Result([], tmp_path_factory.mktemp("straight"), **options)
        return kept[key]

    return of


WORKERS = {"data": {"num_workers": 2}}


@pytest.mark.parametrize(
    ("stops", "options"),
    [
        ([("batch", 5)], {}),
        ([("batch", 3), ("batch", 4), ("batch", 15)], {}),  # twice in an epoch, and in the next
        ([("batch", 5)], WORKERS),
        ([("batch", 5), ("batch", 3)], {"accumulate_grad_batches": 3}),  # between optimiser steps
        ([("batch", 6)], {"data": {"balanced": True}}),
        ([("batch", 11)], {}),  # behind the last batch: validation is due
        ([("batch", 11)], {"check_val_every_n_epoch": 2}),  # and not
        ([("batch", 7)], {"limit_train_batches": 7}),
        ([("batch", 4), ("validation", 1), ("explanation", 1)], {"val_check_interval": 4}),
        ([("validation begins", 1), ("validation", 2), ("validated", 1)], {}),
        ([("validated", 1), ("validated", 1)], {"val_check_interval": 4}),
        ([("validation", 2), ("validated", 1)], {"val_check_interval": 4}),
        ([("batch", 6), ("batch", 6)], {"max_steps": 19, "max_epochs": -1}),
        ([("validation", 2)], {"max_steps": 11, "max_epochs": -1}),  # of the last step
        ([("batch", 2)], {"overfit_batches": 5}),
        ([("batch", 3), ("batch", 4), ("batch", 11)], {"scheduled": True}),
    ],
    ids=str,
)
@pytest.mark.attack
def test_it_ends_as_if_it_had_never_stopped(
    straight: Any, tmp_path: Path, stops: list[tuple[str, int]], options: dict[str, Any]
) -> None:
    """Stopped behind a batch, in a validation or between optimiser steps: all ends bit for bit."""
    ends_alike(straight(**options), Result(stops, tmp_path, **options))


@pytest.mark.parametrize(
    ("stops", "options"),
    [
        ([("asked in training", 3), ("asked in training", 1)], {}),
        ([("asked in training", 11), ("asked in validation", 2)], {}),
        ([("asked in training", 3)], {"accumulate_grad_batches": 3}),
    ],
    ids=str,
)
@pytest.mark.attack
def test_a_preempted_training_logs_each_row_once(
    straight: Any, tmp_path: Path, stops: list[tuple[str, int]], options: dict[str, Any]
) -> None:
    """The batch behind which a training ends has its row, and the network's own hook."""
    stopped = Result(stops, tmp_path, **options)
    ends_alike(straight(**options), stopped)
    assert stopped.rows == straight(**options).rows
    assert stopped.hooks == EPOCHS * BATCHES


def test_dropout_is_the_same_however_many_workers_fetch(straight: Any) -> None:
    one, other = (straight(data={"careless": True, "num_workers": n}) for n in (0, 2))
    assert same(one.weights, other.weights)


@pytest.mark.attack
@pytest.mark.slow
@settings(max_examples=MOMENTS)
@given(data=st.data())
def test_wherever_it_stops(
    straight: Any, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Random stops x loader workers x accumulation x validation: every clip once, all bits."""
    options = {
        "accumulate_grad_batches": data.draw(st.sampled_from([1, 3])),
        "val_check_interval": data.draw(st.sampled_from([1.0, 3])),
        "data": {
            "num_workers": data.draw(st.sampled_from([0, 2])),
            "balanced": data.draw(st.booleans()),
        },
    }
    left, stops = EPOCHS * BATCHES, []
    while len(stops) < 3 and left:
        stops.append(("batch", data.draw(st.integers(1, left))))
        left -= stops[-1][1]
    place = tmp_path_factory.mktemp("stopped")
    stopped = Result(stops, place, **options)
    ends_alike(straight(**options), stopped)
    if not options["data"]["balanced"]:
        for epoch in range(EPOCHS):
            seen = stopped.seen[epoch * CLIPS : (epoch + 1) * CLIPS]
            assert sorted(seen) == list(range(CLIPS))


def plain(
    place: Path, data: pl.LightningDataModule, *callbacks: pl.Callback, **options: Any
) -> Any:
    """A trainer as people make it, with one of our data modules."""
    task = Task()
    trainer = pl.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, default_root_dir=place,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
        enable_checkpointing=bool(callbacks), num_sanity_val_steps=0,
    )  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", ".*not resumable.*")
            trainer.fit(task, data, **options)
    except StoppedHereError:
        pass
    return task.seen


class Breaks(pl.Callback):
    """Raises in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_zero_grad(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.step:
            raise StoppedHereError


@pytest.mark.parametrize("step", [5, 10])  # the last of the epoch
@pytest.mark.parametrize("more", [[], [MidEpoch()]], ids=["plain", "ours"])
def test_a_batch_in_hand_is_not_finished(tmp_path: Path, step: int, more: list[Any]) -> None:
    """A plain Trainer saves in the middle of a step: that batch is trained on again, no other."""
    saves = OnExceptionCheckpoint(tmp_path, "broken")
    first = plain(tmp_path, Data(), *more, saves, Breaks(step))
    rest = plain(tmp_path, Data(), *more, ckpt_path=tmp_path / "broken.ckpt")
    done = step * BATCH
    order = [i for epoch in range(EPOCHS) for i in in_order(epoch)]
    assert first[:done] + rest == order
    assert len(first) > done


def in_order(epoch: int) -> list[int]:
    loader = Data().train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [i for batch in loader for i in batch["index"]]


def test_what_workers_fetched_ahead_is_not_finished() -> None:
    """A loop of one's own, without a trainer: as with any loader that has a state."""
    loader = Data(num_workers=2).train_dataloader()
    batches = iter(loader)
    whole = [next(batches)["index"] for _ in range(3)]
    state = loader.state_dict()
    whole += [batch["index"] for batch in batches]
    again = Data().train_dataloader()
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert [batch["index"] for batch in again] == whole[3:]
    assert [batch["index"] for batch in again] == whole  # the next epoch is whole


def test_an_epoch_in_another_order_is_refused(tmp_path: Path) -> None:
    state = Data().train_dataloader().state_dict() | {"batches": 5}
    said = "within an epoch of 21 clips in batches of 2 on 1 process (seed 3), and now there are "
    Data(clips=9).train_dataloader().load_state_dict(state | {"batches": 11})  # all are done
    for now, what in (
        ({"batch_size": 3}, "21 clips in batches of 3 on 1 process (seed 3)"),
        ({"clips": 20}, "20 clips in batches of 2 on 1 process (seed 3)"),
        ({"seed": 4}, "21 clips in batches of 2 on 1 process (seed 4)"),
        ({"balanced": True}, "21 clips in batches of 2 on 1 process (seed 3, balanced)"),
    ):
        with pytest.raises(CheckpointError, match=re.escape(said + what)):
            Data(**now).train_dataloader().load_state_dict(state)
    loader = Data().train_dataloader()
    state["ranks"] = 2
    with pytest.raises(CheckpointError, match="on 2 processes"):
        loader.load_state_dict(state)


@pytest.mark.attack
def test_a_loader_believes_no_state_of_another_form() -> None:
    """A checkpoint says of the order of an epoch what is no count, or names other things."""
    loader = Data().train_dataloader()
    good = loader.state_dict()
    odd: list[Any] = [3, {}, good | {"batches": -1}, good | {"batches": True}, good | {"a": 1}]
    odd += [good | {"epoch": "x"}, good | {"seed": 1.0}, good | {"batches": torch.ones(1)}]
    for state in odd:
        with pytest.raises(CheckpointError, match="is none"):
            loader.load_state_dict(state)
    loader.load_state_dict(good | {"batches": 10**18})  # beyond the end: nothing is left
    assert list(loader) == []


def with_two_ranks(stop: tuple[str, int], place: Path, **options: Any) -> Path:
    """A checkpoint as two processes would have written it."""
    Result([stop], place, **options)
    file = place / "0.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint[KEY] *= 2
    checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["ranks"] = 2
    torch.save(checkpoint, file)
    return file


def ours(place: Path, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu", logger=False, num_sanity_val_steps=0, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=place,
        callbacks=[MidEpoch(), CheckedResume()], **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    "options", [{"max_epochs": 1}, {"max_epochs": -1, "max_steps": 16}], ids=str
)
def test_with_other_processes_the_epoch_begins_again(
    straight: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    file = with_two_ranks(("batch", 5), tmp_path, **options)
    task, trainer = Task(), ours(tmp_path, **options)
    said = "within epoch 1 with a world size of 2, which is 1 now: the epoch begins again"
    with pytest.warns(UserWarning, match=re.escape(said)):
        trainer.fit(task, Data(), ckpt_path=file)
    assert task.seen == straight().seen[:CLIPS]
    assert trainer.global_step == 5 + BATCHES


@pytest.mark.parametrize(
    ("stop", "options"),
    [
        (("batch", BATCHES), {}),
        (("batch", BATCHES), {"check_val_every_n_epoch": 2}),
        (("validated", 1), {}),
    ],
    ids=str,
)
def test_with_other_processes_no_epoch_begins_again_that_is_done(
    straight: Any, tmp_path: Path, stop: tuple[str, int], options: dict[str, Any]
) -> None:
    """As the best checkpoint, which is saved when the validation behind the last batch is over."""
    file = with_two_ranks(stop, tmp_path, **options)
    task, trainer = Task(), ours(tmp_path, max_epochs=EPOCHS, **options)
    with pytest.warns(UserWarning, match="its metrics of training are lost"):
        trainer.fit(task, Data(), ckpt_path=file)
    assert task.seen == straight().seen[CLIPS:]
    assert trainer.global_step == EPOCHS * BATCHES


class Keep(pl.Callback):
    """Saves within the first epoch and stops, or writes at the end what each rank has."""

    def __init__(self, place: Path, stop: int = 0) -> None:
        self.place, self.stop = place, stop

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step and trainer.fit_loop.total_batch_idx + 1 == self.stop:
            trainer.save_checkpoint(self.place / "saved.ckpt")
            trainer.should_stop, trainer.limit_val_batches = True, 0

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        kept = {
            "seen": pl_module.seen, "weights": pl_module.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict(), "metrics": trainer.callback_metrics,
        }  # fmt: skip
        torch.save(kept, self.place / f"{trainer.global_rank}.pt")


def on_two_ranks(place: Path) -> None:
    """Three trainings over gloo: in one go, until the fifth batch, and from there on."""
    kept = []
    for name, stop, resume in (
        ("straight", 0, None),
        ("stopped", 5, None),
        ("resumed", 0, place / "stopped" / "saved.ckpt"),
    ):
        (place / name).mkdir()
        torch.manual_seed(0)
        trainer = pl.Trainer(
            max_epochs=2, accelerator="cpu", devices=2, strategy="ddp_fork", logger=False,
            use_distributed_sampler=False, accumulate_grad_batches=3, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False, default_root_dir=place,
            callbacks=[Keep(place / name, stop), ReseedBatches(5), MidEpoch()],
        )  # fmt: skip
        trainer.fit(Task(), Data(), ckpt_path=resume)
        kept.append([torch.load(place / name / f"{rank}.pt") for rank in range(2)])
    for one, first, rest in zip(*kept, strict=True):
        assert len(first["seen"]) == 5 * BATCH
        assert first["seen"] + rest["seen"] == one["seen"]
        for part in ("weights", "optimizer", "metrics"):
            assert same(one[part], rest[part]), part
    assert {*kept[0][0]["seen"]} | {*kept[0][1]["seen"]} == {*range(CLIPS)}


@pytest.mark.attack
@pytest.mark.slow
def test_two_ranks_go_on_between_two_optimiser_steps(tmp_path: Path) -> None:
    """Two processes stop behind batch 5, accumulation 3: each goes on with its own, all bits."""
    call = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import pathlib; "
    call += (
        f"from test_mid_epoch import on_two_ranks; on_two_ranks(pathlib.Path({str(tmp_path)!r}))"
    )
    done = run_python("-c", call, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


def command(place: Path, data: Path, *more: str, stop: Stop | None = None) -> Path:
    """`train` with the network and the explanations it has by default, on small clips."""
    small = [*tiny(data), "model.hidden=4", "data.num_frames=4", "data.batch_size=4", "seed=0"]
    small += ["videos.clips=1", "trainer.max_epochs=2", "logger=csv", f"runs={place}", *more]
    with initialize_config_dir(str(PACKAGE), version_base="1.3"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", ".*not resumable.*")
        return train(compose("train", small), [stop] if stop else [])


def numbers(folder: Path) -> list[dict[str, str]]:
    """What is logged at the ends of epochs, but for how fast it went."""
    rows: list[dict[str, str]] = []
    for log in sorted(folder.rglob("metrics.csv")):
        with log.open() as file:
            rows += [
                {k: v for k, v in row.items() if v and not k.startswith("speed/")}
                for row in csv.DictReader(file)
            ]
    return [row for row in rows if "train/acc" in row or "val/acc" in row]


@pytest.mark.attack
@pytest.mark.slow
def test_a_run_that_goes_on_within_an_epoch(tmp_path: Path) -> None:
    """`resume=last` of a checkpoint within an epoch: weights, maps, attention and metrics alike."""
    straight = command(tmp_path / "straight", tmp_path / "data")
    for number, resume in ((2, []), (1, ["resume=last"]), (6, ["resume=last"])):
        stop = Stop("batch", number, tmp_path / "saved.ckpt")
        with pytest.raises(StoppedHereError):
            command(tmp_path / "stopped", tmp_path / "data", *resume, stop=stop)
        (run,) = (tmp_path / "stopped" / "default").iterdir()
        (run / "checkpoints").mkdir(exist_ok=True)
        stop.file.rename(run / "checkpoints" / "last.ckpt")
    stopped = command(tmp_path / "stopped", tmp_path / "data", "resume=last")
    assert stopped == run
    one, two = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        for folder in (straight, stopped)
    )
    assert one["callbacks"]["ExplainCallback"]["history"]
    for part in ("state_dict", "optimizer_states", "global_step", "epoch"):
        assert same(one[part], two[part]), part
    assert one["callbacks"]["ExplainCallback"]["over_epochs"]
    assert same(one["callbacks"]["ExplainCallback"], two["callbacks"]["ExplainCallback"])
    assert numbers(straight) == numbers(stopped)
    maps = sorted(file.relative_to(straight) for file in straight.rglob("*.npz"))
    assert maps
    for file in maps:
        with np.load(straight / file) as here, np.load(stopped / file) as there:
            assert all(np.array_equal(here[key], there[key]) for key in here.files)


def other(state: Any, **changes: Any) -> Any:
    return [{**state[0], **changes}]


@pytest.mark.attack
def test_what_a_checkpoint_holds_of_its_epoch(tmp_path: Path) -> None:
    """Metrics, gradients and logged values of an epoch that are none, or of another network."""
    Result([("batch", 5)], tmp_path, accumulate_grad_batches=3)
    file = tmp_path / "0.ckpt"
    saved = torch.load(file, weights_only=True)
    good = saved[KEY]
    assert good[0]["gradients"] and good[0]["metrics"] and good[0]["logged"]
    mean = good[0]["logged"]["training_step.train/mean"]
    for odd in (
        3, [3], [{}], other(good, metrics={"nothing": {"state": {}, "updates": 1}}),
        other(good, metrics={"model.0": {"state": {}, "updates": 1}}),
        other(good, metrics={"acc": {"state": {"tp": 3}, "updates": 1}}),
        other(good, gradients={"model.0.weight": torch.ones(9)}), other(good, gradients={"x": 1}),
        other(good, logged={"a": {"value": torch.ones(2)}}), other(good, logged=[3]),
        other(good, logged={"a": {**mean, "reduce": "exec"}}),
        other(good, logged={"a": {**mean, "how": {**mean["how"], "x": 1}}}),
    ):  # fmt: skip
        torch.save({**saved, KEY: odd}, file)
        task, trainer = Task(), ours(tmp_path, max_epochs=1)
        with pytest.raises(CheckpointError, match=r"0\.ckpt: this training cannot go on from it"):
            trainer.fit(task, Data(), ckpt_path=file)
        assert not task.seen
