"""The columns of an output matrix: their names, the heads they belong to, their probabilities."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn

from lightning_cam.errors import ArgumentError, UnknownNameError, UserError

Probability = Literal["softmax", "sigmoid"]


class Head(NamedTuple):
    """One of the tensors that a network returns.

    Attributes:
        size: how many columns it has.
        probability: what makes probabilities of them; None: they are no classes.
    """

    size: int
    probability: Probability | None


class Columns(NamedTuple):
    """What the columns of outputs `(B, K)` are called, and what makes probabilities of them."""

    names: tuple[str, ...]
    heads: tuple[Head, ...]

    def name(self, column: int) -> str:
        """Name of a column, its number where it has none."""
        return self.names[column] if self.names else f"output {column}"

    def kinds(self) -> list[Probability | None]:
        """What makes probabilities of each column."""
        return [head.probability for head in self.heads for _ in range(head.size)]

    def classes(self, outputs: Tensor) -> dict[int, float]:
        """The probability of each column of one clip's outputs `(1, K)` that is a class."""
        values = probabilities(outputs, self.heads)[0].tolist()
        return {k: values[k] for k, kind in enumerate(self.kinds()) if kind is not None}


_NO_LIST = (str, bytes, bytearray, memoryview)  # sequences that list no columns


def names_of(key: str, given: object) -> tuple[str, ...]:
    """Names in an order, from what was given as `key`."""
    if isinstance(given, str):
        raise ArgumentError(f"{key} is the text {given!r}; names come as a list: [{given!r}]")
    if not isinstance(given, Iterable) or isinstance(given, Set | nn.Module):
        raise ArgumentError(
            f"{key} is of type {type(given).__name__}; names come as a list, in an order: "
            f"{key}=['NAME']"
        )
    names = tuple(given)
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise ArgumentError(f"{key} has one of type {type(name).__name__}; a name is text")
    return tuple(map(str, names))  # settings make a number of a name such as "2"


def columns_named(
    outputs: Sequence[str] | Mapping[str, Sequence[str]] | None,
    probability: Probability | Mapping[str, Probability | None] | None,
) -> tuple[tuple[str, ...], dict[str, Head]]:
    """Names of all columns, "HEAD/NAME" where they are of heads, and the heads.

    Raises:
        ArgumentError: they are not names, a head has none, or no `Probability`.
        UnknownNameError: a probability is of a head that there is not.
    """
    if not isinstance(outputs, Mapping):
        check_probability(probability)
        return names_of("outputs", () if outputs is None else outputs), {}
    made = probability if isinstance(probability, Mapping) else dict.fromkeys(outputs, probability)
    for head, kind in made.items():
        if head not in outputs:
            raise UnknownNameError("head", head, map(str, outputs))
        check_probability(kind)
    heads = {str(head): names_of(f"outputs[{head!r}]", own) for head, own in outputs.items()}
    for head, own in heads.items():
        if not own:
            raise ArgumentError(
                f"outputs names no column of the head {head!r}; name each of its columns"
            )
    names = tuple(f"{head}/{name}" for head, own in heads.items() for name in own)
    kinds = {str(head): kind for head, kind in made.items()}
    return names, {head: Head(len(own), kinds.get(head, "softmax")) for head, own in heads.items()}


def column_named(name: str, outputs: Sequence[str], heads: Mapping[str, Head]) -> int:
    """The column of a name; the head may be left out where no other has the same.

    Raises:
        UnknownNameError: no column has this name.
        UserError: columns have no names, or several have this one.
    """
    if not outputs:
        if called := re.fullmatch(r"output (\d{1,9})", name):  # see `Columns.name`
            return int(called[1])
        raise UserError(
            f"no target {name!r}: the outputs of this model have no names; give the "
            "column's number, or name them: Explainable.of(model, outputs=[...])"
        )
    found = [k for k, other in enumerate(outputs) if other == name]
    if not found:
        of_heads = [name for name, head in heads.items() for _ in range(head.size)]
        found = [k for k, head in enumerate(of_heads) if outputs[k] == f"{head}/{name}"]
    if not found:
        raise UnknownNameError("target", name, outputs)
    if len(found) > 1:
        full = outputs[found[0]] != name
        which = repr(outputs[found[0]]) if full else f"the number of one, such as {found[0]}"
        raise ArgumentError(
            f"target {name!r} names {len(found)} columns; give "
            f"{'one with its head, such as ' if full else ''}{which}"
        )
    return found[0]


def columns_asked(target: Any, rows: Tensor, column: Callable[[Any], int]) -> Tensor:
    """`Explainable.columns`.

    Args:
        target: one column for all clips, or one for each.
        rows: of B clips.
        column: the number of a column given by name or number.
    """
    batch = len(rows)
    given = target.tolist() if isinstance(target, np.ndarray) else target
    if isinstance(given, Tensor):
        columns = given.detach()
    elif isinstance(given, Sequence) and not isinstance(given, _NO_LIST):
        if len(given) != batch:
            raise ArgumentError(
                f"expected a target for each of {batch} clips, got {len(given)}; a number or "
                "a name alone is for all"
            )
        columns = torch.tensor([column(each) for each in given], dtype=torch.int64)
    else:
        columns = torch.full((batch,), column(given), dtype=torch.int64)
    whole = not (columns.dtype == torch.bool or columns.is_floating_point())
    if not whole or columns.is_complex() or tuple(columns.shape) != (batch,):
        raise ArgumentError(
            f"expected target as an integer tensor ({batch},), got {columns.dtype} "
            f"{tuple(columns.shape)}; it holds each clip's column, by number"
        )
    # A clone: index tensors born in inference mode cannot take part in a graph.
    return columns.clone().to(rows.device, torch.int64)


def check_probability(given: object) -> None:
    """Raises ArgumentError unless it is a `Probability` or None."""
    if given is not None and (isinstance(given, Mapping) or given not in get_args(Probability)):
        raise ArgumentError(
            f'probability={given!r} must be "softmax" (one class a clip), "sigmoid" (each column '
            "by itself) or None (columns that are no classes), or one of these for each head that "
            "outputs names: Explainable.of(network, layers, outputs={HEAD: [NAME, ...]})"
        )


def probabilities(outputs: Tensor, heads: Sequence[Head]) -> Tensor:
    """Probabilities `(N, K)` of outputs `(N, K)`, by each head; outputs where they are no classes.

    Raises:
        ArgumentError: one column has a softmax, which is 1 whatever the network says.
    """
    parts = outputs.split([head.size for head in heads], 1)
    made = [_made(part, head) for part, head in zip(parts, heads, strict=True)]
    return made[0] if len(made) == 1 else torch.cat(made, 1)


def _made(outputs: Tensor, head: Head) -> Tensor:
    if head.probability is None:
        return outputs
    if head.probability == "sigmoid":
        return outputs.sigmoid()
    if head.size == 1:
        raise ArgumentError(
            "the softmax of one column is 1 whatever the network says; of the logit of yes or no "
            'take Explainable.of(network, layers, probability="sigmoid"), of a number that is no '
            "class the same with None"
        )
    return outputs.softmax(1)
