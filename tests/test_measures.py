"""What every measure must keep, and what one costs to add: a file and a YAML file."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import lightning.pytorch as pl
import pytest
import torch
from enumerated import measure_classes, noted
from hydra import compose, initialize_config_dir
from lightning.pytorch.loggers import CSVLogger
from nets import FoldedLSTM, Gap3d, batch_of, clip_of, describe
from omegaconf import OmegaConf
from test_callbacks import METHODS, Data, task_of, trainer_of
from test_config import CONFIGS
from test_study import STUDY, Clips, Task, network
from torch import Tensor, nn

import lightning_cam as lc
from lightning_cam import metrics
from lightning_cam.errors import UserError
from lightning_cam.explaining.callback import ExplainCallback
from lightning_cam.explaining.clip_explanations import explain_clip
from lightning_cam.explaining.journal import Journal
from lightning_cam.explaining.measured_files import RunMeasurements
from lightning_cam.explaining.measuring import build_measures
from lightning_cam.explaining.score_tables import score_rows
from lightning_cam.files import write_csv
from lightning_cam.metrics import Explained, Measure, format_number, gini_index, measure, titles
from lightning_cam.metrics.explained import Direction, Need
from lightning_cam.study.cell_runs import measure_cells
from lightning_cam.study.design import Design
from lightning_cam.study.journal import named, read_journal
from lightning_cam.study.networks import Network
from lightning_cam.study.results import Results
from lightning_cam.study.study_files import write_study
from lightning_cam.study.work_items import work_items

STEPS, SIZE = 6, 16
FILES = sorted(path.stem for path in (CONFIGS / "measure").glob("*.yaml"))


def configured(*words: str, configs: Path = CONFIGS) -> Any:
    """explain.py's configuration."""
    with initialize_config_dir(str(configs), version_base="1.3"):
        return OmegaConf.to_container(compose("explain", ["ckpt=x", *words]), resolve=True)


def small(each: Measure) -> Measure:
    """The measure, with as few steps as the small clips allow, and few samples."""
    few = {"steps": 4, "subsets": 10, "samples": 4}
    few = {name: n for name, n in few.items() if name in getattr(each, "__dataclass_fields__", {})}
    return replace(each, **few) if few else each  # type: ignore[type-var]


def nodes() -> dict[str, Any]:
    """The column of every file."""
    with suppress(Exception):  # one of them is broken: which?
        return configured(f"measure=[{','.join(FILES)}]")["measure"]
    read: dict[str, Any] = {}
    for name in FILES:
        with noted(f"{name}.yaml", FAILED):
            read |= configured(f"measure={name}")["measure"]
    return read


def found() -> Iterator[tuple[str, Measure]]:
    """Every measure of the package and of the configurations, by where it was found."""
    for each in measure_classes():
        with noted(each.__name__, FAILED):
            yield each.__name__, small(each())
    for name, node in nodes().items():
        with noted(f"{name}.yaml", FAILED):
            yield f"{name}.yaml", small(build_measures({name: node}, ())[name])


FAILED: dict[str, str] = {}  # file or class that no test runs on -> why
MEASURES = dict(found())
every = pytest.mark.parametrize("each", MEASURES.values(), ids=MEASURES)


def classifier() -> lc.Explainable:
    torch.manual_seed(0)
    return describe(Gap3d().eval(), outputs=["a", "b", "c", "d"])


def recurrent() -> lc.Explainable:
    torch.manual_seed(0)
    return describe(FoldedLSTM().eval(), frames="trunk")


def regressor() -> lc.Explainable:
    """Its columns are not classes, and one is explained where none is asked for."""
    return replace(classifier(), probability=None, default=2)


networks = pytest.mark.parametrize("model", [classifier, recurrent, regressor])


def batch(clip: Tensor) -> dict[str, Any]:
    """Clips with ground truth; the last one has neither that nor its last two frames."""
    mask = torch.zeros(len(clip), STEPS, SIZE, SIZE, dtype=torch.bool)
    mask[:-1, 1:4, 3:9, 4:12] = True
    valid = torch.ones(len(clip), STEPS, dtype=torch.bool)
    valid[-1, -2:] = False
    hand = mask & (torch.arange(SIZE) < 8)
    return {"valid": valid, "mask": mask, "action": mask.any(-1).any(-1), "mask/hand": hand}


