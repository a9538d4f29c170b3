"""The problem on which the exhibits of the museum are measured. It is small enough to be known completely.

Axes: T time, B episodes, S states, A actions, F features.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import exact
from pgjax.types import Trajectory

GOAL = 7
STEP_OF_STATE = (0, 1, 1, 2, 2, 3, 3, 0)
HORIZON = 3  # the time limit of the room; the walk itself lasts one step longer


def walk(horizon: int) -> exact.TabularMDP:
    """A walk of up to four steps to the goal, some of them shortcuts, so that episodes end after 1, 2 or 3 steps.

    Every state is met at one time only, so a table v(x) holds the exact values. After three steps the walker waits in
    state 5 or 6 and is paid in the fourth whatever it does: a time limit of 3 loses that reward and no decision.
    """
    shape = (8, 2, 2)
    successors, probabilities, rewards = np.full(shape, GOAL), np.zeros(shape), np.zeros(shape)
    probabilities[..., 0] = 1.0
    outcomes = {
        (0, 0): [(1, 0.7, 1.0), (2, 0.3, -0.5)],
        (0, 1): [(2, 0.6, 0.4), (GOAL, 0.4, 1.2)],
        (1, 0): [(3, 0.5, 0.8), (GOAL, 0.5, 0.3)],
        (1, 1): [(3, 0.2, -0.6), (4, 0.8, 1.5)],
        (2, 0): [(4, 0.9, 0.5), (GOAL, 0.1, -1.0)],
        (2, 1): [(3, 0.6, 1.4), (4, 0.4, -0.3)],
        (3, 0): [(5, 0.5, 0.2), (GOAL, 0.5, 2.0)],
        (3, 1): [(6, 0.7, 1.1), (GOAL, 0.3, -0.8)],
        (4, 0): [(6, 0.4, 0.6), (5, 0.6, -0.4)],
        (4, 1): [(5, 0.3, 0.9), (GOAL, 0.7, 1.3)],
        (5, 0): [(GOAL, 1.0, 3.0)],
        (5, 1): [(GOAL, 1.0, 3.0)],
        (6, 0): [(GOAL, 1.0, -2.0)],
        (6, 1): [(GOAL, 1.0, -2.0)],
    }
    for (state, action), branches in outcomes.items():
        for k, (successor, probability, reward) in enumerate(branches):
            successors[state, action, k] = successor
            probabilities[state, action, k] = probability
            rewards[state, action, k] = reward
    return exact.make_tabular_mdp(
        initial=np.eye(8)[0],
        successors=successors,
        probabilities=probabilities,
        rewards=rewards,
        terminal=np.arange(8) == GOAL,
        # The last feature is 1 everywhere, a bias that all states share, padding included.
        observations=np.append(np.eye(8), np.ones((8, 1)), axis=1),
        horizon=horizon,
        name="walk",
    )


class Room(NamedTuple):
    """Everything that an exhibit, its right twin and its prediction may use.

    Attributes:
        mdp, unlimited: the walk with its time limit, and without.
        apply: `(params [F, A], obs [F]) → logits [A]`.
        params: θ, `[F, A]`.
        values: v of the limited walk, `[S]`; `long_values`: of the unlimited; `network_values`: of the limited one as
            a network would have them, wrong at the goal, where it was never trained.
        action_values: Q of the limited walk, `[S, A]`.
        head: what a value head that shares θ makes of the logits, `[A]`.
        discount, decay, step_size, epsilon: γ, β, α of w ← w + α (G − w), ε of ε-greedy play.
        average: ρ̂ before the episode; also the book's w.
        success, group: p, the probability of a right answer (reward 1, else 0), and G, answers in a group.
    """

    mdp: exact.TabularMDP
    unlimited: exact.TabularMDP
    apply: Any
    params: jax.Array
    values: jax.Array
    long_values: jax.Array
    network_values: jax.Array
    action_values: jax.Array
    head: jax.Array
    discount: float
    decay: float
    step_size: float
    epsilon: float
    average: float
    success: float
    group: int

    @property
    def answer_params(self) -> jax.Array:
        """θ of the bandit whose first arm is the right answer, `[1, A]`."""
        return jnp.log(jnp.asarray([[self.success, 1.0 - self.success]]))

    def value(self, table: jax.Array, obs: jax.Array) -> jax.Array:
        """`table [S]` at observations `[..., F]`, whose first S features are the state, one-hot."""
        return obs[..., :-1] @ table

    def played(self, params: jax.Array, obs: jax.Array) -> jax.Array:
        """Logits of the policy that plays: f with probability 1 − ε, else any action."""
        return jnp.log((1.0 - self.epsilon) * jax.nn.softmax(self.apply(params, obs)) + self.epsilon / 2.0)


def make_room(seed: int, **constants: float) -> Room:
    """The room at a θ drawn at random, in the default float type of the moment; `constants` are those of `Room`."""
    mdp, unlimited = walk(HORIZON), walk(HORIZON + 1)
    apply = lambda params, obs: obs @ params
    params = 0.7 * jax.random.normal(jax.random.key(seed), (9, 2))
    steps, states = jnp.asarray(STEP_OF_STATE), jnp.arange(8)

    @jax.jit
    def tables(params: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        probabilities = exact.policy_probabilities(apply, params, mdp)
        values, long_values = (exact.state_values(problem, probabilities) for problem in (mdp, unlimited))
        action_values = jnp.pad(exact.action_values(mdp, probabilities), ((0, 1), (0, 0), (0, 0)))
        return values[steps, states], long_values[steps, states], action_values[steps, states]

    values, long_values, action_values = tables(params)
    return Room(
        mdp=mdp,
        unlimited=unlimited,
        apply=apply,
        params=params,
        values=values,
        long_values=long_values,
        network_values=values.at[GOAL].set(1.5),
        action_values=action_values,
        head=jnp.asarray([0.5, -0.3]),
        average=0.7,
        **constants,
    )


class Episodes(NamedTuple):
    """What teaching code has in its hands after an episode, `[T]`, or after a batch, `[T, B]`; zero after the end.

    `log_probs` is ln f(X_t, θ)_{A_t} and, as `logits [T, (B,) A]`, depends on θ; nothing else does. `length` is the
    number of steps, `[]` or `[B]`, and `next_obs` is X_{t+1}.
    """

    obs: jax.Array
    next_obs: jax.Array
    actions: jax.Array
    rewards: jax.Array
    alive: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    length: jax.Array
    logits: jax.Array
    log_probs: jax.Array


def look(room: Room, params: jax.Array, batch: Trajectory) -> Episodes:
    """`batch` as teaching code sees it: one episode without the axis B, or the batch."""
    episodes = jax.tree.map(lambda x: x[..., 0] if x.ndim == 2 else x[..., 0, :], batch._replace(final_obs=None))
    batch, final = (episodes, batch.final_obs[0]) if batch.alive.shape[1] == 1 else (batch, batch.final_obs)
    logits = room.apply(params, batch.obs)
    return Episodes(
        obs=batch.obs,
        next_obs=jnp.concatenate([batch.obs[1:], final[None]]),
        actions=batch.actions,
        rewards=batch.rewards,
        alive=batch.alive,
        terminated=batch.terminated,
        truncated=batch.truncated,
        length=batch.alive.sum(axis=0).astype(batch.rewards.dtype),
        logits=logits,
        log_probs=jnp.where(batch.alive, taken(jax.nn.log_softmax(logits), batch.actions), 0.0),
    )


def taken(table: jax.Array, actions: jax.Array) -> jax.Array:
    """Entry A_t of each row of `table [..., A]`."""
    return jnp.take_along_axis(table, actions[..., None], axis=-1)[..., 0]


def to_go(rewards: jax.Array, discount: float = 1.0) -> jax.Array:
    """G_t, as teaching code computes it; along the first axis."""
    running, returns = jnp.zeros_like(rewards[0]), []
    for reward in rewards[::-1]:
        running = reward + discount * running
        returns.insert(0, running)
    return jnp.stack(returns)
