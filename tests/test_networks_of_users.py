"""Maps of networks as people write them are those of the definitions."""

from __future__ import annotations

import pytest
import torch
from definitions import METHODS, MOST, cell
from networks_of_users import OWN


@pytest.mark.parametrize("name", OWN)
def test_maps_are_those_of_the_definitions(name: str) -> None:
    errors = {method: cell(OWN[name], method, torch.float32) for method in METHODS}
    assert max(errors.values()) < MOST, errors
