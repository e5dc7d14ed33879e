"""Explanations as images: files of every kind, notebooks, and what is said on them."""

from __future__ import annotations

import base64
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from nets import Gap3d, clip_of, describe
from PIL import Image
from torch import Tensor

import lightning_cam as lc
from lightning_cam.attribution.comparison import Comparison, compare
from lightning_cam.attribution.shown import STRETCHED, Colours, frames_of
from lightning_cam.errors import ArgumentError, UserError
from lightning_cam.viz.drawing import Canvas
from lightning_cam.viz.overlay import COLORMAPS, lut

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


def clip(rows: int = 1) -> Tensor:
    return clip_of(rows, 3, 6, 24, 32)


def model(**more: Any) -> lc.Explainable:
    torch.manual_seed(0)
    named = describe(Gap3d(), outputs=["walk", "jump", "wave", "run"], mean=MEAN, std=STD)
    return replace(named, **more)


def explained(rows: int = 1, target: int | str | None = "jump", **more: Any) -> lc.Explanation:
    return lc.explain(model(**more), lc.GradCAM(), clip(rows), target)


def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All texts that are drawn from now on."""
    said: list[str] = []
    plain = Canvas.text

    def text(self: Canvas, x: int, y: int, text: str, *rest: Any, **more: Any) -> Any:
        said.append(text)
        return plain(self, x, y, text, *rest, **more)

    monkeypatch.setattr(Canvas, "text", text)
    return said


def test_stills_of_every_kind_show_the_same(tmp_path: Path) -> None:
    e = explained()
    files = [e.save(tmp_path / f"figure.{end}", frames=[0, 2, -1]) for end in ("pdf", "svg", "PNG")]
    pdf, svg, png = (file.read_bytes() for file in files)
    width, height = Image.open(files[2]).size
    assert png[:4] == b"\x89PNG"
    assert pdf[:5] == b"%PDF-" and b"/FontFile2" in pdf  # a font, so that text stays text
    (box,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", pdf)
    assert [float(side) for side in box] == pytest.approx([0.72 * width, 0.72 * height])
    text = svg.decode()
    assert f'width="{width}" height="{height}"' in text and ">explaining: jump</text>" in text
    assert text.count("<image") == 2 * 3 + 1  # two rows of frames, and a colour scale


def test_vector_files_lie_as_pixels_do() -> None:
    """Marks of a canvas stand where its pixels are."""
    canvas = Canvas(60, 40)
    canvas.box((5, 6, 15, 12), (200, 0, 0))
    canvas.paste(np.full((4, 8, 3), 7, np.uint8), 30, 20)
    both = Canvas.stacked([Canvas(60, 10), canvas])
    filled, pasted = both.marks
    assert (filled.x, filled.y, pasted.x, pasted.y) == (5, 16, 30, 30)
    pixels = both.pixels()
    assert (pixels[16:22, 5:15] == (200, 0, 0)).all() and (pixels[30:34, 30:38] == 7).all()
    assert (pixels != 255).any(-1).sum() == 60 + 32


@pytest.mark.parametrize("end", ["mp4", "gif"])
def test_videos_have_a_frame_for_each_of_the_clip(tmp_path: Path, end: str) -> None:
    file = explained().save(tmp_path / f"clip.{end}", fps=5)
    with av.open(str(file)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(frames) == 6 and (frames[0] != frames[3]).any()
    few = explained().save(tmp_path / f"few.{end}", frames=[1, 4])
    with av.open(str(few)) as container:
        assert len([*container.decode(video=0)]) == 2


def test_colours_are_those_of_the_video() -> None:
    """Frames are what was normalised, to a level of 255."""
    levels = torch.randint(0, 256, (1, 3, 2, 8, 8), generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(each).view(1, 3, 1, 1, 1) for each in (MEAN, STD))
    colours = Colours.of(MEAN, STD)
    assert colours is not None
    found = colours((levels / 255 - mean) / std)
    np.testing.assert_array_equal(found[0], levels[0].permute(1, 2, 3, 0).numpy())
    torch.testing.assert_close(model().black, torch.tensor([-2.5, -1.6, -0.6]))


def test_colours_that_nobody_knows_are_said_to_be_stretched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = torch.rand(3, 2, 4, 4)
    frames, said = frames_of(plain)
    assert not said and np.abs(frames / 255 - plain.permute(1, 2, 3, 0).numpy()).max() < 0.003
    frames, said = frames_of(9 * plain[:1] - 4)
    assert said == STRETCHED and (frames.min(), frames.max()) == (0, 255)
    words = drawn(monkeypatch)
    e = lc.explain(describe(Gap3d()), lc.GradCAM(), 9 * clip(), 1)
    e._repr_html_()
    assert f"original, {STRETCHED}" in words


@pytest.mark.parametrize("mean, std", [([0.5], None), ([0.5] * 3, [1] * 2), ([0.5], [0])])
def test_half_a_normalisation_is_none(mean: Any, std: Any) -> None:
    with pytest.raises(ArgumentError, match="do not go together"):
        lc.Explainable.of(Gap3d(), ["conv"], mean=mean, std=std)


def test_a_clip_of_a_batch_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    e = explained(rows=6, valid=torch.tensor([[True] * 4 + [False] * 2] * 6))
    with pytest.raises(ArgumentError, match="these are 6 clips; choose one: save"):
        e.save(tmp_path / "a.png")
    words = drawn(monkeypatch)
    e.save(tmp_path / "a.png", clip=-1)
    assert "clip 5" in words
    figure = compare([e]).figure(2)
    alone = lc.explain(model(), lc.GradCAM(), clip(6)[2:3], "jump")
    np.testing.assert_allclose(figure.frames, compare([alone]).figure().frames)
    assert dict(figure.probabilities) == pytest.approx(
        dict(compare([alone]).figure().probabilities)
    )
    assert figure.kept.tolist() == [True] * 4 + [False] * 2
    (heat,) = figure.heatmaps.values()
    np.testing.assert_array_equal(heat, e.evidence[2].numpy())
    html = e._repr_html_() or ""
    assert html.count("<img") == 4 and "and 2 more clips" in html


def test_questions_beside_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two columns of one clip: each map says which it is for, and the head does not."""
    words = drawn(monkeypatch)
    both = compare([explained(target=name) for name in ("walk", "run")])
    both.save(tmp_path / "both.png")
    said = " ".join(words)
    assert "walk: Grad-CAM" in said and "run: Grad-CAM" in said and "explaining" not in said
    words.clear()
    both.save(tmp_path / "both.png", titles=["first", "second"])
    assert {"first", "second"} <= set(words) and "Grad-CAM" not in " ".join(words)


