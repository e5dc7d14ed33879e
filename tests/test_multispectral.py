"""The Multispectral Action Dataset: lists, parts, pairs, channels, registration, damage."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import layouts
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_cam.data.core import disk_cache
from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.dataset import ClipDataset
from lightning_cam.data.core.ground_truth import Truth
from lightning_cam.data.multispectral.module import Multispectral
from lightning_cam.data.multispectral.names import actor_of, camera_of, partner, spectrum_of
from lightning_cam.data.multispectral.reader import load_registration, match_heights, same_moments
from lightning_cam.errors import ConfigError, DataError, UnknownNameError, VideoReadError
from lightning_cam.synthetic.multispectral import registration
from lightning_cam.synthetic.multispectral.data_module import SyntheticMultispectral

ACTIONS = ("kick_left", "kick_right", "wave")
IGNORE = pytest.mark.filterwarnings("ignore:no (train|val|test) clips of")


def image(spectrum: str, level: int, size: tuple[int, int]) -> np.ndarray:
    """Grey of a level; the visible one BGR with other levels of green and red."""
    if spectrum == "ir":
        return np.full(size, level, np.uint8)
    return np.stack([np.full(size, min(255, level + k), np.uint8) for k in (0, 50, 100)], axis=-1)


def film(folder: Path, spectrum: str, count: int = 4, size: tuple[int, int] | None = None) -> Path:
    """Frame k has the level 10 + k."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        of = image(spectrum, 10 + n, size or ((30, 40) if spectrum == "ir" else (27, 48)))
        path = folder / f"{n:04d}.png"
        cv2.imwrite(str(path), of)
        path.write_bytes(path.read_bytes() + str(folder).encode())  # or all were copies of one
    return folder


def lay(
    root: Path,
    actors: int = 5,
    actions: Sequence[str] = ACTIONS,
    count: int = 4,
    lists: bool = True,
    key: str = "{action}/a{actor:02d}_c{camera}_r1",
) -> Path:
    """Every actor does every action once before each camera; the last one is for testing."""
    top = root / "SOIB"
    rows: dict[str, list[str]] = {"train": [], "test": []}
    for label, action in enumerate(actions):
        for actor in range(1, actors + 1):
            for camera in (1, 2):
                name = key.format(action=action, actor=actor, camera=camera, label=label)
                for spectrum in ("ir", "tv"):
                    film(top / spectrum.upper() / name, spectrum, count)
                rows["test" if actor == actors else "train"].append(f"{name} {count} {label}")
    if lists:
        (top / "file_lists").mkdir()
        for spectrum in ("IR", "TV"):
            for part, lines in rows.items():
                text = "".join(f"{line}\n" for line in lines)
                (top / "file_lists" / f"{spectrum}_{part}.txt").write_text(text)
    return root


def module(root: Path, **options: Any) -> Multispectral:
    small = {"resize": 24, "crop": 16, "batch_size": 4, "num_workers": 0, "num_frames": 4}
    return Multispectral(str(root), **{**small, **options})


def everything(data: Multispectral) -> list[Clip]:
    return [*data.listing.train, *data.listing.val, *data.listing.test]


def problems(data: Multispectral) -> list[tuple[str, str]]:
    return [(problem.kind, problem.what) for problem in data.listing.problems]


def edit(root: Path, name: str, old: str, new: str) -> None:
    path = root / "SOIB" / "file_lists" / f"{name}.txt"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "set"))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.multispectral(tmp_path_factory.mktemp("rendered") / "set")


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "actor", "camera"),
    [
        ("wave/a01_c2_r1", 1, 2),
        ("Person-12/cam_1/take3", 12, 1),
        ("actor7_camera2", 7, 2),
        ("wave/P03-C1", 3, 1),
        ("subject_04/x", 4, None),
        ("arc12/ca5", None, None),
        ("alpha01_c", None, None),
    ],
)
def test_actors_and_cameras_by_name(key: str, actor: int | None, camera: int | None) -> None:
    assert (actor_of(key), camera_of(key)) == (actor, camera)


