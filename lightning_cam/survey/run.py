"""The work of `explain.py survey=all`: a data set explained, shard by shard, and what it tells.

<folder>/survey.json             the settings; others do not go on here
<folder>/maps/shard_0007.npz     finished clips, see `shards`; one that is there is not made again
<folder>/media/shard_0007.js     their pictures, for the page
<folder>/index.html, *.csv       of the clips so far

Processes share the shards by their numbers, and none waits for another: whoever finds all of them
there writes the page.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

import lightning_cam
from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.dataset import SampleDataset
from lightning_cam.errors import ConfigError, DataError, WriteError, readable, say
from lightning_cam.explaining.clip_arrays import settings_of_method
from lightning_cam.explaining.clip_sources import ALL, choose_indices, open_split, unique_titles
from lightning_cam.explaining.explain_command import chosen_methods, on_device, open_checkpoint
from lightning_cam.explaining.explain_settings import (
    CHOSEN_CLIPS,
    check_clips,
    check_explain,
    refuse_unused,
    trusted,
)
from lightning_cam.explaining.journal import same_work
from lightning_cam.explaining.question import Question, questions
from lightning_cam.explaining.sharing import Share
from lightning_cam.explaining.work_folder import overwrites_nothing
from lightning_cam.files import digest
from lightning_cam.interfaces import as_task, check_data, network_of
from lightning_cam.progress import progress
from lightning_cam.stops import exit_code
from lightning_cam.survey.batches import SIZE, BatchExplainer, Done
from lightning_cam.survey.findings import Findings, check_clusters
from lightning_cam.survey.page import read_media, write_media, write_survey_page
from lightning_cam.survey.shards import CLIPS, read_shard, shard_files, shard_path, write_shard
from lightning_cam.training.own_module import check_own_layers
from lightning_cam.training.runs import run_folder, writable

_SETTINGS = "survey.json"
_WRITTEN = ("index.html", "clips.csv", "classes.csv", "clusters.csv", "maps", "media")
_SAVE_S = 60  # seconds after which what is done of a shard is kept, and said

# What says nothing here: its value otherwise, and what to do instead.
_ELSEWHERE: Mapping[str, tuple[Any, str]] = {
    "clips": (CHOSEN_CLIPS, "; survey= says which clips"),
    "video": (None, ""),
    "select": (None, "; its page filters"),
    "compose": (None, ""),
    "contrast": (None, ""),
    "layers": (None, ""),
    "windows": (None, ""),
    "stride": (None, ""),
    "start": (None, ""),
    "end": (None, ""),
    "size": (None, ""),
    "scale": ("method", ""),
    "fps": (8, ""),
}


def check_survey(config: Mapping[str, Any]) -> None:
    """Whether the settings make sense together with a survey.

    Raises:
        ConfigError: one does not.
        UserError: a package is missing.
    """
    refuse_unused(config, _ELSEWHERE, "a survey")
    if isinstance(config["ckpt"], (list, dict)):
        raise ConfigError(f"ckpt={config['ckpt']}: a survey is of one network, not of several")
    if len(questions(config["target"], several=True)) > 1:
        raise ConfigError(f"target={config['target']}: a survey asks one question of each clip")
    if config["survey"] not in (True, ALL):
        check_clips(config["survey"], "survey", names=True)
    minutes = config["minutes"]
    if minutes is not None and (type(minutes) not in (int, float) or not minutes > 0):
        raise ConfigError(f"minutes={minutes} must be a number above 0, or null")
    check_explain(config)
    check_clusters()


def survey_data_set(config: Mapping[str, Any], command: str = "") -> Path | None:
    """Explain a data set, or go on with it.

    Args:
        config: plain, as in `configs/explain.yaml`.
        command: what was typed, for the report.

    Returns:
        `index.html`; None where clips are left to other processes.

    Raises:
        UserError: what the user can mend; also if not a single clip could be explained.
    """
    start = time.monotonic()
    check_survey(config)
    module, data, info = open_checkpoint(config)
    check_data(data)
    task = as_task(on_device(module, config["device"]))
    methods = chosen_methods(config, task, info, trusted(config))
    if config["model"]["name"] is not None:
        check_own_layers(task.explainable(), methods)
    (question,) = questions(config["target"], several=True)
    question.check(task.explainable())
    split = config["data"]["split"]
    dataset = open_split(data, split, config["data"]["root"] is not None)
    clips = ALL if config["survey"] in (True, ALL) else config["survey"]
    order = spread_order(dataset, choose_indices(dataset, clips, split))
    titles = list(unique_titles(readable(clip.clip_id) for clip in dataset.clips))
    folder = writable(Path(config["out"] or run_folder(config["ckpt"]) / f"survey_{split}"))
    overwrites_nothing(folder, _SETTINGS, _WRITTEN)
    explainer = BatchExplainer(task, data, dataset, titles, methods, question)
    same_work(folder, _SETTINGS, _facts(config, explainer, order, split), "a survey")
    summary = {
        "checkpoint": str(config["ckpt"]), "network": type(network_of(module)).__name__,
        "data": f"{split}, {len(order)} clips", "methods": ", ".join(methods),
        "target": str(question), "command": command, "date": f"{datetime.now():%Y-%m-%d %H:%M}",
    }  # fmt: skip
    minutes = config["minutes"]
    end = None if minutes is None else start + 60 * minutes
    return SurveyRun(folder, explainer, order, summary, command, end).go()


def spread_order(dataset: SampleDataset[Any], indices: Sequence[int]) -> list[int]:
    """The indices in an order in which every stretch has all classes as often as the whole has.

    It is always the same, and clips of one group, which stand together, are far apart.
    """
    mixed = [indices[n] for n in np.random.default_rng(0).permutation(len(indices))]
    rows = ((i, dataset.clips[i]) for i in mixed)
    of_classes: dict[Any, list[int]] = {}
    for i, row in rows:
        label = tuple(row.classes) if isinstance(row, Clip) else ()
        of_classes.setdefault(label, []).append(i)
    places = [
        ((n + 0.5) / len(own), label, i)
        for label, own in of_classes.items()
        for n, i in enumerate(own)
    ]
    return [i for _, _, i in sorted(places)]


def _facts(
    config: Mapping[str, Any], explainer: BatchExplainer, order: Sequence[int], split: str
) -> dict[str, Any]:
    """What makes a survey the same one, wherever the data lie."""
    names = json.dumps([explainer.titles[i] for i in order])
    methods = {name: settings_of_method(method) for name, method in explainer.methods.items()}
    data = {k: v for k, v in config["data"].items() if k not in ("root", "split")}
    return {
        "ckpt": {"sha256": digest(config["ckpt"])},
        "data": {**data, "split": split},
        "model": config["model"],
        "clips": {"count": len(order), "sha256": hashlib.sha256(names.encode()).hexdigest()},
        "methods": methods,
        "target": str(explainer.question),
        "about": {"version": lightning_cam.__version__, "ckpt": str(config["ckpt"])},
    }


class _TimeIsUpError(Exception):
    """The budget of `minutes=` is used up."""


@dataclass
class SurveyRun:
    """One process's work on a survey.

    Attributes:
        folder: of the survey.
        explainer: of its clips.
        order: indices of the clips; `CLIPS` after each other are a shard.
        summary: of the page, name -> text.
        command: what was typed.
        end: when to stop, by `time.monotonic`; None: when all is done.
    """

    folder: Path
    explainer: BatchExplainer
    order: Sequence[int]
    summary: Mapping[str, str]
    command: str
    end: float | None = None
    _done: list[Done] = field(default_factory=list)  # of the shard at hand
    _coming: list[Future[list[Done]]] = field(default_factory=list)  # behind these
    _clips: int = 0  # explained by this process
    _start: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)

    def go(self) -> Path | None:
        """Explain what is left to this process; the page, None where others are not done.

        Raises:
            UserError: the disk is full or refuses, or not a single clip could be explained.
        """
        share, shards = Share.of_command(), range(-(-len(self.order) // CLIPS))
        own = [n for n in share.of(shards) if not shard_path(self.folder, n).exists()]
        stopped = ""
        try:
            self._explain(own)
        except _TimeIsUpError:
            stopped = "the time is up"
        except KeyboardInterrupt as stop:
            self._finish("stopped")
            sys.exit(exit_code(stop))
        except WriteError as error:
            raise WriteError(f"{error}; the same command goes on: {self.command}") from error
        left = [n for n in shards if not shard_path(self.folder, n).exists()]
        if left and not stopped:
            say(f"{share}done; the rest is left to others, the last of them writes all")
            return None
        return self._finish(stopped)

    def _explain(self, shards: Sequence[int]) -> None:
        """Explain shards; what is done of one before a stop is kept."""
        before = {n: self._begun(n) for n in shards}
        left = {n: _batches(self._indices(n)[len(before[n]) :]) for n in shards}
        work = [batch for batches in left.values() for batch in batches]
        total, explained = sum(map(len, work)), self.explainer.explained(work)
        with progress("explaining", total) as advance:
            for n, batches in left.items():
                self._done = before.pop(n)
                try:
                    for batch in batches:
                        self._check_time()
                        self._coming.append(next(explained))
                        self._clips += len(batch)
                        advance(len(batch), f"explaining, {self._rate:.1f} clips/s")
                        self._save_now_and_then(n, total)
                finally:
                    self._save(n)

    def _check_time(self) -> None:
        if self.end is not None and time.monotonic() >= self.end:
            raise _TimeIsUpError

    def _save_now_and_then(self, shard: int, total: int) -> None:
        """Keep what is done, should this process be killed, and say how far it is."""
        if time.monotonic() - self._saved < _SAVE_S:
            return
        self._save(shard)
        self._saved, pace = time.monotonic(), max(self._rate, 1e-9)
        minutes = (total - self._clips) / pace / 60
        say(f"{self._clips} of {total} clips, {pace:.1f} clips/s, {minutes:.0f} min left")

    def _indices(self, shard: int) -> Sequence[int]:
        return self.order[shard * CLIPS : (shard + 1) * CLIPS]

    def _begun(self, shard: int) -> list[Done]:
        """What is done of a shard: all its clips up to one, in their order."""
        path = shard_path(self.folder, shard, begun=True)
        if not path.exists():
            return []
        records = read_shard(path)[1]
        pictures = read_media(self.folder, shard)[: len(records)]
        known = [record.index for record in records] == list(self._indices(shard)[: len(records)])
        if not known or len(pictures) < len(records):
            return []
        return [Done(*each) for each in zip(records, pictures, strict=True)]

    def _save(self, shard: int) -> None:
        """Write what is done of a shard, which is then finished or begun."""
        while self._coming:
            self._done += self._coming.pop(0).result()
        records = [done.record for done in self._done]
        if not records:
            return
        begun = shard_path(self.folder, shard, begun=True)
        whole = len(records) == len(self._indices(shard))
        write_media(self.folder, shard, [done.pictures for done in self._done])
        path = shard_path(self.folder, shard) if whole else begun
        write_shard(path, records, self.explainer.about(records))
        if whole:
            begun.unlink(missing_ok=True)

    @property
    def _rate(self) -> float:
        return self._clips / max(time.monotonic() - self._start, 1e-9)

    def _finish(self, stopped: str) -> Path | None:
        """Write tables and page of what is there; the page.

        Raises:
            DataError: not a single clip could be explained.
        """
        found = Findings.of(shard_files(self.folder))
        known, count = len(found.records), len(self.order)
        unfinished = f"{known} of {count} clips so far; the same command goes on"
        if known < count:
            say(f"{stopped or 'not all is done'}: {known} of {count} clips are explained in "
                f"{_near(self.folder)}; the same command goes on: {self.command}")  # fmt: skip
        if not any(found.rows.values()):
            if known < count:
                return None
            reasons = [record.error for record in found.records if record.error]
            raise DataError(f"none of the {count} clips could be explained: {reasons[-1]}")
        failed = [record for record in found.records if record.error]
        for record in failed[:3]:
            say(f"skipped {record.title}: {record.error}")
        if failed:
            say(f"{len(failed)} of {known} clips could not be explained, see clips.csv")
        tables = found.write(self.folder)
        summary = {**self.summary, **({"unfinished": unfinished} if known < count else {})}
        if not found.classes:
            summary["target"] = ", ".join(sorted(found.columns))
        elif found.several and summary.get("target") == str(Question()):
            summary["target"] += ", of several the first"
        for line in found.told():
            say(line)
        return write_survey_page(self.folder, found, summary, tables)


def _batches(indices: Sequence[int]) -> list[list[int]]:
    return [list(indices[n : n + SIZE]) for n in range(0, len(indices), SIZE)]


def _near(folder: Path) -> str:
    near = os.path.relpath(folder)
    return str(folder) if near.startswith("..") else near
