"""Where does the KL term go? Every estimator, form, placement and aggregation against the exact gradient, and trained.

Claim    The objective E[r] − β KL(π ‖ π_ref) over whole answers has one exact gradient, and the usual ways to write the
         KL term have different expected gradients. k1 = ln(π/π_ref) subtracted from the reward is exact. k1 as a loss
         does nothing. k2 or k3 as a loss of each token, and k3 in the reward, climb something else.
Source   Tang & Munos 2025 (arXiv:2506.09477) and the papers after it (2510.01555, 2512.21852), of which we have read
         abstracts only; Schulman 2020 for k1, k2 and k3; Shao et al. 2024 for k3 as a loss.
Command  python -m experiments.kl_placement
Shows    (a) For many random policies and references: norm ratio, cosine and relative error of the expected gradient of
         each form against the exact ∇KL, and tr Var, by listing all answers. "full" is the divergence over all tokens
         of the vocabulary. (b) The same with an end token, when the term is added up over the answer, divided by its
         length, by the tokens of the batch, or by a constant. (c) Training with RLOO and Adam: J* − J(π) against
         updates, where J* = β ln Σ π_ref e^{r/β} is the value of the best policy π* ∝ π_ref e^{r/β}. (d) The exact
         table: the mean and the covariance matrix of nine estimators × 18 forms × four ways of adding up, against the
         gradient of the whole objective, over all batches of a few answers; all_cells.csv and all_cells.npz hold every
         cell. (e) Training on 4⁸ answers that an automaton scores, with a policy that can hold π*.
Expect   Exact, without exception: k1 in the reward, k2 as a loss of the whole answer's ratio, and k3 or full in the
         reward and in the loss together. Full in both has less than half the variance of k1 in the reward at these
         policies; near the optimum k1 is the quietest, because score and penalty cancel there. Training comes within
         1 % of J* with k1 in the reward. It stalls far below where k1 stands in the loss or k3 in the reward. k1 as a
         loss divided by the length of the answer is the gradient of E[1/|o|], whatever the reference: its descent makes
         answers longer. In (d) every unbiased estimator is exact in the same five cells of the sum, GRPO and
         REINFORCE++ in none. In (e) the two wrong forms end below the reference. About two minutes on two CPU cores.
Departs  A table of logits for every prefix stands for the language model, and one prompt for all prompts. The
         estimators of (d) stand at one policy: the moving average at its expectation, PPO-clip in its first epoch.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import runner
from experiments.kl_placement import cell_moments, cell_records, records
from experiments.kl_placement.answers import Problem, make_problem
from experiments.kl_placement.cells import make_setting
from experiments.kl_placement.forms import OVER_TIME, Grades, grade, inverse_length_gap
from experiments.kl_placement.learning import Recipe, learn
from experiments.kl_placement.long_answers import VOCABULARY, learn_long
from pgjax import diagnostics


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of this experiment. The results page shows the default sizes."""

    vocabulary: int = 4
    """V, the number of tokens. In part (b) the last one ends an answer."""
    length: int = 4
    """T, the number of tokens of the longest answer. There are about V^T answers."""
    spread: float = 0.5
    """The standard deviation of the random logits of the policies and of the references."""
    draws: int = 100
    """Part (a): how many random pairs of a policy and a reference are graded."""
    group_size: int = 3
    """Part (d): k, the number of answers in a batch. They form one group."""
    cell_length: int = 3
    """Part (d): T, the number of tokens of the longest answer. There are two tokens and the end token."""
    sampled_groups: int = 20_000
    """Part (d): the number of batches of the sampled check of one cell."""
    long_length: int = 8
    """Part (e): T, the number of tokens of an answer. There are 4^T answers."""
    kl_coef: float = 0.5
    """Training and part (d): β, in units of reward per nat."""
    seeds: int = 5
    """Training: the number of runs of each form. They start at the same reference."""
    updates: int = 400
    """Training: the number of updates of each run."""
    evaluate_every: int = 20
    """Training: the number of updates between two exact evaluations."""
    episodes: int = 128
    """Training: the number of answers in an update."""
    learning_rate: float = 0.05
    """Training: the learning rate η of Adam at the start. It falls linearly to 0."""
    seed: int = 0
    """The seed of the scores and of the logits, and the first seed of training."""

    def validate(self) -> None:
        # Before they stand in a power.
        runner.require_counts(self, "vocabulary", "length", "group_size", "cell_length", least=2, most=64)
        runner.require_counts(self, "draws", "seeds", "episodes", least=2)
        runner.require_counts(self, "updates", "evaluate_every")
        answers = self.vocabulary**self.length
        runner.require(answers <= 4096, "--length", self.length, f"shorter: V^T is {answers}, must be at most 4096")
        runner.require_counts(self, "group_size", "cell_length", "sampled_groups", least=2)
        batches = (2 ** (self.cell_length + 1) - 1) ** self.group_size
        wanted = f"smaller: there are {batches} batches, at most 100000 with --cell-length {self.cell_length}"
        runner.require(batches <= 100_000, "--group-size", self.group_size, wanted)
        runner.require(2 <= self.long_length <= 9, "--long-length", self.long_length, "in [2, 9]")
        whole = self.updates % self.evaluate_every == 0
        runner.require(whole, "--updates", self.updates, f"a multiple of --evaluate-every {self.evaluate_every}")
        runner.require(0 < self.spread <= 3, "--spread", self.spread, "in (0, 3]")
        runner.require(0.01 <= self.kl_coef <= 100, "--kl-coef", self.kl_coef, "in [0.01, 100]")
        runner.require_rate("--learning-rate", self.learning_rate)
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")

    def recipe(self) -> Recipe:
        return Recipe(
            kl_coef=self.kl_coef,
            episodes=self.episodes,
            updates=self.updates,
            every=self.evaluate_every,
            learning_rate=self.learning_rate,
        )


