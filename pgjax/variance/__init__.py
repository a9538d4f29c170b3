"""Where the variance of a policy gradient comes from, for any environment.

The states that a policy visits are restarted, and the variance over fresh futures is told from that over states.
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
