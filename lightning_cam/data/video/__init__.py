"""Reading video, files and folders of numbered images: the only reader of the package."""

from lightning_cam.data.video.reading import (
    READERS,
    VIDEO_SUFFIXES,
    VideoFrames,
    VideoInfo,
    check_reader,
    is_frame_folder,
    probe,
    read_clip,
    read_frames,
)

__all__ = [
    "READERS",
    "VIDEO_SUFFIXES",
    "VideoFrames",
    "VideoInfo",
    "check_reader",
    "is_frame_folder",
    "probe",
    "read_clip",
    "read_frames",
]
