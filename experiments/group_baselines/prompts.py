"""Two prompts that can be enumerated, for `group_baselines`: one right or wrong token, and a choice of length.

Axes: P probabilities of a right answer, G answers of a group.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.shared.multisets import group_means, multiset_moments
from pgjax import baselines, estimators, exact, rollouts
from pgjax.distributions import categorical
from pgjax.exact import TabularMDP
from pgjax.types import Estimator, Policy, Trajectory

GRPO, GRPO_SAMPLE, RLOO, DR_GRPO = "GRPO", "GRPO, divisor G − 1", "RLOO", "Dr. GRPO"
RLOO_PER_TOKEN = "RLOO, 1/|o|"

ONE_TOKEN = Policy(
    init=lambda key, obs: jnp.zeros(()),
    apply=lambda logit, obs: obs[0] * jnp.stack([0.0 * logit, logit]),
    distribution=categorical,
)
TOKENS = Policy(init=lambda key, obs: jnp.zeros((8, 2)), apply=lambda table, obs: obs @ table, distribution=categorical)


def named_estimators(policy: Policy, group_size: int) -> dict[str, Estimator]:
    """Return name → the estimator as its paper writes it; the reward is that of the whole answer."""
    make = lambda **how: estimators.make_estimator(policy, returns=estimators.total_return(), **how)
    return {
        GRPO: make(standardise="group_population", group_size=group_size, over_time="episode_mean"),
        GRPO_SAMPLE: make(standardise="group_sample", group_size=group_size, over_time="episode_mean"),
        RLOO: make(baseline=baselines.leave_one_out(group_size=group_size)),
        DR_GRPO: make(baseline=baselines.batch_mean(group_size=group_size)),
        RLOO_PER_TOKEN: make(baseline=baselines.leave_one_out(group_size=group_size), over_time="episode_mean"),
    }


def one_token() -> exact.Enumeration:
    """Return a wrong answer with reward 0, and a right one with reward 1 and probability p = σ(θ)."""
    return exact.enumerate_trajectories(exact.make_bandit([0.0, 1.0], name="right or wrong"))


def logit(p) -> np.ndarray:
    return np.log(p) - np.log1p(-np.asarray(p))


def ratios(every: exact.Enumeration, p: np.ndarray, group_size: int, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return name → E[estimate] / ∇p, `[P]`, over all groups of G answers."""
    chosen = {name: named_estimators(ONE_TOKEN, group_size)[name] for name in names}

    def at(theta: jax.Array) -> dict[str, jax.Array]:
        each = lambda batch: {name: made.episode_gradients(theta, (), batch) for name, made in chosen.items()}
        probabilities = exact.trajectory_probabilities(ONE_TOKEN.apply, theta, every)
        mean = multiset_moments(each, every, probabilities, group_size).mean
        gradient = exact.exact_gradient(ONE_TOKEN.apply, theta, every.mdp)
        return jax.tree.map(lambda x: x / gradient, mean)

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(at))(jnp.asarray(logit(p))))


def arcsine_ratio(every: exact.Enumeration, p: np.ndarray) -> np.ndarray:
    """Return ∇ 2 arcsin √p / ∇p `[P]`, by differentiating the objective that GRPO climbs with many answers."""

    def at(theta: jax.Array) -> jax.Array:
        of = lambda theta: 2 * jnp.arcsin(jnp.sqrt(exact.objective(ONE_TOKEN.apply, theta, every.mdp)))
        return jax.grad(of)(theta) / exact.exact_gradient(ONE_TOKEN.apply, theta, every.mdp)

    return np.asarray(jax.jit(jax.vmap(at))(jnp.asarray(logit(p))))


def mean_spread(p, group_size: int) -> np.ndarray:
    """E √(m (G − m)) / G, m ~ Binomial(G, p): the mean of a group's standard deviation with divisor G.

    GRPO's estimate has this mean and not p (1 − p), because each of the m right answers has weight √((G − m) / m).
    """
    m = np.arange(group_size + 1)
    ways = np.array([math.comb(group_size, int(n)) for n in m], float)
    p = np.asarray(p)[..., None]
    return np.sum(ways * p**m * (1 - p) ** (group_size - m) * np.sqrt(m * (group_size - m)) / group_size, axis=-1)


