"""Lightning modules: what is trained, how it is measured, and how to look into it."""

from lightning_cam.tasks.classification import VideoClassification

__all__ = ["VideoClassification"]
