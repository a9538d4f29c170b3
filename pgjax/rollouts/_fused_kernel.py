"""The kernel of `rollouts.fused`. Axes: T time, B lanes, n lanes of a block, w numbers of a lane with padding."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from pgjax.rollouts import _lane_rules as rules
from pgjax.rollouts import _lane_values as values
from pgjax.rollouts._lane_program import LANE, Program
from pgjax.types import PyTree

_WARPS = 4


class Lane(NamedTuple):
    """One running episode: the environment's state, X_t, and what the policy remembers."""

    state: PyTree
    obs: PyTree
    carry: PyTree


class Row(NamedTuple):
    """What the kernel writes at each step, besides X_t and whether the episode runs."""

    actions: PyTree
    rewards: jax.Array
    terminated: jax.Array
    log_probs: jax.Array | None


class Plan(NamedTuple):
    """All that the kernel knows when it is traced; `lane` and `row` are trees of shapes and dtypes of one lane."""

    program: Program
    lane: Lane
    row: Row
    horizon: int
    block: int
    who: str


class _Written(NamedTuple):
    """What the kernel writes for each step."""

    obs: PyTree
    row: Row
    alive: Any


def _width(shape: tuple[int, ...]) -> int:
    size = values.size_of(shape)
    return size if size <= values.SMALL else values.padded(size)


def arrays_in(value: jax.Array) -> jax.Array:
    """The numbers of one lane in one axis `[w]`, as the kernel reads them."""
    flat = jnp.ravel(value)
    return jnp.pad(flat, (0, _width(jnp.shape(value)) - flat.size))


def _arrays_out(array: jax.Array, one: jax.ShapeDtypeStruct) -> jax.Array:
    """`[..., w]` in the shape of the value."""
    return array[..., : values.size_of(one.shape)].reshape(*array.shape[:-1], *one.shape)


