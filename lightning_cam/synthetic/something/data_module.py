"""The data module of the synthetic object interactions."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from lightning_cam.data.clips.something import SomethingSomething
from lightning_cam.data.clips.something_lists import read_clip_list
from lightning_cam.data.core.module import SMALL, check_whole
from lightning_cam.synthetic.something import CLASSES, render_something


class SyntheticSomething(SomethingSomething):
    """Sixteen synthetic classes of a hand and things on a table, rendered on first use.

    Each class is another one played backwards. The clips are by 24 workers, each with a hand, a
    room and a camera of their own: 1-19 for training, 20-21 for validation, 22-24 for testing
    (768 / 96 / 96 clips). Of fewer workers 19 in 24 are for training and two fifths of the others
    for validation; a single other one's clips are halved.

    Args:
        root: folder to render into.
        clips: clips per class.
        workers: how many there are.
        version: of the layout: 1 for folders of images, 2 for webm.
        templates: some of the class names; None for all.
        height: of the rendered frames in pixels.
        render_seed: seed of the rendering; `seed` is that of order and augmentation.
        class_groups: see `SomethingSomething`.
        classes: see `VideoDataModule`.
        **options: settings of `VideoDataModule`; the defaults suit the small networks of this
            package.
    """

    def __init__(
        self,
        root: str = "data/synthetic_something",
        *,
        clips: int = 60,
        workers: int = 24,
        version: int = 1,
        templates: list[str] | None = None,
        height: int = 100,
        render_seed: int = 0,
        class_groups: str | dict[str, list[str]] | None = None,
        classes: list[str] | None = None,
        **options: Any,
    ) -> None:
        check_whole(1, clips=clips, workers=workers, version=version, height=height)
        check_whole(0, render_seed=render_seed)
        if classes is None and class_groups is None:  # known before anything is rendered
            classes = list(templates or CLASSES)
        super().__init__(
            root,
            version=version,
            class_groups=class_groups,
            split="official",
            **{**SMALL, **options, "classes": classes},
        )
        self.rendering: dict[str, Any] = {
            "clips": clips,
            "workers": workers,
            "version": version,
            "templates": templates,
            "height": height,
            "seed": render_seed,
        }

    def prepare_data(self) -> None:
        """Render the data unless it is there."""
        render_something(self.root, **self.rendering)

    def split_clips(
        self, train: Sequence[str], validation: Sequence[str], chosen: Container[str] | None
    ) -> tuple[list[str], list[str], list[str]]:
        """Ids for training, validation and testing, by worker."""
        worker = {
            row.clip_id: int(row.template)
            for row in read_clip_list(Path(self.root, "ground_truth", "workers.csv"))
            if row.template.isdecimal()
        }
        rest, val, test = super().split_clips(train, validation, chosen)
        workers = sorted({worker[clip_id] for clip_id in validation if clip_id in worker})
        if len(workers) > 1:
            first = workers[: max(1, round(0.4 * len(workers)))]
            held = val + test
            val = [clip_id for clip_id in held if worker.get(clip_id) in first]
            test = [clip_id for clip_id in held if worker.get(clip_id) not in first]
        return rest, val, test
