"""Does every component of an action deserve a baseline of its own? Exact variances for actions of many bits.

Claim    The D independent components of an action share one return. A baseline that depends on the state keeps the
         noise that the other components add to the return. A baseline for each component, which may depend on the
         choices of the others, removes this noise and makes nothing biased.
Source   Wu et al. 2018 (action-dependent factorised baselines); Foerster et al. 2018 (counterfactual baselines).
Command  python -m experiments.action_components
Shows    tr Var of three estimates for D = 1 to 8 bits, by enumeration of all 2^D actions: nothing subtracted, the value
         of the state, and the counterfactual baseline of every bit. The payoff is the number of bits that are on, plus
         `--interaction` for every pair of neighbours that are both on.
Expect   Without interaction and at θ = 0 the baseline of the state leaves a variance of exactly D (D − 1) / 16, and a
         baseline for every bit leaves none. At a random θ the first variance grows as D², the second as D. A few
         seconds on two CPU cores.
Departs  The payoff of every action is known, so that no critic has to be learned.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import runner, verdicts
from experiments.shared.one_step import one_step_batch
from pgjax import baselines, estimators, exact
from pgjax.distributions import bernoulli
from pgjax.types import Estimator, Policy

NOTHING, STATE, COMPONENT = "nothing subtracted", "value of the state", "a baseline for every bit"
NAMES = (NOTHING, STATE, COMPONENT)
# f(θ): the bits are independent, θ_i is the logit of bit i, and there is one state, X = 1.
POLICY = Policy(init=lambda key, obs: jnp.zeros(1), apply=lambda params, obs: params * obs, distribution=bernoulli)


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of this experiment."""

    most: int = 8
    """The largest number of bits D. All 2^D actions are enumerated."""
    interaction: float = 0.5
    """The additional reward for every pair of neighbouring bits that are both on."""
    spread: float = 1.0
    """The standard deviation of the logits θ of the random policy."""
    seed: int = 0
    """The seed of the random policy."""

    def validate(self) -> None:
        runner.require(2 <= self.most <= 12, "--most", self.most, "in [2, 12]")
        runner.require(abs(self.interaction) <= 100, "--interaction", self.interaction, "in [−100, 100]")
        runner.require(0 <= self.spread <= 5, "--spread", self.spread, "in [0, 5]")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


TINY = Config(most=3)


def payoff(actions: jax.Array, interaction: float) -> jax.Array:
    """Σ_i a_i + interaction · Σ_i a_i a_{i+1} of bits `[..., D]`: `[...]`."""
    bits = jnp.asarray(actions, float)
    return bits.sum(-1) + interaction * (bits[..., 1:] * bits[..., :-1]).sum(-1)


def three_estimators(q: Callable[[jax.Array], jax.Array], value: jax.Array) -> dict[str, Estimator]:
    """The estimators that are compared, for a payoff q(a) `[D] → scalar` whose mean is `value`."""
    alone = estimators.each_component(bernoulli)
    of_bits = estimators.counterfactual(alone, lambda obs, action: q(action))
    return {
        NOTHING: estimators.make_estimator(POLICY),
        STATE: estimators.make_estimator(POLICY, baseline=baselines.constant(value)),
        COMPONENT: estimators.factorised(POLICY, alone, of_bits),
    }


def variances(params: jax.Array, interaction: float) -> dict[str, float]:
    """Estimator → the exact tr Var of its estimate from one episode, at logits `params [D]`, in float64.

    Raises:
        RuntimeError: the mean of an estimate is not the exact gradient.
    """
    with jax.enable_x64(True):
        theta = jnp.asarray(params, float)
        actions = jnp.asarray(list(np.ndindex(*[2] * len(theta))), jnp.int32)
        chance = lambda theta: jnp.exp(jax.vmap(lambda action: bernoulli.log_prob(theta, action))(actions))
        q = lambda action: payoff(action, interaction)
        objective = lambda theta: chance(theta) @ q(actions)
        gradient, probabilities, batch = jax.grad(objective)(theta), chance(theta), one_step_batch(actions, q(actions))
        found = {}
        for name, estimator in three_estimators(q, objective(theta)).items():
            state = estimator.init(jax.random.key(0), batch)
            moments = exact.moments_of(jax.jit(estimator.episode_gradients)(theta, state, batch), probabilities)
            if not np.allclose(moments.mean, gradient, atol=1e-9):
                raise RuntimeError(f"{name}: the mean {moments.mean} is not the gradient {gradient}")
            found[name] = float(moments.total_variance)
    return found


def run(config: Config, recorder: runner.Recorder) -> dict:
    sizes = np.arange(1, config.most + 1)
    logits = config.spread * np.random.default_rng(config.seed).normal(size=config.most)
    found = {name: [] for name in NAMES}
    with recorder.progress(len(sizes), "numbers of bits", "sizes") as progress:
        for size in sizes:
            for name, value in variances(logits[:size], config.interaction).items():
                found[name].append(value)
                recorder.row(quantity=f"tr Var, random policy, D = {size}", variant=name, ours=value)
            progress.advance()
    plain = variances(np.zeros(config.most), 0.0)
    predicted = {STATE: config.most * (config.most - 1) / 16, COMPONENT: 0.0}
    for name, exactly in predicted.items():
        recorder.row(
            quantity=f"tr Var at θ = 0 without interaction, D = {config.most}",
            variant=name,
            ours=plain[name],
            exact=exactly,
            verdict=verdicts.against_exact(plain[name], 0.0, exactly, tolerance=1e-9),
        )
    return {"sizes": sizes, "variances": found, "config": config}


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    sizes, found = results["sizes"], results["variances"]
    left, of_all = found[COMPONENT][-1], found[STATE][-1]
    share = f"1/{of_all / left:.3g}" if left > 1e-9 * of_all else "nothing"
    figure, axes = plots.figure(
        f"With {sizes[-1]} bits, a baseline for every bit leaves {share} of the variance",
        "Exact variances by enumeration of all actions, one episode, a random policy. The mean is the same for all.",
    )
    ends = {}
    for name, colour in plots.colours(NAMES).items():
        axes.plot(sizes, found[name], "o-", color=colour, linewidth=2, label=name)
        ends[name] = (sizes[-1], found[name][-1], colour)
    axes.set(yscale="log", xlabel="components D of an action (bits)", ylabel="tr Var of one episode's gradient")
    plots.label_ends(axes, ends)
    recorder.figure(figure, "action_components")


if __name__ == "__main__":
    runner.main(__file__, __doc__, Config, run, plot, tiny=TINY)
