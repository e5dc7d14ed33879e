"""The index and the pixels of video files, by PyAV and decord.

The only module that imports decord, after OpenCV: whatever is imported first, the order holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import av

# Before decord, whose bundled zlib otherwise breaks PNG reading and writing in OpenCV.
import cv2  # noqa: F401
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from lightning_cam.data.video.info import MOST_PIXELS, Each, Pixels, VideoInfo, check_pixels, joined
from lightning_cam.data.video.packets import MOST_BYTES, Packets
from lightning_cam.data.video.sampling import Indices
from lightning_cam.data.video.upright import Upright, upright_of
from lightning_cam.errors import VideoReadError
from lightning_cam.files import ffmpeg_name

try:
    import decord
except ImportError:  # no wheel for this platform
    decord = None
else:
    decord.logging.set_level(decord.logging.QUIET)

_AT_ONCE = 8  # frames that decord decodes before they are resized
_RANDOM_ACCESS = {"mov", "mp4", "matroska", "webm", "flv"}
# Formats that name other files or hosts: of a data set only the video itself is read.
_ELSEWHERE = {
    "avisynth", "concat", "dash", "hls", "imf", "mlv", "rtp", "rtsp", "sap", "sdp", "vapoursynth",
    "vobsub", "webm_dash_manifest",
}  # fmt: skip
_ALONE = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(sorted(av.formats_available - _ELSEWHERE)),
}
_LISTS = (b"#EXTM3U", b"ffconcat", b"v=0", b"<")  # how playlists and descriptions of streams begin
# Without sound, which may be broken as well; and yuv420p has no odd sizes.
_FFMPEG = "ffmpeg -i FILE -an -c:v libx264 -pix_fmt yuv444p OUT.mp4"
REENCODE = f"re-encode it ({_FFMPEG}), or remove it if that fails"


class OutOfStepError(Exception):
    """Decoding did not give the frames that the packets promised."""


@dataclass(frozen=True, eq=False)
class Index:
    info: VideoInfo
    upright: Upright
    plain: bool  # 8 bits, shown as stored: of all else decord makes other images
    tick: float  # seconds per unit of pts
    claimed_fps: float
    seekable: bool
    pts: NDArray[np.int64] | None = None  # (n,) in display order; None = no sane timestamps
    keys: Indices | None = None  # display positions of the key frames, ascending
    counted: bool = False  # by decoding every frame, not by packets
    packets: Packets | None = None  # of a small file that is open


def scan_packets(path: str | Path, *, trusted: bool = False) -> Index:
    """Index a video from its packets; only its first frame is decoded.

    Args:
        path: of the file.
        trusted: whether packets are believed where frames would have to be counted by decoding.
    """
    with _opened(path) as (container, stream):
        index = _scanned(path, container, stream, trusted)
    return replace(index, packets=None)


@contextmanager
def scanned(path: str | Path) -> Iterator[Index]:
    """The index of a video that stays open, so that `decode` need not open it again."""
    container, stream = _open(path)
    with container:
        with _naming_damage(path):
            index = _scanned(path, container, stream)
        yield index


def _scanned(path: str | Path, container: Any, stream: Any, trusted: bool = False) -> Index:
    begun: list[Any] = []  # the first frame, and what comes out of the decoder with it
    at, kept, stamps, key_stamps, intact = 0, [], [], [], True
    small = Path(path).stat().st_size <= MOST_BYTES
    for packet in container.demux(stream):
        if not begun:
            begun, at = packet.decode(), at + 1
        if small:
            kept.append(packet)
        if packet.size == 0 or packet.is_discard:  # the end; or cut away by an edit list
            continue
        intact &= not packet.is_corrupt  # the last one of a file cut short
        stamps.append(packet.pts)
        if packet.is_keyframe:
            key_stamps.append(packet.pts)
    if not begun:
        raise VideoReadError(path, f"it has no frame that can be decoded; {REENCODE}")
    first = begun[0]
    formats = set(container.format.name.split(","))
    in_file_order = stamps == sorted(stamps, key=lambda stamp: (stamp is None, stamp))
    plain_avi = "avi" in formats and in_file_order and not stream.codec_context.has_b_frames
    upright = upright_of(path, first, stream.sample_aspect_ratio)
    height, width = upright.size
    index = Index(
        VideoInfo(str(path), 0, np.nan, height, width, np.empty(0), container.format.name),
        upright=upright,
        plain=upright == Upright(upright.coded, upright.coded)
        and all(part.bits <= 8 for part in first.format.components),
        # AVI stores no presentation times: those of reordered frames are FFmpeg's guess.
        tick=np.nan if "avi" in formats and not plain_avi else float(stream.time_base or np.nan),
        claimed_fps=float(stream.average_rate or stream.guessed_rate or np.nan),
        seekable=bool(formats & _RANDOM_ACCESS) or plain_avi,
        packets=Packets(stream, kept, begun, at) if small else None,
    )
    index = _with_times(index, None if None in stamps else sorted(stamps), len(stamps))
    if index.pts is None:
        return index if intact or trusted else recount(index)
    # Or leading frames lack what they refer to.
    if not (intact and first.pts == index.pts[0]) and not trusted:
        return recount(index)
    return replace(index, keys=np.searchsorted(index.pts, np.unique(key_stamps)))


def recount(index: Index) -> Index:
    """The index by decoding every frame, for files whose packets do not tell."""
    with _opened(index.info.path) as (container, stream):
        seen = [(frame.pts, frame.is_corrupt) for frame in container.decode(stream)]
    # A file cut short ends in half an image, shown up to a reordering (16) before the last one.
    broken = [k for k, (_, corrupt) in enumerate(seen) if corrupt]
    if broken and broken[0] >= len(seen) - 16:
        del seen[broken[0] :]
    stamps = [pts for pts, _ in seen]
    index = _with_times(index, None if None in stamps else stamps, len(stamps))
    return replace(index, seekable=False, counted=True, packets=None)


def _with_times(index: Index, stamps: list[int] | None, count: int) -> Index:
    """Length, times and rate from timestamps, or from the claimed rate if those are not sane."""
    if count == 0:
        raise VideoReadError(index.info.path, f"it has no frame that can be decoded; {REENCODE}")
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


def decode(index: Index, wanted: Indices, reader: str, each: Each | None = None) -> Pixels:
    """These frames, in ascending order and no frame twice. (T, H, W, 3) RGB

    Args:
        index: of the file.
        wanted: frames, ascending.
        reader: "decord", where it reads the file right; all else is PyAV.
        each: is done to all frames, some at a time.

    Raises:
        OutOfStepError: the file does not hold what its index says; `recount` it.
    """
    frames = None
    if reader == "decord" and index.seekable and index.plain:
        try:
            frames = _decode_decord(index, wanted, each)
        except (decord.DECORDError, RuntimeError, IndexError, StopIteration) as error:
            raise VideoReadError(
                index.info.path, f"decord fails on it; set the reader to pyav, or {REENCODE}"
            ) from error
    return _decode_pyav(index, wanted, each) if frames is None else frames


def _decode_decord(index: Index, wanted: Indices, each: Each | None) -> Pixels | None:
    """Frames by decord; None where it counts or times frames otherwise than the index."""
    info = index.info
    video = decord.VideoReader(ffmpeg_name(info.path), num_threads=1)
    if len(video) != info.num_frames:
        return None
    times = video.get_frame_timestamp(np.arange(info.num_frames))[:, 0]
    if not np.allclose(times, info.times, rtol=0, atol=0.25 / info.fps if info.fps > 0 else 1):
        return None
    if tuple(video[int(wanted[0])].shape) != (info.height, info.width, 3):
        return None
    if each is None:
        return video.get_batch(wanted).asnumpy()
    parts = np.split(wanted, range(_AT_ONCE, len(wanted), _AT_ONCE))
    return np.concatenate([each(video.get_batch(part).asnumpy()) for part in parts])


def _decode_pyav(index: Index, wanted: Indices, each: Each | None) -> Pixels:
    """Frames by PyAV, see `stream`."""
    return joined(stream(index, wanted), len(wanted), each)


def stream(index: Index, wanted: Indices) -> Iterator[Pixels]:
    """Frames one by one, by PyAV: one way through the file, of which nothing is kept.

    Where no frame is wanted for so long that a key frame follows, and the file allows, it goes on
    there; it never goes back.

    Args:
        index: of the file.
        wanted: frames, ascending, no frame twice.

    Yields:
        (H, W, 3) RGB, perhaps a view.

    Raises:
        OutOfStepError: the file does not hold what its index says; `recount` it.
        VideoReadError: it is damaged.
    """
    info = index.info
    colours = VideoReformatter()  # of all frames: each has one of its own, which starts threads
    with _decoder(index) as begin:
        decoded, position = begin(None), -1
        for number in wanted:
            if index.seekable and index.pts is not None and index.keys is not None:
                key = index.keys[max(np.searchsorted(index.keys, number, "right") - 1, 0)]
                if key > position + 1:
                    decoded, position = begin(int(index.pts[key])), key - 1
            frame = _advance(index, decoded, position, int(number))
            position = int(number)
            if (frame.height, frame.width) != index.upright.coded:
                raise VideoReadError(info.path, f"its frames change size midway; {REENCODE}")
            rgb = colours.reformat(frame, format="rgb24", threads=1)
            yield index.upright.show(cast(Pixels, rgb.to_ndarray()))


@contextmanager
def _decoder(index: Index) -> Iterator[Callable[[int | None], Iterator[Any]]]:
    """Gives a file's frames from the beginning, or from the key frame of a timestamp."""
    if index.packets is not None:
        with _naming_damage(index.info.path):
            yield index.packets.frames
        return
    with _opened(index.info.path) as (container, track):

        def begin(key: int | None) -> Iterator[Any]:
            if key is not None:
                container.seek(key, stream=track)
            return cast(Iterator[Any], container.decode(track))

        yield begin


