"""The option --distributed: one run in several processes, on one machine or on many, by `jax.distributed`.

`parsed` reads the option, and `join` starts JAX's runtime and waits for the other processes. They meet by `door.py`,
what they then tell each other is in `team.py`, and how they end together in `endings.py`.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn, TypeVar

import pgjax
from experiments.harness import door, endings, interruption, jax_processes, reports, runtime, sent_files, team
from experiments.harness.directories import UsageError

HELP = (
    "Share the episodes of this run among several processes, perhaps on several machines. Start the same command in "
    "each of them. auto lets JAX find the others by SLURM, Kubernetes or Open MPI. HOST:PORT,N,I names the machine of "
    "process 0 and a free port there, the number N of processes, and the number I of this one, from 0 to N−1. Process "
    "0 writes the results. The number of devices (--devices) is that of each process. Every run needs a port of its "
    "own: a process that reaches the port of another run ends with exit code 2, and the other run goes on."
)
TIMEOUT_HELP = "The seconds for which a process waits at its start for the other processes of --distributed."
WATCHDOG_HELP = (
    "End all processes of --distributed with exit code 75 if no chunk of updates ends for so many seconds. A chunk "
    "takes about a second, and the first one also waits for the compiler."
)
FORM = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:,\[\]]+):(?P<port>\d{1,9}),(?P<count>\d{1,9}),(?P<index>\d{1,9})")
MOST_PROCESSES = 65_536
MOST_SECONDS = 86_400
TIMEOUT = 300.0
# Seconds without a sign of life after which JAX ends the other processes with its own report. A process that is killed
# is noticed at once, and a machine that is lost after `connections.SILENT` seconds, so this only ends those that hang.
HEARTBEAT = 60
# JAX would end the process with a long report. Ours, which is one line, comes this many seconds before.
EARLIER = 15

Config = TypeVar("Config")


class Cluster(NamedTuple):
    """What --distributed says; None in every field but `text` lets JAX find it, see `jax_processes.detected`.

    Attributes:
        text: the value of the option.
        address: the host and the port of process 0.
        count: the number of processes.
        index: the number of this process.
    """

    text: str
    address: str | None = None
    count: int | None = None
    index: int | None = None

    @property
    def others(self) -> str:
        """The processes that are waited for, in words."""
        if self.index:
            return f"process 0 at {self.address}, and for all of the {self.count} processes"
        others = "process 1" if self.count == 2 else f"the {self.count - 1} other processes"
        return f"{others} to reach {self.address}"


@dataclasses.dataclass
class Waiting:
    """What a process says while it waits for the others.

    Attributes:
        cluster: the processes.
        seconds: how long it waits.
        reason: why the last try to reach process 0 failed; empty if none has failed.
    """

    cluster: Cluster
    seconds: float
    reason: str = ""

    def tell(self, reason: str) -> None:
        """Keep the reason."""
        self.reason = reason

    def say_what_is_missing(self) -> None:
        """Say who is waited for."""
        waits = f"waiting up to {self.seconds:g} s for {self.cluster.others}{self._last_try}"
        print(f"{self._number}: {waits}", file=sys.stderr, flush=True)

    def give_up(self) -> None:
        """End the process."""
        print(
            f"error: --distributed {self.cluster.text}: {self._number} has waited {self.seconds:g} s "
            f"(--distributed-timeout) for {self.cluster.others}, and not all of them have come{self._last_try}",
            file=sys.stderr,
        )
        endings.exit_now(interruption.EX_TEMPFAIL)

    @property
    def _number(self) -> str:
        return f"process {self.cluster.index} of {self.cluster.count}"

    @property
    def _last_try(self) -> str:
        return f"; the last try to reach process 0: {self.reason}" if self.reason else ""


def parsed(text: str) -> Cluster:
    """Read the value of --distributed.

    Raises:
        UsageError: it has another form, or a number in it is out of range.
    """
    if text == "auto":
        return Cluster(text)
    refuse = lambda allowed: UsageError(f"--distributed {text}: {allowed}")
    found = FORM.fullmatch(text)
    if found is None:
        raise refuse(
            "must be auto or HOST:PORT,N,I, which are the address of process 0, the number of processes and the number "
            "of this process, such as 10.0.0.1:1234,4,0"
        )
    port, count, index = (int(found[name]) for name in ("port", "count", "index"))
    if not 1 <= port <= 65_535:
        raise refuse(f"the port must be from 1 to 65535, got {port}")
    if not 1 <= count <= MOST_PROCESSES:
        raise refuse(f"the number of processes must be from 1 to {MOST_PROCESSES}, got {count}")
    if index >= count:
        raise refuse(f"the number of this process must be from 0 to {count - 1}, one below the {count} processes")
    return Cluster(text=text, address=f"{found['host']}:{port}", count=count, index=index)


def starting(options: Any) -> Callable[[], None]:
    """A function that joins the other processes of `command_line.Options`, if there are any, and chooses the devices.

    A dry run joins nobody, compiles nothing, and must not tidy up the cache.

    Raises:
        UsageError: the value of --distributed, or of an option that belongs to it, is refused.
    """
    cluster = None if options.distributed is None else parsed(options.distributed)
    seconds, patience = options.distributed_timeout, options.distributed_watchdog
    for option, value, usual in (("timeout", seconds, TIMEOUT), ("watchdog", patience, None)):
        if value is not None and not 1 <= value <= MOST_SECONDS:
            raise UsageError(f"--distributed-{option} {value:g}: must be from 1 to {MOST_SECONDS} seconds")
        if cluster is None and value != usual:
            raise UsageError(f"--distributed-{option} {value:g}: must be used with --distributed")

    def start() -> None:
        if cluster is not None and not options.dry_run:
            join(cluster, seconds)
            team.current.patience = patience
        cache = options.cache and not options.dry_run
        runtime.start(options.devices, cache, options.debug_nans, processes=team.current.count)

    return start


def agreed(config: Config) -> Config:
    """The configuration with the files of process 0, after a check that all processes have the same options and code.

    A `Config` whose fields name files has a method `inputs()`. It returns the fields that are given, each with a
    function that finds its file, or the files that are needed of its folder; see `sent_files.share`.

    Raises:
        UsageError: an option, the code or the number of devices is not that of process 0.
    """
    us = team.current
    if not us.joined:
        return config
    import jax

    us.require_same("number of devices", {"--devices": jax.local_device_count()})
    inputs = getattr(config, "inputs", dict)()
    copies = sent_files.share({name: find() if us.writes else () for name, find in inputs.items()})
    config = dataclasses.replace(config, **copies)
    values = config.resolved() if hasattr(config, "resolved") else dataclasses.asdict(config)
    plain = {f"--{name}": reports.plain(value) for name, value in values.items() if name not in inputs}
    us.require_same("options", plain)
    us.require_same("source code", {"the digest": _digest_of_code()})
    return config


def _digest_of_code() -> str:
    """The SHA-256 of every file of Python in `experiments` and `pgjax`."""
    digest = hashlib.sha256()
    for package in (pathlib.Path(pgjax.__file__).parent, pathlib.Path(__file__).parents[1]):
        for path in sorted(package.rglob("*.py")):
            digest.update(str(path.relative_to(package)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def join(cluster: Cluster, seconds: float) -> None:
    """Meet the other processes at the door, start JAX's runtime, and wait for all. Then `team.current` is their team.

    Call this before JAX starts. A process that waits longer than `seconds` ends with exit code 75.

    Raises:
        UsageError: JAX finds no cluster, process 0 cannot listen on its port, or the port belongs to another run.
    """
    import jax

    # A signal asks our own handlers to stop, see `interruption`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        found, devices = _found(cluster, seconds)
        with _waiting(found, seconds) as waiting:
            way = _way(found, waiting)
            way.on_loss = functools.partial(_lost_at_start, found)
            jax.distributed.initialize(
                way.inner,
                found.count,
                found.index,
                local_device_ids=devices,
                cluster_detection_method="deactivate",
                initialization_timeout=round(seconds) + EARLIER,
                coordinator_bind_address=way.inner,
                heartbeat_timeout_seconds=HEARTBEAT,
            )
        client = jax_processes.client()
    except UsageError as error:
        raise UsageError(f"--distributed {cluster.text}: {error}") from error
    except (RuntimeError, ValueError, OSError) as error:
        text = " ".join(str(error).split())
        raise UsageError(f"--distributed {cluster.text}: JAX cannot join the processes: {text}") from error
    team.current = team.Team(client, found.index, found.count)
    way.on_loss = team.current.lose
    team.current.watch()
    if not team.current.writes:
        _silence_output()


def _found(cluster: Cluster, seconds: float) -> tuple[Cluster, list[int] | None]:
    """The cluster with the address and the numbers that JAX detects for auto, and the devices of this process."""
    if cluster.address is not None:
        return cluster, None
    found = jax_processes.detected(seconds)
    if found.index == 0:
        first, *others = found.by
        unused = f" ({' and '.join(others)} could be used too)" if others else ""
        print(f"{first}{unused}: process 0 of {found.count}, at {found.address}", file=sys.stderr, flush=True)
    return Cluster(cluster.text, found.address, found.count, found.index), found.devices


def _way(cluster: Cluster, waiting: Waiting) -> door.Door | door.Entrance:
    """The door that process 0 opens, or the way of another process through it."""
    assert cluster.address is not None and cluster.count is not None and cluster.index is not None
    if cluster.index:
        try:
            return door.enter(cluster.address, cluster.count, cluster.index, waiting.tell)
        except door.Refused as error:
            raise UsageError(f"process {cluster.index} was turned away at {cluster.address}: {error}") from error
    port = int(cluster.address.rpartition(":")[2])
    try:
        return door.Door(port, cluster.count)
    except OSError as error:
        raise UsageError(
            f"process 0 cannot listen on port {port} ({os.strerror(error.errno or 0)}); choose another port"
        ) from error


def _lost_at_start(cluster: Cluster, index: int) -> NoReturn:
    """End this process because another one has ended before all have met."""
    text = f"process {index} of {cluster.count} was lost before the run began"
    print(f"error: --distributed {cluster.text}: {text}", file=sys.stderr)
    endings.exit_now(interruption.EX_TEMPFAIL)


@contextlib.contextmanager
def _waiting(cluster: Cluster, seconds: float) -> Iterator[Waiting]:
    """Within this block, say after a while who is waited for, and end the process after so many seconds."""
    waiting = Waiting(cluster, seconds)
    # A process other than 0 says it late, because it is to print errors only.
    timers = [threading.Timer(0.5 if not cluster.index else 10.0, waiting.say_what_is_missing)]
    timers.append(threading.Timer(seconds, waiting.give_up))
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield waiting
    finally:
        for timer in timers:
            timer.cancel()


def _silence_output() -> None:
    """Send the standard output of this process to the null device, also that of libraries written in C++."""
    sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
