"""When a map is doubtful, and is drawn faint: one rule for all methods.

A method that knows how far its map is off says so by a number of each clip, the share of the map
that is wrong or missing: RISE's estimated error, what integrated gradients fall short of their sum,
by how much a mask misses its area. A map is doubtful where this is more than `LIMIT`, a half: then
what is drawn differs from what it should be by more than half of it, or by a factor above two, and
places in it that differ by as much cannot be told apart. Maps that are not finite, or of a network
whose weights or outputs are not, are always doubtful; so are maps that are the same everywhere, and
maps of outputs that are all the same, of which none can be explained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lightning_cam.attribution.tensors import all_finite, finite_rows

_ROUNDING = 1e-6  # of float32: no evidence
LIMIT = 0.5  # share of a map that may be wrong or missing

_seen: WeakKeyDictionary[nn.Module, tuple[list[tuple[int, int]], tuple[str, ...]]] = (
    WeakKeyDictionary()
)


@dataclass(frozen=True)
class Doubt:
    """By which of its numbers a method doubts its maps.

    Attributes:
        number: its name in `Explanation.numbers`: the share that is wrong or missing, from 0 on;
            True counts as all.
        says: why such a map is not to be trusted, with the names of numbers in braces.
        limit: above which it is too much, where the field has another than `LIMIT`.
    """

    number: str
    says: str
    limit: float = LIMIT


def reasons(
    doubts: Sequence[Doubt],
    numbers: Mapping[str, Tensor],
    finite: Mapping[str, Tensor],
    broken: Sequence[str] = (),
) -> tuple[str, ...]:
    """Why the map of each of B clips is not to be trusted; "" where nothing speaks against it.

    Args:
        doubts: of the method.
        numbers: what it found out of each clip, name -> `(B,)`.
        finite: what has to be finite, by what it is called in the plural, each `(B, ...)`.
        broken: weights that are not finite, see `not_finite`.
    """
    values = {name: value.tolist() for name, value in numbers.items()}
    sound = {name: finite_rows(value).tolist() for name, value in finite.items()}
    found = []
    for row, whole in enumerate(zip(*sound.values(), strict=True)):
        said = [f"the network's weights are not finite ({named(broken)})"] if broken else []
        said += [f"{w} are not finite" for w, good in zip(sound, whole, strict=True) if not good]
        of_clip = {name: value[row] for name, value in values.items()}
        said += [
            doubt.says.format(**of_clip)
            for doubt in doubts
            if doubt.number in of_clip and is_too_much(of_clip[doubt.number], doubt.limit)
        ]
        found.append(said[0] if said else "")
    return tuple(found)


def says_nothing(evidence: Tensor, outputs: Tensor) -> tuple[str, ...]:
    """Why each clip's map has nothing to show, "" where it has.

    Args:
        evidence: `(B, T, H, W)`, see `Explanation.evidence`.
        outputs: `(B, K)`.
    """
    rows = evidence.flatten(1)
    low, high = rows.amin(1), rows.amax(1)  # on a CPU ten times as fast as aminmax
    flat = high - low <= _ROUNDING * torch.maximum(low.abs(), high.abs())
    alike = (outputs == outputs[:, :1]).all(1) & (outputs.shape[1] > 1)
    return tuple(
        "the network's outputs are all the same"
        if same
        else f"the map is {f'{value:.3g}' if value else 'zero'} everywhere"
        if blank
        else ""
        for same, blank, value in zip(alike.tolist(), flat.tolist(), high.tolist(), strict=True)
    )


def is_too_much(share: float, limit: float = LIMIT) -> bool:
    """The rule; a share that is NaN is unknown, and too much."""
    return not share <= limit


def not_finite(module: nn.Module) -> tuple[str, ...]:
    """Names of the weights and buffers with NaN or infinity.

    Looked at again only when they have changed: reading all weights costs about a percent of a
    forward.
    """
    tensors = {
        name: tensor.detach()
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]
        if tensor.is_floating_point() and tensor.numel() and not tensor.is_meta
    }
    state = [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors.values()]
    if module not in _seen or _seen[module][0] != state:
        most = torch.nn.utils.get_total_norm([*tensors.values()], torch.inf)
        broken: tuple[str, ...] = ()
        if not bool(torch.as_tensor(most).isfinite()):
            broken = tuple(n for n, t in tensors.items() if not all_finite(t))
        _seen[module] = state, broken
    return _seen[module][1]


def named(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
