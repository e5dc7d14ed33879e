"""Drives of images for depth and motion: geometry, clips, KITTI's files, every kind of damage."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import layouts
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lightning_cam.commands.run_check import check
from lightning_cam.commands.search import composed
from lightning_cam.data.core.clips import Clip, finished
from lightning_cam.data.drives import cameras
from lightning_cam.data.drives.drive import Drive, long_clips, snippets
from lightning_cam.data.drives.kitti_odometry import KittiOdometry
from lightning_cam.data.drives.kitti_sequence import read_odometry_camera
from lightning_cam.data.drives.transforms import SnippetTransform
from lightning_cam.errors import ConfigError, DataError, UnknownNameError, VideoReadError
from lightning_cam.geometry import inverse_warp
from lightning_cam.synthetic.odometry import EVIDENCE_MASKS as MASKS
from lightning_cam.synthetic.odometry.data_module import SyntheticOdometry

SIZE = (40, 130)  # of images on disk
K = cameras.pinhole(75.0, 76.0, 63.5, 19.4)
BASELINE = np.array([0.06, -0.01, 0.003])  # of image_2
REAL = [718.856, 718.856, 607.1928, 185.2157]


def drive_poses(count: int, seed: int = 0) -> np.ndarray:
    """Camera to world, the first one the identity."""
    rng = np.random.default_rng(seed)
    poses = [np.eye(4)]
    for _ in range(count - 1):
        step = np.eye(4)
        step[:3, :3] = cv2.Rodrigues(rng.uniform(-0.03, 0.03, 3))[0]
        step[:3, 3] = rng.uniform((-0.05, -0.05, 0.35), (0.05, 0.05, 0.45))
        poses.append(poses[-1] @ step)
    return np.stack(poses)


def lay(root: Path, number: int = 0, count: int = 12, camera: str = "image_2") -> Path:
    """One sequence of noise, whose frame k has a corner of grey k, as KITTI has it."""
    place = root / "sequences" / f"{number:02d}"
    (place / camera).mkdir(parents=True)
    rng = np.random.default_rng(number)
    for k in range(count):
        image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
        image[:20, :40] = k
        cv2.imwrite(str(place / camera / f"{k:06d}.png"), image)
    shifts = {0: np.zeros(3), 1: np.array([-0.5, 0, 0]), 2: BASELINE, 3: -BASELINE}
    rows = [
        " ".join(f"{v:.12e}" for v in np.column_stack([K, K @ shift]).ravel())
        for shift in shifts.values()
    ]
    lines = [f"P{n}: {row}" for n, row in enumerate(rows)] + ["Tr: " + " ".join(["1"] * 12)]
    (place / "calib.txt").write_text("\n".join(lines) + "\n")
    (place / "times.txt").write_text("".join(f"{0.1037 * k:.6e}\n" for k in range(count)))
    (root / "poses").mkdir(exist_ok=True)
    np.savetxt(
        root / "poses" / f"{number:02d}.txt",
        drive_poses(count, number)[:, :3].reshape(count, 12),
        fmt="%.6e",
    )
    return root


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences 00 (12 images), 01 (4) and 09 (9)."""
    root = tmp_path_factory.mktemp("kitti")
    for number, count in ((0, 12), (1, 4), (9, 9)):
        lay(root, number, count)
    return root


@pytest.fixture
def copy(tree: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tree, tmp_path / "kitti"))


def module(root: Path, **options: Any) -> KittiOdometry:
    settings = {
        "train": [0, 1],
        "val": [9],
        "test": [9],
        "height": 16,
        "width": 52,
        "eval_frames": 6,
        "batch_size": 4,
        "num_workers": 0,
    }
    return KittiOdometry(str(root), **{**settings, **options})


