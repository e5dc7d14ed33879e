"""Files appear whole or not at all, and nothing in the package writes in any other way."""

from __future__ import annotations

import ast
import os
import pickle
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import run_python

import lightning_cam
from lightning_cam.errors import UserError, WriteError
from lightning_cam.files import (
    _remove_leftovers,
    destination,
    make_folder,
    whole_file,
    write_bytes,
    write_csv,
    write_text,
)

PACKAGE = Path(lightning_cam.__file__).parent


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_file_is_there_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "a.bin"
    with whole_file(path) as file:
        file.write(b"one")
        assert not path.exists()
        assert destination(Path(file.name)) == path
    assert path.read_bytes() == b"one"
    assert write_bytes(path, b"two", sync=True) == path
    assert path.read_bytes() == b"two"
    assert names(path.parent) == ["a.bin"]


def test_text_and_tables_are_written_as_given(tmp_path: Path) -> None:
    assert write_text(tmp_path / "a.txt", "ä\r\nb\n").read_bytes() == b"\xc3\xa4\r\nb\n"
    table = write_csv(tmp_path / "a.csv", [{"a": 1}, {"a": "x,y", "b": 2}], ["c", "a"])
    assert table.read_bytes() == b'c,a,b\r\n,1,\r\n,"x,y",2\r\n'


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_in_the_middle_changes_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    path = write_text(tmp_path / "a.txt", "old")
    for target in (path, tmp_path / "b.txt"):
        with pytest.raises(error), whole_file(target) as file:
            file.write(b"half")
            file.flush()
            raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


HANGING = """
import sys, time
from lightning_cam.files import whole_file
with whole_file(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print(file.name, flush=True)
    time.sleep(60)
"""


def test_a_kill_leaves_the_old_file_and_the_next_process_tidies_up(tmp_path: Path) -> None:
    path = write_text(tmp_path / "last.ckpt", "old")
    (tmp_path / ".mine.part").touch()  # not a name of ours
    dead, alive = (start(HANGING, tmp_path / name) for name in ("last.ckpt", "other.png"))
    assert dead.stdout is not None and alive.stdout is not None
    parts = [Path(process.stdout.readline().strip()) for process in (dead, alive)]  # type: ignore[union-attr]
    try:
        os.kill(dead.pid, signal.SIGKILL)
        dead.wait()
        assert path.read_text() == "old"
        assert all(part.exists() for part in parts)
        _remove_leftovers.cache_clear()  # as a new process
        write_text(tmp_path / "third.txt", "new")
        assert not parts[0].exists()
        assert parts[1].exists()  # somebody is writing it
    finally:
        alive.kill()
        alive.wait()
    _remove_leftovers.cache_clear()
    write_text(tmp_path / "third.txt", "newer")
    assert names(tmp_path) == [".mine.part", "last.ckpt", "third.txt"]
    assert path.read_text() == "old"


REPEATING = """
import sys
from lightning_cam.files import write_bytes
for _ in range(200):
    write_bytes(sys.argv[1], sys.argv[2].encode() * 100_000)
"""


def test_processes_may_write_one_file_at_once(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "page.html", b"-" * 100_000)
    writers = [start(REPEATING, path, letter) for letter in "abc"]
    seen: set[bytes] = set()
    while any(writer.poll() is None for writer in writers):
        content = path.read_bytes()
        assert len(content) == 100_000 and len(set(content)) == 1
        seen.add(content[:1])
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert len(seen) > 1
    assert names(tmp_path) == ["page.html"]


def test_a_part_file_taken_for_a_leftover_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, taken = lightning_cam.files.fcntl.flock, []

    def late(file: object, how: int) -> None:
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()
        lock(file, how)  # type: ignore[arg-type]

    _remove_leftovers(tmp_path)
    monkeypatch.setattr(lightning_cam.files.fcntl, "flock", late)
    write_text(tmp_path / "a.txt", "whole")
    assert len(taken) == 1
    assert names(tmp_path) == ["a.txt"]


