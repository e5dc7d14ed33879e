"""The parts of a study, as its settings (`configs/study/`) say: cells, sweeps, claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from lightning_cam.attribution import Attribution
from lightning_cam.attribution.method import as_attribution
from lightning_cam.errors import ArgumentError, ConfigError, UnknownNameError, UserError
from lightning_cam.metrics import Measure
from lightning_cam.training.build import TARGET, build


class NotInStudyError(UserError):
    """A claim or a sweep is about a method, a sweep or a measure that the study has not.

    Attributes:
        where: the claim or sweep, `study.claims.NAME`.
        what: the study does not have, in words: `measure 'insertion'`.
    """

    def __init__(self, where: str, kind: str, name: object) -> None:
        self.where, self.what = where, f"{kind} {name!r}"
        super().__init__(f"{where} is about {self.what}, which the study does not have")


@dataclass(frozen=True)
class Cell:
    """One method with its settings.

    Attributes:
        key: its name in rows: `rise`, `rise masks=100`.
        title: its name in tables.
        method: what is run.
    """

    key: str
    title: str
    method: Attribution


@dataclass(frozen=True)
class Sweep:
    """One setting of a method at several values.

    Attributes:
        name: in the settings.
        title: of its table: "RISE: masks".
        setting: which one.
        cells: value, as tables show it -> key of its cell, in the order of the values.
    """

    name: str
    title: str
    setting: str
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Claim:
    """A sentence that the rows decide.

    Attributes:
        says: the sentence.
        pairs: keys of cells, the first of which is claimed to be better; with `within`, of which no
            order is claimed.
        within: the claim is that differences are smaller than this.
        trained: the claim is that networks trained on this are better than the same networks
            trained on the input's spectrum alone, for each of `cells`.
        cells: see `trained`.
        measures: which decide it.
    """

    says: str
    pairs: tuple[tuple[str, str], ...] = ()
    within: float | None = None
    trained: str | None = None
    cells: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()


@dataclass(frozen=True)
class RankingClaim:
    """A sentence about rankings or single values that the rows decide, see `ranking_claims`.

    Attributes:
        says: the sentence.
        kind: "agree": two measures rank methods alike; "best": a method is ahead of all others;
            "over_random": methods gain over random maps of their own grain; "value": a measure of
            methods lies on one side of a bound.
        measures: which decide it; two that are compared.
        cells: keys of the methods.
        number: what measures found beside their values, in place of these; "": the values.
        above: what intervals must lie above.
        below: what they must lie below, in place of that.
    """

    says: str
    kind: Literal["agree", "best", "over_random", "value"]
    measures: tuple[str, ...]
    cells: tuple[str, ...] = ()
    above: float = 0.0
    below: float | None = None
    number: str = ""


def read_ranking_claim(
    where: str,
    node: Mapping[str, Any],
    main: tuple[Mapping[str, Any], Sequence[str]],
    measures: Mapping[str, Measure],
) -> RankingClaim | None:
    """A claim about rankings; None if it is about differences of two cells.

    Args:
        where: in the settings.
        node: what they say there.
        main: what is in the main table, by its name; the names of those that are no baselines.
        measures: of the study.
    """
    kinds: dict[str, tuple[str, ...]] = {
        "agree": ("below",), "best": ("measures",), "over_random": ("measures",),
        "value": ("measures", "number", "above", "below"),
    }  # fmt: skip
    kind = next((kind for kind in kinds if kind in node), None)
    if kind is None:
        return None
    known = ("says", kind, *kinds[kind])
    for key in node:
        if key not in known:
            raise UnknownNameError("setting", f"{where}.{key}", known)
    says, asked = node.get("says"), node[kind]
    if not isinstance(says, str):
        raise ConfigError(f"{where}.says is missing: the claim in words")
    above, below = (_bound(where, key, node.get(key)) for key in ("above", "below"))
    if kind == "agree":
        if not isinstance(asked, list) or len(asked) != 2:
            raise ConfigError(f"{where}.agree={asked} must be two measures, [deletion,insertion]")
        return RankingClaim(says, "agree", _deciding(where, asked, measures), (), 0.0, below)
    if kind == "value" and above is below is None:
        raise ConfigError(
            f"{where} must say above or below which number the value lies; add +{where}.below=0.1"
        )
    if kind == "value" and None not in (above, below):
        raise ConfigError(f"{where} says above and below; leave one out")
    nodes, methods = main
    cells = tuple(methods if asked is True else asked if isinstance(asked, list) else [asked])
    for name in cells:
        _cell(show_value(name), nodes, where)
    deciding = _deciding(where, node.get("measures"), measures)
    if kind == "best":
        if len(cells) != 1:
            raise ConfigError(f"{where}.best={asked} must be one method")
        return RankingClaim(says, "best", deciding, cells)
    if kind == "over_random":
        beside = tuple(name for name in deciding if "method" not in measures[name].needs)
        if not beside or (beside != deciding and node.get("measures") is not None):
            raise ConfigError(
                f"{where}.measures: {', '.join(sorted({*deciding}.difference(beside)))} cannot be "
                f"held against random maps; name others, {where}.measures=[deletion,insertion]"
            )
        return RankingClaim(says, "over_random", beside, cells)
    number = node.get("number", "")
    if not isinstance(number, str):
        raise ConfigError(f"{where}.number={number} must be the name of a number, as excess_early")
    return RankingClaim(says, "value", deciding, cells, above or 0.0, below, number)


def _bound(where: str, key: str, value: Any) -> float | None:
    if value is not None and type(value) not in (int, float):
        raise ConfigError(f"{where}.{key}={value} must be a number")
    return None if value is None else float(value)


def method_cells(nodes: Mapping[str, Any]) -> dict[str, Cell]:
    """A cell for each method, called by its title where no other has the same."""
    if not nodes:
        raise ConfigError("study.methods is empty: name at least one method")
    methods = {name: _method(node, f"study.methods.{name}") for name, node in nodes.items()}
    own = {name: method.title for name, method in methods.items()}
    taken = Counter([*own.values(), *own])  # a title, or another one's name
    alone = {name for name, title in own.items() if title and taken[title] == 1 + (title == name)}
    return {
        name: Cell(name, own[name] if name in alone else name, method)
        for name, method in methods.items()
    }


def _method(node: Any, where: str) -> Attribution:
    try:
        return as_attribution(build(mapping_setting(node, where), where=where))
    except ArgumentError as error:
        raise ConfigError(
            f"{where} is not a method; give it a _target_ such as lightning_cam.GradCAM"
        ) from error


def read_sweep(
    name: str, node: Mapping[str, Any], nodes: Mapping[str, Any], cells: dict[str, Cell]
) -> Sweep:
    """A sweep; its cells are added to `cells`, unless there is one with the same settings."""
    where = f"study.sweeps.{name}"
    for key in node:
        if key not in ("method", "setting", "values"):
            raise UnknownNameError("setting", f"{where}.{key}", ["method", "setting", "values"])
    method, setting, values = (node.get(key) for key in ("method", "setting", "values"))
    if not isinstance(method, str) or method not in nodes:
        raise NotInStudyError(where, "method", method)
    if not isinstance(setting, str) or setting == TARGET:
        raise ConfigError(f"{where}.setting={setting} must be the name of a setting of {method}")
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{where}.values={values} must be a list of values of {setting}")
    found: dict[str, str] = {}
    for value in values:
        shown = show_value(value)
        built = _method({**nodes[method], setting: value}, f"{where}.values")
        same = next((cell for cell in cells.values() if cell.method == built), None)
        if same is None:
            key = f"{method} {setting}={shown}"
            same = cells.setdefault(key, Cell(key, f"{cells[method].title} {setting}", built))
        found[shown] = same.key
    return Sweep(name, f"{cells[method].title}: {setting}", setting, found)


def read_claim(
    where: str,
    node: Mapping[str, Any],
    known: tuple[Mapping[str, Any], Mapping[str, Sweep], Mapping[str, Measure]],
) -> Claim:
    """A claim about what the study has: methods, sweeps and measures."""
    nodes, sweeps, measures = known
    keys = ("says", "better", "worse", "sweep", "within", "trained", "methods", "measures")
    for key in node:
        if key not in keys:
            raise UnknownNameError("setting", f"{where}.{key}", keys)
    says, within, trained = (node.get(key) for key in ("says", "within", "trained"))
    if not isinstance(says, str):
        raise ConfigError(f"{where}.says is missing: the claim in words")
    deciding = _deciding(where, node.get("measures"), measures)
    if trained is not None:
        chosen = tuple(node.get("methods") or nodes)
        for name in chosen:
            _cell(name, nodes, where)
        return Claim(says, trained=str(trained), cells=chosen, measures=deciding)
    names: Mapping[str, str] = {name: name for name in nodes}
    if "sweep" in node:
        if node["sweep"] not in sweeps:
            raise NotInStudyError(where, "sweep", node["sweep"])
        names = sweeps[node["sweep"]].cells
    if within is not None:
        if type(within) not in (int, float) or not within > 0:
            raise ConfigError(f"{where}.within={within} must be a number above 0")
        pairs = tuple(combinations(dict.fromkeys(names.values()), 2))
        return Claim(says, pairs, float(within), measures=deciding)
    kind = "value" if "sweep" in node else "method"
    asked = [show_value(node.get(key)) for key in ("better", "worse")]
    pair = tuple(_cell(name, names, where, kind) for name in asked)
    return Claim(says, ((pair[0], pair[1]),), measures=deciding)


def _deciding(where: str, asked: Any, measures: Mapping[str, Measure]) -> tuple[str, ...]:
    """The measures that decide a claim: those asked for, else all that have a direction."""
    if asked is None:
        found = tuple(name for name, each in measures.items() if each.better is not None)
        if not found:
            raise ConfigError(
                f"{where}: of {', '.join(measures)} neither high nor low values are good, so that "
                "no claim can be decided; add another measure, or study.claims=null"
            )
        return found
    chosen = tuple(asked) if isinstance(asked, list) else (asked,)
    for name in chosen:
        if name not in measures:
            raise NotInStudyError(where, "measure", name)
        if measures[name].better is None:
            raise ConfigError(
                f"{where}.measures: {name} cannot decide a claim, neither high nor low values of "
                "it are good; leave it out"
            )
    return chosen


def _cell(
    name: str, names: Mapping[str, str] | Mapping[str, Any], where: str, kind: str = "method"
) -> str:
    if name not in names:
        raise NotInStudyError(where, kind, name)
    return name if not isinstance(names[name], str) else names[name]


def show_value(value: Any) -> str:
    """A setting's value as tables show it: `2x8x8`, `0.1`, `10000`."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "x".join(map(show_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def mapping_setting(node: Any, where: str) -> Mapping[str, Any]:
    if node is not None and not isinstance(node, Mapping):
        raise ConfigError(f"{where}={node} must be a mapping")
    return node or {}


def kept(node: Any, where: str) -> Mapping[str, Any]:
    """What is named below a key; null takes out what another study named."""
    return {name: part for name, part in mapping_setting(node, where).items() if part is not None}


def whole_number(value: Any, key: str) -> int:
    if type(value) is not int or value < 1:
        raise ConfigError(f"{key}={value} must be a whole number from 1 on")
    return value
