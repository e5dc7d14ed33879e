"""The `.npz` of an explained clip: a format that NumPy reads, and that gives explanations back.

K columns, T frames of H x W, and for each method, whose name is percent-encoded in keys:

| key | holds |
|---|---|
| `format` | `FORMAT`; another number behind it is another format |
| `frames` | (T, H, W, 3) uint8 RGB, what the network saw, at the size of the heatmaps |
| `heatmap/METHOD` | (T, H, W) float32, not normalised; higher is more important |
| `cells/METHOD` | (t, h, w) float32, the same before it was resized, where it was |
| `relevance/METHOD` | (T,) each frame's share of the heat |
| `title/METHOD`, `notes/METHOD` | the method's name, and the choices that it made (JSON) |
| `settings/METHOD` | its class and settings (JSON) |
| `level/METHOD` | the heat that means nothing, of maps in which 0 means nothing |
| `doubt/METHOD` | why the map is not to be trusted, "" where nothing speaks against it |
| `NUMBER/METHOD` | what the method found out beside its map, see `Explanation.numbers` |
| `target`, `outputs`, `names` | the explained column; (K,) the network's outputs; (K,) their names |
| `head_sizes`, `head_kinds` | of the network's heads: columns; "softmax", "sigmoid" or "" |
| `question`, `broken` | about the column; names of weights that are not finite |
| `label`, `frame_idx`, `time_s`, `valid`, `path` | true class, (T,) frames in the file, seconds, whether no padding; the file |
| `extent`, `duration_s` | which seconds were explained, in words ("88.9-90.9 s of 180 s"); of the whole video |

Attention weights are (T,) under the `attention_names`. Of a contrast these are class A's; class B has `heatmap_against/METHOD`,
`relevance_against/METHOD` and `against` (its column). Of a fused clip there are `spectrum/MEASURE/NAME` (T,),
`spectrum_total/MEASURE/NAME`, `spectrum_drop/NAME` and `spectrum_drop_all`, see `SpectrumRelevance`.
"""  # noqa: E501

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import torch
from torch import Tensor

import lightning_cam.attribution as methods
from lightning_cam.attribution import Attribution, Contrast, Explainable, Explanation
from lightning_cam.attribution.columns import Columns, Head
from lightning_cam.attribution.doubt import Doubt
from lightning_cam.attribution.shown import Shown
from lightning_cam.attribution.tensors import before_resizing
from lightning_cam.data.core.array_files import load_arrays
from lightning_cam.errors import UserError
from lightning_cam.explaining.clip_explanations import Spectra, clip_extent, frame_relevance
from lightning_cam.viz.drawing import resize

FORMAT = "lightning_cam explanation 1"
_OF_BATCH = ("label", "frame_idx", "time_s", "duration_s", "valid", "path")
_VIDEO = "lightning_cam video"  # begins the format of `video_files`
_RECORDED = "recorded_doubt"  # the number of a method that a file only tells of


@dataclass(frozen=True)
class Recorded(Attribution):
    """A method of which a file tells, and which is not one of the package's: it cannot run.

    Args:
        name: its title.
        settings: its class and settings, as JSON.
        doubt: why its map is not to be trusted.
    """

    name: str
    settings: str
    doubt: str = ""

    @property
    def title(self) -> str:
        return self.name

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        return (Doubt(_RECORDED, self.doubt.replace("{", "{{").replace("}", "}}")),)

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        raise UserError(f"{self.name} comes from a file, which tells of it only; make it anew")


def clip_arrays(
    explanations: Mapping[str, Explanation],
    frames: np.ndarray,
    batch: Mapping[str, Any],
    spectra: Spectra | None = None,
) -> dict[str, Any]:
    """What the file of one explained clip (B = 1) holds, by keys.

    Args:
        explanations: by names, at least one; each with what `explain` says of the clip.
        frames: (T, h, w, 3) uint8 of any size.
        batch: of the clip.
        spectra: what `explain_spectra` found.
    """
    first = next(iter(explanations.values()))
    height, width = first.heatmap.shape[2:]
    arrays: dict[str, Any] = {"format": FORMAT}
    arrays["frames"] = np.stack([resize(frame, height, width) for frame in frames])
    for name, e in explanations.items():
        key = quote(name, safe="")
        arrays |= {f"{what}/{key}": value for what, value in _of_method(e, batch).items()}
        if isinstance(e, Contrast):
            arrays["against"] = int(e.against.target[0])
    arrays |= {name: weights[0].cpu().numpy() for name, weights in first.attention.items()}
    arrays["attention_names"] = np.array(list(first.attention), dtype=str)
    arrays |= _of_spectra(spectra or {}) | _of_columns(first)
    if extent := clip_extent(batch):
        arrays["extent"] = extent
    for key in _OF_BATCH:
        if key in batch:
            value = batch[key][0]
            arrays[key] = value.cpu().numpy() if isinstance(value, Tensor) else value
    return arrays


