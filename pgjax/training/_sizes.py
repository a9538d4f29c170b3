"""Checks that the sizes of an update fit together: episodes, groups, parts and steps of the optimiser."""

import jax

from pgjax._checks import require_integer
from pgjax.distributions import categorical
from pgjax.spaces import Discrete
from pgjax.types import Environment, Estimator, Policy, PyTree


def checked_sizes(
    estimator: Estimator,
    num_episodes: int,
    num_steps: int | None,
    group_size: int | None,
    microbatches: int,
    epochs: int,
) -> int:
    """Check that all sizes fit together, and return the group size to collect with."""
    require_integer("num_episodes", num_episodes, 1, None)
    require_integer("microbatches", microbatches, 1, num_episodes)
    require_integer("epochs", epochs, 1, None)
    needs = estimator.needs
    if epochs > 1 and microbatches > 1:
        raise ValueError(f"epochs must be 1 with microbatches={microbatches}, which keep no batch, got {epochs}")
    if epochs > 1 and needs.scores != "none":
        raise ValueError(f"epochs must be 1 with a baseline that needs scores, which are those of θ_old, got {epochs}")
    if num_episodes % microbatches:
        raise ValueError(f"microbatches must divide num_episodes={num_episodes}, got {microbatches}")
    wanted = needs.group_size or 1
    if num_steps is not None:
        require_integer("num_steps", num_steps, 1, None)
        if microbatches != 1:
            raise ValueError(f"microbatches must be 1 with continuing windows (num_steps), got {microbatches}")
        if needs.greedy_returns:
            raise ValueError("num_steps must be None with an estimator that needs greedy episodes, which start anew")
        if group_size not in (None, 1) or wanted > 1:
            raise ValueError(
                f"group_size must be 1 with continuing windows (num_steps), whose episodes share no start, "
                f"got {group_size or wanted}"
            )
        if not estimator.fits_windows:
            raise ValueError(
                f"num_steps must be None (complete episodes) unless the estimator's returns bootstrap and no factor "
                f"depends on the time in the episode, got {num_steps}: a window cuts episodes"
            )
    if group_size is None:
        group_size = wanted
    require_integer("group_size", group_size, 1, num_episodes)
    if group_size > 1 and wanted > 1 and group_size != wanted:
        raise ValueError(f"group_size must be the estimator's, {wanted}, or 1 (every start its own), got {group_size}")
    if (num_episodes // microbatches) % group_size:
        of_part = f" of a part, {num_episodes // microbatches}" if microbatches > 1 else f"={num_episodes}"
        raise ValueError(f"group_size must divide num_episodes{of_part}, got {group_size}")
    return group_size


def require_fitting_logits(environment: Environment, policy: Policy, params: PyTree, obs: PyTree) -> None:
    """A categorical policy has one logit for each action of the environment.

    Raises:
        ValueError: otherwise; sampled actions would lie outside the action space, and nothing else would notice.
    """
    space = environment.action_space
    if policy.apply is None or policy.distribution is not categorical or not isinstance(space, Discrete):
        return
    shape = jax.eval_shape(policy.apply, params, obs).shape
    if shape != (space.n,):
        raise ValueError(
            f"policy must give {space.n} logits, one for each action of {environment.name}, got the shape {shape}"
        )


def only_update(estimator: Estimator, num_steps: int | None, microbatches: int) -> tuple[str, ...]:
    """`Trainer.only_update`: the settings by which a trainer collects more than one batch of complete episodes."""
    windows = () if num_steps is None else (f"num_steps={num_steps}",)
    parts = (f"microbatches={microbatches}",) if microbatches > 1 else ()
    greedy = ("an estimator that needs greedy_returns",) if estimator.needs.greedy_returns else ()
    return windows + parts + greedy
