"""A SLURM for the tests of this folder, which skip where there can be none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm import cluster


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[cluster.Cluster]:
    """Three nodes on this machine."""
    if reason := cluster.absent():
        pytest.skip(reason)
    yield from cluster.started(tmp_path_factory.mktemp("slurm"))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first training renders its clips."""
    return tmp_path_factory.mktemp("slurm-data") / "data"
