"""Problems on which baselines are compared: exact variances, their lowest points, and learned baselines."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import baselines, estimators, exact, rollouts
from pgjax.distributions import categorical
from pgjax.exact import TabularMDP
from pgjax.types import Policy

DISCOUNTS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
ARGMINS = (
    "constant",
    "per parameter",
    "step, constant",
    "step, of the time",
    "step, of the state",
    "step, of both",
    "one step alone",
)
RANDOM_SHAPE = {"num_states": 5, "num_actions": 2, "num_outcomes": 2, "horizon": 6}


class Case(NamedTuple):
    """A problem, and θ `[A, F]` of the policy with the logits θ φ(s), φ(s) the observation."""

    params: jax.Array
    mdp: TabularMDP


def logits(params: jax.Array, obs: jax.Array) -> jax.Array:
    return params @ obs


def three_states(horizon: int) -> Case:
    """States A, B, C, reward 1 on arriving in C, and a softmax policy of two features at θ = ((1, 1), (−1, −1)).

    Action 1 leads to the other of A and B (from C: to B) with probability .8 and to C with .2, action 2 the other way
    round; episodes start in A. The two actions of a state have features 12/18, 6/18 in A, 6/18, 12/18 in B and 5/18,
    5/18 in C.

    Source: in the style of Baxter, Bartlett & Weaver (2001), as remembered, unverified.
    """
    chances = np.zeros((3, 2, 3))
    for state, other in enumerate((1, 0, 1)):
        chances[state, 0, other], chances[state, 0, 2] = 0.8, 0.2
        chances[state, 1, other], chances[state, 1, 2] = 0.2, 0.8
    mdp = exact.make_tabular_mdp(
        initial=[1.0, 0.0, 0.0],
        successors=np.tile(np.arange(3), (3, 2, 1)),
        probabilities=chances,
        rewards=np.broadcast_to([0.0, 0.0, 1.0], (3, 2, 3)),
        terminal=[False] * 3,
        observations=np.array([[12, 6], [6, 12], [5, 5]]) / 18,
        horizon=horizon,
        name="three states",
    )
    return Case(params=jnp.asarray([[1.0, 1.0], [-1.0, -1.0]]), mdp=mdp)


def three_arms() -> Case:
    """Rewards 1, .7, 0 at the logits (0, 3, 5), the bandit of Chung, Thomas, Machado & Le Roux (2021)."""
    return Case(params=jnp.asarray([[0.0], [3.0], [5.0]]), mdp=exact.make_bandit([1.0, 0.7, 0.0]))


def random_case(key: jax.Array) -> Case:
    """Draw a random MDP and a table of normal logits; traceable."""
    problem_key, params_key = jax.random.split(key)
    mdp = exact.random_mdp(problem_key, **RANDOM_SHAPE)
    return Case(params=jax.random.normal(params_key, (mdp.num_actions, mdp.num_states)), mdp=mdp)


def average_reward(case: Case) -> jax.Array:
    """Return E R of the last step, which is the long-run average reward once the chain has mixed."""
    probabilities = exact.policy_probabilities(logits, case.params, case.mdp)
    return jnp.sum(exact.visitation(case.mdp, probabilities)[-1] * exact.state_values(case.mdp, probabilities)[-2])


def _total_variances(case: Case, baselines: jax.Array) -> jax.Array:
    """Return tr Var of (G_1 − b) Σ_t ψ_t for each b `[N, A, F]`, one number per parameter, `[N]`."""
    variance = lambda b: exact.total_return_moments(logits, case.params, case.mdp, baseline=b).total_variance
    return jax.lax.map(variance, baselines)


def _to_go_variances(case: Case, baselines: jax.Array, discount: jax.Array | float = 1.0) -> jax.Array:
    """Return tr Var of Σ_t ψ_t (G_t − b_t(S_t)) for each b `[N, T, S]`, `[N]`."""
    of = logits, case.params, case.mdp
    variance = lambda b: exact.reward_to_go_moments(*of, baseline=b, discount=discount).total_variance
    return jax.lax.map(variance, baselines)


def _one_step_variances(case: Case, baselines: jax.Array) -> jax.Array:
    """tr Var of ψ_t (G_t − b_t(S_t)) of one step, t and S_t drawn from the visitation, for each b `[N, T, S]`."""
    variance = lambda b: exact.variance_decomposition(logits, case.params, case.mdp, baseline=b).total
    return jax.lax.map(variance, baselines)


def _around(directions: jax.Array) -> jax.Array:
    """Return −d and d of every direction d, and 0, `[2N + 1, ...]`."""
    return jnp.concatenate([-directions, directions, jnp.zeros_like(directions[:1])])


def lowest(found: jax.Array) -> jax.Array:
    """Return where each parabola x ↦ variance(x d) is lowest, `[N]`, from the variances at `_around(d)`.

    The result is 0 where the variance does not depend on x.
    """
    (below, above), middle = jnp.split(found[:-1], 2), found[-1]
    curvature = below - 2.0 * middle + above
    flat = curvature <= 1e-12 * middle
    return jnp.where(flat, 0.0, 0.5 * (below - above) / jnp.where(flat, 1.0, curvature))


def _total_baselines(case: Case) -> dict[str, jax.Array]:
    """Return 0, E G, b* and b*_i, each as one number per parameter, `[A, F]`."""
    of = logits, case.params, case.mdp
    constants = {"0": 0.0, "E G": exact.objective(*of), "b*": exact.optimal_constant_baseline(*of)}
    each = {name: jnp.full_like(case.params, b) for name, b in constants.items()}
    return each | {"b*_i": exact.optimal_parameter_baseline(*of)}


def _to_go_baselines(case: Case) -> dict[str, jax.Array]:
    """Return 0, the value, and the best function of time and state, `[T, S]` each."""
    of = logits, case.params, case.mdp
    values = exact.state_values(case.mdp, exact.policy_probabilities(*of))[:-1]
    return {"step 0": jnp.zeros_like(values), "V_t(s)": values, "b*_t(s)": exact.optimal_step_baseline(*of)}


def total_comparison(case: Case) -> dict[str, dict[str, jax.Array]]:
    """Return `"baselines"` and the exact `"variances"` with them, in the trajectory sense."""
    b = _total_baselines(case)
    found = _total_variances(case, jnp.stack(list(b.values())))
    return {"baselines": b, "variances": dict(zip(b, found, strict=True))}


def comparison(case: Case) -> dict[str, dict[str, jax.Array]]:
    """Return what `total_comparison` returns, and the same in the step sense."""
    total, b = total_comparison(case), _to_go_baselines(case)
    found = dict(zip(b, _to_go_variances(case, jnp.stack(list(b.values()))), strict=True))
    return {"baselines": total["baselines"] | b, "variances": total["variances"] | found}


def examine(case: Case, average: jax.Array) -> dict:
    """Return what `comparison` returns, with b = T · average reward too; `"pairs"`; and the best average reward.

    `"pairs"` holds name → (b by the formula, b at the lowest exact variance), for every sense and dependence. The
    entries of a b that depends on several things are minimised one by one: no two of them meet in the variance.
    """
    of = logits, case.params, case.mdp
    steps, states, size = case.mdp.horizon, case.mdp.num_states, case.params.size
    both = jnp.eye(steps * states).reshape(steps, states, steps, states)
    single = both.reshape(-1, steps, states)
    directions = {
        "constant": jnp.ones((1, steps, states)),
        "time": both.sum(axis=1),
        "state": both.sum(axis=0),
        "time_state": single,
    }
    total = _total_baselines(case) | {"T · average": jnp.full_like(case.params, steps * average)}
    to_go = _to_go_baselines(case)
    whole = _around(jnp.concatenate([jnp.ones((1, size)), jnp.eye(size)])).reshape(-1, *case.params.shape)
    around = _around(jnp.concatenate(list(directions.values())))
    of_total = _total_variances(case, jnp.concatenate([whole, jnp.stack(list(total.values()))]))
    of_steps = _to_go_variances(case, jnp.concatenate([around, jnp.stack(list(to_go.values()))]))

    visits = exact.visitation(case.mdp, exact.policy_probabilities(*of))
    alone = exact.one_step_baseline(*of)
    ends = np.cumsum([len(each) for each in directions.values()])[:-1]
    points = [
        *jnp.split(lowest(of_total[: len(whole)]), [1]),
        *jnp.split(lowest(of_steps[: len(around)]), ends),
        lowest(_one_step_variances(case, _around(single))),
    ]
    words = [word for word in directions if word != "time_state"]
    formulas = [
        total["b*"].ravel()[:1],
        total["b*_i"],
        *(exact.optimal_step_baseline(*of, depends_on=word) for word in words),
        to_go["b*_t(s)"],
        # Where no episode comes, b makes no difference, and 0 stands for it.
        jnp.where(visits > 0, alone, 0.0),
    ]
    found = jnp.concatenate([of_total[len(whole) :], of_steps[len(around) :]])
    return {
        "baselines": total | to_go,
        "variances": dict(zip(total | to_go, found, strict=True)),
        "pairs": {name: (b.ravel(), point) for name, b, point in zip(ARGMINS, formulas, points, strict=True)},
        "one step, of the state": jnp.sum(visits * alone, axis=0) / jnp.sum(visits, axis=0),
        "optimum": case.mdp.initial @ exact.optimal_action_values(case.mdp)[0].max(axis=-1) / steps,
    }


def towards_the_average(lengths: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return b* per step for each horizon, b* per reward for each discount, and the average reward, exactly.

    "Per reward" means that b is subtracted from every reward, as Weaver & Tao do, that is Σ_{i<T−t} γⁱ b from G_t.
    """
    long = three_states(lengths[-1])

    def per_reward(gamma: jax.Array) -> jax.Array:
        left = jnp.arange(long.mdp.horizon, 0, -1)
        weights = jnp.broadcast_to(((1.0 - gamma**left) / (1.0 - gamma))[:, None], (long.mdp.horizon, 3))
        return lowest(_to_go_variances(long, _around(weights[None]), gamma))[0]

    best = jax.jit(lambda case: exact.optimal_constant_baseline(logits, case.params, case.mdp))
    return {
        "average": np.asarray(jax.jit(average_reward)(long)),
        "step": np.asarray([best(three_states(length)) / length for length in lengths]),
        "reward": np.asarray(jax.jit(lambda gammas: jax.lax.map(per_reward, gammas))(jnp.asarray(DISCOUNTS))),
    }


