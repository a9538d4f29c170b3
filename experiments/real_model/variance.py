"""tr Var of the estimators on the model's own gradient, from a stream of pairs of batches.

Two batches of answers under the same θ give two independent estimates ĝ and ĝ' of each estimator. Then

    ½ ‖ĝ − ĝ'‖² has the expectation tr Var ĝ,    ⟨ĝ, ĝ'⟩ has the expectation ‖E ĝ‖²,

whatever the number of parameters. Only the two gradients of one estimator are in memory at a time. The pairs are
independent, so t intervals over pairs hold. A baseline that learns has seen the earlier pairs, and no batch of its own.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import runner, verdicts
from pgjax import diagnostics, registry, rollouts
from pgjax.diagnostics import intervals
from pgjax.types import Environment, Estimator, Policy, PyTree, Trajectory

NAMES = ("rloo", "grpo", "reinforce_moving_average", "reinforce_optimal")
PLAIN = "rloo"


class Pairs(NamedTuple):
    """Of each estimator: ½ ‖ĝ − ĝ'‖² and ⟨ĝ, ĝ'⟩ of every pair, `[N]` each, in float64."""

    variances: dict[str, np.ndarray]
    products: dict[str, np.ndarray]


def make_estimators(policy: Policy, group_size: int) -> dict[str, Estimator]:
    """The estimators of the registry, each with its own settings."""
    parts = registry.Parts(policy=policy, group_size=group_size)
    return {name: registry.make(name, parts) for name in NAMES}


def of_pair(estimator: Estimator, params: PyTree, state: PyTree, first: Trajectory, second: Trajectory):
    """½ ‖ĝ − ĝ'‖² and ⟨ĝ, ĝ'⟩ with the state from earlier pairs, and the state that the first batch has taught."""
    one, taught, _ = estimator.gradient(params, state, first)
    # The two estimates must be independent, so the second one does not use what the first batch taught.
    other, _, _ = estimator.gradient(params, state, second)
    half = 0.5 * _sum(jax.tree.map(lambda x, y: jnp.sum(jnp.square(x - y)), one, other))
    product = _sum(jax.tree.map(lambda x, y: jnp.sum(x * y), one, other))
    return half, product, taught


def _sum(tree: PyTree) -> jax.Array:
    return jnp.sum(jnp.stack(jax.tree.leaves(tree)))


def stream(
    environment: Environment,
    policy: Policy,
    params: PyTree,
    key: jax.Array,
    recorder: runner.Recorder,
    *,
    prompts: int,
    group_size: int,
    pairs: int,
    warm_up: int,
) -> Pairs:
    """Measure all estimators on the same batches; the first `warm_up` pairs teach the baselines and do not count."""
    count = prompts * group_size
    play = jax.jit(
        lambda params, key: rollouts.episodes(
            environment, policy, params, jax.random.split(key, count), group_size=group_size
        )
    )
    made = make_estimators(policy, group_size)
    programs = {
        name: jax.jit(lambda *arguments, estimator=estimator: of_pair(estimator, *arguments))
        for name, estimator in made.items()
    }
    sample = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(play, params, key))
    states = {name: estimator.init(key, sample) for name, estimator in made.items()}
    found: dict[str, list] = {name: [] for name in made}
    with recorder.progress(warm_up + pairs, "variance", "pairs of batches") as progress:
        for pair in range(warm_up + pairs):
            first, second = (play(params, jax.random.fold_in(key, 2 * pair + half)) for half in (0, 1))
            for name, program in programs.items():
                half, product, states[name] = program(params, states[name], first, second)
                if pair >= warm_up:
                    found[name].append((float(half), float(product)))
            if pair >= warm_up:
                recorder.metrics({"pair": pair - warm_up, **{name: values[-1] for name, values in found.items()}})
            progress.advance(1, f"score {float(jnp.mean(jnp.sum(first.rewards, axis=0))):.2f}")
    arrays = {name: np.array(values).T for name, values in found.items()}
    return Pairs(
        variances={name: values[0] for name, values in arrays.items()},
        products={name: values[1] for name, values in arrays.items()},
    )


def ratio(x: np.ndarray, y: np.ndarray) -> diagnostics.Estimate:
    """Σ x / Σ y of paired measurements `[N]`, with a t interval from the jackknife's error of its logarithm."""
    value = x.sum() / y.sum()
    without = (x.sum() - x) / (y.sum() - y)
    return intervals.positive_t_interval(jnp.asarray(value), jnp.asarray(without - value))


def record(found: Pairs, batch: str, recorder: runner.Recorder) -> None:
    """Rows: tr Var, its ratio to that of RLOO in pairs, and ‖E ĝ‖², with 95 % t intervals."""
    for name, values in found.variances.items():
        label = registry.find(name).label
        variance, squared = ratio(values, np.ones_like(values)), diagnostics.mean_interval(found.products[name])
        for quantity, estimate in (("tr Var", variance), ("‖E ĝ‖²", squared)):
            recorder.row(
                quantity=f"{quantity}, {batch}",
                variant=label,
                ours=float(estimate.value),
                stderr=float(estimate.stderr),
                verdict=_interval(estimate),
            )
        if name != PLAIN:
            paired = ratio(values, found.variances[PLAIN])
            recorder.row(
                quantity="tr Var / tr Var of RLOO", variant=label, ours=float(paired.value), verdict=_interval(paired)
            )
    recorder.note(
        "GRPO divides by the standard deviation of each group, so its estimate is longer than that of RLOO on average, "
        "and so is its variance; compare its tr Var together with its ‖E ĝ‖². The other three are unbiased."
    )


def _interval(estimate: diagnostics.Estimate) -> str:
    interval = runner.format_interval(float(estimate.low), float(estimate.high), digits=4)
    return verdicts.say(verdicts.Verdict.NOT_JUDGED, f"95 % t interval {interval}")
