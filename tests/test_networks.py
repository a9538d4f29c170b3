"""Policies fit their environments, or say why they do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import networks
from pgjax.types import Box, Discrete, Environment


def environment(obs_shape=(3,), actions=None):
    return Environment(
        name="shapes",
        reset=None,
        step=None,
        params=(),
        observation_space=Box(low=-1.0, high=1.0, shape=obs_shape),
        action_space=Discrete(4) if actions is None else actions,
        horizon=1,
    )


def outputs(policy, shape):
    return policy.apply(policy.init(jax.random.key(0), jnp.zeros(shape)), jnp.ones(shape))


def test_a_new_categorical_policy_is_near_uniform():
    logits = outputs(networks.make_policy(environment()), (3,))
    assert logits.shape == (4,)
    np.testing.assert_allclose(jax.nn.softmax(logits), 0.25, atol=0.02)


def test_a_gaussian_policy_has_one_mean_and_spread_per_action_dimension():
    box = Box(low=-2.0, high=2.0, shape=(2,))
    for name in ("gaussian", "squashed_gaussian", "auto"):
        policy = networks.make_policy(environment(actions=box), distribution=name, initial_log_std=-0.5)
        parameters = outputs(policy, (3,))
        assert parameters.mean.shape == parameters.log_std.shape == (2,)
        np.testing.assert_allclose(parameters.log_std, -0.5)
        action = policy.distribution.sample(jax.random.key(1), parameters)
        assert action.shape == (2,) and np.isfinite(policy.distribution.log_prob(parameters, action))


def test_a_squashed_gaussian_stays_in_the_box():
    box = Box(low=-2.0, high=2.0, shape=(1,))
    policy = networks.make_policy(environment(actions=box), distribution="squashed_gaussian", initial_log_std=2.0)
    parameters = outputs(policy, (3,))
    keys = jax.random.split(jax.random.key(1), 100)
    actions = jax.vmap(lambda key: policy.distribution.sample(key, parameters))(keys)
    assert (jnp.abs(actions) <= 2.0).all() and (jnp.abs(actions) > 1.5).any()


def test_images_get_a_convolution():
    env = environment(obs_shape=(10, 10, 4))
    policy = networks.make_policy(env, hidden=(16,))
    params = policy.init(jax.random.key(0), jnp.zeros((10, 10, 4)))
    assert params["params"]["Convolution_0"]["Dense_0"]["kernel"].shape == (9 * 4, 16)
    init, apply = networks.make_value(env, hidden=(16,))
    assert apply(init(jax.random.key(0), jnp.zeros((10, 10, 4))), jnp.ones((10, 10, 4))).shape == ()


def test_the_convolution_is_the_convolution():
    image = jax.random.normal(jax.random.key(1), (6, 5, 2))
    module = networks.Convolution(channels=3)
    params = module.init(jax.random.key(0), image)
    kernel = params["params"]["Dense_0"]["kernel"].reshape(3, 3, 2, 3)
    wanted = jax.lax.conv_general_dilated(
        image[None], kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )[0]
    np.testing.assert_allclose(module.apply(params, image), wanted, atol=1e-5)


def test_masked_actions_are_never_taken():
    mask = lambda obs: jnp.asarray([False, True, True, False])
    policy = networks.make_policy(environment(), action_mask=mask)
    logits = outputs(policy, (3,))
    np.testing.assert_allclose(jax.nn.softmax(logits)[jnp.asarray([0, 3])], 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distribution": "gaussian"}, "distribution='gaussian' does not fit .*Discrete.*'categorical'"),
        ({"distribution": "cauchy"}, "distribution.*cauchy"),
        ({"network": "conv"}, "network='conv' needs observations of shape .* got shape"),
        ({"network": "rnn"}, "network.*rnn"),
        ({"activation": "sin"}, "activation.*sin"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        networks.make_policy(environment(), **options)


def test_categorical_over_a_box_is_refused():
    with pytest.raises(ValueError, match="does not fit the action space"):
        networks.make_policy(environment(actions=Box(-1.0, 1.0, (1,))), distribution="categorical")


@pytest.mark.parametrize("shape", [(4,), (2, 3), ()])
def test_an_observation_of_the_wrong_shape_is_named(shape):
    policy = networks.make_policy(environment())
    params = policy.init(jax.random.key(0), jnp.zeros(3))
    with pytest.raises(ValueError, match=r"obs must have the shape \(3,\)"):
        policy.apply(params, jnp.zeros(shape))
