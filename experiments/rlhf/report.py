"""What a run of the loop shows: pairs for a person, lines of progress, the table, answers and the figure."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import runner, verdicts
from experiments.rlhf import others, stages
from experiments.shared import language
from pgjax.environments.text import TextBuffer

REFERENCE = "reference.safetensors"
SHOWN = 4  # answers that are printed for each β

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
    recorder.path("pairs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def one_line(config: Any, saved: stages.Saved, stage: stages.Stage) -> str:
    """The state of the runs in one line of progress."""
    if stage.name == "fit":
        agreed = saved.fits["accuracy"][:, stage.round].mean()
        return f"round {stage.round + 1}: the reward model agrees with {agreed:.0%} of its labels"
    if stage.name == "evaluate":
        place, found = stage.round + 1, []
        for index, kl_coef in enumerate(config.kl_coefs):
            runs = slice(index * config.seeds, (index + 1) * config.seeds)
            mean = {name: values[runs, place].mean() for name, values in saved.numbers.items()}
            found.append(f"β {kl_coef:g}: gold {mean['gold']:.2f}, KL {mean['kl']:.1f}")
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


def record(config: Any, recorder: runner.Recorder, setting: Any, saved: stages.Saved) -> None:
    """The table before and after, best-of-n, notes, and answers side by side."""
    numbers = all_numbers(config, saved)
    standard_error = lambda x: x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else None
    for name, quantity in QUANTITIES.items():
        if name not in numbers:
            continue
        values = numbers[name]
        # A reward model that is not fitted yet scores nothing.
        if name not in ("proxy", "correlation", "kl"):
            recorder.row(quantity=quantity, variant="reference", ours=values[:, 0].mean())
        for index, kl_coef in enumerate(config.kl_coefs):
            first, *_, last = values[index * config.seeds : (index + 1) * config.seeds].T
            recorder.row(
                quantity=quantity,
                variant=f"β = {kl_coef:g}",
                ours=last.mean(),
                stderr=standard_error(last),
                verdict=verdict_of(recorder, name, kl_coef, first, last),
            )
    recorder.note(
        "The proxy score is that of the last reward model of each run: 0 is the mean of the reference and 1 its "
        "standard deviation over answers. " + ("" if config.preferences else "The gold score simulates the labels.")
    )
    recorder.note(f"Standard errors are over {config.seeds} seeds; one seed has none.")
    record_others(config, recorder, setting, saved)
    show(config, recorder, saved)


def verdict_of(recorder: runner.Recorder, name: str, kl_coef: float, first: np.ndarray, last: np.ndarray) -> str | None:
    """The verdict on what must be shown: β > 0 raises the gold score with every seed, and β = 0 loses the entropy."""
    tiny = verdicts.is_tiny(recorder)
    if name == "gold" and kl_coef > 0:
        return verdicts.of_aim(bool((last > first).all()), "above the reference with every seed", tiny=tiny)
    if name == "entropy" and kl_coef == 0:
        return verdicts.of_aim(bool((last < first / 2).all()), "below half of the reference: a collapse", tiny=tiny)
    return None


def record_others(config: Any, recorder: runner.Recorder, setting: Any, saved: stages.Saved) -> None:
    """Rows of best-of-n and of DPO, both with the labels of the first run."""
    state = jax.tree.map(lambda x: x[0], saved.states)
    key = jax.random.key(config.seed)
    for n in config.best_of:
        of_n = lambda key, params, state, n=n: others.best_of(
            key, setting.problem, params, setting.loop.scored, state.train.reward_state[0].params, n, config.evaluated
        )
        chosen = np.asarray(jax.jit(of_n)(jax.random.fold_in(key, n), setting.params, state))
        error = chosen.std(ddof=1) / np.sqrt(len(chosen))
        name = f"best of {n}, KL at most {np.log(n) - (n - 1) / n:.2f}"
        recorder.row(quantity=QUANTITIES["gold"], variant=name, ours=chosen.mean(), stderr=error)
    fitted = others.direct_preferences(key, setting.problem, state, setting.params)
    _, found = jax.jit(setting.loop.evaluate)(fitted, jnp.int32(0))
    for name in ("gold", "kl", "bits_per_byte"):
        recorder.row(quantity=QUANTITIES[name], variant="DPO", ours=float(found["numbers"][name]))


def show(config: Any, recorder: runner.Recorder, saved: stages.Saved) -> None:
    """Print answers to the same prompts before and after."""
    lines = []
    runs = [index * config.seeds for index in range(len(config.kl_coefs))]
    before = texts(jax.tree.map(lambda x: x[0, 0], saved.answers))[:SHOWN]
    after = [texts(jax.tree.map(lambda x: x[run, -1], saved.answers))[:SHOWN] for run in runs]
    for row, (prompt, answer) in enumerate(before):
        lines.append(f"{prompt!r}")
        lines.append(f"    {'reference':<10} {answer!r}")
        for kl_coef, answers in zip(config.kl_coefs, after):
            lines.append(f"    {f'β = {kl_coef:g}':<10} {answers[row][1]!r}")
        recorder.metrics({"prompt": prompt, "reference": answer, "after": [answers[row][1] for answers in after]})
    recorder.say("\n".join(lines))


def smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """Running means over `width` updates, `[R, U − width + 1]`."""
    return np.stack([np.convolve(row, np.ones(width) / width, "valid") for row in values])


def plot(config: Any, saved: stages.Saved, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    numbers = all_numbers(config, saved)
    runs_of = {f"β = {b:g}": slice(i * config.seeds, (i + 1) * config.seeds) for i, b in enumerate(config.kl_coefs)}
    last = {name: {key: x[runs, -1].mean() for key, x in numbers.items()} for name, runs in runs_of.items()}
    start = numbers["gold"][:, 0].mean()
    reached = ", ".join(f"{x['gold']:.2f} at {max(x['kl'], 0):.0f} nats with {name}" for name, x in last.items())
    title = f"Optimised against a fitted reward, the gold score goes from {start:.2f} to {reached}"
    width = min(10, saved.curves["kl"].shape[1])
    caption = (
        f"{config.estimator}, {config.episodes} answers an update. Left and middle: means over the seeds "
        f"({config.seeds}) and over {width} updates; the reward model is fitted anew in each round, so the proxy jumps "
        f"there. Right: {plots.bands(config.seeds, 'seeds')}."
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
        plots.label_ends(axes[place], ends)
    rounds = np.arange(numbers["entropy"].shape[1])
    axes[2].set(xlabel="rounds", ylabel="entropy (nats per token)", xticks=rounds)
    axes[2].set_ylim(0, 1.08 * np.nanmax(numbers["entropy"]))
    curves = {name: numbers["entropy"][runs] for name, runs in runs_of.items()}
    plots.learning_curves(axes[2], rounds, curves, colour_of=colour_of)
    recorder.figure(figure, "rlhf")
