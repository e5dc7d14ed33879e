"""Small images and videos that become large ones: refused before a pixel is decoded."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lightning_cam.data.video import container, frame_folders, info
from lightning_cam.data.video.reading import read_clip
from lightning_cam.errors import VideoReadError

pytestmark = pytest.mark.attack


def png(width: int, height: int) -> bytes:
    """A black image of one bit a pixel, whole and right."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + (width + 7) // 8) * height), 1)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("side", [12_000, 20_000, 30_000])
def test_an_image_that_unfolds(tmp_path: Path, side: int, monkeypatch) -> None:
    """A PNG of some hundred kB stands for hundreds of megapixels."""
    data = png(side, side)
    assert len(data) < 600_000
    (tmp_path / "0001.png").write_bytes(data)

    def decoded(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decoded)
    with pytest.raises(VideoReadError, match=r"image 0001\.png is larger than 8192x8192"):
        read_clip(tmp_path, num_frames=1, fps=None)


@pytest.mark.parametrize(
    ("suffix", "depth"),
    [(s, np.uint8) for s in (".bmp", ".jpg", ".pgm", ".png", ".ppm", ".tiff", ".webp")]
    + [(s, np.uint16) for s in (".pgm", ".png", ".ppm", ".tiff")],
)
def test_other_formats_say_their_size_as_well(
    tmp_path: Path, suffix: str, depth: type, monkeypatch
) -> None:
    """The size is known beforehand of every format of images that is read."""
    image = np.full((30, 40, 3) if suffix == ".ppm" else (30, 40), 7, depth)
    assert cv2.imwrite(str(tmp_path / f"1{suffix}"), image)
    grey = frame_folders.whole(tmp_path, f"1{suffix}")
    assert grey.shape == (30, 40, 3)
    monkeypatch.setattr(info, "MOST_PIXELS", 1199)
    with pytest.raises(VideoReadError, match="larger than"):
        frame_folders.whole(tmp_path, f"1{suffix}")


@pytest.mark.parametrize("told", [True, False])
def test_a_video_with_huge_frames(tmp_path: Path, told: bool, monkeypatch) -> None:
    """A video's frames are too large, whether its head says so or only what is decoded."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=10, width=64, height=48, pix_fmt="yuv420p")
        for n in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * n, np.uint8))
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    assert len(read_clip(path, num_frames=2)) == 2
    monkeypatch.setattr(info if told else container, "MOST_PIXELS", 3000)
    with pytest.raises(VideoReadError, match="larger than 8192x8192" if told else "damaged"):
        read_clip(path, num_frames=2, fps=None)
