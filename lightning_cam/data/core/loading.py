"""Sampler and loader of the video sets: order and epoch, shards, collation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    default_collate,
    get_worker_info,
)

from lightning_cam.data import memory
from lightning_cam.data.core.clips import SampleDict
from lightning_cam.data.core.shipping import Shipped, Slots
from lightning_cam.errors import CheckpointError, DataError
from lightning_cam.interfaces import Batch


class EpochSampler(DistributedSampler[SampleDict]):
    """Yields (epoch, index) in an order that depends on (seed, epoch) only, sharded over ranks.

    Lightning calls `set_epoch` with the trainer's epoch and, because this is a
    `DistributedSampler`, does not shard a second time. In training the ranks get equally many
    indices (some repeat); in evaluation every clip is seen once, so ranks may differ by one.

    Args:
        dataset: anything with a length.
        train: shuffle and make the shards equal.
        seed: of the order.
        num_replicas: number of ranks.
        rank: which of them this is.
        labels: in training, the class of every index, to have every class equally often; None for
            every index once.

    Attributes:
        start: how many of this rank's indices the next iterator leaves out; `len` counts them.

    Raises:
        DataError: a rank would have nothing to evaluate.
    """

    def __init__(
        self,
        dataset: Dataset[SampleDict],
        *,
        train: bool,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        labels: Sequence[int] | None = None,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=train, seed=seed)
        self.length = len(dataset)  # type: ignore[arg-type]
        self.labels = None if labels is None else np.asarray(labels)
        self.start = 0
        if not train and self.length < num_replicas:
            raise DataError(
                f"{self.length} clips to evaluate are too few for {num_replicas} processes: give "
                "validation and test more clips, or use fewer trainer.devices"
            )

    def __iter__(self) -> Iterator[Any]:
        order = np.arange(self.length)
        if self.shuffle:
            random = np.random.default_rng((self.seed, self.epoch))
            if self.labels is None:
                order = random.permutation(self.length)
            else:
                order = balanced_order(self.labels, random)
            order = np.resize(order, self.num_samples * self.num_replicas)
        own = order[self.rank :: self.num_replicas][self.start :]
        return iter([(self.epoch, int(i)) for i in own])

    def __len__(self) -> int:
        if self.shuffle:
            return self.num_samples
        return len(range(self.rank, self.length, self.num_replicas))


def balanced_order(labels: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """An order of as many indices as there are labels, with every class equally often (within one).

    Of a small class every index comes before any comes again; of a large one some stay away, each
    time others.
    """
    classes = random.permutation(np.unique(labels))
    turns = np.arange(len(labels)) % len(classes)
    order = np.empty(len(labels), dtype=np.int64)
    for turn, label in enumerate(classes):
        places = np.flatnonzero(turns == turn)
        order[places] = np.resize(random.permutation(np.flatnonzero(labels == label)), len(places))
    return random.permutation(order)


class ClipLoader(DataLoader[SampleDict]):
    """A DataLoader that goes on in the middle of an epoch.

    Lightning saves its state in every checkpoint: the epoch, and how many of its batches are
    finished. What workers have fetched ahead does not count, nor the batch that the trainer is at.

    Its iterator starts at its first batch, not when it is made: Lightning makes the first iterator
    before it tells the sampler the epoch; with workers, which fetch ahead, a resumed run would
    begin with batches of epoch 0.

    Args:
        dataset: of clips.
        trainer: that says which epoch and batch it is at; None for a loop of one's own, where the
            batches that were handed out are finished and the sampler says the epoch.
        options: of `DataLoader`; its `sampler` is an `EpochSampler`.
    """

    def __init__(
        self,
        dataset: Dataset[SampleDict],
        trainer: Trainer | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dataset, **options)
        self.trainer = trainer
        self._epoch = self._given = 0  # batches that were handed out of this epoch
        self._loaded: tuple[int, int] | None = None  # the same, of which the next iterator goes on
        self._shared: dict[int, Tensor] = {}  # memory of loader processes, which stays mapped

    def __iter__(self) -> Any:
        if self.trainer is not None:
            # Lightning forgets it where a schedule has asked for the number of all steps.
            self.trainer.fit_loop._load_combined_loader_states()
        epoch, given = self._loaded or (0, 0)
        self._loaded, self._epoch = None, self._current_epoch()
        self._given = left_out = given if epoch == self._epoch else 0
        if isinstance(self.sampler, EpochSampler):  # not Lightning's own, to overfit a few batches
            self.sampler.start = left_out * cast(int, self.batch_size)
            left_out = 0
        if not self.persistent_workers:
            self._shared.clear()
        for batch in islice(super().__iter__(), left_out, None):
            self._given += 1
            if isinstance(batch, Shipped):
                self._shared[batch.memory.data_ptr()] = batch.memory
                batch = batch.batch()
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, how many of its batches are finished, and what their order depends on."""
        epoch, done = self._loaded or (self._epoch, self._given - self._in_hand())
        return {"epoch": epoch, "batches": done, **self._order()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iterator go on behind the batches that a checkpoint says are finished.

        The next epoch begins as ever where that one is over.

        Raises:
            CheckpointError: the state is none, or the epoch has its clips in another order now.
        """
        now = self.state_dict()
        fits = isinstance(state, Mapping) and state.keys() == now.keys()
        if not fits or any(type(n) is not int or n < 0 for n in state.values()):
            raise CheckpointError("its place in the order of an epoch is none")
        if self.trainer is not None and state["epoch"] != self._current_epoch():
            return
        seen = state["batches"] * state["batch_size"] * state["ranks"]
        if seen >= state["clips"]:  # nothing is left of the epoch, in whatever order
            self._loaded = state["epoch"], len(self)
            return
        if any(state[key] != value for key, value in self._order().items()):
            raise CheckpointError(
                f"it was saved within an epoch of {_described(state)}, and now there are "
                f"{_described(now)}: go on with the former, or from a checkpoint of a whole epoch"
            )
        self._loaded = state["epoch"], state["batches"]

    def _order(self) -> dict[str, int]:
        """What the order of an epoch depends on."""
        order = {"ranks": 1, "seed": 0, "balanced": 0}
        if isinstance(sampler := self.sampler, EpochSampler):
            order["ranks"], order["seed"] = sampler.num_replicas, sampler.seed
            order["balanced"] = int(sampler.labels is not None)
        clips = len(self.dataset)  # type: ignore[arg-type]
        return {"clips": clips, "batch_size": cast(int, self.batch_size), **order}

    def _current_epoch(self) -> int:
        if self.trainer is not None:
            epochs = self.trainer.fit_loop.epoch_progress.current
            return epochs.processed  # type: ignore[attr-defined]
        return self.sampler.epoch if isinstance(self.sampler, EpochSampler) else 0

    def _in_hand(self) -> int:
        """How many batches the trainer has taken and not finished."""
        if self.trainer is None or self.trainer.fit_loop._data_fetcher is None:
            return 0
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.current
        taken = self.trainer.fit_loop._data_fetcher.fetched
        return taken - batches.processed  # type: ignore[attr-defined]


def _described(state: Mapping[str, int]) -> str:
    """The order of an epoch in words."""
    more = ", balanced" if state["balanced"] else ""
    return (
        f"{state['clips']} clips in batches of {state['batch_size']} on {state['ranks']} "
        f"process{'es' * (state['ranks'] > 1)} (seed {state['seed']}{more})"
    )


def collate(samples: Sequence[Mapping[str, Any]]) -> Batch:
    """Stack tensors (in a worker straight into shared memory) and list everything else."""
    stacked = {
        key: _stacked([sample[key] for sample in samples])
        if isinstance(value, Tensor)
        else [sample[key] for sample in samples]
        for key, value in samples[0].items()
    }
    return cast(Batch, stacked)


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0]
    if first.dtype != torch.uint8 or get_worker_info() is not None:
        return cast(Tensor, default_collate([*tensors]))
    pixels = memory.empty((len(tensors), *first.shape), np.uint8)
    return torch.stack([*tensors], out=pixels)


class Collate:
    """What a `ClipLoader` collates by: as `collate` does, but loader processes ship their batches.

    The loader unpacks them.
    """

    def __init__(self) -> None:
        self.slots = Slots()

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> Batch | Shipped:
        pixels = [sample["video"] for sample in samples]
        if get_worker_info() is None or pixels[0].dtype != torch.uint8:
            return collate(samples)
        rest = collate([{k: v for k, v in sample.items() if k != "video"} for sample in samples])
        return self.slots.ship(pixels, rest) or collate(samples)
