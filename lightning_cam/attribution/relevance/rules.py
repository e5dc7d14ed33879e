"""How what reaches a sum is shared among its terms: one rule for averages, blocks and gates.

A term with the value v has a part in the sum s of

- `signed` (LRP): v / s, so that terms of the other sign get a part below 0;
- else (excitation backprop): what it adds in the direction of s, max(v, 0) / sum of these where s
  is above 0, and the same of -v where it is below. The parts are never below 0 and sum to 1; terms
  that are all 0 get equal parts.

A rule gives a tensor whose *gradient* is the rule; what its value is does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

Linear = Callable[[Tensor], Tensor]
_EPSILON = 1e-6  # of divisions by a sum of terms of both signs, as zennit has it


class Term(NamedTuple):
    """An activation.

    Attributes:
        value: without a graph.
        ruled: of the same shape, whose gradient to what is below it is the rules'.
    """

    value: Tensor
    ruled: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Term:
        return cls(x.detach(), x)


class Rules(NamedTuple):
    """A method's rules.

    Attributes:
        title: the method, in messages.
        signed: how sums are shared, see the top of this file.
        layer: the rule of a layer with weights, by its module, its input and whether that is the
            clip: an object of zennit's.
    """

    title: str
    signed: bool
    layer: Callable[[nn.Module, Tensor, bool], object]


def added(signed: bool, total: Tensor, terms: Sequence[Term]) -> Tensor:
    """The rule of a sum of terms that have its shape, or can be broadcast to it."""
    terms = [Term(t.value.expand_as(total), t.ruled.expand_as(total)) for t in terms]
    total = total.detach()
    if signed:
        return sum_of([t.value / _apart_from_0(total) * t.ruled for t in terms])
    side = torch.where(total < 0, -1, 1).to(total)
    weights = [(side * t.value).clamp(min=0) + _tiny(total) for t in terms]
    whole = sum_of(weights)
    return sum_of([w / whole * t.ruled for w, t in zip(weights, terms, strict=True)])


class Part(NamedTuple):
    """A linear function of a term, within a sum.

    Attributes:
        term: what it is a function of.
        plus: the function, of its weights above 0 alone.
        minus: the function, of the size of its weights below 0; None: there are none.
    """

    term: Term
    plus: Linear
    minus: Linear | None = None


def linear(signed: bool, total: Tensor, parts: Sequence[Part]) -> Tensor:
    """The rule of a sum of linear functions."""
    total = total.detach()
    if signed:
        found = []
        for (value, ruled), plus, minus in parts:
            weighed = value.clone() * ruled  # the network may go on to change it in place
            found += [plus(weighed)] + ([-minus(weighed)] if minus else [])
        return sum_of(found) / _apart_from_0(total)
    up, down = [], []  # (weights, what they weigh) in both directions
    for (value, ruled), plus, minus in parts:
        more, less = (v.clamp(min=0) + _tiny(v) for v in (value, -value))
        up.append((plus(more), plus(more * ruled)))
        down.append((plus(less), plus(less * ruled)))
        if minus:
            up.append((minus(less), minus(less * ruled)))
            down.append((minus(more), minus(more * ruled)))
    sides = [sum_of([x for _, x in side]) / not_0(sum_of([w for w, _ in side]))
             for side in (up, down)]  # fmt: skip
    return torch.where(total < 0, sides[1], sides[0])


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of at least one tensor."""
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


def _tiny(x: Tensor) -> float:
    return max(1e-20, torch.finfo(x.dtype).tiny)


def not_0(x: Tensor) -> Tensor:
    """What to divide by where nothing is to be shared: 0 / 0 is 0."""
    return torch.where(x == 0, 1, x)


def _apart_from_0(x: Tensor) -> Tensor:
    return x + _EPSILON * torch.where(x < 0, -1, 1)
