"""What every network promises: those of the configurations, which are all that the package has."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from commands import choices, node_of
from offered import offered
from torch import Tensor, nn

from lightning_cam import models
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


def settings(node: Any) -> Any:
    """A node without weights to be downloaded, for K outputs of three channels."""
    if not isinstance(node, dict):
        return node
    given = {"weights": None, "num_outputs": K, "num_classes": K, "in_channels": 3}
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
    for layer in net.explain_layers:
        folded = fold(parts[layer], B)
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
