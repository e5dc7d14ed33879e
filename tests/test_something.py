"""Something-Something: both layouts, lists as they come, classes, parts, mirroring, damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layouts import cut, encode
from torch import Tensor

from lightning_cam.data.clips.caption_templates import (
    CLASS_GROUPS,
    find_templates,
    load_groups,
    mirror_by_template,
    mirrored_template,
)
from lightning_cam.data.clips.something import SomethingSomething, split_ids
from lightning_cam.data.clips.something_lists import read_clip_list, read_labels
from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.listing import hash_order
from lightning_cam.errors import ConfigError, DataError, UnknownNameError
from lightning_cam.synthetic import something as synthetic
from lightning_cam.synthetic.something.data_module import SyntheticSomething
from lightning_cam.training.skipped_clips import SkippedClips

LEFT, RIGHT = (
    "Turning the camera left while filming something",
    ("Turning the camera right while filming something"),
)
TO_RIGHT, TO_LEFT = (
    "Pushing something from left to right",
    "Pushing something from right to left",
)
ODD = [
    "Holding something",
    "Trying but failing to attach something to something because it doesn't stick",
    "Putting something, something and something on the table",
    "Putting something; that is an odd one",
    TO_RIGHT,
    TO_LEFT,
]
PAIR = ["Opening something", "Closing something"]
IGNORE = pytest.mark.filterwarnings("ignore:no (train|val|test) clips of")
Rows = Mapping[str, Sequence[tuple[str, str]]]


def bracketed(template: str) -> str:
    return template.replace("something", "[something]").replace("Something", "[Something]")


def write_lists(
    root: Path, rows: Rows, labels: Sequence[str], version: int = 1, folder: str = ""
) -> None:
    """The four lists as the official packages have them."""
    start = root / folder / f"something-something-v{version}-"
    start.parent.mkdir(parents=True, exist_ok=True)
    for part in ("train", "validation", "test"):
        if version == 1:
            lines = [f"{i};{text}" if part != "test" else i for i, text in rows.get(part, ())]
            Path(f"{start}{part}.csv").write_text("".join(f"{line}\n" for line in lines))
        else:
            entries = [
                {"id": i, "label": text.lower(), "template": bracketed(text), "placeholders": []}
                if part != "test"
                else {"id": i}
                for i, text in rows.get(part, ())
            ]
            Path(f"{start}{part}.json").write_text(json.dumps(entries))
    if version == 1:
        Path(f"{start}labels.csv").write_text("".join(f"{label}\n" for label in labels))
    else:
        numbers = {label: str(k) for k, label in enumerate(labels)}
        Path(f"{start}labels.json").write_text(json.dumps(dict(sorted(numbers.items()))))


def lay(root: Path, rows: Rows, labels: Sequence[str], version: int = 1, folder: str = "") -> Path:
    """The lists, and nothing in the clips: enough where none is opened."""
    write_lists(root, rows, labels, version, folder)
    media = root / f"20bn-something-something-v{version}"
    media.mkdir(exist_ok=True)
    for clip_id in (clip_id for part in rows.values() for clip_id, _ in part):
        if version == 1:
            (media / clip_id).mkdir(exist_ok=True)
        else:
            (media / f"{clip_id}.webm").touch()
    return root


def rows_of(labels: Sequence[str], train: int = 20, held: int = 4, test: int = 1) -> Rows:
    """So many clips of each label; ids are numbers that do not follow the labels."""
    rows: dict[str, list[tuple[str, str]]] = {"train": [], "validation": [], "test": []}
    for part, count in (("train", train), ("validation", held), ("test", test)):
        for number in range(count):
            for k, label in enumerate(labels):
                offset = {"train": 1, "validation": 2, "test": 3}[part]
                rows[part].append((str(1000 * number + 10 * k + offset), label))
    return rows


def module(root: Path, **options: Any) -> SomethingSomething:
    options = {"resize": 32, "crop": 32, "batch_size": 4, "num_workers": 0, **options}
    return SomethingSomething(str(root), **options)


def everything(data: SomethingSomething) -> list[Clip]:
    return [*data.listing.train, *data.listing.val, *data.listing.test]


def counts(data: SomethingSomething) -> tuple[int, int, int]:
    return len(data.listing.train), len(data.listing.val), len(data.listing.test)


def images(count: int, step: int = 4) -> np.ndarray:
    """Frame k is grey of 5 + k * step, with a white square in its upper left."""
    levels = 5 + step * np.arange(count, dtype=np.uint8)
    frames = np.repeat(levels, 48 * 32 * 3).reshape(count, 32, 48, 3)
    frames[:, :8, :8] = 255
    return frames


@pytest.fixture(scope="session", params=[1, 2])
def filmed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """2 classes, (12 + 4) clips of 60, 20 or 1 frames at 12 fps in one of the layouts."""
    version = request.param
    root = tmp_path_factory.mktemp(f"v{version}")
    rows = rows_of(PAIR, 6, 2, 0)
    write_lists(root, rows, PAIR, version)
    for n, (clip_id, _) in enumerate([*rows["validation"], *rows["train"]]):
        name = f"20bn-something-something-v{version}/{clip_id}" + (".webm" if version == 2 else "")
        encode(root / name, images((60, 20, 1, 60)[n % 4]), fps=12)
    return root


@pytest.fixture
def small(filmed: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(filmed, tmp_path / "set"))


def media_of(root: Path) -> dict[str, Path]:
    return {p.stem: p for folder in root.glob("20bn-*") for p in folder.iterdir()}


# --- lists --------------------------------------------------------------------------------------


@IGNORE
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("folder", ["", "annotations", "labels"])
def test_both_layouts_as_unpacked(tmp_path: Path, version: int, folder: str) -> None:
    rows = rows_of(ODD)
    lay(tmp_path, rows, ODD, version, folder)
    for given_version in (None, version):
        data = module(tmp_path, version=given_version)
        data.setup()
        assert data.classes == ODD  # in the order of the labels file, not of the alphabet
        assert not data.problems
        assert counts(data) == (96, 12, 12)  # 8 x 12 of 120
        label = dict(rows["train"]) | dict(rows["validation"])
        for clip in everything(data):
            assert data.classes[clip.label] == label[clip.clip_id]
            end = f"20bn-something-something-v{version}/{clip.clip_id}" + ".webm" * (version == 2)
            assert clip.path == tmp_path / end
        assert {c.clip_id for c in data.listing.train} <= set(dict(rows["train"]))
        assert {c.clip_id for c in [*data.listing.val, *data.listing.test]} == set(
            dict(rows["validation"])
        )


@IGNORE
@pytest.mark.parametrize("version", [1, 2])
def test_newer_packages_have_short_names(tmp_path: Path, version: int) -> None:
    lay(tmp_path, rows_of(PAIR), PAIR, version)
    (tmp_path / "labels").mkdir()
    for path in tmp_path.glob("something-something-*"):
        path.rename(tmp_path / "labels" / path.name.rpartition("-")[2])
    assert counts(module(tmp_path)) == (32, 4, 4)


def test_csv_as_people_save_it(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    content = (
        "100218;Something falling like a feather or paper\r\n"
        "\r\n"
        "  24413 ;Putting something, something and something on the table \r\n"
        "7;Poking something so lightly that it doesn't or almost doesn't move\r\n"
        "8;a \"b\";c;'d'\r\n"
        "9;Tilting something with something on it until it falls off"
    )
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())
    rows = read_clip_list(path)
    assert [(row.where, row.clip_id, row.template) for row in rows] == [
        ("train.csv:1", "100218", "Something falling like a feather or paper"),
        ("train.csv:3", "24413", "Putting something, something and something on the table"),
        ("train.csv:4", "7", "Poking something so lightly that it doesn't or almost doesn't move"),
        ("train.csv:5", "8", "a \"b\";c;'d'"),
        ("train.csv:6", "9", "Tilting something with something on it until it falls off"),
    ]
    path.write_bytes(b"1;\r\n;Holding something\n2\n\xff\xfe;x\n")
    assert [row.clip_id for row in read_clip_list(path)] == ["", "", "", "��"]
    assert [row.clip_id for row in read_clip_list(path, labelled=False)][2] == "2"
    path.write_bytes(b"Holding something\r\n\r\nOpening something\nHolding something")
    assert read_labels(path) == ["Holding something", "Opening something"]


def test_json_as_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    entry = {
        "id": "139242",
        "label": "pushing notebook so that it falls off the table",
        "template": "Pushing [something] so that it falls off the table",
        "placeholders": ["notebook"],
    }
    wrong: list[Any] = [{"id": 5, "template": "x"}, {"id": "6"}, {"template": "x"}, "7", None]
    path.write_text(json.dumps([entry, *wrong]))
    rows = list(read_clip_list(path))
    assert (rows[0].where, rows[0].clip_id, rows[0].template) == (
        "x.json, row 1",
        "139242",
        "Pushing something so that it falls off the table",
    )
    assert [row.clip_id for row in rows[1:]] == [""] * 5
    assert [row.clip_id for row in read_clip_list(path, labelled=False)][2] == "6"
    path.write_text('{"Holding something": "10", "Opening [something]": "9"}')
    assert read_labels(path) == ["Opening something", "Holding something"]  # 9 is before 10


@pytest.mark.parametrize(
    ("version", "content", "message"),
    [
        (1, "\n\n", "holds no labels"),
        (2, "{}", "holds no labels"),
        (2, '{"Holding someth', "not JSON"),
        (2, '["Holding something"]', "no JSON dict"),
        (2, '{"Holding something": "first"}', "number"),
        (2, '{"Holding something": null}', "number"),
    ],
)
def test_labels_that_cannot_be_read(
    tmp_path: Path, version: int, content: str, message: str
) -> None:
    lay(tmp_path, rows_of(PAIR), PAIR, version)
    path = next(tmp_path.glob("*-labels.*"))
    path.write_text(content)
    with pytest.raises(DataError, match=rf"{path.name}.*{message}") as caught:
        module(tmp_path).setup()
    assert "\n" not in str(caught.value)


def test_half_a_list_is_an_error(tmp_path: Path) -> None:
    lay(tmp_path, rows_of(PAIR), PAIR, 2)
    cut(tmp_path / "something-something-v2-train.json")
    with pytest.raises(DataError, match=r"v2-train.json.*not JSON.*copy it again"):
        module(tmp_path).setup()


@pytest.mark.parametrize(("version", "content"), [(1, "\n"), (2, "[]")])
def test_an_empty_list_is_said_to_be_empty(tmp_path: Path, version: int, content: str) -> None:
    lay(tmp_path, rows_of(PAIR), PAIR, version)
    path = next(tmp_path.glob("*-train.*"))
    path.write_text(content)
    with pytest.raises(DataError, match=rf"{path.name}' is empty: copy it again"):
        module(tmp_path).setup()


@pytest.mark.parametrize("version", [None, 1, 2])
def test_an_absent_data_set_is_one_message(tmp_path: Path, version: int | None) -> None:
    for root in (tmp_path / "absent", tmp_path):
        with pytest.raises(DataError) as caught:
            module(root, version=version).setup()
        message = str(caught.value)
        assert "\n" not in message
        for n in (1, 2):
            layout = {1: "v1/<id>/00001.jpg", 2: "v2/<id>.webm"}[n]
            assert (layout in message) == (version in (None, n))
        for part in (str(root), "developer.qualcomm.com", "licence", "data.root=", "{labels,train"):
            assert part in message
        assert "-m lightning_cam train data=synthetic_something" in message


@pytest.mark.parametrize("part", ["labels", "train", "validation", "media"])
def test_what_an_incomplete_data_set_lacks_is_named(tmp_path: Path, part: str) -> None:
    lay(tmp_path, rows_of(PAIR), PAIR, 1)
    name = f"something-something-v1-{part}.csv"
    if part == "media":
        name = "20bn-something-something-v1"
        shutil.rmtree(tmp_path / name)
    else:
        (tmp_path / name).unlink()
    with pytest.raises(DataError, match=rf"not complete, it lacks {name}: expected .*v1/<id>"):
        module(tmp_path).setup()


@IGNORE
def test_two_versions_in_one_folder(tmp_path: Path) -> None:
    for version in (1, 2):
        lay(tmp_path, rows_of(PAIR, 20 + version), PAIR, version)
    with pytest.raises(DataError, match=r"both versions.*data.version=1"):
        module(tmp_path).setup()
    for version in (1, 2):
        paths = {clip.path.suffix for clip in everything(module(tmp_path, version=version))}
        assert paths == {{1: "", 2: ".webm"}[version]}


@pytest.mark.parametrize("wrong", [{"version": 3}, {"split": "9:1"}, {"rate": 0}, {"fps": 0}])
def test_impossible_settings_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=next(iter(wrong))):
        module(tmp_path, **wrong)


# --- problems -----------------------------------------------------------------------------------


@IGNORE
@pytest.mark.parametrize("version", [1, 2])
def test_every_problem_is_named(tmp_path: Path, version: int) -> None:
    rows = {part: list(members) for part, members in rows_of(PAIR).items()}
    lay(tmp_path, rows, PAIR, version)
    gone, held = rows["train"][3][0], rows["validation"][2][0]
    for clip_id in (gone, held, rows["test"][0][0]):  # the last one serves for nothing
        path = media_of(tmp_path)[clip_id]
        path.rmdir() if version == 1 else path.unlink()
    media = tmp_path / f"20bn-something-something-v{version}"
    for name in ("stray", "._hidden", ".DS_Store", "notes.txt"):
        if version == 1 and name in ("stray", "._hidden"):
            (media / name).mkdir()
        else:
            (media / (f"{name}.webm" if version == 2 and name != "notes.txt" else name)).touch()
    rows["train"] += [("999", PAIR[0]), ("998", "Juggling something"), ("", PAIR[0]), ("997", "")]
    rows["validation"] += [rows["train"][0], rows["validation"][0], ("../../etc", PAIR[0])]
    rows["test"] = [*rows["test"], rows["train"][1]]
    write_lists(tmp_path, rows, PAIR, version)
    data = module(tmp_path)
    with pytest.warns(
        UserWarning, match=r"11 problems with the data.*lightning_cam check data=NAME"
    ):
        data.setup()
    start, ext = f"something-something-v{version}", {1: "csv", 2: "json"}[version]
    where = (f"{start}-{{}}.{ext}" + {1: ":{}", 2: ", row {}"}[version]).format
    clip = (f"{media.name}/{{}}" + {1: "", 2: ".webm"}[version]).format
    assert sorted((problem.kind, problem.what) for problem in data.problems) == sorted(
        [
            ("missing", clip(gone)),
            ("missing", clip(held)),
            ("missing", clip("999")),
            ("missing", clip("../../etc")),  # never a path out of the folder
            ("unlisted", clip("stray")),
            ("label", where("train", 42)),
            ("row", where("train", 43)),
            ("row", where("train", 44)),
            ("row", where("validation", 9)),
            ("row", where("validation", 10)),
            ("row", where("test", 3)),
        ]
    )
    assert all("\n" not in str(problem) for problem in data.problems)
    (label,) = (problem for problem in data.problems if problem.kind == "label")
    assert "'Juggling something'" in label.why and "labels" in label.why
    ids = [clip.clip_id for clip in everything(data)]
    assert len(set(ids)) == len(ids)
    assert not {gone, held, "999", "998", "997", "../../etc"} & set(ids)


@IGNORE
def test_a_damaged_copy_does_not_move_clips_between_parts(tmp_path: Path) -> None:
    """A clip's part depends on the lists alone."""
    rows = rows_of(PAIR)
    before = module(lay(tmp_path / "whole", rows, PAIR)).listing
    lay(tmp_path / "part", rows, PAIR)
    for clip_id, _ in [*rows["train"][:5], *rows["validation"][:3]]:
        (tmp_path / "part/20bn-something-something-v1" / clip_id).rmdir()
    after = module(tmp_path / "part").listing
    assert len(after.problems) == 8
    for part in ("train", "val", "test"):
        ids = [clip.clip_id for clip in getattr(before, part)]
        left = [clip.clip_id for clip in getattr(after, part)]
        assert left == [i for i in ids if (after_path(tmp_path, i)).is_dir()]


