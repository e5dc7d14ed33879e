"""Do other libraries draw the same maps? Relative differences on transformers, in float64.

    pip install --no-deps grad-cam torchcam lxt     # beside timm and transformers
    PYTHONPATH=tests python benchmarks/rivals.py    # writes rivals.csv

Grad-CAM, spacetime pooling, no ReLU: pytorch-grad-cam and torchcam are given the fold by hand of
`tests/test_families.py` as `reshape_transform`, this package is told nothing; maps of the layer are
resized alike. Conservative propagation and AttnLRP: a transformer written
out with the rules of lxt, relevance of each voxel.
"""

from __future__ import annotations

import argparse
import csv
import sys
import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from test_families import REAL, B, Real
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_cam as lc
from lightning_cam.attribution.tensors import resize_heatmap

warnings.filterwarnings("ignore")
MOST = 1e-6
NETWORKS = (
    "torchvision Swin3D", "torchvision MViT", "torchvision Swin", "torchvision ViT",
    "torchvision R3D", "timm ViT", "timm EVA-02", "timm Swin", "VideoMAE", "ViViT", "TimeSformer",
    "V-JEPA 2", "pytorchvideo MViT",
)  # fmt: skip
TARGETS = (1, 2)


class Called(nn.Module):
    """A network that maps a clip to its columns."""

    def __init__(self, real: Real) -> None:
        super().__init__()
        self.net, self.call = real.net(), real.call

    def forward(self, clip: Tensor) -> Tensor:
        return self.call(self.net, clip)


def grad_cam(net: Called, real: Real, clip: Tensor) -> Tensor:
    """pytorch-grad-cam's map before its ReLU and scaling, `(B, t, h, w)`."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    layer = net.net.get_submodule(real.layer)
    with GradCAM(net, [layer], reshape_transform=real.fold) as cam:
        outputs = cam.activations_and_grads(clip)
        targets = [ClassifierOutputTarget(k) for k in TARGETS]
        sum(target(row) for target, row in zip(targets, outputs, strict=True)).backward()
        kept = cam.activations_and_grads
        values = (kept.activations[0].numpy(), kept.gradients[0].numpy())
        return torch.from_numpy(cam.get_cam_image(clip, layer, targets, *values))


def torch_cam(net: Called, real: Real, clip: Tensor) -> Tensor:
    """torchcam's map before its ReLU and scaling, `(B, t, h, w)`."""
    from torchcam.methods import GradCAM

    with GradCAM(net, f"net.{real.layer}", reshape_transform=real.fold) as cam:
        scores = net(clip)
        weights = cam._get_weights(list(TARGETS), scores)[0]
        return (weights[..., None, None, None] * cam.hook_a[0]).sum(1).detach()


LIBRARIES: dict[str, Callable[[Called, Real, Tensor], Tensor]] = {
    "pytorch-grad-cam": grad_cam,
    "torchcam": torch_cam,
}


def difference(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def of_cams(name: str) -> list[dict[str, str]]:
    """A row for each library on a network of the table."""
    real = REAL[name]
    torch.manual_seed(0)
    net = Called(real).eval().double()
    clip = torch.randn(B, 3, *real.clip, dtype=torch.float64)
    model = lc.Explainable.of(net.net)
    method = lc.GradCAM(pool="spacetime", relu=False)
    ours = lc.explain(model, method, clip, list(TARGETS)).heatmap
    rows = []
    for library, cam in LIBRARIES.items():
        theirs = resize_heatmap(cam(net, real, clip.clone().requires_grad_()), clip.shape[2:])
        rows.append(row(name, "Grad-CAM", library, difference(ours, theirs)))
    return rows


@cache
def rules_of_lxt() -> Any:
    """The module lxt.efficient.rules alone: its package does not load beside transformers 5."""
    [folder] = (find_spec("lxt") or sys.exit("lxt is not installed")).submodule_search_locations
    spec = spec_from_file_location("rules", Path(folder, "efficient", "rules.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class WrittenOut(nn.Module):
    """A video transformer of one block whose operations are given: PyTorch's, or those of lxt."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv3d(3, 8, (2, 8, 8), (2, 8, 8), bias=False)
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(3))
        self.qkv, self.out = nn.Linear(8, 24, bias=False), nn.Linear(8, 8, bias=False)
        self.up, self.down = nn.Linear(8, 16, bias=False), nn.Linear(16, 8, bias=False)
        self.head = nn.Linear(8, 4, bias=False)
        self.rules: Any = None

    def forward(self, clip: Tensor) -> Tensor:
        x = self.patch(clip).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.normed(0, x)).chunk(3, 2)
        scores = q @ k.transpose(1, 2) / 8**0.5
        if self.rules is None:
            mixed = F.scaled_dot_product_attention(q, k, v)
        elif self.rules == "constant":  # conservative propagation
            mixed = scores.softmax(-1).detach() @ v
        else:  # AttnLRP: half of the relevance to each factor
            divide_gradient = rules_of_lxt().divide_gradient
            halves = divide_gradient(q, 2) @ divide_gradient(k, 2).transpose(1, 2) / 8**0.5
            mixed = divide_gradient(halves.softmax(-1) @ v, 2)
        x = x + self.out(mixed)
        return self.head((x + self.down(self.gelu(self.up(self.normed(1, x))))).mean(1))

    def normed(self, n: int, x: Tensor) -> Tensor:
        if self.rules is None:
            return self.norms[n](x)
        spread = (x.var(-1, unbiased=False, keepdim=True) + self.norms[n].eps).sqrt()
        return (x - x.mean(-1, keepdim=True)) / rules_of_lxt().stop_gradient(spread)

    def gelu(self, x: Tensor) -> Tensor:
        if self.rules is None:
            return F.gelu(x)
        return rules_of_lxt().identity_rule_implicit(F.gelu, x)


def of_rules(name: str, method: lc.Attribution, rules: str) -> dict[str, str]:
    """The row of a method whose rules are those of lxt."""
    torch.manual_seed(0)
    net = WrittenOut().eval().double()
    clip = torch.randn(B, 3, 4, 16, 16, dtype=torch.float64)
    ours = lc.explain(lc.Explainable.of(net), method, clip, list(TARGETS)).heatmap
    net.rules, leaf = rules, clip.clone().requires_grad_()
    [gradient] = torch.autograd.grad(net(leaf)[range(B), TARGETS].sum(), leaf)
    theirs = (leaf * gradient).sum(1).detach()
    return row("ViT written out", name, "lxt rules", difference(ours, theirs))


def row(network: str, method: str, library: str, apart: float) -> dict[str, str]:
    print(f"{network:24} {method:26} {library:18} {apart:.1e}", flush=True)
    return {"network": network, "method": method, "library": library, "difference": f"{apart:.1e}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    table = [each for name in NETWORKS for each in of_cams(name)]
    still, shared = (lc.ConservativePropagation(None, kind) for kind in ("still", "shared"))
    table.append(of_rules("conservative propagation", still, "constant"))
    table.append(of_rules("AttnLRP", shared, "shared"))
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    wrong = [each for each in table if not float(each["difference"]) <= MOST]
    print(f"{len(table)} rows, {len(wrong)} above {MOST}")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
