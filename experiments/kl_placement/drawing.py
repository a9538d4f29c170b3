"""The figures of parts (a), (c) and (e): the cosines of all forms, and training."""

import numpy as np

from experiments.harness import plots, runner
from experiments.kl_placement.forms import BASE, FORMS, Grades
from experiments.kl_placement.learning import TRAINED, Learned, Recipe
from experiments.kl_placement.long_answers import LongAnswers
from experiments.kl_placement.records import STALLED, WITHIN, first_share


def draw(recipe: Recipe, found: dict[str, Grades], learned: Learned, recorder: runner.Recorder) -> None:
    draws, seeds = len(found[BASE].cosine), len(learned.regrets[BASE])
    last = {name: learned.regrets[name][:, -1].mean() / learned.best for name in TRAINED}
    ends = ", ".join(f"{last[name]:.0%} with {name}" for name in ("k3 in the loss", *STALLED))
    figure, (left, right) = plots.figure(
        f"With k1 in the reward training ends {last[BASE]:.1%} below J*; the gap is {ends}",
        "Left: cosine of the expected gradient of the KL term with ∇KL, median and 5 % to 95 % of "
        f"{draws} random policies, exact; k1 in the loss has none, because its expected gradient is 0. Right: "
        f"exact J* − J(π), RLOO and Adam, {recipe.episodes} answers an update; mean over {seeds} seeds, "
        f"{plots.bands(seeds, 'seeds')}; β = {recipe.kl_coef:g}.",
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


def draw_long_answers(recipe: Recipe, found: LongAnswers, recorder: runner.Recorder) -> None:
    learned = found.learned
    curves = {name: regrets / learned.best for name, regrets in learned.regrets.items()}
    seeds = len(curves[BASE])
    ends = " and ".join(f"{curves[name][:, -1].mean():.0%} with {name}" for name in STALLED)
    figure, axes = plots.figure(
        f"On {found.num_answers:,} answers, k1 in the reward ends {100 * curves[BASE][:, -1].mean():.1g} % below J*; "
        f"the gap is {ends}",
        f"Exact J* − J(π), RLOO and Adam, {recipe.episodes} answers an update; mean over {seeds} seeds, "
        f"{plots.bands(seeds, 'seeds')}; β = {recipe.kl_coef:g}. The policy is a table over {found.num_states} states.",
        width=9,
        height=4.8,
    )
    axes.set(yscale="log", ylim=(1e-6, 10), xlabel="updates", ylabel="(J* − J) / J*")
    plots.reference_line(axes, WITHIN, f"{WITHIN:.0%}")
    plots.reference_line(axes, first_share(learned), "reference")
    # Differences of rounding have no logarithm.
    above = {name: np.maximum(values, 1e-7) for name, values in curves.items()}
    plots.learning_curves(axes, learned.updates, above, colour_of=plots.colours(curves))
    recorder.figure(figure, "kl_placement_long_answers")