def play(
    plan: Plan, shared: list[jax.Array], drawn: list[jax.Array], lanes: Lane, interpret: bool
) -> tuple[PyTree, Row, jax.Array, PyTree]:
    """X_t `[T, B, ...]`, the rows `[T, B, ...]`, whether the episodes run `[T, B]`, and the last observations."""
    # The import takes a third of a second, which only programs with a kernel should spend.
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    starts = [jax.vmap(arrays_in)(x) for x in jax.tree.leaves(lanes)]
    num_lanes, (steps, n) = starts[0].shape[0], (plan.horizon, plan.block)
    written = _Written(obs=plan.lane.obs, row=plan.row, alive=jax.ShapeDtypeStruct((), jnp.bool_))
    of_steps = lambda one: jax.ShapeDtypeStruct((steps, num_lanes, _width(one.shape)), one.dtype)
    of_end = lambda one: jax.ShapeDtypeStruct((num_lanes, _width(one.shape)), one.dtype)
    outputs = [*map(of_steps, jax.tree.leaves(written)), *map(of_end, jax.tree.leaves(plan.lane.obs))]

    _require_addresses(plan, [*drawn, *outputs])

    def spec(x: Any) -> pl.BlockSpec:
        if x.ndim == 1:
            return pl.BlockSpec(x.shape, lambda i: (0,))
        if x.ndim == 2:
            return pl.BlockSpec((n, x.shape[1]), lambda i: (i, 0))
        return pl.BlockSpec((steps, n, x.shape[2]), lambda i: (0, i, 0))

    inputs = [*shared, *drawn, *starts]
    found = pl.pallas_call(
        functools.partial(_kernel, plan, len(starts), len(jax.tree.leaves(written))),
        out_shape=outputs,
        grid=(num_lanes // n,),
        in_specs=[spec(x) for x in inputs],
        out_specs=[spec(x) for x in outputs],
        interpret=interpret,
        compiler_params=None if interpret else triton.CompilerParams(num_warps=_WARPS),
        name="fused_rollout",
    )(*inputs)
    shapes = [*jax.tree.leaves(written), *jax.tree.leaves(plan.lane.obs)]
    found = [_arrays_out(x, one) for x, one in zip(found, shapes)]
    count = len(jax.tree.leaves(written))
    rows = jax.tree.unflatten(jax.tree.structure(written), found[:count])
    final_obs = jax.tree.unflatten(jax.tree.structure(plan.lane.obs), found[count:])
    return rows.obs, rows.row, rows.alive, final_obs


def _require_addresses(plan: Plan, arrays: list[Any]) -> None:
    """Pallas addresses arrays of at most 2³² bytes by signed numbers of 32 bits, which count elements. So an array of
    more than 2³¹ elements of one byte would be written at wrong addresses."""
    widths = [x.shape[2] for x in arrays if x.ndim == 3 and x.dtype.itemsize == 1]
    most = min((2**31 // (plan.horizon * width) for width in widths), default=None)
    num_lanes = arrays[-1].shape[-2]
    if most is not None and num_lanes > most:
        raise ValueError(
            f"{plan.who}: the number of keys must be at most {most // plan.block * plan.block}, so that no array of "
            f"one-byte numbers, such as alive [T, B], has more than 2³¹ of them, got {num_lanes} with the filled block"
        )


def _kernel(plan: Plan, num_starts: int, num_rows: int, *refs: Any) -> None:
    """Play one block of lanes until all of them have ended, and write zeros behind the last step."""
    counts = (len(plan.program.shared), len(plan.program.drawn), num_starts, num_rows)
    cuts = [sum(counts[:i]) for i in range(5)]
    shared, drawn, starts, rows = (refs[a:b] for a, b in itertools.pairwise(cuts))
    ends = refs[cuts[-1] :]
    lane = [_load(ref) for ref in starts]
    alive = jnp.ones((plan.block,), jnp.bool_)
    # The leaves of X_t among those of the lane, and the one of `terminated` among those of the row.
    before = len(jax.tree.leaves(plan.lane.state))
    seen = slice(before, before + len(jax.tree.leaves(plan.lane.obs)))
    at_terminated = len(jax.tree.leaves(plan.row.actions)) + 1

    def running(carry: tuple) -> jax.Array:
        t, alive, _ = carry
        return (t < plan.horizon) & (jnp.max(alive.astype(jnp.int32)) > 0)

    def step(carry: tuple) -> tuple:
        t, alive, lane = carry
        after, row = _step(plan, t, shared, drawn, lane)
        terminated = alive & row[at_terminated][0]
        for ref, arrays in zip(rows, [*lane[seen], *row, [alive]]):
            _store(ref, [_where(alive, x, jnp.zeros_like(x)) for x in arrays], t)
        return t + 1, alive & ~terminated, _frozen(alive, after, lane)

    t, _, lane = jax.lax.while_loop(running, step, (jnp.zeros((), jnp.int32), alive, lane))
    for ref, arrays in zip(ends, lane[seen]):
        _store(ref, arrays)

    def clear(t: jax.Array, carry: tuple) -> tuple:
        for ref in rows:
            for at in _places(ref, t):
                ref[at] = jnp.zeros_like(ref[at])
        return carry

    jax.lax.fori_loop(t, plan.horizon, clear, ())


def _step(plan: Plan, t: jax.Array, shared: Any, drawn: Any, lane: list) -> tuple[list, list]:
    """The arrays of the lane and of the row after one step; the operations of the program, one after another."""
    program, n = plan.program, plan.block
    known: dict[int, values.Value] = {}
    for x, ref in zip(program.shared, shared):
        known[x] = values.Shared(ref, program.shapes[x].shape, program.shapes[x].dtype)
    of_lane = zip(program.inputs[-len(lane) :], lane)
    for x, arrays in (*zip(program.drawn, _drawn_at(drawn, t)), *of_lane):
        known[x] = values.from_arrays(arrays, program.shapes[x].shape)
    read = lambda x: rules.literal(x) if isinstance(x, Literal) else known[x]
    for operation in program.of_kind[LANE]:
        inputs, shapes = [read(x) for x in operation.inputs], [program.shapes[x] for x in operation.outputs]
        try:
            known |= dict(zip(operation.outputs, rules.apply(operation, inputs, shapes, n)))
        except values.Unsupported as error:
            raise ValueError(f"{plan.who}: the kernel has no form of {error}; use rollouts.episodes") from None
    ones = jax.tree.leaves((plan.lane, plan.row))
    found = [values.arrays_of(read(x), n, one.shape, one.dtype) for x, one in zip(program.outputs, ones)]
    return found[: len(lane)], found[len(lane) :]


def _frozen(alive: jax.Array, after: list, before: list) -> list:
    """The lanes after a step; one that had ended keeps its state, because a step past the end may overflow."""
    return [[_where(alive, a, b) for a, b in zip(*pair)] for pair in zip(after, before)]


def _drawn_at(refs: Any, t: jax.Array) -> list[list[jax.Array]]:
    """The arrays of the numbers that were drawn for step t."""
    return [_load(ref, t) for ref in refs]


def _where(alive: jax.Array, yes: jax.Array, no: jax.Array) -> jax.Array:
    return jnp.where(jnp.broadcast_to(alive[:, None], yes.shape) if yes.ndim == 2 else alive, yes, no)


def _places(ref: Any, *at: jax.Array) -> list[tuple]:
    """The indices of the arrays that one value has in a reference `[..., n, w]`."""
    width = ref.shape[-1]
    return [(*at, slice(None), slice(None))] if width > values.SMALL else [(*at, slice(None), i) for i in range(width)]


def _load(ref: Any, *at: jax.Array) -> list[jax.Array]:
    return [ref[place] for place in _places(ref, *at)]


def _store(ref: Any, arrays: list[jax.Array], *at: jax.Array) -> None:
    for place, array in zip(_places(ref, *at), arrays):
        ref[place] = array