def test_permissions_are_those_of_any_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = write_text(tmp_path / "a.txt", "")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o664)
        write_text(path, "new")
        assert stat.S_IMODE(path.stat().st_mode) == 0o664
    finally:
        os.umask(before)


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    epoch = write_text(tmp_path / "epoch_007.ckpt", "seven")
    last = tmp_path / "last.ckpt"
    last.symlink_to(epoch.name)
    write_text(last, "eight")
    assert epoch.read_text() == "seven"
    assert last.read_text() == "eight" and not last.is_symlink()


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path, why in (
        (Path(os.devnull), "not a file"),
        (tmp_path / "folder", "not a file"),
        (tmp_path / "file" / "a.txt", "Not a directory"),
        (tmp_path / "file" / "more" / "a.txt", "Not a directory"),
        (tmp_path / ("n" * 300), "name too long"),
    ):
        with pytest.raises(WriteError, match=f"^cannot write {path}: .*{why}; choose a "):
            write_text(path, "new")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    assert names(tmp_path) == ["file", "folder"]


@contextmanager
def without_rights() -> Iterator[None]:
    """Root may do everything: it becomes a user who may not."""
    who = os.geteuid()
    if who == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(who)


def test_a_folder_that_cannot_be_written_to() -> None:
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path, which is root's alone
        Path(folder).chmod(0o555)
        with without_rights():
            with pytest.raises(WriteError, match="Permission denied; choose a place"):
                write_text(Path(folder) / "a.txt", "new")
            with pytest.raises(WriteError, match=r"Permission denied; .*runs=DIR"):
                make_folder(Path(folder) / "runs" / "a", "runs=DIR")
        Path(folder).chmod(0o755)


FULL = """
import resource, sys
from pathlib import Path
import numpy as np, torch
from lightning_cam.training.checkpoint_io import AtomicCheckpointIO
from lightning_cam.files import whole_file, write_bytes
from lightning_cam.viz import save_png, write_video
noise = np.random.default_rng(0).integers(0, 255, (30, 128, 128, 3), dtype=np.uint8)
def arrays(path):
    with whole_file(path) as file:
        np.savez_compressed(file, noise=noise)
writers = {
    "a.bin": lambda path: write_bytes(path, bytes(100_000)),
    "a.npz": arrays,
    "a.png": lambda path: save_png(path, noise[0]),
    "a.mp4": lambda path: write_video(path, noise),
    "a.ckpt": lambda path: AtomicCheckpointIO(".").save_checkpoint({"a": torch.ones(50_000)}, path),
}
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # a disk that is soon full
for name, write in writers.items():
    path = Path(sys.argv[1]) / name
    try:
        write(path)
    except OSError as error:
        print(f"{name} {type(error).__name__}: {error}")
"""


@pytest.mark.slow
def test_a_full_disk_is_said_in_one_line_that_names_the_file(tmp_path: Path) -> None:
    files = [f"a.{end}" for end in ("bin", "npz", "png", "mp4", "ckpt")]
    for name in files:
        (tmp_path / name).write_text("old")
    said = run_python("-c", FULL, str(tmp_path), cwd=tmp_path).stdout.splitlines()
    assert said == [
        f"{name} WriteError: cannot write {tmp_path / name}: File too large; free some space there"
        for name in files
    ]
    assert names(tmp_path) == sorted(files)
    assert {(tmp_path / name).read_text() for name in files} == {"old"}


def test_the_error_is_the_user_s_and_the_system_s_and_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(WriteError("cannot write a: full; free some space there")))
    assert isinstance(error, UserError) and isinstance(error, OSError)
    assert str(error) == "cannot write a: full; free some space there"


# --- nothing else writes ------------------------------------------------------------------------

# Calls that write files, as far as the package's libraries have them; `open` is looked at below.
WRITERS = {
    *("write_text", "write_bytes", "tofile", "mkstemp", "NamedTemporaryFile", "fdopen"),
    *("save", "savez", "savez_compressed", "savetxt", "savefig", "imsave", "dump", "to_csv"),
    *("imwrite", "VideoWriter", "save_image", "write_png", "write_jpeg", "copyfile", "copy2"),
}
RENAMES = {("os", "replace"), ("os", "rename"), ("shutil", "move")}


