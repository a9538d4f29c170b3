"""What complete episodes and windows share: one action of the policy, and the axes of a `Trajectory`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax import acting
from pgjax._checks import is_typed_key
from pgjax.types import Policy, PyTree, Trajectory

# Which axis of each field of a `Trajectory` counts the episodes.
_AXES: dict[str, Any] = {"final_obs": 0} | dict.fromkeys(
    ("obs", "actions", "rewards", "alive", "terminated", "truncated", "behaviour_log_probs"), 1
)
TRAJECTORY_AXES = Trajectory(**_AXES)


def select(condition: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
    """`yes` where the scalar `condition` holds and `no` where it does not, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


class Act(NamedTuple):
    """A_t, the memory after X_t, and ln f(X_t, θ)_{A_t} if it is recorded."""

    action: PyTree
    carry: PyTree
    log_prob: jax.Array | None


def act(policy: Policy, params: PyTree, key: jax.Array, carry: PyTree, obs: PyTree, record: bool) -> Act:
    """One action of the policy; `record` asks for its log-probability."""
    carry, outputs = acting.step(policy, params, carry, obs)
    action = policy.distribution.sample(key, outputs)
    return Act(action=action, carry=carry, log_prob=policy.distribution.log_prob(outputs, action) if record else None)


def require_keys(keys: jax.Array) -> None:
    """Require typed keys `[B]`, one for each episode; raise a ValueError otherwise."""
    if not is_typed_key(keys) or keys.ndim != 1:
        found = f"{getattr(keys, 'dtype', type(keys).__name__)} of shape {list(jnp.shape(keys))}"
        raise ValueError(
            f"keys must be typed keys of shape [B], one for each episode, got {found}; "
            "jax.random.split(jax.random.key(0), B) makes them"
        )