def after_path(root: Path, clip_id: str) -> Path:
    return root / "part/20bn-something-something-v1" / clip_id


@IGNORE
def test_an_empty_part_is_an_error(tmp_path: Path) -> None:
    rows = rows_of(PAIR, 4, 2)
    lay(tmp_path, rows, PAIR)
    for clip_id, _ in rows["validation"]:
        (tmp_path / "20bn-something-something-v1" / clip_id).rmdir()
    with pytest.raises(DataError, match=r"no clips for validation in .*4 problems.*not there"):
        module(tmp_path).setup()
    write_lists(tmp_path, {**rows, "validation": []}, PAIR)
    with pytest.raises(DataError, match=r"no clips in .*too few; set data\.root="):
        module(tmp_path).setup()  # nothing to evaluate, so the training has 8 x nothing


def test_classes_trade_no_clips_between_parts(tmp_path: Path) -> None:
    labels = [*PAIR, "Holding something", "Dropping something into something"]
    root = lay(tmp_path, rows_of(labels, 40, 8), labels)
    whole = module(root, split="official").listing
    for chosen in (labels[:1], labels[1:3], labels[::-1]):
        for split in ("8:1:1", "official"):
            some = module(root, classes=chosen, split=split).listing
            for part in ("train", "val", "test"):
                names = {whole.classes[c.label]: [] for c in getattr(whole, part)}
                for clip in getattr(whole, part):
                    names[whole.classes[clip.label]].append(clip.clip_id)
                want = {i for name in chosen for i in names.get(name, ())}
                have = [clip.clip_id for clip in getattr(some, part)]
                if part == "train" and split == "8:1:1":
                    assert len(have) == min(8 * len(some.val), len(want))
                    assert have == hash_order(want)[: len(have)]
                else:
                    assert set(have) == want


