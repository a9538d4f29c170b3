"""How a program is measured: live steps per second of each repetition, compile seconds, memory and CPU seconds."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.training import sharding


class Measured(NamedTuple):
    """The measurements of a program: live steps per second of each repetition, compile seconds, memory, CPU seconds."""

    rates: list[float]
    compile_seconds: float
    mebibytes: float
    cpu_seconds: float


def compiled_for_all(program: Callable, carry: Any, batch: int) -> tuple[Callable, Any]:
    """The compiled program and its carry. The devices share the episodes, if their number allows it."""
    devices = sharding.choose_devices(None)
    layout = sharding.choose_layout(devices, 1, batch, 1, deterministic=True)
    if not isinstance(layout, sharding.SharedEpisodes):
        return jax.jit(program, donate_argnums=0).lower(carry).compile(), carry
    carry = layout.scatter(carry)
    return layout.compiled(program, carry, donate_argnums=0, out_shardings=(layout.whole, None, None)), carry


def measure(program: Callable, carry: Any, batch: int, seconds: float) -> Measured:
    """Repeat `program(carry) → (carry, live steps, other results)` and measure it. The first carry is not changed."""
    carry = jax.tree.map(jnp.copy, carry)
    start = time.perf_counter()
    compiled, carry = compiled_for_all(program, carry, batch)
    compile_seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    carry = jax.block_until_ready(compiled(carry))[0]
    rates, total, begin, cpu = [], 0, time.perf_counter(), time.process_time()
    while len(rates) < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        carry, num_steps, _ = jax.block_until_ready(compiled(carry))
        rates.append(int(num_steps) / (time.perf_counter() - start))
        total += int(num_steps)
    return Measured(
        rates=rates,
        compile_seconds=compile_seconds,
        mebibytes=(held + memory.temp_size_in_bytes) / 2**20,
        cpu_seconds=(time.process_time() - cpu) / total,
    )
