"""Heatmaps laid over frames, one colour scale per clip."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from lightning_cam.errors import UnknownNameError
from lightning_cam.viz.drawing import CLASS_A, CLASS_B

# Opacity reaches its full value at this share of the scale and falls to zero with the heat, so
# that the image stays visible wherever nothing is claimed.
_FULL_OPACITY_AT = 0.5
_GRAINS = 98  # percentile at the end of a grainy map's scale


# Scales by name: lightness rises all the way, so that they are read by every kind of colour vision
# and in grey; Turbo, which does not, is what older figures have.
COLORMAPS = {
    "inferno": cv2.COLORMAP_INFERNO,
    "magma": cv2.COLORMAP_MAGMA,
    "plasma": cv2.COLORMAP_PLASMA,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "cividis": cv2.COLORMAP_CIVIDIS,
    "turbo": cv2.COLORMAP_TURBO,
}
COLORMAP, OPACITY = "inferno", 0.7


@lru_cache(maxsize=16)
def lut(colormap: str = COLORMAP, *, signed: bool = False) -> np.ndarray:
    """The 256 colours of a scale, (256, 3) uint8 RGB; signed, blue-white-red from -1 to 1."""
    if signed:
        stops = np.array([CLASS_B, (247, 247, 247), CLASS_A])
        at = np.linspace(0, 1, 256)
        return np.stack([np.interp(at, (0, 0.5, 1), c) for c in stops.T], 1).round().astype("uint8")
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    return cv2.applyColorMap(ramp, COLORMAPS[colormap])[:, 0, ::-1].copy()  # cv2 speaks BGR


@lru_cache(maxsize=16)
def _tables(alpha: float, colormap: str, signed: bool) -> tuple[np.ndarray, np.ndarray]:
    """What is kept of the image (in 255ths) and what is added to it, per heat level."""
    level = np.linspace(0, 1, 256)
    if signed:  # 256 levels have no exact middle; the two nearest to zero stay transparent
        level = np.clip(np.abs(2 * level - 1) - 1 / 255, 0, 1)
    opacity = alpha * np.minimum(level / _FULL_OPACITY_AT, 1)  # (256,)
    add = (opacity[:, None] * lut(colormap, signed=signed)).round().astype(np.uint8)
    keep = np.repeat((255 * (1 - opacity)).round().astype(np.uint8)[:, None], 3, axis=1)
    return keep[:, None], add[:, None]  # (256, 1, 3) as cv2.applyColorMap wants them


def check_frames(frames: np.ndarray) -> None:
    """Raise unless `frames` is a non-empty uint8 array of shape (T, H, W, 3)."""
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        got = getattr(frames, "dtype", type(frames).__name__)
        raise TypeError(f"frames: expected a uint8 array (T, H, W, 3), got {got}")
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"frames: expected the shape (T, H, W, 3), got {tuple(frames.shape)}")


def check_heatmap(heatmap: np.ndarray, frames: np.ndarray, name: str = "heatmap") -> None:
    """Raise unless `heatmap` is numeric and has one value for each pixel of `frames`."""
    if not isinstance(heatmap, np.ndarray) or heatmap.dtype.kind not in "fiub":
        got = getattr(heatmap, "dtype", type(heatmap).__name__)
        raise TypeError(f"{name}: expected a float array (T, H, W), got {got}")
    if heatmap.shape != frames.shape[:3]:
        raise ValueError(
            f"{name}: expected the frames' shape (T, H, W) = {frames.shape[:3]}, "
            f"got {tuple(heatmap.shape)}"
        )


def check_colormap(colormap: str) -> None:
    """Raise unless it is one of `COLORMAPS`."""
    if colormap not in COLORMAPS:
        raise UnknownNameError("colormap", colormap, COLORMAPS)


def no_evidence(heatmap: np.ndarray, *, signed: bool = False) -> str:
    """Why a heatmap (T, H, W) says nothing and is therefore not drawn; "" where it does."""
    low, high = float(heatmap.min()), float(heatmap.max())
    if not np.isfinite((low, high)).all():  # min and max pass a NaN on
        return "map has NaN or infinite values"
    if high - low <= 1e-6 * max(abs(low), abs(high)):  # the rounding of float32 is not evidence
        return f"map is {high:.3g} everywhere" if high else "map is zero everywhere"
    if high <= 0 and not signed:
        return "map is nowhere positive"
    return ""


def clip_scale(heatmap: np.ndarray, *, signed: bool = False, grainy: bool = False) -> float:
    """The value at the end of a clip's colour scale: its maximum, of |heat| when signed.

    Of a grainy map the value that 2% of its heat exceeds: single voxels would take all the colours.
    """
    heat = np.abs(heatmap) if signed else heatmap
    if grainy and (some := heat[heat > 0]).size:
        return float(np.percentile(some, _GRAINS))
    return float(heat.max())


def overlay(
    frames: np.ndarray,
    heatmap: np.ndarray,
    alpha: float = OPACITY,
    scale: float | None = None,
    *,
    signed: bool = False,
    colormap: str = COLORMAP,
) -> np.ndarray:
    """Lay a heatmap over its frames.

    The colour scale runs from 0 to the maximum of the whole clip, never of one frame, so that it
    shows when the evidence occurs and not only where. Colours become more opaque with the heat
    and are gone at zero. A map without evidence (`no_evidence`) leaves the frames as they are.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        heatmap: (T, H, W), any scale; negative values count as 0 unless `signed`.
        alpha: opacity of the upper half of the scale, 0 to 1.
        scale: heat at the end of the colour scale; by default the clip's maximum. Give the same
            one to compare several clips.
        signed: colour negative heat blue and positive heat red, symmetric around 0.
        colormap: one of `COLORMAPS`, for maps that are not signed.

    Returns:
        (T, H, W, 3) uint8 RGB.

    Raises:
        TypeError, ValueError: wrong dtype, shape, alpha or scale.
    """
    check_frames(frames)
    check_heatmap(heatmap, frames)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected a number from 0 to 1, got {alpha}")
    if scale is not None and not 0 < scale < np.inf:
        raise ValueError(f"scale: expected a positive number, got {scale}")
    check_colormap(colormap)
    if no_evidence(heatmap, signed=signed):
        return frames.copy()
    scale = scale or clip_scale(heatmap, signed=signed)
    rows, width = heatmap.shape[0] * heatmap.shape[1], heatmap.shape[2]
    ratio = heatmap.reshape(rows, width) / scale  # cv2 wants two axes
    ratio = (np.clip(ratio, -1, 1) + 1) / 2 if signed else np.clip(ratio, 0, 1)
    level = cv2.convertScaleAbs(ratio.astype(np.float32), alpha=255)  # (T*H, W) uint8, rounded
    keep, add = _tables(float(alpha), colormap, signed)
    kept = cv2.multiply(
        frames.reshape(rows, width, 3), cv2.applyColorMap(level, keep), scale=1 / 255
    )
    return cv2.add(kept, cv2.applyColorMap(level, add)).reshape(frames.shape)


def color_bar(
    width: int, height: int, *, signed: bool = False, colormap: str = COLORMAP
) -> np.ndarray:
    """The colour scale from its low (left) to its high end: (height, width, 3) uint8 RGB."""
    row = lut(colormap, signed=signed)[np.linspace(0, 255, width).round().astype(int)]
    return np.broadcast_to(row, (height, width, 3)).copy()
