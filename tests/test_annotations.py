"""Published annotations, read from miniatures in their very formats: a block that moves on grey."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from layouts import encode
from scipy.io import savemat

from lightning_cam.data.annotations import puppets as puppet_files
from lightning_cam.data.annotations.formats import annotated
from lightning_cam.data.annotations.plain_pickle import PickledArray, load_plain_pickle
from lightning_cam.data.check.inspection import inspect_video
from lightning_cam.data.clips import VideoFolder
from lightning_cam.data.core.clips import Clip
from lightning_cam.data.core.loading import collate
from lightning_cam.errors import ConfigError, DataError
from lightning_cam.metrics import average_precision, energy_inside

FRAMES, HEIGHT, WIDTH = 24, 240, 320
BEGIN, END = 6, 18  # of the action in frames
CLASSES = ("Biking", "Diving")


def block(t: int, clip: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of the block in a frame."""
    return 40 + 8 * t, 60 + 12 * clip, 80, 64


def video(path: Path, clip: int, fps: int = 25) -> Path:
    """Grey frames with the white block while the action lasts."""
    images = np.full((FRAMES, HEIGHT, WIDTH, 3), 60, np.uint8)
    for t in range(BEGIN, END):
        x, y, w, h = block(t, clip)
        images[t, y : y + h, x : x + w] = 255
    return encode(path, images, fps)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of three videos, as UCF101 names them."""
    top = tmp_path_factory.mktemp("ucf")
    for name in CLASSES:
        for clip in range(3):
            video(top / name / f"v_{name}_g01_c{clip + 1:02}.avi", clip)
    return top


def ucf_node(clip: int, **changes: Any) -> dict[str, Any]:
    boxes = np.array([block(t, clip) for t in range(BEGIN, END)], np.uint16)
    tube = {"label": 3, "sf": BEGIN, "ef": END, "boxes": boxes}
    return {"annotations": [{**tube, **changes}], "numf": FRAMES, "label": 3}


def ucf_annotations(path: Path, protocol: int = 2, **changes: Any) -> Path:
    """`pyannot.pkl`: of all videos but the last, and of one that is not there."""
    names = [f"{name}/v_{name}_g01_c{clip:02}" for name in CLASSES for clip in (1, 2, 3)]
    of = {name: ucf_node(int(name[-1]) - 1, **changes) for name in names[:-1]}
    of["Surfing/v_x"] = ucf_node(0)
    path.write_bytes(pickle.dumps(of, protocol))
    return path


def data_of(root: Path, annotations: Path | None, **more: Any) -> VideoFolder:
    plain: dict[str, Any] = {"num_frames": FRAMES, "fps": None, "resize": 60, "crop": 60}
    where = None if annotations is None else str(annotations)
    return VideoFolder(str(root), annotations=where, num_workers=0, **{**plain, **more})


def samples(data: VideoFolder) -> dict[str, dict[str, Any]]:
    """Every clip as evaluation sees it, by its video's name."""
    found = {}
    for part in ("train", "val", "test"):
        dataset = data.evaluation(part)
        for n in range(len(dataset)):
            one = dataset[n]
            found[one["clip_id"].rpartition("/")[2]] = one
    return found


def white(one: dict[str, Any]) -> torch.Tensor:
    """Where the block is seen, (T, H, W)."""
    low, high = one["video"].min(), one["video"].max()
    return (one["video"][0] - low) / (high - low) > 0.5


def agreement(mask: torch.Tensor, seen: torch.Tensor) -> float:
    return float((mask & seen).sum() / (mask | seen).sum())


def unknown(one: dict[str, Any]) -> bool:
    """Whether no frame is judged; a part without any annotation says nothing of it."""
    return "mask" not in one or not (one["judged"].any() or one["mask"].any())


# --- UCF101-24 ------------------------------------------------------------------------------------


