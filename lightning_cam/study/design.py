"""What a study measures: its cells, as its settings (`configs/study/`) say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from torch import nn

from lightning_cam.attribution import Attribution
from lightning_cam.build import TARGET, build
from lightning_cam.errors import ConfigError, UnknownNameError
from lightning_cam.measurements import build_measures
from lightning_cam.metrics import Measure, titles

_KEYS = ("name", "clips", "sweep_clips", "retry", "methods", "sweeps", "claims")
CELLS = (  # columns of cells.csv, those of the measures come after the first nine
    "network", "trained", "input", "clip_id", "index", "cell", "label", "prediction", "p_target",
    "flat", "seconds", "metric_seconds", "device", "masks", "map_error", "notes", "warning",
    "error",
)  # fmt: skip


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
class Design:
    """A study without its networks.

    Attributes:
        name: of the output folder.
        clips: how many of each input.
        sweep_clips: how many of these the sweeps see.
        measures: columns of the tables, name -> measure.
        cells: key -> cell, the methods' own first.
        methods: keys of the cells of the main table.
        sweeps: the other tables.
        claims: the conclusions to be drawn.
        retry: measure again what failed before.
        settings: what makes a study the same one, plain.
    """

    name: str
    clips: int
    sweep_clips: int
    measures: Mapping[str, Measure]
    cells: Mapping[str, Cell]
    methods: tuple[str, ...]
    sweeps: tuple[Sweep, ...]
    claims: tuple[Claim, ...]
    retry: bool
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, settings: Mapping[str, Any], measure: Mapping[str, Any]) -> Design:
        """Read a study's settings.

        Args:
            settings: what stands below `study`.
            measure: what stands below `measure`, name -> node.

        Raises:
            UserError: they make no sense.
        """
        for key in settings:
            if key not in _KEYS:
                raise UnknownNameError("setting", f"study.{key}", [f"study.{k}" for k in _KEYS])
        given = {**dict.fromkeys(_KEYS), **settings}
        name = given["name"]
        if not isinstance(name, str) or not name:
            raise ConfigError(f"study.name={name} must be text: it names the output folder")
        if type(given["retry"]) not in (bool, type(None)):
            raise ConfigError(f"study.retry={given['retry']} must be true or false")
        nodes = _kept(given["methods"], "study.methods")
        cells = _method_cells(nodes)
        sweeps = {
            name: _sweep(name, _mapping(node, f"study.sweeps.{name}"), nodes, cells)
            for name, node in _kept(given["sweeps"], "study.sweeps").items()
        }
        measures = build_measures(measure, CELLS)
        if not measures:
            raise ConfigError("measure is empty: name at least one, measure=[deletion,insertion]")
        claims = [
            _claim(
                f"study.claims.{name}",
                _mapping(node, f"study.claims.{name}"),
                (nodes, sweeps, measures),
            )
            for name, node in _kept(given["claims"], "study.claims").items()
        ]
        clips = _whole(given["clips"], "study.clips")
        few = given["sweep_clips"]
        facts = {key: given[key] for key in ("clips", "sweep_clips", "methods", "sweeps")}
        return cls(
            name=name,
            clips=clips,
            sweep_clips=clips if few is None else min(clips, _whole(few, "study.sweep_clips")),
            measures=measures,
            cells=cells,
            methods=tuple(nodes),
            sweeps=tuple(sweeps.values()),
            claims=tuple(claims),
            retry=bool(given["retry"]),
            # claims are drawn from the rows, which stay the same
            settings={"study": facts, "measure": _kept(measure, "measure")},
        )

    @property
    def titles(self) -> Mapping[str, str]:
        """What tables call the measures."""
        return titles(self.measures)

    @property
    def signs(self) -> Mapping[str, int]:
        """Measure -> 1 if more of it is better, -1 if less, 0 if neither."""
        sign = {"higher": 1, "lower": -1, None: 0}
        return {name: sign[each.better] for name, each in self.measures.items()}

    @property
    def sweep_cells(self) -> tuple[str, ...]:
        """Keys of the cells of all sweeps, each once."""
        return tuple(dict.fromkeys(key for sweep in self.sweeps for key in sweep.cells.values()))

    def cells_of(self, *, swept: bool) -> tuple[str, ...]:
        """Keys of the cells that a clip gets, which is among the sweeps' clips or not."""
        return tuple(key for key in self.cells if key in self.methods or swept)


