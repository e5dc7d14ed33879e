"""Measures: built from settings, and taken of the maps of one clip.

A map is worth what it adds to maps that know nothing of the network; where a measure runs the
network, these stand beside it in every table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, get_args

from torch import Tensor

from lightning_cam.attribution import CentreMap, Contrast, Explainable, Explanation, RandomMap
from lightning_cam.errors import ConfigError, UnknownNameError
from lightning_cam.explaining.score_tables import SPECTRUM_COLUMNS, each_class
from lightning_cam.metrics import Explained, Measure, Measured, measure
from lightning_cam.metrics.explained import Direction, Need
from lightning_cam.progress import progress
from lightning_cam.training.build import TARGET, build

BASELINES: Mapping[str, RandomMap | CentreMap] = {"random": RandomMap(), "centre": CentreMap()}

_TAKEN = ("error", "value")  # columns of some methods and networks, in tables and loggers

OnMeasureError = Callable[[str, str, Exception], None]  # measure, method, what it raised


def build_measures(node: Any, taken: Collection[str], where: str = "measure") -> dict[str, Measure]:
    """The measures that settings ask for, in their order; null takes one out.

    Args:
        node: name -> a node with `_target_`.
        taken: names that other columns of the tables have.
        where: path of the node, for messages.

    Raises:
        UserError: there is something else.
    """
    if node is not None and not isinstance(node, Mapping):
        raise ConfigError(f"{where}={node} must be a mapping; choose some with measure=[deletion]")
    kept = {name: part for name, part in (node or {}).items() if part is not None}
    for name, part in kept.items():
        if isinstance(part, Mapping) and TARGET not in part:
            raise ConfigError(
                f"{where}.{name} has settings, but is not chosen: choose it, measure=[{name}], or "
                f"take it out with {where}.{name}=null"
            )
    return check_measures(build(kept, where=where), taken, where)


def check_measures(
    measures: Mapping[str, Any], taken: Collection[str], where: str = "measure"
) -> dict[str, Measure]:
    """The same measures, if they are any, say what they are, and their names are free.

    Raises:
        UserError: one is not.
    """
    for name, each in measures.items():
        if not isinstance(each, Measure):
            raise ConfigError(
                f"{where}.{name} is not a measure; give it a _target_ such as "
                "lightning_cam.metrics.GiniIndex, or choose some with measure=[gini]"
            )
        if name in _TAKEN or name in taken or str(name).startswith(SPECTRUM_COLUMNS):
            raise ConfigError(f"{where}.{name} cannot have this name: tables have such a column")
        _check_facts(f"{where}.{name}", each)
    return dict(measures)


def _check_facts(where: str, each: Measure) -> None:
    """Whether a measure's title, direction and needs are such."""
    if not isinstance(each.title, str) or not each.title.strip() or "\n" in each.title:
        raise ConfigError(f"{where}: title is {each.title!r}, must be a line of text")
    if each.better is not None and each.better not in get_args(Direction):
        raise UnknownNameError(f"{where}.better", each.better, [*get_args(Direction), "None"])
    if not isinstance(each.needs, Set):
        raise ConfigError(
            f"{where}: needs is {each.needs!r}, must be a set such as frozenset({{'map'}})"
        )
    for need in each.needs:
        if need not in get_args(Need):
            raise UnknownNameError(f"{where}.needs", need, get_args(Need))


def compares(measures: Mapping[str, Measure]) -> bool:
    """Whether maps that know nothing of the network are measured as well."""
    return any("model" in each.needs for each in measures.values())


def with_baselines(
    model: Explainable,
    explanations: Mapping[str, Explanation],
    clip: Tensor,
    names: Sequence[str] = tuple(BASELINES),
) -> dict[str, Explanation]:
    """The explanations of a clip, and behind them maps that know nothing of the network.

    Those that are among the methods already, or whose names are taken, are left out.
    """
    first = next(iter(explanations.values()))
    out = dict(explanations)
    for name in names:
        method = BASELINES[name]
        among = any(isinstance(e.method, type(method)) for e in explanations.values())
        if name in out or among:
            continue
        heat = model.without_padding(method(model, clip, first.target)).to(first.heatmap)
        changes: dict[str, Any] = {"heatmap": heat, "method": method}
        changes |= {
            "notes": {},
            "numbers": {},
            "native": None,
            "level": None,
        }  # the first method's own
        if isinstance(first, Contrast):
            changes["against"] = replace(first.against, **changes)
        out[name] = replace(first, **changes)
    return out


def without_values(
    measures: Mapping[str, Measure], clips: Sequence[tuple[str, Mapping[str, Measured]]]
) -> dict[str, str]:
    """The measures that have no value of any map -> why, in words.

    Args:
        measures: name -> measure.
        clips: (title, method -> what was measured), with one map at least.
    """
    found = [measured for _, of_clip in clips for measured in of_clip.values()]
    others = {
        "truth": "none of these clips has ground truth",
        "other": "it compares clips, so it needs two that methods explain in few forwards",
    }
    out = {}
    for name, each in measures.items():
        if not any(bool(measured.values[name].isfinite().any()) for measured in found):
            why = next((why for need, why in others.items() if need in each.needs), "")
            out[name] = f"{why or 'it has no value of any of these maps'}; leave it out"
    return out


def measure_clip(
    model: Explainable,
    explanations: Mapping[str, Explanation],
    clip: Tensor,
    batch: Mapping[str, Any],
    measures: Mapping[str, Measure],
    on_error: OnMeasureError,
    other: Tensor | None = None,
) -> dict[tuple[str, int], Measured]:
    """Measure each explanation of one clip; of a contrast both classes.

    Args:
        model: bound to this clip's batch.
        explanations: method -> explanation, all of the same columns.
        clip: `(1, C, T, H, W)`.
        batch: of this clip, with ground truth where there is any.
        measures: name -> measure.
        on_error: is told of each measure that failed on a map.
        other: `(1, C, T, H, W)`, another clip, where a measure needs one.
    """
    shared: dict[Any, Any] = {}
    found: dict[tuple[str, int], Measured] = {}
    with progress("measuring", len(explanations)) as advance:
        for name, e in each_class(explanations):
            explained = Explained(model, clip, e, batch, other=other, shared=shared)
            measured = measure(measures, explained)
            for what, error in measured.failed.items():
                on_error(what, name, error)
            found[name, int(e.target[0])] = replace(measured, failed={})
            advance(not isinstance(e, Contrast))
    return found
