"""The memory of a run before it starts: what it will need, what the machine has, and the batch that would fit.

A `Config` that can estimate its memory has a method `memory() -> dict[str, float]`, which gives the bytes of each part,
and a class variable `BATCH`, the field that holds the size of its batch. It is called after `validate`.
"""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.harness.directories import UsageError

# Python, JAX and the compiled program: measured 0.5 to 0.9 GB.
PROGRAM = 0.8e9
BOUND, LEAST_BOUND = 1000, 1_000_000
CGROUPS = pathlib.Path("/sys/fs/cgroup")


def require_moderate(config: Any) -> None:
    """Refuse a count that is most likely a typing error: above a million and above a thousand times its default.

    An option without a default number, a seed, and the batch of a run with an estimate have no bound here.

    Raises:
        UsageError: the message names the option and the largest number.
    """
    for field in dataclasses.fields(config) if dataclasses.is_dataclass(config) else ():
        usual, given = (_counts(value) for value in (field.default, getattr(config, field.name)))
        most = max(LEAST_BOUND, *(BOUND * number for number in usual)) if usual else math.inf
        free = "seed" in field.name.split("_") or field.name == getattr(type(config), "BATCH", None)
        if free or max(given, default=0) <= most:
            continue
        option = f"--{field.name.replace('_', '-')}"
        raise UsageError(f"{option} {max(given)}: must be at most {most}, a thousand times the default or a million")


def _counts(value: Any) -> list[int]:
    """The integers of an option; none for another type."""
    values = value if isinstance(value, tuple) else (value,)
    return [number for number in values if isinstance(number, int) and not isinstance(number, bool)]


def limit_to_machine() -> None:
    """Let an allocation fail that the machine cannot serve; otherwise the kernel would kill the process silently.

    The limit is what is free when the process starts; memory that others give back later does not raise it. Only on
    Linux, and only without GPUs, whose drivers reserve more addresses than memory.
    """
    try:
        import resource
    except ImportError:
        return
    free, used, swap = _meminfo("MemAvailable"), _of_process("VmData"), _meminfo("SwapFree")
    if free is not None and (of_group := _of_group()) is not None and of_group < free:
        free, swap = of_group, 0.0
    if free is None or used is None or any(pathlib.Path("/dev").glob("nvidia*")):
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = int(used + free + (swap or 0))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (most if hard < 0 else min(most, hard), hard))


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the host or on a device."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def estimate(config: Any) -> dict[str, float] | None:
    """The bytes of each part of the run; None if the experiment gives no estimate.

    Raises:
        UsageError: the parts of the run do not fit each other.
    """
    if not hasattr(config, "memory"):
        return None
    try:
        return {"Python, JAX and the compiled program, beside what is loaded": program()} | dict(config.memory())
    except (ValueError, OverflowError) as error:
        if isinstance(error, OverflowError) or isinstance(error.__cause__, OverflowError):  # an index beyond int32
            return {"arrays with more than 2³¹ rows": math.inf}
        raise UsageError(str(error)) from error


def program() -> float:
    """The bytes that Python, JAX and the compiled program will still take. What the process has taken already is no
    longer among the memory that is available."""
    return max(0.0, PROGRAM - (_of_process("VmRSS") or 0.0))


def available() -> float | None:
    """The bytes that a new run may take: those of the accelerators, whose memory then holds the arrays of the run; on
    CPUs, what the machine and the process's control group have left."""
    on_devices = _of_devices()
    if on_devices is not None:
        return on_devices
    found = [number for number in (_meminfo("MemAvailable"), _of_group()) if number is not None]
    return min(found, default=None)


def require_fitting(config: Any, parts: Mapping[str, float] | None) -> None:
    """Refuse a run whose estimate is above the memory that is available.

    Raises:
        UsageError: the message names the option of the batch, what the run needs, and the batch that would fit.
    """
    if parts is None:
        return
    free = available()
    if free is None or sum(parts.values()) <= free:
        return
    needed = f"needs about {in_words(sum(parts.values()))} of memory, and {in_words(free)} are available"
    name = getattr(type(config), "BATCH", None)
    largest = max(parts, key=lambda part: parts[part])
    most = f"the largest part: {largest}, {in_words(parts[largest])}"
    if name is None:
        raise UsageError(f"this run {needed}; {most}")
    option, batch = f"--{name.replace('_', '-')}", batch_of(config)
    fitting = largest_batch(config, name, batch, free)
    if fitting is None:
        raise UsageError(f"this run {needed}; no {option} would fit; {most}")
    raise UsageError(f"{option} {batch}: {needed}; {option} {fitting} would fit")


