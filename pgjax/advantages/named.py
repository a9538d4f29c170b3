"""The advantages of papers, for scores `[B]` or rewards `[B, T]`. Axes: B episodes, T steps, k episodes of a group."""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from pgjax import returns as return_functions
from pgjax._checks import require_integer, require_one_of
from pgjax._doors import readable
from pgjax.advantages._arrays import as_floats, as_mask, live_first
from pgjax.advantages.groups import group_statistics, leave_one_out, require_members, standardise_groups
from pgjax.advantages.steps import reward_to_go, standardise

Compared = Literal["total_return", "reward_to_go"]
GroupBaseline = Literal["none", "group_mean"]


def _compare(
    relative: Callable[[jax.Array, jax.Array], jax.Array], rewards: jax.Array, mask: jax.Array | None, returns: Compared
) -> jax.Array:
    """`relative(returns, mask)`, a comparison along axis 0, for the returns of the rewards; of the rewards' shape."""
    require_one_of("returns", returns, get_args(Compared))
    rewards = as_floats("rewards", rewards, (1, 2))
    mask = as_mask(mask, rewards.shape)
    if rewards.ndim == 1:
        return relative(rewards, mask)
    present = jnp.any(mask, axis=1)
    if returns == "total_return":
        totals = jnp.sum(jnp.where(mask, rewards, 0.0), axis=1)
        return jnp.where(mask, relative(totals, present)[:, None], 0.0)
    rows = live_first(mask)
    to_go = jax.vmap(return_functions.reward_to_go)(rows.pack(rewards))
    return rows.unpack(relative(to_go, jnp.broadcast_to(present[:, None], mask.shape)))


@readable
def rloo(
    rewards: jax.Array,
    mask: jax.Array | None = None,
    *,
    returns: Compared = "total_return",
    group_size: int | None = None,
    group_ids: jax.Array | None = None,
    num_groups: int | None = None,
) -> jax.Array:
    """RLOO (REINFORCE leave-one-out): the baseline of an episode is the mean of the other episodes of its group.

    A_i = G_i − (1/(k − 1)) Σ_{j≠i} G_j = k/(k − 1) (G_i − m),    m = (1/k) Σ_j G_j

    It is unbiased: E[(1/B) Σ_i Σ_t A_i ∇ ln f_t^i] = ∇ρ(θ) exactly, for every k ≥ 2 (`aggregate` with `"sum"`). Equal
    returns give exactly 0. An episode that is alone in its group keeps A = G, which is unbiased too.

    *Where a KL penalty goes.* If you subtract it from the rewards, it is part of G and of the baseline, as in the paper
    and in TRL. OpenRLHF compares the scores only and then subtracts the penalties from each step on:
    `rloo(scores, group_size=k)[:, None] − reward_to_go(penalties, mask)`. Both have the same expected gradient, but
    different variances.

    Args:
        rewards: `[B]`, the score of each episode; or R_{t+1} `[B, T]`, in units of reward.
        mask: bool of the shape of the rewards, true for the entries that count; all count if None. A reward outside the
            mask is ignored, so the step that holds the score must be inside.
        returns: the return by which rewards `[B, T]` are compared. `"total_return"`: G_i = Σ_t R_{t+1}, one advantage
            for all steps of an episode. `"reward_to_go"`: the G_t of the n-th step is compared with those of the other
            episodes at their n-th step (0 after their last step); unbiased if no reward depends on later steps.
        group_size: k ≥ 2, the number of consecutive rows in a group. If neither this nor `group_ids` is given, the
            whole batch is one group.
        group_ids: the group of each row, int `[B]`, in 0 … N − 1.
        num_groups: N, a number that is known when the function is compiled; needed with `group_ids`.

    Returns:
        A in the shape of the rewards, in units of reward; 0 outside the mask.

    Raises:
        ValueError: if a type (integers are refused) or shape is wrong, a word is unknown, the group size is below 2 or
            does not divide B, `group_ids` comes without `num_groups`, or an id lies outside 0 … N − 1.

    Source: Kool, van Hoof & Welling 2019; Ahmadian et al. 2024.

    Example: two prompts with two answers each.

        >>> import jax.numpy as jnp
        >>> from pgjax import advantages
        >>> print(advantages.rloo(jnp.array([1.0, 0.0, 1.0, 1.0]), group_size=2))
        [ 1. -1.  0.  0.]
    """
    groups = {"group_size": group_size, "group_ids": group_ids, "num_groups": num_groups}
    return _compare(lambda g, counts: leave_one_out(g, counts, **groups), rewards, mask, returns)


