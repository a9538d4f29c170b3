"""A random three-state MDP with all its trajectories, shared by the exact tests of estimators; ask under `x64`."""

from functools import partial

import jax
import numpy as np
from closeness import close
from policies import tabular

from pgjax import exact


@partial(jax.jit, static_argnums=1)
def _drawn(seed, num_outcomes):
    mdp = exact.random_mdp(jax.random.key(seed), 3, 2, num_outcomes, 3)
    return mdp, 0.7 * jax.random.normal(jax.random.key(1), (3, 2))


_gradient = jax.jit(partial(exact.exact_gradient, tabular))


@jax.jit
def _facts(params, mdp, enumeration):
    table = exact.policy_probabilities(tabular, params, mdp)
    return exact.trajectory_probabilities(tabular, params, enumeration), table, exact.visitation(mdp, table)


class Problem:
    """The MDP, θ, a batch that holds every trajectory once, their probabilities, and ∇ρ(θ)."""

    def __init__(self, num_outcomes=2, seed=3):
        self.mdp, self.params = _drawn(seed, num_outcomes)
        self.enumeration = exact.enumerate_trajectories(self.mdp)
        self.batch = self.enumeration.trajectories
        self.probabilities, self.table, self.visits = self.facts_at(self.params)
        self.gradient = self.gradient_at()

    def facts_at(self, params):
        """Probabilities of the trajectories `[N]`, π(a|s) `[S, A]` and d_t(s) `[T, S]` of a policy, as NumPy."""
        return jax.device_get(_facts(params, self.mdp, self.enumeration))

    def gradient_at(self, discount=1.0):
        """∇ρ(θ) by differentiating the dynamic program."""
        return np.asarray(_gradient(self.params, self.mdp, discount))

    def each(self, estimators, batch=None, checked=None):
        """The summands of all episodes, `[N, ...]`, by name, in one compilation.

        Those of the names `checked` (all if None; half of the compilation) are asserted to average to `gradient`.
        """
        batch = self.batch if batch is None else batch
        checked = estimators if checked is None else checked

        @jax.jit
        def run(params, batch):
            states = {name: estimator.init(jax.random.key(0), batch) for name, estimator in estimators.items()}
            summands = {name: e.episode_gradients(params, states[name], batch) for name, e in estimators.items()}
            return summands, {name: estimators[name].gradient(params, states[name], batch)[0] for name in checked}

        summands, gradients = run(self.params, batch)
        for name, gradient in gradients.items():
            close(summands[name].mean(axis=0), gradient)
        return jax.tree.map(np.asarray, summands)

    def moments(self, num_episodes, functions):
        """Exact moments of `trajectory → ĝ` by name over all batches of so many episodes, in one compilation."""
        every = lambda trajectory: {name: function(trajectory) for name, function in functions.items()}
        return exact.estimator_moments(every, self.enumeration, self.probabilities, num_episodes)

    def mean(self, summands, probabilities=None):
        """E of a summand `[N, ...]`."""
        return np.tensordot(self.probabilities if probabilities is None else probabilities, summands, 1)

    def scores(self, params):
        """ψ_t of every row, `[T, N, S, A]`, zero where not alive."""
        taken = jax.nn.one_hot(self.batch.actions, 2) - jax.nn.softmax(self.batch.obs @ params)
        scores = np.asarray(self.batch.obs)[..., None] * np.asarray(taken)[..., None, :]
        return np.where(np.asarray(self.batch.alive)[..., None, None], scores, 0.0)
