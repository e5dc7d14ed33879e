"""Rows of scores.csv and relevance.csv, and what the page shows of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lightning_cam.attribution import Contrast, Explainable, Explanation, SpectrumRelevance
from lightning_cam.errors import ConfigError
from lightning_cam.explaining.clip_explanations import (
    Spectra,
    class_probabilities,
    clip_extent,
    frame_relevance,
    true_labels,
)
from lightning_cam.metrics import Measured

SPECTRUM_COLUMNS = ("share_", "drop_")  # begin the columns of the spectra
ALL = None  # in place of a spectrum's name: all of them
SCORE_COLUMNS = (
    "clip_id", "path", "label", "prediction", "p_prediction", "target", "p_target", "method",
    "peak_frame", "peak_time_s", "start_s", "end_s", "duration_s",
)  # fmt: skip
RELEVANCE_COLUMNS = (
    "clip_id", "path", "method", "target", "frame", "frame_idx", "time_s", "share", "attention",
)  # fmt: skip


def score_rows(
    model: Explainable,
    explanations: Mapping[str, Explanation],
    batch: Mapping[str, Any],
    spectra: Spectra | None = None,
    found: Mapping[tuple[str, int], Measured] | None = None,
) -> Iterator[dict[str, Any]]:
    """One row of scores.csv for each method, of a contrast one for each of its two classes.

    Each measure of `found`, (method, column explained) -> what was measured, adds a column, empty
    where it has no value, and so does what it found out beside. What `explain_spectra` found adds,
    in the rows of its class, "share_<spectrum>_<measure>", "drop_<spectrum>" and "drop_all", see
    `SpectrumRelevance`. Of a network without classes there is the "value" of its column, and of a
    method what it found out beside its map (`Explanation.numbers`).

    Raises:
        ConfigError: two of these would write the same column.
    """
    labels = true_labels(batch)
    for name, e in each_class(explanations):
        known = class_probabilities(model, e.outputs)
        target = int(e.target[0])
        best = max(known, key=known.__getitem__, default=None)
        row: dict[str, Any] = {
            "clip_id": batch["clip_id"][0],
            "path": batch["path"][0],
            "label": "; ".join(map(model.name, labels)),
            "prediction": "" if best is None else model.name(best),
            "p_prediction": "" if best is None else f"{known[best]:.6f}",
            "target": model.name(target),
            "p_target": f"{known[target]:.6f}" if target in known else "",
            "method": name,
        }
        row |= dict.fromkeys(("peak_frame", "peak_time_s"), "") | _peak(e, batch)
        row |= dict.fromkeys(("start_s", "end_s", "duration_s"), "") | _seconds(batch)
        measured = found[name, target].texts() if found and (name, target) in found else {}
        value = (
            {"value": f"{float(e.outputs[0, target]):.6g}"} if model.kind(target) is None else {}
        )
        yield one_row(
            ("scores.csv", row),
            ("a measure", measured),
            ("the network", value),
            (f"method {name!r}", {what: f"{float(n[0]):.4g}" for what, n in e.numbers.items()}),
            ("the spectra", _of_spectra(spectra, target)),
        )


def one_row(*parts: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A row of a table, from pairs of who writes and which columns.

    Raises:
        ConfigError: two write the same column.
    """
    row: dict[str, Any] = {}
    writers: dict[str, str] = {}
    for who, columns in parts:
        for column, value in columns.items():
            if column in row:
                raise ConfigError(
                    f"{who} finds {column!r}, but {writers[column]} has a column of this name; "
                    "rename one of them"
                )
            row[column], writers[column] = value, who
    return row


