"""Why a baseline matters: REINFORCE and its three cures, exactly and on CartPole.

Claim    The estimate (G_1 − b) Σ_t ∇ ln f(X_t, θ)_{A_t} of ∇ρ(θ) is right on average, but noisy. Three cures make it
         less noisy and do not change its mean: many episodes, reward-to-go G_t, a predicted return v(X_t).
Source   Williams 1992 (REINFORCE); Sutton et al. 2000 (v(X_t)); Kool et al. 2019 (leave-one-out).
Command  python -m experiments.variance_reduction
         python -m experiments.variance_reduction --many-episodes rloo reinforce_optimal my_file:my_baseline
Shows    (a) The mean and the variance of every estimate on the short corridor, by enumeration and so without sampling
         error. (b) The variance, the signal-to-noise ratio and the cosine with a large-sample gradient on CartPole-v1
         at three stages of training, all estimates from the same episodes. (c) Learning curves over 16 seeds.
Expect   G_1 alone does not learn. It learns with the baseline ρ̂, and each further cure makes the estimate less noisy
         and learning faster. (a) also contains two wrong estimates; their means are off by the predicted factors. A
         constant ρ̂ fits G_1, but not G_t, which shrinks during an episode: for some policies reward-to-go with ρ̂ is
         noisier than G_1 with ρ̂. About two minutes on two CPU cores, compilation included.
Departs  Adam replaces plain gradient ascent, with the same learning rate for all estimates. Nothing is discounted.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import runner
from experiments.shared import measure
from experiments.variance_reduction import ladder
from experiments.variance_reduction.figures import finding, last_fifth, plot
from experiments.variance_reduction.ladder import QUIET, Variant
from pgjax import baselines, diagnostics, environments, networks, rollouts, training
from pgjax.types import Baseline, Environment, Policy

__all__ = ["TINY", "Config", "plot", "run"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of this experiment. The defaults give the results that experiments/README.md shows."""

    seeds: int = 16
    """The number of runs, with different seeds, behind each learning curve."""
    episodes: int = 800
    """The number of episodes of each run of a learning curve."""
    batch: int = 16
    """B, the number of episodes in a batch, for the estimators of --many-episodes."""
    measured: int = 1024
    """The number of episodes on which all estimates are compared."""
    reference: int = 8192
    """The number of episodes of the large-sample gradient."""
    stages: tuple[int, int, int] = (0, 8, 20)
    """The numbers of updates after which the gradient estimates are measured, increasing."""
    learning_rate: float = 0.01
    """The learning rate η of Adam."""
    hidden: tuple[int, ...] = (32, 32)
    """The widths of the dense layers of the policy and of the value network."""
    one_episode: tuple[str, ...] = ("reinforce", "reinforce_moving_average")
    """Unbiased estimators that learn from one episode at a time. Each is a name that `python -m experiments.estimators`
    lists, or module:function for an estimator of your own; that module is imported and its code runs."""
    many_episodes: tuple[str, ...] = (
        "reinforce_moving_average",
        "gpomdp_moving_average",
        "gpomdp_value",
        "gpomdp_leave_one_out",
    )
    """Unbiased estimators that learn from --batch episodes at a time, named in the same way."""
    seed: int = 0
    """The seed of every random number in this experiment."""

    def validate(self) -> None:
        runner.require(self.seeds >= 2, "--seeds", self.seeds, "at least 2 (for an interval)")
        runner.require(self.batch >= 2, "--batch", self.batch, "at least 2 (leave-one-out needs another episode)")
        runner.require(self.episodes >= 2 * self.batch, "--episodes", self.episodes, "at least 2 batches")
        runner.require(self.measured >= 4 * self.batch, "--measured", self.measured, "at least 4 batches")
        runner.require(self.measured % self.batch == 0, "--measured", self.measured, "a multiple of --batch")
        runner.require(self.reference % self.measured == 0, "--reference", self.reference, "a multiple of --measured")
        runner.require(self.reference > 0, "--reference", self.reference, "at least 1")
        runner.require(
            list(self.stages) == sorted(self.stages) and self.stages[0] >= 0, "--stages", self.stages, "increasing"
        )
        for option, names in (("--one-episode", self.one_episode), ("--many-episodes", self.many_episodes)):
            for name in names:
                ladder.check_name(option, name)
        runner.require(self.one_episode + self.many_episodes, "--many-episodes", "()", "at least one estimator")
        runner.require(all(width >= 1 for width in self.hidden), "--hidden", self.hidden, "at least 1 each")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")
        runner.require_counts(self, "seeds", "episodes", "batch", "measured", "reference", "hidden")
        runner.require_counts(self, "stages", least=0)
        runner.require_rate("--learning-rate", self.learning_rate)

    def variants(self) -> dict[str, Variant]:
        return ladder.variants(self.one_episode, self.many_episodes)


