"""Imitation: losses that compare f(x, θ) with an expert, one number per row, to be minimised; and DAgger's mixing.

The losses know the expert f* by its actions (`negative_log_likelihood`, `squared_error`), by its probabilities of
discrete actions (`cross_entropy`, `forward_kl`, `reverse_kl`, `total_variation`), or by the parameters of its
distribution (`distribution_kl`). The gradient treats the expert's answers as constants. The caller applies weights,
masks and means.

Log-probabilities are normalised, and −∞ stands for probability 0. Axes: N rows, A actions, D dimensions of an action.
"""

from collections.abc import Callable
from typing import Literal, get_args

import chex
import jax
import jax.numpy as jnp

from pgjax import distributions
from pgjax._checks import require_in_range, require_integer, require_one_of
from pgjax._doors import readable
from pgjax.losses import score_function_loss, value_loss
from pgjax.types import Distribution, PyTree

Schedule = Callable[[jax.typing.ArrayLike], jax.Array]


@readable
def negative_log_likelihood(distribution: Distribution, parameters: PyTree, actions: jax.Array) -> jax.Array:
    """Behavioural cloning: the score-function loss with weight 1 on the expert's actions.

    loss = −ln f(x, θ)_a,    E_{a ~ f*} ∇loss = ∇ KL(f* ‖ f)

    Args:
        distribution: the policy's distribution, for one observation.
        parameters: what the policy's `apply` returns, leaves `[N, ...]`.
        actions: the expert's actions a `[N, ...]`.

    Returns:
        −ln f `[N]`, in nats.

    Source: Pomerleau 1989; Ross & Bagnell 2010.

    Example: the expert takes action 1, to which the policy gives probability 1/4; −ln(1/4) = 1.386.

        >>> import jax.numpy as jnp
        >>> from pgjax import distributions, imitation
        >>> logits, actions = jnp.log(jnp.array([[0.75, 0.25]])), jnp.array([1])
        >>> round(float(imitation.negative_log_likelihood(distributions.categorical, logits, actions)[0]), 3)
        1.386
    """
    log_probs = jax.vmap(distribution.log_prob)(parameters, actions)
    return score_function_loss(log_probs, jnp.ones_like(log_probs))


