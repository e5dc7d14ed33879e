"""Which part of a video file `explain.py` explains: its middle, or all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_cam.data.core.clips import Between, Clip, SampleDict, finished
from lightning_cam.data.core.windows import WindowedVideo, Windows, check_windows
from lightning_cam.errors import ConfigError
from lightning_cam.explaining.whole_video import Size, windows_reader, windows_text
from lightning_cam.interfaces import ReadsFiles
from lightning_cam.metrics import Measure
from lightning_cam.viz.moments import extent_text


@dataclass(frozen=True)
class VideoPart:
    """What is asked of a video file.

    Attributes:
        path: of the file.
        windows: "all", "centre", how many, or None: all of a single video that is at least half a
            clip longer than a clip, the middle of every other.
        stride, between: see `WindowedVideo`.
        size: "original": also a video of the source's own size.
        alone: whether it is the only video.
        middle: why it is the middle where nothing else is asked for; "" if there is no reason.
    """

    path: Path
    windows: Windows | None = None
    stride: float | None = None
    between: Between = (None, None)
    size: Size = None
    alone: bool = True
    middle: str = ""

    def read(self, data: ReadsFiles) -> SampleDict:
        """The clip in the middle."""
        reader = windows_reader(data)
        if self.between == (None, None) or reader is None:
            return data.read(self.path)  # type: ignore[return-value]
        steps, valid = reader.window(self.path, between=self.between)
        return finished(reader.sample(Clip(self.path, self.path.stem), steps, valid))

    def opened(self, data: object) -> tuple[WindowedVideo | None, str]:
        """Its windows, None for its middle alone; and what is to be said of that.

        Raises:
            VideoReadError: it cannot be read.
        """
        reader = windows_reader(data)
        asked = self.windows or ("all" if self.stride or self.size else None)
        if reader is None or asked == "centre" or not (asked or self.alone):
            return None, ""
        video = WindowedVideo(reader, self.path, asked or "all", self.stride, self.between)
        times, duration = video.times, video.info.duration
        if asked is None:
            if len(video.steps) < video.length + video.length // 2:
                return None, ""
            if self.middle:
                return None, f"its middle alone, for {self.middle}; windows=all explains all of it"
        extent = extent_text(float(times[0]), float(times[-1]), duration)
        more = "; windows=centre explains the middle alone" if asked is None else ""
        return video, f"{extent} in {windows_text(video)}{more}"


def part_of(
    config: Mapping[str, Any], measures: Mapping[str, Measure], file: Path, alone: bool
) -> VideoPart:
    """What the settings ask of a file."""
    return VideoPart(
        file,
        config["windows"],
        config["stride"],
        (config["start"], config["end"]),
        config["size"],
        alone,
        middle_reason(config, measures),
    )


def middle_reason(config: Mapping[str, Any], measures: Mapping[str, Measure]) -> str:
    """Why settings are about one clip; "" if they are not."""
    single = [name for name, each in measures.items() if "truth" not in each.needs]
    if single:
        return f"measure={','.join(single)} is of single clips"
    if config["contrast"] is not None and config["target"] is None:
        return "contrast= needs target= over a whole video"
    return ""


def check_part(config: Mapping[str, Any], measures: Mapping[str, Measure]) -> None:
    """Whether `windows`, `stride`, `start`, `end` and `size` make sense.

    Raises:
        ConfigError: one does not, or what is asked beside is of single clips.
    """
    windows, stride, size = (config[key] for key in ("windows", "stride", "size"))
    given = [f"{k}={config[k]}" for k in ("windows", "stride", "start", "end", "size")
             if config[k] is not None]  # fmt: skip
    if given and config["video"] is None:
        raise ConfigError(f"{given[0]} is for a video file; add video=FILE, or leave it out")
    asked = "all" if windows is None else windows
    check_windows(asked, stride, (config["start"], config["end"]))
    if size not in (None, "original"):
        raise ConfigError(f"size={size} must be original, or null")
    if size is not None and windows == "centre":
        raise ConfigError("size=original is of a whole video; leave it out, or set windows=all")
    reason = middle_reason(config, measures)
    several = windows not in (None, "centre") or stride is not None or size is not None
    if several and reason:
        raise ConfigError(f"{reason}; set windows=centre, or leave it out")


def check_readable(config: Mapping[str, Any], data: object) -> None:
    """Whether the data module can go through a video, where that is asked for.

    Raises:
        ConfigError: it reads a video as one clip.
    """
    asked = [f"{k}={config[k]}" for k in ("windows", "stride", "start", "end", "size")
             if config[k] not in (None, "centre")]  # fmt: skip
    if asked and windows_reader(data) is None:
        raise ConfigError(
            f"{asked[0]} cannot be done: {type(data).__name__} reads a video as one clip; leave it "
            "out"
        )


def shorter_than(results: Sequence[Mapping[str, Any]]) -> int:
    """Of how many clips, by their rows of scores.csv, much of the video was left out."""
    clips = {row["path"]: row for row in results if row.get("duration_s")}
    return sum(
        float(row["duration_s"]) >= 1.5 * (float(row["end_s"]) - float(row["start_s"])) > 0
        for row in clips.values()
    )
