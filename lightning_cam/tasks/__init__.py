"""Lightning modules: the loss of a task, its scores, and how its network is explained."""

from lightning_cam.tasks.classification.multilabel import MultiLabelClassification
from lightning_cam.tasks.classification.task import VideoClassification
from lightning_cam.tasks.sfm.task import StructureFromMotion
from lightning_cam.tasks.sfm.view_synthesis import ViewSynthesis

__all__ = [
    "MultiLabelClassification",
    "StructureFromMotion",
    "VideoClassification",
    "ViewSynthesis",
]
