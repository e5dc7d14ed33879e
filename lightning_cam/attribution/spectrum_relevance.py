"""Which spectrum mattered: on which channels of a fused clip a decision rests, and when.

A clip x of registered channels (red, green, blue and infrared, say) is seen as spectra, groups of
channels G_s; r is the baseline that stands for "nothing to be seen" (black). Two measures a_{s,t}
of what spectrum s has to do with column c in frame t:

*Gradient*, with the column y_c as it is (a logit):

    a_{s,t} = sum_{k in G_s, i, j} |dy_c/dx_{k,t,i,j} (x_{k,t,i,j} - r_{k,t,i,j})|

*Perturbation*, with the probability p_c, and x with spectrum s hidden in the frames of window w,
all other spectra left as they are, x[s,w]:

    d_{s,w} = p_c(x) - p_c(x[s,w])
    a_{s,t} = mean over the w that hold t of max(d_{s,w}, 0) / |w|

    share_{s,t} = a_{s,t} / sum_{s',t'} a_{s',t'}      of either measure

The number for a table: by the gradient `total_s = sum_t share_{s,t}`; by perturbation, whole
spectra are hidden, from the first frame to the last:

    d_s = p_c(x) - p_c(x[s,all]),        total_s = max(d_s, 0) / sum_{s'} max(d_{s'}, 0)

**Probability drops do not add up** where spectra act together. If both are needed, each d_s is as
large as the drop without any spectrum, `drop_all`; if either suffices, each is 0 though `drop_all`
is not. So the drops themselves are in the result, with their signs. A gradient sees neither: it
asks what a little more or less of a spectrum would do, and fades where the network is saturated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_cam.attribution.checks import check_clip, check_model, ready
from lightning_cam.attribution.doubt import Doubt, reasons
from lightning_cam.attribution.explainable import Explainable, Target
from lightning_cam.attribution.perturbation import Reference, Runner, answers, reference
from lightning_cam.attribution.tensors import at_least_float32, gradients

SpectrumMeasure = Literal["gradient", "perturbation"]
SPECTRUM_MEASURES: tuple[SpectrumMeasure, ...] = get_args(SpectrumMeasure)
_Groups = dict[str, list[int]]  # spectrum -> its channels
_Target = Target | None


@dataclass(frozen=True)
class SpectrumRelevance:
    """What `spectrum_relevance` returns.

    Attributes:
        spectra: the S names, in the order of the axis S.
        share: `(B, S, T)`, of the clip's relevance what lies in each spectrum and frame. Sums to 1
            over S and T; 0 throughout for a clip where nothing matters (or whose outputs are not
            finite), and always 0 on padded frames.
        total: `(B, S)`, each spectrum's share of the whole clip. Sums to 1, or is 0 throughout.
        target: `(B,)`, the columns explained.
        drop: `(B, S)`, by how much the probability (a regressor's column) drops when the spectrum
            is hidden throughout; negative where it rises. None for the gradient.
        drop_all: `(B,)`, the same with all spectra hidden. None for the gradient.
        window_drop: `(B, S, W)`, the same with the spectrum hidden in one window of frames. None
            for the gradient.
        windows: the W windows as (first frame, one past the last frame).
    """

    spectra: tuple[str, ...]
    share: Tensor
    total: Tensor
    target: Tensor
    drop: Tensor | None = None
    drop_all: Tensor | None = None
    window_drop: Tensor | None = None
    windows: tuple[tuple[int, int], ...] = ()

    @property
    def doubts(self) -> tuple[str, ...]:
        """B reasons why the clip's shares are not to be trusted, "" where there is none.

        Drops know what they miss: where spectra stand in for each other, hiding all of them costs
        more than what hiding each costs together.
        """
        if self.drop is None or self.drop_all is None:
            return ("",) * len(self.target)
        alone, together = self.drop.clamp(min=0).sum(1), self.drop_all
        missed = torch.where(together > alone, 1 - alone / together, 0)
        said = "hiding spectra one by one misses {missed:.0%} of what hiding all of them costs"
        outputs = {"the network's outputs": together[:, None]}
        return reasons((Doubt("missed", said),), {"missed": missed}, outputs)

    @property
    def mixture(self) -> Tensor:
        """`(B, S, T)`, each frame's own division: sums to 1 over S, 0 where nothing matters."""
        return _shares(self.share, self.share.sum(1, keepdim=True))


def spectrum_relevance(
    model: Explainable,
    clip: Tensor,
    spectra: Mapping[str, Sequence[int]],
    target: Target | None = None,
    method: SpectrumMeasure = "gradient",
    *,
    hidden: Reference = "black",
    window: int | None = None,
    stride: int | None = None,
    batch: int | None = None,
) -> SpectrumRelevance:
    """How much each spectrum of a fused clip has to do with a column, over time.

    The measures are defined at the head of this file. The gradient costs one
    forward and one backward of the whole network; perturbation S·W + S + 2 forwards, at most 18 for
    two spectra unless `window` or `stride` is given. As in `explain`, the network is left as found.

    Args:
        model: what to explain; `model.black` is the baseline that stands for nothing.
        clip: `(B, C, T, H, W)` in model space.
        spectra: name -> its channels, as in the data's `spectra`: `{"tv": (0, 1, 2), "ir": (3,)}`.
            Channels that are in none are left alone and count for nothing.
        target: as in `explain`.
        method: `"gradient"` or `"perturbation"`.
        hidden: the baseline r, see `attribution.perturbation.reference`.
        window: frames hidden at once by the perturbation; None: a quarter of the clip.
        stride: frames from one window to the next, the last window ending with the clip; None: half
            a window.
        batch: rows that go through the network together; None: as many as fill the device.

    Raises:
        ArgumentError: the model, the clip or the target is of a wrong kind, as in `explain`.
        ValueError: an unknown method, channels that the clip has not or that belong to
            two spectra, windows that leave frames out.

    Example:
        >>> found = spectrum_relevance(model, clip, data.spectra, method="perturbation")
        >>> dict(zip(found.spectra, found.drop[0].tolist()))
        {'tv': 0.61, 'ir': 0.08}
    """
    check_model(model)
    check_clip(model, clip)
    if method not in SPECTRUM_MEASURES:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(SPECTRUM_MEASURES)}")
    groups = _groups(spectra, clip.shape[1])
    windows = _windows(clip.shape[2], window, stride)
    with ready(model, clip) as (model, clip):
        nothing = reference(model, clip, hidden)
        if method == "gradient":
            return _by_gradient(model, clip, groups, target, nothing)
        return _by_perturbation(model, clip, groups, target, nothing, windows, batch)


