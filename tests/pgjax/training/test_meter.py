"""The gradient meter measures the noise of the very gradient that trains: exact values by enumeration, and training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from policies import TABULAR

from pgjax import baselines, diagnostics, environments, estimators, exact, networks, training
from pgjax.environments.corridor import corridor_mdp

B = 4
LOGITS = np.log([[1.0, 3.0], [2.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
ESTIMATORS = {
    "constant": estimators.make_estimator(
        TABULAR, returns=estimators.reward_to_go(), baseline=baselines.constant(-1.5)
    ),
    "pairs": estimators.make_estimator(
        TABULAR, returns=estimators.total_return(), baseline=baselines.leave_one_out(group_size=2)
    ),
    "leave one out": estimators.make_estimator(
        TABULAR, returns=estimators.total_return(), baseline=baselines.leave_one_out()
    ),
    "sum": estimators.sum_of(
        estimators.make_estimator(TABULAR), estimators.make_estimator(TABULAR, baseline=baselines.constant(1.0))
    ),
    "natural": estimators.natural(
        estimators.make_estimator(TABULAR), TABULAR, fisher=lambda params: jnp.diag(jnp.arange(1.0, 9.0))
    ),
}
PARTS = {"pairs": 2, "constant": 4}


@pytest.fixture(scope="module")
def found():
    """Name → the exact moments of the gradient and of its meter, over all batches of four episodes, T = 4."""
    with jax.enable_x64(True):
        mdp = corridor_mdp(horizon=4, observe_state=True)
        enumeration = exact.enumerate_trajectories(mdp)
        params = jnp.asarray(LOGITS)
        probabilities = exact.trajectory_probabilities(TABULAR.apply, params, enumeration)

        def look(name, batch):
            estimator = ESTIMATORS[name]
            state = estimator.init(jax.random.key(0), batch)
            parts = estimators.part_gradients(estimator, params, state, batch, PARTS.get(name, 2))
            noise = diagnostics.batch_noise(parts)
            gradient = estimator.gradient(params, state, batch)[0]
            return {"gradient": gradient, "error": gradient - jnp.mean(parts, axis=0), "noise": noise}

        all_of = lambda batch: {name: look(name, batch) for name in ESTIMATORS}
        return jax.device_get(exact.estimator_moments(all_of, enumeration, probabilities, B))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_parts_make_up_the_gradient_that_trains(found, name):
    mean, variance = (moments[name]["error"] for moments in (found.mean, found.variance))
    np.testing.assert_allclose(mean, 0, atol=1e-15)
    np.testing.assert_allclose(variance, 0, atol=1e-28)


@pytest.mark.parametrize("name", ["constant", "pairs", "sum", "natural"])
def test_the_meter_is_unbiased_for_independent_parts(found, name):
    noise, gradient = found.mean[name]["noise"], found.mean[name]["gradient"]
    total = np.sum(found.variance[name]["gradient"])
    assert total > 0.01
    np.testing.assert_allclose(noise.variance, total, rtol=1e-12)
    np.testing.assert_allclose(noise.squared_norm, np.sum(np.square(gradient)), rtol=1e-12, atol=1e-12 * total)
    # A division by M² instead of M (M − 1) is off by the factor (M − 1)/M.
    count = PARTS.get(name, 2)
    assert abs(noise.variance * (count - 1) / count / total - 1) > 0.2


def test_the_meter_misses_what_the_weights_of_a_batch_share(found):
    name = "leave one out"
    total = np.sum(found.variance[name]["gradient"])
    assert abs(found.mean[name]["noise"].variance / total - 1) > 0.05


def trained(updates, **options):
    environment = environments.make("corridor")
    policy = networks.make_policy(environment)
    estimator = estimators.make_estimator(policy, returns=estimators.reward_to_go())
    build = lambda rate: training.make_trainer(
        environment, policy, estimator, optax.adam(rate), num_episodes=8, **options
    )
    rates = np.full(2, 0.01, np.float32)
    return training.train(build, jax.random.split(jax.random.key(0), 2), rates, num_updates=updates)


def test_a_meter_measures_every_nth_update_and_changes_no_other_number():
    with_meter, without = trained(5, meter=2), trained(5)
    for name, values in without.metrics.items():
        np.testing.assert_array_equal(values, with_meter.metrics[name])
    measured = np.isfinite(with_meter.metrics["meter_variance"])
    np.testing.assert_array_equal(measured, np.broadcast_to([True, False, True, False, True], (2, 5)))
    assert {name for name in with_meter.metrics if name.startswith("meter_")} == {
        "meter_variance",
        "meter_squared_norm",
        "meter_half_cosine",
    }
    # ‖ḡ‖² is the sum of both, whatever the parts.
    total = with_meter.metrics["meter_variance"] + with_meter.metrics["meter_squared_norm"]
    np.testing.assert_allclose(total[measured], with_meter.metrics["gradient_norm"][measured] ** 2, rtol=1e-4)


def test_updates_without_a_measurement_do_not_stop_the_search_for_nan():
    with jax.debug_nans(True):
        found = trained(2, meter=2).metrics["meter_variance"]
    assert (found[:, 0] > 0).all() and (found[:, 1] == 0).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"meter": 0}, "meter must be at least 1"),
        ({"meter": 1, "group_size": 8}, "two parts of whole groups"),
        ({"meter": 1, "microbatches": 2}, "meter must be None with microbatches=2"),
    ],
)
def test_a_meter_that_does_not_fit_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        trained(1, **options)


@pytest.mark.parametrize(("name", "count"), [("constant", 3), ("pairs", 4), ("constant", 0)])
def test_parts_must_divide_the_batch(name, count):
    enumeration = exact.enumerate_trajectories(corridor_mdp(horizon=2, observe_state=True))
    batch = exact.select_episodes(enumeration.trajectories, jnp.arange(4))
    estimator = ESTIMATORS[name]
    with pytest.raises(ValueError, match="num_parts must"):
        estimators.part_gradients(
            estimator, jnp.asarray(LOGITS), estimator.init(jax.random.key(0), batch), batch, count
        )
