"""Your own model: a policy from flax.nnx, one from equinox, and a loss of tokens [B, T] with a mask.

Run it with `python -m experiments.examples.your_own_model`, or cell by cell in an editor that knows `# %%`.

pgjax asks two plain functions of a policy: `init(key, obs) → params` and `apply(params, obs) → outputs`, both for one
observation. `params` may be any tree of arrays. A library with objects fits in when its object is split into its
arrays, which are the parameters, and the rest, which stays fixed.
"""

# %% The trainer is the same for every model, so it is one function here.
import importlib.util

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from pgjax import advantages, baselines, environments, estimators, losses, training
from pgjax.distributions import categorical
from pgjax.types import Policy

environment = environments.make("CartPole-v1")


def train(policy, updates=15):
    """Trains a policy with reward-to-go and a leave-one-out baseline; returns the mean return of every update [U]."""
    estimator = estimators.make_estimator(
        policy, returns=estimators.reward_to_go(), baseline=baselines.leave_one_out("live")
    )
    trainer = training.make_trainer(environment, policy, estimator, optax.adam(0.01), num_episodes=32)

    @jax.jit
    def run(key):
        return jax.lax.scan(lambda state, _: trainer.update(state), trainer.init(key), length=updates)

    _, metrics = run(jax.random.key(0))
    return metrics["mean_return"]


# %% flax.nnx: `nnx.split` gives the definition of the model and its arrays, `nnx.merge` puts them together again.


class Network(nnx.Module):
    """Two dense layers: an observation of CartPole in, the logits of its two actions out."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(4, 32, rngs=rngs)
        self.output = nnx.Linear(32, 2, rngs=rngs)

    def __call__(self, x):
        return self.output(jnp.tanh(self.hidden(x)))


def nnx_init(key, obs):
    """θ: the arrays of a network whose numbers are drawn with `key`."""
    return nnx.state(Network(nnx.Rngs(key)))


definition = nnx.graphdef(Network(nnx.Rngs(0)))  # It holds no numbers.


def nnx_apply(params, obs):
    """The logits at one observation."""
    return nnx.merge(definition, params)(obs)


nnx_policy = Policy(init=nnx_init, apply=nnx_apply, distribution=categorical)
nnx_returns = train(nnx_policy)
print(f"flax.nnx: mean return {nnx_returns[0]:.0f} at first, {nnx_returns[-1]:.0f} after {len(nnx_returns)} updates")

# %% equinox: a module is a tree already; `eqx.partition` tells its arrays from its functions.

equinox_returns = None
if importlib.util.find_spec("equinox") is None:
    print("equinox is not installed, so its cell is skipped; `pip install equinox` brings it.")
else:
    import equinox as eqx

    def make_mlp(key):
        return eqx.nn.MLP(in_size=4, out_size=2, width_size=32, depth=1, activation=jnp.tanh, key=key)

    _, functions = eqx.partition(make_mlp(jax.random.key(0)), eqx.is_array)

    def equinox_init(key, obs):
        """θ: the arrays of the module, with None where it holds a function."""
        arrays, _ = eqx.partition(make_mlp(key), eqx.is_array)
        return arrays

    def equinox_apply(params, obs):
        """The logits at one observation."""
        return eqx.combine(params, functions)(obs)

    equinox_returns = train(Policy(init=equinox_init, apply=equinox_apply, distribution=categorical))
    print(f"equinox: mean return {equinox_returns[0]:.0f} at first, {equinox_returns[-1]:.0f} at last")

# %% Tokens: a model of text answers prompts. The arrays are [B, T]: B answers of at most T tokens, with a mask.
# Here the "model" is one table of logits, the same for every place in the answer. Your transformer goes in its place.

TOKENS, LENGTH, ANSWERS, GROUP = 5, 6, 64, 8
END = 4  # This token ends an answer.
prompts = jnp.repeat(jnp.arange(ANSWERS // GROUP) % 3, GROUP)  # [B]; every prompt is answered GROUP times.


def token_logits(params, prompts):
    """The logits of the next token: [B, T, V]."""
    return jnp.broadcast_to(params[prompts][:, None, :], (len(prompts), LENGTH, TOKENS))


def answer(params, key):
    """Answers [B, T], and which of their tokens count: all up to the end token, and that one too."""
    tokens = jax.random.categorical(key, token_logits(params, prompts))
    ended = jnp.cumsum(tokens == END, axis=1)
    mask = (ended - (tokens == END)) == 0
    return tokens, mask


def score(tokens, mask):
    """The reward of each answer [B]: the share of its tokens that repeat the number of the prompt."""
    right = (tokens == prompts[:, None]) & mask
    return right.sum(axis=1) / mask.sum(axis=1)


def token_loss(params, tokens, mask, rewards):
    """REINFORCE, leave one out, over the answers to the same prompt. A token that does not count weighs nothing."""
    log_probs = jax.nn.log_softmax(token_logits(params, prompts))
    log_probs = jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]  # [B, T]
    weights = advantages.rloo(rewards, group_size=GROUP)  # [B]; equal rewards in a group give exactly 0.
    weights = jnp.broadcast_to(weights[:, None], mask.shape)
    return advantages.aggregate(losses.score_function_loss(log_probs, weights), mask, over_time="sum")


@jax.jit
def token_update(params, key):
    """One step of plain gradient ascent; also returns the mean reward."""
    tokens, mask = answer(params, key)
    rewards = score(tokens, mask)
    return params - 1.0 * jax.grad(token_loss)(params, tokens, mask, rewards), rewards.mean()


params = jnp.zeros((3, TOKENS))
token_rewards = []
for key in jax.random.split(jax.random.key(1), 100):
    params, mean_reward = token_update(params, key)
    token_rewards.append(float(mean_reward))
print(
    f"tokens: mean reward {token_rewards[0]:.2f} at first, {token_rewards[-1]:.2f} after {len(token_rewards)} updates"
)
