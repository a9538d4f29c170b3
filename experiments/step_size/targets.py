"""Targets of `step_size`, which were stated before it was run, and the problems that it runs on."""

from collections.abc import Collection
from typing import NamedTuple

from experiments.harness import targets as papers
from pgjax import exact
from pgjax.environments.corridor import corridor_mdp
from pgjax.exact import TabularMDP

NO_BASELINE, AVERAGE, VALUE = VARIANTS = ("b = 0", "b = ρ̂", "b = ρ(θ)")
EXACT = "exact gradient"
BANDIT, CORRIDOR = "bandit", "corridor"
SURE, TENTH = 0.1, 0.1  # a stuck run has less entropy (nats), and ρ further below the best (of its range)


class Problem(NamedTuple):
    """A tabular problem with a single observation, so θ is `[1, A]` and a policy is one distribution.

    Attributes:
        start: the first θ.
        powers: the exponents k of the step sizes 2^k.
        worst: the least possible ρ(θ).
    """

    mdp: TabularMDP
    start: tuple[float, ...]
    powers: range
    worst: float


POWERS = {BANDIT: range(-6, 9), CORRIDOR: range(-11, 3)}


def problems() -> dict[str, Problem]:
    """Return three arms that pay 1, 0.7, 0, from uniform π; and the corridor of 20 steps, from P(right) = 0.2."""
    return {
        BANDIT: Problem(exact.make_bandit([1.0, 0.7, 0.0]), (0.0, 0.0, 0.0), POWERS[BANDIT], 0.0),
        CORRIDOR: Problem(corridor_mdp(horizon=20), (0.7, -0.7), POWERS[CORRIDOR], -20.0),
    }


LARGEST = 2 ** POWERS[BANDIT][-1]
COUNTED = (
    "One step decides. Without a baseline a run stays with the first arm that pays; with ρ(θ) it stays with the arm "
    "that pays 0.7 only if it pulls that arm first."
)
PAPER = papers.Paper(
    citation="Williams 1992; Chung et al. 2021 (over-commitment); Mei et al. 2020 (flat gradients)",
    claim="Too large a step makes REINFORCE sure of something wrong, where the gradient is too flat to come back.",
    targets=(
        *(
            papers.Target(
                f"stuck {name}",
                f"bandit, share of runs stuck, η = {LARGEST}",
                papers.Within(3),
                exact=share,
                variant=name,
                headline=f"stuck at η = {LARGEST}, {name}" if name != AVERAGE else "",
                why=COUNTED,
            )
            for name, share in ((NO_BASELINE, 1 / 2), (AVERAGE, 1 / 2), (VALUE, 1 / 3))
        ),
        papers.Target(
            "exact never stuck",
            "bandit, number of step sizes that get stuck",
            papers.Digits(),
            exact=0.0,
            variant=EXACT,
        ),
        papers.Target("too small", "bandit, ρ at the best step − at the smallest", papers.Above(), variant=NO_BASELINE),
        papers.Target("too large", "bandit, ρ at the best step − at the largest", papers.Above(), variant=NO_BASELINE),
        papers.Target(
            "value helps", "bandit, share of runs stuck over all steps, b = 0 minus b = ρ(θ)", papers.Above()
        ),
        papers.Target("average helps", "bandit, share of runs stuck over all steps, b = 0 minus b = ρ̂", papers.Above()),
        papers.Target(
            "entropy",
            "bandit, entropy at the smallest step − at the largest (nats)",
            papers.Above(),
            variant=NO_BASELINE,
        ),
        papers.Target(
            "corridor stuck",
            "corridor, share of runs stuck at the largest step − at the smallest",
            papers.Above(),
            variant=AVERAGE,
        ),
        papers.Target(
            "limit",
            "corridor, greatest step at which exact ascent settles at the best (2^k ≤ 2/λ)",
            papers.Digits(),
            variant=EXACT,
        ),
        papers.Target(
            "noise first",
            "corridor, doublings from the greatest step without a stuck run to 2/λ",
            papers.Above(),
            variant=AVERAGE,
        ),
    ),
    pitfalls=(
        "A moving average that starts at its first return is no baseline in the first update, and with large steps "
        "the first update decides.",
        "A low return after training may come from slow learning or from a policy that is sure of something wrong. "
        "The entropy tells which; the return does not.",
    ),
)


def left_out(problems: Collection[str]) -> list[str]:
    """Return the keys of the targets of problems that are not run; a quantity begins with its problem."""
    return [target.key for target in PAPER.targets if target.quantity.partition(",")[0] not in problems]
