"""The sources of the variance of a policy gradient, for any environment.

Episodes are restarted from states that a policy visits, which separates the variance over new futures from the variance
over states.
"""

from pgjax.variance.decomposition import VarianceDecomposition, variance_decomposition
from pgjax.variance.restarts import VisitedStates, check_time, restarted_return, visit_one, visited_states

__all__ = [
    "VarianceDecomposition",
    "VisitedStates",
    "check_time",
    "restarted_return",
    "variance_decomposition",
    "visit_one",
    "visited_states",
]
