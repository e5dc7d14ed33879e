"""What extremal perturbation asks of a mask: the network's answer to what it shows."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.extremal.soft_masks import Appearing
from lightning_cam.attribution.perturbation import Runner, answers
from lightning_cam.attribution.tensors import gradients

Game = Literal["preserve", "delete", "dual"]

APPEARANCES = 8  # in which the whole clip appears, for the range of a column
_SHARP = 10.0  # log-odds between the hidden and the whole clip


class Answer:
    """D of `ExtremalPerturbation` and its gradient, for masks `(A, B, T, H, W)`.

    Args:
        model: the network.
        runner: runs it, and knows how many rows at once.
        outputs: `(B, K)`, of the clip itself.
        target: `(B,)`, the columns.
        appearing: shows what a mask says.
        valid: `(B, T)`; padded frames stay hidden, they would give away the frame they repeat.
        game: whether the mask is what is seen, what is not, or both in turn.
    """

    def __init__(
        self,
        model: Explainable,
        runner: Runner,
        outputs: Tensor,
        target: Tensor,
        appearing: Appearing,
        valid: Tensor,
        game: Game,
    ) -> None:
        self.model, self.runner, self.target = model, runner, target
        self.appearing, self.valid = appearing, valid[..., None, None]
        self.deletions = {"preserve": (False,), "delete": (True,), "dual": (False, True)}[game]
        # Both (B,).
        self.low, self.range = (
            self._appearances() if model.probability is None else self._classes(outputs.shape[1])
        )

    def gradient(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """D of every mask, `(A, B)` float64, and dD/dm."""
        found, costs = torch.zeros_like(masks), masks.new_zeros(masks.shape[:2]).double()
        for deletion in self.deletions:
            start = 0
            while start < len(masks):
                part = slice(start, start + self.runner.copies)
                try:
                    cost, slope = self._slope(masks[part], deletion)
                    costs[part] += cost
                    found[part] += slope
                    start = part.stop
                    continue
                except torch.OutOfMemoryError:
                    if self.runner.copies == 1:
                        raise
                # Only here, behind the handler, does nothing hold on to what the failed run made.
                self.runner.copies //= 2
                torch.cuda.empty_cache()
        return costs, found

    def scores(self, masks: Tensor) -> Tensor:
        """The model's score `(A, B)` of what masks show, of what they leave for a deletion."""
        shown = 1 - masks if self.deletions == (True,) else masks
        outputs = self._run(shown)  # (A, B, K)
        return self.model.score(
            answers(self.model, outputs.flatten(0, 1)), self.target.repeat(len(masks))
        ).unflatten(0, (len(masks), -1))

    def _slope(self, masks: Tensor, deletion: bool) -> tuple[Tensor, Tensor]:
        seen = masks.detach().requires_grad_()
        shown = (1 - seen if deletion else seen) * self.valid
        rows = torch.cat([self.appearing(mask) for mask in shown])
        with torch.autocast(rows.device.type, torch.bfloat16, enabled=self.runner.bf16):
            outputs = self.model.forward(rows)
        cost = self.cost(outputs, deletion)
        [slope] = gradients(cost, [seen])
        return cost.detach().unflatten(0, masks.shape[:2]), slope

    def cost(self, outputs: Tensor, deletion: bool = False) -> Tensor:
        """D `(n*B,)` of outputs `(n*B, K)`; of a deletion -log(1 - p)."""
        copies = len(outputs) // len(self.target)
        outputs = self.model.probabilities(outputs.double())  # 1 - p has no digits in float32
        score = self.model.score(outputs, self.target.repeat(copies))
        share = (score - self.low.repeat(copies)) / self.range.repeat(copies)
        if self.model.probability is None:
            odds = _SHARP * (share - 0.5)
            return F.softplus(odds if deletion else -odds)
        return -(1 - share if deletion else share).clamp(min=1e-30).log()

    def _classes(self, columns: int) -> tuple[Tensor, Tensor]:
        """Lowest score of any probabilities and how far it is to the highest: one class is sure,
        or none, where each is true or not by itself.
        """
        none = self.model.probability == "sigmoid"
        sure = torch.eye(columns + none, columns, dtype=torch.float64, device=self.target.device)
        scores = torch.stack([self.model.score(sure, c.expand(len(sure))) for c in self.target])
        low, high = scores.aminmax(dim=1)
        return low, torch.where(high > low, high - low, 1)

    def _appearances(self) -> tuple[Tensor, Tensor]:
        """Score of the hidden clip, and the range of scores while it appears."""
        clip = self.appearing.levels[-1]
        shares = torch.linspace(0, 1, APPEARANCES).to(clip)
        masks = shares.view(-1, 1, 1, 1, 1).expand(-1, len(clip), *clip.shape[2:])
        outputs = self._run(masks).double()  # (8, B, K)
        scores = torch.stack([self.model.score(found, self.target) for found in outputs])
        low, high = scores.aminmax(dim=0)
        # A constant column has a range of rounding errors.
        noise = 1e-6 * scores.abs().amax(0)
        return scores[0], (high - low).clamp(min=torch.finfo(torch.float32).tiny).maximum(noise)

    def _run(self, masks: Tensor) -> Tensor:
        """Outputs `(n, B, K)` of what masks `(n, B, T, H, W)` show, without a graph."""

        def fill(rows: Tensor, start: int) -> None:
            for row, mask in zip(rows, masks[start : start + len(rows)], strict=True):
                row.copy_(self.appearing(mask * self.valid))

        return self.runner(len(masks), fill)