@readable
def dr_grpo(
    rewards: jax.Array,
    mask: jax.Array | None = None,
    *,
    returns: Compared = "total_return",
    group_size: int | None = None,
    group_ids: jax.Array | None = None,
    num_groups: int | None = None,
) -> jax.Array:
    """Dr. GRPO (GRPO done right): the return minus the mean of its group, which contains the return itself.

    A_i = G_i − m,    m = (1/k) Σ_j G_j

    Because m contains G_i, the expected gradient is exactly (k − 1)/k times ∇ρ(θ). If all groups have the same size, a
    larger learning rate compensates for this factor. `rloo` has no such factor; Appendix A of the paper says that the
    two differ by k/(k − 1). The paper also drops the 1/|o_i| of the loss: `aggregate` with `"sum"`.

    Args:
        rewards, mask, returns, group_size, group_ids, num_groups: as in `rloo`.

    Returns:
        A in the shape of the rewards, in units of reward; 0 outside the mask.

    Raises:
        ValueError: as in `rloo`.

    Source: Liu et al. 2025, Understanding R1-Zero-like training, section 3.2.

    Example: two prompts with two answers each.

        >>> import jax.numpy as jnp
        >>> from pgjax import advantages
        >>> print(advantages.dr_grpo(jnp.array([1.0, 0.0, 1.0, 1.0]), group_size=2))
        [ 0.5 -0.5  0.   0. ]
    """
    groups = {"group_size": group_size, "group_ids": group_ids, "num_groups": num_groups}

    def centred(g: jax.Array, counts: jax.Array) -> jax.Array:
        require_members(2, g.shape[0], group_size, group_ids)
        return group_statistics(g, counts, **groups).deviations

    return _compare(centred, rewards, mask, returns)


@readable
def grpo(
    rewards: jax.Array,
    mask: jax.Array | None = None,
    *,
    returns: Compared = "total_return",
    group_size: int | None = None,
    group_ids: jax.Array | None = None,
    num_groups: int | None = None,
    ddof: int = 0,
) -> jax.Array:
    """GRPO (group-relative policy optimisation): the return standardised within its group.

    A_i = (G_i − m) / s,    m = (1/k) Σ_j G_j,    s² = (1/(k − ddof)) Σ_j (G_j − m)²

    It is biased, because the factor 1/s differs between prompts and depends on G_i. If the reward is 1 with probability
    p and 0 otherwise, the expected gradient is c ∇p. For ddof = 0, c = 1 exactly at k = 2, and c → 1/√(p(1 − p)) for
    k → ∞: prompts whose answers are nearly always or nearly never right get more weight. ddof = 1 gives √((k − 1)/k)
    times this c.

    If you add a number to all rewards or multiply them by a positive number, nothing changes. A group of equal returns
    gives exactly 0. No ε is added to s (OpenRLHF adds 1e-9, verl 1e-6, TRL 1e-4), because it would turn rounding errors
    into advantages and shrink the advantages of small rewards.

    *The factor 1/|o_i| of GRPO belongs to its loss*: `aggregate` with `"episode_mean"`. The function is the outcome
    supervision of the paper. Its process supervision (section 4.1.3) standardises single steps and is a different rule.

    Args:
        rewards, mask, returns, group_size, group_ids, num_groups: as in `rloo`.
        ddof: 0 for the divisor k of s², 1 for k − 1 (as in verl and OpenRLHF). The paper writes std and does not say
            which divisor it uses.

    Returns:
        A in the shape of the rewards, without a unit; 0 outside the mask.

    Raises:
        ValueError: as in `rloo`, and for a ddof other than 0 and 1.

    Source: Shao et al. 2024, DeepSeekMath, section 4.1.2 (outcome supervision).

    Example: two prompts with two answers each.

        >>> import jax.numpy as jnp
        >>> from pgjax import advantages
        >>> print(advantages.grpo(jnp.array([1.0, 0.0, 1.0, 1.0]), group_size=2))
        [ 1. -1.  0.  0.]
    """
    groups = {"group_size": group_size, "group_ids": group_ids, "num_groups": num_groups, "ddof": ddof}
    return _compare(lambda g, counts: standardise_groups(g, counts, **groups), rewards, mask, returns)


