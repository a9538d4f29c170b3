"""The rows and tables of parts (a), (b), (c) and (e): the KL term alone, its aggregation, and training."""

import numpy as np

from experiments.harness import runner, verdicts
from experiments.harness.reports import format_number
from experiments.harness.verdicts import Verdict
from experiments.kl_placement.forms import BASE, FORMS, OVER_TIME, Grades
from experiments.kl_placement.learning import Learned, Recipe
from experiments.kl_placement.long_answers import SCORE, LongAnswers
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
    """Record the percentile of our draws at which the digits of one other table of logits lie.

    The spread of that table is not known, and so its digits are not judged.
    """
    for name, printed in ONE_DRAW.items():
        for field, word, text in zip(("norm_ratio", "cosine"), ("norm ratio", "cosine"), printed, strict=True):
            values = getattr(found[name], field)
            percentile = 100 * float(np.mean(values < float(text)))
            recorder.row(
                quantity=f"(a) {word} with ∇KL, median beside one other draw",
                variant=name,
                ours=float(np.median(values)),
                paper=float(text),
                printed=text,
                provenance="own",
                verdict=verdicts.say(Verdict.NOT_JUDGED, f"percentile {percentile:.0f} of our draws"),
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


def record_learning(part: str, task: str, recipe: Recipe, found: Learned, recorder: runner.Recorder) -> None:
    """Record what training leaves: `part` is the letter of the part, `task` names the answers in the table's title."""
    tiny, seeds = verdicts.is_tiny(recorder), len(found.regrets[BASE])
    recorder.row(
        quantity=f"{part} |J* − J(π) − β KL(π ‖ π*)|, largest of all evaluations",
        ours=found.identity,
        exact=0.0,
        verdict=verdicts.against_exact(found.identity, 0.0, 0.0, tolerance=TOLERANCE),
    )
    lines = []
    for name, regrets in found.regrets.items():
        shares = regrets[:, -1] / found.best
        mean, stderr = map(float, diagnostics.mean_and_stderr(shares))
        divergence = diagnostics.mean_and_stderr(found.divergences[name][:, -1])
        span, verdict = f"{shares.min():.2%} to {shares.max():.2%}", str(Verdict.NOT_JUDGED)
        if name == BASE:
            verdict = verdicts.of_aim(bool(shares.max() <= WITHIN), f"≤ {WITHIN:.0%} in every run", span, tiny=tiny)
        elif name in STALLED:
            aim = f"stalls: > {BEYOND:.0%} in every run"
            verdict = verdicts.of_aim(bool(shares.min() > BEYOND), aim, span, tiny=tiny)
        quantity = f"{part} (J* − J) / J* after {recipe.updates} updates"
        recorder.row(quantity=quantity, variant=name, ours=mean, stderr=stderr, verdict=verdict, seconds=found.seconds)
        lines.append([name, format_number(mean, stderr), span, format_number(*map(float, divergence))])
        recorder.metrics({"part": part, "form": name, "updates": found.updates, "regret": regrets})
    headers = ("form", "(J* − J) / J*", "lowest to highest run", "KL(π ‖ π_ref), nats")
    recorder.table(f"{part} {task}: what is left after {recipe.updates} updates, {seeds} seeds", headers, lines)
    recorder.note(
        f"{part} J* = {found.best:.4f}, β = {recipe.kl_coef:g}; the best policy has KL(π* ‖ π_ref) = "
        f"{found.best_divergence:.3f} nats, and the reference itself leaves {first_share(found):.0%} of J*. Numbers "
        "after ± are standard errors over seeds; the seconds are those of all runs together, without compilation."
    )


def first_share(found: Learned) -> float:
    """(J* − J) / J* of the reference, at which every run starts."""
    return float(found.regrets[BASE][0, 0] / found.best)


def record_long_answers(recipe: Recipe, found: LongAnswers, recorder: runner.Recorder) -> None:
    apart = abs(found.enumerated - found.learned.best)
    recorder.row(
        quantity=f"(e) |J* by the dynamic program − J* by all {found.num_answers:,} answers|",
        ours=apart,
        exact=0.0,
        verdict=verdicts.against_exact(apart, 0.0, 0.0, tolerance=TOLERANCE),
    )
    record_learning("(e)", f"Training on {found.num_answers:,} answers", recipe, found.learned, recorder)
    recorder.note(
        f"(e) Tokens a, b, c, d; the score is {SCORE}. The policy is a table of logits over {found.num_states} states "
        "(place, last token, state of the automaton), and it holds π*."
    )
