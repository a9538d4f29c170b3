"""Step size: what exactly goes wrong when the step is too large? The noise, the step, or both?

Claim    With a small step REINFORCE is slow. With a large one, single lucky episodes make the policy sure of something
         wrong, where hardly anything else is tried and the gradient is flat: the runs are stuck. A baseline allows
         larger steps. The exact gradient with the same step does not get stuck, until the step is too large for the
         curvature.
Source   Williams 1992 (REINFORCE); Chung et al. 2021 (over-commitment); Mei et al. 2020 (flat gradients of softmax).
Command  python -m experiments.step_size
Shows    Final return, entropy and share of stuck runs against the step size, for plain ascent with one episode in each
         update, on three arms (1, 0.7, 0) and on the short corridor of at most 20 steps: without a baseline, with the
         moving average ρ̂, with ρ(θ) itself, and for the exact gradient. The returns and entropies of final policies
         are exact.
Expect   In the bandit, at the largest step half the runs are stuck without a baseline and with ρ̂, a third with ρ(θ),
         and none with the exact gradient at any step. In the corridor runs get stuck at steps several times below 2/λ,
         where λ is the curvature at the best policy; above 2/λ exact ascent oversteps. A quarter of a minute on two CPU
         cores.
Departs  The moving average has β = 0.9 and starts at the first return, as in the lecture.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import runner
from experiments.harness import targets as papers
from experiments.shared import one_step
from experiments.step_size import targets as known
from experiments.step_size.targets import AVERAGE, BANDIT, CORRIDOR, EXACT, VALUE, VARIANTS, Problem
from pgjax import baselines, estimators, exact, rollouts
from pgjax.types import Estimator

PAPER = known.PAPER
DECAY = 0.9
TABLE = one_step.table(2)  # as many columns as θ has


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of this experiment. The results page shows the default sizes."""

    runs: int = 200
    """How many runs the bandit has for every step size and baseline. The corridor has a quarter of them."""
    updates: int = 1000
    """How many updates of one episode each run of the bandit has. The corridor has half as many."""
    problems: tuple[str, ...] = (BANDIT, CORRIDOR)
    """Which problems are run: bandit, or bandit and corridor."""
    seed: int = 0
    """The seed of the episodes, which all step sizes and baselines share."""

    def validate(self) -> None:
        runner.require(self.runs >= 40, "--runs", self.runs, "at least 40")
        runner.require(self.updates >= 20, "--updates", self.updates, "at least 20")
        chosen = set(self.problems)
        allowed = f"{BANDIT}, with or without {CORRIDOR}"
        runner.require({BANDIT} <= chosen <= {BANDIT, CORRIDOR}, "--problems", " ".join(self.problems), allowed)
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


TINY = Config(runs=40, updates=100, problems=(BANDIT,))


class Final(NamedTuple):
    """Exact numbers of final policies: ρ(θ), entropy in nats, ‖∇ρ‖, and whether the run is stuck, `[...]` each."""

    returns: np.ndarray
    entropy: np.ndarray
    gradient: np.ndarray
    stuck: np.ndarray


def estimator_at(variant: jax.Array, update: jax.Array, value: jax.Array) -> Estimator:
    """REINFORCE with the baseline VARIANTS[variant] in update 0, 1, …; everything may be traced.

    ρ̂ stays at its start, 0, with β = 1, and becomes the first return with β = 0.
    """
    average = variant == VARIANTS.index(AVERAGE)
    decay = jnp.where(average, jnp.where(update == 0, 0.0, DECAY), 1.0)
    shift = jnp.where(variant == VARIANTS.index(VALUE), value, 0.0)
    baseline = baselines.shifted(baselines.moving_average(decay), shift)
    return estimators.make_estimator(TABLE, returns=estimators.total_return(), baseline=baseline)


