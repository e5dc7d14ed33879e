"""Which calls of a layer make up its map, where one forward runs it several times.

Two things tell: which frames each call has seen, and which call is computed from which.

- A call that is computed from others and has seen no frame that they have not (a ReLU shared in a
  block, a block run n times in depth) stands in their place: the last one counts.
- Any other call stands for the frames that are new to it: a piece or a window of the clip; where
  each call has seen all that came before (a recurrent cell, a running state), its newest frame;
  behind layers that mix frames in time, the frames in its middle.
- Calls that stand for the same frames (siamese trunks, a clip and its mirror image) are summed:
  their channels lie side by side, so that each has weights of its own.
- Maps of pieces are joined in time. Where windows overlap, lengths differ or frames are left out,
  each map is placed on its own frames, and the mean is taken where several lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cam.attribution.tensors import at_least_float32

Frames = frozenset[int]


@dataclass(frozen=True)
class Runs:
    """The calls that make up a layer's map.

    Attributes:
        count: how often one forward runs the layer.
        groups: numbers of the calls that count, in the order of time; those of a group are summed.
        frames: of each group, the frames that it stands for, in order.
        length: T, frames of the clip.
        steps: t of each group's map; () before maps are known.
        told: whether it could be told what each call has seen.
        mirrored: of each of the `kept` calls, the axes of `(B, D, t, h, w)` along which it has seen
            the clip the other way round; () if none has.
        cropped: whether some of the calls that are summed have seen a part of the image alone.
    """

    count: int
    groups: tuple[tuple[int, ...], ...]
    frames: tuple[tuple[int, ...], ...]
    length: int
    steps: tuple[int, ...] = ()
    told: bool = True
    mirrored: tuple[tuple[int, ...], ...] = ()
    cropped: bool = False

    @classmethod
    def last(cls, count: int, length: int) -> Runs:
        """The last call alone, where nothing can be told of the others."""
        return cls(count, ((count - 1,),), (tuple(range(length)),), length, told=False)

    @classmethod
    def of(cls, seen: Sequence[Frames], direct: Sequence[Frames], length: int) -> Runs:
        """The rule.

        Args:
            seen: of each call, the frames it has seen.
            direct: of each call, those that it is computed from without another one between.
            length: T.
        """
        own, standing = _own(seen, direct, length)
        if any(seen):
            standing = [k for k in standing if own[k]]  # what saw no frame says nothing about any
        groups: dict[Frames, list[int]] = {}
        for k, each in zip(standing, _stand_for([own[k] for k in standing], length), strict=True):
            groups.setdefault(each or frozenset(range(length)), []).append(k)
        ordered = sorted(groups, key=lambda each: (min(each), max(each)))
        frames = [tuple(sorted(each)) for each in ordered]
        if len(frozenset[int]().union(*ordered)) < sum(map(len, ordered)):
            # Where they overlap, one that leaves frames out, as a slow view does, stands for all.
            frames = [tuple(range(min(each), max(each) + 1)) for each in ordered]
        return cls(len(seen), tuple(tuple(groups[each]) for each in ordered), tuple(frames), length)

    @classmethod
    def of_mixed(cls, middle: Sequence[float], direct: Sequence[Frames], length: int) -> Runs:
        """The rule where each call has seen the whole clip: behind layers that mix all frames.

        Args:
            middle: of each call, the mean number of the frames that it has seen, each counted by
                how much it changes the call. Calls that follow time go from one end to the other.
            direct: as in `of`.
            length: T.
        """
        runs = cls.of([frozenset(range(length))] * len(middle), direct, length)
        a_frame = max(1, len(middle) // length)
        calls = range(len(middle))
        steps = runs.kept if len(runs.kept) > 1 else list(calls)[a_frame - 1 :: a_frame]
        ways = {middle[a] < middle[b] for a, b in pairwise(steps)}
        if len(ways) != 1 or len(steps) > length:
            return runs
        steps = steps if True in ways else steps[::-1]
        pieces = [tuple(sorted(piece)) for piece in _pieces(len(steps), length)]
        return cls(len(middle), tuple((k,) for k in steps), tuple(pieces), length)

    @property
    def kept(self) -> list[int]:
        """The numbers of the calls that count, one group after another."""
        return [k for group in self.groups for k in group]

    def with_maps(self, maps: Sequence[Tensor]) -> Runs | None:
        """The same with the `steps` of maps `(B, D, t, h, w)`; None: they do not fit together."""
        parts = self._grouped(maps)
        if any(len({part.shape[2:] for part in group}) > 1 for group in parts):
            return None
        sizes = {
            (sum(p.shape[1] for p in group), *group[0].shape[3:]) for group in parts
        }  # D, h, w
        steps = tuple(group[0].shape[2] for group in parts)
        return replace(self, steps=steps) if len(sizes) == 1 else None

    def joined(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps `(B, D, t, h, w)` of the `kept` calls as one: groups in time, calls by channels."""
        if self.mirrored:
            maps = [m.flip(axes) for m, axes in zip(maps, self.mirrored, strict=True)]
        return torch.cat([torch.cat(group, 1) for group in self._grouped(maps)], 2)

    def _grouped(self, maps: Sequence[Tensor]) -> list[list[Tensor]]:
        ends = accumulate(map(len, self.groups), initial=0)
        return [list(maps[a:b]) for a, b in pairwise(ends)]

    @property
    def in_order(self) -> bool:
        """Whether joined maps are in time as they are: one, or pieces alike that make the clip."""
        if len(self.groups) == 1:
            return True
        whole = [i for frames in self.frames for i in frames] == list(range(self.length))
        steps = zip(self.steps, self.frames, strict=True)
        return whole and len({t / len(frames) for t, frames in steps}) == 1

    def on_frames(self, maps: Tensor) -> Tensor:
        """Joined maps `(..., t, h, w)` in time: as they are, or one a frame, `(..., T, h, w)`."""
        if self.in_order:
            return maps
        *more, _, h, w = maps.shape
        placed = maps.new_zeros(*more, self.length, h, w)
        for part, frames in zip(maps.split(self.steps, -3), self.frames, strict=True):
            rows = at_least_float32(part).movedim(-3, -1).reshape(1, -1, part.shape[-3])
            rows = F.interpolate(rows, size=len(frames), mode="linear", align_corners=False)
            rows = rows.view(*more, h, w, len(frames)).movedim(-1, -3).to(maps)
            placed[..., list(frames), :, :] += rows
        seen = [sum(frame in frames for frames in self.frames) for frame in range(self.length)]
        return placed / maps.new_tensor(seen).clamp(min=1).view(-1, 1, 1)

    def valid(self, valid: Tensor) -> Tensor:
        """Which steps of joined maps hold a valid frame, `(B, t)`, of frames `(B, T)`."""
        if self.in_order:
            return valid
        shares = [
            F.adaptive_avg_pool1d(valid[:, list(frames)].float(), t)
            for t, frames in zip(self.steps, self.frames, strict=True)
        ]
        return torch.cat(shares, 1) > 0

    @property
    def text(self) -> str:
        """What is explained of the calls, in words."""
        if not self.told:
            return f"last of {self.count} runs, which frames each has seen cannot be told"
        said, most = [], max(map(len, self.groups))
        if len(self.groups) > 1:
            said.append(self._parts())
        if most > 1:
            back = sum(map(bool, self.mirrored)) // len(self.groups)
            said.append(f"{most} runs on the same frames summed")
            said += [f"{back} of them mirrored back"] if back else []
            said += ["not all of the whole image"] if self.cropped else []
        depth = self.count // len(self.kept)
        if depth > 1:
            each = " each" if len(self.kept) > 1 else ""
            said.append(f"last of {depth} runs in depth{each}")
        return ", ".join(said)

    def _parts(self) -> str:
        low, *_, high = sorted(map(len, self.frames))
        length = f"{low} to {high} frames" if low < high else _frames(low)
        seen = [i for frames in self.frames for i in frames]
        overlaps, unseen = len(seen) > len(set(seen)), self.length - len(set(seen))
        kind = "windows" if overlaps else "pieces"
        single = not overlaps and low == high == 1
        said = f"{len(self.groups)} " + ("single frames" if single else f"{kind} of {length}")
        said += ", overlaps averaged" if overlaps else ""
        return said + (f", {_frames(unseen)} seen by none" if unseen else "")


