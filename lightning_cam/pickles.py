"""What a pickle would make, followed without making it.

A pickle is a program, and a few bytes of it can cost gigabytes or years. A set of a tensor makes an
object of each of its numbers. A key of a dictionary is hashed, and a tuple twice in a tuple, twice
in a tuple, ... takes twice as long at each level, in which nothing can interrupt Python.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

_HASHED = 10_000_000  # values that hashing all tuples may visit
_DEEP = 100  # tuples within each other
_MARK = "mark"
_HASHABLE = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE", "FROZENSET")
_CALLS = ("REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "BUILD")
_PLAIN = {  # what takes nothing and leaves a value, and its kind
    op.name: op.stack_after[0].name
    for op in pickletools.opcodes
    if not op.stack_before and op.stack_after and op.name not in ("EMPTY_TUPLE", "GLOBAL")
    and not op.name.endswith(("GET", "PERSID"))
}  # fmt: skip
_FILLED = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS")  # what was there


class Part(NamedTuple):
    """What a step of a pickle leaves behind.

    Attributes:
        kind: "tuple", "name" (of a class or function), "call", "stored" (outside of the pickle), or
            what `pickletools` calls it: "int", "str", "list", "dict", "any", ...
        value: of a number or text; of a name "MODULE NAME".
        parts: of a tuple; of a call what is called, or the object that is changed, and with what;
            of what is stored its id.
        size: how many values hashing it visits.
        depth: how many tuples in each other.
    """

    kind: str
    value: Any = None
    parts: tuple[Part, ...] = ()
    size: int = 1
    depth: int = 0


def follow(data: bytes | IO[bytes]) -> Iterator[Part]:
    """What each step of a pickle leaves behind; nothing is imported, called or built.

    Args:
        data: begins with a pickle, and is read to its end.

    Raises:
        ValueError: it is not one, or its tuples would take too long to hash.
    """
    stack: list[Part] = []
    memo: dict[int, Part] = {}
    hashed = 0
    try:
        for step, (operation, argument, _) in enumerate(pickletools.genops(data)):
            name = operation.name
            if name in _PLAIN:
                stack.append(left := Part(_PLAIN[name], argument))
                yield left
                continue
            if name == "MEMOIZE" or name.endswith("PUT"):
                if int(argument or 0) > step:  # Python makes room for as many
                    raise ValueError(f"its part {step} has the number {argument}")
                left = memo[len(memo) if argument is None else int(argument)] = stack[-1]
            elif name == "DUP" or name.endswith("GET"):
                left = stack[-1] if argument is None else memo[int(argument)]
                stack.append(left)
                hashed += left.size
            else:
                left = _left(operation, argument, _taken(operation, stack))
                stack += [left] * len(operation.stack_after)
                hashed += left.size if left.parts else 0
            if hashed > _HASHED or left.depth > _DEEP:
                raise ValueError("its tuples lie in each other again and again")
            yield left
    except (
        IndexError,
        KeyError,
        StopIteration,
        TypeError,
    ) as error:  # of an empty stack, or what nobody put
        raise ValueError("it is damaged") from error


def _taken(operation: pickletools.OpcodeInfo, stack: list[Part]) -> list[Part]:
    """What an operation takes from the stack, the lowest first, without marks."""
    wanted = operation.stack_before
    if pickletools.stackslice not in wanted:
        at = len(stack) - len(wanted)
    else:
        at = next(n for n in range(len(stack) - 1, -1, -1) if stack[n].kind == _MARK)
        at -= wanted.index(pickletools.markobject)
    if at < 0:
        raise IndexError("the stack is empty")
    taken = stack[at:]
    del stack[at:]
    return [part for part in taken if part.kind != _MARK]


def _left(operation: pickletools.OpcodeInfo, argument: Any, taken: list[Part]) -> Part:
    """What an operation makes of what it takes."""
    name, parts = operation.name, tuple(taken)
    size, depth = 1 + sum(part.size for part in taken), max((p.depth for p in taken), default=0)
    if name in _HASHABLE:
        return Part("tuple", None, parts, size, depth + 1)
    if name in _FILLED:
        return taken[0]
    if name.endswith("PERSID"):
        return Part("stored", argument, parts, size, depth)
    if name in ("OBJ", "INST"):  # their arguments are in no tuple
        called, *given = [Part("name", argument), *taken] if name == "INST" else taken
        parts = (called, Part("tuple", None, tuple(given), size, depth + 1))
    if name in _CALLS:
        return Part("call", None, parts, size, depth + 1)
    if name in ("GLOBAL", "STACK_GLOBAL"):
        return Part("name", argument or " ".join(str(part.value) for part in taken))
    return Part(operation.stack_after[0].name, argument) if operation.stack_after else Part("none")