def test_what_is_missing_names_its_class(tmp_path: Path) -> None:
    rows = rows_of(PAIR)
    root = lay(tmp_path, rows, PAIR)
    gone = [clip_id for clip_id, text in rows["train"] if text == PAIR[1]][:3]
    for clip_id in gone:
        (root / "20bn-something-something-v1" / clip_id).rmdir()
    found = module(root).listing.problems
    assert [(p.kind, p.label) for p in found] == [("missing", PAIR[1])] * 3


# --- parts --------------------------------------------------------------------------------------

IDS = st.sets(st.integers(1, 220_847).map(str), max_size=60)


@given(train=IDS, held=IDS, split=st.sampled_from(["8:1:1", "official"]))
def test_the_recipe(train: set[str], held: set[str], split: str) -> None:
    held -= train
    parts = split_ids(sorted(train), sorted(held), split)
    assert parts == split_ids(sorted(train, reverse=True), list(held), split)  # order is nothing
    first, val, test = map(set, parts)
    assert [len(part) for part in parts] == [len(first), len(val), len(test)]  # none twice
    assert first <= train
    assert val | test == held
    assert not val & test
    assert 0 <= len(test) - len(val) <= 1
    assert len(first) == (min(8 * len(val), len(train)) if split == "8:1:1" else len(train))


