"""Synthetic multispectral: a person seen by an infrared and a visible camera at once.

Pairs of actions need one spectrum, the other, either, or both: see `motions`. Frames outside
of the action's interval have nothing to do with it. Beside the images lie the masks of body, arm
and paddle in both spectra, and the interval of the action.
"""

from __future__ import annotations

from lightning_cam.synthetic.multispectral.appearance import registration
from lightning_cam.synthetic.multispectral.files import (
    SequenceKey,
    draw_sequence,
    draw_sequence_from,
    render_multispectral,
)
from lightning_cam.synthetic.multispectral.motions import ACTIONS, FLIP_PAIRS, evidence

__all__ = [
    "ACTIONS",
    "FLIP_PAIRS",
    "SequenceKey",
    "draw_sequence",
    "draw_sequence_from",
    "evidence",
    "registration",
    "render_multispectral",
]
