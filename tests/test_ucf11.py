"""UCF11's layout, splits, batches, broken files, and what makes a resumed run the same run."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_cam.data.clips import ucf11
from lightning_cam.data.clips.ucf11 import UCF11, read_index, split_groups
from lightning_cam.data.core.clips import Clip, finished
from lightning_cam.data.core.ground_truth import Truth
from lightning_cam.data.core.loading import EpochSampler
from lightning_cam.data.video import container
from lightning_cam.data.video import reading as video
from lightning_cam.errors import ConfigError, DataError, VideoReadError
from lightning_cam.synthetic.actions import files as actions
from lightning_cam.synthetic.actions.data_module import SyntheticActions

PAIR = ["move_left", "move_right"]
PREFIXES = {
    "basketball": "shooting", "biking": "biking", "diving": "diving", "golf_swing": "golf",
    "horse_riding": "riding", "soccer_juggling": "juggle", "swing": "swing",
    "tennis_swing": "tennis", "trampoline_jumping": "jumping", "volleyball_spiking": "spiking",
    "walking": "walk_dog",
}  # fmt: skip


def touch(root: Path, name: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def official(root: Path, suffix: str = ".mpg") -> Path:
    """An empty tree with the real names: 11 classes, 25 groups, 4 or 5 clips."""
    for name, prefix in PREFIXES.items():
        for group in range(1, 26):
            stem = f"v_{prefix}_{group:02d}"
            for clip in range(1, 5 + group % 2):
                touch(root, f"{name}/{stem}/{stem}_{clip:02d}{suffix}")
                if suffix == ".avi":
                    touch(root, f"{name}/Annotation/{stem}_{clip:02d}.xgtf")
        touch(root, f"{name}/{stem}/Thumbs.db")
    return root


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rendered") / "set"
    return actions.render_actions(root, groups=5, clips=2, classes=PAIR)


@pytest.fixture
def small(rendered: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage: 2 classes, 5 groups (3 + 1 + 1), 2 clips each."""
    return Path(shutil.copytree(rendered, tmp_path / "set"))


def module(root: Path, **options: Any) -> UCF11:
    options = {"resize": 40, "crop": 32, "batch_size": 4, "num_workers": 0, **options}
    return UCF11(str(root), **options)


def batches(data: UCF11, epoch: int = 0, part: str = "train") -> list[dict[str, Any]]:
    loader = getattr(data, f"{part}_dataloader")()
    loader.sampler.set_epoch(epoch)
    return [data.on_after_batch_transfer(batch) for batch in loader]


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    return len(one) == len(other) and all(
        (a[k] == b[k]).all() if isinstance(a[k], Tensor) else a[k] == b[k]
        for a, b in zip(one, other, strict=True)
        for k in a
    )


# --- layout -------------------------------------------------------------------------------------


def everything(data: UCF11) -> list[Clip]:
    return [*data.listing.train, *data.listing.val, *data.listing.test]


@pytest.mark.parametrize(
    ("archive", "suffix"), [("UCF11_updated_mpg", ".mpg"), ("action_youtube_naudio", ".avi")]
)
def test_both_archives_as_unpacked(tmp_path: Path, archive: str, suffix: str) -> None:
    official(tmp_path / archive, suffix)
    for root in (tmp_path, tmp_path / archive):
        data = module(root)
        assert data.classes == sorted(PREFIXES)
        clips = everything(data)
        assert len(clips) == 11 * (12 * 4 + 13 * 5)
        clip = next(clip for clip in clips if clip.clip_id == "v_walk_dog_15_03")
        assert clip.path == tmp_path / archive / f"walking/v_walk_dog_15/v_walk_dog_15_03{suffix}"
        assert (data.classes[clip.label], clip.group) == ("walking", 15)


def test_clips_are_in_order_of_their_numbers(tmp_path: Path) -> None:
    for clip in (2, 10, 1):
        touch(tmp_path, f"biking/v_biking_01/v_biking_01_{clip}.mpg")
    ids = [clip.clip_id for clip in read_index(tmp_path)]
    assert ids == ["v_biking_01_1", "v_biking_01_2", "v_biking_01_10"]


