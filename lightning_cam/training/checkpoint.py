"""What a checkpoint remembers, and how it is rebuilt without trusting the file.

`checkpoint["lightning_cam"]` holds how to build task and data as plain containers, so that the
file travels alone and loads with `weights_only=True`:

    {"schema": 1, "version": "0.1.0", "task": {"_target_": ..., ...}, "data": {...},
     "classes": [...], "run": {...}}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

import lightning_cam
from lightning_cam.archive import load_tensors
from lightning_cam.attribution import Attribution
from lightning_cam.errors import CheckpointError, UserError, printable
from lightning_cam.training.build import PARTIAL, TARGET, build
from lightning_cam.training.sketch import build_task, check_clip_memory, check_method_costs

KEY = "lightning_cam"
SCHEMA = 1
NODES = 100_000  # of remembered settings: a list named twice counts twice
_PLAIN = (str, int, float, bool, type(None))


class Remember(Callback):
    """Writes into every checkpoint how its task and data are built.

    Args:
        task: resolved plain node of the LightningModule; optimiser and schedule are left out.
        data: resolved plain node of the LightningDataModule.
        classes: names of the output columns.
        run: anything plain that is worth knowing (name, seed, ...).
    """

    def __init__(
        self,
        task: Mapping[str, Any],
        data: Mapping[str, Any],
        classes: Sequence[str],
        run: Mapping[str, Any] | None = None,
    ) -> None:
        self.memory = {
            "schema": SCHEMA,
            "version": lightning_cam.__version__,
            "task": plain_copy(task),
            "data": plain_copy(data),
            "classes": list(classes),
            "run": plain_copy(run or {}),
        }

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[KEY] = self.memory


def plain_copy(node: Any) -> Any:
    """A copy in plain containers, without nodes built late (`_partial_`: optimiser, schedule).

    Raises:
        TypeError: if there is anything but dicts, lists, strings, numbers, booleans and None.
        ValueError: there are more than `NODES` of them, counted as often as they are named.
    """
    return _copied(node, iter(range(NODES)))


def _copied(node: Any, left: Iterator[int]) -> Any:
    if next(left, None) is None:
        raise ValueError(f"more than {NODES} settings")
    if isinstance(node, Mapping):
        return {str(k): _copied(v, left) for k, v in node.items() if not _is_partial(v)}
    if isinstance(node, (list, tuple)):
        return [_copied(value, left) for value in node if not _is_partial(value)]
    if not isinstance(node, _PLAIN):
        raise TypeError(f"a checkpoint remembers plain values only, got {type(node).__name__}")
    return node


def _is_partial(node: Any) -> bool:
    return isinstance(node, Mapping) and bool(node.get(PARTIAL))


def load_lightning(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of Lightning onto the CPU, running none of its code.

    Raises:
        CheckpointError: missing, empty, truncated or no checkpoint at all; pickled code inside.
    """
    if re.match(r"[a-z0-9]+://", str(path), re.IGNORECASE):
        raise CheckpointError(f"{path}: refused: download the file first and pass its path")
    file = Path(path)
    if not file.exists():
        raise CheckpointError(f"no checkpoint at {path}{_nearby(file)}")
    if file.is_dir():
        raise CheckpointError(f"{path} is a folder{_nearby(file / '_')}")
    if file.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty; take another checkpoint")
    checkpoint = load_tensors(file)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise CheckpointError(f"{path}: not a Lightning checkpoint (no state_dict)")
    state = checkpoint["state_dict"]
    if not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()):
        raise CheckpointError(f"{path}: its weights are not names and tensors")
    for key in ("epoch", "global_step"):
        if not isinstance(checkpoint.get(key), int):
            raise CheckpointError(f"{path}: not a Lightning checkpoint (no {key})")
    return checkpoint


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this program, see `load_lightning`.

    Raises:
        CheckpointError: see there; not written by lightning_cam, with another schema, or with parts
            of another shape.
    """
    checkpoint = load_lightning(path)
    memory = checkpoint.get(KEY)
    if not isinstance(memory, dict):
        raise CheckpointError(
            f"{path}: written without lightning_cam: it does not remember its model and data; of a "
            "LightningModule of your own, such as my_package.MyModule, add model=CLASS"
        )
    checkpoint[KEY] = _checked(memory, path)
    return checkpoint


def _checked(memory: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """The memory in plain containers, of the shape that `Remember` gives it."""
    try:
        memory = plain_copy(memory)
    except (TypeError, ValueError, RecursionError) as e:
        raise CheckpointError(f"{path}: cannot be rebuilt: {type(e).__name__}: {e}") from e
    if memory.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path}: schema {memory.get('schema')!r} (written by lightning_cam "
            f"{memory.get('version')}), this version reads schema {SCHEMA}; install that version"
        )
    for key, needs in (("task", {TARGET}), ("data", {TARGET}), ("run", set())):
        node = memory.get(key)
        if not isinstance(node, dict) or not needs <= node.keys():
            raise CheckpointError(f"{path}: it does not remember its {key}")
    explain = memory["run"].get("explain", {})
    if not isinstance(explain, dict) or TARGET in explain:
        raise CheckpointError(f"{path}: it does not remember how it was explained")
    # Names of methods stand in tables, on pages and on the terminal, which they do not control.
    named = {printable(name): node for name, node in explain.items()}
    return {**memory, "run": {**memory["run"], "explain": named} if named else memory["run"]}


def trained_methods(remembered: Mapping[str, Any], trust: Sequence[str]) -> dict[str, Attribution]:
    """The methods that a checkpoint remembers, by name.

    Raises:
        CheckpointError: one is not trusted, is not a method, or is of absurd size.
    """
    check_method_costs(remembered)
    return {
        name: build(node, (KEY, *trust), f"explain.{name}", Attribution)
        for name, node in remembered.items()
    }


def _nearby(file: Path) -> str:
    """The newest checkpoint near a path that has none, as a remedy."""
    try:
        found = sorted(file.parent.rglob("*.ckpt"), key=lambda f: f.stat().st_mtime)
    except OSError:
        return ""
    return f"; newest there: {found[-1]}" if found else "; is the path right?"


def rebuild(
    path: str | Path,
    trust: Sequence[str] = (KEY,),
    data: Mapping[str, Any] | None = None,
) -> tuple[LightningModule, LightningDataModule, dict[str, Any]]:
    """Task (with weights, in eval mode) and data module of a checkpoint.

    Args:
        path: a checkpoint written by `train.py`.
        trust: packages and single classes that the file may name, see `build.locate`;
            `lightning_cam` is always among them.
        data: settings that replace remembered ones, for example `{"root": "/data/ucf11"}`.

    Returns:
        The task, the data module and what else is remembered: version, classes, run, epoch,
        global_step.

    Raises:
        CheckpointError: see `load`; also an untrusted class, weights that do not fit, or clips that
            are too large (`check_clip_memory`).

    Example:
        >>> task, data, info = rebuild("runs/lrcn/2026-01-31_12-00-00/checkpoints/last.ckpt")
    """
    checkpoint = load(path)
    memory = checkpoint[KEY]
    trusted = tuple(dict.fromkeys((KEY, *trust)))
    try:
        check_clip_memory(memory["data"], data or {}, checkpoint["state_dict"])
        task = build_task(memory["task"], trusted, checkpoint["state_dict"])
        datamodule = build({**memory["data"], **(data or {})}, trusted, "data", LightningDataModule)
    except UserError as e:
        raise CheckpointError(f"{path}: {e}") from e
    except Exception as e:  # the arguments come from the file: endless nesting, absurd sizes, ...
        detail = " ".join(f"{type(e).__name__}: {e}".split())
        raise CheckpointError(f"{path}: cannot be rebuilt: {detail[:300]}") from e
    info = {key: memory.get(key) for key in ("version", "classes", "run")}
    info.update(epoch=checkpoint["epoch"], global_step=checkpoint["global_step"])
    return task.eval(), datamodule, info
