"""Files that appear under their name only when they are complete: the one way to write one."""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from lightning_cam.errors import READABLE, WriteError

_PART = re.compile(r"\.(.+)\.([\w-]+)-(\d+)-[0-9a-f]{8}\.part", re.ASCII)
_PART_ENDS = 56  # bytes that the name of a part file is longer, at most
_DAY = 24 * 3600
_SUSPECT = re.compile(r"'*[=+\-@\t\r\n]")  # begins a formula, or what is read back as one
_FORMULA = re.compile(r"\A'('*[=+\-@\t\r\n])")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def make_folder(folder: str | Path, setting: str = "", *, new: bool = False) -> Path:
    """Make a folder, and those above it; return its path. One that is there is left as it is.

    Args:
        folder: to make.
        setting: what one sets to choose another, for the message: "out=DIR".
        new: whether it must not be there yet.

    Raises:
        WriteError: it cannot be made.
        FileExistsError: with `new`, it is there.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=not new)
    except OSError as error:
        if new and isinstance(error, FileExistsError) and folder.is_dir():
            raise
        raise _cannot("make the folder", folder, error, setting) from error
    return folder


@contextmanager
def whole_folder(folder: str | Path, setting: str = "") -> Iterator[Path]:
    """A new folder to fill, which appears under its name, filled, when the block ends.

    Args:
        folder: to make.
        setting: as of `make_folder`.

    Yields:
        Where to fill it; nothing is left there after an error.

    Raises:
        WriteError: it cannot be made.
        FileExistsError: there is something of this name, which may have come meanwhile; it stays.
    """
    folder = Path(folder)
    ending = f"{machine()}-{os.getpid()}-{secrets.token_hex(4)}.begun"
    begun = make_folder(folder.with_name(f".{fitted(folder.name, 99)}.{ending}"), setting, new=True)
    try:
        yield begun
        try:
            begun.rename(folder)
        except OSError as error:
            if os.path.lexists(folder):
                raise FileExistsError(errno.EEXIST, "there already", str(folder)) from error
            raise _cannot("make the folder", folder, error, setting) from error
    finally:
        shutil.rmtree(begun, ignore_errors=True)


@contextmanager
def whole_file(path: str | Path, *, sync: bool = False) -> Iterator[BinaryIO]:
    """A binary file to write, which takes the place of `path` when the block ends without an error.

    Until then it is a hidden part file in the same folder, whose name no other process has: where
    several write `path` at once, the last to finish wins. After an error or Ctrl-C the old file is
    as it was, and nothing lies beside it. What a killed process leaves is removed by the next that
    writes into the folder. Permissions are those of the old file, or of any new one. A symbolic
    link is replaced; what it points to stays as it was.

    Args:
        path: the file; missing folders are made.
        sync: whether it shall outlive a power cut as well: for what cannot be made again.

    Yields:
        The open file. A library that opens files itself may write to its `name`.

    Raises:
        WriteError: the file cannot be written.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # /dev/null would become a file
            raise OSError(errno.EINVAL, "there is something of this name that is not a file")
        with suppress(FileExistsError):  # a file: "not a directory" below says it better
            path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent.absolute())
        file = _new_part(path)
        part, lock = Path(file.name), os.dup(file.fileno())
        try:
            with file:
                yield file
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            with suppress(OSError):  # no old file, or a file system without permissions
                part.chmod(stat.S_IMODE(path.stat().st_mode))
            part.replace(path)  # after closing, which is when a network file system reports errors
        finally:
            part.unlink(missing_ok=True)
            os.close(lock)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def nameless_file(folder: str | Path | None = None) -> Iterator[BinaryIO]:
    """A file to write and read again that has no name: nothing is left of it, also after a kill.

    Args:
        folder: on whose disk it is; None: that of temporary files, which may be memory.

    Raises:
        WriteError: it cannot be made.
    """
    place = Path(folder or tempfile.gettempdir())
    try:
        file = tempfile.TemporaryFile(dir=place)  # noqa: SIM115 (its errors are not those inside)
    except OSError as error:
        raise cannot_write(place / "temporary file", error) from error
    with file:
        yield file


def open_to_append(path: Path) -> FileIO:
    """Open a file that grows, or make it; what is written is with the system at once.

    Raises:
        WriteError: it cannot be opened; or it is a link, for a folder from elsewhere could name
            any file so, or something else than a file.
    """
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise OSError(errno.EINVAL, "there is something of this name that is not a file")
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        return FileIO(handle, "a+b")
    except OSError as error:
        raise cannot_write(path, error) from error


