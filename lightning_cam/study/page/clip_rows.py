"""Clips on the page: a video with names above its tiles, heat over time, and the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from lightning_cam.metrics import format_number
from lightning_cam.study.page.clip_curves import clip_curves
from lightning_cam.study.page.clip_sheets import FPS, ClipSheet
from lightning_cam.study.results import Results
from lightning_cam.viz.layout import percent
from lightning_cam.viz.page import reference

_NAMES, _ROW, _HEAD = 230, 18, 22  # pixels: names of methods, a row's height, the frames' numbers
_WIDE = 900


def clip_rows(
    folder: Path, results: Results, clips: Sequence[ClipSheet], missing: Mapping[str, str]
) -> str:
    """All clips of a network and input, and those that are missing."""
    cards = "\n".join(_card(folder, results, clip) for clip in clips)
    left = "".join(f"<li><b>{escape(n)}</b> {escape(why)}</li>" for n, why in missing.items())
    key = (
        '<p class="note">Each map has a colour scale of its own, from nothing to its maximum over '
        "the clip. White outline: the ground truth, where it is known. Grey: no map. "
        '<span class="screen">Space plays, arrow keys go from frame to frame.</span></p>'
    )
    return key * bool(clips) + cards + (f"<ul>{left}</ul>" if left else "")


def _card(folder: Path, results: Results, clip: ClipSheet) -> str:
    video, poster = reference(folder, clip.video), reference(folder, clip.poster)
    high, wide = clip.layout.size
    names = "".join(
        _name(clip, n, said)
        for n, said in enumerate(("the clip", *(_called(clip, key) for key in clip.names)))
    )
    title, middle = escape(clip.title), clip.frames // 2
    return (
        f'<article class="clip"><h4>{title}</h4><p class="note">{escape(_facts(clip))}</p>\n'
        f'<div class="sheet" style="aspect-ratio:{wide}/{high};max-width:{wide}px">'
        f'<video src="{video}" data-poster="{poster}" data-fps="{FPS}" preload="none" loop muted '
        f'playsinline controls aria-label="{title} as all methods see it"></video>'
        f'<img src="{poster}" alt="" loading="lazy">{names}</div>\n'
        f'<div class="player" style="max-width:{wide}px" hidden><button type="button">▶ play'
        f'</button><input type="range" min="0" max="{clip.frames - 1}" value="{middle}" '
        f'aria-label="frame of {title}"><output>frame {middle} of {clip.frames}</output></div>\n'
        f"<details><summary>Heat over time, curves and numbers</summary>"
        f"{_times(clip)}{clip_curves(results, clip)}{_numbers(results, clip)}</details></article>"
    )


def _name(clip: ClipSheet, n: int, title: str) -> str:
    """A tile's name, placed in parts of the sheet."""
    high, wide = clip.layout.size
    top, left = clip.layout.corner(n)
    place = (
        f"left:{100 * left / wide:.3f}%;top:{100 * top / high:.3f}%;"
        f"width:{100 * clip.layout.width / wide:.3f}%;height:{100 * clip.layout.band / high:.3f}%"
    )
    return f'<span class="tile" style="{place}" title="{escape(title)}">{escape(title)}</span>'


def _called(clip: ClipSheet, key: str) -> str:
    """A method's title, and what is wrong with its map."""
    doubt = ": no map" if key in clip.lost else ": no evidence" if clip.shares[key] is None else ""
    return f"{clip.names[key]}{doubt}"


def _facts(clip: ClipSheet) -> str:
    row = next(iter(clip.rows.values()))
    target, sure = row.get("target", ""), row.get("p_target")
    facts = [f"explained: {target}" + (f" ({percent(sure)})" if sure is not None else "")] * bool(
        target
    )
    facts += [f"predicted: {row['prediction']}"] * bool(row.get("prediction"))
    facts += [f"true class: {row['label']}"] * bool(row.get("label"))
    return " · ".join(facts)


def _times(clip: ClipSheet) -> str:
    """Each method's share of the heat in each frame, darker is more; the truth's frames marked."""
    step = (_WIDE - _NAMES) / clip.frames
    high = _HEAD + _ROW * len(clip.names) + 4
    marks = []
    if clip.action is not None:
        marks = [
            f'<rect class="truth" x="{_NAMES + t * step:.1f}" y="{_HEAD - 5}" '
            f'width="{step:.1f}" height="4"/>'
            for t in np.flatnonzero(clip.action)
        ]
    every = max(1, clip.frames // 16)
    marks += [
        f'<text x="{_NAMES + (t + 0.5) * step:.1f}" y="{_HEAD - 8}" text-anchor="middle">{t}</text>'
        for t in range(0, clip.frames, every)
    ]
    for n, (key, title) in enumerate(clip.names.items()):
        y = _HEAD + _ROW * n
        marks.append(
            f'<text x="{_NAMES - 8}" y="{y + 13}" text-anchor="end">{escape(title)}</text>'
        )
        shares = clip.shares[key]
        if shares is None:
            marks.append(f'<text x="{_NAMES + 4}" y="{y + 13}">no evidence</text>')
            continue
        most = float(shares.max())
        marks += [
            f'<rect class="heat" x="{_NAMES + t * step:.1f}" y="{y}" width="{step - 1:.1f}" '
            f'height="{_ROW - 2}" fill-opacity="{share / most:.2f}"><title>frame {t}: '
            f"{percent(float(share))}</title></rect>"
            for t, share in enumerate(shares)
        ]
    truth = " The bar above: the action's time." if clip.action is not None else ""
    return (
        f'<svg class="times" viewBox="0 0 {_WIDE} {high}" role="img" aria-label="heat over time">'
        f'{"".join(marks)}<rect class="now" x="0" y="{_HEAD - 1}" width="{step:.1f}" '
        f'height="{high - _HEAD}" data-left="{_NAMES}" data-step="{step:.3f}"/></svg>'
        f'<p class="note">Share of the heat in each frame, darkest in its hottest one.{truth}</p>'
    )


def _numbers(results: Results, clip: ClipSheet) -> str:
    titles = results.design.titles
    heads = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles.values())
    rows = "".join(
        f'<tr><th scope="row">{escape(title)}</th>'
        + "".join(f"<td>{_text(clip.rows[key]['values'][name])}</td>" for name in titles)
        + "</tr>"
        for key, title in clip.names.items()
    )
    return (
        f'<div class="wide"><table class="numbers"><thead><tr><th scope="col">Method</th>{heads}'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _text(value: float | None) -> str:
    return "-" if value is None else format_number(value, 3)