def learn(key: jax.Array, case: Case, *, runs: int, updates: int, batch: int) -> dict[str, np.ndarray]:
    """Learn pgjax's baselines at a fixed policy in `updates` batches of episodes; return them, `[runs, ...]`."""
    environment = exact.to_environment(case.mdp)
    policy = Policy(init=lambda key, obs: jnp.zeros((2, 2)), apply=logits, distribution=categorical)
    params = jnp.asarray(case.params, jnp.float32)
    # Observations are told apart by their first feature.
    index_of = lambda obs: jnp.argmin(jnp.abs(obs[0] - case.mdp.observations[:, 0].astype(jnp.float32)))
    total = estimators.total_return()
    learners = {
        "b*": estimators.make_estimator(policy, returns=total, baseline=baselines.optimal_constant()),
        "b*_i, worst": estimators.per_parameter(policy),
        "b*(s), worst": estimators.make_estimator(policy, baseline=baselines.optimal_state(index_of, 3)),
    }
    play = lambda key: rollouts.episodes(environment, policy, params, jax.random.split(key, batch))

    def one_run(key: jax.Array) -> dict:
        shapes = jax.eval_shape(lambda: play(key))
        sample = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        start = {name: learner.init(key, sample) for name, learner in learners.items()}

        def update(states: dict, key: jax.Array) -> tuple[dict, None]:
            trajectory = play(key)
            return {name: learners[name].gradient(params, states[name], trajectory)[1] for name in states}, None

        return jax.lax.scan(update, start, jax.random.split(key, updates))[0]

    states = jax.jit(lambda keys: jax.lax.map(one_run, keys))(jax.random.split(key, runs))
    return {name: jax.tree.map(np.divide, *jax.tree.map(np.asarray, tuple(state))) for name, state in states.items()}
