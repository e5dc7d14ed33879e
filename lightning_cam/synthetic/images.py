"""Writing the frames of a synthetic sequence as numbered images, and as a video."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

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
    bit_rate: int | None = None,
    codec_options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> None:
    """Write frames (n, H, W, 3) uint8 RGB as a video by one thread, so that the bytes repeat.

    Args:
        path: of the video.
        frames: of even height and width.
        fps: frames per second.
        codec: FFmpeg's name of it.
        container: FFmpeg's name of the format.
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
        stream = video.add_stream(codec, rate=Fraction(fps), options=dict(codec_options or {}))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        stream.codec_context.thread_count = 1
        for frame in frames:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        video.mux(stream.encode())
