"""The rows of a fit in random orders: which are held out, and which minibatch each belongs to."""

import jax
import jax.numpy as jnp


def random_rank(key: jax.Array, names: jax.Array) -> jax.Array:
    """A uint32 for each name. It depends on the key and the name alone, and not on which other rows there are."""
    return jax.vmap(lambda name: jax.random.bits(jax.random.fold_in(key, name)))(names)


def hold_out(key: jax.Array, groups: jax.Array, live: jax.Array, fraction: jax.Array) -> jax.Array:
    """Bool `[N]`: all live rows of k randomly drawn groups, where k = round(fraction · G), clipped to 1 … G − 1."""
    rank = random_rank(key, groups)
    # The group itself orders different groups of equal rank; rows that are not live come last.
    order = jnp.lexsort((groups, rank, ~live))
    ordered_groups, ordered_live = groups[order], live[order]
    is_new = jnp.concatenate([jnp.ones(1, bool), ordered_groups[1:] != ordered_groups[:-1]]) & ordered_live
    number = jnp.cumsum(is_new)
    wanted = jnp.round(fraction * number[-1].astype(float)).astype(number.dtype)
    count = jnp.clip(wanted, 1, jnp.maximum(number[-1] - 1, 0))
    return jnp.zeros_like(live).at[order].set(ordered_live & (number <= count))


def minibatches(order: jax.Array, weights: jax.Array, batch_size: int) -> tuple[jax.Array, jax.Array]:
    """The rows in the given order as `[M, n]` indices and weights; weights of 0 fill up the last minibatch."""
    padding = -order.shape[0] % batch_size
    indices = jnp.concatenate([order, jnp.zeros(padding, order.dtype)])
    ordered = jnp.concatenate([weights[order], jnp.zeros(padding, weights.dtype)])
    return indices.reshape(-1, batch_size), ordered.reshape(-1, batch_size)
