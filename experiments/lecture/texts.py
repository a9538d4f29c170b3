"""Ideas about text: a score at its end, a person's preferences, and what learning from them does."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lecture.ideas import Idea
from pgjax import baselines, estimators, networks, preferences, training
from pgjax.environments.reverse import make_reverse


def score_a_text() -> dict[str, Any]:
    task = make_reverse(3)
    policy = networks.make_policy(task, network="transformer", hidden=(32, 32))
    estimator = estimators.make_estimator(
        policy, returns=estimators.total_return(), baseline=baselines.leave_one_out("live", 4)
    )
    trainer = training.make_trainer(task, policy, estimator, optax.adam(2e-3), num_episodes=256, group_size=4)
    update = lambda state, _: trainer.update(state)
    _, metrics = jax.jit(lambda key: jax.lax.scan(update, trainer.init(key), length=60))(jax.random.key(0))
    return {"right": np.asarray(metrics["mean_return"])}


def draw_score(found: dict[str, Any]) -> Any:
    from experiments.harness import plots

    made, axes = plots.figure(
        "A transformer learns to write strings backwards from one reward at the end",
        "One run of 256 answers an update, four to each prompt. The reward is 1 for a right answer and else 0.",
    )
    axes.plot(1 + np.arange(len(found["right"])), found["right"], color=plots.PALETTE[0], linewidth=2)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("updates")
    axes.set_ylabel("share of right answers")
    return made


SCORE = Idea(
    name="text",
    title="Scoring text",
    text=(
        "Writing is a decision problem: the observation is the text so far, the action is the next token, and the "
        "reward comes with the last one. Nobody tells the model which token was wrong. Several answers to one prompt "
        "are compared with each other, so that an easy prompt does not look like a good answer.",
    ),
    equation="Aₜ ~ f(prompt, A₁ … Aₜ₋₁; θ),   R = score(prompt, answer) at the end",
    program=score_a_text,
    draw=draw_score,
    finding=lambda found: f"The share of right answers rises from {found['right'][0]:.2f} to {found['right'][-1]:.2f}.",
    command="python -m experiments.memory   and   python -m experiments.train --env reverse",
    source="Kool et al. 2019; Ahmadian et al. 2024",
)


def learn_from_preferences() -> dict[str, Any]:
    truth = jnp.array([1.5, 1.0, 0.5, 0.0, -0.5, -2.5])  # the score of six answers, unknown to the learner
    pair_key, choice_key, fit_key = jax.random.split(jax.random.key(0), 3)
    one, two = jax.random.randint(pair_key, (2, 500), 0, 6)
    person = preferences.Annotator()  # prefers the better answer with probability σ(difference)
    choices = preferences.annotators.compare(choice_key, person, jnp.stack([truth[one], truth[two]], axis=-1))
    answers = jnp.eye(6)  # each answer has a feature of its own, so its weight is its score
    labels = preferences.Comparisons(answers[one], answers[two], choices, margins=jnp.zeros(500))
    model = preferences.reward_models.linear()
    fitted = preferences.fit(fit_key, model, labels, optax.adam(0.05), num_epochs=500, batch_size=500)
    scores = fitted.params - fitted.params.mean() + truth.mean()
    return {"truth": np.asarray(truth), "scores": np.asarray(scores)}


def draw_preferences(found: dict[str, Any]) -> Any:
    from experiments.harness import plots

    made, axes = plots.figure(
        "Comparisons alone bring back the scores, up to a constant",
        "Six answers, 500 comparisons of two by a person who prefers the better one with probability σ(difference).",
        height=4.0,
    )
    ends = [found["truth"].min() - 0.3, found["truth"].max() + 0.3]
    axes.plot(ends, ends, color=plots.GREY, linewidth=1)
    axes.plot(found["truth"], found["scores"], "o", color=plots.PALETTE[2], markersize=8)
    axes.set_xlabel("true score of the answer")
    axes.set_ylabel("score learned from comparisons")
    return made


PREFERENCES = Idea(
    name="preferences",
    title="Preferences",
    text=(
        "A person cannot say how many points a text deserves, but can say which of two is better. The Bradley–Terry "
        "model turns scores into the probability of such a choice, and maximum likelihood turns choices into scores. "
        "Only differences of scores matter, so a constant stays open.",
    ),
    equation="P(y₁ preferred to y₂) = σ(r(y₁) − r(y₂));      minimise  −Σ ln σ(r(y_w) − r(y_l))",
    program=learn_from_preferences,
    draw=draw_preferences,
    finding=lambda found: (
        f"The largest error of a learned score is {np.abs(found['truth'] - found['scores']).max():.2f}."
    ),
    command="python -m experiments.preferences collect",
    source="Bradley & Terry 1952; Christiano et al. 2017",
)


def follow_a_reward_model() -> dict[str, Any]:
    key_true, key_error = jax.random.split(jax.random.key(1))
    gold = jax.random.normal(key_true, (1000,))  # what people want, of 1000 answers
    error = jax.random.t(key_error, 3.0, (1000,))  # a few answers are overrated by far
    proxy = gold + error
    found = []
    for strength in jnp.linspace(0.0, 4.0, 41):  # 1 / β
        tilted = jax.nn.softmax(strength * proxy)  # the policy that maximises E[r] − β KL
        kl = jnp.sum(tilted * jnp.log(jnp.maximum(1000 * tilted, 1e-30)))
        found.append([kl, tilted @ proxy, tilted @ gold, jnp.exp(jnp.log(1000.0) - kl)])
    kl, proxies, golds, answers = np.array(found).T
    return {"kl": kl, "proxy": proxies, "gold": golds, "answers": answers}


def draw_rlhf(found: dict[str, Any]) -> Any:
    from experiments.harness import plots

    made, (left, right) = plots.figure(
        "Optimising a learned reward for too long loses what it was meant for, and diversity with it",
        "Exact: 1,000 answers, the best policy for each strength 1/β of optimisation. No sampling.",
        columns=2,
        width=9.0,
    )
    left.plot(found["kl"], found["proxy"], color=plots.PALETTE[1], label="reward model")
    left.plot(found["kl"], found["gold"], color=plots.PALETTE[2], label="what people want")
    left.set_xlabel("KL from the reference model (nats)")
    left.set_ylabel("mean score")
    left.legend(frameon=False)
    right.plot(found["kl"], found["answers"], color=plots.PALETTE[0])
    right.set_yscale("log")
    right.set_xlabel("KL from the reference model (nats)")
    right.set_ylabel("effective number of different answers")
    return made


RLHF = Idea(
    name="rlhf",
    title="Learning from preferences: RLHF",
    text=(
        "A language model is trained to please a reward model that was fitted to preferences. The reward model is "
        "wrong somewhere, and optimisation finds these places. A penalty on the distance from the reference model, "
        "the KL divergence, keeps the policy where the reward model can be trusted.",
        "The best policy for a given β is known in closed form. The figure follows it from β = ∞ to β = 1/4.",
    ),
    equation="maximise  E_π[r(x, y)] − β KL(π ‖ π_ref)   ⇒   π(y | x) ∝ π_ref(y | x) exp(r(x, y) / β)",
    program=follow_a_reward_model,
    draw=draw_rlhf,
    finding=lambda found: (
        f"What people want is best served at a KL of {found['kl'][found['gold'].argmax()]:.2f} nats, with a mean score "
        f"of {found['gold'].max():.2f}; at {found['kl'][-1]:.2f} nats it is {found['gold'][-1]:.2f}, although the "
        f"reward model says {found['proxy'][-1]:.2f}."
    ),
    command="python -m experiments.overoptimization   and   python -m experiments.rlhf",
    source="Ziegler et al. 2019; Gao, Schulman & Hilton 2023",
)
