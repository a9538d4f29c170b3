"""Targets of `baseline_start`: identities of the moving average, and what its start does to learning."""

from experiments.baseline_start.facts import DECAY, PAST, WORDS
from experiments.harness import targets as papers

PLAIN, NATURAL = "plain gradient", "natural gradient"


def _exactly(key: str, quantity: str, value: float | None, variant: str | None = None, **kwargs) -> papers.Target:
    return papers.Target(key, quantity, papers.Near(1e-9), variant=variant, exact=value, **kwargs)


def _reference(key: str, quantity: str, printed: str, value: float | None, variant: str, **kwargs) -> papers.Target:
    return papers.Target(key, quantity, papers.Digits(), printed, "own", variant, value, **kwargs)


def _claim(key: str, quantity: str, variant: str, why: str = "", headline: str = "") -> papers.Target:
    return papers.Target(key, quantity, papers.Above(), provenance="own", variant=variant, why=why, headline=headline)


_REFRESHED = "(a) c in E[ĝ] = c ∇ρ if ρ̂ is updated before its use"
_AVERAGE = (
    *(_exactly(f"mean {word}", f"(a) E b after {PAST} episodes at fixed θ", None, f"from {word}") for word in WORDS),
    *(
        _exactly(f"bias {word}", "(a) max |E[ĝ | past] − ∇ρ|, ρ̂ used, then updated", 0.0, f"from {word}")
        for word in WORDS
    ),
    _reference(
        "refreshed zero", _REFRESHED, ".9", DECAY, "from zero", headline="ρ̂ updated before its use: c in E[ĝ] = c ∇ρ"
    ),
    _reference("refreshed first", _REFRESHED, ".9", DECAY, "from first"),
    _exactly(
        "refreshed debiased",
        _REFRESHED,
        DECAY * (1 - DECAY**PAST) / (1 - DECAY ** (PAST + 1)),
        f"from debiased, after {PAST} episodes",
    ),
    _exactly("at once zero", _REFRESHED, DECAY, "from zero, first update"),
    _exactly("at once first", _REFRESHED, 0.0, "from first, first update"),
    _exactly("at once debiased", _REFRESHED, 0.0, "from debiased, first update"),
    _reference("refreshed reward-to-go", _REFRESHED, ".9", DECAY, "three steps, reward-to-go"),
    _exactly(
        "discounted",
        "(a) max |E[ĝ refreshed] − E[ĝ used] + (1 − β) ∇ρ_γ|",
        0.0,
        "three steps, discounted reward-to-go without γᵗ",
    ),
    papers.Target(
        "angle",
        "(a) angle between E[ĝ refreshed] and E[ĝ used] (degrees)",
        papers.Above(),
        provenance="own",
        variant="three steps, discounted reward-to-go without γᵗ",
    ),
)
_PUSHES = (
    *(
        _exactly(
            f"pushes {name}", "(a) what adding 1 to every reward adds to all weights together", value, f"from {start}"
        )
        for name, start, value in (
            ("zero", "zero: 1 / (1 − β)", 1 / (1 - DECAY)),
            ("first", "first", 1.0),
            ("debiased", "debiased", 1.0),
            ("known", "ρ(θ₀)", 0.0),
        )
    ),
    *(
        _exactly(
            f"later {name}",
            "(a) the most that adding 1 to every reward adds to a weight after the first",
            0.0,
            f"from {start}",
        )
        for name, start in (("first", "first"), ("debiased", "debiased"), ("known", "ρ(θ₀)"))
    ),
    *(
        _exactly(f"noise {sign}", "(a) tr Var of the first update, b = 0", None, f"returns {word}")
        for sign, word in (("-", "negative"), ("+", "positive"))
    ),
)
_BEST = "(b) runs that find the best arm (points)"
_LEARNING = (
    _claim(
        "natural positive",
        f"{_BEST}: debiased minus zero",
        f"{NATURAL}, returns positive",
        headline="best arm found, debiased − zero (points)",
    ),
    _claim("natural negative", f"{_BEST}: zero minus debiased", f"{NATURAL}, returns negative"),
    _claim("plain positive", f"{_BEST}: debiased minus zero", f"{PLAIN}, returns positive"),
    _claim(
        "plain signs",
        f"{_BEST}: from zero, returns negative minus positive",
        PLAIN,
        "The sign costs plain steps about 4 points; about 2000 runs are needed to see it.",
    ),
    _claim("repeats positive", "(b) early repetitions (points): zero minus debiased", f"{PLAIN}, returns positive"),
    _claim("repeats negative", "(b) early repetitions (points): debiased minus zero", f"{PLAIN}, returns negative"),
    _claim(
        "entropy negative",
        "(b) entropy after 30 updates (nats): zero minus debiased",
        f"{PLAIN}, returns negative",
        "Negative returns push down what was tried, so at first it is repeated less. But the pushes that a constant "
        "adds have mean zero at every θ, whatever their sign: they are noise, which spreads θ and lowers the entropy "
        "either way. So plain steps from zero lose runs with both signs. The sign decides for natural steps, whose "
        "pushes do not fade as an arm becomes certain.",
    ),
    _exactly("known", "(b) the greatest change of π at the end by the constant", 0.0, f"{PLAIN}, from ρ(θ₀)"),
)

PAPER = papers.Paper(
    citation="Williams 1992; Chung et al. 2021; the moving average of REINFORCE's textbook form",
    claim="The start of a moving-average baseline leaves the gradient unbiased and changes what is learned.",
    targets=(*_AVERAGE, *_PUSHES, *_LEARNING),
    pitfalls=(
        "A start at zero is no bias of the gradient but a lag: its extra pushes add up to 1 / (1 − β) times the first "
        "reward.",
        "Updating ρ̂ before its use is a bias: the gradient has the factor β, and with a start at the first return or "
        "debiased the first update is zero.",
        "Adding a constant to all rewards changes no optimum. With a start at zero it changes which arm is found.",
    ),
)
