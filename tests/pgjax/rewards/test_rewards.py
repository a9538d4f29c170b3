"""The reward stage: what each transform does to rewards, to objectives and to padding, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from closeness import close

from pgjax import rewards
from pgjax.distributions import categorical
from pgjax.types import Trajectory

pytestmark = pytest.mark.usefixtures("strict", "x64")

T, LENGTHS = 5, (5, 2, 4)
ALIVE = np.arange(T)[:, None] < np.array(LENGTHS)
LAST = np.arange(T)[:, None] == np.array(LENGTHS) - 1
# Episode 0 is cut by the horizon, the others end by themselves.
TERMINATED, TRUNCATED = LAST & [False, True, True], LAST & [True, False, False]
REWARDS, FIRST, SECOND = np.random.default_rng(0).normal(size=(3, T, len(LENGTHS)))


def trajectory(values=REWARDS, alive=ALIVE):
    zeros = jnp.zeros((T, len(LENGTHS)))
    return Trajectory(
        obs=zeros,
        actions=zeros.astype(jnp.int32),
        rewards=jnp.where(alive, values, 0.0),
        alive=jnp.asarray(alive),
        terminated=jnp.asarray(TERMINATED),
        truncated=jnp.asarray(TRUNCATED),
        final_obs=zeros[0],
    )


def episodes(array):
    """The live steps of each episode as lists."""
    return [np.asarray(array)[:length, b].tolist() for b, length in enumerate(LENGTHS)]


TRANSFORMS = {
    "relabel": lambda t, first, second: rewards.relabel(t, first),
    "scale": lambda t, first, second: rewards.scale(t, -2.5),
    "centre": lambda t, first, second: rewards.centre(t),
    "whiten": lambda t, first, second: rewards.whiten(t),
    "kl_regularised": lambda t, first, second: rewards.kl_regularised(t, first, second, kl_coef=0.3),
}
lists = [episodes(array) for array in (REWARDS, FIRST, SECOND)]
WANTED = {
    "relabel": lists[1],
    "scale": [[-2.5 * reward for reward in episode] for episode in lists[0]],
    "centre": references.centre(lists[0]),
    "whiten": references.whiten(lists[0]),
    "kl_regularised": [references.kl_regularised(*rows, 0.3) for rows in zip(*lists)],
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_live_rewards_are_those_of_the_definition_and_padding_is_zero(name):
    got = jax.jit(TRANSFORMS[name])(trajectory(), jnp.asarray(FIRST), jnp.asarray(SECOND))
    for row, wanted in zip(episodes(got.rewards), WANTED[name], strict=True):
        close(row, wanted)
    np.testing.assert_array_equal(np.asarray(got.rewards)[~ALIVE], 0.0)
    unchanged = got._replace(rewards=trajectory().rewards)
    jax.tree.map(np.testing.assert_array_equal, unchanged, trajectory())


@pytest.mark.parametrize("name", TRANSFORMS)
def test_padding_never_leaks(name):
    """NaN in every row that is not alive. The twin that multiplies by the mask keeps it: NaN · 0 is NaN."""
    poison = lambda array: jnp.where(ALIVE, array, jnp.nan)
    dirty = trajectory()._replace(rewards=poison(REWARDS))
    got = TRANSFORMS[name](dirty, poison(FIRST), poison(SECOND))
    clean = TRANSFORMS[name](trajectory(), jnp.asarray(FIRST), jnp.asarray(SECOND))
    np.testing.assert_array_equal(got.rewards, clean.rewards)
    assert np.isnan(poison(FIRST) * ALIVE.astype(float)).any()


@pytest.mark.parametrize("name", ["relabel", "kl_regularised"])
def test_rewards_are_data(name):
    total = lambda first: jnp.sum(TRANSFORMS[name](trajectory(), first, jnp.asarray(SECOND)).rewards)
    np.testing.assert_array_equal(jax.grad(total)(jnp.asarray(FIRST)), 0.0)


def test_whitening_uses_the_population_over_live_steps():
    got = np.asarray(rewards.whiten(trajectory()).rewards)[ALIVE]
    close([got.mean(), got.std()], [0.0, 1.0], 1e-7)
    sample = (REWARDS[ALIVE] - REWARDS[ALIVE].mean()) / REWARDS[ALIVE].std(ddof=1)
    everything = (REWARDS * ALIVE - (REWARDS * ALIVE).mean()) / (REWARDS * ALIVE).std()
    for twin in (sample, everything[ALIVE]):
        assert np.max(np.abs(got - twin)) > 0.01


def test_equal_rewards_and_empty_batches_give_zeros():
    for transform in (rewards.centre, rewards.whiten):
        np.testing.assert_array_equal(transform(trajectory(np.ones_like(REWARDS))).rewards, 0.0)
        np.testing.assert_array_equal(transform(trajectory(alive=np.zeros_like(ALIVE))).rewards, 0.0)


centred, whitened = (jax.jit(lambda batch, f=f: f(batch).rewards) for f in (rewards.centre, rewards.whiten))


@pytest.mark.parametrize("value", [1.1, -0.1, 0.6, 1e19, 1e-25])
def test_equal_rewards_are_zero_whatever_their_value_and_number(value):
    """In float32, where the mean of 3 300 rewards of 1.1 is another number, and (R − m) / (s + 1e-8) is near −1."""
    for shape in ((100, 33), (7, 32)):
        equal = np.full(shape, value, np.float32)
        batch = trajectory()._replace(rewards=equal, alive=np.ones(shape, bool))
        for transform in (centred, whitened):
            np.testing.assert_array_equal(transform(batch), 0.0)


def test_whitening_does_not_ask_for_the_unit():
    """R / 1e9 and R · 1e19, whose squares vanish or overflow in float32, are the same rewards in other units."""
    single = trajectory(jnp.asarray(REWARDS, jnp.float32))
    whitened = rewards.whiten(single).rewards
    assert whitened.dtype == jnp.float32
    for unit in (1e-25, 1e-9, 1e9, 1e19):
        other = rewards.whiten(single._replace(rewards=single.rewards * np.float32(unit))).rewards
        close(other, whitened, 1e-5)


def test_centring_changes_the_objective_by_the_length():
    """Why it is not harmless: episodes lose their mean reward times their own length."""
    change = jnp.sum(rewards.centre(trajectory()).rewards - trajectory().rewards, axis=0)
    close(change, -REWARDS[ALIVE].mean() * np.array(LENGTHS))


class TestKlRegularisation:
    """One step, four actions, all enumerated: episode a plays action a."""

    prizes, reference = np.array([1.0, 0.2, -0.5, 0.7]), np.array([0.1, 0.8, 0.3, -0.9])

    def regularised(self, logits, kl_coef, swap=False):
        """R − β ln(π/π_ref) of the four episodes, `[4]`."""
        batch = Trajectory(
            obs=jnp.zeros((1, 4)),
            actions=jnp.arange(4)[None],
            rewards=jnp.asarray(self.prizes)[None],
            alive=jnp.ones((1, 4), bool),
            terminated=jnp.ones((1, 4), bool),
            truncated=jnp.zeros((1, 4), bool),
            final_obs=jnp.zeros(4),
        )
        pair = (jax.nn.log_softmax(logits), jax.nn.log_softmax(jnp.asarray(self.reference)))
        first, second = pair[::-1] if swap else pair
        return rewards.kl_regularised(batch, first[None], second[None], kl_coef=kl_coef).rewards[0]

    def objective(self, logits, kl_coef):
        kl = categorical.kl(logits, jnp.asarray(self.reference))
        return jax.nn.softmax(logits) @ jnp.asarray(self.prizes) - kl_coef * kl

    def score_function_gradient(self, logits, kl_coef, swap=False):
        weights = self.regularised(logits, kl_coef, swap)
        return (jax.nn.softmax(logits) * weights) @ jax.jacobian(jax.nn.log_softmax)(logits)

    def test_expected_reward_and_gradient_are_the_regularised_objective(self):
        logits = jnp.asarray([0.5, -0.3, 0.2, 0.0])
        close(jax.nn.softmax(logits) @ self.regularised(logits, 0.4), self.objective(logits, 0.4))
        wanted = jax.grad(self.objective)(logits, 0.4)
        close(self.score_function_gradient(logits, 0.4), wanted)
        # The twin with r + β ln(π/π_ref) rewards leaving the reference.
        twin = self.score_function_gradient(logits, 0.4, swap=True)
        assert np.max(np.abs(np.asarray(twin - wanted))) > 0.05

    def optimum(self, kl_coef):
        """π ∝ π_ref exp(R/β), the maximiser in closed form."""
        return jnp.asarray(self.reference + self.prizes / kl_coef)

    def test_a_larger_coefficient_keeps_the_optimum_closer_to_the_reference(self):
        divergences = []
        for kl_coef in (0.1, 0.5, 2.0, 10.0):
            optimum = self.optimum(kl_coef)
            close(self.score_function_gradient(optimum, kl_coef), 0.0)
            divergences.append(float(categorical.kl(optimum, jnp.asarray(self.reference))))
        assert divergences == sorted(divergences, reverse=True)
        assert divergences[0] > 0.5 and divergences[-1] < 1e-2

    def test_the_lectures_sign_has_no_such_optimum(self):
        optimum = self.optimum(0.5)
        assert np.max(np.abs(np.asarray(self.score_function_gradient(optimum, 0.5, swap=True)))) > 0.05


def test_hyper_parameters_may_be_traced():
    def function(coef):
        scaled = rewards.scale(trajectory(), coef)
        return rewards.kl_regularised(scaled, jnp.asarray(FIRST), jnp.asarray(SECOND), kl_coef=coef).rewards

    got = jax.jit(jax.vmap(function))(jnp.asarray([0.0, 0.5]))
    close(got, jnp.stack([function(0.0), function(0.5)]))


def test_a_bad_coefficient_is_named():
    with pytest.raises(ValueError, match=r"kl_coef must be at least 0, got -0\.1"):
        rewards.kl_regularised(trajectory(), trajectory().rewards, trajectory().rewards, kl_coef=-0.1)


def test_a_reward_model_of_another_shape_is_refused():
    with pytest.raises(AssertionError):
        rewards.relabel(trajectory(), jnp.ones((T, 1)))
    with pytest.raises(AssertionError):
        rewards.kl_regularised(trajectory(), jnp.ones(T), jnp.ones(T), kl_coef=0.1)


@pytest.mark.parametrize("name", [*TRANSFORMS])
def test_integer_rewards_are_refused_because_coefficients_would_be_cut_to_zero(name):
    """The twin: half of integer rewards is nothing. Of `relabel` the new rewards are the integers."""
    whole = trajectory()._replace(rewards=jnp.ones(ALIVE.shape, jnp.int32))
    assert not np.any(jnp.asarray(0.5, whole.rewards.dtype) * whole.rewards)
    first = whole.rewards if name == "relabel" else jnp.asarray(FIRST)
    for run in (TRANSFORMS[name], jax.jit(TRANSFORMS[name])):
        with pytest.raises(ValueError, match=r"rewards must have a float type, got int32"):
            run(whole, first, jnp.asarray(SECOND))


@pytest.mark.parametrize("position", [0, 1])
def test_integer_log_probabilities_are_refused(position):
    pair = [jnp.asarray(FIRST), jnp.asarray(SECOND)]
    pair[position] = pair[position].astype(jnp.int32)
    with pytest.raises(ValueError, match=r"log_probs must have a float type, got int32"):
        rewards.kl_regularised(trajectory(), *pair, kl_coef=0.3)
