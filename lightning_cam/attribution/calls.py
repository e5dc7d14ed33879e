"""The calls of a layer as one map: what each has seen of the clip is measured, see `runs`.

The network is run on noise, and once more for each frame, whose pixels are shuffled: the calls
whose output changes have seen it. The first and the last frame come first; a layer all of whose
calls have seen both alike has seen the whole clip in each, which is so for most. What was found is
remembered for the layer, the forward and its inputs, the size of the clip and the number of calls,
so that this is paid once, and by layers that run several times alone: 3 forwards, or T + 1. Where
calls are summed, seven more tell whether one has seen a mirror image, or a part of the image.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge, saved_tensors_hooks

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.guard import SCRIPTED, capture
from lightning_cam.attribution.runs import Frames, Runs
from lightning_cam.attribution.tensors import at_least_float32
from lightning_cam.errors import ArgumentError, UserError

_SAME = 1e-5  # of a call's largest number, by which rounding may change it
_APART = 0.1  # by which shares of the change differ that lie in the half that was changed
_MOVES = 0.2  # by which shares of the last frame differ, of calls that follow time

_KEPT = 256  # ways of a layer to run that are remembered
_remembered: WeakKeyDictionary[nn.Module, dict[tuple[Hashable, ...], Runs]] = WeakKeyDictionary()


def told_apart(
    model: Explainable, name: str, calls: list[Tensor], clip: Tensor, runs: Runs | None = None
) -> list[Tensor]:
    """The calls of a layer that make up its map of the clip, as `runs` says.

    `model.runs` has how they do so. What `runs_of` found need not be found once more.

    Raises:
        UserError: the forward did not run the layer, or it returns complex numbers.
        ValueError: the calls are not maps, or of different sizes where these belong together.
    """
    if not calls and isinstance(model.layer(name)[1], torch.jit.ScriptModule):
        raise UserError(SCRIPTED)
    if not calls:
        raise UserError(f"layer {name!r} is not run by the model's forward; choose another")
    if any(call.is_complex() for call in calls):
        raise ArgumentError(
            f"layer {name!r} returns complex numbers, which are neither for nor against a column; "
            "choose a layer of real numbers, such as one in front of the Fourier transform"
        )
    model.runs.pop(name, None)
    if len(calls) == 1:
        return calls
    runs = runs or runs_of(model, clip, {name: len(calls)})[name]
    kept = [calls[k] for k in runs.kept]
    fitting = runs.with_maps([model.folded(call, len(clip), name) for call in kept])
    if fitting is None:
        sizes = " and ".join(map(str, dict.fromkeys(tuple(call.shape) for call in kept)))
        raise ArgumentError(
            f"layer {name!r} runs {len(calls)} times with maps of different sizes, {sizes}, which "
            "cannot be joined; choose a layer that runs once, or take explain=occlusion, which "
            "needs no layer"
        )
    model.runs[name] = fitting
    model.notes.update(runs=fitting.text)
    return kept


def shape_of(model: Explainable, name: str, kept: list[Tensor], clip: Tensor) -> tuple[int, ...]:
    """`(B, D, t, h, w)` of a layer's map, of the calls that make it up."""
    if len(kept) == 1 and joined_by(model, name) is None:  # most layers; nothing is joined
        return tuple(model.folded(kept[0].detach(), len(clip), name).shape)
    empty = [torch.empty_like(call, device="meta") for call in kept]
    return tuple(on_frames(model, in_time(model, empty, len(clip), name), name).shape)


def in_time(
    model: Explainable, calls: list[Tensor], batch: int, layer: str | None = None
) -> Tensor:
    """One `(B, D, t, h, w)` of calls that were `told_apart`; `on_frames` puts it in its place."""
    maps = [at_least_float32(model.folded(call, batch, layer)) for call in calls]
    runs = joined_by(model, layer)
    return torch.cat(maps, dim=2) if runs is None else runs.joined(maps)


def on_frames(model: Explainable, maps: Tensor, layer: str | None) -> Tensor:
    """Maps `(..., t, h, w)` that come of `in_time`, each of whose steps may be of any frames, as
    steps in time: windows of the clip, which may overlap, are placed on their own frames.
    """
    runs = joined_by(model, layer)
    return maps if runs is None else runs.on_frames(maps)


def joined_by(model: Explainable, layer: str | None) -> Runs | None:
    """How the calls of a layer make up its map; None: there is one."""
    return model.runs.get(next(iter(model.layers), "") if layer is None else str(layer))


