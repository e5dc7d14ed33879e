"""What a study measures, as its settings (`configs/study/`) say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from lightning_cam.attribution.method import as_attribution
from lightning_cam.errors import ConfigError, UnknownNameError
from lightning_cam.explaining.kept_map import MAP_SIZE
from lightning_cam.explaining.measuring import build_measures
from lightning_cam.metrics import Measure, titles
from lightning_cam.study.design_parts import (
    Cell,
    Claim,
    NotInStudyError,
    RankingClaim,
    Sweep,
    kept,
    mapping_setting,
    method_cells,
    read_claim,
    read_ranking_claim,
    read_sweep,
    whole_number,
)

_KEYS = (
    "name", "clips", "sweep_clips", "target", "columns", "map_size", "random_seeds", "retry",
    "shown", "only",
    "methods", "sweeps", "claims",
)  # fmt: skip
_SHOWN = 12  # clips on the page
CELL_COLUMNS = (  # columns of cells.csv, those of measures and methods' numbers come before "flat"
    "network", "trained", "input", "clip_id", "index", "cell", "label", "prediction", "target",
    "p_target", "flat", "seconds", "metric_seconds", "forwards", "device", "notes", "warning",
    "error",
)  # fmt: skip
Target = Literal["predicted", "true"]


@dataclass(frozen=True)
class Design:
    """A study without its networks.

    Attributes:
        name: of the output folder.
        clips: how many of each input.
        sweep_clips: how many of these the sweeps see.
        target: the class that is explained.
        columns: explained in place of classes, each as an input of its own.
        map_size: frames, height and width at which maps are kept, at most.
        random_seeds: random maps of each method's grain; 0: neither these nor the ground truth are
            measured.
        measures: columns of the tables, name -> measure.
        digests: of the measures' settings: what is known by one is not measured again.
        cells: key -> cell, the methods' own first.
        methods: keys of the cells of the main table.
        sweeps: the other tables.
        claims: the conclusions to be drawn, about differences of cells.
        ranking_claims: those about rankings and single values.
        retry: measure again what failed before.
        shown: how many clips of each network and input the page shows.
        left_out: what the study does not have -> the claims and sweeps that are about it.
        settings: what makes a study the same one, plain.
    """

    name: str
    clips: int
    sweep_clips: int
    target: Target
    columns: tuple[str, ...]
    map_size: tuple[int, ...]
    random_seeds: int
    measures: Mapping[str, Measure]
    digests: Mapping[str, str]
    cells: Mapping[str, Cell]
    methods: tuple[str, ...]
    sweeps: tuple[Sweep, ...]
    claims: tuple[Claim, ...]
    ranking_claims: tuple[RankingClaim, ...]
    retry: bool
    shown: int
    left_out: Mapping[str, Sequence[str]]
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
        given = _checked(settings)
        nodes = kept(given["methods"], "study.methods")
        cells, left_out = method_cells(nodes), dict[str, list[str]]()
        sweeps = _sweeps(given, nodes, cells, left_out)
        measures = build_measures(measure, CELL_COLUMNS)
        if not measures:
            raise ConfigError("measure is empty: leave out measure= for those of the study")
        main = [key for key in _methods(cells) if key in nodes]
        claims, rankings = _claims(given, (nodes, sweeps, measures), main, left_out)
        clips = whole_number(given["clips"], "study.clips")
        few = given["sweep_clips"]
        swept = clips if few is None else min(clips, whole_number(few, "study.sweep_clips"))
        facts = {key: given[key] for key in ("clips", "sweep_clips", "methods", "sweeps")}
        # by their meaning, so that what is said and what is the default are one
        target, columns, map_size = _target(given), _columns(given), _map_size(given)
        facts |= {"target": target, "columns": list(columns), "map_size": list(map_size)}
        return cls(
            name=given["name"],
            clips=clips,
            sweep_clips=swept,
            target=target,
            columns=columns,
            map_size=map_size,
            random_seeds=_seeds(given),
            measures=measures,
            digests={name: _digest(node) for name, node in kept(measure, "measure").items()},
            cells=cells,
            methods=tuple(nodes),
            sweeps=tuple(sweeps.values()),
            claims=claims,
            ranking_claims=rankings,
            retry=bool(given["retry"]),
            shown=_shown(given),
            left_out=left_out,
            # claims are drawn from the rows, measures are taken of the kept maps
            settings={"study": facts},
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
    def sweep_only(self) -> frozenset[str]:
        """Keys of the cells that are in sweeps and not in the main table."""
        return frozenset(self.sweep_cells).difference(self.methods)

    @property
    def directed(self) -> tuple[str, ...]:
        """The measures of which high or low values are good."""
        return tuple(name for name, sign in self.signs.items() if sign)

    @property
    def compared(self) -> tuple[str, ...]:
        """Those of them by which maps beside the methods are measured, see `references`."""
        return tuple(n for n in self.directed if "method" not in self.measures[n].needs)

    @property
    def baselines(self) -> frozenset[str]:
        """Keys of the cells whose maps know nothing of the network."""
        return frozenset(self.cells).difference(_methods(self.cells))

    @property
    def parted(self) -> tuple[list[str], list[str]]:
        """Keys of the main table's methods, and of its baselines."""
        methods = [key for key in self.methods if key not in self.baselines]
        return methods, [key for key in self.methods if key in self.baselines]

    @property
    def sweep_cells(self) -> tuple[str, ...]:
        """Keys of the cells of all sweeps, each once."""
        return tuple(dict.fromkeys(key for sweep in self.sweeps for key in sweep.cells.values()))

    def cells_of(self, *, swept: bool) -> tuple[str, ...]:
        """Keys of the cells that a clip gets, which is among the sweeps' clips or not."""
        return tuple(key for key in self.cells if key in self.methods or swept)


