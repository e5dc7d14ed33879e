"""What one explanation costs, as a ratio to one bare inference forward of the same clip.

    python benchmarks/cost.py                 # times and peak memory; writes cost.csv
    python benchmarks/cost.py --network lrcn  # r3d, inflated, lrcn, tiny or all (default)

Every call is paired with bare forwards right before it, the explainers take turns in random order,
and the figure is the median over repeats of CPU-time ratios (wall time beside it). Peak memory is
the rise of the process's high-water mark during one call, in a fresh process, after warm forwards.
All explainers return a map at clip resolution; construction is part of the call. "forwards" counts
how often the network's stem ran; without a target `explain` takes each clip's highest column, which
costs no second forward.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import lightning_cam as lc

warnings.filterwarnings("ignore")
Call = Callable[[], object]
NETWORKS = ("r3d", "inflated", "lrcn", "tiny")
HEADINGS = ["network", "explainer", "cpu_ratio", "wall_ratio", "peak_rise_mib", "forwards"]
SIDE = {"inflated": 224}  # of the clip, 112 elsewhere


class FrameBlocks(nn.Sequential):
    """Four convolution blocks on each frame of a clip, 112 to 7 pixels: (B*T, 128, 7, 7)."""

    def __init__(self) -> None:
        blocks: list[nn.Module] = []
        for before, after in ((3, 32), (32, 64), (64, 128), (128, 128)):
            conv = nn.Conv2d(before, after, 3, 2, 1, bias=False)
            blocks += [conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        super().__init__(*blocks)

    def forward(self, clip: Tensor) -> Tensor:
        return super().forward(clip.transpose(1, 2).flatten(0, 1))


class ConvLSTMNet(nn.Module):
    """Frame CNN, mean pooling, LSTM, linear head on the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = FrameBlocks()
        self.lstm = nn.LSTM(128, 128, batch_first=True)
        self.head = nn.Linear(128, 11)

    def forward(self, clip: Tensor) -> Tensor:
        features = self.cnn(clip).mean((2, 3)).unflatten(0, (len(clip), -1))  # (B, T, 128)
        return self.head(self.lstm(features)[0])[:, -1]


def network(name: str) -> tuple[nn.Module, str]:
    """The network with settled batch norm, in eval mode, and its target layer's name.

    "r3d" is torchvision's r3d_18, "inflated" our inflated ResNet-50, "lrcn" our ResNet-18 LRCN,
    "tiny" a CNN+LSTM so small that fixed costs show.
    """
    torch.manual_seed(0)
    if name == "r3d":
        from torchvision.models.video import r3d_18

        net, layer = r3d_18(weights=None), "layer4"
    elif name == "inflated":
        from lightning_cam.models import InflatedResNet50

        net, layer = InflatedResNet50(40, weights=None), "trunk"
    elif name == "lrcn":
        from lightning_cam.models import LRCN

        net, layer = LRCN(11, backbone="resnet18", hidden=256, readout="last"), "trunk"
    else:
        net, layer = ConvLSTMNet(), "cnn"
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(2, 3, 8, 64, 64))
    return net.eval(), layer


def explainers(name: str, net: nn.Module, layer: str, clip: Tensor) -> dict[str, Call]:
    """Name -> a call that explains column 3 of the clip at clip resolution."""
    module = net.get_submodule(layer)
    size = tuple(clip.shape[2:])
    folded = name in ("lrcn", "tiny")

    def ours(method: lc.Attribution, target: int | None = 3) -> Call:
        return lambda: lc.explain(lc.Explainable.of(net, [layer]), method, clip, target).heatmap

    def up(maps: Tensor) -> Tensor:
        if folded:  # (T, 1, h, w) -> (1, 1, T, h, w)
            maps = maps.transpose(0, 1)[None]
        return interpolate(maps, size=size, mode="trilinear").detach()

    def captum() -> Tensor:
        from captum.attr import LayerGradCam

        return up(LayerGradCam(net, module).attribute(clip, 3))

    def torchcam() -> Tensor:
        from torchcam.methods import GradCAM

        with GradCAM(net, target_layer=module) as extractor:
            maps = extractor(3, net(clip), normalized=False)[0]  # (1, t, h, w)
        return up(maps[:, None] if folded else maps[None])  # (T, h, w) or (1, t, h, w)

    def grad_cam() -> object:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        with GradCAM(net, [module]) as cam:
            return cam(clip, [ClassifierOutputTarget(3)])

    calls = {
        "lightning_cam GradCAM": ours(lc.GradCAM()),
        "lightning_cam GradCAM, no target": ours(lc.GradCAM(), None),
        "captum LayerGradCam": captum,
        "torchcam GradCAM": torchcam,
    }
    if folded:
        calls["lightning_cam IntegratedRecurrentGradCAM"] = ours(lc.IntegratedRecurrentGradCAM())
    else:  # on folded frames pytorch-grad-cam raises or scales every frame alone
        calls["pytorch-grad-cam GradCAM"] = grad_cam
    return calls