def test_partners(tmp_path: Path) -> None:
    for name in ("IR/wave/a01", "TV/wave/a01", "IR/x_IR_1", "TV/x_TV_1", "TV/alone"):
        (tmp_path / name).mkdir(parents=True)
    assert partner(tmp_path / "IR/wave/a01") == tmp_path / "TV/wave/a01"
    assert partner(tmp_path / "TV/x_TV_1") == tmp_path / "IR/x_IR_1"
    assert spectrum_of(Path("/data/TV/copy/IR/x")) == "ir"
    assert spectrum_of(Path("/data/x")) is None
    with pytest.raises(DataError, match=r"no partner.*expected '.*IR/alone'"):
        partner(tmp_path / "TV/alone")
    with pytest.raises(DataError, match="below no folder named IR or TV"):
        partner(tmp_path)


# --- what there is --------------------------------------------------------------------------------


@pytest.mark.parametrize("lists", [True, False])
@pytest.mark.parametrize("spectrum", ["ir", "tv", "irtv"])
def test_parts_share_no_actor(tmp_path: Path, lists: bool, spectrum: str) -> None:
    data = module(lay(tmp_path, count=1, lists=lists), spectrum=spectrum)
    assert data.classes == list(ACTIONS)
    assert not data.listing.problems
    actors = [
        {actor_of(clip.path.as_posix().partition("SOIB")[2]) for clip in part}
        for part in (data.listing.train, data.listing.val, data.listing.test)
    ]
    assert actors == [{1, 2, 3}, {4}, {5}]
    factor = 2 if spectrum == "irtv" else 1
    counts = [len(part) for part in (data.listing.train, data.listing.val, data.listing.test)]
    assert counts == [factor * n for n in (18, 6, 6)]
    ids = [clip.clip_id for clip in everything(data)]
    assert len(set(ids)) == len(ids)


def test_more_actors_for_validation(whole: Path) -> None:
    data = module(whole, val_actors=2)
    assert {clip.group for clip in data.listing.val} == {3, 4}
    assert {clip.group for clip in data.listing.train} == {1, 2}
    with pytest.raises(ConfigError, match="val_actors=4 must be less than the 4 actors"):
        _ = module(whole, val_actors=4).listing


def test_what_is_missing_moves_nothing(root: Path) -> None:
    before = {clip.clip_id: part for part in ("train", "val", "test")
              for clip in getattr(module(root).listing, part)}  # fmt: skip
    for name in ("a04_c1_r1", "a04_c2_r1"):
        shutil.rmtree(root / "SOIB" / "IR" / "wave" / name)
    data = module(root)
    after = {clip.clip_id: part for part in ("train", "val", "test")
             for clip in getattr(data.listing, part)}  # fmt: skip
    assert after.items() <= before.items()
    assert len(before) - len(after) == 2
    assert problems(data) == [
        ("missing", "IR/wave/a04_c1_r1"), ("missing", "IR/wave/a04_c2_r1")
    ]  # fmt: skip


def test_unknown_actors_are_held_out_by_sequence(tmp_path: Path) -> None:
    lay(tmp_path, key="{action}/take{actor}{camera}", count=1)
    data = module(tmp_path)
    with pytest.warns(UserWarning, match=r"'.*take11' does not tell the actor"):
        listing = data.listing
    assert len(listing.val) == 2 * 3  # one of each class, in both spectra
    pairs = [{clip.path.parts[-2:] for clip in part} for part in (listing.train, listing.val)]
    assert not pairs[0] & pairs[1]
    assert data.listing.classes == list(ACTIONS)


@IGNORE
def test_names_of_classes(tmp_path: Path) -> None:
    flat = lay(tmp_path / "flat", key="a{actor:02d}_c{camera}_x{label}", count=1)
    data = module(flat)
    assert data.classes == [str(n) for n in range(8)]
    assert data.mirror() == [None] * 8  # who knows whether they have sides
    (flat / "SOIB" / "file_lists" / "classes.txt").write_text("run\nkick left\nkick right\n")
    data = module(flat)
    assert data.classes == ["run", "kick left", "kick right"]
    assert data.mirror() == [0, 2, 1]
    assert {clip.label for clip in data.listing.train} == {0, 1, 2}
    by_actor = lay(tmp_path / "by actor", key="a{actor:02d}/x{label}_c{camera}", count=1)
    assert module(by_actor).classes[:2] == ["0", "1"]
    some = module(flat, classes=["kick right", "run"])
    assert {clip.label for clip in everything(some)} == {0, 1}
    assert len(everything(some)) == 2 * len(everything(data)) // 3
    with pytest.raises(UnknownNameError, match="hop"):
        _ = module(flat, classes=["hop"]).listing


