"""What is kept of a clip's explanation after an epoch of a training.

It is small (`KeptMap`) and plain, for it travels in checkpoints: a training that goes on in another
folder, or with other ranks, has the maps of its earlier epochs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_cam.attribution import Attribution, Contrast, Explainable, Explanation
from lightning_cam.errors import printable
from lightning_cam.explaining.clip_explanations import answered
from lightning_cam.explaining.kept_map import MAP_SIZE, KeptMap

_MOST_TEXT, _MOST_CELLS, _MOST_COLUMNS = 1000, 2**24, 2**20  # in a checkpoint


@dataclass(frozen=True)
class EpochMap:
    """One method's map of a clip after an epoch.

    Attributes:
        said: what is explained, and what the network said.
        map: the map.
        column: the explained one.
        outputs: (K,) the network's, float32.
        numbers: what the method found out beside the map, by which it may be doubtful.
        broken: weights that were not finite.
        against: of a contrast, the map of the other class.
    """

    said: str
    map: KeptMap
    column: int
    outputs: Tensor
    numbers: Mapping[str, float] = field(default_factory=dict)
    broken: Sequence[str] = ()
    against: EpochMap | None = None

    @classmethod
    def of(cls, e: Explanation, said: str) -> EpochMap | None:
        """What is kept of the explanation of one clip (B = 1); None of a map that is not finite."""
        size = (e.heatmap.shape[1], *MAP_SIZE[1:])
        try:
            kept = KeptMap.of(e, size)
        except ValueError:
            return None
        against = cls.of(e.against, "") if isinstance(e, Contrast) else None
        if isinstance(e, Contrast) and against is None:
            return None
        numbers = {name: float(value[0]) for name, value in e.numbers.items()}
        outputs = e.outputs[0].detach().cpu().float()
        return cls(said, kept, int(e.target[0]), outputs, numbers, tuple(e.broken), against)

    def explanation(self, method: Attribution, size: Sequence[int]) -> Explanation:
        """The explanation, of a map of this size (T, H, W)."""
        made: dict[str, Any] = {
            "heatmap": self.map.heatmap(size),
            "target": torch.tensor([self.column]),
            "outputs": self.outputs[None],
            "attention": {},
            "method": method,
            "numbers": {name: torch.tensor([value]) for name, value in self.numbers.items()},
            "level": self.map.level,
            "broken": tuple(self.broken),
        }
        if self.against is None:
            return Explanation(**made)
        return Contrast(**made, against=self.against.explanation(method, size))

    def plain(self) -> dict[str, Any]:
        """The same in plain containers and tensors."""
        return {
            "said": self.said,
            "values": torch.from_numpy(self.map.values),
            "facts": [self.map.base, self.map.scale, float(self.map.floating)],
            "column": self.column,
            "outputs": self.outputs.clone(),
            "numbers": dict(self.numbers),
            "broken": list(self.broken),
            "against": None if self.against is None else self.against.plain(),
        }

    @classmethod
    def read(cls, given: Any, depth: int = 0) -> EpochMap | None:
        """What `plain` made; None of anything else, for a checkpoint may be a stranger's."""
        if depth > 1:
            return None
        try:
            values, facts, outputs = given["values"], given["facts"], given["outputs"]
            column, numbers, broken = given["column"], given["numbers"], given["broken"]
            texts = [given["said"], *numbers, *broken]
            finite = all(math.isfinite(fact) for fact in facts)
            floats = [*facts, *numbers.values()]
            sound = (
                finite
                and len(facts) == 3
                and type(column) is int
                and isinstance(outputs, Tensor)
                and outputs.dtype == torch.float32
                and outputs.ndim == 1
                and 0 <= column < len(outputs) <= _MOST_COLUMNS
                and all(type(value) is float for value in floats)
                and all(type(text) is str and len(text) <= _MOST_TEXT for text in texts)
                and isinstance(values, Tensor)
                and values.dtype == torch.float16
                and values.ndim == 3
                and 0 < values.numel() <= _MOST_CELLS
                and bool(values.isfinite().all())
            )
            against = None if given["against"] is None else cls.read(given["against"], depth + 1)
        except (KeyError, TypeError, AttributeError):
            return None
        if not sound or (against is None) != (given["against"] is None):
            return None
        kept = KeptMap(values.numpy(), facts[0], facts[1], bool(facts[2]))
        return cls(printable(texts[0]), kept, column, outputs, numbers, tuple(broken), against)


def epoch_maps(model: Explainable, explanations: Mapping[str, Explanation]) -> dict[str, EpochMap]:
    """Method -> what is kept of its map of one clip (B = 1); without maps that are not finite."""
    kept = {name: EpochMap.of(e, answered(model, e)) for name, e in explanations.items()}
    return {name: each for name, each in kept.items() if each is not None}


def read_maps(record: Mapping[str, Any]) -> dict[str, EpochMap]:
    """The same of what another rank has sent of a clip."""
    read = {name: EpochMap.read(plain) for name, plain in record["maps"].items()}
    return {name: each for name, each in read.items() if each is not None}