def equal(one: Any, other: Any) -> bool:
    """Whether two samples or batches are the same, NaN included."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, torch.Tensor):
        return torch.equal(torch.nan_to_num(one, 7.0), torch.nan_to_num(other, 7.0))
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


# --- geometry -------------------------------------------------------------------------------------


def project(k: np.ndarray, point: np.ndarray) -> np.ndarray:
    return (k @ point)[:2] / point[2]


def spot(at: np.ndarray, size: tuple[int, int], width: float = 3.0) -> np.ndarray:
    """An image of a smooth white spot around a place between pixels."""
    v, u = np.mgrid[: size[0], : size[1]]
    heat = np.exp(-((u - at[0]) ** 2 + (v - at[1]) ** 2) / (2 * width**2))
    return np.repeat(np.rint(255 * heat).astype(np.uint8)[..., None], 3, -1)


def centroid(image: np.ndarray) -> np.ndarray:
    weight = image.astype(float) / image.sum()
    v, u = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(u * weight).sum(), (v * weight).sum()])


@given(
    u=st.floats(40, 90),
    v=st.floats(22, 58),
    depth=st.floats(1, 50),
    height=st.integers(40, 100),
    width=st.integers(50, 180),
    zoom=st.floats(1, 1.3),
    seed=st.one_of(st.none(), st.integers(0, 99)),
)
def test_a_point_is_found_where_the_intrinsics_put_it(
    u: float, v: float, depth: float, height: int, width: int, zoom: float, seed: int | None
) -> None:
    size, k = (80, 130), cameras.pinhole(75.0, 78.0, 61.0, 42.0)
    point = depth * np.linalg.inv(k) @ (u, v, 1)
    transform = SnippetTransform(height, width, zoom=zoom)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    view = transform([spot(project(k, point), size)], k, generator=generator)
    flips = []
    for sign in (1, -1):  # a mirrored world
        at = project(view.intrinsics, point * (sign, 1, 1))
        assume((at > 12).all() and (at < (width - 13, height - 13)).all())
        flips.append(np.abs(centroid(view.video[0, 0].numpy()) - at).max())
    assert min(flips) < 0.1
    if seed is None:
        assert flips[0] < 0.1
    else:
        flipped = torch.rand(4, generator=torch.Generator().manual_seed(seed))[3] < 0.5
        assert flips[int(flipped)] < 0.1


def test_resizing_and_mirroring_by_hand() -> None:
    # Two pixels, 0 and 1, of which one of twice the size is made: centre 0.5.
    assert cameras.resized_intrinsics(cameras.pinhole(4, 4, 0.5, 0.5), 0.5, 0.5)[0].tolist() == [
        2,
        0,
        0,
    ]
    assert cameras.resized_intrinsics(cameras.pinhole(4, 4, 0, 0), 2, 1)[0].tolist() == [8, 0, 0.5]
    assert cameras.mirrored_intrinsics(cameras.pinhole(4, 4, 0, 5), 10)[:2, 2].tolist() == [9, 5]
    assert cameras.cropped_intrinsics(K, 3, 2)[:2, 2].tolist() == [60.5, 17.4]
    assert K[0, 2] == 63.5  # nothing is changed in place


def test_masks_follow_the_pixels() -> None:
    mask = np.zeros(SIZE, bool)
    mask[8:30, 20:70] = True
    frame = np.repeat(255 * mask.astype(np.uint8)[..., None], 3, -1)
    for seed in (None, *range(6)):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        view = SnippetTransform(20, 65, zoom=1.3)(
            [frame], K, torch.from_numpy(mask)[None], generator
        )
        assert view.masks is not None
        assert ((view.video[0] > 127) == view.masks).float().mean() > 0.99


def test_poses_of_another_camera() -> None:
    """A point of the world is where both cameras say."""
    poses = drive_poses(6)
    other = cameras.shifted_poses(poses, BASELINE)
    point = np.array([1.0, -0.5, 9.0])  # of camera 0 at its first image
    for of, at in zip(poses, other, strict=True):
        seen = (np.linalg.inv(of) @ (*point, 1))[:3] + BASELINE
        assert np.allclose((at @ (*seen, 1))[:3], point + BASELINE)


def test_rotations_of_few_digits_become_exact() -> None:
    poses = drive_poses(40)
    rounded = cameras.rigid_poses(np.round(poses[:, :3], 3))
    turned = rounded[:, :3, :3]
    assert np.abs(turned @ turned.transpose(0, 2, 1) - np.eye(3)).max() < 1e-14
    assert np.abs(rounded - poses).max() < 1e-3
    for wrong in (-1, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"not a rotation|finite"):
            cameras.rigid_poses(poses[:, :3] * ([[[wrong]]] * 3 + [[[1]]])[0])


def test_relative_poses_start_at_the_identity() -> None:
    poses = drive_poses(5)
    found = cameras.relative_to_first(poses)
    assert np.allclose(found[0], np.eye(4))
    assert np.allclose(poses[0] @ found[3], poses[3])


@pytest.mark.parametrize(
    ("k", "words"),
    [
        (K, ""),
        (cameras.pinhole(718.856, 718.856, 607.1928, 185.2157), "far from the middle"),
        (cameras.resized_intrinsics(K, 0.5, 0.5), "far from the middle"),
        (cameras.pinhole(-75, 75, 63, 19), "focal lengths"),
        (cameras.pinhole(75, 75, np.nan, 19), "focal lengths"),
    ],
)
def test_intrinsics_of_other_images(k: np.ndarray, words: str) -> None:
    found = cameras.misfit(k, *SIZE)
    assert (words in found) and bool(words) == bool(found)


# --- clips of drives ------------------------------------------------------------------------------


def bare(numbers: list[int]) -> Drive:
    paths = tuple(Path("x") / f"{n:06d}.png" for n in numbers)
    return Drive("00", paths, tuple(numbers), K)


@given(
    gaps=st.lists(st.integers(1, 4), max_size=60),
    edge=st.integers(1, 3),
    more=st.integers(0, 14),
    max_gap=st.integers(1, 3),
)
def test_every_target_counts_in_one_clip(
    gaps: list[int], edge: int, more: int, max_gap: int
) -> None:
    numbers = np.cumsum([5, *gaps]).tolist()
    drive, size, steps = bare(numbers), 2 * edge + 1, 2 * edge + 1 + more
    together = [gap <= max_gap for gap in gaps]
    wanted = [
        at
        for at in range(edge, len(numbers) - edge)
        if all(together[at - edge : at + edge])  # neighbours on both sides
    ]
    clips = list(long_clips(drive, size, steps, max_gap))
    counted = [clip.start + n for clip in clips for n in range(*clip.targets)]
    assert counted == wanted
    assert [clip.start + edge for clip in snippets(drive, size, max_gap)] == wanted
    runs = drive.runs(max_gap)
    for clip in clips:
        start, stop = next(run for run in runs if run[0] <= clip.start < run[1])
        assert clip.start + clip.count <= stop
        assert clip.count == min(steps, stop - start)
        assert clip.positions.tolist()[: clip.count] == list(
            range(clip.start, clip.start + clip.count)
        )
        assert len(clip.positions) == clip.steps == steps


def test_films_overlap_by_their_borders_only() -> None:
    clips = list(long_clips(bare(list(range(80))), 3, 16))
    assert [clip.start for clip in clips] == [0, 14, 28, 42, 56, 64]
    assert [clip.targets for clip in clips] == [(1, 15)] * 5 + [(7, 15)]
    assert list(long_clips(bare([0, 1]), 3, 16)) == []


@given(st.lists(st.integers(1, 3), min_size=1, max_size=20), st.integers(1, 9))
def test_what_is_held_out_is_not_trained_on(gaps: list[int], least: int) -> None:
    drive = bare(np.cumsum(gaps).tolist())
    start, end = drive.hold_out(0.1, least)
    assert start.images + end.images == drive.images
    assert len(end.images) == min(max(round(0.1 * len(gaps)), least), len(gaps))


def test_a_part_of_a_drive_keeps_what_belongs_together(tmp_path: Path) -> None:
    drive = bare(list(range(9)))
    whole = Drive(
        "00",
        drive.images,
        drive.numbers,
        K,
        drive_poses(9),
        np.arange(9.0),
        lambda at: np.full((1, 1), at, np.float32),
    )
    part = whole.part(2, 7).part(1, 3)
    assert part.numbers == (3, 4)
    assert part.times is not None and part.times.tolist() == [3, 4]
    assert part.poses is not None and np.array_equal(part.poses, drive_poses(9)[3:5])
    assert part.depth is not None and part.depth(1).item() == 4


# --- samples --------------------------------------------------------------------------------------


def test_what_a_clip_holds(tree: Path) -> None:
    data = module(tree)
    data.prepare_data()
    data.setup()
    assert (data.classes, data.channels, data.problems) == ([], 3, [])
    assert len(data.train_set) == 10 + 2
    assert [clip.label for clip in data.train_set.clips] == [-1] * 12
    sample = data.val_set[1]  # the last 6 of 9
    assert sample["video"].shape == (3, 6, 16, 52)
    assert sample["video"].dtype == torch.float32
    assert sample["frame_idx"].tolist() == [3, 4, 5, 6, 7, 8]
    assert sample["time_s"].tolist() == pytest.approx(0.1037 * np.arange(3, 9))
    assert sample["target"].tolist() == [False, False, True, True, True, False]
    assert sample["valid"].all()
    assert (sample["clip_id"], sample["sequence"]) == ("09_000003", "09")
    assert Path(sample["path"]) == tree / "sequences" / "09" / "image_2"
    assert sample["depth"].shape == (0, 0, 0)
    k = cameras.resized_intrinsics(K, 52 / 130, 16 / 40)
    assert torch.allclose(sample["intrinsics"], torch.from_numpy(k).float())
    poses = cameras.shifted_poses(drive_poses(9, 9), BASELINE)[3:]
    found = sample["poses"].double().numpy()
    assert np.abs(found - np.linalg.inv(poses[0]) @ poses).max() < 1e-5
    grey = data.to_frames(sample["video"][None])[0][:, 2, 4]
    assert np.array_equal(grey, np.repeat(np.arange(3, 9)[:, None], 3, 1))  # the right images
    assert torch.equal(sample["black"], torch.full((3,), -1.0))


def test_a_short_sequence_is_padded(tree: Path) -> None:
    sample = module(tree).evaluation("01")[0]
    assert sample["valid"].tolist() == [True] * 4 + [False] * 2
    assert sample["target"].tolist() == [False, True, True, False, False, False]
    assert sample["frame_idx"].tolist() == [0, 1, 2, 3, 3, 3]
    assert torch.equal(sample["video"][:, 3], sample["video"][:, 5])
    assert torch.equal(sample["poses"][3], sample["poses"][5])


def test_a_training_clip_is_changed_as_a_whole(tmp_path: Path) -> None:
    root = lay(tmp_path / "still", count=7)
    folder = root / "sequences" / "00" / "image_2"
    for path in sorted(folder.iterdir())[1:]:
        shutil.copy(folder / "000000.png", path)
    data = module(root, train=[0], val=None, test=[0], snippet=5, zoom=1.3)
    with pytest.warns(UserWarning, match="says nothing about new scenes"):
        samples = [data.train_set[epoch, 0] for epoch in range(8)]
    for sample in samples:
        assert (sample["video"] == sample["video"][:, :1]).all()
        assert "poses" not in sample and "depth" not in sample
    assert len({float(sample["intrinsics"][0, 0]) for sample in samples}) > 4
    assert len({float(sample["video"].mean()) for sample in samples}) == 8


def test_without_augmentation_training_sees_what_validation_sees(tree: Path) -> None:
    data = module(tree, hflip=0, zoom=1, contrast=0, offset=0)
    one, other = data.train_set[5, 4], data.evaluation("train")[0]
    assert torch.equal(one["video"][:, 0], other["video"][:, 4])
    assert torch.equal(one["intrinsics"], other["intrinsics"])


def batches(data: KittiOdometry, epoch: int = 3) -> list[dict[str, Any]]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return list(loader)


def test_batches_depend_on_seed_and_epoch_only(tree: Path) -> None:
    first = batches(module(tree))
    torch.rand(5)  # of the global generator
    assert equal(first, batches(module(tree, num_workers=2)))
    assert equal(first, batches(module(tree, cache=True)))
    cached = module(tree, cache=True)
    batches(cached, 1)
    assert equal(first, batches(cached))
    assert not equal(first, batches(module(tree, seed=1)))
    assert not equal(first, batches(module(tree), 4))
    held = [list(module(tree, num_workers=n).val_dataloader()) for n in (0, 2)]
    assert equal(*held)


def test_a_raw_batch_is_finished_like_its_samples(tree: Path) -> None:
    data = module(tree)
    (raw,) = list(data.val_dataloader())
    assert raw["video"].dtype == torch.uint8
    batch = data.on_after_batch_transfer(raw)
    for n in range(2):
        assert torch.equal(batch["video"][n], data.val_set[n]["video"])


def test_no_image_is_trained_on_and_held_out(tree: Path) -> None:
    data = module(tree, val=None)
    seen = {clip.drive.images[at] for clip in data.train_set.clips for at in clip.positions}
    held = {clip.drive.images[at] for clip in data.val_set.clips for at in clip.positions}
    assert [path.stem for path in sorted(held)] == ["000009", "000010", "000011"]
    assert not seen & held
    assert len(seen) == 9 + 4  # sequence 01 is too short to be divided


def test_all_of_a_set_can_be_looked_at(tree: Path) -> None:
    data = module(tree, train=[0])
    assert len(data.evaluation("train")) == 3
    assert data.evaluation("1").clips[0].clip_id == "01_000000"  # in no part
    with pytest.raises(UnknownNameError, match="no split 'vall'; nearest: val"):
        data.evaluation("vall")
    with pytest.raises(UnknownNameError, match="no split or sequence '07'"):
        data.evaluation("07")


def test_images_for_people(tree: Path) -> None:
    data = module(tree)
    clip = data.val_set[1]
    shown = data.reader.display(clip["path"], clip["frame_idx"].tolist())
    assert shown.shape == (6, 128, 416, 3)
    assert shown[:, 20, 30].tolist() == [[k] * 3 for k in range(3, 9)]
    with pytest.raises(VideoReadError, match="no image of number 77"):
        data.reader.display(clip["path"], [77])


# --- one video ------------------------------------------------------------------------------------


def test_a_folder_finds_its_calibration(tree: Path) -> None:
    data = module(Path("nowhere"))
    sample = data.read(tree / "sequences" / "09" / "image_2")
    assert sample["frame_idx"].tolist() == [1, 2, 3, 4, 5, 6]
    want = module(tree).val_set[0]
    assert torch.equal(sample["video"][:, 0], want["video"][:, 1])
    assert torch.equal(sample["intrinsics"], want["intrinsics"])
    assert sample["poses"].isnan().all()
    assert {"depth", "target", "black", "time_s", "sequence"} <= sample.keys()


def test_a_folder_without_calibration(copy: Path) -> None:
    (copy / "sequences" / "09" / "calib.txt").unlink()
    folder = copy / "sequences" / "09" / "image_2"
    with pytest.raises(DataError, match=r"no calib\.txt in .*image_2.* data\.intrinsics=\[FX"):
        module(copy).read(folder)
    given = module(copy, intrinsics=[75, 76, 63.5, 19.4]).read(folder)
    assert torch.equal(given["intrinsics"], module(copy).evaluation("0")[0]["intrinsics"])
    with pytest.raises(DataError, match="far from the middle"):
        module(copy, intrinsics=REAL).read(folder)
    for path in sorted(folder.iterdir())[2:]:
        path.unlink()
    with pytest.raises(VideoReadError, match="it has 2 frames, a snippet takes 3"):
        module(copy, intrinsics=[75, 76, 63.5, 19.4]).read(folder)


def test_a_video_file(tmp_path: Path) -> None:
    path = layouts.encode(tmp_path / "x.mp4", layouts.frames("move_left", 0, 10))
    data = module(Path("nowhere"), intrinsics=[60, 60, 31.5, 31.5])
    sample = data.read(path)
    assert sample["frame_idx"].tolist() == [2, 3, 4, 5, 6, 7]
    assert sample["time_s"][1] == pytest.approx(3 / 30)
    assert sample["video"].shape == (3, 6, 16, 52)
    assert data.reader.display(path, [2, 3]).shape == (2, 128, 416, 3)
    with pytest.raises(DataError, match=r"set data\.intrinsics"):
        module(Path("nowhere")).read(path)


# --- damage ---------------------------------------------------------------------------------------


def gone(root: Path) -> None:
    (root / "sequences" / "00" / "calib.txt").unlink()


def cut_calib(root: Path) -> None:
    path = root / "sequences" / "00" / "calib.txt"
    path.write_text(path.read_text().replace("P2:", "P9:"))


def short_poses(root: Path) -> None:
    path = root / "poses" / "00.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))


def torn_poses(root: Path) -> None:
    path = root / "poses" / "00.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], lines[4][:40], *lines[5:]]))


def words_in_poses(root: Path) -> None:
    path = root / "poses" / "00.txt"
    path.write_text(path.read_text().replace("1.000000e+00", "one", 1))


def scaled_poses(root: Path) -> None:
    path = root / "poses" / "00.txt"
    np.savetxt(path, 2 * np.loadtxt(path))


def no_poses(root: Path) -> None:
    shutil.rmtree(root / "poses")


def stuck_clock(root: Path) -> None:
    (root / "sequences" / "00" / "times.txt").write_text("0.1\n" * 12)


def few_times(root: Path) -> None:
    (root / "sequences" / "00" / "times.txt").write_text("0.1\n0.2\n")


def too_short(root: Path) -> None:
    for path in sorted((root / "sequences" / "00" / "image_2").iterdir())[2:]:
        path.unlink()
    for path in (root / "poses" / "00.txt", root / "sequences" / "00" / "times.txt"):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))


def full_of_gaps(root: Path) -> None:
    for path in sorted((root / "sequences" / "00" / "image_2").iterdir())[1:11:2]:
        path.unlink()


def one_lost(root: Path) -> None:
    (root / "sequences" / "00" / "image_2" / "000004.png").unlink()


def twice(root: Path) -> None:
    folder = root / "sequences" / "00" / "image_2"
    shutil.copy(folder / "000004.png", folder / "copy_000004.png")


def resized_images(root: Path) -> None:
    for path in (root / "sequences" / "00" / "image_2").iterdir():
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (65, 20)))


def no_images(root: Path) -> None:
    shutil.rmtree(root / "sequences" / "00" / "image_2")


def other_camera(root: Path) -> None:
    folder = root / "sequences" / "00" / "image_2"
    folder.rename(folder.with_name("image_3"))


LISTED: list[tuple[Callable[[Path], None], str, str, int]] = [
    (gone, "calib", r"no .*00/calib\.txt.*: unpack .*, or set data\.intrinsics=\[FX,FY,CX,CY\]", 0),
    (cut_calib, "calib", r"calib\.txt' has no row P2 of 12 numbers", 0),
    (short_poses, "poses", r"00\.txt: it has 10 poses, the images count 12", 10),
    (torn_poses, "poses", r"00\.txt: its poses are not used: line 5 has other than 12", 10),
    (words_in_poses, "poses", "not used: could not convert string", 10),
    (scaled_poses, "poses", "that of line 1 is not a rotation", 10),
    (no_poses, "poses", r"00\.txt: not there, so nothing can be measured", 10),
    (stuck_clock, "times", "its times are not used: they do not increase", 10),
    (few_times, "times", "it has 2 times, the images count 12", 10),
    (too_short, "short", r"00/image_2: it has 2 images, a snippet takes 3; add some", 0),
    (full_of_gaps, "short", r"and 2 without a gap \(data\.max_gap=1\), a snippet takes 3", 0),
    (one_lost, "gap", "1 of its images up to number 11 are missing", 7),
    (twice, "stray", r"copy_000004\.png: 000004\.png has its number; keep one", 10),
    (resized_images, "calib", r"\(63\.5, 19\.4\) is far from the middle of 65x20 images", 0),
    (no_images, "missing", "00/image_2: not there", 0),
    (other_camera, "missing", r"there are some in image_3: set data\.camera", 0),
]


@pytest.mark.parametrize(("harm", "kind", "words", "left"), LISTED)
def test_damage_that_is_seen_before_training(
    copy: Path, harm: Callable[[Path], None], kind: str, words: str, left: int
) -> None:
    harm(copy)
    data = module(copy, train=[0], test=[0])
    with pytest.warns(UserWarning, match="new scenes"):
        (problem,) = (p for p in data.listing.problems if (p.kind, p.label) == (kind, "00"))
    assert re.search(words, str(problem)), problem
    assert "\n" not in str(problem)
    if left:
        with pytest.warns(UserWarning, match=r"problems with the data in .*, the first is"):
            data.setup()
        assert len(data.train_set) == left
        sample = module(copy).evaluation("0")[0]
        assert sample["poses"].isnan().all() == (kind == "poses")
        assert not sample["error"]
    else:
        with pytest.raises(DataError, match=words) as refused:
            data.setup()
        assert "\n" not in str(refused.value)
        rest = module(copy)  # the others go on without it
        with pytest.warns(UserWarning, match=r"problems with the data in .*, the first is"):
            rest.setup()
        assert len(rest.train_set) == 2


def test_a_image_that_is_lost_moves_no_pose(copy: Path) -> None:
    one_lost(copy)
    clip = module(copy).evaluation("0")[1]
    want = cameras.shifted_poses(drive_poses(12), BASELINE)
    assert clip["frame_idx"].tolist() == [5, 6, 7, 8, 9, 10]
    found = clip["poses"].double().numpy()
    assert np.abs(found - np.linalg.inv(want[5]) @ want[5:11]).max() < 1e-5
    assert clip["time_s"][0] == pytest.approx(5 * 0.1037)


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def repaint(path: Path) -> None:
    cv2.imwrite(str(path), np.zeros((20, 20, 3), np.uint8))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (spoil, r"image_2': its image 000005\.png is damaged or cut short"),
        (Path.unlink, r"its image 000005\.png: No such file"),
        (repaint, r"its image 000005\.png is 20x20, the intrinsics are of 130x40"),
    ],
)
def test_a_bad_image_ends_nothing(copy: Path, harm: Callable[[Path], None], words: str) -> None:
    data = module(copy, val=[0])
    with pytest.warns(UserWarning, match="new scenes"):
        data.setup()
    harm(copy / "sequences" / "00" / "image_2" / "000005.png")
    for index in (3, 4, 5):  # the snippets that hold it
        sample = data.train_set[0, index]
        assert sample["frame_idx"].tolist() == [6, 7, 8]  # of the next that can be read
        assert re.search(words, sample["error"])
        assert not sample["video"].isnan().any()
    assert data.train_set[0, 2]["error"] == ""
    first, second = data.val_set[0], data.val_set[1]
    for clip in (first, second):
        lost = clip["frame_idx"] == 5
        assert lost.sum() == 1
        assert clip["valid"].tolist() == (~lost).tolist()  # only this image
        torch.testing.assert_close(
            clip["video"][:, lost],
            clip["black"][:, None, None, None].expand(-1, 1, *clip["video"].shape[2:]),
        )
        assert clip["error"] == first["error"] != ""  # one line, so it is told once
    assert data.val_set[2]["valid"].all()
    (batch,) = list(data.val_dataloader())
    assert [bool(error) for error in batch["error"]] == [True, True, False]
    assert sum(bool(e) for b in batches(data) for e in b["error"]) == 3


def test_nothing_but_bad_images(copy: Path) -> None:
    data = module(copy, train=[1])
    data.setup()
    for path in (copy / "sequences" / "01" / "image_2").iterdir():
        spoil(path)
    with pytest.raises(DataError, match="none of the 2 training videos can be read: "):
        _ = data.train_set[0, 0]
    assert module(copy, train=[1]).listing.train  # the heads still tell the size


def test_no_data_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no KITTI odometry in .*nowhere.*data/README\.md"):
        module(tmp_path / "nowhere").setup()
    (tmp_path / "sequences").mkdir()
    with pytest.raises(DataError, match=r"no clips for training in .*it has 3 problems, such as"):
        module(tmp_path).setup()
    with pytest.raises(DataError, match=r"no clips for testing in .*no sequences"):
        lay(tmp_path / "x")
        module(tmp_path / "x", train=[0], val=None, test=[]).test_dataloader()


def test_missing_calibration_and_given_intrinsics(copy: Path) -> None:
    want = module(copy).evaluation("0")[0]
    gone(copy)
    found = module(copy, intrinsics=[75, 76, 63.5, 19.4]).evaluation("0")[0]
    assert torch.equal(found["intrinsics"], want["intrinsics"])
    assert torch.equal(found["video"], want["video"])
    poses = drive_poses(12)[:6]  # of camera 0: nothing tells where camera 2 is
    assert np.abs(found["poses"].numpy() - poses).max() < 1e-5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"snippet": 4}, r"data\.snippet=4 must be odd"),
        ({"snippet": 1}, r"data\.snippet=1 must be a whole number, 3 or more"),
        ({"eval_frames": 2}, r"data\.eval_frames=2 must be"),
        ({"height": 0}, r"data\.height=0"),
        ({"zoom": 0.5}, r"zoom=0\.5 must be a factor from 1"),
        ({"hflip": 2}, "hflip=2 must be a probability"),
        ({"mean": [0.5]}, "need three numbers each"),
        ({"intrinsics": [1, 2, 3]}, "must be four numbers"),
        ({"intrinsics": [0, 2, 3, 4]}, "must be four numbers"),
        ({"train": ["00"]}, r"data\.train=\['00'\] must be a list of sequence numbers"),
        ({"camera": "image_4"}, r"no data\.camera 'image_4'; nearest: image_"),
        ({"rate": 0}, r"data\.rate=0 must be above 0"),
        ({"max_gap": 0}, r"data\.max_gap=0"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=words):
        module(Path("nowhere"), **options)


def test_a_blank_clip_for_lists_of_layers() -> None:
    blank = finished(module(Path("nowhere")).reader.missing(Clip(Path(), ""), ""))
    assert blank["video"].shape == (3, 6, 16, 52)
    assert not blank["valid"].any()


# --- one image is in one part ---------------------------------------------------------------------


@pytest.mark.attack
@pytest.mark.parametrize("how", ["symlink", "links", "hardlinks", "copy", "sequence", "part"])
@pytest.mark.parametrize("part", ["val", "test"])
def test_no_sequence_is_trained_on_and_evaluated(copy: Path, how: str, part: str) -> None:
    """A sequence under a second number in another part: linked, its images linked, copied, cut."""
    from test_folder import linked_folder

    sequences = copy / "sequences"
    source, target = sequences / "00", sequences / "12"
    if how == "sequence":
        target.symlink_to(source)
    else:
        target.mkdir()
        shutil.copy(source / "calib.txt", target)
        linked_folder(source / "image_2", target / "image_2", "copy" if how == "part" else how)
    if how == "part":
        for image in sorted((target / "image_2").iterdir())[6:]:
            image.unlink()
    data = module(copy, **{"val": [9], "test": [9], part: [12]})
    assert [drive.name for drive in data.listing.train] == ["01"]
    assert [drive.name for drive in data.listing.part(part)] == ["12"]
    (leak,) = (problem for problem in data.listing.problems if problem.kind == "leak")
    assert leak.what == str(source / "image_2")
    assert f"of the {part} part, where they stay; remove one of them" in leak.why


@pytest.mark.attack
def test_parts_of_a_sequence_and_what_settings_ask_for_are_no_leak(copy: Path) -> None:
    """The end of each sequence for validation; one that is named for two parts."""
    data = module(copy, val=None)
    assert [drive.name for drive in data.listing.train] == ["00", "01"]
    with pytest.warns(UserWarning, match="says nothing about new scenes"):
        data = module(copy, val=[0])
        assert [drive.name for drive in data.listing.train] == ["00", "01"]
    assert not [problem for problem in data.problems if problem.kind == "leak"]
    with pytest.raises(DataError, match=r"no clips for training in .*it shows images of"):
        (copy / "sequences" / "12").symlink_to("09")
        module(copy, train=[12]).setup()


# --- ground truth ---------------------------------------------------------------------------------


def truth(root: Path, count: int = 12) -> Path:
    """Depth of 2 metres a column, and a mask of the image's left half, in sequence 00."""
    place = root / "ground_truth" / "00"
    for name in ("depth", "moving"):
        (place / name).mkdir(parents=True)
    metres = np.tile(np.arange(SIZE[1]) * 2.0, (SIZE[0], 1))
    mask = np.where(np.arange(SIZE[1]) < 65, 255, 0)[None].repeat(SIZE[0], 0).astype(np.uint8)
    for k in range(count):
        cv2.imwrite(
            str(place / "depth" / f"{k:06d}.png"), ((metres + k) * 256 % 65536).astype(np.uint16)
        )
        cv2.imwrite(str(place / "moving" / f"{k:06d}.png"), mask)
    return place


