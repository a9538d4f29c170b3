"""The idea of lost diversity: the exact entropy of the answers while a small language model learns from a reward."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lecture.ideas import Idea
from pgjax import automata, baselines, estimators, exact, rewards, training
from pgjax.environments.text import make_text


def lose_diversity() -> dict[str, Any]:
    score = automata.pattern([0, 1], vocabulary=4)  # one point for each "ab" in six letters a, b, c, d
    letters = exact.MarkovModel(start=0, next=np.zeros((1, 4), int), log_probs=jnp.log(jnp.full((1, 4), 0.25)))
    task = exact.make_markov_task(letters, score, max_new_tokens=6)
    text = make_text([[0]], score=score, max_new_tokens=6, vocabulary=4)
    policy = exact.table_policy(task, over_time=True)
    rloo = estimators.make_estimator(policy, returns=estimators.total_return(), baseline=baselines.leave_one_out())
    betas = jnp.array([0.0, 0.2, 0.5])

    def run(beta):
        penalty = rewards.kl_penalty(policy, beta)
        trainer = training.make_trainer(text, policy, rloo, optax.adam(0.1), num_episodes=128, rewards=penalty)

        def update(state, _):
            values = exact.table_policy_values(task, jax.nn.log_softmax(state.params))
            return trainer.update(state)[0], (values.entropy, values.expected_reward)

        return jax.lax.scan(update, trainer.init(jax.random.key(0)), length=201)[1]

    entropy, points = jax.jit(jax.vmap(run))(betas)
    best = [float(exact.soft_optimum(task, beta).entropy) for beta in betas[1:]]
    return {"betas": np.asarray(betas), "entropy": np.asarray(entropy), "points": np.asarray(points), "best": best}


def draw_diversity(found: dict[str, Any]) -> Any:
    from experiments.harness import plots

    made, (left, right) = plots.figure(
        "Answers that are left after training, as e to the entropy: "
        + ", ".join(f"{np.exp(c[-1]):.0f} with β = {beta:g}" for beta, c in zip(found["betas"], found["entropy"])),
        "Exact over all 4,096 answers, while RLOO trains with 128 answers an update and k1 in the reward; one seed. "
        "Dashed: the entropy of the best policy for each β > 0, and of the reference.",
        columns=2,
        width=11.0,
    )
    updates = np.arange(found["entropy"].shape[1])
    for axes, key in ((left, "entropy"), (right, "points")):
        ends = {}
        for colour, beta, curve in zip(plots.PALETTE, found["betas"], found[key]):
            axes.plot(updates, curve, color=colour, linewidth=2, label=f"β = {beta:g}")
            ends[f"β = {beta:g}"] = (updates[-1], curve[-1], colour)
        axes.margins(x=0)
        plots.label_ends(axes, ends)
        axes.set_xlabel("updates")
        axes.set_ylim(bottom=0)
    plots.reference_line(left, float(found["entropy"][0, 0]), "reference")
    for colour, value in zip(plots.PALETTE[1:], found["best"]):
        left.axhline(value, color=colour, linewidth=1, linestyle="--")
    left.set_ylabel("entropy of the answers (nats)")
    right.set_ylabel("mean score (number of “ab”)")
    return made


DIVERSITY = Idea(
    name="diversity",
    title="Loss of diversity",
    text=(
        "A policy that only maximises a score ends with the one answer that scores best, and its entropy falls to 0. "
        "The KL penalty pays for entropy: with β > 0 training ends near the best policy for this β, which still gives "
        "many different answers.",
    ),
    equation="H(π) = −Σ_y π(y) ln π(y);      from a uniform reference   KL(π ‖ π_ref) = ln(number of answers) − H(π)",
    program=lose_diversity,
    draw=draw_diversity,
    finding=lambda found: (
        f"The entropy falls from {found['entropy'][0, 0]:.2f} nats to "
        + ", ".join(f"{curve[-1]:.2f} (β = {beta:g})" for beta, curve in zip(found["betas"], found["entropy"]))
        + f". These are {', '.join(f'{np.exp(curve[-1]):.0f}' for curve in found['entropy'])} equally likely answers."
    ),
    command="python -m experiments.kl_placement   and   python -m experiments.overoptimization",
    source="Ziegler et al. 2019; Kirk et al. 2024",
)
