"""Rates and plateaus: what a value baseline does for the natural gradient, and how long softmax ascent stands still.

Claim    The on-policy natural gradient of single pulls has unbounded variance, with v as baseline or without it.
         Without the baseline runs get stuck on a bad arm; with it the gap to the best arm closes as 1/t. The exact
         gradient has no noise, but it waits on plateaus: near a bad arm its length is proportional to the probability
         of the best arm.
Source   Mei et al. 2022 (The role of baselines in policy gradient optimization), figure 2(c); Mei et al. 2020 (On the
         global convergence rates of softmax policy gradient; Escaping the gravitational pull of softmax).
Command  python -m experiments.rates_and_plateaus
Shows    Left: 20 arms, θ ← θ + η F⁺ ĝ, and the exact gap 0.97 − ρ(θ) of every run with b = ρ(θ) and with b = 0. Right:
         exact softmax ascent on the three arms (1, 0.9, 0.1) from three starts. Only the mean over runs is estimated.
Expect   With the baseline the gap falls much faster than 1/t at first, while arms die out one by one, and somewhat
         faster than 1/t from about t = 3·10⁴ on, where the slope is fitted (−1.15 ± 0.10). Without the baseline most
         runs stay on a lesser arm for good. The plateaus last 4569 updates from π(a*) = 0.01, and more than 50 000 from
         0.001. 25 s on two CPU cores.
Departs  The 18 lesser arms of figure 2(c) are in an appendix that we have not seen; here they are uniform(0, 1) with
         NumPy's seed 0. There are 100 runs in place of 20, with which the standard error of the slope would be about
         0.2. A logit more than 600 below the greatest is held there: such an arm has probability 10⁻²⁶¹ and is never
         pulled.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import runner
from experiments.harness import targets as papers
from experiments.rates_and_plateaus import targets as known
from experiments.shared import one_step
from pgjax import baselines, estimators, exact
from pgjax.types import Estimator

CHUNK = 1000
DEEPEST = 600.0  # e^−600 is a number in float64, and so is its product with the smallest weight
PAPER = known.PAPER


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of this experiment. The results page shows the default sizes."""

    runs: int = 100
    """How many runs the stochastic natural gradient has. The paper has 20."""
    updates: int = 100_000
    """How many updates each run has. The slope is fitted from update 3·10⁴ on."""
    step_size: float = known.STEP_SIZE
    """The step size η of the natural gradient. The references and the times of the slopes are for 0.05."""
    seed: int = 0
    """The seed of the pulls; the arms do not depend on it."""

    def validate(self) -> None:
        runner.require(self.runs >= 2 * known.GROUP, "--runs", self.runs, f"at least {2 * known.GROUP}")
        runner.require(3000 <= self.updates <= 10**6, "--updates", self.updates, "in 3000, …, 10⁶")
        runner.require(0 < self.step_size <= 1, "--step-size", self.step_size, "in (0, 1]")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


TINY = Config(runs=40, updates=3000)


def arms() -> np.ndarray:
    """Return the mean rewards `[20]`: 0.97, 0.95, and 18 random ones, which are all below 0.94."""
    return np.concatenate([[known.BEST, known.SECOND], np.random.default_rng(0).uniform(size=known.ARMS - 2)])


def natural_estimator(baseline: jax.Array) -> Estimator:
    """Return F⁺ ĝ of a single pull with weight R − b, in closed form; b is a number, traced or not."""
    policy = one_step.table(known.ARMS)
    vanilla = estimators.make_estimator(
        policy, returns=estimators.total_return(), baseline=baselines.constant(baseline)
    )
    return estimators.natural(vanilla, policy, solve=estimators.softmax_inverse_fisher)


