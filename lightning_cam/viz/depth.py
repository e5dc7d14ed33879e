"""Depth and errors as colours, and images of depth beside its ground truth."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from lightning_cam.viz.captions import draw_scale
from lightning_cam.viz.clip_figure import PanelScale
from lightning_cam.viz.clip_video import panel_size
from lightning_cam.viz.drawing import (
    FAINT,
    MUTED,
    Canvas,
    Color,
    line_height,
    resize,
    shorten,
)
from lightning_cam.viz.layout import MARGIN
from lightning_cam.viz.overlay import check_frames

UNKNOWN: Color = (150, 150, 150)  # where there is no value, in all these images
_ENDS = (1, 99)  # percentiles at the ends of a scale: single pixels may lie anywhere
_ENOUGH = 200_000  # values tell them
_BETWEEN = 8  # pixels


def _lut(name: int) -> np.ndarray:
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    return cv2.applyColorMap(ramp, name)[:, 0, ::-1].copy()


# Both even to the eye and to every kind of colour vision, and neither that of the heat.
DEPTH_LUT = _lut(cv2.COLORMAP_MAGMA)  # (256, 3) uint8 RGB, from far (dark) to near (bright)
ERROR_LUT = _lut(cv2.COLORMAP_VIRIDIS)  # from none (dark) to much (bright)


def depth_range(depth: np.ndarray) -> tuple[float, float]:
    """The nearest and the farthest depth worth a colour: percentiles of what is known.

    Args:
        depth: of any shape, in metres; 0 and NaN are unknown.

    Returns:
        near < far in metres; NaN where nothing is known.
    """
    known = depth[_known(depth)]
    if not len(known):
        return np.nan, np.nan
    near, far = (float(end) for end in np.percentile(_some(known), _ENDS))
    return (near, far) if far > 1.02 * near else (near / 1.1, far * 1.1)


def error_range(error: np.ndarray) -> float:
    """The error at the end of the scale: a high percentile of what is known, NaN where nothing."""
    known = error[np.isfinite(error)]
    return float(np.percentile(_some(known), _ENDS[1])) if len(known) else np.nan


def colour_depth(
    depth: np.ndarray, near: float | None = None, far: float | None = None
) -> np.ndarray:
    """Colour depth by its inverse, near bright and far dark, on one scale for the whole clip.

    Args:
        depth: (T, h, w) in metres; 0 and NaN are unknown and become grey.
        near, far: ends of the scale in metres, beyond which colours do not change; by default
            those of `depth_range`.

    Returns:
        (T, h, w, 3) uint8 RGB.

    Raises:
        ValueError: wrong shape, or near and far are not a range.
    """
    _check(depth, "depth")
    own = depth_range(depth) if near is None or far is None else (near, far)
    near, far = own[0] if near is None else near, own[1] if far is None else far
    known = _known(depth)
    if known.any() and not 0 < near < far:
        raise ValueError(f"near, far: expected 0 < near < far, got {near:.3g} and {far:.3g}")
    inverse = 1 / np.where(known, depth, np.inf).astype(np.float32)
    return _colored((inverse - 1 / far) / (1 / near - 1 / far), known, DEPTH_LUT)


def colour_error(error: np.ndarray, high: float | None = None) -> np.ndarray:
    """Colour errors, small dark and large bright, on one scale for the whole clip.

    Args:
        error: (T, h, w), not negative; NaN is unknown and becomes grey.
        high: the end of the scale, by default that of `error_range`.

    Returns:
        (T, h, w, 3) uint8 RGB.

    Raises:
        ValueError: wrong shape.
    """
    _check(error, "error")
    high = error_range(error) if high is None else high
    return _colored(error / (high or 1.0), np.isfinite(error), ERROR_LUT)


def depth_scale(near: float, far: float, unit: str = "m") -> PanelScale:
    """What the colours of `colour_depth` stand for, for `ClipFigure.scales`.

    Args:
        near, far: its ends.
        unit: of depth; "" where it is known up to a factor only.
    """
    if not np.isfinite((near, far)).all():
        return PanelScale(np.array([UNKNOWN], np.uint8), "depth unknown", "")
    return PanelScale(
        DEPTH_LUT[::-1], f"{near:.2g} {unit}".rstrip(), f"{far:.2g} {unit}".rstrip(), "by 1/depth"
    )


def error_scale(high: float) -> PanelScale:
    """What the colours of `colour_error` stand for, for `ClipFigure.scales`."""
    if not np.isfinite(high):
        return PanelScale(np.array([UNKNOWN], np.uint8), "error unknown", "")
    return PanelScale(ERROR_LUT, "0", f"{high:.2g}")


def draw_depths(
    rows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray | None]],
    title: str = "depth",
    unit: str = "m",
) -> np.ndarray:
    """Draw frames beside their predicted and their true depth, all on one scale.

    Args:
        rows: (frame (H, W, 3) uint8 RGB, prediction (h, w), truth or None) of each image; depth
            in metres, of any size, 0 and NaN unknown. A prediction that knows no scale has to be
            scaled before.
        title: stands above.
        unit: of depth, see `depth_scale`.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ValueError: there are no rows, or a wrong shape.
    """
    if not rows:
        raise ValueError("rows: there is no depth to draw")
    truths = [truth for *_, truth in rows if truth is not None]
    heads = ["frame", "prediction", "truth"][: 3 if truths else 2]
    for frame, *depths in rows:
        check_frames(frame[None])
        for depth, name in zip(depths, heads[1:], strict=False):
            if depth is not None:
                _check(depth[None], name)
    near, far = depth_range(np.concatenate([d.ravel() for d in truths or [p for _, p, _ in rows]]))
    sizes = [panel_size(*frame.shape[:2]) for frame, *_ in rows]
    cell = max(width for _, width in sizes) + _BETWEEN
    top = MARGIN + line_height(18) + 6 + line_height(14) + 2
    body = sum(height + _BETWEEN for height, _ in sizes)
    width = max(2 * MARGIN + cell * len(heads) - _BETWEEN, 360)
    canvas = Canvas(width, top + body + line_height(13) + MARGIN)
    canvas.text(MARGIN, MARGIN, shorten(title, 18, width - 2 * MARGIN), 18)
    for n, head in enumerate(heads):
        canvas.text(MARGIN + cell * n, top - line_height(14) - 2, head, 14, MUTED)
    y = top
    for (frame, *depths), size in zip(rows, sizes, strict=True):
        canvas.paste(resize(frame, *size), MARGIN, y)
        for n, depth in enumerate(depths[: len(heads) - 1]):
            x = MARGIN + cell * (n + 1)
            if depth is None:
                canvas.box((x, y, x + size[1], y + size[0]), FAINT)
                middle = x + size[1] // 2, y + size[0] // 2
                canvas.text(*middle, shorten("no ground truth", 13, size[1]), 13, MUTED, "mm")
            else:
                canvas.paste(colour_depth(_resized(depth, size)[None], near, far)[0], x, y)
        y += size[0] + _BETWEEN
    note = PanelScale(**{**vars(depth_scale(near, far, unit)), "note": "by 1/depth; grey: unknown"})
    draw_scale(canvas, note, MARGIN, y, width - 2 * MARGIN)
    return canvas.pixels()


def _known(depth: np.ndarray) -> np.ndarray:
    return np.isfinite(depth) & (depth > 0)


def _some(values: np.ndarray) -> np.ndarray:
    return values[:: max(1, len(values) // _ENOUGH)]


def _check(values: np.ndarray, name: str) -> None:
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"{name}: expected the shape (T, h, w), got {tuple(values.shape)}")


def _colored(level: np.ndarray, known: np.ndarray, lut: np.ndarray) -> np.ndarray:
    """Levels 0 to 1 in the colours of a table, grey where nothing is known."""
    at = np.clip(np.where(known, level, 0) * 255 + 0.5, 0, 255).astype(np.uint8)
    return np.where(known[..., None], lut[at], np.array(UNKNOWN, np.uint8))


def _resized(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth at another size, its inverse averaged over what is known: points must not drown."""
    known = _known(depth)
    weight = resize(known.astype(np.float32), *size)
    inverse = resize(np.where(known, 1 / np.where(known, depth, 1), 0).astype(np.float32), *size)
    enough = weight > (0.5 if size[0] > depth.shape[0] else 0.02)
    return np.where(enough, weight / np.maximum(inverse, 1e-9), 0)