def _of_method(e: Explanation, batch: Mapping[str, Any]) -> dict[str, Any]:
    heat = e.heatmap[0].cpu()
    found: dict[str, Any] = {
        "heatmap": heat.numpy(),
        "relevance": frame_relevance(e, batch),
        "title": e.method.title,
        "notes": json.dumps(dict(e.notes)),
        "settings": json.dumps(settings_of_method(e.method)),
        "doubt": e.doubts[0],
    }
    if e.native is not None and bool(heat.isfinite().all()):
        cells = before_resizing(heat.double(), e.native)
        if cells is not None:
            found["cells"] = cells.float().numpy()
    if e.level is not None:
        found["level"] = float(e.level[0])
    found |= {what: value[0].item() for what, value in e.numbers.items()}
    if isinstance(e, Contrast):
        found["heatmap_against"] = e.against.heatmap[0].cpu().numpy()
        found["relevance_against"] = frame_relevance(e.against, batch)
    return found


def _of_spectra(spectra: Spectra) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for measure, found in spectra.items():
        for s, name in enumerate(found.spectra):
            arrays[f"spectrum/{measure}/{name}"] = found.share[0, s].cpu().numpy()
            arrays[f"spectrum_total/{measure}/{name}"] = float(found.total[0, s])
            if found.drop is not None:
                arrays[f"spectrum_drop/{name}"] = float(found.drop[0, s])
        if found.drop_all is not None:
            arrays["spectrum_drop_all"] = float(found.drop_all[0])
    return arrays


def _of_columns(e: Explanation) -> dict[str, Any]:
    arrays: dict[str, Any] = {"outputs": e.outputs[0].cpu().numpy(), "target": int(e.target[0])}
    if e.shown is not None:
        columns = e.shown.columns
        arrays["names"] = np.array([columns.name(k) for k in range(e.outputs.shape[1])])
        arrays["head_sizes"] = np.array([head.size for head in columns.heads])
        arrays["head_kinds"] = np.array([head.probability or "" for head in columns.heads])
        arrays["question"] = e.shown.question
    return arrays | {"broken": np.array(e.broken, dtype=str)}


