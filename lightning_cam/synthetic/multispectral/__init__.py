"""Synthetic multispectral: a person seen by an infrared and a visible camera at once.

Pairs of actions need one spectrum, the other, either, or both: see `script`. Beside the pictures
lie the masks of body, arm and paddle in both spectra, and the interval of the action.
"""

from __future__ import annotations

from lightning_cam.synthetic.multispectral.appearance import registration
from lightning_cam.synthetic.multispectral.files import ClipKey, draw, film, render
from lightning_cam.synthetic.multispectral.motions import ACTIONS, FLIP_PAIRS, evidence

__all__ = ["ACTIONS", "FLIP_PAIRS", "ClipKey", "draw", "evidence", "film", "registration", "render"]
