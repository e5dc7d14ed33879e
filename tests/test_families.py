"""Networks of well-known libraries are known by themselves: layer, layout, grid and call.

Each library's own classes are compared with a fold written by hand; where a library is not
installed, stand-ins of the same names hold the rules to account.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import convnext, resnet, swin_transformer, vision_transformer
from torchvision.models.video import mvit, s3d, swin3d_t
from torchvision.models.video import resnet as video_resnet
from torchvision.models.video.swin_transformer import SwinTransformer3d

import lightning_cam as lc
from lightning_cam.attribution.families import FAMILIES, known
from lightning_cam.errors import UserError
from lightning_cam.tasks import VideoClassification

B = 2


class ByFrames(nn.Module):
    """The mean over frames of a 2-D network's outputs, frames folded into the batch."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, clip: Tensor) -> Tensor:
        frames = clip.transpose(1, 2)
        return self.trunk(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).mean(1)


class Real(NamedTuple):
    """A network of a library, and how it is read by hand.

    Attributes:
        net: makes it, with random weights.
        clip: T, H, W.
        layer: the target layer it should get by itself.
        fold: its activation (the first tensor) as (B, D, t, h, w).
        call: the network of a clip, where it is not called with the clip itself.
        space: whether the gradient is pooled over space alone.
    """

    net: Callable[[], nn.Module]
    clip: tuple[int, int, int]
    layer: str
    fold: Callable[[Tensor], Tensor]
    call: Callable[[nn.Module, Tensor], Tensor] = lambda net, clip: net(clip)
    space: bool = False


def tokens(*grid: int, first: int = 0) -> Callable[[Tensor], Tensor]:
    return lambda x: x[:, first:].unflatten(1, grid).permute(0, 4, 1, 2, 3)


def frame_tokens(*grid: int, first: int = 0) -> Callable[[Tensor], Tensor]:
    return lambda x: x[:, first:].unflatten(1, grid).unflatten(0, (B, -1)).permute(0, 4, 1, 2, 3)


def rows(x: Tensor) -> Tensor:
    return x.unflatten(0, (B, -1)).permute(0, 4, 1, 2, 3)


def frames(x: Tensor) -> Tensor:
    return x.unflatten(0, (B, -1)).transpose(1, 2)


def logits(net: nn.Module, clip: Tensor) -> Tensor:
    return net(clip.transpose(1, 2)).logits


def two_paths(net: nn.Module, clip: Tensor) -> Tensor:
    return net([clip[:, :, [0, 7]], clip])  # 2 of 8 frames, evenly from end to end


def small_mvit(**more: Any) -> nn.Module:
    blocks = [
        mvit.MSBlockConfig(1, 8, 8, [], [3, 3, 3], [], [1, 2, 2]),
        mvit.MSBlockConfig(2, 8, 16, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 1, 1]),
        mvit.MSBlockConfig(2, 16, 16, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 1, 1]),
    ]
    flags = {"residual_pool": True, "residual_with_cls_embed": False, "rel_pos_embed": True}
    return mvit.MViT((16, 16), 4, blocks, **flags, proj_after_attn=True, num_classes=4, **more)


def hugging_face(name: str, **more: Any) -> nn.Module:
    found = pytest.importorskip("transformers", reason="transformers is not installed")
    config = getattr(found, f"{name}Config")(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, num_labels=4, **more
    )
    return getattr(found, f"{name}ForVideoClassification")(config)


def timm_net(name: str, **more: Any) -> nn.Module:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    return ByFrames(timm.create_model(name, num_classes=4, **more))


def small_volo() -> nn.Module:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    flags = {"downsamples": (True, False), "outlook_attention": (True, False), "img_size": 32}
    sizes = {"stem_hidden_dim": 8, "embed_dims": [12, 24], "num_heads": [1, 2], "num_classes": 4}
    return ByFrames(timm.models.volo.VOLO([1, 1], **sizes, **flags))


def pytorchvideo(part: str, builder: str, **more: Any) -> nn.Module:
    models = pytest.importorskip(
        f"pytorchvideo.models.{part}", reason="pytorchvideo is not installed"
    )
    return getattr(models, builder)(**more)


def swin3d() -> nn.Module:
    sizes = {"patch_size": [2, 2, 2], "window_size": [2, 2, 2], "num_classes": 4}
    return SwinTransformer3d(embed_dim=8, depths=[2, 2], num_heads=[2, 2], **sizes)


