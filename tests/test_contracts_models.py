"""What every network promises: those of the configurations, which are all that the package has."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from commands import choices, node_of
from network_contracts import CONTRACT, check_numbers
from offered import offered
from torch import Tensor, nn

from lightning_cam import models
from lightning_cam.attribution import Explainable
from lightning_cam.attribution.tensors import fold_frames
from lightning_cam.errors import ConfigError
from lightning_cam.interfaces import (
    ExplainsLayers,
    FoldsActivations,
    HasSteps,
    NamesAttention,
    NamesFrames,
    check_network,
    check_part,
    checks,
    offers,
)
from lightning_cam.models.sfm import SfMLearner, Views
from lightning_cam.training.build import build

B, K, SIZE = 2, 5, 64
NETWORKS = choices("model")
LARGE = 10_000_000  # parameters
SLOW = ("mvit_v2_s", "swin3d_t")  # large, and none smaller is of their classes
SMALL = {"width": 4, "hidden": 16, "attention_size": 8, "segments": 4, "frames": 2}


def settings(node: Any) -> Any:
    """A node without weights to be downloaded, for K outputs of three channels."""
    if not isinstance(node, dict):
        return node
    given = {"weights": None, "num_outputs": K, "num_classes": K, "in_channels": 3}
    given |= {"num_frames": 16, "size": SIZE}
    return {key: given.get(key, settings(value)) for key, value in node.items()}


class Passed(NamedTuple):
    """A network, clips it takes, what it returns, and what its parts return."""

    net: nn.Module
    clip: Tensor
    outputs: Any
    parts: dict[str, Any]


def passed(net: nn.Module, names: Iterable[str], *more: Any, device: str) -> Passed:
    """A forward pass in which these parts are watched."""
    parts: dict[str, Any] = {}
    for name in names:
        net.get_submodule(name).register_forward_hook(
            lambda _m, _i, output, name=name: parts.__setitem__(name, output)
        )
    for frames in (16, 32, 8, 64):  # a network of one length only says so
        clip = torch.randn(B, 3, frames, SIZE, SIZE, device=device)
        try:
            return Passed(net, clip, net(clip, *more), parts)
        except ConfigError:
            continue
    raise AssertionError("no clip fits")


def network(name: str, device: str) -> nn.Module:
    torch.manual_seed(0)
    with torch.device(device):
        return build(settings(node_of("model", name))).eval()


@cache
def shapes(name: str) -> Passed:
    """Shapes need no numbers."""
    net = network(name, "meta")
    names = [*net.explain_layers] if isinstance(net, ExplainsLayers) else []
    if isinstance(net, NamesFrames) and net.explain_frames:
        names.append(net.explain_frames)
    if isinstance(net, HasSteps):
        names.append("head")
    return passed(net, names, device="meta")


@pytest.mark.slow
def test_every_network_of_the_package_has_a_configuration() -> None:
    configured = {type(part) for name in NETWORKS for part in shapes(name).net.modules()}
    named = [found for name in models.__all__ if isinstance(found := vars(models)[name], type)]
    assert named
    assert [cls.__name__ for cls in named if cls not in configured] == []


@pytest.mark.parametrize("name", NETWORKS)
def test_no_name_seems_misspelt(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if these were somebody's own classes."""
    monkeypatch.setattr(checks, "_is_own", lambda cls: cls is not object)
    for part in (shapes(name).net, *shapes(name).net.children()):
        check_network(part)
        check_part(part)
        offered(part, (*offers.NETWORK, *offers.PART))


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs(name: str) -> None:
    net, clip, outputs, parts = shapes(name)
    if isinstance(net, SfMLearner):
        assert isinstance(outputs, Views)
        targets = B * (clip.shape[2] - 2 * net.margin)
        assert outputs.disparities[0].shape == (targets, 1, SIZE, SIZE)
        assert outputs.poses.shape == (targets, net.snippet - 1, 6)
        return
    assert outputs.shape == (B, K)
    if isinstance(net, HasSteps):
        outputs, steps = net.forward_steps(clip, None)
        assert outputs.shape == (B, K)
        assert parts["head"].shape == steps.shape == (B, clip.shape[2], K)


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_give_maps_of_each_clip(name: str) -> None:
    net, clip, _, parts = shapes(name)
    if not type(net).__module__.startswith(models.__name__):
        return  # its layers are chosen by the user
    assert isinstance(net, ExplainsLayers) and net.explain_layers
    fold = net.explain_fold if isinstance(net, FoldsActivations) else fold_frames
    model = Explainable.of(net, net.explain_layers, fold=fold)
    for layer in net.explain_layers:
        folded = model.folded(parts[layer], B, layer)
        assert folded.ndim == 5 and folded.shape[0] == B, layer
        assert clip.shape[2] % folded.shape[2] == 0, layer
    if isinstance(net, NamesFrames) and net.explain_frames:
        maps = parts[net.explain_frames]
        assert maps.ndim == 4 and len(maps) == B * clip.shape[2]


@pytest.mark.parametrize("name", NETWORKS)
def test_attention_sums_to_one_over_valid_frames(name: str) -> None:
    net, clip, *_ = shapes(name)
    if not isinstance(net, NamesAttention) or not net.explain_attention:
        return
    net = network(name, "cpu")
    assert isinstance(net, NamesAttention)
    valid = torch.arange(clip.shape[2]) < torch.tensor([[clip.shape[2]], [3]])
    for weights in passed(net, net.explain_attention, valid, device="cpu").parts.values():
        assert weights.shape == valid.shape
        torch.testing.assert_close(weights.sum(1), torch.ones(B))
        assert not weights[~valid].any()


