"""What a checkpoint remembers, and what a stranger's file cannot do."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

import lightning_cam
from lightning_cam.errors import CheckpointError, ConfigError
from lightning_cam.training.build import build, locate, rebuildable, strangers
from lightning_cam.training.checkpoint import (
    KEY,
    Remember,
    load,
    plain_copy,
    rebuild,
)
from lightning_cam.training.checkpoint_io import AtomicCheckpointIO

CLASSES = ["blink", "move_left"]
TASK = {
    "_target_": "lightning_cam.tasks.VideoClassification",
    "model": {
        "_target_": "lightning_cam.models.LRCN",
        "num_outputs": 2,
        "hidden": 8,
        "readout": "attention",
    },
    "classes": CLASSES,
    "optimizer": {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 1e-3},
}
DATA = {
    "_target_": "lightning_cam.synthetic.actions.data_module.SyntheticActions",
    "root": "nowhere",
    "actions": CLASSES,
}


def remembered(task: Any = TASK, data: Any = DATA) -> dict[str, Any]:
    return copy.deepcopy(Remember(task, data, CLASSES, {"name": "n"}).memory)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build(TASK).state_dict()


@pytest.fixture
def save(tmp_path: Path, weights: dict[str, torch.Tensor]):
    def write(memory: Any = None, **changes: Any) -> Path:
        memory = remembered() if memory is None else memory
        checkpoint = {"state_dict": weights, "epoch": 3, "global_step": 40, KEY: memory, **changes}
        torch.save(checkpoint, tmp_path / "a.ckpt")
        return tmp_path / "a.ckpt"

    return write


def refused(path: Any, pattern: str, **options: Any) -> None:
    with pytest.raises(CheckpointError) as caught:
        rebuild(path, **options)
    message = str(caught.value)
    assert re.search(pattern, message), message
    assert "\n" not in message
    assert str(path) in message


def test_rebuilds_network_and_data(save, weights) -> None:
    task, data, info = rebuild(save(), data={"root": "elsewhere"})
    assert all(torch.equal(v, weights[k]) for k, v in task.state_dict().items())
    assert not task.training
    assert data.root == "elsewhere"
    assert data.classes == CLASSES == task.classes
    assert info == {
        "version": lightning_cam.__version__,
        "classes": CLASSES,
        "run": {"name": "n"},
        "epoch": 3,
        "global_step": 40,
    }


def test_memory_is_plain_and_without_optimiser() -> None:
    memory = remembered()
    assert "optimizer" not in memory["task"]
    assert memory["schema"] == 1

    def check(node: Any) -> None:
        assert type(node) in (dict, list, str, int, float, bool, type(None))
        children = list(node.values()) if isinstance(node, dict) else node
        for child in children if isinstance(children, list) else []:
            check(child)

    check(memory)
    with pytest.raises(TypeError, match="plain values only, got PosixPath"):
        plain_copy({"root": Path("x")})


@pytest.mark.attack
def test_weights_named_by_the_file_are_not_opened(save, tmp_path: Path) -> None:
    """A checkpoint names a file of weights on the user's disk."""
    memory = remembered()
    memory["task"]["model"]["weights"] = str(tmp_path / "secret.pt")
    rebuild(save(memory))  # would raise: there is no such file


@pytest.mark.attack
def test_no_node_of_a_file_opens_weights(save, tmp_path: Path, monkeypatch) -> None:
    """Data and methods that name a file of weights, as the task may."""
    opened: list[Any] = []
    for home in ("pretrained", "trunks"):
        monkeypatch.setattr(
            f"lightning_cam.models.{home}.load_weights", lambda *given: opened.append(given)
        )
    network = {
        "_target_": "lightning_cam.models.LRCN",
        "num_outputs": 2,
        "weights": str(tmp_path / "secret.pt"),
    }
    memory = remembered()
    memory["data"]["std"] = network
    refused(save(memory), "data: .*SyntheticActions")  # a network is not a standard deviation
    build({"method": [network]}, (KEY,), "explain")  # as explain.py does with run.explain
    assert not opened
    build(network)  # the user's own configuration
    assert len(opened) == 1


