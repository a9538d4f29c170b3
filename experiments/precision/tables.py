"""The rows, tables and notes of the four parts."""

from collections.abc import Mapping

import numpy as np

from experiments.harness import runner, verdicts
from experiments.precision.enumerated import Bias
from experiments.precision.learning import Learned
from experiments.precision.rounding import ALL_BFLOAT16, Errors
from experiments.shared import ranges
from pgjax import diagnostics
from pgjax.networks.precision import MANTISSA_BITS


def report_biases(biases: Mapping[str, Mapping[tuple[str, str], Bias]], recorder: runner.Recorder) -> None:
    """Record part (a): means over the policies, and the largest of them."""
    lines = []
    for problem, found in biases.items():
        for (estimator, word), bias in found.items():
            variant = f"{problem}, {estimator}, {word}"
            verdict = None
            if word == "float64":
                verdict = verdicts.against_exact(float(bias.own.max()), 0.0, 0.0, tolerance=1e-11)
            recorder.row(
                quantity="(a) ‖E ĝ − ∇ρ‖ / ‖∇ρ‖, episodes of the low-precision policy, mean over policies",
                variant=variant,
                ours=float(bias.own.mean()),
                exact=0.0 if word == "float64" else None,
                verdict=verdict,
            )
            recorder.row(
                quantity="(a) ‖E ĝ − ∇ρ‖ / ‖∇ρ‖, episodes of the float64 policy, mean over policies",
                variant=variant,
                ours=float(bias.same.mean()),
            )
            recorder.row(
                quantity="(a) 1 − cosine of E ĝ with ∇ρ, episodes of the low-precision policy, mean over policies",
                variant=variant,
                ours=float(bias.own_angle.mean()),
            )
            numbers = (bias.same.mean(), bias.own.mean(), bias.own.max(), bias.own_angle.mean())
            roundoff = 2.0 ** -(MANTISSA_BITS[word] + 1) if word in MANTISSA_BITS else 2.0**-53
            units = f"{bias.own.mean() / roundoff:.3g}"
            lines.append((problem, estimator, word, *(f"{number:.2e}" for number in numbers), units))
    recorder.note(
        "(a) A roundoff is 2^−(bits + 1) of the precision, the largest relative error of one rounded operand. The bias "
        "in roundoffs is that of the episodes that the policy plays in its own precision."
    )
    count = len(next(iter(next(iter(biases.values())).values())).own)
    headers = [
        "problem",
        "weights",
        "precision",
        "bias, float64 episodes",
        "bias, own episodes",
        "largest",
        "1 − cosine",
        "in roundoffs",
    ]
    recorder.table(
        f"(a) ‖E ĝ − ∇ρ‖ / ‖∇ρ‖ by enumeration, means over {count} policies", headers, lines, numeric=headers[3:]
    )


def report_errors(found: Errors, recorder: runner.Recorder) -> None:
    """Record parts (b) and (c): noise and rounding for each batch size, and the crossing points."""
    tiny, lines = verdicts.is_tiny(recorder), []
    for index, size in enumerate(found.batches):
        recorder.row(
            quantity="(b) standard error of the gradient / ‖∇ρ‖", variant=f"B = {size}", ours=float(found.noise[index])
        )
        cells = [f"{size:,}", f"{found.noise[index]:.3g}"]
        for name, errors in found.rounding.items():
            mean = float(np.sqrt(np.mean(np.square(errors[index]))))
            recorder.row(
                quantity="(b) rounding error / ‖∇ρ‖, root mean square", variant=f"{name}, B = {size}", ours=mean
            )
            cells.append(f"{mean:.2e}")
        lines.append(cells)
    headers = ["B", "standard error", *found.rounding]
    recorder.table("(b), (c) Errors of one batch's gradient on CartPole-v1, / ‖∇ρ‖", headers, lines, numeric=headers)
    # The last variant has no floor: its error depends on the length of the sum.
    crossings = {name: found.crossing(name) for name in found.rounding if name != ALL_BFLOAT16}
    largest = found.batches[-1]
    for name, crossing in crossings.items():
        verdict = None
        if name in ("float32", "tfloat32"):
            aim = f"> {largest:,} episodes, the largest batch"
            verdict = verdicts.of_aim(crossing > largest, aim, tiny=tiny)
        recorder.row(
            quantity="(b) B*, episodes at which rounding is as large as noise",
            variant=name,
            ours=crossing,
            verdict=verdict,
        )
    shown = [(name, f"{found.floor(name)[0] ** 0.5:.2e}", f"{crossing:.2e}") for name, crossing in crossings.items()]
    recorder.table(
        "(b) What more episodes do not remove",
        ["precision", "error for B → ∞, / ‖∇ρ‖", "B* in episodes"],
        shown,
        numeric=["error for B → ∞, / ‖∇ρ‖", "B* in episodes"],
    )
    recorder.note(
        "(b) The squared rounding error is read as a + b / B from the smallest and the largest B. a stays for every B; "
        "b / B is what averages out. B* solves σ² / B = a + b / B, where σ² / B is the squared standard error. The "
        f"largest batch has {found.rows[-1]:,.0f} rows, and ‖∇ρ‖ is the norm of its float64 gradient."
    )
    ratio = np.sqrt(found.mean_square(ALL_BFLOAT16) / found.mean_square("bfloat16"))
    recorder.note(
        "(c) With bfloat16 parameters the weights and the sums over pieces of rows are in bfloat16 too. The error is "
        f"{ratio[0]:.2g} times that of bfloat16 products with {found.batches[0]:,} episodes, and {ratio[-1]:.2g} times "
        f"with {largest:,} episodes."
    )


def report_trainings(learned: Mapping[str, Learned], recorder: runner.Recorder) -> None:
    """Record part (d): the mean return over seeds, and its paired difference from float32."""
    tiny, lines, first = verdicts.is_tiny(recorder), [], learned["float32"].returns
    limits = ranges.returns("CartPole-v1", 500)
    for word, found in learned.items():
        mean = diagnostics.mean_interval(found.returns, bounds=limits)
        recorder.row(
            quantity="(d) return of CartPole-v1 after training",
            variant=word,
            ours=float(mean.value),
            stderr=float(mean.stderr),
        )
        cells = ["", ""]
        if word != "float32":
            gap = diagnostics.mean_interval(found.returns - first, bounds=ranges.differences(limits))
            interval = runner.format_interval(float(gap.low), float(gap.high))
            same = bool(gap.low <= 0.0 <= gap.high)
            recorder.row(
                quantity="(d) return minus that of float32, same seeds",
                variant=word,
                ours=float(gap.value),
                stderr=float(gap.stderr),
                verdict=verdicts.of_aim(same, "an interval that contains 0", interval, tiny=tiny),
            )
            cells = [f"{float(gap.value):+.2f}", interval]
        low_high = runner.format_interval(float(mean.low), float(mean.high))
        lines.append((word, f"{float(mean.value):.1f}", low_high, *cells, f"{found.seconds:.1f}"))
    headers = ["precision", "return", "95 %", "minus float32", "95 % of it", "seconds"]
    recorder.table(f"(d) Trainings of CartPole-v1, {len(first)} seeds", headers, lines, numeric=headers[1:])
