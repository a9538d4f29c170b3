"""A language model as a table: the probabilities of the next token depend on the last k tokens.

Axes: C contexts, V tokens.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pgjax._checks import require_integer
from pgjax._doors import readable
from pgjax._records import PyTree, one_line
from pgjax.exact.mdp.enumeration import refuse_beyond


class MarkovModel(NamedTuple):
    """A language model with finitely many contexts; all leaves may be vmapped.

    Attributes:
        start: int32 `[]`, the context before the first token.
        next: int32 `[C, V]`, the context after token a in context c.
        log_probs: ln π(a | c), float `[C, V]`; −∞ for tokens that are never written.
    """

    start: PyTree
    next: PyTree
    log_probs: PyTree

    def __repr__(self) -> str:
        return one_line(self)


@readable
def fit_markov_model(
    documents: Iterable[Sequence[int]],
    vocabulary: int,
    *,
    order: int = 1,
    smoothing: float = 1.0,
    eos: int | None = None,
    allowed: ArrayLike | None = None,
    limit: int = 100_000,
) -> MarkovModel:
    """The model of the last k tokens from the counts of a text, smoothed towards shorter contexts.

        π_k(a | c) = (n(c, a) + λ π_{k−1}(a | c without its first token)) / (n(c) + λ),   π_{−1} uniform

    The contexts are those that occur in the text. A longer context that does not occur has the same probabilities as
    its longest end that does, so the table loses nothing. The beginning of a document is a context of its own.

    Args:
        documents: strings of tokens.
        vocabulary: V.
        order: k ≥ 0, the number of tokens that the next one depends on.
        smoothing: λ > 0.
        eos: the token that is appended to each document; None if documents do not end.
        allowed: bool `[V]`, the tokens that may be written; all if None. The others have probability 0.
        limit: the greatest number of contexts.

    Raises:
        ValueError: for a number out of range, no document, a token that is not allowed, or more than `limit` contexts.

    Source: MacKay & Peto 1995, the hierarchical Dirichlet language model, with a fixed λ.

    Example: 1 follows 0 in both places, and the model without a context gives it (2 + 1/2) / (4 + 1) = 1/2.

        >>> import numpy as np
        >>> from pgjax import exact
        >>> model = exact.fit_markov_model([[0, 1, 0, 1]], vocabulary=2)
        >>> after_zero = exact.after_tokens(model, [0]).start
        >>> round(float(np.exp(model.log_probs[after_zero, 1])), 4)  # (2 + 1/2) / (2 + 1)
        0.8333
    """
    require_integer("order", order, 0, 1024)
    if not smoothing > 0:
        raise ValueError(f"smoothing must be above 0, got {smoothing}")
    base = np.ones(vocabulary, bool) if allowed is None else np.asarray(allowed, bool)
    if base.shape != (vocabulary,) or not base.any():
        raise ValueError(f"allowed must be bool [{vocabulary}] with at least one true entry, got shape {base.shape}")
    counts = _count(documents, order, eos, np.flatnonzero(base))
    contexts = sorted({context for context, _ in counts}, key=lambda context: (len(context), context))
    refuse_beyond(limit, len(contexts), f"contexts of {order} tokens")
    numbers = {context: number for number, context in enumerate(contexts)}
    seen = np.zeros((len(contexts), vocabulary))
    for (context, token), times in counts.items():
        seen[numbers[context], token] = times
    probabilities = np.zeros_like(seen)
    for number, context in enumerate(contexts):
        shorter = probabilities[numbers[context[1:]]] if context else base / base.sum()
        probabilities[number] = (seen[number] + smoothing * shorter) / (seen[number].sum() + smoothing)

    def longest_known(tokens: tuple[int, ...]) -> int:
        ends = (tokens[len(tokens) - k :] for k in range(min(order, len(tokens)), -1, -1))
        return next(numbers[end] for end in ends if end in numbers)

    after = [[longest_known((*context, token)) for token in range(vocabulary)] for context in contexts]
    with np.errstate(divide="ignore"):
        log_probs = np.log(probabilities)
    start = longest_known((_BEGIN,))
    return MarkovModel(start=np.int32(start), next=np.array(after, np.int32), log_probs=jnp.asarray(log_probs, float))


# The place before the first token of a document, in contexts.
_BEGIN = -1


def _count(documents: Iterable[Sequence[int]], order: int, eos: int | None, allowed: np.ndarray) -> Counter:
    """How often each token follows each context of at most `order` tokens: `{(context, token): times}`."""
    counts, written = Counter(), set(allowed.tolist())
    end = [] if eos is None else [int(eos)]
    for document in documents:
        tokens = [_BEGIN, *np.asarray(document, int).tolist(), *end]
        wrong = set(tokens[1:]) - written
        if wrong:
            raise ValueError(f"documents must hold tokens that are allowed, got {min(wrong)}")
        for size in range(order + 1):
            followed = tokens[max(size, 1) :]
            before = zip(*(tokens[k : k + len(followed)] for k in range(size))) if size else [()] * len(followed)
            counts.update(zip(before, followed))
    if not counts:
        raise ValueError("documents must hold at least one token, got none")
    return counts


@readable
def after_tokens(model: MarkovModel, tokens: ArrayLike) -> MarkovModel:
    """The same model with the context behind a prompt `[P]` as its start."""
    read = lambda context, token: (jnp.asarray(model.next)[context, token], None)
    context, _ = jax.lax.scan(read, jnp.asarray(model.start, jnp.int32), jnp.asarray(tokens).astype(jnp.int32))
    return model._replace(start=context)
