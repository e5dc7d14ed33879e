"""The networks of a study, rebuilt from their checkpoints, and the clips each of them sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_cam.attribution import Explainable
from lightning_cam.attribution.guard import unwrap
from lightning_cam.data.core.composed import ARRANGEMENTS, ComposedClip, ComposedDataset
from lightning_cam.data.core.dataset import SampleDataset
from lightning_cam.errors import ConfigError, DataError
from lightning_cam.explaining.clip_sources import open_split, spread_evenly
from lightning_cam.explaining.clips_by_outcome import shuffled
from lightning_cam.explaining.composed_clips import compose_clips
from lightning_cam.explaining.explain_command import on_device
from lightning_cam.files import digest
from lightning_cam.interfaces import (
    HasInputs,
    HasSpectrum,
    Task,
    as_task,
    check_data,
    is_offered,
    network_of,
)
from lightning_cam.study.design import Design
from lightning_cam.training.checkpoint import rebuild
from lightning_cam.training.runs import network_names


@dataclass(frozen=True)
class Network:
    """A trained network and its clips.

    Attributes:
        name: of its columns: the network's class; where two would be alike, with what tells their
            paths apart, see `network_names`.
        kind: the network's class.
        trained: the spectrum it was trained on: "ir", "tv", "irtv", "irtv early", or "" where the
            data know no spectra.
        path: of the checkpoint.
        digest: of the checkpoint's bytes.
        task: the LightningModule.
        data: the data module, which knows how its clips look.
        dataset: clips of the split.
        inputs: input spectrum, or column that is explained ("" where there are none) -> indices of
            its clips in the data set.
        columns: input -> column that is explained, where the study names columns.
        swept: input -> those of them that the sweeps see.
    """

    name: str
    kind: str
    trained: str
    path: Path
    digest: str
    task: Task
    data: object
    dataset: SampleDataset[Any]
    inputs: Mapping[str, tuple[int, ...]]
    columns: Mapping[str, str]
    swept: Mapping[str, frozenset[int]]

    @property
    def key(self) -> tuple[str, str]:
        """What tells networks apart in rows."""
        return self.name, self.trained

    def sequence(self, name: str, index: int) -> str:
        """What a clip shows: by this, clips of several networks and spectra are paired."""
        return self.dataset.clips[index].clip_id.removesuffix(f"_{name}")


def open_networks(
    paths: Sequence[str],
    design: Design,
    *,
    split: str,
    trust: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
    compose: str | None = None,
    device: str = "cpu",
) -> list[Network]:
    """Rebuild checkpoints and choose their clips.

    Args:
        paths: of the checkpoints.
        design: says how many clips.
        split: "train", "val" or "test".
        trust: see `rebuild`.
        data: settings of the data modules that replace remembered ones.
        compose: put clips together, see `data.core.composed`: each group is an input.
        device: where a network works that says which clips it recognises.

    Raises:
        UserError: a checkpoint cannot be rebuilt or is named twice, or there are no clips.
    """
    networks = [_open(path, design, split, trust, data or {}) for path in paths]
    for n, network in enumerate(networks):
        for other in networks[:n]:
            if other.digest == network.digest:
                raise ConfigError(f"{network.path} and {other.path} are the same checkpoint")
    if compose is not None:
        networks = [_composed(network, design, compose, device) for network in networks]
    return [_with_clips(network, design) for network in _named(networks)]


def _open(
    path: str, design: Design, split: str, trust: Sequence[str], given: Mapping[str, Any]
) -> Network:
    """A network with all clips of the split."""
    task, data, _ = rebuild(path, trust, data=given)
    check_data(data)
    _check_columns(path, as_task(task).explainable(), design)
    dataset = open_split(data, split, "root" in given)
    found: Mapping[str, Sequence[int]] = {"": range(len(dataset))}
    if is_offered(data, HasInputs):
        found = {name: data.indices(split, name) for name in data.inputs}
    if design.columns:
        if len(found) > 1:
            raise ConfigError(
                f"{path}: its data have the inputs {', '.join(found)}, and so would "
                "study.columns; leave it out"
            )
        (indices,) = found.values()
        found = dict.fromkeys(design.columns, indices)
    for name, indices in found.items():
        if not len(indices):
            what = f" of input {name}" if name else ""
            raise DataError(f"the {split} split has no clips{what}; choose another data.split=")
    kind = type(unwrap(network_of(task))).__name__
    return Network(
        name=kind,
        kind=kind,
        trained=_spectrum(data),
        path=Path(path),
        digest=digest(path),
        task=as_task(task),
        data=data,
        dataset=dataset,
        inputs={name: tuple(indices) for name, indices in found.items()},
        columns={name: name for name in design.columns},
        swept={},
    )


def _composed(network: Network, design: Design, kind: str, device: str) -> Network:
    """A network with composed clips in place of its own, each group of each input as an input."""
    task = on_device(network.task, device)
    made = {
        name: compose_clips(task, network.dataset, shuffled(indices), kind, design.clips, name=name)
        for name, indices in network.inputs.items()
    }
    on_device(task, "cpu")  # until it is its turn
    rows: list[ComposedClip] = []
    inputs = {}
    for name, composed in made.items():
        for group, places in composed.groups.items():
            if places:
                inputs[" ".join(filter(None, (name, group)))] = tuple(len(rows) + n for n in places)
        rows += composed.dataset.clips
    dataset = ComposedDataset(rows, network.dataset, ARRANGEMENTS[kind])
    return replace(network, dataset=dataset, inputs=inputs)


def _with_clips(network: Network, design: Design) -> Network:
    """A network with those of its clips that the study looks at."""
    inputs = {
        name: tuple(spread_evenly(indices, design.clips))
        for name, indices in network.inputs.items()
    }
    swept = {name: frozenset(spread_evenly(i, design.sweep_clips)) for name, i in inputs.items()}
    return replace(network, inputs=inputs, swept=swept)


def _check_columns(path: str, model: Explainable, design: Design) -> None:
    """Whether a network has what is to be explained.

    Raises:
        UserError: it has no such column; or no classes, and nothing says which column.
    """
    for name in design.columns:
        model.column(name)
    if not design.columns and model.probability is None:
        some = ",".join(model.outputs[:2])
        raise ConfigError(
            f"{path}: its outputs are no classes; say which to explain, study.columns=[{some}] "
            f"(of {', '.join(model.outputs)})"
        )
    if design.columns and design.target == "true":
        raise ConfigError("study.target=true and study.columns say two things; leave one out")


def _spectrum(data: object) -> str:
    """The spectrum a data module's clips show, in words; "" where it knows none."""
    if not is_offered(data, HasSpectrum):
        return ""
    early = len(data.spectrum) > 2 and data.fusion == "early"
    return f"{data.spectrum} early" if early else data.spectrum


def _named(networks: Sequence[Network]) -> list[Network]:
    """Networks whose keys differ."""
    named = list(networks)
    for key in dict.fromkeys(network.key for network in networks):
        places = [n for n, network in enumerate(networks) if network.key == key]
        if len(places) > 1:
            apart = network_names([networks[n].path for n in places])
            for n, name in zip(places, apart, strict=True):
                named[n] = replace(networks[n], name=f"{networks[n].name} {name}")
    return named