TINY = Config(
    seeds=2,
    episodes=8,
    batch=2,
    measured=16,
    reference=32,
    stages=(0, 1, 2),
    hidden=(4,),
    one_episode=("reinforce",),
    many_episodes=("gpomdp_value",),
)
STAGES = ("fresh", "learning", "trained")
QUANTITIES = ("variance", "signal-to-noise ratio", "cosine")


class Problem(NamedTuple):
    """CartPole-v1, its policy, and the value baseline that one of the variants uses."""

    environment: Environment
    policy: Policy
    value: Baseline


def make_problem(config: Config) -> Problem:
    environment = environments.make("CartPole-v1")
    policy = networks.make_policy(environment, hidden=config.hidden)
    init, apply = networks.make_value(environment, hidden=config.hidden)
    value = baselines.value_function(init, apply, optax.adam(config.learning_rate), num_steps=4)
    return Problem(environment=environment, policy=policy, value=value)


def stage_parameters(config: Config, problem: Problem) -> list:
    """θ after each number of updates in `config.stages`, trained with v(X_t)."""
    estimator = QUIET.estimator(problem.policy, problem.value)
    trainer = training.make_trainer(
        problem.environment, problem.policy, estimator, optax.adam(config.learning_rate), num_episodes=config.batch
    )
    state, update, found = trainer.init(jax.random.key(config.seed)), jax.jit(trainer.update), []
    for stage in config.stages:
        while int(state.update) < stage:
            state, _ = update(state)
        found.append(state.params)
    return found


