"""Four rooms: does a baseline that is too low commit the policy to a bad exit, even with the true action values?

Claim    The baseline decides by more than the variance where learning goes: ε below the best baseline makes a policy
         commit early, ε above it keeps it exploring. Both have the same variance. Clear for the natural gradient, weak
         for the vanilla one.
Source   Chung, Thomas, Machado & Le Roux 2021 (ICML), the four-rooms experiment; settings from the authors' code.
Command  python -m experiments.four_rooms
Shows    The exact value of the policy, and the entropies of its actions and of the cells it visits, as it learns from
         one episode at a time: Σ_t γᵗ (Q(X_t, A_t) − b*(X_t) − ε) ∇ ln f, Q and b* exact; F_s⁺ in front if natural.
         Also: the geometry as it was released, which has no rooms, and action values that know of the horizon.
Expect   After 600 episodes of natural steps the policy is worth 0.2 with ε = −0.5, most runs having lost every exit,
         0.55 with +0.5 and 0.8 with 0; vanilla steps hardly tell −0.5 from +0.5. Action values of the time left learn
         more slowly: the last steps before the cut count for nothing in them. Under a minute on two CPU cores. After
         3000 episodes 0.1, 0.7 and 0.8: with ε = 0 single runs have fallen back, with +0.5 none.
Departs  Published are curves alone: the numbers are an independent reference. Action values and baseline are solved
         for, not iterated. The published code moves θ within an episode, from its last step to its first, and bounds
         probabilities by 1e-6; here all steps of an episode are weighed at one θ, and a gradient sees no logit more
         than 300 below the largest of its cell, where nothing is drawn and 1/π² would overflow.
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
from pgjax import exact
from pgjax.environments import four_rooms as rooms

__all__ = ["PAPER", "TINY", "VARIANTS", "Config", "plot", "run"]

# Geometry, gradient and action values of the curves; the first two are the paper's.
VARIANTS = (
    ("described", "natural", "endless"),
    ("described", "vanilla", "endless"),
    ("released", "natural", "endless"),
    ("described", "natural", "time left"),
)
LOST = 0.01


@dataclasses.dataclass(frozen=True)
class Config:
    """Options; but for `runs` the defaults are the reference's."""

    runs: int = 40
    """How many runs each curve averages; the reference has 20, which leave the last ordering to chance."""
    episodes: int = 600
    """How many episodes a run has, with one update after each."""
    every: int = 25
    """How many episodes lie between two looks at the policy."""
    epsilons: tuple[float, ...] = (-0.5, 0.0, 0.5)
    """The constants ε that are added to the best baseline."""
    natural_step: float = 0.1
    """The step size of the natural gradient."""
    vanilla_step: float = 0.5
    """The step size of the vanilla gradient."""
    horizon: int = 100
    """How many steps an episode may take before it is cut."""
    time_left: bool = True
    """Learn also with the action values of the time that is left."""
    seed: int = 0
    """The seed of all episodes."""
    full: bool = False
    """Use the paper's size, 50 runs of 3000 episodes with seven ε, which takes ten minutes."""

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
    """The value of the best way to each exit alone, its length, and how far the mid-lines are open."""
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
    """The uniform policy's value as the curves begin, solved for, beside that of episodes of 3000 steps."""
    mdp = training.numbered("described", 3000)  # whose rest is worth less than 1e-13
    start = jnp.zeros((mdp.num_states, mdp.num_actions))
    cut = exact.objective(training.POLICY.apply, start, mdp, training.DISCOUNT)
    course = next(iter(curves["described", "natural", "endless"].values()))
    return Measured(float(course.objective[0, 0]), exact=float(cut))


def learn(config: Config, recorder: runner.Recorder) -> Curves:
    """All curves, each a `Course` of NumPy arrays `[runs, N]`."""
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
    """Ours for every target about learning that the options leave comparable."""
    natural, vanilla = (curves["described", method, "endless"] for method in ("natural", "vanilla"))
    measured = {}
    if any(getattr(config, name) != getattr(Config, name) for name in ("natural_step", "vanilla_step", "horizon")):
        return measured  # the reference answers another question
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
    """Rows of what no target asks for, all means as metrics, and every run in `curves.npz`."""
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
    np.savez_compressed(recorder.path("curves.npz"), **raw)


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
        "The value is E[Σ γᵗ R] without a horizon, exact for every policy; ± is the standard error over runs."
    )
    return {"config": config, "curves": curves}


PANELS = {  # of `Course`: what the axis says, and where it ends
    "objective": ("value of the policy", 1.0),
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
        f"{config.runs} runs, {plots.bands(config.runs)}. One update after each episode, its baseline ε above the best "
        "one of each cell; all that is drawn is exact. Dashed: the best ways to the three exits."
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
            plots.learning_curves(axes, looks, lines, colour_of=colour_of)
    recorder.figure(figure, "four_rooms")
