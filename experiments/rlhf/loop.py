"""The loop of one run as pure functions of its state: sample, compare, fit, optimise, evaluate.

A run's state holds θ, the reference, the reward model, β and all comparisons so far, so one compiled program for each
stage serves every round, every seed, every β and every number of pairs. Axes: N comparisons of all rounds; each round
makes P for the fit and H that are held out; M reference answers, U updates.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.rlhf import optimising
from experiments.rlhf.problem import Problem, make_features, measure, play
from pgjax import preferences
from pgjax.environments.text import TextBuffer
from pgjax.preferences import annotators, fitting, reward_models
from pgjax.types import PyTree, TrainState

Found = dict[str, jax.Array]


class Labelled(NamedTuple):
    """Comparisons of a person, with their weights in the fit and in the evaluation of the reward model, `[N]`."""

    comparisons: preferences.Comparisons
    weights: jax.Array
    held_out: jax.Array


class State(NamedTuple):
    """One run between two stages; saved and restored whole.

    Attributes:
        train: θ, the optimiser, in `estimator_state` the value if the estimator has one, and in `reward_state` the
            reward model, β and θ_ref. With the KL term in the loss, `estimator_state` holds its β and θ_ref too.
        comparisons: N comparisons of all rounds; those that are not yet made have the weights 0.
        weights: float `[N]`, the weights in the fit; 0 for a pair of a round beyond the first `num_pairs`.
        held_out: float `[N]`, the weights in the evaluation of the reward model; where it is not 0, `weights` is 0.
        chances: float `[N, 3]`, the exact probabilities of the outcomes; None for the labels of a person.
        num_pairs: int32 `[]`, the number of pairs of a round to which the reward model of this run is fitted, at most
            P. The run ignores the other pairs.
        reference: M answers of the reference policy, on which reward models are normalised; leaves `[M, ...]`.
        key: the key of the run; each stage folds its number into it.
    """

    train: TrainState
    comparisons: preferences.Comparisons
    weights: jax.Array
    held_out: jax.Array
    chances: jax.Array | None
    num_pairs: jax.Array
    reference: TextBuffer
    key: jax.Array


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes and numbers of the loop that are fixed while it is compiled.

    Attributes:
        pairs, held_out: P and H.
    """

    rounds: int
    pairs: int
    held_out: int
    updates: int
    evaluated: int
    reference: int
    temperature: float
    reward_width: int
    reward_epochs: int
    optimising: optimising.Settings

    @property
    def compared(self) -> int:
        """P + H, the number of pairs that are compared in a round."""
        return self.pairs + self.held_out


# One object: the fit compiles once for each.
REWARD_OPTIMIZER = optax.adamw(3e-3, weight_decay=1.0)


def _key(state: State, number: jax.Array, stage: int) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(state.key, number), stage)


