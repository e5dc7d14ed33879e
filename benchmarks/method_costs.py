"""What every method runs by its definition, beside what it takes, as a ratio to one bare forward.

    python benchmarks/method_costs.py               # R3D-18 and an LRCN; writes method_costs.csv
    python benchmarks/method_costs.py --network r3d --repeats 3

Each method is its class's default, but for how often it repeats itself: 20 masks, samples, nodes or
iterations, and large windows of occlusion. SIDU and Score-CAM take the first layer, of 64 channels,
all others the network's target layer. `forwards` and `backwards` are what `method.cost` says of
these settings, `ratio` the method's CPU time over that of bare inference forwards of the same clip
right before and after it, the median over repeats. `per_run` divides it by forwards + backwards: 1
where each run costs what a forward costs, less where only what lies behind a layer is run.
`defaults` is what the class's own settings run, at the target layer. Methods take turns in random
order; those of more than 60 runs have one. A method that the network refuses has no figures.
Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import random
import warnings
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from pkgutil import walk_packages
from statistics import median

import torch
from cost import Call, bare, network, timed

import lightning_cam as lc
import lightning_cam.attribution
from lightning_cam.attribution.feature_masks import FeatureMaskAttribution
from lightning_cam.errors import UserError

warnings.filterwarnings("ignore")
FIRST = {"r3d": "layer1", "lrcn": "trunk.layer1"}  # of 64 channels
HEADINGS = (
    "network", "method", "forwards", "backwards", "ratio", "wall_ratio", "per_run", "defaults",
)  # fmt: skip
FEW = {"masks": 20, "iterations": 20, "samples": 20, "steps": 20}
WINDOWS = {"window": (8, 28, 28), "stride": (8, 28, 28)}  # 32 of 16 x 112 x 112
MANY = 60  # runs


def classes() -> list[type[lc.Attribution]]:
    """Every method of the package."""
    package = lightning_cam.attribution
    for module in walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)

    def below(cls: type) -> Iterator[type]:
        for sub in cls.__subclasses__():
            yield sub
            yield from below(sub)

    found = (cls for cls in set(below(lc.Attribution)) if not cls.__abstractmethods__)
    own = (cls for cls in found if cls.__module__.startswith(f"{package.__name__}."))
    return sorted((cls for cls in own if cls.__name__[0] != "_"), key=lambda cls: cls.__name__)


def quick(method: lc.Attribution, name: str) -> lc.Attribution:
    """The method with few repetitions."""
    known = {field.name for field in fields(method)}  # type: ignore[arg-type]
    changes = {setting: n for setting, n in FEW.items() if setting in known}
    if isinstance(method, lc.Occlusion):
        changes |= WINDOWS
    if isinstance(method, FeatureMaskAttribution):
        changes |= {"layer": FIRST[name]}
    return replace(method, **changes)  # type: ignore[type-var]


def truth(model: lc.Explainable, clip: torch.Tensor) -> lc.Explainable:
    """The model with some ground truth, which one of the baselines draws."""
    mask = torch.zeros(len(clip), *clip.shape[2:], dtype=torch.bool)
    mask[:, 4:8, 30:60, 30:60] = True
    return replace(model, truth=mask)


def measure(name: str, repeats: int, size: int) -> Iterator[list[object]]:
    """Rows of one network, on a clip of 16 frames."""
    net, layer = network(name)
    clip = torch.randn(1, 3, 16, size, size)
    model = truth(lc.Explainable.of(net, [layer]), clip)
    forward, calls = bare(net, clip), {}
    costs: dict[str, tuple[lc.attribution.method.Cost, str]] = {}
    for cls in classes():
        method, default = quick(cls(), name), cls().cost(model, clip)
        call = caller(model, method, clip)
        try:
            call()
        except UserError as error:
            yield [name, cls.__name__, "", "", "", "", "", str(error)]
            continue
        cost = method.cost(model, clip)
        assert cost is not None and default is not None
        calls[cls.__name__] = call
        costs[cls.__name__] = cost, f"{default.forwards} + {default.backwards}"
    found: dict[str, list[tuple[float, float]]] = {method: [] for method in calls}
    for n in range(repeats):
        for method in random.sample(list(calls), len(calls)):
            if n and sum(costs[method][0]) > MANY:
                continue
            before, own, after = timed(forward), timed(calls[method]), timed(forward)
            found[method].append(tuple(2 * own[k] / (before[k] + after[k]) for k in (0, 1)))
    for method, ratios in found.items():
        cost, default = costs[method]
        cpu, wall = (median(each) for each in zip(*ratios, strict=True))
        figures = [round(cpu, 2), round(wall, 2), round(cpu / sum(cost), 2)]
        yield [name, method, cost.forwards, cost.backwards, *figures, default]


def caller(model: lc.Explainable, method: lc.Attribution, clip: torch.Tensor) -> Call:
    return lambda: lc.explain(model, method, clip, 3).heatmap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--network", choices=[*FIRST, "all"], default="all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=112, help="of frames, in pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for name in FIRST if args.network == "all" else (args.network,):
        for row in measure(name, args.repeats, args.size):
            rows.append(row)
            print(*row, sep=", ", flush=True)
    with args.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([HEADINGS, *rows])
        version = importlib.metadata.version("torch")
        how = f"{args.threads} threads, {args.repeats} repeats, {args.size} pixels"
        writer.writerow([f"# {how}, torch=={version}"])


if __name__ == "__main__":
    main()
