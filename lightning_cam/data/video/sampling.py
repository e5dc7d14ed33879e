"""Which frames of a video become the steps of a clip: index arithmetic, no pixels, no torch.

A video has source frames `0 .. n-1`. Sampling by rate turns them into *steps* (source indices at
the wanted rate), of which a clip takes a window; sampling by count spreads a fixed number of
frames over the whole video. Random choices come from the generator that is passed in, so they
depend on nothing else; without one the choice is the centred one of evaluation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

# Matroska and FLV clocks tick in milliseconds: closer than this, two instants are the same.
TICK = 1e-3


def resample_indices(num_frames: int, source_fps: float, fps: float) -> Indices:
    """Source index of every step at `fps`, for a video of constant rate.

    Step k is the frame nearest to the instant k/fps (halves go up), and the last step lies inside
    the video. Rounding each step keeps 29.97 to 7.5 fps from drifting. Steps repeat where `fps`
    exceeds `source_fps`.

    Args:
        num_frames: n, at least 1.
        source_fps: frames per second of the video.
        fps: steps per second wanted.

    Returns:
        (n_t,) never decreasing, first 0, all below n.
    """
    _at_least_one(num_frames=num_frames)
    _positive(source_fps=source_fps, fps=fps)
    steps = np.arange(int((num_frames - 1) * fps / source_fps + 1e-9) + 1)
    nearest = np.floor(steps * (source_fps / fps) + 0.5).astype(np.int64)
    return np.minimum(nearest, num_frames - 1)


def resample_times(times: ArrayLike, fps: float) -> Indices:
    """Source index of every step at `fps`, by timestamps: right also for variable frame rates.

    The same rule as `resample_indices`; instants closer than a millisecond count as equal,
    because some containers round to it.

    Args:
        times: (n,) seconds, strictly increasing; only differences to the first matter.
        fps: steps per second wanted.

    Returns:
        (n_t,) never decreasing, first 0, all below n.
    """
    at = np.asarray(times, dtype=np.float64)
    _at_least_one(num_frames=at.size)
    _positive(fps=fps)
    at = at - at[0]
    wanted = np.arange(int((at[-1] + TICK) * fps) + 1) / fps  # (n_t,)
    after = np.minimum(np.searchsorted(at, wanted), at.size - 1)
    before = np.maximum(after - 1, 0)
    later = at[after] - wanted <= wanted - at[before] + TICK
    return np.where(later, after, before).astype(np.int64)


def temporal_window(
    num_steps: int, length: int, *, stride: int = 1, rng: np.random.Generator | None = None
) -> tuple[Indices, Mask]:
    """`length` positions, `stride` apart, among `num_steps` steps.

    Args:
        num_steps: how many steps there are.
        length: T, how many the clip has.
        stride: distance between neighbours, in steps.
        rng: draws the start in training; None centres the window.

    Returns:
        positions (T,) into the steps and valid (T,). Where there are too few steps all of them
        are taken and the last one repeats with valid False.
    """
    _at_least_one(num_steps=num_steps, length=length, stride=stride)
    spare = num_steps - ((length - 1) * stride + 1)
    start = 0
    if spare > 0:
        start = spare // 2 if rng is None else int(rng.integers(spare + 1))
    positions = start + stride * np.arange(length, dtype=np.int64)
    valid = positions < num_steps
    return np.where(valid, positions, positions[valid][-1]), valid


def uniform_segments(
    num_frames: int, segments: int, *, rng: np.random.Generator | None = None
) -> tuple[Indices, Mask]:
    """One frame from each of `segments` equal parts of the video (TSN sampling).

    Args:
        num_frames: n, at least 1.
        segments: N, how many frames to take.
        rng: draws one frame per part in training; None takes the middle one.

    Returns:
        indices (N,) never decreasing, and valid (N,), all True: with fewer frames than parts
        frames repeat evenly, and every one of them is real.
    """
    _at_least_one(num_frames=num_frames, segments=segments)
    edges = np.arange(segments + 1, dtype=np.int64) * num_frames  # in units of 1/N frame
    low = edges[:-1] // segments
    if num_frames < segments:
        indices = low
    elif rng is None:
        indices = (edges[:-1] + edges[1:]) // (2 * segments)
    else:
        high = -(-edges[1:] // segments) - 1  # a frame across an edge belongs to both parts
        indices = rng.integers(low, np.maximum(low, high), endpoint=True)
    return indices.astype(np.int64), np.ones(segments, dtype=np.bool_)


def _at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < np.inf:
            raise ValueError(f"{name} must be a positive number, got {value}")
