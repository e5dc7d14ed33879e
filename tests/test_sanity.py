"""Sanity checks: what random weights do to maps, and what is left of the network afterwards."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from enumerated import method_classes
from nets import FoldedLSTM, Gap3d, LinearRNN, LoopedLSTM, assert_same, clip_of, describe, state
from planted import Planted, planted_clips
from scipy import stats
from test_measures import configured
from test_study import STUDY, Clips, Task, network
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.explaining.journal import Journal
from lightning_cam.metrics import (
    Explained,
    Measure,
    WeightRandomisation,
    measure,
    randomisation,
    spearman,
    verdict,
)
from lightning_cam.metrics.random_weights import Stage, drawn, stages, with_weights
from lightning_cam.study.cell_runs import measure_cells
from lightning_cam.study.design import Design
from lightning_cam.study.work_items import work_items


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def names(net: nn.Module, most: int = 8, channels: int = 3) -> list[str]:
    model = lc.Explainable.of(net.eval(), [])
    return [part.name for part in stages(model, clip_of(1, channels, 4, 8, 8), most)]


class Backwards(nn.Module):
    """Its layers are registered in another order than they run."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.norm, self.conv = nn.Linear(4, 2), nn.BatchNorm3d(4), nn.Conv3d(3, 4, 1)

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(clip)).mean((2, 3, 4)))


def test_stages_run_from_the_head_down(planted: Planted) -> None:
    parts = stages(planted.model, planted.clips[:1])
    assert [part.name for part in parts] == ["fc", "layer3", "layer2", "layer1", "stem"]
    weights = [name for part in parts for name in part.weights]
    assert sorted(weights) == sorted(dict(planted.net.named_parameters()))
    assert names(Backwards()) == ["head", "norm", "conv"]
    assert names(FoldedLSTM()) == ["head", "lstm", "trunk.conv"]
    assert names(LoopedLSTM(FoldedLSTM())) == ["head", "cell", "conv"]


def test_many_layers_are_taken_together() -> None:
    flat = nn.Sequential(*(nn.Conv3d(3, 3, 1) for _ in range(20)), nn.Flatten())
    found = names(flat)
    assert len(found) == 8 and found[0] == "18 to 19" and found[-1] == "0 to 2"
    nested = nn.Sequential(
        *(nn.Sequential(nn.Conv3d(3, 3, 1), nn.Conv3d(3, 3, 1)) for _ in range(5)), nn.Flatten()
    )
    assert names(nested) == ["4", "3", "2", "1", "0"]
    assert names(nested, most=10)[:3] == ["4.1", "4.0", "3.1"]


def test_what_is_drawn_is_how_layers_begin() -> None:
    net = nn.Sequential(nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8), nn.LSTM(4, 4), nn.GroupNorm(2, 8))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(5)
    net[1].running_mean += 3
    before = state(net)
    parts = [Stage(str(i), tuple(f"{i}.{n}" for n, _ in m.named_parameters()))
             for i, m in enumerate(net)]  # fmt: skip
    found = drawn(net, parts, seed=3)
    assert_same(before, state(net))
    torch.manual_seed(9)
    assert all(map(torch.equal, found[0].values(), drawn(net, parts, seed=3)[0].values()))
    assert not torch.equal(found[0]["0.weight"], drawn(net, parts, seed=4)[0]["0.weight"])
    assert torch.equal(found[2]["2.weight_hh_l0"],
                       drawn(net, [Stage("", ()), Stage("", ()), parts[2]], seed=3)[2]
                       ["2.weight_hh_l0"])  # fmt: skip
    bound = 1 / math.sqrt(3 * 27)  # PyTorch's own uniform bound
    assert 0.9 * bound < found[0]["0.weight"].abs().max() <= bound
    assert found[2]["2.weight_hh_l0"].abs().max() <= 0.5
    for norm in (1, 3):
        assert found[norm][f"{norm}.weight"].eq(1).all() and found[norm][f"{norm}.bias"].eq(0).all()


def test_weights_without_a_beginning_keep_their_size() -> None:
    net = LinearRNN()
    with torch.no_grad():
        net.u.copy_(torch.linspace(9, 11, 6))
    (found,) = drawn(net, [Stage("", ("u",))])
    assert 8 < found["u"].mean() < 12 and not torch.equal(found["u"], net.u)