@readable
def squared_error(modes: jax.Array, actions: jax.Array) -> jax.Array:
    """Half the squared distance between the policy's mean, or mode, and the expert's action.

    loss = ½ Σ_d (m(x)_d − a_d)²

    Up to a constant it is the negative log-likelihood of a normal distribution with mean m and unit variance.

    Args:
        modes: m(x) `[N, ...]`.
        actions: the expert's actions a `[N, ...]`, constants of the gradient.

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
    """Σ_a w_a (first − second − …)_a with 0 · ∞ = 0; the inner `where` keeps the gradient finite, too.

    Only a log-weight of −∞ leaves its action out: NaN makes the sum NaN.
    """
    possible = ~jnp.isneginf(log_weights)
    first, *others = (jnp.where(possible, term, jnp.zeros_like(term)) for term in terms)
    for other in others:
        first = first - other
    return jnp.sum(jnp.exp(jnp.where(possible, log_weights, -jnp.inf)) * first, axis=-1)


@readable
def cross_entropy(log_probs: jax.Array, expert_log_probs: jax.Array) -> jax.Array:
    """The expected negative log-likelihood of the expert's action, without sampling it.

    loss = −Σ_a f*_a ln f_a = H(f*) + KL(f* ‖ f)

    It is infinite where f gives probability 0 to an action that the expert takes.

    Args:
        log_probs: ln f(x, θ) `[..., A]`.
        expert_log_probs: ln f*(x) `[..., A]`, constants of the gradient.

    Returns:
        `[...]`, in nats.
    """
    expert = _expert(log_probs, expert_log_probs)
    return -_expectation(expert, log_probs)


@readable
def forward_kl(log_probs: jax.Array, expert_log_probs: jax.Array) -> jax.Array:
    """The divergence KL(f* ‖ f): f must give probability to every action that the expert takes.

    loss = KL(f* ‖ f) = Σ_a f*_a (ln f*_a − ln f_a)

    Its gradient is the gradient of `cross_entropy`, and its minimum is 0.

    Args:
        log_probs: ln f(x, θ) `[..., A]`.
        expert_log_probs: ln f*(x) `[..., A]`, constants of the gradient.

    Returns:
        `[...]`, in nats; infinite where f gives probability 0 to an action that the expert takes.
    """
    expert = _expert(log_probs, expert_log_probs)
    return _expectation(expert, expert, log_probs)


@readable
def reverse_kl(log_probs: jax.Array, expert_log_probs: jax.Array) -> jax.Array:
    """The divergence KL(f ‖ f*): f may only take actions that the expert takes, but need not take all of them.

    loss = KL(f ‖ f*) = Σ_a f_a (ln f_a − ln f*_a)

    It is infinite, and its gradient is NaN, where f takes an action to which the expert gives probability 0. So it
    cannot be used with a deterministic expert and a softmax policy.

    Args:
        log_probs: ln f(x, θ) `[..., A]`.
        expert_log_probs: ln f*(x) `[..., A]`, constants of the gradient.

    Returns:
        `[...]`, in nats.
    """
    expert = _expert(log_probs, expert_log_probs)
    return _expectation(log_probs, log_probs, expert)


@readable
def total_variation(log_probs: jax.Array, expert_log_probs: jax.Array) -> jax.Array:
    """Half the sum of the absolute differences of probabilities.

    loss = ½ Σ_a |f_a − f*_a|,    Pinsker: loss² ≤ ½ KL(f* ‖ f)

    It is the smallest probability with which two actions drawn jointly from f and f* can differ. It is not
    differentiable where f_a = f*_a; the subgradient used is ½ Σ_a sign(f_a − f*_a) ∇f_a with sign(0) = 0, which leaves
    such an action out. For a deterministic expert the loss is 1 − f_{a*}.

    Args:
        log_probs: ln f(x, θ) `[..., A]`.
        expert_log_probs: ln f*(x) `[..., A]`, constants of the gradient.

    Returns:
        `[...]` in [0, 1].
    """
    expert = _expert(log_probs, expert_log_probs)
    difference = jnp.exp(log_probs) - jnp.exp(expert)
    # jnp.sign is 0 at 0 and has derivative 0, while the derivative of |x| at 0 depends on a convention.
    return 0.5 * jnp.sum(jnp.sign(difference) * difference, axis=-1)


Direction = Literal["forward", "reverse"]


@readable
def distribution_kl(
    distribution: Distribution, parameters: PyTree, expert_parameters: PyTree, *, direction: Direction = "forward"
) -> jax.Array:
    """The divergence between policy and expert in closed form, if both have the same family, such as two Gaussians.

    loss = KL(f* ‖ f)  ("forward")   or   KL(f ‖ f*)  ("reverse")

    Args:
        distribution: the family of both distributions, for one observation.
        parameters: the parameters of f(x, θ), leaves `[N, ...]`.
        expert_parameters: the parameters of f*(x), leaves `[N, ...]`, constants of the gradient.
        direction: `"forward"` as in `forward_kl`, or `"reverse"` as in `reverse_kl`.

    Returns:
        `[N]`, in nats.

    Raises:
        ValueError: if `direction` is neither.
    """
    require_one_of("direction", direction, get_args(Direction))
    expert_parameters = jax.lax.stop_gradient(expert_parameters)
    pair = (expert_parameters, parameters) if direction == "forward" else (parameters, expert_parameters)
    return jax.vmap(distributions.require(distribution, "kl", "distribution_kl"))(*pair)


@readable
def indicator_schedule() -> Schedule:
    """The expert acts in the first round, and the learner in all later rounds: β_1 = 1, then 0.

    β_i = 1[i = 1];  code counts rounds from 0: `schedule(0)` is β_1

    Source: Ross, Gordon & Bagnell 2011, section 3 (the parameter-free choice).
    """
    return lambda round_: jnp.where(jnp.asarray(round_) == 0, 1.0, 0.0)


@readable
def exponential_schedule(decay: jax.typing.ArrayLike) -> Schedule:
    """The expert's share is multiplied by the same factor in each round.

    β_i = p^{i−1};  code counts rounds from 0: `schedule(0)` is β_1 = 1, for p = 0 too

    Args:
        decay: p in [0, 1].

    Raises:
        ValueError: if p is outside [0, 1].

    Source: Ross, Gordon & Bagnell 2011, section 3.

    Example:
        >>> from pgjax import imitation
        >>> schedule = imitation.exponential_schedule(decay=0.5)
        >>> [float(schedule(round)) for round in range(4)]
        [1.0, 0.5, 0.25, 0.125]
    """
    require_in_range("decay", decay, 0.0, 1.0)
    return lambda round_: jnp.power(jnp.asarray(decay, float), jnp.asarray(round_, float))


@readable
def linear_schedule(num_rounds: int) -> Schedule:
    """The expert's share falls linearly to 0.

    β_i = max(0, 1 − (i − 1)/n);  code counts rounds from 0: `schedule(0)` is β_1 = 1, `schedule(n)` is 0

    Args:
        num_rounds: n ≥ 1.

    Raises:
        ValueError: if n is below 1.
    """
    require_integer("num_rounds", num_rounds, 1, None)
    return lambda round_: jnp.maximum(0.0, 1.0 - jnp.asarray(round_, float) / num_rounds)


@readable
def mix(key: jax.Array, beta: jax.typing.ArrayLike, expert_action: PyTree, action: PyTree) -> PyTree:
    """One action of DAgger's mixture β f* + (1 − β) f; use `jax.vmap` for many.

    a = a* with probability β, else a

    One random choice decides about the whole action. The result is the action to *execute*: the learner is taught a* at
    every state, whoever acted.

    Args:
        key: typed.
        beta: β `[]` in [0, 1]; at 1 and 0 the choice is certain.
        expert_action: a* ~ f*(x), leaves `[...]`.
        action: a ~ f(x, θ), leaves of the same shapes and types.

    Returns:
        Either `expert_action` or `action`.

    Raises:
        ValueError: if β is outside [0, 1].

    Source: Ross, Gordon & Bagnell 2011, algorithm 3.1.
    """
    require_in_range("beta", beta, 0.0, 1.0)
    chex.assert_trees_all_equal_shapes_and_dtypes(expert_action, action)
    by_expert = jax.random.uniform(key) < beta
    return jax.tree.map(lambda expert, own: jnp.where(by_expert, expert, own), expert_action, action)
