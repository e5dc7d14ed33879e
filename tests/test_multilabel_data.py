"""Data of several labels a clip: a subclass of `VideoDataModule` whose clips have `labels`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import layouts
import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.data.check.inventory import inventory
from lightning_cam.data.clips import Kinetics, VideoFolder
from lightning_cam.data.core.clips import Clip, finished
from lightning_cam.data.core.listing import Listing, without_leaks
from lightning_cam.data.core.loading import collate
from lightning_cam.data.core.module import VideoDataModule
from lightning_cam.errors import ConfigError
from lightning_cam.explaining.clips_by_outcome import check_classes
from lightning_cam.study.seen_clip import class_facts, see_clip
from lightning_cam.synthetic import SyntheticActionPairs
from lightning_cam.synthetic.actions.files import CLASSES as CLASSES_OF_ACTIONS
from lightning_cam.synthetic.actions.files import PAIRS, ActionKey, draw_action
from lightning_cam.tasks import MultiLabelClassification

CLASSES = ["left", "moves", "right"]
ROWS = {"a": (1, 1, 0), "b": (0, 0, 0), "c": (0, 1, 1), "d": (0, -1, 1), "gone": (1, 0, 0)}


class Labelled(VideoDataModule):
    """Videos named in a table, with a label of each class."""

    def list_clips(self) -> Listing:
        clips = [Clip(Path(self.root) / f"{n}.mp4", n, labels=y) for n, y in ROWS.items()]
        return Listing(CLASSES, clips[:2], clips[2:], clips[2:])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    for number, name in enumerate(list(ROWS)[:-1]):
        layouts.encode(folder / f"{name}.mp4", layouts.frames("blink", number, 8))
    return folder


def data(root: Path, **settings: object) -> Labelled:
    few = {"num_frames": 4, "fps": None, "resize": 32, "crop": 32, "batch_size": 2}
    return Labelled(str(root), num_workers=0, **{**few, **settings})  # type: ignore[arg-type]


class Small(nn.Sequential):
    explain_layers = ("0",)

    def __init__(self) -> None:
        conv = nn.Conv3d(3, 4, 3, stride=2)
        super().__init__(conv, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3))


def test_batches_have_a_label_of_each_class_and_unreadable_clips_none(root: Path) -> None:
    part = data(root).evaluation("val")
    found = {sample["clip_id"]: sample["label"].tolist() for sample in part}
    assert found == {"c": [0, 1, 1], "d": [0, -1, 1], "gone": [-1, -1, -1]}


def test_a_network_is_trained_and_explained_on_them(root: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task, held = MultiLabelClassification(Small(), CLASSES), data(root)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    with pytest.warns(UserWarning, match=r"no train clips of: right$"):
        trainer.fit(task, held)
    seen = {name for name in trainer.callback_metrics if name.startswith("val/ap/")}
    assert seen == {"val/ap/moves", "val/ap/right"}  # of "left" there is no clip to be read
    batch = finished(next(iter(held.val_dataloader())))
    e = lc.explain(task.explainable(batch), lc.GradCAM(), batch["video"])
    assert batch["label"].gather(1, e.target[:, None]).tolist() == [[1], [1]]


@pytest.mark.parametrize(
    ("mirror", "expected"),
    [([0, 1, 2], (1, 1, 0)), ([2, 1, 0], (0, 1, 1)), ([0, None, 2], None)],
)
def test_labels_change_places_in_the_mirror(mirror: list[int | None], expected: object) -> None:
    assert Clip(Path("a"), "a", labels=ROWS["a"]).mirrored(mirror) == expected


def test_mirrored_clips_have_the_labels_of_the_mirror(root: Path) -> None:
    """Half of the training clips are mirrored: these, and these alone, have them."""
    held = data(root, hflip_pairs=[["left", "right"]], grey=0, contrast=0, offset=0)
    part = held._dataset("train", train=True)
    seen: set[tuple[int, ...]] = set()
    for epoch in range(8):
        seen.add(tuple(part[epoch, 0]["label"].tolist()))
    assert seen == {(1, 1, 0), (0, 1, 1)}


def test_classes_are_counted_by_all_their_clips(root: Path) -> None:
    held = data(root)
    assert held.class_counts == [1, 1, 0]
    found = inventory(held)
    assert found.parts["val"] == {"moves": 1, "right": 2, "left": 1}
    assert found.sizes["val"] == 3 and not found.share
    assert {item.clip.clip_id: item.name for item in found.items}["c"] == "moves, right"
    with pytest.raises(ConfigError, match=r"one label each.*set data\.balanced=false"):
        data(root, balanced=True).train_dataloader()


def test_a_copy_with_other_labels_is_said(root: Path) -> None:
    clips = data(root).list_clips().train
    again = replace(clips[0], clip_id="again", labels=(0, 0, 1))
    [problem] = without_leaks(Listing(CLASSES, [*clips, again], [], [])).problems
    assert problem.kind == "label" and "class 'left', 'moves', which is taken" in problem.why


def test_who_is_right_cannot_be_asked(root: Path) -> None:
    task = MultiLabelClassification(Small(), CLASSES)
    with pytest.raises(ConfigError, match="needs a network whose outputs are classes, one a clip"):
        check_classes(task, data(root).evaluation("val"), [0], "select=wrong")


def test_the_true_class_of_a_study_is_the_highest_true_one(root: Path) -> None:
    task = MultiLabelClassification(Small(), CLASSES).eval()
    batch = collate([data(root).evaluation("val")[0]])
    design = SimpleNamespace(target="true", measures={})
    network = SimpleNamespace(task=task, columns={})
    seen = see_clip(design, SimpleNamespace(network=network, input=""), batch)  # type: ignore[arg-type]
    true: Tensor = batch["label"][0] > 0
    assert int(seen.target) == int(seen.outputs[0].masked_fill(~true, -torch.inf).argmax())
    assert class_facts(seen)["label"] == ""  # no single one, of which networks could be right


def test_two_synthetic_actions_at_once_have_two_labels(tmp_path: Path) -> None:
    """Opposites are never acted together; one action alone is the clip that it always was."""
    few = {"groups": 3, "clips": 1, "size": 32, "num_frames": 4, "resize": 32, "crop": 32}
    held = SyntheticActionPairs(
        str(tmp_path), actions=["move_right", "expand", "move_left"], num_workers=0, **few
    )
    held.prepare_data()
    found = {clip.path.parents[1].name: clip.labels for clip in held.listing.train}
    assert held.classes == ["expand", "move_left", "move_right"]
    assert found == {
        "expand": (1, 0, 0), "move_left": (0, 1, 0), "move_right": (0, 0, 1),
        "expand+move_left": (1, 1, 0), "expand+move_right": (1, 0, 1),
    }  # fmt: skip
    assert held.mirror() == [0, 2, 1] and held.class_counts == [3, 2, 2]
    assert set(held.evaluation("val")[0]) >= {"video", "label", "mask", "action"}


def test_both_laws_of_a_pair_act_in_its_interval() -> None:
    """x falls and the radius grows by a factor from the first frame of the action to the last."""
    key = ActionKey(len(CLASSES_OF_ACTIONS) + PAIRS.index("expand+move_left"), 1, 1)
    track = draw_action(key, size=32)[2]
    start, end = track.cuts
    for state, sign in ((track.cx, -1), (np.log(track.radius), 1)):
        steps = sign * np.diff(state[start:end])
        assert (steps > 0).all() and np.allclose(steps, steps[0], rtol=0.2)


def few(root: Path, **names: int) -> Path:
    for folder, count in names.items():
        for number in range(count):
            file = root / folder.replace("_and_", "+") / f"{number}.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    return root


def test_labels_in_the_names_of_folders(tmp_path: Path) -> None:
    """Held out of every class alike; classes that are chosen leave clips of others out."""
    root = few(tmp_path, walk=6, wave=6, walk_and_wave=10, sit_and_wave=10)
    held = VideoFolder(str(root), separator="+", num_workers=0)
    assert held.classes == ["sit", "walk", "wave"] and not held.listing.problems
    listing = held.listing
    for part, least in ((listing.train, 8), (listing.val, 1), (listing.test, 1)):
        assert all(sum(clip.labels[k] for clip in part) >= least for k in range(3))
    labels = {c.path.parent.name: c.labels for c in [*listing.train, *listing.val, *listing.test]}
    assert labels == {
        "walk": (0, 1, 0), "wave": (0, 0, 1), "walk+wave": (0, 1, 1), "sit+wave": (1, 0, 1),
    }  # fmt: skip
    chosen = VideoFolder(str(root), separator="+", classes=["walk", "sit"], num_workers=0)
    assert {clip.labels for clip in chosen.listing.train} == {(1, 0), (0, 1)}
    plain = VideoFolder(str(root), num_workers=0)
    assert plain.classes == ["sit+wave", "walk", "walk+wave", "wave"]
    parts = few(tmp_path / "parts" / "train", walk=2, wave=2).parent
    few(parts / "val", walk_and_wave=2, walk_and_run=1)
    held = VideoFolder(str(parts), separator="+", num_workers=0)
    assert [clip.labels for clip in held.listing.val] == [(1, 1)] * 2
    assert [p.what for p in held.listing.problems if p.kind == "label"] == ["val/walk+run"]
    with pytest.raises(ConfigError, match=r"data\.separator='' must be a text"):
        VideoFolder(str(root), separator="")


@pytest.mark.filterwarnings("ignore:the test part has no labels")
def test_labels_in_the_rows_of_a_list(tmp_path: Path) -> None:
    rows = {"train": ["walk;wave", "wave", "sit; wave;"], "val": ["walk;sit", "walk;run"]}
    for part, labels in rows.items():
        lines = [f"{label},{part}{n},0,9,{part}" for n, label in enumerate(labels)]
        head = "label,youtube_id,time_start,time_end,split"
        (tmp_path / f"{part}.csv").write_text("\n".join([head, *lines]))
        (tmp_path / part).mkdir()
        for number in range(len(labels)):
            (tmp_path / part / f"{part}{number}.mp4").touch()
    held = Kinetics(str(tmp_path), separator=";", num_workers=0)
    assert held.classes == ["sit", "walk", "wave"]
    assert [clip.labels for clip in held.listing.train] == [(0, 1, 1), (0, 0, 1), (1, 0, 1)]
    assert [clip.labels for clip in held.listing.val] == [(1, 1, 0)]
    assert "'run' is not a label of the training list" in held.listing.problems[0].why
