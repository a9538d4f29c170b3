"""What the experiment expects, fixed before its seeds were run, and the rows that say what came out.

Axes: S seeds, K values of β on the frontier.
"""

from typing import Any

import numpy as np

from experiments.harness import targets as papers
from experiments.harness import verdicts
from experiments.harness.runner import Recorder, format_interval
from experiments.harness.targets import Above, Measured, Target
from experiments.reward_hacking import learning
from experiments.reward_hacking.task import LENGTH, Quality, Task, decode
from pgjax import diagnostics

PLAIN, TASTE, ALONE = REWARDS = ("labels", "labels with a taste for length", "length alone")
DISTANCE = 3.0  # √KL at which the frontiers are compared
ROUNDING = 2e-3  # of a sum over 32 places in float32, in standard deviations of the proxy
WORDS = {
    "length": "characters",
    "gold": "gold",
    "bits": "bits per byte under the reference",
    "kl": "KL to the reference, in nats",
    "entropy": "entropy, in nats",
}


def expectations(config: Any) -> papers.Paper:
    """The claims of this experiment. None of them was published for this task, so none can be red."""
    targets = []
    for key, where in (
        ("frontier", f"exact frontier at √KL = {DISTANCE:g}"),
        ("free", "trained without a penalty"),
        ("penalty", f"trained with β = {config.kl_coef:g}"),
    ):
        what = f"characters: {TASTE} minus {PLAIN}"
        headline = "longer by" if key == "free" else ""
        targets.append(Target(f"longer {key}", what, Above(), variant=where, headline=headline))
        headline = "worse by" if key == "free" else ""
        what = f"gold: {PLAIN} minus {TASTE}"
        targets.append(Target(f"worse {key}", what, Above(), variant=where, headline=headline))
        if key != "frontier":
            what = f"gold: before training minus {ALONE}"
            targets.append(Target(f"alone {key}", what, Above(), variant=where))
            what = f"characters: {ALONE} minus before training"
            targets.append(Target(f"alone longer {key}", what, Above(), variant=where))
    what = "taste for length that the reward model learnt, in nats per character"
    targets.append(Target("taste", what, papers.Within(4.5), variant=TASTE, exact=config.taste))
    targets.append(Target("no taste", what, papers.Within(4.5), variant=PLAIN, exact=0.0))
    return papers.Paper(
        citation="Stiennon et al. 2020; Singhal et al. 2023: length as a reward",
        claim="Rewarding length makes text longer and worse.",
        targets=tuple(targets),
    )


def at_distance(frontiers: Quality, name: str, before: Quality, distance: float = DISTANCE) -> np.ndarray:
    """A quantity `[S, rewards]` of exact frontiers `[S, rewards, K]` at one √KL, between the reference and the end."""
    kl, values = np.sqrt(np.maximum(frontiers.kl, 0.0)), getattr(frontiers, name)
    start = float(getattr(before, name))
    of = lambda x, y: np.interp(distance, np.concatenate([[0.0], x]), np.concatenate([[start], y]))
    return np.array([[of(x, y) for x, y in zip(*rows, strict=True)] for rows in zip(kl, values, strict=True)])


def measured(results: dict, params: np.ndarray) -> dict[str, Measured]:
    before, values = results["before"], results["trained"].values
    plain, taste, alone = range(len(REWARDS))
    found = {
        "taste": Measured.of(params[:, taste, LENGTH]),
        "no taste": Measured.of(params[:, plain, LENGTH]),
    }
    places = {key: {"length": values.length[..., column], "gold": values.gold[..., column]}
              for column, key in enumerate(("free", "penalty"))}  # fmt: skip
    for key, of in places.items():
        found[f"alone {key}"] = Measured.of(float(before.gold) - of["gold"][:, alone])
        found[f"alone longer {key}"] = Measured.of(of["length"][:, alone] - float(before.length))
    places["frontier"] = {name: at_distance(results["frontiers"], name, before) for name in ("length", "gold")}
    for key, of in places.items():
        found[f"longer {key}"] = Measured.of(of["length"][:, taste] - of["length"][:, plain])
        found[f"worse {key}"] = Measured.of(of["gold"][:, plain] - of["gold"][:, taste])
    return found


def record(config: Any, task: Task, results: dict, params: np.ndarray, recorder: Recorder) -> None:
    """Add all rows to the recorder."""
    papers.check(recorder, expectations(config), measured(results, params))
    before, trained = results["before"], results["trained"]
    for name, words in WORDS.items():
        if name != "kl":
            recorder.row(quantity=words, variant="before training, exact", ours=float(getattr(before, name)))
        for row, reward in enumerate(REWARDS):
            for column, beta in ((0, "no penalty"), (1, f"β = {config.kl_coef:g}")):
                runs = getattr(trained.values, name)[:, row, column]
                recorder.row(quantity=words, variant=f"trained, {reward}, {beta}", **_interval(runs))
    _rows_of_regret(config, trained, recorder)
    shown = "; ".join(f"{reward}: {_text(trained, row)}" for row, reward in enumerate(REWARDS))
    recorder.note(f"Answers of the first seed, trained without a penalty; “.” is the end symbol. {shown}.")
    recorder.note(f"The reference was fitted to {task.num_phrases:,} phrases. The dictionary: {', '.join(task.words)}.")


def _interval(values: np.ndarray) -> dict[str, Any]:
    found = diagnostics.mean_interval(np.asarray(values, float))
    text = f"95 % t interval {format_interval(found.low, found.high, digits=3)}"
    verdict = verdicts.say(verdicts.Verdict.NOT_JUDGED, text)
    return {"ours": float(found.value), "stderr": float(found.stderr), "verdict": verdict}


def _text(trained: learning.Trained, row: int) -> str:
    tokens, lengths, _ = (np.asarray(x)[0, row, 0] for x in trained.texts)
    return ", ".join(f"“{decode(answer[:length])}”" for answer, length in zip(tokens, lengths, strict=True))


def _rows_of_regret(config: Any, trained: learning.Trained, recorder: Recorder) -> None:
    """ρ(π*) − ρ(π) of the policies with a penalty, and the identity that it equals β KL(π ‖ π*)."""
    objective = trained.values.proxy - config.kl_coef * trained.values.kl
    regret = (trained.optimum - objective)[..., 1]
    for row, reward in enumerate(REWARDS):
        what = "ρ(π*) − ρ(π), in standard deviations of the proxy"
        recorder.row(quantity=what, variant=f"{reward}, β = {config.kl_coef:g}", **_interval(regret[:, row]))
    gap = float(np.max(np.abs(regret - config.kl_coef * trained.kl_to_optimum[..., 1])))
    recorder.row(
        quantity="greatest |ρ(π*) − ρ(π) − β KL(π ‖ π*)| of a trained policy",
        ours=gap,
        exact=0.0,
        verdict=verdicts.against_exact(gap, 0.0, 0.0, tolerance=ROUNDING),
    )
