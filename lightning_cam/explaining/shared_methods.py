"""Methods of one clip, shared by several ranks: the maps go to the rank that draws the clip."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from lightning_cam.attribution import Attribution, Contrast, Explainable, Explanation
from lightning_cam.explaining.clip_explanations import OnError
from lightning_cam.explaining.fixed_clips import Turn
from lightning_cam.interfaces import Batch
from lightning_cam.training.meeting import Meeting


@dataclass(frozen=True)
class ClipMaps:
    """A clip, and what methods have made of it.

    Attributes:
        model: bound to the clip.
        batch: the clip, a batch of one.
        maps: method -> its explanation.
    """

    model: Explainable
    batch: Batch
    maps: Mapping[str, Explanation]


def with_others(
    meeting: Meeting,
    rank: int,
    turn: Turn | None,
    own: ClipMaps | None,
    methods: Mapping[str, Attribution],
    on_error: OnError,
) -> ClipMaps | None:
    """Give other ranks what was made for them, and take what they have made.

    Args:
        meeting: all ranks come there together.
        rank: of this process.
        turn: its clip.
        own: what it has made of it; None: nothing.
        methods: of a clip, in their order.
        on_error: is told which method's map cannot travel, or is of another column: the networks
            of ranks have the same weights, but may have normalised by other clips, and predict
            another class.
    """
    home = None if turn is None else turn.home
    packed: dict[str, bytes] = {}
    for name, e in own.maps.items() if own is not None and home is not None else ():
        try:
            packed[name] = pickle.dumps(_packed(e))
        except Exception as error:  # with notes of a user's method, for example
            on_error(name, error)
    given = meeting.share((home, packed))  # nothing that may fail on one rank alone
    if own is None or home is not None:
        return own
    found = dict(own.maps)
    for whose, others in given:
        for name, data in others.items() if whose == rank else ():
            found[name] = _unpacked(pickle.loads(data), methods[name], own)
    targets = [e.target for e in found.values()]
    for name in [name for name, e in found.items() if not e.target.equal(targets[0])]:
        del found[name]
        on_error(name, RuntimeError("the process that made its map predicts another class"))
    return replace(own, maps={name: found[name] for name in methods if name in found})


def _packed(e: Explanation) -> dict[str, Any]:
    """The fields of an explanation, without what the other rank has: the method and the clip."""
    shown = e.shown and replace(e.shown, clip=torch.empty(0), valid=None, to_frames=None)
    fields = {**vars(_moved(e, torch.device("cpu"))), "shown": shown}
    del fields["method"]  # not every one can be pickled
    if isinstance(e, Contrast):
        fields["against"] = _packed(e.against)
    return fields


def _unpacked(fields: Mapping[str, Any], method: Attribution, at: ClipMaps) -> Explanation:
    """The explanation of packed fields, with the method and the clip of here."""
    clip, model, shown = at.batch["video"], at.model, fields["shown"]
    if shown is not None:
        shown = replace(shown, clip=clip, valid=model.valid, to_frames=model.to_frames)
    given = {**fields, "method": method, "shown": shown}
    if "against" in fields:
        given["against"] = _unpacked(fields["against"], method, at)
        return _moved(Contrast(**given), clip.device)
    return _moved(Explanation(**given), clip.device)


def _moved(e: Explanation, device: torch.device) -> Explanation:
    """With its own tensors on a device."""
    return replace(
        e,
        heatmap=e.heatmap.to(device),
        target=e.target.to(device),
        outputs=e.outputs.to(device),
        attention={name: weights.to(device) for name, weights in e.attention.items()},
        numbers={name: number.to(device) for name, number in e.numbers.items()},
        level=None if e.level is None else e.level.to(device),
    )