def runs_of(model: Explainable, clip: Tensor, counts: Mapping[str, int]) -> dict[str, Runs]:
    """Which calls make up the maps of layers.

    Args:
        model: what to look into, in its guard.
        clip: `(B, C, T, H, W)`.
        counts: by layer, how often one forward of the clip runs it.
    """
    known = {name: _remembered.setdefault(model.layer(name)[1], {}) for name in counts}
    valid = model.valid_for(clip)
    padding = () if valid is None or bool(valid.all()) else tuple(valid.flatten().tolist())
    keys = {
        n: (model.way, model.laid_out(n), c, *clip.shape[1:], *padding) for n, c in counts.items()
    }
    todo = {name: count for name, count in counts.items() if keys[name] not in known[name]}
    found: dict[str, _Found] = {}
    for shuffled in (True, False):
        left = {n: c for n, c in todo.items() if n not in found or found[n].seen == "nothing"}
        found |= _measured(model, clip, left, shuffled=shuffled) if left else {}
    for name, each in found.items():
        if each.seen == "all" or padding:  # which is seen by no call, where it is masked
            known[name][keys[name]] = each.runs
    runs = {n: found[n].runs if n in found else known[n][keys[n]] for n in counts}
    for of_layer in known.values():  # inputs of each clip its own must not fill the memory
        while len(of_layer) > _KEPT:
            del of_layer[next(iter(of_layer))]
    return runs


class _Found(NamedTuple):
    """Runs, and which of the calls have seen something; those of all are so of other clips."""

    runs: Runs
    seen: Literal["all", "some", "nothing"]


def _measured(
    model: Explainable, clip: Tensor, counts: Mapping[str, int], *, shuffled: bool
) -> dict[str, _Found]:
    length = clip.shape[2]
    noise, whole = _noise(clip), [frozenset(range(length))]
    plain = _run(model, noise, counts)
    direct = {name: _direct(calls) for name, calls in plain.items()}
    plain = {name: [call.detach() for call in calls] for name, calls in plain.items()}
    moved: dict[str, list[dict[int, float]]] = {n: [{} for _ in plain[n]] for n in counts}
    found = {
        name: _Found(Runs.last(count, length), "some")
        for name, count in counts.items()
        if len(plain[name]) != count
    }
    for number, (frame, changed) in enumerate(_changed(noise, shuffled)):
        if number == 2:
            for name in set(counts) - set(found):
                if all(all(ends.values()) for ends in moved[name]) and _alike(moved[name]):
                    runs = Runs.of(whole * counts[name], direct[name], length)
                    found[name] = _Found(runs, "all")
        if not (todo := set(counts) - set(found)):
            break
        for name, calls in _run(model, changed, todo).items():
            if _shapes(calls) != _shapes(plain[name]):
                found[name] = _Found(Runs.last(counts[name], length), "some")
                continue
            for each, one, other in zip(moved[name], plain[name], calls, strict=True):
                each[frame] = _apart(one, other)
    for name in set(counts) - set(found):
        seen = [frozenset(i for i, change in each.items() if change) for each in moved[name]]
        if seen == whole * counts[name] and not _alike(moved[name]):
            middle = [_middle(each) for each in moved[name]]
            runs = Runs.of_mixed(middle, direct[name], length)
        else:
            runs = Runs.of(seen, direct[name], length)
        found[name] = _Found(runs, "all" if all(seen) else "some" if any(seen) else "nothing")
    for name, (runs, seen_by) in found.items():
        if len(runs.kept) > len(runs.groups) and is_map(model, name, plain[name], noise):
            mirrored = _mirrored(model, noise, name, plain[name], runs.kept)
            cropped = _cropped(model, noise, name, plain[name], runs.kept)
            found[name] = _Found(replace(runs, mirrored=mirrored, cropped=cropped), seen_by)
    return found


