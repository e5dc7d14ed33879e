"""`explain`, and the `Explanation` it returns.

`explain` owns every run-time pitfall, so that methods stay pure mathematics.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_cam.attribution.checks import check_model, ready
from lightning_cam.attribution.columns import Columns
from lightning_cam.attribution.cuts import naming_cuts
from lightning_cam.attribution.doubt import named, not_finite, reasons, says_nothing
from lightning_cam.attribution.explainable import Explainable, FirstRun, Forward, Target
from lightning_cam.attribution.guard import capture
from lightning_cam.attribution.method import (
    Attribution,
    LayerAttribution,
    MapFunction,
    as_attribution,
)
from lightning_cam.attribution.outputs import check_outputs
from lightning_cam.attribution.shown import Shown
from lightning_cam.attribution.tensors import all_finite, at_least_float32
from lightning_cam.errors import UserError

if TYPE_CHECKING:
    from lightning_cam.attribution.comparison import Comparison


@dataclass(frozen=True, repr=False)
class Explanation:
    """What `explain` returns; a notebook shows it as images.

    Attributes:
        heatmap: `(B, T, H, W)` float32 (float64 for a float64 network), higher is more important,
            not normalised.
        target: `(B,)` int64, the explained columns.
        outputs: `(B, K)`, the network's outputs; of class probabilities the logarithm.
        attention: name -> `(B, T)` weights.
        method: what made the map.
        notes: the choices it made, in words: `{"layer": "layer4", ...}`. "question": what was asked
            about the column, where it is not the column itself.
        numbers: what it found out of each clip beside the map, name -> `(B,)`. What is the same for
            every clip is a setting of the method or a note.
        level: `(B,)`, the lowest heat on valid frames, of maps in which 0 means nothing.
        native: the grid (t, h, w) from which the map was resized, trilinearly; None: it was not.
        broken: names of the network's weights that are not finite.
        shown: the clip and the names of columns, for images; None: it was not made by `explain`.
    """

    heatmap: Tensor
    target: Tensor
    outputs: Tensor
    attention: dict[str, Tensor]
    method: Attribution
    notes: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    numbers: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True)
    level: Tensor | None = field(default=None, kw_only=True)
    native: tuple[int, int, int] | None = field(default=None, kw_only=True)
    broken: tuple[str, ...] = field(default=(), kw_only=True)
    shown: Shown | None = field(default=None, kw_only=True, compare=False)

    @property
    def caption(self) -> str:
        """The method and the choices it made, for images."""
        return ", ".join([self.method.title, *self.notes.values()])

    @property
    def grain(self) -> tuple[int, int, int]:
        """Of how many cells (t, h, w) the map is made.

        A random map of as many, `RandomMap(cells=explanation.grain)`, is what to compare it with:
        holes of single voxels destroy a clip faster than any map that is smooth.
        """
        t, h, w = self.heatmap.shape[1:]
        return self.native or self.method.grain((t, h, w))

    @property
    def doubts(self) -> tuple[str, ...]:
        """B reasons why the clip's map is not to be trusted, "" where there is none: see `doubt`.

        Images draw such a map faint, and say the reason.
        """
        finite = {"the network's outputs": self.outputs, "values of the map": self.heatmap}
        found = reasons(self.method.doubts, self.numbers, finite, self.broken)
        nothing = says_nothing(self.evidence, self.outputs)
        return tuple(said or blank for said, blank in zip(found, nothing, strict=True))

    @property
    def evidence(self) -> Tensor:
        """The heatmap as images and shares of heat need it: counted from `level`.

        RISE's map is the mean score where a voxel is seen: the mean score lies below all of it.
        """
        if self.level is None:
            return self.heatmap
        return (self.heatmap - self.level[:, None, None, None]).clamp(min=0)

    def save(self, path: str | Path, **settings: Any) -> Path:
        """Draw it into a file, see `Comparison.save`.

        Example:
            >>> explain(model, GradCAM(), clip).save("figure.pdf", frames=[0, 4, 8])
        """
        from lightning_cam.attribution.comparison import write_figure  # loads what draws

        return write_figure(self._alone(), path, **settings)

    def show(self, **settings: Any) -> None:
        """Show it in a notebook or on the screen, see `Comparison.show`."""
        self._alone().show(**settings)

    def _repr_html_(self) -> str | None:
        return self._alone()._repr_html_() if self.shown else None

    def _alone(self) -> Comparison:
        from lightning_cam.attribution.comparison import compare  # loads what draws

        return compare([self])

    def __repr__(self) -> str:
        size = tuple(self.heatmap.shape)
        return f"{type(self).__name__}({self.caption}: {self._asked()}; heatmap {size})"

    def _asked(self, most: int = 3) -> str:
        """What was explained of the first clips, in words."""
        columns = self.target.tolist()
        names = [self.shown.columns.name(k) if self.shown else f"output {k}" for k in columns]
        return ", ".join([*names[:most], *["..."] * (len(names) > most)])


def explain(
    model: Explainable,
    method: Attribution | MapFunction,
    clip: Tensor,
    target: Target | None = None,
) -> Explanation:
    """Explain one column of a model's outputs for each clip of a batch.

    Works wherever it is called: under `no_grad`, `inference_mode` or autocast, in train mode, with
    frozen parameters, from any Lightning hook. Parameters, gradients, buffers, train/eval flags,
    hooks, RNG state and the clip are bit for bit what they were, also if the method raises.

    A network whose weights or outputs are not finite is explained all the same, with a warning, and
    its maps are doubtful; so are maps that are not finite themselves.

    Args:
        model: what to explain, see `Explainable.of`.
        method: for example `GradCAM()`, or a function `(model, clip, target) -> heatmap`.
        clip: `(B, C, T, H, W)` in model space.
        target: None for `model.default` or each clip's highest column, one column (number or name)
            for all clips, or one for each: a LongTensor `(B,)` or a list of B numbers or names.

    Raises:
        ArgumentError: if the model, the method, the clip or the target is of a wrong kind, the clip
            has numbers that are not finite, or the network returns anything but `(B, K)`.
        ValueError: if the method's map does not have the clip's size.
        UserError: if the network has not what the method needs, such as gradients, the method
            changes in place what it is given, or another thread trains the network meanwhile.

    Example:
        >>> e = explain(model, GradCAM(), clip)
        >>> e.heatmap.shape  # (B, T, H, W)
    """
    check_model(model)
    method = as_attribution(method)
    with ready(model, clip) as (model, clip):
        if target is not None:  # a wrong name shows before anything runs
            target = model.columns(target, clip)
        first, attention = _run_first(model, method, clip)
        columns = model.resolve(target, first.outputs)
        heads = tuple(model.heads_of(first.outputs))
        model = replace(model, probability=model.kind(columns))
        broken, sound = _not_finite(model, first.outputs)
        model = replace(model, first_run=FirstRun(method, clip, first))
        layer, again = model.notes.get("layer", ""), partial(_again, method, model, clip)
        with naming_cuts(method.title, model.module, layer, again):
            heatmap = _run_method(method, model, clip, columns)
    question = model.question_about("").strip()
    heatmap = model.without_padding(at_least_float32(heatmap.detach()))
    if sound and not all_finite(heatmap):
        warnings.warn(
            f"{method.title} has values that are not finite, outputs of "
            f"{type(model.module).__name__} are: its maps say nothing about the clip; a root or "
            "logarithm of 0 has no gradient: add 1e-6 to it, or take RISE()",
            stacklevel=2,
        )
    return Explanation(
        heatmap=heatmap,
        target=columns,
        outputs=at_least_float32(first.outputs.detach()),
        attention=attention,
        method=method,
        notes=model.notes | ({"question": question} if question else {}),
        numbers={name: value.detach() for name, value in model.numbers.items()},
        level=_lowest(model, heatmap) if method.floating else None,
        shown=Shown(
            clip, Columns(model.outputs, heads), model.question, model.valid, model.to_frames
        ),
        native=model.native[-1] if model.native else None,
        broken=broken,
    )


def _not_finite(model: Explainable, outputs: Tensor) -> tuple[tuple[str, ...], bool]:
    """The weights that are not finite, and whether all weights and outputs are; warns if not."""
    broken, name = not_finite(model.module), type(model.module).__name__
    if broken:
        what = f"weights of {name} are not finite ({named(broken)})"
    elif not all_finite(outputs):
        what = f"outputs of {name} are not finite, its weights are"
    else:
        return broken, True
    warnings.warn(
        f"{what}: its maps say nothing about the clip; explain an earlier checkpoint", stacklevel=3
    )
    return broken, False


def _run_first(
    model: Explainable, method: Attribution, clip: Tensor
) -> tuple[Forward, dict[str, Tensor]]:
    """The clip's run as the method wants it, and the attention weights `(B, T)` of this run."""
    with ExitStack() as stack:
        calls = {
            name: stack.enter_context(capture(module)) for name, module in model.attention.items()
        }
        first = method.run(model, clip)
    if not isinstance(first, Forward):
        raise UserError(
            f"{method.title}.run returned {type(first).__name__}, expected Forward(outputs, "
            "captured)"
        )
    check_outputs(model, first.outputs, len(clip))
    return first, {name: _weights(name, c[0], clip) for name, c in calls.items() if c}


