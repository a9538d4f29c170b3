"""The numbers that the runs on the short corridor give, and those that linear solves give."""

import dataclasses
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import runner
from experiments.harness.targets import Measured
from experiments.short_corridor import learning as training
from experiments.short_corridor import targets
from experiments.short_corridor.targets import BASELINE, CLIPPED, CORRECTED, FROM_HALF, PUBLISHED, RELEASED, WINDOWS
from pgjax import exact
from pgjax.environments.corridor import BEST_PROBABILITY, RIGHT, corridor_mdp, corridor_value


@dataclasses.dataclass(frozen=True)
class Curves:
    """The runs of one variant.

    Attributes:
        methods: the names of the methods.
        number: how many runs each method has.
        total_reward: method → G_1 `[S, E]`, NaN once the run was stopped.
        stopped: method → the episode after which a run was stopped, `[S]`; 0 where it was not.
        value: method → v(p) of the policy that acted, without a cap, `[S, E]`.
        cut: the share of all episodes that the cap cut.
        runs, settings: the final state of all runs, leaves `[methods · S, ...]`, and their settings.
    """

    methods: list[str]
    number: int
    total_reward: dict[str, np.ndarray]
    stopped: dict[str, np.ndarray]
    value: dict[str, np.ndarray]
    cut: float
    runs: training.Runs
    settings: training.Settings

    def survivors(self, method: str) -> np.ndarray:
        """Return G_1 of the runs that were never stopped, `[≤ S, E]`."""
        return self.total_reward[method][self.stopped[method] == 0]

    def window(self, method: str, window: tuple[int, int]) -> np.ndarray | None:
        """Return each unstopped run's mean over a window of episodes; None if the runs are too short."""
        rewards = self.survivors(method)
        if rewards.shape[1] < window[1]:
            return None
        return rewards[:, window[0] - 1 : window[1]].mean(axis=1)

    def rows(self, method: str) -> np.ndarray:
        """Return the indices of a method's runs in `runs` and `settings`."""
        return self.methods.index(method) * self.number + np.arange(self.number)


def curves(
    methods: list[str], played: list[training.Played], runs: training.Runs, settings: training.Settings
) -> Curves:
    """Sort the records of all episodes by method; the runs stand one method after another."""
    rewards, odds, cut = (np.stack([np.asarray(x) for x in column]) for column in zip(*played))
    split = lambda x: dict(zip(methods, np.moveaxis(x.reshape(len(x), len(methods), -1), 0, -1), strict=True))
    rewards = split(rewards)
    seen = {name: (~np.isnan(found)).sum(axis=1) for name, found in rewards.items()}
    ended = split(np.asarray(runs.stopped)[None])
    return Curves(
        methods=methods,
        number=len(rewards[methods[0]]),
        total_reward=rewards,
        stopped={name: np.where(ended[name][:, 0], seen[name], 0) for name in methods},
        value=split(np.asarray(corridor_value(1 / (1 + np.exp(-odds))))),
        cut=float(cut.sum() / sum(found.sum() for found in seen.values())),
        runs=runs,
        settings=settings,
    )


def closed_state_values(p: float) -> tuple[float, float, float]:
    """Return v of states 0, 1 and 2: v_0 = (2p − 4)/(p (1 − p)), v_1 = v_0 + 1/p, v_2 = (1 − p) v_1 − 1."""
    first = float(corridor_value(p))
    return first, first + 1 / p, (1 - p) * (first + 1 / p) - 1


class Solved(NamedTuple):
    """For K policies: v `[K, S]`, dv(0)/d ln p/(1 − p), v(0) if the last step pays 0, the mean update, `[K]` each."""

    states: jax.Array
    slope: jax.Array
    unpaid: jax.Array
    in_episode: jax.Array


