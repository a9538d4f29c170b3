"""Arguments that do not fit: one ValueError names them; errors of pgjax and of users' functions stay as they are."""

import doctest
import inspect
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import pytest

from pgjax import advantages, estimators, networks, returns
from pgjax._doors import readable


@readable
def average(values: jax.Array, count: int, over: Literal["all", "rows"] = "all", then: Callable | None = None):
    """Sum over count.

    >>> average(1.0, 2)
    0.5
    """
    if over == "none":
        raise ValueError("over must not be 'none'")
    total = values if over == "all" else values.sum() + jnp.ones(3) @ jnp.ones(4)
    return total / count if then is None else then(total)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("text", 2), "values must be an array, got 'text'"),
        ((1.0, "two"), "count must be an integer, got 'two'"),
        ((jnp.ones(2), None), "count must be an integer, got None"),
        ((1.0, 0), r"these arguments do not fit: values=1.0, count=0 \(ZeroDivisionError: float division by zero\)"),
        ((jnp.ones(2), 2, "rows"), r"do not fit: values=float32\[2\], count=2, over='rows' \(TypeError: dot_general"),
        ((jnp.ones(2), 2, "none"), "^over must not be 'none'$"),
        ((1.0, 2, "all", 3), "then must be a function or None, got 3"),
    ],
)
def test_the_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        average(*arguments)


def test_errors_of_the_user_s_function_and_of_the_signature_stay_as_they_are():
    def fails(total):
        return total.nothing

    with pytest.raises(AttributeError, match="nothing"):
        average(1.0, 2, then=fails)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        average(1.0)


def test_the_first_error_stays_below_as_the_cause():
    with pytest.raises(ValueError) as caught:
        average(1.0, 0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_readable_function_keeps_its_name_signature_and_examples():
    assert average.__name__ == "average" and next(iter(inspect.signature(average).parameters)) == "values"
    (example,) = [found for found in doctest.DocTestFinder().find(average, globs={}) if found.examples]
    assert example.examples[0].want == "0.5\n"
    assert average.__globals__ is globals()  # so doctest finds it in its module


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: returns.reward_to_go("rewards"), "rewards must be an array, got 'rewards'"),
        (lambda: returns.reward_to_go(None), "rewards"),
        (lambda: advantages.standardise({"a": 1}), "x must be an array"),
        (lambda: estimators.make_estimator("policy"), "policy"),
        (lambda: networks.make_policy(3), "environment"),
    ],
)
def test_public_functions_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("file", ["<string>", "/x/site-packages/theirs/__init__.py"])
def test_errors_of_code_that_was_not_written_for_pgjax_stay_as_they_are(file):
    space: dict = {}
    exec(compile("def theirs(total):\n    return {}['key']\n", file, "exec"), space)
    with pytest.raises(KeyError, match="key"):
        average(1.0, 2, "all", space["theirs"])


def test_a_traced_number_that_must_be_known_keeps_its_error():
    @jax.jit
    def branch(x):
        return average(1.0, 2, "all", lambda total: total if x else 0.0)

    with pytest.raises(jax.errors.TracerBoolConversionError):
        branch(True)