def gaps(config: Config, recorder: runner.Recorder) -> tuple[np.ndarray, np.ndarray]:
    """Return times t `[N]`, with θ_1 as the start, and 0.97 − ρ(θ_{t+1}) `[N, V, runs]` of the V variants."""
    rewards = jnp.asarray(arms())
    policy, mdp = one_step.table(known.ARMS), exact.make_bandit(rewards)
    objective = lambda params: exact.objective(policy.apply, params, mdp)

    def learn(key: jax.Array, params: jax.Array, value: jax.Array, with_baseline: jax.Array):
        action = policy.distribution.sample(key, policy.apply(params, jnp.ones(1)))
        estimator = natural_estimator(jnp.where(with_baseline, value, 0.0))
        step, _, _ = estimator.gradient(params, (), one_step.trajectory(action, rewards[action]))
        params = params + config.step_size * step
        params = jnp.maximum(params, jnp.max(params) - DEEPEST)
        return params, objective(params)

    def update(carry, t: jax.Array):
        keys = jax.vmap(jax.random.fold_in, (0, None))(run_keys, t)
        over_runs = jax.vmap(learn, (0, 0, 0, None))
        carry = jax.vmap(over_runs, (None, 0, 0, 0))(keys, *carry, jnp.array([True, False]))
        return carry, known.BEST - carry[1]

    run_keys = jax.random.split(jax.random.key(config.seed), config.runs)
    shape = (len(known.VARIANTS), config.runs)
    params = jnp.zeros((*shape, 1, known.ARMS))
    carry = (params, jnp.full(shape, objective(params[0, 0])))
    some = jax.jit(lambda carry, start: jax.lax.scan(update, carry, start + jnp.arange(CHUNK)))
    marks = np.geomspace(1, config.updates, 400).round().astype(int)
    times = np.union1d(marks, [t for t in (*known.TOO_EARLY, *known.REFERENCES) if t <= config.updates])
    found = []
    with recorder.progress(config.updates, "20 arms", "updates") as progress:
        for start in range(0, config.updates, CHUNK):
            carry, gap = some(carry, start)
            here = times[(times > start) & (times <= start + CHUNK)]
            found.append(np.asarray(gap)[here - start - 1])
            progress.advance(min(CHUNK, config.updates - start))
    return times, np.concatenate(found)


def log_slope(times: np.ndarray, gap: np.ndarray, first: float, last: float) -> papers.Measured:
    """Return the least-squares slope of ln mean gap `[N, runs]` in ln t between two times; jackknife error."""
    seen = (times >= first) & (times <= last)
    fit = lambda part: float(np.polyfit(np.log(times[seen]), np.log(part.mean(axis=1)), 1)[0])
    left_out = [fit(np.delete(gap[seen], i, axis=1)) for i in range(gap.shape[1])]
    return papers.Measured(fit(gap[seen]), float(np.std(left_out) * (len(left_out) - 1) ** 0.5))


