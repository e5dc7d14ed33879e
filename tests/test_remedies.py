"""What messages tell the user to type exists, and gets past the error when it is typed."""

from __future__ import annotations

import functools
import pkgutil
import re
import shlex
import shutil
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import layouts
import pytest
import torch
from commands import ROOT, tiny, typed
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from remedies import COMMAND, DOTTED, HOLE, PIP, Word, messages, words

import lightning_cam as lc
from lightning_cam.commands.search import choices, composed, groups
from lightning_cam.errors import COMMANDS
from lightning_cam.tasks import VideoClassification

_TOGETHER = ("explain", "measure")  # groups of which several can be chosen at once


def _dotted(node: object, prefix: str = "") -> set[str]:
    if not isinstance(node, dict):
        return set()
    return {f"{prefix}{key}" for key in node}.union(
        *(_dotted(value, f"{prefix}{key}.") for key, value in node.items())
    )


@functools.cache
def settings() -> frozenset[str]:
    """Dotted keys of every command with every choice of every group, and the groups."""
    found, seen = set(groups()), {"experiment"}  # experiments choose from the other groups
    for command in COMMANDS:
        need = ["data=synthetic"] if command == "check" else []
        plain = composed(command, need, internals=True)
        for group in sorted({*plain.hydra.runtime.choices} & {*groups()} - seen):
            names = [name for name in choices(group) if name not in ("none", "as_trained")]
            if group in _TOGETHER:
                names = [f"[{','.join(names)}]"]
            for name in names:
                found |= _dotted(OmegaConf.to_container(composed(command, [f"{group}={name}"])))
            seen.add(group)
        found |= _dotted(OmegaConf.to_container(composed(command, need)))
    return frozenset(found)


def _placeholder(text: str) -> bool:
    return HOLE in text or re.fullmatch(r"[A-Z_]*", text) is not None


def _exists(key: str) -> bool:
    """Whether a setting matches, with anything in place of what the program or the user fills."""
    parts = re.split(r"\{\}|\b[A-Z][A-Z_]*\b", key)
    if not any(parts):
        return True
    pattern = re.compile(".+".join(map(re.escape, parts)))
    return any(pattern.fullmatch(known) for known in settings())


def faults(word: Word) -> list[str]:
    """What is wrong with a setting that a message names."""
    if word.value == HOLE and not word.asked:
        return []  # how it is now; the class that objects may know only its own name for it
    typed = f"{word.key}={word.value}"
    if not _exists(word.key):
        return [f"{typed}: no command has this setting"]
    if not word.value:
        return [] if word.left_out else [f"{typed}: nothing to type after ="]
    if word.value == "...":
        return [f"{typed}: say what to type, for example FOLDER"]
    if word.key in groups():
        names = re.split(r"[,\s]+", word.value.strip("[]"))
        known = [*choices(word.key), ""]
        return [f"{typed}: no {n}" for n in names if n not in known and not _placeholder(n)]
    try:
        OverridesParser.create().parse_override(typed.replace(HOLE, "x"))
    except HydraException:
        return [f"{typed}: Hydra cannot read it"]
    return []


def _names(text: str) -> list[str]:
    """Names of the package that cannot be imported."""
    missing = []
    for name in DOTTED.findall(text):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            missing.append(f"{name}: cannot be imported")
    return missing


def _commands(text: str) -> list[str]:
    """Commands that there are not, and packages that this project does not know."""
    named = [next(filter(None, groups)) for groups in COMMAND.findall(text)]
    known = (ROOT / "pyproject.toml").read_text()
    return [
        *(f"{name}: no such command" for name in named if name not in COMMANDS),
        *(f"pip install {p}: not in pyproject.toml" for p in PIP.findall(text) if p not in known),
    ]


@pytest.mark.attack
def test_messages_suggest_what_exists() -> None:
    """Every setting, name and command in all messages of the program exists."""
    wrong = []
    count = 0
    for where, text in messages():
        found = words(text)
        count += len(found)
        said = [*(f for word in found for f in faults(word)), *_names(text), *_commands(text)]
        wrong += [f"{where}: {fault}" for fault in said]
    assert count > 100, "the messages are not found"
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "no data; set data.rot=FOLDER",
        "data.split={} is none: choose data=ucf12",
        "no methods: for example explain=[gradcam,grad_cam]",
        "weights={} is no file; set weights=null",
        "no data; set data.root= to the folder",
        "no data; set data.root=...",
        "write data.mean=[0.5",
        "use lightning_cam.GradCamera",
        "type lightning-cam-trains",
        "type python -m lightning_cam explore",
        "first pip install lightning-camera",
    ],
)
def test_wrong_suggestions_are_seen(text: str) -> None:
    found = [f for word in words(text) for f in faults(word)]
    assert len([*found, *_names(text), *_commands(text)]) == 1, text


# --- as typed -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a checkpoint `net.ckpt`, trained in seconds."""
    place = tmp_path_factory.mktemp("remedies")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out:
        patch.chdir(place)
        typed(patch, "train", [*tiny(place / "data"), *SHORT, "explain=none", "name=net"])
    (place / "said.txt").write_text(out.getvalue())
    (found,) = place.glob("runs/net/*/checkpoints/last.ckpt")
    shutil.copy(found, place / "net.ckpt")
    layouts.ucf11(place / "ucf11")
    return place


SHORT = ["trainer.max_epochs=1", "videos.clips=1"]
TRAIN = "train data.root=data {tiny} explain=none"
EXPLAIN = "explain clips=1 measure=none"