def snapshot(net: nn.Module) -> dict[str, Any]:
    """All that measuring may touch."""
    kept: dict[str, Any] = {name: value.clone() for name, value in net.state_dict().items()}
    kept |= {f"{name} needs": p.requires_grad for name, p in net.named_parameters()}
    kept |= {f"{name} grad": p.grad is None for name, p in net.named_parameters()}
    for name, module in net.named_modules():
        hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
        kept |= {f"{name} mode": module.training, f"{name} hooks": hooks}
    return kept


def explained(model: lc.Explainable, rows: slice = slice(None), heat: Any = None) -> Explained:
    """Some of three clips; their maps are the same whichever are taken."""
    clip = clip_of(3, 3, STEPS, SIZE, SIZE)
    known = batch(clip)
    e = lc.explain(replace(model, valid=known["valid"]), lc.GradCAM(), clip)
    heatmap = e.heatmap if heat is None else torch.full_like(e.heatmap, heat)
    kept = {"target": e.target[rows], "outputs": e.outputs[rows], "heatmap": heatmap[rows]}
    known = {name: value[rows] for name, value in known.items()}
    model = replace(model, valid=known["valid"])
    other = clip.flip(0)[rows] + clip_of(3, 3, STEPS, SIZE, SIZE, seed=1)[rows]
    return Explained(model, clip[rows], replace(e, **kept), known, other=other)


def test_every_measure_and_its_file_can_be_read() -> None:
    assert not FAILED, FAILED


def test_every_configuration_is_a_column_of_its_name() -> None:
    assert len(FILES) > 7
    for file in FILES:
        kept = list(configured(f"measure={file}")["measure"])
        assert kept == ([] if file == "none" else [file])
    every_one = configured(f"measure=[{','.join(FILES)}]")["measure"]
    built = build_measures(every_one, ())
    assert sorted(built) == sorted(set(FILES) - {"none"})
    assert len(set(titles(built).values())) == len(built)


@every
def test_it_says_what_it_is(each: Measure) -> None:
    assert each.title and "\n" not in each.title
    assert each.better in (None, *get_args(Direction))
    assert each.needs and each.needs <= {*get_args(Need)}
    assert type(each).__doc__ and "\n" not in each.settings


class Says(Measure):
    """A measure that can say anything of itself."""

    title: Any = "Says"
    better: Any = "higher"
    needs: Any = frozenset({"map"})

    def __init__(self, **facts: Any) -> None:
        vars(self).update(facts)

    def __call__(self, explained: Explained) -> Tensor:
        raise AssertionError("nothing is measured")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"better": "up"}, r"no measure\.says\.better 'up'; have: higher, lower, None"),
        ({"better": "high"}, r"no measure\.says\.better 'high'; nearest: higher"),
        ({"better": ["higher"]}, r"no measure\.says\.better"),
        ({"needs": frozenset({"mapp"})}, r"no measure\.says\.needs 'mapp'; nearest: map"),
        ({"needs": "map"}, r"measure\.says: needs is 'map', must be a set"),
        ({"title": 3}, r"measure\.says: title is 3, must be a line of text"),
        ({"title": " "}, r"measure\.says: title is ' '"),
    ],
)
def test_what_it_says_of_itself_wrongly_is_named_before_anything_runs(
    facts: dict[str, Any], words: str
) -> None:
    node = {"says": {"_target_": f"{__name__}.Says", **facts}}
    with pytest.raises(UserError, match=words) as caught:
        RunMeasurements(node)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=words):
        Design.of(STUDY, node)
    with pytest.raises(UserError, match=words.replace(r"measure\.", r"measures\.")):
        ExplainCallback(METHODS, measures={"says": Says(**facts)})


class Finds(Measure):
    """Finds a number beside its value."""

    title = "Finds"
    better = None
    needs = frozenset({"map"})

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, explained: Explained) -> Tensor:
        explained.numbers[self.name] = explained.heat.amax((1, 2, 3)) + 7
        return explained.heat.amax((1, 2, 3))


def test_what_a_measure_finds_replaces_no_other_column() -> None:
    measures = {
        "a": Finds("label"), "b": Finds("label"), "a_b": Finds("c"), "tied": metrics.GiniIndex(),
        "deletion": small(metrics.DeletionArea()),
        "insertion": metrics.InsertionArea(unit="frame", steps=4),
    }  # fmt: skip
    found = measure(measures, explained(classifier()))
    assert not found.failed
    assert list(found.beside) == [
        "a_label", "b_label", "a_b_c", "deletion_tied", "insertion_tied",
    ]  # fmt: skip
    assert not torch.equal(found.beside["deletion_tied"], found.beside["insertion_tied"])
    for clash in ({"a": Finds("b"), "a_b": Finds("c")}, {"a": Finds("b_c"), "a_b": Finds("c")}):
        (error,) = measure(clash, explained(classifier())).failed.values()
        assert "of another measure; rename one of them" in str(error)


