"""How a program is measured: steps per second of each repetition, compile seconds, memory and CPU seconds."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.training import sharding


class Program(NamedTuple):
    """A program to measure.

    Attributes:
        run: `carry → (carry, live steps, other results)`.
        carry: its first argument.
        group: the number of consecutive episodes that must stay on one device.
    """

    run: Callable[[Any], tuple[Any, jax.Array, Any]]
    carry: Any
    group: int = 1


class Measured(NamedTuple):
    """The measurements of a program.

    Attributes:
        rates: live steps per second of every repetition.
        compile_seconds: the seconds of tracing and compiling.
        first_result_seconds: the seconds from the start of tracing to the first result.
        mebibytes: the arrays of the program on one device, as the compiler planned them.
        peak_mebibytes: the largest memory of the whole process while the program ran; None where the system does not
            say it.
        cpu_seconds: CPU seconds for a live step, of all cores together.
    """

    rates: list[float]
    compile_seconds: float
    first_result_seconds: float
    mebibytes: float
    peak_mebibytes: float | None
    cpu_seconds: float


def span(values: Sequence[float]) -> str:
    """`0.98 to 1.02`, the lowest and the highest number."""
    return f"{min(values):.3g} to {max(values):.3g}"


def compiled_for_all(program: Program, batch: int) -> tuple[Callable, Any]:
    """The compiled program and its carry. The devices share the episodes, if their number allows it."""
    devices = sharding.choose_devices(None)
    layout = sharding.choose_layout(devices, 1, batch, program.group, deterministic=True)
    if not isinstance(layout, sharding.SharedEpisodes):
        return jax.jit(program.run, donate_argnums=0).lower(program.carry).compile(), program.carry
    carry = layout.scatter(program.carry)
    whole = (layout.whole, None, None)
    return layout.compiled(program.run, carry, donate_argnums=0, out_shardings=whole), carry


class Running:
    """A compiled program that is ready to be repeated. The first carry of the program is not changed.

    Attributes:
        compile_seconds, first_result_seconds, mebibytes: as in `Measured`.
        total: the number of live steps in all repetitions.
        cpu_seconds: the CPU seconds of all repetitions.
    """

    def __init__(self, program: Program, batch: int):
        program = program._replace(carry=jax.tree.map(jnp.copy, program.carry))
        start = time.perf_counter()
        self._compiled, carry = compiled_for_all(program, batch)
        self.compile_seconds = time.perf_counter() - start
        _forget_peak_memory()
        self._carry = jax.block_until_ready(self._compiled(carry))[0]
        self.first_result_seconds = time.perf_counter() - start
        memory = self._compiled.memory_analysis()
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        self.mebibytes = (held + memory.temp_size_in_bytes) / 2**20
        self.total, self.cpu_seconds = 0, 0.0

    def repeat(self, seconds: float) -> float:
        """Live steps per second of one repetition, which calls the program until `seconds` have passed."""
        steps, start, cpu = 0, time.perf_counter(), time.process_time()
        while True:
            self._carry, num_steps, _ = jax.block_until_ready(self._compiled(self._carry))
            steps += int(num_steps)
            passed = time.perf_counter() - start
            if passed >= seconds:
                break
        self.total += steps
        self.cpu_seconds += time.process_time() - cpu
        return steps / passed


def measure(program: Program, batch: int, seconds: float, repetitions: int) -> Measured:
    """Compile the program, and repeat it `repetitions` times for `seconds` seconds each."""
    running = Running(program, batch)
    rates = [running.repeat(seconds) for _ in range(repetitions)]
    return Measured(
        rates=rates,
        compile_seconds=running.compile_seconds,
        first_result_seconds=running.first_result_seconds,
        mebibytes=running.mebibytes,
        peak_mebibytes=_peak_memory(),
        cpu_seconds=running.cpu_seconds / running.total,
    )


def _forget_peak_memory() -> None:
    """Let the system (Linux) count the largest memory of this process anew."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_memory() -> float | None:
    """The largest memory of this process since `_forget_peak_memory`, in MiB."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = pathlib.Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**10
    return None
