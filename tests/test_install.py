"""The commands as a clone and an installed package have them, and where settings come from."""

from __future__ import annotations

import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT, run, run_python, tiny
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lightning_cam.commands import check, explain, search, train
from lightning_cam.commands.help import help_text
from lightning_cam.errors import COMMANDS, command_line

MODULE = """
from torch import nn


class Net(nn.Module):
    explain_layers = ("conv",)

    def __init__(self, num_outputs, width=4):
        super().__init__()
        self.conv = nn.Conv3d(3, width, 3, padding=1)
        self.head = nn.Linear(width, num_outputs)

    def forward(self, clip):
        return self.head(self.conv(clip).relu().mean((2, 3, 4)))
"""
MODEL = """# A network of the working folder.
_target_: my_module.Net
num_outputs: null  # the data set's
width: 4           # channels
"""
EXPERIMENT = """# @package _global_
# Mine.
defaults:
  - override /model: mine
  - override /explain: [gradcam]

name: mine
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a network, a model and an experiment of the user."""
    folder = tmp_path / "own"
    for name, text in {
        "my_module.py": MODULE,
        "configs/model/mine.yaml": MODEL,
        "configs/experiment/mine.yaml": EXPERIMENT,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["lightning-cam-train"])
    return folder


def plain(name: str, *overrides: str) -> Any:
    return OmegaConf.to_container(search.composed(name, overrides), resolve=True)