def test_mirroring_by_name(whole: Path) -> None:
    assert module(whole).mirror() == [1, 0, 2]
    assert module(whole, hflip_pairs=[]).mirror() == [0, 1, 2]
    assert SyntheticMultispectral("unused").mirror() == [0, 1, 3, 2, 5, 4, 6, 7]
    one_side = module(whole, classes=["kick_left", "wave"])
    assert one_side.mirror() == [None, 1]


def test_rows_may_begin_anywhere_and_hold_blanks(root: Path) -> None:
    for name, start in (("IR_train", "/data/SOIB/IR/"), ("TV_train", "SOIB\\TV\\")):
        path = root / "SOIB" / "file_lists" / f"{name}.txt"
        lines = [f"{start}{row}  \r\n" for row in path.read_text().splitlines()]
        path.write_text("\ufeff" + "".join(lines) + "\n", newline="")
    data = module(root)
    assert not data.listing.problems
    assert len(everything(data)) == 60
    folder = root / "SOIB" / "TV" / "wave" / "a01_c1_r1"
    folder.rename(folder.with_name("a01_c1 take 1"))
    edit(root, "TV_train", "wave/a01_c1_r1", "wave/a01_c1 take 1")
    assert not module(root, spectrum="tv").listing.problems


def test_a_copy_without_the_outer_folder(root: Path) -> None:
    assert len(everything(module(root / "SOIB"))) == 60


def test_one_spectrum_is_enough(root: Path) -> None:
    shutil.rmtree(root / "SOIB" / "TV")
    for name in ("TV_train", "TV_test"):
        (root / "SOIB" / "file_lists" / f"{name}.txt").unlink()
    assert len(everything(module(root, spectrum="ir"))) == 30
    with pytest.raises(DataError, match=r"lacks the folder TV: .*data\.spectrum=ir"):
        _ = module(root).listing


# --- what is wrong --------------------------------------------------------------------------------


def test_images_are_counted(root: Path) -> None:
    (root / "SOIB" / "TV" / "wave" / "a01_c1_r1" / "0003.png").unlink()
    data = module(root, spectrum="tv")
    assert problems(data) == [("count", "TV/wave/a01_c1_r1")]
    assert "3 images are there, 4 listed in TV_train.txt" in data.listing.problems[0].why
    assert len(everything(data)) == 30  # what is left can be used


def test_sequences_that_do_not_pair(root: Path) -> None:
    edit(root, "IR_train", "wave/a01_c1_r1 4 2\n", "")
    edit(root, "TV_train", "wave/a02_c1_r1 4 2\n", "")
    edit(root, "TV_train", "kick_left/a02_c1_r1 4 0", "kick_left/a02_c1_r1 4 1")
    early = module(root, fusion="early")
    found = problems(early)
    assert ("pair", "TV/wave/a01_c1_r1") in found
    assert ("pair", "IR/wave/a02_c1_r1") in found
    assert ("unlisted", "TV/wave/a02_c1_r1") in found
    ids = {clip.clip_id for clip in everything(early)}
    assert len(ids) == 27
    assert not ids & {"wave_a01_c1_r1", "wave_a02_c1_r1", "kick_left_a02_c1_r1"}
    assert problems(module(root, spectrum="ir")) == [("unlisted", "IR/wave/a01_c1_r1")]


def test_an_actor_on_both_sides(root: Path) -> None:
    edit(root, "IR_train", "wave/a02_c2_r1 4 2\n", "")
    path = root / "SOIB" / "file_lists" / "IR_test.txt"
    path.write_text(path.read_text() + "wave/a02_c2_r1 4 2\n")
    (problem,) = module(root, spectrum="ir").listing.problems
    assert (problem.kind, problem.what) == ("leak", "actor 2")
    assert "IR_train.txt" in problem.why and "IR_test.txt" in problem.why


