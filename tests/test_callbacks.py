"""The callback shows what it should and changes nothing."""

from __future__ import annotations

import copy
import csv
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger
from test_checkup import SoftmaxInEval
from test_cuts import Cut
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import lightning_cam as lc
from lightning_cam.errors import ConfigError
from lightning_cam.explaining.callback import ExplainCallback
from lightning_cam.metrics import (
    AverageDrop,
    DeletionArea,
    GiniIndex,
    InsertionArea,
    Measure,
    PointingHit,
    WeightRandomisation,
)
from lightning_cam.models import LRCN
from lightning_cam.tasks import VideoClassification
from lightning_cam.training.saving import BestCheckpoint
from lightning_cam.training.skipped_clips import SkippedClips

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*bf16.*",
    "ignore:Found .* in eval mode",  # a frozen trunk is meant
)


class Clips(Dataset):
    """Noise clips whose validation items draw from the global RNG, as careless data sets do."""

    def __init__(self, count: int, bad: tuple[int, ...] = ()) -> None:
        self.count, self.bad = count, bad

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        torch.rand(1)
        generator = torch.Generator().manual_seed(int(index))
        bad = index in self.bad
        return {
            "video": torch.randn(3, 4, 16, 16, generator=generator) * (not bad),
            "label": torch.tensor(-1 if bad else index % 3),
            "valid": torch.tensor([True, True, True, index % 2 == 0]),
            "clip_id": f"clip {index}",
            "path": f"{index}.mpg",
            "error": f"cannot read video '{index}.mpg': as asked" if bad else "",
        }


class Data(pl.LightningDataModule):
    def __init__(self, bad: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.bad = bad

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Clips(12), batch_size=3, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Clips(6, self.bad), batch_size=3)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(Clips(4), batch_size=2)


def task_of(frozen: bool = False) -> VideoClassification:
    torch.manual_seed(0)
    model = LRCN(3, hidden=8, readout="attention", frozen=frozen)
    return VideoClassification(
        model, ["a", "b", "c"], optimizer=partial(torch.optim.AdamW, lr=0.01)
    )


class Recorder(Logger):
    """Keeps all it is given, media included."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[tuple[dict[str, float], int | None]] = []
        self.media: list[tuple[str, str, list[Any], int]] = []

    name = "recorder"
    version = 0

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics.append((dict(metrics), step))

    def log_video(self, key: str, videos: list[str], step: int, **_: Any) -> None:
        self.media.append(("video", key, videos, step))

    def log_image(self, key: str, images: list[Any], step: int, **_: Any) -> None:
        self.media.append(("image", key, images, step))

    def log_table(self, key: str, columns: list[str], data: list[Any], step: int) -> None:
        self.media.append(("table", key, data, step))


def trainer_of(folder: Path, callbacks: list[Callback], **kwargs: Any) -> pl.Trainer:
    options: dict[str, Any] = {
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
        "accelerator": "cpu",
    }
    return pl.Trainer(callbacks=callbacks, **{**options, **kwargs})


class Fingerprint(Callback):
    """State after every stage: tensors, flags, optimiser and RNG."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def _take(self, task: pl.LightningModule, trainer: pl.Trainer) -> None:
        self.seen.append(
            {
                "state": copy.deepcopy(task.state_dict()),
                "grad": [None if p.grad is None else p.grad.clone() for p in task.parameters()],
                "requires_grad": [p.requires_grad for p in task.parameters()],
                "training": [m.training for m in task.modules()],
                "hooks": [len(m._forward_hooks) for m in task.modules()],
                "rng": torch.get_rng_state(),
                "numpy": np.random.get_state()[1].copy(),  # noqa: NPY002
                "metrics": {
                    name: value.clone()
                    for name, value in trainer.callback_metrics.items()
                    if not name.startswith("explain/")  # its own, for who monitors them
                },
            }
        )

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self._take(pl_module, trainer)

    on_validation_end = on_test_end = on_train_epoch_end = on_train_batch_end