def test_default_split_of_the_full_set(tmp_path: Path) -> None:
    data = module(official(tmp_path))
    assert {clip.group for clip in data.listing.test} == set(range(2, 8))
    assert {clip.group for clip in data.listing.val} == {8, 9}
    assert {clip.group for clip in data.listing.train} == {1, *range(10, 26)}
    parts = [data.train_set, data.val_set, data.test_set]
    rows = [{(clip.label, clip.group) for clip in part.clips} for part in parts]
    assert [len(part) for part in rows] == [11 * 17, 11 * 2, 11 * 6]
    assert not rows[0] & rows[1] and not rows[0] & rows[2] and not rows[1] & rows[2]
    assert sum(len(part) for part in parts) == len(read_index(tmp_path))


@pytest.mark.parametrize(
    ("count", "val", "test"),
    [
        (3, {2}, {3}),
        (5, {4}, {5}),
        (9, {8}, {9}),
        (10, {7, 8}, {9, 10}),
        (24, {17, 18, 19, 20}, {21, 22, 23, 24}),
    ],
)
def test_small_sets_give_their_last_fifths(count: int, val: set[int], test: set[int]) -> None:
    split = split_groups(range(1, count + 1), val=(8, 9), test=(2, 3))
    assert (split.val, split.test) == (val, test)
    assert split.train == set(range(1, count + 1)) - val - test


def test_groups_can_be_given() -> None:
    split = split_groups(range(1, 26), val=(8, 9), test=(2, 3), test_groups=[8, 20])
    assert (split.val, split.test) == ({9}, {8, 20})
    assert split.train == set(range(1, 26)) - {8, 9, 20}
    split = split_groups(
        [1, 2, 3], val=(), test=(), train_groups=[1], val_groups=[2], test_groups=[3]
    )
    assert (split.train, split.val, split.test) == ({1}, {2}, {3})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"val_groups": [3], "test_groups": [3, 4]},
            r"groups \[3\] are in both val_groups and test_g",
        ),
        (
            {"train_groups": [1, 5], "test_groups": [5]},
            r"\[5\] are in both train_groups and test_g",
        ),
        (
            {"test_groups": [26]},
            r"test_groups names groups \[26\], but the data has \[1, 2, 3, 4, 5\]",
        ),
        ({"val_groups": []}, "no groups are left for val_groups"),
        ({"val_groups": [1, 2, 3, 4]}, "no groups are left for train_groups"),
    ],
)
def test_impossible_splits_are_refused(given: dict[str, list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_groups(range(1, 6), val=(), test=(), **given)


def test_two_groups_cannot_be_split(tmp_path: Path) -> None:
    for group in ("01", "02"):
        touch(tmp_path, f"biking/v_biking_{group}/v_biking_{group}_01.mpg")
    with pytest.raises(DataError, match="no groups are left for train_groups"):
        module(tmp_path).setup()


def test_what_is_wrong_with_the_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no UCF11 data at .*absent.*<root>/<class>/v_.*data.root="
    ):
        module(tmp_path / "absent").setup()
    with pytest.raises(DataError, match=r"no videos .*data.root="):
        module(tmp_path).setup()
    touch(tmp_path, "biking/v_biking_01/v_biking_02_01.mpg")
    with pytest.raises(DataError, match=r"v_biking_02_01.mpg.*expected v_biking_01_<clip>.mpg"):
        module(tmp_path).setup()


def test_strays_are_problems_and_no_end(tmp_path: Path) -> None:
    archive = tmp_path / "UCF11_updated_mpg"
    official(archive)
    whole = len(read_index(tmp_path))
    touch(archive, "biking/v_biking_03/holiday.mpg")
    touch(archive, "biking/v_biking_03/v_biking_04_09.mpg")
    touch(archive, "biking/v_biking_03/._v_biking_03_01.mpg")
    data = module(tmp_path)
    with pytest.warns(UserWarning, match="2 problems with the data"):
        data.setup()
    assert [(p.kind, p.what) for p in data.problems] == [
        ("stray", "UCF11_updated_mpg/biking/v_biking_03/holiday.mpg"),
        ("stray", "UCF11_updated_mpg/biking/v_biking_03/v_biking_04_09.mpg"),
    ]
    assert len(everything(data)) == whole


def test_other_classes_than_a_checkpoints_are_refused(small: Path) -> None:
    message = r"are \['move_left', 'move_right'\], but \['jump', 'move_left'\] are expected"
    with pytest.raises(DataError, match=message):
        module(small, classes=["move_left", "jump"]).setup()
    data = module(small, classes=PAIR[::-1])  # the order is the checkpoint's
    data.setup()
    assert {clip.clip_id[:-6]: clip.label for clip in everything(data)} == {
        "v_move_right": 0,
        "v_move_left": 1,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0}, {"batch_size": 1.5}, {"num_frames": 0}, {"num_frames": "16"},
        {"resize": 40.5}, {"fps": 0.0}, {"seed": -1}, {"crop": 64}, {"hflip": 5}, {"hflip": -0.1},
        {"permute": 1.5}, {"grey": "often"}, {"reader": "cv2"},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))) as caught:
        module(tmp_path, **wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"groups": 0}, {"clips": 1.5}, {"render_seed": -1}])
