"""Rules of recurrent layers: what reaches a state goes to what is kept and to what is new.

Excitation backprop for recurrent networks (EB-R: Bargal et al., "Excitation Backprop for RNNs",
CVPR 2018), and LRP for them (Arras et al., WASSA 2017), unroll the steps. At every step gates are
constants, tanh passes on what it gets, and sums are shared among their terms. So in an LSTM

    c_t = f c_{t-1} + i g,    h_t = o tanh(c_t),    g = tanh(W x_t + U h_{t-1} + b)

what h_t gets goes to c_t, is shared between f c_{t-1} and i g, and what g gets is shared among the
units of x_t and h_{t-1}. A state of a step after the explained one gets exactly 0.

Bargal et al. train cells whose states are not negative. Those of an LSTM are: a unit below 0 is
explained by what pushed it down, see `rules`. For LSTMs as they are that is an approximation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cam.attribution.relevance.rules import Part, Term, added, linear

Weights = Sequence[Tensor]  # of the input and the state, and their biases where there are any
State = tuple[Term, ...]
Step = Callable[[bool, Weights, Term, State], State]


def _lstm(signed: bool, weights: Weights, x: Term, state: State) -> State:
    h, c = state
    i, f, _, o = _gates(weights, x, h, 4)
    z = (_sum_at(weights, x, h, 2, 4), _linear(signed, weights, x, h, 2, 4))
    new = Term(i.sigmoid() * z[0].tanh(), z[1])
    kept = Term(f.sigmoid() * c.value, c.ruled)
    total = kept.value + new.value
    c = Term(total, added(signed, total, [kept, new]))
    return Term(o.sigmoid() * total.tanh(), c.ruled), c


def _gru(signed: bool, weights: Weights, x: Term, state: State) -> State:
    (h,) = state
    r, z, _ = (gate.sigmoid() for gate in _gates(weights, x, h, 3))
    n, ruled = _sum_at(weights, x, h, 2, 3, r), _linear(signed, weights, x, h, 2, 3, r)
    terms = [Term((1 - z) * n.tanh(), ruled), Term(z * h.value, h.ruled)]
    total = terms[0].value + terms[1].value
    return (Term(total, added(signed, total, terms)),)


def _rnn(act: Callable[[Tensor], Tensor]) -> Step:
    def step(signed: bool, weights: Weights, x: Term, state: State) -> State:
        z = _sum_at(weights, x, state[0], 0, 1)
        return (Term(act(z), _linear(signed, weights, x, state[0], 0, 1)),)

    return step


def _gates(weights: Weights, x: Term, h: Term, count: int) -> tuple[Tensor, ...]:
    of_x, of_h, *biases = weights
    z = F.linear(x.value, of_x, *biases[:1]) + F.linear(h.value, of_h, *biases[1:])
    return z.chunk(count, -1)


def _sum_at(
    weights: Weights, x: Term, h: Term, n: int, count: int, times: Tensor | float = 1
) -> Tensor:
    """The sum of gate n, in which what comes of the state is multiplied."""
    of_x, of_h, *biases = (w.chunk(count)[n] for w in weights)
    return F.linear(x.value, of_x, *biases[:1]) + times * F.linear(h.value, of_h, *biases[1:])


def _linear(
    signed: bool,
    weights: Weights,
    x: Term,
    h: Term,
    n: int,
    count: int,
    times: Tensor | float = 1,
) -> Tensor:
    """The rule of that sum."""

    def part(term: Term, weight: Tensor, times: Tensor | float) -> Part:
        up, down = weight.clamp(min=0), (-weight).clamp(min=0)
        return Part(term, lambda v: times * F.linear(v, up), lambda v: times * F.linear(v, down))

    of_x, of_h = (w.chunk(count)[n] for w in weights[:2])
    total = _sum_at(weights, x, h, n, count, times)
    return linear(signed, total, [part(x, of_x, 1), part(h, of_h, times)])


def step_of(module: nn.Module) -> tuple[Step, int] | None:
    """The rule of a step, and how many states it has; None: there is no rule for the layer."""
    if isinstance(module, nn.RNNBase) and module.proj_size:
        return None
    if isinstance(module, nn.LSTM | nn.LSTMCell):
        return _lstm, 2
    if isinstance(module, nn.GRU | nn.GRUCell):
        return _gru, 1
    if isinstance(module, nn.RNN | nn.RNNCell):
        return _rnn(torch.relu if module.nonlinearity == "relu" else torch.tanh), 1
    return None


def of_cell(signed: bool, cell: Any, x: Tensor, given: Any) -> list[Tensor] | None:
    """The rules of a cell's states `(B, H)`; None: of such inputs there are none."""
    found = step_of(cell)
    if found is None or x.ndim != 2:
        return None
    step, count = found
    weights = [w for w in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
               if w is not None]  # fmt: skip
    state = _first(x, given, count, (len(x), cell.hidden_size))
    return [term.ruled for term in step(signed, weights, Term.of(x), state)]


def of_layers(signed: bool, rnn: nn.RNNBase, x: Tensor, given: Any) -> list[Tensor] | None:
    """The rules of all outputs and of the last states, as the module returns them.

    Args:
        signed: see `rules`.
        rnn: an LSTM, a GRU or a plain RNN.
        x: `(B, T, D)` or `(T, B, D)`, as it has it.
        given: the first states, or None.

    Returns:
        As many as the module returns; None: of such inputs there are none.
    """
    found = step_of(rnn)
    if found is None or x.ndim != 3:
        return None
    step, count = found
    steps = [Term.of(at) for at in x.unbind(1 if rnn.batch_first else 0)]
    ways = 2 if rnn.bidirectional else 1
    rows = (rnn.num_layers * ways, len(steps[0].value), rnn.hidden_size)
    given = _first(x, given, count, rows)
    last: list[State] = []
    for layer in range(rnn.num_layers):
        outputs: list[list[Term]] = []
        for way in range(ways):
            n = layer * ways + way
            state = tuple(Term(s.value[n], s.ruled[n]) for s in given)
            done = []
            for at in reversed(steps) if way else steps:
                state = step(signed, rnn.all_weights[n], at, state)
                done.append(state[0])
            outputs.append(done[::-1] if way else done)
            last.append(state)
        steps = [Term(*(torch.cat(parts, -1) for parts in zip(*at, strict=True)))
                 for at in zip(*outputs, strict=True)]  # fmt: skip
    out = torch.stack([at.ruled for at in steps], 1 if rnn.batch_first else 0)
    return [out, *(torch.stack([state[k].ruled for state in last]) for k in range(count))]


def _first(x: Tensor, given: Any, count: int, shape: tuple[int, ...]) -> State:
    """The states that a layer starts from."""
    if given is None:
        return (Term.of(x.new_zeros(shape)),) * count
    return tuple(Term.of(state) for state in (given if count > 1 else (given,)))
