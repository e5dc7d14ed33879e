"""What a task, a data module, a network or a logger may offer beyond the minimum.

A protocol here is one thing that can be offered: whoever has a member of that name offers it, and
`is_offered(data, ShowsFrames)` asks for it. No class needs to derive from these. `checks` reads
names, kinds and signatures from here, and says where somebody's own class misspells them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lightning_cam.attribution import Explainable
    from lightning_cam.interfaces.batches import Batch, Sample


# Tasks: LightningModules ----------------------------------------------------------------------


@runtime_checkable
class Explains(Protocol):
    """A task that the callback can explain."""

    def explainable(self, batch: Any) -> Explainable:
        """How to look into the network, bound to the clips of a batch."""
        ...


@runtime_checkable
class Task(Protocol):
    """A task that `explain.py` can explain: its columns are known without a batch."""

    @property
    def device(self) -> torch.device:
        """Where its network is, as every LightningModule knows."""
        ...

    def explainable(self, batch: Any = None) -> Explainable:
        """How to look into the network; without a batch it names layers and columns."""
        ...


@runtime_checkable
class Monitored(Protocol):
    """A task that knows what its best checkpoint is; else it is that of the highest "val/acc"."""

    @property
    def monitor(self) -> tuple[str, str]:
        """A logged metric, and "max" or "min"."""
        ...


@runtime_checkable
class NamesMetrics(Protocol):
    """A task that knows what it logs, so that a wrong `monitor=` is found before training.

    It is asked for the class's own list only: who derives from it may log more.
    """

    @property
    def metric_names(self) -> Sequence[str]:
        """All that it may log in training and validation, such as "val/loss"."""
        ...


@runtime_checkable
class NamesOptionalMetrics(Protocol):
    """A task that logs some metrics for some data only, as errors where there is ground truth.

    To `monitor=` one of them takes a pass over the validation clips before training.
    """

    @property
    def optional_metrics(self) -> Sequence[str]:
        """Those of validation, such as "val/depth/abs_rel"."""
        ...


@runtime_checkable
class ShowsMore(Protocol):
    """A task that has more to show of a clip than its frames and the heat on them."""

    def extras(self, batch: Batch) -> Any:
        """`panels`, `scales` and `lines` of a batch of one, see `tasks.sfm.images.Extras`."""
        ...


# Data modules: LightningDataModules -----------------------------------------------------------


@runtime_checkable
class HasClasses(Protocol):
    """Data with labels; without, an empty list."""

    @property
    def classes(self) -> Sequence[str]:
        """Names in the order of the labels."""
        ...


@runtime_checkable
class HasClassCounts(Protocol):
    """Data that know how many clips they have, as weights that balance classes need."""

    @property
    def class_counts(self) -> Sequence[int]:
        """Training clips of each class, in the order of the labels."""
        ...


@runtime_checkable
class OpensParts(Protocol):
    """Data whose clips `explain.py` can explain."""

    def evaluation(self, part: str) -> Any:
        """The `SampleDataset` of "train", "val" or "test", without augmentation."""
        ...


@runtime_checkable
class ReadsFiles(Protocol):
    """Data that can read a video which is not among them, for `explain.py video=`."""

    def read(self, path: Path) -> Sample:
        """A video file or a folder of images as a sample."""
        ...


@runtime_checkable
class HasRoot(Protocol):
    """Data in a folder; else `prepare_data` alone knows where they are."""

    @property
    def root(self) -> str | Path: ...


@runtime_checkable
class HasWorkers(Protocol):
    """Data that say how many processes read them; else none."""

    @property
    def num_workers(self) -> int: ...


@runtime_checkable
class HasChannels(Protocol):
    """Data whose clips do not have three channels."""

    @property
    def channels(self) -> int:
        """C of a clip: what `in_channels: null` of a network becomes."""
        ...


@runtime_checkable
class ReportsProblems(Protocol):
    """Data that know what is wrong with them."""

    @property
    def problems(self) -> Sequence[Any]:
        """Things whose `str` is a line."""
        ...


@runtime_checkable
class ShowsFrames(Protocol):
    """Data that can undo their normalisation; else clips are stretched over their own range."""

    def to_frames(self, clip: Tensor) -> Any:
        """A batch `(B, C, T, H, W)` as uint8 RGB `(B, T, H, W, 3)`."""
        ...


@runtime_checkable
class HasReader(Protocol):
    """Data whose files are read by one object, see `ShowsFiles` and `MakesBlanks`."""

    @property
    def reader(self) -> object: ...


@runtime_checkable
class ShowsFiles(Protocol):
    """A reader that shows a clip larger than the network sees it."""

    def display(self, path: str, indices: Sequence[int]) -> Any:
        """Frames of a file by their numbers, uint8 RGB `(T, H, W, 3)`."""
        ...


@runtime_checkable
class MakesBlanks(Protocol):
    """A reader that knows the size of a clip without reading one."""

    def missing(self, clip: Any, error: str) -> Any:
        """A sample of zeros that stands for a clip which cannot be read."""
        ...


@runtime_checkable
class HasSpectra(Protocol):
    """Data whose channels belong to several spectra."""

    @property
    def spectra(self) -> Mapping[str, Sequence[int]]:
        """The channels of each spectrum in a clip; empty where clips are of one."""
        ...


@runtime_checkable
class HasViews(Protocol):
    """Data that can show a clip in each of its spectra."""

    def views(self, clip: Tensor) -> Mapping[str, Any]:
        """Of a batch `(B, C, T, H, W)`: spectrum -> uint8 RGB `(B, T, H, W, 3)`."""
        ...


@runtime_checkable
class HasInputs(Protocol):
    """Data whose clips come as one of several spectra, each of which studies look at apart."""

    @property
    def inputs(self) -> Sequence[str]:
        """Names of the spectra."""
        ...

    def indices(self, part: str, spectrum: str) -> Sequence[int]:
        """Clips of a part that come as a spectrum."""
        ...


@runtime_checkable
class HasSpectrum(Protocol):
    """Data of a spectrum, by which studies tell networks apart."""

    @property
    def spectrum(self) -> str:
        """Its name, such as "ir", or those of two in a row, "irtv"."""
        ...

    @property
    def fusion(self) -> str:
        """Of two spectra: "early", where each clip holds both, or "union"."""
        ...


# Networks: nn.Modules -------------------------------------------------------------------------


@runtime_checkable
class ExplainsLayers(Protocol):
    """A network that knows its target layers."""

    @property
    def explain_layers(self) -> Sequence[str]:
        """Dotted names, the first is the default. Activations are `(B, D, t, h, w)`, or
        `(B*t, D, h, w)` with frames folded into the batch."""
        ...


@runtime_checkable
class NamesAttention(Protocol):
    """A network with attention over time."""

    @property
    def explain_attention(self) -> Sequence[str]:
        """Dotted names of the modules whose output is `(B, T)`, of sum 1 over valid frames."""
        ...


@runtime_checkable
class NamesFrames(Protocol):
    """A network of which one part sees each frame on its own, and the rest that part alone."""

    @property
    def explain_frames(self) -> str | None:
        """Dotted name of this part: clip -> `(B*T, D, h, w)`."""
        ...


@runtime_checkable
class FoldsActivations(Protocol):
    """A network whose activations are laid out in a way of their own."""

    def explain_fold(self, activation: Tensor, batch: int) -> Tensor:
        """An activation of `batch` clips as `(B, D, t, h, w)`."""
        ...


@runtime_checkable
class HasSteps(Protocol):
    """A network with outputs at every step; its part `head` computes them."""

    def forward_steps(self, clip: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Outputs `(B, K)` of clips `(B, C, T, H, W)`, and those of the steps `(B, T, K)`."""
        ...


