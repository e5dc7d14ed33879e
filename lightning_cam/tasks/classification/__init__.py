"""Video classification: one label a clip, or several."""

from lightning_cam.tasks.classification.multilabel import MultiLabelClassification
from lightning_cam.tasks.classification.task import VideoClassification

__all__ = ["MultiLabelClassification", "VideoClassification"]