def _advance(index: Index, decoded: Iterator[Any], position: int, number: int) -> Any:
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
            raise VideoReadError(index.info.path, f"it is damaged at frame {position}; {REENCODE}")
        if position == number:
            return frame
    if index.counted:
        raise VideoReadError(index.info.path, f"not all of its frames can be decoded; {REENCODE}")
    raise OutOfStepError


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and its best video stream, which decord takes as well."""
    container, stream = _open(path)
    with container, _naming_damage(path):
        yield container, stream


def _open(path: str | Path) -> tuple[Any, Any]:
    try:
        container: Any = av.open(
            ffmpeg_name(path), container_options=_ALONE, metadata_errors="replace"
        )
    except av.FFmpegError as error:
        with Path(path).open("rb") as file:
            head = file.read(8)
        reason = (
            "it is cut short before its index" if head[4:] == b"ftyp" else "it is not a video file"
        )
        if head.startswith(_LISTS):
            reason = "it is a list of other files or addresses, not a video"
        raise VideoReadError(path, f"{reason} ({error.strerror}); replace or remove it") from error
    try:
        return container, _video_stream(path, container)
    except BaseException:
        container.close()
        raise


def _video_stream(path: str | Path, container: Any) -> Any:
    stream = container.streams.best("video")
    if stream is None or av.stream.Disposition.attached_pic in stream.disposition:
        raise VideoReadError(path, "it has no video stream (sound only?); remove it")
    if container.format.name.endswith("_pipe") or container.format.name == "image2":
        raise VideoReadError(path, "it is an image, not a video; remove it")
    if stream.codec_context is None:
        raise VideoReadError(path, "FFmpeg has no decoder for it; replace or remove it")
    stream.codec_context.thread_count = 1
    check_pixels(path, stream.width, stream.height)
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}  # the head may be wrong
    return stream


@contextmanager
def _naming_damage(path: str | Path) -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        raise VideoReadError(path, f"it is damaged ({error.strerror}); {REENCODE}") from error
    except (IndexError, MemoryError, ValueError) as error:  # PyAV's, on garbled headers
        raise VideoReadError(path, f"it is damaged ({error}); {REENCODE}") from error
