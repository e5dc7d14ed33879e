"""What only a machine with a GPU can show, in one command of a few minutes.

    python benchmarks/on_gpu.py            # or make cuda; writes on_gpu.csv
    python benchmarks/on_gpu.py --dry      # a rehearsal on the CPU, small; writes nothing

Maps of every method against the CPU's, recurrent networks (cuDNN wants training mode for their
gradients), bfloat16, `torch.compile`, channels last, a training with and without the callback, NCCL
with one process, what RISE reaches of the bare forwards' throughput, and whether the loader keeps
up with decoding. A check that raises is a row that says so, and the exit code is 1. Needs torch and
lightning; what else is missing leaves out the rows that need it.
"""

from __future__ import annotations

import argparse
import copy
import csv
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import lightning.pytorch as pl
import torch
from cost import ConvLSTMNet
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_cam as lc
from lightning_cam.errors import UserError

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
HEADINGS = ["check", "figure", "unit", "wanted", "holds"]
OFTEN = {"masks": 32, "iterations": 5, "samples": 4, "steps": 8, "nodes": 4}  # instead of thousands


@dataclass(frozen=True)
class Found:
    """A figure, and whether it is what it should be; None where nothing is asked of it."""

    check: str
    figure: float
    unit: str
    wanted: str = ""
    holds: bool | None = None

    @classmethod
    def at_most(cls, check: str, figure: float, limit: float, unit: str) -> Found:
        return cls(check, figure, unit, f"<= {limit:g}", figure <= limit)

    @classmethod
    def at_least(cls, check: str, figure: float, limit: float, unit: str) -> Found:
        return cls(check, figure, unit, f">= {limit:g}", figure >= limit)


@dataclass(frozen=True)
class Machine:
    """Where it runs, and how large."""

    device: torch.device
    dry: bool

    @property
    def side(self) -> int:
        return 32 if self.dry else 112

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], object]) -> float:
        """Of one call, the second of two."""
        call()
        self.wait()
        began = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - began


class Convolutional(nn.Module):
    """Three 3-D convolutions, their mean, a linear head; dropout in training."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 32)
        steps: list[nn.Module] = []
        for before, after in pairwise(widths):
            steps += [nn.Conv3d(before, after, 3, 2, 1), nn.BatchNorm3d(after), nn.ReLU()]
        self.trunk = nn.Sequential(*steps)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(32, 5))

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.trunk(clip).mean((2, 3, 4)))


def networks() -> dict[str, tuple[nn.Module, str]]:
    """A 3-D network and a recurrent one, and their target layers."""
    torch.manual_seed(0)
    return {
        "3-D": (Convolutional().eval(), "trunk"),
        "recurrent": (ConvLSTMNet().eval(), "cnn"),
    }


def methods() -> dict[str, lc.Attribution]:
    """Every public method that can be made without settings; long ones shortened."""
    found = {}
    for name in lc.__all__:
        kind = getattr(lc, name)
        if isinstance(kind, type) and issubclass(kind, lc.Attribution):
            fields = getattr(kind, "__dataclass_fields__", {})
            try:
                found[name] = kind(**{k: n for k, n in OFTEN.items() if k in fields})
            except (TypeError, UserError):
                continue  # a family's base, or a method that needs to be told something
    return found


def likeness(one: Tensor, two: Tensor) -> float:
    """Correlation of two maps; 1 where both are even."""
    a, b = (m.double().cpu().flatten() - m.double().mean().cpu() for m in (one, two))
    norms = a.norm() * b.norm()
    return 1.0 if norms == 0 and a.norm() == b.norm() else float(a @ b / norms)


def maps_as_on_the_cpu(machine: Machine) -> Iterator[Found]:
    """Every method on both networks; the recurrent one in eval mode, as users have it."""
    for name, (net, layer) in networks().items():
        clip = torch.randn(1, 3, 8, 48, 48)
        there = copy.deepcopy(net).to(machine.device)
        for title, method in methods().items():
            try:
                own = lc.explain(lc.Explainable.of(net, [layer]), method, clip, 2)
            except UserError:
                continue  # the method is for other networks
            model = lc.Explainable.of(there, [layer])
            found = lc.explain(model, method, clip.to(machine.device), 2)
            alike = likeness(own.heatmap, found.heatmap)
            yield Found.at_least(f"{title}, {name}: map as on the CPU", alike, 0.999, "correlation")


def other_forms(machine: Machine) -> Iterator[Found]:
    """Half precision, compiled, channels last: Grad-CAM against the plain network's."""
    net, layer = networks()["3-D"]
    net = net.to(machine.device)
    clip = torch.randn(2, 3, 8, 48, 48, device=machine.device)

    def heat(module: nn.Module, clip: Tensor = clip) -> Tensor:
        return lc.explain(lc.Explainable.of(module, [layer]), lc.GradCAM(), clip, 2).heatmap

    plain = heat(net)
    with torch.autocast(machine.device.type, torch.bfloat16):
        alike = likeness(plain, heat(net))
    yield Found.at_least("Grad-CAM under bfloat16 autocast", alike, 0.98, "correlation")
    last = copy.deepcopy(net).to(memory_format=torch.channels_last_3d)
    alike = likeness(plain, heat(last, clip.to(memory_format=torch.channels_last_3d)))
    yield Found.at_least("Grad-CAM, channels last", alike, 0.999, "correlation")
    compiled = torch.compile(copy.deepcopy(net), backend="eager" if machine.dry else "inductor")
    compiled(clip)
    alike = likeness(plain, heat(compiled))
    yield Found.at_least("Grad-CAM of a compiled network", alike, 0.999, "correlation")


