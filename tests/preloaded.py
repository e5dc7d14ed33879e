"""Python programs in processes of their own, forked from one that has loaded the libraries.

Loading torch, Lightning and the package takes most of the time of a short program: about 9 s of a
processor, and taking them down at its end another 2 s. The settings are read; threads, functions
of `atexit` and streams end as in any other program. This file is the client and, run as a script,
the server, which forks a process for each request.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Not wandb: the first process that ends would remove the folder that its import makes for media.
LIBRARIES = ("lightning.pytorch", "torchvision", "torchmetrics.classification",
             "matplotlib.backends.backend_agg", "cv2", "av", "hydra.main", "rich.progress",
             "PIL.PngImagePlugin", "lightning_cam.commands.run_train",
             "lightning_cam.commands.run_explain", "lightning_cam.commands.run_check",
             "lightning_cam.synthetic.actions", "lightning_cam.viz.page")  # fmt: skip

_exit_code: list[int] = []  # of a program that has come to its end


class Process:
    """A started program: the part of `subprocess.Popen` that tests use, in text."""

    def __init__(self, words: Sequence[str], cwd: str | Path, env: Mapping[str, str]) -> None:
        self.args = [sys.executable, *words]
        self.returncode: int | None = None
        out, err, status = os.pipe(), os.pipe(), os.pipe()
        request = json.dumps([list(words), str(cwd), dict(env)]).encode() + b"\n"
        ends = [out[1], err[1], status[1]]
        socket.send_fds(_server(), [request], ends)
        for end in ends:
            os.close(end)
        self.stdout, self.stderr = os.fdopen(out[0]), os.fdopen(err[0])
        self._status = os.fdopen(status[0])
        self.pid = int(self._status.readline())

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, 0)
            return None
        return self.wait()

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(int(self._status.readline()))
            self._status.close()
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What is left of stdout and stderr when it has ended; killed after `timeout` seconds."""
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                out, err = (one.result(timeout) for one in both)
            except TimeoutError:
                self.send_signal(signal.SIGKILL)
                raise subprocess.TimeoutExpired(self.args, timeout) from None
        self.wait()
        self.stdout.close()
        self.stderr.close()
        return out, err


@functools.cache
def _server() -> socket.socket:
    """A connection to this test process's server, which ends with it."""
    ours, its = socket.socketpair()
    words = [sys.executable, __file__, str(its.fileno())]
    server = subprocess.Popen(words, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL)  # fmt: skip
    its.close()
    atexit.register(server.kill)
    return ours


def _serve(connection: socket.socket) -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    kept_settings = importlib.import_module("kept_settings")
    kept_settings.keep()
    composed = importlib.import_module("lightning_cam.commands.search").composed
    for command in ("train", "explain"):
        composed(command)
    gc.collect()
    gc.freeze()  # a program need not go through all of these objects again and again
    while True:
        message, ends, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if not message:
            return
        while not message.endswith(b"\n"):
            message += connection.recv(1 << 20)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the watcher
        if os.fork() == 0:
            connection.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if _watch(ends):
                os._exit(0)
            _execute(*json.loads(message))
            return
        for end in ends:
            os.close(end)


def _watch(ends: Sequence[int]) -> bool:
    """Fork; False in the new process, True here when it has ended and its status is told."""
    out, err, status = ends
    started = os.fork()
    if not started:
        os.dup2(out, 1)
        os.dup2(err, 2)
        for end in ends:
            os.close(end)
        return False
    os.close(out)
    os.close(err)
    os.write(status, f"{started}\n".encode())
    os.write(status, f"{os.waitpid(started, 0)[1]}\n".encode())
    return True


def _execute(words: list[str], cwd: str, env: dict[str, str]) -> None:
    # The server's streams take their pipes for what the server had: say anew what they are.
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    try:
        _run(words, cwd)
    except SystemExit as leaving:
        code = leaving.code
        _exit_code.append(code if isinstance(code, int) else int(code is not None))
        raise
    _exit_code.append(0)


def _run(words: list[str], cwd: str) -> None:
    if words[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *words[2:]], ""
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    elif words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], cwd
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, str(Path(words[0]).parent)
        runpy.run_path(words[0], run_name="__main__")


def _last_of_all() -> None:
    """Leave the taking down of the libraries to the system, but after an exception or Ctrl-C."""
    if _exit_code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_exit_code[0])
    gc.unfreeze()  # libraries in C++ call what is left at the end a leak


if __name__ == "__main__":
    atexit.register(_last_of_all)
    _serve(socket.socket(fileno=int(sys.argv[1])))
