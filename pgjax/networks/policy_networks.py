"""Policies for any spaces: a network, and a distribution for every part of an action."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import distributions, spaces
from pgjax._checks import require_in_range, require_one_of
from pgjax._doors import readable
from pgjax.contracts import require_environment
from pgjax.networks.bodies import Activation
from pgjax.networks.network import Network
from pgjax.networks.words import NetworkWord, build
from pgjax.spaces import Box, Discrete, MultiDiscrete, Slate, Space
from pgjax.types import Distribution, Environment, Memory, Policy, PyTree

DistributionWord = Literal["auto", "categorical", "multi_categorical", "plackett_luce", "gaussian", "squashed_gaussian"]
# "auto" takes the first name of the space.
_WORDS = {
    Discrete: ("categorical",),
    MultiDiscrete: ("multi_categorical",),
    Slate: ("plackett_luce",),
    Box: ("gaussian", "squashed_gaussian"),
}


class _Part(NamedTuple):
    """One leaf of the action space: its family of distributions, and the shape of its part of the network's outputs."""

    path: str
    family: Distribution
    shape: tuple[int, ...]
    is_gaussian: bool

    def parameters(self, outputs: jax.Array, log_std: PyTree, mask: PyTree) -> PyTree:
        """The parameters of this part's distribution. Only Gaussians use `log_std`, and `mask` may be None."""
        outputs = outputs.reshape(self.shape)
        if mask is not None:
            return self._masked(outputs, mask)
        return distributions.GaussianParameters(mean=outputs, log_std=log_std) if self.is_gaussian else outputs

    def _masked(self, logits: jax.Array, mask: PyTree) -> jax.Array:
        if self.is_gaussian:
            raise ValueError(f"action_mask{self.path} must be None, since continuous actions have no mask, got {mask}")
        mask = jnp.asarray(mask)
        if mask.dtype != jnp.bool_ or mask.shape != self.shape:
            wanted, got = f"bool {list(self.shape)}", f"{mask.dtype} {list(mask.shape)}"
            raise ValueError(f"action_mask{self.path} must give {wanted} for one observation, got {got}")
        masked = distributions.masked_logits
        return masked(logits, mask) if logits.ndim == 1 else jax.vmap(masked)(logits, mask)


