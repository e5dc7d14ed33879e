"""The packets of a small file, kept to be decoded: it is opened and gone through once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

MOST_BYTES = 2**25  # of a file whose packets are kept


class Packets:
    """Packets of an open file, all of them in their order.

    Args:
        stream: PyAV's, of an open container.
        packets: all of them, the one behind the last included.
        begun: frames that the first ones have given.
        at: how many packets that were.
    """

    def __init__(self, stream: Any, packets: Sequence[Any], begun: Sequence[Any], at: int) -> None:
        self.stream, self.packets = stream, packets
        # No cycle: what decodes must not outlive its file, or end up in a forked process.
        self._begun: Iterator[Any] | None = chain(begun, decoded(packets[at:]))

    def frames(self, key: int | None = None) -> Iterator[Any]:
        """Decode on from the beginning, or from the key frame of a timestamp.

        What was handed out before ends.
        """
        begun, self._begun = self._begun, None
        if key is None and begun is not None:
            return begun
        self.stream.codec_context.flush_buffers()
        return decoded(self.packets[0 if key is None else self._places[key] :])

    @cached_property
    def _places(self) -> dict[int, int]:
        """Where the packet of each key frame is, by its timestamp."""
        keys = [(n, packet) for n, packet in enumerate(self.packets) if packet.is_keyframe]
        return {packet.pts: n for n, packet in reversed(keys)}


def decoded(packets: Sequence[Any]) -> Iterator[Any]:
    """The frames that packets give one after another."""
    for packet in packets:
        yield from packet.decode()
