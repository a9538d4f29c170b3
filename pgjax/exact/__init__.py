"""The oracle: exact values, gradients and moments of estimators, with nothing sampled.

A `TabularMDP` is solved by dynamic programming, its trajectories are enumerated, and the same object is
sampled as an `Environment`: what an estimator should give, what it gives on average, and what it trains to.
Where there are too many trajectories to enumerate, dynamic programs give the moments of whole families of
estimates (`joint_moments`, `step_sums`), their best baselines and the causes of their variance.
"""

from pgjax.exact.decomposition import VarianceDecomposition, return_variances, variance_decomposition
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
from pgjax.exact.fisher import fisher_matrix, natural_gradient, pseudo_inverse, score_table
from pgjax.exact.joint_moments import JointMoments, return_score_moments, total_return_moments
from pgjax.exact.linear_solves import (
    proper_states,
    stationary_action_values,
    stationary_gradient,
    stationary_objective,
    stationary_policy_gradient_theorem,
    stationary_state_values,
    stationary_visitation,
)
from pgjax.exact.lqg import (
    LinearGaussian,
    LinearGaussianPolicy,
    LinearGaussianValues,
    LinearGaussianVariances,
    linear_gaussian_gradient,
    linear_gaussian_objective,
    linear_gaussian_policy,
    linear_gaussian_states,
    linear_gaussian_values,
    linear_gaussian_variances,
    make_linear_gaussian,
    point_mass,
    point_mass_means,
)
from pgjax.exact.optimal_baselines import (
    one_step_baseline,
    optimal_constant_baseline,
    optimal_parameter_baseline,
    optimal_step_baseline,
)
from pgjax.exact.quadratics import Quadratic
from pgjax.exact.step_sums import (
    StepSum,
    action_value_moments,
    all_action_moments,
    lambda_return_moments,
    reward_to_go_moments,
    step_sum_moments,
)
from pgjax.exact.tabular import (
    TabularMDP,
    TabularState,
    make_bandit,
    make_tabular_mdp,
    random_mdp,
    to_environment,
)

__all__ = [
    "Enumeration",
    "JointMoments",
    "LinearGaussian",
    "LinearGaussianPolicy",
    "LinearGaussianValues",
    "LinearGaussianVariances",
    "Moments",
    "Quadratic",
    "StepSum",
    "TabularMDP",
    "TabularState",
    "VarianceDecomposition",
    "action_value_moments",
    "action_values",
    "all_action_moments",
    "enumerate_trajectories",
    "estimator_moments",
    "exact_gradient",
    "fisher_matrix",
    "groups",
    "lambda_return_moments",
    "linear_gaussian_gradient",
    "linear_gaussian_objective",
    "linear_gaussian_policy",
    "linear_gaussian_states",
    "linear_gaussian_values",
    "linear_gaussian_variances",
    "make_bandit",
    "make_linear_gaussian",
    "make_tabular_mdp",
    "moments",
    "natural_gradient",
    "objective",
    "one_step_baseline",
    "optimal_action_values",
    "optimal_constant_baseline",
    "optimal_parameter_baseline",
    "optimal_step_baseline",
    "point_mass",
    "point_mass_means",
    "policy_gradient_theorem",
    "policy_log_probabilities",
    "policy_probabilities",
    "proper_states",
    "pseudo_inverse",
    "random_mdp",
    "return_score_moments",
    "return_variances",
    "reward_to_go_moments",
    "score_table",
    "select_episodes",
    "state_values",
    "stationary_action_values",
    "stationary_gradient",
    "stationary_objective",
    "stationary_policy_gradient_theorem",
    "stationary_state_values",
    "stationary_visitation",
    "step_sum_moments",
    "to_environment",
    "total_return_moments",
    "trajectory_probabilities",
    "variance_decomposition",
    "visitation",
]