def test_depth_and_masks(copy: Path) -> None:
    truth(copy)
    data = module(copy, val=[9, 0], train=[1])
    sample = data.val_set[2]
    assert sample["clip_id"] == "00_000000"
    assert sample["depth"].shape == (6, *SIZE)
    assert sample["depth"].dtype == np.float32
    assert sample["depth"][3, 7, 10] == 23
    assert sample["mask/moving"].shape == (6, 16, 52)
    assert sample["mask/moving"][:, :, :26].all() and not sample["mask/moving"][:, :, 26:].any()
    (batch, *_) = list(data.val_dataloader())
    assert [of.shape[0] for of in batch["depth"]] == [0, 0, 6, 6]
    assert batch["mask/moving"].any((1, 2, 3)).tolist() == [False, False, True, True]
    assert not any("mask" in key for key in data.train_set[0])


def test_bad_ground_truth(copy: Path) -> None:
    place = truth(copy)
    spoil(place / "depth" / "000001.png")
    (place / "moving" / "000011.png").unlink()
    cv2.imwrite(str(place / "depth" / "000006.png"), np.zeros((4, 4), np.uint16))
    clips = module(copy).evaluation("0")
    assert "depth': its image 000001.png is damaged" in clips[0]["error"]
    assert "ground truth of 00 is of several sizes" in clips[1]["error"]
    assert "moving': its image 000011.png" in clips[2]["error"]
    assert not clips[2]["mask/moving"].any()


