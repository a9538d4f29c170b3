"""Where should REINFORCE's moving average ρ̂ start, and why does the sign of the returns then matter?

Claim    If the moving average ρ̂ is used before it is updated, the gradient is unbiased wherever ρ̂ starts, at zero
         too: E ρ̂ = (1 − βⁿ) ρ(θ) is a lag, not a bias. But until ρ̂ has caught up, positive returns push up whatever
         was tried, and negative returns push it down. From zero the policy therefore commits early or keeps looking,
         depending on a constant in the rewards that should not matter.
Source   Williams 1992 (REINFORCE with a moving average); Chung, Thomas, Machado & Le Roux 2021 (committal baselines).
Command  python -m experiments.baseline_start
Shows    (a) Exactly, by enumeration of every past: E ρ̂ and the bias of the gradient, for ρ̂ that starts at zero, at
         the first return, or debiased as in Adam; the factor β of updating ρ̂ before its use; what a constant added to
         all rewards adds to the weights. (b) Three arms with a constant added to every reward: how many runs find the
         best arm, from each start and from ρ(θ₀) itself, with plain steps from the uniform policy and with natural
         steps from Chung et al.'s θ₀.
Expect   (a) Every digit agrees. (b) With a start at the first return, debiased or at ρ(θ₀), the constant hardly
         matters. From zero, natural steps find the best arm in 98 % of the runs if returns are negative and in 57 % if
         they are positive; debiased they find it in 81 %. Plain steps lose runs with either sign, and more with the
         positive one: there the noise does harm too. Half a minute on two CPU cores.
Departs  No paper has this table. Rewards are those of Chung et al. minus their mean, plus the constant. π is cut as in
         `baselines_and_convergence`. β is 0.9 in (a); in (b) it is 0.99, a lag of 100 updates. Steps, constants and lag
         are chosen large enough for the effect to be seen. With β = 0.9 natural steps from zero find the best arm in 82
         % of the runs at −1 and in 72 % at +1, against 75 % from the other starts; plain steps with constants of ±1
         always find it, from any start.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.baseline_start import facts
from experiments.baseline_start.targets import NATURAL, PAPER, PLAIN
from experiments.harness import runner
from experiments.harness import targets as papers
from experiments.shared import three_arms as arms
from pgjax import baselines

__all__ = ["PAPER", "TINY", "VARIANTS", "Config", "plot", "run"]

CENTRED = tuple(reward - sum(arms.REWARDS) / len(arms.REWARDS) for reward in arms.REWARDS)
KNOWN = "ρ(θ₀)"
VARIANTS = (*facts.WORDS, KNOWN)
NAMES = dict(zip(VARIANTS, ("zero", "first return", "debiased", KNOWN), strict=True))
UPDATES, SURE = 1000, 0.9
FULL = {"runs": 20000}
EARLY = 10  # repetitions are counted in this many updates
LOOK = 30  # the entropy is shown after this many updates


class Setting(NamedTuple):
    """The kind of step, its length, and the θ at the start."""

    natural: bool
    step: float
    start: tuple


SETTINGS = {
    PLAIN: Setting(natural=False, step=0.1, start=((0.0, 0.0, 0.0),)),
    NATURAL: Setting(natural=True, step=0.025, start=arms.START),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of this experiment. The results page shows the default sizes."""

    runs: int = 2000
    """How many runs each start of ρ̂ has with each constant."""
    decay: float = 0.99
    """The decay β of the moving average ρ̂ ← β ρ̂ + (1 − β) R in (b)."""
    plain_shifts: tuple[float, ...] = (-5.0, -2.5, 0.0, 2.5, 5.0)
    """The constants, in units of reward, that are added to every reward with plain steps."""
    natural_shifts: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0)
    """The constants, in units of reward, that are added to every reward with natural steps."""
    full: bool = False
    """Use 20 000 runs for each start and constant."""
    seed: int = 0
    """The seed of every random number in this experiment."""

    def validate(self) -> None:
        runs, largest = papers.full_size(self, FULL).runs, max(map(abs, CENTRED))
        runner.require(2 <= runs <= 10**6, "--runs", runs, "in [2, 10⁶]")
        runner.require(0 <= self.decay <= 1, "--decay", self.decay, "in [0, 1]")
        for option, shifts in (("--plain-shifts", self.plain_shifts), ("--natural-shifts", self.natural_shifts)):
            shown = " ".join(map(str, shifts))
            increasing = len(shifts) >= 2 and list(shifts) == sorted(set(shifts))
            one_sign = increasing and shifts[0] < -largest and largest < shifts[-1]
            ends = f"first below −{largest:.2f}, last above {largest:.2f}"
            runner.require(one_sign, option, shown, f"increasing, {ends}, so that all returns have one sign there")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")

    def shifts(self, setting: str) -> tuple[float, ...]:
        return self.plain_shifts if setting == PLAIN else self.natural_shifts


TINY = Config(runs=300, plain_shifts=(-5.0, 5.0), natural_shifts=(-1.0, 1.0))


