"""One step of one lane as a list of operations, sorted by what they depend on.

A step is a function of random keys, of shared values (θ and the environment's parameters), and of the lane itself
(state, observation, memory). Operations on shared values alone are done once. Operations on keys are done before the
kernel, for all times and lanes together, so that it draws no random number. The rest belongs to the kernel.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal

from pgjax.types import PyTree

SHARED, DRAWN, LANE = range(3)
SELECT_BRANCH = "select_branch"
# An operation that consists of a program of its own; `jit` and derivative rules change no value.
_CALLS = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint")


class Operation(NamedTuple):
    """One primitive of JAX; inputs are numbers of values or literals, outputs are numbers of values.

    `primitive` is None for `SELECT_BRANCH`, which takes an index and one value for each branch.
    """

    name: str
    primitive: Any
    params: dict[str, Any]
    inputs: tuple[Any, ...]
    outputs: tuple[int, ...]


class Program(NamedTuple):
    """The step of one lane.

    Attributes:
        shapes: the shape and dtype of each value.
        constants: the values of the program that are arrays.
        inputs, outputs: the numbers of the values that go in and come out; an output may be a literal.
        of_kind: the operations of the kinds SHARED, DRAWN and LANE, in their order.
        shared, drawn: the numbers of the shared and of the drawn values that the kernel needs.
    """

    shapes: list[Any]
    constants: dict[int, Any]
    inputs: list[int]
    outputs: list[Any]
    of_kind: list[list[Operation]]
    shared: list[int]
    drawn: list[int]


class _Flat:
    """A program without calls and branches: both branches are computed, and one result is selected."""

    def __init__(self) -> None:
        self.shapes: list[Any] = []
        self.constants: dict[int, Any] = {}
        self.operations: list[Operation] = []

    def fresh(self, shape: Any) -> int:
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def add(self, closed: Any, arguments: Sequence[Any]) -> list[Any]:
        """Append a program, and return what its outputs are called."""
        jaxpr, constants = (closed.jaxpr, closed.consts) if isinstance(closed, ClosedJaxpr) else (closed, ())
        names = dict(zip(jaxpr.invars, arguments))
        for variable, value in zip(jaxpr.constvars, constants):
            names[variable] = self.fresh(variable.aval)
            self.constants[names[variable]] = value
        read = lambda atom: atom if isinstance(atom, Literal) else names[atom]
        for equation in jaxpr.eqns:
            outputs = self._equation(equation, [read(atom) for atom in equation.invars])
            names.update(zip(equation.outvars, outputs))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, equation: Any, inputs: list[Any]) -> list[Any]:
        name, params = equation.primitive.name, equation.params
        if name in _CALLS:
            return self.add(params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"], inputs)
        outputs = [self.fresh(variable.aval) for variable in equation.outvars]
        if name == "cond":
            branches = [self.add(branch, inputs[1:]) for branch in params["branches"]]
            for output, *values in zip(outputs, *branches):
                self.operations.append(Operation(SELECT_BRANCH, None, {}, (inputs[0], *values), (output,)))
        else:
            made = Operation(name, equation.primitive, params, tuple(inputs), tuple(outputs))
            self.operations.append(made)
        return outputs


def make_program(step: Callable, kinds: Sequence[int], arguments: Sequence[PyTree], who: str) -> Program:
    """Trace `step(*arguments)`; `kinds` has the kind of each argument, and `who` is the subject of an error.

    Raises:
        ValueError: if a key depends on the lane.
    """
    closed = jax.make_jaxpr(step)(*arguments)
    flat = _Flat()
    inputs = [flat.fresh(variable.aval) for variable in closed.jaxpr.invars]
    outputs = flat.add(closed, inputs)
    operations = _needed(flat.operations, outputs)

    kind_of = dict.fromkeys(flat.constants, SHARED)
    leaf_kinds = [kind for kind, tree in zip(kinds, arguments) for _ in jax.tree.leaves(tree)]
    kind_of |= dict(zip(inputs, leaf_kinds))
    of_kind: list[list[Operation]] = [[], [], []]
    for operation in operations:
        kind = _kind(operation, kind_of, flat.shapes)
        if kind == LANE and _uses_keys(operation, flat.shapes):
            raise ValueError(
                f"{who}: the random numbers must depend on keys alone, because they are drawn before the kernel, but "
                f"the operation {operation.name!r} makes them from the state, the observation or the action; "
                "use rollouts.episodes"
            )
        of_kind[kind].append(operation)
        kind_of |= dict.fromkeys(operation.outputs, kind)
    read = [*(x for operation in of_kind[LANE] for x in operation.inputs), *outputs]
    used = dict.fromkeys(x for x in read if not isinstance(x, Literal))
    return Program(
        shapes=flat.shapes,
        constants=flat.constants,
        inputs=inputs,
        outputs=outputs,
        of_kind=of_kind,
        shared=[x for x in used if kind_of[x] == SHARED],
        drawn=[x for x in used if kind_of[x] == DRAWN],
    )


def _needed(operations: list[Operation], outputs: Iterable[Any]) -> list[Operation]:
    """The operations on which an output depends."""
    wanted = {x for x in outputs if not isinstance(x, Literal)}
    kept = []
    for operation in reversed(operations):
        if wanted.intersection(operation.outputs):
            kept.append(operation)
            wanted.update(x for x in operation.inputs if not isinstance(x, Literal))
    return kept[::-1]


def _kind(operation: Operation, kind_of: dict[int, int], shapes: list[Any]) -> int:
    kind = max((kind_of[x] for x in operation.inputs if not isinstance(x, Literal)), default=SHARED)
    # A copy of one number into many is made in the kernel, so that the memory holds the number once.
    copies = operation.name == "broadcast_in_dim" and not _uses_keys(operation, shapes)
    return LANE if kind == DRAWN and copies else kind


def is_key(shape: Any) -> bool:
    """Whether values of this kind are random keys."""
    return jnp.issubdtype(shape.dtype, jax.dtypes.prng_key)


def _uses_keys(operation: Operation, shapes: list[Any]) -> bool:
    numbers = [x for x in (*operation.inputs, *operation.outputs) if not isinstance(x, Literal)]
    return operation.name.startswith(("random_", "threefry")) or any(is_key(shapes[x]) for x in numbers)


def evaluate(operations: list[Operation], values: dict[int, Any]) -> dict[int, Any]:
    """The values together with the outputs of the operations, which are computed by JAX as in any program."""
    values = dict(values)
    for operation in operations:
        inputs = [x.val if isinstance(x, Literal) else values[x] for x in operation.inputs]
        if operation.primitive is None:
            outputs = [jax.lax.select_n(_branch(inputs), *inputs[1:])]
        else:
            found = operation.primitive.bind(*inputs, **operation.params)
            outputs = found if operation.primitive.multiple_results else [found]
        values |= dict(zip(operation.outputs, outputs))
    return values


def _branch(inputs: list[Any]) -> jax.Array:
    index = jnp.clip(inputs[0], 0, len(inputs) - 2)
    return index > 0 if len(inputs) == 3 else index
