"""The maps of a survey on the disk: a format that NumPy reads, and that gives explanations back.

`<folder>/maps/shard_0007.npz` holds `CLIPS` clips, in an order that has all classes everywhere;
`shard_0007.begun.npz` the first of them, where the work was stopped. n clips, K columns:

| key | holds |
|---|---|
| `format` | `FORMAT`; another number behind it is another format |
| `about` | what all clips share (JSON): `names` of the columns, `heads`, `question`, `broken`, `methods` |
| `clips` | n facts (JSON), see `ClipRecord` |
| `outputs` | (n, K) float32, the network's outputs; NaN of a clip that was not explained |
| `frames` | uint8, a JPEG a clip, one behind the other: its T frames of `size`, one below the other |
| `maps/METHOD` | float16, the maps of all clips, one behind the other, each (t, h, w) of its `grid` |

A clip's facts have `jpeg`, the bytes of its image, and of each method what is in `MapRecord`. Heat is
base + scale * map; the largest amount of a map is 1. Frames are at most `FRAME` pixels, maps on the
grid of the layer, or at most 16 x 56 x 56.
"""  # noqa: E501

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import NDArray

from lightning_cam.attribution import Explanation
from lightning_cam.data.core.array_files import load_arrays
from lightning_cam.errors import UserError
from lightning_cam.explaining.clip_arrays import explanations_of
from lightning_cam.explaining.clip_arrays import load as load_clip
from lightning_cam.explaining.kept_map import KeptMap
from lightning_cam.files import whole_file
from lightning_cam.viz.drawing import jpeg

FORMAT = "lightning_cam survey 1"
CLIPS = 64  # of a file
FRAME = 112  # pixels of a frame's longer side, at most
_MOST_BYTES = 2**30  # of a file, unfolded: the finest maps of 150 methods
_BESIDE_MAPS = ("format", "about", "clips", "outputs")
_BLOCK = 16  # pixels of a JPEG's blocks, so that frames do not run into each other
_NAME = re.compile(r"shard_(\d{4,})(\.begun)?\.npz", re.ASCII)


@dataclass(frozen=True)
class MapRecord:
    """One method's map of a clip.

    Attributes:
        kept: the map.
        native: whether it is on the grid from which the method resized it.
        doubt: why it is not to be trusted, "" where nothing speaks against it.
        notes: the choices that the method made.
        numbers: what it found out beside the map.
        inside: the heat's share inside the ground truth; None: nobody knows.
    """

    kept: KeptMap
    native: bool
    doubt: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    inside: float | None = None


@dataclass(frozen=True)
class ClipRecord:
    """One clip of a survey.

    Attributes:
        index: in its part of the data set.
        title: its name; no two have the same.
        path: of its file.
        label: the true class; -1: nobody knows, or it has several.
        error: why it was not explained; "" of all others.
        target: the explained column.
        truth: whether it is true of the clip; None: nobody knows.
        outputs: (K,).
        even: the share of the clip that is inside the ground truth, which an even map's heat has
            there; None: nobody knows.
        times: seconds of its frames.
        valid: which of them are not padding.
        size: T, height and width of its frames.
        jpeg: these, one below the other.
        maps: method -> its map.
        missing: method -> why it has none.
    """

    index: int
    title: str
    path: str
    label: int = -1
    error: str = ""
    target: int = -1
    truth: bool | None = None
    outputs: NDArray[np.float32] | None = None
    even: float | None = None
    times: Sequence[float] = ()
    valid: Sequence[bool] = ()
    size: tuple[int, int, int] = (0, 0, 0)
    jpeg: bytes = b""
    maps: Mapping[str, MapRecord] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def frames(self) -> NDArray[np.uint8]:
        """(T, h, w, 3) RGB."""
        count, height, width = self.size
        image: Any = cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR)
        stacked = image.reshape(count, -1, image.shape[1], 3)
        return np.ascontiguousarray(stacked[:, :height, :width, ::-1])


