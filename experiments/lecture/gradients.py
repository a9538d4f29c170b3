"""Ideas about the objective, its gradient, and the algorithm that follows it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lecture.ideas import Idea
from experiments.shared.one_step import table
from pgjax import baselines, estimators, evaluation, exact, training
from pgjax.environments.corridor import BEST_PROBABILITY, BEST_VALUE, corridor_mdp, corridor_value, make_corridor

REWARD_PER_STEP = "expected return ρ (one step costs 1)"


def objective_of_a_policy() -> dict[str, Any]:
    corridor, policy = make_corridor(), table(2)
    chances = np.array([0.2, 0.4, 0.6, 0.8])  # of going right
    means, lows, highs = [], [], []
    for seed, chance in enumerate(chances):
        params = jnp.array([[jnp.log(1 - chance), jnp.log(chance)]])
        found = evaluation.evaluate(corridor, policy, params, jax.random.key(seed), num_episodes=400)
        means.append(found.mean)
        lows.append(found.low)
        highs.append(found.high)
    exactly = corridor_value(chances)
    return {"chances": chances, "means": means, "lows": lows, "highs": highs, "exact": np.asarray(exactly)}


def draw_objective(found: dict[str, Any]) -> Any:
    from experiments.harness import plots

    made, axes = plots.figure(
        "The objective is an average over episodes, and here its best policy is a random one",
        "Points: means of 400 episodes with 95 % t intervals. Line: the exact value. The states look alike.",
    )
    chances = np.linspace(0.1, 0.9, 200)
    axes.plot(chances, corridor_value(chances), color=plots.GREY, label="exact")
    below, above = np.subtract(found["means"], found["lows"]), np.subtract(found["highs"], found["means"])
    axes.errorbar(
        found["chances"], found["means"], (below, above), fmt="o", color=plots.PALETTE[0], capsize=4, label="sampled"
    )
    plots.reference_line(axes, BEST_PROBABILITY, "best policy", axis="x")
    axes.set_xlabel("probability of going right")
    axes.set_ylabel(REWARD_PER_STEP)
    axes.legend(frameon=False)
    return made


OBJECTIVE = Idea(
    name="objective",
    title="The objective",
    text=(
        "What we want is a large return: the sum of the rewards of an episode, on average over the episodes that the "
        "policy θ produces. This average is the objective ρ(θ).",
        "In the short corridor all states look alike and one of them swaps left and right. The best policy goes right "
        "with probability 2 − √2 and draws lots for it.",
    ),
    equation="ρ(θ) = E_θ[ Σₜ Rₜ₊₁ ] = Σ_τ P(τ; θ) G(τ)",
    program=objective_of_a_policy,
    draw=draw_objective,
    finding=lambda found: (
        f"Sampled {', '.join(f'{x:.1f}' for x in found['means'])}; exactly "
        f"{', '.join(f'{x:.1f}' for x in found['exact'])}. The best possible value is {BEST_VALUE:.2f}."
    ),
    command="python -m experiments.short_corridor",
    source="Sutton & Barto 2018, example 13.1",
)


def three_forms() -> dict[str, Any]:
    corridor, policy = corridor_mdp(horizon=6, observe_state=True), table(2)
    params = jnp.array([[0.0, -1.0], [-0.5, 0.5], [0.0, 0.5], [0.0, 0.0]])
    every = exact.enumerate_trajectories(corridor)
    chances = exact.trajectory_probabilities(policy, params, every)
    rho = exact.objective(policy.apply, params, corridor)
    values = exact.state_values(corridor, exact.policy_probabilities(policy.apply, params, corridor))[0]
    total, to_go = estimators.total_return(), estimators.reward_to_go()
    forms = {
        "G₁": estimators.make_estimator(policy, returns=total),
        "G₁ − ρ": estimators.make_estimator(policy, returns=total, baseline=baselines.constant(rho)),
        "Gₜ − v(Xₜ)": estimators.make_estimator(
            policy, returns=to_go, baseline=baselines.state_values(lambda obs: obs @ values)
        ),
    }
    found = {}
    for name, estimator in forms.items():
        estimate = lambda batch, estimator=estimator: estimator.gradient(params, (), batch)[0]
        found[name] = exact.estimator_moments(estimate, every, chances, num_episodes=1)
    return {"gradient": exact.exact_gradient(policy.apply, params, corridor), "forms": found}


def draw_forms(found: dict[str, Any]) -> Any:
    from experiments.harness import plots

    made, axes = plots.figure(
        "Three forms of the gradient have one mean and different noise",
        "All trajectories of the corridor with six steps, enumerated. Bars: one standard deviation of one episode.",
    )
    for place, moments in enumerate(found["forms"].values()):
        mean, deviation = float(moments.mean[0, 1]), float(moments.variance[0, 1]) ** 0.5
        axes.errorbar(place, mean, deviation, fmt="o", markersize=8, capsize=6, color=plots.PALETTE[place])
        axes.annotate(f"{mean:.4f} ± {deviation:.2f}", (place, mean), (10, 12), va="center", **plots.SMALL_TEXT)
    plots.reference_line(axes, float(found["gradient"][0, 1]), "exact gradient")
    axes.set_xticks(range(3), list(found["forms"]))
    axes.set_xlim(-0.4, 2.8)
    axes.set_xlabel("what multiplies ∇ ln f")
    axes.set_ylabel("∂ρ / ∂θ of “right”")
    return made


FORMS = Idea(
    name="gradient",
    title="Three forms of the gradient",
    text=(
        "The gradient of an average over trajectories is again an average: of the return times the score, which is "
        "the gradient of the log-probability of the actions. This is the policy-gradient theorem.",
        "A number that does not depend on the action may be subtracted from the return, and rewards that came before "
        "an action may be left out. Neither changes the mean. Both change the noise.",
    ),
    equation=(
        "∇ρ(θ) = E[ G₁ Σₜ ∇ ln f(Xₜ, θ)_{Aₜ} ]\n"
        "      = E[ (G₁ − ρ) Σₜ ∇ ln f(Xₜ, θ)_{Aₜ} ]\n"
        "      = E[ Σₜ (Gₜ − v(Xₜ)) ∇ ln f(Xₜ, θ)_{Aₜ} ]"
    ),
    program=three_forms,
    draw=draw_forms,
    finding=lambda found: (
        f"The exact derivative is {float(found['gradient'][0, 1]):.4f}. The three means are "
        + ", ".join(f"{float(m.mean[0, 1]):.4f}" for m in found["forms"].values())
        + ", and the variances of one episode are "
        + ", ".join(f"{float(m.total_variance):.2f}" for m in found["forms"].values())
        + "."
    ),
    command="python -m experiments.gradient_lab",
    source="Williams 1992; Sutton et al. 2000",
)


def without_p() -> dict[str, Any]:
    policy, params = table(2), jnp.array([[0.0], [1.0], [-0.5]]) * jnp.array([[1.0, -1.0]])
    problem = exact.random_mdp(jax.random.key(0), 3, 2, 2, horizon=3)
    every = exact.enumerate_trajectories(problem)
    # With p: differentiate ln P(τ; θ), in which p stands.
    log_p = lambda params: jnp.log(exact.trajectory_probabilities(policy, params, every))
    with_p = jax.jacobian(log_p)(params)
    # Without p: the sum of the scores of the actions that were taken.
    steps = every.trajectories
    log_f = lambda params: jnp.take_along_axis(jax.nn.log_softmax(steps.obs @ params), steps.actions[..., None], -1)
    scores = jax.jacobian(lambda params: jnp.sum(jnp.where(steps.alive[..., None], log_f(params), 0.0), (0, 2)))
    return {"with": np.ravel(with_p), "without": np.ravel(scores(params))}


def draw_without_p(found: dict[str, Any]) -> Any:
    from experiments.harness import plots

    made, axes = plots.figure(
        "The score of a trajectory does not contain the environment",
        "Every coordinate of every trajectory of a random problem of three states and three steps.",
        height=4.0,
    )
    axes.plot(found["with"], found["without"], ".", color=plots.PALETTE[0], markersize=4)
    ends = [found["with"].min(), found["with"].max()]
    axes.plot(ends, ends, color=plots.GREY, linewidth=1)
    axes.set_xlabel("∇ ln P(τ; θ), from the probabilities of whole trajectories")
    axes.set_ylabel("Σₜ ∇ ln f(Xₜ, θ)_{Aₜ}")
    return made


WITHOUT_P = Idea(
    name="without_p",
    title="The probabilities p of the environment are not needed",
    text=(
        "The probability of a trajectory is a product in which p stands, but p does not depend on θ. The logarithm "
        "makes the product a sum, and the gradient of the terms with p is zero. So the gradient can be estimated in "
        "an environment that nobody can write down: it is enough to act in it.",
    ),
    equation="∇ ln P(τ; θ) = ∇ [ ln d₀(X₁) + Σₜ ln f(Xₜ, θ)_{Aₜ} + Σₜ ln p(…) ] = Σₜ ∇ ln f(Xₜ, θ)_{Aₜ}",
    program=without_p,
    draw=draw_without_p,
    finding=lambda found: (
        f"Over {len(found['with']):,} numbers the two differ by {np.abs(found['with'] - found['without']).max():.0e} "
        "at most, which is rounding."
    ),
    command="python -m experiments.gradient_lab --problem random",
    source="Williams 1992",
)


def reinforce_as_written() -> dict[str, Any]:
    corridor = make_corridor()
    timid = jnp.array([[1.5, -1.5]])  # goes right with probability 0.05
    policy = table(2)._replace(init=lambda key, obs: timid)

    def run(key: jax.Array) -> jax.Array:
        _, metrics = training.reinforce(corridor, policy, key, learning_rate=5e-4, decay=0.9, max_iters=1000)
        return metrics["mean_return"]

    returns = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 20))
    return {"returns": np.asarray(returns)}


def draw_reinforce(found: dict[str, Any]) -> Any:
    from experiments.harness import plots

    made, axes = plots.figure(
        "REINFORCE learns the corridor from one episode at a time",
        f"20 runs, means over 25 episodes each; {plots.bands(20)}.",
    )
    means = found["returns"].reshape(20, -1, 25).mean(axis=2)
    plots.learning_curves(axes, 25 * (1 + np.arange(means.shape[1])), {"REINFORCE": means}, named=False)
    plots.reference_line(axes, BEST_VALUE, "best policy")
    axes.set_xlabel("episodes")
    axes.set_ylabel("return")
    return made


REINFORCE = Idea(
    name="reinforce",
    title="REINFORCE as it is written",
    text=(
        "Play an episode. Raise the log-probability of every action that was taken, in proportion to how much better "
        "than usual the return was. “Usual” is a moving average of the returns so far. Only then let the average see "
        "the new return: an average that has seen the return which it judges would bias the gradient.",
    ),
    equation="θ ← θ + η (G₁ − ρ̂) Σₜ ∇ ln f(Xₜ, θ)_{Aₜ},   and then   ρ̂ ← β ρ̂ + (1 − β) G₁",
    program=reinforce_as_written,
    draw=draw_reinforce,
    finding=lambda found: (
        f"The mean return of the first 50 episodes is {found['returns'][:, :50].mean():.1f}, of the last 50 "
        f"{found['returns'][:, -50:].mean():.1f}; the best policy reaches {BEST_VALUE:.2f}."
    ),
    command="python -m experiments.short_corridor",
    source="Williams 1992",
)
