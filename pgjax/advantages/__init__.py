"""Advantages of plain arrays, for your own training loop; the estimators of pgjax call the same functions.

An advantage, written A below, is the weight of a step in the gradient Σ A ∇ ln f(X_t, θ)_{A_t}. The arrays are
batch-major here: B episodes (answers), T steps (tokens). `mask` is true for the entries that count. Outside the mask
every result is 0, even if the input there is NaN. Numbers must have a float type, and masks must be bool.

| function | A | expected gradient |
|---|---|---|
| `rloo` | G_i − the mean of the other episodes of its group | exact |
| `dr_grpo` | G_i − the mean of its group | exactly (k − 1)/k of the exact one |
| `grpo` | (G_i − the mean of its group) / standard deviation of its group | biased by a factor for each prompt |
| `reinforce_plus_plus` | (G_t − the batch's mean) / the batch's standard deviation | biased |
| `gae` | Σ_l (γλ)ˡ δ_{t+l} | biased by the error of the values |

*Groups.* The k answers to one prompt form a group. With `group_size=k` the rows 0 … k − 1 are the first group, the rows
k … 2k − 1 the second, and so on; k must divide B. With `group_ids [B]` and `num_groups=N` row i belongs to the group
`group_ids[i]`, and groups may have different sizes. Without these arguments the whole batch is one group. An episode
whose steps all lie outside the mask is left out of its group, so you may fill up a batch with empty rows. If you mask
answers because of their content, you change the objective.

*The factor 1/|o_i| is not part of an advantage.* It belongs to the loss, which adds up the steps of an episode in one
of four ways; `aggregate` has a name for each. The last column of the table assumes the sum.

*Advantages are constants of the gradient.* The losses of pgjax, such as `losses.score_function_loss`, stop the gradient
at them. Your own loss must call `jax.lax.stop_gradient` if rewards or values depend on θ, as KL penalties do.

Example: answers have up to three tokens; the token 2 ends an answer; each token 0 is worth 1.

    >>> import jax, jax.numpy as jnp
    >>> from pgjax import advantages, losses
    >>> theta = jnp.zeros((3, 3))  # logits [T, V]
    >>> @jax.jit
    ... def answer(key, theta):
    ...     tokens = jax.random.categorical(key, theta, shape=(64, 3))  # [B, T]
    ...     ends = (tokens == 2).astype(jnp.int32)
    ...     mask = jnp.cumsum(ends, axis=1) - ends == 0  # true up to the end token, which is included
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
