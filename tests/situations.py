"""What fails and says what to type: a row a message, for `test_remedies.py`.

A message is named by a part of it. Where what it proposes cannot be run here, `NOT_RUN` says why.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from remedies import messages
from torch import nn

import lightning_cam as lc
from lightning_cam.commands.faults import fault
from lightning_cam.commands.train_settings import filled
from lightning_cam.data.core.base import require_some
from lightning_cam.data.core.listing import Listing, check_classes
from lightning_cam.errors import UserError
from lightning_cam.explaining.clip_sources import clips_of_files, eligible, open_split
from lightning_cam.metrics.explaining_again import say_left_out
from lightning_cam.models.inflate import inflate
from lightning_cam.models.stems import stem_weights


class Situation(NamedTuple):
    """A command that fails with a message.

    Attributes:
        line: the command and its settings; "words" checks and composes what is typed, "map"
            explains noise by a method, and all others stop where their work begins.
        fills: what is typed in place of words in capitals.
        said: the message, where no command is made to fail with it; the line is then one that
            has room for what it proposes.
        instead: other keys that go when one is typed.
    """

    line: str
    fills: Mapping[str, str] = {}
    said: Callable[[], str] | None = None
    instead: Mapping[str, tuple[str, ...]] = {}


TINY = (
    "data.root=data data.groups=5 data.clips=2 data.size=32 data.actions=[blink,expand,move_left] "
    "data.train_groups=[1,2,3] data.val_groups=[4] data.test_groups=[5] data.batch_size=6 "
    "data.resize=32 data.crop=32 "
    "trainer=cpu logger=none"
)
TRAIN = f"train {TINY} explain=none"
EXPLAIN = "explain ckpt=net.ckpt explain=[gradcam] measure=none clips=1"
STUDY = "explain ckpt=net.ckpt study=methods_tiny data.split=val out=study"
KITTI = (
    "check decode=false out=null data=kitti_odometry data.train=[0,1] data.val=[9] data.test=[9]"
)
CHECK = "check decode=false out=null"
CAMERA = {"FX": "75", "FY": "76", "CX": "63.5", "CY": "19.4"}


class Looped(nn.Module):
    """Convolutions, and something between the first two."""

    def __init__(self, behind: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 3, 3, padding=1)
        self.behind = behind
        self.mid, self.last = nn.Conv3d(3, 3, 3), nn.Conv3d(3, 3, 1)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return self.last(self.mid(self.behind(self.conv(clip))).relu()).mean((2, 3, 4))


class Bare(nn.Sequential):
    """A classifier that names no layers."""

    def __init__(self) -> None:
        conv = nn.Conv3d(3, 3, 3, stride=4)
        super().__init__(conv, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(3, 3))


class Odd(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.cumsum(2).erfinv()


NETS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: Looped(nn.Identity()),
    "dim": lambda: Looped(nn.Tanh()),
    "odd": lambda: Looped(Odd()),
    "scripted": lambda: Looped(torch.jit.script(nn.Conv3d(3, 3, 1))),  # type: ignore[no-untyped-call]
}


def says(function: Callable[..., object], *given: Any) -> Callable[[], str]:
    """What a function says: of an error, or in a warning."""

    def said() -> str:
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            try:
                function(*given)
            except UserError as error:
                return str(error)
        return str(noted[0].message)

    return said


def source(part: str) -> Callable[[], str]:
    """A message as it stands in the source."""
    return lambda: next(text for _, text in messages() if part in text)


SITUATIONS: dict[str, Situation] = {
    # what is typed
    "is not KEY=VALUE; did you mean": Situation("words explain explain=[gradcam] net.ckpt"),
    "unknown switch": Situation("words train --seed=3"),
    "none at all type": Situation("words train explain=null"),
    "is the name of a file; use": Situation(
        "words train model={_target_:torch.nn.Identity}",
        {"NAME": "lrcn"},
        instead={"task.model": ("model",)},
    ),
    "=NAME, one of": Situation("words check", {"NAME": "ucf11"}),
    "which is not chosen; add": Situation(
        "words explain ckpt=net.ckpt explain=[gradcam] measure.gini.x=4",
        instead={"measure": ("measure.gini.x",)},
    ),
    "; if its class takes it, type +": Situation(
        "words train task.optimizer.momentum=0.9", {"VALUE": "0.9"}
    ),
    "minutes= is for a whole data set": Situation(
        "explain ckpt=net.ckpt explain=[gradcam] measure=none minutes=5"
    ),
    "must be days, hours, minutes": Situation(f"{TRAIN} trainer.max_time=90"),
    "the checkpoint remembers its data: leave out": Situation(
        "words explain ckpt=net.ckpt data=ucf11",
        {"FOLDER": "data"},
        instead={"data.root": ("data",)},
    ),
    "quote the value, type": Situation("words train name=a(b"),
    "(fine-tuning) type": Situation(
        "words train ckpt_path=net.ckpt",
        instead={"model.weights": ("ckpt_path",), "resume": ("ckpt_path",)},
    ),
    "the checkpoint to explain is called ckpt here": Situation(
        "words explain ckpt_path=net.ckpt", instead={"ckpt": ("ckpt_path",)}
    ),
    "a study takes checkpoints of this program only": Situation(
        f"{STUDY} model.name=mine.Net", instead={"model": ("model.name",)}
    ),
    " remembers its model and data; leave out": Situation(
        f"{EXPLAIN} model.name=lightning_cam.tasks.VideoClassification",
        instead={"model": ("model.name",)},
    ),
    "; add {}=VALUE": Situation(f"{TRAIN} name=null", {"VALUE": "a"}),
    # training
    "explain=as_trained is for the command explain": Situation(
        f"train {TINY} explain=[as_trained]"
    ),
    "measures maps, and explain=none makes none": Situation(f"{TRAIN} measure=[gini]"),
    "names no target layer for": Situation(
        f"train {TINY} explain=[gradcam] task.model={{_target_:situations.Bare}}"
    ),
    "task.class_weights=balanced: ": Situation(
        f"{TRAIN} task.class_weights=balanced",
        said=says(filled, {"task": {"class_weights": "balanced"}, "data": {}}, ["a"], 3, object()),
    ),
    "of one class a clip take task=classification": Situation(
        f"{TRAIN} task=multilabel", said=source("of one class a clip take task=classification")
    ),
    "of several a clip take task=multilabel": Situation(
        TRAIN, said=source("of several a clip take task=multilabel")
    ),
    "needs clips of one label each": Situation(
        f"{TRAIN} data.balanced=true", said=source("needs clips of one label each")
    ),
    "choose a larger disk": Situation(
        f"{TRAIN} data.cache=disk data.cache_gb=1e-6",
        {"DIR": "kept_clips"},
        said=source("choose a larger disk"),
    ),
    "one for each class; or set task.class_weights": Situation(f"{TRAIN} task.class_weights=[1,2]"),
    "is more of": Situation(
        f"train {TINY} explain=[gradcam] measure=[gini] monitor=explain/gradcam/gini"
    ),
    "; choose one with monitor=NAME": Situation(f"{TRAIN} monitor=val/macc", {"NAME": "val/acc"}),
    "set task.channels_last=false": Situation(f"{TRAIN} task.channels_last=true"),
    "needs step logits": Situation(f"{TRAIN} model=r3d_small task.step_loss=0.5"),
    "needs a part named 'trunk'": Situation(
        f"{TRAIN} task.model={{_target_:situations.Bare}} task.trunk_lr_factor=0.1"
    ),
    "cannot go with explainability masks": Situation(
        "train data=kitti_odometry data.root=kitti data.train=[0,1] data.val=[9] data.test=[9] "
        "task=sfm model=sfm_small explain=none logger=none trainer=cpu "
        "task.loss.min_reprojection=true model.pose.masks=true"
    ),
    "model.stem=zero_ir is for RGB and more": Situation(
        f"{TRAIN} model=r3d_small model.stem=zero_ir"
    ),
    "finds no convolution to inflate": Situation(
        f"{TRAIN} model=inflated_small model.mode=333",
        said=says(inflate, nn.Sequential(nn.Conv2d(3, 3, 1)), "333"),
    ),
    "segments of": Situation(
        f"fit {TINY} explain=none model=pan_small model.segments=2 model.frames=2"
    ),
    "; try trainer=cpu": Situation(
        f"{TRAIN} trainer.accelerator=cuda".replace("trainer=cpu ", ""),
        instead={"trainer": ("trainer.accelerator",)},
    ),
    "smaller data.batch_size=N": Situation(
        TRAIN, {"N": "2"}, said=lambda: fault(torch.OutOfMemoryError(), training=True)
    ),
    ", or set data.num_workers=0 data.cache": Situation(
        TRAIN, said=lambda: fault(MemoryError(), training=True)
    ),
    "a loader process was killed": Situation(
        TRAIN, said=lambda: fault(RuntimeError("DataLoader worker (pid 7) is killed by signal"))
    ),
    "did not answer for two minutes": Situation(
        TRAIN, said=lambda: fault(RuntimeError("DataLoader timed out after 120 seconds"))
    ),
    "take device=cpu": Situation(EXPLAIN, said=lambda: fault(torch.OutOfMemoryError())),
    "cannot start from weights for RGB": Situation(
        f"{TRAIN} model=r3d_small", said=says(stem_weights, torch.zeros(1, 3, 1, 1, 1), 2)
    ),
    # data
    "expected {}; set data.root=FOLDER": Situation(
        f"{CHECK} data=folder data.root=absent", {"FOLDER": "folder"}
    ),
    "no videos in class folders of": Situation(
        f"{CHECK} data=folder data.root=empty", {"FOLDER": "folder"}
    ),
    "no HMDB51 data at": Situation(f"{CHECK} data=hmdb51 data.root=absent", {"FOLDER": "hmdb51"}),
    "no split lists at": Situation(
        f"{CHECK} data=hmdb51 data.root=folder", {"FOLDER": "hmdb51/testTrainMulti_7030_splits"}
    ),
    "its class folder is not there; unpack it": Situation(
        f"{CHECK} data=hmdb51 data.root=hmdb51",
        {"NAME": "clap"},
        said=source("its class folder is not there; unpack it"),
    ),
    "no Kinetics data at": Situation(
        f"{CHECK} data=kinetics data.root=absent", {"FOLDER": "kinetics"}
    ),
    "no train.csv in": Situation(
        f"{CHECK} data=kinetics data.root=csvless", {"FOLDER": "kinetics"}
    ),
    "none of the clips that": Situation(
        f"{CHECK} data=kinetics data.root=empty data.lists=kinetics", {"FOLDER": "kinetics"}
    ),
    "both versions are in": Situation(
        f"{CHECK} data=something data.root=something data.version=null"
    ),
    "ask for the data at the Qualcomm": Situation(
        f"{CHECK} data=something data.root=absent data.version=1", {"FOLDER": "something"}
    ),
    "ask Fraunhofer IOSB": Situation(
        f"{CHECK} data=multispectral data.root=absent", {"FOLDER": "multispectral"}
    ),
    "lacks the folder": Situation(f"{CHECK} data=multispectral data.root=ir data.spectrum=tv"),
    "have 16 bits: say what is black": Situation(f"{CHECK} data=multispectral data.root=deep"),
    "has 16 bits; say what is black": Situation(
        f"{CHECK} data=multispectral data.root=deep",
        {"LOW": "1000", "HIGH": "2200"},
        said=source("has 16 bits; say what is black"),
    ),
    "no UCF11 data at": Situation(f"{CHECK} data=ucf11 data.root=absent", {"FOLDER": "ucf11"}),
    "no videos ({}) in": Situation(f"{CHECK} data=ucf11 data.root=empty", {"FOLDER": "ucf11"}),
    "to where the data are": Situation(
        f"{CHECK} data=folder data.root=absent",
        {"FOLDER": "folder"},
        said=says(require_some, "absent", Listing([], [], [], [], [])),
    ),
    "the classes in": Situation(
        f"{CHECK} data=folder data.root=folder",
        {"FOLDER": "lopsided"},
        said=says(check_classes, ["a"], ["b"], "folder"),
    ),
    "which SfMLearner's prepare_train_data.py writes": Situation(
        f"{CHECK} data=kitti_formatted data.root=absent", {"FOLDER": "formatted"}
    ),
    "no KITTI odometry in": Situation(f"{KITTI} data.root=absent", {"FOLDER": "kitti"}),
    "there is no {}: unpack data_odometry_calib": Situation(
        f"{KITTI} data.root=bare", CAMERA, said=source("unpack data_odometry_calib")
    ),
    "has no row": Situation(f"{KITTI} data.root=torn", CAMERA, said=source("has no row {} of 12")),
    "in {} or above it: copy it": Situation(
        f"{KITTI} data.root=kitti", CAMERA, said=source("or above it: copy it")
    ),
    "nothing tells the intrinsics": Situation(
        f"{KITTI} data.root=kitti", CAMERA, said=source("nothing tells the intrinsics")
    ),
    "the intrinsics do not fit": Situation(
        f"{KITTI} data.root=kitti", CAMERA, said=source("the intrinsics do not fit")
    ),
    "mend the calibration, or set": Situation(
        f"{KITTI} data.root=kitti", CAMERA, said=source("mend the calibration, or set")
    ),
    "no KITTI raw data at": Situation(
        f"{CHECK} data=kitti_raw data.root=absent", {"FOLDER": "raw"}
    ),
    "it has no images; unpack the drive": Situation(
        f"{CHECK} data=kitti_raw data.root=raw",
        {"NAME": "image_03"},
        said=source("it has no images; unpack the drive"),
    ),
    "give the rate at which its images": Situation(
        f"{CHECK} data=folder data.root=folder", said=source("give the rate at which its images")
    ),
    "train with every frame, whatever its": Situation(
        f"{CHECK} data=folder data.root=folder", said=source("train with every frame, whatever its")
    ),
    "s; remove it, or set": Situation(
        f"{CHECK} data=folder data.root=folder",
        said=lambda: source("s; remove it, or set")().format("3", "30"),
    ),
    "; or choose out=FILE": Situation(
        "check decode=false data=folder data.root=lopsided out=net.ckpt/x", {"FILE": "problems.csv"}
    ),
    "cannot render": Situation(f"{CHECK} data=synthetic data.root=net.ckpt/x", {"FOLDER": "new"}),
    "nothing was touched, move it away": Situation(
        f"{CHECK} data=synthetic data.root=folder", {"FOLDER": "new"}
    ),
    # published annotations
    "no annotations at": Situation(
        f"{CHECK} data=folder data.root=acts data.annotations=absent", {"PATH": "pyannot.pkl"}
    ),
    "holds no annotations that are known": Situation(
        f"{CHECK} data=folder data.root=acts data.annotations=net.ckpt", {"PATH": "pyannot.pkl"}
    ),
    "the annotations {} have none of": Situation(
        f"{CHECK} data=folder data.root=acts data.annotations=others.pkl", {"PATH": "pyannot.pkl"}
    ),
    "get pyannot.pkl again": Situation(
        f"{CHECK} data=folder data.root=acts data.annotations=torn.pkl"
    ),
    "(line {}: {}); get the file again": Situation(
        f"{CHECK} data=folder data.root=acts data.annotations=epic"
    ),
    "cannot read annotations {} ({}); get the file": Situation(
        f"{CHECK} data=folder data.root=acts data.annotations=boxes.json"
    ),
    # explaining
    "choose methods, for example": Situation("explain ckpt=net.ckpt explain=none"),
    "is not a method; choose some": Situation(
        "explain ckpt=net.ckpt explain=none +explain.a._target_=torch.nn.Identity",
        instead={"explain": ("explain.a._target_",)},
    ),
    "cannot be used ({}); try device=cpu": Situation(f"{EXPLAIN} device=cuda:77"),
    "is unknown; use layers=list": Situation(
        f"{EXPLAIN} layers=all", {"NAME": "trunk.conv3"}, instead={"layer": ("layers",)}
    ),
    "cannot read a file: give it a method": Situation(
        f"{EXPLAIN} video=clip.mp4", said=says(clips_of_files, Path("clip.mp4"), object())
    ),
    "cannot open clips to be explained": Situation(
        EXPLAIN, {"PATH": "clip.mp4"}, said=says(open_split, object(), "val", False)
    ),
    "split has no clips{}; choose another": Situation(
        f"{EXPLAIN} data.split=train", said=says(eligible, SimpleNamespace(clips=[]), "train")
    ),
    "no data at {}, which the checkpoint": Situation(
        EXPLAIN.replace("net.", "moved."), {"FOLDER": "data"}
    ),
    "is there already and not of an earlier": Situation(f"{EXPLAIN} out=out", {"DIR": "new_out"}),
    "; to explain them again, remove": Situation(
        f"{EXPLAIN} out=new_out", {"DIR": "other_out"}, said=source("; to explain them again")
    ),
    "cannot write to {}; choose out": Situation(f"{EXPLAIN} out=net.ckpt/x", {"DIR": "new_out"}),
    "has rows but no": Situation(f"{EXPLAIN} out=rows", {"DIR": "new_out"}),
    "go on with the same settings, choose": Situation(f"{EXPLAIN} out=other", {"DIR": "new_out"}),
    "cannot read {} ({}); choose": Situation(f"{EXPLAIN} out=torn_out", {"DIR": "new_out"}),
    "another process is writing": Situation(
        f"{EXPLAIN} out=busy", {"DIR": "new_out"}, said=source("another process is writing")
    ),
    "needs true classes, which a video": Situation(f"{EXPLAIN} video=clip.mp4 select=correct"),
    "is for a video file; add": Situation(f"{EXPLAIN} windows=all", {"FILE": "clip.mp4"}),
    "it has no step from": Situation(
        f"{EXPLAIN} video=clip.mp4 start=900", said=source("it has no step from")
    ),
    "size=original is of a whole video": Situation(
        f"{EXPLAIN} video=clip.mp4 size=original windows=centre"
    ),
    "; set windows=centre, or leave it out": Situation(
        f"{EXPLAIN} video=clip.mp4 windows=all contrast=blink"
    ),
    "; leave out {}= or compose=": Situation(f"{EXPLAIN} compose=joined select=correct"),
    "compose=joined needs clips of two": Situation(
        EXPLAIN, said=source("compose=joined needs clips of two")
    ),
    "must be a mapping; choose some with measure": Situation(
        f"train {TINY} explain=[gradcam]",
        said=source("must be a mapping; choose some with measure"),
    ),
    "has settings, but is not chosen": Situation(f"{EXPLAIN} +measure.deletion.steps=4"),
    "is not a measure; give it": Situation(
        f"{EXPLAIN} +measure.a._target_=lightning_cam.GradCAM",
        instead={"measure": ("measure.a._target_",)},
    ),
    "allow it with measure": Situation(
        f"{EXPLAIN} measure=[max_sensitivity]",
        said=says(say_left_out, lc.GradCAM(), 3, "max_sensitivity"),
    ),
    "; if that is meant, add": Situation(EXPLAIN.replace("net.", "fast.")),
    "of absurd size; choose methods": Situation(
        "explain ckpt=absurd.ckpt explain=as_trained measure=none clips=1"
    ),
    "it is not in a trusted package": Situation(
        "explain ckpt=strange.ckpt explain=as_trained measure=none clips=1"
    ),
    # studies
    "measure is empty: leave out": Situation(f"{STUDY} measure=none"),
    "needs random maps; set": Situation(f"{STUDY} study.random_seeds=0"),
    "must say above or below": Situation(
        f"{STUDY} +study.claims.a.says=x +study.claims.a.value=rise "
    ),
    "cannot be held against random maps": Situation(
        f"{STUDY} study.claims.noise.measures=[random_weights]"
    ),
    "so that no claim can be decided": Situation(
        f"{STUDY} measure=[energy_actor]", said=source("so that no claim can be decided")
    ),
    "compose={} explains classes": Situation(f"{STUDY} compose=joined study.columns=[blink]"),
    "say which to explain, study.columns": Situation(
        STUDY,
        said=lambda: source("say which to explain, study.columns")().format("a", "blink", "blink"),
    ),
    "choose other measures, measure": Situation(
        f"{STUDY} study.claims=null", said=source("choose other measures, measure")
    ),
    # methods
    "CAM is for networks": Situation("map dim explain=[cam]"),
    "has no output steps": Situation(
        "map plain explain=[recurrent_gradcam] explain.recurrent_gradcam.step=-1",
        {"NAME": "recurrent_gradcam"},
    ),
    "map is 0: no mask": Situation(
        "map dim explain=[sidu] explain.sidu.threshold=9", {"NAME": "sidu"}
    ),
    "has no rule for what torch.jit": Situation("map scripted explain=[lrp]"),
    "and a plain gradient in its place": Situation("map odd explain=[lrp]", {"NAME": "mid"}),
    "comes from no layer with weights": Situation("map plain explain=[lrp] layer=last"),
    "is for joint attention, from all": Situation("map plain explain=[attention_rollout]"),
    "is for joint attention, and": Situation(
        "map plain explain=[attention_rollout]", said=source("is for joint attention, and")
    ),
    "takes all attentions of": Situation(
        "map plain explain=[attention_rollout]", said=source("takes all attentions of")
    ),
    "holds every softmax still": Situation(
        "map plain explain=[conservative_propagation]", said=source("holds every softmax still")
    ),
    "add_bias_kv or add_zero_attn": Situation(
        "map plain explain=[conservative_propagation]", said=source("add_bias_kv or add_zero_attn")
    ),
    "needs gradients, and none come": Situation(
        "map plain explain=[gradcam]", said=source("needs gradients, and none come")
    ),
    "sees no more than": Situation("map plain explain=[gradcam]", said=source("sees no more than")),
    "do not come through re-entrant checkpoints": Situation(
        "map plain explain=[gradient]", said=source("do not come through re-entrant checkpoints")
    ),
    "computes once more in the backward": Situation(
        "map plain explain=[lrp]", said=source("computes once more in the backward")
    ),
    "with maps of different sizes": Situation(
        "map plain explain=[gradcam]", said=source("with maps of different sizes")
    ),
    "was scripted or traced": Situation(
        "map plain explain=[gradcam]", said=source("was scripted or traced")
    ),
    "puts a part of the network into each process": Situation(f"{TRAIN} trainer.strategy=fsdp"),
    "can end with different weights": Situation(
        f"{TRAIN} trainer.strategy={{_target_:lightning.pytorch.strategies.DDPStrategy,"
        "static_graph:true}"
    ),
    "is for GPUs, and this trains on the CPU": Situation(f"{TRAIN} trainer.sync_batchnorm=true"),
    "must be even in height": Situation(
        f"{TRAIN} model=video_vit model.size=32 model.tubelet=[2,1,8]"
    ),
}

TRAINED = "needs a network that was trained for minutes"
RUN_BY = "run by "
OF_OWN = f"{RUN_BY}test_own_checkpoint.py::"
NOT_RUN: dict[str, str] = {  # and why
    "the ground truth of these clips is not known": TRAINED,
    "of which the network is sure": TRAINED,
    "clip is recognised; choose another": TRAINED,
    "the network takes no": TRAINED,
    "cannot download the weights of": "downloads",
    "pip install zennit": "downloads",
    "pip install scikit-learn": "downloads",
    "is not installed: pip install efficientnet": "downloads",
    "LOCAL_RANK={} must be a number": "needs a GPU",
    "started by a launcher that is not known": "needs several processes",
    "has not said within {} s where to work": "needs several machines",
    "has checkpoints, which a new run would write over": "needs torchrun",
    "this torchrun keeps no store": "needs torchrun",
    "a sweep (-m) cannot use": "needs several runs",
    "needs pip install hydra-submitit-launcher": "downloads",
    "could not rebuild": "says what a program has to change",
    "Each has a help of its own": f"{RUN_BY}test_install.py::test_the_module_runs_every_command",
    "next         ": f"{RUN_BY}test_remedies.py::test_what_training_proposes_next_works",
    "of a LightningModule of your own, such as": f"{OF_OWN}test_what_is_missing_is_named",
    "needs a class; add model=": f"{OF_OWN}test_mistakes_in_what_is_said",
    "does not know what its columns are called": (
        f"{OF_OWN}test_a_plain_checkpoint_and_a_folder_of_classes"
    ),
    "was written without lightning_cam, so say what": f"{OF_OWN}test_what_is_missing_is_named",
    "is made with more than the checkpoint remembers": (
        f"{OF_OWN}test_arguments_that_the_checkpoint_does_not_have"
    ),
    "give what it was made with in training": (
        f"{OF_OWN}test_arguments_that_the_checkpoint_does_not_have"
    ),
    "; layers=list prints them all": f"{OF_OWN}test_what_is_missing_is_named",
    "has no forward; say which network": (
        f"{OF_OWN}test_how_a_network_is_to_be_called_is_said_in_settings"
    ),
    ", and if a network in it takes the clip": (
        f"{OF_OWN}test_how_a_network_is_to_be_called_is_said_in_settings"
    ),
    "is of a written video; add out=": "an argument of explain_video, see tests/test_long_video.py",
    "names them all": "no setting: the data set is the one in use",
}