@readable
def reinforce_plus_plus(
    rewards: jax.Array,
    mask: jax.Array | None = None,
    *,
    baseline: GroupBaseline = "none",
    group_size: int | None = None,
    group_ids: jax.Array | None = None,
    num_groups: int | None = None,
    ddof: int = 0,
) -> jax.Array:
    """REINFORCE++: advantages standardised over all steps of the batch that count, not within groups.

    `"none"`: A'_t = G_t = Σ_{l≥t} R_{l+1} (eq. 4)    `"group_mean"`: A'_t = G_1 − (1/k) Σ_j G_1^j (eq. 6)

    A_t = (A'_t − m) / s over the batch's steps (eqs. 5 and 7)

    With `"none"` the paper's rewards are −β ln(f/f_ref) at each token, and at the last token the score is added. With
    `"group_mean"` they are the scores alone, and the KL is a separate term of the loss (eq. 8).

    It is biased, because m and s contain the episode's own return and s is random. In a large batch a factor remains:
    1/s, and also (k − 1)/k if the group mean is subtracted. In the mean m each episode has the weight of its length.
    For episodes of one step, `"none"` equals `grpo` with the whole batch as one group.

    *Where implementations differ.* OpenRLHF uses ddof = 0 and s² of at least 1e-8. Its variant with a group mean first
    subtracts the mean of the scores and then computes the reward-to-go with the penalties. Here that is `"none"` with
    `dr_grpo(scores, group_size=k)` as the scores. verl uses ddof = 1 and adds 1e-8 to s²; a group of one keeps its
    score; with `"none"`, rewards after a gap in the mask do not count for the steps before the gap, but here they do.
    For a discount γ, call `standardise(reward_to_go(rewards, mask, discount=γ), mask)`.

    Args:
        rewards: R_{t+1} `[B, T]`; or the scores `[B]`, each of which then counts once, whatever the episode's length.
        mask: bool of the shape of the rewards, true for the entries that count; all count if None.
        baseline: `"none"`, or `"group_mean"` (the variant "with baseline").
        group_size, group_ids, num_groups: as in `rloo`; for `"group_mean"` only.
        ddof: 0 for the divisor n of s², 1 for n − 1, where n is the number of steps in the batch that count.

    Returns:
        A in the shape of the rewards, without a unit; 0 outside the mask, and exactly 0 everywhere if all A' are equal.

    Raises:
        ValueError: as in `rloo`, for groups with `"none"`, and for a ddof other than 0 and 1.

    Source: Hu, Liu, Xu & Shen 2025, arXiv:2501.03262v9, eqs. 4 to 8.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax import advantages
        >>> print(advantages.reinforce_plus_plus(jnp.array([[0.0, 4.0], [0.0, 2.0]])))
        [[ 1.  1.]
         [-1. -1.]]
    """
    require_one_of("baseline", baseline, get_args(GroupBaseline))
    require_integer("ddof", ddof, 0, 1)
    rewards = as_floats("rewards", rewards, (1, 2))
    mask = as_mask(mask, rewards.shape)
    groups = {"group_size": group_size, "group_ids": group_ids, "num_groups": num_groups}
    if baseline == "group_mean":
        return standardise(dr_grpo(rewards, mask, **groups), mask, ddof=ddof)
    if any(value is not None for value in groups.values()):
        raise ValueError(f"baseline must be 'group_mean' if groups are given, got {baseline!r}")
    return standardise(rewards if rewards.ndim == 1 else reward_to_go(rewards, mask), mask, ddof=ddof)
