"""How much faster does REINFORCE learn with a baseline? Sutton & Barto's short corridor, figures 13.1 and 13.2.

Claim    A baseline can make REINFORCE learn much faster. With a good step size the return comes near the best value, v*
         = −(6 + 4√2) = −11.66.
Source   Sutton & Barto 2018, example 13.1, sections 13.3 and 13.4, figures 13.1 and 13.2; Williams 1992.
Command  python -m experiments.short_corridor
Shows    The value v(p) of the policy that goes right with probability p, by linear solves. The learning curves of both
         figures, 100 runs of 1000 episodes each, in four variants: "as published" is the boxed algorithm of the book,
         without clipping, and a run whose p leaves (.001, .999) is stopped and counted; "p clipped" keeps p in [.05,
         .95]; "as released" is a widely copied program, which clips too, has decimal step sizes and pays 0 for the last
         step; "corrected" makes one update per episode, with a baseline that has not seen the episode. The share of the
         runs that diverge, from more and shorter runs. The mean update at fixed θ, beside its exact value.
Expect   With the baseline the return is within 1 of v* after 100 episodes; without it this takes 400 to 1000 episodes
         or more. Among the runs that survive, larger steps are faster. But at 2⁻¹² about 4 % of the runs diverge in the
         first episodes. Nine in ten of these never come back, whatever the cap, and they make the mean over all runs
         the worst. With one update per episode no run diverges. The mean update of the boxed algorithm is 17 % too
         short at p = .3 with α_w = 2⁻⁶, because its baseline has seen returns that the action helped to make. One
         minute on two CPU cores; `--full` takes about ten.
Departs  The start θ₀ = (−1.47, 1.47) for (right, left), that is p = .0502, is our choice; the book's box gives θ₀ = 0
         as an example, where nothing is left to learn. The exponents of the steps and the number of 100 runs are
         second-hand. Episodes are cut at `--cap` steps. The reference gives −171 for the mean over all runs at 2⁻¹²
         without the number of runs; 4 stuck runs of 100 would make this mean.
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
        "The box of the book gives θ₀ = 0 as an example. There p = ½ and v = −12.0, so the curve is flat. The curves "
        "of the figures begin near −80.",
        "A widely copied program pays 0 for the last step. Its curves therefore end at −10.66, above the line at "
        "−11.6 that it draws.",
        "The same program clips p to [.05, .95] and takes the score of the clipped policy. This is not the gradient "
        "of the policy that acts. Clipping hides the runs that diverge, and with them the reason to prefer 2⁻¹³ to "
        "2⁻¹².",
        "The step sizes of this program are decimal: 2·10⁻⁴, 2·10⁻⁵ and 2·10⁻³ without the baseline; 2·10⁻³ for θ and "
        "2·10⁻² for w with it. It updates w before it forms the weight, which multiplies every update by 1 − α_w.",
        "The boxed algorithm updates θ and w at every step of the finished episode. By step t, w has absorbed returns "
        "that A_t helped to make, which multiplies this step of the expected update by (1 − α_w)ᵗ. It also takes ∇ ln "
        "f at a θ that has moved away from the policy that acted, so the steps to the left of a long episode push θ "
        "further and further. This is why runs diverge at 2⁻¹²: with one update per episode none of 1000 runs "
        "diverged in 100 episodes.",
    ),
)

START, HALF = 1 / (1 + float(np.exp(2.94))), 0.5


@dataclasses.dataclass(frozen=True)
class Method:
    """The step sizes α_θ and α_w (0 stands for no baseline), and P(right) at the start."""

    step: float
    baseline_step: float = 0.0
    start: float = START


@dataclasses.dataclass(frozen=True)
class Variant:
    """How θ is updated, the step sizes, whether p is clipped (then no run is stopped), the reward of the last step."""

    methods: dict[str, Method]
    update: str = training.PER_STEP
    clips: bool = False
    last_reward: float = -1.0


POWERS = {name: Method(step) for name, step in zip(targets.STEPS, (2.0**-12, 2.0**-13, 2.0**-14), strict=True)}
POWERS |= {BASELINE: Method(2.0**-9, 2.0**-6), FROM_HALF: Method(2.0**-13, start=HALF)}
# Updating w before it is used multiplies G − w by 1 − α_w, so the step size α_θ is multiplied by 1 − α_w here.
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
    """The options of this experiment. The results page shows the default sizes."""

    runs: int = 100
    """How many runs each curve averages. The book's figures average 100, as far as we remember."""
    episodes: int = 1000
    """How many episodes each run plays."""
    cap: int = 1000
    """After how many steps an episode is cut."""
    p_min: float = 0.05
    """The clipped variants keep p = P(right) in [p_min, 1 − p_min]. The reference uses 0.05."""
    decay: float = 0.9
    """The decay β per episode of the moving average of returns, which is the baseline of the corrected variant."""
    short_runs: int = 500
    """How many runs of 100 episodes are played to count the share of diverged runs."""
    long_cap: int = 4000
    """After how many steps an episode is cut when a diverged run plays on."""
    samples: int = 40_000
    """How many episodes are sampled at each fixed policy to measure the mean update."""
    seed: int = 0
    """The seed of every random number in this experiment."""
    full: bool = False
    """Use 1000 runs for each curve and each share, which takes about ten minutes. The book has 100."""

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
    """Return the settings, leaves `[L]`, and θ₀ `[L, 2]` of `runs` runs of each method, one method after another."""
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
    """Train all runs of a variant; `advance(n)` is called after every n episodes."""
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
    """Leave out the numbers that a changed option makes incomparable with the reference."""
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
    recorder.write(
        "curves.npz",
        {f"{name}, {method}": found for name, each in curves.items() for method, found in each.total_reward.items()},
    )
    return {"config": config, "curves": curves[PUBLISHED], "shares": shares}


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    config, curves = results["config"], results["curves"]
    block = max(n for n in (1, 2, 5, 10) if config.episodes % n == 0 and 10 * n <= max(config.episodes, 10))
    x = np.arange(config.episodes).reshape(-1, block).mean(axis=1) + 1
    figure, both = plots.figure(
        measure.title(curves),
        f"Each line is the mean over those of {curves.number} runs that did not diverge; each point averages {block} "
        f"episode{'s' * (block > 1)}. Shaded: {plots.bands(curves.number)}. A run diverges when p = P(right) leaves "
        "(.001, .999). Left: figure 13.1 of the book. Right: figure 13.2.",
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
