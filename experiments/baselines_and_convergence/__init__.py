"""Beyond variance: which of two baselines of equal variance lets a policy gradient find the best of three arms?

Claim    The baseline decides whether learning converges, and its variance does not say so. Let b* be the baseline of
         least variance: b* − ½ and b* + ½ are equally noisy. The lower one pushes up what was tried and commits to a
         worse arm; the higher one pushes it down and keeps looking.
Source   Chung, Thomas, Machado & Le Roux 2021 (ICML), the bandit of the main text, and the script that they released.
Command  python -m experiments.baselines_and_convergence
Shows    (a) Exact facts: the best baselines at θ₀ = (0, 3, 5), tr Var of the gradient with five baselines, and that tr
         Var is a parabola in b. (b) Where 1000 steps of natural REINFORCE, one episode each, end from θ₀ in many runs:
         the mean ρ(θ), how many runs are nearly certain of each arm, and the entropy and the largest probability on the
         way. The figure is like the paper's: 25 runs on the simplex.
Expect   b* + ½ finds the best arm in 99 % or more of the runs. b* − ½ finds it in 53 %, or in 83 % with the corrected
         b*. A quarter of a minute on two CPU cores.
Departs  The table has two variants of b* where the paper has one. The optimal baseline of the released script weighs
         the arms by π_a ‖e_a − π‖² when it takes natural steps and by 1/π_a when it takes plain ones. Each weighting
         belongs to the other kind of step, as the same authors have it in their four rooms. The variant "as released"
         keeps the script's weights and "corrected" exchanges them; V and 0 do not depend on them. As in the script, π
         is cut to [10⁻⁸, 1 − 10⁻⁸] where it is sampled and differentiated: the gradient is taken at the logits ln π of
         the cut π, and is added to θ, which is not cut.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.baselines_and_convergence.targets import AT_START, OUTCOMES, PAPER, VARIANTS
from experiments.harness import runner
from experiments.harness import targets as papers
from experiments.shared import three_arms as arms
from pgjax import baselines, exact

__all__ = ["PAPER", "TINY", "VARIANTS", "Config", "plot", "run"]

STEP, UPDATES, SOLVED = 0.025, 1000, 0.9
FULL = {"runs": 20000}
LOOK = 200  # after this many updates a row shows the entropy and the largest probability
APPLY = arms.POLICY.apply


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of this experiment. The results page shows the default sizes."""

    runs: int = 4000
    """How many runs each baseline has. The default is the reference's number."""
    drawn: int = 25
    """How many of these runs the figure draws on the simplex. The default is the paper's number."""
    full: bool = False
    """Use 20 000 runs for each baseline. The paper itself draws 25."""
    seed: int = 0
    """The seed of every random number in this experiment."""

    def validate(self) -> None:
        runs = papers.full_size(self, FULL).runs
        runner.require(2 <= runs <= 10**6, "--runs", runs, "in [2, 10⁶]")
        runner.require(1 <= self.drawn <= runs, "--drawn", self.drawn, "at least 1 and at most --runs")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


TINY = Config(runs=300, drawn=5)


# b(θ) by name. The two b* differ only in the norm of the score that weighs the rewards.
BASELINES: dict[str, Callable[[arms.Bandit, jax.Array], jax.Array]] = {
    "released": functools.partial(arms.least_variance, arms.reinforce),
    "corrected": functools.partial(arms.least_variance, arms.natural_reinforce),
    "value": lambda bandit, logits: bandit.value(logits),
    "zero": lambda bandit, logits: jnp.zeros((), logits.dtype),
}
GRID = np.linspace(-1.0, 2.0, 7)  # values of b at which the parabola is checked
THETAS = (arms.START, ((0.0, 0.0, 0.0),), ((1.0, -0.5, 0.3),))  # θ₀, the uniform policy, and another one


def total_variances(make: Callable, bandit: arms.Bandit, theta: jax.Array, values: jax.Array) -> jax.Array:
    """Return tr Var of the estimator `make(b)` of one episode, for every b in `values [K]`, by enumeration."""
    probabilities = bandit.probabilities(theta)

    def one(b: jax.Array) -> jax.Array:
        each = make(baselines.constant(b)).episode_gradients(theta, (), bandit.episodes.trajectories)
        return exact.moments_of(each, probabilities).total_variance

    return jax.vmap(one)(values)


