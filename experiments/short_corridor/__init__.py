"""How much faster does REINFORCE learn with a baseline? Sutton & Barto's short corridor, figures 13.1 and 13.2.

Claim    A baseline can make REINFORCE learn much faster; with a good step size it comes near v* = −(6 + 4√2) = −11.66.
Source   Sutton & Barto 2018, example 13.1, sections 13.3 and 13.4, figures 13.1 and 13.2; Williams 1992.
Command  python -m experiments.short_corridor
Shows    v(p) by linear solves; the learning curves of both figures, 100 runs of 1000 episodes each: as published (the
         boxed algorithm, no clipping, runs whose p leaves (.001, .999) stopped and counted), with p clipped to
         [.05, .95], as a widely copied program has it, and corrected (one update per episode, whose baseline has not
         seen it); the share of runs that diverge, from more and shorter runs; the mean update at fixed θ, against its
         exact value.
Expect   With the baseline within 1 of v* after 100 episodes, without it after 400 to 1000 or more. Among the runs that
         survive larger steps are faster, but at 2⁻¹² some 4 % go over the edge in the first episodes, nine in ten of
         these stay there, at any cap, and make its mean over all runs the worst; updated once per episode none of them
         does. The box's update is 17 % too short at p = .3 with α_w = 2⁻⁶: its baseline has seen returns that the
         action helped to make. A minute on two CPU cores; `--full` some ten.
Departs  θ₀ = (−1.47, 1.47) for (right, left) is a choice, p = .0502: the box says 0 for example, where nothing is left
         to learn. The exponents of the steps and the 100 runs are second-hand. Episodes are cut at `--cap` steps. The
         reference's −171 over all runs of 2⁻¹² comes without the number of runs: 4 of 100 over the edge make it.
"""

import dataclasses

import jax
import numpy as np

from experiments.harness import runner
from experiments.harness import targets as papers
from experiments.short_corridor import divergence, targets
from experiments.short_corridor import learning as training
from experiments.short_corridor import measurements as measure
from experiments.short_corridor.targets import BASELINE, CLIPPED, CORRECTED, FROM_HALF, PUBLISHED, RELEASED
from pgjax.environments.corridor import BEST_VALUE

PAPER = papers.Paper(
    citation="Sutton & Barto 2018, Reinforcement Learning, 2nd ed., example 13.1, figures 13.1 and 13.2",
    claim="A baseline makes REINFORCE learn much faster on the short corridor.",
    targets=targets.all_targets(),
    pitfalls=(
        "θ₀ = 0, as the box says for example, is p = ½ and v = −12.0: a flat curve. The figures begin near −80.",
        "A widely copied program pays 0 for the last step: its curves end at −10.66, above its own line at −11.6.",
        "The same program clips p to [.05, .95] and takes the clipped policy's score, which is the gradient of no "
        "policy that is played. Clipping hides the runs that diverge, and with them the reason to prefer 2⁻¹³ to 2⁻¹².",
        "Its step sizes are decimal: 2·10⁻⁴, 2·10⁻⁵ and 2·10⁻³, and with the baseline 2·10⁻³ and 2·10⁻². It updates w "
        "before it forms the weight, which shrinks every update by the factor 1 − α_w.",
        "The box updates θ and w at every step of the finished episode. By step t, w has absorbed returns that A_t "
        "helped to make, which multiplies this step of the expected update by (1 − α_w)ᵗ. And ∇ ln f is taken at a θ "
        "that has moved away from the policy that acted, so that the steps to the left of a long episode push it on "
        "and on. The runs at 2⁻¹² diverge for this reason: with one update per episode none of 1000 did in 100 "
        "episodes.",
    ),
)

START, HALF = 1 / (1 + float(np.exp(2.94))), 0.5


@dataclasses.dataclass(frozen=True)
class Method:
    """α_θ, α_w (0: no baseline) and P(right) at the start."""

    step: float
    baseline_step: float = 0.0
    start: float = START


@dataclasses.dataclass(frozen=True)
class Variant:
    """How θ is updated and by which steps, whether p is clipped (then no run is stopped), and R of the last step."""

    methods: dict[str, Method]
    update: str = training.PER_STEP
    clips: bool = False
    last_reward: float = -1.0


