"""Compounding error: why a small error of a copy costs T², when asking the expert mends it, and when nothing does.

Claim    A copy that errs with probability ε on the expert's states may lose ε T² / 2, because its errors lead where the
         expert never was. DAgger, which asks the expert where the learner goes, loses at most u ε T, u being the cost
         of one error: linear in T only where the expert can recover.
Source   Ross & Bagnell 2010 (T² ε); Ross, Gordon & Bagnell 2011 (DAgger, u T ε); Rajaraman et al. 2020 (S H² / N);
         Laskey et al. 2017 (DART).
Command  python -m experiments.compounding_error
Shows    (a) a chain on which one error lasts, or can be mended: exact regret against the horizon; (b) the reset cliff:
         exact regret of copies of N episodes, over many data sets, against horizon and N, and of DAgger, DART and a
         copy that shares one table over time (Foster et al. 2024); (c) a maze with slip: exact regret of cloning,
         DAgger and DART against the number of episodes, and the errors on and off the expert's way; (d) the same
         against the noise of the expert. Nothing is estimated but the mean over data sets: every regret is a dynamic
         program, with a true zero.
Expect   (a) slopes 2 and, for DAgger where errors can be mended, 1; (b) slopes near 2 in H and −1 in N, no help from
         DAgger, which has no way back either, and nothing left of it with one table for all times; (c) all errors off
         the expert's way, cloning and DAgger alike, because the floor's slips lead the expert there too, and DART
         ahead, whose injected noise does so more often; (d) for the same reason cloning and DART copy a noisy expert
         better, its likeliest answer being right; DAgger does not. A minute on two CPU cores.
Departs  Tables in place of networks: the copy of a state is the frequency of the expert's actions there.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _runner as runner
from pgjax import diagnostics, exact
from pgjax.environments.maze import maze_mdp
from pgjax.exact import TabularMDP

ALGORITHMS = ("cloning", "DAgger", "DART")
ONE_TABLE = "cloning, one table for all times"


@dataclasses.dataclass(frozen=True)
class Config:
    """Options; the defaults are what the README shows."""

    error: float = 0.005
    """ε of (a), the copy's error in states that it has seen."""
    lengths: tuple[int, ...] = (10, 20, 50, 100, 200)
    """Horizons of (a)."""
    data_sets: int = 200
    """Data sets of (b), and of (c) and (d) a quarter of them; all in one program."""
    sizes: tuple[int, ...] = (50, 100, 200, 400)
    """Numbers of demonstrations of (b)."""
    horizons: tuple[int, ...] = (8, 16, 32, 64)
    """Horizons of (b)."""
    episodes: tuple[int, ...] = (2, 4, 8, 16, 32)
    """Numbers of episodes of (c)."""
    slip: float = 0.1
    """Probability that the maze's floor chooses the move."""
    noise: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4)
    """Probabilities in (d) that the expert acts and answers at random."""
    injected: float = 0.2
    """DART: probability that the acting expert takes a random action."""
    seed: int = 0
    """Of everything."""

    def validate(self) -> None:
        runner.require(0 < self.error < 1, "--error", self.error, "in (0, 1)")
        runner.require(self.data_sets >= 8, "--data-sets", self.data_sets, "at least 8")
        for name in ("lengths", "sizes", "horizons", "episodes"):
            values = getattr(self, name)
            increasing = len(values) >= 2 and list(values) == sorted(set(values)) and values[0] >= 1
            shown = " ".join(map(str, values))
            runner.require(increasing, f"--{name}", shown, "at least two numbers, increasing, at least 1")
        runner.require(self.sizes[0] >= 4, "--sizes", self.sizes[0], "at least 4 (the cliff has 5 good states)")
        runner.require(
            all(n % self.episodes[0] == 0 for n in self.episodes), "--episodes", self.episodes, "multiples of the first"
        )
        runner.require(0 <= self.slip < 1, "--slip", self.slip, "in [0, 1)")
        runner.require(all(0 <= p <= 1 for p in self.noise) and self.noise, "--noise", self.noise, "in [0, 1]")
        runner.require(0 <= self.injected <= 1, "--injected", self.injected, "in [0, 1]")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


