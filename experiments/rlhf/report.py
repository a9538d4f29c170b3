"""What a run of the loop shows: pairs for a person, lines of progress, the table, answers and the figure."""

import json
from typing import Any

import jax
import numpy as np

from experiments.harness import runner, verdicts
from experiments.rlhf import keys, others, stages
from experiments.shared import language, ranges
from pgjax.environments.text import TextBuffer

REFERENCE = "reference.safetensors"
SHOWN = 4  # answers that are printed for each combination

# Names of the numbers of an evaluation, and how they are called in the table.
QUANTITIES = {
    "gold": "gold score",
    "proxy": "proxy score",
    "kl": "KL to the reference, nats",
    "correlation": "correlation of proxy and gold",
    "entropy": "entropy, nats per token",
    "distinct_2": "distinct pairs of words",
    "length": "length, tokens",
    "ended": "answers with EOS",
    "words": "gold: known words",
    "closed": "gold: closed sentences",
    "fresh": "gold: without repetition",
    "bits_per_byte": "bits per byte, held-out sentences",
}

# The same for the numbers of a reward model.
OF_FITS = {
    "loss": "reward model: loss, labels of the fit, nats",
    "held_out_loss": "reward model: loss, held-out labels, nats",
    "entropy_floor": "reward model: entropy of the held-out labels, the floor, nats",
    "excess_loss": "reward model: expected held-out loss above the floor, nats",
    "accuracy": "reward model: accuracy, labels of the fit",
    "held_out_accuracy": "reward model: accuracy, held-out labels",
}


def texts(buffers: TextBuffer) -> list[tuple[str, str]]:
    """Prompt and answer of buffers with leaves `[B, ...]`."""
    found = []
    for tokens, length, start in zip(*map(np.asarray, buffers)):
        found.append((language.BYTES.decode(tokens[:start]), language.BYTES.decode(tokens[start:length])))
    return found


