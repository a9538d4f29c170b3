"""Targets of `four_rooms`: what Chung et al. 2021 and an independent simulation say."""

from experiments.harness import targets as papers
from experiments.harness.targets import Above, Digits, Target, Within

# (method, ε) → episodes → value, and the standard deviation of ours over 400 runs. The reference has 20 runs and gives
# no error, and 20 runs estimate the spread badly where one run in a hundred is far below the others.
REFERENCE = {
    ("natural", -0.5): {100: ("0.269", 0.146), 300: ("0.197", 0.234), 600: ("0.151", 0.264)},
    ("natural", 0.0): {100: ("0.367", 0.0071), 300: ("0.524", 0.032), 600: ("0.770", 0.044)},
    ("natural", 0.5): {100: ("0.313", 0.054), 300: ("0.475", 0.054), 600: ("0.618", 0.106)},
    ("vanilla", -0.5): {600: ("0.672", 0.203)},
    ("vanilla", 0.0): {600: ("0.777", 0.073)},
    ("vanilla", 0.5): {600: ("0.668", 0.176)},
}
REFERENCE_RUNS = 20
EXITS = {(7, 7): ("best", "0.8775", 14), (2, 7): ("second", "0.5536", 9), (7, 2): ("worst", "0.2768", 9)}
UNFINISHED = (
    "Our value is solved for, and a dynamic program of 3000 steps gives the same. We can only guess why the reference "
    "differs: a program that stops after 59 sweeps from values of 1/2 gives 0.2831, but this guess was fitted to this "
    "one number."
)
PITFALLS = (
    "The published code moves along one axis and tests for walls along the other. So no mid-line is closed; only some "
    "steps along rows and columns 4 and 5 are blocked, in one direction each. The shortest ways have the same "
    "lengths.",
    "The true action values of the published code are iterated from 1/2 until a sweep changes them by less than 1e-3. "
    "The value of the first policy is then 0.251 instead of 0.230, and with walls as described 0.179 instead of "
    "0.152. They have no horizon, although episodes are cut after 100 steps.",
    "The published code moves θ inside an episode, so a cell that is visited twice is weighed at two policies, and "
    "the sum is the gradient at no single θ. Over 300 runs this made no difference to us. The code bounds π from "
    "below by 1e-6 in weights and steps.",
    "In the published code the ε that is relative to the largest advantage is multiplied from step to step, from an "
    "episode's last to its first, and so shrinks to nothing. Its online entropy of states divides the counts by their "
    "sum at every record, so everything before it weighs as one visit.",
)


FAR_OFF = (
    "The difference is barely too large. Over 400 runs ours is 0.444 ± 0.003, which lies 2.5 standard errors of the "
    "reference's 20 runs below the reference and would agree. The 40 runs of this seed lie still lower, just beyond "
    "the three standard errors that are allowed."
)


def key_of(method: str, epsilon: float, episode: int) -> str:
    return f"{method} {epsilon:g} {episode}"


def _curves() -> list[Target]:
    return [
        Target(
            key=key_of(method, epsilon, episode),
            quantity=f"value after {episode} episodes, ε = {epsilon:g}".replace("-", "−"),
            rule=Within(3, published_stderr=spread / REFERENCE_RUNS**0.5),
            published=printed,
            provenance="own",
            variant=f"{method}, described",
            headline="value, ε = −0.5, 600 episodes" * ((method, epsilon, episode) == ("natural", -0.5, 600)),
            why=FAR_OFF if (method, epsilon, episode) == ("natural", 0.5, 300) else "",
        )
        for (method, epsilon), numbers in REFERENCE.items()
        for episode, (printed, spread) in numbers.items()
    ]


def _exits() -> list[Target]:
    targets = []
    for place, (name, value, steps) in EXITS.items():
        options = {"rule": Digits(), "provenance": "own", "variant": "described"}
        targets += [
            Target(key=f"value {place}", quantity=f"best value, the {name} exit", published=value, **options),
            Target(key=f"steps {place}", quantity=f"steps to the {name} exit", published=str(steps), **options),
        ]
    return targets


def _order(key: str, quantity: str, variant: str = "natural, described", headline: str = "") -> Target:
    return Target(key, quantity, Above(), provenance="mem", variant=variant, headline=headline)


PAPER = papers.Paper(
    citation="Chung, Thomas, Machado & Le Roux, Beyond Variance Reduction, ICML 2021: four rooms",
    claim="With a baseline below the best one the natural gradient commits early; above it, it keeps exploring.",
    targets=(
        *_exits(),
        Target(
            "changed", "exits whose shortest way is longer or shorter than described", Digits(), "0", "own", "released"
        ),
        Target("rooms", "cells, of 10, where a mid-line can be crossed", Digits(), variant="described", exact=2.0),
        Target("no rooms", "cells, of 10, where a mid-line can be crossed", Digits(), "10", "own", "released"),
        Target("uniform", "value before learning", Digits(), "0.283", "own", "described", why=UNFINISHED),
        *_curves(),
        _order("value", "value at the end, ε = 0.5 minus ε = −0.5", headline="value, ε = 0.5 minus ε = −0.5"),
        _order("actions", "entropy of actions at the end (nats), ε = 0.5 minus ε = −0.5"),
        _order("states", "entropy of cells at the end (nats), ε = 0.5 minus ε = −0.5"),
        _order("weak", "difference of the values, natural minus vanilla", "described"),
    ),
    pitfalls=PITFALLS,
)