# --- the real frames, the rendered ones, and the check --------------------------------------------


def test_real_frames(real: Path) -> None:
    data = KittiOdometry(
        str(real / "kitti"),
        camera="image_0",
        train=[0],
        val=[0],
        test=[0],
        intrinsics=REAL,
        eval_frames=5,
        num_workers=0,
    )
    with pytest.warns(UserWarning, match=r"sequences \[0\] are for training and for validation"):
        data.setup()
    (batch,) = [data.on_after_batch_transfer(batch) for batch in data.train_dataloader()]
    assert batch["video"].shape == (3, 3, 3, 128, 416)
    assert batch["video"].isfinite().all() and batch["video"].std() > 0.3
    (batch,) = [data.on_after_batch_transfer(batch) for batch in data.val_dataloader()]
    assert torch.equal(batch["video"][:, 0], batch["video"][:, 2])  # grey
    k = batch["intrinsics"][0]
    assert k[0, 0] == pytest.approx(718.856 * 416 / 1241, rel=1e-6)
    assert k[1, 2] == pytest.approx((185.2157 + 0.5) * 128 / 376 - 0.5, rel=1e-6)
    steps = torch.linalg.norm(batch["poses"][0, 1:, :3, 3] - batch["poses"][0, :-1, :3, 3], dim=1)
    assert ((steps > 0.8) & (steps < 0.95)).all()  # metres in a tenth of a second
    assert batch["time_s"][0].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert data.reader.display(batch["path"][0], range(5)).shape == (5, 256, 832, 3)
    without = KittiOdometry(str(real / "kitti"), camera="image_0", train=[0], val=[0], test=[])
    with pytest.warns(UserWarning, match="new scenes"), pytest.raises(DataError) as refused:
        without.setup()
    for words in ("calib.txt", "data_odometry_calib.zip", "data.intrinsics=[FX,FY,CX,CY]"):
        assert words in str(refused.value)


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> SyntheticOdometry:
    root = tmp_path_factory.mktemp("rendered") / "set"
    data = SyntheticOdometry(str(root), frames=4, eval_length=4, eval_frames=4)
    data.prepare_data()
    data.setup()
    return data


