"""Synthetic something: a hand acts on things on a table, in the layout of Something-Something.

Every class has a partner that is the same played backwards: pushing to the right and pulling to
the left, opening and closing. A clip is drawn forwards from its own random numbers and, for the
second of a pair, turned round in time. So single frames, and even all frames without their order,
have the same distribution in both classes of a pair: a network must read the order. Before and
after the interaction only the table is seen, with what has nothing to do with the class. Beside the
clips lie the masks of the hand and of what it acts upon, and the interval of the interaction.
"""

from __future__ import annotations

from lightning_cam.synthetic.something.clips import (
    CLASSES,
    FLIP,
    FLIP_PAIRS,
    PAIRS,
    REVERSED,
    InteractionKey,
    draw_interaction,
)
from lightning_cam.synthetic.something.files import render_something

__all__ = [
    "CLASSES",
    "FLIP",
    "FLIP_PAIRS",
    "PAIRS",
    "REVERSED",
    "InteractionKey",
    "draw_interaction",
    "render_something",
]
