"""The `.npz` of an explained clip: read by NumPy alone, and back as explanations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from enumerated import methods
from nets import FoldedLSTM, Gap3d, batch_of, clip_of, describe
from torch import Tensor

import lightning_cam as lc
from lightning_cam.attribution import Contrast
from lightning_cam.errors import UserError
from lightning_cam.explaining import draw_clip, explain_clip, write_clip
from lightning_cam.explaining.clip_arrays import FORMAT, Recorded, clip_arrays

NAMES = ["walk", "jump", "wave", "run"]


def model(net: Any = None) -> lc.Explainable:
    torch.manual_seed(0)
    return describe(Gap3d() if net is None else net(), outputs=NAMES)


def clip() -> Tensor:
    return 3 * clip_of(1, 3, 6, 24, 32)


def kept(folder: Path, found: dict[str, lc.Explanation], of: lc.Explainable | None = None) -> Path:
    frames = np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), dtype=np.uint8)
    batch = batch_of(clip(), padded=1)
    figure = draw_clip(of or model(), found, frames, batch, "clip")
    return write_clip(folder, figure, found, batch, fps=4).arrays


@dataclass(frozen=True)
class Mine(lc.Attribution):
    """A user's method."""

    def __call__(self, model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
        return clip.abs().mean(1)


def test_numpy_alone_reads_it(tmp_path: Path) -> None:
    e = lc.explain(model(), lc.GradCAM(), clip(), "jump")
    with np.load(kept(tmp_path, {"gradcam": e})) as arrays:  # no pickle
        assert str(arrays["format"]) == FORMAT
        assert arrays["frames"].shape == (6, 24, 32, 3) and arrays["frames"].dtype == np.uint8
        assert arrays["names"][arrays["target"]] == "jump"
        assert arrays["cells/gradcam"].shape == (6, 12, 16)
        np.testing.assert_array_equal(arrays["heatmap/gradcam"], e.heatmap[0])
        assert json.loads(str(arrays["settings/gradcam"]))["class"] == "GradCAM"
        assert not [name for name in arrays.files if arrays[name].dtype.hasobject]


@pytest.mark.slow
def test_explanations_come_back(tmp_path: Path) -> None:
    """Of every method that explains this network; the method as it was made."""
    asked = {name: m for name, m in methods().items() if not isinstance(m, lc.TruthMap)}
    refused: dict[str, Exception] = {}
    found = explain_clip(model(), asked, clip(), "run", refused.__setitem__)
    assert len(found) > 20
    again = lc.load(kept(tmp_path, found))
    assert list(again) == list(found)
    for name, e in found.items():
        back = again[name]
        assert back.method == e.method, name
        torch.testing.assert_close(back.heatmap, e.heatmap, rtol=0, atol=0)
        assert (back.target.tolist(), back.native, back.doubts) == ([3], e.native, e.doubts), name
        assert back.caption == e.caption and back.grain == e.grain
        torch.testing.assert_close(back.evidence, e.evidence)
        assert {n: float(v) for n, v in back.numbers.items()} == pytest.approx(
            {n: float(v) for n, v in e.numbers.items()}, nan_ok=True
        )


def test_what_comes_back_is_drawn(tmp_path: Path) -> None:
    e = lc.explain(model(FoldedLSTM), lc.GradCAM(), clip(), "jump")
    back = lc.load(kept(tmp_path, {"gradcam": e}, model(FoldedLSTM)))["gradcam"]
    assert "jump" in repr(back) and back.save(tmp_path / "again.png").is_file()
    figure = lc.compare([back]).figure()
    assert figure.target == "jump" and figure.kept.tolist() == [True] * 5 + [False]
    assert dict(figure.probabilities) == pytest.approx(
        dict(zip(NAMES, e.outputs[0].softmax(0).tolist(), strict=True))
    )


def test_a_contrast_comes_back(tmp_path: Path) -> None:
    found = explain_clip(model(), {"gradcam": lc.GradCAM()}, clip(), "jump", against="wave")
    (back,) = lc.load(kept(tmp_path, found)).values()
    (e,) = found.values()
    assert isinstance(back, Contrast) and isinstance(e, Contrast)
    assert torch.equal(back.difference, e.difference)
    assert (int(back.target), int(back.against.target)) == (1, 2)


def test_a_users_method_is_told_of(tmp_path: Path) -> None:
    """Its map is there, with its doubt; it cannot run."""
    e = lc.explain(model(), Mine(), clip(), "jump")
    (back,) = lc.load(kept(tmp_path, {"mine/1": e})).values()
    assert isinstance(back.method, Recorded) and back.method.title == "Mine"
    assert torch.equal(back.heatmap, e.heatmap) and back.doubts == ("",)
    with pytest.raises(UserError, match="comes from a file"):
        lc.explain(model(), back.method, clip(), "jump")
    silent = lc.explain(model(), lambda model, clip, target: 0 * clip[:, 0], clip(), "jump")
    back = lc.load(kept(tmp_path, {"mine": silent}))["mine"]
    assert back.doubts == silent.doubts != ("",)


def changed(**changes: Any) -> dict[str, Any]:
    e = lc.explain(model(), lc.GradCAM(), clip(), "jump")
    arrays = clip_arrays({"a": e}, np.zeros((6, 24, 32, 3), np.uint8), batch_of(clip()))
    arrays |= changes
    return {name: value for name, value in arrays.items() if value is not None}


@pytest.mark.attack
@pytest.mark.parametrize(
    "changes",
    [
        {"format": None}, {"format": "lightning_cam explanation 2"}, {"frames": None},
        {"frames": np.zeros((6, 24, 32, 3))}, {"frames": np.zeros((5, 24, 32, 3), np.uint8)},
        {"heatmap/a": np.zeros((6, 24), np.float32)}, {"target": 4}, {"target": -1},
        {"outputs": np.zeros(3)}, {"head_kinds": np.array(["relu"])}, {"names": np.array(["x"])},
        {"settings/a": "{"}, {"notes/a": "[]"}, {"head_sizes": np.array([2**40])},
        {"attention_names": np.array(["target"])}, {"valid": np.ones(3, bool)},
    ],
    ids=lambda changes: str(list(changes.items()))[:40],
)  # fmt: skip
def test_a_file_of_another_kind_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    """An npz of an explanation that is changed by hand: one line that names the file."""
    np.savez(tmp_path / "a.npz", **changed(**changes))
    with pytest.raises(UserError, match=r"a\.npz cannot be read as an explanation: .*; explain"):
        lc.load(tmp_path / "a.npz")


@pytest.mark.attack
@pytest.mark.parametrize(
    "settings",
    [{"class": "Explainable"}, {"class": "load"}, {"class": "RISE", "masks": -1}, [1], {"a": 1},
     {"class": "GradCAM", "layer": {"class": "os.system"}}, {"class": "__builtins__"}],
    ids=str,
)  # fmt: skip
def test_settings_of_a_file_make_methods_of_the_package_alone(
    tmp_path: Path, settings: Any
) -> None:
    """The method that an npz names is any class, or has settings that are none."""
    np.savez(tmp_path / "a.npz", **changed(**{"settings/a": json.dumps(settings)}))
    assert isinstance(lc.load(tmp_path / "a.npz")["a"].method, Recorded)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        lc.load(tmp_path / "a.npz")
