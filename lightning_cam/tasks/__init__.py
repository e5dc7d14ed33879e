"""Lightning modules: what is trained, how it is measured, and how to look into it."""

from lightning_cam.tasks.classification.task import VideoClassification
from lightning_cam.tasks.sfm.task import StructureFromMotion
from lightning_cam.tasks.sfm.view_synthesis import ViewSynthesis

__all__ = ["StructureFromMotion", "VideoClassification", "ViewSynthesis"]
