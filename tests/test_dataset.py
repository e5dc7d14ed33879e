"""Raw samples of workers, what finishes them, and clips of other channels than RGB."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from layouts import encode, frames
from numpy.typing import ArrayLike
from torch import Tensor

import lightning_cam as lc
from lightning_cam.data import memory
from lightning_cam.data.clips.folder import VideoFolder
from lightning_cam.data.core.clips import Clip, ClipReader, SampleDict, finished
from lightning_cam.data.core.listing import Listing
from lightning_cam.data.core.loading import ClipLoader, collate
from lightning_cam.data.core.module import VideoDataModule
from lightning_cam.data.core.shipping import Slots
from lightning_cam.data.core.transforms import ClipTransform
from lightning_cam.data.video.info import Pixels
from lightning_cam.data.video.reading import READERS, VideoFrames, VideoInfo
from lightning_cam.errors import ConfigError
from lightning_cam.explaining.clips_by_outcome import select_clips

KEYS = [(epoch, index) for epoch in (0, 3) for index in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of two classes; the third one is broken."""
    root = tmp_path_factory.mktemp("videos")
    for k in range(6):
        encode(root / f"{k}.mp4", frames(("blink", "move_left")[k % 2], k))
    (root / "2.mp4").write_bytes(b"not a video")
    return root


class Videos(VideoDataModule):
    """Trains on, validates and tests the same six videos."""

    context: str | None = None

    def __init__(self, root: Path, **options: Any) -> None:
        options = {"num_frames": 4, "resize": 36, "crop": 32, "batch_size": 3, **options}
        options = {"num_workers": 0, "permute": 0.4, "grey": 0.4, **options}
        super().__init__(str(root), **options)

    def list_clips(self) -> Listing:
        clips = [Clip(Path(self.root) / f"{k}.mp4", str(k), k % 2) for k in range(6)]
        return Listing(["a", "b"], clips, clips, clips)

    @cached_property
    def listing(self) -> Listing:
        return self.list_clips()  # elsewhere a clip is in one part

    def train_dataloader(self) -> ClipLoader:
        loader = super().train_dataloader()
        loader.multiprocessing_context = self.context
        return loader


def equal(one: SampleDict, other: SampleDict) -> bool:
    return one.keys() == other.keys() and all(
        value.dtype == other[key].dtype and torch.equal(value, other[key])
        if isinstance(value, Tensor)
        else value == other[key]
        for key, value in one.items()
    )


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_finished_batch_is_the_stack_of_the_samples(folder: Path, part: str, cache: bool) -> None:
    data = Videos(folder, cache=cache)
    dataset = getattr(data, f"{part}_set")
    raw = dataset.__getitems__(KEYS)
    assert all(sample["video"].dtype == torch.uint8 for sample in raw)
    assert all(sample["video"].is_contiguous() for sample in raw)
    assert {sample["grey"] for sample in raw} == ({False, True} if part == "train" else {False})
    batch = data.on_after_batch_transfer(collate(raw), 0)
    assert batch["video"].is_contiguous()
    assert equal(batch, collate([dataset[key] for key in KEYS]))
    assert finished(batch) is batch  # what is finished stays so
    assert equal(data.read(folder / "4.mp4"), {**data.val_set[4], "label": torch.tensor(-1),
        "clip_id": "4"})  # fmt: skip


def test_batches_of_loader_processes_stay_what_they_are(folder: Path) -> None:
    """However many are kept; what is let go of makes room for others."""
    data, plain = (Videos(folder, num_workers=n, batch_size=2) for n in (2, 0))
    loader = data.train_dataloader()
    batches, views, want = [], [], []
    for epoch in range(9):  # 27 batches: more than a loader process has shared memory for
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        source = plain.train_dataloader()
        source.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        want += [dict(batch) for batch in source]
        if epoch % 3 == 2:
            views += [batch["video"][1, :, 2].numpy() for batch in loader]
            batches += [None] * 3
        else:
            views += [None] * 3
            batches += [*loader]
    for batch, view, other in zip(batches, views, want, strict=True):
        if batch is None:
            assert (view == other["video"][1, :, 2].numpy()).all()
        else:
            assert equal(batch, other)


def test_shared_memory_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slots, rest = Slots(), {"label": torch.arange(2), "mask": torch.ones(2, 50_000), "path": ["a"]}
    monkeypatch.setattr(Tensor, "pin_memory", Tensor.clone)

    def ship(level: int) -> Any:
        pixels = [torch.full((3, 4), level, dtype=torch.uint8)] * 2
        return slots.ship(pixels, rest)

    first, second = ship(1), ship(2)
    assert isinstance(first.rest["label"], np.ndarray)  # sent along
    assert isinstance(first.rest["mask"], Tensor)
    batch = first.batch()
    assert equal(batch, {"video": torch.ones(2, 3, 4).byte(), **rest})
    row = batch["video"][0]
    del batch
    assert ship(3).memory is not first.memory
    del row
    assert ship(4).memory is first.memory
    assert equal(second.pin_memory(), {"video": torch.full((2, 3, 4), 2).byte(), **rest})
    assert ship(5).memory is second.memory
    kept = [ship(n) for n in range(8)]
    assert kept[-1] is None  # the batch is stacked as ever
    assert len(slots._all) == 8


def test_memory_is_used_again_when_nobody_holds_it() -> None:
    shape = (3, 200_000)
    one = memory.empty(shape, np.float32)
    place, part = one.data_ptr(), one[1, 5:9].numpy()
    one.fill_(7)
    del one
    other = memory.empty(shape, np.float32)
    assert other.data_ptr() != place
    other.fill_(8)
    assert (part == 7).all()
    del part
    assert memory.empty(shape, np.float32).data_ptr() == place
    assert memory.empty((2, 3), np.uint8).shape == (2, 3)


