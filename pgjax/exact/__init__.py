"""The oracle: exact values, gradients and moments of estimators, with nothing sampled.

A `TabularMDP` is solved by dynamic programming, its trajectories are enumerated, and the same object is
sampled as an `Environment`: what an estimator should give, what it gives on average, and what it trains to.
"""

from pgjax.exact.dynamic_programming import (
    action_values,
    exact_gradient,
    objective,
    optimal_action_values,
    policy_gradient_theorem,
    policy_log_probabilities,
    policy_probabilities,
    state_values,
    visitation,
)
from pgjax.exact.enumeration import (
    Enumeration,
    Moments,
    enumerate_trajectories,
    estimator_moments,
    groups,
    moments,
    select_episodes,
    trajectory_probabilities,
)
from pgjax.exact.tabular import TabularMDP, TabularState, make_tabular_mdp, random_mdp, to_environment

__all__ = [
    "Enumeration",
    "Moments",
    "TabularMDP",
    "TabularState",
    "action_values",
    "enumerate_trajectories",
    "estimator_moments",
    "exact_gradient",
    "groups",
    "make_tabular_mdp",
    "moments",
    "objective",
    "optimal_action_values",
    "policy_gradient_theorem",
    "policy_log_probabilities",
    "policy_probabilities",
    "random_mdp",
    "select_episodes",
    "state_values",
    "to_environment",
    "trajectory_probabilities",
    "visitation",
]