def distinct(answers: list[str], n: int) -> float:
    """Different n-grams of words over all n-grams of words, of all answers together; 0 without any.

    Source: Li et al. 2016.
    """
    grams = [tuple(words[i : i + n]) for words in map(str.split, answers) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def write_pairs(config: Any, recorder: runner.Recorder, saved: stages.Saved) -> None:
    """Write pairs.jsonl, for `experiments.preferences collect`: answers of the last policy of the first run first."""
    lines = []
    for number in reversed(range(saved.log_probs.shape[1])):
        answers = texts(jax.tree.map(lambda x: x[0, number], saved.pairs))
        log_probs = saved.log_probs[0, number].astype(float).reshape(-1, 2)
        for (prompt, first), (_, second), logp in zip(answers[::2], answers[1::2], log_probs):
            record = {"prompt": prompt, "answers": [first, second], "policy": f"rlhf β={config.kl_coefs[0]:g}"}
            record |= {"seed": config.seed, "step": number * config.updates, "logp": logp.tolist()}
            lines.append(json.dumps(record, ensure_ascii=False))
    recorder.write("pairs.jsonl", "\n".join(lines) + "\n")


def one_line(config: Any, saved: stages.Saved, stage: stages.Stage) -> str:
    """The state of the runs in one line of progress."""
    if stage.name == "fit":
        agreed, other = (saved.fits[name][:, stage.round].mean() for name in ("accuracy", "held_out_accuracy"))
        more = f" and with {other:.0%} of held-out labels" if np.isfinite(other) else ""
        return f"round {stage.round + 1}: the reward models agree with {agreed:.0%} of their labels{more}"
    if stage.name == "evaluate":
        place, found = stage.round + 1, []
        for name, runs in config.runs_of.items():
            mean = {key: values[runs, place].mean() for key, values in saved.numbers.items()}
            found.append(f"{name}: gold {mean['gold']:.2f}, KL {mean['kl']:.1f}")
        return f"after round {place}: {'; '.join(found)}"
    return f"round {stage.round + 1}: {stage.name}"


def all_numbers(config: Any, saved: stages.Saved) -> dict[str, np.ndarray]:
    """The numbers of the evaluations with those that are counted in words, `[R, n + 1]`."""
    runs, places = saved.numbers["gold"].shape
    found = np.zeros((runs, places), np.float32)
    for run in range(runs):
        for place in range(places):
            written = texts(jax.tree.map(lambda x: x[run, place], saved.answers))
            found[run, place] = distinct([answer for _, answer in written], 2)
    return dict(saved.numbers) | {"distinct_2": found}


def standard_error(values: np.ndarray) -> float | None:
    """The standard error of the mean over seeds; None with one seed."""
    return values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None


def record(config: Any, recorder: runner.Recorder, setting: Any, saved: stages.Saved) -> None:
    """The table before and after, the reward models, best-of-n and DPO, notes, and answers side by side."""
    numbers = all_numbers(config, saved)
    for name, quantity in QUANTITIES.items():
        if name not in numbers:
            continue
        values = numbers[name]
        # Before the first fit there is no proxy score, and the KL of the reference to itself is 0.
        if name not in ("proxy", "correlation", "kl"):
            # Runs of one seed begin alike, so the runs of the first combination are all evaluations of the reference.
            start = values[: config.seeds, 0]
            recorder.row(quantity=quantity, variant="reference", ours=start.mean(), stderr=standard_error(start))
        for (kl_coef, _), (variant, runs) in zip(config.combinations, config.runs_of.items()):
            first, *_, last = values[runs].T
            recorder.row(
                quantity=quantity,
                variant=variant,
                ours=last.mean(),
                stderr=standard_error(last),
                verdict=verdict_of(recorder, name, kl_coef, first, last),
            )
    recorder.note(
        "The proxy score is that of the last reward model of each run: 0 is the mean of the reference and 1 its "
        "standard deviation over answers. " + ("" if config.preferences else "The gold score simulates the labels.")
    )
    recorder.note(
        f"Standard errors are over {config.seeds} seeds; one seed has none. Those of the reference are over the "
        "evaluations of the seeds, which differ by prompts and by answers. The KL is the mean of ln π/π_ref over "
        "sampled answers, which can be below 0 by chance although the KL itself cannot."
    )
    record_fits(config, recorder, saved)
    record_others(config, recorder, setting, saved)
    show(config, recorder, saved)


def record_fits(config: Any, recorder: runner.Recorder, saved: stages.Saved) -> None:
    """Rows of the last reward model of each run, on the labels of its fit and on held-out ones."""
    for name, quantity in OF_FITS.items():
        for variant, runs in config.runs_of.items() if name in saved.fits else ():
            last = saved.fits[name][runs, -1]
            if np.isfinite(last).all():
                recorder.row(quantity=quantity, variant=variant, ours=last.mean(), stderr=standard_error(last))
    if "entropy_floor" in saved.fits and np.isfinite(saved.fits["entropy_floor"]).all():
        recorder.note(
            "The floor is the mean entropy of the annotator's labels, which are random. No reward model has a lower "
            "expected loss; the loss on the labels that were given can be lower by chance."
        )
    if not config.held_out:
        recorder.note("With --held-out 0 the reward models are not measured on held-out labels.")


def verdict_of(recorder: runner.Recorder, name: str, kl_coef: float, first: np.ndarray, last: np.ndarray) -> str | None:
    """The verdict on what must be shown: β > 0 raises the gold score with every seed, and β = 0 loses the entropy."""
    tiny = verdicts.is_tiny(recorder)
    if name == "gold" and kl_coef > 0:
        return verdicts.of_aim(bool((last > first).all()), "above the reference with every seed", tiny=tiny)
    if name == "entropy" and kl_coef == 0:
        return verdicts.of_aim(bool((last < first / 2).all()), "below half of the reference: a collapse", tiny=tiny)
    return None


def record_others(config: Any, recorder: runner.Recorder, setting: Any, saved: stages.Saved) -> None:
    """Rows of best-of-n and of DPO, both with the labels of the runs with the first β."""
    kl_coef, seeds = config.kl_coefs[0], config.seeds
    runs = slice(0, len(config.pairs) * seeds)
    states = jax.tree.map(lambda x: x[runs], saved.states)
    of_purpose = lambda purpose: keys.of_runs(config, purpose, len(config.pairs))
    own_keys = of_purpose(keys.Purpose.BEST_OF_N), of_purpose(keys.Purpose.DPO)
    chosen, direct = others.measure(setting.loop, own_keys, states, setting.params, config.best_of)
    variants = {f"best of {n}, KL at most {np.log(n) - (n - 1) / n:.2f}": {"gold": chosen[n]} for n in config.best_of}
    variants["DPO"] = {name: direct[name] for name in ("gold", "kl", "bits_per_byte")}
    for variant, numbers in variants.items():
        for name, values in numbers.items():
            for pairs, of_seeds in zip(config.pairs, values.reshape(-1, seeds)):
                more = f", {pairs} pairs" if len(config.pairs) > 1 else ""
                error = standard_error(of_seeds)
                recorder.row(quantity=QUANTITIES[name], variant=variant + more, ours=of_seeds.mean(), stderr=error)
    recorder.note(f"Best-of-n and DPO use the reward models and the labels of the runs with β = {kl_coef:g}.")


def show(config: Any, recorder: runner.Recorder, saved: stages.Saved) -> None:
    """Print answers to the same prompts before and after."""
    lines = []
    width = max(map(len, ("reference", *config.runs_of)))
    before = texts(jax.tree.map(lambda x: x[0, 0], saved.answers))[:SHOWN]
    last = lambda run: texts(jax.tree.map(lambda x: x[run, -1], saved.answers))[:SHOWN]
    after = {name: last(runs.start) for name, runs in config.runs_of.items()}
    for row, (prompt, answer) in enumerate(before):
        lines.append(f"{prompt!r}")
        lines.append(f"    {'reference':<{width}} {answer!r}")
        written = {name: answers[row][1] for name, answers in after.items()}
        lines += [f"    {name:<{width}} {answer!r}" for name, answer in written.items()]
        recorder.metrics({"prompt": prompt, "reference": answer, "after": list(written.values())})
    recorder.say("\n".join(lines))


def smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """Running means over `width` updates, `[R, U − width + 1]`."""
    return np.stack([np.convolve(row, np.ones(width) / width, "valid") for row in values])


def plot(config: Any, saved: stages.Saved, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    numbers, runs_of = all_numbers(config, saved), config.runs_of
    last = {name: {key: x[runs, -1].mean() for key, x in numbers.items()} for name, runs in runs_of.items()}
    start = numbers["gold"][:, 0].mean()
    reached = ", ".join(f"{x['gold']:.2f} at {max(x['kl'], 0):.0f} nats with {name}" for name, x in last.items())
    if len(last) > 3:
        golds = [x["gold"] for x in last.values()]
        reached = f"between {min(golds):.2f} and {max(golds):.2f}, in {len(last)} combinations of β and pairs"
    title = f"Optimised against a fitted reward, the gold score goes from {start:.2f} to {reached}"
    width = max(1, min(10, saved.curves["kl"].shape[1] // 4))
    # The names stand in every panel where there is room for them beside the lines.
    named = len(runs_of) <= 3
    caption = (
        f"{config.estimator}, {config.episodes} answers an update. Left and middle: means over the seeds "
        f"({config.seeds}) and over {width} updates; the reward model is fitted anew in each round, so the proxy jumps "
        f"there. Right: {plots.bands(config.seeds, 'seeds')}." + (" Its colours are those of all panels." * (not named))
    )
    figure, axes = plots.figure(title, caption, columns=3, width=12.0, height=4.6)
    colour_of = plots.colours(runs_of)
    for place, (key, label) in enumerate({"gold": "gold score", "proxy": "proxy (standard deviations)"}.items()):
        axes[place].set(xlabel="√KL to the reference (√nats)", ylabel=label)
        plots.reference_line(axes[place], start if key == "gold" else 0.0, "reference")
        ends = {}
        for name, runs in runs_of.items():
            kl, score = (smoothed(saved.curves[curve][runs], width).mean(axis=0) for curve in ("kl", key))
            roots = np.sqrt(np.maximum(kl, 0))
            axes[place].plot(roots, score, color=colour_of[name], linewidth=1.8)
            ends[name] = (roots[-1], score[-1], colour_of[name])
        if named:
            plots.label_ends(axes[place], ends)
    rounds = np.arange(numbers["entropy"].shape[1])
    axes[2].set(xlabel="rounds", ylabel="entropy (nats per token)", xticks=rounds)
    axes[2].set_ylim(0, 1.08 * np.nanmax(numbers["entropy"]))
    curves = {name: numbers["entropy"][runs] for name, runs in runs_of.items()}
    plots.learning_curves(axes[2], rounds, curves, colour_of=colour_of, bounds=ranges.NOT_NEGATIVE)
    recorder.figure(figure, "rlhf")