@runtime_checkable
class CountsSources(Protocol):
    """A network for motion that takes a fixed number of sources beside the target."""

    @property
    def sources(self) -> int: ...


@runtime_checkable
class HasMasks(Protocol):
    """A network for motion that may return explainability masks."""

    @property
    def masks(self) -> bool:
        """Whether it does."""
        ...


# Loggers: the names are those of Lightning's WandbLogger --------------------------------------


@runtime_checkable
class LogsImages(Protocol):
    """A logger that takes images."""

    @property
    def log_image(self) -> Callable[..., Any]:
        """`(key, paths, step, caption=[...])`"""
        ...


@runtime_checkable
class LogsVideos(Protocol):
    """A logger that takes videos."""

    @property
    def log_video(self) -> Callable[..., Any]:
        """`(key, paths, step, caption=[...], format=[...])`"""
        ...


@runtime_checkable
class LogsTables(Protocol):
    """A logger that takes tables."""

    @property
    def log_table(self) -> Callable[..., Any]:
        """`(key, columns, rows, step=...)`"""
        ...


# What is asked of whom; the first of a pair is all that the callback asks for.
SHOWN_OF_TASK = (Explains, ShowsMore)
TASK = (*SHOWN_OF_TASK, Monitored, NamesMetrics, NamesOptionalMetrics)
SHOWN_OF_DATA = (ShowsFrames, HasSpectra, HasViews)
DATA = (
    *SHOWN_OF_DATA,
    HasClasses,
    HasClassCounts,
    OpensParts,
    ReadsFiles,
    HasRoot,
    HasWorkers,
    HasChannels,
    ReportsProblems,
    HasReader,
    HasInputs,
    HasSpectrum,
)
READER = (ShowsFiles, MakesBlanks)
NETWORK = (ExplainsLayers, NamesAttention, NamesFrames, FoldsActivations, HasSteps)
PART = (ExplainsLayers, CountsSources, HasMasks)  # of an SfMLearner

# Members that are everyday words: other people's classes have them in senses of their own.
EVERYDAY = frozenset(
    {
        *("channels", "display", "evaluation", "extras", "forward_steps", "indices", "inputs"),
        *("masks", "missing", "problems", "read", "reader", "root", "sources", "views"),
    }
)
