"""Imitation: losses that compare f(x, θ) with an expert, elementwise and to be minimised, and the mixing of DAgger.

The expert f* is known by its actions (`negative_log_likelihood`, `squared_error`), by its probabilities of discrete
actions (`cross_entropy`, `forward_kl`, `reverse_kl`, `total_variation`), or by its distribution's parameters
(`distribution_kl`). What the expert says is a constant of the gradient. Weights, masks and means are the caller's.

Log-probabilities are normalised, and −∞ stands for probability 0. Axes: N rows, A actions, D dimensions of an action.
"""

from collections.abc import Callable
from typing import Literal, get_args

import chex
import jax
import jax.numpy as jnp

from pgjax import distributions
from pgjax._checks import require_in_range, require_integer, require_one_of
from pgjax.losses import score_function_loss, value_loss
from pgjax.types import Distribution, PyTree

Schedule = Callable[[jax.typing.ArrayLike], jax.Array]


def negative_log_likelihood(distribution: Distribution, parameters: PyTree, actions: jax.Array) -> jax.Array:
    """Behavioural cloning: the score-function loss with weight 1 on the expert's actions.

    loss = −ln f(x, θ)_a,    E_{a ~ f*} ∇loss = ∇ KL(f* ‖ f)

    Args:
        distribution: of one observation.
        parameters: what the policy's `apply` returns, leaves `[N, ...]`.
        actions: the expert's a `[N, ...]`.

    Returns:
        −ln f `[N]`, in nats.

    Source: Pomerleau 1989; Ross & Bagnell 2010.
    """
    log_probs = jax.vmap(distribution.log_prob)(parameters, actions)
    return score_function_loss(log_probs, jnp.ones_like(log_probs))


def squared_error(modes: jax.Array, actions: jax.Array) -> jax.Array:
    """Half the squared distance of a mean, or mode, from the expert's action.

    loss = ½ Σ_d (m(x)_d − a_d)²

    Up to a constant the negative log-likelihood of a normal distribution with mean m and unit variance.

    Args:
        modes: m(x) `[N, ...]`.
        actions: the expert's a `[N, ...]`, constants of the gradient.

    Returns:
        ½ ‖m − a‖² `[N]`, in the square of the action's unit.
    """
    losses = value_loss(modes, actions)
    return jnp.sum(losses, axis=tuple(range(1, losses.ndim)))


def _expert(log_probs: jax.Array, expert_log_probs: jax.Array) -> jax.Array:
    chex.assert_equal_shape([log_probs, expert_log_probs])
    chex.assert_type([log_probs, expert_log_probs], float)
    return jax.lax.stop_gradient(expert_log_probs)


def _expectation(log_weights: jax.Array, *terms: jax.Array) -> jax.Array:
    """Σ_a w_a (first − second − …)_a with 0 · ∞ = 0; the inner `where` keeps the gradient a number, too.

    Only a weight of −∞ leaves its action out: NaN goes through to the sum.
    """
    possible = ~jnp.isneginf(log_weights)
    first, *others = (jnp.where(possible, term, jnp.zeros_like(term)) for term in terms)
    for other in others:
        first = first - other
    return jnp.sum(jnp.exp(jnp.where(possible, log_weights, -jnp.inf)) * first, axis=-1)


def cross_entropy(log_probs: jax.Array, expert_log_probs: jax.Array) -> jax.Array:
    """The expected negative log-likelihood of the expert's action, without sampling it.

    loss = −Σ_a f*_a ln f_a = H(f*) + KL(f* ‖ f)

    Infinite where f excludes an action that the expert takes.

    Args:
        log_probs: ln f(x, θ) `[..., A]`.
        expert_log_probs: ln f*(x) `[..., A]`, constants of the gradient.

    Returns:
        `[...]`, in nats.
    """
    expert = _expert(log_probs, expert_log_probs)
    return -_expectation(expert, log_probs)


def forward_kl(log_probs: jax.Array, expert_log_probs: jax.Array) -> jax.Array:
    """KL from the expert: f must cover whatever the expert does.

    loss = KL(f* ‖ f) = Σ_a f*_a (ln f*_a − ln f_a)

    Its gradient is that of `cross_entropy`; its minimum is 0.

    Args:
        log_probs: ln f(x, θ) `[..., A]`.
        expert_log_probs: ln f*(x) `[..., A]`, constants of the gradient.

    Returns:
        `[...]`, in nats, infinite where f excludes an action that the expert takes.
    """
    expert = _expert(log_probs, expert_log_probs)
    return _expectation(expert, expert, log_probs)


def reverse_kl(log_probs: jax.Array, expert_log_probs: jax.Array) -> jax.Array:
    """KL to the expert: f must keep to what the expert does, and may leave out some of it.

    loss = KL(f ‖ f*) = Σ_a f_a (ln f_a − ln f*_a)

    Infinite, with a gradient that is no number, where f takes an action that the expert excludes: of no use with a
    deterministic expert and a softmax policy.

    Args:
        log_probs: ln f(x, θ) `[..., A]`.
        expert_log_probs: ln f*(x) `[..., A]`, constants of the gradient.

    Returns:
        `[...]`, in nats.
    """
    expert = _expert(log_probs, expert_log_probs)
    return _expectation(log_probs, log_probs, expert)


