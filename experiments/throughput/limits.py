"""What the machine itself can do: the rate of matrix products and the bandwidth of the memory."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pgjax._platform import platform

NARROW = "float32, [N, 64] × [64, 64]"
SQUARE = "float32, [N, N] × [N, N]"
HALF = "bfloat16, [N, N] × [N, N]"
SCALE = "x ← a x"
TRIAD = "x ← a x + y"


class Limits(NamedTuple):
    """The measured limits; every number is the best of its repetitions.

    Attributes:
        products: name → floating-point operations per second of matrix products on all devices together.
        bandwidths: name → bytes per second that are read and written.
    """

    products: dict[str, float]
    bandwidths: dict[str, float]

    @property
    def operations(self) -> float:
        """The largest rate of products in float32, which is the arithmetic limit of a program in float32."""
        return max(rate for name, rate in self.products.items() if name != HALF)

    @property
    def bytes(self) -> float:
        """The largest bandwidth."""
        return max(self.bandwidths.values())

    def share(self, rate: float, operations: float, moved: float) -> tuple[float, str]:
        """The share of the nearer limit that `rate` steps per second reach, and the name of that limit.

        A step cannot be quicker than its operations at the rate of matrix products, nor than its bytes at the bandwidth
        of the memory. The longer of these two times is the nearer limit (the roofline of Williams et al. 2009).
        """
        arithmetic, memory = operations / self.operations, moved / self.bytes
        return rate * max(arithmetic, memory), "arithmetic" if arithmetic >= memory else "memory"


def measure_limits(tiny: bool = False) -> Limits:
    """Measure all limits; a tiny measurement uses small arrays, so that its numbers mean nothing."""
    accelerator = platform() != "cpu"
    # Each size is one or two more programs to compile, and an accelerator is busy with large ones only.
    rows = (256,) if tiny else (16384, 2**18) if accelerator else (256, 1024, 4096, 16384)
    sides = (64,) if tiny else (4096, 8192) if accelerator else (512, 1024)
    numbers = 2**12 if tiny else 2**28 if accelerator else 2**26
    narrow = [_product_rate(count, 64, jnp.float32) for count in rows]
    products = {NARROW: max(narrow), SQUARE: max(_product_rate(side, side, jnp.float32) for side in sides)}
    if accelerator:
        products[HALF] = max(_product_rate(side, side, jnp.bfloat16) for side in sides)
    return Limits(products=products, bandwidths=_bandwidths(numbers))


def _best_seconds(function: Callable, carry: Any, *others: Any, least: int = 5, seconds: float = 0.4) -> float:
    """The shortest of the calls `carry ← function(carry, *others)`, of which there are at least `least`."""
    carry = jax.block_until_ready(function(carry, *others))
    best, count, begin = float("inf"), 0, time.perf_counter()
    while count < least or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        carry = jax.block_until_ready(function(carry, *others))
        best, count = min(best, time.perf_counter() - start), count + 1
    return best


def _shared(devices: list) -> tuple[NamedSharding, NamedSharding]:
    """The sharding of an array whose rows the devices share, and that of an array which every device holds."""
    mesh = Mesh(np.asarray(devices), ("parts",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("parts")), NamedSharding(mesh, PartitionSpec())


def _product_rate(rows: int, side: int, dtype: Any) -> float:
    """The rate of `[rows, side] × [side, side]` in the precision that JAX uses if nothing else is asked for.

    Either every device multiplies its own rows, as the devices of an update do, or one device multiplies with all
    threads; the larger rate counts.
    """
    # The start of a program must cost little beside its products.
    times = max(1, (2**30 if platform() == "cpu" else 2**36) // (rows * side**2))

    def product(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, times, lambda _, x: x @ w, x)

    def rate(devices: list) -> float:
        parts, whole = _shared(devices)
        x = jax.device_put(jnp.ones((len(devices) * rows, side), dtype), parts)
        w = jax.device_put(jnp.eye(side, dtype=dtype), whole)
        return len(devices) * times * rows * 2 * side**2 / _best_seconds(jax.jit(product), x, w)

    devices = jax.local_devices()
    return max(rate(devices), rate(devices[:1]) if len(devices) > 1 else 0.0)


def _bandwidths(numbers: int) -> dict[str, float]:
    """Bytes per second of two loops over long arrays of float32, which all devices share.

    The result is written where x was, because a fresh array would cost the time in which the system provides its pages.
    """
    devices = jax.local_devices()
    numbers -= numbers % len(devices)
    parts, _ = _shared(devices)
    ones = lambda: jax.jit(lambda: jnp.ones(numbers), out_shardings=parts)()
    scale = jax.jit(lambda x: x * 1.0001, donate_argnums=0)
    triad = jax.jit(lambda x, y: 0.999 * x + y, donate_argnums=0)
    return {
        SCALE: 2 * 4 * numbers / _best_seconds(scale, ones()),
        TRIAD: 3 * 4 * numbers / _best_seconds(triad, ones(), ones()),
    }
