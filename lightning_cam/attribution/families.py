"""Families of networks whose layouts are known: a line each, recognised without being imported."""

from __future__ import annotations

import re
from typing import NamedTuple

from torch import nn

from lightning_cam.attribution.layout import Layout


class Family(NamedTuple):
    """Networks of one class, or derived from it.

    Attributes:
        origin: module path and name of the class.
        layer: a good target layer.
        parts: a pattern of the modules that are laid out so; others are as in CNNs.
        layout: of these.
    """

    origin: str
    layer: str
    parts: str
    layout: str


# Each is compared with folds by hand in tests/test_layout.py.
FAMILIES = (
    Family(
        "torchvision.models.video.swin_transformer.SwinTransformer3d",
        "norm",
        r"patch_embed(\.norm)?|pos_drop|features(\..+)?|norm",
        "b t h w d",
    ),
    Family(
        "torchvision.models.swin_transformer.SwinTransformer",
        "norm",
        r"features(?!\.0\.0$)(\..+)?|norm",
        "(b t) h w d",
    ),
)


def known(module: nn.Module) -> tuple[tuple[str, ...], dict[str, Layout]]:
    """Good target layers of the known networks in a module, and all their layouts by layer."""
    layers: list[str] = []
    layouts: dict[str, Layout] = {}
    for prefix, part in module.named_modules():
        origins = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(part).__mro__}
        start = f"{prefix.replace('_orig_mod.', '')}." if prefix else ""
        for family in FAMILIES:
            if family.origin not in origins:
                continue
            layers.append(start + family.layer)
            layout = Layout.of(family.layout)
            names = (name.replace("_orig_mod.", "") for name, _ in part.named_modules())
            layouts |= {start + n: layout for n in names if re.fullmatch(family.parts, n)}
    return tuple(layers), layouts
