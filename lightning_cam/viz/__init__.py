"""Images and videos of explanations: NumPy, OpenCV, Pillow and PyAV alone."""

import cv2  # noqa: F401  (before decord and everything else that brings its own FFmpeg)

from lightning_cam.viz.attention import draw_attention
from lightning_cam.viz.clip_figure import (
    OUTCOMES,
    ClipFigure,
    PanelScale,
    Stack,
    frame_shares,
    outcome,
)
from lightning_cam.viz.clip_video import DrawnVideo, draw_video, drawn_video
from lightning_cam.viz.contact_sheet import draw_sheet
from lightning_cam.viz.curves import CurveLine, CurvePanel, draw_curves
from lightning_cam.viz.depth import (
    UNKNOWN,
    colour_depth,
    colour_error,
    depth_range,
    depth_scale,
    draw_depths,
    error_range,
    error_scale,
)
from lightning_cam.viz.drawing import jpeg, save_png
from lightning_cam.viz.overlay import overlay
from lightning_cam.viz.page import table_html, write_page, write_report
from lightning_cam.viz.page_entry import PageImages, ReportEntry
from lightning_cam.viz.trajectory import draw_trajectory
from lightning_cam.viz.video_file import write_video

__all__ = [
    "OUTCOMES",
    "UNKNOWN",
    "ClipFigure",
    "CurveLine",
    "CurvePanel",
    "DrawnVideo",
    "PageImages",
    "PanelScale",
    "ReportEntry",
    "Stack",
    "colour_depth",
    "colour_error",
    "depth_range",
    "depth_scale",
    "draw_attention",
    "draw_curves",
    "draw_depths",
    "draw_sheet",
    "draw_trajectory",
    "draw_video",
    "drawn_video",
    "error_range",
    "error_scale",
    "frame_shares",
    "jpeg",
    "outcome",
    "overlay",
    "save_png",
    "table_html",
    "write_page",
    "write_report",
    "write_video",
]