@pytest.mark.parametrize("name", ["label", "error", "value", "share_ir_gradient", "drop_all"])
def test_names_of_other_columns_are_taken(name: str) -> None:
    node = {name: {"_target_": "lightning_cam.metrics.GiniIndex"}}
    with pytest.raises(UserError, match=f"measure.{name} cannot have this name"):
        RunMeasurements(node)


def test_a_second_writer_of_a_column_is_named() -> None:
    model, clip = classifier(), clip_of(1, 3, STEPS, SIZE, SIZE)
    e = lc.explain(model, lc.GradCAM(), clip)
    for number in ("label", "gini", "method"):
        clash = {"mine": replace(e, numbers={number: torch.ones(1)})}
        found = {("mine", int(e.target)): measure({"gini": metrics.GiniIndex()},
                                                  Explained(model, clip, e))}  # fmt: skip
        with pytest.raises(UserError, match=f"method 'mine' finds '{number}', but .* has a column"):
            list(score_rows(model, clash, batch_of(clip), found=found))
    found = {("mine", int(e.target)): measure({"peak": Finds("frame")}, Explained(model, clip, e))}
    with pytest.raises(UserError, match=r"a measure finds 'peak_frame', but scores\.csv has"):
        list(score_rows(model, {"mine": e}, batch_of(clip), found=found))


def test_a_study_tells_of_a_number_whose_column_is_taken(tmp_path: Path) -> None:
    config = configured("study=multispectral", "measure=gini")
    config["study"] = {**STUDY, "clips": 2, "sweeps": None, "claims": None}
    config["measure"]["clip"] = {"_target_": f"{__name__}.Finds", "name": "id"}
    design = Design.of(config["study"], config["measure"])
    net = network(design, task=Task(), dataset=Clips(design.clips))
    journal = Journal(tmp_path)
    measure_cells(design, work_items([net], design), {}, journal, "cpu", say=lambda _: None)
    journal.close()
    rows = [row for row in read_journal(tmp_path).values() if row["cell"]]
    assert rows
    for row in rows:
        found = named(row, design.digests)
        assert "'clip_id', but cells.csv has" in found["unmeasured"]["clip"]
        assert found["values"]["gini"] is not None


@every
@networks
def test_it_has_a_value_per_clip_that_depends_on_no_other(
    each: Measure, model: Callable[[], lc.Explainable]
) -> None:
    together = measure({"it": each}, explained(model()))
    assert not together.failed
    value = together.values["it"]
    assert value.shape == (3,) and value.dtype in (torch.float32, torch.float64)
    assert bool(value[-1].isnan()) == ("truth" in each.needs)
    assert not value[:-1].isnan().any()
    for n in range(3):
        alone = measure({"it": each}, explained(model(), slice(n, n + 1)))
        torch.testing.assert_close(
            alone.values["it"], value[n : n + 1], rtol=1e-4, atol=1e-5, equal_nan=True
        )
        for name, number in alone.beside.items():
            torch.testing.assert_close(
                number, together.beside[name][n : n + 1], rtol=1e-4, atol=1e-5, equal_nan=True
            )


@every
@pytest.mark.parametrize("heat", [0.0, 1.0, -1.0])
def test_a_map_that_is_the_same_everywhere_is_no_error(each: Measure, heat: float) -> None:
    together = measure({"it": each}, explained(classifier(), heat=heat))
    assert not together.failed
    assert together.values["it"].shape == (3,)


@every
def test_what_fails_is_told_and_has_no_value(each: Measure) -> None:
    together = measure(
        {"it": each, "gini": metrics.GiniIndex()}, explained(classifier(), heat=torch.nan)
    )
    assert together.values["it"].isnan().all()
    assert not {"gini"} & {*together.failed}


