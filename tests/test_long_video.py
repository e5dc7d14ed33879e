"""Whole videos: read once, explained window by window, blended, drawn, said."""

from __future__ import annotations

import operator
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import encode
from test_video import turn
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.attribution.tensors import resize_heatmap
from lightning_cam.data.core.clips import Clip, ClipReader, Steps, finished
from lightning_cam.data.core.transforms import ClipTransform
from lightning_cam.data.core.windows import WindowedVideo, window_starts
from lightning_cam.data.video import container, read_clip
from lightning_cam.data.video.streams import open_stream
from lightning_cam.errors import ArgumentError, ConfigError, UserError, VideoReadError
from lightning_cam.explaining.clip_sources import clips_of_files
from lightning_cam.explaining.kept_windows import KeptWindows
from lightning_cam.explaining.measuring import build_measures
from lightning_cam.explaining.video_maps import Blend, Coarse, StepMaps
from lightning_cam.explaining.video_part import VideoPart, check_part, shorter_than
from lightning_cam.explaining.video_windows import explain_windows
from lightning_cam.explaining.whole_video import windows_reader
from lightning_cam.viz.moments import clock, extent_text, stretch_text
from lightning_cam.viz.video_file import frame_store, video_writer

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 40, 220)}
SIDE, RATE = 32, 8


