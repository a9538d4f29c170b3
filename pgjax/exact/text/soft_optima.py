"""The policy of the greatest ρ(π) = E_π[score] − β KL(π ‖ π_ref) over long answers.

    ln Z_t(c, q) = ln Σ_a π_ref(a | c) exp(r_t(q, a) / β + ln Z_{t+1}(c', q')),    π*(a | c, q, t) ∝ its summands

This is the soft Bellman equation; c' and q' are the context and the state after token a. It costs T C S V operations,
while a sum over answers has V^T terms. Axes: T places, C contexts, S states, V tokens.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax._doors import readable
from pgjax.exact.text.markov_tasks import MarkovTask, last_place
from pgjax.exact.text.table_policies import SoftOptimum, summands, table_policy_values
from pgjax.exact.text.tilting import positive


@readable
def soft_optimum(task: MarkovTask, kl_coef: ArrayLike) -> SoftOptimum:
    """π* of ρ(π) = E_π[score] − β KL(π ‖ π_ref), with ln Z, ρ(π*), E[score], KL and entropy; may be vmapped over β.

    Args:
        task: the reference, the score and the rules.
        kl_coef: β > 0, in units of score per nat.

    Raises:
        ValueError: for β ≤ 0.

    Source: Todorov 2006 and Kappen 2005, linearly solvable control; Ziegler et al. 2019, eq. 2 for ρ.

    Example: two tokens of equal probability, one of which is paid 1; ln Z = T ln((1 + e) / 2) for β = 1.

        >>> import numpy as np
        >>> from pgjax import automata, exact
        >>> coin = exact.MarkovModel(start=0, next=np.zeros((1, 2), int), log_probs=np.log(np.full((1, 2), 0.5)))
        >>> task = exact.make_markov_task(coin, automata.count([1], 2), max_new_tokens=64)
        >>> best = exact.soft_optimum(task, 1.0)
        >>> round(float(best.objective), 2), round(float(best.expected_reward), 2)  # 64 / (1 + 1/e) = 46.79
        (39.69, 46.79)
    """
    beta = positive(kl_coef, task.reference.log_probs)

    def one_step_back(following: jax.Array, last: jax.Array) -> tuple[jax.Array, jax.Array]:
        here = jax.nn.logsumexp(summands(task, beta, following, last), axis=-1)
        return here, here

    end = jnp.zeros((task.reference.next.shape[0], task.score.next.shape[0]), task.reference.log_probs.dtype)
    _, rows = jax.lax.scan(one_step_back, end, last_place(task), reverse=True)
    nothing = jnp.zeros((), end.dtype)
    optimum = SoftOptimum(
        task=task,
        kl_coef=beta,
        log_partitions=jnp.concatenate([rows, end[None]]),
        objective=beta * rows[0, task.reference.start, task.score.start],
        expected_reward=nothing,
        kl=nothing,
        entropy=nothing,
    )
    values = table_policy_values(task, optimum)
    return optimum._replace(expected_reward=values.expected_reward, kl=values.kl, entropy=values.entropy)
