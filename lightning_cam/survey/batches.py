"""Clips of a data set explained, a batch at once: records, and a small picture of each.

A batch is the same however many processes share the work. A clip that cannot be read, or fails,
costs itself: what fails for a batch is done again for each of its clips alone. While a batch is
explained, a thread makes of the one before what is kept: maps made small, frames, pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_cam.attribution import Attribution, Explainable, explain
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
_SHOWN = 6  # frames of a picture that are as wide as high


@dataclass(frozen=True)
class Done:
    """A clip of which nothing is left to be done, and its pictures for the page.

    Attributes:
        record: of the clip.
        pictures: see `pictures`; none of a clip that was not explained.
    """

    record: ClipRecord
    pictures: Sequence[bytes] = ()


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
        told: methods of which was said whether they fail.
    """

    task: Task
    data: object
    dataset: SampleDataset[Any]
    titles: Sequence[str]
    methods: Mapping[str, Attribution]
    question: Question
    told: set[str] = field(default_factory=set)

    def explained(self, batches: Sequence[list[int]]) -> Iterator[Future[list[Done]]]:
        """The clips of each batch of indices, read ahead by the data's loader processes.

        Each is ready soon after it is handed out, and at the latest when the next one is.
        """
        loader = DataLoader(
            self.dataset,
            batch_sampler=batches,
            num_workers=self.data.num_workers if is_offered(self.data, HasWorkers) else 0,
            collate_fn=collate,
            worker_init_fn=left_to_parent,
            generator=torch.Generator(),  # or making an iterator would draw from the global one
        )
        read = iter(loader)  # whose processes are forked before there is a thread
        with ThreadPoolExecutor(1, "survey") as keeper:
            before: list[Future[list[Done]]] = []
            for indices in batches:
                try:
                    answer = self._answer(indices, next(read))
                    wait(before)
                    before = [keeper.submit(self._kept, answer)]
                except Exception:  # one clip of them, or all together are too much
                    before = [keeper.submit(self._each_alone, indices)]
                    wait(before)
                yield before[0]

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

    def _each_alone(self, indices: Sequence[int]) -> list[Done]:
        done = []
        for index in indices:
            try:
                answer = self._answer([index], collate([self.dataset[index]]))
                done += self._made(answer)
            except Exception as error:
                done.append(self._failed(index, why(error)))
        return done

    def _failed(self, index: int, reason: str) -> Done:
        clip = self.dataset.clips[index]
        path = readable(str(clip.path)) if isinstance(clip, Clip) else ""
        return Done(ClipRecord(index, self.titles[index], path, error=reason))

    def _answer(self, indices: Sequence[int], batch: Batch) -> _Answer:
        """What the methods say of those that could be read."""
        errors, given = batch["error"], dict[str, Any](batch)
        good = [n for n, error in enumerate(errors) if not error]
        unread = {indices[n]: error for n, error in enumerate(errors) if error}
        if not good:
            return _Answer(indices, unread)
        if unread:
            given = {
                key: value[good] if isinstance(value, Tensor) else [value[n] for n in good]
                for key, value in given.items()
            }
        whole: Any = finished(move_data_to_device(given, self.task.device))
        model, clip = self.task.explainable(whole), whole["video"]
        if found := check_once(model, self.methods, clip):
            say(*found.notes, found.summary)
        asked, target = self.question.about_all(model, whole, clip)
        said = {name: self._by(method, asked, whole, target)
                for name, method in self.methods.items()}  # fmt: skip
        self._say_failures(said)
        return _Answer(indices, unread, whole, said)

    def _say_failures(self, said: Mapping[str, Sequence[Explained | str]]) -> None:
        """Say in the beginning that a method makes nothing of all clips: nobody should wait."""
        for name in said.keys() - self.told:
            self.told.add(name)
            if all(isinstance(one, str) for one in said[name]):
                say(f"{name}: no map of the first {len(said[name])} clips: {said[name][0]}")

    def _by(
        self, method: Attribution, model: Explainable, batch: dict[str, Any], target: Tensor | None
    ) -> list[Explained | str]:
        """What a method makes of all clips, or of each, or why it makes nothing of one."""
        clip = batch["video"]
        try:
            return [Explained(model, clip, explain(model, method, clip, target), batch)]
        except Exception as error:
            if len(clip) == 1:
                return [why(error)]
        said = []
        for n in range(len(clip)):
            row = row_of(batch, n)
            column = None if target is None else target[n : n + 1]
            try:
                own, _ = self.question.about_all(self.task.explainable(row), row, row["video"])
                said += self._by(method, own, row, column)
            except Exception as error:
                said.append(why(error))
        return said

    def _kept(self, answer: _Answer) -> list[Done]:
        """What is kept of a batch; of each clip alone where that fails."""
        try:
            return self._made(answer)
        except Exception:
            return self._each_alone(answer.indices)

    def _made(self, answer: _Answer) -> list[Done]:
        """What is kept of each clip of a batch."""
        of_methods = {
            name: [row for one in said for row in ([one] if isinstance(one, str) else _rows(one))]
            for name, said in answer.said.items()
        }
        done, explained = [], iter(range(len(answer.indices)))
        for index in answer.indices:
            if index in answer.unread:
                done.append(self._failed(index, answer.unread[index]))
                continue
            n = next(explained)
            rows = {name: of[n] for name, of in of_methods.items()}
            done.append(self._done(index, row_of(answer.batch, n), rows))
        return done

    def _done(self, index: int, row: dict[str, Any], found: Mapping[str, _Mapped | str]) -> Done:
        """The record of a clip, and its pictures."""
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
            truth=_truth(row, first.target, len(first.outputs)),
            outputs=first.outputs,
            even=first.even,
            times=[round(s, 4) for s in row["time_s"][0].tolist()] if "time_s" in row else (),
            valid=row["valid"][0].tolist() if "valid" in row else (),
            size=frames.shape[:3],
            jpeg=frames_jpeg(frames),
            maps={name: one.record for name, one in mapped.items()},
            missing=missing,
        )
        heats = [mapped[name].heat if name in mapped else None for name in found]
        return Done(record, pictures(frames, heats))


