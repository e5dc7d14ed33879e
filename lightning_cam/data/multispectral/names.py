"""What the folders of the Multispectral Action Dataset are called.

Sequences are known by their *key*, the path of their folder below that of the spectrum. What a key
tells is read from its words: an actor is `a01`, `actor_1`, `person1`, `p01`, `subject1` or `s1`, a
camera `c1`, `cam1` or `camera_1`, each between `/`, `_`, `-` or the ends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lightning_cam.errors import DataError

FOLDERS = {"ir": "IR", "tv": "TV"}
_ACTOR = re.compile(r"(?<![^/_\-])(?:a|actor|p|person|s|subject)[_\-]?(\d+)(?![^/_\-])", re.I)
_CAMERA = re.compile(r"(?<![^/_\-])(?:c|cam|camera)[_\-]?(\d+)(?![^/_\-])", re.I)
_SPECTRUM = re.compile(r"(?<![^/_\-.])(?:ir|tv)(?![^/_\-.])", re.I)


@dataclass(frozen=True)
class ListedSequence:
    """A sequence of images in one spectrum, as listed."""

    spectrum: str  # "ir" or "tv"
    key: str
    label: int
    part: str
    count: int = 0  # images it should have at least
    where: str = ""  # it is listed, file and line

    @property
    def pair(self) -> str:
        """What both spectra's keys of a sequence have in common."""
        return _SPECTRUM.sub("*", self.key)

    @property
    def below(self) -> str:
        """The folder, from that of the data set."""
        return f"{FOLDERS[self.spectrum]}/{self.key}"


def actor_of(key: str) -> int | None:
    """The actor's number by a sequence's key; None where it does not tell."""
    match = _ACTOR.search(key)
    return int(match[1]) if match else None


def camera_of(key: str) -> int | None:
    """The camera's number by a sequence's key; None where it does not tell."""
    match = _CAMERA.search(key)
    return int(match[1]) if match else None


def spectrum_of(path: Path) -> str | None:
    """The spectrum of a sequence's folder by the last folder named IR or TV on its path."""
    for name in reversed(path.parts):
        if name.lower() in FOLDERS:
            return name.lower()
    return None


def partner(path: Path) -> Path:
    """The folder of the same sequence in the other spectrum.

    Raises:
        DataError: there is none.
    """
    path = path.absolute()
    spectrum = spectrum_of(path)
    if spectrum is None:
        raise DataError(
            f"{str(path)!r} is below no folder named IR or TV, so the same sequence in the other "
            "spectrum cannot be found: give .../IR/... or .../TV/... of a data set that has both"
        )
    at = max(n for n, name in enumerate(path.parts) if name.lower() in FOLDERS)
    other = "tv" if spectrum == "ir" else "ir"
    key = "/".join(path.parts[at + 1 :])
    top = Path(*path.parts[:at])
    swapped = _SPECTRUM.sub(lambda word: other.upper() if word[0].isupper() else other, key)
    for name in (swapped, key):
        folder = top / _like(path.parts[at], other) / name
        if folder.is_dir():
            return folder
    raise DataError(
        f"{str(path)!r} has no partner in the other spectrum: expected "
        f"{str(top / _like(path.parts[at], other) / key)!r}; copy it there, or use a network of "
        "one spectrum"
    )


def _like(name: str, other: str) -> str:
    return other.upper() if name.isupper() else other