@IGNORE
def test_rows_that_make_no_sense(root: Path) -> None:
    edit(root, "IR_train", "wave/a01_c1_r1 4 2\n", "wave/a01_c1_r1 4 9\n")
    edit(root, "IR_train", "wave/a01_c2_r1 4 2\n", "wave/a01_c2_r1 four 2\n")
    path = root / "SOIB" / "file_lists" / "IR_train.txt"
    path.write_text(path.read_text() + "kick_left/a01_c1_r1 4 0\nwave/a03_c9_r9 4 -1\n")
    found = [(kind, what.partition(":")[0]) for kind, what in problems(module(root, spectrum="ir"))]
    assert sorted(found) == [
        ("label", "IR_train.txt"), ("label", "IR_train.txt"), ("row", "IR_train.txt"),
        ("row", "IR_train.txt"), ("unlisted", "IR/wave/a01_c2_r1"),
    ]  # fmt: skip


def test_labels_from_one(root: Path) -> None:
    for name in ("IR_train", "IR_test"):
        path = root / "SOIB" / "file_lists" / f"{name}.txt"
        lines = (row.rsplit(" ", 1) for row in path.read_text().splitlines())
        path.write_text("".join(f"{start} {int(label) + 1}\n" for start, label in lines))
    with pytest.raises(DataError, match=r"IR_t\w+\.txt:1: 1.*begin at 0"):
        _ = module(root, spectrum="ir").listing


def test_errors_of_layout(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no multispectral data at .*Fraunhofer IOSB"):
        _ = module(tmp_path / "nowhere").listing
    (root / "SOIB" / "file_lists" / "TV_test.txt").unlink()
    with pytest.raises(DataError, match=r"TV_test\.txt' is not there"):
        _ = module(root).listing
    shutil.rmtree(root / "SOIB" / "file_lists")
    film(root / "SOIB" / "IR" / "wave" / "somebody", "ir")
    assert problems(module(root)) == [("group", "IR/wave/somebody")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"spectrum": "rgb"}, "no data.spectrum 'rgb'"),
        ({"fusion": "late"}, "no data.fusion 'late'"),
        ({"val_actors": 0}, "data.val_actors=0"),
        ({"crop_shift": -1}, "data.crop_shift=-1"),
        ({"ir_range": [9, 9]}, "low < high"),
        ({"spectrum": "ir", "permute": 0.5}, "three channels"),
    ],
)
def test_errors_of_settings(options: dict[str, Any], words: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError)) as raised:
        module(Path("unused"), **options)
    assert words in str(raised.value)


# --- clips ----------------------------------------------------------------------------------------


def test_channels_of_each_mode(whole: Path) -> None:
    """Frame k is 10 + k in infrared and blue, 50 more in green and 100 more in red."""
    plain = {"mean": [0.0] * 3, "std": [1 / 255] * 3, "ir_mean": 0.0, "ir_std": 1 / 255}
    level = 10 + torch.arange(4.0)
    tv = torch.stack([level + 100, level + 50, level])
    ir = level[None]
    expected = {
        "ir": ir, "tv": tv, "union ir": ir.expand(3, -1), "union tv": tv,
        "early": torch.cat([tv, ir]),
    }  # fmt: skip
    for name, levels in expected.items():
        mode, _, kind = name.partition(" ")
        options = (
            {"spectrum": mode} if mode in ("ir", "tv") else {"spectrum": "irtv", "fusion": mode}
        )
        data = module(whole, **plain, **options)
        index = data.indices("test", kind or data.inputs[0])[0]
        sample = data.test_set[index]
        assert sample["video"].shape == (len(levels), 4, 16, 16)
        torch.testing.assert_close(sample["video"][:, :, 8, 8], levels, atol=1e-3, rtol=0)
        assert sample["spectrum"] == {"early": "irtv"}.get(mode, kind or mode)
        assert sample["black"].shape == (len(levels),)
        assert data.spectra == ({"tv": (0, 1, 2), "ir": (3,)} if mode == "early" else {})
        assert len(data.mean) == len(data.std) == len(levels)
        frames = data.to_frames(sample["video"][None])
        assert frames.shape == (1, 4, 16, 16, 3)
        shown = tv if "ir" not in name.split() else ir.expand(3, -1)
        assert (frames[0, :, 8, 8] == shown.T.numpy()).all()
        larger = data.reader.display(sample["path"], [0, 3], side=32)
        assert larger.shape == (2, 32, 32, 3)
        assert (larger[:, 16, 16] == shown.T[[0, 3]].numpy()).all()


