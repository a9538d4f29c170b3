"""A value network that is used and fitted in one pass over the batch is the one of two passes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from policies import drawn
from random_batches import random_batch

from pgjax import baselines, environments, estimators, networks, training

KEY = jax.random.key(0)

CORRIDOR = environments.make("corridor", horizon=6, observe_state=True)


def with_dtype(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


MLP = networks.make_policy(CORRIDOR, hidden=(5,))

GRU = networks.make_policy(CORRIDOR, network="gru", hidden=(4,), network_options={"memory_size": 4})

FUSED_CASES = {
    "plain": (MLP, {}),
    "entropy bonus": (MLP, {"entropy_coef": 0.3}),
    "discounted": (MLP, {"returns": estimators.reward_to_go(0.9), "time_weights": "discount", "entropy_coef": 0.1}),
    "mean over time": (MLP, {"over_time": "mean", "entropy_coef": 0.1}),
    "mean over each episode": (MLP, {"over_time": "episode_mean", "rows_per_piece": 3}),
    "clipped surrogate": (MLP, {"objective": estimators.clipped_surrogate()}),
    "memory": (GRU, {"entropy_coef": 0.3}),
}


def value_baseline():
    return baselines.value_function(*networks.make_value(CORRIDOR, hidden=(5,)), optax.adam(0.05))


def both_passes(dtype):
    """name → (∇̂ρ, state, metrics) of one pass and of two, with a value network that has seen one batch."""
    batch, baseline = random_batch(dtype), value_baseline()

    @jax.jit
    def all_cases():
        trained = with_dtype(baseline.init(jax.random.key(2), batch), dtype)
        fit = lambda state: baseline.update(state, batch, batch.rewards)[0]
        trained, found = fit(trained), {}
        for name, (policy, options) in FUSED_CASES.items():
            params = drawn(policy.init, batch.obs[0, 0], dtype)
            one = estimators.make_estimator(policy, baseline=baseline, **options)
            two = estimators.make_estimator(policy, baseline=baseline._replace(predict_and_update=None), **options)
            found[name] = one.gradient(params, trained, batch), two.gradient(params, trained, batch)
            if name == "plain":
                found["fitted before its use"] = two.gradient(params, fit(trained), batch)
        return found

    return jax.device_get(all_cases())


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [pytest.param(np.float32, 1e-6, marks=pytest.mark.slow), (np.float64, 1e-12)]
)
def test_values_used_and_fitted_in_one_pass_are_those_of_two(dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        found = both_passes(dtype)
    twin = found.pop("fitted before its use")
    for name, (one, two) in found.items():
        assert set(one[2]) == set(two[2]) == {"entropy", "value_loss", "unexplained_variance"}
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=name)
    difference = jax.tree.map(lambda a, b: np.abs(a - b).max(), found["plain"][0][0], twin[0])
    assert max(jax.tree.leaves(difference)) > 1e-3


@pytest.mark.slow
def test_microbatches_use_and_fit_values_in_one_pass_too():
    baseline = value_baseline()
    found = []
    for chosen in (baseline, baseline._replace(predict_and_update=None)):
        estimator = estimators.make_estimator(MLP, baseline=chosen)
        trainer = training.make_trainer(CORRIDOR, MLP, estimator, optax.sgd(0.1), num_episodes=8, microbatches=2)
        update = jax.jit(trainer.update)
        state, metrics = update(update(trainer.init(KEY))[0])
        found.append((state._replace(key=jax.random.key_data(state.key)), metrics))
    one, two = (jax.tree.leaves(x) for x in found)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
