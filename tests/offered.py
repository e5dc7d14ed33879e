"""What an object offers, as every version of Python sees it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from lightning_cam.interfaces import checks


def offered(thing: object, protocols: Sequence[type]) -> list[str]:
    """The protocols an object fulfils.

    Up to Python 3.11 `isinstance` asks for attributes as a program does, and from 3.12 on without
    `__getattr__`, through which an `nn.Module` has its parts: both must find the same.
    """
    found = [protocol for protocol in protocols if isinstance(thing, protocol)]
    nothing = object()
    for protocol in protocols:
        names = checks.members((protocol,))
        static = all(inspect.getattr_static(thing, n, nothing) is not nothing for n in names)
        assert static == (protocol in found), protocol
    return [protocol.__name__ for protocol in found]
