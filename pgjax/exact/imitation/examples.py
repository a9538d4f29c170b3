"""Two small problems in which imitation costs as much as its bounds allow: the compounding chain and the reset cliff.

In both problems the expert always takes action 0.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pgjax._checks import require_in_range, require_integer
from pgjax._doors import readable
from pgjax.exact.mdp.tabular import TabularMDP, make_tabular_mdp


@readable
def first_action(mdp: TabularMDP) -> jax.Array:
    """π*(a|s) of the expert that always takes action 0, `[S, A]`."""
    return jnp.zeros((mdp.num_states, mdp.num_actions), mdp.rewards.dtype).at[:, 0].set(1.0)


@readable
def compounding_chain(horizon: int, *, recoverable: bool) -> TabularMDP:
    """A chain of two states, on the road (0) and off the road (1); action 0 stays on the road, action 1 leaves it.

    A step that leaves the road, or that starts and ends off the road, costs 1. If the chain is recoverable, action 0
    leads back to the road at no cost, so an error costs u = 1. If not, no action leads back, every step off the road
    costs 1, and an error costs up to u = T. A learner that errs with probability ε on the road and always off the road
    pays Σ_{t ≤ T} (1 − (1 − ε)^t) ≈ ε T² / 2 in both chains. A learner that errs with probability ε in both states pays
    ε T in the recoverable chain, and the same as before in the other.

    Source: Ross & Bagnell (2010), theorem 2.1 and its tightness.

    Example: the cost of one error is what the bound of DAgger multiplies, see `recovery_cost`.

        >>> from pgjax import exact
        >>> chains = [exact.compounding_chain(20, recoverable=recoverable) for recoverable in (True, False)]
        >>> [float(exact.recovery_cost(chain, exact.first_action(chain))) for chain in chains]
        [1.0, 20.0]
    """
    require_integer("horizon", horizon, 1, None)
    back = 0 if recoverable else 1
    return make_tabular_mdp(
        initial=np.array([1.0, 0.0]),
        successors=np.array([[[0], [1]], [[back], [1]]]),
        probabilities=np.ones((2, 2, 1)),
        rewards=np.array([[[0.0], [-1.0]], [[0.0 if recoverable else -1.0], [-1.0]]]),
        terminal=np.array([False, False]),
        horizon=horizon,
        name="compounding_chain",
    )


@readable
def compounding_cost(error: ArrayLike, horizon: int) -> jax.Array:
    """The regret of a learner whose errors last, Σ_{t=1}^T (1 − (1 − ε)^t), shaped as `error`.

    It equals T − q (1 − q^T) / (1 − q) with q = 1 − ε.
    """
    require_in_range("error", error, 0.0, 1.0)
    kept = 1.0 - jnp.asarray(error, float)
    return jnp.sum(1.0 - kept[..., None] ** jnp.arange(1, horizon + 1), axis=-1)


@readable
def reset_cliff(num_demonstrations: int, horizon: int, *, num_good_states: int = 5, num_actions: int = 4) -> TabularMDP:
    """A cliff without a way back: good states 0, …, G − 1, drawn anew from ρ at each step, and the state G below it.

    In a good state action 0 pays 1 and leads to the next S ~ ρ; every other action pays 0 and leads over the cliff to
    state G, where every reward is 0. ρ is 1 / (N + 1) on all good states except the last, so N demonstrations miss each
    of them at each time with probability (1 − 1/(N + 1))^N ≈ 1/e, which makes N demonstrations as bad as possible.

    Args:
        num_demonstrations: N, which only sets ρ.
        num_good_states: G, at most N + 1.

    Source: in the style of Rajaraman, Yang, Jiao & Ramchandran (2020), the lower bound.
    """
    require_integer("num_demonstrations", num_demonstrations, 1, None)
    require_integer("num_good_states", num_good_states, 2, num_demonstrations + 1)
    require_integer("num_actions", num_actions, 2, None)
    good, cliff = num_good_states, num_good_states
    rare = 1.0 / (num_demonstrations + 1)
    rho = np.append(np.full(good - 1, rare), 1.0 - (good - 1) * rare)
    successors = np.full((good + 1, num_actions, good), cliff)
    successors[:good, 0] = np.arange(good)
    probabilities = np.zeros(successors.shape)
    probabilities[..., 0] = 1.0
    probabilities[:good, 0] = rho
    rewards = np.zeros(successors.shape)
    rewards[:good, 0] = 1.0
    return make_tabular_mdp(
        initial=np.append(rho, 0.0),
        successors=successors,
        probabilities=probabilities,
        rewards=rewards,
        terminal=np.zeros(good + 1, bool),
        horizon=horizon,
        name="reset_cliff",
    )


@readable
def reset_cliff_regret(
    num_demonstrations: int, horizon: int, *, num_good_states: int = 5, num_actions: int = 4
) -> jax.Array:
    """E[J(π*) − J(π)] on `reset_cliff` of a table that is cloned for each time alone from N demonstrations.

    The mean is over the demonstrations, too. `cloned_probabilities` errs at t with probability
    ε_t = (1 − 1/A) Σ_s ρ(s) 1{s not seen at t}. The states seen at different times are independent, so
    E Π_{i ≤ t} (1 − ε_i) = (1 − E ε)^t, and the regret is `compounding_cost` at E ε = (1 − 1/A) Σ_s ρ(s) (1 − ρ(s))^N.
    """
    mdp = reset_cliff(num_demonstrations, horizon, num_good_states=num_good_states, num_actions=num_actions)
    missed = jnp.sum(mdp.initial * (1.0 - mdp.initial) ** num_demonstrations)
    return compounding_cost((1.0 - 1.0 / num_actions) * missed, horizon)