TINY = Config(lengths=(10, 20), data_sets=64, sizes=(4, 8), horizons=(8, 16), episodes=(1, 2), noise=(0.5,))


def slope(x, y) -> float:
    """Of ln y against ln x, between the last two points."""
    return float(np.log(y[-1] / y[-2]) / np.log(x[-1] / x[-2]))


def chain(config: Config, recorder: runner.Recorder) -> dict[str, np.ndarray]:
    """(a) Regret against the horizon of a copy and of DAgger, where one error lasts and where it can be mended."""
    curves = {}
    for recoverable in (False, True):
        kind = "errors can be mended" if recoverable else "an error lasts"
        regrets = {"cloning": [], "DAgger": []}
        for horizon in config.lengths:
            mdp = exact.compounding_chain(horizon, recoverable=recoverable)
            expert = exact.first_action(mdp)
            learners = exact.population_dagger(mdp, expert, config.error, num_rounds=2)
            for name, learner in zip(regrets, learners, strict=True):
                regrets[name].append(float(exact.regret(mdp, expert, learner)))
        for name, values in regrets.items():
            curves[f"{name}, {kind}"] = np.array(values)
            linear = recoverable and name == "DAgger"
            for horizon, value in zip(config.lengths, values, strict=True):
                predicted = config.error * horizon if linear else float(exact.compounding_cost(config.error, horizon))
                recorder.row(
                    quantity=f"(a) regret, T = {horizon}",
                    variant=f"{name}, {kind}",
                    ours=value,
                    exact=predicted,
                    verdict=runner.verdict(value, 0.0, predicted, tolerance=1e-9 * horizon),
                )
            recorder.row(
                quantity="(a) slope of ln regret in ln T, at the left end",
                variant=f"{name}, {kind}",
                ours=float(np.log(values[1] / values[0]) / np.log(config.lengths[1] / config.lengths[0])),
            )
    return curves


