"""Ideas about decision problems and about copying an expert."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lecture.ideas import Idea
from pgjax import environments, exact, rollouts


def play_at_random() -> dict[str, Any]:
    maze = environments.make("maze")
    policy = environments.random_policy(maze)
    keys = jax.random.split(jax.random.key(0), 1000)
    episodes = rollouts.episodes(maze, policy, (), keys)
    steps = jnp.sum(episodes.alive, axis=0)
    state, obs = maze.reset(jax.random.key(1), maze.params)
    picture = maze.render(state, obs, maze.params)
    return {"steps": np.asarray(steps), "picture": picture, "horizon": maze.horizon}


def draw_maze(found: dict[str, Any]) -> Any:
    from experiments.harness import plots

    share = np.mean(found["steps"] < found["horizon"])
    made, (left, right) = plots.figure(
        f"A policy that knows nothing leaves the maze in {share:.0%} of the episodes",
        "1,000 episodes of random moves. The shortest way takes 12 steps.",
        columns=2,
    )
    left.imshow(found["picture"])
    left.set_axis_off()
    steps = np.arange(found["horizon"])
    right.plot(steps, [np.mean(found["steps"] <= step) for step in steps], color=plots.PALETTE[0], linewidth=2)
    right.set_xlabel("steps")
    right.set_ylabel("share of episodes that have left the maze")
    right.set_ylim(bottom=0)
    plots.reference_line(right, 12, "shortest way", axis="x")
    return made


MAZE = Idea(
    name="decisions",
    title="A decision problem",
    text=(
        "An agent sees X_t, chooses an action A_t, and receives a reward R_{t+1} and the next observation X_{t+1}. "
        "The policy f(x, θ) gives the probabilities of the actions. Its parameters θ are all that we can change.",
        "In this maze every step costs 1, so the best policy leaves it in the fewest steps. The program plays a "
        "thousand episodes at once: an environment is two pure functions, and the library vectorises them.",
    ),
    equation="X₁ ~ d₀,   Aₜ ~ f(Xₜ, θ),   (Xₜ₊₁, Rₜ₊₁) ~ p(Xₜ, Aₜ),   t = 1 … T",
    program=play_at_random,
    draw=draw_maze,
    finding=lambda found: (
        f"{np.mean(found['steps'] < found['horizon']):.1%} of the random walks find the exit before the time limit of "
        f"{found['horizon']} steps."
    ),
    command="python -m experiments.train --env maze",
    source="Sutton & Barto 2018, chapter 3",
)


def copy_an_expert() -> dict[str, Any]:
    horizons, error = np.array([10, 20, 50, 100, 200]), 0.005
    cloned, asked = [], []
    for horizon in horizons:
        road = exact.compounding_chain(int(horizon), recoverable=True)
        lost = jnp.array([[1 - error, error], [0.0, 1.0]])  # copied on the road, never seen off it
        mended = jnp.array([[1 - error, error], [1 - error, error]])  # the expert was asked off the road too
        expert = exact.first_action(road)
        cloned.append(float(exact.regret(road, expert, lost)))
        asked.append(float(exact.regret(road, expert, mended)))
    return {"horizons": horizons, "cloned": np.array(cloned), "asked": np.array(asked)}


def draw_copy(found: dict[str, Any]) -> Any:
    from experiments.harness import plots

    made, axes = plots.figure(
        "A copy's errors add up to T², and asking the expert makes them T",
        "Exact regret of a copy that errs in one of 200 steps on the road. Off the road it errs always, or as rarely.",
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    names = {"copied from the expert's states": "cloned", "the expert was asked at the copy's states": "asked"}
    for colour, (name, key) in zip(plots.PALETTE, names.items()):
        axes.plot(found["horizons"], found[key], "o-", color=colour, label=name)
    axes.set_xlabel("horizon T (steps)")
    axes.set_ylabel("return lost against the expert")
    axes.legend(frameon=False)
    return made


COPY = Idea(
    name="imitation",
    title="Imitation: instructive feedback",
    text=(
        "An expert tells us which action was right. That is instructive feedback, and learning from it is supervised "
        "learning: raise the probability of the expert's actions. A reward only says how good an action was, not "
        "which one would have been better; that is evaluative feedback, and the rest of the lecture is about it.",
        "A copy that errs meets states which the expert never showed. There it errs again, and the regret grows with "
        "the square of the horizon. DAgger asks the expert at the states that the copy visits.",
    ),
    equation="minimise  −Σₜ ln f(Xₜ, θ)_{A*ₜ};      regret ≤ T² ε (copied),   u T ε (asked)",
    program=copy_an_expert,
    draw=draw_copy,
    finding=lambda found: (
        f"In 200 steps the copy loses {found['cloned'][-1]:.1f}, and {found['asked'][-1]:.2f} when the expert was "
        "asked."
    ),
    command="python -m experiments.imitation   and   python -m experiments.compounding_error",
    source="Ross & Bagnell 2010; Ross, Gordon & Bagnell 2011",
)
