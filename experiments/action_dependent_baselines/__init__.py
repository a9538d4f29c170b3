"""Tucker et al. 2018: what can a baseline that sees the action still gain over one that sees only the state?

Claim    The variance of ψ_t (Ĝ_t − b) has three sources: the future Σ_τ, the action Σ_a and the state Σ_s. A baseline
         can change only Σ_a. With V_t(X_t) as baseline, what is left of Σ_a is negligible beside Σ_τ, so a baseline
         that depends on the action can gain next to nothing.
Source   Tucker, Bhupatiraju, Gu, Turner, Ghahramani & Levine 2018 (The mirage of action-dependent baselines in
         reinforcement learning), section 3.1 and figures 1 and 5; their code, brain-research/mirage-rl, lqg/.
Command  python -m experiments.action_dependent_baselines
Shows    ln tr Σ of every source on the LQG point mass, a linear system with Gaussian noise and quadratic rewards, at
         every step t and after 0, 150, 300 and 600 updates with the exact gradient: closed forms, and samples by
         restarts. λ = 1 and λ = 0 are λ-returns with the exact V. In the variant "corrected" the noise of a step has
         the covariance of the transition, as in the closed forms; in "as released" it has the covariance of the whole
         state, as in the rollouts of the published code.
Expect   Σ_a⁰ > Σ_τ > Σ_a^φ(s) > Σ_s up to t = 98; Σ_a⁰ is the action's part without a baseline, Σ_a^φ(s) the one with
         V. At update 0 every gap is 5.9 nats or more, which fits the reference's "several". Later Σ_a^φ(s) is only 1.1
         nats above Σ_s, and the other gaps stay above 2.6. At the last step there is no future, so Σ_τ = Σ_s = 0 and
         the order ends. Three cells of the reference table differ from the closed form in their last digit. Half a
         minute on two CPU cores.
Departs  Taken from the authors' code: the draw of μ (NumPy's generator, seed 3), the gradient of step t without the
         factor γᵗ, and the momentum, which is a moving average of gradients; ours is corrected for its start at 0. Our
         λ is 1 and 0, theirs .99 and 0: at t = 0, λ = .99 gives ln Σ_τ = 15.52 and λ = 1 gives 15.81. Σ_a with V, and
         Σ_a after training, are sampled with Q_t in place of the return, as in their code. Σ_s is not sampled, because
         the noise of any sample of it is e¹² times its size.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.action_dependent_baselines.point_mass import (
    BOOTSTRAPPED,
    FUTURE,
    NO_BASELINE,
    RELEASED,
    SOURCES,
    STATE,
    WITH_VALUES,
    Sampler,
    Solved,
    gaps,
    least_gap,
    logarithms,
    released_mean_error,
    snapshots,
)
from experiments.action_dependent_baselines.targets import (
    TABLE_TIMES,
    UPDATES,
    closed_form_targets,
    released_targets,
    source_name,
)
from experiments.harness import runner, verdicts
from experiments.harness import targets as papers
from pgjax import diagnostics, exact

LABELS = {
    NO_BASELINE: "action, no baseline",
    FUTURE: "future",
    BOOTSTRAPPED: "future, λ = 0",
    WITH_VALUES: "action, V as baseline",
    STATE: "state",
}
REFERENCE_SAMPLES = 20_000

PAPER = papers.Paper(
    citation="Tucker et al. 2018, section 3.1, figures 1 and 5 (LQG)",
    claim="With a baseline of the state, the action adds next to nothing to the variance of the gradient.",
    targets=(*closed_form_targets(), *released_targets()),
    pitfalls=(
        "The released rollouts add noise with the covariance of the whole state at that time, not of the transition. "
        "Their returns are therefore not those of the closed-form Q, and Σ_τ is e⁴ to e⁷ times too large. The order "
        "of the sources survives at the first policy; after 300 updates this Σ_τ passes Σ_a⁰.",
        "The means of these returns are off by −14.5 at t = 0, −15.5 at t = 10 and −11.1 at t = 50, exactly computed. "
        "The reference's −13 for t = 0 … 50 is a rounded middle.",
        "The released Σ_τ averages r² − Q², which is right only where the mean return is Q; (r − Q)² is right "
        "everywhere.",
        "The released mean gradient of a state, which Σ_a subtracts, lacks a factor 2 and a linear term.",
        "The axis of the published figure says log |Σ|; the default of the released code is the logarithm of the "
        "trace.",
    ),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of this experiment. The results page shows the default sizes."""

    states: int = 2500
    """How many visited states a sampled decomposition has. Each state has two actions, each action two futures."""
    rollouts: int = 20_000
    """How many rollouts are averaged to measure the mean of G_t − Q_t."""
    times: tuple[int, ...] = (0, 25, 50, 75, 95)
    """The steps t at which the sources are sampled. 0, 50 and 95 must be among them."""
    learning_rate: float = 0.001
    """The learning rate of the exact-gradient updates between the snapshots."""
    momentum: float = 0.1
    """The decay of the moving average of gradients that the updates follow."""
    means_seed: int = 3
    """The seed from which NumPy draws the means μ of the first policy. The authors' seed is 3."""
    full: bool = False
    """Use the authors' 20 000 samples, both of visited states and of rollouts."""
    seed: int = 0
    """The seed of the samples; the closed forms do not depend on it."""

    def validate(self) -> None:
        runner.require(self.states >= 64, "--states", self.states, "at least 64")
        runner.require(self.rollouts >= 64, "--rollouts", self.rollouts, "at least 64")
        within = all(0 <= t <= 98 for t in self.times) and set(TABLE_TIMES) <= set(self.times)
        allowed = "in 0, …, 98, with 0, 50 and 95 among them"
        runner.require(within, "--times", " ".join(map(str, self.times)), allowed)
        runner.require(0 < self.learning_rate < np.inf, "--learning-rate", self.learning_rate, "finite and above 0")
        runner.require(0 <= self.momentum < 1, "--momentum", self.momentum, "in [0, 1)")
        runner.require(0 <= self.means_seed < 2**32, "--means-seed", self.means_seed, "in [0, 2³²)")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


