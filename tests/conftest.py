"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from itertools import chain, groupby, islice
from pathlib import Path

os.environ.setdefault("WANDB_MODE", "offline")

import kept_settings
import pytest
import torch
from hypothesis import settings
from planted import planted as planted

REAL = Path(os.environ.get("LIGHTNING_CAM_REAL", Path(__file__).parents[2] / "shared" / "real"))

# A shell that starts the tests in the background ignores Ctrl-C for them and all they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# While tests are collected none is dropped: the collector would look at thousands in vain.
gc.disable()

# OpenMP's spinning makes small tensors slower on two shared cores, and tests share them.
torch.set_num_threads(1)

kept_settings.keep()

# The same examples in every run, and no deadline on a busy machine;
# HYPOTHESIS_PROFILE=default looks for others.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real videos; a test that asks for it skips where the folder is absent."""
    if not REAL.is_dir():
        pytest.skip(f"real videos are not at {REAL} (set LIGHTNING_CAM_REAL)")
    return REAL


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Sets handlers back: Lightning leaves Ctrl-C ignored after a stop, the end of a job all."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    handlers = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = slow_files_first(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def slow_files_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """The tests in `workers` shares of one size, each with its share of the slow files in front.

    xdist gives every worker such a share and lets those that are done early take from the others'
    ends: quick tests there leave no worker alone with a slow one.
    """
    files = [list(of_one) for _, of_one in groupby(items, lambda item: item.path)]
    slow = [file for file in files if any(item.get_closest_marker("slow") for item in file)]
    quick = chain.from_iterable(file for file in files if file not in slow)
    size = -(-len(items) // workers)
    shares = [list(chain.from_iterable(slow[turn::workers])) for turn in range(workers)]
    filled = [share + list(islice(quick, max(size - len(share), 0))) for share in shares]
    return [*chain.from_iterable(filled), *quick]


def pytest_collection_finish() -> None:
    gc.enable()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note what an attack says of itself, for the table of `make attack`."""
    if item.get_closest_marker("attack"):
        item.user_properties.append(("attack", said_of(item)))


def said_of(item: pytest.Item) -> str:
    """What a test tries: the first line of its docstring, else its name in words."""
    text = (getattr(item, "obj", None) and item.obj.__doc__) or ""
    first = text.strip().partition("\n")[0].rstrip(".")
    return first or item.name.partition("[")[0].removeprefix("test_").replace("_", " ")
