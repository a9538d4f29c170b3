"""Functions of `pgjax.exact`, each compiled as a whole: operation by operation they would be a hundred programs."""

import functools

import jax

from pgjax import exact


def _of_policy(function, *options):
    """`(apply, θ, mdp, …)`; the names of `options` are static."""
    return jax.jit(function, static_argnums=0, static_argnames=options)


policy_probabilities = _of_policy(exact.policy_probabilities)
objective = _of_policy(exact.objective)
exact_gradient = _of_policy(exact.exact_gradient)
policy_gradient_theorem = _of_policy(exact.policy_gradient_theorem)
score_table = _of_policy(exact.score_table)
fisher_matrix = _of_policy(exact.fisher_matrix)
trajectory_probabilities = _of_policy(exact.trajectory_probabilities)
enumerated_gradient = _of_policy(exact.enumerated_gradient)
_random_mdp = jax.jit(exact.random_mdp, static_argnums=(1, 2, 3, 4))


@functools.cache
def _drawn(seed, sizes, x64):
    return _random_mdp(jax.random.key(seed), *sizes)


def random_mdp(seed, num_states=4, num_actions=2, num_outcomes=2, horizon=3):
    """The same problem for every test that asks for it."""
    return _drawn(seed, (num_states, num_actions, num_outcomes, horizon), jax.config.jax_enable_x64)