def reinforce(problem: Problem, config: Config, runs: int, updates: int) -> np.ndarray:
    """Return final θ `[V, N, runs, 1, A]` for V variants and N step sizes, all with the same random numbers."""
    environment = exact.to_environment(problem.mdp)
    mdp = environment.params
    keys = jax.random.split(jax.random.key(config.seed), runs)

    def learn(key, variant, step_size, params, state, update):
        trajectory = rollouts.episodes(environment, TABLE, params, key[None])
        estimator = estimator_at(variant, update, exact.objective(TABLE.apply, params, mdp))
        gradient, state, _ = estimator.gradient(params, state, trajectory)
        return params + step_size * gradient, state

    over_steps = jax.vmap(learn, (None, None, 0, 0, 0, None))
    over_variants = jax.vmap(over_steps, (None, 0, None, 0, 0, None))
    over_runs = jax.vmap(over_variants, (0, None, None, 0, 0, None))

    def one(carry, update):
        update_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, update)
        return over_runs(update_keys, jnp.arange(len(VARIANTS)), step_sizes, *carry, update), None

    step_sizes = jnp.asarray([2.0**power for power in problem.powers])
    params = jnp.asarray(problem.start)[None]
    sample = jax.eval_shape(lambda: rollouts.episodes(environment, TABLE, params, keys[:1]))
    start = (params, baselines.moving_average(DECAY).init(keys[0], sample))
    shape = (runs, len(VARIANTS), len(step_sizes))
    start = jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *x.shape)), start)
    final, _ = jax.jit(lambda start: jax.lax.scan(one, start, jnp.arange(updates))[0])(start)
    return np.moveaxis(np.asarray(final), 0, 2)


def ascend(problem: Problem, updates: int) -> np.ndarray:
    """Return final θ `[N, 1, A]` of exact gradient ascent with each step size."""
    step_sizes = jnp.asarray([2.0**power for power in problem.powers])
    start = jnp.asarray(problem.start)[None]

    def one(params, step_size):
        update = lambda params, _: (params + step_size * exact.exact_gradient(TABLE.apply, params, problem.mdp), None)
        return jax.lax.scan(update, params, length=updates)[0]

    return np.asarray(jax.jit(jax.vmap(one, (None, 0)))(start, step_sizes))


def examine(problem: Problem, *groups: np.ndarray) -> list[Final]:
    """Evaluate groups of policies `[..., 1, A]` exactly; the best ρ(θ) is the greatest of the first group."""
    objective = lambda theta: exact.objective(TABLE.apply, theta, problem.mdp)
    length = lambda theta: jnp.linalg.norm(exact.exact_gradient(TABLE.apply, theta, problem.mdp))
    entropy = lambda theta: TABLE.distribution.entropy(TABLE.apply(theta, problem.mdp.observations[0]))
    flat = np.concatenate([np.asarray(group, np.float64).reshape(-1, *group.shape[-2:]) for group in groups])
    found = jax.jit(jax.vmap(lambda theta: (objective(theta), entropy(theta), length(theta))))(flat)
    returns, entropies, lengths = map(np.asarray, found)
    first, *_ = cuts = np.cumsum([np.prod(group.shape[:-2], dtype=int) for group in groups])
    best = returns[:first].max()
    low = returns < best - known.TENTH * (best - problem.worst)
    everything = (returns, entropies, lengths, low & (entropies < known.SURE))
    parts = zip(*(np.split(x, cuts[:-1]) for x in everything), strict=True)
    return [Final(*(x.reshape(group.shape[:-2]) for x in part)) for group, part in zip(groups, parts, strict=True)]


def curvature(problem: Problem, params: np.ndarray) -> float:
    """Return λ, the greatest curvature −∇²ρ at θ `[1, A]`: ascent with a step above 2/λ leaves a maximum."""
    gradient = lambda theta: exact.exact_gradient(TABLE.apply, theta[None], problem.mdp)[0]
    return float(-jnp.linalg.eigvalsh(jax.jit(jax.jacfwd(gradient))(jnp.asarray(params[0])))[0])


