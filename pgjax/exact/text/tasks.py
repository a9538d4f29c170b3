"""A small text task as a `TabularMDP`, so that every exact function and every estimator works on it unchanged.

Axes: Q prompts, M prefixes, N answers, S = Q (M + N) states, V tokens, T tokens of the longest answer.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pgjax._doors import readable
from pgjax.exact.mdp.tabular import TabularMDP, make_tabular_mdp
from pgjax.exact.text.answers import Answers, Observe


@readable
def text_mdp(
    answers: Answers, observe: Observe | Sequence[Observe], rewards: ArrayLike, *, name: str = "text"
) -> TabularMDP:
    """The task of answering one of Q prompts, drawn uniformly, as an MDP with one state for each prefix and answer.

    A step writes a token. The reward is 0 until the answer ends, and then r(answer). The states of prompt q are its M
    prefixes and then its N answers, which are terminal, in the order of `answers`; they begin at q (M + N). The
    mean and the covariance of any estimate from groups of k answers to one prompt follow with
    `exact.enumerate_trajectories` and `exact.estimator_moments(..., group_size=k)`.

    Args:
        answers: all answers; every token must be allowed.
        observe: the observation of a prefix or an answer, as in `prefix_log_probs`; a list of Q functions for Q
            prompts.
        rewards: r of every answer, `[N]`, the same for all prompts, or `[Q, N]`.
        name: the name of the problem.

    Raises:
        ValueError: if a token is not allowed, or the rewards have a wrong shape.

    Example: two tokens, sequences of length two, one point for each token 1; the policy sees the place alone.

        >>> import jax.numpy as jnp
        >>> from pgjax import exact
        >>> answers = exact.enumerate_answers(2, 2)
        >>> mdp = exact.text_mdp(answers, lambda tokens, length: length, answers.tokens.sum(1))
        >>> logits_of = lambda params, length: params
        >>> float(exact.objective(logits_of, jnp.zeros(2), mdp))
        1.0
    """
    if len(answers.allowed) != answers.vocabulary:
        raise ValueError(
            f"every token must be allowed in a text_mdp, got {len(answers.allowed)} of {answers.vocabulary} tokens: "
            "make a smaller vocabulary"
        )
    prompts = [observe] if callable(observe) else list(observe)
    rewards = np.asarray(rewards, float)
    if rewards.shape not in ((answers.num_answers,), (len(prompts), answers.num_answers)):
        raise ValueError(
            f"rewards must have shape ({answers.num_answers},) or ({len(prompts)}, {answers.num_answers}), "
            f"got {rewards.shape}"
        )
    rewards = np.broadcast_to(rewards, (len(prompts), answers.num_answers))
    of_prefixes, size = _successors(answers), answers.num_prefixes + answers.num_answers
    own = np.broadcast_to(np.arange(answers.num_prefixes, size)[:, None], (answers.num_answers, answers.vocabulary))
    successors = np.concatenate([of_prefixes, own])
    paid = np.concatenate([np.zeros((len(prompts), answers.num_prefixes)), rewards], axis=1)[:, successors]
    terminal = np.arange(size) >= answers.num_prefixes
    paid = np.where(terminal[:, None], 0.0, paid)
    begins = size * np.arange(len(prompts))
    tokens = jnp.concatenate([answers.prefixes, answers.tokens])
    lengths = jnp.concatenate([answers.prefix_lengths, answers.lengths])
    seen = [jax.vmap(see)(tokens, lengths) for see in prompts]
    initial = np.zeros(len(prompts) * size)
    initial[begins] = 1.0 / len(prompts)
    return make_tabular_mdp(
        initial=initial,
        successors=(begins[:, None, None] + successors).reshape(-1, answers.vocabulary, 1),
        probabilities=np.ones((initial.size, answers.vocabulary, 1)),
        rewards=paid.reshape(-1, answers.vocabulary, 1),
        terminal=np.tile(terminal, len(prompts)),
        observations=jax.tree.map(lambda *rows: jnp.concatenate(rows), *seen),
        horizon=answers.max_new_tokens,
        name=name,
    )


def _successors(answers: Answers) -> np.ndarray:
    """The state after each token in each prefix, `[M, V]`: a prefix, or M plus the number of an answer."""
    lengths = np.asarray(answers.prefix_lengths)
    others, fan = answers.continuing, len(answers.continuing)
    ended = answers.num_prefixes if answers.may_end else 0
    first = np.searchsorted(lengths, np.arange(answers.max_new_tokens))
    rank = np.arange(answers.num_prefixes) - first[lengths]
    # A prefix of the last length leads to an answer without EOS; these stand behind all answers that end with it.
    following = np.append(first[1:], answers.num_prefixes + ended)[lengths]
    successors = np.zeros((answers.num_prefixes, answers.vocabulary), int)
    successors[:, others] = (following + rank * fan)[:, None] + np.arange(fan)
    if answers.may_end:
        successors[:, answers.eos] = answers.num_prefixes + np.arange(answers.num_prefixes)
    return successors
