"""What a training asks of each clip: the same question from the first epoch to the last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from lightning_cam.attribution import Explainable
from lightning_cam.errors import ArgumentError, ConfigError
from lightning_cam.explaining.clip_explanations import network_outputs, true_column

TRUE, PREDICTED = "true", "predicted"


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
            nobody knows; "predicted": what the network says that epoch; else a column by name or
            number, for all clips. `True`, as YAML reads the word, is "true".
        contrast: a class, by name or number, that the target is set against; None: none.

    Raises:
        ArgumentError: one is of another type.
    """

    target: str | int = TRUE
    contrast: str | int | None = None

    def __post_init__(self) -> None:
        if self.target is True:
            object.__setattr__(self, "target", TRUE)
        if isinstance(self.target, bool) or not isinstance(self.target, str | int):
            raise ArgumentError(
                f"target must be 'true', 'predicted', or a class by name or number, got "
                f"{self.target!r}"
            )
        if isinstance(self.contrast, bool) or not isinstance(self.contrast, str | int | None):
            raise ArgumentError(
                f"contrast must be a class by name or number, or None, got {self.contrast!r}"
            )

    @property
    def names_columns(self) -> bool:
        """Whether only a network can tell if there is what is asked about."""
        return self.target not in (TRUE, PREDICTED) or self.contrast is not None

    def check(self, model: Explainable) -> None:
        """Find before training that the network has no such column.

        Raises:
            UserError: it has not, or a class would be set against itself.
        """
        target = None if self.target in (TRUE, PREDICTED) else model.column(self.target)
        if self.contrast is not None and model.column(self.contrast) == target:
            raise ConfigError(
                f"contrast={self.contrast} is the target itself; choose another class"
            )

    def about(self, model: Explainable, batch: Mapping[str, Any], clip: Tensor) -> Asked:
        """What is asked of one clip `(1, C, T, H, W)`.

        Args:
            model: bound to the clip's batch.
            batch: of the clip, with its "label" where it has one.
            clip: is run by itself where a predicted class is set against another.
        """
        target: int | None = None
        if self.target == TRUE:
            target = true_column(model, batch)
        elif self.target != PREDICTED:
            target = model.column(self.target)
        if target is None:  # of several labels the highest true one would be taken
            model = replace(model, positives=None)
        if self.contrast is None:
            return Asked(model, target)
        if target is None:
            target = int(model.resolve(None, network_outputs(model, clip))[0])
        against = model.column(self.contrast)
        return Asked(model, target, None if against == target else against)
