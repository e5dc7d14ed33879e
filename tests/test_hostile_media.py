"""Small images and videos that become large ones: refused before a pixel is decoded."""

from __future__ import annotations

import re
import shutil
import socket
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lightning_cam.data.video import container, frame_folders, info
from lightning_cam.data.video.reading import READERS, read_clip
from lightning_cam.errors import DataError, VideoReadError
from lightning_cam.explaining.clip_sources import clips_of_files
from lightning_cam.files import ffmpeg_name
from lightning_cam.viz import write_video

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


def video(path: Path) -> None:
    """Four frames, each lighter than the one before."""
    with av.open(ffmpeg_name(path), "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10, width=64, height=48, pix_fmt="yuv420p")
        for n in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * n, np.uint8))
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


@pytest.mark.parametrize("told", [True, False])
def test_a_video_with_huge_frames(tmp_path: Path, told: bool, monkeypatch) -> None:
    """A video's frames are too large, whether its head says so or only what is decoded."""
    path = tmp_path / "a.mp4"
    video(path)
    assert len(read_clip(path, num_frames=2)) == 2
    monkeypatch.setattr(info if told else container, "MOST_PIXELS", 3000)
    with pytest.raises(VideoReadError, match="larger than 8192x8192" if told else "damaged"):
        read_clip(path, num_frames=2, fps=None)


# --- names and addresses ------------------------------------------------------------------------

NAMES = (
    "12:30.mpg", "a:b.mp4", "file:x.mp4", "C:clip.mp4", "http:clip.mp4", "pipe:0", "cache:a.mp4",
    "concat:a.mp4|b.mp4", "subfile,,start,0,end,9,,:a.mp4", "data:text", "-i.mp4", "%03d.mp4",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_the_file_of_its_name(name: str, tmp_path: Path, monkeypatch) -> None:
    """A video is named like a protocol, a drive or an option; by its name alone, or its path."""
    monkeypatch.chdir(tmp_path)
    video(tmp_path / name)
    assert not {*tmp_path.iterdir()} - {tmp_path / name}
    for path in (name, Path(name), tmp_path / name):
        for reader in [r for r in READERS if r != "decord" or container.decord]:
            levels = read_clip(path, reader=reader).mean((1, 2, 3))
            assert np.allclose(levels, [0, 40, 80, 120], atol=4)
    assert [source.title for source in clips_of_files(Path(name), Reads())] == [Path(name).stem]
    Path("fo:lder", name).mkdir(parents=True)
    cv2.imwrite(f"fo:lder/{name}/1.png", np.full((8, 8, 3), 9, np.uint8))
    assert read_clip(f"fo:lder/{name}").shape == (1, 8, 8, 3)
    written = write_video(Path("fo:lder", f"{name}.mp4"), np.zeros((2, 16, 16, 3), np.uint8))
    assert len(read_clip(written)) == 2


class Reads:
    def read(self, path: Path) -> object:
        raise AssertionError


ADDRESSES = (
    "http://127.0.0.1:{port}/a.mp4", "https://127.0.0.1:{port}/a.mp4",
    "rtsp://127.0.0.1:{port}/a", "tcp://127.0.0.1:{port}", "concat:http://127.0.0.1:{port}/a.mp4",
    "cache:http://127.0.0.1:{port}/a.mp4", "pipe:", "file:a.mp4", "fd:0",
    "subfile,,start,0,end,9,,:a.mp4",
)  # fmt: skip


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port of this machine that whoever follows an address would come to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def nobody_came(server: socket.socket) -> bool:
    try:
        server.accept()
    except BlockingIOError:
        return True
    return False


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_not_opened(address: str, tmp_path: Path, listener, monkeypatch) -> None:
    """`video=` or a list of clips has an address, or a file by way of a protocol."""
    monkeypatch.chdir(tmp_path)
    video(tmp_path / "a.mp4")
    address = address.format(port=listener.getsockname()[1])
    for path in (address, Path(address)):
        with pytest.raises(VideoReadError, match=r"no such file|is an address") as caught:
            read_clip(path, num_frames=1)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no video at"):
        clips_of_files(Path(address), Reads())
    assert nobody_came(listener)


PLAYLIST = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
LISTS = {
    "a playlist of addresses": PLAYLIST.format("http://127.0.0.1:{port}/a.ts"),
    "a playlist of files": PLAYLIST.format("a.mp4"),
    "a list to be joined": "ffconcat version 1.0\nfile a.mp4\n",
    "a list of addresses": "ffconcat version 1.0\nfile http://127.0.0.1:{port}/a.mp4\n",
    "the description of a stream": (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n"
    ),
    "a manifest": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    "<BaseURL>http://127.0.0.1:{port}/a.mp4</BaseURL></MPD>",
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ffconcat"])
def test_a_list_in_place_of_a_video_opens_nothing(
    name: str, suffix: str, tmp_path: Path, listener
) -> None:
    """A file of a data set is a playlist that names addresses, or files that are elsewhere."""
    video(tmp_path / "a.mp4")
    path = tmp_path / f"list{suffix}"
    path.write_text(LISTS[name].replace("{port}", str(listener.getsockname()[1])))
    for reader in [r for r in READERS if r != "decord" or container.decord]:
        with pytest.raises(VideoReadError, match="list of other files or addresses"):
            read_clip(path, reader=reader)
    assert nobody_came(listener)


def test_a_video_whose_pixels_are_elsewhere_reads_them_not(tmp_path: Path) -> None:
    """An mp4 says that its samples are in another file."""
    video(tmp_path / "a.mp4")
    data = (tmp_path / "a.mp4").read_bytes()
    at = data.index(b"dref") - 4
    entry = data[at + 16 :][: int.from_bytes(data[at + 16 : at + 20], "big")]
    assert entry[4:8] == b"url " and entry[8:] == b"\0\0\0\1"  # in this file
    (tmp_path / "b.mp4").write_bytes(data.replace(entry, entry[:8] + bytes(4)))
    levels = read_clip(tmp_path / "b.mp4").mean((1, 2, 3))
    assert np.allclose(levels, [0, 40, 80, 120], atol=4)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg here")
def test_the_remedy_for_a_damaged_video_makes_one_that_is_read(tmp_path: Path) -> None:
    """The command that a damaged video is answered with, pasted: odd sizes that change midway."""
    path, parts = tmp_path / "clip.ts", []
    for height, width in ((95, 127), (47, 63)):
        with av.open(str(tmp_path / "part.ts"), "w", format="mpegts") as file:
            stream = file.add_stream("mpeg2video", rate=25)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for _ in range(5):
                image = np.zeros((height, width, 3), np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            file.mux(stream.encode())
        parts.append((tmp_path / "part.ts").read_bytes())
    path.write_bytes(b"".join(parts))
    with pytest.raises(VideoReadError, match="its frames change size midway") as caught:
        read_clip(str(path))
    words = re.search(r"\((ffmpeg .*?)\)", str(caught.value))[1].replace("FILE", path.name)
    subprocess.run(words.split(), cwd=tmp_path, check=True, capture_output=True)
    assert len(read_clip(str(tmp_path / "OUT.mp4")))