@given(train=IDS, held=IDS, new=st.integers(300_000, 999_999).map(str))
def test_adding_a_clip_changes_little(train: set[str], held: set[str], new: str) -> None:
    held -= train
    before = [set(part) for part in split_ids(train, held)]
    more_train = [set(part) for part in split_ids(train | {new}, held)]
    assert more_train[1:] == before[1:]
    assert len(before[0] - more_train[0]) <= 1
    assert more_train[0] - before[0] <= {new}
    more_held = [set(part) for part in split_ids(train, held | {new})]
    assert more_held[0] >= before[0]  # and at most eight more
    assert len(more_held[0] - before[0]) <= 8
    for part in (1, 2):
        assert len(before[part] ^ more_held[part]) <= 2


def test_the_recipe_is_the_same_everywhere() -> None:
    """Written down: it depends on no hash seed, platform or version."""
    assert hash_order(map(str, range(1, 11))) == ORDER
    train, val, test = split_ids(map(str, range(100, 120)), map(str, range(1, 6)))
    assert (val, test) == (["4", "3"], ["1", "2", "5"])
    assert train[:4] == TRAIN
    assert len(train) == 16


ORDER = ["9", "8", "10", "4", "3", "1", "7", "2", "6", "5"]
TRAIN = ["109", "105", "101", "115"]


