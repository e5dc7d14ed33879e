"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("WANDB_MODE", "offline")

import pytest
import torch
from hypothesis import settings
from planted import planted as planted

REAL = Path(os.environ.get("LIGHTNING_CAM_REAL", Path(__file__).parents[2] / "shared" / "real"))

# OpenMP's spinning makes small tensors slower on two shared cores, and tests share them.
torch.set_num_threads(1)

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