def sampled_ratios(p: float, group_size: int, num_groups: int, seed: int) -> dict[str, np.ndarray]:
    """Sample groups through the environment; return name → estimate / ∇p of each, `[num_groups]`."""
    every = one_token()
    environment = exact.to_environment(every.mdp)
    made = named_estimators(ONE_TOKEN, group_size)
    names = (GRPO, GRPO_SAMPLE, RLOO, DR_GRPO)

    @jax.jit
    def draw(key: jax.Array, theta: jax.Array) -> dict[str, jax.Array]:
        keys = jax.random.split(key, num_groups * group_size)
        batch = rollouts.episodes(environment, ONE_TOKEN, theta, keys)
        each = {name: made[name].episode_gradients(theta, (), batch) for name in names}
        return group_means(each, group_size)

    found = draw(jax.random.key(seed), jnp.asarray(logit(p), jnp.float32))
    return {name: np.asarray(found[name], np.float64) / (p * (1 - p)) for name in names}


RIGHT, WRONG, STOP, GO_ON = 1, 2, 0, 1
SHORT, LONG = 2, 4


def choice_of_length() -> TabularMDP:
    """The first token is right (1) or wrong (0); the second ends the answer (0) or goes on (1) for two more.

    A right answer of either length has reward 1, so the objective does not depend on the lengths of answers.
    """
    end = 7
    successors = np.array([[WRONG, RIGHT], [end, 3], [end, 5], [4, 4], [end, end], [6, 6], [end, end], [end, end]])
    rewards = np.zeros((8, 2))
    rewards[RIGHT, STOP], rewards[4] = 1.0, 1.0
    return exact.make_tabular_mdp(
        initial=np.eye(8)[0],
        successors=successors[..., None],
        probabilities=np.ones((8, 2, 1)),
        rewards=rewards[..., None],
        terminal=np.arange(8) == end,
        horizon=LONG,
        name="choice of length",
    )


def length_gradients(p: float, long: float, group_size: int) -> dict[str, np.ndarray]:
    """Return name → E[estimate] `[8, 2]`; "exact" → ∇ρ; "per token" → ∇E[(R − b)/|o|] with b = ρ held fixed.

    Args:
        p: P(right), the probability of a right answer.
        long: P(go on), the same for right and for wrong answers.
        group_size: G, the number of answers in a group.
    """
    mdp = choice_of_length()
    every = exact.enumerate_trajectories(mdp)
    made = named_estimators(TOKENS, group_size)
    table = np.zeros((8, 2))
    table[0, RIGHT], table[RIGHT, GO_ON], table[WRONG, GO_ON] = logit(p), logit(long), logit(long)

    @jax.jit
    def at(table: jax.Array) -> dict[str, jax.Array]:
        def per_token(theta: jax.Array) -> jax.Array:
            trajectories = every.trajectories
            advantage = jnp.sum(trajectories.rewards, axis=0) - jax.lax.stop_gradient(mean_return)
            probabilities = exact.trajectory_probabilities(TOKENS.apply, theta, every)
            return jnp.sum(probabilities * advantage / jnp.sum(trajectories.alive, axis=0))

        def each(batch: Trajectory) -> dict[str, jax.Array]:
            return {name: estimator.episode_gradients(table, (), batch) for name, estimator in made.items()}

        mean_return = exact.objective(TOKENS.apply, table, mdp)
        found = multiset_moments(each, every, exact.trajectory_probabilities(TOKENS.apply, table, every), group_size)
        truth = {"exact": exact.exact_gradient(TOKENS.apply, table, mdp), "per token": jax.grad(per_token)(table)}
        return found.mean | truth

    return jax.tree.map(np.asarray, at(jnp.asarray(table)))


def pulls(found: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Return name → the gradient in the logit of stopping, of right and of wrong answers: above 0 is shorter."""
    return {name: (float(table[RIGHT, STOP]), float(table[WRONG, STOP])) for name, table in found.items()}


def pull_in_closed_form(factor: float, long: float) -> float:
    """factor · P(stop) P(go on) (1/|short| − 1/|long|), the pull of right answers; that of wrong ones is minus it.

    Args:
        factor: the mean weight of right answers, Σ_right A / G: p (1 − p) with RLOO, `mean_spread` with GRPO.
        long: P(go on).
    """
    return factor * long * (1 - long) * (1 / SHORT - 1 / LONG)
