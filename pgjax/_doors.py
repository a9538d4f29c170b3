"""Public functions whose arguments do not fit say so in one line that names them, instead of an error from the depths.

A check of every argument of every function would be longer than the functions. So the checks come afterwards: where an
argument that nobody checked makes an operation of JAX, NumPy or Python fail, `readable` looks at the arguments, and
raises a ValueError that names the argument of the wrong kind, or all arguments with their shapes. The first error stays
below it as the cause. Nothing happens to errors that pgjax raises on purpose, or that come from a function of the user.
"""

import collections.abc
import dis
import functools
import inspect
import os
import sysconfig
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from pgjax._records import brief

Function = TypeVar("Function", bound=Callable)

_OURS = os.path.dirname(__file__) + os.sep
# Libraries that pgjax calls. Errors that pass through other code, such as a function of the user, stay as they are.
_SITE = os.path.dirname(os.path.dirname(jax.__file__))
_CALLED = ("jax", "jaxlib", "numpy", "optax", "flax", "chex", "gymnax", "opt_einsum", "safetensors", "h5py", "PIL")
_LIBRARIES = (*(os.path.join(_SITE, name, "") for name in _CALLED), "<frozen", "<__array_function__")
# The folder of installed packages lies inside that of Python's own modules.
_PYTHON, _PACKAGES = os.path.join(sysconfig.get_path("stdlib"), ""), os.sep + "site-packages" + os.sep
_RAISE = dis.opmap["RAISE_VARARGS"]
# These say what they mean, or are not about arguments.
_KEPT = (OSError, MemoryError, NotImplementedError, FloatingPointError, ImportError, StopIteration)
_KEPT += (jax.errors.JaxRuntimeError, jax.errors.UnexpectedTracerError, jax.errors.ConcretizationTypeError)
_LONGEST = 120


# The modules whose functions compute in float32 on every device.
_EXACT = ("pgjax.exact.", "pgjax._linear")


class ArgumentError(ValueError, AssertionError):
    """A check of chex has failed: a ValueError that names the arguments, and still an AssertionError as chex has it."""


def readable(function: Function) -> Function:
    """Let a function raise a ValueError that names its arguments where they make an operation inside fail."""
    translate, refusal = _translated, _refusal_of_records

    run = functools.partial(_exactly, function) if function.__module__.startswith(_EXACT) else function

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            result = run(*args, **kwargs)
        except Exception as error:
            found = translate(function, args, kwargs, error)
            if found is None:
                raise
            raise found from error
        found = refusal(function, args, kwargs)
        if found is not None:
            raise found
        return result

    # With the globals of its module, as tools that collect examples expect of a function of that module.
    made = types.FunctionType(call.__code__, function.__globals__, function.__name__, None, call.__closure__)
    return typing.cast(Function, functools.update_wrapper(made, function))


