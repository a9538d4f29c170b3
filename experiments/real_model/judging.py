"""What learning has changed: held-out scores before and after in pairs, the KL, answers, and the figure.

Axes: N answers of an evaluation, m answers to a prompt, B answers of an update, k answers of a group, U updates.
"""

from typing import Any, NamedTuple

import numpy as np

from experiments.harness import runner, verdicts
from experiments.real_model import model, task
from experiments.real_model.learning import Judged
from experiments.shared import ranges
from pgjax import diagnostics
from pgjax.saving import weights

SHOWN = 6  # answers that are printed


class Comparison(NamedTuple):
    """Held-out answers before and after the updates, the record of every update, and k."""

    before: Judged
    after: Judged
    history: list[dict[str, Any]]
    group_size: int


def of_groups(values: Any, size: int) -> diagnostics.Estimate:
    """The mean over answers `[N]`, with a t interval over groups of `size`, since answers to one prompt are alike."""
    return diagnostics.mean_interval(np.asarray(values, float).reshape(-1, size).mean(axis=1))


def record_check(opened: model.RealModel, question: str, text: str, recorder: runner.Recorder) -> None:
    """The most likely tokens after a text, and bits per byte: wrong parameters or a wrong tokeniser show here."""
    likely = model.most_likely(opened, question)
    recorder.say(f"after {question!r}: " + ", ".join(f"{token!r} {p:.3f}" for token, p in likely))
    token, probability = likely[0]
    recorder.row(quantity=f"p(next token) after {question!r}", variant=repr(token), ours=probability)
    recorder.row(quantity="bits per byte of a short text", ours=model.bits_per_byte(opened, text))


def say_answers(
    when: str, opened: model.RealModel, prompts: list[str], judged: Judged, size: int, recorder: runner.Recorder
) -> None:
    """Print the first answer to each of some held-out prompts, and keep all answers in the folder of the run."""
    found = task.texts(opened, prompts, judged.buffers)
    lines = [f"{score:.0f}\t{prompt}\t{answer!r}" for score, (prompt, answer) in zip(judged.scores, found, strict=True)]
    recorder.write(f"answers_{when}.tsv", "\n".join(lines) + "\n")
    if recorder.tiny:
        return
    recorder.say(f"Answers to held-out prompts {when} learning; 1 marks one closed sentence:")
    for line in lines[: SHOWN * size : size]:
        recorder.say("  " + line.replace("\t", "  "))


def note_of(record: dict[str, Any]) -> str:
    return f"score {np.mean(record['scores']):.2f}, KL {np.mean(record['kls']):.2f} nats"


def keep(opened: model.RealModel, recorder: runner.Recorder) -> None:
    """Write the trained model in the layout that other programs read."""
    path = recorder.path("model.safetensors")
    weights.save(path, opened.loaded.config, opened.loaded.params)
    recorder.say(f"the trained model: {path.name}")


def record(found: Comparison, size: int, recorder: runner.Recorder) -> None:
    """Rows: the held-out score before and after, the difference in pairs, the KL and the length of answers."""
    tiny, groups = verdicts.is_tiny(recorder), len(found.before.scores) // size
    shown = lambda x: f"95 % t interval {runner.format_interval(float(x.low), float(x.high), digits=3)}"
    not_judged = lambda x: verdicts.say(verdicts.Verdict.NOT_JUDGED, shown(x))
    number = lambda x: {"ours": float(x.value), "stderr": float(x.stderr)}
    for variant, judged in (("before", found.before), ("after", found.after)):
        for quantity, values in (
            ("share of answers that are one closed sentence", judged.scores),
            ("KL to the start, nats an answer", judged.kls),
            ("tokens of an answer", judged.lengths),
        ):
            limits = ranges.SHARE if values is judged.scores else diagnostics.UNBOUNDED
            estimate = diagnostics.within(of_groups(values, size), limits)
            recorder.row(quantity=quantity, variant=variant, verdict=not_judged(estimate), **number(estimate))
    rise = of_groups(found.after.scores - found.before.scores, size)
    aim = verdicts.of_aim(bool(rise.low > 0), "interval above 0", shown(rise), tiny=tiny)
    recorder.row(quantity="rise of the share, in pairs", variant="after − before", verdict=aim, **number(rise))
    seconds = [one["seconds"] for one in found.history]
    recorder.row(quantity="seconds of an update, median", ours=float(np.median(seconds)))
    recorder.note(
        f"The share, the KL and the length are means over {len(found.before.scores)} sampled answers to held-out "
        f"prompts, {size} to each of {groups} draws of a prompt; intervals are over these draws. Before and after use "
        f"the same draws. The model learned for {len(found.history)} updates."
    )


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    if "learn" not in results:
        return
    found: Comparison = results["learn"]
    size = results["config"].judged_answers
    before, after = (of_groups(judged.scores, size) for judged in (found.before, found.after))
    title = (
        f"{len(found.history)} updates of RLOO raise the share of answers that are one closed sentence from "
        f"{float(before.value):.0%} to {float(after.value):.0%} on prompts that were held out"
    )
    caption = (
        f"Left: the mean score of the answers of each update, with t intervals of 95 % over the groups; squares: held-"
        f"out prompts before and after. Right: the mean of Σ ln π/π_start over the same answers. Each update has "
        f"{len(found.history[0]['scores'])} answers in groups of {found.group_size}."
    )
    figure, (left, right) = plots.figure(title, caption, columns=2, width=8.6, height=4.2)
    updates = np.array([one["update"] for one in found.history])
    for axes, name, label in ((left, "scores", "share of closed sentences"), (right, "kls", "KL to the start [nats]")):
        each = [of_groups(one[name], found.group_size) for one in found.history]
        _with_interval(axes, updates - 1, each, plots.PALETTE[0], "o-", "training prompts")
        ends = [of_groups(getattr(judged, name), size) for judged in (found.before, found.after)]
        _with_interval(axes, np.array([0, updates[-1]]), ends, plots.PALETTE[1], "s", "held-out prompts")
        axes.set_xlabel("updates before the answers were sampled")
        axes.set_ylabel(label)
    plots.reference_line(left, float(before.value), "before learning")
    plots.reference_line(right, 0.0, "the start")
    left.set_ylim(0, 1)
    left.legend(loc="lower right", frameon=False)
    recorder.figure(figure, "real_model")


def _with_interval(axes: Any, x: np.ndarray, found: list, colour: str, style: str, label: str) -> None:
    value, low, high = (np.array([float(getattr(one, name)) for one in found]) for name in ("value", "low", "high"))
    axes.errorbar(x, value, yerr=[value - low, high - value], fmt=style, color=colour, capsize=3, label=label)
