"""Temporal masks: when is what the answer rests on, found by freezing time?

Mänttäri et al., "Interpreting Video Features: A Comparison of 3D Convolutional Networks and
Convolutional LSTM Networks", ACCV 2020. A mask m of T numbers from 0 to 1 says how much each frame
is held back by the one before it (m_0 does nothing),

    x~_0 = x_0,    x~_u = (1 - m_u) x_u + m_u x~_{u-1},

so that 1 throughout freezes the clip at its first frame. The shortest and smoothest mask that takes
the score away is found by Adam on m = sigmoid(theta),

    0.01 sum_u m_u + 0.02 sum_u |m_u - m_{u-1}|^3 + f(x~),

inner differences counted twice, as in the published code; f is the probability of the class.
Columns that are not classes are counted from the frozen clip's and in units of how far the clip's
own is from it. It starts at +5 for the fewest middle frames whose freezing keeps 90% of what
freezing all takes away, and at -5 elsewhere.

The same mask then reverses: within each run of frames with m > 0.1 frames change places with those
that mirror them, as much as the first of the two is masked. A network that does not care for the
order answers as before. Only time is explained: all pixels of a frame have the same heat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.fields import Count, Positive, ZeroOrMore
from lightning_cam.attribution.method import Cost
from lightning_cam.attribution.perturbation import PerturbationAttribution, answers
from lightning_cam.attribution.tensors import NoGradientError, at_least_float32, gradients
from lightning_cam.progress import progress

_LOW = 0.1  # of a frame that is reversed
_KEPT = 0.9  # of the fall, at the start


@dataclass(frozen=True)
class TemporalMask(PerturbationAttribution):
    """The shortest smooth run of frames that the score does not survive without change.

    Adds to `Explanation.numbers`, each `(B,)`: "score_freeze" and "score_reverse", the score with
    the mask frozen and reversed, beside "score", that of the clip; and "frames", the mask's sum.

    Costs a forward and a backward to the input an iteration, and T/2 + 3 forwards.

    Args:
        iterations: of Adam.
        lr: its rate.
        length: weight of the mask's sum.
        roughness: weight of the cubes of its differences.
        batch: rows that go through the network together; None: as many as fill the device.
        bf16: run the network under bfloat16 autocast.

    Example:
        >>> e = explain(model, TemporalMask(), clip)
        >>> e.numbers["score_freeze"], e.numbers["score_reverse"]
    """

    title = "Temporal mask"
    finds = ("score", "score_freeze", "score_reverse", "frames")

    iterations: Count = 300
    lr: Positive = 0.2
    length: ZeroOrMore = 0.01
    roughness: ZeroOrMore = 0.02
    batch: Count | None = None
    bf16: bool = False

    def cost(self, model: Explainable, clip: Tensor) -> Cost:
        return Cost(1 + _windows(clip.shape[2]) + self.iterations + 2, self.iterations)

    def grain(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        return size[0], 1, 1

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor) -> Tensor:
        outputs = self.first(model, clip).outputs
        whole = model.score(answers(model, outputs), target)
        valid = model.valid_for(clip)
        if valid is None:
            valid = torch.ones(len(clip), clip.shape[2], dtype=torch.bool, device=clip.device)
        start, unit = self._start(model, clip, target, whole, valid)
        mask = self._descend(model, clip, target, start, unit, valid)
        rows = [freeze(clip, mask), reverse(clip, mask)]
        scores = self._scores(model, clip, target, rows)
        model.numbers.update(score=whole, score_freeze=scores[0], score_reverse=scores[1])
        model.numbers["frames"] = mask.sum(1)
        model.notes.update(iterations=f"{self.iterations} iterations", mask="frozen")
        return mask[..., None, None].expand(-1, -1, *clip.shape[3:]).clone()

    def _scores(
        self, model: Explainable, clip: Tensor, target: Tensor, rows: list[Tensor]
    ) -> Tensor:
        """Scores `(n, B)` of n changed batches."""

        def fill(into: Tensor, first: int) -> None:
            for row, shown in zip(into, rows[first : first + len(into)], strict=True):
                row.copy_(shown)

        found = self.runner(model, clip)(len(rows), fill)
        scores = model.score(answers(model, found.flatten(0, 1)), target.repeat(len(rows)))
        return scores.unflatten(0, (len(rows), -1))

    def _start(
        self, model: Explainable, clip: Tensor, target: Tensor, whole: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The mask of 0 and 1 to start from, `(B, T)`, and the unit of the score, `(B,)`."""
        steps = valid.sum(1, keepdim=True)
        place, last = torch.arange(clip.shape[2], device=clip.device), steps - 1
        masks = [
            ((place >= cut) & (place <= last - cut)).float()
            for cut in range(_windows(clip.shape[2]))
        ]
        scores = self._scores(model, clip, target, [freeze(clip, m) for m in masks])
        falls = whole - scores  # (n, B)
        best = masks[0].clone()
        going = torch.ones(len(clip), dtype=torch.bool, device=clip.device)
        for mask, fall in zip(masks, falls, strict=True):
            going &= (fall >= _KEPT * falls[0]) & (mask.sum(1) > 0)
            best = torch.where(going[:, None], mask, best)
        unit = falls[0].abs() if model.probability is None else torch.ones_like(whole)
        return best, torch.where(unit > 0, unit, 1)

    def _descend(
        self,
        model: Explainable,
        clip: Tensor,
        target: Tensor,
        start: Tensor,
        unit: Tensor,
        valid: Tensor,
    ) -> Tensor:
        theta = at_least_float32(clip.new_zeros(start.shape)) + 10 * start - 5
        moments = torch.zeros(2, *theta.shape, dtype=theta.dtype, device=theta.device)
        with progress(self.title, self.iterations) as advance:
            for n in range(1, self.iterations + 1):
                theta = theta.detach().requires_grad_()
                mask = theta.sigmoid() * valid
                with torch.autocast(clip.device.type, torch.bfloat16, enabled=self.bf16):
                    outputs = model.forward(freeze(clip, mask))
                outputs = at_least_float32(outputs)
                shown = model.score(model.probabilities(outputs), target) / unit
                if clip.shape[2] > 1 and not shown.requires_grad:
                    raise NoGradientError
                steps = (mask[:, 1:] - mask[:, :-1]).abs() * (valid[:, 1:] & valid[:, :-1])
                cubes = 2 * steps.pow(3).sum(1) - steps[:, :1].pow(3).sum(1)
                cubes = cubes - _last_of(steps, valid).pow(3)
                loss = shown + self.length * mask.sum(1) + self.roughness * cubes
                [slope] = gradients(loss, [theta])
                moments[0].mul_(0.9).add_(slope, alpha=0.1)
                moments[1].mul_(0.999).addcmul_(slope, slope, value=0.001)
                mean, square = moments[0] / (1 - 0.9**n), moments[1] / (1 - 0.999**n)
                theta = (theta.detach() - self.lr * mean / (square.sqrt() + 1e-8)).nan_to_num(0)
                advance(1)
        return theta.sigmoid() * valid


