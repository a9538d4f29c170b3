"""Exact values, gradients and moments of estimators, computed without sampling.

A `TabularMDP` is solved by dynamic programming, its trajectories can be enumerated, and the same object can be sampled
as an `Environment`. So one problem shows what an estimator should give, what it gives on average, and what training
with it reaches. For problems with too many trajectories to enumerate, dynamic programs give the moments of whole
families of estimates (`joint_moments`, `step_sums`), their best baselines and the sources of their variance. The cost
of imitation is exact, too: regret, errors on and off the expert's states, and learners from counted data (`imitation`).
Language models have problems of their own (`text`): all answers to a prompt, and best policies near a reference.
"""

from pgjax._linear import pseudo_inverse
from pgjax.exact.imitation.cloning import cloned_probabilities, label_counts, population_dagger, tabular_dagger
from pgjax.exact.imitation.costs import (
    ImitationErrors,
    disagreement,
    expert_support,
    imitation_errors,
    recovery_cost,
    regret,
    with_errors,
)
from pgjax.exact.imitation.examples import (
    compounding_chain,
    compounding_cost,
    first_action,
    reset_cliff,
    reset_cliff_regret,
)
from pgjax.exact.lqg.closed_forms import (
    LinearGaussianValues,
    LinearGaussianVariances,
    linear_gaussian_gradient,
    linear_gaussian_objective,
    linear_gaussian_states,
    linear_gaussian_values,
    linear_gaussian_variances,
)
from pgjax.exact.lqg.problem import (
    LinearGaussian,
    LinearGaussianPolicy,
    linear_gaussian_policy,
    make_linear_gaussian,
    point_mass,
)
from pgjax.exact.lqg.quadratics import Quadratic
from pgjax.exact.mdp.dynamic_programming import (
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
from pgjax.exact.mdp.enumeration import (
    Enumeration,
    enumerate_trajectories,
    enumerated_gradient,
    enumerated_objective,
    select_episodes,
    trajectory_probabilities,
)
from pgjax.exact.mdp.fisher import fisher_matrix, natural_gradient, score_table
from pgjax.exact.mdp.linear_solves import (
    proper_states,
    stationary_action_values,
    stationary_gradient,
    stationary_objective,
    stationary_policy_gradient_theorem,
    stationary_state_values,
    stationary_visitation,
)
from pgjax.exact.mdp.optimal_policies import optimal_probabilities, stationary_optimal_action_values
from pgjax.exact.mdp.tabular import TabularMDP, TabularState, make_bandit, make_tabular_mdp, random_mdp, to_environment
from pgjax.exact.moments.batch_moments import MomentsPlan, count_batches, estimator_moments, groups, plan_moments
from pgjax.exact.moments.joint_moments import JointMoments, return_score_moments, total_return_moments
from pgjax.exact.moments.named_sums import (
    action_value_moments,
    all_action_moments,
    lambda_return_moments,
    reward_to_go_moments,
)
from pgjax.exact.moments.optimal_baselines import (
    one_step_baseline,
    optimal_constant_baseline,
    optimal_parameter_baseline,
    optimal_step_baseline,
)
from pgjax.exact.moments.step_sums import StepSum, step_sum_moments
from pgjax.exact.moments.summary import Moments, moments_of
from pgjax.exact.moments.variance_parts import VarianceDecomposition, return_variances, variance_decomposition
from pgjax.exact.text.answers import (
    Answers,
    answer_log_probs,
    answer_scores,
    enumerate_answers,
    prefix_log_probs,
    prefix_reach,
)
from pgjax.exact.text.best_of_n import best_of_n_kl_bound, best_of_n_log_probs
from pgjax.exact.text.frontiers import Frontier, best_of_n_frontier, goodhart_frontier, long_frontier
from pgjax.exact.text.markov import MarkovModel, after_tokens, fit_markov_model
from pgjax.exact.text.markov_tasks import MarkovTask, make_markov_task, prefix_states
from pgjax.exact.text.soft_optima import soft_optimum
from pgjax.exact.text.table_policies import (
    SampledAnswers,
    SoftOptimum,
    TableValues,
    sample_answers,
    table_kl,
    table_log_probs,
    table_policy,
    table_policy_values,
)
from pgjax.exact.text.tasks import text_mdp
from pgjax.exact.text.tilting import (
    Regularised,
    entropy,
    expected,
    kl_divergence,
    log_partition,
    regularised,
    regularised_objective,
    tilted_log_probs,
)

__all__ = [
    "Answers",
    "Enumeration",
    "Frontier",
    "ImitationErrors",
    "JointMoments",
    "LinearGaussian",
    "LinearGaussianPolicy",
    "LinearGaussianValues",
    "LinearGaussianVariances",
    "MarkovModel",
    "MarkovTask",
    "Moments",
    "MomentsPlan",
    "Quadratic",
    "Regularised",
    "SampledAnswers",
    "SoftOptimum",
    "StepSum",
    "TableValues",
    "TabularMDP",
    "TabularState",
    "VarianceDecomposition",
    "action_value_moments",
    "action_values",
    "after_tokens",
    "all_action_moments",
    "answer_log_probs",
    "answer_scores",
    "best_of_n_frontier",
    "best_of_n_kl_bound",
    "best_of_n_log_probs",
    "cloned_probabilities",
    "compounding_chain",
    "compounding_cost",
    "count_batches",
    "disagreement",
    "entropy",
    "enumerate_answers",
    "enumerate_trajectories",
    "enumerated_gradient",
    "enumerated_objective",
    "estimator_moments",
    "exact_gradient",
    "expected",
    "expert_support",
    "first_action",
    "fisher_matrix",
    "fit_markov_model",
    "goodhart_frontier",
    "groups",
    "imitation_errors",
    "kl_divergence",
    "label_counts",
    "lambda_return_moments",
    "linear_gaussian_gradient",
    "linear_gaussian_objective",
    "linear_gaussian_policy",
    "linear_gaussian_states",
    "linear_gaussian_values",
    "linear_gaussian_variances",
    "log_partition",
    "long_frontier",
    "make_bandit",
    "make_linear_gaussian",
    "make_markov_task",
    "make_tabular_mdp",
    "moments_of",
    "natural_gradient",
    "objective",
    "one_step_baseline",
    "optimal_action_values",
    "optimal_constant_baseline",
    "optimal_parameter_baseline",
    "optimal_probabilities",
    "optimal_step_baseline",
    "plan_moments",
    "point_mass",
    "policy_gradient_theorem",
    "policy_log_probabilities",
    "policy_probabilities",
    "population_dagger",
    "prefix_log_probs",
    "prefix_reach",
    "prefix_states",
    "proper_states",
    "pseudo_inverse",
    "random_mdp",
    "recovery_cost",
    "regret",
    "regularised",
    "regularised_objective",
    "reset_cliff",
    "reset_cliff_regret",
    "return_score_moments",
    "return_variances",
    "reward_to_go_moments",
    "sample_answers",
    "score_table",
    "select_episodes",
    "soft_optimum",
    "state_values",
    "stationary_action_values",
    "stationary_gradient",
    "stationary_objective",
    "stationary_optimal_action_values",
    "stationary_policy_gradient_theorem",
    "stationary_state_values",
    "stationary_visitation",
    "step_sum_moments",
    "table_kl",
    "table_log_probs",
    "table_policy",
    "table_policy_values",
    "tabular_dagger",
    "text_mdp",
    "tilted_log_probs",
    "to_environment",
    "total_return_moments",
    "trajectory_probabilities",
    "variance_decomposition",
    "visitation",
    "with_errors",
]
