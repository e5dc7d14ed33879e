"""Small checkpoints with large bills: refused before the memory is taken."""

from __future__ import annotations

import copy
import json
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import CONFIGS, run_python
from test_checkpoint import CLASSES, DATA, TASK, remembered

from lightning_cam.archive import _STEPS, check_archive
from lightning_cam.errors import CheckpointError
from lightning_cam.training import sketch
from lightning_cam.training.build import build
from lightning_cam.training.checkpoint import KEY, rebuild, trained_methods
from lightning_cam.training.furthest import UNKNOWN, furthest_first

pytestmark = pytest.mark.attack
MODEL = ("task", "model")

# In a process of its own. Not ru_maxrss: a child's begins with its parent's, whatever it runs.
PROBE = """
import json, re, sys
import lightning_cam.tasks, lightning_cam.synthetic.actions.data_module, lightning_cam.models
import torchvision.models.video
from lightning_cam.errors import CheckpointError
from lightning_cam.training.checkpoint import rebuild

def memory(key):
    return int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024

honest, paths, trust = json.loads(sys.argv[1])
rebuild(honest)
for path in paths:
    open("/proc/self/clear_refs", "w").write("5")  # from here on a new peak
    before = memory("VmRSS")
    try:
        rebuild(path, trust)
        said = "rebuilt"
    except CheckpointError:
        said = "refused"
    print(said, memory("VmHWM") - before)
"""


def honest() -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "state_dict": build(TASK).state_dict(), "epoch": 3, "global_step": 40, KEY: remembered()
    }  # fmt: skip


def setting(*keys: str, **values: Any) -> Callable[[Path], None]:
    """A checkpoint that remembers other settings."""

    def write(path: Path) -> None:
        checkpoint = honest()
        node = checkpoint[KEY]
        for key in keys:
            node = node[key]
        node.update(values)
        torch.save(checkpoint, path)

    return write


