"""What can be explained: a network, how to look into it, and which of its outputs to ask about.

Everything that can be explained is one column of a (B, K) output matrix: a class logit, a pose
component, a negative loss. A method gets column indices and never learns which task it serves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_cam.attribution.columns import (
    Columns,
    Head,
    Probability,
    column_named,
    columns_asked,
    columns_named,
    names_of,
    probabilities,
)
from lightning_cam.attribution.families import called, known
from lightning_cam.attribution.guard import find_module, unwrap
from lightning_cam.attribution.inputs import taken
from lightning_cam.attribution.layout import Layout
from lightning_cam.attribution.runs import Runs
from lightning_cam.attribution.shown import Colours, ToFrames
from lightning_cam.attribution.steps import Step, check_step, step_text
from lightning_cam.attribution.tensors import fold_frames, pick, resize_heatmap
from lightning_cam.errors import ArgumentError, UnknownNameError, UserError

# One column for all clips by number or name, or one for each of B.
Target = int | str | Sequence[int | str] | NDArray[np.integer] | Tensor


class Forward(NamedTuple):
    """One run of the network.

    Attributes:
        outputs: `(B, K)`, on a graph where gradients are to be taken.
        captured: what the method wants to keep of the run, under names of its own: the outputs of a
            module in call order, or the clip as the leaf of the graph.
    """

    outputs: Tensor
    captured: Mapping[str, list[Tensor]] = {}


class FirstRun(NamedTuple):
    """The run of the clip itself that `explain` has made.

    Attributes:
        method: the `Attribution` that made it.
        clip: what was run.
        forward: what came out.
    """

    method: object
    clip: Tensor
    forward: Forward


@dataclass(frozen=True)
class Explainable:
    """How to look into one network.

    Attributes:
        module: the network, unwrapped; it is guarded while explaining.
        forward: clip `(B, C, T, H, W)` and `inputs` -> outputs `(B, K)`. May be given n·B rows: n
            copies of the batch one after another.
        outputs: the K column names; empty where they have none.
        heads: where the network returns several tensors, these under their names, or in this
            order. Empty: it returns one.
        layers: capture points by name, the first is the default. Their activations are
            `(B, D, t, h, w)`, or `(B*t, D, h, w)` with frames folded into the batch.
        attention: modules whose output is attention weights `(B, T)`.
        steps: the module whose output is the step outputs `(B, T, K)` (or `(B, K)` once a step);
            None for networks without output steps, and where these are what `forward` returns.
        step: which of them is explained, see `at`; None: the clip's own outputs.
        probability: what makes probabilities of the columns: `"softmax"` of class logits, the
            `"sigmoid"` where each column is true or not by itself; None: they are no classes. Of
            several heads it is that of the one that is asked about, for `explain` sees to it.
        valid: which frames are not padding, `(B, T)` bool; None: all. `forward` knows it already,
            heatmaps are 0 on the others.
        truth: where the evidence is, as the data say, `(B, T, H, W)` bool, False throughout for
            clips of which they do not; None: of none.
        positives: which columns are true of each clip, `(B, K)` bool: of these the highest is
            explained where none is asked for; None: of all.
        black: black in model space, `(B, C)` or `(C,)`, by which perturbations hide; None: 0.
        frames: the module that sees each frame on its own, clip -> `(B*T, D, h, w)`, and through
            which alone the rest of the network sees them; None where there is no such module.
        score: what is explained of the column: `((B, K) or (B, T, K), target (B,)) -> (B,) or
            (B, T)`. See `contrast` and `counterfactual`.
        question: the score in words, with `{}` for the column's name.
        default: the column explained where none is asked for; None: each clip's highest.
        fold: reads an activation as `(B, D, t, h, w)` where `layouts` says nothing of its layer.
        layouts: how layers are laid out, by name; "" is for all that are not named.
        inputs: what `forward` takes beside the clip, by name; tensors `(B, ...)` and lists of B
            are repeated where it is given n·B rows.
        notes: what a method writes down for `Explanation.notes`; `explain` hands out a fresh one.
        numbers: what a method writes down for `Explanation.numbers`; fresh as well.
        native: takes the grid (t, h, w) from which the heatmap was `resized`; fresh as well.
        runs: takes which calls make up the map of a layer that runs several times; fresh as well.
        first_run: the run of the clip that `explain` has made, see `Attribution.first`.
        to_frames: makes frames `(B, T, H, W, 3)` uint8 of a clip in model space, for images; None:
            see `frames_of`.
        way: by which what was measured of `forward` and `inputs` is remembered, see `identity`.
    """

    module: nn.Module
    forward: Callable[..., Any]
    outputs: tuple[str, ...]
    layers: Mapping[str, nn.Module]
    attention: Mapping[str, nn.Module] = field(default_factory=dict)
    steps: nn.Module | None = None
    step: Step | None = None
    probability: Probability | None = "softmax"
    valid: Tensor | None = None
    truth: Tensor | None = None
    positives: Tensor | None = None
    black: Tensor | None = None
    frames: nn.Module | None = None
    score: Callable[[Tensor, Tensor], Tensor] = pick
    question: str = "{}"
    default: int | None = None
    fold: Callable[[Tensor, int], Tensor] = fold_frames
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    heads: Mapping[str, Head] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict, compare=False)
    numbers: dict[str, Tensor] = field(default_factory=dict, compare=False)
    native: list[tuple[int, int, int]] = field(default_factory=list, compare=False)
    runs: dict[str, Runs] = field(default_factory=dict, compare=False)
    first_run: FirstRun | None = field(default=None, compare=False)
    to_frames: ToFrames | None = field(default=None, compare=False)
    way: Hashable = field(default=None, compare=False)

    @classmethod
    def of(
        cls,
        module: nn.Module,
        layers: Sequence[str] = (),
        outputs: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        attention: Sequence[str] = (),
        *,
        steps: str | None = None,
        forward: Callable[..., Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
        probability: Probability | Mapping[str, Probability | None] | None = "softmax",
        black: Sequence[float] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        frames: str | None = None,
        fold: Callable[[Tensor, int], Tensor] = fold_frames,
        layout: str | Mapping[str, str] | None = None,
        grid: Sequence[int] | None = None,
    ) -> Explainable:
        """Describe any `nn.Module` that maps a clip `(B, C, T, H, W)` to `(B, K)`.

        Args:
            module: the network; DDP and `torch.compile` wrappers are looked through.
            layers: dotted module names; the first is the default target layer. None named: those of
                known networks, see `families.py`.
            outputs: K column names; of a network with several heads those of each,
                `{"verb": ["open", ...], "noun": [...]}`: its columns are "verb/open", ...
            attention: dotted names of modules whose output is attention weights `(B, T)`.
            steps: dotted name of the module whose output is the step outputs `(B, T, K)`.
            forward: replaces the call of the module, for example to unpack its output.
            inputs: what it takes beside the clip, by name, such as `{"lengths": lengths}`. Tensors
                have a row and lists an item for each clip of the batch that is explained, also
                within dicts; all else, and tensors without axes, is passed on as it is.
            probability: `"softmax"` of class logits, `"sigmoid"` where each column is true or not
                by itself (several labels a clip), None where columns are not classes; or one of
                these for each head, `{"verb": "softmax", "speed": None}`.
            black: black in model space, a number per channel; None: -mean/std, 0 without these.
            mean, std: by which clips are normalised, a number per channel, of colours from 0 to 1:
                images show their colours, and perturbations hide by black.
            frames: dotted name of the module that sees each frame on its own, if there is one.
            fold: reads an activation as `(B, D, t, h, w)`.
            layout: how the layers are laid out, such as `"b (1 + t h w) d"`, see `layout.py`; one
                for all, or one for each by the layer's name. None: that of known networks.
            grid: t, h, w of layers in which these axes are joined.

        Raises:
            UnknownNameError: if a name is not a module of the network, or none of an input.
            ArgumentError: if there is no network, anything but text in a list of names, or a
                layout cannot be read.

        Example:
            >>> net = torchvision.models.video.r3d_18()
            >>> model = Explainable.of(net, layers=["layer4"])
            >>> heatmap = explain(model, GradCAM(), clip).heatmap
        """
        if not isinstance(module, nn.Module):
            kind = f"the class {module.__name__}" if isinstance(module, type) else type(module)
            raise ArgumentError(f"expected a network, an nn.Module, got {kind}")
        columns, heads = columns_named(outputs, probability)
        first = next(iter(heads.values()), None)
        colours = Colours.of(mean, std)
        if black is None and colours is not None:
            black = colours.black
        module = unwrap(module)
        found, layouts = known(module)
        if isinstance(layout, str) or fold is not fold_frames:
            layouts = {}  # what was said is for all layers
        return cls(
            module=module,
            forward=forward or called(module),
            outputs=columns,
            heads=heads,
            layers={
                name: find_module(module, name) for name in names_of("layers", layers) or found
            },
            attention={
                name: find_module(module, name) for name in names_of("attention", attention)
            },
            steps=None if steps is None else find_module(module, steps),
            probability=first.probability if first else probability,  # type: ignore[arg-type]
            black=None if black is None else torch.tensor(black, dtype=torch.float32),
            to_frames=colours,
            frames=None if frames is None else find_module(module, frames),
            fold=fold,
            layouts=layouts | layouts_of(module, layout, grid),
            inputs=taken(inputs or {}, forward or module.forward),
        )

    def layer(self, name: str | None) -> tuple[str, nn.Module]:
        """A capture point: one of `layers`, any dotted module name, or the first for None."""
        if name is None:
            if not self.layers:
                raise UserError("this model names no target layer; pass layer=NAME to the method")
            name = next(iter(self.layers))
        name = str(name)  # settings make a number of a name such as "2"
        found = self.layers.get(name)
        return name, find_module(self.module, name) if found is None else found

    def laid_out(self, layer: str | None) -> Layout | None:
        """What was said of a layer's layout, of the first for None."""
        name = next(iter(self.layers), "") if layer is None else str(layer)
        return self.layouts.get(name, self.layouts.get(""))

    def folded(self, activation: Tensor, batch: int, layer: str | None) -> Tensor:
        """One activation of a layer as `(B, D, t, h, w)`.

        Raises:
            ValueError: its shape is not that of the layer's layout.
        """
        if (layout := self.laid_out(layer)) is None:
            return self.fold(activation, batch)
        return layout.fold(activation, batch, str(layer or next(iter(self.layers), "")))

    def valid_for(self, rows: Tensor) -> Tensor | None:
        """`valid` on the device of a tensor of n·B rows, and as many: n copies of the batch."""
        if self.valid is None:
            return None
        return self.valid.to(rows.device, torch.bool).repeat(len(rows) // len(self.valid), 1)

    def without_padding(self, heatmap: Tensor) -> Tensor:
        """A heatmap `(B, T, H, W)` with exactly 0 on padded frames."""
        valid = self.valid_for(heatmap)
        return heatmap if valid is None else heatmap.masked_fill(~valid[..., None, None], 0)

    def resized(self, heatmap: Tensor, clip: Tensor) -> Tensor:
        """A map `(B, t, h, w)` at the size of a clip, trilinearly; `native` takes its own grid."""
        t, h, w = heatmap.shape[1:]
        self.native[:] = [(t, h, w)]
        return resize_heatmap(heatmap, clip.shape[2:])

    def contrast(self, against: int | str) -> Explainable:
        """Ask "why this column rather than that one?": the score becomes y_c - y_against."""
        other = self.column(against)

        def score(outputs: Tensor, target: Tensor) -> Tensor:
            return self.score(outputs, target) - self.score(outputs, torch.full_like(target, other))

        return replace(
            self, score=score, question=f"{self.question} rather than {self.name(other)}"
        )

    def counterfactual(self) -> Explainable:
        """Ask "what speaks against this column?": the score becomes -y_c (Selvaraju, 2017, 3.3)."""
        return replace(
            self,
            score=lambda outputs, target: -self.score(outputs, target),
            question=f"against {self.question}",
        )

    def at(self, step: Step) -> Explainable:
        """Ask about a step of a network with outputs at every step, by any method.

        For networks whose forward returns `(B, T, K)`, and those whose `steps` are named.

        Args:
            step: its number (negative counts from each clip's last step that is not padding), or
                "mean" or "sum" of all that are not padding.

        Raises:
            ArgumentError: it is neither.
        """
        check_step(step)
        where = "at" if isinstance(step, int) else "in the"
        return replace(self, step=step, question=f"{self.question} {where} {step_text(step)}")

    def column(self, target: int | str) -> int:
        """Index of a column given by name or number.

        Raises:
            UnknownNameError: if no column has this name or number.
            UserError: if it is neither, or a name where the columns have none.
        """
        if isinstance(target, str):
            return column_named(target, self.outputs, self.heads)
        if isinstance(target, bool) or not isinstance(target, int | np.integer):
            raise UserError(
                f"target {target!r} is of type {type(target).__name__}; give a column's number or "
                "name, or for B clips an integer tensor (B,) or a list of B numbers or names"
            )
        if self.outputs and not 0 <= target < len(self.outputs):
            raise UnknownNameError("target", target, [f"0..{len(self.outputs) - 1}"])
        if not 0 <= target < 2**63:
            raise ArgumentError(f"no target {target}: columns are numbered from 0 on")
        return int(target)

    def columns(self, target: Target, rows: Tensor) -> Tensor:
        """A target as one column a clip, `(B,)` int64.

        Args:
            target: one column (number or name) for all clips, or one for each: an integer tensor or
                array `(B,)`, or a list of B numbers or names.
            rows: any tensor of B rows, on the device where the columns are to be.

        Raises:
            UnknownNameError: if no column has this name or number.
            UserError: if it is neither a number nor a name.
            ArgumentError: if there are not B of them, or a tensor is not of integers.
        """
        return columns_asked(target, rows, self.column)

    def resolve(self, target: Target | None, outputs: Tensor) -> Tensor:
        """The columns to explain, `(B,)` int64; this is the only rule about targets not given.

        Args:
            target: as in `explain`; None: `default`, or each clip's `highest` column, of the
                `positives` where it has some.
            outputs: of the clips, `(B, K)`.

        Raises:
            UserError: as `columns`, or if a column is none of the K.
        """
        if target is not None:
            found = self.columns(target, outputs)
        elif self.default is not None:
            found = self.columns(self.column(self.default), outputs)
        else:
            true = self._true_of(outputs)
            found = self.highest(outputs) if true is outputs else true.argmax(1)
        pick(outputs, found)  # raises for a column beyond the K
        return found

    def _true_of(self, outputs: Tensor) -> Tensor:
        """Outputs `(B, K)`, -inf where a column is not true of a clip of which others are."""
        if self.positives is None:
            return outputs
        true = self.positives.to(outputs.device)
        return outputs.masked_fill(~true & true.any(1, keepdim=True), -torch.inf)

    def highest(self, outputs: Tensor) -> Tensor:
        """Each clip's highest column `(B,)`; of several heads, that of the first."""
        return outputs[:, : self.heads_of(outputs)[0].size].argmax(1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Probabilities `(N, K)` of outputs `(N, K)`; the outputs where they are no classes."""
        return probabilities(outputs, self.heads_of(outputs))

    def heads_of(self, outputs: Tensor) -> list[Head]:
        """The heads of outputs `(N, K)`; one of all columns where there are no others."""
        return list(self.heads.values()) or [Head(outputs.shape[1], self.probability)]

    def kind(self, columns: Tensor | int) -> Probability | None:
        """What makes probabilities of columns.

        Raises:
            ArgumentError: they are of heads of several kinds.
        """
        if not self.heads:
            return self.probability
        of = [head.probability for head in self.heads.values() for _ in range(head.size)]
        asked = columns.tolist() if isinstance(columns, Tensor) else [columns]
        if len({of[column] for column in asked}) > 1:
            names = ", ".join(dict.fromkeys(map(self.name, asked)))
            raise ArgumentError(
                f"{names} are of heads of several kinds (classes, or numbers), which no method "
                "scores alike; explain each by itself"
            )
        return of[asked[0]]

    def question_about(self, name: str) -> str:
        """The question about a column, in words."""
        return self.question.replace("{}", name, 1)

    def name(self, column: int) -> str:
        """Name of a column, its number where it has none."""
        return Columns(self.outputs, ()).name(column)


def layouts_of(
    module: nn.Module, layout: str | Mapping[str, str] | None, grid: Sequence[int] | None
) -> dict[str, Layout]:
    """Layouts by layer; "" is all layers.

    Raises:
        UnknownNameError: a layout is for a layer that the network has not.
        ArgumentError: a layout cannot be read, or a grid comes without one.
    """
    if layout is None:
        if grid is not None:
            raise ArgumentError(
                f"a grid, here {grid!r}, is of use with a layout only; add one, for example "
                '"b (1 + t h w) d"'
            )
        return {}
    if not isinstance(layout, Mapping):
        return {"": Layout.of(layout, grid)}
    for name in layout:
        find_module(module, name)
    return {str(name): Layout.of(text, grid) for name, text in layout.items()}