def small_frames(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames (T, H, W, 3) of which no side is longer than `FRAME`."""
    height, width = frames.shape[1:3]
    shrink = min(1, FRAME / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    if size == (width, height):
        return frames
    return np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames])


def frames_jpeg(frames: NDArray[np.uint8]) -> bytes:
    """Frames (T, h, w, 3), one below the other."""
    height, width = frames.shape[1:3]
    room = ((0, 0), (0, -height % _BLOCK), (0, -width % _BLOCK), (0, 0))
    if height % _BLOCK or width % _BLOCK:
        frames = np.pad(frames, room, mode="edge")
    return jpeg(frames.reshape(-1, *frames.shape[2:]))


def shard_path(folder: Path, number: int, *, begun: bool = False) -> Path:
    """Where a shard lies, below the folder of a survey."""
    return folder / "maps" / f"shard_{number:04d}{'.begun' * begun}.npz"


def shard_files(folder: Path) -> dict[int, Path]:
    """The shards that are there, by their numbers; one that is begun where it is not finished."""
    found: dict[int, Path] = {}
    for path in sorted((folder / "maps").glob("shard_*.npz")):
        if name := _NAME.fullmatch(path.name):
            number, begun = int(name[1]), bool(name[2])
            if not begun or not shard_path(folder, number).exists():
                found[number] = path
    return dict(sorted(found.items()))


def write_shard(path: Path, records: Sequence[ClipRecord], about: Mapping[str, Any]) -> None:
    """Write clips whole; when this returns, they are on the disk.

    Raises:
        WriteError: they cannot be written.
    """
    columns = max((len(r.outputs) for r in records if r.outputs is not None), default=0)
    outputs = np.full((len(records), columns), np.nan, np.float32)
    maps: dict[str, list[NDArray[np.float16]]] = {}
    for row, record in zip(outputs, records, strict=True):
        if record.outputs is not None:
            row[:] = record.outputs
        for name, one in record.maps.items():
            maps.setdefault(name, []).append(one.kept.values.ravel())
    arrays: dict[str, Any] = {
        "format": FORMAT,
        "about": json.dumps(about),
        "clips": json.dumps([_facts(record) for record in records]),
        "outputs": outputs,
        "frames": np.frombuffer(b"".join(record.jpeg for record in records), np.uint8),
    }
    for name, of_clips in maps.items():
        arrays[_key(name)] = np.concatenate(of_clips)
    with whole_file(path, sync=True) as file, zipfile.ZipFile(file, "w") as archive:
        for name, values in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # without a date: the same clips, the same bytes
            if name != "frames":  # which are compressed
                entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as array:
                np.lib.format.write_array(array, np.asarray(values), allow_pickle=False)


def _key(method: str) -> str:
    """The array of a method's maps."""
    return f"maps/{quote(method, safe='')}"


def _facts(record: ClipRecord) -> dict[str, Any]:
    """What JSON holds of a clip."""
    own = {k: v for k, v in vars(record).items() if k not in ("outputs", "maps", "jpeg")}
    maps = {}
    for name, one in record.maps.items():
        kept = one.kept
        facts = {k: v for k, v in vars(one).items() if k != "kept"}
        facts |= {"base": kept.base, "scale": kept.scale, "floating": kept.floating}
        maps[name] = {**facts, "grid": kept.values.shape}
    return {**own, "explained": record.outputs is not None, "jpeg": len(record.jpeg), "maps": maps}


def read_shard(
    path: Path, methods: Collection[str] | None = None
) -> tuple[dict[str, Any], list[ClipRecord]]:
    """What all clips of a shard share, and the clips.

    Args:
        path: of the file.
        methods: whose maps are read, and no frames; None: all, and the frames.

    Raises:
        UserError: it cannot be read.
    """
    try:
        few = None if methods is None else {*_BESIDE_MAPS, *map(_key, methods)}
        arrays = load_arrays(path, few, _MOST_BYTES)
        if str(arrays.get("format", "")) != FORMAT:
            raise ValueError(f"it is not of the format {FORMAT!r}")
        at = dict.fromkeys(arrays, 0)  # how far each has been read

        def taken(key: str, count: int) -> NDArray[Any]:
            if count < 0 or at[key] + count > len(arrays[key]):
                raise ValueError(f"{key} is too short")
            at[key] += count
            return arrays[key][at[key] - count : at[key]]

        records = []
        for row, facts in zip(arrays["outputs"], json.loads(str(arrays["clips"])), strict=True):
            maps = {}
            for name, one in facts.pop("maps").items():
                if methods is not None and name not in methods:
                    continue
                grid = t, h, w = tuple(map(int, one.pop("grid")))
                values = taken(_key(name), t * h * w).reshape(grid)
                kept = KeptMap(values, one.pop("base"), one.pop("scale"), one.pop("floating"))
                maps[name] = MapRecord(kept, **one)
            length = facts.pop("jpeg")
            facts["jpeg"] = taken("frames", length).tobytes() if methods is None else b""
            facts["outputs"] = row if facts.pop("explained") else None
            facts["size"] = tuple(facts["size"])
            records.append(ClipRecord(**facts, maps=maps))
        return json.loads(str(arrays["about"])), records
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read as maps of a survey: {error}; remove it, and the same command "
            "makes it again"
        ) from error


