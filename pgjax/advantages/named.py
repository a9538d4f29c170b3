"""The advantages that papers name, for scores `[B]` or rewards `[B, T]`. Axes: B episodes, T steps, k of a group."""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from pgjax import returns as return_functions
from pgjax._checks import require_integer, require_one_of
from pgjax.advantages._arrays import as_floats, as_mask, live_first
from pgjax.advantages.groups import group_statistics, leave_one_out, require_members, standardise_groups
from pgjax.advantages.steps import reward_to_go, standardise

Compared = Literal["total_return", "reward_to_go"]
GroupBaseline = Literal["none", "group_mean"]


def _compare(
    relative: Callable[[jax.Array, jax.Array], jax.Array], rewards: jax.Array, mask: jax.Array | None, returns: Compared
) -> jax.Array:
    """`relative(returns, mask)`, a comparison along axis 0, for what the rewards add up to; shaped like the rewards."""
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


def rloo(
    rewards: jax.Array,
    mask: jax.Array | None = None,
    *,
    returns: Compared = "total_return",
    group_size: int | None = None,
    group_ids: jax.Array | None = None,
    num_groups: int | None = None,
) -> jax.Array:
    """REINFORCE, leave one out: the baseline of an episode is the mean of the others of its group.

    A_i = G_i − (1/(k − 1)) Σ_{j≠i} G_j = k/(k − 1) (G_i − m),    m = (1/k) Σ_j G_j

    Unbiased: E[(1/B) Σ_i Σ_t A_i ∇ ln f_t^i] = ∇ρ(θ) exactly, for every k ≥ 2 (`aggregate` with `"sum"`). Equal returns
    give exactly 0. An episode that is alone in its group keeps A = G, which is unbiased too.

    *Where a KL penalty goes.* Subtracted from the rewards it is part of G and of the baseline, as in the paper and TRL.
    OpenRLHF compares the scores alone, and adds the penalties still to come: `rloo(scores, group_size=k)[:, None] −
    reward_to_go(penalties, mask)`. The expected gradient is the same, the variance is not.

    Args:
        rewards: `[B]`, the score of each episode; or R_{t+1} `[B, T]`, in units of reward.
        mask: bool of the shape of the rewards, what counts; all if None. A reward outside it does not count, so the
            step that holds the score has to be inside.
        returns: what `[B, T]` is compared by. `"total_return"`: G_i = Σ_t R_{t+1}, one advantage for all steps of an
            episode. `"reward_to_go"`: G_t of the n-th step, with the others' at their n-th step (0 after their last);
            unbiased where no reward depends on later steps.
        group_size: k ≥ 2 consecutive rows are a group; the whole batch if neither this nor `group_ids` is given.
        group_ids: the group of each row, int `[B]`, in 0 … N − 1.
        num_groups: N, known when the function is compiled; needed with `group_ids`.

    Returns:
        A in the shape of the rewards, in units of reward; 0 outside the mask.

    Raises:
        ValueError: for a wrong type (integers are refused) or shape, an unknown word, a group size below 2 or one that
            does not divide B, or `group_ids` without `num_groups` or outside 0 … N − 1.

    Source: Kool, van Hoof & Welling 2019; Ahmadian et al. 2024.
    """
    groups = {"group_size": group_size, "group_ids": group_ids, "num_groups": num_groups}
    return _compare(lambda g, counts: leave_one_out(g, counts, **groups), rewards, mask, returns)