def test_black(whole: Path) -> None:
    data = module(whole, fusion="early", ir_mean=0.3, ir_std=0.2)
    expected = torch.tensor([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225, -1.5])
    torch.testing.assert_close(data.test_set[0]["black"], expected)
    missing = data.reader.missing(data.listing.test[0], "gone")
    torch.testing.assert_close(missing["black"], expected)
    assert missing["spectrum"] == "irtv"


def test_inputs_of_the_study(whole: Path) -> None:
    data = module(whole)
    assert data.inputs == ("ir", "tv")
    both = [data.indices("test", name) for name in data.inputs]
    assert sorted(both[0] + both[1]) == list(range(12))
    clips = data.listing.test
    assert [clips[i].path.name for i in both[0]] == [clips[i].path.name for i in both[1]]
    assert all("/IR/" in clips[i].path.as_posix() for i in both[0])
    assert module(whole, fusion="early").inputs == ("irtv",)
    assert module(whole, spectrum="tv").inputs == ("tv",)
    with pytest.raises(UnknownNameError):
        data.indices("test", "irtv")


@pytest.mark.parametrize("kind", ["16", "3", "16x3", "jpeg"])
def test_kinds_of_infrared_images(root: Path, kind: str) -> None:
    for path in (root / "SOIB" / "IR").rglob("*.png"):
        level = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if kind.startswith("16"):
            level = level.astype(np.uint16) * 100 + 7000
        if kind.endswith(("3", "jpeg")):
            level = np.repeat(level[..., None], 3, axis=-1)
        if kind == "jpeg":
            cv2.imwrite(str(path.with_suffix(".jpg")), level)
            path.unlink()
        else:
            cv2.imwrite(str(path), level)
    options: dict[str, Any] = {"spectrum": "ir", "ir_mean": 0.0, "ir_std": 1 / 255}
    if kind.startswith("16"):
        data = module(root, **options)
        with pytest.raises(ConfigError, match=r"16 bits: .*data\.ir_range=\[8000,8300\]"):
            data.prepare_data()
        assert "16 bits" in data.test_set[0]["error"]
        options["ir_range"] = [7000, 7000 + 25500]
    data = module(root, **options)
    data.prepare_data()
    sample = data.test_set[0]
    assert sample["error"] == ""
    expected = 10 + torch.arange(4.0)
    torch.testing.assert_close(sample["video"][0, :, 8, 8], expected, atol=0.01, rtol=0)


def test_false_colours_are_no_infrared(root: Path) -> None:
    path = next((root / "SOIB" / "IR" / "wave" / "a05_c1_r1").iterdir())
    cv2.imwrite(str(path), image("tv", 10, (30, 40)))
    data = module(root, spectrum="ir")
    errors = [data.test_set[n]["error"] for n in range(len(data.test_set))]
    (error,) = filter(None, errors)
    assert "has colours, not one channel" in error


