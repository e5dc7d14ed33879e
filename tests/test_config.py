"""The configuration: every choice composes and fits what it configures, every key is explained."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import ROOT, run_python
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from lightning.pytorch import Trainer
from omegaconf import OmegaConf
from pages import blocks

from lightning_cam.commands.common import plain_settings
from lightning_cam.commands.entry import as_meant, command
from lightning_cam.commands.explain import _run as _run_explain
from lightning_cam.commands.help import help_text
from lightning_cam.commands.search import PACKAGE as CONFIGS
from lightning_cam.commands.train_settings import filled
from lightning_cam.errors import ConfigError, quoted
from lightning_cam.training.build import PARTIAL, TARGET, build, locate
from lightning_cam.training.checkpoint import KEY, Remember, rebuild

FILES = sorted(CONFIGS.rglob("*.yaml"))
CHOICES = [
    f"{f.parent.relative_to(CONFIGS).as_posix()}={f.stem}"
    for f in FILES
    if f.parent != CONFIGS and not f.stem.startswith("_")
]
# Of these groups many are chosen at once.
MANY = ("explain", "measure")


def composed(name: str, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = OmegaConf.to_container(compose(name, list(overrides)), resolve=True)
    assert isinstance(config, dict)
    return config  # type: ignore[return-value]


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if TARGET in tree:
            yield tree
        for value in tree.values():
            yield from nodes(value)


def misfit(choice: str | None) -> str:
    """Why the arguments of a composed configuration do not fit the classes they name, or ""."""
    if choice and choice.startswith(("study=", "demo=")):  # groups of explain.py
        config = composed("explain", "ckpt=x", choice)
    else:
        config = composed("train", *([choice] if choice else []))
    try:
        for node in nodes(config):
            arguments = {k: v for k, v in node.items() if k not in (TARGET, PARTIAL)}
            signature = inspect.signature(locate(node[TARGET]))
            (signature.bind_partial if node.get(PARTIAL) else signature.bind)(**arguments)
        inspect.signature(Trainer).bind(**config.get("trainer", {}))
    except TypeError as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_every_choice_fits_what_it_configures() -> None:
    together = [
        f"{group}=[{','.join(c.partition('=')[2] for c in CHOICES if c.startswith(f'{group}='))}]"
        for group in MANY
    ]
    alone = [choice for choice in CHOICES if not choice.startswith(MANY)]
    found = {choice: misfit(choice) for choice in (None, *alone, *together)}
    assert not {choice: why for choice, why in found.items() if why}


DATA = {
    "ucf11": "UCF11", "hmdb51": "HMDB51", "synthetic": "SyntheticActions", "kinetics": "Kinetics",
    "something": "SomethingSomething",
}  # fmt: skip
NETWORKS = {
    "frame_cnn": "FrameCNN", "lrcn": "LRCN", "lrcn_attention": "LRCN", "small": "LRCN",
    "resnet50": "InflatedResNet50", "tiny": "InflatedResNet", "r3d18": "R3D18",
    "r2plus1d18": "R2Plus1D18", "vit": "VideoViT", "mvit": "MViTV2S", "multilabel": "ResNet3D",
}  # fmt: skip


@pytest.mark.slow
def test_experiments_are_what_their_names_say() -> None:
    names = {file.stem for file in (CONFIGS / "experiment").glob("*.yaml")}
    assert {"something_resnet50", "something_tiny", "kinetics_r3d18", "hmdb51_lrcn"} <= names
    for name in names:
        if name.startswith(("multispectral", "sfm")):  # the next tests'
            continue
        config = composed("train", f"experiment={name}")
        assert config["name"] == name
        data, _, network = name.partition("_")
        synthetic = data == "synthetic" or network in ("small", "tiny")
        kinds = {"tiny": "SyntheticSomething", "multilabel": "SyntheticActionPairs"}
        kind = kinds.get(network, DATA[data])
        assert config["data"][TARGET].endswith(f".{kind}")
        assert config["model"][TARGET].endswith(f".{NETWORKS[network]}")
        if "readout" in config["model"] and network != "small":
            attentive = network == "lrcn_attention"
            assert (config["model"]["readout"] == "attention") == attentive
        assert config["task"]["step_loss"] == (1 if network == "frame_cnn" else None)
        if "weights" not in config["model"]:  # trained from scratch alone
            continue
        assert config["model"]["weights"] == (None if synthetic else "DEFAULT")
        without = composed("train", f"experiment={name}", "model.weights=null")
        assert without["model"]["weights"] is None


@pytest.mark.parametrize(
    ("name", "depth", "data"),
    [
        ("sfm_kitti", "DispNet", "KittiOdometry"),
        ("sfm_kitti_resnet18", "ResNetDepth", "KittiOdometry"),
        ("sfm_tiny", "DispNet", "SyntheticOdometry"),
    ],
)
def test_experiments_of_depth_and_motion(name: str, depth: str, data: str) -> None:
    config = composed("train", f"experiment={name}", "data.snippet=5")
    assert config["name"] == name
    assert config["data"][TARGET].endswith(f".{data}")
    model, task = config["model"], config["task"]
    assert model["depth"][TARGET].endswith(f".{depth}")
    assert (model["snippet"], model["pose"]["snippet"]) == (5, 5)  # those of the data
    assert (task["mean"], task["std"]) == (config["data"]["mean"], config["data"]["std"])
    assert not (task["loss"]["min_reprojection"] and model["pose"].get("masks"))
    assert task["depth_crop"] == (None if name == "sfm_tiny" else "garg")
    without = {"model.depth.weights=null", "model.pose.weights=null"} if depth != "DispNet" else ()
    network = build(composed("train", f"experiment={name}", *without)["task"], where="task")
    maps = {"regression_depth", "hirescam_depth", "regression_pose", "hirescam_pose"}
    assert set(config["explain"]) == maps
    for method in config["explain"].values():
        network.explainable().layer(method["layer"])


@pytest.mark.parametrize("size", ["", "tiny_"])
@pytest.mark.parametrize("network", ["r3d", "pan"])
@pytest.mark.parametrize("spectrum", ["ir", "tv", "irtv", "fused"])
def test_multispectral_experiments(size: str, network: str, spectrum: str) -> None:
    if (network, spectrum) == ("pan", "fused"):
        return  # PAN's pretrained stem of four channels is not the paper's
    small = bool(size)
    net = network if small or network == "pan" else "r3d18"
    name = f"multispectral_{size}{net}"
    if spectrum == "fused":
        config = composed("train", f"experiment={name}_fused")
    else:
        config = composed("train", f"experiment={name}", f"data.spectrum={spectrum}")
    assert config["name"] == f"{name}_{spectrum}"
    data, model = config["data"], config["model"]
    assert data[TARGET].endswith("SyntheticMultispectral" if small else ".Multispectral")
    assert data["spectrum"] == ("irtv" if spectrum == "fused" else spectrum)
    assert (data["fusion"] == "early") == (spectrum == "fused")
    kind = {"pan": ".PAN", "r3d": ".ResNet3D" if small else ".R3D18"}[network]
    assert model[TARGET].endswith(kind)
    assert model["in_channels"] is None  # the data set's
    assert model["weights"] == (None if small else "DEFAULT")
    if network == "pan":
        assert model["segments"] * model["frames"] == data["num_frames"]


@pytest.mark.parametrize("network", ["r3d_small", "pan_small"])
@pytest.mark.parametrize(
    ("spectrum", "fusion", "channels"),
    [("ir", "union", 1), ("tv", "union", 3), ("irtv", "union", 3), ("irtv", "early", 4)],
)
def test_in_channels_null_is_what_the_data_have(
    network: str, spectrum: str, fusion: str, channels: int, tmp_path: Path
) -> None:
    config = composed(
        "train",
        "data=synthetic_multispectral",
        f"model={network}",
        "data.classes=[swing_ccw,swing_cw]",  # or it would look for them
        f"data.spectrum={spectrum}",
        f"data.fusion={fusion}",
    )
    data = build(config["data"])
    config = filled(config, data.classes, data.channels)
    task = build(config["task"])
    remembered = Remember(config["task"], config["data"], data.classes).memory
    saved = {KEY: remembered, "state_dict": task.state_dict(), "epoch": 0, "global_step": 1}
    torch.save(saved, tmp_path / "last.ckpt")
    again, rebuilt, _ = rebuild(tmp_path / "last.ckpt")
    assert again.model.in_channels == rebuilt.channels == channels
    clip = torch.zeros(1, channels, data.reader.num_frames, 32, 32)
    assert again(clip).shape == (1, 2)


def test_the_papers_setting_of_something_something() -> None:
    config = composed("train", "experiment=something_resnet50")
    assert config["data"]["class_groups"] == "something_40_candidate"
    assert (config["data"]["num_frames"], config["data"]["fps"], config["data"]["crop"]) == (
        16,
        4,
        224,
    )
    assert config["task"]["optimizer"][TARGET] == "torch.optim.SGD"
    assert config["trainer"]["precision"] == "bf16-mixed"
    assert config["trainer"]["accumulate_grad_batches"] > 1
    assert config["task"]["channels_last"] and config["model"]["checkpointing"]


def test_the_documented_defaults() -> None:
    config = composed("train")
    assert config["trainer"]["max_epochs"] == 60
    assert config["trainer"]["gradient_clip_val"] == 1.0
    assert config["data"]["batch_size"] == 12
    assert (config["task"]["optimizer"]["lr"], config["task"]["optimizer"]["weight_decay"]) == (
        0.004,
        0.01,
    )
    assert config["task"]["scheduler"]["pct_start"] == 0.15
    assert config["task"]["model"] == config["model"]


def test_slurm_follows_the_job(monkeypatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    monkeypatch.setenv("SLURM_NNODES", "2")
    trainer = composed("train", "trainer=slurm")["trainer"]
    assert (trainer["devices"], trainer["num_nodes"], trainer["strategy"]) == (4, 2, "ddp")


def uncommented(file: Path) -> Iterator[str]:
    """Lines of a settings file that lack a comment, or are too long to read."""
    lines = file.read_text().splitlines()
    if not lines[0].startswith("# "):
        yield lines[0]
    skipping = False
    for line in lines:
        if not line.startswith((" ", "#")):
            skipping = line.startswith(("defaults:", "hydra:"))
        key = re.match(r"\s*([\w]+):(.*)", line)
        if skipping or key is None or key[1].startswith("_"):
            continue
        parent = file.parent.name == "experiment" and key[1] in (
            "model", "task", "trainer", "data", "optimizer", "videos",
        )  # fmt: skip
        if not (parent or " # " in line) or len(line) > 110:
            yield line


def test_every_key_has_a_comment() -> None:
    found = {str(file.relative_to(CONFIGS)): [*uncommented(file)] for file in FILES}
    assert not {name: lines for name, lines in found.items() if lines}


def test_files_that_the_documentation_shows_are_commented_as_ours(tmp_path: Path) -> None:
    """Who copies one into the package has a file that passes the test above."""
    shown = [(page, text) for page, text in blocks("yaml") if re.search("^ *_target_:", text, re.M)]
    assert len(shown) > 5
    wrong = []
    for page, text in shown:
        (file := tmp_path / "shown.yaml").write_text(text)
        wrong += [(page, line) for line in uncommented(file)]
    assert not wrong


def test_unknown_keys_fail() -> None:
    for override in ("model.hiden=3", "nmae=x", "trainer.epochs=3", "data.foo=1"):
        with pytest.raises(HydraException):
            composed("train", override)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("model={_target_: a.B}", "use task.model={_target_: a.B} or model=NAME"),
        ("data={_target_: a.B, k: 1}", "use data=NAME with a file configs/data/NAME.yaml"),
    ],
)
def test_an_object_for_a_group_is_told_where_it_goes(
    argument: str, words: str, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", argument])
    with pytest.raises(SystemExit) as leaving:
        command(pytest.fail, "train")
    assert leaving.value.code == 2
    assert words in capsys.readouterr().err
    node = composed("train", "task.model={_target_: a.B, num_classes: null}")["task"]["model"]
    assert node == {"_target_": "a.B", "num_classes": None}
    assert composed("train", "data={num_frames: 3}")["data"]["num_frames"] == 3


@pytest.mark.parametrize(
    "value", ["a/b.ckpt", "a b", "epoch=3-step=10.ckpt", "a,b", 'qu"ote', "it's", "[x]", "{x}"]
)
def test_quoted_survives_shell_and_hydra(value: str) -> None:
    (word,) = shlex.split(quoted("ckpt", value))
    (override,) = OverridesParser.create().parse_overrides([word])
    found = override.value()
    assert str(getattr(found, "text", found)) == value or str(found) == value


@pytest.mark.parametrize("name", ["train", "explain"])
def test_help_shows_every_setting_and_group(name: str, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    text = help_text(name)
    for node in (composed(name, *(["ckpt=x"] if name == "explain" else [])),):
        for key in node:
            assert re.search(rf"^ *{key}[.:\s]", text, re.MULTILINE), key
    assert f"python {name}.py" in text
    assert "_target_" not in text and "hydra" not in text
    shown = [line for line in text.splitlines() if re.match(r"\s+\w+: ", line)]
    assert all("#" in line for line in shown)
    assert max(map(len, text.splitlines())) <= 100


INHERIT = [
    f"{f.parent.name}={f.stem}"
    for f in FILES
    if f.parent.name in ("data", "model", "task", "trainer") and not f.stem.startswith("_")
    if "\ndefaults:\n" in f.read_text()
]


@pytest.mark.parametrize("choice", ["task=sfm", "model=lrcn", *INHERIT])
def test_help_shows_every_key_of_the_choice(choice: str, monkeypatch) -> None:
    """Those it takes from other files included, each once and with its comment."""
    monkeypatch.setattr(sys, "argv", ["train.py", choice, "--help"])
    group, _, stem = choice.partition("=")
    text = help_text("train", [choice])
    shown = re.split(rf"^.*# {group}={stem}$", text, flags=re.MULTILINE)[1].split("\n\n")[0]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = OmegaConf.to_container(compose("train", [choice])[group])
    assert sorted(re.findall(r"^ +(\w+): ", shown, re.MULTILINE)) == sorted(dotted(config))
    assert not re.search(r"^ +\w+: (?!.*#)", shown, re.MULTILINE), shown


def dotted(node: Any) -> Iterator[str]:
    """Every key, those of nested mappings after theirs."""
    for key, value in node.items():
        if not key.startswith("_"):
            yield key
            yield from dotted(value) if isinstance(value, dict) else ()


def test_parts_of_files_are_no_choices(monkeypatch, capsys) -> None:
    assert "_clips" not in help_text("train")
    for wrong in ("data=_clips", "data=_clip"):
        monkeypatch.setattr(sys, "argv", ["train.py", wrong])
        with pytest.raises(SystemExit):
            command(pytest.fail, "train")
        error = capsys.readouterr().err
        assert f"no data '{wrong[5:]}'" in error and ", _" not in error


A, B = "logs/epoch=1-step=2.ckpt", "b/last.ckpt"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (A, A),
        (f"[{A},{B}]", [A, B]),
        (f"[{B}, {A}]", [B, A]),
        (f"{{new: {A}, old: {B}}}", {"new": A, "old": B}),
        (f"{{old:{B},new:{A}}}", {"old": B, "new": A}),
        (f'["{A}",{B}]', [A, B]),
        (f"[~/a.ckpt, {A},x~y]", ["~/a.ckpt", A, "x~y"]),
        ("{a:~/a.ckpt}", {"a": "~/a.ckpt"}),
        ("11_000056", "11_000056"),
        ("[11_000056,3,a_1]", ["11_000056", 3, "a_1"]),
    ],
)
def test_paths_and_names_need_no_quotes(typed: str, meant: Any) -> None:
    assert composed("explain", as_meant(f"ckpt={typed}", "explain"))["ckpt"] == meant


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In files and on the command line, where no shell has seen it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    given = {"ckpt": {"a": "~/a.ckpt"}, "data": {"root": "~/b"}, "many": ["~/c", "a~/d", "~", 1]}
    found = plain_settings(OmegaConf.create(given), [*given])
    paths = [*found["ckpt"].values(), found["data"]["root"]]
    assert paths == [str(tmp_path / "a.ckpt"), str(tmp_path / "b")]
    assert found["many"] == [str(tmp_path / "c"), "a~/d", "~", 1]
    assert quoted("video", "a~b") == "'video=\"a~b\"'"  # or Hydra could not read it


def test_a_list_that_cannot_be_read_is_quoted_item_by_item(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["explain.py", "clips=[a(b,c]"])
    with pytest.raises(SystemExit):
        command(pytest.fail, "explain")
    typed = capsys.readouterr().err.rpartition("type ")[2]
    assert shlex.split(typed) == ['clips=["a(b",c]']
    assert composed("explain", *shlex.split(typed))["clips"] == ["a(b", "c"]


def test_a_list_without_brackets_is_told_of_them(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["explain.py", "ckpt=a", "explain=gradcam,rise"])
    with pytest.raises(SystemExit):
        command(_run_explain, "explain")
    error = capsys.readouterr().err
    assert "type 'explain=[gradcam,rise]' for a list" in error and "multirun" not in error


@pytest.mark.slow
def test_examples_in_the_help_compose(monkeypatch) -> None:
    for name in ("train", "explain"):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
        for typed in re.findall(rf"^  python {name}\.py (.*)$", help_text(name), re.M):
            words = [w for w in shlex.split(typed.split("  ")[0]) if w != "-m"]
            words = [as_meant(w.replace("seed=0,1,2", "seed=0"), name) for w in words]
            composed(name, *words)


def test_help_loads_neither_torch_nor_lightning() -> None:
    code = (
        "import runpy, sys; sys.argv = ['train.py', '--help']\n"
        "runpy.run_path('train.py', run_name='__main__')\n"
        "print(sorted({'torch', 'lightning', 'numpy', 'wandb'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def refused(command: str, *words: str) -> str:
    """The one line with which a command ends, as in a shell."""
    script = f"from lightning_cam.commands.{command} import main; main()"
    done = run_python("-c", script, *words, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["measure.gini.foo=1"], "which is not chosen; add measure=gini\n"),
        (["measure=deletion", "measure.gini.foo=1"], "add measure=[deletion,gini]\n"),
        (["explain=[sidu]", "explain.rise.masks=3"], "add explain=[sidu,rise]\n"),
        (["measure=gini", "measure.gini.foo=1"], "no setting 'measure.gini.foo'; nearest"),
        (["measure=null"], "none at all type measure=none"),
    ],
)
def test_settings_of_what_is_not_chosen_say_how_to_choose_it(words: list[str], said: str) -> None:
    assert said in refused("explain", "ckpt=absent.ckpt", *words)


@pytest.mark.slow
def test_what_a_study_sets_of_a_measure_that_is_not_chosen_says_nothing() -> None:
    words = ["ckpt=absent.ckpt", "measure=gini"]
    for name in ("multispectral", "multispectral_tiny"):
        assert "absent.ckpt" in refused("explain", *words, f"study={name}")
    typed = "measure.deletion.steps=4"
    said = refused("explain", *words, "study=multispectral_tiny", typed)
    assert "measure.deletion has settings, but is not chosen" in said


def test_a_method_without_its_call_is_told_what_to_define() -> None:
    node = {TARGET: "lightning_cam.Attribution"}
    with pytest.raises(
        ConfigError, match=r"explain\.mine: .* __call__\(self, model, clip, target\)$"
    ):
        build(node, where="explain.mine")
    with pytest.raises(ConfigError, match=r"does not define __call__\(self, explained\)"):
        build({TARGET: "lightning_cam.metrics.Measure"}, where="measure.mine")