@jax.jit
def solve(log_odds: jax.Array, baseline_steps: jax.Array) -> Solved:
    """Solve K policies linearly, given ln p/(1 − p) and α_w, `[K]` each."""
    apply, mdp = training.clipped_policy(np.inf).apply, corridor_mdp()
    unpaid = dataclasses.replace(mdp, rewards=mdp.rewards.at[training.BEFORE_THE_GOAL, RIGHT].set(0.0))

    def at(gap: jax.Array, baseline_step: jax.Array) -> Solved:
        params = jnp.zeros(2).at[RIGHT].set(gap)
        return Solved(
            states=exact.stationary_state_values(mdp, exact.policy_probabilities(apply, params, mdp)),
            slope=exact.stationary_gradient(apply, params, mdp)[RIGHT],
            unpaid=exact.stationary_objective(apply, params, unpaid),
            in_episode=training.expected_update(params, baseline_step)[RIGHT],
        )

    return jax.vmap(at)(log_odds, baseline_steps)


def solved() -> tuple[dict[str, Measured], dict[str, float]]:
    """Return values and gradients by linear solves beside closed forms, and the exact mean updates; in float64."""
    places = np.array([0.05, 0.3, 0.5, 0.95])
    values = np.asarray(corridor_value(places))
    settings = targets.IN_EPISODE.values()
    odds = np.array([training.log_odds(p) for p in (*places, *(p for p, _ in settings), 0.5)])
    baseline_steps = np.array([*np.zeros(len(places)), *(step for _, step in settings), 0.0])
    low, high = -3.0, 3.0
    for _ in range(60):  # halves the interval in which the slope changes its sign
        odds[-1] = (low + high) / 2
        known = jax.tree.map(np.asarray, solve(odds, baseline_steps))
        low, high = (odds[-1], high) if known.slope[-1] > 0 else (low, odds[-1])
    # The last two are v and v′(p) p (1 − p).
    numbers = (known.states[:, 0], known.slope, values, 2 - values * (1 - 2 * places))
    v, slopes, closed_v, closed_slopes = (dict(zip(places.tolist(), map(float, x))) for x in numbers)
    found = {name: Measured(float(known.states[-1, 0])) for name in ("v* text", "v*")}
    found |= {name: Measured(1 / (1 + math.exp(-odds[-1]))) for name in ("p* text", "p*")}
    found |= {f"v({p})": Measured(v[p], exact=closed_v[p]) for p in (0.05, 0.5, 0.95)}
    for p, bound in ((0.05, 82), (0.95, 44)):
        found[f"{bound}"] = Measured(-bound - v[p], exact=-bound - closed_v[p])
    found |= {f"slope {p}": Measured(slopes[p], exact=closed_slopes[p]) for p in (0.3, 0.5)}
    for state, closed_form in enumerate(closed_state_values(BEST_PROBABILITY)):
        found[f"state {state}"] = Measured(float(known.states[-1, state]), exact=closed_form)
    found["start"] = Measured(1 / (1 + math.exp(2.94)))
    found |= {name: Measured(float(known.unpaid[-1])) for name in ("released best", "line")}
    return found, dict(zip(targets.IN_EPISODE, known.in_episode[len(places) : -1].tolist(), strict=True))


