"""Targets of `rates_and_plateaus` from Mei et al. 2020 and 2022, and the problems that they are about."""

import dataclasses
import math

from experiments.harness import targets as papers

BEST, SECOND, ARMS = 0.97, 0.95, 20
WITH, WITHOUT = VARIANTS = ("b = ρ(θ)", "b = 0")
PLATEAU_ARMS, PLATEAU_STEP, PLATEAU_UPDATES = (1.0, 0.9, 0.1), 0.4, 50_000
STARTS = {
    "uniform": (1 / 3, 1 / 3, 1 / 3),
    "(0.01, 0.98, 0.01)": (0.01, 0.98, 0.01),
    "(0.001, 0.9, 0.099)": (0.001, 0.9, 0.099),
}
TAIL, BEFORE = 30_000, (1_000, 10_000)
# The references are for this η, 20 runs and other arms. Beside each stands the standard deviation of ln gap between
# drawings of the lesser arms: 40 drawings of 20 runs in NumPy, where arms of 0.95 and more were drawn again.
STEP_SIZE, GROUP = 0.05, 20
REFERENCES = {
    1_000: (".0087", 0.20),
    3_000: (".0015", 0.19),
    10_000: ("1.0e-4", 0.23),
    30_000: ("2e-5", 0.30),
    60_000: ("1e-5", 0.25),
}
STUCK_MEAN, STUCK_WORST = (".0859", 0.26), (".43", 0.17)
# At these times ln gap differs by 0.13 and 0.11 between drawings, and by 0.06 and 0.24 between b = 0 and b = ρ(θ).
TOO_EARLY = {10: ".412", 100: ".175"}


@dataclasses.dataclass(frozen=True)
class OtherArms:
    """Ours and the published gap are equal within 3 standard errors of the difference of their logarithms.

    Each gap belongs to one drawing of the arms. Two drawings differ by √2 times the `spread` of ln gap; a gap of 0 is
    never equal.
    """

    spread: float

    @property
    def factor(self) -> float:
        """The factor by which ours may differ if it has no standard error."""
        return math.exp(3 * 2**0.5 * self.spread)

    def holds(self, ours: papers.Measured, expected: float, printed: str) -> bool:
        if ours.value <= 0:
            return False
        error = math.hypot(ours.stderr / ours.value, 2**0.5 * self.spread)
        return abs(math.log(ours.value / expected)) <= 3 * error + papers.half_unit(printed) / expected


def _gap(key: str, quantity: str, printed: str, spread: float, variant: str) -> papers.Target:
    rule = OtherArms(spread)
    return _own(key, f"{quantity} (within a factor of {rule.factor:.1f})", printed, rule, variant=variant)


def _power(key: str, quantity: str, exact: float, variant: str | None = None) -> papers.Target:
    return papers.Target(key, quantity, papers.Near(1e-3), exact=exact, exact_tolerance=1e-3, variant=variant)


def _own(key: str, quantity: str, printed: str, rule: papers.Rule, **more) -> papers.Target:
    return papers.Target(key, quantity, rule, published=printed, provenance="own", **more)


PAPER = papers.Paper(
    citation="Mei et al. 2022, figure 2(c); Mei et al. 2020 (plateaus)",
    claim="With a value baseline the stochastic natural gradient converges as 1/t; without a baseline it gets stuck.",
    targets=(
        papers.Target(
            "slope",
            "slope of ln gap in ln t, t from 3e4 on",
            papers.Near(0.1),
            published="−1",
            provenance="text",
            variant=WITH,
            headline="slope of the tail",
            why=(
                "1/t is a bound. 480 runs of 3·10⁵ updates have the slope −1.14 ± 0.04 there, and t times the gap "
                "falls from 0.61 to 0.42, about as 1/ln² t does. 100 runs of 10⁵ updates are within two standard "
                "errors of both."
            ),
        ),
        papers.Target(
            "steeper", "−1 − slope of ln gap in ln t, t from 1e3 to 1e4", papers.Above(), provenance="own", variant=WITH
        ),
        papers.Target("order", "gap without − with baseline, t = 3000", papers.Above(), provenance="text"),
        papers.Target(
            "stuck",
            "share of runs that are stuck (gap above 0.01 at the end)",
            papers.Above(),
            provenance="text",
            variant=WITHOUT,
        ),
        papers.Target(
            "none stuck",
            "share of runs that are not stuck (gap below 0.01 at the end)",
            papers.Above(0.9),
            provenance="text",
            variant=WITH,
            why=(
                "A run that is still on its way counts as stuck: with another η a few thousand updates can be too "
                "few. If no run of 40 is stuck, this supports a share of 0.93; of 100 runs, a share of 0.97."
            ),
        ),
        papers.Target(
            "unbiased", "largest entry of |E[estimate] − F⁺ ∇ρ|", papers.Near(1e-10), exact=0.0, exact_tolerance=1e-10
        ),
        _power("variance with", "slope of ln tr Var in ln π(a) of a dying arm a", -1.0, WITH),
        _power("variance without", "slope of ln tr Var in ln π(a) of a dying arm a", -1.0, WITHOUT),
        *(_gap(f"gap {t}", f"gap, t = {t}", printed, spread, WITH) for t, (printed, spread) in REFERENCES.items()),
        _gap("stuck mean", "gap, t = 3000", *STUCK_MEAN, WITHOUT),
        _gap("stuck worst", f"gap of the worst of {GROUP} runs, t = 3000", *STUCK_WORST, WITHOUT),
        # t counts parameters: θ₁ is the start, and θ_t comes after t − 1 updates.
        _own(
            "plateau",
            "exact ascent from θ₁: first t with gap < 0.05",
            "4570",
            papers.Digits(),
            variant="from (0.01, 0.98, 0.01)",
            headline="plateau from π(a*) = 0.01: first t with gap < 0.05 (θ₁ is the start)",
        ),
        _own(
            "no plateau",
            "exact ascent from θ₁: first t with gap < 0.05",
            "60",
            papers.Digits(),
            variant="from uniform",
        ),
        _own("still there", "ρ(θ) after 50 000 updates", ".89998", papers.Digits(), variant="from (0.001, 0.9, 0.099)"),
        _power("proportional", "slope of ln ‖∇ρ‖ in ln π(a*) on the plateau", 1.0),
        papers.Target("length", "‖∇ρ‖ / π(a*) on the plateau, π(a*) = 1e-6", papers.Digits(), exact_tolerance=1e-9),
    ),
    pitfalls=(
        "If the slope is fitted from the first updates on, it comes out below −1: until about t = 3·10⁴ arms are "
        "still dying out, each in a jump of length η (r − ρ) / π(a).",
        "The baseline does not help by lowering the variance: tr Var grows as 1/π(a) with it and without it.",
        "The reference drew its 18 lesser arms with an unknown seed. Its gaps are therefore judged by how much ln gap "
        "varies between drawings. At t = 10 and 100 this is more than the baseline changes, so these times have no "
        "verdict.",
    ),
)
