"""What is asked of each clip: which column is explained, and against which."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from lightning_cam.attribution import Explainable
from lightning_cam.errors import ArgumentError, ConfigError, UserError
from lightning_cam.explaining.clip_explanations import (
    class_probabilities,
    network_outputs,
    row_of,
    true_column,
)

TRUE, PREDICTED = "true", "predicted"
_TOP = re.compile(r"top([1-9]\d{0,2})")


@dataclass(frozen=True)
class Asked:
    """What is asked of one clip.

    Attributes:
        model: of the clip, as methods get it.
        target: the column; None: each time the predicted one.
        against: the class that it is set against; None: none.
    """

    model: Explainable
    target: int | None
    against: int | None = None


@dataclass(frozen=True)
class Question:
    """Which column of each clip is explained, and against which.

    Args:
        target: "true": the clip's true class (of several the first), or the predicted one where
            nobody knows; "predicted": what the network says, in training that epoch; "top2": the
            class that it holds for the second likeliest, and so on; else a column by name or
            number, for all clips. `True`, as YAML reads the word, is "true". A class that is called
            so is chosen by its number. None: the column that methods take by themselves.
        contrast: a class, by name or number, that the target is set against; None: none.
        instead: title -> name of the class, of clips without a true one.

    Raises:
        ArgumentError: one is of another type.
    """

    target: str | int | None = TRUE
    contrast: str | int | None = None
    instead: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.target is True:
            object.__setattr__(self, "target", TRUE)
        if isinstance(self.target, bool) or not isinstance(self.target, str | int | None):
            raise ArgumentError(
                f"target must be 'true', 'predicted', or a class by name or number, got "
                f"{self.target!r}"
            )
        if isinstance(self.contrast, bool) or not isinstance(self.contrast, str | int | None):
            raise ArgumentError(
                f"contrast must be a class by name or number, or None, got {self.contrast!r}"
            )

    def __str__(self) -> str:
        if self.rank > 1:
            return f"top {self.rank}"
        if self.target in (None, TRUE, PREDICTED) or self.rank:
            return "true class" if self.target == TRUE else "predicted class"
        return str(self.target)

    @property
    def rank(self) -> int:
        """Of "top2" the 2; 0 for other targets."""
        found = _TOP.fullmatch(self.target) if isinstance(self.target, str) else None
        return int(found[1]) if found else 0

    @property
    def _column(self) -> str | int | None:
        """The column that is named."""
        named = self.target not in (TRUE, PREDICTED) and not self.rank
        return self.target if named else None

    @property
    def names_columns(self) -> bool:
        """Whether only a network can tell if there is what is asked about."""
        return self._column is not None or bool(self.rank) or self.contrast is not None

    def check(self, model: Explainable) -> None:
        """Find before clips are read that the network has no such column.

        Raises:
            UserError: it has not, or a class would be set against itself.
        """
        if self.rank and model.probability is None and not model.heads:
            raise ConfigError(
                f"target={self.target} needs a network whose outputs are classes; name a column: "
                f"target={model.outputs[0] if model.outputs else 0}"
            )
        if self.rank > len(model.outputs) > 0:
            count = len(model.outputs)
            raise ConfigError(f"the network has {count} classes; target=top{count} asks for all")
        target = None if self._column is None else model.column(self._column)
        if self.contrast is not None and model.column(self.contrast) == target:
            raise ConfigError(
                f"contrast={self.contrast} is the target itself; choose another class"
            )

    def left_out(self, model: Explainable) -> int | None:
        """The class of which no clip need be looked for: it would be set against itself."""
        none = self.contrast is None or self.target != TRUE
        return None if none or self.contrast is None else model.column(self.contrast)

    def of_video(self, model: Explainable, title: str) -> tuple[int | None, int | None]:
        """The columns of target and contrast for all windows of a video.

        None as the target: the one that the whole video is predicted to be.
        """
        against = None if self.contrast is None else model.column(self.contrast)
        if self.target == TRUE:
            return self._told(model, title), against
        return None if self._column is None else model.column(self._column), against

    def _told(self, model: Explainable, title: str) -> int | None:
        """The column that is explained of a clip without a true class, where that is told.

        Raises:
            ConfigError: another network told it, and this one has no such column.
        """
        name = self.instead.get(title)
        if name is None:
            return None
        try:
            return model.column(name)
        except UserError as error:
            raise ConfigError(
                f"the first network predicts {name!r}, a class that this one does not have; "
                "target=predicted explains what each predicts"
            ) from error

    def about(
        self, model: Explainable, batch: Mapping[str, Any], clip: Tensor, title: str = ""
    ) -> Asked:
        """What is asked of one clip `(1, C, T, H, W)`.

        Args:
            model: bound to the clip's batch.
            batch: of the clip, with its "label" where it has one.
            clip: is run by itself where the likeliest classes have to be known before.
            title: of the clip.
        """
        if self.target is None:
            return Asked(model, None)
        target = self._target(model, batch, clip, title)
        if target is None:  # of several labels the highest true one would be taken
            model = replace(model, positives=None)
        if self.contrast is None:
            return Asked(model, target)
        if target is None:
            target = int(model.resolve(None, network_outputs(model, clip))[0])
        against = model.column(self.contrast)
        return Asked(model, target, None if against == target else against)

    def about_all(
        self, model: Explainable, batch: Mapping[str, Any], clip: Tensor
    ) -> tuple[Explainable, Tensor | None]:
        """What is asked of each clip of a batch `(B, C, T, H, W)`, without a contrast.

        Args:
            model: bound to the batch.
            batch: of the clips.
            clip: as in `about`.

        Returns:
            The model as methods get it, and the columns `(B,)`; None: each time the predicted one.
        """
        if self.target is None:
            return model, None
        model = replace(model, positives=None)
        if self.target == PREDICTED:
            return model, None
        if self._column is not None:
            return model, model.columns(self._column, clip)
        rows = range(len(clip))
        found = [true_column(model, row_of(batch, n)) for n in rows] if self.target == TRUE else []
        if found and None not in found:
            return model, torch.tensor(found, device=clip.device)
        outputs = network_outputs(model, clip)
        if self.rank:
            known = [class_probabilities(model, outputs[n : n + 1]) for n in rows]
            found = [
                sorted(of.items(), key=lambda pair: -pair[1])[: self.rank][-1][0] for of in known
            ]
            return model, torch.tensor(found, device=clip.device)
        predicted = model.resolve(None, outputs).tolist()
        columns = [p if k is None else k for k, p in zip(found, predicted, strict=True)]
        return model, torch.tensor(columns, device=clip.device)

    def _target(
        self, model: Explainable, batch: Mapping[str, Any], clip: Tensor, title: str
    ) -> int | None:
        """The column; None: the predicted one."""
        if self.target == TRUE:
            found = true_column(model, batch)
            return self._told(model, title) if found is None else found
        if self.rank > 1:
            known = class_probabilities(model, network_outputs(model, clip))
            return sorted(known, key=lambda column: -known[column])[: self.rank][-1]
        return None if self._column is None else model.column(self._column)


def asked_in_training(target: Any, contrast: Any) -> Question:
    """The question of a training, which is about one column a clip.

    Raises:
        ArgumentError: it is of another type.
    """
    if target is None:
        raise ArgumentError(
            "target must be 'true', 'predicted', or a class by name or number, got None"
        )
    return Question(target, contrast)


def questions(
    target: Any, contrast: str | int | None = None, *, several: bool = False
) -> list[Question]:
    """What `explain.py` is asked, in the order of its `target`, each once.

    Args:
        target: as in `configs/explain.yaml`.
        contrast: a second class.
        several: whether networks are compared.

    Raises:
        ConfigError: it makes no sense.
    """
    if target is None:
        return [Question(TRUE if several or contrast is not None else None, contrast)]
    asked = target if isinstance(target, list) else [target]
    if not asked:
        raise ConfigError("target=[] asks for nothing; name classes, or leave it out")
    found = [Question(one, contrast) for each in asked for one in _each(each)]
    return list({str(question): question for question in found}.values())


def _each(target: Any) -> list[str | int]:
    """One target; of "top3" the three likeliest classes."""
    if isinstance(target, str) and (top := _TOP.fullmatch(target)):
        return [PREDICTED, *(f"top{n}" for n in range(2, int(top[1]) + 1))]
    if target is not True and type(target) not in (str, int):
        raise ConfigError(
            f"target={target} must be a class by name or number, true, predicted or top3, or a "
            "list of these"
        )
    return [target]