TINY = Config(states=128, rollouts=4096, times=TABLE_TIMES)


def sample(config: Config, sampler: Sampler, solved: list[Solved], recorder: runner.Recorder) -> dict:
    """Sample ln tr Σ; return (update, t, source) → (ln tr Σ, its standard error)."""
    found = {}
    with recorder.progress(len(UPDATES) * len(config.times), "decompositions by restarts", "steps") as progress:
        for update, each in zip(UPDATES, solved, strict=True):
            for time in config.times:
                sources = sampler.sources(config.states, each, time, len(found))
                found |= {(update, time, source): value for source, value in sources.items()}
                progress.advance(1, f"update {update}, t = {time}")
    return found


def mean_errors(config: Config, sampler: Sampler, solved: Solved) -> dict[str, papers.Measured]:
    """Sample the mean of G_t − Q_t(X_t, A_t); its closed form is 0, or `released_mean_error`."""
    found = {}
    for name, noise in (("right error", "transition"), ("error", "as released")):
        for time in (0, 50):
            known = 0.0 if noise == "transition" else released_mean_error(sampler.problem, solved, time)
            # These indices come after those of `sample`.
            errors = sampler.errors(config.rollouts, solved, time, 2**20 + len(found), noise)
            mean, stderr = diagnostics.mean_and_stderr(errors)
            found[f"{name} {time}"] = papers.Measured(float(mean), float(stderr), exact=known)
    return found


def measure(config: Config, lines: dict[str, np.ndarray], sampled: dict, errors: dict) -> dict[str, papers.Measured]:
    """Return every target's number; nothing if the updates or means are not the reference's. `lines` are `[U, T]`."""
    if any(getattr(config, name) != getattr(Config, name) for name in ("means_seed", "learning_rate", "momentum")):
        return {}
    first = {source: line[0] for source, line in lines.items()}
    each_gap = gaps(lines)
    found = {f"{source} {t}": papers.Measured(first[source][t]) for source in SOURCES for t in TABLE_TIMES}
    for i, update in enumerate(UPDATES):
        found[f"gap {update}"] = papers.Measured(each_gap[1, i, :99].min())
        for name in ("order", "several"):
            found[f"{name} {update}"] = papers.Measured(each_gap[:, i, :99].min())
            found[f"sampled {name} {update}"] = least_gap(sampled, update)
    found["order at the end"] = papers.Measured(each_gap[:, 0, 99].min())
    released = {t: sampled[0, t, RELEASED] for u, t, source in sampled if u == 0 and source == RELEASED}
    for t in (0, 95):
        value, stderr = released[t]
        found[f"released {t}"] = papers.Measured(value, stderr)
        found[f"inflated {t}"] = papers.Measured(value - first[FUTURE][t], stderr)
    above = min((first[NO_BASELINE][t] - value, stderr) for t, (value, stderr) in released.items())
    below = min((value - first[WITH_VALUES][t], stderr) for t, (value, stderr) in released.items())
    return found | errors | {"order above": papers.Measured(*above), "order below": papers.Measured(*below)}