def _by_gradient(
    model: Explainable, clip: Tensor, groups: _Groups, target: _Target, nothing: Tensor
) -> SpectrumRelevance:
    leaf = clip.clone().requires_grad_()
    outputs = model.forward(leaf)
    columns = model.resolve(target, outputs)
    (gradient,) = gradients(model.score(outputs, columns), [leaf])
    voxels = (at_least_float32(gradient) * at_least_float32(clip - nothing)).abs()
    frames = voxels.sum((3, 4))  # (B, C, T)
    amount = torch.stack([frames[:, group].sum(1) for group in groups.values()], 1)  # (B, S, T)
    amount = _without_padding(model, amount)
    each = amount.sum(2)
    whole = each.sum(1, keepdim=True)
    return SpectrumRelevance(
        tuple(groups), _shares(amount, whole[..., None]), _shares(each, whole), columns
    )


def _by_perturbation(
    model: Explainable,
    clip: Tensor,
    groups: _Groups,
    target: _Target,
    nothing: Tensor,
    windows: Sequence[tuple[int, int]],
    batch: int | None,
) -> SpectrumRelevance:
    steps, count = clip.shape[2], len(groups)
    everything = [channel for group in groups.values() for channel in group]
    hides = [(group, a, b) for group in groups.values() for a, b in windows]
    hides += [(group, 0, steps) for group in [*groups.values(), everything]]

    def fill(rows: Tensor, start: int) -> None:
        rows.copy_(clip.expand_as(rows))
        for row, (channels, a, b) in zip(rows, hides[start:], strict=False):
            row[:, channels, a:b] = nothing[:, channels, a:b]

    runner = Runner(model, clip, batch)
    outputs = runner.forward(clip)
    columns = model.resolve(target, outputs)
    first = model.score(answers(model, outputs), columns)[:, None]  # (B, 1)
    found = torch.stack(
        [model.score(answers(model, row), columns) for row in runner(len(hides), fill)], 1
    )  # (B, S·W + S + 1)
    drop = first - found
    # A network that ignores a spectrum still answers with other rounding in a larger batch.
    # GPUs choose other algorithms for it, and their convolutions may round to 11 bits (TF32).
    eps = 1e-3 if clip.is_cuda else torch.finfo(clip.dtype).eps ** 0.75
    noise = eps * torch.maximum(first.abs(), found.abs())
    counted = torch.where(drop > noise, drop, 0)
    parts = [count * len(windows), count, 1]
    in_windows, each, _ = counted.split(parts, 1)
    amount = _spread(model, in_windows.unflatten(1, (count, -1)), windows, steps)
    window_drop, spectrum_drop, drop_all = drop.split(parts, 1)
    return SpectrumRelevance(
        tuple(groups),
        _shares(amount, amount.sum((1, 2), keepdim=True)),
        _shares(each, each.sum(1, keepdim=True)),
        columns,
        spectrum_drop,
        drop_all[:, 0],
        window_drop.unflatten(1, (count, -1)),
        tuple(windows),
    )