class Task(pl.LightningModule):
    """A classifier of clips that can be explained."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = Convolutional()

    def explainable(self, batch: object) -> lc.Explainable:
        return lc.Explainable.of(self.net, ["trunk"])

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        clips, labels = batch
        return nn.functional.cross_entropy(self.net(clips), labels)

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self.log("val/loss", self.training_step(batch, index))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 1e-3)


def trained(machine: Machine, folder: str, *callbacks: pl.Callback, **options: object) -> Task:
    """Two epochs on 16 random clips."""
    torch.manual_seed(1)
    clips = TensorDataset(torch.randn(16, 3, 8, 48, 48), torch.arange(16) % 5)
    task, quiet = Task(), {"logger": False, "enable_progress_bar": False}
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        accelerator="cuda" if machine.device.type == "cuda" else "cpu",
        devices=1,
        max_epochs=2,
        deterministic="warn",
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_model_summary=False,
        **quiet,
        **options,
    )
    trainer.fit(task, DataLoader(clips, 4), DataLoader(clips, 4))
    return task.cpu()


def trainings(machine: Machine) -> Iterator[Found]:
    """With the callback and without: in full precision, mixed, and under DDP with one process."""
    backend = "nccl" if machine.device.type == "cuda" else "gloo"
    from lightning.pytorch.strategies import DDPStrategy

    ways: dict[str, Callable[[], dict[str, object]]] = {
        "fp32": dict,
        "bf16-mixed": lambda: {"precision": "bf16-mixed"},
        f"DDP over {backend}": lambda: {"strategy": DDPStrategy(process_group_backend=backend)},
    }
    for way, options in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            plain = trained(machine, folder, **options())
            after = torch.rand(4, device=machine.device)
            callback = lc.ExplainCallback({"gradcam": lc.GradCAM()}, clips=2)
            explained = trained(machine, folder, callback, **options())
            same_numbers = torch.equal(after, torch.rand(4, device=machine.device))
            videos = len(list(Path(folder).rglob("epoch_*/*.mp4")))
        weights = zip(plain.state_dict().values(), explained.state_dict().values(), strict=True)
        differ = sum(not torch.equal(a, b) for a, b in weights) + (not same_numbers)
        yield Found.at_most(f"{way}: weights the callback changes", differ, 0, "tensors")
        yield Found.at_least(f"{way}: videos", videos, 4, "files")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def throughput_of_rise(machine: Machine) -> Iterator[Found]:
    """RISE on an R3D-18 against as many bare forwards in batches of 32."""
    from torchvision.models.video import r3d_18

    torch.manual_seed(0)
    net = r3d_18(weights=None).eval().to(machine.device)
    masks, shape = (16, (1, 3, 8, 32, 32)) if machine.dry else (2000, (1, 3, 32, 224, 224))
    clip, rows = torch.randn(shape, device=machine.device), min(32, masks)
    batch = clip.expand(rows, *shape[1:]).contiguous()
    model = lc.Explainable.of(net, ["layer4"])
    for half in (False, True):

        def bare(half: bool = half) -> None:
            with torch.inference_mode(), torch.autocast(clip.device.type, torch.bfloat16, half):
                for _ in range(4):
                    net(batch)

        def rise(half: bool = half) -> None:
            lc.explain(model, lc.RISE(masks, bf16=half), clip, 3)

        forwards = 4 * rows / machine.seconds(bare)
        began = time.perf_counter()
        rise()
        machine.wait()
        explained = masks / (time.perf_counter() - began)
        precision = "bf16" if half else "fp32"
        yield Found(f"RISE {masks} masks, {precision}", round(explained, 1), "forwards/s")
        share = explained / forwards
        name = f"RISE, {precision}: share of bare forwards' throughput"
        yield Found(name, share, "share") if machine.dry else Found.at_least(name, share, 0.8, "")


def loading(machine: Machine) -> Iterator[Found]:
    """The training loader's clips per second, and its share of bare decoding, by workers."""
    from loader import KINDS, measure, render, scene

    clips, most = (8, 2) if machine.dry else (128, min(16, os.cpu_count() or 1))
    with tempfile.TemporaryDirectory() as folder:
        path = render(Path(folder) / KINDS["mp4"].name, KINDS["mp4"], scene())
        for workers in sorted({2, most}):
            _, _, raw, _, _, share, _ = measure(path, KINDS["mp4"], clips, workers, 1)
            yield Found(f"H.264, {workers} workers: clips loaded", raw, "clips/s")
            yield Found(f"H.264, {workers} workers: share of bare decoding", share, "share")


