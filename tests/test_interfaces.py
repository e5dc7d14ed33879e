"""A misspelt or wrong offer of somebody's own class is an error; nobody else's name is."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader

import lightning_cam
import lightning_cam as lc
from lightning_cam.commands.train_settings import classes_of as classes_of_data
from lightning_cam.commands.trainer import monitored
from lightning_cam.errors import ConfigError
from lightning_cam.explaining.callback import ExplainCallback
from lightning_cam.explaining.clip_sources import clips_of_files, open_split
from lightning_cam.interfaces import (
    Explains,
    HasChannels,
    HasInputs,
    HasRoot,
    HasViews,
    ShowsFrames,
    ShowsMore,
    as_explained,
    as_task,
    check_data,
    check_network,
    check_part,
    check_task,
    checks,
    is_offered,
    network_of,
    offers,
)
from lightning_cam.models import LRCN, DispNet, PoseNet, SfMLearner
from lightning_cam.tasks import VideoClassification

GROUPS = {
    name: checks.members(getattr(offers, name))
    for name in ("TASK", "DATA", "READER", "NETWORK", "PART")
}


def function(*names: str) -> Any:
    """A method with these arguments."""
    return eval(f"lambda self, {', '.join(names)}: None")


def a_value(kind: Any) -> Any:
    return next(
        value
        for value in (3, True, "x", ["x", "y"], [1, 2], {"x": [0]}, object())
        if checks._fits(value, kind)
    )


def made(base: type, **members: Any) -> Any:
    return type("Mine", (base,), members)()


def offer_of(member: checks.Member) -> Any:
    """Something of the kind of a member."""
    if member.counts is None:
        return a_value(member.kind)
    return function(*member.arguments.split(", "))


def others_of(group: str, name: str) -> dict[str, Any]:
    """The rest of the protocol of a member: members count together."""
    for protocol in getattr(offers, group):
        if name in (known := checks.members((protocol,))):
            return {other: offer_of(member) for other, member in known.items() if other != name}
    raise KeyError(name)


CASES = [(group, name, member) for group, known in GROUPS.items() for name, member in known.items()]


@pytest.mark.parametrize(("group", "name", "member"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_every_offer_is_taken_as_it_is_written_down_and_refused_otherwise(
    group: str, name: str, member: checks.Member
) -> None:
    known = getattr(offers, group)
    rest = others_of(group, name)
    checks._check(made(object, **rest, **{name: offer_of(member)}), known)
    checks._check(made(object, **rest, **{name: property(lambda _: 1 / 0)}), known)  # not called
    for wrong in (None, 1.5, function("one", "two", "three", "four")):
        if wrong is None or (member.counts is None and checks._fits(wrong, member.kind)):
            continue
        thing = made(object, **rest, **{name: wrong})
        if name in offers.EVERYDAY:
            with pytest.warns(UserWarning, match=rf"Mine\.{name} is ignored: .* must .*'_{name}'"):
                checks._check(thing, known)
        else:
            with pytest.raises(ConfigError, match=rf"Mine\.{name} must (?!.*(typing|collections))"):
                checks._check(thing, known)
        if rest:  # the others of its protocol are absent: it means something else
            checks._check(made(object, **{name: wrong}), known)


@pytest.mark.parametrize(
    ("group", "wrong", "value", "meant"),
    [
        ("DATA", "to_frame", function("clip"), "to_frames"),
        ("DATA", "toFrames", function("clip"), "to_frames"),
        ("DATA", "to_farmes", function("clip"), "to_frames"),
        ("DATA", "spectrums", {"tv": (0, 1, 2), "ir": (3,)}, "spectra"),
        ("DATA", "spectrums", "ir", "spectrum"),
        ("DATA", "view", function("clip"), "views"),
        ("DATA", "channel", 4, "channels"),
        ("DATA", "num_worker", 4, "num_workers"),
        ("DATA", "input", ("ir", "tv"), "inputs"),
        ("NETWORK", "explain_layer", ("conv",), "explain_layers"),
        ("NETWORK", "explain_layer", "conv", "explain_layers"),
        ("NETWORK", "explains_layers", ("conv",), "explain_layers"),
        ("NETWORK", "explain_attentions", ("a",), "explain_attention"),
        ("NETWORK", "explain_frame", "trunk", "explain_frames"),
        ("NETWORK", "explain_folds", function("a", "b"), "explain_fold"),
        ("NETWORK", "forward_step", function("clip", "valid"), "forward_steps"),
        ("TASK", "explainabel", function("batch"), "explainable"),
        ("TASK", "monitors", ("val/f1", "max"), "monitor"),
        ("TASK", "extra", function("batch"), "extras"),
        ("READER", "displays", function("path", "indices"), "display"),
        ("DATA", "clases", ["a", "b"], "classes"),
        ("DATA", "num_wokrers", 4, "num_workers"),
        ("TASK", "explainible", function("batch"), "explainable"),
        ("DATA", "chanels", 4, "channels"),
        ("PART", "mask", True, "masks"),
        ("PART", "source", 2, "sources"),
    ],
)
def test_a_misspelt_offer_is_named_with_the_nearest(
    group: str, wrong: str, value: Any, meant: str
) -> None:
    match = rf"Mine has '{wrong}', which lightning_cam does not read; nearest: {meant} .*'_{wrong}'"
    rest = others_of(group, meant)
    in_class = made(object, **rest, **{wrong: value})
    in_instance = made(object, **rest)
    vars(in_instance)[wrong] = value if not callable(value) else value.__get__(in_instance)
    everyday = meant in offers.EVERYDAY
    for thing in (in_class, in_instance):
        with pytest.warns(match=match) if everyday else pytest.raises(ConfigError, match=match):
            checks._check(thing, getattr(offers, group))
    checks._check(made(object, **rest, **{f"_{wrong}": value}), getattr(offers, group))
    right = offer_of(GROUPS[group][meant])  # is there as well
    checks._check(made(object, **rest, **{wrong: value, meant: right}), getattr(offers, group))


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("DATA", "input", "folder"),  # of another kind than `inputs`
        ("DATA", "input", ["a", "b"]),  # without `indices`
        ("DATA", "inputs", {"a": 1}),
        ("DATA", "indices", [1, 2]),
        ("DATA", "indices", function("part")),
        ("DATA", "spectrum", 5),  # without `fusion`
        ("DATA", "evaluate", function("model")),
        ("DATA", "num_works", 3),
        ("DATA", "num_words", 10_000),
        ("DATA", "glasses", ["round"]),
        ("DATA", "roof", "flat"),
        ("DATA", "reed", function("path")),
        ("DATA", "to_frame", function()),  # as of pandas
        ("TASK", "explain", function("batch")),
        ("TASK", "explained", function("batch")),
        ("TASK", "see", function("x")),
        ("TASK", "seen", 0),
        ("TASK", "extra", {"a": 1}),
        ("TASK", "monitoring", True),
        ("NETWORK", "forward_step", function("x", "h")),
        ("NETWORK", "forward_step", dict.fromkeys),  # without a signature
        ("NETWORK", "explain_frame", 3),
        ("NETWORK", "explain_layer", function("name")),
        ("PART", "mask", None),
        ("PART", "source", "left"),
        ("DATA", "input_size", (3, 64)),
        ("DATA", "view", function()),
        ("DATA", "header", ["a"]),
        ("DATA", "num_frames", 16),
        ("DATA", "class_names", ["a"]),
        ("DATA", "load", function("path")),
        ("DATA", "train_frames", 3),
        ("TASK", "screen", function()),
        ("TASK", "seed", 3),
        ("TASK", "see", cached_property(lambda _: 0)),
        ("NETWORK", "forward_test", function("clip", "label")),
        ("NETWORK", "forward_features", function("clip")),
        ("NETWORK", "layers", ["a"]),
        ("NETWORK", "explain_loss", 0.3),
    ],
)
def test_a_name_of_ones_own_is_left_alone(group: str, name: str, value: Any) -> None:
    if not isinstance(value, cached_property):
        checks._check(made(object, **{name: value}), getattr(offers, group))


def classes_of(package: Any) -> set[type]:
    found: set[type] = set()
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if "__main__" not in module.name:
            members = vars(importlib.import_module(module.name)).values()
            found |= {member for member in members if isinstance(member, type)}
    return found


# The names that timm's networks add to these, for it is not installed here.
TIMM = """forward_features forward_head forward_intermediates prune_intermediate_layers
get_classifier reset_classifier num_features head_hidden_size num_classes global_pool pretrained_cfg
default_cfg feature_info set_grad_checkpointing group_matcher no_weight_decay init_weights
load_pretrained pool_size num_prefix_tokens embed_dim patch_embed pos_embed cls_token norm_pre
blocks attn_drop fc_norm stem forward_test forward_train forward_dummy extract_feat"""


def test_no_name_of_other_networks_is_near() -> None:
    """Were they somebody's own, as in a copied file, they would pass."""
    found = classes_of(torchvision.models) | classes_of(lightning_cam.models)
    networks = {cls for cls in found if issubclass(cls, nn.Module)}
    names = {name for cls in networks for name in dir(cls) if not name.startswith("_")}
    assert len(networks) > 100 and len(names) > 100
    near = [
        (name, meant)
        for name in names.union(TIMM.split()) - GROUPS["NETWORK"].keys()
        for meant in GROUPS["NETWORK"]
        if checks.is_near(name, meant)
    ]
    assert near == []


