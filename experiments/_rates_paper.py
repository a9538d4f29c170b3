"""What `rates_and_plateaus` is to reproduce of Mei et al. 2020 and 2022, and the problems that the numbers are of."""

from experiments import _papers as papers

BEST, SECOND, ARMS = 0.97, 0.95, 20
WITH, WITHOUT = VARIANTS = ("b = ρ(θ)", "b = 0")
PLATEAU_ARMS, PLATEAU_STEP, PLATEAU_UPDATES = (1.0, 0.9, 0.1), 0.4, 50_000
STARTS = {
    "uniform": (1 / 3, 1 / 3, 1 / 3),
    "(0.01, 0.98, 0.01)": (0.01, 0.98, 0.01),
    "(0.001, 0.9, 0.099)": (0.001, 0.9, 0.099),
}
TAIL, BEFORE = 30_000, (1_000, 10_000)
# The gap's reference, 20 runs of other arms, and its standard deviation between drawings of the lesser arms: 40
# drawings in NumPy, those of 0.95 and more drawn again.
REFERENCES = {
    10: (".412", 0.053),
    100: (".175", 0.017),
    1_000: (".0087", 0.0020),
    3_000: (".0015", 0.00035),
    10_000: ("1.0e-4", 2.1e-5),
    30_000: ("2e-5", 5.7e-6),
    60_000: ("1e-5", 2.2e-6),
}
STUCK_MEAN, STUCK_WORST, GROUP = (".0859", 0.058), (".43", 0.116), 20


def _other_arms(spread: float) -> papers.Within:
    """Two drawings of the lesser arms differ by √2 times the spread between them."""
    return papers.Within(3, published_stderr=2**0.5 * spread)


def _own(key: str, quantity: str, printed: str, rule: papers.Rule, **more) -> papers.Target:
    return papers.Target(key, quantity, rule, published=printed, provenance="own", **more)


PAPER = papers.Paper(
    citation="Mei et al. 2022, figure 2(c); Mei et al. 2020 (plateaus)",
    claim="With a value baseline the stochastic natural gradient converges as 1/t; without one it gets stuck.",
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
                "falls from 0.61 to 0.42, about as 1/ln² t does; 100 runs of 10⁵ are within two errors of both."
            ),
        ),
        papers.Target(
            "steeper", "−1 − slope of ln gap in ln t, t from 1e3 to 1e4", papers.Above(), provenance="own", variant=WITH
        ),
        papers.Target("order", "gap without − with baseline, t = 3000", papers.Above(), provenance="text"),
        papers.Target(
            "stuck", "runs stuck (gap above 0.01 at the end)", papers.Above(), provenance="text", variant=WITHOUT
        ),
        papers.Target(
            "none stuck",
            "runs not stuck (gap below 0.01 at the end)",
            papers.Above(0.99),
            provenance="text",
            variant=WITH,
        ),
        papers.Target(
            "unbiased", "E of the estimate − F⁺ ∇ρ, largest entry", papers.Digits(), exact=0.0, exact_tolerance=1e-10
        ),
        papers.Target(
            "variance with",
            "slope of ln tr Var in ln π(a), a dying arm",
            papers.Near(0.01),
            exact=-1.0,
            exact_tolerance=1e-3,
            variant=WITH,
        ),
        papers.Target(
            "variance without",
            "slope of ln tr Var in ln π(a), a dying arm",
            papers.Near(0.01),
            exact=-1.0,
            exact_tolerance=1e-3,
            variant=WITHOUT,
        ),
        *(
            _own(f"gap {t}", f"gap, t = {t}", printed, _other_arms(spread), variant=WITH)
            for t, (printed, spread) in REFERENCES.items()
        ),
        _own("stuck mean", "gap, t = 3000", STUCK_MEAN[0], _other_arms(STUCK_MEAN[1]), variant=WITHOUT),
        _own(
            "stuck worst",
            f"gap of the worst of {GROUP} runs, t = 3000",
            STUCK_WORST[0],
            _other_arms(STUCK_WORST[1]),
            variant=WITHOUT,
        ),
        _own(
            "plateau",
            "exact ascent: first t with gap < 0.05",
            "4570",
            papers.Digits(),
            variant="from (0.01, 0.98, 0.01)",
            headline="plateau from π(a*) = 0.01, updates",
        ),
        _own("no plateau", "exact ascent: first t with gap < 0.05", "60", papers.Digits(), variant="from uniform"),
        _own("still there", "ρ(θ) after 50 000 updates", ".89998", papers.Digits(), variant="from (0.001, 0.9, 0.099)"),
        papers.Target(
            "proportional",
            "slope of ln ‖∇ρ‖ in ln π(a*) on the plateau",
            papers.Near(0.01),
            exact=1.0,
            exact_tolerance=1e-3,
        ),
        papers.Target(
            "length", "‖∇ρ‖ / π(a*) on the plateau, π(a*) = 1e-6", papers.Digits(), exact_tolerance=1e-9
        ),
    ),
    pitfalls=(
        "Fitting the slope from the first updates on gives a number below −1: until about t = 3·10⁴ arms are still "
        "dying out, each in a jump of length η (r − ρ) / π(a).",
        "The baseline does not help by less variance: tr Var grows as 1/π(a) with it as without.",
        "The reference drew its 18 lesser arms with a seed that is not known: its gaps are judged by how much the gap "
        "varies between drawings.",
    ),
)