def test_the_recipe_at_the_official_sizes() -> None:
    for train, held, want in (
        (86_017, 11_522, (46_088, 5_761, 5_761)),
        (168_913, 24_777, (99_104, 12_388, 12_389)),
    ):
        ids = [str(i) for i in range(train + held)]
        parts = split_ids(ids[:train], ids[train:])
        assert tuple(map(len, parts)) == want


@IGNORE
def test_only_clips_of_the_classes_count(tmp_path: Path) -> None:
    labels = [*PAIR, "Holding something", "Dropping something into something"]
    root = lay(tmp_path, rows_of(labels, 40, 4), labels)
    data = module(root, class_groups={"door": PAIR})
    assert data.classes == ["door"]
    assert counts(data) == (32, 4, 4)  # 8 halves of the 8 clips of two templates, of 80
    assert not data.listing.problems
    assert counts(module(root, class_groups={"door": PAIR}, split="official")) == (80, 4, 4)
    assert counts(module(root, split="official")) == (160, 8, 8)


# --- classes ------------------------------------------------------------------------------------

PROVEN = """
Putting something
Dropping something
Tearing something
Stacking number of something
Uncovering something
Opening something
Closing something
Holding something
Picking something up
Pushing something so that it slightly moves
Pushing something with something
Pretending to take something from somewhere
Approaching something with your camera
Turning something upside down
Throwing something against something
Turning the camera downwards while filming something
Turning the camera left while filming something
Turning the camera right while filming something
""".strip().splitlines()


def test_the_forty_classes() -> None:
    groups = load_groups("something_40_candidate")
    assert groups is not None
    assert len(groups) == 40
    assert list(groups)[:18] == PROVEN
    assert groups["Putting something"] == ["Putting..."]
    assert all(entries == [name] for name, entries in list(groups.items())[3:])
    singles = [name for name in groups if name not in PROVEN[:3]]
    putting = ["Putting something into something", "Putting something upright on the table"]
    others = ["Dropping something into something", "Tearing something just a little bit"]
    pretending = "Pretending to put something on a surface"
    classes, problems = find_templates([*singles, *putting, *others, pretending], groups)
    assert not problems
    assert list(classes) == list(groups)
    assert classes["Putting something"] == putting
    used = [template for templates in classes.values() for template in templates]
    assert sorted(used) == sorted([*singles, *putting, *others])
    text = (CLASS_GROUPS / "something_40_candidate.yaml").read_text()
    assert text.startswith("# CANDIDATE")
    # The counts of version 2 are in order, and none of the excluded ones would be before.
    numbers = [int(line.rpartition("# ")[2].replace(",", "")) for line in text.splitlines()[-22:]]
    assert numbers == sorted(numbers, reverse=True)
    assert (numbers[0], numbers[-1]) == (3750, 1969)


@IGNORE
def test_groups_from_a_file_or_in_place(tmp_path: Path) -> None:
    labels = [*ODD, *PAIR]
    root = lay(tmp_path / "data", rows_of(labels), labels)
    path = tmp_path / "my groups.yaml"
    path.write_text(
        "lid:\n  - Opening [something]\n  - Closing something\n"
        "Putting: [Putting...]\nHolding something:\n"
    )
    want = ["lid", "Putting", "Holding something"]
    in_place = {"lid": PAIR, "Putting": ["Putting..."], "Holding something": None}
    for groups in (str(path), in_place):
        data = module(root, class_groups=groups)
        assert data.classes == want
        assert data.templates["Putting"] == ODD[2:4]
        label = {i: text for part in ("train", "validation") for i, text in rows_of(labels)[part]}
        for clip in everything(data):
            assert label[clip.clip_id] in data.templates[want[clip.label]]


@IGNORE
def test_a_template_the_labels_lack_is_a_problem(tmp_path: Path) -> None:
    root = lay(tmp_path, rows_of(PAIR), PAIR)
    data = module(root, class_groups={"lid": [*PAIR, "Lifting something", "Uncovering..."]})
    assert [(p.kind, p.what) for p in data.listing.problems] == [("label", "class 'lid'")] * 2
    whys = [problem.why for problem in data.listing.problems]
    assert "'Lifting something'" in whys[0] and "begins with 'Uncovering'" in whys[1]
    assert counts(data) == (32, 4, 4)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": ["Lifting..."], "b": PAIR}, r"class 'a' .*no clips.*'Lifting\.\.\.'.*2 labels"),
        ({"a": PAIR, "b": ["Opening..."]}, r"'Opening something' in 'a' and in 'b'"),
        ({"a": "Opening something"}, "class 'a' needs a list"),
        ({"a": [1]}, "class 'a' needs a list"),
        ({1: PAIR}, "class 1 needs a list"),
        ({}, "must map names"),
        ("something_40_candidat", "nearest: something_40_candidate"),
        ("no/such/file.yaml", "no class_groups 'no/such/file.yaml'"),
    ],
)
def test_impossible_groups_are_refused(tmp_path: Path, groups: Any, message: str) -> None:
    root = lay(tmp_path, rows_of(PAIR), PAIR)
    with pytest.raises((ConfigError, UnknownNameError), match=message) as caught:
        module(root, class_groups=groups).setup()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["a: [b", "- a\n- b\n", "text", "", "!!python/object:x {}"])
