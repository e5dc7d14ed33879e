"""Does the network depend on what the heatmap marks? Deletion and insertion for video.

Petsiuk et al., "RISE", BMVC 2018. The units of a clip (voxels, blocks or whole frames) are ranked
by heat. *Deletion* hides them from the hottest on: the sooner the score falls, the better.
*Insertion* starts from a blurred clip and brings them back: the sooner it rises, the better. After
step s of S the first floor(n s / S) of n units have changed; the area under the curve is taken by
the trapezoidal rule on [0, 1].

Equal heat is ranked at random: a ReLU leaves wide plains of exact zeros, which memory order would
remove from the first frame on. Padded frames are not units; they change with the last step.

What does not depend on the heatmap, the unperturbed clip's score and those of the references, is
`Ends`: computed once, it serves both curves and all heatmaps of a clip. S steps of both cost
2 (S - 1) forwards beside it. Where whole frames are hidden from a network that sees each frame on
its own, the frames' features are computed once, and only the part behind them runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from lightning_cam.attribution.checks import check_clip, check_model, ready
from lightning_cam.attribution.explainable import Explainable, Target
from lightning_cam.attribution.guard import capture, explaining, replaced
from lightning_cam.attribution.perturbation import Runner, answers, reference, rows_at_once
from lightning_cam.attribution.tensors import pick
from lightning_cam.errors import ArgumentError
from lightning_cam.metrics.protocol import IMPUTED, Hiding, Protocol
from lightning_cam.metrics.road import imputed
from lightning_cam.metrics.units import change_steps


@dataclass(frozen=True)
class Curve:
    """Scores of B clips while their units change.

    Attributes:
        fraction: `(S + 1,)`, share of the units that have changed, from 0 to 1.
        score: `(B, S + 1)`, the target's probability (its column for regressors).
        tied: `(B,)`, share of the units whose heat another one also has: these were ranked at
            random.
        clip_first: whether the clip itself is the first point (deletion) or the last (insertion).
    """

    fraction: Tensor
    score: Tensor
    tied: Tensor
    clip_first: bool = True

    @property
    def auc(self) -> Tensor:
        """`(B,)`, area under the curve on [0, 1]."""
        return _area(self.score)

    @property
    def normalised_auc(self) -> Tensor:
        """`(B,)`, area where the clip itself counts as 1 and the other end as 0, and no score more.

        For scores that are not probabilities, in whatever unit. NaN where the ends differ by less
        than 5% of the largest amount on the curve.
        """
        first, last = self.score[:, :1], self.score[:, -1:]
        one, zero = (first, last) if self.clip_first else (last, first)
        area = _area(((self.score - zero) / (one - zero)).clamp(0, 1))
        least = 0.05 * self.score.abs().amax(1)
        return torch.where((one - zero)[:, 0].abs() < least, torch.nan, area)

    def cpu(self) -> Curve:
        """The same curve on the CPU."""
        return replace(
            self, fraction=self.fraction.cpu(), score=self.score.cpu(), tied=self.tied.cpu()
        )


def _area(score: Tensor) -> Tensor:
    return torch.trapezoid(score.double(), dx=1 / (score.shape[1] - 1)).to(score)


@dataclass(frozen=True)
class Ends:
    """What all curves of a batch of clips share: where they begin and end.

    Attributes:
        clip: `(B, C, T, H, W)`.
        target: `(B,)`, the columns scored.
        score: `(B,)`, of the clip itself.
        references: kind -> (reference clip, its score `(B,)`).
        raw: whether these are scores of columns rather than probabilities.
        features: of single frames, kind (`""`: of the clip itself) -> `(B, T, D, h, w)`; empty
            where the network does not see each frame on its own, or no whole frames are hidden.
    """

    clip: Tensor
    target: Tensor
    score: Tensor
    references: Mapping[str, tuple[Tensor, Tensor]]
    raw: bool = False
    features: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: Explainable,
        clip: Tensor,
        target: Target | None = None,
        *,
        protocol: Protocol | str = "default",
        kinds: tuple[Literal["deleted", "inserted"], ...] = ("deleted", "inserted"),
        outputs: Tensor | None = None,
    ) -> Ends:
        """Run the unperturbed clip and the references: three forwards.

        Args:
            model: see `explain`.
            clip: `(B, C, T, H, W)` in model space.
            target: as in `explain`; None: the predicted columns.
            protocol: names the baselines.
            kinds: for which curves.
            outputs: the network's outputs for the clip `(B, K)`, where they are known
                (`Explanation.outputs`); saves one of the forwards.
        """
        protocol = Protocol.of(protocol)
        with ready(model, clip) as (model, clip):
            runner = Runner(model, clip, protocol.batch, bf16=protocol.bf16)
            features: dict[str, Tensor] = {}
            if protocol.frame_wise and model.frames is not None:
                outputs, features[""] = _watched(model, runner, clip)
            elif outputs is None:
                outputs = runner.forward(clip.clone())  # it may work in place on what it is given
            outputs = outputs.to(clip.device)
            columns = model.resolve(target, outputs)
            score = pick(answers(model, outputs, raw=protocol.raw), columns)
        alone = cls(clip, columns, score, {}, protocol.raw, features)
        return alone.with_references(model, protocol, kinds)

    def with_references(
        self,
        model: Explainable,
        protocol: Protocol,
        kinds: tuple[Literal["deleted", "inserted"], ...],
    ) -> Ends:
        """These ends, and those of other curves of the same clip: a forward for each reference."""
        asked = dict.fromkeys(getattr(protocol, name) for name in kinds)
        missing = [kind for kind in asked if kind not in self.references]
        if not missing:
            return self
        references, features = dict(self.references), dict(self.features)
        with explaining(model.module):
            runner = Runner(model, self.clip, protocol.batch, bf16=protocol.bf16)
            for kind in missing:
                other = _reference(model, self.clip, kind)
                if features:
                    found, features[kind] = _watched(model, runner, other)
                else:
                    found = runner.forward(other.clone())
                score = pick(answers(model, found, raw=protocol.raw), self.target)
                references[kind] = other, score
        return replace(self, references=references, features=features)


def deletion(
    model: Explainable,
    clip: Tensor,
    heatmap: Tensor,
    target: Target | None = None,
    steps: int | None = None,
    *,
    protocol: Protocol | str = "default",
    ends: Ends | None = None,
    **settings: Any,
) -> Curve:
    """The score while the hottest units of a clip are hidden; a small area is good.

    Leaves the network as it was, like `explain`.

    Args:
        model: see `explain`.
        clip: `(B, C, T, H, W)` in model space.
        heatmap: `(B, T, H, W)`.
        target: as in `explain`; None: the predicted columns.
        steps: S; None: the protocol's.
        protocol: a `Protocol` or the name of one: `"default"`, `"bayer2022"` (Bayer et al., 2022),
            `"rise"` (Petsiuk et al., 2018).
        ends: of this clip and target, to share forwards between curves.
        **settings: of the protocol, to be changed: `unit="frame"`, `order="least"`, ...

    Raises:
        ValueError: shapes do not fit, the heatmap is not finite, or there are fewer units than
            steps.

    Example:
        >>> deletion(model, clip, explain(model, GradCAM(), clip).heatmap, steps=20).auc
    """
    return _curve("deleted", model, clip, heatmap, target, steps, protocol, ends, settings)


def insertion(
    model: Explainable,
    clip: Tensor,
    heatmap: Tensor,
    target: Target | None = None,
    steps: int | None = None,
    *,
    protocol: Protocol | str = "default",
    ends: Ends | None = None,
    **settings: Any,
) -> Curve:
    """The score while the hottest units come back into a blurred clip; a large area is good.

    Arguments as for `deletion`.
    """
    return _curve("inserted", model, clip, heatmap, target, steps, protocol, ends, settings)


def _curve(
    which: Literal["deleted", "inserted"],
    model: Explainable,
    clip: Tensor,
    heatmap: Tensor,
    target: Target | None,
    steps: int | None,
    protocol: Protocol | str,
    ends: Ends | None,
    settings: dict[str, Any],
) -> Curve:
    protocol = Protocol.of(protocol, **({} if steps is None else {"steps": steps}), **settings)
    check_model(model)
    check_clip(model, clip)
    expected = (clip.shape[0], *clip.shape[2:])
    if not isinstance(heatmap, Tensor):
        raise ArgumentError(
            f"expected a heatmap as a tensor {expected}, got {type(heatmap).__name__}; "
            "explain(...).heatmap is one"
        )
    if heatmap.shape != expected:
        raise ArgumentError(
            f"expected a clip (B, C, T, H, W) and its heatmap {expected}, got "
            f"{tuple(clip.shape)} and {tuple(heatmap.shape)}"
        )
    if not bool(heatmap.isfinite().all()):
        raise ArgumentError("the heatmap is not finite, so nothing can be ranked by it")
    ends = _ends(which, model, clip, target, protocol, ends)
    score = ends.references[getattr(protocol, which)][1]
    steps = protocol.steps
    if protocol.voxels is not None:
        steps = -(-heatmap[0].numel() // protocol.voxels)
    heatmap = heatmap.detach().to(ends.clip.device)
    heatmap = heatmap if heatmap.dtype == torch.float64 else heatmap.float()
    bucket, tied = change_steps(model, heatmap, protocol, steps)
    deleting = which == "deleted"
    points = [ends.score[:, None], score[:, None]]
    if steps > 1:
        points.insert(1, _between(model, ends, which, bucket, steps, protocol))
    curve = torch.cat(points if deleting else points[::-1], 1)
    if not bool(curve.isfinite().all()):
        raise ValueError("the network's scores of perturbed clips are not finite")
    fraction = torch.linspace(0, 1, steps + 1, device=curve.device)
    return Curve(fraction, curve, tied, deleting)


def _between(
    model: Explainable,
    ends: Ends,
    which: Literal["deleted", "inserted"],
    bucket: Tensor,
    steps: int,
    protocol: Protocol,
) -> Tensor:
    """Scores (B, S - 1) with the first 1 ... S - 1 of the S buckets changed."""
    kind = getattr(protocol, which)
    deleting = which == "deleted"
    other = ends.references[kind][0]
    first, last = (ends.clip, other) if deleting else (other, ends.clip)

    def fill(rows: Tensor, start: int) -> None:
        for s, row in enumerate(rows, start + 1):
            if kind in IMPUTED:
                hidden = bucket <= s if deleting else bucket > s
                row.copy_(imputed(ends.clip, hidden, time=kind == "road_time"))
            else:
                torch.where((bucket <= s)[:, None], last, first, out=row)

    with explaining(model.module), torch.no_grad():
        runner = Runner(model, ends.clip, protocol.batch, bf16=protocol.bf16)
        if protocol.frame_wise and ends.features:
            a, b = (ends.features[k] for k in (("", kind) if deleting else (kind, "")))
            found = _frame_wise(model, runner, a, b, bucket, range(1, steps))
        else:
            found = runner(steps - 1, fill)  # (S - 1, B, K)
    answer = answers(model, found.flatten(0, 1), raw=protocol.raw)
    return pick(answer, ends.target.repeat(steps - 1)).unflatten(0, (steps - 1, -1)).T


def _reference(model: Explainable, clip: Tensor, kind: Hiding) -> Tensor:
    """The clip with all of it hidden."""
    if kind == "road" or kind == "road_time":
        return imputed(clip, torch.ones_like(clip[:, 0], dtype=torch.bool))
    return reference(model, clip, kind)


def _ends(
    which: Literal["deleted", "inserted"],
    model: Explainable,
    clip: Tensor,
    target: Target | None,
    protocol: Protocol,
    ends: Ends | None,
) -> Ends:
    """The ends given, if they are those of this clip, target and protocol; or new ones."""
    if ends is None:
        ends = Ends.of(model, clip, target, protocol=protocol, kinds=(which,))
    elif target is not None and not torch.equal(model.columns(target, ends.clip), ends.target):
        raise ValueError("these ends are of another target; make them with Ends.of(target=...)")
    kind = getattr(protocol, which)
    if ends.clip.shape != clip.shape or kind not in ends.references or ends.raw != protocol.raw:
        raise ValueError(
            f"these ends are of another clip or protocol: {tuple(ends.clip.shape)}, "
            f"{', '.join(ends.references)}, raw={ends.raw}; make them with Ends.of(protocol=...)"
        )
    return ends


def _watched(model: Explainable, runner: Runner, clip: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs, and the features of single frames `(B, T, D, h, w)`."""
    with capture(cast(nn.Module, model.frames), alone=True) as calls:
        outputs = runner.forward(clip.clone())  # it may work in place on what it is given
    return outputs, calls[0].unflatten(0, (len(clip), -1))


def _frame_wise(
    model: Explainable, runner: Runner, first: Tensor, last: Tensor, bucket: Tensor, steps: range
) -> Tensor:
    """Outputs `(S - 1, B, K)` while whole frames' features go from `first` to `last`."""
    changed = bucket[:, :, 0, 0, None, None, None]  # (B, T, 1, 1, 1)
    size = rows_at_once(first, runner.batch)
    if first.is_cuda:  # a network may copy the clip before it comes to the features
        size = min(size, runner.copies)
    found = []
    for start in range(0, len(steps), size):
        rows = steps[start : start + size]
        features = torch.stack([torch.where(changed <= s, last, first) for s in rows])
        # The clip itself is not looked at, but its size may be.
        blank = runner.clip[:1].expand(len(rows) * len(bucket), -1, -1, -1, -1)
        with replaced(cast(nn.Module, model.frames), [features.flatten(0, 2)]):
            found.append(runner.forward(blank).unflatten(0, (len(rows), -1)))
    return torch.cat(found)
