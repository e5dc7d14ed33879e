"""Video files that play in browsers and in W&B."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from lightning_cam.files import ffmpeg_name, whole_file
from lightning_cam.viz.overlay import check_frames

# Visually clean, and quick enough to encode a few clips after every epoch ("superfast" saves a
# third of the bytes and takes twice as long). No B-frames: the first image then stands at
# time 0, and a browser seeks to any frame at once.
_X264 = {"preset": "ultrafast", "crf": "20", "bf": "0", "x264-params": "rc-lookahead=0"}


def write_video(path: str | Path, frames: np.ndarray, fps: float = 8) -> Path:
    """Write frames as an H.264 mp4 (yuv420p, index first) that plays in any browser.

    Odd heights and widths are padded by repeating the last row or column, as yuv420p needs even
    ones. The file appears under its name only when it is complete.

    Args:
        path: the file; missing folders are made.
        frames: (T, H, W, 3) uint8 RGB.
        fps: frames per second, may be fractional.

    Returns:
        The path.

    Raises:
        TypeError, ValueError: wrong dtype, shape or fps.
    """
    check_frames(frames)
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps: expected a positive number, got {fps}")
    odd = frames.shape[1] % 2, frames.shape[2] % 2
    if any(odd):
        frames = np.pad(frames, ((0, 0), (0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
    _encode(path, frames, Fraction(fps).limit_denominator(10_000))
    return Path(path)


def write_gif(path: str | Path, frames: np.ndarray, fps: float = 8) -> Path:
    """Write frames (T, H, W, 3) uint8 as a GIF that repeats; of its colours one palette is made."""
    check_frames(frames)
    images = [Image.fromarray(frame) for frame in frames]
    first, *others = [image.quantize(256, dither=Image.Dither.NONE) for image in images]
    more = {"append_images": others, "duration": 1000 / fps, "loop": 0}
    with whole_file(path) as file:
        first.save(file, "gif", save_all=True, **more)
    return Path(path)


def _encode(path: str | Path, frames: np.ndarray, rate: Fraction) -> None:
    options = {"movflags": "+faststart"}  # needs a name: the muxer opens the file a second time
    with (
        whole_file(path) as file,
        av.open(ffmpeg_name(file.name), "w", format="mp4", options=options) as container,
    ):
        stream = container.add_stream("libx264", rate=rate, options=_X264)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = 1 / rate
        context = stream.codec_context
        context.thread_count = 1  # the same bytes each time, and no fight with data workers
        # cv2 converts with BT.601 in video range; players guess by size unless they are told.
        context.colorspace, context.color_range = Colorspace.ITU601, ColorRange.MPEG
        for t, image in enumerate(frames):
            planes = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = t, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
