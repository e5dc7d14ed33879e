"""Families of networks whose layouts are known: a line each, recognised without being imported.

What is asked of a network of theirs (`image_size`, `config`) is theirs, and no interface of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cam.attribution.layout import Grid, Layout

_LIBRARIES = frozenset({"torchvision", "timm", "transformers", "pytorchvideo"})


@dataclass(frozen=True)
class Family:
    """Networks of one class, or derived from it.

    Attributes:
        origin: module path and name of the class, as a pattern of file names.
        layer: a pattern of modules; the last that fits is a good target layer. Behind the last
            attention a class token has no gradient to other tokens: it is the norm before it.
        parts: a pattern of the modules that are laid out so; others are as in CNNs.
        layout: of these, in which `{0}` is the network; "" as in CNNs.
        grid: of the network and the name of a part, its t, h, w; None where it follows from the
            tensor, as t does everywhere but in MViTs.
    """

    origin: str
    layer: str | Callable[[Any], str]
    parts: str = ""
    layout: str | Callable[[Any], str] = ""
    grid: Callable[[Any, str], Grid | None] = lambda net, part: None


def known(module: nn.Module) -> tuple[tuple[str, ...], dict[str, Layout]]:
    """Good target layers of the known networks in a module, and all their layouts by layer."""
    layers: list[str] = []
    layouts: dict[str, Layout] = {}
    inside = ""
    for prefix, net in module.named_modules():
        if inside and f"{prefix}.".startswith(inside):
            continue  # parts of a known network
        families = [family for family in _families(type(net)) if _name_of(family.layer, net)]
        if not families:
            continue
        inside = f"{prefix}." if prefix else ""
        start = inside.replace("_orig_mod.", "")
        names = [name.replace("_orig_mod.", "") for name, _ in net.named_modules() if name]
        for family in families:
            fitting = [n for n in names if re.fullmatch(_name_of(family.layer, net), n)]
            layers += [start + n for n in fitting[-1:] if start + n not in layers]
            layouts |= {start + n: layout for n, layout in _layouts(family, net, names)}
        if not prefix:
            break
    return tuple(layers), layouts


def _families(kind: type) -> list[Family]:
    origins = [f"{k.__module__}.{k.__qualname__}" for k in kind.__mro__]
    origins = [origin for origin in origins if origin.split(".", 1)[0] in _LIBRARIES]
    for family in FAMILIES if origins else ():
        if any(fnmatchcase(origin, family.origin) for origin in origins):
            return [other for other in FAMILIES if other.origin == family.origin]
    return []


def _layouts(family: Family, net: nn.Module, names: list[str]) -> Iterator[tuple[str, Layout]]:
    said = family.layout if isinstance(family.layout, str) else family.layout(net)
    if not said:
        return
    layout = Layout.of(said.format(net))
    for name in names:
        if re.fullmatch(family.parts, name):
            yield name, replace(layout, grid=family.grid(net, name))


def _name_of(layer: str | Callable[[Any], str], net: nn.Module) -> str:
    return layer if isinstance(layer, str) else layer(net)


def called(module: nn.Module) -> Callable[..., Any]:
    """How the network is called with clips `(B, C, T, H, W)`; itself, where that is all."""
    origins = [f"{k.__module__}.{k.__qualname__}" for k in type(module).__mro__]
    for origin, call in _CALLS:
        if any(fnmatchcase(name, origin) for name in origins):
            return call(module)
    return module


def layers_to_offer(network: nn.Module) -> list[str]:
    """Parts of a network that contain convolutions, in order, looking into an only one."""
    names: list[str] = []
    while True:
        prefix = f"{names[0]}." if names else ""
        inside = [
            f"{prefix}{name}"
            for name, child in network.named_children()
            if any(type(module).__name__.startswith("Conv") for module in child.modules())
        ]
        if not inside:
            return names
        names = inside
        if len(names) > 1:
            return names[-6:]
        network = network.get_submodule(names[0].removeprefix(prefix))


def _logits(net: nn.Module) -> Callable[..., Any]:
    """Hugging Face's: frames before channels, and an output with names."""

    def forward(clip: Tensor, **inputs: Any) -> Any:
        return net(clip.transpose(1, 2), **inputs).logits

    return forward


