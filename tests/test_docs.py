"""What README and docs print works as printed: commands, settings, Python, links and images."""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import ROOT, run, run_python, tiny
from demo_extra import ABSENT, EXTRA
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from pages import Typed, lines, links, pages, python, typed

import lightning_cam as lc
from lightning_cam.commands.entry import as_meant
from lightning_cam.commands.search import choices, composed, groups
from lightning_cam.errors import COMMANDS

TYPED = typed()
PYTHON = python()
_GAP = re.compile(r"(?<==)\.\.\.$")  # data.root=...
_SPOKEN_OF = re.compile(r"\b(KEY|GROUP|SETTING|FIELD|METHOD)\b")  # a setting's name is left open


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with the files of the user that pages call `mine`."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for group in groups():
        file = tmp_path / "configs" / group / "mine.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        package = {"experiment": "_global_", "explain": "explain.mine"}.get(group)
        head = f"# @package {package}\n" if package else ""
        file.write_text(f"{head}{'name: mine' if group == 'experiment' else '_target_: my.Mine'}\n")
    monkeypatch.chdir(tmp_path)


def settings(one: Typed) -> Iterator[list[str]]:
    """What a command sets, once for each run that `a,b` asks for; gaps are filled with a name."""
    kept = [w for w in one.settings if "=" in w and not w.startswith("-")]
    kept = [_GAP.sub("x", w.rstrip("]") if w.count("]") > w.count("[") else w) for w in kept]
    kept = [w for w in kept if not _SPOKEN_OF.search(w) and not w.startswith("[")]
    kept = [as_meant(w, one.command) for w in kept]
    runs = []
    for override in OverridesParser.create().parse_overrides(kept):
        key, group = override.get_key_element(), choices(override.key_or_group)
        if override.is_sweep_override():
            runs.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        elif override.value() == "NAME" and group:
            runs.append([f"{key}={min(set(group) - {'mine', 'none'})}"])
        else:
            runs.append([f"{key}={override.get_value_element_as_str()}"])
    for chosen in itertools.product(*runs):
        yield list(chosen)


@functools.cache
def compose_once(command: str, *chosen: str) -> None:
    """A fourth of all commands is printed on several pages."""
    OmegaConf.to_container(composed(command, chosen))


@pytest.mark.slow
@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("page", sorted({one.page for one in TYPED}))
def test_commands_compose(page: str) -> None:
    wrong = []
    for one in TYPED:
        if one.page != page:
            continue
        if one.command not in COMMANDS:
            wrong.append(f"{one}: no such command")
            continue
        try:
            for chosen in settings(one):
                if one.command == "check" and not any(w.startswith("data=") for w in chosen):
                    continue  # the command named in a sentence, without its data set
                compose_once(one.command, *chosen)
        except Exception as error:  # all that are wrong, at once
            wrong.append(f"{one}: {type(error).__name__}: {str(error).splitlines()[0]}")
    assert not wrong, "\n".join(wrong)


def test_the_commands_are_found() -> None:
    assert {one.command for one in TYPED} == set(COMMANDS)
    assert {"README.md", "data/README.md", "docs/sfm.md"} <= {one.page for one in TYPED}
    assert len(TYPED) > 60


def test_other_programs_exist() -> None:
    """Targets of make, scripts of this repository and their switches, our installed commands."""
    installed = {f"lightning-cam-{name}" for name in COMMANDS}
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    wrong = []
    for page, line in lines():
        words = line.partition("#")[0].split()
        if words[:1] == ["make"]:
            named = {w for w in words[1:] if re.fullmatch("[a-z]+", w)}
            wrong += [(page, w) for w in named.difference(targets)]
        script = next((w for w in words if re.match(r"(benchmarks|scripts)/.*\.\w+$", w)), None)
        if script and not (ROOT / script).is_file():
            wrong.append((page, script))
        elif script and words[0] == "python":
            source = (ROOT / script).read_text()
            wrong += [(page, w) for w in words if w.startswith("--") and f'"{w}"' not in source]
        name = Path(words[0]).name if words else ""
        if name.startswith("lightning-cam-") and name not in installed:
            wrong.append((page, name))
    assert not wrong