def cliff(config: Config, recorder: runner.Recorder) -> dict:
    """(b) Regret on the reset cliff from N demonstrations of H steps, over many data sets, one program for each."""
    middle = config.sizes[1]
    fixed = config.horizons[len(config.horizons) // 2]
    on_cliff = ("cloning", ONE_TABLE, "DAgger", "DART")

    def regrets(name: str, size: int, horizon: int, index: int) -> np.ndarray:
        mdp = exact.reset_cliff(size, horizon)
        expert = exact.first_action(mdp)
        noisy = exact.with_errors(expert, config.injected)

        def copy(key: jax.Array) -> jax.Array:
            if name == "DAgger":
                betas = jnp.asarray([1.0, 0.0, 0.0, 0.0])
                return exact.tabular_dagger(key, mdp, expert, betas, size // 4)[-1]
            counts = exact.label_counts(key, mdp, noisy if name == "DART" else expert, expert, size)
            return exact.cloned_probabilities(counts, pooled=name == ONE_TABLE)

        of_data = jax.jit(jax.vmap(lambda key: exact.regret(mdp, expert, copy(key))))
        found = np.asarray(of_data(jax.random.split(jax.random.key(config.seed + 100 + index), config.data_sets)))
        return np.where(np.abs(found) < 1e-12 * horizon, 0.0, found)  # what is left of rounding

    def line(name: str, settings: list[tuple[int, int]], start: int) -> np.ndarray:
        found = []
        for i, (size, horizon) in enumerate(settings):
            values = regrets(name, size, horizon, start + i)
            mean, stderr = diagnostics.mean_and_stderr(values)
            known = float(exact.reset_cliff_regret(size, horizon)) if name == "cloning" else None
            recorder.row(
                quantity=f"(b) regret on the cliff, N = {size}, H = {horizon}",
                variant=name,
                ours=float(mean),
                stderr=float(stderr),
                exact=known,
                verdict=None if known is None else runner.verdict(float(mean), float(stderr), known),
            )
            found.append(values)
            progress.advance(1, f"{name}, N = {size}, H = {horizon}")
        return np.stack(found, axis=1)

    total = len(on_cliff) * len(config.horizons) + len(config.sizes)
    with recorder.progress(total, "copies on the cliff", "settings") as progress:
        against_horizon = {
            name: line(name, [(middle, horizon) for horizon in config.horizons], 0) for name in on_cliff
        }
        against_size = {"cloning": line("cloning", [(size, fixed) for size in config.sizes], 10)}
    predicted = {
        "H": np.array([float(exact.reset_cliff_regret(middle, horizon)) for horizon in config.horizons]),
        "N": np.array([float(exact.reset_cliff_regret(size, fixed)) for size in config.sizes]),
    }
    found = {"H": (config.horizons, against_horizon), "N": (config.sizes, against_size)}
    for name, (x, curves) in found.items():
        quantity = f"(b) slope of ln regret in ln {name}, at the right end"
        ours = slope(x, curves["cloning"].mean(axis=0))
        recorder.row(quantity=quantity, variant="cloning", ours=ours, exact=slope(x, predicted[name]))
    return {name: (*found[name], predicted[name]) for name in found} | {"fixed": (middle, fixed)}


def labellers(config: Config, mdp: TabularMDP) -> dict[str, Callable]:
    """name → `(key, expert, n) → π [S, A]`: the copy after n episodes of an expert that acts and answers as told."""
    first = config.episodes[0]

    def cloning(key, expert, n):
        return exact.cloned_probabilities(exact.label_counts(key, mdp, expert, expert, n), pooled=True)

    def dart(key, expert, n):
        noisy = (1.0 - config.injected) * expert + config.injected / mdp.num_actions
        return exact.cloned_probabilities(exact.label_counts(key, mdp, noisy, expert, n), pooled=True)

    def dagger(key, expert, n):
        def one_round(counts, row):
            key, is_first = row
            # The copy acts as it is judged: by its likeliest answer.
            acting = jnp.where(is_first, expert, best(exact.cloned_probabilities(counts, pooled=True)))
            return counts + exact.label_counts(key, mdp, acting, expert, first), None

        rounds = n // first
        counts = jnp.zeros((mdp.horizon, mdp.num_states, mdp.num_actions))
        rows = (jax.random.split(key, rounds), jnp.arange(rounds) == 0)
        return exact.cloned_probabilities(jax.lax.scan(one_round, counts, rows)[0], pooled=True)

    return {"cloning": cloning, "DAgger": dagger, "DART": dart}


def best(policy: jax.Array) -> jax.Array:
    """The likeliest action of each state: a copy that is sure of itself, uniform where nothing was seen."""
    top = policy == jnp.max(policy, axis=-1, keepdims=True)
    return top / jnp.sum(top, axis=-1, keepdims=True)


def maze(config: Config, recorder: runner.Recorder) -> dict:
    """(c) and (d): exact regret on a maze with slip, against the number of episodes and the noise of the labels."""
    mdp = maze_mdp(slip=config.slip)
    expert = exact.optimal_probabilities(mdp)
    number = max(2, config.data_sets // 4)
    keys = jax.random.split(jax.random.key(config.seed + 1), number)
    spread = jnp.full_like(expert, 1.0 / mdp.num_actions)
    # With slip the expert comes everywhere at times; its states are those on its way when nothing slips.
    way = exact.expert_support(maze_mdp(slip=0.0), expert)
    methods = labellers(config, mdp)

    def look(method, n: int):
        @jax.jit
        def of(keys: jax.Array, noise: jax.Array):
            asked = (1.0 - noise) * expert + noise * spread

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
            for n in config.episodes:
                regret, found = look(method, n)(keys, jnp.zeros(()))
                columns.append(np.asarray(regret))
                split.append(jax.tree.map(np.asarray, found))
                progress.advance(1, f"{name}, {n} episodes: regret {columns[-1].mean():.3g}")
            against_size[name], errors[name] = np.stack(columns, axis=1), split
            most = look(method, config.episodes[-1])
            columns = []
            for noise in config.noise:
                columns.append(np.asarray(most(keys, jnp.asarray(noise))[0]))
                progress.advance(1, f"{name}, noise {noise}: regret {columns[-1].mean():.3g}")
            against_noise[name] = np.stack(columns, axis=1)
    _record_maze(config, against_size, against_noise, errors, recorder)
    return {"size": against_size, "noise": against_noise, "errors": errors}


ON_THE_WAY = "errors per step of the copy, on the expert's way"
OFF_THE_WAY = "errors per step of the copy, off the expert's way"
STEPS_OFF = "share of the copy's steps off the expert's way"


def _shares(found: exact.ImitationErrors) -> dict[str, np.ndarray]:
    """Where the copies err and where they go, `[data sets]` each."""
    return {
        ON_THE_WAY: found.known_fraction * found.known_error,
        OFF_THE_WAY: (1.0 - found.known_fraction) * found.unknown_error,
        STEPS_OFF: 1.0 - found.known_fraction,
    }


def _record_maze(config, against_size, against_noise, errors, recorder: runner.Recorder) -> None:
    for name in against_size:
        for i, n in enumerate(config.episodes):
            for label, values in (("regret (steps)", against_size[name][:, i]), *_shares(errors[name][i]).items()):
                mean, stderr = diagnostics.mean_and_stderr(values)
                quantity = f"(c) {label}, {n} episodes"
                recorder.row(quantity=quantity, variant=name, ours=float(mean), stderr=float(stderr))
        for i, noise in enumerate(config.noise):
            mean, stderr = diagnostics.mean_and_stderr(against_noise[name][:, i])
            quantity = f"(d) regret in the maze, {noise:g} of the expert random"
            recorder.row(quantity=quantity, variant=name, ours=float(mean), stderr=float(stderr))


def run(config: Config, recorder: runner.Recorder) -> dict:
    with jax.enable_x64(True):
        with recorder.timed("(a) the chain"):
            first = chain(config, recorder)
        with recorder.timed("(b) the cliff"):
            second = cliff(config, recorder)
        with recorder.timed("(c), (d) the maze"):
            third = maze(config, recorder)
    recorder.note("Every regret is exact; ± is the standard error over data sets; (b)'s exact column is over data too.")
    recorder.note("(c), (d): copies act by their likeliest answer, at random where they have none.")
    recorder.note("(d): a noisy expert shows more of the maze, and the likeliest of its answers is still right.")
    return {"config": config, "chain": first, "cliff": second, "maze": third}


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments import _plots as plots

    config, chain, cliff, maze = (results[name] for name in ("config", "chain", "cliff", "maze"))
    longest = {name: values[-1] for name, values in chain.items()}
    title = (
        f"At T = {config.lengths[-1]} a copy loses {longest['cloning, an error lasts']:.3g}; asking the expert saves "
        f"all but {longest['DAgger, errors can be mended']:.3g} where errors can be mended, and nothing where they last"
    )
    figure, (left, right) = plots.figure(
        title, f"Exact regret, ε = {config.error}. Grey: ε T² / 2 and ε T.", columns=2, width=13, height=4.8
    )
    colour_of = plots.colours(ALGORITHMS)
    horizons = np.array(config.lengths)
    for axes, kind in ((left, "an error lasts"), (right, "errors can be mended")):
        axes.set(xscale="log", yscale="log", xlabel="T, steps of an episode", ylabel="regret (cost)")
        axes.set_title(kind, loc="left", fontsize=10)
        for reference in (config.error * horizons**2 / 2, config.error * horizons):
            axes.plot(horizons, reference, "--", color=plots.GREY, linewidth=1)
        curves = {name: chain[f"{name}, {kind}"][None] for name in ("cloning", "DAgger")}
        plots.learning_curves(axes, horizons, curves, colour_of=colour_of)
        axes.set_xticks(config.lengths, list(map(str, config.lengths)))
        axes.minorticks_off()
    recorder.figure(figure, "chain")

    slopes = {name: slope(cliff[name][0], cliff[name][1]["cloning"].mean(axis=0)) for name in ("H", "N")}
    powers = f"{slopes['H']:.2f}, as N to the power {slopes['N']:.2f}"
    title = f"On the reset cliff regret goes as H to the power {powers}"
    caption = (
        f"{config.data_sets} data sets, 95 % bootstrap bands, thin as the lines. Dashed: exact, over data too. With "
        "one table for all times a copy loses nothing, and is not drawn."
        if not cliff["H"][1][ONE_TABLE].any()
        else f"{config.data_sets} data sets, 95 % bootstrap bands. Dashed: exact, over data too."
    )
    figure, both = plots.figure(title, caption, columns=2, width=13, height=4.6)
    middle, fixed = cliff["fixed"]
    labels = {"H": f"H, steps (N = {middle})", "N": f"N, demonstrations (H = {fixed})"}
    for axes, name in zip(both, ("H", "N"), strict=True):
        x, curves, predicted = cliff[name]
        axes.set(xscale="log", yscale="log", xlabel=labels[name], ylabel="regret (reward)")
        axes.plot(x, predicted, "--", color=plots.INK, linewidth=1, zorder=3)
        lossy = {name: values for name, values in curves.items() if values.mean() > 0}
        plots.learning_curves(axes, np.array(x), lossy, colour_of=plots.colours(cliff["H"][1]))
        axes.set_xticks(x, list(map(str, x)))
        axes.minorticks_off()
    recorder.figure(figure, "cliff")

    last = {name: values[:, -1].mean() for name, values in maze["size"].items()}
    on_the_way = max(_shares(each)[ON_THE_WAY].max() for found in maze["errors"].values() for each in found)
    title = f"A maze with slip, {config.episodes[-1]} episodes: " + ", ".join(
        f"{name} loses {value:.3g} steps" for name, value in last.items()
    ) + ("; every error is off the expert's way" if on_the_way < 1e-12 else "")
    caption = (
        f"Exact, mean over {len(maze['size']['cloning'])} data sets, 95 % bootstrap bands. The expert's way: "
        f"where it goes when nothing slips. Noise: with {config.episodes[-1]} episodes."
    )
    figure, axes = plots.figure(title, caption, rows=2, columns=2, width=13, height=8)
    panels = {"regret (steps)": maze["size"]}
    for label in (OFF_THE_WAY, STEPS_OFF):
        columns = lambda found, label=label: np.stack([_shares(each)[label] for each in found], axis=1)
        panels[label] = {name: columns(found) for name, found in maze["errors"].items()}
    for ax, (label, curves) in zip(axes.flat, panels.items()):
        ax.set(xscale="log", xlabel="episodes labelled by the expert", ylabel=label)
        plots.learning_curves(ax, np.array(config.episodes), curves, colour_of=colour_of)
        ax.set_ylim(bottom=0)
        ax.set_xticks(config.episodes, list(map(str, config.episodes)))
        ax.minorticks_off()
    axes[1, 1].set(xlabel="probability that the expert acts and answers at random", ylabel="regret (steps)")
    plots.learning_curves(axes[1, 1], np.array(config.noise), maze["noise"], colour_of=colour_of)
    recorder.figure(figure, "maze")


if __name__ == "__main__":
    runner.main(__file__, __doc__, Config, run, plot)
