"""The precision of the matrix products of a policy: float32, TF32 or bfloat16, in both directions of a gradient.

A GPU with tensor cores multiplies float32 numbers faster if it first rounds them to a shorter mantissa (TF32: 10 bits,
bfloat16: 7 bits, float32: 23 bits). It adds the products in float32. JAX uses TF32 on recent NVIDIA GPUs if nothing
else is asked for, and float32 on a CPU. This module makes the choice explicit.

A CPU has no such units: XLA refuses TF32 there, and it computes products in float32 where bfloat16 is asked for. So the
module rounds the operands itself. The gradients of a product are products again, whose operands are rounded too.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, get_args

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Primitive
from jax.extend.core import Literal as Constant
from jax.interpreters import ad, batching, mlir

from pgjax._checks import require_one_of
from pgjax._doors import readable
from pgjax._platform import platform
from pgjax.networks.network import Network
from pgjax.types import Memory, Policy

PrecisionWord = Literal["float32", "tfloat32", "bfloat16"]
PRECISIONS: tuple[PrecisionWord, ...] = get_args(PrecisionWord)
# The bits of the mantissa that an operand keeps. The exponent has 8 bits in all three types.
MANTISSA_BITS: dict[str, int] = {"float32": 23, "tfloat32": 10, "bfloat16": 7}
_ALGORITHMS = {
    "tfloat32": jax.lax.DotAlgorithmPreset.TF32_TF32_F32,
    "bfloat16": jax.lax.DotAlgorithmPreset.BF16_BF16_F32,
}
_HIGHEST = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)
_PRODUCTS = ("dot_general", "conv_general_dilated")
# Calls whose equations may stand in place of the call.
_INLINED = ("jit", "pjit", "closed_call", "core_call")

Target = TypeVar("Target", Policy, Network, Callable)
Product = Callable[[JaxprEqn, Sequence[jax.Array]], Any]


@readable
def with_precision(target: Target, precision: PrecisionWord, *, emulate: bool | None = None) -> Target:
    """A policy, a network or a function that computes its matrix products and convolutions in this precision.

    | precision | operands of a product | on a GPU | emulated |
    |---|---|---|---|
    | `"float32"` | as they are | `Precision.HIGHEST` | the same |
    | `"tfloat32"` | 10 bits of mantissa | `DotAlgorithmPreset.TF32_TF32_F32` | `reduce_precision`, then float32 |
    | `"bfloat16"` | 7 bits of mantissa | `DotAlgorithmPreset.BF16_BF16_F32` | `reduce_precision`, then float32 |

    Parameters, outputs, sums and everything that is not a product stay in float32. The products of the gradient have
    the same precision, because the cotangents are rounded before they are multiplied. The emulation rounds to the
    nearest number, ties to even; a GPU may round to TF32 in another way and adds the products in another order, so its
    last bits differ. Float64 operands are rounded to the same number of bits and multiplied in float64. A product that
    asks for its own precision keeps it, such as the look-up of a row by a one-hot vector.

    Args:
        target: a `Policy`, a `Network`, or a function of arrays such as `apply` of a value network. `init` of a policy
            or network stays as it is.
        precision: the precision of the operands.
        emulate: whether the operands are rounded by the program itself; False asks the device for its own units, and
            None does so on a GPU. Convolutions and float64 products are always emulated.

    Raises:
        ValueError: if the precision is unknown.
        NotImplementedError: when the result is used, for a product inside a loop or a rule of differentiation that is
            not one of jit, checkpoint, scan and cond; the error names it.

    Source: NVIDIA (2020), "A100 tensor core GPU architecture" (TF32); Fasi et al. (2021), "Numerical behavior of NVIDIA
    tensor cores" (exact products and the order of the sums).

    Example: 1 + 2⁻⁹ needs nine bits of mantissa, which bfloat16 does not have.

        >>> import jax.numpy as jnp
        >>> from pgjax import networks
        >>> product = lambda x, y: x @ y
        >>> x, y = jnp.array([1.0 + 2.0**-9]), jnp.ones(1)
        >>> [float(networks.with_precision(product, word)(x, y)) for word in ("float32", "tfloat32", "bfloat16")]
        [1.001953125, 1.001953125, 1.0]
    """
    require_one_of("precision", precision, PRECISIONS)
    change = functools.partial(_rewritten, product=functools.partial(_product, precision=precision, emulate=emulate))
    if not isinstance(target, Policy | Network):
        return change(target)
    memory = target.memory
    changed: Any = target._replace(
        apply=None if target.apply is None else change(target.apply),
        memory=None if memory is None else _memory(memory, change),
    )
    return changed


def _memory(memory: Memory, change: Callable[[Callable], Callable]) -> Memory:
    unroll = None if memory.unroll is None else change(memory.unroll)
    return Memory(start=change(memory.start), step=change(memory.step), unroll=unroll)


# Rounding with the derivative that a product needs. Going forward an operand or its tangent is rounded, and going
# backward nothing is; the opposite holds for the result, whose cotangent is an operand of the products of the gradient.
_rounding = Primitive("rounding")


def _round(x: jax.Array, *, bits: int, operand: bool) -> jax.Array:
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=bits) if operand else x


_rounding.def_impl(jax.jit(_round, static_argnames=("bits", "operand")))
_rounding.def_abstract_eval(lambda x, **_: x)
ad.deflinear2(_rounding, lambda cotangent, _, *, bits, operand: [_bind(cotangent, bits=bits, operand=not operand)])
batching.defvectorized(_rounding)
mlir.register_lowering(_rounding, mlir.lower_fun(_round, multiple_results=False))


def _bind(x: jax.Array, *, bits: int, operand: bool) -> jax.Array:
    return _rounding.bind(x, bits=bits, operand=operand)


def _product(equation: JaxprEqn, operands: Sequence[jax.Array], *, precision: str, emulate: bool | None) -> Any:
    """The result of a product, by the units of the device or with rounded operands."""
    if any(x.dtype not in (jnp.float32, jnp.float64) for x in operands):
        return equation.primitive.bind(*operands, **equation.params)
    if precision == "float32":
        return equation.primitive.bind(*operands, **equation.params | {"precision": _HIGHEST})
    on_device = platform() == "gpu" if emulate is None else not emulate
    single = all(x.dtype == jnp.float32 for x in operands)
    if on_device and single and equation.primitive.name == "dot_general":
        return equation.primitive.bind(*operands, **equation.params | {"precision": _ALGORITHMS[precision]})
    bits = MANTISSA_BITS[precision]
    rounded = [_bind(x, bits=bits, operand=True) for x in operands]
    result = equation.primitive.bind(*rounded, **equation.params | {"precision": _HIGHEST})
    return _bind(result, bits=bits, operand=False)


def _rewritten(function: Callable, product: Product) -> Callable:
    """The function with `product` in place of every product that does not ask for a precision."""

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        # Without the setting of the caller, a product that asks for its own precision can be told from the others.
        with jax.default_matmul_precision(None):
            closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        outputs = _evaluate(closed, jax.tree.leaves(args), product)
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return run


def _evaluate(closed: ClosedJaxpr, args: Sequence[Any], product: Product) -> list[Any]:
    jaxpr = closed.jaxpr
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *args), strict=True))
    read = lambda atom: atom.val if isinstance(atom, Constant) else values[atom]
    for equation in jaxpr.eqns:
        found = _equation(equation, [read(atom) for atom in equation.invars], product)
        results = found if equation.primitive.multiple_results else [found]
        values |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _equation(equation: JaxprEqn, inputs: list[Any], product: Product) -> Any:
    name, params = equation.primitive.name, equation.params
    if name in _PRODUCTS and params["precision"] is None:
        return product(equation, [jnp.asarray(x) for x in inputs])
    if not any(map(_has_product, _inner(params))):
        bound = equation.primitive.get_bind_params(params)
        # Older versions of JAX give a pair.
        functions, chosen = bound if isinstance(bound, tuple) else ((), bound)
        return equation.primitive.bind(*functions, *inputs, **chosen)
    if name in _INLINED:
        return _evaluate(params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"], inputs, product)
    if name in ("checkpoint", "remat", "remat2"):
        inner = ClosedJaxpr(params["jaxpr"], ())
        again = jax.checkpoint(
            lambda *args: _evaluate(inner, args, product), policy=params["policy"], prevent_cse=params["prevent_cse"]
        )
        return again(*inputs)
    if name == "scan":
        return _scan(params, inputs, product)
    if name == "cond":
        branches = [lambda *args, inner=inner: _evaluate(inner, args, product) for inner in params["branches"]]
        return jax.lax.switch(inputs[0], branches, *inputs[1:])
    raise NotImplementedError(
        f"with_precision: the function has a matrix product inside of {name!r}; it must stand outside, or inside of "
        "jit, checkpoint, scan or cond only"
    )


def _scan(params: dict[str, Any], inputs: list[Any], product: Product) -> list[Any]:
    fixed, carried = params["num_consts"], params["num_consts"] + params["num_carry"]

    def body(carry: list[Any], x: list[Any]) -> tuple[list[Any], list[Any]]:
        outputs = _evaluate(params["jaxpr"], [*inputs[:fixed], *carry, *x], product)
        return outputs[: params["num_carry"]], outputs[params["num_carry"] :]

    carry, rows = jax.lax.scan(
        body,
        inputs[fixed:carried],
        inputs[carried:],
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry, *rows]


def _inner(params: dict[str, Any]) -> list[Jaxpr]:
    """The programs inside of an equation, such as the body of a scan."""
    values = [x for value in params.values() for x in (value if isinstance(value, tuple | list) else [value])]
    programs = [value.jaxpr if isinstance(value, ClosedJaxpr) else value for value in values]
    return [program for program in programs if isinstance(program, Jaxpr)]


def _has_product(jaxpr: Jaxpr) -> bool:
    return any(
        (equation.primitive.name in _PRODUCTS and equation.params["precision"] is None)
        or any(map(_has_product, _inner(equation.params)))
        for equation in jaxpr.eqns
    )