def test_a_class_derived_from_ours_or_a_library_s_is_checked_for_what_it_adds() -> None:
    class Mine(LRCN):
        explain_layer = ("trunk",)

    # LRCN has the right name, so that this may be meant: training goes on
    with pytest.warns(UserWarning, match=r"Mine has 'explain_layer'.*nearest: explain_layers"):
        VideoClassification(Mine(3, hidden=4), ["a", "b", "c"])
    check_network(torchvision.models.video.r3d_18())
    check_network(LRCN(3, hidden=4))

    class Pose(PoseNet):
        explain_layers = "conv5"  # type: ignore[assignment]

    with pytest.raises(ConfigError, match=r"Pose\.explain_layers must be a list or tuple of names"):
        SfMLearner(DispNet(8), Pose(width=2))
    check_part(PoseNet(width=2))


class Data(pl.LightningDataModule):
    """Offers `to_frames`, nearly."""

    def to_frame(self, clip: Tensor) -> Any: ...

    def loader(self) -> Any:
        return DataLoader([(torch.randn(3, 4, 8, 8), torch.tensor(0))])

    train_dataloader = val_dataloader = loader


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv3d(3, 2, 3), nn.Linear(2, 2)

    def forward(self, clip: Tensor) -> Tensor:
        return self.fc(self.conv(clip).mean((2, 3, 4)))


