"""Estimators of ∇ρ(θ): returns × baseline × objective, one hot path.

Most estimators are the gradient of a weighted log-likelihood, and `make_estimator` makes them:

    ∇̂ρ = (1/B) Σ_b Σ_t w_t^b ∇ ln f(X_t^b, θ)_{A_t^b},    w_t = G_t − b(X_t),

They differ in their weights. With the defaults the expectation of the estimate is the exact gradient of the objective
ρ(θ) = E[Σ_t R_{t+1}]: the estimate is a sum over time and a mean over complete episodes, and nothing is standardised.
Axes: T time, B episodes.
"""

from pgjax.estimators.critic import CriticEstimatorState, make_critic_estimator
from pgjax.estimators.factorised import at_component_mode, counterfactual, each_component, factorised
from pgjax.estimators.importance import importance_weighted
from pgjax.estimators.kl_losses import KLLossState, kl_loss
from pgjax.estimators.natural import fisher_vector_product, natural, softmax_inverse_fisher
from pgjax.estimators.parts import part_gradients
from pgjax.estimators.per_parameter import PerParameterState, per_parameter
from pgjax.estimators.rules import ReturnRule, lambda_return, n_step, next_values, reward_to_go, total_return
from pgjax.estimators.score_function import clipped_surrogate, make_estimator, record_behaviour, score_function
from pgjax.estimators.sums import sum_of
from pgjax.estimators.weighting import Weighting, make_weighting

__all__ = [
    "CriticEstimatorState",
    "KLLossState",
    "PerParameterState",
    "ReturnRule",
    "Weighting",
    "at_component_mode",
    "clipped_surrogate",
    "counterfactual",
    "each_component",
    "factorised",
    "fisher_vector_product",
    "importance_weighted",
    "kl_loss",
    "lambda_return",
    "make_critic_estimator",
    "make_estimator",
    "make_weighting",
    "n_step",
    "natural",
    "next_values",
    "part_gradients",
    "per_parameter",
    "record_behaviour",
    "reward_to_go",
    "score_function",
    "softmax_inverse_fisher",
    "sum_of",
    "total_return",
]
