"""What messages tell the user to type exists, and gets past the error when it is typed."""

from __future__ import annotations

import copy
import functools
import pkgutil
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from commands import ROOT, tiny, typed
from data_sets import lay_out
from enumerated import quick
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from remedies import COMMAND, DOTTED, HOLE, PIP, Word, messages, words
from situations import NETS, NOT_RUN, SITUATIONS

import lightning_cam as lc
from lightning_cam.commands import entry, run_check, run_explain, run_train
from lightning_cam.commands.search import choices, composed, groups
from lightning_cam.errors import COMMANDS, UserError
from lightning_cam.tasks import VideoClassification
from lightning_cam.training.build import build

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
        return [f"{typed}: nothing to type after ="] if word.asked and not word.left_out else []
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


@pytest.mark.slow
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


@pytest.mark.slow
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


class PastError(BaseException):
    """The work would begin."""


def _past(*_: object, **__: object) -> None:
    raise PastError


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a checkpoint `net.ckpt`, and data sets of all kinds."""
    place = tmp_path_factory.mktemp("remedies")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out:
        patch.chdir(place)
        short = ["trainer.max_epochs=1", "explain=none", "name=net"]
        typed(patch, "train", [*tiny(place / "data"), *short])
        (place / "said.txt").write_text(out.getvalue())
        (found,) = place.glob("runs/net/*/checkpoints/last.ckpt")
        shutil.copy(found, place / "net.ckpt")
        lay_out(place)
    return place


@functools.cache
def _composed(command: str, chosen: tuple[str, ...]) -> DictConfig:
    return composed(command, chosen)


def _configured(command: str, settings: Sequence[str]) -> DictConfig:
    """The configuration of a command; files of groups, which takes long, are read once."""
    chosen = [word for word in settings if word.split("=")[0] in groups()]
    config = copy.deepcopy(_composed(command, tuple(chosen)))
    for word in settings:
        if word not in chosen:
            override = OverridesParser.create().parse_override(word)
            value = override.value()
            OmegaConf.update(config, override.key_or_group, value, force_add=override.is_add())
    return config


def _words(settings: Sequence[str]) -> None:
    name, *given = settings
    sys.argv[1:] = given
    entry.command(lambda cfg=None: cfg or composed(name, given), name)


def _map(settings: Sequence[str]) -> None:
    """Explain noise by the methods of `explain=`, with one of `NETS`."""
    net, *settings = settings
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = lc.Explainable.of(NETS[net](), layers=["conv"])
    chosen = [word for word in settings if not word.startswith("layer=")]
    layer = next((word[6:] for word in settings if word not in chosen), None)
    for method in build(_configured("train", chosen).explain, where="explain").values():
        method = quick(method)
        if layer is not None and hasattr(method, "layer"):
            method = replace(method, layer=layer)
        lc.explain(model, method, torch.randn(1, 3, 4, 8, 8, generator=torch.Generator()), 0)


RUNS: dict[str, Callable[[Sequence[str]], object]] = {
    "words": _words,
    "map": _map,
    "train": lambda settings: run_train.train(_configured("train", settings)),
    "fit": lambda settings: run_train.train(
        _configured("train", [*settings, "+trainer.fast_dev_run=true"])
    ),
    "check": lambda settings: run_check.check(
        OmegaConf.to_container(_configured("check", settings), resolve=True)
    ),
    "explain": lambda settings: run_explain.explain_clips(_configured("explain", settings)),
}


def attempt(line: Sequence[str]) -> str:
    """Run a command up to where its work begins: what it says if it does not come there."""
    name, *settings = line
    shutil.rmtree("study", ignore_errors=True)  # begun by another line
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        patch.setattr(sys, "argv", ["lightning_cam", *settings])
        if name != "fit":
            patch.setattr(run_train, "_fit", _past)
        patch.setattr("lightning_cam.synthetic.rendering._run", _past)
        for module in ("explaining.clip_sources", "study.networks"):
            patch.setattr(f"lightning_cam.{module}.compose_clips", _past)
        patch.setattr("lightning_cam.explaining.explain_run.ExplainRun.explain", _past)
        patch.setattr("lightning_cam.study.study_command.measure_cells", _past)
        patch.setattr("lightning_cam.survey.run.SurveyRun.go", _past)
        said = StringIO()
        try:
            with redirect_stdout(StringIO()), redirect_stderr(said):
                RUNS[name](settings)
        except PastError:
            pass
        except SystemExit:
            return said.getvalue()
        except (UserError, HydraException, OmegaConfBaseException) as error:
            return f"error: {error}"
    return "\n".join(str(each.message) for each in noted if words(str(each.message)))


def pattern(part: str) -> re.Pattern[str]:
    """What a part of a message looks like when it is printed."""
    return re.compile(".*?".join(map(re.escape, part.split(HOLE))))


def filled(text: str, fills: Mapping[str, str]) -> str:
    return re.sub(r"\b[A-Z][A-Z_]*\b", lambda found: fills.get(found[0], found[0]), text)


def changed(
    line: Sequence[str],
    word: Word,
    fills: Mapping[str, str],
    instead: Mapping[str, Sequence[str]],
) -> list[str]:
    """The command with what a message says to type, in place of what was typed for its key."""
    head = 2 if line[0] in ("words", "map") else 1
    keys = {word.key, *instead.get(word.key, ())}
    stays = [w for w in line[head:] if "=" in w and w[0] != "-"]
    stays = [w for w in stays if w.lstrip("+").split("=")[0] not in keys]
    if not word.left_out:
        stays.append(filled(f"{'+' * word.new}{word.key}={word.value}", fills))
    return [*line[:head], *stays]


@pytest.mark.slow
@pytest.mark.attack
@pytest.mark.parametrize("part", SITUATIONS)
def test_remedies_get_past_the_error(part, place, monkeypatch) -> None:
    """What messages suggest is typed, and gets past the error."""
    monkeypatch.chdir(place)
    typed_in, fills, said, instead = SITUATIONS[part]
    line = typed_in.split()
    message = attempt(line) if said is None else said()
    assert pattern(part).search(message), message or "it does not fail"
    proposed = [
        word
        for word in words(message)
        if word.asked and (word.value or word.left_out) and f"{word.key}={word.value}" not in line
    ]
    assert proposed, message
    for word in proposed:
        again = changed(line, word, fills, instead)
        next_one = attempt(again)
        assert not next_one, f"{again[-1]}, after: {message}: {next_one}"


def test_every_message_with_a_remedy_is_run_or_says_why_not() -> None:
    """A new message needs a row in `situations.py`, and a row that names no message is old."""
    told = [
        text
        for _, text in messages()
        if any(word.asked and (word.value or word.left_out) for word in words(text))
        or PIP.search(text)
        or (COMMAND.search(text) and " " in text)
    ]
    rows = [*SITUATIONS, *NOT_RUN]
    unknown = [text for text in told if not any(row in text for row in rows)]
    everything = "\n".join(text for _, text in messages())
    old = [row for row in rows if row not in everything]
    assert not unknown, "\n".join(unknown)
    assert not old, "\n".join(old)
    for file, _, test in (where[7:].partition("::") for where in NOT_RUN.values() if "::" in where):
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), test


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