def measure_stages(config: Config, problem: Problem, recorder: runner.Recorder) -> dict:
    """Quantity → stage → variant → its value. All variants are measured on the same episodes.

    The baseline first sees 20 batches of the policy at this θ. Then its state is kept fixed.
    """
    environment, policy, value = problem
    batch_key, warm_key, reference_key = jax.random.split(jax.random.key(config.seed + 1), 3)
    episode_keys = jax.random.split(batch_key, config.measured)
    warm_keys = jax.random.split(warm_key, (20, config.batch))
    reference_keys = jax.random.split(reference_key, (config.reference // config.measured, config.measured))
    collect = jax.jit(lambda params, keys: rollouts.episodes(environment, policy, params, keys))

    def programs(variant: Variant):
        estimator, size = variant.estimator(policy, value), config.batch if variant.many else 1
        warm = lambda params, batch: measure.warmed_state(
            environment, policy, estimator, params, estimator.init(warm_key, batch), warm_keys.reshape(-1, size)
        )
        estimates = lambda params, state, batch: measure.batch_estimates(estimator, params, state, batch, size)
        return jax.jit(warm), jax.jit(estimates)

    chosen = config.variants()
    made = {name: programs(variant) for name, variant in chosen.items()}
    warm, quiet = next((made[name] for name, variant in chosen.items() if variant == QUIET), None) or programs(QUIET)
    results, returns = {quantity: {stage: {} for stage in STAGES} for quantity in QUANTITIES}, {}
    with recorder.progress(len(STAGES) * len(chosen), "measuring gradients", "estimates") as progress:
        for stage, params in zip(STAGES, stage_parameters(config, problem), strict=True):
            batch = collect(params, episode_keys)
            returns[stage] = float(batch.rewards.sum(axis=0).mean())
            state = warm(params, batch)
            large = [quiet(params, state, collect(params, keys)) for keys in reference_keys]
            reference = jnp.mean(jnp.concatenate(large), axis=0)
            for name, (warm_variant, estimates_of) in made.items():
                estimates = estimates_of(params, warm_variant(params, batch), batch)
                found = diagnostics.gradient_statistics(estimates, reference)
                cosine = diagnostics.batch_cosine(estimates, reference, batch_size=1)
                numbers = (found.variance, found.signal_to_noise, cosine)
                for quantity, number in zip(QUANTITIES, numbers, strict=True):
                    results[quantity][stage][name] = jax.tree.map(float, number)
                    recorder.row(
                        quantity=f"(b) {quantity}, {stage}",
                        variant=name,
                        ours=float(number.value),
                        stderr=float(number.stderr),
                    )
                progress.advance(1)
    described = ", ".join(f"{stage} {value:.0f}" for stage, value in returns.items())
    recorder.note(
        f"(b) Mean returns of the policies: {described}. The reference is a mean of {config.reference} episodes."
    )
    return {"measured": results, "returns": returns}


def learning_curves(config: Config, problem: Problem, recorder: runner.Recorder) -> dict:
    """Variant → the number of episodes seen `[U]` and the mean training return `[S, U]`."""
    environment, policy, value = problem
    keys = jax.vmap(jax.random.key)(config.seed + jnp.arange(config.seeds))
    curves, chosen = {}, config.variants()
    with recorder.progress(len(chosen) * config.episodes * config.seeds, "learning", "episodes") as progress:
        for name, variant in chosen.items():
            estimator = variant.estimator(policy, value)
            size = config.batch if variant.many else 1
            build = lambda _, estimator=estimator, size=size: training.make_trainer(
                environment, policy, estimator, optax.adam(config.learning_rate), num_episodes=size
            )

            def heard(done, metrics, states, name=name, size=size):
                returns = metrics["mean_return"]
                recorder.metrics({"variant": name, "episodes": done * size, "mean_return": returns.mean(axis=1)})
                progress.advance(returns.size * size, f"{name}: {returns.mean():.0f}")

            run = training.train(
                build,
                keys,
                num_updates=config.episodes // size,
                on_chunk=heard,
                # A run of one episode cannot fill the vector units, so several runs share them.
                mapping="auto" if variant.many else "vmap",
            )
            returns = run.metrics["mean_return"]
            # Every point of a curve averages the same number of episodes, so that the curves can be compared.
            window = max(1, config.batch // size)
            usable = returns.shape[1] // window * window
            smooth = returns[:, :usable].reshape(config.seeds, -1, window).mean(axis=2)
            curves[name] = (size * window * (1 + np.arange(smooth.shape[1])), smooth)
            mean, stderr = diagnostics.mean_and_stderr(last_fifth(smooth))
            recorder.row(
                quantity="(c) return over the last fifth",
                variant=name,
                ours=float(mean),
                stderr=float(stderr),
                seconds=run.seconds + run.compile_seconds,
            )
    return curves


def run(config: Config, recorder: runner.Recorder) -> dict:
    with recorder.timed("(a) enumeration"):
        sizes = {name: (variant.estimator, 2 if variant.many else 1) for name, variant in config.variants().items()}
        variances = measure.exact_moments(sizes, recorder)
    problem = make_problem(config)
    with recorder.timed("(b) gradients on CartPole"):
        measured = measure_stages(config, problem, recorder)
    with recorder.timed("(c) learning curves"):
        curves = learning_curves(config, problem, recorder)
    recorder.note(f"B is 2 in (a) and {config.batch} in (b) and (c). The number after ± is one standard error.")
    if few := diagnostics.few_runs(config.seeds, "seeds"):
        recorder.note(few)
    results = {"exact": variances, **measured, "curves": curves, "config": config}
    answer(results, recorder)
    known = [variance for variance in variances.values() if variance is not None]
    numbers = " down to ".join(runner.format_number(value, digits=3) for value in (max(known), min(known)) if known)
    exactly = f"; on the corridor their exact variances run from {numbers}" * bool(known)
    recorder.note(f"{finding(curves)}{exactly}.")
    if len(known) < len(variances):
        recorder.note("An exact variance is missing where the estimator learns what it subtracts.")
    return results


def answer(results: dict, recorder: runner.Recorder) -> None:
    """Record a table with one line for each variant: variance, exact and on CartPole, cosine with ∇ρ, and return."""
    number, measured, stage = runner.format_number, results["measured"], STAGES[1]
    reached = results["returns"][stage]
    headers = ["estimate", "exact tr Var, corridor", f"tr Var, CartPole at return {reached:.0f}"]
    headers += ["cosine with ∇ρ there", "return over the last fifth"]
    lines = []
    for name, exact in results["exact"].items():
        variance, cosine = (measured[quantity][stage][name] for quantity in ("variance", "cosine"))
        mean, stderr = diagnostics.mean_and_stderr(last_fifth(results["curves"][name][1]))
        pairs = ((variance.value, variance.stderr), (cosine.value, cosine.stderr), (float(mean), float(stderr)))
        lines.append([name, number(exact, digits=3), *(number(*pair) for pair in pairs)])
    recorder.table("How noisy each estimate is, and what it learns", headers, lines)
