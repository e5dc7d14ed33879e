"""A real SLURM of three nodes on this machine, for tests: munged, slurmctld and three slurmd."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
NODES = ("n1", "n2", "n3")  # two that train, and one that takes over where one dies
FRESH = 0.4  # seconds for which an answer holds: to ask costs more than all that waits for it
TIMES = {"munged": 10, "slurmctld": 30, "slurmd": 30}  # seconds until they answer

# A requeued job waits until the credentials of its steps have expired, 121 s by default, and
# KillWait has to be shorter. Node names do not resolve: all are this machine.
CONFIGURATION = """
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
FirstJobId={first}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket,cred_expire=8
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool-%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd-%n.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
JobRequeue=1
KillWait=5
OverTimeLimit=0
MinJobAge=600
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=30
{nodes}
PartitionName=tests Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = (
    "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=4 "
    "RealMemory=4000 Gres=gpu:2 State=UNKNOWN"
)


def absent() -> str:
    """Why there can be no SLURM here; "" if there can."""
    missing = [name for name in PROGRAMS if _program(name) is None]
    return f"{', '.join(missing)} not installed (apt-get install slurm-wlm munge)" * bool(missing)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclass
class Cluster:
    """A SLURM that runs.

    Attributes:
        place: its folder, with the logs of all daemons.
        environment: of whoever talks to it, and of its jobs.
        daemons: name -> process.
    """

    place: Path
    environment: dict[str, str]
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def ask(self, *words: object, cwd: Path | None = None) -> str:
        """What a command of SLURM's prints.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            [*map(str, words)], env=self.environment, cwd=cwd or self.place, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr}")
        return done.stdout.strip()

    def submit(self, script: Path, *arguments: object, cwd: Path, options: Sequence[str]) -> Job:
        """Run a batch script with two nodes of one task each, unless the options say otherwise."""
        default = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=1"]
        words = ["sbatch", "--parsable", *default, *options, script, *arguments]
        return Job(self, self.ask(*words, cwd=cwd), cwd)

    def fail(self, node: str) -> None:
        """A node dies, with all that runs on it."""
        for process in [self.daemons.pop(node).pid, *self._steps(node)]:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=dead")

    def repair(self, node: str) -> None:
        """A node that died comes back."""
        _start(self, node, "slurmd", "-D", "-N", node)
        _wait("slurmd", lambda: self.ask("sinfo", "-h", "-n", node, "-o", "%t") == "idle")

    def _steps(self, node: str) -> list[int]:
        """The processes of jobs on a node; before them those that would tell how they ended."""
        own = {f"SLURMD_NODENAME={node}", f"SLURM_CONF={self.environment['SLURM_CONF']}"}
        tasks, watchers = [], []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended meanwhile
                words = (process / "environ").read_bytes().decode(errors="replace").split("\0")
                if own <= {*words}:
                    tasks.append(int(process.name))
                    parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                    if (Path("/proc") / parent / "comm").read_text().startswith("slurmstepd"):
                        watchers.append(int(parent))
        return [*watchers, *tasks]


@dataclass(frozen=True)
class Job:
    """A batch job.

    Attributes:
        cluster: where it runs.
        number: its id.
        cwd: where it was submitted.
    """

    cluster: Cluster
    number: str
    cwd: Path
    _known: list[tuple[float, dict[str, str]]] = field(default_factory=list)

    def facts(self) -> dict[str, str]:
        """What `scontrol show job` says, or has said just now: KEY -> value."""
        if not self._known or time.monotonic() - self._known[-1][0] > FRESH:
            shown = self.cluster.ask("scontrol", "show", "job", "--oneliner", self.number)
            pairs = (word.partition("=") for word in shown.split())
            self._known[:] = [(time.monotonic(), {key: value for key, _, value in pairs})]
        return self._known[-1][1]

    @property
    def state(self) -> str:
        return self.facts()["JobState"]

    @property
    def restarts(self) -> int:
        return int(self.facts()["Restarts"])

    def log(self) -> str:
        """What the job has printed, of all its starts."""
        file = self.cwd / f"slurm-{self.number}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def signal(self, name: str, *options: str) -> None:
        """Send a signal to all tasks, or as the options of scancel say."""
        self.cluster.ask("scancel", f"--signal={name}", *options, self.number)

    def until(self, what: Callable[[], object], seconds: float) -> float:
        """Wait for something to become true; the seconds it took.

        Raises:
            TimeoutError: it has not.
        """
        began = time.monotonic()
        while not what():
            if time.monotonic() - began > seconds:
                raise TimeoutError(f"{self.facts()}\n{self.log()[-6000:]}")
            time.sleep(0.1)
        return time.monotonic() - began

    def end(self, seconds: float = 240) -> str:
        """Wait until it is over; its last state."""
        alive = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED", "SUSPENDED")
        self.until(lambda: self.state not in alive, seconds)
        return self.state


def started(place: Path) -> Iterator[Cluster]:
    """Start all daemons in a folder, and end them afterwards."""
    controller, *ports = _free_ports(1 + len(NODES))
    nodes = [NODE.format(name=name, port=port) for name, port in zip(NODES, ports, strict=True)]
    text = CONFIGURATION.format(
        place=place,
        controller=controller,
        user=getpass.getuser(),
        nodes="\n".join(nodes),
        first=1 + secrets.randbelow(60_000),  # ports of jobs go by it, also of another SLURM's here
    )
    (place / "state").mkdir()
    (place / "slurm.conf").write_text(text)
    # Files in place of GPUs: SLURM counts and hands them out all the same.
    (place / "gres.conf").write_text("Name=gpu File=/dev/null,/dev/zero\n")
    key = place / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    # Of a pytest that SLURM has started itself, its jobs would inherit what they are.
    own = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SRUN"))}
    environment = {
        **own,
        "SLURM_CONF": str(place / "slurm.conf"),
        "MASTER_ADDR": "127.0.0.1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    }
    made = Cluster(place, environment)
    with ExitStack() as stack:
        stack.callback(_end, made)
        munge = ["--foreground", "--force", f"--key-file={key}", f"--socket={place}/munge.socket"]
        munge += [f"--pid-file={place}/munged.pid", f"--seed-file={place}/munge.seed"]
        _start(made, "munged", "munged", *munge, f"--log-file={place}/munged.log")
        _wait("munged", lambda: (place / "munge.socket").exists())
        _start(made, "slurmctld", "slurmctld", "-D", "-c")
        _wait("slurmctld", lambda: "UP" in made.ask("scontrol", "ping"))
        for name in NODES:
            (place / f"spool-{name}").mkdir()
            _start(made, name, "slurmd", "-D", "-N", name)
        _wait("slurmd", lambda: made.ask("sinfo", "-h", "-t", "idle", "-o", "%D") == "3")
        yield made


def _start(made: Cluster, name: str, program: str, *words: str) -> None:
    log = (made.place / f"{name}.out").open("wb")
    with closing(log):
        made.daemons[name] = subprocess.Popen(
            [_program(program) or program, *words], env=made.environment, stdout=log, stderr=log
        )


def _wait(program: str, what: Callable[[], bool]) -> None:
    until = time.monotonic() + TIMES[program]
    while True:
        try:
            if what():
                return
        except RuntimeError as error:
            if time.monotonic() > until:
                raise TimeoutError(program) from error
        if time.monotonic() > until:
            raise TimeoutError(program)
        time.sleep(0.1)


def _end(made: Cluster) -> None:
    """End what is left of jobs, and all daemons, in the order that leaves nothing behind."""
    if "slurmctld" in made.daemons:
        try:
            made.ask("scancel", "--full", "--signal=KILL", f"--user={getpass.getuser()}")
            made.ask("scancel", f"--user={getpass.getuser()}")
        except RuntimeError:  # it does not answer any more
            pass
    for name in (*NODES, "slurmctld", "munged"):
        if name in made.daemons:
            process = made.daemons[name]
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        ends = [stack.enter_context(socket.socket()) for _ in range(count)]
        for end in ends:
            end.bind(("127.0.0.1", 0))
        return [end.getsockname()[1] for end in ends]