@every
@pytest.mark.attack
def test_a_map_with_one_voxel_that_is_infinite_has_no_value(each: Measure) -> None:
    """Maps with a single infinite voxel, which pointing, for one, would call a hit or a miss."""
    shown = explained(classifier())
    heatmap = shown.explanation.heatmap.clone()
    heatmap[0, 0, 0, 0] = torch.inf
    found = measure(
        {"it": each}, replace(shown, explanation=replace(shown.explanation, heatmap=heatmap))
    )
    assert found.values["it"][0].isnan()
    assert all(number[0].isnan() for number in found.beside.values())


class Spoils(Measure):
    """Changes in place whatever it is given."""

    title = "Spoils"
    better = None
    needs = frozenset({"map"})

    def __call__(self, explained: Explained) -> Tensor:
        e = explained.explanation
        for given in (explained.clip, e.heatmap, e.outputs, e.target, *explained.batch.values()):
            given.zero_()
        return explained.heat.sum((1, 2, 3))


@every
def test_a_measure_that_changes_what_it_is_given_disturbs_no_other(each: Measure) -> None:
    made = explained(classifier())
    alone = measure({"it": each}, made).values["it"]
    clip, heat = made.clip.clone(), made.explanation.heatmap.clone()
    after = measure({"spoils": Spoils(), "it": each}, made)
    assert not after.failed
    assert torch.equal(after.values["it"].nan_to_num(-1), alone.nan_to_num(-1))
    assert torch.equal(made.clip, clip) and torch.equal(made.explanation.heatmap, heat)


@every
def test_a_measure_changes_neither_the_clip_nor_the_map(each: Measure) -> None:
    made = explained(classifier())
    given = [made.clip, made.explanation.heatmap, made.explanation.outputs, *made.batch.values()]
    before = [value.clone() for value in given]
    each(made)
    assert all(map(torch.equal, before, given))


class Returns(Measure):
    """Returns anything."""

    title = "Returns"
    better = None
    needs = frozenset({"map"})

    def __init__(self, what: Any) -> None:
        self.what = what

    def __call__(self, explained: Explained) -> Any:
        explained.numbers["n"] = torch.ones(len(explained.clip))
        return self.what


@pytest.mark.parametrize(
    ("what", "words"),
    [(0.5, "float"), (None, "NoneType"), (torch.ones(2), r"a tensor \(2,\)"),
     (torch.tensor(1.0), r"a tensor \(\)")],
)  # fmt: skip
def test_what_is_no_number_per_clip_is_named(what: Any, words: str) -> None:
    found = measure({"x": Returns(what), "gini": metrics.GiniIndex()}, explained(classifier()))
    assert list(found.failed) == ["x"] and list(found.numbers) == ["gini"]
    with pytest.raises(TypeError, match=rf"measure x returned {words}, expected a tensor \(B,\)"):
        raise found.failed["x"]
    assert not found.values["gini"].isnan().any()


@every
@networks
def test_it_leaves_the_network_as_it_was(
    each: Measure, model: Callable[[], lc.Explainable]
) -> None:
    made = explained(model())
    made.model.module.train()
    torch.manual_seed(5)
    before, state = snapshot(made.model.module), torch.get_rng_state()
    heat = made.explanation.heatmap.clone()
    measure({"it": each}, made)
    after = snapshot(made.model.module)
    assert before.keys() == after.keys() and torch.equal(state, torch.get_rng_state())
    for name, value in before.items():
        same = (
            torch.equal(value, after[name]) if isinstance(value, Tensor) else value == after[name]
        )
        assert same, name
    assert torch.equal(heat, made.explanation.heatmap)


@pytest.mark.parametrize(
    ("value", "like", "text"),
    [
        (0.1234567, None, "0.1235"), (0.0, None, "0.0000"), (-1.5, None, "-1.5000"),
        (0.00012, None, "0.0001"), (0.0000123, None, "1.2e-05"), (0.0000123, 0.3, "0.0000"),
        (0.3, 0.00001, "0.3"),
    ],
)  # fmt: skip
def test_no_number_is_shown_as_0(value: float, like: float | None, text: str) -> None:
    assert format_number(value, 4, like) == text


