"""The ladder of baselines b(X_t) behind one signature: init, predict, update.

*Use, then update*: `predict` is asked about a batch before `update` has seen it, so b is independent of the
actions that it weighs and E[b Σ_t ∇ ln f(X_t, θ)_{A_t}] = 0: the gradient stays unbiased whatever b is. The
baselines for which this fails (`batch_mean`) say so, with the factor.

Axes: T time, B episodes. `trajectory.returns` is the estimator's G: G_1 in every row for the total return, G_t in
row t for the reward-to-go; row 0 is G_1 either way.
"""

from pgjax.baselines.critics import action_value_function, action_values
from pgjax.baselines.group_means import batch_mean, leave_one_out
from pgjax.baselines.informed import greedy_rollout, shifted
from pgjax.baselines.optimal import (
    OptimalState,
    optimal_constant,
    optimal_leave_one_out,
    optimal_state,
    optimal_time_dependent,
)
from pgjax.baselines.simple import (
    MovingAverageState,
    TimeDependentState,
    constant,
    moving_average,
    none,
    state_values,
    stateless,
    time_dependent,
)
from pgjax.baselines.value import ValueFunctionState, value_function

__all__ = [
    "MovingAverageState",
    "OptimalState",
    "TimeDependentState",
    "ValueFunctionState",
    "action_value_function",
    "action_values",
    "batch_mean",
    "constant",
    "greedy_rollout",
    "leave_one_out",
    "moving_average",
    "none",
    "optimal_constant",
    "optimal_leave_one_out",
    "optimal_state",
    "optimal_time_dependent",
    "shifted",
    "state_values",
    "stateless",
    "time_dependent",
    "value_function",
]
