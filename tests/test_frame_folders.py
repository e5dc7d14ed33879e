"""Folders of numbered images are read as videos: what the numbers mean, and what is refused."""

from __future__ import annotations

import io
import os
import pickle
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lightning_cam.data.video import frame_folders as images
from lightning_cam.data.video.reading import (
    VideoInfo,
    is_frame_folder,
    probe,
    read_clip,
    read_frames,
)
from lightning_cam.data.video.sampling import resample_times
from lightning_cam.errors import ConfigError, VideoReadError

import cv2  # isort: skip  (after the module that settles its order with decord)


def shade(k: int, height: int = 12, width: int = 20) -> np.ndarray:
    """Image k, k < 32: of one colour, red carrying k; no channel equals another."""
    return np.full((height, width, 3), (8 * k, 200, 70), np.uint8)


def counted(frames: np.ndarray) -> list[int]:
    """The k of each `shade`. frames (T, H, W, 3)"""
    assert np.abs(frames[..., 1:].astype(int) - (200, 70)).max() <= 4
    return np.rint(frames[..., 0].mean((1, 2)) / 8).astype(int).tolist()


def encoded(image: np.ndarray, kind: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def fill(folder: Path, numbers: list[int], name: str = "{:05d}.jpg") -> Path:
    """A folder of `shade`s, counted from 0 whatever their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = "png" if name.lower().endswith("png") else "jpeg"
    for k, number in enumerate(numbers):
        (folder / name.format(number)).write_bytes(encoded(shade(k), kind))
    return folder


LAYOUTS = {
    "something-something": ("{:05d}.jpg", 1),
    "multispectral": ("{:04d}.png", 0),
    "kitti": ("{:06d}.png", 0),
    "epic-kitchens": ("frame_{:010d}.jpg", 1),
    "not padded": ("{}.png", 8),
    "capitals": ("IMG_{}.JPEG", 95),
    "other numbers before": ("cam2_take10_{}.png", 7),
    "words after": ("{:03d}_rgb.png", 98),
    "odd characters": ("it's [{}] & #!.png", 1),
    "nanoseconds": ("{}.jpg", 1403636579763555584),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path, name):
    pattern, start = LAYOUTS[name]
    folder = fill(tmp_path / "a [b] & #c, d's!", [start + k for k in range(24)], pattern)
    assert is_frame_folder(folder)
    assert counted(read_clip(folder)) == list(range(24))
    assert counted(read_clip(str(folder), [23, 0, 5, 5])) == [23, 0, 5, 5]
    assert counted(read_clip(folder, fps=4, num_frames=4, rate=12)) == [6, 9, 12, 15]
    assert counted(read_clip(folder, fps=4, num_frames=10, rate=12)) == [*range(0, 24, 3), 21, 21]
    assert counted(read_clip(folder, num_frames=3)) == [4, 12, 20]
    info = probe(folder, rate=12)
    assert (info.path, info.num_frames, info.fps) == (str(folder), 24, 12)
    assert (info.height, info.width, info.container) == (12, 20, "images")
    np.testing.assert_array_equal(info.times, np.arange(24) / 12)


def test_a_clip_is_as_from_a_file(tmp_path):
    frames, indices, info = read_frames(fill(tmp_path / "v", [3, 4]), lambda v: [1, 0], rate=12)
    assert isinstance(info, VideoInfo)
    assert (frames.shape, frames.dtype) == ((2, 12, 20, 3), np.uint8)
    assert frames.flags.c_contiguous
    assert (indices.tolist(), indices.dtype) == ([1, 0], np.int64)
    with pytest.raises(VideoReadError, match=r"there is no frame 2: it has 2 \(0 to 1\)"):
        read_clip(tmp_path / "v", [2])


def test_a_dumped_video_reads_like_the_video(real, tmp_path):
    path = min((real / "UCF11_updated_mpg").rglob("*.mpg"))
    for k, frame in enumerate(read_clip(path)):
        cv2.imwrite(str(tmp_path / f"{k:06d}.png"), frame[..., ::-1])
    rate = probe(path).fps
    for wish in ({"fps": 7.5, "num_frames": 16}, {"num_frames": 8}, {"frames": [9, 2]}):
        np.testing.assert_array_equal(
            read_clip(tmp_path, **wish, rate=rate), read_clip(path, **wish)
        )


@pytest.fixture(scope="module")
def tiny() -> bytes:
    return encoded(np.zeros((1, 1, 3), np.uint8))


@settings(max_examples=60, deadline=None)
@given(
    numbers=st.one_of(
        st.sets(st.integers(0, 40), min_size=1), st.sets(st.integers(0, 10**19), min_size=1)
    ),
    width=st.integers(1, 8),
    rate=st.one_of(st.none(), st.floats(0.1, 240)),
)
def test_times_follow_the_numbers(tiny, numbers, width, rate):
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            Path(folder, f"f{number:0{width}d}.png").write_bytes(tiny)
        info = probe(folder, rate=rate)
    ordered = sorted(numbers)
    assert info.num_frames == len(ordered)
    expected = np.array([n - ordered[0] for n in ordered], float) / (rate or 1)
    np.testing.assert_array_equal(info.times, expected)
    if rate is None:
        assert np.isnan(info.fps)
    elif len(ordered) == 1:
        assert info.fps == rate
    else:
        assert info.fps == pytest.approx((len(ordered) - 1) / info.times[-1])


@settings(max_examples=40, deadline=None)
@given(missing=st.sets(st.integers(1, 58), max_size=30), fps=st.sampled_from([3.0, 4.0, 7.5]))
def test_a_missing_number_is_a_gap_not_a_shift(tiny, missing, fps):
    numbers = [n for n in range(60) if n not in missing]
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            Path(folder, f"{number + 1}.png").write_bytes(tiny)
        info = probe(folder, rate=12)
    # so many gaps that the images there are come more slowly than the steps
    slow = fps > 1.01 * info.fps
    with pytest.warns(UserWarning, match="above their own rate") if slow else nullcontext():
        shown = np.array(numbers)[info.steps(fps)]  # by number
    whole = resample_times(np.arange(60) / 12, fps)
    assert len(shown) == len(whole)
    for number, wanted in zip(shown, whole, strict=True):
        if wanted not in missing:
            assert number == wanted
        else:  # the nearest there is
            instant = np.abs(np.array(numbers) - wanted)
            assert abs(number - wanted) <= instant.min() + 1


def test_without_a_rate_frames_go_by_number(tmp_path):
    folder = fill(tmp_path / "v", [10, 11, 14])
    info = probe(folder)
    assert np.isnan(info.fps)
    assert info.times.tolist() == [0, 1, 4]
    assert counted(read_clip(folder, [2, 0])) == [2, 0]
    with pytest.raises(VideoReadError, match=r"nan fps.*rate=12"):
        read_clip(folder, fps=4)


@pytest.mark.parametrize("rate", [0, -12, float("nan"), float("inf")])
def test_wrong_rates_are_refused(tmp_path, rate):
    folder = fill(tmp_path / "v", [1])
    for attempt in (lambda: read_clip(folder, rate=rate), lambda: probe(folder, rate=rate)):
        with pytest.raises(ConfigError, match="rate must be a positive number"):
            attempt()


def test_readers_do_not_matter(tmp_path):
    folder = fill(tmp_path / "v", [1, 2])
    for reader in ("auto", "pyav"):
        assert counted(read_clip(folder, reader=reader)) == [0, 1]
    with pytest.raises(ConfigError, match="vlc"):
        read_clip(folder, reader="vlc")


def test_only_the_wanted_images_are_decoded(tmp_path, monkeypatch):
    folder = fill(tmp_path / "v", list(range(1, 31)))
    (folder / "00020.jpg").write_bytes(b"not wanted, so it may be anything")
    decoded = []
    real = cv2.imdecode

    def counting(data: np.ndarray, flags: int) -> np.ndarray:
        decoded.append(len(data))
        return real(data, flags)

    monkeypatch.setattr(images.cv2, "imdecode", counting)
    assert counted(read_clip(folder, [7, 3, 7])) == [7, 3, 7]
    assert len(decoded) == 3  # the first one tells the size
    decoded.clear()
    assert counted(read_clip(folder, [3, 0])) == [3, 0]
    assert len(decoded) == 2


def test_what_is_not_a_frame_is_ignored(tmp_path):
    folder = fill(tmp_path / "v", [1, 2, 3])
    for name in (".DS_Store", "Thumbs.db", "._00001.jpg", ".00002.jpg.part", "times.txt", "5.txt"):
        (folder / name).write_bytes(b"\0\1")
    (folder / "cover.jpg").write_bytes(b"no number")
    (folder / "00004.jpg").mkdir()
    (folder / "more").mkdir()
    (folder / "more" / "clip.mp4").touch()
    assert is_frame_folder(folder)
    assert counted(read_clip(folder)) == [0, 1, 2]


def test_which_folders_are_videos(tmp_path):
    assert is_frame_folder(fill(tmp_path / "yes", [1]))
    assert is_frame_folder(str(tmp_path / "yes"))
    assert not is_frame_folder(tmp_path / "yes" / "00001.jpg")
    assert not is_frame_folder(tmp_path / "missing")
    assert not is_frame_folder(tmp_path)  # images in a folder below
    mixed = fill(tmp_path / "mixed", [1])
    (mixed / "clip.MP4").touch()
    assert not is_frame_folder(mixed)
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "cover.jpg").write_bytes(encoded(shade(0), "jpeg"))
    assert not is_frame_folder(tmp_path / "named")


def one(folder: Path, data: bytes, name: str = "1.png") -> Path:
    folder.mkdir()
    (folder / name).write_bytes(data)
    return folder


def test_grey_alpha_palette_and_rotation(tmp_path):
    grey = np.arange(240, dtype=np.uint8).reshape(12, 20)
    colour = np.dstack([grey, grey[::-1], grey[:, ::-1]])
    three = np.dstack([grey] * 3)
    seen = read_clip(one(tmp_path / "grey", encoded(grey)))[0]
    np.testing.assert_array_equal(seen, three)
    seen = read_clip(one(tmp_path / "alpha", encoded(np.dstack([colour, grey]))))[0]
    np.testing.assert_array_equal(seen, colour)
    buffer = io.BytesIO()
    palette = Image.fromarray(colour).quantize(32)
    palette.save(buffer, "png", transparency=3)
    seen = read_clip(one(tmp_path / "palette", buffer.getvalue()))[0]
    np.testing.assert_array_equal(seen, np.asarray(palette.convert("RGB")))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise, as cameras held upright write it
    turned = one(tmp_path / "exif", encoded(colour, exif=exif))
    np.testing.assert_array_equal(read_clip(turned)[0], np.rot90(colour, -1))
    assert (probe(turned).height, probe(turned).width) == (20, 12)
    mislabelled = one(tmp_path / "png.jpg", encoded(colour), "1.jpg")
    np.testing.assert_array_equal(read_clip(mislabelled)[0], colour)


def with_thumbnail(image: np.ndarray, **options: object) -> bytes:
    """A JPEG that carries a whole smaller JPEG, end marker and all, in its header."""
    exif = b"Exif\0\0" + encoded(image[::4, ::4].copy(), "jpeg")
    return encoded(image, "jpeg", exif=exif, **options)


NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
WHOLE: dict[str, Callable[[], bytes]] = {
    "baseline.jpg": lambda: encoded(NOISE, "jpeg"),
    "progressive.jpg": lambda: encoded(NOISE, "jpeg", progressive=True),
    "thumbnail.jpg": lambda: with_thumbnail(NOISE),
    "rgb.png": lambda: encoded(NOISE),
    "bits.bmp": lambda: encoded(NOISE, "bmp"),
    "plain.ppm": lambda: encoded(NOISE, "ppm"),
    "plain.webp": lambda: encoded(NOISE, "webp"),
    "plain.tif": lambda: encoded(NOISE, "tiff"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_images_cut_short_are_refused(tmp_path, name):
    data = WHOLE[name]()
    folder = one(tmp_path / "v", data, f"1{name}")
    assert read_clip(folder).shape == (1, 48, 64, 3)
    for share in np.linspace(0, 0.99, 12):
        (folder / f"1{name}").write_bytes(data[: int(share * len(data))])
        with pytest.raises(VideoReadError, match=rf"v'.*1{name} is damaged or cut short; copy it"):
            read_clip(folder)


@pytest.mark.parametrize("name", [name for name in WHOLE if name.endswith(("jpg", "png"))])
def test_no_decoder_can_fill_up_what_is_cut(tmp_path, name, monkeypatch):
    """Some builds of OpenCV return such images with the rest in grey."""
    data = WHOLE[name]()
    folder = one(tmp_path / "v", data, f"1{name}")
    monkeypatch.setattr(images.cv2, "imdecode", lambda *_: shade(16)[..., ::-1])
    assert counted(read_clip(folder)) == [16]
    header = data.rfind(b"\xff\xda" if name.endswith("jpg") else b"IDAT") + 4
    for end in np.linspace(header, len(data) - 2, 12).astype(int):
        # Space set aside by a copy that never ended is zero.
        for rest in (b"", bytes(len(data) - end)):
            (folder / f"1{name}").write_bytes(data[:end] + rest)
            with pytest.raises(VideoReadError, match=f"1{name} is damaged or cut short"):
                read_clip(folder)


def test_what_follows_a_whole_jpeg_does_not_matter(tmp_path):
    data = encoded(NOISE, "jpeg") + b"a camera's own notes\0\0"
    assert read_clip(one(tmp_path / "v", data, "1.jpg")).shape == (1, 48, 64, 3)


def add(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder


def dangling(folder: Path, name: str) -> Path:
    (folder / name).symlink_to(folder / "gone.jpg")
    return folder


SIXTEEN = encoded(np.full((12, 20), 999, np.uint16))
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda f: f.mkdir(), "a folder without numbered images.*give"),
    "no numbers": (
        lambda f: one(f, encoded(shade(0)), "cover.png"),
        "a folder without numbered images.*give",
    ),
    "below": (lambda f: fill(f / "v", [1]), "a folder without numbered images.*give"),
    "videos": (lambda f: one(f, b"", "a.mp4"), r"a folder of videos \(a\.mp4 \.\.\.\); give one"),
    "mixed": (lambda f: add(fill(f, [1]), "b.avi", b""), r"a folder of videos \(b\.avi"),
    "twice": (
        lambda f: add(fill(f, [1, 2, 3]), "00002.png", encoded(shade(1))),
        r"00002\.jpg and 00002\.png have the same number; keep one",
    ),
    "twice by value": (
        lambda f: add(fill(f, [1, 2, 3]), "2.jpg", encoded(shade(1))),
        r"00002\.jpg and 2\.jpg have the same number; keep one",
    ),
    "two streams": (
        lambda f: fill(fill(f, [1, 2], "flow_x_{}.jpg"), [1, 2], "img_{}.jpg"),
        r"flow_x_1\.jpg and img_1\.jpg have the same number; keep one",
    ),
    "other size": (
        lambda f: add(fill(f, [1, 2, 3]), "00002.jpg", encoded(shade(1, 20, 12))),
        r"00002\.jpg is 12x20, its first 20x12; bring them to one size",
    ),
    "empty image": (lambda f: add(fill(f, [1, 2]), "00002.jpg", b""), r"00002\.jpg is damaged"),
    "empty bmp": (lambda f: add(fill(f, [1, 2]), "00003.bmp", b""), r"00003\.bmp is damaged"),
    "text": (lambda f: add(fill(f, [1, 2]), "00001.jpg", b"text"), r"00001\.jpg is damaged"),
    "dangling": (lambda f: dangling(fill(f, [1, 2]), "00003.jpg"), r"00003\.jpg.*No such file"),
    "16 bits": (lambda f: one(f, SIXTEEN, "0001.png"), r"0001\.png has more than 8 bits.*convert"),
    "16 bits later": (
        lambda f: add(fill(f, [1, 2]), "00003.png", SIXTEEN),
        r"00003\.png has more than 8 bits.*-level LOW,HIGH",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_with_a_remedy(tmp_path, name, capfd):
    make, reason = REFUSED[name]
    folder = tmp_path / "broken.mp4"  # a folder whatever its name
    make(folder)
    with pytest.raises(VideoReadError, match=reason) as caught:
        read_clip(folder, rate=12)
    message = str(caught.value)
    assert repr(str(folder)) in message
    assert "\n" not in message
    assert len(message.replace(str(folder), "")) < 200
    assert str(pickle.loads(pickle.dumps(caught.value))) == message
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(os.name != "posix", reason="needs named pipes")
def test_devices_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoReadError, match="device; give a video file or a folder"):
        probe(tmp_path / "pipe.mp4")


class Folders(Dataset):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return 4

    def __getitem__(self, k: int) -> list[int]:
        return counted(read_clip(self.folder, fps=4, num_frames=4, rate=12))


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_loader_workers(tmp_path, context):
    clips = Folders(fill(tmp_path / "v", list(range(1, 25))))
    expected = clips[0]  # OpenCV has worked in the parent as well
    workers = 2 if context == "fork" else 1  # each loads torch anew
    loader = DataLoader(
        clips, batch_size=None, num_workers=workers, multiprocessing_context=context, timeout=60
    )
    assert list(loader) == [expected] * 4 == [[6, 9, 12, 15]] * 4


# --- the order of names ---------------------------------------------------------------------------

ORDERED = {
    "decimals": "9.9 9.95 10 10.05",
    "time stamps": "12.345678 12.4 12.412 13",
    "a name before": "frame_0.5 frame_1.25 frame_1.5001",
    "an equals sign": "t=0.05 t=0.10 t=0.90 t=1.10",
    "negative": "t=-1.5 t=-0.25 t=0 t=0.25",
    "negative whole": "-2 -1 0 1",
    "hyphens": "take-1 take-2 take-10",
    "padded hyphens": "-0001 -0002 -0010",
    "leading zeros": "007 8 0009 10",
    "mixed digits": "1.5 01.75 2.000 10.0",
    "long": "1403636579.763555584 1403636579.8 1403636580.0",
    "counted behind a point": "shot2.0001 shot2.0002 shot2.0010",
    "versions": "1.10.2 1.10.3 1.10.10",
    "dates": "2011.09.05 2011.09.26",
    "a word after": "0.5s 1.25s 10.0s",
}
OPEN = {  # in the order they are read; what is said of them
    "counted or decimal": ("1.10 1.8 1.9", "1.10.png comes before 1.8.png by value"),
    "quarters": ("0.25 0.5 0.75 1.0", "0.25.png comes before 0.5.png by value"),
    "padded to two": ("1.01 1.100 1.99", "1.100.png comes before 1.99.png by value"),
    "versions": ("1.10.2 1.9.5", "1.10.2.png comes before 1.9.5.png by their last numbers"),
    "clocks": ("10-01-00 10-00-59", "by their last numbers, and after it by all"),
    "days": ("2011.10.01 2011.09.30", "2011.10.01.png comes before 2011.09.30.png"),
    "decimal commas": ("10,05 9,9 9,95", "10,05.png comes before 9,9.png"),
    "two cameras": ("cam2_1 cam1_2", "cam2_1.png comes before cam1_2.png"),
    "below zero or hyphens": ("-1 -2 -3", "a minus or a hyphen"),
}


def named(folder: Path, names: str) -> Path:
    """A folder of `shade`s, counted in the order of their names here."""
    folder.mkdir()
    for k, name in enumerate(names.split()):
        (folder / f"{name}.png").write_bytes(encoded(shade(k)))
    return folder


@pytest.mark.attack
@pytest.mark.parametrize("name", ORDERED)
def test_images_come_in_the_order_of_their_numbers(tmp_path, name):
    """Image names with decimals, time stamps, minus signs, versions, dates, mixed digits."""
    folder = named(tmp_path / "v", ORDERED[name])
    assert counted(read_clip(folder)) == list(range(len(ORDERED[name].split())))
    assert [file for _, file in images.numbered(folder)] == [
        f"{file}.png" for file in ORDERED[name].split()
    ]


@pytest.mark.attack
@pytest.mark.parametrize("name", OPEN)
def test_an_order_that_names_leave_open_is_said(tmp_path, name):
    """Image names of two orders: 1.9 and 1.10, clocks, dates, decimal commas, two cameras."""
    names, said = OPEN[name]
    folder = named(tmp_path / "v", names)
    assert is_frame_folder(folder)
    with pytest.warns(UserWarning, match="is open: .*rename them") as caught:
        assert counted(read_clip(folder)) == list(range(len(names.split())))
    assert said in str(caught[0].message) and len(caught) == 1
    assert said in images.order_in_doubt(folder)


def test_decimals_are_times(tmp_path):
    folder = named(tmp_path / "v", "12.34 12.40 12.46 13.00")
    info = probe(folder, rate=1)  # the names are seconds
    np.testing.assert_allclose(info.times, [0, 0.06, 0.12, 0.66], rtol=1e-12)
    assert info.fps == pytest.approx(3 / 0.66)
    assert images.numbers_missing(folder) == 0
    assert images.numbered(folder)[1] == (1240, "12.40.png")
    assert probe(named(tmp_path / "one", "9.5"), rate=25).fps == 25
    counting = probe(named(tmp_path / "shot", "shot2.0001 shot2.0002 shot2.0004"), rate=24)
    np.testing.assert_array_equal(counting.times, np.array([0, 1, 3]) / 24)
    with pytest.raises(VideoReadError, match=r"1\.1\.png and 1\.10\.png have the same number.*pad"):
        probe(named(tmp_path / "twice", "1.1 1.2 1.10"))
