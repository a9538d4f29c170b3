"""Compounding error: why a copy's small error costs T², when asking the expert mends it, and when nothing does.

Claim    A copy that errs with probability ε on the expert's states may lose ε T² / 2, because its errors lead to states
         where the expert never was. DAgger asks the expert in the states that the learner visits, and loses at most u ε
         T, where u is the cost of one error. This is linear in T only if the expert can recover from the error.
Source   Ross & Bagnell 2010 (T² ε); Ross, Gordon & Bagnell 2011 (DAgger, u T ε); Rajaraman et al. 2020 (S H² / N);
         Laskey et al. 2017 (DART).
Command  python -m experiments.compounding_error
Shows    (a) A chain on which one error lasts or can be mended: exact regret against the horizon. (b) The reset cliff:
         exact regret of copies of N episodes, over many data sets, against the horizon and N; the copies are cloning,
         DAgger, DART and cloning with one table shared over time (Foster et al. 2024). (c) A maze with slip: exact
         regret of cloning, DAgger and DART against the number of episodes, and the errors on and off the expert's way.
         (d) The same against the noise of the expert. Every regret comes from a dynamic program, whose zero is exact;
         only means over data sets are estimated.
Expect   (a) The slope in ln T is 2, and 1 for DAgger where errors can be mended. (b) The slopes are near 2 in H and
         near −1 in N. DAgger does not help, because its learner cannot get back either. DART has by far the most
         regret, because its injected noise throws the expert itself over the cliff. One table for all times leaves no
         regret. (c) All errors are off the expert's way. Cloning and DAgger are alike, because the slips of the floor
         lead the expert off its way too; DART is better, because its injected noise does so more often. (d) For the
         same reason cloning and DART copy a noisy expert better, since its likeliest answer is right; DAgger does not.
         One minute on two CPU cores.
Departs  Tables stand in place of networks: the copy takes, in each state, the frequencies of the expert's actions
         there.
"""

import dataclasses

import jax
import numpy as np

from experiments.compounding_error import cliff
from experiments.compounding_error import slippery_maze as maze
from experiments.compounding_error.targets import (
    CHAIN,
    ERROR,
    INJECTED,
    ON_CLIFF,
    ONE_TABLE,
    PAPER,
    left_out,
    measured,
    slope,
)
from experiments.harness import runner, verdicts
from experiments.harness import targets as papers
from pgjax import exact

PARTS = ("chain", "cliff", "maze")


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of this experiment. The results page shows the default sizes."""

    parts: tuple[str, ...] = PARTS
    """Which parts are run: chain is (a), cliff is (b), maze is (c) and (d)."""
    copies: tuple[str, ...] = ON_CLIFF
    """Which algorithms copy the expert on the cliff; cloning, DAgger and DART also copy in the maze."""
    error: float = ERROR
    """The probability ε in (a) that the copy errs in a state that it has seen."""
    lengths: tuple[int, ...] = (10, 20, 50, 100, 200)
    """The horizons T of (a), in steps."""
    data_sets: int = 200
    """How many data sets (b) has; (c) and (d) have a quarter of them."""
    sizes: tuple[int, ...] = (50, 100, 200, 400)
    """The numbers N of demonstrations in (b). The curves against the horizon use the second one."""
    horizons: tuple[int, ...] = (8, 16, 32, 64)
    """The horizons H of (b), in steps."""
    episodes: tuple[int, ...] = (2, 4, 8, 16, 32)
    """The numbers of episodes in (c) that the expert labels."""
    slip: float = 0.1
    """The probability that the floor of the maze chooses the move."""
    noise: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4)
    """The probabilities in (d) that the expert acts and answers at random."""
    injected: float = INJECTED
    """The probability that DART's acting expert draws its action at random from all actions."""
    seed: int = 0
    """The seed of every random number in this experiment."""

    def validate(self) -> None:
        for name, allowed in (("parts", PARTS), ("copies", ON_CLIFF)):
            chosen = getattr(self, name)
            known = "cloning" in chosen or name == "parts"
            each_once = chosen and set(chosen) <= set(allowed) and len(set(chosen)) == len(chosen) and known
            words = f"some of {'; '.join(allowed)}, each once{', cloning among them' * (name == 'copies')}"
            runner.require(each_once, f"--{name}", " ".join(chosen), words)
        runner.require(0 < self.error < 1, "--error", self.error, "in (0, 1)")
        runner.require(self.data_sets >= 8, "--data-sets", self.data_sets, "at least 8")
        for name in ("lengths", "sizes", "horizons", "episodes"):
            values = getattr(self, name)
            increasing = len(values) >= 2 and list(values) == sorted(set(values)) and values[0] >= 1
            shown = " ".join(map(str, values))
            runner.require(increasing, f"--{name}", shown, "at least two numbers, increasing, at least 1")
        runner.require(self.sizes[0] >= 4, "--sizes", self.sizes[0], "at least 4 (the cliff has 5 good states)")
        words = f"a multiple of {cliff.ROUNDS} in second place, where DAgger learns in {cliff.ROUNDS} rounds"
        runner.require(self.sizes[1] % cliff.ROUNDS == 0, "--sizes", " ".join(map(str, self.sizes)), words)
        divided = all(n % self.episodes[0] == 0 for n in self.episodes)
        runner.require(divided, "--episodes", " ".join(map(str, self.episodes)), "multiples of the first")
        runner.require(0 <= self.slip < 1, "--slip", self.slip, "in [0, 1)")
        runner.require(all(0 <= p <= 1 for p in self.noise) and self.noise, "--noise", self.noise, "in [0, 1]")
        runner.require(0 <= self.injected <= 1, "--injected", self.injected, "in [0, 1]")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


