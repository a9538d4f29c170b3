"""Four rooms: does a baseline that is too low commit the policy to a bad exit, even with the true action values?

Claim    The baseline decides where learning goes, and not only through its variance. With a baseline ε below the best
         one the policy commits early; with a baseline ε above it the policy keeps exploring. Both have the same
         variance. The effect is clear for the natural gradient and weak for the vanilla one.
Source   Chung, Thomas, Machado & Le Roux 2021 (ICML), the four-rooms experiment; its settings come from the authors'
         code.
Command  python -m experiments.four_rooms
Shows    The exact value of the policy, and the entropies of its actions and of the cells it visits, as it learns from
         one episode at a time with Σ_t γᵗ (Q(X_t, A_t) − b*(X_t) − ε) ∇ ln f, multiplied by F_s⁺ in the natural
         variant. Q and b* are exact. Two more variants: the geometry of the released code, which has no rooms, and
         action values that know the time left until the horizon.
Expect   After 600 episodes of natural steps the policy is worth 0.2 with ε = −0.5, where most runs have lost every
         exit, 0.55 with +0.5, and 0.8 with 0. Vanilla steps hardly distinguish −0.5 from +0.5. With action values of
         the time left learning is slower, because these count nothing after the cut. Under a minute on two CPU cores.
         After 3000 episodes the values are 0.1, 0.7 and 0.8; single runs with ε = 0 have fallen back, and none with
         +0.5.
Departs  The paper publishes only curves; the numbers here come from an independent reference. Action values and
         baseline are solved for, not iterated. The published code moves θ within an episode, from its last step to its
         first, and bounds probabilities by 1e-6. Here all steps of an episode are weighed at one θ, and the gradient
         sees no logit more than 300 below the largest of its cell; such an action is never drawn, and 1/π² would
         overflow.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.four_rooms import learning as training
from experiments.four_rooms.targets import EXITS, PAPER, REFERENCE, key_of
from experiments.harness import runner
from experiments.harness import targets as papers
from experiments.harness.targets import Measured
from experiments.shared import ranges
from pgjax import exact
from pgjax.environments import four_rooms as rooms

__all__ = ["PAPER", "TINY", "VARIANTS", "Config", "plot", "run"]

# The geometry, gradient and action values of the curves; the first two variants are the paper's.
VARIANTS = (
    ("described", "natural", "endless"),
    ("described", "vanilla", "endless"),
    ("released", "natural", "endless"),
    ("described", "natural", "time left"),
)
LOST = 0.01


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of this experiment; all defaults except `runs` are the reference's."""

    runs: int = 40
    """How many runs each curve averages. The reference has 20, which are too few to decide the last ordering."""
    episodes: int = 600
    """How many episodes a run has, with one update after each."""
    every: int = 25
    """How many episodes lie between two measurements of the policy."""
    epsilons: tuple[float, ...] = (-0.5, 0.0, 0.5)
    """The constants ε, in units of reward, that are added to the best baseline."""
    natural_step: float = 0.1
    """The step size of the natural gradient."""
    vanilla_step: float = 0.5
    """The step size of the vanilla gradient."""
    horizon: int = 100
    """After how many steps an episode is cut."""
    time_left: bool = True
    """Whether a variant with the action values of the time left is run, too."""
    seed: int = 0
    """The seed of all episodes."""
    full: bool = False
    """Use the paper's size, 50 runs of 3000 episodes with seven values of ε, which takes ten minutes."""

    def validate(self):
        require = runner.require
        require(self.runs >= 2, "--runs", self.runs, "at least 2")
        require(self.every >= 1, "--every", self.every, "at least 1")
        allowed = f"a multiple of --every, {self.every}"
        require(self.episodes >= 1 and self.episodes % self.every == 0, "--episodes", self.episodes, allowed)
        require(len(self.epsilons) >= 1, "--epsilons", self.epsilons, "at least one number")
        require(len(set(self.epsilons)) == len(self.epsilons), "--epsilons", self.epsilons, "all different")
        for epsilon in self.epsilons:
            require(math.isfinite(epsilon), "--epsilons", epsilon, "finite")
        require(0 < self.natural_step < math.inf, "--natural-step", self.natural_step, "positive")
        require(0 < self.vanilla_step < math.inf, "--vanilla-step", self.vanilla_step, "positive")
        require(self.horizon >= 14, "--horizon", self.horizon, "at least 14: the best exit is 14 steps away")
        require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


TINY = Config(runs=8, episodes=100, every=50, epsilons=(-0.5, 0.5), time_left=False)
PAPER_SIZE = {"runs": 50, "episodes": 3000, "epsilons": (-1.0, -0.5, -0.3, 0.0, 0.3, 0.5, 1.0)}
Variant = tuple[str, str, str]
Curves = dict[Variant, dict[float, training.Course]]