# A command that fails, and what stands for the placeholders of its remedies.
SITUATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "explain=as_trained": (f"{TRAIN} explain=as_trained", {}),
    "measure without maps": (f"{TRAIN} measure=[gini]", {}),
    "step loss": (
        f"{TRAIN} model=r3d_small task.step_loss=0.5",
        {},
    ),
    "channels last": (f"{TRAIN} task.channels_last=true", {}),
    "stem": (f"{TRAIN} model=r3d_small model.stem=zero_ir", {}),
    "frames": (f"{TRAIN} model=pan_small model.segments=2 model.frames=2", {}),
    "switch": (f"{TRAIN} --seed=3", {}),
    "no data": (
        "check data=folder data.root=absent decode=false out=null",
        {"FOLDER": "ucf11/UCF11_updated_mpg"},
    ),
    "checkpoint as a word": (f"{EXPLAIN} explain=[gradcam] net.ckpt", {}),
    "checkpoint missing": (f"{EXPLAIN} explain=[gradcam]", {"VALUE": "net.ckpt"}),
    "device": (f"{EXPLAIN} explain=[gradcam] ckpt=net.ckpt device=cuda:77", {}),
    "layers": (
        f"{EXPLAIN} explain=[gradcam] ckpt=net.ckpt layers=all",
        {"NAME": "trunk.conv3"},
    ),
    "no methods": (f"{EXPLAIN} ckpt=net.ckpt explain=none", {}),
    "measure not chosen": (
        f"{EXPLAIN} explain=[gradcam] ckpt=net.ckpt +measure.deletion.steps=4",
        {},
    ),
}


def filled(text: str, fills: dict[str, str]) -> str:
    return re.sub(r"\b[A-Z][A-Z_]+\b", lambda found: fills.get(found[0], found[0]), text)


@pytest.mark.attack
@pytest.mark.slow
@pytest.mark.parametrize("situation", SITUATIONS)
def test_remedies_get_past_the_error(situation, place, monkeypatch, capfd) -> None:
    """What messages suggest is typed, and gets past the error."""
    line, fills = SITUATIONS[situation]
    known = " ".join(s for s in (*tiny(Path("data"))[1:], *SHORT) if not s.startswith("model."))
    command, *settings = line.replace("{tiny}", known).split()
    monkeypatch.chdir(place)
    assert typed(monkeypatch, command, settings) == 2
    message = capfd.readouterr().err
    remedies = [
        (word.key, filled(f"{word.key}={word.value}", fills))
        for word in words(message)
        if word.asked and word.value and f"{word.key}={word.value}" not in settings
    ]
    assert remedies, message
    for key, remedy in remedies:
        stays = [
            s for s in settings if s.split("=")[0] != key and "=" in s and not s.startswith("--")
        ]
        if key == "layer":  # instead of the list
            stays = [s for s in stays if not s.startswith("layers=")]
        code = typed(monkeypatch, command, [*stays, remedy])
        said = capfd.readouterr().err
        assert code == 0, f"{remedy}, after: {message}: {said}"


@pytest.mark.slow
def test_what_training_proposes_next_works(place: Path, monkeypatch) -> None:
    """A network that was trained without explanations remembers no methods."""
    lines = (place / "said.txt").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("next "))
    settings = shlex.split(line.partition(" explain ")[2])
    assert settings[1:] == ["explain=[gradcam]"]
    monkeypatch.chdir(place)
    assert typed(monkeypatch, "explain", [*settings, "clips=1", "measure=none"]) == 0


@pytest.mark.attack
@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "setting", "said"),
    [
        ("train", "data={a: 1}", "no setting 'data.a'; nearest: data."),
        ("train", "model={hiden: 1}", "no setting 'model.hiden'; nearest: model.hidden"),
        ("explain", "study={a: 1}", "no setting 'study.a'; nearest: study"),
        (
            "train",
            "task.optimizer={_target_: torch.optim.SGD, lr: 0.01, momentum: 0.9}",
            "type +task.optimizer.momentum=VALUE",
        ),
    ],
)
def test_a_mapping_with_a_wrong_key_names_the_key(
    command: str, setting: str, said: str, monkeypatch, capfd
) -> None:
    """Mappings with a wrong key, of data, a model, a study and an optimiser."""
    assert typed(monkeypatch, command, [setting]) == 2
    assert said in capfd.readouterr().err


def test_a_setting_that_a_class_takes_besides_is_added() -> None:
    """What the message on momentum says to type."""
    sgd = "task.optimizer={_target_: torch.optim.SGD, lr: 0.01}"
    node = composed("train", [sgd, "+task.optimizer.momentum=0.9"]).task.optimizer
    assert (node._target_, node.momentum) == ("torch.optim.SGD", 0.9)


def test_layers_can_be_numbers() -> None:
    """`task.layers=[2]` and `layer=2`, which a message proposes, are no text in settings."""
    net = torch.nn.Sequential(
        torch.nn.Conv3d(3, 4, 1), torch.nn.ReLU(), torch.nn.Conv3d(4, 4, 1),
        torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(),
    )  # fmt: skip
    task = VideoClassification(net, classes=["a", "b", "c", "d"], layers=[2])  # type: ignore[list-item]
    assert task.explainable().layer(None)[0] == "2"
    clip = torch.rand(1, 3, 2, 4, 4)
    number, name = (
        lc.explain(task.explainable(), lc.GradCAM(layer=layer), clip, 0).heatmap  # type: ignore[arg-type]
        for layer in (0, "0")
    )
    assert torch.equal(number, name)
