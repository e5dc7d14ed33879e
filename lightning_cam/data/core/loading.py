"""Sampler and loader of the video sets: order and epoch, shards, collation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, default_collate

from lightning_cam.data.core.clips import SampleDict
from lightning_cam.errors import DataError
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
        return iter([(self.epoch, int(i)) for i in order[self.rank :: self.num_replicas]])

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
    """A DataLoader whose iterator starts at its first batch, not when it is made.

    Lightning makes the first iterator before it tells the sampler the epoch; with workers, which
    fetch ahead, a resumed run would begin with batches of epoch 0.
    """

    def __iter__(self) -> Any:
        yield from super().__iter__()


def collate(samples: Sequence[Mapping[str, Any]]) -> Batch:
    """Stack tensors (in a worker straight into shared memory) and list everything else."""
    stacked = {
        key: default_collate([sample[key] for sample in samples])
        if isinstance(value, Tensor)
        else [sample[key] for sample in samples]
        for key, value in samples[0].items()
    }
    return cast(Batch, stacked)
