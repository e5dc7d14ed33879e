"""What every data set promises: those of the configurations, which are all that the package has."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import replace
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from commands import choices, node_of
from offered import offered
from pages import python
from torch import Tensor

import lightning_cam.data
from lightning_cam.data.core.base import PARTS, ClipDataModule
from lightning_cam.data.core.clips import Clip, finished
from lightning_cam.data.core.listing import Listing, Problem
from lightning_cam.data.core.loading import collate
from lightning_cam.data.core.module import SMALL, VideoDataModule
from lightning_cam.data.drives.module import DriveListing
from lightning_cam.errors import DataError, UserError
from lightning_cam.interfaces import (
    Batch,
    ClipSample,
    DriveSample,
    HasClassCounts,
    HasClasses,
    HasInputs,
    HasReader,
    HasSpectra,
    HasSpectrum,
    HasViews,
    MakesBlanks,
    OpensParts,
    ShowsFrames,
    check_data,
    checks,
    offers,
)
from lightning_cam.training.build import build

SETS = choices("data")
# Whatever says how much is rendered, and what it is for; with two classes.
FEW = {
    "groups": 3, "clips": 1, "actors": 3, "workers": 3, "repetitions": 1, "frames": 4,
    "eval_length": 4, "eval_frames": 4, "num_frames": 4,
    "train_groups": [1], "val_groups": [2], "test_groups": [3],
}  # fmt: skip
LISTED = (HasClasses, HasClassCounts)  # read the folder when asked for
SPECTRAL = (HasSpectra, HasViews, HasInputs, HasSpectrum)  # go together
NAMED = ("actions", "templates")
KNOWN = {"Tensor": Tensor, "ndarray": np.ndarray}


@cache
def module(name: str) -> Any:
    return build(node_of("data", name))


def hints(of: type) -> dict[str, Any]:
    return get_type_hints(of, localns=KNOWN, include_extras=True)


def promised(sample: dict[str, Any]) -> dict[str, Any]:
    """What the keys of a sample are."""
    return hints(DriveSample if "intrinsics" in sample else ClipSample)


def check_sample(sample: dict[str, Any]) -> None:
    """Every key is a known one, of the kind, shape and type that are written down for it."""
    if isinstance(label := sample.get("label"), Tensor) and label.ndim:
        sample = sample | {"label": label.max()}  # of several labels a clip
    known = promised(sample)
    sizes = dict(zip("CTHW", sample["video"].shape, strict=True))
    for key, value in sample.items():
        assert key in known or key.startswith("mask/"), key
        kind = known[key if key in known else "mask"]
        if get_origin(kind) is not Annotated:
            assert isinstance(value, kind), key
            continue
        of, axes, dtype = get_args(kind)
        assert isinstance(value, of), key
        assert str(value.dtype).removeprefix("torch.") == dtype, key
        assert value.ndim == len(axes.split()), key
        if np.prod(value.shape):  # there may be no depth
            for axis, size in zip(axes.split(), value.shape, strict=True):
                assert size == (int(axis) if axis.isdigit() else sizes.setdefault(axis, size)), key


def blank(data: Any) -> dict[str, Any]:
    assert isinstance(data, HasReader) and isinstance(data.reader, MakesBlanks)
    return finished(data.reader.missing(Clip(Path("there"), "clip"), "why"))


def modules() -> list[type]:
    """The data modules of the package that can be made."""
    for found in pkgutil.walk_packages(lightning_cam.data.__path__, "lightning_cam.data."):
        importlib.import_module(found.name)
    found, todo = [], [ClipDataModule]
    while todo:
        todo += (cls := todo.pop()).__subclasses__()
        own = cls.__module__.startswith("lightning_cam.")
        members = (inspect.getattr_static(cls, name) for name in dir(cls))
        abstract = any(getattr(member, "__isabstractmethod__", False) for member in members)
        if own and not abstract and not cls.__name__.startswith("_"):
            found.append(cls)
    return found


def test_every_data_set_of_the_package_has_a_configuration() -> None:
    configured = {type(module(name)) for name in SETS}
    assert [cls.__name__ for cls in modules() if cls not in configured] == []


def test_a_batch_has_the_keys_of_samples_with_an_axis_more() -> None:
    samples, batch = hints(ClipSample) | hints(DriveSample), hints(Batch)
    assert batch.keys() == samples.keys()
    for key, kind in samples.items():
        if get_origin(kind) is Annotated and get_args(kind)[0] is Tensor:
            _, axes, dtype = get_args(kind)
            assert get_args(batch[key]) == (Tensor, f"B {axes}".strip(), dtype), key


@pytest.mark.parametrize("name", SETS)
def test_no_name_seems_misspelt(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if these were somebody's own classes."""
    monkeypatch.setattr(checks, "_is_own", lambda cls: cls is not object)
    check_data(module(name))