def settings_of_method(value: Any) -> Any:
    """A method's class and fields as JSON has them; what it has not, in words."""
    if is_dataclass(value) and not isinstance(value, type):
        own = {f.name: settings_of_method(getattr(value, f.name)) for f in fields(value) if f.init}
        return {"class": type(value).__name__, **own}
    if isinstance(value, (list, tuple)):
        return [settings_of_method(part) for part in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def load(path: str | Path) -> dict[str, Explanation]:
    """The explanations of a clip that `explain.py` or the callback wrote, by their methods' names.

    Maps, outputs, numbers, names and frames are those of the file; what was explained is the frames
    in place of the clip as the network took it. Methods of the package are made again of their
    settings; others are told of, see `Recorded`. Nothing of the file is run.

    Args:
        path: the `.npz`.

    Raises:
        UserError: it cannot be read, or is not of this format.

    Example:
        >>> found = load("runs/mine/explain_1/v_walk_01.npz")
        >>> found["gradcam"].save("figure.pdf")
    """
    try:
        arrays = load_arrays(Path(path))
        if str(arrays.get("format", "")).startswith(_VIDEO):
            raise UserError(
                f"{path} is of a whole video: numpy.load reads it, see docs/long_videos.md"
            )
        if str(arrays.get("format", "")) != FORMAT:
            raise ValueError(f"it is not of the format {FORMAT!r}")
        return explanations_of(arrays)
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UserError(
            f"{path} cannot be read as an explanation: {said}; explain the clip again"
        ) from error


def explanations_of(arrays: Mapping[str, np.ndarray]) -> dict[str, Explanation]:
    """The explanations that arrays of this format hold, by their methods' names.

    Raises:
        KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError: they hold none.
    """
    keys = [key.removeprefix("heatmap/") for key in arrays if key.startswith("heatmap/")]
    return {unquote(key): _explanation(arrays, key) for key in keys}


def _explanation(arrays: Mapping[str, np.ndarray], key: str) -> Explanation:
    of_method = {
        what: value for name, value in arrays.items()
        if (parts := name.split("/"))[1:] == [key] and not (what := parts[0]).startswith("spectrum")
    }  # fmt: skip
    heat = _map(of_method["heatmap"], arrays)
    numbers = {
        what: torch.tensor([value.item()])
        for what, value in of_method.items()
        if value.ndim == 0 and value.dtype.kind in "fiub" and what != "level"
    }
    method = _method(of_method)
    if isinstance(method, Recorded):
        numbers[_RECORDED] = torch.tensor([bool(method.doubt)])
    cells = of_method.get("cells")
    made: dict[str, Any] = {
        "heatmap": heat,
        "target": _column(arrays, "target"),
        "outputs": torch.from_numpy(arrays["outputs"])[None].float(),
        "attention": {n: _frames(arrays[n], arrays) for n in map(str, arrays["attention_names"])},
        "method": method,
        "notes": {str(k): str(v) for k, v in json.loads(str(of_method["notes"])).items()},
        "numbers": numbers,
        "level": torch.tensor([float(of_method["level"])]) if "level" in of_method else None,
        "native": None if cells is None else tuple(cells.shape),
        "broken": tuple(map(str, arrays["broken"])),
        "shown": _shown(arrays),
    }  # fmt: skip
    if "heatmap_against" not in of_method:
        return Explanation(**made)
    against = made | {
        "heatmap": _map(of_method["heatmap_against"], arrays),
        "target": _column(arrays, "against"),
    }
    return Contrast(**made, against=Explanation(**against))


def _map(heat: np.ndarray, arrays: Mapping[str, np.ndarray]) -> Tensor:
    if heat.shape != arrays["frames"].shape[:3] or heat.dtype.kind != "f":
        raise ValueError(f"a heatmap {heat.shape} of frames {arrays['frames'].shape}")
    return torch.from_numpy(heat)[None].float()


def _frames(values: np.ndarray, arrays: Mapping[str, np.ndarray]) -> Tensor:
    if values.shape != arrays["frames"].shape[:1]:
        raise ValueError(f"values {values.shape} of frames {arrays['frames'].shape}")
    return torch.from_numpy(values)[None]


def _column(arrays: Mapping[str, np.ndarray], key: str) -> Tensor:
    column, count = int(arrays[key]), arrays["outputs"].size
    if not 0 <= column < count:
        raise ValueError(f"{key} {column} of {count} columns")
    return torch.tensor([column])


def _shown(arrays: Mapping[str, np.ndarray]) -> Shown:
    frames, names = arrays["frames"], tuple(map(str, arrays["names"]))
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise ValueError(f"frames {frames.shape} of {frames.dtype}")
    kinds: dict[str, Any] = {"softmax": "softmax", "sigmoid": "sigmoid", "": None}
    sizes = arrays["head_sizes"].tolist()
    heads = tuple(
        Head(int(size), kinds[str(kind)])
        for size, kind in zip(sizes, arrays["head_kinds"], strict=True)
    )
    if sum(head.size for head in heads) != len(names) or len(names) != arrays["outputs"].size:
        raise ValueError(f"{len(names)} names of {arrays['outputs'].size} columns")
    clip = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 255
    valid = _frames(arrays["valid"].astype(bool), arrays) if "valid" in arrays else None
    return Shown(clip, Columns(names, heads), str(arrays["question"]), valid)


def _method(of_method: Mapping[str, np.ndarray]) -> Attribution:
    """One of the package's methods, of plain settings that it accepts, or what is told of it."""
    title, text = str(of_method["title"]), str(of_method["settings"])
    settings = json.loads(text)
    try:
        made = _made(settings)
        if isinstance(made, Attribution):
            return made
    except (UserError, TypeError, ValueError, KeyError, AttributeError):
        pass
    return Recorded(title, text, str(of_method["doubt"]))


def _made(settings: Any) -> Any:
    if isinstance(settings, list):
        return tuple(_made(part) for part in settings)
    if not isinstance(settings, dict):
        return settings
    name = settings["class"]
    cls: Callable[..., Attribution] | None = (
        vars(methods)[name] if name in methods.__all__ else None
    )
    if not (isinstance(cls, type) and issubclass(cls, Attribution)):
        raise KeyError(name)
    return cls(**{key: _made(value) for key, value in settings.items() if key != "class"})
