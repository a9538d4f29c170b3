"""What each baseline predicts and how it learns, by hand; unbiasedness is proved in test_estimators.py."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pgjax import baselines
from pgjax.types import Trajectory

pytestmark = pytest.mark.usefixtures("strict")

#       episode 0     episode 1     episode 2 (ends after one step)
REWARDS = np.array([[1.0, 2.0, 4.0], [1.0, 3.0, 0.0], [1.0, 5.0, 0.0]])
ALIVE = np.array([[1, 1, 1], [1, 1, 0], [1, 1, 0]], bool)
TO_GO = np.array([[3.0, 10.0, 4.0], [2.0, 8.0, 0.0], [1.0, 5.0, 0.0]])


def batch(returns=TO_GO):
    obs = np.stack([np.arange(3.0)[:, None] + np.zeros((3, 3)), REWARDS], axis=-1).astype(np.float32)
    end = np.zeros((3, 3), bool)
    return Trajectory(
        obs=obs,
        actions=np.zeros((3, 3), np.int32),
        rewards=REWARDS.astype(np.float32),
        alive=ALIVE,
        terminated=end,
        truncated=end,
        final_obs=obs[-1],
        returns=returns.astype(np.float32),
    )


def compiled(baseline):
    return baseline._replace(predict=jax.jit(baseline.predict), update=jax.jit(baseline.update))


def init(baseline):
    return baseline.init(jax.random.key(0), batch())


def test_moving_average_from_zero():
    baseline = compiled(baselines.moving_average(0.9))
    state = init(baseline)
    assert not np.any(baseline.predict(state, batch()))
    state, metrics = baseline.update(state, batch(), batch().returns)
    mean = (3.0 + 10.0 + 4.0) / 3
    np.testing.assert_allclose(baseline.predict(state, batch()), np.full((3, 3), 0.1 * mean), rtol=1e-6)
    np.testing.assert_allclose(metrics["moving_average"], 0.1 * mean, rtol=1e-6)


@pytest.mark.parametrize(("initial", "after_one"), [("first", 1.0), ("debiased", 1.0), ("zero", 0.1)])
def test_initial_values_of_the_moving_average(initial, after_one):
    baseline = compiled(baselines.moving_average(0.9, initial))
    state = init(baseline)
    assert not np.any(baseline.predict(state, batch()))
    state, _ = baseline.update(state, batch(), batch().returns)
    np.testing.assert_allclose(baseline.predict(state, batch()), after_one * 17.0 / 3, rtol=1e-5)


def test_debiased_is_constant_on_constant_returns():
    baseline = compiled(baselines.moving_average(0.9, "debiased"))
    state = init(baseline)
    for _ in range(5):
        state, _ = baseline.update(state, batch(), jnp.full((3, 3), 7.0))
        np.testing.assert_allclose(baseline.predict(state, batch()), 7.0, rtol=1e-5)


def test_leave_one_out_and_batch_mean():
    loo = compiled(baselines.leave_one_out()).predict((), batch())
    mean = compiled(baselines.batch_mean()).predict((), batch())
    np.testing.assert_allclose(loo[0], [(10 + 4) / 2, (3 + 4) / 2, (3 + 10) / 2], rtol=1e-6)
    np.testing.assert_allclose(mean[0], np.full(3, 17 / 3), rtol=1e-6)
    # G − b_loo = B/(B − 1) (G − mean G), and the advantages sum to zero.
    np.testing.assert_allclose(TO_GO - loo, 1.5 * (TO_GO - mean), rtol=1e-5)
    np.testing.assert_allclose((TO_GO - loo).sum(axis=1), np.zeros(3), atol=1e-5)


def test_over_live_episodes_only():
    loo = baselines.leave_one_out("live").predict((), batch())
    np.testing.assert_allclose(loo[1, :2], [8.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(baselines.batch_mean("live").predict((), batch())[1, 0], 5.0, rtol=1e-6)
    # Counting the finished episode as zero, the other convention, halves it.
    np.testing.assert_allclose(compiled(baselines.leave_one_out()).predict((), batch())[1, :2], [4.0, 1.0], rtol=1e-6)


def test_two_episodes_give_half_the_difference():
    two = jax.tree.map(lambda x: x[:, :2] if x.ndim > 1 else x, batch()._replace(final_obs=batch().obs[-1]))
    loo = compiled(baselines.leave_one_out()).predict((), two)
    np.testing.assert_allclose(two.returns[0, 0] - loo[0, 0], two.returns[0, 0] - two.returns[0, 1])


def test_time_dependent_averages_the_living():
    baseline = compiled(baselines.time_dependent(0.5))
    state, _ = baseline.update(init(baseline), batch(), batch().returns)
    np.testing.assert_allclose(baseline.predict(state, batch())[:, 0], [17 / 3, 5.0, 3.0], rtol=1e-6)
    state, _ = baseline.update(state, batch(), jnp.zeros((3, 3)))
    np.testing.assert_allclose(baseline.predict(state, batch())[:, 0], [17 / 6, 2.5, 1.5], rtol=1e-6)


def fitted(optimizer, steps):
    linear = lambda p, obs: jnp.append(obs, 1.0) @ p
    baseline = compiled(baselines.value_function(lambda key, obs: jnp.zeros(3), linear, optimizer, num_steps=steps))
    state, metrics = baseline.update(init(baseline), batch(), batch().returns)
    return baseline, state, metrics


def test_a_linear_value_finds_the_least_squares_fit_of_the_live_steps():
    baseline, state, _ = fitted(optax.sgd(0.1), 3000)
    features = np.concatenate([np.asarray(batch().obs), np.ones((3, 3, 1))], axis=-1)
    wanted = features @ np.linalg.lstsq(features[ALIVE], TO_GO[ALIVE], rcond=None)[0]
    got = np.asarray(baseline.predict(state, batch()))
    np.testing.assert_allclose(got[ALIVE], wanted[ALIVE], atol=1e-2)
    # Fitting the padding too, the wrong twin, is far away.
    everything = features @ np.linalg.lstsq(features.reshape(-1, 3), TO_GO.ravel(), rcond=None)[0]
    assert np.abs(everything - wanted)[ALIVE].max() > 0.1
    assert (got[~ALIVE] == 0).all()


def test_a_value_step_starts_from_the_mean_and_spread_of_the_targets():
    baseline, state, metrics = fitted(optax.sgd(0.0), 1)
    live = TO_GO[ALIVE]
    np.testing.assert_allclose(state.mean, live.mean(), rtol=1e-6)
    np.testing.assert_allclose(state.scale, live.std(), rtol=1e-5)
    np.testing.assert_allclose(np.asarray(baseline.predict(state, batch()))[ALIVE], live.mean(), rtol=1e-6)
    # It weighed this batch by v = 0, and would weigh it again by the mean, the best constant.
    np.testing.assert_allclose(metrics["unexplained_variance"], np.mean(live**2) / live.var(), rtol=1e-5)
    _, metrics = baseline.update(state, batch(), batch().returns)
    np.testing.assert_allclose(metrics["unexplained_variance"], 1.0, rtol=1e-5)


def test_the_unexplained_variance_is_that_of_the_values_which_weighed_the_batch():
    """Whatever has happened to mean and scale since; here the second batch is three times the first."""
    baseline, state, _ = fitted(optax.sgd(0.1), 5)
    errors = 3.0 * TO_GO[ALIVE] - np.asarray(baseline.predict(state, batch()))[ALIVE]
    _, metrics = baseline.update(state, batch(), 3.0 * batch().returns)
    wanted = np.mean(errors**2) / (3.0 * TO_GO[ALIVE]).var()
    np.testing.assert_allclose(metrics["unexplained_variance"], wanted, rtol=1e-5)


@jax.jit
def learn(unit):
    """Values after each of three batches in that unit, and the metrics of the last."""
    baseline = baselines.value_function(
        lambda key, obs: jnp.ones(3), lambda p, obs: jnp.append(obs, 1.0) @ p, optax.sgd(0.01, 0.9), num_steps=2
    )
    state, found = init(baseline), []
    for factor in (1.0, 3.0, 2.0):
        found.append(baseline.predict(state, batch()) / unit)
        state, metrics = baseline.update(state, batch(), batch().returns * factor * unit)
    return jnp.stack([*found, baseline.predict(state, batch()) / unit]), metrics


@pytest.mark.parametrize("unit", [1e-25, 1e-9, 1e9, 1e19])
def test_a_value_does_not_ask_for_the_unit_of_the_rewards(unit):
    """A factor on the returns is a factor on the values; a floor of 1e-3 under the scale, the wrong twin, is none.

    Squares of 1e19 overflow in float32, and those of 1e-25 vanish.
    """

    (values, metrics), (wanted, known) = learn(jnp.float32(unit)), learn(jnp.float32(1.0))
    assert (values[0] == 0).all() and jnp.max(jnp.abs(values)) > 1.0
    np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-4)
    for name, value in known.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)


def test_a_value_of_returns_that_do_not_vary_is_their_mean():
    baseline, state, _ = fitted(optax.sgd(0.1), 1)
    state, metrics = baseline.update(state, batch(), jnp.full((3, 3), 2.0))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state)) and metrics["unexplained_variance"] == jnp.inf
    # Before any spread was seen the value is the mean alone, whatever the network says.
    state = init(baseline)._replace(params=jnp.ones(3))
    for _ in range(2):
        state, metrics = baseline.update(state, batch(), jnp.full((3, 3), 0.1))
    np.testing.assert_allclose(np.asarray(baseline.predict(state, batch()))[ALIVE], 0.1, rtol=1e-6)
    assert metrics["unexplained_variance"] == 0
