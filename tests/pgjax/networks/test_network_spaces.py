"""Policies and values for every kind of space: what stands for an observation, which family acts, which masks hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policies import drawn

from pgjax import distributions, networks, spaces
from pgjax.networks import inputs
from pgjax.spaces import Box, Discrete, MultiDiscrete, Slate

PICTURE = Box(0, 255, (5, 6, 3), np.uint8)

MIXED = {"picture": PICTURE, "rest": (Discrete(3), MultiDiscrete((2, 4)), Box(-1.0, 1.0, (2,)), Slate(3, 2))}


SEEN = {
    "picture": np.full((5, 6, 3), 51, np.uint8),
    "rest": (np.int32(2), np.array([1, 3], np.int32), np.array([0.5, -1.0], np.float32), np.array([2, 0], np.int32)),
}


def made(observation_space, action_space, **options):
    """A policy, an observation, and the shapes of its parameters."""
    policy = networks.policy_for_spaces(observation_space, action_space, hidden=(4,), **options)
    obs = SEEN if observation_space is MIXED else np.full(observation_space.shape, 0.5, observation_space.dtype)
    return policy, obs, jax.eval_shape(policy.init, jax.random.key(0), obs)


def act(observation_space, action_space, **options):
    """A policy, parameters, its outputs at one observation and an action."""
    policy, obs, shapes = made(observation_space, action_space, **options)
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    params = drawn(policy.init, obs)

    @jax.jit
    def run(params, obs):
        outputs = policy.apply(params, obs)
        return outputs, policy.distribution.sample(jax.random.key(2), outputs)

    return policy, params, *run(params, obs)


@pytest.mark.parametrize(
    ("space", "shape", "wanted"),
    [
        (Discrete(3), (3,), distributions.categorical.log_prob),
        (MultiDiscrete((2, 4)), (2, 4), distributions.multi_categorical((2, 4)).log_prob),
        (Slate(5, 3), (5,), distributions.plackett_luce(5, 3).log_prob),
    ],
)
def test_every_space_has_its_family(space, shape, wanted):
    policy, _, outputs, action = act(Box(-1.0, 1.0, (2,)), space)
    assert outputs.shape == shape and outputs.dtype == jnp.float32 and space.contains(action)
    both = jax.jit(lambda *found: (policy.distribution.log_prob(*found), wanted(*found)))(outputs, action)
    assert both[0] == both[1]


def test_actions_and_observations_of_many_parts():
    actions = {"buy": Discrete(2), "how": (Box(-1.0, 1.0, (2,)), Slate(4, 2), Box(0.0, 1.0, ()))}
    policy, params, outputs, action = act(MIXED, actions, distribution="squashed_gaussian", initial_log_std=-1.0)
    assert spaces.contains(actions, action)
    assert params["log_std"]["buy"] == () and params["log_std"]["how"][2].shape == ()
    new = jax.jit(lambda key: policy.init(key, SEEN)["log_std"])(jax.random.key(1))
    np.testing.assert_array_equal(new["how"][0], [-1.0, -1.0])

    @jax.jit
    def log_probs(outputs, action):
        parts = distributions.categorical.log_prob(outputs["buy"], action["buy"])
        parts += distributions.squashed_gaussian(-1.0, 1.0).log_prob(outputs["how"][0], action["how"][0])
        parts += distributions.plackett_luce(4, 2).log_prob(outputs["how"][1], action["how"][1])
        parts += distributions.squashed_gaussian(0.0, 1.0).log_prob(outputs["how"][2], action["how"][2])
        return policy.distribution.log_prob(outputs, action), parts

    got, parts = log_probs(outputs, action)
    assert np.isfinite(got)
    np.testing.assert_allclose(got, parts, rtol=1e-6)


def test_one_hot_inputs_make_discrete_observations_independent():
    """A step on observation 2 leaves a linear policy's outputs at all others as they were; a raw number moves them."""
    for space, other in ((Discrete(4), False), (Box(0.0, 3.0, ()), True)):
        policy = networks.policy_for_spaces(space, Discrete(2), hidden=())
        of = lambda params, x: policy.apply(params, jnp.asarray(x, space.dtype))

        @jax.jit
        def changes(key):
            layer = policy.init(key, jnp.asarray(0, space.dtype))["params"]["Dense_0"]
            gradient = jax.grad(lambda params: of(params, 2)[0])({"params": {"Dense_0": layer}})
            moved = {"params": {"Dense_0": layer | {"kernel": gradient["params"]["Dense_0"]["kernel"]}}}
            return [of(moved, x) - layer["bias"] for x in range(4)]

        change = changes(jax.random.key(0))
        assert (np.abs(change[1]).max() > 0) == other and np.abs(change[2]).max() > 0
    value = networks.value_for_spaces(Discrete(4), hidden=(8,))
    for init, _ in (value, networks.action_values_for_spaces(Discrete(4), Discrete(2), hidden=(8,))):
        shapes = jax.eval_shape(init, jax.random.key(0), jnp.asarray(1))
        assert shapes["params"]["Dense_0"]["kernel"].shape == (4, 8)