def small(node: Any) -> Any:
    """A node of a network as small as its settings allow."""
    if not isinstance(node, dict):
        return node
    few = {key: SMALL.get(key, small(value)) for key, value in node.items()}
    if "small" not in few.get("backbone", "small"):
        few["backbone"] = "small"
    return few


@cache
def size(name: str) -> tuple[set[type], int]:
    """The network's class and those of the package within it, and how many parameters it has."""
    with torch.device("meta"):
        net = build(settings(small(node_of("model", name))))
    named = {vars(models)[found] for found in models.__all__}
    own = {type(net)} | {type(module) for module in net.modules() if type(module) in named}
    return own, sum(parameter.numel() for parameter in net.parameters())


def instead(name: str) -> list[str]:
    """Smaller configurations of the same classes; none where the network is small itself."""
    classes, parameters = size(name)
    if parameters <= LARGE:
        return []
    lesser = [other for other in NETWORKS if size(other)[1] <= LARGE]
    covered = tuple(cls for other in lesser for cls in size(other)[0])
    if not all(issubclass(cls, covered) for cls in classes):
        return []
    return [other for other in lesser if any(issubclass(c, tuple(size(other)[0])) for c in classes)]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in NETWORKS]
)
def test_numbers(name: str) -> None:
    """On two small clips; of a large network only where no smaller one is of its classes."""
    if smaller := instead(name):
        pytest.skip(f"{size(name)[1]:,} parameters; of the same classes: {', '.join(smaller)}")
    torch.manual_seed(0)
    check_numbers(build(settings(small(node_of("model", name)))).eval())


class Sound(nn.Module):
    """A network that keeps all promises, from which each of those below departs."""

    explain_layers: tuple[str, ...] = ("conv",)
    explain_frames: str = "conv"

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = (nn.Conv2d(3, 8, 3, 2, 1) for _ in range(2))
        self.head = nn.Linear(8, K)

    def vectors(self, clip: Tensor) -> Tensor:
        """Of all frames, (B, T, D)."""
        maps = self.conv(clip.transpose(1, 2).flatten(0, 1))
        return maps.relu().mean((2, 3)).unflatten(0, (len(clip), -1))

    def forward(self, clip: Tensor, valid: Tensor | None = None) -> Tensor:
        vectors = self.vectors(clip)
        shares = torch.ones(vectors.shape[:2]) if valid is None else valid.float()
        return self.head((shares[..., None] * vectors).sum(1) / shares.sum(1, keepdim=True))


class Drops(Sound):
    def vectors(self, clip: Tensor) -> Tensor:
        return nn.functional.dropout(super().vectors(clip), training=True)


class Writes(Sound):
    def forward(self, clip: Tensor, valid: Tensor | None = None) -> Tensor:
        return super().forward(clip.mul_(2), valid)


class Mixes(Sound):
    def vectors(self, clip: Tensor) -> Tensor:
        vectors = super().vectors(clip)
        return vectors - vectors.mean(0)


class Detaches(Sound):
    def vectors(self, clip: Tensor) -> Tensor:
        return super().vectors(clip).detach()


class NamesUnused(Sound):
    explain_layers = ("other",)

    def forward(self, clip: Tensor, valid: Tensor | None = None) -> Tensor:
        self.other(clip.transpose(1, 2).flatten(0, 1))
        return super().forward(clip, valid)


class TimeMajor(Sound):
    def vectors(self, clip: Tensor) -> Tensor:
        maps = self.conv(clip.permute(2, 0, 1, 3, 4).flatten(0, 1))
        return maps.relu().mean((2, 3)).unflatten(0, (-1, len(clip))).transpose(0, 1)


class Backwards(Sound):
    def vectors(self, clip: Tensor) -> Tensor:
        return super().vectors(clip.flip(2)).flip(1)


class SeesMore(Sound):
    def vectors(self, clip: Tensor) -> Tensor:
        return super().vectors(clip) + clip.mean((1, 2, 3, 4))[:, None, None]


class Pads(Sound):
    def forward(self, clip: Tensor, valid: Tensor | None = None) -> Tensor:
        return super().forward(clip)


class CountsFrames(Sound):
    def forward(self, clip: Tensor, valid: Tensor | None = None) -> Tensor:
        return super().forward(clip, valid) + (0 if valid is None else valid.sum())


def test_a_network_that_breaks_a_promise_is_refused() -> None:
    torch.manual_seed(0)
    check_numbers(Sound().eval())
    broken = {
        Drops: "repeats",
        Writes: "leaves_the_clip",
        Mixes: "keeps_clips_apart",
        Detaches: "has_gradients",
        NamesUnused: "has_gradients",
        TimeMajor: "folds_by_clip_and_time",
        Backwards: "folds_by_clip_and_time",
        SeesMore: "sees_frames_alone",
        Pads: "ignores_padding",
        CountsFrames: "ignores_padding",
    }
    assert set(broken) == set(Sound.__subclasses__())
    for cls, promise in broken.items():
        with pytest.raises(AssertionError) as refused:
            check_numbers(cls().eval())
        assert promise in [entry.name for entry in refused.traceback], cls
    assert {check.__name__ for check in CONTRACT} == set(broken.values())
