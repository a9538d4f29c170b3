"""What the experiment expects, and the rows that say what came out.

The header of the experiment tells which choice was made after a first look at its seeds.

Axes: S seeds, C numbers of labels, L of them with trained policies, B values of β, E evaluations.
"""

from typing import Any, NamedTuple

import numpy as np

from experiments.harness import targets as papers
from experiments.harness import verdicts
from experiments.harness.runner import Recorder, format_interval, format_number
from experiments.harness.targets import Above, Measured, Target
from experiments.overoptimization import policies, proxies
from experiments.overoptimization.task import NETWORK, Task
from pgjax import diagnostics, exact

UNIT = "standard deviations of gold"
CLOSE = 0.1  # how near, in standard deviations of gold, a penalised policy should be to the exact frontier
ROUNDING = 1e-3  # of a sum over 65 536 answers in float32


class Trained(NamedTuple):
    """The trained policies: their paths `[L, S, B, E]`, and `policies.beyond_the_optimum` of all of them."""

    paths: policies.Paths
    beyond: float
    labels: tuple[int, ...]


def expectations(config: Any, models: tuple[str, ...]) -> papers.Paper:
    """The claims of this experiment. None of them was published for this task, so none can be red."""
    few, many = config.labels[0], config.labels[-1]
    targets, lowest = [], config.trained_labels[0]
    for name in models:
        for count in (few, many):
            for word, key in (("rise of gold to its peak", "rise"), ("fall of gold from its peak", "fall")):
                what = f"{word}, {count:,} labels, exact frontier up to √KL = {proxies.DISTANCES[-1]:g}, in {UNIT}"
                headline = f"{key} of gold, {count:,} labels, {name}" if name == NETWORK else ""
                targets.append(Target(f"{key} {name} {count}", what, Above(), variant=name, headline=headline))
        what = f"√KL at the peak of gold: {many:,} labels minus {few:,}"
        targets.append(Target(f"peak {name}", what, Above(errors=2.0), variant=name))
        what = f"loss above the entropy floor: {few} labels minus {many}, in nats"
        targets.append(Target(f"learns {name}", what, Above(), variant=name))
    what = f"trained without a penalty on {lowest} labels"
    targets += [
        Target("proxy", "proxy at the end minus at the start", Above(), variant=what),
        Target("trained fall", f"fall of gold from its peak, in {UNIT}", Above(), variant=what),
        Target("entropy", "entropy at the start minus at the end, in nats", Above(), variant=what),
        Target("penalty", f"KL at the end: β = 0 minus β = {config.kl_coefs[-1]}, in nats", Above()),
    ]
    return papers.Paper(
        citation="Gao, Schulman & Hilton 2023; Coste et al. 2024: overoptimisation",
        claim="Optimising a reward model makes gold rise and then fall, and more labels postpone the fall.",
        targets=tuple(targets),
    )


def measured(config: Any, fits: dict[str, proxies.Fitted], trained: Trained) -> dict[str, Measured]:
    found = {}
    for name, fitted in fits.items():
        gold = proxies.at_distances(fitted.frontier, "gold")
        for column in (0, -1):
            for key, values in proxies.rise_and_fall(gold[:, column])._asdict().items():
                found[f"{key} {name} {config.labels[column]}"] = Measured.of(values)
        places, again = proxies.peak_places(gold, proxies.DISTANCES)
        found[f"peak {name}"] = Measured(places[-1] - places[0], float(np.std(again[:, -1] - again[:, 0])))
        excess = np.asarray(fitted.test["excess_loss"])
        found[f"learns {name}"] = Measured.of(excess[:, 0] - excess[:, -1])
    free = policies.Paths(*(x[0, :, 0] for x in trained.paths))
    found["proxy"] = Measured.of(free.proxy[:, -1] - free.proxy[:, 0])
    found["trained fall"] = Measured.of(proxies.rise_and_fall(free.gold).fall)
    found["entropy"] = Measured.of(free.entropy[:, 0] - free.entropy[:, -1])
    last = trained.paths.kl[..., -1]
    found["penalty"] = Measured.of((last[:, :, 0] - last[:, :, -1]).mean(axis=0))
    return found


def record(
    config: Any,
    task: Task,
    fits: dict[str, proxies.Fitted],
    ensembles: dict[str, exact.Frontier],
    trained: Trained,
    recorder: Recorder,
) -> None:
    """Add all rows to the recorder."""
    papers.check(recorder, expectations(config, tuple(fits)), measured(config, fits, trained))
    _row_of_bound(trained, recorder)
    _rows_of_penalties(config, trained, fits[NETWORK], recorder)
    _rows_of_tests(config, fits, recorder)
    _rows_of_ensembles(config, ensembles, recorder)
    _rows_of_forms(config, fits[NETWORK], recorder)
    recorder.note(
        "Gold and proxies have mean 0 and standard deviation 1 under the reference, whose entropy is "
        f"{float(exact.entropy(task.log_probs)):.2f} nats. The peak of a mean over seeds is compared with that of the "
        "other seeds alone, so that noise makes neither a rise nor a fall. Errors of peaks are those of a bootstrap."
    )