@pytest.mark.parametrize("name", SETS)
def test_it_offers_what_the_commands_ask_for(name: str) -> None:
    data = module(name)
    always = [offer.__name__ for offer in offers.DATA if offer not in (*SPECTRAL, *LISTED)]
    found = offered(data, [offer for offer in offers.DATA if offer not in LISTED])
    assert set(always) <= set(found)
    assert len(set(found) - set(always)) in (0, len(SPECTRAL))
    assert isinstance(data, HasReader)
    assert len(offered(data.reader, offers.READER)) == len(offers.READER)
    assert not data.problems  # nothing is listed yet
    sample = blank(data)
    check_sample(sample)
    assert sample["error"] == "why" and len(sample["video"]) == data.channels


@pytest.mark.parametrize("name", SETS)
def test_clips_can_be_shown(name: str) -> None:
    data, batch = module(name), collate([blank(module(name))] * 2)
    channels, steps, height, width = batch["video"].shape[1:]
    assert isinstance(data, ShowsFrames)
    frames = data.to_frames(batch["video"])
    assert frames.dtype == np.uint8 and frames.shape == (2, steps, height, width, 3)
    assert not data.to_frames(batch["black"][:, :, None, None, None]).any()
    if isinstance(data, HasSpectra):
        assert isinstance(data, HasViews) and isinstance(data, HasInputs)
        views = data.views(batch["video"])
        assert views.keys() == data.spectra.keys()
        assert all(view.shape == frames.shape for view in views.values())
        assert set(range(channels)) == {c for of in data.spectra.values() for c in of} or not views
        assert data.inputs


def made(name: str, root: Path) -> Any:
    """A small data module of a configuration, in a folder that is not there yet."""
    node = {key: value for key, value in node_of("data", name).items() if key != "classes"}
    few = {key: value for key, value in FEW.items() if key in node}
    few |= {key: list(build(node).classes)[:2] for key in NAMED if key in node}
    return build({**node, **few, "root": str(root)})


def check_listing(data: Any) -> None:
    """What intact data list: labels of the classes, and parts that have nothing in common."""
    listed = data.list_clips() if isinstance(data, VideoDataModule) else data.listing
    assert isinstance(listed, Listing | DriveListing), listed
    assert data.listing.train and not data.problems  # which are known when it is listed
    paths, ids = {}, {}
    for part in PARTS:
        rows = data.listing.part(part)
        if isinstance(data.listing, Listing):
            assert {k for row in rows for k in row.classes} <= set(range(len(data.classes))), part
            paths[part], ids[part] = {row.path for row in rows}, {row.clip_id for row in rows}
        else:
            paths[part] = ids[part] = {image for row in rows for image in row.images}
    for found in (paths, ids):
        for one, other in combinations(PARTS, 2):
            assert not found[one] & found[other], f"{one} and {other} share clips"
    if isinstance(data.listing, Listing):
        assert len({tuple(row.classes) for row in data.listing.train}) > 1, "one label for all"


def check_clips(data: Any) -> None:
    """What the first clip of each part is, and a batch."""
    assert isinstance(data, OpensParts) and isinstance(data, HasClasses)
    for part in PARTS:
        clips = data.evaluation(part)
        for index in range(min(len(clips), 1)):
            sample = clips[index]
            check_sample(sample)
            assert not sample["error"]
            assert torch.as_tensor(sample.get("label", -1)).max() < max(len(data.classes), 1)
            shown = data.reader.display(sample["path"], sample["frame_idx"].tolist())
            assert shown.dtype == np.uint8 and shown.ndim == 4 and shown.shape[3] == 3
            assert len(shown) == sample["video"].shape[1]
    assert len(data.evaluation("train"))
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())))
    assert torch.is_floating_point(batch["video"]) and len(batch["error"]) == len(batch["video"])
    assert isinstance(data, HasInputs) == isinstance(data, HasSpectra)
    if isinstance(data, HasInputs):
        indices = [n for spectrum in data.inputs for n in data.indices("train", spectrum)]
        assert sorted(indices) == list(range(len(data.evaluation("train"))))