def _mirrored(
    model: Explainable, noise: Tensor, name: str, plain: list[Tensor], kept: list[int]
) -> tuple[tuple[int, ...], ...]:
    """Of each call that counts, the axes along which it has seen the clip the other way round: what
    one half of the clip changes lies in the other half of its map, and of another call's does not.
    """
    found: list[list[int]] = [[] for _ in kept]
    for axis in (2, 3, 4):
        size = noise.shape[axis]
        half = (torch.arange(size) < size // 2).to(noise.device).view(-1, *[1] * (4 - axis))
        calls = _run(model, torch.where(half, -noise, noise), [name])[name]
        there = []
        for k in kept:
            change = model.folded((calls[k].detach() - plain[k]).abs(), len(noise), name)
            along = at_least_float32(change).movedim(axis, 0).flatten(1).double().sum(1)
            first, last = along[: len(along) // 2].sum(), along[(len(along) + 1) // 2 :].sum()
            there.append(float(first / (first + last)) if first + last > 0 else 0.5)
        for axes, each in zip(found, there, strict=True):
            if each < 0.5 < max(there) and max(there) > each + _APART:
                axes.append(axis)
    return tuple(map(tuple, found)) if any(found) else ()


def _cropped(
    model: Explainable, noise: Tensor, name: str, plain: list[Tensor], kept: list[int]
) -> bool:
    """Whether one of the calls that count has not seen all four borders of the image."""
    for axis in (3, 4):
        size = noise.shape[axis]
        for border in (slice(0, -(-size // 4)), slice(size * 3 // 4, size)):
            changed = noise.clone()
            changed.movedim(axis, 0)[border] *= -1
            calls = _run(model, changed, [name])[name]
            if not all(_apart(plain[k], calls[k]) for k in kept):
                return True
    return False


def is_map(model: Explainable, name: str, calls: list[Tensor], clip: Tensor) -> bool:
    """Whether a layer returns maps of this batch, rather than weights or tokens."""
    try:
        model.folded(calls[-1], len(clip), name)
    except ValueError:
        return False
    return True


def _alike(changes: Sequence[Mapping[int, float]]) -> bool:
    """Whether all calls have seen as much of the clip's first frame as of its last."""
    late = [each[max(each)] / (each[0] + each[max(each)]) for each in changes]
    return max(late) - min(late) < _MOVES


def _middle(changes: Mapping[int, float]) -> float:
    """The mean number of the frames that a call has seen, by how much each changes it."""
    return sum(i * change for i, change in changes.items()) / sum(changes.values())


def _run(model: Explainable, clip: Tensor, names: Iterable[str]) -> dict[str, list[Tensor]]:
    """What each layer returned, on a graph that starts at its first calls.

    Random numbers are the same in every run, and none are used up. The graph is only looked at:
    what a backward would need is not kept.
    """
    cards = [clip.device] if clip.device.type == "cuda" else []
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(cards))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(saved_tensors_hooks(lambda _: None, lambda nothing: nothing))
        calls = {
            name: stack.enter_context(capture(model.layer(name)[1], leaf=True)) for name in names
        }
        model.forward(clip)
    return calls


def _noise(clip: Tensor) -> Tensor:
    """Noise in place of the clips, as large as what is in them."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(clip.shape, generator=generator).to(clip) * clip.abs().max().clamp(min=0.1)


def _changed(clip: Tensor, shuffled: bool) -> Iterator[tuple[int, Tensor]]:
    """Each frame's number, the outermost first, and the clips with this frame changed.

    Its pixels in another order leave means and variances as they are, by which a network may
    normalise the whole clip; one that sees nothing but means sees them doubled.
    """
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(clip.shape[3] * clip.shape[4], generator=generator).to(clip.device)
    last = clip.shape[2] - 1
    for frame in dict.fromkeys([0, last, *range(1, last)]):
        changed = clip.clone()
        pixels = clip[:, :, frame].flatten(2)
        pixels = pixels[..., order] if shuffled else 2 * pixels
        changed[:, :, frame] = pixels.unflatten(2, clip.shape[3:])
        yield frame, changed


def _direct(calls: list[Tensor]) -> list[Frames]:
    """Of each call, the earlier ones that it is computed from without another one between."""
    edges = map(get_gradient_edge, calls)
    made = {(edge.node, edge.output_nr): k for k, edge in enumerate(edges)}
    found = []
    for k, call in enumerate(calls):
        below: set[int] = set()
        todo = [] if call.grad_fn is None else list(call.grad_fn.next_functions)
        gone = set()
        while todo:
            node, number = edge = todo.pop()
            if node is None or edge in gone:
                continue
            gone.add(edge)
            if (made_by := made.get((node, number), k)) < k:
                below.add(made_by)
            else:
                todo += node.next_functions
        found.append(frozenset(below))
    return found


def _shapes(calls: list[Tensor]) -> list[torch.Size]:
    return [call.shape for call in calls]


def _apart(one: Tensor, other: Tensor) -> float:
    """How much of it changed, on the mean; 0 where rounding may have done so."""
    change = at_least_float32(other.detach() - one).abs()
    rounding = _SAME * at_least_float32(one).abs().max()
    return float(change.double().mean()) if bool(change.max() > rounding) else 0.0
