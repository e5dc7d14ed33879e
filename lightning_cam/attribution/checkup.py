"""Whether a network can be explained as it was described: measured, not believed.

Three halves of the clip are replaced by noise, one after the other: its first frames, its upper
rows, its left columns. A layer that is read rightly changes in that half of its map: the share of
the change that lies there, *locality*, was .61 to 1.0 for right layouts and .45 to .52 for wrong
ones. A layer that has mixed all places has .5 whatever its layout is. So a layout is called wrong
only where another reading of the same tensor is local and the given one is not; where none is,
nothing can be told, and an earlier layer of the same layout can be asked. Where places of the half
that was changed have not changed, the layer sees the clip elsewhere, as in front of padding; by its
gradient it is told whether it sees the whole. One clip of the batch is replaced as well, and
nothing but its map may change; a clip alone is run again as it is, and its outputs may not change.

The cost is five forwards, a backward, and one more for each layer; one forward more for a layer
that no gradient reaches.
What each run of a layer that runs several times has seen is measured once for a network, see
`calls`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations

import torch
from torch import Tensor

from lightning_cam.attribution.calls import in_time, on_frames, runs_of, shape_of, told_apart
from lightning_cam.attribution.checks import ready
from lightning_cam.attribution.cuts import naming_cuts
from lightning_cam.attribution.explainable import Explainable
from lightning_cam.attribution.gradcam import check_places, finer, recorded_from
from lightning_cam.attribution.guard import capture
from lightning_cam.attribution.layout import Layout
from lightning_cam.attribution.runs import Runs
from lightning_cam.attribution.tensors import NoGradientError, at_least_float32, fold_frames
from lightning_cam.errors import UserError

_LOCAL, _MARGIN = 0.62, 0.1  # of another reading, and how far it is above the given one
_TOLD = 0.56  # above it the given reading is right
_MANY = 16  # numbers between 0 and 1 are no chance any more
_ONE_ROW = 0.99  # of the change, where one clip of the batch was changed
_STRAYS = 0.02  # of the largest output, by which quantisation may change other clips'
_STILL = 1e-3  # of the largest change along an axis: a place that changes less sees nothing of it
_NOUNS = {"t": ("steps", "frames"), "h": ("rows", "rows"), "w": ("columns", "columns")}
_OTHERS = {
    4: ("(t b) d h w", "(b t) h w d", "(t b) h w d"),
    5: ("b t h w d", "b t d h w", "t b d h w", "t b h w d"),
}


@dataclass(frozen=True)
class LayerCheck:
    """A target layer as it was measured.

    Attributes:
        name: dotted module name.
        shape: its map, `(D, t, h, w)`; () where it could not be read.
        calls: how often one forward runs it.
        runs: which of several calls are explained, in words; "" where there is one.
        locality: the share of the change in the changed half by axis, "t", "h", "w", and "b" for
            the changed clip; axes of one step are left out, and what changed nothing.
        refused: why `explain` would refuse it, "" if it would not.
        wrong: what would be wrong in its maps, with the remedy; "" where nothing was found.
        told: whether the layout could be measured.
    """

    name: str
    shape: tuple[int, ...]
    calls: int
    runs: str
    locality: dict[str, float]
    refused: str
    wrong: str
    told: bool


@dataclass(frozen=True)
class Checkup:
    """What `check` found; printed, it is a line for each thing.

    Attributes:
        layers: those that were asked for.
        outputs: what is wrong with the network's outputs.
        forwards: what it cost.
        once: forwards more that told apart the runs of layers that run several times; that is
            remembered.
        notes: what is worth knowing, and not wrong.
    """

    layers: tuple[LayerCheck, ...]
    outputs: tuple[str, ...]
    forwards: int
    once: int = 0
    notes: tuple[str, ...] = ()

    @property
    def silent(self) -> tuple[str, ...]:
        """What is wrong and `explain` would not say, a sentence each with its remedy."""
        return (*(layer.wrong for layer in self.layers if layer.wrong), *self.outputs)

    @property
    def findings(self) -> tuple[str, ...]:
        """All that is wrong."""
        return (*(layer.refused for layer in self.layers if layer.refused), *self.silent)

    @property
    def summary(self) -> str:
        """How much was found, and what it cost, in a line."""
        count = len(self.findings)
        found = f"{count} thing{'s' * (count > 1)} wrong" if count else "nothing wrong"
        more = f" and {self.once} more that told runs apart" if self.once else ""
        cost = f"{self.forwards} forward{'s' * (self.forwards > 1)}"
        return f"network checked by {cost}{more}: {found}"

    def __str__(self) -> str:
        return "\n".join([*map(_line, self.layers), *self.notes, *self.findings, self.summary])


def check(
    model: Explainable,
    clip: Tensor,
    layers: Sequence[str] | None = None,
    *,
    gradients: bool = True,
) -> Checkup:
    """Measure whether layers, layouts, gradients and outputs are what a model says they are.

    Args:
        model: what to look into.
        clip: any clips `(B, C, T, H, W)` in model space; two or more for the order of the batch.
        layers: dotted module names; None: the default target layer; none: the outputs alone.
        gradients: whether the methods that are meant need gradients.

    Raises:
        ArgumentError: the clip or what the network returns is of a wrong kind.
        UnknownNameError: a layer is not there.
    """
    with ready(model, clip) as (model, clip):
        model, ran = _counted(model)
        names = [model.layer(name)[0] for name in ([None] if layers is None else layers)]
        outputs, plain = _run(model, clip, names, leaf=True)
        cut = _cut(model, clip, outputs, plain) if gradients else {}
        plain = {name: [call.detach() for call in calls] for name, calls in plain.items()}
        so_far = len(ran)
        runs = runs_of(model, clip, {n: len(calls) for n, calls in plain.items() if len(calls) > 1})
        once = len(ran) - so_far
        moved, again, seen = {}, outputs, dict[str, Tensor]()
        for axis, other in _changed(clip) if names else ():
            again, calls, seen = _run_again(model, other, names, look=axis in ("b", ""))
            if axis:
                moved[axis] = {name: _apart(plain[name], calls[name]) for name in names}
        found = tuple(
            _layer(
                model, clip, name, (plain[name], runs.get(name)),
                {axis: of[name] for axis, of in moved.items()}, seen.get(name), cut.get(name, ""),
            )
            for name in names
        )  # fmt: skip
    said: tuple[str, ...] = ()
    if "outputs" in model.notes:
        name = type(model.module).__name__
        what = model.notes["outputs"].removesuffix(" of probabilities")
        said = (f"outputs of {name} in eval mode are probabilities: their {what} is explained",)
    wrong = (*_of_outputs(model, outputs), *_strays(model, outputs, again))
    return Checkup(found, wrong, len(ran) - once, once, said)


def _counted(model: Explainable) -> tuple[Explainable, list[None]]:
    """The model, and one entry for each forward that it runs."""
    ran: list[None] = []

    def forward(rows: Tensor) -> Tensor:
        ran.append(None)
        return model.forward(rows)

    return replace(model, forward=forward), ran


def _run(
    model: Explainable, clip: Tensor, names: Sequence[str], *, leaf: bool
) -> tuple[Tensor, dict[str, list[Tensor]]]:
    """Outputs, and all that each layer returned."""
    with ExitStack() as stack:
        calls = {
            name: stack.enter_context(capture(model.layer(name)[1], leaf=leaf)) for name in names
        }
        return model.forward(clip), calls


def _run_again(
    model: Explainable, clip: Tensor, names: Sequence[str], *, look: bool
) -> tuple[Tensor, dict[str, list[Tensor]], dict[str, Tensor]]:
    """The same of changed clips, without a graph, and (`look`) the places that each layer sees."""
    rows = clip.detach().clone().requires_grad_(look)
    with torch.set_grad_enabled(look):
        outputs, calls = _run(model, rows, names, leaf=False)
    found = {name: _seen(of[0], rows) for name, of in calls.items() if len(of) == 1}
    seen = {name: places for name, places in found.items() if places is not None}
    bare = {name: [call.detach() for call in of] for name, of in calls.items()}
    return outputs.detach(), bare, seen


def _changed(clip: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The clips with one half of an axis replaced by noise of the same spread, and last with their
    first replaced, or, of one clip, as they are.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(clip.shape, generator=generator).to(clip)
    noise = noise * clip.std().clamp(min=0.1) + clip.mean()
    for axis, at in (("t", 2), ("h", 3), ("w", 4), ("b", 0)):
        size = clip.shape[at]
        if size > 1:
            half = torch.arange(size, device=clip.device) < (1 if axis == "b" else size // 2)
            yield axis, torch.where(half.view(-1, *[1] * (clip.ndim - 1 - at)), noise, clip)
    if len(clip) == 1:
        yield "", clip


def _apart(plain: list[Tensor], moved: list[Tensor]) -> list[Tensor]:
    """How far each number moved; nothing where the layer was not run alike."""
    if [call.shape for call in plain] != [call.shape for call in moved]:
        return []
    return [at_least_float32((b - a).abs()) for a, b in zip(plain, moved, strict=True)]


def _cut(
    model: Explainable, clip: Tensor, outputs: Tensor, plain: dict[str, list[Tensor]]
) -> dict[str, str]:
    """Of layers without a path of gradients from the highest columns, where it ends."""
    flat = [call for calls in plain.values() for call in calls]
    score = model.score(outputs, outputs.argmax(1)).sum()
    found: tuple[Tensor | None, ...] = (None,) * len(flat)
    if flat and score.requires_grad:
        found = torch.autograd.grad(score, flat, allow_unused=True)
    reached = {id(call): g for call, g in zip(flat, found, strict=True) if g is not None}
    wrong = {}
    for name, calls in plain.items():
        if calls and id(calls[-1]) in reached:
            last = reached[id(calls[-1])]
            try:
                check_places(model.folded(last, len(clip), name), [last], name)
            except UserError as error:
                wrong[name] = str(error)
        elif calls and not any(id(call) in reached for call in calls):
            again = partial(recorded_from, model, clip, name)
            try:
                with naming_cuts(f"Grad-CAM at layer {name!r}", model.module, name, again):
                    raise NoGradientError
            except UserError as error:
                wrong[name] = str(error)
    return wrong


def _layer(
    model: Explainable,
    clip: Tensor,
    name: str,
    ran: tuple[list[Tensor], Runs | None],
    moved: dict[str, list[Tensor]],
    seen: Tensor | None,
    refused: str,
) -> LayerCheck:
    """What was found of a layer, by what its runs returned, which of them count, how far each
    number moved, and what of a clip it sees."""
    plain, runs = ran
    try:
        calls = told_apart(model, name, plain, clip, runs)
        shape = shape_of(model, name, calls, clip)[1:]
    except (UserError, ValueError) as error:
        return LayerCheck(name, (), len(plain), "", {}, refused or str(error), "", True)
    kept = [0] if runs is None else runs.kept
    change = {axis: [found[k] for k in kept] for axis, found in moved.items() if found}

    def along(reading: Explainable) -> dict[str, Tensor]:
        joined = {a: in_time(reading, parts, len(clip), name) for a, parts in change.items()}
        maps = {a: on_frames(reading, both.sum(1), name) for a, both in joined.items()}
        return {a: _along(m, a) for a, m in maps.items()}

    def locality(reading: Explainable) -> dict[str, float]:
        shares = {a: _share(each, a) for a, each in along(reading).items()}
        return {a: share for a, share in shares.items() if share is not None}

    given = locality(model)
    wrong = ""
    too_fine = finer(shape[1:], clip)
    told = _fits(given) and not too_fine
    if not told:
        best, text = max(_others(model, clip, name, plain, locality), default=(0.0, ""))
        if best > max(_LOCAL, _least(given) + _MARGIN) or (too_fine and best > _LOCAL):
            told = True
            wrong = (
                f"layer {name!r} is read wrongly: of what half a clip changes, {_percent(given)} "
                f"lies in that half of its map, and at least {best:.0%} where it is read as "
                f'"{text}"; say so: Explainable.of(network, layers, layout="{text}"), or '
                f"task.layout"
            )
    if not wrong and runs is None:
        wrong = _elsewhere(model, clip, name, along(model))
        if not wrong and seen is not None:
            wrong = _in_part(model, clip, name, shape[1:], seen)
        told = told or bool(wrong)
    said = "" if runs is None else runs.text
    return LayerCheck(name, shape, len(plain), said, given, refused, wrong, told)


def _others(
    model: Explainable,
    clip: Tensor,
    name: str,
    calls: list[Tensor],
    locality: Callable[[Explainable], dict[str, float]],
) -> Iterator[tuple[float, str]]:
    """How local other readings of the same tensor are, and their layouts."""
    layout = model.laid_out(name)
    if layout is None and model.fold is not fold_frames:
        return  # of a fold by hand nothing is known
    texts = _OTHERS.get(calls[0].ndim, ()) if layout is None else _reordered(layout.text)
    for text in texts:
        other = Layout.of(text) if layout is None else replace(Layout.of(text), grid=layout.grid)
        reading = replace(model, layouts={name: other}, runs={})
        try:
            kept = told_apart(reading, name, calls, clip, model.runs.get(name))
            shape = shape_of(reading, name, kept, clip)
        except UserError:
            continue
        if all(n <= most for n, most in zip(shape[2:], clip.shape[2:], strict=True)):
            found = locality(reading)
            if len(found) > 1 and found.get("b", 1) > _ONE_ROW:
                yield _least(found), text


def _reordered(text: str) -> Iterator[str]:
    """The layout with t, h and w in other places, and frames before clips."""
    for order in permutations("thw"):
        for swapped in (text, text.replace("(b t)", "(t b)")):
            other = swapped.translate(str.maketrans("thw", "".join(order)))
            if other != text:
                yield other


def _seen(call: Tensor, clip: Tensor) -> Tensor | None:
    """Which places `(T, H, W)` of clips a layer's output depends on; None where nobody knows."""
    if not call.requires_grad:
        return None
    probe = torch.randn(call.shape, generator=torch.Generator().manual_seed(0)).to(call)
    try:
        score = (call * probe).sum()
        [grad] = torch.autograd.grad(score, clip, retain_graph=True, allow_unused=True)
    except RuntimeError:  # a part that has no backward
        return None
    return None if grad is None else (grad != 0).any(1).any(0)