# --- the Gini index -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heat", "index"),
    [
        ([1, 1, 1, 1], 0),  # everywhere the same
        ([0, 0, 0, 5], 3 / 4),  # one of N: 1 - 1/N
        ([1, 2, 3, 4], 1 / 4),  # 1 - 2 (1 * 3.5 + 2 * 2.5 + 3 * 1.5 + 4 * 0.5) / (10 * 4)
        ([-4, 2, -1, 3], 1 / 4),  # amounts count
        ([0, 0, 0, 0], torch.nan),
        ([1, torch.inf], torch.nan),
    ],
)
def test_gini_in_closed_form(heat: list[float], index: float) -> None:
    for scale in (1.0, 1e-6, 1e6):  # of any unit
        value = gini_index(torch.tensor(heat, dtype=torch.float32) * scale)
        assert float(value) == pytest.approx(index, abs=1e-6, nan_ok=True)


def test_gini_of_noise_and_of_clones() -> None:
    noise = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    assert float(gini_index(noise)) == pytest.approx(1 / 3, abs=0.002)
    few = torch.tensor([1.0, 2.0, 7.0])  # Hurley and Rickard's fourth criterion, cloning
    assert float(gini_index(few.repeat(5))) == pytest.approx(float(gini_index(few)), abs=1e-6)


def test_padding_is_not_sparseness() -> None:
    made = explained(classifier(), heat=1.0)
    gini = measure({"gini": metrics.GiniIndex()}, made).values["gini"]
    assert gini.tolist() == pytest.approx([0, 0, 0], abs=1e-6)


# --- a measure of one's own: one file and one YAML file -----------------------------------------

MODULE = '''
"""The heat of the hottest voxel."""
from dataclasses import dataclass
from lightning_cam.metrics import Explained, Measure

@dataclass(frozen=True)
class Peak(Measure):
    """The hottest voxel."""
    power: float = 1
    title = "Peak heat"
    better = "lower"
    needs = frozenset({"map"})

    def __call__(self, explained: Explained):
        return explained.heat.amax((1, 2, 3)) ** self.power
'''
YAML = """\
# The heat of the hottest voxel.
peak:
  _target_: my_peak.Peak
  power: 2  # of the heat
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of configurations with a measure more, whose module can be imported."""
    (tmp_path / "my_peak.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_peak", raising=False)
    shutil.copytree(CONFIGS, tmp_path / "configs")
    (tmp_path / "configs/measure/peak.yaml").write_text(YAML)
    return tmp_path / "configs"


def test_one_s_own_measure_is_a_column_of_scores_csv(own: Path, tmp_path: Path) -> None:
    measurements = RunMeasurements(configured("measure=[peak,gini]", configs=own)["measure"])
    model, clip = classifier(), clip_of(1, 3, STEPS, SIZE, SIZE)
    explanations = explain_clip(model, {"gradcam": lc.GradCAM()}, clip)
    of_clip = batch_of(clip)
    found = measurements.clip(model, explanations, clip, of_clip, tmp_path / "curves.png")
    rows = list(score_rows(model, found.explanations, of_clip, found=found.found))
    (row,) = csv.DictReader(write_csv(tmp_path / "scores.csv", rows, measurements.columns).open())
    peak = float(explanations["gradcam"].heatmap.max()) ** 2
    assert list(row)[-2:] == ["peak", "gini"]
    assert float(row["peak"]) == pytest.approx(peak, abs=1e-4)