def holding(make: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        checkpoint = honest()
        make(checkpoint)
        torch.save(checkpoint, path)

    return write


def rewritten(path: Path, change: Callable[[str, bytes], bytes], **options: Any) -> None:
    """The records of an archive, changed, and packed in another way."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in records.items():
            archive.writestr(name, change(name, data))


def compressed(method: int, numbers: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        checkpoint = honest()
        checkpoint["more"] = torch.zeros(numbers)  # they compress to nothing
        torch.save(checkpoint, path)
        rewritten(path, lambda _, data: data, compression=method)

    return write


def overlapping(path: Path) -> None:
    """Many names for one record."""
    checkpoint = honest()
    checkpoint["more"] = torch.zeros(1_000_000)
    torch.save(checkpoint, path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
        others = [r for r in archive.infolist() if "/data/" in r.filename]
    for record in others:  # in the directory at the end: its size and place are the largest's
        at = data.rfind(record.filename.encode()) - 46
        struct.pack_into("<II", data, at + 20, largest.compress_size, largest.file_size)
        struct.pack_into("<I", data, at + 42, largest.header_offset)
    path.write_bytes(data)


def with_pickle(pickled: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        torch.save(honest(), path)
        rewritten(path, lambda name, data: pickled(data) if name.endswith("data.pkl") else data)

    return write


def beside(item: bytes) -> Callable[[bytes], bytes]:
    """The pickle with one more entry, of these operations."""
    return lambda data: data[:-1] + pickle.SHORT_BINSTRING + b"\x01x" + item + b"s."


def repeated(checkpoint: dict[str, Any]) -> None:
    node: Any = list(range(10))
    for _ in range(7):
        node = [node] * 10
    checkpoint[KEY]["task"]["classes"] = node


def repeated_moments(checkpoint: dict[str, Any]) -> None:
    """PyTorch copies what an optimiser's state holds, each time it is named."""
    node: Any = [torch.ones(1)] * 10
    for _ in range(7):
        node = [node] * 10
    checkpoint["optimizer_states"] = [{"state": {0: {"exp_avg": node}}}]


def itself(checkpoint: dict[str, Any]) -> None:
    checkpoint["loops"] = {"fit_loop": checkpoint}


def repeated_mapping(checkpoint: dict[str, Any]) -> None:
    node: Any = {"a": 1}
    for _ in range(16):
        node = {"a": node, "b": node}
    checkpoint[KEY]["run"]["explain"] = {"gradcam": node}


def expanded(checkpoint: dict[str, Any]) -> None:
    checkpoint[KEY]["task"]["model"]["hidden"] = 12_000
    torch.manual_seed(0)
    with torch.device("meta"):
        state = build(checkpoint[KEY]["task"]).state_dict()
    checkpoint["state_dict"] = {k: torch.zeros(()).expand(v.shape) for k, v in state.items()}


def shared(checkpoint: dict[str, Any]) -> None:
    many = torch.zeros(300_000)
    checkpoint["optimizer_states"] = [{"state": {n: {"a": many[:]} for n in range(2000)}}]


def sparse(checkpoint: dict[str, Any]) -> None:
    checkpoint["more"] = torch.sparse_coo_tensor(
        [[0], [0]], [1.0], (10**6, 10**6), check_invariants=True
    )


def cast(dtype: torch.dtype) -> Callable[[dict[str, Any]], Any]:
    """Weights that torch would load as others, without what lies behind the point, or an i."""

    def change(checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        state.update((k, v.to(dtype)) for k, v in state.items() if v.is_floating_point())

    return change


def many_classes(checkpoint: dict[str, Any]) -> None:
    """Outputs of as many classes as there are weights: a confusion matrix has their square."""
    checkpoint[KEY]["task"]["model"] |= {"num_outputs": 40_000, "hidden": 1}
    checkpoint[KEY]["task"]["classes"] = ["a"] * 40_000
    with torch.device("meta"):
        state = build(checkpoint[KEY]["task"]).state_dict()
    checkpoint["state_dict"] = {k: torch.zeros(v.shape) for k, v in state.items()}


# --- what PyTorch reads, and what a pickle does, beside what it holds -----------------------------

ASKS = b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R"  # of a pickle: two gigabytes


def capitals(path: Path) -> None:
    """PyTorch looks records up whatever their case."""
    torch.save(honest(), path)
    with zipfile.ZipFile(path) as archive:
        (name, data), *others = [(name, archive.read(name)) for name in archive.namelist()]
    other = name.replace("data.pkl", "DATA.PKL")
    with zipfile.ZipFile(path, "w") as archive:
        for each, content in [(name, data), (other, beside(ASKS)(data)), *others]:
            archive.writestr(each, content)


def two_directories(path: Path) -> None:
    """Python takes the end in front of the locator, PyTorch the one that the locator names."""
    torch.save(honest(), path)
    whole = path.read_bytes()
    end, locator, last = bytearray(whole[-98:-42]), bytearray(whole[-42:-22]), whole[-22:]
    length, start = struct.unpack_from("<QQ", end, 40)
    directory, body = whole[start : start + length], whole[:start]
    name = path.stem.encode() + b"/data.pkl"
    with zipfile.ZipFile(path) as archive:
        data = beside(ASKS)(archive.read(name.decode()))
    sizes = (zlib.crc32(data), len(data), len(data))
    other, at = bytearray(directory), directory.index(name) - 46
    struct.pack_into("<III", other, at + 16, *sizes)
    struct.pack_into("<I", other, at + 42, start)
    body += struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, 0, 0, 0, 0, *sizes, len(name), 0)
    body += name + data
    struct.pack_into("<Q", locator, 8, len(body) + length)
    for each in (other, directory):
        struct.pack_into("<Q", end, 48, len(body))
        body += each + end
    path.write_bytes(body + locator + last)


def whole_number(n: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", n)


def tensor(shape: tuple[int, ...], key: bytes = b"0", numbers: int = 900) -> bytes:
    """A pickled tensor: all its numbers are the first of the storage `key`."""
    sides, steps = (b"".join(map(whole_number, n)) for n in (shape, [0] * len(shape)))
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x01" + key
        + b"U\x03cpu" + whole_number(numbers) + b"tQK\x00(" + sides + b"t(" + steps
        + b"t\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


MANY = tensor((10**9,))
NESTED = b"K\x01\x85" + b"".join(b"q%cU\x000h%c\x86" % (n, n) for n in range(60))

VISION = "torchvision.models.vision_transformer.VisionTransformer"
DEEP = {
    "_target_": VISION, "image_size": 16, "patch_size": 16, "num_layers": 10**6, "num_heads": 1,
    "hidden_dim": 1, "mlp_dim": 1,
}  # fmt: skip
WIDE = {"_target_": "torchvision.models.video.r3d_18", "num_classes": 3_000_000}

FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "records deflated": (compressed(zipfile.ZIP_DEFLATED, 80_000_000), "is compressed"),
    "records in bzip2": (compressed(zipfile.ZIP_BZIP2, 1_000_000), "is compressed"),
    "records in lzma": (compressed(zipfile.ZIP_LZMA, 1_000_000), "is compressed"),
    "records that overlap": (overlapping, "claim more bytes|truncated|not one"),
    "5 MB of empty mappings": (
        with_pickle(beside(b"(" + b"}" * 4_800_000 + b"t")), "more than 1000000 plain values"
    ),
    "a call for a million zeros": (
        with_pickle(beside(b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R")), "bytearray"
    ),
    "a call for an empty tensor": (
        with_pickle(beside(b"ctorch\nFloatTensor\nJ\xff\xff\xff\x7f\x85R")), "torch.FloatTensor"
    ),
    "a second pickle, in capitals": (capitals, "not one data.pkl"),
    "a second directory": (two_directories, "damaged"),
    "a set of numbers": (with_pickle(beside(b"c__builtin__\nset\n" + MANY + b"\x85R")), "set that"),
    "numbers that are counted": (
        with_pickle(beside(b"ccollections\nCounter\n" + MANY + b"\x85R")), "Counter that torch"
    ),
    "pairs of numbers": (
        with_pickle(beside(b"ccollections\nOrderedDict\n(]" + MANY + b"atR")), "OrderedDict that"
    ),
    "attributes of numbers": (
        with_pickle(beside(b"ccollections\nOrderedDict\n)R" + MANY + b"b")), "call of what it made"
    ),
    "a key that takes years": (with_pickle(beside(b"}" + NESTED + b"K\x01s")), "damaged"),
    "a million tuples": (with_pickle(beside(b"})" + b"\x85" * 900_000 + b"K\x01s")), "damaged"),
    "numbers behind a record": (
        with_pickle(beside(tensor((1,), b"1", 10**6))), "damaged"
    ),
    "a list named again and again": (holding(repeated), "more than 1000000 plain values"),
    "a mapping named again and again": (holding(repeated_mapping), "more than 100000 settings"),
    "moments named again and again": (holding(repeated_moments), "more than 1000000 plain values"),
    "loops that hold themselves": (holding(itself), "more than 1000000 plain values"),
    "weights that are one number": (holding(expanded), "has only 4 bytes"),
    "views of the same bytes": (holding(shared), "views of the same"),
    "a sparse tensor": (holding(sparse), "not dense|pickled code"),
    "hidden=12000": (setting(*MODEL, hidden=12_000), "do not fit"),
    "attention_size=10^9": (setting(*MODEL, attention_size=10**9), "do not fit"),
    "num_outputs=10^8": (setting(*MODEL, num_outputs=10**8), "do not fit"),
    "a confusion matrix of 40000 classes": (holding(many_classes), r"its model needs [\d.]+ GiB"),
    "a million layers": (setting("task", model=DEEP), "far more layers"),
    "a network of torchvision": (setting("task", model=WIDE), "do not fit"),
    "resize=20000": (setting("data", resize=20_000), "add data.resize=20000"),
    "crop=20000": (setting("data", crop=20_000), "add data.crop=20000"),
    "num_frames=3000": (setting("data", num_frames=3000), "add data.num_frames=3000"),
    **{
        f"{key}=10^9": (setting("data", **{key: 10**9}), rf"more than .* add data.{key}=1000000000")
        for key in ("fps", "num_workers", "groups", "clips", "size", "scale")
    },
    "weights of whole numbers": (holding(cast(torch.int8)), "is of torch.int8, not torch.float32"),
    "weights of complex numbers": (holding(cast(torch.complex64)), "is of torch.complex64, not"),
    "images of 20000 x 20000": (
        setting("data", height=20_000, width=20_000), "data.height=20000 data.width=20000"
    ),
    "a worker": (setting("data", _target_="lightning_cam.data.scan._Worker"), "private"),
    "a callback": (
        setting("data", std={"_target_": "lightning_cam.explaining.ExplainCallback"}), "not a class"
    ),
    "a data module as a task": (setting("task", **DATA), "must be derived from LightningModule"),
    "a network as data": (
        setting("data", **TASK["model"]), "must be derived from LightningDataModule",
    ),
}  # fmt: skip
TRUST = [VISION, WIDE["_target_"]]
LIMIT = 300  # MB


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_small_checkpoint_is_refused_before_it_costs(name: str, tmp_path: Path) -> None:
    """A checkpoint below 5 MB asks for gigabytes, or for what does not belong to a network."""
    write, pattern = FILES[name]
    write(tmp_path / "a.ckpt")
    assert (tmp_path / "a.ckpt").stat().st_size < 5_000_000
    with pytest.raises(CheckpointError, match=pattern) as caught:
        rebuild(tmp_path / "a.ckpt", TRUST)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_small_checkpoint_in_a_run_folder_is_not_opened(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`resume=FOLDER` looks for the furthest of somebody else's checkpoints."""
    FILES[name][0](tmp_path / "a.ckpt")
    torch.save(honest(), tmp_path / "b.ckpt")
    opened = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda file, **how: opened.append(file) or load(file, **how))
    found = {path.name: done for done, path in furthest_first(tmp_path)}
    try:
        check_archive(tmp_path / "a.ckpt")  # some are refused for what they remember alone
    except CheckpointError:
        assert found["a.ckpt"] == UNKNOWN and opened == [tmp_path / "b.ckpt"]
    else:
        assert len(opened) == 2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells a process's peak")
def test_no_small_checkpoint_fills_the_memory(tmp_path: Path) -> None:
    """No checkpoint below 5 MB raises the process by more than 300 MB before it is refused."""
    torch.save(honest(), tmp_path / "honest.ckpt")
    paths = {name: tmp_path / f"{n}.ckpt" for n, name in enumerate(FILES)}
    for name, path in paths.items():
        FILES[name][0](path)
    given = json.dumps([str(tmp_path / "honest.ckpt"), [*map(str, paths.values())], TRUST])
    done = run_python("-c", PROBE, given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name, line in zip(paths, done.stdout.splitlines(), strict=True):
        said, risen = line.split()
        print(f"{risen} MB after {name}")
        assert (said, int(risen) < LIMIT) == ("refused", True), name


@pytest.mark.slow
def test_honest_checkpoints_are_far_from_the_limits(tmp_path: Path) -> None:
    """A large network with its optimiser is far from the limit of plain values."""
    layers = [torch.nn.Linear(2, 2) for _ in range(1000)]
    weights = [p for layer in layers for p in layer.parameters()]
    optimizer = torch.optim.AdamW(weights)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    checkpoint = honest()
    checkpoint["optimizer_states"] = [optimizer.state_dict()]
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with zipfile.ZipFile(tmp_path / "a.ckpt") as archive:
        pickled = archive.read("a/data.pkl")
    assert sum(1 for _ in pickletools.genops(pickled)) < _STEPS / 3
    rebuild(tmp_path / "a.ckpt")


def test_what_the_user_asks_for_is_the_users_choice(tmp_path: Path) -> None:
    """The remedy works: sizes that the user has typed are not refused."""
    setting("data", num_frames=3000, resize=20_000)(tmp_path / "a.ckpt")
    _, data, _ = rebuild(tmp_path / "a.ckpt", data={"num_frames": 3000, "resize": 20_000})
    assert data.reader.num_frames == 3000


METHOD = {"_target_": "lightning_cam.RISE"}


@pytest.mark.parametrize(
    "settings",
    [
        {"masks": 10**9}, {"masks": 2, "cells": [1000, 1000, 1000]}, {"cells": [10**5, 1, 1]},
        {"masks": 100_000, "cells": [16, 16, 16]}, {"masks": float("inf")}, {"deep": [{"p": 1e6}]},
        {"_target_": "lightning_cam.IntegratedGradients", "steps": 100_000},
        {"_target_": "lightning_cam.ExtremalPerturbation", "sigma": 10**6},
        {"_target_": "lightning_cam.SmoothGrad", "samples": 10**10},
        {"_target_": "lightning_cam.EdgeMap", "blur": 1e6},
    ],
)  # fmt: skip
def test_methods_of_a_checkpoint_are_of_common_size(settings: dict[str, Any]) -> None:
    """A small checkpoint remembers methods that ask for gigabytes, or for a million runs."""
    with pytest.raises(CheckpointError, match=r"absurd size; choose .* explain=\[gradcam\]"):
        trained_methods({"g": {**METHOD, **settings}}, ())


def test_methods_that_come_with_the_package_are_of_common_size() -> None:
    for name in ("rise", "step", "extremal_3d", "kernel_shap", "temporal_mask"):
        node = yaml.safe_load((CONFIGS / "explain" / f"{name}.yaml").read_text())
        sketch.check_method_costs({name: node, "seeded": {"seed": 2**62, "masks": 10_000}})


@pytest.mark.parametrize("memory", [4, 24, 512])
def test_common_sizes_are_within_the_limits(memory: int, monkeypatch) -> None:
    """What people train on is not refused, on a small machine either."""
    monkeypatch.setattr(sketch, "_memory", lambda: memory * 2**30)
    weights = {"a": torch.zeros(10)}
    for sizes in (
        {"num_frames": 16, "resize": 256, "crop": 224}, {"num_frames": 64, "resize": 320},
        {"num_frames": 64, "resize": 256, "crop": 256}, {"num_frames": 128, "crop": 112},
        {"snippet": 5, "eval_frames": 16, "height": 384, "width": 1280},
    ):  # fmt: skip
        sketch.check_clip_memory(sizes, {}, weights)
        sketch.check_clip_memory({**sizes, "resize": "x", "crop": None, "height": -1}, {}, weights)


def test_random_numbers_go_on_as_before(tmp_path: Path) -> None:
    """Rebuilding draws what building draws: the sketch draws nothing."""
    torch.save(honest(), tmp_path / "a.ckpt")
    torch.manual_seed(1)
    rebuild(tmp_path / "a.ckpt")
    after = torch.rand(1)
    torch.manual_seed(1)
    build(TASK)
    assert torch.equal(after, torch.rand(1))


def test_numbers_of_tied_weights_may_serve_twice(tmp_path: Path) -> None:
    """Weights with two names are stored once, and are not an attack."""
    checkpoint = honest()
    checkpoint["more"] = copy.copy(checkpoint["state_dict"])
    torch.save(checkpoint, tmp_path / "a.ckpt")
    task, _, _ = rebuild(tmp_path / "a.ckpt")
    assert task.classes == CLASSES
