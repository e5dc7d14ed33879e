"""Video classification: one label a clip."""

from lightning_cam.tasks.classification.task import VideoClassification

__all__ = ["VideoClassification"]
