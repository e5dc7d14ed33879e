"""Clips of a data set explained, a batch at once: records, and a small picture of each.

A batch is the same however many processes share the work. A clip that cannot be read, or fails,
costs itself: what fails for a batch is done again for each of its clips alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_cam.attribution import Attribution, Explainable, Explanation, explain
from lightning_cam.attribution.doubt import not_finite
from lightning_cam.data.core.clips import Clip, finished
from lightning_cam.data.core.dataset import SampleDataset
from lightning_cam.data.core.loading import collate
from lightning_cam.errors import readable, say, why
from lightning_cam.explaining.clip_arrays import settings_of_method
from lightning_cam.explaining.clip_drawing import clip_frames
from lightning_cam.explaining.clip_explanations import check_once, row_of, true_label
from lightning_cam.explaining.kept_map import MAP_SIZE, KeptMap
from lightning_cam.explaining.question import Question
from lightning_cam.interfaces import Batch, HasWorkers, Task, is_offered
from lightning_cam.metrics import Explained, energy_inside
from lightning_cam.stops import left_to_parent
from lightning_cam.survey.shards import ClipRecord, MapRecord, frames_jpeg, small_frames
from lightning_cam.viz import overlay
from lightning_cam.viz.drawing import jpeg
from lightning_cam.viz.overlay import clip_scale

SIZE = 8  # clips of a batch
_SHOWN = 6  # frames of a picture


@dataclass(frozen=True)
class Done:
    """A clip of which nothing is left to be done, and its picture for the page."""

    record: ClipRecord
    picture: bytes


@dataclass(frozen=True)
class BatchExplainer:
    """Explains clips of a data set.

    Attributes:
        task: the network, on its device.
        data: its data module.
        dataset: the clips.
        titles: of all of them; no two are the same.
        methods: name -> method.
        question: which column of each clip.
    """

    task: Task
    data: object
    dataset: SampleDataset[Any]
    titles: Sequence[str]
    methods: Mapping[str, Attribution]
    question: Question

    def explained(self, batches: Sequence[list[int]]) -> Iterator[list[Done]]:
        """The clips of each batch of indices, read ahead by the data's loader processes."""
        loader = DataLoader(
            self.dataset,
            batch_sampler=batches,
            num_workers=self.data.num_workers if is_offered(self.data, HasWorkers) else 0,
            collate_fn=collate,
            worker_init_fn=left_to_parent,
            generator=torch.Generator(),  # or making an iterator would draw from the global one
        )
        read = iter(loader)
        for indices in batches:
            try:
                done = self._of_batch(indices, next(read))
            except Exception:  # one clip of them, or all together are too much
                done = [self._alone(index) for index in indices]
            yield done

    def about(self, records: Sequence[ClipRecord]) -> dict[str, Any]:
        """What all clips share, as `shards` keeps it."""
        methods = {
            name: {"title": method.title, "settings": settings_of_method(method)}
            for name, method in self.methods.items()
        }
        model = self.task.explainable()
        columns = max((len(r.outputs) for r in records if r.outputs is not None), default=0)
        return {
            "methods": methods,
            "question": model.question,
            "names": [model.name(k) for k in range(columns)],
            "heads": [(size, kind or "") for size, kind in model.heads_of(torch.empty(1, columns))],
            "broken": not_finite(model.module),
        }

    def _alone(self, index: int) -> Done:
        try:
            return self._of_batch([index], collate([self.dataset[index]]))[0]
        except Exception as error:
            return self._failed(index, why(error))

    def _failed(self, index: int, reason: str) -> Done:
        clip = self.dataset.clips[index]
        path = readable(str(clip.path)) if isinstance(clip, Clip) else ""
        return Done(ClipRecord(index, self.titles[index], path, error=reason), b"")

    def _of_batch(self, indices: Sequence[int], batch: Batch) -> list[Done]:
        """Those that could be read are explained together, in their order."""
        errors, given = batch["error"], dict[str, Any](batch)
        good = [n for n, error in enumerate(errors) if not error]
        found = {
            indices[n]: self._failed(indices[n], error) for n, error in enumerate(errors) if error
        }
        if good:
            rows = {
                key: value[good] if isinstance(value, Tensor) else [value[n] for n in good]
                for key, value in given.items()
            }
            whole: Any = finished(move_data_to_device(rows, self.task.device))
            own = [indices[n] for n in good]
            found |= {done.record.index: done for done in self._read(own, whole)}
        return [found[index] for index in indices]

    def _read(self, indices: Sequence[int], batch: dict[str, Any]) -> list[Done]:
        """Clips that could be read."""
        model, clip = self.task.explainable(batch), batch["video"]
        if found := check_once(model, self.methods, clip):
            say(*found.notes, found.summary)
        asked, target = self.question.about_all(model, batch, clip)
        of_methods = {
            name: self._by(method, asked, batch, target) for name, method in self.methods.items()
        }
        return [
            self._done(index, row_of(batch, n), {name: of[n] for name, of in of_methods.items()})
            for n, index in enumerate(indices)
        ]

    def _by(
        self, method: Attribution, model: Explainable, batch: dict[str, Any], target: Tensor | None
    ) -> list[_Mapped | str]:
        """What a method makes of each clip, or why it makes nothing of it."""
        clip = batch["video"]
        try:
            return _rows(explain(model, method, clip, target), model, batch)
        except Exception as error:
            if len(clip) == 1:
                return [why(error)]
        rows = []
        for n in range(len(clip)):
            row = row_of(batch, n)
            column = None if target is None else target[n : n + 1]
            try:
                own, _ = self.question.about_all(self.task.explainable(row), row, row["video"])
                rows += self._by(method, own, row, column)
            except Exception as error:
                rows.append(why(error))
        return rows

    def _done(self, index: int, row: dict[str, Any], found: Mapping[str, _Mapped | str]) -> Done:
        """The record of a clip, and its picture: frames, and below them each method's overlay."""
        mapped = {name: one for name, one in found.items() if not isinstance(one, str)}
        missing = {name: one for name, one in found.items() if isinstance(one, str)}
        if not mapped:
            reasons = "; ".join(f"{name}: {said}" for name, said in missing.items())
            return self._failed(index, reasons)
        first = next(iter(mapped.values()))
        frames = small_frames(clip_frames(self.data, row["video"]))
        record = replace(
            self._failed(index, "").record,
            label=true_label(row),
            target=first.target,
            outputs=first.outputs,
            even=first.even,
            times=[round(s, 4) for s in row["time_s"][0].tolist()] if "time_s" in row else (),
            valid=row["valid"][0].tolist() if "valid" in row else (),
            size=frames.shape[:3],
            jpeg=frames_jpeg(frames),
            maps={name: one.record for name, one in mapped.items()},
            missing=missing,
        )
        return Done(record, picture(frames, [one.heat for one in mapped.values()]))


