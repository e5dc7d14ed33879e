"""What a checkpoint may cost: its network and its clips are weighed before memory is taken.

A few letters in a file can ask for any number of bytes. Its weights cannot: they are in the file.
So a task is first built on PyTorch's `meta` device, where tensors have shapes and no memory, and
built for good only where the weights of the file fit it.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torchmetrics import Metric

from lightning_cam.errors import CheckpointError
from lightning_cam.training.build import build, strangers

_GIB = 2**30
_HD = 3 * 1280 * 720  # bytes of a frame as it is read
_SIDES = (("resize", "resize"), ("crop", "crop"), ("height", "width"))  # of frames, in settings
_LENGTHS = ("num_frames", "eval_frames", "snippet")
# What settings of data may be at most: how fast videos are read, by how many processes, and how
# much is rendered where there are no synthetic data yet.
_MOST_DATA = {
    "fps": 10_000, "num_workers": 128, "groups": 1000, "clips": 10_000, "size": 4096,
    "frames": 100_000, "eval_length": 100_000, "scale": 32,
}  # fmt: skip
# What settings of methods may be at most: how often the network is run, other numbers, and the
# cells of all masks.
_RUNS = ("masks", "samples", "iterations")
_MOST_RUNS, _MOST, _MOST_CELLS = 100_000, 1000, 2**27


def build_task(
    node: Mapping[str, Any], trust: Sequence[str], state: Mapping[str, Tensor]
) -> LightningModule:
    """Build a task, once it is known that it can hold these weights, and fill it with them.

    Raises:
        CheckpointError: see `build`; or the weights do not fit.
    """
    with _at_most(1000 + 20 * len(state)):
        if sketch := _sketch(node, trust):
            _check_sketch(sketch, state)
    with _at_most(1000 + 20 * len(state)):
        task = build(node, trust, "task", LightningModule)
    _fill(task, state)
    return task


def _sketch(node: Mapping[str, Any], trust: Sequence[str]) -> LightningModule | None:
    """The task without memory; random numbers go on as if nothing had been built.

    None where code that the user trusts asks a tensor for its values, which these have not.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return build(node, trust, "task", LightningModule)
    except Exception:
        if not strangers(node):
            raise
        return None


@contextmanager
def _at_most(parts: int) -> Iterator[None]:
    """Within, networks have no more modules and parameters than this: layers cost time as well."""
    left = iter(range(parts))

    def count(*_: Any) -> None:
        if next(left, None) is None:
            raise CheckpointError("its model has far more layers than the file has weights")

    hooks = [
        register_module_module_registration_hook(count),
        register_module_parameter_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check_sketch(sketch: LightningModule, state: Mapping[str, Tensor]) -> None:
    _fill(sketch, state)
    held = sum(tensor.nbytes for tensor in state.values())
    needed = sum(tensor.nbytes for tensor in _all_tensors(sketch))
    if needed > 16 * held + _GIB / 16:
        raise CheckpointError(
            f"its model needs {needed / _GIB:.1f} GiB beside weights of {held / 2**20:.1f} MiB"
        )


def _all_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers and states of metrics, saved in checkpoints or not."""
    yield from module.parameters()
    yield from module.buffers()
    for part in module.modules():
        if isinstance(part, Metric):
            yield from (value for value in part.metric_state.values() if isinstance(value, Tensor))


def _fill(task: LightningModule, state: Mapping[str, Tensor]) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nothing is copied to `meta`, as is meant
            task.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as e:  # the latter two: not names and tensors
        detail = " ".join(str(e).split())
        raise CheckpointError(
            f"its weights do not fit the model it remembers: {detail[:300]}"
        ) from e
    for name, own in task.state_dict().items():  # torch casts them, and what was cut off is lost
        given = state.get(name)
        floating = isinstance(own, Tensor) and own.is_floating_point()
        if given is not None and floating and not given.is_floating_point():
            raise CheckpointError(
                "its weights do not fit the model it remembers: "
                f"{name} is of {given.dtype}, not {own.dtype}"
            )


def check_method_costs(remembered: Mapping[str, Any]) -> None:
    """Whether the sizes in remembered settings of methods are such as people choose.

    Methods that the user has chosen are the user's choice.

    Args:
        remembered: name -> settings.

    Raises:
        CheckpointError: they are not.
    """
    for name, node in remembered.items():
        numbers = list(_numbers(node))
        runs = max((n for key, n in numbers if key in _RUNS), default=1)
        others = max((n for key, n in numbers if key not in _RUNS), default=1)
        cells = math.prod(n for key, n in numbers if key == "cells")
        if runs > _MOST_RUNS or others > _MOST or runs * cells > _MOST_CELLS:
            raise CheckpointError(
                f"refused: it remembers an explain.{name} of absurd size; choose methods yourself, "
                "such as explain=[gradcam]"
            )


def _numbers(node: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """(key, amount) of every number in nested settings but seeds, which say nothing of size."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _numbers(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from _numbers(value, key)
    elif isinstance(node, int | float) and key != "seed":
        yield key, float(min(abs(node), 2**63))


def check_clip_memory(
    remembered: Mapping[str, Any], given: Mapping[str, Any], state: Mapping[str, Tensor]
) -> None:
    """Whether clips of remembered sizes are within what weights and machine justify.

    That is, for one clip, as read and as the network takes it, a GiB and 64 times the weights, at
    most an eighth of the machine's memory. Sizes that the user has given are the user's choice.

    Args:
        remembered: settings of the data module in the file.
        given: settings of the user that replace them.
        state: the weights.

    Raises:
        CheckpointError: they are not.
    """
    settings = {key: value for key, value in remembered.items() if key not in given}
    for key, most in _MOST_DATA.items():
        value = settings.get(key)
        if isinstance(value, int | float) and not value <= most:
            raise CheckpointError(
                f"refused: it remembers data.{key} of more than {most}; if that is meant, add "
                f"data.{key}={value}"
            )
    sizes = {key: n for key, n in settings.items() if type(n) is int and n > 0}
    held = sum(tensor.nbytes for tensor in state.values())
    limit = min(_memory() / 8, _GIB + 64 * held)
    longest = max(_LENGTHS, key=lambda key: sizes.get(key, 1))
    steps = sizes.get(longest, 1)
    pixels = {(a, b): sizes.get(a, 1) * sizes.get(b, 1) for a, b in _SIDES}
    largest = max(pixels, key=lambda sides: pixels[sides])
    shown = steps * max(pixels["crop", "crop"], pixels["height", "width"])
    if steps * _HD + 12 * (pixels[largest] + shown) <= limit:
        return
    long = steps * _HD > 12 * pixels[largest]
    blamed = [longest] if long else [key for key in dict.fromkeys(largest) if key in sizes]
    asked = " ".join(f"data.{key}={sizes[key]}" for key in blamed)
    raise CheckpointError(
        f"refused: it remembers clips that need more than {limit / _GIB:.1f} GiB each; if you "
        f"trust the file and have the memory, add {asked}"
    )


def _memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