def test_the_numbers_that_stand_for_an_observation():
    picture, discrete, several, box, slate = jax.jit(lambda obs: inputs.encode(MIXED, obs))(SEEN)
    np.testing.assert_allclose(picture, np.full((5, 6, 3), 0.2), rtol=1e-6)
    np.testing.assert_array_equal(discrete, [0, 0, 1])
    np.testing.assert_array_equal(several, [0, 1, 0, 0, 0, 1])
    np.testing.assert_array_equal(box, [0.5, -1.0])
    np.testing.assert_array_equal(slate, [0, 0, 1, 1, 0, 0])
    np.testing.assert_array_equal(inputs.encode(Box(0, 9, (2,), np.int32), jnp.asarray([3, 9]))[0], [3, 9])


def test_a_picture_among_others_gets_a_convolution():
    shapes = lambda space, **options: made(space, Discrete(2), **options)[2]["params"]
    kernels = {name: part["Dense_0"]["kernel"].shape for name, part in shapes(MIXED).items()}
    assert kernels == {"Convolution_0": (27, 16), "MLP_0": (3 * 4 * 16 + 3 + 6 + 2 + 6, 4)}
    two_channels = shapes(MIXED, network="conv", network_options={"channels": 2})
    assert two_channels["Convolution_0"]["Dense_0"]["kernel"].shape == (27, 2)
    assert shapes(MIXED, network="mlp")["Dense_0"]["kernel"].shape == (90 + 17, 4)
    assert shapes(Box(0.0, 1.0, (2, 2, 1)))["Dense_0"]["kernel"].shape == (4, 4)


def test_x64_leaves_policies_in_float32_until_theta_is_float64():
    box = Box(-1.0, 1.0, (2,))
    with jax.enable_x64(True):
        policy, params, outputs, action = act(Box(-1.0, 1.0, (3,), np.float64), box)
        assert {x.dtype for x in jax.tree.leaves((params, outputs, action))} == {jnp.dtype(jnp.float32)}
        wide = jax.tree.map(lambda x: x.astype(jnp.float64), params)
        obs = np.array([1 / 3, 0.1, -0.2])
        found = jax.jit(policy.apply)(wide, obs)
        assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(jnp.float64)}
        first, second = (jax.device_get(wide["network"]["params"][f"Dense_{i}"]) for i in range(2))
        hidden = np.tanh(obs @ first["kernel"] + first["bias"])
        np.testing.assert_allclose(found.mean, hidden @ second["kernel"] + second["bias"], rtol=1e-13)


def test_masks_of_every_kind():
    spaces_and_masks = {
        "one": (Discrete(3), jnp.asarray([False, True, False]), lambda action: action == 1),
        "several": (
            MultiDiscrete((2, 3)),
            jnp.asarray([[False, True, True], [True, False, False]]),
            lambda action: (np.asarray(action) == [1, 0]).all(),
        ),
        "slate": (Slate(4, 2), jnp.asarray([True, False, False, True]), lambda a: set(np.asarray(a)) == {0, 3}),
    }
    for space, mask, right in spaces_and_masks.values():
        assert right(act(Box(-1.0, 1.0, (2,)), space, action_mask=lambda obs, mask=mask: mask)[3])
    together = {name: space for name, (space, _, _) in spaces_and_masks.items()} | {"free": Box(-1.0, 1.0, ())}
    masks = {name: mask for name, (_, mask, _) in spaces_and_masks.items()} | {"free": None}
    action = act(Box(-1.0, 1.0, (2,)), together, action_mask=lambda obs: masks)[3]
    assert all(right(action[name]) for name, (_, _, right) in spaces_and_masks.items())


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        (lambda obs: obs | {"picture": obs["picture"][:4]}, r"obs\['picture'\] must have the shape \(5, 6, 3\)"),
        (lambda obs: obs | {"rest": (jnp.zeros(2), *obs["rest"][1:])}, r"obs\['rest'\]\[0\] must have the shape \(\)"),
        (lambda obs: obs["rest"], "obs must have the structure"),
    ],
)
def test_the_part_of_an_observation_that_does_not_fit_is_named(obs, message):
    policy, seen, shapes = made(MIXED, Discrete(2))
    jax.eval_shape(policy.apply, shapes, seen)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(policy.apply, shapes, obs(seen))
