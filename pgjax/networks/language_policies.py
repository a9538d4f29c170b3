"""Policies that write text, and values of text; both can start from the parameters of a language model."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from pgjax._doors import readable
from pgjax.networks._layers import HEAD_SCALE, init_linear
from pgjax.networks.language_models import Config, GPT2Config
from pgjax.networks.network import Network
from pgjax.networks.policy_networks import make_policy
from pgjax.networks.value_networks import make_value_network
from pgjax.types import Environment, Policy, PyTree


@readable
def network_arguments(config: Config, *, recompute: bool = False) -> dict[str, Any]:
    """The arguments of `make_policy` for this language model: `network`, `hidden` and `network_options`.

    They are JSON values, so `saving.save_policy(path, params, environment=…, **network_arguments(config))` writes a
    policy that `saving.load_policy` makes again.

    Example:
        >>> from pgjax import networks
        >>> config = networks.GPT2Config(vocabulary=256, width=16, layers=2, heads=2, context=32)
        >>> arguments = networks.network_arguments(config)
        >>> arguments["network"], arguments["hidden"]
        ('gpt2', [16, 16])
    """
    options = dataclasses.asdict(config)
    for given_by_environment in ("vocabulary", "width", "layers"):
        del options[given_by_environment]
    network = "gpt2" if isinstance(config, GPT2Config) else "llama"
    hidden = [config.width] * config.layers
    return {"network": network, "hidden": hidden, "network_options": options | {"recompute": recompute}}


@readable
def make_language_policy(
    environment: Environment,
    config: Config,
    params: PyTree | None = None,
    *,
    recompute: bool = False,
    action_mask: Callable[[PyTree], PyTree] | None = None,
) -> Policy:
    """The policy f(x, θ)_a = softmax(logits of the language model after the buffer x)_a, with a memory.

    Args:
        environment: one whose observations are buffers of tokens, such as `environments.text.make_text` makes, with
            the vocabulary of the model.
        config: the sizes of the model.
        params: θ at the start, such as `saving.weights.load` reads from a file; None draws θ anew. `Policy.init` then
            gives these arrays for every key.
        recompute: see `make_language_model`.
        action_mask: see `policy_for_spaces`; the mask of the environment is used if it is None.

    Raises:
        ValueError: if the environment has another vocabulary, or its buffer is longer than `config.context`.

    Example:
        >>> import jax
        >>> from pgjax import environments, networks
        >>> environment = environments.make("reverse", length=3, vocabulary=5)
        >>> config = networks.GPT2Config(vocabulary=5, width=16, layers=2, heads=2, context=32)
        >>> params = networks.make_language_model(config).init(jax.random.key(0))
        >>> networks.make_language_policy(environment, config, params)
        Policy(make_language_policy, distribution=Distribution(categorical), memory=Memory(_memory))
    """
    _require_vocabulary(environment, config)
    policy = make_policy(environment, action_mask=action_mask, **network_arguments(config, recompute=recompute))
    return policy if params is None else policy._replace(init=lambda key, obs: params)


@readable
def make_language_value(
    environment: Environment, config: Config, params: PyTree | None = None, *, recompute: bool = False
) -> Network:
    """The value v(x) of a buffer of tokens x: a language model with one output in place of its logits.

    v(x) = w · h(x), where h(x) `[W]` is what the last block and the last norm give at the newest token of x. The memory
    of the network reads an answer once and gives the values before each of its tokens.

    Args:
        environment, config, recompute: as in `make_language_policy`. The value has a head of its own, so `config.tied`
            has no meaning here.
        params: θ of a language model of this config, at whose body the value starts; None draws the body anew. Either
            way the head starts near zero, and the value shares no parameters with the policy.

    Raises:
        ValueError: as `make_language_policy`.

    Source: Stiennon et al. 2020 (a value network of its own, which starts from a fitted language model).

    Example:
        >>> import jax, optax
        >>> from pgjax import baselines, environments, networks
        >>> environment = environments.make("reverse", length=3, vocabulary=5)
        >>> config = networks.GPT2Config(vocabulary=5, width=16, layers=2, heads=2, context=32)
        >>> found = networks.make_language_value(environment, config)
        >>> baselines.value_function(found.init, found.apply, optax.adam(0.001), memory=found.memory)
        Baseline(value_function, fitted, of_observation=True)
    """
    _require_vocabulary(environment, config)
    arguments = network_arguments(dataclasses.replace(config, tied=False), recompute=recompute)
    network = make_value_network(environment, **arguments)
    if params is None:
        return network
    return network._replace(init=lambda key, obs: with_value_head(key, params))


@readable
def with_value_head(key: jax.Array, params: PyTree) -> PyTree:
    """Parameters of a value: the body of a language model with θ = `params`, and a new head with one output."""
    body = {name: part for name, part in params.items() if name != "head"}
    width = params["tokens"].shape[1]
    return {**body, "head": init_linear(key, width, 1, HEAD_SCALE)}


def _require_vocabulary(environment: Environment, config: Config) -> None:
    space = environment.action_space
    if getattr(space, "n", None) != config.vocabulary:
        raise ValueError(
            f"environment must have the {config.vocabulary} tokens of the language model as its actions, got {space}"
        )
