"""Explore with noisy actions or with noisy parameters? The variance of both gradients against the episode length.

Claim    Noise in every action adds a score at every step, so the variance of REINFORCE grows with the horizon T. A
         policy that acts without noise and whose parameters are drawn once an episode (PGPE) has one score an episode,
         and its variance need not grow.
Source   Sehnke et al. 2010 (PGPE); Zhao, Hachiya, Niu & Sugiyama 2011 (the bounds on both variances).
Command  python -m experiments.parameter_exploring
Shows    tr Var of both estimates, with and without a leave-one-out baseline, on a one-dimensional regulator
         x' = 0.9 x + a + noise with rewards γᵗ exp(−x²/2), for T from 1 to 100, from the same number of episodes.
Expect   With nothing subtracted, REINFORCE's variance goes on growing as T, and that of PGPE levels off, because the
         discounted return is bounded. With a leave-one-out baseline REINFORCE has the smaller variance here from
         T = 5 on: the claim is about gradients without a baseline. Under a minute on two CPU cores.
Departs  The two estimate different gradients, because they explore with different noise. Each is compared with itself
         at T = 1.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import runner
from pgjax import baselines, diagnostics, estimators, rollouts
from pgjax.distributions import GaussianParameters, diagonal_gaussian
from pgjax.parameter_exploring import gaussian_hyperpolicy, parameter_exploring
from pgjax.types import Box, Environment, Estimator, Policy, Step

LINE = Box(low=-np.inf, high=np.inf, shape=(1,))
DISCOUNT = 0.9
ACTIONS, PARAMETERS = "noise in the actions (REINFORCE)", "noise in the parameters (PGPE)"
START = {"gain": np.asarray([-0.3], np.float32)}


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of this experiment."""

    horizons: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)
    """The lengths T of an episode in steps, increasing."""
    estimates: int = 2000
    """The number of estimates, each from two episodes, over which the variances are measured."""
    log_std: float = -1.0
    """The logarithm of the standard deviation of the noise, which is the same for actions and for parameters."""
    seed: int = 0
    """The seed of every random number in this experiment."""

    def validate(self) -> None:
        increasing = list(self.horizons) == sorted(set(self.horizons)) and len(self.horizons) >= 2
        runner.require(increasing and self.horizons[0] >= 1, "--horizons", self.horizons, "two or more, increasing")
        runner.require(self.estimates >= 3, "--estimates", self.estimates, "at least 3 (for an interval)")
        runner.require(-5 <= self.log_std <= 2, "--log-std", self.log_std, "in [−5, 2]")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


TINY = Config(horizons=(1, 4), estimates=20)


def regulator(horizon: int) -> Environment:
    """x' = 0.9 x + a + 0.1 z from x = ±1, R = exp(−x'²/2) in (0, 1]."""

    def reset(key: jax.Array, params: tuple) -> tuple[jax.Array, jax.Array]:
        del params
        x = jnp.where(jax.random.bernoulli(key), 1.0, -1.0).astype(jnp.float32)[None]
        return x, x

    def step(key: jax.Array, state: jax.Array, action: jax.Array, params: tuple) -> tuple[jax.Array, Step]:
        del params
        x = 0.9 * state + action + 0.1 * jax.random.normal(key, (1,))
        return x, Step(obs=x, reward=jnp.exp(-0.5 * x[0] ** 2), terminated=jnp.zeros((), bool))

    return Environment(
        name="regulator", reset=reset, step=step, params=(), observation_space=LINE, action_space=LINE, horizon=horizon
    )


def linear_policy(log_std: float) -> Policy:
    """A ~ N(θ x, s²)."""
    return Policy(
        init=lambda key, obs: jax.tree.map(jnp.asarray, START),
        apply=lambda params, obs: GaussianParameters(mean=params["gain"] * obs, log_std=jnp.full((1,), log_std)),
        distribution=diagonal_gaussian,
    )