def claimed(path: Path) -> bool:
    """Whether this process is the one that made an empty file; two never are, nor on NFS.

    Raises:
        WriteError: it cannot be made.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        return False
    except OSError as error:
        raise cannot_write(path, error) from error
    return True


def cannot_write(path: Path, error: OSError) -> WriteError:
    """The error of the user that an error of the system is."""
    return _cannot("write", path, error)


def _cannot(what: str, path: Path, error: OSError, setting: str = "") -> WriteError:
    if error.errno == errno.ENOSPC and _no_more_files(path):
        remedy = "remove some files there: it can hold no more of them, however small"
    elif error.errno in _FULL:
        remedy = "free some space there"
    elif error.errno == errno.ENAMETOOLONG:
        remedy = "choose a shorter name"
    else:
        remedy = "choose a place that can be written to"
    remedy += f", {setting}" if setting else ""
    return WriteError(f"cannot {what} {path}: {error.strerror or error}; {remedy}")


def _no_more_files(path: Path) -> bool:
    """Whether a file system has no inodes left, while it may have space."""
    try:
        state = os.statvfs(next(folder for folder in path.parents if folder.exists()))
    except (OSError, StopIteration):
        return False
    return state.f_files > 0 and state.f_favail == 0


def write_bytes(path: str | Path, data: bytes, *, sync: bool = False) -> Path:
    """Write a whole file; return its path. Arguments and errors as of `whole_file`."""
    with whole_file(path, sync=sync) as file:
        file.write(data)
    return Path(path)


def write_text(path: str | Path, text: str, *, sync: bool = False) -> Path:
    """Write a whole file in UTF-8, line ends as they are; return its path.

    Bytes of file names that are not UTF-8 stand in it as `\\xe9`.
    """
    return write_bytes(path, text.encode("utf-8", READABLE), sync=sync)


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Path:
    """Write rows under `columns` and whatever other columns any of them has; return the path.

    Text that a spreadsheet would take for a formula, such as a class named `=1+1`, gets an
    apostrophe in front, which `read_csv` takes away. Numbers stay as they are.
    """
    names = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(map(_harmless, names))
    writer.writerows([_harmless(row.get(name, "")) for name in names] for row in rows)
    return write_text(path, text.getvalue())


def ffmpeg_name(path: str | Path) -> str:
    """What FFmpeg is to call a file; of a bare name it takes what stands before a colon for a
    protocol.
    """
    return f"file:{Path(path).absolute()}"


def is_address(path: str | Path) -> bool:
    """Whether a path that leads nowhere is an address of the network, such as `http://...`."""
    return re.match(r"[a-z][a-z0-9+.-]+:/", str(path), re.IGNORECASE) is not None


def is_too_deep(text: str) -> bool:
    """Whether more than 100 brackets stand in each other: PyYAML takes the square of them."""
    depth = 0
    for bracket in re.finditer(r"[\[\]{}]", text):
        depth = depth + 1 if bracket[0] in "[{" else max(depth - 1, 0)
        if depth > 100:
            return True
    return False


def fitted(name: str, room: int) -> str:
    """A name of at most `room` bytes: a longer one is cut, and ends in a digest of the whole."""
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) <= room:
        return name
    digest = f"-{hashlib.sha256(raw).hexdigest()[:8]}"
    return raw[: room - len(digest)].decode("utf-8", "ignore") + digest


def digest(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    found = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """Rows that `write_csv` wrote: column -> text, as it was given.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        head, *rows = [[_FORMULA.sub(r"\1", cell) for cell in row] for row in csv.reader(file)]
    return [dict(zip(head, row, strict=True)) for row in rows]


def _harmless(value: Any) -> Any:
    """A cell that no spreadsheet calculates."""
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}" if _SUSPECT.match(value) else value


def destination(path: Path) -> Path:
    """The file that a part file was to become, if the name is not cut; any other file itself."""
    part = _PART.fullmatch(path.name)
    return path.with_name(part[1]) if part else path


def _new_part(path: Path) -> BinaryIO:
    """A part file that is locked for as long as this process has it open."""
    longest = 255
    with suppress(OSError, ValueError):
        longest = os.pathconf(path.parent, "PC_NAME_MAX")
    name = fitted(path.name, longest - _PART_ENDS)
    while True:
        ending = f"{machine()}-{os.getpid()}-{secrets.token_hex(4)}.part"
        part = path.with_name(f".{name}.{ending}")
        file = part.open("xb")
        with suppress(OSError):  # a file system without locks: leftovers stay there
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:  # not taken for a leftover before it was locked
            return file
        file.close()


def machine() -> str:
    """The name of this machine, of at most 24 letters, digits and hyphens."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:24] or "unknown"


def alive(pid: int) -> bool:
    """Whether this machine has a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def remove_leftovers(folder: Path) -> None:
    """Remove part files of processes that were killed: those that nobody has locked.

    Without locks, those of processes of this machine that are no more. Those of other machines,
    where locks may not reach, have to be a day old as well.
    """
    for part in folder.glob(".*.part"):
        if found := _PART.fullmatch(part.name):
            with suppress(OSError), part.open("r+b") as file:
                here = found[2] == machine()
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                except OSError:
                    if not here or alive(int(found[3])):
                        continue
                if here or time.time() - part.stat().st_mtime > _DAY:
                    part.unlink()


_remove_leftovers = cache(remove_leftovers)  # they are of processes that ended before this
