"""The right twins of the exhibits: what the wrong code should compute, declared as a user of pgjax declares it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from experiments.shared.exact_room import Room
from pgjax import baselines, estimators
from pgjax.distributions import categorical
from pgjax.types import Baseline, Estimator, Policy


@dataclasses.dataclass(frozen=True)
class Twin:
    """The estimator of pgjax that an exhibit should have been, and the gradient that it must give.

    Attributes:
        text: the arguments of `make_estimator`, as a user writes them.
        estimator: room → Estimator.
        target: the objective whose gradient it must give: `"return"`; `"discounted"`; `"unlimited"`,
            the walk without its time limit; `"played"`, of the ε-greedy policy; `"bandit"`.
        batch: B; 0 means the size G of the group.
    """

    text: str
    estimator: Callable[[Room], Estimator]
    target: str = "return"
    batch: int = 1

    @property
    def place(self) -> tuple[str, int]:
        """The problem that is played, and B."""
        return (self.target if self.target in ("played", "bandit") else "walk"), self.batch

    @property
    def label(self) -> str:
        return self.text + {0: ", B = G", 1: ""}.get(self.batch, f", B = {self.batch}")


def _make(room: Room, apply: Any = None, **conventions: Any) -> Estimator:
    policy = Policy(init=None, apply=room.apply if apply is None else apply, distribution=categorical)
    return estimators.make_estimator(policy, **conventions)


def _table(room: Room, table: jax.Array) -> Baseline:
    return baselines.state_values(lambda obs: room.value(table, obs))


def _shared_critic(room: Room) -> Estimator:
    critic = baselines.state_values(lambda obs: room.apply(room.params, obs) @ room.head)
    return _make(room, baseline=critic)


TWINS = {
    "to_go": Twin("returns=reward_to_go()", lambda room: _make(room)),
    "total": Twin("returns=total_return()", lambda room: _make(room, returns=estimators.total_return())),
    "total_of_two": Twin(
        "returns=total_return()", lambda room: _make(room, returns=estimators.total_return()), batch=2
    ),
    "to_go_of_two": Twin("returns=reward_to_go()", lambda room: _make(room), batch=2),
    "discounted": Twin(
        'returns=reward_to_go(γ), time_weights="discount"',
        lambda room: _make(room, returns=estimators.reward_to_go(room.discount), time_weights="discount"),
        target="discounted",
    ),
    "discounted_of_two": Twin(
        'returns=reward_to_go(γ), time_weights="discount"',
        lambda room: _make(room, returns=estimators.reward_to_go(room.discount), time_weights="discount"),
        target="discounted",
        batch=2,
    ),
    "value": Twin(
        "returns=reward_to_go(), baseline=state_values(v)",
        lambda room: _make(room, baseline=_table(room, room.values)),
    ),
    "shared": Twin("returns=reward_to_go(), baseline=state_values(v of shared θ)", _shared_critic),
    "constant": Twin(
        "returns=reward_to_go(), baseline=constant(w)",
        lambda room: _make(room, baseline=baselines.constant(room.average)),
    ),
    "average": Twin(
        "returns=total_return(), baseline=moving_average(β)",
        lambda room: _make(
            room, returns=estimators.total_return(), baseline=baselines.moving_average(room.decay, room.average)
        ),
    ),
    "leave_one_out": Twin(
        "returns=reward_to_go(), baseline=leave_one_out()",
        lambda room: _make(room, baseline=baselines.leave_one_out()),
        batch=2,
    ),
    "difference": Twin(
        "returns=lambda_return(0), baseline=state_values(v)",
        lambda room: _make(room, returns=estimators.lambda_return(0.0), baseline=_table(room, room.network_values)),
    ),
    "bootstrapped": Twin(
        "returns=lambda_return(1), baseline=state_values(v of the walk without a limit)",
        lambda room: _make(room, returns=estimators.lambda_return(1.0), baseline=_table(room, room.long_values)),
        target="unlimited",
    ),
    "played": Twin(
        "returns=reward_to_go(), of Policy(apply=f_ε)", lambda room: _make(room, room.played), target="played"
    ),
    "group": Twin(
        "returns=total_return(), baseline=leave_one_out()",
        lambda room: _make(room, returns=estimators.total_return(), baseline=baselines.leave_one_out()),
        target="bandit",
        batch=0,
    ),
}
