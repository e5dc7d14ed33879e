"""What every network promises of its numbers, as checks of one network on small clips."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cam.attribution import Explainable, guard
from lightning_cam.attribution.tensors import fold_frames
from lightning_cam.errors import ConfigError
from lightning_cam.interfaces import ExplainsLayers, FoldsActivations, NamesFrames
from lightning_cam.models.sfm import Views

B, SIZE, PADDED = 2, 64, 3


def same(found: Tensor, expected: Tensor) -> None:
    """Up to rounding: sums over one clip are taken in another order than over a batch."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def clips_for(net: nn.Module) -> Tensor:
    """Two clips of the shortest length that a network takes; one of one length only says so."""
    for frames in (8, 16, 32, 64):
        clips = torch.randn(B, 3, frames, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
        try:
            with torch.no_grad():
                net(clips.clone())
        except ConfigError:
            continue
        return clips
    raise AssertionError("no clip fits")


def columns(outputs: Any, batch: int) -> Tensor:
    """Whatever a network returns that is explained, (B, K)."""
    if isinstance(outputs, Views):
        rows = [outputs.disparities[0], outputs.poses]
        return torch.cat([row.unflatten(0, (batch, -1)).flatten(1) for row in rows], 1)
    assert isinstance(outputs, Tensor), type(outputs)
    return outputs


def run(net: nn.Module, clips: Tensor, *valid: Tensor) -> Tensor:
    """Outputs (B, K) of clips that stay as they are."""
    with torch.no_grad():
        return columns(net(clips.clone(), *valid), len(clips))


def folded(net: nn.Module, layer: str, clips: Tensor) -> Tensor:
    """A layer's activations (B, D, t, h, w), those of all its calls in a row."""
    fold = net.explain_fold if isinstance(net, FoldsActivations) else fold_frames
    model = Explainable.of(net, [layer], fold=fold)
    with torch.no_grad(), guard.capture(net.get_submodule(layer)) as calls:
        net(clips.clone())
    assert calls, f"{layer} is never called"
    return torch.cat([model.folded(call, len(clips), layer) for call in calls], 2)


def layers(net: nn.Module) -> list[str]:
    """All that a network names for explaining; none where the user chooses."""
    found = [*net.explain_layers] if isinstance(net, ExplainsLayers) else []
    if isinstance(net, NamesFrames) and net.explain_frames:
        found.append(net.explain_frames)
    return list(dict.fromkeys(found))


def repeats(net: nn.Module, clips: Tensor) -> None:
    """In eval mode, two runs are equal."""
    assert torch.equal(run(net, clips), run(net, clips)), "two runs differ"


def leaves_the_clip(net: nn.Module, clips: Tensor) -> None:
    given = clips.clone()
    with torch.no_grad():
        net(given)
    assert torch.equal(given, clips), "the clip was changed"


def keeps_clips_apart(net: nn.Module, clips: Tensor) -> None:
    """A clip gives alone what it gives in a batch."""
    alone = torch.cat([run(net, clip) for clip in clips.split(1)])
    same(run(net, clips), alone)
    assert not torch.equal(alone[0], alone[1]), "outputs do not depend on the clip"


def has_gradients(net: nn.Module, clips: Tensor) -> None:
    """What is explained depends on every target layer."""
    for layer in layers(net):
        with guard.explaining(net), guard.capture(net.get_submodule(layer), leaf=True) as calls:
            outputs = net(clips.clone())
            score = columns(outputs, B)
            score = score.sum() if isinstance(outputs, Views) else score[:, 0].sum()
            assert score.requires_grad, f"outputs do not depend on {layer}"
            found = torch.autograd.grad(score, calls, allow_unused=True)
        assert all(g is not None and g.any() for g in found), f"the gradient at {layer} is 0"


def folds_by_clip_and_time(net: nn.Module, clips: Tensor) -> None:
    """Activations of a clip are its own, and lie where its frames do.

    The later half of one clip is changed: the other clip's activations stay, and its own change
    more in their later half than before. Of a part that sees single frames, only there.
    """
    steps = clips.shape[2]
    changed = clips.clone()
    changed[0, :, steps // 2 :] = clips[0, :, steps // 2 :].flip(-1) + 1
    for layer in layers(net):
        before, after = folded(net, layer, clips), folded(net, layer, changed)
        same(after[1], before[1])
        change = (after[0] - before[0]).square().sum((0, 2, 3))  # (t,)
        assert change.any(), f"{layer} does not see the clip"
        early, late = change[: len(change) // 2].sum(), change[len(change) // 2 :].sum()
        assert late > early, f"the frames of {layer} lie elsewhere"
        if isinstance(net, NamesFrames) and layer == net.explain_frames:
            same(early, torch.zeros(()))


def sees_frames_alone(net: nn.Module, clips: Tensor) -> None:
    """With stored activations of the frames, outputs do not depend on the clip."""
    if not isinstance(net, NamesFrames) or not net.explain_frames:
        return
    part = net.get_submodule(net.explain_frames)
    with guard.capture(part) as calls:
        outputs = run(net, clips)
    with guard.replaced(part, [call.clone() for call in calls]):
        again = run(net, clips.flip(0, 2) + 1)
    same(again, outputs)


def ignores_padding(net: nn.Module, clips: Tensor) -> None:
    """Where nothing is padded, `valid` need not be given; and what padded frames hold matters less
    than if they were valid, to a network that sees each frame alone not at all.
    """
    if "valid" not in inspect.signature(net.forward).parameters:
        return
    valid = torch.ones(B, clips.shape[2], dtype=torch.bool)
    same(run(net, clips, valid), run(net, clips))
    valid[1, -PADDED:] = False
    before, plain, padded, seen = run(net, clips, valid), run(net, clips), 0.0, 0.0
    for seed in range(8):  # one alone may matter little by chance
        other = clips.clone()
        other[1, :, -PADDED:] += torch.randn(
            other[1, :, -PADDED:].shape, generator=torch.Generator().manual_seed(seed)
        )
        after = run(net, other, valid)
        padded += float((after - before).norm())
        seen += float((run(net, other) - plain).norm())
    assert padded < seen, "padding counts"
    if isinstance(net, NamesFrames) and net.explain_frames:
        same(after, before)


CONTRACT: tuple[Callable[[nn.Module, Tensor], None], ...] = (
    repeats,
    leaves_the_clip,
    keeps_clips_apart,
    has_gradients,
    folds_by_clip_and_time,
    sees_frames_alone,
    ignores_padding,
)


def check_numbers(net: nn.Module) -> None:
    """Raise an AssertionError where a network, in eval mode, breaks a promise."""
    clips = clips_for(net)
    for promise in CONTRACT:
        promise(net, clips)
