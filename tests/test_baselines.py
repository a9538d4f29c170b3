"""What each baseline predicts and how it learns, by hand; unbiasedness is proved in test_estimators.py."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pgjax import baselines
from pgjax.types import Trajectory

#       episode 0     episode 1     episode 2 (ends after one step)
REWARDS = np.array([[1.0, 2.0, 4.0], [1.0, 3.0, 0.0], [1.0, 5.0, 0.0]])
ALIVE = np.array([[1, 1, 1], [1, 1, 0], [1, 1, 0]], bool)
TO_GO = np.array([[3.0, 10.0, 4.0], [2.0, 8.0, 0.0], [1.0, 5.0, 0.0]])


def batch(returns=TO_GO):
    obs = jnp.asarray(np.stack([np.arange(3.0)[:, None] + np.zeros((3, 3)), REWARDS], axis=-1), jnp.float32)
    end = jnp.zeros((3, 3), bool)
    return Trajectory(
        obs=obs,
        actions=jnp.zeros((3, 3), jnp.int32),
        rewards=jnp.asarray(REWARDS, jnp.float32),
        alive=jnp.asarray(ALIVE),
        terminated=end,
        truncated=end,
        final_obs=obs[-1],
        returns=jnp.asarray(returns, jnp.float32),
    )


@pytest.fixture(autouse=True)
def no_promotion(strict):
    """Every test here."""


def init(baseline):
    return baseline.init(jax.random.key(0), batch())


def test_moving_average_from_zero():
    baseline = baselines.moving_average(0.9)
    state = init(baseline)
    assert (baseline.predict(state, batch()) == 0).all()
    state, metrics = baseline.update(state, batch(), batch().returns)
    mean = (3.0 + 10.0 + 4.0) / 3
    np.testing.assert_allclose(baseline.predict(state, batch()), np.full((3, 3), 0.1 * mean), rtol=1e-6)
    np.testing.assert_allclose(metrics["moving_average"], 0.1 * mean, rtol=1e-6)


@pytest.mark.parametrize(("initial", "after_one"), [("first", 1.0), ("debiased", 1.0), ("zero", 0.1)])
def test_initial_values_of_the_moving_average(initial, after_one):
    baseline = baselines.moving_average(0.9, initial)
    state = init(baseline)
    assert (baseline.predict(state, batch()) == 0).all()
    state, _ = baseline.update(state, batch(), batch().returns)
    np.testing.assert_allclose(baseline.predict(state, batch()), after_one * 17.0 / 3, rtol=1e-5)


def test_debiased_is_constant_on_constant_returns():
    baseline = baselines.moving_average(0.9, "debiased")
    state = init(baseline)
    for _ in range(5):
        state, _ = baseline.update(state, batch(), jnp.full((3, 3), 7.0))
        np.testing.assert_allclose(baseline.predict(state, batch()), 7.0, rtol=1e-5)


def test_leave_one_out_and_batch_mean():
    loo = baselines.leave_one_out().predict((), batch())
    mean = baselines.batch_mean().predict((), batch())
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
    np.testing.assert_allclose(baselines.leave_one_out().predict((), batch())[1, :2], [4.0, 1.0], rtol=1e-6)


def test_two_episodes_give_half_the_difference():
    two = jax.tree.map(lambda x: x[:, :2] if x.ndim > 1 else x, batch()._replace(final_obs=batch().obs[-1]))
    loo = baselines.leave_one_out().predict((), two)
    np.testing.assert_allclose(two.returns[0, 0] - loo[0, 0], two.returns[0, 0] - two.returns[0, 1])


def test_time_dependent_averages_the_living():
    baseline = baselines.time_dependent(0.5)
    state, _ = baseline.update(init(baseline), batch(), batch().returns)
    np.testing.assert_allclose(baseline.predict(state, batch())[:, 0], [17 / 3, 5.0, 3.0], rtol=1e-6)
    state, _ = baseline.update(state, batch(), jnp.zeros((3, 3)))
    np.testing.assert_allclose(baseline.predict(state, batch())[:, 0], [17 / 6, 2.5, 1.5], rtol=1e-6)


def fitted(optimizer, steps):
    baseline = baselines.value_function(
        lambda key, obs: jnp.zeros(3), lambda p, obs: jnp.append(obs, 1.0) @ p, optimizer, num_steps=steps
    )
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
    np.testing.assert_allclose(metrics["unexplained_variance"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(baseline.predict(state, batch()))[ALIVE], live.mean(), rtol=1e-6)


def test_constant_returns_do_not_divide_by_zero():
    baseline, state, _ = fitted(optax.sgd(0.1), 1)
    state, metrics = baseline.update(state, batch(), jnp.full((3, 3), 2.0))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, metrics)))
