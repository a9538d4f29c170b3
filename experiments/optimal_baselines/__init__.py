"""Weaver & Tao 2001, Greensmith et al. 2004, Peters & Schaal 2008: which baseline makes the gradient least noisy?

Claim    A return that multiplies a long score counts for more. The constant baseline of least variance is therefore b*
         = E[‖S‖² G] / E[‖S‖²], and with one number per parameter b*_i = E[S_i² G] / E[S_i²], where S is the score.
         Neither the average reward nor the true value function is the best baseline, but b* tends to the average reward
         as the horizon grows or the discount tends to 1.
Source   Weaver & Tao 2001 (The optimal reward baseline for gradient-based reinforcement learning); Greensmith, Bartlett
         & Baxter 2004 (Variance reduction techniques for gradient estimates in reinforcement learning); Peters & Schaal
         2008 (Reinforcement learning of motor skills with policy gradients).
Command  python -m experiments.optimal_baselines
Shows    Exact variances as functions of the baseline, on a three-state problem, the three-armed bandit of Chung et al.
         2021, and random problems, for three estimates. In the trajectory sense, (G_1 − b) S with S = Σ_t ψ_t, b is a
         constant or one number per parameter. In the step sense, Σ_t ψ_t (G_t − b), b is a constant or depends on the
         time, on the state or on both. The third estimate is one step taken alone. Each formula is compared with the
         lowest point of the parabola through exact variances. Then follow the baselines of pgjax that learn b* from
         samples.
Expect   Formula and lowest point agree to rounding. Var(b*_i) ≤ Var(b*) ≤ Var(E G) always holds. Var(E G) ≤ Var(0) does
         not: on one random problem in six, E G is worse than no baseline. b* per step tends to the average reward; the
         distance falls as 1/T. A quarter of a minute on two CPU cores.
Departs  The three-state problem is written from memory, in the style of Baxter, Bartlett & Weaver 2001, and is
         episodic. Its numbers are exact for the problem that `problems.three_states` describes; they are not published
         numbers.
"""

import dataclasses

import jax
import numpy as np

from experiments.harness import runner
from experiments.harness import targets as papers
from experiments.optimal_baselines import problems
from pgjax import diagnostics

HORIZON = 10
FORMULA = "largest distance of the formula from the lowest exact variance"
THREE, ARMS, RANDOM = "three states", "three arms", "random problems"


def _targets() -> tuple[papers.Target, ...]:
    above = lambda key, quantity, variant, source, bound=0.0, **rest: papers.Target(
        key, quantity, papers.Above(bound), variant=variant, provenance=source, **rest
    )
    # The distance is of first order in 1/T and 1 − γ; the next order is 1/16 of it at T = 16 and 1/5 at γ = .8.
    nearer = lambda key, quantity, ratio, delta: papers.Target(
        key, quantity, papers.Near(delta), published=ratio, provenance="own", variant=THREE
    )
    ours = {"variant": f"{ARMS}, θ = (0, 3, 5)", "provenance": "own"}
    return (
        papers.Target("b*", "b* = E[‖S‖² G] / E[‖S‖²]", papers.Digits(), "0.632", headline="b*, three arms", **ours),
        papers.Target("value", "E G", papers.Digits(), published="0.089", **ours),
        above("bandit", "Var(E G) / Var(b*)", ARMS, None, 1.0),
        *(
            papers.Target(f"formula {name}", f"{FORMULA}: {name}", papers.Digits(), variant=THREE, exact=0.0)
            for name in problems.ARGMINS
        ),
        papers.Target(
            "optimum",
            "optimal average reward",
            papers.Digits(),
            published=".8",
            provenance="mem",
            variant=THREE,
            exact=0.8,
        ),
        above("parameter", "Var(b*) − Var(b*_i)", THREE, None),
        above("constant", "Var(b = E G) − Var(b*)", THREE, None),
        above("average", "Var(b = T · average reward) − Var(b*)", THREE, "text"),
        above("critic", "Var(b = V_t(s)) − Var(b*_t(s)), step sense", THREE, "text", headline="Var(V_t) − Var(b*_t)"),
        above("parameter, random", "Var(b*) / Var(b*_i), least", RANDOM, None, 1.0),
        above("constant, random", "Var(b = E G) / Var(b*), least", RANDOM, None, 1.0),
        above("critic, random", "Var(b = V_t(s)) / Var(b*_t(s)), step sense, least", RANDOM, "text", 1.0),
        above("worse", "Var(b = E G) / Var(0), greatest", RANDOM, None, 1.0),
        above("worse critic", "Var(b = V_t(s)) / Var(0), step sense, greatest", RANDOM, None, 1.0),
        nearer("horizon", "distance of b* / T from the average reward, at T = 16 over at 1024", "64", 6.4),
        nearer("discount", "distance of b* per reward from the average, at γ = .8 over at .99", "20", 2.0),
        *(
            papers.Target(f"learned {name}", f"{name}, learned", papers.Within(4.5), variant=THREE)
            for name in ("b*", "b*_i, worst", "b*(s), worst")
        ),
    )


