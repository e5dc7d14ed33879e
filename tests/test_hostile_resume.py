"""A training goes on from a stranger's checkpoint: the file decides nothing outside of it."""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import tiny
from hydra import compose, initialize_config_dir
from torch import Tensor

from lightning_cam import GradCAM
from lightning_cam.commands.run_train import train
from lightning_cam.commands.search import PACKAGE
from lightning_cam.errors import CheckpointError, UserError
from lightning_cam.explaining import ExplainCallback
from lightning_cam.training.agreeing import Run
from lightning_cam.training.checkpoint_io import AtomicCheckpointIO
from lightning_cam.training.loggers import _is_id
from lightning_cam.training.resuming import check_optimizer
from lightning_cam.training.run_settings import follow, keep_options, keep_schedule, options_of
from lightning_cam.training.runs import _written, same_as_before

pytestmark = [pytest.mark.attack, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


def fit(place: Path, *more: str) -> Path:
    small = [*tiny(place / "data"), "model.hidden=4", "explain=none", "data.cache=false"]
    small += ["data.crop=16", "data.resize=16", "data.num_frames=4", "seed=0"]
    small += ["+trainer.limit_train_batches=1", f"runs={place / 'runs'}", *more]
    with initialize_config_dir(str(PACKAGE), version_base="1.3"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return train(compose("train", small))


@pytest.fixture(scope="module")
def trained(place: Path) -> dict[str, Any]:
    folder = fit(place, "trainer.max_epochs=1", "name=first")
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture
def resume(place: Path, trained: dict[str, Any], tmp_path: Path):
    """Go on from the checkpoint after something in it was changed; in a folder or without one."""

    def go(
        change: Callable[[dict[str, Any]], None], run_folder: bool = False, epochs: int = 3
    ) -> Path:
        checkpoint = copy.deepcopy(trained)
        change(checkpoint)
        home = tmp_path / "run" / "checkpoints" if run_folder else tmp_path / "downloads"
        home.mkdir(parents=True, exist_ok=True)
        if run_folder:
            (home.parent / "config.yaml").touch()
        torch.save(checkpoint, home / "last.ckpt")
        return fit(place, f"resume={home / 'last.ckpt'}", f"trainer.max_epochs={epochs}", "name=on")

    return go


def victim(folder: Path) -> Path:
    (folder / "holiday").mkdir(parents=True)
    (folder / "holiday" / "photo.jpg").write_text("irreplaceable")
    (folder / "thesis.ckpt").write_text("irreplaceable")
    return folder


def whole(folder: Path) -> bool:
    return (folder / "holiday" / "photo.jpg").is_file() and (folder / "thesis.ckpt").is_file()


PATHS = {
    "a protocol before a folder": "local://{victim}",
    "a protocol before a file": "local://{victim}/thesis.ckpt",
    "an address of a file": "file://{victim}/thesis.ckpt",
    "an absolute path": "{victim}",
    "an absolute path of a checkpoint": "{victim}/thesis.ckpt",
    "a path that climbs out": "{checkpoints}/../../precious",
    "a link to a folder in the folder": "{checkpoints}/link.ckpt",
    "a path through a link": "{checkpoints}/link.ckpt/thesis.ckpt",
    "a folder in the folder": "{checkpoints}/epoch_009.ckpt",
}


@pytest.mark.parametrize("written", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("with_dirpath", [True, False], ids=["dirpath", "none"])
def test_a_checkpoint_names_what_is_to_be_deleted(
    resume, tmp_path: Path, written: str, with_dirpath: bool
) -> None:
    """A checkpoint names someone's folder or file as the best one so far, to be deleted."""
    precious = victim(tmp_path / "precious")
    home = tmp_path / "run" / "checkpoints"
    home.mkdir(parents=True)
    (home / "link.ckpt").symlink_to(precious)
    victim(home / "epoch_009.ckpt")
    path = written.format(victim=precious, checkpoints=home)

    def change(checkpoint: dict[str, Any]) -> None:
        for state in checkpoint["callbacks"].values():
            if "best_model_path" in state:
                score = torch.tensor(-1.0)
                state.update(best_k_models={path: score}, best_model_path=path, kth_value=score)
                state.update(kth_best_model_path=path, last_model_path=path, dirpath=str(home))
                if not with_dirpath:
                    del state["dirpath"]
            else:  # however a checkpoint says which is the best
                state.update(best=path, score=torch.tensor(-1.0))

    resume(change, run_folder=True, epochs=2)
    assert whole(precious)
    assert whole(home / "epoch_009.ckpt")
    assert (home / "link.ckpt").is_symlink()


@pytest.mark.parametrize("written", PATHS.values(), ids=PATHS.keys())
def test_a_run_deletes_its_own_checkpoints_alone(tmp_path: Path, written: str) -> None:
    """Whatever path is to be deleted, only files in the run's own folder are."""
    precious, home = victim(tmp_path / "precious"), tmp_path / "run" / "checkpoints"
    home.mkdir(parents=True)
    (home / "link.ckpt").symlink_to(precious)
    victim(home / "epoch_009.ckpt")
    io = AtomicCheckpointIO(home)
    with pytest.warns(UserWarning, match="not deleted"):
        io.remove_checkpoint(written.format(victim=precious, checkpoints=home))
    assert whole(precious) and whole(home / "epoch_009.ckpt") and (home / "link.ckpt").exists()
    with pytest.warns(UserWarning, match="not deleted"):
        io.remove_checkpoint(home / "notes.txt\0.ckpt")
    (home / "epoch_001.ckpt").touch()
    io.remove_checkpoint(str(home / "epoch_001.ckpt"))
    assert not (home / "epoch_001.ckpt").exists()


def put(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(checkpoint: dict[str, Any]) -> None:
        node: Any = checkpoint
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value

    return change


PROGRESS = ("loops", "fit_loop", "epoch_progress", "current")
BELIEFS = {
    "no version": put("pytorch-lightning_version", value="\x1b[2J"),
    "an old version": put("pytorch-lightning_version", value="1.4.0"),
    "loops of another kind": put("loops", value=[1]),
    "a count that is text": put(*PROGRESS, "ready", value="many"),
    "a count below zero": put(*PROGRESS, "completed", value=-5),
    "a count that hides a method": put(*PROGRESS, "increment_ready", value=7),
    "no counts": put("loops", "fit_loop", "epoch_progress", value={}),
    "a schedule that hides a method": put("lr_schedulers", 0, "step", value=1),
    "a schedule of another optimizer": put("lr_schedulers", 0, "optimizer", value="x"),
    "a schedule that is none": put("lr_schedulers", value={"a": 1}),
    "rates of another kind": put("lr_schedulers", 0, "base_lrs", value="x"),
    "optimizer states that are none": put("optimizer_states", value=3),
    "a moment of another shape": put(
        "optimizer_states", 0, "state", 0, "exp_avg", value=torch.ones(1)
    ),
    "a moment that is text": put("optimizer_states", 0, "state", 0, "exp_avg_sq", value="x"),
    "a learning rate that is text": put(
        "optimizer_states", 0, "param_groups", 0, "lr", value="fast"
    ),
    "a decay that is infinite": put(
        "optimizer_states", 0, "param_groups", 0, "weight_decay", value=float("inf")
    ),
    "a count of steps below zero": put(
        "optimizer_states", 0, "state", 0, "step", value=torch.tensor(-5.0)
    ),
    "counts of steps": put("optimizer_states", 0, "state", 0, "step", value=torch.ones(9)),
    "a count that is NaN": put("optimizer_states", 0, "state", 0, "step", value=float("nan")),
    "rates that are NaN": put("lr_schedulers", 0, "base_lrs", value=[float("nan")]),
    "weights of another shape": put("state_dict", "model.head.bias", value=torch.ones(9)),
}


@pytest.mark.parametrize("change", BELIEFS.values(), ids=BELIEFS.keys())
def test_what_lightning_would_believe(resume, change) -> None:
    """Counts, schedules, moments and weights of another form are refused in one line."""
    with pytest.raises(CheckpointError) as caught:
        resume(change)
    said = str(caught.value)
    assert "last.ckpt" in said and "\n" not in said and said.isprintable(), said


def test_a_checkpoint_brings_settings(resume, tmp_path: Path) -> None:
    """A checkpoint has another weight decay, decay of moments, direction and rates than the run."""

    def settings(checkpoint: dict[str, Any]) -> None:
        for group in checkpoint["optimizer_states"][0]["param_groups"]:
            group.update(weight_decay=0.9, betas=(0.1, 0.1), maximize=True, initial_lr=7.0, odd=1)
        checkpoint["lr_schedulers"][0].update(base_lrs=[7.0], odd=1)

    def weights(change: Callable[[dict[str, Any]], None]) -> dict[str, Tensor]:
        folder = resume(change, run_folder=True, epochs=2)
        saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        shutil.rmtree(tmp_path / "run")
        return saved["state_dict"]

    clean, hostile = weights(lambda _: None), weights(settings)
    assert all(torch.equal(clean[name], hostile[name]) for name in clean)


SCHEDULES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "CosineAnnealingLR": ({"T_max": 4}, {"T_max": 9}),
    "CosineAnnealingWarmRestarts": ({"T_0": 2}, {"T_0": 3, "T_mult": 2}),
    "ConstantLR": ({"factor": 0.5}, {"factor": 0.1, "total_iters": 9}),
    "CyclicLR": (
        {"base_lr": 0.1, "max_lr": 1.0},
        {"base_lr": 0.2, "max_lr": 2.0, "cycle_momentum": True},
    ),
    "ExponentialLR": ({"gamma": 0.5}, {"gamma": 0.9}),
    "LinearLR": ({"total_iters": 4}, {"total_iters": 9}),
    "MultiStepLR": ({"milestones": [1, 2]}, {"milestones": [9], "gamma": 0.3}),
    "OneCycleLR": ({"max_lr": 1.0, "total_steps": 9}, {"max_lr": 2.0, "total_steps": 30}),
    "PolynomialLR": ({"total_iters": 4}, {"total_iters": 9, "power": 2.0}),
    "ReduceLROnPlateau": ({"patience": 0}, {"patience": 3, "factor": 0.7, "min_lr": 0.01}),
    "StepLR": ({"step_size": 1}, {"step_size": 5, "gamma": 0.4}),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_of_other_settings(name: str) -> None:
    """A checkpoint has another `T_max`, `gamma`, `patience` ...: the run's own are kept."""

    def built(settings: dict[str, Any], steps: int = 0) -> Any:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0, momentum=0.9)
        schedule = getattr(torch.optim.lr_scheduler, name)(optimizer, **settings)
        for _ in range(steps):
            optimizer.step()
            schedule.step(*([1.0] if name == "ReduceLROnPlateau" else []))
        return schedule

    of_file, own = SCHEDULES[name]
    run, same = built(own), built(own, 3).state_dict()
    before = copy.deepcopy(same)
    assert not keep_schedule(same, run) and same == before  # what it wrote itself
    state = built(of_file, 3).state_dict()
    assert keep_schedule(state, run)
    run.load_state_dict(state)
    fresh, now = built(own).state_dict(), run.state_dict()
    settings = [key for key in fresh if {key, key.removesuffix("s")} & own.keys()]
    assert settings and all(now[key] == fresh[key] for key in settings)
    assert now["last_epoch"] == 3


def test_a_longer_training_follows_its_schedule_anew() -> None:
    """A cosine that has come to its end goes on with the rate that a longer one has there."""

    def cosine(length: int, steps: int) -> Any:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, length)
        for _ in range(steps):
            optimizer.step()
            schedule.step()
        return schedule

    ended, longer = cosine(4, 4), cosine(8, 0)
    assert ended.get_last_lr() == [pytest.approx(0)]
    state = ended.state_dict()
    assert keep_schedule(state, longer)
    longer.load_state_dict(state)
    follow(longer)
    assert longer.get_last_lr() == [pytest.approx(0.5)] == [longer.optimizer.param_groups[0]["lr"]]


def test_settings_of_an_optimizer_that_a_schedule_moves() -> None:
    """The rate is state where a schedule moves it, momentum where it is cycled; else settings."""

    def built(lr: float, cycled: bool | None) -> tuple[Any, list[Any]]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr, momentum=0.5)
        make = torch.optim.lr_scheduler.OneCycleLR
        more = [] if cycled is None else [make(optimizer, 3.0, 9, cycle_momentum=cycled)]
        return optimizer, more

    for cycled in (None, False, True):
        (optimizer, schedules), (other, _) = built(0.1, cycled), built(0.1, cycled)
        own = options_of(optimizer)
        other.param_groups[0].update(lr=0.7, momentum=0.8, nesterov=True)
        optimizer.load_state_dict(other.state_dict())
        keep_options(optimizer, own, schedules)
        kept = optimizer.param_groups[0]
        assert kept["lr"] == (own[0]["lr"] if cycled is None else 0.7)
        assert kept["momentum"] == (0.8 if cycled else own[0]["momentum"])
        assert kept["nesterov"] is False


def test_states_of_callbacks_that_are_none(resume, capsys) -> None:
    """States of callbacks under odd names, and of other kinds, are dropped unheard."""

    def change(checkpoint: dict[str, Any]) -> None:
        checkpoint["callbacks"] = {"\x1b[31mLook": {}, 3: {}, "Timer": "x", "ExplainCallback": [1]}
        checkpoint["hyper_parameters"] = {"lr": "x"}
        checkpoint["SyntheticActions"] = {"root": "/"}

    resume(change, epochs=2)
    assert "\x1b[31mLook" not in capsys.readouterr().out


def test_an_optimizer_that_has_trained_is_its_own() -> None:
    """Optimisers of torch are believed what they wrote themselves."""
    for name, options in {
        "AdamW": {"amsgrad": True}, "SGD": {"momentum": 0.9}, "RMSprop": {"centered": True},
        "Adagrad": {}, "Adadelta": {}, "Adamax": {}, "NAdam": {}, "RAdam": {}, "ASGD": {},
        "Rprop": {}, "Adafactor": {}, "LBFGS": {},
    }.items():  # fmt: skip
        weight = torch.nn.Parameter(torch.ones(3, 2))
        optimizer = getattr(torch.optim, name)([weight], lr=0.1, **options)

        def loss(weight=weight, optimizer=optimizer):
            optimizer.zero_grad()
            found = weight.square().sum()
            found.backward()
            return found.detach()  # torch 2.8 warns of what it does with others

        optimizer.step(loss)
        again = getattr(torch.optim, name)([weight], lr=0.1, **options)
        again.load_state_dict(optimizer.state_dict())
        check_optimizer(again)


# --- the run's folder ---------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["${oc.env:SECRET}", "a${oc.env:SECRET}b", "${oc.env:SECRET,x}"])
def test_a_folder_asks_for_the_environment(tmp_path: Path, monkeypatch, text: str) -> None:
    """Settings in a foreign run folder ask for a variable of the environment."""
    monkeypatch.setenv("SECRET", "hunter2")
    (tmp_path / "config.yaml").write_text(f"task: {{a: '{text}'}}\ndata: {{}}\nseed: 0\n")
    with pytest.raises(UserError) as caught:
        same_as_before(Run(tmp_path, tmp_path / "last.ckpt"), {"task": {"a": 1}, "seed": 0})
    assert "hunter2" not in str(caught.value) and "oc.env:SECRET" in str(caught.value)


def test_a_folder_whose_settings_unfold(tmp_path: Path) -> None:
    """Settings that name their own parts again and again: a few lines, 10^9 values."""
    lines = ["seed: 0", "data: {}", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(9)]
    (tmp_path / "config.yaml").write_text("\n".join([*lines, "task: {b: *a9}"]))
    assert not _written(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("seed: 0\ndata: {}\ntask: {a: 1e-3}\n")
    assert _written(tmp_path / "config.yaml")["task"] == {"a": 1e-3}


@pytest.mark.parametrize(
    "text", ["", "my-best-run", "../../etc", "0123abcd/x", "0123ABCD", "1" * 9]
)
def test_a_folder_names_a_run_of_wandb(tmp_path: Path, text: str) -> None:
    """A foreign run folder names the W&B run to write into."""
    note = tmp_path / "wandb_id.txt"
    assert not _is_id(note)
    note.write_text(text)
    assert not _is_id(note)
    note.write_text("0123abcd")
    assert _is_id(note)


def test_attention_of_earlier_epochs_that_is_none() -> None:
    """A checkpoint remembers attention of another form than the callback's."""
    callback = ExplainCallback([GradCAM()])
    good = {"v_blink": {0: [0.5, 0.5], 3: [1.0]}}
    for state in (
        {}, {"history": 3}, {"history": [good]}, {"history": {3: {}}}, {"history": {"a": [0.5]}},
    ):  # fmt: skip
        callback.load_state_dict(state)
        assert callback.attention.weights == {}
    odd = {"v_blink": {**good["v_blink"], "4": [1.0], 5: "x", 6: ["x"]}, "b": 3, 4: {}}
    callback.load_state_dict({"history": odd})
    assert callback.attention.weights == good
