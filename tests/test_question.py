"""What a training asks of its clips stays the same, and its maps over the epochs stay together."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from test_callbacks import Clips, Data, Recorder, task_of, trainer_of
from test_mid_epoch import same
from test_wandb import read_back
from torch import Tensor, nn
from torch.utils.data import DataLoader

import lightning_cam as lc
from lightning_cam.commands.train_settings import check_question
from lightning_cam.errors import UserError
from lightning_cam.explaining.callback import ExplainCallback
from lightning_cam.explaining.clip_explanations import told
from lightning_cam.explaining.epoch_map import EpochMap
from lightning_cam.explaining.over_epochs import is_even, thinned
from lightning_cam.explaining.question import Question
from lightning_cam.training.reproducible import ReseedBatches

CAM = {"gradcam": lc.GradCAM()}


class Net(nn.Module):
    def __init__(self, columns: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv3d(3, 4, 3, padding=1), nn.Linear(4, columns)

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.conv(clip).relu().mean((2, 3, 4)))


NET, CLIP = Net(), Clips(1)[0]["video"][None]
MODEL = lc.Explainable.of(NET, ["conv"], ["a", "b", "c"])
BEST = int(NET(CLIP).argmax())
OTHER = (BEST + 1) % 3


@pytest.mark.parametrize(
    ("target", "label", "column"),
    [
        ("true", torch.tensor([OTHER]), OTHER),
        (True, torch.tensor([OTHER]), OTHER),  # YAML reads the word so
        ("true", torch.tensor([-1]), None),
        ("true", None, None),
        ("true", torch.tensor([37.5]), None),  # a number to regress
        ("true", ["jump"], None),
        ("true", torch.tensor([[0, 1, 1]]), 1),
        ("true", torch.tensor([[0, 0, 0]]), None),
        ("predicted", torch.tensor([OTHER]), None),
        ("c", torch.tensor([OTHER]), 2),
        (0, None, 0),
    ],
)
def test_the_column_that_is_asked_about(target: Any, label: Any, column: int | None) -> None:
    batch = {} if label is None else {"label": label}
    positives = replace(MODEL, positives=torch.tensor([[k == OTHER for k in range(3)]]))
    for model in (MODEL, positives):
        asked = Question(target).about(model, batch, CLIP)
        assert asked.target == column
        found = lc.explain(asked.model, lc.GradCAM(), CLIP, asked.target)
        assert int(found.target) == (BEST if column is None else column)


def test_columns_that_are_no_classes_and_a_single_one() -> None:
    numbers = lc.Explainable.of(Net(), ["conv"], ["x", "y", "z"], probability=None)
    assert Question().about(numbers, {"label": torch.tensor([2])}, CLIP).target is None
    answer = lc.Explainable.of(Net(1), ["conv"], probability="sigmoid")
    for label in (0, 1):
        assert Question().about(answer, {"label": torch.tensor([label])}, CLIP).target is None


def test_a_class_is_set_against_another() -> None:
    asked = Question("predicted", OTHER).about(MODEL, {}, CLIP)
    assert (asked.target, asked.against) == (BEST, OTHER)
    asked = Question("true", OTHER).about(MODEL, {"label": torch.tensor([OTHER])}, CLIP)
    assert (asked.target, asked.against) == (OTHER, None)


@pytest.mark.parametrize(
    ("target", "column", "label", "said"),
    [
        ("true", OTHER, OTHER, "true class {other}, predicted {best}"),
        ("true", BEST, BEST, "true class {best}, predicted {best}"),
        ("predicted", BEST, -1, "predicted class {best} "),
        ("predicted", BEST, OTHER, ", true class {other}"),
        ("name", OTHER, BEST, "class {other}, true class {best}, predicted {best}"),
    ],
)
def test_captions_say_what_is_explained(target: str, column: int, label: int, said: str) -> None:
    e = lc.explain(MODEL, lc.GradCAM(), CLIP, column)
    names = {"best": MODEL.name(BEST), "other": MODEL.name(OTHER)}
    caption = told(MODEL, e, {"label": torch.tensor([label])})
    assert said.format(**names) in caption
    chance = round(100 * float(e.outputs.softmax(1)[0, BEST]))
    assert f" {chance}%" in caption


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"target": "aa"}, "no target 'aa'; nearest: a"),
        ({"target": 3}, "no target '3'; have: 0..2"),
        ({"contrast": "d"}, "no target 'd'"),
        ({"target": "b", "contrast": 1}, "contrast=1 is the target itself"),
    ],
)
def test_a_class_that_there_is_not_stops_a_training_before_its_first_step(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    trainer = trainer_of(tmp_path, [ExplainCallback(CAM, **settings)], num_sanity_val_steps=0)
    with pytest.raises(UserError, match=said):
        trainer.fit(task_of(), Data())
    assert trainer.global_step == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"target": None}, "target must be 'true', 'predicted'"),
        ({"target": False}, "target must be 'true', 'predicted'"),
        ({"target": 1.0}, "target must be 'true', 'predicted'"),
        ({"contrast": True}, "contrast must be a class"),
        ({"overview": 2}, "at least 3, 0 for none"),
        ({"overview": []}, "at least 3, 0 for none"),
        ({"overview": "6"}, "at least 3, 0 for none"),
        ({"overview": [0, -1]}, "overview has -1"),
        ({"overview": [0, 3], "every_n_epochs": 2}, "epoch 0, which is not explained: .* is 1"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ExplainCallback(CAM, **settings)


def test_train_py_finds_a_class_that_there_is_not_before_training() -> None:
    for videos in ({}, {"target": True}, {"target": "predicted"}, {"target": "b", "contrast": 0}):
        check_question(task_of(), videos)
    for key in ("target", "contrast"):
        with pytest.raises(UserError, match="no target 'aa'; nearest: a"):
            check_question(task_of(), {key: "aa"})


def test_epochs_are_thinned_evenly() -> None:
    for most in (3, 4, 6, 9):
        kept: list[int] = []
        for epoch in range(4, 300, 5):
            kept = thinned([*kept, epoch], most)
            assert len(kept) <= most and kept[0] == 4 and kept[-1] == epoch
            gaps = {b - a for a, b in pairwise(kept[:-1])}
            assert len(gaps) <= 1  # all but the last
            assert len(kept) > most // 2 or epoch < 5 * most
            assert is_even(kept) == (len(kept) < 3 or {kept[-1] - kept[-2]} == gaps)
    kept = []
    for epoch in range(20):
        kept = thinned([*kept, epoch], 6)
    assert kept == [0, 4, 8, 12, 16, 19]


class Told(Recorder):
    """Keeps captions as well, in a folder of its own."""

    def __init__(self, version: int = 0) -> None:
        super().__init__()
        self.version, self.captions = version, []  # type: ignore[misc,var-annotated]

    def log_video(self, key: str, videos: list[str], step: int, **more: Any) -> None:
        super().log_video(key, videos, step)
        self.captions.append((key, more["caption"][0]))


@pytest.mark.slow
def test_each_clip_s_column_is_constant_in_wandb(tmp_path: Path) -> None:
    """20 epochs, read from the offline run: captions, keys, and the overviews over epochs."""
    epochs = 20
    pl.seed_everything(3)
    logger = WandbLogger("mine", save_dir=tmp_path, offline=True, project="p")
    callback = ExplainCallback(CAM, clips=[0, 1])
    trainer = trainer_of(tmp_path, [callback], logger=logger, max_epochs=epochs)
    trainer.fit(task_of(), Data())
    log, home = Path(logger.experiment.dir).parent, tmp_path / "p" / str(logger.version)
    logger.experiment.finish()
    history = [r["history"]["item"] for r in read_back(log) if r["type"] == "history"]
    answers = set()
    for clip, name in enumerate("ab"):
        key = f"explain/video/clip_{clip}/gradcam.captions"
        captions = [row[key] for row in history if key in row]
        texts = [text for (text,) in captions]
        assert len(texts) == epochs  # one slider
        for text in texts:
            asked, _, answer = text.partition(", predicted ")
            assert asked == f"clip {clip}: true class {name}"
            answers.add((clip, answer.split()[0]))
        for method in CAM:
            files = home / "explain/epochs" / f"clip_{clip}.{method}"
            assert files.with_name(f"{files.name}.png").is_file()
            assert files.with_name(f"{files.name}.mp4").is_file()
            for kind, media in (("epochs", "filenames"), ("epochs_video", "videos")):
                key = f"explain/{kind}/clip_{clip}/{method}.{media}"
                logged = [row for row in history if key in row]
                assert 6 < len(logged) < epochs
                assert logged[-1]["trainer/global_step"] == epochs * 4
        for epoch in range(epochs):
            with np.load(home / f"explain/epoch_{epoch:03d}/clip_{clip}.npz") as arrays:
                assert int(arrays["target"]) == clip
    assert len(answers) > 2, "the network never changed its mind: this test cannot fail"
    assert [*callback.over_epochs.maps["clip 1"]["gradcam"]] == [0, 4, 8, 12, 16, 19]


class Ordered(Data):
    """Its batches are the same ones in every epoch, as a resume needs them."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Clips(12), batch_size=3)