class Run(NamedTuple):
    """θ, the state of ρ̂, the arm tried last, the number of updates, and how many repeated the arm before."""

    theta: jax.Array
    average: Any
    arm: jax.Array
    updates: jax.Array
    repeats: jax.Array


def make_runs(bandit: arms.Bandit, config: Config):
    """Return `(key, natural [], which start [], ρ(θ₀) [], θ₀, step, shift) → (π at the end, repetitions, kept)`.

    One program serves all settings: the starts are branches, and zero and ρ(θ₀) are starts at a given number.
    """

    @jax.jit
    def run(key, natural, start, known, theta, step, shift):
        shifted = arms.shift_rewards(bandit, shift)
        number = jnp.where(start == len(facts.WORDS), known, 0.0)
        averages = [baselines.moving_average(config.decay, b) for b in (number, *facts.WORDS[1:])]
        baseline = arms.one_of(averages, jnp.where(start == len(facts.WORDS), 0, start))
        estimator = arms.either_reinforce(baseline, natural)

        def update(carry: Run, uniform: jax.Array) -> Run:
            logits = arms.clipped(carry.theta)
            episode = shifted.draw(logits, uniform)
            direction, average, _ = estimator.gradient(logits, carry.average, episode)
            arm = episode.actions[0, 0]
            return Run(
                theta=carry.theta + step * direction,
                average=average,
                arm=arm,
                updates=carry.updates + 1,
                repeats=carry.repeats + ((arm == carry.arm) & (carry.updates < EARLY)),
            )

        def played(carry: Run) -> jax.Array:
            return jax.nn.softmax(arms.clipped(carry.theta))[:, 0]

        def keep(carry: Run) -> dict:
            policies = played(carry)
            watched = arms.spread_out(policies) | {"value": policies @ jnp.asarray(CENTRED)}
            return {name: jnp.stack(arms.mean_over_runs(x)) for name, x in watched.items()}

        nothing, average = jnp.zeros((), jnp.int32), baseline.init(key, shifted.episodes.trajectories)
        first = Run(theta=theta, average=average, arm=nothing - 1, updates=nothing, repeats=nothing)
        last, kept = arms.train(update, first, key, runs=config.runs, updates=UPDATES, keep=keep)
        return played(last), last.repeats / (EARLY - 1), kept

    return run


def learn(config: Config, bandit: arms.Bandit, recorder: runner.Recorder) -> dict[tuple, dict[str, np.ndarray]]:
    """(b) (setting, start, shift) → π at the end `[S, A]`, early repetitions `[S]`, mean and s.e. `[N + 1, 2]`."""
    run, found = make_runs(bandit, config), {}
    total = len(VARIANTS) * sum(len(config.shifts(name)) for name in SETTINGS)
    with recorder.progress(total, "REINFORCE from every start", "settings") as progress:
        for place, (name, setting) in enumerate(SETTINGS.items()):
            theta = jnp.asarray(setting.start)
            key = jax.random.fold_in(jax.random.key(config.seed), place)
            for start, variant in enumerate(VARIANTS):
                for shift in config.shifts(name):
                    known = bandit.value(theta) + shift
                    numbers = (jnp.asarray(x) for x in (setting.natural, start, known))
                    ends, repeats, kept = run(key, *numbers, theta, setting.step, shift)
                    made = {"ends": ends, "repeats": repeats, **kept}
                    found[name, variant, shift] = jax.tree.map(np.asarray, made)
                    share = best(found[name, variant, shift]).value
                    progress.advance(1, f"{name}, from {variant}, {shift:+g}: {share:.1f} % find the best arm")
    curves = {
        f"{name}, from {variant}, {shift:+g}: {what}": x[what].T
        for (name, variant, shift), x in found.items()
        for what in ("entropy", "largest", "value")
    }
    recorder.write("curves.npz", curves)
    return found


def best(x: dict[str, np.ndarray]) -> papers.Measured:
    """Return the share of runs of one entry of `learn` that find the best arm, in per cent."""
    return papers.Measured.share(x["ends"][:, 0] > SURE, percent=True)


def repetitions(x: dict[str, np.ndarray]) -> papers.Measured:
    """Return the share of the first `EARLY` updates that repeat the arm before, in per cent."""
    return papers.Measured.of(100.0 * x["repeats"])


def entropy(x: dict[str, np.ndarray]) -> papers.Measured:
    """Return the entropy after `LOOK` updates, in nats."""
    return papers.Measured(*map(float, x["entropy"][LOOK]))


def record(config: Config, found: dict, recorder: runner.Recorder) -> None:
    """Record a row for each start with the least constant, with 0, and with the greatest."""
    for (name, variant, shift), x in found.items():
        if shift not in (config.shifts(name)[0], 0.0, config.shifts(name)[-1]):
            continue
        rows = {
            f"(b) runs that find the best arm (%), rewards {shift:+g}": best(x),
            f"(b) entropy after {LOOK} updates (nats), rewards {shift:+g}": entropy(x),
        }
        if name == PLAIN:
            rows[f"(b) repetitions in {EARLY} updates (%), rewards {shift:+g}"] = repetitions(x)
        for quantity, ours in rows.items():
            who = f"{name}, from {variant}"
            recorder.row(quantity=quantity, variant=who, ours=ours.value, stderr=ours.stderr)


