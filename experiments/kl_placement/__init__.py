"""Where does the KL term go? Every form, placement, level and aggregation against the exact gradient, and trained.

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
         updates, where J* = β ln Σ π_ref e^{r/β} is the value of the best policy π* ∝ π_ref e^{r/β}.
Expect   Exact, without exception: k1 in the reward, k2 as a loss of the whole answer's ratio, and k3 or full in the
         reward and in the loss together. Full in both has less than half the variance of k1 in the reward at these
         policies; near the optimum k1 is the quietest, because score and penalty cancel there. Training comes within
         1 % of J* with k1 in the reward. It stalls far below where k1 stands in the loss or k3 in the reward. k1 as a
         loss divided by the length of the answer is the gradient of E[1/|o|], whatever the reference: its descent makes
         answers longer. About two minutes on two CPU cores.
Departs  A table of logits for every prefix stands for the language model, and one prompt for all prompts.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import runner, verdicts
from experiments.harness.reports import format_number
from experiments.harness.verdicts import Verdict
from experiments.kl_placement.answers import Problem, make_problem
from experiments.kl_placement.forms import BASE, FORMS, OVER_TIME, Grades, grade, inverse_length_gap
from experiments.kl_placement.learning import TRAINED, Learned, Recipe, learn
from pgjax import diagnostics

TOLERANCE = 1e-10
WITHIN, BEYOND = 0.01, 0.1
# Norm ratio and cosine of one random table (V = T = 4, KL 0.758 nats), computed independently of this program.
ONE_DRAW = {
    "k2 in the loss": ("0.844", "0.993"),
    "k3 in the loss": ("0.856", "0.964"),
    "k3 in the reward": ("0.287", "0.609"),
}
STALLED = ("k3 in the reward", "k1 in the loss")


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
    kl_coef: float = 0.5
    """Training: β, in units of reward per nat."""
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
        runner.require_counts(self, "vocabulary", "length", "draws", "seeds", "episodes", least=2)
        runner.require_counts(self, "updates", "evaluate_every")
        answers = self.vocabulary**self.length
        runner.require(answers <= 4096, "--length", self.length, f"shorter: V^T is {answers}, must be at most 4096")
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


TINY = Config(vocabulary=2, length=2, draws=3, seeds=2, updates=2, evaluate_every=1, episodes=4)


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


def number(x: float) -> str:
    return "–" if np.isnan(x) else format_number(0.0 if abs(x) < 1e-9 else float(x), digits=3)


def record_forms(found: dict[str, Grades], divergences: np.ndarray, recorder: runner.Recorder) -> None:
    variance = found[BASE].variance
    lines = []
    for name, form in FORMS.items():
        grades = found[name]
        low, middle, high = np.quantile(grades.cosine, (0.05, 0.5, 0.95))
        cells = [np.median(grades.norm_ratio), middle, np.median(grades.error), np.median(grades.variance / variance)]
        span = "–" if np.isnan(middle) else f"{low:.2f} to {high:.2f}"
        lines.append([name, *map(number, cells[:2]), span, *map(number, cells[2:]), form.expected])
        if form.expected == "biased":
            verdict = verdicts.say(Verdict.NOT_JUDGED, f"5 % to 95 % of the draws: {span}")
            recorder.row(quantity="(a) cosine of E ĝ with ∇KL, median", variant=name, ours=middle, verdict=verdict)
            continue
        quantity = "(a) ‖E ĝ − ∇KL‖ / ‖∇KL‖" if form.expected == "exact" else "(a) ‖E ĝ‖ / ‖∇KL‖"
        worst = float(np.max(grades.error if form.expected == "exact" else grades.norm_ratio))
        verdict = verdicts.against_exact(worst, 0.0, 0.0, tolerance=TOLERANCE)
        recorder.row(quantity=f"{quantity}, largest", variant=name, ours=worst, exact=0.0, verdict=verdict)
    record_one_draw(found, recorder)
    headers = ("form", "norm ratio", "cosine", "5 % to 95 %", "relative error", "tr Var / k1's", "expected gradient")
    title = f"(a) The expected gradient of the KL term alone against ∇KL: medians of {divergences.size} random policies"
    recorder.table(title, headers, lines, headers[1:6])
    recorder.note(
        f"(a) The mean divergence of the drawn policies is {divergences.mean():.2f} nats. tr Var is that of one answer "
        "with the reward-to-go and without a baseline, beside that of k1 in the reward."
    )


def record_one_draw(found: dict[str, Grades], recorder: runner.Recorder) -> None:
    """Record whether the digits of one other table of logits lie among those of our draws."""
    for name, printed in ONE_DRAW.items():
        for field, word, text in zip(("norm_ratio", "cosine"), ("norm ratio", "cosine"), printed, strict=True):
            values = getattr(found[name], field)
            low, high = values.min(), values.max()
            subject = f"our draws: {low:.3f} to {high:.3f}"
            verdict = verdicts.say(verdicts.against_source(bool(low <= float(text) <= high), "own"), subject)
            if verdicts.is_tiny(recorder):
                verdict = verdicts.say(Verdict.NOT_JUDGED, verdicts.TINY_RUN)
            recorder.row(
                quantity=f"(a) {word} with ∇KL, median beside one other draw",
                variant=name,
                ours=float(np.median(values)),
                paper=float(text),
                printed=text,
                provenance="own",
                verdict=verdict,
            )


def record_aggregations(found: dict[str, dict[str, Grades]], gap: float, recorder: runner.Recorder) -> None:
    lines = []
    recorder.row(
        quantity="(b) ‖E ĝ − ∇E[1/|o|]‖ / ‖∇E[1/|o|]‖, 1/|o|",
        variant="k1 in the loss",
        ours=gap,
        exact=0.0,
        verdict=verdicts.against_exact(gap, 0.0, 0.0, tolerance=TOLERANCE),
    )
    for name, form in FORMS.items():
        lines.append([name, *(number(found[over_time][name].cosine) for over_time in OVER_TIME)])
        for over_time in ("sum", "horizon"):
            if form.expected == "exact":
                apart = abs(found[over_time][name].cosine - 1.0)
                quantity = f"(b) 1 − cosine of E ĝ with ∇KL, {OVER_TIME[over_time]}"
                verdict = verdicts.against_exact(apart, 0.0, 0.0, tolerance=TOLERANCE)
                recorder.row(quantity=quantity, variant=name, ours=apart, exact=0.0, verdict=verdict)
    for over_time in ("episode_mean", "mean"):
        for name in (BASE, "k1 in the loss", "k3 in the loss"):
            quantity = f"(b) cosine of E ĝ with ∇KL, {OVER_TIME[over_time]}"
            recorder.row(
                quantity=quantity,
                variant=name,
                ours=found[over_time][name].cosine,
                verdict=str(Verdict.NOT_JUDGED),
            )
    headers = ("cosine with ∇KL", *OVER_TIME.values())
    recorder.table("(b) Answers of different lengths, and four ways of adding up the KL term", headers, lines)
    recorder.note(
        "(b) One pair of a policy and a reference; batches of two answers where the batch's tokens are the divisor. A "
        "dash stands for an expected gradient of 0."
    )


def record_learning(config: Config, found: Learned, recorder: runner.Recorder) -> None:
    tiny = verdicts.is_tiny(recorder)
    recorder.row(
        quantity="(c) |J* − J(π) − β KL(π ‖ π*)|, largest of all evaluations",
        ours=found.identity,
        exact=0.0,
        verdict=verdicts.against_exact(found.identity, 0.0, 0.0, tolerance=TOLERANCE),
    )
    lines = []
    for name in TRAINED:
        shares = found.regrets[name][:, -1] / found.best
        mean, stderr = map(float, diagnostics.mean_and_stderr(shares))
        divergence = diagnostics.mean_and_stderr(found.divergences[name][:, -1])
        span, verdict = f"{shares.min():.2%} to {shares.max():.2%}", str(Verdict.NOT_JUDGED)
        if name == BASE:
            verdict = verdicts.of_aim(bool(shares.max() <= WITHIN), f"≤ {WITHIN:.0%} in every run", span, tiny=tiny)
        elif name in STALLED:
            aim = f"stalls: > {BEYOND:.0%} in every run"
            verdict = verdicts.of_aim(bool(shares.min() > BEYOND), aim, span, tiny=tiny)
        quantity = f"(c) (J* − J) / J* after {config.updates} updates"
        recorder.row(quantity=quantity, variant=name, ours=mean, stderr=stderr, verdict=verdict, seconds=found.seconds)
        lines.append([name, format_number(mean, stderr), span, format_number(*map(float, divergence))])
        recorder.metrics({"form": name, "updates": found.updates, "regret": found.regrets[name]})
    headers = ("form", "(J* − J) / J*", "lowest to highest run", "KL(π ‖ π_ref), nats")
    recorder.table(f"(c) Training: what is left after {config.updates} updates, {config.seeds} seeds", headers, lines)
    recorder.note(
        f"(c) J* = {found.best:.4f}, β = {config.kl_coef:g}; the best policy has KL(π* ‖ π_ref) = "
        f"{found.best_divergence:.3f} nats. Numbers after ± are standard errors over seeds; the seconds are those of "
        "all runs together, without compilation."
    )
    if few := diagnostics.few_runs(config.seeds, "seeds"):
        recorder.note(few)


def run(config: Config, recorder: runner.Recorder) -> dict:
    with recorder.timed("(a) forms"), jax.enable_x64(True):
        found, divergences = grade_draws(config)
    record_forms(found, divergences, recorder)
    with recorder.timed("(b) aggregations"), jax.enable_x64(True):
        aggregated, gap = grade_aggregations(config)
    record_aggregations(aggregated, gap, recorder)
    with jax.enable_x64(True):
        problem = make_problem(config.vocabulary, config.length, eos=False, seed=config.seed)
    reference = tables(config, problem, 1)[0, 1]
    seeds = range(config.seed, config.seed + config.seeds)
    with recorder.timed("(c) training"), recorder.progress(config.updates, "training", "updates") as progress:
        learned = learn(problem, reference, config.recipe(), seeds, progress)
    record_learning(config, learned, recorder)
    return {"config": config, "forms": found, "aggregations": aggregated, "learned": learned}


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    config, found, learned = results["config"], results["forms"], results["learned"]
    last = {name: learned.regrets[name][:, -1].mean() / learned.best for name in TRAINED}
    ends = ", ".join(f"{last[name]:.0%} with {name}" for name in ("k3 in the loss", *STALLED))
    figure, (left, right) = plots.figure(
        f"With k1 in the reward training ends {last[BASE]:.1%} below J*; the gap is {ends}",
        "Left: cosine of the expected gradient of the KL term with ∇KL, median and 5 % to 95 % of "
        f"{config.draws} random policies, exact; k1 in the loss has none, because its expected gradient is 0. Right: "
        f"exact J* − J(π), RLOO and Adam, {config.episodes} answers an update; mean over {config.seeds} seeds, "
        f"{plots.bands(config.seeds, 'seeds')}; β = {config.kl_coef:g}.",
        columns=2,
        width=14,
        height=5.6,
    )
    colour_of = plots.colours(TRAINED)
    for row, name in enumerate(FORMS):
        low, middle, high = np.quantile(found[name].cosine, (0.05, 0.5, 0.95))
        colour = colour_of.get(name, plots.GREY)
        if np.isnan(middle):
            left.text(0, row, "expected gradient 0", va="center", ha="center", color=colour, fontsize=9)
            continue
        left.plot([low, high], [row, row], color=colour, linewidth=2.5, alpha=0.6)
        left.plot(middle, row, "o", color=colour, markersize=6)
    left.set_yticks(range(len(FORMS)), list(FORMS))
    left.set(ylim=(len(FORMS) - 0.5, -0.5), xlabel="cosine of E ĝ with ∇KL (1 is right)")
    plots.reference_line(left, 1.0, "exact", axis="x")
    right.set(yscale="log", xlabel="updates", ylabel="(J* − J) / J*")
    plots.reference_line(right, WITHIN, f"{WITHIN:.0%}")
    curves = {name: learned.regrets[name] / learned.best for name in TRAINED}
    plots.learning_curves(right, learned.updates, curves, colour_of=colour_of)
    recorder.figure(figure, "kl_placement")