def in_episode(key: jax.Array, known: dict[str, float], samples: int, number: int, cap: int) -> dict[str, Measured]:
    """Sample the boxed algorithm's mean update at fixed θ, beside the exact one.

    Each setting has `samples` episodes, played `number` at a time; `known` holds the exact updates.
    """
    places = targets.IN_EPISODE
    several = number // len(places)
    # Runs that are left over repeat the last setting, and are ignored.
    each = lambda values: np.pad(np.repeat(np.array(values, np.float32), several), (0, number % len(places)), "edge")
    probabilities, baseline_steps = (each(column) for column in zip(*places.values()))
    unlimited = np.full(number, np.inf, np.float32)
    settings = training.Settings(
        step=np.ones(number, np.float32),
        keep=1 - baseline_steps,
        limit=unlimited,
        stop=unlimited,
        last_reward=-np.ones(number, np.float32),
        moves=np.zeros(number, bool),
    )
    gaps = np.log(probabilities) - np.log1p(-probabilities)
    runs = training.start(np.where(np.arange(2) == RIGHT, gaps[:, None], np.float32(0)))
    runs = runs._replace(state=runs.state._replace(estimate=corridor_value(probabilities)))
    how = {"environment": training.corridor(cap), "update": training.PER_STEP}
    parts = [training.play(key, settings, runs, np.int32(i), **how)[0].params for i in range(-(-samples // several))]
    updates = np.stack([np.asarray(part)[:, RIGHT] for part in parts]) - gaps
    updates = updates[:, : several * len(places)].reshape(len(parts), len(places), several)
    columns = np.moveaxis(updates, 1, 0).reshape(len(places), -1)
    return {name: Measured.of(found, known[name]) for name, found in zip(places, columns, strict=True)}


def mean(values: np.ndarray) -> Measured:
    """Return the mean over `[S]` runs: NaN, for which no claim holds, if S = 0; without an error if S = 1."""
    if len(values) > 1:
        return Measured.of(values)
    return Measured(float(values[0]) if len(values) else math.nan)


def learning(found: dict[str, Curves]) -> dict[str, Measured]:
    """Return the means over windows of the curves of unstopped runs, and the orderings of the figures."""

    def window(variant: str, method: str, episodes: tuple[int, int]) -> Measured | None:
        values = found[variant].window(method, episodes)
        return None if values is None else mean(values)

    wanted = [(v, m, w) for v, methods in targets.CURVES.items() for m in methods for w in WINDOWS]
    wanted += [(PUBLISHED, FROM_HALF, WINDOWS[0]), (CORRECTED, BASELINE, WINDOWS[-1])]
    measured = {f"{v}, {m}, {w}": window(v, m, w) for v, m, w in wanted}
    at_100, last = WINDOWS[1], WINDOWS[-1]
    pairs = {"gain": ((PUBLISHED, BASELINE, at_100), (PUBLISHED, "2⁻¹³", at_100))}
    for faster, slower in itertools.pairwise(targets.STEPS):
        pairs[f"{faster} first"] = ((PUBLISHED, faster, at_100), (PUBLISHED, slower, at_100))
    pairs["reversed"] = ((CLIPPED, "2⁻¹²", at_100), (CLIPPED, "2⁻¹³", at_100))
    pairs["alike"] = ((PUBLISHED, BASELINE, last), (CORRECTED, BASELINE, last))
    both = {key: (window(*a), window(*b)) for key, (a, b) in pairs.items()}
    measured |= {key: a.minus(b) for key, (a, b) in both.items() if a is not None and b is not None}
    published = found[PUBLISHED]
    if published.window(BASELINE, at_100) is not None:
        values = published.value[BASELINE][published.stopped[BASELINE] == 0, at_100[0] - 1 : at_100[1]]
        measured["near"] = mean(values.mean(axis=1))
    return {key: value for key, value in measured.items() if value is not None}


def add_row(recorder: runner.Recorder, quantity: str, variant: str, ours: Measured) -> None:
    """Add a row that has no verdict, because there is nothing to compare it with."""
    recorder.row(quantity=quantity, variant=variant, ours=ours.value, stderr=ours.stderr)


def record(found: dict[str, Curves], recorder: runner.Recorder) -> None:
    """Record two windows of the variants without a reference, and the shares of episodes that the cap cut."""
    for variant, curves in found.items():
        for method in targets.DIVERGED if variant == CORRECTED else curves.methods[:-1] if variant == RELEASED else ():
            name = f"{variant}, {method}"
            for window in (WINDOWS[1], WINDOWS[-1]):
                values = curves.window(method, window)
                if values is not None and (variant, method, window) not in targets.ENDS:
                    add_row(recorder, targets.window_name(window), name, mean(values))
            if variant == CORRECTED:
                add_row(recorder, "share diverged", name, Measured.share(curves.stopped[method] > 0))
        recorder.row(quantity="share of episodes that the cap cut", variant=variant, ours=curves.cut)


def title(curves: Curves) -> str:
    """The finding: the mean returns of both methods at episodes 91–100."""
    values = {method: curves.window(method, WINDOWS[1]) for method in (BASELINE, "2⁻¹³")}
    if any(value is None or not len(value) for value in values.values()):
        return "REINFORCE on the short corridor"
    found = [f"{value.mean():.1f}".replace("-", "−") for value in values.values()]
    return f"After 100 episodes REINFORCE earns {found[0]} with a baseline and {found[1]} without it; the best is −11.7"