def test_weights_of_other_classes_are_theirs(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "someone.py").write_text(
        "from lightning_cam.models import LRCN\n"
        "class Loss:\n    def __init__(self, weights):\n        self.weights = weights\n"
        "    def __call__(self, scores):\n        return scores\n"
        "class Net(LRCN):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    loss = build({"_target_": "someone.Loss", "weights": [1, 2]}, ("someone",))
    assert loss.weights == [1, 2]
    build({"_target_": "someone.Net", "num_outputs": 2, "weights": "/nowhere"}, ("someone",))


def test_only_named_weights_of_derived_networks_are_taken_away(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "derived.py").write_text(
        "import torchvision\n"
        "from torchvision.models.video.resnet import BasicBlock, BasicStem, Conv3DSimple\n"
        "class Net(torchvision.models.video.VideoResNet):\n"
        "    def __init__(self, num_classes, **more):\n"
        "        super().__init__(BasicBlock, [Conv3DSimple] * 4, [1] * 4, BasicStem,\n"
        "                         num_classes=num_classes, **more)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    net = build({"_target_": "derived.Net", "num_classes": 2}, ("derived",))
    assert net.fc.out_features == 2


# --- functions ----------------------------------------------------------------------------------


@pytest.mark.attack
@pytest.mark.parametrize("trust", ["torchvision", "torchvision.models"])
@pytest.mark.parametrize(
    "name",
    ["datasets.utils.download_url", "io.write_file", "models.get_model", "models.video.resnet.nn"],
)
def test_functions_of_a_trusted_package_are_refused(trust: str, name: str) -> None:
    """`trust=[torchvision]` and a file that names functions which download, write or list."""
    with pytest.raises(CheckpointError, match=r"not a class of that package|trust=\["):
        locate(f"torchvision.{name}", (trust,))


@pytest.mark.attack
@pytest.mark.parametrize("trust", ["torchvision", "torchvision.datasets", "itself"])
@pytest.mark.parametrize(
    "name", ["datasets.MNIST", "datasets.FakeData", "datasets.VOCSegmentation", "datasets.Kinetics"]
)
def test_data_sets_of_a_trusted_package_download_nothing(
    trust: str, name: str, tmp_path: Path
) -> None:
    """`trust=[torchvision]`, or the class itself, and a file that asks for a download."""
    node = {"_target_": f"torchvision.{name}", "root": str(tmp_path / "x"), "download": True}
    with pytest.raises(CheckpointError, match="refused to call 'torchvision"):
        build(node, (f"torchvision.{name}" if trust == "itself" else trust,))
    assert not (tmp_path / "x").exists()


@pytest.mark.attack
def test_functions_of_other_packages_are_refused(tmp_path: Path, monkeypatch) -> None:
    """A function of a trusted module in place of a network."""
    (tmp_path / "maker.py").write_text("def make(weights=None):\n    raise SystemError\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(CheckpointError, match="not a class of that package"):
        build({"_target_": "maker.make"}, ("maker",))
    with pytest.raises(
        ConfigError, match=r"^task.model: explain.py could not rebuild 'maker.make'"
    ):
        rebuildable({"model": {"_target_": "maker.make"}}, "task")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nomod.Nope", r"^task\.model: cannot find 'nomod\.Nope': no module 'nomod'; is it"),
        ("netz.gone.Nope", "no module 'netz.gone'"),
        ("netz.Nett", "netz has no class or function 'Nett'; nearest: Net"),
        ("needy.Net", "needy cannot be imported: No module named 'absent_dependency'"),
        ("Net", "write it as MODULE.NAME"),
    ],
)
def test_names_that_are_not_there_are_said_to_be(
    name: str, message: str, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "netz").mkdir()
    (tmp_path / "netz" / "__init__.py").write_text("class Net:\n    pass\n")
    (tmp_path / "needy.py").write_text("import absent_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    node = {"model": {"_target_": name}}
    for check in (rebuildable, lambda node, where: build(node, where=where)):
        with pytest.raises(ConfigError, match=message):
            check(node, "task")


@pytest.mark.attack
def test_torchvisions_networks_get_no_weights(monkeypatch) -> None:
    """Networks of torchvision that would download weights."""

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise SystemError("downloaded")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    trust = ("torchvision.models",)
    node = {"_target_": "torchvision.models.segmentation.lraspp_mobilenet_v3_large"}
    for more in ({}, {"weights": "DEFAULT"}, {"weights_backbone": "DEFAULT"}):
        build({**node, "num_classes": 2, **more}, trust)
    with pytest.raises(CheckpointError, match="pretrained"):
        build({"_target_": "torchvision.models.alexnet", "pretrained": True}, trust)
    builders = map(torchvision.models.get_model_builder, torchvision.models.list_models())
    for builder in builders:
        assert locate(f"{builder.__module__}.{builder.__name__}", trust) is builder
        taken = {p for p in inspect.signature(builder).parameters if p.startswith("weights")}
        assert taken <= {"weights", "weights_backbone"}


@pytest.mark.attack
def test_only_torchvisions_models_need_trust() -> None:
    """What is suggested to be trusted is the single class that makes the network."""
    network = {"_target_": "torchvision.models.video.r3d_18", "num_classes": 2}
    assert strangers({**TASK, "model": network}) == {"torchvision.models.video.r3d_18"}
    assert strangers({"_target_": "torchvision.ops.MLP"}) == {"torchvision.ops.MLP"}
    with pytest.raises(CheckpointError, match=r"add trust=\[torchvision\.models\.video\.r3d_18\]$"):
        build(network, (KEY,))
    rebuildable({**TASK, "model": network})
    rebuildable(DATA)


# --- files that are broken ---------------------------------------------------------------------


def test_missing_file_names_the_newest_nearby(save) -> None:
    good = save()
    refused(good.with_name("b.ckpt"), r"no checkpoint at .*newest there: .*a\.ckpt")
    refused(good.parent, "is a folder; newest there: .*a.ckpt")
    refused("/nowhere/at/all.ckpt", "is the path right")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_truncated(save, share: float) -> None:
    path = save()
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, "truncated")


def test_empty_and_not_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(b"")
    refused(path, "empty")
    for junk in (b"hello world", os.urandom(500), b"\x80\x02."):
        path.write_bytes(junk)
        refused(path, "not a checkpoint|refused")
    torch.save([1, 2], path)
    refused(path, "not a Lightning checkpoint")
    torch.save({"state_dict": {}}, path)
    refused(path, "not a Lightning checkpoint")
    torch.save({"state_dict": {}, "epoch": 0, "global_step": 0}, path)
    refused(path, "written without lightning_cam")


def test_address_is_refused() -> None:
    for address in ("http://x.org/a.ckpt", "https://x.org/a.ckpt", "S3://bucket/a.ckpt"):
        refused(address, "refused: download the file")


@pytest.mark.parametrize("schema", [2, 0, None, "1", [1]])
def test_other_schema(save, schema: Any) -> None:
    refused(save({**remembered(), "schema": schema}), "this version reads schema 1")


@pytest.mark.parametrize("part", ["task", "data", "run"])
def test_memory_without_a_part(save, part: str) -> None:
    memory = remembered()
    memory[part] = "x"
    refused(save(memory), f"does not remember its {part}")


@pytest.mark.parametrize("explain", ["x", ["x"], None, TASK["model"]])
def test_memory_of_methods_that_are_none(save, explain: Any) -> None:
    refused(save({**remembered(), "run": {"explain": explain}}), "how it was explained")


@pytest.mark.parametrize("key", ["epoch", "global_step"])
def test_no_count_of_epochs(save, key: str) -> None:
    refused(save(**{key: "x"}), f"not a Lightning checkpoint .no {key}")


def test_memory_that_is_not_plain(save) -> None:
    refused(save({**remembered(), "schema": torch.ones(2)}), "cannot be rebuilt: TypeError")


@pytest.mark.parametrize("state", [{1: torch.ones(1)}, {"model.head.bias": "x"}])
def test_state_that_is_none(save, state: Any) -> None:
    refused(save(state_dict=state), "not names and tensors")


def test_weights_that_do_not_fit(save) -> None:
    memory = remembered()
    memory["task"]["model"]["hidden"] = 9
    refused(save(memory), "do not fit .*size mismatch")


def test_wrong_arguments(save) -> None:
    memory = remembered()
    memory["task"]["model"]["hiden"] = 9
    refused(save(memory), "task.model: .*LRCN does not take .*hiden")


def test_wrong_kind_of_object(save) -> None:
    refused(
        save({**remembered(), "task": remembered()["task"]["model"]}),
        "task: lightning_cam.models.LRCN must be derived from LightningModule",
    )


# --- attacks ------------------------------------------------------------------------------------


class Evil:
    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.flag}",)


