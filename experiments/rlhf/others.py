"""Two other ways to use the same labels, for comparison: best-of-n, and direct preference optimisation (DPO).

Both are compiled once and mapped over runs. Axes: R runs, N comparisons, n answers to one prompt.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.rlhf.loop import Found, Loop, State
from experiments.rlhf.problem import Problem
from pgjax import imitation, rollouts, training
from pgjax.environments.text import TextBuffer
from pgjax.preferences.losses import dpo_loss
from pgjax.training.sharding import Shares, choose_devices
from pgjax.types import Policy, PyTree

DPO_KL_COEF = 0.1
DPO_EPOCHS = 2
DPO_OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-4))


def measure(
    loop: Loop, keys: tuple[jax.Array, jax.Array], states: State, params: PyTree, best_of: tuple[int, ...]
) -> tuple[dict[int, np.ndarray], dict[str, np.ndarray]]:
    """The mean gold score of best-of-n by n, and the numbers of an evaluation of DPO by name, each `[R]`.

    Args:
        loop: the stages.
        keys: typed keys `[R]` of best-of-n, and those of DPO.
        states: the runs whose reward models and comparisons are used, leaves `[R, ...]`.
        params: θ_ref.
        best_of: the numbers n.
    """
    of_choice, of_dpo = keys
    shares = Shares.of(choose_devices(None), len(of_choice))
    states = shares.scatter(states)

    def run(function: Callable, own_keys: jax.Array) -> PyTree:
        program = jax.jit(shares.each(function, "auto", num_shared=1))
        found = program(shares.scatter(own_keys), states, params)
        return jax.tree.map(np.asarray, shares.gather(found))

    best = lambda n: lambda key, state, params: jnp.mean(best_answers(key, loop, state, params, n))
    chosen = {n: run(best(n), of_choice) for n in best_of}
    return chosen, run(lambda key, state, params: directly(key, loop, state, params), of_dpo)


def best_answers(key: jax.Array, loop: Loop, state: State, params: PyTree, n: int) -> jax.Array:
    """The gold scores of the answers that the reward model of a run likes best among n of the reference policy.

    The KL of this choice to the reference is at most ln n − (n − 1)/n (Beirami et al. 2024).
    """
    problem = loop.problem
    keys = jax.random.split(jax.random.fold_in(key, n), n * loop.sizes.evaluated)
    played = rollouts.episodes(problem.test, problem.policy, params, keys, group_size=n)
    golds = jnp.sum(played.rewards, axis=0).reshape(-1, n)
    reward_params = state.train.reward_state[0].params
    proxies = jax.vmap(loop.scored.apply, (None, 0))(reward_params, played.final_obs).reshape(-1, n)
    return jnp.take_along_axis(golds, jnp.argmax(proxies, axis=1)[:, None], axis=1)[:, 0]


def directly(key: jax.Array, loop: Loop, state: State, params: PyTree) -> Found:
    """The numbers of an evaluation of θ that DPO fits to the comparisons of a run."""
    fitted = direct_preferences(key, loop.problem, state, params)
    return loop.evaluate(fitted, jnp.int32(0))[1]["numbers"]


def answer_log_probs(policy: Policy, params: PyTree, buffers: TextBuffer) -> jax.Array:
    """ln π(y | x) `[n]` of the answers in buffers, EOS included."""
    log_probs = imitation.token_log_probs(policy, params, buffers.tokens)
    place = jnp.arange(1, buffers.tokens.shape[1])
    inside = (place >= buffers.prompt_length[:, None]) & (place < buffers.length[:, None])
    return jnp.sum(jnp.where(inside, log_probs, 0.0), axis=1)


def direct_preferences(key: jax.Array, problem: Problem, state: State, params: PyTree) -> State:
    """The state whose θ is fitted by DPO to the comparisons of its fit, from the reference; ties are left out.

    Source: Rafailov et al. 2023.
    """
    labels = state.comparisons
    swapped = labels.outcomes == 1
    choose = lambda first, second: jax.tree.map(
        lambda a, b: jnp.where(swapped.reshape(-1, *[1] * (a.ndim - 1)), b, a), first, second
    )
    data = {"chosen": choose(labels.first, labels.second), "rejected": choose(labels.second, labels.first)}
    judge = lambda row: answer_log_probs(problem.policy, params, jax.tree.map(lambda x: x[None], row))[0]
    of_reference = {f"reference_{name}": jax.lax.map(judge, rows, batch_size=32) for name, rows in data.items()}

    def loss(params: PyTree, rows: PyTree) -> jax.Array:
        found = {name: answer_log_probs(problem.policy, params, rows[name]) for name in ("chosen", "rejected")}
        return dpo_loss(**found, **{name: rows[name] for name in of_reference}, kl_coef=DPO_KL_COEF)

    weights = state.weights * (labels.outcomes < 2)
    how = {"num_epochs": DPO_EPOCHS, "batch_size": 32, "weights": weights}
    fitted = training.fit(key, params, loss, {**data, **of_reference}, DPO_OPTIMIZER, **how)
    return state._replace(train=state.train._replace(params=fitted.params))