def test_the_callback_says_so_before_anything_is_trained(tmp_path: Path) -> None:
    task = VideoClassification(Net(), ["a", "b"], layers=["conv"])
    trainer = pl.Trainer(
        callbacks=[ExplainCallback(lc.GradCAM())],
        logger=False,
        max_epochs=1,
        accelerator="cpu",
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    with pytest.raises(ConfigError, match=r"Data has 'to_frame'.*nearest: to_frames"):
        trainer.fit(task, Data())
    assert trainer.global_step == 0


def test_the_callback_minds_only_what_it_asks_for() -> None:
    """`monitor` is read by train.py alone, and many a task has one of its own."""

    class Task(pl.LightningModule):
        monitor = "val_loss"

        def explainable(self, batch: Any) -> Any: ...

    class Other(pl.LightningDataModule):
        root, inputs, spectrum = None, 3, "ir"

    class Mixed(Other):
        def indices(self, part: str, spectrum: str) -> list[int]: ...

    check_task(Task(), offers.SHOWN_OF_TASK)
    check_data(Other(), offers.SHOWN_OF_DATA)
    with pytest.raises(ConfigError, match=r"Task\.monitor must be a pair of names, got 'val_loss'"):
        check_task(Task())
    with pytest.warns(UserWarning) as caught:
        check_data(Mixed())
    assert len(caught) == 1 and "Mixed.inputs is ignored" in str(caught[0].message)
    assert not is_offered(Mixed(), HasInputs) and not is_offered(Other(), HasRoot)
    check_data(Other())
    assert isinstance(as_explained(Task()), Explains)
    with pytest.raises(ConfigError, match=r"Task.explainable must take no argument as well"):
        as_task(type("Task", (pl.LightningModule,), {"explainable": Task.explainable})())


def test_what_a_data_module_lacks_for_a_command_is_named() -> None:
    data = pl.LightningDataModule()
    with pytest.raises(ConfigError, match=r"give it a method evaluation\(part\)"):
        open_split(data, "test", root_given=False)
    with pytest.raises(ConfigError, match=r"give it a method read\(path\)"):
        clips_of_files(Path(__file__), data)
    assert not isinstance(data, ShowsFrames)


def test_the_network_inside_a_task() -> None:
    net = Net()
    assert network_of(VideoClassification(net, ["a", "b"])) is net
    assert network_of(net) is net


@pytest.mark.parametrize(
    ("protocol", "name", "value"),
    [
        (HasViews, "views", 2),
        (HasRoot, "root", 5),
        (HasChannels, "channels", ["r", "g"]),
        (ShowsMore, "extras", {"a": 1}),
    ],
)
def test_an_everyday_word_in_another_sense_is_not_offered(
    protocol: Any, name: str, value: Any
) -> None:
    thing = made(object, **{name: value})
    assert isinstance(thing, protocol) and not is_offered(thing, protocol)
    with pytest.warns(UserWarning, match=rf"Mine\.{name} is ignored"):
        checks._check(thing, (protocol,))
    right = checks.members((protocol,))[name]
    assert is_offered(made(object, **{name: offer_of(right)}), protocol)


def test_numbers_and_names_of_numpy_will_do() -> None:
    data = made(object, classes=np.array(["a", "b"]), channels=np.int64(3))
    check_data(data)
    assert is_offered(data, HasChannels)
    assert classes_of_data(data) == ["a", "b"]


def test_every_kind_has_plain_words() -> None:
    kinds = [member.kind for group in GROUPS.values() for member in group.values()]
    assert [
        kind for kind in kinds if kind not in (None, object) and kind not in checks._IN_WORDS
    ] == []
    assert {name for group in GROUPS.values() for name in group} > offers.EVERYDAY


UNSET = {"monitor": None, "monitor_mode": None}


@pytest.mark.parametrize("monitor", [("val/loss", "maximum"), ("val/loss",), "val/loss", ("a", 1)])
def test_what_chooses_the_best_checkpoint_is_max_or_min(monitor: Any) -> None:
    with pytest.raises(ConfigError, match=r"Mine\.monitor must be .*'max' or 'min', such as"):
        monitored(made(object, monitor=monitor), UNSET)
    assert monitored(made(object, monitor=("val/loss", "min")), UNSET) == ("val/loss", "min")
