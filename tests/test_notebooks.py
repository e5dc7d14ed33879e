"""The notebooks run from top to bottom on small data, of which each epoch takes a batch.

What takes many forwards takes few here. Stored, they have the outputs of their default settings.
"""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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
def test_notebook_runs_and_leaves_no_file_beside_it(path: Path, tmp_path: Path) -> None:
    if path.stem == "demo" and not all(map(find_spec, EXTRA)):
        pytest.skip(ABSENT)
    beside, files = tmp_path / "beside", tmp_path / "files"
    beside.mkdir()
    files.mkdir()
    home = {"IPYTHONDIR": str(tmp_path / "ipython"), "MPLBACKEND": "agg", "TMPDIR": str(files)}
    process = Process(["-c", CELLS, str(path)], beside, {**ENVIRONMENT, **SMALL, **home})
    out, err = process.communicate()
    assert process.wait() == 0, out[-3000:] + err[-3000:]
    assert not list(beside.iterdir())


def _outputs(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text())["cells"]
    return [out for cell in cells for out in cell.get("outputs", [])]


def _words(output: dict[str, Any]) -> str:
    """What an output says in plain text."""
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", []))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_stored_with_its_outputs(path: Path) -> None:
    """Run once from top to bottom; without warnings, progress and this machine's paths."""
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = _outputs(path)
    assert any(out["output_type"] != "stream" for out in outputs), "shows no picture"
    noise = [out for out in outputs if out["output_type"] == "error" or out.get("name") == "stderr"]
    assert not noise
    paths = re.compile(r"(?<![\w.])/(work|home|root|tmp|usr|Users)/|site-packages|0x[0-9a-f]{8}")
    assert not [found for out in outputs if (found := paths.search(_words(out)))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_small(path: Path) -> None:
    assert len(path.read_text()) < 1_000_000
    for out in _outputs(path):
        for kind, data in out.get("data", {}).items():
            limit = 480_000 if "<video" in "".join(data)[:200] else 400_000
            assert len("".join(data)) < limit, kind


# Maps that know nothing of the network, and other answers that need none.
BASELINES = "random map", "random ", "by chance", "standing still", "without both"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_tables_of_scores_have_a_baseline(path: Path) -> None:
    tables = [
        said
        for out in _outputs(path)
        if len(re.findall(r"\d\.\d+ *$", said := _words(out), re.MULTILINE)) > 1
    ]
    assert tables
    assert not [said for said in tables if not any(word in said for word in BASELINES)]
