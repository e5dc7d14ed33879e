"""Lightning's logger for W&B, for runs that are stopped and go on."""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from lightning_cam.training.better import better, keep_best
from lightning_cam.training.wandb_segments import JOURNAL, Earlier, Journal, becomes_whole

_STEP = "trainer/global_step"
_BESIDE = "epoch"  # stands in every row of metrics, so that it can be an axis


class SegmentedWandbLogger(WandbLogger):
    """Hands each value to W&B once, however often its run is stopped and goes on.

    Args:
        folder: of the run.
        experiment: W&B's run, just begun.
        earlier: the segments that the run has.

    Attributes:
        sync_command: what to type to upload this run if it is logged offline, else "".
    """

    def __init__(self, folder: Path, experiment: Any, earlier: Earlier) -> None:
        super().__init__(save_dir=folder, experiment=experiment)
        self._known, self._best = earlier.known, earlier.best
        self._newest: dict[str, tuple[int | None, Any]] = {}
        self._defined: set[str] = set()
        self._journal: Journal | None = None
        self._gone = False  # W&B's process has ended
        self.sync_command = ""
        if experiment.disabled:
            return
        begin = earlier.begin if experiment.offline else experiment.step
        segment = Path(experiment.dir).parent
        if experiment.offline:
            self.sync_command = sync_command(segment.parent)
        self._journal = Journal(segment / JOURNAL, begin)
        if experiment.offline and begin:
            experiment.log({}, step=begin, commit=False)  # no row: the next one has this number
        self._hand_again(earlier)
        self._journal.note(saved=earlier.done)  # all of this was before the checkpoint
        earlier.remove()

    def _hand_again(self, earlier: Earlier) -> None:
        """Hand over what the segments had that give way to this one."""
        lost: list[OSError] = []
        for call in earlier.again():
            try:
                self._hand(call["kind"], call["step"], call["data"])
            except ConnectionError:
                raise
            except OSError as error:  # W&B copies files
                lost.append(error)
        if lost:
            said = f"W&B lacks {len(lost)} files of before this start ({lost[0]})"
            warnings.warn(said, stacklevel=4)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self._hand("metrics", step, dict(metrics))

    @rank_zero_only
    def log_table(
        self,
        key: str,
        columns: list[str] | None = None,
        data: list[list[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        table = {"columns": columns, "data": data}
        self._hand("table", step, {key: table if dataframe is None else {"dataframe": dataframe}})

    @rank_zero_only
    def log_image(
        self, key: str, images: list[Any], step: int | None = None, **more: list[Any]
    ) -> None:
        self._hand("image", step, {key: {"files": images, "each": more}})

    @rank_zero_only
    def log_video(
        self, key: str, videos: list[Any], step: int | None = None, **more: list[Any]
    ) -> None:
        self._hand("video", step, {key: {"files": videos, "each": more}})

    def _hand(self, kind: str, step: int | None, data: Mapping[str, Any]) -> None:
        """Note what W&B is given, and give it."""
        fresh = {key for key in data if (step, key) not in self._known}
        if not fresh or (fresh == {_BESIDE} and len(data) > 1) or self._repeats(kind, step, data):
            return
        new = {key: value for key, value in data.items() if key in fresh or key == _BESIDE}
        if self._journal is not None:
            self._journal.note(**_noted(kind, step, new))
        if kind == "metrics":
            keep_best(self._best, new)
        with self._outlasted():
            self._log(kind, step, new)

    def _repeats(self, kind: str, step: int | None, data: Mapping[str, Any]) -> bool:
        """Whether all of a row was the last thing said of its keys.

        As the learning rate is behind each of several batches that make one step.
        """
        if kind != "metrics":
            return False
        rows = {key: (step, value) for key, value in data.items()}
        again = all(key in self._newest and self._newest[key] == rows[key] for key in rows)
        self._newest |= rows
        return again

    def _log(self, kind: str, step: int | None, data: Mapping[str, Any]) -> None:
        if self._gone:
            return
        self._define(data)
        made = {key: _made(kind, value) for key, value in data.items()}
        given = {key: value for key, value in made.items() if value is not None}
        if given:
            self.experiment.log(given if step is None else {**given, _STEP: step})

    @contextmanager
    def _outlasted(self) -> Iterator[None]:
        """Go on when W&B's process has ended: SIGTERM for a whole job reaches it as well.

        What it does not take is in the journal, for the next start of this run.
        """
        try:
            yield
        except Exception as error:
            if not _is_gone(error):
                raise
            self._gone = True
            warnings.warn(
                f"W&B's process has ended ({type(error).__name__}); what is logged from now on "
                "comes when this run goes on",
                stacklevel=4,
            )
            import wandb

            with suppress(Exception):
                wandb.teardown()  # or it would, when Python ends, with a traceback

    def _define(self, keys: Iterable[str]) -> None:
        """Of what validation measures W&B's tables of runs show the best value, not the last."""
        for key in keys:
            if key not in self._defined and key.startswith("val/") and (mode := better(key)):
                self.experiment.define_metric(key, summary=mode, step_metric=_STEP, step_sync=True)
            self._defined.add(key)

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        if self._journal is not None:
            self._journal.note(saved=checkpoint_callback._last_global_step_saved)
        super().after_save_checkpoint(checkpoint_callback)

    @rank_zero_only
    def finish(self) -> None:
        """End the segment: what was handed over is in its file, or with the server."""
        if self._experiment is None or self._journal is None or self._gone:
            return
        with self._outlasted():
            end = self._experiment.step
            for key, value in self._best.items():  # W&B knows the best value of this segment alone
                self._experiment.summary[key] = {better(key): value}
            try:
                self._experiment.finish()
            except ConnectionError:
                raise
            except OSError:  # W&B cannot end its own log: of a full disk that is the least
                pass
            if lost := [file for file in self._files() if not becomes_whole(file)]:
                then = f"what W&B lacks comes with resume={self.save_dir}"
                if not self._journal.whole:
                    then = "W&B lacks what was logged since there was none"
                warnings.warn(
                    f"{lost[0]} is not whole: free some space there; {then}", stacklevel=2
                )
            else:
                self._journal.note(end=end)

    def _files(self) -> list[Path]:
        """What W&B's service writes for `wandb sync`; online it need not be whole."""
        run: Any = self._experiment
        return [*Path(run.dir).parent.glob("run-*.wandb")] if run.offline else []


def _is_gone(error: Exception) -> bool:
    """Whether W&B's process does not answer any more; one of its errors has no public name."""
    return isinstance(error, ConnectionError) or type(error).__name__ == "MailboxClosedError"


def sync_command(home: Path) -> str:
    """What to type to upload all segments in a run's `wandb/`, as one run.

    Each by itself: one that is broken, as that of a process which was killed, would end the upload
    of all that come after it. WANDB_RESUME lets each follow the one before.
    """
    home, here = home.absolute(), Path.cwd()
    near = home.relative_to(here) if home.is_relative_to(here) else home
    each = f"{shlex.quote(str(near))}/offline-run-*"
    return f'for run in {each}; do WANDB_RESUME=allow wandb sync "$run"; done'


def _noted(kind: str, step: int | None, data: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the journal; what is not plain cannot be handed over again, and is left out."""
    line = {"kind": kind, "step": step, "data": dict(data)}
    try:
        json.dumps(line)
    except (TypeError, ValueError):
        return {**line, "kind": "lost", "data": dict.fromkeys(data)}
    return line


def _made(kind: str, value: Any) -> Any:
    """W&B's object of what a call was given; None for what is there no more."""
    import wandb

    if kind == "table":
        return wandb.Table(**value)
    if kind in ("image", "video"):
        make = wandb.Image if kind == "image" else wandb.Video
        each = value["each"]
        listed = [
            make(file, **{name: values[n] for name, values in each.items()})
            for n, file in enumerate(value["files"])
            if not isinstance(file, str) or Path(file).is_file()
        ]
        return listed or None
    return value
