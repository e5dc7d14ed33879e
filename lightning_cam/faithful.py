"""Deletion and insertion of explained clips: as numbers, as tables, and as curves to look at.

`explain.py` and the training callback measure the same things, so both come here. A map is worth
what it adds to maps that know nothing of the network; these stand beside it in every table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_cam.attribution import CentreMap, Contrast, Explainable, Explanation, RandomMap
from lightning_cam.errors import UnknownNameError
from lightning_cam.files import write_csv
from lightning_cam.metrics import PROTOCOLS, Curve, Ends, Protocol, deletion, insertion, summarise
from lightning_cam.progress import progress
from lightning_cam.viz import CurveLine, draw_curves, save_png

BASELINES: Mapping[str, RandomMap | CentreMap] = {"random": RandomMap(), "centre": CentreMap()}
_SHADED = 5  # clips from which on an interval says more than that it is wide
_SETTINGS = "true, false, the name of a protocol, or settings such as {protocol: rise, steps: 20}"


@dataclass(frozen=True)
class Curves:
    """What deletion and insertion found of one clip (B = 1), on the CPU."""

    deletion: Curve
    insertion: Curve

    def columns(self) -> dict[str, str]:
        """The areas as they stand in tables; `tied`: share of the units ranked at random."""
        values = {
            "deletion": self.deletion.auc,
            "insertion": self.insertion.auc,
            "tied": self.deletion.tied,
        }
        return {name: f"{float(value[0]):.4f}" for name, value in values.items()}


def protocol_of(setting: Any, steps: int | None = None) -> Protocol | None:
    """The protocol that a setting asks for; None for False and None.

    Args:
        setting: True; the name of a protocol; a `Protocol`; or settings as a mapping, with
            `protocol` naming the one they change.
        steps: of the protocol that True stands for; None: its own.

    Raises:
        ValueError: it makes no sense.
    """
    if setting is None or setting is False:
        return None
    changes: dict[str, Any] = dict(setting) if isinstance(setting, Mapping) else {}
    if setting is True and steps is not None:
        changes = {"steps": steps}
    known = [f.name for f in fields(Protocol)]
    try:
        base = changes.pop("protocol", "default")
        if isinstance(setting, (Protocol, str)):
            base = setting
        elif setting is not True and not isinstance(setting, Mapping):
            raise ValueError(f"expected {_SETTINGS}")
        for key in changes:
            if key not in known:
                raise UnknownNameError("setting of a protocol", key, ["protocol", *known])
        return Protocol.of(base if isinstance(base, Protocol) else str(base), **changes)
    except (TypeError, ValueError) as error:
        raise ValueError(f"faithfulness={setting}: {error}") from error


def protocol_name(protocol: Protocol) -> str:
    """The protocol of `PROTOCOLS` it is nearest to, and what differs: "default, steps=20"."""

    def changed(base: Protocol) -> list[str]:
        names = [f.name for f in fields(Protocol) if f.name != "batch"]  # changes no number
        values = {name: getattr(protocol, name) for name in names}
        return [f"{name}={v}" for name, v in values.items() if v != getattr(base, name)]

    name, changes = min(
        ((name, changed(base)) for name, base in PROTOCOLS.items()), key=lambda pair: len(pair[1])
    )
    return ", ".join([name, *changes])


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
        changes |= {"notes": {}, "numbers": {}, "level": None}  # the first method's own
        if isinstance(first, Contrast):
            changes["against"] = replace(first.against, **changes)
        out[name] = replace(first, **changes)
    return out


def measure(
    model: Explainable,
    explanations: Mapping[str, Explanation],
    clip: Tensor,
    protocol: Protocol,
    on_error: Callable[[str, Exception], None] | None = None,
) -> dict[tuple[str, int], Curves]:
    """Both curves of each explanation of one clip: (method, column explained) -> curves.

    Costs two forwards for the references, and 2 (S - 1) for each heatmap; the network's outputs
    for the clip are taken from the explanations. Of a contrast both classes are measured.

    Args:
        model: bound to this clip's batch.
        explanations: method -> explanation, all of the same columns.
        clip: `(1, C, T, H, W)`.
        protocol: how.
        on_error: gets the name of a method that could not be measured and the exception; without
            it the exception is raised.
    """
    ends: dict[int, Ends] = {}
    found: dict[tuple[str, int], Curves] = {}
    with progress("deletion and insertion", len(explanations)) as advance:
        for name, explanation in explanations.items():
            roles = [explanation]
            if isinstance(explanation, Contrast):
                roles.append(explanation.against)
            for e in roles:
                column = int(e.target[0])
                try:
                    if column not in ends:
                        ends[column] = Ends.of(
                            model, clip, e.target, protocol=protocol, outputs=e.outputs
                        )
                    options: dict[str, Any] = {"protocol": protocol, "ends": ends[column]}
                    curves = [
                        how(model, clip, e.heatmap, e.target, **options)
                        for how in (deletion, insertion)
                    ]
                except Exception as error:
                    if on_error is None:
                        raise
                    on_error(name, error)
                else:
                    found[name, column] = Curves(*map(_on_cpu, curves))
            advance(1)
    return found


def write_epoch(
    folder: Path,
    epoch: int,
    clips: Sequence[tuple[str, Mapping[str, Curves]]],
    protocol: Protocol,
    score: str,
) -> tuple[dict[str, float], Path]:
    """Write `faithfulness.csv` and `faithfulness.png` of clips explained in training.

    Args:
        folder: of the epoch's pictures.
        epoch: its number.
        clips: (title, method -> curves).
        protocol: by which they were measured.
        score: what the curves show.

    Returns:
        What loggers get: "explain/METHOD/deletion", ".../insertion" -> mean area of the clips, and
        the picture.
    """
    rows = [
        {"epoch": epoch, "clip": title, "method": method, **pair.columns()}
        for title, measured in clips
        for method, pair in measured.items()
    ]
    write_csv(folder / "faithfulness.csv", rows, list(rows[0]))
    curves: dict[str, list[Curves]] = {}
    for _, measured in clips:
        for method, pair in measured.items():
            curves.setdefault(method, []).append(pair)
    scalars = {
        f"explain/{method}/{kind}": summarise(getattr(pair, kind) for pair in pairs)[0].mean
        for method, pairs in curves.items()
        for kind in ("deletion", "insertion")
    }
    picture = draw_measured(
        folder / "faithfulness.png",
        curves,
        protocol,
        title=f"deletion and insertion, epoch {epoch}",
        score=score,
    )
    return scalars, picture


def draw_measured(
    path: Path,
    curves: Mapping[str, Sequence[Curves]],
    protocol: Protocol,
    *,
    title: str,
    score: str,
) -> Path:
    """Write the mean curves of methods as a picture: method -> one pair of curves a clip."""
    lines = {
        name: (_line([c.deletion for c in pairs]), _line([c.insertion for c in pairs]))
        for name, pairs in curves.items()
    }
    clips = max(map(len, curves.values()))
    shaded = "shaded: 95% interval of the mean; " if clips >= _SHADED else ""
    note = f"mean of {clips} clips; ± between clips; {shaded}" if clips > 1 else ""
    image = draw_curves(
        lines,
        baselines=[name for name in BASELINES if name in curves],
        title=title,
        score=score,
        note=f"{note}protocol {protocol_name(protocol)}",
        least=protocol.order == "least",
    )
    return save_png(path, image)


def score_name(model: Explainable, protocol: Protocol, column: str | None = None) -> str:
    """What the curves of a column, or of several, show in words."""
    if model.softmax and not protocol.raw:
        return f"probability of {column or 'the explained class'}"
    return column or "the explained output"


def _line(curves: Sequence[Curve]) -> CurveLine:
    numbers, mean = summarise(curves)
    band = numbers.clips >= _SHADED
    return CurveLine(
        mean.mean.numpy(),
        numbers.mean,
        numbers.std,
        mean.low.numpy() if band else None,
        mean.high.numpy() if band else None,
    )


def _on_cpu(curve: Curve) -> Curve:
    return Curve(curve.fraction.cpu(), curve.score.cpu(), curve.tied.cpu())
