"""Policies whose action is a vector of independent components: a baseline for each that sees all the others.

    f(x, θ)_a = Π_i f_i(a_i | x, θ),    ∇̂ρ = (1/B) Σ_b Σ_t Σ_i ∇ ln f_i(A_{t,i} | X_t) (G_t − b_i(X_t, A_{t,−i}))

Given X_t, component i is independent of the others A_{t,−i}, so E[b_i ∇ ln f_i] = 0 and nothing is biased, while the
noise that the others put into G_t can be taken out. Axes: T time, B episodes, N rows, D components.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from pgjax.estimators.hot_path import assemble, entropies
from pgjax.estimators.rules import ReturnRule, reward_to_go
from pgjax.types import Distribution, Estimator, Policy, PyTree, Trajectory

ComponentLogProbs = Callable[[PyTree, jax.Array], jax.Array]
ComponentBaseline = Callable[[PyTree, PyTree, jax.Array], jax.Array]
ActionValue = Callable[[PyTree, jax.Array], jax.Array]


def each_component(distribution: Distribution) -> ComponentLogProbs:
    """`(outputs, action [D]) → ln f_i(a_i | x) [D]` of a family whose parameters have one entry per component.

    `bernoulli` and `diagonal_gaussian` are such families: the sum over i is their `log_prob`.
    """
    alone = lambda outputs, action: distribution.log_prob(jax.tree.map(lambda x: x[None], outputs), action[None])
    return jax.vmap(alone)


def factorised(
    policy: Policy,
    component_log_probs: ComponentLogProbs,
    baseline: ComponentBaseline,
    *,
    returns: ReturnRule | None = None,
    rows_per_piece: int | None = None,
) -> Estimator:
    """Σ_t Σ_i ∇ ln f_i(A_{t,i} | X_t) (G_t − b_i(X_t, A_{t,−i})), the mean over episodes. Unbiased.

    *b_i must not see a_i.* One that does adds −Σ_i ∇_i E[b_i] to the expectation, ∇_i through f_i alone; with b_i = the
    return itself nothing is left of the gradient. `counterfactual` and `at_component_mode` keep to this rule. The
    baselines are computed with the log-likelihood, row by row, and no gradient flows into them.

    Args:
        policy: f(x, θ), of D components that are independent given x.
        component_log_probs: `(outputs of the policy, action [D]) → ln f_i(a_i | x) [D]`; see `each_component`.
        baseline: `(outputs of the policy, obs, action [D]) → b [D]` for one row.
        returns: G; `reward_to_go()` if None. Not one that bootstraps.
        rows_per_piece: how many rows the hot path works on at a time.

    Raises:
        ValueError: for bootstrapped returns; when used, if a component's baseline is missing.

    Source: Wu et al. 2018.
    """
    returns = reward_to_go() if returns is None else returns
    if returns.bootstraps:
        raise ValueError("returns must be total_return or reward_to_go in factorised, got a rule that bootstraps")

    def weigh(params: PyTree, state: PyTree, trajectory: Trajectory):
        targets = returns.compute(trajectory, None, None)
        weight = jnp.where(trajectory.alive, targets, 0.0)
        return (trajectory.obs, trajectory.actions, weight), state, {}

    def one_row(outputs: PyTree, row: tuple) -> jax.Array:
        obs, action, weight = row
        log_probs = component_log_probs(outputs, action)
        b = jax.lax.stop_gradient(baseline(outputs, obs, action))
        if b.shape != log_probs.shape:
            raise ValueError(f"baseline must give one number per component, {log_probs.shape}, got shape {b.shape}")
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


def counterfactual(
    component_log_probs: ComponentLogProbs, q: ActionValue, values: Sequence[float] = (0, 1)
) -> ComponentBaseline:
    """b_i(x, a_{−i}) = Σ_v f_i(v | x) q(x, (v, a_{−i})): what component i's choice leaves open, averaged over it.

    With q(x, a) = E[G_t | X_t = x, A_t = a], G_t − b_i averages to the advantage of a_i for the others' actions. Any q
    is unbiased. Asks for q at D · |values| actions per row.

    Args:
        component_log_probs: as in `factorised`.
        q: `(obs, action [D]) → scalar`.
        values: all values that a component can take, the same for every component; 0 and 1 for bits.

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


def at_component_mode(distribution: Distribution, q: ActionValue) -> ComponentBaseline:
    """b_i(x, a_{−i}) = q(x, (m_i, a_{−i})) with m the mode of f(x, θ): one q per component, for continuous actions.

    Source: Wu et al. 2018 (their mean-marginalised baseline; a Gaussian's mode is its mean).
    """

    def baseline(outputs: PyTree, obs: PyTree, action: jax.Array) -> jax.Array:
        mode = distribution.mode(outputs).astype(action.dtype)
        return jax.vmap(lambda i: q(obs, action.at[i].set(mode[i])))(jnp.arange(action.shape[0]))

    return baseline
