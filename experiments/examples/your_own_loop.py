"""Your own training loop: rollouts, advantages and losses of pgjax, and everything else written here.

Run it with `python -m experiments.examples.your_own_loop`, or cell by cell in an editor that knows `# %%`.

The problem is the short corridor with its state shown: three states and a goal, every step costs 1. It is so small that
the gradient of the expected return is known exactly. So the loop is checked before it is trusted: the gradient of its
loss must be the exact one, up to the noise of sampling.
"""

# %% The parts that pgjax gives: an environment, rollouts, advantages, losses, and the exact gradient.
import jax
import jax.numpy as jnp
import optax

from pgjax import advantages, exact, losses, rollouts
from pgjax.distributions import categorical
from pgjax.environments.corridor import corridor_mdp
from pgjax.types import Policy

HORIZON = 8  # No episode is longer.
mdp = corridor_mdp(horizon=HORIZON, observe_state=True)  # All probabilities, written down as tables.
environment = exact.to_environment(mdp)  # The same problem, to be played.

# %% The policy: one row of action preferences for each state. An observation is the state as a one-hot vector.


def init(key, obs):
    """θ, an array [states, actions]."""
    return jnp.zeros((obs.shape[0], 2))


def apply(theta, obs):
    """The logits of the two actions at one observation."""
    return obs @ theta


policy = Policy(init=init, apply=apply, distribution=categorical)
theta = jnp.array([[0.5, -0.5], [0.3, 0.0], [0.0, 0.2], [0.0, 0.0]])

# %% Step 1: play. Every episode has a key of its own. Arrays are time-major: [T, B] is T steps of B episodes.


@jax.jit
def play(theta, key):
    """64 complete episodes; `alive` says which steps count, because episodes have different lengths."""
    return rollouts.episodes(environment, policy, theta, jax.random.split(key, 64))


trajectory = play(theta, jax.random.key(0))
print("rewards [T, B]:", trajectory.rewards.shape, " steps that count:", int(trajectory.alive.sum()))

# %% Step 2: weigh. `pgjax.advantages` takes plain arrays [B, T], so the two axes are exchanged.


def weights_of(trajectory):
    """w [B, T]: the reward-to-go of an episode minus the mean of the other episodes at the same step."""
    rewards, mask = trajectory.rewards.T, trajectory.alive.T
    return advantages.rloo(rewards, mask, returns="reward_to_go")


print("weights [B, T]:", weights_of(trajectory).shape)

# %% Step 3: the loss. Its value means nothing; its gradient is −Σ w ∇ ln f(X_t, θ)_{A_t}, averaged over the episodes.


def loss(theta, trajectory):
    """Sum over the steps that count, mean over the episodes: the convention of the exact policy gradient."""
    logits = trajectory.obs @ theta  # [T, B, A]; the rollout is not differentiated, its observations are data.
    log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), trajectory.actions[..., None], axis=-1)[..., 0]
    terms = losses.score_function_loss(log_probs.T, weights_of(trajectory))
    return advantages.aggregate(terms, trajectory.alive.T, over_time="sum")


# %% Check it before you trust it: the mean of many estimates must be the exact gradient, within its standard error.


@jax.jit
def estimate(theta, key):
    """One estimate of the gradient of the expected return; the sign is turned here, because a loss is minimised."""
    return -jax.grad(loss)(theta, play(theta, key))


def check(theta, estimates=2000):
    """The distance of the mean estimate from the exact gradient, in standard errors, for each number in θ."""
    keys = jax.random.split(jax.random.key(1), estimates)
    found = jax.lax.map(lambda key: estimate(theta, key), keys)  # [estimates, states, actions]
    wanted = exact.exact_gradient(apply, theta, mdp)
    stderr = found.std(axis=0, ddof=1) / jnp.sqrt(estimates)
    visited = stderr > 0  # The goal is never left, so nothing is learned there.
    return jnp.where(visited, (found.mean(axis=0) - wanted) / jnp.where(visited, stderr, 1.0), 0.0)


distances = check(theta)
print("distance from the exact gradient, in standard errors:", jnp.abs(distances).max())
assert jnp.abs(distances).max() < 4.5, "the loop does not estimate the gradient of the expected return"

# %% Step 4: update, with any optimiser of optax.

optimizer = optax.adam(0.1)


@jax.jit
def update(theta, optimizer_state, key):
    """Play, weigh, differentiate, step; also returns the mean return of the episodes."""
    trajectory = play(theta, key)
    gradient = jax.grad(loss)(theta, trajectory)
    updates, optimizer_state = optimizer.update(gradient, optimizer_state)
    return optax.apply_updates(theta, updates), optimizer_state, trajectory.rewards.sum(axis=0).mean()


optimizer_state = optimizer.init(theta)
for number, key in enumerate(jax.random.split(jax.random.key(2), 100)):
    theta, optimizer_state, mean_return = update(theta, optimizer_state, key)
    if number % 20 == 0:
        print(f"update {number:3d}: mean return {mean_return:.2f}")

# %% The exact expected return of what was learned; the shortest way takes three steps, so −3 is the best.

objective = exact.objective(apply, theta, mdp)
print(f"expected return after training: {objective:.3f}")