CHECKS = (maps_as_on_the_cpu, other_forms, trainings, throughput_of_rise, loading)


def found_by(check: Callable[[Machine], Iterator[Found]], machine: Machine) -> Iterator[Found]:
    """What a check finds, up to where it raises."""
    name = check.__name__.replace("_", " ")
    began = time.perf_counter()
    try:
        yield from check(machine)
    except ModuleNotFoundError as error:
        yield Found(f"{name}: left out, there is no {error.name}", float("nan"), "")
    except Exception as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        yield Found(f"{name}: {said}", float("nan"), "", "no error", False)
    yield Found(f"{name}: time", round(time.perf_counter() - began, 1), "s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--dry", action="store_true", help="rehearse on the CPU")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    if not args.dry and not torch.cuda.is_available():
        print("there is no GPU here: --dry rehearses on the CPU", file=sys.stderr)
        return 2
    machine = Machine(torch.device("cpu" if args.dry else "cuda"), args.dry)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows = []
    for check in CHECKS:
        for found in found_by(check, machine):
            rows.append(found)
            mark = {None: "", True: "ok", False: "NOT SO"}[found.holds]
            line = f"{found.check:72} {found.figure:10.4g} {found.unit:12} {found.wanted:9} {mark}"
            print(line.rstrip(), flush=True)
    if not args.dry:
        with args.out.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(HEADINGS)
            writer.writerows([f.check, f.figure, f.unit, f.wanted, f.holds] for f in rows)
            writer.writerow([f"# {torch.cuda.get_device_name()}, torch=={torch.__version__}"])
    return int(any(found.holds is False for found in rows))


if __name__ == "__main__":
    sys.exit(main())