@pytest.mark.attack
def test_pickled_code_is_refused_and_not_run(save, tmp_path: Path) -> None:
    """Pickled code in a checkpoint and in a bare pickle."""
    flag = tmp_path / "pwned"
    refused(save(evil=Evil(flag)), r"refused: it holds pickled code \((posix|os)\.system\)")
    raw = tmp_path / "raw.ckpt"
    raw.write_bytes(pickle.dumps({"state_dict": Evil(flag)}, protocol=2))
    refused(raw, "not a checkpoint")
    assert not flag.exists()


ATTACKS = {
    "os.system": "os.system",
    "builtin": "builtins.eval",
    "torch.load": "torch.load",
    "prefix without a dot": "lightning_cam_evil.Thing",
    "only the package": "lightning_cam",
    "re-exported module": "lightning_cam.data.video.reading.np",
    "function of a re-exported module": "lightning_cam.data.video.reading.np.load",
    "class of a re-exported module": "lightning_cam.explaining.clip_drawing.np.memmap",
    "re-exported class": "lightning_cam.errors.Path",
    "re-exported function": "lightning_cam.commands.run_train.train",
    "class attribute": "lightning_cam.attribution.Explainable.of",
    "dunder": "lightning_cam.errors.__builtins__",
    "loader": "lightning_cam.errors.__loader__.load_module",
    "not a name": "lightning_cam.errors.Path; import os",
    "relative": ".lightning_cam.models.LRCN",
    "missing": "lightning_cam.models.Nothing",
    "a list": ["os.system"],
    "a number": 1,
    "none": None,
}


