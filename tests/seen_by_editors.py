"""What an editor knows of pgjax through its lazy imports: read by pyright (`.ci/run`), never run.

Were a name only `Any` to the editor, the wrong calls below would be no errors, and pyright would report the comments
that ignore them.
"""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import assert_type

import jax

import pgjax
from pgjax import Baseline, Distribution, Environment, Estimator, Policy, baselines, environments, estimators, networks

environment = assert_type(environments.make("CartPole-v1"), Environment)
policy = assert_type(networks.make_policy(environment), Policy)
baseline = assert_type(baselines.leave_one_out(), Baseline)
assert_type(pgjax.estimators.make_estimator(policy, baseline=baseline, over_time="mean"), Estimator)
assert_type(pgjax.distributions.categorical, Distribution)
assert_type(pgjax.__version__, str)
assert_type(pgjax.rollouts.fused_bytes(environment, policy, (), 16), int)
assert_type(pgjax.exact.random_mdp(jax.random.key(0), 3, 2, 2, horizon=4), pgjax.exact.TabularMDP)

pgjax.estimators.make_estimator(1)  # pyright: ignore[reportArgumentType]  no policy
estimators.make_estimator(policy, over_time="average")  # pyright: ignore[reportArgumentType]  no word of the list
networks.make_policy(environment, activation="sigmoid")  # pyright: ignore[reportArgumentType]  no word of the list
baselines.moving_average(initial="one")  # pyright: ignore[reportArgumentType]  neither a number nor a word of the list
_ = pgjax.exact.TabularMdp  # pyright: ignore[reportAttributeAccessIssue]  no such record
_ = pgjax.rollouts.fuse, pgjax.training.exports  # pyright: ignore[reportAttributeAccessIssue]  no such functions
_ = pgjax.estimator  # pyright: ignore[reportAttributeAccessIssue]  no such module
