"""Advantages of plain arrays, for a loop of your own; the estimators of pgjax call the same functions.

An advantage is the weight w of a step in the gradient Σ w ∇ ln f(X_t, θ)_{A_t}; it is written A below. The arrays are
batch-major here: B episodes (answers), T steps (tokens). `mask` says which entries count, and every result is 0 outside
it, whatever stands there (NaN too). Numbers have to be of a float type, masks bool.

| function | A | expected gradient |
|---|---|---|
| `rloo` | G_i − the mean of the others of its group | exact |
| `dr_grpo` | G_i − the mean of its group | exactly (k − 1)/k of the exact one |
| `grpo` | (G_i − the mean of its group) / standard deviation of its group | biased, prompt by prompt |
| `reinforce_plus_plus` | (G_t − the batch's mean) / the batch's standard deviation | biased |
| `gae` | Σ_l (γλ)ˡ δ_{t+l} | as good as the values |

*Groups.* The k answers to one prompt form a group. With `group_size=k` the groups are the rows 0 … k − 1, k … 2k − 1
and so on, and k divides B. With `group_ids [B]` and `num_groups=N` row i belongs to group `group_ids[i]`, and groups
may have unequal sizes. With neither the whole batch is one group. An episode without a step that counts is left out of
its group, so that empty rows may fill up a batch. To mask answers for what they say changes the objective.

*The factor 1/|o_i| is no part of an advantage.* It belongs to the loss, which adds up the steps of an episode in one of
three ways; `aggregate` has a name for each. The column above is about the sum.

*Advantages are constants of the gradient.* `losses.score_function_loss` and the other losses of pgjax stop the gradient
there. A loss of your own has to apply `jax.lax.stop_gradient` if rewards or values depend on θ, as KL penalties do.

Example: answers of up to three tokens; a token 2 ends an answer; every token 0 is worth 1.

    >>> import jax, jax.numpy as jnp
    >>> from pgjax import advantages, losses
    >>> theta = jnp.zeros((3, 3))  # logits [T, V]
    >>> @jax.jit
    ... def answer(key, theta):
    ...     tokens = jax.random.categorical(key, theta, shape=(64, 3))  # [B, T]
    ...     ends = (tokens == 2).astype(jnp.int32)
    ...     mask = jnp.cumsum(ends, axis=1) - ends == 0  # up to the end token and with it
    ...     return tokens, mask, jnp.where((tokens == 0) & mask, 1.0, 0.0)
    >>> @jax.jit
    ... def loss(theta, tokens, mask, rewards):
    ...     log_probs = jnp.sum(jax.nn.one_hot(tokens, 3) * jax.nn.log_softmax(theta), axis=-1)  # [B, T]
    ...     weights = advantages.rloo(rewards, mask, group_size=8)
    ...     return advantages.aggregate(losses.score_function_loss(log_probs, weights), mask, over_time="sum")
    >>> for key in jax.random.split(jax.random.key(0), 50):
    ...     theta = theta - 0.5 * jax.grad(loss)(theta, *answer(key, theta))
    >>> bool(jax.nn.softmax(theta)[:, 0].min() > 0.8)
    True
"""

from pgjax.advantages.groups import GroupStatistics, group_statistics, leave_one_out, standardise_groups
from pgjax.advantages.named import dr_grpo, grpo, reinforce_plus_plus, rloo
from pgjax.advantages.steps import aggregate, gae, reward_to_go, standardise, step_weights

__all__ = [
    "GroupStatistics",
    "aggregate",
    "dr_grpo",
    "gae",
    "group_statistics",
    "grpo",
    "leave_one_out",
    "reinforce_plus_plus",
    "reward_to_go",
    "rloo",
    "standardise",
    "standardise_groups",
    "step_weights",
]