class Hues(nn.Module):
    """The logit of each of three classes is how much there is of its colour, in 8 x 8 cells."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.Conv3d(3, 3, (1, 4, 4), (1, 4, 4), bias=False)
        own = torch.full((3, 3), -0.5) + 1.5 * torch.eye(3)
        self.cells.weight.data = (own / 16).view(3, 3, 1, 1, 1).repeat(1, 1, 1, 4, 4)

    def forward(self, clip: Tensor) -> Tensor:
        return 40 * self.cells(clip).relu().mean((2, 3, 4))


def hues() -> lc.Explainable:
    return lc.Explainable.of(Hues(), ["cells"], list(COLOURS), mean=[0.0] * 3, std=[1.0] * 3)


def reader(length: int = 8, fps: float | None = RATE, side: int = SIDE) -> ClipReader:
    return ClipReader(length, fps, ClipTransform(side, side, (0.0,) * 3, (1.0,) * 3))


def scene(*events: tuple[str, float, float], seconds: float, rate: int = RATE) -> np.ndarray:
    """Dark frames; in an event a square of its colour at the upper left."""
    frames = np.full((round(seconds * rate), SIDE, SIDE, 3), 12, np.uint8)
    for name, start, end in events:
        frames[round(start * rate) : round(end * rate), 4:16, 4:16] = COLOURS[name]
    return frames


def written(path: Path, frames: np.ndarray, rate: float = RATE) -> Path:
    with video_writer(path, rate) as write:
        for frame in frames:
            write(frame)
    return path


# --- which windows ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "windows", "stride", "starts"),
    [
        (24, "all", None, [0, 4, 8, 12, 16]),
        (26, "all", None, [0, 4, 8, 12, 16, 18]),  # the last is moved back to be whole
        (24, "all", 8, [0, 8, 16]),
        (8, "all", None, [0]),
        (3, "all", None, [0]),
        (3, 5, None, [0]),
        (24, "centre", None, [8]),
        (24, 1, None, [8]),
        (24, 3, None, [0, 8, 16]),
        (9, 5, None, [0, 1]),  # not twice the same
    ],
)
def test_windows_begin(steps: int, windows: int | str, stride: int | None, starts: list) -> None:
    assert window_starts(steps, 8, windows, stride) == starts  # type: ignore[arg-type]


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 12))
def test_windows_leave_nothing_out(steps: int, length: int, stride: int) -> None:
    starts = window_starts(steps, length, "all", min(stride, length))
    assert starts == sorted(set(starts))
    seen = {k for s in starts for k in range(s, min(s + length, steps))}
    assert seen == set(range(steps))


@pytest.mark.parametrize("name", ["v.mp4", "v.mpg", "v.avi", "images"])
def test_a_window_is_the_clip_that_a_reader_reads(tmp_path: Path, name: str) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (40, 4, 5, 3), np.uint8)
    path = encode(tmp_path / name, frames.repeat(12, 1).repeat(12, 2))
    read = ClipReader(8, 15.0, ClipTransform(24, 24), rate=30)
    frames, indices, info = read.steps(path)
    windows = list(WindowedVideo(read, path, stride=0.2))
    assert [(w.first, w.steps) for w in windows] == [(k, 8) for k in (0, 3, 6, 9, 12)]
    for at, window in ((slice(w.first, w.first + 8), w) for w in windows):
        steps, valid = Steps(frames[at], indices[at], info), np.ones(8, bool)
        alone = read.sample(Clip(path, path.stem), steps, valid)
        assert alone.keys() == window.sample.keys()
        for key, value in alone.items():
            one = torch.equal if isinstance(value, Tensor) else operator.eq
            assert one(window.sample[key], value), key


def test_a_video_is_decoded_once_from_beginning_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "v.mp4", scene(seconds=8))
    asked, real = [], container.stream
    monkeypatch.setattr(
        container, "stream", lambda index, wanted: asked.append(wanted) or real(index, wanted)
    )
    seen: list[int] = []
    video = WindowedVideo(reader(), path)
    windows = list(video.go_through(lambda number, image: seen.append(number)))
    assert len(asked) == 1 and seen == list(range(64)) and len(windows) == len(video.starts) == 15


def test_frames_that_no_window_needs_are_not_kept(tmp_path: Path) -> None:
    """A long video is as large in memory as a short one."""
    peaks = []
    for seconds in (8, 64):
        path = written(tmp_path / f"{seconds}.mp4", scene(seconds=seconds))
        tracemalloc.start()
        e = explain_windows(WindowedVideo(reader(), path), lambda b: hues(), {"g": lc.GradCAM()})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        e.close()
    per_step = (peaks[1] - peaks[0]) / ((64 - 8) * RATE)
    assert per_step < 700  # bytes: numbers and rows; an image alone has 3072


def test_the_stretch_between_two_moments(tmp_path: Path) -> None:
    path = written(tmp_path / "v.mp4", scene(seconds=8))
    video = WindowedVideo(reader(), path, between=(2.0, 5.0))
    assert (video.times[0], video.times[-1], len(video.steps)) == (2.0, 5.0, 25)
    steps, _ = reader().window(path, between=(2.0, 5.0))
    assert steps.info.times[steps.indices].tolist() == (3 + np.arange(8) / 8).tolist()
    with pytest.raises(VideoReadError, match=r"lasts 8\.0 s; begin earlier"):
        WindowedVideo(reader(), path, between=(9.0, None))
    with pytest.raises(ConfigError, match=r"stride=5 .* gaps"):
        WindowedVideo(reader(), path, stride=5)


# --- what is blended ------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 7), st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 99))
def test_blending_is_the_weighted_mean(length: int, gaps: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    starts = np.cumsum([0, *gaps])
    values = random.normal(size=(len(starts), length, 2)).astype(np.float32)
    blend, found = Blend(length), {}
    for start, own in zip(starts.tolist(), values, strict=True):
        if (done := blend.add(start, own)) is not None:
            found |= dict(enumerate(done[1], done[0]))
    first, rest = blend.finish()  # type: ignore[misc]
    found |= dict(enumerate(rest, first))
    weights = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1))
    for step in range(starts[-1] + length):
        own = [(weights[step - s], v[step - s]) for s, v in zip(starts, values, strict=True)
               if 0 <= step - s < length]  # fmt: skip
        assert (step in found) == bool(own)
        if own:
            expected = sum(w * v for w, v in own) / sum(w for w, _ in own)
            np.testing.assert_allclose(found[step], expected, rtol=1e-4, atol=1e-5)


def test_maps_are_kept_in_the_cells_that_they_were_resized_from() -> None:
    cells = torch.rand(2, 3, 5, 4)
    heat = resize_heatmap(cells, (3, 30, 32))
    coarse = Coarse(heat[0], (3, 5, 4))
    torch.testing.assert_close(torch.from_numpy(coarse(heat)), cells, rtol=1e-4, atol=1e-5)
    assert Coarse(heat[0], None).grid == (30, 32)
    means = Coarse(torch.rand(3, 112, 112), None)
    assert means.grid == (56, 56)
    assert means(torch.ones(1, 3, 112, 112)).tolist() == np.ones((1, 3, 56, 56)).tolist()


def test_maps_on_the_disk() -> None:
    maps = StepMaps((1, 2))
    maps.append(1, np.array([[[1, 2]], [[3, 4]]], np.float32))
    assert maps.read(0, 4)[:, 0].tolist() == [[0, 0], [1, 2], [3, 4], [0, 0]]
    assert maps.read(2, 3)[:, 0].tolist() == [[3, 4]]
    maps.close()


def test_frames_on_the_disk() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 4, 3, 3), np.uint8)
    large = frames.repeat(9, 1).repeat(9, 2)
    with frame_store() as store:
        for frame in large:
            store.add(frame)
        again = np.stack(list(store.frames()))
    assert again.shape == large.shape
    assert np.abs(again.astype(int) - large).mean() < 12  # of colours at half the size


# --- what is found ------------------------------------------------------------------------------


@pytest.mark.slow
def test_events_are_found_and_where_their_evidence_is(tmp_path: Path) -> None:
    """Twelve events in three minutes; between them frames of no class."""
    names = list(COLOURS) * 4
    events = [(name, 15.0 * n + 4, 15.0 * n + 8) for n, name in enumerate(names)]
    path = written(tmp_path / "film.mp4", scene(*events, seconds=180))
    e = lc.explain_video(hues(), lc.GradCAM(), path, num_frames=8, fps=RATE, resize=32, crop=32)
    assert e.extent == "0.0-179.9 s of 180 s" and not e.shortfall and e.explained.all()
    middles = [e.times[w.first : w.first + w.steps].mean() for w in e.windows]
    said = [next(s.name for s in e.track if s.start_s <= m < s.end_s) for m in middles]
    asked = [[name for name, a, b in events if a <= m < b] for m in middles]
    assert sum(map(bool, asked)) == 12 * 8
    assert all(own == [name] for own, name in zip(asked, said, strict=True) if own)
    sure = e.probability([0, 1, 2]).max(1) > 0.6
    assert e.track[0].start_s == 0 and e.track[-1].end_s == pytest.approx(180)
    [each] = e.maps.values()
    near = sum(((e.times >= a - 0.5) & (e.times < b + 0.5)) for _, a, b in events).astype(bool)  # type: ignore[attr-defined]
    assert sure.any() and not sure[~near].any()
    inside = sum(((e.times >= a) & (e.times < b)) for _, a, b in events).astype(bool)  # type: ignore[attr-defined]
    assert each.energy[inside].sum() > 0.95 and each.energy.sum() == pytest.approx(1)
    heat = each.maps.read(0, len(e.times)).sum(0)
    assert heat.shape == (8, 8) and heat[1:4, 1:4].sum() > 0.95 * heat.sum()
    e.close()


def test_one_window_is_the_clip_explained(tmp_path: Path) -> None:
    path = written(tmp_path / "v.mp4", scene(("red", 0.25, 0.75), seconds=1))
    e = lc.explain_video(hues(), lc.GradCAM(), path, num_frames=8, fps=RATE, resize=32, crop=32)
    clip = WindowedVideo(reader(), path)
    [window] = list(clip)
    alone = lc.explain(hues(), lc.GradCAM(), finished(window.sample)["video"][None])
    [each] = e.maps.values()
    torch.testing.assert_close(
        resize_heatmap(torch.from_numpy(each.maps.read(0, 8))[None], (8, 32, 32)), alone.heatmap,
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip
    assert e.windows[0].target == int(alone.target[0])
    np.testing.assert_allclose(e.windows[0].outputs, alone.outputs[0], rtol=1e-5)
    e.close()


def test_a_video_shorter_than_a_window(tmp_path: Path) -> None:
    path = written(tmp_path / "v.mp4", scene(("red", 0, 1), seconds=0.5))
    e = lc.explain_video(hues(), lc.GradCAM(), path, num_frames=8, fps=RATE, resize=32, crop=32)
    assert len(e.times) == 4 and e.windows[0].steps == 4
    assert [str(s) for s in e.track] == ["red 0:00.0-0:00.5 1"] or e.track[0].name == "red"
    e.close()


def test_few_windows_leave_gaps(tmp_path: Path) -> None:
    path = written(tmp_path / "v.mp4", scene(("red", 0, 60), seconds=60))
    video = WindowedVideo(reader(), path, 3)
    e = explain_windows(video, lambda batch: hues(), {"gradcam": lc.GradCAM()}, "red")
    assert e.explained.sum() == 24 and not e.explained[100]
    assert np.isnan(e.probability([0])[100, 0]) and e.probability([0])[0, 0] > 0.9
    assert next(iter(e.maps.values())).energy[100] == 0
    e.close()


def test_two_classes_against_each_other_and_a_method_that_fails(tmp_path: Path) -> None:
    class Fails(lc.GradCAM):
        def __call__(self, *given: object) -> Tensor:
            raise RuntimeError("no")

    path = written(tmp_path / "v.mp4", scene(("red", 0, 2), ("green", 2, 4), seconds=4))
    out = tmp_path / "out" / "v.mp4"
    e = lc.explain_video(
        hues(), {"gradcam": lc.GradCAM(), "fails": Fails()}, path, num_frames=8, fps=RATE,
        resize=32, crop=32, target="red", against="green", out=out,
    )  # fmt: skip
    assert e.missing == {"fails": "RuntimeError: no"}
    red, green, both = (each.maps.read(4, 5) for each in e.maps.values())
    np.testing.assert_allclose(red - green, both, atol=1e-6)
    assert [*e.maps.values()][2].signed and out.is_file() and out.with_suffix(".png").is_file()
    with pytest.raises(ArgumentError, match="needs a target"):
        lc.explain_video(hues(), lc.GradCAM(), path, against="red")
    for wrong, said in (
        ({"windows": 0}, "windows=0 must be all, centre, or how many"),
        ({"stride": -1}, "stride=-1 must be a number of seconds from 0 on"),
        ({"stride": np.nan}, "stride=nan must be a number of seconds"),
        ({"stride": 1, "windows": 2}, "both say which windows"),
        ({"start": "1"}, "such as start=83.5 for 1:23.5"),
        ({"end": 0}, "end=0 must be after start=0"),
        ({"size": "large", "out": out}, "size='large' must be 'original' or None"),
        ({"num_frames": 0}, "num_frames must be a whole number from 1 on, got 0"),
        ({"size": "original"}, "add out='explained.mp4'"),
        ({"out": "out.png"}, r"must end in \.mp4"),
        ({"out": path}, "is the video itself; choose another name"),
    ):
        with pytest.raises(UserError, match=said):
            lc.explain_video(hues(), lc.GradCAM(), path, **wrong)
    with pytest.raises(ArgumentError, match="nobody knows"):
        lc.explain_video(lc.Explainable.of(Hues(), ["cells"]), lc.GradCAM(), path)
    with pytest.raises(RuntimeError, match="no"):
        lc.explain_video(hues(), Fails(), path, num_frames=8, fps=RATE, resize=32, crop=32)


class Watched(Hues):
    """Also says how much it looks at each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Identity()

    def forward(self, clip: Tensor) -> Tensor:
        self.look(clip.mean((1, 3, 4)).softmax(1))
        return super().forward(clip)


