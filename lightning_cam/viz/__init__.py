"""Pictures and videos of explanations: NumPy, OpenCV, Pillow and PyAV alone."""

import cv2  # noqa: F401  (before decord and everything else that brings its own FFmpeg)

from lightning_cam.viz.attention import draw_attention
from lightning_cam.viz.canvas import save_png
from lightning_cam.viz.curves import CurveLine, draw_curves
from lightning_cam.viz.overlay import overlay
from lightning_cam.viz.panel import draw_video
from lightning_cam.viz.picture import OUTCOMES, ClipPicture, Stack, frame_shares, outcome
from lightning_cam.viz.report import ReportEntry, write_page, write_report
from lightning_cam.viz.sheet import draw_sheet
from lightning_cam.viz.video import write_video

__all__ = [
    "OUTCOMES",
    "ClipPicture",
    "CurveLine",
    "ReportEntry",
    "Stack",
    "draw_attention",
    "draw_curves",
    "draw_sheet",
    "draw_video",
    "frame_shares",
    "outcome",
    "overlay",
    "save_png",
    "write_page",
    "write_report",
    "write_video",
]
