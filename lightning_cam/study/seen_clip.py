"""A clip as a network sees it, and what rows say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_cam.attribution import Explainable
from lightning_cam.data.core.loading import collate
from lightning_cam.errors import UserError
from lightning_cam.explaining.clip_explanations import network_outputs, probabilities, true_label
from lightning_cam.study.design import Design
from lightning_cam.study.journal import StudyRow
from lightning_cam.study.work_items import WorkItem


@dataclass(frozen=True)
class SeenClip:
    """A clip as the network sees it.

    Attributes:
        model: bound to the clip's batch.
        clip: `(1, C, T, H, W)`.
        batch: of this clip.
        outputs: of the network, `(1, K)`: no number depends on which cell is measured first.
        target: `(1,)`, what is explained.
        other: another clip of the study, alike, where a measure needs one.
        shared: what measures computed once.
    """

    model: Explainable
    clip: Tensor
    batch: Mapping[str, Any]
    outputs: Tensor
    target: Tensor
    other: Tensor | None
    shared: dict[Any, Any] = field(default_factory=dict)


def identity(unit: WorkItem) -> StudyRow:
    """What a row says of its clip, whether or not it can be read."""
    network = unit.network
    return {
        "network": network.name,
        "trained": network.trained,
        "input": unit.input,
        "index": unit.clip,
        "clip_id": network.dataset.clips[unit.clip].clip_id,
        "sequence": network.sequence(unit.input, unit.clip),
        "device": _device_name(network.task.device),
        "cell": "",
        "error": "",
    }


def see_clip(design: Design, unit: WorkItem, batch: Mapping[str, Any]) -> SeenClip:
    """The clip with what the network says of it, and the column that is explained."""
    clip = batch["video"].to(unit.network.task.device)
    model: Explainable = unit.network.task.explainable(batch)
    outputs = network_outputs(model, clip)
    if not bool(outputs.isfinite().all()):
        raise ValueError("the network's outputs are not finite")
    column = unit.network.columns.get(unit.input)
    if column is not None:
        target = model.columns(column, clip)
    elif design.target == "true":
        if (label := true_label(batch)) < 0:
            raise ValueError(
                "the clip's true class is not known; study.target=predicted needs none"
            )
        target = model.columns(label, clip)
    else:
        target = model.highest(outputs)  # as the paper: what the network says, right or not
    asked = any("other" in each.needs for each in design.measures.values())
    return SeenClip(model, clip, batch, outputs, target, _other_clip(unit) if asked else None)


def _other_clip(unit: WorkItem) -> Tensor | None:
    """The study's next clip that can be read, `(1, C, T, H, W)`; after the last the first."""
    network = unit.network
    indices = list(network.inputs[unit.input])
    place = indices.index(unit.clip)
    for index in (*indices[place + 1 :], *indices[:place]):
        try:
            batch = collate([network.dataset[index]])
        except UserError:
            continue
        if not batch["error"][0]:
            return batch["video"].to(network.task.device)
    return None


def class_facts(seen: SeenClip) -> StudyRow:
    """What a row says of the clip's classes."""
    model, target, label = seen.model, int(seen.target), true_label(seen.batch)
    ranked = probabilities(model, seen.outputs)
    return {
        "label": model.name(label) if label >= 0 else "",
        "prediction": model.name(int(seen.outputs.argmax(1))) if ranked else "",
        "target": model.name(target),
        "p_target": ranked[target][1] if ranked else None,
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