def dr_grpo(
    rewards: jax.Array,
    mask: jax.Array | None = None,
    *,
    returns: Compared = "total_return",
    group_size: int | None = None,
    group_ids: jax.Array | None = None,
    num_groups: int | None = None,
) -> jax.Array:
    """GRPO done right: the return minus the mean of its group, which contains it.

    A_i = G_i − m,    m = (1/k) Σ_j G_j

    Biased by a factor alone: the expected gradient is exactly (k − 1)/k of ∇ρ(θ), because m contains G_i. A learning
    rate absorbs the factor where all groups have one size; `rloo` has no such factor, and the paper's Appendix A says
    that the two differ by k/(k − 1). The paper also drops the 1/|o_i| of the loss: `aggregate` with `"sum"`.

    Args:
        rewards, mask, returns, group_size, group_ids, num_groups: as in `rloo`.

    Returns:
        A in the shape of the rewards, in units of reward; 0 outside the mask.

    Raises:
        ValueError: as `rloo`.

    Source: Liu et al. 2025, Understanding R1-Zero-like training, section 3.2.
    """
    groups = {"group_size": group_size, "group_ids": group_ids, "num_groups": num_groups}

    def centred(g: jax.Array, counts: jax.Array) -> jax.Array:
        require_members(2, g.shape[0], group_size, group_ids)
        return group_statistics(g, counts, **groups).deviations

    return _compare(centred, rewards, mask, returns)


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
    """Group-relative advantages: the return standardised within its group.

    A_i = (G_i − m) / s,    m = (1/k) Σ_j G_j,    s² = (1/(k − ddof)) Σ_j (G_j − m)²

    Biased: the factor 1/s differs from prompt to prompt, and depends on G_i. With a reward of 1 of probability p, and 0
    otherwise, the expected gradient is c ∇p. For ddof = 0, c = 1 exactly at k = 2, and c → 1/√(p(1 − p)) for k → ∞:
    prompts that are nearly always or nearly never answered right get more weight. ddof = 1 gives √((k − 1)/k) of it.

    A shift of the rewards or a positive factor changes nothing. A group of equal returns gives exactly 0. No ε is added
    to s (OpenRLHF adds 1e-9, verl 1e-6, TRL 1e-4): it would turn rounding into advantages, and shrink those of small
    rewards.

    *The factor 1/|o_i| of GRPO is in its loss*, not here: `aggregate` with `"episode_mean"`. This is the outcome
    supervision of the paper; its process supervision (section 4.1.3) standardises single steps and is another rule.

    Args:
        rewards, mask, returns, group_size, group_ids, num_groups: as in `rloo`.
        ddof: 0 for the divisor k of s², 1 for k − 1 (as verl and OpenRLHF have it). The paper writes std and does not
            say which.

    Returns:
        A in the shape of the rewards, without a unit; 0 outside the mask.

    Raises:
        ValueError: as `rloo`, and for a ddof other than 0 and 1.

    Source: Shao et al. 2024, DeepSeekMath, section 4.1.2 (outcome supervision).
    """
    groups = {"group_size": group_size, "group_ids": group_ids, "num_groups": num_groups, "ddof": ddof}
    return _compare(lambda g, counts: standardise_groups(g, counts, **groups), rewards, mask, returns)


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
    """REINFORCE++: standardised over all steps of the batch that count, not within groups.

    `"none"`: A'_t = G_t = Σ_{l≥t} R_{l+1} (eq. 4)    `"group_mean"`: A'_t = G_1 − (1/k) Σ_j G_1^j (eq. 6)

    A_t = (A'_t − m) / s over the batch's steps (eqs. 5 and 7)

    The rewards of `"none"` are −β ln(f/f_ref) at each token, and the score on top at the last one. In the paper
    `"group_mean"` has scores alone, and the KL is another term of the loss (eq. 8).

    Biased: m and s contain the episode's return, and s is random. What remains in a large batch is a factor: 1/s, and
    (k − 1)/k where the group's mean is subtracted first. m gives an episode the weight of its length. For episodes of
    one step, `"none"` is `grpo` with the whole batch as one group.

    *Where implementations differ.* OpenRLHF has ddof = 0 and s² at least 1e-8. Its variant with the group's mean first
    subtracts the mean of the scores, and then takes the reward-to-go with the penalties: this is `"none"` here, with
    `dr_grpo(scores, group_size=k)` as the scores. verl has ddof = 1 and adds 1e-8 to s²; a group of one keeps its
    score; and with `"none"` nothing flows back over a gap in the mask, where it does here. With a discount, call
    `standardise(reward_to_go(rewards, mask, discount=γ), mask)`.

    Args:
        rewards: R_{t+1} `[B, T]`; or `[B]`, the scores, of which each then counts once, whatever its length.
        mask: bool of the shape of the rewards, what counts; all if None.
        baseline: `"none"`, or `"group_mean"` (the variant "with baseline").
        group_size, group_ids, num_groups: as in `rloo`; for `"group_mean"` only.
        ddof: 0 for the divisor n of s², 1 for n − 1, n the number of steps in the batch that count.

    Returns:
        A in the shape of the rewards, without a unit; 0 outside the mask, and exactly 0 everywhere if all A' are equal.

    Raises:
        ValueError: as `rloo`, for groups with `"none"`, and for a ddof other than 0 and 1.

    Source: Hu, Liu, Xu & Shen 2025, arXiv:2501.03262v9, eqs. 4 to 8.
    """
    require_one_of("baseline", baseline, get_args(GroupBaseline))
    require_integer("ddof", ddof, 0, 1)
    rewards = as_floats("rewards", rewards, (1, 2))
    mask = as_mask(mask, rewards.shape)
    groups = {"group_size": group_size, "group_ids": group_ids, "num_groups": num_groups}
    if baseline == "group_mean":
        return standardise(dr_grpo(rewards, mask, **groups), mask, ddof=ddof)
    if any(value is not None for value in groups.values()):
        raise ValueError(f"baseline must be 'group_mean' where groups are given, got {baseline!r}")
    return standardise(rewards if rewards.ndim == 1 else reward_to_go(rewards, mask), mask, ddof=ddof)
