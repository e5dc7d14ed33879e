"""The picture of deletion and insertion curves: right places, right words, text that fits."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_cam.viz import CurveLine, CurvePanel, curves, draw_curves
from lightning_cam.viz.curve_styles import curve_styles, round_ticks
from lightning_cam.viz.drawing import BLUE, WRONG, Canvas

Pairs = dict[str, tuple[CurveLine, CurveLine]]


def line(start: float, end: float, half: float | None = None, steps: int = 20) -> CurveLine:
    score = np.linspace(start, end, steps + 1)
    area, std = float(score.mean()), float("nan") if half is None else 0.12
    low, high = (None, None) if half is None else (score - half, score + half)
    return CurveLine(score, area, std, low, high)


def panels(drawn: Pairs, score: str = "probability", least: bool = False) -> list[CurvePanel]:
    """Deletion and insertion."""
    first = "coldest" if least else "hottest"
    better = ("higher", "lower") if least else ("lower", "higher")
    names = (("deletion", "hidden"), ("insertion", "brought back"))
    return [
        CurvePanel(
            name, better[n], score, f"share of the clip {changed}, {first} first",  # type: ignore[arg-type]
            {method: pair[n] for method, pair in drawn.items()},
        )
        for n, (name, changed) in enumerate(names)
    ]  # fmt: skip


def pair(half: float | None = None, high: float = 0.9) -> tuple[CurveLine, CurveLine]:
    return line(high, 0.1, half), line(0.1, high, half)


@pytest.fixture
def canvases(monkeypatch: pytest.MonkeyPatch) -> list[Canvas]:
    """The canvases drawn on."""
    made: list[Canvas] = []

    class Kept(Canvas):
        def __init__(self, *size: int) -> None:
            super().__init__(*size)
            made.append(self)

    monkeypatch.setattr(curves, "Canvas", Kept)
    return made


def words(canvas: Canvas) -> list[str]:
    return [text for text, _ in canvas.boxes]


def test_every_text_fits_and_none_lies_on_another(canvases: list[Canvas]) -> None:
    long = "a method with a name so long that it can hardly be read, layer trunk.layer4.0.relu " * 2
    few: Pairs = {"gradcam": pair()}
    many: Pairs = {f"{long} {n}": pair(0.1) for n in range(9)} | {"random": pair(0.1)}
    draw_curves(panels(few))
    several = panels(many, f"probability of {long}")
    draw_curves(several, baselines=["random"], title=long, note=long)
    draw_curves(panels({"m": (line(-3e4, 1.5e5), line(0, 1))}, "output 3", least=True))
    other = CurvePanel("robustness", None, "similarity", long, {"m": line(2e5, 0), "b": line(0, 1)})
    draw_curves([*several, other], note=long)
    draw_curves([other])
    for canvas in canvases:
        height, width = canvas.pixels().shape[:2]
        for text, (x0, y0, x1, y1) in canvas.boxes:
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height, text
        for (a, p), (b, q) in combinations(canvas.boxes, 2):
            apart = p[2] <= q[0] or q[2] <= p[0] or p[3] <= q[1] + 2 or q[3] <= p[1] + 2
            assert apart, (a, b)


def test_it_says_what_is_shown(canvases: list[Canvas]) -> None:
    drawn: Pairs = {"gradcam": pair(0.1), "random": pair(0.1)}
    draw_curves(panels(drawn, "probability of walking"), baselines=["random"], note="8 clips")
    draw_curves(panels(drawn, least=True))
    said = words(canvases[0])
    assert said.count("probability of walking") == 2 and "8 clips" in said
    assert said.count("0.500 ± 0.120") == 4
    assert said.index("lower is better") < said.index("higher is better")
    assert "share of the clip hidden, hottest first" in said
    assert "share of the clip brought back, hottest first" in said
    turned = words(canvases[1])
    assert turned.index("higher is better") < turned.index("lower is better")
    assert "share of the clip hidden, coldest first" in turned


def diagram(lines: dict[str, CurveLine], *baselines: str) -> np.ndarray:
    styles = curve_styles(list(lines), baselines)
    return curves._diagram(lines, styles, round_ticks([x.score for x in lines.values()]))


def at(image: np.ndarray, share: float, level: float) -> np.ndarray:
    """The 5 x 5 pixels around a point of a diagram whose axis is [0, 1]."""
    x = curves._PAD + round(share * curves._WIDTH)
    y = curves._PAD + round((1 - level) * curves._HEIGHT)
    return image[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3)


def has(pixels: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((np.abs(pixels.astype(int) - color).max(1) <= 3).any())


def test_curves_lie_where_their_numbers_say() -> None:
    lines = {"a": line(1, 0), "b": line(0.2, 0.8), "random": line(0.5, 0.5)}
    image = diagram(lines, "random")
    for share in (0.02, 0.33, 0.81):
        assert has(at(image, share, 1 - share), BLUE)
        assert has(at(image, share, 0.2 + 0.6 * share), WRONG)
        assert at(image, share, 0.5).max(1).min() < 215  # thin, grey
    assert not has(at(image, 0.9, 0.9), BLUE)


def test_intervals_are_shaded_but_not_those_of_baselines() -> None:
    paper = (255, 255, 255)
    lines = {"a": line(0.9, 0.9, 0.08), "random": line(0.25, 0.25, 0.08), "top": line(0, 1)}
    image = diagram(lines, "random")
    assert not has(at(image, 0.3, 0.85), paper) and not has(at(image, 0.3, 0.95), paper)
    assert has(at(image, 0.72, 0.29), paper) and has(at(image, 0.72, 0.21), paper)
    without = diagram({k: CurveLine(v.score, v.auc) for k, v in lines.items()}, "random")
    assert has(at(without, 0.3, 0.85), paper)


def test_equal_curves_show_both_methods() -> None:
    lines = {"a": line(0.5, 0.5), "b": line(0.5, 0.5), "top": line(0, 1)}
    image = diagram(lines)
    for color in (BLUE, WRONG):
        assert (np.abs(image.astype(int) - color).max(-1) <= 3).sum() > 100


@given(st.floats(-1e6, 1e6), st.floats(1e-9, 1e6))
def test_the_axis_has_round_numbers_around_all_scores(low: float, size: float) -> None:
    scores = np.array([low, low + size])
    ticks = round_ticks([scores])
    step = ticks[1] - ticks[0]
    assert ticks[0] <= scores.min() + 0.01 * step and ticks[-1] >= scores.max() - 0.01 * step
    assert 0 in ticks or scores.max() < 0
    assert 2 <= len(ticks) <= 8


def test_probabilities_have_the_axis_one_expects() -> None:
    assert round_ticks([np.array([0.03, 0.97])]) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert round_ticks([np.array([0, 1.0])]) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert round_ticks([np.zeros(3)])[-1] == 1


def test_intervals_lie_on_the_axis_too() -> None:
    def top(drawn: Pairs, *baselines: str) -> float:
        lines = [{name: pair[n] for name, pair in drawn.items()} for n in range(2)]
        return round_ticks(curves._extents(lines, baselines))[-1]

    assert top({"m": pair(high=0.4)}) == pytest.approx(0.4)
    assert top({"m": pair(0.3, high=0.4)}) == pytest.approx(0.8)
    assert top({"m": pair(0.3)}) == 1  # where probabilities are shown, none lies above 1
    assert top({"m": pair(high=0.4), "random": pair(5.0, high=0.4)}, "random") < 1  # not drawn
    assert top({"m": pair(0.6, high=2)}) > 2.5


def test_diagrams_that_show_the_same_have_one_axis() -> None:
    low, high = {"m": line(0, 0.1)}, {"m": line(0, 0.9)}
    first = CurvePanel("a", "lower", "probability", "share", low)
    second = CurvePanel("b", "lower", "probability", "share", high)
    other = CurvePanel("c", "lower", "similarity", "share", low)
    ticks = [curves._ticks(panel, [first, second, other], ()) for panel in (first, second, other)]
    assert ticks[0] == ticks[1] != ticks[2]


def test_a_method_without_one_of_the_curves_has_a_dash(canvases: list[Canvas]) -> None:
    first = CurvePanel("a", "lower", "p", "share", {"m": line(0, 1)})
    second = CurvePanel("b", "lower", "p", "share", {"m": line(0, 1), "n": line(0, 1)})
    draw_curves([first, second])
    assert words(canvases[0]).count("-") == 1 and words(canvases[0]).count("0.500") == 3


def test_what_cannot_be_drawn_is_named() -> None:
    with pytest.raises(ValueError, match="no curves"):
        draw_curves([])
    with pytest.raises(ValueError, match="no curves"):
        draw_curves([CurvePanel("a", None, "b", "c", {})])
    with pytest.raises(ValueError, match=r"low: expected the shape"):
        CurveLine(np.zeros(3), 0, 0, np.zeros(4), np.zeros(4))
    with pytest.raises(ValueError, match="finite"):
        CurveLine(np.full(3, np.nan), 0)
