"""When gradient descent on masks has come to rest: each clip stops on its own."""

from __future__ import annotations

import torch
from torch import Tensor

LOOK = 10  # iterations between two looks
BACK = 20  # iterations over which a mask must not have moved


def sizes(masks: Tensor, valid: Tensor) -> Tensor:
    """Share `(A, B)` of valid frames `(B, T)` that masks `(A, B, T, H, W)` show."""
    counted = valid.sum(1) * masks[0, 0, 0].numel()
    return masks.flatten(2).sum(2) / counted.clamp(min=1)


class Settling:
    """Each clip's masks as they were when they had settled.

    They have where, over 20 iterations, the size of none of the clip's masks moved by more than a
    share `tol` of it, nor the log-odds of its answer (by more than `tol` where they are below 1).

    Args:
        tol: None: never.
        start: the iteration from which on masks are compared: the first can stop 20 later.
        clips: B.
        most: iterations there may be.
    """

    def __init__(self, tol: float | None, start: int, clips: int, most: int) -> None:
        self.tol, self.start = tol, start
        self.iterations = torch.full((clips,), most)
        self.masks: Tensor | None = None
        self._settled = torch.zeros(clips, dtype=torch.bool)
        self._seen: dict[int, tuple[Tensor, Tensor]] = {}

    def look(self, n: int, masks: Tensor, size: Tensor, cost: Tensor) -> bool:
        """Whether all clips have settled at iteration n.

        Args:
            n: so many steps have been made.
            masks: `(A, B, T, H, W)`.
            size: of them, `(A, B)`.
            cost: D of them, -log of the probability of the answer, `(A, B)`.
        """
        if self.tol is None or n < self.start or n % LOOK:
            return False
        shown = (-cost).exp().clamp(1e-12, 1 - 1e-12)
        self._seen[n] = size, shown.logit()
        if n - BACK not in self._seen:
            return False
        (old_size, old_odds), (size, odds) = self._seen.pop(n - BACK), self._seen[n]
        rest = (size - old_size).abs() <= self.tol * old_size
        rest &= (odds - old_odds).abs() <= self.tol * old_odds.abs().clamp(min=1)
        now = rest.all(0).to(self._settled.device) & ~self._settled
        if self.masks is None:
            self.masks = torch.zeros_like(masks)
        at = now.nonzero()[:, 0].to(masks.device)
        self.masks[:, at] = masks[:, at]
        self.iterations[now] = n
        self._settled |= now
        return bool(self._settled.all())

    def kept(self, masks: Tensor) -> Tensor:
        """The masks `(A, B, T, H, W)` of the end, where a clip did not settle before."""
        if self.masks is None:
            return masks
        settled = self._settled.to(masks.device)[:, None, None, None]
        return torch.where(settled, self.masks, masks)