class Loop:
    """The stages of one run. Its methods are pure functions, to be compiled and mapped over runs.

    Args:
        problem: the text.
        sizes: the sizes.
        labelled: whether the comparisons are given, so that `sample` adds none.

    Attributes:
        scored: the normalised reward model of buffers, whose φ is in the state.

    Raises:
        ValueError: if the estimator is unknown, or needs more than a policy, groups and a predicted return.
    """

    def __init__(self, problem: Problem, sizes: Sizes, *, labelled: bool):
        self.problem, self.sizes, self.labelled = problem, sizes, labelled
        self._features = make_features(problem.train.horizon)
        self._base = reward_models.mlp(hidden=(sizes.reward_width,))
        self.scored = reward_models.on_features(reward_models.normalised(self._base), self._features)
        empty = self._no_buffers()
        reward_params = self.scored.init(jax.random.key(0), empty)
        self._trainer = optimising.make_trainer(problem, sizes.optimising, self.scored, reward_params)

    def _no_buffers(self, *shape: int) -> TextBuffer:
        train = self.problem.train
        one = jax.eval_shape(lambda: train.reset(jax.random.key(0), train.params)[1])
        return jax.tree.map(lambda x: jnp.zeros((*shape, *x.shape), x.dtype), one)

    def begin(
        self, key: jax.Array, kl_coef: jax.Array, num_pairs: jax.Array, params: PyTree, given: Labelled | None
    ) -> State:
        """The state before the first round, from the key of the run, β, its number of pairs, θ, and given labels."""
        run_key, trainer_key, reference_key = jax.random.split(key, 3)
        init_key, value_key = jax.random.split(trainer_key)
        if given is None:
            count = self.sizes.rounds * self.sizes.compared
            outcomes, none = jnp.zeros(count, jnp.int32), jnp.zeros(count)
            buffers = self._no_buffers(count)
            given = Labelled(preferences.Comparisons(buffers, buffers, outcomes, none), none, none)
        count = given.weights.shape[0]
        return State(
            train=optimising.started(value_key, self._trainer.init(init_key), params, kl_coef, self.sizes.optimising),
            comparisons=given.comparisons,
            weights=given.weights,
            held_out=given.held_out,
            chances=None if self.labelled else jnp.zeros((count, 3)),
            num_pairs=num_pairs,
            reference=play(self.problem, self.problem.train, params, reference_key, self.sizes.reference).final_obs,
            key=run_key,
        )

    def sample(self, state: State, number: jax.Array) -> tuple[State, PyTree]:
        """Pairs of answers of this round, and their comparisons by the simulated annotator."""
        play_key, label_key = jax.random.split(_key(state, number, 0))
        count = self.sizes.compared
        played = play(self.problem, self.problem.train, state.train.params, play_key, 2 * count, group_size=2)
        found = {"answers": played.final_obs, "log_probs": jnp.sum(played.behaviour_log_probs, axis=0)}
        if self.labelled:
            return state, found
        golds = jnp.sum(played.rewards, axis=0).reshape(-1, 2)
        annotator = annotators.Annotator(temperature=self.sizes.temperature)
        outcomes = annotators.compare(label_key, annotator, golds)
        side = lambda i: jax.tree.map(lambda x: x[i::2], played.final_obs)
        place = jnp.arange(count)
        new = {
            "comparisons": preferences.Comparisons(side(0), side(1), outcomes, jnp.zeros(count)),
            "weights": place < state.num_pairs,
            "held_out": place >= self.sizes.pairs,
            "chances": annotators.probabilities(annotator, golds),
        }
        put = lambda old, rows: jax.lax.dynamic_update_slice_in_dim(old, rows.astype(old.dtype), number * count, 0)
        return state._replace(**{name: jax.tree.map(put, getattr(state, name), x) for name, x in new.items()}), found

    def fit(self, state: State, number: jax.Array) -> tuple[State, Found]:
        """A new reward model, normalised, and how good it is on the labels of its fit and on held-out ones."""
        described = lambda buffers: reward_models.features_of(self._features, buffers)
        both = {"first": described(state.comparisons.first), "second": described(state.comparisons.second)}
        labels = state.comparisons._replace(**both)
        how = {"num_epochs": self.sizes.reward_epochs, "batch_size": 64, "weights": state.weights}
        found = fitting.fit(_key(state, number, 1), self._base, labels, REWARD_OPTIMIZER, **how)
        fitted = reward_models.normalise(self._base, found.params, described(state.reference))
        model_state, *others = state.train.reward_state
        train = state.train._replace(reward_state=(model_state._replace(params=fitted), *others))
        judge = lambda **given: fitting.evaluate(self._base, found.params, labels, **given)
        seen, other = judge(weights=state.weights), judge(weights=state.held_out, chances=state.chances)
        numbers = {name: seen[name] for name in ("loss", "accuracy")}
        numbers |= {f"held_out_{name}": other[name] for name in ("loss", "accuracy")}
        numbers |= {name: other[name] for name in ("entropy_floor", "excess_loss") if name in other}
        return state._replace(train=train), numbers

    def optimise(self, state: State, number: jax.Array) -> tuple[State, Found]:
        """U updates of θ, and the numbers of the batch of each, `[U]`."""
        del number  # the trainer counts its updates itself
        train, metrics = jax.lax.scan(lambda s, _: self._trainer.update(s), state.train, length=self.sizes.updates)
        kept = {"gold": "mean_return", "proxy": "proxy", "kl": "kl", "length": "mean_length"}
        return state._replace(train=train), {name: metrics[source] for name, source in kept.items()}

    def evaluate(self, state: State, number: jax.Array) -> tuple[State, PyTree]:
        """The numbers of answers to the prompts of the evaluation, and these answers."""
        # The same prompts and random numbers in every round: differences between rounds are then those of θ.
        del number
        params = state.train.params
        played = play(self.problem, self.problem.test, params, _key(state, jnp.int32(0), 2), self.sizes.evaluated)
        model_state, _, penalty = state.train.reward_state
        proxies = jax.vmap(self.scored.apply, (None, 0))(model_state.params, played.final_obs)
        numbers = measure(self.problem, params, penalty.reference, proxies, played)
        return state, {"numbers": numbers, "answers": played.final_obs}