def look(bandit: arms.Bandit, theta: jax.Array) -> dict[str, jax.Array]:
    """Return exact facts at θ, by the estimators and, under "oracle …", by dynamic programs."""
    ours = {name: value(bandit, theta) for name, value in BASELINES.items()}
    best, best_natural = (
        exact.optimal_constant_baseline(APPLY, theta, bandit.mdp, norm=norm) for norm in ("vanilla", "natural")
    )
    chosen = jnp.stack([ours["zero"], ours["value"], best, best - 0.5, best + 0.5, *GRID])
    found = total_variances(arms.reinforce, bandit, theta, chosen)
    oracle = lambda b: exact.total_return_moments(APPLY, theta, bandit.mdp, baseline=b).total_variance
    length = exact.return_score_moments(APPLY, theta, bandit.mdp).squares[0].sum()
    pairs = jnp.stack([b + sign * 0.5 for b in (best_natural, ours["released"]) for sign in (-1, 1)])
    return ours | {
        "policy": exact.policy_probabilities(APPLY, theta, bandit.mdp)[0],
        "oracle released": best,
        "oracle corrected": best_natural,
        "oracle value": exact.objective(APPLY, theta, bandit.mdp),
        "variances": found,
        "oracle variances": jax.vmap(oracle)(chosen),
        "off the parabola": found - found[2] - (chosen - best) ** 2 * length,
        "natural variances": total_variances(arms.natural_reinforce, bandit, theta, pairs),
    }


def facts(bandit: arms.Bandit, recorder: runner.Recorder) -> tuple[dict[str, papers.Measured], dict]:
    """(a) Return the exact facts at θ₀, at uniform π and about the parabola, and `look` at all `THETAS`."""
    found = jax.jit(lambda thetas: jax.lax.map(lambda theta: look(bandit, theta), thetas))(jnp.asarray(THETAS))
    start, uniform, _ = (jax.tree.map(lambda x, i=i: np.asarray(x)[i], found) for i in range(len(THETAS)))
    measured = {f"pi {arm}": papers.Measured(float(p)) for arm, p in enumerate(start["policy"])}
    for key, name in {"V": "value", "V0": "value", "b* vanilla": "released", "b* natural": "corrected"}.items():
        measured[key] = papers.Measured(float(start[name]), exact=float(start[f"oracle {name}"]))
    for key, ours, oracle in zip(AT_START, start["variances"], start["oracle variances"]):
        measured[key] = papers.Measured(float(ours), exact=float(oracle))
    low, high, *released = start["natural variances"]
    for sign, variance in zip("−+", released, strict=True):
        variant = f"b* {sign} 0.5, as released"
        recorder.row(quantity="(a) tr Var of the natural gradient at θ₀", variant=variant, ours=float(variance))
    measured |= {
        "symmetry": papers.Measured(float(start["variances"][4] - start["variances"][3])),
        "natural symmetry": papers.Measured(float(high / low - 1.0)),
        "uniform": papers.Measured(float(uniform["released"] - uniform["value"])),
        "parabola": papers.Measured(float(np.max(np.abs(found["off the parabola"])))),
    }
    return measured, jax.tree.map(np.asarray, found)


def update(bandit: arms.Bandit, theta: jax.Array, uniform: jax.Array, kind: jax.Array, epsilon: jax.Array) -> jax.Array:
    """Return θ + α F⁺ ∇̂ρ from one episode; the baseline is number `kind` of `BASELINES`, plus ε."""
    logits = arms.clipped(theta)
    b = jax.lax.switch(kind, [functools.partial(value, bandit) for value in BASELINES.values()], logits)
    estimator = arms.natural_reinforce(baselines.shifted(baselines.constant(b), epsilon))
    return theta + STEP * estimator.gradient(logits, (), bandit.draw(logits, uniform))[0]