def total_variation(log_probs: jax.Array, expert_log_probs: jax.Array) -> jax.Array:
    """Half the absolute difference of probabilities: how often the best coupling of f and f* has them disagree.

    loss = ½ Σ_a |f_a − f*_a|,    Pinsker: loss² ≤ ½ KL(f* ‖ f)

    The subgradient is ½ Σ_a sign(f_a − f*_a) ∇f_a with sign(0) = 0: not differentiable where f_a = f*_a, and an action
    that already has the expert's probability is left out. Against a deterministic expert the loss is 1 − f_{a*}.

    Args:
        log_probs: ln f(x, θ) `[..., A]`.
        expert_log_probs: ln f*(x) `[..., A]`, constants of the gradient.

    Returns:
        `[...]` in [0, 1].
    """
    expert = _expert(log_probs, expert_log_probs)
    difference = jnp.exp(log_probs) - jnp.exp(expert)
    # jnp.sign has derivative 0, and 0 at 0, on every version and backend; the derivative of |x| at 0 is a convention.
    return 0.5 * jnp.sum(jnp.sign(difference) * difference, axis=-1)


Direction = Literal["forward", "reverse"]


def distribution_kl(
    distribution: Distribution, parameters: PyTree, expert_parameters: PyTree, *, direction: Direction = "forward"
) -> jax.Array:
    """KL between policy and expert of one family, in closed form, such as two Gaussians.

    loss = KL(f* ‖ f)  ("forward")   or   KL(f ‖ f*)  ("reverse")

    Args:
        distribution: of one observation.
        parameters: of f(x, θ), leaves `[N, ...]`.
        expert_parameters: of f*(x), leaves `[N, ...]`, constants of the gradient.
        direction: `"forward"` covers the expert, `"reverse"` keeps to it.

    Returns:
        `[N]`, in nats.

    Raises:
        ValueError: if `direction` is neither.
    """
    require_one_of("direction", direction, get_args(Direction))
    expert_parameters = jax.lax.stop_gradient(expert_parameters)
    pair = (expert_parameters, parameters) if direction == "forward" else (parameters, expert_parameters)
    return jax.vmap(distributions.require(distribution, "kl", "distribution_kl"))(*pair)


def zero_one_error(actions: jax.Array, expert_actions: jax.Array) -> jax.Array:
    """1 where the action is not the expert's: a measure, with no gradient.

    Its mean over the expert's states is the ε of the T²ε bound.

    Args:
        actions: a `[...]`, integers.
        expert_actions: a* `[...]`, integers.

    Returns:
        1[a ≠ a*] `[...]`, float32.

    Source: Ross & Bagnell 2010, theorem 2.1.
    """
    chex.assert_equal_shape([actions, expert_actions])
    chex.assert_type([actions, expert_actions], int)
    return (actions != expert_actions).astype(jnp.float32)


def indicator_schedule() -> Schedule:
    """The expert acts in the first round, the learner ever after: β_1 = 1, then 0.

    β_i = 1[i = 1];  code counts rounds from 0: `schedule(0)` is β_1

    Source: Ross, Gordon & Bagnell 2011, section 3 (the parameter-free choice).
    """
    return lambda round_: jnp.where(jnp.asarray(round_) == 0, 1.0, 0.0)


def exponential_schedule(decay: jax.typing.ArrayLike) -> Schedule:
    """The expert's share falls by a factor each round.

    β_i = p^{i−1};  code counts rounds from 0: `schedule(0)` is β_1 = 1, for p = 0 too

    Args:
        decay: p in [0, 1].

    Raises:
        ValueError: if p is outside [0, 1].

    Source: Ross, Gordon & Bagnell 2011, section 3.
    """
    require_in_range("decay", decay, 0.0, 1.0)
    return lambda round_: jnp.power(jnp.asarray(decay, float), jnp.asarray(round_, float))


def linear_schedule(num_rounds: int) -> Schedule:
    """The expert's share falls to nothing in a straight line.

    β_i = max(0, 1 − (i − 1)/n);  code counts rounds from 0: `schedule(0)` is β_1 = 1, `schedule(n)` is 0

    Args:
        num_rounds: n ≥ 1.

    Raises:
        ValueError: if n is below 1.
    """
    require_integer("num_rounds", num_rounds, 1, None)
    return lambda round_: jnp.maximum(0.0, 1.0 - jnp.asarray(round_, float) / num_rounds)


def mix(key: jax.Array, beta: jax.typing.ArrayLike, expert_action: PyTree, action: PyTree) -> PyTree:
    """The action of DAgger's mixture β f* + (1 − β) f: one coin for the whole action; vmap for more.

    a = a* with probability β, else a

    The *executed* action only: what the learner is taught at every state is a*, whoever acted.

    Args:
        key: typed.
        beta: β `[]` in [0, 1]; at 1 and 0 the choice is certain.
        expert_action: a* ~ f*(x), leaves `[...]`.
        action: a ~ f(x, θ), leaves of the same shapes and types.

    Returns:
        One of the two, whole.

    Raises:
        ValueError: if β is outside [0, 1].

    Source: Ross, Gordon & Bagnell 2011, algorithm 3.1.
    """
    require_in_range("beta", beta, 0.0, 1.0)
    chex.assert_trees_all_equal_shapes_and_dtypes(expert_action, action)
    by_expert = jax.random.uniform(key) < beta
    return jax.tree.map(lambda expert, own: jnp.where(by_expert, expert, own), expert_action, action)
