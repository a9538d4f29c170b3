"""Policies and values fit their spaces, or say why they do not."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policies import drawn

from pgjax import acting, networks
from pgjax.spaces import Box, Discrete, MultiDiscrete, Slate
from pgjax.types import Environment, Memory, Step


def environment(obs_shape=(3,), actions=None):
    def step(key, state, action, params):
        return state, Step(obs=jnp.zeros(obs_shape), reward=jnp.zeros(()), terminated=jnp.ones((), bool))

    return Environment(
        name="shapes",
        reset=lambda key, params: ((), jnp.zeros(obs_shape)),
        step=step,
        params=(),
        observation_space=Box(low=-1.0, high=1.0, shape=obs_shape),
        action_space=Discrete(4) if actions is None else actions,
        horizon=1,
    )


def outputs(policy, shape):
    run = jax.jit(lambda key: policy.apply(policy.init(key, jnp.zeros(shape)), jnp.ones(shape)))
    return run(jax.random.key(0))


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

        @jax.jit
        def act(key):
            action = policy.distribution.sample(key, parameters)
            return action, policy.distribution.log_prob(parameters, action)

        action, log_prob = act(jax.random.key(1))
        assert action.shape == (2,) and np.isfinite(log_prob)


def test_a_squashed_gaussian_stays_in_the_box():
    box = Box(low=-2.0, high=2.0, shape=(1,))
    policy = networks.make_policy(environment(actions=box), distribution="squashed_gaussian", initial_log_std=2.0)
    parameters = outputs(policy, (3,))
    draw = jax.jit(lambda key: jax.vmap(policy.distribution.sample, (0, None))(jax.random.split(key, 100), parameters))
    actions = np.abs(draw(jax.random.key(1)))
    assert (actions <= 2.0).all() and (actions > 1.5).any()


def test_images_get_a_convolution():
    env = environment(obs_shape=(10, 10, 4))
    policy = networks.make_policy(env, hidden=(16,))
    params = jax.eval_shape(policy.init, jax.random.key(0), jnp.zeros((10, 10, 4)))
    assert params["params"]["Convolution_0"]["Dense_0"]["kernel"].shape == (9 * 4, 16)
    init, apply = networks.make_value(env, hidden=(16,))
    value = jax.jit(lambda key: apply(init(key, jnp.zeros((10, 10, 4))), jnp.ones((10, 10, 4))))(jax.random.key(0))
    assert value.shape == () and np.isfinite(value)


def test_the_convolution_is_the_convolution():
    module = networks.Convolution(channels=3)

    @jax.jit
    def both(image):
        params = module.init(jax.random.key(0), image)
        kernel = params["params"]["Dense_0"]["kernel"].reshape(3, 3, 2, 3)
        wanted = jax.lax.conv_general_dilated(
            image[None], kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
        )[0]
        return module.apply(params, image), wanted

    got, wanted = both(np.random.default_rng(1).standard_normal((6, 5, 2), np.float32))
    np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize(("network", "sees_places"), [("centred", False), ("conv", True)])
def test_a_centred_image_tells_nothing_but_what_lies_around_the_agent(network, sees_places):
    options = {} if network == "conv" else {"network_options": {"channel": 0}}
    policy = networks.make_policy(environment(obs_shape=(6, 7, 2)), network=network, hidden=(8,), **options)
    image = np.zeros((2, 6, 7, 2), np.float32)
    scene = np.random.default_rng(0).uniform(0.5, 1.0, (2, 3))
    for picture, (row, column) in zip(image, [(1, 2), (3, 4)]):
        picture[row : row + 2, column : column + 3, 1] = scene
        picture[row, column + 1, 0] = 1.0
    params = drawn(policy.init, image[0])
    first, moved = jax.jit(jax.vmap(policy.apply, (None, 0)))(params, image)
    assert np.allclose(first, moved, atol=1e-6) != sees_places
    image[1, 3, 5, 0], image[1, 3, 4, 0] = 0.0, 1.0  # the agent alone goes to another place
    assert not np.allclose(first, jax.jit(policy.apply)(params, image[1]), atol=1e-4)


def test_masked_actions_are_never_taken():
    mask = lambda obs: jnp.asarray([False, True, True, False])
    policy = networks.make_policy(environment(), action_mask=mask)
    logits = outputs(policy, (3,))
    np.testing.assert_allclose(np.asarray(jax.nn.softmax(logits))[[0, 3]], 0.0)


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


def test_the_environments_mask_is_the_default():
    @dataclasses.dataclass(frozen=True, eq=False)
    class Masked(Environment):
        action_mask: object = None

    fields = {field.name: getattr(environment(), field.name) for field in dataclasses.fields(Environment)}
    only = lambda action: lambda obs: jnp.arange(4) == action
    masked = Masked(**fields | {"action_mask": only(2)})
    assert jnp.argmax(outputs(networks.make_policy(masked), (3,))) == 2
    assert jnp.argmax(outputs(networks.make_policy(masked, action_mask=only(1)), (3,))) == 1


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (jnp.ones(4), r"action_mask must give bool \[4\] for one observation, got float32 \[4\]"),
        (jnp.ones(3, bool), r"action_mask must give bool \[4\] for one observation, got bool \[3\]"),
    ],
)
def test_a_wrong_mask_is_named(mask, message):
    policy = networks.make_policy(environment(), action_mask=lambda obs: mask)
    with pytest.raises(ValueError, match=message):
        outputs(policy, (3,))
    continuous = networks.make_policy(environment(actions=Box(-1.0, 1.0, (4,))), action_mask=lambda obs: mask)
    with pytest.raises(ValueError, match="action_mask must be None, since continuous actions have no mask"):
        outputs(continuous, (3,))


def test_a_policy_can_be_rebuilt_from_plain_values():
    options = {
        "distribution": "auto",
        "network": "mlp",
        "hidden": [3],
        "activation": "relu",
        "network_options": {},
        "initial_log_std": -0.5,
    }
    again = json.loads(json.dumps(options))
    seen = {"place": Discrete(3), "rest": (Box(-1.0, 1.0, (2,)), MultiDiscrete((2, 4)))}
    obs = {"place": np.int32(2), "rest": (np.ones(2, np.float32), np.array([1, 3], np.int32))}
    policies = [networks.policy_for_spaces(seen, Slate(4, 2), **o) for o in (options, again)]
    both = jax.jit(lambda key: [policy.apply(policy.init(key, obs), obs) for policy in policies])
    np.testing.assert_array_equal(*both(jax.random.key(0)))


def test_a_word_of_ones_own_with_memory(monkeypatch):
    """A network that adds up its observations: outputs, masks and spreads are those of a network without memory."""

    def make_sum(space, outputs, *, hidden, activation, scale=1.0):
        def step(params, carry, obs):
            carry = carry + scale * obs
            return carry, carry[:outputs] * params["gain"]

        memory = Memory(start=lambda params, obs: jnp.zeros_like(obs), step=step)
        return networks.Network(init=lambda key, obs: {"gain": jnp.ones(())}, apply=None, memory=memory)

    monkeypatch.setitem(networks.NETWORKS, "sum", make_sum)
    policy = networks.policy_for_spaces(
        Box(-9.0, 9.0, (3,)), Box(-1.0, 1.0, (2,)), network="sum", network_options={"scale": 2.0}
    )
    obs = np.arange(12, dtype=np.float32).reshape(4, 3)
    params = policy.init(jax.random.key(0), obs[0])
    assert policy.apply is None
    unroll = jax.jit(lambda params, obs: acting.unroll(policy, params, obs))
    np.testing.assert_allclose(unroll(params, obs).mean, 2 * np.cumsum(obs, axis=0)[:, :2])
    with pytest.raises(ValueError, match=r"obs must have the shape \(3,\)"):
        acting.start(policy, params, obs)
    with pytest.raises(ValueError, match="network='sum' needs a memory"):
        networks.make_value(environment(), network="sum")
    with pytest.raises(ValueError, match=r"network_options of network='sum' must be among \['scale'\], got 'depth'"):
        networks.make_policy(environment(), network="sum", network_options={"depth": 2})


@pytest.mark.parametrize(
    "make", [networks.make_policy, networks.make_value, networks.make_action_values], ids=lambda make: make.__name__
)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 64}, "hidden must be a sequence of integers of at least 1, got 64"),
        ({"hidden": (0,)}, "hidden must be at least 1, got 0"),
        ({"hidden": (-3,)}, "hidden must be at least 1, got -3"),
        ({"hidden": (2.0,)}, "hidden must be an integer at least 1, got 2.0"),
        ({"activation": "sin"}, "activation.*sin"),
        ({"network": "centred"}, "needs an image with at least 2 channels, got 1"),
        ({"network": "conv", "network_options": {"depth": 2}}, r"must be among \['channels'\], got 'depth'"),
    ],
)
def test_what_no_network_has_is_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(environment(obs_shape=(4, 4, 1)), **options)


def test_boxes_of_integers_and_other_actions_without_a_policy():
    integers = Box(0, 3, (2,), np.int32)
    with pytest.raises(ValueError, match=r"must not be a box of integers, got Box\(0, 3.*use MultiDiscrete\(sizes\)"):
        networks.make_policy(environment(actions=integers))
    with pytest.raises(ValueError, match=r"the action space\['a'\] must not be a box of integers"):
        networks.make_policy(environment(actions={"a": integers}))
    with pytest.raises(ValueError, match=r"Slate\(3, 2\): use 'plackett_luce'"):
        networks.make_policy(environment(actions=Slate(3, 2)), distribution="categorical")
    with pytest.raises(ValueError, match=r"action values need a Discrete action space, got Slate\(3, 2\)"):
        networks.make_action_values(environment(actions=Slate(3, 2)))
    with pytest.raises(ValueError, match=r"initial_log_std must be in \[-80, 80\], got inf"):
        networks.make_policy(environment(), initial_log_std=float("inf"))
    with pytest.raises(ValueError, match=r"H and W at least 3, got shape \(2, 2, 1\)"):
        networks.make_policy(environment(obs_shape=(2, 2, 1)), network="conv")


def test_foreign_spaces_are_converted_or_refused():
    gymnasium = pytest.importorskip("gymnasium")
    seen = Box(-1.0, 1.0, (3,))
    policy = networks.policy_for_spaces(seen, gymnasium.spaces.MultiBinary(2))
    assert outputs(policy, (3,)).shape == (2, 2)
    with pytest.raises(ValueError, match="must start at 0"):
        networks.policy_for_spaces(seen, gymnasium.spaces.Discrete(2, start=1))
    with pytest.raises(ValueError, match=r"action space: saw MultiBinary\(2\), wanted .*spaces.as_space"):
        networks.make_policy(environment(actions=gymnasium.spaces.MultiBinary(2)))


@pytest.mark.parametrize("shape", [(4,), (2, 3), ()])
def test_an_observation_of_the_wrong_shape_is_named(shape):
    policy = networks.make_policy(environment())
    params = jax.eval_shape(policy.init, jax.random.key(0), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"obs must have the shape \(3,\)"):
        jax.eval_shape(policy.apply, params, np.zeros(shape, np.float32))