def fails(main: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error of the user."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


# --- the commands ---------------------------------------------------------------------------------


def test_every_command_is_installed() -> None:
    text = (ROOT / "pyproject.toml").read_text().split("[project.scripts]")[1].split("\n[")[0]
    scripts = dict(re.findall(r'^([\w-]+) = "([\w.:]+)"$', text, re.MULTILINE))
    assert set(scripts) == {f"lightning-cam-{name}" for name in COMMANDS}
    for name in COMMANDS:
        module, _, function = scripts[f"lightning-cam-{name}"].partition(":")
        assert module == f"lightning_cam.commands.{name}"
        assert callable(getattr(importlib.import_module(module), function))
        assert (search.PACKAGE / f"{name}.yaml").is_file()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_module_runs_every_command(name: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["lightning_cam", name, "--help"])
    monkeypatch.delitem(sys.modules, f"lightning_cam.commands.{name}")
    runpy.run_module("lightning_cam", run_name="__main__")
    assert f"python -m lightning_cam {name}" in capsys.readouterr().out


def test_the_module_without_a_command(monkeypatch, capsys) -> None:
    def main() -> None:
        runpy.run_module("lightning_cam", run_name="__main__")

    for arguments, words in {
        (): "python -m lightning_cam train|explain|check",
        ("ckpt=x",): "the command is missing",
        ("trian",): "no command 'trian'; nearest: train",
    }.items():
        monkeypatch.setattr(sys, "argv", ["lightning_cam", *arguments])
        assert words in fails(main, capsys)
    monkeypatch.setattr(sys, "argv", ["lightning_cam", "--help"])
    main()
    out = capsys.readouterr().out
    assert all(f"{name} " in out and does in out for name, does in COMMANDS.items())


def test_the_next_command_is_typed_like_this_one(tmp_path: Path, monkeypatch) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name in ("python", "lightning-cam-train", "lightning-cam-explain"):
        (bin_folder / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(bin_folder / "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(bin_folder))
    for started, typed in {
        "train.py": "python explain.py a=1",
        "../clone/explain.py": "python ../clone/explain.py a=1",
        str(bin_folder / "lightning-cam-train"): "lightning-cam-explain a=1",
        str(ROOT / "lightning_cam/commands/train.py"): "python -m lightning_cam explain a=1",
        "my_program.py": "python -m lightning_cam explain a=1",
    }.items():
        monkeypatch.setattr(sys, "argv", [started])
        assert command_line("explain", "a=1") == typed
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert command_line("check") == "python -m lightning_cam check"  # no check.py in a clone
    monkeypatch.setenv("PATH", "/nowhere")  # an environment that is not activated
    assert command_line("explain") == "bin/python explain.py"
    monkeypatch.setattr(sys, "argv", ["bin/lightning-cam-train"])
    assert command_line("check") == "bin/lightning-cam-check"


# --- where settings come from -------------------------------------------------------------------


def test_the_users_folder_comes_first(own: Path) -> None:
    config = plain("train", "experiment=mine")
    assert config["name"] == "mine"
    assert config["model"]["_target_"] == "my_module.Net"
    assert list(config["explain"]) == ["gradcam"]
    (own / "configs/model/lrcn.yaml").write_text(MODEL.replace("4 ", "5 "))
    assert plain("train", "model=lrcn")["model"]["width"] == 5
    assert plain("train", "model=frame_cnn")["model"]["_target_"].endswith(".FrameCNN")


def test_a_clone_used_from_elsewhere_brings_its_folder(own: Path, tmp_path, monkeypatch) -> None:
    clone = tmp_path / "clone"
    (clone / "configs/model").mkdir(parents=True)
    (clone / "configs/model/theirs.yaml").write_text(MODEL)
    (clone / "configs/model/mine.yaml").write_text(MODEL.replace("4 ", "6 "))
    assert "theirs" not in search.choices("model")
    monkeypatch.setattr(sys, "argv", [str(clone / "train.py")])
    assert plain("train", "model=theirs")["model"]["width"] == 4
    assert plain("train", "model=mine")["model"]["width"] == 4  # the working folder's
    (own / "configs/model/mine.yaml").unlink()
    assert plain("train", "model=mine")["model"]["width"] == 6


def test_settings_of_another_project_change_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lightning-cam-train"])
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    names = {"train": [], "explain": ["ckpt=x"], "check": ["data=synthetic"]}
    before = {name: (plain(name, *more), help_text(name)) for name, more in names.items()}
    monkeypatch.chdir(tmp_path)
    for name in ("train", "explain", "check", "data", "model", "config"):
        (tmp_path / "configs" / name).with_suffix(".yaml").parent.mkdir(exist_ok=True)
        (tmp_path / "configs" / f"{name}.yaml").write_text("their: {own: [thing}\n")
    for name in ("hydra/job_logging", "notes", ".git"):
        (tmp_path / "configs" / name).mkdir(parents=True)
        (tmp_path / "configs" / name / "none.yaml").write_text("version: theirs\n")
    after = {name: (plain(name, *more), help_text(name)) for name, more in names.items()}
    assert after == before


def test_other_programs_of_hydra_are_left_alone(own: Path, tmp_path: Path) -> None:
    (tmp_path / "other/model").mkdir(parents=True)
    (tmp_path / "other/model/mine.yaml").write_text("a: 1\n")
    with initialize_config_dir(str(tmp_path / "other"), version_base="1.3"):
        assert compose(overrides=["+model=mine"]).model.a == 1


@pytest.mark.parametrize(
    "text",
    ["a: {b: [1", "- a", "\tx: 1", "defaults: 3", "defaults: [3]", "defaults: [{a: b, c: d}]"],
)
def test_a_broken_file_of_the_user_is_named(text: str, own: Path, monkeypatch, capsys) -> None:
    (own / "configs/model/mine.yaml").write_text(text)
    for arguments in (["model=mine"], ["experiment=mine"], ["model=mine", "--help"]):
        monkeypatch.setattr(sys, "argv", ["lightning-cam-train", *arguments])
        assert "model/mine" in fails(train.main, capsys), arguments
    (own / "configs/model/mine.yaml").write_bytes(b"a: \xff\xfe\n")
    monkeypatch.setattr(sys, "argv", ["lightning-cam-train", "model=mine"])
    assert "model/mine" in fails(train.main, capsys)


def test_errors_and_help_know_the_users_choices(own: Path, monkeypatch, capsys) -> None:
    for main, wrong, near in (
        (train.main, "model=mien", "mine"),
        (train.main, "model=lrcm", "lrcn"),
        (train.main, "experiment=mien", "mine"),
        (check.main, "data=ucf1", "ucf11"),
        (explain.main, "study=multispectra", "multispectral"),
    ):
        monkeypatch.setattr(sys, "argv", ["lightning-cam", wrong])
        line = fails(main, capsys)
        assert near in line and "nearest" in line
    text = help_text("train")
    assert re.search(r"^ +yours, in configs/model:  mine$", text, re.MULTILINE)
    assert re.search(r"^ +yours, in configs/experiment:  mine$", text, re.MULTILINE)
    assert "width: 4           # channels" in help_text("train", ["model=mine"])
    assert "width: 4           # channels" in help_text("train", ["experiment=mine"])


def test_the_clones_own_files_are_choices(monkeypatch) -> None:
    """`configs/` of the clone holds examples, each of which composes there."""
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    assert ROOT / "configs/experiment/example.yaml" in files
    monkeypatch.chdir(ROOT)
    for file in files:
        group = str(file.parent.relative_to(ROOT / "configs"))
        assert search.choices(group)[file.stem] == file
        config = plain("train", f"{group}={file.stem}")
        assert group != "experiment" or config["name"] == file.stem
        keys = re.findall(r"^ *\w+: [^#]*$", file.read_text().split("\nname:")[1], re.MULTILINE)
        assert not keys, f"without a comment: {keys}"


def test_what_is_built_holds_the_settings() -> None:
    """Hatch takes what git does not ignore; `make wheel` compares the whole list."""
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *map(str, search.PACKAGE.rglob("*.yaml"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ignored.returncode == 1, ignored.stdout + ignored.stderr


# --- the whole way --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_example_trains(tmp_path: Path) -> None:
    """From another folder: the example lies beside the script."""
    settings = ["experiment=example", "trainer.max_epochs=1", "trainer=cpu", "logger=none"]
    done = run("train", *settings, "data.size=64", "videos.clips=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data/example").is_dir()
    assert "explain.py ckpt=runs/example/" in done.stdout


@pytest.mark.slow
def test_a_users_experiment_trains_and_is_explained(own: Path, tmp_path: Path) -> None:
    """As a module, from a folder that is not the clone's."""

    def call(*words: str) -> str:
        done = run_python("-m", "lightning_cam", *words, cwd=own)
        assert done.returncode == 0, done.stderr
        return done.stdout

    small = [word for word in tiny(tmp_path / "data") if not word.startswith("model.")]
    out = call("train", "experiment=mine", *small, "trainer.max_epochs=1", "name=own")
    following = out.splitlines()[-1].split(" -m lightning_cam ")[1].split()
    assert following[0] == "explain" and following[-1].startswith("trust=[my_module.")
    assert "open " in call(*following, "clips=1")
    drawn = [word for word in small if re.match(r"data\.(root|groups|clips|size|actions)=", word)]
    assert "all is well" in call("check", "data=synthetic", *drawn, "decode=false")
