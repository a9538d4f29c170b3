"""Is your REINFORCE right? A museum of wrong ones, each caught by an exact gradient.

Claim    The mistakes that teaching code and libraries make in REINFORCE show in the mean of the estimate. No training
         run is needed to find them: enumerate all episodes of a small problem and compare E[ĝ] with ∇ρ. For nearly all
         mistakes a closed form says what the wrong estimate climbs instead of ρ.
Source   Threads in public repositories, beside each exhibit in `museum.md`; Nota & Thomas 2020 (γᵗ dropped); Shao et
         al. 2024, Liu et al. 2025 (GRPO); Sutton & Barto 2018, section 13.4 (w learned inside the episode).
Command  python -m experiments.wrong_reinforce
Shows    For each exhibit its wrong line, the ratio E[ĝ]·∇ρ / ‖∇ρ‖², the cosine and the relative bias, beside the
         predictions of dynamic programming, and its right twin: pgjax's estimator with the intended convention.
Expect   All wrong exhibits are caught and agree with the predictions to 1e-10. All right twins, and all exhibits that
         were wrongly accused, agree with ∇ρ to 1e-10. Otherwise the run fails. Under a minute on two CPU cores, nearly
         all of it compilation.
Departs  Each exhibit has one mistake, where the original code often had several. It sums over time where the original
         has a mean that is not the mistake. Batches have 1, 2 or G episodes, so that everything can be enumerated.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax

from experiments.harness import runner, verdicts
from experiments.shared.exact_room import Room, make_room
from experiments.wrong_reinforce import measurements as measure
from experiments.wrong_reinforce import page
from experiments.wrong_reinforce.museum import EXHIBITS, Exhibit
from experiments.wrong_reinforce.twins import TWINS

VARIANTS = EXHIBITS


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of this experiment. The defaults give the results that experiments/README.md shows."""

    exhibits: tuple[str, ...] = ()
    """The exhibits that are measured, by their names in the table; all of them if none is given."""
    discount: float = 0.9
    """The discount γ of the exhibits that discount."""
    decay: float = 0.9
    """β in the running mean ρ̂ ← β ρ̂ + (1 − β) G."""
    step_size: float = 0.25
    """α in the update w ← w + α (G − w) of a learned baseline."""
    epsilon: float = 0.2
    """ε of an ε-greedy policy, the probability of a random action."""
    success: float = 0.2
    """p, the probability that an answer in a group is right."""
    group: int = 4
    """G, the number of answers in a group."""
    seed: int = 0
    """The seed of the policy at which everything is measured."""

    def validate(self) -> None:
        known = f"among {', '.join(VARIANTS)}"
        runner.require(set(self.exhibits) <= set(VARIANTS), "--exhibits", ", ".join(self.exhibits), known)
        for name in ("discount", "decay", "step_size", "epsilon", "success"):
            # Close to 0 or 1 some exhibits are hardly wrong.
            value = getattr(self, name)
            runner.require(0.01 <= value <= 0.99, f"--{name.replace('_', '-')}", value, "in [0.01, 0.99]")
        runner.require(3 <= self.group <= 10, "--group", self.group, "in 3, …, 10 (at 2 the factor is 1)")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")

    def chosen(self) -> dict[str, Exhibit]:
        return {name: exhibit for name, exhibit in VARIANTS.items() if name in (self.exhibits or VARIANTS)}

    def room(self) -> Room:
        constants = ("discount", "decay", "step_size", "epsilon", "success", "group")
        return make_room(self.seed, **{name: getattr(self, name) for name in constants})


TINY = Config(
    exhibits=("minus sign forgotten", "batch mean that contains the sample", "γᵗ on top of discounted returns")
)


class Results(NamedTuple):
    """The exhibits, their measurements by name, and the measurements of the twins by key."""

    exhibits: Mapping[str, Exhibit]
    found: Mapping[str, measure.Found]
    twins: Mapping[str, measure.Found]

    def verdicts(self) -> dict[str, str]:
        """The verdicts: of the exhibits by name, and of the twins by label."""
        wrong = {name: not exhibit.innocent for name, exhibit in self.exhibits.items()}
        own = {name: measure.verdict(found, wrong=wrong[name]) for name, found in self.found.items()}
        return own | {TWINS[key].label: measure.verdict(found, wrong=False) for key, found in self.twins.items()}


def run(config: Config, recorder: runner.Recorder) -> Results:
    """Measure and record all exhibits; raises RuntimeError at the end if a verdict is not the expected one."""
    exhibits = config.chosen()
    with recorder.timed("enumeration and predictions"), jax.enable_x64(True):
        found, twins = measure.measure(config.room(), exhibits)
    results = Results(exhibits=exhibits, found=found, twins=twins)
    record(results, recorder)
    recorder.write("museum.md", page.write(exhibits, found, twins, results.verdicts()))
    recorder.note(
        "museum.md shows each wrong line, why it looks right, what it climbs, how to mend it and where it was seen."
    )
    unexpected = {name: word for name, word in results.verdicts().items() if verdicts.otherwise(word)}
    if unexpected:
        raise RuntimeError("; ".join(f"{name}: the verdict is {word}" for name, word in unexpected.items()))
    return results