class Tied(nn.Module):
    """One weight in two places, and a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.rnn = nn.Linear(3, 3), nn.Linear(3, 3), nn.LSTM(3, 3)
        self.b.weight = self.a.weight

    def forward(self, clip: Tensor) -> Tensor:
        x = self.b(self.a(clip.mean((3, 4)).transpose(1, 2)))
        return self.rnn(x)[0][:, -1]


def test_other_weights_stand_in_everywhere_and_leave_no_trace() -> None:
    torch.manual_seed(0)
    net = Tied().eval()
    clip, before, places = clip_of(2, 3, 4, 2, 2), state(net), dict(net.named_parameters())
    plain = net(clip)
    new = {name: torch.randn_like(p) for name, p in places.items()}
    with with_weights(net, new):
        assert net.a.weight is net.b.weight and torch.equal(net.a.weight, new["a.weight"])
        inside = net(clip)
        twin = Tied().eval()
        twin.load_state_dict({**new, "b.weight": new["a.weight"]})
        torch.testing.assert_close(inside, twin(clip))
    torch.set_rng_state(before["rng"])
    assert_same(before, state(net))
    assert all(p is places[name] for name, p in net.named_parameters())
    assert torch.equal(net(clip), plain) and not torch.equal(inside, plain)
    with pytest.raises(RuntimeError, match="as asked"), with_weights(net, new):
        raise RuntimeError("as asked")
    assert torch.equal(net(clip), plain)


def test_spearman_is_scipy_s_ties_included() -> None:
    a, b = (noise(4, 200, seed=s) for s in (0, 1))
    a[1] = (5 * a[1]).round()
    b[2] = b[2].where(b[2] > 0.5, 0)
    kept = noise(4, 200, seed=2) < 0.7
    for mask in (torch.ones_like(kept), kept):
        for row, x, y, m in zip(spearman(a, b, mask), a, b, mask, strict=True):
            assert row.item() == pytest.approx(stats.spearmanr(x[m], y[m]).statistic)
    assert spearman(a, a).tolist() == pytest.approx([1] * 4)
    assert spearman(a, -a.exp()).tolist() == pytest.approx([-1] * 4)
    n = 10_000
    assert spearman(noise(3, n), noise(3, n, seed=1)).abs().max() < 4 / math.sqrt(n)
    assert spearman(torch.full((1, 9), 0.1), noise(1, 9)).isnan().all()
    assert spearman(torch.full((1, 9), torch.nan), noise(1, 9)).isnan().all()


def flip(model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
    """A map that turns its sign with the network's first weight, and knows no clip."""
    sign = next(model.module.parameters()).flatten()[0].sign()
    return sign * noise(1, *clip.shape[2:]).expand(len(clip), -1, -1, -1)


def test_similarity_in_closed_form() -> None:
    net = Gap3d().eval()
    model, clip = describe(net), clip_of(2, 3, 4, 16, 16)
    weight = net.conv.weight.detach()
    target = torch.zeros(2, dtype=torch.int64)
    method = lc.attribution.method.as_attribution(flip)

    def found(method: Any, **weights: Tensor) -> Any:
        parts = {name: {"conv.weight": value} for name, value in weights.items()}
        return randomisation(model, method, clip, target, clip.flip(0), weights=parts)

    same = found(method, first=weight)
    assert same.similarity.flatten().tolist() == pytest.approx([1, 1])
    assert same.ssim.tolist() == pytest.approx([1, 1])
    assert same.between.tolist() == pytest.approx([1, 1])  # it knows no clip
    assert same.excess.flatten().tolist() == pytest.approx([0, 0], abs=1e-6)
    turned = found(method, first=-weight, second=weight)
    assert turned.stages == ("first", "second")
    assert turned.similarity.tolist() == [pytest.approx([-1, 1])] * 2
    dead = found(lc.GradCAM(), first=torch.zeros_like(weight))
    assert dead.similarity.isnan().all() and not dead.between.isnan().any()


