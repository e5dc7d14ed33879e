"""One class against another: the maps of both, and where they differ."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_cam.attribution.checks import check_model
from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.explanation import Explanation, explain
from lightning_cam.attribution.method import Attribution, MapFunction
from lightning_cam.errors import ArgumentError


@dataclass(frozen=True, repr=False)
class Contrast(Explanation):
    """Clips explained for one class (A, the fields of the explanation) and for another (B).

    Attributes:
        against: the explanation of B by the same method.
    """

    against: Explanation

    @property
    def difference(self) -> Tensor:
        """`(B, T, H, W)`: above 0 where the map for A is higher, below where that for B is.

        It is the literal difference of the two maps (of their `evidence`), so that it exists for
        every method. Of a method that is linear in the score and keeps negative values, such as
        `GradCAM(relu=False)`, it equals the map of the score y_A - y_B, which is what
        `Explainable.contrast` asks for; after a ReLU it does not.
        """
        return self.evidence - self.against.evidence


def explain_contrast(
    model: Explainable,
    method: Attribution | MapFunction,
    clip: Tensor,
    target: int | str,
    against: int | str,
) -> Contrast:
    """Explain clips for two classes, A and B, to see what speaks for which.

    Args:
        model: what to explain.
        method: for example `GradCAM()`.
        clip: `(B, C, T, H, W)` in model space.
        target: class A, by name or number.
        against: class B.

    Raises:
        ArgumentError: A is B; and as `explain`.

    Example:
        >>> found = explain_contrast(model, GradCAM(), clip, "wave", "smile")
        >>> found.heatmap, found.against.heatmap, found.difference  # (B, T, H, W) each
    """
    check_model(model)
    if model.column(target) == model.column(against):
        raise ArgumentError(f"{target!r} cannot be set against itself; choose two classes")
    ours = explain(model, method, clip, target)
    return Contrast(**vars(ours), against=explain(model, method, clip, against))