def geometry_facts(horizon: int) -> dict[str, Measured]:
    """Return the value and the length of the best way to each exit, and how far the mid-lines are open."""
    lengths, measured = {}, {}
    for geometry in rooms.GEOMETRIES:
        mdp = rooms.four_rooms_mdp(geometry, horizon)
        for place, reward in rooms.EXITS.items():
            pays = np.asarray(mdp.successors) == rooms.SIZE * place[0] + place[1]
            alone = dataclasses.replace(mdp, rewards=jnp.asarray(np.where(pays, mdp.rewards, 0.0)))
            best = np.asarray(exact.optimal_action_values(alone, training.DISCOUNT)[0]).max(axis=-1)
            value = float(np.asarray(mdp.initial) @ best)
            length = 1 + math.log(value / reward) / math.log(training.DISCOUNT)
            lengths[geometry, place] = length
            if geometry == "described":
                steps = EXITS[place][2]
                measured[f"value {place}"] = Measured(value, exact=reward * training.DISCOUNT ** (steps - 1))
                measured[f"steps {place}"] = Measured(length, exact=float(steps))
    changed = sum(abs(lengths["described", place] - lengths["released", place]) > 1e-6 for place in rooms.EXITS)
    return measured | {
        "changed": Measured(float(changed)),
        "rooms": Measured(float(rooms.crossings("described"))),
        "no rooms": Measured(float(rooms.crossings("released"))),
    }


def before_learning(curves: Curves) -> Measured:
    """Return the uniform policy's value, solved for, beside that of episodes of 3000 steps."""
    mdp = training.numbered("described", 3000)  # what comes later is worth less than 1e-13
    start = jnp.zeros((mdp.num_states, mdp.num_actions))
    cut = exact.objective(training.POLICY.apply, start, mdp, training.DISCOUNT)
    course = next(iter(curves["described", "natural", "endless"].values()))
    return Measured(float(course.objective[0, 0]), exact=float(cut))


def learn(config: Config, recorder: runner.Recorder) -> Curves:
    """Learn all curves; return each as a `Course` of NumPy arrays `[runs, N]`."""
    steps = {"natural": config.natural_step, "vanilla": config.vanilla_step}
    variants = [variant for variant in VARIANTS if config.time_left or variant[2] != "time left"]
    train = {
        values: training.make_training(config.horizon, config.runs, config.episodes, config.every, values)
        for values in dict.fromkeys(values for _, _, values in variants)
    }
    root, curves = jax.random.key(config.seed), {}
    with recorder.progress(len(variants) * len(config.epsilons), "learning", "curves") as progress:
        for number, (geometry, method, values) in enumerate(variants):
            mdp = training.numbered(geometry, config.horizon)
            found = curves[geometry, method, values] = {}
            for index, epsilon in enumerate(config.epsilons):
                curve = number * len(config.epsilons) + index
                params = train[values](root, curve, epsilon, steps[method], method == "natural", mdp)
                found[epsilon] = jax.tree.map(np.asarray, training.look(params, mdp))
                progress.advance(1, f"{method}, {geometry}, ε = {epsilon:g}")
    return curves


