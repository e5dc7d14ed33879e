"""Templates of captions ("Pushing something from left to right") and classes made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from lightning_cam.data.core.listing import Problem
from lightning_cam.errors import ConfigError, UnknownNameError
from lightning_cam.files import is_too_deep

CLASS_GROUPS = Path(__file__).with_name("lists")  # class groups that come with the package


@lru_cache(4096)  # lists have 200,000 rows of a few hundred
def template_of(text: str) -> str:
    """A template without the brackets of its placeholders: the key of its class."""
    return text.replace("[", "").replace("]", "").strip()


def load_groups(groups: str | Mapping[str, Any] | None) -> dict[str, list[str]] | None:
    """The templates of each class as they were asked for.

    Args:
        groups: the name of a list that comes with the package, the path of a YAML file, or the
            mapping itself: class name -> templates, where an entry that ends in "..." means all
            that begin so and no entries at all the template of that name. None for no groups.

    Raises:
        ConfigError: there is no such list, or it is not such a mapping.
    """
    if groups is None:
        return None
    source = "class_groups"
    if isinstance(groups, str):
        path = CLASS_GROUPS / f"{groups}.yaml"
        if not path.is_file():
            path = Path(groups)
        if not path.is_file():
            raise UnknownNameError(
                "class_groups", groups, [p.stem for p in CLASS_GROUPS.glob("*.yaml")]
            )
        source = str(path)
        try:
            text = path.read_text(encoding="utf-8")
            if is_too_deep(text):
                raise ValueError("it nests more than a hundred lists")
            groups = yaml.safe_load(text)
        except (OSError, RecursionError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"{source}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(groups, Mapping) or not groups:
        raise ConfigError(f"{source} must map names of classes to lists of templates")
    for name, entries in groups.items():
        strings = isinstance(name, str) and isinstance(entries, (list, tuple, type(None)))
        if not strings or not all(isinstance(entry, str) for entry in entries or ()):
            raise ConfigError(f"{source}: class {name!r} needs a list of templates")
    return {name: list(entries or [name]) for name, entries in groups.items()}


def find_templates(
    labels: Sequence[str], groups: Mapping[str, Sequence[str]] | None
) -> tuple[dict[str, list[str]], list[Problem]]:
    """The templates of each class among those that a data set has.

    Args:
        labels: the templates that there are.
        groups: as `load_groups` returns them; None for one class per template.

    Returns:
        class name -> its templates, and what was asked for in vain.

    Raises:
        ConfigError: a class would have no templates, or two of them the same one.
    """
    if groups is None:
        return {label: [label] for label in labels}, []
    classes: dict[str, list[str]] = {}
    owner: dict[str, str] = {}
    problems = []
    for name, entries in groups.items():
        templates: list[str] = []
        for entry in entries:
            wanted = template_of(entry)
            start = wanted.removesuffix("...") if wanted.endswith("...") else None
            found = [
                label
                for label in labels
                if (label == wanted if start is None else label.startswith(start))
            ]
            if not found:
                said = f"is {wanted!r}" if start is None else f"begins with {start!r}"
                why = f"no label {said}; correct class_groups"
                problems.append(Problem("label", f"class {name!r}", why))
            templates += found
        classes[name] = list(dict.fromkeys(templates))
        if not templates:
            raise ConfigError(
                f"class {name!r} of class_groups has no clips: none of its templates "
                f"({', '.join(map(repr, entries))}) is among the {len(labels)} labels"
            )
        for template in classes[name]:
            if owner.setdefault(template, name) != name:
                raise ConfigError(
                    f"class_groups has {template!r} in {owner[template]!r} and in {name!r}"
                )
    return classes, problems


_SIDES = {"left": "right", "right": "left"}


def mirrored_template(template: str) -> str:
    """The template that a mirrored clip of this one shows.

    Example:
        >>> mirrored("Pushing something from left to right")
        'Pushing something from right to left'
    """
    # "pulling it right out" names no side.
    return re.sub(r"\b(left|right)\b(?! out\b)", lambda side: _SIDES[side[0]], template)


def mirror_by_template(
    classes: Sequence[str], templates: Mapping[str, Iterable[str]]
) -> list[int | None]:
    """For each class the one whose templates are the mirrored ones of its own, if there is one."""
    number = {frozenset(templates[name]): label for label, name in enumerate(classes)}
    return [number.get(frozenset(map(mirrored_template, templates[name]))) for name in classes]