def test_boxes_lie_on_what_acts_while_it_acts(root: Path, tmp_path: Path) -> None:
    found = samples(data_of(root, ucf_annotations(tmp_path / "pyannot.pkl")))
    last = found.pop("v_Diving_g01_c03")
    assert len(found) == 5
    for one in found.values():
        assert one["error"] == ""
        assert agreement(one["mask"], white(one)) > 0.95
        assert one["action"].tolist() == [BEGIN <= t < END for t in range(FRAMES)]
        assert bool(one["judged"].all())  # outside of the interval it is known that nobody acts
    assert not last["mask"].any() and not last["action"].any() and not last["judged"].any()
    batch: Any = collate([*found.values(), last])
    heat = white(found["v_Biking_g01_c02"]).float()[None].expand(6, -1, -1, -1)
    assert float(energy_inside(heat, batch["mask"], batch["judged"])[1]) > 0.95
    assert bool(energy_inside(heat, batch["mask"], batch["judged"])[5].isnan())


def test_other_boxes_make_another_clip(root: Path, tmp_path: Path) -> None:
    """What tells clips of journals apart is their rows in words."""
    said = []
    for n, moved in enumerate((0, 1, 0)):
        boxes = np.array([block(t, 0) for t in range(BEGIN, END)]) + moved
        data = data_of(root, ucf_annotations(tmp_path / f"{n}.pkl", boxes=boxes))
        said.append([repr(clip) for clip in data.listing.train])
    assert said[0] == said[2] and not {*said[0]} & {*said[1]}
    assert max(map(len, said[0])) < 400


@pytest.mark.parametrize("crop", [60, 48])
def test_boxes_follow_the_crop(root: Path, tmp_path: Path, crop: int) -> None:
    data = data_of(root, ucf_annotations(tmp_path / "pyannot.pkl"), crop=crop, num_frames=8, fps=10)
    for name, one in samples(data).items():
        if name != "v_Diving_g01_c03":
            assert one["mask"].shape == (8, crop, crop)
            assert agreement(one["mask"], white(one)) > 0.95


def test_training_carries_no_annotations(root: Path, tmp_path: Path) -> None:
    data = data_of(root, ucf_annotations(tmp_path / "pyannot.pkl"))
    assert all(clip.truth is None for clip in data.train_set.clips)
    assert not {"mask", "judged"} & set(data.train_set[0, 0])
    bare = data_of(root, None)
    assert torch.equal(bare.train_set[0, 0]["video"], data.train_set[0, 0]["video"])
    assert "mask" not in bare.evaluation("train")[0]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_pickles_is_read(protocol: int, tmp_path: Path) -> None:
    path = ucf_annotations(tmp_path / "a.pkl", protocol)
    node = load_plain_pickle(path)["Biking/v_Biking_g01_c01"]
    boxes = node["annotations"][0]["boxes"]
    assert isinstance(boxes, PickledArray)
    assert np.array_equal(boxes.numbers, ucf_node(0)["annotations"][0]["boxes"])
    assert (node["numf"], node["annotations"][0]["sf"]) == (FRAMES, BEGIN)