@readable
def policy_for_spaces(
    observation_space: PyTree,
    action_space: PyTree,
    *,
    distribution: DistributionWord = "auto",
    network: NetworkWord | str = "auto",
    hidden: Sequence[int] = (64, 64),
    activation: Activation | None = None,
    network_options: Mapping[str, Any] | None = None,
    action_mask: Callable[[PyTree], PyTree] | None = None,
    initial_log_std: float = 0.0,
) -> Policy:
    """A policy for a pair of spaces. All arguments except the spaces and `action_mask` are plain JSON values.

    | action space | distribution | outputs of the network |
    |---|---|---|
    | `Discrete(n)` | `categorical` | logits `[n]` |
    | `MultiDiscrete(sizes)` | `multi_categorical` | logits `[D, max sizes]` |
    | `Slate(n, k)` | `plackett_luce` | logits `[n]` |
    | `Box` of floats | `gaussian` (unbounded; environments clip) or `squashed_gaussian` (tanh onto the box) | means |
    | dict, tuple, … | `joint` of the distributions of its leaves | the outputs for all leaves |

    `inputs.encode` turns observations into numbers: integers of discrete spaces become one-hot, uint8 is scaled to
    [0, 1]. The outputs have the float type of θ, which is float32 at the start.

    θ holds the network's parameters. If an action has a continuous part, θ is `{"network": …, "log_std": …}`, where
    `log_std` holds ln σ, one learned number for each dimension of the action, in the structure of the action space
    (`()` for discrete parts).

    Args:
        observation_space, action_space: trees of `pgjax.spaces`, or spaces that `spaces.as_space` can convert.
        distribution: a name from the table; `"auto"` takes the first name of the row. In a tree of action spaces a name
            is used for the leaves that it fits, and the other leaves take `"auto"`.
        network: a name from `NETWORKS`; `"auto"` takes `"conv"` if the observation has an image `[H, W, C]`, else
            `"mlp"`.
        hidden: the widths of the dense layers.
        activation: `"tanh"`, `"relu"`, `"silu"` or `"gelu"`; None takes the default of the network.
        network_options: further arguments of the network, such as `{"channels": 32}` for `"conv"`.
        action_mask: `obs → bool`, true for the actions that are allowed at this observation, in the shape of the
            logits; the other actions get probability zero. For a tree of action spaces it returns a tree of masks, with
            None for a leaf without a mask.
        initial_log_std: ln σ of a Gaussian policy at the start, in [−80, 80].

    Raises:
        ValueError: if the distribution fits no part of the action space, an action is a box of integers, a name or
            option is unknown, or a number is out of its range; when the policy is used, for an observation or mask of
            another structure or shape, whose leaf the error names.

    Example: three observed numbers, five actions, and logits `[5]` of a categorical distribution.

        >>> import jax, jax.numpy as jnp
        >>> from pgjax import networks
        >>> from pgjax.spaces import Box, Discrete
        >>> observations = Box(low=-1.0, high=1.0, shape=(3,))
        >>> policy = networks.policy_for_spaces(observations, Discrete(5), network="mlp", hidden=(16,))
        >>> policy
        Policy(policy_for_spaces, distribution=Distribution(categorical))
        >>> params = policy.init(jax.random.key(0), jnp.zeros(3))
        >>> policy.apply(params, jnp.zeros(3)).shape
        (5,)
    """
    observation_space, action_space = spaces.as_space(observation_space), spaces.as_space(action_space)
    require_in_range("initial_log_std", initial_log_std, -80, 80)
    parts = _parts(action_space, distribution)
    ends = np.cumsum([int(np.prod(part.shape)) for part in parts])
    body = build(
        network,
        observation_space,
        int(ends[-1]),
        hidden=hidden,
        activation=activation,
        network_options=network_options,
    )
    structure = jax.tree.structure(action_space, is_leaf=spaces.is_space)
    has_spread = any(part.is_gaussian for part in parts)
    network_of = (lambda params: params["network"]) if has_spread else (lambda params: params)

    def init(key: jax.Array, obs: PyTree) -> PyTree:
        params = body.init(key, obs)
        spread = lambda part: jnp.full(part.shape, initial_log_std, jnp.float32) if part.is_gaussian else ()
        return {"network": params, "log_std": structure.unflatten(map(spread, parts))} if has_spread else params

    def parameters(params: PyTree, outputs: jax.Array, obs: PyTree) -> PyTree:
        spreads = structure.flatten_up_to(params["log_std"]) if has_spread else [None] * len(parts)
        masks = [None] * len(parts) if action_mask is None else structure.flatten_up_to(action_mask(obs))
        shares = jnp.split(outputs, ends[:-1])
        return structure.unflatten([p.parameters(x, s, m) for p, x, s, m in zip(parts, shares, spreads, masks)])

    single = len(parts) == 1 and spaces.is_space(action_space)
    families = structure.unflatten([part.family for part in parts])
    return Policy(
        init=init,
        apply=_apply(body, network_of, parameters),
        distribution=families if single else distributions.joint(families),
        memory=_memory(body, network_of, parameters),
    )


def _apply(body: Network, network_of: Callable, parameters: Callable) -> Callable | None:
    if (apply := body.apply) is None:
        return None
    return lambda params, obs: parameters(params, apply(network_of(params), obs), obs)


