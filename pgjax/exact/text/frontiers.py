"""What the best policies for a proxy of the reward are worth, without any optimiser: the exact Goodhart frontier.

For a proxy r̂, such as a fitted reward model, and the true (gold) reward r, each β > 0 gives the policy
π*_β(r̂) ∝ π_ref e^{r̂/β}. As β falls, KL(π*_β ‖ π_ref) and E[r̂] rise; E[r] may rise and then fall. No policy with the
same KL has a greater E[r̂]. So the curve separates two faults: a low E[r] on the curve is the fault of the proxy, and an
E[r̂] below the curve is the fault of the optimiser. Axes: K values of β, N answers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pgjax._checks import is_traced, require_in_range
from pgjax._doors import readable
from pgjax.exact.text.best_of_n import best_of_n_log_probs
from pgjax.exact.text.markov_tasks import MarkovTask
from pgjax.exact.text.soft_optima import soft_optimum
from pgjax.exact.text.table_policies import table_policy_values
from pgjax.exact.text.tilting import entropy, expected, kl_divergence, positive, tilted_log_probs


class Frontier(NamedTuple):
    """A curve of policies; leaves `[K, ...]`.

    Attributes:
        strength: what was varied: β, or the n of best-of-n.
        kl: KL(π ‖ π_ref) in nats.
        proxy: E_π[r̂].
        gold: E_π[r].
        entropy: H(π) in nats.
    """

    strength: jax.Array
    kl: jax.Array
    proxy: jax.Array
    gold: jax.Array
    entropy: jax.Array


@readable
def goodhart_frontier(
    reference_log_probs: jax.Array, proxy: jax.Array, gold: jax.Array, kl_coefs: ArrayLike
) -> Frontier:
    """The frontier over a finite set of answers: π*_β(r̂) for each β.

    Args:
        reference_log_probs: ln π_ref `[..., N]`.
        proxy: r̂ `[..., N]`.
        gold: r `[..., N]`.
        kl_coefs: β > 0, `[K]`.

    Raises:
        ValueError: for a β ≤ 0.

    Source: Gao, Schulman & Hilton 2023 for the curves, which they measure with trained policies.
    """
    return _curve(tilted_log_probs, reference_log_probs, proxy, gold, positive(kl_coefs, proxy))


@readable
def best_of_n_frontier(
    reference_log_probs: jax.Array, proxy: jax.Array, gold: jax.Array, num_draws: ArrayLike
) -> Frontier:
    """The curve of best-of-n by a proxy, for each n ≥ 1 of `num_draws [K]`; other arguments as in `goodhart_frontier`.

    Raises:
        ValueError: for an n below 1.
    """
    require_in_range("num_draws", num_draws, 1, None)
    return _curve(best_of_n_log_probs, reference_log_probs, proxy, gold, jnp.asarray(num_draws))


def _curve(policy_of, reference: jax.Array, proxy: jax.Array, gold: jax.Array, strengths: jax.Array) -> Frontier:
    def at(strength: jax.Array) -> Frontier:
        log_probs = policy_of(reference, proxy, strength)
        return Frontier(
            strength=strength,
            kl=kl_divergence(log_probs, reference),
            proxy=expected(log_probs, proxy),
            gold=expected(log_probs, gold),
            entropy=entropy(log_probs),
        )

    return jax.lax.map(at, strengths)


@readable
def long_frontier(proxy: MarkovTask, gold: MarkovTask, kl_coefs: ArrayLike) -> Frontier:
    """The frontier over long answers, by dynamic programming.

    Args:
        proxy: the task with the proxy as its score.
        gold: the same task with the true score. Both automata have the same states (`automata.aligned`).
        kl_coefs: β > 0, `[K]`.

    Raises:
        ValueError: if the automata have different states, or for a β ≤ 0.
    """
    tables = [(task.score.next, task.score.start) for task in (proxy, gold)]
    same = jax.tree.map(jnp.shape, tables[0]) == jax.tree.map(jnp.shape, tables[1])
    if same and not any(map(is_traced, jax.tree.leaves(tables))):
        same = all(np.array_equal(one, other) for one, other in zip(*tables))
    if not same:
        raise ValueError(
            f"proxy and gold must have the same states, got tables of {proxy.score.next.shape} and "
            f"{gold.score.next.shape}: use automata.aligned"
        )

    def at(beta: jax.Array) -> Frontier:
        best = soft_optimum(proxy, beta)
        return Frontier(
            strength=beta,
            kl=best.kl,
            proxy=best.expected_reward,
            gold=table_policy_values(gold, best).expected_reward,
            entropy=best.entropy,
        )

    return jax.lax.map(at, positive(kl_coefs, proxy.reference.log_probs))