def trained(
    folder: Path, callback: ExplainCallback, *more: Any, ckpt: Path | None = None, **options: Any
) -> pl.Trainer:
    pl.seed_everything(3)
    trainer = trainer_of(folder, [callback, ReseedBatches(3), *more], **options)
    trainer.fit(task_of(), Ordered(), ckpt_path=ckpt, weights_only=None if ckpt is None else True)
    return trainer


def epochs_of(callback: ExplainCallback) -> list[int]:
    maps = callback.over_epochs.maps.values()
    (epochs,) = {tuple(epochs) for of_clip in maps for epochs in of_clip.values()}
    return list(epochs)


@pytest.mark.slow
def test_earlier_epochs_are_there_after_a_resume_in_another_folder(tmp_path: Path) -> None:
    """The picture of a training that was stopped is that of one that was not, to the byte."""
    straight = ExplainCallback(CAM, clips=[0, 3])
    trained(tmp_path / "straight", straight, max_epochs=4)
    stopped = ExplainCallback(CAM, clips=[0, 3])
    trainer = trained(tmp_path / "stopped", stopped, max_epochs=2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)
    again = ExplainCallback(CAM, clips=[0, 3])
    trained(tmp_path / "moved", again, ckpt=tmp_path / "last.ckpt", max_epochs=4)
    assert epochs_of(again) == [0, 1, 2, 3]
    assert same(again.state_dict(), straight.state_dict())
    pictures = sorted((tmp_path / "straight/explain/epochs").iterdir())
    assert len(pictures) == 2 * 2
    for picture in pictures:
        other = tmp_path / "moved/explain/epochs" / picture.name
        assert picture.read_bytes() == other.read_bytes(), picture.name


