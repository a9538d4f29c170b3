"""Estimators for actions with independent components: the baseline of a component sees all the other components.

    f(x, θ)_a = Π_i f_i(a_i | x, θ),    ∇̂ρ = (1/B) Σ_b Σ_t Σ_i ∇ ln f_i(A_{t,i} | X_t) (G_t − b_i(X_t, A_{t,−i}))

Given X_t, component i is independent of the other components A_{t,−i}. So E[b_i ∇ ln f_i] = 0 and the estimator is
unbiased, while b_i can remove the noise that the other components put into G_t. Axes: T time, B episodes, N rows,
D components.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from pgjax._doors import readable
from pgjax.estimators.hot_path import assemble, entropies
from pgjax.estimators.rules import ReturnRule, reward_to_go
from pgjax.types import Distribution, Estimator, Policy, PyTree, Trajectory

ComponentLogProbs = Callable[[PyTree, jax.Array], jax.Array]
ComponentBaseline = Callable[[PyTree, PyTree, jax.Array], jax.Array]
ActionValue = Callable[[PyTree, jax.Array], jax.Array]


@readable
def each_component(distribution: Distribution) -> ComponentLogProbs:
    """`(outputs, action [D]) → ln f_i(a_i | x) [D]` for a distribution that has one parameter for each component.

    `bernoulli` and `diagonal_gaussian` are such distributions: their `log_prob` is the sum over i.
    """
    alone = lambda outputs, action: distribution.log_prob(jax.tree.map(lambda x: x[None], outputs), action[None])
    return jax.vmap(alone)


@readable
def factorised(
    policy: Policy,
    component_log_probs: ComponentLogProbs,
    baseline: ComponentBaseline,
    *,
    returns: ReturnRule | None = None,
    rows_per_piece: int | None = None,
) -> Estimator:
    """The mean over episodes of Σ_t Σ_i ∇ ln f_i(A_{t,i} | X_t) (G_t − b_i(X_t, A_{t,−i})). Unbiased.

    *b_i must not depend on a_i.* A baseline that does adds −Σ_i ∇_i E[b_i] to the expectation, where ∇_i differentiates
    through f_i alone; if b_i is the return itself, the estimate is 0. `counterfactual` and `at_component_mode` keep
    this rule. The baselines are computed row by row together with the log-likelihood, and no gradient flows into them.

    Args:
        policy: f(x, θ), with D components that are independent given x.
        component_log_probs: `(outputs of the policy, action [D]) → ln f_i(a_i | x) [D]`; see `each_component`.
        baseline: `(outputs of the policy, obs, action [D]) → b [D]` for one row.
        returns: G, a rule that does not bootstrap; `reward_to_go()` if None.
        rows_per_piece: the number of rows that the gradient is computed for at a time; chosen by the device if None.

    Raises:
        ValueError: if `returns` bootstraps; when the estimator is used, if `baseline` does not return one number for
            each component.

    Source: Wu et al. 2018.

    Example: two bits, and a critic q(x, a) that counts the ones.

        >>> import jax.numpy as jnp
        >>> from pgjax import Policy, distributions, estimators
        >>> policy = Policy(init=lambda key, obs: jnp.zeros((3, 2)), apply=lambda params, obs: obs @ params,
        ...                 distribution=distributions.bernoulli)
        >>> log_probs = estimators.each_component(distributions.bernoulli)
        >>> baseline = estimators.counterfactual(log_probs, q=lambda obs, action: action.sum().astype(float))
        >>> estimators.factorised(policy, log_probs, baseline)
        Estimator(factorised, fits_windows=False)
    """
    returns = reward_to_go() if returns is None else returns
    if returns.bootstraps:
        raise ValueError(f"returns must be total_return or reward_to_go in factorised, got {returns!r}")

    def weigh(params: PyTree, state: PyTree, trajectory: Trajectory):
        targets = returns.compute(trajectory, None, None)
        weight = jnp.where(trajectory.alive, targets, 0.0)
        return (trajectory.obs, trajectory.actions, weight), state, {}

    def one_row(outputs: PyTree, row: tuple) -> jax.Array:
        obs, action, weight = row
        log_probs = component_log_probs(outputs, action)
        b = jax.lax.stop_gradient(baseline(outputs, obs, action))
        if b.shape != log_probs.shape:
            raise ValueError(
                f"baseline must return one number for each component, shape {log_probs.shape}, got shape {b.shape}"
            )
        return jnp.sum((weight[None] - b) * log_probs)

    def row_objective(outputs: PyTree, rows: tuple) -> tuple[jax.Array, dict[str, jax.Array]]:
        return jax.vmap(one_row)(outputs, rows), entropies(policy, outputs)

    return assemble(
        policy,
        init=lambda key, sample: (),
        weigh=weigh,
        row_objective=row_objective,
        rows_per_piece=rows_per_piece,
    )


@readable
def counterfactual(
    component_log_probs: ComponentLogProbs, q: ActionValue, values: Sequence[float] = (0, 1)
) -> ComponentBaseline:
    """b_i(x, a_{−i}) = Σ_v f_i(v | x) q(x, (v, a_{−i})): the mean of q over all values of component i.

    With q(x, a) = E[G_t | X_t = x, A_t = a], the mean of G_t − b_i is the advantage of a_i, given the other components.
    The estimator is unbiased for every q. It evaluates q at D · |values| actions per row.

    Args:
        component_log_probs: as in `factorised`.
        q: `(obs, action [D]) → scalar`.
        values: all values that a component can take, the same for each component; 0 and 1 for bits.

    Source: Foerster et al. 2018 (COMA); Wu et al. 2018.
    """

    def baseline(outputs: PyTree, obs: PyTree, action: jax.Array) -> jax.Array:
        def term(i: jax.Array, value: jax.Array) -> jax.Array:
            other = action.at[i].set(value)
            return jnp.exp(component_log_probs(outputs, other)[i]) * q(obs, other)

        over_values = jax.vmap(term, (None, 0))
        of_component = lambda i: jnp.sum(over_values(i, jnp.asarray(values, action.dtype)))
        return jax.vmap(of_component)(jnp.arange(action.shape[0]))

    return baseline


@readable
def at_component_mode(distribution: Distribution, q: ActionValue) -> ComponentBaseline:
    """b_i(x, a_{−i}) = q(x, (m_i, a_{−i})), where m is the mode of f(x, θ).

    It suits continuous actions and evaluates q once for each component.

    Source: Wu et al. 2018 (their mean-marginalised baseline; a Gaussian's mode is its mean).
    """

    def baseline(outputs: PyTree, obs: PyTree, action: jax.Array) -> jax.Array:
        mode = distribution.mode(outputs).astype(action.dtype)
        return jax.vmap(lambda i: q(obs, action.at[i].set(mode[i])))(jnp.arange(action.shape[0]))

    return baseline
