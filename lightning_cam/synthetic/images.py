"""Writing the frames of a synthetic sequence as numbered images, and as a video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np

from lightning_cam.data.core.arrays import Array
from lightning_cam.files import ffmpeg_name, whole_file, write_bytes


def write_images(
    folder: Path,
    images: Iterable[Array],
    name: str,
    *,
    first: int = 0,
    options: Sequence[int] = (),
) -> None:
    """Write images as `folder/name`, numbered from `first` on.

    Args:
        folder: need not be there yet.
        images: (H, W, 3) uint8 RGB, or (H, W) of 8 or 16 bits.
        name: format of the names, such as "{:06d}.png"; the suffix tells the encoding.
        first: number of the first image.
        options: parameters of `cv2.imencode`.
    """
    for number, image in enumerate(images, first):
        bgr = image[..., ::-1] if image.ndim == 3 else image
        _, data = cv2.imencode(Path(name).suffix, np.ascontiguousarray(bgr), options)
        write_bytes(folder / name.format(number), data.tobytes())


def write_frames(
    path: Path,
    frames: Array,
    fps: float,
    codec: str,
    container: str,
    *,
    cuts: Sequence[int] = (),
    bit_rate: int | None = None,
    codec_options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> None:
    """Write frames (n, H, W, 3) uint8 RGB as a video by one thread, so that the bytes repeat.

    Each shot has an encoder of its own: how it is decoded depends on its own frames alone, not on
    the quality and the motion of the shots around it.

    Args:
        path: of the video.
        frames: of even height and width.
        fps: frames per second.
        codec: FFmpeg's name of it.
        container: FFmpeg's name of the format.
        cuts: numbers of the frames that begin another shot, in ascending order.
        bit_rate: in bits per second; None for what the codec chooses.
        codec_options: of the codec.
        container_options: of the format.
    """
    with (
        whole_file(path) as file,
        av.open(
            ffmpeg_name(file.name),
            "w",
            format=container,
            container_options=dict(container_options or {}),
        ) as video,
    ):
        rate = Fraction(fps)
        stream = video.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for start, stop in pairwise((0, *cuts, len(frames))):
            encoder = cast(av.VideoCodecContext, av.VideoCodecContext.create(codec, "w"))
            encoder.height, encoder.width = frames.shape[1:3]
            encoder.pix_fmt = "yuv420p"
            encoder.framerate, encoder.time_base = rate, 1 / rate
            encoder.options = dict(codec_options or {})
            if bit_rate is not None:
                encoder.bit_rate = bit_rate
            encoder.thread_count = 1
            for packet in _packets(encoder, frames[start:stop], start):
                packet.stream = stream
                video.mux(packet)


def _packets(encoder: av.VideoCodecContext, frames: Array, first: int) -> Iterator[av.Packet]:
    """Frames as they are encoded; the first of them has this number."""
    for number, pixels in enumerate(frames, first):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts = number
        yield from encoder.encode(frame)
    yield from encoder.encode()
