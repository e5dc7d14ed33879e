"""The notebooks run from top to bottom on small data, of which each epoch takes a batch.

What takes many forwards takes few here.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from commands import ENVIRONMENT, ROOT
from demo_extra import ABSENT, EXTRA
from preloaded import Process

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

SMALL = {"EPOCHS": "1", "GROUPS": "3", "CLIPS": "4", "ACTORS": "3", "FRAMES": "16"}
CELLS = """
import functools, json, sys
import lightning.pytorch as pl
from IPython.core.interactiveshell import InteractiveShell

import lightning_cam as lc

pl.Trainer = functools.partial(pl.Trainer, limit_train_batches=1, limit_val_batches=1)
few = {lc.RISE: {"masks": 8}, lc.deletion: {"steps": 4}, lc.insertion: {"steps": 4}}
for what, less in few.items():
    setattr(lc, what.__name__, lambda *a, _what=what, _less=less, **k: _what(*a, **{**k, **_less}))
shell = InteractiveShell.instance()
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] == "code":
        shell.run_cell("".join(cell["source"])).raise_error()
"""


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    if path.stem == "demo" and not all(map(find_spec, EXTRA)):
        pytest.skip(ABSENT)
    home = {"IPYTHONDIR": str(tmp_path / "ipython"), "MPLBACKEND": "agg"}
    process = Process(["-c", CELLS, str(path)], tmp_path, {**ENVIRONMENT, **SMALL, **home})
    out, err = process.communicate()
    assert process.wait() == 0, out[-3000:] + err[-3000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_stored_with_small_outputs_or_none(path: Path) -> None:
    text = path.read_text()
    assert len(text) < 1_000_000 and str(ROOT) not in text
    outputs = [out for cell in json.loads(text)["cells"] for out in cell.get("outputs", [])]
    assert not [out for out in outputs if out["output_type"] == "error"]