TINY = Config(
    vocabulary=2,
    length=2,
    draws=3,
    group_size=2,
    cell_length=2,
    sampled_groups=20,
    long_length=2,
    seeds=2,
    updates=2,
    evaluate_every=1,
    episodes=4,
)
CELL_VOCABULARY = 3


def tables(config: Config, problem: Problem, count: int) -> np.ndarray:
    """Draw pairs of logits of a policy and of a reference, `[count, 2, M, V]`."""
    shape = (problem.answers.num_prefixes, problem.answers.vocabulary)
    draw = np.random.default_rng([config.seed, shape[0]]).standard_normal
    return config.spread * draw((count, 2, *shape))


def grade_draws(config: Config) -> tuple[dict[str, Grades], np.ndarray]:
    """Part (a): form → grades `[draws]`, and the divergences `[draws]`."""
    problem = make_problem(config.vocabulary, config.length, eos=False, seed=config.seed)
    of = jax.jit(lambda pairs: jax.lax.map(lambda pair: grade(problem, pair[0], pair[1]), pairs))
    return jax.tree.map(np.asarray, of(jnp.asarray(tables(config, problem, config.draws))))


def grade_aggregations(config: Config) -> tuple[dict[str, dict[str, Grades]], float]:
    """Part (b): way of adding up → form → grades, for one pair of logits; and `inverse_length_gap`."""
    problem = make_problem(config.vocabulary, config.length, eos=True, seed=config.seed)
    pair = jnp.asarray(tables(config, problem, 1)[0])
    of = lambda over_time: jax.jit(lambda pair: grade(problem, pair[0], pair[1], over_time)[0])(pair)
    gap = float(jax.jit(lambda pair: inverse_length_gap(problem, pair[0], pair[1]))(pair))
    return {over_time: jax.tree.map(float, of(over_time)) for over_time in OVER_TIME}, gap


def measure_cells(config: Config) -> tuple[cell_moments.Table, cell_moments.Sampled]:
    """Part (d): the exact table, and one of its cells by sampling."""
    problem = make_problem(CELL_VOCABULARY, config.cell_length, eos=True, seed=config.seed)
    params, reference = jnp.asarray(tables(config, problem, 1)[0])
    setting = make_setting(problem, params, reference, config.kl_coef, config.group_size)
    table = cell_moments.measure(setting)
    key = jax.random.key(config.seed)
    return table, cell_moments.sample_cell(setting, table, key, config.sampled_groups)


def run(config: Config, recorder: runner.Recorder) -> dict:
    with recorder.timed("(a) forms"), jax.enable_x64(True):
        found, divergences = grade_draws(config)
    records.record_forms(found, divergences, recorder)
    with recorder.timed("(b) aggregations"), jax.enable_x64(True):
        aggregated, gap = grade_aggregations(config)
    records.record_aggregations(aggregated, gap, recorder)
    with jax.enable_x64(True):
        problem = make_problem(config.vocabulary, config.length, eos=False, seed=config.seed)
    reference, recipe = tables(config, problem, 1)[0, 1], config.recipe()
    seeds = range(config.seed, config.seed + config.seeds)
    with recorder.timed("(c) training"), recorder.progress(config.updates, "training", "updates") as progress:
        learned = learn(problem, reference, recipe, seeds, progress)
    records.record_learning("(c)", "Training", recipe, learned, recorder)
    with recorder.timed("(d) all cells"), jax.enable_x64(True):
        table, sampled = measure_cells(config)
    grades = cell_moments.grades_of(table)
    cell_records.record(table, grades, sampled, recorder)
    words = f"training on {VOCABULARY}^{config.long_length} answers"
    with recorder.timed(f"(e) {words}"), recorder.progress(config.updates, words, "updates") as progress:
        long = learn_long(config.long_length, config.spread, config.seed, recipe, seeds, progress)
    records.record_long_answers(recipe, long, recorder)
    if few := diagnostics.few_runs(config.seeds, "seeds"):
        recorder.note(few)
    return {
        "config": config,
        "forms": found,
        "aggregations": aggregated,
        "learned": learned,
        "table": table,
        "grades": grades,
        "long": long,
    }


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.kl_placement import cell_drawing, drawing

    recipe = results["config"].recipe()
    drawing.draw(recipe, results["forms"], results["learned"], recorder)
    cell_drawing.draw_heat_map(results["table"], results["grades"], recorder)
    cell_drawing.draw_ellipses(results["table"], recorder)
    drawing.draw_long_answers(recipe, results["long"], recorder)
