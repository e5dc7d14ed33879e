"""The planted network's evidence is where its truth says, and maps find it."""

from __future__ import annotations

import torch
from planted import CLASSES, FRAMES, PATCH, SIZE, SPELL, Planted, planted_clips


def test_clips_are_as_described() -> None:
    clips, labels, mask = planted_clips(8, 3)
    assert clips.shape == (8, 3, FRAMES, SIZE, SIZE)
    assert mask.flatten(1).sum(1).tolist() == [PATCH * PATCH * SPELL] * 8
    assert mask.any(-1).any(-1).sum(1).tolist() == [SPELL] * 8
    assert mask.any(1).flatten(1).sum(1).tolist() == [PATCH * PATCH] * 8
    assert labels.bincount().tolist() == [2] * len(CLASSES)
    assert not torch.equal(planted_clips(8, 4)[0], clips)
    assert torch.equal(planted_clips(8, 3)[0], clips)


def test_the_class_is_known_from_the_evidence_and_from_nothing_else(planted: Planted) -> None:
    clips, labels, mask = planted_clips(64, 2)
    noise = 0.4 * torch.randn(clips.shape, generator=torch.Generator().manual_seed(0))

    def right(kept: torch.Tensor) -> float:
        with torch.no_grad():
            found = planted.net(torch.where(kept[:, None], clips, noise)).argmax(1)
        return float((found == labels).float().mean())

    assert planted.accuracy > 0.95 and right(torch.ones_like(mask)) > 0.95
    assert right(mask) > 0.9
    assert right(~mask) < 0.4  # chance is .25; three standard errors of 64 clips are .16
    assert planted.labels.bincount().tolist() == [2] * len(CLASSES)