def _exactly(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """The result with products in float32. JAX would compute them in TF32 on recent NVIDIA GPUs, with errors of 10⁻³,
    unless the user asks for a precision."""
    if jax.config.jax_default_matmul_precision is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return function(*args, **kwargs)
    with jax.default_matmul_precision("highest"):
        return function(*args, **kwargs)


def _translated(function: Callable, args: tuple, kwargs: dict[str, Any], error: Exception) -> ValueError | None:
    """The error to raise instead; None if the first error may stay as it is."""
    if isinstance(error, _KEPT) or not _from_the_depths(error, function):
        return None
    try:
        given = inspect.signature(function).bind(*args, **kwargs).arguments
    except TypeError:
        return None  # Python has already said which argument is missing or unknown.
    name = f"{function.__module__.removeprefix('pgjax.')}.{function.__name__}"
    kind = ArgumentError if isinstance(error, AssertionError) else ValueError
    for argument, wanted in _wrong_kinds(function, given):
        return kind(f"{name}: {argument} must be {wanted}, got {_text(given[argument])}")
    shown = ", ".join(f"{argument}={_text(value)}" for argument, value in given.items())
    reason = next(iter(str(error).strip().splitlines()), "")[:300]
    return kind(f"{name}: these arguments do not fit: {shown} ({type(error).__name__}: {reason})")


@functools.cache
def _record_parameters(function: Callable) -> tuple[tuple[int, str, Any], ...]:
    """The position, the name and the annotation of each parameter that takes a record of pgjax."""
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return ()
    is_record = lambda kind: isinstance(kind, type) and kind.__module__.startswith("pgjax") and kind is not function
    found = []
    for position, (name, parameter) in enumerate(inspect.signature(function).parameters.items()):
        parts = typing.get_args(hints.get(name)) or (hints.get(name),)
        others = [part for part in parts if part is not type(None)]
        if parameter.kind in (1, 3) and others and all(map(is_record, others)):
            found.append((position if parameter.kind == 1 else -1, name, hints[name]))
    return tuple(found)


def _refusal_of_records(function: Callable, args: tuple, kwargs: dict[str, Any]) -> ValueError | None:
    """The error for a value that is no record where one is wanted: a function that builds another one from it keeps it
    without looking at it, and would fail much later."""
    for position, name, kind in _record_parameters(function):
        given = kwargs.get(name, args[position] if 0 <= position < len(args) else inspect.Parameter.empty)
        # A network may stand for a policy: functions read the fields that both records have.
        is_record = hasattr(type(given), "_fields") and type(given).__module__.startswith("pgjax")
        if given is not inspect.Parameter.empty and not (given is None or is_record or _fits(kind, given)):
            of = f"{function.__module__.removeprefix('pgjax.')}.{function.__name__}"
            return ValueError(f"{of}: {name} must be {_words(kind)}, got {_text(given)}")
    return None


def _from_the_depths(error: Exception, function: Callable) -> bool:
    """Whether an operation failed, rather than a `raise` of pgjax or a function of the user."""
    trace, deliberate = error.__traceback__, False
    while trace is not None:
        code = trace.tb_frame.f_code
        ours = code.co_filename.startswith(_OURS) or code is function.__code__
        if not ours and not _is_library(code):
            return False
        if isinstance(error, ValueError | TypeError) and ours:
            deliberate = trace.tb_next is None and code.co_code[trace.tb_lasti] == _RAISE
        trace = trace.tb_next
    return not deliberate


def _is_library(code: types.CodeType) -> bool:
    file = code.co_filename
    if file == "<string>":  # the constructor of a named tuple; `python -c` runs as <module> or by other names
        return code.co_name == "__new__"
    of_python = file.startswith(_PYTHON) and _PACKAGES not in file
    return of_python or file.startswith(_LIBRARIES) or file.endswith(".pyx")


def _wrong_kinds(function: Callable, given: dict[str, Any]) -> list[tuple[str, str]]:
    """The arguments whose values have another kind than their annotation, each with the right kind."""
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return []
    parameters = inspect.signature(function).parameters
    plain = [name for name in given if parameters[name].kind in (0, 1, 3) and name in hints]
    return [(name, _words(hints[name])) for name in plain if not _fits(hints[name], given[name])]


def _fits(kind: Any, value: Any) -> bool:
    """Whether a value may be of the annotated kind; true where that cannot be told."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(part, value) for part in inside)
    if origin is typing.Literal:
        return any(type(word) is type(value) and word == value for word in inside)
    if kind is None or kind is type(None):
        return value is None
    kind = origin or kind
    if kind is jax.Array or kind is np.ndarray:
        return _is_numeric(value)
    if kind is float:
        return _is_numeric(value) and not isinstance(value, bool) and np.ndim(value) == 0
    if kind is int:
        return hasattr(value, "__index__") and not isinstance(value, bool)
    if kind is collections.abc.Callable:
        return callable(value)
    try:
        return kind is Any or not isinstance(kind, type) or isinstance(value, kind)
    except TypeError:  # of a protocol
        return True


def _is_numeric(value: Any) -> bool:
    return isinstance(value, int | float | complex) or (hasattr(value, "shape") and hasattr(value, "dtype"))


def _words(kind: Any) -> str:
    """An annotation in words: `an array`, `an integer or None`, `one of 'sum', 'mean'`."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_words, inside)))
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, inside))}"
    kind = origin or kind
    known = {jax.Array: "an array", np.ndarray: "an array", float: "a number", int: "an integer", str: "a text"}
    known |= {bool: "True or False", collections.abc.Callable: "a function", type(None): "None", None: "None"}
    return known[kind] if kind in known else f"of type {getattr(kind, '__name__', kind)}"


def _text(value: Any) -> str:
    text = " ".join(repr(value).split()) if isinstance(value, str | bytes) else brief(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
