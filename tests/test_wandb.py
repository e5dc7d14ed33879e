"""W&B: what an offline run wrote, read back by wandb's own reader, and how the mode is found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from commands import ENVIRONMENT, run, tiny

from lightning_cam.commands.common import plain_settings
from lightning_cam.commands.run_train import _KEYS
from lightning_cam.commands.search import composed
from lightning_cam.commands.train_settings import check_settings
from lightning_cam.errors import UserError
from lightning_cam.training.agreeing import Run
from lightning_cam.training.loggers import check_logger, make_logger, wandb_mode

EPOCHS, STEPS = 2, 3  # 18 training clips in batches of 6


def read_back(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's transaction log, through `wandb leet inspect`."""
    from wandb.errors import WandbCoreNotAvailableError  # its import takes seconds
    from wandb.util import get_core_path

    try:
        get_core_path()
    except WandbCoreNotAvailableError as error:
        pytest.skip(f"wandb's reader is not built for this platform: {error}")
    code = "from wandb.cli.cli import cli; cli()"
    done = subprocess.run(
        [sys.executable, "-c", code, "leet", "inspect", "--json", str(folder)],
        capture_output=True, text=True, timeout=120, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_offline_run_is_read_back(tmp_path: Path) -> None:
    settings = [*tiny(tmp_path / "data"), "logger=wandb", "videos.clips=2", "name=w"]
    settings += ["measure=[deletion,insertion]", "measure.deletion.steps=4"]
    done = run("train", *settings, f"trainer.max_epochs={EPOCHS}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # neither a prompt nor advice
    assert "each time: videos.log_every_n_epochs" in done.stdout
    (folder,) = (tmp_path / "runs" / "w").iterdir()
    (log,) = (folder / "wandb").glob("offline-run-*")
    upload = (
        f"for run in runs/w/{folder.name}/wandb/offline-run-*; do WANDB_RESUME=allow wandb sync"
    )
    assert done.stdout.splitlines()[-1].startswith(f"upload       {upload}")
    records = read_back(log)

    (begun,) = [record["run"] for record in records if record["type"] == "run"]
    assert begun["project"] == "lightning_cam"
    assert begun["run_id"] == (folder / "wandb_id.txt").read_text().strip()
    config = begun["config"]["update"]
    assert config["trainer"]["max_epochs"] == EPOCHS
    assert config["task"]["classes"] == ["blink", "expand", "move_left"]
    assert config["run"] == {"path": str(folder), "job": None, "restart": 0}
    printed = "".join(r["output_raw"]["line"] for r in records if r["type"] == "output_raw")
    assert "epoch_001 (2 of 2)" in printed

    found: dict[str, dict[int, Any]] = defaultdict(dict)  # key -> trainer's step -> value
    for record in records:
        if record["type"] == "history":
            item = record["history"]["item"]
            for key, value in item.items():
                found[key][item["trainer/global_step"]] = value

    # Lightning counts from 0: an epoch's numbers belong to its last step. Media are made behind it.
    ends = [STEPS * n - 1 for n in range(1, EPOCHS + 1)]
    behind = [STEPS * n for n in range(1, EPOCHS + 1)]
    speed = ("speed/clips_per_s", "speed/data_wait")
    for key in ("val/acc", "val/loss", "val/top5", "train/acc", "train/loss_epoch", *speed):
        assert sorted(found[key]) == ends, key
    assert not [key for key in found if key.startswith("val/acc/")]
    losses = [found["train/loss"][step] for step in range(STEPS)]
    assert abs(found["train/loss_epoch"][STEPS - 1] - sum(losses) / STEPS) < 1e-5
    assert sorted(found["train/loss"]) == list(range(STEPS * EPOCHS))
    assert all(0 <= value <= 1 for value in found["val/acc"].values())

    methods = "recurrent_gradcam+integrated_recurrent_gradcam"
    clips = {key.split("/")[2] for key in found if key.startswith("explain/video/")}
    assert len(clips) == 2
    for step in behind:
        for clip in clips:
            (video,) = found[f"explain/video/{clip}/{methods}.videos"][step]
            file = log / "files" / video["path"]
            assert file.suffix == ".mp4" and file.stat().st_size == video["size"]
            for key in (f"sheet/{clip}/{methods}", f"attention_epochs/{clip}"):
                (image,) = found[f"explain/{key}.filenames"][step]
                assert (log / "files" / image).is_file(), key
        for method in (*methods.split("+"), "random"):
            for kind in ("deletion", "insertion"):
                assert 0 <= found[f"explain/{method}/{kind}"][step] <= 1
        for key in ("explain/curves", "val/confusion", "val/per_class_chart"):
            (image,) = found[f"{key}.filenames"][step]
            assert (log / "files" / image).is_file(), key
        table = json.loads((log / "files" / found["val/per_class.path"][step]).read_text())
        assert table["columns"] == ["class", "accuracy", "clips"]
        assert [row[0] for row in table["data"]] == ["blink", "expand", "move_left"]
        mean = sum(row[1] for row in table["data"]) / 3
        assert abs(mean - found["val/macro_acc"][step - 1]) < 1e-6
        table = json.loads((log / "files" / found["explain/attention.path"][step]).read_text())
        assert table["columns"] == ["epoch", "clip", "frame", "attention"]
        assert len(table["data"]) == found["explain/attention.nrows"][step] == 2 * 16
        assert {row[0] for row in table["data"]} == {step // STEPS - 1}
        for clip in {row[1] for row in table["data"]}:
            assert abs(sum(row[3] for row in table["data"] if row[1] == clip) - 1) < 1e-4

    again = run("train", *settings, "trainer.max_epochs=3", "resume=last", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    logs = sorted((folder / "wandb").glob("offline-run-*"))
    assert len(logs) == 2
    assert len({path.name.rsplit("-", 1)[1] for path in logs}) == 1  # one run in W&B
    (goes_on,) = set(logs) - {log}
    steps = [
        record["history"]["item"]["trainer/global_step"]
        for record in read_back(goes_on)
        if record["type"] == "history" and "val/acc" in record["history"]["item"]
    ]
    assert steps == [STEPS * 3 - 1]


@pytest.fixture
def clean(monkeypatch, tmp_path: Path) -> Path:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


def test_offline_without_a_key_online_with_one(clean: Path, monkeypatch) -> None:
    assert wandb_mode() == "offline"
    clean.write_text("machine api.example.org login user password key\n")
    assert wandb_mode() == "offline"
    monkeypatch.setenv("WANDB_BASE_URL", "https://api.example.org/")
    assert wandb_mode() == "online"
    monkeypatch.delenv("WANDB_BASE_URL")
    clean.write_text("machine api.wandb.ai login user password key\n")
    assert wandb_mode() == "online"
    clean.write_text("no netrc at all")
    assert wandb_mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert wandb_mode() == "online"


@pytest.mark.parametrize(
    ("said", "meant"),
    [("offline", "offline"), ("disabled", "disabled"), ("dryrun", "offline"), ("run", "online")],
)
def test_wandb_mode_is_obeyed(clean: Path, monkeypatch, said: str, meant: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", said)
    assert wandb_mode() == meant


def test_a_server_that_cannot_be_reached_does_not_stop_the_run(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    import wandb

    begun: list[str] = []
    real = wandb.init

    def init(**options: Any) -> Any:
        begun.append(options["mode"])
        if options["mode"] == "online":
            raise wandb.errors.CommError("no network")
        return real(**{**options, "mode": "disabled"})

    monkeypatch.setattr(wandb, "init", init)
    settings = {"kind": "wandb", "project": "p", "entity": None, "mode": "online"}
    make_logger(settings, Run(tmp_path), "n", {})
    wandb.finish()
    assert begun == ["online", "offline"]
    assert "cannot be reached (no network); logging offline" in capsys.readouterr().out


def test_other_loggers(tmp_path: Path) -> None:
    assert make_logger({"kind": "none"}, Run(tmp_path), "n", {}) is None
    csv = make_logger({"kind": "csv"}, Run(tmp_path), "n", {})
    assert Path(csv.log_dir).parent == tmp_path / "csv"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "tensorboard"}, r"no logger\.kind 'tensorboard'; have: wandb, csv, none"),
        ({"kind": ["csv"]}, r"no logger\.kind \"\['csv'\]\""),
        ({"grup": "x"}, r"no setting of logger=wandb 'logger\.grup'; nearest: logger\.group"),
        ({"kind": "csv", "group": "x"}, r"no setting of logger=csv 'logger\.group'"),
        ({"mode": "off"}, r"no logger\.mode 'off'; nearest: offline"),
        ({"checkpoint": "all"}, r"no logger\.checkpoint 'all'"),
        ({"tags": "pilot"}, r"logger\.tags=pilot must be a list of words"),
        ({"tags": ["a", 3]}, "must be a list of words"),
        ({"group": ["a"]}, r"logger\.group=\['a'\] must be text"),
        ({"code": "yes"}, r"logger\.code=yes must be true or false"),
    ],
)
def test_settings_of_loggers_that_make_no_sense_are_refused(
    settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        check_logger({"kind": "wandb", **settings})


@pytest.mark.parametrize("choice", ["logger=none", "logger=csv", "logger.kind=none"])
def test_an_experiments_settings_of_another_logger_are_let_go(
    choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the file has for W&B does not stop a run without it; what is typed is refused."""
    words = ["experiment=example", choice]
    config = plain_settings(composed("train", words), _KEYS)
    monkeypatch.setattr("sys.argv", ["train", *words])
    check_settings(config)
    assert [*config["logger"]] == ["kind"]
    config = plain_settings(composed("train", [*words, "++logger.mode=online"]), _KEYS)
    monkeypatch.setattr("sys.argv", ["train", *words, "++logger.mode=online"])
    with pytest.raises(UserError, match=r"no setting of logger=\w+ 'logger\.mode'"):
        check_settings(config)
    config["logger"] = {"kind": "wandb", "grup": "x"}  # no logger has it
    with pytest.raises(UserError, match=r"'logger\.grup'; nearest: logger\.group"):
        check_settings(config)


def test_half_an_id_is_never_left(tmp_path: Path, monkeypatch) -> None:
    import wandb

    def killed(_number: int) -> None:
        raise KeyboardInterrupt

    given: list[str] = []

    def init(**options: Any) -> Any:
        given.append(options["id"])
        return real(**{**options, "mode": "disabled"})

    real = wandb.init
    monkeypatch.setattr(wandb, "init", init)
    settings = {"kind": "wandb", "project": "p", "entity": None, "mode": "offline"}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.fsync", killed)
        make_logger(settings, Run(tmp_path), "n", {})
    assert not (tmp_path / "wandb_id.txt").exists()
    for _ in range(2):
        make_logger(settings, Run(tmp_path), "n", {})
        wandb.finish()
    assert len(set(given)) == 1 and len(given[0]) == 8
