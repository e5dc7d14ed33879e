"""Threads that explain: equal to one after the other, and nothing of the process stays behind."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from enumerated import REASONS, methods
from nets import (
    Attends,
    FoldedLSTM,
    Gap3d,
    LoopedLSTM,
    Touchy,
    assert_same,
    clip_of,
    describe,
    state,
)
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam.attribution import threads
from lightning_cam.attribution.guard import capture, explaining, replaced
from lightning_cam.attribution.threads import held
from lightning_cam.errors import UserError
from lightning_cam.metrics.sanity import randomisation

pytestmark = [
    pytest.mark.attack,
    pytest.mark.filterwarnings("ignore:SIDU's map is 0"),
    pytest.mark.filterwarnings("ignore:.*of area .* came out"),
]
METHODS = methods()
WAIT = 120  # seconds after which a test says that threads hang; others share the machine


def networks() -> dict[str, lc.Explainable]:
    torch.manual_seed(0)
    folded = FoldedLSTM()
    looped = LoopedLSTM(folded)  # shares parts and weights with the other one
    return {
        "3d": describe(Gap3d()),
        "folded": describe(folded, steps="head"),
        "looped": describe(looped, "conv", steps="head"),
        "attends": describe(Attends(), layout="b (t h w) d", grid=(4, 8, 8)),
    }


def together(*work: Callable[[], Any]) -> list[Any]:
    """What each returns or raises, all run at once in threads of their own."""
    start = threading.Barrier(len(work))

    def run(one: Callable[[], Any]) -> Any:
        start.wait(WAIT)
        try:
            return one()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(work)) as pool:
        return [future.result(WAIT) for future in [pool.submit(run, one) for one in work]]


def found(model: lc.Explainable, method: lc.Attribution, clip: Tensor) -> list[Tensor]:
    try:
        e = lc.explain(replace(model, truth=clip[:, 0] > 0), method, clip)
    except UserError as error:
        assert any(reason in str(error) for reason in REASONS), error
        return []
    return [e.heatmap, e.outputs, e.target, *e.numbers.values()]


@pytest.mark.slow
def test_four_threads_with_every_method_on_four_networks_equal_one() -> None:
    """4 threads x all methods x 4 networks, two of which share parts: the maps of one thread."""
    assert len(METHODS) >= 16
    models, clip = networks(), 3 * clip_of(2, 3, 4, 8, 8)
    for model in models.values():
        model.module.train()
    jobs = [(kind, name) for name in METHODS for kind in models]
    expected = {(k, n): found(models[k], METHODS[n], clip) for k, n in jobs}
    assert all(any(expected[k, n] for k in models) for n in METHODS)
    before = {kind: state(model.module) for kind, model in models.items()}

    def all_from(first: int) -> dict[tuple[str, str], Any]:
        mine = jobs[first:] + jobs[:first]
        return {(k, n): found(models[k], METHODS[n], clip) for k, n in mine}

    quarter = len(jobs) // 4
    for got in together(*(lambda f=n * quarter: all_from(f) for n in range(4))):
        assert isinstance(got, dict), got
        for job, tensors in expected.items():
            assert all(torch.equal(a, b) for a, b in zip(got[job], tensors, strict=True)), job
    for kind, model in models.items():
        assert_same(before[kind], state(model.module))
    assert not threads._holders and not threads._entered and not threads._wanted


def test_random_weights_are_seen_by_their_thread_alone() -> None:
    """Measures with random weights, explanations and checks of a network in four threads."""
    model, clip, target = networks()["looped"], 3 * clip_of(2, 3, 4, 8, 8), torch.zeros(2).long()
    before = state(model.module)

    def randomised() -> list[Tensor]:
        return [randomisation(model, lc.GradCAM(), clip, target).similarity]

    def explained() -> list[Tensor]:
        return [lc.explain(model, lc.GradCAM(), clip).heatmap for _ in range(20)]

    expected = [randomised(), explained()]
    for got, right in zip(
        together(randomised, explained, randomised, explained), 2 * expected, strict=True
    ):
        assert isinstance(got, list), got
        assert all(map(torch.equal, got, right))
    assert_same(before, state(model.module))


def _slow(model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
    for _ in range(8):
        time.sleep(0.002)
        model.forward(clip)
    return clip.mean(1)


def test_two_descriptions_and_a_wrapper_of_one_network_take_turns() -> None:
    """One network through two descriptions, inside a wrapper, and by a part of it."""
    torch.manual_seed(0)
    net = FoldedLSTM().train()
    wrapper = nn.Sequential(net)
    inside, most = 0, 0

    def watched(model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        heat = _slow(model, clip, target)
        inside -= 1
        return heat

    models = [
        describe(net),
        lc.Explainable.of(net, ["trunk.conv"]),
        lc.Explainable.of(wrapper, ["0.trunk"]),
    ]
    clip = clip_of(1, 3, 4, 8, 8)
    before = state(wrapper)
    results = together(*(lambda m=m: lc.explain(m, watched, clip) for m in models))
    assert all(isinstance(e, lc.Explanation) for e in results), results
    assert most == 1
    assert_same(before, state(wrapper))


def test_networks_that_share_nothing_do_not_wait_for_each_other() -> None:
    both = threading.Barrier(2)

    def meet(model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
        both.wait(WAIT)
        return clip.mean(1)

    models = [describe(Gap3d()), describe(Gap3d())]
    clip = clip_of(1, 3, 2, 8, 8)
    assert all(
        isinstance(e, lc.Explanation)
        for e in together(*(lambda m=m: lc.explain(m, meet, clip) for m in models))
    )


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch._dynamo's own
def test_the_process_is_as_before_when_threads_leave_in_the_order_they_came() -> None:
    """The global generator and the stance of the compiler, of explanations that overlap."""
    import torch._dynamo

    torch.manual_seed(3)
    rng, stance = torch.get_rng_state(), torch._dynamo.eval_frame._stance
    first_in, second_in, first_out = (threading.Event() for _ in range(3))

    def first() -> None:
        with explaining(nn.Identity()):
            first_in.set()
            torch.rand(3)
            assert second_in.wait(WAIT)
        first_out.set()

    def second() -> None:
        assert first_in.wait(WAIT)
        with explaining(nn.Identity()):
            second_in.set()
            assert first_out.wait(WAIT)
            assert torch._dynamo.eval_frame._stance.stance == "force_eager"

    assert together(first, second) == [None, None]
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch._dynamo.eval_frame._stance == stance


def test_an_explanation_that_raises_lets_the_next_thread_in() -> None:
    net = Touchy()
    net.fail = True
    clip = clip_of(1, 3, 2, 8, 8)
    one, other = together(*(lambda: lc.explain(describe(net), lc.GradCAM(), clip) for _ in "ab"))
    assert isinstance(one, RuntimeError) and isinstance(other, RuntimeError)
    assert not threads._holders and not threads._entered
    net.fail = False
    assert isinstance(lc.explain(describe(net), lc.GradCAM(), clip), lc.Explanation)


def test_two_threads_that_explain_each_within_the_other_are_told_so() -> None:
    """A waits for B and B for A: one of them gets an error, none hangs."""
    a, b, both = nn.Linear(2, 2), nn.Linear(2, 2), threading.Barrier(2)

    def nested(outer: nn.Module, inner: nn.Module) -> None:
        with held(outer):
            both.wait(WAIT)
            with held(inner), held(outer):
                pass

    results = together(lambda: nested(a, b), lambda: nested(b, a))
    (error,) = [r for r in results if r is not None]
    assert isinstance(error, UserError) and "each within the other" in str(error)
    assert not threads._holders and not threads._wanted


def meanwhile(net: nn.Module, work: Callable[[], Any]) -> tuple[Any, Any]:
    """An explanation of `net`, and what another thread gets that works in the middle of it."""
    result = []

    def method(model: lc.Explainable, clip: Tensor, target: Tensor) -> Tensor:
        thread = threading.Thread(target=lambda: result.extend(together(work)))
        thread.start()
        thread.join(WAIT)
        return clip.mean(1)

    try:
        e: Any = lc.explain(describe(net), method, clip_of(1, 3, 2, 8, 8))
    except UserError as error:
        e = error
    return e, result[0]


@pytest.mark.parametrize("mode", ["train", "eval with gradients"])
def test_a_training_step_in_another_thread_is_refused(mode: str) -> None:
    net, clip = Gap3d().train(mode == "train"), clip_of(1, 3, 2, 8, 8)
    e, got = meanwhile(net, lambda: net(clip).sum().backward())
    assert isinstance(got, UserError) and "being explained in another thread" in str(got)
    assert isinstance(e, lc.Explanation)
    net(clip).sum().backward()  # and it works afterwards
    assert net.conv.weight.grad is not None


def test_weights_that_change_meanwhile_end_the_explanation() -> None:
    net = Gap3d()

    def step() -> None:
        with torch.no_grad():
            net.fc.weight += 1

    e, got = meanwhile(net, step)
    assert got is None
    assert isinstance(e, UserError) and "weights of Gap3d changed while it was explained" in str(e)
    e, _ = meanwhile(net, lambda: net.load_state_dict(Gap3d().state_dict()))
    assert isinstance(e, UserError)


def test_inference_in_another_thread_goes_on_and_leaves_the_map_alone() -> None:
    """Hooks and replaced outputs belong to the thread that explains."""
    net, clip, other = Gap3d().eval(), clip_of(1, 3, 2, 8, 8), clip_of(1, 3, 2, 8, 8, seed=1)
    with torch.no_grad():
        expected = net(other)

    def infer() -> Tensor:
        with torch.no_grad():
            return net(other)

    with explaining(net), capture(net.layer, leaf=True) as calls:
        net(clip)
        assert torch.equal(together(infer)[0], expected)
        assert len(calls) == 1
        with replaced(net.layer, [torch.zeros_like(calls[0])]):
            assert torch.equal(together(infer)[0], expected)
            torch.testing.assert_close(net(clip), net.fc.bias.expand(1, -1))


def test_a_training_that_takes_turns_equals_one_alone() -> None:
    """Training steps within `held`, beside a thread that explains all the time."""
    torch.manual_seed(0)
    net = Gap3d().train()
    alone = copy.deepcopy(net)
    clip, stop = clip_of(2, 3, 2, 8, 8), threading.Event()

    def train(network: nn.Module) -> None:
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        for n in range(20):
            with held(network):
                torch.manual_seed(n)  # of dropout
                network(clip).square().sum().backward()
                optimizer.step()
                optimizer.zero_grad()

    def explain() -> int:
        count = 0
        while not stop.is_set():
            lc.explain(describe(net), lc.GradCAM(), clip)
            count += 1
        return count

    def both() -> None:
        try:
            train(net)
        finally:
            stop.set()

    train(alone)
    count, got = together(explain, both)
    assert got is None, got
    assert isinstance(count, int) and count > 0, count
    for a, b in zip(net.state_dict().values(), alone.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_nothing_about_threads_is_copied_or_pickled_with_a_network() -> None:
    net = Gap3d()
    before = set(vars(net))
    lc.explain(describe(net), lc.GradCAM(), clip_of(1, 3, 2, 8, 8))
    assert set(vars(net)) == before
    assert isinstance(pickle.loads(pickle.dumps(net)), Gap3d)
    with held(net), held(copy.deepcopy(net)):
        assert len(threads._holders) > 2
    assert not threads._holders