def _checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings, None where nothing is said; those that are of no part are right."""
    for key in settings:
        if key not in _KEYS:
            raise UnknownNameError("setting", f"study.{key}", [f"study.{k}" for k in _KEYS])
    given = {**dict.fromkeys(_KEYS), **settings}
    name, retry = given["name"], given["retry"]
    if not isinstance(name, str) or not name:
        raise ConfigError(f"study.name={name} must be text: it names the output folder")
    if type(retry) not in (bool, type(None)):
        raise ConfigError(f"study.retry={retry} must be true or false")
    if given["only"] is not None:
        nodes = kept(given["methods"], "study.methods")
        if not isinstance(given["only"], list):
            raise ConfigError(
                f"study.only={given['only']} must be a list of methods, [gradcam,lrp]"
            )
        for only in given["only"]:
            if only not in nodes:
                raise UnknownNameError("method of study.only", only, nodes)
        given["methods"] = {name: nodes[name] for name in given["only"]}
    return given


def _sweeps(
    given: Mapping[str, Any],
    nodes: Mapping[str, Any],
    cells: dict[str, Cell],
    left_out: dict[str, list[str]],
) -> dict[str, Sweep]:
    """The sweeps of the study's methods; `left_out` is told of others."""
    found = {}
    for name, node in kept(given["sweeps"], "study.sweeps").items():
        try:
            node = mapping_setting(node, f"study.sweeps.{name}")
            found[name] = read_sweep(name, node, nodes, cells)
        except NotInStudyError as error:
            left_out.setdefault(error.what, []).append(error.where)
    return found


def _methods(cells: Mapping[str, Cell]) -> list[str]:
    """Keys of the cells whose maps know something of the network."""
    return [key for key, cell in cells.items() if not as_attribution(cell.method).baseline]


def _claims(
    given: Mapping[str, Any],
    known: tuple[Mapping[str, Any], Mapping[str, Sweep], Mapping[str, Measure]],
    methods: Sequence[str],
    left_out: dict[str, list[str]],
) -> tuple[tuple[Claim, ...], tuple[RankingClaim, ...]]:
    """The claims of both kinds about what is known; `left_out` is told of others.

    Args:
        given: the settings.
        known: all cells of the main table, sweeps and measures.
        methods: names of the cells that are no baselines.
        left_out: takes why a claim is none of this study's.
    """
    claims, rankings = [], []
    nodes, _, measures = known
    for name, part in kept(given["claims"], "study.claims").items():
        where = f"study.claims.{name}"
        node = mapping_setting(part, where)
        try:
            ranking = read_ranking_claim(where, node, (nodes, methods), measures)
            if ranking is None:
                claims.append(read_claim(where, node, known))
                continue
        except NotInStudyError as error:
            left_out.setdefault(error.what, []).append(error.where)
            continue
        if ranking.kind == "over_random" and not given["random_seeds"]:
            raise ConfigError(f"{where} needs random maps; set study.random_seeds=3")
        rankings.append(ranking)
    return tuple(claims), tuple(rankings)


def _target(given: Mapping[str, Any]) -> Target:
    target = "true" if given["target"] is True else given["target"] or "predicted"  # YAML's true
    if target not in get_args(Target):
        raise UnknownNameError("study.target", target, get_args(Target))
    return cast(Target, target)


def _columns(given: Mapping[str, Any]) -> tuple[str, ...]:
    columns = given["columns"] or []
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise ConfigError(f"study.columns={columns} must be a list of the network's columns")
    if len(set(columns)) < len(columns):
        raise ConfigError(f"study.columns={columns} names a column twice")
    return tuple(columns)


def _map_size(given: Mapping[str, Any]) -> tuple[int, ...]:
    size = given["map_size"] or list(MAP_SIZE)
    if not isinstance(size, list) or len(size) != 3:
        raise ConfigError(f"study.map_size={size} must be frames, height and width, as [16,56,56]")
    return tuple(whole_number(n, "study.map_size") for n in size)


def _seeds(given: Mapping[str, Any]) -> int:
    seeds = given["random_seeds"] or 0
    return whole_number(seeds, "study.random_seeds") if seeds else 0


def _shown(given: Mapping[str, Any]) -> int:
    shown = _SHOWN if given["shown"] is None else given["shown"]
    return whole_number(shown, "study.shown") if shown else 0


def _digest(node: Any) -> str:
    """Which measure with which settings; how many rows go at once changes no number."""
    told = {key: value for key, value in node.items() if key != "batch"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