class Outcome(NamedTuple):
    """The results of one problem: exact ascent `[N]`, REINFORCE `[V, N, runs]`, and 2/λ at the best policy."""

    ascent: Final
    trained: Final
    limit: float


def train(name: str, config: Config, runs: int, updates: int) -> Outcome:
    trained = reinforce(known.problems()[name], config, runs, updates)
    with jax.enable_x64(True):
        problem = known.problems()[name]
        climbed = ascend(problem, updates)
        ascent, final = examine(problem, climbed, trained)
        # The bandit's maximum lies at infinity, where the curvature is 0 and no step is too large.
        limit = 2.0 / curvature(problem, climbed[ascent.returns.argmax()]) if name == CORRIDOR else np.inf
    return Outcome(ascent=ascent, trained=final, limit=limit)


def run(config: Config, recorder: runner.Recorder) -> dict:
    sizes = {BANDIT: (config.runs, config.updates), CORRIDOR: (config.runs // 4, config.updates // 2)}
    found = {}
    with recorder.progress(len(config.problems), "problems", "problems") as progress:
        for name in config.problems:
            with recorder.timed(name):
                found[name] = train(name, config, *sizes[name])
            progress.advance(1, name)
    measured = measure_bandit(found[BANDIT])
    recorder.note(
        f"The bandit has {config.runs} runs, the corridor a quarter of them. A run is stuck if its entropy is below "
        f"{known.SURE} nats and its ρ(θ) is more than a tenth of its range below the best."
    )
    if CORRIDOR in found:
        of_corridor = measure_corridor(found[CORRIDOR])
        # With few updates exact ascent has not settled at any step, so its largest settling step is unknown.
        settled = config.updates >= Config.updates
        measured |= of_corridor if settled else {"corridor stuck": of_corridor["corridor stuck"]}
        recorder.note(f"In the corridor 2/λ is {found[CORRIDOR].limit:.4f}; λ is the curvature of ρ at its maximum.")
    papers.check(recorder, PAPER, measured, left_out=known.left_out(config.problems))
    record(found, recorder)
    return {"sizes": sizes, "found": found}


ours = papers.Measured.of


def measure_bandit(found: Outcome) -> dict[str, papers.Measured]:
    bandit = found.trained
    plain, average, value = range(len(VARIANTS))
    best = bandit.returns[plain].mean(axis=1).argmax()
    gain = lambda i: ours(bandit.returns[plain, best] - bandit.returns[plain, i])
    over_steps = bandit.stuck.mean(axis=1)
    return {
        **{f"stuck {name}": papers.Measured.share(bandit.stuck[i, -1]) for i, name in enumerate(VARIANTS)},
        "exact never stuck": papers.Measured(float(found.ascent.stuck.sum())),
        "too small": gain(0),
        "too large": gain(-1),
        "value helps": ours(over_steps[plain] - over_steps[value]),
        "average helps": ours(over_steps[plain] - over_steps[average]),
        "entropy": ours(bandit.entropy[plain, 0] - bandit.entropy[plain, -1]),
    }


def measure_corridor(found: Outcome) -> dict[str, papers.Measured]:
    step_sizes = 2.0 ** np.array(known.problems()[CORRIDOR].powers)
    stuck = found.trained.stuck[VARIANTS.index(AVERAGE)]
    settled = (found.ascent.gradient < 1e-6) & (found.ascent.returns > found.ascent.returns.max() - 1e-6)
    some = stuck.any(axis=1)
    # NaN, which no rule accepts, if every step has a stuck run or is beyond 2/λ.
    free = max(step_sizes[: np.argmax(some) if some.any() else None], default=np.nan)
    below = float(max(step_sizes[step_sizes <= found.limit], default=np.nan))
    return {
        "corridor stuck": papers.Measured.share(stuck[-1]).minus(papers.Measured.share(stuck[0])),
        "limit": papers.Measured(float(max(step_sizes[settled], default=np.nan)), exact=below),
        "noise first": papers.Measured(float(np.log2(found.limit / free))),
    }


def record(found: dict[str, Outcome], recorder: runner.Recorder) -> None:
    """Record the best step of each variant as a row, and every step size in `metrics.jsonl`."""
    for name, outcome in found.items():
        problem = known.problems()[name]
        variants = {variant: Final(*(x[i] for x in outcome.trained)) for i, variant in enumerate(VARIANTS)}
        variants[EXACT] = Final(*(x[:, None] for x in outcome.ascent))
        for variant, final in variants.items():
            rows = [{part: ours(runs) for part, runs in zip(Final._fields, columns)} for columns in zip(*final)]
            for power, row in zip(problem.powers, rows, strict=True):
                numbers = {part: dataclasses.asdict(x) for part, x in row.items()}
                recorder.metrics({"problem": name, "variant": variant, "step_size": 2.0**power, **numbers})
            best = max(range(len(rows)), key=lambda i: rows[i]["returns"].value)
            value, stderr = rows[best]["returns"].value, rows[best]["returns"].stderr
            recorder.row(
                quantity=f"{name}, ρ(θ) at the best step, 2^{problem.powers[best]}",
                variant=variant,
                ours=value,
                stderr=None if variant == EXACT else stderr,
            )


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    sizes, found = results["sizes"], results["found"]
    bandit = found[BANDIT]
    plain, value = 100 * bandit.trained.stuck[[0, -1], -1].mean(axis=1)
    corridor = ""
    if CORRIDOR in found and measure_corridor(found[CORRIDOR])["noise first"].value > 1:
        corridor = ". In the corridor runs get stuck far below 2/λ, where the exact gradient oversteps"
    title = (
        f"With a large step {plain:.0f} % of REINFORCE's runs get stuck on a lesser arm, {value:.0f} % with b = ρ(θ), "
        f"{100 * bandit.ascent.stuck.mean():.0f} % with the exact gradient" + corridor
    )
    which = "; ".join(f"{name}: {sizes[name][0]} runs of {sizes[name][1]} updates" for name in found)
    curvature_of = " λ is the curvature of ρ at its maximum." * (CORRIDOR in found)
    caption = (
        f"Plain ascent, one episode in each update; {which}. Means and 95 % t bands; ρ(θ) and entropy are exact. "
        f"Dashed: the exact gradient. A run is stuck if its entropy is below {known.SURE} nats and its ρ(θ) is more "
        f"than a tenth of its range below the best.{curvature_of}"
    )
    height = 3.5 * len(found) + 0.5
    figure, grid = plots.figure(title, caption, rows=len(found), columns=3, width=13, height=height)
    colour_of = plots.colours(VARIANTS)
    labels = {"returns": "final ρ(θ)", "entropy": "final entropy (nats)", "stuck": "runs stuck (%)"}
    for row, (name, outcome) in zip(np.atleast_2d(grid), found.items(), strict=True):
        x = 2.0 ** np.array(known.problems()[name].powers)
        for axes, (part, label) in zip(row, labels.items(), strict=True):
            scale = 100 if part == "stuck" else 1
            runs, climbed = (scale * getattr(final, part).astype(float) for final in (outcome.trained, outcome.ascent))
            axes.set(xlabel="step size η", ylabel=label)
            axes.set_xscale("log", base=2)
            axes.set_title({BANDIT: "three arms", CORRIDOR: "short corridor"}[name], loc="left", fontsize=10)
            axes.plot(x, climbed, "--", color=plots.INK, linewidth=1.5, zorder=3)
            if name == CORRIDOR:
                plots.reference_line(axes, outcome.limit, "2/λ", axis="x")
            curves = {variant: runs[i].T for i, variant in enumerate(VARIANTS)}
            limits = {"bounds": (0.0, 100.0)} if part == "stuck" else {}
            ends = plots.learning_curves(axes, x, curves, colour_of=colour_of, named=False, **limits)
            ends[EXACT] = (x[-1], climbed[-1], plots.INK)
            if part == "stuck":
                plots.label_ends(axes, ends)
    recorder.figure(figure, "step_size")
