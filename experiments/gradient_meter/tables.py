"""The rows, tables and notes of the three parts, and the rule that grades the meter."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.gradient_meter import graded
from experiments.gradient_meter.cases import Case
from experiments.gradient_meter.cost import Cost
from experiments.gradient_meter.graded import Exact, Measured
from experiments.gradient_meter.proxies import Compared
from experiments.harness import runner, verdicts
from experiments.harness.verdicts import Verdict
from pgjax import diagnostics

QUANTITIES = {"variance": "tr Var ḡ", "squared_norm": "‖E ḡ‖²", "half_cosine": "cosine of two halves"}
SCALE = "noise scale in episodes"
SIGNAL, POWER, NOISE = "‖E ḡ‖²", "E‖ĝ‖²", "tr Var ḡ"
MOST_ERRORS = 4.0
AIM, AIM_EVERY = 1.05, 20


class Grade(NamedTuple):
    """One quantity of one gradient: its exact value, our mean, and that of the wrong meter (None if it has none)."""

    case: str
    quantity: str
    exact: float
    value: float
    stderr: float
    twin: float | None
    twin_stderr: float

    @property
    def z(self) -> float:
        return _z(self.value, self.stderr, self.exact)

    @property
    def twin_z(self) -> float | None:
        return None if self.twin is None else _z(self.twin, self.twin_stderr, self.exact)


def _z(value: float, stderr: float, exact: float) -> float:
    return (value - exact) / stderr if stderr > 0 else (0.0 if value == exact else np.inf)


def grades_of(case: Case, known: Exact, measured: Measured) -> list[Grade]:
    """Every quantity whose exact expectation is known, and the noise scale, a ratio of two means."""
    found, twins = [], measured.twin()
    for name, expected in known.expected.items():
        value, stderr = graded.mean_and_stderr(measured.values[name])
        # Where the parts depend on each other both meters are wrong, each in its own way.
        twin = graded.mean_and_stderr(twins[name]) if name in twins and not case.joint else (None, 0.0)
        found.append(Grade(case.name, QUANTITIES[name], expected, value, stderr, *twin))
    if not case.joint:
        exact = case.batch * known.variance / known.squared_norm
        twin = graded.noise_scale(twins, case.batch)
        found.append(Grade(case.name, SCALE, exact, *graded.noise_scale(measured.values, case.batch), *twin))
    return found


def grade(
    cases: Sequence[Case], known: Mapping[str, Exact], measured: Mapping[str, Measured], recorder: runner.Recorder
) -> list[Grade]:
    """Record part (a): every quantity against its exact value, the wrong meter, and where the meter misses a share."""
    tiny = verdicts.is_tiny(recorder)
    grades = [one for case in cases for one in grades_of(case, known[case.name], measured[case.name])]
    for one in grades:
        verdict = verdicts.against_exact(one.value, one.stderr, one.exact, z=MOST_ERRORS, tiny=tiny)
        recorder.row(
            quantity=f"(a) {one.quantity}",
            variant=one.case,
            ours=one.value,
            stderr=one.stderr,
            exact=one.exact,
            verdict=verdict,
        )
    shown = [
        (one.case, one.quantity, f"{one.exact:.5g}", runner.format_number(one.value, one.stderr), f"{one.z:+.2f}")
        + (("", "") if one.twin is None else (f"{one.twin:.4g}", f"{one.twin_z:+.1f}"))
        for one in grades
    ]
    headers = ["gradient", "quantity", "exact", "meter ± s.e.", "z", "wrong meter", "its z"]
    recorder.table("(a) The meter against exact values", headers, shown, numeric=headers[2:])
    largest = max(abs(one.z) for one in grades)
    caught = [abs(one.twin_z) for one in grades if one.twin is not None]
    recorder.row(quantity="(a) largest |z| of the meter", variant="all gradients", ours=largest)
    least = "the smallest |z| of the wrong meter, which divides by M² and takes ‖ḡ‖² for ‖E ḡ‖²"
    for quantity in (QUANTITIES["variance"], QUANTITIES["squared_norm"]):
        worst = min(abs(one.twin_z) for one in grades if one.twin is not None and one.quantity == quantity)
        verdict = verdicts.of_aim(worst > MOST_ERRORS, f"> {MOST_ERRORS:g}", tiny=tiny)
        recorder.row(quantity=f"(a) {least}", variant=quantity, ours=worst, verdict=verdict)
    recorder.note(
        f"(a) The largest |z| of the meter is {largest:.2f} among {len(grades)} numbers. Those of the wrong meter go "
        f"from {min(caught):.1f} to {max(caught):.1f}."
    )
    for case in cases:
        if case.joint:
            _note_joint(case, known[case.name], recorder)
    return grades


def _note_joint(case: Case, known: Exact, recorder: runner.Recorder) -> None:
    share = known.expected["variance"] / known.variance
    recorder.row(quantity="(a) E[meter] / tr Var ḡ, dependent parts", variant=case.name, ours=share)
    recorder.note(
        f"(a) {case.name}: the weights compare all episodes of the batch, so its parts depend on each other. The "
        f"meter's expectation is {share:.4g} times tr Var ḡ, which is {known.variance:.5g}."
    )


class Beside(NamedTuple):
    """One quantity of one gradient: exact, by the meter with its standard error (None if not measured), by verl.

    `proxy_stderr` is 0 for a proxy whose expectation is exact.
    """

    quantity: str
    exact: float
    meter: tuple[float, float] | None
    proxy: float
    proxy_stderr: float = 0.0


def beside_of(case: Case, found: Compared, measured: Measured) -> list[Beside]:
    variance, squared_norm = measured.values["variance"], measured.values["squared_norm"]
    power = graded.mean_and_stderr(case.batch * variance + squared_norm) if case.group == 1 else None
    of = graded.mean_and_stderr
    return [
        Beside(SIGNAL, found.signal, of(squared_norm), found.proxies.signal),
        Beside(POWER, found.power, power, found.proxies.power),
        Beside(NOISE, found.noise, of(variance), found.proxies.noise, found.noise_stderr),
    ]


def set_beside(
    cases: Sequence[Case], found: Mapping[str, Compared], meters: Mapping[str, Measured], recorder: runner.Recorder
) -> None:
    """Record part (b): the exact numbers, the meter, the proxies, and the factors of their approximations."""
    lines, tiny = [], verdicts.is_tiny(recorder)
    for case in cases:
        for one in beside_of(case, found[case.name], meters[case.name]):
            if one.meter is not None:
                value, stderr = one.meter
                recorder.row(
                    quantity=f"(b) {one.quantity}",
                    variant=f"{case.name}: meter",
                    ours=value,
                    stderr=stderr,
                    exact=one.exact,
                    verdict=verdicts.against_exact(value, stderr, one.exact, z=MOST_ERRORS, tiny=tiny),
                )
            recorder.row(
                quantity=f"(b) {one.quantity}",
                variant=f"{case.name}: verl",
                ours=one.proxy,
                stderr=one.proxy_stderr or None,
                exact=one.exact,
            )
            meter = "" if one.meter is None else runner.format_number(*one.meter)
            ratio = f"{one.proxy / one.exact:.4g}"
            proxy = runner.format_number(one.proxy, one.proxy_stderr) if one.proxy_stderr else f"{one.proxy:.5g}"
            lines.append((case.name, one.quantity, f"{one.exact:.5g}", meter, proxy, ratio))
    headers = ["gradient, B = 8", "quantity", "exact", "meter ± s.e.", "verl's proxy", "proxy / exact"]
    recorder.table("(b) Beside the proxies that verl logs", headers, lines, numeric=headers[2:])
    _factors(cases, found, recorder)
    exact_case = found[cases[0].name]
    gap = abs(exact_case.proxies.power / exact_case.power - 1.0)
    recorder.row(
        quantity="(b) |E[proxy2] / E‖ĝ‖² − 1|, one step, logits as parameters",
        variant=cases[0].name,
        ours=gap,
        exact=0.0,
        verdict=verdicts.against_exact(gap, 0.0, 0.0, tolerance=1e-12),
    )
    recorder.note(
        "(b) The column of verl's proxy holds expectations. They are exact; a number with ± is a mean over drawn "
        "batches. proxy1 is ‖ḡ‖² of one batch, whose expectation is ‖E ḡ‖² + tr Var ḡ. proxy3 subtracts it from proxy2 "
        "and divides by N − 1, which is unbiased if proxy2 is right and the episodes are independent. Its maximum with "
        "0 raises it where the difference is often negative."
    )


def _factors(cases: Sequence[Case], found: Mapping[str, Compared], recorder: runner.Recorder) -> None:
    names = list(found[cases[0].name].factors)
    lines = []
    for case in cases:
        one = found[case.name]
        product = one.proxies.power / one.power
        for name, factor in (*one.factors.items(), ("dependent episodes, on proxy3", one.dependence)):
            recorder.row(quantity=f"(b) factor: {name}", variant=case.name, ours=factor)
        agrees = abs(np.prod(list(one.factors.values())) / product - 1.0) < 1e-9
        recorder.row(
            quantity="(b) factor: E[proxy2] / E‖ĝ‖², the product",
            variant=case.name,
            ours=product,
            verdict=str(Verdict.AGREES if agrees else Verdict.WRONG),
        )
        numbers = (*one.factors.values(), product, one.dependence)
        lines.append((case.name, *(f"{number:.4g}" for number in numbers)))
    headers = ["gradient", *names, "product: proxy2 / exact", "dependent episodes, on proxy3"]
    recorder.table("(b) Where the factors come from", headers, lines, numeric=headers[1:])


def report_cost(found: Sequence[Cost], recorder: runner.Recorder) -> None:
    """Record part (c): the time with the meter divided by the time without."""
    if not found:
        return
    lines, tiny = [], verdicts.is_tiny(recorder)
    for one in found:
        where = f"{one.estimator}, {one.num_episodes} episodes, N = {one.every}"
        cells = []
        for clock, values in (("CPU", one.cpu), ("wall", one.wall)):
            mean = diagnostics.mean_interval(values)
            interval = runner.format_interval(mean.low, mean.high)
            verdict = None
            if one.every == AIM_EVERY:
                verdict = verdicts.of_aim(float(mean.value) < AIM, f"< {AIM}", interval, tiny=tiny)
            recorder.row(
                quantity=f"(c) {clock} time with the meter / without",
                variant=where,
                ours=float(mean.value),
                stderr=float(mean.stderr),
                verdict=verdict,
            )
            cells += [f"{float(mean.value):.3f}", interval]
        recorder.row(
            quantity="(c) θ with the meter is θ without, bit for bit",
            variant=where,
            ours=float(one.same),
            exact=1.0,
            verdict=verdicts.against_exact(float(one.same), 0.0, 1.0),
        )
        milliseconds = f"{1000 * one.seconds:.3g}"
        lines.append((one.estimator, str(one.num_episodes), str(one.every), milliseconds, *cells))
    headers = ["estimator", "episodes", "N", "ms an update", "CPU ratio", "95 %", "wall ratio", "95 % of wall"]
    recorder.table("(c) The cost of the meter on CartPole-v1", headers, lines, numeric=headers[1:])
    recorder.note(
        f"(c) Means over {len(found[0].cpu)} repetitions of the same updates, with t intervals. The meter computes the "
        "gradient once more in every Nth update; the network that fits a value, the rollout and Adam are not repeated."
    )
