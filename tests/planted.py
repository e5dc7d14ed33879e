"""A trained network and clips whose evidence is known voxel by voxel.

Four classes of stripes that move left, right, up or down, in a patch of 12 x 12 pixels for 6 of 12
frames, at a random place and time; beside it, at the same time, a patch of still diagonal stripes
that says nothing of the class. The network sees neither place nor time, so what it knows of the
class it knows from the moving patch: 4.5% of a clip's voxels.

    def test_it(planted: Planted) -> None:
        e = lc.explain(planted.model, lc.GradCAM(), planted.clips, planted.labels)
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.video.resnet import BasicBlock, Conv3DSimple

import lightning_cam as lc

CLASSES = ["left", "right", "up", "down"]
FRAMES, SIZE = 12, 40
PATCH, SPELL, GAP = 12, 6, 2  # pixels, frames, pixels between the patches
CHANCE = PATCH * PATCH * SPELL / (FRAMES * SIZE * SIZE)  # the evidence's share of a clip
STAGES = ["stem", "layer1", "layer2", "layer3", "fc"]  # in the order in which they run
_STEPS, _ROWS = 50, 16


class PlantedNet(nn.Module):
    """A 3-D residual network: three basic blocks of 16, 32 and 64 channels, mean, linear head.

    The last map is 6 x 5 x 5 for 12 x 40 x 40; that of `layer1` 12 x 20 x 20.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Conv3DSimple(3, 16, stride=1), nn.BatchNorm3d(16), nn.ReLU(inplace=True)
        )
        self.stem[0].stride = (1, 2, 2)
        self.layer1 = _block(16, 16, (1, 1, 1))
        self.layer2 = _block(16, 32, (2, 2, 2))
        self.layer3 = _block(32, 64, (1, 2, 2))
        self.fc = nn.Linear(64, len(CLASSES))

    def forward(self, clip: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.stem(clip))))
        return self.fc(x.mean((2, 3, 4)))


def _block(inputs: int, outputs: int, stride: tuple[int, int, int]) -> BasicBlock:
    shortcut = None
    if inputs != outputs:
        shortcut = nn.Sequential(
            nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs)
        )
    block = BasicBlock(inputs, outputs, Conv3DSimple, 1, shortcut)
    block.conv1[0].stride = stride
    return block


@dataclass(frozen=True)
class Planted:
    """The trained network and clips that it has not seen.

    Attributes:
        net: in eval mode; leave it as it is.
        clips: `(8, 3, 12, 40, 40)`, each class twice, all of them recognised.
        labels: `(8,)`.
        mask: `(8, 12, 40, 40)` bool, where the evidence is.
        accuracy: share of 64 test clips that are recognised.
    """

    net: PlantedNet
    clips: Tensor
    labels: Tensor
    mask: Tensor
    accuracy: float

    @property
    def model(self) -> lc.Explainable:
        return lc.Explainable.of(self.net, layers=["layer3", "layer2", "layer1"], outputs=CLASSES)

    @property
    def batch(self) -> dict[str, Tensor]:
        """What data say of these clips."""
        action = self.mask.any(-1).any(-1)
        return {"video": self.clips, "label": self.labels, "mask": self.mask, "action": action}


def planted_clips(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Clips `(n, 3, T, H, W)` with classes in turn, labels `(n,)` and evidence `(n, T, H, W)`."""
    generator = torch.Generator().manual_seed(seed)

    def below(high: int) -> Tensor:
        return torch.randint(high, (count,), generator=generator)

    labels = torch.arange(count) % len(CLASSES)
    colour = 0.5 + torch.rand(count, 2, 3, generator=generator)
    phase = 6 * torch.rand(count, 2, generator=generator)
    start, top = below(FRAMES - SPELL + 1), below(SIZE - PATCH + 1)
    left, swap = below(SIZE - 2 * PATCH - GAP + 1), below(2)
    level = 0.6 * torch.rand(count, 1, 1, 1, 1, generator=generator)  # so that black is nothing new
    clips = level * torch.randn(count, 3, FRAMES, SIZE, SIZE, generator=generator)
    mask = torch.zeros(count, FRAMES, SIZE, SIZE, dtype=torch.bool)
    t, y, x = torch.meshgrid(*map(torch.arange, (SPELL, PATCH, PATCH)), indexing="ij")
    for i in range(count):
        along = (x, y)[int(labels[i]) // 2]
        towards = (1, -1)[int(labels[i]) % 2]
        rows = slice(int(top[i]), int(top[i]) + PATCH)
        when = slice(int(start[i]), int(start[i]) + SPELL)
        for which, places in enumerate((along + towards * t, x + y)):  # evidence, neutral
            begin = int(left[i]) + (PATCH + GAP) * (which ^ int(swap[i]))
            columns = slice(begin, begin + PATCH)
            stripes = torch.sin(2 * math.pi * (places + phase[i, which]) / 6).sign()
            clips[i, :, when, rows, columns] += colour[i, which, :, None, None, None] * stripes
            if which == 0:
                mask[i, when, rows, columns] = True
    return clips, labels, mask


def _trained() -> dict[str, Tensor]:
    """The state of a network that was trained for about twelve seconds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = PlantedNet().train()
        optimiser = torch.optim.AdamW(net.parameters(), weight_decay=1e-2)
        rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=_STEPS)
        for step in range(_STEPS):
            clips, labels, _ = planted_clips(_ROWS, 1000 + step)
            loss = F.cross_entropy(net(clips), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rates.step()
    return net.state_dict()


def _state(folder: Path) -> dict[str, Tensor]:
    """The trained state, made by the first process of the first run that asks for it."""
    source = Path(__file__).read_bytes() + torch.__version__.encode()
    path = folder / f"{hashlib.sha256(source).hexdigest()[:16]}.pt"
    with FileLock(folder / "lock"):
        if not path.exists():
            torch.save(_trained(), path.with_suffix(".new"))
            path.with_suffix(".new").rename(path)
        return torch.load(path)


@pytest.fixture(scope="session")
def planted(request: pytest.FixtureRequest) -> Planted:
    """The network is trained once a machine; later runs find it in pytest's cache."""
    net = PlantedNet()
    net.load_state_dict(_state(request.config.cache.mkdir("planted")))
    net.eval()
    clips, labels, mask = planted_clips(64, 1)
    with torch.no_grad():
        right = net(clips).argmax(1) == labels
    accuracy = float(right.float().mean())
    assert accuracy > 0.95, f"the planted network recognises {accuracy:.0%} of its test clips"
    kept = right.nonzero()[:, 0]
    kept = torch.cat([kept[labels[kept] == c][:2] for c in range(len(CLASSES))])
    return Planted(net, clips[kept], labels[kept], mask[kept], accuracy)
