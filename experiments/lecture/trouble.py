"""Ideas about what goes wrong: steps that are too large, and places where the gradient is flat."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lecture.ideas import Idea

REWARDS = "rewards 1, 0.7 and 0"


def too_large_steps() -> dict[str, Any]:
    rewards, rates = jnp.array([1.0, 0.7, 0.0]), 2.0 ** jnp.arange(-4, 9)

    def run(key: jax.Array, rate: jax.Array) -> jax.Array:
        def update(theta: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
            action = jax.random.categorical(key, theta)
            score = jax.nn.one_hot(action, 3) - jax.nn.softmax(theta)
            return theta + rate * rewards[action] * score, None

        theta, _ = jax.lax.scan(update, jnp.zeros(3), jax.random.split(key, 1000))
        return jax.nn.softmax(theta)[0]

    keys = jax.random.split(jax.random.key(0), 200)
    best = jax.jit(jax.vmap(jax.vmap(run, (0, None)), (None, 0)))(keys, rates)
    return {"rates": np.asarray(rates), "stuck": np.asarray(jnp.mean(best < 0.5, axis=1)), "runs": 200}


def draw_large_steps(found: dict[str, Any]) -> Any:
    from experiments.harness import plots

    made, axes = plots.figure(
        "Too large a step makes the policy sure of something wrong",
        f"Share of 200 runs that prefer a wrong arm after 1,000 updates, ± one standard error; {REWARDS}.",
    )
    share = found["stuck"]
    guess = (share * found["runs"] + 1) / (found["runs"] + 2)
    axes.errorbar(
        found["rates"], share, np.sqrt(guess * (1 - guess) / found["runs"]), fmt="o-", color=plots.PALETTE[1], capsize=4
    )
    axes.set_xscale("log", base=2)
    axes.set_ylim(0, 1)
    axes.set_xlabel("learning rate η")
    axes.set_ylabel("share of runs that got stuck")
    return made


LARGE_STEPS = Idea(
    name="step_size",
    title="Steps that are too large",
    text=(
        "The data come from the policy itself. One step that is too large can make an action almost certain. From "
        "then on the others are hardly ever tried, so nothing corrects the mistake: the policy has committed itself.",
    ),
    equation="θ ← θ + η R ∇ ln f(θ)_A,   η too large",
    program=too_large_steps,
    draw=draw_large_steps,
    finding=lambda found: (
        f"With η = {found['rates'][0]:g} a share of {found['stuck'][0]:.2f} of the runs ends at a wrong arm, with "
        f"η = {found['rates'][-1]:g} a share of {found['stuck'][-1]:.2f}."
    ),
    command="python -m experiments.step_size",
    source="Chung, Thomas, Machado & Le Roux 2021",
)


def flat_places() -> dict[str, Any]:
    rewards = jnp.array([1.0, 0.0])
    objective = lambda theta: jax.nn.softmax(jnp.array([theta, 0.0])) @ rewards
    starts = jnp.array([0.0, -2.0, -4.0, -6.0])  # θ of the better arm

    def climb(theta: jax.Array) -> jax.Array:
        def update(theta: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            return theta + jax.grad(objective)(theta), objective(theta)

        return jax.lax.scan(update, theta, length=1000)[1]

    return {"starts": np.asarray(jax.nn.sigmoid(starts)), "curves": np.asarray(jax.jit(jax.vmap(climb))(starts))}


def draw_flat(found: dict[str, Any]) -> Any:
    from experiments.harness import plots

    made, axes = plots.figure(
        "Where the good action is improbable, the gradient is flat",
        "Exact gradient ascent with η = 1, two arms with rewards 1 and 0; no sampling.",
    )
    for colour, start, curve in zip(plots.PALETTE, found["starts"], found["curves"]):
        axes.plot(1 + np.arange(len(curve)), curve, color=colour, linewidth=2, label=f"starts at {start:.3f}")
    axes.set_xscale("log")
    axes.set_xlabel("updates")
    axes.set_ylabel("probability of the better arm")
    axes.legend(frameon=False)
    return made


def first_above_half(curve: np.ndarray) -> int:
    """The first update after which the better arm is the likelier one."""
    return int(np.argmax(curve > 0.5)) if np.any(curve > 0.5) else len(curve)


FLAT = Idea(
    name="flat",
    title="Flat places",
    text=(
        "The gradient of a softmax policy contains the probability of the action that should be taken. Where this "
        "probability is small, so is the gradient, although there is much to gain: learning seems to stand still. "
        "A sparse reward does the same to a policy that never meets it.",
    ),
    equation="∂ρ / ∂θ_a = f(θ)_a (r_a − ρ(θ))",
    program=flat_places,
    draw=draw_flat,
    finding=lambda found: (
        "Updates until the better arm is the likelier one: "
        + ", ".join(
            f"{first_above_half(curve)} from {start:.3f}" for start, curve in zip(found["starts"], found["curves"])
        )
        + "."
    ),
    command="python -m experiments.rates_and_plateaus",
    source="Mei, Xiao, Szepesvári & Schuurmans 2020",
)