def batch_of(config: Any) -> int:
    """The size of the batch: the largest number of the field `BATCH`, or of the resolved options if that is None."""
    value = getattr(config, type(config).BATCH)
    if value is None:
        value = config.resolved()[type(config).BATCH]
    return max(value) if isinstance(value, tuple) else value


def largest_batch(config: Any, name: str, batch: int, free: float) -> int | None:
    """A power of two below `batch` whose run fits; None if there is none.

    The memory grows about linearly with the batch, so two small batches give a guess, which a third estimate confirms.
    """
    small = 1 << min(20, max(0, batch.bit_length() - 4))
    while (of_small := _total(config, name, small)) > free:
        if small == 1:
            return None
        small = max(1, small >> 6)
    each = max(1.0, (of_small - _total(config, name, max(1, small // 4))) / (small - small // 4))
    guess = 1 << int(min(batch - 1, small + (free - of_small) / each)).bit_length() - 1
    return guess if guess > small and _total(config, name, guess) <= free else small


def _total(config: Any, name: str, batch: int) -> float:
    """The bytes of the run with another batch; infinite if the experiment does not allow this batch."""
    value = (batch,) if isinstance(getattr(config, name), tuple) else batch
    with contextlib.suppress(UsageError):
        return sum((estimate(dataclasses.replace(config, **{name: value})) or {}).values())
    return math.inf


def in_words(number: float) -> str:
    """Bytes as a text: `1.8 GB`."""
    if number == math.inf:
        return "8 EB or more"
    for unit, size in (("EB", 1e18), ("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e3:.3g} kB"


def described(parts: Mapping[str, float] | None) -> list[str]:
    """The lines that --dry-run prints."""
    if parts is None:
        return ["memory: this experiment gives no estimate"]
    free = available()
    beside = "" if free is None else f", and {in_words(free)} are available"
    lines = [f"memory: about {in_words(sum(parts.values()))}{beside}"]
    return lines + [f"  {name}: {in_words(number)}" for name, number in parts.items()]


def _meminfo(name: str, file: str = "/proc/meminfo") -> float | None:
    """A number of bytes that Linux states in kB."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in pathlib.Path(file).read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return 1024.0 * int(line.split()[1])
    return None


def _of_process(name: str) -> float | None:
    return _meminfo(name, "/proc/self/status")


def _of_group() -> float | None:
    """What is left of the smallest limit of the process's control groups, as containers and clusters set it."""
    left = []
    for folder in _groups():
        for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with contextlib.suppress(OSError, ValueError):
                most = (folder / limit).read_text(encoding="ascii").strip()
                if most != "max" and int(most) < 2**60:
                    used = int((folder / usage).read_text(encoding="ascii")) - _cached(folder)
                    left.append(max(0.0, float(int(most) - used)))
    return min(left, default=None)


def _groups() -> list[pathlib.Path]:
    """The folders of the control groups of this process and of the groups around them."""
    found = [CGROUPS, CGROUPS / "memory"]
    with contextlib.suppress(OSError, ValueError):
        for line in pathlib.Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                own = pathlib.PurePosixPath(path)
                base = CGROUPS / controllers
                found += [base / str(part).lstrip("/") for part in (own, *own.parents)]
    return list(dict.fromkeys(found))


def _cached(folder: pathlib.Path) -> int:
    """The bytes of files that the group keeps in memory and gives back when they are needed."""
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines():
            if line.split()[0] in ("inactive_file", "total_inactive_file"):
                return int(line.split()[1])
    return 0


def _of_devices() -> float | None:
    """What is left on all accelerators together; None on CPUs, whose memory is the machine's."""
    import jax

    stats = []
    with contextlib.suppress(RuntimeError):  # no device: the recorder says so
        stats = [device.memory_stats() for device in jax.local_devices() if device.platform != "cpu"]
    known = [s["bytes_limit"] - s.get("bytes_in_use", 0) for s in stats if s and "bytes_limit" in s]
    return float(sum(known)) if known else None