def make_runs(bandit: arms.Bandit, config: Config):
    """Return `(key, which b [], ε []) → (π at the end [S, A], kept)`, one program for every baseline."""

    def played(thetas: jax.Array) -> jax.Array:
        return jax.nn.softmax(arms.clipped(thetas))[:, 0]

    def keep(thetas: jax.Array) -> dict:
        policies = played(thetas)
        watched = arms.spread_out(policies) | {"value": policies @ jnp.asarray(arms.REWARDS)}
        return {name: arms.mean_over_runs(x) for name, x in watched.items()} | {"paths": policies[: config.drawn]}

    @jax.jit
    def run(key: jax.Array, kind: jax.Array, epsilon: jax.Array):
        step = lambda theta, uniform: update(bandit, theta, uniform, kind, epsilon)
        start = jnp.asarray(arms.START)
        last, kept = arms.train(step, start, key, runs=config.runs, updates=UPDATES, keep=keep)
        return played(last), kept

    return run


def outcomes(policies: np.ndarray) -> dict[str, papers.Measured]:
    """Return the four numbers of the table for the policies at the end, `[S, A]`."""
    values = policies @ np.asarray(arms.REWARDS)
    hits = (values > SOLVED, policies[:, 1] > SOLVED, policies[:, 2] > SOLVED)
    shares = (papers.Measured.share(hit, percent=True) for hit in hits)
    return dict(zip(OUTCOMES, (papers.Measured.of(values), *shares), strict=True))


def learn(config: Config, bandit: arms.Bandit, recorder: runner.Recorder) -> tuple[dict, dict]:
    """(b) Learn with all baselines; return the numbers for `papers.check`, and what the figure draws."""
    run, kinds = make_runs(bandit, config), list(BASELINES)
    measured, pictures, curves = {}, {}, {}
    with recorder.progress(len(VARIANTS), "natural REINFORCE on three arms", "baselines") as progress:
        for index, (name, variant) in enumerate(VARIANTS.items()):
            key = jax.random.fold_in(jax.random.key(config.seed), index)
            found = run(key, jnp.asarray(kinds.index(variant.kind)), jnp.asarray(variant.epsilon))
            policies, kept = jax.tree.map(np.asarray, found)
            results = outcomes(policies)
            measured |= {f"{name}: {key}": result for key, result in results.items()}
            solved = results["solved"].value
            pictures[name] = {"paths": kept.pop("paths"), "solved": solved}
            curves |= {f"{name}: {what}": np.stack(both) for what, both in kept.items()}
            decided = {"entropy (nats)": kept["entropy"], "largest probability": kept["largest"]}
            for what, (mean, stderr) in decided.items():
                quantity = f"(b) {what} after {LOOK} updates, mean"
                recorder.row(quantity=quantity, variant=name, ours=float(mean[LOOK]), stderr=float(stderr[LOOK]))
            progress.advance(1, f"{name}: {solved:.1f} % with ρ > {SOLVED}")
    recorder.write("curves.npz", curves)
    return measured, pictures


def orderings(measured: dict[str, papers.Measured]) -> dict[str, papers.Measured]:
    """Return how much more often b* + ½ converges than b* − ½, and how often b* and b* + ½ do not."""
    found = {}
    for weights in ("as released", "corrected"):
        low, high = (measured[f"b* {sign} 0.5, {weights}: solved"] for sign in "−+")
        found[f"order, {weights}"] = high.minus(low)
        trapped = found[f"trapped, {weights}"] = measured[f"b*, {weights}: second arm"]
        found[f"rarer, {weights}"] = trapped.minus(measured[f"b* + 0.5, {weights}: second arm"])
    return found


def run(config: Config, recorder: runner.Recorder) -> dict:
    config = papers.full_size(config, FULL)
    with jax.enable_x64(True):
        bandit = arms.make_bandit()
        with recorder.timed("(a) exact facts"):
            measured, found = facts(bandit, recorder)
        with recorder.timed("(b) runs"):
            learned, pictures = learn(config, bandit, recorder)
    measured |= learned
    measured |= orderings(measured)
    papers.check(recorder, PAPER, measured)
    error = "the standard error of k runs among them is √(p (1 − p) / S) with p = (k + 1) / (S + 2)"
    recorder.note(f"Percentages are of S = {config.runs} runs; {error}.")
    return {"config": config, "facts": found, "measured": measured, "pictures": pictures}