TINY = Config(
    copies=("cloning", ONE_TABLE, "DAgger"),
    lengths=(10, 20),
    data_sets=64,
    sizes=(4, 8),
    horizons=(8, 16),
    episodes=(1, 2),
    noise=(0.5,),
)


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
            if horizon == config.lengths[-1]:
                cost, predicted = float(exact.recovery_cost(mdp, expert)), 1.0 if recoverable else float(horizon)
                recorder.row(
                    quantity=f"(a) u, the cost of one error, T = {horizon}",
                    variant=kind,
                    ours=cost,
                    exact=predicted,
                    verdict=verdicts.against_exact(cost, 0.0, predicted, tolerance=1e-9 * horizon),
                )
        for name, values in regrets.items():
            curves[f"{name}, {kind}"] = np.array(values)
            linear = recoverable and name == "DAgger"
            shown = linear if name == "DAgger" else not recoverable
            for horizon, value in zip(config.lengths, values, strict=True):
                if shown and horizon in CHAIN and config.error == ERROR:
                    continue  # a target's
                predicted = config.error * horizon if linear else float(exact.compounding_cost(config.error, horizon))
                recorder.row(
                    quantity=f"(a) regret, ε = {config.error:g}, T = {horizon}",
                    variant=f"{name}, {kind}",
                    ours=value,
                    exact=predicted,
                    verdict=verdicts.against_exact(value, 0.0, predicted, tolerance=1e-9 * horizon),
                )
            if not (linear and config.error == ERROR):
                recorder.row(
                    quantity="(a) slope of ln regret in ln T, between the first two horizons",
                    variant=f"{name}, {kind}",
                    ours=slope(config.lengths[:2], values[:2]),
                )
    return curves


def run(config: Config, recorder: runner.Recorder) -> dict:
    names = {"chain": "(a) the chain", "cliff": "(b) the cliff", "maze": "(c), (d) the maze"}
    functions = {"chain": chain, "cliff": cliff.measure, "maze": maze.measure}
    found = {}
    with jax.enable_x64(True):
        for part in config.parts:
            with recorder.timed(names[part]):
                found[part] = functions[part](config, recorder)
        papers.check(recorder, PAPER, measured(config, found), left_out=left_out(config.parts))
    recorder.note(
        "Every regret is exact; ± is the standard error over data sets. For cloning in (b) the exact mean is given."
    )
    if "maze" in found:
        recorder.note("In (c) and (d) a copy takes its likeliest action, and acts at random where it has seen none.")
        recorder.note("In (d) a noisy expert shows more of the maze, and its likeliest answer is still right.")
    return {"config": config, **found}


def plot(results: dict, recorder: runner.Recorder) -> None:
    config = results["config"]
    if "chain" in results:
        plot_chain(config, results["chain"], recorder)
    if "cliff" in results:
        cliff.plot(config, results["cliff"], recorder)
    if "maze" in results:
        maze.plot(config, results["maze"], recorder)


def plot_chain(config: Config, chain: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    last = ("cloning, an error lasts", "DAgger, errors can be mended")
    loses, mended = (runner.format_number(float(chain[name][-1]), digits=3) for name in last)
    title = (
        f"At T = {config.lengths[-1]} a copy loses {loses}; asking the expert saves "
        f"all but {mended} where errors can be mended, and saves nothing where they last"
    )
    figure, (left, right) = plots.figure(
        title, f"All regrets are exact, ε = {config.error}. Dashed: ε T² / 2 and ε T.", columns=2, width=13, height=4.8
    )
    colour_of = plots.colours(maze.ALGORITHMS)
    horizons = np.array(config.lengths)
    for axes, kind in ((left, "an error lasts"), (right, "errors can be mended")):
        axes.set(xscale="log", yscale="log", xlabel="T, steps of an episode", ylabel="regret (cost)")
        axes.set_title(kind, loc="left", fontsize=10)
        middle = (len(horizons) - 1) // 2
        known_costs = {"ε T² / 2": config.error * horizons**2 / 2, "ε T": config.error * horizons}
        for (name, known), place in zip(known_costs.items(), ((8, -14), (2, 6)), strict=True):
            axes.plot(horizons, known, "--", color=plots.GREY, linewidth=1)
            style = plots.SMALL_TEXT | {"color": plots.GREY}
            axes.annotate(name, (horizons[middle], known[middle]), place, **style)
        curves = {name: chain[f"{name}, {kind}"][None] for name in ("cloning", "DAgger")}
        plots.learning_curves(axes, horizons, curves, colour_of=colour_of)
        axes.set_xticks(config.lengths, list(map(str, config.lengths)))
        axes.minorticks_off()
    recorder.figure(figure, "chain")