class SurveyMaps(Mapping[str, "dict[str, Explanation]"]):
    """The explanations of a survey: title of a clip -> method -> explanation.

    Nothing but titles is read before a clip is asked for, and one file is held at a time.

    Args:
        folder: of the survey.

    Raises:
        UserError: there is none, or a file cannot be read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._files: dict[str, tuple[Path, int]] = {}
        self._open: tuple[Path, dict[str, Any], list[ClipRecord]] | None = None
        for path in shard_files(self.folder).values():
            try:
                clips = json.loads(str(load_arrays(path, ("clips",), _MOST_BYTES)["clips"]))
                titles = [(facts["title"], bool(facts["maps"])) for facts in clips]
            except (KeyError, ValueError, TypeError) as error:
                raise UserError(f"{path} cannot be read as maps of a survey: {error}") from error
            self._files |= {t: (path, n) for n, (t, mapped) in enumerate(titles) if mapped}
        if not self._files:
            raise UserError(f"{folder} has no maps of a survey; give the folder of one")

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __getitem__(self, title: str) -> dict[str, Explanation]:
        path, row = self._files[title]
        if self._open is None or self._open[0] != path:
            self._open = (path, *read_shard(path))
        return explanations_in(self._open[1], self._open[2][row])


def explanations_in(about: Mapping[str, Any], record: ClipRecord) -> dict[str, Explanation]:
    """The explanations that a clip's record is of, at the size of its kept frames."""
    frames = record.frames
    arrays: dict[str, Any] = {
        "frames": frames, "target": np.array(record.target), "outputs": record.outputs,
        "names": np.array(about["names"]), "question": np.array(about["question"]),
        "head_sizes": np.array([size for size, _ in about["heads"]]),
        "head_kinds": np.array([kind for _, kind in about["heads"]]),
        "broken": np.array(about["broken"], dtype=str),
        "attention_names": np.array([], dtype=str),
    }  # fmt: skip
    if len(record.valid):
        arrays["valid"] = np.array(record.valid)
    for name, one in record.maps.items():
        method = about["methods"][name]
        of_method = {
            "heatmap": one.kept.heatmap(frames.shape[:3])[0].numpy(), "doubt": one.doubt,
            "title": method["title"], "settings": json.dumps(method["settings"]),
            "notes": json.dumps(dict(one.notes)), **one.numbers,
        }  # fmt: skip
        if one.native:
            kept = one.kept
            of_method["cells"] = kept.values.astype(np.float32) * kept.scale + kept.base
        if one.kept.floating:
            of_method["level"] = one.kept.base
        key = quote(name, safe="")
        arrays |= {f"{what}/{key}": np.asarray(value) for what, value in of_method.items()}
    return explanations_of(arrays)


def load(path: str | Path) -> Mapping[str, Any]:
    """The explanations of a file or a folder that `explain.py` wrote.

    Args:
        path: the `.npz` of a clip, or the folder of a survey.

    Returns:
        Of a clip, its explanations by their methods' names, see `explaining.load`. Of a survey,
        `SurveyMaps`: the same for each clip by its title; nothing is read before it is asked for.

    Raises:
        UserError: it cannot be read, or is neither.

    Example:
        >>> found = load("runs/mine/explain_1/v_walk_01.npz")
        >>> found["gradcam"].save("figure.pdf")
        >>> load("runs/mine/survey_val")["v_walk_01"]["gradcam"].heatmap.shape
    """
    return SurveyMaps(path) if Path(path).is_dir() else load_clip(path)