def test_padding_does_not_make_maps_alike() -> None:
    model, clip = describe(Gap3d().eval()), clip_of(1, 3, 6, 16, 16)
    target = torch.zeros(1, dtype=torch.int64)
    padded = dataclasses.replace(model, valid=torch.arange(6)[None] < 2)
    short = randomisation(model, lc.Gradient(), clip[:, :, :2], target, clip[:, :, 2:4])
    assert short.similarity.shape == (1, 3)

    def at_noise(model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
        seed = int(1e6 * next(model.module.parameters()).abs().sum())
        return 1 + noise(len(clip), *clip.shape[2:], seed=seed)

    method = lc.attribution.method.as_attribution(at_noise)
    found = randomisation(padded, method, clip, target)
    assert found.similarity[:, -1].abs().max() < 0.25  # zeros beside ones would have .7
    assert found.between.isnan().all()


@pytest.mark.slow
def test_the_planted_network_s_known_answers(planted: Planted) -> None:
    """After head and last block guided backprop exceeds two clips' likeness by far.

    An absolute threshold of .5 would fail the gradient as well, whose maps of two clips are alike.
    """
    methods = {"Grad-CAM": lc.GradCAM(), "gradient x input": lc.GradientXInput(),
               "gradient": lc.Gradient(), "guided": lc.GuidedBackprop()}  # fmt: skip
    early, alike, said = {}, {}, {}
    clips, labels, _ = planted_clips(12, 1)
    for name, method in methods.items():
        found = randomisation(planted.model, method, clips, labels, clips.roll(1, 0))
        early[name] = found.excess[:, 1]
        alike[name] = float(found.similarity[:, 1].mean())
        said[name] = verdict(early[name].tolist(), found.excess[:, -1].tolist(),
                             found.between.tolist())  # fmt: skip
        print(name, found.similarity.mean(0), found.between.mean(), said[name].passes)
        assert not found.similarity.isnan().any()
        if name in ("gradient", "guided"):
            assert found.similarity[:, 0].mean() > 0.7  # the head alone changes little
    assert early["guided"].mean() > 0.2 and said["guided"].passes is not True
    for name in ("Grad-CAM", "gradient x input", "gradient"):
        assert early[name].mean() < 0.1 and said[name].passes is not False, name
    assert said["Grad-CAM"].passes is True
    # Without two clips' likeness both would fail, or both would pass.
    assert said["gradient"].early.mean < 0.1 < 0.5 < alike["gradient"]


@pytest.mark.parametrize(
    ("early", "last", "between", "passes", "words"),
    [
        ([0.0, 0.02, -0.02], [0.0, 0.01, -0.01], [0.3] * 3, True, "after all -0.0"),
        ([0.5, 0.6, 0.55], [0.0, 0.01, -0.01], [0.3] * 3, False, r"block \+0\.43 to \+0\.67"),
        ([0.0, 0.02, -0.02], [0.5, 0.6, 0.55], [0.3] * 3, False, "after all"),
        ([0.1, -0.1, 0.2], [0.0, 0.0, 0.0], [0.3] * 3, None, "more clips are needed"),
        ([0.0] * 3, [0.0] * 3, [1.0] * 3, None, "alike"),
        ([0.0, math.nan, math.nan], [0.0] * 3, [0.3] * 3, None, "1 of 3 clips"),
        ([0.0, 0.0, *[math.nan] * 3], [0.0] * 5, [0.3] * 5, None, "2 of 5 clips"),
        ([], [], [], None, "0 of 0 clips"),
    ],
)
def test_verdicts(
    early: list[float], last: list[float], between: list[float], passes: bool | None, words: str
) -> None:
    found = verdict(early, last, between)
    assert found.passes is passes
    assert re.search(words, found.why), found.why


def test_methods_that_take_long_are_left_out_and_said(planted: Planted) -> None:
    clip, label = planted.clips[:1], planted.labels[:1]
    e = lc.explain(planted.model, lc.CentreMap(), clip, label)
    rows = 0

    def forward(clip: Tensor) -> Tensor:
        nonlocal rows
        rows += len(clip)
        return planted.net(clip)

    model = dataclasses.replace(planted.model, forward=forward)
    e = dataclasses.replace(e, method=lc.RISE(masks=300))
    each = WeightRandomisation(limit=5)
    with pytest.warns(
        UserWarning,
        match=r"RISE runs the network more than 5 times .*measure\.random_weights\.limit=null",
    ):
        found = measure({"it": each}, Explained(model, clip, e))
    assert not found.failed and found.values["it"].isnan().all() and not found.beside
    assert rows <= 6  # one for the order of the stages


@pytest.mark.parametrize("cls", method_classes(), ids=lambda cls: cls.__name__)
def test_methods_that_cut_off_below_0_have_a_signed_variant(cls: type[lc.Attribution]) -> None:
    method: Any = cls()
    if "relu" in {f.name for f in dataclasses.fields(method)}:
        assert method.both_signs.relu is False and type(method.both_signs) is cls
    else:
        assert method.both_signs == method


class Sees(Measure):
    """Whether there is another clip than the one measured."""

    title = "Sees"
    better = None
    needs = frozenset({"map", "other"})

    def __call__(self, explained: Explained) -> Tensor:
        assert explained.other is not None and explained.other.shape == explained.clip.shape
        return (explained.other != explained.clip).flatten(1).any(1).float()


def test_a_study_has_another_clip_for_measures_that_ask(tmp_path: Path) -> None:
    config = configured("study=multispectral", "measure=gini")
    config["study"] = {**STUDY, "clips": 6, "sweeps": None, "claims": None}
    config["measure"]["sees"] = {"_target_": f"{__name__}.Sees"}
    design = Design.of(config["study"], config["measure"])
    net = network(design, task=Task(), dataset=Clips(design.clips))
    journal, rows = Journal(tmp_path), []
    journal.add = rows.append  # type: ignore[method-assign]
    measure_cells(design, work_items([net], design), {}, journal, "cpu", say=lambda _: None)
    journal.close()
    digest = design.digests["sees"]
    values = [row["measured"][digest]["value"] for row in rows if row["cell"]]
    assert len(values) > 3 and set(values) == {1.0}  # those that cannot be read are passed over