@dataclass(frozen=True)
class _Mapped:
    """What a method made of one clip."""

    record: MapRecord
    heat: NDArray[np.float32]  # (T, H, W), as images need it
    target: int
    outputs: NDArray[np.float32]
    even: float | None


def _rows(e: Explanation, model: Explainable, batch: dict[str, Any]) -> list[_Mapped | str]:
    """An explanation of B clips, as each one's record, or why there is none."""
    explained = Explained(model, batch["video"], e, batch)
    judged, truth = explained.judged, explained.truth("actor")
    heat, doubts, evidence = e.heatmap.cpu(), e.doubts, explained.heat
    inside = energy_inside(evidence, truth, judged)
    counted = truth.sum((2, 3)) * judged  # of each frame
    even = counted.sum(1) / (judged.sum(1) * truth[0, 0].numel())
    native = e.native if e.native and math.prod(e.native) <= math.prod(MAP_SIZE) else None
    found: list[_Mapped | str] = []
    for n in range(len(heat)):
        level = None if e.level is None else e.level[n : n + 1]
        try:
            kept = KeptMap.of(replace(e, heatmap=heat[n : n + 1], level=level, native=native))
        except ValueError as error:  # a map that is not finite
            found.append(why(error))
            continue
        record = MapRecord(
            kept,
            kept.values.shape == native,
            doubts[n],
            dict(e.notes),
            {name: value[n].item() for name, value in e.numbers.items()},
            _known(inside[n]),
        )
        outputs = e.outputs[n].cpu().numpy().astype(np.float32)
        seen = evidence[n].float().numpy()
        found.append(_Mapped(record, seen, int(e.target[n]), outputs, _known(even[n]) or None))
    return found


def _known(value: Tensor) -> float | None:
    return None if bool(value.isnan()) else round(float(value), 5)


def picture(frames: NDArray[np.uint8], maps: Sequence[NDArray[np.float32]]) -> bytes:
    """A JPEG of some frames (T, h, w, 3) in a row, and below them with each map (T, H, W)."""
    at = np.linspace(0, len(frames) - 1, min(_SHOWN, len(frames))).round().astype(int)
    rows = [frames[at]]
    for heat in maps:
        signed = bool((heat < 0).any())
        scale = clip_scale(heat, signed=signed)
        shown = np.stack([cv2.resize(heat[t], frames.shape[2:0:-1]) for t in at])
        rows.append(overlay(rows[0], shown, scale=scale, signed=signed) if scale > 0 else rows[0])
    return jpeg(np.concatenate([np.concatenate([*row], 1) for row in rows]))