def test_what_numpy_pickles_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    numbers = np.arange(6.0).reshape(2, 3)
    held = {
        "f": np.asfortranarray(numbers), "big": numbers.astype(">f4"), "n": np.int32(7),
        "x": np.float64(0.5), "none": None, "t": (1, "a"), "b": b"\xff",
        "bool": numbers > 2, "empty": np.empty((0, 4)),
    }  # fmt: skip
    for protocol in (2, 3, pickle.HIGHEST_PROTOCOL):
        path.write_bytes(pickle.dumps(held, protocol))
        found = load_plain_pickle(path)
        for key, value in held.items():
            if isinstance(value, np.ndarray):
                assert np.array_equal(found[key].numbers, value), key
            else:
                assert found[key] == value, key


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    boxes = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01K\x04\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x04\x01\x02\x03\xfftb"
    )
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x02}(U\x04numfK\x05U\x05boxes" + boxes + b"u.")
    found = load_plain_pickle(path)
    assert found["numf"] == 5 and found["boxes"].numbers.tolist() == [[1, 2, 3, 255]]


class Runs:
    """Would write a file as soon as it is unpickled."""

    def __init__(self, how: Any, *what: Any) -> None:
        self.how = how, what

    def __reduce__(self) -> Any:
        return self.how


def hostile(name: str, witness: Path) -> bytes:
    """A pickle that does harm where it is read carelessly."""
    touch = f"open({str(witness)!r}, 'w').close()"
    if name == "exec":
        return pickle.dumps(Runs(exec, touch))
    if name == "system":
        return f"cos\nsystem\n(S'touch {witness}'\ntR.".encode()
    if name == "path":  # a method found through an allowed name
        return f"cnumpy\nndarray.__init__.__globals__\n(S'{touch}'\ntR.".encode()
    if name == "stacked":  # numpy's own way to run code
        return f"cnumpy.testing._private.utils\nrunstring\n(S'{touch}'\n}}tR.".encode()
    if name == "getattr":
        return b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'__class__'\ntR."
    if name == "codec":  # text that unfolds or imports
        return b"c_codecs\nencode\n(VAAAA\nVzlib\ntR."
    if name == "instance":
        return f"(S'{touch}'\nibuiltins\nexec\n.".encode()
    if name == "build":  # writes into a class of the reader
        return b"cnumpy\nndarray\n}S'__setstate__'\ncnumpy\ndtype\nsb."
    if name == "object array":
        return pickle.dumps(np.array([Runs(exec, touch)], object))
    if name == "objects":
        return pickle.dumps(np.array([None, "a"], object))
    if name == "records":
        return pickle.dumps(np.zeros(2, [("a", "i4")]))
    if name == "huge":  # an array of a terabyte in a hundred bytes
        small = pickle.dumps(np.zeros(4, np.uint8), 2)
        return small.replace(b"K\x01K\x04\x85", b"K\x01\x8a\x06\x00\x00\x00\x00\x00\x01\x85")
    if name == "negative":
        small = pickle.dumps(np.zeros(4, np.uint8), 2)
        return small.replace(b"K\x01K\x04\x85", b"K\x01J\xff\xff\xff\xff\x85")
    if name == "extension":
        return b"\x80\x02\x82\x01."
    if name == "persistent":
        return b"Pfile\n."
    if name == "cut":
        return pickle.dumps({"a": np.arange(100)})[:-40]
    return {"empty": b"", "text": b"no pickle at all", "long": b"\x80\x04\x8e" + b"\xff" * 8}[name]


HOSTILE = [
    "exec", "system", "path", "stacked", "getattr", "codec", "instance", "build", "object array",
    "objects", "records", "huge", "negative", "extension", "persistent", "cut", "empty", "text",
    "long",
]  # fmt: skip


@pytest.mark.attack
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_run_nothing(name: str, tmp_path: Path) -> None:
    """`data.annotations=` names a pickle that runs code, asks for a terabyte or is damaged."""
    witness, path = tmp_path / "witness", tmp_path / "pyannot.pkl"
    path.write_bytes(hostile(name, witness))
    with pytest.raises(ValueError, match=r"\w"):
        load_plain_pickle(path)
    with pytest.raises(DataError, match=r"cannot read annotations .*leave out data.annotations="):
        annotated([Clip(Path("v_a.avi"), "a")], path)
    assert not witness.exists()
    again = PickledArray()  # nobody has written into the reader
    assert callable(again.__setstate__) and again.numbers.shape == (0,)


def test_the_hostile_pickles_are_hostile(tmp_path: Path) -> None:
    """Python's own reader runs the first ones: what is refused above is a real danger."""
    for name in ("exec", "system", "object array"):
        witness = tmp_path / name.replace(" ", "_")
        pickle.loads(hostile(name, witness))
        assert witness.exists(), name
    pickletools.dis(hostile("build", tmp_path), io.StringIO())  # is well formed


@pytest.mark.attack
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sf": -3}, "frames -3 to"),
        ({"ef": 10**9}, "frames 6 to"),
        ({"sf": "6"}, "frames '6' to"),
        ({"boxes": np.zeros((12, 3))}, r"no array \(n, 4\)"),
        ({"boxes": [[1, 2, 3, 4]]}, r"no array \(n, 4\)"),
    ],
)
def test_annotations_that_make_no_sense(
    changes: dict[str, Any], words: str, root: Path, tmp_path: Path
) -> None:
    """Boxes of a wrong shape, before the first frame, a billion frames long: one line says so."""
    path = ucf_annotations(tmp_path / "pyannot.pkl", **changes)
    with pytest.raises(DataError, match=words):
        _ = data_of(root, path).listing