def record(results: Results, recorder: runner.Recorder) -> None:
    judged = results.verdicts()
    number = lambda x: runner.format_number(0.0 if x is not None and abs(x) < measure.TOLERANCE else x, digits=4)
    recorder.table(
        "E[ĝ] of each exhibit against ∇ρ: length along it (1 is right), cosine, relative bias",
        ("exhibit", "length", "predicted", "cosine", "bias", "twin's bias", "verdict"),
        [
            [
                name,
                number(found.ratio),
                number(found.predicted_ratio),
                number(found.cosine),
                number(found.bias),
                runner.format_number(results.twins[results.exhibits[name].twin].bias, digits=1),
                judged[name],
            ]
            for name, found in results.found.items()
        ],
    )
    for name, found in results.found.items():
        recorder.metrics({"exhibit": name, "line": results.exhibits[name].line, **found._asdict()})
        recorder.row(
            quantity="E[ĝ]·∇ρ / ‖∇ρ‖²",
            variant=name,
            ours=found.ratio,
            exact=found.predicted_ratio,
            verdict=judged[name],
        )
    for name, found in results.found.items():
        recorder.row(
            quantity="‖E[ĝ] − ∇ρ‖ / ‖∇ρ‖",
            variant=name,
            ours=found.bias,
            exact=found.predicted_bias,
            verdict=judged[name],
        )
    for key, found in results.twins.items():
        label = TWINS[key].label
        quantity = "right twin: ‖E[ĝ] − ∇ρ‖ / ‖∇ρ‖"
        recorder.row(quantity=quantity, variant=label, ours=found.bias, exact=0.0, verdict=judged[label])
    misses = [found.miss for found in results.found.values() if found.miss is not None]
    recorder.note(
        "The column of exact numbers comes from dynamic programs and binomial sums, not from enumeration. They predict "
        f"{len(misses)} of {len(results.found)} means, which agree as vectors to {max(misses, default=0.0):.0e} ‖∇ρ‖."
    )


def finding(results: Results) -> str:
    """The sentence in the title: how many exhibits are caught, and how many twins pass. It is made from the data."""
    judged = results.verdicts()
    wrong = [name for name, exhibit in results.exhibits.items() if not exhibit.innocent]
    caught = [name for name in wrong if judged[name] == measure.CAUGHT]
    elsewhere = sum(results.found[name].cosine < 1 - 1e-9 for name in caught)
    passed = sum(judged[TWINS[key].label] == measure.PASSES for key in results.twins)
    return (
        f"{len(caught)} of {len(wrong)} wrong REINFORCEs are caught: {elsewhere} do not point along ∇ρ, "
        f"{len(caught) - elsewhere} do, at another length; {passed} of {len(results.twins)} right twins pass"
    )


def plot(results: Results, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    count = len(results.exhibits)
    caption = (
        "All numbers are exact: every episode of a walk of at most 3 steps is enumerated (every group of answers for "
        "the group's deviation), in float64. Crosses are predictions without enumeration, circles are the right twins. "
        "The exhibits below the line were accused in public and are right on average."
    )
    figure, axes = plots.figure(finding(results), caption, columns=3, width=13.5, height=2.2 + 0.29 * count)
    blue, red, green = plots.PALETTE[:3]
    for row, (name, exhibit) in enumerate(results.exhibits.items()):
        found, twin = results.found[name], results.twins[exhibit.twin]
        colour = blue if exhibit.innocent else red
        predictions = (found.predicted_ratio, None, None if exhibit.innocent else found.predicted_bias)
        for ax, field, predicted in zip(axes, ("ratio", "cosine", "bias"), predictions, strict=True):
            # A logarithmic axis cannot show an exact 0.
            place = (lambda x: max(x, 1e-17)) if field == "bias" else (lambda x: x)
            ax.plot(place(getattr(twin, field)), row, "o", markersize=9, markerfacecolor="none", color=green)
            ax.plot(place(getattr(found, field)), row, "o", markersize=6, color=colour)
            if predicted is not None:
                ax.plot(place(predicted), row, "x", markersize=8, color=plots.INK, markeredgewidth=0.9)
    titles = ("length along ∇ρ: E[ĝ]·∇ρ / ‖∇ρ‖²", "direction: cosine of E[ĝ] and ∇ρ", "‖E[ĝ] − ∇ρ‖ / ‖∇ρ‖")
    innocent = sum(exhibit.innocent for exhibit in results.exhibits.values())
    for ax, title in zip(axes, titles, strict=True):
        ax.set_xlabel(title)
        ax.set_ylim(count - 0.4, -0.6)
        ax.set_yticks(range(count), list(results.exhibits) if ax is axes[0] else [""] * count)
        ax.tick_params(axis="y", length=0)
        if 0 < innocent < count:
            ax.axhline(count - innocent - 0.5, color=plots.GREY, linewidth=1)
    axes[2].set_xscale("log")
    plots.reference_line(axes[2], measure.TOLERANCE, "tolerance of the test", axis="x")
    recorder.figure(figure, "wrong_reinforce")