def test_rendered_frames(rendered: SyntheticOdometry) -> None:
    parts = (rendered.train_set, rendered.val_set, rendered.test_set)
    assert [len(of) for of in parts] == [6, 1, 1]
    assert not rendered.problems
    sample = rendered.val_set[0]
    assert sample["video"].shape == (3, 4, 64, 208)
    assert sample["depth"].shape == (4, 64, 208)
    assert sample["poses"].isfinite().all()
    assert sample["time_s"].tolist() == pytest.approx([0, 0.1, 0.2, 0.3])
    probe = rendered.evaluation("11")[0]
    assert {f"mask/{part}" for part in MASKS} <= probe.keys()


@pytest.mark.parametrize("seed", range(4))
def test_depth_and_motion_explain_changed_images(rendered: SyntheticOdometry, seed: int) -> None:
    """Warped by what is true, the source is the target, flipped and magnified or not."""
    sample = rendered.val_set[0]
    frames = rendered.to_frames(sample["video"][None])[0]
    k = sample["intrinsics"].double()
    view = SnippetTransform(64, 208, zoom=1.3)(
        frames[:2], k.numpy(), generator=torch.Generator().manual_seed(seed)
    )
    flipped = bool(torch.rand(4, generator=torch.Generator().manual_seed(seed))[3] < 0.5)
    mirror = torch.diag(torch.tensor([-1.0 if flipped else 1.0, 1, 1, 1])).double()
    changed = torch.from_numpy(view.intrinsics)
    v, u = torch.meshgrid(torch.arange(64.0), torch.arange(208.0), indexing="ij")
    rays = torch.linalg.inv(changed) @ torch.stack([u, v, torch.ones_like(u)]).double().flatten(1)
    column, row, _ = (k @ mirror[:3, :3] @ rays).round().long()
    depth = torch.from_numpy(sample["depth"][0])
    depth = depth[row.clamp(0, 63), column.clamp(0, 207)].view(1, 64, 208).double()
    motion = mirror @ torch.linalg.inv(sample["poses"][1].double()) @ mirror  # of 0 into 1
    target, source = view.video.movedim(1, 0).double() / 255
    known = depth > 0
    warped = inverse_warp(source[None], depth.clamp(min=1e-2), motion[None], changed[None])
    seen = (warped.valid & known)[0]
    error = (warped.image[0] - target).abs()[:, seen].mean()
    assert seen.float().mean() > 0.4
    assert (source - target).abs()[:, seen].mean() > 4 * error
    # The other way of reading the poses explains nothing.
    back = torch.linalg.inv(motion)[None]
    other = inverse_warp(source[None], depth.clamp(min=1e-2), back, changed[None])
    assert (other.image[0] - target).abs()[:, seen].mean() > 4 * error