def test_one_s_own_measure_is_a_curve_over_training(own: Path, tmp_path: Path) -> None:
    measures = build_measures(configured("measure=[peak,gini]", configs=own)["measure"], ())
    pl.seed_everything(3)
    callback = ExplainCallback(METHODS, clips=[0, 3], measures=measures)
    logger = CSVLogger(str(tmp_path), "log")
    trainer_of(tmp_path, [callback], logger=logger, log_every_n_steps=1).fit(task_of(), Data())
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row.get("explain/gradcam/peak")]
    assert len(logged) == 2
    for epoch, metric in enumerate(logged):
        with Path(logger.log_dir, f"explain/epoch_{epoch:03d}/measures.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["epoch", "clip", "method", "peak", "gini"]
        for method in METHODS:
            own_rows = [float(row["peak"]) for row in rows if row["method"] == method]
            mean = sum(own_rows) / 2
            assert float(metric[f"explain/{method}/peak"]) == pytest.approx(mean, abs=1e-4)


def studied(config: dict[str, Any], folder: Path) -> tuple[Design, Results]:
    """A small study of noise clips, measured and written."""
    design = Design.of(config["study"], config["measure"])
    net: Network = network(design, task=Task(), dataset=Clips(design.clips))
    folder.mkdir()
    journal = Journal(folder)
    measure_cells(design, work_items([net], design), {}, journal, "cpu", say=lambda _: None)
    journal.close()
    results = Results.of(design, [net], work_items([net], design), read_journal(folder))
    write_study(folder, results, [net], "")
    return design, results


def test_one_s_own_measure_is_in_tables_plots_and_claims(own: Path, tmp_path: Path) -> None:
    config = configured("study=multispectral", "measure=[deletion,peak,gini]",
                        "measure.deletion.steps=4", configs=own)  # fmt: skip
    claim = {"says": "Noise is lower", "better": "random", "worse": "gradcam", "measures": "peak"}
    config["study"] = {**STUDY, "clips": 6, "sweep_clips": 4, "claims": {"c": claim}}
    design, results = studied(config, tmp_path / "study")
    with (tmp_path / "study/cells.csv").open() as file:
        cells = list(csv.DictReader(file))
    assert all(float(row["peak"]) >= 0 for row in cells if not row["error"])
    rows = [row for row in results.rows if row["cell"] == "random"]
    assert rows and all(0.9 < row["values"]["peak"] < 1 for row in rows)
    tables = (tmp_path / "study/tables.md").read_text()
    assert (
        "| Net<br>Deletion ↓ | Net<br>Peak heat ↓ | Net<br>Gini index ↑ | Net<br>s/clip |" in tables
    )
    with (tmp_path / "study/summary.csv").open() as file:
        (random,) = (row for row in csv.DictReader(file) if row["row"] == "Random")
    assert 0.9 < float(random["peak_mean"]) < 1 and int(random["peak_clips"]) == 4
    assert float(random["gini_mean"]) == pytest.approx(1 / 3, abs=0.03)
    conclusions = (tmp_path / "study/conclusions.md").read_text()
    assert "| Claim | Peak heat, better by | Verdict |" in conclusions
    assert (
        "Noise is lower: " in conclusions and "| Comparison | Peak heat |  | Clips |" in conclusions
    )
    for plot in ("curves_Net.png", "sweep_masks.png"):
        assert (tmp_path / "study" / plot).stat().st_size > 10_000
    assert design.claims[0].measures == ("peak",)


def test_a_study_whose_measures_have_no_curves_draws_none(tmp_path: Path) -> None:
    config = configured("study=multispectral", "measure=gini")
    config["study"] = {**STUDY, "clips": 4}
    studied(config, tmp_path / "study")
    names = {path.name for path in (tmp_path / "study").glob("*.png")}
    assert names == {"sweep_masks.png", "sweep_cells.png"}


class Fails(Measure):
    """Fails on some clips, and has no value on others."""

    title = "Fails"
    better = "higher"
    needs = frozenset({"map"})

    def __call__(self, explained: Explained) -> Tensor:
        if float(explained.clip.flatten()[3]) > 0:
            raise RuntimeError("cannot say")
        return explained.heat.new_full((1,), torch.nan)


def test_a_measure_that_fails_costs_its_own_cells(tmp_path: Path) -> None:
    config = configured("study=multispectral", "measure=gini")
    config["study"] = {**STUDY, "clips": 6, "sweeps": None}
    config["measure"]["fails"] = {"_target_": f"{__name__}.Fails"}
    design, results = studied(config, tmp_path / "study")
    assert not [row["error"] for row in results.rows if row["error"]]
    assert all(row["values"]["gini"] is not None for row in results.rows)
    lost = [row for row in results.rows if row["unmeasured"]]
    assert 0 < len(lost) < len(results.rows)
    assert {row["unmeasured"]["fails"] for row in lost} == {"RuntimeError: cannot say"}
    with (tmp_path / "study/cells.csv").open() as file:
        cells = [row for row in csv.DictReader(file) if row["cell"]]
    assert {row["fails"] for row in cells} == {""}
    assert sum("fails: RuntimeError: cannot say" in row["warning"] for row in cells) == len(lost)
    assert "no Fails on 4 of 4 clips" in (tmp_path / "study/tables.md").read_text()
    # with retry, what failed is measured again
    net = network(design, task=Task(), dataset=Clips(6))
    again = replace(design, retry=True)
    journal, done = Journal(tmp_path / "study"), read_journal(tmp_path / "study")
    size = journal.path.stat().st_size
    measure_cells(again, work_items([net], again), done, journal, "cpu", say=lambda _: None)
    journal.close()
    grown = journal.path.read_bytes()[size:].count(b"\n")
    assert grown == len(lost) + 2  # and the two clips that cannot be read
