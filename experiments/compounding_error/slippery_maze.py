"""The maze of `compounding_error`: cloning, DAgger and DART on a floor that slips; every regret is exact."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from experiments.harness import runner
from experiments.shared import ranges
from pgjax import diagnostics, exact
from pgjax.environments.maze import maze_mdp
from pgjax.exact import TabularMDP

ALGORITHMS = ("cloning", "DAgger", "DART")
ON_THE_WAY = "errors per step of the copy, on the expert's way"
OFF_THE_WAY = "errors per step of the copy, off the expert's way"
STEPS_OFF = "share of the copy's steps off the expert's way"


def random_at_times(policy: jax.Array, probability: ArrayLike) -> jax.Array:
    """Return (1 − p) π(a|s) + p / A, `[S, A]`: with probability p the action is drawn from all A actions."""
    return (1.0 - probability) * policy + probability / policy.shape[-1]


def labellers(config: Any, mdp: TabularMDP) -> dict[str, Callable]:
    """Return name → `(key, expert, n) → π [S, A]`, the copy of `expert` after n episodes."""
    first = config.episodes[0]

    def cloning(key, expert, n):
        return exact.cloned_probabilities(exact.label_counts(key, mdp, expert, expert, n), pooled=True)

    def dart(key, expert, n):
        noisy = random_at_times(expert, config.injected)
        return exact.cloned_probabilities(exact.label_counts(key, mdp, noisy, expert, n), pooled=True)

    def dagger(key, expert, n):
        def one_round(counts, row):
            key, is_first = row
            # The copy acts by its likeliest action, as it does when it is judged.
            acting = jnp.where(is_first, expert, best(exact.cloned_probabilities(counts, pooled=True)))
            return counts + exact.label_counts(key, mdp, acting, expert, first), None

        rounds = n // first
        counts = jnp.zeros((mdp.horizon, mdp.num_states, mdp.num_actions))
        rows = (jax.random.split(key, rounds), jnp.arange(rounds) == 0)
        return exact.cloned_probabilities(jax.lax.scan(one_round, counts, rows)[0], pooled=True)

    return {"cloning": cloning, "DAgger": dagger, "DART": dart}


def best(policy: jax.Array) -> jax.Array:
    """Return the policy of the likeliest action of each state; it is uniform where nothing was seen."""
    top = policy == jnp.max(policy, axis=-1, keepdims=True)
    return top / jnp.sum(top, axis=-1, keepdims=True)


def measure(config: Any, recorder: runner.Recorder) -> dict:
    """(c), (d) Return exact regrets in a maze with slip, by number of episodes and by noise of the expert."""
    mdp = maze_mdp(slip=config.slip)
    expert = exact.optimal_probabilities(mdp)
    number = max(2, config.data_sets // 4)
    keys = jax.random.split(jax.random.key(config.seed + 1), number)
    # With slip the expert visits every state at times; its way is where it goes when nothing slips.
    way = exact.expert_support(maze_mdp(slip=0.0), expert)
    methods = {name: method for name, method in labellers(config, mdp).items() if name in config.copies}

    def look(method, n: int):
        @jax.jit
        def of(keys: jax.Array, noise: jax.Array):
            asked = random_at_times(expert, noise)

            def one(key: jax.Array):
                copy = best(method(key, asked, n))
                return exact.regret(mdp, expert, copy), exact.imitation_errors(mdp, expert, copy, known=way)

            return jax.lax.map(one, keys)

        return of

    against_size, against_noise, errors = {}, {}, {}
    total = len(methods) * (len(config.episodes) + len(config.noise))
    with recorder.progress(total, "copies of the maze's expert", "settings") as progress:
        for name, method in methods.items():
            columns, split = [], []
            most = look(method, config.episodes[-1])
            for n in config.episodes:
                of = most if n == config.episodes[-1] else look(method, n)
                regret, found = of(keys, jnp.zeros(()))
                columns.append(np.asarray(regret))
                split.append(jax.tree.map(np.asarray, found))
                progress.advance(1, f"{name}, {n} episodes: regret {columns[-1].mean():.3g}")
            against_size[name], errors[name] = np.stack(columns, axis=1), split
            columns = []
            for noise in config.noise:
                columns.append(np.asarray(most(keys, jnp.asarray(noise))[0]))
                progress.advance(1, f"{name}, noise {noise}: regret {columns[-1].mean():.3g}")
            against_noise[name] = np.stack(columns, axis=1)
    _record(config, against_size, against_noise, errors, recorder)
    return {"size": against_size, "noise": against_noise, "errors": errors}


def shares(found: exact.ImitationErrors) -> dict[str, np.ndarray]:
    """Return where the copies err and where they go, `[data sets]` each."""
    return {
        ON_THE_WAY: found.known_fraction * found.known_error,
        OFF_THE_WAY: (1.0 - found.known_fraction) * found.unknown_error,
        STEPS_OFF: 1.0 - found.known_fraction,
    }


def _record(config, against_size, against_noise, errors, recorder: runner.Recorder) -> None:
    for name in against_size:
        for i, n in enumerate(config.episodes):
            for label, values in (("regret (steps)", against_size[name][:, i]), *shares(errors[name][i]).items()):
                mean, stderr = diagnostics.mean_and_stderr(values)
                quantity = f"(c) {label}, {n} episodes"
                recorder.row(quantity=quantity, variant=name, ours=float(mean), stderr=float(stderr))
        for i, noise in enumerate(config.noise):
            mean, stderr = diagnostics.mean_and_stderr(against_noise[name][:, i])
            quantity = f"(d) regret in the maze, the expert random with probability {noise:g}"
            recorder.row(quantity=quantity, variant=name, ours=float(mean), stderr=float(stderr))


def plot(config: Any, maze: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    colour_of = plots.colours(ALGORITHMS)
    last = {name: values[:, -1].mean() for name, values in maze["size"].items()}
    on_the_way = max(shares(each)[ON_THE_WAY].max() for found in maze["errors"].values() for each in found)
    title = (
        f"In a maze with slip, after {config.episodes[-1]} episodes, "
        + ", ".join(f"{name} loses {runner.format_number(value, digits=3)} steps" for name, value in last.items())
        + ("; every error is off the expert's way" if on_the_way < 1e-12 else "")
    )
    data_sets = len(maze["size"]["cloning"])
    caption = (
        f"All regrets are exact; means over {data_sets} data sets, {plots.bands(data_sets, 'data sets')}. The expert's "
        f"way is where it goes when nothing slips. Lower right: with {config.episodes[-1]} episodes."
    )
    figure, axes = plots.figure(title, caption, rows=2, columns=2, width=13, height=8)
    panels = {"regret (steps)": maze["size"]}
    for label in (OFF_THE_WAY, STEPS_OFF):
        columns = lambda found, label=label: np.stack([shares(each)[label] for each in found], axis=1)
        panels[label] = {name: columns(found) for name, found in maze["errors"].items()}
    style = {"colour_of": colour_of, "bounds": ranges.NOT_NEGATIVE}
    for ax, (label, curves) in zip(axes.flat, panels.items()):
        ax.set(xscale="log", xlabel="episodes labelled by the expert")
        ax.set_ylabel(label.replace(" of the copy, off", " of the copy,\noff").replace("steps off", "steps\noff"))
        ends = plots.learning_curves(ax, np.array(config.episodes), curves, **style, named=False)
        ax.set_ylim(bottom=0)
        plots.label_ends(ax, ends)
        ax.set_xticks(config.episodes, list(map(str, config.episodes)))
        ax.minorticks_off()
    axes[1, 1].set(xlabel="probability that the expert acts and answers at random", ylabel="regret (steps)")
    plots.learning_curves(axes[1, 1], np.array(config.noise), maze["noise"], **style)
    for name, values in maze["noise"].items():  # a line through one noise alone would not be seen
        axes[1, 1].plot(config.noise, values.mean(axis=0), "o", color=colour_of[name], label=f"_{name}, mean")
    recorder.figure(figure, "maze")
