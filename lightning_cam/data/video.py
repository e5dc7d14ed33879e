"""The one place where video files are opened.

Reading a video wrongly is easy and silent, so every read has two parts. The *index* (how many
frames, when each is shown, where key frames are) always comes from PyAV's packets, never from a
count that the file claims. The *pixels* are then decoded and held to the index:

- mov, mp4, matroska, webm, flv, and AVI without reordered frames allow random access: only the
  groups of pictures that hold the wanted frames are decoded.
- Everything else (MPEG program and transport streams, WMV, other AVI ...) is decoded in order from
  frame 0, no further than the last wanted frame.

PyAV is what "auto" reads with. decord gives the same pixels at the same speed from intact files
that allow random access, and is taken there on request, if it counts and times the frames as the
index does. It is not the default because of what it does elsewhere: seeking in program streams
lands on wrong frames, many `.mpg` files lose their first frames even in order, bit errors in mp4
give wrong frames without an error, and some abort the process, which no `except` can catch.

Readers live inside one call and use one thread, so loader workers may be forked or spawned.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import av

# Before decord, whose bundled zlib otherwise breaks PNG reading and writing in OpenCV.
import cv2  # noqa: F401
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_cam.data.sampling import (
    Indices,
    resample_times,
    temporal_window,
    uniform_segments,
)
from lightning_cam.errors import ConfigError, VideoReadError

try:
    import decord
except ImportError:  # no wheel for this platform
    decord = None
else:
    decord.logging.set_level(decord.logging.QUIET)

SUFFIXES = (
    ".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts",
    ".webm", ".wmv",
)  # fmt: skip
READERS = ("auto", "decord", "pyav")
Pixels = NDArray[np.uint8]

_RANDOM_ACCESS = {"mov", "mp4", "matroska", "webm", "flv"}
_REENCODE = "re-encode it (ffmpeg -i FILE -c:v libx264 OUT.mp4)"


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """What is known of a video before its pixels.

    Attributes:
        path: the file.
        num_frames: frames that can be decoded.
        fps: true average rate, (n-1) / duration between first and last frame; of one frame alone
            or without timestamps, what the file claims (nan if nothing).
        height, width: of the frames as shown, that is after rotation.
        times: (n,) float64 seconds of each frame, first 0, strictly increasing.
        container: FFmpeg's name of the format, such as "mpeg" or "matroska,webm".
    """

    path: str
    num_frames: int
    fps: float
    height: int
    width: int
    times: NDArray[np.float64]
    container: str

    def steps(self, fps: float) -> Indices:
        """Source index of every step at `fps`, by timestamps. (n_t,)

        Raises:
            VideoReadError: the video's own rate is missing or implausible.
        """
        if not fps > 0:
            raise ConfigError(f"fps must be above 0, got {fps}")
        if not 1 < self.fps <= 240:
            raise VideoReadError(
                self.path,
                f"its frame rate ({self.fps:g} fps) is missing or implausible; choose frames by "
                "number instead, or set the rate (ffmpeg -r 30 -i FILE OUT.mp4)",
            )
        if fps > 1.01 * self.fps and self.num_frames > 1:
            warnings.warn(
                f"videos are sampled at {fps:g} fps, above their own rate: frames repeat",
                stacklevel=2,
            )
        return resample_times(self.times, fps)


class VideoFrames(NamedTuple):
    """Decoded frames and where they come from."""

    frames: Pixels  # (T, H, W, 3) RGB
    indices: Indices  # (T,) source frame numbers
    info: VideoInfo


def read_clip(
    path: str | Path,
    frames: Sequence[int] | None = None,
    *,
    fps: float | None = None,
    num_frames: int | None = None,
    reader: str = "auto",
) -> Pixels:
    """Read frames of a video file; only those asked for are kept, and decoded where possible.

    Args:
        path: any video file FFmpeg knows.
        frames: exact source indices, in any order, repeats allowed.
        fps: instead, every step at this rate, by timestamps.
        num_frames: with `fps` a centred window of so many steps, a short video repeating its last
            step; alone, the middle frames of so many equal parts of the video.
        reader: "auto", "pyav" or "decord". All give the same frames; decord (where installed, and
            only for containers with random access) does not notice damage as reliably.

    Returns:
        (T, H, W, 3) uint8 RGB, rotated as the file says. With no selection: all frames.

    Raises:
        VideoReadError: the file cannot be read, or has no such frame.

    Example:
        >>> clip = read_clip("v_biking_01_01.mpg", fps=7.5, num_frames=16)
    """
    if frames is not None and not (fps is None and num_frames is None):
        raise ConfigError("choose video frames either by `frames` or by `fps` and `num_frames`")
    if num_frames is not None and num_frames < 1:
        raise ConfigError(f"num_frames must be at least 1, got {num_frames}")

    def select(info: VideoInfo) -> ArrayLike:
        if frames is not None:
            return frames
        if fps is not None:
            steps = info.steps(fps)
            return (
                steps if num_frames is None else steps[temporal_window(len(steps), num_frames)[0]]
            )
        if num_frames is not None:
            return uniform_segments(info.num_frames, num_frames)[0]
        return np.arange(info.num_frames)

    return read_frames(path, select, reader=reader).frames


def read_frames(
    path: str | Path, select: Callable[[VideoInfo], ArrayLike], *, reader: str = "auto"
) -> VideoFrames:
    """Read the frames that `select` picks once the video's length and times are known.

    Args:
        path: any video file FFmpeg knows.
        select: from the `VideoInfo` to source indices. It may be called twice (when decoding shows
            that a damaged file has fewer frames than packets), so it must not change anything.
        reader: as in `read_clip`.

    Returns:
        frames, their source indices, and the `VideoInfo`.

    Raises:
        VideoReadError: the file cannot be read, or has no such frame.

    Example:
        >>> frames, indices, info = read_frames(path, lambda video: video.steps(7.5))
        >>> seconds = info.times[indices]
    """
    check_reader(reader)
    with _named(path):
        index = _scan(path)
        try:
            return _read(index, select, reader)
        except _OutOfStepError:
            return _read(_recount(index), select, "pyav")


def check_reader(reader: str) -> None:
    """Raise a ConfigError unless this is a reader that can be had here."""
    if reader not in READERS:
        raise ConfigError(f"unknown video reader {reader!r}: choose one of {', '.join(READERS)}")
    if reader == "decord" and decord is None:
        raise ConfigError("decord is not installed here: set the video reader to auto or pyav")


def probe(path: str | Path) -> VideoInfo:
    """Length, rate, size and timestamps of a video. Decodes only what it must.

    Raises:
        VideoReadError: the file cannot be read.
    """
    with _named(path):
        index = _scan(path)
        # In order there is nothing to trust but the decoder, so frames are counted by it.
        return (index if index.seekable or index.counted else _recount(index)).info


# --- index ------------------------------------------------------------------------------------


class _OutOfStepError(Exception):
    """Decoding did not give the frames that the packets promised."""


@dataclass(frozen=True, eq=False)
class _Index:
    info: VideoInfo
    turns: int  # quarter turns for np.rot90
    tick: float  # seconds per unit of pts
    claimed_fps: float
    seekable: bool
    pts: NDArray[np.int64] | None = None  # (n,) in display order; None = no sane timestamps
    keys: Indices | None = None  # display positions of the key frames, ascending
    counted: bool = False  # by decoding every frame, not by packets


def _scan(path: str | Path) -> _Index:
    """Index a video from its packets; only its first frame is decoded."""
    first, stamps, key_stamps, intact = None, [], [], True
    with _open(path) as (container, stream):
        for packet in container.demux(stream):
            if first is None:
                first = next(iter(packet.decode()), None)
            if packet.size == 0 or packet.is_discard:  # the end; or cut away by an edit list
                continue
            intact &= not packet.is_corrupt  # the last one of a file cut short
            stamps.append(packet.pts)
            if packet.is_keyframe:
                key_stamps.append(packet.pts)
        if first is None:
            raise VideoReadError(path, f"it has no frame that can be decoded; {_REENCODE}")
        formats = set(container.format.name.split(","))
        in_file_order = stamps == sorted(stamps, key=lambda stamp: (stamp is None, stamp))
        plain_avi = "avi" in formats and in_file_order and not stream.codec_context.has_b_frames
        turns = round(first.rotation / 90) % 4
        height, width = (first.width, first.height) if turns % 2 else (first.height, first.width)
        index = _Index(
            VideoInfo(str(path), 0, np.nan, height, width, np.empty(0), container.format.name),
            turns=turns,
            # AVI stores no presentation times: those of reordered frames are FFmpeg's guess.
            tick=np.nan
            if "avi" in formats and not plain_avi
            else float(stream.time_base or np.nan),
            claimed_fps=float(stream.average_rate or stream.guessed_rate or np.nan),
            seekable=bool(formats & _RANDOM_ACCESS) or plain_avi,
        )
    index = _with_times(index, None if None in stamps else sorted(stamps), len(stamps))
    if index.pts is None:
        return index if intact else _recount(index)
    if not intact or first.pts != index.pts[0]:  # leading frames that lack what they refer to
        return _recount(index)
    return replace(index, keys=np.searchsorted(index.pts, np.unique(key_stamps)))


def _recount(index: _Index) -> _Index:
    """The index by decoding every frame, for files whose packets do not tell."""
    if index.counted:
        raise VideoReadError(index.info.path, f"its frames cannot be told apart; {_REENCODE}")
    with _open(index.info.path) as (container, stream):
        seen = [(frame.pts, frame.is_corrupt) for frame in container.decode(stream)]
    # A file cut short ends in half a picture, shown up to a reordering (16) before the last one.
    broken = [k for k, (_, corrupt) in enumerate(seen) if corrupt]
    if broken and broken[0] >= len(seen) - 16:
        del seen[broken[0] :]
    stamps = [pts for pts, _ in seen]
    index = _with_times(index, None if None in stamps else stamps, len(stamps))
    return replace(index, seekable=False, counted=True)


def _with_times(index: _Index, stamps: list[int] | None, count: int) -> _Index:
    """Length, times and rate from timestamps, or from the claimed rate if those are not sane."""
    if count == 0:
        raise VideoReadError(index.info.path, f"it has no frame that can be decoded; {_REENCODE}")
    fps = index.claimed_fps
    pts = None if stamps is None else np.asarray(stamps, np.int64)
    if pts is None or not index.tick > 0 or (np.diff(pts) <= 0).any():
        times = np.arange(count) / (fps if fps > 0 else 1.0)
        info = replace(index.info, num_frames=count, fps=fps, times=times)
        return replace(index, info=info, pts=None, seekable=False)
    times = (pts - pts[0]) * index.tick
    if count > 1:
        fps = float((count - 1) / times[-1])
    return replace(index, info=replace(index.info, num_frames=count, fps=fps, times=times), pts=pts)


# --- pixels -----------------------------------------------------------------------------------


def _read(index: _Index, select: Callable[[VideoInfo], ArrayLike], reader: str) -> VideoFrames:
    indices = _checked(index.info, select(index.info))
    wanted, places = np.unique(indices, return_inverse=True)
    frames = None
    if reader == "decord" and index.seekable:
        try:
            frames = _decode_decord(index, wanted)
        except (decord.DECORDError, RuntimeError, IndexError, StopIteration) as error:
            raise VideoReadError(
                index.info.path, f"decord fails on it; set the reader to pyav, or {_REENCODE}"
            ) from error
    if frames is None:
        frames = _decode_pyav(index, wanted)
    in_order = len(wanted) == len(indices) and bool((places == np.arange(len(places))).all())
    return VideoFrames(frames if in_order else frames[places], indices, index.info)


def _checked(info: VideoInfo, indices: ArrayLike) -> Indices:
    wanted = np.atleast_1d(np.asarray(indices))
    if wanted.size == 0:
        raise VideoReadError(info.path, "no frames are asked for")
    if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
        raise VideoReadError(info.path, "frames are asked for by whole numbers in one list")
    outside = wanted[(wanted < 0) | (wanted >= info.num_frames)]
    if outside.size:
        raise VideoReadError(
            info.path,
            f"there is no frame {outside[0]}: it has {info.num_frames} "
            f"(0 to {info.num_frames - 1})",
        )
    return wanted.astype(np.int64)


def _decode_decord(index: _Index, wanted: Indices) -> Pixels | None:
    """Frames by decord; None where it counts or times frames otherwise than the index."""
    info = index.info
    video = decord.VideoReader(info.path, num_threads=1)
    if len(video) != info.num_frames:
        return None
    times = video.get_frame_timestamp(np.arange(info.num_frames))[:, 0]
    if not np.allclose(times, info.times, rtol=0, atol=0.25 / info.fps if info.fps > 0 else 1):
        return None
    frames = video.get_batch(wanted).asnumpy()
    return frames if frames.shape[1:] == (info.height, info.width, 3) else None


def _decode_pyav(index: _Index, wanted: Indices) -> Pixels:
    """Frames by PyAV: from the key frame before each where the file allows, else in order."""
    info = index.info
    pixels = np.empty((len(wanted), info.height, info.width, 3), np.uint8)
    with _open(info.path) as (container, stream):
        decoded, position = container.decode(stream), -1
        for row, number in enumerate(wanted):
            if index.seekable and index.pts is not None and index.keys is not None:
                key = index.keys[max(np.searchsorted(index.keys, number, "right") - 1, 0)]
                if key > position + 1:
                    container.seek(int(index.pts[key]), stream=stream)
                    decoded, position = container.decode(stream), key - 1
            frame = _advance(index, decoded, position, int(number))
            position = int(number)
            picture = np.rot90(frame.to_ndarray(format="rgb24"), index.turns)
            if picture.shape != pixels.shape[1:]:
                raise VideoReadError(info.path, f"its frames change size midway; {_REENCODE}")
            pixels[row] = picture
    return pixels


def _advance(index: _Index, decoded: Iterator[Any], position: int, number: int) -> Any:
    """Decode on from the frame after `position` up to `number`, frame by frame as indexed."""
    for frame in decoded:
        if index.pts is not None:
            expected = index.pts[position + 1]
            if frame.pts is not None and frame.pts < expected:
                continue  # seeking landed before the key frame, or these lead into its group
            if frame.pts != expected:
                break
        position += 1
        if frame.is_corrupt:  # and so is what is predicted from it
            if not index.counted:
                break
            raise VideoReadError(index.info.path, f"it is damaged at frame {position}; {_REENCODE}")
        if position == number:
            return frame
    raise _OutOfStepError


# --- files ------------------------------------------------------------------------------------


@contextmanager
def _open(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and its best video stream, the one decord takes too."""
    try:
        container = av.open(str(path), metadata_errors="replace")
    except av.FFmpegError as error:
        with Path(path).open("rb") as file:
            is_mp4 = file.read(8)[4:] == b"ftyp"
        reason = "it is cut short before its index" if is_mp4 else "it is not a video file"
        raise VideoReadError(path, f"{reason} ({error.strerror}); replace or remove it") from error
    with container:
        stream = container.streams.best("video")
        if stream is None or av.stream.Disposition.attached_pic in stream.disposition:
            raise VideoReadError(path, "it has no video stream (sound only?); remove it")
        if container.format.name.endswith("_pipe") or container.format.name == "image2":
            raise VideoReadError(path, "it is a picture, not a video; remove it")
        if stream.codec_context is None:
            raise VideoReadError(path, f"FFmpeg has no decoder for it; {_REENCODE}")
        stream.codec_context.thread_count = 1
        try:
            yield container, stream
        except av.FFmpegError as error:
            raise VideoReadError(path, f"it is damaged ({error.strerror}); {_REENCODE}") from error
        except (IndexError, MemoryError, ValueError) as error:  # PyAV's, on garbled headers
            raise VideoReadError(path, f"it is damaged ({error}); {_REENCODE}") from error


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Turn whatever goes wrong with a file into one line that names it."""
    file = Path(path)
    try:
        if not file.exists():
            raise VideoReadError(path, "there is no such file; check the path")
        if not file.is_file():
            raise VideoReadError(path, "it is a folder or device; give the path of a video file")
        if file.stat().st_size == 0:
            raise VideoReadError(path, "the file is empty; copy it again")
        yield
    except _OutOfStepError:
        raise VideoReadError(path, f"not all of its frames can be decoded; {_REENCODE}") from None
    except OSError as error:
        raise VideoReadError(path, f"{error.strerror}; check the path and its rights") from error