def check_empty(data: Any, root: Path) -> None:
    """Where there are no data, one line names the folder and a setting."""
    for listed in (data.prepare_data, lambda: data.listing):
        try:
            listed()
        except UserError as error:
            line = str(error)
            break
    else:
        raise AssertionError(f"an empty folder is listed as {data.listing}")
    assert str(root) in line and "data." in line and "\n" not in line, line


@pytest.mark.parametrize("name", SETS)
def test_clips_that_are_rendered_and_folders_that_are_empty(name: str, tmp_path: Path) -> None:
    """Data modules of `synthetic`, and any other that fills its folder, must list what is there."""
    data = made(name, tmp_path / "set")
    try:
        data.prepare_data()
    except UserError:
        assert not any(tmp_path.rglob("*"))
    if any(tmp_path.rglob("*")):
        check_listing(data)
        check_clips(data)
    else:
        assert not type(data).__module__.startswith("lightning_cam.synthetic.")
        check_empty(made(name, tmp_path), tmp_path)


class Flat(VideoDataModule):
    """Videos in one folder: <class>_<n>.mp4."""

    def __init__(self, root: str) -> None:
        super().__init__(root, **{**SMALL, "num_frames": 4})

    def list_clips(self) -> Listing:
        paths = sorted(Path(self.root).glob("*.mp4"))
        if not paths:
            raise DataError(f"no videos in {self.root!r}; set data.root=FOLDER")
        classes = sorted({path.stem.split("_")[0] for path in paths})
        clips = [Clip(p, p.stem, classes.index(p.stem.split("_")[0])) for p in paths]
        return Listing(classes, clips[::3], clips[1::3], clips[2::3])


class OneLabel(Flat):
    def list_clips(self) -> Listing:
        found = super().list_clips()
        return replace(found, train=[replace(clip, label=0) for clip in found.train])


class NoClass(Flat):
    def list_clips(self) -> Listing:
        found = super().list_clips()
        return replace(found, val=[replace(clip, label=2) for clip in found.val])


class SharedClips(Flat):
    def list_clips(self) -> Listing:
        found = super().list_clips()
        return replace(found, val=[*found.val, found.train[0]])


class SharedNames(Flat):
    def list_clips(self) -> Listing:
        found = super().list_clips()
        return replace(found, test=[replace(found.test[0], clip_id=found.train[0].clip_id)])


class Troubled(Flat):
    def list_clips(self) -> Listing:
        return replace(super().list_clips(), problems=[Problem("row", "a row", "why")])


class NoListing(Flat):
    def list_clips(self) -> Listing:
        super().list_clips()
        return None  # type: ignore[return-value]


class Nameless(Flat):
    def list_clips(self) -> Listing:
        try:
            return super().list_clips()
        except DataError:
            raise DataError("no videos") from None


def test_the_data_set_of_the_readme_names_a_folder_that_holds_nothing(tmp_path: Path) -> None:
    """It says nothing of empty folders itself: whoever lists it does."""
    (code,) = (code for page, code in python() if page == "configs/README.md" and "MyData" in code)
    names: dict[str, Any] = {"__name__": "my_module"}
    exec(code, names)
    for root in (tmp_path, tmp_path / "absent"):
        check_empty(names["MyData"](str(root)), root)


def test_a_data_set_that_breaks_a_promise_is_refused(tmp_path: Path) -> None:
    (full := tmp_path / "full").mkdir()
    (empty := tmp_path / "empty").mkdir()
    for name, index in product(("down", "up"), range(6)):
        (full / f"{name}_{index}.mp4").touch()
    check_listing(Flat(str(full)))
    check_empty(Flat(str(empty)), empty)
    for cls in Flat.__subclasses__():
        with pytest.raises(AssertionError):
            check_listing(cls(str(full)))
            check_empty(cls(str(empty)), empty)
