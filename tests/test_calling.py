"""Networks that take more than a clip or return more than the classes, by settings of the task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import Gap3d, Heads, batch_of, clip_of
from test_inputs import Packed
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.commands.train_settings import filled
from lightning_cam.errors import ConfigError, UnknownNameError, UserError
from lightning_cam.tasks import MultiLabelClassification, VideoClassification

CLASSES = ["open", "close", "lift"]


def clips() -> Tensor:
    return 3 * clip_of(2, 3, 4, 8, 8)


@pytest.mark.parametrize(
    ("together", "outputs"),
    [
        (lambda verb, noun: {"noun": noun, "verb": verb}, "verb"),
        (lambda verb, noun: (noun, verb), 1),
        (lambda verb, noun: (verb, None), None),
        (lambda verb, noun: {"logits": verb, "noun": noun}, None),
    ],
    ids=["key", "number", "one tensor", "logits"],
)
def test_the_tensor_of_the_classes_is_named(
    together: Callable[[Tensor, Tensor], Any], outputs: str | int | None
) -> None:
    task = VideoClassification(Heads(together, 3), CLASSES, outputs=outputs).eval()
    batch = {"video": clips(), "label": torch.tensor([0, 2])}
    wanted = Gap3d.forward(task.model, clips())[:, :3]
    assert torch.equal(task(clips()), wanted)
    loss = nn.functional.cross_entropy(wanted, batch["label"])
    torch.testing.assert_close(task._shared_step(batch)[0], loss)
    e = lc.explain(task.explainable(batch), lc.GradCAM(), clips())
    torch.testing.assert_close(e.outputs, wanted.detach())


HEADS = {"verb": CLASSES, "noun": ["door", "box"]}


def pair(verb: Tensor, noun: Tensor) -> dict[str, Tensor]:
    return {"verb": verb, "noun": noun}


def test_heads_are_explained_and_the_first_are_trained() -> None:
    batch = {"video": clips(), "label": torch.tensor([0, 2])}
    one = VideoClassification(Heads(pair, 3), CLASSES, outputs=HEADS).eval()
    assert one(clips()).shape == (2, 3)
    e = lc.explain(one.explainable(batch), lc.Occlusion(), clips(), "noun/box")
    assert e.outputs.shape == (2, 5) and e.target.tolist() == [4, 4]
    both = MultiLabelClassification(Heads(pair, 3), [*CLASSES, "door", "box"], outputs=HEADS).eval()
    batch["label"] = torch.tensor([[0, 0, 0, 1, 0], [0, 1, 0, 0, 0]])
    assert both(clips()).shape == (2, 5)
    assert lc.explain(both.explainable(batch), lc.GradCAM(), clips()).target.tolist() == [3, 1]
    few = MultiLabelClassification(Heads(pair, 3), CLASSES, outputs=HEADS).eval()
    batch["label"] = torch.tensor([[0, 0, 1], [0, 1, 0]])
    assert lc.explain(few.explainable(batch), lc.GradCAM(), clips()).target.tolist() == [2, 1]


@pytest.mark.parametrize("inputs", [{"lengths": "lengths"}, {"lengths": "seen", "scale": 2.0}])
def test_what_is_beside_the_clip_comes_from_the_batch(inputs: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = Packed().eval()
    task = VideoClassification(net, CLASSES, layers=["trunk.relu"], inputs=inputs).eval()
    lengths = torch.tensor([2, 4])
    batch = {"video": clips(), "label": torch.tensor([0, 2]), "seen": lengths}
    batch["valid"] = torch.arange(4) < lengths[:, None]
    wanted = net(clips(), lengths, scale=inputs.get("scale", 1.0))
    loss = nn.functional.cross_entropy(wanted, batch["label"])
    torch.testing.assert_close(task._shared_step(batch)[0], loss)
    e = lc.explain(task.explainable(batch), lc.Occlusion(), clips(), 1)
    torch.testing.assert_close(e.outputs, wanted.detach())
    expected = lc.Explainable.of(
        net, ["trunk.relu"], inputs={"lengths": lengths, "scale": inputs.get("scale", 1.0)}
    )
    assert torch.equal(e.heatmap, lc.explain(expected, lc.Occlusion(), clips(), 1).heatmap)


@pytest.mark.attack
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"outputs": "verbs"}, r"task\.outputs=verbs is no tensor.*'verb' \(2, 3\), 'noun'"),
        ({"outputs": 0}, r"task\.outputs=0 is no tensor of what Heads returns"),
        ({}, r"returns a dict with 'verb' \(2, 3\).*task\.outputs=KEY"),
        ({"outputs": {"noun": ["door", "box"]}}, "have to begin with the classes in their order"),
        ({"outputs": {"verb": CLASSES, "tool": ["a"]}}, "no tensor under 'tool'"),
        ({"inputs": {"lengths": "lengths"}}, "no input of the network 'lengths'"),
    ],
)
def test_what_is_not_there_is_named(settings: dict[str, Any], said: str) -> None:
    """Settings that name a tensor, a head or an input that the network does not have."""
    with pytest.raises(UserError, match=said):
        task = VideoClassification(Heads(pair, 3), CLASSES, **settings)
        task.training_step(batch_of(clips()) | {"label": torch.tensor([0, 1])}, 0)


@pytest.mark.attack
def test_a_batch_without_the_input_is_named() -> None:
    """An input of the network that is to come from a key which batches do not have."""
    task = VideoClassification(Packed(), CLASSES, inputs={"lengths": "length"})
    with pytest.raises(ConfigError, match=r"batches have no 'length' for the input 'lengths'"):
        task.explainable({"video": clips()})
    with pytest.raises(UnknownNameError, match="no input of the network 'lenghts'"):
        VideoClassification(Packed(), CLASSES, inputs={"lenghts": "lengths"})


def test_the_number_of_classes_is_filled_in_wherever_it_is_null() -> None:
    net = {"_target_": "a.B", "config": {"_target_": "a.C", "num_labels": None, "width": None}}
    config = {"task": {"model": net}, "data": {}}
    found = filled(config, CLASSES, 3, None)["task"]["model"]
    assert found["config"] == {"_target_": "a.C", "num_labels": 3, "width": None}


def test_hugging_face_networks_are_trained_as_they_are_called() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.VideoMAEConfig(
        image_size=16, patch_size=8, num_frames=4, tubelet_size=2, hidden_size=8, num_labels=3,
        num_hidden_layers=2, num_attention_heads=2, intermediate_size=8,
    )  # fmt: skip
    net = transformers.VideoMAEForVideoClassification(config).eval()
    task = VideoClassification(net, CLASSES).eval()
    batch = {"video": clip_of(2, 3, 4, 16, 16), "label": torch.tensor([0, 2])}
    wanted = net(batch["video"].transpose(1, 2)).logits
    loss = nn.functional.cross_entropy(wanted, batch["label"])
    torch.testing.assert_close(task._shared_step(batch)[0], loss)
    e = lc.explain(task.explainable(batch), lc.GradCAM(relu=False), batch["video"])
    assert e.heatmap.any() and torch.equal(e.outputs, wanted.detach())
