"""A layer's layout as one string: undone exactly, and refused in words where it does not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_families import small_mvit
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.video.swin_transformer import SwinTransformer3d

import lightning_cam as lc
from lightning_cam.attribution.layout import Layout
from lightning_cam.attribution.tensors import fold_frames
from lightning_cam.commands.search import composed
from lightning_cam.errors import UserError
from lightning_cam.tasks import VideoClassification

SIZES = {"b": 2, "t": 3, "h": 4, "w": 5, "d": 6}


@settings(max_examples=80, deadline=None)
@given(st.permutations("bthwd"), st.data())
def test_any_order_and_grouping_is_undone_exactly(order: list[str], data: st.DataObject) -> None:
    wanted = torch.arange(2 * 6 * 3 * 4 * 5.0, dtype=torch.float64).view(2, 6, 3, 4, 5)
    given_ = wanted.permute(["bdthw".index(axis) for axis in order])
    cuts = data.draw(st.lists(st.booleans(), min_size=4, max_size=4))
    groups = [order[0]]
    for axis, cut in zip(order[1:], cuts, strict=True):
        groups = [*groups, axis] if cut else [*groups[:-1], groups[-1] + axis]
    text, shape, around = [], [], []
    for group in groups:
        lead, trail = (0 if "b" in group else data.draw(st.integers(0, 2)) for _ in range(2))
        inner = (f"{lead} + " if lead else "") + " ".join(group) + (f" + {trail}" if trail else "")
        text.append(f"({inner})" if lead or trail or len(group) > 1 else inner)
        shape.append(int(torch.tensor([SIZES[axis] for axis in group]).prod()))
        around.append((lead, trail))
    given_ = given_.reshape(shape)
    for axis, sizes in enumerate(around):
        before, behind = (
            given_.new_full([size if i == axis else n for i, n in enumerate(given_.shape)], -1)
            for size in sizes
        )
        given_ = torch.cat([before, given_, behind], axis)
    given_.requires_grad_()
    found = Layout.of(" ".join(text), (3, 4, 5)).fold(given_, 2, "x")
    assert torch.equal(found, wanted)
    found.sum().backward()  # 1 where a place of the map lies, 0 at other tokens
    assert given_.grad is not None and torch.equal(given_.grad, (given_ >= 0).double())


def test_pieces_of_a_clip_are_joined_in_order() -> None:
    clip = torch.randn(2, 6, 8, 4, 5)
    pieces = clip.unflatten(2, (4, 2)).transpose(1, 2).flatten(0, 1)  # (b p) d t h w
    assert torch.equal(Layout.of("(b p) d t h w").fold(pieces, 2, "x"), clip)
    assert not Layout.of("(b p) d t h w").single


@pytest.mark.parametrize(
    ("text", "single"),
    [("(b t) h w d", True), ("(t b) d h w", True), ("b h w d", True), ("b (1 + t h w) d", False)],
)
def test_t_joined_to_b_is_single_frames(text: str, single: bool) -> None:
    assert Layout.of(text).single is single


@pytest.mark.attack
@pytest.mark.parametrize(
    ("text", "grid", "says"),
    [
        ("b t h w", None, "lacks the axis 'd'"),
        ("b b t h w d", None, "'b' twice"),
        ("b c t h w d", None, "the axis 'c'"),
        ("b (t h w d", None, r"from '\(t h w d' on"),
        ("b ((t h) w) d", None, "cannot be read"),
        ("b (t h w + ) d", None, "cannot be read"),
        ("(b t + 1) h w d", None, "among the clips"),
        ("bthwd", None, "cannot be read"),
        ("", None, "lacks the axis"),
        (5, None, "a layout is a text"),
        ("(1 + b t) h w d", None, "among the clips"),
        ("b (t h w) d", (8, 14), "three positive numbers"),
        ("b (t h w) d", 8, "three positive numbers"),
        ("b (t h w) d", (8, 0, 14), "three positive numbers"),
    ],
)
def test_malformed_layouts(text: str, grid: object, says: str) -> None:
    """Layouts that lack, repeat or invent an axis, unbalanced parentheses, grids that are none."""
    with pytest.raises(UserError, match=says):
        lc.Explainable.of(nn.Identity(), [], layout=text, grid=grid)  # type: ignore[arg-type]


@pytest.mark.attack
@pytest.mark.parametrize(
    ("shape", "grid", "says"),
    [
        ((2, 25, 6), None, "sizes of t and h and w"),
        ((2, 24, 6), (2, 3, 4), "23, expected t=2 x h=3 x w=4"),
        ((2, 25, 6, 1), (2, 3, 4), "4 axes, not 3"),
        ((3, 25, 6), (2, 3, 4), "3, expected b=2"),
    ],
)
def test_shapes_that_do_not_fit(shape: tuple[int, ...], grid: object, says: str) -> None:
    """A layer whose shape is not that of its layout: the error names layer, shape and grid."""
    layout = Layout.of("b (1 + t h w) d", grid)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=rf"'blocks\.2' returns \({shape[0]}.*grid .*{says}"):
        layout.fold(torch.zeros(shape), 2, "blocks.2")


@pytest.mark.attack
@pytest.mark.parametrize(("tokens", "first"), [(9, 0), (10, 1), (11, 2)])
def test_tokens_of_frames_are_told_a_layout_that_fits(tokens: int, first: int) -> None:
    """Tokens by frames without a layout: what is proposed can be pasted."""
    found = torch.randn(2 * 3, tokens, 5)
    with pytest.raises(UserError, match=r"the layout .* with the grid \(3, 3, 3\)") as said:
        fold_frames(found, 2)
    text = str(said.value).split('"')[1]
    wanted = found[:, first:].unflatten(0, (2, 3)).unflatten(2, (3, 3)).permute(0, 4, 1, 2, 3)
    assert torch.equal(Layout.of(text, (3, 3, 3)).fold(found, 2, "x"), wanted)


def test_a_grid_without_a_layout_and_a_layout_of_no_layer_are_refused() -> None:
    with pytest.raises(UserError, match="with a layout only"):
        lc.Explainable.of(nn.Identity(), [], grid=(1, 2, 3))
    with pytest.raises(UserError, match="no layer 'nope'"):
        lc.Explainable.of(nn.Identity(), [], layout={"nope": "b d t h w"})


class Tokens(nn.Module):
    """Two tokenised layers of different layouts; the first returns a tuple."""

    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, str]:
            return x, "kept"

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.last = self.Pair(), nn.Identity()
        self.head = nn.Linear(3, 4)

    def forward(self, clip: Tensor) -> Tensor:
        rows, kept = self.tokens(clip.flatten(2).transpose(1, 2))  # b (t h w) d
        assert kept == "kept"
        x = self.last(rows.unflatten(1, clip.shape[2:]).tanh().permute(1, 0, 2, 3, 4))  # t b h w d
        return self.head((x * x.roll(1, 0)).mean((0, 2, 3)))


def test_a_layout_for_each_layer_and_tuples() -> None:
    torch.manual_seed(0)
    net, clip = Tokens(), torch.randn(2, 3, 4, 5, 6)
    layouts = {"tokens": "b (t h w) d", "last": "t b h w d"}
    model = lc.Explainable.of(net, ["tokens", "last"], layout=layouts, grid=(4, 5, 6))
    target = torch.tensor([1, 2])
    for layer, into in (("tokens", clip), ("last", clip.tanh())):
        leaf = into.clone().requires_grad_()
        x = leaf.tanh() if layer == "tokens" else leaf
        y = net.head((x * x.roll(1, 2)).mean((2, 3, 4)))
        (grad,) = torch.autograd.grad(y[[0, 1], target].sum(), leaf)
        wanted = (grad.mean((2, 3, 4), keepdim=True) * into).sum(1)
        found = lc.explain(model, lc.GradCAM(layer=layer, relu=False), clip, target).heatmap
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_a_task_takes_layouts_as_yaml_gives_them_and_lists_them() -> None:
    node = composed(
        "train",
        [
            'task.layout={tokens: "b (t h w) d", last: "t b h w d"}',
            "task.grid=[4,5,6]",
            "task.layers=[tokens,last]",
        ],
    ).task
    task = VideoClassification(
        Tokens(), classes=list("abcd"), layers=node.layers, layout=node.layout, grid=node.grid
    )
    model = task.explainable()
    found = {layer.name: layer for layer in lc.list_layers(model, torch.randn(2, 3, 4, 5, 6))}
    for name, layout in (("tokens", "b (t h w) d"), ("last", "t b h w d")):
        assert found[name].shape == (2, 3, 4, 5, 6) and found[name].stride == (1, 1, 1)
        assert model.laid_out(name) == Layout.of(layout, (4, 5, 6))


def test_a_task_refuses_a_layout_at_once() -> None:
    with pytest.raises(UserError, match="lacks the axis 'd'"):
        VideoClassification(Tokens(), classes=list("abcd"), layers=["last"], layout="b t h w")


class ByFrames(nn.Module):
    """A 2-D network on frames folded into the batch, or one by one."""

    def __init__(self, trunk: nn.Module, looped: bool) -> None:
        super().__init__()
        self.trunk, self.looped = trunk, looped

    def forward(self, clip: Tensor) -> Tensor:
        frames = clip.transpose(1, 2)
        if self.looped:
            return torch.stack([self.trunk(frame) for frame in frames.unbind(1)], 1).mean(1)
        return self.trunk(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).mean(1)


def small_swin(kind: Callable[..., nn.Module], axes: int) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"patch_size": [2] * axes, "window_size": [2] * axes}
    return kind(embed_dim=8, depths=[2, 2], num_heads=[2, 2], num_classes=4, **sizes).eval()


@pytest.mark.parametrize("kind", ["3-D", "folded", "looped"])
@pytest.mark.parametrize("layer", [None, "features.0"])
def test_swin_is_known_by_itself(kind: str, layer: str | None) -> None:
    if kind == "3-D":
        net, start = small_swin(SwinTransformer3d, 3), ""
        layer = layer and "patch_embed"
    else:
        net, start = ByFrames(small_swin(SwinTransformer, 2), kind == "looped"), "trunk."
    layer = layer and start + layer
    clip, target = torch.randn(2, 3, 4, 16, 16), torch.tensor([1, 2])
    kept: list[Tensor] = []
    part = net.get_submodule(layer or start + "norm")
    handle = part.register_forward_hook(lambda m, i, out: kept.append(out))
    score = net(clip)[[0, 1], target].sum()
    handle.remove()
    found = torch.autograd.grad(score, kept)

    def fold(calls: Sequence[Tensor]) -> Tensor:
        rows = torch.stack(tuple(calls), 1) if kind == "looped" else calls[0]
        return (rows.unflatten(0, (2, 4)) if kind == "folded" else rows).permute(0, 4, 1, 2, 3)

    axes = (2, 3, 4) if kind == "3-D" else (3, 4)
    small = (fold(found).mean(axes, keepdim=True) * fold(kept)).sum(1).detach()
    wanted = nn.functional.interpolate(small[:, None], size=(4, 16, 16), mode="trilinear")[:, 0]
    method = lc.GradCAM(layer=layer, relu=False)
    heat = lc.explain(lc.Explainable.of(net), method, clip, target).heatmap
    assert float((heat - wanted).norm() / wanted.norm()) < 1e-6


@pytest.mark.parametrize(("name", "pool"), [("swin3d", "space"), ("swin3d", None), ("mvit", None)])
def test_torchvision_transformers_equal_a_hand_written_fold(name: str, pool: str | None) -> None:
    clip = torch.randn(1, 3, 4, 16, 16)
    if name == "swin3d":
        net, layer, layout, grid = small_swin(SwinTransformer3d, 3), "norm", "b t h w d", None
    else:
        net, grid = small_mvit(), (2, 2, 2)
        layer, layout = "blocks.2.norm1", "b (1 + t h w) d"
    net.eval()
    kept: list[Tensor] = []
    handle = net.get_submodule(layer).register_forward_hook(lambda m, i, out: kept.append(out))
    score = net(clip)[0, 1]
    handle.remove()
    (grad,) = torch.autograd.grad(score, kept)

    def fold(x: Tensor) -> Tensor:
        x = x if name == "swin3d" else x[:, 1:].unflatten(1, (2, 2, 2))
        return x.permute(0, 4, 1, 2, 3)

    axes = (3, 4) if pool == "space" else (2, 3, 4)
    small = (fold(grad).mean(axes, keepdim=True) * fold(kept[0])).sum(1).detach()
    wanted = nn.functional.interpolate(small[:, None], size=clip.shape[2:], mode="trilinear")[:, 0]
    model = lc.Explainable.of(net, [layer], layout=layout, grid=grid)
    method = lc.GradCAM(relu=False, pool=pool)  # type: ignore[arg-type]
    found = lc.explain(model, method, clip, 1).heatmap
    assert float((found - wanted).norm() / wanted.norm()) < 1e-6
