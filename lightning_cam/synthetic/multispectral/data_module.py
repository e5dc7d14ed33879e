"""The data module of the synthetic multispectral actions."""

from __future__ import annotations

from typing import Any

from lightning_cam.data.core.module import SMALL, check_whole
from lightning_cam.data.multispectral.module import Multispectral
from lightning_cam.synthetic.multispectral import ACTIONS, render_multispectral


class SyntheticMultispectral(Multispectral):
    """Eight synthetic actions before an infrared and a visible camera, rendered on first use.

    Pairs of actions differ in the direction of a step (both spectra show it), of a paddle (the
    visible one), of an arm's swing (the infrared one), or in whether arm and paddle wave together
    or in turn, for which it takes both: one spectrum alone tells three quarters at most.
    Actors 1-7 are for training, 8 for validation, 9-10 for testing (224 / 32 / 64 sequences).

    Args:
        root: folder to render into.
        actors: how many there are; the last fifth is for testing.
        repetitions: of each action by each actor before each of the two cameras.
        actions: some of the class names; None for all.
        scale: factor of the image sizes 80x60 (infrared) and 120x68 (visible).
        render_seed: seed of the rendering; `seed` is that of order and augmentation.
        **options: arguments of `Multispectral`; the defaults suit the small networks of this
            package.
    """

    def __init__(
        self,
        root: str = "data/synthetic_multispectral",
        *,
        actors: int = 10,
        repetitions: int = 2,
        actions: list[str] | None = None,
        scale: int = 1,
        render_seed: int = 0,
        **options: Any,
    ) -> None:
        check_whole(1, actors=actors, repetitions=repetitions, scale=scale)
        check_whole(0, render_seed=render_seed)
        settings: dict[str, Any] = {
            **SMALL,
            "num_frames": 16,
            "fps": 5.0,
            "rate": 12.5,
            "crop_shift": 4,
            "ir_mean": 0.4,
            "ir_std": 0.25,
            "classes": sorted(actions or ACTIONS),  # known before anything is rendered
        }
        if options.get("spectrum", "irtv") != "tv":  # not all clips have three colours
            settings |= {"permute": 0.0, "grey": 0.0}
        super().__init__(root, **{**settings, **options})
        self.rendering: dict[str, Any] = {
            "actors": actors,
            "repetitions": repetitions,
            "actions": actions,
            "scale": scale,
            "seed": render_seed,
        }

    def prepare_data(self) -> None:
        """Render the data unless it is there."""
        render_multispectral(self.root, **self.rendering)