def test_impossible_renderings_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"data.{next(iter(wrong))}=.*whole number"):
        SyntheticActions(str(tmp_path), **wrong)


def test_the_reader_can_be_chosen(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(*args: Any, reader: str, **options: Any) -> Any:
        seen.append(reader)
        return video.read_frames(*args, reader=reader, **options)

    monkeypatch.setattr("lightning_cam.data.core.clips.read_frames", spy)
    for options in ({}, {"reader": "pyav"}, {"reader": "pyav", "cache": True}):
        _ = module(small, **options).val_set[0]
    data = SyntheticActions(str(small), reader="pyav")
    data.read(next(small.rglob("*.mpg")))
    assert seen == ["auto", "pyav", "pyav", "pyav"]
    monkeypatch.setattr(container, "decord", None)
    with pytest.raises(ConfigError, match="decord is not installed"):
        module(small, reader="decord")


# --- samples ------------------------------------------------------------------------------------


def test_batch(small: Path) -> None:
    data = module(small)
    (batch,) = batches(data, part="val")
    shapes = {name: tuple(x.shape) for name, x in batch.items() if isinstance(x, Tensor)}
    assert shapes == {
        "video": (4, 3, 16, 32, 32), "label": (4,), "valid": (4, 16), "frame_idx": (4, 16),
        "time_s": (4, 16), "duration_s": (4,), "black": (4, 3), "mask": (4, 16, 32, 32),
        "action": (4, 16),
    }  # fmt: skip
    assert [batch[name].dtype for name in ("video", "label", "valid", "frame_idx", "time_s")] == [
        torch.float32, torch.int64, torch.bool, torch.int64, torch.float32,
    ]  # fmt: skip
    assert batch["label"].tolist() == [0, 0, 1, 1]
    assert batch["clip_id"][0] == "v_move_left_04_01"
    assert batch["error"] == [""] * 4
    # 72 frames at 30 fps are 18 steps of 7.5 fps; the centred 16 begin with step 1.
    assert batch["frame_idx"][0].tolist() == list(range(4, 68, 4))
    frames = data.to_frames(batch["video"])
    assert (frames.shape, frames.dtype) == ((4, 16, 32, 32, 3), np.uint8)
    assert "mask" not in batches(data)[0]


def test_training_varies_by_epoch_and_evaluation_does_not(small: Path) -> None:
    data = module(small)
    assert same(batches(data, 3), batches(module(small), 3))
    assert not same(batches(data, 3), batches(data, 4))
    assert not same(batches(data, 3), batches(module(small, seed=1), 3))
    assert same(batches(data, 0, "val"), batches(data, 5, "val"))
    starts = {int(data.train_set[epoch, 0]["frame_idx"][0]) for epoch in range(30)}
    assert starts == {0, 4, 8}


@pytest.mark.slow
def test_workers_cache_and_global_randomness_change_nothing(small: Path) -> None:
    want = [batches(module(small), epoch) for epoch in (0, 1)]
    for options in ({"num_workers": 2}, {"cache": True}, {"cache": True, "num_workers": 1}):
        torch.manual_seed(len(options))
        data = module(small, **options)
        loader = data.train_dataloader()
        for epoch in (0, 1):  # the same loader: persistent workers must hear of the epoch
            loader.sampler.set_epoch(epoch)
            assert same([finished(batch) for batch in loader], want[epoch])


def test_loaders_leave_the_global_generator_alone(small: Path) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    data = module(small)
    batches(data), batches(data, part="val")
    assert (torch.get_rng_state() == before[0]).all()
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_cache_decodes_once(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = module(small, cache=True)
    first = batches(data)
    monkeypatch.setattr("lightning_cam.data.core.clips.read_frames", None)
    assert same(batches(data), first)
    assert not same(batches(data, 1), first)


def test_short_videos_are_padded(small: Path) -> None:
    path = sorted(small.rglob("*_04_01.mpg"))[0]
    actions.write_mpeg(path, actions.draw_action(actions.ActionKey(0, 4, 1))[0][:30])
    for cache in (False, True):
        sample = module(small, cache=cache).val_set[0]
        # 30 frames at 30 fps: steps 0, 4, ..., 28.
        assert sample["valid"].tolist() == [True] * 8 + [False] * 8
        assert sample["frame_idx"].tolist() == [*range(0, 30, 4), *[28] * 8]
        assert (sample["video"][:, 7:] == sample["video"][:, 7:8]).all()
        assert not sample["action"][8:].any()


def test_one_file_needs_no_data_set(small: Path, tmp_path: Path) -> None:
    path = next(small.rglob("v_move_right_04_02.mpg"))
    data = module(tmp_path / "absent", classes=PAIR)
    sample = data.read(path)
    want = module(small).val_set[3]
    assert int(sample["label"]) == -1
    assert sample["clip_id"] == want["clip_id"]
    assert (sample["video"] == want["video"]).all()
    assert data.classes == PAIR
    with pytest.raises(VideoReadError, match=r"nothing\.mpg"):
        data.read(tmp_path / "nothing.mpg")


# --- broken files -------------------------------------------------------------------------------


def test_a_broken_clip_in_each_part_is_skipped_and_named(small: Path) -> None:
    names = {"train": "v_move_left_01_01", "val": "v_move_left_04_02", "test": "v_move_right_05_01"}
    for name in names.values():
        next(small.rglob(f"{name}.mpg")).write_bytes(b"not a video" * 100)
    for cache in (False, True):
        data = module(small, cache=cache)
        for part, name in names.items():
            rows = [
                dict(zip(("label", "id", "error", "video"), row, strict=True))
                for batch in batches(data, part=part)
                for row in zip(
                    batch["label"].tolist(), batch["clip_id"], batch["error"], batch["video"],
                    strict=True,
                )
            ]  # fmt: skip
            (bad,) = (row for row in rows if row["error"])
            assert name in bad["error"]
            assert "\n" not in bad["error"]
            if part == "train":
                assert len(rows) == 12
                assert bad["id"] == "v_move_left_01_02"  # the next one
                assert bad["label"] == 0
                assert Counter(row["id"] for row in rows)["v_move_left_01_02"] == 2
            else:
                assert len(rows) == 4
                assert (bad["id"], bad["label"]) == (name, -1)
                assert (bad["video"] == 0).all()
            assert all(row["label"] >= 0 for row in rows if not row["error"])


@pytest.mark.parametrize("damage", ["cut", "garbled", "empty", "other", "short"])
def test_a_clip_with_broken_ground_truth_is_skipped_and_named(small: Path, damage: str) -> None:
    path = next(small.rglob("v_move_left_04_02.npz"))
    content = path.read_bytes()
    if damage == "other":
        np.savez(path, heat=np.zeros(3))
    elif damage == "short":
        truth = Truth.read(path)
        replace(truth, mask=truth.mask[:50]).write(path)
    else:
        garbled = content[:300] + bytes(100) + content[400:]
        path.write_bytes({"cut": content[:1000], "garbled": garbled, "empty": b""}[damage])
    (batch,) = batches(module(small), part="val")
    assert batch["label"].tolist() == [0, -1, 1, 1]
    assert batch["clip_id"][1] == "v_move_left_04_02"
    assert "v_move_left_04_02.npz" in batch["error"][1]
    assert "\n" not in batch["error"][1]
    assert not batch["mask"][1].any()
    assert [bool(error) for error in batch["error"]] == [False, True, False, False]


def test_nothing_but_broken_clips_is_an_error(small: Path) -> None:
    for path in small.rglob("*.mpg"):
        path.write_bytes(b"")
    data = module(small)
    with pytest.raises(DataError, match=r"none of the 12 training videos .*v_move_left_03_02"):
        data.train_set[0, 5]


# --- order --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_shards(ranks: int) -> None:
    data: Any = range(10)
    for train in (True, False):
        shards = []
        for rank in range(ranks):
            sampler = EpochSampler(data, train=train, seed=5, num_replicas=ranks, rank=rank)
            sampler.set_epoch(3)
            shards.append(list(sampler))
            assert len(sampler) == len(shards[-1])
        keys = [key for shard in shards for key in shard]
        assert {index for _, index in keys} == set(range(10))
        assert {epoch for epoch, _ in keys} == {3}
        if train:
            assert len({len(shard) for shard in shards}) == 1
        else:
            assert len(keys) == 10  # none twice: no clip counts double in a metric


def test_fewer_clips_than_ranks_can_be_trained_on_but_not_evaluated() -> None:
    data: Any = range(2)
    assert len(EpochSampler(data, train=True, num_replicas=3, rank=2)) == 1
    with pytest.raises(DataError, match=r"2 clips .* 3 processes.*more clips.*devices"):
        EpochSampler(data, train=False, num_replicas=3, rank=0)


def test_order_changes_by_epoch_and_seed() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochSampler(range(50), train=True, seed=seed)  # type: ignore[arg-type]
        sampler.set_epoch(epoch)
        return [index for _, index in sampler]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    assert order(0, 1) != sorted(order(0, 1))


class Recorder(pl.LightningModule):
    """Trains nothing to speak of and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.seen: list[tuple[int, list[str], list[list[int]], float]] = []

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        self.seen.append(
            (
                self.current_epoch,
                batch["clip_id"],
                batch["frame_idx"].tolist(),
                batch["video"].sum().item(),
            )
        )
        return self.layer(batch["video"].mean((2, 3, 4))).square().mean()

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(root: Path, folder: Path, epochs: int, workers: int, resume: str | None) -> Recorder:
    torch.manual_seed(0)
    model = Recorder()
    trainer = pl.Trainer(
        default_root_dir=folder, max_epochs=epochs, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=[pl.callbacks.ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)],
    )  # fmt: skip
    trainer.fit(model, module(root, num_workers=workers), ckpt_path=resume)
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_sees_what_an_uninterrupted_one_would(
    small: Path, tmp_path: Path, workers: int
) -> None:
    whole = fit(small, tmp_path / "whole", 4, workers, None)
    assert len(whole.seen) == 12
    assert len({str(seen[1:]) for seen in whole.seen}) == 12
    fit(small, tmp_path / "part", 2, workers, None)
    checkpoint = str(tmp_path / "part" / "epoch=1.ckpt")
    resumed = fit(small, tmp_path / "resumed", 4, workers, checkpoint)
    assert resumed.seen == whole.seen[6:]
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


# --- real videos --------------------------------------------------------------------------------


def test_the_real_mini_set(real: Path) -> None:
    data = UCF11(str(real / "UCF11_updated_mpg"), num_workers=0, batch_size=5)
    data.prepare_data()
    data.setup()
    assert len(data.classes) == 5
    assert "flipping_pancake" in data.classes
    assert [len(part) for part in (data.train_set, data.val_set, data.test_set)] == [30, 10, 10]
    assert {clip.group for clip in data.listing.test} == {5}
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())))
    assert batch["video"].shape == (5, 3, 16, 224, 224)
    assert batch["error"] == [""] * 5
    assert "mask" not in batch
    assert batch["valid"][:, 0].all()
    assert not batch["valid"].all()  # about one second each: fewer than 16 steps
    frames = data.to_frames(batch["video"])
    assert 20 < frames.mean() < 235
    assert frames.std() > 20
    sample = data.read(real / "arm_wrestling.mp4")
    assert sample["video"].shape == (3, 16, 224, 224)
    assert sample["valid"].all()


def test_synthetic_actions_are_ucf11_with_other_defaults() -> None:
    data = SyntheticActions("/nonexistent", batch_size=3, classes=["b", "a"])
    assert isinstance(data, UCF11)
    assert (data.batch_size, data.classes, data.cache) == (3, ["b", "a"], True)
    assert ucf11.UCF11.default_test == (2, 3, 4, 5, 6, 7)


def test_display_shows_the_network_s_crop_with_more_pixels(tmp_path: Path) -> None:
    root = actions.render_actions(tmp_path / "data", groups=3, clips=1, classes=["move_left"])
    data = SyntheticActions(str(root), groups=3, clips=1, actions=["move_left"])
    sample = data.read(next((root / "UCF11_updated_mpg").rglob("*.mpg")))
    frames = data.reader.display(sample["path"], sample["frame_idx"].tolist())
    assert frames.shape == (16, 256, 256, 3)
    small = torch.nn.functional.avg_pool2d(
        torch.from_numpy(frames).permute(0, 3, 1, 2).float(), 4
    ).permute(0, 2, 3, 1)
    seen = torch.from_numpy(data.to_frames(sample["video"][None])[0]).float()
    assert (small - seen).abs().mean() < 2
