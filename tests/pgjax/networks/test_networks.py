"""Policies and values fit their spaces, or say why they do not."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import acting, distributions, networks, spaces
from pgjax.networks import inputs
from pgjax.spaces import Box, Discrete, MultiDiscrete, Slate
from pgjax.types import Environment, Memory, Step

PICTURE = Box(0, 255, (5, 6, 3), np.uint8)
MIXED = {"picture": PICTURE, "rest": (Discrete(3), MultiDiscrete((2, 4)), Box(-1.0, 1.0, (2,)), Slate(3, 2))}


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


def act(observation_space, action_space, **options):
    """A policy, its outputs at one observation and an action."""
    policy = networks.policy_for_spaces(observation_space, action_space, hidden=(4,), **options)
    obs = spaces.sample(observation_space, jax.random.key(0))
    params = policy.init(jax.random.key(1), obs)
    outputs = policy.apply(params, obs)
    return policy, params, outputs, policy.distribution.sample(jax.random.key(2), outputs)


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
    assert policy.distribution.log_prob(outputs, action) == wanted(outputs, action)


def test_actions_and_observations_of_many_parts():
    actions = {"buy": Discrete(2), "how": (Box(-1.0, 1.0, (2,)), Slate(4, 2), Box(0.0, 1.0, ()))}
    policy, params, outputs, action = act(MIXED, actions, distribution="squashed_gaussian", initial_log_std=-1.0)
    assert spaces.contains(actions, action)
    assert jnp.isfinite(policy.distribution.log_prob(outputs, action))
    np.testing.assert_array_equal(params["log_std"]["how"][0], [-1.0, -1.0])
    assert params["log_std"]["buy"] == () and params["log_std"]["how"][2].shape == ()
    parts = distributions.categorical.log_prob(outputs["buy"], action["buy"])
    parts += distributions.squashed_gaussian(-1.0, 1.0).log_prob(outputs["how"][0], action["how"][0])
    parts += distributions.plackett_luce(4, 2).log_prob(outputs["how"][1], action["how"][1])
    parts += distributions.squashed_gaussian(0.0, 1.0).log_prob(outputs["how"][2], action["how"][2])
    np.testing.assert_allclose(policy.distribution.log_prob(outputs, action), parts, rtol=1e-6)


def test_one_hot_inputs_make_discrete_observations_independent():
    """A step on observation 2 leaves a linear policy's outputs at all others as they were; a raw number moves them."""
    for space, other in ((Discrete(4), False), (Box(0.0, 3.0, ()), True)):
        policy = networks.policy_for_spaces(space, Discrete(2), hidden=())
        params = policy.init(jax.random.key(0), jnp.asarray(0, space.dtype))["params"]["Dense_0"]
        params = {"params": {"Dense_0": params}}
        of = lambda params, x: policy.apply(params, jnp.asarray(x, space.dtype))
        gradient = jax.grad(lambda params: of(params, 2)[0])(params)["params"]["Dense_0"]["kernel"]
        moved = {"params": {"Dense_0": params["params"]["Dense_0"] | {"kernel": gradient}}}
        change = [of(moved, x) - params["params"]["Dense_0"]["bias"] for x in range(4)]
        assert (np.abs(change[1]).max() > 0) == other and np.abs(change[2]).max() > 0
    value = networks.value_for_spaces(Discrete(4), hidden=(8,))
    for init, _ in (value, networks.action_values_for_spaces(Discrete(4), Discrete(2), hidden=(8,))):
        assert init(jax.random.key(0), jnp.asarray(1))["params"]["Dense_0"]["kernel"].shape == (4, 8)


def test_the_numbers_that_stand_for_an_observation():
    obs = {
        "picture": np.full((5, 6, 3), 51, np.uint8),
        "rest": (jnp.asarray(2), jnp.asarray([1, 3]), jnp.asarray([0.5, -1.0]), jnp.asarray([2, 0])),
    }
    picture, discrete, several, box, slate = inputs.encode(MIXED, obs)
    np.testing.assert_allclose(picture, np.full((5, 6, 3), 0.2), rtol=1e-6)
    np.testing.assert_array_equal(discrete, [0, 0, 1])
    np.testing.assert_array_equal(several, [0, 1, 0, 0, 0, 1])
    np.testing.assert_array_equal(box, [0.5, -1.0])
    np.testing.assert_array_equal(slate, [0, 0, 1, 1, 0, 0])
    np.testing.assert_array_equal(inputs.encode(Box(0, 9, (2,), np.int32), jnp.asarray([3, 9]))[0], [3, 9])