@pytest.mark.parametrize(("page", "link"), sorted(set(links())), ids=str)
def test_links_and_images_exist(page: str, link: str) -> None:
    assert (ROOT / page).parent.joinpath(link).exists()


@pytest.mark.parametrize("number", range(len(PYTHON)), ids=lambda n: f"{PYTHON[n][0]}-{n}")
def test_python_compiles_and_its_names_exist(number: int) -> None:
    tree = ast.parse(PYTHON[number][1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert all(importlib.util.find_spec(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "lc":
            assert hasattr(lc, node.attr), node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("lc."):
            known = inspect.signature(eval(ast.unparse(node.func), {"lc": lc})).parameters
            assert {keyword.arg for keyword in node.keywords} <= set(known)


def test_readme_stays_one_page() -> None:
    assert len(pages()["README.md"].splitlines()) <= 130


# --- run as printed -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(PYTHON)), ids=lambda n: f"{PYTHON[n][0]}-{n}")
def test_python_runs(number: int, tmp_path: Path) -> None:
    if "imagenet_network" in PYTHON[number][1] and not all(map(importlib.util.find_spec, EXTRA)):
        pytest.skip(ABSENT)
    source = re.sub(r"\b(8|16), (64, 64|112, 112)\b", "8, 32, 32", PYTHON[number][1])  # T, H, W
    done = run_python("-c", source, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


README = [one for one in TYPED if one.page == "README.md"]
EXPLAIN = [one for one in README if re.match(r"python explain\.py .*ckpt=", one.line)]
TRAIN = [one for one in README if re.match(r"python train\.py(?!.*data\.root)", one.line)]
CLASSES = {"walking": "blink", "riding": "expand"}  # of the tiny data
LESS = {  # settings that make a command short, where it has the others
    "'measure=[deletion,insertion]'": ["measure.deletion.steps=2", "measure.insertion.steps=2"],
    "study=": [
        "data.split=val", "study.clips=1", "measure.deletion.steps=2",
        "measure.insertion.steps=2", "study.sweeps=null", "study.claims=null",
        "study.methods.rise.masks=4",
    ],
    "experiment=sfm_tiny": [
        "data.frames=8", "data.eval_length=8", "data.eval_frames=6", "trainer.max_epochs=1",
        "videos.clips=1", "logger=none", "trainer=cpu",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one epoch on the tiny data, as `make train` leaves one."""
    folder = tmp_path_factory.mktemp("readme")
    options = ["trainer.max_epochs=1", "videos.clips=1", "name=default"]
    done = run("train", *tiny(folder / "data"), *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    video = sorted(folder.joinpath("data").rglob("*.mpg"))[0]
    folder.joinpath("my_clip.mp4").write_bytes(video.read_bytes())
    return folder


def shorter(one: Typed) -> list[str]:
    return [word for key, words in LESS.items() if key in one.line for word in words]


@pytest.mark.slow
@pytest.mark.parametrize("one", EXPLAIN, ids=str)
def test_explain_commands_of_the_readme_run(one: Typed, place: Path) -> None:
    (ckpt,) = place.glob("runs/default/*/checkpoints/last.ckpt")
    (best,) = place.glob("runs/default/*/checkpoints/epoch*.ckpt")
    swapped = [re.sub(r"CKPT|\[A,B,C\]", str(ckpt), word) for word in one.settings]
    swapped = [word.replace("[A,B]", f"[{ckpt},{best}]") for word in swapped]
    swapped = [re.sub(r"\w+$", lambda m: CLASSES.get(m[0], m[0]), word) for word in swapped]
    chosen = any(key in one.line for key in ("study=", "clips=", "survey="))
    few = [] if chosen else ["clips=1"]
    done = run("explain", *swapped, *few, *shorter(one), cwd=place)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("one", TRAIN, ids=str)
def test_train_commands_of_the_readme_run(one: Typed, place: Path) -> None:
    alone = not one.settings or "resume=last" in one.settings
    less = [*tiny(place / "data"), "trainer.max_epochs=1", "videos.clips=1"] if alone else []
    done = run("train", *one.settings, *less, *shorter(one), cwd=place)
    assert done.returncode == 0, done.stderr