def writes(tree: ast.AST, inside: frozenset[str] = frozenset()) -> Iterator[ast.Call]:
    """Calls that write a file by themselves, not into what `with whole_file(...) as` gave them."""
    if isinstance(tree, ast.With):
        for item in tree.items:
            yield from writes(item.context_expr, inside)
            call = item.context_expr
            made = {n.id for n in ast.walk(call) if isinstance(n, ast.Name)}
            opened = made & {"whole_file", "nameless_file", *inside}
            if opened and isinstance(item.optional_vars, ast.Name):
                inside |= {item.optional_vars.id}
        for statement in tree.body:
            yield from writes(statement, inside)
        return
    if isinstance(tree, ast.Call) and _writes(tree):
        given = [tree.func, *tree.args, *(keyword.value for keyword in tree.keywords)]
        used = {n.id for a in given for n in ast.walk(a) if isinstance(n, ast.Name)}
        if not used & inside:
            yield tree
    for child in ast.iter_child_nodes(tree):
        yield from writes(child, inside)


def _writes(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute):
        return isinstance(call.func, ast.Name) and call.func.id == "open" and _opens(call)
    name, owner = call.func.attr, ast.unparse(call.func.value)
    if name == "open":
        return _opens(call)
    one = len(call.args) == 1 and not call.keywords  # str.replace takes two, a dataclass keywords
    return name in WRITERS or (owner, name) in RENAMES or (name == "replace" and one)


def _opens(call: ast.Call) -> bool:
    """Whether a file is opened to be written anew. One that is appended to is a journal."""
    if call.args and ast.unparse(call.args[0]) == "os.devnull":
        return False
    modes = [word.value for word in call.keywords if word.arg == "mode"]
    texts = [node.value for node in [*call.args, *modes] if isinstance(node, ast.Constant)]
    words = [text for text in texts if isinstance(text, str) and set(text) <= set("rwxabt+")]
    reads = ("os.O_RDONLY", "os.O_RDONLY | os.O_NONBLOCK")
    flags = any("os.O_" in ast.unparse(a) and ast.unparse(a) not in reads for a in call.args)
    return flags or any(set(word) & set("wx+") and "a" not in word for word in words)


@pytest.mark.parametrize(
    ("code", "caught"),
    [
        ("path.write_text('a')", True),
        ("Path('a').open('w')", True),
        ("path.open(mode='xb')", True),
        ("path.open('r+b')", True),
        ("open(path, 'wt')", True),
        ("os.open(path, os.O_WRONLY)", True),
        ("np.savez(path, a=a)", True),
        ("figure.savefig(path)", True),
        ("av.open(path, 'w')", True),
        ("os.replace(a, b)", True),
        ("part.replace(path)", True),
        ("with whole_file(path) as file: np.savez(other, a=a)", True),
        ("with whole_file(path) as file: pass\nnp.savez(file, a=a)", True),
        ("with whole_file(path) as file: np.savez(file, a=a)", False),
        ("with whole_file(p) as file, av.open(file.name, 'w') as c: pass", False),
        ("with whole_file(p) as file, ZipFile(file, 'w') as z: z.open('a', 'w')", False),
        ("with nameless_file() as file: av.open(file, 'w')", False),
        ("with ZipFile(path) as z: z.open('a', 'w')", True),
        ("write_text(path, 'a')", False),
        ("path.open('rb')", False),
        ("path.open('a+b')", False),
        ("open(path)", False),
        ("os.open(path, os.O_RDONLY | os.O_NONBLOCK)", False),
        ("os.open(path, os.O_RDONLY | os.O_CREAT)", True),
        ("os.open(os.devnull, os.O_WRONLY)", False),
        ("text.replace('a', 'b')", False),
        ("dataclasses.replace(clip, label=1)", False),
    ],
)
def test_writing_is_recognised(code: str, caught: bool) -> None:
    assert bool(list(writes(ast.parse(code)))) is caught


def test_nothing_else_in_the_package_writes_files() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{call.lineno}: {ast.unparse(call)}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != PACKAGE / "files.py"
        for call in writes(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "write with lightning_cam.files: " + "; ".join(found)
