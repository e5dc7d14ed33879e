"""Depth and ego-motion from unlabelled video (SfMLearner)."""

from lightning_cam.tasks.sfm.task import StructureFromMotion
from lightning_cam.tasks.sfm.view_synthesis import ViewSynthesis

__all__ = ["StructureFromMotion", "ViewSynthesis"]
