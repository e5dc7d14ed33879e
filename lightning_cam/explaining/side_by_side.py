"""Several networks, or several questions, beside each other: the same clips on one page.

<folder>/compare.json             the settings; others do not go on here
<folder>/NAME/                    what `explain.py` writes of one network and question
<folder>/index.html, *.csv        of all of them, see `side_page`
<folder>/CLIP.mp4, CLIP.png       all maps of a clip
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_cam.errors import ConfigError, DataError, say
from lightning_cam.explaining.clip_files import file_name
from lightning_cam.explaining.clip_results import ClipResult
from lightning_cam.explaining.clip_sources import unique_titles
from lightning_cam.explaining.explain_command import explain_case, open_checkpoint
from lightning_cam.explaining.explain_run import finished_clips, left_in
from lightning_cam.explaining.explain_settings import check_explain
from lightning_cam.explaining.question import TRUE, questions
from lightning_cam.explaining.sharing import ALONE, Share
from lightning_cam.explaining.side_clips import Case
from lightning_cam.explaining.side_page import FILES, write_side_page
from lightning_cam.explaining.work_folder import work_folder
from lightning_cam.files import digest
from lightning_cam.interfaces import as_task
from lightning_cam.training.agreeing import command_name
from lightning_cam.training.runs import network_names, run_folder

_SETTINGS = "compare.json"
_PASSED_ON = ("ckpt", "out", "scale", "study")  # to each network and question as values of its own
# What chooses clips by what one network makes of them, or shows one network.
_ALONE = {
    "select": "chooses clips by what one network makes of them",
    "compose": "puts clips together by what one network makes of them",
    "layers": "lists those of one network",
}


def is_side_by_side(config: Mapping[str, Any]) -> bool:
    """Whether settings name several networks or several questions.

    Raises:
        ConfigError: the target makes no sense.
    """
    several = isinstance(config["ckpt"], (list, dict))
    return several or len(questions(config["target"])) > 1


def explain_side_by_side(
    config: Mapping[str, Any], command: str = "", share: Share = ALONE
) -> Path | None:
    """Explain the same clips with each network and question, and show them on one page.

    Args:
        config: plain, as in `configs/explain.yaml`.
        command: what was typed, for the report.
        share: which of the clips are this process's, of all networks and questions the same ones.

    Returns:
        `index.html`; None where clips are left to other processes.

    Raises:
        UserError: what the user can mend; also if not a single clip could be explained.
    """
    cases = find_cases(config)
    config = _of_middles(config)
    for case in cases:
        check_explain({**config, "ckpt": str(case.ckpt)})
    for key, why in _ALONE.items():
        if config[key] is not None:
            raise ConfigError(f"{key}={config[key]} {why}; leave it out, or name one network")
    _check_networks(config, cases)
    folder = _open(config, cases, share)
    keys: dict[Case, Sequence[str]] = {}
    instead: dict[str, str] = {}
    failed: list[DataError] = []
    for case in cases:
        say(f"{share}{case.name}:")
        question = replace(case.question, instead=instead)
        settings = {**config, "ckpt": str(case.ckpt), "out": str(folder / case.folder)}
        try:
            keys[case] = explain_case(settings, command, question, share).keys
        except DataError as error:  # of one network no clip; the page shows the others
            say(f"{case.name}: {error}")
            failed.append(error)
        else:
            if not share.of(keys[case]):
                return None
        if case.network == cases[0].network and case.question.target == TRUE:
            instead = _predicted(folder / case.folder)
    left = 0 if share.alone else sum(left_in(folder / c.folder, keys[c]) for c in keys)
    if left:
        say(f"{share}done; {left} explanations are left to others, the last shows all together")
        return None
    found = {
        case: results
        for case, of_case in keys.items()
        if (results := _results(folder / case.folder, of_case))  # else all have failed
    }
    if not found and failed:
        raise failed[0]
    if not found:  # another process says so
        return None
    settings = {"scale": config["scale"], "fps": config["fps"]}
    return write_side_page(folder, cases, found, **settings, command=command)


def _results(folder: Path, keys: Sequence[str]) -> list[ClipResult]:
    """What is known of clips, in this order; of those that could be explained."""
    done = finished_clips(folder)
    return [done[key] for key in keys if key in done]


def _of_middles(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, by which the middle of a long video is compared.

    Raises:
        ConfigError: they ask for more windows.
    """
    for key in ("stride", "size", "windows"):
        if config[key] not in (None, "centre"):
            raise ConfigError(
                f"{key}={config[key]} goes through a video by one network and question; leave it "
                "out, or name one of each"
            )
    return {**config, "windows": "centre" if config["video"] is not None else None}


def _check_networks(config: Mapping[str, Any], cases: Sequence[Case]) -> None:
    """See that each network is there and has what is asked, before the first is explained."""
    for ckpt in dict.fromkeys(case.ckpt for case in cases):
        module, _, _ = open_checkpoint({**config, "ckpt": str(ckpt)})
        model = as_task(module).explainable()
        for case in cases:
            if case.ckpt == ckpt:
                case.question.check(model)


def find_cases(config: Mapping[str, Any]) -> list[Case]:
    """The networks and questions that settings name, each with each.

    Raises:
        ConfigError: the settings make no sense.
    """
    given = config["ckpt"]
    names = given.keys() if isinstance(given, dict) else None
    paths = list(given.values()) if isinstance(given, dict) else given
    paths = paths if isinstance(paths, list) else [paths]
    if not paths or not all(isinstance(path, str) for path in paths):
        raise ConfigError(f"ckpt={given} must be a checkpoint, or several: [A,B] or {{one: A}}")
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise ConfigError("ckpt names a checkpoint twice; name each once")
    networks = list(map(str, names or network_names(list(map(Path, paths)))))
    asked = questions(config["target"], config["contrast"], several=len(paths) > 1)
    found = []
    for network, path in zip(networks, paths, strict=True):
        for question in asked:
            own = [network] * (len(paths) > 1) + [str(question)] * (len(asked) > 1)
            found.append(Case(", ".join(own) or network, "", Path(path), question, network))
    folders = unique_titles(case.name for case in found)
    return [replace(c, folder=file_name(f)) for c, f in zip(found, folders, strict=True)]


def _open(config: Mapping[str, Any], cases: Sequence[Case], share: Share) -> Path:
    """Where to write: `out`, or compare_1, compare_2, ... in the first network's run folder."""
    facts = {
        **{key: value for key, value in config.items() if key not in _PASSED_ON},
        "cases": [{"name": case.name, "sha256": digest(case.ckpt)} for case in cases],
        "about": {"scale": config["scale"]},
    }
    stem = run_folder(cases[0].ckpt) / "compare"
    by = command_name() if config["out"] is None and not share.alone else ""
    return work_folder(config["out"], stem, _SETTINGS, facts, FILES, by=by)


def _predicted(folder: Path) -> dict[str, str]:
    """The class explained of each clip without a true one: the others explain the same."""
    found = {r.entry.title: r.scores[0] for r in finished_clips(folder).values() if r.scores}
    return {title: row["target"] for title, row in found.items() if not row["label"]}