def test_an_unreadable_clip_is_zeros_among_the_others(folder: Path) -> None:
    data = Videos(folder)
    first, second = (data.on_after_batch_transfer(batch) for batch in data.val_dataloader())
    assert first["label"].tolist() == [0, 1, -1]
    assert [bool(error) for error in first["error"]] == [False, False, True]
    assert (first["video"][2] == 0).all()
    assert (first["video"][:2] != 0).any()
    assert not any(second["error"])


class Mean(pl.LightningModule):
    """Logits from mean colours, and the losses of its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.losses = torch.nn.Linear(3, 2), []

    def training_step(self, batch: SampleDict, _: int) -> Tensor:
        assert set(batch).isdisjoint({"colour", "grey"})
        logits = self.layer(batch["video"].mean((2, 3, 4)))
        loss = torch.nn.functional.cross_entropy(logits, batch["label"])
        self.losses.append((loss.item(), batch["video"].double().sum().item()))
        return loss

    def validation_step(self, batch: SampleDict, _: int) -> None:
        assert batch["video"].dtype == torch.float32

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.slow
def test_spawned_workers_train_the_same_network(folder: Path, tmp_path: Path) -> None:
    losses = []
    for workers, context in ((0, None), (1, "spawn"), (2, "fork")):
        data = Videos(folder, num_workers=workers)
        data.context = context
        torch.manual_seed(0)
        task = Mean()
        trainer = pl.Trainer(
            default_root_dir=tmp_path, max_epochs=2, accelerator="cpu", logger=False,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip
        trainer.fit(task, data)
        losses.append(task.losses)
    assert len(losses[0]) == 4
    assert len(set(losses[0])) == 4
    assert losses[0] == losses[1] == losses[2]


def test_clips_are_selected_by_finished_ones(folder: Path) -> None:
    data = Videos(folder)
    seen = []

    class Task:
        device = torch.device("cpu")

        def explainable(self, batch: SampleDict | None = None) -> lc.Explainable:
            seen.extend([] if batch is None else [batch["video"]])
            net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten())
            return lc.Explainable.of(net, [], ["a", "b", "c"], probability="softmax")

    found = select_clips(Task(), data.val_set, range(6), ["correct"], None)
    assert found.unreadable == [2]
    assert torch.equal(torch.cat(seen), torch.stack([data.val_set[k]["video"] for k in range(6)]))


@pytest.mark.attack
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["v.mp4", "v.mpg", "images"])
def test_kept_steps_are_resized_as_they_are_decoded(tmp_path: Path, name: str, reader: str) -> None:
    """`data.cache=true` on videos whose frames are much larger than what is kept of them."""
    large = frames("blink", 0, 40).repeat(5, 1).repeat(5, 2)  # 12 MB of 320x320
    path = encode(tmp_path / name, large)
    clips = ClipReader(8, 30.0, ClipTransform(32, 32), reader, rate=30)
    whole, indices, _ = ClipReader.read(clips, path, clips.all_steps)
    shrunk = clips.transform.shrink(torch.from_numpy(whole).permute(0, 3, 1, 2))
    tracemalloc.start()
    steps = clips.steps(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (steps.indices == indices).all() and len(indices) == 40
    assert torch.equal(steps.frames, shrunk)
    # Of arrays; decord's own 8 frames and FFmpeg's are not counted.
    assert peak < whole.nbytes / (2 if reader == "decord" else 5)


# --- other channels -----------------------------------------------------------------------------


class Infrared(ClipReader):
    """The red channel as infrared, alone or after the colours."""

    def read(
        self,
        path: str | Path,
        select: Callable[[VideoInfo], ArrayLike],
        each: Callable[[Pixels], Pixels] | None = None,
    ) -> VideoFrames:
        frames, indices, info = super().read(path, select, each)
        return VideoFrames(
            np.concatenate([frames, frames[..., :1]], -1)[..., -self.transform.channels :],
            indices,
            info,
        )


@pytest.mark.parametrize("channels", [1, 4])
def test_a_reader_of_other_channels(folder: Path, channels: int) -> None:
    data = Videos(folder, mean=[0.4] * channels, std=[0.2] * channels, permute=0, grey=0, resize=32)
    with pytest.raises(ConfigError, match=r"one number per channel.*0\.mp4' has 3"):
        data.val_set[0]
    data = Videos(folder, mean=[0.4] * channels, std=[0.2] * channels, permute=0, grey=0, resize=32)
    data.reader = Infrared(4, 7.5, data.reader.transform)
    for part in ("train", "val"):
        loader = getattr(data, f"{part}_dataloader")()
        for batch in map(data.on_after_batch_transfer, loader):
            assert batch["video"].shape == (3, channels, 4, 32, 32)
    want = Videos(folder, resize=32)
    sample, colours = data.val_set[0], want.to_frames(want.val_set[0]["video"][None])
    shown = colours if channels == 4 else colours[..., :1].repeat(3, -1)
    assert (data.to_frames(sample["video"][None]) == shown).all()
    assert (data.val_set[2]["video"] == 0).all()  # unreadable
    image = data.reader.display(sample["path"], sample["frame_idx"].tolist(), side=32)
    assert (image == shown[0]).all()


def test_ground_truth_that_there_is_none_of_takes_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A megabyte for each sample, in the loaders' heaps."""
    reader = VideoFolder("nowhere", num_frames=2, resize=4, crop=4).reader
    shapes = {
        name: tuple(value.shape) for name, value in reader.no_truth(["mask", "action"]).items()
    }
    assert shapes == {"mask": (2, 4, 4), "action": (2,)}
    monkeypatch.delattr(torch, "zeros")
    assert reader.no_truth(()) == {}
