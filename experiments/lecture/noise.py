"""The idea that carries the laboratory: the estimate is noisy, and three cures make it quieter."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lecture.ideas import Idea
from experiments.shared.one_step import table
from pgjax import exact
from pgjax.environments.corridor import corridor_mdp


def three_cures() -> dict[str, Any]:
    corridor, policy = corridor_mdp(horizon=50, observe_state=True), table(2)
    params = 0.7 * jax.random.normal(jax.random.key(0), (4, 2))
    values = exact.state_values(corridor, exact.policy_probabilities(policy.apply, params, corridor))[:-1]
    rho = exact.objective(policy.apply, params, corridor)
    of_one_episode = {
        "G₁": exact.total_return_moments(policy.apply, params, corridor),
        "G₁ − ρ": exact.total_return_moments(policy.apply, params, corridor, baseline=rho),
        "Gₜ": exact.reward_to_go_moments(policy.apply, params, corridor),
        "Gₜ − v(Xₜ)": exact.reward_to_go_moments(policy.apply, params, corridor, baseline=values),
    }
    gradient = exact.exact_gradient(policy.apply, params, corridor)
    variances = {name: float(moments.total_variance) for name, moments in of_one_episode.items()}
    return {"variances": variances, "signal": float(jnp.sum(gradient**2))}


def draw_cures(found: dict[str, Any]) -> Any:
    from experiments.harness import plots

    made, axes = plots.figure(
        "Many episodes, reward-to-go and a predicted return each make the gradient quieter",
        "Exact variances by dynamic programming, in the corridor with 50 steps. Below the dashed line the gradient is "
        "larger than its noise.",
    )
    batches = np.array([1, 10, 100, 1000])
    axes.set_xscale("log")
    axes.set_yscale("log")
    ends = {}
    for colour, (name, variance) in zip(plots.PALETTE, found["variances"].items()):
        axes.plot(batches, variance / batches, "o-", color=colour)
        ends[name] = (1000, variance / 1000, colour)
    plots.reference_line(axes, found["signal"], "squared length of the gradient")
    axes.set_xlabel("episodes B of one estimate")
    axes.set_ylabel("variance of the estimate")
    plots.label_ends(axes, ends)
    return made


CURES = Idea(
    name="variance",
    title="Why its variance is high, and three cures",
    text=(
        "The return of an episode sums up the luck of all its steps, and REINFORCE holds every action responsible for "
        "all of it. Nothing is wrong on average, but one episode says very little.",
        "Three cures leave the mean where it is. Many episodes: their mean is quieter. Reward-to-go: an action is not "
        "responsible for what came before it. A predicted return v(X_t): an action is judged by how much better it "
        "went than expected in its state.",
    ),
    equation="Var(mean of B episodes) = Var / B;      G₁ → Gₜ → Gₜ − v(Xₜ)",
    program=three_cures,
    draw=draw_cures,
    finding=lambda found: (
        "Variance of one episode: "
        + ", ".join(f"{name} {variance:.3g}" for name, variance in found["variances"].items())
        + f". The squared length of the gradient is {found['signal']:.3g}."
    ),
    command="python -m experiments.variance_reduction",
    source="Greensmith, Bartlett & Baxter 2004; Sutton et al. 2000",
)