def moments(with_baseline: jax.Array, rare: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the largest |E − F⁺ ∇ρ| and tr Var of the estimate, exactly; the last arm has probability `rare`."""
    rewards = jnp.asarray(arms())
    probabilities = jnp.full(known.ARMS, (1.0 - rare) / (known.ARMS - 1)).at[-1].set(rare)
    policy, mdp = one_step.table(known.ARMS), exact.make_bandit(rewards)
    params = jnp.log(probabilities)[None]
    estimator = natural_estimator(jnp.where(with_baseline, exact.objective(policy.apply, params, mdp), 0.0))
    each = lambda a: estimator.gradient(params, (), one_step.trajectory(a, rewards[a]))[0][0]
    found = jax.vmap(each)(jnp.arange(known.ARMS))
    each_arm = exact.moments_of(found, probabilities)
    bias = each_arm.mean - exact.natural_gradient(policy.apply, params, mdp)[0]
    return jnp.max(jnp.abs(bias)), each_arm.total_variance


def plateaus() -> np.ndarray:
    """Return ρ(θ) of exact softmax ascent before and after every update, `[1 + known.PLATEAU_UPDATES, starts]`."""
    policy, mdp = one_step.table(3), exact.make_bandit(jnp.asarray(known.PLATEAU_ARMS))

    def update(params, _):
        params = params + known.PLATEAU_STEP * exact.exact_gradient(policy.apply, params, mdp)
        return params, exact.objective(policy.apply, params, mdp)

    ascend = lambda params: jax.lax.scan(update, params, length=known.PLATEAU_UPDATES)[1]
    start = jnp.log(jnp.asarray(list(known.STARTS.values())))[:, None]
    before = jax.vmap(lambda params: exact.objective(policy.apply, params, mdp))(start)
    return np.concatenate([np.asarray(before)[None], np.asarray(jax.jit(jax.vmap(ascend, out_axes=1))(start))])


def updates_to_leave(climbs: np.ndarray) -> np.ndarray:
    """Return after how many updates the gap is first below 0.05, `[starts]`; 0 if it never is."""
    return (max(known.PLATEAU_ARMS) - climbs < 0.05).argmax(axis=0)


def plateau_gradient(rare: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """‖∇ρ‖ `[N]` at π = (rare, 1 − rare − rare², rare²), by differentiating ρ exactly, and by √(Σ π² (r − ρ)²)."""
    policy, rewards = one_step.table(3), np.asarray(known.PLATEAU_ARMS)
    mdp = exact.make_bandit(rewards)
    probabilities = np.stack([rare, 1.0 - rare - rare**2, rare**2], axis=1)
    length = lambda logits: jnp.linalg.norm(exact.exact_gradient(policy.apply, logits[None], mdp))
    formula = probabilities * (rewards - (probabilities @ rewards)[:, None])
    return np.asarray(jax.jit(jax.vmap(length))(jnp.log(probabilities))), np.linalg.norm(formula, axis=1)


def measure_gaps(config: Config, times: np.ndarray, found: np.ndarray) -> dict[str, papers.Measured]:
    """Return the targets' numbers from the curves, where these are long enough and have the targets' step size."""
    with_, without = found[:, 0], found[:, 1]
    at = lambda gap, t: gap[np.searchsorted(times, t)]
    measured = {
        "order": papers.Measured.of(at(without, 3000) - at(with_, 3000)),
        "stuck": papers.Measured.share(without[-1] > 0.01),
        "none stuck": papers.Measured.share(with_[-1] < 0.01),
    }
    if config.step_size != known.STEP_SIZE:
        return measured
    measured |= {f"gap {t}": papers.Measured.of(at(with_, t)) for t in known.REFERENCES if t <= config.updates}
    measured["stuck mean"] = papers.Measured.of(at(without, 3000))
    groups = at(without, 3000)[: config.runs // known.GROUP * known.GROUP].reshape(-1, known.GROUP)
    measured["stuck worst"] = papers.Measured.of(groups.max(axis=1))
    if config.updates >= 2 * known.TAIL:
        measured["slope"] = log_slope(times, with_, known.TAIL, config.updates)
    if config.updates >= known.BEFORE[1]:
        early = log_slope(times, with_, *known.BEFORE)
        measured["steeper"] = papers.Measured(-1.0 - early.value, early.stderr)
    return measured


def early_gaps(config: Config, times: np.ndarray, found: np.ndarray, recorder: runner.Recorder) -> None:
    """Add rows without a verdict: gaps at early times, when the arms matter more than the baseline."""
    for t, printed in known.TOO_EARLY.items():
        reference = {"paper": papers.number(printed), "printed": printed, "provenance": "own"}
        for i, variant in enumerate(known.VARIANTS):
            ours = papers.Measured.of(found[np.searchsorted(times, t), i])
            same = variant == known.WITH and config.step_size == known.STEP_SIZE
            row = {"quantity": f"gap, t = {t}", "variant": variant, "ours": ours.value, "stderr": ours.stderr}
            recorder.row(**row, **(reference if same else {}))


def measure_exact(climbs: np.ndarray) -> dict[str, papers.Measured]:
    """Return the numbers of enumeration and of exact ascent, which are not sampled."""
    below = updates_to_leave(climbs) + 1  # the first t with θ_t below, θ₁ being the start
    uniform, middle, last = range(len(known.STARTS))
    # The first is for the mean; from the others on, the dying arm outweighs all others in the variance.
    rares = np.array([1e-3, 1e-8, 1e-10])
    flags = jnp.array([True, False])[:, None]
    bias, variance = jax.jit(jnp.vectorize(moments))(flags, jnp.asarray(rares))
    slopes = np.diff(np.log(variance), axis=1)[:, 1] / np.diff(np.log(rares))[1]
    (small, large), (formula, _) = plateau_gradient(np.array([1e-6, 1e-4]))
    return {
        "unbiased": papers.Measured(float(jnp.max(bias[:, 0]))),
        "variance with": papers.Measured(float(slopes[0])),
        "variance without": papers.Measured(float(slopes[1])),
        "plateau": papers.Measured(float(below[middle])),
        "no plateau": papers.Measured(float(below[uniform])),
        "still there": papers.Measured(float(climbs[-1, last])),
        "proportional": papers.Measured(float(np.log(large / small) / np.log(1e-4 / 1e-6))),
        "length": papers.Measured(small / 1e-6, exact=formula / 1e-6),
    }


def run(config: Config, recorder: runner.Recorder) -> dict:
    with jax.enable_x64(True):
        with recorder.timed("20 arms"):
            times, found = gaps(config, recorder)
        with recorder.timed("plateaus and enumeration"):
            climbs = plateaus()
            measured = measure_gaps(config, times, found) | measure_exact(climbs)
    papers.check(recorder, PAPER, measured)
    early_gaps(config, times, found, recorder)
    recorder.note(
        f"± is the standard error over {config.runs} runs. The gap of each run is exact, and so are numbers without ±."
    )
    recorder.write("curves.npz", {"times": times, "gaps": found, "climbs": climbs})
    return {"config": config, "times": times, "gaps": found, "climbs": climbs, "measured": measured}


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    config, times, found, climbs, measured = results.values()
    slope, stuck, wait = (measured.get(key) for key in ("slope", "stuck", "plateau"))
    if slope:
        closing = f"falls as t to the power {runner.format_number(slope.value, slope.stderr)} in the end".replace(
            "-", "−"
        )
    else:
        closing = f"is {runner.format_number(found[-1, 0].mean(), digits=2)} after {config.updates} updates"
    title = (
        f"With b = ρ(θ) the natural gradient's gap {closing}; {100 * stuck.value:.0f} % of the runs with b = 0 end "
        f"with a gap above 0.01. Exact ascent waits {wait.value - 1:.0f} updates near a bad arm"
    )
    caption = (
        f"Left: 20 arms, one pull in each update, η = {config.step_size}; mean over {config.runs} runs, "
        f"{plots.bands(config.runs)}{'; the slope is fitted from the dotted line on' if slope else ''}. Right: arms "
        f"that pay 1, 0.9 and 0.1, η = {known.PLATEAU_STEP}, no noise; dots: the gap falls below 0.05."
    )
    figure, (left, right) = plots.figure(title, caption, columns=2, width=13, height=5)
    left.set(xscale="log", yscale="log", xlabel="t, updates", ylabel="gap 0.97 − ρ(θ), mean over runs")
    left.set_title("stochastic natural gradient, 20 arms", loc="left", fontsize=10)
    last = found[-1, 0].mean()
    guide = times[times >= times[-1] // 10]
    left.plot(guide, 4 * last * times[-1] / guide, "--", color=plots.GREY, linewidth=1.2)
    place = plots.SMALL_TEXT | {"bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1}}
    left.annotate("slope −1", (guide[0], 4 * last * times[-1] / guide[0]), (6, 8), **place)
    if slope:
        left.axvline(known.TAIL, color=plots.GREY, linestyle=":", linewidth=1.2)
    plots.learning_curves(left, times, {name: found[:, i].T for i, name in enumerate(known.VARIANTS)})
    right.set(xscale="log", xlabel="t (θ₁ is the start)", ylabel="ρ(θ)")
    right.set(xlim=(1, known.PLATEAU_UPDATES), ylim=(0.6, 1.02))
    right.set_title("exact gradient, 3 arms; names: π at the start", loc="left", fontsize=10)
    plots.reference_line(right, 0.9, "second-best arm")
    steps = np.unique(np.geomspace(1, len(climbs), 600).round().astype(int))
    colours = plots.colours([*known.VARIANTS, *known.STARTS])
    ends = {}
    for i, name in enumerate(known.STARTS):
        right.plot(steps, climbs[steps - 1, i], color=colours[name], linewidth=2)
        reached = updates_to_leave(climbs)[i]
        ends[name] = (steps[-1], climbs[-1, i], colours[name])
        if reached:
            right.plot(reached + 1, climbs[reached, i], "o", color=colours[name])
            right.annotate(f"{reached} updates", (reached + 1, climbs[reached, i]), (8, -4), **plots.SMALL_TEXT)
    plots.label_ends(right, ends)
    recorder.figure(figure, "rates_and_plateaus")
