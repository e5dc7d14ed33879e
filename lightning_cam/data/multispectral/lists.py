"""Lists and folders of the Multispectral Action Dataset; see `module`.

Sequences are listed in `file_lists`; where that is absent, their folders tell action and actor.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from lightning_cam.data.core.listing import Problem
from lightning_cam.data.core.text_files import text_of
from lightning_cam.data.multispectral.names import FOLDERS, ListedSequence, actor_of
from lightning_cam.data.video.frame_folders import is_frame_folder
from lightning_cam.errors import DataError, command_line

LISTS_FOLDER = "file_lists"
LISTED_PARTS = ("train", "test")
NUM_CLASSES = 8  # of the data set, where nothing names them
_LAYOUT = (
    f"SOIB/{{IR,TV}}/<folders>/0000.png ... and SOIB/{LISTS_FOLDER}/{{IR,TV}}_{{train,test}}.txt, "
    "or SOIB/{IR,TV}/<action>/a<NN>_c<N>_r<N>/0000.png ..."
)
_ASK = (
    "ask Fraunhofer IOSB for the data (see data/README.md) and set data.root=FOLDER, or train on "
    f"synthetic data: {command_line('train', 'data=synthetic_multispectral')}"
)


def find_top(root: str | Path, spectra: Sequence[str]) -> Path:
    """The folder of the spectra's folders: `root`, or `SOIB` in it.

    Raises:
        DataError: there is no such folder, or it lacks a spectrum.
    """
    places = [Path(root, "SOIB"), Path(root)]
    for top in places:
        absent = [FOLDERS[name] for name in spectra if not (top / FOLDERS[name]).is_dir()]
        if not absent:
            return top
        if any((top / name).is_dir() for name in FOLDERS.values()):
            have = next(name for name, of in FOLDERS.items() if of not in absent)
            raise DataError(
                f"{str(top)!r} lacks the folder {absent[0]}: unpack it there, or set "
                f"data.spectrum={have}"
            )
    raise DataError(f"no multispectral data at {str(root)!r}: expected {_LAYOUT}; {_ASK}")


def read_sequences(top: Path, spectra: Sequence[str]) -> tuple[list[ListedSequence], list[Problem]]:
    """All sequences that are listed or, where there are no lists, that there are.

    Raises:
        DataError: some lists are there and others are not, or nothing is found.
    """
    paths = {
        (spectrum, part): top / LISTS_FOLDER / f"{FOLDERS[spectrum]}_{part}.txt"
        for spectrum in spectra
        for part in LISTED_PARTS
    }
    absent = [path for path in paths.values() if not path.is_file()]
    if len(absent) == len(paths):
        return _scan(top, spectra)
    if absent:
        raise DataError(f"{str(absent[0])!r} is not there: copy it beside the other lists")
    rows: dict[tuple[str, str], ListedSequence] = {}
    problems = []
    for (spectrum, part), path in paths.items():
        for where, line in _lines(path):
            row = _parse(line, spectrum, part, f"{path.name}:{where}")
            if row is None:
                why = f"{line!r} is not '<folder> <images> <label>'; mend the row"
                problems.append(Problem("row", f"{path.name}:{where}", why))
            elif (earlier := rows.get((spectrum, row.key))) is not None:
                why = f"{row.key!r} is in {earlier.where} already; remove one of the rows"
                problems.append(Problem("row", row.where, why))
            else:
                rows[spectrum, row.key] = row
    if not rows:
        raise DataError(f"the lists in {str(top / LISTS_FOLDER)!r} are empty: copy them again")
    found = list(rows.values())
    return found, problems + _unlisted(top, spectra, {(row.spectrum, row.key) for row in found})


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = text_of(path)
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def _parse(line: str, spectrum: str, part: str, where: str) -> ListedSequence | None:
    """A row; folders may begin anywhere above or below that of the spectrum, and hold blanks."""
    words = line.rsplit(maxsplit=2)
    if len(words) != 3 or not words[1].isdecimal() or not words[2].lstrip("-").isdecimal():
        return None
    parts = PurePosixPath(words[0].replace("\\", "/")).parts
    above = [n for n, name in enumerate(parts) if name.lower() == spectrum]
    key = "/".join(parts[above[-1] + 1 if above else 0 :]).lstrip("/")
    return ListedSequence(spectrum, key, int(words[2]), part, int(words[1]), where) if key else None


def _scan(top: Path, spectra: Sequence[str]) -> tuple[list[ListedSequence], list[Problem]]:
    """Sequences by their folders, of which the last fifth of the actors is for testing."""
    found = [(spectrum, key) for spectrum in spectra for key in _folders(top / FOLDERS[spectrum])]
    problems, named = [], []
    for spectrum, key in found:
        if key.count("/") == 1 and actor_of(key) is not None:
            named.append((spectrum, key))
        else:
            why = "it is not <action>/a<NN>_c<N>_r<N>, so its action or actor is not known; rename"
            problems.append(Problem("group", f"{FOLDERS[spectrum]}/{key}", why))
    if not named:
        raise DataError(f"no sequences in {str(top)!r}: expected {_LAYOUT}; {_ASK}")
    names = sorted({key.partition("/")[0] for _, key in named})
    actors = sorted({actor_of(key) or 0 for _, key in named})
    last = set(actors[-max(1, round(len(actors) / 5)) :])
    rows = [
        ListedSequence(spectrum, key, names.index(key.partition("/")[0]),
            "test" if actor_of(key) in last else "train")
        for spectrum, key in named
    ]  # fmt: skip
    return rows, problems


def _folders(folder: Path) -> list[str]:
    """Keys of the sequences below a spectrum's folder."""
    return sorted(
        Path(parent, name).relative_to(folder).as_posix()
        for parent, names, _ in os.walk(folder)
        for name in names
        if is_frame_folder(Path(parent, name))
    )


def _unlisted(top: Path, spectra: Sequence[str], listed: set[tuple[str, str]]) -> list[Problem]:
    return [
        Problem("unlisted", f"{FOLDERS[spectrum]}/{key}", "in no list; it is not used")
        for spectrum in spectra
        for key in _folders(top / FOLDERS[spectrum])
        if (spectrum, key) not in listed
    ]


def name_classes(rows: Sequence[ListedSequence], given: Path) -> list[str]:
    """Names of the labels: those in a file, else of the folders if each label has its own, else
    numbers.

    Args:
        rows: all sequences.
        given: the file, one name a line; need not be there.

    Raises:
        DataError: labels begin at 1.
    """
    lowest = min(row.label for row in rows)
    if lowest == 1:
        row = next(row for row in rows if row.label == 1)
        raise DataError(f"no sequence has label 0 ({row.where}: 1): labels must begin at 0")
    if given.is_file():
        return [line for _, line in _lines(given)]
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    for row in rows:
        votes[row.key.partition("/")[0] if "/" in row.key else ""][row.label] += 1
    label_of = {name: labels.most_common(1)[0][0] for name, labels in votes.items()}
    agree = sum(labels[label_of[name]] for name, labels in votes.items())
    if sorted(label_of.values()) == list(range(len(votes))) and agree > 0.9 * len(rows):
        return sorted(label_of, key=label_of.__getitem__)
    return [str(label) for label in range(max(NUM_CLASSES, 1 + max(label_of.values())))]