def assert_equal(a: Any, b: Any, where: str = "") -> None:
    assert type(a) is type(b), where
    if isinstance(a, Tensor):
        assert a.equal(b) or (a.isnan().all() and b.isnan().all()), where
    elif isinstance(a, np.ndarray):
        assert np.array_equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for n, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{n}]")
    else:
        assert a == b, where


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


METHODS = {"gradcam": lc.GradCAM(), "integrated": lc.IntegratedRecurrentGradCAM()}


def run(folder: Path, callback: Callback | None, *, frozen: bool, **kwargs: Any) -> Any:
    """Fit (with sanity check), validate and test; all fingerprints."""
    pl.seed_everything(3)
    task, prints = task_of(frozen), Fingerprint()
    callbacks = [*([callback] if callback else []), prints]
    trainer = trainer_of(folder, callbacks, num_sanity_val_steps=2, **kwargs)
    trainer.fit(task, Data())
    trainer.validate(task, Data(), verbose=False)
    trainer.test(task, Data(), verbose=False)
    return prints.seen


@pytest.mark.attack
@pytest.mark.slow
@pytest.mark.parametrize(
    ("frozen", "kwargs", "measured"),
    [
        (False, {}, None),
        (False, {"accumulate_grad_batches": 2}, {"steps": 5}),
        (True, {"accumulate_grad_batches": 2}, {"steps": 4, "unit": "frame", "reference": "zoom"}),
        (False, {"precision": "bf16-mixed"}, {"protocol": "rise", "voxels": 200}),
        (False, {"precision": "bf16-true", "accumulate_grad_batches": 2}, {"steps": 5}),
    ],
    ids=["plain", "accumulate", "frozen", "bf16-mixed", "bf16-true"],
)
def test_training_is_bit_identical_with_the_callback(
    tmp_path: Path, frozen: bool, kwargs: dict[str, Any], measured: Any
) -> None:
    """Training with explanations after each epoch equals training without them, bit for bit."""
    without = run(tmp_path / "a", None, frozen=frozen, **kwargs)
    measures = None if measured is None else {**both(**measured), "gini": GiniIndex()}
    against = {"contrast": "b"} if frozen else {}
    callback = ExplainCallback(METHODS, clips=[0, 2], measures=measures, **against)
    with_it = run(tmp_path / "b", callback, frozen=frozen, **kwargs)
    assert_equal(without, with_it)
    for when in ("epoch_000", "epoch_001", "validate", "test"):
        assert len(list((tmp_path / "b/explain" / when).glob("*.mp4"))) == 2
        table = tmp_path / "b/explain" / when / "measures.csv"
        assert table.exists() == (measured is not None)
        if measured is not None:
            assert len(rows_of(table)) == 2 * 3


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (SoftmaxInEval(3), "their logarithm is explained\nnetwork checked by 5 forwards: nothing"),
        (Cut(head=torch.no_grad), "Grad-CAM at layer 'trunk' needs gradients"),
    ],
    ids=["probabilities", "cut"],
)
def test_the_network_is_checked_before_the_first_step(
    tmp_path: Path, net: torch.nn.Module, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    class FirstStep(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            assert says in capfd.readouterr().out
            raise KeyboardInterrupt  # no step is made

    layer = "trunk" if isinstance(net, Cut) else "seen"
    task = VideoClassification(net, list("abcd")[: net.head.out_features], layers=[layer])
    callbacks = [ExplainCallback(lc.GradCAM(), clips=1), FirstStep()]
    trainer = trainer_of(tmp_path, callbacks, num_sanity_val_steps=0)
    with pytest.raises(SystemExit):
        trainer.fit(task, Data())


HOOKS = [
    "on_fit_start",
    "on_sanity_check_end",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_validation_epoch_end",
    "on_train_epoch_end",
    "on_test_batch_end",
    "on_fit_end",
]


def explainer(hooks: list[str], calls: dict[str, list[Tensor]]) -> Callback:
    """Explains a clip in these hooks."""

    def explain_in(hook: str) -> Any:
        def explain(_: Callback, trainer: pl.Trainer, task: pl.LightningModule, *args: Any) -> None:
            clip = torch.randn(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(1))
            heat = lc.explain(task.explainable(), METHODS["gradcam"], clip).heatmap
            calls.setdefault(hook, []).append(heat)

        return explain

    return type("Explainer", (Callback,), {hook: explain_in(hook) for hook in hooks})()


@pytest.mark.slow
def test_explaining_from_any_hook_changes_nothing(tmp_path: Path) -> None:
    """From all in one run, each of which would have to undo what another did; else one by one."""
    options: dict[str, Any] = {"frozen": False, "accumulate_grad_batches": 2, "max_epochs": 1}
    without = run(tmp_path, None, **options)
    calls: dict[str, list[Tensor]] = {}
    try:
        assert_equal(without, run(tmp_path, explainer(HOOKS, calls), **options))
    except AssertionError:
        for hook in HOOKS:
            assert_equal(without, run(tmp_path, explainer([hook], calls), **options), hook)
        raise
    assert calls.keys() == set(HOOKS)
    assert all(heat.isfinite().all() for found in calls.values() for heat in found)


def test_what_it_writes_and_logs(tmp_path: Path) -> None:
    pl.seed_everything(3)
    recorder = Recorder()
    callback = ExplainCallback(METHODS, clips=[0, 3], every_n_epochs=2)
    trainer = trainer_of(tmp_path, [callback], logger=recorder, max_epochs=4)
    task = task_of()
    trainer.fit(task, Data())
    folder = tmp_path / "recorder/version_0/explain"  # the logger's own
    assert sorted(p.name for p in folder.iterdir()) == ["epoch_001", "epoch_003", "epochs"]
    assert sorted(p.name for p in (folder / "epoch_003").iterdir()) == sorted(
        f"clip_{n}{end}" for n in (0, 3) for end in (".mp4", ".npz", ".png", ".attention.png")
    )
    with np.load(folder / "epoch_003/clip_3.npz") as arrays:
        assert arrays["heatmap/gradcam"].shape == (4, 16, 16)
        assert arrays["heatmap/integrated"].shape == (4, 16, 16)
        assert arrays["attention"].sum() == pytest.approx(1, abs=1e-6)
        assert arrays["attention"][3] == 0  # the padded frame of odd clips
        assert int(arrays["label"]) == 0
    steps = [4 * 2, 4 * 4]  # optimiser steps after epochs 1 and 3
    drawn = "+".join(METHODS)
    for kind, key, each in (
        ("video", f"explain/video/clip_0/{drawn}", 1),
        ("video", f"explain/video/clip_3/{drawn}", 1),
        ("image", f"explain/sheet/clip_3/{drawn}", 1),
        ("image", "explain/attention_epochs/clip_3", 1),
        ("table", "explain/attention", 2 * 4),
    ):
        logged = [(len(v), s) for k, name, v, s in recorder.media if (k, name) == (kind, key)]
        assert logged == [(each, step) for step in steps], key
    files = [v for k, _, v, _ in recorder.media if k == "video"]
    assert all(Path(file).is_file() for group in files for file in group)
    assert [list(rows) for rows in callback.attention.weights.values()] == [[1, 3], [1, 3]]


def both(**settings: Any) -> dict[str, Measure]:
    """Deletion and insertion, set alike."""
    return {"deletion": DeletionArea(**settings), "insertion": InsertionArea(**settings)}


@pytest.mark.slow
def test_deletion_and_insertion_become_curves_over_training(tmp_path: Path) -> None:
    pl.seed_everything(3)
    recorder = Recorder()
    callback = ExplainCallback(METHODS, clips=[0, 3, 5], measures=both(steps=20))
    best = BestCheckpoint(tmp_path / "best", "explain/gradcam/deletion", "min")
    trainer = trainer_of(
        tmp_path, [callback, best], logger=recorder, log_every_n_steps=1, enable_checkpointing=True
    )
    task = task_of()
    trainer.fit(task, Data())
    logged = {
        step: metrics for metrics, step in recorder.metrics if "explain/gradcam/deletion" in metrics
    }
    assert sorted(logged) == [4, 8]  # the trainer's steps, as those of the images
    lowest = min(metrics["explain/gradcam/deletion"] for metrics in logged.values())
    assert float(best.best_model_score) == pytest.approx(lowest)  # monitored like any other
    for epoch, step in enumerate(sorted(logged)):
        folder = tmp_path / f"recorder/version_0/explain/epoch_{epoch:03d}"
        rows = rows_of(folder / "measures.csv")
        beside = ["deletion_tied", "insertion_tied"]
        assert list(rows[0]) == ["epoch", "clip", "method", "deletion", "insertion", *beside]
        assert [row["clip"] for row in rows[::3]] == ["clip 0", "clip 3", "clip 5"]
        assert [row["method"] for row in rows[:3]] == ["gradcam", "integrated", "random"]
        assert {row["epoch"] for row in rows} == {str(epoch)}
        assert logged[step].keys() == {
            f"explain/{method}/{kind}"
            for method in ("gradcam", "integrated", "random")
            for kind in ("deletion", "insertion")
        }
        for key, value in logged[step].items():
            _, method, kind = key.split("/")
            mean = np.mean([float(row[kind]) for row in rows if row["method"] == method])
            assert value == pytest.approx(mean, abs=1e-4)
        assert (folder / "curves.png").is_file()
    images = [(v, s) for _, key, v, s in recorder.media if key == "explain/curves"]
    assert [step for _, step in images] == [4, 8]
    # the last epoch's numbers are those of the weights at the end, by 20 steps of the default
    sample = Clips(6)[3]
    batch = {"video": sample["video"][None], "valid": sample["valid"][None]}
    model = task.explainable(batch)
    heat = lc.explain(model, METHODS["gradcam"], batch["video"], int(sample["label"])).heatmap
    (row,) = (r for r in rows if (r["clip"], r["method"]) == ("clip 3", "gradcam"))
    for kind, curve in (("deletion", lc.deletion), ("insertion", lc.insertion)):
        area = float(curve(model, batch["video"], heat, sample["label"][None], steps=20).auc)
        assert float(row[kind]) == pytest.approx(area, abs=1e-4)


@pytest.mark.slow
def test_any_measures_are_curves_and_the_loss_is_the_same_to_the_bit(tmp_path: Path) -> None:
    """One that runs the network, one that looks at another clip, and one without ground truth."""
    measures: dict[str, Measure] = {
        "drop": AverageDrop(), "again": WeightRandomisation(), "gini": GiniIndex(),
        "on_actor": PointingHit(),
    }  # fmt: skip
    prints: list[list[dict[str, Any]]] = []
    for callback in (None, ExplainCallback(METHODS, clips=[0, 2], measures=measures)):
        pl.seed_everything(3)
        logger = CSVLogger(tmp_path / str(len(prints)), flush_logs_every_n_steps=1)
        prints.append([])
        kept = Fingerprint()
        callbacks = [*([callback] if callback else []), kept]
        trainer = trainer_of(tmp_path, callbacks, logger=logger, log_every_n_steps=1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.fit(task_of(), Data())
        prints[-1] = kept.seen
        rows = rows_of(Path(logger.log_dir) / "metrics.csv")
        losses = [row["train/loss"] for row in rows if row["train/loss"]]
        assert len(losses) == 8
        if callback is None:
            without = losses
    assert_equal(*prints)
    assert losses == without
    for method in (*METHODS, "random"):
        for name in ("drop", "again", "gini"):
            curve = [row[f"explain/{method}/{name}"] for row in rows]
            assert len(list(filter(None, curve))) == 2, (method, name)
    assert not any("on_actor" in column for column in rows[0])
    said = [str(w.message) for w in caught if "not explained" in str(w.message)]
    assert said == [
        "not explained: on_actor (ConfigError: none of these clips has ground truth; leave it out)"
    ]


@pytest.mark.slow
def test_measurements_that_fail_are_named_once_and_the_rest_goes_on(tmp_path: Path) -> None:
    recorder = Recorder()
    methods = {"nan": Nowhere(), "gradcam": lc.GradCAM()}
    callback = ExplainCallback(methods, clips=[0, 2], measures=both(steps=4))
    trainer = trainer_of(tmp_path, [callback], logger=recorder, log_every_n_steps=1)
    with pytest.warns(UserWarning) as caught:
        trainer.fit(task_of(), Data())
    said = [str(w.message) for w in caught if "not explained" in str(w.message)]
    assert said == [
        f"not explained: {name} of method 'nan', first on clip 0 "
        "(ArgumentError: the heatmap is not finite, so nothing can be ranked by it)"
        for name in ("deletion", "insertion")
    ]
    folder = tmp_path / "recorder/version_0/explain/epoch_001"
    assert len(list(folder.glob("*.mp4"))) == 2
    rows = rows_of(folder / "measures.csv")
    assert [row["method"] for row in rows] == ["nan", "gradcam", "random"] * 2
    assert {row["deletion"] for row in rows if row["method"] == "nan"} == {""}
    assert not any("explain/nan/insertion" in metrics for metrics, _ in recorder.metrics)
    assert any("explain/random/insertion" in metrics for metrics, _ in recorder.metrics)

    callback = ExplainCallback(METHODS, clips=[0], measures=both(unit="frame"))  # 100 steps
    trainer = trainer_of(tmp_path / "b", [callback])
    with pytest.warns(UserWarning, match="more than the clip's 4 units") as caught:
        trainer.fit(task_of(), Data())
    (table,) = (tmp_path / "b").rglob("epoch_001/measures.csv")
    assert {row["insertion"] for row in rows_of(table)} == {""}
    assert not list((tmp_path / "b").rglob("curves.png"))
    assert len(list((tmp_path / "b").rglob("epoch_*/*.mp4"))) == 2


class Nowhere:
    title = "Nowhere"

    def __call__(self, model: lc.Explainable, clip: Tensor, _: Any) -> Tensor:
        return torch.full((len(clip), *clip.shape[2:]), torch.nan)


def test_history_survives_a_resume(tmp_path: Path) -> None:
    pl.seed_everything(3)
    first = ExplainCallback(METHODS, clips=1)
    trainer = trainer_of(tmp_path, [first], max_epochs=1)
    trainer.fit(task_of(), Data())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)
    second = ExplainCallback(METHODS, clips=1)
    trainer = trainer_of(tmp_path, [second], max_epochs=2)
    trainer.fit(task_of(), Data(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert list(second.attention.weights["clip 0"]) == [0, 1]


class Broken:
    title = "Broken"

    def __call__(self, *_: Any) -> Tensor:
        raise RuntimeError("no such\n  luck")


def test_a_failing_method_or_clip_is_named_once_and_the_rest_goes_on(tmp_path: Path) -> None:
    callback = ExplainCallback({"broken": Broken(), "gradcam": lc.GradCAM()}, clips=[0, 1, 5])
    tally = SkippedClips()
    trainer = trainer_of(tmp_path, [callback, tally], max_epochs=3)
    with pytest.warns(UserWarning) as caught:
        trainer.fit(task_of(), Data(bad=(1,)))
    said = [str(w.message) for w in caught if "not explained" in str(w.message)]
    assert sorted(said) == [
        "not explained: clip 1 of the val set (RuntimeError: cannot read video '1.mpg': as asked)",
        "not explained: method 'broken', first on clip 0 (RuntimeError: no such luck)",
    ]
    written = sorted(p.name for p in (tmp_path / "explain/epoch_002").glob("*.mp4"))
    assert written == ["clip_0.mp4", "clip_5.mp4"]
    skipped = [str(w.message) for w in caught if "skipped" in str(w.message)]
    assert skipped == ["skipped: cannot read video '1.mpg': as asked"]
    assert list(tally.counts.values()) == [3]


def test_any_module_and_tuple_batches(tmp_path: Path) -> None:
    """No data module, no dictionary batches, no task of ours."""

    class Plain(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv3d(1, 4, 3, padding=1)
            self.fc = torch.nn.Linear(4, 2)

        def forward(self, clip: Tensor) -> Tensor:
            return self.fc(self.conv(clip).relu().mean((2, 3, 4)))

        def training_step(self, batch: Any, _: int) -> Tensor:
            return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch: Any, _: int) -> None: ...

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

        def explainable(self, batch: Any) -> lc.Explainable:
            return lc.Explainable.of(self, ["conv"])

    clips = [(torch.randn(1, 3, 10, 10), torch.tensor(n % 2)) for n in range(4)]
    trainer = trainer_of(tmp_path, [ExplainCallback({"cam": lc.GradCAM()}, clips=2)], max_epochs=1)
    trainer.fit(Plain(), DataLoader(clips, batch_size=2), DataLoader(clips, batch_size=2))
    names = sorted(p.name for p in (tmp_path / "explain/epoch_000").glob("*.mp4"))
    assert names == ["clip_0.mp4", "clip_3.mp4"]


def test_a_module_that_cannot_be_explained_is_told_how(tmp_path: Path) -> None:
    class Mute(pl.LightningModule):
        def training_step(self, batch: Any, _: int) -> None: ...

        def configure_optimizers(self) -> None: ...

    trainer = trainer_of(tmp_path, [ExplainCallback(METHODS)], max_epochs=1)
    with pytest.raises(ConfigError, match=r"Mute cannot be explained.*explainable\(batch\)"):
        trainer.fit(Mute(), DataLoader([torch.zeros(1)]))


def test_wrong_settings_are_named() -> None:
    bad: list[tuple[Callable[[], Any], str]] = [
        (lambda: ExplainCallback({}), "methods is empty"),
        (lambda: ExplainCallback(METHODS, every_n_epochs=0), "every_n_epochs must be at least 1"),
        (lambda: ExplainCallback(METHODS, clips=-1), "clips must be a number of clips or a list"),
        (lambda: ExplainCallback(METHODS, clips=0), "clips must be at least 1"),
        (lambda: ExplainCallback(METHODS, clips=[1.5]), "clips must be a number"),  # type: ignore[list-item]
        (lambda: ExplainCallback(METHODS, fps=0), "fps must be above 0"),
        (
            lambda: ExplainCallback(METHODS, measures={"a": lc.GradCAM()}),
            r"measures\['a'\] is a GradCAM",
        ),  # type: ignore[dict-item]
        (lambda: ExplainCallback(METHODS, measures={"clip": GiniIndex()}), "such a column"),
    ]
    for make, message in bad:
        with pytest.raises((ValueError, ConfigError), match=message):
            make()


def test_methods_may_come_without_names() -> None:
    listed = ExplainCallback([lc.GradCAM(), lc.RandomMap(), lc.GradCAM(pool="space")])
    assert list(listed.methods) == ["gradcam", "randommap", "gradcam_3"]
    assert list(ExplainCallback(lc.GradCAM()).methods) == ["gradcam"]


def test_several_loaders_equal_names_and_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Same(Clips):
        def __getitem__(self, index: int) -> dict[str, Any]:
            return {**super().__getitem__(index), "clip_id": "twin"}

    class Two(Data):
        def val_dataloader(self) -> Any:
            return {"a": DataLoader(Same(6), batch_size=3), "b": DataLoader(Clips(3))}

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("lightning_cam.explaining.attention_history.save_png", full)
    task = task_of()
    task.validation_step = lambda batch, index, dataloader_idx=0: None  # type: ignore[assignment,misc,method-assign]
    task.on_validation_epoch_end = lambda: None  # type: ignore[method-assign]
    trainer = trainer_of(tmp_path, [ExplainCallback(METHODS, clips=2)], max_epochs=1)
    with pytest.warns(UserWarning, match="not explained: the attention weights .*no space left"):
        trainer.fit(task, Two())
    names = sorted(p.name for p in (tmp_path / "explain/epoch_000").glob("*.mp4"))
    assert names == ["twin.mp4", "twin_5.mp4"]


@pytest.mark.parametrize(
    ("measures", "match"),
    [
        ({"m": len}, r"measures\['m'\] is a builtin_function_or_method.*such as \{"),
        ([len], r"measures is a list, not a mapping; .*such as \{"),
    ],
)
def test_what_is_not_a_measure_gets_advice_in_python(measures: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        ExplainCallback(METHODS, measures=measures)