def swin2d() -> nn.Module:
    sizes = {"patch_size": [2, 2], "window_size": [2, 2], "num_classes": 4}
    net = swin_transformer.SwinTransformer(embed_dim=8, depths=[2, 2], num_heads=[2, 2], **sizes)
    return ByFrames(net)


def small_vit() -> nn.Module:
    net = vision_transformer.VisionTransformer(16, 8, 2, 2, 24, 32, num_classes=4)
    nn.init.normal_(net.heads.head.weight)  # it starts at 0
    return ByFrames(net)


def small_convnext() -> nn.Module:
    setting = [convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, None, 1)]
    return ByFrames(convnext.ConvNeXt(setting, num_classes=4))


_VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
_SMALL = {"intermediate_size": 32, "image_size": 32, "num_frames": 4}
_MVIT = {"input_channels": 3, "spatial_size": 32, "temporal_size": 4, "depth": 2, "num_heads": 1,
         "patch_embed_dim": 8, "embed_dim_mul": None, "atten_head_mul": None, "head_num_classes": 4,
         "pool_q_stride_size": [[1, 1, 2, 2]], "pool_kv_stride_size": None,
         "pool_kv_stride_adaptive": [1, 2, 2], "pool_kvq_kernel": [3, 3, 3]}  # fmt: skip