@dataclass(frozen=True)
class _Answer:
    """What the methods say of a batch of clips.

    Attributes:
        indices: of the clips.
        unread: index -> why the clip could not be read.
        batch: of the others.
        said: method -> what it makes of all of these, or of one after the other; a text instead of
            a clip says why it makes nothing of it.
    """

    indices: Sequence[int]
    unread: Mapping[int, str]
    batch: Mapping[str, Any] = field(default_factory=dict)
    said: Mapping[str, Sequence[Explained | str]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Mapped:
    """What a method made of one clip."""

    record: MapRecord
    heat: NDArray[np.float32]  # (T, H, W), as images need it
    target: int
    outputs: NDArray[np.float32]
    even: float | None


def _rows(explained: Explained) -> list[_Mapped | str]:
    """Explained clips, as each one's record, or why there is none."""
    e, judged, truth = explained.explanation, explained.judged, explained.truth("actor")
    heat, evidence, doubts = e.heatmap.cpu(), explained.heat.float(), e.doubts
    native = e.native if e.native and math.prod(e.native) <= math.prod(MAP_SIZE) else None
    outputs, targets = e.outputs.cpu().numpy().astype(np.float32), e.target.tolist()
    numbers = {name: value.tolist() for name, value in e.numbers.items()}
    found: list[_Mapped | str] = []
    for n in range(len(heat)):  # one by one, for they fit into a processor's cache
        own = slice(n, n + 1)
        level = None if e.level is None else e.level[own]
        try:
            kept = KeptMap.of(replace(e, heatmap=heat[own], level=level, native=native))
        except ValueError as error:  # a map that is not finite
            found.append(why(error))
            continue
        inside = even = None
        if bool(truth[n].any()):
            counted = (truth[n].sum((1, 2)) * judged[n]).sum()
            even = _known(counted / (judged[n].sum() * truth[n, 0].numel())) or None
            if kept.places:
                inside = _known(energy_inside(evidence[own], truth[own], judged[own]))
        record = MapRecord(
            kept,
            kept.values.shape == native,
            doubts[n],
            dict(e.notes),
            {name: value[n] for name, value in numbers.items()},
            inside,
        )
        seen = evidence[n].numpy()
        found.append(_Mapped(record, seen, targets[n], outputs[n], even))
    return found


def _known(value: Tensor) -> float | None:
    number = float(value)
    return None if math.isnan(number) else round(number, 5)


def _truth(row: Mapping[str, Any], column: int, columns: int) -> bool | None:
    """Whether a column is true of a clip (B = 1) whose classes are true by themselves."""
    label = row.get("label")
    if not isinstance(label, Tensor) or (label.is_floating_point() and label.ndim == 1):
        return None
    if label.ndim == 1 and columns > 1:  # the number of one class
        return int(label[0]) == column if int(label[0]) >= 0 else None
    said = int(label[0] if label.ndim == 1 else label[0, column])
    return None if said < 0 else said > 0


def frames_shown(frames: int, height: int, width: int) -> int:
    """How many frames a picture has: of wide ones fewer, so that they are not too small."""
    return min(max(round(_SHOWN * height / width), 3), _SHOWN, frames)


def pictures(
    frames: NDArray[np.uint8], maps: Sequence[NDArray[np.float32] | None]
) -> tuple[bytes, ...]:
    """JPEGs of some frames (T, h, w, 3) side by side, and of these with each map (T, H, W).

    Of no map there is an empty one.
    """
    count = frames_shown(*frames.shape[:3])
    at = ((np.arange(count) + 0.5) * len(frames) / count).astype(int)  # the middle of each part
    rows = [some := frames[at]]
    for heat in maps:
        if heat is None:
            rows.append(some[:0])
            continue
        signed = bool((heat < 0).any())
        scale = clip_scale(heat, signed=signed)
        shown = np.stack([cv2.resize(heat[t], frames.shape[2:0:-1]) for t in at])
        rows.append(overlay(some, shown, scale=scale, signed=signed) if scale > 0 else some)
    return tuple(jpeg(np.concatenate([*row], 1)) if len(row) else b"" for row in rows)
