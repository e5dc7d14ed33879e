"""Finds what contract tests run on: no test keeps a list of names."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

import yaml

import lightning_cam as lc
import lightning_cam.attribution
from lightning_cam import metrics
from lightning_cam.metrics.explained import Measure
from lightning_cam.training.build import TARGET, build

# What a method may do many times, and how often a test lets it.
_OFTEN = {"masks": 8, "iterations": 2, "samples": 2, "steps": 2, "nodes": 2}

# Words of the errors by which methods refuse networks that they cannot explain.
REASONS = (
    "no output steps",
    "CAM is for networks that average layer",
    "has no rule for",
    "is for joint attention",
)

Kind = TypeVar("Kind")
FAILED: dict[str, str] = {}  # file or class that no test runs on -> why


@contextmanager
def noted(where: str, failed: dict[str, str]) -> Iterator[None]:
    """Go on without what is broken, so that one test fails instead of the collection of all."""
    try:
        yield
    except Exception as error:
        failed[where] = f"{type(error).__name__}: {error}"


def configs() -> Path:
    """The folder of the package's configurations."""
    package = Path(lc.__file__).parent
    inside = package / "commands" / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def method_classes() -> list[type[lc.Attribution]]:
    """Every class of methods that a module of the package defines."""
    return classes_of(lightning_cam.attribution, lc.Attribution)


def measure_classes() -> list[type[Measure]]:
    """Every class of measures that a module of the package defines."""
    return classes_of(metrics, Measure)


def classes_of(package: ModuleType, kind: type[Kind]) -> list[type[Kind]]:
    """Classes of a kind that can be made, by name, from all modules of a package."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        with noted(module.name, FAILED):
            importlib.import_module(module.name)

    def below(cls: type) -> Iterator[type]:
        for sub in cls.__subclasses__():
            yield sub
            yield from below(sub)

    found = dict.fromkeys(
        cls
        for cls in below(kind)
        if not inspect.isabstract(cls)
        and not cls.__name__.startswith("_")
        and cls.__module__.startswith(f"{package.__name__}.")
    )
    return sorted(found, key=lambda cls: cls.__name__)


def configured_methods() -> dict[str, lc.Attribution]:
    """Name of a YAML file -> its method."""
    found = {}
    for path in sorted((configs() / "explain").glob("*.yaml")):
        with noted(path.name, FAILED):
            node = yaml.safe_load(path.read_text())
            if TARGET in node:
                found[path.stem] = build(node, where=path.name, kind=lc.Attribution)
    return found


def quick(method: lc.Attribution) -> lc.Attribution:
    """The method with few repetitions, at each network's own target layer."""
    fields = {f.name for f in dataclasses.fields(method)}  # type: ignore[arg-type]
    few = {
        name: min(most, getattr(method, name)) for name, most in _OFTEN.items() if name in fields
    }
    method = dataclasses.replace(method, **few)  # type: ignore[type-var]
    return method.at(None) if isinstance(method, lc.LayerAttribution) else method


def methods() -> dict[str, lc.Attribution]:
    """Every method as it is by default and as each YAML file sets it, made quick."""
    found = {}
    for cls in method_classes():
        with noted(cls.__name__, FAILED):
            found[cls.__name__] = quick(cls())
    for name, method in configured_methods().items():
        if quick(method) not in found.values():
            found[name] = quick(method)
    return found


def variants() -> dict[str, lc.Attribution]:
    """Every method with each choice that the type of one of its settings names."""
    found = {}
    for cls in method_classes():
        with noted(cls.__name__, FAILED):
            plain, hints = quick(cls()), typing.get_type_hints(cls)
            for field in dataclasses.fields(plain):  # type: ignore[arg-type]
                for choice in _choices(hints[field.name]):
                    changed = dataclasses.replace(plain, **{field.name: choice})  # type: ignore[type-var]
                    if changed != plain:
                        found[f"{cls.__name__}({field.name}={choice})"] = changed
    return found


def _choices(hint: Any) -> list[Any]:
    """The values that a type names: those of literals, also within a union, and of bool."""
    if hint is bool:
        return [False, True]
    if typing.get_origin(hint) is Literal:
        return list(typing.get_args(hint))
    return [choice for part in typing.get_args(hint) for choice in _choices(part)]
