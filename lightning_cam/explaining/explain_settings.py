"""Checks of the settings of `explain.py`: one line says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_cam.data.core.composed import ARRANGEMENTS
from lightning_cam.errors import ConfigError, UnknownNameError
from lightning_cam.viz import OUTCOMES

SCALES = ("method", "all", "own")  # which maps of a clip have one colour scale
CHOSEN_CLIPS = 8  # of the data set, where nobody says how many
# The key below `explain` that stands for the methods which the checkpoint remembers.
TRAINED_METHODS = "as_trained"

# What a study says for itself or has no use for: its value otherwise, and what to set instead.
_NOT_IN_STUDIES: Mapping[str, tuple[Any, str]] = {
    "explain": ({TRAINED_METHODS: True}, " and set study.methods"),
    "clips": (CHOSEN_CLIPS, " and set study.clips"),
    "layer": (None, " and set study.methods.NAME.layer"),
    "video": (None, ""),
    "windows": (None, ""),
    "stride": (None, ""),
    "start": (None, ""),
    "end": (None, ""),
    "size": (None, ""),
    "select": (None, ""),
    "survey": (None, ""),
    "minutes": (None, ""),
    "target": (None, " and set study.target"),
    "contrast": (None, ""),
    "scale": ("method", ""),
    "layers": (None, ""),
    "fps": (8, ""),
}


def given_data(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the data that the user gives in place of what the checkpoint remembers."""
    return {k: v for k, v in config["data"].items() if k != "split" and v is not None}


def trusted(config: Mapping[str, Any]) -> list[str]:
    """What a checkpoint may name besides the package's own."""
    trust = config["trust"]
    return [trust] if isinstance(trust, str) else trust


def check_clips(clips: Any, key: str, *, names: bool = False) -> None:
    """Whether `clips` says which clips: a number of them, or their indices.

    Args:
        clips: the setting.
        key: its name.
        names: whether clips may also be named.

    Raises:
        ConfigError: it does not.
    """
    chosen = clips if isinstance(clips, list) else [clips]
    kinds = (int, str) if names else (int,)
    known = bool(chosen) and all(type(each) in kinds for each in chosen)
    if not known or (type(clips) is int and clips < 1):
        also = ", or names such as v_walk_01_*" if names else ""
        raise ConfigError(
            f"{key}={clips} must be at least 1 (so many clips), or indices such as [0,7,12]{also}"
        )


def check_fps(fps: Any, key: str) -> None:
    """Whether a video can be written with `fps` frames per second.

    Raises:
        ConfigError: it cannot.
    """
    if type(fps) not in (int, float) or not 0.1 <= fps <= 240:
        raise ConfigError(f"{key}={fps} must be a number from 0.1 to 240")


def check_explain(config: Mapping[str, Any]) -> None:
    """Whether the settings of `configs/explain.yaml` make sense before anything is read.

    Raises:
        ConfigError: one does not, or two contradict each other.
    """
    for keys, kinds, words in (
        (("ckpt", "device"), (str,), "text"),
        (("video", "layers", "out"), (str, type(None)), "text or null"),
        (("layer",), (str, int, type(None)), "the name of a layer or null"),
        (("contrast",), (str, int, type(None)), "a class by name or number"),
        (("trust",), (str, list), "packages or classes such as [my_package.MyNet]"),
        (("data",), (dict,), "a mapping"),
        (("model",), (dict, type(None)), "a mapping, or the class of your LightningModule"),
    ):
        for key in keys:
            if type(config[key]) not in kinds:
                raise ConfigError(f"{key}={config[key]} must be {words}")
    root, rate = config["data"]["root"], config["data"]["rate"]
    if not isinstance(root, (str, type(None))):
        raise ConfigError(f"data.root={root} must be text or null")
    if rate is not None and (type(rate) not in (int, float) or not rate > 0):
        raise ConfigError(f"data.rate={rate} must be a number above 0, or null")
    check_clips(config["clips"], "clips", names=True)
    check_fps(config["fps"], "fps")
    if config["scale"] not in SCALES:
        raise UnknownNameError("scale", config["scale"], SCALES)
    _check_compose(config)
    asked = asked_outcomes(config["select"])
    if asked and config["video"] is not None:
        raise ConfigError(
            f"select={','.join(asked)} needs true classes, which a video does not have; leave out "
            "video= or select="
        )


def _check_compose(config: Mapping[str, Any]) -> None:
    """Whether `compose` names an arrangement, and nothing beside it chooses clip or class."""
    kind = config["compose"]
    if kind is None:
        return
    if kind not in ARRANGEMENTS:
        raise UnknownNameError("compose", kind, ARRANGEMENTS)
    for key, why in (
        ("video", "is made of clips of the data set"),
        ("select", "takes clips of which the network is sure"),
        ("target", "explains the class of one part"),
        ("contrast", "explains the class of one part"),
    ):
        if config[key] is not None:
            raise ConfigError(f"compose={kind} {why}; leave out {key}= or compose=")


def refuse_unused(
    config: Mapping[str, Any], unused: Mapping[str, tuple[Any, str]], where: str
) -> None:
    """Refuse settings that another kind of work has no use for.

    Args:
        config: the settings.
        unused: key -> (its value where nothing is said, what to do instead).
        where: the kind of work.

    Raises:
        ConfigError: one is set.
    """
    for key, (default, instead) in unused.items():
        value = config.get(key, default)
        if value != default:
            shown = ",".join(value) if isinstance(value, dict) else value
            raise ConfigError(f"{key}={shown} says nothing in {where}; leave it out{instead}")


def check_study(config: Mapping[str, Any]) -> None:
    """Whether the settings of `configs/explain.yaml` make sense together with a study.

    Raises:
        ConfigError: one does not.
    """
    refuse_unused(config, _NOT_IN_STUDIES, "a study")
    if (config.get("model") or {}).get("name") is not None:
        raise ConfigError("a study takes checkpoints of this program only; leave out model=")
    names = config["ckpt"] if isinstance(config["ckpt"], list) else [config["ckpt"]]
    if not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"ckpt={config['ckpt']} must be a checkpoint or a list of them")
    check_explain({**config, "ckpt": names[0]})


def asked_outcomes(select: Any) -> list[str]:
    """What `select` asks for, of `viz.OUTCOMES`, each once; empty for None.

    Raises:
        ConfigError: it makes no sense.
    """
    if select is None:
        return []
    asked = [select] if isinstance(select, str) else select
    if not isinstance(asked, list) or not asked:
        raise ConfigError(
            f"select={select} must be one of {', '.join(OUTCOMES)}, or a list of them"
        )
    for kind in asked:
        if kind not in OUTCOMES:
            raise UnknownNameError("select", kind, OUTCOMES)
    return list(dict.fromkeys(asked))
