"""What RISE, SIDU and deletion/insertion cost, as ratios to as many bare forwards of the same clip.

    python benchmarks/perturbation.py                   # writes perturbation.csv
    python benchmarks/perturbation.py --network lrcn    # r3d, lrcn, small or all (default)

Every call is paired with the bare forwards it is measured in, one clip at a time in inference mode,
half of them before and half after it; the contestants take turns, and the figure is the median over
repeats of ratios of CPU time (wall time beside it). Peak memory is the rise of the process's
high-water mark during one call, in a fresh process, after warm forwards.

Beside ours: RISE as a plain loop (masks resized one by one with scikit-image's rule, one forward
each), RISE as published (all masks stacked, one batch of maps for all classes), deletion and
insertion as a plain loop over steps, and torchcam's `DeletionInsertionMetric`.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from cost import memory_rise, network, timed
from torch import Tensor, nn
from torch.nn.functional import interpolate

import lightning_cam as lc

warnings.filterwarnings("ignore")
Call = Callable[[], object]
NETWORKS = {"r3d": 112, "lrcn": 112, "small": 64}  # side of the clip
MASKS, STEPS = 24, 20


def subject(name: str) -> tuple[nn.Module, str, Tensor]:
    """A network in eval mode, its target layer's name, and a clip."""
    side = NETWORKS[name]
    if name != "small":
        net, layer = network(name)
    else:
        from lightning_cam.models import ResNet3D

        torch.manual_seed(0)
        net, layer = ResNet3D(8, "r3d_small").eval(), "trunk"
    return net, layer, torch.randn(1, 3, 16, side, side)


def rise_loop(net: nn.Module, clip: Tensor) -> Tensor:
    """Mask by mask."""
    generator, heat = torch.Generator().manual_seed(0), torch.zeros(clip.shape[2:])
    with torch.no_grad():
        for _ in range(MASKS):
            mask = rise_mask(clip, generator)
            heat += net(clip * mask).softmax(1)[0, 3] * mask
    return heat / MASKS / 0.5


