"""Two other ways to use the same labels, for comparison: best-of-n, and direct preference optimisation (DPO)."""

import functools

import jax
import jax.numpy as jnp
import optax

from experiments.rlhf.loop import Problem, State
from pgjax import imitation, preferences, rollouts, training
from pgjax.environments.text import TextBuffer
from pgjax.preferences.losses import dpo_loss
from pgjax.types import Policy, PyTree

DPO_KL_COEF = 0.1
DPO_EPOCHS = 2
DPO_OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-4))


def best_of(
    key: jax.Array,
    problem: Problem,
    params: PyTree,
    scored: preferences.RewardModel,
    reward_params: PyTree,
    n: int,
    count: int,
) -> jax.Array:
    """The gold scores `[count]` of the answers that a reward model likes best among n of the reference policy.

    The KL of this choice to the reference is at most ln n − (n − 1)/n (Beirami et al. 2024).
    """
    played = rollouts.episodes(problem.test, problem.policy, params, jax.random.split(key, n * count), group_size=n)
    golds = jnp.sum(played.rewards, axis=0).reshape(-1, n)
    proxies = jax.vmap(scored.apply, (None, 0))(reward_params, played.final_obs).reshape(-1, n)
    return jnp.take_along_axis(golds, jnp.argmax(proxies, axis=1)[:, None], axis=1)[:, 0]


def answer_log_probs(policy: Policy, params: PyTree, buffers: TextBuffer) -> jax.Array:
    """ln π(y | x) `[n]` of the answers in buffers, EOS included."""
    log_probs = imitation.token_log_probs(policy, params, buffers.tokens)
    place = jnp.arange(1, buffers.tokens.shape[1])
    inside = (place >= buffers.prompt_length[:, None]) & (place < buffers.length[:, None])
    return jnp.sum(jnp.where(inside, log_probs, 0.0), axis=1)


def direct_preferences(key: jax.Array, problem: Problem, state: State, params: PyTree) -> State:
    """The state whose θ is fitted by DPO to its comparisons, from the reference; ties are left out.

    Source: Rafailov et al. 2023.
    """
    labels = state.comparisons
    swapped = labels.outcomes == 1
    choose = lambda first, second: jax.tree.map(
        lambda a, b: jnp.where(swapped.reshape(-1, *[1] * (a.ndim - 1)), b, a), first, second
    )
    data = {"chosen": choose(labels.first, labels.second), "rejected": choose(labels.second, labels.first)}
    judge = jax.jit(functools.partial(answer_log_probs, problem.policy))
    of_reference = {f"reference_{name}": judge(params, buffers) for name, buffers in data.items()}

    def loss(params: PyTree, rows: PyTree) -> jax.Array:
        found = {name: answer_log_probs(problem.policy, params, rows[name]) for name in ("chosen", "rejected")}
        return dpo_loss(**found, **{name: rows[name] for name in of_reference}, kl_coef=DPO_KL_COEF)

    weights = state.weights * (labels.outcomes < 2)
    how = {"num_epochs": DPO_EPOCHS, "batch_size": 32, "weights": weights}
    fitted = training.fit(key, params, loss, {**data, **of_reference}, DPO_OPTIMIZER, **how)
    return state._replace(train=state.train._replace(params=fitted.params))