def _frames_are_chosen(model: Explainable, clip: Tensor) -> bool:
    """Whether somebody has said which frames a map is of: padding, or a fold by hand."""
    valid = model.valid_for(clip)
    return model.fold is not fold_frames or (valid is not None and not bool(valid.all()))


def _in_part(model: Explainable, clip: Tensor, name: str, grid: Sequence[int], seen: Tensor) -> str:
    """What is wrong where a layer sees a part of the clip and its map is laid over the whole."""
    if sum(count > 1 for count in grid) < 2:
        return ""  # numbers in a row, such as columns, which are no map
    for at, (axis, count) in enumerate(zip("thw", grid, strict=True)):
        places = seen.movedim(at, 0).flatten(1).any(1).nonzero().flatten().tolist()
        size = seen.shape[at]
        if not places or (axis == "t" and _frames_are_chosen(model, clip)):
            continue
        if max(places[0], size - 1 - places[-1]) >= max(1, size / count):  # a place of the map
            return (
                f"layer {name!r} sees no more than {_NOUNS[axis][1]} {places[0]} to {places[-1]} "
                f"of {size}, and its map is laid over all of them: the network crops its clips or "
                "leaves frames out; cut the clips so before they are explained, or take "
                "explain=occlusion, which needs no layer"
            )
    return ""