@pytest.mark.slow
def test_the_last_epoch_is_in_the_overview_whatever_ends_a_training(tmp_path: Path) -> None:
    """Eight epochs are shown by four, of which the last one is drawn at the end only."""
    recorder = Told()
    callback = ExplainCallback(CAM, clips=[0], overview=4)
    trained(tmp_path, callback, Stop(after=7), logger=recorder, max_epochs=50)
    assert epochs_of(callback) == [0, 4, 7]
    key = "explain/epochs/clip_0/gradcam"
    logged = [step // 4 - 1 for _, name, _, step in recorder.media if name == key]
    assert logged == [0, 1, 2, 3, 4, 6, 7]


class Stop(Callback):
    """Ends a training behind an epoch's validation, as EarlyStopping does."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.current_epoch == self.after


def test_chosen_epochs_and_none(tmp_path: Path) -> None:
    chosen = ExplainCallback(CAM, clips=[0], overview=[3, 1, 5, 9])
    with pytest.warns(UserWarning, match=r"epochs \[5, 9\] of the overview .*max_epochs=5"):
        trained(tmp_path, chosen, max_epochs=5)
    assert epochs_of(chosen) == [1, 3]
    none = ExplainCallback(CAM, clips=[0], overview=0)
    trained(tmp_path / "none", none, max_epochs=1)
    assert not none.over_epochs.maps and not (tmp_path / "none/explain/epochs").exists()


@pytest.mark.slow
def test_two_runs_never_write_to_one_place(tmp_path: Path) -> None:
    """Without a logger, with one, with one whose version is always the same, and a resume."""
    for n, name in enumerate(("explain", "explain_2")):
        callback = ExplainCallback(CAM, clips=[0], overview=0)
        trainer = trained(tmp_path, callback, max_epochs=n + 1)
        assert len(list((tmp_path / name).rglob("*.mp4"))) == n + 1
        trainer.validate(task_of(), Data(), verbose=False)  # of this run
        assert (tmp_path / name / "validate/clip_0.mp4").is_file()
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    trained(tmp_path, callback, ckpt=tmp_path / "last.ckpt", max_epochs=3)
    assert len(list((tmp_path / "explain_2").glob("epoch_*"))) == 3
    for _ in range(2):
        logger = CSVLogger(tmp_path / "csv")
        trained(tmp_path, ExplainCallback(CAM, clips=[0]), logger=logger, max_epochs=1)
        assert (Path(logger.log_dir) / "explain/epoch_000/clip_0.mp4").is_file()
    for name in ("explain", "explain_2"):
        trained(tmp_path, ExplainCallback(CAM, clips=[0]), logger=Told(5), max_epochs=1)
        assert (tmp_path / "recorder/version_5" / name / "epoch_000").is_dir()
    assert sorted(p.name for p in tmp_path.glob("explain*")) == ["explain", "explain_2"]


@pytest.mark.slow
def test_a_contrast_over_the_epochs(tmp_path: Path) -> None:
    recorder = Told()
    callback = ExplainCallback(CAM, clips=[0, 1, 2], contrast="b")
    with pytest.warns(UserWarning, match="the contrast of clip clip 1 .*it is explained alone"):
        trained(tmp_path, callback, logger=recorder, max_epochs=2)
    captions = [text.partition(", predicted")[0] for _, text in recorder.captions]
    assert set(captions) == {
        "clip 0: true class a against b", "clip 1: true class b", "clip 2: true class c against b",
    }  # fmt: skip
    with np.load(next(tmp_path.rglob("epoch_001/clip_0.npz"))) as arrays:
        assert (int(arrays["target"]), int(arrays["against"])) == (0, 1)
    kept = callback.over_epochs.maps["clip 0"]["gradcam"][1]
    assert kept.against is not None and (kept.column, kept.against.column) == (0, 1)
    assert callback.over_epochs.maps["clip 1"]["gradcam"][1].against is None


@pytest.mark.parametrize("method", [lc.GradCAM(), lc.GradCAM(relu=False), lc.RISE(masks=20)])
def test_what_is_kept_of_an_epoch_is_drawn_as_it_was(method: Any) -> None:
    e = lc.explain(MODEL, method, CLIP)
    kept = EpochMap.of(e, "said")
    assert kept is not None
    read = EpochMap.read(kept.plain())
    assert read is not None
    again = read.explanation(method, e.heatmap.shape[1:])
    scale = float(e.evidence.abs().max())
    assert torch.allclose(again.evidence, e.evidence, atol=2e-3 * scale)
    assert again.doubts == e.doubts
    assert again.target.equal(e.target) and torch.allclose(again.outputs, e.outputs)


@pytest.mark.attack
def test_maps_of_earlier_epochs_that_are_none() -> None:
    """A checkpoint remembers maps of another form than the callback's."""
    kept = EpochMap.of(lc.explain(MODEL, lc.GradCAM(), CLIP), "said")
    assert kept is not None
    plain, half = kept.plain(), {"dtype": torch.float16}
    for change in (
        {"said": 3}, {"said": "x" * 2000}, {"values": [1.0]}, {"values": torch.zeros(2, 2, 2)},
        {"values": torch.zeros(2, 2, **half)}, {"values": torch.full((1, 1, 1), torch.nan, **half)},
        {"values": torch.zeros(0, 1, 1, **half)}, {"facts": [0.0]}, {"facts": ["a"] * 3},
        {"facts": [0.0, torch.inf, 0.0]}, {"column": 3}, {"column": -1}, {"column": True},
        {"outputs": [1.0] * 3}, {"outputs": torch.zeros(0)}, {"outputs": 3}, {"broken": [3]},
        {"numbers": {"a": "b"}}, {"numbers": 3},
        {"against": {}}, {"against": {**plain, "against": {**plain, "against": plain}}},
    ):  # fmt: skip
        assert EpochMap.read({**plain, **change}) is None, change
    for other in (3, None, [], {}, {key: plain[key] for key in [*plain][1:]}):
        assert EpochMap.read(other) is None
    read = EpochMap.read({**plain, "said": "a\x1b[31m"})
    assert read is not None and "\x1b" not in read.said
    callback = ExplainCallback(CAM)
    for state in (3, {"a": 3}, {"a": {"gradcam": [plain]}}, {3: {"gradcam": {0: plain}}}):
        callback.load_state_dict({"over_epochs": state, "folder": "../x"})
        assert callback.over_epochs.maps == {} and callback._before is None
    callback.load_state_dict({"over_epochs": {"a": {"gradcam": {1: plain, "2": plain, 0: 3}}}})
    assert [*callback.over_epochs.maps["a"]["gradcam"]] == [1]
