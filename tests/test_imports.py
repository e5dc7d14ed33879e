"""Imports point one way, every package says what belongs in it, and importing stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lightning_cam

PACKAGE = Path(lightning_cam.__file__).parent
CONTRIBUTING = PACKAGE.parent / "CONTRIBUTING.md"

# Who may import whom, the lowest first: a row a package, which may import the rows it names.
# CONTRIBUTING.md shows this table.
MAY = {
    "errors": "",
    "progress": "",
    "stops": "",
    "geometry": "",
    "pickles": "",
    "archive": "errors pickles",
    "files": "errors",
    "own_folder": "errors files",
    "locks": "errors files",
    "viz": "errors files",
    "attribution": "errors progress viz",
    "interfaces": "errors attribution",
    "metrics": "errors geometry attribution",
    "models": "errors archive interfaces",
    "tasks": "errors files own_folder geometry interfaces attribution metrics models viz",
    "data": "errors pickles files locks stops interfaces",
    "synthetic": "errors files locks progress stops data",
    "training": "errors archive files locks stops interfaces attribution",
    "explaining": "errors files locks own_folder progress stops interfaces attribution metrics viz "
    "data training",
    "study": "errors files progress stops interfaces attribution metrics viz data training "
    "explaining",
    "survey": "errors files progress stops interfaces attribution metrics viz data training "
    "explaining",
    "commands": "errors files locks own_folder progress stops interfaces attribution models tasks "
    "data training explaining study survey",
}
# Libraries that a package must not load: the core works without them, or they are another's job.
HEAVY = {"lightning", "wandb", "hydra", "omegaconf", "torchvision", "decord", "captum"}
SETTINGS = {"hydra", "omegaconf"}  # known to the commands alone
NEVER = {
    "errors": HEAVY | {"torch", "numpy"},
    "pickles": HEAVY | {"torch", "numpy"},
    "archive": HEAVY,
    "files": HEAVY | {"torch"},
    "locks": HEAVY | {"torch", "numpy"},
    "interfaces": HEAVY,
    "progress": HEAVY | {"torch"},
    "stops": HEAVY | {"torch", "numpy"},
    "geometry": HEAVY,
    "attribution": HEAVY,
    "metrics": HEAVY,
    "viz": HEAVY | {"torch"},
    "models": HEAVY - {"torchvision"},
    "data": SETTINGS | {"wandb"},
    "synthetic": SETTINGS | {"wandb"},
    "tasks": SETTINGS | {"wandb"},
    "explaining": SETTINGS | {"wandb"},
}


def imports_of(path: Path) -> Iterator[str]:
    """Dotted names a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files_of(part: str) -> list[Path]:
    module = PACKAGE / f"{part}.py"
    return [module] if module.exists() else sorted((PACKAGE / part).rglob("*.py"))


def test_the_table_has_a_row_for_everything_that_is_there() -> None:
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert there - {"__init__", "__main__", "__pycache__", "py"} == set(MAY)


def test_a_row_names_lower_rows_only() -> None:
    order = list(MAY)
    for part, may in MAY.items():
        assert all(order.index(name) < order.index(part) for name in may.split()), part


@pytest.mark.parametrize("part", MAY)
def test_imports_point_one_way(part: str) -> None:
    for path in files_of(part):
        for name in imports_of(path):
            head, *rest = name.split(".")
            where = f"{path.relative_to(PACKAGE)} imports {name}"
            if head == "lightning_cam" and rest and rest[0] in MAY:
                assert rest[0] in (part, *MAY[part].split()), where
            assert head not in NEVER.get(part, set()), where


def test_no_row_allows_what_nobody_imports() -> None:
    for part, may in MAY.items():
        used = {name.split(".")[1] for path in files_of(part) for name in imports_of(path)
                if name.startswith("lightning_cam.")}  # fmt: skip
        assert set(may.split()) <= used, part


def test_contributing_shows_the_table() -> None:
    text = CONTRIBUTING.read_text(encoding="utf-8")
    for part, may in MAY.items():
        assert (
            f"| `{part}` | {' '.join(f'`{name}`' for name in may.split()) or 'nothing'} |" in text
        )


def test_every_package_says_what_belongs_in_it() -> None:
    folders = [path for path in PACKAGE.rglob("*") if path.is_dir() and any(path.glob("*.py"))]
    for folder in (PACKAGE, *folders):
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert text and text.splitlines()[0].endswith((".", ":")), folder


def loaded_by(code: str) -> set[str]:
    code = f"import sys; {code}; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


def test_import_loads_nothing_heavy() -> None:
    assert not (HEAVY | {"torch", "cv2", "av", "matplotlib"}) & loaded_by("import lightning_cam")


@pytest.mark.slow
def test_the_core_needs_torch_alone() -> None:
    modules = loaded_by("import lightning_cam as lc; lc.explain, lc.GradCAM")
    assert not (HEAVY | {"cv2", "av", "matplotlib"}) & modules


def test_every_public_name_is_there_and_documented() -> None:
    for name in lightning_cam.__all__:
        assert getattr(lightning_cam, name).__doc__, name
    with pytest.raises(AttributeError, match="nonsense"):
        lightning_cam.nonsense  # noqa: B018


def test_the_names_of_the_methods_are_all_at_the_top() -> None:
    assert set(lightning_cam.attribution.__all__) <= set(lightning_cam.__all__)
    assert {"attribution", "errors", "synthetic", "training"} <= set(dir(lightning_cam))
