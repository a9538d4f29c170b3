"""`jax_debug_nans` stops at NaN; where NaN would mark that there is no number, nothing stops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pgjax import baselines, environments, estimators, networks, training
from pgjax.types import Policy


@pytest.fixture
def debug_nans():
    with jax.debug_nans(True):
        yield


def test_windows_in_which_no_episode_ends_are_not_stopped(debug_nans):
    environment = environments.make("corridor", horizon=50, observe_state=True)
    policy = networks.make_policy(environment, hidden=(2,))
    value = baselines.state_values(lambda obs: jnp.sum(obs))
    estimator = estimators.make_estimator(policy, returns=estimators.lambda_return(0.9, 0.9), baseline=value)
    build = lambda rate: training.make_trainer(
        environment, policy, estimator, optax.sgd(rate), num_episodes=2, num_steps=2
    )
    keys = jax.random.split(jax.random.key(0), 1)
    trained = training.train(build, keys, np.float32([0.1]), num_updates=1, devices=1)
    assert trained.metrics["num_finished"][0, 0] == 0
    assert np.isnan(trained.metrics["mean_return"][0, 0])  # the host puts back what the program could not hold


def test_fits_without_held_out_rows_and_with_patience_are_not_stopped(debug_nans):
    data = {"x": jnp.arange(8.0), "y": jnp.arange(8.0)}
    loss = lambda params, rows: (params * rows["x"] - rows["y"]) ** 2
    how = {"num_epochs": 4, "batch_size": 8}
    found = training.fit(jax.random.key(0), jnp.ones(()), loss, data, optax.sgd(0.01), **how)
    assert np.isnan(found.metrics["validation_loss"]).all() and np.isfinite(found.metrics["train_loss"]).all()
    how |= {"validation_fraction": 0.25, "patience": 1}
    found = training.fit(jax.random.key(0), jnp.ones(()), loss, data, optax.sgd(0.01), **how)
    assert int(found.num_epochs) < 4
    for losses in found.metrics.values():
        assert np.isfinite(losses[: int(found.num_epochs)]).all() and np.isnan(losses[int(found.num_epochs) :]).all()


def test_a_real_nan_is_stopped(debug_nans):
    environment = environments.make("corridor", observe_state=True)
    policy = networks.make_policy(environment, hidden=(2,))
    bad = Policy(policy.init, lambda p, obs: policy.apply(p, obs) + jnp.log(-1.0), policy.distribution)
    estimator = estimators.make_estimator(bad, returns=estimators.reward_to_go())
    trainer = training.make_trainer(environment, bad, estimator, optax.sgd(0.1), num_episodes=2)
    with pytest.raises(FloatingPointError, match="nan"):
        training.train(lambda _: trainer, jax.random.split(jax.random.key(0), 1), num_updates=1, devices=1)