def _method_cells(nodes: Mapping[str, Any]) -> dict[str, Cell]:
    """A cell for each method, called by its title where no other has the same."""
    if not nodes:
        raise ConfigError("study.methods is empty: name at least one method")
    methods = {name: _method(node, f"study.methods.{name}") for name, node in nodes.items()}
    own = {name: getattr(method, "title", "") for name, method in methods.items()}
    alone = {name for name, title in own.items() if title and [*own.values()].count(title) == 1}
    return {
        name: Cell(name, own[name] if name in alone else name, method)
        for name, method in methods.items()
    }


def _method(node: Any, where: str) -> Attribution:
    method = build(_mapping(node, where), where=where)
    if not callable(method) or isinstance(method, nn.Module):
        raise ConfigError(f"{where} is no method; give it a _target_ such as lightning_cam.GradCAM")
    return method


def _sweep(
    name: str, node: Mapping[str, Any], nodes: Mapping[str, Any], cells: dict[str, Cell]
) -> Sweep:
    """A sweep; its cells are added to `cells`, unless there is one with the same settings."""
    where = f"study.sweeps.{name}"
    for key in node:
        if key not in ("method", "setting", "values"):
            raise UnknownNameError("setting", f"{where}.{key}", ["method", "setting", "values"])
    method, setting, values = (node.get(key) for key in ("method", "setting", "values"))
    if not isinstance(method, str) or method not in nodes:
        raise UnknownNameError(f"method of {where},", method, nodes)
    if not isinstance(setting, str) or setting == TARGET:
        raise ConfigError(f"{where}.setting={setting} must be the name of a setting of {method}")
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{where}.values={values} must be a list of values of {setting}")
    found: dict[str, str] = {}
    for value in values:
        shown = show_value(value)
        built = _method({**nodes[method], setting: value}, f"{where}.values")
        same = _first(cells.values(), lambda cell, built=built: cell.method == built)  # type: ignore[misc]
        if same is None:
            key = f"{method} {setting}={shown}"
            same = cells.setdefault(key, Cell(key, f"{cells[method].title} {setting}", built))
        found[shown] = same.key
    return Sweep(name, f"{cells[method].title}: {setting}", setting, found)


def _claim(
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
            raise UnknownNameError(f"sweep of {where},", node["sweep"], sweeps)
        names = sweeps[node["sweep"]].cells
    if within is not None:
        if type(within) not in (int, float) or not within > 0:
            raise ConfigError(f"{where}.within={within} must be a number above 0")
        pairs = tuple(combinations(dict.fromkeys(names.values()), 2))
        return Claim(says, pairs, float(within), measures=deciding)
    pair = tuple(_cell(show_value(node.get(key)), names, where) for key in ("better", "worse"))
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
            raise UnknownNameError(f"measure of {where},", name, measures)
        if measures[name].better is None:
            raise ConfigError(
                f"{where}.measures: {name} cannot decide a claim, neither high nor low values of "
                "it are good; leave it out"
            )
    return chosen


def _cell(name: str, names: Mapping[str, str] | Mapping[str, Any], where: str) -> str:
    if name not in names:
        raise UnknownNameError(f"cell of {where},", name, names)
    return name if not isinstance(names[name], str) else names[name]


def show_value(value: Any) -> str:
    """A setting's value as tables show it: `2x8x8`, `0.1`, `10000`."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "x".join(map(show_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _mapping(node: Any, where: str) -> Mapping[str, Any]:
    if node is not None and not isinstance(node, Mapping):
        raise ConfigError(f"{where}={node} must be a mapping")
    return node or {}


def _kept(node: Any, where: str) -> Mapping[str, Any]:
    """What is named below a key; null takes out what another study named."""
    return {name: part for name, part in _mapping(node, where).items() if part is not None}


def _whole(value: Any, key: str) -> int:
    if type(value) is not int or value < 1:
        raise ConfigError(f"{key}={value} must be a whole number from 1 on")
    return value


def _first(cells: Any, test: Callable[[Cell], bool]) -> Cell | None:
    return next(filter(test, cells), None)