def _elsewhere(model: Explainable, clip: Tensor, name: str, along: Mapping[str, Tensor]) -> str:
    """What is wrong where places of the half that was changed did not change, which they would if
    they saw the clip where they lie over it.
    """
    for axis, change in along.items():
        size, least = len(change), _STILL * float(change.max())
        still = int((change[: size // 2] <= least).sum())
        if axis == "b" or (axis == "t" and _frames_are_chosen(model, clip)):
            continue
        if still and least:
            places, of_clip = _NOUNS[axis]
            return (
                f"layer {name!r} lies elsewhere than the clip: where the first half of the clip's "
                f"{of_clip} changes, {still} of the first {size // 2} {places} of its map stay as "
                "they are, as where a network pads its clips, turns them around or mirrors them; "
                "cut or turn the map as well, for example Explainable.of(network, layers, "
                "fold=lambda x, batch: x[:, :, :4]), if behind 4 steps there is padding"
            )
    return ""


def _along(change: Tensor, axis: str) -> Tensor:
    """How much a change `(B, t, h, w)` is at each place of an axis."""
    return change.movedim("bthw".index(axis), 0).flatten(1).double().sum(1)


def _share(along: Tensor, axis: str) -> float | None:
    """What of a change along an axis lies in the half where the clip was changed."""
    total, size = float(along.sum()), len(along)
    if size < 2 or not total > 0:
        return None
    if axis == "b":
        return float(along[0]) / total
    inside = float(along[: size // 2].sum()) + size % 2 * float(along[size // 2]) / 2
    return inside / total


def _fits(locality: dict[str, float]) -> bool:
    rest = [share for axis, share in locality.items() if axis != "b"]
    return locality.get("b", 1) > _ONE_ROW and all(share > _TOLD for share in rest)


def _least(locality: dict[str, float]) -> float:
    """0 where clips are mixed."""
    rest = [share for axis, share in locality.items() if axis != "b"]
    return min(rest, default=0.0) if locality.get("b", 1) > _ONE_ROW else 0.0


def _percent(locality: dict[str, float]) -> str:
    return ", ".join(f"{share:.0%} ({axis})" for axis, share in locality.items())


def _of_outputs(model: Explainable, outputs: Tensor) -> tuple[str, ...]:
    outputs = outputs.detach()
    name = type(model.module).__name__
    if not bool(outputs.isfinite().all()):
        return (f"outputs of {name} are not finite; explain an earlier checkpoint",)
    heads = model.heads_of(outputs)
    parts = zip(heads, outputs.split([head.size for head in heads], 1), strict=True)
    if any(
        head.probability == "sigmoid"
        and part.numel() >= _MANY
        and bool(((part >= 0) & (part <= 1)).all())
        for head, part in parts
    ):
        return (
            f"outputs of {name} lie between 0 and 1, as if they were probabilities, of which a "
            "sigmoid is taken once more: explain the logits in front of its sigmoid, for example "
            "Explainable.of(network, layers, forward=lambda clip: network(clip).logit(1e-6))",
        )
    return ()


def _strays(model: Explainable, outputs: Tensor, again: Tensor) -> tuple[str, ...]:
    """What is wrong where outputs of clips changed that are as they were, see `_changed`.

    Args:
        outputs: of all clips.
        again: in the last run.
    """
    one = len(outputs) == 1
    kept, same = (outputs, again) if one else (outputs[1:], again[1:])
    change = float((kept.detach() - same.detach()).abs().max())
    if not change > _STRAYS * float(outputs.detach().abs().max()):
        return ()
    name, mixes = type(model.module).__name__, "" if one else ", or mixes the clips of a batch"
    return (
        f"outputs of {name} of the same clip change by {change:.2g}: it keeps something of earlier "
        f"runs, or draws random numbers in eval mode{mixes}; methods that run it often have wrong "
        "maps: switch that off, or put it back before each run, in Explainable.of(network, layers, "
        "forward=...)",
    )


def _line(layer: LayerCheck) -> str:
    if not layer.shape:
        return f"{layer.name}: not a map"
    told = _percent(layer.locality) or "one step along each axis"
    said = "" if layer.told else "; all places are mixed: its layout cannot be told here"
    runs = f"{layer.calls} runs ({layer.runs})" if layer.runs else "one run"
    return f"{layer.name}: map {layer.shape}, {runs}, locality {told}{said}"
