"""Estimators of ∇ρ(θ): returns × baseline × loss, one hot path.

Most are the gradient of a weighted log-likelihood,

    ∇̂ρ = (1/B) Σ_b Σ_t w_t^b ∇ ln f(X_t^b, θ)_{A_t^b},    w_t = G_t − b(X_t),

with other weights: `make_estimator`. The defaults give the exact gradient of the stated objective ρ(θ) = E[Σ_t R_{t+1}]
in expectation: sum over time, mean over complete episodes, nothing standardised. Axes: T time, B episodes.
"""

from pgjax.estimators.rules import Returns, lambda_return, n_step, next_values, reward_to_go, total_return
from pgjax.estimators.score_function import clipped_surrogate, make_estimator, record_behaviour, score_function

__all__ = [
    "Returns",
    "clipped_surrogate",
    "lambda_return",
    "make_estimator",
    "n_step",
    "next_values",
    "record_behaviour",
    "reward_to_go",
    "score_function",
    "total_return",
]
