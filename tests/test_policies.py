"""A policy's file brings back environment, policy and parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import checkpoints, environments, networks, policies


@pytest.fixture(scope="module")
def params():
    policy = networks.make_policy(environments.make("corridor"), hidden=(3,))
    return jax.tree.map(lambda x: x + 0.5, policy.init(jax.random.key(0), jnp.zeros(1)))


def test_all_three_come_back(tmp_path, params):
    policies.save_policy(tmp_path / "it", params, env="corridor", hidden=(3,))
    environment, policy, found = policies.load_policy(tmp_path / "it")
    assert environment.name == "corridor"
    obs = jnp.ones(1)
    original = networks.make_policy(environments.make("corridor"), hidden=(3,))
    np.testing.assert_array_equal(policy.apply(found, obs), original.apply(params, obs))


def test_what_is_no_policy_is_refused(tmp_path, params):
    checkpoints.save(tmp_path / "arrays", params, {"env": "corridor"})
    with pytest.raises(ValueError, match=r"arrays is no policy's: its metadata lack distribution, hidden"):
        policies.load_policy(tmp_path / "arrays")
    policies.save_policy(tmp_path / "other", params, env="corridor", hidden=(4,))
    with pytest.raises(ValueError, match=r"other was written with .* of float32\[3\], wanted float32\[4\]"):
        policies.load_policy(tmp_path / "other")
    with pytest.raises(ValueError, match="is not a file"):
        policies.load_policy(tmp_path / "nothing")