def _memory(body: Network, network_of: Callable, parameters: Callable) -> Memory | None:
    """The network's memory, whose outputs become the distribution's parameters."""
    memory = body.memory
    if memory is None:
        return None

    def step(params: PyTree, carry: PyTree, obs: PyTree) -> tuple[PyTree, PyTree]:
        carry, outputs = memory.step(network_of(params), carry, obs)
        return carry, parameters(params, outputs, obs)

    def unroll(params: PyTree, carry: PyTree | None, obs: PyTree, starts: jax.Array | None) -> PyTree:
        assert memory.unroll is not None, "given only where the network has one"
        outputs = memory.unroll(network_of(params), carry, obs, starts)
        return jax.vmap(parameters, (None, 0, 0))(params, outputs, obs)

    return Memory(
        start=lambda params, obs: memory.start(network_of(params), obs),
        step=step,
        unroll=None if memory.unroll is None else unroll,
    )


def _parts(action_space: PyTree, word: DistributionWord) -> list[_Part]:
    """One part for each leaf of the action space, in the order of the leaves."""
    require_one_of("distribution", word, get_args(DistributionWord))
    leaves = spaces.leaves(action_space, "action_space")
    fitting = [name for _, space in leaves for name in _words_of(space)]
    if word != "auto" and word not in fitting:
        use = " or ".join(repr(name) for name in dict.fromkeys(fitting))
        raise ValueError(f"distribution={word!r} does not fit the action space {action_space}: use {use}")
    return [_part(path, space, word) for path, space in leaves]


def _words_of(space: Space) -> tuple[str, ...]:
    return next(words for kind, words in _WORDS.items() if isinstance(space, kind))


def _part(path: str, space: Space, word: DistributionWord) -> _Part:
    if isinstance(space, Box) and not jnp.issubdtype(space.dtype, jnp.floating):
        raise ValueError(
            f"the action space{path} must not be a box of integers, got {space}: use MultiDiscrete(sizes), with entries"
            " 0, …, sizes[i] − 1 (the environment adds another start), or Slate(n, k) for k different items of n"
        )
    name = word if word in _words_of(space) else _words_of(space)[0]
    match space:
        case Discrete():
            family, shape = distributions.categorical, (space.n,)
        case MultiDiscrete():
            family, shape = distributions.multi_categorical(space.sizes), (len(space.sizes), max(space.sizes))
        case Slate():
            family, shape = distributions.plackett_luce(space.n, space.k), (space.n,)
        case Box():
            squashed = name == "squashed_gaussian"
            family = distributions.squashed_gaussian(*space.bounds) if squashed else distributions.diagonal_gaussian
            shape = space.shape
    return _Part(path=path, family=family, shape=shape, is_gaussian=isinstance(space, Box))


@readable
def make_policy(
    environment: Environment,
    *,
    distribution: DistributionWord = "auto",
    network: NetworkWord | str = "auto",
    hidden: Sequence[int] = (64, 64),
    activation: Activation | None = None,
    network_options: Mapping[str, Any] | None = None,
    action_mask: Callable[[PyTree], PyTree] | None = None,
    initial_log_std: float = 0.0,
) -> Policy:
    """A policy that fits an environment's spaces, made by `policy_for_spaces`.

    Args:
        environment: it gives the spaces, and its `action_mask` is used if the argument `action_mask` is None.
        distribution, network, hidden, activation, network_options, action_mask, initial_log_std: see
            `policy_for_spaces`.

    Raises:
        ValueError: as `policy_for_spaces`, and if the environment breaks its contract.

    Example: Pendulum's torque is a number in [−2, 2]; a squashed Gaussian never leaves this interval.

        >>> from pgjax import environments, networks
        >>> networks.make_policy(environments.make("Pendulum-v1"), distribution="squashed_gaussian", hidden=(32, 32))
        Policy(policy_for_spaces, distribution=Distribution(squashed_gaussian))
    """
    require_environment(environment)
    return policy_for_spaces(
        environment.observation_space,
        environment.action_space,
        distribution=distribution,
        network=network,
        hidden=hidden,
        activation=activation,
        network_options=network_options,
        action_mask=environment.action_mask if action_mask is None else action_mask,
        initial_log_std=initial_log_std,
    )
