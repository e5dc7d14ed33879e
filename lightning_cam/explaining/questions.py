"""Which column `explain.py` explains of a clip: what its `target` says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lightning_cam.attribution import Explainable
from lightning_cam.errors import ConfigError
from lightning_cam.explaining.clip_explanations import (
    class_probabilities,
    network_outputs,
    true_label,
)
from lightning_cam.interfaces import Batch

TRUE, PREDICTED = "true", "predicted"
_TOP = re.compile(r"top([1-9]\d{0,2})")


@dataclass(frozen=True)
class Question:
    """Which column is explained of each clip.

    Attributes:
        column: this one, by name or number.
        true: the true class; of a clip without one the predicted.
        rank: the class that the network holds for the n-th likeliest, 1 for the predicted; 0: not.
        instead: title -> name of the class, of clips without a true one.

    With none of them it is the column that `Explainable.resolve` takes.
    """

    column: str | int | None = None
    true: bool = False
    rank: int = 0
    instead: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        if self.column is not None:
            return str(self.column)
        if self.true:
            return "true class"
        return f"top {self.rank}" if self.rank > 1 else "predicted class"

    def check(self, model: Explainable) -> None:
        """See that a network has what is asked for.

        Raises:
            UserError: it has no such column; or no classes, of which one were true or likeliest.
        """
        if self.column is not None:
            model.column(self.column)
            return
        top = PREDICTED if self.rank == 1 else f"top{self.rank}"
        for word in [TRUE] * self.true + [top] * bool(self.rank):
            if word in model.outputs:
                raise ConfigError(
                    f"target={word}: there is a class of this name; give its number, "
                    f"target={model.outputs.index(word)}"
                )
            if model.probability is None and not model.heads:
                some = ", ".join(model.outputs[:3])
                raise ConfigError(
                    f"target={word} needs a network whose outputs are classes; name a column "
                    f"({some})"
                )

        if self.rank > len(model.outputs) > 0:
            raise ConfigError(f"target={top}: the network has {len(model.outputs)} classes")

    def of(self, model: Explainable, clip: Tensor, batch: Batch, title: str) -> int | None:
        """The column for one clip `(1, C, T, H, W)`; None: what methods take by themselves."""
        if self.column is not None:
            return model.column(self.column)
        if self.true:
            label = true_label(batch)
            if label < 0 and title in self.instead:
                return model.column(self.instead[title])
            return label if label >= 0 else int(model.resolve(None, network_outputs(model, clip)))
        if not self.rank:
            return None
        known = class_probabilities(model, network_outputs(model, clip))
        return sorted(known, key=lambda column: -known[column])[self.rank - 1]


def questions(target: Any, *, contrast: bool = False, several: bool = False) -> list[Question]:
    """What is asked, in the order of `target`, each once.

    Args:
        target: as in `configs/explain.yaml`.
        contrast: whether a second class stands against it.
        several: whether networks are compared.

    Raises:
        ConfigError: it makes no sense.
    """
    if target is None:
        return [Question(true=contrast or several)]
    asked = target if isinstance(target, list) else [target]
    if not asked:
        raise ConfigError("target=[] asks for nothing; name classes, or leave it out")
    return list({str(q): q for each in asked for q in _asked(each)}.values())


def _asked(target: Any) -> Sequence[Question]:
    if target is True or target == TRUE:  # YAML's true
        return [Question(true=True)]
    if target == PREDICTED:
        return [Question(rank=1)]
    if isinstance(target, str) and (top := _TOP.fullmatch(target)):
        return [Question(rank=n) for n in range(1, int(top[1]) + 1)]
    if type(target) not in (str, int):
        raise ConfigError(
            f"target={target} must be a class by name or number, true, predicted or top3, or a "
            "list of these"
        )
    return [Question(column=target)]
