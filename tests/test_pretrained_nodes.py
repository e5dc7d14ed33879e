"""Published weights by settings: loaded by the user alone, remembered by class and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_cam.errors import CheckpointError, ConfigError
from lightning_cam.training.build import build, rebuildable, strangers
from lightning_cam.training.pretrained_nodes import with_weights

_BASE = type("PreTrainedConfig", (), {"__module__": "transformers.configuration_utils"})


class Settings(_BASE):  # type: ignore[misc, valid-type]
    """Stands for a class of Hugging Face's settings."""

    def __init__(self, size: int = 1, num_labels: int = 2, act: str = "gelu", **_: Any) -> None:
        self.size, self.num_labels, self.act = size, num_labels, act

    def to_diff_dict(self) -> dict[str, Any]:
        return {"size": self.size, "act": self.act, "_name_or_path": "owner/name",
                "id2label": {0: "open / close"}, "model_type": "net"}  # fmt: skip


class Net(nn.Linear):
    """Stands for a network of Hugging Face's."""

    def __init__(self, config: Settings) -> None:
        super().__init__(config.size, config.num_labels)
        self.config = config

    @classmethod
    def from_pretrained(cls, path: str, **more: Any) -> Net:
        if not Path(path).is_dir():
            raise OSError(f"couldn't connect to load {path}")
        net = cls(Settings(3, **more))
        nn.init.ones_(net.weight)
        return net.eval()


class Other(nn.Identity):
    """A network without settings."""

    @classmethod
    def from_pretrained(cls) -> Other:
        return cls()


class Around(nn.Module):
    """A network around another."""

    def __init__(self, trunk: nn.Module, width: int) -> None:
        super().__init__()
        self.trunk, self.width = trunk, width


def node(cls: type, **more: Any) -> dict[str, Any]:
    return {"_target_": f"{__name__}.{cls.__name__}", **more}


def loading(cls: type, **more: Any) -> dict[str, Any]:
    return {"_target_": f"{__name__}.{cls.__name__}.from_pretrained", **more}


@pytest.mark.attack
def test_published_weights_are_loaded_once_and_remembered_as_settings(tmp_path: Path) -> None:
    """A network whose settings name a folder of weights, within another of the user's own."""
    trunk = loading(Net, path=str(tmp_path), num_labels=4)
    loaded, remembered = with_weights({"model": node(Around, trunk=trunk, width=2), "lr": [0.1]})
    assert remembered["lr"] == [0.1]
    config = node(Settings, size=3, act="gelu", num_labels=4)
    assert remembered["model"] == node(Around, trunk=node(Net, config=config), width=2)
    net = build(loaded["model"]).trunk
    assert net.training and net.weight.eq(1).all()  # Lightning leaves the mode as it is
    rebuildable(remembered)
    again = build(remembered["model"], (__name__,)).trunk
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.weight, net.weight)
    assert strangers(remembered) == {f"{__name__}.{n}" for n in ("Around", "Net", "Settings")}


@pytest.mark.attack
def test_no_checkpoint_may_ask_for_weights(tmp_path: Path) -> None:
    """A checkpoint that names a network's from_pretrained, trusted or not."""
    for trust in ((), (__name__,), (f"{__name__}.Net.from_pretrained",)):
        with pytest.raises(CheckpointError, match=r"refused to call .*\.from_pretrained': it"):
            build(loading(Net, path=str(tmp_path)), trust, "task.model")


@pytest.mark.attack
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (loading(Net, pretrained_model_name_or_path="nowhere", path="nowhere"),
         "model: .* cannot load nowhere, no folder here: couldn't connect"),
        (loading(Net, path=".", pretrained_model_name_or_path=".", size=4), "load the folder .:"),
        (loading(Settings), "Settings has no from_pretrained"),
        (loading(Other), "no settings of transformers; derive a class"),
        (loading(Net, path=".", act="owner/kernel"), "would be downloaded and run"),
        ({"_target_": "Net.from_pretrained"}, "cannot find 'Net'"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_or_remembered_is_named(asked: dict[str, Any], said: str) -> None:
    """Folders that are not there, networks that no checkpoint could bring back."""
    with pytest.raises(ConfigError, match=said):
        with_weights(asked, "model")


def test_weights_of_hugging_face_in_settings(tmp_path: Path) -> None:
    hf = pytest.importorskip("transformers", reason="transformers is not installed")
    sizes = {"image_size": 16, "patch_size": 8, "num_frames": 4, "hidden_size": 8,
             "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}  # fmt: skip
    hf.VideoMAEForVideoClassification(hf.VideoMAEConfig(**sizes)).save_pretrained(tmp_path)
    names = ("transformers.VideoMAEForVideoClassification", "transformers.VideoMAEConfig")
    asked = {"_target_": f"{names[0]}.from_pretrained", "num_labels": 3}
    asked["pretrained_model_name_or_path"] = str(tmp_path)
    with pytest.raises(ConfigError, match="add ignore_mismatched_sizes: true"):
        with_weights(asked, "task.model")
    net, remembered = with_weights({**asked, "ignore_mismatched_sizes": True}, "task.model")
    assert net.training and strangers(remembered) == set(names)
    again = build(remembered, names)
    again.load_state_dict(net.state_dict())
    clip = torch.randn(1, 4, 3, 16, 16)
    assert torch.equal(again.eval()(clip).logits, net.eval()(clip).logits)