PAPER = papers.Paper(
    citation="Weaver & Tao 2001; Greensmith, Bartlett & Baxter 2004; Peters & Schaal 2008",
    claim="The baseline of least variance weighs returns by the squared length of the score; it is not the value.",
    targets=_targets(),
    pitfalls=(
        "The norm in b* is that of the score which multiplies the return: the score of the whole episode for G_1, and "
        "the score of one step for ψ_t G_t of one step. The best b of the sum over steps is a third number.",
        "The optimal baseline that learns with `reward_to_go` is the best one of one step taken alone.",
    ),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of this experiment. The results page shows the default sizes."""

    problems: int = 200
    """On how many random problems the order of the variances is checked."""
    lengths: tuple[int, ...] = (4, 16, 64, 256, 1024)
    """The horizons T, in steps, at which b* / T is computed: increasing, with 16 among them and 1024 at the end."""
    runs: int = 16
    """How many independent runs learn the baselines from samples."""
    batch: int = 256
    """How many episodes each update of these runs has."""
    updates: int = 40
    """How many updates each of these runs has; the policy stays fixed."""
    seed: int = 0
    """The seed of the random problems and of the samples."""

    def validate(self) -> None:
        runner.require(self.problems >= 64, "--problems", self.problems, "at least 64 (for a share)")
        increasing = list(self.lengths) == sorted(set(self.lengths)) and self.lengths[:1] > (0,)
        fits = increasing and 16 in self.lengths and self.lengths[-1] == 1024
        shown = " ".join(map(str, self.lengths))
        runner.require(fits, "--lengths", shown, "increasing, with 16 among them and 1024 at the end")
        runner.require(self.runs >= 8, "--runs", self.runs, "at least 8 (for a standard error)")
        runner.require(self.batch >= 2, "--batch", self.batch, "at least 2")
        runner.require(self.updates >= 1, "--updates", self.updates, "at least 1")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


TINY = Config(problems=64, lengths=(16, 1024), runs=8, batch=64, updates=10)


def measure_exactly(config: Config, recorder: runner.Recorder) -> dict:
    """Compute everything that is not sampled, as NumPy arrays; the random problems have a leading axis."""
    with recorder.timed("horizons and discounts"):
        limits = problems.towards_the_average(config.lengths)
    with recorder.timed("formulas and lowest variances"):
        three = jax.jit(problems.examine)(problems.three_states(HORIZON), limits["average"])
        arms = jax.jit(problems.total_comparison)(problems.three_arms())
    with recorder.timed("random problems"):
        keys = jax.random.split(jax.random.key(config.seed), config.problems)
        look = lambda key: problems.comparison(problems.random_case(key))
        many = jax.jit(lambda keys: jax.lax.map(look, keys))(keys)
    return jax.tree.map(np.asarray, {THREE: three, ARMS: arms, RANDOM: many, "limits": limits})


def exact_measurements(config: Config, found: dict) -> dict[str, papers.Measured]:
    three, arms, many = (found[name]["variances"] for name in (THREE, ARMS, RANDOM))
    distance = {name: np.abs(found["limits"][name] / found["limits"]["average"] - 1) for name in ("step", "reward")}
    pairs = found[THREE]["pairs"]
    numbers = {
        "b*": found[ARMS]["baselines"]["b*"][0, 0],
        "value": found[ARMS]["baselines"]["E G"][0, 0],
        "bandit": arms["E G"] / arms["b*"],
        **{f"formula {name}": np.abs(formula - low).max() for name, (formula, low) in pairs.items()},
        "optimum": found[THREE]["optimum"],
        "parameter": three["b*"] - three["b*_i"],
        "constant": three["E G"] - three["b*"],
        "average": three["T · average"] - three["b*"],
        "critic": three["V_t(s)"] - three["b*_t(s)"],
        "parameter, random": (many["b*"] / many["b*_i"]).min(),
        "constant, random": (many["E G"] / many["b*"]).min(),
        "critic, random": (many["V_t(s)"] / many["b*_t(s)"]).min(),
        "worse": (many["E G"] / many["0"]).max(),
        "worse critic": (many["V_t(s)"] / many["step 0"]).max(),
        "horizon": distance["step"][config.lengths.index(16)] / distance["step"][-1],
        "discount": distance["reward"][problems.DISCOUNTS.index(0.8)] / distance["reward"][-1],
    }
    return {name: papers.Measured(float(number)) for name, number in numbers.items()}


def sampled_measurements(config: Config, found: dict) -> dict[str, papers.Measured]:
    """Return the learned baselines beside the formulas, the worst entry of each."""
    three, case = found[THREE], problems.three_states(HORIZON)
    key, sizes = jax.random.key(config.seed + 1), {"runs": config.runs, "updates": config.updates}
    learned = problems.learn(key, case, batch=config.batch, **sizes)
    known = {
        "b*": three["baselines"]["b*"][0, 0],
        "b*_i, worst": three["baselines"]["b*_i"],
        "b*(s), worst": three["one step, of the state"],
    }
    measured = {}
    for name, runs in learned.items():
        value, stderr = (np.ravel(x) for x in diagnostics.mean_and_stderr(runs))
        truth = np.ravel(known[name])
        worst = np.argmax(np.abs(value - truth) / stderr)
        measured[f"learned {name}"] = papers.Measured(float(value[worst]), float(stderr[worst]), float(truth[worst]))
    return measured


def record(config: Config, found: dict, recorder: runner.Recorder) -> None:
    """Record how often the value is worse than no baseline, and the problem on which it is worst."""
    many = found[RANDOM]["variances"]
    for value, nothing in (("E G", "0"), ("V_t(s)", "step 0")):
        mean, stderr = diagnostics.mean_and_stderr((many[value] > many[nothing]).astype(float))
        quantity = f"share of problems with Var({value}) > Var(0)"
        recorder.row(quantity=quantity, variant=RANDOM, ours=float(mean), stderr=float(stderr))
    worst = int(np.argmax(many["E G"] / many["0"]))
    one_of_many = jax.tree.map(lambda x: x[worst], found[RANDOM])
    for variant, case in ((THREE, found[THREE]), (ARMS, found[ARMS]), (f"random problem {worst}", one_of_many)):
        for name in ("E G", "b*"):
            recorder.row(quantity=name, variant=variant, ours=float(case["baselines"][name][0, 0]))
        for name in ("0", "E G", "b*", "b*_i"):
            recorder.row(quantity=f"Var({name})", variant=variant, ours=float(case["variances"][name]))
    limits = found["limits"]
    for name, at in (("step", config.lengths), ("reward", problems.DISCOUNTS)):
        for x, value in zip(at, limits[name], strict=True):
            recorder.metrics({"horizon_or_discount": x, f"b* per {name}": value, "average_reward": limits["average"]})
    recorder.write("random_problems.npz", many)
    kinds = ("formula", "lowest")
    pairs = {f"{name}, {kind}": b for name, pair in found[THREE]["pairs"].items() for kind, b in zip(kinds, pair)}
    recorder.write("formulas_and_lowest.npz", pairs)


def run(config: Config, recorder: runner.Recorder) -> dict:
    with jax.enable_x64(True):
        found = measure_exactly(config, recorder)
        measured = exact_measurements(config, found)
    with recorder.timed("learned baselines"):
        measured |= sampled_measurements(config, found)
    papers.check(recorder, PAPER, measured)
    record(config, found, recorder)
    return {"config": config, "found": found}


def _plot_bandit(plots, axes, arms: dict) -> None:
    """Draw the parabola of the exact variance, and on it no baseline, E G and b*."""
    mean, best = (float(arms["baselines"][name][0, 0]) for name in ("E G", "b*"))
    variances = arms["variances"]
    curvature = (variances["0"] - variances["b*"]) / best**2
    b = np.linspace(-0.1, 1.3, 200)
    axes.plot(b, variances["b*"] + curvature * (b - best) ** 2, color=plots.PALETTE[0], linewidth=2)
    for name, at, key, place in (
        ("no baseline", 0.0, "0", (8, 4)),
        (f"E G = {mean:.3f}", mean, "E G", (8, 4)),
        (f"b* = {best:.3f}", best, "b*", (0, 12)),
    ):
        below = name.startswith("b*")
        axes.plot(at, variances[key], "o", color=plots.INK, zorder=3)
        number = runner.format_number(variances[key], digits=3)
        text = f"{name}:\n{number}" if below else f"{name}: {number}"
        style = plots.SMALL_TEXT | {"ha": "center" if below else "left"}
        axes.annotate(text, (at, variances[key]), place, **style)
    axes.set(xlabel="b (reward)", ylabel="tr Var of the gradient estimate", ylim=(-0.002, None))


def _plot_random(plots, axes, many: dict) -> None:
    """Draw the variances of the random problems over those without a baseline, each curve sorted by itself."""
    keys = {"b = E G": "E G", "b*, one number": "b*", "b*, one per parameter": "b*_i"}
    ends = {}
    for (name, key), colour in zip(keys.items(), plots.colours(keys).values(), strict=True):
        ratios = np.sort(many[key] / many["0"])
        ranks = np.arange(1, len(ratios) + 1) / len(ratios) * 100
        axes.plot(ranks, ratios, color=colour, linewidth=2)
        if key == "E G":
            axes.fill_between(ranks, 1, ratios, where=ratios > 1, color=colour, alpha=0.2)
        ends[name] = (100, ratios[-1], colour)
    axes.set(xlabel="random problems, sorted (%)", ylabel="tr Var / tr Var without a baseline", xlim=(0, 100))
    plots.reference_line(axes, 1.0, "no baseline")
    plots.label_ends(axes, ends)


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    config, found = results["config"], results["found"]
    arms, many, limits = found[ARMS]["variances"], found[RANDOM]["variances"], found["limits"]
    left_by = lambda name: f"{100 * arms[name] / arms['0']:.2g} %"
    share = 100 * np.mean(many["E G"] > many["0"])
    where = f"{share:.2g} % of the random problems" if share else "none of the random problems"
    figure, panels = plots.figure(
        f"The mean return E G is not the best baseline: on a bandit it leaves {left_by('E G')} of the variance, b* "
        f"leaves {left_by('b*')}; on {where} E G is worse than no baseline",
        "Everything is exact. Left: the three-armed bandit of Chung et al. at θ = (0, 3, 5). Middle: "
        f"{config.problems} random problems (5 states, 2 actions, T = 6), each curve sorted by itself"
        f"{'; shaded: E G is worse than no baseline' * bool(share)}. Right: the three-state problem, in which b* is "
        "divided by the number of rewards, or by their discounted number.",
        columns=3,
        width=15,
        height=4.8,
    )
    titles = "a bandit", "random problems", "b* and the average reward"
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, loc="left", fontsize=10)
    _plot_bandit(plots, panels[0], found[ARMS])
    _plot_random(plots, panels[1], many)

    right = panels[2]
    lines = {
        "T steps, G₁": (config.lengths, limits["step"]),
        "discount γ": ([1 / (1 - gamma) for gamma in problems.DISCOUNTS], limits["reward"]),
    }
    right.set(xscale="log", xlabel="T, or 1 / (1 − γ) (steps)", ylabel="b* per reward / average reward")
    # Not the colours of the middle panel: on a paper its names stand in one legend for all panels.
    for (name, (x, y)), colour in zip(lines.items(), plots.PALETTE[3:]):
        right.plot(x, y / limits["average"], "o-", color=colour, label=name)
    plots.reference_line(right, 1.0, "average reward")
    right.legend(frameon=False)
    recorder.figure(figure, "optimal_baselines")
