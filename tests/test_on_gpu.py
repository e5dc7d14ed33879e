"""The checks of `make cuda`, rehearsed on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import lightning_cam as lc


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    monkeypatch.delitem(sys.modules, "on_gpu", raising=False)
    import on_gpu

    return on_gpu


def test_other_forms_of_a_network_are_explained_alike(on_gpu: ModuleType) -> None:
    machine = on_gpu.Machine(torch.device("cpu"), dry=True)
    found = list(on_gpu.found_by(on_gpu.other_forms, machine))
    assert [row.holds for row in found] == [True, True, True, None], found


def test_a_check_that_raises_is_a_row_that_does_not_hold(on_gpu: ModuleType) -> None:
    def broken(machine: object) -> Iterator[object]:
        yield on_gpu.Found.at_most("one", 0, 0, "")
        raise RuntimeError("CUDA error\nof several lines")

    first, second, _ = on_gpu.found_by(broken, None)
    assert first.holds and second.holds is False
    assert second.check == "broken: RuntimeError: CUDA error"


def test_every_public_method_is_checked_but_those_that_need_to_be_told(on_gpu: ModuleType) -> None:
    public = {name for name in lc.__all__ if isinstance(getattr(lc, name), type)}
    methods = {name for name in public if issubclass(getattr(lc, name), lc.Attribution)}
    assert {"GradCAM", "RISE", "LRP", "ExtremalPerturbation"} <= set(on_gpu.methods()) <= methods
