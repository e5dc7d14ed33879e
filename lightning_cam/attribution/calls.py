"""The calls of a layer as one map: what each has seen of the clip is measured, see `runs`.

The network is run once more for each frame, which is replaced by noise: the calls whose output
changes have seen it. The first and the last frame come first; a layer all of whose calls have seen
both has seen the whole clip in each, which is so for most. What was found is remembered for the
layer, the size of the clip and the number of calls, so that this is paid once, and by layers that
run several times alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.guard import SCRIPTED, capture
from lightning_cam.attribution.runs import Frames, Runs
from lightning_cam.attribution.tensors import at_least_float32
from lightning_cam.errors import ArgumentError, UserError

_SAME = 1e-6  # of a call's largest number, by which rounding may change it

_remembered: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], Runs]] = WeakKeyDictionary()


def told_apart(
    model: Explainable, name: str, calls: list[Tensor], clip: Tensor, runs: Runs | None = None
) -> list[Tensor]:
    """The calls of a layer that make up its map of the clip, as `runs` says.

    `model.runs` has how they do so. What `runs_of` found need not be found once more.

    Raises:
        UserError: the forward did not run the layer.
        ValueError: the calls are not maps, or of different sizes where these belong together.
    """
    if not calls and isinstance(model.layer(name)[1], torch.jit.ScriptModule):
        raise UserError(SCRIPTED)
    if not calls:
        raise UserError(f"layer {name!r} is not run by the model's forward; choose another")
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
    keys = {name: (count, *clip.shape[1:]) for name, count in counts.items()}
    todo = {name: count for name, count in counts.items() if keys[name] not in known[name]}
    found = _measured(model, clip, todo) if todo else {}
    for name, (runs, sure) in found.items():
        if sure:
            known[name][keys[name]] = runs
    return {name: found[name][0] if name in found else known[name][keys[name]] for name in counts}


def _measured(
    model: Explainable, clip: Tensor, counts: Mapping[str, int]
) -> dict[str, tuple[Runs, bool]]:
    """Of each layer its runs, and whether that will be so of other clips."""
    length = clip.shape[2]
    plain = _run(model, clip, counts)
    direct = {name: _direct(calls) for name, calls in plain.items()}
    plain = {name: [call.detach() for call in calls] for name, calls in plain.items()}
    seen: dict[str, list[set[int]]] = {name: [set() for _ in plain[name]] for name in counts}
    lost = {name for name, count in counts.items() if len(plain[name]) != count}
    todo = set(counts) - lost
    for number, (frame, changed) in enumerate(_changed(clip)):
        if number == 2:
            ends = {0, length - 1}
            whole = {name for name in todo if all(frames >= ends for frames in seen[name])}
            for name in whole:
                seen[name] = [set(range(length)) for _ in plain[name]]
            todo -= whole
        if not todo:
            break
        moved = _run(model, changed, todo)
        lost |= {name for name in todo if _shapes(moved[name]) != _shapes(plain[name])}
        todo -= lost
        for name in todo:
            for frames, one, other in zip(seen[name], plain[name], moved[name], strict=True):
                if _differ(one, other):
                    frames.add(frame)
    found = {name: (Runs.last(counts[name], length), False) for name in lost}
    for name in set(counts) - lost:
        sets = [frozenset(frames) for frames in seen[name]]
        found[name] = Runs.of(sets, direct[name], length), all(sets)
    return found


def _run(model: Explainable, clip: Tensor, names: Iterable[str]) -> dict[str, list[Tensor]]:
    """What each layer returned, on a graph that starts at its first calls.

    Random numbers are the same in every run, and none are used up.
    """
    cards = [clip.device] if clip.device.type == "cuda" else []
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(cards))
        stack.enter_context(torch.enable_grad())
        calls = {
            name: stack.enter_context(capture(model.layer(name)[1], leaf=True)) for name in names
        }
        model.forward(clip)
    return calls


def _changed(clip: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each frame's number, the outermost first, and the clips with noise in its place."""
    generator = torch.Generator().manual_seed(0)
    shape = (*clip.shape[:2], *clip.shape[3:])
    noise = torch.randn(shape, generator=generator).to(clip) * clip.abs().max().clamp(min=0.1)
    last = clip.shape[2] - 1
    for frame in dict.fromkeys([0, last, *range(1, last)]):
        changed = clip.clone()
        changed[:, :, frame] = noise
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
            edge = todo.pop()
            if edge[0] is None or edge in gone:
                continue
            gone.add(edge)
            if made.get(edge, k) < k:
                below.add(made[edge])
            else:
                todo += edge[0].next_functions
        found.append(frozenset(below))
    return found


def _shapes(calls: list[Tensor]) -> list[torch.Size]:
    return [call.shape for call in calls]


def _differ(one: Tensor, other: Tensor) -> bool:
    one, other = at_least_float32(one), at_least_float32(other)
    return bool((one - other).abs().max() > _SAME * one.abs().max())