def test_methods_beside_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = drawn(monkeypatch)
    e, other = explained(), lc.explain(model(), lc.Gradient(), clip(), "jump")
    compare([e, other]).save(tmp_path / "a.png")
    assert "explaining: jump" in words and any(word.startswith("Gradient") for word in words)
    words.clear()
    compare({"ours": e, "theirs": other}).save(tmp_path / "a.png")
    assert {"ours", "theirs"} <= set(words)


def test_a_contrast_has_its_three_maps(tmp_path: Path) -> None:
    e = lc.explain_contrast(model(), lc.GradCAM(), clip(), "walk", "run")
    figure = compare([e]).figure()
    assert len(figure.heatmaps) == 3 and (figure.target, figure.against) == ("walk", "run")
    assert e.save(tmp_path / "a.png").is_file() and "Contrast(" in repr(e)


@pytest.mark.parametrize("colormap", COLORMAPS)
def test_colour_maps(colormap: str) -> None:
    """All but Turbo grow lighter from one end to the other, as a colour-blind eye reads them."""
    figure = compare([explained()]).figure(colormap=colormap, opacity=1.0)
    assert (figure.colormap, figure.opacity) == (colormap, 1.0)
    light = lut(colormap) @ np.array([0.2126, 0.7152, 0.0722])
    rising = bool((np.diff(light[::8]) > 0).all())
    assert rising == (colormap != "turbo")


def test_what_is_asked_for_has_to_be_there(tmp_path: Path) -> None:
    e = explained()
    for settings, said in (
        ({"frames": [6]}, "no frame 6: the clip has 6"),
        ({"frames": []}, "no frames to show"),
        ({"clip": 1}, "no clip 1: there are 1"),
        ({"titles": ["a", "b"]}, "one for each explanation"),
        ({"colormap": "jet"}, "no colormap 'jet'"),
        ({"frames": 4}, r"frames=4 must be numbers of frames, such as \[0, 4, 8\]"),
        ({"frames": [1.5]}, "must be numbers of frames"),
        ({"columns": 0}, "columns must be a whole number from 1 on, got 0"),
        ({"opacity": 2}, "opacity must be a number from 0 to 1, got 2"),
        ({"opacity": math.nan}, "opacity must be"),
        ({"fps": 0}, "fps must be a number from 0.1 to 240, got 0"),
        ({"clip": "0"}, "clip must be a whole number, got '0'"),
    ):
        with pytest.raises(UserError, match=said):
            e.save(tmp_path / "a.png", **settings)
    with pytest.raises(ArgumentError, match=r"figures end in \.pdf, \.svg, \.png, \.mp4, \.gif"):
        e.save(tmp_path / "a.tiff")
    assert not any(tmp_path.iterdir())


def test_what_cannot_be_compared() -> None:
    e = explained()
    with pytest.raises(ArgumentError, match="explanation 2 is of another clip"):
        compare([e, lc.explain(model(), lc.GradCAM(), clip() + 1, "jump")])
    with pytest.raises(ArgumentError, match="no explanations"):
        compare([])
    with pytest.raises(ArgumentError, match="has no clip to show"):
        compare([replace(e, shown=None)])
    with pytest.raises(ArgumentError, match="expected explanations"):
        compare([e.heatmap])  # type: ignore[list-item]
    with pytest.raises(ArgumentError, match=r"put them into a list: compare\(\[a, b\]\)"):
        compare(e)  # type: ignore[arg-type]


def test_words_instead_of_numbers() -> None:
    e = explained(rows=5)
    assert len(repr(e)) < 200 and "Grad-CAM" in repr(e) and "jump, jump, jump, ..." in repr(e)
    assert repr(replace(e, shown=None)).count("output 1") == 3
    assert replace(e, shown=None)._repr_html_() is None
    assert "Grad-CAM" in repr(Comparison({"a": e}, {}))


def test_a_notebook_shows_it_below_the_cell() -> None:
    html = explained()._repr_html_() or ""
    (data,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    assert base64.b64decode(data)[:2] == b"\xff\xd8" and len(html) < 500_000  # of noise


def test_without_a_screen_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(UserError, match=r'there is no screen here; .*save\("figure.png"\)'):
        explained().show()


def test_a_map_that_says_nothing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = drawn(monkeypatch)
    e = explained()
    replace(e, heatmap=0 * e.heatmap).save(tmp_path / "a.png")
    assert any("map is zero everywhere" in word for word in words)