CORNERS = np.array([[1.0, 0.0], [0.5, 3**0.5 / 2], [0.0, 0.0]])  # of the arms worth 1, 0.7 and 0, as in the paper


def draw_simplex(axes, picture: dict, title: str) -> None:
    """Draw the triangle, and the path of each drawn run through it from the common start."""
    from experiments.harness import plots

    outline = CORNERS[[0, 1, 2, 0]]
    axes.plot(*outline.T, color=plots.GREY, linewidth=1)
    for path in np.moveaxis(picture["paths"], 1, 0):
        solved = path[-1] @ np.asarray(arms.REWARDS) > SOLVED
        colour = plots.PALETTE[0] if solved else plots.PALETTE[1]
        way = path @ CORNERS
        axes.plot(*way.T, color=colour, linewidth=0.8, alpha=0.7, zorder=2 if solved else 3)
        axes.plot(*way[-1], "D", color=colour, markersize=5, markeredgecolor="white", markeredgewidth=0.5, zorder=4)
    axes.plot(*(picture["paths"][0, 0] @ CORNERS), "o", color=plots.INK, markersize=5, zorder=4)
    axes.set_title(title, fontsize=10)
    bare(axes)


def bare(axes) -> None:
    axes.set(xlim=(-0.08, 1.08), ylim=(-0.12, 1.0), aspect="equal")
    axes.set_axis_off()


def draw_key(axes) -> None:
    """Draw what the corners and the colours mean."""
    from experiments.harness import plots

    axes.plot(*CORNERS[[0, 1, 2, 0]].T, color=plots.GREY, linewidth=1)
    for corner, text, place in zip(CORNERS, ("1", "0.7", "0"), ((0, -11), (0, 4), (0, -11)), strict=True):
        axes.annotate(f"only arm {text}", corner, place, textcoords="offset points", ha="center", fontsize=8)
    texts = ("start", f"ρ > {SOLVED}", f"ρ ≤ {SOLVED}")
    for height, text, colour in zip((0.45, 0.29, 0.13), texts, (plots.INK, *plots.PALETTE[:2]), strict=True):
        axes.plot(0.3, height, "o" if text == "start" else "D", color=colour, markersize=6)
        axes.text(0.38, height, text, va="center", fontsize=8, color=plots.INK)
    bare(axes)


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    config, pictures = results["config"], results["pictures"]
    share = lambda name: f"{pictures[name]['solved']:.0f} %"
    low, high = results["facts"]["natural variances"][0, 2:]
    title = (
        f"Of two equally noisy baselines, b* + ½ finds the best arm in {share('b* + 0.5, corrected')} of the runs and "
        f"b* − ½ in {share('b* − 0.5, corrected')} (lower row)"
    )
    caption = (
        f"Each triangle shows the paths of the policy in the first {config.drawn} runs, and their ends as diamonds: "
        f"{UPDATES} natural-gradient steps of {STEP}, one episode each. A percentage counts the runs that end at ρ > "
        f"{SOLVED}, of all {config.runs}; its standard error is at most {50 / config.runs**0.5:.1f} points. The arms "
        "pay 1, 0.7 and 0. V and 0 do not depend on b*. “As released”, b* ± ½ are not equally noisy: at the start tr "
        f"Var of one is {low / high:.0f} times that of the other."
    )
    figure, grid = plots.figure(title, caption, rows=2, columns=5, width=13, height=5.6)
    for row, weights in enumerate(("as released", "corrected")):
        for column, sign in enumerate(("b* − 0.5", "b*", "b* + 0.5")):
            name = f"{sign}, {weights}"
            draw_simplex(grid[row, column], pictures[name], f"{name}: {pictures[name]['solved']:.1f}\u00a0%")
    for column, name in ((3, "V"), (4, "0")):
        draw_simplex(grid[0, column], pictures[name], f"b = {name}: {pictures[name]['solved']:.1f}\u00a0%")
    draw_key(grid[1, 3])
    grid[1, 4].set_axis_off()
    recorder.figure(figure, "simplex")
