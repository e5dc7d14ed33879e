"""One explained clip: chosen, drawn, written, tabled; and the live callback.

What programs and notebooks call. From a clip to its files:

    explanations = explain_clip(model, {"gradcam": GradCAM()}, clip)
    figure = draw_clip(model, explanations, clip_frames(data, clip), batch, "a title")
    write_clip(folder, figure, explanations, batch, fps=8)

The work of the command `explain` is in `explain_command`.
"""

from lightning_cam.explaining.callback import ExplainCallback
from lightning_cam.explaining.clip_arrays import load
from lightning_cam.explaining.clip_drawing import clip_extras, clip_frames, clip_views, draw_clip
from lightning_cam.explaining.clip_explanations import (
    explain_clip,
    explain_spectra,
    frame_relevance,
)
from lightning_cam.explaining.clip_files import ClipFiles, write_clip
from lightning_cam.explaining.video_explanation import Stretch, VideoExplanation
from lightning_cam.explaining.whole_video import explain_video

__all__ = [
    "ClipFiles",
    "ExplainCallback",
    "Stretch",
    "VideoExplanation",
    "clip_extras",
    "clip_frames",
    "clip_views",
    "draw_clip",
    "explain_clip",
    "explain_spectra",
    "explain_video",
    "frame_relevance",
    "load",
    "write_clip",
]
