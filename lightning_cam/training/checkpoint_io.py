"""How a run saves, reads and deletes its checkpoints."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lightning_cam.errors import CheckpointError
from lightning_cam.files import whole_file
from lightning_cam.training import checkpoint as checkpoints
from lightning_cam.training.resuming import check_start


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes whole files, reads as `checkpoint.load` does, and deletes only what is the run's.

    Lightning's own writes through the system's temporary folder, which on clusters is another disk,
    and across disks a move is a copy; and it deletes what a checkpoint names, folders included.

    Args:
        folder: the run's `checkpoints/`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        with whole_file(path, sync=True) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # "unexpected pos" on a full disk
                    raise error.__context__ from None
                raise

    def load_checkpoint(self, path: str | Path, *_args: Any, **_options: Any) -> dict[str, Any]:
        """A checkpoint to go on from, on the CPU.

        Raises:
            CheckpointError: see `checkpoint.load` and `check_start`.
        """
        try:
            return check_start(checkpoints.load(path))
        except CheckpointError as error:
            if str(path) in str(error):
                raise
            raise CheckpointError(f"{path}: {error}") from error

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a regular `*.ckpt` file that lies directly in the run's folder.

        Anything else that a checkpoint may have named stays, with a warning.
        """
        if self._is_own(Path(path)):
            Path(path).unlink(missing_ok=True)
        else:
            warnings.warn(
                f"not deleted: {str(path)!r} is not a checkpoint of this run in {self.folder}",
                stacklevel=2,
            )

    def _is_own(self, path: Path) -> bool:
        try:
            inside = path.parent.resolve() == self.folder.resolve()
            return inside and path.suffix == ".ckpt" and path.is_file() and not path.is_symlink()
        except (OSError, ValueError, RuntimeError):  # null bytes, a name too long, a ring of links
            return False
