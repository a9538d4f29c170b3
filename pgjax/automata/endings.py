"""The rule for an answer that reaches the length limit without EOS, shared by the environment and the exact oracle."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pgjax._checks import require_in_range, require_one_of
from pgjax._doors import readable
from pgjax.automata.automaton import Automaton

MissingEos = Literal["keep", "subtract", "replace"]


@readable
def at_the_limit(score: jax.Array, ended: jax.Array, missing_eos: MissingEos, value: ArrayLike) -> jax.Array:
    """The score that is paid: an answer that ended with EOS keeps its score, and the rule changes the others.

    Args:
        score: float `[...]`.
        ended: bool `[...]`, whether the answer ends with EOS.
        missing_eos: `"keep"` keeps the score, `"subtract"` subtracts `value` from it, `"replace"` puts `value` in its
            place.
        value: a number.
    """
    if missing_eos == "keep":
        return score
    other = score - value if missing_eos == "subtract" else jnp.full_like(score, value)
    return jnp.where(ended, score, other)


@readable
def require_missing_eos(eos: int | None, missing_eos: MissingEos, value: float) -> None:
    """Require a known rule, and an EOS if the rule changes a score.

    Raises:
        ValueError: for an unknown rule, a value that is not a number, or a rule for a missing EOS without an EOS.
    """
    require_one_of("missing_eos", missing_eos, get_args(MissingEos))
    require_in_range("missing_eos_value", value, None, None)
    if eos is None and missing_eos != "keep":
        raise ValueError(f"missing_eos must be 'keep' if eos is None, got {missing_eos!r}")


@readable
def require_reads(name: str, automaton: Automaton, vocabulary: int) -> None:
    """Require an automaton over V tokens.

    Raises:
        ValueError: if it reads another number of tokens.
    """
    found = np.shape(automaton.next)[-1]
    if found != vocabulary:
        raise ValueError(f"{name} must read a vocabulary of {vocabulary} tokens, got {found}")
