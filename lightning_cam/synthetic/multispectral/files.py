"""Writing the sequences into a folder, in the layout of the Multispectral Action Dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from lightning_cam.data.core.arrays import Array
from lightning_cam.data.core.ground_truth import Truth
from lightning_cam.files import write_text
from lightning_cam.synthetic.images import write_images
from lightning_cam.synthetic.manifest import (
    check_ranges,
    chosen_names,
    ends_and_middle,
    manifest_of,
)
from lightning_cam.synthetic.multispectral import painting
from lightning_cam.synthetic.multispectral.appearance import (
    CAMERA_NUMBERS,
    appearance_of,
    registration,
)
from lightning_cam.synthetic.multispectral.motions import (
    ACTIONS,
    FPS,
    FRAMES,
    Performance,
    evidence,
    perform,
)
from lightning_cam.synthetic.rendering import render_once

REVISION = 2
FOLDER = "SOIB"
SPECTRUM_FOLDERS = ("IR", "TV")
# Fast, and smaller than with long searches: noise does not repeat.
_PNG = (
    cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY,
)  # fmt: skip


class SequenceKey(NamedTuple):
    """Which sequence: index of its action; actor, camera and repetition, these from 1."""

    action: int
    actor: int
    camera: int
    repetition: int

    @property
    def name(self) -> str:
        """Its folder below that of the spectrum."""
        of = f"a{self.actor:02d}_c{self.camera}_r{self.repetition}"
        return f"{ACTIONS[self.action]}/{of}"


class DrawnSequence(NamedTuple):
    """A sequence in both spectra, and what happens in it."""

    ir: painting.PaintedSequence
    tv: painting.PaintedSequence
    scene: Performance

    @property
    def frames(self) -> tuple[Array, Array]:
        """The images of both."""
        return self.ir.frames, self.tv.frames

    def truth(self, action: str, spectrum: str) -> Truth:
        """Ground truth of "ir", "tv", or "irtv": the visible image with both spectra's evidence.

        Its mask is what carries evidence of the action there, which may be nothing at all.
        """
        parts = (self.ir if spectrum == "ir" else self.tv).parts
        mask = np.zeros_like(parts["body"])
        for name in evidence(action, spectrum):
            mask |= parts[name]
        scene = self.scene
        return Truth(mask, scene.onset, scene.offset, scene.state, parts)


def draw_sequence(key: SequenceKey, seed: int = 0, scale: int = 1) -> DrawnSequence:
    """Draw a sequence. It depends on the arguments alone, whatever else is drawn."""
    return draw_sequence_from(np.random.default_rng([seed, *key]), key, seed, scale)


def draw_sequence_from(
    rng: np.random.Generator, key: SequenceKey, seed: int = 0, scale: int = 1
) -> DrawnSequence:
    """Draw a sequence from the given random numbers; `seed` is of how actor and room look.

    Sequences of two actions from equal generators are equal, but for the frames of the interval.
    """
    scene = perform(rng, ACTIONS[key.action])
    person = appearance_of(seed, key.actor, key.camera, scale)
    return DrawnSequence(*painting.paint_spectra(person, scene, key.camera, rng, scale), scene)


def render_multispectral(
    root: str | Path,
    *,
    actors: int = 10,
    repetitions: int = 2,
    actions: Sequence[str] | None = None,
    seed: int = 0,
    scale: int = 1,
    processes: int | None = None,
) -> Path:
    """Render the data set into `root` unless it is there already.

    Writes `SOIB/{IR,TV}/<action>/a<NN>_c<N>_r<N>/%04d.png` (40 images at 12.5 fps, infrared in
    one channel of 8 bits), `SOIB/file_lists/{IR,TV}_{train,test}.txt`, `registration.json` (camera
    to the matrix that maps infrared to visible pixels) and, for each of IR, TV and both fused
    (IRTV), `ground_truth/<spectrum>/<action>/a<NN>_c<N>_r<N>.npz`. The last fifth of the actors is
    the test part. Each sequence depends on the seed and its name only, so a subset is rendered as
    in the whole set.

    Args:
        root: folder of the data set.
        actors: how many there are.
        repetitions: of each action by each actor before each of the two cameras.
        actions: some of `ACTIONS`; None for all.
        seed: of all randomness.
        scale: factor of the image sizes 80x60 (infrared) and 120x68 (visible).
        processes: worker processes; None for one per CPU.

    Raises:
        DataError: an argument is out of its range, or `root` cannot be used.
    """
    names = sorted(chosen_names("action", actions, ACTIONS))
    check_ranges(
        actors=(actors, range(3, 100)),
        repetitions=(repetitions, range(1, 10)),
        scale=(scale, range(1, 9)),
    )
    keys = _keys(names, actors, repetitions)
    settings = {
        "seed": seed,
        "scale": scale,
        "actors": actors,
        "repetitions": repetitions,
        "actions": names,
        "fps": FPS,
    }
    drawn = {key.name: draw_sequence(key, seed, scale).frames for key in ends_and_middle(keys)}
    manifest = manifest_of("synthetic_multispectral", REVISION, settings, drawn)
    write = partial(_write, manifest=manifest)
    return render_once(root, manifest, [None, *keys], write, _files, processes=processes)


def _keys(names: Sequence[str], actors: int, repetitions: int) -> list[SequenceKey]:
    """All sequences, those of one actor before one camera together: their look is drawn once."""
    return [
        SequenceKey(ACTIONS.index(name), actor, camera, repetition)
        for actor in range(1, actors + 1)
        for camera in CAMERA_NUMBERS
        for name in names
        for repetition in range(1, repetitions + 1)
    ]


def _all_keys(manifest: dict[str, Any]) -> list[SequenceKey]:
    return _keys(manifest["actions"], manifest["actors"], manifest["repetitions"])


def _list(spectrum: str, part: str) -> str:
    return f"{FOLDER}/file_lists/{spectrum}_{part}.txt"


def _files(manifest: dict[str, Any]) -> Iterator[str]:
    """Relative paths of all files of a rendering."""
    yield "registration.json"
    for spectrum in SPECTRUM_FOLDERS:
        yield from (_list(spectrum, part) for part in ("train", "test"))
    for key in _all_keys(manifest):
        for spectrum in (*SPECTRUM_FOLDERS, "IRTV"):
            yield f"ground_truth/{spectrum}/{key.name}.npz"
        for spectrum in SPECTRUM_FOLDERS:
            yield from (f"{FOLDER}/{spectrum}/{key.name}/{i:04d}.png" for i in range(FRAMES))


def _write(root: Path, key: SequenceKey | None, *, manifest: dict[str, Any]) -> None:
    """Render a sequence and its ground truth; or, for None, write what names them all."""
    if key is None:
        _write_lists(root, manifest)
        return
    drawn = draw_sequence(key, manifest["seed"], manifest["scale"])
    for spectrum, sequence in (("IR", drawn.ir), ("TV", drawn.tv)):
        write_images(
            root / FOLDER / spectrum / key.name, sequence.frames, "{:04d}.png", options=_PNG
        )
    for spectrum in (*SPECTRUM_FOLDERS, "IRTV"):
        truth = drawn.truth(ACTIONS[key.action], spectrum.lower())
        truth.write(root / "ground_truth" / spectrum / f"{key.name}.npz")


def _write_lists(root: Path, manifest: dict[str, Any]) -> None:
    actors, names = manifest["actors"], manifest["actions"]
    keys = sorted(_all_keys(manifest))
    for spectrum in SPECTRUM_FOLDERS:
        for part in ("train", "test"):
            rows = "".join(
                f"{key.name} {FRAMES} {names.index(ACTIONS[key.action])}\n"
                for key in keys
                if (key.actor > actors - held_actors(actors)) == (part == "test")
            )
            write_text(root / _list(spectrum, part), rows)
    matrices = {
        f"c{camera}": registration(camera, manifest["scale"]).round(6).tolist()
        for camera in CAMERA_NUMBERS
    }
    write_text(root / "registration.json", json.dumps(matrices, indent=1) + "\n")


def held_actors(actors: int) -> int:
    """How many of the actors, the last ones, are for testing: a fifth."""
    return max(1, round(actors / 5))