class Counts(lc.GradCAM):
    """Grad-CAM that is stopped or fails at some of its calls."""

    def __call__(self, *given: Any) -> Tensor:
        self.calls.append(len(self.calls) + 1)  # type: ignore[attr-defined]
        if error := self.raises.get(self.calls[-1]):  # type: ignore[attr-defined]
            raise error
        return super().__call__(*given)


def counts(raises: Mapping[int, BaseException]) -> Counts:
    method = Counts()
    for name, value in (("calls", []), ("raises", raises)):
        object.__setattr__(method, name, value)
    return method


def test_a_video_that_was_stopped_goes_on_and_nothing_differs(tmp_path: Path) -> None:
    path = written(tmp_path / "v.mp4", scene(("red", 1, 3), ("green", 4, 6), seconds=8))
    model = lc.Explainable.of(Watched(), ["cells"], list(COLOURS), attention=["look"])
    fails = {4: RuntimeError("no")}

    def explained(
        kept: KeptWindows | None, one: Counts, two: Counts, reads: ClipReader
    ) -> lc.VideoExplanation:
        return explain_windows(
            WindowedVideo(reads, path), lambda batch: model, {"one": one, "two": two},
            "red", "green", batch=2, kept=kept,
        )  # fmt: skip

    whole = explained(None, first := counts({}), counts(fails), reader())
    assert len(first.calls) == 2 * 8 and whole.missing == {"two": "RuntimeError: no"}  # type: ignore[attr-defined]
    folder = tmp_path / "v.windows"
    with pytest.raises(KeyboardInterrupt):  # of a contrast each batch has two calls
        explained(
            KeptWindows(folder, "v"), counts({11: KeyboardInterrupt()}), counts(fails), reader()
        )
    assert sorted(int(file.stem) for file in folder.iterdir()) == [0, 8, 16, 24, 32]
    assert KeptWindows(folder, "v").begun and not KeptWindows(folder, "another").begun
    (folder / "32.npz").write_bytes(b"PK")
    left = counts({})
    again = explained(KeptWindows(folder, "v"), left, counts({}), reader())
    assert len(left.calls) == 2 * (1 + 4)  # type: ignore[attr-defined]  # the first, and what was not kept
    assert again.missing == whole.missing and [*again.maps] == [*whole.maps]
    for caption, each in again.maps.items():
        one = whole.maps[caption]
        assert (each.maps.read(0, 64) == one.maps.read(0, 64)).all()
        assert (each.heat == one.heat).all() and each.signed == one.signed
    for ours, theirs in zip(again.windows, whole.windows, strict=True):
        for name, value in vars(ours).items():
            assert np.array_equal(value, vars(theirs)[name]), name
    assert (again.attention == whole.attention).all() and again.track == whole.track
    # Windows that begin elsewhere are others.
    assert KeptWindows(folder, "v").read([*WindowedVideo(reader(4), path)][:2]) is None
    KeptWindows(folder, "v").remove()
    assert not folder.exists()
    again.close()
    whole.close()