def test_a_file_that_is_no_list_of_groups(tmp_path: Path, content: str) -> None:
    path = tmp_path / "groups.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"groups\.yaml") as caught:
        load_groups(str(path))
    assert "\n" not in str(caught.value)


@IGNORE
def test_the_order_of_classes_is_the_checkpoint_s(tmp_path: Path) -> None:
    root = lay(tmp_path, rows_of(ODD), ODD)
    assert module(root).classes == module(root).classes == ODD
    given_order = sorted(ODD)
    data = module(root, classes=given_order)
    data.setup()
    assert data.classes == given_order
    label = {i: text for part in ("train", "validation") for i, text in rows_of(ODD)[part]}
    assert all(given_order[clip.label] == label[clip.clip_id] for clip in everything(data))
    assert data.train_set.mirror[given_order.index(TO_LEFT)] == given_order.index(TO_RIGHT)
    with pytest.raises(UnknownNameError, match="no class 'Juggling something'"):
        module(root, classes=[*ODD[:3], "Juggling something"]).setup()
    with pytest.raises(UnknownNameError, match="no class 'Juggling something'"):
        _ = module(root, classes=[*ODD[:3], "Juggling something"]).train_set
    assert module(tmp_path / "absent", classes=ODD).classes == ODD  # without any data
    assert counts(module(root, classes=ODD[:2])) == (40, 5, 3)  # as the halves of all have them


# --- mirroring ----------------------------------------------------------------------------------

WORDS = st.lists(
    st.sampled_from(["left", "right", "from", "to", "out", "upright", "Pushing", "camera", "it,"])
).map(" ".join)


@given(WORDS)
def test_mirroring_twice_is_the_identity(template: str) -> None:
    assert mirrored_template(mirrored_template(template)).replace("out", "") in (
        template.replace("out", ""),
        mirrored_template(template).replace("out", ""),  # "left out" becomes "left out"
    )


@given(st.lists(WORDS, unique=True, max_size=8), st.randoms(use_true_random=False))
def test_mirrored_labels_come_in_pairs(names: list[str], random: Any) -> None:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(f"class {random.randrange(4)}", []).append(name)
    classes = list(groups)
    images = mirror_by_template(classes, groups)
    for label, image in enumerate(images):
        if image is not None:
            assert {mirrored_template(t) for t in groups[classes[label]]} == set(
                groups[classes[image]]
            )


def test_mirrored_templates() -> None:
    for one, other in ((LEFT, RIGHT), (TO_LEFT, TO_RIGHT)):
        assert (mirrored_template(one), mirrored_template(other)) == (other, one)
    for same in (
        "Plugging something into something but pulling it right out as you remove your hand",
        "Laying something on the table on its side, not upright",
        "Turning the camera upwards while filming something",
        "Holding something",
    ):
        assert mirrored_template(same) == same


@pytest.mark.parametrize(
    ("groups", "want"),
    [
        ({LEFT: [LEFT], "Holding": ["Holding"], RIGHT: [RIGHT]}, [2, 1, 0]),
        ({LEFT: [LEFT], TO_LEFT: [TO_LEFT], RIGHT: [RIGHT]}, [2, None, 0]),
        ({"turning": [LEFT, RIGHT], "other": ["Opening", "Closing"]}, [0, 1]),
        ({"left": [LEFT, TO_LEFT], "right": [RIGHT, TO_RIGHT]}, [1, 0]),
        ({"left": [LEFT, TO_LEFT], "right": [RIGHT]}, [None, None]),
        ({"left": [LEFT, "Opening"], "right": [RIGHT, "Opening"]}, [1, 0]),
    ],
)
def test_classes_of_mirrored_clips(groups: dict[str, list[str]], want: list[int | None]) -> None:
    assert mirror_by_template(list(groups), groups) == want


@IGNORE
def test_pairs_that_are_given_replace_the_names(tmp_path: Path) -> None:
    labels = [LEFT, RIGHT, TO_LEFT, *PAIR]
    root = lay(tmp_path, rows_of(labels), labels)
    assert module(root).train_set.mirror == [1, 0, None, 3, 4]
    assert module(root, hflip_pairs=[PAIR]).train_set.mirror == [0, 1, 2, 4, 3]
    assert module(root, hflip_pairs=[]).train_set.mirror == [0, 1, 2, 3, 4]
    forty = {LEFT: [LEFT], "lid": [*PAIR, "Opening..."]}
    assert module(root, class_groups=forty).train_set.mirror == [None, 1]


@IGNORE
@pytest.mark.filterwarnings("ignore:.*problems with the data")
def test_a_mirrored_clip_gets_the_mirrored_label(tmp_path: Path) -> None:
    labels = [LEFT, RIGHT, TO_LEFT]
    root = tmp_path / "set"
    rows = rows_of(labels, 8, 2, 0)
    write_lists(root, rows, labels)
    for clip_id, _ in [*rows["train"], *rows["validation"]]:
        encode(root / "20bn-something-something-v1" / clip_id, images(6, 0))
    options = {"resize": 32, "crop": 32, "contrast": 0, "offset": 0, "split": "official"}
    for hflip, expected in ((1.0, [1, 0, 2]), (0.0, [0, 1, 2])):
        data = module(root, hflip=hflip, **options)
        for index, clip in enumerate(data.listing.train):
            # As wide as the frame, so that the white corner is seen: crops move, so several.
            corners = [data.train_set[epoch, index] for epoch in range(8)]
            assert {int(sample["label"]) for sample in corners} == {expected[clip.label]}
            video = torch.stack([sample["video"] for sample in corners])  # (8, 3, T, H, W)
            left, right = (video[:, 0, 0, 2, x].max() for x in (0, -1))
            flipped = hflip == 1 and clip.label < 2
            assert (right > left) == flipped
            assert (left > 1) != flipped


