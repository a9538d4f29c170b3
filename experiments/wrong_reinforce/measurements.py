"""Exact means of all exhibits and twins, the gradients that they should have, and the verdicts."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import verdicts
from experiments.harness.verdicts import Verdict
from experiments.shared.exact_room import Room, look
from experiments.wrong_reinforce.museum import Exhibit
from experiments.wrong_reinforce.twins import TWINS
from pgjax import exact

TOLERANCE = 1e-10
CAUGHT_ABOVE = 1e-6
CAUGHT, PASSES = verdicts.say(Verdict.AGREES, "caught"), verdicts.say(Verdict.AGREES, "passes")


class Place(NamedTuple):
    """A problem on which estimates are enumerated: all episodes, their probabilities, θ, and the size of a batch."""

    enumeration: exact.Enumeration
    probabilities: jax.Array
    params: jax.Array
    size: int


class Found(NamedTuple):
    """Exact facts of one estimate.

    Attributes:
        ratio: E[ĝ]·∇ρ / ‖∇ρ‖².
        cosine: the cosine of E[ĝ] and ∇ρ; 0 if E[ĝ] is 0.
        bias: ‖E[ĝ] − ∇ρ‖ / ‖∇ρ‖.
        variance: tr Var(ĝ).
        predicted_ratio, predicted_bias: the same of the prediction; None if there is none, as for twins.
        miss: ‖E[ĝ] − prediction‖ / ‖∇ρ‖.
    """

    ratio: float
    cosine: float
    bias: float
    variance: float
    predicted_ratio: float | None = None
    predicted_bias: float | None = None
    miss: float | None = None


def make_places(room: Room) -> dict[tuple[str, int], Place]:
    """(the problem that is played, B) → place. The `place` of a twin is one of these keys."""
    walk = exact.enumerate_trajectories(room.mdp)
    bandit = exact.enumerate_trajectories(exact.make_bandit([1.0, 0.0]))
    compute = lambda: {
        "walk": exact.trajectory_probabilities(room.apply, room.params, walk),
        "played": exact.trajectory_probabilities(room.played, room.params, walk),
        "bandit": exact.trajectory_probabilities(room.apply, room.answer_params, bandit),
    }
    probabilities = jax.jit(compute)()
    return {
        (name, batch): Place(
            enumeration=bandit if name == "bandit" else walk,
            probabilities=probabilities[name],
            params=room.answer_params if name == "bandit" else room.params,
            size=batch or room.group,
        )
        for name, batch in sorted({twin.place for twin in TWINS.values()})
    }


def gradients(room: Room) -> dict[str, jax.Array]:
    """Objective of a twin → its ∇ρ, from differentiated dynamic programs; that of the bandit has a closed form."""
    gradient = lambda mdp, apply=room.apply, discount=1.0: exact.exact_gradient(apply, room.params, mdp, discount)
    return {
        "return": gradient(room.mdp),
        "discounted": gradient(room.mdp, discount=room.discount),
        "unlimited": gradient(room.unlimited),
        "played": gradient(room.mdp, room.played),
        "bandit": room.success * (1.0 - room.success) * jnp.asarray([[1.0, -1.0]]),
    }


def _estimate_of_exhibit(room: Room, exhibit: Exhibit, place: Place):
    loss = lambda params, batch: exhibit.loss(look(room, params, batch), room)
    return lambda batch: -jax.grad(loss)(place.params, batch)


def _estimate_of_twin(room: Room, key: str, place: Place):
    estimator = TWINS[key].estimator(room)
    state = estimator.init(jax.random.key(0), place.enumeration.trajectories)
    return lambda batch: estimator.gradient(place.params, state, batch)[0]


def measure(room: Room, exhibits: Mapping[str, Exhibit]) -> tuple[dict[str, Found], dict[str, Found]]:
    """The measurements of the exhibits, by name, and of their twins, by key in `TWINS`. Each place is one program."""
    # One program: dispatched one by one, these small operations would take longer to compile than the enumeration.
    compute = lambda: (gradients(room), {name: e.predicted(room) for name, e in exhibits.items() if e.predicted})
    (targets, predictions), shown, twins = jax.jit(compute)(), {}, {}
    for where, place in make_places(room).items():
        here = {name: exhibit for name, exhibit in exhibits.items() if TWINS[exhibit.twin].place == where}
        if not here:
            continue
        keys = sorted({exhibit.twin for exhibit in here.values()})
        estimates = {("exhibit", name): _estimate_of_exhibit(room, exhibit, place) for name, exhibit in here.items()}
        estimates |= {("twin", key): _estimate_of_twin(room, key, place) for key in keys}
        together = lambda batch, estimates=estimates: [estimate(batch) for estimate in estimates.values()]
        moments = exact.estimator_moments(together, place.enumeration, place.probabilities, place.size)
        for (kind, name), mean, variance in zip(estimates, moments.mean, moments.variance, strict=True):
            target = targets[TWINS[here[name].twin if kind == "exhibit" else name].target]
            if kind == "twin":
                twins[name] = facts(mean, float(np.sum(variance)), target)
            else:
                shown[name] = facts(mean, float(np.sum(variance)), target, predictions.get(name))
    return {name: shown[name] for name in exhibits}, twins


def facts(mean: jax.Array, variance: float, target: jax.Array, predicted: jax.Array | None = None) -> Found:
    """Compare a mean `[...]`, and its prediction if there is one, with the gradient `target`."""
    mean, target = np.asarray(mean), np.asarray(target)
    length = np.linalg.norm(target)
    ratio = lambda x: float(np.vdot(x, target) / length**2)
    distance = lambda x, y: float(np.linalg.norm(x - y) / length)
    own = np.linalg.norm(mean) / length
    found = Found(
        ratio=ratio(mean),
        cosine=ratio(mean) / float(own) if own > TOLERANCE else 0.0,
        bias=distance(mean, target),
        variance=variance,
    )
    if predicted is None:
        return found
    return found._replace(
        predicted_ratio=ratio(predicted), predicted_bias=distance(predicted, target), miss=distance(mean, predicted)
    )


def verdict(found: Found, *, wrong: bool) -> str:
    """CAUGHT or PASSES if the estimate is as expected; otherwise the reason why not. A NaN is never as expected."""
    if found.miss is not None and not found.miss <= TOLERANCE:
        return verdicts.say(Verdict.WRONG, "not as predicted")
    if wrong:
        return CAUGHT if found.bias > CAUGHT_ABOVE else verdicts.say(Verdict.WRONG, "not caught")
    return PASSES if found.bias <= TOLERANCE else verdicts.say(Verdict.WRONG, "does not pass")
