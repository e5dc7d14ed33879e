"""The data module of the synthetic drives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_cam.data.core.base import check_whole
from lightning_cam.data.drives.kitti_odometry import KittiOdometry
from lightning_cam.synthetic.odometry import render_odometry


class SyntheticOdometry(KittiOdometry):
    """Drives through a synthetic street, rendered on first use, with exact poses and depth.

    Sequences 00-02 are for training, 09 for validation, 10 for testing. Sequence 11 is in no part:
    in it a box moves by itself and a wall has no texture, with masks of both.

    Args:
        root: folder to render into.
        frames: of each training sequence.
        eval_length: frames of each of the other sequences.
        scale: factor of the image size 208x64; that of clips is `width` and `height`.
        render_seed: seed of the rendering; `seed` is that of order and augmentation.
        train: as in `KittiOdometry`.
        val: as above.
        test: as above.
        **options: other arguments of `KittiOdometry`; the defaults suit the small networks of this
            package.
    """

    def __init__(
        self,
        root: str = "data/synthetic_odometry",
        *,
        frames: int = 150,
        eval_length: int = 80,
        scale: int = 1,
        render_seed: int = 0,
        train: Sequence[int] = (0, 1, 2),
        val: Sequence[int] | None = (9,),
        test: Sequence[int] = (10,),
        **options: Any,
    ) -> None:
        check_whole(3, frames=frames, eval_length=eval_length)
        check_whole(1, scale=scale)
        check_whole(0, render_seed=render_seed)
        settings: dict[str, Any] = {
            "height": 64,
            "width": 208,
            "batch_size": 8,
            "num_workers": 0,
            "zoom": 1.1,
            "contrast": 0.1,
            "offset": 0.1,
            "cache": True,
        }
        super().__init__(root, train=train, val=val, test=test, **{**settings, **options})
        self.rendering: dict[str, Any] = {
            "train": frames,
            **dict.fromkeys(("val", "test", "evidence"), eval_length),
            "scale": scale,
            "seed": render_seed,
        }

    def prepare_data(self) -> None:
        """Render the data unless it is there."""
        render_odometry(self.root, **self.rendering)