# --- clips --------------------------------------------------------------------------------------


@IGNORE
def test_batches(filmed: Path) -> None:
    data = module(filmed)
    assert counts(data) == (12, 2, 2)
    data.setup()
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())))
    shapes = {name: tuple(x.shape) for name, x in batch.items() if isinstance(x, Tensor)}
    assert shapes == {
        "video": (4, 3, 16, 32, 32), "label": (4,), "valid": (4, 16), "frame_idx": (4, 16),
        "time_s": (4, 16), "duration_s": (4,), "black": (4, 3),
    }  # fmt: skip
    assert batch["error"] == [""] * 4
    samples = {
        clip_id: sample
        for part in (data.val_set, data.test_set)
        for sample in (part[i] for i in range(len(part)))
        if (clip_id := sample["clip_id"])
    }
    long, short, one, _ = (samples[i] for i, _ in rows_of(PAIR, 6, 2, 0)["validation"])
    # 60 frames at 12 fps are 20 steps of 4 fps; the centred 16 begin with step 2.
    assert long["frame_idx"].tolist() == list(range(6, 54, 3))
    assert long["time_s"].tolist() == pytest.approx([k / 4 for k in range(2, 18)], abs=2e-3)
    assert long["valid"].all()
    assert short["frame_idx"].tolist() == [*range(0, 20, 3), *[18] * 9]
    assert short["valid"].tolist() == [True] * 7 + [False] * 9
    assert (short["video"][:, 7:] == short["video"][:, 6:7]).all()
    assert one["valid"].tolist() == [True] + [False] * 15
    assert one["frame_idx"].tolist() == [0] * 16
    for sample in samples.values():  # the very frames: their grey tells their number
        grey = data.to_frames(sample["video"][None])[0][:, 12:30, 12:30].mean((1, 2, 3))
        assert grey == pytest.approx(5 + 4 * sample["frame_idx"].numpy(), abs=2.5)
    path = media_of(filmed)[long["clip_id"]]
    assert (data.read(path)["video"] == long["video"]).all()
    assert int(data.read(path)["label"]) == -1


@IGNORE
def test_the_paper_s_setting(filmed: Path) -> None:
    data = SomethingSomething(str(filmed), num_workers=0)
    sample = data.val_set[0]
    assert sample["video"].shape == (3, 16, 224, 224)
    assert data.mean == [0.485, 0.456, 0.406]
    assert (data.reader.fps, data.reader.rate) == (4, 12)
    assert data.reader.transform.resize == 256


def test_cached_clips_are_the_same(filmed: Path) -> None:
    data, cached = module(filmed), module(filmed, cache=True)
    for key in ((0, 1), (3, 1), (3, 5)):
        for _ in range(2):
            assert (data.train_set[key]["video"] == cached.train_set[key]["video"]).all()


# --- damage -------------------------------------------------------------------------------------