# --- odd files ----------------------------------------------------------------------------------


def test_a_file_that_lost_its_end(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (72, 32, 32, 3), np.uint8)
    path = encode(tmp_path / "v.avi", noise, 8)
    data = path.read_bytes()
    path.write_bytes(data[: 2 * len(data) // 3])
    e = explain_windows(WindowedVideo(reader(), path), lambda b: hues(), {"g": lc.GradCAM()})
    assert 3 < e.times[-1] < 8.5 and e.explained.all()
    assert "the file lacks" in e.shortfall
    e.close()


def test_what_stands_before_a_damage_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = written(tmp_path / "v.mp4", scene(("red", 0, 9), seconds=9)), container.stream

    def breaks(index: container.Index, wanted: np.ndarray):
        for number, image in zip(wanted, real(index, wanted), strict=True):
            if number == 43:
                raise container.OutOfStepError
            yield image

    monkeypatch.setattr(container, "stream", breaks)
    e = explain_windows(WindowedVideo(reader(), path), lambda b: hues(), {"g": lc.GradCAM()})
    assert [w.first for w in e.windows][-2:] == [32, 35]  # the last one moved back
    assert len(e.times) == 43 and e.explained.all()
    assert e.shortfall.startswith("only 5.2 s of 9 s could be read: it is damaged before frame 43;")
    e.close()
    monkeypatch.setattr(container, "stream", lambda index, wanted: breaks(index, np.array([43])))
    with pytest.raises(VideoReadError, match="damaged before frame"):
        list(WindowedVideo(reader(), path))


def moments_of(path: Path) -> list[float]:
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        return sorted(float(p.pts * stream.time_base) for p in file.demux(stream) if p.size)


@pytest.mark.parametrize("even", [True, False])
def test_the_written_video_keeps_length_rate_and_size(tmp_path: Path, even: bool) -> None:
    seconds = np.arange(90) / 30 if even else np.cumsum([0, *([0.04] * 40), *([0.1] * 20)])
    path = tmp_path / "v.mp4"
    image = scene(("red", 0, 1), seconds=1)[0].repeat(2, 0).repeat(3, 1)  # 64 x 96
    with video_writer(path, 30) as write:
        for second in seconds:
            write(image, None if even else float(second))
    out = tmp_path / "out.mp4"
    e = lc.explain_video(
        hues(), lc.GradCAM(), path, num_frames=4, fps=7.5, resize=32, crop=32, out=out,
        size="original",
    )  # fmt: skip
    for file in (out, tmp_path / "out.original.mp4"):
        np.testing.assert_allclose(moments_of(file), moments_of(path), atol=1e-3)
    with av.open(str(tmp_path / "out.original.mp4")) as file:
        own = next(file.decode(video=0)).to_ndarray(format="rgb24")
    assert own.shape == (64, 96, 3)
    assert own[20, 14].sum() < 0.7 * own[20, 40].sum()  # outside of what the network sees
    arrays = np.load(tmp_path / "out.npz", allow_pickle=False)
    assert str(arrays["format"]) == "lightning_cam video 1" and str(arrays["extent"]) == e.extent
    [key] = [key for key in arrays.files if key.startswith("heatmap/")]
    [each] = e.maps.values()
    np.testing.assert_array_equal(arrays[key], each.maps.read(0, len(e.times)))
    with pytest.raises(UserError, match=r"numpy.load reads it, see docs/long_videos.md"):
        lc.load(tmp_path / "out.npz")


def test_a_turned_video_is_seen_as_it_is_shown(tmp_path: Path) -> None:
    path = written(tmp_path / "v.mp4", scene(("red", 0, 1), seconds=1).repeat(2, 1))
    turn(path)
    frames = read_clip(path)
    shown = np.stack(list(open_stream(path).frames(np.arange(len(frames)))))
    assert shown.shape == (8, 32, 64, 3) and (shown == frames).all()


# --- what is asked ------------------------------------------------------------------------------

CONFIG = dict.fromkeys(
    ("video", "windows", "stride", "start", "end", "size", "target", "contrast")
) | {"video": "v.mp4"}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"video": None, "windows": "all"}, "windows=all is for a video file"),
        ({"windows": "some"}, "must be all, centre, or how many"),
        ({"windows": 0}, "must be all, centre, or how many"),
        ({"windows": True}, "must be all, centre, or how many"),
        ({"stride": 0}, "must be above 0"),
        ({"stride": "a"}, "must be a number of seconds"),
        ({"start": -1}, "must be a number of seconds"),
        ({"start": 5, "end": 5}, "end=5 must be after start=5"),
        ({"size": "large"}, "must be original, or null"),
        ({"stride": 1, "windows": 4}, "both say which windows"),
        ({"size": "original", "windows": "centre"}, "is of a whole video"),
        ({"windows": "all", "contrast": "red"}, "needs target= over a whole video"),
    ],
)
def test_settings_that_make_no_sense(given: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_part(CONFIG | given, {})


def test_measures_are_of_single_clips() -> None:
    node = {"deletion": {"_target_": "lightning_cam.metrics.DeletionArea"}}
    measures = build_measures(node, ())
    with pytest.raises(
        ConfigError, match="measure=deletion is of single clips; set windows=centre"
    ):
        check_part(CONFIG | {"windows": "all"}, measures)
    check_part(CONFIG, measures)


class Data:
    """A data module that reads files."""

    def __init__(self, own: ClipReader) -> None:
        self.reader = own

    def read(self, path: Path) -> dict[str, object]:
        raise AssertionError("the middle alone")


def test_what_is_explained_where_nothing_is_said(tmp_path: Path) -> None:
    data = Data(reader())
    short, long = (written(tmp_path / f"{s}.mp4", scene(seconds=s)) for s in (1.25, 4))
    assert VideoPart(short).opened(data) == (None, "")  # not half a clip longer than a clip
    video, said = VideoPart(long).opened(data)
    assert video is not None and len(video.starts) == 7
    assert said == (
        "0.0-3.9 s of 4 s in 7 windows of 0.9 s, one every 0.5 s; windows=centre explains the "
        "middle alone"
    )
    assert VideoPart(long, alone=False).opened(data) == (None, "")  # one of a folder
    assert VideoPart(long, "centre").opened(data) == (None, "")
    assert VideoPart(long, "all", alone=False).opened(data)[0] is not None
    middle, said = VideoPart(long, middle="measure=x is of single clips").opened(data)
    assert middle is None and "windows=all explains all of it" in said
    sources = clips_of_files(tmp_path, data)
    assert [source.part and source.part.alone for source in sources] == [False, False]
    rows = [{"path": "a", "start_s": "1", "end_s": "2", "duration_s": d} for d in ("9", "1.2", "")]
    assert [shorter_than([row]) for row in rows] == [1, 0, 0]


def test_a_reader_of_ones_own_that_only_reads() -> None:
    class Own(ClipReader):
        def read(self, *given: object) -> object:  # type: ignore[override]
            return super().read(*given)  # type: ignore[arg-type]

    plain = reader()

    class OwnSamples(ClipReader):
        def sample(self, *given: object) -> object:  # type: ignore[override]
            return super().sample(*given)  # type: ignore[arg-type]

    assert windows_reader(Data(plain)) is plain
    for own in (Own, OwnSamples):
        assert windows_reader(Data(own(plain.num_frames, plain.fps, plain.transform))) is None


# --- words --------------------------------------------------------------------------------------


def test_seconds_in_words() -> None:
    assert extent_text(88.93, 90.93, 180) == "88.9-90.9 s of 180 s"
    assert extent_text(3, 3, 2.44) == "3.0 s of 2.4 s"
    assert [clock(s) for s in (0, 3.4, 59.6, 760, 3753)] == [
        "0:00", "0:03", "1:00", "12:40", "1:02:33",
    ]  # fmt: skip
    assert stretch_text("walking", 3, 7, 0.91) == "walking 0:03-0:07 .91"
    assert stretch_text("a", 3.1, 3.4, 0.999) == "a 0:03.1-0:03.4 .99"
    assert stretch_text("a", 0, 9, 1.0) == "a 0:00-0:09 1.00"
