"""Three nouns and one verb: `Explainable`, `Attribution`, `Explanation` and `explain`.

Everything that can be explained is one column of a (B, K) output matrix: a class logit, a pose
component, a negative loss. A method gets a column index and never learns which task it serves.
`explain` owns every run-time pitfall, so that methods stay pure mathematics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from lightning_cam.attribution.guard import (
    capture,
    compute_dtype,
    explaining,
    find_module,
    unwrap,
)
from lightning_cam.attribution.ops import at_least_float32, fold_frames, pick
from lightning_cam.errors import UnknownNameError, UserError


@dataclass(frozen=True)
class Explainable:
    """How to look into one network.

    Attributes:
        module: the network, unwrapped; it is guarded while explaining.
        forward: clip `(B, C, T, H, W)` -> outputs `(B, K)`. May be given n·B rows: n copies of the
            batch one after another.
        outputs: the K column names; empty where they have none.
        layers: capture points by name, the first is the default. Their activations are
            `(B, D, t, h, w)`, or `(B*t, D, h, w)` with frames folded into the batch.
        attention: modules whose output is attention weights `(B, T)`.
        steps: the module whose output is the step outputs `(B, T, K)` (or `(B, K)` once a step);
            None for networks without output steps.
        softmax: the columns are class logits, so their softmax is a probability.
        valid: which frames are no padding, `(B, T)` bool; None: all. `forward` knows it already,
            Grad-CAM's heatmaps are 0 on the others.
        black: black in model space, `(B, C)` or `(C,)`, by which perturbations hide; None: 0.
        frames: the module that sees each frame on its own, clip -> `(B*T, D, h, w)`, and through
            which alone the rest of the network sees them; None where there is no such module.
        score: what is explained of the column: `((B, K) or (B, T, K), target (B,)) -> (B,) or
            (B, T)`. See `contrast` and `counterfactual`.
        question: the score in words, with `{}` for the column's name.
        default: the column explained where none is asked for; None: each clip's highest.
        fold: reads an activation as `(B, D, t, h, w)`; replace it for token or time-major layouts.
        notes: what a method wants said in the caption; `explain` hands out a fresh one.
        numbers: what a method found out beside its map, name -> `(B,)`; fresh, too.
    """

    module: nn.Module
    forward: Callable[[Tensor], Tensor]
    outputs: tuple[str, ...]
    layers: Mapping[str, nn.Module]
    attention: Mapping[str, nn.Module] = field(default_factory=dict)
    steps: nn.Module | None = None
    softmax: bool = True
    valid: Tensor | None = None
    black: Tensor | None = None
    frames: nn.Module | None = None
    score: Callable[[Tensor, Tensor], Tensor] = pick
    question: str = "{}"
    default: int | None = None
    fold: Callable[[Tensor, int], Tensor] = fold_frames
    notes: dict[str, str] = field(default_factory=dict, compare=False)
    numbers: dict[str, Tensor] = field(default_factory=dict, compare=False)

    @classmethod
    def of(
        cls,
        module: nn.Module,
        layers: Sequence[str],
        outputs: Sequence[str] | None = None,
        attention: Sequence[str] = (),
        *,
        steps: str | None = None,
        forward: Callable[[Tensor], Tensor] | None = None,
        softmax: bool = True,
        black: Sequence[float] | None = None,
        frames: str | None = None,
        fold: Callable[[Tensor, int], Tensor] = fold_frames,
    ) -> Explainable:
        """Describe any `nn.Module` that maps a clip `(B, C, T, H, W)` to `(B, K)`.

        Args:
            module: the network; DDP and `torch.compile` wrappers are looked through.
            layers: dotted module names; the first is the default target layer.
            outputs: K column names.
            attention: dotted names of modules whose output is attention weights `(B, T)`.
            steps: dotted name of the module whose output is the step outputs `(B, T, K)`.
            forward: replaces the call of the module, for example to unpack its output.
            softmax: False where the columns are not class logits.
            black: black in model space, a number per channel: -mean/std of the normalisation.
            frames: dotted name of the module that sees each frame on its own, if there is one.
            fold: reads an activation as `(B, D, t, h, w)`.

        Raises:
            UnknownNameError: if a name is not a module of the network.

        Example:
            >>> net = torchvision.models.video.r3d_18()
            >>> model = Explainable.of(net, layers=["layer4"])
            >>> heatmap = explain(model, GradCAM(), clip).heatmap
        """
        module = unwrap(module)
        return cls(
            module=module,
            forward=forward or module,
            outputs=tuple(outputs or ()),
            layers={name: find_module(module, name) for name in layers},
            attention={name: find_module(module, name) for name in attention},
            steps=None if steps is None else find_module(module, steps),
            softmax=softmax,
            black=None if black is None else torch.tensor(black, dtype=torch.float32),
            frames=None if frames is None else find_module(module, frames),
            fold=fold,
        )

    def layer(self, name: str | None) -> tuple[str, nn.Module]:
        """A capture point: one of `layers`, any dotted module name, or the first for None."""
        if name is None:
            if not self.layers:
                raise UserError("this model names no target layer; pass layer=NAME to the method")
            name = next(iter(self.layers))
        found = self.layers.get(name)
        return name, find_module(self.module, name) if found is None else found

    def valid_for(self, rows: Tensor) -> Tensor | None:
        """`valid` on the device of a tensor of n·B rows, and as many: n copies of the batch."""
        if self.valid is None:
            return None
        return self.valid.to(rows.device, torch.bool).repeat(len(rows) // len(self.valid), 1)

    def without_padding(self, heatmap: Tensor) -> Tensor:
        """A heatmap `(B, T, H, W)` with exactly 0 on padded frames."""
        valid = self.valid_for(heatmap)
        return heatmap if valid is None else heatmap.masked_fill(~valid[..., None, None], 0)

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

    def column(self, target: int | str) -> int:
        """Index of a column given by name or number.

        Raises:
            UnknownNameError: if no column has this name or number.
        """
        if isinstance(target, str):
            if target not in self.outputs:
                raise UnknownNameError("target", target, self.outputs)
            return self.outputs.index(target)
        if self.outputs and not 0 <= target < len(self.outputs):
            raise UnknownNameError("target", target, [f"0..{len(self.outputs) - 1}"])
        return target

    def unasked(self, outputs: Tensor) -> Tensor:
        """The columns explained where none is asked for, `(B,)`: `default`, or each highest."""
        highest = outputs.argmax(1)
        return highest if self.default is None else torch.full_like(highest, self.default)

    def asked(self, name: str) -> str:
        """The question about a column, in words."""
        return self.question.replace("{}", name, 1)

    def name(self, column: int) -> str:
        """Name of a column, its number where it has none."""
        return self.outputs[column] if self.outputs else f"output {column}"


class Attribution(Protocol):
    """A method: a callable, usually a frozen dataclass whose fields are its hyper-parameters.

    It is called by `explain` inside the guard, with a clip `(B, C, T, H, W)` and a target `(B,)`
    (None: `model.unasked` of the outputs), and returns the heatmap `(B, T, H, W)`,
    higher = more important, not normalised. A class attribute `floating = True` says that 0 means
    nothing in its maps: see `Explanation.evidence`; `grainy = True` that they are not smooth.
    """

    def __call__(self, model: Explainable, clip: Tensor, target: Tensor | None) -> Tensor: ...


@dataclass(frozen=True)
class Explanation:
    """What `explain` returns.

    Attributes:
        heatmap: `(B, T, H, W)` float32 (float64 for a float64 network), higher is more important,
            not normalised.
        target: `(B,)` int64, the explained columns.
        outputs: `(B, K)`, the network's outputs.
        attention: name -> `(B, T)` weights.
        caption: the method and the choices it made, for pictures.
        level: `(B,)`, the lowest heat on valid frames, of maps in which 0 means nothing.
        numbers: what the method found out beside the map, name -> `(B,)`. A clip with
            "low_gradient", or much "incomplete", is drawn as doubtful.
        grainy: single voxels stand out of the map, so that pictures must not end their colours at
            its maximum.
    """

    heatmap: Tensor
    target: Tensor
    outputs: Tensor
    attention: dict[str, Tensor]
    caption: str
    level: Tensor | None = field(default=None, kw_only=True)
    numbers: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True)
    grainy: bool = field(default=False, kw_only=True)

    @property
    def evidence(self) -> Tensor:
        """The heatmap as pictures and shares of heat need it: counted from `level`.

        RISE's map is the mean score where a voxel is seen: the mean score lies below all of it.
        """
        if self.level is None:
            return self.heatmap
        return (self.heatmap - self.level[:, None, None, None]).clamp(min=0)


def explain(
    model: Explainable,
    method: Attribution,
    clip: Tensor,
    target: int | str | Tensor | None = None,
) -> Explanation:
    """Explain one column of a model's outputs for each clip of a batch.

    Works wherever it is called: under `no_grad`, `inference_mode` or autocast, in train mode, with
    frozen parameters, from any Lightning hook. Parameters, gradients, buffers, train/eval flags,
    hooks and RNG state are bit for bit what they were, also if the method raises.

    Args:
        model: what to explain, see `Explainable.of`.
        method: for example `GradCAM()`.
        clip: `(B, C, T, H, W)` in model space.
        target: None for `model.default` or each clip's highest column, one column (number or name)
            for all clips, or a LongTensor `(B,)`.

    Raises:
        ValueError: if the clip is not 5-D or a target is not a column.

    Example:
        >>> e = explain(model, GradCAM(), clip)
        >>> e.heatmap.shape  # (B, T, H, W)
    """
    if clip.ndim != 5:
        raise ValueError(f"expected a clip (B, C, T, H, W), got shape {tuple(clip.shape)}")
    with explaining(model.module):
        # Tensors born in inference mode cannot be differentiated, index tensors included.
        clip = clip.clone() if clip.is_inference() else clip.detach()
        clip = clip.to(compute_dtype(model.module, clip))
        chosen = target_tensor(model, target, clip)
        first = _FirstForward(model, clip)
        notes: dict[str, str] = {}
        numbers: dict[str, Tensor] = {}
        watched = replace(model, forward=first, notes=notes, numbers=numbers)
        heatmap = method(watched, clip, chosen)
        outputs, attention = first.result()
        chosen = model.unasked(outputs) if chosen is None else chosen
        pick(outputs, chosen)  # also for methods that never look at the outputs
    asked = model.asked("").strip()
    title = getattr(method, "title", type(method).__name__)
    heatmap = at_least_float32(heatmap.detach())
    return Explanation(
        heatmap=heatmap,
        target=chosen,
        outputs=outputs,
        attention=attention,
        caption=", ".join([title, *notes.values(), *([asked] if asked else [])]),
        level=_lowest(model, heatmap) if getattr(method, "floating", False) else None,
        numbers={name: value.detach() for name, value in numbers.items()},
        grainy=getattr(method, "grainy", False),
    )


def _lowest(model: Explainable, heatmap: Tensor) -> Tensor | None:
    """`(B,)`, the lowest heat on valid frames; None where some is below 0: 0 has a meaning then."""
    valid = model.valid_for(heatmap)
    if valid is not None:
        heatmap = heatmap.masked_fill(~valid[..., None, None], torch.inf)
    lowest = heatmap.amin((1, 2, 3))
    return lowest if bool((lowest >= 0).all()) else None


class _FirstForward:
    """The model's forward that keeps outputs and attention of the first pass of the whole clip.

    So a method that runs the clip anyway (Grad-CAM) costs no second forward.
    """

    def __init__(self, model: Explainable, clip: Tensor) -> None:
        self.model, self.clip = model, clip
        self.kept: tuple[Tensor, dict[str, Tensor]] | None = None

    def __call__(self, clip: Tensor) -> Tensor:
        same = clip.shape == self.clip.shape and clip.data_ptr() == self.clip.data_ptr()
        if self.kept is not None or not same:
            return self.model.forward(clip)
        outputs, self.kept = self.watched(clip)
        return outputs

    def watched(self, clip: Tensor) -> tuple[Tensor, tuple[Tensor, dict[str, Tensor]]]:
        """The outputs on their graph, and what is kept of them and of the attention."""
        with ExitStack() as stack:
            calls = {
                name: stack.enter_context(capture(module))
                for name, module in self.model.attention.items()
            }
            outputs = self.model.forward(clip)
        if outputs.ndim != 2 or outputs.shape[0] != clip.shape[0]:
            raise ValueError(
                f"expected outputs (B, K) with B={clip.shape[0]}, got {tuple(outputs.shape)}; "
                "pass forward= to Explainable.of to unpack what the module returns"
            )
        weights = {name: at_least_float32(c[0].detach()) for name, c in calls.items() if c}
        return outputs, (at_least_float32(outputs.detach()), weights)

    def result(self) -> tuple[Tensor, dict[str, Tensor]]:
        if self.kept is not None:
            return self.kept
        with torch.no_grad():  # the method never ran the clip as it is
            return self.watched(self.clip)[1]


def target_tensor(
    model: Explainable, target: int | str | Tensor | None, clip: Tensor
) -> Tensor | None:
    if target is None:
        return None
    batch = clip.shape[0]
    if isinstance(target, Tensor):
        if target.is_floating_point() or tuple(target.shape) != (batch,):
            raise ValueError(
                f"expected target as an integer tensor ({batch},), got {target.dtype} "
                f"{tuple(target.shape)}"
            )
        return target.detach().clone().to(clip.device, torch.int64)
    return torch.full((batch,), model.column(target), dtype=torch.int64, device=clip.device)