@pytest.mark.attack
@pytest.mark.parametrize("name", ATTACKS.values(), ids=ATTACKS.keys())
@pytest.mark.parametrize("where", ["task", "data", "model", "list", "deep"])
def test_names_that_are_not_trusted(save, name: Any, where: str) -> None:
    """Names of modules, functions, loaders and re-exports in place of classes, in five places."""
    memory = remembered()
    attack = {"_target_": name}
    if where in ("task", "data"):
        memory[where] = {**memory[where], **attack}
    elif where == "model":
        memory["task"]["model"] = attack
    elif where == "list":
        memory["task"]["classes"] = ["a", attack]
    else:
        memory["data"]["std"] = {"a": [{"b": attack}]}
    refused(save(memory), "refused|cannot find|not a dotted name")


@pytest.mark.attack
def test_untrusted_package_is_not_imported(save, tmp_path: Path, monkeypatch) -> None:
    """A checkpoint names a package that does something when it is imported."""
    package = tmp_path / "stranger.py"
    package.write_text(
        "import pathlib\n"
        "from torch import nn\n"
        f"pathlib.Path({str(tmp_path / 'imported')!r}).touch()\n"
        "from lightning_cam.models import LRCN\n"
        "class Net(LRCN):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    memory = remembered()
    memory["task"]["model"]["_target_"] = "stranger.Net"
    path = save(memory)
    refused(path, r"refused to import 'stranger.Net'.* add trust=\[stranger\.Net\]")
    assert not (tmp_path / "imported").exists()
    task, _, _ = rebuild(path, trust=["stranger"])
    assert type(task.model).__name__ == "Net"
    memory["task"]["model"]["_target_"] = "stranger.nn.Linear"  # trust is not inherited
    refused(save(memory), "cannot find|refused", trust=["stranger"])


def test_what_to_trust_is_complete_in_the_end(save, tmp_path: Path, monkeypatch) -> None:
    """A network and a data set of one's own: each remedy keeps what was trusted."""
    (tmp_path / "owned.py").write_text(
        "from lightning_cam.models import LRCN\n"
        "from lightning_cam.synthetic import SyntheticActions\n"
        "class Net(LRCN):\n    pass\n"
        "class Data(SyntheticActions):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    memory = remembered()
    memory["task"]["model"]["_target_"] = "owned.Net"
    memory["data"]["_target_"] = "owned.Data"
    path, trust = save(memory), []
    for name in ("owned.Net", "owned.Data"):
        with pytest.raises(CheckpointError) as caught:
            rebuild(path, trust=trust)
        (listed,) = re.findall(r"add trust=\[(.*)\]$", str(caught.value))
        assert listed.split(",") == [*trust, name]
        trust = listed.split(",")
    task, data, _ = rebuild(path, trust=trust)
    assert (type(task.model).__name__, type(data).__name__) == ("Net", "Data")


@pytest.mark.attack
def test_endless_nesting_is_one_line(save) -> None:
    """Settings that hold themselves."""
    memory = remembered()
    memory["data"]["std"] = memory["data"]
    refused(save(memory), "more than 1000000 plain values")


@pytest.mark.attack
def test_absurd_size_is_one_line(save) -> None:
    """A network of 10^15 units."""
    memory = remembered()
    memory["task"]["model"]["hidden"] = 10**15
    refused(save(memory), "task.model: .*LRCN: ")


def test_own_configuration_may_name_anything() -> None:
    assert locate("torch.optim.AdamW") is torch.optim.AdamW
    partial = build({"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.5})
    assert partial([torch.nn.Parameter(torch.ones(1))]).param_groups[0]["lr"] == 0.5
    with pytest.raises(ConfigError, match=r"model: torch.nn.Linear does not take .*'inputs'"):
        build(
            {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1, "inputs": 1},
            where="model",
        )
    with pytest.raises(ConfigError, match=r"cannot find 'torch\.nn\.Linea'"):
        build({"_target_": "torch.nn.Linea"})
    for size in ("abc", -5):  # TypeError, RuntimeError
        with pytest.raises(ConfigError, match=r"^model: torch.nn.Linear: "):
            build({"_target_": "torch.nn.Linear", "in_features": size, "out_features": 1}, None,
                  "model")  # fmt: skip


# --- writing ------------------------------------------------------------------------------------


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "c" / "last.ckpt"
    io = AtomicCheckpointIO(path.parent)
    io.save_checkpoint({"a": 1}, path)

    def half(_checkpoint: Any, file: Any) -> None:
        file.write(b"PK half")
        raise KeyboardInterrupt  # what a kill leaves behind

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        io.save_checkpoint({"a": 2}, path)
    assert torch.load(path) == {"a": 1}
    assert [f.name for f in path.parent.glob("*.ckpt")] == ["last.ckpt"]


def test_load_returns_everything(save) -> None:
    assert load(save())["epoch"] == 3


@pytest.mark.attack
def test_settings_of_hugging_face_are_built_where_they_are_trusted() -> None:
    """A checkpoint with a Hugging Face network, whose settings name code to be downloaded."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    names = ("transformers.VivitForVideoClassification", "transformers.VivitConfig")
    sizes = {"image_size": 16, "num_frames": 4, "tubelet_size": [2, 8, 8], "hidden_size": 8,
             "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}  # fmt: skip
    config = {"_target_": names[1], **sizes}
    node = {"_target_": names[0], "config": config}
    rebuildable(node)
    assert build(node, names).config.num_frames == 4
    with pytest.raises(CheckpointError, match=r"refused to import 'transformers\.VivitConfig'"):
        build(node, names[:1])
    config["attn_implementation"] = "owner/kernel"
    with pytest.raises(CheckpointError, match="would be downloaded and run"):
        build(node, names)
