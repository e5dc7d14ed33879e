"""What a wrong call of the Python API is told, in one sentence; and what is accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from nets import Gap3d, clip_of, describe
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.errors import ArgumentError, UserError
from lightning_cam.explaining import ExplainCallback

pytestmark = pytest.mark.attack
NET = Gap3d().eval()
MODEL = describe(NET)
CLIP = clip_of(2, 3, 4, 8, 8)
HEAT = clip_of(2, 4, 8, 8)
SPECTRA = {"tv": (0, 1), "ir": (2,)}

# Everything that takes a model and a clip.
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "explain": lambda model, clip: lc.explain(model, lc.GradCAM(), clip),
    "explain_contrast": lambda model, clip: lc.explain_contrast(model, lc.GradCAM(), clip, 0, 1),
    "deletion": lambda model, clip: lc.deletion(model, clip, HEAT, steps=2),
    "insertion": lambda model, clip: lc.insertion(model, clip, HEAT, steps=2),
    "Ends.of": lambda model, clip: lc.Ends.of(model, clip),
    "list_layers": lambda model, clip: lc.list_layers(model, clip),
    "spectrum_relevance": lambda model, clip: lc.spectrum_relevance(model, clip, SPECTRA),
    "step_maps": lambda model, clip: lc.step_maps(model, clip),
}
each_call = pytest.mark.parametrize("call", CALLS)


def said(call: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message and len(message) > 20
    return message


def holed(value: float) -> Tensor:
    clip = CLIP.clone()
    clip[1, 2, 3, 5, 4] = value
    return clip


@each_call
@pytest.mark.parametrize(
    ("model", "words"),
    [
        (NET, "Explainable.of(network, layers=[NAME])"),
        (nn.DataParallel(NET), "DataParallel is a network"),
        (lc.GradCAM(), "expected an Explainable first, got GradCAM; the order is"),
        (lc.Explainable, "got the class Explainable"),
        ("r3d_18", "got the text 'r3d_18'"),
        (None, "got NoneType"),
    ],
)
def test_a_model_of_a_wrong_kind(call: str, model: Any, words: str) -> None:
    """A network, its wrapper, a class, a text and None in place of a model, in eight functions."""
    assert words in said(lambda: CALLS[call](model, CLIP))


@each_call
@pytest.mark.parametrize(
    ("clip", "words"),
    [
        (CLIP.numpy(), "got ndarray; torch.from_numpy"),
        ([[1.0]], "got list"),
        (CLIP[0], "got shape (3, 4, 8, 8); one clip is clip[None]"),
        (CLIP[0, 0, 0], "got shape (8, 8)"),
        (CLIP[None], "got shape (1, 2, 3, 4, 8, 8)"),
        (CLIP[:0], "the clip (0, 3, 4, 8, 8) is empty: B = 0"),
        (CLIP[:, :, :0], "is empty: T = 0"),
        (CLIP[..., :0, :0], "is empty: H, W = 0"),
        (torch.zeros(2, 3, 4, 8, 8, dtype=torch.uint8), "of torch.uint8; .*/ 255 - mean) / std"),
        (CLIP.long(), "of torch.int64"),
        (CLIP > 0, "of torch.bool"),
        (CLIP.to(torch.complex64), "of torch.complex64"),
        (CLIP.to_sparse(), "pass clip.to_dense()"),
        (
            torch.nested.nested_tensor([CLIP[0], CLIP[0]], layout=torch.jagged),
            "pad its clips to one length",
        ),
        (CLIP.to("meta"), "the clip is on meta, Gap3d on cpu; pass clip.to('cpu')"),
        (holed(torch.nan), "clip 1 of the batch has NaN at frame 3, y 5, x 4, channel 2 (1 of"),
        (holed(torch.inf), "has inf at frame 3, y 5, x 4, channel 2"),
        (holed(-torch.inf), "has -inf at frame 3"),
    ],
)
def test_a_clip_of_a_wrong_kind(call: str, clip: Any, words: str) -> None:
    """Arrays, wrong axes, empty, whole, complex, sparse, elsewhere, not finite: eight functions."""
    message = said(lambda: CALLS[call](MODEL, clip))
    for part in words.split(".*"):
        assert part in message


def returning(what: Callable[[Tensor], Any]) -> lc.Explainable:
    class Wrapped(Gap3d):
        def forward(self, clip: Tensor) -> Any:
            return what(super().forward(clip))

    return describe(Wrapped())


@pytest.mark.parametrize("call", [name for name in CALLS if name != "step_maps"])
@pytest.mark.parametrize(
    ("what", "words"),
    [
        (
            lambda y: (y, y),
            "got tuple of tensors .* from Wrapped; .*forward=lambda clip: network(clip)[0]",
        ),
        (lambda y: [y, y], "got list of tensors .* from Wrapped"),
        (
            lambda y: {"scores": y, "loss": y.sum()},
            "got dict with 'scores' (2, 4), 'loss' () from .*network(clip)['scores']",
        ),
        (lambda y: None, "got NoneType"),
        (lambda y: y[:, :, None], "got (2, 4, 1)"),
        (lambda y: y.sum(), "got ()"),
        (lambda y: y[:1], "got (1, 4)"),
        (lambda y: y.argmax(1, keepdim=True), "of floating-point numbers, got torch.int64"),
    ],
)
def test_a_network_that_returns_no_columns(call: str, what: Any, words: str) -> None:
    """Tuples, dicts, maps, scalars and decisions from a network, in seven functions."""
    message = said(lambda: CALLS[call](returning(what), CLIP))
    assert message.startswith("expected outputs (B, K) with B=2")
    for part in words.split(".*"):
        assert part in message


@pytest.mark.parametrize("method", [lc.RISE(4), lc.SIDU(), lc.Occlusion(), lc.Gradient()], ids=repr)
def test_methods_of_other_kinds_say_the_same_of_a_network_that_returns_a_tuple(
    method: lc.Attribution,
) -> None:
    message = said(lambda: lc.explain(returning(lambda y: (y, y)), method, CLIP))
    assert "forward=lambda clip" in message


@pytest.mark.parametrize(
    "what",
    [
        lambda y: {"logits": y, "features": y},
        lambda y: {"scores": y},
        lambda y: (y, None),
        lambda y: [y],
    ],
)
def test_logits_and_a_single_tensor_are_unwrapped(what: Callable[[Tensor], Any]) -> None:
    torch.manual_seed(0)
    wanted = lc.explain(returning(lambda y: y), lc.GradCAM(), CLIP)
    torch.manual_seed(0)
    found = lc.explain(returning(what), lc.GradCAM(), CLIP)
    assert torch.equal(found.heatmap, wanted.heatmap)
    assert torch.equal(found.outputs, wanted.outputs)


def test_the_remedy_for_a_dict_works() -> None:
    network = returning(lambda y: {"scores": y, "loss": y.sum()}).module
    model = lc.Explainable.of(
        network, layers=["layer"], forward=lambda clip: network(clip)["scores"]
    )
    assert lc.explain(model, lc.GradCAM(), CLIP).outputs.shape == (2, 4)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (lc.GradCAM, "pass GradCAM() in place of the class"),
        (lc.Attribution, "pass Attribution() in place"),
        ("gradcam", "expected a method such as GradCAM(), got the text 'gradcam'"),
        (None, "got NoneType"),
        (NET, "got Gap3d; the order is"),
        (MODEL, "got Explainable"),
        ([lc.GradCAM()], "got list"),
    ],
)
def test_a_method_of_a_wrong_kind(method: Any, words: str) -> None:
    """Classes, texts, networks and lists in place of a method, in explain and the callback."""
    assert words in said(lambda: lc.explain(MODEL, method, CLIP))
    assert words in said(lambda: lc.explain_contrast(MODEL, method, CLIP, 0, 1))
    assert words in said(lambda: ExplainCallback({"a": method}))
    if not isinstance(method, list):
        assert words in said(lambda: ExplainCallback(method))


NAN = float("nan")
TARGETS: list[tuple[Any, str]] = [
    (True, "of type bool"),
    (1.0, "of type float"),
    (NAN, "target nan is of type float"),
    (np.array([True, False]), "target True is of type bool"),
    (torch.tensor([True, False]), "integer tensor (2,), got torch.bool"),
    (torch.tensor([1.0, NAN]), "got torch.float32"),
    (torch.tensor([1 + 0j, 2]), "got torch.complex64"),
    (4, "target must lie in 0..3"),
    (-1, "numbered from 0 on"),
    (10**30, "numbered from 0 on"),
    ([0, 4], "target must lie in 0..3"),
    (torch.tensor([0, -1]), "target must lie in 0..3"),
    ([1], "a target for each of 2 clips, got 1"),
    ([], "a target for each of 2 clips, got 0"),
    ((1, 2, 3), "a target for each of 2 clips, got 3"),
    (torch.tensor([[1], [2]]), "integer tensor (2,), got torch.int64 (2, 1)"),
    ([None, 1], "target None is of type NoneType"),
    ("wave", "the outputs of this model have no names"),
    (["wave", 1], "the outputs of this model have no names"),
]


@pytest.mark.parametrize(("target", "words"), TARGETS, ids=repr)
def test_a_target_of_a_wrong_kind(target: Any, words: str) -> None:
    """Bools, floats, NaN, masks, numbers out of range, wrong lengths, names that there are not."""
    assert words in said(lambda: lc.explain(MODEL, lc.GradCAM(), CLIP, target))
    assert words in said(lambda: lc.deletion(MODEL, CLIP, HEAT, target, 2))
    assert words in said(lambda: lc.spectrum_relevance(MODEL, CLIP, SPECTRA, target))
    if not isinstance(target, (list, tuple, np.ndarray, Tensor)):
        assert words in said(lambda: lc.explain_contrast(MODEL, lc.GradCAM(), CLIP, target, 1))
        assert words in said(lambda: lc.explain_contrast(MODEL, lc.GradCAM(), CLIP, 1, target))


def test_targets_and_clips_that_are_accepted() -> None:
    """Lists, arrays, clips that require gradients or are half or double precision, wrappers."""
    expected = lc.explain(MODEL, lc.GradCAM(), CLIP, torch.tensor([1, 2]))
    for target in ([1, 2], (1, 2), np.array([1, 2]), torch.tensor([1, 2], dtype=torch.uint8)):
        found = lc.explain(MODEL, lc.GradCAM(), CLIP, target)
        assert torch.equal(found.heatmap, expected.heatmap)
    shown = CLIP.clone().requires_grad_()
    found = lc.explain(MODEL, lc.GradCAM(), shown, [1, 2])
    assert torch.equal(found.heatmap, expected.heatmap) and not found.heatmap.requires_grad
    assert shown.grad is None
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        found = lc.explain(MODEL, lc.GradCAM(), CLIP.to(dtype), [1, 2])
        assert found.heatmap.dtype == torch.float32
        torch.testing.assert_close(found.outputs, expected.outputs, rtol=0.1, atol=0.1)
    for wrapped in (nn.DataParallel(NET), torch.compile(NET, backend="eager")):
        found = lc.explain(describe_of(wrapped), lc.GradCAM(), CLIP, [1, 2])
        assert torch.equal(found.heatmap, expected.heatmap)


def describe_of(module: Any) -> lc.Explainable:
    return lc.Explainable.of(module, ["layer"])


def test_weights_in_half_precision_on_the_cpu_are_explained() -> None:
    net = Gap3d().eval()
    expected = lc.explain(describe(net), lc.GradCAM(), CLIP, 1).heatmap
    found = lc.explain(describe(net.half()), lc.GradCAM(), CLIP.half(), 1).heatmap
    assert (found - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: lc.Explainable.of(NET, "layer"), "layers is the text 'layer'"),
        (lambda: lc.Explainable.of(NET, ["layer"], outputs="abcd"), "outputs is the text"),
        (lambda: lc.Explainable.of(NET, ["layer"], attention="x"), "attention is the text"),
        (lambda: lc.Explainable.of(NET, None), "layers is of type NoneType; names come as a list"),  # type: ignore[arg-type]
        (lambda: lc.Explainable.of(NET, NET), "layers is of type Gap3d; names come as a list"),  # type: ignore[arg-type]
        (lambda: lc.Explainable.of(NET, [NET]), "of type Gap3d; a name is text"),  # type: ignore[list-item]
        (lambda: lc.explain(MODEL, lc.GradCAM(), CLIP, b"\0\1"), "is of type bytes"),  # type: ignore[arg-type]
        (lambda: lc.explain(MODEL, lc.GradCAM(), CLIP, bytearray(2)), "is of type bytearray"),  # type: ignore[arg-type]
        (lambda: lc.Explainable.of(NET, ["layer"], {"a", "b"}), "outputs is of type set"),  # type: ignore[arg-type]
        (
            lambda: lc.Explainable.of(NET, ["layer"], [None, "b"]),
            "outputs has one of type NoneType",
        ),  # type: ignore[list-item]
        (
            lambda: lc.explain(describe(NET, outputs=list("abab")), lc.GradCAM(), CLIP, "b"),
            "target 'b' names 2 columns; give the number of one, such as 1",
        ),
        (lambda: lc.Explainable.of(Gap3d, ["layer"]), "got the class Gap3d"),  # type: ignore[arg-type]
        (lambda: lc.Explainable.of(lc.GradCAM(), ["layer"]), "expected a network"),  # type: ignore[arg-type]
        (lambda: lc.Explainable.of(NET, ["lair"]), "no layer 'lair'; nearest: layer"),
        (
            lambda: lc.explain(describe(NET, outputs=["a", "b"]), lc.GradCAM(), CLIP),
            "names 2 outputs, the network has 4",
        ),
        (
            lambda: lc.explain(describe(NET.__class__().to("meta")), lc.GradCAM(), CLIP),
            "weights on the meta device",
        ),
        (
            lambda: lc.explain(
                lc.Explainable.of(torch.jit.script(NET), ["layer"]), lc.GradCAM(), CLIP
            ),
            "explain the network as it was before",
        ),
        (
            lambda: lc.explain(
                lc.Explainable.of(torch.jit.script(NET), ["layer"]), lc.RISE(masks=2), CLIP
            ),
            "explain the network as it was before",
        ),
        (lambda: ExplainCallback({3: lc.GradCAM()}), "methods has the name 3"),  # type: ignore[dict-item]
        (lambda: ExplainCallback({None: lc.GradCAM()}), "methods has the name None"),  # type: ignore[dict-item]
        (lambda: ExplainCallback({"": lc.GradCAM()}), "methods has the name ''"),
        (lambda: ExplainCallback({"\udce9": lc.GradCAM()}), "methods has the name"),
        (lambda: lc.deletion(MODEL, CLIP, HEAT.numpy()), "heatmap as a tensor (2, 4, 8, 8), got"),  # type: ignore[arg-type]
        (lambda: lc.insertion(MODEL, CLIP, HEAT[0]), "its heatmap (2, 4, 8, 8), got"),
        (lambda: lc.deletion(MODEL, CLIP, HEAT / 0), "the heatmap is not finite"),
        (lambda: ExplainCallback("gradcam"), "got the text 'gradcam'"),  # type: ignore[arg-type]
        (lambda: ExplainCallback([]), "methods is empty"),
        (lambda: ExplainCallback(lc.GradCAM(), clips=None), "clips must be a number"),  # type: ignore[arg-type]
        (lambda: ExplainCallback(lc.GradCAM(), clips=True), "clips must be a number"),
        (lambda: ExplainCallback(lc.GradCAM(), clips=2.5), "clips must be a number"),  # type: ignore[arg-type]
        (lambda: ExplainCallback(lc.GradCAM(), every_n_epochs="2"), "a whole number, got '2'"),  # type: ignore[arg-type]
        (lambda: ExplainCallback(lc.GradCAM(), fps=NAN), "fps must be above 0, got nan"),
        (lambda: ExplainCallback(lc.GradCAM(), fps="8"), "fps must be above 0, got '8'"),  # type: ignore[arg-type]
    ],
)
def test_other_arguments_of_a_wrong_kind(call: Callable[[], Any], words: str) -> None:
    """Texts in place of lists, names of a wrong number, heatmaps, the callback's settings."""
    assert words in said(call)


def test_a_wrong_argument_is_also_a_value_error_and_leaves_the_network_as_it_was() -> None:
    net = Gap3d().train()
    with pytest.raises(ValueError):
        lc.explain(describe(net), lc.GradCAM(), holed(torch.nan))
    assert issubclass(ArgumentError, ValueError)
    assert all(module.training for module in net.modules())
    assert all(p.requires_grad for p in net.parameters())
    model = replace(describe(net), outputs=("a", "b"))
    with pytest.raises(UserError):
        lc.explain(model, lc.GradCAM(), CLIP)
    assert all(module.training for module in net.modules())
