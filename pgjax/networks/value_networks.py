"""Networks for values v(x) and q(x, ·) of any observations, as pairs `(init, apply)` for baselines and critics."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

import jax

from pgjax import spaces
from pgjax.contracts import require_environment
from pgjax.networks.bodies import Activation
from pgjax.networks.words import NetworkWord, build
from pgjax.spaces import Discrete
from pgjax.types import Environment, PyTree

Init = Callable[[jax.Array, PyTree], PyTree]
Apply = Callable[[PyTree, PyTree], jax.Array]


class NetworkOptions(TypedDict, total=False):
    """The options of a network; `policy_for_spaces` explains them and has the same defaults."""

    network: NetworkWord | str
    hidden: Sequence[int]
    activation: Activation | None
    network_options: Mapping[str, Any] | None


def value_for_spaces(observation_space: PyTree, **options: Unpack[NetworkOptions]) -> tuple[Init, Apply]:
    """`(init, apply)` of a network v(x) → scalar. All arguments except the space are plain JSON values.

    Args:
        observation_space: a tree of `pgjax.spaces`; `inputs.encode` turns its elements into numbers.
        **options: `network`, `hidden`, `activation` and `network_options`, as in `policy_for_spaces`.

    Raises:
        ValueError: for a network that needs its memory, such as `"gru"`, or as `policy_for_spaces`.
    """
    init, apply = _memoryless(observation_space, 1, **options)
    return init, lambda params, obs: apply(params, obs)[0]


def action_values_for_spaces(
    observation_space: PyTree,
    action_space: PyTree,
    **options: Unpack[NetworkOptions],
) -> tuple[Init, Apply]:
    """`(init, apply)` of a network q(x, ·) → `[A]` for `Discrete(A)`; the arguments are those of `value_for_spaces`.

    Raises:
        ValueError: if the actions are not discrete, or as `value_for_spaces`.
    """
    action_space = spaces.as_space(action_space)
    if not isinstance(action_space, Discrete):
        raise ValueError(f"action values need a Discrete action space, got {action_space}")
    return _memoryless(observation_space, action_space.n, **options)


def _memoryless(
    observation_space: PyTree,
    outputs: int,
    *,
    network: NetworkWord | str = "auto",
    hidden: Sequence[int] = (64, 64),
    activation: Activation | None = None,
    network_options: Mapping[str, Any] | None = None,
) -> tuple[Init, Apply]:
    body = build(
        network,
        spaces.as_space(observation_space),
        outputs,
        hidden=hidden,
        activation=activation,
        network_options=network_options,
    )
    if body.apply is None:
        raise ValueError(f"a value must be a function of one observation, but network={network!r} needs a memory")
    return body.init, body.apply


def make_value(environment: Environment, **options: Unpack[NetworkOptions]) -> tuple[Init, Apply]:
    """`value_for_spaces` for an environment's observations; `pgjax.baselines.value_function` takes the result.

    Raises:
        ValueError: as `value_for_spaces`, and if the environment breaks its contract.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax import environments, networks
        >>> init, apply = networks.make_value(environments.make("CartPole-v1"), hidden=(32,))
        >>> params = init(jax.random.key(0), jnp.zeros(4))
        >>> apply(params, jnp.zeros(4)).shape  # one number for one observation
        ()
    """
    require_environment(environment)
    return value_for_spaces(environment.observation_space, **options)


def make_action_values(environment: Environment, **options: Unpack[NetworkOptions]) -> tuple[Init, Apply]:
    """`action_values_for_spaces` for an environment; `pgjax.baselines.critics.action_value_function` takes the result.

    Raises:
        ValueError: if the actions are not discrete, or the environment breaks its contract.
    """
    require_environment(environment)
    return action_values_for_spaces(environment.observation_space, environment.action_space, **options)
