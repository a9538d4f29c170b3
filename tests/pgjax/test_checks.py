"""A bad argument is refused with its name, what is allowed, and what was given; a tracer passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax._checks import require_float, require_in_range, require_integer, require_one_of


@pytest.mark.parametrize(
    ("check", "arguments", "message"),
    [
        (require_in_range, ("discount", -0.5, 0.0, 1.0), "discount must be in [0, 1], got -0.5"),
        (require_in_range, ("discount", np.asarray([0.5, 1.5]), 0.0, 1.0), "discount must be in [0, 1], got 1.5"),
        (require_in_range, ("discount", float("nan"), 0.0, 1.0), "discount must be in [0, 1], got nan"),
        (require_in_range, ("discount", "0.9", 0.0, 1.0), "discount must be a number in [0, 1], got '0.9'"),
        (require_in_range, ("discount", None, 0.0, 1.0), "discount must be a number in [0, 1], got None"),
        (require_in_range, ("clip", -1, 0.0, None), "clip must be at least 0, got -1"),
        (require_in_range, ("slope", 0.5, None, 0.25), "slope must be at most 0.25, got 0.5"),
        (require_in_range, ("chunk", 0, 1, 2_000_000), "chunk must be in [1, 2000000], got 0"),
        (require_integer, ("n", 0, 1, None), "n must be at least 1, got 0"),
        (require_integer, ("n", 2.0, 1, None), "n must be an integer at least 1, got 2.0"),
        (require_integer, ("n", True, 1, None), "n must be an integer at least 1, got True"),
        (require_float, ("rewards", np.ones(2, np.int32)), "rewards must have a float type, got int32"),
        (require_float, ("rewards", True), "rewards must have a float type, got bool"),
        (require_one_of, ("over", "sun", ("sum", "mean")), "over must be one of 'sum', 'mean', got 'sun'"),
    ],
)
def test_the_message_names_argument_range_and_value(check, arguments, message):
    with pytest.raises(ValueError) as caught:
        check(*arguments)
    assert str(caught.value) == message


def test_good_values_pass():
    for value in (0, 1, 0.5, np.float32(1.0), jnp.asarray([0.0, 1.0]), jnp.asarray(0.5, jnp.bfloat16)):
        require_in_range("discount", value, 0.0, 1.0)
    for value in (1, np.int64(3), jnp.asarray(2)):
        require_integer("n", value, 1, None)
    for value in (0.5, np.float32(1.0), jnp.zeros(2, jnp.bfloat16)):
        require_float("rewards", value)
        jax.eval_shape(lambda x: require_float("rewards", x), value)
    require_one_of("over", "sum", ("sum", "mean"))


def test_tracers_pass_whatever_they_will_hold():
    def function(x):
        require_in_range("x", x, 0.0, 1.0)
        require_integer("x", x, 0, 1)
        return x

    assert jax.jit(function)(7) == 7
