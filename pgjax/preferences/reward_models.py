"""Reward models r(x, y; φ): features and networks, their normalisation, ensembles, and their way into the pipeline.

An observation is one prompt with one answer, such as a `TextBuffer`, or a vector of its features. Axes: F features, M
members, N observations, T time, B episodes, L places of a buffer, V tokens.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax import rewards
from pgjax._checks import require_in_range, require_integer, require_one_of
from pgjax._doors import readable
from pgjax._records import one_line
from pgjax.networks.bodies import MLP, Activation
from pgjax.types import PyTree, Rewards, Trajectory

Features = Callable[[PyTree], jax.Array]
Combination = Literal["mean", "worst", "penalised"]


class RewardModel(NamedTuple):
    """A reward of one observation; use `jax.vmap` for many.

    Attributes:
        init: `(key, obs) → φ`.
        apply: `(φ, obs) → r []`.
    """

    init: Callable[[jax.Array, PyTree], PyTree]
    apply: Callable[[PyTree, PyTree], jax.Array]

    def __repr__(self) -> str:
        return one_line(self)


# One object for all calls: a fit compiles once for each object.
@functools.cache
def linear() -> RewardModel:
    """r = φ · x for a vector of features x `[F]`. It has no bias, because preferences say nothing about one.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax.preferences import reward_models
        >>> float(reward_models.linear().apply(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])))
        11.0
    """
    return RewardModel(
        init=lambda key, obs: jnp.zeros(jnp.shape(obs), jnp.result_type(obs, float)),
        apply=lambda params, obs: jnp.dot(params, obs.astype(params.dtype)),
    )


@functools.cache
def mlp(hidden: tuple[int, ...] = (32,), activation: Activation = "tanh") -> RewardModel:
    """A network of dense layers of the widths `hidden` on a vector of features `[F]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.preferences import reward_models
        >>> model = reward_models.mlp(hidden=(8,))
        >>> model.apply(model.init(jax.random.key(0), jnp.zeros(5)), jnp.ones(5)).shape
        ()
    """
    module = MLP(hidden=hidden, outputs=1, activation=activation)
    return RewardModel(
        init=lambda key, obs: module.init(key, obs), apply=lambda params, obs: module.apply(params, obs)[0]
    )


@readable
def from_network(init_and_apply: tuple[Callable, Callable]) -> RewardModel:
    """A value network as a reward model, such as `networks.make_value(environment, …)` of a text environment.

    Example:
        >>> from pgjax import environments, networks
        >>> from pgjax.preferences import reward_models
        >>> reward_models.from_network(networks.make_value(environments.make("CartPole-v1"), hidden=(8,)))
        RewardModel(...)
    """
    init, apply = init_and_apply
    return RewardModel(init=init, apply=apply)


@readable
def on_features(model: RewardModel, features: Features) -> RewardModel:
    """The reward model r(features(obs); φ). φ is that of `model`, which may have been fitted to features directly.

    Example:
        >>> from pgjax.preferences import reward_models
        >>> reward_models.on_features(reward_models.linear(), reward_models.length())
        RewardModel(on_features)
    """
    return RewardModel(
        init=lambda key, obs: model.init(key, features(obs)),
        apply=lambda params, obs: model.apply(params, features(obs)),
    )


@readable
def length(scale: float = 1.0) -> Features:
    """The features `[1]` of a `TextBuffer`: the number of tokens of the answer, divided by `scale`."""
    return lambda obs: ((obs.length - obs.prompt_length) / jnp.asarray(scale, float))[None]


@readable
def ngrams(vocabulary: int, n: int = 1, scale: float = 1.0) -> Features:
    """The features `[V^n]` of a `TextBuffer`: how often each n-gram occurs inside the answer, divided by `scale`.

    Raises:
        ValueError: if n is no integer of at least 1, or V^n is greater than 65 536.
    """
    require_integer("n", n, 1, 1024)
    require_integer("vocabulary", vocabulary, 1, None)
    if vocabulary**n > 65536:
        raise ValueError(f"ngrams must have at most 65536 features, got {vocabulary}^{n}")

    def count(obs: PyTree) -> jax.Array:
        places = obs.tokens.shape[-1] - n + 1
        if places < 1:
            return jnp.zeros(vocabulary**n, float)
        start = jnp.arange(places)
        windows = [jax.lax.slice_in_dim(obs.tokens, i, i + places).astype(jnp.int32) for i in range(n)]
        index = functools.reduce(lambda total, token: total * vocabulary + token, windows)
        inside = (start >= obs.prompt_length) & (start + n <= obs.length)
        return jnp.zeros(vocabulary**n, float).at[index].add(jnp.where(inside, 1.0 / scale, 0.0))

    return count


@readable
def joined(*features: Features) -> Features:
    """Several features, one behind the other, as one vector."""
    return lambda obs: jnp.concatenate([one(obs) for one in features])


class Normalised(NamedTuple):
    """φ with the gain g and the bias b of the reward g r + b, both `[]`; the gradient does not change them."""

    params: PyTree
    gain: jax.Array
    bias: jax.Array


@readable
def normalised(model: RewardModel) -> RewardModel:
    """The reward g r(obs; φ) + b, whose parameters are `Normalised`; it starts with g = 1 and b = 0.

    Example:
        >>> from pgjax.preferences import reward_models
        >>> reward_models.normalised(reward_models.linear())
        RewardModel(normalised)
    """

    def init(key: jax.Array, obs: PyTree) -> Normalised:
        return Normalised(params=model.init(key, obs), gain=jnp.ones((), float), bias=jnp.zeros((), float))

    def apply(params: Normalised, obs: PyTree) -> jax.Array:
        reward = model.apply(params.params, obs)
        gain, bias = (jax.lax.stop_gradient(x).astype(reward.dtype) for x in (params.gain, params.bias))
        return gain * reward + bias

    return RewardModel(init=init, apply=apply)


@readable
def normalise(model: RewardModel, params: PyTree, observations: PyTree, weights: jax.Array | None = None) -> Normalised:
    """The gain and the bias that give the rewards mean 0 and standard deviation 1 on reference samples.

        g = 1 / s,    b = −m / s,    m and s² the weighted mean and variance of r over the samples

    Preferences leave the mean open, and the scale of r is that of the annotator's noise. After this step a coefficient
    such as β means the same for every reward model.

    Args:
        model: the model before it is normalised.
        params: φ.
        observations: samples of the reference policy, leaves `[N, ...]`.
        weights: probabilities or 0 and 1, `[N]`; equal weights if None.

    Returns:
        Parameters of `normalised(model)`; g = 1 if all rewards are equal.

    Source: Ziegler et al. 2019, section 2.1.
    """
    found = jax.vmap(model.apply, (None, 0))(params, observations)
    weights = jnp.ones_like(found) if weights is None else jnp.asarray(weights, found.dtype)
    share = weights / jnp.sum(weights)
    mean = jnp.sum(share * found)
    variance = jnp.sum(share * jnp.square(found - mean))
    # Rounding in the mean gives equal rewards a tiny variance, so the rewards themselves are compared.
    largest = jnp.max(found, where=share > 0, initial=-jnp.inf)
    varies = (largest > jnp.min(found, where=share > 0, initial=jnp.inf)) & (variance > 0)
    gain = jnp.where(varies, jax.lax.rsqrt(jnp.where(varies, variance, 1.0)), 1.0)
    return Normalised(params=params, gain=gain, bias=-mean * gain)


@readable
def combine(scores: jax.Array, how: Combination = "mean", penalty: ArrayLike = 0.0) -> jax.Array:
    """One reward `[...]` from those of M members, `scores` `[M, ...]`.

        mean:       (1/M) Σ r_m
        worst:      min_m r_m
        penalised:  mean − λ (1/M) Σ (r_m − mean)²

    Args:
        scores: r_m.
        how: the combination.
        penalty: λ ≥ 0, in 1/unit of reward, for "penalised".

    Raises:
        ValueError: for an unknown combination or a negative penalty.

    Source: Coste, Anwar, Kirk & Krueger 2024, section 3 (their "mean", "WCO" and "UWO").
    """
    require_one_of("how", how, get_args(Combination))
    require_in_range("penalty", penalty, 0.0, None)
    if how == "worst":
        return jnp.min(scores, axis=0)
    mean = jnp.mean(scores, axis=0)
    if how == "mean":
        return mean
    return mean - jnp.asarray(penalty, mean.dtype) * jnp.mean(jnp.square(scores - mean), axis=0)


@readable
def ensemble(model: RewardModel, num_members: int, how: Combination = "mean", penalty: ArrayLike = 0.0) -> RewardModel:
    """The combined reward of M members, whose parameters have a leading axis `[M, ...]`, as `fit_ensemble` returns.

    Example:
        >>> from pgjax.preferences import reward_models
        >>> reward_models.ensemble(reward_models.linear(), num_members=3, how="worst")
        RewardModel(ensemble)
    """
    require_integer("num_members", num_members, 1, None)
    require_one_of("how", how, get_args(Combination))
    init = lambda key, obs: jax.vmap(model.init, (0, None))(jax.random.split(key, num_members), obs)
    members = jax.vmap(model.apply, (0, None))
    return RewardModel(init=init, apply=lambda params, obs: combine(members(params, obs), how, penalty))


@readable
def terminal_rewards(model: RewardModel) -> Callable[[PyTree, Trajectory], jax.Array]:
    """`(φ, trajectory) → R [T, B]`: the score of the final observation, paid at the last live step, and 0 elsewhere.

    The last live step is the one that wrote EOS, or the last step of an answer that was cut off.

    Raises:
        ValueError: for a window of a stream, whose episodes may begin and end inside it.
    """

    def pay(params: PyTree, trajectory: Trajectory) -> jax.Array:
        if trajectory.next_obs is not None:
            raise ValueError("a reward model scores complete episodes, got a window (next_obs is set)")
        scores = jax.vmap(model.apply, (None, 0))(params, trajectory.final_obs)
        alive = trajectory.alive
        after = jnp.concatenate([alive[1:], jnp.zeros_like(alive[:1])])
        return jnp.where(alive & ~after, scores, jnp.zeros_like(scores))

    return pay


@readable
def stage(model: RewardModel, params: PyTree) -> Rewards:
    """The reward model as the reward stage of a trainer; `rewards.reward_model` with `terminal_rewards`.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax.preferences import reward_models
        >>> reward_models.stage(reward_models.linear(), params=jnp.zeros(4))
        Rewards(reward_model)
    """
    return rewards.reward_model(terminal_rewards(model), params)


@readable
def as_score(model: RewardModel) -> Callable[[PyTree, PyTree], jax.Array]:
    """The model as the score of a text environment, `(buffer, φ) → r []`; pass φ as its `score_params`."""
    return lambda obs, params: model.apply(params, obs)


@readable
def features_of(features: Features, observations: PyTree) -> jax.Array:
    """The features `[..., F]` of observations with any leading axes, computed once before a fit."""
    leading: Sequence[int] = jax.tree.leaves(observations)[-1].shape
    for _ in leading:
        features = jax.vmap(features)
    return features(observations)