def test_a_picture_among_others_gets_a_convolution():
    _, params, _, _ = act(MIXED, Discrete(2))
    kernels = {name: part["Dense_0"]["kernel"].shape for name, part in params["params"].items()}
    assert kernels == {"Convolution_0": (27, 16), "MLP_0": (3 * 4 * 16 + 3 + 6 + 2 + 6, 4)}
    _, params, _, _ = act(MIXED, Discrete(2), network="conv", network_options={"channels": 2})
    assert params["params"]["Convolution_0"]["Dense_0"]["kernel"].shape == (27, 2)
    _, params, _, _ = act(MIXED, Discrete(2), network="mlp")
    assert params["params"]["Dense_0"]["kernel"].shape == (90 + 17, 4)
    _, params, _, _ = act(Box(0.0, 1.0, (2, 2, 1)), Discrete(2))
    assert params["params"]["Dense_0"]["kernel"].shape == (4, 4)


def test_x64_leaves_policies_in_float32_until_theta_is_float64():
    box = Box(-1.0, 1.0, (2,))
    with jax.enable_x64(True):
        policy, params, outputs, action = act(Box(-1.0, 1.0, (3,), np.float64), box)
        assert {x.dtype for x in jax.tree.leaves((params, outputs, action))} == {jnp.dtype(jnp.float32)}
        wide = jax.tree.map(lambda x: x.astype(jnp.float64), params)
        obs = jnp.asarray([1 / 3, 0.1, -0.2])
        assert {x.dtype for x in jax.tree.leaves(policy.apply(wide, obs))} == {jnp.dtype(jnp.float64)}
        kernels = [wide["network"]["params"][f"Dense_{i}"]["kernel"] for i in range(2)]
        np.testing.assert_allclose(policy.apply(wide, obs).mean, jnp.tanh(obs @ kernels[0]) @ kernels[1], rtol=1e-14)


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
    first, second = (networks.policy_for_spaces(MIXED, Slate(4, 2), **o) for o in (options, again))
    obs = spaces.sample(MIXED, jax.random.key(0))
    params = first.init(jax.random.key(0), obs)
    np.testing.assert_array_equal(first.apply(params, obs), second.apply(second.init(jax.random.key(0), obs), obs))


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
    obs = jnp.arange(12.0).reshape(4, 3)
    params = policy.init(jax.random.key(0), obs[0])
    assert policy.apply is None
    np.testing.assert_allclose(acting.unroll(policy, params, obs).mean, 2 * jnp.cumsum(obs, axis=0)[:, :2])
    with pytest.raises(ValueError, match=r"obs must have the shape \(3,\)"):
        acting.start(policy, params, obs)
    with pytest.raises(ValueError, match="network='sum' needs a memory"):
        networks.make_value(environment(), network="sum")
    with pytest.raises(ValueError, match=r"network_options of network='sum' must be among \['scale'\], got 'depth'"):
        networks.make_policy(environment(), network="sum", network_options={"depth": 2})


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        (lambda obs: obs | {"picture": obs["picture"][:4]}, r"obs\['picture'\] must have the shape \(5, 6, 3\)"),
        (lambda obs: obs | {"rest": (jnp.zeros(2), *obs["rest"][1:])}, r"obs\['rest'\]\[0\] must have the shape \(\)"),
        (lambda obs: obs["rest"], "obs must have the structure"),
    ],
)
def test_the_part_of_an_observation_that_does_not_fit_is_named(obs, message):
    policy, params, _, _ = act(MIXED, Discrete(2))
    with pytest.raises(ValueError, match=message):
        policy.apply(params, obs(spaces.sample(MIXED, jax.random.key(0))))


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
    params = policy.init(jax.random.key(0), jnp.zeros(3))
    with pytest.raises(ValueError, match=r"obs must have the shape \(3,\)"):
        policy.apply(params, jnp.zeros(shape))