def problems(horizon: int, log_std: float) -> dict[str, tuple[Environment, Policy, float]]:
    """Name → environment, policy, discount of the estimator's return."""
    inner, policy = regulator(horizon), linear_policy(log_std)
    explored = parameter_exploring(inner, policy, START, discount=DISCOUNT)
    return {ACTIONS: (inner, policy, DISCOUNT), PARAMETERS: (explored, gaussian_hyperpolicy(START, log_std), 1.0)}


def measured(
    environment: Environment, policy: Policy, discount: float, key: jax.Array, estimates: int
) -> dict[str, diagnostics.Estimate]:
    """tr Var of the mean's gradient from two episodes, without and with a leave-one-out baseline."""
    keys = jax.random.split(key, 2 * estimates)
    _, obs = environment.reset(key, environment.params)
    params = policy.init(key, obs)
    episodes = jax.jit(lambda keys: rollouts.episodes(environment, policy, params, keys))(keys)
    total = estimators.total_return(discount)
    both = {
        "nothing subtracted": estimators.make_estimator(policy, returns=total),
        "leave-one-out": estimators.make_estimator(
            policy, returns=total, baseline=baselines.leave_one_out(group_size=2)
        ),
    }

    def statistics(estimator: Estimator) -> diagnostics.GradientStatistics:
        each = estimator.episode_gradients(params, estimator.init(key, episodes), episodes)
        location = jnp.ravel(jax.tree.leaves(each)[0])  # the gain, or its mean; not the spread of the noise
        return diagnostics.gradient_statistics(location.reshape(estimates, 2).mean(axis=1)[:, None])

    return {name: jax.jit(statistics, static_argnums=0)(estimator).variance for name, estimator in both.items()}


def run(config: Config, recorder: runner.Recorder) -> dict:
    found: dict[tuple[str, str], list] = {}
    with recorder.progress(2 * len(config.horizons), "measuring", "cases") as progress:
        for horizon in config.horizons:
            for name, (environment, policy, discount) in problems(horizon, config.log_std).items():
                key = jax.random.key(config.seed)
                for baseline, variance in measured(environment, policy, discount, key, config.estimates).items():
                    found.setdefault((name, baseline), []).append([float(x) for x in variance])
                    recorder.row(
                        quantity=f"tr Var, T = {horizon}, {baseline}",
                        variant=name,
                        ours=float(variance.value),
                        stderr=float(variance.stderr),
                    )
                progress.advance()
    return {"found": found, "config": config}


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    found, horizons = results["found"], np.array(results["config"].horizons)
    plain = {name: np.array(found[name, "nothing subtracted"])[:, 0] for name in (ACTIONS, PARAMETERS)}
    growth = {name: values[-1] / values[0] for name, values in plain.items()}
    figure, axes = plots.figure(
        f"Without a baseline, {horizons[-1]} steps instead of {horizons[0]} raise the variance "
        f"{growth[ACTIONS]:,.0f}-fold with noise in the actions, "
        f"{growth[PARAMETERS]:,.0f}-fold with noise in the parameters",
        f"{results['config'].estimates:,} estimates from two episodes each; bars are 95 % intervals.",
    )
    colour_of, styles = plots.colours((ACTIONS, PARAMETERS)), {"nothing subtracted": "--", "leave-one-out": "-"}
    for (name, baseline), values in found.items():
        value, _, low, high = np.array(values).T
        axes.errorbar(
            horizons,
            value,
            (value - low, high - value),
            linestyle=styles[baseline],
            marker="o",
            capsize=3,
            color=colour_of[name],
            label=f"{name}, {baseline}",
        )
    axes.set(xscale="log", yscale="log", xlabel="steps T of an episode", ylabel="variance of the gradient's estimate")
    axes.legend(frameon=False, fontsize=8)
    recorder.figure(figure, "parameter_exploring")


if __name__ == "__main__":
    runner.main(__file__, __doc__, Config, run, plot, tiny=TINY)