def _row_of_bound(trained: Trained, recorder: Recorder) -> None:
    holds = trained.beyond <= ROUNDING
    recorder.row(
        quantity="greatest E[r̂] − β KL of a trained policy minus that of the exact optimum, which cannot exceed 0",
        ours=trained.beyond,
        verdict=str(verdicts.Verdict.AGREES if holds else verdicts.Verdict.WRONG),
    )


def _rows_of_penalties(config: Any, trained: Trained, fitted: proxies.Fitted, recorder: Recorder) -> None:
    """Where a penalty leads: its gold beside that of the exact optimum of the same KL, and of training without it."""
    paths, tiny = trained.paths, verdicts.is_tiny(recorder)
    seeds = range(paths.kl.shape[1])
    for row, count in enumerate(trained.labels):
        free = policies.Paths(*(x[row, :, 0] for x in paths))
        for column, beta in enumerate(config.kl_coefs[1:], 1):
            gold, kl = paths.gold[row, :, column, -1], paths.kl[row, :, column, -1]
            of_seeds = exact.Frontier(*(np.asarray(x)[seeds, config.labels.index(count)] for x in fitted.frontier))
            best = proxies.at_distances(of_seeds, "gold", np.sqrt(np.maximum(kl, 0.0)))[seeds, seeds]
            found = diagnostics.mean_interval(gold - best)
            variant = f"{count:,} labels, β = {beta}, KL {kl.mean():.2f} nats"
            recorder.row(
                quantity=f"gold with a penalty minus gold of the exact frontier at the same KL, in {UNIT}",
                variant=variant,
                ours=float(found.value),
                stderr=float(found.stderr),
                verdict=verdicts.of_aim(abs(float(found.value)) <= CLOSE, f"within ± {CLOSE}", tiny=tiny),
            )
            what = f"gold with a penalty minus gold without one when training passes the same KL, in {UNIT}"
            recorder.row(quantity=what, variant=variant, **_interval(gold - policies.gold_on_the_way(free, kl)))


def _interval(values: np.ndarray) -> dict[str, Any]:
    """The cells of a row that is shown and not judged."""
    found = diagnostics.mean_interval(np.asarray(values, float))
    text = f"95 % t interval {format_interval(found.low, found.high, digits=3)}"
    verdict = verdicts.say(verdicts.Verdict.NOT_JUDGED, text)
    return {"ours": float(found.value), "stderr": float(found.stderr), "verdict": verdict}


def _rows_of_tests(config: Any, fits: dict[str, proxies.Fitted], recorder: Recorder) -> None:
    for name, fitted in fits.items():
        floor = float(np.mean(fitted.test["entropy_floor"]))
        for column, count in enumerate(config.labels):
            excess = np.asarray(fitted.test["excess_loss"])[:, column]
            what = f"expected loss on new pairs above its entropy floor {format_number(floor, digits=3)}, in nats"
            recorder.row(quantity=what, variant=f"{name}, {count:,} labels", **_interval(excess))


def _rows_of_ensembles(config: Any, ensembles: dict[str, exact.Frontier], recorder: Recorder) -> None:
    """The gold that each ensemble reaches and keeps, beside that of one of its members."""
    curves = {name: proxies.at_distances(frontier, "gold") for name, frontier in ensembles.items()}
    for name in ("one model", "mean", "worst", "penalised"):
        gold = curves[name]
        found = proxies.rise_and_fall(gold)
        variant = f"{name}, {config.ensemble_labels} labels" + f", {config.members} members" * (name != "one model")
        recorder.row(quantity=f"gold at its peak, exact frontier, in {UNIT}", variant=variant, **_interval(found.rise))
        end = f"gold at √KL = {proxies.DISTANCES[-1]:.0f}, exact frontier, in {UNIT}"
        recorder.row(quantity=end, variant=variant, **_interval(gold[:, -1]))


def _rows_of_forms(config: Any, fitted: proxies.Fitted, recorder: Recorder) -> None:
    """The published forms of the curves, fitted to the mean gold of ours."""
    kl = np.sqrt(np.maximum(np.asarray(fitted.best_of_n.kl), 0.0)).mean(axis=0)
    best, frontier = np.asarray(fitted.best_of_n.gold).mean(axis=0), proxies.at_distances(fitted.frontier, "gold")
    for column, count in enumerate(config.labels):
        for what, d, gold, logarithmic in (
            ("best-of-n, d(α − β d)", kl[column], best[column], False),
            ("exact frontier, d(α − β ln d)", proxies.DISTANCES, frontier[:, column].mean(axis=0), True),
            ("exact frontier, d(α − β d)", proxies.DISTANCES, frontier[:, column].mean(axis=0), False),
        ):
            alpha, beta, share = proxies.fit_form(d, gold, logarithmic)
            words = f"α = {alpha:.3g}, β = {beta:.3g}"
            recorder.row(
                quantity=f"share of the variance of mean gold that the form explains, {what}",
                variant=f"{count:,} labels",
                ours=share,
                verdict=verdicts.say(verdicts.Verdict.NOT_JUDGED, words),
            )
