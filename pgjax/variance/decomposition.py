"""The variance of a policy gradient, split by its sources, for any environment that is restarted from visited states.

The estimate of one step is ψ(X_t, A_t) (G_t − b(X_t)), where ψ = ∇_θ ln f(X_t, θ)_{A_t} and G_t is the discounted
Monte-Carlo return from t on. The state, the action and the future each contribute to its variance. To separate them,
two actions are drawn in each visited state, and two futures after each action. Axes: N visited states, P parameters.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax._checks import require_in_range, require_integer
from pgjax._doors import readable
from pgjax.acting import require_memoryless
from pgjax.contracts import require_environment
from pgjax.diagnostics import Estimate, t_interval
from pgjax.rows import default_rows, sum_over_rows
from pgjax.types import Environment, Policy, PyTree
from pgjax.variance.restarts import check_time, restarted_return, visit_one

_ACTIONS, _FUTURES = 2, 2


class VarianceDecomposition(NamedTuple):
    """tr Var[ψ (G − b)] by source, each an `Estimate`; `variance_decomposition` defines the terms.

    Attributes:
        trajectory: Σ_τ, from the future given the state and the action; never negative.
        action: Σ_a, from the action given the state; it is an unbiased difference, so the estimate may be negative.
        state: Σ_s, from the state; its estimate may be negative, too.
        total: Σ_τ + Σ_a + Σ_s.
        squared_mean: ‖E[ψ (G − b)]‖², corrected for noise.
    """

    trajectory: Estimate
    action: Estimate
    state: Estimate
    total: Estimate
    squared_mean: Estimate


class _Row(NamedTuple):
    """One visited state with its two actions, and `weights` w_ij = G_ij − b of action i and future j, `[2, 2]`."""

    obs: PyTree
    weight: jax.Array
    actions: jax.Array
    weights: jax.Array


@readable
def variance_decomposition(
    environment: Environment,
    policy: Policy,
    params: PyTree,
    key: jax.Array,
    num_states: int,
    *,
    discount: ArrayLike = 1.0,
    baseline: Callable[[PyTree], jax.Array] | None = None,
    time: ArrayLike | None = None,
    env_params: PyTree | None = None,
    confidence: float = 0.95,
    states_per_piece: int | None = None,
) -> VarianceDecomposition:
    """tr Var[ψ (G_t − b(X_t))] split by its sources, estimated without bias from two actions and two futures per state.

    With S the environment's state at t, drawn with t from the normalised visitation, and w = G_t − b(X_t):

        Σ_τ = E tr Var(ψ w | t, S, A)                   = E[½ (w − w′)² ‖ψ‖²]                 w′: same S, A, new future
        Σ_a = E tr Var(E[ψ w | t, S, A] | t, S)         = E[w w′ ‖ψ‖²] − E[w w″ ψ·ψ″]        w″, ψ″: same S, new action
        Σ_s = tr Var(E[ψ w | t, S])                     = E[w w″ ψ·ψ″] − ‖E[ψ w]‖²

    Every pair within a state is used, and ‖E[ψ w]‖² is the mean of the products of *different* states, so noise does
    not increase it. There is no factor γᵗ. Averages over states have the weights of `visited_states`. States are
    independent, so the standard errors are those of the jackknife over states, and intervals are value ± t·SE with
    N − 1 degrees of freedom. A bias of order 1/N is left if episodes differ in length. Each term is a mean of skewed
    products, so with few states the intervals cover less often than `confidence`, as in
    `diagnostics.gradient_statistics`.

    b sees the observation alone. A baseline of the state changes Σ_a only.

    Args:
        key: consumed.
        num_states: N ≥ 3; from each state four futures are drawn.
        discount: γ in [0, 1].
        baseline: obs → b `[]` for one observation; None is zero. The function is part of the compiled program, so pass
            the same function each time and not a new lambda.
        time: the step t whose states are used, from the episodes that still run then; None takes all steps.
        env_params: the environment's parameters; None takes `environment.params`.
        confidence: the coverage of the intervals, in (0, 1).
        states_per_piece: the number of states that are computed at the same time, which bounds the memory: each has 4
            lanes and 2 gradients `[P]`.

    Returns:
        The terms for the estimate of one step; NaN if no episode reaches `time`.

    Raises:
        ValueError: for a number outside its range, an environment that breaks its contract, or a policy that needs its
            memory.

    Source: Tucker et al. (2018, The mirage of action-dependent baselines), section 3; Efron & Stein (1981).
    """
    require_environment(environment, env_params)
    require_memoryless(policy, "variance_decomposition")
    require_integer("num_states", num_states, 3, None)
    require_in_range("discount", discount, 0.0, 1.0)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence}")
    check_time(environment, time)
    if states_per_piece is None:
        states_per_piece = default_rows(_ACTIONS * sum(leaf.size for leaf in jax.tree.leaves(params)))
    require_integer("states_per_piece", states_per_piece, 1, None)
    samples, weights, alignment = _decompose(
        environment,
        policy,
        params,
        jax.random.split(key, num_states),
        discount,
        baseline,
        time,
        env_params,
        min(num_states, states_per_piece),
    )
    return _estimates(samples, weights, alignment, confidence)


class _Samples(NamedTuple):
    """For each state, `[N]`: unbiased estimates of the three pair terms, and ‖g‖² of its mean gradient g."""

    trajectory: jax.Array
    same_action: jax.Array
    other_action: jax.Array
    squared_norm: jax.Array


@partial(jax.jit, static_argnums=(0, 1, 5, 8))
def _decompose(environment, policy, params, keys, discount, baseline, time, env_params, piece):
    """`_Samples`, the weights w_i with mean 1, and g_i · Σ_j w_j g_j, `[N]` each."""
    draw = lambda key: _draw(environment, policy, params, key, discount, baseline, time, env_params)
    # All pieces have one size, and states of weight 0 pad the last one: a smaller piece would be compiled separately.
    count = keys.shape[0]
    num_pieces = -(-count // piece)
    size = -(-count // num_pieces)
    index = jnp.arange(num_pieces * size)
    rows = jax.lax.map(draw, keys[index % count], batch_size=size)
    alive = index < count
    weights = jnp.where(alive, rows.weight, 0.0)
    rows = rows._replace(weight=weights * count / jnp.sum(weights))

    def log_prob(params: PyTree, obs: PyTree, action: jax.Array) -> jax.Array:
        return policy.distribution.log_prob(policy.apply(params, obs), action)

    def surrogate(params: PyTree, row: _Row) -> jax.Array:
        log_probs = jax.vmap(log_prob, (None, None, 0))(params, row.obs, row.actions)
        return row.weight * jnp.mean(jnp.mean(row.weights, axis=1) * log_probs)

    def piece_gradient(rows: _Row, mask: jax.Array) -> PyTree:
        total = lambda params: jnp.sum(jnp.where(mask, jax.vmap(surrogate, (None, 0))(params, rows), 0.0))
        return jax.grad(total)(params)

    summed = sum_over_rows(piece_gradient, jax.tree.map(lambda x: x[:, None], rows), alive[:, None], size)

    def measure(row: _Row) -> tuple[_Samples, jax.Array]:
        scores = jax.vmap(jax.grad(log_prob), (None, None, 0))(params, row.obs, row.actions)
        gram = _gram(scores, scores)
        squares, means = jnp.diagonal(gram), jnp.mean(row.weights, axis=1)
        samples = _Samples(
            trajectory=jnp.mean(0.5 * (row.weights[:, 0] - row.weights[:, 1]) ** 2 * squares),
            same_action=jnp.mean(row.weights[:, 0] * row.weights[:, 1] * squares),
            other_action=means[0] * means[1] * gram[0, 1],
            squared_norm=means @ gram @ means / _ACTIONS**2,
        )
        along = _gram(scores, jax.tree.map(lambda x: x[None], summed))[:, 0]
        return samples, jnp.mean(means * along)

    samples, alignment = jax.lax.map(measure, rows, batch_size=size)
    return jax.tree.map(lambda x: x[:count], (samples, rows.weight, alignment))


def _draw(environment, policy, params, key, discount, baseline, time, env_params) -> _Row:
    """A visited state, two actions, and two futures of each."""
    env_params = environment.params if env_params is None else env_params
    visit_key, action_key, future_key = jax.random.split(key, 3)
    start = visit_one(environment, policy, params, visit_key, time, env_params)
    outputs = policy.apply(params, start.obs)
    actions = jax.vmap(policy.distribution.sample, (0, None))(jax.random.split(action_key, _ACTIONS), outputs)
    future = lambda key, action: restarted_return(
        environment, policy, params, key, start, action, discount=discount, env_params=env_params
    )
    returns = jax.vmap(jax.vmap(future, (0, None)))(_future_keys(future_key), actions)
    subtracted = 0.0 if baseline is None else baseline(start.obs)
    return _Row(obs=start.obs, weight=start.weight, actions=actions, weights=returns - subtracted)


def _future_keys(key: jax.Array) -> jax.Array:
    """A different key for every future, `[2, 2]`: actions first."""
    return jax.random.split(key, (_ACTIONS, _FUTURES))


def _gram(a: PyTree, b: PyTree) -> jax.Array:
    """Inner products of gradients, leaves `[n, ...]` and `[m, ...]` → `[n, m]`."""
    flat = lambda x: x.reshape(x.shape[0], -1)
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda x, y: flat(x) @ flat(y).T, a, b))


def _estimates(samples: _Samples, weights: jax.Array, alignment: jax.Array, confidence: float) -> VarianceDecomposition:
    """Weighted means and the U-statistic ‖E g‖², with the jackknife of each: T₍ᵢ₎ − T without state i, `[N]`."""
    count, total = weights.shape[0], jnp.sum(weights)

    def mean(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        value = jnp.sum(weights * x) / total
        return value, -weights * (x - value) / (total - weights)

    # ‖Σ w g‖² − Σ w² ‖g‖² holds the products of different states, (Σ w)² − Σ w² their weights.
    own = weights**2 * samples.squared_norm
    pairs, pair_weights = jnp.sum(weights * alignment) - jnp.sum(own), total**2 - jnp.sum(weights**2)
    norm = pairs / pair_weights
    pairs_lost, weights_lost = -2.0 * (weights * alignment - own), -2.0 * weights * (total - weights)
    norm_shift = (pairs_lost - norm * weights_lost) / (pair_weights + weights_lost)

    trajectory, same, other = mean(samples.trajectory), mean(samples.same_action), mean(samples.other_action)
    squared_mean = (norm, norm_shift)

    def estimate(*terms: tuple[float, tuple[jax.Array, jax.Array]]) -> Estimate:
        value = sum(sign * term[0] for sign, term in terms)
        shift = sum(sign * term[1] for sign, term in terms)
        stderr = (count - 1) ** 0.5 * jnp.std(shift)
        return t_interval(value, stderr, count - 1, confidence)

    return VarianceDecomposition(
        trajectory=estimate((1.0, trajectory)),
        action=estimate((1.0, same), (-1.0, other)),
        state=estimate((1.0, other), (-1.0, squared_mean)),
        total=estimate((1.0, trajectory), (1.0, same), (-1.0, squared_mean)),
        squared_mean=estimate((1.0, squared_mean)),
    )