def rise_stacked(net: nn.Module, clip: Tensor) -> Tensor:
    """All masks in one batch, the maps of all classes."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.stack([rise_mask(clip, generator) for _ in range(MASKS)])
    with torch.no_grad():
        scores = net(clip * masks[:, None]).softmax(1)
    return (scores.T @ masks.flatten(1)).view(-1, *clip.shape[2:]) / MASKS / 0.5


def rise_mask(clip: Tensor, generator: torch.Generator) -> Tensor:
    cells, size = (2, 8, 8), clip.shape[2:]
    side = [-(-n // c) for n, c in zip(size, cells, strict=True)]
    grid = (torch.rand(1, 1, *cells, generator=generator) < 0.5).float()
    large = [(c + 1) * s for c, s in zip(cells, side, strict=True)]
    mask = interpolate(grid, large, mode="trilinear")[0, 0]
    at = [int(torch.randint(s, (1,), generator=generator)) for s in side]
    return mask[tuple(slice(k, k + n) for k, n in zip(at, size, strict=True))]


def curves_loop(net: nn.Module, clip: Tensor, heatmap: Tensor) -> list[float]:
    """Deletion and insertion with one forward for each of their points."""
    order = heatmap.flatten().argsort(descending=True)
    areas = []
    for before, after in ((clip, torch.zeros_like(clip)), (torch.zeros_like(clip), clip)):
        scores = []
        for s in range(STEPS + 1):
            now, chosen = before.clone(), order[: s * order.numel() // STEPS]
            now.flatten(2)[:, :, chosen] = after.flatten(2)[:, :, chosen]
            with torch.no_grad():
                scores.append(net(now).softmax(1)[0, 3])
        areas.append(float(torch.trapezoid(torch.stack(scores), dx=1 / STEPS)))
    return areas


def contestants(name: str) -> tuple[Call, dict[str, tuple[Call, int]]]:
    """A bare forward; and name -> (call, the number of forwards it needs)."""
    net, layer, clip = subject(name)
    module = net.get_submodule(layer)
    model = lc.Explainable.of(net, [layer])
    heatmap = lc.explain(model, lc.GradCAM(), clip, 3).heatmap

    def ours(method: lc.Attribution) -> Call:
        return lambda: lc.explain(model, method, clip, 3).heatmap

    def both(**settings: object) -> Call:
        def call() -> list[float]:
            ends = lc.Ends.of(model, clip, 3, protocol=lc.Protocol(STEPS, **settings))  # type: ignore[arg-type]
            options = {"ends": ends, "protocol": lc.Protocol(STEPS, **settings)}  # type: ignore[arg-type]
            curves = (f(model, clip, heatmap, **options) for f in (lc.deletion, lc.insertion))  # type: ignore[operator]
            return [float(curve.auc) for curve in curves]

        return call

    def torchcam(batch: int) -> Call:
        from torchcam.methods import GradCAM
        from torchcam.metrics import DeletionInsertionMetric

        def call() -> dict[str, float]:
            with GradCAM(net, target_layer=module) as extractor:
                metric = DeletionInsertionMetric(
                    extractor, partial(torch.softmax, dim=-1), steps=STEPS, batch_size=batch
                )
                metric.update(clip, 3)
                return metric.summary()

        return call

    # the first stage: 64 channels or fewer, not 512
    early = next(name for name, _ in net.named_modules() if name.endswith("layer1"))
    sidu = lc.SIDU(early, threshold="quantile:0.8")
    rows = 0

    def count(_module: nn.Module, inputs: tuple[Tensor]) -> None:
        nonlocal rows
        rows += len(inputs[0])

    with net.register_forward_pre_hook(count):
        ours(sidu)()
    calls = {
        f"lightning_cam RISE, {MASKS} masks": (ours(lc.RISE(MASKS)), MASKS + 1),
        f"lightning_cam RISE, {MASKS} masks, batch 8": (ours(lc.RISE(MASKS, batch=8)), MASKS + 1),
        "RISE, plain loop": (lambda: rise_loop(net, clip), MASKS),
        "RISE, all masks stacked": (lambda: rise_stacked(net, clip), MASKS),
        f"lightning_cam SIDU, {rows} forwards": (ours(sidu), rows),
        "lightning_cam deletion and insertion": (both(inserted="black"), 2 * STEPS),
        "deletion and insertion, plain loop": (
            lambda: curves_loop(net, clip, heatmap[0]),
            2 * STEPS + 2,
        ),
    }
    if name != "lrcn":  # torchcam reads folded frames as clips
        # 40 forwards, the first of them with Grad-CAM's backward
        calls["torchcam DeletionInsertionMetric, batch 32"] = (torchcam(32), 2 * STEPS)
        calls["torchcam DeletionInsertionMetric, batch 1"] = (torchcam(1), 2 * STEPS)
    else:
        from dataclasses import replace

        framed = replace(model, frames=module)

        def frames() -> list[float]:
            protocol = lc.Protocol(16, inserted="black", unit="frame")
            ends = lc.Ends.of(framed, clip, 3, protocol=protocol)
            curves = (
                f(framed, clip, heatmap, protocol=protocol, ends=ends)
                for f in (lc.deletion, lc.insertion)
            )
            return [float(curve.auc) for curve in curves]

        calls["lightning_cam deletion and insertion of 16 frames, features cached"] = (frames, 32)

    def bare() -> Tensor:
        with torch.inference_mode():
            return net(clip)

    return bare, calls


def ratios(name: str, repeats: int) -> dict[str, tuple[int, float, float]]:
    """Contestant -> forwards, median CPU and wall ratios to as many bare ones."""
    bare, calls = contestants(name)
    for call in (bare, *(call for call, _ in calls.values())):
        call()
    found: dict[str, list[tuple[float, float]]] = {contestant: [] for contestant in calls}
    for _ in range(repeats):
        for contestant in random.sample(list(calls), len(calls)):
            call, forwards = calls[contestant]
            half = forwards // 2
            before = timed(bare, half)
            own = timed(call)
            after = timed(bare, forwards - half)
            cpu, wall = (
                mine / (b * half + a * (forwards - half))
                for mine, b, a in zip(own, before, after, strict=True)
            )
            found[contestant].append((cpu, wall))
    return {
        k: (calls[k][1], median(c for c, _ in v), median(w for _, w in v)) for k, v in found.items()
    }


def peak_rise(name: str, contestant: str) -> float:
    """MiB by which one call raises this process's memory above its state after warm forwards."""
    bare, calls = contestants(name)
    call = bare if contestant == "bare" else calls[contestant][0]
    for _ in range(3):
        bare()
    return memory_rise(call)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--network", choices=[*NETWORKS, "all"], default="all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
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
        found = ratios(name, args.repeats)
        for contestant, (forwards, cpu, wall) in {"bare": (1, 1.0, 1.0), **found}.items():
            rise = float(subprocess.check_output([*own, "--memory-of", contestant]))
            rows.append([name, contestant, forwards, round(cpu, 3), round(wall, 3), round(rise)])
            print("{:6} {:62} {:4} {:6.2f} cpu {:6.2f} wall {:6} MiB".format(*rows[-1]), flush=True)
    versions = " ".join(f"{p}=={importlib.metadata.version(p)}" for p in ("torch", "torchcam"))
    with args.out.open("w", newline="") as file:
        writer = csv.writer(file)
        columns = ["network", "contestant", "forwards", "cpu_ratio", "wall_ratio", "peak_rise_mib"]
        writer.writerow(columns)
        writer.writerows(rows)
        writer.writerow([f"# {args.threads} threads, {args.repeats} repeats, {versions}"])


if __name__ == "__main__":
    main()
