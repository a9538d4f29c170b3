"""The option --distributed: one run in several processes, on one machine or on many, by `jax.distributed`.

`parsed` reads the option, and `join` starts JAX's runtime and waits for the other processes. What the processes then
tell each other, and how they end together, is in `team.py`.
"""

import dataclasses
import errno
import hashlib
import os
import pathlib
import re
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import pgjax
from experiments.harness import interruption, reports, runtime, sent_files, team
from experiments.harness.directories import UsageError

HELP = (
    "Share the episodes of this run among several processes, perhaps on several machines. Start the same command in "
    "each of them. auto lets JAX find the others by SLURM, Kubernetes or MPI. HOST:PORT,N,I names the machine of "
    "process 0 and a free port there, the number N of processes, and the number I of this one, from 0 to N−1. Process "
    "0 writes the results. The number of devices (--devices) is that of each process."
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
HEARTBEAT = 10  # seconds without a sign of life after which JAX ends the other processes
# JAX would end the process with a long report. Ours, which is one line, comes this many seconds before.
EARLIER = 15

Config = TypeVar("Config")


class Cluster(NamedTuple):
    """What --distributed says; None in every field but `text` lets JAX find it.

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
        if self.count is None:
            return "the processes that SLURM, Kubernetes or MPI has started"
        if self.index:
            return f"process 0 at {self.address}, and for all of the {self.count} processes"
        others = "process 1" if self.count == 2 else f"the {self.count - 1} other processes"
        return f"{others} to reach {self.address}"


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
    """Start JAX's runtime of several processes and wait for all of them. Then `team.current` is their team.

    Call this before JAX starts. A process that waits longer than `seconds` ends with exit code 75.

    Raises:
        UsageError: JAX finds no cluster, or process 0 cannot listen on its port.
    """
    import jax
    from jax._src import distributed  # its client sends messages, which JAX has no public name for

    # A signal asks our own handlers to stop, see `interruption`.
    jax.config.update("jax_enable_preemption_service", False)
    if cluster.index == 0:
        _require_free(cluster)
    # A process other than 0 says it late, because it is to print errors only.
    timers = [threading.Timer(0.5 if not cluster.index else 10.0, _say_what_is_missing, (cluster, seconds))]
    timers.append(threading.Timer(seconds, _give_up, (cluster, seconds)))
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        jax.distributed.initialize(
            cluster.address,
            cluster.count,
            cluster.index,
            cluster_detection_method=None if cluster.address is None else "deactivate",
            initialization_timeout=round(seconds) + EARLIER,
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise UsageError(f"--distributed {cluster.text}: {_reason(cluster, error)}") from error
    finally:
        for timer in timers:
            timer.cancel()
    state = distributed.global_state
    team.current = team.Team(state.client, state.process_id, state.num_processes)
    team.current.watch()
    if not team.current.writes:
        _silence_output()


def _require_free(cluster: Cluster) -> None:
    """Check that process 0 can listen on its port; JAX may end with a segmentation fault if it cannot."""
    port = int((cluster.address or "").rpartition(":")[2])
    families = [socket.AF_INET6, socket.AF_INET] if socket.has_ipv6 else [socket.AF_INET]
    for family in families:
        try:
            with socket.socket(family) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.bind(("", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise UsageError(
                    f"--distributed {cluster.text}: process 0 cannot listen on port {port} ({error.strerror}); choose "
                    "another port"
                ) from error


def _silence_output() -> None:
    """Send the standard output of this process to the null device, also that of libraries written in C++."""
    sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _say_what_is_missing(cluster: Cluster, seconds: float) -> None:
    number = "" if cluster.index is None else f"process {cluster.index} of {cluster.count}: "
    print(f"{number}waiting up to {seconds:g} s for {cluster.others}", file=sys.stderr, flush=True)


def _give_up(cluster: Cluster, seconds: float) -> None:
    number = "this process" if cluster.index is None else f"process {cluster.index} of {cluster.count}"
    print(
        f"error: --distributed {cluster.text}: {number} has waited {seconds:g} s (--distributed-timeout) for "
        f"{cluster.others}, and not all of them have come",
        file=sys.stderr,
    )
    team.exit_now(interruption.EX_TEMPFAIL)


def _reason(cluster: Cluster, error: Exception) -> str:
    text = " ".join(str(error).split())
    if cluster.address is None and "must be defined" in text.replace("should", "must"):
        return (
            "JAX finds no cluster here, neither of SLURM (srun) nor of Kubernetes nor of MPI (mpirun); give "
            "HOST:PORT,N,I instead"
        )
    return f"JAX cannot join the processes: {text}"
