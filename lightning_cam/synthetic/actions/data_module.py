"""The data modules of the synthetic actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lightning_cam.data.clips.ucf11 import UCF11
from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.listing import Listing
from lightning_cam.data.core.module import SMALL, check_whole
from lightning_cam.synthetic.actions.files import CLASSES, FLIP_PAIRS, PAIRS, render_actions


class SyntheticActions(UCF11):
    """Eleven synthetic actions that differ by motion alone, rendered on first use.

    Groups 1-20 are for training, 21-23 for validation, 24-25 for testing (880 / 132 / 88 clips).
    Mirroring swaps left with right and clockwise with counter-clockwise.

    Args:
        root: folder to render into.
        groups: groups per class.
        clips: clips per group.
        size: side of the rendered frames in pixels.
        render_seed: seed of the rendering; `seed` is that of order and augmentation.
        actions: some of the class names; None for all.
        **options: arguments of `UCF11`; the defaults suit the small networks of this package.
    """

    default_val = (21, 22, 23)
    default_test = (24, 25)

    def __init__(
        self,
        root: str = "data/synthetic_actions",
        *,
        groups: int = 25,
        clips: int = 4,
        size: int = 96,
        render_seed: int = 0,
        actions: list[str] | None = None,
        **options: Any,
    ) -> None:
        names = {
            "classes": sorted(actions or CLASSES),
            "hflip_pairs": [list(pair) for pair in FLIP_PAIRS],
        }
        check_whole(1, groups=groups, clips=clips, size=size)
        check_whole(0, render_seed=render_seed)
        super().__init__(root, **{**SMALL, **names, **options})
        self.rendering: dict[str, Any] = {
            "groups": groups,
            "clips": clips,
            "size": size,
            "seed": render_seed,
            "classes": actions,
        }

    def prepare_data(self) -> None:
        """Render the data unless it is there."""
        render_actions(self.root, **self.rendering)


class SyntheticActionPairs(SyntheticActions):
    """One or two of the synthetic actions at once: several labels a clip.

    Of K actions there are clips of each alone, and of each two that do not exclude each other, as
    moving to the left and to the right do. "label" is (K,), 1 for each that is acted.

    Args:
        root: folder to render into.
        actions: some of the class names; None for all, which with their pairs are 62 folders.
        **options: arguments of `SyntheticActions`.
    """

    def __init__(
        self,
        root: str = "data/synthetic_action_pairs",
        *,
        actions: list[str] | None = None,
        **options: Any,
    ) -> None:
        self.actions = sorted(actions or CLASSES)
        pairs = [pair for pair in PAIRS if set(pair.split("+")) <= set(self.actions)]
        super().__init__(root, actions=[*self.actions, *pairs], **options)
        self.given_classes = self.actions

    @property
    def folders(self) -> list[str]:
        return sorted(self.rendering["classes"])

    def list_clips(self) -> Listing:
        found = super().list_clips()

        def labelled(clips: Sequence[Clip]) -> list[Clip]:
            acted = [found.classes[clip.label].split("+") for clip in clips]
            rows = [tuple(int(name in names) for name in self.actions) for names in acted]
            return [replace(c, label=-1, labels=row) for c, row in zip(clips, rows, strict=True)]

        train, val, test = map(labelled, (found.train, found.val, found.test))
        return replace(found, classes=self.actions, train=train, val=val, test=test)