def claims(config: Config, found: dict) -> dict[str, papers.Measured]:
    """(b) Return what the start changes, as differences."""

    def ends(name: str, variant: str, sign: int) -> dict[str, np.ndarray]:
        return found[name, variant, config.shifts(name)[0 if sign < 0 else -1]]

    def difference(of: Callable[[dict], papers.Measured], a: tuple, b: tuple) -> papers.Measured:
        return of(ends(*a)).minus(of(ends(*b)))

    policies = [found[PLAIN, KNOWN, shift]["ends"] for shift in config.plain_shifts]
    moved = max(float(np.max(np.abs(policy - policies[0]))) for policy in policies)
    return {
        "natural positive": difference(best, (NATURAL, "debiased", 1), (NATURAL, "zero", 1)),
        "natural negative": difference(best, (NATURAL, "zero", -1), (NATURAL, "debiased", -1)),
        "plain positive": difference(best, (PLAIN, "debiased", 1), (PLAIN, "zero", 1)),
        "plain signs": difference(best, (PLAIN, "zero", -1), (PLAIN, "zero", 1)),
        "repeats positive": difference(repetitions, (PLAIN, "zero", 1), (PLAIN, "debiased", 1)),
        "repeats negative": difference(repetitions, (PLAIN, "debiased", -1), (PLAIN, "zero", -1)),
        "entropy negative": difference(entropy, (PLAIN, "zero", -1), (PLAIN, "debiased", -1)),
        "known": papers.Measured(moved),
    }


def run(config: Config, recorder: runner.Recorder) -> dict:
    config = papers.full_size(config, FULL)
    with jax.enable_x64(True):
        bandit = arms.make_bandit(CENTRED)
        with recorder.timed("(a) exact facts"):
            measured = facts.facts(bandit, config.plain_shifts[-1])
        with recorder.timed("(b) runs"):
            found = learn(config, bandit, recorder)
    record(config, found, recorder)
    measured |= claims(config, found)
    papers.check(recorder, PAPER, measured)
    recorder.note(
        f"(b) has {config.runs} runs for each start and constant; every constant uses the same random numbers."
    )
    return {"config": config, "found": found, "measured": measured}


def headline(config: Config, found: dict) -> str:
    """The figure's title: what the sign of the returns does to natural steps from zero, and whether it does."""
    least, most = (best(found[NATURAL, "zero", config.natural_shifts[end]]) for end in (0, -1))
    change = least.minus(most)
    seen = " makes the sign of the returns matter" if change.value > 3 * change.stderr else ""
    return (
        f"A moving average that starts at zero{seen}: with natural steps {least.value:.0f} % of the runs find the "
        f"best arm if all returns are negative, {most.value:.0f} % if all are positive"
    )


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    config, found = results["config"], results["found"]
    worth = ", ".join(f"{reward:.2f}" for reward in CENTRED).replace("-", "−")
    caption = (
        f"Each line is a start of the moving average; ρ(θ₀) is the true mean. Three arms pay {worth} plus the "
        f"constant; {UPDATES} updates of one episode each, β = {config.decay:g}. A run finds the best arm if π(best "
        f"arm) > {SURE} at the end. {config.runs} runs for each point, {plots.bands(config.runs)}."
    )
    figure, axes = plots.figure(headline(config, found), caption, columns=3, width=13, height=4.6)
    hits, repeats = (lambda x: 100.0 * (x["ends"][:, 0] > SURE)), (lambda x: 100.0 * x["repeats"])
    panels = (
        (axes[0], NATURAL, hits, "runs that find the best arm (%)", "natural steps, from θ₀ = (0, 3, 5)"),
        (axes[1], PLAIN, hits, "runs that find the best arm (%)", "plain steps, from the uniform policy"),
        (axes[2], PLAIN, repeats, "updates that repeat the arm before (%)", f"plain steps, first {EARLY} updates"),
    )
    line_ends = []
    for ax, name, of, label, heading in panels:
        shifts = config.shifts(name)
        curves = {
            NAMES[variant]: np.stack([of(found[name, variant, shift]) for shift in shifts], axis=1)
            for variant in VARIANTS
        }
        ax.set(xlabel="constant added to every reward", ylabel=label)
        ax.set_title(heading, loc="left", fontsize=10)
        line_ends.append(plots.learning_curves(ax, np.array(shifts), curves, named=False, bounds=(0.0, 100.0)))
    lowest = min(ax.get_ylim()[0] for ax in axes[:2])
    for ax in axes[:2]:
        ax.set_ylim(lowest, 102)
    for ax, ends in zip(axes, line_ends, strict=True):
        plots.label_ends(ax, ends)
    recorder.figure(figure, "starts")