def _peak(e: Explanation, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of the frame with the most heat; none where there is no heat."""
    heat = e.evidence.cpu() * batch["valid"][:, :, None, None]
    energy = heat.clamp(min=0).sum((2, 3))[0]  # (T,)
    if not float(energy.max()) > 0:
        return {}
    peak = int(energy.argmax())
    return {
        "peak_frame": int(batch["frame_idx"][0, peak]),
        "peak_time_s": f"{float(batch['time_s'][0, peak]):.3f}",
    }


def _seconds(batch: Mapping[str, Any]) -> dict[str, str]:
    """The columns of the seconds that the clip is of its video."""
    if not clip_extent(batch):
        return {}
    shown = batch["time_s"][0][batch["valid"][0]]
    seconds = {"start_s": shown[0], "end_s": shown[-1], "duration_s": batch["duration_s"][0]}
    return {name: f"{float(value):.3f}" for name, value in seconds.items()}


def _of_spectra(spectra: Spectra | None, target: int) -> dict[str, str]:
    """The columns of the spectra for a whole clip."""
    columns: dict[str, str] = {}
    about = dict(_about(spectra, target))
    for measure, found in about.items():
        some = bool(found.total.any())
        for s, name in enumerate(found.spectra):
            columns[f"share_{name}_{measure}"] = _signed(found.total[0, s]) if some else ""
    drops = {name: _signed(drop) for name, drop in _drops(about).items()}
    together = {"drop_all": drops.pop(ALL)} if ALL in drops else {}
    columns |= {f"drop_{name}": text for name, text in drops.items()}
    return one_row(("a spectrum", columns), ("all spectra", together))


def _drops(spectra: Spectra | None) -> dict[str | None, float]:
    """Spectrum -> by how much hiding it lowers the score; `ALL` for all of them at once."""
    drops: dict[str | None, float] = {}
    for found in (spectra or {}).values():
        if found.drop is not None:
            drops |= zip(found.spectra, found.drop[0].tolist(), strict=True)
        if found.drop_all is not None:
            drops[ALL] = float(found.drop_all[0])
    return drops


def _about(spectra: Spectra | None, target: int) -> list[tuple[str, SpectrumRelevance]]:
    """(measure, what it found) for a class."""
    return [(m, found) for m, found in (spectra or {}).items() if int(found.target[0]) == target]


def relevance_rows(
    model: Explainable,
    explanations: Mapping[str, Explanation],
    batch: Mapping[str, Any],
    spectra: Spectra | None = None,
) -> Iterator[dict[str, Any]]:
    """One row of relevance.csv for each method and frame, padding left out.

    `frame` counts in the clip, as in the images; `frame_idx` in the video. `share` is empty
    where a map says nothing, `attention` where the network has none. What `explain_spectra` found
    adds "share_<spectrum>_<measure>", the same whatever the method.
    """
    for name, e in each_class(explanations):
        shares = frame_relevance(e, batch)
        weights = next(iter(e.attention.values()), None)
        for t in batch["valid"][0].nonzero()[:, 0].tolist():
            yield {
                "clip_id": batch["clip_id"][0],
                "path": batch["path"][0],
                "method": name,
                "target": model.name(int(e.target[0])),
                "frame": t,
                "frame_idx": int(batch["frame_idx"][0, t]),
                "time_s": f"{float(batch['time_s'][0, t]):.3f}",
                "share": "" if np.isnan(shares[t]) else f"{shares[t]:.6f}",
                "attention": "" if weights is None else f"{float(weights[0, t]):.6f}",
            } | {
                f"share_{spectrum}_{measure}": _signed(found.share[0, s, t])
                for measure, found in _about(spectra, int(e.target[0]))
                for s, spectrum in enumerate(found.spectra)
                if found.share.any()
            }


def each_class(explanations: Mapping[str, Explanation]) -> Iterator[tuple[str, Explanation]]:
    """(method, explanation), with both classes of a contrast."""
    for name, e in explanations.items():
        yield name, e
        if isinstance(e, Contrast):
            yield name, e.against


def _signed(value: Tensor | float) -> str:
    number = round(float(value), 6) + 0.0  # no -0
    return "" if np.isnan(number) else f"{number:.6f}"


def page_scores(
    rows: Sequence[Mapping[str, Any]], spectra: Spectra | None = None
) -> dict[str, str]:
    """What the report shows of a clip: method (of a contrast for A and B) -> its peak.

    Args:
        rows: of scores.csv.
        spectra: what `explain_spectra` found, of which the drops are shown.
    """
    shown: dict[str, str] = {}
    classes = list(dict.fromkeys(row["target"] for row in rows))  # A's rows come first
    for row in rows:
        if row.get("peak_time_s"):
            role = f" for {'AB'[classes.index(row['target'])]}" if len(classes) > 1 else ""
            shown[row["method"] + role] = f"peak {row['peak_time_s']} s"
    drops = [
        f"by {round(drop, 2) + 0.0:.2f} without {'any' if name is ALL else name.upper()}"
        for name, drop in _drops(spectra).items()
        if not np.isnan(drop)
    ]
    if drops:
        what = "probability" if rows[0]["p_target"] else "column"
        shown[f"{what} drops"] = ", ".join(drops)
    return shown