def test_offset_of_a_camera(tmp_path: Path) -> None:
    offset = read_odometry_camera(
        lay(tmp_path, count=3) / "sequences" / "00" / "calib.txt", "image_2"
    )[1]
    assert np.allclose(offset, BASELINE)


def checked(root: Path, **options: Any) -> int:
    config = OmegaConf.to_container(composed("check", ["data=kitti_odometry"]), resolve=True)
    data = {**config["data"], "root": str(root)}  # type: ignore
    data |= {"train": [0, 1], "val": [9], "test": [9], **options}
    settings = {"decode": True, "out": None, "processes": 1, "timeout": 30, "seed": 0}
    return check({"data": data, **settings})


def test_check(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    truth(copy)
    assert checked(copy) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.strip()]
    assert ["images", "of", "train", "val", "test"] in rows
    assert ["00", "12", "-", "-"] in rows
    assert ["all", "16", "9", "9"] in rows
    assert out.splitlines()[-1] == f"{copy}: all is well"
    short_poses(copy)
    spoil(copy / "sequences" / "00" / "image_2" / "000005.png")
    spoil(copy / "sequences" / "00" / "image_2" / "000006.png")
    spoil(copy / "ground_truth" / "00" / "depth" / "000002.png")
    (copy / "sequences" / "01" / "calib.txt").unlink()
    assert checked(copy, train=[0, 1, 4]) == 1
    out = capsys.readouterr().out
    last = out.splitlines()[-1]
    assert last == f"{copy}: 1 poses, 1 calib, 1 missing, 1 truth, 2 unreadable"
    for words in (
        "  poses/00.txt: it has 10 poses, the images count 12",
        "  sequences/01: there is no",
        "  sequences/04/image_2: not there",
        "  sequences/00/image_2: its image 000005.png is damaged",
        "2 unreadable (videos that cannot be decoded)",
    ):
        assert words in out
    rows = [line.split() for line in out.splitlines() if line.strip()]
    assert ["04", "-", "-", "-", "-", "-", "1", "-", "-"] in rows
    assert checked(copy, train=[0, 1, 4], batch_size=2) == 1


def test_clips_follow_each_other_in_time(tree: Path) -> None:
    for one, other in pairwise(module(tree, eval_frames=3).evaluation("0").clips):
        assert other.start == one.start + 1