def test_a_single_unreadable_clip_ends_nothing(root: Path) -> None:
    bad = root / "SOIB" / "IR" / "wave" / "a05_c1_r1" / "0002.png"
    bad.write_bytes(b"no image")
    train = root / "SOIB" / "IR" / "wave" / "a01_c1_r1" / "0002.png"
    train.write_bytes(b"no image")
    for options in ({"fusion": "early"}, {"spectrum": "ir"}, {}):
        data = module(root, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data.setup()
        errors = []
        for loader in (data.test_dataloader(), data.train_dataloader()):
            for batch in loader:
                errors += filter(None, batch["error"])
                assert len(batch["spectrum"]) == len(batch["label"])
        assert len(errors) == 2
        assert all("0002.png is damaged" in error for error in errors)


# --- both spectra in one clip ---------------------------------------------------------------------


def spot(folder: Path, x: float, y: float, size: tuple[int, int], channels: int) -> None:
    """One image, black but for a soft spot."""
    folder.mkdir(parents=True)
    v, u = np.mgrid[: size[0], : size[1]]
    level = 255 * np.exp(-((u - x) ** 2 + (v - y) ** 2) / 8)
    of = np.repeat(level[..., None], channels, axis=-1) if channels > 1 else level
    cv2.imwrite(str(folder / "0000.png"), of.astype(np.uint8))


def centre(level: torch.Tensor) -> tuple[float, float]:
    v, u = torch.meshgrid(*map(torch.arange, level.shape), indexing="ij")
    return tuple(float((level * of).sum() / level.sum()) for of in (u, v))  # type: ignore[return-value]


@pytest.mark.parametrize("homography", [False, True])
@pytest.mark.parametrize("start", ["IR", "TV"])
def test_a_known_point_lands_where_the_matrix_says(
    tmp_path: Path, homography: bool, start: str
) -> None:
    matrix = np.array([[1.4, 0.1, 9.0], [-0.1, 1.3, 4.0], [1e-3, 0, 1]])
    if not homography:
        matrix = matrix[:2]
    tmp_path = tmp_path / "c1"  # the folders above the data name no camera
    tmp_path.mkdir()
    (tmp_path / "registration.json").write_text(json.dumps({"2": matrix.tolist()}))
    spot(tmp_path / "SOIB" / "IR" / "x" / "a1_c2", 30, 20, (48, 64), 1)
    spot(tmp_path / "SOIB" / "TV" / "x" / "a1_c2", 10, 10, (64, 100), 3)
    data = module(tmp_path, fusion="early", resize=64, crop=64, num_frames=1,
                  mean=[0.0] * 3, std=[1.0] * 3, ir_mean=0.0, ir_std=1.0)  # fmt: skip
    sample = data.read(tmp_path / "SOIB" / start / "x" / "a1_c2")
    assert (sample["spectrum"], sample["label"]) == ("irtv", -1)
    full = matrix if homography else np.vstack([matrix, (0, 0, 1)])
    x, y, w = full @ (30, 20, 1)
    left = (100 - 64) // 2
    found = centre(sample["video"][3, 0])
    assert found == pytest.approx((x / w - left, y / w), abs=0.3)


def test_without_registration_height_and_middle_agree(tmp_path: Path) -> None:
    spot(tmp_path / "IR" / "x", 31.5, 23.5, (48, 64), 1)
    spot(tmp_path / "TV" / "x", 49.5, 31.5, (64, 100), 3)
    data = module(tmp_path, fusion="early", resize=64, crop=64, num_frames=1)
    sample = data.read(tmp_path / "TV" / "x")["video"][:, 0]
    low = sample.amin((1, 2), keepdim=True)
    assert centre((sample - low)[3]) == pytest.approx(centre((sample - low)[0]), abs=0.1)
    matrix = match_heights((48, 64), (64, 100))
    np.testing.assert_allclose(matrix @ (31.5, 23.5, 1), (49.5, 31.5, 1))


def test_a_registration_must_fit(tmp_path: Path) -> None:
    for side in ("IR", "TV"):
        film(tmp_path / side / "a1_c1", side.lower())
    path = tmp_path / "registration.json"
    for number, (content, words) in enumerate(
        [
            ('{"c2": [[1, 0, 0], [0, 1, 0]]}', "no matrix for camera 1"),
            ('{"c1": [[1, 0], [0, 1]]}', "does not map each camera"),
            ('{"c1": [[0, 0, 0], [0, 1, 0]]}', "does not map each camera"),
            ("[1]", "does not map each camera"),
            ("{", "does not map each camera"),
        ]
    ):
        path = tmp_path / f"{number}.json"
        path.write_text(content)
        data = module(tmp_path, fusion="early", registration=str(path))
        with pytest.raises(DataError, match=words):
            data.read(tmp_path / "TV" / "a1_c1")
    with pytest.raises(DataError, match="cannot read"):
        load_registration(str(tmp_path / "nowhere.json"))
    path.write_text('{"*": [[1, 0, 0], [0, 1, 0]]}')
    load_registration.cache_clear()
    data = module(tmp_path, fusion="early", registration=str(path))
    assert data.read(tmp_path / "TV" / "a1_c1")["video"].shape == (4, 4, 16, 16)


def test_reading_single_folders(whole: Path, tmp_path: Path) -> None:
    ir, tv = (whole / "SOIB" / side / "wave" / "a01_c1_r1" for side in ("IR", "TV"))
    early = module(tmp_path / "nowhere", fusion="early", classes=list(ACTIONS))
    one, other = early.read(ir), early.read(tv)
    assert torch.equal(one["video"], other["video"])
    union = module(tmp_path / "nowhere", classes=list(ACTIONS))
    assert [union.read(path)["spectrum"] for path in (ir, tv)] == ["ir", "tv"]
    alone = Path(shutil.copytree(tv, tmp_path / "TV" / "wave"))
    assert union.read(alone)["video"].shape == (3, 4, 16, 16)
    with pytest.raises(DataError, match="no partner in the other spectrum"):
        early.read(alone)
    with pytest.raises(VideoReadError, match="has colours, not one channel"):
        module(whole, spectrum="ir").read(tv)


@given(st.integers(2, 60), st.integers(1, 60))
def test_alignment_in_time(count: int, other: int) -> None:
    at = np.arange(count)
    there = same_moments(at, count, other)
    assert there[0] == 0
    assert there[-1] == other - 1
    assert (np.diff(there) >= 0).all()
    if count == other:
        assert (there == at).all()
    # at most half an image off, in whole numbers
    assert (2 * np.abs(there * (count - 1) - at * (other - 1)) <= count - 1).all()


def test_spectra_of_unequal_length(tmp_path: Path) -> None:
    film(tmp_path / "TV" / "x", "tv", 4)
    film(tmp_path / "IR" / "x", "ir", 7)
    plain = {"mean": [0.0] * 3, "std": [1 / 255] * 3, "ir_mean": 0.0, "ir_std": 1 / 255}
    video = module(tmp_path, fusion="early", **plain).read(tmp_path / "TV" / "x")["video"]
    torch.testing.assert_close(video[2, :, 8, 8], torch.tensor([10.0, 11, 12, 13]))
    torch.testing.assert_close(
        video[3, :, 8, 8], torch.tensor([10.0, 12, 14, 16]), atol=0.01, rtol=0
    )


@pytest.mark.attack
@pytest.mark.parametrize("spectrum", ["irtv", "ir", "tv"])
def test_large_sequences_are_read_image_by_image(tmp_path: Path, spectrum: str) -> None:
    """Infrared, visible and fused sequences much larger than what is kept or shown of them."""
    count, size = 30, (300, 400)
    for folder in ("TV", "IR"):
        film(tmp_path / folder / "x", folder.lower(), count, size)
    data = module(tmp_path, spectrum=spectrum, fusion="early", resize=24, crop=24, num_frames=40)
    path = tmp_path / ("IR" if spectrum == "ir" else "TV") / "x"
    asked = [n // 2 for n in range(2 * count)]  # repeats, as of padded clips
    whole = data.reader.read(path, lambda _: asked).frames
    kept = data.reader.transform.shrink(torch.from_numpy(whole).permute(0, 3, 1, 2))
    assert (whole[:, 5, 5, -1] == [10 + n for n in asked]).all()
    reads = (
        lambda: data.reader._read(path, lambda _: np.array(asked)).frames,
        lambda: data.reader.display(path, asked, side=24),
    )
    for read in reads:
        tracemalloc.start()
        frames = read()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < whole.nbytes / 2  # a few images at a time
        if isinstance(frames, torch.Tensor):
            assert torch.equal(frames, kept)


@pytest.mark.parametrize("spectrum", ["irtv", "ir", "tv"])
def test_a_stream_gives_what_is_read(tmp_path: Path, spectrum: str) -> None:
    for folder in ("TV", "IR"):
        film(tmp_path / folder / "x", folder.lower(), 12, (30, 40))
    data = module(tmp_path, spectrum=spectrum, fusion="early", resize=24, crop=24)
    path = tmp_path / ("IR" if spectrum == "ir" else "TV") / "x"
    wanted = np.arange(2, 12, 3)
    streamed = np.stack(list(data.reader.open(path).frames(wanted)))
    assert (streamed == data.reader.read(path, lambda _: wanted).frames).all()


# --- the synthetic set through the module ---------------------------------------------------------


def synthetic(root: Path, **options: Any) -> SyntheticMultispectral:
    given = {"actors": 5, "repetitions": 1, "actions": list(layouts.MULTISPECTRAL_NAMES)}
    data = SyntheticMultispectral(str(root), **given, **options)
    data.prepare_data()
    return data


@pytest.mark.slow
def test_the_synthetic_set(rendered: Path) -> None:
    data = synthetic(rendered, fusion="early")
    data.setup()
    assert data.classes == ["swing_ccw", "swing_cw"]
    assert data.mirror() == [1, 0]
    assert not data.listing.problems
    counts = [len(part) for part in (data.listing.train, data.listing.val, data.listing.test)]
    assert counts == [12, 4, 4]
    sample = data.test_set[0]
    assert sample["video"].shape == (4, 16, 64, 64)
    assert sample["frame_idx"][-1] == 38  # the whole sequence
    assert sample["valid"].all()
    for name in ("mask", "mask/body", "mask/arm", "mask/paddle"):
        assert sample[name].shape == (16, 64, 64)
    assert (sample["mask"] == sample["mask/arm"]).all()
    assert 8 <= sample["action"].sum() <= 13


def test_fused_spectra_overlap(rendered: Path) -> None:
    """The warmth of the person, on the visible grid, is where the person is seen."""
    data = synthetic(rendered, fusion="early", ir_mean=0.0, ir_std=1.0)
    for n in range(len(data.test_set)):
        sample = data.test_set[n]
        person = sample["mask/body"] | sample["mask/arm"]
        warm = sample["video"][3] > 0.42
        lamp = warm.all(0) & ~person.any(0)  # does not move
        warm &= ~lamp
        assert ((warm & person).sum() / (warm | person).sum()) > 0.7


@pytest.mark.parametrize("spectrum", ["ir", "tv"])
def test_ground_truth_of_one_spectrum(rendered: Path, spectrum: str) -> None:
    data = synthetic(rendered, spectrum=spectrum)
    clip = data.listing.test[0]
    assert clip.truth is not None
    assert clip.truth.parts[-3] == spectrum.upper()
    sample = data.test_set[0]
    assert sample["mask"].any() == (spectrum == "ir")  # a swing is not seen under the poncho
    assert sample["mask/body"].any(-1).any(-1).all()
    assert Truth.read(clip.truth).mask.shape[1:] == ((60, 80) if spectrum == "ir" else (68, 120))


def test_registration_is_that_of_the_rendering(rendered: Path) -> None:
    for camera, matrix in load_registration(str(rendered / "registration.json")).items():
        assert camera is not None
        np.testing.assert_allclose(matrix, registration(camera), atol=1e-6)


def test_training_crops_stay_near_the_centre(rendered: Path) -> None:
    data = synthetic(rendered, spectrum="tv", hflip=0.0, contrast=0.0, offset=0.0, grey=0.0,
                     permute=0.0)  # fmt: skip
    wide = synthetic(rendered, spectrum="tv", crop_shift=None)
    assert data.reader.transform.shift == 4
    assert wide.reader.transform.shift is None
    frames = torch.zeros(1, 3, 64, 113, dtype=torch.uint8)
    frames[..., :] = torch.arange(113, dtype=torch.uint8)
    for reach, transform in ((4, data.reader.transform), (24, wide.reader.transform)):
        lefts = [
            int(transform(frames, generator=torch.Generator().manual_seed(n),
                          flippable=False).video.min())
            for n in range(300)
        ]  # fmt: skip
        assert min(lefts) == 24 - reach
        assert max(lefts) in (24 + reach, 25 + reach)


@pytest.mark.parametrize("spectrum", ["irtv", "ir", "tv"])
def test_clips_kept_on_a_disk_follow_both_sequences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spectrum: str
) -> None:
    monkeypatch.setattr(disk_cache, "_FREE", 0)
    for folder in ("TV", "IR"):
        film(tmp_path / folder / "x", folder.lower(), 12, (30, 40))
    data = module(tmp_path, spectrum=spectrum, fusion="early", resize=24, crop=24, num_frames=6)
    clip = Clip(tmp_path / ("IR" if spectrum == "ir" else "TV") / "x", "x", 0)

    def samples(kept: bool) -> list[torch.Tensor]:
        cache = disk_cache.DiskCache(str(tmp_path / "kept"), 1) if kept else False
        dataset = ClipDataset([clip], data.reader, train=True, cache=cache)
        return [dataset[epoch, 0]["video"] for epoch in range(3)]

    def equal() -> bool:
        return all(map(torch.equal, samples(True), samples(False)))

    assert equal()
    folders = ["TV", "IR"] if spectrum == "irtv" else [clip.path.parent.name]
    for folder in folders:
        for image in (tmp_path / folder / "x").iterdir():
            cv2.imwrite(str(image), 255 - cv2.imread(str(image), cv2.IMREAD_UNCHANGED))
            os.utime(image, (1, 1))
        assert equal()
    assert len([*(tmp_path / "kept").rglob("*.clip")]) == 1 + len(folders)
