"""The memory that a program needs, estimated from its jaxpr: nothing is compiled and nothing runs."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

# The compiler computes these inside the operation that reads them, and keeps no array of their result.
_FUSED = frozenset({"broadcast_in_dim", "iota", "convert_element_type", "reshape", "squeeze", "expand_dims", "copy"})


def bytes_of(tree: Any) -> int:
    """The bytes of all arrays in a tree, which may be shapes (`jax.ShapeDtypeStruct`) or tracers."""
    return sum(_size(jax.typeof(leaf) if isinstance(leaf, int | float) else leaf) for leaf in jax.tree.leaves(tree))


def peak_bytes(function: Callable, *arguments: Any) -> int:
    """An estimate of the largest memory at any moment of `function(*arguments)`, arguments and results included.

    The function is traced. Its operations are gone through in their order: an array is kept from the operation that
    makes it to the last one that reads it, and a result takes the place of an operand of its size that nobody reads
    again. A program inside a loop counts once, and one that several devices share counts once for each of them. The
    compiler fuses and reorders operations, so the memory that a program really takes differs.

    Args:
        arguments: arrays, or shapes of arrays.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    return _inputs(closed.jaxpr) + _beyond_inputs(closed.jaxpr, reusable=False)


def _size(value: Any) -> int:
    """The bytes of a value with a shape and a dtype, which may be a typed key."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None or any(not isinstance(n, int | np.integer) for n in shape):
        return 0
    is_key = jnp.issubdtype(dtype, jax.dtypes.prng_key)
    return math.prod(map(int, shape)) * (4 * math.prod(dtype._impl.key_shape) if is_key else dtype.itemsize)


def _inputs(jaxpr: core.Jaxpr) -> int:
    return sum(_size(v.aval) for v in [*jaxpr.invars, *jaxpr.constvars])


def _beyond_inputs(jaxpr: core.Jaxpr, *, reusable: bool) -> int:
    """The largest number of bytes beside the inputs of a jaxpr.

    Args:
        reusable: whether a result may take the place of an input, as in the body of a loop, whose carry stays in place.
    """
    last = _last_uses(jaxpr)
    kept: dict[Any, int] = {v: (_size(v.aval) if reusable else 0) for v in [*jaxpr.invars, *jaxpr.constvars]}
    now = sum(kept.values())
    start, most = now, now
    for number, eqn in enumerate(jaxpr.eqns):
        dying = {v for v in eqn.invars if not isinstance(v, core.Literal) and last.get(v) == number and kept.get(v)}
        inside = _inside(eqn)
        for out in eqn.outvars:
            size = 0 if eqn.primitive.name in _FUSED else _size(out.aval)
            heir = next((v for v in dying if kept[v] == size), None) if size else None
            if heir is not None:  # in place
                dying.discard(heir)
                kept[out], kept[heir] = size, 0
            else:
                kept[out] = size
                now += size
        most = max(most, now + inside)
        for v in dying:
            now -= kept.pop(v)
        for out in eqn.outvars:  # results that nobody reads
            if out not in last:
                now -= kept.pop(out, 0)
    return most - start


def _last_uses(jaxpr: core.Jaxpr) -> dict[Any, int]:
    last = {v: n for n, eqn in enumerate(jaxpr.eqns) for v in eqn.invars if not isinstance(v, core.Literal)}
    return last | {v: len(jaxpr.eqns) for v in jaxpr.outvars if not isinstance(v, core.Literal)}


def _inside(eqn: core.JaxprEqn) -> int:
    """The bytes that an operation needs beside its operands and results: those of the programs that it calls."""
    name = eqn.primitive.name
    programs = list(_programs(eqn.params.values()))
    if not programs:
        return 0
    loop = name in ("while", "scan")
    each = [_beyond_inputs(jaxpr, reusable=loop) for jaxpr in programs]
    if name == "scan":  # one slice of each input that is scanned
        body, given = programs[0], eqn.params["num_consts"] + eqn.params["num_carry"]
        each[0] += sum(_size(v.aval) for v in body.invars[given:])
    copies = eqn.params["mesh"].size if name == "shard_map" else 1
    results = sum(_size(v.aval) for v in eqn.outvars)
    # The results of a call are the caller's too; those of a shard of it are counted by the caller as a whole.
    most = max(each) if loop else max(0, *each) if len(each) == 1 else max(each)
    return max(0, most * copies - (0 if loop else results))


def _programs(values: Iterable[Any]) -> Iterator[core.Jaxpr]:
    for value in values:
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value
        elif isinstance(value, tuple | list):
            yield from _programs(value)