REAL = {
    "torchvision Swin3D": Real(swin3d, (4, 16, 16), "norm", lambda x: x.permute(0, 4, 1, 2, 3)),
    "torchvision MViT": Real(
        small_mvit, (4, 16, 16), "blocks.2.norm1", tokens(2, 2, 2, first=1)),
    "torchvision Swin": Real(swin2d, (3, 16, 16), "trunk.norm", rows, space=True),
    "torchvision ViT": Real(
        small_vit,
        (3, 16, 16), "trunk.encoder.layers.encoder_layer_1.ln_1", frame_tokens(2, 2, first=1),
        space=True),
    "torchvision ConvNeXt": Real(small_convnext, (3, 32, 32), "trunk.features", frames, space=True),
    "torchvision ResNet": Real(
        lambda: ByFrames(resnet.resnet18(num_classes=4)), (2, 32, 32), "trunk.layer4", frames,
        space=True),
    "torchvision R3D": Real(
        lambda: video_resnet.r3d_18(num_classes=4), (8, 32, 32), "layer4", lambda x: x),
    "timm ViT": Real(
        lambda: timm_net("vit_tiny_patch16_224", **_VIT), (3, 16, 16), "trunk.blocks.1.norm1",
        frame_tokens(2, 2, first=1), space=True),
    "timm DeiT, distilled": Real(
        lambda: timm_net("deit_tiny_distilled_patch16_224", **_VIT), (3, 16, 16),
        "trunk.blocks.1.norm1", frame_tokens(2, 2, first=2), space=True),
    "timm ViT without class token": Real(
        lambda: timm_net("vit_tiny_patch16_224", **_VIT, class_token=False, global_pool="avg"),
        (3, 16, 16), "trunk.blocks.1.norm1", frame_tokens(2, 2), space=True),
    "timm EVA-02": Real(
        lambda: timm_net("eva02_tiny_patch14_224", **_VIT), (3, 16, 16), "trunk.blocks.1.norm1",
        frame_tokens(2, 2, first=1), space=True),
    "timm BEiT": Real(
        lambda: timm_net("beit_base_patch16_224", **_VIT), (3, 16, 16), "trunk.blocks.1.norm1",
        frame_tokens(2, 2, first=1), space=True),
    "timm Swin": Real(
        lambda: timm_net("swin_tiny_patch4_window7_224", img_size=32, window_size=2, embed_dim=8,
                         depths=(1, 1), num_heads=(1, 2)),
        (3, 32, 32), "trunk.norm", rows, space=True),
    "timm Swin v2": Real(
        lambda: timm_net("swinv2_tiny_window8_256", img_size=32, window_size=4, embed_dim=8,
                         depths=(1, 1), num_heads=(1, 2)),
        (3, 32, 32), "trunk.norm", rows, space=True),
    "timm ConvNeXt": Real(
        lambda: timm_net("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 16, 16)), (3, 32, 32),
        "trunk.stages.3", frames, space=True),
    "timm ResNet": Real(
        lambda: timm_net("resnet18", layers=(1, 1, 1, 1)), (2, 32, 32), "trunk.layer4", frames,
        space=True),
    "timm MambaOut, channels last": Real(
        lambda: timm_net("mambaout_femto", depths=(1, 1), dims=(8, 16)), (2, 32, 32),
        "trunk.stages.1", rows, space=True),
    "timm VOLO": Real(small_volo, (2, 32, 32), "trunk.network.2", rows, space=True),
    "VideoMAE": Real(
        lambda: hugging_face("VideoMAE", **_SMALL, patch_size=16),
        (4, 32, 32), "videomae.encoder.layer.1.layernorm_before", tokens(2, 2, 2), logits),
    "ViViT": Real(
        lambda: hugging_face("Vivit", **_SMALL, tubelet_size=[2, 16, 16]),
        (4, 32, 32), "vivit.layers.1.layernorm_before", tokens(2, 2, 2, first=1), logits),
    "TimeSformer": Real(
        lambda: hugging_face("Timesformer", **_SMALL, patch_size=16),
        (4, 32, 32), "timesformer.encoder.layer.1.layernorm_before", frame_tokens(2, 2, first=1),
        logits, space=True),
    "TimeSformer, joint": Real(
        lambda: hugging_face("Timesformer", **_SMALL, patch_size=16,
                             attention_type="joint_space_time"),
        (4, 32, 32), "timesformer.encoder.layer.1.layernorm_before",
        lambda x: x[:, 1:].unflatten(1, (2, 2, 4)).permute(0, 4, 3, 1, 2), logits),
    "V-JEPA 2": Real(
        lambda: hugging_face("VJEPA2", crop_size=32, patch_size=16, frames_per_clip=4,
                             pred_num_hidden_layers=1, pred_num_attention_heads=2,
                             pred_hidden_size=24, num_pooler_layers=1),
        (4, 32, 32), "vjepa2.encoder.layer.1.norm1", tokens(2, 2, 2), logits),
    "pytorchvideo MViT": Real(
        lambda: pytorchvideo("vision_transformers", "create_multiscale_vision_transformers",
                             **_MVIT),
        (4, 32, 32), "blocks.1.norm1", tokens(2, 8, 8, first=1)),
    "pytorchvideo MViT without class token": Real(
        lambda: pytorchvideo("vision_transformers", "create_multiscale_vision_transformers",
                             **_MVIT, cls_embed_on=False),
        (4, 32, 32), "blocks.1.norm1", tokens(2, 8, 8)),
    "pytorchvideo X3D": Real(
        lambda: pytorchvideo("x3d", "create_x3d", input_clip_length=4, input_crop_size=64,
                             model_num_class=4, head_activation=None),
        (4, 64, 64), "blocks.4.res_blocks.6", lambda x: x),
    "pytorchvideo SlowFast": Real(
        lambda: pytorchvideo("slowfast", "create_slowfast", model_depth=18, model_num_class=4,
                             head_pool_kernel_sizes=((2, 2, 2), (8, 2, 2))),
        (8, 64, 64), "blocks.4.multipathway_blocks.0.res_blocks.0", lambda x: x, two_paths),
}  # fmt: skip

_OF_TORCHVISION = [name for name in REAL if name.startswith("torchvision")]
_OTHERS = [name for name in REAL if name not in _OF_TORCHVISION]


@pytest.mark.parametrize("name", [*_OF_TORCHVISION, *_OTHERS])
def test_the_map_is_that_of_a_fold_by_hand(name: str) -> None:
    """Grad-CAM of a network about which nothing was said, against autograd and the fold."""
    real = REAL[name]
    torch.manual_seed(0)
    net = real.net().eval().double()  # layer scales of 1e-6 leave float32 few digits
    clip, target = torch.randn(B, 3, *real.clip, dtype=torch.float64), torch.tensor([1, 2])
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        kept.append(output if isinstance(output, Tensor) else output[0])

    handle = net.get_submodule(real.layer).register_forward_hook(keep)
    score = real.call(net, clip.clone())[[0, 1], target].sum()
    handle.remove()
    [grad] = torch.autograd.grad(score, kept)
    axes = (3, 4) if real.space else (2, 3, 4)
    small = (real.fold(grad).mean(axes, keepdim=True) * real.fold(kept[0])).sum(1).detach()
    wanted = nn.functional.interpolate(small[:, None], size=clip.shape[2:], mode="trilinear")[:, 0]
    assert wanted.any()
    model = lc.Explainable.of(net)
    assert list(model.layers) == [real.layer]
    found = lc.explain(model, lc.GradCAM(relu=False), clip, target).heatmap
    assert float((found - wanted).norm() / wanted.norm()) < 1e-9
    heat = lc.explain(model, lc.Gradient(), clip, target).heatmap
    assert heat.isfinite().all() and heat.any()


def test_every_block_of_mvit_has_its_grid() -> None:
    torch.manual_seed(0)
    net = small_mvit().eval()
    model, clip = lc.Explainable.of(net), torch.randn(1, 3, 4, 16, 16)
    found = {layer.name: layer.shape[2:] for layer in lc.list_layers(model, clip)}
    assert found["blocks.0.norm1"] == found["blocks.1.norm1"] == found["blocks.0"] == (2, 4, 4)
    assert found["blocks.1.norm2"] == found["blocks.2.norm1"] == found["norm"] == (2, 2, 2)
    with torch.no_grad():
        x = net.pos_encoding(net.conv_proj(clip).flatten(2).transpose(1, 2))
    with pytest.raises(UserError, match="does not fit layout"):
        model.folded(x, 1, "blocks.2.norm1")


def grown(origin: str, parts: str, **attributes: Any) -> nn.Module:
    """A stand-in: a class of this origin with modules of these names, none of which computes."""
    module, name = origin.rsplit(".", 1)
    net = type(name, (nn.Module,), {"__module__": module})()
    for dotted in parts.split():
        at = net
        for part in dotted.split("."):
            if part not in dict(at.named_children()):
                at.add_module(part, nn.Module())
            at = at.get_submodule(part)
    for key, value in attributes.items():
        setattr(net, key, value)
    return net


def config(**values: Any) -> dict[str, Any]:
    return {"config": SimpleNamespace(**values)}


_HF = "transformers.models"
_LAYERS = "encoder.layer.0.layernorm_before encoder.layer.1.layernorm_before encoder.layer.1.output"
_TIMESFORMER = f"{_HF}.timesformer.modeling_timesformer.TimesformerModel"
_PATCHES = {"image_size": 32, "patch_size": 8}


@pytest.mark.parametrize(
    ("net", "layer", "shape", "lay"),
    [
        (grown(f"{_HF}.videomae.modeling_videomae.VideoMAEModel", _LAYERS, **config(**_PATCHES)),
         "encoder.layer.1.layernorm_before", (2, 5, 3, 4, 4),
         lambda x: x.permute(0, 2, 3, 4, 1).flatten(1, 3)),
        (grown(f"{_HF}.vivit.modeling_vivit.VivitModel", _LAYERS,
               **config(image_size=32, tubelet_size=[2, 8, 16])),
         "encoder.layer.1.layernorm_before", (2, 5, 3, 4, 2),
         lambda x: nn.functional.pad(x.permute(0, 2, 3, 4, 1).flatten(1, 3), (0, 0, 1, 0))),
        (grown(f"{_HF}.vjepa2.modeling_vjepa2.VJEPA2Model", "encoder.layer.0.norm1",
               **config(crop_size=32, patch_size=16)),
         "encoder.layer.0.norm1", (2, 5, 3, 2, 2),
         lambda x: x.permute(0, 2, 3, 4, 1).flatten(1, 3)),
        (grown(_TIMESFORMER, _LAYERS, **config(**_PATCHES, attention_type="divided_space_time")),
         "encoder.layer.1.layernorm_before", (2, 5, 3, 4, 4),
         lambda x: nn.functional.pad(x.permute(0, 2, 3, 4, 1).flatten(2, 3), (0, 0, 1, 0))
         .flatten(0, 1)),
        (grown(_TIMESFORMER, _LAYERS, **config(**_PATCHES, attention_type="joint_space_time")),
         "encoder.layer.1.layernorm_before", (2, 5, 3, 4, 4),
         lambda x: nn.functional.pad(x.permute(0, 3, 4, 2, 1).flatten(1, 3), (0, 0, 1, 0))),
        (grown("timm.models.vision_transformer.VisionTransformer", "blocks.0.norm1 norm",
               num_prefix_tokens=2, patch_embed=SimpleNamespace(grid_size=(2, 3))),
         "blocks.0.norm1", (2, 5, 3, 2, 3),
         lambda x: nn.functional.pad(x.permute(0, 2, 3, 4, 1).flatten(2, 3), (0, 0, 2, 0))
         .flatten(0, 1)),
        (grown("timm.models.swin_transformer.SwinTransformer", "layers.0.blocks.0.norm1 norm",
               output_fmt="NHWC"),
         "norm", (2, 5, 3, 2, 3), lambda x: x.permute(0, 2, 3, 4, 1).flatten(0, 1)),
        (grown("timm.models.mambaout.MambaOut", "stages.0 stages.1", output_fmt="NHWC",
               feature_info=[{"module": "stages.0"}, {"module": "stages.1"}]),
         "stages.1", (2, 5, 3, 2, 3), lambda x: x.permute(0, 2, 3, 4, 1).flatten(0, 1)),
        (grown("timm.models.resnet.ResNet", "layer1 layer4",
               feature_info=[{"module": "layer1"}, {"module": "layer4"}]),
         "layer4", (2, 5, 3, 2, 3), lambda x: x.transpose(1, 2).flatten(0, 1)),
        (grown("pytorchvideo.models.net.Net",
               "blocks.1.res_blocks.0 blocks.1.res_blocks.1 blocks.2.proj"),
         "blocks.1.res_blocks.1", (2, 5, 3, 2, 3), lambda x: x),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)  # fmt: skip
@pytest.mark.parametrize("prefix", ["", "trunk."])
def test_stand_ins_are_read_exactly(
    net: nn.Module,
    layer: str,
    shape: tuple[int, ...],
    lay: Callable[[Tensor], Tensor],
    prefix: str,
) -> None:
    """The rule of a family, without its library; also inside somebody's own network."""
    wanted = torch.randn(shape)
    model = lc.Explainable.of(nn.ModuleDict({"trunk": net}) if prefix else net)
    assert list(model.layers) == [prefix + layer]
    assert torch.equal(model.folded(lay(wanted), len(wanted), prefix + layer), wanted)


def test_parts_and_strangers_are_not_taken_for_a_family() -> None:
    own = grown("my_package.models.VideoMAEModel", _LAYERS, **config(**_PATCHES))
    part = grown("timm.models.vision_transformer.Block", "norm1 attn")
    for net in (own, part, nn.Sequential(nn.Conv3d(3, 4, 1))):
        assert known(net) == ((), {})


def test_a_subclass_and_two_streams_are_known() -> None:
    class Mine(SwinTransformer3d):
        pass

    sizes = {"patch_size": [2] * 3, "window_size": [2] * 3, "depths": [1, 1], "num_heads": [1, 1]}
    pair = nn.ModuleList([Mine(embed_dim=8, **sizes), Mine(embed_dim=8, **sizes)])
    layers, layouts = known(pair)
    assert layers == ("0.norm", "1.norm")
    assert layouts["1.features.0"].text == "b t h w d"


def test_what_is_said_goes_before_what_is_known() -> None:
    net = swin3d()
    named = lc.Explainable.of(net, ["features"])
    assert list(named.layers) == ["features"] and named.laid_out("norm") is not None
    one = lc.Explainable.of(net, layout={"norm": "b h t w d"})
    assert one.laid_out("norm").text == "b h t w d"  # type: ignore[union-attr]
    assert one.laid_out("features").text == "b t h w d"  # type: ignore[union-attr]
    whole = lc.Explainable.of(net, layout="b w t h d")
    assert list(whole.layers) == ["norm"]
    assert whole.laid_out("features").text == "b w t h d"  # type: ignore[union-attr]


def test_a_task_without_layers_takes_the_known_one() -> None:
    """`task.model={_target_: ...}` in YAML names no `task.layers`."""
    task = VideoClassification(swin3d(), classes=list("abcd"))
    assert list(task.explainable().layers) == ["norm"]
    e = lc.explain(task.explainable(), lc.GradCAM(), torch.randn(1, 3, 4, 16, 16))
    assert e.heatmap.any()


def test_large_networks_of_torchvision_name_parts_that_there_are() -> None:
    """Names in the table are those of the library that is installed; shapes are not needed."""
    with torch.device("meta"):
        nets = [swin3d_t(), mvit.mvit_v1_b(), mvit.mvit_v2_s(), s3d(),
                vision_transformer.vit_b_16(), convnext.convnext_tiny()]  # fmt: skip
    found = [list(lc.Explainable.of(net).layers) for net in nets]
    assert found == [["norm"], ["blocks.15.norm1"], ["blocks.15.norm1"], ["features"],
                     ["encoder.layers.encoder_layer_11.ln_1"], ["features"]]  # fmt: skip


def test_the_table_has_no_line_behind_one_that_hides_it() -> None:
    origins = [family.origin for family in FAMILIES]
    firsts = [next(other for other in origins if fnmatchcase(o, other)) for o in origins]
    assert firsts == origins