def _weights(name: str, output: Tensor, clip: Tensor) -> Tensor:
    """Attention weights `(B, T)`, checked."""
    wanted = (len(clip), clip.shape[2])
    if tuple(output.shape) != wanted:
        raise UserError(
            f"attention {name!r} returns {tuple(output.shape)}, expected one weight for each frame "
            f"(B, T) = {wanted}; name the module that returns these, or none: "
            "Explainable.of(network, layers, attention=[])"
        )
    return at_least_float32(output.detach())


def _again(method: Attribution, model: Explainable, clip: Tensor) -> None:
    """A run with a graph from where the method wants its gradient."""
    if isinstance(method, LayerAttribution):
        method.run(model, clip)
    else:
        model.forward(clip.detach().requires_grad_())


def _run_method(method: Attribution, model: Explainable, clip: Tensor, columns: Tensor) -> Tensor:
    """The method's map and numbers, checked.

    What it is given must stay as it was, or the map is of something else.
    """
    given = {"clip": clip, "target": columns.clone()}
    before = {name: tensor._version for name, tensor in given.items()}
    heatmap = method(model, given["clip"], given["target"])
    for name, tensor in given.items():
        if tensor._version != before[name]:
            raise UserError(
                f"{method.title} changed the {name} that it was given in place, so its map is not "
                f"of what was asked; let it work on {name}.clone()"
            )
    size = (len(clip), *clip.shape[2:])
    dense = isinstance(heatmap, Tensor) and heatmap.layout == torch.strided
    if not dense or heatmap.is_complex() or heatmap.is_meta:
        got = type(heatmap).__name__
        if isinstance(heatmap, Tensor):
            got = f"{heatmap.dtype}, {heatmap.layout}, on {heatmap.device}"
        raise UserError(
            f"{method.title} returned {got}, expected a tensor (B, T, H, W) = {size}, dense and "
            "of real numbers"
        )
    if tuple(heatmap.shape) != size:
        raise ValueError(
            f"{method.title} returned a map {tuple(heatmap.shape)}, expected (B, T, H, W) = {size}"
        )
    for name, value in model.numbers.items():
        if not isinstance(value, Tensor) or tuple(value.shape) != (len(clip),):
            found = tuple(value.shape) if isinstance(value, Tensor) else repr(value)
            raise UserError(
                f"{method.title} gave model.numbers[{name!r}] = {found}, expected a tensor (B,) = "
                f"({len(clip)},); what is the same for every clip goes into model.notes"
            )
    return heatmap


def _lowest(model: Explainable, heatmap: Tensor) -> Tensor | None:
    """`(B,)`, the lowest heat on valid frames; None where some is below 0: 0 has a meaning then."""
    valid = model.valid_for(heatmap)
    if valid is not None:
        heatmap = heatmap.masked_fill(~valid[..., None, None], torch.inf)
    lowest = heatmap.amin((1, 2, 3))
    return lowest if bool((lowest >= 0).all()) else None
