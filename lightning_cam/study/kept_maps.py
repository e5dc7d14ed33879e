"""The maps of a study on the disk, so that a measure added later runs no method again.

What is measured is always the kept map (`KeptMap`), also right after the method ran, so that a
value does not depend on when it was measured.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from lightning_cam.explaining.clip_files import file_name
from lightning_cam.study.journal import CellKey


def map_path(folder: Path, key: CellKey) -> Path:
    """Where the map of a cell of a clip is kept, below the folder of a study."""
    network, trained, name, clip, cell = key
    place = file_name("_".join(filter(None, (network, trained, name))))
    unique = hashlib.sha256("\0".join(map(str, key)).encode()).hexdigest()[:8]
    return folder / "maps" / place / str(clip) / f"{file_name(cell)}_{unique}.npz"