def bare(net: nn.Module, clip: Tensor) -> Call:
    """The network's forward, in inference mode."""

    def call() -> Tensor:
        with torch.inference_mode():
            return net(clip)

    return call


def timed(call: Call, times: int = 1) -> tuple[float, float]:
    """CPU and wall seconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(times):
        call()
    return (time.process_time() - cpu) / times, (time.perf_counter() - wall) / times


def ratios(name: str, batch: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Explainer -> median CPU ratio and wall ratio to a bare forward."""
    net, layer = network(name)
    clip = torch.randn(batch, 3, 16, *[SIDE.get(name, 112)] * 2)
    forward = bare(net, clip)
    calls = explainers(name, net, layer, clip)
    for call in (forward, *calls.values()):
        call()
    found: dict[str, list[tuple[float, float]]] = {explainer: [] for explainer in calls}
    forwards = 5 if name == "tiny" else 1
    for _ in range(repeats):
        for explainer in random.sample(list(calls), len(calls)):
            cpu, wall = timed(forward, forwards)
            own_cpu, own_wall = timed(calls[explainer], forwards)
            found[explainer].append((own_cpu / cpu, own_wall / wall))
    return {k: (median(c for c, _ in v), median(w for _, w in v)) for k, v in found.items()}


def forwards_of(name: str) -> dict[str, int]:
    """Explainer -> how often one explanation runs the network's first convolution."""
    net, layer = network(name)
    clip = torch.randn(1, 3, 16, 32, 32)
    stem = next(m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d)))
    runs: list[int] = []
    stem.register_forward_hook(lambda *_: runs.append(1))
    net(clip)
    once, found = len(runs), {}
    for explainer, call in explainers(name, net, layer, clip).items():
        runs.clear()
        call()
        found[explainer] = len(runs) // once
    return found


def peak_rise(name: str, explainer: str) -> float:
    """MiB by which one call raises this process's memory above its state after warm forwards."""
    net, layer = network(name)
    clip = torch.randn(1, 3, 16, *[SIDE.get(name, 112)] * 2)
    forward = bare(net, clip)
    call = forward if explainer == "bare" else explainers(name, net, layer, clip)[explainer]
    for _ in range(2):
        forward()
    if explainer != "bare":  # code paths and thread pools warmed on a small clip, in the same way
        explainers(name, net, layer, torch.randn(1, 3, 16, 32, 32))[explainer]()
    return memory_rise(call)


def memory_rise(call: Call) -> float:
    """MiB by which a call raises this process's memory."""
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    call()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--network", choices=[*NETWORKS, "all"], default="all")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--memory-repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(peak_rise(args.network, args.memory_of))
        return
    rows = []
    for name in NETWORKS if args.network == "all" else (args.network,):
        own = [sys.executable, __file__, "--network", name, "--threads", str(args.threads)]
        found, forwards = ratios(name, 1, args.repeats), {"bare": 1, **forwards_of(name)}
        for explainer, (cpu, wall) in {"bare": (1.0, 1.0), **found}.items():
            rises = [
                float(subprocess.check_output([*own, "--memory-of", explainer]))
                for _ in range(args.memory_repeats)
            ]
            figures = [round(cpu, 3), round(wall, 3), round(median(rises)), forwards[explainer]]
            rows.append([name, explainer, *figures])
            line = "{:5} {:42} {:6.2f} cpu {:6.2f} wall {:6} MiB {} forwards"
            print(line.format(*rows[-1]), flush=True)
    versions = " ".join(
        f"{p}=={importlib.metadata.version(p)}" for p in ("torch", "captum", "torchcam", "grad-cam")
    )
    with args.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADINGS)
        writer.writerows(rows)
        writer.writerow([f"# {args.threads} threads, {args.repeats} repeats, {versions}"])


if __name__ == "__main__":
    main()
