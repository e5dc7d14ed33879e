"""Imports point one way, and importing stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_cam

PACKAGE = Path(lightning_cam.__file__).parent
LOW = {"errors", "files", "progress", "interfaces"}
TOP = ("__init__", "__main__", "cli", "commands")
# part -> the parts it may import, and the third parties it must not
MAY = {
    "errors": set(),
    "files": {"errors"},
    "progress": set(),
    "interfaces": {"errors", "attribution"},
    "attribution": LOW,
    "geometry": set(),
    "metrics": {"errors", "attribution", "geometry"},
    "viz": {"errors", "files"},
    "models": LOW,
    "data": LOW,
    "tasks": LOW | {"attribution", "geometry", "metrics", "models", "viz"},
    "gallery": LOW | {"attribution", "viz"},
    "clip_files": LOW | {"attribution", "gallery", "viz"},
    "measured_curves": {"metrics", "viz"},
    "measuring": LOW | {"attribution", "build", "metrics", "scores"},
    "measurements": LOW | {"attribution", "measured_curves", "measuring", "metrics", "scores"},
    "skipped": LOW,
    "callbacks": LOW
    | {"attribution", "clip_files", "gallery", "measurements", "measuring"}
    | {"metrics", "skipped", "viz"},
    "build": LOW,
    "checkpoint": LOW | {"build"},
    "scores": {"attribution", "gallery", "metrics"},
    "settings": LOW | {"viz"},
    "selecting": LOW | {"attribution", "data", "gallery", "viz"},
    "sources": LOW | {"clip_files", "data", "selecting", "settings"},
    "explained": LOW
    | {"attribution", "clip_files", "gallery", "measurements", "scores", "selecting", "sources"}
    | {"viz"},
    "explaining": LOW
    | {"attribution", "build", "checkpoint", "data", "explained", "measurements", "metrics"}
    | {"runs", "scores", "settings", "sources", "viz"},
    "study": LOW
    | {"attribution", "build", "checkpoint", "clip_files", "data", "explaining", "gallery"}
    | {"measuring"}
    | {"metrics", "runs", "scores", "selecting", "settings", "sources", "viz"},
    "reproducible": set(),
    "runs": LOW | {"checkpoint"},
    "loggers": LOW | {"checkpoint", "runs"},
    "data.check": LOW | {"build", "data"},
}
PARTS = {path.stem for path in PACKAGE.iterdir()}
HEAVY = {"lightning", "wandb", "hydra", "omegaconf", "torchvision", "decord", "captum"}
NEVER = {
    "errors": HEAVY | {"torch"},
    "files": HEAVY | {"torch"},
    "progress": HEAVY | {"torch"},
    "interfaces": HEAVY,
    "attribution": HEAVY,
    "geometry": HEAVY,
    "metrics": HEAVY,
    "viz": HEAVY | {"torch"},
    "models": HEAVY - {"torchvision"},
    "data": {"wandb", "hydra", "omegaconf"},
    "tasks": {"wandb", "hydra", "omegaconf"},
    "gallery": {"wandb", "hydra", "omegaconf"},
    "callbacks": {"wandb", "hydra", "omegaconf"},
    "skipped": {"wandb", "hydra", "omegaconf"},
}


def imported(path: Path) -> set[str]:
    """Dotted names a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part_of(path: Path) -> str:
    if path == PACKAGE / "data" / "check.py":  # the work of a command
        return "data.check"
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    if part in TOP:  # it knows all; nothing else may import it
        return
    for name in imported(path):
        head, *rest = name.split(".")
        if head == "lightning_cam" and rest:
            assert rest[0] not in TOP and rest[:2] != ["data", "check"], f"{part} imports {name}"
            known = rest[0] == part or rest[0] in MAY[part] or rest[0].startswith("__")
            assert known or rest[0] not in PARTS, f"{part} imports {name}"
        assert head not in NEVER.get(part, set()), f"{part} imports {name}"


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, lightning_cam; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not (HEAVY | {"torch", "cv2", "av", "matplotlib"}) & set(modules)


def test_the_core_needs_torch_alone() -> None:
    code = "import sys, lightning_cam as lc; lc.explain, lc.GradCAM; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not (HEAVY | {"cv2", "av", "matplotlib"}) & set(modules)


def test_every_public_name_is_there_and_documented() -> None:
    for name in lightning_cam.__all__:
        assert getattr(lightning_cam, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        lightning_cam.nonsense  # noqa: B018
