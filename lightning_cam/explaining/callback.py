"""The live callback: a training run explains the same clips after each validation epoch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lightning_cam.attribution import Attribution, Explainable, Explanation
from lightning_cam.attribution.checks import check_clip
from lightning_cam.errors import ConfigError, say
from lightning_cam.explaining.attention_history import AttentionHistory
from lightning_cam.explaining.callback_logging import (
    attention_table,
    log_media,
    log_overviews,
    mean_numbers,
    media_size,
    takes_media,
)
from lightning_cam.explaining.callback_settings import (
    are_measures,
    check_numbers,
    chosen_clips,
    named_methods,
)
from lightning_cam.explaining.clip_drawing import clip_extras, clip_frames, clip_views, draw_clip
from lightning_cam.explaining.clip_explanations import (
    OnError,
    check_once,
    explain_clip,
    explain_spectra,
    told,
)
from lightning_cam.explaining.clip_files import write_clip
from lightning_cam.explaining.epoch_map import EpochMap, epoch_maps, read_maps
from lightning_cam.explaining.epoch_measures import EpochMeasures
from lightning_cam.explaining.fixed_clips import FixedClips, Turn
from lightning_cam.explaining.measured_files import EPOCH_COLUMNS
from lightning_cam.explaining.measuring import check_measures
from lightning_cam.explaining.over_epochs import (
    FOLDER,
    Newest,
    OverEpochs,
    check_overview,
    overview_record,
)
from lightning_cam.explaining.question import TRUE, asked_in_training
from lightning_cam.explaining.shared_methods import ClipMaps, with_others
from lightning_cam.interfaces import (
    Batch,
    LogsImages,
    as_explained,
    check_data,
    check_task,
    offers,
)
from lightning_cam.metrics import Measure
from lightning_cam.own_folder import own_folder, own_name
from lightning_cam.progress import no_progress
from lightning_cam.training.meeting import Meeting
from lightning_cam.training.preemption import look_between_clips
from lightning_cam.training.skipped_clips import batch_as_mapping, gather

_NAME = "explain"  # of the folder in that of the run


class ExplainCallback(Callback):
    """Explains the same clips after each validation epoch, and after `validate` and `test`.

    Writes `<run>/explain/epoch_003/<clip>.mp4`, `.png` and `.npz` (`validate/` and `test/` outside
    of training), then hands the files to every logger that takes media: videos, contact sheets,
    the attention weights as a table and as a strip over epochs, at the trainer's step. Works with
    no logger at all. The run is the folder of the first logger's run, without a logger the
    trainer's `default_root_dir`; where another run has `explain` there, it is `explain_2`.

    Each clip is asked the same question in every epoch, see `target`; captions say which, such as
    "true class blink, predicted oscillate 55%". `<run>/explain/epochs/<clip>.<method>.png` and
    `.mp4` show the maps of several epochs beside each other, also those of before a resume.

    Each of `measures` becomes a curve over training, its mean over all clips as
    `explain/METHOD/MEASURE`; each clip's numbers are in `measures.csv`, and what is the area under
    a curve (deletion, insertion) is drawn in `curves.png`. Where a measure runs the network, a
    random map is measured along with the methods: as a network gets surer, the areas of deletion
    and insertion tend to grow for any map. With M methods and S steps these two cost
    2 + 2 (M + 1) (S - 1) forwards a clip; a mean over time needs no more than 20 steps.

    What a method finds out beside its maps (`Explanation.numbers`: how often Grad-CAM of a loss is
    blank) also becomes a curve, the mean over clips as `explain/METHOD/NAME`.

    The network is checked at the first batch, see `check`.

    Training is bit for bit what it would be without it. A clip or a method that fails is warned
    about once and training goes on; so is a measure that has no value of these clips, as one of
    ground truth where there is none.

    Args:
        methods: name -> method; or a method or a list of them, then named by their types.
        clips: how many clips of the validation set, spread evenly, or their indices. Ranks share
            them, and the methods of a clip where there are fewer clips than ranks.
        every_n_epochs: explain after every n-th epoch.
        fps: of the videos.
        folder: where to write; None: `explain` in the folder of the run, see above.
        measures: name -> measure, such as `{"deletion": DeletionArea(steps=20)}`.
        log_every_n_epochs: hand videos, sheets and attention to loggers after every n-th epoch, of
            those that are explained; the numbers are logged always.
        target: which column of a clip is explained: "true", its true class (of several the first;
            where nobody knows, the predicted one); "predicted", what the network says that epoch;
            or a column by name or number, the same for all clips.
        contrast: a class, by name or number, which the target is set against: both maps and their
            difference; None: none.
        overview: how many epochs are shown beside each other, evenly spaced, at least 3; or which,
            [0, 4, 19]; 0: none.

    Raises:
        ArgumentError: settings that make no sense.
        UserError: (at the first batch) the network has no such target or contrast.
        ConfigError: something is not a measure, or has a name that is taken.

    The LightningModule offers `explainable(batch) -> Explainable`. A batch of the validation
    loader is a mapping with "video" `(B, C, T, H, W)` and maybe "label", or a tuple that begins
    with these two. `datamodule.to_frames(clip)`, where there is one, undoes the normalisation.

    Example:
        >>> Trainer(callbacks=[ExplainCallback({"gradcam": GradCAM()}, clips=4)])
    """

    def __init__(
        self,
        methods: Mapping[str, Attribution] | Sequence[Attribution] | Attribution,
        clips: int | Sequence[int] = 4,
        every_n_epochs: int = 1,
        fps: float = 8,
        folder: str | Path | None = None,
        measures: Mapping[str, Measure] | None = None,
        log_every_n_epochs: int = 1,
        target: str | int = TRUE,
        contrast: str | int | None = None,
        overview: int | Sequence[int] = 6,
    ) -> None:
        self.methods = named_methods(methods)
        self.clips = chosen_clips(clips)
        check_numbers(fps, every_n_epochs=every_n_epochs, log_every_n_epochs=log_every_n_epochs)
        self.every_n_epochs, self.log_every_n_epochs = every_n_epochs, log_every_n_epochs
        self.fps = fps
        self.folder = None if folder is None else Path(folder)
        found = check_measures(are_measures(measures), EPOCH_COLUMNS, "measures")
        self.measuring = EpochMeasures(found, self._warn)
        self.question = asked_in_training(target, contrast)
        self.attention = AttentionHistory()
        chosen = check_overview(overview, every_n_epochs)
        self.over_epochs = OverEpochs(chosen, self.methods, fps, self._warn)
        self._own: tuple[pl.Trainer, Path] | None = None  # where its files go
        self._before: str | None = None  # the name of that folder before a resume
        self._fixed: dict[str, FixedClips] = {}  # split -> this rank's
        self._others = Meeting()
        self._sized = False  # whether it was said how much is logged
        self._looked = False  # at the first batch of training
        self._warned: set[str] = set()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        check_task(pl_module, offers.SHOWN_OF_TASK)
        as_explained(pl_module)
        check_data(trainer.datamodule, offers.SHOWN_OF_DATA)  # type: ignore[attr-defined]
        self._others.join(trainer)
        if stage == "fit" and (late := self.over_epochs.later_than(trainer.max_epochs)):
            error = ConfigError(f"max_epochs={trainer.max_epochs}, the first epoch is 0")
            self._warn(f"epochs {late} of the overview", error)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Check the network on the first clips, before an epoch is spent on what is wrong."""
        if self._looked:
            return
        self._looked = True
        with isolate_rng(), no_progress():
            try:
                given = batch_as_mapping(batch)
                model = as_explained(pl_module).explainable(given)
                check_clip(model, given["video"])
            except Exception:  # batches of training may be others: those of validation will do
                return
            self.question.check(model)
            if not trainer.is_global_zero:
                return
            if found := check_once(model, self.methods, given["video"]):
                refused = [layer.refused for layer in found.layers if layer.refused]
                say(*refused, *found.notes, found.summary)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if trainer.state.fn == "fit":
            if (trainer.current_epoch + 1) % self.every_n_epochs == 0:
                self._run(trainer, pl_module, "val", f"epoch_{trainer.current_epoch:03d}")
        else:
            self._run(trainer, pl_module, "val", "validate")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._run(trainer, pl_module, "test", "test")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the overviews that lack the last epoch."""
        left = []
        if self._own is not None or self.folder is not None:  # else nothing was explained
            left = self.over_epochs.rest(self._place(trainer) / FOLDER)
        self._others.wait()
        records = gather(trainer, [overview_record(newest, files) for newest, files in left])

        def give(logger: Logger) -> None:
            for record in records:
                log_overviews(logger, record, trainer.global_step)

        if trainer.is_global_zero:
            self._to_loggers(trainer, give)
        self._others.wait()

    def state_dict(self) -> dict[str, Any]:
        folder = None if self._own is None else self._own[1].name
        epochs = self.over_epochs.state()
        return {"history": self.attention.weights, "over_epochs": epochs, "folder": folder}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.attention.restore(state_dict.get("history"))
        self.over_epochs.restore(state_dict.get("over_epochs"))
        self._before = own_name(state_dict.get("folder"), _NAME)

    def _place(self, trainer: pl.Trainer) -> Path:
        """Where the files of this run go; every rank comes here."""
        if self.folder is not None:
            return self.folder
        if self._own is None or self._own[0] is not trainer:
            first = trainer.is_global_zero
            folder = own_folder(trainer, _NAME, self._before) if first else None
            found = trainer.strategy.broadcast(folder)
            assert found is not None
            self._own = trainer, found
        return self._own[1]

    def _run(self, trainer: pl.Trainer, task: pl.LightningModule, split: str, when: str) -> None:
        folder = self._place(trainer) / when
        with isolate_rng(), no_progress():
            records = []
            if split not in self._fixed:
                shared = len(self.methods) if self._others.patient else 1
                self._fixed[split] = FixedClips.of(trainer, split, self.clips, shared, self._warn)
            for n in range(len(self._fixed[split].turns)):
                self._others.wait()  # a slow method takes longer than a collective has patience
                look_between_clips(trainer)
                records += self._round(trainer, task, self._fixed[split], n, folder)
            self._others.wait()
            records = gather(trainer, records)  # every rank comes here, whatever failed
            for record in records if trainer.world_size > 1 else ():  # a checkpoint holds all
                self.over_epochs.add(record["clip"], trainer.current_epoch, read_maps(record))
            means: dict[str, float] = {}
            if trainer.is_global_zero and records:
                try:
                    means |= self._log(trainer, records, folder, trainer.state.fn == "fit")
                except Exception as error:
                    self._warn(f"the attention weights of {when}", error)
                try:
                    means |= self._log_measured(trainer, records, folder)
                except Exception as error:
                    self._warn(f"measures of {when}", error)
            self._others.wait()  # for the first rank's loggers
            for name, mean in trainer.strategy.broadcast(means).items():
                task.log(name, mean, logger=False)  # they have it; for who monitors it

    def _round(
        self,
        trainer: pl.Trainer,
        task: pl.LightningModule,
        fixed: FixedClips,
        n: int,
        folder: Path,
    ) -> list[dict[str, Any]]:
        """What is found of this rank's clip of round n; nothing of one that it helps with."""
        rank, turn = trainer.global_rank, fixed.turns[n]
        title = turn.title if turn else ""
        made = turn and self._made(task, turn)
        if fixed.shared and n == len(fixed.turns) - 1:  # every rank comes here, whatever failed
            failed = self._failed(title)
            made = with_others(self._others, rank, turn, made, self.methods, failed)
        if not turn or not made or not made.maps or turn.home is not None:
            return []
        try:
            other = move_data_to_device(fixed.other(n), task.device)
            return [self._record(trainer, task, title, made, other, folder)]
        except Exception as error:
            self._warn(f"clip {title}", error)
            return []

    def _made(self, task: pl.LightningModule, turn: Turn) -> ClipMaps | None:
        """What this rank's methods make of a clip; None, and a warning, where all of it fails."""
        try:
            batch = move_data_to_device(turn.batch, task.device)
            model = as_explained(task).explainable(batch)
            own = dict([*self.methods.items()][turn.part])
            return ClipMaps(model, batch, self._explanations(model, own, batch, turn.title))
        except Exception as error:
            self._warn(f"clip {turn.title}", error)
            return None

    def _explanations(
        self, model: Explainable, methods: Mapping[str, Attribution], batch: Batch, title: str
    ) -> dict[str, Explanation]:
        """Method -> explanation of what is asked about the clip."""
        clip = batch["video"]
        check_clip(model, clip)  # one warning rather than one for each method
        asked = self.question.about(model, batch, clip)
        if self.question.contrast is not None and asked.against is None:
            error = ConfigError("a class cannot be set against itself; it is explained alone")
            self._warn(f"the contrast of clip {title}", error)
        on_error = self._failed(title)
        return explain_clip(
            asked.model, methods, clip, asked.target, on_error, against=asked.against
        )

    def _failed(self, title: str) -> OnError:
        """Warns of what fails for a clip."""
        return lambda name, error: self._warn(f"method {name!r}", error, f", first on {title}")

    def _record(
        self,
        trainer: pl.Trainer,
        task: pl.LightningModule,
        title: str,
        maps: ClipMaps,
        other: Tensor | None,
        folder: Path,
    ) -> dict[str, Any]:
        """What is found of one clip, whose files are written; `other` is the video of another."""
        model, batch, explanations = maps.model, maps.batch, maps.maps
        clip, data = batch["video"], trainer.datamodule  # type: ignore[attr-defined]
        first = next(iter(explanations.values()))
        target, weights = first.target, first.attention
        spectra = explain_spectra(model, clip, data, target, self._failed(title))
        frames = clip_frames(data, clip)
        views, extras = clip_views(data, clip), clip_extras(task, batch)
        figure = draw_clip(
            model, explanations, frames, batch, title, spectra=spectra, views=views, extras=extras
        )
        # Eight frames a sheet: readable in W&B's panels, and half the cost.
        files = write_clip(
            folder, figure, explanations, batch, self.fps, columns=8, spectra=spectra
        )
        caption = f"{title}: {told(model, first, batch)}"
        newest = Newest(title, caption, figure)
        return {
            "clip": title,
            "video": str(files.video),
            "sheet": str(files.sheet),
            "attention": {name: w[0].tolist() for name, w in weights.items()},
            "caption": caption,
            **self._overview(trainer, epoch_maps(model, explanations), newest),
            "numbers": self.measuring.numbers(explanations),
            "measured": self.measuring.of_clip(model, explanations, batch, title, other),
            "classes": model.kind(int(target[0])) is not None,
        }

    def _overview(
        self, trainer: pl.Trainer, maps: Mapping[str, EpochMap], newest: Newest
    ) -> dict[str, Any]:
        """Keep maps of the clip, and what a record needs of them and of their images."""
        if trainer.state.fn != "fit":
            return {"maps": {}}
        epoch, folder = trainer.current_epoch, self._place(trainer) / FOLDER
        self.over_epochs.add(newest.clip, epoch, maps)
        files = self.over_epochs.images(folder, epoch, newest, self._is_due(trainer))
        plain = {name: kept.plain() for name, kept in maps.items()}
        return {**overview_record(newest, files), "maps": plain}

    def _is_due(self, trainer: pl.Trainer) -> bool:
        """Whether loggers get images after this epoch."""
        return (trainer.current_epoch + 1) % self.log_every_n_epochs == 0

    def _log(
        self, trainer: pl.Trainer, records: list[dict[str, Any]], folder: Path, remember: bool
    ) -> dict[str, float]:
        """Hand the files, the attention weights and what methods found out to every logger.

        Returns:
            The means of the numbers: "explain/METHOD/NUMBER" -> value.
        """
        if remember:
            self.attention.draw(trainer.current_epoch, records, folder)
        means = mean_numbers([record["numbers"] for record in records])
        table = attention_table(trainer.current_epoch, records)
        due = not remember or self._is_due(trainer)

        def give(logger: Logger) -> None:
            if means:
                logger.log_metrics(means, trainer.global_step)
            if due and takes_media(logger):
                self._say_size(records)
                log_media(logger, records, self.methods, table, trainer.global_step)

        self._to_loggers(trainer, give)
        return means

    def _log_measured(
        self, trainer: pl.Trainer, records: list[dict[str, Any]], folder: Path
    ) -> dict[str, float]:
        """The same for what was measured."""
        means, figure = self.measuring.write(trainer.current_epoch, records, folder)

        def give(logger: Logger) -> None:
            if means:
                logger.log_metrics(means, trainer.global_step)
            if figure is not None and isinstance(logger, LogsImages):
                logger.log_image("explain/curves", [str(figure)], trainer.global_step)

        self._to_loggers(trainer, give)
        return means

    def _to_loggers(self, trainer: pl.Trainer, give: Callable[[Logger], None]) -> None:
        """Give something to each logger; one that fails is warned about."""
        for logger in trainer.loggers:
            try:
                give(logger)
            except Exception as error:
                self._warn(f"logging to {type(logger).__name__}", error)

    def _say_size(self, records: Sequence[Mapping[str, Any]]) -> None:
        if not self._sized:
            self._sized = True
            size = media_size(records) / 1e6
            say(f"{size:.1f} MB of explained clips are logged each time: videos.log_every_n_epochs")

    def _warn(self, what: str, error: Exception, where: str = "") -> None:
        if what not in self._warned:
            self._warned.add(what)
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            warnings.warn(f"not explained: {what}{where} ({reason})", stacklevel=2)