def _paths(net: Any) -> Callable[..., Any]:
    """pytorchvideo's; SlowFast takes a list of every n-th frame, and of all."""
    stem = next(net.blocks.children())
    if not hasattr(stem, "multipathway_fusion"):
        return net
    every = stem.multipathway_fusion.conv_fast_to_slow.stride[0]

    def forward(clip: Tensor) -> Any:
        frames = clip.shape[2]
        slow = torch.linspace(0, frames - 1, frames // every).long().to(clip.device)
        return net([clip.index_select(2, slow), clip])

    return forward


def _image(net: Any, _part: str) -> Grid:
    """torchvision's ViT."""
    return None, net.image_size // net.patch_size, net.image_size // net.patch_size


def _embedded(net: Any, _part: str) -> Grid:
    """timm's ViTs."""
    return None, *net.patch_embed.grid_size


def _configured(size: str, patch: str) -> Callable[[Any, str], Grid]:
    """Hugging Face's networks, by two of their settings."""

    def grid(net: Any, _part: str) -> Grid:
        given = (getattr(net.config, name) for name in (size, patch))
        sizes, patches = ((n, n) if isinstance(n, int) else tuple(n)[-2:] for n in given)
        return None, sizes[0] // patches[0], sizes[1] // patches[1]

    return grid


def _pooled(start: Callable[[Any], tuple[int, ...]]) -> Callable[[Any, str], Grid]:
    """MViTs, whose blocks pool their queries: the grid behind those that ran before the part."""

    def grid(net: Any, part: str) -> Grid:
        found = re.match(r"blocks\.(\d+)(.*)", part)
        before = found and found[2] in (".norm1", ".attn.qkv")
        done = int(found[1]) + (not before) if found else len(net.blocks)
        t, h, w = start(net)
        for block in list(net.blocks)[:done]:
            for pool in _pools(block.attn.pool_q):
                t, h, w = (-(-n // s) for n, s in zip((t, h, w), pool.stride, strict=True))
        return t, h, w

    return grid


def _pools(part: nn.Module | None) -> Iterator[Any]:
    kinds = (nn.Conv3d, nn.MaxPool3d, nn.AvgPool3d)
    return (m for m in (part.modules() if part is not None else ()) if isinstance(m, kinds))


def _positions(net: Any) -> tuple[int, ...]:
    return net.pos_encoding.temporal_size, *net.pos_encoding.spatial_size


def _patches(net: Any) -> tuple[int, ...]:
    return tuple(net.cls_positional_encoding.patch_embed_shape)


def _timesformer(inside: bool) -> Callable[[Any], str]:
    """Inside the attention within frames, and elsewhere."""

    def layout(net: Any) -> str:
        frames = {"space_only": True, "divided_space_time": inside}
        by_frames = frames.get(net.config.attention_type, False)
        return "(b t) (1 + h w) d" if by_frames else "b (1 + h w t) d"

    return layout


def _last_features(net: Any) -> str:
    """The last of timm's list of feature maps, which parts of networks have not."""
    info = vars(net).get("feature_info")
    return re.escape(info[-1]["module"]) if isinstance(info, list) and info else ""


def _channels_last(net: Any) -> str:
    return _ROWS if vars(net).get("output_fmt") == "NHWC" else ""


_ROWS = "(b t) h w d"
_TOKENS = r"pos_drop|patch_drop|norm_pre|blocks(\..+)?|norm"
_PREFIXED = "(b t) ({0.num_prefix_tokens} + h w) d"
_ENCODED = r"encoder|(encoder\.layer|layers)\..+|(encoder\.)?layernorm"
_POOLED = r"blocks\.\d+(\.(norm1|norm2|attn(\.qkv|\.project|\.proj)?|mlp(\..+)?))?|norm|norm_embed"
_STAGES = r"patch_embed(\.norm)?|layers(\.\d+(\.blocks(\.\d+(\.norm1)?)?|\.downsample)?)?|norm"
_BEFORE = r"(encoder\.layer|layers)\.\d+\.layernorm_before"
_2D, _3D, _HF = "torchvision.models", "torchvision.models.video", "transformers.models"

# The origin that fits first counts. Each is compared with a fold by hand in tests/test_families.py.
FAMILIES = (
    Family(f"{_3D}.swin_transformer.SwinTransformer3d", "norm",
           r"patch_embed(\.norm)?|pos_drop|features(\..+)?|norm", "b t h w d"),
    Family(f"{_3D}.mvit.MViT", r"blocks\.\d+\.norm1", _POOLED, "b (1 + t h w) d",
           _pooled(_positions)),
    Family(f"{_3D}.s3d.S3D", "features"),
    Family(f"{_3D}.resnet.VideoResNet", "layer4"),
    Family(f"{_2D}.swin_transformer.SwinTransformer", "norm",
           r"features(?!\.0\.0$)(\..+)?|norm", _ROWS),
    Family(f"{_2D}.vision_transformer.VisionTransformer", r"encoder\.layers\.[^.]+\.ln_1",
           r"encoder(\..+)?", "(b t) (1 + h w) d", _image),
    Family(f"{_2D}.convnext.ConvNeXt", "features", r"features\.\d+\.\d+\.block\.[1-5]", _ROWS),
    Family(f"{_2D}.resnet.ResNet", "layer4"),
    Family("timm.models.vision_transformer.VisionTransformer", r"blocks\.\d+\.norm1", _TOKENS,
           _PREFIXED, _embedded),
    Family("timm.models.eva.Eva", r"blocks\.\d+\.norm1", _TOKENS, _PREFIXED, _embedded),
    Family("timm.models.beit.Beit", r"blocks\.\d+\.norm1", _TOKENS, _PREFIXED, _embedded),
    Family("timm.models.swin_transformer.SwinTransformer", "norm", _STAGES, _channels_last),
    Family("timm.models.swin_transformer_v2.SwinTransformerV2", "norm", _STAGES, _channels_last),
    Family("timm.models.convnext.ConvNeXt", _last_features,
           r"stages\.\d+\.blocks\.\d+\.(norm|mlp(\..+)?)",
           lambda net: "" if net.stages[0].blocks[0].use_conv_mlp else _ROWS),
    Family("timm.models.volo.VOLO", _last_features, r"network(\.\d+)?", _ROWS),
    Family("timm.models.*", _last_features, r"stages(\.\d+)?", _channels_last),
    Family(f"{_HF}.videomae.modeling_videomae.VideoMAEModel", _BEFORE, _ENCODED,
           "b (t h w) d", _configured("image_size", "patch_size")),
    Family(f"{_HF}.vivit.modeling_vivit.VivitModel", _BEFORE, _ENCODED,
           "b (1 + t h w) d", _configured("image_size", "tubelet_size")),
    Family(f"{_HF}.vjepa2.modeling_vjepa2.VJEPA2Model", r"encoder\.layer\.\d+\.norm1", _ENCODED,
           "b (t h w) d", _configured("crop_size", "patch_size")),
    Family(f"{_HF}.timesformer.modeling_timesformer.TimesformerModel", _BEFORE,
           r"encoder\.layer\.\d+\.(layernorm_before|attention(\..+)?)", _timesformer(True),
           _configured("image_size", "patch_size")),
    Family(f"{_HF}.timesformer.modeling_timesformer.TimesformerModel", _BEFORE,
           r"encoder(\.layer\.\d+(\.(layernorm_after|(intermediate|output)(\..+)?))?)?|layernorm",
           _timesformer(False), _configured("image_size", "patch_size")),
    Family("pytorchvideo.models.vision_transformers.MultiscaleVisionTransformers",
           r"blocks\.\d+\.norm1", _POOLED,
           "b ({0.cls_positional_encoding.cls_embed_on:d} + t h w) d", _pooled(_patches)),
    Family("pytorchvideo.models.net.Net",
           r"blocks\.\d+(\.multipathway_blocks\.0)?\.res_blocks\.\d+"),
)  # fmt: skip

# Networks that take other things than a clip, or return other things than columns.
_CALLS = (
    (f"{_HF}.*ForVideoClassification", _logits),
    ("pytorchvideo.models.net.Net", _paths),
)