def record(times: tuple[int, ...], lines: dict[str, np.ndarray], sampled: dict, recorder: runner.Recorder) -> None:
    """Record the samples of update 0, the released order after it, and the worst of all samples."""
    tiny, worst, count = verdicts.is_tiny(recorder), 0.0, 0
    for (update, time, source), (value, stderr) in sampled.items():
        known = None if source == RELEASED else lines[source][UPDATES.index(update), time]
        line = {"update": update, "t": time, "source": source, "ln_trace": value, "stderr": stderr, "exact": known}
        recorder.metrics(line)
        if known is None:
            continue
        # The sample is normal about its mean; its logarithm is not.
        worst, count = max(worst, abs(np.expm1(known - value)) / stderr), count + 1
        if update == 0 and time in TABLE_TIMES:
            recorder.row(
                quantity=f"{source_name(source, time)}, sampled",
                variant="corrected",
                ours=value,
                stderr=stderr,
                exact=known,
                verdict=verdicts.against_exact(value, stderr, known, tiny=tiny),
            )
    for i, update in enumerate(UPDATES[1:], 1):
        above = [(lines[NO_BASELINE][i, t] - sampled[update, t, RELEASED][0], t) for t in times]
        gap, time = min(above)
        quantity = f"ln(Σ_a⁰ / Σ_τ), the least over the sampled t, update {update}"
        recorder.row(quantity=quantity, variant="as released", ours=gap, stderr=sampled[update, time, RELEASED][1])
    # The distance |z| is itself measured in standard errors.
    agrees = verdicts.against_exact(worst, 1.0, 0.0, z=4.5, tiny=tiny)
    recorder.row(
        quantity=f"greatest |sampled − exact| of {count} samples (standard errors)", ours=worst, verdict=agrees
    )


def run(config: Config, recorder: runner.Recorder) -> dict:
    config = papers.full_size(config, {"states": REFERENCE_SAMPLES, "rollouts": REFERENCE_SAMPLES})
    with jax.enable_x64(True), recorder.timed("closed forms and 600 exact updates"):
        problem = exact.point_mass()
        means = 0.3**0.5 * np.random.RandomState(config.means_seed).randn(problem.horizon, 2)
        stack = jax.tree.map(
            np.asarray, snapshots(UPDATES, problem, jnp.asarray(means), config.learning_rate, config.momentum)
        )
    solved = [jax.tree.map(lambda x, i=i: x[i], stack) for i in range(len(UPDATES))]
    lines = logarithms(stack)
    with recorder.timed("samples"):
        sampler = Sampler(problem, config.seed)
        sampled = sample(config, sampler, solved, recorder)
        errors = mean_errors(config, sampler, solved[0])
    papers.check(recorder, PAPER, measure(config, lines, sampled, errors))
    record(config.times, lines, sampled, recorder)
    for update, value in zip(UPDATES, stack.objective, strict=True):
        recorder.row(quantity=f"ρ, update {update}", ours=float(value))
    recorder.note(
        "All variances are natural logarithms of traces. A sample has two actions of each visited state and two "
        "futures of each action."
    )
    recorder.write("closed_forms.npz", {"updates": UPDATES, **lines})
    return {"config": config, "lines": lines, "sampled": sampled}


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    config, lines, sampled = results["config"], results["lines"], results["sampled"]
    colour_of = plots.colours(SOURCES) | {RELEASED: plots.GREY}
    share = 100 * np.exp(-gaps(lines)[1, :, :99].min())
    figure, panels = plots.figure(
        f"With V as baseline the action adds at most {share:.0f} % of the variance that the future adds: a baseline "
        "that sees the action can gain little more",
        "LQG point mass, T = 100 steps; Σ is the covariance of one step's gradient estimate that comes from one "
        f"source. Lines: closed form. Dots: samples of {config.states} visited states, two actions of each, two "
        "futures of each action; 95 % intervals, mostly smaller than the dots. Grey crosses: the future with the "
        "noise of the released code's rollouts.",
        columns=len(UPDATES),
        width=15,
        height=4.6,
    )
    width = diagnostics.t_quantile(0.975, config.states - 1)
    for index, (axes, update) in enumerate(zip(panels, UPDATES, strict=True)):
        axes.set(xlim=(-3, 102), ylim=(-10, 28), xlabel="t (steps)", title=f"after {update} updates")
        for source in SOURCES:
            axes.plot(lines[source][index], color=colour_of[source], linewidth=1.8)
        for (when, time, source), (value, stderr) in sampled.items():
            if when == update:
                marker = "x" if source == RELEASED else "o"
                style = {"color": colour_of[source], "markersize": 5, "zorder": 3}
                axes.errorbar(time, value, width * stderr, fmt=marker, **style)
    ends = {LABELS[name]: (102, np.clip(lines[name][-1, 98], -10, 28), colour_of[name]) for name in SOURCES}
    plots.label_ends(panels[-1], ends)
    panels[0].set_ylabel("ln tr Σ (nats)")
    recorder.figure(figure, "variance_sources")