def _frames(count: int) -> str:
    return f"{count} frame{'s' * (count > 1)}"


def _own(
    seen: Sequence[Frames], direct: Sequence[Frames], length: int
) -> tuple[list[Frames], list[int]]:
    """The frames that each call stands for, and the calls in whose place none stands."""
    own: list[Frames] = []
    below: list[Frames] = []  # all that each is computed from
    replaced: set[int] = set()
    for k, near in enumerate(direct):
        below.append(near.union(*(below[j] for j in near)))
        new = seen[k].difference(*(seen[j] for j in below[k]))
        if near and not new:
            nearest = {j for j in near if not any(j in below[i] for i in near)}
            replaced |= nearest
            new = frozenset[int]().union(*(own[j] for j in nearest))
        own.append(new)
    for chain in _chains(direct):
        left = [k for k in chain if k not in replaced]
        a_frame = max(1, len(chain) // length)
        steps = chain[a_frame - 1 :: a_frame]
        # A memory behind a convolution in time sees ahead, so that its last steps add no frames.
        uneven = len({len(own[k]) for k in left}) > 1
        if uneven and (centred := _centred([seen[k] for k in steps], length)):
            replaced = (replaced | set(chain)) - set(steps)
            for k, frames in zip(steps, centred, strict=True):
                own[k] = frames
    return own, [k for k in range(len(seen)) if k not in replaced]


def _chains(direct: Sequence[Frames]) -> list[list[int]]:
    """The calls in parts of which none is computed from calls of another."""
    chains: list[list[int]] = []
    for k, near in enumerate(direct):
        joined = [chain for chain in chains if near & set(chain)]
        chains = [chain for chain in chains if chain not in joined]
        chains.append(sorted([*(j for chain in joined for j in chain), k]))
    return chains


def _stand_for(own: Sequence[Frames], length: int) -> Sequence[Frames]:
    """The same sets; of runs that follow time, the frames that each adds to the map.

    Forwards, backwards, or both one after the other.
    """
    half = len(own) // 2
    for parts in ([own], [own[:half], own[half:]]):
        found = [_grown(part) or _centred(part, length) for part in parts]
        if all(found):
            return [frames for each in found for frames in each or ()]
    return own


def _grown(part: Sequence[Frames]) -> Sequence[Frames] | None:
    """The frames new to each, where each has seen what came before; None: that is not so."""
    new = [frames.difference(*part[:k]) for k, frames in enumerate(part)]
    nested = sum(a < b for a, b in pairwise(part))
    # A memory that fades leaves old frames out in the end: half of the sets have to grow.
    return new if 2 * nested >= len(part) - 1 > 0 and all(new) else None


def _centred(part: Sequence[Frames], length: int) -> Sequence[Frames] | None:
    """Equal pieces of the clip, where each has seen its own and some around it, as behind a
    convolution in time; None: that is not so.

    Windows that were cut out of the clip are alike; those around a step end where the clip does.
    """
    alike = len({len(frames) for frames in part}) == 1
    same = len(set(part)) < 2
    if same or length % len(part) or (alike and len(part) < length):
        return None
    pieces = _pieces(len(part), length)
    for ordered in (pieces, pieces[::-1]):
        if all(piece <= frames for piece, frames in zip(ordered, part, strict=True)):
            return ordered
    return None


def _pieces(count: int, length: int) -> list[Frames]:
    """The clip in pieces as equal as can be."""
    ends = [round(k * length / count) for k in range(count + 1)]
    return [frozenset(range(a, b)) for a, b in pairwise(ends)]