def test_frames_of_an_action_without_boxes_are_not_judged(root: Path, tmp_path: Path) -> None:
    boxes = np.array([block(t, 0) for t in range(BEGIN, END)], np.float64)
    boxes[2] = 0
    found = samples(data_of(root, ucf_annotations(tmp_path / "pyannot.pkl", boxes=boxes[:10])))
    one = found["v_Biking_g01_c01"]
    lost = [BEGIN + 2, END - 2, END - 1]
    assert [t for t in range(FRAMES) if not one["judged"][t]] == lost
    assert not one["mask"][lost].any() and not one["action"][lost].any()
    heat = white(one).float()[None]
    whole = average_precision(heat, one["mask"][None])
    assert float(average_precision(heat, one["mask"][None], one["judged"][None])) > float(whole)


# --- Something-Else -------------------------------------------------------------------------------


def something_label(box: tuple[int, int, int, int], category: str) -> dict[str, Any]:
    x, y, w, h = box
    sides = {"x1": float(x), "y1": float(y), "x2": float(x + w), "y2": float(y + h)}
    return {"box2d": sides, "category": category, "standard_category": category}


def something_annotations(
    folder: Path, count: int = FRAMES, ids: tuple[str, ...] = ("1", "2")
) -> Path:
    """Two parts: of each video frames at 12 a second, hand and object while there is action."""
    folder.mkdir(exist_ok=True)
    for n, name in enumerate(ids):
        frames = []
        for t in range(count):
            x, y, w, h = block(t, n)
            halves = (x, y, w // 2, h), (x + w // 2, y, w // 2, h)
            labels = [something_label(halves[0], "hand"), something_label(halves[1], "0000")]
            frames.append({
                "name": f"{name}/{t + 1:04}.jpg", "nr_instances": 2, "gt_placeholders": ["it"],
                "labels": labels if BEGIN <= t < END else [],
            })  # fmt: skip
        text = json.dumps({"77": [], name: frames}, indent=n or None)
        (folder / f"bounding_box_smthsmth_part{n + 1}.json").write_text(text)
    return folder


@pytest.fixture(scope="module")
def something(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos 1 and 2 at twice the rate of the annotations, and images at their own."""
    top = tmp_path_factory.mktemp("something")
    for n in range(2):
        video(top / CLASSES[n] / f"{n + 1}.webm", n, fps=12)
        video(top / CLASSES[n] / f"{n + 3}.webm", n, fps=12)
        video(top / CLASSES[n] / f"{n + 5}.webm", n, fps=12)
    return top


def test_hands_and_objects_are_parts(something: Path, tmp_path: Path) -> None:
    found = samples(data_of(something, something_annotations(tmp_path / "boxes")))
    for name in ("1", "2"):
        one = found[name]
        seen = white(one)
        assert agreement(one["mask"], seen) > 0.95
        assert torch.equal(one["mask"], one["mask/hand"] | one["mask/object"])
        columns = torch.arange(60).expand(FRAMES, 60, 60)
        hand = columns[one["mask/hand"]].float().mean()
        assert hand < columns[one["mask/object"]].float().mean()  # on the left
        # frames without any box are not judged, not empty
        assert one["judged"].tolist() == [BEGIN <= t < END for t in range(FRAMES)]
        assert "action" not in one
    assert unknown(found["5"])


def test_frames_are_found_by_time(something: Path, tmp_path: Path) -> None:
    """A video of the same length at another rate has the same truth at the same time."""
    images = np.full((FRAMES, HEIGHT, WIDTH, 3), 60, np.uint8)
    for t in range(BEGIN, END):
        x, y, w, h = block(t, 0)
        images[t, y : y + h, x : x + w] = 255
    top = tmp_path / "fast"
    for n in range(3):
        for name in CLASSES:
            encode(top / name / f"{name}{n}.mp4", images, 12)
    encode(top / CLASSES[0] / "1.mp4", images.repeat(2, 0)[: 2 * FRAMES - 1], 24)
    annotations = something_annotations(tmp_path / "boxes")
    one = samples(data_of(top, annotations, num_frames=2 * FRAMES - 1))["1"]
    assert one["error"] == "" and one["judged"].sum() >= 2 * (END - BEGIN) - 1
    both = one["judged"] & one["mask"].flatten(1).any(1)
    assert agreement(one["mask"][both], white(one)[both]) > 0.85  # halves between two frames


def test_a_video_of_another_length_is_refused(something: Path, tmp_path: Path) -> None:
    data = data_of(something, something_annotations(tmp_path / "boxes", count=FRAMES - 1))
    assert samples(data)["1"]["error"] == ""
    data = data_of(something, something_annotations(tmp_path / "boxes", count=FRAMES - 3))
    said = samples(data)["1"]["error"]
    assert "has 21 frames at 12 a second, its video 24" in said and "ground truth" in said
    (clip,) = [c for part in ("train", "val", "test") for c in data.listing.part(part)
               if c.path.stem == "1"]  # fmt: skip
    assert inspect_video(clip, data.reader).kind == "truth"


@pytest.mark.attack
@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", '{"1": [}', '{"1" []}', '{"1": [] "2": []}', '{1: []}',
        '{"1": [{"name": "1/x.jpg", "labels": []}]}',
        '{"1": [{"name": "1/0000000.jpg", "labels": []}]}',
        '{"1": [{"name": "1/999999999.jpg", "labels": []}]}',
        '{"1": [{"name": "1/0001.jpg"}]}', '{"1": {"name": 3}}', '{"1": 3}',
        '{"1": [{"name": "1/0001.jpg", "labels": [{"box2d": {"x1": 1}}]}]}',
        '{"1": [{"name": "1/0001.jpg", "labels": [{"box2d": {"x1": NaN, "y1": 1, "x2": 2, "y2": 3},'
        ' "standard_category": "hand"}]}]}',
        '{"1": ' + "[" * 100_000,
    ],
)  # fmt: skip
def test_damaged_json_is_said(text: str, tmp_path: Path) -> None:
    """`data.annotations=` names JSON that is cut, nested without end, or says nonsense."""
    path = tmp_path / "bounding_box_smthsmth_part1.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"cannot read annotations .*leave out data.annotations="):
        annotated([Clip(Path("1.webm"), "1")], path)


# --- EPIC-KITCHENS-55 -----------------------------------------------------------------------------

ACTION_COLUMNS = (
    "uid,participant_id,video_id,narration,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)
OBJECT_COLUMNS = "noun_class,noun,participant_id,video_id,frame,bounding_boxes"
BEFORE = 1000  # frames of the recording before the action


def epic_annotations(folder: Path) -> Path:
    """Two actions of one recording; boxes of the first one's noun, one of another, an empty one."""
    folder.mkdir(exist_ok=True)
    times = f"00:00:16.67,00:00:17.05,{BEFORE},{BEFORE + FRAMES - 1}"
    (folder / "EPIC_train_action_labels.csv").write_text(
        f"{ACTION_COLUMNS}\n"
        f"7,P01,P01_01,open door,{times},open,2,door,8,\"['door']\",[8]\n"
        f"8,P01,P01_01,wash cup,{times},wash,1,cup,13,\"['cup']\",[13]\n"
    )
    rows = [OBJECT_COLUMNS]
    for t in (8, 13):
        x, y, w, h = (4.5 * side if n % 2 else 6 * side for n, side in enumerate(block(t, 0)))
        box = f"({y:.0f}, {x:.0f}, {h:.0f}, {w:.0f})"
        rows.append(f'8,door,P01,P01_01,{BEFORE + t},"[{box}]"')
    rows += [
        f'8,door,P01,P01_01,{BEFORE + 20},"[]"',
        f'8,door,P01,P01_02,{BEFORE + 2},"[(0, 0, 9, 9)]"',
        f'3,knife,P01,P01_01,{BEFORE + 2},"[(0, 0, 9, 9), (1, 1, 5, 5)]"',
    ]
    (folder / "EPIC_train_object_labels.csv").write_text("\n".join(rows))
    return folder


@pytest.mark.parametrize("uid", ["7", "P01_01_7"])
def test_boxes_of_the_object_count_for_the_frames_around_them(uid: str, tmp_path: Path) -> None:
    top = tmp_path / "clips"
    for name in CLASSES:
        for n in range(3):
            video(top / name / f"{name}{n}.mp4", 0, fps=60)
    video(top / CLASSES[0] / f"{uid}.mp4", 0, fps=60)
    video(top / CLASSES[1] / "8.mp4", 0, fps=60)
    found = samples(data_of(top, epic_annotations(tmp_path / "epic")))
    one = found[uid]
    assert one["error"] == "" and "action" not in one
    assert [t for t in range(FRAMES) if one["judged"][t]] == list(range(5, 17))
    for drawn, frames in ((8, range(5, 11)), (13, range(11, 17))):  # the nearest one's
        assert all(torch.equal(one["mask"][t], one["mask"][drawn]) for t in frames)
        assert agreement(one["mask"][drawn], white(one)[drawn]) > 0.95
    assert unknown(found["8"])  # its noun was not drawn


@pytest.mark.attack
@pytest.mark.parametrize(
    ("file", "row", "words"),
    [
        ("object", '8,door,P01,P01_01,1008,"[(1, 2, 3)]"', "line 7: ValueError boxes"),
        ("object", "8,door,P01,P01_01,1008,\"__import__('os').system('true')\"", "line 7"),
        ("object", "8,door,P01,P01_01,1008," + "[" * 10_000, "boxes"),
        ("object", "8,door", "line 7: TypeError"),
        ("object", 'x,door,P01,P01_01,1,"[]"', "line 7: ValueError"),
        ("action", "9,P01,P01_01,a,0,0,50,20,a,1,b,2,c,d", "line 4: ValueError frames 50 to 20"),
        ("action", "9,P01,P01_01,a,0,0,1,900000000000,a,1,b,2,c,d", "line 4: ValueError frames"),
    ],
)
def test_damaged_tables_are_said(file: str, row: str, words: str, tmp_path: Path) -> None:
    """EPIC's tables with a row that is cut, holds code or runs back: file and line are said."""
    folder = epic_annotations(tmp_path / "epic")
    path = folder / f"EPIC_train_{file}_labels.csv"
    path.write_text(f"{path.read_text().rstrip()}\n{row}\n")
    with pytest.raises(DataError, match=f"{path.name}.*{words}"):
        annotated([Clip(Path("7.mp4"), "7")], folder)


# --- J-HMDB ---------------------------------------------------------------------------------------


def puppets(folder: Path, names: tuple[str, ...], count: int = FRAMES, **more: Any) -> Path:
    """`puppet_mask.mat` of each video: an ellipse's worth of body parts, numbered from 1."""
    for name in names:
        mask = np.zeros((HEIGHT, WIDTH, count), np.uint8)
        for t in range(min(BEGIN, count), min(END, count)):
            x, y, w, h = block(t, int(name[-1]) - 1)
            mask[y : y + h, x : x + w, t] = 3
            mask[y : y + h // 2, x : x + w, t] = 1
        path = folder / name.split("_")[1] / name / "puppet_mask.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        savemat(path, {"part_mask": mask, **more}, do_compression=True)
    return folder


def test_puppet_masks_are_the_pixels_of_who_acts(root: Path, tmp_path: Path) -> None:
    names = ("v_Biking_g01_c01", "v_Diving_g01_c02")
    found = samples(data_of(root, puppets(tmp_path / "puppet_mask", names)))
    for name in names:
        one = found[name]
        assert agreement(one["mask"], white(one)) > 0.95
        assert bool(one["judged"].all()) and "action" not in one
    assert unknown(found["v_Biking_g01_c02"])


@pytest.mark.attack
@pytest.mark.parametrize("how", ["cut", "text", "empty", "lacks", "cells", "longer", "huge"])
def test_damaged_masks_cost_their_clip(
    how: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `puppet_mask.mat` that is cut, of another video or too large: its clip is skipped."""
    name = "v_Biking_g01_c01"
    folder = puppets(
        tmp_path, (name, "v_Biking_g01_c02"), FRAMES + 2 if how == "longer" else FRAMES
    )
    path = folder / "Biking" / name / "puppet_mask.mat"
    if how == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif how in ("text", "empty"):
        path.write_bytes(b"no masks" * 40 if how == "text" else b"")
    elif how == "lacks":
        savemat(path, {"other": np.zeros(3)})
    elif how == "cells":
        savemat(path, {"part_mask": np.array([[1, "a"]], object)})
    elif how == "huge":
        monkeypatch.setattr(puppet_files, "MOST_BYTES", HEIGHT * WIDTH)
    one = samples(data_of(root, folder))[name]
    assert "ground truth" in one["error"] and int(one["label"]) == -1
    assert one["error"].count("\n") == 0
    assert one["mask"].shape == (FRAMES, 60, 60) and not one["judged"].any()


# --- which annotations ----------------------------------------------------------------------------


def test_what_is_no_annotation_is_said(root: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no annotations")
    for path, words in (
        (tmp_path / "absent", "no annotations at"),
        (tmp_path / "notes.txt", "holds no annotations that are known"),
        (tmp_path, "holds no annotations that are known"),
    ):
        with pytest.raises(DataError, match=f"{words}.*set data.annotations=PATH"):
            _ = data_of(root, path).listing
    (tmp_path / "other.pkl").write_bytes(pickle.dumps({"Surfing/v_x": ucf_node(0)}))
    with pytest.raises(DataError, match=r"have none of the 6 videos.*set data.annotations=PATH"):
        _ = data_of(root, tmp_path / "other.pkl").listing
    with pytest.raises(ConfigError, match="must be a path or null"):
        VideoFolder(str(root), annotations=3)  # type: ignore[arg-type]


@pytest.mark.attack
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x80\x02}r\xff\xff\xff\x7f.", "has the number 2147483647"),
        (b"\x80\x02}q\xff.", "has the number 255"),
        (b"}p99999999\n.", "has the number 99999999"),
        (b"}K\x01\x85" + b"2\x86" * 60 + b"K\x01s.", "again and again"),
        (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"a.", "expected 1099511627776 bytes"),
        (b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"a.", "expected 1099511627776 bytes"),
        (b"", "empty"),
    ],
)
def test_a_pickle_of_some_bytes_takes_no_gigabytes(data: bytes, said: str, tmp_path: Path) -> None:
    """Annotations of 10 bytes whose parts have the number 2**31, or claim a terabyte."""
    path = tmp_path / "pyannot.pkl"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=said):
        load_plain_pickle(path)
