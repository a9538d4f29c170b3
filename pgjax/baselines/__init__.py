"""Baselines b(X_t), which an estimator subtracts from the return; each has the functions init, predict and update.

*Use, then update*: `predict` is called on a batch before `update` has seen it. So b is independent of the actions that
it weighs, E[b Σ_t ∇ ln f(X_t, θ)_{A_t}] = 0, and the gradient stays unbiased for every b. If this does not hold for a
baseline (`batch_mean`), its docstring gives the factor.

Axes: T time, B episodes. `trajectory.returns` is the return G of the estimator: G_1 in every row with `total_return`,
G_t in row t with `reward_to_go`. Row 0 is G_1 in both cases.
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