class Nothing(pl.LightningModule):
    """Trains nothing to speak of and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.labels: list[int] = []

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        self.labels += batch["label"].tolist()
        logits = self.layer(batch["video"].mean((2, 3, 4)))
        return torch.nn.functional.cross_entropy(logits, batch["label"])

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        self.labels += batch["label"].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@IGNORE
@pytest.mark.filterwarnings("ignore:skipped:", "ignore:.*problems with the data")
def test_training_survives_damage(small: Path, tmp_path: Path) -> None:
    (folder,) = small.glob("20bn*")
    version = int(folder.name[-1])
    rows = {part: list(members) for part, members in rows_of(PAIR, 6, 2, 0).items()}
    held = module(small).listing.val[0].clip_id
    rows["train"] += [("777777", PAIR[0]), ("888888", "Juggling something")]
    write_lists(small, rows, PAIR, version)
    media = media_of(small)
    gone, broken, _, halved = (clip_id for clip_id, _ in rows["train"][:4])
    if version == 1:
        shutil.rmtree(media[gone])
        for clip_id in (broken, held):
            shutil.rmtree(media[clip_id])
            media[clip_id].mkdir()  # an empty folder
        cut(media[halved] / "00001.jpg")
        unreadable = {broken, held, halved}
    else:
        media[gone].unlink()
        media[broken].write_bytes(media[broken].read_bytes()[:100])
        media[held].write_bytes(b"")
        cut(media[halved])  # can be read, but is shorter now
        unreadable = {broken, held}
    data = module(small)
    data.setup()
    assert sorted(problem.kind for problem in data.problems) == ["label", "missing", "missing"]
    skipped, model = SkippedClips(), Nothing()
    trainer = pl.Trainer(
        default_root_dir=tmp_path, max_epochs=2, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        callbacks=[skipped],
    )  # fmt: skip
    trainer.fit(model, data)
    assert {Path(error.split("'")[1]).stem for error in skipped.counts} == unreadable
    # Once in each epoch, or more often: a clip before it in the list may have been replaced by it.
    assert all(count >= 2 for count in skipped.counts.values())
    assert {-1, 0, 1} == set(model.labels)


# --- synthetic ----------------------------------------------------------------------------------

SOME = [
    "Pushing something from left to right",
    "Pulling something from right to left",
    "Pushing something from right to left",
]


@pytest.fixture(scope="session", params=[1, 2])
def made(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Any:
    """Three classes of eight clips by eight workers: 6 for training, 1 + 1 for the rest."""
    root = tmp_path_factory.mktemp("made") / "set"
    settings = {"clips": 8, "workers": 8, "version": request.param, "templates": SOME, "height": 48}
    data = SyntheticSomething(str(root), resize=40, crop=32, **settings)
    assert data.classes == SOME  # before there is anything
    data.prepare_data()
    return data


def workers_of(data: SyntheticSomething) -> dict[str, int]:
    lines = Path(data.root, "ground_truth", "workers.csv").read_text().splitlines()
    return {clip_id: int(worker) for clip_id, worker in (line.split(";") for line in lines)}


def test_synthetic_parts_are_by_worker(made: SyntheticSomething) -> None:
    made.setup()
    assert not made.problems
    worker = workers_of(made)
    seen = {
        part: {worker[clip.clip_id] for clip in getattr(made.listing, part)}
        for part in ("train", "val", "test")
    }
    assert seen == {"train": {1, 2, 3, 4, 5, 6}, "val": {7}, "test": {8}}
    assert counts(made) == (18, 3, 3)
    assert made.train_set.mirror == [2, None, 0]
    with pytest.raises(TypeError, match="split"):
        SyntheticSomething("x", split="official")


def test_synthetic_truth(made: SyntheticSomething) -> None:
    assert "mask" not in made.train_set[0, 0]
    sample = made.val_set[0]
    for name in ("mask", "mask/hand", "mask/object"):
        assert sample[name].shape == (16, 32, 32)
        assert sample[name].any()
    assert (sample["mask"] == (sample["mask/hand"] | sample["mask/object"])).float().mean() > 0.98
    assert 2 <= int(sample["action"].sum()) <= 16
    assert sample["valid"].all()
    assert (np.diff(sample["frame_idx"]) == 3).all()


def test_synthetic_survives_damage(made: SyntheticSomething, tmp_path: Path) -> None:
    root = Path(shutil.copytree(made.root, tmp_path / "set"))
    (path,) = root.glob("*-validation.*")
    if path.suffix == ".csv":
        path.write_text(path.read_text() + f"999999;{SOME[0]}\n")
    else:
        path.write_text(
            json.dumps([*json.loads(path.read_text()), {"id": "999999", "template": SOME[0]}])
        )
    data = SyntheticSomething(
        str(root), templates=SOME, version=made.layout.version, resize=40, crop=32
    )
    assert [(p.kind, p.what.split("/")[1][:6]) for p in data.listing.problems] == [
        ("missing", "999999")
    ]
    assert counts(data) == (18, 3, 3)
    Path(root, "ground_truth", "workers.csv").unlink()
    with pytest.raises(DataError, match=r"workers\.csv"):
        _ = SyntheticSomething(str(root), templates=SOME, version=made.layout.version).listing


@pytest.mark.parametrize(
    ("workers", "want"),
    [(24, [{*range(1, 20)}, {20, 21}, {22, 23, 24}]), (2, [{1}, {2}, {2}])],
)
def test_workers_as_documented(tmp_path: Path, workers: int, want: list[set[int]]) -> None:
    """And where there is one for both validation and testing, its clips are halved."""
    clips = max(workers, 4)
    data = SyntheticSomething(
        str(tmp_path / "set"), templates=SOME[:1], clips=clips, workers=workers, height=48
    )
    data.prepare_data()
    worker = workers_of(data)
    parts = [getattr(data.listing, part) for part in ("train", "val", "test")]
    assert [{worker[clip.clip_id] for clip in part} for part in parts] == want
    assert sum(counts(data)) == clips
    assert not data.listing.problems


def test_synthetic_groups(made: SyntheticSomething) -> None:
    groups = {"pushing": ["Pushing..."], "pulling": ["Pulling..."]}
    data = SyntheticSomething(
        made.root, templates=SOME, version=made.layout.version, class_groups=groups, cache=False
    )
    assert data.classes == ["pushing", "pulling"]
    assert data.train_set.mirror == [0, None]


def test_synthetic_something_is_something_with_other_defaults() -> None:
    data = SyntheticSomething("/nonexistent", batch_size=3)
    assert data.classes == list(synthetic.CLASSES)
    assert (data.batch_size, data.cache, data.num_workers) == (3, True, 0)
    assert data.mean == [0.45] * 3 and data.std == [0.225] * 3
    assert SyntheticSomething("x", classes=["b", "a"]).classes == ["b", "a"]
    for wrong in ({"clips": 0}, {"workers": 1.5}, {"height": "x"}, {"render_seed": -1}):
        with pytest.raises(ConfigError, match=f"data.{next(iter(wrong))}="):
            SyntheticSomething("x", **wrong)
    with pytest.raises(ConfigError, match=r"data\.version=3"):
        SyntheticSomething("x", version=3)
