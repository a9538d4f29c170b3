"""The variants that are compared: estimators of the registry, from one episode or from many."""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.harness import runner
from pgjax import registry
from pgjax.types import Baseline, Estimator, Policy


class Variant(NamedTuple):
    """One variant: an estimator of the registry, from one episode or from many."""

    entry: registry.Entry
    many: bool

    def estimator(self, policy: Policy, value: Baseline) -> Estimator:
        return registry.make(self.entry, registry.Parts(policy=policy, value=value))


def check_name(option: str, name: str) -> None:
    """Refuse an estimator that this experiment cannot compare. A module:function is not imported yet."""
    if ":" in name:
        return
    try:
        entry = registry.find(name)
    except ValueError as error:
        raise runner.UsageError(f"{option}: {error}") from error
    lacking = [need for need in entry.needs if need != "value"]
    reasons = (
        (entry.natural, "estimates the natural gradient, which is another quantity"),
        (entry.bias, f"is biased ({entry.bias}), and this experiment compares only variances"),
        (lacking, f"needs {' and '.join(registry.NEEDS[need] for need in lacking)}"),
        (entry.compares and option == "--one-episode", "compares episodes, and needs more than one"),
    )
    for refused, reason in reasons:
        if refused:
            raise runner.UsageError(f"{option} {name}: {reason}; the gradient laboratory measures all estimators")


def variants(one_episode: Sequence[str], many_episodes: Sequence[str]) -> dict[str, Variant]:
    """Name in tables and figures → variant."""
    with runner.usage_errors():
        one = [Variant(entry=registry.find(name), many=False) for name in one_episode]
        many = [Variant(entry=registry.find(name), many=True) for name in many_episodes]
    named = lambda variant: f"{'B episodes' if variant.many else 'one episode'}, {variant.entry.label}"
    return {named(variant): variant for variant in (*one, *many)}


# The estimator that trains the policies of the three stages and weighs the large sample.
QUIET = Variant(entry=registry.ENTRIES["gpomdp_value"], many=True)