def freeze(clip: Tensor, mask: Tensor) -> Tensor:
    """The clip `(B, C, T, H, W)`, frames held back as masks `(B, T)` say; the first never is."""
    held = mask.to(clip.dtype)[:, None, :, None, None]
    frames = [clip[:, :, 0]]
    for u in range(1, clip.shape[2]):
        frames.append((1 - held[:, :, u]) * clip[:, :, u] + held[:, :, u] * frames[-1])
    return torch.stack(frames, 2)


def reverse(clip: Tensor, mask: Tensor) -> Tensor:
    """The clip with every run of frames whose mask is above 0.1 mirrored in time.

    A frame and its mirror change places by as much as the earlier one is masked.
    """
    turned = clip.clone()
    for b, values in enumerate(mask.tolist()):
        for high, group in groupby(enumerate(values), lambda item: item[1] > _LOW):
            run = [u for u, _ in group] if high else []
            for u, mirror in zip(run[: len(run) // 2], reversed(run), strict=False):
                early, late = clip[b, :, u], clip[b, :, mirror]
                turned[b, :, u] = (1 - values[u]) * early + values[u] * late
                turned[b, :, mirror] = (1 - values[u]) * late + values[u] * early
    return turned


def _last_of(steps: Tensor, valid: Tensor) -> Tensor:
    """The last difference `(B,)` between valid frames, of differences `(B, T-1)`; 0 of none."""
    if not steps.shape[1]:
        return steps.sum(1)
    at = (valid.sum(1, keepdim=True) - 2).clamp(min=0)
    return steps.gather(1, at)[:, 0]


def _windows(frames: int) -> int:
    """How many symmetric cuts of a run of frames leave one at least."""
    return math.ceil(frames / 2)