def _spread(
    model: Explainable, drops: Tensor, windows: Sequence[tuple[int, int]], steps: int
) -> Tensor:
    """Drops `(B, S, W)` on the frames `(B, S, T)` of their windows."""
    frame = torch.arange(steps, device=drops.device)
    inside = torch.stack([(a <= frame) & (frame < b) for a, b in windows]).to(drops)  # (W, T)
    valid = model.valid_for(drops)
    length = inside.sum(1) if valid is None else valid.to(drops) @ inside.T  # (W,) or (B, W)
    per_frame = drops / length.clamp(min=1).reshape(-1, 1, len(windows))
    return _without_padding(model, per_frame @ inside / inside.sum(0))


def _without_padding(model: Explainable, amount: Tensor) -> Tensor:
    """Relevance `(B, S, T)` with exactly 0 on padded frames."""
    valid = model.valid_for(amount)
    return amount if valid is None else amount.masked_fill(~valid[:, None], 0)


def _shares(amount: Tensor, whole: Tensor) -> Tensor:
    """Parts of a whole; 0 where there is none, and where it is not finite."""
    some = whole.isfinite() & (whole > 0)
    return torch.where(some, amount / torch.where(some, whole, 1), 0)


def _groups(spectra: Mapping[str, Sequence[int]], channels: int) -> _Groups:
    groups = {name: list(group) for name, group in spectra.items()}
    if not groups or not all(groups.values()):
        raise ValueError(f"spectra must name at least one channel each, got {dict(spectra)}")
    members = [channel for group in groups.values() for channel in group]
    if len(set(members)) < len(members) or not all(0 <= c < channels for c in members):
        raise ValueError(
            f"spectra must name different channels from 0 to {channels - 1}, got {dict(spectra)}"
        )
    return groups


def _windows(steps: int, window: int | None, stride: int | None) -> list[tuple[int, int]]:
    """(first, one past the last) frame of windows that hold every frame, at most 7 by default."""
    window = -(-steps // 4) if window is None else min(window, steps)
    stride = -(-window // 2) if stride is None else stride
    if not 1 <= stride <= window:
        raise ValueError(
            f"windows of {window} frames every {stride} leave frames out; choose a window of at "
            "least 1 and a stride from 1 to the window"
        )
    starts = [*range(0, steps - window, stride), steps - window]
    return [(start, start + window) for start in starts]
