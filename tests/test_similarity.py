"""Networks without classes: one number a clip, and embeddings compared with a reference."""

from __future__ import annotations

import pytest
import torch
from nets import Gap3d, assert_same, clip_of, describe, state
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.errors import ArgumentError


def clips() -> Tensor:
    return clip_of(2, 3, 4, 8, 8)


class Speed(Gap3d):
    """One number a clip, (B,)."""

    def __init__(self) -> None:
        super().__init__(outputs=1)

    def forward(self, clip: Tensor) -> Tensor:
        return super().forward(clip)[:, 0]


@pytest.mark.attack
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize(
    "method", [lc.GradCAM(), lc.RISE(8), lc.Occlusion(), lc.IntegratedGradients(steps=2)], ids=str
)
def test_a_number_a_clip_is_one_column(method: lc.Attribution, rows: int) -> None:
    """A regressor that returns (B,), also with one clip in the batch."""
    net = Speed().eval()
    made = describe(net, forward=lambda c: Gap3d.forward(net, c), probability=None)
    found, expected = (
        lc.explain(model, method, clips()[:rows])
        for model in (describe(net, outputs=["speed"], probability=None), made)
    )
    assert torch.equal(found.heatmap, expected.heatmap) and found.heatmap.any()
    assert found.outputs.shape == (rows, 1) and found.target.tolist() == [0] * rows


def test_a_number_for_all_clips_is_not_a_number_a_clip() -> None:
    model = describe(net := Gap3d(), forward=lambda clip: net(clip).mean())
    with pytest.raises(ArgumentError, match=r"expected outputs \(B, K\) with B=2, got \(\)"):
        lc.explain(model, lc.GradCAM(), clips())


def test_similarity_to_a_reference_is_explained_by_its_own_gradient() -> None:
    """cos(e, r) with e = W mean(A): the gradient to A is W^T (r/|r| - cos e/|e|) / (|e| Z)."""
    net, reference = Gap3d(outputs=5).eval(), clip_of(1, 3, 4, 8, 8, seed=1)
    forward = lc.similarity_to(net, reference)
    model = describe(net, forward=forward, outputs=["similarity"], probability=None)
    e = lc.explain(model, lc.GradCAM(relu=False), clips())
    kept: list[Tensor] = []
    net.layer.register_forward_hook(lambda _m, _i, output: kept.append(output))
    with torch.no_grad():
        r, y = net(reference)[0], net(clips())
    a, size = kept[1], y.norm(dim=1, keepdim=True)
    cosine = y @ r / r.norm() / size[:, 0]
    torch.testing.assert_close(e.outputs[:, 0], cosine)
    slope = (r / r.norm() - cosine[:, None] * y / size) / size @ net.fc.weight / a[0, 0].numel()
    cam = torch.einsum("bd,bdthw->bthw", slope.detach(), a)
    expected = torch.nn.functional.interpolate(cam[:, None], clips().shape[2:], mode="trilinear")
    torch.testing.assert_close(e.heatmap, expected[:, 0])


def test_a_clip_is_as_similar_as_can_be_to_itself_and_references_are_columns() -> None:
    net = Gap3d(outputs=5).train()
    before = state(net)
    forward = lc.similarity_to(net, clips())
    assert_same(before, state(net))
    model = describe(net, forward=forward, outputs=["first", "second"], probability=None)
    e = lc.explain(model, lc.Occlusion(), clips())
    torch.testing.assert_close(e.outputs.diag(), torch.ones(2))
    assert (e.outputs.abs() <= 1 + 1e-6).all() and e.target.tolist() == [0, 1]
    assert (e.heatmap >= -1e-6).all()  # whatever is hidden, it is less similar


@pytest.mark.parametrize("net", [nn.Identity(), nn.Flatten(0)], ids=["a clip", "no batch"])
def test_a_network_without_embeddings_is_refused(net: nn.Module) -> None:
    with pytest.raises(ArgumentError, match=r"expected outputs \(B, K\) with B=2"):
        lc.similarity_to(net, clips())
