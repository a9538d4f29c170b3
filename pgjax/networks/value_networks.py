"""Networks for values v(x) and q(x, ·) of any observations, as pairs `(init, apply)` for baselines and critics."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

import jax

from pgjax import spaces
from pgjax._doors import readable
from pgjax.contracts import require_environment
from pgjax.networks.bodies import Activation
from pgjax.networks.network import Network
from pgjax.networks.words import NetworkWord, build
from pgjax.spaces import Discrete
from pgjax.types import Environment, Memory, PyTree

Init = Callable[[jax.Array, PyTree], PyTree]
Apply = Callable[[PyTree, PyTree], jax.Array]


class NetworkOptions(TypedDict, total=False):
    """The options of a network; `policy_for_spaces` explains them and has the same defaults."""

    network: NetworkWord | str
    hidden: Sequence[int]
    activation: Activation | None
    network_options: Mapping[str, Any] | None


@readable
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


@readable
def value_network_for_spaces(observation_space: PyTree, **options: Unpack[NetworkOptions]) -> Network:
    """The network of a value v, whose outputs are scalars `[]`, with its memory if it has one.

    Args:
        observation_space, **options: as in `value_for_spaces`; a network that needs its memory is allowed.

    Raises:
        ValueError: as `policy_for_spaces`.
    """
    return as_value(_network(observation_space, 1, **options))


def as_value(network: Network) -> Network:
    """A network with one output `[1]` as a network with scalar outputs `[]`, its memory included."""
    apply, memory = network.apply, network.memory
    return network._replace(
        apply=None if apply is None else lambda params, obs: apply(params, obs)[0],
        memory=None if memory is None else _scalar_memory(memory),
    )


def _scalar_memory(memory: Memory) -> Memory:
    def step(params: PyTree, carry: PyTree, obs: PyTree) -> tuple[PyTree, jax.Array]:
        carry, outputs = memory.step(params, carry, obs)
        return carry, outputs[0]

    unroll = memory.unroll
    return memory._replace(step=step, unroll=None if unroll is None else lambda *given: unroll(*given)[:, 0])


@readable
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


def _network(
    observation_space: PyTree,
    outputs: int,
    *,
    network: NetworkWord | str = "auto",
    hidden: Sequence[int] = (64, 64),
    activation: Activation | None = None,
    network_options: Mapping[str, Any] | None = None,
) -> Network:
    return build(
        network,
        spaces.as_space(observation_space),
        outputs,
        hidden=hidden,
        activation=activation,
        network_options=network_options,
    )


def _memoryless(observation_space: PyTree, outputs: int, **options: Unpack[NetworkOptions]) -> tuple[Init, Apply]:
    body = _network(observation_space, outputs, **options)
    if body.apply is None:
        raise ValueError(
            f"a value must be a function of one observation, but network={options.get('network')!r} needs a memory: "
            "make_value_network gives a value of the whole episode so far"
        )
    return body.init, body.apply


@readable
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


@readable
def make_value_network(environment: Environment, **options: Unpack[NetworkOptions]) -> Network:
    """`value_network_for_spaces` for an environment's observations: a value with its memory, if it has one.

    Raises:
        ValueError: as `value_network_for_spaces`, and if the environment breaks its contract.

    Example: a recurrent value of everything that was seen in the episode so far.

        >>> import optax
        >>> from pgjax import baselines, environments, networks
        >>> found = networks.make_value_network(environments.make("recall"), network="gru", hidden=())
        >>> baselines.value_function(found.init, found.apply, optax.adam(0.01), memory=found.memory)
        Baseline(value_function, fitted)
    """
    require_environment(environment)
    return value_network_for_spaces(environment.observation_space, **options)


@readable
def make_action_values(environment: Environment, **options: Unpack[NetworkOptions]) -> tuple[Init, Apply]:
    """`action_values_for_spaces` for an environment; `pgjax.baselines.critics.action_value_function` takes the result.

    Raises:
        ValueError: if the actions are not discrete, or the environment breaks its contract.
    """
    require_environment(environment)
    return action_values_for_spaces(environment.observation_space, environment.action_space, **options)