def compare(config: Config, curves: Curves) -> dict[str, Measured]:
    """Return our number for every target about learning that the options leave comparable."""
    natural, vanilla = (curves["described", method, "endless"] for method in ("natural", "vanilla"))
    measured = {}
    if any(getattr(config, name) != getattr(Config, name) for name in ("natural_step", "vanilla_step", "horizon")):
        return measured  # the reference has other settings
    for (method, epsilon), numbers in REFERENCE.items():
        course = curves["described", method, "endless"].get(epsilon)
        for episode in numbers if course is not None else ():
            if episode <= config.episodes and episode % config.every == 0:
                measured[key_of(method, epsilon, episode)] = Measured.of(course.objective[:, episode // config.every])
    if {-0.5, 0.5} <= set(config.epsilons) and config.episodes >= Config.episodes:
        at_end = lambda course, field: Measured.of(getattr(course, field)[:, -1])
        gap = lambda of, field: at_end(of[0.5], field).minus(at_end(of[-0.5], field))
        measured["value"] = gap(natural, "objective")
        measured["actions"] = gap(natural, "action_entropy")
        measured["states"] = gap(natural, "state_entropy")
        measured["weak"] = measured["value"].minus(gap(vanilla, "objective"))
    return measured


def record(config: Config, curves: Curves, compared: dict[str, Measured], recorder: runner.Recorder) -> None:
    """Record rows that no target asks for, all means as metrics, and every run in `curves.npz`."""
    looks = np.arange(0, config.episodes + 1, config.every)
    raw = {"episodes": looks}
    for (geometry, method, values), of_epsilon in curves.items():
        name = f"{method}, {geometry}" + ", Q of the time left" * (values == "time left")
        for epsilon, course in of_epsilon.items():
            at_end = course.objective[:, -1]
            rows = {
                f"value after {config.episodes} episodes": Measured.of(at_end),
                f"share of runs worth < {LOST}": Measured.share(at_end < LOST),
            }
            if (geometry, values) == ("described", "endless") and key_of(method, epsilon, config.episodes) in compared:
                del rows[f"value after {config.episodes} episodes"]
            for quantity, ours in rows.items():
                label = f"{quantity}, ε = {epsilon:g}".replace("-", "−")
                recorder.row(quantity=label, variant=name, ours=ours.value, stderr=ours.stderr)
            which = {"geometry": geometry, "method": method, "values": values, "epsilon": epsilon}
            for field, runs in course._asdict().items():
                raw["_".join(map(str, (*which.values(), field))).replace(" ", "_")] = runs
            for index, episode in enumerate(looks):
                means = {field: Measured.of(runs[:, index]) for field, runs in course._asdict().items()}
                line = which | {"episode": int(episode)} | {field: mean.value for field, mean in means.items()}
                recorder.metrics(line | {f"{field}_stderr": mean.stderr for field, mean in means.items()})
    recorder.write("curves.npz", raw)


def run(config: Config, recorder: runner.Recorder) -> dict:
    config = papers.full_size(config, PAPER_SIZE)
    with jax.enable_x64(True):
        with recorder.timed("geometry"):
            facts = geometry_facts(config.horizon)
        with recorder.timed("learning"):
            curves = learn(config, recorder)
        facts["uniform"] = before_learning(curves)
    compared = compare(config, curves)
    papers.check(recorder, PAPER, facts | compared)
    record(config, curves, compared, recorder)
    recorder.note(
        "The value is E[Σ γᵗ R] without a horizon. It is exact for every policy; ± is the standard error over runs."
    )
    return {"config": config, "curves": curves}


PANELS = {  # field of `Course` → label and end of the axis
    "objective": ("value of the policy (reward)", 1.1),
    "action_entropy": ("entropy of actions (nats)", 1.5),
    "state_entropy": ("entropy of cells visited (nats)", math.log(rooms.SIZE**2)),
}


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    config, curves = results["config"], results["curves"]
    looks = np.arange(0, config.episodes + 1, config.every)
    shown = lambda epsilon: f"{epsilon:+g}".replace("-", "−") if epsilon else "0"
    colour_of = plots.colours([f"ε = {shown(epsilon)}" for epsilon in config.epsilons])
    natural = curves["described", "natural", "endless"]
    ends = [(shown(epsilon), natural[epsilon].objective[:, -1].mean()) for epsilon in sorted(config.epsilons)]
    title = f"With true action values, after {config.episodes} natural steps the policy is worth " + ", ".join(
        f"{value:.2f} at ε = {epsilon}" for epsilon, value in ends
    )
    caption = (
        f"Means over {config.runs} runs, {plots.bands(config.runs)}; every value and entropy is exact. One update "
        "follows each episode; its baseline is ε above the best baseline of each cell. Dashed, from the top: the "
        "values of the best ways to the best, the second and the worst exit."
    )
    figure, grid = plots.figure(title, caption, rows=3, columns=2, width=11, height=9.5)
    for axes_of_row, (field, (label, top)) in zip(grid, PANELS.items(), strict=True):
        for axes, method in zip(axes_of_row, ("natural", "vanilla"), strict=True):
            axes.set(ylabel=label, ylim=(0.0, top), xlim=(0, config.episodes))
            if field == "objective":
                size = {"natural": config.natural_step, "vanilla": config.vanilla_step}[method]
                axes.set_title(f"{method} gradient, step size {size:g}", loc="left", fontsize=10)
                for place, (name, _, steps) in EXITS.items():
                    value = rooms.EXITS[place] * training.DISCOUNT ** (steps - 1)
                    # The learning curves cross the lowest line where its name would stand.
                    plots.reference_line(axes, value, f"{name} exit" if name != "worst" else "")
            if field == "state_entropy":
                axes.set_xlabel("episodes")
            runs = curves["described", method, "endless"]
            lines = {f"ε = {shown(epsilon)}": getattr(course, field) for epsilon, course in runs.items()}
            plots.learning_curves(axes, looks, lines, colour_of=colour_of, bounds=ranges.NOT_NEGATIVE)
    recorder.figure(figure, "four_rooms")