POWERS = {name: Method(step) for name, step in zip(targets.STEPS, (2.0**-12, 2.0**-13, 2.0**-14), strict=True)}
POWERS |= {BASELINE: Method(2.0**-9, 2.0**-6), FROM_HALF: Method(2.0**-13, start=HALF)}
# Updating w before it is used multiplies G − w by 1 − α_w, and is written so.
DECIMAL = {"2·10⁻⁴": Method(2e-4), "2·10⁻⁵": Method(2e-5), "2·10⁻³": Method(2e-3)}
DECIMAL |= {BASELINE: Method(2e-3 * (1 - 2e-2), 2e-2), "2·10⁻⁴ from p = ½": Method(2e-4, start=HALF)}
VARIANTS = {
    PUBLISHED: Variant(POWERS),
    CLIPPED: Variant(POWERS, clips=True),
    RELEASED: Variant(DECIMAL, clips=True, last_reward=0.0),
    CORRECTED: Variant(POWERS, update=training.PER_EPISODE),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Options; the defaults are what the README shows."""

    runs: int = 100
    """How many runs each curve averages; the figures average 100, as far as we remember."""
    episodes: int = 1000
    """How many episodes each run has."""
    cap: int = 1000
    """How many steps an episode may take before it is cut."""
    p_min: float = 0.05
    """The clipped variant keeps p in [p_min, 1 − p_min]; the reference has 0.05."""
    decay: float = 0.9
    """The decay per episode of the moving average that is the corrected variant's baseline."""
    short_runs: int = 500
    """How many runs of 100 episodes the shares of diverged runs are counted in."""
    long_cap: int = 4000
    """How many steps an episode may take when a diverged run plays on."""
    samples: int = 40_000
    """How many episodes are sampled at each fixed policy."""
    seed: int = 0
    """The seed of every random number in this experiment."""
    full: bool = False
    """Use 1000 runs for each curve and each share, which takes some ten minutes; the book has the default's 100."""

    def validate(self) -> None:
        papers.full_size(self, FULL)
        for name, least in (("runs", 2), ("episodes", 1), ("cap", 200), ("short_runs", 2), ("samples", 2)):
            option, value = f"--{name.replace('_', '-')}", getattr(self, name)
            runner.require(value >= least, option, value, f"at least {least}")
        runner.require(self.long_cap >= self.cap, "--long-cap", self.long_cap, f"at least --cap, {self.cap}")
        runner.require(0 < self.p_min < 0.5, "--p-min", self.p_min, "in (0, 0.5)")
        runner.require(0 <= self.decay <= 1, "--decay", self.decay, "in [0, 1]")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


FULL = {"runs": 1000, "short_runs": 1000}
TINY = Config(runs=20, episodes=10, short_runs=25, samples=1000)
STOP = 0.999


def settings_of(variant: Variant, config: Config, runs: int) -> tuple[training.Settings, np.ndarray]:
    """Leaves `[L]` and θ₀ `[L, 2]` of all methods, `runs` runs each, one method after another."""
    methods = variant.methods.values()
    each = lambda values: np.repeat(np.array(list(values), np.float32), runs)
    per_episode = variant.update == training.PER_EPISODE
    keep = lambda method: (config.decay if per_episode else 1 - method.baseline_step) if method.baseline_step else 1.0
    settings = training.Settings(
        step=each(method.step for method in methods),
        keep=each(keep(method) for method in methods),
        limit=each(training.log_odds(1 - config.p_min) if variant.clips else np.inf for _ in methods),
        stop=each(np.inf if variant.clips else training.log_odds(STOP) for _ in methods),
        last_reward=each(variant.last_reward for _ in methods),
        moves=np.ones(len(methods) * runs, bool),
    )
    starts = np.stack([training.logits_at(method.start) for method in methods]).astype(np.float32)
    return settings, np.repeat(starts, runs, axis=0)


def train(key: jax.Array, variant: Variant, config: Config, runs: int, episodes: int, advance) -> measure.Curves:
    """All runs of a variant; `advance(n)` is told of every n episodes done."""
    settings, params = settings_of(variant, config, runs)
    state, rows, block = training.start(params), [], 10
    for episode in range(episodes):
        state, row = training.play(
            key,
            settings,
            state,
            np.int32(episode),
            environment=training.corridor(config.cap),
            update=variant.update,
        )
        rows.append(row)
        if (episode + 1) % block == 0 or episode + 1 == episodes:
            jax.block_until_ready(row)
            advance(episode % block + 1)
    return measure.curves(list(variant.methods), rows, state, settings)


def asked(measured: dict[str, papers.Measured], config: Config) -> dict[str, papers.Measured]:
    """Without what is measured on another problem than the reference's, because an option was changed."""
    changed = [field.name for field in dataclasses.fields(config) if getattr(config, field.name) != field.default]
    left_out = targets.left_out(changed)
    return {key: ours for key, ours in measured.items() if key not in left_out}


def run(config: Config, recorder: runner.Recorder) -> dict:
    config = papers.full_size(config, FULL)
    keys = [jax.random.fold_in(jax.random.key(config.seed), i) for i in range(len(VARIANTS) + 3)]
    with recorder.timed("the corridor, solved"), jax.enable_x64(True):
        measured, updates = measure.solved()
    curves = {}
    short = min(config.episodes, 100)
    total = len(VARIANTS) * config.episodes + short
    with recorder.timed("learning curves"), recorder.progress(total, "learning curves", "episodes") as progress:
        for key, (name, variant) in zip(keys, VARIANTS.items()):
            note = lambda n, name=name: progress.advance(n, name)
            curves[name] = train(key, variant, config, config.runs, config.episodes, note)
        note = lambda n: progress.advance(n, "shares of diverged runs")
        counted = Variant({name: POWERS[name] for name in targets.DIVERGED})
        shares = train(keys[-3], counted, config, config.short_runs, short, note)
    with recorder.timed("diverged runs, played on"):
        ends = divergence.played_on(keys[-2], shares, config.long_cap, config.episodes)
    with recorder.timed("updates at fixed policies"):
        measured |= measure.in_episode(keys[-1], updates, config.samples, config.runs * len(POWERS), config.cap)
    measured |= measure.learning(curves)
    diverged = (curves[PUBLISHED], shares, ends, config.long_cap)
    measured |= divergence.divergence(*diverged)
    papers.check(recorder, PAPER, asked(measured, config))
    divergence.record(*diverged, recorder)
    measure.record(curves, recorder)
    np.savez_compressed(
        recorder.path("curves.npz"),
        **{f"{name}, {method}": found for name, each in curves.items() for method, found in each.total_reward.items()},
    )
    return {"config": config, "curves": curves[PUBLISHED], "shares": shares}


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    config, curves = results["config"], results["curves"]
    block = max(n for n in (1, 2, 5, 10) if config.episodes % n == 0 and 10 * n <= max(config.episodes, 10))
    x = np.arange(config.episodes).reshape(-1, block).mean(axis=1) + 1
    figure, both = plots.figure(
        measure.title(curves),
        f"Means over those of {curves.number} runs that did not diverge, each point over {block} episode"
        f"{'s' * (block > 1)}, with {plots.bands(curves.number)}. "
        "A run diverges when p leaves (.001, .999). Left as figure 13.1, right as figure 13.2.",
        columns=2,
        width=13,
        height=4.8,
    )
    colour_of = plots.colours((*targets.STEPS, BASELINE))
    panels = {
        "without a baseline, by step size α": {name: f"α = {name}" for name in targets.STEPS},
        "with a baseline w and without": {BASELINE: "with, α = 2⁻⁹ (w: 2⁻⁶)", "2⁻¹³": "without, α = 2⁻¹³"},
    }
    for axes, (heading, names) in zip(both, panels.items(), strict=True):
        axes.set(xlabel="episode", ylabel="total reward of the episode (−1 per step)")
        axes.set_ylim(-92 if block > 1 else -130, -5)
        axes.set_title(heading, loc="left", fontsize=10)
        axes.axhline(BEST_VALUE, color=plots.INK, linestyle="--", linewidth=1, zorder=3)
        axes.annotate("dashed: v* = −11.66", (0.98, 0.03), xycoords="axes fraction", ha="right", fontsize=9)
        ends = {}
        for name, text in names.items():
            survivors = curves.survivors(name)
            lost = curves.number - len(survivors)
            if len(survivors) > 1:
                text += f" ({lost} of {curves.number} diverged)" * (lost > 0)
                averaged = survivors.reshape(len(survivors), -1, block).mean(axis=2)
                colour = {text: colour_of[name]}
                ends |= plots.learning_curves(axes, x, {text: averaged}, colour_of=colour, named=False)
        plots.label_ends(axes, ends)
    recorder.figure(figure, "short_corridor")
