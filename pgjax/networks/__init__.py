"""Policies f(x, θ) and values v(x) as linen networks behind pgjax's plain-function records."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pgjax import distributions
from pgjax._checks import require_one_of
from pgjax.types import Environment, Policy

PyTree = Any

_ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "silu": jax.nn.silu, "gelu": jax.nn.gelu}
_small = nn.initializers.variance_scaling(1e-4, "fan_in", "truncated_normal")


class MLP(nn.Module):
    """Dense layers of the sizes `hidden`, each followed by `activation`, then a linear head of `outputs` numbers.

    The head starts near zero: a new policy is near uniform and a new value near its mean.
    """

    hidden: Sequence[int]
    outputs: int
    activation: str = "tanh"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = jnp.ravel(x).astype(jnp.float32)
        for width in self.hidden:
            x = _ACTIVATIONS[self.activation](nn.Dense(width)(x))
        return nn.Dense(self.outputs, kernel_init=_small)(x)


class Convolution(nn.Module):
    """A `size` × `size` convolution of `channels` features over `[H, W, C]`, unpadded, as one matrix product.

    The patches are laid out by shifting the image. With XLA's own convolution, whose gradient is slow on CPUs, training
    on 10 × 10 images measured thirty times slower.
    """

    channels: int
    size: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        height, width = (n - self.size + 1 for n in x.shape[:2])
        shifts = [x[i : i + height, j : j + width] for i in range(self.size) for j in range(self.size)]
        return nn.Dense(self.channels)(jnp.concatenate(shifts, axis=-1))


class ConvNet(nn.Module):
    """One 3 × 3 convolution of `channels` features over `[H, W, C]`, then an MLP: the network of MinAtar's agents
    (Young & Tian 2019)."""

    hidden: Sequence[int]
    outputs: int
    channels: int = 16
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = _ACTIVATIONS[self.activation](Convolution(self.channels)(x.astype(jnp.float32)))
        return MLP(hidden=self.hidden, outputs=self.outputs, activation=self.activation)(features)


class GaussianHead(nn.Module):
    """A network for the mean and a free parameter for ln σ, one per action dimension."""

    body: nn.Module
    shape: tuple[int, ...]
    initial_log_std: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> distributions.GaussianParameters:
        log_std = self.param("log_std", nn.initializers.constant(self.initial_log_std), self.shape)
        return distributions.GaussianParameters(mean=self.body(x).reshape(self.shape), log_std=log_std)


def _body(network: str, obs_shape: tuple[int, ...], outputs: int, hidden: Sequence[int], activation: str | None):
    require_one_of("network", network, ("auto", "mlp", "conv"))
    if network == "auto":
        network = "conv" if len(obs_shape) == 3 else "mlp"
    if network == "conv":
        if len(obs_shape) != 3:
            raise ValueError(f"network='conv' needs observations of shape [H, W, C], got shape {obs_shape}")
        return ConvNet(hidden=tuple(hidden), outputs=outputs, activation=activation or "relu")
    return MLP(hidden=tuple(hidden), outputs=outputs, activation=activation or "tanh")


def _checked(apply: Callable, obs_shape: tuple[int, ...]) -> Callable:
    def checked(params: PyTree, obs: jax.Array) -> PyTree:
        if jnp.shape(obs) != obs_shape:
            raise ValueError(
                f"obs must have the shape {obs_shape} of one observation (vmap for more), got {jnp.shape(obs)}"
            )
        return apply(params, obs)

    return checked


def _is_discrete(space: Any) -> bool:
    return hasattr(space, "n")


def make_policy(
    environment: Environment,
    *,
    distribution: str = "auto",
    network: str = "auto",
    hidden: Sequence[int] = (64, 64),
    activation: str | None = None,
    action_mask: Callable[[PyTree], jax.Array] | None = None,
    initial_log_std: float = 0.0,
) -> Policy:
    """A policy that fits an environment's spaces.

    Args:
        environment: gives the shapes of observations and actions.
        distribution: `"categorical"` for discrete actions; `"gaussian"` (unbounded; environments clip) or
            `"squashed_gaussian"` (tanh onto the box) for continuous ones; `"auto"` is categorical or gaussian.
        network: `"mlp"`, `"conv"` (observations `[H, W, C]`), or `"auto"`, by the observation's rank.
        hidden: widths of the dense layers.
        activation: `"tanh"`, `"relu"`, `"silu"` or `"gelu"`; the network's own default if None.
        action_mask: obs → bool `[A]`, the actions allowed there; the others get probability zero.
        initial_log_std: ln σ of a Gaussian policy at the start.

    Raises:
        ValueError: if the distribution does not fit the action space, or a word is unknown.
    """
    space, obs_shape = environment.action_space, tuple(environment.observation_space.shape)
    require_one_of("distribution", distribution, ("auto", "categorical", "gaussian", "squashed_gaussian"))
    if activation is not None:
        require_one_of("activation", activation, tuple(_ACTIVATIONS))
    if distribution == "auto":
        distribution = "categorical" if _is_discrete(space) else "gaussian"
    if _is_discrete(space) != (distribution == "categorical"):
        allowed = "'categorical'" if _is_discrete(space) else "'gaussian' or 'squashed_gaussian'"
        raise ValueError(
            f"distribution={distribution!r} does not fit the action space {space} of {environment.name}: use {allowed}"
        )
    if distribution == "categorical":
        module = _body(network, obs_shape, space.n, hidden, activation)
        family = distributions.categorical
    else:
        size = int(np.prod(space.shape))
        module = GaussianHead(
            body=_body(network, obs_shape, size, hidden, activation),
            shape=tuple(space.shape),
            initial_log_std=initial_log_std,
        )
        family = (
            distributions.diagonal_gaussian
            if distribution == "gaussian"
            else distributions.squashed_gaussian(space.low, space.high)
        )

    def apply(params: PyTree, obs: jax.Array) -> PyTree:
        outputs = module.apply(params, obs)
        return outputs if action_mask is None else distributions.masked_logits(outputs, action_mask(obs))

    return Policy(init=_checked(module.init, obs_shape), apply=_checked(apply, obs_shape), distribution=family)


def make_value(
    environment: Environment,
    *,
    network: str = "auto",
    hidden: Sequence[int] = (64, 64),
    activation: str | None = None,
) -> tuple[Callable[[jax.Array, PyTree], PyTree], Callable[[PyTree, PyTree], jax.Array]]:
    """`(init, apply)` of a network v(x) → scalar, for `pgjax.baselines.value_function`."""
    obs_shape = tuple(environment.observation_space.shape)
    module = _body(network, obs_shape, 1, hidden, activation)

    def apply(params: PyTree, obs: jax.Array) -> jax.Array:
        return module.apply(params, obs)[0]

    return _checked(module.init, obs_shape), _checked(apply, obs_shape)


def make_action_values(
    environment: Environment,
    *,
    network: str = "auto",
    hidden: Sequence[int] = (64, 64),
    activation: str | None = None,
) -> tuple[Callable[[jax.Array, PyTree], PyTree], Callable[[PyTree, PyTree], jax.Array]]:
    """`(init, apply)` of a network q(x, ·) → `[A]`, for `pgjax.critics.action_value_function`.

    Raises:
        ValueError: if the actions are not discrete.
    """
    space, obs_shape = environment.action_space, tuple(environment.observation_space.shape)
    if not _is_discrete(space):
        raise ValueError(f"action values need a discrete action space, got {space} of {environment.name}")
    module = _body(network, obs_shape, space.n, hidden, activation)
    return _checked(module.init, obs_shape), _checked(module.apply, obs_shape)
